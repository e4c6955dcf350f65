//! Another codec is the judge: `dhcproto` writes the questions and reads the answers.

use std::collections::HashSet;

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Encodable};
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::serve::network_tests::{WEB, damaged, net, net_with};

const NOW_S: u64 = 1_000_000;

fn question(kind: MessageType, mac: [u8; 6], options: &[DhcpOption]) -> Message {
    let mut message = Message::default();
    message.set_xid(7).set_chaddr(&mac);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message
}

fn ask(net: &Net, book: &mut Book, message: &Message) -> Outcome {
    answer(net, book, &message.to_vec().unwrap(), NOW_S)
}

fn read(outcome: &Outcome) -> Message {
    let Outcome::Send { bytes, .. } = outcome else { panic!("no answer: {outcome:?}") };
    Message::from_bytes(bytes).unwrap()
}

/// One line: what was answered, which address, where to.
fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Send { to, .. } => {
            let message = read(outcome);
            format!("{:?} {} to {to}", message.opts().msg_type().unwrap(), message.yiaddr())
        }
        Outcome::Quiet => "quiet".to_owned(),
        Outcome::Exhausted => "exhausted".to_owned(),
    }
}

#[track_caller]
fn check(net: &Net, book: &mut Book, message: &Message, expected: &str) {
    assert_eq!(brief(&ask(net, book, message)), expected);
}

fn stranger(number: u8) -> [u8; 6] {
    [2, 9, 9, 9, 9, number]
}

fn wish(address: [u8; 4]) -> DhcpOption {
    DhcpOption::RequestedIpAddress(address.into())
}

fn server(address: [u8; 4]) -> DhcpOption {
    DhcpOption::ServerIdentifier(address.into())
}

#[test]
fn an_answer_is_this() {
    let hello = question(MessageType::Discover, WEB, &[DhcpOption::ClientIdentifier(vec![1, 2, 3])]);
    let offer = read(&ask(&net(), &mut Book::default(), &hello));
    let mut options: Vec<_> =
        offer.opts().iter().map(|(code, option)| (u8::from(*code), format!("{option:?}"))).collect();
    options.sort();
    let options: Vec<_> = options.into_iter().map(|(_, option)| option).collect();
    let text = format!(
        "{:?} yiaddr {} siaddr {} file {:?}\n{}\n",
        offer.opcode(),
        offer.yiaddr(),
        offer.siaddr(),
        offer.fname().map(String::from_utf8_lossy),
        options.join("\n")
    );
    check_text(
        &text,
        expect![[r#"
        BootReply yiaddr 10.0.5.10 siaddr 10.0.5.1 file Some("http://10.0.5.1/boot.efi\0")
        SubnetMask(255.255.255.0)
        Router([10.0.5.1])
        DomainNameServer([10.0.5.1])
        Hostname("web")
        DomainName("shop.stead")
        InterfaceMtu(1400)
        BroadcastAddr(10.0.5.255)
        AddressLeaseTime(3600)
        MessageType(Offer)
        ServerIdentifier(10.0.5.1)
        Renewal(1800)
        Rebinding(3150)
        ClientIdentifier([1, 2, 3])
        TFTPServerName([49, 48, 46, 48, 46, 53, 46, 49])
        BootfileName([104, 116, 116, 112, 58, 47, 47, 49, 48, 46, 48, 46, 53, 46, 49, 47, 98, 111, 111, 116, 46, 101, 102, 105])
        DomainSearch([Name("shop.stead.")])
    "#]],
    );
}

#[track_caller]
fn check_text(text: &str, expected: Expect) {
    expected.assert_eq(text);
}

#[test]
fn a_declared_machine_has_its_address_and_no_other() {
    let (net, mut book) = (net(), Book::default());
    let check = |message: &Message, expected: &str| check(&net, &mut Book::default(), message, expected);
    check(&question(MessageType::Discover, WEB, &[]), "Offer 10.0.5.10 to 255.255.255.255:68");
    check(
        &question(MessageType::Discover, WEB, &[wish([10, 0, 5, 200])]),
        "Offer 10.0.5.10 to 255.255.255.255:68",
    );
    check(
        &question(MessageType::Request, WEB, &[wish([10, 0, 5, 10])]),
        "Ack 10.0.5.10 to 255.255.255.255:68",
    );
    check(&question(MessageType::Request, WEB, &[wish([10, 0, 5, 11])]), "Nak 0.0.0.0 to 255.255.255.255:68");
    check(&question(MessageType::Request, WEB, &[wish([10, 0, 5, 10]), server([10, 0, 5, 9])]), "quiet");
    check(&question(MessageType::Request, WEB, &[]), "quiet");
    // `dhcproto` does not write an empty option, so this one is put in by hand.
    let mut rapid = question(MessageType::Discover, WEB, &[]).to_vec().unwrap();
    let end = rapid.iter().rposition(|byte| *byte == 255).unwrap();
    rapid.splice(end..end, [80, 0]);
    assert_eq!(brief(&answer(&net, &mut book, &rapid, NOW_S)), "Ack 10.0.5.10 to 255.255.255.255:68");
    let mut renewal = question(MessageType::Request, WEB, &[]);
    renewal.set_ciaddr([10, 0, 5, 10]);
    check(&renewal, "Ack 10.0.5.10 to 10.0.5.10:68");
    let mut inform = question(MessageType::Inform, WEB, &[]);
    check(&inform, "quiet");
    inform.set_ciaddr([10, 0, 5, 10]);
    check(&inform, "Ack 0.0.0.0 to 10.0.5.10:68");
    inform.set_ciaddr([192, 0, 2, 1]);
    check(&inform, "quiet");
    let _ = ask(&net, &mut book, &question(MessageType::Request, WEB, &[wish([10, 0, 5, 10])]));
    assert!(book.list().is_empty(), "nothing about it is remembered");
}

#[test]
fn strangers_share_the_pool_until_it_is_empty() {
    let (net, mut book) = (net(), Book::default());
    let mut given = HashSet::new();
    for number in 0..4 {
        let offer = read(&ask(&net, &mut book, &question(MessageType::Discover, stranger(number), &[])));
        let options = [wish(offer.yiaddr().octets()), server([10, 0, 5, 1])];
        let request = question(MessageType::Request, stranger(number), &options);
        check(&net, &mut book, &request, &format!("Ack {} to 255.255.255.255:68", offer.yiaddr()));
        given.insert(offer.yiaddr());
    }
    assert_eq!(given.len(), 4);
    check(&net, &mut book, &question(MessageType::Discover, stranger(9), &[]), "exhausted");
    check(
        &net,
        &mut book,
        &question(MessageType::Request, stranger(9), &[wish([10, 0, 5, 200])]),
        "Nak 0.0.0.0 to 255.255.255.255:68",
    );
    // Declared machines are served all the same.
    check(
        &net,
        &mut book,
        &question(MessageType::Discover, WEB, &[]),
        "Offer 10.0.5.10 to 255.255.255.255:68",
    );
    // One goes: the next one has its address.
    let free = book.list()[0].clone();
    let mut release = question(MessageType::Release, free.mac.bytes(), &[]);
    release.set_ciaddr(free.address);
    check(&net, &mut book, &release, "quiet");
    let expected = format!("Offer {} to 255.255.255.255:68", free.address);
    check(&net, &mut book, &question(MessageType::Discover, stranger(9), &[]), &expected);
    // All end; and one that finds its address in use leaves it alone for a while.
    let later = question(MessageType::Request, stranger(9), &[wish([10, 0, 5, 203])]).to_vec().unwrap();
    assert_eq!(brief(&answer(&net, &mut book, &later, NOW_S + 3600)), "Ack 10.0.5.203 to 255.255.255.255:68");
    assert_eq!(book.list().len(), 1);
    check(&net, &mut book, &question(MessageType::Decline, stranger(9), &[wish([10, 0, 5, 203])]), "quiet");
    check(
        &net,
        &mut book,
        &question(MessageType::Request, stranger(8), &[wish([10, 0, 5, 203])]),
        "Nak 0.0.0.0 to 255.255.255.255:68",
    );
}

#[test]
fn offers_take_nothing_away() {
    let (net, mut book) = (net(), Book::default());
    for number in 0..=255 {
        let _ = ask(&net, &mut book, &question(MessageType::Discover, stranger(number), &[]));
    }
    assert!(book.list().is_empty() && !book.is_changed());
}

#[test]
fn without_a_pool_strangers_get_no_answer() {
    let net = net_with(|network| network.dhcp.as_mut().unwrap().pool = None);
    let mut book = Book::default();
    check(&net, &mut book, &question(MessageType::Discover, stranger(1), &[]), "quiet");
    check(&net, &mut book, &question(MessageType::Request, stranger(1), &[wish([10, 0, 5, 200])]), "quiet");
}

#[test]
fn a_router_is_named_only_where_something_lies_beyond() {
    let net = net_with(|network| network.routes = false);
    let offer = read(&ask(&net, &mut Book::default(), &question(MessageType::Discover, WEB, &[])));
    assert!(offer.opts().get(OptionCode::Router).is_none());
}

#[test]
fn a_relayed_or_foreign_packet_is_ignored() {
    let mut relayed = question(MessageType::Discover, WEB, &[]);
    relayed.set_giaddr([10, 0, 5, 9]);
    check(&net(), &mut Book::default(), &relayed, "quiet");
    let mut answer = question(MessageType::Discover, WEB, &[]);
    answer.set_opcode(dhcproto::v4::Opcode::BootReply);
    check(&net(), &mut Book::default(), &answer, "quiet");
}

#[test]
fn leases_are_restored() {
    let (net, mut book) = (net(), Book::default());
    let id = DhcpOption::ClientIdentifier(vec![0xff, 0, 0xab]);
    let request = question(
        MessageType::Request,
        stranger(1),
        &[wish([10, 0, 5, 201]), id.clone(), DhcpOption::Hostname("Laptop".into())],
    );
    check(&net, &mut book, &request, "Ack 10.0.5.201 to 255.255.255.255:68");
    assert!(book.take_changed());
    let lease = &book.list()[0];
    assert_eq!((lease.client_id.as_str(), lease.host_name.as_deref()), ("ff00ab", Some("laptop")));
    let mut restored = Book::restore(&book.list());
    assert_eq!(restored.list(), book.list());
    check(
        &net,
        &mut restored,
        &question(MessageType::Discover, stranger(1), &[id]),
        "Offer 10.0.5.201 to 255.255.255.255:68",
    );
    check(
        &net,
        &mut restored,
        &question(MessageType::Request, stranger(2), &[wish([10, 0, 5, 201])]),
        "Nak 0.0.0.0 to 255.255.255.255:68",
    );
}

proptest! {
    #[test]
    fn no_packet_does_harm(packet in damaged(vec![
        question(MessageType::Discover, WEB, &[DhcpOption::Hostname("a".into())]).to_vec().unwrap(),
        question(MessageType::Request, stranger(1), &[wish([10, 0, 5, 201])]).to_vec().unwrap(),
        question(MessageType::Decline, stranger(1), &[wish([10, 0, 5, 201])]).to_vec().unwrap(),
    ])) {
        let mut book = Book::default();
        if let Outcome::Send { bytes, .. } = answer(&net(), &mut book, &packet, NOW_S) {
            prop_assert!(bytes.len() < 1200);
            Message::from_bytes(&bytes).unwrap();
        }
    }

    #[test]
    fn no_two_clients_ever_hold_one_address(orders in prop::collection::vec((0..6_u8, 0..4_u8, 198..206_u8, 0..3000_u64), 1..80)) {
        let (net, mut book) = (net(), Book::default());
        let mut now_s = NOW_S;
        for (client, order, last, wait) in orders {
            now_s += wait;
            let address = [10, 0, 5, last];
            let kind = [MessageType::Discover, MessageType::Request, MessageType::Release, MessageType::Decline][usize::from(order)];
            let mut message = question(kind, stranger(client), &[wish(address)]);
            if kind == MessageType::Release {
                message.set_ciaddr(address);
            }
            let _ = answer(&net, &mut book, &message.to_vec().unwrap(), now_s);
            let leases = book.list();
            let addresses: HashSet<_> = leases.iter().map(|lease| lease.address).collect();
            prop_assert_eq!(addresses.len(), leases.len());
            prop_assert!(leases.iter().all(|lease| (200..=203).contains(&lease.address.octets()[3])));
        }
    }
}

//! Another codec is the judge: `dhcproto` writes the questions and reads the answers.

use dhcproto::v6::{DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, Message, MessageType};
use dhcproto::{Decodable, Encodable};
use proptest::prelude::*;

use super::*;
use crate::serve::network_tests::{WEB, damaged, net, net_with};

const SERVER: [u8; 10] = [0, 3, 0, 1, 2, 0xaa, 0, 0, 0, 1];

fn client_id() -> DhcpOption {
    DhcpOption::ClientId(vec![0, 4, 1, 2, 3, 4])
}

fn association(addresses: &[&str]) -> DhcpOption {
    let mut opts = DhcpOptions::new();
    for address in addresses {
        let addr = address.parse().unwrap();
        opts.insert(DhcpOption::IAAddr(IAAddr {
            addr,
            preferred_life: 0,
            valid_life: 0,
            opts: DhcpOptions::new(),
        }));
    }
    DhcpOption::IANA(IANA { id: 5, t1: 0, t2: 0, opts })
}

fn question(kind: MessageType, options: &[DhcpOption]) -> Vec<u8> {
    let mut message = Message::new_with_id(kind, [1, 2, 3]);
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message.to_vec().unwrap()
}

#[allow(clippy::wildcard_enum_match_arm)] // Only a few of the judge's options matter here.
/// What was answered: the kind, the addresses with their lifetimes, and the codes of all statuses.
fn brief(answer: Option<Vec<u8>>) -> String {
    let Some(answer) = answer else { return "quiet".to_owned() };
    let message = Message::from_bytes(&answer).unwrap();
    assert_eq!(message.xid(), [1, 2, 3]);
    let mut text = format!("{:?}", message.msg_type());
    let mut tell = |opts: &DhcpOptions| {
        for option in opts.iter() {
            match option {
                DhcpOption::IAAddr(address) => text += &format!(" {} {}", address.addr, address.valid_life),
                DhcpOption::StatusCode(status) => text += &format!(" {:?}", status.status),
                _ => {}
            }
        }
    };
    for option in message.opts().iter() {
        match option {
            DhcpOption::IANA(association) => tell(&association.opts),
            DhcpOption::IAPD(association) => tell(&association.opts),
            _ => {}
        }
    }
    tell(message.opts());
    text
}

#[track_caller]
fn check(mac: [u8; 6], kind: MessageType, options: &[DhcpOption], expected: &str) {
    let mac = Mac::new(mac).unwrap();
    assert_eq!(brief(answer(&net(), mac, &question(kind, options))), expected);
}

#[test]
fn each_message_has_its_answer() {
    let server = || DhcpOption::ServerId(SERVER.to_vec());
    check(WEB, MessageType::Solicit, &[client_id(), association(&[])], "Advertise fd00:5::a 3600");
    check(
        WEB,
        MessageType::Solicit,
        &[client_id(), association(&[]), DhcpOption::RapidCommit],
        "Reply fd00:5::a 3600",
    );
    check(WEB, MessageType::Request, &[client_id(), server(), association(&[])], "Reply fd00:5::a 3600");
    check(
        WEB,
        MessageType::Renew,
        &[client_id(), server(), association(&["fd00:5::a"])],
        "Reply fd00:5::a 3600",
    );
    check(
        WEB,
        MessageType::Rebind,
        &[client_id(), association(&["fd00:5::b"])],
        "Reply fd00:5::a 3600 fd00:5::b 0",
    );
    check(WEB, MessageType::Confirm, &[client_id(), association(&["fd00:5::a"])], "Reply Success");
    check(WEB, MessageType::Confirm, &[client_id(), association(&["fd00:9::a"])], "Reply NotOnLink");
    check(WEB, MessageType::Confirm, &[client_id(), association(&[])], "quiet");
    check(WEB, MessageType::Release, &[client_id(), server(), association(&["fd00:5::a"])], "Reply Success");
    check(WEB, MessageType::Decline, &[client_id(), server(), association(&["fd00:5::a"])], "Reply Success");
    check(WEB, MessageType::InformationRequest, &[], "Reply");
    let prefix = DhcpOption::IAPD(IAPD { id: 1, t1: 0, t2: 0, opts: DhcpOptions::new() });
    check(WEB, MessageType::Solicit, &[client_id(), prefix], "Advertise NoPrefixAvail");
}

#[test]
fn who_does_not_say_who_is_meant_is_ignored() {
    let other = || DhcpOption::ServerId(vec![0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
    check(WEB, MessageType::Solicit, &[association(&[])], "quiet");
    check(WEB, MessageType::Solicit, &[client_id(), other()], "quiet");
    check(WEB, MessageType::Request, &[client_id(), association(&[])], "quiet");
    check(WEB, MessageType::Request, &[client_id(), other(), association(&[])], "quiet");
    check(WEB, MessageType::Advertise, &[client_id()], "quiet");
}

#[test]
fn a_stranger_gets_the_address_that_its_mac_spells() {
    check(
        [2, 0x99, 0, 0, 0, 1],
        MessageType::Solicit,
        &[client_id(), association(&[])],
        "Advertise fd00:5::d6:299:0:1 3600",
    );
    // Unless a machine has just that one.
    let net = net_with(|network| {
        network.hosts.get_mut(&Mac::new(WEB).unwrap()).unwrap().address6 =
            Some("fd00:5::d6:299:0:1".parse().unwrap());
    });
    let stranger = Mac::new([2, 0x99, 0, 0, 0, 1]).unwrap();
    assert_eq!(
        brief(answer(&net, stranger, &question(MessageType::Solicit, &[client_id(), association(&[])]))),
        "Advertise NoAddrsAvail"
    );
}

#[test]
fn a_datagram_is_taken_out_of_its_packet() {
    let mut packet = vec![0x60, 0, 0, 0, 0, 12, 17, 1];
    packet.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(SERVERS.octets());
    packet.extend([2, 34, 2, 35, 0, 12, 0, 0, 1, 2, 3, 4]);
    let source = "fe80::1".parse().unwrap();
    assert_eq!(datagram(&packet), Some(Datagram { source, payload: &[1, 2, 3, 4] }));
    packet[45] = 13;
    assert_eq!(datagram(&packet), None, "it says that it is longer than it is");
}

proptest! {
    #[test]
    fn no_packet_does_harm(packet in damaged(vec![
        question(MessageType::Solicit, &[client_id(), association(&["fd00:5::b", "fd00:5::c"])]),
        question(MessageType::Rebind, &[client_id(), association(&["fd00:5::b"]), association(&[])]),
        question(MessageType::InformationRequest, &[client_id()]),
    ])) {
        let _ = datagram(&packet);
        if let Some(answer) = answer(&net(), Mac::new(WEB).unwrap(), &packet) {
            Message::from_bytes(&answer).unwrap();
        }
    }
}

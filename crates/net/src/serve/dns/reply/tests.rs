//! Lawful answers of other resolvers are kept, damaged and foreign ones are not.

use proptest::prelude::*;

use super::*;
use crate::serve::dns::{Transport, relay};
use crate::serve::network_tests::damaged;

const SOA: [u8; 22] = [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 60];

fn question() -> Question {
    Question { name: (*b"\x01a\x07example\0").into(), kind: kind::A, dnssec: false, unchecked: false }
}

/// A message of a resolver: flags, answers and authorities as type, lifetime, value.
fn message(flags: u16, answers: &[(u16, u32, &[u8])], authorities: &[(u16, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let counts = [answers.len(), authorities.len()].map(|count| u16::try_from(count).unwrap());
    for field in [7, 0x8180 | flags, 1, counts[0], counts[1], 1] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(b"\x01A\x07eXample\0\0\x01\0\x01");
    for (kind, ttl, value) in answers.iter().chain(authorities) {
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(*value);
    }
    bytes.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    bytes
}

fn reply(message: &[u8]) -> Reply {
    match hear(message, 7, &question()) {
        Heard::Reply(reply) => reply,
        other @ (Heard::Stray | Heard::Cut) => panic!("{other:?}"),
    }
}

const ADDRESS: (u16, u32, &[u8]) = (1, 300, &[192, 0, 2, 1]);

#[test]
fn only_the_answer_to_our_question_is_heard() {
    let good = message(0, &[ADDRESS], &[]);
    assert!(matches!(hear(&good, 7, &question()), Heard::Reply(_)));
    assert_eq!(hear(&good, 8, &question()), Heard::Stray);
    assert_eq!(hear(&good, 7, &Question { kind: 28, ..question() }), Heard::Stray);
    assert_eq!(
        hear(&good, 7, &Question { name: (*b"\x01b\x07example\0").into(), ..question() }),
        Heard::Stray
    );
    assert_eq!(hear(&message(0x0200, &[], &[]), 7, &question()), Heard::Cut);
    let mut question_itself = good.clone();
    question_itself[2] &= 0x7f;
    assert_eq!(hear(&question_itself, 7, &question()), Heard::Stray);
    assert_eq!(hear(&good[..good.len() - 14], 7, &question()), Heard::Stray, "cut");
}

#[test]
fn a_reply_lives_as_long_as_its_shortest_record() {
    assert_eq!(reply(&message(0, &[ADDRESS, (1, 20, &[192, 0, 2, 2])], &[])).lifetime_s, 20);
    assert_eq!(reply(&message(0, &[(1, u32::MAX, &[192, 0, 2, 1])], &[])).lifetime_s, 0);
    assert_eq!(reply(&message(3, &[], &[(6, 300, &SOA)])).lifetime_s, 60, "the SOA's minimum");
    assert_eq!(reply(&message(0, &[], &[(6, 30, &SOA)])).lifetime_s, 30, "the SOA's own lifetime");
    assert_eq!(reply(&message(3, &[], &[])).lifetime_s, 0, "nobody said how long it will be absent");
    assert_eq!(reply(&message(2, &[], &[])).lifetime_s, 0);
}

#[test]
fn a_client_gets_its_own_case_and_what_is_left_of_the_lifetime() {
    let packet = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x01a\x07EXAMPLE\0\0\x01\0\x01";
    let answer = relay(packet, Transport::Udp, &reply(&message(0, &[ADDRESS], &[])), 100).unwrap();
    assert_eq!(&answer[..2], b"\x12\x34");
    assert_eq!(&answer[12..23], b"\x01a\x07EXAMPLE\0");
    assert_eq!(
        &answer[27..],
        [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 200, 0, 4, 192, 0, 2, 1],
        "no EDNS: it sent none"
    );
}

proptest! {
    #[test]
    fn no_answer_does_harm(packet in damaged(vec![
        message(0, &[ADDRESS, ADDRESS], &[]),
        message(3, &[], &[(6, 300, &SOA)]),
    ])) {
        if let Heard::Reply(reply) = hear(&packet, 7, &question()) {
            let asked = ask(&question(), 9);
            let answer = relay(&asked, Transport::Tcp, &reply, 1000).unwrap();
            prop_assert!(answer.len() <= packet.len() + 11 + 16);
        }
    }
}

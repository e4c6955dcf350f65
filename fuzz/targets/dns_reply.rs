//! What other resolvers may say, and what clients are then told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stead_net::serve::dns::reply::{Heard, ask, hear};
use stead_net::serve::dns::{Question, Transport, relay};

fuzz_target!(init: stead_fuzz::seeds::plant("dns_reply"), |packet: &[u8]| {
    let question =
        Question { name: (*b"\x01a\x07example\0").into(), kind: 1, dnssec: false, unchecked: false };
    if let Heard::Reply(reply) = hear(packet, 7, &question) {
        for transport in [Transport::Udp, Transport::Tcp] {
            let answer =
                relay(&ask(&question, 9), transport, &reply, 100).expect("our own question is lawful");
            assert!(answer.len() <= packet.len() + 32);
        }
    }
});

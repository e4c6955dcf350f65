//! DHCPv6: whole IPv6 packets, and messages by themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stead_fuzz::NET;
use stead_model::address::Mac;
use stead_net::serve::dhcp6::{answer, datagram};

fuzz_target!(init: stead_fuzz::seeds::plant("dhcp6"), |bytes: &[u8]| {
    let payloads = [datagram(bytes).map_or(&[][..], |datagram| datagram.payload), bytes];
    for mac in [[2, 0, 0, 0, 0, 0x0a], [2, 9, 9, 9, 9, 9]] {
        for payload in payloads {
            if let Some(answer) = answer(&NET, Mac::new(mac).expect("lawful"), payload) {
                assert!(answer.len() < 16 * 16 * 40);
            }
        }
    }
});

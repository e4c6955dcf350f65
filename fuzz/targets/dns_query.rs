//! DNS questions of any form.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use stead_fuzz::NET;
use stead_net::serve::dns::reply::Reply;
use stead_net::serve::dns::{Decision, Transport, decide, relay};

const ASKER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 5, 10));

fuzz_target!(init: stead_fuzz::seeds::plant("dns_query"), |packet: &[u8]| {
    for transport in [Transport::Udp, Transport::Tcp] {
        let answer = match decide(&NET, ASKER, packet, transport) {
            Decision::Answer(answer) => answer,
            Decision::Forward(_) => {
                relay(packet, transport, &Reply::failed(), 0).expect("what is forwarded can be answered")
            }
            Decision::Silence => continue,
        };
        assert!(answer.len() <= 1232 && answer[..2] == packet[..2]);
    }
});

//! ICMPv6 messages of any form.
#![no_main]

use std::net::Ipv6Addr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use stead_net::serve::advert::{Schedule, is_solicitation};

fuzz_target!(init: stead_fuzz::seeds::plant("solicitation"), |message: &[u8]| {
    let mut schedule = Schedule::new(Duration::ZERO);
    for source in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST] {
        if is_solicitation(message, source) {
            assert!(message.len() >= 8);
            schedule.solicited(Duration::from_secs(1), source);
        }
    }
});

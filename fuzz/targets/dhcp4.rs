//! DHCPv4 packets of any form: every 400 bytes are one, so that a run can hold a short conversation with one book.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stead_fuzz::NET;
use stead_net::serve::dhcp4::{Outcome, answer};
use stead_net::serve::leases::{Book, LEASES_MAX};

fuzz_target!(init: stead_fuzz::seeds::plant("dhcp4"), |bytes: &[u8]| {
    let mut book = Book::default();
    for (number, packet) in bytes.chunks(400).enumerate() {
        if let Outcome::Send { bytes, .. } = answer(&NET, &mut book, packet, number as u64 * 1000) {
            assert!((300..1500).contains(&bytes.len()));
        }
    }
    let leases = book.list();
    assert!(leases.len() <= LEASES_MAX && leases.windows(2).all(|two| two[0].address < two[1].address));
    assert_eq!(Book::restore(&leases).list(), leases);
});

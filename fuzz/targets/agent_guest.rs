//! What a confused host sends to a guest: its end of the protocol takes in no more than its windows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stead_agent::mux::{Channel, Event, Mux, PIECE_COST_BYTES, STREAMS_MAX, WINDOW_BYTES};
use stead_fuzz::frames::{hello, stream};

fuzz_target!(init: stead_fuzz::seeds::plant("agent_guest"), |bytes: &[u8]| {
    let mut guest = Mux::guest(b"{}".to_vec());
    guest.receive(&hello()).expect("a hello breaks no rule");
    for piece in bytes.chunks(600) {
        let result = guest.receive(&stream(piece));
        let mut kept = 0;
        while let Some(event) = guest.next_event() {
            match event {
                Event::Data(id, _, bytes) => {
                    kept += bytes.len() + PIECE_COST_BYTES;
                    guest.taken(id, bytes.len());
                }
                Event::Opened(id) => drop(guest.send(id, Channel::Output, b"answer")),
                Event::Word(id, word) => drop(guest.say(id, &word)),
                Event::Ended(id) => guest.close(id),
                Event::Hello(_) | Event::Room(_) | Event::Broken(..) => {}
            }
        }
        assert!(kept <= STREAMS_MAX * (WINDOW_BYTES + PIECE_COST_BYTES));
        if result.is_err() {
            return;
        }
        let length = guest.pending().len();
        guest.sent(length);
    }
});

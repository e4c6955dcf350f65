//! What a hostile guest sends to the keeper of its machine. Whatever it is, a session takes in no more than its windows, and
//! what it hands out is of calls that were made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stead_agent::message::Request;
use stead_agent::mux::{PIECE_COST_BYTES, WINDOW_BYTES, WORD_MAX_BYTES};
use stead_agent::{Happening, Session};
use stead_fuzz::frames::{SESSION, hello, stream};

fuzz_target!(init: stead_fuzz::seeds::plant("agent_host"), |bytes: &[u8]| {
    let mut session = Session::numbered(SESSION);
    session.receive(&hello()).expect("a hello breaks no rule");
    let mut calls: Vec<_> = (0..4).map(|_| session.ask(&Request::Watch).expect("there is room")).collect();
    let mut kept = 0;
    // All at once, then piece by piece with everything taken in.
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let mut is_broken = session.receive(&stream(first)).is_err();
    while let Some(happening) = session.next_event() {
        if let Happening::Bytes(call, _, bytes) = &happening {
            assert!(calls.contains(call));
            kept += bytes.len() + PIECE_COST_BYTES;
        }
    }
    assert!(kept <= 4 * (WINDOW_BYTES + PIECE_COST_BYTES));
    for piece in rest.chunks(300) {
        if is_broken {
            break;
        }
        is_broken = session.receive(&stream(piece)).is_err();
        while let Some(happening) = session.next_event() {
            match happening {
                Happening::Bytes(call, _, bytes) => session.taken(call, bytes.len()),
                Happening::Over(call) | Happening::Broken(call, _) => calls.retain(|known| *known != call),
                Happening::Word(call, _) => assert!(calls.contains(&call)),
                Happening::Hello(_) | Happening::Foreign(_) | Happening::Room(_) => {}
            }
        }
        let length = session.pending().len();
        assert!(length < WORD_MAX_BYTES);
        session.sent(length);
    }
});

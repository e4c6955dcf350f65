//! Both ends of a connection, without anything between them: order, windows, fairness, breaks, and peers that break the rules.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use stead_agent::mux::{Channel, Event, Mux, PIECE_COST_BYTES, STREAMS_MAX, StreamId, WINDOW_BYTES};

/// Carries what one end has to send to the other one, at most so many bytes at once; false if nothing was there.
fn carry(from: &mut Mux, to: &mut Mux, piece: usize) -> bool {
    let bytes = from.pending();
    let length = bytes.len().min(piece);
    let bytes = bytes[..length].to_vec();
    from.sent(length);
    to.receive(&bytes).unwrap();
    length > 0
}

/// Carries all there is, both ways.
fn settle(one: &mut Mux, other: &mut Mux) {
    while carry(one, other, usize::MAX) | carry(other, one, usize::MAX) {}
}

fn pair() -> (Mux, Mux) {
    let (mut host, mut guest) = (Mux::host(7, b"host".to_vec()), Mux::guest(b"guest".to_vec()));
    settle(&mut host, &mut guest);
    assert_eq!(guest.next_event(), Some(Event::Hello(b"host".to_vec())));
    assert_eq!(host.next_event(), Some(Event::Hello(b"guest".to_vec())));
    (host, guest)
}

/// What came, but that there is room again.
fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.next_event()).filter(|event| !matches!(event, Event::Room(_))).collect()
}

#[test]
fn a_stream_is_opened_used_and_ended_by_both() {
    let (mut host, mut guest) = pair();
    let id = host.open().unwrap();
    assert!(host.say(id, br#"{"a":1}"#));
    assert_eq!(host.send(id, Channel::Input, b"typed"), 5);
    settle(&mut host, &mut guest);
    assert_eq!(
        events(&mut guest),
        [
            Event::Opened(id),
            Event::Word(id, br#"{"a":1}"#.to_vec()),
            Event::Data(id, Channel::Input, b"typed".to_vec())
        ]
    );
    guest.send(id, Channel::Output, b"out");
    guest.send(id, Channel::Error, b"err");
    guest.end(id);
    settle(&mut host, &mut guest);
    assert_eq!(
        events(&mut host),
        [
            Event::Data(id, Channel::Output, b"out".to_vec()),
            Event::Data(id, Channel::Error, b"err".to_vec()),
            Event::Ended(id)
        ]
    );
    host.close(id);
    settle(&mut host, &mut guest);
    assert_eq!(events(&mut guest), [Event::Ended(id)]);
    assert!(!host.has(id) && !guest.has(id));
}

#[test]
fn a_word_longer_than_a_window_arrives_whole() {
    let (mut host, mut guest) = pair();
    let id = host.open().unwrap();
    let word = vec![b'x'; 100_000];
    assert!(host.say(id, &word));
    assert_eq!(host.send(id, Channel::Input, b"not before the word"), 0);
    let mut heard = Vec::new();
    while carry(&mut host, &mut guest, 5000) | carry(&mut guest, &mut host, 5000) {
        heard.extend(events(&mut guest));
        let _room = events(&mut host);
    }
    assert_eq!(heard, [Event::Opened(id), Event::Word(id, word)]);
    assert_eq!(host.send(id, Channel::Input, b"now"), 3);
}

#[test]
fn who_does_not_read_holds_up_nobody_else() {
    let (mut host, mut guest) = pair();
    let (stuck, lively) = (host.open().unwrap(), host.open().unwrap());
    settle(&mut host, &mut guest);
    let _opened = events(&mut guest);
    let mut sent = 0;
    let mut got = 0;
    for _ in 0..100 {
        guest.send(stuck, Channel::Output, &[1; 10_000]);
        sent += guest.send(lively, Channel::Output, &[2; 10_000]);
        settle(&mut host, &mut guest);
        for event in events(&mut host) {
            if let Event::Data(id, _, bytes) = event
                && id == lively
            {
                got += bytes.len();
                host.taken(id, bytes.len());
            }
        }
        settle(&mut host, &mut guest);
        let _room = events(&mut guest);
    }
    assert_eq!((sent, got), (1_000_000, 1_000_000));
    assert_eq!(guest.send(stuck, Channel::Output, b"more"), 0);
    assert_eq!(guest.peer_taken(lively), 1_000_000);
    assert_eq!(guest.peer_taken(stuck), 0);
}

#[test]
fn streams_take_turns() {
    let (mut host, mut guest) = pair();
    let ids: Vec<StreamId> = (0..4).map(|_| host.open().unwrap()).collect();
    settle(&mut host, &mut guest);
    let _opened = events(&mut guest);
    for id in &ids {
        assert!(guest.send(*id, Channel::Output, &[0; WINDOW_BYTES]) > 60_000);
    }
    // What is under way first has something of each of them.
    carry(&mut guest, &mut host, 70_000);
    let mut order: Vec<StreamId> = Vec::new();
    for event in events(&mut host) {
        if let Event::Data(id, ..) = event {
            order.push(id);
        }
    }
    assert_eq!(order[..3].iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{order:?}");
}

#[test]
fn another_host_begins_anew_and_what_was_under_way_is_dropped() {
    let (mut host, mut guest) = pair();
    let id = host.open().unwrap();
    host.say(id, b"first");
    settle(&mut host, &mut guest);
    let _opened = events(&mut guest);
    guest.send(id, Channel::Output, &[9; 50_000]);
    host.send(id, Channel::Input, &[9; 1000]);
    // Half a frame each way, and then the host is another one.
    let half = host.pending()[..500].to_vec();
    guest.receive(&half).unwrap();
    let stale = guest.pending()[..20_000].to_vec();
    guest.sent(20_000);
    let mut other = Mux::host(8, b"other".to_vec());
    other.receive(&stale).unwrap();
    let call = other.open().unwrap();
    other.say(call, b"second");
    settle(&mut other, &mut guest);
    assert_eq!(
        events(&mut guest),
        [Event::Hello(b"other".to_vec()), Event::Opened(call), Event::Word(call, b"second".to_vec())]
    );
    assert_eq!(events(&mut other), [Event::Hello(b"guest".to_vec())]);
    // Saying hello again changes nothing.
    other.greet();
    settle(&mut other, &mut guest);
    assert_eq!(events(&mut guest), []);
    guest.send(call, Channel::Output, b"answer");
    settle(&mut other, &mut guest);
    assert_eq!(events(&mut other), [Event::Data(call, Channel::Output, b"answer".to_vec())]);
}

#[test]
fn a_broken_stream_is_broken_at_both_ends() {
    let (mut host, mut guest) = pair();
    let id = host.open().unwrap();
    settle(&mut host, &mut guest);
    let _opened = events(&mut guest);
    guest.send(id, Channel::Output, b"too late");
    host.reset(id, "nobody waits");
    settle(&mut host, &mut guest);
    assert_eq!(events(&mut guest), [Event::Broken(id, "nobody waits".to_owned())]);
    assert_eq!(events(&mut host), []);
    // One that the other end never heard of leaves no trace.
    let unheard = host.open().unwrap();
    host.reset(unheard, "never mind");
    settle(&mut host, &mut guest);
    assert_eq!(events(&mut guest), []);
}

#[test]
fn there_are_only_so_many_streams() {
    let (mut host, _guest) = pair();
    for _ in 0..STREAMS_MAX {
        assert!(host.open().is_some());
    }
    assert!(host.open().is_none());
}

/// What two ends do to each other.
#[derive(Clone, Debug)]
enum Deed {
    Open,
    Say(usize, Vec<u8>),
    Send(usize, bool, usize),
    Take(bool),
    End(usize, bool),
    Carry(bool, usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let word = prop::collection::vec(prop_oneof![Just(b'a'), Just(0u8), Just(255u8)], 1..300);
    prop_oneof![
        1 => Just(Deed::Open),
        2 => (0usize..6, word).prop_map(|(stream, word)| Deed::Say(stream, word)),
        6 => (0usize..6, any::<bool>(), 1usize..40_000).prop_map(|(stream, host, length)| Deed::Send(stream, host, length)),
        6 => any::<bool>().prop_map(Deed::Take),
        1 => (0usize..6, any::<bool>()).prop_map(|(stream, host)| Deed::End(stream, host)),
        8 => (any::<bool>(), 1usize..60_000).prop_map(|(host, length)| Deed::Carry(host, length)),
    ]
}

/// What one end is to hear of a stream in the end, and has heard.
#[derive(Default)]
struct Account {
    sent: BTreeMap<(StreamId, bool), Vec<u8>>,
    heard: BTreeMap<(StreamId, bool), Vec<u8>>,
    words: BTreeMap<StreamId, Vec<Vec<u8>>>,
    words_heard: BTreeMap<StreamId, Vec<Vec<u8>>>,
}

impl Account {
    fn take(&mut self, mux: &mut Mux, by_host: bool) {
        while let Some(event) = mux.next_event() {
            match event {
                Event::Data(id, _, bytes) => {
                    mux.taken(id, bytes.len());
                    self.heard.entry((id, !by_host)).or_default().extend(bytes);
                }
                Event::Word(id, word) => self.words_heard.entry(id).or_default().push(word),
                Event::Hello(_) | Event::Opened(_) | Event::Room(_) | Event::Ended(_) => {}
                Event::Broken(..) => panic!("nobody breaks anything off"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_arrives_in_order_whatever_happens_in_between(deeds in prop::collection::vec(deed(), 1..100)) {
        let (mut host, mut guest) = pair();
        let mut ids: Vec<StreamId> = Vec::new();
        let mut account = Account::default();
        let mut counter = 0u8;
        for deed in deeds {
            match deed {
                Deed::Open => ids.extend(host.open()),
                Deed::Say(stream, word) => {
                    if let Some(id) = ids.get(stream)
                        && host.say(*id, &word)
                    {
                        account.words.entry(*id).or_default().push(word);
                    }
                }
                Deed::Send(stream, by_host, length) => {
                    let Some(id) = ids.get(stream) else { continue };
                    counter = counter.wrapping_add(1);
                    let bytes: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(counter)).collect();
                    let (mux, channel) =
                        if by_host { (&mut host, Channel::Input) } else { (&mut guest, Channel::Output) };
                    let sent = mux.send(*id, channel, &bytes);
                    account.sent.entry((*id, by_host)).or_default().extend(&bytes[..sent]);
                }
                Deed::Take(by_host) => {
                    let mux = if by_host { &mut host } else { &mut guest };
                    account.take(mux, by_host);
                }
                Deed::End(stream, by_host) => {
                    if let Some(id) = ids.get(stream) {
                        if by_host { host.end(*id) } else { guest.end(*id) }
                    }
                }
                Deed::Carry(true, length) => drop(carry(&mut host, &mut guest, length)),
                Deed::Carry(false, length) => drop(carry(&mut guest, &mut host, length)),
            }
        }
        loop {
            let moved = carry(&mut host, &mut guest, usize::MAX) | carry(&mut guest, &mut host, usize::MAX);
            account.take(&mut host, true);
            account.take(&mut guest, false);
            if !moved && host.pending().is_empty() && guest.pending().is_empty() {
                break;
            }
        }
        account.sent.retain(|_, bytes| !bytes.is_empty());
        prop_assert_eq!(account.sent, account.heard);
        prop_assert_eq!(account.words, account.words_heard);
    }

    /// The peer knows the number of the session, and sends frames of any kind.
    #[test]
    fn a_hostile_peer_gets_no_more_than_its_windows(frames in prop::collection::vec(
        (0u8..8, 0u32..5, 0u8..5, prop::collection::vec(any::<u8>(), 0..200)), 0..1200,
    )) {
        let (mut host, _guest) = pair();
        let mut ids: Vec<StreamId> = (0..3).map(|_| host.open().unwrap()).collect();
        ids.push(99);
        let mut kept = 0usize;
        for (kind, stream, channel, body) in frames {
            if host.receive(&raw_frame(7, stream, kind, channel, &body)).is_err() {
                break;
            }
        }
        while let Some(event) = host.next_event() {
            if let Event::Data(_, _, bytes) | Event::Word(_, bytes) = event {
                kept += bytes.len() + PIECE_COST_BYTES;
            }
        }
        prop_assert!(kept <= 3 * (WINDOW_BYTES + PIECE_COST_BYTES), "{}", kept);
    }
}

/// A frame as it is sent, written down once more: session, stream, length, kind, channel, body; stuffed.
fn raw_frame(session: u64, stream: u32, kind: u8, channel: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_le_bytes();
    let plain = [&session.to_le_bytes()[..], &stream.to_le_bytes(), &length, &[kind, channel], body].concat();
    let mut stuffed = Vec::new();
    let groups = plain.split(|byte| *byte == 0);
    for group in groups {
        let mut rest = group;
        while rest.len() >= 254 {
            stuffed.push(255);
            stuffed.extend(&rest[..254]);
            rest = &rest[254..];
        }
        stuffed.push(u8::try_from(rest.len() + 1).unwrap());
        stuffed.extend(rest);
    }
    stuffed.push(0);
    stuffed
}

#[track_caller]
fn check_violation(frames: &[Vec<u8>], expected: &str) {
    let (mut host, _guest) = pair();
    host.open().unwrap();
    let _opened = host.pending().len();
    let result = host.receive(&frames.concat());
    assert_eq!(result.unwrap_err().to_string(), format!("the other end broke the protocol: {expected}"));
}

#[test]
fn what_breaks_the_rules_is_said() {
    let data = |length: usize| raw_frame(7, 1, 3, 2, &vec![1; length]);
    check_violation(&[raw_frame(7, 5, 2, 0, &[])], "a guest began a stream");
    check_violation(&[data(0)], "bytes after a stream's end, or none");
    check_violation(&[raw_frame(7, 1, 5, 0, &[]), data(1)], "bytes after a stream's end, or none");
    check_violation(&[raw_frame(7, 1, 5, 0, &[]), raw_frame(7, 1, 5, 0, &[])], "a stream ended twice");
    check_violation(&vec![data(16_000); 5], "more bytes than a window takes");
    check_violation(&vec![data(1); 2000], "more bytes than a window takes");
    check_violation(&[raw_frame(7, 1, 3, 9, b"x")], "an unknown channel");
    check_violation(&[raw_frame(7, 1, 4, 0, b"x")], "a credit of another form");
    let credit = [&1u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat();
    check_violation(&[raw_frame(7, 1, 4, 0, &credit)], "a credit for what was not sent");
    // Of another session nothing counts.
    let (mut host, _guest) = pair();
    host.open().unwrap();
    host.receive(&raw_frame(6, 1, 3, 9, b"x")).unwrap();
    assert_eq!(events(&mut host), []);
}

#[test]
fn a_word_without_an_end_is_broken_off() {
    let (mut host, mut guest) = pair();
    let id = host.open().unwrap();
    settle(&mut host, &mut guest);
    let mut broken = None;
    for _ in 0..20 {
        host.receive(&raw_frame(7, id, 3, 0, &[b'x'; 16_000])).unwrap();
        broken = broken.or(events(&mut host).pop());
        // Credits go out meanwhile.
        let length = host.pending().len();
        host.sent(length);
    }
    assert_eq!(broken, Some(Event::Broken(id, "the other end said too long a word".to_owned())));
}

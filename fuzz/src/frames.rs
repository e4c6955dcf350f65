//! Frames of the protocol between keepers and guests, as an attacker who knows all of it would send them.

/// The session's number: whoever is in a guest's kernel knows it.
pub const SESSION: u64 = 7;

/// Bytes to be sent, made of what the fuzzer gives: pieces of one byte that says what follows (a frame with the parts given, or
/// raw bytes), and its length.
pub fn stream(mut bytes: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    while let [what, length, rest @ ..] = bytes {
        let body = &rest[..rest.len().min(usize::from(*length) * 4)];
        bytes = &rest[body.len()..];
        match what % 16 {
            0 => sent.extend(body),
            kind @ 1..=8 => put(&mut sent, SESSION, u32::from(what / 16) % 5, kind, 0, body),
            9 => put(&mut sent, 8, 1, 3, 2, body),
            // Mostly bytes of streams, on all channels.
            other => put(&mut sent, SESSION, u32::from(what / 16) % 5, 3, other - 10, body),
        }
    }
    sent
}

/// A hello, which begins a session.
pub fn hello() -> Vec<u8> {
    let mut sent = vec![0];
    put(&mut sent, SESSION, 0, 1, 0, br#"{"version":1,"program":"0","boot":1}"#);
    sent
}

fn put(to: &mut Vec<u8>, session: u64, stream: u32, kind: u8, channel: u8, body: &[u8]) {
    let length = (body.len() as u16).to_le_bytes();
    let plain = [&session.to_le_bytes()[..], &stream.to_le_bytes(), &length, &[kind, channel], body].concat();
    for group in plain.split(|byte| *byte == 0) {
        let mut rest = group;
        while rest.len() >= 254 {
            to.push(255);
            to.extend(&rest[..254]);
            rest = &rest[254..];
        }
        to.push(rest.len() as u8 + 1);
        to.extend(rest);
    }
    to.push(0);
}

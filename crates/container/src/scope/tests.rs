//! What systemd is told, byte for byte, and what is made of whatever it answers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use expect_test::{Expect, expect};

use super::bus::Bus;
use super::message::{HEAD_BYTES, Heard, parse, rest_bytes, text_in_variant};
use super::*;

/// Bytes as text: eight in a line, a dot for each that is no character.
fn shown(bytes: &[u8]) -> String {
    let lines = bytes.chunks(8).map(|line| {
        let hex: String = line.iter().map(|byte| format!("{byte:02x} ")).collect();
        let plain = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        format!("{hex:24}{}\n", line.iter().map(plain).collect::<String>())
    });
    lines.collect()
}

#[track_caller]
#[cfg(target_endian = "little")]
fn check(call: &Call<'_>, expected: &Expect) {
    expected.assert_eq(&shown(&call.render(7)));
}

#[test]
#[cfg(target_endian = "little")]
fn calls_are_the_bytes_that_the_specification_says() {
    check(
        &control_group(),
        &expect![[r#"
        6c 01 00 01 39 00 00 00 l...9...
        07 00 00 00 90 00 00 00 ........
        01 01 6f 00 19 00 00 00 ..o.....
        2f 6f 72 67 2f 66 72 65 /org/fre
        65 64 65 73 6b 74 6f 70 edesktop
        2f 73 79 73 74 65 6d 64 /systemd
        31 00 00 00 00 00 00 00 1.......
        06 01 73 00 18 00 00 00 ..s.....
        6f 72 67 2e 66 72 65 65 org.free
        64 65 73 6b 74 6f 70 2e desktop.
        73 79 73 74 65 6d 64 31 systemd1
        00 00 00 00 00 00 00 00 ........
        02 01 73 00 1f 00 00 00 ..s.....
        6f 72 67 2e 66 72 65 65 org.free
        64 65 73 6b 74 6f 70 2e desktop.
        44 42 75 73 2e 50 72 6f DBus.Pro
        70 65 72 74 69 65 73 00 perties.
        03 01 73 00 03 00 00 00 ..s.....
        47 65 74 00 00 00 00 00 Get.....
        08 01 67 00 02 73 73 00 ..g..ss.
        20 00 00 00 6f 72 67 2e ....org.
        66 72 65 65 64 65 73 6b freedesk
        74 6f 70 2e 73 79 73 74 top.syst
        65 6d 64 31 2e 4d 61 6e emd1.Man
        61 67 65 72 00 00 00 00 ager....
        0c 00 00 00 43 6f 6e 74 ....Cont
        72 6f 6c 47 72 6f 75 70 rolGroup
        00                      .
    "#]],
    );
    let (unit, below) = within(Path::new("/a/stead-b.scope/stead/1/web.shop")).unwrap();
    check(
        &attach(&unit, &below),
        &expect![[r#"
        6c 01 00 01 34 00 00 00 l...4...
        07 00 00 00 aa 00 00 00 ........
        01 01 6f 00 19 00 00 00 ..o.....
        2f 6f 72 67 2f 66 72 65 /org/fre
        65 64 65 73 6b 74 6f 70 edesktop
        2f 73 79 73 74 65 6d 64 /systemd
        31 00 00 00 00 00 00 00 1.......
        06 01 73 00 18 00 00 00 ..s.....
        6f 72 67 2e 66 72 65 65 org.free
        64 65 73 6b 74 6f 70 2e desktop.
        73 79 73 74 65 6d 64 31 systemd1
        00 00 00 00 00 00 00 00 ........
        02 01 73 00 20 00 00 00 ..s.....
        6f 72 67 2e 66 72 65 65 org.free
        64 65 73 6b 74 6f 70 2e desktop.
        73 79 73 74 65 6d 64 31 systemd1
        2e 4d 61 6e 61 67 65 72 .Manager
        00 00 00 00 00 00 00 00 ........
        03 01 73 00 15 00 00 00 ..s.....
        41 74 74 61 63 68 50 72 AttachPr
        6f 63 65 73 73 65 73 54 ocessesT
        6f 55 6e 69 74 00 00 00 oUnit...
        08 01 67 00 04 73 73 61 ..g..ssa
        75 00 00 00 00 00 00 00 u.......
        0d 00 00 00 73 74 65 61 ....stea
        64 2d 62 2e 73 63 6f 70 d-b.scop
        65 00 00 00 11 00 00 00 e.......
        2f 73 74 65 61 64 2f 31 /stead/1
        2f 77 65 62 2e 73 68 6f /web.sho
        70 00 00 00 04 00 00 00 p.......
        00 00 00 00             ....
    "#]],
    );
}

#[test]
#[cfg(target_endian = "little")]
fn a_scope_is_asked_for_by_bytes_as_well() {
    check(
        &start("stead-a-b-1-2.scope", "stead: b.a", "stead-autostart.service", USERS_SLICE),
        &expect![[r#"
            6c 01 00 01 08 01 00 00 l.......
            07 00 00 00 b6 00 00 00 ........
            01 01 6f 00 19 00 00 00 ..o.....
            2f 6f 72 67 2f 66 72 65 /org/fre
            65 64 65 73 6b 74 6f 70 edesktop
            2f 73 79 73 74 65 6d 64 /systemd
            31 00 00 00 00 00 00 00 1.......
            06 01 73 00 18 00 00 00 ..s.....
            6f 72 67 2e 66 72 65 65 org.free
            64 65 73 6b 74 6f 70 2e desktop.
            73 79 73 74 65 6d 64 31 systemd1
            00 00 00 00 00 00 00 00 ........
            02 01 73 00 20 00 00 00 ..s.....
            6f 72 67 2e 66 72 65 65 org.free
            64 65 73 6b 74 6f 70 2e desktop.
            73 79 73 74 65 6d 64 31 systemd1
            2e 4d 61 6e 61 67 65 72 .Manager
            00 00 00 00 00 00 00 00 ........
            03 01 73 00 12 00 00 00 ..s.....
            53 74 61 72 74 54 72 61 StartTra
            6e 73 69 65 6e 74 55 6e nsientUn
            69 74 00 00 00 00 00 00 it......
            08 01 67 00 10 73 73 61 ..g..ssa
            28 73 76 29 61 28 73 61 (sv)a(sa
            28 73 76 29 29 00 00 00 (sv))...
            13 00 00 00 73 74 65 61 ....stea
            64 2d 61 2d 62 2d 31 2d d-a-b-1-
            32 2e 73 63 6f 70 65 00 2.scope.
            04 00 00 00 66 61 69 6c ....fail
            00 00 00 00 d8 00 00 00 ........
            0b 00 00 00 44 65 73 63 ....Desc
            72 69 70 74 69 6f 6e 00 ription.
            01 73 00 00 0a 00 00 00 .s......
            73 74 65 61 64 3a 20 62 stead:.b
            2e 61 00 00 00 00 00 00 .a......
            05 00 00 00 53 6c 69 63 ....Slic
            65 00 01 73 00 00 00 00 e..s....
            09 00 00 00 61 70 70 2e ....app.
            73 6c 69 63 65 00 00 00 slice...
            06 00 00 00 42 65 66 6f ....Befo
            72 65 00 02 61 73 00 00 re..as..
            1c 00 00 00 17 00 00 00 ........
            73 74 65 61 64 2d 61 75 stead-au
            74 6f 73 74 61 72 74 2e tostart.
            73 65 72 76 69 63 65 00 service.
            08 00 00 00 44 65 6c 65 ....Dele
            67 61 74 65 00 01 62 00 gate..b.
            01 00 00 00 00 00 00 00 ........
            0b 00 00 00 43 6f 6c 6c ....Coll
            65 63 74 4d 6f 64 65 00 ectMode.
            01 73 00 00 12 00 00 00 .s......
            69 6e 61 63 74 69 76 65 inactive
            2d 6f 72 2d 66 61 69 6c -or-fail
            65 64 00 00 00 00 00 00 ed......
            04 00 00 00 50 49 44 73 ....PIDs
            00 02 61 75 00 00 00 00 ..au....
            04 00 00 00 00 00 00 00 ........
            00 00 00 00 00 00 00 00 ........
        "#]],
    );
}

/// An answer with fields of these types; what is in them is written as it stands.
fn answer(kind: u8, fields: &[u8], body: &[u8]) -> Vec<u8> {
    let mut message = vec![if cfg!(target_endian = "little") { b'l' } else { b'B' }, kind, 0, 1];
    message.extend(u32::try_from(body.len()).unwrap().to_ne_bytes());
    message.extend(9_u32.to_ne_bytes());
    message.extend(u32::try_from(fields.len()).unwrap().to_ne_bytes());
    message.extend(fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(body);
    message
}

fn number(number: u32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

fn text(text: &str) -> Vec<u8> {
    [&number(u32::try_from(text.len()).unwrap())[..], text.as_bytes(), b"\0"].concat()
}

/// That call 1 is answered, with values of this type.
fn fields(signature: &str) -> Vec<u8> {
    let length = u8::try_from(signature.len()).unwrap();
    [&b"\x05\x01u\0"[..], &number(1), b"\x08\x01g\0", &[length], signature.as_bytes(), b"\0"].concat()
}

#[test]
fn answers_are_told_from_failures_and_from_what_others_say() {
    let group = [&b"\x01s\0\0"[..], &text("/user.slice")].concat();
    let returned = Heard::Returned { serial: 1, signature: "v".into(), body: group.clone() };
    assert_eq!(parse(&answer(2, &fields("v"), &group)).unwrap(), returned);
    assert_eq!(text_in_variant(&group).unwrap(), "/user.slice");
    let failed = |why: &str| Heard::Failed { serial: 1, why: why.into() };
    assert_eq!(parse(&answer(3, &fields("s"), &text("no"))).unwrap(), failed("no"));
    let named = [&b"\x05\x01u\0"[..], &number(1), b"\x04\x01s\0", &text("org.No")].concat();
    assert_eq!(parse(&answer(3, &named, b"")).unwrap(), failed("org.No"));
    assert_eq!(parse(&answer(4, &fields("s"), &text("x"))).unwrap(), Heard::Other);
}

#[test]
fn what_is_no_message_is_refused() {
    let good = answer(3, &fields("s"), &text("no"));
    for length in HEAD_BYTES..good.len() {
        assert!(parse(&good[..length]).is_err(), "{length}");
    }
    for place in 0..good.len() {
        // Nothing that it may become is more than misunderstood.
        let mut bad = good.clone();
        bad[place] ^= 0xff;
        let _understood = parse(&bad);
    }
    let head = |change: &dyn Fn(&mut [u8; HEAD_BYTES])| {
        let mut head = *good.first_chunk().unwrap();
        change(&mut head);
        rest_bytes(head).map_err(|error| error.to_string())
    };
    assert_eq!(head(&|_| {}), Ok(good.len() - HEAD_BYTES));
    assert!(head(&|head| head[0] = b'x').unwrap_err().contains("order of bytes"));
    assert!(head(&|head| head[3] = 2).unwrap_err().contains("version"));
    for place in [4, 12] {
        let huge = head(&|head| head[place..place + 4].copy_from_slice(&70_000_u32.to_ne_bytes()));
        assert!(huge.unwrap_err().contains("longer than 65536"), "{place}");
    }
    assert!(text_in_variant(b"\x01u\0\0\x01\0\0\0").is_err());
    assert!(text_in_variant(&[&b"\x01s\0\0"[..], &number(u32::MAX), b"x"].concat()).is_err());
}

/// Calls somebody who says this, whatever is said to them, and then hangs up: what comes of it.
fn told(says: Vec<u8>) -> (Result<(String, Vec<u8>)>, Vec<u8>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let other = std::thread::spawn(move || {
        // Who hears enough may hang up first.
        let _heard = theirs.write_all(&says).and_then(|()| theirs.shutdown(std::net::Shutdown::Write));
        let mut heard = Vec::new();
        let _reset = theirs.read_to_end(&mut heard);
        heard
    });
    let bus = Bus::begin(ours, 1000, Deadline::after(Duration::from_secs(60)));
    let answer = bus.and_then(|mut bus| bus.call(&control_group()));
    (answer, other.join().unwrap())
}

#[track_caller]
fn check_told(says: &[u8], expected: &str) {
    let error = told(says.to_vec()).0.unwrap_err();
    assert!(format!("{error:#}").contains(expected), "{error:#}");
}

#[test]
fn whoever_answers_is_believed_within_limits() {
    let ok = &b"OK 0123\r\n"[..];
    let good = answer(2, &fields("s"), &text("x"));
    let signal = answer(4, &fields("s"), &text("x"));
    let (told_good, heard) = told([ok, &signal, &good].concat());
    let (signature, body) = told_good.unwrap();
    let expected = [&b"\0AUTH EXTERNAL 31303030\r\nBEGIN\r\n"[..], &control_group().render(1)].concat();
    assert_eq!(heard, expected);
    assert_eq!((signature.as_str(), body), ("s", text("x")));
    check_told(b"", "hung up");
    check_told(b"REJECTED EXTERNAL\r\n", "`REJECTED EXTERNAL`");
    check_told(&[b'O'; 1000], "longer than 512");
    check_told(ok, "hung up");
    check_told(&[ok, &good[..20]].concat(), "hung up");
    check_told(&[ok, &answer(3, &fields("s"), &text("no"))].concat(), "`Get`: no");
    check_told(&[ok, &signal.repeat(200)].concat(), "hung up");
    check_told(&[ok, &[0xff; 100]].concat(), "order of bytes");
}

/// systemd takes no notice of a call that it reads together with `BEGIN`.
#[test]
fn no_call_is_read_together_with_what_comes_before_it() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let begins = &b"\0AUTH EXTERNAL 31303030\r\nBEGIN\r\n"[..];
    let other = std::thread::spawn(move || {
        let mut heard = [0; 512];
        theirs.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = theirs.read(&mut heard).unwrap();
        theirs.write_all(&[b"OK 0123\r\n", &answer(2, &fields("s"), &text("x"))[..]].concat()).unwrap();
        // Whoever hung up could not be called.
        theirs.read_exact(&mut vec![0; control_group().render(1).len()]).unwrap();
        heard[..length].to_vec()
    });
    let mut bus = Bus::begin(ours, 1000, Deadline::after(Duration::from_secs(60))).unwrap();
    bus.call(&control_group()).unwrap();
    assert_eq!(other.join().unwrap(), begins);
}

#[test]
fn who_says_nothing_is_waited_for_no_longer_than_until_then() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let bus = Bus::begin(ours, 0, Deadline::after(Duration::from_millis(20)));
    assert!(format!("{:#}", bus.err().unwrap()).contains("has not answered within 0.02 s"));
    let empty = tempfile::tempdir().unwrap();
    let bus = Bus::open(empty.path(), Deadline::after(LIMIT));
    assert!(format!("{:#}", bus.err().unwrap()).contains("systemd/private"));
}

#[test]
fn a_containers_cgroups_are_beside_its_keepers_seat() {
    let above = |own: &str| above_seat(Path::new(own)).display().to_string();
    assert_eq!(above("u/app.slice/stead-a-b-1-2.scope/self"), "u/app.slice/stead-a-b-1-2.scope");
    for own in ["u/app.slice/stead-a-b-1-2.scope", "u/x.scope/self", "self", "", "stead-1.slice/self"] {
        assert_eq!(above(own), own);
    }
    let place = |path: &str| within(Path::new(path));
    assert_eq!(place("/x/stead-a.scope/stead/b"), Some(("stead-a.scope".into(), "/stead/b".into())));
    assert_eq!(place("/sys/fs/cgroup/stead/stead-1/b.scope"), None);
}

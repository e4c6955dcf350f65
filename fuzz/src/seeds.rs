//! Lawful inputs for the fuzzer to start from: packets, a project file with its `.env`, archives,
//! and what keepers and guests say to each other.

use std::fs;
use std::path::Path;

use stead_net::serve::dns::Question;
use stead_net::serve::dns::reply::ask;

/// Writes a target's seeds into the directory that libFuzzer was given for its corpus. Called before it looks there.
pub fn plant(target: &str) {
    let Some(corpus) = std::env::args().skip(1).find(|word| !word.starts_with('-')) else { return };
    // A file is an input to be tried again, by itself.
    if !Path::new(&corpus).is_dir() {
        return;
    }
    for (_, number, seed) in seeds().into_iter().filter(|(of, ..)| *of == target) {
        fs::write(Path::new(&corpus).join(format!("seed-{number}")), seed).expect("the corpus can be written");
    }
}

fn seeds() -> Vec<(&'static str, usize, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (number, kind) in [1, 3, 4, 7, 8].into_iter().enumerate() {
        seeds.push(("dhcp4", number, dhcp4(kind, 0x0a)));
        let conversation = [1, 3, kind].into_iter().flat_map(|kind| {
            let mut packet = dhcp4(kind, 0x77);
            packet.resize(400, 0);
            packet
        });
        seeds.push(("dhcp4", 100 + number, conversation.collect()));
    }
    for (number, kind) in [1, 3, 4, 5, 6, 8, 9, 11].into_iter().enumerate() {
        seeds.push(("dhcp6", number, dhcp6(kind)));
        seeds.push(("dhcp6", 100 + number, in_ipv6(&dhcp6(kind))));
    }
    let names: [&[u8]; 4] = [
        b"\x03web\0",
        b"\x03wEb\x04shop\x05stead\0",
        b"\x0210\x015\x010\x0210\x07in-addr\x04arpa\0",
        b"\x01a\x07example\0",
    ];
    for (number, name) in names.into_iter().enumerate() {
        for kind in [1, 6, 12, 28, 255] {
            let question = Question { name: name.into(), kind, dnssec: kind == 1, unchecked: false };
            seeds.push(("dns_query", number * 1000 + usize::from(kind), ask(&question, 7)));
        }
    }
    for (number, (code, kind, value)) in
        [(0, 1, &[192, 0, 2, 1][..]), (3, 6, &[0; 22]), (2, 6, &[0; 22])].into_iter().enumerate()
    {
        seeds.push(("dns_reply", number, dns_reply(code, kind, value)));
    }
    seeds.push(("solicitation", 0, vec![133, 0, 0, 0, 0, 0, 0, 0]));
    seeds.push(("solicitation", 1, vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 0x0a]));
    seeds.push(("project_file", 0, include_bytes!("stead.yaml").to_vec()));
    seeds.push(("project_file", 1, b"machines: { a: { kind: ${KIND} } }\0KIND=vm\nX='a b' # c\n".to_vec()));
    // An opening, a word, bytes, a credit and an end of a stream.
    let credit = [&[0x14, 3][..], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    for target in ["agent_host", "agent_guest"] {
        let talk = [&[0x12, 0][..], &[0x1a, 2], b"{\"a\":1}\n", &[0x1c, 1], b"text", &credit, &[0x15, 0]].concat();
        seeds.push((target, 0, talk));
        seeds.push((target, 1, [&[0x1c, 255][..], &[0; 1020]].concat()));
        seeds.push((target, 2, [&[0x1a, 4][..], b"\"done\"\n\"done\"\n", &[0x16, 1], b"why?"].concat()));
    }
    let record = |kind: u8, name: &[u8], mode: u32| {
        [&[kind, 0, 0, 0, name.len() as u8][..], name, &mode.to_be_bytes(), &[0; 28]].concat()
    };
    let file = [record(b'F', b"f", 0o100644), vec![0, 0, 0, 0, 0, 0, 0, 4], b"text".to_vec()].concat();
    let link = [record(b'L', b"l", 0o120777), vec![0, 0, 0, 3], b"../".to_vec()].concat();
    let inner = [record(b'D', b"d", 0o40755), file.clone(), link, b"U".to_vec()].concat();
    seeds.push(("parcel", 0, [&[1][..], &file, b"E"].concat()));
    seeds.push(("parcel", 1, [&[2][..], &inner, &file, b"E"].concat()));
    seeds.push(("parcel", 2, b"X\0\0\0\x04why?".to_vec()));
    seeds.extend(archives().into_iter().enumerate().map(|(number, archive)| ("layer", number, archive)));
    seeds
}

/// Entries of every kind; the target puts the checksums in.
fn archives() -> Vec<Vec<u8>> {
    let entry = |kind: u8, name: &str, link: &str, body: &[u8]| {
        let mut block = vec![0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, b"0000755\0000000000\0000000000\0");
        put(124, format!("{:011o}", body.len()).as_bytes());
        put(136, b"00000001750\0");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        block.extend(body);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    };
    let directory = entry(b'5', "d", "", b"");
    let file = entry(b'0', "d/f", "", b"contents");
    let attributes = b"12 path=d/x\n13 mtime=1.5\n27 SCHILY.xattr.user.a=b\0\xff\n14 uid=100000\n";
    let old_map = b"22 GNU.sparse.size=99\n24 GNU.sparse.map=3,2,90,6\n";
    let new_map = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n26 GNU.sparse.realsize=99\n";
    let mut sparse = entry(b'S', "s", "", b"12345678");
    sparse[257..265].copy_from_slice(b"ustar  \0");
    sparse[386..410].copy_from_slice(b"00000000003\000000000010\0");
    sparse[483..495].copy_from_slice(b"00000000020\0");
    let mut map_first = b"1\n5\n8\n".to_vec();
    map_first.resize(512, 0);
    map_first.extend(b"12345678");
    vec![
        [&directory[..], &file, &entry(b'1', "l", "d/f", b""), &entry(b'2', "d/s", "../d", b"")].concat(),
        [&directory[..], &entry(b'0', "d/.wh.f", "", b""), &entry(b'0', "d/.wh..wh..opq", "", b""), &file].concat(),
        [&entry(b'2', "d", "../outside", b"")[..], &file, &entry(b'1', "l", "d/precious", b"")].concat(),
        [&entry(b'x', "x", "", attributes)[..], &file, &entry(b'6', "p", "", b"")].concat(),
        [&entry(b'L', "x", "", b"d/long\0")[..], &entry(b'K', "x", "", b"../t\0"), &entry(b'2', "", "", b"")].concat(),
        [&entry(b'x', "x", "", old_map)[..], &entry(b'0', "s", "", b"12345678")].concat(),
        [&entry(b'x', "x", "", new_map)[..], &entry(b'0', "s", "", &map_first)].concat(),
        [&sparse[..], &entry(b'0', "/../d/../x", "", b""), &file, &entry(b'0', "d", "", b"")].concat(),
    ]
}

fn dhcp4(kind: u8, last: u8) -> Vec<u8> {
    let mut packet = vec![1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0];
    packet.resize(28, 0);
    packet.extend([2, 0, 0, 0, 0, last]);
    packet.resize(236, 0);
    packet.extend([99, 130, 83, 99, 53, 1, kind, 50, 4, 10, 0, 5, 201, 61, 3, 1, 2, 3]);
    packet.extend([12, 2, b'm', b'e', 55, 4, 1, 3, 6, 119, 52, 1, 3, 80, 0, 255]);
    packet
}

fn dhcp6(kind: u8) -> Vec<u8> {
    let mut packet = vec![kind, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 0x0a];
    if [3, 5, 8, 9].contains(&kind) {
        packet.extend([0, 2, 0, 10, 0, 3, 0, 1, 2, 0xaa, 0, 0, 0, 1]);
    }
    packet.extend([0, 3, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24]);
    packet.extend([0xfd, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b, 0, 0, 0, 9, 0, 0, 0, 9]);
    packet.extend([0, 14, 0, 0, 0, 25, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet
}

fn in_ipv6(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).expect("a seed is short").to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], 17, 1, 0xfe, 0x80];
    packet.resize(40, 1);
    packet.extend([2, 34, 2, 35, length[0], length[1], 0, 0]);
    packet.extend(payload);
    packet
}

fn dns_reply(code: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let (answers, authorities) = if kind == 1 { (1, 0) } else { (0, 1) };
    let mut packet = vec![0, 7, 0x81, 0x80 | code, 0, 1, 0, answers, 0, authorities, 0, 1];
    packet.extend(b"\x01a\x07example\0\0\x01\0\x01\xc0\x0c\0");
    packet.extend([kind, 0, 1, 0, 0, 1, 44, 0, u8::try_from(value.len()).expect("a seed is short")]);
    packet.extend(value);
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    packet
}

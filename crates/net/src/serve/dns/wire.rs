//! The form of a DNS message (RFC 1035, EDNS of RFC 6891), as much of it as we need: a question with what
//! belongs to it, and answers, which are built front to back.

use crate::serve::bytes::{Reader, put_u16_prefixed};

/// Record types.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const DS: u16 = 43;
    pub(crate) const DNSKEY: u16 = 48;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
}

/// The internet, the one class there is.
pub(crate) const CLASS_IN: u16 = 1;

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Fine = 0,
    BadForm = 1,
    Failed = 2,
    NoName = 3,
    Unknown = 4,
    Refused = 5,
}

pub(crate) const HEAD_BYTES: usize = 12;
/// What fits without EDNS.
const PLAIN_BYTES: u16 = 512;
/// The largest datagram that we send or ask for: it passes every link unbroken (DNS flag day 2020).
const EDNS_BYTES: u16 = 1232;

pub(crate) mod flag {
    pub(crate) const ANSWER: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AUTHORITATIVE: u16 = 0x0400;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSE: u16 = 0x0100;
    pub(crate) const RECURSES: u16 = 0x0080;
    pub(crate) const AUTHENTIC: u16 = 0x0020;
    pub(crate) const UNCHECKED: u16 = 0x0010;
    /// In the extended flags.
    pub(crate) const DNSSEC: u32 = 0x8000;
}

/// What a client said about EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) bytes: u16,
    pub(crate) version: u8,
    pub(crate) dnssec: bool,
}

/// A client's question.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Name, type and class as they came, so that upper and lower case go back unchanged.
    pub(crate) question: &'a [u8],
    /// The name in lower case.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
}

/// Why a packet is no question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoQuery {
    /// Not to be answered: too short, or an answer itself.
    Silence,
    /// To be answered with this code.
    Code { id: u16, flags: u16, code: Code },
}

impl<'a> Query<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, NoQuery> {
        let mut reader = Reader::new(bytes);
        let head: [u8; HEAD_BYTES] = reader.array().ok_or(NoQuery::Silence)?;
        let [id, flags, questions, answers, authorities, additionals] = head_fields(&head);
        if flags & flag::ANSWER != 0 {
            return Err(NoQuery::Silence);
        }
        if flags & flag::OPCODE != 0 {
            return Err(NoQuery::Code { id, flags, code: Code::Unknown });
        }
        let bad = NoQuery::Code { id, flags, code: Code::BadForm };
        if (questions, answers, authorities) != (1, 0, 0) {
            return Err(bad);
        }
        let (Some(question), Some(edns)) = (read_question(&mut reader), read_edns(&mut reader, additionals))
        else {
            return Err(bad);
        };
        let (question, name, kind, class) = question;
        Ok(Query { id, flags, question, name, kind, class, edns })
    }

    /// How long an answer by UDP may be.
    pub(crate) fn udp_bytes(&self) -> usize {
        let bytes = self.edns.map_or(PLAIN_BYTES, |edns| edns.bytes.clamp(PLAIN_BYTES, EDNS_BYTES));
        usize::from(bytes)
    }

    pub(crate) fn wants_dnssec(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec)
    }
}

/// The fields of a head: id, flags, and how many questions, answers, authorities, additionals.
pub(crate) fn head_fields(head: &[u8; HEAD_BYTES]) -> [u16; 6] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
    [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]].map(u16::from_be_bytes)
}

type Question<'a> = (&'a [u8], Vec<u8>, u16, u16);

/// Reads a question whose name is written out: there is nothing before it that could be pointed to.
pub(crate) fn read_question<'a>(reader: &mut Reader<'a>) -> Option<Question<'a>> {
    let start = reader.rest();
    let mut length_bytes = 0;
    loop {
        let length = reader.u8().filter(|length| *length <= 63)?;
        reader.take(usize::from(length))?;
        length_bytes += usize::from(length) + 1;
        if length_bytes > 255 {
            return None;
        }
        if length == 0 {
            break;
        }
    }
    // Lengths are below 64, so below the letters: all bytes can be lowered alike.
    let name = start.get(..length_bytes)?.to_ascii_lowercase();
    let kind = reader.u16()?;
    let class = reader.u16()?;
    Some((start.get(..length_bytes + 4)?, name, kind, class))
}

/// Additional records that a question may have beside EDNS (a signature, say).
const ADDITIONALS_MAX: u16 = 8;

fn read_edns(reader: &mut Reader<'_>, additionals: u16) -> Option<Option<Edns>> {
    let mut edns = None;
    for _ in 0..additionals.min(ADDITIONALS_MAX) {
        skip_name(reader)?;
        let record = Record::parse(reader)?;
        if record.kind == kind::OPT {
            // RFC 6891: two of them are an error.
            if edns.is_some() {
                return None;
            }
            let [_, version, ..] = record.ttl.to_be_bytes();
            edns = Some(Edns { bytes: record.class, version, dnssec: record.ttl & flag::DNSSEC != 0 });
        }
    }
    Some(edns)
}

/// A record, after its name.
pub(crate) struct Record<'a> {
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) value: &'a [u8],
}

impl<'a> Record<'a> {
    pub(crate) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        let kind = reader.u16()?;
        let class = reader.u16()?;
        let ttl = reader.u32()?;
        let length = reader.u16()?;
        Some(Self { kind, class, ttl, value: reader.take(usize::from(length))? })
    }
}

/// Passes a name, written out or ending in a pointer.
pub(crate) fn skip_name(reader: &mut Reader<'_>) -> Option<()> {
    loop {
        match reader.u8()? {
            0 => return Some(()),
            length @ 1..=63 => drop(reader.take(usize::from(length))?),
            0xc0.. => return reader.u8().map(drop),
            _ => return None,
        }
    }
}

/// An answer to `query` under construction: answers first, then authorities.
pub(crate) struct Message {
    bytes: Vec<u8>,
    flags: u16,
    answers: u16,
    authorities: u16,
    question_end: usize,
}

impl Message {
    pub(crate) fn new(query: &Query<'_>, code: Code, flags: u16) -> Self {
        Self::with_code(query, code as u8, flags)
    }

    /// With a code of the computer's resolver, which may be one that we know no name for.
    pub(crate) fn with_code(query: &Query<'_>, code: u8, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend([0; HEAD_BYTES]);
        bytes.extend(query.question);
        let echoed = query.flags & (flag::RECURSE | flag::UNCHECKED);
        let flags = flag::ANSWER | flags | echoed | u16::from(code & 15);
        Self { question_end: bytes.len(), bytes, flags, answers: 0, authorities: 0 }
    }

    /// Adds an answer for the name that was asked for.
    pub(crate) fn answer(&mut self, kind: u16, ttl_s: u32, value: &[u8]) {
        self.answers += 1;
        self.record(HEAD_BYTES, kind, ttl_s, value);
    }

    /// Adds an authority, whose name starts `offset` bytes into the name that was asked for.
    pub(crate) fn authority(&mut self, offset: usize, kind: u16, ttl_s: u32, value: &[u8]) {
        self.authorities += 1;
        self.record(HEAD_BYTES + offset, kind, ttl_s, value);
    }

    /// Adds records that are in wire form already.
    pub(crate) fn body(&mut self, answers: u16, authorities: u16) -> &mut Vec<u8> {
        (self.answers, self.authorities) = (answers, authorities);
        &mut self.bytes
    }

    fn record(&mut self, name_at: usize, kind: u16, ttl_s: u32, value: &[u8]) {
        let pointer = 0xc000 | u16::try_from(name_at).unwrap_or(0);
        self.bytes.extend(pointer.to_be_bytes());
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(CLASS_IN.to_be_bytes());
        self.bytes.extend(ttl_s.to_be_bytes());
        put_u16_prefixed(&mut self.bytes, value);
    }

    /// The bytes; an answer longer than `limit` is emptied and marked, so that the client asks by TCP.
    pub(crate) fn finish(mut self, query: &Query<'_>, limit: usize) -> Vec<u8> {
        let edns_bytes = if query.edns.is_some() { OPT_BYTES } else { 0 };
        if self.bytes.len() + edns_bytes > limit {
            self.bytes.truncate(self.question_end);
            self.flags |= flag::TRUNCATED;
            (self.answers, self.authorities) = (0, 0);
        }
        if let Some(edns) = query.edns {
            // Only version 0 exists; whoever speaks another is told so (code 16, its upper half here).
            let extended = if edns.version > 0 { 1 << 24 } else { 0 };
            put_opt(&mut self.bytes, extended | if edns.dnssec { flag::DNSSEC } else { 0 });
        }
        let head = [query.id, self.flags, 1, self.answers, self.authorities, u16::from(query.edns.is_some())];
        write_head(&mut self.bytes, head);
        self.bytes
    }
}

const OPT_BYTES: usize = 11;

fn put_opt(to: &mut Vec<u8>, ttl: u32) {
    to.push(0);
    to.extend(kind::OPT.to_be_bytes());
    to.extend(EDNS_BYTES.to_be_bytes());
    to.extend(ttl.to_be_bytes());
    to.extend([0, 0]);
}

fn write_head(to: &mut [u8], fields: [u16; 6]) {
    to.iter_mut().zip(fields.into_iter().flat_map(u16::to_be_bytes)).for_each(|(to, byte)| *to = byte);
}

/// An answer without a question, for packets that cannot be understood.
pub(crate) fn bare(id: u16, flags: u16, code: Code) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    let echoed = flags & (flag::OPCODE | flag::RECURSE);
    write_head(&mut bytes, [id, flag::ANSWER | echoed | u16::from(code as u8), 0, 0, 0, 0]);
    bytes
}

/// A question of ours to another resolver.
pub(crate) fn question(id: u16, flags: u16, name: &[u8], kind: u16, dnssec: bool) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    write_head(&mut bytes, [id, flags, 1, 0, 0, 1]);
    bytes.extend(name);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    put_opt(&mut bytes, if dnssec { flag::DNSSEC } else { 0 });
    bytes
}

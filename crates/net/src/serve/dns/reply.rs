//! What another resolver said: checked, and kept in a form that fits every client who asked the same.
//!
//! The records stay as they came. Their names may point back into the message; they still point to the right
//! place, because every client's question is as long as ours. Additional records are left out: EDNS is between two
//! neighbours, and nothing else there is needed by whoever asked us to do the asking.

use super::Question;
use super::wire::{self, CLASS_IN, Code, HEAD_BYTES, Message, Record, flag, kind};
use crate::serve::bytes::Reader;

/// What another resolver said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The code, below 16.
    pub code: u8,
    /// Whether it vouches for the signatures.
    pub authentic: bool,
    /// For how many seconds it holds; 0 is not to be kept.
    pub lifetime_s: u32,
    answers: u16,
    authorities: u16,
    records: Box<[u8]>,
    /// Where in `records` the lifetimes stand.
    ttls: Box<[u16]>,
}

/// What an answer turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is not the answer to our question: go on listening.
    Stray,
    /// It did not fit: ask again by TCP.
    Cut,
    /// An answer.
    Reply(Reply),
}

/// The longest that anything is kept.
const KEPT_MAX_S: u32 = 86_400;
/// The longest that it is remembered that something does not exist; RFC 2308 advises one to three hours.
const ABSENCE_MAX_S: u32 = 3600;

/// Reads the answer to `question`, asked with `id`.
pub fn hear(packet: &[u8], id: u16, question: &Question) -> Heard {
    parse(packet, id, question).unwrap_or(Heard::Stray)
}

/// The question as it is sent.
pub fn ask(question: &Question, id: u16) -> Vec<u8> {
    let unchecked = if question.unchecked { flag::UNCHECKED } else { 0 };
    wire::question(id, flag::RECURSE | unchecked, &question.name, question.kind, question.dnssec)
}

fn parse(packet: &[u8], id: u16, question: &Question) -> Option<Heard> {
    let mut reader = Reader::new(packet);
    let head: [u8; HEAD_BYTES] = reader.array()?;
    let [its_id, flags, questions, answers, authorities, additionals] = wire::head_fields(&head);
    if its_id != id || flags & (flag::ANSWER | flag::OPCODE) != flag::ANSWER || questions != 1 {
        return None;
    }
    let (_, name, kind, class) = wire::read_question(&mut reader)?;
    if (&*name, kind, class) != (&*question.name, question.kind, CLASS_IN) {
        return None;
    }
    if flags & flag::TRUNCATED != 0 {
        return Some(Heard::Cut);
    }
    let mut records = Records::new(packet.len() - reader.rest().len());
    let start = reader.rest();
    for _ in 0..answers {
        records.read(&mut reader, packet, Section::Answer)?;
    }
    for _ in 0..authorities {
        records.read(&mut reader, packet, Section::Authority)?;
    }
    let body = start.get(..start.len() - reader.rest().len())?;
    // A code of 16 and more has its upper half with EDNS; none of them means anything to a client of ours.
    let extended = extended_code(&mut reader, additionals);
    let code = if extended { Code::Failed as u8 } else { u8::try_from(flags & 15).ok()? };
    Some(Heard::Reply(Reply {
        code,
        authentic: flags & flag::AUTHENTIC != 0,
        lifetime_s: records.lifetime_s(code, answers),
        answers,
        authorities,
        records: body.into(),
        ttls: records.ttls.into(),
    }))
}

fn extended_code(reader: &mut Reader<'_>, additionals: u16) -> bool {
    for _ in 0..additionals {
        let record = wire::skip_name(reader).and_then(|()| Record::parse(reader));
        match record {
            Some(record) if record.kind == kind::OPT => return record.ttl >> 24 != 0,
            Some(_) => {}
            None => return false,
        }
    }
    false
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
}

struct Records {
    start: usize,
    ttls: Vec<u16>,
    least_s: u32,
    absence_s: Option<u32>,
}

impl Records {
    fn new(start: usize) -> Self {
        Self { start, ttls: Vec::new(), least_s: KEPT_MAX_S, absence_s: None }
    }

    fn read(&mut self, reader: &mut Reader<'_>, packet: &[u8], section: Section) -> Option<()> {
        wire::skip_name(reader)?;
        let at = packet.len().checked_sub(reader.rest().len() + self.start)? + 4;
        let record = Record::parse(reader)?;
        // RFC 2181: a lifetime with the highest bit set is 0.
        let ttl = if record.ttl > i32::MAX.unsigned_abs() { 0 } else { record.ttl };
        self.ttls.push(u16::try_from(at).ok()?);
        self.least_s = self.least_s.min(ttl);
        match section {
            Section::Answer => {}
            Section::Authority if record.kind == kind::SOA => {
                let minimum = record.value.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))?;
                self.absence_s = Some(minimum.min(ttl).min(ABSENCE_MAX_S));
            }
            Section::Authority => {}
        }
        Some(())
    }

    fn lifetime_s(&self, code: u8, answers: u16) -> u32 {
        let absent = code == Code::NoName as u8 || (code == 0 && answers == 0) || self.absence_s.is_some();
        match code {
            // An alias that leads to nothing lives as long as both.
            0 | 3 if absent => self.absence_s.unwrap_or(0).min(self.least_s),
            0 => self.least_s,
            _ => 0,
        }
    }
}

impl Reply {
    /// What is said when nobody answers.
    pub fn failed() -> Self {
        Self {
            code: Code::Failed as u8,
            authentic: false,
            lifetime_s: 0,
            answers: 0,
            authorities: 0,
            records: Box::default(),
            ttls: Box::default(),
        }
    }

    /// Whether the resolver did its work; else another may.
    pub fn is_usable(&self) -> bool {
        matches!(self.code, 0 | 3)
    }

    /// What it takes up in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.records.len() + size_of_val(&*self.ttls)
    }

    /// Adds the records to an answer, `age_s` seconds nearer to their end.
    pub(crate) fn write(&self, to: &mut Message, age_s: u32) {
        let bytes = to.body(self.answers, self.authorities);
        let start = bytes.len();
        bytes.extend(&*self.records);
        for at in &self.ttls {
            let field =
                bytes.get_mut(start + usize::from(*at)..).and_then(|rest| rest.first_chunk_mut::<4>());
            if let Some(field) = field {
                *field = u32::from_be_bytes(*field).saturating_sub(age_s).to_be_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests;

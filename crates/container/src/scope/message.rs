//! Messages of D-Bus as bytes, by its [specification](https://dbus.freedesktop.org/doc/dbus-specification.html): the few
//! types that systemd is told and tells by. Numbers have the order of this computer's bytes, and each value begins at a
//! multiple of its size.

use anyhow::{Context, Result, bail, ensure};

/// What a message begins with: its kind, its lengths and its number.
pub(super) const HEAD_BYTES: usize = 16;

/// More than anybody has to say to us.
const MESSAGE_MAX_BYTES: usize = 64 * 1024;

const ENDIAN: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
const VERSION: u8 = 1;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const FAILURE: u8 = 3;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const FAILURE_NAME: u8 = 4;
const ANSWERED: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method that is called.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// The types of what it is called with.
    pub(super) signature: &'a str,
    pub(super) body: Writer,
}

impl Call<'_> {
    /// The whole message.
    pub(super) fn render(&self, serial: u32) -> Vec<u8> {
        let mut head = Writer::default();
        [ENDIAN, CALL, 0, VERSION].into_iter().for_each(|byte| head.byte(byte));
        head.number(u32::try_from(self.body.0.len()).unwrap_or(u32::MAX));
        head.number(serial);
        let texts = [
            (PATH, "o", self.path),
            (DESTINATION, "s", self.destination),
            (INTERFACE, "s", self.interface),
            (MEMBER, "s", self.member),
        ];
        head.array(8, |head| {
            for (field, kind, text) in texts {
                head.align(8);
                head.byte(field);
                head.variant(kind, |head| head.text(text));
            }
            if !self.signature.is_empty() {
                head.align(8);
                head.byte(SIGNATURE);
                head.variant("g", |head| head.signature(self.signature));
            }
        });
        head.align(8);
        head.0.extend(&self.body.0);
        head.0
    }
}

/// Values one after the other.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.number(u32::from(flag));
    }

    pub(super) fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_ne_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, text: &str) {
        self.byte(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.bytes().chain([0]));
    }

    /// A value with its type.
    fn variant(&mut self, kind: &str, value: impl FnOnce(&mut Self)) {
        self.signature(kind);
        value(self);
    }

    /// Values, each of which begins at a multiple of `align`.
    pub(super) fn array(&mut self, align: usize, values: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(align);
        let begin = self.0.len();
        values(self);
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// A name with a value and its type: `(sv)`.
    pub(super) fn property(&mut self, name: &str, kind: &str, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.text(name);
        self.variant(kind, value);
    }
}

/// What is heard, as far as it matters to who called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The call with this number returned these values, of these types.
    Returned { serial: u32, signature: String, body: Vec<u8> },
    /// It failed.
    Failed { serial: u32, why: String },
    /// What is said to everybody.
    Other,
}

/// How many bytes of a message come after its head.
pub(super) fn rest_bytes(head: [u8; HEAD_BYTES]) -> Result<usize> {
    ensure!(head.first() == Some(&ENDIAN), "it is not in the order of bytes of this computer");
    ensure!(head.get(3) == Some(&VERSION), "it is of another version of D-Bus");
    let mut reader = Reader { bytes: &head, at: 4 };
    let (body, _serial, fields) = (reader.number()?, reader.number()?, reader.number()?);
    let length = |number: u32| usize::try_from(number).ok().filter(|length| *length <= MESSAGE_MAX_BYTES);
    let (Some(body), Some(fields)) = (length(body), length(fields)) else {
        bail!("it is longer than {MESSAGE_MAX_BYTES} bytes");
    };
    Ok(fields.next_multiple_of(8) + body)
}

/// Reads a whole message, with its head.
pub(super) fn parse(message: &[u8]) -> Result<Heard> {
    let kind = message.get(1).copied();
    let mut reader = Reader { bytes: message, at: 12 };
    let fields_end = HEAD_BYTES + usize::try_from(reader.number()?)?;
    let (mut serial, mut signature, mut name) = (None, String::new(), String::new());
    while reader.at < fields_end {
        reader.align(8);
        let field = reader.byte()?;
        let kind = reader.signature()?;
        match (field, kind) {
            (ANSWERED, "u") => serial = Some(reader.number()?),
            (SIGNATURE, "g") => signature = reader.signature()?.to_owned(),
            (FAILURE_NAME, "s") => name = reader.text()?.to_owned(),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.number()?),
            (_, other) => bail!("it has a field of type `{}`", other.escape_debug()),
        }
    }
    ensure!(reader.at == fields_end, "its fields are longer than it says");
    reader.align(8);
    let body = message.get(reader.at..).context("it is too short")?;
    let (Some(serial), Some(RETURN | FAILURE)) = (serial, kind) else { return Ok(Heard::Other) };
    if kind == Some(RETURN) {
        return Ok(Heard::Returned { serial, signature, body: body.to_owned() });
    }
    let told = signature.starts_with('s').then(|| Reader { bytes: body, at: 0 }.text().map(str::to_owned));
    Ok(Heard::Failed { serial, why: told.transpose()?.unwrap_or(name) })
}

/// The text in a value with its type.
pub(super) fn text_in_variant(body: &[u8]) -> Result<String> {
    let mut reader = Reader { bytes: body, at: 0 };
    ensure!(reader.signature()? == "s", "it is no text");
    Ok(reader.text()?.to_owned())
}

/// Values, read one after the other.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).context("it is too short")?;
        let taken = self.bytes.get(self.at..end).context("it is too short")?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1)?.first().copied().context("it is too short")
    }

    fn number(&mut self) -> Result<u32> {
        self.align(4);
        Ok(u32::from_ne_bytes(self.take(4)?.try_into()?))
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = usize::try_from(self.number()?)?;
        self.ended(length)
    }

    fn signature(&mut self) -> Result<&'a str> {
        let length = usize::from(self.byte()?);
        self.ended(length)
    }

    fn ended(&mut self, length: usize) -> Result<&'a str> {
        let text = std::str::from_utf8(self.take(length)?).context("it has a text that is none")?;
        ensure!(self.byte()? == 0, "it has a text without an end");
        Ok(text)
    }
}

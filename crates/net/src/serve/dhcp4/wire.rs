//! The form of a DHCPv4 packet (RFC 2131, 2132): a fixed head and options of type, length, value.

use std::net::Ipv4Addr;

use crate::serve::bytes::Reader;

/// The options that we read or write.
pub(crate) mod option {
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const DNS: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const DOMAIN: u8 = 15;
    pub(crate) const MTU: u8 = 26;
    pub(crate) const BROADCAST: u8 = 28;
    pub(crate) const REQUESTED: u8 = 50;
    pub(crate) const LEASE_S: u8 = 51;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const KIND: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const ASKED: u8 = 55;
    pub(crate) const RENEW_S: u8 = 58;
    pub(crate) const REBIND_S: u8 = 59;
    pub(crate) const VENDOR_CLASS: u8 = 60;
    pub(crate) const CLIENT_ID: u8 = 61;
    pub(crate) const BOOT_SERVER: u8 = 66;
    pub(crate) const BOOT_FILE: u8 = 67;
    pub(crate) const RAPID_COMMIT: u8 = 80;
    pub(crate) const SEARCH: u8 = 119;
}

/// What a packet wants, or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

/// A packet of a client, as far as it concerns us.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) kind: Kind,
    pub(crate) xid: [u8; 4],
    pub(crate) broadcast: bool,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) chaddr: [u8; 6],
    pub(crate) requested: Option<Ipv4Addr>,
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) client_id: &'a [u8],
    pub(crate) host_name: &'a [u8],
    pub(crate) vendor_class: &'a [u8],
    /// The options asked for; empty where the client left that to us.
    pub(crate) asked: &'a [u8],
    pub(crate) rapid_commit: bool,
}

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Some BOOTP relays and boot ROMs drop anything shorter.
const MIN_BYTES: usize = 300;
const SNAME_BYTES: usize = 64;
const FILE_BYTES: usize = 128;

impl<'a> Packet<'a> {
    /// Reads a client's packet. `None`: it is damaged, an answer, came by a relay, is plain BOOTP or is not
    /// from an Ethernet.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [op, hardware, hardware_len, _hops] = reader.array()?;
        let xid = reader.array()?;
        let _secs = reader.u16()?;
        let flags = reader.u16()?;
        let ciaddr = Ipv4Addr::from(reader.u32()?);
        let _yiaddr = reader.u32()?;
        let _siaddr = reader.u32()?;
        let giaddr = reader.u32()?;
        let chaddr = reader.array()?;
        let _padding: [u8; 10] = reader.array()?;
        let sname = reader.take(SNAME_BYTES)?;
        let file = reader.take(FILE_BYTES)?;
        if (op, hardware, hardware_len, giaddr) != (1, 1, 6, 0) || reader.array()? != COOKIE {
            return None;
        }
        let mut packet = Self {
            kind: Kind::Inform,
            xid,
            broadcast: flags & 0x8000 != 0,
            ciaddr,
            chaddr,
            requested: None,
            server: None,
            client_id: &[],
            host_name: &[],
            vendor_class: &[],
            asked: &[],
            rapid_commit: false,
        };
        let (mut kind, mut overload) = (None, 0);
        packet.read_options(reader.rest(), &mut kind, &mut overload)?;
        let mut ignored = 0;
        if overload & 1 != 0 {
            packet.read_options(file, &mut kind, &mut ignored)?;
        }
        if overload & 2 != 0 {
            packet.read_options(sname, &mut kind, &mut ignored)?;
        }
        packet.kind = kind?;
        Some(packet)
    }

    fn read_options(&mut self, bytes: &'a [u8], kind: &mut Option<Kind>, overload: &mut u8) -> Option<()> {
        let mut reader = Reader::new(bytes);
        while let Some(code) = reader.u8() {
            match code {
                0 => continue,
                255 => break,
                _ => {}
            }
            let length = reader.u8()?;
            let value = reader.take(usize::from(length))?;
            match code {
                option::KIND => *kind = Some(kind_of(value)?),
                option::OVERLOAD => *overload = *value.first()?,
                option::REQUESTED => self.requested = Some(address(value)?),
                option::SERVER => self.server = Some(address(value)?),
                option::CLIENT_ID => self.client_id = value,
                option::HOST_NAME => self.host_name = value,
                option::VENDOR_CLASS => self.vendor_class = value,
                option::ASKED => self.asked = value,
                option::RAPID_COMMIT => self.rapid_commit = true,
                _ => {}
            }
        }
        Some(())
    }

    /// Whether the client wants this option, or takes what it gets.
    pub(crate) fn asks(&self, code: u8) -> bool {
        self.asked.is_empty() || self.asked.contains(&code)
    }
}

fn kind_of(value: &[u8]) -> Option<Kind> {
    Some(match value {
        [1] => Kind::Discover,
        [3] => Kind::Request,
        [4] => Kind::Decline,
        [7] => Kind::Release,
        [8] => Kind::Inform,
        _ => return None,
    })
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

/// What stands in the head of an answer.
pub(crate) struct Head<'a> {
    pub(crate) yiaddr: Ipv4Addr,
    pub(crate) siaddr: Ipv4Addr,
    pub(crate) file: &'a str,
}

/// An answer under construction.
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    pub(crate) fn new(to: &Packet<'_>, kind: Kind, head: &Head<'_>) -> Self {
        let mut bytes = Vec::with_capacity(576);
        bytes.extend([2, 1, 6, 0]);
        bytes.extend(to.xid);
        // A refusal must be heard by a client that cannot use its address.
        let flags: u16 = if to.broadcast || kind == Kind::Nak { 0x8000 } else { 0 };
        bytes.extend([0, 0]);
        bytes.extend(flags.to_be_bytes());
        bytes.extend(if kind == Kind::Nak { [0; 4] } else { to.ciaddr.octets() });
        bytes.extend(head.yiaddr.octets());
        bytes.extend(head.siaddr.octets());
        bytes.extend([0; 4]);
        bytes.extend(to.chaddr);
        bytes.extend([0; 10 + SNAME_BYTES]);
        let file_at = bytes.len();
        // What is too long for the field stands in option 67 only.
        bytes.extend(head.file.as_bytes().get(..).filter(|file| file.len() < FILE_BYTES).unwrap_or(&[]));
        bytes.resize(file_at + FILE_BYTES, 0);
        bytes.extend(COOKIE);
        let mut answer = Self(bytes);
        answer.put(option::KIND, &[kind as u8]);
        answer
    }

    /// Adds an option; a value of more than 255 bytes is split, as RFC 3396 has it.
    pub(crate) fn put(&mut self, code: u8, value: &[u8]) {
        for part in value.chunks(255) {
            self.0.extend([code, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
            self.0.extend(part);
        }
    }

    /// Adds an option that says all by being there.
    pub(crate) fn put_flag(&mut self, code: u8) {
        self.0.extend([code, 0]);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.push(255);
        if self.0.len() < MIN_BYTES {
            self.0.resize(MIN_BYTES, 0);
        }
        self.0
    }
}

//! What is said between the anchor and its clients: one request and one answer, each a small JSON text in a
//! packet of its own, with file descriptors beside it. The enums are closed: nothing else is understood.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most sockets that one request makes: the kernel passes up to 253 descriptors in one message, but no
/// user of ours needs more than a socket per protocol of a network at once.
pub const MAX_SOCKETS: u8 = 32;

/// What is said here, and the rules that the engine's namespaces are made with: raised with every change that an
/// anchor of an earlier stead, which goes on running through an upgrade, could not follow.
pub(super) const PROTOCOL: u32 = 2;

/// The longest label: `machine.project` has at most 81 characters; claims may say a little more.
const LABEL_MAX_BYTES: usize = 128;

/// What the anchor knows a namespace or a held descriptor by, such as `web.shop`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// This text is not a [`Label`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelError(String);

/// A path below `/proc/sys/net`, such as `ipv4/conf/all/forwarding`. It cannot lead elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SysctlPath(String);

/// This text is not a [`SysctlPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysctlError(String);

/// A socket, as `socket(2)` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketKind {
    /// The address family.
    pub domain: Domain,
    /// How it carries data.
    pub kind: Kind,
    /// The protocol; for [`Domain::Packet`] in network byte order. 0 is the family's own choice.
    pub protocol: u32,
}

/// The families that the anchor makes sockets of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Domain {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
    /// The kernel's configuration.
    Netlink,
    /// Whole frames.
    Packet,
    /// This computer only; abstract names belong to a network namespace.
    Unix,
}

/// How a socket carries data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A stream of bytes.
    Stream,
    /// Datagrams.
    Datagram,
    /// Datagrams with the protocol's own header.
    Raw,
}

/// What a client asks. An absent `namespace` is the engine's own.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Which protocol the anchor speaks.
    Protocol,
    /// A new network namespace, kept under this name.
    Make { name: Label },
    /// Let go of a namespace; it ends when nobody else holds it.
    Drop { name: Label },
    /// Keep a namespace under another name. One that has that name already keeps it: whether this can be asked is tried so.
    Relabel { from: Label, to: Label },
    /// The names of the namespaces.
    List,
    /// The namespace itself, as a descriptor.
    Get { name: Label },
    /// New sockets in a namespace.
    Socket { namespace: Option<Label>, socket: SocketKind, count: u8 },
    /// `/dev/net/tun`, opened in a namespace.
    Tun { namespace: Option<Label> },
    /// Write a kernel parameter.
    Sysctl { namespace: Option<Label>, path: SysctlPath, value: String },
    /// Read a kernel parameter.
    SysctlRead { namespace: Option<Label>, path: SysctlPath },
    /// Keep the descriptor beside this request open.
    Hold { name: Label },
    /// Close a held descriptor.
    Release { name: Label },
    /// The names of what is held.
    Held,
    /// End.
    Quit,
}

/// What the anchor answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Answer {
    /// It is done; what was asked for is beside this answer.
    Done,
    /// These names.
    Names { names: Vec<Label> },
    /// A kernel parameter's value.
    Value { value: String },
    /// It could not be done.
    Failed { errno: i32, doing: String },
}

/// What a starting anchor tells its spawner.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum Report {
    /// The user namespace stands and wants its id maps; the spawner answers [`Mapping`].
    Map,
    /// It listens.
    Ready,
    /// Another anchor has this directory.
    Taken,
    /// It ended, for this reason.
    Failed { text: String },
}

/// What the spawner answers to [`Report::Map`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum Mapping {
    /// The spawner wrote both maps.
    Written,
    /// There are no subordinate ids: map the own one.
    Own,
}

impl Label {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let lawful = !text.is_empty()
            && text.len() <= LABEL_MAX_BYTES
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if lawful { Ok(Self(text.to_owned())) } else { Err(LabelError(text.to_owned())) }
    }
}

impl SysctlPath {
    /// The path as text, without `/proc/sys/net`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SysctlPath {
    type Err = SysctlError;

    fn from_str(text: &str) -> Result<Self, SysctlError> {
        let lawful =
            |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(|byte| byte.is_ascii_graphic());
        // The deepest one, `ipv4/conf/<link>/<name>`, has four parts.
        if text.len() <= 128 && text.split('/').count() <= 5 && text.split('/').all(lawful) {
            return Ok(Self(text.to_owned()));
        }
        Err(SysctlError(text.to_owned()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for SysctlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net/{}", self.0)
    }
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a label: 1 to {LABEL_MAX_BYTES} printable characters, no space", self.0)
    }
}

impl fmt::Display for SysctlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a path below `/proc/sys/net`", self.0)
    }
}

impl std::error::Error for LabelError {}

impl std::error::Error for SysctlError {}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl TryFrom<String> for SysctlPath {
    type Error = SysctlError;

    fn try_from(text: String) -> Result<Self, SysctlError> {
        text.parse()
    }
}

impl From<SysctlPath> for String {
    fn from(path: SysctlPath) -> Self {
        path.0
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |namespace: &Option<Label>| match namespace {
            Some(name) => format!("namespace `{name}`"),
            None => "the engine's namespace".to_owned(),
        };
        match self {
            Self::Protocol => f.write_str("say which protocol it speaks"),
            Self::Make { name } => write!(f, "make namespace `{name}`"),
            Self::Drop { name } => write!(f, "drop namespace `{name}`"),
            Self::Relabel { from, to } => write!(f, "call namespace `{from}` `{to}`"),
            Self::List => f.write_str("list the namespaces"),
            Self::Get { name } => write!(f, "open namespace `{name}`"),
            Self::Socket { namespace, socket, .. } => {
                write!(f, "make a {:?} socket in {}", socket.domain, place(namespace))
            }
            Self::Tun { namespace } => write!(f, "open `/dev/net/tun` in {}", place(namespace)),
            Self::Sysctl { namespace, path, value } => {
                write!(f, "set `{path}` to `{value}` in {}", place(namespace))
            }
            Self::SysctlRead { namespace, path } => write!(f, "read `{path}` in {}", place(namespace)),
            Self::Hold { name } => write!(f, "hold `{name}`"),
            Self::Release { name } => write!(f, "release `{name}`"),
            Self::Held => f.write_str("list what is held"),
            Self::Quit => f.write_str("end the anchor"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_path_cannot_leave_its_directory() {
        for good in
            ["ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv6/conf/br.1/accept_ra", "core/somaxconn"]
        {
            assert!(good.parse::<SysctlPath>().is_ok(), "{good}");
        }
        for bad in
            ["", "/ipv4", "ipv4/", "ipv4//x", "../kernel/x", "ipv4/../../kernel", "./x", "a/b c", "a\0b"]
        {
            assert!(bad.parse::<SysctlPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_is_short_and_printable() {
        assert!("web.shop".parse::<Label>().is_ok());
        for bad in ["", "a b", "ü", "a\n", &"a".repeat(129)] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_read_back_and_unknown_ones_are_refused() {
        let request = Request::Sysctl {
            namespace: None,
            path: "ipv4/ip_forward".parse().unwrap(),
            value: "1".to_owned(),
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"do":"sysctl","namespace":null,"path":"ipv4/ip_forward","value":"1"}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert!(serde_json::from_str::<Request>(r#"{"do":"format-disk"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"do":"make","name":"a b"}"#).is_err());
    }
}

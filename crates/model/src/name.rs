//! Names: what people call things, and what the kernel does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a project, machine, network or volume: `a-z`, `0-9` and `-`, not a number, not `-` first or last, at
/// most 40 characters. It is a DNS label, because every machine is found by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The project of what is made by command and is in no file of the user's.
pub const LOOSE_PROJECT: &str = "default";

/// 63 is DNS's limit for a label; 40 leaves room for what we put before or after a name.
pub const NAME_MAX_CHARS: usize = 40;

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing there.
    Empty,
    /// More than [`NAME_MAX_CHARS`].
    TooLong(usize),
    /// More than [`ALIAS_MAX_CHARS`].
    AliasTooLong(usize),
    /// Starts with `-`.
    Start,
    /// Would be taken for an address: programs read `7` as `0.0.0.7`, and `0x7` too.
    Number,
    /// Ends in `-`.
    End,
    /// Holds this character.
    Char(char),
    /// Has a meaning of its own.
    Reserved,
}

/// Names that would be taken for something else in a DNS query.
pub(crate) const RESERVED: [&str; 2] = ["localhost", "stead"];
/// Names that would be taken for something else where a network is named.
pub(crate) const RESERVED_OF_NETWORKS: [&str; 4] = ["auto", "host", "none", "user"];

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// [`LOOSE_PROJECT`], which is a lawful name.
    pub fn of_loose_project() -> Self {
        Self(LOOSE_PROJECT.to_owned())
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(NameError::Char(bad));
        }
        if text.starts_with('-') {
            return Err(NameError::Start);
        }
        if text.ends_with('-') {
            return Err(NameError::End);
        }
        if text.len() > NAME_MAX_CHARS {
            return Err(NameError::TooLong(text.len()));
        }
        if is_number(text) {
            return Err(NameError::Number);
        }
        if RESERVED.contains(&text) {
            return Err(NameError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A name as other tools take them, with capitals and `_`, as it is here.
pub fn as_ours(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Whether a text is a number to those who read addresses.
fn is_number(text: &str) -> bool {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    digits.chars().all(|c| c.is_digit(radix))
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a name cannot be empty"),
            Self::TooLong(chars) => {
                write!(f, "a name has at most {NAME_MAX_CHARS} characters, this has {chars}")
            }
            Self::AliasTooLong(chars) => {
                write!(f, "an alias has at most {ALIAS_MAX_CHARS} characters, this has {chars}")
            }
            Self::Start => write!(f, "a name cannot start with `-`"),
            Self::Number => write!(f, "a number would be taken for an address"),
            Self::End => write!(f, "a name cannot end with `-`"),
            Self::Char(c) => write!(f, "a name holds only `a-z`, `0-9` and `-`, not `{}`", c.escape_debug()),
            Self::Reserved => write!(f, "this name is reserved"),
        }
    }
}

impl std::error::Error for NameError {}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of a link, as the kernel takes it: 1 to 15 bytes, no `/`, no white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName(String);

/// The kernel's `IFNAMSIZ` less the closing NUL.
pub const LINK_NAME_MAX_BYTES: usize = 15;

impl LinkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkName {
    type Err = LinkNameError;

    fn from_str(text: &str) -> Result<Self, LinkNameError> {
        let lawful = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        if text.is_empty()
            || text.len() > LINK_NAME_MAX_BYTES
            || matches!(text, "." | "..")
            || !text.chars().all(lawful)
        {
            return Err(LinkNameError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// One more name of a machine on a network: a [`Name`], or several with `.` between. It is found by DNS alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alias(String);

/// DNS has 253 for a whole name; that of a network's domain, of two names, goes behind.
pub const ALIAS_MAX_CHARS: usize = 160;

impl Alias {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Alias {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > ALIAS_MAX_CHARS {
            return Err(NameError::AliasTooLong(text.len()));
        }
        // What ends in a reserved name is in a domain of others, and what has nothing but numbers is an address.
        let is_address = text.split('.').all(is_number);
        let mut parts = text.split('.').rev();
        parts.next().map_or(Ok(()), |last| lawful_part(last, is_address, true))?;
        parts.try_for_each(|part| lawful_part(part, is_address, false))?;
        Ok(Self(text.to_owned()))
    }
}

fn lawful_part(part: &str, is_address: bool, is_last: bool) -> Result<(), NameError> {
    match part.parse::<Name>() {
        Err(NameError::Number) if !is_address => Ok(()),
        Err(NameError::Reserved) if !is_last => Ok(()),
        other => other.map(drop),
    }
}

impl From<Name> for Alias {
    fn from(name: Name) -> Self {
        Self(name.0)
    }
}

impl TryFrom<String> for Alias {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Alias> for String {
    fn from(alias: Alias) -> Self {
        alias.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// This text cannot name a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkNameError(String);

impl fmt::Display for LinkNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` cannot name a link: 1 to {LINK_NAME_MAX_BYTES} characters, no `/`, `:` or space",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for LinkNameError {}

impl TryFrom<String> for LinkName {
    type Error = LinkNameError;

    fn try_from(text: String) -> Result<Self, LinkNameError> {
        text.parse()
    }
}

impl From<LinkName> for String {
    fn from(name: LinkName) -> Self {
        name.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $id:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $id {
            /// The project it belongs to.
            pub project: Name,
            /// Its own name.
            pub name: Name,
        }

        impl $id {
            /// Joins both names.
            pub fn new(project: &Name, name: &Name) -> Self {
                Self { project: project.clone(), name: name.clone() }
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{}.{}", self.name, self.project))
            }
        }

        impl FromStr for $id {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let parsed = text.split_once('.').and_then(|(name, project)| {
                    Some(Self { project: project.parse().ok()?, name: name.parse().ok()? })
                });
                parsed.ok_or_else(|| IdError(text.to_owned()))
            }
        }

        impl TryFrom<String> for $id {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.to_string()
            }
        }
    };
}

id!(
    /// A network of a project, written `lan.shop`.
    NetworkId
);
id!(
    /// A machine of a project, written `web.shop`.
    MachineId
);
id!(
    /// A volume of a project, written `data.shop`.
    VolumeId
);

/// This text is not `name.project`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdError(String);

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not `name.project`", self.0.escape_debug())
    }
}

impl std::error::Error for IdError {}

/// A nic of a machine, written `web/lan.shop`, or `web.blog/lan.shop` on a network of another project: a machine has at most
/// one on a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NicId {
    /// The project of the machine.
    pub project: Name,
    /// The machine that has it.
    pub machine: Name,
    /// The network it is on.
    pub network: Name,
    /// The project of that: mostly the machine's own.
    pub lender: Name,
}

/// What a [`NicId`] may take as text: a link's alias has 255 bytes, and addresses are in it as well.
pub const NIC_ID_MAX_CHARS: usize = 150;

impl NicId {
    /// That of a machine on a network.
    pub fn new(machine: &MachineId, network: &NetworkId) -> Self {
        Self {
            project: machine.project.clone(),
            machine: machine.name.clone(),
            network: network.name.clone(),
            lender: network.project.clone(),
        }
    }

    /// The machine that has it.
    pub fn machine(&self) -> MachineId {
        MachineId::new(&self.project, &self.machine)
    }

    /// The network it is on.
    pub fn network(&self) -> NetworkId {
        NetworkId::new(&self.lender, &self.network)
    }

    /// The key of the file that asks for it. What the file calls another project's network is not known here.
    pub fn key(&self) -> String {
        let Self { machine, network, .. } = self;
        if self.is_external() {
            format!("machines.{machine}.networks ({})", self.network())
        } else {
            format!("machines.{machine}.networks.{network}")
        }
    }

    /// The network as the machine's project calls it: in full where it is another's.
    pub fn network_called(&self) -> String {
        if self.is_external() { self.network().to_string() } else { self.network.to_string() }
    }

    /// The machine as the network's project calls it: in full where it is another's.
    pub fn machine_called(&self) -> String {
        if self.is_external() { self.machine().to_string() } else { self.machine.to_string() }
    }

    /// Whether the network is another project's.
    pub fn is_external(&self) -> bool {
        self.project != self.lender
    }
}

impl fmt::Display for NicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.network();
        if self.is_external() {
            f.pad(&format!("{}/{network}", self.machine()))
        } else {
            f.pad(&format!("{}/{network}", self.machine))
        }
    }
}

impl FromStr for NicId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parsed = text.split_once('/').and_then(|(machine, network)| {
            let network: NetworkId = network.parse().ok()?;
            let machine = if machine.contains('.') {
                machine.parse().ok()?
            } else {
                MachineId::new(&network.project, &machine.parse().ok()?)
            };
            Some(Self::new(&machine, &network))
        });
        parsed.ok_or_else(|| IdError(text.to_owned()))
    }
}

impl TryFrom<String> for NicId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<NicId> for String {
    fn from(id: NicId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), NameError>) {
        assert_eq!(text.parse::<Name>().map(|name| assert_eq!(name.as_str(), text)), expected);
    }

    #[test]
    fn a_name_is_a_dns_label_of_ours() {
        check("web", Ok(()));
        check("web-1", Ok(()));
        check("a", Ok(()));
        check("", Err(NameError::Empty));
        check("1web", Ok(()));
        check("0xg", Ok(()));
        check("-web", Err(NameError::Start));
        check("7", Err(NameError::Number));
        check("0x7f", Err(NameError::Number));
        check("Web", Err(NameError::Char('W')));
        check("web.lan", Err(NameError::Char('.')));
        check("web-", Err(NameError::End));
        check(&"a".repeat(41), Err(NameError::TooLong(41)));
        check("localhost", Err(NameError::Reserved));
        check("user", Ok(()));
    }

    #[test]
    fn an_alias_is_several_labels_and_no_address() {
        let check = |text: &str, expected| assert_eq!(text.parse::<Alias>().map(drop), expected, "{text}");
        check("www", Ok(()));
        check("elasticsearch-7.17.0", Ok(()));
        check("www.stead.example", Ok(()));
        check("10.0.0.7", Err(NameError::Number));
        check("www.localhost", Err(NameError::Reserved));
        check("www..example", Err(NameError::Empty));
        // A label of DNS has 63 characters.
        check(&format!("{}.example", "1".repeat(64)), Err(NameError::TooLong(64)));
        check(&["a"; 81].join("."), Err(NameError::AliasTooLong(161)));
    }

    #[test]
    fn an_error_does_not_drive_the_terminal() {
        let error = "la\u{1c}n".parse::<Name>().unwrap_err();
        assert_eq!(error.to_string(), "a name holds only `a-z`, `0-9` and `-`, not `\\u{1c}`");
        let shown = "\u{1b}[2J".parse::<LinkName>().unwrap_err().to_string();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn ids_read_back_what_they_print() {
        let nic: NicId = "web/lan.shop".parse().unwrap();
        assert_eq!(nic.to_string(), "web/lan.shop");
        assert_eq!(nic.machine().to_string(), "web.shop");
        assert_eq!(nic.network(), "lan.shop".parse().unwrap());
        assert!("web".parse::<MachineId>().is_err());
        let external: NicId = "web.blog/lan.shop".parse().unwrap();
        assert_eq!(external.to_string(), "web.blog/lan.shop");
        assert_eq!(external.machine().to_string(), "web.blog");
        assert_eq!(external.network(), nic.network());
        assert_eq!("web.shop/lan.shop".parse::<NicId>().unwrap(), nic);
        assert!("web/lan".parse::<NicId>().is_err());
        assert!("web.blog/lan".parse::<NicId>().is_err());
    }
}

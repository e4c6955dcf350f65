//! What a process may do beyond an ordinary user: sets of capabilities, by their names.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use stead_model::container::{CAPABILITIES, Mode, Rights};

/// What a program has where nothing is said: Docker's set.
const APPLICATION: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// What a system does not have where nothing is said: what changes this computer as a whole, as LXC has it.
const NOT_A_SYSTEMS: [&str; 9] = [
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_TIME",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "PERFMON",
];

/// A set of capabilities, as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(pub(crate) u64);

impl Capabilities {
    /// Every one there is.
    pub(crate) const ALL: Self = Self((1 << CAPABILITIES.len()) - 1);

    /// One by its name, with or without `CAP_`, in any case.
    pub(crate) fn named(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        CAPABILITIES.iter().position(|known| *known == name).map(|number| Self(1 << number))
    }

    /// Whether all of these are in it.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Each that the kernel may have but that is not in it.
    pub(crate) fn missing(self) -> impl Iterator<Item = Self> {
        (0..u64::BITS).map(|bit| Self(1 << bit)).filter(move |one| !self.contains(*one))
    }
}

/// What a container's processes may have at the most, and what is theirs even if they are not root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// The bounding set.
    pub(crate) most: Capabilities,
    /// What was asked for by name: the part of it that users other than root have from the start.
    pub(crate) asked: Capabilities,
}

/// What these rights mean.
pub(crate) fn allowed(rights: &Rights, mode: Mode) -> Result<Allowed> {
    let add = Wish::parse(&rights.capabilities_add)?;
    let drop = Wish::parse(&rights.capabilities_drop)?;
    let usual = match (rights.privileged, mode) {
        (true, _) => Capabilities::ALL,
        (false, Mode::Application) => known(&APPLICATION),
        (false, Mode::System) => Capabilities(Capabilities::ALL.0 & !known(&NOT_A_SYSTEMS).0),
    };
    let base = match (add.all, drop.all) {
        (true, _) => Capabilities::ALL,
        (false, true) => Capabilities::default(),
        (false, false) => usual,
    };
    let most = Capabilities((base.0 | add.named.0) & !drop.named.0);
    let asked = if rights.privileged || add.all { most } else { most.and(add.named) };
    Ok(Allowed { most, asked })
}

struct Wish {
    all: bool,
    named: Capabilities,
}

impl Wish {
    fn parse(names: &BTreeSet<String>) -> Result<Self> {
        let mut wish = Self { all: false, named: Capabilities::default() };
        for name in names {
            match Capabilities::named(name) {
                Some(one) => wish.named.0 |= one.0,
                None if name.eq_ignore_ascii_case("ALL") => wish.all = true,
                None => bail!("`{}` is no capability", name.escape_debug()),
            }
        }
        Ok(wish)
    }
}

fn known(names: &[&str]) -> Capabilities {
    Capabilities(names.iter().filter_map(|name| Capabilities::named(name)).fold(0, |set, one| set | one.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(add: &str, drop: &str, mode: Mode, expected: (u64, u64)) {
        let set = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let rights = Rights { capabilities_add: set(add), capabilities_drop: set(drop), ..Rights::default() };
        let Allowed { most, asked } = allowed(&rights, mode).unwrap();
        assert_eq!((most.0, asked.0), expected, "{:#x} {:#x}", most.0, asked.0);
    }

    #[test]
    fn the_usual_ones_are_dockers_with_what_is_added_and_dropped() {
        check("", "", Mode::Application, (0xa804_25fb, 0));
        check("NET_ADMIN", "", Mode::Application, (0xa804_35fb, 0x1000));
        check("cap_net_admin", "ALL", Mode::Application, (0x1000, 0x1000));
        check("", "all", Mode::Application, (0, 0));
        check("ALL", "", Mode::Application, (0x1ff_ffff_ffff, 0x1ff_ffff_ffff));
        check("ALL", "SYS_ADMIN", Mode::Application, (0x1ff_ffdf_ffff, 0x1ff_ffdf_ffff));
        check("CHOWN", "CHOWN", Mode::Application, (0xa804_25fa, 0));
    }

    #[test]
    fn a_system_has_nearly_all() {
        check("", "", Mode::System, (0x1a0_fdfc_ffff, 0));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let rights = Rights { capabilities_add: ["NET_ADMINS".to_owned()].into(), ..Rights::default() };
        assert_eq!(
            allowed(&rights, Mode::Application).unwrap_err().to_string(),
            "`NET_ADMINS` is no capability"
        );
    }
}

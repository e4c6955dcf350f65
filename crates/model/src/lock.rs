//! `stead.lock`: what was resolved once, so that a teammate gets the same lab. It is written beside the
//! project file and meant to be committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::file::{Problem, Problems, Span, lock_problems, quote};
use crate::name::{Name, NicId};
use crate::observed::NetworkState;
use crate::plan::{Wanted, WantedMachine};
use crate::project::{Project, Subnet};
use crate::resolve::{is_host6, is_usable};

/// What a project's open choices became.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The form of this file.
    pub version: Version,
    /// The subnets of networks.
    pub networks: BTreeMap<Name, LockedNetwork>,
    /// The addresses of nics, by machine and network.
    pub machines: BTreeMap<Name, BTreeMap<Name, LockedNic>>,
}

/// The form of a lock file: so far there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// The first.
    #[default]
    #[serde(rename = "1")]
    One,
}

/// The subnets of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedNetwork {
    /// Its IPv4 subnet.
    pub subnet: Option<Ipv4Net>,
    /// Its IPv6 subnet.
    pub subnet6: Option<Ipv6Net>,
}

/// What is pinned of a nic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedNic {
    /// Its MAC.
    pub mac: Option<Mac>,
    /// Its IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub address6: Option<Ipv6Addr>,
}

impl Lock {
    /// What a plan's choices pin; but for one-offs, which come and go, and for nics on networks of other projects: on another
    /// computer those have addresses of their own.
    pub fn new(wanted: &Wanted) -> Self {
        let networks = wanted.networks.iter().map(|(id, network)| {
            let subnet = network.gateway.map(|net| net.trunc());
            let subnet6 = network.gateway6.map(|net| net.trunc());
            (id.name.clone(), LockedNetwork { subnet, subnet6 })
        });
        let mut machines: BTreeMap<Name, BTreeMap<Name, LockedNic>> = BTreeMap::new();
        let is_one_off =
            |id: &NicId| wanted.machines.get(&id.machine()).is_some_and(WantedMachine::is_one_off);
        for (id, nic) in wanted.nics.iter().filter(|(id, _)| !id.is_external() && !is_one_off(id)) {
            let network = wanted.networks.get(&id.network());
            let locked = LockedNic {
                // On a real network MACs are each computer's own, or two teammates would have the same.
                mac: Some(nic.lease.mac).filter(|_| !network.is_some_and(NetworkState::is_bridged)),
                address: nic.lease.address,
                address6: nic.lease.address6,
            };
            machines.entry(id.machine.clone()).or_default().insert(id.network.clone(), locked);
        }
        Self { version: Version::One, networks: networks.collect(), machines }
    }

    /// The same, and what was pinned of these machines, which the choices were not about.
    #[must_use]
    pub fn keeping(mut self, earlier: &Self, resting: &BTreeSet<Name>) -> Self {
        for (name, nics) in earlier.machines.iter().filter(|(name, _)| resting.contains(*name)) {
            self.machines.entry(name.clone()).or_insert_with(|| nics.clone());
        }
        self
    }

    /// Reads a lock file.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Problems> {
        /// What is read first, of a file of any form.
        #[derive(Deserialize)]
        struct Any {
            version: String,
        }
        let problems = match serde_json::from_str::<Any>(text) {
            Ok(Any { version }) if version != "1" => {
                let before = text.split("\"version\"").next().unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                let message =
                    format!("its version is {}, and this program reads version `1`", quote(&version));
                let span = Span { line, column, chars: "\"version\"".len() };
                let newer = "a newer stead wrote it: use that one, or choose anew by `stead up --relock`";
                vec![Problem::found(span, "version", &version, message).hint(newer)]
            }
            Ok(_) | Err(_) => match serde_json::from_str(text) {
                Ok(lock) => return Ok(lock),
                Err(error) => lock_problems(text, &error),
            },
        };
        Err(Problems::new(file_name, text, problems))
    }

    /// The text of the file.
    pub fn render(&self) -> String {
        // A map with text keys always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// A choice that the lock pins and that could not be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Whose it is, as the file has it: `networks.lan`, `machines.web.networks.lan`.
    pub key: String,
    /// What was pinned.
    pub pinned: String,
    /// What is there instead, if anything is.
    pub instead: Option<String>,
    /// Why.
    pub why: String,
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, pinned, why, .. } = self;
        write!(f, "{key}: stead.lock pins {pinned}, which cannot be kept: {why}; ")?;
        match &self.instead {
            Some(instead) => write!(f, "it has {instead} now"),
            None => write!(f, "it has none now"),
        }
    }
}

impl Lock {
    /// The pins that choices did not keep, but for those that the file itself gives another value.
    pub fn replaced(&self, project: &Project, wanted: &Wanted) -> Vec<Replaced> {
        let mut replaced = Vec::new();
        for (id, state) in &wanted.networks {
            let (Some(pins), Some(network)) = (self.networks.get(&id.name), project.networks.get(&id.name))
            else {
                continue;
            };
            let key = format!("networks.{}", id.name);
            let mut told = |pinned: Option<String>, now: Option<String>, is_open: bool| {
                let Some(pinned) = pinned.filter(|pinned| is_open && now.as_ref() != Some(pinned)) else {
                    return;
                };
                let why = match now {
                    Some(_) => "it stands with another, which only `stead down` gives up",
                    None => "this computer cannot have it",
                };
                replaced.push(Replaced { key: key.clone(), pinned, instead: now, why: why.to_owned() });
            };
            told(
                pins.subnet.map(|net| net.to_string()),
                state.gateway.map(|net| net.trunc().to_string()),
                network.subnet == Subnet::Auto,
            );
            told(
                pins.subnet6.map(|net| net.to_string()),
                state.gateway6.map(|net| net.trunc().to_string()),
                network.subnet6 == Subnet::Auto,
            );
        }
        for id in wanted.nics.keys().filter(|id| !id.is_external()) {
            replaced.extend(self.replaced_of(id, project, wanted));
        }
        replaced
    }

    fn replaced_of(&self, id: &NicId, project: &Project, wanted: &Wanted) -> Vec<Replaced> {
        let pins = self.machines.get(&id.machine).and_then(|nics| nics.get(&id.network));
        let said = project.machines.get(&id.machine);
        let said = said.and_then(|machine| machine.nics.iter().find(|nic| nic.network == id.network));
        let (Some(pins), Some(said), Some(state)) = (pins, said, wanted.nics.get(id)) else {
            return Vec::new();
        };
        let Some(network) = wanted.networks.get(&id.network()) else { return Vec::new() };
        let lease = &state.lease;
        let pinned = [
            (pins.address.map(IpAddr::V4), lease.address.map(IpAddr::V4), said.address.is_none()),
            (pins.address6.map(IpAddr::V6), lease.address6.map(IpAddr::V6), said.address6.is_none()),
        ];
        let key = format!("machines.{}.networks.{}", id.machine, id.network);
        let mut replaced = Vec::new();
        for (pinned, now, is_open) in pinned {
            let Some(pinned) = pinned.filter(|_| is_open && pinned != now) else { continue };
            let (key, instead) = (key.clone(), now.map(|now| now.to_string()));
            let why = why_not(id, pinned, network, wanted);
            replaced.push(Replaced { key, pinned: pinned.to_string(), instead, why });
        }
        let is_open = said.mac.is_none() && !network.is_bridged();
        if let Some(mac) = pins.mac.filter(|mac| is_open && *mac != lease.mac) {
            let instead = Some(lease.mac.to_string());
            let why = "another nic has it, or this one had another already".to_owned();
            replaced.push(Replaced { key, pinned: mac.to_string(), instead, why });
        }
        replaced
    }
}

/// Why a nic does not have an address that was pinned for it.
fn why_not(id: &NicId, pinned: IpAddr, network: &NetworkState, wanted: &Wanted) -> String {
    let fits = match pinned {
        IpAddr::V4(address) => is_usable(network, address),
        IpAddr::V6(address) => is_host6(network, address),
    };
    let holder = wanted.nics.iter().find(|(other, nic)| {
        *other != id && other.network() == id.network() && nic.lease.addresses().contains(&pinned)
    });
    match (fits, holder) {
        (false, _) => format!("no machine of network `{}` ({network}) can have it", id.network),
        (true, Some((other, _))) => format!("machine `{}` has it", other.machine),
        (true, None) => "it has another already, which only `stead down` or `stead rm` gives up, or a machine of another project has it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "reads better at every call")]
    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&Lock::parse("stead.lock", text).expect_err("no lock").to_string());
    }

    #[test]
    fn a_damaged_lock_is_told_with_its_place() {
        check(
            "{\n  \"version\": \"1\",\n",
            expect![[r#"
                stead.lock:2:3: it ends after this, in the middle
                  2 |   "version": "1",
                    |   ^^^^^^^^^^^^^^^
                  hint: restore it from version control, or let `stead up --relock` choose subnets and addresses anew
            "#]],
        );
        check(
            "{\n  \"version\": \"2\"\n}\n",
            expect![[r#"
            stead.lock:2:3: its version is `2`, and this program reads version `1`
              2 |   "version": "2"
                |   ^^^^^^^^^
              hint: a newer stead wrote it: use that one, or choose anew by `stead up --relock`
        "#]],
        );
        let bad = "{ \"version\": \"1\", \"networks\": { \"lan\": { \"subnet\": \"10.0.5/24\", \"subnet6\": null } } }";
        check(
            bad,
            expect![[r#"
                stead.lock:1:52: `10.0.5/24` is not a network
                  1 | { "version": "1", "networks": { "lan": { "subnet": "10.0.5/24", "subnet6": null } } }
                    |                                                    ^^^^^^^^^^^
                  hint: a network is written like `10.0.5.0/24`; `stead up --relock` chooses anew
            "#]],
        );
    }

    #[test]
    fn every_wrong_value_is_told() {
        let bad = r#"{
  "version": "1",
  "networks": { "lan": { "subnet": "10.0.5.0/24", "subnet7": "fd00:5::/48" }, "Wan": {} },
  "machines": {
    "web": { "lan": { "mac": "03:00:00:00:00:01", "address": "10.0.5.300", "address6": null } },
    "db": { "lan": { "mac": 7 }, "back": "10.0.5.7" }
  }
}
"#;
        check(
            bad,
            expect![[r#"
            stead.lock:3:51: there is no key `subnet7` here
              3 |   "networks": { "lan": { "subnet": "10.0.5.0/24", "subnet7": "fd00:5::/48" }, "Wan": {} },
                |                                                   ^^^^^^^^^
              hint: did you mean `subnet`? `stead up --relock` chooses anew

            stead.lock:3:79: `Wan` is not a name: a name holds only `a-z`, `0-9` and `-`, not `W`
              3 |   "networks": { "lan": { "subnet": "10.0.5.0/24", "subnet7": "fd00:5::/48" }, "Wan": {} },
                |                                                                               ^^^^^
              hint: write `wan`; `stead up --relock` chooses anew

            stead.lock:5:30: `03:00:00:00:00:01` is not a MAC: this MAC names a group of nics: its first byte must be even
              5 |     "web": { "lan": { "mac": "03:00:00:00:00:01", "address": "10.0.5.300", "address6": null } },
                |                              ^^^^^^^^^^^^^^^^^^^
              hint: write `02:00:00:00:00:01`, or leave it out; `stead up --relock` chooses anew

            stead.lock:5:62: `10.0.5.300` is not an IPv4 address a machine can have
              5 |     "web": { "lan": { "mac": "03:00:00:00:00:01", "address": "10.0.5.300", "address6": null } },
                |                                                              ^^^^^^^^^^^^
              hint: an address is written like `10.0.5.7`, without a prefix; `stead up --relock` chooses anew

            stead.lock:6:29: `7` is not a MAC: a MAC is six bytes in hexadecimal, like `02:00:00:00:00:01`
              6 |     "db": { "lan": { "mac": 7 }, "back": "10.0.5.7" }
                |                             ^
              hint: a MAC is written like `02:00:00:00:00:07`; or leave it out; `stead up --relock` chooses anew

            stead.lock:6:42: `machines.db.back` takes a mapping, not `10.0.5.7`
              6 |     "db": { "lan": { "mac": 7 }, "back": "10.0.5.7" }
                |                                          ^^^^^^^^^^^
              hint: write keys under it, such as `mac: …`; `stead up --relock` chooses anew
        "#]],
        );
        check(
            "{ \"version\": \"1\", \"networks\": {} }",
            expect![[r#"
                stead.lock:1:34: not JSON as stead writes it: missing field `machines`
                  1 | { "version": "1", "networks": {} }
                    |                                  ^
                  hint: restore it from version control, or let `stead up --relock` choose subnets and addresses anew
            "#]],
        );
        check(
            "{ \"version\": \"1\", \"networks\": {}, machines: {} }",
            expect![[r#"
            stead.lock:1:35: not JSON as stead writes it: key must be a string
              1 | { "version": "1", "networks": {}, machines: {} }
                |                                   ^^^^^^^^^
              hint: restore it from version control, or let `stead up --relock` choose subnets and addresses anew
        "#]],
        );
        check(
            "{ \"version\": 1, \"networks\": {}, \"machines\": {} }",
            expect![[r#"
            stead.lock:1:14: not JSON as stead writes it: expected value
              1 | { "version": 1, "networks": {}, "machines": {} }
                |              ^
              hint: restore it from version control, or let `stead up --relock` choose subnets and addresses anew
        "#]],
        );
    }

    #[test]
    fn what_is_no_lock_at_all_is_told() {
        check(
            "[]",
            expect![[r#"
                stead.lock:1:1: the file takes a mapping, not a list
                  1 | []
                    | ^
                  hint: write keys under it, such as `version: …`; `stead up --relock` chooses anew
            "#]],
        );
        check(
            "{\n<<<<<<< HEAD\n  \"version\": \"1\",\n=======\n  \"version\": \"1\",\n>>>>>>> a branch\n}\n",
            expect![[r#"
                stead.lock:2:1: a merge left both sides here
                  2 | <<<<<<< HEAD
                    | ^^^^^^^^^^^^
                  hint: keep one of them, or let `stead up --relock` choose subnets and addresses anew

                stead.lock:4:1: a merge left both sides here
                  4 | =======
                    | ^^^^^^^
                  hint: keep one of them, or let `stead up --relock` choose subnets and addresses anew

                stead.lock:6:1: a merge left both sides here
                  6 | >>>>>>> a branch
                    | ^^^^^^^^^^^^^^^^
                  hint: keep one of them, or let `stead up --relock` choose subnets and addresses anew
            "#]],
        );
        check(
            "<<<<<<< HEAD\n{}\n",
            expect![[r#"
                stead.lock:1:1: a merge left both sides here
                  1 | <<<<<<< HEAD
                    | ^^^^^^^^^^^^
                  hint: keep one of them, or let `stead up --relock` choose subnets and addresses anew
            "#]],
        );
        check(
            "",
            expect![[r#"
                stead.lock:1:1: there is nothing in it
                  hint: restore it from version control, or let `stead up --relock` choose subnets and addresses anew
            "#]],
        );
    }
}

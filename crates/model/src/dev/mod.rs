//! Somebody to work as in a machine: what the file says of them, what is filled in of the person who calls, and the scripts
//! that make sure of them.
//!
//! ```text
//! Dev, as the file has it ──┐                                            ┌──make──▶ run in the machine as its root
//! Person, who calls ────────┴──account──▶ Account, every choice made ────┴──furnish──▶ then as themselves
//! ```

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::project::Kind;
use crate::provision::Script;

/// What the file says of the user to work as; what it leaves out comes of the person who calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dev {
    /// The name.
    pub user: Option<String>,
    /// The user id.
    pub uid: Option<u32>,
    /// The login shell, as a path in the machine.
    pub shell: Option<String>,
    /// More groups to be in.
    pub groups: BTreeSet<String>,
    /// Whether they may become root without a password.
    pub sudo: bool,
    /// The public keys that let them in.
    pub keys: Option<Vec<String>>,
    /// The hash of their password.
    pub password_hash: Option<String>,
}

impl Default for Dev {
    fn default() -> Self {
        Self {
            user: None,
            uid: None,
            shell: None,
            groups: BTreeSet::new(),
            sudo: true,
            keys: None,
            password_hash: None,
        }
    }
}

/// The person who calls, as far as this computer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Their name and user id; nobody's for root who is nobody else.
    pub account: Option<(String, u32)>,
    /// Their own public keys.
    pub keys: Vec<String>,
    /// The ids in their containers.
    pub ids: Ids,
}

/// The ids that there are in the containers of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Those of this computer, below this one.
    Same(u32),
    /// 0 is the person's own id here, and those after it, below this one, are ids that they may lend.
    Lent(u32),
}

impl Default for Person {
    fn default() -> Self {
        Self { account: None, keys: Vec::new(), ids: Ids::Same(u32::MAX) }
    }
}

/// A user to be there in a machine, every choice made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub user: String,
    uid: u32,
    shell: Option<String>,
    groups: BTreeSet<String>,
    sudo: bool,
    keys: Vec<String>,
    password_hash: Option<String>,
    /// Where directories and files of this computer are in the machine: whose those are is not for a script to change.
    binds: BTreeSet<String>,
}

/// Why a machine cannot have such a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The key below `dev` that asks for it; empty where none does.
    pub key: &'static str,
    /// Why not.
    pub why: String,
    /// What to do.
    pub hint: &'static str,
}

/// The name of somebody whose own is none for a machine.
const NAME: &str = "dev";

/// The id of somebody whose own is none for a machine: the first one that distributions give to people.
const UID: u32 = 1000;

/// What makes sure of the user, after lines that say of whom.
const MAKE: &str = concat!(include_str!("common.sh"), "\n", include_str!("make.sh"));

/// What makes their home one to work in, after such lines.
const FURNISH: &str = concat!(include_str!("common.sh"), "\n", include_str!("home.sh"));

/// Whether a text can be the name of a user or a group.
pub fn is_name(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let lawful = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    starts && text.len() <= NAME_MAX_BYTES && text.chars().all(lawful)
}

/// What `utmp` has room for.
const NAME_MAX_BYTES: usize = 32;

/// The public keys in a text, one in a line; or the number of the first line that is neither one nor a comment.
pub fn public_keys(text: &str) -> Result<Vec<String>, usize> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(at, line)| if crate::file::is_public_key(line) { Ok(line.to_owned()) } else { Err(at) })
        .collect()
}

/// The user that a machine is to have in which there is something of this computer at these places. A machine with a
/// kernel of its own has all ids.
pub fn account(dev: &Dev, person: &Person, kind: Kind, binds: BTreeSet<String>) -> Result<Account, Unfit> {
    let own = person.account.as_ref().filter(|(_, uid)| *uid != 0);
    let name = own.map(|(name, _)| name.as_str()).filter(|name| is_name(name) && *name != "root");
    let own_uid = own.map(|(_, uid)| *uid);
    let (below, usual) = match (kind, person.ids) {
        (Kind::Microvm | Kind::Vm, _) => (u32::MAX, own_uid),
        (Kind::Container, Ids::Same(below)) => (below, own_uid),
        // Whichever it is, it is another's on this computer.
        (Kind::Container, Ids::Lent(below)) => (below, None),
    };
    let uid = dev.uid.or(usual).unwrap_or(UID);
    if uid >= below {
        let (key, why) = match dev.uid {
            Some(_) => ("uid", format!("this user's containers have no user id {uid}")),
            None => ("", format!("this user's containers have no user id {uid} for somebody to work as")),
        };
        let hint = "write a `uid` that they have; `stead doctor` says under `subordinate ids` how they get more, and \
            after `stead down` they have them";
        return Err(Unfit { key, why, hint });
    }
    Ok(Account {
        user: dev.user.clone().unwrap_or_else(|| name.unwrap_or(NAME).to_owned()),
        uid,
        shell: dev.shell.clone(),
        groups: dev.groups.clone(),
        sudo: dev.sudo,
        keys: dev.keys.clone().unwrap_or_else(|| person.keys.clone()),
        password_hash: dev.password_hash.clone(),
        binds,
    })
}

impl Account {
    /// The script that makes sure of it in a machine, whatever that has already.
    pub fn make(&self) -> Script {
        let groups: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        let pairs = [
            ("user", self.user.clone()),
            ("uid", self.uid.to_string()),
            ("shell", self.shell.clone().unwrap_or_default()),
            ("groups", groups.join(" ")),
            ("sudo", if self.sudo { "yes" } else { "" }.to_owned()),
            // Not `!`: some sshd lets nobody in whose password is that.
            ("hash", self.password_hash.clone().unwrap_or_else(|| "*".to_owned())),
        ];
        Script { text: self.text(&pairs, MAKE), user: None, environment: [].into() }
    }

    /// The script that makes their home one to work in, and lets their keys in. It is theirs: what is in a home may lead
    /// anywhere.
    pub fn furnish(&self) -> Script {
        let pairs = [("user", self.user.clone()), ("keys", self.keys.join("\n"))];
        Script { text: self.text(&pairs, FURNISH), user: Some(self.user.clone()), environment: [].into() }
    }

    fn text(&self, pairs: &[(&str, String)], rest: &str) -> String {
        let binds = self.binds.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let said = pairs.iter().map(|(name, value)| format!("{name}={}\n", quoted(value)));
        format!("#!/bin/sh\n{}binds={}\n{rest}", said.collect::<String>(), quoted(&binds))
    }
}

/// A text as one word of a shell, which finds in it nothing but text.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB it's me; $(id)";

    fn ann(ids: Ids) -> Person {
        Person { account: Some(("ann".to_owned(), 1234)), keys: vec![KEY.to_owned()], ids }
    }

    #[track_caller]
    fn check(dev: &Dev, person: &Person, kind: Kind, expected: Expect) {
        let binds = ["/home/ann/it's", "/srv"].map(str::to_owned).into();
        let said = match account(dev, person, kind, binds) {
            Ok(account) => {
                let [make, furnish] = [account.make(), account.furnish()];
                assert_eq!((make.user, furnish.user.as_ref()), (None, Some(&account.user)));
                let said = make.text.strip_suffix(MAKE).unwrap().to_owned();
                said + "--\n" + furnish.text.strip_suffix(FURNISH).unwrap()
            }
            Err(unfit) => format!("{unfit:?}\n"),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn what_the_file_leaves_out_is_the_persons() {
        let usual = Dev::default();
        let all = Ids::Same(u32::MAX);
        check(
            &usual,
            &ann(all),
            Kind::Container,
            expect![[r#"
                #!/bin/sh
                user='ann'
                uid='1234'
                shell=''
                groups=''
                sudo='yes'
                hash='*'
                binds='/home/ann/it'\''s
                /srv'
                --
                #!/bin/sh
                user='ann'
                keys='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB it'\''s me; $(id)'
                binds='/home/ann/it'\''s
                /srv'
            "#]],
        );
        let said = Dev {
            user: Some("joe".to_owned()),
            uid: Some(7),
            shell: Some("/bin/zsh".to_owned()),
            groups: ["docker".to_owned(), "audio".to_owned()].into(),
            sudo: false,
            keys: Some(vec!["a".to_owned(), "b".to_owned()]),
            password_hash: Some("$6$a$b".to_owned()),
        };
        check(
            &said,
            &ann(all),
            Kind::Vm,
            expect![[r#"
                #!/bin/sh
                user='joe'
                uid='7'
                shell='/bin/zsh'
                groups='audio docker'
                sudo=''
                hash='$6$a$b'
                binds='/home/ann/it'\''s
                /srv'
                --
                #!/bin/sh
                user='joe'
                keys='a
                b'
                binds='/home/ann/it'\''s
                /srv'
            "#]],
        );
    }

    #[track_caller]
    fn who(dev: &Dev, person: &Person, kind: Kind) -> (String, u32) {
        let account = account(dev, person, kind, BTreeSet::new()).unwrap();
        (account.user, account.uid)
    }

    #[test]
    fn an_id_is_the_persons_where_it_means_them() {
        let dev = Dev::default();
        let (all, lent) = (Ids::Same(u32::MAX), Ids::Lent(65537));
        assert_eq!(who(&dev, &ann(all), Kind::Container), ("ann".to_owned(), 1234));
        assert_eq!(who(&dev, &ann(lent), Kind::Container), ("ann".to_owned(), 1000));
        assert_eq!(who(&dev, &ann(lent), Kind::Microvm), ("ann".to_owned(), 1234));
        assert_eq!(who(&dev, &Person::default(), Kind::Container), ("dev".to_owned(), 1000));
        let odd = Person { account: Some(("Ann@corp".to_owned(), 70_000)), ..Person::default() };
        assert_eq!(who(&dev, &odd, Kind::Container), ("dev".to_owned(), 70_000));
        check(
            &dev,
            &ann(Ids::Lent(1)),
            Kind::Container,
            expect![[r#"
                Unfit { key: "", why: "this user's containers have no user id 1000 for somebody to work as", hint: "write a `uid` that they have; `stead doctor` says under `subordinate ids` how they get more, and after `stead down` they have them" }
            "#]],
        );
        let far = Dev { uid: Some(65537), ..dev };
        check(
            &far,
            &ann(lent),
            Kind::Container,
            expect![[r#"
                Unfit { key: "uid", why: "this user's containers have no user id 65537", hint: "write a `uid` that they have; `stead doctor` says under `subordinate ids` how they get more, and after `stead down` they have them" }
            "#]],
        );
    }

    #[test]
    fn public_keys_stand_in_lines() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB a@b";
        assert_eq!(public_keys(&format!("# mine\n\n{key}\r\n")), Ok(vec![key.to_owned()]));
        assert_eq!(public_keys(&format!("{key}\n-----BEGIN OPENSSH PRIVATE KEY-----\n")), Err(2));
        assert_eq!(public_keys(""), Ok(vec![]));
    }

    #[test]
    fn names_are_those_that_every_system_takes() {
        for name in ["a", "_x", "joe.user-1", "u234567890123456789012345678901x"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "1a", "Joe", "-a", "a b", "a:b", "u234567890123456789012345678901xy", "a\n"] {
            assert!(!is_name(name), "{name}");
        }
    }
}

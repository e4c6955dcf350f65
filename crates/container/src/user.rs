//! Who a process runs as: names and numbers, looked up in the container's own `/etc/passwd` and `/etc/group`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

/// Who a process runs as, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The user.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// More groups.
    pub(crate) groups: BTreeSet<u32>,
    /// Where the user is at home.
    pub(crate) home: String,
    /// What the user is called: a number if there is no name.
    pub(crate) name: String,
    /// What reads what the user types; empty where nobody said.
    pub(crate) shell: String,
}

/// Resolves `user[:group]` and more groups, as Docker does: a user that is a number and in no file is in group 0, at
/// home in `/`; the groups that list the user count only where no group is named.
pub(crate) fn resolve(wanted: &str, more: &BTreeSet<String>, passwd: &str, group: &str) -> Result<User> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = accounts(passwd).find(|account| account.name == user).or_else(|| {
        let uid: u32 = user.parse().ok()?;
        accounts(passwd).find(|account| account.uid == uid)
    });
    let (uid, own_gid) = match (&entry, user.parse()) {
        (Some(account), _) => (account.uid, account.gid),
        (None, Ok(uid)) => (uid, 0),
        (None, Err(_)) => bail!("`{}` is no user in the image's `/etc/passwd`", user.escape_debug()),
    };
    let gid = wanted_group.map(|name| gid_of(name, group)).transpose()?;
    let listed = match (&entry, gid) {
        (Some(account), None) => teams(group).filter(|team| team.has(account.name)).map(|t| t.gid).collect(),
        (_, Some(_)) | (None, None) => BTreeSet::new(),
    };
    let added = more.iter().map(|name| gid_of(name, group)).collect::<Result<BTreeSet<u32>>>()?;
    // To the kernel it means that nothing is changed: we would stay who we are.
    if [uid, gid.unwrap_or(own_gid)].iter().chain(&listed).chain(&added).any(|id| *id == u32::MAX) {
        bail!("{} is no id of a user or a group", u32::MAX);
    }
    let name = match &entry {
        Some(account) => account.name.to_owned(),
        None if uid == 0 => "root".to_owned(),
        None => uid.to_string(),
    };
    Ok(User {
        uid,
        gid: gid.unwrap_or(own_gid),
        groups: listed.into_iter().chain(added).collect(),
        name,
        shell: entry.as_ref().map(|account| account.shell).unwrap_or_default().to_owned(),
        home: entry.map(|account| account.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned(),
    })
}

/// Which of the ids that a container is asked to run with, written as numbers, it cannot have: those that are not in its
/// `uid_map` and `gid_map`. What names mean is in its image.
pub fn ids_refused(user: Option<&str>, groups: &BTreeSet<String>, maps: (&str, &str)) -> Vec<String> {
    let (user, group) = user.map_or((None, None), |user| match user.split_once(':') {
        Some((user, group)) => (Some(user), Some(group)),
        None => (Some(user), None),
    });
    let lacks = |id: &str, map: &str| id.parse().is_ok_and(|id| !is_mapped(map, id));
    let user = user.filter(|user| lacks(user, maps.0)).map(|user| format!("user {user}"));
    let groups = group.into_iter().chain(groups.iter().map(String::as_str));
    let groups = groups.filter(|group| lacks(group, maps.1)).map(|group| format!("group {group}"));
    user.into_iter().chain(groups).collect()
}

/// Whether an id is in a map as `/proc/<pid>/uid_map` has it: lines of the first one inside, the first one outside, and
/// how many.
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        match (numbers.next(), numbers.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => id.checked_sub(first).is_some_and(|place| place < count),
            _ => false,
        }
    })
}

fn gid_of(name: &str, group: &str) -> Result<u32> {
    let named = teams(group).find(|team| team.name == name).map(|team| team.gid);
    let numbered = || name.parse().ok();
    named
        .or_else(numbered)
        .with_context(|| format!("`{}` is no group in the image's `/etc/group`", name.escape_debug()))
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

/// What a user is called.
pub(crate) fn name_of(uid: u32, passwd: &str) -> Option<&str> {
    accounts(passwd).find(|account| account.uid == uid).map(|account| account.name)
}

/// The lines that can be understood; others do not count, as with the C library.
fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Account { name, uid, gid, home, shell: fields.next().unwrap_or_default() })
    })
}

struct Team<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Team<'_> {
    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

fn teams(group: &str) -> impl Iterator<Item = Team<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Team { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbad line\nweb:x:33:34::/var/www:/bin/sh\n12:x:99:98::/odd:\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nadm:x:4:web,other\ntty:x:5:web\nx:y\n";

    #[test]
    fn ids_that_a_container_cannot_have_are_named() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        for (user, groups, expected) in [
            (None, [].as_slice(), [].as_slice()),
            (Some("web:adm"), &["audio"], &[]),
            (Some("65536:65536"), &["0"], &[]),
            (Some("70000"), &[], &["user 70000"]),
            (Some("0:70000"), &["65537", "4294967295"], &["group 70000", "group 4294967295", "group 65537"]),
        ] {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            assert_eq!(ids_refused(user, &groups, (map, map)), expected, "{user:?}");
        }
        assert_eq!(ids_refused(Some("1"), &BTreeSet::new(), ("0 1000 1", "")), ["user 1"]);
        assert_eq!(ids_refused(Some("4294967294"), &BTreeSet::new(), ("0 0 4294967295", "")), [""; 0]);
    }

    #[track_caller]
    fn check(user: &str, more: &[&str], expected: &str) {
        let more = more.iter().map(|text| (*text).to_owned()).collect();
        let said = match resolve(user, &more, PASSWD, GROUP) {
            Ok(User { uid, gid, groups, home, .. }) => format!("{uid}:{gid} {groups:?} {home}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        check("", &[], "0:0 {} /root");
        check("web", &[], "33:34 {4, 5} /var/www");
        check("33", &[], "33:34 {4, 5} /var/www");
        check("1000", &[], "1000:0 {} /");
        check("12", &[], "99:98 {} /odd");
    }

    #[test]
    fn who_logs_in_has_a_name_and_a_shell() {
        let check = |user: &str, passwd: &str, expected: (&str, &str)| {
            let user = resolve(user, &BTreeSet::new(), passwd, "").unwrap();
            assert_eq!((user.name.as_str(), user.shell.as_str()), expected);
        };
        check("33", PASSWD, ("web", "/bin/sh"));
        check("12", PASSWD, ("12", ""));
        check("1000", PASSWD, ("1000", ""));
        check("0", "", ("root", ""));
    }

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        check("web:adm", &[], "33:4 {} /var/www");
        check("web:77", &["adm", "200"], "33:77 {4, 200} /var/www");
        check(":5", &[], "0:5 {} /root");
        check("1000:", &["tty"], "1000:0 {5} /");
    }

    #[test]
    fn who_is_not_there_is_refused() {
        check("nobody", &[], "`nobody` is no user in the image's `/etc/passwd`");
        check("web:none", &[], "`none` is no group in the image's `/etc/group`");
        check("-1", &[], "`-1` is no user in the image's `/etc/passwd`");
        let (id, refused) = (u32::MAX.to_string(), "4294967295 is no id of a user or a group");
        check(&id, &[], refused);
        check(&format!("web:{id}"), &[], refused);
        check("web", &[&id], refused);
    }
}

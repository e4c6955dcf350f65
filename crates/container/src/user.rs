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
    Ok(User {
        uid,
        gid: gid.unwrap_or(own_gid),
        groups: listed.into_iter().chain(added).collect(),
        home: entry.map(|account| account.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned(),
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
}

/// The lines that can be understood; others do not count, as with the C library.
fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
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

    #[track_caller]
    fn check(user: &str, more: &[&str], expected: &str) {
        let more = more.iter().map(|text| (*text).to_owned()).collect();
        let said = match resolve(user, &more, PASSWD, GROUP) {
            Ok(User { uid, gid, groups, home }) => format!("{uid}:{gid} {groups:?} {home}"),
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

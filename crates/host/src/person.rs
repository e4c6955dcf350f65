//! Who calls: the person behind root, where root was become by sudo, and their public keys.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use stead_model::dev::{Ids, Person, public_keys};

/// Keys take a few hundred bytes each; what is larger is no file with one.
const KEYS_MAX_BYTES: u64 = 64 * 1024;

/// The person who called this process, whose containers have these ids.
pub fn observe(ids: Ids) -> Person {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let own = rustix::process::getuid().as_raw();
    let caller = if own == 0 { by_sudo(variable("SUDO_USER"), variable("SUDO_UID")) } else { None };
    let home = match &caller {
        Some((name, _)) => field(&accounts, |fields| fields.first() == Some(&name.as_str()), 5),
        None => variable("HOME").or_else(|| field(&accounts, |fields| is_of(fields, own), 5)),
    };
    let account = caller.or_else(|| {
        let name = field(&accounts, |fields| is_of(fields, own), 0);
        // An account may be kept elsewhere than in the file.
        Some((name.or_else(|| variable("USER")).unwrap_or_default(), own)).filter(|(_, uid)| *uid != 0)
    });
    let keys = home.map(|home| keys_in(&Path::new(&home).join(".ssh"))).unwrap_or_default();
    Person { account, keys, ids }
}

/// Whom sudo says to have been called by.
fn by_sudo(user: Option<String>, uid: Option<String>) -> Option<(String, u32)> {
    let uid = uid?.parse().ok().filter(|uid| *uid != 0)?;
    Some((user?, uid))
}

fn is_of(fields: &[&str], uid: u32) -> bool {
    fields.get(2).is_some_and(|field| field.parse() == Ok(uid))
}

/// A field of the first line of `/etc/passwd` that is meant.
fn field(accounts: &str, is_meant: impl Fn(&[&str]) -> bool, place: usize) -> Option<String> {
    accounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        if !is_meant(&fields) {
            return None;
        }
        fields.get(place).filter(|text| !text.is_empty()).map(|text| (*text).to_owned())
    })
}

/// The keys in the files whose names end in `.pub`, in the order of those names. What cannot be read, or is no key, is
/// nobody's wish.
fn keys_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pub") && path.is_file());
    paths.sort();
    let read = |path: &PathBuf| {
        let mut text = String::new();
        let file = fs::File::open(path).ok()?;
        file.take(KEYS_MAX_BYTES + 1).read_to_string(&mut text).ok()?;
        let keys = (text.len() as u64 <= KEYS_MAX_BYTES).then(|| public_keys(&text).ok())??;
        // A certificate is none: it changes daily, and lets nobody in from there.
        let is_key = |key: &String| !key.split(' ').next().is_some_and(|kind| kind.contains("-cert-v0"));
        Some(keys.into_iter().filter(is_key).collect::<Vec<_>>())
    };
    let mut keys: Vec<String> = Vec::new();
    for key in paths.iter().filter_map(read).flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_who_called_sudo() {
        let said = |user: &str, uid: &str| by_sudo(Some(user.to_owned()), Some(uid.to_owned()));
        assert_eq!(said("joe", "1000"), Some(("joe".to_owned(), 1000)));
        assert_eq!(said("root", "0"), None);
        assert_eq!(said("joe", "x"), None);
        assert_eq!(by_sudo(Some("joe".to_owned()), None), None);
    }

    #[test]
    fn keys_are_those_of_public_files() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let (first, second) =
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB a", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC b");
        write("b.pub", &format!("{second}\n"));
        write("a.pub", &format!("{first}\n{second}\n"));
        write("c.pub", "no key\n");
        write("a-cert.pub", "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAx a\n");
        write("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
        fs::create_dir(directory.path().join("d.pub")).unwrap();
        assert_eq!(keys_in(directory.path()), [first, second]);
        assert_eq!(keys_in(&directory.path().join("none")), [""; 0]);
    }

    #[test]
    fn accounts_are_found_by_their_fields() {
        let accounts = "root:x:0:0::/root:/bin/sh\njoe:x:1000:1000::/home/joe:\nodd:x:7:7:::\n";
        assert_eq!(field(accounts, |fields| is_of(fields, 1000), 0).as_deref(), Some("joe"));
        assert_eq!(field(accounts, |fields| fields.first() == Some(&"joe"), 5).as_deref(), Some("/home/joe"));
        assert_eq!(field(accounts, |fields| is_of(fields, 7), 5), None);
        assert_eq!(field(accounts, |fields| is_of(fields, 8), 0), None);
    }
}

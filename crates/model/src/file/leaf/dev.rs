//! Values of the users that people work as in machines.

use super::vm::{KEY, ssh_key};
use super::{Numbers, TextForm, Wrong};
use crate::dev::is_name;
use crate::file::problem::quote;

/// The name of a user who is not root.
pub(crate) const LOGIN: &TextForm = &TextForm {
    check: |text| login(text).map(drop),
    pattern: &["[a-z_][a-z0-9_.-]{0,31}"],
    numbers: Numbers::No,
};
pub(crate) const LOGIN_GROUP: &TextForm = &TextForm {
    check: |text| login_group(text).map(drop),
    pattern: &["[a-z_][a-z0-9_.-]{0,31}"],
    numbers: Numbers::No,
};
pub(crate) const UID: &TextForm = &TextForm {
    check: |text| uid(text).map(drop),
    pattern: &["0*([1-9][0-9]{0,8}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-9]{8})"],
    numbers: Numbers::Whole(1, UID_MAX as i64),
};
pub(crate) const SHELL: &TextForm = &TextForm {
    check: |text| shell(text).map(drop),
    pattern: &["/[A-Za-z0-9_./+-]*[A-Za-z0-9_.+-]"],
    numbers: Numbers::No,
};
/// A public key, or a file with some.
pub(crate) const KEY_OR_FILE: &TextForm =
    &TextForm { check: key_or_file, pattern: &["[./~][^\\u0000]*|", KEY], numbers: Numbers::No };
pub(crate) const PASSWORD_HASH: &TextForm = &TextForm {
    check: |text| password_hash(text).map(drop),
    pattern: &["[$][A-Za-z0-9./$=,+_-]+"],
    numbers: Numbers::No,
};

/// The one after it stands for nobody at all, and the one after that for "as it is".
const UID_MAX: u32 = u32::MAX - 2;

/// More than any method makes.
const HASH_MAX_BYTES: usize = 256;

const NAME_HINT: &str = "a small letter or `_`, then small letters, digits, `_`, `-` and `.`, 32 at most";

pub(crate) fn login(text: &str) -> Result<String, Wrong> {
    match text {
        "root" => Err(Wrong::found("`root` is there anyway, and is nobody to work as")
            .hint("name another one, or leave `dev` out")),
        _ if is_name(text) => Ok(text.to_owned()),
        _ => Err(Wrong::found(format!("{} is not a user's name", quote(text))).hint(NAME_HINT)),
    }
}

pub(crate) fn login_group(text: &str) -> Result<String, Wrong> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not a group's name", quote(text))).hint(NAME_HINT))
}

pub(crate) fn uid(text: &str) -> Result<u32, Wrong> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse::<u32>().ok().filter(|id| digits && (1..=UID_MAX).contains(id));
    id.ok_or_else(|| {
        Wrong::found(format!("{} is not the id of a user who is not root", quote(text)))
            .hint(format!("write a whole number from 1 to {UID_MAX}, or leave it out"))
    })
}

pub(crate) fn shell(text: &str) -> Result<String, Wrong> {
    let lawful = |byte: u8| byte.is_ascii_alphanumeric() || b"_./+-".contains(&byte);
    if text.len() > 1 && text.starts_with('/') && !text.ends_with('/') && text.bytes().all(lawful) {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not the path of a shell in the machine", quote(text)))
        .hint("it is absolute, like `/bin/bash`"))
}

/// Whether this is the path of a file, and not a key itself.
pub(crate) fn is_key_file(text: &str) -> bool {
    text.starts_with(['.', '/', '~'])
}

fn key_or_file(text: &str) -> Result<(), Wrong> {
    if is_key_file(text) && !text.contains('\0') || ssh_key(text).is_ok() {
        return Ok(());
    }
    Err(Wrong::found(format!("{} is neither a public key nor a file with one", quote(text)))
        .hint("write the line of a file like `~/.ssh/id_ed25519.pub`, or its path, which begins with `.`, `/` or `~`"))
}

pub(crate) fn password_hash(text: &str) -> Result<String, Wrong> {
    let lawful = |byte: u8| byte.is_ascii_alphanumeric() || b"./$=,+_-".contains(&byte);
    let parts = text.split('$').filter(|part| !part.is_empty()).count();
    if text.starts_with('$') && parts > 1 && text.len() <= HASH_MAX_BYTES && text.bytes().all(lawful) {
        return Ok(text.to_owned());
    }
    // What stands there may be the password.
    Err(Wrong::found("this is not the hash of a password")
        .hint("`openssl passwd -6` makes one; each `$` of it is `$$` in this file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_told_from_passwords() {
        for text in ["$6$salt$hash./A", "$y$j9T$a$b", "$2b$12$abc"] {
            password_hash(text).unwrap();
        }
        for text in ["secret", "", "$", "$6", "$6$a:b", "*", "!"] {
            password_hash(text).unwrap_err();
        }
    }
}

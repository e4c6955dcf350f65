//! Values of containers: images, programs, users, rights.

use std::path::PathBuf;

use super::mount::FILE;
use super::network::{V4, V6, any_address};
use super::{Numbers, TextForm, Wrong};
use crate::container::{CAPABILITIES, Device, HostAddress, Restart, Signal};
use crate::file::problem::{nearest, quote};
use crate::image::{Platform, Reference};

const fn form(check: fn(&str) -> Result<(), Wrong>, pattern: &'static [&'static str]) -> TextForm {
    TextForm { check, pattern, numbers: Numbers::No }
}

const fn form_or_number(check: fn(&str) -> Result<(), Wrong>, pattern: &'static [&'static str]) -> TextForm {
    TextForm { check, pattern, numbers: Numbers::AndFlags }
}

/// The registry, the parts of the name, the tag, the digest.
pub(crate) const REFERENCE: &str = "(([A-Za-z0-9.-]+|\\[[0-9a-fA-F:.]+\\])(:[0-9]+)?/)?[a-z0-9]([a-z0-9._-]*[a-z0-9])?\
                                    (/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*\
                                    (:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?";
/// Parts with `.` between.
const HOST_NAME: &str = "[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?";
/// What a container has of its own.
const PARAMETER: &str = "(net([./][A-Za-z0-9_-]+)+|kernel[./](msg|sem|shm)[A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*\
                         |fs[./]mqueue([./][A-Za-z0-9_-]+)+|kernel[./](domain|host)name)";
pub(crate) const IMAGE: &TextForm = &form(|text| image(text).map(drop), &[REFERENCE]);
pub(crate) const PLATFORM: &TextForm =
    &form(|text| platform(text).map(drop), &["(linux/)?[a-z0-9]+(/[a-z0-9]+)?"]);
/// Any text that a program can be given.
pub(crate) const ANY: &TextForm = &form_or_number(|text| any(text).map(drop), &["[^\\u0000]*"]);
/// A line that is split as a shell does.
pub(crate) const WORDS: &TextForm = &form_or_number(|text| words(text).map(drop), &["[^\\u0000]*"]);
/// `NAME=value`, or `NAME`.
pub(crate) const PAIR: &TextForm = &form(|text| pair(text).map(drop), &["[^=\\u0000]+(=[^\\u0000]*)?"]);
/// The first part of one.
pub(crate) const PAIR_NAME: &TextForm = &form(|text| pair_name(text).map(drop), &["[^=\\u0000]+"]);
pub(crate) const WORKDIR: &TextForm = &form(|text| workdir(text).map(drop), &["/[^\\u0000]*"]);
pub(crate) const USER: &TextForm = &form_or_number(|text| user(text).map(drop), &["[^:/\\s]+(:[^:/\\s]+)?"]);
pub(crate) const GROUP: &TextForm = &form_or_number(|text| group(text).map(drop), &["[^:/\\s]+"]);
pub(crate) const HOSTNAME: &TextForm = &form(|text| hostname(text).map(drop), &[HOST_NAME]);
pub(crate) const HOST: &TextForm =
    &form(|text| host(text).map(drop), &[HOST_NAME, "[:=](host-gateway|", V4, "|", V6, "|\\[", V6, "\\])"]);
pub(crate) const CPUSET: &TextForm = &TextForm {
    check: |text| cpuset(text).map(drop),
    pattern: &["[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*"],
    numbers: Numbers::Whole(0, 65535),
};
pub(crate) const CAPABILITY: &TextForm = &form(|text| capability(text).map(drop), &["[A-Za-z_]+"]);
pub(crate) const SECURITY: &TextForm = &form(
    |text| security(text).map(drop),
    &[
        "no-new-privileges([:=](true|false))?|apparmor[:=]unconfined|label[:=]disable",
        "|seccomp[:=](unconfined|default|builtin|",
        FILE,
        ")",
    ],
);
/// Each at most once.
const ACCESS: &str = "(r(wm?|mw?)?|w(rm?|mr?)?|m(rw?|wr?)?)";
pub(crate) const DEVICE: &TextForm =
    &form(|text| device(text).map(drop), &["/[^:]*(:/[^:]+)?(:", ACCESS, ")?"]);
/// A place on this computer, absolute.
pub(crate) const DEVICE_PATH: &TextForm = &form(|text| device_path(text).map(drop), &["/[^\\u0000]*"]);
pub(crate) const DISK: &TextForm = &form(|text| disk(text).map(drop), &["/[^\\u0000]*"]);
pub(crate) const DEVICE_ACCESS: &TextForm = &form(|text| device_access(text).map(drop), &[ACCESS]);
pub(crate) const SYSCTL: &TextForm = &form(|text| sysctl(text).map(drop), &[PARAMETER]);
pub(crate) const SYSCTL_PAIR: &TextForm =
    &form(|text| sysctl_pair(text).map(drop), &[PARAMETER, "=[^\\u0000]*"]);
pub(crate) const HOST_ADDRESS: &TextForm =
    &form(|text| host_address(text).map(drop), &["host-gateway|", V4, "|", V6, "|\\[", V6, "\\]"]);
/// A domain to look for short names in; `.` means none.
pub(crate) const SEARCH: &TextForm = &form(|text| search(text).map(drop), &["[.]|", HOST_NAME]);
/// The name of a secret or config, which is also a file's.
pub(crate) const SECRET: &TextForm = &form(|text| secret(text).map(drop), &["[A-Za-z0-9_][A-Za-z0-9_.-]*"]);
pub(crate) const PROFILE: &TextForm = &form(|text| profile(text).map(drop), &["[A-Za-z0-9][A-Za-z0-9_.-]*"]);
pub(crate) const SIGNAL: &TextForm = &TextForm {
    check: |text| signal(text).map(drop),
    pattern: &["[A-Za-z0-9+-]+"],
    numbers: Numbers::Whole(1, 64),
};
pub(crate) const RESTART: &TextForm = &TextForm {
    check: |text| restart(text).map(drop),
    pattern: &["no|false|always|unless-stopped|on-failure(:[0-9]+)?"],
    numbers: Numbers::No,
};

pub(crate) fn image(text: &str) -> Result<Reference, Wrong> {
    text.parse::<Reference>().map_err(|error| {
        let wrong = Wrong::found(error.to_string());
        let lower = text.to_lowercase();
        if lower.parse::<Reference>().is_ok() {
            wrong.hint(format!("write `{lower}`"))
        } else {
            wrong.hint("an image is written like `debian:12` or `ghcr.io/owner/name:1.2`")
        }
    })
}

pub(crate) fn platform(text: &str) -> Result<Platform, Wrong> {
    text.parse().map_err(|error: crate::image::PlatformError| {
        Wrong::found(error.to_string())
            .hint("leave it out for this computer's own, or write it as \"system/processor\"")
    })
}

pub(crate) fn any(text: &str) -> Result<String, Wrong> {
    // The kernel ends arguments and variables there.
    if text.contains('\0') {
        Err(Wrong::found("a text with a zero byte cannot be given to a program").hint("leave the `\\0` out"))
    } else {
        Ok(text.to_owned())
    }
}

/// Splits a line into words as a shell does, but for nothing else that a shell does: quotes and backslashes
/// mean what they mean there, variables, pipes and patterns are plain text.
pub(crate) fn words(text: &str) -> Result<Vec<String>, Wrong> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = any(text)?.chars().collect::<Vec<_>>().into_iter();
    let mut quote_open = None;
    while let Some(c) = chars.next() {
        match (c, quote_open) {
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or_else(|| {
                    Wrong::found(format!("{} ends in a backslash", quote(text))).hint("write `\\\\` for one")
                })?;
                let into = word.get_or_insert_default();
                // Within double quotes a shell keeps the backslash before most characters.
                if quote_open.is_some() && !matches!(next, '"' | '\\' | '$' | '`' | '\n') {
                    into.push('\\');
                }
                into.push(next);
            }
            (c, Some(open)) if c == open => quote_open = None,
            (c @ ('"' | '\''), None) => {
                quote_open = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_ascii_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote_open {
        let wrong = Wrong::found(format!("{} has a `{open}` that is not closed", quote(text)));
        return Err(wrong.hint("close it, or write a list of words"));
    }
    words.extend(word);
    Ok(words)
}

/// A name, and what follows its `=` if there is one.
pub(crate) fn pair(text: &str) -> Result<(String, Option<String>), Wrong> {
    let text = any(text)?;
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text.as_str(), None),
    };
    pair_name(name)?;
    Ok((name.to_owned(), value.map(str::to_owned)))
}

pub(crate) fn pair_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.contains(['=', '\0']) {
        return Err(Wrong::found(format!("{} cannot be a name", quote(text))).hint("write `NAME=value`"));
    }
    Ok(text.to_owned())
}

pub(crate) fn workdir(text: &str) -> Result<String, Wrong> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not an absolute path", quote(text))).hint("it starts with `/`"))
}

fn is_account(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, ':' | '/'))
}

pub(crate) fn user(text: &str) -> Result<String, Wrong> {
    let (user, group) = text.split_once(':').unwrap_or((text, "-"));
    if is_account(user) && is_account(group) {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not `user` or `user:group`", quote(text)))
        .hint("names or numbers, like `1000:1000`"))
}

pub(crate) fn group(text: &str) -> Result<String, Wrong> {
    if is_account(text) {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not a group's name or number", quote(text)))
        .hint("one of the machine's own `/etc/group`, like `audio`, or a number, like `29`"))
}

/// The kernel holds no more of a host's name.
const HOSTNAME_MAX_CHARS: usize = 64;

pub(crate) fn hostname(text: &str) -> Result<String, Wrong> {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if text.len() <= HOSTNAME_MAX_CHARS && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not a host's name", quote(text)))
        .hint("letters, digits, `_`, and `-` within, parts with `.` between, at most 64 characters"))
}

pub(crate) fn search(text: &str) -> Result<String, Wrong> {
    if text == "." { Ok(text.to_owned()) } else { hostname(text) }
}

fn is_word(text: &str) -> bool {
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.chars().all(lawful)
}

pub(crate) fn secret(text: &str) -> Result<String, Wrong> {
    if is_word(text) {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} cannot name a file", quote(text)))
        .hint("letters, digits, `_`, `.` and `-`, not first `.` or `-`"))
}

pub(crate) fn profile(text: &str) -> Result<String, Wrong> {
    if is_word(text) && !text.starts_with('_') {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not the name of a profile", quote(text)))
        .hint("letters, digits, `_`, `.` and `-`, first a letter or digit"))
}

/// `name:address` or `name=address`.
pub(crate) fn host(text: &str) -> Result<(String, HostAddress), Wrong> {
    let Some((name, address)) = text.split_once('=').or_else(|| text.split_once(':')) else {
        return Err(Wrong::found(format!("{} is not `name:address`", quote(text)))
            .hint("it is written like `db:10.0.5.7`"));
    };
    Ok((hostname(name)?, host_address(address)?))
}

pub(crate) fn host_address(text: &str) -> Result<HostAddress, Wrong> {
    text.parse().or_else(|_| any_address(text).map(HostAddress::Fixed))
}

pub(crate) fn cpuset(text: &str) -> Result<String, Wrong> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let is_range = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            number(first).is_some_and(|first| number(last).is_some_and(|last| first <= last))
        }
        None => number(part).is_some(),
    };
    if text.split(',').all(is_range) {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not a set of processors", quote(text)))
        .hint("it is written like `0-2,4`"))
}

/// A capability in capitals without `CAP_`, or `ALL`.
pub(crate) fn capability(text: &str) -> Result<String, Wrong> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" || CAPABILITIES.contains(&name) {
        return Ok(name.to_owned());
    }
    let wrong = Wrong::found(format!("there is no capability {}", quote(text)));
    let lower: Vec<String> = CAPABILITIES.iter().map(|name| name.to_lowercase()).collect();
    match nearest(&name.to_lowercase(), lower.iter().map(String::as_str)) {
        Some(name) => Err(wrong.hint(format!("did you mean `{}`?", name.to_uppercase()))),
        None => Err(wrong.hint("`man 7 capabilities` lists them; `ALL` means all")),
    }
}

/// One security option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    NoNewPrivileges(bool),
    SeccompDefault,
    SeccompUnconfined,
    /// A profile, by a path as written.
    SeccompProfile(String),
    /// That no profile of AppArmor and no label of SELinux is put on it: we never do.
    HoldsAnyway,
}

pub(crate) fn security(text: &str) -> Result<Security, Wrong> {
    let (name, value) = match text.split_once(['=', ':']) {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    match (name, value) {
        ("no-new-privileges", None | Some("true")) => Ok(Security::NoNewPrivileges(true)),
        ("no-new-privileges", Some("false")) => Ok(Security::NoNewPrivileges(false)),
        ("seccomp", Some("unconfined")) => Ok(Security::SeccompUnconfined),
        ("seccomp", Some("default" | "builtin")) => Ok(Security::SeccompDefault),
        ("seccomp", Some(path)) => super::mount::source(path).map(Security::SeccompProfile),
        ("apparmor", Some("unconfined")) | ("label", Some("disable")) => Ok(Security::HoldsAnyway),
        _ => Err(Wrong::found(format!("the security option {} cannot be honoured", quote(text)))
            .hint("there are `no-new-privileges`, `seccomp=unconfined` and `seccomp=<path of a profile>`")),
    }
}

/// `source[:target][:access]`.
pub(crate) fn device(text: &str) -> Result<Device, Wrong> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, access) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, second] if second.starts_with('/') => (*source, *second, "rwm"),
        [source, second] => (*source, *source, *second),
        [source, target, access] => (*source, *target, *access),
        _ => {
            return Err(Wrong::found(format!("{} is not `source[:target][:access]`", quote(text)))
                .hint("it is written like `/dev/fuse` or `/dev/sda:/dev/disk:r`"));
        }
    };
    Ok(Device {
        source: device_path(source)?,
        target: super::mount::target(target)?,
        access: device_access(access)?,
    })
}

pub(crate) fn device_path(text: &str) -> Result<PathBuf, Wrong> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err(Wrong::found(format!("{} is not a device of this computer", quote(text)))
        .hint("it is written like `/dev/fuse`"))
}

/// The path of a disk. What it is now, only this computer knows.
pub(crate) fn disk(text: &str) -> Result<PathBuf, Wrong> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err(Wrong::found(format!("{} is not a disk of this computer", quote(text)))
        .hint("it is written like `/dev/sda`"))
}

pub(crate) fn device_access(text: &str) -> Result<String, Wrong> {
    let lawful = |(index, c): (usize, char)| "rwm".contains(c) && text.find(c) == Some(index);
    if !text.is_empty() && text.char_indices().all(lawful) {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not of `r`, `w` and `m`", quote(text)))
        .hint("each at most once, like `rw`: read, write, make"))
}

/// The kernel parameters that a container has of its own.
const OWN_SYSCTLS: [&str; 4] = ["kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."];

pub(crate) fn sysctl(text: &str) -> Result<String, Wrong> {
    let name = text.replace('/', ".");
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_own = name.starts_with("net.")
        || OWN_SYSCTLS.iter().any(|own| name.starts_with(own))
        || matches!(name.as_str(), "kernel.domainname" | "kernel.hostname");
    if is_own && name.chars().all(lawful) && !name.split('.').any(str::is_empty) {
        return Ok(name);
    }
    Err(Wrong::found(format!("{} is not a kernel parameter that a container has of its own", quote(text)))
        .hint("there are `net.…`, `kernel.msg…`, `kernel.sem`, `kernel.shm…` and `fs.mqueue.…`"))
}

pub(crate) fn sysctl_pair(text: &str) -> Result<(String, String), Wrong> {
    match pair(text)? {
        (name, Some(value)) => Ok((sysctl(&name)?, value)),
        (_, None) => Err(Wrong::found(format!("{} is not `name=value`", quote(text)))
            .hint("it is written like `net.ipv4.ip_forward=1`")),
    }
}

pub(crate) fn signal(text: &str) -> Result<Signal, Wrong> {
    text.parse().map_err(|error: crate::container::SignalError| {
        Wrong::found(error.to_string()).hint("`SIGTERM` asks a program to end, and is the usual one")
    })
}

pub(crate) fn restart(text: &str) -> Result<Restart, Wrong> {
    text.parse().map_err(|error: crate::container::RestartError| {
        let wrong = Wrong::found(error.to_string());
        match nearest(text, ["no", "always", "on-failure", "unless-stopped"]) {
            Some(word) => wrong.hint(format!("did you mean `{word}`?")),
            None => {
                wrong.hint("write `no`, which holds anyway, or `always` for a machine that is to stay up")
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_words(text: &str, expected: &[&str]) {
        assert_eq!(words(text).unwrap(), expected);
    }

    #[test]
    fn lines_are_split_as_a_shell_does() {
        check_words("", &[]);
        check_words("  nginx  -g 'daemon off;' ", &["nginx", "-g", "daemon off;"]);
        check_words(r#"sh -c "echo \"a\" \n $X""#, &["sh", "-c", r#"echo "a" \n $X"#]);
        check_words(r"a\ b '' c''d e\\", &["a b", "", "cd", r"e\"]);
        check_words("a\nb\t'c\nd'", &["a", "b", "c\nd"]);
        check_words(r"'a\b'", &[r"a\b"]);
        check_words("a; b && c > d", &["a;", "b", "&&", "c", ">", "d"]);
        for text in ["'a", "a \"b", "a\\", "\0"] {
            assert!(words(text).is_err(), "{text}");
        }
    }

    #[test]
    fn capabilities_are_read_in_any_usual_form() {
        for text in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(capability(text).unwrap(), "NET_ADMIN");
        }
        assert_eq!(capability("all").unwrap(), "ALL");
        assert_eq!(capability("NET_ADMN").unwrap_err().hint, "did you mean `NET_ADMIN`?");
    }

    #[test]
    fn devices_have_a_place_and_an_access() {
        let device =
            |text: &str| device(text).map(|d| format!("{} {} {}", d.source.display(), d.target, d.access));
        assert_eq!(device("/dev/fuse").unwrap(), "/dev/fuse /dev/fuse rwm");
        assert_eq!(device("/dev/sda:/dev/x:r").unwrap(), "/dev/sda /dev/x r");
        assert_eq!(device("/dev/sda:rw").unwrap(), "/dev/sda /dev/sda rw");
        for text in ["", "fuse", "/dev/a:/dev/b:rr", "/dev/a:/dev/b:x", "/dev/a:", "a/b=c"] {
            assert!(device(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_parameters_of_the_containers_own_are_set() {
        assert_eq!(sysctl("net/ipv4/ip_forward").unwrap(), "net.ipv4.ip_forward");
        assert_eq!(sysctl("kernel.shmmax").unwrap(), "kernel.shmmax");
        for text in ["vm.swappiness", "kernel.panic", "net", "net..x", "net. x"] {
            assert!(sysctl(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        for text in ["db:10.0.0.7", "db=10.0.0.7"] {
            let address = HostAddress::Fixed("10.0.0.7".parse().unwrap());
            assert_eq!(host(text).unwrap(), ("db".to_owned(), address));
        }
        for text in ["db:fd00::7", "db=[fd00::7]", "db:[fd00::7]"] {
            let address = HostAddress::Fixed("fd00::7".parse().unwrap());
            assert_eq!(host(text).unwrap(), ("db".to_owned(), address));
        }
        for text in ["db:host-gateway", "db=host-gateway"] {
            assert_eq!(host(text).unwrap(), ("db".to_owned(), HostAddress::ThisComputer));
        }
        for text in ["db", "db:", "-:1.2.3.4", "db:gateway"] {
            assert!(host(text).is_err(), "{text}");
        }
    }
}

//! Common options that may be said several times, where some are said before the command's name and some behind it: of
//! both the parser keeps only those behind.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::Global;

/// What was said before the name of the command itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    files: Vec<PathBuf>,
    profiles: Vec<String>,
}

impl Before {
    /// Of all words, the first being the program's, where the command is called by so many.
    pub(super) fn of(words: &[OsString], mut names: usize) -> Self {
        let mut before = Self::default();
        let mut words = words.iter().skip(1);
        while names > 0
            && let Some(word) = words.next()
        {
            let text = word.to_string_lossy();
            let (name, joined) = match text.split_once('=') {
                Some((name, _)) if name.starts_with("--") => (name, after(word, name.len() + 1)),
                _ if text.starts_with("-f=") => ("-f", after(word, 3)),
                _ if text.starts_with("-f") && text.len() > 2 => ("-f", after(word, 2)),
                _ => (&*text, None),
            };
            match name {
                "-f" | "--file" => {
                    before.files.extend(joined.or_else(|| words.next().cloned()).map(PathBuf::from));
                }
                "--profile" => {
                    let value = joined.or_else(|| words.next().cloned());
                    before.profiles.extend(value.and_then(|value| value.into_string().ok()));
                }
                "--format" | "--project-name" if joined.is_none() => {
                    words.next();
                }
                name if name.starts_with('-') => {}
                _ => names -= 1,
            }
        }
        before
    }

    /// Puts it before what was said behind.
    pub(super) fn beside(self, global: &mut Global) {
        put_before(&mut global.file, self.files);
        put_before(&mut global.profile, self.profiles);
    }
}

/// What of a word is behind so many bytes.
fn after(word: &OsStr, bytes: usize) -> Option<OsString> {
    use std::os::unix::ffi::OsStrExt;
    word.as_bytes()
        .get(bytes..)
        .map(|rest| OsStr::from_bytes(rest.strip_prefix(b"=").unwrap_or(rest)).to_owned())
}

fn put_before<T: PartialEq>(said: &mut Vec<T>, before: Vec<T>) {
    // If none is behind, these are what the parser has.
    if *said != before {
        said.splice(0..0, before);
    }
}

#[cfg(test)]
mod tests {
    use crate::args::read;

    #[test]
    fn what_is_said_before_a_command_and_behind_it_counts_together() {
        for (line, files, profiles) in [
            ("-f a -f b config", "a b", ""),
            ("config -f a -f b", "a b", ""),
            ("-f a --file=b config -fc --file d", "a b c d", ""),
            ("-fa --debug --format json config --file d", "a d", ""),
            ("--file a network --file=b inspect -f c x", "a b c", ""),
            ("--profile a -f config config --profile=b", "config", "a b"),
            ("--profile=a config", "", "a"),
            ("--project-name up -f a config -f b", "a b", ""),
        ] {
            let cli = read(["stead"].into_iter().chain(line.split(' ')).map(Into::into)).unwrap();
            let said: Vec<_> = cli.global.file.iter().map(|file| file.to_str().unwrap()).collect();
            assert_eq!(
                (said.join(" "), cli.global.profile.join(" ")),
                (files.into(), profiles.into()),
                "{line}"
            );
        }
    }
}

//! How a command fails: what to print, and who can act on it (docs/exit-codes.md).

use std::fmt::Write as _;
use std::io::ErrorKind;

use stead_model::resolve::Refusal;

/// A command's failure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This computer would not.
    Computer(anyhow::Error),
    /// Steps of a plan failed; they have been reported.
    Steps(Vec<(String, anyhow::Error)>),
    /// The request or the file is wrong: text that is already whole.
    Request(String),
    /// The file is right, but cannot be had here.
    Refused(Vec<Refusal>),
    /// It would lose data, and nobody agreed.
    WouldLose(String),
    /// We failed, in whichever way, before a program could run inside: its own codes must not be taken for ours.
    BeforeProgram(Box<Failure>),
    /// A program could not be started, which has an exit code of its own.
    Program(u8, Box<Failure>),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Computer(error)
    }
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Computer(_) | Self::Steps(_) => 1,
            Self::Request(_) | Self::Refused(_) => 2,
            Self::WouldLose(_) => 3,
            Self::BeforeProgram(_) => 125,
            Self::Program(code, _) => *code,
        }
    }

    /// What is printed on standard error.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Computer(error) => chain(error),
            Self::BeforeProgram(failure) | Self::Program(_, failure) => failure.text(),
            Self::Steps(failures) => {
                let texts = failures
                    .iter()
                    .map(|(step, error)| format!("error: step `{step}` failed\n{}", causes(error)));
                texts.collect::<Vec<_>>().join("")
            }
            Self::Request(text) | Self::WouldLose(text) => text.clone(),
            Self::Refused(refusals) => {
                let texts =
                    refusals.iter().map(|refusal| format!("error: {refusal}\nhint: {}\n", refusal.hint));
                texts.collect::<Vec<_>>().join("")
            }
        }
    }

    /// The same failure, of a command whose exit code is otherwise its program's.
    pub(crate) fn before_program(self) -> Self {
        match self {
            Self::BeforeProgram(_) | Self::Program(..) => self,
            other => Self::BeforeProgram(Box::new(other)),
        }
    }

    /// A wrong request, with what to do about it.
    pub(crate) fn request(what: &str, hint: &str) -> Self {
        Self::Request(format!("error: {what}\nhint: {hint}\n"))
    }
}

fn chain(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}\n", strip_hint(&error.to_string()));
    let below: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    for cause in &below {
        let _ = writeln!(text, "  cause: {}", strip_hint(cause));
    }
    text + &hints(error)
}

fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let _ = writeln!(text, "  cause: {}", strip_hint(&cause.to_string()));
    }
    text + &hints(error)
}

/// A level of an error may end in `; hint: …`, which is printed once, at the end.
fn hints(error: &anyhow::Error) -> String {
    let texts = error.chain().map(ToString::to_string);
    let hint = texts.filter_map(|text| text.split_once("; hint: ").map(|(_, hint)| hint.to_owned())).last();
    let hint = hint.or_else(|| is_full(error).then(|| ROOM.to_owned()));
    hint.map_or_else(String::new, |hint| format!("hint: {hint}\n"))
}

/// What to do about a full disk, whatever was being written.
const ROOM: &str = "no room is left there: remove what is not needed (`stead image prune`, `stead rm`, `stead volume rm` \
                    make room in stead's own files), then say the same again";

/// Whether a disk or a quota was full.
fn is_full(error: &anyhow::Error) -> bool {
    let kinds =
        error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.into_iter().any(|kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

fn strip_hint(text: &str) -> &str {
    text.split_once("; hint: ").map_or(text, |(what, _)| what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn what_fails_before_a_program_runs_is_told_apart_from_the_program() {
        let failure = Failure::request("there is no machine `x`", "`stead ps --all` lists them");
        let (text, failure) = (failure.text(), failure.before_program().before_program());
        assert_eq!((failure.code(), failure.text()), (125, text));
    }

    #[test]
    fn causes_follow_and_the_hint_comes_last() {
        let error = anyhow!("no tun; hint: load it").context("no tap").context("step `+ nic` failed");
        let text = Failure::Computer(error).text();
        assert_eq!(text, "error: step `+ nic` failed\n  cause: no tap\n  cause: no tun\nhint: load it\n");
    }

    #[test]
    fn a_full_disk_has_a_hint_wherever_it_was_met() {
        let full =
            || anyhow::Error::new(std::io::Error::from(ErrorKind::StorageFull)).context("cannot write x");
        assert!(Failure::Computer(full()).text().ends_with(&format!("hint: {ROOM}\n")));
        let own = Failure::Computer(full().context("no; hint: another disk")).text();
        assert!(own.ends_with("hint: another disk\n"), "{own}");
    }
}

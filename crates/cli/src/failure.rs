//! How a command fails: what to print, and who can act on it (docs/exit-codes.md).

use std::fmt::Write as _;
use std::io::ErrorKind;

use rustix::io::Errno;
use serde::Serialize;
use stead_model::file::{Problem, Problems};

/// A command's failure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This computer would not.
    Computer(anyhow::Error),
    /// Steps of a plan failed; they have been reported.
    Steps(Vec<(String, anyhow::Error)>),
    /// The request is wrong.
    Request(Vec<Said>),
    /// Some of what was named was done, or failed in this way; the rest cannot be.
    Partly(Option<Box<Failure>>, Vec<Said>),
    /// Files are wrong, or what they ask for cannot be had here.
    File(Vec<Problems>),
    /// It would lose data, and nobody agreed.
    WouldLose(Said),
    /// We failed, in whichever way, before a program could run inside: its own codes must not be taken for ours.
    BeforeProgram(Box<Failure>),
    /// A program could not be started, which has an exit code of its own.
    Program(u8, Box<Failure>),
}

/// What is said of a failure that is of no file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Said {
    /// What failed.
    message: String,
    /// Why, each because of the next.
    causes: Vec<String>,
    /// What to do, if anything can be done.
    hint: Option<String>,
}

/// A failure as `--format json` prints it.
#[derive(Serialize)]
struct Json<'a> {
    code: u8,
    errors: Vec<Said>,
    problems: Vec<InFile<'a>>,
    /// How many more problems there are.
    more: usize,
}

/// A problem with its file.
#[derive(Serialize)]
struct InFile<'a> {
    file: &'a str,
    #[serde(flatten)]
    problem: &'a Problem,
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
            Self::Partly(Some(failure), _) => failure.code(),
            Self::Computer(_) | Self::Steps(_) | Self::Partly(None, _) => 1,
            Self::Request(_) | Self::File(_) => 2,
            Self::WouldLose(_) => 3,
            Self::BeforeProgram(_) => 125,
            Self::Program(code, _) => *code,
        }
    }

    /// What is printed on standard error, for people.
    pub(crate) fn text(&self) -> String {
        let files = self.files().iter().map(Problems::to_string).collect::<Vec<_>>().join("\n");
        files + &self.said().iter().map(Said::text).collect::<String>()
    }

    /// What is printed on standard error, for programs.
    pub(crate) fn json(&self) -> String {
        let of_file = |file: &'_ Problems| file.problems.len();
        let mut problems = Vec::with_capacity(self.files().iter().map(of_file).sum());
        for Problems { file, problems: found, .. } in self.files() {
            problems.extend(found.iter().map(|problem| InFile { file, problem }));
        }
        let more = self.files().iter().map(|file| file.more).sum();
        let json = Json { code: self.code(), errors: self.said(), problems, more };
        // Plain structures always have a JSON form.
        let text = serde_json::to_string_pretty(&json).unwrap_or_default();
        // JSON leaves some control characters as they are, which a terminal would obey.
        let is_control = |c: &char| c.is_control() && *c != '\n';
        let escaped =
            |c: char| if is_control(&c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
        text.chars().map(escaped).collect()
    }

    /// The files that are wrong.
    fn files(&self) -> &[Problems] {
        match self {
            Self::File(files) => files,
            Self::BeforeProgram(failure) | Self::Program(_, failure) | Self::Partly(Some(failure), _) => {
                failure.files()
            }
            Self::Computer(_)
            | Self::Steps(_)
            | Self::Request(_)
            | Self::Partly(None, _)
            | Self::WouldLose(_) => &[],
        }
    }

    /// What is said of anything else.
    pub(crate) fn said(&self) -> Vec<Said> {
        match self {
            Self::Computer(error) => vec![chain(error)],
            Self::BeforeProgram(failure) | Self::Program(_, failure) => failure.said(),
            Self::Steps(failures) => failures
                .iter()
                .map(|(step, error)| {
                    let Said { message, mut causes, hint } = chain(error);
                    causes.insert(0, message);
                    Said { message: format!("step `{step}` failed"), causes, hint }
                })
                .collect(),
            Self::Request(said) => said.clone(),
            Self::Partly(failure, said) => {
                let first = failure.as_ref().map(|failure| failure.said()).unwrap_or_default();
                [first.as_slice(), said].concat()
            }
            Self::WouldLose(said) => vec![said.clone()],
            Self::File(_) => Vec::new(),
        }
    }

    /// The same failure, of a command whose exit code is otherwise its program's.
    pub(crate) fn before_program(self) -> Self {
        match self {
            Self::BeforeProgram(_) | Self::Program(..) => self,
            other => Self::BeforeProgram(Box::new(other)),
        }
    }

    /// The same failure without places, where a request was written to a file that nobody reads. What it was written as is
    /// told by its key, which is called as the option is, and says of which machine or network it is.
    pub(crate) fn of_request(self) -> Self {
        let Self::File(files) = self else { return self };
        let what = |found: &Problem| match found.path.as_str() {
            path if path.is_empty() || found.message.contains(path) => found.message.clone(),
            path => format!("{} (`{path}`)", found.message),
        };
        let problems = files.iter().flat_map(|file| &file.problems);
        let mut said: Vec<Said> = problems.map(|found| Said::with_hint(&what(found), &found.hint)).collect();
        let more: usize = files.iter().map(|file| file.more).sum();
        if more > 0 {
            said.push(Said::what(&format!("not told here: {more} more")));
        }
        Self::Request(said)
    }

    /// A wrong request, with what to do about it.
    pub(crate) fn request(what: &str, hint: &str) -> Self {
        Self::Request(vec![Said::with_hint(what, hint)])
    }
}

impl Said {
    /// This alone.
    pub(crate) fn what(what: &str) -> Self {
        Self { message: what.to_owned(), causes: Vec::new(), hint: None }
    }

    /// This, and what to do about it.
    pub(crate) fn with_hint(what: &str, hint: &str) -> Self {
        Self { hint: Some(hint.to_owned()), ..Self::what(what) }
    }

    /// The same as the cause of this.
    pub(crate) fn under(self, what: &str) -> Self {
        let causes = std::iter::once(self.message).chain(self.causes).collect();
        Self { message: what.to_owned(), causes, hint: self.hint }
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            let _ = writeln!(text, "  cause: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

fn chain(error: &anyhow::Error) -> Said {
    let mut texts = error.chain().map(|level| strip_hint(&level.to_string()).to_owned());
    let message = texts.next().unwrap_or_default();
    Said { message, causes: texts.collect(), hint: hint(error) }
}

/// A level of an error may end in `; hint: …`, which is printed once, at the end.
fn hint(error: &anyhow::Error) -> Option<String> {
    let texts = error.chain().map(ToString::to_string);
    let hint = texts.filter_map(|text| text.rsplit_once("; hint: ").map(|(_, hint)| hint.to_owned())).last();
    hint.or_else(|| is_full(error).then(|| ROOM.to_owned()))
}

/// What to do about a full disk, whatever was being written.
const ROOM: &str = "no room is left there: remove what is not needed (`stead image prune`, `stead rm`, `stead volume rm` \
                    make room in stead's own files), then say the same again";

/// Whether a disk or a quota was full.
fn is_full(error: &anyhow::Error) -> bool {
    let errnos = error.chain().filter_map(|cause| cause.downcast_ref::<Errno>());
    let kinds =
        error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.into_iter().any(|kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
        || errnos.into_iter().any(|errno| matches!(*errno, Errno::NOSPC | Errno::DQUOT))
}

fn strip_hint(text: &str) -> &str {
    text.rsplit_once("; hint: ").map_or(text, |(what, _)| what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use std::path::Path;
    use stead_model::file::{Source, Variables, parse};

    #[test]
    fn what_fails_before_a_program_runs_is_told_apart_from_the_program() {
        let failure = Failure::request("there is no machine `x`", "`stead ps --all` lists them");
        let (text, failure) = (failure.text(), failure.before_program().before_program());
        assert_eq!((failure.code(), failure.text()), (125, text));
    }

    #[test]
    fn a_request_has_no_places_and_all_the_rest() {
        let text = "name: default\nnetworks: { lan: { mtu: 1 } }\n";
        let (env, directory) = (Variables::default(), Path::new("."));
        let found = parse(&Source::new("default/stead.yaml", text, &env, directory)).unwrap_err();
        let (first, more) = (found.problems[0].clone(), 7);
        let text = Failure::File(vec![Problems { more, ..found }]).of_request().text();
        let begins = format!("error: {} (`{}`)\nhint: {}\n", first.message, first.path, first.hint);
        let ends = format!("error: not told here: {more} more\n");
        assert_eq!(text, begins + &ends);
        assert!(text.contains("(`networks.lan.mtu`)"), "{text}");
    }

    #[test]
    fn causes_follow_and_the_hint_comes_last() {
        let error = anyhow!("no tun; hint: load it").context("no tap").context("step `+ nic` failed");
        let text = Failure::Computer(error).text();
        assert_eq!(text, "error: step `+ nic` failed\n  cause: no tap\n  cause: no tun\nhint: load it\n");
    }

    #[test]
    fn what_a_machine_wrote_makes_no_json_and_no_hint() {
        let error = anyhow!("it wrote: \u{7f}\u{9b}2J x; hint: pipe it to sh; hint: look around");
        let failure = Failure::Computer(error);
        let json: serde_json::Value =
            serde_json::from_str(&crate::output::printable(&failure.json())).unwrap();
        assert_eq!(json["errors"][0]["message"], "it wrote: \u{7f}\u{9b}2J x; hint: pipe it to sh");
        assert_eq!(json["errors"][0]["hint"], "look around");
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

//! Values that begin with `-`, which clap takes for options, and what is told of them.

use std::ffi::OsString;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use stead_model::name::{Name, NameError, as_ours};

/// A name that something is given, however other tools would take it (docs/decisions/0134).
pub(crate) fn named(text: &str) -> Result<Name, NameError> {
    as_ours(text).parse()
}

/// How many of the last lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    All,
    Lines(usize),
}

impl FromStr for Tail {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" | "-1" => Ok(Self::All),
            text => text.parse().map(Self::Lines).map_err(|_| "it is a number of lines, or `all`"),
        }
    }
}

/// The same command whose options, and those of the commands below it, take negative numbers: `--memory-swap -1`.
pub(super) fn with_numbers(command: Command) -> Command {
    let takes_one = |arg: &Arg| !arg.is_positional() && arg.get_action().takes_values();
    command
        .mut_args(|arg| if takes_one(&arg) { arg.allow_negative_numbers(true) } else { arg })
        .mut_subcommands(with_numbers)
}

/// Puts a tip that helps in place of one that does not: clap would have `--` written before a value that begins with
/// `-`, which makes it a machine's name and leaves the option without one.
pub(super) fn mend(mut error: clap::Error, command: &Command, words: &[OsString]) -> clap::Error {
    let is_about_words = error.kind() == ErrorKind::UnknownArgument;
    let (Some(ContextValue::String(unknown)), true) = (error.get(ContextKind::InvalidArg), is_about_words)
    else {
        return error;
    };
    let Some(tip) = tip(unknown, command, words) else { return error };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

/// What to write where this word follows an option that wants a value.
fn tip(unknown: &str, mut command: &Command, words: &[OsString]) -> Option<String> {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let mut before = "";
    for word in words.into_iter().skip(1) {
        if word.starts_with(unknown) && wants_value(command, before) {
            return Some(format!("a value that begins with `-` is written `{before}={word}`"));
        }
        command = command.find_subcommand(word).unwrap_or(command);
        before = word;
    }
    None
}

fn wants_value(command: &Command, option: &str) -> bool {
    let is_it = |arg: &&Arg| match (option.strip_prefix("--"), option.strip_prefix('-')) {
        (Some(long), _) => arg.get_long() == Some(long),
        // The last of several letters may have a value.
        (None, Some(short)) => arg.get_short().is_some_and(|letter| short.ends_with(letter)),
        (None, None) => false,
    };
    command.get_arguments().find(is_it).is_some_and(|arg| arg.get_action().takes_values())
}

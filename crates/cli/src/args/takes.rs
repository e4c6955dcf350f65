//! Which of the common options mean something to which command.

use std::path::PathBuf;

use clap::Command;

use stead_model::name::{Name, as_ours};

use super::Global;

/// What a command can be told by options that all share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Takes {
    /// Which project it is about.
    pub(crate) file: bool,
    /// In which form it prints data.
    pub(crate) format: bool,
}

impl Takes {
    const ALL: Self = Self { file: true, format: true };
    const FILE: Self = Self { file: true, format: false };
    const FORMAT: Self = Self { file: false, format: true };
    const NONE: Self = Self { file: false, format: false };

    /// The options that mean nothing, by their ids.
    pub(crate) fn refused(self) -> impl Iterator<Item = &'static str> {
        [("file", self.file), ("profile", self.file), ("project-name", self.file), ("format", self.format)]
            .into_iter()
            .filter_map(|(id, is_taken)| (!is_taken).then_some(id))
    }
}

impl Global {
    /// The same about these project files, if there are any.
    pub(crate) fn with_files(&self, files: &[PathBuf]) -> Self {
        let file = if files.is_empty() { self.file.clone() } else { files.to_vec() };
        Self { file, ..self.clone() }
    }

    /// Whether what is called so may be of a project: of any, unless the command line says which is meant, as this may as well.
    pub(crate) fn may_mean(&self, called: &str, project: &Name) -> bool {
        let is_named =
            || called.rsplit_once('.').is_some_and(|(_, named)| as_ours(named) == project.as_str());
        self.project_name.as_ref().is_none_or(|said| said == project || is_named())
    }
}

/// Which of the common options mean something to a command, by the words that it is called by; one that means nothing is
/// refused, not passed over. What is not here is unknown, or a group of commands.
pub(crate) fn takes(words: &[&str]) -> Option<Takes> {
    let takes = match words {
        [
            "plan" | "up" | "down" | "config" | "build" | "pull" | "ps" | "start" | "stop" | "restart"
            | "kill",
        ]
        | ["pause" | "unpause" | "rm" | "wait" | "rename" | "publish" | "reset" | "inspect" | "port"]
        | ["forward"]
        | ["diff" | "top" | "events" | "stats" | "logs"]
        | ["snapshot", _]
        | ["volume", "ls" | "inspect" | "rm"]
        | ["network", "inspect"] => Takes::ALL,
        ["attach" | "clone" | "console" | "exec" | "run" | "shell" | "ssh" | "cp"] | ["network", "enter"] => {
            Takes::FILE
        }
        ["image", "save" | "export"] | ["kernel", "pull" | "prune" | "rm"] => Takes::NONE,
        ["network" | "image" | "kernel" | "autostart", _]
        | ["volume", "create" | "prune"]
        | ["init" | "ls" | "doctor" | "version" | "login" | "logout" | "purge"] => Takes::FORMAT,
        ["schema" | "completion" | "man" | "create" | "oci" | "ssh-config"] => Takes::NONE,
        [word] if word.starts_with("__") => Takes::NONE,
        _ => return None,
    };
    Some(takes)
}

/// Whether a command, called by these words, reads standard input for something else than its project's file.
pub(super) fn reads_stdin(words: &[&str], command: &super::Command) -> bool {
    match command {
        super::Command::Start(args) => args.interactive,
        _ => matches!(
            words,
            ["attach" | "console" | "cp" | "exec" | "run" | "shell" | "ssh"] | ["network", "enter"]
        ),
    }
}

/// The command line, whose help shows of the common options those that mean something.
pub(super) fn fitted(command: Command) -> Command {
    let common: Vec<clap::Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |below| below_fitted(below, &mut vec![name.clone()], &common))
    })
}

fn below_fitted(command: Command, words: &mut Vec<String>, common: &[clap::Arg]) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let fitted = names.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |below| {
            words.push(name.clone());
            let below = below_fitted(below, words, common);
            words.pop();
            below
        })
    });
    let path: Vec<&str> = words.iter().map(String::as_str).collect();
    let refused: Vec<&str> = takes(&path).into_iter().flat_map(Takes::refused).collect();
    // What a command has of its own is not handed down to it.
    let hidden = common.iter().filter(|arg| refused.contains(&arg.get_id().as_str()));
    hidden.fold(fitted, |command, arg| {
        let hidden = arg.clone().hide(true);
        let letter = arg.get_short().filter(|letter| !has_letter(&command, *letter));
        command.arg(hidden.short(letter))
    })
}

/// Whether a command means something of its own by a letter.
fn has_letter(command: &Command, letter: char) -> bool {
    command.get_arguments().any(|own| {
        own.get_short() == Some(letter)
            || own.get_all_short_aliases().is_some_and(|letters| letters.contains(&letter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Checks each command that has none below it.
    fn each(command: &Command, words: &mut Vec<String>, check: &mut dyn FnMut(&Command, &[&str])) {
        for below in command.get_subcommands() {
            words.push(below.get_name().to_owned());
            if below.has_subcommands() {
                each(below, words, check);
            } else {
                check(below, &words.iter().map(String::as_str).collect::<Vec<_>>());
            }
            words.pop();
        }
    }

    #[test]
    fn of_each_command_it_is_known_what_it_takes() {
        let mut count = 0;
        each(&super::super::Cli::command(), &mut Vec::new(), &mut |_, words| {
            assert!(takes(words).is_some(), "{words:?}");
            count += 1;
        });
        assert!(count > 80, "{count}");
    }

    #[test]
    fn help_shows_what_means_something() {
        let mut command = super::super::command();
        command.build();
        each(&command, &mut Vec::new(), &mut |command, words| {
            if words.contains(&"help") {
                return;
            }
            let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
            let shown: Vec<&str> = shown.map(|arg| arg.get_id().as_str()).collect();
            let refused: Vec<&str> = takes(words).unwrap().refused().collect();
            for id in ["file", "profile", "project-name", "format"] {
                assert_eq!(shown.contains(&id), !refused.contains(&id), "{words:?} {id}");
            }
            assert!(shown.contains(&"debug"), "{words:?}");
        });
    }
}

//! `stead`: arguments in, words out.

mod args;
mod commands;
mod complete;
mod failure;
mod output;
mod project;
mod session;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::CommandFactory;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;

fn main() -> ExitCode {
    if let Some(words) = commands::oci::own_words() {
        return code(commands::oci::run(words));
    }
    let is_internal =
        std::env::args_os().nth(1).is_some_and(|word| word.as_encoded_bytes().starts_with(b"__"));
    if is_internal {
        log(false, INTERNAL_LOG_MAX_BYTES);
        if let Some(ended) = commands::internal::long_lived() {
            return code(ended.map(|()| ExitCode::SUCCESS));
        }
    } else {
        clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    }
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    if !is_internal {
        log(cli.global.debug, usize::MAX);
    }
    code(commands::run(cli))
}

/// The exit code, after what is to be said of a failure.
fn code(ended: Result<ExitCode, failure::Failure>) -> ExitCode {
    match ended {
        Ok(code) => code,
        Err(failure) => {
            output::note(failure.text().trim_end());
            ExitCode::from(failure.code())
        }
    }
}

/// Logs to standard error what `--debug` or `STEAD_LOG` ask for; warnings always.
fn log(debug: bool, most_bytes: usize) {
    let filter = EnvFilter::try_from_env("STEAD_LOG").unwrap_or_else(|_| {
        EnvFilter::new(if debug {
            "stead=debug,stead_host=debug,stead_net=debug,stead_keeper=debug"
        } else {
            "warn"
        })
    });
    let writer = Mutex::new(Bounded { left_bytes: most_bytes });
    let words = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(debug);
    let words = words.with_ansi(output::takes_colour(&std::io::stderr()));
    // It would tell of a full disk where it cannot, and a keeper or the switchboard ends with that.
    words.log_internal_errors(false).init();
}

/// A keeper runs for as long as its machine does, and what it has to say may be the machine's doing: its log ends at
/// so much.
const INTERNAL_LOG_MAX_BYTES: usize = 1 << 20;

/// Standard error, for so many bytes.
struct Bounded {
    left_bytes: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.left_bytes.checked_sub(bytes.len()) {
            Some(left) => {
                self.left_bytes = left;
                std::io::stderr().write_all(bytes)?;
            }
            None if self.left_bytes > 0 => {
                self.left_bytes = 0;
                std::io::stderr().write_all(b"this log is full: what comes now is not written\n")?;
            }
            None => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

//! `stead`: arguments in, words out.

mod args;
mod commands;
mod complete;
mod failure;
mod logs;
mod output;
mod project;
mod session;
mod working;

use std::process::ExitCode;

use crate::args::Format;

fn main() -> ExitCode {
    if let Some(words) = commands::oci::own_words() {
        return code(commands::oci::run(words), Format::Text);
    }
    let is_internal =
        std::env::args_os().nth(1).is_some_and(|word| word.as_encoded_bytes().starts_with(b"__"));
    if is_internal {
        logs::begin(false, logs::INTERNAL_MAX_BYTES);
        if let Some(ended) = commands::internal::long_lived() {
            return code(ended.map(|()| ExitCode::SUCCESS), Format::Text);
        }
    } else {
        clap_complete::CompleteEnv::with_factory(args::command).complete();
    }
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let format = cli.global.format;
    if !is_internal {
        if let Err(failure) = logs::understood() {
            return code(Err(failure), format);
        }
        logs::begin(cli.global.debug, usize::MAX);
    }
    code(commands::run(cli), format)
}

/// The exit code, after what is to be said of a failure.
fn code(ended: Result<ExitCode, failure::Failure>, format: Format) -> ExitCode {
    match ended {
        Ok(code) => code,
        Err(failure) => {
            let said = match format {
                Format::Text => failure.text(),
                Format::Json => failure.json(),
            };
            output::note(said.trim_end());
            ExitCode::from(failure.code())
        }
    }
}

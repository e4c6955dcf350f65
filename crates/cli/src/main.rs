//! `stead`: arguments in, words out.

mod args;
mod commands;
mod complete;
mod failure;
mod output;
mod project;
mod session;

use std::process::ExitCode;

use clap::CommandFactory;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;

fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let cli = args::parse();
    log(cli.global.debug);
    match commands::run(cli) {
        Ok(code) => code,
        Err(failure) => {
            output::note(failure.text().trim_end());
            ExitCode::from(failure.code())
        }
    }
}

/// Logs to standard error what `--debug` or `STEAD_LOG` ask for; warnings always.
fn log(debug: bool) {
    let filter = EnvFilter::try_from_env("STEAD_LOG").unwrap_or_else(|_| {
        EnvFilter::new(if debug {
            "stead=debug,stead_host=debug,stead_net=debug,stead_keeper=debug"
        } else {
            "warn"
        })
    });
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(debug).init();
}

//! The program inside guests: process 1 of a microVM, a service of a whole computer. One thread, which waits in one place; what would make it wait
//! elsewhere (a virtio-serial port) is carried by two small processes of its own.
//!
//! ```text
//! boot: file systems of the kernel's, modules ─▶ port: who talks with us ─▶ agent: requests, until told to end ─▶ ending
//! ```

// What it says goes to the guest's console.
#![allow(clippy::print_stderr)]

mod agent;
mod backlog;
mod boot;
mod changes;
mod computer;
mod container;
mod disks;
mod ending;
mod look;
mod mounts;
mod nics;
mod parcel;
mod port;
mod process;
mod setup;
mod standstill;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stead-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is run. The kernel gives process 1 those words of its command line that it does not know itself.
fn run(args: &[&str]) -> Result<()> {
    match args {
        [port::CARRY_IN] => port::carry_in(),
        [port::CARRY_OUT] => port::carry_out(),
        [standstill::HOLD, places @ ..] => standstill::hold(places),
        // When its service has ended.
        [standstill::GO_ON] => {
            standstill::go_on();
            Ok(())
        }
        [parcel::PACK, pid, started, path] => parcel::pack_from(pid, started, path),
        [parcel::UNPACK, pid, started, path, owners] => parcel::unpack_to((pid, started), path, owners),
        // In a system that somebody else has booted, or a test: its standard input is the stream, and its containers'
        // cgroups begin with this word.
        ["--on-stdin", word] => {
            let ground =
                agent::Ground { stages: Vec::new(), role: agent::Role::Beside, cgroups: (*word).to_owned() };
            agent::Agent::new(port::stdin()?, ground)?.serve()
        }
        // Of a whole computer, which is what programs are run in.
        ["--service"] => {
            // The one before may have been killed while it held them.
            standstill::go_on();
            let ground =
                agent::Ground { stages: Vec::new(), role: agent::Role::Service, cgroups: String::new() };
            agent::Agent::new(port::open()?, ground)?.serve()
        }
        // Early, before that: what others may need that are started meanwhile.
        ["--mount", file] => {
            let wanted = std::fs::read(file).with_context(|| format!("cannot read `{file}`"))?;
            mounts::mount(&serde_json::from_slice(&wanted).context("cannot read what is to be mounted")?)
        }
        _ if rustix::process::getpid().is_init() => {
            let mut stages = vec![boot::stage("kernel")];
            boot::boot()?;
            stages.push(boot::stage("modules"));
            let link = port::open()?;
            let ground = agent::Ground { stages, role: agent::Role::First, cgroups: String::new() };
            agent::Agent::new(link, ground)?.serve()
        }
        _ => bail!("this is process 1 of a guest, and is not to be started by hand"),
    }
}

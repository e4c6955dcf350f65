//! The commands, one room each.

mod attach;
mod autostart;
mod build;
mod clone;
mod cold;
mod condition;
mod config;
mod console;
mod cp;
mod diff;
mod doctor;
mod down;
mod ends;
mod enter;
mod environment;
mod events;
mod exec;
mod fit;
mod forward;
mod guest;
mod here;
mod image;
mod init;
mod inspect;
pub(crate) mod internal;
mod kernel;
mod lacking;
mod login;
mod logs;
mod machines;
mod network;
pub(crate) mod oci;
mod provision;
mod ps;
mod publish;
mod purge;
pub(crate) mod reaper;
mod rename;
mod run;
mod shell;
mod snapshot;
mod ssh;
mod stats;
mod steps;
mod timings;
mod unmet;
mod unpacking;
mod up;
mod volume;
mod wait;
mod wish;
mod words;

use std::process::ExitCode;

use stead_host::machine::Request;

use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) use ps::among;

/// Carries out a command line.
pub(crate) fn run(Cli { global, command }: Cli) -> Result<ExitCode, Failure> {
    let output = Output::new(global.format);
    let done = |()| ExitCode::SUCCESS;
    let ours = |ended: anyhow::Result<()>| ended.map(done).map_err(Failure::from);
    match command {
        Command::Init(args) => init::init(&args, output).map(done),
        Command::Plan(args) => up::plan(&global, &args, output).map(done),
        Command::Up(args) => up::up(&global, &args, output).map(done),
        Command::Down(args) => down::down(&global, &args, output).map(done),
        Command::Config(args) => config::config(&global, &args, output).map(done),
        Command::Build(args) => build::build(&global, &args, output).map(done),
        Command::Detached(args) => match build::detached(&args)? {},
        Command::Pull(args) => config::pull(&global, &args, output).map(done),
        Command::Run(args) => run::run(&global, &args, output),
        Command::Create(args) => run::create(&global, &args, output).map(done),
        Command::Start(args) => machines::start(&global, &args, output),
        Command::Stop(args) => ends::stop(&global, &args, output).map(done),
        Command::Restart(args) => ends::restart(&global, &args, output).map(done),
        Command::Kill(args) => machines::kill(&global, &args, output).map(done),
        Command::Pause(args) => machines::ask(&global, &args.machines, &Request::Pause, output).map(done),
        Command::Unpause(args) => machines::ask(&global, &args.machines, &Request::Unpause, output).map(done),
        Command::Rm(args) => machines::remove(&global, &args, output).map(done),
        Command::Rename(args) => rename::rename(&global, &args, output).map(done),
        Command::Clone(args) => clone::clone(&global, &args, output).map(done),
        Command::Publish(args) => publish::publish(&global, &args, output).map(done),
        Command::PublishHere { order } => publish::publish_here(&order).map(done),
        Command::Snapshot(command) => snapshot::run(&global, command, output).map(done),
        Command::Reset(args) => snapshot::reset(&global, &args, output).map(done),
        Command::Wait(args) => machines::wait(&global, &args, output).map(done),
        Command::Attach(args) => machines::attach(&global, &args),
        Command::Console(args) => console::console(&global, &args).map(done),
        Command::Events(args) => events::events(&global, &args, output).map(done),
        Command::Exec(args) => exec::exec(&global, &args),
        Command::Shell(args) => shell::shell(&global, &args),
        Command::Ssh(args) => ssh::ssh(&global, &args),
        Command::SshConfig(args) => ssh::config(&args).map(done),
        Command::SshProxy { host, user } => ssh::proxy(&global, &host, &user),
        Command::Logs(args) => logs::logs(&global, &args, output).map(done),
        Command::Ps(args) => ps::ps(&global, &args, output).map(done),
        Command::Inspect(args) => inspect::inspect(&global, &args, output).map(done),
        Command::Port(args) => inspect::port(&global, &args, output).map(done),
        Command::Forward(args) => forward::forward(&global, &args, output).map(done),
        Command::Top(args) => stats::top(&global, &args, output).map(done),
        Command::Stats(args) => stats::stats(&global, &args, output).map(done),
        Command::Diff(args) => diff::diff(&global, &args, output).map(done),
        Command::DiffHere { order } => diff::diff_here(&order).map(done),
        Command::Cp(args) => cp::cp(&global, &args).map(done),
        Command::Copy => cp::copy_here().map(done),
        Command::Ls(args) => ps::ls(&args, output).map(done),
        Command::Kernel(command) => kernel::run(command, output).map(done),
        Command::Image(command) => image::run(command, output).map(done),
        Command::Login(args) => login::login(&args, output).map(done),
        Command::Logout(args) => login::logout(&args, output).map(done),
        Command::Volume(command) => volume::run(&global, command, output).map(done),
        Command::Network(command) => network::run(&global, command, output),
        Command::Oci { words } => oci::run(std::iter::once("stead oci".into()).chain(words).collect()),
        Command::Autostart(command) => autostart::run(&command, output).map(done),
        Command::Doctor => doctor::run(output),
        Command::Purge(consent) => purge::run(consent, output).map(done),
        Command::Version => words::version(output).map(done),
        Command::Schema => words::schema().map(done),
        Command::Completion { shell } => words::completion(shell).map(done),
        Command::Man { dir } => words::manual(&dir).map(done),
        Command::Unpack { store, image } => ours(image::unpack_here(&store, &image)),
        Command::ExportHere { store, image } => ours(image::export_here(&store, &image)),
        Command::Forget { store, what, used } => ours(image::forget_here(&store, &what, used)),
        Command::Tree(command) => internal::tree(&command).map(done),
        Command::Provision(part) => provision::run(&global, &part),
        Command::Enter(args) => internal::enter(args),
    }
}

//! The command line.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};

use stead_model::name::Name;

mod autostart;
mod before;
mod filter;
mod image;
mod internal;
mod looks;
mod machines;
mod network;
pub(crate) mod oci;
mod project;
mod run;
mod snapshot;
mod takes;
mod values;
mod volume;

pub(crate) use autostart::{AutostartCommand, AutostartStartArgs};
pub(crate) use filter::{EventFilter, Filter, holds};
pub(crate) use image::{
    ExportArgs, ImageBuildArgs, ImageCommand, ImportArgs, LoadArgs, LoginArgs, LogoutArgs, OneImage,
    PullArgs, PushArgs, SaveArgs,
};
pub(crate) use internal::{InternalDetached, InternalEnter, ProvisionCommand, TreeCommand};
pub(crate) use looks::{
    CopyArgs, DiffArgs, EventsArgs, ForwardArgs, InspectArgs, PortArgs, PsArgs, StatsArgs, TopArgs,
};
pub(crate) use machines::{
    AttachArgs, CloneArgs, ConsoleArgs, ExecArgs, KillArgs, LogsArgs, MachinesArgs, PublishArgs, RemoveArgs,
    RenameArgs, RestartArgs, ShellArgs, SshArgs, SshConfigArgs, StartArgs, StopArgs, Told,
};
pub(crate) use network::{ConnectArgs, CreateArgs, EnterArgs, NetworkCommand};
pub(crate) use project::{
    ConfigArgs, DownArgs, InitArgs, LsArgs, Only, PlanArgs, ProjectBuildArgs, ProjectPullArgs, Stage,
    Template, UpArgs,
};
pub(crate) use run::{MachineArgs, MakeArgs, PullWhen, RunArgs, RunKind};
pub(crate) use snapshot::{ResetArgs, SnapshotCommand, SnapshotCreateArgs, SnapshotListArgs};
pub(crate) use values::Tail;
pub(crate) use volume::{VolumeCommand, VolumeCreateArgs, VolumeListArgs};

/// Run Linux machines from one file or one command, on networks of their own
#[derive(Debug, Parser)]
#[command(name = "stead", version, arg_required_else_help = true)]
#[command(after_help = "\
Start in a directory with a stead.yaml: `stead plan` shows what `stead up` would do,
`stead down` takes it away again. `stead doctor` tells what this computer can do.

STEAD_HOME moves where stead keeps its files (`stead version` tells where they are),
NO_COLOR switches colour off.

Exit codes: 0 done, 1 this computer would not, 2 the request or the file is wrong,
3 refused because data would be lost.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What commands have in common; [`takes`] says which take what.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    /// The project file, `-` for standard input; of several each goes over those before it [default: the stead.yaml or compose.yaml here or in a
    /// directory above]
    #[arg(short, long, global = true, env = "STEAD_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) file: Vec<PathBuf>,
    /// Whether that was said to this command, and not to all by the environment.
    #[arg(skip)]
    pub(crate) is_file_said: bool,
    /// With the machines of these profiles as well; `*`: of all
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Vec<String>,
    /// What the project is called, whatever its file says
    #[arg(id = "project-name", long, global = true, value_name = "NAME", value_parser = values::named)]
    pub(crate) project_name: Option<Name>,
    /// How data is printed: for people, or for programs
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: Format,
    /// Tell on standard error what is being done (STEAD_LOG=trace tells even more)
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Without lines of their own the values fit into the option's one.
    #[default]
    Text,
    Json,
}

/// Who builds images.
pub(crate) const BUILDERS: &str = "\
BuildKit does it where `buildctl` and a daemon of its are here, else buildah; what comes out is an image like others.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a project file to begin with, explained by comments
    Init(InitArgs),
    /// Show what `up` would change, and which key of the file asks for it
    Plan(PlanArgs),
    /// Make this computer what the project file says
    Up(UpArgs),
    /// Take a project's machines and networks away; its volumes stay
    Down(DownArgs),
    /// Show the project file as it is understood, with everything said and variables filled in
    #[command(after_help = "\
  stead config --quiet && stead up     go on only if nothing is wrong with the file
  stead -f compose.yaml config         a file of Compose in our own words

With `--format json` it is JSON with the same keys.")]
    Config(ConfigArgs),
    /// Build the images of a project, of machines that have a `build`
    #[command(after_help = BUILDERS)]
    Build(ProjectBuildArgs),
    /// Get the images of a project anew, ready for the next `up`
    Pull(ProjectPullArgs),
    /// Make a machine of an image, or one more like a machine of the project here, and run it
    #[command(disable_help_flag = true)]
    #[command(after_help = "\
  stead run -it debian:12 bash
  stead run -d --name web -p 8080:80 registry.example/team/web:v1
  stead run --rm web ./manage migrate

The machine has a name on its network, by which others find it. What it wrote is in `stead logs`.

A name without `/`, `:` and `@` that the project here has is its machine: another is made as the file says, of the
same project, and its own program is run instead of the file's if one is said. What that machine depends on is brought up
first. It has the name `web-run-1` or the like, not that of the file, none of the ports, addresses and aliases that the file
says, is not started again by itself, and no scripts are run in it. Options add to what the file says, or replace it. Until
it is removed `up` leaves it alone; `down` takes it away.

Exit codes: those of its program; 127 if there is no such program in the image, 126 if it cannot be run,
125 if stead failed before.")]
    Run(Box<RunArgs>),
    /// Make a machine of an image, to be started later
    #[command(disable_help_flag = true)]
    Create(Box<MakeArgs>),
    /// Start machines that were made, as they were made
    #[command(after_help = "\
  stead start web
  stead start -ai shell

With `--attach` or `--interactive` what the machine writes from now on comes here, signals go to it, and the exit codes are those of
`stead run`. Ctrl-P Ctrl-Q leaves it to itself.")]
    Start(StartArgs),
    /// Ask machines to end, and end them when they take too long
    Stop(StopArgs),
    /// End machines and start them anew
    Restart(RestartArgs),
    /// Send machines a signal
    Kill(KillArgs),
    /// Hold machines still
    Pause(MachinesArgs),
    /// Let machines that are held still go on
    Unpause(MachinesArgs),
    /// Remove machines, with their snapshots and all that they wrote but for their volumes
    Rm(RemoveArgs),
    /// Give a machine that a command made another name; its files and addresses stay
    #[command(after_help = "\
A container that runs goes on: with its processes, addresses, published ports and open connections. It is found by its new
name at once, and another machine may be called as it was. Its host name inside stays until it is stopped and started. A
microVM, a vm, and a container on a network of reach `bridged`, whose MAC there follows from its name, have to be stopped
first.")]
    Rename(RenameArgs),
    /// Make a machine like another, with its files as they are or as a snapshot has them
    #[command(after_help = "\
The clone, of a container or a vm, belongs to the project of what commands make. It has its own name, hostname, MAC and
addresses. Of a container, the /etc/machine-id and the SSH host keys that the source wrote are not taken along, but its
image's are; of a vm, both are made anew at the clone's start, which cloud-init does. All else that the source was made
with is the same, but for what one machine alone can have: published ports and fixed addresses. A source that runs is held
still while its files are copied. Volumes are not copied: those of the project of what commands make are used by both
machines, others are made anew, and are not mounted in a vm.")]
    Clone(CloneArgs),
    /// Make an image of a machine, as it is or as a snapshot has it
    #[command(after_help = "\
The image has the layers and the configuration of the machine's image, and one layer more of what the machine wrote. Not in
that: volumes, what is in /run and /tmp, SSH host keys, and the contents of /etc/machine-id. Whatever else was written is in
it, passwords too. A machine that runs is held still while its files are copied.")]
    Publish(PublishArgs),
    /// Keep a machine's files as they are, and go back to them
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Set a machine back to its image, or to a snapshot
    #[command(after_help = "\
Without a snapshot: to the one named `initial`, if there is one, else to what its image is. What it wrote since is lost,
what is in volumes stays. One that runs is ended first and then started again.")]
    Reset(ResetArgs),
    /// Wait until machines end, and print their exit codes
    Wait(MachinesArgs),
    /// Watch a machine's output, and type into it
    #[command(
        after_help = "Ctrl-P Ctrl-Q leaves a machine with a terminal; it goes on.\n\nExit code: the machine's own."
    )]
    Attach(AttachArgs),
    /// Sit down at the serial console of a machine with a kernel of its own
    #[command(
        after_help = "Ctrl-P Ctrl-Q leaves. What was said there last comes first. At the end of what is typed by a script it leaves, too."
    )]
    Console(ConsoleArgs),
    /// Run a program in a machine
    #[command(after_help = "\
  stead exec -it web sh
  stead exec -u postgres db psql

Exit codes: those of the program; 127 if there is none, 126 if it cannot be run, 125 if stead failed before.")]
    Exec(ExecArgs),
    /// Log in to a machine: a user's own shell, at home
    #[command(after_help = "\
  stead shell dev
  echo 'apt-get update' | stead shell dev

At a terminal the shell has one; else it reads what comes, as a script. Its environment is the user's own, as with
`su -`; nothing of the machine's program is in it. Where that shell is not there, it is /bin/sh.

Exit codes: those of the shell; 127 if there is none, 125 if stead failed before.")]
    Shell(ShellArgs),
    /// Log in to a machine by OpenSSH's client, without an address or a port
    #[command(after_help = "\
  stead ssh dev
  stead ssh dev -u alice -- -A -L 8080:localhost:80
  stead ssh dev -- uname -a

The machine needs OpenSSH's server, which need not run. Keys of both are made and verified by stead: no password, and no
question. `stead ssh-config --install` lets other programs in as well: scp, rsync, git, editors.

Exit codes: those of ssh, which are the command's own, or 255; 125 if stead failed before.")]
    Ssh(SshArgs),
    /// Print settings by which every `ssh` reaches machines, as `MACHINE.PROJECT.stead`
    #[command(after_help = "\
  stead ssh-config --install
  scp notes root@dev.shop.stead:
  rsync -a site/ root@web.shop.stead:/srv/site/

They are for machines of this home. `--install` has ~/.ssh/config include them, and may be said again after stead has
moved; `--remove` and `stead purge` undo it.")]
    SshConfig(SshConfigArgs),
    /// Print what machines wrote
    Logs(LogsArgs),
    /// List machines with their networks, addresses and published ports
    Ps(PsArgs),
    /// Tell all about machines: what they are to be, what they are, how they fare
    Inspect(InspectArgs),
    /// List the ports of this computer that lead to a machine
    Port(PortArgs),
    /// Publish ports of a machine for as long as this command runs
    Forward(ForwardArgs),
    /// List the processes of a machine
    Top(TopArgs),
    /// Tell what machines use, every second
    #[command(
        after_help = "It goes on until none of them runs. With `--format json` each second is a line of its own."
    )]
    Stats(StatsArgs),
    /// Copy files between this computer and a machine, whether it runs or not
    #[command(after_help = "\
  stead cp web:/etc/hosts .
  stead cp site/. web:/srv/www
  stead cp web:/var/log - | tar t

To a directory that exists, the source goes into it; of one that ends with `/.` only the content does. Links at
the end of a source are copied and not followed. Whatever is in its place is replaced, but for directories, which
are filled. Files become yours here, and root's in the machine, unless `--archive` is said. A machine that does
not run cannot be started meanwhile. An archive has its own
owners, and is read as a layer of an image: `.wh.NAME` in it takes NAME away.")]
    Cp(CopyArgs),
    /// Tell what a machine changed of its image's files
    #[command(
        after_help = "A is new, C is changed, D is gone. What is in volumes and other mounts is not the image's."
    )]
    Diff(DiffArgs),
    /// Print what happens to machines, networks and volumes, as it happens
    #[command(after_help = "\
  stead events --since 1h --filter event=die --filter event=oom
  stead events web --format json

Machines: create, start, die, oom, health, kill, pause, unpause, stop, snapshot, restore, rename, exec, rm; networks and volumes: create, rm.
Without a project here, or with `--all`, events of all projects. About ten thousand events are kept. With `--format json` each is
a line of its own.")]
    Events(EventsArgs),
    /// List the projects of this user
    Ls(LsArgs),
    /// Get, list and remove the kernels of microVMs, and what is kept of those that have booted
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// Get images, look into them, pass them on, remove them
    #[command(subcommand)]
    Image(ImageCommand),
    /// Let a registry know who you are from now on
    #[command(after_help = "\
The name and password are tried at once. A credential helper of Docker keeps them where there is one; else they are in
~/.docker/config.json or Podman's auth.json, which only you read. Docker and Podman use them too, and stead theirs.")]
    Login(LoginArgs),
    /// Forget who you are for a registry
    Logout(LogoutArgs),
    /// Look into networks, run programs among them, and make some without a project file
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Run containers of OCI bundles, for programs that drive such runtimes
    #[command(disable_help_flag = true)]
    Oci {
        /// `stead oci --help` tells more
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<std::ffi::OsString>,
    },
    /// Look into volumes, make some without a project file, and delete them
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Have machines start with this computer, as their restart policies say
    #[command(subcommand)]
    Autostart(AutostartCommand),
    /// Tell what this computer can and cannot do, and how to mend it
    #[command(
        after_help = "Exit code 1 if anything is missing. What is limited has something else that does its work."
    )]
    Doctor,
    /// Take away all that stead has here for this user: projects, networks, volumes, records
    Purge(Consent),
    /// Print the version, and where stead keeps its files
    Version,
    /// Print the JSON Schema of stead.yaml, by which editors check and complete it
    #[command(
        after_help = "Write it to a file, and start stead.yaml with this line, for editors that speak with\n\
        yaml-language-server:\n\n  # yaml-language-server: $schema=stead.schema.json"
    )]
    Schema,
    /// Print a completion script for a shell
    #[command(
        after_help = "It completes commands and options, and the names of projects, machines and networks.\n\n  \
        bash: source <(stead completion bash)\n  \
        zsh:  source <(stead completion zsh)\n  \
        fish: stead completion fish | source"
    )]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages, for those who pack stead
    #[command(hide = true)]
    Man {
        /// The directory to write them to
        #[arg(long, value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    #[command(name = "__unpack", hide = true)]
    Unpack { store: PathBuf, image: stead_model::image::Digest },
    #[command(name = "__forget", hide = true)]
    Forget { store: PathBuf, what: String, used: Vec<stead_model::image::Digest> },
    #[command(flatten)]
    Tree(TreeCommand),
    #[command(name = "__copy", hide = true)]
    Copy,
    #[command(name = "__detached", hide = true)]
    Detached(InternalDetached),
    #[command(name = "__export", hide = true)]
    ExportHere { store: PathBuf, image: stead_model::image::Digest },
    #[command(name = "__diff", hide = true)]
    DiffHere { order: String },
    #[command(name = "__publish", hide = true)]
    PublishHere { order: String },
    #[command(name = "__ssh-proxy", hide = true)]
    SshProxy { host: String, user: String },
    #[command(flatten)]
    Provision(ProvisionCommand),
    #[command(name = "__enter", hide = true)]
    Enter(InternalEnter),
}

/// Reads the command line; or tells the person what is wrong with it, or what was asked to be told, for this exit code.
pub(crate) fn parse() -> Result<Cli, u8> {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    read(words.clone()).map_err(|error| {
        // If nobody listens there is nobody left to tell.
        let _gone = error.print();
        match u8::try_from(error.exit_code()) {
            Ok(0) => 0,
            // Their other codes are those of the program that they run.
            Ok(_) | Err(_) if runs_a_program(&words) => 125,
            Ok(code) => code,
            Err(_) => 2,
        }
    })
}

/// Whether a command line is one of those whose exit code is another program's.
fn runs_a_program(words: &[std::ffi::OsString]) -> bool {
    const WITH_VALUE: [&str; 5] = ["-f", "--file", "--profile", "--project-name", "--format"];
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return matches!(word, "run" | "exec" | "shell" | "ssh");
        }
    }
    false
}

fn read(words: impl IntoIterator<Item = std::ffi::OsString>) -> clap::error::Result<Cli> {
    let words: Vec<std::ffi::OsString> = words.into_iter().collect();
    let mut command = values::with_numbers(command());
    let matches = command
        .try_get_matches_from_mut(words.clone())
        .map_err(|error| values::mend(error, &command, &words))?;
    let path = command_words(&matches);
    // The environment speaks to all commands at once, and so is passed over where it means nothing.
    let is_said = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut refused = takes::takes(&path).into_iter().flat_map(takes::Takes::refused);
    if let Some(id) = refused.find(|id| is_said(id)) {
        let text = format!("`stead {}` has no use for `--{id}`\n", path.join(" "));
        return Err(command.error(ErrorKind::UnknownArgument, text));
    }
    let mut cli = Cli::from_arg_matches(&matches)?;
    before::Before::of(&words, path.len()).beside(&mut cli.global);
    if cli.global.file.iter().any(|file| file.as_os_str().is_empty()) {
        if is_said("file") {
            return Err(command.error(ErrorKind::InvalidValue, "`--file` is without the name of a file\n"));
        }
        // An empty variable is as good as none.
        cli.global.file = Vec::new();
    }
    cli.global.is_file_said = is_said("file");
    if cli.global.file.iter().any(|file| crate::project::is_stdin(file))
        && takes::reads_stdin(&path, &cli.command)
    {
        let text = format!(
            "`stead {}` reads standard input itself: `--file` is to be another than `-`\n",
            path.join(" ")
        );
        return Err(command.error(ErrorKind::InvalidValue, text));
    }
    Ok(cli)
}

/// The command line: what is understood, and what help, manual pages and completion tell of it.
pub(crate) fn command() -> clap::Command {
    takes::fitted(Cli::command()).mut_subcommand("run", run::of_machines)
}

/// `network`, `ls`.
fn command_words(matches: &ArgMatches) -> Vec<&str> {
    let mut words = Vec::new();
    let mut below = matches.subcommand();
    while let Some((name, matches)) = below {
        words.push(name);
        below = matches.subcommand();
    }
    words
}

/// Which shell.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Agreement to what cannot be undone.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Consent {
    /// Do not ask: what is lost is lost
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// The same where Docker's `-f` is such an agreement.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Force {
    /// Do not ask: what is lost is lost
    #[arg(short, long, visible_short_alias = 'f', visible_alias = "force", overrides_with = "yes")]
    pub(crate) yes: bool,
}

impl From<Force> for Consent {
    fn from(Force { yes }: Force) -> Self {
        Self { yes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_run_a_program_are_known_by_their_first_word() {
        let check = |line: &str| runs_a_program(&line.split(' ').map(Into::into).collect::<Vec<_>>());
        assert!(check("stead --project-name up exec web"));
        assert!(check("stead -f run exec web") && check("stead --debug run --nosuch x"));
        assert!(!check("stead -f run up") && !check("stead ps run") && !check("stead"));
    }

    #[track_caller]
    fn check(line: &str, refused: Option<&str>) {
        let error = read(line.split(' ').map(Into::into)).err().map(|error| error.to_string());
        match (&error, refused) {
            (None, None) => {}
            (Some(error), Some(refused)) => assert!(error.contains(refused), "{line}: {error}"),
            (found, _) => panic!("{line}: {found:?}"),
        }
    }

    #[test]
    fn a_value_may_be_a_negative_number_and_how_others_with_a_dash_are_written_is_told() {
        for line in [
            "stead logs --tail -1",
            "stead logs web --tail all",
            "stead run --memory-swap -1 x",
            "stead run --pids -1 x -1",
            "stead exec web ls -1",
        ] {
            check(line, None);
        }
        check("stead logs --tail -2", Some("it is a number of lines, or `all`"));
        check("stead -f x logs --nosuch", Some("unexpected argument '--nosuch' found"));
        for (line, tip) in [
            ("stead run --env -A=1 x", "a value that begins with `-` is written `--env=-A=1`"),
            ("stead run -it --user -x x", "a value that begins with `-` is written `--user=-x`"),
            ("stead network create --subnet --x lan", "is written `--subnet=--x`"),
        ] {
            check(line, Some(tip));
            let error = read(line.split(' ').map(Into::into)).unwrap_err().to_string();
            assert!(!error.contains("'-- "), "{error}");
        }
    }

    #[test]
    fn an_option_that_would_mean_nothing_is_refused_wherever_it_stands() {
        for line in [
            "stead -f x up",
            "stead up --file x --format json",
            "stead network --format json ls",
            "stead network inspect lan -f x",
            "stead -f x network enter -m web -- ls --format json",
            "stead --debug purge --yes",
        ] {
            check(line, None);
        }
        for line in ["run", "exec web ls", "cp a web:b", "network enter -- ls", "start -i web"] {
            let refused = "reads standard input itself: `--file` is to be another than `-`";
            check(&format!("stead -f - {line}").replace("run", "run x"), Some(refused));
        }
        check("stead -f - start web", None);
        check("stead --file= up", Some("`--file` is without the name of a file"));
        check("stead --project-name x doctor", Some("`stead doctor` has no use for `--project-name`"));
        check("stead --project-name My_Shop up", None);
        check("stead up --project-name .", Some("invalid value '.' for '--project-name <NAME>'"));
        check("stead -f x doctor", Some("`stead doctor` has no use for `--file`"));
        check("stead network ls -f x", Some("`stead network ls` has no use for `--file`"));
        check("stead network -f x create lan", Some("`stead network create` has no use for `--file`"));
        check("stead schema --format json", Some("`stead schema` has no use for `--format`"));
        check("stead --format json purge --yes", None);
        check(
            "stead network enter --format json -- ls",
            Some("`stead network enter` has no use for `--format`"),
        );
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// List the kernels that are here, and what is kept of microVMs that have booted them; new machines have the first one
    Ls,
    /// Get Debian's newest kernel for clouds, by `apt`, which verifies it
    Pull {
        /// The one of this package instead, a file or what was in it in a directory, which nobody verifies
        #[arg(value_hint = ValueHint::FilePath)]
        package: Option<PathBuf>,
    },
    /// Remove what is kept of microVMs that have booted: the next ones boot, and it is made anew
    Prune,
    /// Remove kernels, and what is kept of microVMs that have booted them
    Rm {
        /// Their names
        #[arg(required = true)]
        kernels: Vec<String>,
    },
}

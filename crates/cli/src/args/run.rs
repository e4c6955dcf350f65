//! What machines are made of: the arguments of `run` and `create`. Their names are Docker's where the meaning is.

use std::path::PathBuf;

use clap::{ArgAction, Args, Command, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use stead_model::container::Signal;
use stead_model::name::Name;

use super::values::named;
use crate::complete;

/// When an image is pulled; the most eager one is the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum PullWhen {
    /// Not at all: what is not here is an error
    Never,
    /// If it is not here
    #[default]
    Missing,
    /// Each time, for the newest of that name
    Always,
}

/// What a machine that is run can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunKind {
    // Without lines of their own the values fit into the option's one.
    #[default]
    Container,
    Microvm,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// Leave it to itself, and print its name
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Remove it when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Boot the microVM, though it could go on from where another one was saved when it had booted
    #[arg(long)]
    pub(crate) cold: bool,
    /// Do not see to what the machine of the project depends on
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// Give it no terminal, and let it read what is piped in, as Compose's `run -T` does
    #[arg(short = 'T', long, conflicts_with = "tty")]
    pub(crate) no_tty: bool,
    /// Publish the ports, too, that the file says of the machine of the project
    #[arg(long)]
    pub(crate) service_ports: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct MakeArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// What a machine is to be.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineArgs {
    /// Its name [default: the image's, with a number]
    #[arg(long, value_parser = named)]
    pub(crate) name: Option<Name>,
    /// What it is: in this computer's own kernel, or in one of its own [default: container]
    #[arg(long, value_enum)]
    pub(crate) kind: Option<RunKind>,
    /// Let it read what is typed here
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Environment: `NAME=value`, or `NAME` as it is here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Files with lines `NAME=value`, or `NAME` as it is here; taken as they stand
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) env_file: Vec<PathBuf>,
    /// Where its program starts
    #[arg(short, long, value_name = "DIRECTORY")]
    pub(crate) workdir: Option<String>,
    /// As whom its program runs: `user[:group]`, names or numbers
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// More groups
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// What it calls itself [default: its name]
    #[arg(short = 'h', long)]
    pub(crate) hostname: Option<String>,
    /// Ports that this computer publishes: `[address:]port:target[/udp]`; with the target alone it chooses one
    #[arg(short, long, value_name = "PORT")]
    pub(crate) publish: Vec<String>,
    /// Publish all ports that the image exposes, each on one that this computer chooses; of a machine of the project here
    /// those that the file says
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// What is mounted: `volume:/place[:ro]` or `./directory:/place[:ro]`
    #[arg(short, long, value_name = "VOLUME")]
    pub(crate) volume: Vec<String>,
    /// The same in words: `type=bind,source=…,target=…,readonly`
    #[arg(long, value_name = "MOUNT")]
    pub(crate) mount: Vec<String>,
    /// File systems in memory: `/place[:size=64m,mode=1777,uid=0,gid=0]`
    #[arg(long, value_name = "PLACE")]
    pub(crate) tmpfs: Vec<String>,
    /// Networks that it is on [default: default]; `none`, `host` for this computer's own, or `machine:NAME` for that of another
    /// machine
    #[arg(long, alias = "net", value_name = "NETWORK")]
    pub(crate) network: Vec<String>,
    /// Its IPv4 address on the first network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<String>,
    /// Its IPv6 address on the first network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip6: Option<String>,
    /// Its MAC on the first network
    #[arg(long, alias = "mac-address", value_name = "MAC")]
    pub(crate) mac: Option<String>,
    /// More names for it on its networks
    #[arg(long, value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// Whom it asks for names, instead of its network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<String>,
    /// Where it looks for short names
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Names that it knows by itself: `name:address`; several times for a name with several
    #[arg(long, value_name = "HOST")]
    pub(crate) add_host: Vec<String>,
    /// How many processors it may use: `1.5`
    #[arg(long)]
    pub(crate) cpus: Option<String>,
    /// Its part where processors are scarce; 1024 is the usual one
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<String>,
    /// Which processors it may use: `0-2,4`
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// How much memory it may use: `512m`
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// How much memory with swap; twice the memory where nothing is said
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_swap: Option<String>,
    /// How much memory it should get by with
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_reservation: Option<String>,
    /// How many processes it may have
    #[arg(long, alias = "pids-limit", value_name = "NUMBER")]
    pub(crate) pids: Option<String>,
    /// Its part of input and output, 10 to 1000; 100 is the usual one
    #[arg(long, value_name = "NUMBER")]
    pub(crate) blkio_weight: Option<String>,
    /// How much it may read of a disk of this computer a second: `/dev/sda:10mb`
    #[arg(long, value_name = "DISK:SIZE")]
    pub(crate) device_read_bps: Vec<String>,
    /// How much it may write to one a second
    #[arg(long, value_name = "DISK:SIZE")]
    pub(crate) device_write_bps: Vec<String>,
    /// How often it may read of one a second: `/dev/sda:100`
    #[arg(long, value_name = "DISK:NUMBER")]
    pub(crate) device_read_iops: Vec<String>,
    /// How often it may write to one a second
    #[arg(long, value_name = "DISK:NUMBER")]
    pub(crate) device_write_iops: Vec<String>,
    /// How large its /dev/shm is
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// Limits of each process: `nofile=1024:2048`
    #[arg(long, value_name = "LIMIT")]
    pub(crate) ulimit: Vec<String>,
    /// How gladly the kernel ends it when memory runs out, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<String>,
    /// Capabilities that it has beyond the usual ones
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// Capabilities that are taken from it
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<String>,
    /// Let it do all that you may do
    #[arg(long)]
    pub(crate) privileged: bool,
    /// `no-new-privileges`, `seccomp=unconfined`, `seccomp=FILE`
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// Its root cannot be written
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Devices of this computer: `/dev/x[:/dev/y][:rwm]`
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Vec<String>,
    /// Kernel parameters of its own: `net.ipv4.ip_forward=1`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) sysctl: Vec<String>,
    /// Whether it is started again when it ends: `no`, `on-failure[:times]`, `always`, `unless-stopped`
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// How much is kept of what it writes: `max-size=10m`, `max-file=3`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) log_opt: Vec<String>,
    /// Make a small process of ours its first one, which buries the dead
    #[arg(long)]
    pub(crate) init: bool,
    /// Run the image's own init, as a system of its own
    #[arg(long)]
    pub(crate) system: bool,
    /// What runs instead of the image's entrypoint; empty for nothing
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Labels: `name=value`
    #[arg(short, long, value_name = "LABEL")]
    pub(crate) label: Vec<String>,
    /// When the image is pulled [default: missing]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) pull: Option<PullWhen>,
    /// For which platform: `linux/arm64`
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// What tells it to end
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<Signal>,
    /// How many seconds it may then take
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<u64>,
    /// What is run in it to see that it is well
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Between such looks: `30s`
    #[arg(long, value_name = "TIME")]
    pub(crate) health_interval: Option<String>,
    /// For one look
    #[arg(long, value_name = "TIME")]
    pub(crate) health_timeout: Option<String>,
    /// After the start, when failures do not count
    #[arg(long, value_name = "TIME")]
    pub(crate) health_start_period: Option<String>,
    /// Between looks after the start: `1s`
    #[arg(long, value_name = "TIME")]
    pub(crate) health_start_interval: Option<String>,
    /// How many failures in a row mean that it is not well
    #[arg(long, value_name = "NUMBER")]
    pub(crate) health_retries: Option<String>,
    /// Do not look whether it is well, even if its image says how
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_start_period", "health_start_interval", "health_retries"])]
    pub(crate) no_healthcheck: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// The image: `debian:12`, `registry.example/team/web:v1`
    #[arg(index = 1, add = ArgValueCompleter::new(complete::images))]
    pub(crate) image: String,
    /// What it runs, instead of the image's command
    #[arg(index = 2, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `run` takes more than an image.
pub(super) fn of_machines(run: Command) -> Command {
    run.mut_arg("image", |arg| {
        let help =
            "The image: `debian:12`, `registry.example/team/web:v1`; or a machine of the project here: `web`";
        let completer = ArgValueCompleter::new(complete::what_is_run);
        arg.value_name("IMAGE|MACHINE").help(help).long_help(None).add(completer)
    })
}

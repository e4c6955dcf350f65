//! The arguments of the commands about machines that start with the computer.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum AutostartCommand {
    /// Have systemd start machines with this computer
    #[command(after_help = "\
It writes a unit of systemd, of the system's for root, else of the user's own, and enables it; nothing is started or ended now.
From the next start of the computer on machines start whose restart policy is `always`, and those of `unless-stopped` that nobody
had stopped; when it goes off all are asked to end while the network is still there, none before those that depend on it. A unit that somebody changed is left
alone.")]
    Enable,
    /// Have no machines started with this computer any more
    Disable,
    /// Tell whether machines start with this computer, and which
    Status,
    /// Start the machines that are to run when the computer has started
    #[command(after_help = "\
This is what the unit of `stead autostart enable` runs; without systemd let your own init run it when the computer starts, as the user
whose machines they are, and `stead autostart stop` before it goes off:

  @reboot stead autostart start --wait-online 30     a line for crontab")]
    Start(AutostartStartArgs),
    /// End all machines because the computer goes off: the next start of it starts them again
    Stop,
}

#[derive(Debug, Args)]
pub(crate) struct AutostartStartArgs {
    /// First wait for a way out of this computer, no longer than this; without one machines are started all the same
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    pub(crate) wait_online: u64,
}

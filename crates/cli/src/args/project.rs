//! The arguments of commands about projects.

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use stead_model::file::replicas;
use stead_model::name::Name;

use super::values::named;
use super::{Consent, PullWhen};
use crate::complete;

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// What the project is to be
    #[arg(value_enum, default_value_t)]
    pub(crate) template: Template,
}

/// What a project begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// A machine to work in, with you as its user
    #[default]
    Dev,
    /// A web server and its database
    Web,
    /// Several machines that are alike
    Agents,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Show what `down` would change instead
    #[arg(long)]
    pub(crate) down: bool,
    /// Choose addresses anew where stead.lock has them
    #[arg(long, conflicts_with = "down")]
    pub(crate) relock: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Only these machines, whatever their profiles, and those that they depend on: `web`, `web*`
    #[arg(add = ArgValueCompleter::new(complete::project_machines))]
    pub(crate) machines: Vec<String>,
    /// Do not stay and show what they write: as without it
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Only these, not those that they depend on, which are not waited for either
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// So many of a machine, whatever the file says, and only for this time: `web=3`
    #[arg(long, value_name = "MACHINE=NUMBER", value_parser = scale)]
    #[arg(add = ArgValueCompleter::new(complete::project_machines))]
    pub(crate) scale: Vec<(Name, u16)>,
    /// Make the machines anew though nothing of them changed: those that are named, else all. Their volumes stay; for the
    /// disk of a vm and for snapshots you are asked
    #[arg(long)]
    pub(crate) force_recreate: bool,
    /// Make volumes that have no name anew, too, in machines that are made anew
    #[arg(short = 'V', long)]
    pub(crate) renew_anon_volumes: bool,
    /// Take away machines that the file has no more, though machines are named; where none are, that is done anyway
    #[arg(long)]
    pub(crate) remove_orphans: bool,
    /// When images are pulled [default: as the file says, else `missing`]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) pull: Option<PullWhen>,
    /// Build the images that are built, whether they are here or not
    #[arg(long)]
    pub(crate) build: bool,
    /// Build no images: what is not here is an error
    #[arg(long, conflicts_with = "build")]
    pub(crate) no_build: bool,
    /// Choose addresses anew where stead.lock has them
    #[arg(long)]
    pub(crate) relock: bool,
    /// Boot microVMs that start now, though they could go on from where another one was saved when it had booted
    #[arg(long)]
    pub(crate) cold: bool,
    /// Then wait until the machines are so far: `--wait=started`, `--wait=healthy`, `--wait=completed`; `--wait` alone:
    /// healthy, or started where nobody looks how well they are
    #[arg(long, value_name = "STAGE", num_args = 0..=1, require_equals = true, default_missing_value = "ready")]
    pub(crate) wait: Option<Stage>,
    /// Then tell how long the machines took to which stage
    #[arg(long)]
    pub(crate) timings: bool,
    /// How many seconds that may take [default: as long as it takes]
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub(crate) wait_timeout: Option<u64>,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Names of projects, with `*` for any text [default: the project here]
    #[arg(value_name = "PROJECT", add = ArgValueCompleter::new(complete::projects))]
    pub(crate) projects: Vec<String>,
    /// Delete its volumes too; their data is lost
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Those of its machines, too, that the file has no more: as without it
    #[arg(long)]
    pub(crate) remove_orphans: bool,
    /// How many seconds its machines may take to end by themselves [default: as they were made, or 10]
    #[arg(short, long, alias = "timeout", value_name = "SECONDS")]
    pub(crate) time: Option<u64>,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Names of projects, with `*` for any text [default: all]
    #[arg(value_name = "PROJECT", add = ArgValueCompleter::new(complete::projects))]
    pub(crate) projects: Vec<String>,
}

/// How far machines are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// Healthy, or started where nobody looks
    Ready,
    /// They run
    Started,
    /// Their health checks say that they are well
    Healthy,
    /// They ended, and with 0
    Completed,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Only whether anything is wrong
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) only: Only,
}

/// One kind of thing, a line each.
#[derive(Debug, Args)]
#[group(multiple = false, conflicts_with = "quiet")]
pub(crate) struct Only {
    /// Only the names of the machines, those behind others that depend on them last
    #[arg(long, alias = "services")]
    pub(crate) machines: bool,
    /// Only what machines are made of
    #[arg(long)]
    pub(crate) images: bool,
    /// Only the names of the volumes
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Only the names of the networks
    #[arg(long)]
    pub(crate) networks: bool,
    /// Only the names of the profiles that would bring more machines
    #[arg(long)]
    pub(crate) profiles: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProjectPullArgs {
    /// Only those of these machines: `web`, `web*`
    #[arg(add = ArgValueCompleter::new(complete::project_machines))]
    pub(crate) machines: Vec<String>,
    /// Those of the machines that they depend on as well
    #[arg(long)]
    pub(crate) include_deps: bool,
    /// Only what is not here
    #[arg(long)]
    pub(crate) missing: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProjectBuildArgs {
    /// Only those of these machines: `web`, `web*`
    #[arg(add = ArgValueCompleter::new(complete::project_machines))]
    pub(crate) machines: Vec<String>,
    /// More values for their `ARG`s: `NAME=value`, or `NAME` as it is here
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Do all anew, whatever is known of earlier builds
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Pull the images that they start from anew
    #[arg(long)]
    pub(crate) pull: bool,
    /// Do not tell what is done
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Which machine there are to be how many of.
fn scale(text: &str) -> Result<(Name, u16), String> {
    let Some((name, count)) = text.split_once('=') else {
        return Err("it is a machine and how many there are to be, like `web=3`".to_owned());
    };
    let count = replicas(count).map_err(|(wrong, hint)| format!("{wrong}: {hint}"))?;
    Ok((named(name).map_err(|error| error.to_string())?, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_scaled_by_its_name_as_elsewhere_and_a_number_as_in_the_file() {
        assert_eq!(scale("My_Web=3"), Ok(("my-web".parse().unwrap(), 3)));
        assert_eq!(scale("web=0"), Ok(("web".parse().unwrap(), 0)));
        for (text, wrong) in [
            ("web", "like `web=3`"),
            ("web=many", "`many` is not a whole number"),
            ("web=101", "100"),
            ("=1", "a name cannot be empty"),
        ] {
            let told = scale(text).unwrap_err();
            assert!(told.contains(wrong), "{text}: {told}");
        }
    }
}

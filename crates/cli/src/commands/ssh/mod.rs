//! `ssh` and `ssh-config`: OpenSSH's own client, which reaches a machine by way of this program. There the way ends in an
//! sshd for one connection, started as any other program in the machine is: no address, no port and no rights are
//! needed, and nobody but who may do so anyway gets in.

mod config;
mod keys;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, anyhow};

use stead_host::home::{Environment, Home};
use stead_host::machine::{Client, Files};
use stead_model::name::MachineId;

use crate::args::{ExecArgs, Global, SshArgs, SshConfigArgs, Told};
use crate::failure::Failure;
use crate::output::raw;
use crate::session::{home, look};

use self::config::Reach;
use self::keys::{Keys, host_name};

pub(crate) use self::config::forget;

/// Becomes OpenSSH's client, for a machine.
pub(crate) fn ssh(global: &Global, args: &SshArgs) -> Result<ExitCode, Failure> {
    let (id, usual) = reachable(global, &args.machine).map_err(Failure::before_program)?;
    let user = args.user.as_deref().unwrap_or(&usual);
    let words = words(args, user, &id).map_err(|error| Failure::from(error).before_program())?;
    let error = Command::new("ssh").args(words).exec();
    let failure = match error.kind() {
        ErrorKind::NotFound => {
            anyhow!("there is no `ssh` here; hint: install OpenSSH's client (Debian: `openssh-client`)")
        }
        _ => anyhow::Error::new(error).context("cannot run `ssh`"),
    };
    Err(Failure::from(failure).before_program())
}

/// A machine that runs, and that we run; and as whom people log in unless they say otherwise.
fn reachable(global: &Global, pattern: &str) -> Result<(MachineId, String), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let id = super::machines::chosen_first(global, pattern, &seen)?;
    if Client::connect(&Files::new(host.home(), &id))?.is_none() {
        let what = format!("machine `{id}` does not run");
        return Err(Failure::request(&what, &format!("`stead start {id}`")));
    }
    let user = super::shell::user_to_work_as(&id, &seen).unwrap_or("root").to_owned();
    Ok((id, user))
}

/// What `ssh` is told: ours goes before the person's own settings, which hold for all else.
fn words(args: &SshArgs, user: &str, id: &MachineId) -> anyhow::Result<Vec<OsString>> {
    let reach = reach(&home()?)?;
    let mut words: Vec<OsString> = Vec::new();
    for (name, value) in reach.settings()? {
        words.extend(["-o".into(), format!("{name}={value}").into()]);
    }
    words.extend(["-l".into(), user.into(), host_name(id).into()]);
    words.extend(args.args.iter().cloned());
    Ok(words)
}

/// By what `ssh` reaches the machines of this home.
fn reach(home: &Home) -> anyhow::Result<Reach> {
    let keys = Keys::open(home)?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let variables = config::variables(&Environment::observe(), home);
    Ok(Reach { program, variables, identity: keys.identity(), known_hosts: keys.known_hosts() })
}

/// `ssh-config`.
pub(crate) fn config(args: &SshConfigArgs) -> Result<(), Failure> {
    let home = home()?;
    if args.remove {
        return forget(&home).map_err(Failure::from);
    }
    let text = reach(&home)?.block()?;
    match args.install {
        true => config::install(&Keys::open(&home)?.settings(), &text),
        false => raw(&text).map_err(Failure::from),
    }
}

/// What `ssh` runs to reach a machine: carries its connection to an sshd there.
pub(crate) fn proxy(global: &Global, host: &str, user: &str) -> Result<ExitCode, Failure> {
    let id = host.strip_suffix(".stead").and_then(|text| text.parse::<MachineId>().ok());
    let id = id.ok_or_else(|| {
        let what = format!("`{}` is the name of no machine", host.escape_debug());
        Failure::request(&what, "it is `<machine>.<project>.stead`, as in `dev.shop.stead`")
    })?;
    reachable(global, &id.to_string())?;
    let keys = Keys::open(&home()?)?;
    let env = [
        ("STEAD_HOST_KEY", keys.of_machine(&id)?),
        ("STEAD_IDENTITY", keys.public()?),
        ("STEAD_MACHINE", id.to_string()),
        ("STEAD_USER", user.to_owned()),
    ];
    // The others need not wait for the end of this connection.
    drop(keys);
    be_nobodys_login();
    let order = ExecArgs {
        detach: false,
        interactive: true,
        tty: false,
        no_tty: true,
        env: env.map(|(name, value)| format!("{name}={value}")).to_vec(),
        env_file: Vec::new(),
        workdir: Some("/".to_owned()),
        user: Some("0".to_owned()),
        privileged: false,
        login: false,
        told: Told::ButHangup,
        machine: id.to_string(),
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), include_str!("sshd.sh").to_owned()],
    };
    super::exec::exec(global, &order)
}

/// A process is said to be of who logged in here, and what it starts in a container, too; `pam_loginuid` then fails to say
/// otherwise there. Only root may unsay that: in others' containers it does not try.
fn be_nobodys_login() {
    let nobody = u32::MAX.to_string();
    if let Err(error) = std::fs::write("/proc/self/loginuid", nobody) {
        tracing::debug!("we stay the login that we are: {error}");
    }
}

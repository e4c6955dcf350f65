//! A container of the guest: made by the same runtime as those of the host, with file systems of the guest.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use stead_agent::MOUNTS;
use stead_agent::message::{Changed, Exec, Exited, Start};
use stead_agent::mux::{Channel, StreamId};
use stead_container::{ExecRequest, Failure, Place};
use stead_model::container::{Launch, Signal};
use stead_model::name::Name;

use crate::backlog::Backlog;
use crate::boot::mkdir;
use crate::process::{Process, Wish};

/// Where containers have their own directories.
const CONTAINERS: &str = "/run/stead/containers";

/// What is read of a process at once.
const READ_BYTES: usize = 16 * 1024;

/// A container that was started.
pub(crate) struct Container {
    pub(crate) launch: Launch,
    pub(crate) process: Process,
    pub(crate) backlog: Backlog,
    /// How it ended, once it has.
    pub(crate) exited: Option<Exited>,
    /// Who watches, and whether what that one sends is the container's input.
    pub(crate) attached: Option<(StreamId, bool)>,
    state: PathBuf,
    /// What it changed, and of what.
    upper: PathBuf,
    layers: Vec<PathBuf>,
}

impl Container {
    /// Makes it and starts its program.
    pub(crate) fn start(start: &Start, cgroups: &str) -> Result<Self, Failure> {
        let mut launch = start.launch.clone();
        // The guest's network is its own: these were set with those of the guest.
        crate::setup::sysctls(&std::mem::take(&mut launch.rights.sysctls))?;
        let place = Place { cgroup: format!("{cgroups}{}", start.container), ..place(start)? };
        let (state, upper, layers) = (place.state.clone(), place.upper.clone(), place.layers.clone());
        let wish = if launch.tty { Wish::Terminal(start.size) } else { Wish::Pipes { stdin: launch.stdin } };
        let process = Process::start(wish, |stdio| {
            let created = stead_container::create(&launch, &place, stdio)?;
            let pidfd = created.pidfd.try_clone().context("cannot share a descriptor")?;
            match created.start() {
                Ok(started) => Ok((started.pid, started.pidfd, started.terminal)),
                Err(failure) => {
                    // Its process has ended, or does now.
                    let _gone = stead_container::kill(pidfd.as_fd(), Signal::KILL);
                    let _buried = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                    Err(failure)
                }
            }
        });
        let process = process.inspect_err(|_| {
            if let Err(error) = stead_container::remove(&state) {
                eprintln!("stead-agent: {error:#}");
            }
        })?;
        Ok(Self {
            launch,
            process,
            backlog: Backlog::default(),
            exited: None,
            attached: None,
            state,
            upper,
            layers,
        })
    }

    /// Starts another process in it.
    pub(crate) fn exec(&self, exec: &Exec) -> Result<Process, Failure> {
        if self.exited.is_some() {
            return Err(Failure { code: 125, text: format!("`{}` does not run", exec.container) });
        }
        Process::start(Wish::of(exec), |stdio| {
            let request = ExecRequest {
                pid: self.process.pid,
                pidfd: self.process.pidfd.as_fd(),
                launch: &self.launch,
                state: &self.state,
                args: &exec.args,
                env: &exec.env,
                cwd: exec.cwd.as_deref(),
                user: exec.user.as_deref(),
                privileged: exec.privileged,
                login: exec.login,
                stdio,
            };
            let executed = stead_container::exec(&request)?;
            Ok((executed.pid, executed.pidfd, executed.terminal))
        })
    }

    /// Reads what it wrote, as far as that can be kept.
    pub(crate) fn read(&mut self, channel: Channel) {
        let mut buffer = [0; READ_BYTES];
        loop {
            let room = self.backlog.room().min(READ_BYTES);
            let length = self.process.read(channel, buffer.get_mut(..room).unwrap_or_default());
            match buffer.get(..length).filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => self.backlog.push(channel, bytes),
                None => return,
            }
        }
    }

    /// Its first process may have ended. Says how, if it has, once.
    pub(crate) fn reap(&mut self, name: &Name) -> Result<Option<Exited>> {
        if self.exited.is_some() {
            return Ok(None);
        }
        self.process.reap()?;
        let Some(code) = self.process.code else { return Ok(None) };
        let usage = stead_container::usage(&self.state, self.process.pid);
        let out_of_memory = usage.is_ok_and(|usage| usage.oom_kills.is_some_and(|kills| kills > 0));
        let exited = Exited { container: name.clone(), code, out_of_memory };
        self.exited = Some(exited.clone());
        // All that it left goes with it, or it could not be started again in the same place.
        stead_container::remove(&self.state).context("cannot clear away what is left of a container")?;
        Ok(Some(exited))
    }

    pub(crate) fn kill(&self, signal: Signal) -> Result<()> {
        if self.exited.is_some() {
            bail!("it does not run");
        }
        let signal = match signal == self.launch.stop_signal {
            true => stead_container::stop_signal(&self.launch, self.process.pid),
            false => signal,
        };
        stead_container::kill(self.process.pidfd.as_fd(), signal).map(drop)
    }

    /// What it changed of its image.
    pub(crate) fn changes(&self) -> Result<Vec<Changed>> {
        let [layer] = &self.layers[..] else { bail!("its image has more layers than one") };
        crate::changes::changes(&self.upper, layer)
    }

    /// The directory of its present run.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }
}

/// Where its parts are in this guest.
fn place(start: &Start) -> Result<Place> {
    let mounts = |name: &Name| Path::new(MOUNTS).join(name.as_str());
    let own = Path::new(CONTAINERS).join(start.container.as_str());
    let writable = match &start.writable {
        Some(name) => mounts(name).join("stead").join(start.container.as_str()),
        None => own.join("writable"),
    };
    let [upper, work, own_volumes] = ["upper", "work", "volumes"].map(|name| writable.join(name));
    let [root, state] = ["root", "state"].map(|name| own.join(name));
    for directory in [&upper, &work, &own_volumes, &root, &state] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make `{}`", directory.display()))?;
    }
    Ok(Place {
        layers: start.layers.iter().map(mounts).collect(),
        upper,
        is_passing: false,
        work,
        root,
        volumes: start.volumes.clone(),
        own_volumes,
        hosts: start.hosts.clone(),
        resolv_conf: start.resolv_conf.clone(),
        netns: File::open("/proc/self/ns/net").context("cannot open the guest's network")?.into(),
        cgroup: start.container.to_string(),
        state,
    })
}

/// Makes the directories that all containers need.
pub(crate) fn prepare() -> Result<()> {
    ["/run/stead", MOUNTS, CONTAINERS].iter().try_for_each(|path| mkdir(Path::new(path)))
}

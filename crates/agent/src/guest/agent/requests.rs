//! What can be asked of a guest, carried out.

use anyhow::{Context, Result};
use stead_agent::message::{Request, Usage, Word};
use stead_agent::mux::StreamId;
use stead_container::Failure;
use stead_model::name::Name;

use super::{Agent, Call, LIST_PART, Role};
use crate::boot::stage;
use crate::container::Container;
use crate::ending::Ending;
use crate::process::Process;
use crate::standstill::Hold;
use crate::{look, parcel};

impl Agent {
    /// Does what was asked, or begins to.
    pub(super) fn carry_out(&mut self, id: StreamId, request: Request) {
        let needs_mounts = matches!(request, Request::Exec(_) | Request::Read { .. } | Request::Write { .. });
        if let Some(lack) = self.lack.as_ref().filter(|_| needs_mounts) {
            return self.fail(id, &anyhow::anyhow!("{lack}").into());
        }
        if matches!(request, Request::ShutDown { .. }) {
            // Nothing ends that waits to write.
            self.standstill = None;
        }
        let done = match request {
            Request::Watch => return self.watch(id),
            Request::Start(wanted) => return self.start(id, &wanted),
            Request::Attach { container, stdin } => return self.attach(id, container, stdin),
            Request::Exec(wanted) => return self.exec(id, &wanted),
            Request::ShutDown { how, .. } if self.ground.role == Role::Service => {
                crate::computer::end(how).map(|()| Word::Done)
            }
            Request::ShutDown { how, grace_ms } => {
                self.ending = Some(Ending::begin(id, how, grace_ms, &self.containers));
                return;
            }
            Request::Read { container, path } => {
                return self.files(id, &container, |pid| parcel::start(parcel::PACK, pid, &[&path]));
            }
            Request::Write { container, path, keep_owners } => {
                let owners = if keep_owners { parcel::KEEP } else { parcel::OURS };
                return self
                    .files(id, &container, |pid| parcel::start(parcel::UNPACK, pid, &[&path, owners]));
            }
            Request::Processes(name) => return self.processes(id, &name),
            Request::Changes(name) => return self.changes(id, &name),
            Request::Usage(name) => self.usage(&name).map(Word::Usage),
            Request::Ports(name) => self.first_process(&name).map(|pid| Word::Ports(look::listeners(pid))),
            Request::SetUp(wanted) => self.set_up(&wanted),
            Request::Mount(wanted) => self.mount(&wanted),
            Request::Signal { container, signal } => {
                self.running(&container).and_then(|container| container.kill(signal)).map(|()| Word::Done)
            }
            Request::Pause(name) => self
                .running(&name)
                .and_then(|container| stead_container::pause(container.state()))
                .map(|()| Word::Done),
            Request::Unpause(name) => self
                .running(&name)
                .and_then(|container| stead_container::unpause(container.state()))
                .map(|()| Word::Done),
            Request::SetClock { time_ns } => crate::setup::set_clock(time_ns).map(|()| Word::Done),
            Request::Sync => {
                rustix::fs::sync();
                Ok(Word::Done)
            }
            Request::StandStill => {
                // What still stands could not be held again, and would go on when the older hold ends.
                self.standstill = None;
                Hold::begin().map(|hold| {
                    self.standstill = Some(hold);
                    Word::Done
                })
            }
            Request::GoOn => {
                self.standstill = None;
                Ok(Word::Done)
            }
        };
        match done {
            Ok(word) => self.finish(id, &word),
            Err(error) => self.fail(id, &error.into()),
        }
    }

    fn set_up(&mut self, wanted: &stead_agent::message::SetUp) -> Result<Word> {
        anyhow::ensure!(self.ground.role == Role::First, "this guest is not ours to set up");
        let mut reached = Vec::new();
        let done = crate::setup::set_up(wanted, |name| reached.push(stage(name)));
        for stage in reached {
            self.ground.stages.push(stage.clone());
            self.tell(&Word::Stage(stage));
        }
        done.map(|()| Word::Done)
    }

    /// Mounts what a whole computer has of its host. Until that is done nothing is run in it by us.
    fn mount(&mut self, wanted: &stead_agent::message::Mounts) -> Result<Word> {
        anyhow::ensure!(self.ground.role == Role::Service, "in this guest containers have mounts");
        let done = crate::mounts::mount(wanted);
        self.lack = done.as_ref().err().map(|error| format!("{error:#}"));
        if done.is_ok() {
            self.reach("disks");
        }
        done.map(|()| Word::Done)
    }

    fn running(&self, name: &Name) -> Result<&Container> {
        let container =
            self.containers.get(name).with_context(|| format!("there is no container `{name}`"))?;
        anyhow::ensure!(container.exited.is_none(), "`{name}` does not run");
        Ok(container)
    }

    fn watch(&mut self, id: StreamId) {
        self.calls.insert(id, Call::Watch);
        let stages = self.ground.stages.clone().into_iter().map(Word::Stage);
        for word in stages.chain(self.exits.clone().into_iter().map(Word::Exited)).collect::<Vec<_>>() {
            self.say(id, &word);
        }
    }

    fn start(&mut self, id: StreamId, wanted: &stead_agent::message::Start) {
        let name = &wanted.container;
        if self.ending.is_some() || self.containers.get(name).is_some_and(|old| old.exited.is_none()) {
            let why = if self.ending.is_some() { "this guest is about to end" } else { "it runs already" };
            return self.fail(id, &anyhow::anyhow!("cannot start `{name}`: {why}").into());
        }
        if let Some(old) = self.containers.remove(name)
            && let Some((watcher, _)) = old.attached
        {
            self.break_off(watcher, "the container is started anew");
        }
        match Container::start(wanted, &self.ground.cgroups) {
            Ok(container) => {
                let pid = container.process.pid;
                self.containers.insert(name.clone(), container);
                self.reach("started");
                self.finish(id, &Word::Started { pid });
            }
            Err(failure) => self.fail(id, &failure),
        }
    }

    fn attach(&mut self, id: StreamId, name: Name, stdin: bool) {
        let Some(container) = self.containers.get_mut(&name) else {
            return self.fail(id, &anyhow::anyhow!("there is no container `{name}`").into());
        };
        container.backlog.rewind();
        let tty = container.process.has_terminal();
        let former = container.attached.replace((id, stdin));
        self.calls.insert(id, Call::Attach(name));
        if let Some((former, _)) = former {
            self.calls.remove(&former);
            self.mux.reset(former, "somebody else watches now");
        }
        self.say(id, &Word::Attached { tty });
    }

    fn exec(&mut self, id: StreamId, wanted: &stead_agent::message::Exec) {
        let name = &wanted.container;
        let done = match self.containers.get(name) {
            _ if self.ground.role == Role::Service => crate::computer::exec(wanted),
            Some(container) => container.exec(wanted),
            None => Err(anyhow::anyhow!("there is no container `{name}`").into()),
        };
        match done {
            Ok(process) if wanted.detached => {
                self.say(id, &Word::Started { pid: process.pid });
                self.finish(id, &Word::Done);
                self.left.push(process);
            }
            Ok(process) => {
                self.say(id, &Word::Started { pid: process.pid });
                self.calls.insert(id, Call::Exec { container: name.clone(), process });
            }
            Err(failure) => self.fail(id, &failure),
        }
    }

    /// The first process of a container, or of the whole computer in which we are a service.
    fn first_process(&self, name: &Name) -> Result<u32> {
        match self.ground.role {
            Role::Service => Ok(1),
            Role::First | Role::Beside => Ok(self.running(name)?.process.pid),
        }
    }

    fn usage(&self, name: &Name) -> Result<Usage> {
        if self.ground.role == Role::Service {
            return look::usage_here();
        }
        let container = self.running(name)?;
        look::usage(container.state(), container.process.pid)
    }

    fn files(&mut self, id: StreamId, name: &Name, start: impl FnOnce(&str) -> Result<Process, Failure>) {
        let pid = self.first_process(name).map_err(Failure::from);
        match pid.and_then(|pid| start(&pid.to_string())) {
            Ok(process) => drop(self.calls.insert(id, Call::Files { process, error: Vec::new() })),
            Err(failure) => self.fail(id, &failure),
        }
    }

    fn changes(&mut self, id: StreamId, name: &Name) {
        match self.running(name).and_then(Container::changes) {
            Ok(found) => {
                for part in found.chunks(LIST_PART) {
                    self.say(id, &Word::Changes(part.to_vec()));
                }
                self.finish(id, &Word::Done);
            }
            Err(error) => self.fail(id, &error.into()),
        }
    }

    fn processes(&mut self, id: StreamId, name: &Name) {
        let found = match self.ground.role {
            Role::Service => look::processes_here(),
            Role::First | Role::Beside => self
                .running(name)
                .and_then(|container| look::processes(container.state(), container.process.pid)),
        };
        match found {
            Ok(found) => {
                for part in found.chunks(LIST_PART) {
                    self.say(id, &Word::Processes(part.to_vec()));
                }
                self.finish(id, &Word::Done);
            }
            Err(error) => self.fail(id, &error.into()),
        }
    }
}

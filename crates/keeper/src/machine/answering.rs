//! What clients of a keeper ask and type, and what they are answered.

use std::time::Instant;

use anyhow::Result;

use stead_agent::Call;
use stead_host::frame::Frame;
use stead_host::home::remove_if_there;
use stead_host::machine::{Answer, Attached, Look, Phase, Request, Status};

use super::Keeper;
use super::clients::{Client, Role, Said};
use super::guest::Guest;

/// Why one that is held for somebody does not go on.
const BUSY: &str = "a snapshot of it is being taken";

impl Keeper {
    pub(super) fn client_of(&mut self, call: Call) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| [Role::Exec(call), Role::Looking(call)].contains(&client.role))
    }

    pub(super) fn hear(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        client.send();
        // It may be here for what it reads: what it types waits where it is, unless it is the last of it.
        if !client.has_typed_enough(&self.life) || client.has_hung_up() {
            client.receive();
        }
        while let Some(said) = self.clients.get_mut(place).and_then(Client::next) {
            match said {
                Said::Request(request) => self.answer(place, request),
                Said::Frame(frame, bytes) => self.typed(place, frame, &bytes),
                Said::Nonsense => {
                    if let Some(client) = self.clients.get_mut(place) {
                        client.answer(&Answer::Failed("this is no request".to_owned()));
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn typed(&mut self, place: usize, frame: Frame, bytes: &[u8]) {
        if let Some(Role::Exec(call)) = self.clients.get(place).map(|client| client.role) {
            return self.typed_for(call, frame, bytes);
        }
        if self.clients.get(place).is_some_and(|client| client.role == Role::Console) {
            return self.typed_at_console(place, frame, bytes);
        }
        let may_type =
            self.clients.get(place).is_some_and(|c| matches!(c.role, Role::Attached { stdin: true, .. }));
        match frame {
            Frame::Input if may_type => self.life.take_input(bytes),
            Frame::InputEnd if may_type => self.life.end_input(),
            Frame::Size => self.life.resize(bytes),
            Frame::Input | Frame::InputEnd | Frame::Output | Frame::Error | Frame::Exit | Frame::Signal => {}
        }
    }

    /// What a client sends to the program that it started in a guest.
    pub(super) fn typed_for(&mut self, call: Call, frame: Frame, bytes: &[u8]) {
        let Some(guest) = self.life.guest_mut() else { return };
        match frame {
            Frame::Input => guest.input(call, bytes),
            Frame::InputEnd => guest.end_input(call),
            Frame::Size => guest.resize(call, bytes),
            Frame::Signal => {
                let signal = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
                signal.into_iter().for_each(|signal| guest.signal_exec(call, signal));
            }
            Frame::Output | Frame::Error | Frame::Exit => {}
        }
    }

    fn typed_at_console(&mut self, place: usize, frame: Frame, bytes: &[u8]) {
        match (frame, self.life.guest_mut(), self.clients.get_mut(place)) {
            (Frame::Input, Some(guest), _) => guest.console.take(bytes),
            (Frame::InputEnd, _, Some(client)) => client.end(),
            _ => {}
        }
    }

    pub(super) fn answer(&mut self, place: usize, request: Request) {
        let status = Answer::Status(self.status());
        if matches!(request, Request::Attach { .. }) {
            self.log.flush();
        }
        let (log_file, log_length) = self.log.position();
        let is_held_by_one = self.clients.iter().any(|client| matches!(client.role, Role::Holding { .. }));
        let Some(client) = self.clients.get_mut(place) else { return };
        let done = |result: Result<()>| match result {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed(format!("{error:#}")),
        };
        match request {
            Request::Status => client.answer(&status),
            Request::Signal(signal) => client.answer(&done(self.life.signal(signal))),
            Request::Pause => client.await_order(self.life.pause()),
            Request::Unpause if is_held_by_one => client.answer(&Answer::Failed(BUSY.to_owned())),
            Request::Unpause => client.await_order(self.life.unpause()),
            Request::Hold => self.hold(place),
            Request::Stop(how) => {
                client.role = Role::StopWait;
                if !how.with_computer
                    && let Err(error) = std::fs::write(self.files.stopping(), "")
                {
                    tracing::warn!("cannot leave a mark that it is to end: {error}");
                }
                self.life.stop(how);
            }
            Request::Restart { grace_ms, is_cold } => {
                (client.role, client.since) = (Role::RestartWait, Instant::now());
                if let Err(error) = remove_if_there(&self.files.stopping()) {
                    tracing::warn!("{error:#}");
                }
                self.life.restart(grace_ms, is_cold);
            }
            Request::Rename { to } => self.rename(place, &to),
            Request::Exec(exec) => {
                let tty = exec.tty.is_some();
                self.begin_call(place, Attached { tty, log_file, log_length }, |guest| guest.exec(&exec));
            }
            Request::Read { path } => {
                self.begin_call(place, Attached { tty: false, log_file, log_length }, |guest| {
                    guest.read(path)
                });
            }
            Request::Write { path, keep_owners } => {
                let attached = Attached { tty: false, log_file, log_length };
                self.begin_call(place, attached, |guest| guest.write(path, keep_owners));
            }
            Request::Look(what) => self.look(place, what),
            Request::Console => {
                let history = self.life.guest_mut().map(|guest| guest.console.history());
                let Some(history) = history else {
                    client.answer(&Answer::Failed(
                        "it has no console: it is a container, or waits to be started again".to_owned(),
                    ));
                    return;
                };
                client.tell(&Answer::Attached(Attached { tty: true, log_file, log_length }));
                client.role = Role::Console;
                client.frame(Frame::Output, &history);
            }
            Request::Await(condition) => client.role = Role::Awaiting(condition),
            Request::Attach { stdin, is_waited_for } => {
                let tty = self.life.has_terminal();
                client.tell(&Answer::Attached(Attached { tty, log_file, log_length }));
                client.role = Role::Attached { stdin, is_waited_for };
            }
        }
    }

    /// Holds it for as long as a client is there.
    fn hold(&mut self, place: usize) {
        let lets_go = self.life.phase() == Phase::Running;
        let held = if lets_go { self.life.pause() } else { self.life.ensure_held().map(|()| None) };
        let Some(client) = self.clients.get_mut(place) else { return };
        match held {
            Ok(ticket) => {
                client.role = Role::Holding { ticket, lets_go };
                if ticket.is_none() {
                    client.tell(&Answer::Done);
                }
            }
            Err(error) => client.answer(&Answer::Failed(format!("{error:#}"))),
        }
    }

    /// Begins to look into the guest for a client.
    fn look(&mut self, place: usize, what: Look) {
        let begun = self.life.in_guest(|guest| guest.look_into(what));
        let Some(client) = self.clients.get_mut(place) else { return };
        match begun {
            Ok(call) => client.role = Role::Looking(call),
            Err(error) => client.answer(&Answer::Failed(format!("{error:#}"))),
        }
    }

    /// Begins what goes on in the guest while its client carries bytes.
    fn begin_call(
        &mut self,
        place: usize,
        attached: Attached,
        begin: impl FnOnce(&mut Guest) -> Result<Call>,
    ) {
        let begun = self.life.in_guest(begin);
        let Some(client) = self.clients.get_mut(place) else { return };
        match begun {
            Ok(call) => {
                client.tell(&Answer::Attached(attached));
                client.role = Role::Exec(call);
            }
            Err(error) => client.answer(&Answer::Failed(format!("{error:#}"))),
        }
    }

    /// Its guest has ended: nothing more comes of what went on there.
    pub(super) fn forget_calls(&mut self) {
        if self.life.guest_mut().is_some() {
            return;
        }
        for client in &mut self.clients {
            match client.role {
                Role::Looking(_) => client.answer(&Answer::Failed("it ended".to_owned())),
                Role::Exec(_) => client.end(),
                Role::Asking
                | Role::StopWait
                | Role::RestartWait
                | Role::Ordered(_)
                | Role::Holding { .. }
                | Role::Awaiting(_)
                | Role::Console
                | Role::Attached { .. } => {}
            }
        }
    }

    /// Hears what the VMM has to say, and tells those who wait for that.
    pub(super) fn hear_control(&mut self) {
        for (ticket, _, result) in self.life.hear_control() {
            let told = result.map_or_else(Answer::Failed, |()| Answer::Done);
            for client in &mut self.clients {
                if client.role == Role::Ordered(ticket) {
                    client.answer(&told);
                } else if let Role::Holding { ticket: own, .. } = &mut client.role
                    && *own == Some(ticket)
                {
                    *own = None;
                    client.tell(&told);
                }
            }
        }
    }

    /// Answers those whose time has come.
    pub(super) fn answer_waiting(&mut self) {
        let phase = self.life.phase();
        let runs_since = self.life.runs_since();
        for client in &mut self.clients {
            match client.role {
                Role::RestartWait
                    if phase == Phase::Running && runs_since.is_some_and(|at| at >= client.since) =>
                {
                    client.answer(&Answer::Done);
                }
                Role::Awaiting(condition) => match self.life.has_reached(condition) {
                    Some(Ok(())) => client.answer(&Answer::Done),
                    Some(Err(why)) => client.answer(&Answer::Failed(why)),
                    None => {}
                },
                Role::RestartWait
                | Role::Asking
                | Role::StopWait
                | Role::Ordered(_)
                | Role::Holding { .. }
                | Role::Looking(_)
                | Role::Console
                | Role::Attached { .. }
                | Role::Exec(_) => {}
            }
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            init: self.life.init_process(),
            phase: self.life.phase(),
            started_ms: self.life.started_ms(),
            restarts: self.life.restarts(),
            health: self.life.health(),
            tests: self.life.tests(),
            stages: self.life.stages(),
        }
    }
}

//! `console`: a person at the serial line of a machine's guest.

use std::io::IsTerminal;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};

use stead_host::frame::Frame;
use stead_host::log::Stream;
use stead_host::machine::{Answer, Client, Files, Request};

use super::attach::{Raw, Typed, carry_input, write_to};
use crate::args::{ConsoleArgs, Global};
use crate::failure::Failure;
use crate::session::look;

/// Carries the console until the person leaves, or the guest ends.
pub(crate) fn console(global: &Global, args: &ConsoleArgs) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let id = super::machines::chosen_first(global, &args.machine, &seen)?;
    if !super::guest::is_guest(&id, &seen) {
        let what = format!("`{id}` has no console: it shares this computer's kernel");
        return Err(Failure::request(&what, &format!("`stead attach {id}`, or `stead logs {id}`")));
    }
    let Some(mut client) = Client::connect(&Files::new(host.home(), &id))? else {
        let what = format!("machine `{id}` does not run");
        return Err(Failure::request(&what, &format!("`stead start {id}`")));
    };
    match client.ask(&Request::Console, Some(Duration::ZERO))? {
        Answer::Attached(_) => {}
        Answer::Failed(why) => return Err(anyhow!(why).context(format!("machine `{id}`")).into()),
        other => return Err(anyhow!("the keeper answered {other:?}").into()),
    }
    let mut stream = client.into_stream()?;
    let writer = Arc::new(Mutex::new(stream.get_ref().try_clone().context("cannot share the connection")?));
    let is_person = std::io::stdin().is_terminal();
    let _raw = Raw::new()?;
    std::thread::spawn(move || {
        if carry_input(&writer, is_person) == Typed::Left {
            let _gone = writer.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both);
        }
    });
    while let Some((frame, bytes)) = Frame::read(&mut stream).context("cannot hear the keeper")? {
        if frame == Frame::Output {
            write_to(Stream::Output, &bytes)?;
        }
    }
    Ok(())
}

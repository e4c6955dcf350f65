//! Watching a machine: its output as it comes, what is typed, the size of the terminal, signals, and its exit code.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Seek, SeekFrom, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use stead_host::frame::Frame;
use stead_host::log::{Stream, numbers, parse_line};
use stead_host::machine::{Answer, Attached, Client, Exec, Exit, Files, HeldFiles, Request};
use stead_model::container::Signal;
use stead_model::project::Condition;

use crate::args::Told;
use crate::session::Session;

/// What a person types to leave a machine that goes on: Ctrl-P, Ctrl-Q.
const DETACH: [u8; 2] = [0x10, 0x11];

/// A keeper goes when those who watch have read its last words.
const KEEPER_LIMIT: Duration = Duration::from_secs(10);

/// How one watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    /// Whether what is typed here is the machine's standard input.
    pub(crate) stdin: bool,
    /// Whether what the machine wrote before is shown first, and from where in its log.
    pub(crate) replay: Option<LogPlace>,
    /// Whether signals that this command gets are sent on to the machine.
    pub(crate) signals: bool,
    /// Whether the machine was started for us, and waits as long as we take to read.
    pub(crate) is_waited_for: bool,
}

/// A place in a machine's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogPlace {
    /// The number of the file.
    file: u64,
    /// How much of it is before.
    length: u64,
}

/// Where a machine's log ends by now.
pub(crate) fn log_end(files: &Files) -> Result<LogPlace> {
    let directory = files.log();
    let doing = || format!("cannot read the log in {}", directory.display());
    let Some(file) = numbers(&directory).with_context(doing)?.pop() else { return Ok(LogPlace::default()) };
    let length = match std::fs::metadata(directory.join(stead_host::log::file_name(file))) {
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        metadata => metadata.with_context(doing)?.len(),
    };
    Ok(LogPlace { file, length })
}

/// How watching ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// The machine ended.
    Ended(Exit),
    /// The person left; the machine goes on.
    Left,
}

/// Watches a machine until it ends, or the person leaves.
pub(crate) fn watch(files: &Files, how: Watch) -> Result<Watched> {
    watch_held(files, how, ())
}

/// The same; what keeps the machine from being taken away is let go when we have got hold of it, or of all that it left.
pub(crate) fn watch_held(files: &Files, how: Watch, keeps: impl Sized) -> Result<Watched> {
    // Before anything is seen of the machine: what a person sends because of that is for the machine, not for us.
    let signals = listen(how.signals)?;
    // It may get another name, and another machine this one, while it is watched.
    let files = Arc::new(files.hold_all());
    let Some(mut client) = Client::connect(&files)? else { return ended_before(&files, how, keeps) };
    let request = Request::Attach { stdin: how.stdin, is_waited_for: how.is_waited_for };
    let attached = match client.ask(&request, Some(Duration::ZERO)) {
        Ok(Answer::Attached(attached)) => attached,
        Ok(Answer::Failed(why)) => bail!("{why}"),
        Ok(other) => bail!("the keeper answered {other:?}"),
        // It ended just now.
        Err(_) if files.keeper()?.is_none() => return ended_before(&files, how, keeps),
        Err(error) => return Err(error),
    };
    drop(keeps);
    if let Some(from) = how.replay {
        replay(&files, from, &attached)?;
    }
    let mut stream = client.into_stream()?;
    let writer = Arc::new(Mutex::new(stream.get_ref().try_clone().context("cannot share the connection")?));
    let _raw = if attached.tty && how.stdin { Raw::new()? } else { None };
    if attached.tty {
        send_size(&writer);
    }
    let has_left = Arc::new(AtomicBool::new(false));
    if how.stdin {
        let (writer, tty, has_left) = (Arc::clone(&writer), attached.tty, Arc::clone(&has_left));
        std::thread::spawn(move || {
            if carry_input(&writer, tty) == Typed::Left {
                has_left.store(true, Ordering::Release);
                let _gone = writer.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both);
            }
        });
    }
    carry_signals(signals, &writer, Arc::clone(&files), attached.tty);
    loop {
        match Frame::read(&mut stream) {
            Ok(Some((Frame::Output, bytes))) => write_to(Stream::Output, &bytes)?,
            Ok(Some((Frame::Error, bytes))) => write_to(Stream::Error, &bytes)?,
            Ok(Some((Frame::Exit, bytes))) => {
                let exit = serde_json::from_slice(&bytes).context("cannot read how the machine ended")?;
                return Ok(Watched::Ended(exit));
            }
            Ok(Some((Frame::Input | Frame::InputEnd | Frame::Size | Frame::Signal, _))) => {
                bail!("the keeper sent what is ours to send")
            }
            Ok(None) => return gone(&files, &has_left),
            // In the middle of a frame.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return gone(&files, &has_left),
            Err(error) => return Err(error).context("cannot hear the keeper"),
        }
    }
}

/// Nothing more comes: we closed it ourselves, the keeper let us go, or it died.
fn gone(files: &Files, has_left: &AtomicBool) -> Result<Watched> {
    if has_left.load(Ordering::Acquire) {
        return Ok(Watched::Left);
    }
    if files.keeper()?.is_some() {
        bail!(
            "the machine wrote more than was read here, and waits no longer; hint: `stead logs` has what is missing"
        );
    }
    bail!("the machine's keeper was killed; hint: `stead ps` tells what became of the machine")
}

/// Has a keeper start another program in its machine, and stays until that ends.
pub(crate) fn execute(mut client: Client, order: Exec, told: Told) -> Result<Exit> {
    let stdin = order.stdin;
    let tty = order.tty.is_some();
    // Before it starts: none of those that it is to be told is missed, or ends us and leaves it.
    let wanted = [SIGWINCH, SIGHUP, SIGINT, SIGQUIT, SIGTERM];
    let mut signals = Signals::new(wanted).context("cannot listen for signals")?;
    match client.ask(&Request::Exec(Box::new(order)), Some(Duration::ZERO))? {
        Answer::Attached(_) => {}
        Answer::Failed(why) => bail!("{why}"),
        other => bail!("the keeper answered {other:?}"),
    }
    let mut stream = client.into_stream()?;
    let writer = Arc::new(Mutex::new(stream.get_ref().try_clone().context("cannot share the connection")?));
    let _raw = if tty && stdin { Raw::new()? } else { None };
    if tty {
        send_size(&writer);
    }
    if stdin {
        let writer = Arc::clone(&writer);
        std::thread::spawn(move || carry_input(&writer, false));
    }
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGWINCH {
                send_size(&writer);
            } else if let Some(signal) = told.of(signal) {
                drop(send(&writer, Frame::Signal, signal.to_string().as_bytes()));
            }
        }
    });
    loop {
        match Frame::read(&mut stream).context("cannot hear the keeper")? {
            Some((Frame::Output, bytes)) => write_to(Stream::Output, &bytes)?,
            Some((Frame::Error, bytes)) => write_to(Stream::Error, &bytes)?,
            Some((Frame::Exit, bytes)) => {
                return serde_json::from_slice(&bytes).context("cannot read how the program ended");
            }
            Some((Frame::Input | Frame::InputEnd | Frame::Size | Frame::Signal, _)) => {
                bail!("the keeper sent what is ours to send")
            }
            None => bail!("the machine ended"),
        }
    }
}

/// How a machine ended, when it has.
pub(crate) fn outlast(files: &Files) -> Result<Exit> {
    let files = &*files.hold_all();
    let keeper = files.keeper()?;
    if let Some(mut client) = Client::connect(files)? {
        // However it ended, or the keeper did: what is on record is what counts.
        let _ended = client.ask(&Request::Await(Condition::Completed), None);
    }
    if let Some(keeper) = keeper {
        keeper.wait_gone(KEEPER_LIMIT)?;
    }
    if let Some(exit) = files.load_exit() {
        return Ok(exit);
    }
    // Its keeper was killed: the next one to change the home writes that down, which may be we.
    drop(Session::open()?);
    files.load_exit().context("nobody knows how it ended")
}

/// Waits for the end of a machine that was killed: not for long, as one that is held ends when it goes on.
pub(crate) fn await_end(files: &Files) -> Result<()> {
    files.keeper()?.map_or(Ok(()), |keeper| keeper.wait_gone(KEEPER_LIMIT).map(drop))
}

/// A machine that has no keeper any more: its log, and how it ended.
fn ended_before(files: &Files, how: Watch, keeps: impl Sized) -> Result<Watched> {
    let pieces = how.replay.map(|from| pieces(files, from, None)?.collect::<Result<Vec<_>>>()).transpose()?;
    let exit = files.load_exit();
    // Whoever reads what we write may take their time. What is open stays to be read.
    drop(keeps);
    pieces.into_iter().flatten().try_for_each(Piece::replay)?;
    match exit {
        Some(exit) => Ok(Watched::Ended(exit)),
        None => bail!("it does not run"),
    }
}

/// Writes what the log has from a place on, up to where the frames begin, as the machine wrote it.
fn replay(files: &Files, from: LogPlace, until: &Attached) -> Result<()> {
    pieces(files, from, Some(until))?.try_for_each(|piece| piece?.replay())
}

/// A part of a log.
struct Piece {
    file: File,
    /// How long it is; to the end of the file where nothing is said.
    length: Option<u64>,
}

/// The parts of the log from a place on, in order, up to where the frames begin. Each is opened when it is its turn.
fn pieces(
    files: &Files,
    from: LogPlace,
    until: Option<&Attached>,
) -> Result<impl Iterator<Item = Result<Piece>>> {
    let directory = files.log();
    let doing = format!("cannot read the log in {}", directory.display());
    let end = until.map(|until| (until.log_file, until.log_length));
    let mut numbers = numbers(&directory).with_context(|| doing.clone())?;
    numbers.retain(|number| *number >= from.file && end.is_none_or(|(last, _)| *number <= last));
    Ok(numbers.into_iter().filter_map(move |number| {
        let file = match File::open(directory.join(stead_host::log::file_name(number))) {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            file => file,
        };
        let before = if number == from.file { from.length } else { 0 };
        let length = end.filter(|(last, _)| *last == number).map(|(_, length)| length.saturating_sub(before));
        let sought = file.and_then(|mut file| file.seek(SeekFrom::Start(before)).map(|_| file));
        Some(sought.map(|file| Piece { file, length }).with_context(|| doing.clone()))
    }))
}

impl Piece {
    fn read(self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut file = self.file.take(self.length.unwrap_or(u64::MAX));
        file.read_to_end(&mut text).context("cannot read the log")?;
        Ok(text)
    }

    fn replay(self) -> Result<()> {
        let text = self.read()?;
        for line in text.split(|byte| *byte == b'\n').filter_map(parse_line) {
            write_to(line.stream, line.bytes)?;
            if line.is_whole {
                write_to(line.stream, b"\n")?;
            }
        }
        Ok(())
    }
}

pub(super) fn write_to(stream: Stream, bytes: &[u8]) -> Result<()> {
    match stream {
        Stream::Output => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write to standard output")
        }
        Stream::Error => std::io::stderr().lock().write_all(bytes).context("cannot write to standard error"),
    }
}

type Writer = Arc<Mutex<UnixStream>>;

fn send(writer: &Writer, frame: Frame, bytes: &[u8]) -> std::io::Result<()> {
    frame.write(&mut *writer.lock().unwrap_or_else(PoisonError::into_inner), bytes)
}

/// How what is typed came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Nothing more comes.
    Ended,
    /// The person leaves.
    Left,
}

/// Carries what is typed.
pub(super) fn carry_input(writer: &Writer, tty: bool) -> Typed {
    let mut buffer = [0; 16 * 1024];
    let mut held = Vec::new();
    loop {
        let length = match std::io::stdin().read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        let typed = buffer.get(..length).unwrap_or_default();
        if typed.is_empty() {
            let _gone = send(writer, Frame::InputEnd, &[]);
            return Typed::Ended;
        }
        let (bytes, leaves) = if tty { without_detach(&mut held, typed) } else { (typed.to_vec(), false) };
        if !bytes.is_empty() && send(writer, Frame::Input, &bytes).is_err() {
            return Typed::Ended;
        }
        if leaves {
            return Typed::Left;
        }
    }
}

/// What of the typed goes to the machine, and whether the person leaves. The first key of the two is held until
/// the next one tells what it was.
fn without_detach(held: &mut Vec<u8>, typed: &[u8]) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    for byte in typed {
        held.push(*byte);
        if *held == DETACH {
            held.clear();
            return (bytes, true);
        }
        if !DETACH.starts_with(held) {
            bytes.append(held);
        }
    }
    (bytes, false)
}

/// Listens for what is to be carried; until it is, it waits.
fn listen(signals: bool) -> Result<Signals> {
    let mut wanted = vec![SIGWINCH];
    if signals {
        wanted.extend([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2]);
    }
    Signals::new(wanted).context("cannot listen for signals")
}

/// Carries signals and the size of the terminal.
fn carry_signals(mut signals: Signals, writer: &Writer, files: Arc<HeldFiles>, tty: bool) {
    let writer = Arc::clone(writer);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGWINCH {
                if tty {
                    send_size(&writer);
                }
                continue;
            }
            let request = signal.to_string().parse::<Signal>().map(Request::Signal);
            if let (Ok(request), Ok(Some(mut client))) = (request, Client::connect(&files)) {
                // It may just have ended, which is what the person wanted.
                let _ended = client.ask(&request, Some(Duration::ZERO));
            }
        }
    });
}

fn send_size(writer: &Writer) {
    let Ok(size) = tcgetwinsize(std::io::stdout()) else { return };
    let bytes = [size.ws_row.to_be_bytes(), size.ws_col.to_be_bytes()].concat();
    let _gone = send(writer, Frame::Size, &bytes);
}

/// A terminal that passes on every key as it is, until this is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Nothing if standard input is no terminal.
    pub(crate) fn new() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin.as_fd()).context("cannot look at the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).context("cannot set the terminal")?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _gone = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_leave_and_one_of_them_alone_is_typed() {
        let mut held = Vec::new();
        assert_eq!(without_detach(&mut held, b"ab"), (b"ab".to_vec(), false));
        assert_eq!(without_detach(&mut held, b"c\x10"), (b"c".to_vec(), false));
        assert_eq!(without_detach(&mut held, b"d"), (b"\x10d".to_vec(), false));
        assert_eq!(without_detach(&mut held, b"\x10\x10"), (b"\x10\x10".to_vec(), false));
        held.clear();
        assert_eq!(without_detach(&mut held, b"e\x10\x11f"), (b"e".to_vec(), true));
    }

    #[test]
    fn all_of_an_ended_machine_is_in_hand_before_it_may_be_taken_away() {
        /// Takes the machine away as soon as that may be.
        struct Reaper<'a>(&'a Files);
        impl Drop for Reaper<'_> {
            fn drop(&mut self) {
                std::fs::remove_dir_all(&self.0.state).unwrap();
            }
        }
        let home = tempfile::tempdir().unwrap();
        let files = Files { state: home.path().join("state"), run: home.path().join("run") };
        let write = |path: &std::path::Path, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let exit = r#"{"code": 7, "at_ms": 2, "started_ms": 1, "asked": false, "out_of_memory": false}"#;
        write(&files.exit(), exit);
        // Of a text without an end nothing is seen here.
        write(&files.log().join(stead_host::log::file_name(0)), "T stdout P \n");
        let read: Vec<Result<Piece>> = pieces(&files, LogPlace::default(), None).unwrap().collect();
        let how =
            Watch { stdin: false, replay: Some(LogPlace::default()), signals: false, is_waited_for: true };
        let Watched::Ended(exit) = ended_before(&files, how, Reaper(&files)).unwrap() else { panic!() };
        assert_eq!(exit.code, 7);
        let texts: Vec<Vec<u8>> = read.into_iter().map(|piece| piece.unwrap().read().unwrap()).collect();
        assert_eq!(texts, [b"T stdout P \n"]);
    }
}

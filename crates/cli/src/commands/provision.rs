//! Scripts of `provision:` are run in machines, each by a process of its own, which is this program:
//!
//! ```text
//! stead up ──order──▶ stead __provision: waits for the machine, tells what is written, remembers that it succeeded
//!                        └──order, script──▶ stead __exec: becomes what `stead exec` is, with a script as its input
//! ```
//! When `up` alone is killed the script comes to its end all the same. When the second is killed, as by Ctrl-C, which a
//! terminal tells to all three, the third ends what it runs.

use std::collections::VecDeque;
use std::fs::TryLockError;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use stead_host::held::{is_guest, write_out};
use stead_host::home::Home;
use stead_host::linux::{Order, provisioned, remember};
use stead_host::lock;
use stead_host::machine::{Files, Look, Phase, Status, status};
use stead_model::name::MachineId;
use stead_model::provision::Script;

use crate::args::{ExecArgs, Global, ProvisionCommand, Told};
use crate::failure::Failure;
use crate::output::{note, raw};

/// Between looks whether the machine is so far: short beside what that takes, and cheap.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A vm that is started for the first time, without KVM, has come up by then.
const COMES_UP_WITHIN: Duration = Duration::from_secs(900);

/// What a failure tells of what the script wrote.
const LAST_LINES: usize = 20;

/// A longer line is told in pieces.
const LINE_MAX_BYTES: u64 = 4096;

/// Lines that were read and not yet told.
const WORDS_UNDER_WAY: usize = 64;

/// What a script wrote before it ended comes without a pause. What it left behind may hold its output open for ever.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(200);

/// And it may write for ever as well. A slow terminal takes what a pipe holds by then.
const LAST_WORDS_ALL_LIMIT: Duration = Duration::from_secs(5);

/// Does its part in running a script.
pub(crate) fn run(global: &Global, part: &ProvisionCommand) -> Result<ExitCode, Failure> {
    match part {
        ProvisionCommand::Script => provision(),
        ProvisionCommand::Exec { parent } => execute(global, *parent),
    }
}

/// Runs the script that standard input names. Why that failed is said on standard output, to the command that wants it.
fn provision() -> Result<ExitCode, Failure> {
    let order = || -> Result<Order> {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).context("cannot hear what is to be run")?;
        serde_json::from_slice(&text).context("cannot read what is to be run")
    };
    match order().and_then(|order| carry_out(&crate::session::home()?, &order)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            raw(&format!("{error:#}\n"))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn carry_out(home: &Home, order: &Order) -> Result<()> {
    let id = &order.machine;
    let files = Files::new(home, id);
    let held = files.hold().context("the machine is gone")?;
    // One at a time, also after a command that was killed.
    match held.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            note(&format!("waiting for a script that another command runs in `{id}`"));
            held.lock().context("cannot lock the machine")?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the machine"),
    }
    // While another script was waited for it may have become another machine.
    anyhow::ensure!(files.are_of(&held), "the machine was removed meanwhile; hint: say `stead up` again");
    if provisioned(home, id, &order.provision.id)? {
        return Ok(());
    }
    let before = come_up(home, id)?;
    // Whatever comes of it: if that is no good, the script says so.
    run_script(id, &Script::that_waits())?;
    let (code, lines) = run_script(id, &order.provision.script)?;
    if code != 0 {
        let words: String = lines.iter().map(|line| format!("\n    {line}")).collect();
        let wrote = if words.is_empty() {
            "; it wrote nothing".to_owned()
        } else {
            format!("; it wrote last:{words}")
        };
        bail!(
            "the script ended with {code}{wrote}; hint: `stead shell {id}` to look around; the next `stead up` runs it again"
        );
    }
    if is_guest(&files)? {
        write_out(&files, Look::Written, "the next `stead up` runs the script again")?;
    }
    let is_as_before = || status(home, id).map(|after| after.is_some_and(|after| after.init == before.init));
    let _lock = whenever_free(id, || lock::lock(home, "stead up", &mut |_| {}), is_as_before)?;
    anyhow::ensure!(
        is_as_before()?,
        "the machine ended while the script ran; hint: the next `stead up` runs it again"
    );
    remember(home, &held, order)
}

/// Takes the home's lock, however long another command has it: what has been done would be done again if we gave up. As long
/// as there is a machine of which that is to be remembered.
fn whenever_free<T>(
    id: &MachineId,
    mut lock: impl FnMut() -> Result<T>,
    is_as_before: impl Fn() -> Result<bool>,
) -> Result<T> {
    loop {
        match lock() {
            Err(error) if error.is::<lock::Held>() && is_as_before()? => {
                note(&format!("waiting to remember what was run in `{id}`: {error}"));
            }
            taken => return taken,
        }
    }
}

/// Waits until the machine runs.
fn come_up(home: &Home, id: &MachineId) -> Result<Status> {
    let begun = Instant::now();
    loop {
        let Some(status) = status(home, id)? else {
            let exit = Files::new(home, id).load_exit();
            let code =
                exit.map(|exit| format!(": it ended with exit code {}", exit.code)).unwrap_or_default();
            bail!("the machine does not run{code}; hint: a machine with `provision` is one that stays up");
        };
        match status.phase {
            Phase::Running => return Ok(status),
            Phase::Booting | Phase::Restarting if begun.elapsed() < COMES_UP_WITHIN => {
                std::thread::sleep(LOOK_EVERY);
            }
            Phase::Booting | Phase::Restarting => {
                bail!(
                    "the machine was not up after {} s; hint: `stead console {id}`",
                    begun.elapsed().as_secs()
                )
            }
            Phase::Paused => bail!("the machine is paused; hint: `stead unpause {id}`"),
            Phase::Stopping => bail!("the machine is being stopped"),
        }
    }
}

/// What becomes known of a script that runs.
enum Word {
    Line(String),
    /// It has ended, with this code.
    Ended(Result<i32>),
}

/// Runs it, and tells what it writes. Its exit code, and its last lines.
fn run_script(machine: &MachineId, script: &Script) -> Result<(i32, VecDeque<String>)> {
    let doing = "cannot start a process to run it";
    let (reader, writer) = std::io::pipe().context(doing)?;
    let mut command = std::process::Command::new(std::env::current_exe().context(doing)?);
    command.arg("__exec").arg(std::process::id().to_string()).stdin(Stdio::piped());
    command.stdout(writer.try_clone().context(doing)?).stderr(writer);
    let mut child = command.spawn().context(doing)?;
    // It has our end of the pipe, too.
    drop(command);
    let mut line = serde_json::to_vec(&(machine, script)).context(doing)?;
    line.push(b'\n');
    // Who writes faster than it can be told waits.
    let (sender, words) = sync_channel(WORDS_UNDER_WAY);
    let lines = sender.clone();
    std::thread::spawn(move || read_lines(reader, &lines));
    let mut input = child.stdin.take().context(doing)?;
    // One that ended before it read all of it says why.
    let _unread = input.write_all(&line).and_then(|()| input.write_all(script.text.as_bytes()));
    drop(input);
    std::thread::spawn(move || wait(child, &sender));
    listen(machine, &words)
}

fn read_lines(reader: PipeReader, words: &SyncSender<Word>) {
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
        if words.send(Word::Line(text)).is_err() {
            return;
        }
    }
}

fn wait(mut child: Child, words: &SyncSender<Word>) {
    use std::os::unix::process::ExitStatusExt;
    let ended = child.wait().context("cannot wait for the script");
    let code =
        ended.map(|status| status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(255));
    // Whoever listens waits for this.
    let _heard = words.send(Word::Ended(code));
}

fn listen(id: &MachineId, words: &Receiver<Word>) -> Result<(i32, VecDeque<String>)> {
    let mut last = VecDeque::new();
    let mut ended: Option<(i32, Instant)> = None;
    loop {
        let word = match ended {
            None => words.recv().ok(),
            Some((_, at)) if at.elapsed() > LAST_WORDS_ALL_LIMIT => None,
            Some(_) => words.recv_timeout(LAST_WORDS_LIMIT).ok(),
        };
        match (word, ended) {
            (Some(Word::Line(line)), _) => {
                note(&format!("{id} | {line}"));
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(line);
            }
            (Some(Word::Ended(code)), _) => ended = Some((code?, Instant::now())),
            (None, Some((code, _))) => return Ok((code, last)),
            (None, None) => bail!("nothing is known of the script's end"),
        }
    }
}

/// Executes a script whose order is the first line of standard input, and the script the rest of it.
fn execute(global: &Global, parent: i32) -> Result<ExitCode, Failure> {
    // That begins this program anew, which hears nothing twice.
    super::exec::seal();
    let order = bound_order(parent).map_err(|error| Failure::from(error).before_program())?;
    let (machine, script) = order;
    let args = ExecArgs {
        detach: false,
        interactive: true,
        tty: false,
        no_tty: true,
        env: script.environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        env_file: Vec::new(),
        workdir: None,
        user: Some(script.user.clone().unwrap_or_else(|| "0".to_owned())),
        privileged: false,
        login: false,
        told: Told::End,
        machine: machine.to_string(),
        command: script.program(),
    };
    super::exec::exec(global, &args)
}

/// Hears the order, of somebody without whom the script is to end. Byte by byte: what follows is for the script's shell.
fn bound_order(parent: i32) -> Result<(MachineId, Script)> {
    let end = rustix::process::Signal::TERM;
    rustix::process::set_parent_process_death_signal(Some(end))
        .context("cannot tie ourselves to our parent")?;
    // It may have gone before that, and then nobody would tell us.
    let is_there = rustix::process::getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent);
    anyhow::ensure!(is_there, "who wanted the script to be run has gone");
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        let length =
            rustix::io::read(rustix::stdio::stdin(), &mut byte).context("cannot hear what is to be run")?;
        if length == 0 || byte == [b'\n'] {
            return serde_json::from_slice(&line).context("cannot read what is to be run");
        }
        line.extend(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    /// Runs a script as in a machine, of whose text so many bytes come.
    fn run(text: &str, bytes: usize) -> (Option<i32>, String) {
        let script = Script { text: text.to_owned(), user: None, environment: BTreeMap::new() };
        let words = script.program();
        let mut command = std::process::Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&text.as_bytes()[..bytes]).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    #[test]
    fn a_script_that_was_cut_off_is_not_begun() {
        let text = format!("echo begun\n{}exit 3\n", "# long\n".repeat(20_000));
        assert_eq!(run(&text, text.len()), (Some(3), "begun\n".to_owned()));
        let (code, said) = run(&text, 70_000);
        let why = format!("the script did not come whole: 70000 of {} bytes\n", text.len());
        assert_eq!((code, said), (Some(125), why));
    }

    #[test]
    fn what_succeeded_is_remembered_however_long_that_takes() {
        let id = "web.shop".parse().unwrap();
        let held = || -> Result<()> { Err(lock::Held("`stead up`".to_owned()).into()) };
        let mut times = 0;
        let third = || {
            times += 1;
            if times < 3 { held() } else { Ok(()) }
        };
        whenever_free(&id, third, || Ok(true)).unwrap();
        let error = whenever_free(&id, held, || Ok(false)).unwrap_err();
        assert!(error.to_string().starts_with("`stead up` still holds the home"), "{error}");
    }

    #[test]
    fn a_script_ignores_no_signal() {
        let ignored = |status: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let text = "cat /proc/self/status";
        let (code, said) = run(text, text.len());
        let (interrupt, quit) = (1 << (2 - 1), 1 << (3 - 1));
        // A shell cannot undo what whoever started these tests ignores.
        let own = ignored(&std::fs::read_to_string("/proc/self/status").unwrap());
        assert_eq!((code, ignored(&said) & (interrupt | quit) & !own), (Some(0), 0));
    }
}

//! Programs that tests run: to their end, for what they say, or in the background.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::LOOK_EVERY;

/// No single command of a test takes longer, even on a computer that does other things.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub line: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Fails the test unless the command ended well; its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        self.code(0).out
    }

    /// Fails the test unless the command ended with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "`{}`\n--- out\n{}\n--- err\n{}", self.line, self.out, self.err);
        self
    }

    /// Fails the test unless standard error holds this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "`{}` did not say `{text}` but\n{}", self.line, self.err);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}\n{out}"))
    }
}

/// A program in the background; ended when dropped.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Running {
    /// One that was started elsewhere, and hears nothing of ours.
    pub(super) fn deaf(child: Child) -> Self {
        Self { stdin: None, child }
    }

    /// The program's standard input.
    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.stdin.as_mut().unwrap()
    }

    /// The program's standard output, to be taken once.
    pub fn stdout(&mut self) -> BufReader<std::process::ChildStdout> {
        BufReader::new(self.child.stdout.take().unwrap())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it, for what it said until then.
    pub fn end(mut self) -> String {
        self.stdin.take();
        kill_with_children(&mut self.child);
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            out.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill_with_children(&mut self.child);
        // It may have been waited for before.
        let _ = self.child.wait();
    }
}

/// Kills `nsenter`, and the program that it waits for: killed early, it has not yet asked the kernel to have that
/// end with it.
fn kill_with_children(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let pid = Pid::from_child(child);
    // Held still, it does not fork meanwhile. Both may have ended by themselves.
    let _ = kill_process(pid, Signal::STOP);
    let children = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
    for word in fs::read_to_string(children).unwrap_or_default().split_whitespace() {
        let _ = kill_process(Pid::from_raw(word.parse().unwrap()).unwrap(), Signal::KILL);
    }
    let _ = child.kill();
}

pub(super) fn running(mut command: Command) -> Running {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Running { stdin: child.stdin.take(), child }
}

pub(super) fn first_line(running: &mut Running) -> String {
    let mut line = String::new();
    running.stdout().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Runs a command to its end.
#[track_caller]
pub fn said(command: Command) -> Said {
    said_within(command, COMMAND_LIMIT)
}

/// Runs a command to its end, which may take so long.
#[track_caller]
pub fn said_within(command: Command, limit: Duration) -> Said {
    said_to(command, Stdio::null(), limit)
}

/// The same for a command that reads this.
#[track_caller]
pub fn said_after(command: Command, input: &str, limit: Duration) -> Said {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    said_to(command, file.into(), limit)
}

#[track_caller]
fn said_to(mut command: Command, stdin: Stdio, limit: Duration) -> Said {
    let line = format!("{command:?}");
    // Files, not pipes: what a command leaves running would hold a pipe open.
    let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(stdin).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{line}: not done after {limit:?}\n{}{}", text(out), text(err));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOK_EVERY);
    };
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Said { line, code, out: text(out), err: text(err) }
}

fn text(mut file: fs::File) -> String {
    use std::io::Seek;
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

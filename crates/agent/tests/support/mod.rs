//! A keeper that does nothing but ask, and waits for the answers.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use stead_agent::message::{Ending, Exec, Request, Size, Start, Word};
use stead_agent::mux::Channel;
use stead_agent::{Call, Happening, Session};
use stead_model::container::{Container, Launch};
use stead_model::image::ImageConfig;

/// What a test waits for happens within this, on a busy computer and in a slow guest.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What is looked at in between.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What was said on a call.
#[derive(Debug, Default)]
pub struct Said {
    pub words: Vec<Word>,
    pub out: String,
    /// The same, as it came.
    pub bytes: Vec<u8>,
    pub err: String,
    pub is_over: bool,
    pub broken: Option<String>,
}

impl Said {
    /// How the process ended.
    pub fn code(&self) -> u8 {
        match self.words.last() {
            Some(Word::Exited(exited)) => exited.code,
            other => panic!("it did not end but said {other:?}: {self:?}"),
        }
    }

    /// Why it failed.
    pub fn failure(&self) -> (u8, &str) {
        match self.words.last() {
            Some(Word::Failed { why, code }) => (*code, why),
            other => panic!("it did not fail but said {other:?}"),
        }
    }
}

/// The keeper.
pub struct Keeper {
    pub session: Session,
    pub stream: UnixStream,
    pub calls: BTreeMap<Call, Said>,
    /// Calls whose bytes are not acknowledged.
    pub held: Vec<Call>,
}

impl Keeper {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        stream.set_write_timeout(Some(LOOK_EVERY)).unwrap();
        Self { session: Session::new().unwrap(), stream, calls: BTreeMap::new(), held: Vec::new() }
    }

    /// Another keeper in its place.
    pub fn replace(self) -> Self {
        Self::new(self.stream)
    }

    pub fn ask(&mut self, request: &Request) -> Call {
        self.session.ask(request).unwrap()
    }

    /// Carries bytes once.
    pub fn turn(&mut self) {
        let pending = self.session.pending();
        if !pending.is_empty() {
            match self.stream.write(pending) {
                Ok(length) => self.session.sent(length),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("the guest does not listen: {error}"),
            }
        }
        let mut buffer = [0; 32 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(length) => self.session.receive(&buffer[..length]).unwrap(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("the guest is gone: {error}"),
        }
        while let Some(happening) = self.session.next_event() {
            self.take(happening);
        }
    }

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Hello(_) | Happening::Room(_) => {}
            Happening::Foreign(hello) => panic!("{hello:?}"),
            Happening::Word(call, word) => self.calls.entry(call).or_default().words.push(word),
            Happening::Bytes(call, channel, bytes) => {
                let said = self.calls.entry(call).or_default();
                let text = String::from_utf8_lossy(&bytes);
                match channel {
                    Channel::Error => said.err.push_str(&text),
                    _ => {
                        said.out.push_str(&text);
                        said.bytes.extend(&bytes);
                    }
                }
                if !self.held.contains(&call) {
                    self.session.taken(call, bytes.len());
                }
            }
            Happening::Over(call) => self.calls.entry(call).or_default().is_over = true,
            Happening::Broken(call, why) => {
                let said = self.calls.entry(call).or_default();
                (said.is_over, said.broken) = (true, Some(why));
            }
        }
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited for {what}: {:#?}", self.calls);
            self.turn();
        }
    }

    /// Waits for the end of a call.
    #[track_caller]
    pub fn finish(&mut self, call: Call) -> Said {
        self.until("the end of a call", |keeper| keeper.calls.get(&call).is_some_and(|said| said.is_over));
        self.calls.remove(&call).unwrap()
    }

    /// Waits until a call's output has this in it.
    #[track_caller]
    pub fn until_out(&mut self, call: Call, text: &str) {
        self.until(text, |keeper| keeper.calls.get(&call).is_some_and(|said| said.out.contains(text)));
    }

    #[track_caller]
    pub fn answer(&mut self, request: &Request) -> Said {
        let call = self.ask(request);
        self.finish(call)
    }

    #[track_caller]
    pub fn done(&mut self, request: &Request) {
        let said = self.answer(request);
        assert_eq!(said.words.last(), Some(&Word::Done), "{request:?}: {said:?}");
    }

    #[track_caller]
    pub fn start(&mut self, start: Start) {
        let said = self.answer(&Request::Start(Box::new(start)));
        assert!(matches!(said.words[..], [Word::Started { .. }]), "{said:?}");
    }

    /// Runs a shell's line in a container.
    #[track_caller]
    pub fn shell(&mut self, line: &str) -> Said {
        self.answer(&Request::Exec(exec(line)))
    }

    #[track_caller]
    pub fn shut_down(&mut self) {
        self.done(&Request::ShutDown { how: Ending::Reboot, grace_ms: None });
    }
}

pub fn name(text: &str) -> stead_model::name::Name {
    text.parse().unwrap()
}

/// A shell's line in the container `main`.
pub fn exec(line: &str) -> Exec {
    Exec {
        container: name("main"),
        args: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
        env: Vec::new(),
        cwd: None,
        user: None,
        privileged: false,
        login: false,
        tty: None,
        stdin: false,
        detached: false,
    }
}

/// What is launched of an image that says nothing, for a shell's line.
pub fn launch(line: &str) -> Launch {
    let mut container = Container::new("test:1".parse().unwrap());
    container.command = Some(["/bin/sh", "-c", line].map(str::to_owned).to_vec());
    container.launch(&name("main"), &ImageConfig::default()).unwrap()
}

/// The container `main` with a shell's line, and its changes in memory.
pub fn start(line: &str) -> Start {
    Start {
        container: name("main"),
        launch: launch(line),
        layers: vec![name("root")],
        writable: None,
        volumes: BTreeMap::new(),
        hosts: Some("127.0.0.1 localhost\n".to_owned()),
        resolv_conf: Some("nameserver 192.0.2.1\n".to_owned()),
        size: Size::default(),
    }
}

pub fn attach(container: &str, stdin: bool) -> Request {
    Request::Attach { container: name(container), stdin }
}

/// An image of busybox in this directory.
pub fn busybox(directory: &Path) {
    const IMAGE: &str = r#"
        set -e; umask 022; cd "$1"
        mkdir -p bin etc root tmp data
        cp /usr/bin/busybox bin/busybox
        for name in $(busybox --list); do [ -e bin/$name ] || ln -s busybox bin/$name; done
        printf 'root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n' > etc/passwd
        printf 'root:x:0:\nwww:x:34:\nadm:x:4:web\n' > etc/group
        chmod 1777 tmp; echo hello > data/file; ln -s /etc/passwd data/out
    "#;
    let status = Command::new("sh").args(["-c", IMAGE, "sh"]).arg(directory).status().unwrap();
    assert!(status.success());
}

/// The program, in a file of its own in this directory.
pub fn program(directory: &Path) -> PathBuf {
    let path = directory.join("stead-agent");
    executable(&path, stead_agent::PROGRAM);
    path
}

/// A program with this content. Another process writes it: while this one held it open for writing, what another
/// thread starts could hold it too, and nobody could run it.
fn executable(path: &Path, content: &[u8]) {
    let mut from = tempfile::tempfile().unwrap();
    from.write_all(content).unwrap();
    from.rewind().unwrap();
    let install = Command::new("install").args(["-m755", "/dev/stdin"]).arg(path).stdin(from).status();
    assert!(install.unwrap().success());
}

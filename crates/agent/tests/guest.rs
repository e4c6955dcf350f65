//! The program itself, between a keeper and containers, in namespaces of this computer: its standard input is the
//! stream.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// What is not tested, and what a guest said last.
#![allow(clippy::print_stderr)]

mod support;
#[path = "../../cli/tests/support/untested.rs"]
mod untested;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use stead_agent::message::{Ending, Protocol, Request, Size, Word};
use stead_container::{End, Owners, Root, pack, unpack};
use stead_model::container::{Mode, Signal};

use support::{Keeper, attach, exec, name, start};
use untested::untested;

/// A guest, as far as a computer can be one that has booted already.
struct Guest {
    keeper: Option<Keeper>,
    child: Child,
    _directory: tempfile::TempDir,
}

/// File systems for it, in a mount namespace of its own.
const ENTER: &str = r#"
    set -e; mount -t tmpfs tmpfs /run; mkdir -p /run/stead/mounts/root /run/stead/mounts/data
    mount --bind "$1/root" /run/stead/mounts/root; mount --bind "$1/data" /run/stead/mounts/data
    exec "$1/stead-agent" --on-stdin "agent-test-$$-"
"#;

impl Guest {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["root", "data"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        support::busybox(&path.join("root"));
        support::program(path);
        let (own, theirs) = UnixStream::pair().unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"])
            .arg(path)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        Self { keeper: Some(Keeper::new(own)), child, _directory: directory }
    }

    fn keeper(&mut self) -> &mut Keeper {
        self.keeper.as_mut().unwrap()
    }

    /// The keeper is another one from now on.
    fn replace_keeper(&mut self) {
        self.keeper = self.keeper.take().map(Keeper::replace);
    }

    fn path(&self) -> &Path {
        self._directory.path()
    }

    fn end(mut self) {
        self.keeper().shut_down();
        assert!(self.child.wait().unwrap().success());
    }
}

/// Containers are made by root alone in a guest.
fn is_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_root = rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"]);
    if !is_root {
        untested("a guest's own root makes containers, and this is not a computer's root");
    }
    is_root
}

#[test]
fn a_container_runs_writes_and_ends_as_the_runtime_would_have_it() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let keeper = guest.keeper();
    let watch = keeper.ask(&Request::Watch);
    let mut wanted =
        start("id; pwd; echo $A; cat /etc/hosts; hostname; echo oops >&2; echo x > /new; exit 3");
    (wanted.launch.user, wanted.launch.cwd) = ("web".to_owned(), "/tmp".to_owned());
    wanted.launch.env.push("A=b c".to_owned());
    wanted.launch.hostname = "inner".to_owned();
    let started = keeper.ask(&Request::Start(Box::new(wanted)));
    let attached = keeper.ask(&attach("main", false));
    assert!(matches!(keeper.finish(started).words[..], [Word::Started { .. }]));
    let said = keeper.finish(attached);
    assert_eq!(
        said.out,
        "uid=33(web) gid=34(www) groups=4(adm),34(www)\n/tmp\nb c\n127.0.0.1 localhost\ninner\n"
    );
    assert!(said.err.starts_with("oops\n") && said.err.contains("Permission denied"), "{}", said.err);
    assert_eq!(said.code(), 3);
    let words = keeper.calls.remove(&watch).unwrap().words;
    let stages: Vec<&str> = words
        .iter()
        .filter_map(|word| if let Word::Stage(stage) = word { Some(&*stage.name) } else { None })
        .collect();
    assert_eq!(stages, ["agent", "hello", "started"]);
    assert!(matches!(words.last(), Some(Word::Exited(exited)) if exited.code == 3), "{words:?}");
    // It can be started anew in the same place.
    keeper.start(start("exit 0"));
    guest.end();
}

#[test]
fn processes_are_started_typed_to_resized_and_told_to_end() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let keeper = guest.keeper();
    keeper.start(start("exec sleep 1000"));
    let said = keeper.shell("echo out; echo err >&2; exit 7");
    assert_eq!((said.code(), &*said.out, &*said.err), (7, "out\n", "err\n"));
    // Standard input, longer than a window, and its end.
    let call =
        keeper.ask(&Request::Exec(stead_agent::message::Exec { stdin: true, ..exec("wc -c; echo done") }));
    let mut left: &[u8] = &[b'x'; 300_000];
    keeper.until("all to be typed", |keeper| {
        let taken = keeper.session.input(call, left);
        left = &left[taken..];
        left.is_empty()
    });
    keeper.session.end_input(call);
    assert_eq!(keeper.finish(call).out, "300000\ndone\n");
    // A terminal.
    let tty = Some(Size { rows: 30, columns: 90 });
    let line = "stty size; read line; stty size; echo \"[$line]\"; tty; read line || echo no more";
    let call = keeper.ask(&Request::Exec(stead_agent::message::Exec { stdin: true, tty, ..exec(line) }));
    keeper.until_out(call, "30 90");
    assert!(keeper.session.say(call, &Word::Resize(Size { rows: 40, columns: 100 })));
    assert_eq!(keeper.session.input(call, b"typed\n"), 6);
    keeper.until_out(call, "/dev/pts/");
    keeper.session.end_input(call);
    let said = keeper.finish(call);
    assert!(
        said.out.contains("40 100") && said.out.contains("[typed]") && said.out.contains("no more"),
        "{said:?}"
    );
    // Signals.
    let call = keeper
        .ask(&Request::Exec(exec("trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done")));
    keeper.until_out(call, "ready");
    assert!(keeper.session.say(call, &Word::Signal("USR1".parse().unwrap())));
    let said = keeper.finish(call);
    assert_eq!((said.code(), &*said.out), (5, "ready\ngot\n"));
    guest.end();
}

#[test]
fn what_cannot_be_done_is_said_with_the_code_of_a_shell() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let keeper = guest.keeper();
    let said = keeper.answer(&Request::Usage(name("nobody")));
    assert_eq!(said.failure(), (125, "there is no container `nobody`"));
    let mut wanted = start("");
    wanted.launch.args = vec!["nowhere".to_owned()];
    let said = keeper.answer(&Request::Start(Box::new(wanted.clone())));
    assert_eq!(said.failure(), (127, "exec: no such file: `nowhere`"));
    wanted.launch.args = vec!["/etc/passwd".to_owned()];
    assert_eq!(keeper.answer(&Request::Start(Box::new(wanted.clone()))).failure().0, 126);
    (wanted.launch.args, wanted.launch.user) = (vec!["id".to_owned()], "nobody-here".to_owned());
    assert_eq!(keeper.answer(&Request::Start(Box::new(wanted))).failure().0, 125);
    keeper.start(start("exec sleep 1000"));
    let said = keeper.answer(&Request::Start(Box::new(start("true"))));
    assert_eq!(said.failure().1, "cannot start `main`: it runs already");
    let said = keeper
        .answer(&Request::Exec(stead_agent::message::Exec { args: vec!["nowhere".to_owned()], ..exec("") }));
    assert_eq!(said.failure(), (127, "exec: no such file: `nowhere`"));
    guest.end();
}

#[test]
fn who_is_left_to_itself_goes_on_and_is_buried() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let keeper = guest.keeper();
    keeper.start(start("exec sleep 1000"));
    let line = "until [ -e /tmp/go ]; do sleep 0.05; done; echo told; echo $$ > /tmp/done";
    let request = |line| Request::Exec(stead_agent::message::Exec { detached: true, ..exec(line) });
    let said = keeper.answer(&request(line));
    assert!(matches!(said.words[..], [Word::Started { .. }, Word::Done]), "{said:?}");
    assert_eq!(said.out, "");
    keeper.shell(": > /tmp/go");
    keeper.until("its end", |keeper| keeper.shell("test -s /tmp/done").code() == 0);
    let buried = "! grep -q . /proc/$(cat /tmp/done)/status";
    keeper.until("its burial", |keeper| keeper.shell(buried).code() == 0);
    let said = keeper.answer(&Request::Exec(stead_agent::message::Exec {
        detached: true,
        args: vec!["nowhere".to_owned()],
        ..exec("")
    }));
    assert_eq!(said.failure(), (127, "exec: no such file: `nowhere`"));
    guest.end();
}

#[test]
fn who_goes_before_all_of_an_ended_program_was_read_harms_nobody() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let keeper = guest.keeper();
    keeper.start(start("sleep 1000"));
    // More than is sent unread, and less than its pipe holds besides.
    let call = keeper.ask(&Request::Exec(exec("head -c 100000 /dev/zero; : > /tmp/written")));
    keeper.held.push(call);
    keeper.until("its end", |keeper| keeper.shell("test -e /tmp/written").code() == 0);
    // It is buried with that at the latest.
    assert_eq!(keeper.shell("true").code(), 0);
    keeper.session.cancel(call);
    assert_eq!(keeper.shell("echo here").out, "here\n");
    guest.end();
}

#[test]
fn who_does_not_read_holds_up_nobody_else_and_loses_nothing() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let keeper = guest.keeper();
    keeper.start(start("i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); done; echo the end"));
    let stuck = keeper.ask(&attach("main", false));
    keeper.held.push(stuck);
    keeper.until("a full window", |keeper| {
        keeper.calls.get(&stuck).is_some_and(|said| said.out.len() > 50_000)
    });
    let said = keeper.shell("head -c 1000000 /dev/zero | tr '\\0' x");
    assert_eq!((said.out.len(), said.code()), (1_000_000, 0));
    // The host goes away with what it had not taken in; the next one gets all of it.
    guest.replace_keeper();
    let keeper = guest.keeper();
    let call = keeper.ask(&attach("main", false));
    let said = keeper.finish(call);
    let expected: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
    assert!(said.out == expected + "the end\n", "{} bytes", said.out.len());
    assert_eq!(said.code(), 0);
    guest.end();
}

#[test]
fn several_containers_are_in_one_guest_and_each_is_seen_and_held() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let path = guest.path().join("data");
    let keeper = guest.keeper();
    keeper.start(start("exec sleep 1000"));
    let mut other = start("echo kept > /file; mkfifo /tmp/f; nc -l -p 7777 & exec cat");
    (other.container, other.writable) = (name("other"), Some(name("data")));
    other.launch.stdin = true;
    keeper.start(other);
    let call = keeper.ask(&attach("other", true));
    assert_eq!(keeper.session.input(call, b"typed\n"), 6);
    keeper.until_out(call, "typed\n");
    keeper.until("somebody to listen", |keeper| {
        let Some(Word::Ports(ports)) = keeper.answer(&Request::Ports(name("other"))).words.pop() else {
            panic!("no ports");
        };
        ports.iter().any(|one| one.protocol == Protocol::Tcp && one.port == 7777)
    });
    let words = keeper.answer(&Request::Processes(name("other"))).words;
    let [Word::Processes(processes), Word::Done] = &words[..] else { panic!("{words:?}") };
    let commands: Vec<&str> = processes.iter().map(|process| &*process.command).collect();
    assert!(commands.contains(&"cat") && commands.contains(&"nc -l -p 7777"), "{commands:?}");
    let Some(Word::Usage(usage)) = keeper.answer(&Request::Usage(name("other"))).words.pop() else {
        panic!()
    };
    assert!(usage.guest_memory_bytes > usage.guest_used_bytes && usage.pids == Some(2), "{usage:?}");
    keeper.done(&Request::Pause(name("other")));
    assert_eq!(keeper.session.input(call, b"while held\n"), 11);
    assert_eq!(keeper.shell("echo still").out, "still\n");
    assert_eq!(keeper.calls[&call].out, "typed\n");
    keeper.done(&Request::Unpause(name("other")));
    keeper.until_out(call, "while held\n");
    keeper.done(&Request::Signal { container: name("other"), signal: Signal::KILL });
    let said = keeper.finish(call);
    assert_eq!(said.code(), 137);
    assert_eq!(std::fs::read_to_string(path.join("stead/other/upper/file")).unwrap(), "kept\n");
    guest.end();
}

#[test]
fn containers_are_told_to_end_before_they_are_killed() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let keeper = guest.keeper();
    keeper.start(start("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"));
    let mut deaf = start("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    deaf.container = name("deaf");
    keeper.start(deaf);
    let (one, other) = (keeper.ask(&attach("main", false)), keeper.ask(&attach("deaf", false)));
    keeper.until_out(one, "ready");
    keeper.until_out(other, "ready");
    let call = keeper.ask(&Request::ShutDown { how: Ending::PowerOff, grace_ms: Some(500) });
    let said = keeper.finish(one);
    assert_eq!((&*said.out, said.code()), ("ready\nbye\n", 0));
    assert_eq!(keeper.finish(other).code(), 137);
    assert_eq!(keeper.finish(call).words, [Word::Done]);
    assert!(guest.child.wait().unwrap().success());
}

#[test]
fn files_are_carried_in_and_out_within_the_root() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let base = guest.path().to_owned();
    std::fs::create_dir_all(base.join("mine/sub")).unwrap();
    std::fs::write(base.join("mine/sub/large"), vec![b'x'; 300_000]).unwrap();
    let keeper = guest.keeper();
    keeper.start(start("exec sleep 1000"));
    assert_eq!(keeper.shell("ln -s ../../../../.. /up").code(), 0);
    let here = |path: &str| base.join(path).display().to_string();
    let mut parcel = Vec::new();
    pack(&End { root: &Root::Here, path: &here("mine") }, &mut parcel).unwrap();
    let write =
        |path: &str| Request::Write { container: name("main"), path: path.to_owned(), keep_owners: false };
    let call = keeper.ask(&write("/up/tmp"));
    let mut left = parcel.as_slice();
    keeper.until("all to be sent", |keeper| {
        left = &left[keeper.session.input(call, left)..];
        left.is_empty()
    });
    keeper.session.end_input(call);
    assert_eq!(keeper.finish(call).words, [Word::Done]);
    assert_eq!(keeper.shell("wc -c < /tmp/mine/sub/large").out, "300000\n");
    // And back.
    let read = |path: &str| Request::Read { container: name("main"), path: path.to_owned() };
    let said = keeper.answer(&read("/tmp/mine"));
    assert_eq!(said.words, [Word::Done]);
    std::fs::create_dir(base.join("back")).unwrap();
    let to = End { root: &Root::Here, path: &here("back") };
    unpack(&mut said.bytes.as_slice(), &to, Owners::Ours).unwrap();
    assert_eq!(std::fs::metadata(base.join("back/mine/sub/large")).unwrap().len(), 300_000);
    // What cannot be done is said.
    let said = keeper.answer(&read("/none"));
    assert_eq!(said.failure(), (125, "there is no `/none`"));
    let call = keeper.ask(&write("/etc/passwd/x"));
    let taken = keeper.session.input(call, &parcel[..10]);
    assert_eq!(taken, 10);
    keeper.session.end_input(call);
    let said = keeper.finish(call);
    assert!(said.failure().1.contains("/etc/passwd"), "{said:?}");
    guest.end();
}

#[test]
fn a_system_runs_its_own_init() {
    if !is_root() {
        return;
    }
    let mut guest = Guest::new();
    let keeper = guest.keeper();
    let mut wanted = start("");
    wanted.launch.mode = Mode::System;
    wanted.launch.args = ["/bin/sh", "-c", "echo I am $$; exit 0"].map(str::to_owned).to_vec();
    keeper.start(wanted);
    let call = keeper.ask(&attach("main", false));
    assert_eq!(keeper.finish(call).out, "I am 1\n");
    guest.end();
}

/// A file system of its own, which a holder holds; what is said of it is what came of holding it by somebody else.
const STANDSTILL: &str = r#"
    set -eu; cd "$1"; mount -t tmpfs tmpfs /run; mkdir /run/stead at; mkfifo in
    truncate -s 16M disk; mkfs.ext4 -qF disk; mount -o loop disk at
    is_held() { fsfreeze --freeze at 2>said && { fsfreeze --unfreeze at; return 1; }; grep -q busy said; }
    is_free() { fsfreeze --freeze at && fsfreeze --unfreeze at; }
    begin() {
        # What the last one said is no answer of this one, which opens its input before its output.
        rm -f out
        ./stead-agent --hold-still "$PWD/at" <in >out & holder=$!
        exec 9>in
        until grep -qs held out; do kill -0 $holder; done
        is_held
        (exec 9>&-; echo x >at/file) & writer=$!
    }
    # The program goes; and then its holder is killed, too, by which nothing goes on.
    begin; exec 9>&-; wait $holder; wait $writer; is_free; [ ! -e /run/stead/standstill.json ]
    begin; kill -9 $holder; wait $holder || :; is_held
    ./stead-agent --go-on; wait $writer; is_free; [ ! -e /run/stead/standstill.json ]
    # Who comes next may have nothing to do.
    ./stead-agent --go-on; umount at; echo done
"#;

#[test]
fn file_systems_go_on_when_those_who_held_them_are_gone() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    support::program(directory.path());
    let said = Command::new("timeout")
        .args(["-k1", "60", "unshare", "--mount", "--propagation", "private", "sh", "-c", STANDSTILL, "sh"])
        .arg(directory.path())
        .output()
        .unwrap();
    assert_eq!((said.status.code(), &*said.stdout), (Some(0), &b"done\n"[..]), "{said:?}");
}

//! Real terminals: their size, what is typed, Ctrl-C, leaving, and the exit code that a shell sees.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::support::registry::{BUSYBOX, closed_registry, registry};
use crate::support::{LIMIT, Place, Running, World, said, said_after};

/// `stead` at a terminal of its own.
struct Terminal<'w> {
    world: &'w World,
    program: Running,
    heard: Receiver<Vec<u8>>,
    /// What was seen so far.
    text: String,
    /// How far it was looked at.
    seen: usize,
    device: String,
}

impl<'w> Terminal<'w> {
    /// Runs `stead` with these words, at a terminal of 30 lines of 90 columns.
    fn new(world: &'w World, words: &str) -> Self {
        // The world purges this home when it ends.
        drop(world.stead_command("home", world.path(), &["version"]));
        let (home, stead) = (world.path().join("home"), crate::support::stead());
        let line = format!(
            "stty rows 30 cols 90; tty; TERM=vt220 STEAD_HOME={} exec {stead} {words}",
            home.display()
        );
        let at_terminal = format!("script -qec \"{line}\" /dev/null; echo code=$?");
        let mut program = world.spawn(Place::Person, &["sh", "-c", &at_terminal]);
        let mut stdout = program.stdout();
        let (sender, heard) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = stdout.read(&mut buffer) {
                if length == 0 || sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut terminal =
            Self { world, program, heard, text: String::new(), seen: 0, device: String::new() };
        terminal.see("/dev/pts/");
        let rest = terminal.see("\r\n");
        terminal.device = format!("/dev/pts/{}", rest.trim());
        terminal
    }

    /// Waits until this is to be seen, after all that was waited for before; what stands before it.
    #[track_caller]
    fn see(&mut self, mark: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.text[self.seen..].find(mark) {
                let before = self.text[self.seen..self.seen + at].to_owned();
                self.seen += at + mark.len();
                return before;
            }
            match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.text += &String::from_utf8_lossy(&bytes),
                Err(RecvTimeoutError::Timeout) => panic!("no `{mark}` within {LIMIT:?} in\n{}", self.text),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without `{mark}`:\n{}", self.text),
            }
        }
    }

    #[track_caller]
    fn type_in(&mut self, text: &str) {
        self.program.stdin().write_all(text.as_bytes()).unwrap();
        self.program.stdin().flush().unwrap();
    }

    /// Makes the terminal another size, as a window does.
    fn resize(&self, rows: u16, columns: u16) {
        let line = format!("stty -F {} rows {rows} cols {columns}", self.device);
        self.world.sh(Place::Person, &line);
    }

    /// Types what tells the size until it is this.
    #[track_caller]
    fn has_size(&mut self, size: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.type_in("echo [$(stty size)]\n");
            // What is typed is seen as well.
            self.see("size)]\r\n");
            let found = self.see("]");
            if found.trim_start_matches('[') == size {
                return;
            }
            assert!(Instant::now() < deadline, "`{found}` is not `{size}`");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_terminal_has_the_size_of_the_persons_and_follows_it() {
    let world = World::offline();
    let _registry = registry(&world);
    let mut run = Terminal::new(&world, &format!("run -it --rm --name box {BUSYBOX} sh"));
    run.see("#");
    run.has_size("30 90");
    run.resize(50, 100);
    run.has_size("50 100");
    let mut exec = Terminal::new(&world, "exec -it box sh");
    exec.see("#");
    exec.has_size("30 90");
    exec.resize(40, 120);
    exec.has_size("40 120");
    exec.type_in("exit 9\n");
    exec.see("code=9");
    // Nobody else's terminal is another size for that.
    run.has_size("50 100");
    run.type_in("exit 7\n");
    run.see("code=7");
}

/// Words whose values tell who logged in, and what of.
const WHO: &str = "echo \"[$0 $USER $LOGNAME $HOME $PWD $SHELL $TERM $FROM]\"";

#[test]
fn who_logs_in_has_the_users_own_shell_and_nothing_of_the_machines_program() {
    let world = World::offline();
    let _registry = registry(&world);
    world.stead(&format!("run -d --name box -w /data {BUSYBOX} sleep 1000")).ok();
    // Another name of root's, as a person with one id has no other user; at a home and with a shell that are not there.
    let accounts = "mkdir /root; echo admin:x:0:0::/srv:/bin/ash >> /etc/passwd; echo lost:x:0:0::/no:/bin/no >> /etc/passwd";
    world.stead_at("home", world.path(), &["exec", "box", "sh", "-c", accounts]).ok();
    let shell = |words: &str, input: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        said_after(world.stead_command("home", world.path(), &words), input, LIMIT)
    };
    assert_eq!(shell("shell box", WHO).ok(), "[-sh root root /root /root /bin/sh  ]\n");
    assert_eq!(shell("shell box -u admin", WHO).ok(), "[-ash admin admin /srv /srv /bin/ash  ]\n");
    assert_eq!(shell("shell box -u lost", WHO).ok(), "[-sh lost lost /no / /bin/sh  ]\n");
    shell("shell box", "echo oops >&2; exit 9").code(9).says("oops");
    shell("shell -u nobody box", "").code(125).says("`nobody` is no user");
    shell("shell nosuch", "").code(125).says("there is no machine `nosuch`");
    shell("shell --no-such-option box", "").code(125);
    let mut shell = Terminal::new(&world, "shell box");
    shell.see("#");
    shell.has_size("30 90");
    shell.type_in(&format!("{WHO}; tty\n"));
    shell.see("[-sh root root /root /root /bin/sh vt220 ]\r\n/dev/pts/");
    shell.type_in("exit 6\n");
    shell.see("code=6");
    world.stead("stop --time 0 box").ok();
    world.stead("shell box").code(125).says("does not run").says("`stead start box.default`");
}

#[test]
fn a_program_without_a_terminal_of_its_own_never_has_the_persons() {
    let world = World::offline();
    let _registry = registry(&world);
    world.stead(&format!("run -d --name box {BUSYBOX} sleep 1000")).ok();
    // What stays behind holds no terminal, and is not waited for.
    let line = "readlink /proc/self/fd/1; readlink /proc/self/fd/2 >&2; sleep 1000 & echo [ended]";
    let mut exec = Terminal::new(&world, &format!("exec box sh -c '{line}'"));
    // The two pipes are heard in either order.
    let said = exec.see("code=0");
    assert_eq!(said.matches("pipe:[").count(), 2, "{said}");
    assert!(said.contains("[ended]"), "{said}");
    let mut exec = Terminal::new(&world, "exec -i box sh -c 'readlink /proc/self/fd/0; exec cat'");
    exec.see("pipe:[");
    exec.type_in("hello\n");
    // Once as it was typed, once as it came back.
    exec.see("hello\r\n");
    exec.see("hello\r\n");
    exec.type_in("\u{4}");
    exec.see("code=0");
}

#[test]
fn keys_go_to_the_program_and_two_of_them_leave_it() {
    let world = World::offline();
    let _registry = registry(&world);
    let mut run = Terminal::new(&world, &format!("run -it --name box {BUSYBOX} sh"));
    run.see("#");
    // Ctrl-C ends what runs in there, not the shell, nor us.
    run.type_in("sleep 1000; echo [ended by $?]\n");
    run.see("$?]");
    std::thread::sleep(Duration::from_millis(300));
    run.type_in("\u{3}");
    run.type_in("echo [still here]\n");
    run.see("here]\r\n");
    run.see("[still here]");
    run.type_in("\u{10}\u{11}");
    run.see("code=0");
    assert_eq!(world.stead("ps box --format json").json()[0]["status"], "running");
    let mut again = Terminal::new(&world, "attach box");
    again.type_in("echo [back]\n");
    again.see("[back]\r\n");
    again.type_in("exit 5\n");
    again.see("code=5");
}

#[test]
fn ctrl_c_without_a_terminal_is_a_signal_for_the_machine() {
    let world = World::offline();
    let _registry = registry(&world);
    let mut run = Terminal::new(
        &world,
        &format!("run --rm --init --name box {BUSYBOX} sh -c 'echo up; exec sleep 1000'"),
    );
    run.see("up\r\n");
    run.type_in("\u{3}");
    run.see("code=130");
    // A program that has a mind of its own is asked, and decides.
    let program = "trap 'echo asked; exit 4' INT; echo up; while :; do sleep 0.1; done";
    let mut run = Terminal::new(&world, &format!("run --rm --name box {BUSYBOX} sh -c \\\"{program}\\\""));
    run.see("up\r\n");
    run.type_in("\u{3}");
    run.see("asked");
    run.see("code=4");
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
    // By `exec` it is for the program that was begun, and the machine goes on; with a terminal it is typed there.
    world.stead(&format!("run -d --init --name box {BUSYBOX} sleep 1000")).ok();
    for options in ["", "-it "] {
        let mut exec = Terminal::new(&world, &format!("exec {options}box sh -c 'echo up; exec sleep 1000'"));
        exec.see("up\r\n");
        exec.type_in("\u{3}");
        exec.see("code=130");
        let line = "grep -lx sleep /proc/[0-9]*/comm";
        let left = said(world.stead_command("home", world.path(), &["exec", "box", "sh", "-c", line])).ok();
        assert_eq!(left.lines().count(), 1, "{left}");
    }
    world.stead("rm --force box").ok();
}

#[test]
fn exit_codes_are_those_that_people_know() {
    let world = World::offline();
    let _registry = registry(&world);
    world.stead(&format!("run -d --init --name box {BUSYBOX} sleep 1000")).ok();
    for (line, code) in [
        (format!("run --rm {BUSYBOX} false"), 1),
        (format!("run --rm {BUSYBOX} /nowhere"), 127),
        (format!("run --rm {BUSYBOX} /etc"), 126),
        (format!("run --rm --no-such-option {BUSYBOX}"), 125),
        (format!("run --rm --name box {BUSYBOX}"), 125),
        ("run --rm 127.0.0.1:5000/lab/nosuch".to_owned(), 125),
        ("exec box false".to_owned(), 1),
        ("exec box /nowhere".to_owned(), 127),
        ("exec box /etc".to_owned(), 126),
        ("exec nosuch true".to_owned(), 125),
        ("exec --no-such-option box true".to_owned(), 125),
        ("start nosuch".to_owned(), 2),
    ] {
        assert_eq!(world.stead(&line).code, code, "{line}");
    }
}

#[test]
fn who_is_asked_before_data_goes_may_say_no() {
    let world = World::offline();
    let shop = world.project("shop", "networks: { lan: { reach: isolated } }\nvolumes: [data]\n");
    shop.stead("up").ok();
    let data = world.path().join("home/state/volumes/shop/data");
    world.sh(Place::Person, &format!("echo precious > {}/thing", data.display()));
    let ask = |words: &str, first: &str, answer: &str, code: &str| {
        let mut asked = Terminal::new(&world, words);
        asked.see(first);
        asked.see("go on? [y/N] ");
        asked.type_in(answer);
        let rest = asked.see(&format!("code={code}"));
        assert_eq!(rest.contains("not done"), code == "3", "{rest}");
    };
    let (down, loses) = ("down shop --volumes", "this loses data:\r\n  - volume data.shop");
    let (purge, all) = ("purge", "this takes away all projects, machines, networks and volumes of this user");
    for answer in ["n\n", "\n", "yess\n", "\u{4}"] {
        ask(down, loses, answer, "3");
        ask(purge, all, answer, "3");
        assert!(data.join("thing").exists(), "gone after {answer:?}");
        assert_eq!(shop.stead("plan").ok(), "nothing to do\n", "changed after {answer:?}");
    }
    ask(down, loses, "y\n", "0");
    assert!(!data.exists() && world.path().join("home/state").exists());
    shop.stead("up").ok();
    ask(purge, all, "yes\n", "0");
    assert!(!world.path().join("home").exists());
}

#[test]
fn a_password_is_not_seen_while_it_is_typed() {
    let world = World::offline();
    let _closed = closed_registry(&world);
    let login = |password: &str| {
        let mut login = Terminal::new(&world, "login 127.0.0.1:5001");
        login.see("name: ");
        login.type_in("me\n");
        login.see("password: ");
        login.type_in(password);
        login
    };
    let mut wrong = login("wrong\n");
    wrong.see("does not take");
    wrong.see("code=1");
    let mut given_up = login("sec\u{3}");
    given_up.see("given up");
    given_up.see("code=1");
    // What is mistyped is taken back, as elsewhere.
    let mut right = login("else\u{15}secreet\u{7f}\u{7f}t\n");
    right.see("me at 127.0.0.1:5001, kept in ");
    right.see("code=0");
    for (login, typed) in [(wrong, "wrong"), (given_up, "sec"), (right, "secr")] {
        assert!(!login.text.contains(typed), "{}", login.text);
    }
    world.stead("logout 127.0.0.1:5001").ok();
}

#[test]
fn how_far_an_image_is_changes_in_one_line_of_a_terminal_and_nowhere_else() {
    let world = World::offline();
    let _registry = registry(&world);
    world.sh(Place::Person, "mkfifo slow");
    // An archive that goes on until somebody was told of it; then it ends.
    let slowly = |seen: &str| {
        let line =
            format!("(cat registry/layer; while ! test -e {seen}; do head -c 512 /dev/zero; done) > slow");
        world.spawn(Place::Computer, &["sh", "-c", &line])
    };
    let _writer = slowly("seen");
    let mut import = Terminal::new(&world, "image import - lab/slow:1 < slow");
    let before = import.see("importing lab/slow:1: ");
    assert!(before.ends_with("\r\u{1b}[K"), "{before:?}");
    import.see("MB\r\u{1b}[K");
    world.sh(Place::Person, "touch seen");
    import.see("lab/slow:1\r\n");
    import.see("code=0");
    // The line is gone before anything else is told.
    let rest = import.text.rsplit_once("importing").unwrap().1;
    assert!(rest.contains("\r\u{1b}[K"), "{rest:?}");
    let _writer = slowly("seen-again");
    let line = format!(
        "STEAD_HOME=home {} image import - lab/slow:2 < slow 2> told & pid=$!; \
        until test -s told; do sleep 0.05; done; touch seen-again; wait $pid; cat told",
        crate::support::stead()
    );
    let told = world.sh(Place::Person, &line);
    assert!(told.contains("importing lab/slow:2: ") && !told.contains(['\r', '\u{1b}']), "{told:?}");
}

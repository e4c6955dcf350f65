//! Containers that get another name while they run: they go on, and all that knew them by the old name knows them by the new
//! one. The old one is anybody's at once.

use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdout;
use std::time::Duration;

use serde_json::Value;

use crate::support::dice::Dice;
use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, Running, Said, World, role, said, untested};

/// How often the command is killed that gives a container another name.
const KILLS: u64 = 40;

/// How often the keeper is, too.
const KEEPERS_KILLED: u64 = 15;

/// The longest that it goes on before it is killed.
const LONGEST_MS: u64 = 120;

/// Runs `stead` with these words, of which some have spaces.
#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

/// What a machine is like; `null` if there is none.
#[track_caller]
fn row(world: &World, name: &str) -> Value {
    let rows = world.stead("ps --all --format json").json();
    rows.as_array().unwrap().iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
}

/// A machine's first process, with when it was started.
#[track_caller]
fn process(world: &World, name: &str) -> String {
    let row = row(world, name);
    assert!(row["pid"].is_u64(), "{name}: {row}");
    world.sh(Place::Computer, &format!("awk '{{ print $1, $22 }}' /proc/{}/stat", row["pid"]))
}

/// The control groups that a machine is in.
#[track_caller]
fn cgroups(world: &World, name: &str) -> String {
    world.sh(Place::Computer, &format!("cat /proc/{}/cgroup", row(world, name)["pid"]))
}

/// A keeper of the home, by its process.
#[track_caller]
fn keeper(world: &World, name: &str) -> String {
    let path = world.path().join("home/run/machines").join(format!("{name}.default")).join("keeper.pid");
    let text = world.sh(Place::Computer, &format!("cat {}", path.display()));
    text.split_whitespace().next().unwrap().to_owned()
}

/// A program whose input is answered.
struct Talk {
    program: Running,
    answers: BufReader<ChildStdout>,
}

impl Talk {
    fn new(mut program: Running) -> Self {
        let answers = program.stdout();
        Self { program, answers }
    }

    #[track_caller]
    fn lives(&mut self, word: &str) {
        writeln!(self.program.stdin(), "{word}").unwrap();
        self.program.stdin().flush().unwrap();
        assert_eq!(self.line(), word);
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// All lines that are still to come.
    fn rest(mut self) -> Vec<String> {
        std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty())).collect()
    }
}

const TICKS: &str =
    "trap 'echo bye; exit 7' TERM; i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done";

#[test]
fn one_without_a_network_goes_on_and_so_do_those_who_watch_it() {
    let world = World::offline();
    let _registry = registry(&world);
    stead(&world, &["run", "-d", "--name", "old", "--network", "none", BUSYBOX, "sh", "-c", TICKS]).ok();
    let before = process(&world, "old");
    let mut log = Talk::new(world.spawn_stead(world.path(), &["logs", "-f", "old"]));
    assert_eq!(log.line(), "tick 0");
    let mut watch = Talk::new(world.spawn_stead(world.path(), &["attach", "--no-stdin", "old"]));
    assert!(watch.line().starts_with("tick "));
    let mut shell = Talk::new(world.spawn_stead(world.path(), &["exec", "-i", "old", "cat"]));
    shell.lives("before");
    let asking =
        || world.sh(Place::Computer, "grep -c keeper.sock /proc/net/unix").trim().parse::<u32>().unwrap();
    let before_it = asking();
    let waits = Talk::new(world.spawn_stead(world.path(), &["wait", "old"]));
    world.until("it has found the keeper", || (asking() > before_it).then_some(()));
    assert_eq!(world.stead("rename old new").ok(), "new\n");
    assert_eq!(process(&world, "new"), before);
    assert_eq!(row(&world, "old"), Value::Null);
    world.stead("inspect old").code(2).says("there is no machine `old`");
    world.stead("inspect new").ok();
    // The name is anybody's at once, and both run.
    let other = "run -d --init --name old --network none 127.0.0.1:5000/lab/busybox sleep 1000";
    world.stead(other).ok();
    assert_eq!(process(&world, "new"), before);
    if role() == Role::Root {
        assert!(cgroups(&world, "new") != cgroups(&world, "old"));
    }
    shell.lives("after");
    assert_eq!(stead(&world, &["exec", "new", "sh", "-c", "echo $PPID"]).ok(), "0\n");
    assert!(world.stead("stats --no-stream new").ok().contains("new"));
    // Held still, it gets another name as well; and the one that it had. Who has no control group holds nobody.
    let is_held = role() == Role::Root;
    if is_held {
        world.stead("pause new").ok();
        assert_eq!(row(&world, "new")["phase"], "paused");
    }
    world.stead("rename new third").ok();
    if is_held {
        assert_eq!(row(&world, "third")["phase"], "paused");
        world.stead("unpause third").ok();
    }
    world.stead("rename third new").ok();
    assert_eq!(process(&world, "new"), before);
    world.stead("rename new old").code(2).says("there is a machine `old` already");
    world.stead("restart --time 0 old").ok();
    world.stead("rm --force old").ok();
    assert_eq!(process(&world, "new"), before);
    drop(shell);
    world.stead("stop new").ok();
    assert_eq!(row(&world, "new")["status"], "exited");
    assert_eq!(row(&world, "new")["exit_code"], 7);
    let text = world.stead("logs new").ok();
    assert!(text.ends_with("bye\n"), "{text}");
    for talk in [log, watch] {
        assert_eq!(talk.rest().last().map(String::as_str), Some("bye"));
    }
    assert_eq!(waits.rest(), ["7"]);
    // What it wrote is there, and it starts by its name.
    world.stead("start new").ok();
    assert_eq!(stead(&world, &["exec", "new", "hostname"]).ok(), "new\n");
    world.stead("rm --force new").ok();
}

const SERVED: &str = "\
    echo page of the first > /srv/page; httpd -p 80 -h /srv; while :; do nc -ll -p 81 -e cat; done";

#[test]
fn one_on_a_network_keeps_its_connections_and_is_found_by_its_new_name() {
    let world = World::offline();
    let _registry = registry(&world);
    let ports = ["-p", "8080:80", "-p", "8081:81"];
    let web = [&["run", "-d", "--init", "--name", "web", "--restart", "always"], &ports[..]].concat();
    stead(&world, &[&web[..], &[BUSYBOX, "sh", "-c", SERVED]].concat()).ok();
    world.stead(&format!("run -d --init --name other {BUSYBOX} sleep 1000")).ok();
    let page = "curl -s -m 5 http://127.0.0.1:8080/page";
    world.until("it serves", || {
        (world.sh_said(Place::Computer, page).out == "page of the first\n").then_some(())
    });
    let nic = |name: &str| {
        let mut nic = row(&world, name)["nics"][0].clone();
        assert_eq!(nic["names"], serde_json::json!([name]));
        nic["names"].take();
        nic
    };
    let before = (process(&world, "web"), nic("web"));
    let links = || world.stead("network enter default ip -o link").out;
    let stood = links();
    let mut published = Talk::new(world.spawn(Place::Computer, &["busybox", "nc", "127.0.0.1", "8081"]));
    published.lives("before");
    let inner = format!("nc {} 81", before.1["address"].as_str().unwrap());
    let inner = ["exec", "-i", "other", "sh", "-c", &inner];
    let mut inner = Talk::new(world.spawn_stead(world.path(), &inner));
    inner.lives("before");
    assert_eq!(world.stead("rename web front").ok(), "front\n");
    published.lives("after");
    inner.lives("after");
    assert_eq!((process(&world, "front"), nic("front")), before);
    assert_eq!(links().replace("nic front/", "nic web/"), stood, "no link went or came");
    assert_eq!(world.sh(Place::Computer, page), "page of the first\n");
    assert_eq!(world.stead("port front 80").ok(), "127.0.0.1:8080\n");
    let finds = |name: &str| stead(&world, &["exec", "other", "ping", "-c", "1", "-W", "5", name]).code;
    assert_eq!((finds("front"), finds("web")), (0, 1));
    // It finds itself, by both: its host name is what it was.
    let own = "hostname; grep -c \"$(hostname)\" /etc/hosts; ping -c 1 -W 5 front > /dev/null && echo found";
    assert!(stead(&world, &["exec", "front", "sh", "-c", own]).ok().ends_with("found\n"));
    assert!(stead(&world, &["exec", "front", "sh", "-c", own]).ok().starts_with("web\n"));
    // Another is called so at once, and is another.
    world.stead(&format!("run -d --init --name web -p 8082:80 {BUSYBOX} httpd -f -p 80 -h /srv")).ok();
    assert_ne!(nic("web")["address"], before.1["address"]);
    assert_eq!((finds("front"), finds("web")), (0, 0));
    let second = page.replace("8080", "8082");
    world.until("it serves", || {
        (world.sh_said(Place::Computer, &second).out == "from-the-image\n").then_some(())
    });
    published.lives("still");
    restarts_by_its_new_name(&world);
    world.until("it serves again", || {
        (world.sh_said(Place::Computer, page).out == "page of the first\n").then_some(())
    });
    world.stead("rm --force web").ok();
    assert_eq!(world.sh(Place::Computer, page), "page of the first\n");
    keeper_is_killed(&world);
    world.stead("rm --force front other").ok();
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
}

/// Its first process is killed, and its policy holds.
#[track_caller]
fn restarts_by_its_new_name(world: &World) {
    let before = process(world, "front");
    let pid = before.split(' ').next().unwrap();
    world.sh(Place::Computer, &format!("kill -9 {pid}"));
    world.until("it runs again", || {
        let row = row(world, "front");
        (row["status"] == "running" && row["pid"].is_u64() && process(world, "front") != before).then_some(())
    });
    let text = world.stead("events --no-stream --filter machine=front.default").ok();
    assert!(text.contains("restarts=1"), "{text}");
    if role() == Role::Root {
        let of = cgroups(world, "front");
        assert!(of.contains("/front.default"), "{of}");
    }
    assert_eq!(stead(world, &["exec", "front", "true"]).code, 0);
}

/// What a keeper leaves that is killed is cleared away by whoever comes next.
#[track_caller]
fn keeper_is_killed(world: &World) {
    let pid = keeper(world, "front");
    world.sh(Place::Computer, &format!("kill -9 {pid}"));
    world.until("it is known to be dead", || (row(world, "front")["status"] == "lost").then_some(()));
    world.stead("start front").ok();
    assert_eq!(row(world, "front")["status"], "running");
    assert_eq!(stead(world, &["exec", "front", "hostname"]).ok(), "front\n");
}

#[test]
fn one_that_goes_when_it_ends_goes_by_any_name() {
    let world = World::offline();
    let _registry = registry(&world);
    let sleeps = |name: &str, options: &str| {
        world
            .stead(&format!("run -d --init {options} --name {name} --network none {BUSYBOX} sleep 1000"))
            .ok();
    };
    sleeps("a", "--rm");
    world.stead("rename a b").ok();
    sleeps("a", "");
    world.stead("stop --time 1 b").ok();
    world.until("it has gone", || row(&world, "b").is_null().then_some(()));
    assert_eq!(row(&world, "a")["status"], "running");
    world.stead("rm --force a").ok();
    // One that is watched by the command that made it.
    let line = "trap 'exit 5' INT; echo here; while :; do sleep 0.1; done";
    let words = ["run", "--rm", "--name", "a", "--network", "none", BUSYBOX, "sh", "-c", line];
    let mut watched = Talk::new(world.spawn_stead(world.path(), &words));
    assert_eq!(watched.line(), "here");
    world.stead("rename a b").ok();
    sleeps("a", "");
    world.sh(Place::Computer, "pkill -INT -f '^[^ ]*stead run --rm --name a'");
    world.until("it has gone", || row(&world, "b").is_null().then_some(()));
    assert_eq!(watched.rest(), [""; 0]);
    assert_eq!(row(&world, "a")["status"], "running");
    world.stead("rm --force a").ok();
}

#[test]
fn whenever_the_command_is_killed_the_container_has_one_of_both_names() {
    let world = World::offline();
    let _registry = registry(&world);
    let words = ["run", "-d", "--init", "--name", "a", "--restart", "always", "-p", "8081:81", BUSYBOX];
    stead(&world, &[&words[..], &["sh", "-c", SERVED]].concat()).ok();
    let mut open = world.until("it answers", || {
        let mut talk = Talk::new(world.spawn(Place::Computer, &["busybox", "nc", "127.0.0.1", "8081"]));
        writeln!(talk.program.stdin(), "first").ok()?;
        (talk.line() == "first").then_some(talk)
    });
    let before = process(&world, "a");
    let mut dice = Dice::new();
    let (mut from, mut killed, mut renamed) = ("a", 0, 0);
    while killed < KILLS {
        let to = if from == "a" { "b" } else { "a" };
        let mut command = world.spawn_stead(world.path(), &["rename", from, to]);
        std::thread::sleep(Duration::from_millis(dice.below(LONGEST_MS)));
        killed += u64::from(command.is_alive());
        command.end();
        // Whoever changes the home next does the rest.
        stead(&world, &["network", "create", "tidied", "--reach", "isolated"]).ok();
        stead(&world, &["network", "rm", "tidied"]).ok();
        let names: Vec<&str> = ["a", "b"].into_iter().filter(|name| !row(&world, name).is_null()).collect();
        let [name] = names[..] else { panic!("it is called {names:?}") };
        renamed += u64::from(name != from);
        from = name;
        assert_eq!(process(&world, name), before);
        stead(&world, &["exec", name, "true"]).ok();
        open.lives("on");
    }
    assert!(renamed > 0, "it never was renamed");
    assert_eq!(world.stead(&format!("port {from} 81")).ok(), "127.0.0.1:8081\n");
    assert_eq!(stead(&world, &["exec", from, "ping", "-c", "1", "-W", "5", from]).code, 0);
    world.stead(&format!("rm --force {from}")).ok();
    for of_machines in ["state/machines", "run/machines"] {
        let left = std::fs::read_dir(world.path().join("home").join(of_machines)).unwrap().count();
        assert_eq!(left, 0, "in {of_machines}");
    }
}

#[test]
fn nothing_is_lost_if_the_keeper_is_killed_as_well() {
    let world = World::offline();
    let _registry = registry(&world);
    stead(&world, &["run", "-d", "--init", "--name", "a", "-p", "8080:80", BUSYBOX, "sleep", "1000"]).ok();
    stead(&world, &["exec", "a", "touch", "/mine"]).ok();
    let mut dice = Dice::new();
    let mut from = "a";
    for _ in 0..KEEPERS_KILLED {
        let to = if from == "a" { "b" } else { "a" };
        let pid = keeper(&world, from);
        let command = world.spawn_stead(world.path(), &["rename", from, to]);
        std::thread::sleep(Duration::from_millis(dice.below(LONGEST_MS)));
        world.sh(Place::Computer, &format!("kill -9 {pid}"));
        std::thread::sleep(Duration::from_millis(dice.below(LONGEST_MS / 4)));
        command.end();
        stead(&world, &["network", "create", "tidied", "--reach", "isolated"]).ok();
        stead(&world, &["network", "rm", "tidied"]).ok();
        let names: Vec<&str> = ["a", "b"].into_iter().filter(|name| !row(&world, name).is_null()).collect();
        let [name] = names[..] else { panic!("it is called {names:?}") };
        from = name;
        world.stead(&format!("start {name}")).ok();
        stead(&world, &["exec", name, "test", "-e", "/mine"]).ok();
        assert_eq!(world.stead(&format!("port {name} 80")).ok(), "127.0.0.1:8080\n");
        stead(&world, &["exec", name, "ping", "-c", "1", "-W", "5", name]).ok();
    }
    world.stead(&format!("rm --force {from}")).ok();
}

#[test]
fn what_is_left_of_another_machine_is_not_taken_for_its_files() {
    let world = World::offline();
    let _registry = registry(&world);
    for name in ["a", "c"] {
        world.stead(&format!("run -d --init --name {name} --network none {BUSYBOX} sleep 1000")).ok();
    }
    world.stead("stop --time 1 c").ok();
    let left = format!("{}/home/state/machines/b.default", world.path().display());
    world.sh(Place::Person, &format!("mkdir -p {left}/upper; touch {left}/upper/mine"));
    for name in ["a", "c"] {
        world.stead(&format!("rename {name} b")).code(1).says("is left of a machine that is on no record");
        assert_eq!(row(&world, name)["name"], name);
    }
    assert_eq!(row(&world, "b"), Value::Null);
    world.sh(Place::Person, &format!("test -e {left}/upper/mine; rm -r {left}"));
    assert_eq!(world.stead("rename a b").ok(), "b\n");
    assert_eq!(world.stead("rename c a").ok(), "a\n");
    world.stead("rm --force a b").ok();
}

#[test]
fn a_program_that_was_asked_for_by_the_old_name_is_with_those_of_its_container() {
    let world = World::offline();
    let _registry = registry(&world);
    world.stead(&format!("run -d --init --name a --network none {BUSYBOX} sleep 1000")).ok();
    world.sh(Place::Person, "mkfifo told");
    let words = ["exec", "--env-file", "told", "a", "sh", "-c", "echo $IT; cat /proc/self/cgroup"];
    let mut program = Talk::new(world.spawn_stead(world.path(), &words));
    let home = world.path().join("home").display().to_string();
    let stead = crate::support::stead();
    world.sh(Place::Person, &format!("exec 3> told; STEAD_HOME={home} {stead} rename a b; echo IT=me >&3"));
    assert_eq!(program.line(), "me");
    let cgroups = program.rest();
    assert!(!cgroups.iter().any(|line| line.contains("..")), "{cgroups:?}");
    world.stead("rm --force b").ok();
}

#[test]
fn one_on_a_real_network_is_renamed_while_it_is_stopped() {
    if role() != Role::Root {
        return untested("only root lends links");
    }
    let mut world = World::online();
    let add = format!(
        "ip link add eth1 type veth peer name eth1 netns {}; ip link set eth1 up",
        world.outside_pid()
    );
    world.sh(Place::Computer, &add);
    world.settle();
    let _registry = registry(&world);
    world.stead("network create wire --reach bridged:eth1").ok();
    stead(&world, &["run", "-d", "--init", "--name", "old", "--network", "wire", BUSYBOX, "sleep", "1000"])
        .ok();
    let before = process(&world, "old");
    let said = world.stead("rename old new").code(2);
    said.says("its MAC on a real network follows from its name").says("hint: `stead stop old` first");
    assert_eq!(process(&world, "old"), before);
    world.stead("stop --time 0 old").ok();
    assert_eq!(world.stead("rename old new").ok(), "new\n");
    world.stead("start new").ok();
    stead(&world, &["exec", "new", "ip", "link", "show", "eth0"]).ok();
    world.stead("rm --force new").ok();
    world.stead("network rm wire").ok();
    world.sh(Place::Computer, "ip link show eth1");
}

#[test]
fn a_keeper_that_does_not_answer_keeps_its_name() {
    let world = World::offline();
    let _registry = registry(&world);
    world.stead(&format!("run -d --init --name a --network none {BUSYBOX} sleep 1000")).ok();
    let (pid, before) = (keeper(&world, "a"), process(&world, "a"));
    world.sh(Place::Computer, &format!("kill -STOP {pid}"));
    let said = world.stead("rename a b").code(1).says("the keeper of `a.default` takes no other name");
    said.says("hint: `stead stop` it first");
    world.sh(Place::Computer, &format!("kill -CONT {pid}"));
    assert_eq!(process(&world, "a"), before);
    assert_eq!(row(&world, "b"), Value::Null);
    assert_eq!(world.stead("rename a b").ok(), "b\n");
    world.stead("rm --force b").ok();
}

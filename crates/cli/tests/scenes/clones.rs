//! Machines made like others: from what those have now, running or not, or from a snapshot; and when the command that
//! does it is killed.

use std::time::{Duration, Instant};

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, Said, World, role, said};

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

#[track_caller]
fn inside(world: &World, machine: &str, line: &str) -> String {
    stead(world, &["exec", machine, "sh", "-c", line]).ok()
}

const RUN: &str = "trap exit TERM; while :; do sleep 1; done";

/// What a system writes that is known by itself, beside what a person does.
const WRITE: &str = "echo one > /etc/state; rm /etc/group; mkdir -m 711 /work; touch /work/a; ln /work/a /work/b; \
    echo 0123 > /etc/machine-id; chmod 444 /etc/machine-id; mkdir -p /etc/ssh; echo key > /etc/ssh/ssh_host_rsa_key; \
    chown 7:8 /work/a; mkfifo /work/pipe";

#[test]
fn a_clone_has_the_files_of_its_source_and_is_another_machine() {
    let world = World::offline();
    let _registry = registry(&world);
    stead(
        &world,
        &[
            "run",
            "-d",
            "--name",
            "web",
            "-e",
            "NAME=value",
            "--hostname",
            "old",
            "-p",
            "8080:80",
            "-v",
            "data:/mine",
            "-l",
            "a=b",
            BUSYBOX,
            "sh",
            "-c",
            RUN,
        ],
    )
    .ok();
    inside(&world, "web", WRITE);
    inside(&world, "web", "touch /mine/shared");
    world.stead("stop --time 0 web").ok();
    // Refused before anything is made.
    world.stead("clone web web").code(2).says("there is a machine `web` already");
    world.stead("clone web copy --snapshot nosuch").code(2).says("has no snapshot `nosuch`");
    world.stead("clone nosuch copy").code(2).says("there is no machine `nosuch`");
    let made = world.stead("clone web copy --start");
    let made = made
        .says("published ports stay with `web.default`: 127.0.0.1:8080/tcp")
        .says("volume `data` is used by `web` as well")
        .says("the SSH host keys of `web.default` were left out");
    assert_eq!(made.ok(), "copy\n");
    world.stead("start web").ok();
    assert_eq!(
        inside(&world, "copy", "hostname; cat /etc/machine-id; ls /etc/ssh; ls /mine; echo $NAME"),
        "copy\nshared\nvalue\n"
    );
    assert_eq!(
        inside(&world, "web", "hostname; cat /etc/machine-id; ls /etc/ssh"),
        "old\n0123\nssh_host_rsa_key\n"
    );
    let work = |machine| {
        inside(
            &world,
            machine,
            "cat /etc/state; stat -c '%a %u %g %h %F' / /work /work/*; ls /etc/group || true",
        )
    };
    assert_eq!(work("web"), work("copy"));
    let seen = world.stead("inspect web copy --format json").json();
    let nic = |at: usize, key: &str| seen[at]["nics"][0][key].clone();
    for key in ["mac", "address"] {
        assert!(nic(0, key) != nic(1, key), "{seen}");
    }
    assert_eq!(seen[0]["labels"], seen[1]["labels"]);
    inside(&world, "copy", "ping -c 1 -W 5 web");
    // They go their own ways.
    inside(&world, "copy", "echo two > /etc/state");
    assert_eq!(inside(&world, "web", "cat /etc/state"), "one\n");
    world.stead("rm --force web").ok();
    world.stead("restart --time 0 copy").ok();
    assert_eq!(inside(&world, "copy", "cat /etc/state; ls /mine"), "two\nshared\n");
    world.stead("rm --force copy").ok();
}

const SHOP: &str = "
machines:
  web:
    image: '127.0.0.1:5000/lab/busybox'
    command: [sh, -c, 'cd /etc; i=0; while :; do i=$$((i+1)); echo $$i > a.new; mv a.new a; echo $$i > b.new; mv b.new b; done']
    volumes: ['data:/mine']
    networks: { lan: { address: 10.77.0.9, aliases: [www] } }
volumes: [data]
networks: { lan: { subnet: 10.77.0.0/24 } }
";

#[test]
fn a_machine_of_a_project_is_cloned_as_it_runs() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    shop.stead("exec web touch /mine/theirs").ok();
    world.until("it has begun", || (shop.stead("exec web ls /etc/b").code == 0).then_some(()));
    let made = world.stead("clone web.shop copy");
    if role() == Role::User && made.err.contains("cannot be held still") {
        // Without a control group of one's own nothing can be copied that changes meanwhile.
        made.code(1).says("hint: `stead stop` it first");
        assert_eq!(world.stead("ps --all --format json").json().as_array().unwrap().len(), 1);
        return;
    }
    let made = made.says("volume `data.shop` stays with its project: `/mine` is a new one");
    let made =
        made.says("it is on network `default.default`: only machines of project `shop` are on lan.shop");
    assert_eq!(made.ok(), "copy\n");
    let number = |file: &str| {
        stead(&world, &["cp", &format!("copy:/etc/{file}"), file]).ok();
        std::fs::read_to_string(world.path().join(file)).unwrap().trim().parse::<u64>().unwrap()
    };
    let (a, b) = (number("a"), number("b"));
    assert!(a == b || a == b + 1, "{a} {b}");
    let then = shop.stead("exec web cat /etc/b").ok();
    world.until("it goes on", || (shop.stead("exec web cat /etc/b").ok() != then).then_some(()));
    world.stead("start copy").ok();
    assert_eq!(inside(&world, "copy", "hostname; ls /mine"), "copy\n");
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    shop.stead("down --volumes --yes").ok();
    inside(&world, "copy", "cat /etc/a");
    world.stead("rm --force copy").ok();
}

#[test]
fn a_clone_of_a_snapshot_shares_its_files_and_outlives_it() {
    let world = World::offline();
    let _registry = registry(&world);
    stead(&world, &["run", "-d", "--name", "web", BUSYBOX, "sh", "-c", RUN]).ok();
    inside(&world, "web", WRITE);
    inside(&world, "web", "dd if=/dev/zero bs=1k count=2000 of=/work/large 2> /dev/null; chmod 711 /");
    world.stead("stop --time 0 web").ok();
    world.stead("snapshot create web first").ok();
    world.stead("start web").ok();
    inside(&world, "web", "echo two > /etc/state; rm /work/a; echo back > /etc/group");
    world.stead("stop --time 0 web").ok();
    world.stead("snapshot create web second").ok();
    world.stead("start web").ok();
    inside(&world, "web", "echo three > /etc/state");
    for (snapshot, name) in [("first", "one"), ("second", "two")] {
        stead(&world, &["clone", "web", name, "--snapshot", snapshot, "--start"]).ok();
    }
    let directory = |machine: &str| {
        world.stead(&format!("inspect {machine} --format json")).json()[0]["directory"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // The same file, and not as much again.
    let find = format!(
        "cd {}/..; find */upper */layers -name large | xargs stat -c %i | sort -u | wc -l",
        directory("web")
    );
    assert_eq!(world.sh_said(Place::Computer, &find).ok().trim(), "1");
    let look = "cat /etc/state /etc/machine-id; ls /etc/ssh /work; stat -c %a /; wc -c < /work/large; cat /etc/group || true";
    let first = "one\n/etc/ssh:\n\n/work:\na\nb\nlarge\npipe\n711\n2048000\n";
    assert_eq!(inside(&world, "one", look), first);
    assert_eq!(inside(&world, "two", look), "two\n/etc/ssh:\n\n/work:\nb\nlarge\npipe\n711\n2048000\nback\n");
    // What is written in one is in no other.
    inside(&world, "one", "echo mine >> /work/large; chmod 600 /work/large; rm /work/b");
    assert_eq!(inside(&world, "web", "tail -c 5 /work/large | tr -d '\\0'; stat -c %a /work/large"), "644\n");
    assert_eq!(inside(&world, "web", "cat /etc/ssh/ssh_host_rsa_key"), "key\n");
    world.stead("rm --force web").ok();
    assert_eq!(inside(&world, "two", "wc -c < /work/large"), "2048000\n");
    // It has a history of its own.
    world.stead("stop --time 0 one two").ok();
    world.stead("snapshot create two mine").ok();
    world.stead("start two").ok();
    inside(&world, "two", "rm -r /work");
    world.stead("reset two mine").ok();
    assert_eq!(inside(&world, "two", "cat /etc/state; wc -c < /work/large"), "two\n2048000\n");
    world.stead("clone two three --snapshot mine --start").ok();
    assert_eq!(inside(&world, "three", "cat /etc/state; wc -c < /work/large"), "two\n2048000\n");
    world.stead("reset three").ok();
    assert_eq!(inside(&world, "three", "ls /etc/state || echo none"), "none\n");
    world.stead("rm --force one two three").ok();
}

#[test]
fn a_clone_that_is_cut_off_is_there_or_is_not() {
    let world = World::offline();
    let _registry = registry(&world);
    stead(&world, &["run", "-d", "--name", "web", BUSYBOX, "sh", "-c", RUN]).ok();
    inside(&world, "web", "mkdir /etc/many; cd /etc/many; for i in $(seq 400); do echo $i > $i; done");
    world.stead("stop --time 0 web").ok();
    world.stead("snapshot create web base").ok();
    world.stead("start web").ok();
    inside(&world, "web", "cd /etc/many; for i in $(seq 400); do echo more >> $i; done");
    world.stead("stop --time 0 web").ok();
    let (mut cut, mut made) = (0, Vec::new());
    for step in 0..14 {
        let name = format!("copy{step}");
        let mut command = world.spawn_stead(world.path(), &["clone", "web", &name]);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(14 * step) {
            std::hint::spin_loop();
        }
        cut += u32::from(command.is_alive());
        drop(command);
        // Whoever comes next finds it whole or not at all.
        if stead(&world, &["start", &name]).code == 0 {
            assert_eq!(inside(&world, &name, "cat /etc/many/* | wc -l").trim(), "800", "{name}");
            made.push(name);
        }
    }
    assert!(cut > 0, "no command was ever cut off");
    stead(&world, &["clone", "web", "last"]).ok();
    let directory =
        world.stead("inspect web --format json").json()[0]["directory"].as_str().unwrap().to_owned();
    let left = world.sh_said(Place::Computer, &format!("cd {directory}/..; ls; ls ../clones || true")).ok();
    let mut expected: Vec<String> = made.iter().map(|name| format!("{name}.default")).collect();
    expected.extend(["last.default".to_owned(), "web.default".to_owned()]);
    expected.sort();
    let mut left: Vec<String> = left.lines().map(str::to_owned).collect();
    left.sort();
    assert_eq!(left, expected);
    world.stead("rm --force *").ok();
}

//! Whole computers: Debian from a disk image that was made of its packages, translated, beside containers. A boot takes a
//! minute, and on a busy computer far longer: there are few, each shows much, and all waits are long.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::registry::registry;
use crate::support::{Place, Project, Role, Said, World, role, said_after, said_within};

/// What boots a system takes this long at most.
const BOOT_LIMIT: Duration = Duration::from_secs(600);

/// The kernel's package, taken apart, which `cargo xtask setup` gets.
const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kernel");

#[track_caller]
pub(crate) fn slowly(world: &World, directory: &Path, words: &[&str]) -> Said {
    said_within(world.stead_command("home", directory, words), BOOT_LIMIT)
}

#[track_caller]
pub(crate) fn get_kernel(world: &World) {
    slowly(world, world.path(), &["kernel", "pull", KERNEL]).ok();
}

pub(crate) fn disk() -> String {
    std::env::var("STEAD_TEST_DISK").expect("`cargo xtask test vms` makes the image that this test needs")
}

#[track_caller]
fn status(project: &Project<'_>, machine: &str) -> serde_json::Value {
    project.stead(&format!("ps --all {machine} --format json")).json()[0].clone()
}

const SHOP: &str = "
machines:
  db:
    kind: vm
    image: DISK
    disk: 1g
    stop_grace_period: 5m
    ports: [\"18090:80\"]
    cloud_init: { user_data: ./db.yaml }
    volumes: [data:/srv/data, skel:/etc/skel, ./given:/srv/given:ro, ./given/note:/etc/note]
    provision: [{ run: 'cat >> /tmp/provisioned; echo $$A >> /tmp/provisioned', user: nobody, environment: [A=run] }]
    dev: { user: joe, uid: 1000, groups: [lab], keys: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB mine }
    healthcheck: { test: [CMD, test, -e, /srv/told], interval: 2s, timeout: 1m, retries: 100 }
  box:
    image: 127.0.0.1:5000/lab/busybox
    command: [sh, -c, 'trap exit TERM; while :; do sleep 1; done']
    volumes: [data:/data, skel:/skel]
    depends_on: { db: { condition: service_healthy } }
volumes: [data, skel]
";

/// What is done in `db`, once, and last. What is there need not be installed.
const TOLD: &str = "#cloud-config
write_files:
  - { path: /usr/bin/sudo, permissions: '0755', content: \"#!/bin/sh\\n\" }
  - { path: /usr/sbin/sshd, permissions: '0755', content: \"#!/bin/sh\\nexec sleep 100000\\n\" }
  - path: /etc/systemd/system/ssh.service
    content: \"[Service]\\nExecStart=/usr/sbin/sshd\\n[Install]\\nWantedBy=multi-user.target\\n\"
  - { path: /srv/told, content: \"by cloud-init\\n\" }
";

#[test]
fn a_whole_computer_stands_beside_others_and_keeps_what_it_wrote() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    let text = SHOP.replace("DISK", &disk());
    let project = world.project("shop", &text);
    std::fs::write(project.directory.join("db.yaml"), TOLD).unwrap();
    std::fs::create_dir(project.directory.join("given")).unwrap();
    std::fs::write(project.directory.join("given/note"), "of the host\n").unwrap();
    slowly(&world, &project.directory, &["up"]).ok();
    assert_eq!(project.stead("plan").ok(), "nothing to do\n");
    let db = status(&project, "db");
    assert_eq!(
        (&db["kind"], &db["driver"], &db["health"]),
        (&"vm".into(), &"qemu".into(), &"healthy".into())
    );
    is_on_the_network(&world, &project, &db);
    runs_programs(&world, &project);
    carries_files(&world, &project);
    shares_volumes(&world, &project);
    can_be_looked_at(&world, &project);
    is_kept_while_it_runs(&world, &project);
    goes_on_without_who_held_it(&world, &project);
    ends_in_order(&world, &project);
    is_kept_as_it_ended(&world, &project);
    // Another boot takes another minute; so each kind of user is shown one of the two that are left.
    match role() {
        Role::Root => comes_up_again_by_another_firmware(&world, &project, &text),
        Role::User => comes_up_without_being_told_anything(&world, &project, &text),
    }
    // Its data is on its disk, which nobody loses unasked.
    project.stead("down").code(3).says("- machine db.shop (its disk is lost) (its snapshots are lost: ");
    slowly(&world, &project.directory, &["down", "--yes"]).ok();
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
}

/// By name over both protocols, with the addresses of its leases; and from outside.
#[track_caller]
fn is_on_the_network(world: &World, project: &Project<'_>, db: &serde_json::Value) {
    let exec = |words: &[&str]| slowly(world, &project.directory, &[&["exec"], words].concat());
    assert_eq!(exec(&["db", "hostname"]).ok(), "db\n");
    let has = exec(&["db", "ip", "-o", "address", "show", "dev", "eth0"]).ok();
    for family in ["address", "address6"] {
        let address = db["nics"][0][family].as_str().unwrap();
        assert!(has.contains(&format!(" {address}/")), "no {address} in {has}");
    }
    for (from, to) in [("box", "db"), ("db", "box")] {
        for family in ["-4", "-6"] {
            exec(&[from, "ping", family, "-c1", "-W20", to]).ok();
        }
    }
    exec(&["db", "busybox", "httpd", "-p", "80", "-h", "/srv"]).ok();
    assert_eq!(world.sh(Place::Computer, "curl -sS -m 60 http://127.0.0.1:18090/told"), "by cloud-init\n");
}

/// As whom and where, and how they end.
#[track_caller]
fn runs_programs(world: &World, project: &Project<'_>) {
    let exec = |words: &[&str]| slowly(world, &project.directory, &[&["exec"], words].concat());
    exec(&["db", "sh", "-c", "echo oops >&2; exit 3"]).code(3).says("oops");
    assert_eq!(exec(&["db", "stat", "-c", "%U %s", "/tmp/provisioned"]).ok(), "nobody 4\n");
    exec(&["db", "nosuch"]).code(127).says("no such file: `nosuch`");
    assert_eq!(
        exec(&["-e", "A=1", "-w", "/tmp", "-u", "nobody", "db", "sh", "-c", "echo $A; pwd; id -un"]).ok(),
        "1\n/tmp\nnobody\n"
    );
    let shell = world.stead_command("home", &project.directory, &["shell", "db"]);
    let line = "id -un; id -u; id -nG; pwd; cat .ssh/authorized_keys; systemctl is-active ssh";
    let said = said_after(shell, line, BOOT_LIMIT).ok();
    let keys = "# stead: begin\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB mine\n# stead: end\n";
    assert_eq!(said, format!("joe\n1000\njoe lab\n/home/joe\n{keys}active\n"));
    let shell = world.stead_command("home", &project.directory, &["shell", "-u", "root", "db"]);
    let said = said_after(shell, "echo $0 $USER $HOME $PWD $SHELL; exit 6", BOOT_LIMIT).code(6);
    assert_eq!(said.out, "-bash root /root /root /bin/bash\n");
    exec(&["db", "sh", "-c", "echo kept > /srv/kept"]).ok();
    // Its disk is larger than its image, and its file system has grown with it.
    let blocks: u64 = exec(&["db", "stat", "-f", "-c", "%b", "/"]).ok().trim().parse().unwrap();
    assert!(blocks * 4096 > 850 << 20, "the file system has {blocks} blocks");
}

#[track_caller]
fn carries_files(world: &World, project: &Project<'_>) {
    let say = |words: &[&str]| slowly(world, &project.directory, words);
    say(&["cp", "db:/srv/told", "told"]).ok();
    assert_eq!(std::fs::read_to_string(project.directory.join("told")).unwrap(), "by cloud-init\n");
    std::fs::create_dir(project.directory.join("site")).unwrap();
    std::fs::write(project.directory.join("site/page"), "a page\n").unwrap();
    say(&["cp", "site", "db:/srv/"]).ok();
    assert_eq!(say(&["exec", "db", "cat", "/srv/site/page"]).ok(), "a page\n");
    say(&["cp", "db:/nosuch", "x"]).code(1).says("there is no `/nosuch` in machine `db.");
    say(&["diff", "db"]).code(2).says("is not made of an image with layers").says("hint: ");
}

/// With a container, and with its host.
#[track_caller]
fn shares_volumes(world: &World, project: &Project<'_>) {
    let exec = |words: &[&str]| slowly(world, &project.directory, &[&["exec"], words].concat());
    let shell = |machine: &str, script: &str| exec(&[machine, "sh", "-c", script]);
    shell("box", "echo of a container > /data/box").ok();
    assert_eq!(shell("db", "cat /srv/data/box; echo of a vm > /srv/data/db").ok(), "of a container\n");
    assert_eq!(shell("box", "cat /data/db; stat -c %u /data/db").ok(), "of a vm\n0\n");
    // An empty one was filled with what its system has there.
    shell("box", "test -e /skel/.bashrc").ok();
    assert_eq!(shell("db", "cat /srv/given/note /etc/note").ok(), "of the host\nof the host\n");
    // Its host sees to it that it only reads, whatever it does.
    shell("db", "echo x > /srv/given/new").code(2).says("Read-only file system");
    shell("db", "mount -o remount,bind,rw /srv/given && echo x > /srv/given/new").code(2).says("Read-only");
    // What is not asked for by root is not to be had past the places of the mounts.
    exec(&["-u", "nobody", "db", "ls", "/run/stead/mounts"]).code(2).says("Permission denied");
    let listed = project.stead("volume ls --format json").json();
    assert_eq!(listed[0]["machines"], serde_json::json!(["box.shop", "db.shop"]), "{listed}");
}

#[track_caller]
fn can_be_looked_at(world: &World, project: &Project<'_>) {
    let say = |words: &[&str]| slowly(world, &project.directory, words);
    // All that its console said is its log, and the end of it is there for who sits down at it.
    for words in [["logs", "db"], ["console", "db"]] {
        let said = say(&words).ok();
        assert!(said.contains("running 'init'"), "{said}");
    }
    let inspected = say(&["inspect", "db", "--format", "json"]).json()[0].clone();
    assert_eq!((&inspected["kind"], &inspected["disk_bytes"]), (&"vm".into(), &(1_u64 << 30).into()));
    let stages = inspected["stages"].as_array().unwrap().iter().filter_map(|stage| stage["name"].as_str());
    let stages: Vec<&str> = stages.collect();
    for name in ["prepared", "vmm", "agent", "healthy"] {
        assert!(stages.contains(&name), "{stages:?}");
    }
    let top = say(&["top", "db", "--format", "json"]).json();
    let commands: Vec<&str> =
        top.as_array().unwrap().iter().filter_map(|row| row["command"].as_str()).collect();
    assert!(commands.iter().any(|command| command.contains("systemd-networkd")), "{top}");
    let stats = say(&["stats", "--no-stream", "--format", "json", "db"]).json();
    assert!(stats[0]["pids"].as_u64().unwrap() > 10, "{stats}");
    assert!(stats[0]["read_bytes"].as_u64().unwrap() > 1 << 20, "{stats}");
}

/// Its own system switches it off.
#[track_caller]
fn ends_in_order(world: &World, project: &Project<'_>) {
    slowly(world, &project.directory, &["stop", "db"]).ok();
    let db = status(project, "db");
    assert_eq!((&db["status"], &db["exit_code"]), (&"exited".into(), &0.into()));
    let log = project.stead("logs db").ok();
    assert!(log.contains("Power down"), "{log}");
}

#[track_caller]
fn is_kept_while_it_runs(world: &World, project: &Project<'_>) {
    let say = |words: &[&str]| slowly(world, &project.directory, words);
    let shell = |script: &str| say(&["exec", "db", "sh", "-c", script]).ok();
    shell("echo as it was first > /etc/issue");
    // Its agent has its file systems stand still meanwhile, and go on.
    assert_eq!(say(&["snapshot", "create", "db", "first"]).ok(), "first\n");
    shell("rm /srv/kept; echo as it was last > /etc/issue; sync");
    assert_eq!(status(project, "db")["phase"], "running");
}

/// Its agent and what holds file systems for it are killed, while its whole disk stands still.
#[track_caller]
fn goes_on_without_who_held_it(world: &World, project: &Project<'_>) {
    const KILL: &str = "
        mkfifo /run/in; /usr/local/sbin/stead-agent --hold-still / </run/in >/run/out & holder=$!
        exec 9>/run/in; until grep held /run/out > /run/held; do sleep 1; done
        kill -9 $holder; exec systemctl kill -s KILL stead-agent";
    let exec = |script: &str| slowly(world, &project.directory, &["exec", "db", "sh", "-c", script]);
    // It may be cut off with the agent.
    exec(KILL);
    let deadline = Instant::now() + BOOT_LIMIT;
    while exec("echo on >/srv/on && cat /srv/on /run/held").out != "on\nheld\n" {
        assert!(Instant::now() < deadline, "it stands still: {}", project.stead("logs db").ok());
    }
}

/// What it wrote is set aside. Nothing is copied.
#[track_caller]
fn is_kept_as_it_ended(world: &World, project: &Project<'_>) {
    let say = |words: &[&str]| slowly(world, &project.directory, words);
    say(&["snapshot", "create", "db", "last"]).ok();
    let rows = say(&["snapshot", "ls", "db", "--format", "json"]).json();
    let names: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!((names, &rows[1]["parent"]), (vec!["first", "last"], &"first".into()));
    for row in rows.as_array().unwrap() {
        assert!(row["size_bytes"].as_u64().unwrap() > 1 << 20, "{rows}");
    }
}

/// What changes of it in the file changes it in place.
#[track_caller]
fn comes_up_again_by_another_firmware(world: &World, project: &Project<'_>, text: &str) {
    let exec = |words: &[&str]| slowly(world, &project.directory, &[&["exec"], words].concat());
    // It was kept while it ran, and goes back to that; what it wrote since goes.
    slowly(world, &project.directory, &["snapshot", "restore", "db", "first"]).ok();
    slowly(world, &project.directory, &["snapshot", "rm", "db", "last"]).ok();
    // They come up at the same time.
    let copied =
        slowly(world, &project.directory, &["clone", "db", "copy", "--snapshot", "first", "--start"]);
    copied.says("volume `data.shop` stays with its project").says("machine-id are its own").ok();
    project.write(&text.replace("    disk: 1g\n", "    disk: 1g\n    firmware: uefi\n"));
    let plan = project.stead("plan").ok();
    assert!(plan.contains("~ vm db") && !plan.contains("- vm"), "{plan}");
    slowly(world, &project.directory, &["up"]).ok();
    assert_eq!(exec(&["db", "cat", "/srv/kept", "/etc/issue"]).ok(), "kept\nas it was first\n");
    exec(&["db", "test", "-d", "/sys/firmware/efi"]).ok();
    assert_eq!(exec(&["db", "cat", "/srv/data/db", "/etc/note"]).ok(), "of a vm\nof the host\n");
    // Its file system was clean.
    let kernel = exec(&["db", "dmesg"]).ok();
    assert!(kernel.contains("EXT4-fs") && !kernel.contains("recovery"), "{kernel}");
    is_another_machine(world, project);
    // Without its keeper it is ended, and that is known.
    world.sh(Place::Computer, "kill -9 $(pgrep -P 1 -f '^[^ ]*stead __keeper.* db.shop')");
    world.until("it is known", || (status(project, "db")["status"] == "lost").then_some(()));
    let dies = world.stead("events --no-stream --filter event=die --filter machine=db.shop").ok();
    assert!(dies.ends_with("why=its keeper was killed, or the computer went off\n"), "{dies}");
}

/// A clone has its source's files, and is known by something else.
#[track_caller]
fn is_another_machine(world: &World, project: &Project<'_>) {
    let exec = |words: &[&str]| slowly(world, &project.directory, &[&["exec"], words].concat());
    assert_eq!(
        exec(&["copy.default", "cat", "/srv/kept", "/etc/issue", "/srv/given/note"]).ok(),
        "kept\nas it was first\nof the host\n"
    );
    assert_eq!(exec(&["copy.default", "hostname"]).ok(), "copy\n");
    let known = |machine: &str, path: &str| exec(&[machine, "cat", path]).ok();
    for path in ["/etc/machine-id", "/sys/class/net/eth0/address"] {
        let (source, clone) = (known("db", path), known("copy.default", path));
        assert!(source != clone && source.len() == clone.len(), "{path}: {source} {clone}");
    }
    slowly(world, &project.directory, &["rm", "--force", "copy.default"]).ok();
}

/// A computer that is told nothing has a console and a power button.
#[track_caller]
fn comes_up_without_being_told_anything(world: &World, project: &Project<'_>, text: &str) {
    let bare = text.replace("cloud_init: { user_data: ./db.yaml }", "cloud_init: off");
    let bare: String =
        bare.lines().filter(|line| !line.contains("healthcheck:")).flat_map(|line| [line, "\n"]).collect();
    let bare = bare.replace("service_healthy", "service_started");
    project.write(&bare);
    project.stead("up").code(2).says("nobody would mount its volumes in it").says("hint: ");
    let is_of_db =
        |line: &&str| line.contains("/etc/skel") || line.contains("provision:") || line.contains("dev:");
    let bare: String = bare.lines().filter(|line| !is_of_db(line)).flat_map(|line| [line, "\n"]).collect();
    project.write(&bare);
    slowly(world, &project.directory, &["up"]).ok();
    let words = ["exec", "db", "true"];
    slowly(world, &project.directory, &words).code(125).says("as its file says `cloud_init: off`");
    let says = |words: &str| {
        let deadline = Instant::now() + BOOT_LIMIT;
        while !project.stead("console db").ok().contains(words) {
            assert!(Instant::now() < deadline, "no `{words}`: {}", project.stead("logs db").ok());
            std::thread::sleep(Duration::from_millis(500));
        }
    };
    // It goes on upon what was set aside.
    says("as it was last");
    says("login:");
    let refused = project.stead("snapshot create db").code(1);
    refused.says("its guest cannot write what it has in memory").says("hint: `stead stop` it first");
    let mut console = world.spawn_stead(&project.directory, &["console", "db"]);
    console.stdin().write_all(b"nobody-here\n").unwrap();
    says("Password:");
    console.end();
    ends_in_order(world, project);
}

#[test]
fn what_cannot_be_a_computer_is_refused_before_anything_is_made() {
    let world = World::offline();
    let refused = |keys: &str, why: &str| {
        let project = world.project("shop", &format!("machines:\n  db: {{ kind: vm, {keys} }}\n"));
        std::fs::write(project.directory.join("text"), "no disk").unwrap();
        slowly(&world, &project.directory, &["up"]).code(2).says(why).says("hint: ");
        assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
    };
    refused("image: debian:12", "a vm is made from a file yet");
    refused("image: ./a.img, command: sleep", "is a `vm`, which cannot have `command`");
    refused("image: ./a.img, volumes: [/data]", "all of whose own files are on its disk");
    refused("image: ./a.img", "there is no file");
    refused("image: ./text", "cannot be made from ");
    refused(
        "image: ./a.img, cloud_init: { user_data: \"packages: [a]\\n\" }",
        "cloud-init does not know what begins",
    );
}

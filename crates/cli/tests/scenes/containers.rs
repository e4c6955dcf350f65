//! Containers from a real image: run, looked into, watched, ended, and kept by their keepers.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, Role, Said, World, role, said, untested};

/// Runs `stead` with these words, of which some have spaces.
#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

/// A machine made of the image that runs a line of shell.
#[track_caller]
fn run(world: &World, options: &str, line: &str) -> Said {
    let options = options.split_whitespace();
    let words: Vec<&str> =
        ["run", "--rm"].into_iter().chain(options).chain([BUSYBOX, "sh", "-c", line]).collect();
    stead(world, &words)
}

/// What `ps` says of a machine's state.
#[track_caller]
fn status(project: &Project<'_>, machine: &str) -> serde_json::Value {
    project.stead(&format!("ps {machine} --format json")).json()[0].clone()
}

#[test]
fn a_program_runs_in_an_image_and_ends_with_its_own_code() {
    let world = World::offline();
    let _registry = registry(&world);
    assert_eq!(run(&world, "", "echo hello; echo oops >&2").ok(), "hello\n");
    assert!(run(&world, "", "echo oops >&2").says("oops").ok().is_empty());
    run(&world, "", "exit 7").code(7);
    run(&world, "--init", "kill -9 $$").code(137);
    stead(&world, &["run", "--rm", BUSYBOX, "nosuch"]).code(127).says("no such file: `nosuch`");
    stead(&world, &["run", "--rm", BUSYBOX, "/etc/passwd"]).code(126).says("cannot run `/etc/passwd`");
    stead(&world, &["run", "--rm", "127.0.0.1:5000/lab/nosuch", "true"]).code(125).says("nosuch");
    stead(&world, &["run", "--memory", "12q", BUSYBOX]).code(125).says("`--memory`: `12q` is not a size");
    // What failed left nothing behind.
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
    let mut cat = world.stead_command("home", world.path(), &["run", "--rm", "-i", BUSYBOX, "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text = "line\n".repeat(100_000);
    let mut stdin = cat.stdin.take().unwrap();
    let sent = text.clone();
    let writer = std::thread::spawn(move || stdin.write_all(sent.as_bytes()).unwrap());
    let mut back = String::new();
    cat.stdout.take().unwrap().read_to_string(&mut back).unwrap();
    writer.join().unwrap();
    assert!(cat.wait().unwrap().success());
    assert_eq!((back.len(), back == text), (text.len(), true));
}

/// The record of a machine that goes when it ends waits for no disk: when the power goes, its files may be there without.
#[test]
fn what_is_left_of_a_machine_that_was_to_go_is_not_the_next_ones() {
    let world = World::offline();
    let _registry = registry(&world);
    run(&world, "--name other", "true").ok();
    let left = world.path().join("home/state/machines/again.default");
    std::fs::create_dir_all(left.join("upper")).unwrap();
    std::fs::write(left.join("fleeting"), "").unwrap();
    std::fs::write(left.join("upper/secret"), "").unwrap();
    assert_eq!(run(&world, "--name again", "ls / | grep -c secret").code(1).out, "0\n");
    assert!(!left.exists());
}

/// Whoever calls has the ids of the machine, or is told that there are none.
#[test]
fn a_file_system_in_memory_is_whose_it_is_said_to_be() {
    let ask = |world: &World| {
        let _registry = registry(world);
        let options = "--tmpfs /scratch:uid=7,gid=8,mode=0750 --mount type=tmpfs,target=/other";
        run(world, options, "stat -c '%u %g %a' /scratch /other")
    };
    let said = ask(&World::offline());
    match role() {
        Role::Root => assert_eq!(said.ok(), "7 8 750\n0 0 1777\n"),
        Role::User => drop(said.code(125).says("have no user 7").says("have no group 8")),
    }
    let Some(world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    assert_eq!(ask(&world).ok(), "7 8 750\n0 0 1777\n");
}

#[test]
fn options_are_seen_inside() {
    let world = World::offline();
    let _registry = registry(&world);
    let sees = |options: &str, line: &str| run(&world, options, line).ok().trim().to_owned();
    assert_eq!(sees("-e A=1 -e FROM=me", "echo $A $FROM $HOSTNAME"), "1 me busybox-1");
    assert_eq!(sees("-w /tmp", "pwd"), "/tmp");
    assert_eq!(sees("-h alone --name other", "hostname; grep -c other /etc/hosts"), "alone\n2");
    assert_eq!(
        sees("", "cat /proc/1/comm; set -- /proc/[0-9]*; echo $#; cat /data/seed"),
        "sh\n1\nfrom-the-image"
    );
    assert_eq!(
        sees(
            "--read-only --tmpfs /scratch:size=1m",
            "touch /x /etc/hosts 2>&1; touch /scratch/y && df /scratch | tail -1 | awk '{print $2}'"
        ),
        "touch: /x: Read-only file system\ntouch: /etc/hosts: Read-only file system\n1024"
    );
    assert_eq!(
        sees(
            "--add-host far:192.0.2.9 --add-host far=[fd00::9] --dns 192.0.2.53 --dns-search x.test",
            "grep far /etc/hosts; cat /etc/resolv.conf"
        ),
        "192.0.2.9\tfar\nfd00::9\tfar\nnameserver 192.0.2.53\nsearch x.test"
    );
    assert_eq!(sees("--ulimit nofile=100:200", "ulimit -n; ulimit -Hn"), "100\n200");
    assert_eq!(sees("--sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(sees("--network none", "ls /sys/class/net"), "lo");
    assert_eq!(
        sees("", "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t '"),
        "NoNewPrivs:0\nSeccomp:2"
    );
    assert_eq!(
        sees("--cap-drop ALL", "grep CapEff /proc/self/status | tr -d '\\t '"),
        "CapEff:0000000000000000"
    );
    assert_eq!(
        sees("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status | tr -d '\\t '"),
        "NoNewPrivs:1"
    );
    // Where there is one id only, nobody can be somebody else.
    if role() == Role::Root {
        assert_eq!(sees("-u app", "id -u; id -g; echo $HOME"), "1000\n1000\n/home");
        assert_eq!(sees("-u 12:34 --group-add 56", "id -u; id -G"), "12\n34 56");
        assert_eq!(sees("-u 12:34", "grep Groups: /proc/self/status | tr -d '\\t '"), "Groups:34");
        let many = "sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9; true";
        run(&world, "--pids 5", many).code(2).says("can't fork");
    }
}

#[test]
fn more_options_are_seen_inside() {
    let world = World::offline();
    let _registry = registry(&world);
    let sees = |options: &str, line: &str| run(&world, options, line).ok().trim().to_owned();
    world.stead("network create lan --subnet 10.0.5.0/24 --subnet6 fd00:5::/64").ok();
    let network = "--network lan --ip 10.0.5.7 --ip6 fd00:5::7 --mac 02:00:00:00:00:07 --network-alias www";
    let seen = sees(network, "ip address show dev eth0; ping -c 1 -W 5 www");
    for part in ["10.0.5.7/24", "fd00:5::7/64", "02:00:00:00:00:07", "1 packets received"] {
        assert!(seen.contains(part), "`{part}` is not in\n{seen}");
    }
    std::fs::write(world.path().join("some.env"), "# a file\nA=from the file\nB=2\n").unwrap();
    assert_eq!(sees("--env-file some.env -e B=3", "echo $A $B"), "from the file 3");
    assert_eq!(sees("--shm-size 1m", "df /dev/shm | tail -1 | awk '{print $2}'"), "1024");
    assert_ne!(sees("--init", "cat /proc/1/comm"), "sh");
    assert_eq!(sees("--oom-score-adj 500", "cat /proc/self/oom_score_adj"), "500");
    assert_eq!(
        sees(
            "--mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700",
            "stat -c %a /t; df /t | tail -1 | awk '{print $2}'"
        ),
        "700\n1024"
    );
    assert_eq!(sees("--mount type=volume,source=keep,target=/k", "echo kept > /k/it; cat /k/it"), "kept");
    let read_only =
        run(&world, "--mount type=volume,source=keep,target=/k,readonly", "cat /k/it; touch /k/x");
    assert_eq!(read_only.code(1).says("Read-only file system").out, "kept\n");
}

#[test]
fn values_on_a_command_line_are_taken_as_they_stand() {
    let world = World::offline();
    let _registry = registry(&world);
    let with = |words: &[&str]| {
        let mut command = world.stead_command("home", world.path(), words);
        command.env("FROM_HERE", "a $b");
        said(command)
    };
    let file = "# a file\nFROM_HERE\nNOT_SET_HERE\nA=$FOO\nP=p$w0rd # all\nQ=\"x\"\n";
    std::fs::write(world.path().join("some.env"), file).unwrap();
    let line = "echo \"$FROM_HERE|${NOT_SET_HERE-none}|$A|$P|$Q|$E|$1\"";
    let words =
        ["run", "--rm", "-e", "E=$FOO", "--env-file", "some.env", BUSYBOX, "sh", "-c", line, "-", "$X"];
    assert_eq!(with(&words).ok(), "a $b|none|$FOO|p$w0rd # all|\"x\"|$FOO|$X\n");
    let words = ["run", "--rm", "-e", "FROM_HERE", "-e", "NOT_SET_HERE", BUSYBOX, "sh", "-c", line];
    assert_eq!(with(&words).ok(), "a $b|none|||||\n");
    with(&["create", "--name", "kept", "-e", "FROM_HERE", "--label", "l=$x", BUSYBOX, "sleep", "99"]).ok();
    let seen = world.stead("inspect kept --format json").json();
    let made = seen[0].to_string();
    assert!(made.contains("a $b") && made.contains("\"$x\""), "{made}");
    std::fs::write(world.path().join("bad.env"), "A=1\nB C=2\n").unwrap();
    with(&["run", "--env-file", "bad.env", BUSYBOX])
        .code(125)
        .says("bad.env:2: `B C` cannot name a variable");
    with(&["run", "--env-file", "nosuch.env", BUSYBOX]).code(125).says("cannot read nosuch.env");
    with(&["run", "-e", "", BUSYBOX]).code(125).says("`--env`");
}

#[test]
fn options_that_mean_nothing_together_are_refused() {
    let world = World::offline();
    let _registry = registry(&world);
    for (option, value) in [
        ("--ip", "10.0.5.7"),
        ("--ip6", "fd00::7"),
        ("--mac", "02:00:00:00:00:07"),
        ("--network-alias", "www"),
    ] {
        let what = format!("`--network none` and `{option}`");
        stead(&world, &["run", "--network", "none", option, value, BUSYBOX, "true"]).code(125).says(&what);
    }
    for (network, hint) in
        [("bridge", "machines that name none are on `default`"), ("slirp4netns", "`host` or `machine:NAME`")]
    {
        let what = format!("`--network {network}` cannot be honoured");
        stead(&world, &["run", "--network", network, BUSYBOX, "true"]).code(125).says(&what).says(hint);
    }
    for network in ["host", "machine:db", "container:db"] {
        stead(&world, &["run", "--network", network, "--network", "lan", BUSYBOX, "true"]).code(125);
    }
    for option in [["--ip", "10.0.5.7"], ["--network-alias", "www"], ["--publish", "8080:80"]] {
        let line = [["run", "--network", "host"].as_slice(), &option, &[BUSYBOX, "true"]].concat();
        stead(&world, &line).code(125).says(option[0]);
    }
    stead(&world, &["run", "--network", "host", "-P", BUSYBOX, "true"]).code(125).says("`--publish-all`");
    stead(&world, &["run", "--network", "container:db", BUSYBOX, "true"])
        .code(125)
        .says("no command made a machine `db`");
    stead(&world, &["run", "--network", "nosuch", BUSYBOX, "true"])
        .code(125)
        .says("there is no network `nosuch`");
    for policy in ["always", "on-failure:3"] {
        let what = format!("`--rm` and `--restart {policy}`");
        stead(&world, &["run", "--rm", "--restart", policy, BUSYBOX, "true"]).code(125).says(&what);
    }
    stead(&world, &["run", "--rm", "--restart", "no", "--network", "none", BUSYBOX, "true"]).ok();
    if role() == Role::Root {
        let cpus = ["run", "--cpus", "100000", BUSYBOX, "true"];
        stead(&world, &cpus).code(125).says("100000 processors are more than the ");
    }
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
}

#[test]
fn what_a_machine_lacks_here_is_refused_before_it_is_made() {
    let world = World::offline();
    let _registry = registry(&world);
    std::fs::write(world.path().join("bad.json"), "{").unwrap();
    for (option, value, why) in [
        ("--mount", "type=bind,src=/nosuch,dst=/x", "there is no `/nosuch`, which is to be at `/x`"),
        ("--device", "/dev/nosuch", "there is no device `/dev/nosuch`"),
        ("--security-opt", "seccomp=/nosuch.json", "cannot read seccomp profile `/nosuch.json`"),
        ("--security-opt", "seccomp=./bad.json", "bad.json`"),
        ("--sysctl", "kernel.hostname=x", "kernel parameter `kernel.hostname` is this computer's"),
        ("--memory-swap", "64m", "memory alone is not"),
    ] {
        let said = stead(&world, &["run", "--name", "x", option, value, BUSYBOX, "true"]).code(125).says(why);
        assert!(!said.err.contains("> start"), "{}", said.err);
    }
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
    assert_eq!(world.stead("network ls --format json").json(), serde_json::json!([]));
    let file = format!(
        "secrets: {{ key: {{ file: nosuch.key }} }}\nmachines:\n  db: {{ image: {BUSYBOX}, command: sleep 9 }}\n  web:\n    image: {BUSYBOX}\n    secrets: [key]\n    depends_on: {{ db: {{ condition: service_healthy }} }}\n"
    );
    let shop = world.project("shop", &file);
    let said = shop
        .stead("up")
        .code(2)
        .says("stead.yaml:6:5")
        .says("nosuch.key`, which is to be at `/run/secrets/key`");
    let said = said.says("stead.yaml:7:").says("machine `db` is never known to be healthy");
    assert!(said.out.is_empty() && world.stead("ps --all --format json").json() == serde_json::json!([]));
}

#[test]
fn the_usual_flags_are_taken() {
    let world = World::offline();
    let _registry = registry(&world);
    let ok = |line: &str| world.stead(line).ok();
    ok(&format!("run -d --name web --net default -v /anonymous {BUSYBOX} sleep 999"));
    std::fs::write(world.path().join("some.env"), "A=$x\n").unwrap();
    let words = ["exec", "-T", "--env-file", "some.env", "web", "sh", "-c", "echo $A"];
    assert_eq!(stead(&world, &words).ok(), "$x\n");
    // What is left to itself goes on when the command has ended.
    let line = "echo $A > /began; sleep 2; echo over > /ended; sleep 999";
    let words = ["exec", "-d", "-e", "A=1", "web", "sh", "-c", line];
    assert_eq!(stead(&world, &words).ok(), "");
    world.until("it has ended", || {
        (world.stead("exec web cat /began /ended").out == "1\nover\n").then_some(())
    });
    stead(&world, &["exec", "-d", "-t", "web", "true"]).code(125);
    stead(&world, &["exec", "-d", "web", "nosuch"]).code(127);
    let words = ["run", "-d", "--name", "says", BUSYBOX, "sh", "-c", "echo 1; echo 2; echo 3"];
    stead(&world, &words).ok();
    ok("wait says");
    assert_eq!(ok("logs -n 1 says"), "3\n");
    ok("stop --timeout 0 web");
    ok("rm -v web says");
    let id = world.stead("image ls --format json").json()[0]["id"].as_str().unwrap()["sha256:".len()..][..12]
        .to_owned();
    assert_eq!(ok("image ls -q"), format!("{id}\n"));
    let archive = world.path().join("box.tar").display().to_string();
    ok(&format!("image save {BUSYBOX} --output {archive}"));
    assert!(ok(&format!("image load -i {archive}")).starts_with(&id));
}

#[test]
fn the_last_health_tests_are_told() {
    let world = World::offline();
    let _registry = registry(&world);
    let health = ["--health-cmd", "echo first; echo not yet; exit 3", "--health-start-period", "1h"];
    let often = ["--health-start-interval", "100ms", "--health-interval", "1h"];
    let words = [["run", "-d"].as_slice(), &["--name", "web"], &health, &often, &[BUSYBOX, "sleep", "999"]];
    stead(&world, &words.concat()).ok();
    let inspect = || world.stead("inspect web --format json").json()[0].clone();
    let seen = world.until("it was tested five times", || {
        Some(inspect()).filter(|seen| seen["health_tests"].as_array().is_some_and(|tests| tests.len() == 5))
    });
    let test = &seen["health_tests"][4];
    assert_eq!((&test["code"], &test["output"]), (&3.into(), &"first\nnot yet".into()), "{test:#}");
    assert!(test["at_ms"].as_u64() >= seen["health_tests"][0]["at_ms"].as_u64());
    let text = world.stead("inspect web").ok();
    let line = text.lines().rfind(|line| line.starts_with("health test")).unwrap_or_default();
    assert!(line.contains(" exit code 3 after ") && line.ends_with(": not yet"), "{text}");
}

#[test]
fn the_usual_flags_of_projects_are_taken() {
    let world = World::offline();
    let _registry = registry(&world);
    let file = |machines: &str| format!("volumes: {{ data: {{}} }}\nmachines: {{ {machines} }}\n");
    let machine =
        |name: &str| format!("{name}: {{ image: {BUSYBOX}, command: sleep 999, volumes: ['data:/d'] }}");
    let shop = world.project("shop", &file(&format!("{}, {}", machine("web"), machine("old"))));
    shop.stead("up -d").ok();
    shop.write(&file(&machine("web")));
    let names = || {
        let rows = shop.stead("ps --format json").json();
        let name = |row: &serde_json::Value| row["name"].as_str().unwrap_or_default().to_owned();
        rows.as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    shop.stead("up -d web").ok();
    assert_eq!(names(), ["old", "web"]);
    shop.stead("up -d --remove-orphans web").ok();
    assert_eq!(names(), ["web"]);
    shop.stead("up -d --remove-orphans").ok();
    assert_eq!(names(), ["web"]);
    // An image that is not here, with the name of a machine that is.
    let said = shop.stead("create --pull never web echo hi").code(2);
    said.says("the project has a machine `web`; hint: `stead run web` makes");
    shop.stead("down -v -t 0").code(3).says("not done without consent");
    assert_eq!(names(), ["web"]);
    // Process 1 of a container does not hear SIGTERM: without the limit it is waited for.
    let start = std::time::Instant::now();
    shop.stead("down -v -t 0 --remove-orphans --yes").ok();
    assert!(start.elapsed().as_secs() < 9, "{:?}", start.elapsed());
    assert_eq!(world.stead("volume ls --format json").json(), serde_json::json!([]));
}

#[test]
fn what_docker_takes_on_the_command_line_is_taken() {
    let world = World::offline();
    let _registry = registry(&world);
    let say = |line: &str| stead(&world, &line.split(' ').collect::<Vec<_>>());
    // Names are found by what they were given as, and called as all are here.
    let made = say(&format!("run -d --name My_DB -v Data_Vol:/x -p 80 {BUSYBOX} sleep 999"));
    assert_eq!(made.ok(), "my-db\n");
    assert_eq!(say("exec My_DB echo hi").ok(), "hi\n");
    assert_eq!(say("volume inspect Data_Vol --format json").json()[0]["name"], "data-vol");
    // With its target alone a port is one that this computer chooses.
    let port = say("port my-db --format json").json();
    assert_eq!(port[0]["target"], 80, "{port:#}");
    assert_ne!(port[0]["port"], 80, "{port:#}");
    say("rm -f my_db").ok();
    say("volume rm -f data_vol").ok();
    say("volume create Other_Vol").ok();
    say("volume prune -f").ok();
    assert_eq!(say("volume ls --format json").json(), serde_json::json!([]));
    // An image by its id, with a name and without.
    let id = say(&format!("image ls -q {BUSYBOX}")).ok().trim().to_owned();
    assert_eq!(say(&format!("run --rm {id} echo by id")).ok(), "by id\n");
    assert_eq!(say(&format!("run --rm sha256:{id} echo by id")).ok(), "by id\n");
    say(&format!("image tag {BUSYBOX} docker.io/library/box:1")).ok();
    assert_eq!(say("run --rm --pull never box:1 echo by name").ok(), "by name\n");
    say("image rm -f box:1").ok();
    say("image prune -f").ok();
    // Without a terminal it reads what is piped in.
    let mut cat = world.stead_command("home", world.path(), &["run", "--rm", "-T", BUSYBOX, "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cat.stdin.take().unwrap().write_all(b"piped\n").unwrap();
    let output = cat.wait_with_output().unwrap();
    assert_eq!((output.status.success(), &*output.stdout), (true, &b"piped\n"[..]));
}

#[test]
fn still_more_options_are_seen_inside() {
    let world = World::offline();
    let _registry = registry(&world);
    let sees = |options: &str, line: &str| run(&world, options, line).ok().trim().to_owned();
    let bits = |options: &str| {
        u64::from_str_radix(&sees(options, "grep CapEff /proc/self/status | cut -f2"), 16).unwrap()
    };
    const NET_ADMIN: u64 = 1 << 12;
    assert_eq!(bits("") & NET_ADMIN, 0);
    assert_eq!(bits("--cap-add NET_ADMIN") & NET_ADMIN, NET_ADMIN);
    assert_eq!(bits("--cap-drop ALL --cap-add NET_ADMIN"), NET_ADMIN);
    assert_eq!(bits("--privileged") & NET_ADMIN, NET_ADMIN);
    stead(&world, &["run", "-d", "--name", "kept", BUSYBOX, "sleep", "1000"]).ok();
    for (options, allowed) in [("", 0), ("--privileged ", NET_ADMIN)] {
        let line = format!("exec {options}kept sh -c");
        let words: Vec<&str> = line.split(' ').chain(["grep CapEff /proc/self/status | cut -f2"]).collect();
        let bits = u64::from_str_radix(stead(&world, &words).ok().trim(), 16).unwrap();
        assert_eq!(bits & NET_ADMIN, allowed, "{options}");
    }
    stead(&world, &["rm", "--force", "kept"]).ok();
    assert_eq!(sees("--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status | cut -f2"), "0");
    let words = ["run", "--rm", "--entrypoint", "echo", BUSYBOX, "an", "argument"];
    assert_eq!(stead(&world, &words).ok(), "an argument\n");
    stead(&world, &["run", "--rm", "--platform", "linux/s390x", BUSYBOX]).code(125).says("linux/s390x");
    stead(&world, &["run", "--rm", "--pull", "never", "lab/nosuch", "true"]).code(125).says("is not here");
    assert_eq!(sees("--pull always", "echo pulled"), "pulled");
}

#[test]
fn health_labels_and_signals_are_as_the_options_say() {
    let world = World::offline();
    let _registry = registry(&world);
    let sees = |options: &str, line: &str| run(&world, options, line).ok().trim().to_owned();
    world.stead("network create lan").ok();
    let words = [
        "run",
        "-d",
        "--name",
        "web",
        "--stop-signal",
        "INT",
        "--stop-timeout",
        "30",
        "-l",
        "tier=front",
        "--health-cmd",
        "exit 1",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
        "--health-timeout",
        "5s",
        "--health-start-period",
        "0s",
        BUSYBOX,
        "sh",
        "-c",
        "trap 'exit 8' INT; while :; do sleep 0.1; done",
    ];
    stead(&world, &words).ok();
    world.until("it is ill", || {
        let rows =
            world.stead("ps -a --filter health=unhealthy --filter label=tier=front --format json").json();
        (rows.as_array().unwrap().len() == 1).then_some(())
    });
    assert_eq!(world.stead("ps -aq --filter network=default").ok(), "web.default\n");
    assert_eq!(world.stead("ps -aq --filter network=lan").ok(), "");
    world.stead("stop web").ok();
    assert_eq!(world.stead("ps -aq --filter exited=8 --filter project=default").ok(), "web.default\n");
    // Docker's letter for it.
    stead(&world, &["run", "-d", "--init", "--name", "box", "--no-healthcheck", BUSYBOX, "sleep", "1000"])
        .ok();
    world.stead("rm -f box web").ok();
    if role() == Role::Root {
        assert_eq!(
            sees(
                "-m 32m",
                "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2> /dev/null || cat /sys/fs/cgroup/memory.max"
            ),
            "33554432"
        );
        // Of one of the two versions of control groups, each with numbers of its own.
        let weights = [
            ("cpu/cpu.shares", "cpu.weight"),
            ("memory/memory.soft_limit_in_bytes", "memory.low"),
            ("blkio/blkio.bfq.weight", "io.bfq.weight io.weight"),
        ];
        let line =
            weights.map(|(one, two)| format!("cat {one} 2> /dev/null || cat {two} 2> /dev/null; ")).concat();
        let seen = sees(
            "--cpu-shares 512 --memory-reservation 16m --blkio-weight 200",
            &format!("cd /sys/fs/cgroup; {line}"),
        );
        let seen: Vec<&str> =
            seen.lines().map(|line| line.strip_prefix("default ").unwrap_or(line)).collect();
        assert!(["512", "20"].contains(&seen[0]) && seen[1] == "16777216", "{seen:?}");
        assert!(["200", "1920"].contains(&seen[2]), "{seen:?}");
        assert_eq!(sees("--cpuset-cpus 0", "grep Cpus_allowed_list /proc/self/status | cut -f2"), "0");
        assert_eq!(sees("--device /dev/zero:/dev/nought:r", "head -c 3 /dev/nought | wc -c"), "3");
    }
}

#[test]
fn volumes_and_directories_of_the_computer_are_mounted() {
    let world = World::offline();
    let _registry = registry(&world);
    let here = world.path().join("site");
    std::fs::create_dir(&here).unwrap();
    std::fs::write(here.join("page"), "hello").unwrap();
    let bind = format!("{}:/site:ro", here.display());
    let bound = stead(
        &world,
        &["run", "--rm", "-v", &bind, BUSYBOX, "sh", "-c", "cat /site/page; touch /site/x 2>&1"],
    );
    assert_eq!(bound.code(1).out, "hellotouch: /site/x: Read-only file system\n");
    run(&world, "-v keep:/keep", "echo kept > /keep/it").ok();
    assert_eq!(run(&world, "-v keep:/keep:ro", "cat /keep/it").ok(), "kept\n");
    // A new volume begins with what the image has there.
    assert_eq!(run(&world, "-v fresh:/data", "cat /data/seed").ok(), "from-the-image\n");
    let missing =
        stead(&world, &["run", "--rm", "--mount", "type=bind,source=/nosuch,target=/x", BUSYBOX, "true"]);
    missing.code(125).says("/nosuch");
    mounts_travel(&world);
}

/// Mounts made later, on this computer's side and in the machine, at each of its paths.
#[track_caller]
fn mounts_travel(world: &World) {
    let here = world.path().join("travels").display().to_string();
    let set_up = "mkdir travels; busybox mount -t tmpfs -o mode=777 travels travels; \
        busybox mount --make-shared travels; mkdir -m 777 travels/ours travels/theirs travels/own";
    world.sh(Place::Computer, set_up);
    // Where they would not, nobody is left to believe it.
    for way in ["rslave", "shared"] {
        let path = format!("{}/site:/x:{way}", world.path().display());
        let said = stead(world, &["run", "--rm", "-v", &path, BUSYBOX, "true"]).code(125);
        said.says("no mounts travel to `").says("is private").says("hint: `mount --make-shared /");
    }
    let paths = ["slave", "rslave", "shared", "rshared"].map(|way| format!("{here}:/{way}:{way}"));
    let private = format!("{here}:/private");
    let long = format!("type=bind,source={here},target=/long,bind-propagation=rslave");
    let mut words = vec!["run", "-d", "--init", "--name", "far", "--cap-add", "SYS_ADMIN"];
    words.extend(["-v", &private, "--mount", &long]);
    words.extend(paths.iter().flat_map(|path| ["-v", path.as_str()]));
    words.extend([BUSYBOX, "sleep", "1000"]);
    stead(world, &words).ok();
    world.sh(Place::Computer, "busybox mount -t tmpfs ours travels/ours; echo > travels/ours/it");
    let inside = |line: &str| stead(world, &["exec", "far", "sh", "-c", line]).out;
    let all = |file: &str| {
        ["long", "rshared", "rslave", "shared", "slave"].map(|path| format!("/{path}/{file}\n")).concat()
    };
    assert_eq!(inside("ls -d /*/ours/it"), all("ours/it"));
    inside("mount -t tmpfs theirs /shared/theirs; echo > /shared/theirs/it");
    inside("mount -t tmpfs own /slave/own; echo > /slave/own/it");
    // An ordinary user's mounts are none of the computer's, wherever in the machine they are seen.
    let (expected, outside) = match role() {
        Role::Root => (all("theirs/it"), "travels/ours/it\ntravels/theirs/it\n"),
        Role::User => ("/shared/theirs/it\n".to_owned(), "travels/ours/it\n"),
    };
    assert_eq!(inside("ls -d /*/theirs/it"), expected);
    assert_eq!(inside("ls -d /*/own/it"), "/slave/own/it\n");
    assert_eq!(world.sh_said(Place::Computer, "ls -d travels/*/it").out, outside);
    world.sh(Place::Computer, "busybox umount travels/ours");
    assert_eq!(inside("ls -d /*/ours/it"), "");
    world.stead("rm -f far").ok();
    world.sh(Place::Computer, "busybox umount -l travels; rmdir travels");
}

const SHOP: &str = "
name: shop
machines:
  db:
    image: IMAGE
    command: sh -c 'echo up; sleep 0.3; touch /tmp/ok; exec sleep 1000'
    init: true
    healthcheck: { test: [CMD, test, -e, /tmp/ok], interval: 100ms, retries: 50 }
  job: { image: IMAGE, command: [sh, -c, 'echo migrated'] }
  web:
    image: IMAGE
    command: [httpd, -f, -p, '80', -h, /www]
    init: true
    volumes: ['site:/www']
    ports: ['127.0.0.1:8080:80']
    depends_on: { db: { condition: service_healthy }, job: { condition: service_completed_successfully } }
volumes: [site]
";

#[test]
fn a_project_of_containers_comes_up_in_order_and_finds_each_other() {
    let world = World::offline();
    let _registry = registry(&world);
    let text = SHOP.replace("IMAGE", BUSYBOX);
    let shop = world.project("shop", &text);
    let done = shop.stead("up").ok();
    let place = |step: &str| {
        done.lines().position(|line| line == step).unwrap_or_else(|| panic!("no {step}\n{done}"))
    };
    assert!(place("> await db.shop healthy") < place("> start web.shop"));
    assert!(place("> await job.shop completed") < place("> start web.shop"));
    assert_eq!(status(&shop, "db")["health"], "healthy");
    assert_eq!(status(&shop, "job")["exit_code"], 0);
    stead_in(&shop, &["exec", "web", "sh", "-c", "echo page > /www/index.html"]).ok();
    assert_eq!(world.sh(Place::Computer, "curl -s -m 5 http://127.0.0.1:8080/"), "page\n");
    assert_eq!(stead_in(&shop, &["exec", "db", "wget", "-qO-", "http://web/"]).ok(), "page\n");
    assert_eq!(shop.stead("logs job").ok(), "migrated\n");
    // Only what is changed is made anew.
    let (db, web) = (status(&shop, "db")["pid"].clone(), status(&shop, "web")["pid"].clone());
    shop.write(&text.replace("[httpd, -f,", "[httpd, -f, -v,"));
    let changed = shop.stead("up").ok();
    assert!(changed.contains("> stop web.shop") && !changed.contains("db.shop\n- "), "{changed}");
    assert_eq!(status(&shop, "db")["pid"], db);
    assert_ne!(status(&shop, "web")["pid"], web);
    assert_eq!(world.sh(Place::Computer, "curl -s -m 5 http://127.0.0.1:8080/"), "page\n");
    let down = shop.stead("down").ok();
    assert!(down.contains("- machine web.shop") && !down.contains("volume"), "{down}");
}

#[track_caller]
fn stead_in(project: &Project<'_>, words: &[&str]) -> Said {
    said(project.world.stead_command(&project.home, &project.directory, words))
}

#[test]
fn stopped_and_started_a_machine_has_its_files_and_addresses() {
    let world = World::offline();
    let _registry = registry(&world);
    stead(&world, &["run", "-d", "--init", "--name", "box", BUSYBOX, "sleep", "1000"]).ok();
    let loose = world.project("elsewhere", "name: elsewhere\n");
    let before = status(&loose, "box.default");
    stead(&world, &["exec", "box", "sh", "-c", "echo mine > /etc/mine"]).ok();
    world.stead("stop box").ok();
    assert_eq!(status(&loose, "box.default")["status"], "exited");
    stead(&world, &["exec", "box", "true"]).code(125).says("does not run");
    world.stead("start box").ok();
    assert_eq!(stead(&world, &["exec", "box", "cat", "/etc/mine"]).ok(), "mine\n");
    assert_eq!(status(&loose, "box.default")["nics"], before["nics"]);
    if role() == Role::Root {
        world.stead("pause box").ok();
        assert_eq!(status(&loose, "box.default")["phase"], "paused");
        world.stead("unpause box").ok();
    }
    world.stead("kill box").ok();
    assert_eq!(world.stead("wait box").ok(), "137\n");
    world.stead("rm box").ok();
    world.stead("rm box").code(2).says("there is no machine `box`");
}

#[test]
fn a_machine_is_started_again_as_its_policy_says() {
    let world = World::offline();
    let _registry = registry(&world);
    let line = "echo run; exit 3";
    stead(&world, &["run", "-d", "--name", "again", "--restart", "on-failure:2", BUSYBOX, "sh", "-c", line])
        .ok();
    assert_eq!(world.stead("wait again").ok(), "3\n");
    assert_eq!(world.stead("logs again").ok(), "run\nrun\nrun\n");
    stead(&world, &["run", "-d", "--rm", "--name", "gone", BUSYBOX, "sleep", "0.2"]).ok();
    world.until("what was to go has gone", || {
        let rows = world.stead("ps --all --format json").json();
        (rows.as_array().unwrap().len() == 1).then_some(())
    });
    world.stead("rm again").ok();
}

#[test]
fn of_the_nic_of_a_machine_that_was_to_go_nothing_is_left_when_its_command_ends() {
    let world = World::offline();
    let _registry = registry(&world);
    let sets = "for set in ports guarded macs addr4 addr6 self; do nft list set bridge stead $set; done";
    let line = format!("{{ ip -o link; {sets}; }} | grep -o 'stv-[a-z0-9-]*' | sort -u");
    let nics = || stead(&world, &["network", "enter", "--", "sh", "-c", &line]).ok();
    stead(&world, &["run", "-d", "--name", "stays", BUSYBOX, "sleep", "1000"]).ok();
    let before = nics();
    assert_eq!(before.lines().count(), 1, "{before}");
    for _ in 0..5 {
        assert!(run(&world, "--name goes", "ip -o link show dev eth0").ok().contains("eth0"));
        assert_eq!(nics(), before);
    }
    world.stead("rm --force stays").ok();
}

#[test]
fn whoever_is_killed_no_machine_is_lost() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &format!("machines: {{ a: {{ image: {BUSYBOX}, command: sleep 1000, init: true }}, b: {{ image: {BUSYBOX}, command: sleep 1000, init: true }} }}"));
    shop.stead("up").ok();
    let pid_of = |word: &str| {
        let line = format!("pgrep -f '{word}' | head -1");
        world.sh(Place::Computer, &line).trim().to_owned()
    };
    let b = status(&shop, "b")["pid"].clone();
    // The switchboard, and a command in the middle of watching: the machines do not notice.
    world.sh(Place::Computer, &format!("kill -9 {}", pid_of("__switchboard")));
    let watching = world.spawn_stead(&shop.directory, &["attach", "--no-stdin", "a"]);
    watching.end();
    assert_eq!(status(&shop, "b")["pid"], b);
    // A keeper: its own machine ends with it, is seen to have, and comes again.
    world.sh(Place::Computer, &format!("kill -9 {}", pid_of("__keeper.* a.shop")));
    world.until("the machine is seen to be dead", || (status(&shop, "a")["status"] == "lost").then_some(()));
    assert_eq!(status(&shop, "b")["pid"], b);
    assert!(shop.stead("up").ok().contains("> start a.shop"));
    assert_eq!(status(&shop, "a")["status"], "running");
    // The engine: the machines lose their networks, and are started anew.
    world.sh(Place::Computer, &format!("kill -9 {}", pid_of("__anchor")));
    shop.stead("up").ok();
    assert_ne!(status(&shop, "b")["pid"], b);
    assert_eq!(stead_in(&shop, &["exec", "a", "ping", "-c", "1", "-W", "5", "b"]).code, 0);
    shop.stead("down").ok();
}

//! MicroVMs from a real image, translated, beside containers: run, looked into, ended, and killed with those who look
//! after them. A boot takes seconds, and on a busy computer far longer: there are few, and all waits are long.

use std::path::Path;
use std::time::Duration;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{
    Place, Project, Role, Said, World, executable, role, said_after, said_within, stead as program, untested,
};

/// What boots a guest takes this long at most.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// The kernel's package, taken apart, which `cargo xtask setup` gets.
pub(crate) const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kernel");

#[track_caller]
pub(crate) fn slowly(world: &World, directory: &Path, words: &[&str]) -> Said {
    said_within(world.stead_command("home", directory, words), BOOT_LIMIT)
}

#[track_caller]
pub(crate) fn get_kernel(world: &World) {
    let name = slowly(world, world.path(), &["kernel", "pull", KERNEL]).ok();
    assert!(world.stead("kernel ls").ok().contains(name.trim()));
}

#[track_caller]
fn status(project: &Project<'_>, machine: &str) -> serde_json::Value {
    project.stead(&format!("ps --all {machine} --format json")).json()[0].clone()
}

#[track_caller]
fn read(project: &Project<'_>, name: &str) -> String {
    std::fs::read_to_string(project.directory.join(name)).unwrap()
}

/// The VMM of a machine, by its command line.
fn vmm(world: &World, machine: &str) -> String {
    let pattern = format!("guest={machine}.shop,");
    let found = world.sh_said(Place::Computer, &format!("pgrep -f '[q]emu-system.*{pattern}'"));
    found.out.trim().to_owned()
}

#[test]
fn a_program_runs_in_a_guest_and_ends_with_its_own_code() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    let line = "echo hello; echo oops >&2; cat /data/seed; uname -r; echo $FROM; cat /proc/sys/kernel/panic_on_oops; exit 7";
    let words = ["run", "--rm", "--kind", "microvm", "--name", "one", BUSYBOX, "sh", "-c", line];
    let said = slowly(&world, world.path(), &words).code(7).says("oops");
    let kernel = world.stead("kernel ls --format json").json()[0]["name"].as_str().unwrap().to_owned();
    // One that fails in part is not left to run on without that part.
    assert_eq!(said.out, format!("hello\nfrom-the-image\n{kernel}\nimage\n1\n"));
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
    // Nobody waits for one that comes up any more: it goes, with its VMM.
    let words = ["run", "--rm", "--cold", "--kind", "microvm", "--name", "two", BUSYBOX, "sleep", "1000"];
    let left = world.spawn_stead(world.path(), &words);
    let find = "pgrep -f '[q]emu-system.*guest=two.default,'";
    // Held, so that it does not come up meanwhile.
    let hold = format!("kill -STOP $({find})");
    world.until("it comes up", || (world.sh_said(Place::Computer, &hold).code == 0).then_some(()));
    left.end();
    world.sh(Place::Computer, &format!("kill -CONT $({find})"));
    world.until("it has gone", || {
        (world.stead("ps --all --format json").json() == serde_json::json!([])).then_some(())
    });
    world.until("its VMM has gone", || (world.sh_said(Place::Computer, find).code == 1).then_some(()));
    // What it cannot do is refused before anything is made.
    let words = ["run", "--kind", "microvm", "-v", "/tmp:/x:rshared", BUSYBOX, "true"];
    slowly(&world, world.path(), &words)
        .code(125)
        .says("has mounts of its own, which do not travel")
        .says("hint: ");
    let words = ["run", "--kind", "microvm", "--system", BUSYBOX];
    slowly(&world, world.path(), &words).code(125).says("cannot have `mode: system` yet");
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
}

const SHOP: &str = "
machines:
  web:
    image: 127.0.0.1:5000/lab/busybox
    kind: microvm
    command: [sh, -c, 'trap exit TERM; echo served >> /data/seed; httpd -p 80 -h /data; while :; do sleep 1; done']
    ports: [\"18080:80\"]
    volumes: [\"pool:/pool\", \"known:/srv\", \"./site:/site:ro\", \"./drop:/drop\", \"./motd:/etc/motd\"]
    provision: [{ run: 'echo $$A as $$(id -un) >> /etc/provisioned', environment: { A: run } }]
    healthcheck: { test: [CMD, wget, -qO-, 'http://127.0.0.1/seed'], interval: 1s, timeout: 60s }
  box:
    image: 127.0.0.1:5000/lab/busybox
    command: [sh, -c, 'trap exit TERM; while :; do sleep 1; done']
    volumes: [\"pool:/pool\"]
    depends_on: { web: { condition: service_healthy } }
volumes: { pool: { external: true, name: shared }, known: {} }
";

/// Brings the project up, which tells how long that took.
#[track_caller]
fn comes_up_by_stages(world: &World, project: &Project<'_>) {
    world.stead("volume create shared").ok();
    let timings = slowly(world, &project.directory, &["up", "--timings"]).ok();
    for (machine, stage) in [("web", "kernel"), ("web", "network"), ("web", "healthy"), ("box", "created")] {
        let is_it = |line: &str| line.starts_with(&format!("{machine}.shop ")) && line.contains(stage);
        assert!(timings.lines().any(is_it), "{timings}");
    }
}

/// What can be seen of a guest, and carried into it and out of it.
#[track_caller]
fn looks_into_it(world: &World, project: &Project<'_>) {
    lets_somebody_in(world, project);
    let say = |words: &[&str]| slowly(world, &project.directory, words);
    // Files, both ways; nothing outside of the machine is meant by a link in it.
    say(&["cp", "web:/data/seed", "seed"]).ok();
    assert!(read(project, "seed").starts_with("from-the-image\n"));
    say(&["cp", "site", "web:/tmp/"]).ok();
    assert_eq!(say(&["exec", "web", "cat", "/tmp/site/page"]).ok(), "a page\n");
    say(&["exec", "web", "ln", "-s", "/etc/hostname", "/tmp/link"]).ok();
    say(&["cp", "web:/nosuch", "x"]).code(1).says("error: there is no `/nosuch` in machine `web.shop`");
    say(&["cp", "nosuch", "web:/tmp/"]).code(1).says("error: there is no `nosuch` here");
    say(&["cp", "site/page", "web:/nosuch/x"])
        .code(1)
        .says("there is no directory `/nosuch` in machine `web.shop`");
    let changes = say(&["diff", "web"]).ok();
    assert!(changes.contains("A /tmp/link\n") && changes.contains("C /tmp\n"), "{changes}");
    let top = say(&["top", "web", "--format", "json"]).json();
    let commands: Vec<&str> =
        top.as_array().unwrap().iter().filter_map(|row| row["command"].as_str()).collect();
    assert!(commands.iter().any(|command| command.starts_with("httpd")), "{top}");
    let stats = say(&["stats", "--no-stream", "--format", "json", "web"]).json();
    assert!(
        stats[0]["pids"].as_u64().unwrap() >= 2 && stats[0]["received_bytes"].as_u64().unwrap() > 0,
        "{stats}"
    );
    let inspected = say(&["inspect", "web", "--format", "json"]).json();
    let stages: Vec<&str> = inspected[0]["stages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|stage| stage["name"].as_str())
        .collect();
    for name in ["prepared", "vmm", "kernel", "network", "started", "healthy"] {
        assert!(stages.contains(&name), "{stages:?}");
    }
    // The console: what was said there before, and what is said now.
    let crash = "mount -o remount,rw /proc/sysrq-trigger; echo h > /proc/sysrq-trigger";
    say(&["exec", "--privileged", "web", "sh", "-c", crash]).ok();
    assert!(say(&["console", "web"]).ok().contains("sysrq: HELP"));
}

/// A user's own shell.
#[track_caller]
fn lets_somebody_in(world: &World, project: &Project<'_>) {
    let shell = world.stead_command("home", &project.directory, &["shell", "-u", "app", "web"]);
    let said = said_after(shell, "echo $0 $USER $HOME $PWD $FROM; exit 6", BOOT_LIMIT).code(6);
    assert_eq!(said.out, "-sh app /home /\n");
    let words = ["__ssh-proxy", "web.shop.stead", "root"];
    slowly(world, &project.directory, &words).code(1).says("`web.shop` has no sshd").says("hint: ");
}

/// What is left to itself goes on when the command has ended.
fn leaves_to_itself(exec: &dyn Fn(&[&str]) -> Said) {
    exec(&["web", "nosuch"]).code(127).says("no such file: `nosuch`");
    exec(&["-d", "web", "nosuch"]).code(127).says("no such file: `nosuch`");
    let wait = "until [ -e /tmp/go ]; do sleep 0.1; done; echo late > /tmp/late";
    assert_eq!(exec(&["-d", "web", "sh", "-c", wait]).ok(), "");
    let late = "touch /tmp/go; until [ -s /tmp/late ]; do sleep 0.1; done; cat /tmp/late";
    assert_eq!(exec(&["web", "sh", "-c", late]).ok(), "late\n");
}

/// The files of this computer and of the project that a guest is given.
#[track_caller]
fn shares_files(world: &World, project: &Project<'_>) {
    let exec =
        |machine: &str, line: &str| slowly(world, &project.directory, &["exec", machine, "sh", "-c", line]);
    assert_eq!(exec("web", "cat /site/page /etc/motd").ok(), "a page\nhello\n");
    // An empty volume has at first what the image has there.
    assert_eq!(
        exec("web", "cat /srv/page; echo more >> /srv/page; cat /srv/page").ok(),
        "from-the-image\nfrom-the-image\nmore\n"
    );
    // That it is only read is seen to on this side: what may do all in its guest cannot change that.
    exec("web", "echo x > /site/page").code(1).says("Read-only file system");
    let force = "mount -o remount,rw /site; echo x > /site/page";
    let words = ["exec", "--privileged", "web", "sh", "-c", force];
    slowly(world, &project.directory, &words).code(1).says("Read-only file system");
    // What it writes is here, and belongs to whom a container's would.
    exec("web", "echo from-web > /drop/a; echo changed > /etc/motd; mkdir -p /pool/b; echo b > /pool/b/c")
        .ok();
    assert_eq!(read(project, "drop/a"), "from-web\n");
    assert_eq!(read(project, "motd"), "changed\n");
    exec("box", "cat /pool/b/c; echo from-box > /pool/d").ok();
    assert_eq!(exec("web", "cat /pool/d; stat -c %u /pool/d").ok(), "from-box\n0\n");
    types_for_one_that_does_not_read(world, project);
}

/// What is sent to a program that does not read it holds up no other: not while it waits, nor when its sender was killed.
#[track_caller]
fn types_for_one_that_does_not_read(world: &World, project: &Project<'_>) {
    let mut zeroes = world.stead_command("home", &project.directory, &["exec", "-i", "web", "sleep", "900"]);
    zeroes.stdin(std::fs::File::open("/dev/zero").unwrap());
    let mut zeroes = zeroes.spawn().unwrap();
    let sender = "pgrep -n -f '[s]tead exec -i web sleep 900'";
    let mut before = String::new();
    world.until("it can send no more", || {
        let sent = world.sh_said(Place::Computer, &format!("grep wchar: /proc/$({sender})/io")).out;
        let is_full = !sent.is_empty() && sent == before;
        before = sent;
        is_full.then_some(())
    });
    let writes_on = || slowly(world, &project.directory, &["cp", "site", "web:/tmp/typed"]).ok();
    writes_on();
    world.sh(Place::Computer, &format!("kill -9 $({sender})"));
    zeroes.wait().unwrap();
    writes_on();
}

#[test]
fn a_guest_stands_beside_a_container_on_one_network_whoever_is_killed() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    let project = world.project("shop", SHOP);
    for (path, text) in [("site/page", "a page\n"), ("drop/keep", ""), ("motd", "hello\n")] {
        let path = project.directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let bring_up = || slowly(&world, &project.directory, &["up"]).ok();
    comes_up_by_stages(&world, &project);
    assert_eq!(project.stead("plan").ok(), "nothing to do\n");
    assert_eq!(status(&project, "web")["kind"], "microvm");
    assert_eq!(status(&project, "web")["health"], "healthy");
    // By name, both ways, and from outside.
    for (from, to) in [("box", "web"), ("web", "box")] {
        let words = ["exec", from, "ping", "-c1", "-W20", to];
        slowly(&world, &project.directory, &words).ok();
    }
    assert_eq!(
        world.sh(Place::Computer, "curl -sS -m 60 http://127.0.0.1:18080/seed"),
        "from-the-image\nserved\n"
    );
    let exec = |words: &[&str]| slowly(&world, &project.directory, &[&["exec"], words].concat());
    exec(&["web", "sh", "-c", "echo oops >&2; exit 3"]).code(3).says("oops");
    leaves_to_itself(&exec);
    assert_eq!(
        exec(&["-e", "A=1", "-w", "/tmp", "-u", "app", "web", "sh", "-c", "echo $A; pwd; id -un"]).ok(),
        "1\n/tmp\napp\n"
    );
    looks_into_it(&world, &project);
    shares_files(&world, &project);
    // The jail: nobody, without rights, in namespaces of its own.
    let pid = vmm(&world, "web");
    let seen =
        world.sh(Place::Computer, &format!("grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/{pid}/status"));
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"]
    );
    // Held, it does nothing; let go on, its clock is that of this computer again.
    project.stead("pause web").ok();
    assert_eq!(status(&project, "web")["phase"], "paused");
    project.stead("pause web").code(1).says("it does not run");
    slowly(&world, &project.directory, &["exec", "web", "true"]).says("is paused");
    project.stead("unpause web").ok();
    assert_eq!(status(&project, "web")["phase"], "running");
    let now = exec(&["web", "date", "+%s"]).ok().trim().parse::<u64>().unwrap();
    let here = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(now.abs_diff(here) < 60, "{now} {here}");
    // The VMM is killed: the machine has ended, and what it wrote is there at its next start.
    // To its guest that is a loss of power, so it writes to disk before.
    slowly(&world, &project.directory, &["exec", "web", "sync"]).ok();
    world.sh(Place::Computer, &format!("kill -9 {pid}"));
    world.until("the machine has ended", || (status(&project, "web")["status"] == "exited").then_some(()));
    let why = project.stead("inspect web").ok();
    assert!(why.contains("its VMM ended (signal: 9 (SIGKILL))"), "{why}");
    bring_up();
    let words = ["exec", "web", "cat", "/etc/provisioned", "/data/seed"];
    assert!(slowly(&world, &project.directory, &words).ok().starts_with("run as root\nfrom-the-image\n"));
    // Its kernel gives up: that is told, too.
    let crash = "mount -o remount,rw /proc/sysrq-trigger; echo c > /proc/sysrq-trigger";
    slowly(&world, &project.directory, &["exec", "--privileged", "web", "sh", "-c", crash]);
    world.until("the machine has ended", || (status(&project, "web")["status"] == "exited").then_some(()));
    let why = project.stead("inspect web").ok();
    assert!(why.contains("its kernel gave up: ") && why.contains("not syncing: sysrq"), "{why}");
    bring_up();
    // Its keeper is killed: the guest goes with it.
    let keeper = world.sh(Place::Computer, "pgrep -f '[_]_keeper.* web.shop'");
    world.sh(Place::Computer, &format!("kill -9 {}", keeper.trim()));
    world.until("the guest is gone", || vmm(&world, "web").is_empty().then_some(()));
    assert_eq!(status(&project, "web")["status"], "lost");
    // One word moves it.
    project.write(&SHOP.replace("kind: microvm", "kind: container"));
    bring_up();
    assert_eq!(status(&project, "web")["kind"], "container");
    project.stead("exec box ping -c1 -W20 web").ok();
    project.stead("down").ok();
}

const WORK: &str = "
machines:
  web:
    image: 127.0.0.1:5000/lab/busybox
    kind: microvm
    init: true
    command: sleep 1000
    networks: []
    volumes: [\"./manager:/bin/apk:ro\"]
    dev: { user: joe, uid: 70000, groups: [lab], keys: [] }
    provision: [{ run: id > /tmp/who, user: joe }]
";

#[test]
fn somebody_works_in_a_guest_with_an_id_of_their_own() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    let project = world.project("shop", WORK);
    let manager = "#!/bin/sh -e\nfor program in sudo sshd; do echo '#!/bin/sh' > /bin/$program; chmod 755 /bin/$program; done\n";
    executable(&project.directory.join("manager"), manager.as_bytes());
    slowly(&world, &project.directory, &["up"]).ok();
    assert_eq!(project.stead("plan").ok(), "nothing to do\n");
    let words = ["exec", "web", "cat", "/tmp/who", "/etc/sudoers.d/stead-dev"];
    let who = "uid=70000(joe) gid=70000(joe) groups=999(lab),70000(joe)\n";
    let told = slowly(&world, &project.directory, &words).ok();
    assert_eq!(told, format!("{who}joe ALL=(ALL:ALL) NOPASSWD: ALL\n"));
    let shell = world.stead_command("home", &project.directory, &["shell", "web"]);
    assert_eq!(said_after(shell, "echo $USER $PWD; id -u", BOOT_LIMIT).ok(), "joe /home/joe\n70000\n");
    project.stead("down").ok();
}

/// What a guest needs to run this program in: the libraries that it is built with, at their places, and the modules of
/// its kernel that it lacks otherwise, in their order.
pub(crate) const GIVE: &str = r#"
    mkdir -p given/files/bin
    strip -o given/files/bin/stead STEAD
    cp -L --parents $(ldd STEAD | grep -o '/[^ ]*') given/files
    cd given
    number=10
    for module in netfilter/nfnetlink netfilter/nf_tables ipv4/netfilter/nf_defrag_ipv4 ipv6/netfilter/nf_defrag_ipv6 \
        netfilter/nf_conntrack netfilter/nft_ct netfilter/nf_nat netfilter/nft_chain_nat netfilter/nft_masq netfilter/nft_limit \
        ipv4/netfilter/nf_socket_ipv4 ipv6/netfilter/nf_socket_ipv6 netfilter/nft_socket llc/llc 802/stp bridge/bridge \
        bridge/netfilter/nft_meta_bridge; do
        cp KERNEL/lib/modules/*/kernel/net/$module.ko $number.ko
        number=$((number + 1))
    done
"#;

/// What is done in the guest. Its own program makes room below it, as an init does, and nothing runs from what is shared.
const INSIDE: &str = "
    set -e
    for module in /given/*.ko; do insmod $module; done
    cp -r /given/files/. /
    mkdir /sys/fs/cgroup/init
    echo $$ > /sys/fs/cgroup/init/cgroup.procs
    stead image load /given/box.tar > /dev/null
    umount /given
    set +e
    stead run --name box --network none --memory 32m --memory-swap 48m --cpus .5 --pids-limit 5 --cpu-shares 512 --memory-reservation 16m \
        --blkio-weight 200 BUSYBOX sh -c \"$WITHIN\"
    echo ended $?
    stead events --no-stream --filter event=oom | cut -d' ' -f2-
";

/// What is done in the container in the guest.
const WITHIN: &str = "
    cd /sys/fs/cgroup
    grep . memory.max memory.swap.max memory.low cpu.max cpu.weight io.weight pids.max
    (for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done)
    x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done
";

/// A guest has control groups of version 2 alone, as most computers by now.
#[test]
fn limits_are_kept_where_there_is_version_2_alone() {
    if role() == Role::User {
        return untested("a guest is the same for whoever starts it, and takes its time");
    }
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    world.sh(Place::Computer, &GIVE.replace("STEAD", program()).replace("KERNEL", KERNEL));
    world.stead(&format!("image pull {BUSYBOX}")).ok();
    world.stead(&format!("image save {BUSYBOX} --output given/box.tar")).ok();
    let within = format!("WITHIN={WITHIN}");
    let line = INSIDE.replace("BUSYBOX", BUSYBOX);
    let options = ["--privileged", "--memory", "512m", "--tmpfs", "/home", "--tmpfs", "/run"];
    let set =
        ["-e", &within, "-e", "STEAD_HOME=/home", "-e", "XDG_RUNTIME_DIR=/run", "-v", "./given:/given:ro"];
    let words = [&["run", "--rm", "--kind", "microvm"], &options[..], &set, &[BUSYBOX, "sh", "-c", &line]];
    let said = slowly(&world, world.path(), &words.concat()).says("can't fork");
    let expected = "memory.max:33554432\nmemory.swap.max:16777216\nmemory.low:16777216\ncpu.max:50000 100000\ncpu.weight:20\n\
        io.weight:default 1920\npids.max:5\nended 137\nmachine oom box.default\n";
    assert_eq!(said.ok(), expected);
}

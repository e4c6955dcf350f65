//! What goes wrong on real computers: programs that write, fork or hang without end, and disks that are full.

use std::io::BufRead;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, Said, World, role, said, untested};

/// As much as a log takes: three files of 10 MiB, and what one reading of the machine's pipe adds to the last one. A
/// line of two bytes has a head of 41.
const LOG_MAX_BYTES: u64 = 3 * (10 << 20) + 22 * (32 << 10);

/// A keeper has less than 3 MiB for itself, beside the pages of the program that all share; the test's program is not
/// optimised.
const KEEPER_MAX_KIB: u64 = 4 << 10;

/// Runs `stead` with these words, of which some have spaces.
#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

/// Has a machine run a line of shell in the background.
#[track_caller]
fn start(world: &World, name: &str, options: &str, line: &str) {
    let options = options.split_whitespace();
    let words: Vec<&str> =
        ["run", "-d", "--name", name].into_iter().chain(options).chain([BUSYBOX, "sh", "-c", line]).collect();
    stead(world, &words).ok();
}

#[track_caller]
fn inspect(world: &World, machine: &str) -> Value {
    world.stead(&format!("inspect {machine} --format json")).json()[0].clone()
}

#[test]
fn a_program_that_writes_without_end_fills_neither_the_disk_nor_its_keepers_memory() {
    let world = World::offline();
    let _registry = registry(&world);
    start(&world, "calm", "--init", "echo calm; exec sleep 1000");
    start(&world, "flood", "--init", "exec yes");
    let log = world.path().join("home/state/machines/flood.default/log");
    let files = || -> Vec<u64> {
        let names = std::fs::read_dir(&log).unwrap().flatten().map(|entry| entry.file_name());
        let mut numbers: Vec<u64> = names.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    let mut follow = world.spawn_stead(world.path(), &["logs", "--follow", "--tail", "1", "flood"]);
    for number in 1..=4 {
        world.until("a file of the log is set aside", || (*files().last()? >= number).then_some(()));
    }
    world.until("the oldest are gone", || (files().len() <= 3).then_some(()));
    let bytes: u64 = files()
        .iter()
        .filter_map(|n| std::fs::metadata(log.join(format!("{n:010}"))).ok())
        .map(|m| m.len())
        .sum();
    assert!(bytes <= LOG_MAX_BYTES, "the log has {bytes} bytes");
    let resident =
        "grep -h RssAnon /proc/$(pgrep -P 1 -f '^[^ ]*stead __keeper.* flood.default')/status | tr -dc 0-9";
    let resident: u64 = world.sh(Place::Computer, resident).trim().parse().unwrap();
    assert!(resident <= KEEPER_MAX_KIB, "the keeper has {resident} KiB");
    // Whoever follows sees whole lines.
    for line in follow.stdout().lines().take(1000) {
        assert_eq!(line.unwrap(), "y");
    }
    // Whoever asks is answered, and others go on as before.
    assert_eq!(world.stead("logs --tail 3 flood").ok(), "y\ny\ny\n");
    world.stead("exec flood true").ok();
    world.stead("exec calm true").ok();
    assert_eq!(world.stead("logs calm").ok(), "calm\n");
    world.stead("stop flood --time 1").ok();
    follow.end();
    world.stead("rm flood").ok();
    assert!(!log.exists());
}

#[test]
fn who_follows_the_logs_of_several_sees_every_run_of_them_and_ends_with_the_last() {
    let world = World::offline();
    let _registry = registry(&world);
    let wait = "while ! [ -e /go ]; do sleep 0.1; done";
    start(&world, "twice", "--restart on-failure:1", &format!("echo begun; {wait}; exit 3"));
    start(&world, "once", "", &format!("{wait}; echo once"));
    let mut follow = world.spawn_stead(world.path(), &["logs", "--follow", "twice", "once"]);
    let mut lines = follow.stdout().lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.contains("twice") && first.ends_with("begun"), "{first}");
    // What they wait for stays there when they are started again.
    for name in ["twice", "once"] {
        world.stead(&format!("exec {name} touch /go")).ok();
    }
    let mut rest: Vec<String> = lines.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    rest.sort();
    assert_eq!(rest, ["begun", "once"]);
    world.until("it ends by itself", || (!follow.is_alive()).then_some(()));
}

#[test]
fn a_program_that_does_not_want_to_end_is_killed_after_its_time_of_grace() {
    let world = World::offline();
    let _registry = registry(&world);
    let stubborn = "trap '' TERM INT; echo up; while :; do sleep 0.1; done";
    start(&world, "one", "--stop-timeout 1", stubborn);
    start(&world, "two", "", stubborn);
    // Before it says so it has not yet shut its ears.
    for name in ["one", "two"] {
        world.until("it is up", || (world.stead(&format!("logs {name}")).ok() == "up\n").then_some(()));
    }
    let begun = std::time::Instant::now();
    world.stead("stop one").ok();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it had no time of grace");
    world.stead("stop two --time 0").ok();
    for name in ["one", "two"] {
        assert_eq!(world.stead(&format!("wait {name}")).ok(), "137\n");
        let exit = inspect(&world, name)["exit"].clone();
        assert_eq!((&exit["code"], &exit["asked"]), (&json!(137), &json!(true)));
    }
    // A signal that it heeds has the exit code that the program chooses.
    start(&world, "three", "--stop-signal USR1", "trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done");
    world.until("it is up", || (world.stead("logs three").ok() == "up\n").then_some(()));
    world.stead("stop three").ok();
    assert_eq!(world.stead("wait three").ok(), "9\n");
}

#[test]
fn a_machine_that_was_killed_stays_down_whatever_its_policy() {
    let world = World::offline();
    let _registry = registry(&world);
    let heeds = "trap 'exit 0' TERM; trap : USR1; echo up; while :; do sleep 0.1; done";
    start(&world, "killed", "--restart always", "exec sleep 99");
    start(&world, "asked", "--restart unless-stopped", heeds);
    start(&world, "crash", "--restart always", heeds);
    for name in ["asked", "crash"] {
        world.until("it is up", || (world.stead(&format!("logs {name}")).ok() == "up\n").then_some(()));
    }
    // What it survives changes nothing.
    world.stead("kill --signal USR1 crash").ok();
    world.stead("exec crash kill -TERM 1").ok();
    world.until("it was started again", || (inspect(&world, "crash")["restarts"] == 1).then_some(()));
    world.stead("kill killed").ok();
    world.stead("kill --signal TERM asked").ok();
    for (name, code) in [("killed", 137), ("asked", 0)] {
        assert_eq!(world.stead(&format!("wait {name}")).ok(), format!("{code}\n"));
        let exit = inspect(&world, name)["exit"].clone();
        assert_eq!(
            (&exit["code"], &exit["asked"], &exit["restarts"]),
            (&json!(code), &json!(true), &json!(0))
        );
    }
    // One that waits to be started again is not.
    start(&world, "waits", "--restart always", "exit 1");
    world.until("it waits", || (inspect(&world, "waits")["restarts"].as_u64() >= Some(4)).then_some(()));
    world.stead("kill waits").ok();
    assert_eq!(world.stead("wait waits").ok(), "1\n");
    assert_eq!(inspect(&world, "waits")["status"], "exited");
}

#[test]
fn machines_are_started_again_as_often_as_their_policy_says_and_ever_more_slowly() {
    let world = World::offline();
    let _registry = registry(&world);
    let count = "echo run; exit 3";
    start(&world, "thrice", "--restart on-failure:3", count);
    start(&world, "ever", "--restart always", "echo run");
    start(&world, "unless", "--restart unless-stopped", count);
    start(&world, "well", "--restart on-failure", "echo run");
    assert_eq!(world.stead("wait thrice").ok(), "3\n");
    assert_eq!(world.stead("logs thrice").ok(), "run\n".repeat(4));
    assert_eq!(world.stead("wait well").ok(), "0\n");
    assert_eq!(world.stead("logs well").ok(), "run\n");
    assert_eq!(inspect(&world, "thrice")["exit"]["restarts"], 3);
    for name in ["ever", "unless"] {
        let seen = world.until("it was started again and again", || {
            let seen = inspect(&world, name);
            (seen["restarts"].as_u64().is_some_and(|restarts| restarts >= 4)).then_some(seen)
        });
        assert_eq!(seen["status"], "running", "it has a keeper: {seen}");
    }
    // Each wait is twice as long as the one before.
    let starts = world.stead("events --no-stream --filter event=start --format json thrice").ok();
    let dies = world.stead("events --no-stream --filter event=die --format json thrice").ok();
    let at = |line: &str| -> f64 {
        let event: Value = serde_json::from_str(line).unwrap();
        let (_, clock) = event["time"].as_str().unwrap().trim_end_matches('Z').split_once('T').unwrap();
        clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
    };
    let waits: Vec<f64> = dies
        .lines()
        .zip(starts.lines().skip(1))
        // Midnight may have come between.
        .map(|(died, started)| (at(started) - at(died)).rem_euclid(86_400.0))
        .collect();
    assert_eq!(waits.len(), 3);
    for (wait, least) in waits.iter().zip([0.1, 0.2, 0.4]) {
        assert!(*wait >= least, "{waits:?}");
    }
    // What is stopped stays so, whatever the policy, also in the middle of a wait.
    for name in ["ever", "unless"] {
        world.stead(&format!("stop {name}")).ok();
        assert_eq!(inspect(&world, name)["status"], "exited");
    }
    // Started by a person, it counts from the beginning.
    world.stead("start thrice").ok();
    assert_eq!(world.stead("wait thrice").ok(), "3\n");
    assert_eq!(world.stead("logs thrice").ok(), "run\n".repeat(8));
}

#[test]
fn a_fork_bomb_hits_its_limit_and_nobody_else() {
    if role() == Role::User {
        return untested("limits take a control group, which the ordinary user of the tests has not");
    }
    let world = World::offline();
    let _registry = registry(&world);
    start(&world, "calm", "--init", "exec sleep 1000");
    // A shell that cannot fork ends, and what it has started stays.
    let bomb = "(while :; do sleep 1000 & done) & exec sleep 1000";
    start(&world, "bomb", "--pids 40 --init", bomb);
    let stats =
        |machine: &str| world.stead(&format!("stats --no-stream --format json {machine}")).json()[0].clone();
    world.until("it has as many processes as it may have", || {
        let seen = stats("bomb");
        assert_eq!(seen["pids_limit"], 40);
        (seen["pids"].as_u64()? >= 39).then_some(())
    });
    assert!(stats("bomb")["pids"].as_u64().unwrap() <= 40);
    assert!(world.stead("logs bomb").says("can't fork").ok().is_empty());
    assert_eq!(inspect(&world, "bomb")["status"], "running");
    world.stead("exec calm true").ok();
    // All of it goes at once.
    world.stead("stop bomb --time 0").ok();
    world.until("nothing of it is left", || {
        (world.sh(Place::Computer, "pgrep -c -f 'sleep 100[0]' || true").trim() == "1").then_some(())
    });
    world.stead("rm bomb").ok();
}

/// A home on a small disk, which is filled and freed. What goes with the computer is elsewhere, as it is by default.
struct SmallDisk {
    world: World,
}

impl SmallDisk {
    fn new() -> Self {
        Self::of("32m")
    }

    fn of(size: &str) -> Self {
        let mut world = World::offline();
        world.keep_on_small_disk(size);
        world.sh(Place::Person, "mkdir -m 700 home/run");
        world.sh(Place::Computer, "busybox mount -t tmpfs -o mode=700 run home/run");
        Self { world }
    }

    /// Ends all that runs, and takes away what a home does not have.
    fn close(&self) {
        self.world.stead("down default").ok();
        self.world.until("nobody uses it", || {
            (self.world.sh_said(Place::Computer, "busybox umount home/run").code == 0).then_some(())
        });
    }

    /// Leaves no byte.
    fn fill(&self) {
        let line =
            "cat /dev/zero > home/filler 2> /dev/null || dd if=/dev/zero bs=1 count=1 2>&1 >> home/filler";
        let said = self.world.sh_said(Place::Person, line);
        assert!(said.code != 0 && said.out.contains("No space left"), "it is not full: {said:?}");
    }

    fn free(&self) {
        self.world.sh(Place::Person, "rm home/filler");
    }

    /// Free blocks and free files.
    fn left(&self) -> String {
        self.world.sh(Place::Person, "stat -f -c '%a %d' home")
    }

    /// Fails with the words of a full disk, and of the stage at which that was.
    #[track_caller]
    fn fails(&self, said: Said, code: i32, stage: &str) {
        let said = said.code(code).says(stage);
        let tells =
            ["No space left on device", "the disk is full"].iter().any(|text| said.err.contains(text));
        assert!(tells, "{}", said.err);
    }
}

#[test]
fn a_full_disk_is_told_with_the_stage_and_once_there_is_room_all_goes_on() {
    let disk = SmallDisk::new();
    let world = &disk.world;
    let registry = registry(world);
    // Before anything is there at all.
    disk.fill();
    disk.fails(stead(world, &["run", "--rm", BUSYBOX, "true"]), 125, "cannot pull");
    disk.free();
    assert_eq!(world.stead("image ls --format json").json(), json!([]));
    assert_eq!(world.stead("ps --all --format json").json(), json!([]));
    // While an image is pulled.
    disk.fill();
    disk.fails(world.stead(&format!("image pull {BUSYBOX}")), 1, "cannot pull");
    disk.free();
    stead(world, &["run", "--rm", BUSYBOX, "true"]).ok();
    drop(registry);
    // When a machine is made.
    let shop = world.project("shop", &format!("machines: {{ a: {{ image: {BUSYBOX}, command: sleep 1000, init: true, volumes: ['data:/d'] }} }}\nvolumes: [data]\n"));
    disk.fill();
    disk.fails(shop.stead("up"), 1, "step `+ project shop");
    disk.free();
    shop.stead("up").ok();
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    // What runs goes on, and is looked at, asked and ended without room.
    disk.fill();
    shop.stead("exec a true").ok();
    shop.stead("ps").ok();
    shop.stead("stats --no-stream").ok();
    let full = shop.stead("exec a cp /bin/busybox /d/it").code(1);
    full.says("No space left on device");
    shop.stead("stop a").ok();
    shop.stead("down --volumes --yes").ok();
    disk.free();
    shop.stead("up").ok();
    shop.stead("exec a cp /bin/busybox /d/it").ok();
    disk.fill();
    shop.stead("down --volumes --yes").ok();
    disk.free();
    assert_eq!(world.stead("ps --all --format json").json(), json!([]));
    assert_eq!(world.stead("volume ls --format json").json(), json!([]));
    disk.close();
}

/// Archives of two images of two layers: both layers of `both` are large, the upper one of `link` names a large file of the lower one.
const TWO_LAYERS: &str = r#"
    image() {
        printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s","sha256:%s"]}}' \
            "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')" $(for layer in $2 $3; do zcat -f $layer | sha256sum | cut -d' ' -f1; done) > config.json
        printf '[{"Config":"config.json","RepoTags":["127.0.0.1:5000/lab/%s:1"],"Layers":["%s","%s"]}]' $1 $2 $3 > manifest.json
        tar -cf $1.tar manifest.json config.json $2 $3
    }
    for name in a b; do
        dd if=/dev/urandom of=$name bs=1M count=18 2> /dev/null
        tar -cf $name.layer $name
    done
    image both a.layer b.layer
    truncate -s 18M zeros; tar -czf zeros.layer zeros
    ln zeros again; tar -cf link.layer zeros again; tar --delete -f link.layer zeros
    image link zeros.layer link.layer
"#;

#[test]
fn layers_that_fit_alone_are_refused_where_they_do_not_fit_together() {
    let disk = SmallDisk::of("32m,nr_inodes=2000");
    let world = &disk.world;
    let _registry = registry(world);
    world.sh(Place::Computer, TWO_LAYERS);
    for (image, why) in [("both", "cannot pull"), ("link", "could not copy `zeros` from a lower layer")] {
        let name = format!("127.0.0.1:5000/lab/{image}:1");
        for line in [format!("image load {image}.tar"), format!("image push {name}")] {
            world.stead_at("other", world.path(), &line.split(' ').collect::<Vec<_>>()).ok();
        }
        let said = world.stead(&format!("image pull {name}")).code(1);
        said.says(why).says("the disk is full but for what is kept free");
        assert_eq!(world.sh(Place::Person, "ls home/state/images/partial"), "", "{image}");
        world.stead("image prune --all --yes").ok();
    }
    world.stead(&format!("run --rm {BUSYBOX} true")).ok();
    disk.close();
}

#[test]
fn a_layer_that_would_fill_the_disk_is_refused_and_nothing_of_it_stays() {
    let disk = SmallDisk::of("32m,nr_inodes=2000");
    let world = &disk.world;
    let _registry = registry(world);
    world.sh(
        Place::Computer,
        "truncate -s 64M zeros; tar -czf zeros.tar.gz zeros; mkdir many; (cd many; seq 3000 | xargs touch); tar -czf many.tar.gz many",
    );
    // What a home has once there was an image.
    world.stead(&format!("image pull {BUSYBOX}")).ok();
    world.stead(&format!("image rm {BUSYBOX}")).ok();
    let left = disk.left();
    let refused = |line: &str, stage: &str, why: &str| {
        let said = world.stead(line).code(1).says(stage).says("the disk is full but for what is kept free");
        said.says(why).says("hint: make room (`stead image prune`");
        assert_eq!(disk.left(), left, "{line}");
    };
    refused(
        "image import zeros.tar.gz lab/zeros",
        "cannot unpack layer",
        "MiB of 32.0 MiB are left, 1.5 MiB are for others",
    );
    refused(
        "image import many.tar.gz lab/many",
        "cannot unpack layer",
        "of 2000 files can still be made, 100 are for others",
    );
    // An archive of images may be compressed as well, and is kept as it is uncompressed.
    refused("image load zeros.tar.gz", "cannot load zeros.tar.gz", "there is more of this than the");
    let elsewhere = |line: &str| world.stead_at("other", world.path(), &line.split(' ').collect::<Vec<_>>());
    let name = "127.0.0.1:5000/lab/zeros:1";
    elsewhere(&format!("image import zeros.tar.gz {name}")).ok();
    elsewhere(&format!("image push {name}")).ok();
    refused(&format!("image pull {name}"), "cannot unpack layer", "entry `zeros`");
    world.stead(&format!("run --rm {name} /zeros")).code(125).says("kept free");
    // What is known to be too large is not even fetched.
    let big = "127.0.0.1:5000/lab/big:1";
    world.sh(
        Place::Computer,
        "dd if=/dev/urandom of=zeros bs=1M count=32 2> /dev/null; tar -cf big.tar zeros",
    );
    elsewhere(&format!("image import big.tar {big}")).ok();
    elsewhere(&format!("image push {big}")).ok();
    let said = world.stead(&format!("image pull {big}")).code(1);
    said.says("cannot pull").says("kept free").says("and this has 32.0 MiB");
    assert_eq!(world.stead("image ls --format json").json(), json!([]));
    world.stead(&format!("run --rm {BUSYBOX} true")).ok();
    disk.close();
}

#[test]
fn a_machine_on_a_full_disk_goes_on_and_its_log_has_whole_lines_again_once_there_is_room() {
    let disk = SmallDisk::new();
    let world = &disk.world;
    let _registry = registry(world);
    let line =
        "i=0; while :; do i=$((i+1)); echo this is line number $i of a machine that writes; sleep 0.01; done";
    start(world, "talk", "--init", line);
    let last = || world.stead("logs --tail 1 talk").ok();
    let spoke = |before: String| world.until("it speaks", || (last() != before).then_some(()));
    spoke(String::new());
    disk.fill();
    // What the last page of the log holds is still written.
    let mut silent = last();
    world.until("nothing more is written", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = last();
        let is_silent = now == silent;
        silent = now;
        is_silent.then_some(())
    });
    world.stead("exec talk true").ok();
    assert_eq!(inspect(world, "talk")["status"], "running");
    disk.free();
    spoke(last());
    for line in world.stead("logs talk").ok().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words.len(), 10, "a line is not whole: {line}");
    }
    // Ended on a full disk, it is known how.
    disk.fill();
    world.stead("kill talk").ok();
    assert_eq!(world.stead("wait talk").ok(), "137\n");
    world.stead("rm talk").ok();
    disk.free();
    disk.close();
}

#[test]
fn a_machine_whose_keeper_was_killed_is_told_to_have_died() {
    let world = World::offline();
    let _registry = registry(&world);
    start(&world, "box", "--init --restart always", "exec sleep 1000");
    let kill = "kill -9 $(pgrep -P 1 -f '^[^ ]*stead __keeper.* box.default')";
    // Somebody looks on while nobody does anything.
    let mut live = world.spawn_stead(world.path(), &["events", "--filter", "event=die"]);
    let mut told = String::new();
    world.sh(Place::Computer, kill);
    live.stdout().read_line(&mut told).unwrap();
    let died = "machine die box.default exit_code=137 why=its keeper was killed, or the computer went off\n";
    assert!(told.ends_with(died), "{told}");
    assert_eq!(world.stead("wait box").ok(), "137\n");
    let seen = inspect(&world, "box");
    assert_eq!((&seen["status"], &seen["exit"]["lost"]), (&json!("lost"), &json!(true)));
    assert_eq!(world.stead("ps -aq --filter status=killed").ok(), "box.default\n");
    // Nobody looks on, and the next command that changes something tells it; each end once.
    world.stead("start box").ok();
    world.sh(Place::Computer, kill);
    world.until("it is seen to be dead", || (inspect(&world, "box")["status"] == "lost").then_some(()));
    world.stead("volume create other").ok();
    let dies = world.stead("events --no-stream --filter event=die").ok();
    assert_eq!(dies.lines().count(), 2, "{dies}");
    // What is not to be started by a person's word is started by the next `up`, and by nothing else.
    world.stead("start box").ok();
    assert_eq!(inspect(&world, "box")["status"], "running");
}

#[test]
fn memory_that_is_used_up_is_seen_wherever_one_looks() {
    if role() == Role::User {
        return untested("limits take a control group, which the ordinary user of the tests has not");
    }
    let world = World::offline();
    let _registry = registry(&world);
    let hog = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    start(&world, "hog", "--memory 16m --memory-swap 16m", hog);
    assert_eq!(world.stead("wait hog").ok(), "137\n");
    let seen = inspect(&world, "hog");
    assert_eq!((&seen["out_of_memory"], &seen["exit"]["out_of_memory"]), (&json!(true), &json!(true)));
    assert_eq!((&seen["exit_code"], &seen["limits"]["memory_bytes"]), (&json!(137), &json!(16 << 20)));
    assert!(world.stead("ps").ok().contains("out of memory"));
    assert!(
        world.stead("events --no-stream --filter event=oom hog").ok().contains("machine oom hog.default")
    );
    // It is told of each run of one that is started again.
    start(&world, "again", "--memory 16m --memory-swap 16m --restart on-failure:1", hog);
    assert_eq!(world.stead("wait again").ok(), "137\n");
    assert_eq!(world.stead("events --no-stream --filter event=oom again").ok().lines().count(), 2);
}

#[test]
fn what_a_machine_uses_is_told_truly_and_held_to_its_limits() {
    if role() == Role::User {
        return untested("limits take a control group, which the ordinary user of the tests has not");
    }
    let world = World::offline();
    let _registry = registry(&world);
    let options = "--init --cpus 0.25 --memory 64m --pids 10";
    start(
        &world,
        "busy",
        options,
        "head -c 20000000 /dev/zero > /dev/shm/it; echo ready; while :; do :; done",
    );
    start(&world, "idle", "--init", "exec sleep 1000");
    world.until("it is ready", || (world.stead("logs busy").ok() == "ready\n").then_some(()));
    let stats = world.stead("stats --no-stream --format json busy idle").json();
    let (busy, idle) = (&stats[0], &stats[1]);
    let number = |of: &Value, key: &str| of[key].as_f64().unwrap_or_else(|| panic!("no {key} in {of}"));
    // A quarter of a processor in each tenth of a second, however the second that was looked at begins and ends. A
    // computer that does other things gives it less.
    let cpu = number(busy, "cpu_percent");
    assert!(cpu > 1.0 && cpu <= 30.0, "{cpu} %");
    assert!(number(idle, "cpu_percent") <= 1.0);
    // What it wrote to memory, and not much more.
    let memory = number(busy, "memory_bytes");
    assert!((20e6..40e6).contains(&memory), "{memory} bytes");
    assert_eq!((&busy["memory_limit_bytes"], &busy["pids_limit"]), (&json!(64 << 20), &json!(10)));
    assert_eq!((&idle["memory_limit_bytes"], &idle["pids_limit"]), (&Value::Null, &Value::Null));
    assert_eq!((&busy["pids"], &idle["pids"]), (&json!(2), &json!(2)));
}

#[test]
fn a_limit_that_nothing_can_hold_to_is_refused_before_anything_is_made() {
    if role() == Role::Root {
        return untested("root has control groups that hold to any limit");
    }
    let world = World::offline();
    let _registry = registry(&world);
    for (option, word, controller) in
        [("--memory=32m", "memory", "memory"), ("--cpus=0.5", "cpus", "cpu"), ("--pids=10", "pids", "pids")]
    {
        stead(&world, &["run", "--rm", option, BUSYBOX, "true"])
            .code(125)
            .says(&format!("`{word}`: controller `{controller}` is not delegated to this user"))
            .says("hint: leave it out");
    }
    assert_eq!(world.stead("ps --all --format json").json(), json!([]));
    let text = format!("machines:\n  web:\n    image: {BUSYBOX}\n    mem_limit: 32m\n");
    let shop = world.project("shop", &text);
    shop.stead("up").code(2).says("stead.yaml:2:3: `memory`");
    assert_eq!(world.stead("ps --all --format json").json(), json!([]));
}

/// As on a desktop: a control group of version 2 is the user's, and whoever asks is in it.
#[test]
fn a_user_with_a_control_group_can_hold_machines_still_and_is_told_what_limits_lack() {
    let Some(world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    let _registry = registry(&world);
    let group =
        "cd /sys/fs/cgroup; [ ! -d unified ] || cd unified; cd .$(sed -n s/^0:://p /proc/self/cgroup); ";
    let delegated = world.sh(Place::Person, &format!("{group} cat cgroup.controllers"));
    for (option, controller) in [("--memory=32m", "memory"), ("--pids=10", "pids")] {
        let why = if delegated.split_whitespace().any(|name| name == controller) {
            format!("has processes of its own, so it hands controller `{controller}` on to none below it")
        } else {
            format!("controller `{controller}` is not delegated to this user")
        };
        let said = stead(&world, &["run", "--rm", option, BUSYBOX, "true"]).code(125);
        said.says(&format!("`{controller}`: ")).says(&why).says("hint: leave it out");
    }
    assert_eq!(world.stead("ps --all --format json").json(), json!([]));
    start(&world, "held", "--init", "exec sleep 1000");
    // The kernel's own word.
    let frozen = || {
        let line = format!("{group} grep frozen $(find . -path '*/held.default/cgroup.events')");
        world.sh(Place::Person, &line)
    };
    for (command, phase, expected) in
        [("pause", json!("paused"), "frozen 1\n"), ("unpause", json!("running"), "frozen 0\n")]
    {
        world.stead(&format!("{command} held")).ok();
        assert_eq!(inspect(&world, "held")["phase"], phase);
        assert_eq!(frozen(), expected);
    }
}

#[test]
fn what_this_computer_does_not_have_is_refused_before_anything_is_made() {
    let world = World::offline();
    let _registry = registry(&world);
    let refused = |options: &[&str], why: &str| {
        let words = [&["run", "--rm"], options, &[BUSYBOX, "true"]].concat();
        let said = stead(&world, &words).code(125).says(why).says("hint: ");
        assert!(!said.err.contains("os error"), "{said:?}");
        assert_eq!(world.stead("ps --all --format json").json(), json!([]));
    };
    refused(&["--memory", "1k"], "`--memory`: no program can be started in so little memory");
    if role() == Role::Root {
        refused(&["--cpuset-cpus", "0-9999"], "-9999 for it here, only 0");
        return;
    }
    // The tests' ordinary user has an id of its own and no others.
    refused(&["--user", "70000"], "this user's containers have no user 70000");
    refused(&["--user", "0:70000", "--group-add", "70001"], "have no group 70001");
    // One that its image has by name is met later, and told as well.
    start(&world, "web", "--init", "exec sleep 1000");
    stead(&world, &["exec", "--user", "app", "web", "true"])
        .says("cannot be ")
        .says("this user's containers have fewer ids")
        .says("hint: `stead doctor`");
}

#[test]
fn a_log_is_as_large_as_it_may_be_and_attempts_are_counted_anew_after_a_while() {
    let world = World::offline();
    let _registry = registry(&world);
    let options = "--log-opt max-size=2k --log-opt max-file=2";
    start(&world, "talk", options, "i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo line $i; done");
    world.stead("wait talk").ok();
    let directory = world.path().join("home/state/machines/talk.default/log");
    let sizes: Vec<u64> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= 2048), "{sizes:?}");
    assert!(world.stead("logs talk").ok().ends_with("line 499\nline 500\n"));
    stead(&world, &["run", "--rm", "--log-opt", "max-size=1", BUSYBOX])
        .code(125)
        .says("`--log-opt`: `1` does not");
    stead(&world, &["run", "--rm", "--log-opt", "tag=x", BUSYBOX]).code(125).says("`--log-opt`");
    // The second and fourth run stay for a while: each of them is followed by two attempts more.
    let line = "echo run >> /runs; case $(wc -l < /runs) in 2|4) sleep 2;; esac; exit 1";
    let policy = "{ condition: on-failure, max_attempts: 2, delay: 50ms, window: 1900ms }";
    let text = format!(
        "machines:\n  job:\n    image: {BUSYBOX}\n    command: [sh, -c, '{}']\n    deploy: {{ restart_policy: {policy} }}\n",
        line.replace('$', "$$")
    );
    let shop = world.project("shop", &text);
    shop.stead("up").ok();
    shop.stead("wait job").ok();
    assert_eq!(inspect(&world, "job.shop")["restarts"], 6 - 1);
}

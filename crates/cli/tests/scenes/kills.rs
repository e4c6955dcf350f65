//! Whatever is killed, and whenever: no machine is lost, and nothing is left of those that have gone.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, Role, World, role, until};

/// How often something is killed, while it runs.
const KILLS: u64 = 200;

/// After so many of them the project is brought up, and looked at.
const LOOK_AFTER: u64 = 8;

/// The longest that a command goes on before it is killed. Many are done earlier, which does not count.
const LONGEST_MS: u64 = 250;

const SHOP: &str = "\
name: shop
machines:
  a: { image: IMAGE, command: sleep 1000, init: true, volumes: ['kept:/kept'], ports: ['8080:80'] }
  b: { image: IMAGE, command: sleep 1000, init: true, depends_on: [a] }
  c: { image: IMAGE, command: sleep 1000, init: true, network_mode: 'machine:a' }
volumes: [kept]
";

const COMMANDS: [&str; 10] = [
    "up",
    "up --force-recreate a",
    "down",
    "exec a true",
    "restart a",
    "stop b",
    "start b",
    "run --rm IMAGE true",
    "run -d --rm --init IMAGE sleep 1000",
    "rm --force b",
];

#[test]
fn whatever_is_killed_no_machine_is_lost_and_nothing_is_left() {
    let world = World::offline();
    let registry = registry(&world);
    let shop = world.project("shop", &SHOP.replace("IMAGE", BUSYBOX));
    shop.stead("up").ok();
    drop(registry);
    shop.stead("exec a touch /kept/it").ok();
    let cgroups = cgroups(&shop);
    let mut dice = Dice::new();
    let mut killed = 0;
    while killed < KILLS {
        let is_killed = match dice.below(8) {
            0 | 1 => kill_one(&world, "-P 1", "__keeper", &mut dice),
            2 => {
                // Whoever starts it again is its parent.
                let (of, word) =
                    if dice.below(2) == 0 { ("-P 1", "__watcher") } else { ("", "__switchboard") };
                kill_one(&world, of, word, &mut dice)
            }
            3 if killed % 4 == 0 => kill_one(&world, "-P 1", "__anchor", &mut dice),
            _ => kill_command(&shop, &mut dice),
        };
        killed += u64::from(is_killed);
        if is_killed && killed % LOOK_AFTER == 0 {
            stands(&shop);
        }
    }
    shop.stead("exec a test -e /kept/it").ok();
    shop.stead("down").ok();
    let down = world.stead("down default");
    // Every command that was to make a machine there may have been killed before it did.
    if down.code != 0 {
        down.code(2).says("there is no project `default`");
    }
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
    leaves_nothing(&world, &cgroups);
}

/// Kills one of our processes that has this word on its command line, and waits until it is gone; tells whether there was any.
fn kill_one(world: &World, of: &str, word: &str, dice: &mut Dice) -> bool {
    let found = world.sh_said(Place::Computer, &format!("pgrep {of} -f '^[^ ]*stead {word}'")).out;
    let found: Vec<&str> = found.lines().collect();
    let Some(pid) = dice.pick(&found) else { return false };
    // It may have ended meanwhile.
    let is_killed = world.sh_said(Place::Computer, &format!("kill -9 {pid}")).code == 0;
    let mut last = String::new();
    let is_gone = || {
        last = world
            .sh_said(Place::Computer, &format!("ps -o pid,stat,wchan:30,args -p {pid} --ppid {pid}"))
            .out;
        let state = last.lines().nth(1).and_then(|line| line.split_whitespace().nth(1));
        state.is_none_or(|state| state.starts_with(['Z', 'X'])).then_some(())
    };
    let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until("it is gone", is_gone)));
    assert!(gone.is_ok(), "killed, it goes on:\n{last}");
    is_killed
}

/// Starts a command and kills it a moment later; tells whether it was not done by then.
fn kill_command(shop: &Project<'_>, dice: &mut Dice) -> bool {
    let line = dice.pick(&COMMANDS).unwrap().replace("IMAGE", BUSYBOX);
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = shop.world.spawn_stead(&shop.directory, &words);
    // What is short is to be met as well.
    let longest = if dice.below(2) == 0 { LONGEST_MS } else { LONGEST_MS / 10 };
    std::thread::sleep(Duration::from_millis(dice.below(longest)));
    let was_alive = command.is_alive();
    command.end();
    was_alive
}

/// Brings the project up, after which all is as it should be.
#[track_caller]
fn stands(shop: &Project<'_>) {
    shop.stead("up").ok();
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    for machine in ["a", "b", "c"] {
        // A command that was killed may have asked for a restart, which goes on without it.
        shop.world.until("it runs", || {
            let rows = shop.stead(&format!("ps {machine} --format json")).json();
            (rows[0]["status"] == "running").then_some(())
        });
        shop.stead(&format!("exec {machine} true")).ok();
    }
    let nics = |machine: &str| shop.stead(&format!("exec {machine} ip -o -4 addr")).ok();
    assert_eq!(nics("a"), nics("c"), "they are in one network");
    // Of each machine that runs there is one keeper and one program, and there are no others.
    let rows = shop.world.stead("ps --all --format json").json();
    let running: BTreeSet<String> = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["status"] == "running")
        .map(|row| format!("{}.{}", row["name"].as_str().unwrap(), row["project"].as_str().unwrap()))
        .collect();
    let kept = shop.world.until("each keeper has its machine", || {
        let seen = shop.world.sh_said(Place::Computer, "pgrep -P 1 -a -f '^[^ ]*stead __keeper'").out;
        let kept: Vec<String> =
            seen.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
        (kept.iter().cloned().collect::<BTreeSet<_>>() == running).then_some(kept)
    });
    assert_eq!(kept.len(), running.len(), "machines with two keepers: {kept:?}");
    let programs = shop.world.sh(Place::Computer, "pgrep -c -f '^sleep 1000' || true");
    assert_eq!(programs.trim(), running.len().to_string(), "programs of {running:?}");
}

/// The part of a path in which all cgroups of the home are; `None` where it has none.
fn cgroups(shop: &Project<'_>) -> Option<String> {
    let pid = shop.stead("ps a --format json").json()[0]["pid"].clone();
    let of_a = shop.world.sh(Place::Computer, &format!("cat /proc/{pid}/cgroup"));
    let (_, path) = of_a.split_once("/stead/")?;
    path.split_once("/a.shop").map(|(home, _)| format!("/stead/{home}"))
}

/// Looks for what machines could leave that the comparison at the end of a world does not see.
#[track_caller]
fn leaves_nothing(world: &World, cgroups: &Option<String>) {
    let home = world.path().join("home");
    for of_machines in ["state/machines", "run/machines"] {
        let left = std::fs::read_dir(home.join(of_machines)).into_iter().flatten().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "in {of_machines}: {left:?}");
    }
    assert!(cgroups.is_some() || role() == Role::User, "root's machines have cgroups");
    if let Some(cgroups) = cgroups {
        let line = format!("find /sys/fs/cgroup -path '*{cgroups}*'");
        assert_eq!(world.sh(Place::Computer, &line), "");
    }
}

//! What becomes of templates, and of machines that are saved or go on from one, when somebody is killed, held, in a hurry or
//! out of room. A machine comes up in any case, unless it was told to end.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::microvms::{get_kernel, slowly};
use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Running, World, said_after, said_within};
use crate::warm::{BOOTED, RESTORED, SAVED, runs, stages, templates, within, words};

/// What boots a guest takes this long at most, and twice.
const LIMIT: Duration = Duration::from_secs(360);

/// What a machine does that ended as it was saved, or could not go on.
fn instead(stage: &str) -> Vec<&str> {
    [&["prepared", "vmm", stage, "vmm"], &BOOTED[2..]].concat()
}

/// What is being saved.
fn unfinished(world: &World) -> PathBuf {
    world.path().join("home/state/templates/.new/state")
}

/// Finds the VMM of a machine, in a shell.
fn find(name: &str) -> String {
    format!("pgrep -f '[q]emu-system.*guest={name}.default,'")
}

fn is_there(world: &World, name: &str) -> bool {
    world.sh_said(Place::Computer, &find(name)).code == 0
}

/// Begins to run a microVM, and holds its VMM still as soon as that is there and `more` is so.
#[track_caller]
fn held(world: &World, words: &[&str], name: &str, more: &str) -> Running {
    let begun = world.spawn_stead(world.path(), words);
    let find = find(name);
    let line = format!("until vmm=$({find}); do sleep 0.02; done; {more} kill -STOP $vmm");
    said_within(world.command(Place::Computer, &["sh", "-e", "-c", &line]), LIMIT).ok();
    begun
}

/// The same in the middle of being saved.
#[track_caller]
fn held_as_it_is_saved(world: &World, name: &str) -> Running {
    let state = unfinished(world).display().to_string();
    held(world, &words(name, &[]), name, &format!("until [ -s {state} ]; do :; done;"))
}

/// The same as soon as it begins to go on from a template, or to boot.
#[track_caller]
fn held_early(world: &World, name: &str, more: &[&str]) -> Running {
    held(world, &words(name, more), name, "")
}

#[track_caller]
fn goes_on(world: &World, name: &str) {
    world.sh(Place::Computer, &format!("kill -CONT $({})", find(name)));
}

/// Looks until it is so.
#[track_caller]
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !look() {
        assert!(Instant::now() < deadline, "waited {LIMIT:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a command has ended.
#[track_caller]
fn ends(mut begun: Running) {
    until("it ends", || !begun.is_alive());
}

fn log(world: &World, name: &str) -> String {
    fs::read_to_string(world.path().join(format!("home/run/machines/{name}.default/keeper.log"))).unwrap()
}

#[track_caller]
fn remove(world: &World, names: &[&str]) {
    slowly(world, world.path(), &[&["rm", "-f"], names].concat()).ok();
}

#[test]
fn whoever_dies_while_one_is_saved_and_however_large_it_gets_the_machine_comes_up() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    // The VMM dies: it boots once more, and for a while nothing is saved.
    let begun = held_as_it_is_saved(&world, "one");
    world.sh(Place::Computer, &format!("kill -KILL $({})", find("one")));
    ends(begun);
    assert_eq!(stages(&world, "one"), instead("not-saved"));
    assert!(log(&world, "one").contains("it ended as it was saved, so it boots"));
    assert_eq!(runs(&world, "two", &[]), BOOTED);
    assert!(templates(&world).is_empty() && !unfinished(&world).exists());
    // It takes too much: that is given up, and it goes on.
    world.stead("kernel prune").ok();
    let begun = held_as_it_is_saved(&world, "three");
    world.sh(Place::Computer, &format!("truncate -s 600M {}", unfinished(&world).display()));
    goes_on(&world, "three");
    ends(begun);
    assert_eq!(stages(&world, "three"), BOOTED);
    assert!(log(&world, "three").contains("it has more than 512 MiB"));
    assert!(templates(&world).is_empty() && !unfinished(&world).exists());
    // The keeper dies, and the VMM with it: nothing is in its place, and the next one makes it.
    world.stead("kernel prune").ok();
    let begun = held_as_it_is_saved(&world, "four");
    let keeper = world.path().join("home/run/machines/four.default/keeper.pid");
    let pid = fs::read_to_string(keeper).unwrap();
    world.sh(Place::Computer, &format!("kill -KILL {}", pid.split(' ').next().unwrap()));
    ends(begun);
    until("its VMM has gone", || !is_there(&world, "four"));
    assert!(templates(&world).is_empty() && unfinished(&world).exists());
    slowly(&world, world.path(), &["start", "four"]).ok();
    assert_eq!(stages(&world, "four"), SAVED);
    assert!(!unfinished(&world).exists());
    remove(&world, &["one", "two", "three", "four"]);
}

#[test]
fn one_that_hangs_as_it_is_saved_boots_and_one_that_is_killed_then_does_not() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    // Nobody lets it go on.
    ends(held_as_it_is_saved(&world, "one"));
    assert_eq!(stages(&world, "one"), instead("not-saved"));
    assert!(log(&world, "one").contains("it takes too long"));
    // Who kills it means it, whatever it is about.
    world.stead("kernel prune").ok();
    let begun = held_as_it_is_saved(&world, "two");
    world.stead("kill two").ok();
    ends(begun);
    assert!(!is_there(&world, "two") && templates(&world).is_empty() && !unfinished(&world).exists());
    // Somebody wants none of what is kept: it goes on without.
    let begun = held_as_it_is_saved(&world, "three");
    world.stead("kernel prune").ok();
    goes_on(&world, "three");
    ends(begun);
    assert_eq!(stages(&world, "three"), BOOTED);
    // Its kernel goes: so does what is kept of it.
    let begun = held_as_it_is_saved(&world, "four");
    let kernel = world.stead("kernel ls --format json").json()[0]["name"].as_str().unwrap().to_owned();
    world.stead(&format!("kernel rm {kernel}")).ok();
    goes_on(&world, "four");
    ends(begun);
    assert_eq!(stages(&world, "four"), BOOTED);
    assert!(templates(&world).is_empty() && !unfinished(&world).exists());
    remove(&world, &["one", "three", "four"]);
}

#[test]
fn what_comes_for_one_before_its_agent_is_there_is_neither_lost_nor_kept() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    let secret = "not-for-others";
    let line = "read line; echo $line > /typed; trap exit TERM; while :; do sleep 1; done";
    let run = ["run", "-i", "--kind", "microvm", "--name", "one", "--hostname", secret, "-e"];
    let run = [&run[..], &["SECRET=not-for-others", BUSYBOX, "sh", "-c", line]].concat();
    let mut begun = held(&world, &run, "one", "");
    std::io::Write::write_all(begun.stdin(), b"not-for-others\n").unwrap();
    let console = world.stead_command("home", world.path(), &["console", "one"]);
    said_after(console, &secret.repeat(20), LIMIT).ok();
    goes_on(&world, "one");
    until("it was saved", || templates(&world).len() == 1);
    let state = templates(&world)[0].join("state").display().to_string();
    let found = world.sh_said(Place::Computer, &format!("grep -c -a {secret} {state}"));
    assert_eq!(found.out.trim(), "0", "what it was told is in what others go on from");
    let typed = |name: &str| slowly(&world, world.path(), &["exec", name, "cat", "/typed"]);
    until("it has what was typed", || typed("one").out == "not-for-others\n");
    drop(begun);
    // Killed as it begins to go on: it does not boot instead, and the template is as good as before.
    let begun = held_early(&world, "two", &[]);
    world.stead("kill two").ok();
    ends(begun);
    assert!(!is_there(&world, "two") && templates(&world).len() == 1);
    // Told to end, however long before it is there: it comes up, is told, and does not come up again. A first process without an
    // init may not heed that yet.
    let begun = held_early(&world, "three", &["--init", "--restart", "always", "--stop-timeout", "1"]);
    world.stead("kill -s TERM three").ok();
    let told = Instant::now();
    until("its time of grace is over", || told.elapsed() > Duration::from_secs(2));
    goes_on(&world, "three");
    ends(begun);
    until("it has ended for good", || !is_there(&world, "three"));
    let told = world.stead("ps --all three --format json").json()[0].clone();
    assert_eq!((&told["status"], &told["restarts"]), (&"exited".into(), &0.into()), "{told}");
    // What it goes on from is removed meanwhile.
    let begun = held_early(&world, "four", &[]);
    world.stead("kernel prune").ok();
    goes_on(&world, "four");
    ends(begun);
    assert_eq!(stages(&world, "four"), RESTORED);
    assert!(templates(&world).is_empty());
    remove(&world, &["one", "three", "four"]);
}

#[test]
fn a_template_is_made_once_and_goes_when_it_is_of_no_use() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    // In memory there would be less of that for others.
    let place = world.path().join("home/state/templates").display().to_string();
    world.sh(Place::Person, &format!("mkdir -p {place}"));
    world.sh(Place::Computer, &format!("busybox mount -t tmpfs -o mode=777 templates {place}"));
    assert_eq!(runs(&world, "one", &[]), BOOTED);
    assert!(log(&world, "one").contains("is in memory"));
    world.sh(Place::Computer, &format!("busybox umount {place}"));
    // Two at the same time.
    let machine = format!("{{ image: {BUSYBOX}, kind: microvm, command: sleep 1000 }}");
    let project = world.project("shop", &format!("machines: {{ two: {machine}, three: {machine} }}\n"));
    slowly(&world, &project.directory, &["up"]).ok();
    let mut told = ["two.shop", "three.shop"].map(|name| stages(&world, name));
    told.sort();
    assert_eq!(
        (&told[0][..], &told[1][..], templates(&world).len()),
        (&BOOTED.map(str::to_owned)[..], &SAVED.map(str::to_owned)[..], 1)
    );
    // One that went on from it fails soon, which nobody asked for: others do not.
    assert_eq!(runs(&world, "four", &[]), RESTORED);
    world.sh(Place::Computer, &format!("kill -KILL $({})", find("four")));
    until("it has ended", || world.stead("inspect four").ok().contains("--cold"));
    assert!(templates(&world).is_empty());
    assert_eq!(runs(&world, "five", &[]), BOOTED);
    world.stead("kernel prune").ok();
    // Too short: that is seen, and it is made anew.
    assert_eq!(runs(&world, "six", &[]), SAVED);
    let open = || {
        let [template] = templates(&world).try_into().unwrap();
        fs::File::options().write(true).open(template.join("state")).unwrap()
    };
    let state = open();
    state.set_len(state.metadata().unwrap().len() / 2).unwrap();
    assert_eq!(runs(&world, "seven", &[]), SAVED);
    // As long as it was, and nonsense: it goes, and the machine boots.
    let state = open();
    state.write_all_at(&[0x5a; 4096], 0).unwrap();
    state.write_all_at(&[0x5a; 4096], state.metadata().unwrap().len() / 2).unwrap();
    assert_eq!(runs(&world, "eight", &[]), instead("not-restored"));
    assert!(templates(&world).is_empty());
    assert_eq!(log(&world, "eight").matches("it could not go on from its template, so it boots").count(), 1);
    within(&world, "eight", "true");
    slowly(&world, world.path(), &["purge", "--yes"]).ok();
    assert!(!world.path().join("home/state").exists());
}

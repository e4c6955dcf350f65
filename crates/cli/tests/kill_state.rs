//! The home's files are damaged, deleted, or of another version, and its disk is full: an error says which file
//! and what to do, nothing is lost, and `purge` works all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kill_support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use kill_support::{FULL, Outside, World, is_root, untested, until};

/// What becomes of a file's bytes.
type Damage = fn(&[u8]) -> Vec<u8>;

/// Ways to lose a file.
const DAMAGES: [(&str, Damage); 6] = [
    ("empty", |_| Vec::new()),
    ("one byte", |old| old[..1].to_vec()),
    ("its half", |old| old[..old.len() / 2].to_vec()),
    ("all but a byte", |old| old[..old.len() - 1].to_vec()),
    ("zeros", |old| vec![0; old.len()]),
    ("garbage", |old| old.iter().map(|byte| byte ^ 0x5a).collect()),
];

fn damage(path: &Path, how: Damage) {
    let old = fs::read(path).unwrap();
    fs::write(path, how(&old)).unwrap();
}

/// Moves the records away, as the hint says.
fn move_records_away(world: &World) {
    let away = world.home().join("away");
    fs::create_dir_all(&away).unwrap();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let path = world.home().join("state").join(name);
        if path.exists() {
            fs::rename(&path, away.join(name)).unwrap();
        }
    }
    fs::remove_dir_all(&away).unwrap();
}

/// Damaged records are told, and nothing is begun anew over what stands.
fn check_damaged_records(world: &World, what: &str) {
    let before = fs::read(world.database()).unwrap();
    for line in ["plan", "up", "down", "ps", "ls"] {
        let error = world.fails(line);
        assert!(error.contains("state.db"), "{what}: `{line}`: {error}");
        assert!(error.contains("hint: restore the file, or move it away"), "{what}: `{line}`: {error}");
    }
    assert_eq!(fs::read(world.database()).unwrap(), before, "{what}");
    move_records_away(world);
    world.arrives();
    world.serves();
}

#[test]
fn damaged_records_are_told_and_can_be_moved_away() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    let ps = world.ok("ps");
    let length = fs::read(world.database()).unwrap().len();
    assert!(length > 8192, "{length}");
    fs::write(world.home().join("state/volumes/shop/data/precious"), "1").unwrap();
    for (what, how) in &DAMAGES[1..] {
        damage(&world.database(), *how);
        check_damaged_records(&world, what);
    }
    for kept in [16, 100, 1000, 4096, 5000, 8192, length - 4096] {
        fs::File::options().write(true).open(world.database()).unwrap().set_len(kept as u64).unwrap();
        check_damaged_records(&world, &format!("the first {kept} bytes"));
    }
    assert_eq!(world.ok("ps"), ps);
    assert!(world.home().join("state/volumes/shop/data/precious").exists());
    world.leaves_nothing();
}

/// Without records what stands is known by its marks: the plan shows what is recorded anew, and no link changes.
#[test]
fn lost_records_are_written_anew_from_what_stands() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    let ps = world.ok("ps");
    for empty in [true, false] {
        if empty {
            fs::write(world.database(), "").unwrap();
        } else {
            fs::remove_file(world.database()).unwrap();
        }
        // Of a virtual machine without a record its kind is not known: its TAPs are made anew.
        let plan = world.ok("plan");
        assert!(plan.contains("+ project shop "), "{plan}");
        assert!(!plan.contains("- network ") && !plan.contains("+ network "), "{plan}");
        assert!(!plan.contains("nic web/"), "{plan}");
        world.arrives();
        assert_eq!(world.ok("ps"), ps);
        world.serves();
    }
    fs::remove_file(world.database()).unwrap();
    world.leaves_nothing();
}

#[test]
fn purge_cleans_up_whatever_the_records_are() {
    let world = World::new(Outside::Forwards, FULL);
    for (what, how) in &DAMAGES {
        world.ok("up");
        damage(&world.database(), *how);
        let ran = world.run("purge --yes");
        assert_eq!(ran.code, 0, "{what}: {}", ran.err);
        world.is_as_before();
    }
    world.ok("up");
    fs::remove_file(world.database()).unwrap();
    world.ok("purge --yes");
    world.is_as_before();
    world.ok("up");
    fs::remove_dir_all(world.home().join("state")).unwrap();
    world.ok("purge --yes");
    world.is_as_before();
}

#[test]
fn purge_tells_what_it_cannot_take_away() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    // What a command that was killed may leave beside the file, but as nobody can delete it.
    let unfinished = world.project.join("stead.lock.new");
    fs::create_dir(&unfinished).unwrap();
    let error = world.fails("purge --yes");
    assert!(error.contains("stead.lock.new"), "{error}");
    fs::remove_dir(&unfinished).unwrap();
    world.is_as_before();
    if is_root() {
        world.ok("up");
        // A busy place in the home.
        let data = world.home().join("state/volumes/shop/data");
        rustix::mount::mount_bind(&data, &data).unwrap();
        let error = world.fails("purge --yes");
        assert!(error.contains("not everything could be taken away"), "{error}");
        assert!(error.contains("state"), "{error}");
        rustix::mount::unmount(&data, rustix::mount::UnmountFlags::empty()).unwrap();
        world.ok("purge --yes");
        world.is_as_before();
    }
}

#[test]
fn purge_tells_who_keeps_a_namespace() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    let mut child = world
        .command("network enter -m web -- sh -c")
        .arg("echo in; read word")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "in\n");
    let error = world.fails("purge --yes");
    let who = format!("`sh` (process {})", child.id());
    assert!(error.contains(&who) && error.contains("hint: end it"), "{error}");
    drop(child.stdin.take());
    child.wait().unwrap();
    world.is_as_before();
}

/// Somebody has deleted the home's directories while everything ran.
#[test]
fn purge_ends_what_lives_without_its_directories() {
    let world = World::new(Outside::ForwardsNot, FULL);
    world.ok("up");
    for directory in ["state", "run"] {
        fs::remove_dir_all(world.home().join(directory)).unwrap();
    }
    assert!(!world.processes().is_empty());
    world.ok("purge --yes");
    until("all processes to go", || world.processes().is_empty());
    world.is_as_before();
    assert_eq!(world.ok("purge --yes"), "nothing to do\n");
}

#[test]
fn records_of_a_newer_stead_are_left_alone() {
    let world = World::new(Outside::Offline, FULL);
    world.ok("up");
    // The user version is at byte 60 of an SQLite file.
    let mut bytes = fs::read(world.database()).unwrap();
    bytes[60..64].copy_from_slice(&7_u32.to_be_bytes());
    fs::write(world.database(), &bytes).unwrap();
    for line in ["plan", "up", "down", "ps"] {
        let error = world.fails(line);
        assert!(error.contains("of version 7"), "{error}");
        assert!(error.contains("hint: use the stead that wrote them"), "{error}");
    }
    assert_eq!(fs::read(world.database()).unwrap(), bytes);
    world.ok("purge --yes");
    world.is_as_before();
}

#[test]
fn damaged_run_files_are_mended() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    for name in ["served.json", "uplink.json", "anchor.pid", "switchboard.pid", "watcher.pid", "lock"] {
        // Without a way out there is no uplink.
        if !world.run_file(name).exists() {
            assert_eq!(name, "uplink.json");
            continue;
        }
        for (what, how) in &DAMAGES {
            // Nothing can be lost of an empty file.
            if fs::read(world.run_file(name)).unwrap().is_empty() {
                continue;
            }
            damage(&world.run_file(name), *how);
            let ran = world.run("up");
            assert_eq!(ran.code, 0, "{name}: {what}: {}{}", ran.out, ran.err);
            world.stands();
        }
        fs::remove_file(world.run_file(name)).unwrap();
        world.arrives();
        world.serves();
    }
    world.leaves_nothing();
}

#[test]
fn damaged_run_files_do_not_stop_down_or_purge() {
    let world = World::new(Outside::Forwards, FULL);
    for name in ["served.json", "anchor.pid", "switchboard.pid", "watcher.pid", "uplink.json"] {
        world.ok("up");
        if !world.run_file(name).exists() {
            world.ok("purge --yes");
            continue;
        }
        damage(&world.run_file(name), DAMAGES[5].1);
        world.leaves_nothing();
        world.ok("up");
        damage(&world.run_file(name), DAMAGES[5].1);
        world.ok("purge --yes");
        world.is_as_before();
    }
}

#[test]
fn a_damaged_lock_file_of_a_project_is_told() {
    let world = World::new(Outside::Offline, FULL);
    world.ok("up");
    let path = world.project.join("stead.lock");
    let whole = fs::read(&path).unwrap();
    // Without its last byte, the end of a line, it is still whole.
    for (what, how) in [DAMAGES[1], DAMAGES[2], DAMAGES[4], DAMAGES[5]] {
        fs::write(&path, how(&whole)).unwrap();
        let error = world.fails("up");
        assert!(error.contains("stead.lock"), "{what}: {error}");
        assert!(error.contains("hint: "), "{what}: {error}");
    }
    fs::remove_file(&path).unwrap();
    world.ok("up");
    assert_eq!(fs::read(&path).unwrap(), whole);
    world.leaves_nothing();
}

/// An error of a command on a full disk.
fn check_told(line: &str, ran: &kill_support::Ran) {
    if ran.code != 0 {
        let told = ran.err.contains("disk is full") || ran.err.contains("No space left on device");
        assert!(told && !ran.err.contains("panicked"), "`{line}`: {}", ran.err);
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    if !is_root() {
        return untested("only root mounts a small disk");
    }
    let world = World::on_small_disk(FULL, "512k");
    let mut failed = 0;
    for left_kib in [0, 4, 8, 16, 24, 32, 48, 64, 96, 128] {
        world.fill_disk(left_kib);
        for line in ["up", "plan", "ps", "up", "down"] {
            let ran = world.run(line);
            check_told(line, &ran);
            failed += u32::from(ran.code != 0);
        }
        world.free_disk();
        world.arrives();
        world.fill_disk(left_kib);
        check_told("down", &world.run("down"));
        world.free_disk();
        world.arrives();
        world.leaves_nothing();
    }
    assert!(failed > 5, "the disk was never full");
}

#[test]
fn purge_works_on_a_full_disk() {
    if !is_root() {
        return untested("only root mounts a small disk");
    }
    let world = World::on_small_disk(FULL, "512k");
    for left_kib in [0, 4, 16] {
        world.ok("up");
        world.fill_disk(left_kib);
        world.ok("purge --yes");
        world.free_disk();
        world.is_as_before();
    }
}

#[test]
fn a_read_only_disk_is_told() {
    if !is_root() {
        return untested("only root mounts a small disk");
    }
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    let state = world.home().join("state");
    rustix::mount::mount_bind(&state, &state).unwrap();
    let read_only = rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_remount(&state, read_only, "").unwrap();
    let error = world.fails("down");
    assert!(error.contains("the disk is mounted read-only"), "{error}");
    rustix::mount::unmount(&state, rustix::mount::UnmountFlags::empty()).unwrap();
    // Where the project's own directory cannot be written, nothing has to be.
    let project = world.project.as_path();
    rustix::mount::mount_bind(project, project).unwrap();
    rustix::mount::mount_remount(project, read_only, "").unwrap();
    world.ok("up");
    world.ok("down");
    world.ok("up");
    rustix::mount::unmount(project, rustix::mount::UnmountFlags::empty()).unwrap();
    world.arrives();
    world.serves();
    world.leaves_nothing();
}

//! Running containers: joined, held still, watched, ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;

use rustix::process::Signal;
use support::{Role, World, roles, until};

/// Says that it is ready, and ends with 9 when told to.
const WAITS: &str = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";

fn world(role: Role) -> World {
    let mut world = World::new(role);
    world.launch.args = ["sh", "-c", WAITS].map(str::to_owned).into();
    world
}

#[test]
fn a_joining_process_is_as_the_container_is() {
    for role in roles() {
        let world = world(role);
        let mut running = world.start();
        let line = "echo $PATH $EXEC; hostname; grep -E '^(Cap(Eff|Bnd)|Seccomp):' /proc/self/status | tr -d '\\t\\n'; echo; \
                    ls /proc/self/fd | wc -l; ps -o pid,comm | head -n 2 | tail -n 1; exit 4";
        let said = world.exec(&running, "-", &["sh", "-c", line]).code(4);
        // `ls` has the directory open besides its three streams.
        assert_eq!(
            said.out, "/bin yes\nbox\nCapEff:00000000a80425fbCapBnd:00000000a80425fbSeccomp:2\n4\n    1 sh\n",
            "{role:?}"
        );
        world.exec(&running, "-", &["nothing"]).code(127).says("exec: no such file: `nothing`");
        world.exec(&running, "-", &["/bin/text"]).code(126);
        assert_eq!(world.exec(&running, "-", &["sh", "-c", "kill -9 $$"]).code, 137);
        if role != Role::Single {
            let out = world.exec(&running, "web:www", &["sh", "-c", "id -u; id -g; echo $HOME"]).ok();
            assert_eq!(out, "33\n34\n/home/web\n");
        }
        running.signal(Signal::TERM);
        assert_eq!(running.wait(), 9);
    }
}

#[test]
fn a_joining_process_is_in_the_containers_cgroup() {
    for role in roles().into_iter().filter(|role| *role == Role::Root) {
        let world = world(role);
        let mut running = world.start();
        let cgroup = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let said = world.exec(&running, "-", &["cat", "/proc/1/cgroup", "/proc/self/cgroup"]).ok();
        let lines: Vec<&str> = said.lines().collect();
        let (first, own) = lines.split_at(lines.len() / 2);
        assert_eq!(first, own);
        assert!(cgroup(&running.pid.to_string()).contains("/stead/test/steadc"));
        running.signal(Signal::TERM);
        assert_eq!(running.wait(), 9);
    }
}

#[test]
fn a_joining_process_has_a_terminal_if_asked() {
    for role in roles() {
        let mut world = world(role);
        let mut running = world.start();
        world.launch.tty = true;
        let _ = world.refused();
        let out = world.exec(&running, "-", &["sh", "-c", "tty; stty size; exit 3"]).code(3).out;
        assert_eq!(out, "/dev/pts/0\r\n24 80\r\n", "{role:?}");
        running.signal(Signal::TERM);
        running.wait();
    }
}

#[test]
fn what_it_uses_is_seen() {
    for role in roles() {
        let world = world(role);
        let mut running = world.start();
        let usage = world.verb("usage", Some(running.pid)).ok();
        assert!(usage.contains("cpu_ns: Some(") && usage.contains("memory_bytes: Some("), "{usage}");
        assert!(!usage.contains("memory_bytes: Some(0)") && usage.contains("pids: Some("), "{usage}");
        let listed = world.verb("processes", Some(running.pid)).ok();
        assert!(listed.contains(&running.pid.to_string()), "{listed}");
        running.signal(Signal::TERM);
        assert_eq!(running.wait(), 9);
    }
}

#[test]
fn it_is_held_still_and_goes_on() {
    for role in roles() {
        let world = world(role);
        let mut running = world.start();
        if role != Role::Root {
            let said = world.verb("pause", None).code(125);
            said.says("no cgroup was delegated to this user");
        } else {
            world.verb("pause", None).ok();
            let ticks = || fs::read_to_string(format!("/proc/{}/schedstat", running.pid)).unwrap();
            let before = ticks();
            std::thread::sleep(std::time::Duration::from_millis(200));
            assert_eq!(ticks(), before);
            world.verb("unpause", None).ok();
            until("it goes on", || ticks() != before);
        }
        running.signal(Signal::TERM);
        assert_eq!(running.wait(), 9);
    }
}

#[test]
fn nothing_is_left_after_whoever_keeps_it_was_killed() {
    for role in roles() {
        let world = world(role);
        let mut running = world.start();
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        let process = format!("/proc/{}", running.pid);
        // It goes on without its keeper.
        assert!(fs::exists(format!("{process}/ns")).unwrap());
        let alive = || fs::read_to_string(format!("{process}/stat")).is_ok_and(|text| !text.contains(") Z "));
        assert!(alive());
        if role != Role::Root {
            // Without a cgroup its first process is the handle.
            running.signal(Signal::KILL);
        }
        world.verb("remove", None).ok();
        world.verb("remove", None).ok();
        until("it is gone", || !alive());
        assert!(!world.path("state/cgroup.json").exists());
    }
}

#[test]
fn one_that_stands_still_is_removed_all_the_same() {
    for role in roles().into_iter().filter(|role| *role == Role::Root) {
        let world = world(role);
        let mut running = world.start();
        world.verb("pause", None).ok();
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        world.verb("remove", None).ok();
    }
}

#[test]
fn limits_hold_or_are_refused_beforehand() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.limits.memory_bytes = Some(32 << 20);
        world.launch.limits.memory_swap_bytes = Some(32 << 20);
        world.launch.limits.pids = Some(5);
        world.launch.limits.cpus_milli = Some(500);
        let refused = world.refused().ok();
        if role != Role::Root {
            let expected = "`cpus`: controller `cpu` is not delegated to this user";
            assert!(refused.contains(expected) && refused.contains("`memory`: "), "{refused}");
            continue;
        }
        assert_eq!(refused, "\n");
        let said = world.sh("head -c 100000000 /dev/zero | tail -c 90000000 | wc -c");
        assert!(said.err.contains("out of memory"), "{said:?}");
        let line = "for i in 1 2 3 4 5 6 7; do sleep 5 & done; echo no; wait";
        let said = world.sh(line);
        assert!(said.err.contains("can't fork"), "{said:?}");
        let line = "cat /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/*/pids.max /sys/fs/cgroup/*/cpu.cfs_quota_us \
                    /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null | tr '\\n' ' '";
        let out = world.sh(line).out;
        assert!(out.contains("33554432 ") && out.contains("50000 "), "{out}");
    }
}

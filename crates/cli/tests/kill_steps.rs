//! The program is killed after every step of real plans, and at random moments within them: the next command
//! finishes what was half done, or takes it away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kill_support;

use std::time::Duration;

use kill_support::{Dice, FULL, Outside, World, is_root, judge, until};

/// [`FULL`] after an afternoon: another size, another subnet, another reach, a machine less and one more, a
/// network less, and one more nic.
const CHANGED: &str = "\
# row: mail on back,fixed,lan with 0
# row: web on back,fixed,lan with 1
name: shop
networks:
  lan: { mtu: 1400 }
  back: { reach: isolated, subnet: 10.99.7.0/24 }
  fixed: { addressing: static, reach: nat }
machines:
  web:
    kind: container
    driver: external
    networks: [fixed, lan, back]
    ports: ['127.0.0.1:PORT:80']
  mail:
    kind: microvm
    driver: external
    networks: [lan, back, fixed]
volumes: { data: {}, mail: {} }
";

/// More than any plan here has steps.
const MOST_STEPS: usize = 200;

/// Cuts `line` after every line that it prints, each time from what `before` makes, and calls `after`.
fn after_every_step(world: &World, line: &str, before: impl Fn(), after: impl Fn(usize)) {
    after_steps(world, line, 1, (before, after));
}

/// The same after every so-manieth line: for what differs little from a test that cuts after each.
fn after_steps(world: &World, line: &str, stride: usize, (before, after): (impl Fn(), impl Fn(usize))) {
    for steps in (1..MOST_STEPS).step_by(stride) {
        before();
        let cut = world.cut_after(line, steps);
        after(steps);
        if !cut {
            assert!(steps > 5, "`stead {line}` took only {steps} steps");
            return;
        }
    }
    panic!("`stead {line}` has more than {MOST_STEPS} steps");
}

fn up_is_cut(outside: Outside, stride: usize) {
    let world = World::new(outside, FULL);
    let arrives = |steps| {
        world.arrives();
        if steps % 4 == 1 {
            world.serves();
        }
        world.leaves_nothing();
    };
    after_steps(&world, "up", stride, (|| {}, arrives));
}

#[test]
fn up_goes_on_where_it_was_cut_off() {
    up_is_cut(Outside::Forwards, 1);
}

#[test]
fn up_by_pasta_goes_on_where_it_was_cut_off() {
    if is_root() {
        up_is_cut(Outside::ForwardsNot, 3);
    }
}

#[test]
fn down_takes_away_what_up_had_half_done() {
    let world = World::new(Outside::Forwards, FULL);
    after_every_step(&world, "up", || {}, |_| world.leaves_nothing());
}

#[test]
fn a_change_goes_on_where_it_was_cut_off() {
    let world = World::new(Outside::Forwards, FULL);
    let before = || {
        world.write(FULL);
        world.arrives();
        world.write(CHANGED);
    };
    let after = |steps| {
        world.arrives();
        if steps % 4 == 1 {
            world.serves();
        }
    };
    after_every_step(&world, "up", before, after);
    world.leaves_nothing();
}

#[test]
fn a_change_that_was_cut_off_can_be_taken_back() {
    let world = World::new(Outside::Forwards, FULL);
    let before = || {
        world.write(FULL);
        world.arrives();
        world.write(CHANGED);
    };
    let after = |steps| {
        world.write(FULL);
        world.arrives();
        if steps % 4 == 1 {
            world.serves();
        }
    };
    after_steps(&world, "up", 3, (before, after));
    world.leaves_nothing();
}

#[test]
fn down_goes_on_where_it_was_cut_off() {
    let world = World::new(Outside::Forwards, FULL);
    after_every_step(&world, "down --volumes --yes", || drop(world.ok("up")), |_| world.leaves_nothing());
}

#[test]
fn down_needs_no_switchboard() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    world.kill("__watcher");
    let record = std::fs::read_to_string(world.run_file("switchboard.pid")).unwrap();
    let pid = record.split(' ').next().unwrap();
    judge("kill", &format!("-9 {pid}"));
    // One that has ended and was not collected yet has no command line.
    let words = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    until("the switchboard to be gone", || words().is_empty());
    world.ok("down");
    world.leaves_nothing();
}

#[test]
fn down_that_was_cut_off_can_be_taken_back() {
    let world = World::new(Outside::Forwards, FULL);
    let after = |steps| {
        world.arrives();
        if steps % 4 == 1 {
            world.serves();
        }
    };
    after_steps(&world, "down", 3, (|| drop(world.ok("up")), after));
    world.leaves_nothing();
}

#[test]
fn purge_goes_on_where_it_was_cut_off() {
    let world = World::new(Outside::Forwards, FULL);
    let after = |_| {
        world.ok("purge --yes");
        world.is_as_before();
    };
    after_every_step(&world, "purge --yes", || drop(world.ok("up")), after);
}

/// How many times the program is killed at a random moment.
const ROUNDS: u32 = 30;

#[test]
fn a_kill_at_any_moment_is_made_good() {
    let world = World::new(Outside::Forwards, FULL);
    let mut dice = Dice::new();
    for round in 0..ROUNDS {
        let (file, line, limit_us) = match dice.below(4) {
            0 => (FULL, "down", 600_000),
            1 => (CHANGED, "up", 500_000),
            _ => (FULL, "up", 400_000),
        };
        world.write(file);
        world.cut_at(line, Duration::from_micros(dice.below(limit_us)));
        if dice.below(3) == 0 {
            world.leaves_nothing();
        } else {
            world.arrives();
        }
        if round % 4 == 0 && file == FULL {
            world.arrives();
            world.serves();
        }
    }
    world.leaves_nothing();
}

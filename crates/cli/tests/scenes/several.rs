//! Commands that take several names: the rest is done, and what was wrong with a name is told.

use serde_json::json;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Role, World, role};

/// What is listed, by its name.
#[track_caller]
fn names(world: &World, line: &str) -> Vec<serde_json::Value> {
    let rows = world.stead(line).json();
    rows.as_array().unwrap().iter().map(|row| row["name"].clone()).collect()
}

#[test]
fn of_several_machines_those_that_there_are_are_meant() {
    let world = World::offline();
    let _registry = registry(&world);
    for name in ["one", "two"] {
        world.stead(&format!("run -d --init --name {name} {BUSYBOX} sleep 1000")).ok();
    }
    let mut lines = vec![
        ("restart --time 1 one nosuch two", "one.default\ntwo.default\n"),
        ("stop one nosuch", "> stop one.default\n"),
        ("start nosuch one", "> start one.default\n"),
        ("stop --time 1 one nosuch", "one.default\n"),
        ("start one nosuch", "> start one.default\n"),
        ("kill two nosuch one", "two.default\none.default\n"),
    ];
    if role() == Role::Root {
        lines.insert(0, ("pause one nosuch", "one.default\n"));
        lines.insert(1, ("unpause nosuch one", "one.default\n"));
    }
    for (line, expected) in lines {
        let said = world.stead(line).code(1).says("error: there is no machine `nosuch`\nhint: ");
        assert_eq!(said.out, expected, "{line}");
    }
    // With nothing to do nothing is done, and a pattern has to mean something.
    for line in ["rm nosuch", "rm nosuch other", "stop nosuch", "rm one no*", "start --attach one nosuch"] {
        assert_eq!(world.stead(line).out, "", "{line}");
    }
    world.stead("rm nosuch other").code(2).says("`nosuch`").says("`other`");
    world.stead("rm one no*").code(2).says("there is no machine `no*`");
    world.stead("start --attach one nosuch").code(125);
    // Where all is told for one who reads it all, nothing is.
    world.stead("inspect one nosuch").code(2);
    let said = world.stead("rm one nosuch two").code(1).says("there is no machine `nosuch`");
    for name in ["one", "two"] {
        assert!(said.out.contains(&format!("- machine {name}.default\n")), "{}", said.out);
    }
    assert_eq!(names(&world, "ps --all --format json"), Vec::<serde_json::Value>::new());
}

#[test]
fn of_several_images_volumes_and_networks_those_that_there_are_are_removed() {
    let world = World::offline();
    let _registry = registry(&world);
    world.stead(&format!("image pull {BUSYBOX}")).ok();
    for name in ["app:1", "app:2", "app:3"] {
        world.stead(&format!("image tag {BUSYBOX} {name}")).ok();
    }
    let said = world.stead("image rm app:1 nosuch:1 app:2").code(1);
    assert_eq!(said.says("there is no image `nosuch:1` here").out, "- name app:1\n- name app:2\n");
    let said = world.stead("image rm app:3 nosuch:1 --format json").code(1);
    assert!(said.err.contains("\"code\": 1"), "{}", said.err);
    let gone: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(gone["names"], json!(["app:3"]));
    world.stead("image rm nosuch:1 nosuch:2").code(2).says("`nosuch:1`").says("`nosuch:2`");
    for name in ["a", "b", "c"] {
        world.stead(&format!("volume create {name}")).ok();
        world.stead(&format!("network create {name} --reach isolated")).ok();
    }
    let said = world.stead("volume rm a nosuch b --yes").code(1).says("there is no volume `nosuch`");
    assert!(
        said.out.contains("- volume a.default (") && said.out.contains("- volume b.default ("),
        "{}",
        said.out
    );
    assert_eq!(names(&world, "volume ls --format json"), ["c"]);
    world.stead("volume rm c no* --yes").code(2).says("there is no volume `no*`");
    world.stead("volume rm c --yes").ok();
    world.stead("network connect c box --kind container").ok();
    // Nor does one that is used keep the others.
    let said = world.stead("network rm a nosuch b c").code(1);
    let said = said.says("no command made a network `nosuch`").says("machines have nics on network `c`: box");
    assert!(
        said.out.contains("- network a.default\n") && said.out.contains("- network b.default\n"),
        "{}",
        said.out
    );
    assert_eq!(names(&world, "network ls --format json"), ["c"]);
    world.stead("network rm nosuch c --force").code(1);
    world.stead("network rm c nosuch").code(2);
    assert_eq!(world.stead("network ls --format json").json(), json!([]));
}

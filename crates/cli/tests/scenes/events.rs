//! What happens is written down and told; volumes are listed with those who use them, and protected from deletion.

use std::io::BufRead;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Role, Said, World, role, said, untested};

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

/// What happened, as `action name` and what more is told.
#[track_caller]
fn happened(world: &World, options: &str) -> Vec<String> {
    let text = world.stead(&format!("events --no-stream --format json {options}")).ok();
    let line = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let more = event["attributes"].as_object().into_iter().flatten();
        let more: String = more.map(|(key, value)| format!(" {key}={}", value.as_str().unwrap())).collect();
        format!("{} {}{more}", event["action"].as_str().unwrap(), event["name"].as_str().unwrap())
    };
    text.lines().map(line).collect()
}

#[test]
fn what_happens_to_machines_is_written_down() {
    let world = World::offline();
    let _registry = registry(&world);
    let mut live = world.spawn_stead(world.path(), &["events", "--filter", "event=die"]);
    let mut lines = live.stdout();
    let check = "test ! -e /tmp/ill";
    let health = ["--health-cmd", check, "--health-interval", "100ms", "--health-retries", "1"];
    let words =
        [&["run", "-d", "--init", "--name", "web"], &health[..], &[BUSYBOX, "sleep", "1000"]].concat();
    stead(&world, &words).ok();
    world.until("it is well", || {
        happened(&world, "web").contains(&"health web.default health=healthy".into()).then_some(())
    });
    stead(&world, &["exec", "web", "touch", "/tmp/ill"]).ok();
    world.until("it is ill", || {
        happened(&world, "web").contains(&"health web.default health=unhealthy".into()).then_some(())
    });
    if role() == Role::Root {
        world.stead("pause web").ok();
        // Longer than a test takes to be due.
        std::thread::sleep(std::time::Duration::from_millis(300));
        world.stead("unpause web").ok();
    }
    world.stead("kill --signal WINCH web").ok();
    world.stead("kill web").ok();
    world.stead("wait web").ok();
    world.stead("rm web").ok();
    let image = format!("create web.default image={BUSYBOX}:latest");
    let mut expected = vec![
        image.as_str(),
        "start web.default",
        "health web.default health=healthy",
        "health web.default health=unhealthy",
    ];
    if role() == Role::Root {
        expected.extend(["pause web.default", "unpause web.default"]);
    }
    expected.extend([
        "kill web.default signal=SIGWINCH",
        "kill web.default signal=SIGKILL",
        "die web.default exit_code=137",
        "rm web.default",
    ]);
    // The health test may be quicker than the command that writes down what it ran.
    let (ran, rest): (Vec<String>, Vec<String>) =
        happened(&world, "web").into_iter().partition(|event| event.starts_with("exec "));
    assert_eq!(ran, ["exec web.default program=touch"]);
    assert_eq!(rest, expected);
    // The one that looked on was told as it happened.
    let mut told = String::new();
    lines.read_line(&mut told).unwrap();
    assert!(told.ends_with("Z machine die web.default exit_code=137\n"), "{told}");
    // A machine that is started again and again, and one that has no memory left.
    stead(&world, &["run", "-d", "--name", "again", "--restart", "on-failure:1", BUSYBOX, "false"]).ok();
    world.stead("wait again").ok();
    let runs = [
        "start again.default",
        "die again.default exit_code=1",
        "start again.default restarts=1",
        "die again.default exit_code=1",
    ];
    assert_eq!(happened(&world, "again --filter event=start --filter event=die"), runs);
    assert_eq!(happened(&world, "--filter type=network --all"), ["create default.default"]);
    let last = world.stead("events --no-stream --since 1h --filter event=create again").ok();
    assert!(last.contains(" machine create again.default image="), "{last}");
    let (time, _) = last.split_once(' ').unwrap();
    assert_eq!(happened(&world, &format!("--until {time} again")).len(), 1);
    assert_eq!(happened(&world, "--until 2020 --all"), [""; 0]);
    world.stead("events --filter event=fall").code(2).says("is none of: create, start");
}

#[test]
fn memory_that_is_used_up_is_told() {
    if role() == Role::User {
        return untested("limits take a control group, which the ordinary user of the tests has not");
    }
    let world = World::offline();
    let _registry = registry(&world);
    let words = [
        "run",
        "--rm",
        "--name",
        "hog",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        BUSYBOX,
        "sh",
        "-c",
        "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done",
    ];
    stead(&world, &words).code(137);
    assert_eq!(happened(&world, "--filter event=oom"), ["oom hog.default"]);
    assert_eq!(happened(&world, "--filter event=die"), ["die hog.default exit_code=137"]);
}

#[test]
fn volumes_are_listed_with_those_who_use_them_and_are_not_deleted_under_them() {
    let world = World::offline();
    let _registry = registry(&world);
    assert_eq!(world.stead("volume create keep --label team=a --label x").ok(), "keep\n");
    assert_eq!(world.stead("volume create keep --label team=a --label x").ok(), "keep\n");
    world.stead("volume create keep").code(2).says("already, with other labels");
    world.stead("volume create Keep").code(2);
    stead(
        &world,
        &["run", "-d", "--name", "web", "-v", "keep:/keep", BUSYBOX, "sh", "-c", "echo kept > /keep/it"],
    )
    .ok();
    world.stead("wait web").ok();
    let shop = world.project("shop", &format!("machines: {{ db: {{ image: {BUSYBOX}, command: sleep 1000, init: true, volumes: ['data:/d'] }} }}\nvolumes: [data]\n"));
    shop.stead("up").ok();
    let rows = world.stead("volume ls --format json").json();
    let row = |at: usize| (rows[at]["name"].as_str().unwrap(), rows[at]["machines"].clone());
    assert_eq!(row(0), ("keep", serde_json::json!(["web.default"])));
    assert_eq!(row(1), ("data", serde_json::json!(["db.shop"])));
    assert_eq!(rows[0]["labels"], serde_json::json!({ "team": "a", "x": "" }));
    assert_eq!(world.stead("volume ls -q --label team=a").ok(), "keep.default\n");
    assert_eq!(world.stead("volume ls -q --label team=b").ok(), "");
    assert_eq!(world.stead("volume ls -q d*").ok(), "data.shop\n");
    let told = world.stead("volume inspect keep --format json").json();
    let path = told[0]["path"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(format!("{path}/it")).unwrap(), "kept\n");
    assert!(told[0]["size_bytes"].as_u64().unwrap() > 0, "{told}");
    world.stead("volume rm keep --yes").code(2).says("volume `keep.default` is used by web.default");
    shop.stead("volume rm data --yes").code(2).says("volume `data.shop` is used by db.shop");
    world.stead("volume rm nosuch").code(2).says("there is no volume `nosuch`");
    world.stead("rm web").ok();
    // Not without a word that it may be lost.
    world.stead("volume rm keep").code(3).says("- volume keep.default");
    assert_eq!(world.stead("volume prune --yes --label team=b").ok(), "");
    assert_eq!(world.stead("volume rm keep --yes").ok(), "- volume keep.default (its data is lost)\n");
    assert!(!std::path::Path::new(path).exists());
    shop.stead("down").ok();
    assert_eq!(world.stead("volume ls --unused -q").ok(), "data.shop\n");
    assert_eq!(world.stead("volume prune --yes").ok(), "- volume data.shop (its data is lost)\n");
    assert_eq!(world.stead("volume ls --format json").json(), serde_json::json!([]));
}

#[test]
fn a_machine_has_another_name_with_the_same_files_and_addresses() {
    let world = World::offline();
    let _registry = registry(&world);
    let line = "echo mine > /mine; exec sleep 1000";
    let words = ["run", "-d", "--init", "--name", "old", "-p", "8080:80", BUSYBOX, "sh", "-c", line];
    stead(&world, &words).ok();
    stead(&world, &["run", "-d", "--init", "--name", "other", BUSYBOX, "sleep", "1000"]).ok();
    let row = |name: &str| world.stead(&format!("ps {name}.default --format json")).json()[0].clone();
    let address = row("old")["nics"][0]["address"].clone();
    world.until("it has written", || {
        (stead(&world, &["exec", "old", "cat", "/mine"]).out == "mine\n").then_some(())
    });
    world.stead("stop old --time 1").ok();
    world.stead("rename old other").code(2).says("there is a machine `other` already");
    world.stead("rename old bad.name").code(2);
    assert_eq!(world.stead("rename old new").ok(), "new\n");
    world.stead("inspect old").code(2).says("there is no machine `old`");
    assert_eq!(row("new")["nics"][0]["address"], address);
    assert_eq!(row("new")["status"], "exited");
    assert_eq!(happened(&world, "--filter event=rename"), ["rename new.default from=old.default"]);
    world.stead("start new").ok();
    assert_eq!(stead(&world, &["exec", "new", "sh", "-c", "cat /mine; hostname"]).ok(), "mine\nnew\n");
    stead(&world, &["exec", "other", "ping", "-c", "1", "-W", "5", "new"]).ok();
    stead(&world, &["exec", "other", "ping", "-c", "1", "-W", "1", "old"]).code(1);
    assert_eq!(world.stead("port new 80").ok(), "127.0.0.1:8080\n");
    let shop = world.project("shop", &format!("machines: {{ a: {{ image: {BUSYBOX} }} }}\n"));
    shop.stead("up").ok();
    shop.stead("rename a b").code(2).says("has its name from its project's file");
}

//! Files of Compose as they are widely written, taken as they are: only whose images they run is said by a variable.

use std::path::Path;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, Role, Said, World, role, said};

/// Where they are.
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples");

/// A sample, in the directory of a project.
fn sample<'w>(world: &'w World, name: &str) -> Project<'w> {
    let project = world.project(name, "");
    std::fs::remove_file(project.directory.join("stead.yaml")).unwrap();
    world.sh(Place::Person, &format!("cp -r {SAMPLES}/{name}/. {}", project.directory.display()));
    project
}

/// Runs `stead` there, with what such files are told by the environment.
#[track_caller]
fn say(project: &Project<'_>, words: &[&str]) -> Said {
    let mut command = project.world.stead_command(&project.home, &project.directory, words);
    let registry = Path::new(BUSYBOX).parent().unwrap();
    command.env("REGISTRY", registry).env("NEWS_API_KEY", "k3y").env_remove("DEBUG");
    said(command)
}

/// A machine's name, state and health, for all of the project.
#[track_caller]
fn states(project: &Project<'_>) -> Vec<String> {
    let rows = say(project, &["ps", "--all", "--format", "json"]).json();
    let text = |row: &serde_json::Value| {
        let health = row["health"].as_str().unwrap_or_default();
        format!("{} {} {health}", row["name"].as_str().unwrap(), row["status"].as_str().unwrap())
            .trim_end()
            .to_owned()
    };
    rows.as_array().unwrap().iter().map(text).collect()
}

#[test]
fn files_of_compose_are_taken_as_they_are_widely_written() {
    let world = World::offline();
    let _registry = registry(&world);
    a_shop_with_a_database_and_a_cache(&world);
    a_site_of_several_files(&world);
    programs_with_limits(&world);
    assert_eq!(world.stead("volume ls --quiet").ok(), "");
}

#[track_caller]
fn a_shop_with_a_database_and_a_cache(world: &World) {
    let shop = sample(world, "shop");
    let file = ["-f", "compose.yaml"];
    say(&shop, &[&file[..], &["config", "--quiet"]].concat()).ok();
    say(&shop, &[&file[..], &["up", "-d", "--wait"]].concat()).ok();
    let expected = ["cache running", "db running healthy", "migrate exited", "web running healthy"];
    assert_eq!(states(&shop), [&expected[..], &["worker-1 running", "worker-2 running"]].concat());
    assert_eq!(say(&shop, &["logs", "migrate"]).ok(), "migrated by s3cret\n");
    let log = "working for postgres://shop@db:5432/orders\n";
    world
        .until("it says for whom it works", || (say(&shop, &["logs", "worker-2"]).ok() == log).then_some(()));
    for port in [18000, 18001] {
        let page = world.sh(Place::Computer, &format!("curl -s -m 5 http://127.0.0.1:{port}/"));
        assert_eq!(page, "<p>the shop</p>\n");
    }
    // What its files of variables say, each in a form of its own.
    let env = say(&shop, &["exec", "web", "env"]).ok();
    for line in [
        "PLAIN=as it stands",
        "EXPORTED=yes",
        "QUOTED=two words # no comment",
        "SINGLE=$NOT_EXPANDED",
        "COMMENTED=value",
        "FROM_ENV=orders-default",
        "LINES=first",
        "second",
        "LOG_LEVEL=",
        "DEBUG=",
        "PRICE=5$",
        "PORT=8000",
    ] {
        assert!(env.lines().any(|found| found == line), "no `{line}` in\n{env}");
    }
    let line = "ulimit -Sn; ulimit -Hn; cat /again/index.html; touch /uploads/it; df -k /scratch | tail -n1 | tr -s ' ' | cut -d' ' -f2";
    assert_eq!(say(&shop, &["exec", "web", "sh", "-c", line]).ok(), "1024\n2048\n<p>the shop</p>\n1024\n");
    let line = "ping -c 1 -W 5 shop.internal > /dev/null && echo there | nc -w 5 cache 6379; cat /proc/self/oom_score_adj";
    assert_eq!(say(&shop, &["exec", "worker", "sh", "-c", line]).ok(), "there\n300\n");
    say(&shop, &["--profile", "tools", "up", "-d"]).ok();
    assert!(states(&shop).contains(&"adminer running".to_owned()));
    assert_eq!(say(&shop, &["volume", "ls", "-q"]).ok().lines().count(), 4);
    say(&shop, &["-f", "compose.yaml", "down", "-v", "--yes"]).ok();
}

#[track_caller]
fn a_site_of_several_files(world: &World) {
    let news = sample(world, "news");
    say(&news, &["-f", "compose.yaml", "up", "--wait"]).ok();
    let expected = ["blog running", "mail running", "proxy running", "store running healthy"];
    assert_eq!(states(&news), expected);
    world.until("the proxy has the page", || {
        let said = world.sh_said(Place::Computer, "curl -s -m 5 http://127.0.0.1:18102/");
        (said.out == "<h1>News</h1>\n").then_some(())
    });
    for (machine, log) in [("blog", "News by k3y\n"), ("mail", "news@example.test\n")] {
        world.until("it says who it is", || (say(&news, &["logs", machine]).ok() == log).then_some(()));
    }
    say(&news, &["exec", "proxy", "ping", "-c", "1", "-W", "5", "database"]).ok();
    let said = say(
        &news,
        &["exec", "news_blog", "sh", "-c", "hostname; grep gateway /etc/hosts; echo $COMMON; touch /x"],
    );
    assert_eq!(said.code(1).out, "blog-host\n192.0.2.7\tgateway.test\n1\n");
    let line = "cat /seed/rows; ! grep gateway /etc/hosts";
    assert_eq!(say(&news, &["exec", "store", "sh", "-c", line]).ok(), "rows\n");
    assert_eq!(say(&news, &["exec", "proxy", "cat", "/proxy.conf"]).ok(), "listen 80\n");
    assert!(say(&news, &["exec", "mail", "ip", "address"]).ok().contains("10.213.7.25/24"));
    say(&news, &["down", "-v", "--yes"]).ok();
}

#[track_caller]
fn programs_with_limits(world: &World) {
    let tools = sample(world, "tools");
    if role() == Role::User {
        // The ordinary user of the tests has no control group.
        say(&tools, &["up", "-d"]).code(2).says("`memory`: controller `memory` is not delegated");
        return;
    }
    say(&tools, &["up", "-d", "--wait"]).ok();
    assert_eq!(states(&tools), ["exporter running", "metrics running"]);
    let line = "head -c 3 /dev/nought | wc -c; test -d /host/proc/1 && test -d /host/sys/kernel && ls /sys/class/net";
    assert_eq!(say(&tools, &["exec", "exporter", "sh", "-c", line]).ok(), "3\nlo\n");
    let line = "echo $RETENTION; cat /etc/rules/all.yml /proc/self/oom_score_adj";
    assert_eq!(say(&tools, &["exec", "metrics", "sh", "-c", line]).ok(), "7d\nrules: []\n100\n");
    let port = say(&tools, &["port", "metrics", "9090"]).ok();
    assert_eq!(port, "127.0.0.1:18200\n");
    say(&tools, &["down", "-v", "--yes"]).ok();
}

#[test]
fn a_service_is_started_again_with_the_one_that_it_cannot_do_without() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "");
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    let file = |db: &str, web: &str| {
        let one = |more: &str| format!("{{ image: {BUSYBOX}, init: true, command: sleep 1000, {more} }}");
        let with = "depends_on: { db: { condition: service_started, restart: true } }";
        let text = format!(
            "services:\n  db: {}\n  web: {}\n  box: {}\n",
            one(&format!("environment: {{ V: {db} }}")),
            one(&format!("environment: {{ V: {web} }}, {with}")),
            one("depends_on: [db]"),
        );
        std::fs::write(shop.directory.join("compose.yaml"), text).unwrap();
    };
    let pid = |name: &str| shop.stead(&format!("inspect {name} --format json")).json()[0]["pid"].clone();
    file("1", "1");
    shop.stead("up").ok();
    let before = ["db", "web", "box"].map(pid);
    file("2", "1");
    let said = shop.stead("plan").ok();
    assert!(
        said.contains("> stop web.shop") && said.contains("# machines.web.depends_on.db.restart"),
        "{said}"
    );
    shop.stead("up").ok();
    let after = ["db", "web", "box"].map(pid);
    assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2], "{before:?} {after:?}");
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    // Who changes itself takes nobody along.
    file("2", "2");
    shop.stead("up").ok();
    assert_eq!((pid("db"), pid("box")), (after[0].clone(), after[2].clone()));
    shop.stead("down").ok();
}

#[test]
fn mounts_of_a_service_are_as_it_says() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "");
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    let file = |more: &str| {
        let text = format!(
            "services:
  a:
    image: {BUSYBOX}
    init: true
    command: sleep 1000
    network_mode: none
    tmpfs: ['/run:exec', /plain]
    volumes:
      - {{ type: volume, source: bare, target: /data, volume: {{ nocopy: true }} }}
{more}
  b: {{ image: {BUSYBOX}, init: true, command: sleep 1000, network_mode: none, volumes: ['also:/data:nocopy'] }}
  c: {{ image: {BUSYBOX}, init: true, command: sleep 1000, network_mode: none, volumes: ['full:/data'] }}
volumes: {{ bare: {{ name: elsewhere }}, also: , full: }}
"
        );
        std::fs::write(shop.directory.join("compose.yaml"), text).unwrap();
    };
    file("      - ./none/it.sock:/it.sock");
    let said = shop.stead("up").says("`name` is not heeded");
    assert!(said.code != 0 && said.err.contains("it.sock"), "{said:?}");
    assert!(!shop.directory.join("none").exists());
    file("");
    shop.stead("up").ok();
    let list = |machine: &str| shop.stead(&format!("exec {machine} ls -A /data")).ok();
    assert_eq!((list("a"), list("b")), (String::new(), String::new()));
    assert!(list("c").contains("seed"));
    let line =
        "cp /bin/busybox /run/sleep; cp /bin/busybox /plain/sleep; /run/sleep 0 && echo runs; /plain/sleep 0";
    let words = ["exec", "a", "sh", "-c", line];
    let said = world.stead_at("home", &shop.directory, &words).code(126).says("Permission denied");
    assert_eq!(said.out, "runs\n");
    shop.stead("down --volumes --yes").ok();
}

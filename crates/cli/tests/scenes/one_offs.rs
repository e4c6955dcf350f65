//! `run` of a machine of the project here: one more of it, as the file says.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, Said, World, said};

const SHOP: &str = "
name: shop
volumes: [data]
machines:
  db: { image: IMAGE, command: sleep 1000, init: true }
  job: { image: IMAGE, command: [sh, -c, 'echo migrated > /data/job'], volumes: ['data:/data'] }
  web:
    image: IMAGE
    command: [httpd, -f, -p, '80', -h, /data]
    init: true
    environment: { A: one, B: two }
    volumes: ['data:/data']
    ports: ['127.0.0.1:8080:80']
    restart: always
    networks: { default: { aliases: [www] } }
    depends_on: { db: {}, job: { condition: service_completed_successfully } }
  tool: { image: IMAGE, command: echo tool, profiles: [tools] }
  ext: { kind: container, driver: external }
";

fn text() -> String {
    SHOP.replace("IMAGE", BUSYBOX)
}

/// Runs `stead` in the project's directory with these words, of which some have spaces.
#[track_caller]
fn run(shop: &Project<'_>, words: &[&str]) -> Said {
    let words: Vec<&str> = ["run"].into_iter().chain(words.iter().copied()).collect();
    said(shop.world.stead_command(&shop.home, &shop.directory, &words))
}

/// The machines of all projects, and their states.
fn machines(world: &World) -> Vec<(String, String)> {
    let rows = world.stead("ps --all --format json").json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(|row| (text(&row["name"]), text(&row["status"]))).collect()
}

fn names(world: &World) -> Vec<String> {
    machines(world).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_machine_of_the_project_is_run_once_more_with_what_it_depends_on() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &text());
    let line = "echo $A $B $C; cat /data/job; hostname; ping -c 1 -W 5 db > /dev/null && echo db; ping -c 1 -W 1 www > /dev/null 2>&1 || echo not www; exit 7";
    let ran = run(&shop, &["--rm", "-e", "B=zwei", "-e", "C=three", "web", "sh", "-c", line]).code(7);
    let told = "`web` is a machine of project `shop`; an image is meant by `web:latest`";
    assert_eq!(ran.says(told).out, "one zwei three\nmigrated\nweb-run-1\ndb\nnot www\n");
    // What it depends on was brought up, and it is gone itself.
    let expected = [("db", "running"), ("job", "exited")].map(|(name, state)| (name.into(), state.into()));
    assert_eq!(machines(&world), expected);
    let lock = std::fs::read_to_string(shop.directory.join("stead.lock")).unwrap();
    assert!(lock.contains("\"db\"") && !lock.contains("web-run-1"), "{lock}");
    // Without it; and with a name and a profile of its own.
    shop.stead("down").ok();
    assert_eq!(run(&shop, &["--rm", "--no-deps", "--name", "one", "web", "hostname"]).ok(), "one\n");
    assert_eq!(run(&shop, &["--rm", "Tool"]).ok(), "tool\n");
    assert_eq!(run(&shop, &["--rm", "--entrypoint", "echo", "tool"]).ok(), "\n");
    assert_eq!(names(&world), Vec::<String>::new());
    // However it ends: a program that is not there, and one that never began.
    run(&shop, &["--rm", "tool", "nosuch"]).code(127);
    run(&shop, &["tool", "nosuch"]).code(127);
    assert_eq!(names(&world), Vec::<String>::new());
}

#[test]
fn one_that_is_kept_is_left_alone_until_it_is_taken_away() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &text());
    shop.stead("up").ok();
    assert_eq!(run(&shop, &["-d", "web", "sh", "-c", "echo begun; exec sleep 1000"]).ok(), "web-run-1\n");
    assert_eq!(run(&shop, &["-d", "web", "sleep", "1000"]).ok(), "web-run-2\n");
    let pid = |name: &str| shop.stead(&format!("ps {name} --format json")).json()[0]["pid"].clone();
    let before = (pid("web-run-1"), pid("web"));
    // Each has its own name, and only the file's has the port.
    let found = shop.stead("exec db ping -c 1 -W 5 web-run-1");
    assert_eq!(found.code, 0, "{}", found.err);
    assert_eq!(shop.stead("port web-run-1 --format json").json(), serde_json::json!([]));
    assert!(!shop.stead("plan").ok().contains("web-run"));
    shop.write(&text().replace("A: one", "A: another"));
    let changed = shop.stead("up").ok();
    assert!(changed.contains("> start web.shop") && !changed.contains("web-run"), "{changed}");
    assert_eq!(pid("web-run-1"), before.0);
    assert_ne!(pid("web"), before.1);
    assert_eq!(shop.stead("logs web-run-1").ok(), "begun\n");
    let words = ["exec", "web-run-1", "sh", "-c", "echo $A"];
    assert_eq!(said(world.stead_command(&shop.home, &shop.directory, &words)).ok(), "one\n");
    let seen = shop.stead("inspect web-run-1 --format json").json();
    assert_eq!(seen[0]["definition"]["one_off"]["of"], "web");
    assert_eq!(seen[0]["definition"]["restart"], "no");
    // Stopped and started it is the same, with its addresses.
    let nics = |name: &str| shop.stead(&format!("ps {name} --format json")).json()[0]["nics"].clone();
    let before = nics("web-run-1");
    shop.stead("stop --time 0 web-run-1").ok();
    shop.stead("up").ok();
    shop.stead("start web-run-1").ok();
    assert_eq!(nics("web-run-1"), before);
    // The engine is lost: no file says its nics, and it has them again.
    world.sh(Place::Computer, "kill -9 $(pgrep -f __anchor | head -1)");
    shop.stead("up").ok();
    assert_eq!(nics("web-run-1"), before);
    shop.stead("exec web-run-1 ping -c 1 -W 5 db").ok();
    shop.stead("rm --force web-run-2").ok();
    // A name that the file has by now is the file's.
    shop.write(
        &text()
            .replace("  tool:", "  web-run-1: { image: IMAGE, command: sleep 1000 }\n  tool:")
            .replace("IMAGE", BUSYBOX),
    );
    let changed = shop.stead("up").ok();
    assert!(
        changed.contains("- machine web-run-1.shop") && changed.contains("> start web-run-1.shop"),
        "{changed}"
    );
    assert_eq!(run(&shop, &["-d", "web", "sleep", "1000"]).ok(), "web-run-2\n");
    shop.stead("down").ok();
    assert_eq!(names(&world), Vec::<String>::new());
}

#[test]
fn what_a_machine_that_is_run_once_more_cannot_be_is_refused() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &text());
    for (words, why) in [
        (
            ["--network", "default", "web"].as_slice(),
            "`--network`: a machine like `web` is on the networks that the file says",
        ),
        (&["--kind", "microvm", "web"], "`--kind`: a machine like `web` is of the kind"),
        (&["--platform", "linux/arm64", "web"], "`--platform`"),
        (&["--memory", "12q", "web"], "`--memory`: `12q` is not a size"),
        (&["ext"], "somebody else runs it"),
        (&["--name", "db", "web"], "project `shop` has a machine `db` already"),
        (&["--no-deps", BUSYBOX], "`--no-deps` is about machines of a project"),
        (&["--service-ports", "lab/other"], "`--service-ports` is about machines of a project"),
        (&["-f", "stead.yaml", "nosuch"], "project `shop` has no machine `nosuch`"),
        (&["-f", "nosuch.yaml", "web"], "there is no file"),
        (&["--pull", "never", "web:latest", "echo"], "web:latest for linux/"),
        (
            &["--mount", "type=bind,src=/nosuch,dst=/x", "web"],
            "there is no `/nosuch`, which is to be at `/x`",
        ),
    ] {
        let said = run(&shop, words).code(125);
        assert!(said.err.contains(why), "{words:?}: {}", said.err);
    }
    assert_eq!(names(&world), Vec::<String>::new());
    // Its own port is published once.
    shop.stead("up").ok();
    run(&shop, &["-P", "web", "true"]).code(125).says("is published by machine `web.shop`");
    shop.stead("rm --force web").ok();
    assert_eq!(run(&shop, &["-d", "-P", "web"]).ok(), "web-run-1\n");
    let row = shop.stead("port web-run-1 --format json").json();
    assert_eq!(row[0]["port"], 8080, "{row}");
    shop.stead("up").code(2).says("is published by machine `web-run-1.shop`, which stays as it is");
    shop.stead("up db").ok();
    assert_eq!(run(&shop, &["--rm", "web", "echo", "hi"]).ok(), "hi\n");
    shop.stead("rm --force web-run-1").ok();
    shop.stead("up").ok();
    // A file that cannot be read keeps nobody from an image.
    shop.write("machines: { web: [");
    assert_eq!(run(&shop, &["--rm", BUSYBOX, "echo", "hi"]).ok(), "hi\n");
    run(&shop, &["web"]).code(125).says("an image is meant by `web:latest`").says("stead.yaml:2:1: not YAML");
    run(&shop, &["-f", "stead.yaml", "web"]).code(125).says("stead.yaml:2:1: not YAML");
    shop.stead("down").ok();
}

#[test]
fn what_is_started_loses_nothing_for_what_the_file_says_by_now() {
    let world = World::offline();
    let _registry = registry(&world);
    let base =
        format!("name: shop\nmachines:\n  web: {{ image: {BUSYBOX}, command: sleep 1000, init: true }}\n");
    let more = format!("machines:\n  dev: {{ image: {BUSYBOX}, command: sleep 1000, init: true }}\n");
    let shop = world.project("shop", &base);
    std::fs::write(shop.directory.join("dev.yaml"), &more).unwrap();
    shop.stead("-f stead.yaml -f dev.yaml up").ok();
    shop.stead("exec dev touch /kept").ok();
    // One machine more changes nothing of what the project is, nor does it run again because the others do.
    run(&shop, &["web", "echo", "once"]).ok();
    shop.stead("stop --time 0").ok();
    shop.stead("start").ok();
    assert_eq!(shop.stead("logs web-run-1").ok(), "once\n");
    shop.stead("exec dev test -e /kept").ok();
    shop.stead("restart --time 0").ok();
    assert_eq!(shop.stead("logs web-run-1").ok(), "once\n");
    // Files on record that cannot be read just now are told, and no others are read instead.
    std::fs::write(shop.directory.join("dev.yaml"), "machines: [").unwrap();
    run(&shop, &["--rm", "web", "true"]).code(125).says("dev.yaml:2:1: ");
    // What no file names any more is started as it is.
    shop.stead("stop --time 0 dev").ok();
    std::fs::write(shop.directory.join("dev.yaml"), "machines: {}\n").unwrap();
    let started = shop.stead("start dev").ok();
    assert!(!started.contains("- "), "{started}");
    shop.stead("exec dev ping -c 1 -W 5 web").ok();
    shop.stead("exec dev test -e /kept").ok();
    // A network that is another by now waits for what `run` made.
    shop.write(&format!("{base}networks: {{ default: {{ subnet: 10.77.0.0/24 }} }}\n"));
    shop.stead("up").code(2).says("`stead rm --force web-run-1.shop` first");
    shop.stead("down").ok();
}

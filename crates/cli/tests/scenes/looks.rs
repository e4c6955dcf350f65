//! Looking at machines and at their files: what is told is what is so, and no file of a machine leads out of it.

use std::fs;
use std::io::{BufRead, Write};
use std::process::Stdio;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Said, World, said};

/// Runs `stead` with these words, of which some have spaces.
#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

/// Starts machine `web`, which runs this.
#[track_caller]
fn web(world: &World, options: &[&str], line: &str) {
    let words = [&["run", "-d", "--name", "web"], options, &[BUSYBOX, "sh", "-c", line]].concat();
    stead(world, &words).ok();
}

/// What a line of shell says in machine `web`.
#[track_caller]
fn inside(world: &World, line: &str) -> String {
    stead(world, &["exec", "web", "sh", "-c", line]).ok()
}

#[test]
fn all_about_a_machine_is_told() {
    let world = World::offline();
    let _registry = registry(&world);
    let options = ["-p", "8080:80", "-p", "127.0.0.1:5353:53/udp", "-l", "tier=front", "-v", "site:/srv:ro"];
    web(&world, &options, "exec sleep 1000");
    let told = &world.stead("inspect web --format json").json()[0];
    assert_eq!((&told["name"], &told["status"]), (&"web".into(), &"running".into()));
    assert_eq!(told["definition"]["labels"]["tier"], "front");
    assert!(told["image_digest"].as_str().unwrap().starts_with("sha256:"), "{told}");
    assert_eq!(told["launch"]["args"], serde_json::json!(["sh", "-c", "exec sleep 1000"]));
    assert_eq!(told["exit"], serde_json::Value::Null);
    let mounts = serde_json::json!([
        { "target": "/srv", "kind": "volume", "source": "site", "access": "read" },
        { "target": "/data", "kind": "own-volume", "source": null, "access": "write" },
    ]);
    assert_eq!(told["mounts"], mounts);
    let address = told["nics"][0]["address"].as_str().unwrap();
    assert!(inside(&world, "ip -4 address show dev eth0").contains(address));
    let pid = told["pid"].as_u64().unwrap().to_string();
    let text = world.stead("inspect web").ok();
    for line in ["machine", "web.default", "127.0.0.1:8080/tcp -> 80", "tier=front", &pid, address] {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }
    assert_eq!(world.stead("port web 80").ok(), "127.0.0.1:8080\n");
    assert_eq!(world.stead("port web 53/udp").ok(), "127.0.0.1:5353\n");
    assert_eq!(world.stead("port web").ok().lines().count(), 3);
    world.stead("port web 53").code(2).says("port 53 of machine `web.default` is not published");
    world.stead("port web x").code(2).says("`x` is no port");
    world.stead("inspect nosuch").code(2).says("there is no machine `nosuch`");
    world.stead("kill web").ok();
    world.stead("wait web").ok();
    let told = &world.stead("inspect web --format json").json()[0];
    assert_eq!((&told["status"], &told["exit"]["code"]), (&"exited".into(), &137.into()));
    world.stead("top web").code(2).says("machine `web.default` does not run");
    world.stead("stats web --no-stream").code(2).says("machine `web.default` does not run");
}

#[test]
fn what_machines_wrote_is_an_object_a_line_for_programs() {
    let world = World::offline();
    let _registry = registry(&world);
    web(&world, &[], "echo 'an \"a\"'; echo oops >&2; printf end");
    world.stead("wait web").ok();
    let said = world.stead("logs web --format json").code(0);
    // Here there is one stream.
    assert_eq!(said.err, "");
    let lines: Vec<serde_json::Value> =
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut found: Vec<(&str, &str, bool)> = lines
        .iter()
        .map(|line| {
            assert_eq!(line["machine"], "web.default");
            let time = line["time"].as_str().unwrap();
            assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
            let text = |key: &str| line[key].as_str().unwrap();
            (text("stream"), text("text"), line["whole"].as_bool().unwrap())
        })
        .collect();
    // The two streams are heard in either order.
    found.sort_unstable();
    assert_eq!(found, [("stderr", "oops", true), ("stdout", "an \"a\"", true), ("stdout", "end", false)]);
    let last = world.stead("logs web --tail 1 --format json").ok();
    assert_eq!(last.lines().count(), 1, "{last}");
}

#[test]
fn what_machines_wrote_is_shown_of_a_time() {
    let world = World::offline();
    let _registry = registry(&world);
    web(&world, &[], "echo first; sleep 1.5; echo second");
    world.stead("wait web").ok();
    let stamped = world.stead("logs -t web").ok();
    let times: Vec<&str> = stamped.lines().filter_map(|line| line.split(' ').next()).collect();
    let [first, second] = times[..] else { panic!("{stamped}") };
    assert!(first < second && second.starts_with("20"), "{stamped}");
    let shown = |options: &str| world.stead(&format!("logs {options} web")).ok();
    assert_eq!(shown(&format!("--since {second}")), "second\n");
    assert_eq!(shown(&format!("--until {first}")), "first\n");
    assert_eq!(shown(&format!("--since {first} --until {second}")), "first\nsecond\n");
    assert_eq!(shown("--since 10m"), "first\nsecond\n");
    assert_eq!(shown("--until 10m"), "");
    world.stead("logs --since soon web").code(2).says("soon");
}

#[test]
fn what_a_machine_does_and_uses_is_told() {
    let world = World::offline();
    let _registry = registry(&world);
    web(&world, &[], "sleep 1000 & while :; do :; done");
    let processes = world.stead("top web --format json").json();
    let commands: Vec<&str> =
        processes.as_array().unwrap().iter().map(|row| row["command"].as_str().unwrap()).collect();
    assert_eq!(commands, ["sh -c sleep 1000 & while :; do :; done", "sleep 1000"]);
    assert_eq!((&processes[0]["inner_pid"], &processes[0]["user"]), (&1.into(), &"root".into()));
    assert_eq!(processes[1]["parent"], processes[0]["pid"]);
    let used = world.stead("stats web --no-stream --format json").json();
    assert!(used[0]["cpu_percent"].as_f64().unwrap() > 1.0, "{used}");
    assert!(used[0]["memory_bytes"].as_u64().unwrap() > 0, "{used}");
    assert_eq!(used[0]["pids"], 2);
    // A page of 4096 bytes and more goes over its nic.
    let received = |used: &serde_json::Value| used[0]["sent_bytes"].as_u64().unwrap();
    let gateway = inside(&world, "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'");
    inside(&world, &format!("ping -c 4 -i 0.1 -s 1200 {} || true", gateway.trim()));
    let later = world.stead("stats --no-stream --format json").json();
    assert!(received(&later) >= received(&used) + 4 * 1200, "{used} {later}");
    // The stream ends with the machine.
    let mut stream = world.spawn_stead(world.path(), &["stats", "web", "--format", "json"]);
    let mut lines = stream.stdout().lines();
    assert!(lines.next().unwrap().unwrap().contains("web.default"));
    world.stead("kill web").ok();
    assert_eq!(lines.last().unwrap().unwrap(), "[]");
    world.until("the stream has ended", || (!stream.is_alive()).then_some(()));
}

#[test]
fn files_go_in_and_out_whether_a_machine_runs_or_not() {
    let world = World::offline();
    let _registry = registry(&world);
    web(&world, &[], "exec sleep 1000");
    let here = world.path();
    fs::create_dir_all(here.join("site/sub")).unwrap();
    fs::write(here.join("site/page"), "page\n").unwrap();
    fs::write(here.join("site/sub/deep"), "deep\n").unwrap();
    for name in ["site", "site/sub", "."] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(here.join(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let read = |name: &str| fs::read_to_string(here.join(name)).unwrap();
    for state in ["running", "stopped"] {
        let at = |path: &str| format!("web:/{state}{path}");
        stead(&world, &["cp", "site", &at("")]).ok();
        stead(&world, &["cp", "site/page", &at("/sub/")]).ok();
        stead(&world, &["cp", "site/.", "web:/data"]).ok();
        stead(&world, &["cp", &at("/sub/page"), &format!("{state}-back")]).ok();
        assert_eq!(read(&format!("{state}-back")), "page\n");
        stead(&world, &["cp", "web:/data/seed", &format!("{state}-seed")]).ok();
        assert_eq!(read(&format!("{state}-seed")), "from-the-image\n");
        stead(&world, &["cp", &at(""), "copies"]).ok();
        let gone = "error: there is no `/nosuch` in machine `web.default`";
        stead(&world, &["cp", "web:/nosuch", "x"]).code(1).says(gone);
        stead(&world, &["cp", "web:/nosuch", "-"]).code(1).says(gone);
        stead(&world, &["cp", "nosuch", "web:/x"]).code(1).says("error: there is no `nosuch` here");
        let nowhere = "error: there is no directory `/nosuch` in machine `web.default`";
        stead(&world, &["cp", "site/page", "web:/nosuch/page"]).code(1).says(nowhere);
        stead(&world, &["cp", "web:/data/seed", "nosuch/x"])
            .code(1)
            .says("there is no directory `nosuch` here");
        if state == "running" {
            assert_eq!(
                inside(&world, "cat /running/page /running/sub/* /data/sub/deep"),
                "page\ndeep\npage\ndeep\n"
            );
            assert_eq!(inside(&world, "stat -c %u:%g /running/page"), "0:0\n");
            world.stead("stop --time 0 web").ok();
        }
    }
    assert_eq!(read("copies/sub/deep"), "deep\n");
    world.stead("start web").ok();
    assert_eq!(
        inside(&world, "cat /stopped/page /stopped/sub/page /data/seed"),
        "page\npage\nfrom-the-image\n"
    );
    world.stead("cp web:/a web:/b").code(2).says("both sides are machines");
    world.stead("cp a b").code(2).says("neither side is a machine");
}

#[test]
fn archives_go_in_and_out() {
    let world = World::offline();
    let _registry = registry(&world);
    web(&world, &[], "mkdir -p /tree/sub; echo one > /tree/sub/file; exec sleep 1000");
    world.until("the tree is there", || {
        (stead(&world, &["exec", "web", "test", "-s", "/tree/sub/file"]).code == 0).then_some(())
    });
    let mut out = world.stead_command("home", world.path(), &["cp", "web:/tree", "-"]);
    let packed = out.stdin(Stdio::null()).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    fs::write(world.path().join("tree.tar"), &packed.stdout).unwrap();
    let listed =
        world.sh(crate::support::Place::Computer, &format!("tar tf {}/tree.tar", world.path().display()));
    assert_eq!(listed, "tree/\ntree/sub/\ntree/sub/file\n");
    let mut into = world.stead_command("home", world.path(), &["cp", "-", "web:/tmp"]);
    let mut into = into.stdin(Stdio::piped()).spawn().unwrap();
    into.stdin.take().unwrap().write_all(&packed.stdout).unwrap();
    assert!(into.wait().unwrap().success());
    assert_eq!(inside(&world, "cat /tmp/tree/sub/file"), "one\n");
}

#[test]
fn links_in_a_machine_lead_to_nothing_of_this_computer() {
    let world = World::offline();
    let _registry = registry(&world);
    let here = world.path().display().to_string();
    fs::write(world.path().join("secret"), "secret\n").unwrap();
    let line = format!(
        "mkdir -p /up; ln -s {here} /out; ln -s {here}/secret /link; ln -s ../../../../../..{here} /up/out; \
         ln -s /proc/1/root{here} /magic; touch /ready; exec sleep 1000"
    );
    web(&world, &[], &line);
    world.until("the links are there", || {
        (stead(&world, &["exec", "web", "test", "-e", "/ready"]).code == 0).then_some(())
    });
    fs::write(world.path().join("mine"), "mine\n").unwrap();
    for state in ["running", "stopped"] {
        for link in ["out", "up/out", "magic"] {
            stead(&world, &["cp", &format!("web:/{link}/secret"), "got"]).code(1);
            stead(&world, &["cp", "mine", &format!("web:/{link}/planted")]).code(1);
        }
        // The link itself comes out, as a link, and what it leads to here is not written through it.
        stead(&world, &["cp", "web:/link", "got"]).ok();
        assert!(fs::symlink_metadata(world.path().join("got")).unwrap().is_symlink());
        stead(&world, &["cp", "mine", "web:/link"]).ok();
        assert_eq!(fs::read_to_string(world.path().join("secret")).unwrap(), "secret\n");
        assert!(!world.path().join("planted").exists());
        if state == "running" {
            inside(&world, &format!("rm /link; ln -s {here}/secret /link"));
            world.stead("stop --time 0 web").ok();
        }
    }
}

#[test]
fn what_a_machine_changed_is_told() {
    let world = World::offline();
    let _registry = registry(&world);
    let line = "echo x > /new; rm /etc/group; echo y >> /etc/passwd; rm -r /tmp; mkdir /tmp; echo z > /data/own; exec sleep 1000";
    web(&world, &[], line);
    world.until("all is done", || {
        (stead(&world, &["exec", "web", "test", "-s", "/data/own"]).code == 0).then_some(())
    });
    let expected = "C /etc\nD /etc/group\nC /etc/passwd\nA /new\nC /tmp\n";
    assert_eq!(world.stead("diff web").ok(), expected);
    let json = world.stead("diff web --format json").json();
    assert_eq!(json[1], serde_json::json!({ "change": "deleted", "path": "/etc/group" }));
    world.stead("stop --time 0 web").ok();
    assert_eq!(world.stead("diff web").ok(), expected);
    world.stead("diff nosuch").code(2).says("there is no machine `nosuch`");
}

#[test]
fn machines_are_listed_by_what_they_are() {
    let world = World::offline();
    let _registry = registry(&world);
    web(&world, &["-l", "tier=front"], "exec sleep 1000");
    stead(&world, &["run", "--name", "job", "-l", "tier=back", BUSYBOX, "false"]).code(1);
    let names = |filters: &str| world.stead(&format!("ps --all --quiet {filters}")).ok().replace('\n', " ");
    assert_eq!(names(""), "job.default web.default ");
    assert_eq!(names("--filter status=running"), "web.default ");
    assert_eq!(names("--filter status=exited --filter status=running"), "job.default web.default ");
    assert_eq!(names("--filter label=tier --filter name=j*"), "job.default ");
    assert_eq!(names("--filter label=tier=front"), "web.default ");
    assert_eq!(names("--filter label=tier=front --filter status=exited"), "");
    assert_eq!(names(&format!("--filter ancestor={BUSYBOX}")), "job.default web.default ");
    assert_eq!(names("--filter ancestor=debian:12"), "");
    let digest =
        world.stead("inspect web --format json").json()[0]["image_digest"].as_str().unwrap().to_owned();
    assert_eq!(names(&format!("--filter ancestor={}", &digest[..19])), "job.default web.default ");
    world.stead("ps --filter status=up").code(2).says("`up` is none of");
}

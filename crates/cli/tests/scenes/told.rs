//! What images say of machines that are made of them: what runs, where, as whom, and how it is looked after.

use serde_json::{Value, json};

use crate::support::registry::registry;
use crate::support::{Place, Role, Running, Said, World, role, said, untested};

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

/// A computer with an image for each of these configurations, all of the same two layers, as other programs write them.
fn with_images(images: &[(&str, Value)]) -> (World, Running) {
    let world = World::offline();
    let registry = load(&world, images);
    (world, registry)
}

/// Loads such images on a computer, with a registry.
fn load(world: &World, images: &[(&str, Value)]) -> Running {
    let registry = registry(world);
    let directory = world.path().join("made");
    std::fs::create_dir_all(directory.join("accounts/etc")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("accounts/etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n");
    write("accounts/etc/group", "root:x:0:\napp:x:1000:\nlab:x:50:app\nothers:x:51:app\n");
    let lines = "cp ../registry/layer system.tar; tar -C accounts --owner=0 --group=0 -cf accounts.tar etc; \
        uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/'; sha256sum *.tar | cut -d' ' -f1";
    let said = world.sh(Place::Computer, &format!("cd {} && {lines}", directory.display()));
    let words: Vec<&str> = said.split_whitespace().collect();
    let diff_ids = [words[2], words[1]].map(|sum| format!("sha256:{sum}"));
    let manifest = images.iter().enumerate().map(|(at, (name, config))| {
        let config = json!({
            "architecture": words[0], "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        write(&format!("{at}.json"), &config.to_string());
        json!({"Config": format!("{at}.json"), "RepoTags": [name], "Layers": ["system.tar", "accounts.tar"]})
    });
    write("manifest.json", &Value::from_iter(manifest).to_string());
    world.sh(Place::Computer, "cd made && tar -cf ../made.tar *.json *.tar");
    world.stead("image load made.tar").ok();
    registry
}

#[test]
fn what_runs_and_where_is_as_the_image_says_unless_the_person_says_otherwise() {
    let config = json!({
        "Entrypoint": ["/bin/echo", "entry"], "Cmd": ["one", "two words"],
        "WorkingDir": "/made/by/nobody", "Env": ["PATH=/bin", "COLOR=dark blue", "EMPTY="],
    });
    let (world, _registry) = with_images(&[("lab/said:1", config)]);
    let sees = |words: &[&str]| stead(&world, &[&["run", "--rm"], words].concat()).ok();
    assert_eq!(sees(&["lab/said:1"]), "entry one two words\n");
    assert_eq!(sees(&["lab/said:1", "three", "four five"]), "entry three four five\n");
    assert_eq!(sees(&["--entrypoint", "", "lab/said:1", "echo", "alone"]), "alone\n");
    // Another one has words of its own, not those of the image.
    assert_eq!(sees(&["--entrypoint", "/bin/echo", "lab/said:1"]), "\n");
    assert_eq!(sees(&["--entrypoint", "pwd", "lab/said:1"]), "/made/by/nobody\n");
    assert_eq!(sees(&["--entrypoint", "pwd", "-w", "/data", "lab/said:1"]), "/data\n");
    let env = sees(&["--entrypoint", "env", "lab/said:1"]);
    for line in ["PATH=/bin", "COLOR=dark blue", "EMPTY="] {
        assert!(env.lines().any(|found| found == line), "no `{line}` in\n{env}");
    }
    let env = sees(&["--entrypoint", "env", "-e", "COLOR=red", "lab/said:1"]);
    assert_eq!(env.lines().filter(|line| line.starts_with("COLOR=")).collect::<Vec<_>>(), ["COLOR=red"]);
}

#[test]
fn who_runs_is_whom_the_image_names_with_the_groups_of_the_images_file() {
    let users = [
        ("app", "lab/app:1"),
        ("1000", "lab/number:1"),
        ("1000:50", "lab/both:1"),
        ("app:others", "lab/words:1"),
        ("4321", "lab/none:1"),
        ("nobody", "lab/lost:1"),
    ];
    let images =
        users.map(|(user, image)| (image, json!({"User": user, "Env": ["PATH=/bin"], "Cmd": ["id"]})));
    let (world, _registry) = with_images(&images);
    let sees = |image: &str| stead(&world, &["run", "--rm", image]);
    sees("lab/lost:1").code(125).says("`nobody`");
    // Whoever is named by the person is not the image's.
    assert!(
        stead(&world, &["run", "--rm", "--user", "0", "lab/app:1"])
            .ok()
            .starts_with("uid=0(root) gid=0(root)")
    );
    if role() == Role::User {
        sees("lab/app:1").code(125).says("cannot be ").says("this user's containers have fewer ids");
        return;
    }
    for (image, expected) in [
        ("lab/app:1", "uid=1000(app) gid=1000(app) groups=50(lab),51(others),1000(app)\n"),
        ("lab/number:1", "uid=1000(app) gid=1000(app) groups=50(lab),51(others),1000(app)\n"),
        ("lab/both:1", "uid=1000(app) gid=50(lab) groups=50(lab)\n"),
        ("lab/words:1", "uid=1000(app) gid=51(others) groups=51(others)\n"),
        ("lab/none:1", "uid=4321 gid=0(root) groups=0(root)\n"),
    ] {
        assert_eq!(sees(image).ok(), expected, "{image}");
    }
}

const SHOP: &str = "
name: shop
volumes: [data]
machines:
  web: { image: 'lab/app:1', init: true, command: sleep 1000, volumes: ['data:/kept', './drop:/drop'] }
";

#[test]
fn what_the_images_user_writes_belongs_to_a_subordinate_id() {
    let Some(world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    let _registry = load(&world, &[("lab/app:1", json!({"User": "1000", "Env": ["PATH=/bin"]}))]);
    let shop = world.project("shop", SHOP);
    world.sh(Place::Computer, "chown -R 1234:1234 projects");
    world.sh(Place::Person, "mkdir -m 777 projects/home/shop/drop; echo ours > projects/home/shop/drop/ours");
    shop.stead("up").ok();
    let inside =
        |line: &str| said(world.stead_command("home", &shop.directory, &["exec", "web", "sh", "-c", line]));
    assert_eq!(inside("stat -c %u:%g /kept /drop /drop/ours; id -u").ok(), "0:0\n0:0\n0:0\n1000\n");
    // The person's own files are root's there, and what an empty volume is, too.
    inside("echo no > /drop/ours").code(1).says("Permission denied");
    inside("echo no > /kept/its").code(1).says("Permission denied");
    shop.stead("exec --user 0 web chown 1000:1000 /kept").ok();
    inside("for at in kept drop; do mkdir /$at/d; echo $at > /$at/d/its; done").ok();
    // Root is the person, and the others follow from 1 on.
    let of = "stat -c %u:%g home/state/volumes/shop/data/d/its projects/home/shop/drop/d/its";
    assert_eq!(world.sh(Place::Computer, of), "3000999:3000999\n3000999:3000999\n");
    // What comes out is the person's; what goes in is root's.
    shop.stead("cp web:/kept/d out").ok();
    shop.stead("cp web:/drop/d/its out/other").ok();
    assert_eq!(
        world.sh(Place::Computer, "cd projects/home/shop/out; stat -c %u:%g its other; cat its other"),
        "1234:1234\n1234:1234\nkept\ndrop\n"
    );
    shop.stead("cp out web:/kept/back").ok();
    assert_eq!(inside("stat -c %u:%g /kept/back/its").ok(), "0:0\n");
    shop.stead("down --volumes --yes").ok();
    assert_eq!(world.sh(Place::Computer, "find home/state/volumes home/state/machines -mindepth 1"), "");
    // What is in the person's own directory is theirs to keep.
    assert_eq!(world.sh(Place::Computer, "cat projects/home/shop/drop/d/its"), "drop\n");
}

/// Serves a page, and tells which signal came.
const SERVES: &str = "trap 'echo got USR1; exit 5' USR1; trap 'echo got TERM; exit 6' TERM; touch /tmp/ok; \
    httpd -p 8080 -h /data; echo up; while :; do sleep 0.1; done";

#[test]
fn a_machine_is_stopped_tested_published_and_given_volumes_as_its_image_says() {
    let config = json!({
        "Entrypoint": ["sh", "-c", SERVES], "Env": ["PATH=/bin"], "StopSignal": "SIGUSR1",
        "Healthcheck": {"Test": ["CMD-SHELL", "test -e /tmp/ok"], "Interval": 100_000_000, "Timeout": 10_000_000_000u64, "Retries": 2},
        "ExposedPorts": {"8080/tcp": {}}, "Volumes": {"/data": {}},
    });
    let (world, _registry) = with_images(&[("lab/serves:1", config)]);
    stead(&world, &["run", "-d", "-P", "--name", "web", "lab/serves:1"]).ok();
    let seen = || world.stead("ps web --format json").json()[0].clone();
    let is = |health: &str| world.until(health, || (seen()["health"] == health).then_some(()));
    is("healthy");
    assert!(world.stead("ps").ok().contains("healthy"));
    // The port is this computer's choice, and the volume began with what the image has there.
    let port = world.stead("port web 8080").ok();
    let port = port.trim().rsplit_once(':').unwrap().1;
    let page = format!("curl -s -m 5 http://127.0.0.1:{port}/seed");
    assert_eq!(world.sh(Place::Computer, &page), "from-the-image\n");
    // It is no part of what the machine writes over its image.
    let line = "echo written > /data/new; grep -c ' /data ' /proc/self/mounts; cat /data/seed";
    assert_eq!(stead(&world, &["exec", "web", "sh", "-c", line]).ok(), "1\nfrom-the-image\n");
    let written = world.stead("diff web").ok();
    assert!(written.contains("/tmp/ok") && !written.contains("/data/"), "{written}");
    stead(&world, &["exec", "web", "rm", "/tmp/ok"]).ok();
    is("unhealthy");
    assert!(world.stead("ps").ok().contains("unhealthy"));
    assert!(world.stead("inspect web").ok().contains("unhealthy"));
    world.stead("stop web").ok();
    assert_eq!(world.stead("logs web").ok(), "up\ngot USR1\n");
    assert_eq!(world.stead("ps -a web --format json").json()[0]["exit_code"], 5);
    world.stead("rm web").ok();
}

#[test]
fn what_two_images_share_is_told_of_both() {
    let config = |word: &str| json!({"Cmd": ["echo", word]});
    let (world, _registry) = with_images(&[("lab/one:1", config("one")), ("lab/two:1", config("two"))]);
    let rows = world.stead("image ls lab/* --format json").json();
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows:#}");
    for row in rows.as_array().unwrap() {
        let bytes = |key: &str| row[key].as_u64().unwrap();
        // Of its own each has but its documents.
        assert!(bytes("shared_bytes") > 1_000_000 && (1..10_000).contains(&bytes("own_bytes")), "{row:#}");
        assert_eq!(bytes("size_bytes"), bytes("shared_bytes") + bytes("own_bytes"));
    }
    let told = world.stead("image inspect lab/one:1 --format json").json();
    assert_eq!(
        (&told["shared_bytes"], &told["own_bytes"]),
        (&rows[0]["shared_bytes"], &rows[0]["own_bytes"])
    );
    world.stead("image rm lab/two:1").ok();
    let row = world.stead("image ls lab/one:1 --format json").json()[0].clone();
    assert_eq!((row["shared_bytes"].as_u64(), &row["own_bytes"]), (Some(0), &row["size_bytes"]));
}

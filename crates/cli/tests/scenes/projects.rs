//! Projects as files: understood, pulled, and waited for.

use std::io::Read;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, Role, Running, World, role, said};

const SHOP: &str = "
name: shop
machines:
  web: { image: IMAGE, command: [sh, -c, 'exec sleep $$TIME'], environment: { TIME: '1000' }, depends_on: [db] }
  db: { image: IMAGE, command: [sleep, '1000'], volumes: ['data:/data'], hostname: '123' }
  debug: { image: 'lab/other:1', profiles: [debug] }
volumes: [data]
";

#[test]
fn a_file_is_shown_as_it_is_understood() {
    let world = World::offline();
    let text = SHOP.replace("IMAGE", BUSYBOX);
    let shop = world.project("shop", &text);
    let image = format!("{BUSYBOX}:latest\n");
    assert_eq!(shop.stead("config --machines").ok(), "db\nweb\n");
    assert_eq!(shop.stead("config --images").ok(), image);
    assert_eq!(shop.stead("config --images --profile debug").ok(), format!("{image}lab/other:1\n"));
    assert_eq!(shop.stead("config --volumes").ok(), "data\n");
    assert_eq!(shop.stead("config --networks").ok(), "default\n");
    assert_eq!(shop.stead("config --profiles").ok(), "debug\n");
    assert_eq!(shop.stead("config --profiles --format json").json(), serde_json::json!(["debug"]));
    assert_eq!(shop.stead("config --quiet").ok(), "");
    let json = shop.stead("config --format json").json();
    assert_eq!(json["machines"]["web"]["command"], serde_json::json!(["sh", "-c", "exec sleep $TIME"]));
    assert_eq!(json["machines"]["web"]["environment"], serde_json::json!(["TIME=1000"]));
    assert_eq!(json["machines"]["db"]["hostname"], "123");
    assert_eq!(json["networks"]["default"]["mtu"], 1500);
    // What it shows is a file of the same project.
    let shown = shop.stead("config").ok();
    let again = world.project("again", &shown);
    assert_eq!(again.stead("config").ok(), shown);
    shop.write(&text.replace("hostname", "hostnome"));
    shop.stead("config --quiet").code(2).says("hostnome");
    shop.stead("config --images --volumes").code(2).says("cannot be used with");
}

#[test]
fn the_images_of_a_project_are_pulled() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &SHOP.replace("IMAGE", BUSYBOX));
    let pulled = shop.stead("pull web --format json").json();
    assert_eq!(
        (&pulled[0]["image"], pulled.as_array().unwrap().len()),
        (&format!("{BUSYBOX}:latest").into(), 1)
    );
    // It is here now: nobody is asked.
    assert!(shop.stead("up --pull never").ok().contains("> start web.shop"));
    assert_eq!(shop.stead("pull --missing").ok().lines().count(), 1);
    shop.stead("pull nosuch").code(2).says("the project has no machine `nosuch`");
    shop.stead("pull debug --profile debug").code(1).says("lab/other:1");
}

/// Leads to the registry once somebody else waits beside it; alone it gives up.
const GATE: &str = r#"
    touch waiting/$$
    for i in $(seq 30); do
        [ $(ls waiting | wc -l) -gt 1 ] && touch open
        [ -e open ] && exec busybox nc 127.0.0.1 5000
        sleep .1
    done
    rm waiting/$$
"#;

#[test]
fn several_images_of_a_project_are_pulled_at_once() {
    let world = World::offline();
    let _registry = registry(&world);
    let directory = world.path().join("gate");
    std::fs::create_dir_all(directory.join("waiting")).unwrap();
    let gate = format!("cd {}\n{GATE}", directory.display());
    std::fs::write(directory.join("gate.sh"), gate).unwrap();
    let script = directory.join("gate.sh").display().to_string();
    let words = ["busybox", "nc", "-ll", "-p", "8002", "-e", "sh", &script];
    let _gate = world.spawn(Place::Computer, &words);
    let image = BUSYBOX.replace("5000", "8002");
    let shop = world.project(
        "shop",
        &format!("machines: {{ a: {{ image: {image} }}, b: {{ image: {image}, platform: linux/amd64 }} }}\n"),
    );
    assert_eq!(shop.stead("pull").ok().lines().count(), 2);
}

#[test]
fn what_needs_no_image_is_refused_before_one_is_asked_for() {
    let world = World::offline();
    let _registry = registry(&world);
    let asked =
        || std::fs::read_to_string(world.path().join("registry/log")).unwrap().matches("lab/none").count();
    let absent = BUSYBOX.replace("busybox", "none");
    let text = format!(
        "machines: {{ web: {{ image: {absent}, devices: [/dev/nosuch] }}, db: {{ image: {absent} }} }}\n"
    );
    let shop = world.project("shop", &text);
    for options in ["", "--pull always", "--yes"] {
        shop.stead(&format!("up {options}")).code(2).says("there is no device `/dev/nosuch`");
    }
    // Also where it would be built first, and for machines that are there already.
    let built = "web: { build: nosuch, devices: [/dev/nosuch] }";
    shop.write(&format!("machines: {{ {built} }}\n"));
    shop.stead("up").code(2).says("there is no device `/dev/nosuch`");
    let line = format!("run --device /dev/nosuch:/x:q {absent}");
    world.stead(&line).code(125).says("`--device`");
    assert_eq!(asked(), 0);
    // Else it is.
    shop.write(&text.replace("devices: [/dev/nosuch]", "init: true"));
    shop.stead("up").code(1).says("cannot pull");
    assert!(asked() > 0, "the registry tells of nothing");
    // What has yet to come may be what a machine is made of: that does not count as a change of it.
    shop.write(&format!(
        "machines: {{ web: {{ image: {BUSYBOX}, command: [sleep, '1000'], init: true }} }}\n"
    ));
    shop.stead("up").ok();
    world.stead(&format!("image tag {BUSYBOX} lab/kept:1")).ok();
    world.stead(&format!("image rm {BUSYBOX}")).ok();
    assert!(!shop.stead("up").ok().contains("web.shop"));
}

const HEALTH: &str = "
name: shop
machines:
  web:
    image: IMAGE
    command: [sh, -c, 'sleep 0.5; touch /tmp/ok; exec sleep 1000']
    healthcheck: { test: [CMD, test, -e, /tmp/ok], interval: 100ms, retries: 100 }
  plain: { image: IMAGE, command: [sleep, '1000'] }
  job: { image: IMAGE, command: 'true' }
";

#[test]
fn up_waits_until_machines_are_so_far() {
    let world = World::offline();
    let _registry = registry(&world);
    let text = HEALTH.replace("IMAGE", BUSYBOX);
    let shop = world.project("shop", &text);
    shop.stead("up --wait").ok();
    assert_eq!(shop.stead("ps web --format json").json()[0]["health"], "healthy");
    shop.stead("up job --wait=completed").ok();
    shop.stead("up plain --wait=healthy")
        .code(1)
        .says("step `> await plain.shop healthy` failed")
        .says("no health check");
    shop.stead("up plain --wait=completed --wait-timeout 1").code(1).says("it runs still");
    shop.stead("up --wait-timeout 1").code(2).says("--wait");
    shop.write(&text.replace("command: 'true'", "command: [sh, -c, 'echo no luck; exit 3']"));
    shop.stead("up --wait")
        .code(1)
        .says("it ended with exit code 3")
        .says("no luck")
        .says("stead logs job.shop");
    shop.write(&text.replace("touch /tmp/ok", "true").replace("retries: 100", "retries: 1"));
    shop.stead("up web --wait").code(1).says("its health check fails");
}

#[test]
fn the_files_of_an_image_are_exported() {
    let world = World::offline();
    let _registry = registry(&world);
    world.stead(&format!("image pull {BUSYBOX}")).ok();
    world.stead(&format!("image export {BUSYBOX} -o rootfs.tar")).ok();
    let listed = world.sh(Place::Person, "tar tvf rootfs.tar data/seed tmp/ bin/sh");
    assert!(listed.contains("drwxrwxrwt") && listed.contains("bin/sh -> busybox"), "{listed}");
    // It is an image again, which has the same files.
    world.stead("image import rootfs.tar lab/again:1 -- cat /data/seed").ok();
    assert_eq!(world.stead("run --rm lab/again:1").ok(), "from-the-image\n");
    world.stead("image export nosuch").code(2).says("there is no image `nosuch` here");
    assert!(!world.sh(Place::Person, "ls home/state/images/unpacking").contains("export"));
}

const PARTS: &str = "
include: [db/compose.yaml]
services:
  web:
    image: IMAGE
    command: [sh, -c, 'cat /run/secrets/token /etc/site.conf']
    secrets: [token]
    configs: [{ source: site, target: /etc/site.conf }]
    depends_on: [db]
secrets: { token: { environment: TOKEN } }
configs: { site: { content: 'mode = test' } }
";

const DB: &str = "
services:
  db: { image: IMAGE, command: [cat, /here/file], volumes: ['./here:/here:ro'], environment: { V: '${V}' } }
";

#[test]
fn a_project_of_several_files_has_texts_that_stand_in_them() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "");
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    std::fs::create_dir_all(shop.directory.join("db/here")).unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(shop.directory.join(name), text.replace("IMAGE", BUSYBOX)).unwrap();
    };
    write("compose.yaml", PARTS);
    write("db/compose.yaml", DB);
    write("db/.env", "V=beside\n");
    write("db/here/file", "from here");
    let with = |token: &str, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = world.stead_command("home", &shop.directory, &words);
        said({
            command.env("TOKEN", token);
            command
        })
    };
    shop.stead("up").code(2).says("the variable `TOKEN` is not set");
    with("s3cret\n", "up").ok();
    with("", "wait web db").ok();
    assert_eq!(with("", "logs web").ok(), "s3cret\nmode = test");
    assert_eq!(with("", "logs db").ok(), "from here");
    assert!(with("", "inspect db --format json").ok().contains("V=beside"));
    assert!(
        !with("x", "config").ok().contains("s3cret")
            && !with("x", "inspect web --format json").ok().contains("s3cret")
    );
    // Another secret is another machine, and the old one's is nowhere any more.
    let texts = world.path().join("home/state/texts");
    let count = || std::fs::read_dir(&texts).unwrap().count();
    assert_eq!(count(), 2);
    with("other\n", "up").ok();
    with("", "wait web").ok();
    assert_eq!((with("", "logs web").ok(), count()), ("other\nmode = test".to_owned(), 2));
    with("", "down").ok();
    assert_eq!(count(), 0);
}

const ENDING: &str = r#"
name: shop
machines:
  db: { image: IMAGE, init: true, command: [httpd, -f, -h, /bin], labels: { v: '0' } }
  api: { image: IMAGE, init: true, command: [sleep, '1000'], depends_on: [db] }
  web:
    image: IMAGE
    labels: { v: '0' }
    volumes: ['./out:/out']
    depends_on: [api]
    command: [sh, -c, 'trap "sleep .3; wget -q -T 3 -O /dev/null http://db/sh; echo $$? >>/out/found; exit 0" TERM; while :; do sleep .1; done']
"#;

/// How often `web` looked for `db` on its way down, and with which exit codes.
fn found(shop: &Project<'_>) -> String {
    std::fs::read_to_string(shop.directory.join("out/found")).unwrap_or_default().replace('\n', "")
}

#[test]
fn a_machine_ends_before_what_it_depends_on() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &ENDING.replace("IMAGE", BUSYBOX));
    std::fs::create_dir(shop.directory.join("out")).unwrap();
    shop.stead("up").ok();
    // What stands between them does not run.
    shop.stead("stop api").ok();
    let stopped = shop.stead("stop db web").ok();
    assert!(stopped.find("> stop web.shop") < stopped.find("> stop db.shop"), "{stopped}");
    assert_eq!(found(&shop), "0");
    shop.stead("start").ok();
    shop.stead("stop -t 5").ok();
    assert_eq!(found(&shop), "00");
    shop.stead("start").ok();
    shop.stead("restart").ok();
    assert_eq!(found(&shop), "000");
    let started = shop.stead("events --no-stream --filter event=start").ok();
    let order: Vec<&str> = started.lines().filter_map(|line| line.split(' ').nth(3)).collect();
    assert_eq!(order[order.len() - 3..], ["db.shop", "api.shop", "web.shop"], "{started}");
    // Both are made anew, and the files say nothing of it any more.
    let bare = ENDING.replace("IMAGE", BUSYBOX).replace("v: '0'", "v: '1'");
    shop.write(&bare.replace("    depends_on: [api]\n", ""));
    shop.stead("up").ok();
    assert_eq!(found(&shop), "0000");
    // Nor do they have to be there.
    shop.write(&bare);
    assert!(shop.stead("up").ok().contains("+ project shop at"));
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    world.stead("down shop").ok();
    assert_eq!(found(&shop), "00000");
}

const WAITING: &str = "
name: shop
machines:
  db:
    image: IMAGE
    command: [sleep, '1000']
    init: true
    healthcheck: { test: [CMD, test, -e, /tmp/ok], interval: 300ms, retries: 1000 }
  web: { image: IMAGE, command: [sleep, '1000'], init: true, depends_on: { db: { condition: service_healthy } } }
";

#[test]
fn who_waits_for_a_machine_holds_up_nobody() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &WAITING.replace("IMAGE", BUSYBOX));
    let all = |up: &mut Running| {
        let mut text = String::new();
        up.stdout().read_to_string(&mut text).unwrap();
        text
    };
    // What comes after this is only waiting.
    let runs = || world.until("db runs", || (shop.stead("exec db true").code == 0).then_some(()));
    let mut first = world.spawn_stead(&shop.directory, &["up"]);
    runs();
    let mut second = world.spawn_stead(&shop.directory, &["up"]);
    let other = world.project("other", &SHOP.replace("IMAGE", BUSYBOX).replace("name: shop", "name: other"));
    other.stead("up").ok();
    other.stead("down --volumes --yes").ok();
    assert!(first.is_alive() && second.is_alive());
    shop.stead("exec db touch /tmp/ok").ok();
    let told = [all(&mut first), all(&mut second)];
    let finds = |text: &str| told.iter().filter(|told| told.contains(text)).count();
    // The second waits for the first: it knows nothing of jobs that are done already.
    assert_eq!((finds("> start db.shop"), finds("> await db.shop healthy")), (1, 1), "{told:?}");
    assert!(told[1].ends_with("nothing to do\n"), "{told:?}");
    assert_eq!(shop.plan(), "nothing to do\n");
    assert_eq!(shop.stead("exec web echo here").ok(), "here\n");
    // What another command takes away is not waited for.
    shop.stead("down").ok();
    let mut third = world.spawn_stead(&shop.directory, &["up"]);
    runs();
    shop.stead("down").ok();
    let told = all(&mut third);
    assert!(!told.contains("> start web.shop\n"), "{told}");
    world.until("it ends", || (!third.is_alive()).then_some(()));
    assert_eq!(shop.stead("ps --all --format json").json(), serde_json::json!([]));
}

/// Has `init` write a project file into a directory of this name, and says what is in it.
#[track_caller]
fn begun(world: &World, template: &str) -> String {
    let directory = world.path().join(template);
    std::fs::create_dir(&directory).unwrap();
    let stead = |words: &[&str]| said(world.stead_command("home", &directory, words));
    let file = directory.join("stead.yaml");
    let path = file.display().to_string();
    assert_eq!(stead(&["init", template]).says("then say `stead up`").ok(), format!("{path}\n"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(stead(&["config", "--quiet"]).ok(), "");
    // What is there is not written over, whatever of it is there.
    std::fs::rename(&file, directory.join("compose.yaml")).unwrap();
    stead(&["init", template]).code(2).says("there is a project here already: ").says("compose.yaml");
    assert!(!file.exists(), "a second file of the project was written");
    text
}

#[test]
fn what_init_writes_is_a_project_that_comes_up() {
    let world = World::offline();
    let _registry = registry(&world);
    for (template, images, machines) in [
        ("dev", &["debian:12"][..], "dev\n"),
        ("web", &["nginx:1.27", "postgres:17"], "db\nweb\n"),
        ("agents", &["debian:12"], "agent-1\nagent-2\nagent-3\nagent-4\n"),
    ] {
        let mut text = begun(&world, template);
        for image in images {
            let theirs = format!("image: {image}\n");
            assert!(text.contains(&theirs), "{text}");
            let command = if text.contains("command: sleep infinity\n") {
                ""
            } else {
                "    command: sleep 1000\n    init: true\n"
            };
            text = text.replace(&theirs, &format!("image: {BUSYBOX}\n{command}"));
        }
        // The image of the tests lacks what a user is made with, and who would install it.
        text = text.replace("    dev: true\n", "").replace("pg_isready, --username, app", "'true'");
        let name = format!("our-{template}");
        let project = world.project(&name, &format!("name: {name}\n{text}"));
        std::fs::create_dir_all(project.directory.join("www")).unwrap();
        project.stead("up --wait").ok();
        assert_eq!(project.stead("config --machines").ok(), machines);
        let running = project.stead("ps --filter status=running --quiet").ok();
        let names: String =
            running.lines().map(|line| format!("{}\n", line.split('.').next().unwrap())).collect();
        assert_eq!(names, machines);
        project.stead("down --volumes --yes").ok();
    }
}

#[test]
fn several_files_go_over_each_other_in_their_order() {
    let world = World::offline();
    let shop = world.project("shop", "");
    let write = |name: &str, text: &str| std::fs::write(shop.directory.join(name), text).unwrap();
    std::fs::create_dir_all(shop.directory.join("more")).unwrap();
    write(
        "a.yaml",
        "services: { web: { image: one, environment: { A: 1, B: 1, C: 1 }, volumes: ['./site:/srv'] } }\n",
    );
    write("b.yaml", "services: { web: { image: two, environment: [B=2, C=2] } }\n");
    write("more/c.yaml", "services: { web: { environment: [C=3], volumes: ['./other:/other'] } }\n");
    let is_all = |said: &str| {
        assert!(said.starts_with("name: shop\n"), "{said}");
        for text in ["image: \"two:latest\"", "A=1", "B=2", "C=3"] {
            assert!(said.contains(text), "{text}: {said}");
        }
        // Paths start in the directory of the first.
        for name in ["site", "other"] {
            assert!(said.contains(&format!("source: \"{}/{name}\"", shop.directory.display())), "{said}");
        }
    };
    is_all(&shop.stead("-f a.yaml -f b.yaml --file more/c.yaml config").ok());
    is_all(&shop.stead("-f a.yaml config -f b.yaml -f more/c.yaml").ok());
    let order = shop.stead("config -f a.yaml -f more/c.yaml -f b.yaml").ok();
    assert!(order.contains("C=2"), "{order}");
    // By Compose's variable, in the environment or beside the files.
    let with = |files: &str, separator: &str| {
        let mut command = world.stead_command("home", &shop.directory, &["config"]);
        command.env("COMPOSE_FILE", files).env("COMPOSE_PATH_SEPARATOR", separator);
        said(command)
    };
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    is_all(&with("a.yaml:b.yaml:more/c.yaml", "").ok());
    is_all(&with("a.yaml,b.yaml,more/c.yaml", ",").ok());
    write(".env", "COMPOSE_FILE=a.yaml:b.yaml:more/c.yaml\n");
    is_all(&shop.stead("config").ok());
    // What is wrong is told of the file in which it is, all at once.
    write("b.yaml", "# two\nservices: { web: { imaeg: two } }\n");
    write("more/c.yaml", "machines: {}\n");
    let wrong = shop
        .stead("config")
        .code(2)
        .says("b.yaml:2:20: there is no key `imaeg`")
        .says("did you mean `image`?");
    wrong.says("more/c.yaml:1:1: `machines` stands here").says("write all of them with `services`");
    shop.stead("-f a.yaml -f none.yaml config").code(2).says("there is no file").says("none.yaml");
}

const OVER: &str = "
services:
  web:
    environment: { V: over }
    command: [sh, -c, 'echo $$V $$W; exec sleep 1000']
";

#[test]
fn an_override_beside_composes_file_goes_over_it() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "");
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(shop.directory.join(name), text).unwrap();
    let base =
        format!("services:\n  web: {{ image: {BUSYBOX}, init: true, environment: {{ V: base, W: w }} }}\n");
    write("compose.yaml", &base);
    write("compose.override.yml", OVER);
    shop.stead("up").ok();
    world.until("it has told", || (shop.stead("logs web").ok() == "over w\n").then_some(()));
    // Whoever names a file means that one.
    assert!(shop.stead("config").ok().contains("V=over"));
    assert!(shop.stead("config -f compose.yaml").ok().contains("V=base"));
    // What is wrong is told of the file in which it is.
    write("compose.override.yml", &OVER.replace("command", "comand"));
    shop.stead("plan").code(2).says("compose.override.yml:5:5: ");
    write("compose.override.yml", &format!("{OVER}    ports: ['192.0.2.7:80:80']\n"));
    write("other.yaml", &base.replace("V: base", "V: other"));
    let with = |files: &str, words: &[&str]| {
        let mut command = world.stead_command("home", &shop.directory, words);
        command.env("COMPOSE_FILE", files);
        said(command)
    };
    assert!(with("other.yaml", &["config"]).ok().contains("V=other"));
    write(".env", "COMPOSE_FILE=other.yaml\n");
    assert!(shop.stead("config").ok().contains("V=other"));
    std::fs::remove_file(shop.directory.join(".env")).unwrap();
    write("compose.override.yml", OVER);
    shop.stead("down").ok();
}

#[test]
fn a_project_is_known_by_the_files_that_made_it() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "");
    let write = |name: &str, text: &str| std::fs::write(shop.directory.join(name), text).unwrap();
    let remove = |name: &str| std::fs::remove_file(shop.directory.join(name)).unwrap();
    remove("stead.yaml");
    write(
        "a.yaml",
        &format!("machines: {{ web: {{ image: {BUSYBOX}, command: [sleep, '1000'], init: true }} }}\n"),
    );
    write("b.yaml", "machines: { web: { environment: { V: b } } }\n");
    let up = shop.stead("-f a.yaml -f b.yaml up").ok();
    assert!(up.contains("by a.yaml, b.yaml") && up.contains("> start web.shop"), "{up}");
    assert_eq!(shop.stead("-f a.yaml -f b.yaml plan --format json").json(), serde_json::json!([]));
    let starts = || {
        shop.stead("stop web.shop").ok();
        let started = shop.stead("start web.shop").ok();
        assert!(started.contains("> start web.shop"), "{started}");
        assert!(shop.stead("exec web.shop env").ok().contains("V=b\n"));
    };
    starts();
    // Whatever is looked for otherwise.
    write("stead.yaml", "machines: {}\nvolumes: [v]\n");
    starts();
    shop.stead("stop web.shop").ok();
    remove("b.yaml");
    shop.stead("start web.shop").code(2).says("there is no file").says("b.yaml any more");
    // Whoever names no file means what is looked for, and that is the project's from then on.
    write(
        "stead.yaml",
        &format!("machines: {{ other: {{ image: {BUSYBOX}, command: [sleep, '1000'], init: true }} }}\n"),
    );
    let up = shop.stead("up --yes").ok();
    assert!(up.contains("- machine web.shop") && up.contains("> start other.shop"), "{up}");
    remove("a.yaml");
    shop.stead("stop other.shop").ok();
    shop.stead("start other.shop").ok();
    // A file that is looked for anyway is nothing else where it is named.
    assert_eq!(shop.stead("-f stead.yaml plan --format json").json(), serde_json::json!([]));
    shop.stead("down --volumes --yes").ok();
}

#[test]
fn whoever_means_a_machine_asks_for_its_profiles() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "");
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    let runs = format!("image: {BUSYBOX}, command: [sleep, '1000'], init: true");
    let text = format!(
        "services:\n  base: {{ {runs} }}\n  My_App: {{ {runs}, profiles: [a] }}\n  \
         w: {{ {runs}, profiles: [b], deploy: {{ replicas: 2 }} }}\n"
    );
    std::fs::write(shop.directory.join("compose.yaml"), text).unwrap();
    let running = || {
        let names = shop.stead("ps --filter status=running --quiet").ok();
        names.lines().map(|name| name.trim_end_matches(".shop")).collect::<Vec<_>>().join(" ")
    };
    shop.stead("up").ok();
    assert_eq!(running(), "base");
    shop.stead("up w-1").ok();
    assert_eq!(running(), "base w-1");
    shop.stead("up My_App").ok();
    assert_eq!(running(), "base my-app w-1");
    // What other profiles would bring is left alone, each of several as well.
    shop.stead("up").ok();
    assert_eq!(running(), "base my-app w-1");
    shop.stead("up w*").ok();
    assert_eq!(running(), "base my-app w-1 w-2");
    shop.stead("up w-3").code(2).says("the project has no machine `w-3`");
    // By their common name they are meant where there is none of that name, also of what happened.
    let quiet = |line: &str| shop.stead(line).ok();
    assert_eq!(quiet("ps --quiet --filter name=w"), "w-1.shop\nw-2.shop\n");
    assert_eq!(quiet("ps --quiet --filter name=w-2"), "w-2.shop\n");
    assert_eq!(quiet("ps --quiet --filter name=v"), "");
    let events = quiet("events w --since 1h --no-stream");
    assert!(events.contains("w-1.shop") && events.contains("w-2.shop"), "{events}");
    assert!(!events.contains("base.shop"), "{events}");
    shop.stead("down").ok();
}

#[test]
fn several_machines_are_meant_by_the_name_that_they_have_in_common() {
    let world = World::offline();
    let _registry = registry(&world);
    let text = format!(
        "machines:\n  w: {{ image: {BUSYBOX}, command: [sleep, '1000'], init: true, replicas: 2 }}\n  \
         x: {{ image: {BUSYBOX}, command: [sleep, '1000'], init: true, profiles: [more] }}\n"
    );
    let shop = world.project("shop", &text);
    let names = |line: &str| {
        let rows = shop.stead(&format!("ps {line} --format json")).json();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| format!("{} {}", row["name"], row["state"])).collect::<Vec<_>>().join(", ")
    };
    let started = shop.stead("up w").ok();
    assert!(started.contains("> start w-1.shop") && started.contains("> start w-2.shop"), "{started}");
    let both = names("w");
    assert!(both.contains("w-1") && both.contains("w-2"), "{both}");
    assert_eq!(shop.stead("exec w hostname").ok(), "w-1\n");
    shop.stead("logs w").ok();
    shop.stead("restart w").ok();
    let stopped = shop.stead("stop w").ok();
    assert!(stopped.contains("w-1.shop") && stopped.contains("w-2.shop"), "{stopped}");
    shop.stead("stop v").code(2).says("there is no machine `v`");
    // What is done to one only has to name it.
    shop.stead("rename w v").code(2).says("`w` names 2 machines");
    // To name a machine is to ask for its profiles.
    assert!(shop.stead("up x").ok().contains("> start x.shop"));
    shop.stead("up y").code(2).says("the project has no machine `y`");
    shop.stead("down").ok();
}

#[test]
fn services_are_found_by_names_that_are_none_of_ours() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "");
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    let service = |more: &str| format!("{{ image: {BUSYBOX}, init: true, command: [sleep, '1000']{more} }}");
    let text = format!(
        "services:\n  my_app: {}\n  Other: {}\n",
        service(", container_name: front_1"),
        service(", depends_on: [my_app]")
    );
    std::fs::write(shop.directory.join("compose.yaml"), text).unwrap();
    assert!(shop.stead("up Other").ok().contains("> start my-app.shop"));
    for name in ["my_app", "My_App", "my-app", "front_1", "other", "Other"] {
        shop.stead(&format!("exec my_app ping -c 1 -W 5 {name}")).ok();
    }
    // Its other name means it here, and elsewhere by its project.
    let elsewhere = world.project("elsewhere", "machines: {}");
    for (project, name) in [(&shop, "Front_1"), (&elsewhere, "front_1.shop")] {
        assert_eq!(project.stead(&format!("exec {name} hostname")).ok(), "my-app\n");
        assert_eq!(project.stead(&format!("ps {name} --format json")).json()[0]["name"], "my-app");
    }
    elsewhere.stead("rm -f front_1").code(2).says("there is no machine `front_1`");
    shop.stead("down").ok();
    shop.stead("exec front_1 true").code(125).says("there is no machine `front_1`");
}

/// Keys of Compose that a container is given, most of them by another file.
const COMMON: &str = "
services:
  base:
    image: IMAGE
    working_dir: /tmp
    environment: { A: base, B: base }
    env_file: [vars.env]
    ulimits: { nofile: { soft: 100, hard: 200 } }
    sysctls: { net.ipv4.ip_default_ttl: 33 }
    extra_hosts: ['there:192.0.2.7']
    shm_size: 1m
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    labels: { from: base }
";

const WEB: &str = "
services:
  web:
    extends: { file: common.yaml, service: base }
    environment: { B: web }
    label_file: labels
    command:
      - sh
      - -c
      - |
        pwd; echo $$A $$B $$C; ulimit -Sn; ulimit -Hn; cat /proc/sys/net/ipv4/ip_default_ttl
        grep there /etc/hosts; df -k /dev/shm | tail -n1 | tr -s ' ' | cut -d' ' -f2; grep CapEff /proc/self/status
";

#[test]
fn a_container_is_given_what_its_file_says_and_the_one_that_it_extends() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "");
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    let limits = match role() {
        Role::Root => "    deploy: { resources: { limits: { pids: 7, memory: 32m } } }\n",
        Role::User => "",
    };
    for (file, text) in [
        ("compose.yaml", format!("{WEB}{limits}")),
        ("common.yaml", COMMON.replace("IMAGE", BUSYBOX)),
        ("vars.env", "C=file\nB=file\n".to_owned()),
        ("labels", "also=this\n".to_owned()),
    ] {
        std::fs::write(shop.directory.join(file), text).unwrap();
    }
    shop.stead("up").ok();
    shop.stead("wait web").ok();
    let expected = "/tmp\nbase web file\n100\n200\n33\n192.0.2.7\tthere\n1024\nCapEff:\t0000000000000400\n";
    assert_eq!(shop.stead("logs web").ok(), expected);
    let seen = shop.stead("inspect web --format json").json()[0].clone();
    let labels = seen.to_string();
    assert!(labels.contains("\"from\":\"base\"") && labels.contains("\"also\":\"this\""), "{seen:#}");
    if role() == Role::Root {
        // Of one of the two versions of control groups.
        let files = ["pids/pids.max", "pids.max", "memory/memory.limit_in_bytes", "memory.max"];
        let line = files.map(|file| format!(" /sys/fs/cgroup/{file}")).concat();
        let limits = shop.stead(&format!("run --rm web cat{line}")).out;
        assert_eq!(limits, "7\n33554432\n");
    }
}

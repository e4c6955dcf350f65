//! The commands themselves: what they print, in both forms, and how they end (docs/exit-codes.md).

use std::fs;
use std::process::Stdio;

use expect_test::expect;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, World, role, stead, untested};

const SHOP: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', reach: isolated } }
machines:
  web: { kind: container, driver: external, networks: { lan: { aliases: [www] } }, ports: ['8080:80'] }
volumes: [data]
";

/// The bridge's MAC is the home's own.
fn without_bridge(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("bridge ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn networks_are_made_joined_and_removed_by_command() {
    let world = World::offline();
    let stead = |line: &str| world.stead(line);
    stead(
        "network create lan --subnet 10.1.2.0/24 --subnet6 fd00:1::/64 --reach isolated --addressing static",
    )
    .ok();
    stead("network create lan").code(2).says("there is a network `lan` already");
    stead("network connect lan wbe").code(2).says("no command made a machine `wbe`").says("`--kind`");
    stead("network connect lan web --kind container --alias www --address 10.1.2.9").ok();
    stead("network connect lan.default db.default --kind container").ok();
    stead("network connect lan db").code(2).says("already");
    stead("network connect lan db --kind vm").code(2).says("of kind `container`");
    stead("network connect nowhere db").code(2).says("nowhere");
    expect![[r#"
        NETWORK      SUBNET       SUBNET6      REACH     NICS  BRIDGE
        lan.default  10.1.2.0/24  fd00:1::/64  isolated  2     stb-lan-nmhxd
    "#]]
    .assert_eq(&stead("network ls").ok());
    expect![[r#"
        network   lan.default
        subnet    10.1.2.0/24 (gateway 10.1.2.1)
        subnet6   fd00:1::/64 (gateway fd00:1::1)
        reach     isolated
        uplink    none
        joins     none
        mtu       1500
        domain    default.stead
        strangers none

        MACHINE  MAC                ADDRESSES            NAMES    LINK
        db       02:be:e6:3f:36:94  10.1.2.2, fd00:1::2  db       stv-db-ia2cp
        web      02:d7:3e:24:64:d6  10.1.2.9, fd00:1::9  web,www  stv-web-xxoer
    "#]]
    .assert_eq(&without_bridge(&stead("network inspect lan").ok()));
    let rows = stead("network ls --format json").json();
    assert_eq!(rows[0]["name"], "lan");
    assert_eq!(rows[0]["nics"], 2);
    let inspection = stead("network inspect lan --format json").json();
    assert_eq!(inspection["machines"][1]["machine"], "web", "{inspection:#}");
    assert_eq!(inspection["machines"][1]["addresses"][0], "10.1.2.9");
    let pinged = stead("network enter -m db -- ping -c 1 -W 5 10.1.2.9").ok();
    assert!(pinged.contains("1 received"), "{pinged}");
    assert_eq!(stead("network enter -m db -- dig +short www @10.1.2.1").ok().trim(), "10.1.2.9");
    // The program's own end is the command's, and what fails before it is 125.
    stead("network enter -m db -- false").code(1);
    world
        .stead_at("home", world.path(), &["network", "enter", "-m", "db", "--", "sh", "-c", "exit 42"])
        .code(42);
    world
        .stead_at("home", world.path(), &["network", "enter", "-m", "db", "--", "sh", "-c", "kill -9 $$"])
        .code(137);
    stead("network enter -m db -- /no/such/program").code(125);
    stead("network enter -m nobody -- true").code(125).says("nobody");
    stead("network inspect nowhere").code(2).says("hint: ");
    stead("network disconnect lan nobody").code(2);
    stead("network disconnect lan.default db").ok();
    stead("network rm lan").code(2).says("web");
    stead("network rm lan.default --force").ok();
    stead("network rm lan").code(2);
    assert_eq!(stead("network ls --format json").json(), serde_json::json!([]));
    assert_eq!(stead("ps --all --format json").json(), serde_json::json!([]));
    stead("network create x --subnet 10.1.2.3").code(2);
    stead("network create x --reach sideways").code(2);
    stead("network create 7").code(2);
    stead("network create wire --addressing none").ok();
    assert_eq!(stead("network ls --format json").json()[0]["reach"], "isolated");
    stead("network connect wire box --kind container").ok();
    stead("network disconnect nowhere box").code(2).says("no command made a network `nowhere`");
    stead("network rm wire --force").ok();
}

#[test]
fn what_a_command_cannot_do_to_networks_is_said_without_a_file() {
    let world = World::offline();
    let stead = |line: &str| world.stead(line);
    stead("network enter -- true").code(125).says("nothing is up").says("hint: ");
    stead("network create lan --subnet 10.1.2.0/24").ok();
    stead("network connect lan web --kind container --address 10.1.2.9").ok();
    stead("network connect lan.shop db").code(2).says("in project `shop` is changed in the project's file");
    let taken = "machine `web` has `10.1.2.9` on network `lan` already";
    stead("network connect lan api --kind container --address 10.1.2.9").code(2).says(taken);
    // Nor what was given to another, which may run.
    stead("network connect lan db --kind container").ok();
    let given = "machine `db` has `10.1.2.2` on network `lan`";
    stead("network connect lan api --kind container --address 10.1.2.2").code(2).says(given);
    let said = stead("network connect lan api --kind container --address 10.7.0.5").code(2).err;
    let key = "machines.api.networks.lan.address";
    let first = format!("error: `10.7.0.5` is not in `10.1.2.0/24` of network `lan` (`{key}`)");
    assert_eq!(said.lines().next(), Some(first.as_str()), "{said}");
    assert!(said.contains("hint: ") && !said.contains("stead.yaml:"), "{said}");
    stead("network rm lan --force").ok();
}

#[test]
fn a_project_of_the_same_name_elsewhere_is_not_meant() {
    let world = World::offline();
    let text = "networks: { lan: { reach: isolated } }\nvolumes: [data]\n";
    let one = world.project("one/shop", text);
    let other = world.project("other/shop", text);
    let up = one.stead("up --debug").ok();
    assert!(!up.contains('\u{1b}'), "{up}");
    world.sh(Place::Person, "touch home/state/volumes/shop/data/kept");
    for line in ["up", "down", "down --volumes --yes", "plan --down"] {
        other.stead(line).code(2).says("one/shop");
    }
    world.sh(Place::Person, "test -e home/state/volumes/shop/data/kept");
    assert!(!other.stead("ps --all").out.contains("lan"));
    // Nor is the one here by another file beside it.
    std::fs::write(one.directory.join("prod.yaml"), "name: prod\n".to_owned() + text).unwrap();
    for line in ["up", "down", "down --volumes --yes", "plan --down", "ps"] {
        one.stead(&format!("-f prod.yaml {line}")).code(2).says("`shop`").says("prod");
    }
    one.stead("-f stead.yaml ps").ok();
    std::fs::write(one.directory.join("prod.yaml"), "name: [").unwrap();
    one.stead("-f prod.yaml down --volumes --yes").code(2).says("prod.yaml:").says("not YAML");
    // Nor by one that cannot be read, whatever it is called; without one, what is up here is what is meant.
    one.write("netwoks: {}");
    let refused = one.stead("-f stead.yaml down --volumes --yes").code(2).says("stead.yaml:1:1");
    refused.says("`stead down shop` takes it down");
    one.stead("ps").ok();
    // Nor does a pattern mean machines of all projects because of it.
    for line in ["stop *", "inspect *", "ps", "stats", "snapshot ls", "events --since 1h"] {
        let said = one.stead(&format!("-f stead.yaml {line}")).code(2).says("stead.yaml:1:1").err;
        assert!(!said.contains("down"), "{line}: {said}");
    }
    one.write(text);
    std::fs::remove_file(one.directory.join("prod.yaml")).unwrap();
    world.sh(Place::Person, "test -e home/state/volumes/shop/data/kept");
    // From elsewhere a file is called so that its name leads to it.
    other.write("netwoks: {}");
    world
        .stead("-f projects/home/other/shop/stead.yaml plan")
        .code(2)
        .says("projects/home/other/shop/stead.yaml:1:1");
    // Nor where one of the files that are meant is not there.
    let third = world.path().join("projects/home/third");
    std::fs::create_dir_all(&third).unwrap();
    std::fs::write(third.join("compose.yaml"), "services: { web: { image: a } }\n").unwrap();
    std::fs::write(third.join(".env"), "COMPOSE_FILE=a.yaml:b.yaml\n").unwrap();
    for line in [&["inspect", "*"][..], &["ps"], &["volume", "ls", "*"]] {
        world.stead_at("home", &third, line).code(2).says("there is no file").says("third/a.yaml");
    }
    // A whole name, neither, where somebody named the file.
    std::fs::write(third.join(".env"), "COMPOSE_FILE=none.yaml\n").unwrap();
    for line in [&["stop", "web"][..], &["volume", "rm", "kept"]] {
        world.stead_at("home", &third, line).code(2).says("none.yaml");
    }
    // Without a project a `.env` is not ours to judge.
    let python = world.path().join("projects/home/python");
    std::fs::create_dir_all(python.join(".env")).unwrap();
    world.stead_at("home", &python, &["ps"]).ok();
    world.stead_at("home", &python, &["volume", "ls", "*"]).ok();
    world.stead("down shop --volumes --yes").ok();
}

#[test]
fn data_is_json_for_programs_and_nothing_for_a_reader_that_went() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    let plan = shop.stead("plan --format json").json();
    let plan = plan.as_array().unwrap();
    let texts: Vec<&str> = plan.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert!(texts.contains(&"+ network lan.shop 10.0.5.0/24 fd00:5::/64 isolated"), "{texts:?}");
    assert!(plan.iter().all(|line| line["loses_data"] == false && line["after"].is_array()));
    shop.stead("up --format json").json();
    assert_eq!(shop.stead("plan --format json").json(), serde_json::json!([]));
    let rows = shop.stead("ps --format json").json();
    assert_eq!(rows[0]["nics"][0]["address"], "10.0.5.2", "{rows:#}");
    assert_eq!(rows[0]["ports"][0], "127.0.0.1:8080/tcp -> 80", "{rows:#}");
    let rows = shop.stead("ls --format json").json();
    assert_eq!((&rows[0]["name"], &rows[0]["volumes"]), (&"shop".into(), &1.into()), "{rows:#}");
    let doctor = shop.stead("doctor --format json");
    let checks: serde_json::Value = serde_json::from_str(&doctor.out).unwrap();
    let missing = checks.as_array().unwrap().iter().any(|check| check["verdict"] == "missing");
    assert_eq!(doctor.code, i32::from(missing), "{checks:#}");
    for what in ["user namespaces", "/dev/net/tun", "pasta", "/dev/kvm", "control groups", "forwarding"] {
        assert!(checks.as_array().unwrap().iter().any(|check| check["what"] == what), "{what}");
    }
    // These are tried, and have to be there for any of our tests.
    for what in ["bridges", "veth pairs", "nftables"] {
        let check = checks.as_array().unwrap().iter().find(|check| check["what"] == what).expect(what);
        assert_eq!((&check["verdict"], &check["found"]), (&"ok".into(), &"can be made".into()), "{check}");
    }
    for check in checks.as_array().unwrap().iter().filter(|check| check["verdict"] != "ok") {
        assert!(check["fix"].is_string() || check["advice"].is_string(), "{check}");
    }
    let text = shop.stead("doctor").out;
    assert!(text.contains("NEEDED FOR"), "{text}");
    assert!(shop.stead("version").ok().starts_with("stead "));
    assert!(shop.stead("version --format json").json()["version"].is_string());
    assert!(shop.stead("schema").json()["$schema"].is_string());
    // A pipe that nobody reads.
    for line in ["network ls", "plan", "ps --all", "schema", "doctor", "completion bash", "--help"] {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = world.stead_command("home", &shop.directory, &words);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = command.stdout(writer).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let status = child.wait().unwrap();
        let mut err = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut err).unwrap();
        assert!(!err.contains("panicked"), "{line}: {err}");
        assert!(status.success() || line == "doctor", "{line}: {status} {err}");
    }
}

/// The steps of a document.
fn texts(steps: &serde_json::Value) -> Vec<String> {
    steps.as_array().unwrap().iter().map(|step| step["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_done_is_one_document_with_all_of_it() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    let up = shop.stead("up --timings --format json").json();
    assert_eq!(up["timings"], serde_json::json!([]), "nobody timed what somebody else runs");
    let place = texts(&up["steps"]).iter().position(|text| text.starts_with("+ network lan.shop")).unwrap();
    let network = &up["steps"][place];
    assert_eq!(network["why"], "networks.lan (stead.yaml:2)", "{network:#}");
    assert_eq!(shop.stead("up --format json").json(), serde_json::json!([]));
    // What goes with the last network goes by a second plan; for people its steps are told as they are done.
    let make = || {
        world.stead("network create lan --reach isolated").ok();
        world.stead("network connect lan web --kind container").ok();
    };
    for [first, last] in
        [["network disconnect lan web", "network rm lan"], ["network ls", "network rm lan --force"]]
    {
        let mut found = Vec::new();
        for format in ["", " --format json"] {
            make();
            world.stead(first).ok();
            let said = world.stead(&format!("{last}{format}")).code(0);
            found.push(match format {
                "" => said.out.lines().map(str::to_owned).collect(),
                _ => {
                    let done = said.json();
                    let places = done.as_array().unwrap().iter().enumerate();
                    for (place, step) in places {
                        let after = step["after"].as_array().unwrap();
                        assert!(
                            after.iter().all(|earlier| earlier.as_u64() < Some(place as u64)),
                            "{done:#}"
                        );
                    }
                    texts(&done)
                }
            });
        }
        let [people, programs] = &mut found[..] else { unreachable!() };
        for steps in [&mut *people, &mut *programs] {
            steps.sort();
        }
        assert_eq!(people, programs, "{last}");
        assert!(programs.iter().any(|step| step == "- project default"), "{programs:?}");
    }
    let purged = shop.stead("purge --yes --format json").json();
    for step in ["- machine web.shop", "- volume data.shop", "- engine"] {
        assert!(
            texts(&purged).iter().any(|text| text.starts_with(step)),
            "no `{step}` in {:?}",
            texts(&purged)
        );
    }
    assert_eq!(shop.stead("purge --yes --format json").json(), serde_json::json!([]));
}

#[test]
fn doctor_tells_of_sub_ids_that_nobody_maps() {
    // Who has none is told so; who has some needs the programs, too.
    let Some(world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    let doctor = |path: &str| {
        let home = world.path().join("home");
        let line = format!("{path} STEAD_HOME={} {} doctor --format json", home.display(), stead());
        let said = world.sh_said(Place::Person, &format!("{line} || test $? = 1")).json();
        said.as_array().unwrap().iter().find(|check| check["what"] == "subordinate ids").unwrap().clone()
    };
    let check = doctor("");
    assert_eq!((&check["verdict"], &check["fix"]), (&"ok".into(), &serde_json::Value::Null), "{check}");
    let check = doctor("PATH=/nowhere");
    assert_eq!((&check["verdict"], &check["fix"]), (&"limited".into(), &"apt-get install uidmap".into()));
    assert!(check["found"].as_str().unwrap().contains("newuidmap and newgidmap not installed"), "{check}");
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    // `script` gives the program a terminal.
    let on_terminal = |setting: &str| {
        let line = format!(
            "cd {} && {setting} STEAD_HOME={} TERM=xterm script -qec '{} plan' /dev/null",
            shop.directory.display(),
            world.path().join("home").display(),
            stead()
        );
        world.sh_said(Place::Person, &line).ok()
    };
    assert!(on_terminal("").contains("\x1b[32m+ engine\x1b[0m"));
    assert!(!on_terminal("NO_COLOR=1").contains('\x1b'));
    assert!(!shop.stead("plan").ok().contains('\x1b'));
}

#[test]
fn what_is_wrong_beside_the_file_is_told_as_well() {
    let world = World::offline();
    let shop = world.project("shop", &SHOP.replace("['8080:80']", "[$PORT]"));
    let beside = |name: &str| shop.directory.join(name);
    // Problems of the variables hide none of the file, and are not told twice.
    fs::write(beside(".env"), "PORT='80\n").unwrap();
    shop.write("networks: { lan: { mtu: 12 } }\nmachines: { web: { image: a, ports: [$PORT] } }\n");
    let said = shop.stead("plan").code(2).says(".env:1:1: the quote is not closed");
    assert_eq!(said.says("stead.yaml:1:25: `12`").err.matches("hint: ").count(), 2);
    fs::remove_file(beside(".env")).unwrap();
    // A link that leads nowhere is no file that is not there.
    fs::remove_file(beside("stead.yaml")).unwrap();
    std::os::unix::fs::symlink("elsewhere.yaml", beside("stead.yaml")).unwrap();
    shop.stead("plan").code(2).says("stead.yaml is a link to elsewhere.yaml").says("hint: ");
    fs::remove_file(beside("stead.yaml")).unwrap();
    let json = shop.stead("plan --format json").code(2).err;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["errors"][0]["message"].as_str().unwrap().contains("no stead.yaml"), "{json:#}");
    // What the lock pins and cannot be kept is told, before and as it is replaced.
    shop.write(SHOP);
    shop.stead("up").ok();
    shop.write(&SHOP.replace("10.0.5", "10.0.6"));
    let pinned = "machines.web.networks.lan: stead.lock pins 10.0.5.2, which cannot be kept";
    for line in ["plan", "up"] {
        shop.stead(line).code(0).says(pinned).says("it has 10.0.6.2 now");
    }
    assert!(!shop.stead("plan").code(0).err.contains("pins"));
    // A lock that cannot be read is in the way, but not of who wants another.
    fs::write(beside("stead.lock"), "<<<<<<< HEAD\n").unwrap();
    shop.stead("up").code(2).says("stead.lock:1:1: a merge left both sides here").says("--relock");
    shop.stead("plan --relock").code(0).says("what stead.lock says is passed over");
    shop.stead("up").code(2);
    shop.stead("up --relock").code(0).says("what stead.lock says is passed over");
    assert_eq!(shop.stead("up").ok(), "nothing to do\n");
    shop.stead("down --volumes --yes").ok();
}

#[test]
fn what_is_no_text_and_what_is_wrong_elsewhere_hide_nothing_of_each_other() {
    let world = World::offline();
    let shop = world.project("shop", "");
    let beside = |name: &str| shop.directory.join(name);
    let file =
        b"networks: { lan: { mtu: 12 } }\nmachines:\n  web: { image: caf\xe9, ports: [$PORT, $NAME] }\n";
    fs::write(beside("stead.yaml"), file).unwrap();
    fs::write(beside(".env"), b"# here\nNAME=\xfc\nPORT='80\n").unwrap();
    fs::write(beside("stead.lock"), "<<<<<<< HEAD\n").unwrap();
    let expected = expect![[r"
        .env:2:6: `\xFC` is not UTF-8 text
          2 | NAME=�
            |      ^
          hint: save the file as UTF-8

        .env:3:1: the quote is not closed
          3 | PORT='80
            | ^^^^^^^^
          hint: close it, or leave it out

        stead.yaml:1:25: `12` is not a whole number from 576 to 9216
          1 | networks: { lan: { mtu: 12 } }
            |                         ^^
          hint: write `576` or more

        stead.yaml:3:20: `\xE9` is not UTF-8 text
          3 |   web: { image: caf�, ports: [$PORT, $NAME] }
            |                    ^
          hint: save the file as UTF-8

        stead.lock:1:1: a merge left both sides here
          1 | <<<<<<< HEAD
            | ^^^^^^^^^^^^
          hint: keep one of them, or let `stead up --relock` choose subnets and addresses anew
    "]];
    expected.assert_eq(&shop.stead("plan").code(2).err);
    let json = shop.stead("up --format json").code(2).err;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let told: Vec<&str> =
        json["problems"].as_array().unwrap().iter().map(|p| p["file"].as_str().unwrap()).collect();
    assert_eq!(told, [".env", ".env", "stead.yaml", "stead.yaml", "stead.lock"]);
    assert_eq!(json["problems"][3]["text"], "\\xE9");
    // A lock that is no text is told like one that says nothing, and passed over by who wants another.
    shop.write(SHOP);
    fs::remove_file(beside(".env")).unwrap();
    fs::write(beside("stead.lock"), b"{ \"version\": \"\xff\" }").unwrap();
    shop.stead("plan").code(2).says("stead.lock:1:15: `\\xFF` is not UTF-8 text").says("--relock");
    shop.stead("plan --relock").code(0).says("what stead.lock says is passed over");
    // So is a file that it names.
    fs::remove_file(beside("stead.lock")).unwrap();
    fs::write(beside("more.env"), b"A=1\nB=\xff\n").unwrap();
    shop.write("machines: { web: { image: x, env_file: more.env }, db: { image: x, mem_limit: much } }");
    shop.stead("plan").code(2).says("more.env:2:3: `\\xFF` is not UTF-8 text").says("`much`");
}

#[test]
fn what_is_no_file_beside_the_project_is_told_by_its_name() {
    let world = World::offline();
    let shop = world.project("shop", "networks: { lan: { reach: isolated } }\n");
    for (name, hint) in [(".env", "let it be a file with `NAME=value`"), ("stead.lock", "move it away")] {
        let path = shop.directory.join(name);
        fs::create_dir(&path).unwrap();
        for line in ["plan", "up", "up --relock"] {
            shop.stead(line).code(2).says(&format!("{name} is a directory, not a file\n")).says(hint);
        }
        fs::remove_dir(&path).unwrap();
    }
    fs::write(shop.directory.join(".env"), "A=1\n<<<<<<< HEAD\nB=1\n=======\n").unwrap();
    shop.stead("plan").code(2).says(".env:2:1: a merge left both sides here\n").says(".env:4:1: ");
}

#[test]
fn what_cannot_be_had_here_is_told_together() {
    let world = World::offline();
    let _registry = registry(&world);
    // Else it is told of that, where it takes long.
    world.stead(&format!("image pull {BUSYBOX}")).ok();
    world.project("other", "networks: { lan: { subnet: 10.0.9.0/24, reach: isolated } }").stead("up").ok();
    let unfit = if role() == Role::Root { "cpuset: 0-9999" } else { "user: '70000'" };
    let text = format!(
        "networks: {{ lan: {{ subnet: 10.0.9.0/24, reach: isolated }} }}\nmachines:\n  job: {{ image: {BUSYBOX}, {unfit} }}\n"
    );
    let shop = world.project("shop", &text);
    let planned = shop.stead("plan").code(2).err;
    let said = shop.stead("up").code(2).says("stead.yaml:1:28: 10.0.9.0/24 overlaps network `lan.other`");
    assert_eq!(planned, said.err, "a plan says what `up` does");
    let why = if role() == Role::Root { "`cpuset`: there is no processor" } else { "have no user 70000" };
    let said = said.says("stead.yaml:3:3: ").says(why);
    assert_eq!(said.err.matches("hint: ").count(), 2, "{}", said.err);
    // Without anything else that is wrong, and with images that are not there.
    shop.write(&text.replace("10.0.9", "10.0.8"));
    assert_eq!(shop.stead("plan").code(2).says(why).err, shop.stead("up --pull never").code(2).says(why).err);
    let more = "  far: { image: 127.0.0.1:5000/none, pull_policy: never }\n  disk: { kind: vm, image: ./none.qcow2 }\n";
    shop.write(&format!("{text}{more}"));
    let said = shop.stead("up").code(2).says(why).says("overlaps network `lan.other`");
    let said = said.says("stead.yaml:4:17: the image 127.0.0.1:5000/none");
    let said =
        said.says("stead.yaml:5:28: there is no file ").says("none.qcow2, which machine `disk` is made from");
    assert_eq!(shop.stead("plan").code(2).err, said.err);
    assert!(!shop.directory.join("stead.lock").exists(), "something was changed");
}

#[test]
fn a_wrong_file_is_told_whole_and_down_needs_none() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    shop.write("networks: { lan: { subnet: 10.0.5.0/33, colour: red } }\nmachines:\n  Web: { kind: ship }\n");
    let said = shop.stead("plan").code(2);
    expect![[r#"
        stead.yaml:1:28: `10.0.5.0/33` is not `auto`, `off` or a network
          1 | networks: { lan: { subnet: 10.0.5.0/33, colour: red } }
            |                            ^^^^^^^^^^^
          hint: a network is written like `10.0.5.0/24`

        stead.yaml:1:41: there is no key `colour` here
          1 | networks: { lan: { subnet: 10.0.5.0/33, colour: red } }
            |                                         ^^^^^^
          hint: there are external, name, subnet, subnet6, addressing, reach, mtu, joins, dhcp, boot

        stead.yaml:3:3: `Web` is not a name: a name holds only `a-z`, `0-9` and `-`, not `W`
          3 |   Web: { kind: ship }
            |   ^^^
          hint: write `web`

        stead.yaml:3:16: `ship` is not `container` or `microvm` or `vm`
          3 |   Web: { kind: ship }
            |                ^^^^
          hint: `container`: shares this computer's kernel; its nics are veth pairs | `microvm`: has a kernel of its own and little else; its nics are TAPs | `vm`: a whole computer; its nics are TAPs
    "#]]
    .assert_eq(&said.err);
    assert_eq!(shop.stead("up").code(2).err, said.err);
    let problems: serde_json::Value =
        serde_json::from_str(&shop.stead("plan --format json").code(2).err).unwrap();
    assert!(problems["problems"].as_array().is_some_and(|problems| problems.len() >= 4), "{problems:#}");
    shop.stead("down").ok();
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
    // By its name from anywhere, while it is there.
    shop.write(SHOP);
    shop.stead("up").ok();
    world.stead("down shop").ok();
    world.stead("down nobody").code(2).says("nobody");
    // Other wrong requests.
    world.stead("up").code(2).says("there is no stead.yaml");
    world.stead("up -f nowhere.yaml").code(2);
    world.stead("dance").code(2);
    world.stead("plan --format xml").code(2);
}

#[test]
fn volumes_outlive_down_and_go_only_with_consent() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    let version = shop.stead("version --format json").json();
    let data = std::path::Path::new(version["state"].as_str().unwrap()).join("volumes/shop/data");
    assert!(data.is_dir(), "no {}", data.display());
    world.sh(Place::Person, &format!("echo precious > {}/thing", data.display()));
    shop.stead("down").ok();
    assert!(data.join("thing").exists(), "down lost data");
    // Out of the file is not out of the world.
    shop.write(&SHOP.replace("volumes: [data]", ""));
    shop.stead("up").ok();
    assert!(data.join("thing").exists(), "up lost data");
    shop.stead("down --volumes").code(3).says("hint: ");
    assert!(data.join("thing").exists(), "lost without consent");
    shop.stead("down --volumes --yes").ok();
    assert!(!data.exists(), "the volume is still there");
}

#[test]
fn purge_asks_and_leaves_nothing() {
    let world = World::offline();
    assert_eq!(world.stead("purge").ok(), "nothing to do\n");
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    world.stead("network create extra").ok();
    shop.stead("purge").code(3).says("hint: say `--yes`");
    assert!(shop.stead("ps").ok().contains("web.shop"), "purged without consent");
    shop.stead("purge --yes").ok();
    assert!(!world.path().join("home").exists());
    // A directory that was there before stays.
    std::fs::create_dir(world.path().join("home")).unwrap();
    world.stead("network create extra").ok();
    world.stead("purge --yes").ok();
    assert_eq!(std::fs::read_dir(world.path().join("home")).unwrap().count(), 0);
    assert_eq!(shop.stead("ls --format json").json(), serde_json::json!([]));
    // The rest is judged when the world ends: links, rules, processes, mounts, byte for byte.
}

#[test]
fn a_machine_is_that_of_the_project_here_unless_it_has_none() {
    let world = World::offline();
    let text = |machine: &str| {
        format!(
            "networks: {{ lan: {{ reach: isolated, addressing: static }} }}\nmachines: {{ {machine}: {{ kind: container, driver: external, networks: [lan] }}, \
             web: {{ kind: container, driver: external, networks: [lan] }} }}"
        )
    };
    let (one, two) = (world.project("one", &text("db")), world.project("two", &text("job")));
    one.stead("up").ok();
    two.stead("up").ok();
    let names = |said: crate::support::Said| {
        let rows = said.json();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| format!("{}.{}", row["name"].as_str().unwrap(), row["project"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    let ps = |project: &crate::support::Project<'_>, line: &str| {
        names(project.stead(&format!("ps --format json {line}")))
    };
    assert_eq!(ps(&one, "web"), ["web.one"]);
    assert_eq!(ps(&two, "w*"), ["web.two"]);
    assert_eq!(ps(&one, "web.two"), ["web.two"]);
    assert_eq!(ps(&one, "web job"), ["web.one", "job.two"]);
    assert_eq!(ps(&one, "--all web"), ["web.one", "web.two"]);
    assert_eq!(names(world.stead("ps --format json web")), ["web.one", "web.two"]);
    let own = |project: &crate::support::Project<'_>, machine: &str| {
        let said = project.on(machine, "ip -o -4 address show dev eth0 | awk '{ print $4 }' | cut -d / -f 1");
        said.ok().trim().to_owned()
    };
    assert_eq!(own(&one, "web"), one.address("web", 0).0);
    assert_eq!(own(&two, "web"), two.address("web", 0).0);
    assert_eq!(own(&one, "job"), two.address("job", 0).0);
    assert_eq!(own(&one, "web.two"), two.address("web", 0).0);
    // From nowhere it may be either.
    world.stead("network enter -m web -- true").code(125).says("web.one, web.two").says("hint: ");
}

#[test]
fn two_homes_do_not_see_each_other() {
    let world = World::offline();
    let text =
        "networks: { lan: {} }\nmachines: { web: { kind: container, driver: external, networks: [lan] } }";
    let (one, two) = (world.project_at("one", "lab", text), world.project_at("two", "lab", text));
    one.stead("up").ok();
    two.stead("up").ok();
    assert_ne!(one.address("web", 0), two.address("web", 0));
    one.stead("purge --yes").ok();
    assert_eq!(one.stead("ls --format json").json(), serde_json::json!([]));
    two.udhcpc("web", "eth0");
    assert_eq!(two.stead("plan").ok(), "nothing to do\n");
}

#[test]
fn the_file_is_found_upwards_named_or_by_the_environment() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    let below = shop.directory.join("a/b");
    fs::create_dir_all(&below).unwrap();
    let expected = shop.stead("plan").ok();
    assert_eq!(world.stead_at("home", &below, &["plan"]).ok(), expected);
    let file = shop.directory.join("stead.yaml");
    assert_eq!(world.stead_at("home", world.path(), &["plan", "-f", file.to_str().unwrap()]).ok(), expected);
    let mut command = world.stead_command("home", world.path(), &["plan"]);
    command.env("STEAD_FILE", &file);
    assert_eq!(crate::support::said(command).ok(), expected);
    let _ = (role(), Role::Root);
}

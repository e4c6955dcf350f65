//! Images: got, looked into, named, passed on and removed.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::registry::{BUSYBOX, closed_registry, registry};
use crate::support::{Place, Said, World, said};

/// The files of the image that the registry has, as an OCI layout.
fn layout(world: &World) -> String {
    world.path().join("registry/oci").display().to_string()
}

/// The only image that `ls` has for a pattern.
#[track_caller]
fn listed(world: &World, pattern: &str) -> serde_json::Value {
    let rows = world.stead(&format!("image ls {pattern} --format json")).json();
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows:#}");
    rows[0].clone()
}

/// The first digits of an image's id.
fn short(row: &serde_json::Value) -> String {
    row["id"].as_str().unwrap()["sha256:".len()..][..12].to_owned()
}

/// Writes what the user sets about images.
fn settings(world: &World, text: &str) -> PathBuf {
    let directory = world.path().join("nobody/.config/stead");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("images.json");
    fs::write(&path, text).unwrap();
    path
}

/// What the second makes of what the first writes.
#[track_caller]
fn piped(mut first: std::process::Command, mut second: std::process::Command) -> String {
    let mut writes = first.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let reads = second.stdin(writes.stdout.take().unwrap()).output().unwrap();
    assert!(writes.wait().unwrap().success() && reads.status.success());
    String::from_utf8(reads.stdout).unwrap()
}

#[test]
fn an_image_is_loaded_named_saved_and_removed() {
    let world = World::offline();
    let _registry = registry(&world);
    let layout = layout(&world);
    assert_eq!(world.stead("image ls --format json").json(), serde_json::json!([]));
    world.stead("image inspect app:1").code(2).says("there is no image `app:1` here");
    // A layout, as a directory and packed.
    let loaded = world.stead(&format!("image load {layout} --format json")).json();
    assert_eq!(loaded[0]["names"], serde_json::json!([]));
    world.sh(Place::Computer, &format!("tar -C {layout} -cf {layout}.tar ."));
    let again = world.stead(&format!("image load {layout}.tar --name lab/box --format json")).json();
    assert_eq!(loaded[0]["id"], again[0]["id"]);
    let id = short(&loaded[0]);
    world.stead("image tag lab/box app:1").ok();
    world.stead(&format!("image tag {id} lab/app:2")).ok();
    world.stead("image tag nosuch lab/app:3").code(2).says("there is no image `nosuch`");
    world.stead("image tag app:1 lab/app@sha256:12").code(2);
    let row = listed(&world, "lab/*");
    assert_eq!((short(&row), row["names"].as_array().unwrap().len()), (id.clone(), 3), "{row:#}");
    assert_eq!((row["shared_bytes"].as_u64(), &row["own_bytes"]), (Some(0), &row["size_bytes"]));
    let inspected = world.stead("image inspect app:1 --format json").json();
    assert_eq!(inspected["config"]["config"]["Cmd"], serde_json::json!(["sh"]));
    assert!(world.stead("image inspect app:1").ok().contains("\nvolumes     /data\n"));
    assert_eq!(
        world.stead("image history app:1 --format json").json()[0]["layer"],
        inspected["layers"][0]["digest"]
    );
    // What is saved is the same image elsewhere, for us and for others.
    let archive = world.path().join("saved.tar").display().to_string();
    world.stead(&format!("image save app:1 --output {archive}")).ok();
    let names = world.sh(Place::Computer, &format!("tar -tf {archive}"));
    let at = |name: &str| names.lines().position(|line| line == name);
    assert!(at("blobs/").is_some() && at("blobs/") < at("blobs/sha256/"), "{names}");
    let other = |line: &str| world.stead_at("other", world.path(), &line.split(' ').collect::<Vec<_>>());
    // Also where nothing but a pipe is between them.
    let saves = world.stead_command("home", world.path(), &["image", "save", "app:1"]);
    let loads = world.stead_command("other", world.path(), &["image", "load"]);
    assert_eq!(piped(saves, loads), format!("{id} app:1\n"));
    let exports = world.stead_command("home", world.path(), &["image", "export", "app:1"]);
    let mut lists = std::process::Command::new("tar");
    lists.arg("t");
    let files = piped(exports, lists);
    assert!(files.lines().any(|file| file.trim_start_matches("./") == "data/seed"), "{files}");
    assert_eq!(other(&format!("image load {archive} --format json")).json()[0]["id"], row["id"]);
    let tmp = world.path().display();
    let judge = format!(
        "skopeo --insecure-policy --tmpdir {tmp} inspect --config --raw docker-archive:{archive}:app:1"
    );
    let config: serde_json::Value = serde_json::from_str(&world.sh(Place::Computer, &judge)).unwrap();
    assert_eq!(config, inspected["config"]);
    // What comes has the names that it comes with, whatever it is called here by now; all of them stay.
    let came = world.stead(&format!("image load {archive}")).ok();
    assert_eq!(came, format!("{id} app:1\n"));
    assert_eq!(listed(&world, &id)["names"].as_array().unwrap().len(), 3);
    assert_eq!(other("run --rm app:1 cat /data/seed").ok(), "from-the-image\n");
    // One name goes, then all.
    world.stead("image rm app:1").ok();
    world.stead(&format!("image rm {id}")).code(2).says("`--force`");
    assert_eq!(listed(&world, &id)["names"].as_array().unwrap().len(), 2);
    world.stead(&format!("image rm {id} --force")).ok();
    assert_eq!(world.stead("image ls --format json").json(), serde_json::json!([]));
    let images = world.path().join("home/state/images");
    for part in ["layers", "blobs/sha256", "unpacking", "partial"] {
        assert_eq!(fs::read_dir(images.join(part)).unwrap().count(), 0, "{part}");
    }
}

#[test]
fn what_a_machine_is_made_of_stays() {
    let world = World::offline();
    let _registry = registry(&world);
    world.stead(&format!("image pull {BUSYBOX}")).ok();
    world.stead(&format!("create --name web {BUSYBOX} true")).ok();
    assert_eq!(listed(&world, BUSYBOX)["machines"], serde_json::json!(["web.default"]));
    world.stead(&format!("image rm {BUSYBOX}")).code(2).says("is used by `web.default`");
    world.stead("image prune --all").code(3).says("--yes");
    world.stead("image prune --all --yes").ok();
    // With another name one of the two may go.
    world.stead(&format!("image tag {BUSYBOX} app:1")).ok();
    world.stead(&format!("image rm {BUSYBOX}")).ok();
    // An image of its own layer on the same machine's: nobody's, and without a name after the next import.
    let root = world.path().join("root.tar.gz").display().to_string();
    let registry = world.path().join("registry").display().to_string();
    world.sh(Place::Computer, &format!("tar -C {registry}/root -czf {root} bin"));
    world.stead(&format!("image import {root} lab/root:1 -- /bin/busybox echo imported")).ok();
    assert_eq!(world.stead("run --rm lab/root:1").ok(), "imported\n");
    world.sh(Place::Computer, &format!("tar -C {registry}/root -czf {root} bin etc"));
    world.stead(&format!("image import {root} lab/root:1 -- /bin/busybox echo anew")).ok();
    assert_eq!(world.stead("run --rm lab/root:1").ok(), "anew\n");
    assert_eq!(world.stead("image ls --format json").json().as_array().map(Vec::len), Some(3));
    let gone = world.stead("image prune --yes --format json").json();
    assert_eq!((gone["images"].as_array().map(Vec::len), &gone["names"]), (Some(1), &serde_json::json!([])));
    assert!(gone["freed_bytes"].as_u64() > Some(1_000_000), "{gone:#}");
    world.stead("rm web").ok();
    world.stead("image prune --all --yes").ok();
    assert_eq!(world.stead("image ls --format json").json(), serde_json::json!([]));
}

#[test]
fn images_go_to_registries_and_come_from_where_the_user_says() {
    let world = World::offline();
    let _registry = registry(&world);
    world.stead(&format!("image pull {BUSYBOX} --platform linux/arm64")).code(1).says("linux/arm64");
    has_an_image_for_two_platforms(&world);
    world.stead(&format!("image pull {BUSYBOX}")).ok();
    world.stead(&format!("image tag {BUSYBOX} app:1")).ok();
    world.stead("image push app:1").code(2).says("does not say to which registry");
    world.stead("image push app:1 127.0.0.1:5000/team/app:1").ok();
    let list = "skopeo list-tags --tls-verify=false docker://127.0.0.1:5000/team/app";
    assert!(world.sh(Place::Computer, list).contains("\"1\""));
    world.stead("image prune --all --yes").ok();
    // Short names.
    let path = settings(&world, r#"{"catalogue": {"box:*": ["127.0.0.1:5000/team/app:*"], "none:*": []}}"#);
    assert_eq!(world.stead("run --rm box:1 echo found").ok(), "found\n");
    let row = listed(&world, "box:1");
    assert_eq!(row["names"], serde_json::json!(["box:1"]));
    world.stead("image pull none:1").code(1).says("the catalogue has no source for `none:1`");
    fs::write(path, r#"{"mirrors": 1}"#).unwrap();
    world.stead("image pull box:1").code(1).says("images.json is wrong");
    // What is here is not asked for.
    assert_eq!(world.stead("run --rm box:1 echo here").ok(), "here\n");
}

/// Has an image of the registry's for two platforms, each with its own in a variable, and says the digests: of the two
/// manifests and of the index. Programs of another processor are run nowhere here, so it has this computer's for both.
const TWO_PLATFORMS: &str = r#"
    cd registry
    put() { sum=$(sha256sum < $1 | cut -d' ' -f1); size=$(stat -c %s $1); cp $1 oci/blobs/sha256/$sum; echo sha256:$sum; }
    entry() { printf '{"mediaType":"application/vnd.oci.image.%s.v1+json","digest":"sha256:%s","size":%s' $1 $sum $size; }
    list=
    for architecture in amd64 arm64; do
        sed "s/\"amd64\"/\"$architecture\"/; s/FROM=image/FROM=$architecture/" config > config.new
        put config.new > sum
        sed -E "s/(config.v1[+]json\",\"digest\":\"sha256:)[^,]*,\"size\":[0-9]*/\1$sum\",\"size\":$size/" manifest > manifest.new
        put manifest.new
        list="$list$(entry manifest),\"platform\":{\"architecture\":\"$architecture\",\"os\":\"linux\"}},"
    done
    list='"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['"${list%,}]}"
    printf '{"schemaVersion":2,%s' "$list" > both
    put both
    printf '{"schemaVersion":2,"manifests":[%s,"annotations":{"org.opencontainers.image.ref.name":"both"}}]}' "$(entry index)" > oci/index.json
    skopeo --insecure-policy --tmpdir . copy -q --all --preserve-digests --dest-tls-verify=false oci:oci:both docker://127.0.0.1:5000/lab/both:1
"#;

#[track_caller]
fn has_an_image_for_two_platforms(world: &World) {
    let both = "127.0.0.1:5000/lab/both";
    let said = world.sh(Place::Computer, TWO_PLATFORMS);
    let [amd64, arm64, index] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let run = |words: &str| {
        let env = world.stead(&format!("run --rm {words} env")).ok();
        env.lines().find_map(|line| line.strip_prefix("FROM=").map(str::to_owned)).unwrap_or(env)
    };
    for (name, other) in [(format!("{both}:1"), "arm64"), (format!("{both}@{index}"), "amd64")] {
        for (options, platform) in
            [(String::new(), own), (format!("--platform linux/{other}"), other), (String::new(), own)]
        {
            assert_eq!(run(&format!("{options} {name}")), platform, "{options} {name}");
            let seen = world.stead(&format!("image inspect {options} {name} --format json")).json();
            let config = &seen["config"];
            assert_eq!((&config["architecture"], &config["os"]), (&platform.into(), &"linux".into()));
        }
    }
    // A digest means what it is of, and nothing else that is served for it.
    for (digest, platform) in [(amd64, "amd64"), (arm64, "arm64")] {
        world.stead("image prune --all --yes").ok();
        let name = format!("{both}@{digest}");
        world.stead(&format!("image pull --platform linux/{platform} {name}")).ok();
        assert_eq!(run(&format!("--pull never --platform linux/{platform} {name}")), platform);
    }
    world.stead("image prune --all --yes").ok();
    let nothing = format!("{both}@sha256:{}", "0".repeat(64));
    world.stead(&format!("image pull {nothing}")).code(1).says(&nothing);
    let blob = format!("registry/data/docker/registry/v2/blobs/sha256/{}/{}/data", &amd64[7..9], &amd64[7..]);
    world.sh(Place::Computer, &format!("echo >> {blob}"));
    let forged = format!("{both}@{amd64}");
    world
        .stead(&format!("run --platform linux/amd64 {forged} true"))
        .code(125)
        .says(&format!("instead of {amd64}"));
    assert_eq!(world.stead("image ls --format json").json(), serde_json::json!([]));
}

#[test]
fn a_registry_without_tls_is_told_at_once() {
    let world = World::online();
    let start = std::time::Instant::now();
    world.stead("image pull 203.0.113.1:80/x:1").code(1).says("answers without TLS");
    assert!(start.elapsed().as_secs() < 4, "{:?}", start.elapsed());
    // Where that is meant it is asked as it speaks; here it has no images.
    let path = settings(&world, r#"{"plain-http": ["203.0.113.1:80"]}"#);
    world.stead("image pull 203.0.113.1:80/x:1").code(1).says("the registry answers 404");
    fs::remove_file(path).unwrap();
}

#[test]
fn the_file_says_when_images_are_pulled_and_the_command_says_otherwise() {
    let world = World::offline();
    let _registry = registry(&world);
    let text = |policy: &str| {
        format!(
            "machines: {{ web: {{ kind: container, image: '{BUSYBOX}', pull_policy: {policy}, command: [sleep, '60'] }} }}\n"
        )
    };
    let project = world.project("shop", &text("never"));
    project.stead("up").code(2).says("is not here");
    project.stead("up --pull missing").ok();
    let before = listed(&world, BUSYBOX)["id"].clone();
    // The name means another image by now.
    let other = world.path().join("registry/root/data/seed");
    fs::write(other, "from-another-image\n").unwrap();
    let registry = world.path().join("registry").display().to_string();
    world.sh(Place::Computer, &format!("tar -C {registry}/root -cf {registry}/other.tar ."));
    world
        .stead_at("other", world.path(), &["image", "import", &format!("{registry}/other.tar"), BUSYBOX])
        .ok();
    world.stead_at("other", world.path(), &["image", "push", BUSYBOX]).ok();
    project.stead("up").ok();
    project.write(&text("missing"));
    project.stead("up").ok();
    assert_eq!(listed(&world, BUSYBOX)["id"], before);
    project.write(&text("always"));
    project.stead("up --pull never").ok();
    assert_eq!(listed(&world, BUSYBOX)["id"], before);
    project.stead("up").ok();
    assert_ne!(listed(&world, BUSYBOX)["id"], before);
    assert_eq!(project.stead("exec web cat /data/seed").ok(), "from-another-image\n");
    project.stead("down").ok();
}

/// What a registry was asked, as its log has it.
fn questions(log: &str) -> Vec<&str> {
    log.lines().filter_map(|line| line.split('"').nth(1)?.strip_suffix(" HTTP/1.1")).collect()
}

#[test]
fn what_two_commands_need_at_once_is_got_once() {
    let world = World::offline();
    let registry = registry(&world);
    drop(world.stead_command("home", world.path(), &["version"]));
    let (home, stead) = (world.path().join("home"), crate::support::stead());
    let pull = format!("STEAD_HOME={} {stead} image pull {BUSYBOX}", home.display());
    world.sh(Place::Person, &format!("{pull} & first=$!; {pull} & wait $first; wait $!"));
    assert_eq!(world.stead(&format!("run --rm {BUSYBOX} echo here")).ok(), "here\n");
    let log = registry.end();
    let mut blobs = questions(&log);
    blobs.retain(|line| line.starts_with("GET /v2/lab/busybox/blobs/"));
    let asked = blobs.len();
    blobs.sort_unstable();
    blobs.dedup();
    assert_eq!((asked, blobs.len()), (2, 2), "{log}");
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_itself_when_that_fails() {
    let world = World::offline();
    let registry = registry(&world);
    // Nobody listens at 5009: the mirror is all there is.
    settings(&world, r#"{"mirrors": {"127.0.0.1:5009": ["http://127.0.0.1:5000"]}}"#);
    world.stead("image pull 127.0.0.1:5009/lab/busybox").ok();
    assert_eq!(listed(&world, "127.0.0.1:5009/*")["names"].as_array().unwrap().len(), 1);
    world.stead("image rm 127.0.0.1:5009/lab/busybox").ok();
    // One mirror is dead, and one has not got it.
    settings(
        &world,
        r#"{"mirrors": {"127.0.0.1:5000": ["http://127.0.0.1:5009", "http://127.0.0.1:5000/hub"]}}"#,
    );
    world.stead(&format!("image pull {BUSYBOX}")).ok();
    let log = registry.end();
    let asked = questions(&log);
    let at = |what: &str| asked.iter().rposition(|line| line.starts_with(what));
    let (mirror, itself) = (at("GET /v2/hub/lab/busybox/manifests/"), at("GET /v2/lab/busybox/manifests/"));
    assert!(mirror.is_some() && mirror < itself, "{log}");
}

/// Runs `stead` with this on its standard input.
#[track_caller]
fn told(world: &World, line: &str, input: &str) -> Said {
    let path = world.path().join("input");
    fs::write(&path, input).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let mut shell = vec!["sh", "-c", "exec \"$@\" < \"$0\"", path.to_str().unwrap(), crate::support::stead()];
    shell.extend(words);
    let mut command = world.command(Place::Person, &shell);
    command.env("STEAD_HOME", world.path().join("home")).stdin(Stdio::null());
    said(command)
}

#[test]
fn who_is_known_to_a_registry_stays_known_until_logout() {
    let world = World::offline();
    let _registry = registry(&world);
    let _closed = closed_registry(&world);
    let target = "127.0.0.1:5001/lab/busybox:1";
    world.stead(&format!("image pull {BUSYBOX}")).ok();
    world.stead(&format!("image push {BUSYBOX} {target}")).code(1).says("wants to know who asks");
    world.stead("login 127.0.0.1:5001 -u me").code(2).says("--password-stdin");
    told(&world, "login 127.0.0.1:5001 -u me --password-stdin", "wrong\n").code(1).says("does not take");
    told(&world, "login 127.0.0.1:5001 -u me --password-stdin", "secret\n").ok();
    let file = world.path().join("nobody/.config/containers/auth.json");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    world.stead(&format!("image push {BUSYBOX} {target}")).ok();
    world.stead(&format!("image pull {target}")).ok();
    world.stead("logout 127.0.0.1:5001").ok();
    world.stead("logout 127.0.0.1:5001").code(2).says("nobody is logged in");
    world.stead(&format!("image push {BUSYBOX} {target}")).code(1).says("wants to know who asks");
}

#[test]
fn an_image_that_cannot_be_unpacked_leaves_nothing() {
    let world = World::offline();
    let _registry = registry(&world);
    let stead = |line: &str| world.stead_at("home", world.path(), &line.split(' ').collect::<Vec<_>>());
    let script = "set -e; mkdir bad; cd bad; echo x > ../pwn; tar -P -cf layer.tar ../pwn; tar -cf whole.tar -C .. pwn; \
        config() { printf '{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:%s\"]}}' \
            $(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/') $(sha256sum $1.tar | cut -d' ' -f1) > $1.json; }; \
        image() { printf '{\"Config\":\"%s.json\",\"RepoTags\":[%s],\"Layers\":[\"%s.tar\"]}' $1 $2 $1; }; \
        config layer; config whole; \
        bad=$(image layer '\"lab/bad:1\",\"lab/new:1\"'); \
        echo \"[$bad]\" > manifest.json; tar -cf ../bad.tar *; \
        echo \"[$bad,$(image whole '\"lab/whole:1\"')]\" > manifest.json; tar -cf ../both.tar *";
    world.sh(Place::Computer, &format!("cd {} && {script}", world.path().display()));
    stead(&format!("image pull {BUSYBOX}")).ok();
    stead(&format!("image tag {BUSYBOX} lab/bad:1")).ok();
    let before = stead("image ls --format json").json();
    stead("image load bad.tar").code(1).says("../pwn");
    assert_eq!(stead("image ls --format json").json(), before);
    // Nothing of its contents stays, and what it had taken the name of is as it was.
    let blobs =
        world.sh(Place::Computer, &format!("ls {}/home/images/blobs/sha256 | wc -l", world.path().display()));
    stead("image prune --yes").ok();
    let after =
        world.sh(Place::Computer, &format!("ls {}/home/images/blobs/sha256 | wc -l", world.path().display()));
    assert_eq!(blobs, after);
    stead("run --rm lab/bad:1 true").ok();
    stead("image inspect lab/new:1").code(2).says("there is no image `lab/new:1` here");
    // One that is whole is of use, though it comes behind one that is not.
    stead("image load both.tar").code(1).says("../pwn");
    stead("image inspect lab/whole:1").ok();
    stead("image inspect lab/new:1").code(2).says("there is no image `lab/new:1` here");
}

//! Images that are built here, by a real builder.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, Running, Said, World, role, said, untested};

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

const DOCKERFILE: &str = "FROM BUSYBOX AS base
ARG GREETING=nobody
LABEL of=file
RUN echo hello $GREETING > /greeting
RUN --mount=type=secret,id=word cat /run/secrets/word > /word || echo none > /word
FROM base
COPY page /page
HEALTHCHECK CMD test -e /page
CMD [\"cat\", \"/greeting\"]
";

/// A directory with what is to be built.
fn context(world: &World, name: &str) -> std::path::PathBuf {
    let directory = world.path().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("Dockerfile"), DOCKERFILE.replace("BUSYBOX", BUSYBOX)).unwrap();
    std::fs::write(directory.join("page"), "a page\n").unwrap();
    directory
}

#[test]
fn without_a_builder_a_build_is_refused_with_what_to_install() {
    let world = World::offline();
    context(&world, "web");
    drop(world.stead_command("home", world.path(), &["version"]));
    let line = format!("PATH=/nonexistent exec {} image build web", crate::support::stead());
    let home = world.path().join("home");
    let line = format!("STEAD_HOME={} ; export STEAD_HOME; {line}", home.display());
    let refused = world.sh_said(Place::Person, &line);
    refused.code(2).says("neither is here").says("apt install buildah");
    stead(&world, &["image", "build", "nosuch"]).code(2).says("there is no directory");
    std::fs::remove_file(world.path().join("web/Dockerfile")).unwrap();
    stead(&world, &["image", "build", "web"]).code(2).says("there is no file").says("`dockerfile`");
    stead(&world, &["image", "build", "web", "--secret", "word"]).code(2).says("id=password,src=");
    // A project without builds has nothing to build.
    let shop = world.project("shop", &format!("machines: {{ a: {{ image: {BUSYBOX} }} }}\n"));
    shop.stead("build").ok();
    shop.write("machines: { a: { build: 'https://git.example/web.git' } }\n");
    shop.stead("build").code(2).says("a directory of this computer");
}

/// A computer with buildah and a registry. Nothing where buildah cannot work.
fn with_buildah() -> Option<(World, Running)> {
    if role() == Role::User {
        untested("buildah needs more than one user id, which the tests' ordinary user has not");
        return None;
    }
    let mut world = World::offline();
    // buildah makes this itself, and leaves it; nothing else of it stays, mounted or running.
    world.sh(Place::Computer, "mkdir -p /run/containers/networks");
    world.settle();
    let registry = registry(&world);
    Some((world, registry))
}

#[test]
fn an_image_is_built_and_run() {
    let Some((world, _registry)) = with_buildah() else { return };
    builds_and_runs(&world, "bare");
    stead(&world, &["image", "build", "web"]).code(1).says("exit status 3").says("`buildah` ended with");
    keeps_caches(&world);
    forgets_when_told(&world);
}

/// Nothing of what builds keep is left, and the next one does without.
#[track_caller]
fn forgets_when_told(world: &World) {
    let kept = format!("{}/home/state/build", world.path().display());
    world.sh(Place::Computer, &format!("test -e {kept}/mounted-caches"));
    assert!(stead(world, &["image", "prune", "--yes"]).ok().contains(" freed\n"));
    world.sh(Place::Computer, &format!("! test -e {kept}"));
    stead(world, &["image", "build", "cached", "-t", "lab/cached", "--quiet"]).ok();
    assert_eq!(stead(world, &["run", "--rm", "lab/cached", "cat", "/said"]).ok(), "first\n");
}

const NO_BUILDKIT: &str =
    "it takes BuildKit (`buildctl`, `buildkitd`, `runc`), of which not all is on the PATH";

fn has_buildkit(world: &World) -> bool {
    let all = ["buildctl", "buildkitd", "runc"];
    all.into_iter().all(|name| world.sh_said(Place::Computer, &format!("command -v {name}")).code == 0)
}

/// BuildKit's daemon, whose mounts end with it.
struct BuildKit<'w> {
    world: &'w World,
    daemon: Option<Running>,
}

const DAEMON: &str = "
root = 'PATH/buildkit'
[grpc]
address = ['unix://SOCKET']
[otel]
socketPath = 'PATH/otel.sock'
[worker.oci]
networkMode = 'host'
defaultCgroupParent = 'NAME'
[worker.containerd]
enabled = false
";

/// Where everybody looks for it.
const SOCKET: &str = "/run/buildkit/buildkitd.sock";

/// Whose it is that its containers are in.
fn cgroup(world: &World) -> String {
    format!("buildkit-{}", world.path().file_name().unwrap().display())
}

impl<'w> BuildKit<'w> {
    fn start(world: &'w World) -> Self {
        let path = world.path().display().to_string();
        let settings =
            DAEMON.replace("PATH", &path).replace("SOCKET", SOCKET).replace("NAME", &cgroup(world));
        std::fs::write(world.path().join("buildkitd.toml"), settings).unwrap();
        let line =
            format!("exec unshare -m buildkitd --config {path}/buildkitd.toml > {path}/buildkitd.log 2>&1");
        let daemon = Some(world.spawn(Place::Computer, &["sh", "-c", &line]));
        let this = Self { world, daemon };
        let ask = format!("buildctl --addr unix://{SOCKET} debug workers");
        world.until("BuildKit answers", || (world.sh_said(Place::Computer, &ask).code == 0).then_some(()));
        this
    }
}

impl Drop for BuildKit<'_> {
    fn drop(&mut self) {
        self.daemon.take();
        // Its containers' control groups are empty then, and stay.
        let name = cgroup(self.world);
        let line = format!(
            "find /sys/fs/cgroup -depth -type d -path '*/{name}*' -exec rmdir {{}} + ; rm -r /run/buildkit /run/runc"
        );
        let _ = self.world.sh_said(Place::Computer, &line);
    }
}

#[test]
fn an_image_is_built_by_buildkit_and_run() {
    let Some((world, _registry)) = with_buildah() else { return };
    if !has_buildkit(&world) {
        return untested(NO_BUILDKIT);
    }
    let mut buildkit = BuildKit::start(&world);
    builds_and_runs(&world, "lab/base:1");
    stead(&world, &["image", "build", "web"]).code(1).says("exit code: 3").says("`buildctl` ended with");
    sees_files_of_any_name(&world);
    // A stage of an image's name would be replaced by it: it is not given, and that is told.
    std::fs::write(world.path().join("web/Dockerfile"), "FROM bare AS bare\n").unwrap();
    stead(&world, &["image", "build", "web"]).code(1).says("a stage has its name");
    ends_with_who_wants_it(&world, "buildctl");
    // A socket is there, and nobody answers: the other one builds.
    buildkit.daemon.take();
    world.sh(Place::Computer, &format!("test -S {SOCKET}"));
    std::fs::write(world.path().join("web/Dockerfile"), "FROM lab/web:1\n").unwrap();
    stead(&world, &["image", "build", "web"]).ok();
    let mut named = world.stead_command("home", world.path(), &["image", "build", "web"]);
    named.env("BUILDKIT_HOST", format!("unix://{SOCKET}"));
    said(named).code(1).says("`buildctl` ended with");
}

#[test]
fn an_ordinary_user_builds_by_either() {
    let Some(mut world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    // As with root.
    world.sh(Place::Computer, "mkdir -p /run/user/1234/libpod; chown -R 1234:1234 /run/user/1234");
    world.settle();
    let _registry = registry(&world);
    context(&world, "web");
    world.sh(Place::Computer, &format!("chown -R 1234:1234 {}/web", world.path().display()));
    let words = ["image", "build", "web", "-t", "lab/web:1", "--target", "base", "--quiet"];
    stead(&world, &words).ok();
    assert_eq!(stead(&world, &["run", "--rm", "lab/web:1", "cat", "/greeting"]).ok(), "hello nobody\n");
    // As buildah leaves it where it is killed.
    let left = format!("{}/home/state/building/4194304", world.path().display());
    world.sh(Place::Computer, &format!("cd {}; mkdir -p {left}/buildah1/mnt/rootfs; chown -R 1234:1234 {left}; chmod 0 {left}/buildah1/mnt/rootfs; chmod 100 {left}/buildah1/mnt", world.path().display()));
    keeps_caches(&world);
    world.sh(Place::Computer, &format!("! test -e {left}"));
    forgets_when_told(&world);
    // What buildah runs a `RUN` with is told nothing of where temporary files are to be.
    world.sh(Place::Computer, "rm -rf /tmp/containers-user-1234");
    if !has_buildkit(&world) {
        return untested(NO_BUILDKIT);
    }
    let _buildkit = BuildKit::start(&world);
    // The computer's daemon is not for this user: buildah builds.
    let refused = ["image", "build", "web", "-t", "lab/web:2", "--target", "nosuch"];
    stead(&world, &refused).code(1).says("`buildah` ended with");
    world.sh(Place::Computer, &format!("chmod 711 /run/buildkit; chgrp 1234 {SOCKET}"));
    stead(&world, &refused).code(1).says("`buildctl` ended with");
    stead(&world, &["image", "build", "web", "-t", "lab/web:2", "--quiet"]).ok();
    assert_eq!(stead(&world, &["run", "--rm", "lab/web:2", "cat", "/page"]).ok(), "a page\n");
}

/// What a build keeps for the next one is there then.
#[track_caller]
fn keeps_caches(world: &World) {
    let path = world.path().join("cached");
    std::fs::create_dir(&path).unwrap();
    let line = "if test -e /c/x; then echo again > /said; else touch /c/x; echo first > /said; fi";
    let text = format!("FROM {BUSYBOX}\nRUN --mount=type=cache,target=/c {line}\n");
    std::fs::write(path.join("Dockerfile"), text).unwrap();
    for said in ["first\n", "again\n"] {
        stead(world, &["image", "build", "cached", "-t", "lab/cached", "--no-cache", "--quiet"]).ok();
        assert_eq!(stead(world, &["run", "--rm", "lab/cached", "cat", "/said"]).ok(), said);
    }
}

/// Instructions behind a link, and a secret whose name has letters that part words.
#[track_caller]
fn sees_files_of_any_name(world: &World) {
    let path = world.path().join("odd, \"er");
    std::fs::create_dir(&path).unwrap();
    let text =
        format!("FROM {BUSYBOX}\nCOPY . /all\nRUN --mount=type=secret,id=word cp /run/secrets/word /word\n");
    std::fs::write(world.path().join("Elsewhere"), text).unwrap();
    std::os::unix::fs::symlink("../Elsewhere", path.join("Dockerfile")).unwrap();
    for (name, text) in [(".dockerignore", "hidden\n"), ("hidden", ""), ("shown", "")] {
        std::fs::write(path.join(name), text).unwrap();
    }
    std::fs::write(world.path().join("a \"word\""), "open sesame\n").unwrap();
    let words =
        ["image", "build", "odd, \"er", "-t", "lab/odd", "--secret", "id=word,src=a \"word\"", "--quiet"];
    stead(world, &words).ok();
    let line = "cat /word; ls /all";
    assert_eq!(
        stead(world, &["run", "--rm", "lab/odd", "sh", "-c", line]).ok(),
        "open sesame\nDockerfile\nshown\n"
    );
}

/// Killed while it builds, and its builder goes as well.
#[track_caller]
fn ends_with_who_wants_it(world: &World, builder: &str) {
    let wanted = stuck(world, "ended");
    drop(wanted);
    let line = format!("pgrep -x 'sleep|{builder}' -l || true");
    world.until("nobody builds any more", || world.sh(Place::Computer, &line).is_empty().then_some(()));
}

/// A build in the background that does not come to its end, in a directory of its own.
#[track_caller]
fn stuck(world: &World, name: &str) -> Running {
    let directory = world.path().join(name);
    std::fs::create_dir(&directory).unwrap();
    let text = "FROM lab/base:1\nRUN echo begun; exec sleep 1000\n";
    std::fs::write(directory.join("Dockerfile"), text).unwrap();
    let build = world.spawn_stead(&directory, &["image", "build", "."]);
    let sleeps = "pgrep -fx 'sleep 1000' || true";
    world.until("it sleeps", || (!world.sh(Place::Computer, sleeps).is_empty()).then_some(()));
    build
}

#[test]
fn a_build_that_does_not_end_holds_up_only_those_that_need_what_it_has() {
    let Some((world, _registry)) = with_buildah() else { return };
    let tag = |from: &str, to: &str| drop(stead(&world, &["image", "tag", from, to]).ok());
    context(&world, "web");
    stead(&world, &["image", "build", "web", "-t", "lab/web:1", "--quiet"]).ok();
    stead(&world, &["image", "build", "web", "-t", "lab/base:1", "--target", "base", "--quiet"]).ok();
    let build = |name: &str, text: &str| {
        let directory = world.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("Dockerfile"), text).unwrap();
        let tag = format!("lab/{name}");
        world.stead_command("home", &directory, &["image", "build", ".", "-t", &tag, "--quiet"])
    };
    // A registry takes the question, and does not answer.
    let silent = world.spawn(Place::Computer, &["busybox", "nc", "-l", "-p", "5001"]);
    world.until("it listens", || {
        let found = world.sh(Place::Computer, "ss -Hltn 'sport = :5001'");
        (!found.is_empty()).then_some(())
    });
    let silence = world.path().join("silence");
    std::fs::create_dir(&silence).unwrap();
    std::fs::write(
        silence.join("Dockerfile"),
        "FROM 127.0.0.1:5001/lab/none AS one\nFROM lab/web:1\nCOPY --from=one / /\n",
    )
    .unwrap();
    let asks = world.spawn_stead(&silence, &["image", "build", "."]);
    world.until("it asks", || {
        let found = world.sh(Place::Computer, "ss -Htn state established 'dport = :5001'");
        (!found.is_empty()).then_some(())
    });
    let sleeps = stuck(&world, "asleep");
    let building = format!("ls {}/home/state/building", world.path().display());
    let held = world.sh(Place::Computer, &building);
    assert_eq!(held.lines().count(), 2, "{held}");
    // Where its process is not seen it builds all the same.
    let line = format!(
        "cd {}; STEAD_HOME=$PWD/home exec unshare -p -f --mount-proc {} image build web -t lab/unseen --quiet",
        world.path().display(),
        crate::support::stead()
    );
    world.sh(Place::Person, &line);
    assert_eq!(world.sh(Place::Computer, &building), held);
    // Nor is what they keep taken from those that build.
    stead(&world, &["image", "prune", "--yes"]).code(0).says("an image is being built");
    // The same image by the same name, and other names.
    said(build("same", "FROM lab/base:1\nCOPY --from=lab/web:1 /page /page\n")).ok();
    assert_eq!(stead(&world, &["run", "--rm", "lab/same", "cat", "/page"]).ok(), "a page\n");
    // Another image by that name has to wait; by a name of its own it has not.
    tag("lab/web:1", "lab/base:1");
    tag("lab/web:1", "lab/other:1");
    said(build("other", "FROM lab/other:1\n")).ok();
    let mut waits = build("waits", "FROM lab/base:1\nRUN cat /page > /seen\n");
    let words = world.path().join("words");
    waits.stderr(std::fs::File::create(&words).unwrap()).stdout(std::process::Stdio::null());
    let mut waits = waits.spawn().unwrap();
    world.until("it waits", || {
        let told = std::fs::read_to_string(&words).unwrap();
        told.contains("waiting for another build, for which lab/base:1 is another image").then_some(())
    });
    drop(sleeps);
    let ended = world.until("it goes on", || waits.try_wait().unwrap());
    assert!(ended.success(), "{}", std::fs::read_to_string(&words).unwrap());
    assert_eq!(stead(&world, &["run", "--rm", "lab/waits", "cat", "/seen"]).ok(), "a page\n");
    drop((asks, silent));
    tag("lab/same", "lab/base:1");
    ends_with_who_wants_it(&world, "buildah");
}

/// All that can be said of a build, with an image of the store to start from.
#[track_caller]
fn builds_and_runs(world: &World, base: &str) {
    context(world, "web");
    std::fs::write(world.path().join("word"), "open sesame\n").unwrap();
    let words = [
        "image",
        "build",
        "web",
        "-t",
        "lab/web:1",
        "-t",
        "lab/web:latest",
        "--build-arg",
        "GREETING=you",
        "--label",
        "by=test",
        "--secret",
        "id=word,src=word",
    ];
    let built = stead(world, &words).ok();
    assert!(built.ends_with(" lab/web:1 lab/web:latest\n"), "{built}");
    assert_eq!(stead(world, &["run", "--rm", "lab/web:1"]).ok(), "hello you\n");
    assert_eq!(
        stead(world, &["run", "--rm", "lab/web", "cat", "/word", "/page"]).ok(),
        "open sesame\na page\n"
    );
    let config = world.stead("image inspect lab/web:1 --format json").json();
    let text = config.to_string();
    assert!(text.contains("\"by\":\"test\"") && text.contains("\"of\":\"file\""), "{text}");
    let words = ["image", "build", "web", "-t", "lab/base:1", "--target", "base", "--quiet"];
    stead(world, &words).ok();
    assert_eq!(stead(world, &["run", "--rm", "lab/base:1", "cat", "/greeting"]).ok(), "hello nobody\n");
    stead(world, &["run", "--rm", "lab/base:1", "cat", "/page"]).code(1);
    starts_from_what_is_only_here(world, base);
    std::fs::write(world.path().join("web/Dockerfile"), format!("FROM {BUSYBOX}\nRUN exit 3\n")).unwrap();
}

/// Images that no registry has are built upon, however they are named; the newest one of a name.
#[track_caller]
fn starts_from_what_is_only_here(world: &World, base: &str) {
    stead(world, &["image", "tag", "lab/base:1", "bare"]).ok();
    let write = |text: &str| std::fs::write(world.path().join("web/Dockerfile"), text).unwrap();
    let say = |words: &[&str], code: i32| stead(world, words).code(code);
    write(
        "ARG BASE\nFROM $BASE AS bare\nRUN echo more >> /greeting\nFROM lab/web:1\nCOPY --from=bare /greeting /one\n\
         RUN --mount=type=bind,from=lab/base:1,target=/m cat /m/greeting > /two\n",
    );
    let argument = format!("BASE={base}");
    say(&["image", "build", "web", "-t", "lab/more:1", "--build-arg", &argument, "--quiet"], 0);
    let cat = |image: &str, path: &str| stead(world, &["run", "--rm", image, "cat", path]).ok();
    // A stage goes before an image of its name.
    assert_eq!(cat("lab/more:1", "/one"), "hello nobody\nmore\n");
    assert_eq!(cat("lab/more:1", "/two"), "hello nobody\n");
    assert_eq!(cat("lab/more:1", "/page"), "a page\n");
    write("FROM bare\nRUN cat /greeting > /three\n");
    stead(world, &["image", "tag", "lab/web:1", "bare"]).ok();
    say(&["image", "build", "web", "-t", "lab/again:1", "--quiet"], 0);
    assert_eq!(cat("lab/again:1", "/three"), "hello you\n");
    // Asked for anew, it is looked for where it is not.
    say(&["image", "build", "web", "-t", "lab/again:1", "--pull"], 1);
    std::fs::remove_dir_all(world.path().join("web")).unwrap();
    context(world, "web");
}

/// A name that was here, and is not any more, is one that registries are asked for.
#[test]
fn what_has_gone_is_not_built_upon() {
    let Some((world, _registry)) = with_buildah() else { return };
    context(&world, "web");
    let base = ["image", "build", "web", "-t", "lab/base:1", "--target", "base", "--quiet"];
    stead(&world, &base).ok();
    let directory = world.path().join("upon");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("Dockerfile"), "FROM lab/base:1\nRUN cat /greeting > /seen\n").unwrap();
    let build =
        |more: &[&str]| stead(&world, &[&["image", "build", "upon", "-t", "lab/upon:1"], more].concat());
    build(&["--quiet"]).ok();
    // What was called so for the build is not asked of a registry `localhost`.
    let refused = build(&["--pull"]);
    assert!(!refused.err.contains("//localhost/"), "{}", refused.err);
    refused.code(1).says("docker.io/lab/base:1");
    // What was built from it is as good as before, and it is found again.
    build(&["--quiet"]).ok();
    assert_eq!(stead(&world, &["run", "--rm", "lab/upon:1", "cat", "/seen"]).ok(), "hello nobody\n");
    stead(&world, &["image", "rm", "lab/base:1"]).ok();
    build(&["--no-cache"]).code(1).says("docker.io/lab/base:1");
    stead(&world, &base).ok();
    build(&["--no-cache", "--quiet"]).ok();
}

/// A builder that first has another command change the home, which deletes what no machine mounts.
#[track_caller]
fn builds_with_a_secret_while_another_command_tidies(world: &World) {
    let vault = world.project(
        "vault",
        "machines: { web: { build: { context: web, target: base, secrets: [word] } } }\n\
         secrets: { word: { content: open sesame } }\n",
    );
    std::fs::rename(context(world, "vaulted"), vault.directory.join("web")).unwrap();
    let programs = world.path().join("programs");
    let (stead, home) = (crate::support::stead(), world.path().join("home").display().to_string());
    let script = format!(
        "mkdir {programs}; printf '%s\\n' '#!/bin/sh' '{stead} volume create tidied >&2' \
         'exec /usr/bin/buildah \"$@\"' > {programs}/buildah; chmod +x {programs}/buildah; cd {directory}; \
         export STEAD_HOME={home} PATH={programs}:$PATH; exec {stead} build",
        programs = programs.display(),
        directory = vault.directory.display(),
    );
    world.sh(Place::Person, &script);
    let words = ["run", "--rm", "vault-web", "cat", "/word"];
    assert_eq!(self::stead(world, &words).ok(), "open sesame");
    // It was this build's alone.
    let left = world.sh(
        Place::Person,
        &format!("grep -rl 'open sesame' {home}/run {home}/state/texts {home}/state/building || true"),
    );
    assert_eq!(left, "");
}

#[test]
fn what_a_project_builds_is_built_when_it_is_needed() {
    let Some((world, _registry)) = with_buildah() else { return };
    let shop = world.project("shop", &format!("
name: shop
machines:
  web: {{ build: {{ context: web, args: {{ GREETING: shop }} }}, healthcheck: {{ disable: true }}, command: [sleep, '1000'], init: true }}
  job: {{ build: {{ context: ., dockerfile_inline: \"FROM {BUSYBOX}\\nRUN echo inline > /it\" }}, image: 'shop/job:1', command: cat /it }}
"));
    let directory = shop.directory.join("web");
    std::fs::rename(context(&world, "web"), &directory).unwrap();
    assert_eq!(shop.stead("config --images").ok(), "shop-web:latest\nshop/job:1\n");
    shop.stead("up --no-build").code(2).says("the image shop/job:1 is not here");
    shop.stead("up").ok();
    assert_eq!(
        said(world.stead_command("home", &shop.directory, &["exec", "web", "cat", "/greeting"])).ok(),
        "hello shop\n"
    );
    shop.stead("wait job").ok();
    assert_eq!(shop.stead("logs job").ok(), "inline\n");
    // It is here: nothing is built, and nothing changes.
    std::fs::write(directory.join("page"), "another page\n").unwrap();
    assert!(!shop.stead("up web").ok().contains("web.shop"));
    // Built anew it is another image, and only its machine is made anew.
    let done = shop.stead("up web --build").ok();
    assert!(done.contains("- machine web.shop") && done.contains("> start web.shop"), "{done}");
    assert_eq!(
        said(world.stead_command("home", &shop.directory, &["exec", "web", "cat", "/page"])).ok(),
        "another page\n"
    );
    builds_with_a_secret_while_another_command_tidies(&world);
    let built = shop.stead("build web --build-arg GREETING=more --quiet --format json").json();
    assert_eq!(built[0]["names"], serde_json::json!(["shop-web:latest"]));
    assert_eq!(stead(&world, &["run", "--rm", "shop-web"]).ok(), "hello more\n");
}

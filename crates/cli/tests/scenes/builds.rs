//! Images that are built here, by a real builder.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, Said, World, role, said, untested};

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

#[test]
fn an_image_is_built_and_run() {
    if role() == Role::User {
        return untested("buildah needs more than one user id, which the tests' ordinary user has not");
    }
    let mut world = World::offline();
    // buildah makes this itself, and leaves it; nothing else of it stays, mounted or running.
    world.sh(Place::Computer, "mkdir -p /run/containers/networks");
    world.settle();
    let _registry = registry(&world);
    context(&world, "web");
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
    let built = stead(&world, &words).ok();
    assert!(built.ends_with(" lab/web:1 lab/web:latest\n"), "{built}");
    assert_eq!(stead(&world, &["run", "--rm", "lab/web:1"]).ok(), "hello you\n");
    assert_eq!(
        stead(&world, &["run", "--rm", "lab/web", "cat", "/word", "/page"]).ok(),
        "open sesame\na page\n"
    );
    let config = world.stead("image inspect lab/web:1 --format json").json();
    let text = config.to_string();
    assert!(text.contains("\"by\":\"test\"") && text.contains("\"of\":\"file\""), "{text}");
    let words = ["image", "build", "web", "-t", "lab/base:1", "--target", "base", "--quiet"];
    stead(&world, &words).ok();
    assert_eq!(stead(&world, &["run", "--rm", "lab/base:1", "cat", "/greeting"]).ok(), "hello nobody\n");
    stead(&world, &["run", "--rm", "lab/base:1", "cat", "/page"]).code(1);
    starts_from_what_is_only_here(&world);
    std::fs::write(world.path().join("web/Dockerfile"), format!("FROM {BUSYBOX}\nRUN exit 3\n")).unwrap();
    stead(&world, &["image", "build", "web"]).code(1).says("exit status 3").says("`buildah` ended with");
}

/// Images that no registry has are built upon, however they are named; the newest one of a name.
#[track_caller]
fn starts_from_what_is_only_here(world: &World) {
    stead(world, &["image", "tag", "lab/base:1", "bare"]).ok();
    let write = |text: &str| std::fs::write(world.path().join("web/Dockerfile"), text).unwrap();
    let say = |words: &[&str], code: i32| stead(world, words).code(code);
    write(
        "ARG BASE\nFROM $BASE AS bare\nRUN echo more >> /greeting\nFROM lab/web:1\nCOPY --from=bare /greeting /one\n\
         RUN --mount=type=bind,from=lab/base:1,target=/m cat /m/greeting > /two\n",
    );
    say(&["image", "build", "web", "-t", "lab/more:1", "--build-arg", "BASE=bare", "--quiet"], 0);
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
    let left =
        world.sh(Place::Person, &format!("grep -rl 'open sesame' {home}/run {home}/state/texts || true"));
    assert_eq!(left, "");
}

#[test]
fn what_a_project_builds_is_built_when_it_is_needed() {
    if role() == Role::User {
        return untested("buildah needs more than one user id, which the tests' ordinary user has not");
    }
    let mut world = World::offline();
    // buildah makes this itself, and leaves it; nothing else of it stays, mounted or running.
    world.sh(Place::Computer, "mkdir -p /run/containers/networks");
    world.settle();
    let _registry = registry(&world);
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

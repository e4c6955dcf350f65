//! What shells offer after Tab, by the engine that they ask.

use std::fs;

use crate::support::{Place, Project, World};

const SHOP: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', reach: isolated } }
machines:
  web: { kind: container, driver: external, networks: [lan], ports: ['8080:80'] }
";

/// What a shell would offer after these words, a line each.
#[track_caller]
fn complete(project: &Project<'_>, words: &[&str]) -> String {
    let mut all = vec!["--", "stead"];
    all.extend(words);
    let mut command = project.world.stead_command("home", &project.directory, &all);
    command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true");
    let said = crate::support::said(command).code(0);
    assert_eq!(said.err, "", "{words:?}");
    said.out
}

#[test]
fn completion_knows_the_names() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    let complete = |words: &[&str]| complete(&shop, words);
    assert_eq!(complete(&["down", "s"]), "", "there is nothing yet");
    // A home that was begun and has no records yet: to complete is to look.
    let state = world.path().join("home/state");
    world.sh(Place::Person, &format!("mkdir -p -m 700 {}", state.display()));
    assert_eq!(complete(&["down", "s"]), "");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "completion wrote into the home");
    shop.stead("up").ok();
    world.stead("network create extra --reach isolated").ok();
    assert_eq!(complete(&["down", "s"]), "shop");
    assert_eq!(complete(&["ps", "w"]), "web\nweb.shop");
    assert_eq!(complete(&["network", "inspect", "la"]), "lan\nlan.shop");
    assert_eq!(complete(&["network", "rm", ""]).lines().next(), Some("extra"));
    assert!(complete(&["network", "enter", "-m", "web."]).contains("web.shop"));
    assert!(complete(&["pl"]).contains("plan"));
}

#[test]
fn completion_knows_what_the_file_names_and_networks_of_every_kind() {
    let world = World::offline();
    // Nothing is up, and there is no home.
    let shop = world.project("shop", SHOP);
    for command in ["up", "build", "pull"] {
        assert_eq!(complete(&shop, &[command, "w"]), "web\nweb.shop", "{command}");
    }
    assert_eq!(complete(&shop, &["run", "w"]), "web");
    assert_eq!(complete(&shop, &["network", "inspect", "la"]), "lan\nlan.shop");
    assert_eq!(complete(&shop, &["ps", "w"]), "", "there is no such machine yet");
    assert!(!world.path().join("home").exists(), "completion made a home");
    // Another file that the words name; one that is wrong offers nothing and says nothing.
    let other = world.project("other", &SHOP.replace("web:", "wine:"));
    let file = other.directory.join("stead.yaml").display().to_string();
    for named in [vec!["-f", &file], vec!["--file", &file], vec![&format!("--file={file}")]] {
        let words: Vec<&str> = named.into_iter().chain(["up", "w"]).collect();
        assert_eq!(complete(&shop, &words), "wine\nwine.other");
    }
    other.write("machines: { Web: [");
    assert_eq!(complete(&other, &["up", "w"]), "");
    // A network on which nothing is served, and one after the computer was started anew: what runs is gone then, and its
    // directory.
    world.stead("network create wire --addressing none").ok();
    world.stead("network create extra --reach isolated").ok();
    shop.stead("up").ok();
    other.write("");
    let all = complete(&other, &["network", "inspect", ""]);
    let all: Vec<&str> = all.lines().filter(|line| !line.starts_with('-')).collect();
    assert_eq!(all, ["extra", "extra.default", "lan", "lan.shop", "wire", "wire.default"]);
    assert_eq!(complete(&other, &["network", "rm", "w"]), "wire");
    world.sh(Place::Person, "cp -a home/state kept");
    world.stead("purge --yes").ok();
    world.sh(Place::Person, "mkdir -p home; mv kept home/state");
    assert_eq!(complete(&other, &["network", "rm", "w"]), "wire");
    assert_eq!(complete(&other, &["network", "inspect", "la"]), "lan\nlan.shop");
    assert_eq!(complete(&other, &["network", "inspect", "w"]), "wire\nwire.default");
}

#[test]
fn completion_offers_the_machines_that_a_network_has_and_those_that_it_has_not() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    let offered = |words: &[&str]| {
        let all = complete(&shop, &[words, &[""]].concat());
        all.lines().filter(|line| !line.starts_with('-')).map(str::to_owned).collect::<Vec<_>>()
    };
    world.stead("network create one --reach isolated").ok();
    world.stead("network create two --reach isolated").ok();
    world.stead("network connect one a --kind container").ok();
    world.stead("network connect two b --kind container").ok();
    assert_eq!(offered(&["network", "disconnect", "one"]), ["a"]);
    assert_eq!(offered(&["network", "disconnect", "two.default"]), ["b"]);
    assert_eq!(offered(&["network", "connect", "one"]), ["b"]);
    assert_eq!(offered(&["network", "connect", "--kind", "container", "two"]), ["a"]);
    assert_eq!(offered(&["network", "disconnect", "none"]), [""; 0]);
}

#[test]
fn completion_scripts_are_such_as_the_shells_take() {
    let world = World::offline();
    for shell in ["bash", "zsh", "fish"] {
        let script = world.stead(&format!("completion {shell}")).ok();
        assert!(script.contains("COMPLETE") && script.contains("stead"), "{shell}: {script}");
        let file = world.path().join(format!("script.{shell}"));
        fs::write(&file, &script).unwrap();
        world.sh(Place::Person, &format!("{shell} -n {}", file.display()));
        // The judge does judge.
        fs::write(&file, format!("{script}\nif true; then (")).unwrap();
        assert_ne!(
            world.sh_said(Place::Person, &format!("{shell} -n {}", file.display())).code,
            0,
            "{shell}"
        );
    }
}

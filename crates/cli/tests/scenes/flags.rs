//! What people who know Compose say to `up` beside the file.

use std::time::Duration;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Project, Said, World, said_after};

const SHOP: &str = "
name: shop
volumes: [data]
machines:
  db: { image: IMAGE, command: sleep 1000, init: true, volumes: ['data:/data'] }
  web: { image: IMAGE, command: sleep 1000, init: true, depends_on: { db: { condition: service_healthy } } }
  ext: { kind: container, driver: external }
";

fn text() -> String {
    SHOP.replace("IMAGE", BUSYBOX).replace(
        "['data:/data'] }",
        "['data:/data', /bare], healthcheck: { test: [CMD, 'true'], interval: 1s } }",
    )
}

/// The machines of all projects.
fn names(world: &World) -> Vec<String> {
    let rows = world.stead("ps --all --format json").json();
    let name = |row: &serde_json::Value| {
        format!("{}.{}", row["name"].as_str().unwrap(), row["project"].as_str().unwrap())
    };
    rows.as_array().unwrap().iter().map(name).collect()
}

/// Whether a file that was written into a machine itself is there.
fn keeps(shop: &Project<'_>, machine: &str, path: &str) -> bool {
    shop.stead(&format!("exec {machine} cat {path}")).code == 0
}

#[test]
fn machines_are_made_anew_by_name_or_all_and_volumes_stay() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &text());
    shop.stead("up").ok();
    for (machine, path) in [("db", "/own"), ("db", "/data/kept"), ("db", "/bare/kept"), ("web", "/own")] {
        shop.stead(&format!("exec {machine} touch {path}")).ok();
    }
    assert_eq!(shop.stead("up").ok(), "nothing to do\n");
    let done = shop.stead("up --force-recreate web").ok();
    assert!(done.contains("- machine web.shop") && !done.contains("machine db.shop"), "{done}");
    assert!(!keeps(&shop, "web", "/own") && keeps(&shop, "db", "/own"));
    let done = shop.stead("up --force-recreate").ok();
    assert!(!done.contains("machine ext") && !done.contains("lease"), "{done}");
    assert!(!keeps(&shop, "db", "/own") && keeps(&shop, "db", "/data/kept"));
    assert!(keeps(&shop, "db", "/bare/kept"));
    shop.stead("up --force-recreate -V db").ok();
    assert!(!keeps(&shop, "db", "/bare/kept") && keeps(&shop, "db", "/data/kept"));
    assert!(!shop.world.path().join("home/state/aside").exists());
    assert_eq!(shop.stead("up").ok(), "nothing to do\n");
    // What somebody took care to keep is not lost without a word.
    shop.stead("exec web touch /own").ok();
    shop.stead("stop web").ok();
    shop.stead("snapshot create web before").ok();
    shop.stead("up --force-recreate web").code(3).says("this loses data");
    shop.stead("start web").ok();
    assert!(keeps(&shop, "web", "/own"));
    shop.stead("up --force-recreate --yes web").ok();
    assert!(!keeps(&shop, "web", "/own"));
}

#[test]
fn a_machine_comes_up_without_what_it_depends_on_if_that_is_said() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &text());
    shop.stead("up --no-deps web").ok();
    assert_eq!(names(&world), ["web.shop"]);
    shop.stead("up web").ok();
    assert_eq!(names(&world), ["db.shop", "web.shop"]);
    // One that is stopped stays so.
    shop.stead("stop db web").ok();
    assert_eq!(shop.stead("up --no-deps web").ok(), "> start web.shop\n");
}

#[test]
fn there_are_so_many_of_a_machine_until_the_next_up() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &text());
    shop.stead("up --scale web=2 --scale Web=3").ok();
    assert_eq!(names(&world), ["db.shop", "ext.shop", "web-1.shop", "web-2.shop", "web-3.shop"]);
    shop.stead("stop web-2").ok();
    shop.stead("start web-2").ok();
    // Those that are named become so many, too; the others stay.
    shop.stead("up --scale web=2 web").ok();
    assert_eq!(names(&world), ["db.shop", "ext.shop", "web-1.shop", "web-2.shop"]);
    for (line, told) in [
        ("up --scale web=2 db", "`--scale web`: the machine is not among those that are named"),
        ("up --scale wbe=2", "did you mean `web`?"),
        ("up --scale web=many", "`many` is not a whole number from 0 to 100"),
    ] {
        shop.stead(line).code(2).says(told);
    }
    shop.stead("up --scale web=1 web").ok();
    assert_eq!(names(&world), ["db.shop", "ext.shop", "web.shop"]);
    shop.stead("up --scale web=0 web.shop").ok();
    assert_eq!(names(&world), ["db.shop", "ext.shop"]);
    assert!(shop.stead("up").ok().contains("> start web.shop"));
    shop.stead("up --scale web=0").ok();
    assert_eq!(names(&world), ["db.shop", "ext.shop"]);
    shop.stead("up").ok();
    assert_eq!(names(&world), ["db.shop", "ext.shop", "web.shop"]);
}

#[test]
fn a_project_is_called_as_is_said_whatever_its_file_says() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &text());
    shop.stead("--project-name My_Other up web").ok();
    assert_eq!(names(&world), ["db.my-other", "web.my-other"]);
    shop.stead("--project-name my-other stop").ok();
    shop.stead("start web.my-other").code(2).says("or say `--project-name my-other`");
    shop.stead("start --project-name my-other web").ok();
    let said = shop.stead("ps --project-name my-other web --format json").json();
    assert_eq!(said[0]["status"], "running");
    // One directory is one project at a time, and what there is not cannot be looked at.
    shop.stead("up").code(2).says("this directory is that of project `my-other`, which is up");
    shop.stead("ps --project-name nosuch").code(2).says("there is no project `nosuch`");
    shop.stead("down shop --project-name my-other").code(2).says("say one name");
    // Then nothing else is meant, unless it is said with its project.
    let text =
        "volumes: [kept]\nmachines: { lone: { kind: container, driver: external } }\nnetworks: { lan: {} }\n";
    let blog = world.project("blog", text);
    blog.stead("up").ok();
    shop.stead("rm --project-name my-other -f lone").code(2).says("there is no machine `lone`");
    shop.stead("network inspect --project-name my-other lan").code(2).says("there is no network `lan`");
    shop.stead("volume rm --project-name blog --yes data.my-other").code(2).says("is used by");
    shop.stead("volume rm --project-name my-other --yes kept").code(2).says("there is no volume `kept`");
    shop.stead("volume create --project-name shop data").code(2).says("--project-name");
    let said = shop.stead("volume ls --quiet --project-name blog").ok();
    assert_eq!(said, "kept.blog\n");
    shop.stead("volume ls --project-name nosuch").code(2).says("there is no project `nosuch`");
    assert_eq!(shop.stead("ps --all --quiet --project-name blog").ok(), "lone.blog\n");
    blog.stead("down --volumes --yes").ok();
    shop.stead("down --project-name my-other --volumes --yes").ok();
    assert_eq!(names(&world), Vec::<String>::new());
}

#[test]
fn a_project_is_read_from_standard_input_with_its_paths_here() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "machines: { other: { kind: container, driver: external } }\n");
    std::fs::write(shop.directory.join("told"), "told").unwrap();
    let file = format!(
        "services: {{ web: {{ image: {BUSYBOX}, command: sleep 1000, init: true, volumes: ['./told:/told'] }} }}\n"
    );
    let piped = |line: &str, file: &str| -> Said {
        let words: Vec<&str> = line.split(' ').collect();
        let command = world.stead_command(&shop.home, &shop.directory, &words);
        said_after(command, file, Duration::from_secs(60))
    };
    piped("-f - config --quiet", &file).ok();
    let wrong = file.replace("image", "imgae");
    piped("-f - config", &wrong).code(2).says("standard input:1:").says("did you mean `image`?");
    piped("-f - up", "").code(2).says("standard input names no machine");
    piped("-f - up", &file).ok();
    assert_eq!(names(&world), ["web.shop"]);
    assert_eq!(shop.stead("exec web cat /told").ok(), "told");
    assert_eq!(piped("-f - plan", &file).ok(), "nothing to do\n");
    assert_eq!(piped("-f - ps --quiet", &file).ok(), "web.shop\n");
    // A command that has another use for it is none for that, and whoever comes later has not what it was.
    piped("-f - exec web cat", &file).code(125).says("`stead exec` reads standard input itself");
    piped("-f - stop web", &file).ok();
    shop.stead("start web").code(2).says("was standard input of `stead up -f -`");
    piped("-f - up", &file).ok();
    // Nobody is asked there.
    piped("-f - stop web", &file).ok();
    shop.stead("snapshot create web before").ok();
    piped("-f - down", &file).code(3).says("not done without consent");
    piped("-f - down --yes", &file).ok();
    assert_eq!(names(&world), Vec::<String>::new());
}

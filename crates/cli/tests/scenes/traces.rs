//! What is left of stead when it is gone: nothing, wherever its home was, and byte for byte.

use std::collections::BTreeSet;
use std::fs;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, Role, Said, World, role, said, stead};

const SHOP: &str = "
networks: { lan: { reach: isolated } }
machines: { web: { kind: container, driver: external, networks: [lan], ports: ['8080:80'] } }
volumes: [data]
";

/// Runs `stead` as people do who say nothing of where its home is but by these variables.
#[track_caller]
fn plainly(project: &Project<'_>, variables: &str, line: &str) -> Said {
    let directory = project.directory.display();
    let program = program(project.world);
    let line = format!("cd {directory}; unset STEAD_HOME; {variables} {program} {line}");
    project.world.sh_said(Place::Person, &line)
}

/// The program, where it can be seen whatever is mounted over `/tmp`.
fn program(world: &World) -> String {
    world.path().join("program").display().to_string()
}

/// All names where a home may be, but those of the project.
fn names(world: &World) -> String {
    let (own, projects) = (world.path().display(), world.path().join("projects"));
    let find = "find /run /var/lib /tmp";
    let but = format!("-path {own} -prune -o -print");
    let within = format!("find {own} -path {} -prune -o -print", projects.display());
    world.sh(Place::Computer, &format!("{{ {find} {but}; {within}; }} | sort"))
}

/// Has a project in the home that these variables lead to, and checks that all of it goes.
#[track_caller]
fn comes_and_goes(project: &Project<'_>, variables: &str, (state, run): (&str, &str)) {
    let before = names(project.world);
    let plainly = |line: &str| plainly(project, variables, line);
    assert_eq!(plainly("purge").ok(), "nothing to do\n");
    let version = plainly("version --format json").json();
    assert_eq!((version["state"].as_str(), version["run"].as_str()), (Some(state), Some(run)));
    for last in ["down", "network create more --reach isolated"] {
        plainly("up").ok();
        project.world.sh(Place::Person, &format!("test -e {state}/state.db -a -e {run}/served.json"));
        plainly(last).ok();
        plainly("purge --yes").ok();
        let after = names(project.world);
        let left: Vec<&str> = after.lines().filter(|line| !before.lines().any(|was| was == *line)).collect();
        assert_eq!(left, [""; 0], "left with `{variables}`");
        assert_eq!(after, before, "gone with `{variables}`");
    }
}

#[test]
fn nothing_is_left_where_a_home_is_by_default() {
    let mut world = World::offline();
    let own = world.path().display().to_string();
    // What is really there is nobody's to see, nor to change: of all that is in `/tmp` the world has its own files alone.
    let line = format!(
        "mkdir /run/own; busybox mount --bind {own} /run/own; busybox mount -t tmpfs -o mode=1777 tmp /tmp; mkdir -p {own}; \
         busybox mount --bind /run/own {own}; busybox umount -l /run/own; rmdir /run/own; \
         busybox mount -t tmpfs state /var/lib"
    );
    world.sh(Place::Person, &format!("cp {} {}; mkdir data rt", stead(), program(&world)));
    world.sh(Place::Computer, &line);
    world.settle();
    let shop = world.project("shop", SHOP);
    let given = format!("XDG_DATA_HOME={own}/data XDG_RUNTIME_DIR={own}/rt");
    if role() == Role::Root {
        for variables in ["", &given] {
            comes_and_goes(&shop, variables, ("/var/lib/stead", "/run/stead"));
        }
        return;
    }
    // The directories around it that were not there go as well, and no others.
    let usual = format!("{own}/nobody/.local/share/stead");
    comes_and_goes(&shop, "", (&usual, "/tmp/stead-1000"));
    comes_and_goes(&shop, &given, (&format!("{own}/data/stead"), &format!("{own}/rt/stead")));
    let new = format!("XDG_DATA_HOME={own}/data/new/er XDG_RUNTIME_DIR={own}/rt/new");
    comes_and_goes(&shop, &new, (&format!("{own}/data/new/er/stead"), &format!("{own}/rt/new/stead")));
    world.sh(Place::Person, "mkdir -p nobody/.local/share");
    comes_and_goes(&shop, "", (&usual, "/tmp/stead-1000"));
    // What somebody put there meanwhile keeps its directory.
    plainly(&shop, &new, "up").ok();
    world.sh(Place::Person, "touch data/new/mine");
    plainly(&shop, &new, "purge --yes").ok();
    assert_eq!(world.sh(Place::Person, "find data rt"), "data\ndata/new\ndata/new/mine\nrt\n");
}

/// All that could be changed on the computer, with what stands in its files: a line each.
fn everything(world: &World) -> BTreeSet<String> {
    let files = "cd $0; find . -printf 'file %p %y %m %U %G %l\\n'; find . -type f -exec sha256sum {} +";
    let line = "grep -rs '' /proc/sys/net /proc/sys/user /proc/sys/fs/inotify | grep -v nf_conntrack_count; \
                cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\" { print \"listens\", $2 }'; \
                awk '$8 ~ /^@/ { print \"socket\", $8 }' /proc/net/unix";
    let own = world.path().display().to_string();
    let of_files = said(world.command(Place::Computer, &["sh", "-e", "-c", files, &own])).ok();
    let of_kernel = world.sh(Place::Computer, line);
    let lines = of_files.lines().chain(of_kernel.lines()).map(str::to_owned);
    world.snapshot().into_iter().chain(lines).collect()
}

#[test]
fn a_computer_is_byte_for_byte_as_it_was() {
    let world = World::online();
    let _registry = registry(&world);
    let text = format!(
        "
networks: {{ lan: {{}}, back: {{ reach: isolated }} }}
machines:
  web: {{ kind: container, driver: external, networks: [lan], ports: ['8080:80'] }}
  box: {{ kind: vm, driver: external, networks: [lan, back] }}
  job: {{ image: {BUSYBOX}, command: [sleep, '1000'], init: true, networks: [back], volumes: ['data:/data'], ports: ['8081:80'] }}
volumes: {{ data: {{}} }}
"
    );
    let shop = world.project("shop", &text);
    fs::write(shop.directory.join(".env"), "A=1\n").unwrap();
    // Once, so that there is a lock beside the file, which stays.
    shop.stead("up").ok();
    shop.stead("purge --yes").ok();
    assert!(shop.directory.join("stead.lock").exists());
    let before = everything(&world);
    assert!(before.iter().any(|line| line.ends_with("./projects/home/shop/stead.lock")), "{before:#?}");
    shop.stead("up").ok();
    world.stead("network create more").ok();
    world.stead(&format!("run -d --init --name run --network more {BUSYBOX} sleep 1000")).ok();
    shop.stead("exec job touch /data/it /root").ok();
    // An ordinary user's cannot be held still here.
    shop.stead("stop job --time 0").ok();
    shop.stead("snapshot create job").ok();
    shop.stead("start job").ok();
    let during = everything(&world);
    assert!(during.len() > before.len() + 50, "nothing was seen of what was there: {}", during.len());
    shop.stead("purge --yes").ok();
    // Processes take a moment to end.
    let mut after = everything(&world);
    let begun = std::time::Instant::now();
    while after != before && begun.elapsed() < crate::support::LIMIT {
        after = everything(&world);
    }
    let left: Vec<&String> = after.difference(&before).collect();
    let gone: Vec<&String> = before.difference(&after).collect();
    assert!(left.is_empty() && gone.is_empty(), "left:\n{left:#?}\ngone:\n{gone:#?}");
}

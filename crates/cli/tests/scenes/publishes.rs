//! Images made of machines: of what they have now, running or not, or of a snapshot.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, Said, World, role, said};

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

#[track_caller]
fn inside(world: &World, machine: &str, line: &str) -> String {
    stead(world, &["exec", machine, "sh", "-c", line]).ok()
}

const RUN: &str = "trap exit TERM; while :; do sleep 1; done";

/// What a person does, and what a system does of itself.
const WRITE: &str = "echo one > /etc/state; rm /etc/group; rm -r /srv; mkdir -m 711 /srv /work; touch /srv/new; \
    echo a > /work/a; ln /work/a /work/b; chown 7:8 /work/a; chmod 4755 /work/a; mkfifo /work/pipe; ln -s a /work/link; \
    echo classified > /work/secret; echo 0123 > /etc/machine-id; mkdir -p /etc/ssh; echo classified > /etc/ssh/ssh_host_rsa_key; \
    mkdir -p /run /tmp; chmod 711 /; echo classified > /run/pid; echo classified > /tmp/part; mkdir /old; touch /old/gone";

/// All files but those that are the kernel's or ours, as a machine sees them.
const LOOK: &str = "cd /; find . -xdev \\( -path ./bin -o -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp -o -path ./etc/ssh \\) \
    -prune -o -exec stat -c '%A %u %g %N' {} + | sort; cat /etc/state; test /work/a -ef /work/b && echo one file";

/// Others can have it, and nothing secret is anywhere in it.
#[track_caller]
fn others_have_it(world: &World) {
    stead(world, &["image", "save", "--layout", "layout", "web:v1"]).ok();
    let look = "cd layout/blobs/sha256; for f in *; do zcat $f 2> /dev/null || cat $f; done | grep -a -c classified || true";
    let line = format!("cd {}; {look}", world.path().display());
    assert_eq!(world.sh_said(Place::Computer, &line).ok(), "0\n");
    stead(world, &["image", "push", "web:v1", "127.0.0.1:5000/lab/web:v1"]).ok();
    let other = world.stead_at(
        "other",
        world.path(),
        &["run", "--rm", "127.0.0.1:5000/lab/web:v1", "cat", "/etc/state"],
    );
    assert_eq!(other.ok(), "two\n");
    world.stead_at("other", world.path(), &["purge", "--yes"]).ok();
}

#[test]
fn a_machine_becomes_an_image_without_what_it_is_known_by() {
    let world = World::offline();
    let _registry = registry(&world);
    stead(&world, &["run", "-d", "--name", "web", "-v", "vol:/vol", BUSYBOX, "sh", "-c", RUN]).ok();
    inside(&world, "web", WRITE);
    inside(&world, "web", "touch /vol/theirs");
    world.stead("stop --time 0 web").ok();
    world.stead("snapshot create web first").ok();
    world.stead("start web").ok();
    // What a later layer takes away is in no layer of the image.
    inside(
        &world,
        "web",
        "rm /work/secret; rm -r /old; mkdir /old; touch /old/new; echo two > /etc/state; echo back > /etc/group",
    );
    world.stead("publish web web:v0 --snapshot nosuch").code(2).says("has no snapshot `nosuch`");
    stead(&world, &["create", "--name", "bare", BUSYBOX]).ok();
    world.stead("publish bare web:v0").code(2).says("wrote nothing");
    world.stead("rm bare").ok();
    world.stead("publish nosuch web:v0").code(2).says("there is no machine `nosuch`");
    let mut made = stead(&world, &["publish", "web", "web:v1", "-m", "it works", "--author", "me"]);
    if role() == Role::User && made.err.contains("cannot be held still") {
        // Without a control group of one's own nothing can be copied that changes meanwhile.
        made.code(1).says("hint: `stead stop` it first");
        world.stead("stop --time 0 web").ok();
        made = stead(&world, &["publish", "web", "web:v1", "-m", "it works", "--author", "me"]);
        world.stead("start web").ok();
    }
    assert!(made.ok().ends_with(" web:v1\n"));
    stead(&world, &["run", "-d", "--name", "copy", "-v", "other:/vol", "web:v1", "sh", "-c", RUN]).ok();
    let same = |text: String| text.replace("/etc/machine-id", "");
    let look = |machine: &str| same(inside(&world, machine, LOOK));
    assert_eq!(look("copy"), look("web"));
    assert_eq!(
        inside(
            &world,
            "copy",
            "cat /etc/state /etc/group /etc/machine-id; ls /etc/ssh /old /run /srv /tmp /vol; ls /work/secret || true"
        ),
        "two\nback\n/etc/ssh:\n\n/old:\nnew\n\n/run:\n\n/srv:\nnew\n\n/tmp:\n\n/vol:\n"
    );
    let history = world.stead("image history web:v1 --format json").json();
    assert_eq!(history[0]["by"], "stead publish web web:v1");
    assert_eq!(history[0]["comment"], "it works", "{history}");
    // Of the snapshot, and with what it had.
    stead(&world, &["publish", "web", "web:v2", "--snapshot", "first"]).ok();
    assert_eq!(
        stead(
            &world,
            &[
                "run",
                "--rm",
                "web:v2",
                "sh",
                "-c",
                "cat /etc/state /work/secret; ls /old; ls /etc/group || true"
            ]
        )
        .ok(),
        "one\nclassified\ngone\n"
    );
    others_have_it(&world);
    world.stead("rm --force web copy").ok();
    // A machine of it is cloned and published in its turn.
    stead(&world, &["run", "--name", "web", "web:v1", "sh", "-c", "echo three > /etc/state; rm -r /work"])
        .ok();
    stead(&world, &["publish", "web", "web:v3"]).ok();
    assert_eq!(
        stead(&world, &["run", "--rm", "web:v3", "sh", "-c", "cat /etc/state; ls /old; ls /work || true"])
            .ok(),
        "three\nnew\n"
    );
    world.stead("rm web").ok();
}

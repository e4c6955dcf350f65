//! Volumes that several projects share.

use std::process::Stdio;

use serde_json::json;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, World};

const SHOP: &str = "
machines:
  web: { image: IMAGE, command: [sleep, '1000'], init: true, volumes: ['pool:/pool', 'own:/own'] }
volumes: { pool: { external: true, name: Shared_Data }, own: {} }
";

const BLOG: &str = "
services:
  web: { image: IMAGE, command: [sleep, '1000'], init: true, volumes: ['shared-data:/pool:ro', 'lent:/lent'] }
volumes: { shared-data: { external: true }, lent: { external: { name: own.shop } } }
";

#[test]
fn two_projects_share_a_volume_that_goes_with_neither() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &SHOP.replace("IMAGE", BUSYBOX));
    let blog = world.project("blog", "");
    std::fs::remove_file(blog.directory.join("stead.yaml")).unwrap();
    std::fs::write(blog.directory.join("compose.yaml"), BLOG.replace("IMAGE", BUSYBOX)).unwrap();
    // One that is not there is made by nobody, and nothing else is.
    for (line, code) in [("plan", 2), ("up", 2), ("up web", 2), ("run --rm web true", 125)] {
        let said = shop.stead(line).code(code).says("stead.yaml:4:").says("there is no volume `shared-data`");
        said.says("hint: `stead volume create shared-data` makes it");
    }
    assert_eq!(world.stead("ps --all --format json").json(), json!([]));
    assert_eq!(world.stead("volume ls -q").ok(), "");
    world.stead("volume create Shared_Data").ok();
    blog.stead("up").code(2).says("there is no volume `own.shop`").says("`stead up` there first");
    let made = shop.stead("up").ok();
    assert!(made.contains("+ volume own.shop") && !made.contains("shared-data"), "{made}");
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    blog.stead("up").ok();
    shop.stead("exec web touch /pool/from-shop /own/from-shop").ok();
    assert_eq!(blog.stead("exec web ls /pool /lent").ok(), "/lent:\nfrom-shop\n\n/pool:\nfrom-shop\n");
    blog.stead("exec web touch /pool/x").code(1);
    blog.stead("exec web touch /lent/from-blog").ok();
    assert_eq!(
        shop.stead("run --rm -v own:/o -v pool:/p web ls /o /p").ok(),
        "/o:\nfrom-blog\nfrom-shop\n\n/p:\nfrom-shop\n"
    );
    let config = shop.stead("config").ok();
    assert!(config.contains("  pool: { external: true, name: \"shared-data\" }\n"), "{config}");
    assert_eq!(shop.stead("config --volumes").ok(), "own\npool\n");
    // Who uses it is seen across projects, and nobody takes it away from them.
    let users = json!(["web.blog", "web.shop"]);
    let seen = world.stead("volume inspect shared-data --format json").json();
    assert_eq!(seen[0]["machines"], users);
    assert_eq!(world.stead("volume ls own.shop --format json").json()[0]["machines"], users);
    assert_eq!(world.stead("volume ls --unused -q").ok(), "");
    let with = world.stead("ps --filter volume=shared-data --format json").json();
    assert_eq!(with.as_array().unwrap().len(), 2, "{with:#}");
    let mounts = world.stead("inspect web.blog --format json").json();
    assert!(mounts.to_string().contains("shared-data.default"), "{mounts:#}");
    world.stead("volume rm shared-data --yes").code(2).says("is used by web.blog,web.shop");
    world.stead("volume prune --yes").ok();
    shop.stead("down --volumes --yes").code(2).says("volume `own.shop` is used by web.blog");
    shop.stead("exec web ls /own").ok();
    // Of several projects those go that can, and that is told.
    world.project("other", "machines: { lone: { kind: container, driver: external } }\n").stead("up").ok();
    let said = world.stead("down shop other --volumes --yes --format json").code(2);
    assert!(said.err.contains("volume `own.shop` is used by web.blog"), "{}", said.err);
    let steps: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let steps: Vec<_> = steps.as_array().unwrap().iter().map(|step| &step["text"]).collect();
    assert!(steps.contains(&&json!("- machine lone.other")), "{steps:?}");
    assert_eq!(world.stead("down shop --volumes --yes --format json").code(2).out, "");
    // A snapshot has nothing of it.
    shop.stead("stop web").ok();
    shop.stead("snapshot create web one").ok();
    // A clone is among what commands make, as that volume is.
    let said = world.stead("clone web.shop copy").says("volume `shared-data` is used by `web.shop` as well");
    said.says("volume `own.shop` stays with its project").ok();
    world.stead("start copy").ok();
    assert_eq!(world.stead("exec copy ls /pool /own").ok(), "/own:\n\n/pool:\nfrom-shop\n");
    world.stead("rm --force copy").ok();
    blog.stead("exec web touch /lent/later").ok();
    shop.stead("snapshot restore web one").ok();
    shop.stead("start web").ok();
    shop.stead("exec web ls /own/later").ok();
    // It outlives both, with what is in it.
    blog.stead("down --volumes --yes").ok();
    shop.stead("down --volumes --yes").ok();
    assert_eq!(world.stead("volume ls -q").ok(), "shared-data.default\n");
    shop.stead("up").ok();
    assert_eq!(shop.stead("exec web ls /pool /own").ok(), "/own:\n\n/pool:\nfrom-shop\n");
    world.stead("purge --yes").ok();
}

#[test]
fn a_volume_that_goes_while_a_machine_is_waited_for_is_told() {
    let world = World::offline();
    let _registry = registry(&world);
    let text = "
machines:
  db: { image: IMAGE, command: [sh, -c, 'while ! test -e /go/on; do sleep 0.1; done'], init: true, volumes: ['./go:/go'] }
  web: { image: IMAGE, command: [sleep, '1000'], init: true, networks: [], volumes: ['pool:/pool'], depends_on: { db: { condition: service_completed_successfully } } }
volumes: { pool: { external: true } }
";
    let shop = world.project("shop", &text.replace("IMAGE", BUSYBOX));
    world.stead("volume create pool").ok();
    let mut up = world.stead_command("home", &shop.directory, &["up"]);
    let up = up.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    world.until("it waits", || {
        let rows = world.stead("ps --all --format json").json();
        let is_waited_for = rows.as_array().unwrap().iter().any(|row| row["status"] == "running");
        (is_waited_for && rows.as_array().unwrap().len() == 2).then_some(())
    });
    // It is to be mounted, so no command takes it away; somebody else may.
    world.stead("volume rm pool --yes").code(2).says("volume `pool.default` is used by web.shop");
    world.sh(Place::Person, "rmdir home/state/volumes/default/pool");
    std::fs::write(shop.directory.join("go/on"), "").unwrap();
    let output = up.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("a volume that it mounts is not there; run this one again"), "{told}");
    for line in ["up", "start web"] {
        shop.stead(line).code(2).says("`stead volume create pool` makes it");
    }
    // One on a disk that is away is seen, and cannot be mounted: nothing is made for a machine that cannot start.
    world.sh(Place::Person, "ln -s /nosuch home/state/volumes/default/pool");
    let namespaces =
        || world.sh(Place::Computer, "ls -l /proc/$(cut -d ' ' -f 1 home/run/anchor.pid)/fd | grep -c net:");
    let before = namespaces();
    shop.stead("up").code(1).says("volume `pool.default` is not there");
    assert_eq!(namespaces(), before);
    world.sh(Place::Person, "rm home/state/volumes/default/pool");
    world.stead("volume create pool").ok();
    shop.stead("up").ok();
    world.stead("purge --yes").ok();
}

//! Networks on which machines of several projects are.

use serde_json::json;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, World};

/// A reverse proxy as people have it: on a network that commands make.
const PROXY: &str = "
services:
  traefik:
    image: IMAGE
    init: true
    command: [httpd, -f, -p, '80', -h, /bin]
    ports: ['8080:80']
    networks: [proxy]
networks:
  proxy:
    external: true
";

const BLOG: &str = "
services:
  web:
    image: IMAGE
    init: true
    command: [sh, -c, 'echo page of blog >/srv/page; exec httpd -f -p 80 -h /srv']
    labels: ['traefik.enable=true']
    networks: [proxy, default]
  db:
    image: IMAGE
    init: true
    command: [sleep, '1000']
networks:
  proxy:
    external: true
";

#[test]
fn a_proxy_reaches_machines_of_other_projects_on_a_network_that_commands_made() {
    let world = World::offline();
    let _registry = registry(&world);
    let proxy = compose(&world, "proxy", PROXY);
    let blog = compose(&world, "blog", BLOG);
    for line in ["plan", "up", "up traefik"] {
        let said = proxy.stead(line).code(2).says("compose.yaml:10:").says("there is no network `proxy`");
        said.says("hint: `stead network create proxy` makes it");
    }
    assert_eq!(world.stead("ps --all --format json").json(), json!([]));
    // Nobody misses what nobody of them is on.
    blog.stead("up db").ok();
    world.stead("network create proxy").ok();
    let made = proxy.stead("up").ok();
    assert!(made.contains("+ nic traefik.proxy/proxy.default") && !made.contains("network"), "{made}");
    blog.stead("up").ok();
    for project in [&proxy, &blog] {
        assert_eq!(project.stead("plan").ok(), "nothing to do\n");
    }
    // By its names, over both families, both ways; and on no network that one of them is not on.
    for name in ["web", "web.blog", "web.blog.stead", "web.default.stead"] {
        assert_eq!(
            proxy.stead(&format!("exec traefik wget -qO- http://{name}/page")).ok(),
            "page of blog\n",
            "{name}"
        );
    }
    let own = world.stead("inspect web.blog --format json").json();
    assert!(own.to_string().contains("proxy.default"), "{own:#}");
    let addresses = addresses(&world, "web.blog");
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in &addresses {
        let at = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        assert_eq!(proxy.stead(&format!("exec traefik wget -qO- http://{at}/page")).ok(), "page of blog\n");
    }
    blog.stead("exec web wget -qO /dev/null http://traefik/busybox").ok();
    proxy.stead("exec traefik nslookup db").code(1);
    world.sh(Place::Person, "curl -s -m 5 -o /dev/null http://127.0.0.1:8080/busybox");
    // Who is on it is seen, and nobody takes it from under them.
    let machines = world.stead("network inspect proxy --format json").json();
    let names: Vec<&str> =
        machines["machines"].as_array().unwrap().iter().map(|one| one["machine"].as_str().unwrap()).collect();
    assert_eq!(names, ["web.blog", "traefik.proxy"]);
    assert_eq!(world.stead("network ls --format json").json()[1]["nics"], json!(2));
    for line in ["network rm proxy", "network rm --force proxy", "down default"] {
        let said =
            world.stead(line).code(2).says("machines of other projects are on network `proxy.default`");
        said.says("`web.blog`").says("`traefik.proxy`").says("`stead rm` these machines first");
    }
    // What somebody else changes there changes nothing for them.
    world.stead("network create other").ok();
    world.stead("network connect proxy box --kind container").ok();
    world.stead("network disconnect proxy box").ok();
    assert_eq!(blog.stead("plan").ok(), "nothing to do\n");
    comes_again(&world, &proxy, &blog);
    has_others_like_it(&world, &blog);
    blog.stead("down").ok();
    proxy.stead("exec traefik nslookup web").code(1);
    assert_eq!(proxy.stead("plan").ok(), "nothing to do\n");
    proxy.stead("down").ok();
    assert_eq!(world.stead("network ls --format json").json()[0]["nics"], json!(0));
    world.stead("network rm proxy").ok();
    world.stead("purge --yes").ok();
}

/// What commands made stands again with whoever is on it.
fn comes_again(world: &World, proxy: &Project<'_>, blog: &Project<'_>) {
    let before = addresses(world, "web.blog");
    world.stead("network rm other").ok();
    world.sh(Place::Computer, "kill -9 $(cut -d ' ' -f 1 home/run/anchor.pid)");
    let shown = blog.stead("plan").ok();
    assert!(
        shown.contains("+ network proxy.default") && shown.contains("+ nic web.blog/proxy.default"),
        "{shown}"
    );
    blog.stead("up").ok();
    proxy.stead("up").ok();
    // Also by `start`, and where that is the only network of one with a port.
    world.sh(Place::Computer, "kill -9 $(cut -d ' ' -f 1 home/run/anchor.pid)");
    proxy.stead("start traefik").ok();
    blog.stead("start web").ok();
    assert_eq!(addresses(world, "web.blog"), before);
    assert_eq!(proxy.stead("exec traefik wget -qO- http://web/page").ok(), "page of blog\n");
}

/// One more like it is on the same networks; a clone is not on those of another's file.
fn has_others_like_it(world: &World, blog: &Project<'_>) {
    assert_eq!(blog.stead("run --rm web wget -qO- http://web/page").ok(), "page of blog\n");
    blog.stead("stop web").ok();
    world.stead("clone web.blog copy").says("it is not on default.blog").ok();
    world.stead("start copy").ok();
    world.stead("exec copy wget -qO /dev/null http://traefik/busybox").ok();
    world.stead("rm --force copy").ok();
    let said = world.stead(&format!("run --network default.blog {BUSYBOX} true")).code(125);
    said.says("`--network default.blog` cannot be honoured: it is another project's");
    world.stead("network connect default.blog copy").code(2).says("is changed in the project's file");
    blog.stead("start web").ok();
}

const SHOP: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64' }, back: {} }
machines:
  web: { image: IMAGE, init: true, command: [sleep, '1000'], networks: { lan: { aliases: [www] } } }
";

const GUEST: &str = "
networks: { front: { external: true, name: lan.shop } }
machines:
  web: { image: IMAGE, init: true, command: [sleep, '1000'], networks: { front: { address: 10.0.5.9, aliases: [www] } } }
  db: { kind: container, driver: external, networks: [front] }
";

/// What others have or would feel is refused, before anything is changed; the rest is not.
fn keeps_it_as_it_is(shop: &Project<'_>, blog: &Project<'_>) {
    shop.write(
        &SHOP.replace("IMAGE", BUSYBOX).replace("lan: { aliases", "lan: { address: 10.0.5.9, aliases"),
    );
    shop.stead("up").code(2).says("machine `web.blog` has `10.0.5.9` on network `lan` already");
    blog.write(&GUEST.replace("IMAGE", BUSYBOX).replace("10.0.5.9", "10.0.5.2"));
    blog.stead("up").code(2).says("machine `web.shop` has `10.0.5.2` on network `lan.shop` already");
    blog.write(&GUEST.replace("IMAGE", BUSYBOX));
    for (from, to) in [
        ("10.0.5.0/24", "10.0.6.0/24"),
        ("subnet: ", "mtu: 1400, subnet: "),
        ("subnet: ", "dhcp: { slaac: true }, subnet: "),
    ] {
        shop.write(&SHOP.replace("IMAGE", BUSYBOX).replace(from, to));
        for line in ["plan", "up"] {
            shop.stead(line)
                .code(2)
                .says("machines of other projects are on network `lan.shop`, as it is")
                .says("`web.blog`");
        }
    }
    shop.write(&SHOP.replace("IMAGE", BUSYBOX).replace("back: {}", "back: { joins: [lan] }"));
    shop.stead("up").ok();
    shop.write(&SHOP.replace("IMAGE", BUSYBOX).replace("subnet: ", "reach: isolated, subnet: "));
    shop.stead("up").ok();
    for line in ["down", "down --volumes --yes", "plan --down"] {
        shop.stead(line).code(2).says("`db.blog`, `web.blog`").says("`stead down` their project");
    }
    shop.stead("exec web ping -c 1 -W 2 10.0.5.9").ok();
}

#[test]
fn two_machines_of_one_name_are_both_there_and_whoever_has_the_network_keeps_it_as_it_is() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &SHOP.replace("IMAGE", BUSYBOX));
    let blog = world.project("blog", &GUEST.replace("IMAGE", BUSYBOX));
    blog.stead("up").code(2).says("there is no network `lan.shop`").says("`stead up` there first");
    shop.stead("up").ok();
    blog.stead("up").ok();
    for project in [&shop, &blog] {
        assert_eq!(project.stead("plan").ok(), "nothing to do\n");
    }
    // Asked by the name alone both answer, the nearer project's in full and by the search list.
    let asked = |project: &Project<'_>, name: &str| {
        let said = project.stead(&format!("exec web nslookup -type=a {name}")).ok();
        let mut found: Vec<String> =
            said.lines().filter_map(|line| line.strip_prefix("Address: ")).map(str::to_owned).collect();
        found.sort();
        found.retain(|address| !address.contains(":53"));
        found
    };
    for project in [&shop, &blog] {
        assert_eq!(asked(project, "web."), ["10.0.5.2", "10.0.5.9"]);
        assert_eq!(asked(project, "www."), ["10.0.5.2", "10.0.5.9"]);
        assert_eq!(asked(project, "web.shop.stead."), ["10.0.5.2"]);
        assert_eq!(asked(project, "web.blog.stead."), ["10.0.5.9"]);
    }
    shop.stead("exec web ping -c 1 -W 2 web.blog.stead").ok();
    blog.stead("exec web ping -c 1 -W 2 web.shop.stead").ok();
    assert!(shop.stead("exec web cat /etc/resolv.conf").ok().contains("search shop.stead"));
    assert!(blog.stead("exec web cat /etc/resolv.conf").ok().contains("search blog.stead"));
    keeps_it_as_it_is(&shop, &blog);
    blog.stead("stop web").ok();
    blog.stead("start web").ok();
    shop.stead("exec web ping -c 1 -W 2 web.blog").ok();
    world.sh(Place::Computer, "kill -9 $(cut -d ' ' -f 1 home/run/anchor.pid)");
    for line in ["up", "start web", "up web"] {
        blog.stead(line).code(2).says("there is no network `lan.shop`");
    }
    world.stead("start web.blog web.shop").ok();
    shop.stead("exec web ping -c 1 -W 2 10.0.5.9").ok();
    blog.stead("up").ok();
    // Of both together those go first that borrow.
    world.stead("down shop blog").ok();
    assert_eq!(world.stead("ps --all --format json").json(), json!([]));
    assert_eq!(world.stead("network ls --format json").json(), json!([]));
}

#[test]
fn two_projects_that_lend_each_other_networks_go_with_a_purge() {
    let world = World::offline();
    let shop = world.project("shop", "");
    let blog = world.project("blog", "");
    // In a circle nobody goes first.
    shop.write("networks: { lan: {}, far: { external: true, name: lan.blog } }\nmachines: { web: { kind: container, driver: external, networks: [lan] } }\n");
    blog.write("networks: { lan: {}, far: { external: true, name: lan.shop } }\nmachines: { web: { kind: container, driver: external, networks: [far] } }\n");
    shop.stead("up").ok();
    blog.stead("up").ok();
    shop.write("networks: { lan: {}, far: { external: true, name: lan.blog } }\nmachines: { web: { kind: container, driver: external, networks: [lan, far] } }\n");
    shop.stead("up").ok();
    world.stead("down shop blog").code(2).says("machines of other projects are on network");
    let said = world.stead("purge --yes");
    assert!(!said.err.contains("on the way"), "{}", said.err);
    said.ok();
}

fn compose<'w>(world: &'w World, name: &str, text: &str) -> Project<'w> {
    let project = world.project(name, "");
    std::fs::remove_file(project.directory.join("stead.yaml")).unwrap();
    std::fs::write(project.directory.join("compose.yaml"), text.replace("IMAGE", BUSYBOX)).unwrap();
    project
}

/// What a machine has on the network of the proxy.
fn addresses(world: &World, machine: &str) -> Vec<String> {
    let seen = world.stead("network inspect proxy.default --format json").json();
    let machines = seen["machines"].as_array().unwrap().iter();
    let own =
        machines.filter(|one| one["machine"] == machine).flat_map(|one| one["addresses"].as_array().unwrap());
    own.map(|address| address.as_str().unwrap().to_owned()).collect()
}

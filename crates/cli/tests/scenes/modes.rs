//! Containers in a network that is not their own: this computer's, or another machine's.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, Said, World, said};

/// What the image has to serve.
const SEED: &str = "from-the-image";

/// Runs `stead` in the project's directory with these words, of which some have spaces.
#[track_caller]
fn say(project: &Project<'_>, words: &[&str]) -> Said {
    said(project.world.stead_command(&project.home, &project.directory, words))
}

/// A line of shell in a machine.
#[track_caller]
fn within(project: &Project<'_>, machine: &str, line: &str) -> Said {
    say(project, &["exec", machine, "sh", "-c", line])
}

/// A line of shell that asks a server for its page.
fn ask(place: &str) -> String {
    let place = place.replace(':', " ");
    format!("printf 'GET /seed HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {place} | tail -n 1")
}

/// What a page of a server says, as soon as it says anything.
#[track_caller]
fn page(project: &Project<'_>, machine: &str, place: &str) -> String {
    let mut last = String::new();
    project.world.until(place, || {
        last = within(project, machine, &ask(place)).out.trim().to_owned();
        (!last.is_empty()).then(|| last.clone())
    })
}

#[track_caller]
fn page_here(world: &World, url: &str) -> String {
    world.until(url, || {
        let said = world.sh_said(Place::Computer, &format!("curl -s -f -m 5 http://{url}/seed"));
        (said.code == 0).then(|| said.out.trim().to_owned())
    })
}

#[track_caller]
fn row(project: &Project<'_>, machine: &str) -> serde_json::Value {
    project.stead(&format!("ps {machine} --format json")).json()[0].clone()
}

#[track_caller]
fn pid(project: &Project<'_>, machine: &str) -> u64 {
    row(project, machine)["pid"].as_u64().unwrap_or_else(|| panic!("{machine} does not run"))
}

#[track_caller]
fn kill(world: &World, pattern: &str) {
    let pids = world.sh(Place::Computer, &format!("pgrep -P 1 -f '^[^ ]*stead {pattern}'"));
    for pid in pids.lines() {
        world.sh(Place::Computer, &format!("kill -9 {pid}"));
        world.until("it is gone", || {
            let state = world.sh_said(Place::Computer, &format!("ps -o stat= -p {pid}")).out;
            (state.is_empty() || state.starts_with(['Z', 'X'])).then_some(())
        });
    }
}

const HOST: &str = "
name: shop
machines:
  web:
    image: IMAGE
    command: [httpd, -f, -p, '18080', -h, /data]
    init: true
    network_mode: host
    extra_hosts: ['far:192.0.2.9']
    healthcheck: { test: 'nc -w 1 127.0.0.1 18080 < /dev/null', interval: 1s, start_interval: 200ms, start_period: 9s }
  lan: { image: IMAGE, command: sleep 1000, init: true, depends_on: { web: { condition: service_healthy } } }
";

#[test]
fn a_container_in_this_computers_network_serves_there_and_changes_nothing() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", &HOST.replace("IMAGE", BUSYBOX));
    let settings = "cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range ip_forward; ip -o addr; ip route";
    let before = world.sh(Place::Computer, settings);
    let plan = shop.plan();
    assert!(!plan.contains("web/") && plan.contains("+ container web.shop"), "{plan}");
    shop.stead("up").ok();
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    assert_eq!(page_here(&world, "127.0.0.1:18080"), SEED);
    // What others serve on the computer is seen in there, and that is the computer's only network.
    let www = world.path().join("www");
    std::fs::create_dir_all(&www).unwrap();
    std::fs::write(www.join("seed"), "from this computer\n").unwrap();
    let www = www.display().to_string();
    let server =
        world.spawn(Place::Computer, &["busybox", "httpd", "-f", "-p", "127.0.0.1:18081", "-h", &www]);
    assert_eq!(page(&shop, "web", "127.0.0.1:18081"), "from this computer");
    let links = "cut -d: -f1 /proc/net/dev | tail -n +3 | sort";
    assert_eq!(within(&shop, "web", links).ok(), world.sh(Place::Computer, links));
    assert_eq!(within(&shop, "lan", &ask("127.0.0.1:18081")).out, "");
    drop(server);
    // It is called and finds others as the computer does.
    for line in ["hostname", "cat /etc/resolv.conf"] {
        assert_eq!(within(&shop, "web", line).ok(), world.sh(Place::Person, line), "{line}");
    }
    let hosts = world.sh(Place::Person, "cat /etc/hosts");
    assert_eq!(within(&shop, "web", "cat /etc/hosts").ok(), format!("{hosts}192.0.2.9\tfar\n"));
    for line in [
        "ip link set lo down",
        "ip route add 198.51.100.0/24 dev lo",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    ] {
        assert_ne!(within(&shop, "web", line).code, 0, "{line}");
    }
    shows(&shop);
    // Whoever ends it, it is there again with the next command.
    let first = pid(&shop, "web");
    shop.stead("restart web").ok();
    assert_ne!(pid(&shop, "web"), first);
    for killed in ["__keeper .* web[.]shop", "__anchor"] {
        kill(&world, killed);
        shop.stead("up").ok();
        assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
        assert_eq!(page_here(&world, "127.0.0.1:18080"), SEED);
    }
    let other = "echo once; cat /etc/resolv.conf";
    let once = say(&shop, &["run", "--rm", "web", "sh", "-c", other]).ok();
    assert_eq!(once, format!("once\n{}", world.sh(Place::Person, "cat /etc/resolv.conf")));
    shop.stead("down").ok();
    let run = |words: &[&str]| say(&shop, &[&["run", "--rm", "--network", "host"], words].concat());
    assert_eq!(run(&[BUSYBOX, "hostname"]).ok(), world.sh(Place::Person, "hostname"));
    assert_eq!(run(&["-h", "mine", BUSYBOX, "sh", "-c", "hostname; echo $HOSTNAME"]).ok(), "mine\nmine\n");
    run(&["--sysctl", "net.ipv4.ip_forward=1", BUSYBOX, "true"]).code(125).says("`--sysctl`");
    assert_eq!(world.sh(Place::Computer, settings), before, "nothing of the computer's network was changed");
}

/// It is seen where it is, and all that needs an address of its own says why there is none.
#[track_caller]
fn shows(shop: &Project<'_>) {
    let seen = row(shop, "web");
    assert_eq!((seen["network_mode"].as_str(), seen["nics"].as_array().unwrap().len()), (Some("host"), 0));
    assert_eq!(seen["health"], "healthy");
    assert!(row(shop, "lan").get("network_mode").is_none());
    assert!(shop.stead("ps web").ok().contains("  host "));
    let seen = shop.stead("inspect web").ok();
    assert!(seen.lines().any(|line| line.split_whitespace().eq(["network", "host"])), "{seen}");
    assert!(shop.stead("config").ok().contains("network_mode: host\n"));
    shop.stead("forward web 0:80").code(2).says("is in this computer's network");
    shop.stead("network enter -m web -- true").code(125).says("is in this computer's network");
    let stats = shop.stead("stats --no-stream web --format json").json();
    assert_eq!(stats.as_array().unwrap().len(), 1);
    shop.stead("cp web:/data/seed seed").ok();
    assert!(std::fs::read_to_string(shop.directory.join("seed")).unwrap().contains(SEED));
    shop.stead("logs web").ok();
}

const VPN: &str = "
name: shop
networks: { lan: { subnet: 10.0.5.0/24, subnet6: off, reach: isolated }, two: { subnet: 10.0.6.0/24, subnet6: off, reach: isolated } }
machines:
  vpn:
    image: IMAGE
    command: [httpd, -f, -p, '80', -h, /data]
    init: true
    hostname: gate
    extra_hosts: ['far:192.0.2.9']
    environment: { VERSION: '1' }
    networks: [lan]
    ports: ['8080:90']
  app: { image: IMAGE, command: [httpd, -f, -p, '90', -h, /data], init: true, network_mode: 'machine:vpn' }
  client: { image: IMAGE, command: sleep 1000, init: true, networks: [lan] }
";

/// Both find each other on `localhost`, and others find both by the other's name and port.
#[track_caller]
fn is_shared(shop: &Project<'_>) {
    assert_eq!(page(shop, "app", "127.0.0.1:80"), SEED);
    assert_eq!(page(shop, "vpn", "127.0.0.1:90"), SEED);
    assert_eq!(page(shop, "client", "vpn:90"), SEED);
    assert_eq!(page_here(shop.world, "127.0.0.1:8080"), SEED);
    for line in ["hostname", "cat /etc/hosts", "cat /etc/resolv.conf", "ip -o -4 addr", "ip route"] {
        assert_eq!(within(shop, "app", line).ok(), within(shop, "vpn", line).ok(), "{line}");
    }
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
}

#[test]
fn a_container_in_the_network_of_another_goes_with_that_network() {
    let world = World::offline();
    let _registry = registry(&world);
    let text = VPN.replace("IMAGE", BUSYBOX);
    let shop = world.project("shop", &text);
    assert!(shop.stead("up app").ok().contains("> start vpn.shop"));
    shop.stead("up").ok();
    is_shared(&shop);
    assert_eq!(
        within(&shop, "app", "hostname; echo $HOSTNAME; grep -c far /etc/hosts").ok(),
        "gate\ngate\n1\n"
    );
    assert_eq!(row(&shop, "app")["network_mode"], "machine:vpn");
    assert!(shop.stead("ps app").ok().contains(" machine:vpn "));
    let forwarded = shop.on("app", "ip -o -4 addr show dev eth0").ok();
    assert!(forwarded.contains("10.0.5."), "{forwarded}");
    // The other starts again in the same network, whoever ends it.
    let first = pid(&shop, "app");
    shop.stead("restart vpn").ok();
    is_shared(&shop);
    shop.stead("stop vpn").ok();
    shop.stead("start vpn").ok();
    is_shared(&shop);
    kill(&world, "__keeper .* vpn[.]shop");
    shop.stead("up").ok();
    is_shared(&shop);
    shop.write(&text.replace("networks: [lan]\n    ports", "networks: [lan, two]\n    ports"));
    shop.stead("up").ok();
    is_shared(&shop);
    assert!(within(&shop, "app", "cat /etc/hosts").ok().contains("10.0.6."));
    assert_eq!(pid(&shop, "app"), first, "it went on all along");
    // A new one has another, also where only that one is named.
    for (version, line) in [("2", "up"), ("3", "up vpn")] {
        let before = pid(&shop, "app");
        shop.write(&text.replace("VERSION: '1'", &format!("VERSION: '{version}'")));
        let done = shop.stead(line).ok();
        let step = |text: &str| done.find(text).unwrap_or_else(|| panic!("no `{text}` in\n{done}"));
        assert!(step("> stop app.shop") < step("> stop vpn.shop"), "{done}");
        assert!(step("> start vpn.shop") < step("> start app.shop"), "{done}");
        is_shared(&shop);
        assert_ne!(pid(&shop, "app"), before);
    }
    kill(&world, "__anchor");
    shop.stead("up").ok();
    is_shared(&shop);
    one_of_them_alone(&shop);
    let down = shop.stead("down").ok();
    assert!(down.find("> stop app.shop").unwrap() < down.find("> stop vpn.shop").unwrap(), "{down}");
}

#[track_caller]
fn one_of_them_alone(shop: &Project<'_>) {
    let once = say(shop, &["run", "--rm", "app", "sh", "-c", &ask("127.0.0.1:90")]);
    assert_eq!(once.ok().trim(), SEED);
    say(shop, &["run", "--rm", "-h", "other", "app", "true"]).code(125).says("`--hostname`");
    say(shop, &["run", "--rm", "-p", "81:81", "app", "true"]).code(125).says("`--publish`");
    shop.stead("rm --force vpn").code(2).says("`app.shop` is in the network of `vpn.shop`");
    // By itself it would reach out by another way than that of the other.
    shop.stead("stop app vpn").ok();
    shop.stead("start app").code(2).says("machine `vpn`, in whose network it is, does not run");
    shop.stead("start app vpn").ok();
    is_shared(shop);
    shop.stead("rm --force app vpn").ok();
    shop.stead("up --no-deps app").code(2).says("machine `vpn`, in whose network it is, is not there");
    say(shop, &["run", "--rm", "--no-deps", "app", "true"]).code(125).says("machine `vpn`, in whose");
    shop.stead("up").ok();
}

#[test]
fn what_commands_make_is_in_the_network_of_what_they_made() {
    let world = World::offline();
    let _registry = registry(&world);
    let run = |options: &str, line: &str| world.stead(&format!("run {options} {BUSYBOX} {line}"));
    run("-d --init --name one", "httpd -f -p 80 -h /data").ok();
    let project = world.project("none", "");
    for network in ["container:one", "machine:one", "container:One.default"] {
        let words = ["run", "--rm", "--network", network, BUSYBOX, "sh", "-c", &ask("127.0.0.1:80")];
        assert_eq!(say(&project, &words).ok().trim(), SEED, "{network}");
    }
    run("-d --init --name two --network container:one", "sleep 1000").ok();
    run("-d --init --name three --network container:two", "sleep 1000").ok();
    assert_eq!(row(&project, "three.default")["network_mode"], "machine:one");
    world.stead("rename one other").code(2).says("is in the network of `one.default`");
    world.stead("network create lan --subnet 10.1.2.0/24 --reach isolated").ok();
    world.stead("network connect lan two").code(2).says("in a network that is not its own (`machine:one`)");
    world.stead("network connect lan one").ok();
    assert!(world.stead("exec two ip -o -4 addr").ok().contains("10.1.2."));
    assert_eq!(world.stead("exec two cat /etc/hosts").ok(), world.stead("exec one cat /etc/hosts").ok());
    world.stead("rm --force one").code(2).says("`three.default` is in the network of `one.default`");
    // Nobody depends on one by whose network it was told the other's.
    world.stead("rename two second").ok();
    world.stead("rm --force second").ok();
    run("--rm --network none", "true").ok();
    // One that goes when it ends does so all the same, and whoever was in its network ends with that.
    run("-d --rm --init --name brief", "sleep 1000").ok();
    run("-d --init --name left --network container:brief", "sleep 1000").ok();
    world.stead("stop brief").ok();
    world.until("it is gone", || {
        let rows = world.stead("ps --all --format json").json();
        let names: Vec<&str> =
            rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
        (!names.contains(&"brief")).then_some(())
    });
    world.until("it has ended", || (row(&project, "left.default")["status"] != "running").then_some(()));
    assert!(
        !world
            .stead("run --rm --network none IMAGE true".replace("IMAGE", BUSYBOX).as_str())
            .err
            .contains("brief")
    );
    world.stead("start left").code(2).says("machine `brief`, in whose network it is, is not there");
    world.stead("rm --force one three left").ok();
}

const COMPOSE: &str = "
services:
  VPN:
    image: IMAGE
    container_name: the_vpn
    command: httpd -f -p 80 -h /data
    init: true
    ports: ['18090:90']
  app:
    image: IMAGE
    command: httpd -f -p 90 -h /data
    init: true
    network_mode: service:VPN
    depends_on: [VPN]
  too: { image: IMAGE, command: sleep 1000, init: true, network_mode: 'container:the_vpn' }
  mon: { image: IMAGE, command: httpd -f -p 18091 -h /data, init: true, network_mode: host, ports: ['18091:18091'] }
";

#[test]
fn modes_of_a_compose_file_are_taken_as_they_are() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", "");
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    std::fs::write(shop.directory.join("compose.yaml"), COMPOSE.replace("IMAGE", BUSYBOX)).unwrap();
    shop.stead("up").ok();
    assert_eq!(page_here(&world, "127.0.0.1:18090"), SEED);
    assert_eq!(page_here(&world, "127.0.0.1:18091"), SEED);
    assert_eq!(page(&shop, "too", "127.0.0.1:90"), SEED);
    shop.stead("plan").says("`ports` changes nothing beside `network_mode: host`").ok();
    shop.stead("down").ok();
}

#[test]
fn a_container_is_in_the_network_of_what_somebody_else_runs() {
    let world = World::offline();
    let _registry = registry(&world);
    let text = "
name: shop
machines:
  ext: { kind: container, driver: external }
  in: { image: IMAGE, command: sleep 1000, init: true, network_mode: 'machine:ext' }
";
    let shop = world.project("shop", &text.replace("IMAGE", BUSYBOX));
    shop.stead("up").ok();
    let www = world.path().join("www");
    std::fs::create_dir_all(&www).unwrap();
    std::fs::write(www.join("seed"), "from elsewhere\n").unwrap();
    let www = www.display().to_string();
    let server = shop.spawn_on("ext", &["busybox", "httpd", "-f", "-p", "80", "-h", &www]);
    assert_eq!(page(&shop, "in", "127.0.0.1:80"), "from elsewhere");
    drop(server);
    shop.stead("down").ok();
}

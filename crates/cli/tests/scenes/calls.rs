//! Machines that reach this computer because they ask for it by `host-gateway`, and those that do not ask.

use crate::microvms::{get_kernel, slowly};
use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, World};

const COMPOSE: &str = "
services:
  web:
    image: IMAGE
    command: sleep 1000
    init: true
    extra_hosts: ['host.docker.internal:host-gateway']
  cell:
    image: IMAGE
    command: sleep 1000
    init: true
    networks: [cell]
    extra_hosts: { here: host-gateway, six: 'fd00:77::1' }
  other: { image: IMAGE, command: sleep 1000, init: true }
networks:
  default: { enable_ipv6: true }
  cell: { internal: true }
";

/// What a program in a container says.
fn says(project: &Project<'_>, machine: &str, line: &str) -> String {
    let words = ["exec", machine, "sh", "-c", line];
    project.world.stead_at(&project.home, &project.directory, &words).out
}

/// What a machine of the project is answered by this computer; nothing where it is not.
fn asks(project: &Project<'_>, machine: &str, at: &str) -> String {
    let page = says(project, machine, &format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {at}"));
    page.rsplit("\r\n").next().unwrap().to_owned()
}

#[test]
fn machines_that_ask_for_it_reach_what_this_computer_serves_to_others() {
    let world = World::online();
    let _registry = registry(&world);
    let www = world.path().join("www").display().to_string();
    let serve = |at: &str| world.spawn(Place::Computer, &["busybox", "httpd", "-f", "-p", at, "-h", &www]);
    let _services = [serve("[::]:8000"), serve("127.0.0.1:8001"), serve("192.0.2.2:8002")];
    for at in ["127.0.0.1:8000", "127.0.0.1:8001", "192.0.2.2:8002"] {
        world.until("the computer serves", || {
            (world.sh_said(Place::Computer, &format!("curl -s -m 2 http://{at}/")).code == 0).then_some(())
        });
    }
    let shop = world.project("shop", "");
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    let compose = shop.directory.join("compose.yaml");
    std::fs::write(&compose, COMPOSE.replace("IMAGE", BUSYBOX)).unwrap();
    shop.stead("up").ok();
    let page = "hello from here\n";
    assert_eq!(asks(&shop, "web", "host.docker.internal 8000"), page);
    assert_eq!(asks(&shop, "web", "host.docker.internal 8002"), page);
    assert_eq!(asks(&shop, "cell", "here 8000"), page);
    assert_eq!(asks(&shop, "cell", "here 8001"), "", "what listens on the loopback alone is nobody's");
    // Who asks is this computer, to the program that is asked, and not by its loopback.
    let line = "printf 'GET /cgi-bin/who HTTP/1.0\\r\\n\\r\\n' | nc -w 3 host.docker.internal 8000";
    let who = says(&shop, "web", line);
    assert!(who.trim().ends_with("[::ffff:192.0.2.2]"), "{who}");
    // By the gateway's other address it is the same, and for those who did not ask there is nothing.
    let gateway = |family: &str| {
        let line = format!("ip -{family} route show default | cut -d' ' -f3");
        says(&shop, "web", &line).lines().next().unwrap().to_owned()
    };
    let (v4, v6) = (gateway("4"), gateway("6"));
    assert_eq!(asks(&shop, "web", &format!("{v4} 8000")), page);
    assert_eq!(asks(&shop, "web", &format!("{v6} 8000")), page);
    assert_eq!(asks(&shop, "other", &format!("{v4} 8000")), "");
    assert_eq!(asks(&shop, "other", &format!("{v6} 8000")), "");
    assert_eq!(asks(&shop, "other", &format!("{v4} 20530")), "");
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    // Its names are still answered at that address.
    shop.stead("exec web nslookup other").ok();
    // One that asks no longer does not reach it any more, and one that asks from now on does.
    let text = std::fs::read_to_string(&compose).unwrap();
    let text = text.replace("    extra_hosts: ['host.docker.internal:host-gateway']\n", "");
    let text = text.replace("other: {", "other: { extra_hosts: [here=host-gateway],");
    std::fs::write(&compose, text).unwrap();
    shop.stead("up").ok();
    assert_eq!(asks(&shop, "web", &format!("{v4} 8000")), "");
    assert_eq!(asks(&shop, "other", "here 8000"), page);
    let line = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 me 8000";
    get_kernel(&world);
    for kind in ["container", "microvm"] {
        let words =
            ["run", "--rm", "--kind", kind, "--add-host", "me:host-gateway", BUSYBOX, "sh", "-c", line];
        let said = slowly(&world, world.path(), &words).ok();
        assert!(said.trim_end().ends_with(page.trim_end()), "{kind}: {said}");
    }
    world
        .stead(&format!("run --rm --network none --add-host me:host-gateway {BUSYBOX} true"))
        .code(125)
        .says("`host-gateway` is our address on a network of the machine's, and we have none there");
    shop.stead("down --yes").ok();
}

#[test]
fn a_gateway_that_becomes_another_is_known_though_the_machines_address_stays() {
    let world = World::offline();
    let _registry = registry(&world);
    let file = |subnet: &str| {
        format!(
            "networks: {{ lan: {{ subnet: {subnet}, subnet6: off }} }}\n\
             machines:\n  web: {{ image: {BUSYBOX}, command: sleep 1000, init: true, networks: [lan], extra_hosts: [me=host-gateway] }}\n"
        )
    };
    let lab = world.project("lab", &file("10.9.1.0/24"));
    lab.stead("up").ok();
    assert!(says(&lab, "web", "cat /etc/hosts").ends_with("\n10.9.1.2\tweb\n10.9.1.1\tme\n"));
    let started = lab.stead("inspect web --format json").json()[0]["started_ms"].clone();
    lab.change(&file("10.9.0.0/16"));
    assert!(says(&lab, "web", "cat /etc/hosts").ends_with("\n10.9.1.2\tweb\n10.9.0.1\tme\n"));
    assert_eq!(lab.stead("inspect web --format json").json()[0]["started_ms"], started);
    lab.stead("down --yes").ok();
}

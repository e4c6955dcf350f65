//! Names: of machines, by every machine that is to find them; of the world, by way of the computer's resolver.

use std::io::{BufRead, Write};

use expect_test::expect;

use crate::support::{Place, World};

const SHOP: &str = "
networks:
  lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', addressing: static, joins: [back] }
  back: { subnet: 10.0.8.0/24, subnet6: 'fd00:8::/64', addressing: static, reach: isolated }
  far: { subnet: 10.0.9.0/24, subnet6: 'fd00:9::/64', addressing: static, reach: isolated }
defaults: { kind: container, driver: external }
machines:
  web: { networks: { lan: { aliases: [www, shop-front, xmpp.meet.example] } } }
  db: { networks: [back] }
  vault: { networks: [far] }
";

#[test]
fn machines_find_each_other_by_every_name_and_nobody_elses() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    let ask = |machine: &str, question: &str, server: &str| {
        let said =
            shop.on(machine, &format!("dig +noall +answer +comments +tries=2 +time=2 {question} @{server}"));
        let out = said.ok();
        let status = out.split("status: ").nth(1).unwrap_or("").split(',').next().unwrap_or("").to_owned();
        let answers = out.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty());
        let answers: Vec<&str> = answers.filter_map(|line| line.split_whitespace().nth(4)).collect();
        format!("{question}: {status} {}\n", answers.join(" "))
    };
    let questions = [
        "web A",
        "web AAAA",
        "web.shop A",
        "web.shop.stead A",
        "WEB.Shop.Stead AAAA",
        "www A",
        "shop-front.shop AAAA",
        "XMPP.meet.example A",
        "xmpp.meet.example AAAA",
        "xmpp.meet.example.shop.stead A",
        "-x 10.0.5.2",
        "-x fd00:5::2",
        "gateway A",
        "nobody A",
        "nobody.shop.stead A",
        "web TXT",
        "+tcp web.shop A",
        "db A",
        "db.shop.stead AAAA",
        "-x 10.0.8.2",
        "vault A",
        "vault.shop.stead A",
        "-x 10.0.9.2",
    ];
    let answers: String = questions.iter().map(|question| ask("web", question, "10.0.5.1")).collect();
    expect![[r#"
        web A: NOERROR 10.0.5.2
        web AAAA: NOERROR fd00:5::2
        web.shop A: NOERROR 10.0.5.2
        web.shop.stead A: NOERROR 10.0.5.2
        WEB.Shop.Stead AAAA: NOERROR fd00:5::2
        www A: NOERROR 10.0.5.2
        shop-front.shop AAAA: NOERROR fd00:5::2
        XMPP.meet.example A: NOERROR 10.0.5.2
        xmpp.meet.example AAAA: NOERROR fd00:5::2
        xmpp.meet.example.shop.stead A: NOERROR 10.0.5.2
        -x 10.0.5.2: NOERROR web.shop.stead.
        -x fd00:5::2: NOERROR web.shop.stead.
        gateway A: NOERROR 10.0.5.1
        nobody A: NXDOMAIN 
        nobody.shop.stead A: NXDOMAIN 
        web TXT: NOERROR 
        +tcp web.shop A: NOERROR 10.0.5.2
        db A: NOERROR 10.0.8.2
        db.shop.stead AAAA: NOERROR fd00:8::2
        -x 10.0.8.2: NOERROR db.shop.stead.
        vault A: NXDOMAIN 
        vault.shop.stead A: NXDOMAIN 
        -x 10.0.9.2: NXDOMAIN 
    "#]]
    .assert_eq(&answers);
    // By IPv6 as well, and from the other network.
    expect![[r#"
        web A: NOERROR 10.0.5.2
    "#]]
    .assert_eq(&ask("db", "web A", "10.0.8.1"));
    shop.until_on("db", "dig +short +tries=1 +time=1 web AAAA @fd00:8::1 | grep -q fd00:5::2");
}

const BOTH: &str = "
networks:
  front: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', addressing: static }
  back: { subnet: 10.0.8.0/24, subnet6: 'fd00:8::/64', addressing: static, reach: isolated }
defaults: { kind: container, driver: external }
machines:
  web: { networks: [front, back] }
  db: { networks: [back] }
  page: { networks: [front] }
";

#[test]
fn a_machine_on_several_networks_finds_those_of_all_of_them() {
    let world = World::online();
    let shop = world.project("shop", BOTH);
    shop.stead("up").ok();
    let ask = |machine: &str, question: &str, server: &str| {
        shop.on(machine, &format!("dig +short +tries=3 +time=5 {question} @{server}")).ok().trim().to_owned()
    };
    // Whichever of its networks it asks, and by TCP as well.
    assert_eq!(ask("web", "db", "10.0.5.1"), "10.0.8.2");
    assert_eq!(ask("web", "+tcp db AAAA", "fd00:5::1"), "fd00:8::2");
    assert_eq!(ask("web", "-x 10.0.8.2", "10.0.5.1"), "db.shop.stead.");
    assert_eq!(ask("web", "page.shop", "10.0.8.1"), "10.0.5.2");
    // The isolated one resolves the world for whom another network leads there.
    assert_eq!(ask("web", "web.outside.test", "10.0.8.1"), "203.0.113.1");
    assert_eq!(ask("db", "web.outside.test", "10.0.8.1"), "");
    // Those on one network find its machines alone, and one on both by its address there.
    assert_eq!(ask("page", "db", "10.0.5.1"), "");
    assert_eq!(ask("db", "page", "10.0.8.1"), "");
    assert_eq!(ask("page", "web", "10.0.5.1"), "10.0.5.3");
    assert_eq!(ask("db", "web", "10.0.8.1"), "10.0.8.3");
    // A program in the machine needs no server named: its resolver's answer is whole.
    shop.on("web", "getent hosts db && getent hosts page").ok();
    // The nic goes, and with it what is behind.
    shop.change(&BOTH.replace("[front, back]", "[front]"));
    assert_eq!(ask("web", "db", "10.0.5.1"), "");
}

#[test]
fn what_is_joined_talks_and_what_is_not_does_not() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    shop.on("web", "ping -c 1 -W 5 10.0.8.2").ok();
    shop.on("db", "ping -c 1 -W 5 10.0.5.2").ok();
    shop.until_on("web", "ping -6 -c 1 -W 1 fd00:8::2");
    for (from, to) in [("web", "10.0.9.2"), ("web", "fd00:9::2"), ("vault", "10.0.5.2"), ("db", "10.0.9.2")] {
        let said = shop.on(from, &format!("ping -c 2 -i 0.2 -W 1 {to}"));
        assert_ne!(said.code, 0, "{from} reaches {to}: {}", said.out);
    }
    // Nor another network's gateway.
    assert_ne!(shop.on("vault", "ping -c 1 -W 1 10.0.5.1").code, 0);
    assert_ne!(shop.on("vault", "dig +tries=1 +time=1 web @10.0.5.1").code, 0);
}

#[test]
fn a_service_may_be_called_gateway() {
    let world = World::offline();
    let ours = "
        networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'off', addressing: static } }
        defaults: { kind: container, driver: external }
        machines: { web: { networks: [lan] }, gateway: { networks: [lan] } }";
    let shop = world.project("shop", ours);
    let ask = |name: &str| shop.on("web", &format!("dig +short +tries=2 +time=2 {name} @10.0.5.1")).ok();
    shop.stead("up").ok();
    let address = shop.address("gateway", 0).0;
    for name in ["gateway", "gateway.shop", "gateway.shop.stead"] {
        assert_eq!(ask(name).trim(), address);
    }
    assert_eq!(ask(&format!("-x {address}")).trim(), "gateway.shop.stead.");
    assert_eq!(ask("-x 10.0.5.1"), "");
    // Without it the name is the network's own again.
    shop.write(&ours.replace(", gateway: { networks: [lan] }", ""));
    shop.stead("up").ok();
    shop.until_on("web", "dig +short +tries=1 +time=1 gateway @10.0.5.1 | grep -qx 10.0.5.1");
    shop.stead("down").ok();
    // In Compose's form as well.
    std::fs::remove_file(shop.directory.join("stead.yaml")).unwrap();
    let compose =
        "services: { gateway: { image: 'lab/gateway:1' }, web: { image: 'lab/web:1', links: [gateway] } }\n";
    std::fs::write(shop.directory.join("compose.yaml"), compose).unwrap();
    assert_eq!(shop.stead("config --machines").ok(), "gateway\nweb\n");
}

#[test]
fn two_projects_with_the_same_names_do_not_meet() {
    let world = World::offline();
    let text = "
        networks: { lan: {} }
        defaults: { kind: container, driver: external }
        machines: { web: { networks: [lan] }, db: { networks: [lan] } }";
    let (one, two) = (world.project("one", text), world.project("two", text));
    one.stead("up").ok();
    two.stead("up").ok();
    let (first, second) = (one.address("web", 0), two.address("web", 0));
    assert_ne!(first.0, second.0);
    assert_ne!(first.1, second.1);
    for (project, own) in [(&one, &first), (&two, &second)] {
        project.udhcpc("db", "eth0");
        project.udhcpc("web", "eth0");
        let server = project.on("db", "ip route show default | cut -d ' ' -f 3").ok();
        let server = server.trim();
        assert_eq!(project.on("db", &format!("dig +short web @{server}")).ok().trim(), own.0);
        project.on("db", &format!("ping -c 1 -W 5 {}", own.0)).ok();
    }
    assert_ne!(one.on("db", &format!("ping -c 2 -i 0.2 -W 1 {}", second.0)).code, 0);
    let rows = world.stead("ps --all").ok();
    for name in ["db.one", "db.two", "web.one", "web.two"] {
        assert!(rows.contains(name), "{rows}");
    }
    // One goes, the other stays.
    one.stead("down").ok();
    two.on("db", &format!("ping -c 1 -W 5 {}", second.0)).ok();
    assert_eq!(one.stead("plan --down").ok(), "nothing to do\n");
    // Several are meant by a pattern, and one that means none changes nothing.
    one.stead("up").ok();
    let listed = |patterns: &str| {
        let rows = world.stead(&format!("ls {patterns} --format json")).json();
        rows.as_array().unwrap().iter().map(|row| row["name"].to_string()).collect::<String>()
    };
    assert_eq!(listed("t* ONE"), "\"one\"\"two\"");
    assert_eq!(listed("*w*"), "\"two\"");
    world.stead("down t* x*").code(2).says("there is no project `x*`");
    assert_eq!(listed(""), "\"one\"\"two\"");
    let down = world.stead("down t* one").ok();
    assert!(down.contains("- machine web.two") && down.contains("- machine web.one"), "{down}");
    // One of which nothing is on record any more is listed by what is left of it, so that it can be taken away.
    one.stead("up").ok();
    world.sh(Place::Person, "rm home/state/state.db*");
    assert_eq!((listed(""), listed("one")), ("\"one\"".to_owned(), "\"one\"".to_owned()));
    assert!(world.stead("down one").ok().contains("- network lan.one"));
    assert_eq!(world.stead("ls --format json").json(), serde_json::json!([]));
}

#[test]
fn names_addresses_and_ports_come_back_by_themselves_when_the_switchboard_was_killed() {
    let world = World::offline();
    let text = "
        networks: { lan: { subnet: 10.0.5.0/24 } }
        defaults: { kind: container, driver: external }
        machines: { web: { networks: [lan], ports: ['8080:80'] }, db: { networks: [lan] } }";
    let shop = world.project("shop", text);
    shop.stead("up").ok();
    shop.udhcpc("db", "eth0");
    shop.udhcpc("web", "eth0");
    let www = world.path().join("www").display().to_string();
    let _server = shop.spawn_on("web", &["busybox", "httpd", "-f", "-p", "80", "-h", &www]);
    // It waits in the machine until the switchboard is dead: nobody runs stead from then on.
    let line = "read go; until dig +short +time=1 +tries=1 web @10.0.5.1 | grep '^10'; do sleep 0.1; done
        busybox udhcpc -i eth0 -f -q -n -t 8 -T 1 -s /bin/true 2>/dev/null && echo leased";
    let mut asking = shop.spawn_on("db", &["sh", "-c", line]);
    let record = world.path().join("home/run/switchboard.pid");
    let read = || std::fs::read_to_string(&record).unwrap_or_default();
    let before = read();
    let pid = before.split(' ').next().unwrap();
    world.sh(Place::Computer, &format!("kill -9 {pid}"));
    world.until("it is dead", || {
        (world.sh_said(Place::Computer, &format!("test -d /proc/{pid}")).code != 0).then_some(())
    });
    let start = std::time::Instant::now();
    writeln!(asking.stdin(), "go").unwrap();
    let mut heard = asking.stdout();
    for expected in ["10.0.5.3\n", "leased\n"] {
        let mut line = String::new();
        heard.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }
    assert!(start.elapsed().as_secs() < 10, "only after {:?}", start.elapsed());
    world.until("the port is open", || {
        let said = world.sh_said(Place::Computer, "curl -s -m 2 http://127.0.0.1:8080/");
        (said.out == "hello from here\n").then_some(())
    });
    assert_ne!(read(), before);
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
}

#[test]
fn a_switchboard_that_does_not_answer_is_waited_for_with_a_word() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    let signal = |name: &str| {
        let pid = world.path().join("home/run/switchboard.pid");
        world.sh(Place::Computer, &format!("kill -{name} $(cut -d ' ' -f 1 {})", pid.display()));
    };
    signal("STOP");
    let said = shop.stead("network ls");
    signal("CONT");
    assert_eq!(said.code, 0, "{}", said.err);
    said.says("working on looking at what there is");
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
}

#[test]
fn other_names_are_asked_of_the_computers_resolver() {
    let world = World::online();
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    let ask =
        |question: &str| shop.on("web", &format!("dig +short +tries=3 +time=5 {question} @10.0.5.1")).ok();
    assert_eq!(ask("web.outside.test A").trim(), "203.0.113.1");
    assert_eq!(ask("web.outside.test AAAA").trim(), "2001:db8:9::1");
    assert_eq!(ask("+tcp web.outside.test A").trim(), "203.0.113.1");
    assert!(ask("big.outside.test TXT").contains("0123456789"));
    assert_eq!(ask("nobody.outside.test A"), "");
    // An isolated network has names of its own, and no way out by DNS either.
    let said = shop.on("vault", "dig +short +tries=1 +time=3 web.outside.test A @10.0.9.1").out;
    assert_eq!(said.trim(), "", "the isolated network resolves the world");
    // The computer moves to another resolver while the networks stand.
    let resolv = world.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 192.0.2.99\nnameserver 2001:db8::1\n").unwrap();
    shop.until_on("web", "dig +short +tries=1 +time=3 web.outside.test A @10.0.5.1 | grep -q 203.0.113.1");
    world.sh(Place::Computer, "true");
}

const JOIN: &str = "
networks:
  a: { subnet: 10.0.5.0/24, subnet6: off, addressing: static, reach: isolated }
  b: { subnet: 10.0.8.0/24, subnet6: off, addressing: static, reach: isolated }
defaults: { kind: container, driver: external }
machines: { web: { networks: [a] }, db: { networks: [b] } }
";

#[test]
fn joins_come_and_go_while_the_networks_stand() {
    let world = World::offline();
    let lab = world.project("lab", JOIN);
    lab.stead("up").ok();
    let joined = JOIN.replace("10.0.5.0/24,", "10.0.5.0/24, joins: [b],");
    // There was no router to tell machines of; set by hand, it leads nowhere.
    for (machine, router) in [("web", "10.0.5.1"), ("db", "10.0.8.1")] {
        lab.on(machine, &format!("ip route replace default via {router}")).ok();
    }
    let apart = |lab: &crate::support::Project<'_>| {
        assert_ne!(lab.on("web", "ping -c 2 -i 0.2 -W 1 10.0.8.2").code, 0);
        assert_ne!(lab.on("db", "ping -c 2 -i 0.2 -W 1 10.0.5.2").code, 0);
        assert_eq!(lab.on("web", "dig +short +tries=2 +time=2 db @10.0.5.1").ok(), "");
        assert_eq!(lab.on("db", "dig +short +tries=2 +time=2 web @10.0.8.1").ok(), "");
    };
    apart(&lab);
    for _ in 0..2 {
        expect![[r#"
            ~ network a.lab joins none -> b  # networks.a.joins (stead.yaml:3)
            ~ network b.lab joins none -> a  # networks.b.joins (stead.yaml:4)
        "#]]
        .assert_eq(&lab.change(&joined));
        lab.on("web", "ping -c 1 -W 5 10.0.8.2").ok();
        lab.on("db", "ping -c 1 -W 5 10.0.5.2").ok();
        assert_eq!(lab.on("web", "dig +short +tries=2 +time=2 db @10.0.5.1").ok(), "10.0.8.2\n");
        assert_eq!(lab.on("db", "dig +short +tries=2 +time=2 web @10.0.8.1").ok(), "10.0.5.2\n");
        // A connection that stands ends with the join: what comes after it does not pass any more.
        let _server = lab.spawn_on("db", &["socat", "-u", "TCP-LISTEN:7000,reuseaddr", "CREATE:/dev/null"]);
        let mut client = lab.spawn_on("web", &["socat", "-", "TCP:10.0.8.2:7000,retry=100,interval=0.05"]);
        let sent = "ss -Hnti state established dst 10.0.8.2 | grep -o 'bytes_acked:[0-9]*' | cut -d : -f 2";
        let acknowledged =
            |lab: &crate::support::Project<'_>| lab.on("web", sent).ok().trim().parse().unwrap_or(0_u32);
        lab.until_on("web", "ss -Hnt state established dst 10.0.8.2 | grep -q 10.0.8.2");
        writeln!(client.stdin(), "one").unwrap();
        world.until("the first line arrives", || (acknowledged(&lab) >= 4).then_some(()));
        lab.change(JOIN);
        let before = acknowledged(&lab);
        writeln!(client.stdin(), "two").unwrap();
        let waits =
            "ss -Hnti state established dst 10.0.8.2 | grep -q -E 'backoff:[1-9]|retrans:[0-9]+/[2-9]'";
        lab.until_on("web", waits);
        assert_eq!(acknowledged(&lab), before, "a connection outlived the join");
        apart(&lab);
    }
}

//! Published ports: from this computer and from outside, changed while they run, and when they are taken.

use std::io::{BufRead, Write};

use crate::support::{Place, Project, World, who};

fn lab(ports: &str) -> String {
    format!(
        "
        networks: {{ lan: {{ subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', addressing: static }} }}
        defaults: {{ kind: container, driver: external }}
        machines:
          web: {{ networks: [lan], ports: [{ports}] }}
          client: {{ networks: [lan] }}"
    )
}

/// Serves pages on `web`.
fn serve(project: &Project<'_>) -> crate::support::Running {
    let directory = project.world.path().join("www").display().to_string();
    let server = project.spawn_on("web", &["busybox", "httpd", "-f", "-p", "80", "-h", &directory]);
    project.until_on("client", "curl -s -m 2 http://10.0.5.3/");
    server
}

#[test]
fn a_published_port_is_reached_where_the_file_says() {
    let world = World::online();
    let ports = "'8080:80', '[::1]:8081:80', '0.0.0.0:8082:80', '[::]:8083:80', '9000-9001:80-81', '5300:5300/udp', '0.0.0.0:5301:5300/udp'";
    let text = lab(ports);
    let shop = world.project("shop", &text);
    shop.stead("up").ok();
    let _server = serve(&shop);
    let curl = |place, url: &str| world.sh_said(place, &format!("curl -s -m 5 -g http://{url}/cgi-bin/who"));
    for url in
        ["127.0.0.1:8080", "[::1]:8081", "127.0.0.1:8082", "192.0.2.2:8082", "[::1]:8083", "127.0.0.1:9000"]
    {
        assert!(!curl(Place::Computer, url).ok().trim().is_empty(), "{url}");
    }
    for url in ["192.0.2.2:8080", "[::1]:8080", "127.0.0.1:8081"] {
        assert_eq!(curl(Place::Computer, url).code, 7, "{url} should refuse");
    }
    // Nothing listens at the target: refused or closed, not left hanging.
    assert!([7, 52, 56].contains(&curl(Place::Computer, "127.0.0.1:9001").code));
    // From outside only what asked for it, and the machine sees who came.
    assert_eq!(who(&curl(Place::Outside, "192.0.2.2:8082").ok()), "192.0.2.1");
    assert_eq!(who(&curl(Place::Outside, "[2001:db8::2]:8083").ok()), "2001:db8::1");
    assert_eq!(curl(Place::Outside, "192.0.2.2:8080").code, 7);
    // Datagrams there and back.
    let _echo = shop.spawn_on("web", &["socat", "UDP-RECVFROM:5300,fork", "EXEC:cat"]);
    let ask = "echo hello | socat -t 2 - UDP:ADDRESS | grep hello";
    world.until("an answer to a datagram", || {
        (world.sh_said(Place::Computer, &ask.replace("ADDRESS", "127.0.0.1:5300")).code == 0).then_some(())
    });
    world.sh(Place::Outside, &ask.replace("ADDRESS", "192.0.2.2:5301"));
    // Half-close: the whole request first, then the whole answer.
    let _count = shop.spawn_on("web", &["socat", "TCP-LISTEN:81,fork,reuseaddr", "SYSTEM:wc -c"]);
    world.until("half-close is passed on", || {
        let line = "head -c 3000000 /dev/zero | socat -t 20 - TCP:127.0.0.1:9001 | grep -q 3000000";
        (world.sh_said(Place::Computer, line).code == 0).then_some(())
    });
    let rows = shop.stead("ps web").ok();
    assert!(rows.contains("127.0.0.1:8080"), "{rows}");
}

#[test]
fn ports_change_while_connections_on_the_others_go_on() {
    let world = World::offline();
    let shop = world.project("shop", &lab("'7000:7000', '8080:80'"));
    shop.stead("up").ok();
    let _server = serve(&shop);
    let _echo = shop.spawn_on("web", &["socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:cat"]);
    shop.until_on("client", "echo ready | socat -t 2 - TCP:10.0.5.3:7000 | grep -q ready");
    let mut connection = world.spawn(Place::Computer, &["socat", "-", "TCP:127.0.0.1:7000"]);
    let mut answers = connection.stdout();
    let mut talk = |word: &str| {
        writeln!(connection.stdin(), "{word}").unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word);
    };
    talk("before");
    let plan = shop.change(&lab("'7000:7000', '8090:80'"));
    expect_test::expect![[r#"
        - port 127.0.0.1:8080/tcp to web.shop:80  # machines.web.ports (stead.yaml:5)
        + port 127.0.0.1:8090/tcp to web.shop:80  # machines.web.ports (stead.yaml:5)
    "#]]
    .assert_eq(&plan);
    talk("after");
    world.sh(Place::Computer, "curl -s -m 5 http://127.0.0.1:8090/");
    assert_eq!(world.sh_said(Place::Computer, "curl -s -m 5 http://127.0.0.1:8080/").code, 7);
    // Another target behind the same port.
    shop.change(&lab("'7000:7000', '8090:81'"));
    talk("still");
    shop.change(&lab("'7000:7000'"));
    assert_eq!(world.sh_said(Place::Computer, "curl -s -m 5 http://127.0.0.1:8090/").code, 7);
    talk("to the end");
}

#[test]
fn a_taken_port_is_an_error_that_names_the_holder_and_the_next_up_mends_it() {
    let world = World::offline();
    let shop = world.project("shop", &lab("'8080:80', '8090:80'"));
    // As the same user, or the holder's name could not be seen.
    let holder = world.spawn(Place::Person, &["socat", "TCP-LISTEN:8080,bind=127.0.0.1,fork", "EXEC:cat"]);
    world.until("the port is taken", || {
        (world.sh_said(Place::Computer, "ss -Hltn sport = 8080 | grep -q 8080").code == 0).then_some(())
    });
    let said = shop.stead("up").code(1).says("8080").says("socat").says("hint: ");
    assert!(said.err.contains("+ port tcp 127.0.0.1:8080") || said.err.contains("+ port"), "{}", said.err);
    // The rest stands.
    let _server = serve(&shop);
    world.sh(Place::Computer, "curl -s -m 5 http://127.0.0.1:8090/");
    assert_ne!(shop.stead("plan").ok(), "nothing to do\n");
    shop.stead("up").code(1);
    holder.end();
    world.until("the port is free", || {
        (world.sh_said(Place::Computer, "ss -Hltn sport = 8080 | grep -q 8080").code != 0).then_some(())
    });
    shop.stead("up").ok();
    world.sh(Place::Computer, "curl -s -m 5 http://127.0.0.1:8080/");
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    // Two projects want the same one.
    let other =
        world.project("other", &lab("'8080:80'").replace("10.0.5.", "10.0.6.").replace("fd00:5", "fd00:6"));
    other.stead("up").code(2).says("8080").says("shop");
}

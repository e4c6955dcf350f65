//! Published ports: from this computer and from outside, changed while they run, and when they are taken.

use std::io::{BufRead, Write};

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, Role, World, role, who};

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

/// Answers each datagram at five ports with what it said, and the port.
const ANSWER_BY_PORT: &str = r#"
    use IO::Socket::INET; use IO::Select;
    my @all = map { IO::Socket::INET->new(Proto => "udp", LocalPort => $_) or die $! } 7000..7004;
    my $select = IO::Select->new(@all);
    while (1) {
        for my $socket ($select->can_read) {
            my $from = recv($socket, my $word, 2000, 0) or next;
            send($socket, "$word at " . $socket->sockport, 0, $from);
        }
    }"#;

#[test]
fn each_port_of_a_range_carries_datagrams_both_ways() {
    let world = World::online();
    let shop = world.project("shop", &lab("'6000-6004:7000-7004/udp', '0.0.0.0:6100-6104:7000-7004/udp'"));
    shop.stead("up").ok();
    let _answers = shop.spawn_on("web", &["perl", "-e", ANSWER_BY_PORT]);
    let ask = |place, address: &str| {
        let line = format!("printf hello | socat -t 1 - UDP:{address}");
        world.sh_said(place, &line).out
    };
    // It takes a moment to listen, and on a busy computer to answer.
    let answered = |place, address: &str, number: u32| {
        let answer =
            world.until("it answers", || Some(ask(place, address)).filter(|answer| !answer.is_empty()));
        assert_eq!(answer, format!("hello at {number}"), "{address}");
    };
    for number in 0..5 {
        answered(Place::Computer, &format!("127.0.0.1:{}", 6000 + number), 7000 + number);
        answered(Place::Outside, &format!("192.0.2.2:{}", 6100 + number), 7000 + number);
    }
    for beside in ["127.0.0.1:5999", "127.0.0.1:6005"] {
        assert_eq!(ask(Place::Computer, beside), "");
    }
    let ports = shop.stead("network inspect lan --format json").json()["ports"].clone();
    for number in 0..5 {
        let port = &ports[format!("127.0.0.1:{}/udp", 6000 + number)];
        assert!(port["bytes_in"].as_u64() >= Some(5) && port["bytes_out"].as_u64() >= Some(13), "{port:#}");
    }
    // A range that becomes shorter closes what it no longer has.
    shop.change(&lab("'6000-6002:7000-7002/udp'"));
    answered(Place::Computer, "127.0.0.1:6002", 7002);
    assert_eq!(ask(Place::Computer, "127.0.0.1:6003"), "");
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
    let shop = world.project("shop", &lab("'8080:80', '8090:80', '127.0.0.2:8080:80', '[::1]:8080:80'"));
    // As the same user, or the holder's name could not be seen.
    let holder = world.spawn(Place::Person, &["socat", "TCP-LISTEN:8080,bind=127.0.0.1,fork", "EXEC:cat"]);
    world.until("the port is taken", || {
        (world.sh_said(Place::Computer, "ss -Hltn src 127.0.0.1:8080 | grep -q 8080").code == 0).then_some(())
    });
    let said = shop.stead("up").code(1).says("8080").says("socat").says("hint: ");
    assert!(said.err.contains("+ port tcp 127.0.0.1:8080") || said.err.contains("+ port"), "{}", said.err);
    // The rest stands.
    let _server = serve(&shop);
    for place in ["127.0.0.1:8090", "127.0.0.2:8080", "[::1]:8080"] {
        world.sh(Place::Computer, &format!("curl -s -m 5 http://{place}/"));
    }
    assert_ne!(shop.stead("plan").ok(), "nothing to do\n");
    shop.stead("up").code(1);
    holder.end();
    world.until("the port is free", || {
        (world.sh_said(Place::Computer, "ss -Hltn src 127.0.0.1:8080 | grep -q 8080").code != 0).then_some(())
    });
    shop.stead("up").ok();
    world.sh(Place::Computer, "curl -s -m 5 http://127.0.0.1:8080/");
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    // Two projects want the same one.
    let other =
        world.project("other", &lab("'8080:80'").replace("10.0.5.", "10.0.6.").replace("fd00:5", "fd00:6"));
    other.stead("up").code(2).says("8080").says("shop");
}

#[test]
fn where_a_port_is_taken_the_program_is_not_run() {
    let world = World::offline();
    let _registry = registry(&world);
    let machine = |ports: &str, command: &str| {
        format!(
            "{{ kind: container, image: '{BUSYBOX}', ports: ['{ports}'], volumes: ['.:/d'], command: {command} }}"
        )
    };
    let text = format!(
        "machines:\n  web: {}\n  other: {}\n",
        machine("8080:80", "touch /d/web"),
        machine("8090:80", "touch /d/other")
    );
    let shop = world.project("shop", &text);
    let holder = world.spawn(Place::Person, &["socat", "TCP-LISTEN:8080,bind=127.0.0.1,fork", "EXEC:cat"]);
    let is_taken = || world.sh_said(Place::Computer, "ss -Hltn src 127.0.0.1:8080 | grep -q 8080").code == 0;
    world.until("the port is taken", || is_taken().then_some(()));
    shop.stead("up").code(1).says("8080");
    let ran = |name: &str| shop.directory.join(name).exists();
    world.until("the other ran", || ran("other").then_some(()));
    assert!(!ran("web"));
    let alone = format!("run -p 127.0.0.1:8080:80 -v trace:/d {BUSYBOX} touch /d/ran");
    world.stead(&alone).code(125).says("8080");
    assert_eq!(world.stead(&format!("run --rm -v trace:/d {BUSYBOX} ls /d")).ok(), "");
    holder.end();
    world.until("the port is free", || (!is_taken()).then_some(()));
    shop.stead("up").ok();
    world.until("it ran", || ran("web").then_some(()));
}

/// What an attempt to take port 8080 of this computer ends with: 0 where nobody has it.
const TAKE: &str = "timeout 5 socat -u TCP-LISTEN:8080,bind=127.0.0.1,reuseaddr,accept-timeout=0.1 /dev/null";

#[test]
fn the_ports_of_a_machine_that_does_not_run_are_closed() {
    let world = World::offline();
    let _registry = registry(&world);
    let curl = || world.sh_said(Place::Computer, "curl -s -m 5 http://127.0.0.1:8080/page").code;
    let is_served = || world.until("the page is served", || (curl() == 0).then_some(()));
    let is_free = || {
        assert_eq!(curl(), 7);
        world.sh(Place::Person, TAKE);
    };
    let web = format!("run -d --init --name web -p 8080:80 {BUSYBOX} httpd -f -p 80 -h /srv");
    world.stead(&web).ok();
    is_served();
    for stop in ["stop web", "stop --time 0 web"] {
        world.stead(stop).ok();
        is_free();
        assert!(!world.stead("ps --all").ok().contains("8080"));
        world.stead(stop).ok();
        // Another machine leaves it closed.
        world.stead(&format!("run --rm {BUSYBOX} true")).ok();
        assert_eq!(curl(), 7);
        world.stead("start web").ok();
        is_served();
    }
    // Those that go on: it is only paused, or begins anew.
    if role() == Role::Root {
        world.stead("pause web").ok();
        world.stead("unpause web").ok();
        is_served();
    }
    world.stead("restart web").ok();
    is_served();
    // While it is closed it is anybody's.
    world.stead("stop web").ok();
    let shop = world.project("shop", &lab("'8080:80'"));
    shop.stead("up").ok();
    world
        .stead("start web")
        .code(2)
        .says("port 127.0.0.1:8080/tcp is published by machine `web.shop` already");
    shop.stead("down").ok();
    world.stead("start web").ok();
    is_served();
    // Where not all can be opened none is.
    world.stead("rm --force web").ok();
    let _holder = world.spawn(Place::Person, &["socat", "TCP-LISTEN:8090,bind=127.0.0.1,fork", "EXEC:cat"]);
    world.until("the other port is taken", || {
        (world.sh_said(Place::Computer, "ss -Hltn src 127.0.0.1:8090 | grep -q 8090").code == 0).then_some(())
    });
    world.stead(&format!("create --name web -p 8080:80 -p 8090:80 {BUSYBOX} sleep 1000")).ok();
    world.stead("start web").code(1).says("8090");
    is_free();
    world.stead("rm web").ok();
}

#[test]
fn a_port_closes_when_its_program_has_ended_and_not_while_that_is_started_again() {
    let world = World::offline();
    let _registry = registry(&world);
    let curl = || world.sh_said(Place::Computer, "curl -s -m 5 http://127.0.0.1:8080/page").code;
    let is_closed = || {
        world.until("the port is closed", || (curl() == 7).then_some(()));
        world.sh(Place::Person, TAKE);
    };
    let run = |options: &str, program: &str| {
        let words = format!("run -d --init --name web -p 8080:80 {options} {BUSYBOX} sh -c");
        let words =
            words.split_whitespace().map(str::to_owned).chain([program.to_owned()]).collect::<Vec<_>>();
        let words = words.iter().map(String::as_str).collect::<Vec<_>>();
        crate::support::said(world.stead_command("home", world.path(), &words)).ok();
    };
    run("", "httpd -p 80 -h /srv; while ! test -e /end; do sleep 0.1; done; rm /end");
    world.until("the page is served", || (curl() == 0).then_some(()));
    let end = || {
        world.until("the page is served", || (curl() == 0).then_some(()));
        world.stead("exec web touch /end").ok();
        is_closed();
    };
    end();
    // Another switchboard leaves it closed, though its file has it still; and so do other commands.
    let run_directory = world.path().join("home/run").display().to_string();
    assert!(world.sh(Place::Computer, &format!("cat {run_directory}/served.json")).contains("8080"));
    let switchboard =
        || world.sh(Place::Computer, &format!("cut -d ' ' -f 1 {run_directory}/switchboard.pid"));
    let before = switchboard();
    world.sh(Place::Computer, &format!("kill -9 {before}"));
    world.until("there is another", || (switchboard() != before).then_some(()));
    is_closed();
    world.stead(&format!("run --rm {BUSYBOX} true")).ok();
    assert_eq!(curl(), 7);
    assert!(!world.stead("ps --all").ok().contains("8080"));
    world.stead("start web").ok();
    end();
    // Its keeper killed.
    world.stead("start web").ok();
    world.until("the page is served", || (curl() == 0).then_some(()));
    world.sh(
        Place::Computer,
        &format!("kill -9 $(cut -d ' ' -f 1 {run_directory}/machines/web.*/keeper.pid)"),
    );
    is_closed();
    world.stead("rm --force web").ok();
    // One that goes on by itself keeps it.
    run("--restart always", "sleep 0.2");
    let stays =
        "for i in $(seq 30); do ss -Hltn src 127.0.0.1:8080 | grep -q 8080 || exit 1; sleep 0.1; done";
    world.sh(Place::Computer, stays);
    world.stead("rm --force web").ok();
    // One that ends at once.
    run("", "true");
    is_closed();
    world.stead("rm web").ok();
}

#[test]
fn ports_are_published_for_as_long_as_the_command_for_it_runs() {
    let world = World::offline();
    let shop = world.project("shop", &lab("'8090:80'"));
    shop.stead("up").ok();
    let _server = serve(&shop);
    let _echo = shop.spawn_on("web", &["socat", "UDP-RECVFROM:5300,fork", "EXEC:cat"]);
    let forward = |words: &[&str]| {
        let mut forward = world.spawn_stead(&shop.directory, &[&["forward", "web"], words].concat());
        let mut lines = forward.stdout();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        (forward, line)
    };
    let (forwarding, line) = forward(&["8080:80", "[::1]:8080:80", "5300/udp"]);
    assert_eq!(line, "127.0.0.1:8080 leads to web.shop:80\n");
    let curl =
        |address: &str| world.sh_said(Place::Computer, &format!("curl -s -m 5 http://{address}/")).code;
    assert_eq!([curl("127.0.0.1:8080"), curl("[::1]:8080")], [0, 0]);
    let ask = "echo hello | socat -t 2 - UDP:127.0.0.1:5300 | grep hello";
    world.until("an answer to a datagram", || (world.sh_said(Place::Computer, ask).code == 0).then_some(()));
    let (chosen, line) = forward(&["0:80"]);
    assert_eq!(curl(line.split_once(' ').unwrap().0), 0, "{line}");
    drop(chosen);
    // Nothing of it is on record, or in the way of what is.
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    shop.stead("forward web 8080:80").code(1).says("`127.0.0.1:8080/tcp` is taken by `stead`");
    shop.stead("forward web 8090:80").code(2).says("is published by machine `web.shop`");
    shop.stead("forward web 7000 7000:80").code(2).says("is asked for twice");
    shop.stead("forward web 80-81:80").code(2).says("2 ports cannot lead to 1 targets");
    forwarding.end();
    world.until("its port is closed", || (curl("127.0.0.1:8080") == 7).then_some(()));
    assert_eq!(curl("127.0.0.1:8090"), 0);
    let (mut forwarding, _) = forward(&["8080:80"]);
    shop.stead("down").ok();
    assert_ne!(curl("127.0.0.1:8080"), 0);
    world.until("it ends", || (!forwarding.is_alive()).then_some(()));
    shop.stead("forward web 8080:80").code(2).says("there is no machine `web`");
}

#[test]
fn ports_of_the_moment_outlast_a_signal_that_whoever_asked_for_them_ignores() {
    let world = World::offline();
    let shop = world.project("shop", &lab(""));
    shop.stead("up").ok();
    let home = world.path().join("home").display().to_string();
    // What a shell runs beside it ignores an interrupt. Some signals leave the port open, and then one does not.
    let run = |hangup: &str, leave: &str, ends: &str| {
        let script = format!(
            "STEAD_HOME={home} env --{hangup}-signal=HUP {} forward web.shop 8080:80 > said & pid=$!
            until test -s said; do kill -0 $pid; sleep 0.1; done
            is_open() {{ ss -Hltn src 127.0.0.1:8080 | grep -q 8080; }}
            for signal in {leave}; do kill -$signal $pid; sleep 0.5; is_open; done
            kill -{ends} $pid
            while is_open; do sleep 0.1; done
            rm said; wait $pid",
            crate::support::stead()
        );
        world.sh(Place::Person, &script)
    };
    run("ignore", "INT HUP", "TERM");
    run("default", "INT", "HUP");
}

#[test]
fn ports_of_the_moment_end_with_their_machine_whoever_goes_on_to_send() {
    let world = World::offline();
    let shop = world.project("shop", &lab(""));
    shop.stead("up").ok();
    let address = shop.address("web", 0).0;
    let mut web = shop.spawn_on("web", &["socat", "-u", "UDP-RECV:5300", "-"]);
    shop.until_on("web", "ss -Hlun | grep 5300");
    let mut forwarding = world.spawn_stead(&shop.directory, &["forward", "web", "5300/udp"]);
    forwarding.stdout().read_line(&mut String::new()).unwrap();
    // From one port, without a pause in which it could be forgotten.
    let go_on = "while echo meant for web; do sleep 0.1; done | socat -u - UDP:127.0.0.1:5300";
    let _client = world.spawn(Place::Computer, &["sh", "-c", go_on]);
    let mut line = String::new();
    web.stdout().read_line(&mut line).unwrap();
    assert_eq!(line, "meant for web\n");
    let given = format!("next: {{ networks: {{ lan: {{ address: {address} }} }} }}");
    shop.write(&lab("").replace("web: { networks: [lan], ports: [] }", &given));
    shop.stead("up").ok();
    assert_eq!(shop.address("next", 0).0, address);
    world.until("it ends", || (!forwarding.is_alive()).then_some(()));
}

/// How many clients come at once.
const CROWD: usize = 2000;

/// Takes so many connections, answers a line on each, then another line on each.
const SERVE_CROWD: &str = r#"
    use Socket; my $count = shift;
    socket(my $listener, PF_INET, SOCK_STREAM, 0) or die;
    setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1);
    bind($listener, sockaddr_in(7000, INADDR_ANY)) or die "bind: $!"; listen($listener, 4096) or die;
    $| = 1; print "ready\n";
    my @all;
    for (1..$count) { accept(my $client, $listener) or die "accept: $!"; push @all, $client; answer($client); }
    answer($_) for @all;
    sub answer { my $line = readline($_[0]); syswrite($_[0], $line) or die "write: $!"; }
    readline($_) for @all;
"#;

/// Opens so many connections, says its number on each, and hears it; when told to, once more; then closes them all.
const BE_CROWD: &str = r#"
    use Socket; my $count = shift; my @all;
    for my $number (1..$count) {
        socket(my $server, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
        connect($server, sockaddr_in(7000, INADDR_LOOPBACK)) or die "connect: $!";
        push @all, $server; syswrite($server, "$number\n");
    }
    sub hear { my $number = 0; for (@all) { $number++; my $line = readline($_); chomp $line; $line eq $number or die "`$line` for $number"; } }
    $| = 1; hear(); print "all here\n"; my $word = <STDIN>;
    my $number = 0; syswrite($_, ++$number . "\n") for @all;
    hear(); print "all there\n"; $word = <STDIN>;
"#;

#[test]
fn two_thousand_connections_at_once_are_carried_and_leave_nothing() {
    let world = World::offline();
    let shop = world.project("shop", &lab("'7000:7000'"));
    shop.stead("up").ok();
    let run = world.path().join("home/run");
    let descriptors = || {
        let line = format!("ls /proc/$(cut -d ' ' -f 1 {}/switchboard.pid)/fd | wc -l", run.display());
        world.sh(Place::Computer, &line).trim().parse::<usize>().unwrap()
    };
    let live = || {
        let inspection = shop.stead("network inspect lan --format json").json();
        usize::try_from(inspection["ports"]["127.0.0.1:7000/tcp"]["live"].as_u64().unwrap()).unwrap()
    };
    assert_eq!(live(), 0);
    let before = descriptors();
    let crowd = |script: &str| format!("ulimit -n {}; exec perl -e '{script}' {CROWD}", CROWD * 2);
    let mut server = shop.spawn_on("web", &["sh", "-c", &crowd(SERVE_CROWD)]);
    let mut line = String::new();
    server.stdout().read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let mut clients = world.spawn(Place::Person, &["sh", "-c", &crowd(BE_CROWD)]);
    let mut heard = clients.stdout();
    let mut hear = |word: &str| {
        let mut line = String::new();
        heard.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{word}\n"));
    };
    hear("all here");
    assert_eq!(live(), CROWD);
    assert!(descriptors() >= before + 2 * CROWD);
    // The others are served meanwhile.
    shop.on("client", "dig +short +tries=1 +time=2 web @10.0.5.1 | grep -q 10.0.5.3").ok();
    writeln!(clients.stdin()).unwrap();
    hear("all there");
    writeln!(clients.stdin()).unwrap();
    world.until("all have gone", || (live() == 0).then_some(()));
    // Pipes for the next ones are kept, a few.
    world.until("the descriptors are given back", || (descriptors() <= before + 64).then_some(()));
}

#[test]
fn a_load_of_streams_and_datagrams_arrives_both_ways() {
    let world = World::offline();
    let ports = "'5201:5201', '5201:5201/udp', '[::1]:5201:5201', '[::1]:5201:5201/udp'";
    let shop = world.project("shop", &lab(ports));
    shop.stead("up").ok();
    let _server = shop.spawn_on("web", &["iperf3", "--server"]);
    // It counts at both ends. The server takes one client at a time, and none before it is up.
    let load = |host: &str, more: &str| {
        let line = format!("iperf3 --client {host} --json {more}");
        let said = world.until("the server takes the load", || {
            let said = world.sh_said(Place::Computer, &line);
            (said.code == 0 && !said.out.contains("\"error\"")).then_some(said)
        });
        said.json()["end"].clone()
    };
    for host in ["127.0.0.1", "::1"] {
        for direction in ["", "--reverse"] {
            let end = load(host, &format!("--parallel 4 --time 1 {direction}"));
            let received = end["sum_received"]["bytes"].as_u64().unwrap();
            assert!(received > 1_000_000, "{host} {direction}: {received} bytes in a second");
            let end = load(host, &format!("--udp --bandwidth 8M --length 1200 --time 1 {direction}"));
            let lost = end["sum"]["lost_percent"].as_f64().unwrap();
            assert!(
                lost < 10.0 && end["sum"]["packets"].as_u64() > Some(100),
                "{host} {direction}: {lost} % lost"
            );
        }
    }
}

/// While `up` waits for one machine others have their turn, and what they do does not close the ports that come with the
/// next one.
#[test]
fn a_port_is_open_when_its_machine_runs_whoever_had_a_turn_meanwhile() {
    let world = World::offline();
    let _registry = registry(&world);
    let text = format!(
        "machines:
          db: {{ image: {BUSYBOX}, command: sleep 1000, init: true,
                healthcheck: {{ test: test -e /well, interval: 200ms, retries: 1000 }} }}
          other: {{ image: {BUSYBOX}, command: sleep 1000, init: true }}
          web: {{ image: {BUSYBOX}, command: httpd -f -p 80 -h /srv, init: true, ports: ['8080:80'],
                 depends_on: {{ db: {{ condition: service_healthy }} }} }}
        "
    );
    let shop = world.project("shop", &text);
    let up = world.spawn_stead(&shop.directory, &["up"]);
    world.until("others run", || {
        let rows = shop.stead("ps --format json").json();
        let runs = |name: &str| {
            rows.as_array().is_some_and(|rows| {
                rows.iter()
                    .any(|row| row["name"] == name && row["status"].as_str().unwrap_or_default() != "created")
            })
        };
        (runs("db") && runs("other")).then_some(())
    });
    shop.stead("stop -t 1 other").ok();
    // Nobody is let in before.
    assert_eq!(world.sh_said(Place::Computer, "curl -s -m 5 http://127.0.0.1:8080/page").code, 7);
    shop.stead("exec db touch /well").ok();
    world.until("the page is served", || {
        (world.sh_said(Place::Computer, "curl -s -m 5 http://127.0.0.1:8080/page").code == 0).then_some(())
    });
    drop(up);
    assert!(!shop.stead("plan").ok().contains("port"));
}

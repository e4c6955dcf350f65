//! Ports that the computer chooses: they stay a machine's until it goes, whatever befalls the computer meanwhile.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Running, Said, World, said};

#[track_caller]
fn stead_at(world: &World, home: &str, words: &[&str]) -> Said {
    said(world.stead_command(home, world.path(), words))
}

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    stead_at(world, "home", words)
}

/// Where a port of a machine is published.
#[track_caller]
fn socket(world: &World, home: &str, machine: &str, port: &str) -> String {
    stead_at(world, home, &["port", machine, port]).ok().trim().to_owned()
}

/// A machine that serves pages.
#[track_caller]
fn serve(world: &World, home: &str, options: &[&str], name: &str) {
    let words = ["run", "-d", "--init", "--name", name].into_iter().chain(options.iter().copied());
    let program = [BUSYBOX, "httpd", "-f", "-p", "80", "-h", "/srv"];
    stead_at(world, home, &words.chain(program).collect::<Vec<_>>()).ok();
}

#[track_caller]
fn is_served(world: &World, socket: &str) {
    world.until("the page is served", || {
        let said = world.sh_said(Place::Computer, &format!("curl -s -m 2 http://{socket}/page"));
        (said.out == "from-the-image\n").then_some(())
    });
}

/// Kills a process by the record of it.
fn kill(world: &World, record: &str) {
    let path = world.path().join("home/run").join(record);
    let pid = std::fs::read_to_string(path).unwrap().split(' ').next().unwrap().to_owned();
    world.sh(Place::Computer, &format!("kill -9 {pid}"));
    world.until("it is dead", || {
        let line = format!("ps -o stat= -p {pid} | grep -qv Z");
        (world.sh_said(Place::Computer, &line).code != 0).then_some(())
    });
}

/// Takes a socket of this computer.
fn hold(world: &World, socket: &str) -> Running {
    let (address, port) = socket.rsplit_once(':').unwrap();
    let holder = world.spawn(
        Place::Person,
        &["socat", &format!("TCP-LISTEN:{port},bind={address},fork,reuseaddr"), "EXEC:cat"],
    );
    world.until("the port is taken", || is_held(world, socket).then_some(()));
    holder
}

fn is_held(world: &World, socket: &str) -> bool {
    world.sh_said(Place::Computer, &format!("ss -Hltn src {socket} | grep -q {socket}")).code == 0
}

#[test]
fn a_chosen_port_stays_the_machines_until_it_goes() {
    let world = World::offline();
    let _registry = registry(&world);
    serve(&world, "home", &["-p", "0:80", "-p", "127.0.0.2:0:80/udp"], "web");
    let socket = |machine| socket(&world, "home", machine, "80");
    let web = socket("web");
    let number: u16 = web.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    assert!(number >= 49152, "{web}");
    is_served(&world, &web);
    let rows = stead(&world, &["port", "web", "--format", "json"]).json();
    assert!(
        rows[0]["port"] == number && rows[1]["address"] == "127.0.0.2" && rows[1]["protocol"] == "udp",
        "{rows:#}"
    );
    let told = format!("{web}/tcp -> 80");
    assert!(stead(&world, &["ps", "web"]).ok().contains(&told));
    assert!(stead(&world, &["inspect", "web"]).ok().contains(&told));
    // Stopped and started, and killed from under it. While it does not run the number is its own, and the port is nobody's.
    stead(&world, &["stop", "web"]).ok();
    assert!(stead(&world, &["port", "web"]).ok().contains(&format!("{web} (closed)")));
    assert!(!stead(&world, &["ps", "web"]).ok().contains(&web));
    let holder = hold(&world, &web);
    stead(&world, &["start", "web"]).code(1).says(&web).says("socat");
    holder.end();
    world.until("the port is free", || (!is_held(&world, &web)).then_some(()));
    stead(&world, &["start", "web"]).ok();
    is_served(&world, &web);
    assert_eq!(socket("web"), web);
    stead(&world, &["restart", "web"]).ok();
    assert_eq!(socket("web"), web);
    kill(&world, "switchboard.pid");
    is_served(&world, &web);
    assert_eq!(socket("web"), web);
    kill(&world, "anchor.pid");
    stead(&world, &["start", "web"]).ok();
    assert_eq!(socket("web"), web);
    is_served(&world, &web);
    // Under another name.
    stead(&world, &["stop", "web"]).ok();
    stead(&world, &["rename", "web", "shop"]).ok();
    assert_eq!(socket("shop"), web);
    // One that is only made, and another home.
    stead(&world, &["create", "--name", "made", "-p", "0:80", BUSYBOX, "true"]).ok();
    serve(&world, "other", &["-p", "0:80"], "web");
    let theirs = self::socket(&world, "other", "web", "80");
    let made = socket("made");
    assert!(theirs != web && theirs != made && made != web, "{theirs} {made} {web}");
    is_served(&world, &theirs);
    stead_at(&world, "other", &["rm", "--force", "web"]).ok();
    // It goes with the machine; the next one has the same unless somebody else has it by then.
    stead(&world, &["rm", "--force", "shop", "made"]).ok();
    serve(&world, "home", &["-p", "0:80"], "web");
    assert_eq!(socket("web"), web);
    stead(&world, &["rm", "--force", "web"]).ok();
    let holder = hold(&world, &web);
    serve(&world, "home", &["-p", "0:80"], "web");
    let another = socket("web");
    assert_ne!(another, web);
    is_served(&world, &another);
    holder.end();
    stead(&world, &["restart", "web"]).ok();
    assert_eq!(socket("web"), another);
    stead(&world, &["rm", "--force", "web"]).ok();
}

const SHOP: &str = "
name: shop
networks: { lan: { subnet: 10.0.5.0/24, subnet6: off, reach: isolated } }
defaults: { kind: container, driver: external }
machines:
  web: { networks: [lan], ports: ['0:80', '[::1]:0:80'] }
  many: { networks: [lan], replicas: 2, ports: ['0:80'] }
";

#[test]
fn a_project_has_chosen_ports_of_its_own_and_they_are_told_when_they_are_taken() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    let planned = shop.stead("plan").ok();
    let up = shop.stead("up").ok();
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains(" port ") || line.contains(":80 "));
        let mut lines: Vec<String> =
            lines.filter_map(|line| line.split("  #").next().map(|line| line.trim().to_owned())).collect();
        lines.sort();
        lines
    };
    assert!(lines(&planned).len() == 8 && lines(&planned) == lines(&up), "{planned}\n{up}");
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    let ports = |machine: &str| {
        let rows = shop.stead(&format!("port {machine} --format json")).json();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| (row["address"].to_string(), row["port"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    let all = || ["web", "many-1", "many-2"].map(ports);
    let before = all();
    assert!(before[0].len() == 2 && before[1].len() == 1 && before[1] != before[2], "{before:?}");
    // As after a reboot: nothing of it is there but what is on record.
    end_all(&world);
    shop.stead("up").ok();
    assert_eq!(all(), before);
    // What is on record is nobody else's to choose, and who takes it is named.
    end_all(&world);
    let web =
        format!("127.0.0.1:{}", before[0].iter().find(|(address, _)| address.contains("127")).unwrap().1);
    let holder = hold(&world, &web);
    shop.stead("up").code(1).says(&web).says("socat").says("hint: ");
    holder.end();
    world.until("the port is free", || (!is_held(&world, &web)).then_some(()));
    shop.stead("up").ok();
    assert_eq!(all(), before);
    // What a file does not ask for any more is given back; the rest stays.
    shop.write(&SHOP.replace(", '[::1]:0:80'", "").replace("replicas: 2", "replicas: 0"));
    let up = shop.stead("up").ok();
    assert!(
        up.contains("- lease web.shop:80 [::1]:") && up.contains("- lease many-2.shop:80 127.0.0.1:"),
        "{up}"
    );
    assert_eq!(
        ports("web"),
        before[0].iter().filter(|(address, _)| address.contains("127")).cloned().collect::<Vec<_>>()
    );
    shop.stead("down").ok();
    assert_eq!(shop.stead("plan --down").ok(), "nothing to do\n");
}

/// Ends all that serves, as a reboot does.
fn end_all(world: &World) {
    let run = world.path().join("home/run").display().to_string();
    let line = format!(
        "cd {run}; s=$(cut -d ' ' -f 1 switchboard.pid); w=$(ps -o ppid= -p $s); [ $w -gt 1 ]; \
         a=$(cut -d ' ' -f 1 anchor.pid); kill -9 $w $s $a; echo $w $s $a"
    );
    let killed = world.sh(Place::Computer, &line);
    let killed = killed.split_whitespace().collect::<Vec<_>>().join(",");
    world.until("they are dead", || {
        (world.sh_said(Place::Computer, &format!("ps -o stat= -p {killed} | grep -qv Z")).code != 0)
            .then_some(())
    });
}

/// An image like the other that says on what it listens.
const EXPOSE: &str = r#"
    cp -r $d/oci $d/open; cd $d/open
    sum() { sha256sum < $1 | cut -d' ' -f1; }
    sed 's/"Cmd"/"ExposedPorts":{"80\/tcp":{},"5300\/udp":{},"9\/sctp":{}},"Cmd"/' $d/config > $d/config.open
    sed "s/$(sum $d/config)/$(sum $d/config.open)/; s/\"size\":$(stat -c %s $d/config)/\"size\":$(stat -c %s $d/config.open)/" $d/manifest > $d/manifest.open
    cp $d/config.open blobs/sha256/$(sum $d/config.open)
    cp $d/manifest.open blobs/sha256/$(sum $d/manifest.open)
    sed -i "s/$(sum $d/manifest)/$(sum $d/manifest.open)/; s/\"size\":$(stat -c %s $d/manifest)/\"size\":$(stat -c %s $d/manifest.open)/" index.json
    skopeo --insecure-policy --tmpdir $d copy -q --dest-tls-verify=false oci:$d/open:latest docker://IMAGE:latest
"#;

#[test]
fn all_that_an_image_exposes_is_published() {
    let world = World::offline();
    let _registry = registry(&world);
    let open = BUSYBOX.replace("busybox", "open");
    let directory = world.path().join("registry").display().to_string();
    world.sh(Place::Computer, &format!("set -e; d={directory}; {}", EXPOSE.replace("IMAGE", &open)));
    let ports = |name: &str| {
        let rows = stead(&world, &["port", name, "--format", "json"]).json();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| format!("{}/{}", row["target"], row["protocol"].as_str().unwrap())).collect::<Vec<_>>()
    };
    let web = ["run", "-d", "--init", "-P", "--name", "web", &open, "httpd", "-f", "-p", "80", "-h", "/srv"];
    stead(&world, &web).says("`9/sctp`, which the image exposes, is not published").ok();
    assert_eq!(ports("web"), ["80/tcp", "5300/udp"]);
    is_served(&world, &socket(&world, "home", "web", "80"));
    // What has a port already has no other.
    stead(
        &world,
        &["create", "--init", "--publish-all", "-p", "8080:80", "--name", "said", &open, "sleep", "1000"],
    )
    .ok();
    assert_eq!(ports("said"), ["5300/udp"]);
    stead(&world, &["start", "said"]).ok();
    assert_eq!(ports("said"), ["80/tcp", "5300/udp"]);
    assert_eq!(socket(&world, "home", "said", "80"), "127.0.0.1:8080");
    stead(&world, &["create", "-P", "--name", "silent", BUSYBOX, "true"])
        .says("the image exposes no port")
        .ok();
    stead(&world, &["rm", "--force", "web", "said", "silent"]).ok();
}

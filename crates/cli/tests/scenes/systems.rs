//! Containers with an init of their own: Debian with systemd, from an image that stead made of Debian's packages.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{LIMIT, Place, Role, Said, World, role, said, said_after, stead as program, untested};

/// What people call it.
pub(crate) const IMAGE: &str = "lab/system:12";

/// Has the image in a world, and that of busybox in an archive.
pub(crate) fn load(world: &mut World) {
    world.keep_in_memory();
    let archive = std::env::var("STEAD_TEST_SYSTEM")
        .expect("`cargo xtask test system` makes the image that this test needs");
    stead(world, &["image", "load", &archive]).ok();
    let registry = registry(world);
    stead(world, &["image", "pull", BUSYBOX]).ok();
    drop(registry);
    stead(world, &["image", "save", BUSYBOX, "--output", "busybox.tar"]).ok();
}

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

#[track_caller]
fn exec(world: &World, line: &str) -> Said {
    stead(world, &["exec", "dev", "sh", "-ec", line])
}

/// Starts the system, with this program in it, and waits until all of its services are up.
#[track_caller]
fn boot(world: &World) {
    let bound = format!("{}:/usr/bin/stead:ro", program());
    let docker = std::env::var("STEAD_TEST_DOCKER").map(|docker| format!("{docker}/usr:/opt/docker:ro"));
    let docker = docker.iter().flat_map(|bound| ["-v", bound, "-v", "engine:/var/lib/docker"]);
    let bound = ["-v", &bound, "-v", "store:/var/lib/containers"];
    let words = ["run", "-d", "--system", "--name", "dev"].into_iter().chain(bound).chain(docker);
    stead(world, &words.chain([IMAGE]).collect::<Vec<_>>()).ok();
    until_up(world);
    stead(world, &["cp", "busybox.tar", "dev:/root/busybox.tar"]).ok();
}

#[track_caller]
fn until_up(world: &World) {
    // Nobody there yet, or just going down.
    let state = world.until("the system is up", || {
        let state = exec(world, "systemctl is-system-running --wait || :").out;
        ["running\n", "degraded\n"].contains(&state.as_str()).then_some(state)
    });
    let failed = exec(world, "systemctl --failed --no-legend --plain").out;
    assert_eq!((state.as_str(), failed.as_str()), ("running\n", ""));
}

#[test]
fn roots_system_has_services_and_runs_containers_of_others_and_of_ours() {
    if role() != Role::Root {
        return untested("it takes root");
    }
    let mut world = World::offline();
    load(&mut world);
    boot(&world);
    has_services(&world);
    lets_ssh_in(&world);
    runs_podman(&world, ["run", "--cgroup-manager=cgroupfs --runtime=runc run"]);
    runs_docker(&world);
    runs_stead(&world);
    is_to_start_machines(&world);
    gives_whoever_logs_in_a_cgroup_for_each_machine(&world);
    is_to_start_a_users_machine(&world);
    reboots_and_goes_off(&world, has_started_machines);
}

#[test]
fn a_users_system_has_services_and_runs_containers_of_others_and_of_ours() {
    let Some(mut world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    load(&mut world);
    boot(&world);
    has_services(&world);
    lets_ssh_in(&world);
    // What a computer with systemd hands on to its users, the tests' hands on to root alone: there is no limit to be had.
    runs_podman(&world, ["run --pids-limit=0", "--cgroup-manager=cgroupfs --runtime=runc run"]);
    runs_docker(&world);
    runs_stead(&world);
    reboots_and_goes_off(&world, |_| ());
}

#[test]
fn a_system_with_busybox_as_its_init_ends_when_it_is_told() {
    let Some(world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    let _registry = registry(&world);
    let table = "::sysinit:/bin/touch /run/up\n::respawn:/bin/sleep 1000\n::shutdown:/bin/touch /data/down\n";
    std::fs::write(world.path().join("inittab"), table).unwrap();
    let bound = "./inittab:/etc/inittab:ro";
    let words = ["run", "-d", "--system", "--name", "old", "-v", bound, "-v", "end:/data", BUSYBOX];
    stead(&world, &[&words[..], &["/bin/busybox", "init"]].concat()).ok();
    world.until("it is up", || {
        (stead(&world, &["exec", "old", "test", "-e", "/run/up"]).code == 0).then_some(())
    });
    // It was not killed, and has done what it does at the end.
    stead(&world, &["stop", "--time", "50", "old"]).ok();
    assert_ne!(stead(&world, &["wait", "old"]).ok(), "137\n");
    stead(&world, &["run", "--rm", "-v", "end:/data", BUSYBOX, "test", "-e", "/data/down"]).ok();
}

/// A system, and a container of its image that has no init.
const WORK: &str = "\
machines:
  dev:
    image: \"lab/system:12\"
    mode: system
    dev: { user: joe, groups: [audio, lab] }
  box: { image: \"lab/system:12\", init: true, command: sleep 1000, dev: true, provision: [id joe || id dev || id person] }
  slow:
    image: \"lab/system:12\"
    mode: system
    volumes: [\"./slow:/etc/systemd/system-generators/slow:ro\"]
    provision: [{ run: systemctl is-active dbus, user: nobody }]
";

#[test]
fn somebody_works_in_roots_machines() {
    if role() != Role::Root {
        return untested("it takes root");
    }
    let mut world = World::offline();
    load(&mut world);
    somebody_works(&world, "dev");
}

#[test]
fn somebody_works_in_a_users_machines() {
    let Some(mut world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    load(&mut world);
    // Ids of this computer are others in them.
    somebody_works(&world, "person");
}

#[track_caller]
fn somebody_works(world: &World, name: &str) {
    let line = "mkdir -p nobody/.ssh; ssh-keygen -q -t ed25519 -N '' -C mine -f nobody/.ssh/id_ed25519";
    world.sh(Place::Person, line);
    let shop = world.project("shop", WORK);
    // Of systemd there is a trace before it answers anybody: these are run then.
    let line = "printf '#!/bin/sh\nsleep 3\n' > projects/home/shop/slow; chmod 755 projects/home/shop/slow";
    world.sh(Place::Computer, line);
    world.sh(Place::Computer, "chown -R --reference=. projects");
    let up = shop.stead("up").ok();
    let user = format!("> provision box.shop (user {name})\n");
    assert!(up.contains("> provision dev.shop (user joe)\n") && up.contains(&user), "{up}");
    assert_eq!(shop.stead("up").ok(), "nothing to do\n");
    let ssh = |words: &[&str]| world.stead_at("home", &shop.directory, &[&["ssh"], words].concat());
    let line = "id -un; id -u; pwd; sudo -n id -u; echo $SHELL; ls -a";
    let told = |user: &str| {
        let files = ".\n..\n.bash_logout\n.bashrc\n.profile\n.ssh\n";
        format!("{user}\n1000\n/home/{user}\n0\n/bin/bash\n{files}")
    };
    assert_eq!(ssh(&["box", "--", line]).ok(), told(name));
    assert_eq!(ssh(&["dev", "--", line]).ok(), told("joe"));
    assert_eq!(ssh(&["-u", "root", "dev", "--", "id -un"]).ok(), "root\n");
    let shell = world.stead_command("home", &shop.directory, &["shell", "dev"]);
    let line = "id -nG; cut -d' ' -f3 .ssh/authorized_keys; systemctl is-active ssh; sudo -n visudo -c >&2\n";
    let said = said_after(shell, line, LIMIT).ok();
    assert_eq!(said, "joe audio lab\nbegin\nmine\nend\nactive\n");
    // Its own sshd knows the person by their own key.
    let line = "ssh-keyscan 127.0.0.1 2> /dev/null > .ssh/known_hosts; cat > .ssh/key; chmod 600 .ssh/key; \
        ssh -i .ssh/key -o BatchMode=yes joe@127.0.0.1 id -un";
    let key = std::fs::read_to_string(world.path().join("nobody/.ssh/id_ed25519")).unwrap();
    let words = ["exec", "-i", "-u", "joe", "-w", "/home/joe", "dev", "sh", "-c", line];
    let exec = world.stead_command("home", &shop.directory, &words);
    assert_eq!(said_after(exec, &key, LIMIT).ok(), "joe\n");
    shop.stead("down --yes").ok();
}

#[track_caller]
fn has_services(world: &World) {
    let line =
        "cat /proc/1/comm; systemd-detect-virt; systemctl is-active dbus systemd-journald systemd-logind";
    assert_eq!(exec(world, line).ok(), "systemd\ncontainer-other\nactive\nactive\nactive\n");
    let line =
        "echo hello from here | systemd-cat -t scene; journalctl --sync; journalctl -b -t scene -o cat";
    assert_eq!(exec(world, line).ok(), "hello from here\n");
    // A service of its own, in a cgroup of its own, as a user of its own.
    let line = "useradd -m joe
        printf '[Service]\\nUser=joe\\nRuntimeDirectory=joe\\nExecStart=/bin/sh -c \"id -un > /run/joe/who; exec sleep 1000\"\\n' > /etc/systemd/system/own.service
        systemctl start own
        while ! [ -s /run/joe/who ]; do sleep 0.1; done; cat /run/joe/who
        grep -q own.service /proc/$(systemctl show --value -p MainPID own)/cgroup && echo own";
    assert_eq!(exec(world, line).ok(), "joe\nown\n");
    // Somebody logs in.
    assert_eq!(exec(world, "su -l joe -c 'id -un; pwd'").ok(), "joe\n/home/joe\n");
    // What it says on its console is its log.
    let log = stead(world, &["logs", "dev"]).ok();
    assert!(log.contains("Welcome to") && log.contains("Login Management"), "{log}");
}

/// By OpenSSH's own client: through us, and from its own settings.
#[track_caller]
fn lets_ssh_in(world: &World) {
    let ssh = |words: &[&str]| stead(world, &[&["ssh", "dev"], words].concat());
    assert_eq!(ssh(&["--", "id -un; pwd; cat; exit 4"]).code(4).out, "root\n/root\n");
    assert_eq!(ssh(&["-u", "joe", "--", "id -un; pwd; tty"]).code(1).out, "joe\n/home/joe\nnot a tty\n");
    assert!(ssh(&["--", "-tt", "tty"]).ok().starts_with("/dev/pts/"));
    ssh(&["-u", "nobody-there", "--", "true"])
        .code(255)
        .says("there is no user `nobody-there`")
        .says("hint: ");
    let settings = stead(world, &["ssh-config"]).ok();
    std::fs::write(world.path().join("settings"), &settings).unwrap();
    world.sh(Place::Computer, "chmod 600 settings; chown --reference=. settings");
    let by = |line: &str| world.sh_said(Place::Person, &line.replace("SETTINGS", "-q -F settings"));
    let host = "root@dev.default.stead";
    // Who it is is verified, and nobody is asked about it.
    let line = format!("ssh -F settings -o UserKnownHostsFile=/dev/null {host} true");
    by(&line).code(255).says("verification failed");
    let line = format!(
        "echo carried > here; scp SETTINGS here {host}:/root/there; scp SETTINGS {host}:/root/there back
        cmp here back; echo 'get /root/there got' | sftp SETTINGS -b - {host}; cmp here got"
    );
    by(&line).ok();
    // Ports both ways, and the person's keys lent.
    let line = format!(
        "ssh SETTINGS -f -o ExitOnForwardFailure=yes -L 127.0.0.1:18096:127.0.0.1:18097 {host} \
            'exec systemd-socket-activate -l 127.0.0.1:18097 --inetd -a cat /etc/hostname 2> /dev/null' > /dev/null
        for i in $(seq 100); do socat -u TCP:127.0.0.1:18096 - 2> /dev/null | grep . && break; sleep 0.1; done"
    );
    assert_eq!(by(&line).ok(), "dev\n");
    let line = format!(
        "socat -U TCP-LISTEN:18098,bind=127.0.0.1,reuseaddr SYSTEM:'echo outside' &
        for i in $(seq 100); do ss -Hltn sport = 18098 | grep -q . && break; sleep 0.1; done
        ssh SETTINGS -o ExitOnForwardFailure=yes -R 127.0.0.1:18099:127.0.0.1:18098 {host} \
            'exec cat < /dev/tcp/127.0.0.1/18099'"
    );
    assert_eq!(by(&line).ok(), "outside\n");
    let line = format!(
        "ssh-keygen -q -t ed25519 -N '' -C lent -f lent; eval $(ssh-agent) > /dev/null; ssh-add -q lent
        ssh SETTINGS -A {host} ssh-add -L | cut -d' ' -f3; kill $SSH_AGENT_PID"
    );
    assert_eq!(by(&line).ok(), "lent\n");
    // It leaves nothing where the system's own files are, once its last program has ended.
    let line =
        "pkill -f '[s]ocket-activate'; find / -xdev -newer /etc/systemd/system/own.service -path '*ssh*'";
    world.until("nothing is left", || exec(world, line).ok().is_empty().then_some(()));
}

/// Its files are in a volume, so that the kernel stacks them.
#[track_caller]
fn runs_podman(world: &World, ways: [&str; 2]) {
    exec(world, "podman load -q -i /root/busybox.tar").ok();
    for run in ways {
        let line = format!(
            "podman {run} --rm {BUSYBOX}:latest sh -c 'cat /proc/1/comm /data/seed; ls /sys/class/net'"
        );
        assert_eq!(exec(world, &line).ok(), "sh\nfrom-the-image\neth0\nlo\n", "{run}");
    }
}

/// Its files are in a volume, so that it can have overlays; its network is of `docker0`, within.
#[track_caller]
fn runs_docker(world: &World) {
    if std::env::var_os("STEAD_TEST_DOCKER").is_none() {
        return untested("there is no Docker to be had");
    }
    let line = r"export PATH=/opt/docker/sbin:/opt/docker/bin:$PATH
        systemd-run -q --unit=engine -p Delegate=yes -E PATH=$PATH dockerd
        for i in $(seq 900); do docker info > /dev/null 2>&1 && break; sleep 0.1; done
        docker info -f '{{.Driver}}'; docker load -q -i /root/busybox.tar > /dev/null; image=$(docker images -q)
        docker run --rm -m 64m $image sh -c 'cat /proc/1/comm /data/seed; ls /sys/class/net'
        docker run -d --name web -p 8080:80 $image sh -c 'cd /data; httpd -f' > /dev/null
        for i in $(seq 300); do
            said=$(exec 3<> /dev/tcp/127.0.0.1/8080; printf 'GET /seed HTTP/1.0\r\n\r\n' >&3; tail -n1 <&3) || :
            [ -z $said ] || break; sleep 0.1
        done
        echo $said; docker exec web id -u; docker rm -f web; systemctl stop engine";
    let said = stead(world, &["exec", "dev", "bash", "-ec", line]).ok();
    assert_eq!(said, "overlay2\nsh\nfrom-the-image\neth0\nlo\nfrom-the-image\n0\nweb\n");
}

#[track_caller]
fn runs_stead(world: &World) {
    exec(world, "stead image load /root/busybox.tar").ok();
    // The system's root is an overlay, and on an overlay none can be mounted: the image is copied.
    let run = |options: &str, line: &str| {
        exec(world, &format!("stead run {options} --network none {BUSYBOX} {line}")).ok()
    };
    assert_eq!(run("--rm", "sh -c 'cat /data/seed; touch /new && ls /new'"), "from-the-image\n/new\n");
    assert_eq!(run("-d --init --name kept", "sleep 1000"), "kept\n");
    exec(world, "stead exec kept sh -c 'echo mine > /mine'").ok();
    exec(world, "stead stop kept; echo in > /root/in; stead cp /root/in kept:/in; stead start kept").ok();
    assert_eq!(exec(world, "stead exec kept cat /mine /in").ok(), "mine\nin\n");
    exec(world, "stead diff kept").code(2).says("overlayfs cannot be used");
    exec(world, "stead purge --yes").ok();
}

/// By its own systemd, of those that ran what is to run again. Until it reboots, they go on whatever becomes of the unit.
#[track_caller]
fn is_to_start_machines(world: &World) {
    let ends = "trap 'echo asked; exit' TERM; echo up; while :; do sleep 0.1; done";
    std::fs::write(world.path().join("ends.sh"), ends).unwrap();
    stead(world, &["cp", "ends.sh", "dev:/root/ends.sh"]).ok();
    let line = format!(
        "stead image load /root/busybox.tar > /dev/null
        for name in always unless-stopped no stopped; do
            policy=$(echo $name | sed s/^stopped/unless-stopped/)
            stead run -d --network none --name $name --restart $policy {BUSYBOX} sh -c \"$(cat /root/ends.sh)\"
            until stead logs $name | grep -q up; do sleep 0.1; done
        done
        stead stop stopped > /dev/null
        for who in '__keeper .* always.default' __anchor; do
            grep -c '^0:.*/system.slice/stead-.*.scope' /proc/$(pgrep -u root -f \"[s]tead $who\")/cgroup
        done
        stead autostart enable; stead autostart enable; stead autostart disable; stead autostart enable
        unit=/etc/systemd/system/stead-autostart.service; systemd-analyze verify $unit
        systemctl is-enabled stead-autostart; systemctl is-active stead-autostart; stat -c %a $unit
        export STEAD_HOME='/srv/a b%c'; stead autostart enable > /dev/null
        other=$(basename /etc/systemd/system/stead-autostart-*.service); systemd-analyze verify $other
        systemctl show -p Environment --value $other | grep -c 'STEAD_HOME=/srv/a b%c'
        stead purge --yes > /dev/null; ls /etc/systemd/system | grep -c autostart; unset STEAD_HOME
        stead ps --filter status=running | cut -d' ' -f1"
    );
    let enabled = "/etc/systemd/system/stead-autostart.service: enabled\n";
    let unset = "machines are not started with this computer\n";
    let running = "MACHINE\nalways.default\nno.default\nunless-stopped.default\n";
    let expected = format!(
        "always\nunless-stopped\nno\nstopped\n1\n1\n{enabled}{enabled}{unset}{enabled}enabled\nactive\n644\n1\n1\n{running}"
    );
    // In a session: what is begun there goes with it, and beside all else when the computer goes off.
    std::fs::write(world.path().join("begin.sh"), &line).unwrap();
    stead(world, &["cp", "begin.sh", "dev:/root/begin.sh"]).ok();
    let login = "systemd-run -q --uid=root -pPAMName=login --pipe --wait sh -e /root/begin.sh";
    let words: Vec<&str> = ["exec", "dev"].into_iter().chain(login.split(' ')).collect();
    let said = stead(world, &words);
    assert_eq!((said.err.as_str(), said.out.as_str()), ("", expected.as_str()));
    // What somebody changed is theirs.
    let change = |line: &str| {
        exec(world, &format!("sed -i s/=100$/=99/ /etc/systemd/system/stead-autostart.service; {line}"))
    };
    change("stead autostart enable").code(2).says("was changed since stead wrote it").says("hint: ");
    change("stead autostart disable").code(2).says("was changed since stead wrote it");
    let said =
        exec(world, "grep -c =99 /etc/systemd/system/stead-autostart.service; stead autostart status").ok();
    assert!(said.starts_with("1\n") && said.contains("enabled; somebody changed it\n"), "{said}");
    exec(world, "sed -i s/=99$/=100/ /etc/systemd/system/stead-autostart.service; systemctl daemon-reload")
        .ok();
    let said = exec(world, "stead autostart status").ok();
    assert!(
        said.contains("service: enabled\n")
            && said.contains("stopped.default         unless-stopped  stays: somebody stopped it\n"),
        "{said}"
    );
}

/// By a systemd of the user's that runs always.
#[track_caller]
fn is_to_start_a_users_machine(world: &World) {
    let line = format!(
        "stead image load ~/busybox.tar > /dev/null
        stead run -d --network none --name always --restart always {BUSYBOX} sh -c \"$(cat)\"
        until stead logs always | grep -q up; do sleep 0.1; done; stead autostart enable
        stead autostart status | grep lingering; systemctl --user is-enabled stead-autostart
        systemctl --user show -p Before --value 'stead-default-*.scope' | grep -o stead-autostart.service"
    );
    let words = [
        "exec",
        "dev",
        "sh",
        "-c",
        "cat /root/ends.sh | systemd-run -q --uid=joe -pPAMName=login --pipe --wait sh -ec \"$0\"",
        &line,
    ];
    let said = stead(world, &words).ok();
    let expected = "always\n/home/joe/.config/systemd/user/stead-autostart.service: enabled\nlingering is on: they start without anybody \
                    being logged in\nenabled\nstead-autostart.service\n";
    assert_eq!(said, expected);
}

/// Machines were asked to end before the system rebooted, and run again.
#[track_caller]
fn has_started_machines(world: &World) {
    let said =
        exec(world, "systemctl is-active stead-autostart; stead ps --filter status=running | cut -d' ' -f1")
            .ok();
    assert_eq!(said, "active\nMACHINE\nalways.default\nunless-stopped.default\n");
    for (user, name) in [("root", "always"), ("root", "unless-stopped"), ("joe", "always")] {
        let said = |line: &str| stead(world, &["exec", "dev", "su", "-l", user, "-c", line]).out;
        let logs = || Some(said(&format!("stead logs {name}"))).filter(|log| log.ends_with("asked\nup\n"));
        assert_eq!(world.until("it runs", logs), "up\nasked\nup\n", "{user} {name}");
        // Not by systemd, which ends what is left afterwards.
        let died = said(&format!("stead events --no-stream --filter event=die {name}"));
        assert!(died.ends_with(&format!("machine die {name}.default exit_code=0\n")), "{user}: {died}");
    }
}

/// By the user's own systemd. What it has no controller of is refused; it can be held still all the same.
#[track_caller]
fn gives_whoever_logs_in_a_cgroup_for_each_machine(world: &World) {
    exec(world, "mv /root/busybox.tar /home/joe; chown joe /home/joe/busybox.tar").ok();
    // In a session that belongs to root, as all have it who log in.
    let login = |line: &str| {
        let words =
            ["systemd-run", "-q", "--uid=joe", "-pPAMName=login", "--pipe", "--wait", "sh", "-ec", line];
        stead(world, &[&["exec", "dev"], &words[..]].concat())
    };
    let units = "systemctl --user list-units --no-legend --plain 'stead-*'";
    let run = format!("stead run -d --network none --name held {BUSYBOX} sleep 2000");
    let line = format!(
        "grep -q '/session-[0-9c]*.scope$' /proc/self/cgroup; stead image load ~/busybox.tar > /dev/null
        {run}; stead pause held > /dev/null; stead ps --format json | grep -o paused
        {units} | sed 's/-[0-9]*-[0-9]*.scope .* stead/ stead/'"
    );
    assert_eq!(login(&line).ok(), "held\npaused\nstead-default-held stead: machine held.default\n");
    // It goes on after that session, where systemd says that it is; the networks stay in the session, and keep that.
    let line = format!(
        "grep -c '^0:.*/session-' /proc/$(pgrep -u joe -f '[s]tead __anchor')/cgroup; stead unpause held > /dev/null
        grep -c '/stead-default-held-.*.scope/stead/.*/held.default$' /proc/$(pgrep -f '^sleep 2000')/cgroup
        stead exec held grep -c '^0::/$' /proc/self/cgroup
        stead stop --time 0 held > /dev/null; while {units} | grep -q .; do sleep 0.1; done
        stead run --rm -m 64m {BUSYBOX} true && exit 1; stead rm held > /dev/null; pgrep -u joe -f '[s]tead __anchor' || exit 3"
    );
    let said = login(&line).code(3);
    assert_eq!(said.out, "1\n1\n1\n");
    said.says("`memory`: controller `memory` is not delegated to this user").says("hint: leave it out");
    // Of whoever's systemd runs always no session is needed.
    exec(world, "loginctl enable-linger joe").ok();
    let line = format!("{run}; {units} | cut -d- -f1,2 | sort; stead purge --yes > /dev/null");
    assert_eq!(login(&line).ok(), "held\nstead-default\nstead-engine\n");
}

#[track_caller]
fn reboots_and_goes_off(world: &World, has_rebooted: fn(&World)) {
    exec(world, "touch /run/mark /var/mark; systemctl reboot").ok();
    world.until("it has come up again", || {
        (exec(world, "test -e /var/mark && ! test -e /run/mark").code == 0).then_some(())
    });
    until_up(world);
    has_rebooted(world);
    // This may end with it.
    exec(world, "systemctl poweroff");
    assert_eq!(stead(world, &["wait", "dev"]).ok(), "0\n");
    stead(world, &["start", "dev"]).ok();
    until_up(world);
    stead(world, &["stop", "--time", "50", "dev"]).ok();
    assert_eq!(stead(world, &["wait", "dev"]).ok(), "0\n");
}

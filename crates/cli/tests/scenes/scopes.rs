//! Limits where there is version 2 of control groups alone and systemd keeps it, for whoever logs in and for root: in a
//! guest, which has a kernel of its own. It is translated, and so there is one for all of this.

use crate::microvms::{GIVE, KERNEL, get_kernel, slowly};
use crate::support::registry::BUSYBOX;
use crate::support::{Place, Role, World, role, stead as program, untested};
use crate::systems::{IMAGE, load};

/// What each script begins with: whatever is not so ends it.
const BEGIN: &str = r#"
    set -e; cd /
    is() { [ "$1" = "$2" ] || { echo "not \`$2\` but \`$1\`"; exit 1; }; }
    tells() { grep -qF -- "$1" told || { cat told; exit 1; }; }
    until_is() { n=0; until [ "$(eval "$1")" = "$2" ]; do n=$((n + 1)); [ $n -lt 300 ] || is "$(eval "$1")" "$2"; sleep 0.2; done; }
    cd $(mktemp -d)
"#;

/// The guest is made ready.
const READY: &str = r#"
    cp /given/files/bin/stead /usr/bin/stead
    for module in /given/*.ko; do /given/busybox insmod $module; done
    useradd -m joe
    grep -q '^cgroup2 /sys/fs/cgroup ' /proc/mounts; ! grep -q '^cgroup ' /proc/mounts
"#;

/// A machine is held to limits, whoever's it is. Its cgroup is to be like `$1`.
const LIMITS: &str = r#"
    stead image load /given/busybox.tar > told
    stead run -d --network none --memory 64m --pids-limit 50 --cpus 0.5 --cpu-shares 512 --memory-reservation 16m --name held BUSYBOX sleep 2000
    own=$(sed -n s/^0:://p /proc/$(pgrep -f '^sleep 2000')/cgroup)
    case $own in $1) ;; *) is "$own" "$1";; esac
    c=/sys/fs/cgroup$own
    is "$(cd $c; cat memory.max pids.max cpu.max cpu.weight memory.low | tr '\n' ' ')" '67108864 50 50000 100000 20 16777216 '

    # What joins it is in it, and sees only that.
    stead exec -d held sleep 2001
    until_is "wc -l < $c/cgroup.procs" 2
    is "$(stead exec held cat /proc/self/cgroup /sys/fs/cgroup/pids.max | tr '\n' ' ')" '0::/ 50 '
    stead stats --no-stream --format json held > told
    tells '"memory_limit_bytes": 67108864,'; tells '"pids": 2,'; tells '"pids_limit": 50,'
    [ $(grep -o '"memory_bytes": *[0-9]*' told | grep -o '[0-9]*$') -gt 0 ]
    stead inspect held > told; tells 'memory     67108864 bytes'

    # Held still.
    stead pause held
    is "$(grep -c 'frozen 1' $c/cgroup.events)" 1; is "$(stead ps --format json | grep -o paused)" paused
    stead unpause held
    is "$(grep -c 'frozen 0' $c/cgroup.events)" 1
    stead exec held true
"#;

/// What a machine takes too much of: memory, and processes.
const TOO_MUCH: &str = r#"
    grow='x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done'
    stead run --network none --memory 32m --memory-swap 32m --name grows BUSYBOX sh -c "$grow" && exit 1
    stead ps --all > told; tells 'exited (137)'; tells 'out of memory'
    stead events --no-stream --filter event=oom > told; tells 'machine oom grows.default'
    stead exec held sh -c "$grow" > told 2>&1 && exit 1
    stead inspect held > told; tells 'status     running'
    stead run --rm --network none --pids-limit 5 BUSYBOX sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 1 & done' > told 2>&1 && exit 1
    tells "can't fork"
    stead rm grows
"#;

/// What joe does in a session, which ends.
const FIRST: &str = r#"
    grep -q '/session-[0-9c]*.scope$' /proc/self/cgroup
    # systemd hands controllers on when it gets round to it.
    until_is "grep -c 'cpu.*memory.*pids' /sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers" 1
    set -- '/user.slice/user-1000.slice/user@1000.service/app.slice/stead-default-held-*.scope/stead/*/held.default'
"#;

/// In another one, when systemd runs always for joe.
const SECOND: &str = r#"
    units="systemctl --user list-units --no-legend --plain 'stead-*' | cut -d- -f1-3"
    is "$(stead exec held cat /sys/fs/cgroup/memory.max)" 67108864
    is "$(eval "$units")" stead-default-held
    stead rm -f held; until_is "$units" ''
    is "$(find /sys/fs/cgroup -name 'stead*')" ''

    # All is systemd's, and needs no session.
    stead run -d --network none --memory 64m --name kept BUSYBOX sleep 2002
    is "$(grep -c user@1000.service $(pgrep -u joe stead | sed 's,.*,/proc/&/cgroup,') | cut -d: -f2 | sort -u)" 1
    stead run --rm --network none --blkio-weight 200 BUSYBOX true 2> told && exit 1
    tells 'is not delegated to this user'"'"'s systemd, which has `cpu memory pids`'; tells 'systemctl --user daemon-reexec'
"#;

/// Root gives joe's systemd one controller more, as the hint says; that one runs on.
const GIVES: &str = r#"
    mkdir /etc/systemd/system/user@.service.d
    printf '[Service]\nDelegate=cpu cpuset io memory pids\n' > /etc/systemd/system/user@.service.d/delegate.conf
    systemctl daemon-reload
"#;

/// In a third one.
const THIRD: &str = r#"
    is "$(stead exec kept cat /sys/fs/cgroup/memory.max)" 67108864
    weight() { stead run --rm --network none --blkio-weight 200 --name weighs BUSYBOX cat /sys/fs/cgroup/io.weight; }
    weight 2> told && exit 1; tells 'has no controller `io`'; tells 'systemctl --user daemon-reexec'
    systemctl --user daemon-reexec
    is "$(weight 2> told)" 'default 1920'
    stead purge --yes > told
    until_is "systemctl --user list-units --no-legend --plain 'stead-*'" ''
    is "$(find /sys/fs/cgroup -name 'stead*')" ''
"#;

/// What root does at last: it has cgroups beside those of systemd, which keeps to its own.
const ROOTS: &str = r#"
    systemctl daemon-reload; systemctl set-property --runtime dbus.service MemoryMax=200M CPUWeight=50 IOWeight=50
    systemd-run -q --wait -p MemoryMax=50M -p CPUQuota=20% -p IOWeight=50 true
    systemctl daemon-reexec
    is "$(cd $c; cat memory.max pids.max cpu.max | tr '\n' ' ')" '67108864 50 50000 100000 '
    is "$(systemctl is-system-running)" running
    stead purge --yes > told
    is "$(find /sys/fs/cgroup -name 'stead*')" ''; is "$(systemctl list-units --no-legend --plain 'stead-*')" ''
"#;

#[test]
fn limits_are_held_where_systemd_keeps_version_2_alone() {
    if role() == Role::User {
        return untested("a guest is the same for whoever starts it, and takes its time");
    }
    let mut world = World::offline();
    load(&mut world);
    get_kernel(&world);
    give(&world);
    let words = "run -d --kind microvm --name box --privileged --memory 1g --tmpfs /run --tmpfs /tmp -e container=stead \
        --stop-signal SIGRTMIN+3 -v ./given:/given:ro";
    let words: Vec<&str> = words.split_whitespace().chain([IMAGE, "/sbin/init"]).collect();
    slowly(&world, world.path(), &words).ok();
    let exec = |line: &str| slowly(&world, world.path(), &["exec", "box", "sh", "-c", line]);
    let up =
        "until [ -S /run/dbus/system_bus_socket ]; do sleep 0.2; done; systemctl is-system-running --wait";
    assert_eq!(exec(up).ok(), "running\n");
    let so = |name: &str, line: &str| {
        let said = exec(&format!("{line} sh /given/{name} 2>&1")).out;
        assert!(said.ends_with("all of it is so\n"), "{name}: {said}");
    };
    let root = |name: &str| so(name, "");
    let joe = |name: &str| so(name, "systemd-run -q --uid=joe -pPAMName=login --pipe --wait");
    root("ready");
    joe("first");
    exec("loginctl enable-linger joe").ok();
    joe("second");
    root("gives");
    joe("third");
    root("roots");
    slowly(&world, world.path(), &["rm", "-f", "box"]).ok();
}

/// What the guest needs, and what is run in it.
fn give(world: &World) {
    world.sh(Place::Computer, &GIVE.replace("STEAD", program()).replace("KERNEL", KERNEL));
    world.sh(Place::Computer, "mv busybox.tar given; cp $(command -v busybox) given; chmod -R a+rX given");
    let roots = ["set -- '/stead/*/held.default'", LIMITS, ROOTS].concat();
    let first = [FIRST, LIMITS, TOO_MUCH].concat();
    for (name, text) in [
        ("ready", READY),
        ("first", &first),
        ("second", SECOND),
        ("gives", GIVES),
        ("third", THIRD),
        ("roots", &roots),
    ] {
        let text = [BEGIN, text, "echo all of it is so\n"].concat().replace("BUSYBOX", BUSYBOX);
        std::fs::write(world.path().join("given").join(name), text).unwrap();
    }
}

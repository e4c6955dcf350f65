//! What programs of OCI bundles find themselves in, judged by the runtime specification's text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unreachable_pub, missing_docs)]

mod oci_support;

use std::fs;
use std::process::{Child, Command, Stdio};

use oci_support::{Bundle, is_root, untested};
use serde_json::json;

/// A bundle whose root can be written.
fn writable() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.set("/root/readonly", json!(false));
    bundle
}

#[test]
fn what_spec_writes_runs() {
    let mut bundle = Bundle::new();
    let line = "echo $$; hostname; id -u; pwd; (touch /x) 2>&1 | grep -o Read-only; grep NoNewPrivs /proc/self/status | tr -d '\\t'";
    assert_eq!(bundle.sh(line).ok(), "1\nbox\n0\n/\nRead-only\nNoNewPrivs:1\n");
    bundle.sh("exit 9").code(9);
    bundle.sh("kill -9 $$; sleep 1").code(0);
    bundle.is_empty();
}

#[test]
fn mounts_are_made_as_listed_with_their_options() {
    let mut bundle = writable();
    let share = bundle.text("share");
    let bind = |target: &str, options: &[&str]| json!({"destination": target, "source": share, "type": "none", "options": options});
    bundle.add("/mounts", bind("/one", &["bind", "ro", "nosuid"]));
    bundle.add("/mounts", bind("two/deep", &["rbind", "noexec", "nodev"]));
    bundle.add(
        "/mounts",
        json!({"destination": "/file", "source": "share/file", "type": "bind", "options": ["bind"]}),
    );
    bundle.add(
        "/mounts",
        json!({"destination": "/mem", "type": "tmpfs", "options": ["size=64k", "mode=700", "noatime"]}),
    );
    bundle.add("/mounts", json!({"destination": "/data", "type": "tmpfs", "options": ["tmpcopyup", "ro"]}));
    bundle.add("/mounts", json!({"destination": "/one/inner", "type": "tmpfs", "options": ["strictatime"]}));
    let show = "awk '$5 ~ \"^/(one|two|file|mem|data)\" {print $5, $6}' /proc/self/mountinfo; cat /one/file /file /data/file; \
        stat -c %a /mem /data; (echo x > /one/y) 2>&1 | grep -o Read-only; ls /one/inner; df -k /mem | awk 'NR == 2 {print $2}'";
    let said = bundle.sh(show).ok();
    let (mounts, rest) = said.split_at(said.find("shared\n").unwrap());
    let options: Vec<(&str, Vec<&str>)> = mounts
        .lines()
        .map(|line| {
            let (place, options) = line.split_once(' ').unwrap();
            (place, options.split(',').filter(|word| *word != "relatime").collect())
        })
        .collect();
    for (place, wanted) in [
        ("/one", vec!["ro", "nosuid"]),
        ("/two/deep", vec!["rw", "nodev", "noexec"]),
        ("/mem", vec!["rw", "noatime"]),
        ("/data", vec!["ro"]),
        ("/one/inner", vec!["rw"]),
    ] {
        let (_, found) =
            options.iter().find(|(found, _)| *found == place).unwrap_or_else(|| panic!("{place}: {said}"));
        assert!(wanted.iter().all(|word| found.contains(word)), "{place}: {found:?}");
    }
    // As listed, and nothing else than listed.
    let order: Vec<&str> = options.iter().map(|(place, _)| *place).collect();
    if is_root() {
        assert_eq!(order, ["/one", "/two/deep", "/file", "/mem", "/data", "/one/inner"]);
    }
    assert_eq!(rest, "shared\nshared\nhello\n700\n750\nRead-only\n64\n");
    assert!(!bundle.path("share/y").exists());
    bundle.is_empty();
}

#[test]
fn a_bind_mount_without_recursion_leaves_what_is_below() {
    if !is_root() {
        return untested("who is root of a user namespace only must not uncover what is below a mount");
    }
    let mut bundle = writable();
    // In the container's eyes: a mount below the source is there with `rbind`, and not with `bind`.
    let inner = bundle.text("share/inner");
    Command::new("mount").args(["-t", "tmpfs", "tmpfs", &inner]).status().unwrap();
    let share = bundle.text("share");
    bundle.add("/mounts", json!({"destination": "/one", "source": share, "options": ["bind"]}));
    bundle.add("/mounts", json!({"destination": "/all", "source": share, "options": ["rbind", "rro"]}));
    let said =
        bundle.sh("ls /one/inner; echo -; ls /all/inner; (touch /all/inner/x) 2>&1 | grep -o Read-only");
    Command::new("umount").arg(&inner).status().unwrap();
    assert_eq!(said.ok(), "file\n-\nRead-only\n");
}

#[test]
fn mounts_spread_as_they_are_told() {
    let mut bundle = writable();
    for word in ["shared", "slave", "private", "unbindable"] {
        let options = json!(["bind", word]);
        bundle.add(
            "/mounts",
            json!({"destination": format!("/{word}"), "source": "share", "type": "bind", "options": options}),
        );
    }
    // Field 7 and on, up to the hyphen, say it.
    let show = "awk '$5 ~ \"^/(shared|slave|private|unbindable)$\" {print $5, $7}' /proc/self/mountinfo | sed 's/:.*//'";
    let said = bundle.sh(show).ok();
    assert!(said.contains("/shared shared\n"), "{said}");
    assert!(said.contains("/private -\n"), "{said}");
    assert!(said.contains("/unbindable unbindable\n"), "{said}");
    for (word, shown) in
        [("rshared", "shared shared"), ("rprivate", "- -"), ("runbindable", "unbindable unbindable")]
    {
        bundle.set("/linux/rootfsPropagation", json!(word));
        let both =
            "awk '$5 == \"/\" || $5 == \"/proc\" {print $7}' /proc/self/mountinfo | sed 's/:.*//' | xargs";
        assert_eq!(bundle.sh(both).ok(), format!("{shown}\n"), "{word}");
    }
    let root = "awk '$5 == \"/\" {print $7}' /proc/self/mountinfo | sed 's/:.*//' | tail -n 1";
    for (word, shown) in [("shared", "shared\n"), ("private", "-\n"), ("unbindable", "unbindable\n")] {
        bundle.set("/linux/rootfsPropagation", json!(word));
        assert_eq!(bundle.sh(root).ok(), shown, "{word}");
    }
    bundle.set("/linux/rootfsPropagation", json!("upwards"));
    bundle.sh(root).code(125).says("`linux.rootfsPropagation` cannot be `upwards`");
    bundle.is_empty();
}

#[test]
fn a_mount_that_is_to_receive_does_so_whatever_becomes_of_the_root() {
    if !is_root() {
        return untested(
            "who is root of a user namespace only receives what this computer mounts, and mounts nothing",
        );
    }
    let share = Bundle::new();
    let (top, inner) = (share.text("share"), share.text("share/inner"));
    let mount = |words: &[&str]| {
        assert!(Command::new("mount").args(words).status().unwrap().success(), "{words:?}");
    };
    mount(&["-t", "tmpfs", "tmpfs", &top]);
    mount(&["--make-shared", &top]);
    fs::create_dir(&inner).unwrap();
    for (root, seen) in [("private", "slave\n"), ("slave", "slave\nplain\n"), ("unbindable", "slave\n")] {
        let mut bundle = writable();
        bundle.set("/linux/rootfsPropagation", json!(root));
        for (place, options) in [
            ("/slave", vec!["rbind", "rslave"]),
            ("/private", vec!["rbind", "rprivate"]),
            ("/plain", vec!["rbind"]),
        ] {
            bundle.add(
                "/mounts",
                json!({"destination": place, "source": top, "type": "none", "options": options}),
            );
        }
        bundle.line(
            "until [ -e /tmp/go ]; do sleep 0.05; done; for name in slave private plain; do \
            [ -e /$name/inner/late ] && echo $name; done > /tmp/seen; exit 0",
        );
        bundle.create("box").code(0);
        bundle.oci(&["start", "box"]).ok();
        mount(&["-t", "tmpfs", "tmpfs", &inner]);
        fs::write(share.path("share/inner/late"), "").unwrap();
        fs::write(bundle.path("rootfs/tmp/go"), "").unwrap();
        bundle.until("box", "stopped");
        let said = fs::read_to_string(bundle.path("rootfs/tmp/seen")).unwrap();
        bundle.oci(&["delete", "box"]).ok();
        Command::new("umount").arg(&inner).status().unwrap();
        assert_eq!(said, seen, "{root}");
    }
    Command::new("umount").arg(&top).status().unwrap();
}

#[test]
fn what_is_masked_is_hidden_and_what_is_read_only_is_fixed() {
    let mut bundle = writable();
    bundle.add("/linux/maskedPaths", json!("/data"));
    bundle.add("/linux/maskedPaths", json!("/etc/passwd"));
    bundle.add("/linux/maskedPaths", json!("/not/there"));
    bundle.add("/linux/readonlyPaths", json!("/tmp"));
    let line = "ls /data; (touch /data/x) 2>&1 | grep -o Read-only; cat /etc/passwd; (touch /tmp/x) 2>&1 | grep -o Read-only; \
        (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo fixed; wc -c < /proc/keys; touch /root-is-writable && echo w";
    assert_eq!(bundle.sh(line).ok(), "Read-only\nRead-only\nfixed\n0\nw\n");
}

#[test]
fn devices_are_the_usual_ones_and_those_asked_for() {
    let mut bundle = writable();
    let usual = "cd /dev; echo x > null; head -c 3 zero | wc -c; (echo x > full) 2>&1 | grep -o 'No space'; \
        head -c 3 urandom | wc -c; readlink fd; readlink ptmx; stat -c %F random tty";
    assert_eq!(
        bundle.sh(usual).ok(),
        "3\nNo space\n3\n/proc/self/fd\npts/ptmx\ncharacter special file\ncharacter special file\n"
    );
    bundle.add("/linux/devices", json!({"type": "p", "path": "/pipe", "fileMode": 0o640}));
    assert_eq!(bundle.sh("stat -c '%F %a' /pipe").ok(), "fifo 640\n");
    bundle.add("/linux/devices", json!({"type": "c", "path": "/data/file", "major": 1, "minor": 3}));
    let refused = bundle.sh("true").code(125);
    assert!(is_root() == refused.err.contains("there is another file"), "{}", refused.err);
    bundle.set("/linux/devices", json!([{"type": "x", "path": "dev"}]));
    bundle.sh("true").code(125).says("`x` is no kind of device").says("its path is not absolute");
    if !is_root() {
        return;
    }
    let device = |path: &str| json!({"type": "c", "path": path, "major": 10, "minor": 237, "fileMode": 0o604, "uid": 5, "gid": 6});
    bundle.set("/linux/devices", json!([device("/dev/loop"), device("/elsewhere/loop")]));
    let line = "stat -c '%F %a %u %g %t:%T' /dev/loop /elsewhere/loop; (: < /dev/loop) 2>&1 | grep -o 'not permitted'";
    let shown = "character special file 604 5 6 a:ed\n";
    assert_eq!(bundle.sh(line).out, format!("{shown}{shown}not permitted\n"));
    // The last rule that fits holds.
    let rule = |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 10, "minor": 237, "access": access});
    bundle.set("/linux/devices/0/fileMode", json!(0o666));
    bundle.set(
        "/linux/resources/devices",
        json!([{"allow": false, "access": "rwm"}, rule(true, "rw"), rule(false, "w")]),
    );
    let line = "(: < /dev/loop) && echo read; (: > /dev/loop) 2>&1 | grep -o 'not permitted'";
    assert_eq!(bundle.sh(line).out, "read\nnot permitted\n");
    bundle.is_empty();
}

#[test]
fn capabilities_are_the_five_sets() {
    let mut bundle = Bundle::new();
    let some = json!(["CAP_KILL", "CAP_CHOWN"]);
    bundle.set("/process/noNewPrivileges", json!(false));
    bundle.set(
        "/process/capabilities",
        json!({"bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SYS_TIME"], "effective": ["CAP_KILL"], "permitted": some,
            "inheritable": some, "ambient": ["CAP_KILL"]}),
    );
    let show = "grep Cap /proc/self/status | tr -d '\\t\\n'";
    let all = |i: &str, p: &str, e: &str, b: &str, a: &str| {
        let wide = |text: &str| format!("{text:0>16}");
        format!("CapInh:{}CapPrm:{}CapEff:{}CapBnd:{}CapAmb:{}", wide(i), wide(p), wide(e), wide(b), wide(a))
    };
    // The kernel gives root all of the bounding set when it runs a program.
    let root = all("21", "2000021", "2000021", "2000021", "20");
    assert_eq!(bundle.sh(show).ok(), root);
    if is_root() {
        bundle.set("/process/user", json!({"uid": 33, "gid": 34}));
        assert_eq!(bundle.sh(show).ok(), all("21", "20", "20", "2000021", "20"));
    }
    // What nobody has, or what goes beyond another set, is not granted, and is worth a word.
    bundle.add("/process/capabilities/bounding", json!("CAP_NOBODY"));
    for (set, name) in [("inheritable", "CAP_FOWNER"), ("ambient", "CAP_SETGID"), ("effective", "CAP_MKNOD")]
    {
        bundle.add(&format!("/process/capabilities/{set}"), json!(name));
    }
    let said = bundle.sh(show).code(0);
    assert_eq!(said.out, if is_root() { all("21", "20", "20", "2000021", "20") } else { root });
    said.says("`CAP_NOBODY` is no capability that we know")
        .says("inheritable capability `CAP_FOWNER` is not granted: it is not in the bounding set")
        .says("ambient capability `CAP_SETGID` is not granted: it is not permitted and inheritable")
        .says("effective capability `CAP_MKNOD` is not granted: it is not permitted");
}

#[test]
fn capabilities_that_whoever_makes_the_container_has_not_are_told_of() {
    let mut bundle = Bundle::new();
    bundle.add("/process/capabilities/bounding", json!("CAP_CHOWN"));
    bundle.line("true");
    bundle.write();
    // Of the bounding set it takes away what is then not there to be granted either.
    let text = bundle.text("");
    let root = bundle.text("containers");
    let without =
        ["setpriv", "--bounding-set", "-chown", env!("CARGO_BIN_EXE_stead"), "oci", "--root", &root];
    let line = [&without[..], &["run", "--bundle", &text, "box"]].concat();
    let said: oci_support::Said = bundle.command(&line).output().unwrap().into();
    said.code(0)
        .says("bounding capability `CAP_CHOWN` is not granted: whoever makes the container has it not");
    bundle.is_empty();
}

#[test]
fn users_groups_limits_and_the_like_are_as_said() {
    let mut bundle = writable();
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]));
    bundle.set("/process/cwd", json!("/made/here"));
    bundle.set("/process/env", json!(["PATH=/bin", "A=b"]));
    bundle.set("/process/oomScoreAdj", json!(500));
    bundle.set("/process/noNewPrivileges", json!(false));
    bundle.set("/domainname", json!("lab"));
    bundle.set("/process/user/umask", json!(0o27));
    let line = "ulimit -Sn; ulimit -Hn; ulimit -c; pwd; env | sort | tr '\\n' ' '; cat /proc/self/oom_score_adj; \
        grep NoNewPrivs /proc/self/status | tr -d '\\t'; cat /proc/sys/kernel/domainname; umask; touch /f; stat -c %a /f; ls /proc/self/fd | wc -l";
    assert_eq!(
        bundle.sh(line).ok(),
        "100\n200\n0\n/made/here\nA=b HOME=/root PATH=/bin PWD=/made/here SHLVL=1 500\nNoNewPrivs:0\nlab\n0027\n640\n4\n"
    );
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}, {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]));
    bundle.sh("true").code(125).says("`RLIMIT_NOFILE` is given twice");
    bundle.set("/process/rlimits", json!([]));
    if is_root() {
        bundle.set("/process/user", json!({"uid": 33, "gid": 34, "additionalGids": [5, 77]}));
        bundle.set("/process/cwd", json!("/"));
        assert_eq!(bundle.sh("id -u; id -g; id -G; echo $HOME").ok(), "33\n34\n34 5 77\n/home/web\n");
    }
}

#[test]
fn kernel_parameters_are_those_of_its_namespaces() {
    let mut bundle = Bundle::new();
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "70000"}));
    assert_eq!(bundle.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax").ok(), "1\n70000\n");
    let list = bundle.config["linux"]["namespaces"].as_array().unwrap().clone();
    let without = |kind: &str| json!(list.iter().filter(|entry| entry["type"] != kind).collect::<Vec<_>>());
    bundle.set("/linux/namespaces", without("network"));
    bundle.sh("true").code(125).says("`net.ipv4.ip_forward` is this computer's");
    bundle.set("/linux/namespaces", without("ipc"));
    bundle.sh("true").code(125).says("`kernel.shmmax` is this computer's");
    bundle.set("/linux/namespaces", without("uts"));
    bundle.set("/linux/sysctl", json!({}));
    bundle.sh("true").code(125).says("`hostname` would be this computer's");
}

#[test]
fn a_cgroup_in_which_others_are_is_not_taken() {
    if !is_root() {
        return untested("no cgroups are delegated here");
    }
    let mut bundle = Bundle::new();
    let name = bundle.path("").file_name().unwrap().to_str().unwrap().to_owned();
    bundle.set("/linux/cgroupsPath", json!(format!("/{name}/one")));
    bundle.line("while :; do sleep 1; done");
    bundle.create("box").code(0);
    bundle.oci(&["start", "box"]).ok();
    for (path, why) in
        [(format!("/{name}"), "has others below it"), (format!("/{name}/one"), "has processes in it")]
    {
        bundle.set("/linux/cgroupsPath", json!(path));
        bundle.create("other").code(2).says(why);
    }
    assert_eq!(bundle.state("box")["status"], "running", "whoever is refused ends nobody");
    bundle.oci(&["delete", "--force", "box"]).ok();
    for left in oci_support::cgroups_named(std::path::Path::new("/sys/fs/cgroup"), &name) {
        fs::remove_dir(left).unwrap();
    }
    bundle.is_empty();
}

/// Somebody in namespaces of their own.
fn other(bundle: &Bundle, option: &str) -> Child {
    let mut command = bundle.command(&["unshare", option, "sh", "-c", "echo; exec cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    child
}

#[test]
fn namespaces_are_made_joined_or_this_computers() {
    let mut bundle = Bundle::new();
    // Who is root of a user namespace only cannot mount those of somebody else's namespaces.
    let mounts = bundle.config["mounts"].as_array().unwrap().clone();
    let is_own = |kind: &str| !matches!(kind, "mqueue" | "cgroup");
    let mounts: Vec<_> = mounts.into_iter().filter(|mount| is_own(mount["type"].as_str().unwrap())).collect();
    bundle.set("/mounts", json!(mounts));
    let mut holder = other(&bundle, "--net");
    let path = format!("/proc/{}/ns/net", holder.id());
    let joined = fs::read_link(&path).unwrap().display().to_string();
    bundle.set(
        "/linux/namespaces",
        json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "network", "path": path}, {"type": "time"}]),
    );
    bundle.set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000}}));
    bundle.set("/root/readonly", json!(false));
    let show =
        "for kind in net ipc uts time; do readlink /proc/self/ns/$kind; done; cut -d. -f1 /proc/uptime";
    let said = bundle.sh(show);
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let said = said.ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], lines[1]), (joined.as_str(), own("ipc").as_str()));
    assert_ne!(lines[2], own("uts"));
    assert_ne!(lines[3], own("time"));
    assert!(lines[4].parse::<u64>().unwrap() >= 1_000_000, "{said}");
    bundle.set("/linux/timeOffsets", json!({}));
    bundle.set("/linux/namespaces", json!([{"type": "mount"}, {"type": "uts", "path": path}]));
    bundle.sh(show).code(125).says("is a namespace of another kind");
    bundle.set("/linux/namespaces", json!([{"type": "mount"}, {"type": "uts", "path": "/proc/version"}]));
    bundle.sh(show).code(125).says("`/proc/version` is no namespace");
    holder.kill().unwrap();
    holder.wait().unwrap();
    bundle.is_empty();
}

#[test]
fn without_a_namespace_of_mounts_they_go_when_the_container_is_deleted() {
    let mut bundle = Bundle::new();
    bundle.set(
        "/linux/namespaces",
        json!([{"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}, {"type": "cgroup"}]),
    );
    let own = bundle.command(&["readlink", "/proc/self/ns/mnt"]).output().unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    assert_eq!(bundle.sh("readlink /proc/self/ns/mnt; ls / | grep data").ok(), format!("{own}data\n"));
    let table = bundle.command(&["cat", "/proc/self/mountinfo"]).output().unwrap();
    assert!(!String::from_utf8(table.stdout).unwrap().contains(&bundle.text("")));
    bundle.is_empty();
}

#[test]
fn users_are_mapped() {
    if !is_root() {
        return untested("it takes more than one id");
    }
    let mut bundle = Bundle::new();
    // Nobody in there may see the directory above the root.
    fs::set_permissions(bundle.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    bundle.add("/linux/namespaces", json!({"type": "user"}));
    bundle.sh("true").code(125).says("a new user namespace needs `linux.uidMappings`");
    bundle.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]));
    bundle.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]));
    bundle.set("/root/readonly", json!(false));
    Command::new("chown").args(["-R", "100000:200000", &bundle.text("rootfs")]).status().unwrap();
    let line = "awk '{print $1, $2, $3}' /proc/self/uid_map /proc/self/gid_map; id -u; echo x > /dev/null; ls -ln /proc/self/status | awk '{print $3}'; echo a > /tmp/a";
    assert_eq!(bundle.sh(line).ok(), "0 100000 1000\n0 200000 1000\n0\n0\n");
    let owner = fs::metadata(bundle.path("rootfs/tmp/a")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 100_000);
    bundle.set("/process/user", json!({"uid": 999, "gid": 1000, "additionalGids": [5, 1001]}));
    let said =
        bundle.create("box").code(2).says("there is no group 1000 in").says("there is no group 1001 in");
    assert!(!said.err.contains("user 999"), "{}", said.err);
    // Those of a user namespace that is joined show when we are in it.
    let mut holder = other(&bundle, "--map-root-user");
    let path = format!("/proc/{}/ns/user", holder.id());
    bundle.set("/linux/namespaces", json!([{"type": "mount"}, {"type": "user", "path": path}]));
    bundle.set("/linux/uidMappings", json!([]));
    bundle.set("/linux/gidMappings", json!([]));
    bundle.set("/mounts", json!([]));
    bundle.set("/hostname", json!(""));
    bundle.set("/process/user", json!({"uid": 5, "gid": 0}));
    bundle.create("box").code(1).says("there is no user 5 in the user namespace");
    holder.kill().unwrap();
    holder.wait().unwrap();
    bundle.is_empty();
}

#[test]
fn system_calls_are_filtered() {
    let mut bundle = writable();
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            // Many profiles are older than this one, which it takes us to begin.
            {"names": ["openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        ]}),
    );
    for no_new_privileges in [true, false] {
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        // Who may load a filter without that has to have rights.
        let line = "mkdir /x 2>&1 | grep -o 'No space'; grep '^Seccomp:' /proc/self/status | tr -d '\\t'";
        assert_eq!(bundle.sh(line).ok(), "No space\nSeccomp:2\n", "{no_new_privileges}");
    }
    bundle.set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]));
    bundle.sh("true").code(125).says("flag `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` is not supported");
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}));
    bundle.sh("true").code(125).says("`SCMP_ACT_ALLOW` has no errno to return");
}

#[test]
fn cgroups_are_where_they_are_asked_for_with_their_limits() {
    if !is_root() {
        return untested("no cgroups are delegated here");
    }
    let mut bundle = Bundle::new();
    let name = bundle.path("").file_name().unwrap().to_str().unwrap().to_owned();
    bundle.set("/linux/cgroupsPath", json!(format!("/{name}/inner")));
    let namespaces = bundle.config["linux"]["namespaces"].as_array().unwrap().clone();
    let host_cgroups: Vec<_> = namespaces.into_iter().filter(|entry| entry["type"] != "cgroup").collect();
    bundle.set("/linux/namespaces", json!(host_cgroups));
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20}));
    bundle.set("/linux/resources/pids", json!({"limit": 33}));
    let line = "grep -c inner /proc/self/cgroup; grep inner /proc/self/cgroup | cut -d: -f3 | sort -u; cd /sys/fs/cgroup; \
        cat memory/memory.limit_in_bytes memory.max 2>/dev/null; cat pids/pids.max pids.max 2>/dev/null; true";
    let said = bundle.sh(line);
    for left in oci_support::cgroups_named(std::path::Path::new("/sys/fs/cgroup"), &name) {
        assert!(!left.join("inner").exists(), "{}", left.display());
        // What is above is the caller's to remove.
        fs::remove_dir(left).unwrap();
    }
    let lines: Vec<String> = said.code(0).out.lines().map(str::to_owned).collect();
    assert_ne!(lines[0], "0");
    assert_eq!(lines[1..], [format!("/{name}/inner"), "67108864".to_owned(), "33".to_owned()]);
    // One process is enough for a program that makes none; those that make it do not count.
    bundle.set("/linux/resources/pids", json!({"limit": 1}));
    bundle.line("echo one; (true) 2>/dev/null || echo no more");
    assert_eq!(bundle.run().out, "one\n");
    // What this computer lacks shows before anything is made.
    bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "3MB", "limit": 1}]));
    bundle.sh("true").code(125).says("hugetlb");
    bundle.set("/linux/resources/hugepageLimits", json!([]));
    bundle.set("/linux/resources/blockIO", json!({"leafWeight": 500}));
    bundle.sh("true").code(125).says("`blkio.leaf_weight`");
    bundle.set("/linux/resources/blockIO", json!({}));
    bundle.set("/linux/resources/unified", json!({"nosuch.max": "1"}));
    bundle.sh("true").code(125).says("`nosuch.max`");
    bundle.set("/linux/resources/unified", json!({}));
    bundle.set("/linux/resources/memory", json!({"kernel": 64 << 20}));
    let said = bundle.sh("true").code(0).err;
    assert_eq!(said.matches("`memory.kernel` is not limited").count(), 1, "{said}");
    for left in oci_support::cgroups_named(std::path::Path::new("/sys/fs/cgroup"), &name) {
        fs::remove_dir(left).unwrap();
    }
    bundle.set("/linux/cgroupsPath", json!("slice:stead:box"));
    bundle.sh("true").code(125).says("is meant for systemd");
    bundle.is_empty();
}

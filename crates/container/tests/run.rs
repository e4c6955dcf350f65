//! Containers of a real image, judged by what programs in them see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;
#[path = "../../cli/tests/support/untested.rs"]
mod untested;

use std::path::PathBuf;

use stead_model::container::{Access, Device, Mode, Mount, Owner, Propagation, Ulimit};
use support::{Role, World, roles};
use untested::untested;

/// A shell's line in a container of each root, and what it is to say.
#[track_caller]
fn check(line: &str, expected: &str) {
    for role in roles() {
        assert_eq!(World::new(role).sh(line).ok(), expected, "{role:?}");
    }
}

fn bind(source: PathBuf, access: Access, create: bool) -> Mount {
    Mount::Bind { source, access, propagation: Propagation::Private, create }
}

#[test]
fn a_program_is_process_1_with_a_name_of_its_own() {
    check(
        "echo $$; hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; id -u; pwd; echo $HOME; cat /covered",
        "1\nbox\nbox\n127.0.0.1 localhost\nnameserver 192.0.2.53\n0\n/\n/root\nupper\n",
    );
}

#[test]
fn its_root_is_an_overlay_and_the_image_stays_as_it_is() {
    for role in roles() {
        let mut world = World::new(role);
        let line = "rm /bin/vi /data/link; echo x > /data/file; echo new > /new; mkdir -m 700 /made; ls /proc/1/root";
        let out = world.sh(line).ok();
        assert!(!out.contains("sys\nsys"), "{out}");
        assert!(world.path("layer/bin/vi").exists() && world.path("layer/data/link").exists());
        assert_eq!(std::fs::read_to_string(world.path("upper/new")).unwrap(), "new\n");
        // What it changed is there when it is started again.
        assert_eq!(world.sh("cat /new; ls /bin/vi 2>/dev/null; stat -c %a /made").code(0).out, "new\n700\n");
    }
}

#[test]
fn mounts_are_those_of_the_specification() {
    for role in roles() {
        let mut world = World::new(role);
        let out = world.sh("cat /proc/self/mountinfo").ok();
        for expected in [
            "/ / rw,relatime - overlay",
            "/ /proc rw,nosuid,nodev,noexec,relatime - proc proc",
            "/ /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs",
            "/ /dev rw,nosuid,relatime - tmpfs tmpfs rw,size=65536k,mode=755",
            "/ /dev/pts rw,nosuid,noexec,relatime - devpts devpts",
            "/ /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=65536k",
            "/ /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue",
            "/sys /proc/sys ro,",
            "/null /proc/keys",
        ] {
            assert!(out.contains(expected), "{role:?}: no `{expected}` in\n{out}");
        }
        // Nothing of this computer's is there but files that were given.
        let foreign = out.lines().filter(|line| line.contains(" - ext4 ") && !line.contains(" /etc/"));
        assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}

#[test]
fn what_the_kernel_shows_is_guarded() {
    check(
        "cat /proc/keys /proc/timer_list; ls /proc/acpi /sys/firmware; \
         (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo fixed; \
         (echo x > /proc/sysrq-trigger) 2>/dev/null || echo fixed; mkdir /sys/fs/cgroup/x 2>/dev/null || echo fixed; \
         mount -t tmpfs x /tmp 2>/dev/null || echo no mount; mount -o remount,rw /sys 2>/dev/null || echo no mount",
        "/proc/acpi:\n\n/sys/firmware:\nfixed\nfixed\nfixed\nno mount\nno mount\n",
    );
}

#[test]
fn devices_are_the_usual_ones() {
    check(
        "cd /dev; ls | tr '\\n' ' '; echo; echo x > null; head -c 3 zero | wc -c; head -c 3 urandom | wc -c; \
         (echo x > full) 2>/dev/null || echo full; readlink fd; readlink stdin; readlink ptmx",
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n3\n3\nfull\n\
         /proc/self/fd\n/proc/self/fd/0\npts/ptmx\n",
    );
}

#[test]
fn a_device_that_was_not_given_cannot_be_used() {
    if !roles().contains(&Role::Root) {
        return untested("only root makes device nodes");
    }
    let mut world = World::new(Role::Root);
    // There on every computer, and not among the usual ones.
    let line = "mknod /loop c 10 237; (: < /loop) 2>&1 | grep -o 'not permitted'; ls /dev/loop 2>/dev/null";
    assert_eq!(world.sh(line).out, "not permitted\n");
    let (source, target) = ("/dev/loop-control".into(), "/dev/loop".to_owned());
    world.launch.rights.devices = vec![Device { source, target, access: "r".to_owned() }];
    let line = "stat -c %t:%T /dev/loop; (: < /dev/loop) && echo read; (: > /dev/loop) 2>/dev/null || echo not written";
    assert_eq!(world.sh(line).out, "a:ed\nread\nnot written\n");
}

#[test]
fn capabilities_are_the_usual_ones_and_what_was_asked() {
    const SHOW: &str = "grep Cap /proc/self/status | tr -d '\\t\\n'";
    for role in roles() {
        let mut world = World::new(role);
        let all = |p: &str, b: &str, i: &str| {
            format!("CapInh:{i}CapPrm:{p}CapEff:{p}CapBnd:{b}CapAmb:{i}").replace('-', "0000000000000000")
        };
        assert_eq!(world.sh(SHOW).ok(), all("00000000a80425fb", "00000000a80425fb", "-"));
        world.launch.rights.capabilities_drop = ["ALL".to_owned()].into();
        world.launch.rights.capabilities_add = ["NET_ADMIN".to_owned()].into();
        assert_eq!(world.sh(SHOW).ok(), all("0000000000001000", "0000000000001000", "-"));
        if role != Role::Single {
            // As somebody else than root only what was asked for by name.
            world.launch.user = "web".to_owned();
            let asked = "0000000000001000";
            assert_eq!(world.sh(SHOW).ok(), all(asked, asked, asked));
            world.launch.rights.capabilities_add.clear();
            assert_eq!(world.sh(SHOW).ok(), all("-", "-", "-"));
        }
    }
}

#[test]
fn users_and_groups_are_those_of_the_image() {
    for role in roles().into_iter().filter(|role| *role != Role::Single) {
        let mut world = World::new(role);
        world.launch.user = "web".to_owned();
        world.launch.groups = ["77".to_owned()].into();
        world.launch.cwd = "/srv/new".to_owned();
        let line = "id; pwd; echo $HOME; cat /etc/passwd > /data/new 2>&1 || echo denied";
        let told = "uid=33(web) gid=34(www) groups=4(adm),34(www),77\n/srv/new\n/home/web\ndenied\n";
        assert_eq!(world.sh(line).ok(), told);
        if role == Role::Root {
            // The pipe is its own to open again; a mapped root could not give away what is this test's.
            assert_eq!(world.sh("echo out > /dev/stdout").ok(), "out\n");
        }
        world.launch.user = "nobody".to_owned();
        world.run().code(125).says("`nobody` is no user in the image's `/etc/passwd`");
    }
}

#[test]
fn exit_codes_say_who_can_act() {
    for role in roles() {
        let mut world = World::new(role);
        world.sh("exit 7").code(7);
        let mut failing = |program: &str, code: i32, text: &str| {
            world.launch.args = vec![program.to_owned()];
            world.run().code(code).says(text);
        };
        failing("nothing", 127, "exec: no such file: `nothing`");
        failing("/bin/nothing", 127, "exec: no such file: `/bin/nothing`");
        failing("/bin/script", 127, "exec: no such file: `/bin/script`");
        failing("/bin/text", 126, "exec: cannot run `/bin/text`: Permission denied");
        failing("/bin", 126, "exec: cannot run `/bin`: Permission denied");
        world.launch.cwd = "/etc/passwd/x".to_owned();
        world.run().code(125).says("cannot start in `/etc/passwd/x`: Not a directory");
    }
}

#[test]
fn system_calls_are_filtered() {
    for role in roles() {
        let mut world = World::new(role);
        let line = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\n'; unshare -U true 2>&1; chroot / true && echo chroot";
        let filtered =
            "NoNewPrivs:\t0Seccomp:\t2unshare: unshare(0x10000000): Operation not permitted\nchroot\n";
        assert_eq!(world.sh(line).out, filtered, "{role:?}");
        world.launch.rights.no_new_privileges = true;
        assert_eq!(world.sh(line).out, filtered.replacen('0', "1", 1), "{role:?}");
        world.launch.rights.privileged = true;
        world.launch.rights.no_new_privileges = false;
        assert_eq!(world.sh(line).out, "NoNewPrivs:\t0Seccomp:\t0chroot\n", "{role:?}");
    }
}

#[test]
fn a_profile_in_dockers_form_is_kept() {
    for role in roles() {
        let mut world = World::new(role);
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28},
            {"names":["chmod","fchmodat"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_CHOWN"]}},
            {"names":["sethostname"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
        std::fs::write(world.path("profile.json"), profile).unwrap();
        let path = world.path("profile.json");
        world.launch.rights.seccomp = stead_model::container::Seccomp::Profile(path);
        let out = world.sh("mkdir /x; chmod 700 /tmp && echo chmod; hostname y; echo $?").out;
        assert_eq!(out, "chmod\n159\n", "{role:?}");
    }
}

#[test]
fn a_root_that_cannot_be_written_is_not() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.rights.read_only = true;
        let size = Some(1 << 20);
        let tmpfs = Mount::Tmpfs {
            size_bytes: size,
            mode: Some(0o700),
            owner: Owner::default(),
            access: Access::Write,
            exec: false,
        };
        world.launch.mounts = [("/scratch".to_owned(), tmpfs)].into();
        let line = "touch /x 2>&1; touch /scratch/x /dev/shm/x && echo fine; stat -c %a /scratch; \
                    head -c 2000000 /dev/zero > /scratch/big 2>/dev/null || echo full";
        assert_eq!(world.sh(line).ok(), "touch: /x: Read-only file system\nfine\n700\nfull\n");
    }
}

#[test]
fn bound_directories_are_read_or_written_as_asked() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.mounts = [
            ("/w".to_owned(), bind(world.path("share"), Access::Write, false)),
            ("/r".to_owned(), bind(world.path("share"), Access::Read, false)),
            ("/deep/er/file".to_owned(), bind(world.path("share/file"), Access::Read, false)),
            ("/fresh".to_owned(), bind(world.path("new/dir"), Access::Write, true)),
        ]
        .into();
        let line = "cat /r/file /deep/er/file; (echo x > /deep/er/file) 2>&1 | grep -o Read-only; \
                    touch /r/x 2>&1 | grep -o Read-only; touch /r/inner/x 2>&1 | grep -o Read-only; touch /w/made /fresh/made && echo made";
        assert_eq!(world.sh(line).ok(), "shared\nshared\nRead-only\nRead-only\nRead-only\nmade\n");
        assert!(world.path("share/made").exists() && world.path("new/dir/made").exists());
        world.launch.mounts = [("/w".to_owned(), bind(world.path("missing"), Access::Write, false))].into();
        world.run().code(125).says("missing`: No such file or directory");
    }
}

#[test]
fn what_is_mounted_below_a_bound_directory_is_read_only_too() {
    for role in roles() {
        let mut world = World::new(role);
        let inner = world.path("share/inner").display().to_string();
        world.launch.mounts = [("/r".to_owned(), bind(world.path("share"), Access::Read, false))].into();
        if role == Role::Root {
            // Root's worlds share this computer's mounts; that one is not touched.
            continue;
        }
        assert!(world.command(&["mount", "-t", "tmpfs", "x", &inner]).status().unwrap().success());
        let line = "grep -c ' /r/inner ro,' /proc/self/mountinfo; touch /r/inner/x 2>&1 | grep -o Read-only";
        assert_eq!(world.sh(line).ok(), "1\nRead-only\n");
        assert!(world.command(&["umount", &inner]).status().unwrap().success());
    }
}

#[test]
fn an_empty_volume_is_filled_with_what_the_image_has_there() {
    for role in roles() {
        let mut world = World::new(role);
        assert!(
            world
                .command(&["mkdir", "-p", world.path("volumes/data").to_str().unwrap()])
                .status()
                .unwrap()
                .success()
        );
        let volume = Mount::Volume {
            name: "data".parse().unwrap(),
            external: None,
            access: Access::Write,
            nocopy: false,
        };
        world.launch.mounts = [("/data".to_owned(), volume)].into();
        world.launch.own_volumes = ["/etc".to_owned(), "/new/one".to_owned()].into();
        let owner = if role == Role::Single { "0:0" } else { "33:34" };
        let line = "stat -c '%a' /data; stat -c '%a %u:%g %h %Y' /data/file; readlink /data/link; cat /data/twin; \
                    ls -d /data/sub; grep -c ' /data ' /proc/self/mountinfo; test -f /etc/passwd && echo own; \
                    echo changed > /data/file; rm /data/link; touch /new/one/x";
        let said = world.sh(line).ok();
        assert_eq!(
            said,
            format!("750\n640 {owner} 2 981173106\nfile\nhello\n/data/sub\n1\nown\n"),
            "{role:?}"
        );
        // It is not filled again.
        assert_eq!(world.sh("cat /data/file; ls /data/link 2>/dev/null; ls /new/one").ok(), "changed\nx\n");
        assert!(world.path("own/new%2Fone/x").exists());
    }
}

#[test]
fn a_terminal_is_the_containers_own() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.tty = true;
        let out =
            world.sh("tty; stty size; echo seen > /dev/console; ps -o tty,comm | tail -n 1 | wc -l").ok();
        assert_eq!(out, "/dev/pts/0\r\n30 100\r\nseen\r\n1\r\n");
    }
}

#[test]
fn an_init_buries_the_dead_and_ends_as_the_program_does() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.init = true;
        let line = "echo $PPID; (sh -c 'sleep 0.05 & exit' &); i=0; \
                    while ps | grep -v grep | grep -q 'sleep 0.05' && [ $i -lt 100 ]; do i=$((i+1)); sleep 0.05; done; \
                    while ps -o stat | grep -q Z && [ $i -lt 100 ]; do i=$((i+1)); sleep 0.05; done; \
                    ps -o stat | grep -c Z; exit 5";
        // Who just died is buried a moment later: what must not be is that he stays.
        assert_eq!(world.sh(line).code(5).out, "1\n0\n");
        assert_eq!(world.sh("kill -9 $$").code, 137);
        world.launch.args = vec!["nothing".to_owned()];
        world.run().code(127);
    }
}

#[test]
fn our_own_program_cannot_be_written_from_inside() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.init = true;
        world.launch.rights.privileged = true;
        // While it runs nobody can write it anyway, so what is looked at is the mount that it runs from.
        let line = "cat /proc/1/comm; stat -f -c %t /proc/1/exe >/dev/null && echo seen; \
                    exec 7< /proc/1/exe; mnt=$(sed -n 's/mnt_id:[^0-9]*//p' /proc/self/fdinfo/7); \
                    grep -c \"^$mnt \" /proc/1/mountinfo; (: >> /proc/1/exe) 2>/dev/null || echo refused; \
                    mount -o remount,rw,bind /proc/1/exe 2>/dev/null || echo refused";
        assert_eq!(world.sh(line).out, "stead-init\nseen\n0\nrefused\nrefused\n");
    }
}

#[test]
fn limits_of_processes_are_set() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.limits.ulimits = [
            ("nofile".to_owned(), Ulimit { soft: 100, hard: 200 }),
            ("core".to_owned(), Ulimit { soft: 0, hard: 0 }),
        ]
        .into();
        world.launch.limits.oom_score = Some(500);
        world.launch.limits.shm_bytes = Some(1 << 20);
        let line = "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; df -k /dev/shm | awk 'END { print $2 }'";
        assert_eq!(world.sh(line).ok(), "100\n200\n0\n500\n1024\n");
        world.launch.limits.ulimits = [("files".to_owned(), Ulimit { soft: 1, hard: 1 })].into();
        world.run().code(125).says("`files` is no limit of a process");
    }
}

#[test]
fn kernel_parameters_of_its_own_namespaces_are_set() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.rights.sysctls = [("kernel.shmmni".to_owned(), "77".to_owned())].into();
        assert_eq!(world.sh("cat /proc/sys/kernel/shmmni").ok(), "77\n");
        world.launch.rights.sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into();
        world.run().code(125).says("is this computer's");
    }
}

#[test]
fn a_hostile_image_reaches_nothing_of_this_computer() {
    for role in roles() {
        let mut world = World::new(role);
        let (top, outside) = (world.path("top"), world.path("outside"));
        let links = format!(
            "mkdir -p {top}/etc; ln -s {outside}/file {top}/etc/resolv.conf; ln -s ../../../../../../tmp/stead-escape {top}/etc/hosts; \
             mkfifo {top}/etc/group; ln -s / {top}/root-link",
            top = top.display(),
            outside = outside.display()
        );
        assert!(world.command(&["sh", "-c", &links]).status().unwrap().success());
        let bind = bind(world.path("share"), Access::Write, false);
        world.launch.mounts = [("/root-link/inside".to_owned(), bind)].into();
        world.run().code(125).says("cannot read the image's `/etc/group`: it is no file");
        assert!(!outside.exists() && !std::path::Path::new("/tmp/stead-escape").exists());
        assert!(world.command(&["rm", top.join("etc/group").to_str().unwrap()]).status().unwrap().success());
        assert_eq!(world.sh("cat /etc/resolv.conf /inside/file").ok(), "nameserver 192.0.2.53\nshared\n");
        // Nor is anything guarded elsewhere than it says.
        let swap = format!("ln -s /tmp {}/proc", top.display());
        assert!(world.command(&["sh", "-c", &swap]).status().unwrap().success());
        let _ = world.command(&["rm", "-rf", world.path("upper/proc").to_str().unwrap()]).status();
        world.run().code(125).says("in the image `/proc` is no directory");
    }
}

#[test]
fn nothing_is_mounted_over_the_root_itself() {
    for role in roles() {
        let mut world = World::new(role);
        let link = world.path("top/data").display().to_string();
        assert!(world.command(&["ln", "-s", "/", &link]).status().unwrap().success());
        let bind = bind(world.path("share"), Access::Write, false);
        let tmpfs = Mount::Tmpfs {
            size_bytes: None,
            mode: None,
            owner: Owner::default(),
            access: Access::Write,
            exec: false,
        };
        let volume = Mount::Volume {
            name: "data".parse().unwrap(),
            external: None,
            access: Access::Write,
            nocopy: false,
        };
        assert!(
            world
                .command(&["mkdir", "-p", world.path("volumes/data").to_str().unwrap()])
                .status()
                .unwrap()
                .success()
        );
        for mount in [bind, tmpfs, volume] {
            world.launch.mounts = [("/data".to_owned(), mount)].into();
            world.run().code(125).says("the place is the root itself");
        }
    }
}

#[test]
fn over_open_descriptors_no_program_starts_outside() {
    for role in roles() {
        let mut world = World::new(role);
        let marker = world.path("share/file").display().to_string();
        // A number that is free may be that of a descriptor by which we look; then it leads to a place inside.
        let look = format!("ls ../../../../../../../../../..{marker} && echo outside");
        for number in 0..24 {
            world.launch.cwd = format!("/proc/self/fd/{number}");
            let done = world.sh(&look);
            assert!(!done.out.contains("outside"), "{number}: {}", done.out);
        }
        world.launch.cwd = "/proc/self/fd/0".to_owned();
        world.sh("true").code(125).says("cannot start in `/proc/self/fd/0`");
        world.launch.cwd = "/".to_owned();
        for number in 3..24 {
            // Whatever it is, it is no directory from which this computer's files could be found.
            let path = format!("/proc/self/fd/{number}/../../../../../../../../bin/busybox");
            world.launch.args = vec![path, "true".to_owned()];
            let code = world.run().code;
            assert!(matches!(code, 126 | 127), "{number}: {code}");
        }
    }
}

#[test]
fn nothing_is_mounted_over_what_is_guarded() {
    for role in roles() {
        let mut world = World::new(role);
        let tmpfs = Mount::Tmpfs {
            size_bytes: None,
            mode: None,
            owner: Owner::default(),
            access: Access::Write,
            exec: false,
        };
        world.launch.mounts = [("/proc/sys".to_owned(), tmpfs)].into();
        world.run().code(125).says("the place is in /proc");
    }
}

#[test]
fn a_system_has_what_its_init_needs() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.mode = Mode::System;
        let line = "touch /run/x; grep -c ' /run .*tmpfs' /proc/self/mountinfo; mount -t tmpfs x /tmp && echo mounts; \
                    unshare -m true && echo unshares; mount -t proc x /tmp && echo proc; cat /proc/1/comm; \
                    (echo 1 > /proc/sys/net/ipv4/ip_forward) && echo routes; (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo fixed";
        assert_eq!(world.sh(line).ok(), "1\nmounts\nunshares\nproc\nsh\nroutes\nfixed\n", "{role:?}");
        if role != Role::Root {
            // An init that would end at once for want of cgroups.
            let library = world.path("layer/usr/lib/systemd/libsystemd-shared-252.so");
            let make = ["install", "-D", "/dev/null", library.to_str().unwrap()];
            assert!(world.command(&make).status().unwrap().success());
            world.run().code(125).says("none was delegated to this user");
        }
    }
}

#[test]
fn one_that_no_cgroup_holds_is_ended_by_whom_is_on_record() {
    for role in roles() {
        let mut world = World::new(role);
        world.launch.args = ["sh", "-c", "echo ready; exec sleep 1000"].map(str::to_owned).into();
        let mut running = world.start();
        // As where no cgroup is delegated. It is in some yet, which go when it has ended.
        let record = world.path("state/cgroup.json");
        let kept = std::fs::read(&record).unwrap();
        std::fs::remove_file(&record).unwrap();
        world.verb("remove", None).ok();
        assert_eq!(running.wait(), 137, "{role:?}");
        std::fs::write(&record, kept).unwrap();
        world.verb("remove", None).ok();
        // It is nobody's number any more.
        world.verb("remove", None).ok();
    }
}

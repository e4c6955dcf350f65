//! The life of containers of OCI bundles: what may be done when, hooks, and what is left after a crash. Judged by the
//! runtime specification's text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unreachable_pub, missing_docs)]

mod oci_support;

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use oci_support::{Bundle, cgroups_named, is_root, until};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

const FOREVER: &str = "while :; do sleep 1; done";

#[test]
fn a_container_is_created_runs_stops_and_is_gone() {
    let mut bundle = Bundle::new();
    bundle.set("/annotations", json!({"org.example": "yes"}));
    bundle.set("/root/readonly", json!(false));
    bundle.line(&format!("echo started > /tmp/started; trap 'exit 3' TERM; {FOREVER}"));
    bundle.create("box").code(0);
    let state = bundle.state("box");
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], "box");
    assert_eq!(state["annotations"], json!({"org.example": "yes"}));
    assert_eq!(Path::new(state["bundle"].as_str().unwrap()), fs::canonicalize(bundle.path("")).unwrap());
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    let pid = state["pid"].as_u64().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert!(!bundle.path("rootfs/tmp/started").exists(), "the program waits for `start`");

    bundle.create("box").code(2).says("there is a container `box` already");
    bundle.oci(&["delete", "box"]).code(2).says("container `box` is created, not stopped");
    // What is said now is too late.
    bundle.line("exit 99");
    bundle.write();
    bundle.oci(&["start", "box"]).ok();
    until("it started", || bundle.path("rootfs/tmp/started").exists());
    assert_eq!(bundle.state("box")["status"], "running");
    assert_eq!(bundle.state("box")["pid"], pid);
    bundle.oci(&["start", "box"]).code(2).says("container `box` is running, not created");
    bundle.oci(&["delete", "box"]).code(2).says("container `box` is running, not stopped");
    assert_eq!(bundle.oci(&["list", "--quiet"]).ok(), "box\n");

    bundle.oci(&["kill", "box", "SIGTERM"]).ok();
    bundle.until("box", "stopped");
    bundle.oci(&["start", "box"]).code(2).says("is stopped, not created");
    bundle.oci(&["kill", "box", "KILL"]).code(2).says("container `box` is not running");
    bundle.oci(&["exec", "box", "true"]).code(125).says("container `box` is stopped");
    bundle.oci(&["delete", "box"]).ok();
    for words in [["state", "box"], ["start", "box"], ["kill", "box"], ["delete", "box"]] {
        bundle.oci(&words).code(2).says("container `box` does not exist");
    }
    bundle.oci(&["delete", "--force", "box"]).ok();
    bundle.is_empty();
}

#[test]
fn commands_without_a_name_and_names_that_are_none_are_refused() {
    let bundle = Bundle::new();
    for verb in ["create", "start", "state", "kill", "delete"] {
        bundle.oci(&[verb]).code(2);
    }
    for id in ["../x", "a/b", "..", "ä", ""] {
        bundle.oci(&["state", id]).code(2).says("is no name of a container");
    }
    bundle.oci(&["create", "--bundle", "/nowhere", "box"]).code(2).says("there is no bundle `/nowhere`");
    bundle.oci(&["--systemd-cgroup", "create", "box"]).code(2).says("`--systemd-cgroup` is not supported");
    bundle.is_empty();
}

#[test]
fn what_cannot_be_honoured_is_refused_as_a_whole_and_before_anything_is_made() {
    let mut bundle = Bundle::new();
    bundle.set("/ociVersion", json!("2.0.0"));
    bundle.set("/root/path", json!("nowhere"));
    bundle.set("/process/cwd", json!("relative"));
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_TEST", "soft": 1, "hard": 1}]));
    bundle.set("/linux/intelRdt", json!({}));
    bundle.add("/linux/namespaces", json!({"type": "pid"}));
    bundle.add("/linux/namespaces", json!({"type": "planet"}));
    bundle.add("/linux/namespaces", json!({"type": "time", "path": "/nowhere"}));
    bundle.set("/linux/timeOffsets", json!({"sidereal": {"secs": 1}}));
    bundle.set("/annotations", json!({"": "x"}));
    bundle.set("/domainname", json!("d".repeat(65)));
    bundle.set("/process/user", json!({"uid": u32::MAX, "gid": 0, "additionalGids": [u32::MAX]}));
    bundle.add("/mounts", json!({"destination": "/y", "source": "/nowhere", "options": ["bind"]}));
    bundle.set("/linux/devices", json!([{"type": "c", "path": "/dev/x", "major": 1}]));
    bundle.set("/linux/maskedPaths", json!(["/data/.."]));
    bundle.set("/linux/readonlyPaths", json!(["/"]));
    bundle.set("/linux/resources/blockIO", json!({"weightDevice": [{"major": 8, "minor": 0}]}));
    bundle.set("/linux/resources/rdma", json!({"some": {}}));
    bundle.add("/mounts", json!({"destination": "/x", "type": "bind", "source": "/", "options": ["idmap"]}));
    bundle.set("/linux/sysctl", json!({"vm.swappiness": "1"}));
    bundle.set("/hooks", json!({"poststop": [{"path": "true", "timeout": 0}]}));
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/x", "listenerMetadata": "x"}),
    );
    bundle.set("/linux/cgroupsPath", json!("a/../../b"));
    let said = bundle.create("box").code(2);
    assert!(
        !said.err.contains("no new time namespace"),
        "one that cannot be joined is not missing: {}",
        said.err
    );
    said.says("namespace `time`: cannot open `/nowhere`")
        .says("clock `sidereal` has no offset")
        .says("`annotations` has an empty key")
        .says("`domainname` is longer than 64 bytes")
        .says("`process.user`: there is no user 4294967295 in the user namespace")
        .says("`process.user`: there is no group 4294967295 in the user namespace")
        .says("mount at `/y`: cannot see `/nowhere`")
        .says("device `/dev/x`: its numbers are none")
        .says("`linux.maskedPaths`: `/data/..` is the root itself")
        .says("`linux.readonlyPaths`: `/` is the root itself")
        .says("`blockIO.weightDevice` of 8:0 has no weight")
        .says("`rdma` of `some` has no limit")
        .says("`linux.seccomp.listenerPath` is not supported")
        .says("`linux.seccomp.listenerMetadata` is not supported")
        .says("version 2.0.0 of the specification is not supported")
        .says("there is no root at")
        .says("`process.cwd` is not absolute: `relative`")
        .says("`RLIMIT_TEST` is no limit of a process")
        .says("`linux.intelRdt` is not supported")
        .says("namespace `pid` is given twice")
        .says("`planet` is no kind of namespace")
        .says("mounts with id mappings are not supported")
        .says("kernel parameter `vm.swappiness` is this computer's")
        .says("hook `true`: its path is not absolute")
        .says("hook `true`: its timeout is not more than 0")
        .says("`SCMP_ACT_NOTIFY` is no action that we know")
        .says("`linux.cgroupsPath` leads upwards");
    bundle.is_empty();
}

#[test]
fn what_fails_while_it_is_made_leaves_nothing() {
    let mut bundle = Bundle::new();
    let name = bundle.path("").file_name().unwrap().to_str().unwrap().to_owned();
    bundle.set("/linux/cgroupsPath", json!(name));
    bundle.set("/process/args", json!(["nosuch"]));
    bundle.create("box").code(127).says("exec: `nosuch`: no such file or directory");
    bundle.line("true");
    bundle.add("/mounts", json!({"destination": "/x", "type": "nosuchfs", "source": "x"}));
    bundle.create("box").code(1).says("a file system `nosuchfs` was refused");
    bundle.is_empty();
    assert_eq!(cgroups_named(Path::new("/sys/fs/cgroup"), &name), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_bundle_without_a_process_is_made_but_not_started() {
    let mut bundle = Bundle::new();
    bundle.config.as_object_mut().unwrap().remove("process");
    bundle.create("box").code(0);
    bundle.oci(&["start", "box"]).code(2).says("has no `process`");
    assert_eq!(bundle.state("box")["status"], "created");
    bundle.oci(&["kill", "box", "KILL"]).ok();
    bundle.until("box", "stopped");
    bundle.oci(&["delete", "box"]).ok();
    bundle.is_empty();
}

#[test]
fn of_those_who_make_the_same_container_one_succeeds() {
    let mut bundle = Bundle::new();
    bundle.line("true");
    bundle.write();
    let text = bundle.text("");
    let start =
        || bundle.oci_command(&["create", "--bundle", &text, "box"]).stderr(Stdio::null()).spawn().unwrap();
    let mut all: Vec<_> = (0..6).map(|_| start()).collect();
    let made =
        all.iter_mut().map(|child| child.wait().unwrap()).filter(std::process::ExitStatus::success).count();
    drop(all);
    assert_eq!(made, 1);
    assert_eq!(bundle.state("box")["status"], "created");
    bundle.oci(&["delete", "--force", "box"]).ok();
    bundle.is_empty();
}

/// A hook that says of itself: its name, the status it was told, where it is, and whether `/data/file` is there.
fn hook(bundle: &Bundle, kind: &str, shell: &str) -> Value {
    let out =
        if kind == "startContainer" { "/tmp/hooks".to_owned() } else { bundle.text("rootfs/tmp/hooks") };
    let line = format!(
        "state=$(cat); status=${{state#*\\\"status\\\":\\\"}}; status=${{status%%\\\"*}}; \
         echo \"{kind} $status $(readlink /proc/self/ns/mnt) $(ls /data/file 2>/dev/null) $MARK\" >> {out}"
    );
    json!({"path": shell, "args": ["sh", "-c", line], "env": ["MARK=m", "PATH=/bin:/usr/bin"], "timeout": 60})
}

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

#[test]
fn hooks_run_in_their_order_in_their_namespaces_with_the_state() {
    let mut bundle = Bundle::new();
    bundle.set("/root/readonly", json!(false));
    bundle.set("/hooks", json!({}));
    for kind in KINDS {
        // Both shells are busybox', by the same path on the computer and in the container.
        let entry = hook(&bundle, kind, "/bin/sh");
        bundle.set(&format!("/hooks/{kind}"), json!([entry]));
    }
    // It ends once the hooks for its start have been seen to have run.
    bundle.line("echo program >> /tmp/hooks; until grep -q poststart /tmp/hooks; do sleep 0.05; done");
    bundle.create("box").code(0);
    bundle.oci(&["start", "box"]).ok();
    bundle.until("box", "stopped");
    bundle.oci(&["delete", "box"]).ok();
    let own = bundle.command(&["readlink", "/proc/self/ns/mnt"]).output().unwrap();
    let own = String::from_utf8(own.stdout).unwrap().trim().to_owned();
    let said = fs::read_to_string(bundle.path("rootfs/tmp/hooks")).unwrap();
    let lines: Vec<String> = said
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let place = words.get(2).map_or("", |ns| if *ns == own { "computer" } else { "container" });
            let mut kept: Vec<&str> = words.clone();
            if kept.len() > 2 {
                kept[2] = place;
            }
            kept.join(" ")
        })
        .collect();
    let program = lines.iter().position(|line| line == "program").unwrap();
    // The program and the hook after its start run at the same time.
    let mut lines = lines;
    lines.remove(program);
    assert!(program >= 4, "{said}");
    assert_eq!(
        lines,
        [
            "prestart created computer  m",
            "createRuntime created computer  m",
            "createContainer created container  m",
            "startContainer created container /data/file m",
            "poststart running computer  m",
            "poststop stopped computer  m",
        ]
    );
}

#[test]
fn a_hook_that_fails_ends_the_container_and_those_for_its_end_run() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let mut bundle = Bundle::new();
        bundle.line(FOREVER);
        let failing = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 4"]});
        let end =
            json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo end >> {}", bundle.text("end"))]});
        bundle.set("/hooks", json!({kind: [failing], "poststop": [end]}));
        let made = bundle.create("box");
        let said = if kind.contains("reate") || kind == "prestart" {
            made
        } else {
            made.code(0);
            bundle.oci(&["start", "box"])
        };
        said.code(1).says(&format!("{kind} hook `/bin/sh` failed")).says("exit status: 4: why");
        bundle.oci(&["state", "box"]).code(2).says("does not exist");
        assert_eq!(fs::read_to_string(bundle.path("end")).unwrap(), "end\n", "{kind}");
        bundle.is_empty();
    }
}

#[test]
fn hooks_for_the_end_all_run_and_are_not_waited_for_for_ever() {
    let mut bundle = Bundle::new();
    bundle.line("true");
    let shell = |line: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", line], "timeout": 1});
    let last = shell(&format!("echo last > {}", bundle.text("last")));
    bundle.set("/hooks", json!({"poststop": [shell("exit 1"), shell("sleep 300"), last]}));
    let said = bundle.run().code(0);
    assert!(
        said.err.contains("exit status: 1") && said.err.contains("it took more than 1 s"),
        "{}",
        said.err
    );
    assert_eq!(fs::read_to_string(bundle.path("last")).unwrap(), "last\n");
    bundle.is_empty();
}

#[test]
fn what_a_killed_create_left_is_deleted() {
    for kind in ["createRuntime", "createContainer"] {
        let mut bundle = Bundle::new();
        bundle.line(FOREVER);
        let reached = bundle.text("reached");
        let line = format!("echo $$ > {reached}; exec sleep 300");
        bundle.set(
            "/hooks",
            json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin:/usr/bin"]}]}),
        );
        bundle.write();
        let mut create = bundle
            .oci_command(&["create", "--bundle", &bundle.text(""), "box"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the hook runs", || fs::read_to_string(&reached).is_ok_and(|text| text.ends_with('\n')));
        assert_eq!(bundle.state("box")["status"], "creating");
        let record: Value =
            serde_json::from_slice(&fs::read(bundle.path("containers/box/record.json")).unwrap()).unwrap();
        let first = record["first"]["pid"].as_u64().unwrap();
        let cgroups: Value =
            serde_json::from_slice(&fs::read(bundle.path("containers/box/cgroup.json")).unwrap()).unwrap();
        create.kill().unwrap();
        create.wait().unwrap();
        until("it is seen to be dead", || bundle.state("box")["status"] == "stopped");
        bundle.oci(&["delete", "--force", "box"]).ok();
        bundle.is_empty();
        let legacy = cgroups["legacy"].as_array().unwrap().iter().map(|entry| &entry[1]);
        for directory in legacy.chain([&cgroups["unified"]]).filter_map(Value::as_str) {
            assert!(!Path::new(directory).exists(), "{directory}");
        }
        until("the first process is gone", || !is_alive(first));
        // The hook was this computer's, or in the container's cgroup, which has been emptied.
        let hook = fs::read_to_string(&reached).unwrap();
        let _ = bundle.command(&["kill", "-9", hook.trim()]).stderr(Stdio::null()).status();
    }
}

fn is_alive(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| !text.contains(") Z "))
}

#[test]
fn programs_join_a_container() {
    let mut bundle = Bundle::new();
    bundle.line(FOREVER);
    bundle.create("box").code(0);
    bundle.oci(&["start", "box"]).ok();
    let exec = |words: &[&str]| bundle.oci(&[&["exec"], words].concat());
    assert_eq!(
        exec(&["--env", "A=b", "--cwd", "/data", "box", "sh", "-c", "hostname; pwd; echo $A; ls"]).ok(),
        "box\n/data\nb\nfile\n"
    );
    exec(&["box", "sh", "-c", "exit 7"]).code(7);
    exec(&["--user", "4294967295", "box", "true"]).code(125).says("there is no user 4294967295");
    exec(&["box", "nosuch"]).code(127).says("no such file or directory");
    exec(&["box", "/etc/passwd"]).code(126);
    let process = json!({"cwd": "/", "args": ["sh", "-c", "grep -E 'CapEff|NoNewPrivs' /proc/self/status | tr -d '\\t\\n'; ulimit -n"],
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        "noNewPrivileges": true, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]});
    fs::write(bundle.path("process.json"), process.to_string()).unwrap();
    let (file, pid_file) = (bundle.text("process.json"), bundle.text("exec.pid"));
    let said = exec(&["--process", &file, "--pid-file", &pid_file, "box"]).ok();
    assert_eq!(said, "CapEff:0000000000000020NoNewPrivs:177\n");
    assert!(fs::read_to_string(&pid_file).unwrap().parse::<u32>().unwrap() > 1);
    let pids: Vec<u32> = serde_json::from_str(&bundle.oci(&["ps", "--format", "json", "box"]).ok()).unwrap();
    let first = u32::try_from(bundle.state("box")["pid"].as_u64().unwrap()).unwrap();
    assert!(pids.contains(&first), "{pids:?} {first}");
    if is_root() {
        bundle.oci(&["pause", "box"]).ok();
        assert_eq!(bundle.state("box")["status"], "paused");
        exec(&["box", "true"]).code(125).says("container `box` is paused");
        bundle.oci(&["resume", "box"]).ok();
        assert_eq!(bundle.state("box")["status"], "running");
        bundle.oci(&["kill", "--all", "box", "KILL"]).ok();
    }
    bundle.oci(&["delete", "--force", "box"]).ok();
    bundle.is_empty();
}

#[test]
fn whoever_asks_for_the_terminal_gets_it() {
    let mut bundle = Bundle::new();
    bundle.line("test -t 0 && test -t 1 && stat -c %F /dev/console && stty size");
    bundle.set("/process/terminal", json!(true));
    bundle.set("/process/consoleSize", json!({"height": 12, "width": 34}));
    bundle.create("box").code(2).says("`--console-socket`");
    bundle.write();
    let listener = UnixListener::bind(bundle.path("console")).unwrap();
    let (socket, text, pid_file) = (bundle.text("console"), bundle.text(""), bundle.text("pid"));
    let status = bundle
        .oci_command(&[
            "create",
            "--bundle",
            &text,
            "--console-socket",
            &socket,
            "--pid-file",
            &pid_file,
            "box",
        ])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(bundle.state("box")["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    let (connection, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut more = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 100];
    recvmsg(&connection, &mut [IoSliceMut::new(&mut name)], &mut more, RecvFlags::empty()).unwrap();
    let fd = more.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let mut terminal = fs::File::from(fd.unwrap());
    bundle.oci(&["start", "box"]).ok();
    let mut said = Vec::new();
    // It ends with an error when nobody is at the other end any more.
    let _ = std::io::Read::read_to_end(&mut terminal, &mut said);
    assert_eq!(String::from_utf8(said).unwrap(), "character special file\r\n12 34\r\n");
    bundle.until("box", "stopped");
    bundle.oci(&["delete", "box"]).ok();
}

#[test]
fn failures_are_logged_as_callers_read_them() {
    let bundle = Bundle::new();
    let log = bundle.text("log");
    bundle.oci(&["--log", &log, "--log-format", "json", "state", "nosuch"]).code(2);
    let line: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(
        (&line["level"], &line["msg"]),
        (&json!("error"), &json!("container `nosuch` does not exist"))
    );
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
    let features: Value = serde_json::from_str(&bundle.oci(&["features"]).ok()).unwrap();
    assert!(features["hooks"].as_array().unwrap().contains(&json!("startContainer")));
    bundle.oci(&["spec", "--bundle", &bundle.text("")]).code(2).says("already");
}

#[test]
fn by_its_other_name_the_program_is_the_runtime() {
    let bundle = Bundle::new();
    let link = bundle.path("stead-oci");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stead"), &link).unwrap();
    let said = bundle
        .command(&[link.to_str().unwrap(), "--root", &bundle.text("containers"), "list"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "ID  PID  STATUS  BUNDLE  CREATED\n");
}

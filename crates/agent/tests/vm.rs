//! The program as process 1 of a real guest: QEMU, Debian's cloud kernel and modules, disks, a nic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// What is not tested, and what a guest said last.
#![allow(clippy::print_stderr)]

mod support;
#[path = "../../cli/tests/support/untested.rs"]
mod untested;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use stead_agent::message::{Disk, FileSystem, Nic, Request, SetUp, Source, Word};
use stead_model::container::Access;

use support::{Keeper, LIMIT, attach, exec, name, start};
use untested::untested;

/// What a guest needs of the kernel's modules, in the order in which they need each other.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "rng-core",
    "virtio-rng",
    "overlay",
    "crc16",
    "mbcache",
    "jbd2",
    "libcrc32c",
    "crc32c_generic",
    "ext4",
    "lz4_decompress",
    "erofs",
];

/// A kernel's package, unpacked here by `cargo xtask setup`; or what another one says.
fn kernel() -> Option<PathBuf> {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kernel");
    let path = std::env::var_os("STEAD_TEST_KERNEL").map_or(usual, PathBuf::from);
    let is_there = path.join("boot").is_dir();
    if !is_there {
        untested(&format!("there is no kernel in {}; `cargo xtask setup` gets one", path.display()));
    }
    is_there.then_some(path)
}

fn find(directory: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else if wanted(&entry.file_name().to_string_lossy()) {
                return Some(entry.path());
            }
        }
    }
    None
}

/// Runs a program that must do well.
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Vm {
    directory: tempfile::TempDir,
    kernel: PathBuf,
}

/// A guest that runs.
struct Running {
    keeper: Keeper,
    qemu: Child,
    console: PathBuf,
}

impl Vm {
    fn new(kernel: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let tree = path("initramfs");
        fs::create_dir_all(tree.join("modules")).unwrap();
        fs::write(tree.join("init"), stead_agent::PROGRAM).unwrap();
        run("chmod", &["755", tree.join("init").to_str().unwrap()]);
        for (module, number) in MODULES.iter().zip(10..) {
            // Some are built in, or their kernel calls them otherwise.
            let names = [format!("{module}.ko"), format!("{}.ko", module.replace('-', "_"))];
            if let Some(found) =
                find(&kernel.join("lib/modules"), &|file| names.iter().any(|name| name == file))
            {
                fs::copy(found, tree.join(format!("modules/{number}-{module}.ko"))).unwrap();
            }
        }
        let script = format!(
            "cd {} && find . | busybox cpio -o -H newc 2>/dev/null > {}",
            tree.display(),
            path("initramfs.cpio").display()
        );
        run("sh", &["-c", &script]);
        let root = path("root");
        fs::create_dir(&root).unwrap();
        support::busybox(&root);
        for (disk, size, from) in [("root.ext4", "16M", Some(&root)), ("data.ext4", "64M", None)] {
            let disk = path(disk);
            let mut args = vec!["-q", "-F", "-E", "root_owner=0:0"];
            args.extend(from.into_iter().flat_map(|from| ["-d", from.to_str().unwrap()]));
            args.extend([disk.to_str().unwrap(), size]);
            run("mkfs.ext4", &args);
        }
        Self { directory, kernel }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn boot(&self) -> Running {
        let kernel = find(&self.kernel.join("boot"), &|file| file.starts_with("vmlinuz")).unwrap();
        let (socket, console) = (self.path("agent.sock"), self.path("console.log"));
        let _none = fs::remove_file(&socket);
        let disk = |serial: &str, read_only: &str| {
            let file = self.path(&format!("{serial}.ext4"));
            [
                format!("if=none,id={serial},file={file},format=raw,readonly={read_only}"),
                format!("virtio-blk-pci,drive={serial},serial={serial}"),
            ]
        };
        let ([root, root_device], [data, data_device]) = (disk("root", "on"), disk("data", "off"));
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256M", "-bios", "qboot.rom"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-kernel", kernel.to_str().unwrap(), "-initrd", &self.path("initramfs.cpio")])
            .args(["-append", "console=ttyS0 panic=-1 quiet"])
            .args(["-serial", &format!("file:{console}")])
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
            .args(["-chardev", &format!("socket,id=agent,path={socket},server=on,wait=off")])
            .args(["-device", "virtserialport,chardev=agent,name=stead.agent"])
            // Disks in the other order than they are mounted in.
            .args(["-drive", &data, "-device", &data_device, "-drive", &root, "-device", &root_device])
            .args(["-netdev", "user,id=nic,restrict=on", "-device"])
            .arg("virtio-net-pci,netdev=nic,mac=02:00:00:00:00:07,romfile=")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let keeper = Keeper::new(connect(&socket));
        Running { keeper, qemu, console: console.into() }
    }
}

fn connect(socket: &str) -> UnixStream {
    let deadline = Instant::now() + LIMIT;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "QEMU does not listen: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Running {
    #[track_caller]
    fn set_up(&mut self) {
        let disk = |serial: &str, access| FileSystem {
            name: name(serial),
            source: Source::Disk(Disk::Serial(serial.to_owned())),
            access,
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let nic = Nic {
            mac: "02:00:00:00:00:07".parse().unwrap(),
            device: None,
            name: "lan0".parse().unwrap(),
            addresses: vec!["10.0.5.2/24".parse().unwrap(), "fd00:5::2/64".parse().unwrap()],
            gateways: vec!["10.0.5.1".parse().unwrap(), "fd00:5::1".parse().unwrap()],
            mtu: Some(1400),
        };
        self.keeper.done(&Request::SetUp(SetUp {
            time_ns: u64::try_from(now.as_nanos()).unwrap(),
            hostname: "guest".to_owned(),
            nics: vec![nic],
            filesystems: vec![disk("root", Access::Read), disk("data", Access::Write)],
            sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
            entropy: vec![7; 100],
            is_restored: false,
        }));
    }

    fn end(mut self) {
        self.keeper.shut_down();
        let deadline = Instant::now() + LIMIT;
        while self.qemu.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the guest does not end: {}", self.words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the guest's console said.
    fn words(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the console: {}", self.words());
        }
        let _gone = self.qemu.kill();
        let _buried = self.qemu.wait();
    }
}

#[test]
fn a_guest_boots_runs_a_container_on_its_disks_and_keeps_what_was_written() {
    let Some(kernel) = kernel() else { return };
    let vm = Vm::new(kernel);
    for boot in 0..2 {
        let mut guest = vm.boot();
        let watch = guest.keeper.ask(&Request::Watch);
        guest.set_up();
        let mut wanted = start("cat /kept; echo boot >> /kept; echo ready; exec sleep 1000");
        wanted.writable = Some(name("data"));
        wanted.launch.own_volumes.insert("/data".to_owned());
        guest.keeper.start(wanted);
        let call = guest.keeper.ask(&attach("main", false));
        guest.keeper.until_out(call, "ready");
        assert_eq!(guest.keeper.calls[&call].out, "boot\n".repeat(boot) + "ready\n");
        let shell = |guest: &mut Running, line: &str| {
            let said = guest.keeper.shell(line);
            assert_eq!(said.code(), 0, "{line}: {said:?}");
            said.out
        };
        assert_eq!(
            shell(&mut guest, "cat /data/file; echo more >> /data/file; cat /proc/1/comm"),
            match boot {
                0 => "hello\nsleep\n",
                _ => "hello\nmore\nsleep\n",
            }
        );
        let addresses =
            shell(&mut guest, "ip addr show lan0; ip route; ip -6 route; cat /proc/sys/net/ipv4/ip_forward");
        for part in [
            "mtu 1400",
            "inet 10.0.5.2/24",
            "inet6 fd00:5::2/64",
            "default via 10.0.5.1",
            "default via fd00:5::1",
        ] {
            assert!(addresses.contains(part), "{part}: {addresses}");
        }
        assert!(!addresses.contains("tentative") && addresses.ends_with("1\n"), "{addresses}");
        let seconds: u64 = shell(&mut guest, "date +%s").trim().parse().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(seconds) < 60, "{seconds} and {now}");
        // Much at once, both ways.
        let said = guest.keeper.shell("head -c 2000000 /dev/zero | tr '\\0' x");
        assert_eq!(said.out.len(), 2_000_000);
        if boot == 1 {
            stands_still(&mut guest);
        }
        let words = guest.keeper.calls.remove(&watch).unwrap().words;
        let stages: Vec<String> = words
            .iter()
            .filter_map(|word| {
                if let Word::Stage(stage) = word {
                    Some(format!("{} {} ms", stage.name, stage.at_us / 1000))
                } else {
                    None
                }
            })
            .collect();
        eprintln!("stages: {}", stages.join(", "));
        assert_eq!(stages.len(), 7, "{stages:?}");
        guest.end();
    }
    // Its file system was let go of in order.
    run("e2fsck", &["-fn", &vm.path("data.ext4")]);
}

/// Who writes waits, until all goes on: by the keeper's word, or by itself after a time.
#[track_caller]
fn stands_still(guest: &mut Running) {
    for is_told in [true, false] {
        guest.keeper.done(&Request::StandStill);
        let writes = guest.keeper.ask(&Request::Exec(exec("echo x >> /data/file; echo written")));
        // In the kernel, where nothing of what it does can be cut off.
        let said = guest.keeper.shell("until grep -l '^State:.D ' /proc/[0-9]*/status; do :; done");
        assert_eq!(said.code(), 0, "{said:?}");
        assert_eq!(guest.keeper.calls.get(&writes).map_or("", |said| &said.out), "");
        if is_told {
            guest.keeper.done(&Request::GoOn);
        }
        assert_eq!(guest.keeper.finish(writes).out, "written\n");
    }
}

#[test]
fn another_keeper_carries_on_with_a_guest() {
    let Some(kernel) = kernel() else { return };
    let vm = Vm::new(kernel);
    let mut guest = vm.boot();
    guest.set_up();
    guest
        .keeper
        .start(start("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; exec sleep 1000"));
    let stuck = guest.keeper.ask(&attach("main", false));
    guest.keeper.held.push(stuck);
    guest.keeper.until_out(stuck, "line 100\n");
    // The connection goes, in the middle of whatever is under way.
    let socket = vm.path("agent.sock");
    guest.keeper = Keeper::new(UnixStream::pair().unwrap().0);
    guest.keeper = Keeper::new(connect(&socket));
    let call = guest.keeper.ask(&attach("main", false));
    guest.keeper.until_out(call, "line 4999\n");
    let expected: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    assert!(guest.keeper.calls[&call].out == expected, "{:?}", guest.keeper.calls[&call]);
    guest.end();
}

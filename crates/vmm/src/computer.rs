//! The command line of QEMU for a whole computer, which boots by its firmware what its disk has. As for other guests
//! (`qemu.rs`) all that it works on comes as open descriptors, and QEMU is told each format: it finds out none by itself.

use std::ffi::OsString;

use serde_json::json;

use stead_model::vm::DiskFormat;

use crate::Accelerator;
use crate::qemu::{AGENT_PORT, Nic, process_name, share, shared_memory};

/// The node of the image.
const IMAGE: &str = "image";
/// Sets of descriptors below this one are the image's, the disk's, the seed's and the firmware's.
const FIRST_BELOW_SET: u32 = 6;

/// What QEMU runs. Numbers of descriptors are those that its process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computer {
    /// What people see in lists of processes.
    pub name: String,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u64,
    /// A socket, whose other end is the other end of its serial console.
    pub console_fd: i32,
    /// A socket, whose other end speaks with the agent.
    pub agent_fd: i32,
    /// A socket, whose other end tells QEMU what to do.
    pub control_fd: i32,
    /// The file of the layer of its disk that it writes.
    pub disk_fd: i32,
    /// The files of the layers below that, the lowest first.
    pub below_fds: Vec<i32>,
    /// The file of the image that the lowest layer is over, and its format.
    pub image: (i32, DiskFormat),
    /// The program of its firmware and what that remembers, where it is UEFI; else it is QEMU's own, SeaBIOS.
    pub uefi: Option<(i32, i32)>,
    /// The file with what it is told at its start.
    pub seed_fd: Option<i32>,
    /// Nics.
    pub nics: Vec<Nic>,
    /// A socket, whose other end serves files of this computer, if the guest is given any.
    pub share_fd: Option<i32>,
}

/// The arguments after `qemu-system-*`. Pure.
pub fn computer_args(vm: &Computer) -> Vec<OsString> {
    let mut args: Vec<String> = Vec::new();
    let mut put = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
    put(&["-name", &format!("guest={},process={}", vm.name, process_name(&vm.name))]);
    put(&["-nodefaults", "-no-user-config", "-display", "none"]);
    put(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    let mut machine = "q35,sata=off,smbus=off,usb=off,vmport=off,graphics=off,dump-guest-core=off".to_owned();
    if vm.share_fd.is_some() {
        // What serves its files works on the guest's memory.
        machine.push_str(",memory-backend=memory");
        put(&["-object", &shared_memory(vm.memory_mib)]);
    }
    match vm.uefi {
        None => put(&["-M", &machine]),
        Some((code_fd, variables_fd)) => {
            put(&["-M", &format!("{machine},pflash0=code,pflash1=variables")]);
            put(&["-add-fd", &format!("fd={code_fd},set=4"), "-blockdev", &flash("code", 4, true)]);
            put(&[
                "-add-fd",
                &format!("fd={variables_fd},set=5"),
                "-blockdev",
                &flash("variables", 5, false),
            ]);
        }
    }
    put(&["-accel", vm.accelerator.name(), "-cpu", vm.accelerator.cpu()]);
    put(&["-smp", &vm.cpus.to_string(), "-m", &format!("{}M", vm.memory_mib)]);
    put(&["-chardev", &format!("socket,id=console,fd={}", vm.console_fd), "-serial", "chardev:console"]);
    put(&["-chardev", &format!("socket,id=control,fd={}", vm.control_fd), "-qmp", "chardev:control"]);
    // What the guest does not use goes back to this computer.
    put(&["-device", "virtio-balloon-pci,free-page-reporting=on,romfile="]);
    put(&["-device", "virtio-rng-pci,romfile=", "-device", "virtio-serial-pci,max_ports=2,romfile="]);
    put(&["-chardev", &format!("socket,id=agent,fd={}", vm.agent_fd)]);
    put(&["-device", &format!("virtserialport,id=agent,chardev=agent,name={AGENT_PORT}")]);
    let (image_fd, format) = vm.image;
    put(&["-add-fd", &format!("fd={image_fd},set=1"), "-add-fd", &format!("fd={},set=2", vm.disk_fd)]);
    put(&["-blockdev", &image(format)]);
    let mut over = IMAGE.to_owned();
    for (fd, place) in vm.below_fds.iter().zip(0..) {
        let (set, node) = (FIRST_BELOW_SET + place, format!("layer{place}"));
        put(&["-add-fd", &format!("fd={fd},set={set}"), "-blockdev", &below(&node, &over, set)]);
        over = node;
    }
    put(&["-blockdev", &layer(&over)]);
    put(&["-device", &disk("disk", "bootindex=0,")]);
    if let Some(fd) = vm.seed_fd {
        put(&["-add-fd", &format!("fd={fd},set=3"), "-blockdev", &seed(), "-device", &disk(crate::SEED, "")]);
    }
    if let Some(fd) = vm.share_fd {
        share(fd).iter().for_each(|word| put(&[word]));
    }
    for (nic, place) in vm.nics.iter().zip(0..) {
        put(&["-netdev", &format!("tap,id=nic{place},fd={}", nic.fd)]);
        put(&["-device", &format!("virtio-net-pci,netdev=nic{place},mac={},romfile=", nic.mac)]);
    }
    args.into_iter().map(OsString::from).collect()
}

/// A full disk of ours is an error there; QEMU would by itself hold the guest, which nobody told it to.
fn disk(node: &str, more: &str) -> String {
    format!("virtio-blk-pci,drive={node},serial={node},{more}werror=report,rerror=report,romfile=")
}

/// A file by the number of its set.
fn file(set: u32) -> serde_json::Value {
    json!({ "driver": "file", "filename": format!("/dev/fdset/{set}"), "locking": "off" })
}

/// What other machines read as well. That it is a layer over nothing is said as well, whatever it says itself.
fn image(format: DiskFormat) -> String {
    let mut node = json!({
        "driver": format.to_string(), "node-name": IMAGE, "read-only": true, "file": file(1),
    });
    if let (DiskFormat::Qcow2, Some(node)) = (format, node.as_object_mut()) {
        node.insert("backing".to_owned(), serde_json::Value::Null);
    }
    node.to_string()
}

/// A layer that nobody writes any more.
fn below(node: &str, over: &str, set: u32) -> String {
    let node = json!({
        "driver": "qcow2", "node-name": node, "read-only": true, "backing": over, "file": file(set),
    });
    node.to_string()
}

/// What is deleted in the guest takes no room here.
fn layer(over: &str) -> String {
    let node = json!({
        "driver": "qcow2", "node-name": "disk", "backing": over, "discard": "unmap", "detect-zeroes": "unmap",
        "file": { "driver": "file", "filename": "/dev/fdset/2", "locking": "off", "discard": "unmap" },
    });
    node.to_string()
}

fn flash(name: &str, set: u32, read_only: bool) -> String {
    json!({ "driver": "raw", "node-name": name, "read-only": read_only, "file": file(set) }).to_string()
}

fn seed() -> String {
    json!({ "driver": "raw", "node-name": crate::SEED, "read-only": true, "file": file(3) }).to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_computer_with_its_disk_its_seed_and_a_nic() {
        let vm = Computer {
            name: "db.shop".to_owned(),
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory_mib: 1024,
            console_fd: 12,
            agent_fd: 13,
            control_fd: 14,
            disk_fd: 20,
            below_fds: Vec::new(),
            image: (21, DiskFormat::Qcow2),
            uefi: None,
            seed_fd: Some(22),
            nics: vec![Nic { fd: 30, mac: "02:00:00:00:00:01".parse().unwrap() }],
            share_fd: None,
        };
        let words: Vec<_> = computer_args(&vm).into_iter().map(|word| word.into_string().unwrap()).collect();
        expect![[r#"
            -name guest=db.shop,process=db.shop
            -nodefaults
            -no-user-config
            -display none
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -M q35,sata=off,smbus=off,usb=off,vmport=off,graphics=off,dump-guest-core=off
            -accel tcg
            -cpu max
            -smp 2
            -m 1024M
            -chardev socket,id=console,fd=12
            -serial chardev:console
            -chardev socket,id=control,fd=14
            -qmp chardev:control
            -device virtio-balloon-pci,free-page-reporting=on,romfile=
            -device virtio-rng-pci,romfile=
            -device virtio-serial-pci,max_ports=2,romfile=
            -chardev socket,id=agent,fd=13
            -device virtserialport,id=agent,chardev=agent,name=stead.agent
            -add-fd fd=21,set=1
            -add-fd fd=20,set=2
            -blockdev {"backing":null,"driver":"qcow2","file":{"driver":"file","filename":"/dev/fdset/1","locking":"off"},"node-name":"image","read-only":true}
            -blockdev {"backing":"image","detect-zeroes":"unmap","discard":"unmap","driver":"qcow2","file":{"discard":"unmap","driver":"file","filename":"/dev/fdset/2","locking":"off"},"node-name":"disk"}
            -device virtio-blk-pci,drive=disk,serial=disk,bootindex=0,werror=report,rerror=report,romfile=
            -add-fd fd=22,set=3
            -blockdev {"driver":"raw","file":{"driver":"file","filename":"/dev/fdset/3","locking":"off"},"node-name":"stead-seed","read-only":true}
            -device virtio-blk-pci,drive=stead-seed,serial=stead-seed,werror=report,rerror=report,romfile=
            -netdev tap,id=nic0,fd=30
            -device virtio-net-pci,netdev=nic0,mac=02:00:00:00:00:01,romfile="#]].assert_eq(&words.join(" ").replace(" -", "\n-"));
        let uefi = Some((40, 41));
        let more = computer_args(&Computer { uefi, share_fd: Some(50), below_fds: vec![60, 61], ..vm });
        let has = |start: &str, end: &str| {
            let words = more.iter().filter_map(|word| word.to_str());
            words.into_iter().any(|word| word.starts_with(start) && word.ends_with(end))
        };
        assert!(
            has("q35", ",memory-backend=memory,pflash0=code,pflash1=variables") && has("fd=41", ",set=5")
        );
        assert!(has("memory-backend-memfd,", "size=1024M,share=on") && has("vhost-user-fs-pci,", ""));
        let words: Vec<_> = more.iter().filter_map(|word| word.to_str()).collect();
        let from = words.iter().position(|word| word.contains("set=6")).unwrap();
        expect![[r#"
            fd=60,set=6
            -blockdev
            {"backing":"image","driver":"qcow2","file":{"driver":"file","filename":"/dev/fdset/6","locking":"off"},"node-name":"layer0","read-only":true}
            -add-fd
            fd=61,set=7
            -blockdev
            {"backing":"layer0","driver":"qcow2","file":{"driver":"file","filename":"/dev/fdset/7","locking":"off"},"node-name":"layer1","read-only":true}
            -blockdev
            {"backing":"layer1","detect-zeroes":"unmap","discard":"unmap","driver":"qcow2","file":{"discard":"unmap","driver":"file","filename":"/dev/fdset/2","locking":"off"},"node-name":"disk"}"#]]
        .assert_eq(&words[from..from + 9].join("\n"));
    }
}

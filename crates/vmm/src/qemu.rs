//! The command line of QEMU. Everything that it works on comes as open descriptors, so its jail needs no files.
//!
//! The machine is `q35` with as little on it as can be, and `qboot` as its firmware. QEMU's own `microvm` machine is
//! leaner, but its tables say that there is no timer of old, and without KVM's clock a stock kernel then finds none at all.

use std::ffi::OsString;

use stead_model::address::Mac;
use stead_model::container::Access;

use crate::Accelerator;

/// What QEMU runs. Numbers of descriptors are those that its process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// What people see in lists of processes.
    pub name: String,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u64,
    /// The kernel.
    pub kernel_fd: i32,
    /// How its guest begins.
    pub begins: Begins,
    /// A socket: the guest's serial line.
    pub console_fd: i32,
    /// A socket, whose other end speaks with the agent.
    pub agent_fd: i32,
    /// A socket, whose other end tells QEMU what to do.
    pub control_fd: i32,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Nics.
    pub nics: Vec<Nic>,
    /// A socket, whose other end serves files of this computer, if the guest is given any.
    pub share_fd: Option<i32>,
}

/// How a guest begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begins {
    /// Its kernel boots.
    Boots {
        /// What the kernel starts with.
        initramfs_fd: i32,
        /// What the kernel is told.
        kernel_args: String,
    },
    /// As one was that was saved, of the same hardware.
    Saved {
        /// The file that it was saved to, open for reading alone.
        fd: i32,
    },
}

/// A disk of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file with its bytes.
    pub fd: i32,
    /// By which the guest finds it; at most 20 characters.
    pub serial: String,
    /// Whether it can be written; the descriptor is open for just that.
    pub access: Access,
}

/// A nic of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// The TAP.
    pub fd: i32,
    /// Its MAC.
    pub mac: Mac,
}

/// The port of the guest by which the agent speaks.
pub(crate) const AGENT_PORT: &str = "stead.agent";

/// By which the guest finds the files that it is given.
pub const SHARE_TAG: &str = "stead.share";

/// The arguments after `qemu-system-*`. Pure.
pub fn qemu_args(vm: &Vm) -> Vec<OsString> {
    let mut args: Vec<String> = Vec::new();
    let mut put = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
    put(&["-name", &format!("guest={},process={}", vm.name, process_name(&vm.name))]);
    put(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    put(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    let machine = "q35,sata=off,smbus=off,usb=off,vmport=off,graphics=off,dump-guest-core=off";
    match vm.share_fd {
        None => put(&["-M", machine]),
        // What serves its files works on the guest's memory.
        Some(_) => {
            put(&["-M", &format!("{machine},memory-backend=memory")]);
            put(&["-object", &shared_memory(vm.memory_mib)]);
        }
    }
    put(&["-accel", vm.accelerator.name(), "-cpu", vm.accelerator.cpu()]);
    put(&["-smp", &vm.cpus.to_string(), "-m", &format!("{}M", vm.memory_mib), "-bios", "qboot.rom"]);
    // What was saved has no kernel to load any more, but hardware that did.
    put(&["-kernel", &opened(vm.kernel_fd)]);
    match &vm.begins {
        Begins::Boots { initramfs_fd, kernel_args } => {
            put(&["-initrd", &opened(*initramfs_fd), "-append", kernel_args]);
        }
        Begins::Saved { fd } => put(&["-incoming", &format!("fd:{fd}")]),
    }
    put(&["-chardev", &format!("socket,id=console,fd={}", vm.console_fd), "-serial", "chardev:console"]);
    put(&["-chardev", &format!("socket,id=control,fd={}", vm.control_fd), "-qmp", "chardev:control"]);
    // What the guest does not use goes back to this computer.
    put(&["-device", "virtio-balloon-pci,free-page-reporting=on,romfile="]);
    put(&["-device", "virtio-rng-pci,romfile=", "-device", "virtio-serial-pci,max_ports=2,romfile="]);
    put(&["-chardev", &format!("socket,id=agent,fd={}", vm.agent_fd)]);
    put(&["-device", &format!("virtserialport,chardev=agent,name={AGENT_PORT}")]);
    for (disk, set) in vm.disks.iter().zip(1..) {
        let read_only = match disk.access {
            Access::Read => "on",
            Access::Write => "off",
        };
        let serial = &disk.serial;
        put(&["-add-fd", &format!("fd={},set={set}", disk.fd)]);
        // What is deleted in the guest takes no room here.
        let node = format!(
            "driver=raw,node-name={serial},read-only={read_only},discard=unmap,detect-zeroes=unmap,file.driver=file,file.filename=/dev/fdset/{set},file.locking=off"
        );
        put(&["-blockdev", &node]);
        // A full disk of ours is an error there; QEMU would by itself hold the guest, which nobody told it to.
        put(&[
            "-device",
            &format!("virtio-blk-pci,drive={serial},serial={serial},werror=report,rerror=report,romfile="),
        ]);
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

/// A guest's memory that another process works on.
pub(crate) fn shared_memory(mib: u64) -> String {
    format!("memory-backend-memfd,id=memory,size={mib}M,share=on")
}

/// The device by which a guest has files of this computer.
pub(crate) fn share(fd: i32) -> [String; 4] {
    let device = format!("vhost-user-fs-pci,chardev=share,tag={SHARE_TAG},romfile=");
    ["-chardev".to_owned(), format!("socket,id=share,fd={fd}"), "-device".to_owned(), device]
}

/// The file that a descriptor is open for, under a name.
fn opened(fd: i32) -> String {
    format!("/proc/self/fd/{fd}")
}

/// What the kernel shows of a process: 15 characters.
pub(crate) fn process_name(name: &str) -> String {
    name.chars().take(15).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn vm() -> Vm {
        Vm {
            name: "web.shop".to_owned(),
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory_mib: 512,
            kernel_fd: 10,
            begins: Begins::Boots {
                initramfs_fd: 11,
                kernel_args: "console=ttyS0 panic=-1 quiet".to_owned(),
            },
            console_fd: 12,
            agent_fd: 13,
            control_fd: 14,
            disks: vec![
                Disk { fd: 20, serial: "root".to_owned(), access: Access::Read },
                Disk { fd: 21, serial: "data".to_owned(), access: Access::Write },
            ],
            nics: vec![Nic { fd: 30, mac: "02:00:00:00:00:01".parse().unwrap() }],
            share_fd: None,
        }
    }

    #[test]
    fn a_machine_with_a_disk_of_each_kind_and_a_nic() {
        let vm = vm();
        let words: Vec<_> = qemu_args(&vm).into_iter().map(|word| word.into_string().unwrap()).collect();
        let mut text = String::new();
        for word in words {
            text.push_str(if word.starts_with('-') && !text.is_empty() {
                "\n"
            } else if text.is_empty() {
                ""
            } else {
                " "
            });
            text.push_str(&word);
        }
        expect![[r#"
            -name guest=web.shop,process=web.shop
            -nodefaults
            -no-user-config
            -no-reboot
            -display none
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -M q35,sata=off,smbus=off,usb=off,vmport=off,graphics=off,dump-guest-core=off
            -accel tcg
            -cpu max
            -smp 2
            -m 512M
            -bios qboot.rom
            -kernel /proc/self/fd/10
            -initrd /proc/self/fd/11
            -append console=ttyS0 panic=-1 quiet
            -chardev socket,id=console,fd=12
            -serial chardev:console
            -chardev socket,id=control,fd=14
            -qmp chardev:control
            -device virtio-balloon-pci,free-page-reporting=on,romfile=
            -device virtio-rng-pci,romfile=
            -device virtio-serial-pci,max_ports=2,romfile=
            -chardev socket,id=agent,fd=13
            -device virtserialport,chardev=agent,name=stead.agent
            -add-fd fd=20,set=1
            -blockdev driver=raw,node-name=root,read-only=on,discard=unmap,detect-zeroes=unmap,file.driver=file,file.filename=/dev/fdset/1,file.locking=off
            -device virtio-blk-pci,drive=root,serial=root,werror=report,rerror=report,romfile=
            -add-fd fd=21,set=2
            -blockdev driver=raw,node-name=data,read-only=off,discard=unmap,detect-zeroes=unmap,file.driver=file,file.filename=/dev/fdset/2,file.locking=off
            -device virtio-blk-pci,drive=data,serial=data,werror=report,rerror=report,romfile=
            -netdev tap,id=nic0,fd=30
            -device virtio-net-pci,netdev=nic0,mac=02:00:00:00:00:01,romfile="#]].assert_eq(&text);
    }

    #[test]
    fn files_of_this_computer_need_memory_that_is_shared_and_kvm_the_processor_itself() {
        let vm = vm();
        let sharing = qemu_args(&Vm { share_fd: Some(40), ..vm.clone() });
        let has = |word: &str| sharing.iter().any(|arg| arg == word);
        assert!(has("memory-backend-memfd,id=memory,size=512M,share=on"));
        assert!(
            has("socket,id=share,fd=40") && has("vhost-user-fs-pci,chardev=share,tag=stead.share,romfile=")
        );
        let saved = qemu_args(&Vm { begins: Begins::Saved { fd: 50 }, ..vm.clone() });
        let words: Vec<_> = saved.iter().filter_map(|word| word.to_str()).collect();
        assert!(words.windows(4).any(|four| four == ["-kernel", "/proc/self/fd/10", "-incoming", "fd:50"]));
        assert!(!words.contains(&"-append"));
        let kvm = Vm { accelerator: Accelerator::Kvm, ..vm };
        assert!(qemu_args(&kvm).windows(4).any(|words| words == ["-accel", "kvm", "-cpu", "host"]));
    }
}

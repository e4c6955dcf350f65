//! The image of a disk that the scenes of whole computers boot: Debian for clouds, made of its packages, with boot loaders
//! for both kinds of firmware. Nothing is mounted for that. It takes two minutes, so it is done once and kept below the
//! target directory.
//!
//! ```text
//! table of partitions, SYSLINUX's first stage │ FAT: SYSLINUX, kernel, initrd, settings │ ext4: the system
//! ```

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::programs::run;

/// What a distribution for clouds has, and little more.
const PACKAGES: &str = "systemd-sysv,systemd-resolved,systemd-boot-efi,dbus,udev,kmod,cloud-init,cloud-guest-utils,fdisk,\
    e2fsprogs,iproute2,iputils-ping,busybox-static";

const HOOK: &str = include_str!("disk.sh");

/// What the kernel is told: no more pages, and no more care, than what is translated needs.
const OPTIONS: &str =
    "console=ttyS0 quiet systemd.show_status=1 net.ifnames=0 mitigations=off no5lvl audit=0 tsc=reliable";

const MIB: u64 = 1 << 20;
/// Where the first partition begins, and how large it is.
const BOOT_AT: u64 = MIB;
const BOOT_BYTES: u64 = 48 * MIB;
/// The first stage of SYSLINUX, which starts what the active partition has.
const FIRST_STAGE: &str = "/usr/lib/syslinux/mbr/mbr.bin";
const SECTOR: u64 = 512;

/// The file with the image; `target` is where cargo builds.
pub(crate) fn image(target: &Path) -> Result<PathBuf> {
    // Named after what is in it: another recipe is another file.
    let sum = [PACKAGES, HOOK, OPTIONS]
        .concat()
        .bytes()
        .fold(5381_u32, |sum, byte| sum.wrapping_mul(33).wrapping_add(u32::from(byte)));
    let image = target.join("images").join(format!("debian-12-{sum:08x}.qcow2"));
    if image.exists() {
        return Ok(image);
    }
    println!("making a disk of Debian's packages for the scenes of whole computers");
    let scratch = tempfile::tempdir().context("could not make a directory")?;
    let scratch = scratch.path();
    // Of an ordinary user it is a subordinate one who makes the files.
    fs::set_permissions(scratch, fs::Permissions::from_mode(0o777))?;
    system(scratch, &target.join("kernel"))?;
    boot(scratch)?;
    let disk = scratch.join("disk.raw");
    assemble(scratch, &disk).context("could not put the disk together")?;
    fs::create_dir_all(target.join("images"))?;
    let partial = image.with_extension("partial");
    run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&disk).arg(&partial))?;
    fs::rename(&partial, &image).context("could not keep the image")?;
    Ok(image)
}

/// The system's file system, its kernel and its initrd.
fn system(scratch: &Path, kernel: &Path) -> Result<()> {
    let hook = scratch.join("disk.sh");
    fs::write(&hook, HOOK)?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    std::os::unix::fs::symlink(kernel, scratch.join("kernel"))?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--format=null"]);
    command.arg(format!("--include={PACKAGES}"));
    command.arg(format!("--customize-hook={}", hook.display())).arg("bookworm");
    run(&mut command)
}

/// The partition that both kinds of firmware start from.
fn boot(scratch: &Path) -> Result<()> {
    let partition = scratch.join("boot.fat");
    let loader = format!(
        "SERIAL 0 115200\nDEFAULT linux\nLABEL linux\n  KERNEL /vmlinuz\n  INITRD /initrd.img\n  APPEND {OPTIONS}\n"
    );
    fs::write(scratch.join("syslinux.cfg"), loader)?;
    let (before, kib) = ((BOOT_AT / SECTOR).to_string(), (BOOT_BYTES / 1024).to_string());
    let mut make = Command::new("/usr/sbin/mkfs.vfat");
    make.args(["-n", "BOOT", "-h", &before, "-C"]).arg(&partition).arg(&kib);
    run(make.stdout(std::process::Stdio::null()))?;
    for file in ["vmlinuz", "initrd.img", "syslinux.cfg"] {
        run(Command::new("mcopy")
            .arg("-i")
            .arg(&partition)
            .arg(scratch.join(file))
            .arg(format!("::{file}")))?;
    }
    let entry = format!("title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions {OPTIONS}\n");
    fs::write(scratch.join("debian.conf"), entry)?;
    let mut directories = Command::new("mmd");
    run(directories.arg("-i").arg(&partition).args(["::EFI", "::EFI/BOOT", "::loader", "::loader/entries"]))?;
    for (file, to) in [("boot.efi", "EFI/BOOT/BOOTX64.EFI"), ("debian.conf", "loader/entries/debian.conf")] {
        run(Command::new("mcopy").arg("-i").arg(&partition).arg(scratch.join(file)).arg(format!("::{to}")))?;
    }
    run(Command::new("syslinux").arg("--install").arg(&partition))
}

/// The whole disk. Its last partition is the system's, so it can grow with the disk.
fn assemble(scratch: &Path, disk: &Path) -> Result<()> {
    let mut file = File::create(disk)?;
    let root_at = BOOT_AT + BOOT_BYTES;
    let root_bytes = fs::metadata(scratch.join("root.ext4"))?.len();
    file.write_all(&fs::read(FIRST_STAGE)?)?;
    file.seek(SeekFrom::Start(446))?;
    // An EFI system partition, which is the active one as well; and one of Linux.
    file.write_all(&entry(0x80, 0xef, BOOT_AT, BOOT_BYTES))?;
    file.write_all(&entry(0, 0x83, root_at, root_bytes))?;
    file.seek(SeekFrom::Start(510))?;
    file.write_all(&[0x55, 0xaa])?;
    for (part, at) in [("boot.fat", BOOT_AT), ("root.ext4", root_at)] {
        file.seek(SeekFrom::Start(at))?;
        std::io::copy(&mut File::open(scratch.join(part))?, &mut file)?;
    }
    file.set_len(root_at + root_bytes + MIB)?;
    Ok(())
}

/// A line of the table of partitions, by sectors alone.
fn entry(flag: u8, kind: u8, at: u64, bytes: u64) -> [u8; 16] {
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX).to_le_bytes();
    let mut entry = [0xff; 16];
    entry[0] = flag;
    entry[4] = kind;
    entry[8..12].copy_from_slice(&sectors(at));
    entry[12..].copy_from_slice(&sectors(bytes));
    entry
}

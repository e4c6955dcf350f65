//! How a guest of an image begins: it boots, it boots and is saved for others, or it goes on from where another one was saved.
//!
//! What is saved has booted and was told nothing. So it depends on the hardware that QEMU is told to make, on the programs, and
//! on nothing of the machine: MACs are the same in all that are saved and changed afterwards, disks are found anew.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use stead_host::linux::guest::kernels;
use stead_host::template::{About, Templates, Unfinished};
use stead_model::address::{Mac, digest};
use stead_vmm::{Accelerator, QEMU, Vm, missing_program, program, qemu_args};

use super::boot::{Boot, KERNEL_ARGS};
use super::shares::Given;

/// Of more memory it takes longer to look for what was written there than to boot: where all that a guest does is translated,
/// and where its processor is this computer's.
const MEMORY_MAX_MIB: [u64; 2] = [8 << 10, 1 << 10];

/// How a guest of an image begins.
#[derive(Debug)]
pub(super) enum Beginning {
    /// It boots.
    Boots,
    /// It boots, and is then saved for others.
    IsSaved(Unfinished),
    /// It goes on from where another one was saved.
    Restored {
        /// By which the template is known.
        key: String,
        /// What was saved, for reading alone.
        state: File,
    },
}

/// The MAC that a nic has when its guest is saved: the same for all in that place. Nothing is ever sent with it.
pub(super) fn usual_mac(place: usize) -> Mac {
    Mac::derived(&["a nic of a guest that is saved", &place.to_string()])
}

impl Boot {
    /// How the guest is to begin. That it cannot be saved or restored is no reason not to boot it.
    pub(super) fn beginning(&self, given: &Given) -> Beginning {
        // What serves files keeps a state of its own that QEMU knows nothing of.
        if self.plan.is_cold || !given.shares.is_empty() {
            return Beginning::Boots;
        }
        self.choose().unwrap_or_else(|error| {
            tracing::warn!("it is started cold: {error:#}");
            Beginning::Boots
        })
    }

    fn choose(&self) -> Result<Beginning> {
        let kernel = self.kernel()?;
        let accelerator = self.accelerator()?;
        let image = kernels(&self.home).image_path(&kernel.name);
        let key = self.key(accelerator, &image)?;
        let templates = Templates::of(&self.home);
        if let Some(state) = templates.open(&key)? {
            return Ok(Beginning::Restored { key, state });
        }
        let about = About {
            kernel: kernel.name,
            cpus: self.plan.cpus,
            memory_mib: self.plan.memory_mib,
            nics: self.plan.nics.len(),
            accelerator: accelerator.name().to_owned(),
        };
        let [translated, direct] = MEMORY_MAX_MIB;
        if about.memory_mib > if accelerator == Accelerator::Tcg { translated } else { direct } {
            return Ok(Beginning::Boots);
        }
        Ok(templates.begin(&key, about, &image)?.map_or(Beginning::Boots, Beginning::IsSaved))
    }

    /// A digest of all that a guest depends on that has booted and was told nothing. What this computer is like does not
    /// change until it starts anew.
    fn key(&self, accelerator: Accelerator, kernel: &Path) -> Result<String> {
        let qemu = program(QEMU).with_context(|| missing_program(QEMU))?;
        let start = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let start = start.context("cannot read which start of the computer this is")?;
        let hardware = hardware(self.plan.cpus, self.plan.memory_mib, self.plan.nics.len(), accelerator);
        let parts = [&hardware, &start, &stamp(&qemu)?, &stamp(kernel)?, stead_agent::PROGRAM_DIGEST];
        Ok(digest(&parts).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// QEMU's command line, without what of it is another one for each machine.
fn hardware(cpus: u32, memory_mib: u64, nics: usize, accelerator: Accelerator) -> String {
    let fd = -1;
    let nic = |place| stead_vmm::Nic { fd, mac: usual_mac(place) };
    let vm = Vm {
        name: String::new(),
        accelerator,
        cpus,
        memory_mib,
        kernel_fd: fd,
        begins: stead_vmm::Begins::Boots { initramfs_fd: fd, kernel_args: KERNEL_ARGS.to_owned() },
        console_fd: fd,
        agent_fd: fd,
        control_fd: fd,
        disks: super::boot::disks([fd, fd]),
        nics: (0..nics).map(nic).collect(),
        share_fd: None,
    };
    let words: Vec<String> = qemu_args(&vm).iter().map(|word| word.to_string_lossy().into_owned()).collect();
    words.join(" ")
}

/// What tells a file from any other that was in its place, without reading it.
fn stamp(path: &Path) -> Result<String> {
    let file = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(format!("{} {} {} {}.{}", file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_of_one_hardware_go_on_from_one_template() {
        let usual = hardware(1, 512, 1, Accelerator::Tcg);
        let words = "-M q35,sata=off,smbus=off,usb=off,vmport=off,graphics=off,dump-guest-core=off -accel tcg -cpu max -smp 1 -m 512M";
        assert!(usual.contains(words), "{usual}");
        assert!(usual.contains(&format!("mac={},", usual_mac(0))), "{usual}");
        let others = [
            hardware(2, 512, 1, Accelerator::Tcg),
            hardware(1, 513, 1, Accelerator::Tcg),
            hardware(1, 512, 0, Accelerator::Tcg),
            hardware(1, 512, 1, Accelerator::Kvm),
        ];
        assert!(others.iter().all(|other| *other != usual));
        assert_ne!(usual_mac(0), usual_mac(1));
    }

    #[test]
    fn a_file_that_was_replaced_is_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmlinuz");
        fs::write(&path, "a").unwrap();
        let before = stamp(&path).unwrap();
        assert_eq!(stamp(&path).unwrap(), before);
        let new = directory.path().join("new");
        fs::write(&new, "b").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_ne!(stamp(&path).unwrap(), before);
        assert!(stamp(&directory.path().join("none")).is_err());
    }
}

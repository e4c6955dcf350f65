//! What runs a guest's instructions: the processor itself by KVM, or QEMU's translator. That `/dev/kvm` opens says
//! little: nested and software KVMs answer, and guests then hang. So a kernel is booted, once until the computer is
//! started anew, with a limit: it finds no root and ends, or KVM does not do.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What runs a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The processor itself, by KVM.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accelerator {
    /// QEMU's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The processor that a guest sees: this computer's, or all that the translator can.
    pub(crate) fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }
}

/// An accelerator, and why it is that one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Which.
    pub accelerator: Accelerator,
    /// Why, for people.
    pub why: String,
}

/// A kernel that finds no root has ended after a second by KVM.
const PROBE_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// Chooses, or remembers what was chosen: in `memory`, a file that goes when the computer ends.
pub fn choose(qemu: &Path, kernel: &Path, memory: &Path) -> Result<Chosen> {
    let known = std::fs::read(memory).ok().and_then(|text| serde_json::from_slice::<Chosen>(&text).ok());
    if let Some(chosen) = known {
        return Ok(chosen);
    }
    let chosen = match try_kvm(qemu, kernel)? {
        Ok(()) => Chosen { accelerator: Accelerator::Kvm, why: "KVM runs guests".to_owned() },
        Err(why) => Chosen { accelerator: Accelerator::Tcg, why },
    };
    let text = serde_json::to_vec(&chosen).context("cannot write the accelerator as JSON")?;
    std::fs::write(memory, text).with_context(|| format!("cannot write {}", memory.display()))?;
    Ok(chosen)
}

/// Whether KVM runs a guest; or why not.
fn try_kvm(qemu: &Path, kernel: &Path) -> Result<Result<(), String>> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        return Ok(Err(format!("/dev/kvm cannot be opened ({error})")));
    }
    let mut child = Command::new(qemu)
        .args(["-M", "q35,sata=off,smbus=off,usb=off", "-accel", "kvm", "-cpu", "host", "-m", "128"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-bios", "qboot.rom"])
        .args(["-append", "panic=-1 quiet"])
        .arg("-kernel")
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run `{}`", qemu.display()))?;
    let deadline = Instant::now() + PROBE_LIMIT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().context("cannot wait for QEMU")? {
            let failed = || format!("QEMU cannot use KVM ({status})");
            return Ok(status.success().then_some(()).ok_or_else(failed));
        }
        std::thread::sleep(POLL);
    }
    child.kill().context("cannot end QEMU")?;
    child.wait().context("cannot wait for QEMU")?;
    Ok(Err(format!("a kernel did not get through its start by KVM within {} s", PROBE_LIMIT.as_secs())))
}

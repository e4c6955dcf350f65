//! The start of a whole computer: its disk, which is a layer over an image that others have as well, what it is told, and
//! its VMM.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};

use stead_host::linux::vm::disks;
use stead_host::machine::{Boots, GuestNic, Seed as Told};
use stead_image::disk::{grow_layer, make_layer, open_layer};
use stead_model::vm::Firmware;
use stead_vmm::{
    Computer, Seed, SeedAddresses, SeedNic, UEFI, computer_args, missing_program, seed, uefi_files,
};

use super::super::set_up::mounts;
use super::{Boot, Booted, Given, Streams, booted};

impl Boot {
    /// The layer of the machine's disk that it writes, made when it is started first, and as large as it is to be.
    pub(super) fn layer(&self) -> Result<PathBuf> {
        let path = self.files.own()?.written.qcow2();
        if !path.exists() {
            make_layer(&path, self.plan.disk_bytes)?;
        }
        grow_layer(&path, self.plan.disk_bytes)?;
        Ok(path)
    }

    /// Those below it that snapshots consist of, the lowest first. Its VMM can only read them.
    fn layers_below(&self) -> Result<Vec<File>> {
        self.files.own()?.below.iter().map(|layer| open_layer(&layer.qcow2())).collect()
    }

    /// Switches it on. This process has one thread.
    pub(in crate::machine) fn start_computer(
        &self,
        hostname: &str,
        netns: &OwnedFd,
        given: &Given,
    ) -> Result<Booted> {
        let Boots::Disk { image, firmware, seed } = &self.plan.boots else {
            bail!("it boots a kernel of ours")
        };
        let (ours, theirs) = Streams::pair()?;
        let base = disks(&self.home).path(image);
        let base = File::open(base).context("the copy of its image is not here any more")?;
        let disk = File::options().read(true).write(true).open(self.layer()?);
        let disk = disk.context("cannot open its disk")?;
        let below = self.layers_below()?;
        let told = seed.as_ref().map(|told| self.seed(hostname, told, given)).transpose()?;
        let uefi = match firmware {
            Firmware::Bios => None,
            Firmware::Uefi => Some(self.uefi()?),
        };
        let taps = self.taps()?;
        let (shares, share) = self.serve(given, netns)?;
        let vm = Computer {
            name: self.id.to_string(),
            accelerator: self.accelerator()?,
            cpus: self.plan.cpus,
            memory_mib: self.plan.memory_mib,
            console_fd: theirs.console.as_raw_fd(),
            agent_fd: theirs.agent.as_raw_fd(),
            control_fd: theirs.control.as_raw_fd(),
            disk_fd: disk.as_raw_fd(),
            below_fds: below.iter().map(AsRawFd::as_raw_fd).collect(),
            image: (base.as_raw_fd(), image.format),
            uefi: uefi.as_ref().map(|(code, variables)| (code.as_raw_fd(), variables.as_raw_fd())),
            seed_fd: told.as_ref().map(AsRawFd::as_raw_fd),
            nics: self.vmm_nics(&taps),
            share_fd: share.as_ref().map(AsRawFd::as_raw_fd),
        };
        let mut inherited: Vec<OwnedFd> = vec![base.into(), disk.into()];
        inherited.extend(below.into_iter().map(OwnedFd::from));
        inherited.extend(<[OwnedFd; 3]>::from(theirs));
        inherited.extend(told.map(OwnedFd::from));
        inherited.extend(uefi.into_iter().flat_map(|(code, variables)| [code, variables]).map(OwnedFd::from));
        inherited.extend(taps);
        inherited.extend(share.map(OwnedFd::from));
        let spawned = self.spawn(vm.accelerator, computer_args(&vm), inherited, netns)?;
        booted(spawned, ours, shares)
    }

    /// The program of its firmware, and what that remembers: at first what everybody's does.
    fn uefi(&self) -> Result<(File, File)> {
        let (code, template) = uefi_files().with_context(|| missing_program(UEFI))?;
        let path = self.files.own()?.written.variables();
        if !path.exists() {
            let unfinished = path.with_extension("new");
            std::fs::copy(template, &unfinished)
                .and_then(|_| std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600)))
                .and_then(|()| std::fs::rename(&unfinished, &path))
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        let code = File::open(code).context("cannot open its firmware")?;
        let variables = File::options().read(true).write(true).open(&path);
        Ok((code, variables.context("cannot open what its firmware remembers")?))
    }

    /// What it is told at its start: in memory, for it may have secrets in it.
    fn seed(&self, hostname: &str, told: &Told, given: &Given) -> Result<File> {
        let mounts = mounts(given)?.map(|mounts| serde_json::to_string(&mounts)).transpose();
        let mounts = mounts.context("cannot write what is mounted in it as JSON")?;
        let nics: Vec<SeedNic> = self.plan.nics.iter().map(seed_nic).collect();
        let bytes = seed(&Seed {
            instance_id: &told.instance_id,
            hostname,
            ssh_authorized_keys: &told.told.ssh_authorized_keys,
            user_data: told.told.user_data.as_deref(),
            nics: &nics,
            agent: stead_agent::PROGRAM,
            mounts: mounts.as_deref(),
        });
        let memory = memfd_create("seed", MemfdFlags::CLOEXEC).context("cannot make a file in memory")?;
        let mut file = File::from(memory);
        file.write_all(&bytes).context("cannot fill a file in memory")?;
        // The VMM is to read only.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        File::open(path).context("cannot open a file in memory")
    }
}

fn seed_nic(nic: &GuestNic) -> SeedNic {
    let has = |v4: bool| nic.addresses.iter().any(|net| net.addr().is_ipv4() == v4);
    let addresses = if nic.asks {
        // Where nothing was planned whoever is there may answer, or nobody.
        let optional = nic.addresses.is_empty();
        SeedAddresses::Asked { v4: optional || has(true), v6: optional || has(false), optional }
    } else {
        SeedAddresses::Set { addresses: nic.addresses.clone(), gateways: nic.gateways.clone() }
    };
    let (dns, search) = (nic.dns.clone(), nic.domain.iter().cloned().collect());
    SeedNic { mac: nic.mac, mtu: nic.mtu, addresses, dns, search }
}

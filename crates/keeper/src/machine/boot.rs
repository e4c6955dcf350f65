//! The start of a guest: its root, its disk, what its kernel starts with, its nics, and the VMM in its jail.

mod computer;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use stead_host::home::Home;
use stead_host::linux::guest::kernels;
use stead_host::machine::{Boots, Files, Guest as Plan};
use stead_image::{Kernel, SHARING_MODULE, Store};
use stead_model::address::digest;
use stead_model::container::Access;
use stead_model::name::{MachineId, Name};
use stead_net::anchor;
use stead_net::kernel::tap;
use stead_net::process::ProcessId;
use stead_vmm::{Accelerator, Entry, QEMU, Vm, initramfs, missing_program, program, qemu_args};

use super::kept::Words;
use super::shares::{Given, Server};
use super::template::{Beginning, usual_mac};

/// What stead is called with to become a VMM in a jail.
const WORD: &str = "__vmm";

/// The kernel's words go to the console; one that gives up ends the guest. So does one that went on without the process in
/// which it failed: what that held is held for ever, and the guest would be said to run while it does nothing any more.
pub(super) const KERNEL_ARGS: &str = "console=ttyS0 oops=panic panic=-1 quiet";

/// The serials of a guest's disks.
pub(super) const ROOT: &str = "root";
pub(super) const DATA: &str = "data";

/// A VMM that runs.
pub(super) struct Booted {
    pub(super) child: Child,
    pub(super) pidfd: OwnedFd,
    pub(super) process: ProcessId,
    pub(super) streams: Streams,
    /// What the VMM says of itself.
    pub(super) words: Words,
    /// What serves the files of this computer that it is given.
    pub(super) shares: Option<Server>,
}

/// The ends of what we and a VMM say to each other: ours, or its.
pub(super) struct Streams {
    /// The agent's stream.
    pub(super) agent: UnixStream,
    /// Where the VMM is told what to do.
    pub(super) control: UnixStream,
    /// The guest's serial line.
    pub(super) console: UnixStream,
}

impl Streams {
    /// Ours, and its.
    fn pair() -> Result<(Self, Self)> {
        let (agent, agent_end) = UnixStream::pair().context("cannot make its agent's stream")?;
        let (control, control_end) = UnixStream::pair().context("cannot make its VMM's stream")?;
        let (console, console_end) = UnixStream::pair().context("cannot make its console")?;
        let ours = Self { agent, control, console };
        Ok((ours, Self { agent: agent_end, control: control_end, console: console_end }))
    }
}

impl From<Streams> for [OwnedFd; 3] {
    fn from(streams: Streams) -> Self {
        [streams.agent, streams.control, streams.console].map(OwnedFd::from)
    }
}

/// Whose guest it is, and what it is to be.
#[derive(Clone, Debug)]
pub(super) struct Boot {
    pub(super) home: Home,
    pub(super) id: MachineId,
    pub(super) files: Files,
    pub(super) plan: Plan,
    /// Where the project's volumes are.
    pub(super) volumes: BTreeMap<Name, PathBuf>,
}

impl Boot {
    /// Makes what takes long and is made once: the image's root, the machine's own disk, the choice of what runs its
    /// instructions.
    pub(super) fn prepare(&self) -> Result<()> {
        match &self.plan.boots {
            Boots::Image { .. } => {
                self.root()?;
                self.disk()?;
            }
            Boots::Disk { .. } => drop(self.layer()?),
        }
        self.accelerator().map(drop)
    }

    /// Whether it boots by itself.
    pub(super) fn is_computer(&self) -> bool {
        matches!(self.plan.boots, Boots::Disk { .. })
    }

    /// Starts the VMM of an image's guest. This process has one thread.
    pub(super) fn start(&self, netns: &OwnedFd, given: &Given, beginning: &Beginning) -> Result<Booted> {
        let kernel = kernels(&self.home).image_path(&self.kernel()?.name);
        let kernel = File::open(kernel).context("its kernel is not here any more")?;
        let (begun, begins) = self.begins(given, beginning)?;
        let (ours, theirs) = Streams::pair()?;
        let root = File::open(self.root()?).context("cannot open its root")?;
        let disk =
            File::options().read(true).write(true).open(self.disk()?).context("cannot open its disk")?;
        let taps = self.taps()?;
        let (shares, share) = self.serve(given, netns)?;
        let vm = Vm {
            name: self.id.to_string(),
            accelerator: self.accelerator()?,
            cpus: self.plan.cpus,
            memory_mib: self.plan.memory_mib,
            kernel_fd: kernel.as_raw_fd(),
            begins,
            console_fd: theirs.console.as_raw_fd(),
            agent_fd: theirs.agent.as_raw_fd(),
            control_fd: theirs.control.as_raw_fd(),
            disks: disks([root.as_raw_fd(), disk.as_raw_fd()]),
            nics: self.image_nics(&taps, beginning),
            share_fd: share.as_ref().map(AsRawFd::as_raw_fd),
        };
        let mut inherited: Vec<OwnedFd> = vec![kernel.into(), begun.into(), root.into(), disk.into()];
        inherited.extend(<[OwnedFd; 3]>::from(theirs));
        inherited.extend(taps);
        inherited.extend(share.map(OwnedFd::from));
        let spawned = self.spawn(vm.accelerator, qemu_args(&vm), inherited, netns)?;
        booted(spawned, ours, shares)
    }

    /// How the guest begins, with the file that it begins from.
    fn begins(&self, given: &Given, beginning: &Beginning) -> Result<(File, stead_vmm::Begins)> {
        if let Beginning::Restored { state, .. } = beginning {
            let state = state.try_clone().context("cannot share what was saved")?;
            let fd = state.as_raw_fd();
            return Ok((state, stead_vmm::Begins::Saved { fd }));
        }
        let initramfs = self.initramfs(given)?;
        let initramfs_fd = initramfs.as_raw_fd();
        Ok((initramfs, stead_vmm::Begins::Boots { initramfs_fd, kernel_args: KERNEL_ARGS.to_owned() }))
    }

    /// Starts what serves the files that it is given, if it is given any: that, and the VMM's end.
    fn serve(&self, given: &Given, netns: &OwnedFd) -> Result<(Option<Server>, Option<UnixStream>)> {
        let is_given = !given.shares.is_empty();
        let served = is_given.then(|| Server::start(given, &self.files, netns)).transpose()?;
        Ok(served.unzip())
    }

    /// Starts QEMU with the descriptors that its words speak of.
    fn spawn(
        &self,
        accelerator: Accelerator,
        args: Vec<OsString>,
        inherited: Vec<OwnedFd>,
        netns: &OwnedFd,
    ) -> Result<(Child, Words)> {
        let qemu = program(QEMU).with_context(|| missing_program(QEMU))?;
        let mut words: Vec<OsString> = vec![WORD.into(), self.user().to_string().into()];
        let kvm = fs::metadata("/dev/kvm").ok().filter(|_| accelerator == Accelerator::Kvm);
        words.push(kvm.map_or_else(|| "-".to_owned(), |device| device.gid().to_string()).into());
        words.push(std::process::id().to_string().into());
        words.push(qemu.into());
        words.extend(args);
        let (said, end) = Words::new(&self.files.vmm_log())?;
        let out = end.try_clone().context("cannot share a pipe")?;
        // Nothing else is started before they are closed here.
        for fd in &inherited {
            fcntl_setfd(fd, FdFlags::empty()).context("cannot hand over a descriptor")?;
        }
        // Wherever it is: that of one that is sealed has no path.
        let child = Command::new("/proc/self/exe")
            .args(words)
            .current_dir("/")
            .stdin(netns.try_clone().context("cannot share its network namespace")?)
            .stdout(Stdio::from(out))
            .stderr(Stdio::from(end))
            .spawn()
            .context("cannot start the VMM")?;
        Ok((child, said))
    }

    /// Whom the VMM becomes: nobody that this computer knows, and another one for each machine; in a user namespace
    /// somebody that it maps, if it maps more than one.
    fn user(&self) -> u32 {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        if !map.split_whitespace().eq(["0", "0", "4294967295"]) {
            return 65533;
        }
        let [a, b, c, ..] = digest(&[&self.id.to_string()]);
        0x7000_0000 | u32::from_be_bytes([0, a, b, c])
    }

    /// Its kernel; for one that boots by itself the one that is here for others, to try what runs it.
    pub(super) fn kernel(&self) -> Result<Kernel> {
        let mut all = kernels(&self.home).list()?.into_iter();
        let found = match &self.plan.boots {
            Boots::Image { kernel, .. } => all.find(|known| known.name == *kernel),
            Boots::Disk { .. } => all.next(),
        };
        found.context("its kernel is not here any more; hint: `stead kernel pull`")
    }

    pub(super) fn accelerator(&self) -> Result<Accelerator> {
        let qemu = program(QEMU).with_context(|| missing_program(QEMU))?;
        let kernel = kernels(&self.home).image_path(&self.kernel()?.name);
        let chosen = stead_vmm::choose(&qemu, &kernel, &self.home.accelerator())?;
        tracing::info!("{}: {}", chosen.accelerator.name(), chosen.why);
        Ok(chosen.accelerator)
    }

    /// The image's root, which is built for the first of its machines.
    fn root(&self) -> Result<PathBuf> {
        let store = Store::open(&self.home.images())?;
        let Boots::Image { image, .. } = &self.plan.boots else { bail!("it boots from a disk") };
        let details = store.inspect(image)?.context("its image is not here any more")?;
        let mkfs = program("mkfs.erofs").with_context(|| missing_program("mkfs.erofs"))?;
        store.build_root(&details.image, &mkfs).context("cannot build the root of its image")
    }

    /// The machine's own disk, made when it is started first.
    fn disk(&self) -> Result<PathBuf> {
        let path = self.files.own()?.written.disk();
        if path.exists() {
            return Ok(path);
        }
        make_disk(&path, self.plan.disk_bytes).context("cannot make its disk")?;
        Ok(path)
    }

    fn initramfs(&self, given: &Given) -> Result<File> {
        let kernel = self.kernel()?;
        let paths = kernels(&self.home).module_paths(&kernel);
        let is_for_sharing = |path: &PathBuf| {
            let name = path.to_string_lossy();
            name.ends_with(&format!("-{SHARING_MODULE}.ko")) || name.ends_with("-fuse.ko")
        };
        let has_module = paths.iter().any(is_for_sharing);
        if !has_module && !given.shares.is_empty() {
            bail!(
                "the kernel {name} was got without what mounts of this computer need; hint: `stead kernel rm {name}`, then `stead kernel pull`",
                name = kernel.name
            );
        }
        // Each costs time of the boot.
        let needed = paths.into_iter().filter(|path| !given.shares.is_empty() || !is_for_sharing(path));
        let modules = needed.map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((name, content))
        });
        let modules: Vec<(String, Vec<u8>)> = modules.collect::<Result<_>>()?;
        let directories = ["dev", "proc", "sys", "run", "modules"];
        let mut entries: Vec<Entry<'_>> =
            directories.iter().map(|path| Entry { path: (*path).to_owned(), content: None }).collect();
        entries.push(Entry { path: "init".to_owned(), content: Some(stead_agent::PROGRAM) });
        let modules = modules
            .iter()
            .map(|(name, content)| Entry { path: format!("modules/{name}"), content: Some(content) });
        entries.extend(modules);
        let mut file = File::from(
            memfd_create("initramfs", MemfdFlags::CLOEXEC).context("cannot make a file in memory")?,
        );
        std::io::Write::write_all(&mut file, &initramfs(&entries)).context("cannot fill a file in memory")?;
        Ok(file)
    }

    /// The same for a guest of an image. One that is restored has the MACs of the one that was saved until it is told its own.
    fn image_nics(&self, taps: &[OwnedFd], beginning: &Beginning) -> Vec<stead_vmm::Nic> {
        let mut nics = self.vmm_nics(taps);
        if let Beginning::IsSaved(_) = beginning {
            nics.iter_mut().zip(0..).for_each(|(nic, place)| nic.mac = usual_mac(place));
        }
        nics
    }

    /// What the VMM is told of its nics, whose ends these are.
    fn vmm_nics(&self, taps: &[OwnedFd]) -> Vec<stead_vmm::Nic> {
        let nics = taps.iter().zip(&self.plan.nics);
        nics.map(|(tap, nic)| stead_vmm::Nic { fd: tap.as_raw_fd(), mac: nic.mac }).collect()
    }

    /// Our ends of its nics.
    fn taps(&self) -> Result<Vec<OwnedFd>> {
        if self.plan.nics.is_empty() {
            return Ok(Vec::new());
        }
        let mut anchor = anchor::Client::connect(&self.home.run)?.context("the engine is gone")?;
        let taps = self.plan.nics.iter().map(|nic| {
            let tun = anchor.tun(None)?;
            tap::attach(&tun, &nic.tap)?;
            Ok(tun)
        });
        taps.collect()
    }
}

/// The disks of an image's guest.
pub(super) fn disks([root_fd, data_fd]: [i32; 2]) -> Vec<stead_vmm::Disk> {
    vec![
        stead_vmm::Disk { fd: root_fd, serial: ROOT.to_owned(), access: Access::Read },
        stead_vmm::Disk { fd: data_fd, serial: DATA.to_owned(), access: Access::Write },
    ]
}

/// A VMM that was started, with our ends of its streams.
fn booted((child, words): (Child, Words), streams: Streams, shares: Option<Server>) -> Result<Booted> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the VMM has no number")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot look after the VMM")?;
    let process = ProcessId::observe(child.id())?.context("the VMM ended at once")?;
    for stream in [&streams.agent, &streams.control, &streams.console] {
        stream.set_nonblocking(true).context("cannot wait for its streams")?;
    }
    Ok(Booted { child, pidfd, process, streams, words, shares })
}

/// Makes a file with an empty file system, which takes room as it is written.
fn make_disk(path: &Path, bytes: u64) -> Result<()> {
    let mkfs = program("mkfs.ext4").with_context(|| missing_program("mkfs.ext4"))?;
    let unfinished = path.with_extension("new");
    let file = File::create(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
    file.set_len(bytes).context("cannot make it so large")?;
    // What could be written later is: the guest does that, and zeroes take no room.
    let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
    let output = Command::new(mkfs).args(["-q", "-F", "-m", "0", "-E", options]).arg(&unfinished).output();
    let output = output.context("cannot run `mkfs.ext4`")?;
    if !output.status.success() {
        bail!("`mkfs.ext4` failed: {}", String::from_utf8_lossy(&output.stderr).trim().escape_debug());
    }
    fs::rename(&unfinished, path).with_context(|| format!("cannot make {}", path.display()))
}

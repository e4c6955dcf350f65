//! Kernels for guests. The usual one is the distribution's own for clouds: its package is got and verified by `apt`, by
//! the keys that this computer trusts, and taken apart here. Only the modules that our guests need are kept, in the order in
//! which they go in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The kernels that are here.
#[derive(Clone, Debug)]
pub struct KernelStore {
    root: PathBuf,
}

/// A kernel that is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// What it calls itself, `6.1.0-48-cloud-amd64`.
    pub name: String,
    /// The package that it came from, and its version.
    pub package: String,
    /// When it was got.
    pub added_unix_s: u64,
    /// Its modules, in the order in which they go in.
    pub modules: Vec<String>,
}

/// What became of a wish for a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// It is here now.
    New(Kernel),
    /// It was here already.
    Known(Kernel),
}

/// The package that always depends on the newest kernel for clouds.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What guests need beyond what is built in.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "erofs",
    "overlay",
    SHARING_MODULE,
];

/// By which guests have files of their host.
pub const SHARING_MODULE: &str = "virtiofs";

/// Mirrors may be slow, and the package has some thirty megabytes.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
/// Taking apart what is on the disk.
const UNPACK_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
const DESCRIPTION: &str = "kernel.json";

impl Kernel {
    fn is_lawful(name: &str) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+-~".contains(c);
        !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain)
    }
}

impl KernelStore {
    /// The kernels in this directory, which is made when the first one comes.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// All of them, the one that was got last being the first.
    pub fn list(&self) -> Result<Vec<Kernel>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.root.display())),
        };
        // What has no description is being made, or was by a process that was killed.
        let texts = entries.flatten().filter_map(|entry| fs::read(entry.path().join(DESCRIPTION)).ok());
        let mut kernels: Vec<Kernel> = texts.filter_map(|text| serde_json::from_slice(&text).ok()).collect();
        kernels.sort_by(|a, b| (b.added_unix_s, &b.name).cmp(&(a.added_unix_s, &a.name)));
        Ok(kernels)
    }

    /// The image of a kernel, as a VMM loads it.
    pub fn image_path(&self, name: &str) -> PathBuf {
        self.root.join(name).join("vmlinuz")
    }

    /// The files of a kernel's modules, in the order in which they go in.
    pub fn module_paths(&self, kernel: &Kernel) -> Vec<PathBuf> {
        kernel.modules.iter().map(|file| self.root.join(&kernel.name).join("modules").join(file)).collect()
    }

    /// Gets the distribution's newest kernel for clouds; or takes the one of a package that is here, as a file or
    /// taken apart in a directory.
    pub fn pull(&self, package: Option<&Path>) -> Result<Pulled> {
        let doing = || format!("cannot write {}", self.root.display());
        fs::create_dir_all(&self.root).with_context(doing)?;
        let work = self.root.join(format!(".new-{}", std::process::id()));
        if work.exists() {
            fs::remove_dir_all(&work).with_context(doing)?;
        }
        fs::create_dir(&work).with_context(doing)?;
        let pulled = match package {
            Some(package) => self.take(package, &work),
            None => download(&work).and_then(|package| self.take(&package, &work)),
        };
        let cleaned = fs::remove_dir_all(&work).with_context(doing);
        let pulled = pulled?;
        cleaned?;
        Ok(pulled)
    }

    fn take(&self, package: &Path, work: &Path) -> Result<Pulled> {
        let field = |name: &str| -> Result<String> {
            let mut command = Command::new("dpkg-deb");
            command.arg("--field").arg(package).arg(name);
            Ok(run(&mut command, UNPACK_LIMIT)?.trim().to_owned())
        };
        // Somebody else may have taken it apart already.
        let (described, tree) = if package.is_dir() {
            (package.display().to_string(), package.to_owned())
        } else {
            let tree = work.join("tree");
            run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&tree), UNPACK_LIMIT)?;
            (format!("{} {}", field("Package")?, field("Version")?), tree)
        };
        let name =
            kernel_name(&tree).with_context(|| format!("there is no kernel in {}", package.display()))?;
        if let Some(known) =
            self.list()?.into_iter().find(|kernel| kernel.name == name && kernel.package == described)
        {
            return Ok(Pulled::Known(known));
        }
        let new = work.join("kernel");
        fs::create_dir_all(new.join("modules"))?;
        let image = tree.join("boot").join(format!("vmlinuz-{name}"));
        fs::copy(&image, new.join("vmlinuz")).with_context(|| format!("cannot copy {}", image.display()))?;
        let kernel = Kernel {
            modules: keep_modules(&tree, &name, &new.join("modules"))?,
            name: name.clone(),
            package: described,
            added_unix_s: now_unix_s(),
        };
        let text = serde_json::to_vec(&kernel).context("cannot write a kernel's description as JSON")?;
        fs::write(new.join(DESCRIPTION), text)?;
        let target = self.root.join(&name);
        if target.exists() {
            fs::remove_dir_all(&target).with_context(|| format!("cannot replace {}", target.display()))?;
        }
        fs::rename(&new, &target).with_context(|| format!("cannot write {}", target.display()))?;
        Ok(Pulled::New(kernel))
    }

    /// Takes a kernel away; false if it was not here. Guests that run have it in their memory.
    pub fn remove(&self, name: &str) -> Result<bool> {
        if !Kernel::is_lawful(name) || !self.root.join(name).exists() {
            return Ok(false);
        }
        let path = self.root.join(name);
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        Ok(true)
    }
}

fn now_unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Gets the package by `apt`, which verifies it.
fn download(into: &Path) -> Result<PathBuf> {
    let get = |package: &str| -> Result<PathBuf> {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "download", package]).current_dir(into);
        run(&mut command, DOWNLOAD_LIMIT).with_context(|| {
            format!("cannot get the package `{package}`; hint: `apt-get update` as root, or `stead kernel pull PACKAGE.deb`")
        })?;
        let stem = package.split('=').next().unwrap_or(package);
        let entries = fs::read_dir(into).context("cannot look for what apt got")?;
        let names = entries.flatten().map(|entry| entry.path());
        let mut found = names.filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&format!("{stem}_")) && path.extension().is_some_and(|end| end == "deb")
        });
        found.next().with_context(|| format!("apt did not get the package `{package}`"))
    };
    let meta = get(PACKAGE)?;
    let depends = run(Command::new("dpkg-deb").arg("--field").arg(&meta).arg("Depends"), UNPACK_LIMIT)?;
    let package = dependency(&depends).with_context(|| format!("`{PACKAGE}` depends on no kernel"))?;
    get(&package)
}

/// The kernel among what a package depends on, as apt takes it.
fn dependency(depends: &str) -> Option<String> {
    let one = depends.split(',').map(str::trim).find(|one| one.starts_with("linux-image-"))?;
    let (name, version) = one.split_once(" (= ").unwrap_or((one, ""));
    let version = version.trim_end_matches(')');
    Some(if version.is_empty() { name.to_owned() } else { format!("{name}={version}") })
}

fn kernel_name(tree: &Path) -> Option<String> {
    let names = fs::read_dir(tree.join("boot")).ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()))
        .find(|name| Kernel::is_lawful(name))
}

/// Copies the modules that guests need, and tells their files in the order in which they go in.
fn keep_modules(tree: &Path, kernel: &str, to: &Path) -> Result<Vec<String>> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| tree.join(place).join(kernel));
    let from = places.into_iter().find(|path| path.is_dir()).context("the package has no modules")?;
    let mut files = BTreeMap::new();
    find_modules(&from, &mut files)?;
    let builtin = fs::read_to_string(from.join("modules.builtin")).unwrap_or_default();
    let builtin: BTreeSet<String> = builtin.lines().map(|line| module_name(Path::new(line))).collect();
    let mut contents = BTreeMap::new();
    let order = in_order(&MODULES, &mut |name| {
        if builtin.contains(name) {
            return Ok(None);
        }
        let path = files.get(name).with_context(|| format!("the kernel has no module `{name}`"))?;
        let content = read_module(path)?;
        let depends = depends_of(&content);
        contents.insert(name.to_owned(), content);
        Ok(Some(depends))
    })?;
    let mut kept = Vec::new();
    for (place, name) in order.iter().enumerate() {
        let file = format!("{place:02}-{name}.ko");
        let path = to.join(&file);
        fs::write(&path, contents.get(name).map_or(&[][..], Vec::as_slice))
            .with_context(|| format!("cannot write {}", path.display()))?;
        kept.push(file);
    }
    Ok(kept)
}

/// These modules and all that they depend on, each after what it needs. `depends` says what one depends on, and nothing of
/// one that is built in.
fn in_order(
    wanted: &[&str],
    depends: &mut dyn FnMut(&str) -> Result<Option<Vec<String>>>,
) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    // Each comes twice: to look at what it needs, and after all of that.
    let mut stack: Vec<(String, bool)> =
        wanted.iter().rev().map(|name| ((*name).to_owned(), false)).collect();
    while let Some((name, is_ready)) = stack.pop() {
        if is_ready {
            order.push(name);
        } else if seen.insert(name.clone())
            && let Some(needed) = depends(&name)?
        {
            stack.push((name, true));
            stack.extend(needed.into_iter().rev().map(|name| (name, false)));
        }
    }
    Ok(order)
}

fn find_modules(directory: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory);
        for entry in entries.with_context(|| format!("cannot read {}", directory.display()))?.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path);
            } else if name.ends_with(".ko") || name.ends_with(".ko.xz") {
                found.insert(module_name(&path), path);
            }
        }
    }
    Ok(())
}

/// A module's name, in which `-` and `_` are the same.
fn module_name(path: &Path) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let doing = || format!("cannot read {}", path.display());
    if path.extension().is_some_and(|end| end == "xz") {
        let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output();
        let output = output.with_context(doing)?;
        anyhow::ensure!(output.status.success(), "`xz` failed ({})", output.status);
        return Ok(output.stdout);
    }
    fs::read(path).with_context(doing)
}

/// What a module says that it depends on: a text within it.
fn depends_of(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(start) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let text = module.get(start + key.len()..).unwrap_or_default();
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// What a program writes; its last words if it fails.
fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.with_context(|| format!("cannot run `{name}`"))?;
    let output = wait(child, limit).with_context(|| format!("`{name}` does not end"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty());
    bail!("`{name}` failed: {}", last.unwrap_or("it left no word").escape_debug())
}

/// Waits for a program whose words are few enough for its pipes.
fn wait(mut child: Child, limit: Duration) -> Result<std::process::Output> {
    let deadline = Instant::now() + limit;
    while child.try_wait().context("cannot wait for it")?.is_none() {
        if Instant::now() >= deadline {
            child.kill().context("cannot end it")?;
            child.wait().context("cannot wait for it")?;
            bail!("it took longer than {} s", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
    child.wait_with_output().context("cannot hear it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_go_in_after_what_they_need_and_once() {
        let mut depends = |name: &str| {
            let needed: &[&str] = match name {
                "net" => &["ring", "core", "failover"],
                "ring" | "failover" => &["core"],
                "built" => return Ok(None),
                "absent" => bail!("the kernel has no module `absent`"),
                _ => &[],
            };
            Ok(Some(needed.iter().map(|name| (*name).to_owned()).collect()))
        };
        assert_eq!(
            in_order(&["net", "built", "core"], &mut depends).unwrap(),
            ["core", "ring", "failover", "net"]
        );
        in_order(&["absent"], &mut depends).unwrap_err();
    }

    #[test]
    fn a_module_says_what_it_depends_on() {
        let module = b"\x7fELF..\0license=GPL\0depends=virtio,virtio_ring,net-failover\0retpoline=Y\0";
        assert_eq!(depends_of(module), ["virtio", "virtio_ring", "net_failover"]);
        assert_eq!(depends_of(b"\0depends=\0x"), Vec::<String>::new());
        assert_eq!(module_name(Path::new("kernel/drivers/virtio-rng.ko.xz")), "virtio_rng");
    }

    #[test]
    fn the_newest_kernel_is_what_the_package_depends_on() {
        let depends = "linux-image-6.1.0-48-cloud-amd64 (= 6.1.172-1), linux-base";
        assert_eq!(dependency(depends).as_deref(), Some("linux-image-6.1.0-48-cloud-amd64=6.1.172-1"));
        assert_eq!(dependency("libc6"), None);
    }
}

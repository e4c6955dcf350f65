//! What both ends of a login know each other by: the key of the home, by which its person is known to machines, and a key
//! for each machine, by which that is known to the person. `ssh-keygen` makes them.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use stead_host::home::{Home, write_whole};
use stead_host::machine::Files;
use stead_model::name::MachineId;

/// Who holds the keys makes one, which takes milliseconds.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// How often one who waits tries again.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The keys of a home, held until dropped: nobody else makes any meanwhile.
pub(super) struct Keys {
    home: Home,
    directory: PathBuf,
    _lock: File,
}

impl Keys {
    /// Makes the home's own, unless it is there.
    pub(super) fn open(home: &Home) -> Result<Self> {
        home.prepare()?;
        let directory = home.ssh();
        let doing = || format!("cannot make {}", directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).with_context(doing)?;
        let lock = lock(&directory.join("lock"))?;
        let keys = Self { home: home.clone(), directory, _lock: lock };
        make(&keys.identity(), "stead")?;
        Ok(keys)
    }

    /// The home's key: its public half is beside it.
    pub(super) fn identity(&self) -> PathBuf {
        self.directory.join("identity")
    }

    /// The machines' keys, as `ssh` reads them.
    pub(super) fn known_hosts(&self) -> PathBuf {
        self.directory.join("known_hosts")
    }

    /// What people include into the settings of their `ssh`.
    pub(super) fn settings(&self) -> PathBuf {
        self.directory.join(SETTINGS)
    }

    /// The public half of the home's key, in one line.
    pub(super) fn public(&self) -> Result<String> {
        let path = public(&self.identity());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// The key of a machine, which is made unless it is there. It goes with the machine. All that there are can be
    /// verified from now on.
    pub(super) fn of_machine(&self, id: &MachineId) -> Result<String> {
        let path = Files::new(&self.home, id).host_key();
        make(&path, &id.to_string())?;
        self.list()?;
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim_end().to_owned())
    }

    fn list(&self) -> Result<()> {
        let machines = self.home.machines();
        let entries =
            fs::read_dir(&machines).with_context(|| format!("cannot read {}", machines.display()))?;
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<MachineId>().ok());
        let mut ids: Vec<_> = ids.collect();
        ids.sort();
        let mut known = String::new();
        for id in ids {
            if let Ok(key) = fs::read_to_string(public(&Files::new(&self.home, &id).host_key())) {
                known += &line(&id, &key);
            }
        }
        if fs::read_to_string(self.known_hosts()).is_ok_and(|before| before == known) {
            return Ok(());
        }
        write_whole(&self.known_hosts(), known.as_bytes())
    }
}

/// The name of the file that people include; no other program's settings are called that.
pub(super) const SETTINGS: &str = "stead-ssh.conf";

/// What a machine is called for `ssh`.
pub(super) fn host_name(id: &MachineId) -> String {
    format!("{id}.stead")
}

/// A machine's line in `known_hosts`: its name, and what kind of key it is with the key, without the comment.
fn line(id: &MachineId, public: &str) -> String {
    let mut line = host_name(id);
    for word in public.split_whitespace().take(2) {
        let _ = write!(line, " {word}");
    }
    line + "\n"
}

fn public(key: &Path) -> PathBuf {
    key.with_extension("pub")
}

fn lock(path: &Path) -> Result<File> {
    let doing = || format!("cannot lock {}", path.display());
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).with_context(doing)?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error).with_context(doing),
            Err(TryLockError::WouldBlock) if start.elapsed() > LOCK_LIMIT => {
                bail!("{}: another program holds it", doing())
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(RETRY_EVERY),
        }
    }
}

/// Makes a key, unless it is there. The private half gets its name last, so that both are there if it is.
fn make(path: &Path, comment: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let new = path.with_extension("new");
    for left in [new.clone(), public(path)] {
        match fs::remove_file(&left) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", left.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(&new).stdin(Stdio::null());
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no `ssh-keygen` here; hint: install OpenSSH's client (Debian: `openssh-client`)")
        }
        output => output.context("cannot run `ssh-keygen`")?,
    };
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(anyhow!("{words}").context(format!("`ssh-keygen` ended with {}", output.status)));
    }
    let doing = || format!("cannot keep {}", path.display());
    // `ssh-keygen` appends, and so does not replace `new`.
    let made = PathBuf::from(format!("{}.pub", new.display()));
    fs::rename(made, public(path)).with_context(doing)?;
    fs::rename(&new, path).with_context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_key_without_the_comment() {
        let said = line(&"dev.shop".parse().unwrap(), "ssh-ed25519 AAAA dev.shop\n");
        assert_eq!(said, "dev.shop.stead ssh-ed25519 AAAA\n");
    }
}

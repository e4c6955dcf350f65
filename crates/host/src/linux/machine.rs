//! The machines that we run: their directories, and their keepers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use stead_model::container::Container;
use stead_model::name::MachineId;
use stead_model::observed::{Body, MachineState, Running};
use stead_model::project::Condition;
use stead_model::step::Step;
use stead_net::process;

use super::engine::namespace_label;
use super::{LinuxHost, all, going, hosts, resolver, served, sharing};
use crate::history::Layer;
use crate::home::{Home, write_run_file};
use crate::machine::{Answer, Assignment, Client, Files, Report, Request, Stop};
use crate::many;
use crate::switchboard::load_served;

/// What stead is called with to be a keeper.
const WORD: &str = "__keeper";

/// A keeper that was told to end does so when its machine has, and kills that after its time of grace.
const STOP_MORE: Duration = Duration::from_secs(20);

/// Where nobody knows how long a machine may take to end.
const STOP_UNKNOWN: Duration = Duration::from_secs(10);

/// A killed process is gone when the kernel gets round to it.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How many keepers start at the same time: more do not come up sooner, and each needs memory for that.
const START_TOGETHER: usize = 16;

/// Those that a keeper looks after, or did.
fn kept(home: &Home) -> Result<Vec<MachineId>> {
    let entries = match fs::read_dir(home.keepers()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", home.keepers().display())),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Waits for the end of machines whose end a command asked for that was killed meanwhile.
pub(super) fn finish_stops(home: &Home) -> Result<()> {
    for id in kept(home)? {
        let files = Files::new(home, &id);
        if files.stopping().exists() && files.keeper()?.is_some() {
            stop_one(home, &id, Stop::default())?;
        }
    }
    Ok(())
}

/// Those that have a living keeper. Whether they are connected is the engine's to say.
pub(super) fn observe(home: &Home) -> Result<BTreeMap<MachineId, Running>> {
    let ids = kept(home)?;
    let keepers = many::each(&ids, |id| Files::new(home, id).keeper());
    let mut running = BTreeMap::new();
    for (id, keeper) in ids.into_iter().zip(keepers) {
        if keeper?.is_some() {
            running.insert(id, Running::CutOff);
        }
    }
    Ok(running)
}

/// Makes the directory of a machine of ours.
pub(super) fn add(host: &LinuxHost, id: &MachineId, state: &MachineState) -> Result<()> {
    let made = match &state.body {
        Body::External => return Ok(()),
        Body::Vm(made) => return super::vm::add(host, id, made),
        Body::Container(made) | Body::Microvm(made) => made,
    };
    if made.image.is_none() {
        bail!("the image {} is not here", made.wish.image);
    }
    if host.is_prepared(id) {
        return Ok(());
    }
    let files = Files::new(&host.home, id);
    if files.fleeting().exists() {
        // The power went before its record was on the disk.
        super::tree::delete(&host.program, &files.state)?;
    }
    if host.is_fleeting {
        fs::create_dir_all(&files.state)
            .and_then(|()| fs::File::create(files.fleeting()))
            .with_context(|| format!("cannot make {}", files.state.display()))?;
    }
    // The uppermost last: that is what says that the rest is there.
    for directory in [files.root(), files.own_volumes(), files.log(), files.present()] {
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    Layer::new(&files, 0).make()
}

/// Begins what the kernel takes long for where a machine is to start, once.
pub(super) fn expect_starts(steps: &[&Step]) {
    static BEGUN: Once = Once::new();
    let is_near =
        |step: &&Step| matches!(step, Step::MachineAdd(..) | Step::NicAdd(..) | Step::MachineStart(..));
    if rustix::process::geteuid().is_root() && steps.iter().any(is_near) {
        BEGUN.call_once(|| drop(std::thread::spawn(stead_container::expect_joins)));
    }
}

/// Starts machines, those together that do not wait for each other.
pub(super) fn start(host: &mut LinuxHost, steps: &[&Step]) -> Vec<Result<()>> {
    let ids: Vec<&MachineId> = steps
        .iter()
        .filter_map(|step| if let Step::MachineStart(id, _) = step { Some(id) } else { None })
        .collect();
    // A keeper that is not sealed seals itself, or says why it cannot.
    let sealed = stead_container::sealed(&host.program).ok().filter(|_| rustix::process::geteuid().is_root());
    let program = match &sealed {
        Some(sealed) => PathBuf::from(format!("/proc/self/fd/{}", sealed.as_raw_fd())),
        None => host.program.clone(),
    };
    let mut results = Vec::new();
    for some in ids.chunks(START_TOGETHER) {
        let started: Vec<Result<Starting>> = some.iter().map(|id| begin(host, &program, id)).collect();
        results.extend(started.into_iter().map(|starting| starting.and_then(Starting::wait)));
    }
    match served::follow_started(host, &ids) {
        Ok(()) => results,
        Err(error) => {
            let failed = || Err(anyhow!("nobody knows whether its ports are open: {error:#}"));
            results.into_iter().map(|started| started.and_then(|()| failed())).collect()
        }
    }
}

/// Gives the root of a machine that wrote nothing yet the mode and owner that its image's has: an overlay shows those
/// of its uppermost directory.
fn like_image(upper: &Path, layers: &[PathBuf]) -> Result<()> {
    let doing = || format!("cannot prepare {}", upper.display());
    let Some(top) = layers.last() else { return Ok(()) };
    if fs::read_dir(upper).with_context(doing)?.next().is_some() {
        return Ok(());
    }
    let image = fs::metadata(top).with_context(|| format!("cannot look at {}", top.display()))?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(upper, Some(image.uid()), Some(image.gid())).with_context(doing)?;
    }
    fs::set_permissions(upper, image.permissions()).with_context(doing)
}

/// A keeper that is coming up.
struct Starting {
    child: std::process::Child,
    log: PathBuf,
}

/// Why a machine could not be started, with the exit code that a shell would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// Why not.
    pub why: String,
    /// 127 where there is no such program, 126 where it cannot be run, else 125.
    pub code: u8,
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for StartError {}

fn begin(host: &mut LinuxHost, program: &Path, id: &MachineId) -> Result<Starting> {
    // What it lacks is told before anything is there for it.
    let assignment = assignment(host, id)?;
    let owner = sharing::keeper_of(id, &assignment.launch.network);
    host.inside()?.anchor.ensure(&namespace_label(&owner)?)?;
    let files = Files::new(&host.home, id);
    like_image(&files.own()?.written.upper(), &assignment.layers)?;
    fs::create_dir_all(&files.run).with_context(|| format!("cannot make {}", files.run.display()))?;
    crate::home::remove_if_there(&files.stopping())?;
    let text = serde_json::to_vec(&assignment).context("cannot write an assignment as JSON")?;
    write_run_file(&files.assignment(), &text)?;
    let log = files.keeper_log();
    crate::home::remove_if_there(&log)?;
    let options = fs::File::options().create_new(true).append(true).open(&log);
    let log_file = options.with_context(|| format!("cannot write {}", log.display()))?;
    let child = Command::new(program)
        .arg0(&host.program)
        .arg(WORD)
        .arg(&host.home.state)
        .arg(&host.home.run)
        .arg(id.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .context("cannot start the keeper")?;
    Ok(Starting { child, log })
}

impl Starting {
    /// Waits for the keeper's report. Its standard output ends when it is done with it, or dead.
    fn wait(mut self) -> Result<()> {
        let output = self.child.stdout.take().context("the keeper has no standard output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("cannot hear the keeper")?;
        match serde_json::from_str(&line) {
            Ok(Report::Started) => Ok(()),
            Ok(Report::Failed { why, code }) => {
                self.child.wait().context("cannot look after the keeper")?;
                Err(StartError { why, code }.into())
            }
            Err(_) => {
                // It may still live and be stuck; whether it can be ended does not change the error.
                let _ = self.child.kill();
                let _ = self.child.wait();
                let words = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the keeper ended: {}", words.lines().last().unwrap_or("it left no word"))
            }
        }
    }
}

/// All that a keeper needs to know.
fn assignment(host: &mut LinuxHost, id: &MachineId) -> Result<Assignment> {
    let records = host.records()?;
    let body = records.machines.get(id).map(|state| state.body.clone());
    let made_as = body.with_context(|| format!("there is no machine `{id}` on record"))?;
    if let Body::Vm(made) = &made_as {
        return super::vm::assignment(host, id, made);
    }
    let made = records.machines.get(id).and_then(|state| state.container().cloned());
    let made = made.with_context(|| format!("there is no container `{id}` on record"))?;
    let volumes = super::volume::to_start(&host.home, id, &made.wish.mounts)?;
    let digest = made.image.clone().context("its image was never here")?;
    let store = stead_image::Store::open(&host.home.images())?;
    let image = store.inspect(&digest)?.map(|details| details.image);
    let image = image.with_context(|| {
        format!("the image {} is not here any more; hint: pull it again", made.wish.image)
    })?;
    let hostname = sharing::hostname(&records, id, &made.wish);
    let launch = Container { hostname, ..made.wish.clone() }.launch(&id.name, &image.config)?;
    let guest = match made_as {
        Body::Microvm(_) => Some(super::guest::plan(host, id, &digest, &launch)?),
        Body::Container(_) | Body::Vm(_) | Body::External => None,
    };
    Ok(Assignment {
        guest,
        cgroup: format!("{}/{id}", host.home_id()?),
        hosts: hosts::of_machine(&host.home, &records, id, (&launch.hostname, &made.wish))?,
        resolv_conf: resolver::text(&load_served(&host.home).networks, &records, id, &made.wish)?,
        layers: Files::new(&host.home, id).own()?.over(store.layer_paths(&image)),
        launch,
        volumes,
    })
}

/// Waits until a machine is so far.
pub(super) fn await_stage(home: &Home, id: &MachineId, condition: Condition) -> Result<()> {
    let files = Files::new(home, id);
    if let Some(mut client) = Client::connect(&files)? {
        match client.ask(&Request::Await(condition), None) {
            Ok(Answer::Done) => return Ok(()),
            Ok(Answer::Failed(why)) => bail!("{why}"),
            Ok(other) => bail!("the keeper answered {other:?}"),
            // It ended with its machine, which may be just what is waited for.
            Err(_) if condition == Condition::Completed => {}
            Err(error) => return Err(error),
        }
    }
    match (condition, files.load_exit()) {
        (Condition::Started, _) => Ok(()),
        (Condition::Completed, Some(exit)) if exit.code == 0 => Ok(()),
        (_, Some(exit)) => Err(anyhow!("it ended with exit code {}", exit.code)),
        (_, None) => Err(anyhow!("it does not run")),
    }
}

/// Ends machines, all together: none of them waits for another.
pub(super) fn stop(home: &Home, steps: &[&Step]) -> Vec<Result<()>> {
    let ids: Vec<&MachineId> = steps
        .iter()
        .filter_map(|step| if let Step::MachineStop(id, _) = step { Some(id) } else { None })
        .collect();
    std::thread::scope(|scope| {
        let stopping: Vec<_> =
            ids.iter().map(|id| scope.spawn(|| stop_one(home, id, Stop::default()))).collect();
        let panicked = || Err(anyhow!("the thread that was to end it died"));
        stopping.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    })
}

/// Ends one: its keeper is asked, then both are made to.
pub fn stop_one(home: &Home, id: &MachineId, how: Stop) -> Result<()> {
    let files = Files::new(home, id);
    // Of one whose assignment cannot be read its keeper knows it all the same.
    let own = load_assignment(&files).map(|assignment| assignment.launch.stop_grace_ms);
    let grace_ms = match (how.grace_ms, own) {
        // The computer waits no longer, and a machine need not take longer than ever.
        (Some(limit), Some(own)) if how.with_computer => Some(own.min(limit)),
        (said, own) => said.or(own),
    };
    let how = Stop { grace_ms, ..how };
    let limit = grace_ms.map_or(STOP_UNKNOWN, Duration::from_millis).saturating_add(STOP_MORE);
    let keeper = files.keeper()?;
    if let Ok(Some(mut client)) = Client::connect(&files) {
        // One that does not answer is ended below.
        let _unheard = client.ask(&Request::Stop(how), Some(limit));
        if let Some(keeper) = keeper
            && keeper.wait_gone(KILL_LIMIT)?
        {
            return forget(&files);
        }
    }
    if let Some(keeper) = keeper {
        // It may not have heard of it.
        if !how.with_computer {
            leave_mark(&files);
        }
        keeper.kill(rustix::process::Signal::KILL)?;
        if !keeper.wait_gone(KILL_LIMIT)? {
            bail!("the keeper (process {}) cannot be ended", keeper.pid);
        }
    }
    forget(&files)
}

/// Leaves word that machines which do not run are to stay so: the next start of the computer starts them neither.
pub fn mark_stopped(home: &Home, ids: &[MachineId]) {
    for files in ids.iter().map(|id| Files::new(home, id)).filter(|files| files.assignment().exists()) {
        leave_mark(&files);
    }
}

fn leave_mark(files: &Files) {
    if let Err(error) = write_run_file(&files.stopping(), &[]) {
        tracing::warn!("nothing says that the machine is to stay ended: {error:#}");
    }
}

pub(super) fn load_assignment(files: &Files) -> Option<Assignment> {
    Assignment::load(files).ok()
}

/// Takes away what belongs to a run that is over: also what a keeper that was killed could not.
fn forget(files: &Files) -> Result<()> {
    if files.present().exists() {
        stead_container::remove(&files.present())?;
    }
    remove_all(&files.run)
}

/// Takes a machine's directory out of sight; one that never had any has none.
pub(super) fn remove(home: &Home, id: &MachineId) -> Result<()> {
    let files = Files::new(home, id);
    forget(&files)?;
    if files.state.exists() { going::send(home, &files.state, &id.to_string()) } else { Ok(()) }
}

/// The machines whose making was cut off before they were on record: nothing of anybody's is in them.
pub(super) fn unfinished(home: &Home, recorded: &BTreeMap<MachineId, MachineState>) -> Vec<MachineId> {
    let entries = fs::read_dir(home.machines()).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<MachineId>().ok());
    let is_empty = |path: &Path| fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    ids.filter(|id| {
        let files = Files::new(home, id);
        let layer = Layer::new(&files, 0);
        // What a guest wrote is on its disk.
        let has_any = [files.history(), layer.disk(), layer.qcow2()].iter().any(|path| path.exists());
        let is_bare = is_empty(&layer.upper()) && !has_any;
        !recorded.contains_key(id) && is_bare && is_empty(&files.own_volumes())
    })
    .collect()
}

/// Ends all keepers of a home, whatever is on record, and takes away what their machines leave. What cannot be done
/// for one machine is done for all others.
pub(super) fn raze(home: &Home) -> Result<()> {
    let (state, run) = (home.state.as_os_str().as_bytes(), home.run.as_os_str().as_bytes());
    let keepers = process::find(|words| words.get(1..4) == Some(&[WORD.as_bytes(), state, run]))?;
    let keepers = keepers.into_iter().filter(|process| process::sees(*process, &home.run));
    all(keepers.map(|keeper| {
        keeper.kill(rustix::process::Signal::KILL)?;
        if !keeper.wait_gone(KILL_LIMIT)? {
            bail!("the keeper (process {}) cannot be ended", keeper.pid);
        }
        Ok(())
    }))?;
    let entries = fs::read_dir(home.machines()).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<MachineId>().ok());
    all(ids.map(|id| forget(&Files::new(home, &id)).with_context(|| format!("machine `{id}`"))))
}

fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_not_on_record_is_unfinished_only_if_nothing_was_written() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home { state: temporary.path().join("state"), run: temporary.path().join("run") };
        let machine = |name: &str, written: Option<&str>| {
            let id: MachineId = name.parse().unwrap();
            let files = Files::new(&home, &id);
            Layer::new(&files, 0).make().unwrap();
            written.into_iter().for_each(|file| fs::write(files.state.join(file), "").unwrap());
            id
        };
        let bare = machine("bare.shop", None);
        machine("vm.shop", Some("disk.qcow2"));
        machine("microvm.shop", Some("disk.ext4"));
        machine("box.shop", Some("upper/file"));
        machine("kept.shop", Some("history.json"));
        assert_eq!(unfinished(&home, &BTreeMap::new()), [bare]);
    }
}

//! `inspect` and `port`: all that is on record about a machine, and how it fares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use stead_host::home::Home;
use stead_host::log::timestamp;
use stead_host::machine::{Assignment, Boots, Exit, Files, Guest, Stage, Tested, status};
use stead_model::container::{Access, Container, Launch, Limits, Mount};
use stead_model::image::Digest;
use stead_model::name::{MachineId, Name};
use stead_model::observed::{Body, MadeContainer, Observed};
use stead_model::project::{Bind, Protocol};
use stead_model::vm::{MadeVm, Vm};
use stead_vmm::Chosen;

use super::ps::{Ends, MachineRow, machine_row};
use crate::args::{Global, InspectArgs, PortArgs};
use crate::failure::Failure;
use crate::output::{Output, note, printable, table};
use crate::session::look;

/// All about a machine.
#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    row: MachineRow,
    /// What it was made as, if we run it.
    #[serde(flatten)]
    made: Option<Made>,
    /// What every machine has that we run.
    #[serde(flatten)]
    kept: Option<Kept>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Made {
    /// Of an image with layers.
    Container(Box<OfContainer>),
    /// Of the image of a disk.
    Vm(Box<OfVm>),
}

#[derive(Serialize)]
struct OfContainer {
    /// What the name of the image meant when the machine was made.
    image_digest: Option<Digest>,
    /// What it is to be, as the file or the command line says.
    definition: Container,
    /// What was launched when it was started last, with the wishes of its image.
    launch: Option<Launch>,
    limits: Limits,
    mounts: Vec<MountRow>,
}

#[derive(Serialize)]
struct OfVm {
    /// What the file of its image was when the machine was made.
    image_digest: Option<Digest>,
    /// What it is to be, as the file says.
    definition: Vm,
    /// How large its disk is.
    disk_bytes: u64,
}

#[derive(Serialize)]
struct Kept {
    /// The guest that it was started in last, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<GuestRow>,
    /// How far its present run has got, and when since that was begun.
    stages: Vec<Stage>,
    /// How its last health tests went, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    health_tests: Vec<Tested>,
    /// How it ended last.
    exit: Option<Exit>,
    /// Where its log is; `stead logs` reads it.
    log: PathBuf,
    /// Where its files are.
    directory: PathBuf,
}

#[derive(Serialize)]
struct GuestRow {
    #[serde(flatten)]
    guest: Guest,
    /// What runs its instructions, and why.
    accelerator: Option<Chosen>,
    /// Where its kernel's words are.
    console: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct MountRow {
    target: String,
    kind: &'static str,
    /// A volume's name, or a path of this computer.
    source: Option<String>,
    access: Access,
}

/// `inspect`.
pub(crate) fn inspect(global: &Global, args: &InspectArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let ids = super::machines::choose(global, &args.machines, &seen)?;
    let ends = Ends::of(&seen);
    let machines: Vec<Inspected> =
        ids.iter().filter_map(|id| inspected(id, &seen, &ends, host.home())).collect();
    output.data(&machines, || machines.iter().map(text).collect::<Vec<_>>().join("\n")).map_err(Failure::from)
}

fn inspected(id: &MachineId, seen: &Observed, ends: &Ends<'_>, home: &Home) -> Option<Inspected> {
    let row = machine_row(id, seen, ends, home)?;
    let (state, files) = (seen.machines.get(id)?, Files::new(home, id));
    // A machine that never ran has none.
    let assignment = std::fs::read(files.assignment()).ok();
    let assignment = assignment.and_then(|text| serde_json::from_slice::<Assignment>(&text).ok());
    let (launch, guest) = assignment.map(|assignment| (assignment.launch, assignment.guest)).unzip();
    let made = match &state.body {
        Body::External => None,
        Body::Container(made) | Body::Microvm(made) => {
            Some(Made::Container(Box::new(of_container(made, launch))))
        }
        Body::Vm(made) => Some(Made::Vm(Box::new(of_vm(made)))),
    };
    let kept = made.is_some().then(|| kept(id, guest.flatten(), &files, home));
    Some(Inspected { row, made, kept })
}

fn of_vm(made: &MadeVm) -> OfVm {
    OfVm {
        image_digest: made.image.as_ref().map(|image| image.digest.clone()),
        definition: made.wish.clone(),
        disk_bytes: made.disk_bytes(),
    }
}

fn of_container(made: &MadeContainer, launch: Option<Launch>) -> OfContainer {
    let own = launch.as_ref().map_or(&made.wish.own_volumes, |launch| &launch.own_volumes);
    let own = own.iter().map(|target| MountRow {
        target: target.clone(),
        kind: "own-volume",
        source: None,
        access: Access::Write,
    });
    let mounts = made.wish.mounts.iter().map(|(target, mount)| mount_row(target, mount));
    OfContainer {
        image_digest: made.image.clone(),
        definition: made.wish.clone(),
        limits: made.wish.limits.clone(),
        mounts: mounts.chain(own).collect(),
        launch,
    }
}

fn kept(id: &MachineId, guest: Option<Guest>, files: &Files, home: &Home) -> Kept {
    let accelerator = std::fs::read(home.accelerator()).ok();
    let accelerator = accelerator.and_then(|text| serde_json::from_slice(&text).ok());
    let status = status(home, id).ok().flatten();
    let (stages, health_tests) = status.map(|status| (status.stages, status.tests)).unwrap_or_default();
    Kept {
        guest: guest.map(|guest| GuestRow { guest, accelerator, console: files.console() }),
        stages,
        health_tests,
        exit: files.load_exit(),
        log: files.log(),
        directory: files.state.clone(),
    }
}

fn mount_row(target: &str, mount: &Mount) -> MountRow {
    let (kind, source, access) = match mount {
        Mount::Volume { name, external, access, nocopy: _ } => {
            let source = external.as_ref().map_or_else(|| name.to_string(), ToString::to_string);
            ("volume", Some(source), *access)
        }
        Mount::Bind { source, access, .. } => ("bind", Some(source.display().to_string()), *access),
        Mount::Tmpfs { access, .. } => ("tmpfs", None, *access),
    };
    MountRow { target: target.to_owned(), kind, source, access }
}

/// What a person wants to know first, a line each.
fn text(machine: &Inspected) -> String {
    let row = &machine.row;
    let mut lines = vec![
        ("machine", format!("{}.{}", row.name, row.project)),
        ("kind", format!("{} ({})", row.kind, row.driver)),
        ("status", row.condition.to_string()),
    ];
    let pid = row.condition.pid();
    lines.extend(pid.map(|pid| ("process", pid.to_string())));
    let restarts = Some(row.condition.restarts()).filter(|restarts| *restarts > 0);
    lines.extend(restarts.map(|restarts| ("restarts", restarts.to_string())));
    lines.extend(row.network_mode.iter().map(|mode| ("network", mode.clone())));
    for nic in &row.nics {
        let addresses = nic.address.iter().chain(&nic.address6).cloned().collect::<Vec<_>>().join(" ");
        lines.push(("network", format!("{} {addresses} {} by {}", nic.network, nic.mac, nic.link)));
    }
    lines.extend(row.ports.iter().map(|port| ("port", port.clone())));
    let snapshots: Vec<&str> = row.snapshots.iter().map(Name::as_str).collect();
    lines.extend((!snapshots.is_empty()).then(|| ("snapshots", snapshots.join(", "))));
    lines.extend(row.is_damaged.then(|| ("snapshots", "nobody knows: its history is damaged".to_owned())));
    match &machine.made {
        Some(Made::Container(made)) => lines.extend(text_of_container(made)),
        Some(Made::Vm(made)) => lines.extend(text_of_vm(made)),
        None => {}
    }
    lines.extend(machine.kept.iter().flat_map(text_of_kept));
    let width = lines.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    lines.iter().map(|(word, value)| format!("{word:width$}  {}\n", printable(value))).collect()
}

fn text_of_vm(vm: &OfVm) -> Vec<(&'static str, String)> {
    let mut lines = vec![("image", vm.definition.image.display().to_string())];
    lines.extend(vm.image_digest.iter().map(|digest| ("digest", digest.to_string())));
    lines.push(("disk", format!("{} bytes", vm.disk_bytes)));
    lines.push(("restart", vm.definition.restart.to_string()));
    lines.extend(vm.definition.labels.iter().map(|(name, value)| ("label", format!("{name}={value}"))));
    lines
}

fn text_of_container(made: &OfContainer) -> Vec<(&'static str, String)> {
    let mut lines = vec![("image", made.definition.image.to_string())];
    lines.extend(made.image_digest.iter().map(|digest| ("digest", digest.to_string())));
    if let Some(launch) = &made.launch {
        lines.push(("program", launch.args.join(" ")));
        let user = if launch.user.is_empty() { "root" } else { &launch.user };
        lines.push(("user", user.to_owned()));
        lines.push(("directory", launch.cwd.clone()));
    }
    lines.push(("restart", made.definition.restart.to_string()));
    for mount in &made.mounts {
        let source = mount.source.as_ref().map(|source| format!(" {source}")).unwrap_or_default();
        let access = if mount.access == Access::Read { ", read only" } else { "" };
        lines.push(("mount", format!("{} from {}{source}{access}", mount.target, mount.kind)));
    }
    let limits = &made.limits;
    lines.extend(limits.cpus_milli.map(|milli| ("cpus", format!("{}.{:03}", milli / 1000, milli % 1000))));
    lines.extend(limits.memory_bytes.map(|bytes| ("memory", format!("{bytes} bytes"))));
    lines.extend(limits.pids.map(|pids| ("pids", pids.to_string())));
    lines.extend(made.definition.labels.iter().map(|(name, value)| ("label", format!("{name}={value}"))));
    lines
}

fn text_of_kept(kept: &Kept) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(GuestRow { guest, accelerator, console }) = &kept.guest {
        if let Boots::Image { kernel, .. } = &guest.boots {
            lines.push(("kernel", kernel.clone()));
        }
        lines.push(("guest", format!("{} processors, {} MiB", guest.cpus, guest.memory_mib)));
        lines.extend(
            accelerator
                .iter()
                .map(|chosen| ("accelerator", format!("{}: {}", chosen.accelerator.name(), chosen.why))),
        );
        lines.push(("console", console.display().to_string()));
    }
    if !kept.stages.is_empty() {
        let at = |stage: &Stage| format!("{} {}", stage.name, super::timings::seconds(stage.at_ms));
        lines.push(("stages", kept.stages.iter().map(at).collect::<Vec<_>>().join(", ")));
    }
    lines.extend(kept.health_tests.iter().map(|test| ("health test", text_of_test(test))));
    lines.extend(kept.exit.as_ref().and_then(|exit| exit.why.clone()).map(|why| ("why", why)));
    lines.push(("log", kept.log.display().to_string()));
    lines
}

/// When it was, its code, and the end of what it wrote.
fn text_of_test(test: &Tested) -> String {
    let at = timestamp(UNIX_EPOCH + Duration::from_millis(test.at_ms));
    let code = test.code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
    let took = super::timings::seconds(test.took_ms);
    let last = test.output.lines().next_back().unwrap_or_default();
    let said = if last.is_empty() { String::new() } else { format!(": {last}") };
    format!("{at} {code} after {took}{said}")
}

/// A port of this computer that leads to the machine; of one that does not run only those that this computer chose, and
/// keeps for it.
#[derive(Serialize)]
struct PortRow {
    /// The machine's port.
    target: u16,
    protocol: String,
    /// This computer's address and port.
    address: String,
    port: u16,
    /// Whether it is open.
    open: bool,
    #[serde(skip)]
    bind: Bind,
}

/// `port`.
pub(crate) fn port(global: &Global, args: &PortArgs, output: Output) -> Result<(), Failure> {
    let wanted = args.port.as_deref().map(|text| {
        parse_port(text).ok_or_else(|| {
            let what = format!("`{}` is no port", text.escape_debug());
            Failure::request(&what, "write `80`, `80/tcp` or `80/udp`")
        })
    });
    let wanted = wanted.transpose()?;
    let mut host = look()?;
    let seen = host.observe()?;
    let id = super::machines::one(global, &args.machine, &seen)?;
    let rows = port_rows(&id, &seen).into_iter();
    let is_wanted = |row: &PortRow| wanted.is_none_or(|wanted| wanted == (row.target, row.bind.protocol));
    let rows: Vec<PortRow> = rows.filter(is_wanted).collect();
    if let (Some(text), true) = (&args.port, rows.iter().any(|row| !row.open)) {
        let why = if seen.running.contains_key(&id) {
            "hint: `stead start` opens it, or tells why not"
        } else {
            "the machine does not run"
        };
        note(&format!("port {text} of machine `{id}` is closed; {why}"));
    }
    if let (true, Some(text)) = (rows.is_empty(), &args.port) {
        let what = format!("port {text} of machine `{id}` is not published");
        return Err(Failure::request(&what, &format!("`stead port {id}` lists those that are")));
    }
    let text = || match wanted {
        Some(_) => rows.iter().map(|row| format!("{}\n", socket(&row.bind))).collect(),
        None => {
            let place = |row: &PortRow| socket(&row.bind) + if row.open { "" } else { " (closed)" };
            let cells = |row: &PortRow| vec![format!("{}/{}", row.target, row.protocol), place(row)];
            table(&["PORT", "PUBLISHED"], &rows.iter().map(cells).collect::<Vec<_>>())
        }
    };
    output.data(&rows, text).map_err(Failure::from)
}

fn port_rows(id: &MachineId, seen: &Observed) -> Vec<PortRow> {
    let open = seen.ports.iter().filter(|(_, target)| target.machine == *id);
    let mut targets: BTreeMap<Bind, u16> = open.map(|(bind, target)| (*bind, target.port)).collect();
    for (bind, lease) in seen.port_leases.iter().filter(|(_, lease)| lease.machine == *id) {
        targets.entry(*bind).or_insert(lease.target);
    }
    let row = |(bind, target): (Bind, u16)| PortRow {
        target,
        protocol: bind.protocol.to_string(),
        address: bind.address.to_string(),
        port: bind.port,
        open: seen.ports.contains_key(&bind),
        bind,
    };
    targets.into_iter().map(row).collect()
}

/// `127.0.0.1:8080`.
fn socket(bind: &Bind) -> String {
    std::net::SocketAddr::new(bind.address, bind.port).to_string()
}

fn parse_port(text: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((port, "tcp")) => (port, Protocol::Tcp),
        Some((port, "udp")) => (port, Protocol::Udp),
        Some(_) => return None,
    };
    Some((port.parse().ok().filter(|port| *port > 0)?, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_with_and_without_a_protocol() {
        assert_eq!(parse_port("80"), Some((80, Protocol::Tcp)));
        assert_eq!(parse_port("80/tcp"), Some((80, Protocol::Tcp)));
        assert_eq!(parse_port("53/udp"), Some((53, Protocol::Udp)));
        for text in ["", "0", "80/", "80/sctp", "65536", "-1", "http"] {
            assert_eq!(parse_port(text), None, "{text}");
        }
    }

    #[test]
    fn mounts_are_told_by_kind_and_source() {
        let mount = Mount::Bind {
            source: "/srv".into(),
            access: Access::Read,
            propagation: stead_model::container::Propagation::Private,
            create: false,
        };
        let row = MountRow {
            target: "/data".into(),
            kind: "bind",
            source: Some("/srv".into()),
            access: Access::Read,
        };
        assert_eq!(mount_row("/data", &mount), row);
    }
}

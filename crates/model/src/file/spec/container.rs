//! What a container of ours is to be, as written. Its values need nothing else of the file, so they go right into
//! the type; its mounts do, and are in [`super::mounts`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::mounts::absolute;
use super::view::{At, Given, View, word};
use super::{Around, Ground};
use crate::container::{
    Container, Device, DiskRates, Health, HealthCommand, HealthTest, HostAddress, Limits, LogLimits, Mode,
    Pace, Restart, Rights, Seccomp, Stop, Ulimit,
};
use crate::file::leaf::container as value;
use crate::file::leaf::container::Security;
use crate::file::leaf::vm::{AnyImage, any_image};
use crate::file::leaf::{self, Wrong, mount, network, quantity};
use crate::file::problem::Problem;
use crate::file::yaml::Value;

const MODES: &[(&str, Mode)] = &[("application", Mode::Application), ("system", Mode::System)];

/// The container of a machine, if it names an image.
pub(crate) fn read(
    view: &View<'_>,
    around: &Around<'_>,
    problems: &mut Vec<Problem>,
) -> Given<Box<Container>> {
    // What is wrong with these is told whatever the image is.
    let limits = limits(view, problems);
    let rights = rights(view, around.ground, problems);
    let health = health(&view.get("healthcheck"), problems);
    let (restart, pace) = restart(view, &around.defaults, problems);
    let (image, place) = match view.get("image").read(any_image) {
        Given::Absent => return Given::Absent,
        Given::Wrong => return Given::Wrong,
        Given::Is(At { value: AnyImage::Named(image), place }) => (image, place),
        Given::Is(At { value: AnyImage::File(path), place }) => {
            let problem = place.problem(format!("`{path}` is a file, and only a vm is made from one"));
            problems.push(problem.hint("write the image's name, `debian:12`; or `kind: vm`"));
            return Given::Wrong;
        }
    };
    let defaults = &around.defaults;
    let grace = |view: &View<'_>| view.get("stop_grace_period").read(quantity::time_ms);
    let user = |view: &View<'_>| view.get("user").read(value::user);
    let container = Container {
        platform: view.get("platform").read(value::platform).value(),
        mode: view.get("mode").read(word(MODES)).value().unwrap_or_default(),
        entrypoint: program(&view.get("entrypoint")),
        command: program(&view.get("command")),
        environment: texts(&view.get("environment")),
        workdir: view.get("working_dir").read(value::workdir).value(),
        user: user(view).or(&user(defaults)).value(),
        groups: values(view.get("group_add").each(value::group)),
        network: super::mode::read(view).value().unwrap_or_default(),
        hostname: view.get("hostname").read(value::hostname).value(),
        labels: texts(&view.get("labels")),
        tty: view.flag("tty"),
        stdin: view.flag("stdin_open"),
        init: view.flag("init"),
        hosts: hosts(&view.get("extra_hosts")),
        dns: values(view.get("dns").each(network::any_address)),
        dns_search: values(view.get("dns_search").each(value::search)),
        limits,
        rights,
        stop: Stop {
            signal: view.get("stop_signal").read(value::signal).value(),
            grace_ms: grace(view).or(&grace(defaults)).value(),
        },
        restart,
        pace,
        log: log(&view.get("logging").get("options")),
        health,
        ..Container::new(image)
    };
    Given::Is(At { value: Box::new(container), place })
}

fn values<T, C: FromIterator<T>>(list: Vec<At<T>>) -> C {
    list.into_iter().map(|at| at.value).collect()
}

fn texts(view: &View<'_>) -> BTreeMap<String, String> {
    view.pairs().into_iter().map(|(name, value)| (name.value, value.unwrap_or_default())).collect()
}

/// A program: a list of words, or a line that is one.
fn program(view: &View<'_>) -> Option<Vec<String>> {
    match view.node.map(|node| &node.value)? {
        Value::Sequence(_) => Some(values(view.each(value::any))),
        Value::Scalar(text) => value::words(text).ok(),
        Value::Null | Value::Unknown | Value::Mapping(_) => None,
    }
}

/// Names with the addresses of each, in their order.
fn hosts(view: &View<'_>) -> BTreeMap<String, Vec<HostAddress>> {
    let mapped = view.entries().flat_map(|(key, view)| {
        let addresses = values::<_, Vec<_>>(view.each(value::host_address)).into_iter();
        addresses.filter_map(move |address| Some((value::hostname(key.value).ok()?, address)))
    });
    let mut hosts: BTreeMap<String, Vec<HostAddress>> = BTreeMap::new();
    for (name, address) in values::<_, Vec<_>>(view.each(value::host)).into_iter().chain(mapped) {
        let addresses = hosts.entry(name).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    hosts
}

/// One value of two places, which must not say different things.
fn either<T: Clone + PartialEq>(
    (first, first_name): (Given<T>, &str),
    second: Given<T>,
    problems: &mut Vec<Problem>,
) -> Given<T> {
    if let (Some(one), Some(other)) = (first.is(), second.is())
        && one.value != other.value
    {
        let message = format!("`{first_name}` says something else");
        problems.push(other.place.problem(message).hint("leave one of them out"));
    }
    first.or(&second)
}

/// As Docker has it: what starts a program does not fit into less, and the kernel then refuses the limit, or ends it.
const MEMORY_MIN_BYTES: u64 = 6 << 20;

pub(super) fn limits(view: &View<'_>, problems: &mut Vec<Problem>) -> Limits {
    let most = view.get("deploy").get("resources").get("limits");
    let least = view.get("deploy").get("resources").get("reservations");
    let size = |view: View<'_>| view.read(quantity::bytes_or_all);
    let cpus = (view.get("cpus").read(quantity::cpus_milli), "cpus");
    let memory = either((size(view.get("mem_limit")), "mem_limit"), size(most.get("memory")), problems);
    let swap = view.get("memswap_limit").read(quantity::swap_bytes);
    let reserved = (size(view.get("mem_reservation")), "mem_reservation");
    let reserved = either(reserved, size(least.get("memory")), problems);
    let pids = (view.get("pids_limit").read(quantity::count_or_all), "pids_limit");
    let most_memory = memory.value().flatten();
    if let Some(at) = memory.is()
        && at.value.is_some_and(|bytes| bytes < MEMORY_MIN_BYTES)
    {
        let problem = at.place.problem("no program can be started in so little memory");
        problems.push(problem.hint("6 MiB are the least: `6m`"));
    }
    if let (Some(memory), Some(at)) = (most_memory, swap.is())
        && at.value.is_some_and(|swap| swap < memory)
    {
        let problem = at.place.problem("memory and swap together are less than memory alone");
        problems.push(problem.hint("`memswap_limit` is at least `mem_limit`"));
    }
    if let (None, Some(at)) = (memory.is(), swap.is())
        && at.value.is_some_and(|swap| swap != Limits::ALL_SWAP)
    {
        let problem = at.place.problem("memory and swap together are limited, and memory alone is not");
        problems.push(problem.hint("say `mem_limit`, too"));
    }
    if let (Some(memory), Some(at)) = (most_memory, reserved.is())
        && at.value.is_some_and(|reserved| reserved > memory)
    {
        let problem = at.place.problem("it cannot get by with more memory than it may use");
        problems.push(problem.hint("`mem_reservation` is at most `mem_limit`"));
    }
    let io = view.get("blkio_config");
    Limits {
        cpus_milli: either(cpus, most.get("cpus").read(quantity::cpus_milli), problems).value().flatten(),
        cpu_shares: view.get("cpu_shares").read(quantity::cpu_shares).value().flatten(),
        cpuset: view.get("cpuset").read(value::cpuset).value(),
        memory_bytes: most_memory,
        memory_swap_bytes: swap.value().flatten(),
        memory_reservation_bytes: reserved.value().flatten(),
        pids: either(pids, most.get("pids").read(quantity::count_or_all), problems).value().flatten(),
        io_weight: io.get("weight").read(|text| leaf::whole(text, 10, 1000)).value(),
        disk_rates: disk_rates(&io, problems),
        shm_bytes: view.get("shm_size").read(quantity::bytes).value().filter(|bytes| *bytes > 0),
        ulimits: ulimits(&view.get("ulimits"), problems),
        oom_score: view.get("oom_score_adj").read(quantity::oom_score).value(),
    }
}

/// A list for each direction becomes the rates of each disk.
fn disk_rates(io: &View<'_>, problems: &mut Vec<Problem>) -> BTreeMap<PathBuf, DiskRates> {
    type Rate = fn(&str) -> Result<u64, Wrong>;
    type Field = fn(&mut DiskRates) -> &mut Option<u64>;
    const LISTS: [(&str, Rate, Field); 4] = [
        ("device_read_bps", quantity::byte_rate, |rates| &mut rates.read_bps),
        ("device_write_bps", quantity::byte_rate, |rates| &mut rates.write_bps),
        ("device_read_iops", quantity::rate, |rates| &mut rates.read_iops),
        ("device_write_iops", quantity::rate, |rates| &mut rates.write_iops),
    ];
    let mut disks: BTreeMap<PathBuf, DiskRates> = BTreeMap::new();
    for (key, rate, field) in LISTS {
        for item in io.get(key).items() {
            let (path, rate) = (item.get("path").read(value::disk), item.get("rate").read(rate));
            let (Some(path), Some(rate)) = (path.is(), rate.value()) else { continue };
            let said = field(disks.entry(path.value.clone()).or_default());
            if said.is_some() {
                let what = format!("`{}` has a rate already", path.value.display());
                problems.push(path.place.problem(what).hint("leave one of them out"));
            }
            *said = Some(rate);
        }
    }
    disks
}

const CONDITIONS: &[(&str, Restart)] =
    &[("any", Restart::Always), ("on-failure", Restart::OnFailure(None)), ("none", Restart::No)];

/// Whether and how fast it is started again, said in a line or at length.
fn restart(view: &View<'_>, defaults: &View<'_>, problems: &mut Vec<Problem>) -> (Restart, Pace) {
    let line = |view: &View<'_>| view.get("restart").read(value::restart);
    let deploy = view.get("deploy");
    let policy = deploy.get("restart_policy");
    let long = match deploy.key_place("restart_policy").filter(|_| policy.entries().next().is_some()) {
        None => Given::Absent,
        Some(place) => {
            let attempts = policy.get("max_attempts").read(|text| leaf::whole(text, 0, u16::MAX));
            let attempts = attempts.is().filter(|attempts| attempts.value > 0);
            let condition = policy.get("condition").read(word(CONDITIONS)).value().unwrap_or(Restart::Always);
            let value = match (condition, attempts) {
                (Restart::OnFailure(_), Some(attempts)) => Restart::OnFailure(Some(attempts.value.into())),
                (Restart::Always | Restart::UnlessStopped, Some(attempts)) => {
                    let problem = attempts.place.problem("`condition: any` has no number of attempts");
                    problems.push(problem.hint("write `condition: on-failure`, or leave it out"));
                    condition
                }
                (condition, _) => condition,
            };
            Given::Is(At { value, place })
        }
    };
    let restart = either((line(view), "restart"), long, problems).or(&line(defaults));
    let time = |key: &str| policy.get(key).read(quantity::time_ms).value().filter(|ms| *ms > 0);
    let pace = Pace { delay_ms: time("delay"), window_ms: time("window") };
    (restart.value().unwrap_or_default(), pace)
}

fn log(options: &View<'_>) -> LogLimits {
    LogLimits {
        file_bytes: options.get("max-size").read(quantity::log_bytes).value(),
        files: options.get("max-file").read(|text| leaf::whole(text, 1, 1000)).value().map(u32::from),
    }
}

fn ulimits(view: &View<'_>, problems: &mut Vec<Problem>) -> BTreeMap<String, Ulimit> {
    let mut ulimits = BTreeMap::new();
    for (key, view) in view.entries() {
        let both = view.read(quantity::ulimit).value();
        let soft = both.or(view.get("soft").read(quantity::ulimit).value());
        let hard = both.or(view.get("hard").read(quantity::ulimit).value());
        let (Some(soft), Some(hard)) = (soft, hard) else { continue };
        if soft > hard {
            let problem =
                key.place.problem(format!("what holds of `{}` is above what it may be raised to", key.value));
            problems.push(problem.hint("`soft` is at most `hard`"));
        }
        ulimits.insert(key.value.to_owned(), Ulimit { soft, hard });
    }
    ulimits
}

fn rights(view: &View<'_>, ground: Ground<'_>, problems: &mut Vec<Problem>) -> Rights {
    let mut rights = Rights {
        capabilities_add: values(view.get("cap_add").each(value::capability)),
        capabilities_drop: values(view.get("cap_drop").each(value::capability)),
        privileged: view.flag("privileged"),
        read_only: view.flag("read_only"),
        devices: devices(&view.get("devices")),
        sysctls: sysctls(&view.get("sysctls")),
        ..Rights::default()
    };
    for At { value, place } in view.get("security_opt").each(value::security) {
        match value {
            Security::NoNewPrivileges(wanted) => rights.no_new_privileges = wanted,
            Security::HoldsAnyway => {}
            Security::SeccompDefault => rights.seccomp = Seccomp::Default,
            Security::SeccompUnconfined => rights.seccomp = Seccomp::Unconfined,
            Security::SeccompProfile(path) => match absolute(ground, &path) {
                Ok(path) => rights.seccomp = Seccomp::Profile(path),
                Err(wrong) => problems.push(wrong.at(place.span, &place.path, &place.text)),
            },
        }
    }
    rights
}

fn devices(view: &View<'_>) -> Vec<Device> {
    let read = |view: View<'_>| {
        if let Some(device) = view.read(value::device).value() {
            return Some(device);
        }
        let source = view.get("source");
        let target = view.get("target").read(mount::target).or(&source.read(mount::target));
        Some(Device {
            source: source.read(value::device_path).value()?,
            target: target.value()?,
            access: view
                .get("permissions")
                .read(value::device_access)
                .value()
                .unwrap_or_else(|| "rwm".to_owned()),
        })
    };
    view.items().filter_map(read).collect()
}

fn sysctls(view: &View<'_>) -> BTreeMap<String, String> {
    let mapped = view
        .entries()
        .filter_map(|(key, view)| Some((value::sysctl(key.value).ok()?, view.read(value::any).value()?)));
    values::<_, Vec<_>>(view.each(value::sysctl_pair)).into_iter().chain(mapped).collect()
}

pub(super) fn health(view: &View<'_>, problems: &mut Vec<Problem>) -> Health {
    let test = view.get("test");
    let command = match health_command(&test) {
        Ok(command) => command,
        Err(wrong) => {
            problems.push(wrong.at(test.place.span, &test.place.path, &test.place.text));
            None
        }
    };
    let time = |key: &str| view.get(key).read(quantity::time_ms).value().filter(|ms| *ms > 0);
    let health = HealthTest {
        command: command.clone().flatten(),
        interval_ms: time("interval"),
        timeout_ms: time("timeout"),
        start_period_ms: view.get("start_period").read(quantity::time_ms).value(),
        start_interval_ms: time("start_interval"),
        retries: view.get("retries").read(|text| leaf::whole(text, 1, 1000)).value().map(u32::from),
    };
    if view.flag("disable") || command == Some(None) {
        Health::Off
    } else if health == HealthTest::default() {
        Health::Image
    } else {
        Health::Test(health)
    }
}

/// What is run: nothing said, nothing at all, or a command.
fn health_command(test: &View<'_>) -> Result<Option<Option<HealthCommand>>, Wrong> {
    if let Some(line) = test.read(value::any).value() {
        return Ok(Some(Some(HealthCommand::Shell(line))));
    }
    let words: Vec<String> = test.items().filter_map(|item| item.read(value::any).value()).collect();
    let form = || {
        Wrong::found("the test is no command")
            .hint("write `[CMD, program, …]`, `[CMD-SHELL, \"a line\"]`, `[NONE]`, or a line for the shell")
    };
    match words.split_first() {
        None if test.items().next().is_none() => Ok(None),
        Some((word, [])) if word == "NONE" => Ok(Some(None)),
        Some((word, [line])) if word == "CMD-SHELL" => Ok(Some(Some(HealthCommand::Shell(line.clone())))),
        Some((word, args)) if word == "CMD" && !args.is_empty() => {
            Ok(Some(Some(HealthCommand::Program(args.to_vec()))))
        }
        Some(_) | None => Err(form()),
    }
}

//! A container to the keys of its machine. What is as it would be without a word is left out.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::quoted;
use crate::container::{
    Access, Container, DiskRates, Health, HealthCommand, HealthTest, HostAddress, Limits, LogLimits, Mode,
    Mount, Pace, Propagation, Restart, Rights, Seccomp,
};

pub(super) fn render(text: &mut String, container: &Container) {
    let mut keys = Keys { text };
    keys.value("image", quoted(&container.image.to_string()));
    keys.maybe("platform", container.platform.as_ref().map(|platform| quoted(&platform.to_string())));
    keys.maybe("mode", Some("system").filter(|_| container.mode == Mode::System));
    keys.maybe("entrypoint", container.entrypoint.as_deref().map(words));
    keys.maybe("command", container.command.as_deref().map(words));
    keys.pairs("environment", &container.environment);
    keys.maybe("working_dir", container.workdir.as_deref().map(quoted));
    keys.maybe("user", container.user.as_deref().map(quoted));
    keys.list("group_add", &container.groups);
    keys.maybe("hostname", container.hostname.as_deref().map(quoted));
    keys.pairs("labels", &container.labels);
    keys.flag("tty", container.tty);
    keys.flag("stdin_open", container.stdin);
    keys.flag("init", container.init);
    if !container.mounts.is_empty() || !container.own_volumes.is_empty() {
        keys.text.push_str("    volumes:\n");
        keys.mounts(&container.mounts);
        for target in &container.own_volumes {
            let _ = writeln!(keys.text, "      - {{ type: volume, target: {} }}", quoted(target));
        }
    }
    let each = |(name, addresses): (&String, &Vec<HostAddress>)| {
        addresses.iter().map(|address| format!("{name}={address}")).collect::<Vec<_>>()
    };
    keys.lines("extra_hosts", container.hosts.iter().flat_map(each));
    keys.list("dns", container.dns.iter().map(ToString::to_string).collect::<Vec<_>>().iter());
    keys.list("dns_search", &container.dns_search);
    render_limits(&mut keys, &container.limits);
    render_rights(&mut keys, &container.rights);
    keys.maybe("stop_signal", container.stop.signal);
    keys.maybe("stop_grace_period", container.stop.grace_ms.map(|ms| format!("{ms}ms")));
    render_restart(&mut keys, container.restart, container.pace);
    render_log(&mut keys, container.log);
    keys.health(&container.health);
}

/// The keys of a machine, a line each.
pub(super) struct Keys<'t> {
    pub(super) text: &'t mut String,
}

impl Keys<'_> {
    pub(super) fn health(&mut self, health: &Health) {
        match health {
            Health::Image => {}
            Health::Off => self.value("healthcheck", "{ disable: true }"),
            Health::Test(test) => self.value("healthcheck", render_health(test)),
        }
    }

    pub(super) fn value(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.text, "    {key}: {value}");
    }

    pub(super) fn maybe(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.value(key, value);
        }
    }

    pub(super) fn mounts(&mut self, mounts: &BTreeMap<String, Mount>) {
        for (target, mount) in mounts {
            let _ = writeln!(self.text, "      - {}", render_mount(target, mount));
        }
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.maybe(key, Some("true").filter(|_| value));
    }

    fn list<'s>(&mut self, key: &str, values: impl IntoIterator<Item = &'s String>) {
        let values: Vec<String> = values.into_iter().map(|value| quoted(value)).collect();
        self.maybe(key, Some(format!("[{}]", values.join(", "))).filter(|_| !values.is_empty()));
    }

    /// As a list: what stands before a colon may have no more than 1024 characters in YAML.
    pub(super) fn pairs(&mut self, key: &str, pairs: &BTreeMap<String, String>) {
        self.lines(key, pairs.iter().map(|(name, value)| format!("{name}={value}")));
    }

    fn lines(&mut self, key: &str, lines: impl Iterator<Item = String>) {
        let mut lines = lines.peekable();
        if lines.peek().is_some() {
            let _ = writeln!(self.text, "    {key}:");
        }
        for line in lines {
            let _ = writeln!(self.text, "      - {}", quoted(&line));
        }
    }
}

fn words(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

fn render_mount(target: &str, mount: &Mount) -> String {
    let mut keys = Vec::new();
    let access = match mount {
        Mount::Volume { name, access, external: _, nocopy } => {
            keys.extend(["type: volume".to_owned(), format!("source: {}", super::name(name))]);
            keys.extend(nocopy.then(|| "volume: { nocopy: true }".to_owned()));
            access
        }
        Mount::Bind { source, access, propagation, create } => {
            let source = quoted(&source.to_string_lossy());
            let propagation = match propagation {
                Propagation::Private => "private",
                Propagation::Slave => "slave",
                Propagation::Shared => "shared",
            };
            let bind = format!("bind: {{ propagation: {propagation}, create_host_path: {create} }}");
            keys.extend(["type: bind".to_owned(), format!("source: {source}"), bind]);
            access
        }
        Mount::Tmpfs { size_bytes, mode, owner, access, exec } => {
            let size = size_bytes.map(|size| format!("size: {size}"));
            let mode = mode.map(|mode| format!("mode: \"{mode:o}\""));
            let uid = owner.uid.map(|id| format!("uid: {id}"));
            let gid = owner.gid.map(|id| format!("gid: {id}"));
            let exec = exec.then(|| "exec: true".to_owned());
            let more: Vec<String> = [size, mode, uid, gid, exec].into_iter().flatten().collect();
            keys.push("type: tmpfs".to_owned());
            keys.extend(Some(format!("tmpfs: {{ {} }}", more.join(", "))).filter(|_| !more.is_empty()));
            access
        }
    };
    keys.push(format!("target: {}", quoted(target)));
    keys.extend(Some("read_only: true".to_owned()).filter(|_| *access == Access::Read));
    format!("{{ {} }}", keys.join(", "))
}

fn render_limits(keys: &mut Keys<'_>, limits: &Limits) {
    let cpus = limits.cpus_milli.map(|milli| format!("{}.{:03}", milli / 1000, milli % 1000));
    keys.maybe("cpus", cpus);
    keys.maybe("cpu_shares", limits.cpu_shares);
    keys.maybe("cpuset", limits.cpuset.as_deref().map(quoted));
    keys.maybe("mem_limit", limits.memory_bytes);
    let all_swap = limits.memory_swap_bytes.filter(|both| *both == Limits::ALL_SWAP).map(|_| -1);
    keys.maybe("memswap_limit", all_swap);
    keys.maybe("memswap_limit", limits.limited_swap_bytes());
    keys.maybe("mem_reservation", limits.memory_reservation_bytes);
    keys.maybe("pids_limit", limits.pids);
    render_io(keys, limits);
    keys.maybe("shm_size", limits.shm_bytes);
    if !limits.ulimits.is_empty() {
        keys.text.push_str("    ulimits:\n");
    }
    for (name, ulimit) in &limits.ulimits {
        let number = |number: u64| if number == u64::MAX { "-1".to_owned() } else { number.to_string() };
        let (soft, hard) = (number(ulimit.soft), number(ulimit.hard));
        let _ = writeln!(keys.text, "      {name}: {{ soft: {soft}, hard: {hard} }}");
    }
    keys.maybe("oom_score_adj", limits.oom_score);
}

fn render_io(keys: &mut Keys<'_>, limits: &Limits) {
    let mut said: Vec<String> =
        limits.io_weight.map(|weight| format!("weight: {weight}")).into_iter().collect();
    for (place, (key, _)) in DiskRates::default().each().into_iter().enumerate() {
        let rates = limits.disk_rates.iter().filter_map(|(path, rates)| {
            let (_, rate) = *rates.each().get(place)?;
            Some(format!("{{ path: {}, rate: {} }}", quoted(&path.to_string_lossy()), rate?))
        });
        let rates: Vec<String> = rates.collect();
        said.extend(Some(format!("{key}: [{}]", rates.join(", "))).filter(|_| !rates.is_empty()));
    }
    keys.maybe("blkio_config", Some(format!("{{ {} }}", said.join(", "))).filter(|_| !said.is_empty()));
}

fn render_rights(keys: &mut Keys<'_>, rights: &Rights) {
    keys.list("cap_add", &rights.capabilities_add);
    keys.list("cap_drop", &rights.capabilities_drop);
    keys.flag("privileged", rights.privileged);
    let no_new = Some("no-new-privileges".to_owned()).filter(|_| rights.no_new_privileges);
    let seccomp = match &rights.seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Profile(path) => Some(format!("seccomp={}", path.to_string_lossy())),
    };
    keys.list("security_opt", &no_new.into_iter().chain(seccomp).collect::<Vec<_>>());
    keys.flag("read_only", rights.read_only);
    if !rights.devices.is_empty() {
        keys.text.push_str("    devices:\n");
    }
    for device in &rights.devices {
        let (source, target) = (quoted(&device.source.to_string_lossy()), quoted(&device.target));
        let _ = writeln!(
            keys.text,
            "      - {{ source: {source}, target: {target}, permissions: {} }}",
            device.access
        );
    }
    keys.pairs("sysctls", &rights.sysctls);
}

fn render_restart(keys: &mut Keys<'_>, restart: Restart, pace: Pace) {
    if pace == Pace::default() {
        let restart = Some(restart).filter(|restart| *restart != Restart::No);
        keys.maybe("restart", restart.map(|restart| quoted(&restart.to_string())));
        return;
    }
    let (condition, attempts) = match restart {
        Restart::No => ("none", None),
        Restart::OnFailure(times) => ("on-failure", times),
        Restart::Always | Restart::UnlessStopped => ("any", None),
    };
    let policy = [
        Some(format!("condition: {condition}")),
        attempts.map(|times| format!("max_attempts: {times}")),
        pace.delay_ms.map(|ms| format!("delay: {ms}ms")),
        pace.window_ms.map(|ms| format!("window: {ms}ms")),
    ];
    let policy: Vec<String> = policy.into_iter().flatten().collect();
    keys.value("deploy", format!("{{ restart_policy: {{ {} }} }}", policy.join(", ")));
}

fn render_log(keys: &mut Keys<'_>, log: LogLimits) {
    let options = [
        log.file_bytes.map(|bytes| format!("max-size: {bytes}")),
        log.files.map(|files| format!("max-file: {files}")),
    ];
    let options: Vec<String> = options.into_iter().flatten().collect();
    let text = format!("{{ options: {{ {} }} }}", options.join(", "));
    keys.maybe("logging", Some(text).filter(|_| !options.is_empty()));
}

fn render_health(test: &HealthTest) -> String {
    let command = test.command.as_ref().map(|command| match command {
        HealthCommand::Program(args) => {
            format!(
                "test: {}",
                words(&std::iter::once(&"CMD".to_owned()).chain(args).cloned().collect::<Vec<_>>())
            )
        }
        HealthCommand::Shell(line) => format!("test: [CMD-SHELL, {}]", quoted(line)),
    });
    let time = |key: &str, ms: Option<u64>| ms.map(|ms| format!("{key}: {ms}ms"));
    let keys: Vec<String> = [
        command,
        time("interval", test.interval_ms),
        time("timeout", test.timeout_ms),
        time("start_period", test.start_period_ms),
        time("start_interval", test.start_interval_ms),
        test.retries.map(|retries| format!("retries: {retries}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    format!("{{ {} }}", keys.join(", "))
}

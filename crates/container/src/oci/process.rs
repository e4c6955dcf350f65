//! From what a bundle says of a program to what it is to be: its user, rights and limits.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit};

use super::config::Process;
use crate::capability::Capabilities;
use crate::place::WindowSize;
use crate::seccomp::Filter;

/// A program that can be run in a container.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: BTreeSet<u32>,
    pub(crate) umask: Option<u32>,
    pub(crate) capabilities: Sets,
    pub(crate) limits: Vec<(String, Resource, Rlimit)>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score: Option<i64>,
    pub(crate) labels: Labels,
    pub(crate) terminal: Option<WindowSize>,
    pub(crate) filter: Option<Filter>,
}

/// The five sets of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: Capabilities,
    pub(crate) effective: Capabilities,
    pub(crate) permitted: Capabilities,
    pub(crate) inheritable: Capabilities,
    pub(crate) ambient: Capabilities,
}

/// What security modules are told of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
}

/// Checks what a program is to be; `bad` gets what it cannot be.
pub(crate) fn program(process: &Process, filter: Option<Filter>, bad: &mut Vec<String>) -> Program {
    if process.args.is_empty() {
        bad.push("`process.args` is empty".to_owned());
    }
    if !process.cwd.starts_with('/') {
        bad.push(format!("`process.cwd` is not absolute: `{}`", process.cwd.escape_debug()));
    }
    if process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        bad.push("`process.oomScoreAdj` is not between -1000 and 1000".to_owned());
    }
    if process.user.umask.is_some_and(|mask| mask > 0o777) {
        bad.push("`process.user.umask` is more than 0777".to_owned());
    }
    let size = process
        .console_size
        .map_or_else(WindowSize::default, |size| WindowSize { columns: size.width, rows: size.height });
    Program {
        args: process.args.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.iter().copied().collect(),
        umask: process.user.umask,
        capabilities: capabilities(process),
        limits: limits(process, bad),
        no_new_privileges: process.no_new_privileges,
        oom_score: process.oom_score_adj,
        labels: labels(process, bad),
        terminal: process.terminal.then_some(size),
        filter,
    }
}

/// As the specification has it, what cannot be granted is worth a warning, not a failure.
fn capabilities(process: &Process) -> Sets {
    let set = |names: &[String]| {
        names.iter().fold(Capabilities::default(), |set, name| match Capabilities::named(name) {
            Some(one) => Capabilities(set.0 | one.0),
            None => {
                tracing::warn!("`{}` is no capability that we know; it is not granted", name.escape_debug());
                set
            }
        })
    };
    let lists = &process.capabilities;
    let (permitted, inheritable) = (set(&lists.permitted), set(&lists.inheritable));
    let wanted = set(&lists.ambient);
    let ambient = wanted.and(permitted).and(inheritable);
    if ambient != wanted {
        tracing::warn!("ambient capabilities that are not permitted and inheritable are not granted");
    }
    Sets { bounding: set(&lists.bounding), effective: set(&lists.effective), permitted, inheritable, ambient }
}

fn limits(process: &Process, bad: &mut Vec<String>) -> Vec<(String, Resource, Rlimit)> {
    let mut found: Vec<(String, Resource, Rlimit)> = Vec::new();
    for limit in &process.rlimits {
        let name = limit.kind.escape_debug();
        let resource = limit
            .kind
            .strip_prefix("RLIMIT_")
            .filter(|plain| plain.chars().all(|c| c.is_ascii_uppercase()))
            .and_then(|plain| crate::process::resource(&plain.to_ascii_lowercase()));
        let Some(resource) = resource else {
            bad.push(format!("`{name}` is no limit of a process"));
            continue;
        };
        if found.iter().any(|(known, ..)| *known == limit.kind) {
            bad.push(format!("`{name}` is given twice"));
        }
        if limit.soft > limit.hard {
            bad.push(format!("`{name}`: the soft limit is above the hard one"));
        }
        let value = |value: u64| (value != u64::MAX).then_some(value);
        let rlimit = Rlimit { current: value(limit.soft), maximum: value(limit.hard) };
        found.push((limit.kind.clone(), resource, rlimit));
    }
    found
}

fn labels(process: &Process, bad: &mut Vec<String>) -> Labels {
    let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let labels = Labels { apparmor: said(&process.apparmor_profile), selinux: said(&process.selinux_label) };
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    if labels.apparmor.is_some() && !enabled.is_ok_and(|text| text.starts_with(b"Y")) {
        bad.push("`process.apparmorProfile`: this kernel has no AppArmor".to_owned());
    }
    if labels.selinux.is_some() && !Path::new("/sys/fs/selinux/enforce").exists() {
        bad.push("`process.selinuxLabel`: this kernel has no SELinux".to_owned());
    }
    labels
}

//! From what a bundle says of a program to what it is to be: its user, rights and limits.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit};

use super::config::{IdMap, Process};
use crate::capability::Capabilities;
use crate::place::WindowSize;
use crate::seccomp::Filter;
use crate::user::ids_refused;

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

/// Checks what a program is to be, where these capabilities are there to be granted; `bad` gets what it cannot be.
pub(crate) fn program(
    process: &Process,
    filter: Option<Filter>,
    available: Capabilities,
    bad: &mut Vec<String>,
) -> Program {
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
        capabilities: capabilities(process, available),
        limits: limits(process, bad),
        no_new_privileges: process.no_new_privileges,
        oom_score: process.oom_score_adj,
        labels: labels(process, bad),
        terminal: process.terminal.then_some(size),
        filter,
    }
}

/// The rights that we have ourselves: more cannot be granted, but in a user namespace of a container's own.
pub(crate) fn own_capabilities() -> Capabilities {
    // If they cannot be seen, that shows when they are granted.
    rustix::thread::capabilities(None).map_or(Capabilities::ALL, |sets| Capabilities(sets.permitted.bits()))
}

/// As the specification has it, what cannot be granted is worth a warning, not a failure.
fn capabilities(process: &Process, available: Capabilities) -> Sets {
    let lists = &process.capabilities;
    let own = "whoever makes the container has it not";
    let bounding = granted("bounding", &lists.bounding, available, own);
    let permitted = granted("permitted", &lists.permitted, available, own);
    Sets {
        bounding,
        effective: granted("effective", &lists.effective, permitted, "it is not permitted"),
        permitted,
        inheritable: granted("inheritable", &lists.inheritable, bounding, "it is not in the bounding set"),
        ambient: granted(
            "ambient",
            &lists.ambient,
            permitted.and(bounding).and(named(&lists.inheritable)),
            "it is not permitted and inheritable",
        ),
    }
}

fn named(names: &[String]) -> Capabilities {
    let known = names.iter().filter_map(|name| Capabilities::named(name));
    known.fold(Capabilities::default(), |set, one| Capabilities(set.0 | one.0))
}

fn granted(set: &str, names: &[String], most: Capabilities, why: &str) -> Capabilities {
    for name in names {
        let shown = name.escape_debug();
        match Capabilities::named(name) {
            None => tracing::warn!("`{shown}` is no capability that we know; it is not granted"),
            Some(one) if !most.contains(one) => {
                tracing::warn!("{set} capability `{shown}` is not granted: {why}");
            }
            Some(_) => {}
        }
    }
    named(names).and(most)
}

/// Who there is in a user namespace.
pub(crate) struct People {
    uid_map: String,
    gid_map: String,
    /// Whether somebody may have more groups than one.
    has_groups: bool,
}

impl People {
    /// Of the one that a process is in: its number, or `self`.
    pub(crate) fn of(process: &str) -> std::io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}"));
        Ok(Self {
            uid_map: read("uid_map")?,
            gid_map: read("gid_map")?,
            has_groups: read("setgroups")?.trim_end() != "deny",
        })
    }

    /// Of one that is made with these maps.
    pub(crate) fn new(uids: &[IdMap], gids: &[IdMap]) -> Self {
        let text = |maps: &[IdMap]| {
            let lines = maps.iter().map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size));
            lines.collect::<String>()
        };
        Self { uid_map: text(uids), gid_map: text(gids), has_groups: true }
    }

    /// Why a program cannot be who it is to be.
    pub(crate) fn refuse(&self, program: &Program, bad: &mut Vec<String>) {
        let groups = program.groups.iter().map(u32::to_string).collect();
        let user = format!("{}:{}", program.uid, program.gid);
        let unknown = ids_refused(Some(&user), &groups, (&self.uid_map, &self.gid_map));
        bad.extend(
            unknown.into_iter().map(|id| format!("`process.user`: there is no {id} in the user namespace")),
        );
        if !self.has_groups && !program.groups.is_empty() {
            bad.push(
                "`process.user.additionalGids`: nobody has more groups in the user namespace".to_owned(),
            );
        }
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, people: &People, expected: &[&str]) {
        let process: Process = serde_json::from_str(json).unwrap();
        let mut bad = Vec::new();
        let program = program(&process, None, Capabilities::ALL, &mut bad);
        people.refuse(&program, &mut bad);
        assert_eq!(bad, expected);
    }

    #[test]
    fn a_program_is_who_there_is_in_the_user_namespace() {
        let maps = [IdMap { container_id: 0, host_id: 100_000, size: 10 }];
        let some = People::new(&maps, &maps);
        let of = |user: &str| format!(r#"{{"args":["x"],"cwd":"/","user":{user}}}"#);
        check(&of(r#"{"uid":9,"gid":9,"additionalGids":[5]}"#), &some, &[]);
        check(
            &of(r#"{"uid":10,"gid":0,"additionalGids":[11]}"#),
            &some,
            &[
                "`process.user`: there is no user 10 in the user namespace",
                "`process.user`: there is no group 11 in the user namespace",
            ],
        );
        // To the kernel it means that nothing is changed: whoever is root would stay so.
        let all = "0 0 4294967295\n".to_owned();
        let all = People { uid_map: all.clone(), gid_map: all, has_groups: false };
        check(
            &of(r#"{"uid":4294967295,"gid":0}"#),
            &all,
            &["`process.user`: there is no user 4294967295 in the user namespace"],
        );
        check(
            &of(r#"{"uid":1,"gid":1,"additionalGids":[2]}"#),
            &all,
            &["`process.user.additionalGids`: nobody has more groups in the user namespace"],
        );
    }
}

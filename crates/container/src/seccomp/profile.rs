//! Which system calls may be made: a value; ours, or read from a file in Docker's form.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::capability::Capabilities;

/// Which system calls may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// What becomes of those that no rule names.
    pub(crate) otherwise: Action,
    /// The first one that fits holds.
    pub(crate) rules: Vec<Rule>,
}

/// What becomes of some system calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) names: Vec<String>,
    pub(crate) action: Action,
    /// All of them must hold.
    pub(crate) checks: Vec<Check>,
}

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Errno(u16),
    KillProcess,
    KillThread,
    Trap,
    Trace(u16),
    Log,
}

/// A look at an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Which one, from 0.
    pub(crate) argument: u8,
    pub(crate) is: Condition,
}

/// What an argument is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) comparison: Comparison,
    pub(crate) value: u64,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal, once only these bits are left.
    Masked(u64),
}

/// The profile's file may be as long as this: Docker's own has 15 KiB.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// A file in Docker's form.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Option<Vec<Group>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// What a profile's groups may depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    /// The processor, in Go's words.
    pub(crate) architecture: &'a str,
    /// The kernel's version.
    pub(crate) kernel: (u32, u32),
    /// What the container may do.
    pub(crate) capabilities: Capabilities,
}

/// Reads a file in Docker's form.
pub(crate) fn load(path: &Path, circumstances: Circumstances<'_>) -> Result<Profile> {
    let doing = || format!("cannot read seccomp profile `{}`", path.display());
    if fs::metadata(path).with_context(doing)?.len() > FILE_MAX_BYTES {
        bail!("{}: it is too long", doing());
    }
    let text = fs::read_to_string(path).with_context(doing)?;
    parse(&text, circumstances).with_context(doing)
}

/// Reads what a bundle has: Docker's form without its circumstances, and more strictly.
pub(crate) fn parse_oci(value: &serde_json::Value) -> Result<Profile> {
    let file: File = serde_json::from_value(value.clone())?;
    let takes_errno = |action: &str| matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
    if file.default_errno_ret.is_some() && !takes_errno(&file.default_action) {
        bail!("`{}` has no errno to return", file.default_action.escape_debug());
    }
    for group in file.syscalls.iter().flatten() {
        if group.errno_ret.is_some() && !takes_errno(&group.action) {
            bail!("`{}` has no errno to return", group.action.escape_debug());
        }
        if group.names.iter().flatten().chain(&group.name).next().is_none() {
            bail!("a rule names no system call");
        }
    }
    let none = Circumstances { architecture: "", kernel: (0, 0), capabilities: Capabilities::default() };
    parse(&value.to_string(), none)
}

/// Reads a text in Docker's form.
pub(crate) fn parse(text: &str, circumstances: Circumstances<'_>) -> Result<Profile> {
    let file: File = serde_json::from_str(text)?;
    let otherwise = action(&file.default_action, file.default_errno_ret)?;
    let mut rules = Vec::new();
    for group in file.syscalls.iter().flatten() {
        let is_in = match &group.includes {
            Some(filter) => filter.holds(circumstances, true)?,
            None => true,
        };
        let is_out = match &group.excludes {
            Some(filter) => filter.holds(circumstances, false)?,
            None => false,
        };
        if is_in && !is_out {
            rules.extend(group.rules()?);
        }
    }
    // As libseccomp has it, what is said of a system call without conditions holds over what is said with some.
    rules.sort_by_key(|rule: &Rule| !rule.checks.is_empty());
    Ok(Profile { otherwise, rules })
}

impl Filter {
    /// Whether everything (`all`) or anything of what it lists is the case. An empty one says nothing.
    fn holds(&self, circumstances: Circumstances<'_>, all: bool) -> Result<bool> {
        let mut facts = Vec::new();
        if let Some(arches) = self.arches.as_ref().filter(|list| !list.is_empty()) {
            facts.push(arches.iter().any(|name| name == circumstances.architecture));
        }
        for name in self.caps.iter().flatten() {
            // One that we do not know nobody has.
            facts.push(Capabilities::named(name).is_some_and(|one| circumstances.capabilities.contains(one)));
        }
        if let Some(version) = &self.min_kernel {
            let parts = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            let least: (u32, u32) = parts.with_context(|| format!("`{version}` is no kernel version"))?;
            facts.push(circumstances.kernel >= least);
        }
        Ok(if all { facts.iter().all(|fact| *fact) } else { facts.iter().any(|fact| *fact) })
    }
}

impl Group {
    fn rules(&self) -> Result<Vec<Rule>> {
        let action = action(&self.action, self.errno_ret)?;
        let names: Vec<String> = self.names.iter().flatten().chain(&self.name).cloned().collect();
        let args = self.args.as_deref().unwrap_or_default();
        let checks = args.iter().map(Arg::check).collect::<Result<Vec<_>>>()?;
        let rule = |checks| Rule { names: names.clone(), action, checks };
        // As runc has it: several looks at one argument are alternatives.
        let mut seen: Vec<u8> = checks.iter().map(|check| check.argument).collect();
        seen.sort_unstable();
        seen.dedup();
        if seen.len() < checks.len() {
            return Ok(checks.into_iter().map(|check| rule(vec![check])).collect());
        }
        Ok(vec![rule(checks)])
    }
}

impl Arg {
    fn check(&self) -> Result<Check> {
        let (comparison, value) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (Comparison::Equal, self.value),
            "SCMP_CMP_NE" => (Comparison::NotEqual, self.value),
            "SCMP_CMP_LT" => (Comparison::Less, self.value),
            "SCMP_CMP_LE" => (Comparison::LessOrEqual, self.value),
            "SCMP_CMP_GT" => (Comparison::Greater, self.value),
            "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, self.value),
            "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(self.value), self.value_two),
            other => bail!("`{other}` is no comparison"),
        };
        if self.index > 5 {
            bail!("a system call has no argument {}", self.index);
        }
        Ok(Check { argument: self.index, is: Condition { comparison, value } })
    }
}

fn action(name: &str, errno: Option<u16>) -> Result<Action> {
    const EPERM: u16 = 1;
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(errno.unwrap_or(EPERM)),
        "SCMP_ACT_LOG" => Action::Log,
        other => bail!("`{other}` is no action that we know"),
    })
}

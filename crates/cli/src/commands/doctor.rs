//! `doctor`: what this computer can do, what each thing is needed for, and what mends it.

use std::process::ExitCode;

use serde::Serialize;

use stead_host::apply::Host;
use stead_model::observed::{HostFacts, Lack, Uplink, Uplinks};
use stead_net::facts::{Cgroups, Device, Facts, Program, Switch, UserNamespaces, observe};

use crate::failure::Failure;
use crate::output::{Output, table};
use crate::session::look;

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    needed_for: &'static str,
    /// The command that mends it.
    fix: Option<String>,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    /// Something else does its work, or it is not needed yet.
    Limited,
    Missing,
}

/// Looks at everything. Exit code 1 if something is missing that networks need.
pub(crate) fn run(output: Output) -> Result<ExitCode, Failure> {
    let root = rustix::process::geteuid().is_root();
    let facts = observe();
    let seen = look().and_then(|mut host| host.observe());
    let mut checks = checks(&facts, root);
    checks.push(microvms());
    match &seen {
        Ok(seen) => {
            checks.extend(uplink_checks(&seen.host.uplinks.veth, &seen.host.uplinks.pasta));
            checks.extend(way_out(seen.uplink.as_ref(), &seen.host));
        }
        Err(error) => checks.push(check(
            "this user's home",
            Verdict::Missing,
            format!("{error:#}").lines().next().unwrap_or_default(),
            "everything",
            Some("stead purge (takes all of it away)"),
        )),
    }
    let text = || {
        let rows: Vec<Vec<String>> = checks.iter().map(row).collect();
        let mut text = table(&["", "WHAT", "FOUND", "NEEDED FOR"], &rows);
        for check in checks.iter().filter(|check| check.verdict != Verdict::Ok) {
            if let Some(fix) = &check.fix {
                text += &format!("\nto mend {}:\n  {fix}\n", check.what);
            }
        }
        text
    };
    output.data(&checks, text)?;
    let missing = checks.iter().any(|check| check.verdict == Verdict::Missing);
    Ok(ExitCode::from(u8::from(missing)))
}

fn row(check: &Check) -> Vec<String> {
    let sign = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Limited => "limited",
        Verdict::Missing => "missing",
    };
    vec![sign.to_owned(), check.what.to_owned(), check.found.clone(), check.needed_for.to_owned()]
}

/// What the facts mean for an ordinary user or for root.
fn checks(facts: &Facts, root: bool) -> Vec<Check> {
    vec![
        user_namespaces(facts, root),
        sub_ids(facts, root),
        tun(facts),
        pasta(facts),
        forwarding(facts, root),
        pings(facts),
        kvm(facts),
        cgroups(facts),
    ]
}

fn user_namespaces(facts: &Facts, root: bool) -> Check {
    let (found, fix) = match facts.user_namespaces {
        UserNamespaces::NotForbidden => ("allowed", None),
        UserNamespaces::NoneAllowed => ("none allowed", Some("sysctl -w user.max_user_namespaces=15000")),
        UserNamespaces::RootOnly => ("for root only", Some("sysctl -w kernel.unprivileged_userns_clone=1")),
        UserNamespaces::AppArmor => {
            ("restricted by AppArmor", Some("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"))
        }
        UserNamespaces::Absent => ("not in this kernel", None),
    };
    let verdict = match (facts.user_namespaces, root) {
        (UserNamespaces::NotForbidden, _) => Verdict::Ok,
        (_, true) => Verdict::Limited,
        (_, false) => Verdict::Missing,
    };
    check("user namespaces", verdict, found, "everything without root", fix)
}

fn sub_ids(facts: &Facts, root: bool) -> Check {
    let count =
        |ranges: &[stead_net::facts::IdRange]| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
    let (uids, gids) = (count(&facts.sub_uids), count(&facts.sub_gids));
    let verdict = if root || (uids > 0 && gids > 0) { Verdict::Ok } else { Verdict::Limited };
    let found =
        if root { "not needed by root".to_owned() } else { format!("{uids} user ids, {gids} group ids") };
    let fix =
        "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 YOUR-NAME (and install uidmap)";
    check("subordinate ids", verdict, found, "more than one user inside machines without root", Some(fix))
}

fn tun(facts: &Facts) -> Check {
    let (verdict, found, fix) = match &facts.tun {
        Device::Usable => (Verdict::Ok, "opens".to_owned(), None),
        Device::Absent => (Verdict::Missing, "absent".to_owned(), Some("modprobe tun")),
        Device::Denied => (Verdict::Missing, "permission denied".to_owned(), Some("chmod 0666 /dev/net/tun")),
        Device::Broken(error) => (Verdict::Missing, error.clone(), Some("modprobe tun")),
    };
    check("/dev/net/tun", verdict, found, "nics of microvms and vms, and pasta", fix)
}

fn pasta(facts: &Facts) -> Check {
    let (verdict, found) = match &facts.pasta {
        Program::Found(path, version) => {
            (Verdict::Ok, version.clone().unwrap_or_else(|| path.display().to_string()))
        }
        Program::Absent => (Verdict::Limited, "not installed".to_owned()),
    };
    check(
        "pasta",
        verdict,
        found,
        "`reach: nat` without root, or where the computer does not forward",
        Some("apt install passt"),
    )
}

fn forwarding(facts: &Facts, root: bool) -> Check {
    let word = |switch| match switch {
        Switch::On => "on",
        Switch::Off => "off",
        Switch::Absent => "absent",
    };
    let found = if root {
        format!("IPv4 {}, IPv6 {}", word(facts.forwarding4), word(facts.forwarding6))
    } else {
        "of no use without root".to_owned()
    };
    let verdict = if facts.forwarding4 == Switch::On || !root { Verdict::Ok } else { Verdict::Limited };
    check(
        "forwarding",
        verdict,
        found,
        "the kernel's path of `reach: nat` as root",
        Some("sysctl -w net.ipv4.ip_forward=1"),
    )
}

fn pings(facts: &Facts) -> Check {
    let group = u64::from(rustix::process::getegid().as_raw());
    let fits = facts.ping_groups.is_some_and(|(first, last)| (first..=last).contains(&group));
    let found =
        facts.ping_groups.map_or("unknown".to_owned(), |(first, last)| format!("groups {first} to {last}"));
    let verdict = if fits { Verdict::Ok } else { Verdict::Limited };
    check(
        "ping sockets",
        verdict,
        found,
        "ping to the outside by pasta",
        Some("sysctl -w net.ipv4.ping_group_range='0 2147483647'"),
    )
}

fn kvm(facts: &Facts) -> Check {
    let (verdict, found, fix) = match &facts.kvm {
        Device::Usable => (Verdict::Ok, "opens".to_owned(), None),
        Device::Absent => (Verdict::Limited, "absent".to_owned(), Some("modprobe kvm_intel (or kvm_amd)")),
        Device::Denied => {
            (Verdict::Limited, "permission denied".to_owned(), Some("usermod -aG kvm YOUR-NAME"))
        }
        Device::Broken(error) => (Verdict::Limited, error.clone(), None),
    };
    check("/dev/kvm", verdict, found, "programs that run microvms and vms on our networks at full speed", fix)
}

/// Whether there are the programs that run microVMs.
fn microvms() -> Check {
    let missing = stead_host::linux::guest::missing_programs(&super::guest::needs_of_microvm(true));
    let (verdict, found) = match missing.as_slice() {
        [] => (Verdict::Ok, "all there".to_owned()),
        missing => (Verdict::Limited, format!("{} missing", missing.len())),
    };
    let fix = "apt-get install qemu-system-x86 qemu-system-common erofs-utils e2fsprogs";
    check("qemu, mkfs and virtiofsd", verdict, &found, "microvms", (verdict != Verdict::Ok).then_some(fix))
}

fn cgroups(facts: &Facts) -> Check {
    let (verdict, found) = match &facts.cgroups {
        Cgroups::V2(controllers) => (Verdict::Ok, format!("version 2 ({})", controllers.join(" "))),
        Cgroups::Hybrid => (Verdict::Limited, "hybrid: version 1 controllers".to_owned()),
        Cgroups::V1 => (Verdict::Limited, "version 1".to_owned()),
        Cgroups::Absent => (Verdict::Limited, "not mounted".to_owned()),
    };
    check("control groups", verdict, found, "limits on machines (`stead run --memory`)", None)
}

fn uplink_checks(veth: &Result<(), Lack>, pasta: &Result<(), Lack>) -> Vec<Check> {
    let neither = veth.is_err() && pasta.is_err();
    let one = |what, result: &Result<(), Lack>| {
        let verdict = match result {
            Ok(()) => Verdict::Ok,
            Err(_) if neither => Verdict::Missing,
            Err(_) => Verdict::Limited,
        };
        let found = result.as_ref().err().map_or("works".to_owned(), |lack| lack.why.clone());
        Check {
            what,
            verdict,
            found,
            needed_for: "`reach: nat` (one of the two)",
            // The other one does the work.
            fix: result.as_ref().err().filter(|_| neither).map(|lack| lack.hint.clone()),
        }
    };
    vec![one("uplink by the kernel", veth), one("uplink by pasta", pasta)]
}

/// A way out that stands, and leads nowhere any more since a firewall came after it, or could not be made again.
fn way_out(in_use: Option<&Uplink>, host: &HostFacts) -> Option<Check> {
    let what = "the way out in use";
    let needed_for = "`reach: nat` of what is up";
    let Uplinks { veth, pasta } = &host.uplinks;
    match in_use.filter(|_| host.online)? {
        Uplink::Veth(_) => {
            let lack = veth.as_ref().err()?;
            let fix = match pasta {
                Ok(()) => "stead up (in a project with `reach: nat`: it takes the other way out)",
                Err(_) => &lack.hint,
            };
            Some(check(what, Verdict::Missing, format!("cut off: {}", lack.why), needed_for, Some(fix)))
        }
        // What it lacks it needs to begin. A process that runs has it.
        Uplink::Pasta => {
            let lack = pasta.as_ref().err()?;
            let found = format!("pasta runs, and could not be started again: {}", lack.why);
            Some(check(what, Verdict::Limited, found, needed_for, Some(&lack.hint)))
        }
    }
}

fn check(
    what: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    needed_for: &'static str,
    fix: Option<&str>,
) -> Check {
    Check { what, verdict, found: found.into(), needed_for, fix: fix.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_nowhere_is_cut_off() {
        let lack = |why: &str| Lack { why: why.to_owned(), hint: "mend it".to_owned() };
        let host = |pasta: Result<(), Lack>| HostFacts {
            online: true,
            uplinks: Uplinks { veth: Err(lack("rules drop it")), pasta },
            ..HostFacts::default()
        };
        assert_eq!(way_out(Some(&Uplink::Pasta), &host(Ok(()))), None);
        let found = way_out(Some(&Uplink::Pasta), &host(Err(lack("`pasta` is not installed")))).unwrap();
        assert_eq!(
            (found.verdict, found.found.as_str()),
            (Verdict::Limited, "pasta runs, and could not be started again: `pasta` is not installed")
        );
        assert_eq!(found.fix.as_deref(), Some("mend it"));
    }
}

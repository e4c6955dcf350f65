//! What is made of what was found: pure. Whatever is not as it should be has the command that mends it, or words that
//! say why there is none.

use stead_model::observed::{HostFacts, Lack, Uplink, Uplinks};
use stead_net::anchor::Trial;
use stead_net::facts::{Cgroups, Device, Facts, IdRange, Program, Switch, UserNamespaces};

use super::{Check, Mend, Verdict};

/// All that was looked at.
pub(super) struct Found {
    pub(super) facts: Facts,
    pub(super) root: bool,
    /// This user, and their group.
    pub(super) uid: u32,
    pub(super) group: u64,
    /// How the trial of networks went.
    pub(super) trial: Result<Trial, String>,
    /// The limits that containers cannot be held to, and why.
    pub(super) refused: Vec<(&'static str, String)>,
    /// The programs of microVMs that are not there.
    pub(super) missing: Vec<String>,
    /// What bears on networks, and the way out in use.
    pub(super) seen: Result<(HostFacts, Option<Uplink>), String>,
}

/// The verdicts.
pub(super) fn checks(found: &Found) -> Vec<Check> {
    let mut checks = vec![user_namespaces(found), sub_ids(found)];
    checks.extend(networks(&found.trial));
    checks.extend([
        tun(&found.facts),
        pasta(&found.facts),
        forwarding(found),
        pings(found),
        kvm(found),
        cgroups(found),
        microvms(&found.missing),
    ]);
    match &found.seen {
        Ok((host, in_use)) => {
            checks.extend(uplinks(&host.uplinks));
            checks.extend(way_out(in_use.as_ref(), host));
        }
        Err(error) => checks.push(home(error)),
    }
    checks
}

/// It is as it should be.
fn fine(what: &'static str, found: impl Into<String>, needed_for: &'static str) -> Check {
    Check { what, verdict: Verdict::Ok, found: found.into(), needed_for, mend: Mend::default() }
}

impl Check {
    /// It is not.
    fn lacking(self, verdict: Verdict, found: impl Into<String>, mend: Mend) -> Self {
        Self { verdict, found: found.into(), mend, ..self }
    }
}

/// What mends it is this command.
fn command(line: impl Into<String>) -> Mend {
    Mend { fix: Some(line.into()), advice: None }
}

/// No command mends it: this is why, or what else does.
fn words(text: impl Into<String>) -> Mend {
    Mend { fix: None, advice: Some(text.into()) }
}

/// There is this to know of it.
fn with(mend: Mend, advice: &str) -> Mend {
    Mend { advice: Some(advice.to_owned()), ..mend }
}

fn user_namespaces(found: &Found) -> Check {
    let check = fine("user namespaces", "allowed", "everything without root");
    let (what, mend) = match found.facts.user_namespaces {
        UserNamespaces::NotForbidden => return check,
        UserNamespaces::NoneAllowed => ("none allowed", command("sysctl -w user.max_user_namespaces=15000")),
        UserNamespaces::RootOnly => {
            ("for root only", command("sysctl -w kernel.unprivileged_userns_clone=1"))
        }
        UserNamespaces::AppArmor => {
            let line = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
            ("restricted by AppArmor", command(line))
        }
        UserNamespaces::Absent => {
            let why = "no command gives a kernel that runs user namespaces: boot one that has CONFIG_USER_NS";
            ("not in this kernel", words(why))
        }
    };
    check.lacking(if found.root { Verdict::Limited } else { Verdict::Missing }, what, mend)
}

/// How many ids are given to a user who has subordinate ones.
const SUB_IDS: u32 = 65_536;

fn sub_ids(found: &Found) -> Check {
    let needed_for = "more than one user inside machines without root";
    if found.root {
        return fine("subordinate ids", "not needed by root", needed_for);
    }
    let Facts { sub_uids, sub_gids, missing_id_helpers: missing, user, free_sub_id, .. } = &found.facts;
    let count = |ranges: &[IdRange]| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
    let (uids, gids) = (count(sub_uids), count(sub_gids));
    let mut what = format!("{uids} user ids, {gids} group ids");
    let (first, last) = (*free_sub_id, free_sub_id.saturating_add(SUB_IDS - 1));
    let mut lines = Vec::new();
    if !missing.is_empty() {
        what += &format!("; {} not installed", missing.join(" and "));
        lines.push("apt-get install uidmap".to_owned());
    }
    if uids == 0 || gids == 0 {
        let lacking = [(uids, "--add-subuids"), (gids, "--add-subgids")].map(|(count, option)| {
            if count == 0 { format!(" {option} {first}-{last}") } else { String::new() }
        });
        let lacking = lacking.concat();
        // Whom `/etc/passwd` does not have `usermod` does not know.
        lines.push(match user {
            Some(user) => format!("usermod{lacking} {user}"),
            None => format!("echo {}:{first}:{SUB_IDS} | tee -a /etc/subuid /etc/subgid", found.uid),
        });
    }
    let check = fine("subordinate ids", what.clone(), needed_for);
    let are_mapped = found.trial.as_ref().map_or(true, |trial| trial.ids > 1);
    match (lines.as_slice(), are_mapped) {
        ([], true) => check,
        ([], false) => {
            let what = format!("{what}; `newuidmap` and `newgidmap` do not give them");
            check.lacking(Verdict::Limited, what, command("apt-get install --reinstall uidmap"))
        }
        (lines, _) => {
            let mend = with(command(lines.join(" && ")), "what is up has them after `stead down`");
            check.lacking(Verdict::Limited, what, mend)
        }
    }
}

/// Bridges, veth pairs and our rules, as they were tried.
fn networks(trial: &Result<Trial, String>) -> Vec<Check> {
    let trial = match trial {
        Ok(trial) => trial,
        Err(error) => {
            let check = fine("networks", "", "all networks");
            let mend = hint(error).map_or_else(|| words("what mends user namespaces mends this"), words);
            return vec![check.lacking(Verdict::Missing, first_line(error), mend)];
        }
    };
    let one = |what, error: &Option<String>, needed_for, mend: Mend| {
        let check = fine(what, "can be made", needed_for);
        match error {
            None => check,
            Some(error) => check.lacking(Verdict::Missing, first_line(error), mend),
        }
    };
    vec![
        one("bridges", &trial.bridge, "all networks", command("modprobe bridge")),
        one("veth pairs", &trial.veth, "nics of containers", command("modprobe veth")),
        one("nftables", &trial.rules, "what machines may send and reach", of_parts(&trial.parts)),
    ]
}

/// What mends a kernel that lacks these parts of nftables.
fn of_parts(parts: &[String]) -> Mend {
    let (options, modules): (Vec<&str>, Vec<&str>) =
        parts.iter().map(String::as_str).partition(|part| part.starts_with("CONFIG_"));
    let boot = format!("no command gives {} to a kernel that runs: boot one that has it", options.join(", "));
    match (options.is_empty(), modules.is_empty()) {
        (true, true) => command("modprobe nf_tables"),
        (true, false) => command(format!("modprobe -a {}", modules.join(" "))),
        (false, true) => words(boot),
        (false, false) => with(command(format!("modprobe -a {}", modules.join(" "))), &boot),
    }
}

fn tun(facts: &Facts) -> Check {
    let check = fine("/dev/net/tun", "opens", "nics of microvms and vms, and pasta");
    let (what, mend) = match &facts.tun {
        Device::Usable => return check,
        Device::Absent => ("absent", command("modprobe tun")),
        Device::Denied => ("permission denied", command("chmod 0666 /dev/net/tun")),
        Device::Broken(error) => (error.as_str(), command("modprobe tun")),
    };
    check.lacking(Verdict::Missing, what, mend)
}

fn pasta(facts: &Facts) -> Check {
    let needed_for = "`reach: nat` without root, or where the computer does not forward";
    match &facts.pasta {
        Program::Found(path, version) => {
            fine("pasta", version.clone().unwrap_or_else(|| path.display().to_string()), needed_for)
        }
        Program::Absent => fine("pasta", "", needed_for).lacking(
            Verdict::Limited,
            "not installed",
            command("apt-get install passt"),
        ),
    }
}

fn forwarding(found: &Found) -> Check {
    let needed_for = "the kernel's path of `reach: nat` as root";
    if !found.root {
        return fine("forwarding", "of no use without root", needed_for);
    }
    let Facts { forwarding4, forwarding6, out6, .. } = &found.facts;
    let word = |switch: &Switch| match switch {
        Switch::On => "on",
        Switch::Off => "off",
        Switch::Absent => "absent",
    };
    let what = format!("IPv4 {}, IPv6 {}", word(forwarding4), word(forwarding6));
    let mut settings = Vec::new();
    if *forwarding4 == Switch::Off {
        settings.push("net.ipv4.ip_forward=1".to_owned());
    }
    // Only who reaches out by IPv6 has something to forward; and who forwards is told no route any more, but for this.
    if let (Switch::Off, Some(link)) = (forwarding6, out6) {
        let link = link.replace('.', "/");
        settings.push(format!("net.ipv6.conf.{link}.accept_ra=2 net.ipv6.conf.all.forwarding=1"));
    }
    let check = fine("forwarding", what.clone(), needed_for);
    match (settings.is_empty(), forwarding4) {
        (false, _) => {
            let line = format!("sysctl -w {}", settings.join(" "));
            check.lacking(Verdict::Limited, what, command(line))
        }
        (true, Switch::Absent) => {
            let why = "no command gives a kernel that runs IPv4, or this process its `/proc/sys`";
            check.lacking(Verdict::Limited, what, words(why))
        }
        (true, Switch::On | Switch::Off) => check,
    }
}

fn pings(found: &Found) -> Check {
    let groups = found.facts.ping_groups;
    let what = groups.map_or("for no group".to_owned(), |(first, last)| format!("groups {first} to {last}"));
    let check = fine("ping sockets", what.clone(), "ping to the outside by pasta");
    if groups.is_some_and(|(first, last)| (first..=last).contains(&found.group)) {
        return check;
    }
    let line = "sysctl -w net.ipv4.ping_group_range='0 2147483647'";
    check.lacking(Verdict::Limited, what, command(line))
}

fn kvm(found: &Found) -> Check {
    let Facts { kvm, kvm_module, user, .. } = &found.facts;
    let check = fine("/dev/kvm", "opens", "microvms and vms at full speed");
    let (what, mend) = match kvm {
        Device::Usable => return check,
        Device::Absent => match kvm_module {
            Some(module) => ("absent", command(format!("modprobe {module}"))),
            None => {
                let why = "no command does: the processor has no virtualisation to be seen; the firmware of this \
                           computer, or the computer that this one is a guest of, may have it switched off";
                ("absent", words(why))
            }
        },
        Device::Denied => match (found.root, user) {
            (false, Some(user)) => {
                let mend = command(format!("usermod --append --groups kvm {user}"));
                ("permission denied", with(mend, "it counts from the next login on"))
            }
            (false, None) => ("permission denied", command("chmod 0666 /dev/kvm")),
            (true, _) => {
                let why =
                    "no command in here does: whoever started this container has to let it have /dev/kvm";
                ("permission denied", words(why))
            }
        },
        Device::Broken(error) => {
            let why = "no command is known for that: another hypervisor may have the processor, or the driver failed, \
                       as the kernel's log (`dmesg`) says";
            (error.as_str(), words(why))
        }
    };
    check.lacking(Verdict::Limited, what, mend)
}

/// Whether there are the programs that run microVMs.
fn microvms(missing: &[String]) -> Check {
    let check = fine("qemu, mkfs and virtiofsd", "all there", "microvms");
    if missing.is_empty() {
        return check;
    }
    let line = "apt-get install qemu-system-x86 qemu-system-common erofs-utils e2fsprogs";
    check.lacking(Verdict::Limited, format!("{} missing", missing.len()), command(line))
}

fn cgroups(found: &Found) -> Check {
    let what = match &found.facts.cgroups {
        Cgroups::V2(controllers) => format!("version 2 ({})", controllers.join(" ")),
        Cgroups::Hybrid => "hybrid: version 1 controllers".to_owned(),
        Cgroups::V1 => "version 1".to_owned(),
        Cgroups::Absent => "not mounted".to_owned(),
    };
    let check = fine("control groups", what.clone(), "limits on machines (`stead run --memory`)");
    let Some((_, why)) = found.refused.first() else { return check };
    let names: Vec<&str> = found.refused.iter().map(|(name, _)| *name).collect();
    let what = format!("{what}; none of {} can be limited", names.join(", "));
    let mend = match (&found.facts.cgroups, found.root) {
        (Cgroups::Absent, _) => command("mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
        (Cgroups::V1 | Cgroups::Hybrid, false) => words(
            "no command does while the computer runs, as only version 2 can be handed on to users: boot with \
             `systemd.unified_cgroup_hierarchy=1` on the kernel's command line",
        ),
        (Cgroups::V2(_), false) => handed_on(found),
        (Cgroups::V1 | Cgroups::Hybrid | Cgroups::V2(_), true) => words(format!(
            "no command in here does ({why}): the kernel's command line (`cgroup_disable=`), or whoever started this \
             container, keeps them"
        )),
    };
    check.lacking(Verdict::Limited, what, mend)
}

/// What gives an ordinary user control groups with these limits.
fn handed_on(found: &Found) -> Mend {
    let Some(controllers) = &found.facts.handed_on else {
        let why = "no command of systemd's does, as it does not run here: root has to give this user a control group \
                   of its own, with its `cgroup.procs` and `cgroup.subtree_control`";
        return words(why);
    };
    if controllers.is_empty() {
        return words(
            "this user's own systemd does not run, which gives machines theirs: log in by ssh, on a console or on a \
             desktop, or have root call `loginctl enable-linger` for this user",
        );
    }
    if ["memory", "cpu", "pids"].iter().all(|name| controllers.iter().any(|found| found == name)) {
        let why = found.refused.first().map_or("", |(_, why)| why);
        return words(format!(
            "this user's own systemd would give machines theirs, but was not reached ({why}): log in by ssh, on a \
             console or on a desktop instead of by `su` or `sudo`"
        ));
    }
    let directory = "/etc/systemd/system/user@.service.d";
    let line = format!(
        "mkdir -p {directory} && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' > {directory}/delegate.conf \
         && systemctl daemon-reload"
    );
    let then = "from the next login on there are limits";
    with(command(line), then)
}

/// What is to be done about a lack.
fn of_lack(lack: &Lack) -> Mend {
    if lack.is_command { command(&lack.hint) } else { words(&lack.hint) }
}

fn uplinks(Uplinks { veth, pasta }: &Uplinks) -> Vec<Check> {
    let neither = veth.is_err() && pasta.is_err();
    let one = |what, result: &Result<(), Lack>| {
        let check = fine(what, "works", "`reach: nat` (one of the two)");
        match result {
            Ok(()) => check,
            Err(lack) if neither => check.lacking(Verdict::Missing, &lack.why, of_lack(lack)),
            Err(lack) => {
                let mend = words("nothing is to be done: the other way out does the work");
                check.lacking(Verdict::Limited, &lack.why, mend)
            }
        }
    };
    vec![one("uplink by the kernel", veth), one("uplink by pasta", pasta)]
}

/// A way out that stands, and leads nowhere any more since a firewall came after it, or could not be made again.
fn way_out(in_use: Option<&Uplink>, host: &HostFacts) -> Option<Check> {
    let check = fine("the way out in use", "", "`reach: nat` of what is up");
    let Uplinks { veth, pasta } = &host.uplinks;
    match in_use.filter(|_| host.online)? {
        Uplink::Veth(_) => {
            let lack = veth.as_ref().err()?;
            let mend = match pasta {
                Ok(()) => {
                    with(command("stead up"), "in a project with `reach: nat`: it takes the other way out")
                }
                Err(_) => of_lack(lack),
            };
            Some(check.lacking(Verdict::Missing, format!("cut off: {}", lack.why), mend))
        }
        // What it lacks it needs to begin. A process that runs has it.
        Uplink::Pasta => {
            let lack = pasta.as_ref().err()?;
            let found = format!("pasta runs, and could not be started again: {}", lack.why);
            Some(check.lacking(Verdict::Limited, found, of_lack(lack)))
        }
    }
}

/// A home that cannot be looked at.
fn home(error: &str) -> Check {
    let check = fine("this user's home", "", "everything");
    let mend = match hint(error) {
        Some(hint) => words(hint),
        None => words("if nothing else helps, `stead purge` takes all of it away"),
    };
    check.lacking(Verdict::Missing, first_line(error), mend)
}

/// What an error says to do.
fn hint(error: &str) -> Option<&str> {
    let (_, hint) = error.split_once("hint: ")?;
    hint.lines().next()
}

/// What an error says first, without what it says to do.
fn first_line(error: &str) -> &str {
    let line = error.lines().next().unwrap_or_default();
    line.split_once("; hint: ").map_or(line, |(what, _)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A computer on which everything is as it should be.
    fn found(root: bool) -> Found {
        let range = vec![IdRange { first: 100_000, count: SUB_IDS }];
        let facts = Facts {
            forwarding4: Switch::On,
            forwarding6: Switch::On,
            ping_groups: Some((0, 2_147_483_647)),
            tun: Device::Usable,
            kvm: Device::Usable,
            pasta: Program::Found("/usr/bin/pasta".into(), None),
            user_namespaces: UserNamespaces::NotForbidden,
            sub_uids: range.clone(),
            sub_gids: range,
            missing_id_helpers: Vec::new(),
            free_sub_id: 165_536,
            user: Some("ann".to_owned()),
            cgroups: Cgroups::V2(vec!["memory".to_owned()]),
            handed_on: Some(["memory", "cpu", "pids"].map(str::to_owned).into()),
            kvm_module: Some("kvm_amd"),
            out6: Some("eth0.5".to_owned()),
        };
        let uplinks = Uplinks { veth: Ok(()), pasta: Ok(()) };
        let host = HostFacts { online: true, uplinks, ..HostFacts::default() };
        let trial = Ok(Trial { ids: 65_537, ..Trial::default() });
        let (refused, missing, seen) = (Vec::new(), Vec::new(), Ok((host, None)));
        Found { facts, root, uid: 1000, group: 1000, trial, refused, missing, seen }
    }

    /// Checks what is told of the one thing that is not as it should be, and what mends it.
    #[track_caller]
    fn check(root: bool, spoil: impl Fn(&mut Found), expected: &[(&str, Verdict, &str, &str)]) {
        let mut found = found(root);
        spoil(&mut found);
        let bad: Vec<Check> = checks(&found).into_iter().filter(|c| c.verdict != Verdict::Ok).collect();
        let told: Vec<(&str, Verdict, &str, &str)> = bad
            .iter()
            .map(|check| {
                let Mend { fix, advice } = &check.mend;
                let mend = fix.as_deref().or(advice.as_deref()).expect("nothing says what mends it");
                (check.what, check.verdict, check.found.as_str(), mend)
            })
            .collect();
        assert_eq!(told, expected);
    }

    use Verdict::{Limited, Missing};

    #[test]
    fn what_is_as_it_should_be_needs_no_mending() {
        for root in [true, false] {
            check(root, |_| (), &[]);
            assert!(checks(&found(root)).iter().all(|check| check.mend == Mend::default()));
        }
    }

    #[test]
    fn user_namespaces_have_a_switch_or_another_kernel() {
        let what = "user namespaces";
        for (found, told, mend) in [
            (UserNamespaces::NoneAllowed, "none allowed", "sysctl -w user.max_user_namespaces=15000"),
            (UserNamespaces::RootOnly, "for root only", "sysctl -w kernel.unprivileged_userns_clone=1"),
            (
                UserNamespaces::AppArmor,
                "restricted by AppArmor",
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                UserNamespaces::Absent,
                "not in this kernel",
                "no command gives a kernel that runs user namespaces: boot one that has CONFIG_USER_NS",
            ),
        ] {
            for (root, verdict) in [(true, Limited), (false, Missing)] {
                check(root, |f| f.facts.user_namespaces = found, &[(what, verdict, told, mend)]);
            }
        }
    }

    #[test]
    fn subordinate_ids_need_ranges_and_the_programs_that_map_them() {
        let what = "subordinate ids";
        let ranges = "65536 user ids, 65536 group ids";
        let helpers = |f: &mut Found| f.facts.missing_id_helpers = vec!["newuidmap", "newgidmap"];
        let told = format!("{ranges}; newuidmap and newgidmap not installed");
        check(false, helpers, &[(what, Limited, &told, "apt-get install uidmap")]);
        check(true, helpers, &[]);
        let no_groups = |f: &mut Found| f.facts.sub_gids.clear();
        let line = "usermod --add-subgids 165536-231071 ann";
        check(false, no_groups, &[(what, Limited, "65536 user ids, 0 group ids", line)]);
        let nothing = |f: &mut Found| {
            (f.facts.sub_uids, f.facts.sub_gids) = (Vec::new(), Vec::new());
            f.facts.missing_id_helpers = vec!["newgidmap"];
        };
        let line =
            "apt-get install uidmap && usermod --add-subuids 165536-231071 --add-subgids 165536-231071 ann";
        let told = "0 user ids, 0 group ids; newgidmap not installed";
        check(false, nothing, &[(what, Limited, told, line)]);
        let nameless = |f: &mut Found| {
            (f.facts.sub_uids, f.facts.sub_gids, f.facts.user) = (Vec::new(), Vec::new(), None);
        };
        let line = "echo 1000:165536:65536 | tee -a /etc/subuid /etc/subgid";
        check(false, nameless, &[(what, Limited, "0 user ids, 0 group ids", line)]);
        let powerless = |f: &mut Found| f.trial = Ok(Trial { ids: 1, ..Trial::default() });
        let told = format!("{ranges}; `newuidmap` and `newgidmap` do not give them");
        check(false, powerless, &[(what, Limited, &told, "apt-get install --reinstall uidmap")]);
    }

    #[test]
    fn networks_are_judged_by_their_trial() {
        let trial = |trial: Trial| move |f: &mut Found| f.trial = Ok(Trial { ids: 65_537, ..trial.clone() });
        let error = || Some("no; hint: none".to_owned());
        let no_bridge = trial(Trial { bridge: error(), ..Trial::default() });
        check(true, no_bridge, &[("bridges", Missing, "no", "modprobe bridge")]);
        let no_veth = trial(Trial { veth: error(), ..Trial::default() });
        check(false, no_veth, &[("veth pairs", Missing, "no", "modprobe veth")]);
        let parts = |parts: &[&str]| {
            trial(Trial {
                rules: error(),
                parts: parts.iter().map(|p| (*p).to_owned()).collect(),
                ..Trial::default()
            })
        };
        check(true, parts(&[]), &[("nftables", Missing, "no", "modprobe nf_tables")]);
        let two = parts(&["nft_ct", "CONFIG_NF_TABLES_BRIDGE", "nft_masq"]);
        check(true, two, &[("nftables", Missing, "no", "modprobe -a nft_ct nft_masq")]);
        let option = "no command gives CONFIG_NF_TABLES_BRIDGE to a kernel that runs: boot one that has it";
        check(true, parts(&["CONFIG_NF_TABLES_BRIDGE"]), &[("nftables", Missing, "no", option)]);
        let none = |f: &mut Found| f.trial = Err("cannot: x\nhint: allow it".to_owned());
        check(false, none, &[("networks", Missing, "cannot: x", "allow it")]);
    }

    #[test]
    fn devices_and_programs_have_commands() {
        let device = |tun: Device| move |f: &mut Found| f.facts.tun = tun.clone();
        let what = "/dev/net/tun";
        check(true, device(Device::Absent), &[(what, Missing, "absent", "modprobe tun")]);
        let mode = "chmod 0666 /dev/net/tun";
        check(false, device(Device::Denied), &[(what, Missing, "permission denied", mode)]);
        check(true, device(Device::Broken("x".into())), &[(what, Missing, "x", "modprobe tun")]);
        let no_pasta = |f: &mut Found| f.facts.pasta = Program::Absent;
        check(false, no_pasta, &[("pasta", Limited, "not installed", "apt-get install passt")]);
        let line = "sysctl -w net.ipv4.ping_group_range='0 2147483647'";
        let nobody = |f: &mut Found| f.facts.ping_groups = None;
        check(false, nobody, &[("ping sockets", Limited, "for no group", line)]);
        let line = "apt-get install qemu-system-x86 qemu-system-common erofs-utils e2fsprogs";
        let one = |f: &mut Found| f.missing = vec!["x".to_owned()];
        check(true, one, &[("qemu, mkfs and virtiofsd", Limited, "1 missing", line)]);
    }

    #[test]
    fn kvm_is_mended_by_the_module_of_this_processor() {
        let kvm = |kvm: Device| move |f: &mut Found| f.facts.kvm = kvm.clone();
        let what = "/dev/kvm";
        check(true, kvm(Device::Absent), &[(what, Limited, "absent", "modprobe kvm_amd")]);
        let line = "usermod --append --groups kvm ann";
        check(false, kvm(Device::Denied), &[(what, Limited, "permission denied", line)]);
        for (root, spoil) in [
            (true, Device::Denied),
            (true, Device::Broken("busy".into())),
            (false, Device::Broken("busy".into())),
        ] {
            let mut found = found(root);
            found.facts.kvm = spoil;
            assert!(kvm_words(&found).starts_with("no command "), "{}", kvm_words(&found));
        }
        let mut found = found(true);
        (found.facts.kvm, found.facts.kvm_module) = (Device::Absent, None);
        assert!(kvm_words(&found).contains("the firmware"), "{}", kvm_words(&found));
    }

    fn kvm_words(found: &Found) -> String {
        let check = super::kvm(found);
        assert_eq!((check.verdict, check.mend.fix), (Limited, None));
        check.mend.advice.unwrap()
    }

    #[test]
    fn forwarding_is_of_both_protocols() {
        let what = "forwarding";
        let off4 = |f: &mut Found| f.facts.forwarding4 = Switch::Off;
        check(true, off4, &[(what, Limited, "IPv4 off, IPv6 on", "sysctl -w net.ipv4.ip_forward=1")]);
        check(false, off4, &[]);
        let off6 = |f: &mut Found| f.facts.forwarding6 = Switch::Off;
        let line = "sysctl -w net.ipv6.conf.eth0/5.accept_ra=2 net.ipv6.conf.all.forwarding=1";
        check(true, off6, &[(what, Limited, "IPv4 on, IPv6 off", line)]);
        let none6 = |f: &mut Found| (f.facts.forwarding6, f.facts.out6) = (Switch::Off, None);
        check(true, none6, &[]);
        let absent = |f: &mut Found| f.facts.forwarding4 = Switch::Absent;
        let why = "no command gives a kernel that runs IPv4, or this process its `/proc/sys`";
        check(true, absent, &[(what, Limited, "IPv4 absent, IPv6 on", why)]);
    }

    #[test]
    fn control_groups_are_judged_by_the_limits_that_can_be_had() {
        let what = "control groups";
        let spoil = |cgroups: Cgroups| {
            move |f: &mut Found| {
                f.facts.cgroups = cgroups.clone();
                f.refused = vec![("memory", "x".to_owned()), ("pids", "y".to_owned())];
            }
        };
        let told = |how: &str| format!("{how}; none of memory, pids can be limited");
        let mount = "mount -t cgroup2 cgroup2 /sys/fs/cgroup";
        for root in [true, false] {
            check(root, spoil(Cgroups::Absent), &[(what, Limited, &told("not mounted"), mount)]);
            check(root, |f| f.facts.cgroups = Cgroups::V1, &[]);
        }
        let boot = "no command does while the computer runs, as only version 2 can be handed on to users: boot with \
                    `systemd.unified_cgroup_hierarchy=1` on the kernel's command line";
        check(false, spoil(Cgroups::V1), &[(what, Limited, &told("version 1"), boot)]);
        let hybrid = told("hybrid: version 1 controllers");
        check(false, spoil(Cgroups::Hybrid), &[(what, Limited, &hybrid, boot)]);
        let keeps = "no command in here does (x): the kernel's command line (`cgroup_disable=`), or whoever started \
                     this container, keeps them";
        for cgroups in [Cgroups::V1, Cgroups::Hybrid, Cgroups::V2(Vec::new())] {
            let mut found = found(true);
            spoil(cgroups)(&mut found);
            assert_eq!(super::cgroups(&found).mend, words(keeps));
        }
        let version2 = told("version 2 ()");
        let unreached = "this user's own systemd would give machines theirs, but was not reached (x): log in by ssh, on \
                         a console or on a desktop instead of by `su` or `sudo`";
        check(false, spoil(Cgroups::V2(Vec::new())), &[(what, Limited, &version2, unreached)]);
        let absent = |f: &mut Found| {
            spoil(Cgroups::V2(Vec::new()))(f);
            f.facts.handed_on = Some(Vec::new());
        };
        let login = "this user's own systemd does not run, which gives machines theirs: log in by ssh, on a console or on \
                     a desktop, or have root call `loginctl enable-linger` for this user";
        check(false, absent, &[(what, Limited, &version2, login)]);
        let few = |f: &mut Found| {
            spoil(Cgroups::V2(Vec::new()))(f);
            f.facts.handed_on = Some(vec!["pids".to_owned()]);
        };
        let line = "mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory \
                    pids\\n' > /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload";
        check(false, few, &[(what, Limited, &version2, line)]);
        let none = |f: &mut Found| {
            few(f);
            f.facts.handed_on = None;
        };
        let why = "no command of systemd's does, as it does not run here: root has to give this user a control group of \
                   its own, with its `cgroup.procs` and `cgroup.subtree_control`";
        check(false, none, &[(what, Limited, &version2, why)]);
    }

    fn lack(why: &str, is_command: bool) -> Lack {
        Lack { why: why.to_owned(), hint: format!("mend {why}"), is_command }
    }

    #[test]
    fn of_two_ways_out_one_is_enough() {
        let (kernel, pasta) = ("uplink by the kernel", "uplink by pasta");
        let spoil = |f: &mut Found, pasta| {
            let veth = Err(lack("rules", true));
            f.seen = Ok((HostFacts { uplinks: Uplinks { veth, pasta }, ..HostFacts::default() }, None));
        };
        let other = "nothing is to be done: the other way out does the work";
        check(true, |f| spoil(f, Ok(())), &[(kernel, Limited, "rules", other)]);
        let both = [(kernel, Missing, "rules", "mend rules"), (pasta, Missing, "offline", "mend offline")];
        check(true, |f| spoil(f, Err(lack("offline", false))), &both);
        assert_eq!(of_lack(&lack("rules", true)), command("mend rules"));
        assert_eq!(of_lack(&lack("offline", false)), words("mend offline"));
    }

    #[test]
    fn only_what_leads_nowhere_is_cut_off() {
        let host = |pasta: Result<(), Lack>| HostFacts {
            online: true,
            uplinks: Uplinks { veth: Err(lack("rules drop it", true)), pasta },
            ..HostFacts::default()
        };
        assert_eq!(way_out(Some(&Uplink::Pasta), &host(Ok(()))), None);
        let found =
            way_out(Some(&Uplink::Pasta), &host(Err(lack("`pasta` is not installed", true)))).unwrap();
        assert_eq!(
            (found.verdict, found.found.as_str()),
            (Limited, "pasta runs, and could not be started again: `pasta` is not installed")
        );
        assert_eq!(found.mend, command("mend `pasta` is not installed"));
    }

    #[test]
    fn a_home_that_cannot_be_looked_at_is_told_with_what_helps() {
        let spoil = |error: &str| {
            let error = error.to_owned();
            move |f: &mut Found| f.seen = Err(error.clone())
        };
        let what = "this user's home";
        check(
            true,
            spoil("damaged"),
            &[(what, Missing, "damaged", "if nothing else helps, `stead purge` takes all of it away")],
        );
        check(true, spoil("not yours; hint: another"), &[(what, Missing, "not yours", "another")]);
    }
}

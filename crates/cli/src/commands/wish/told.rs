//! What is wrong with a machine that arguments ask for, by the options that caused it.

use std::net::IpAddr;

use serde_json::Value;

use stead_model::file::{Problem, Problems};
use stead_model::name::Name;

use crate::failure::{Failure, Said};

/// The options, and the keys of a machine that they are.
const OPTIONS: [(&str, &str); 54] = [
    ("kind", "--kind"),
    ("image", "IMAGE"),
    ("command", "COMMAND"),
    ("entrypoint", "--entrypoint"),
    ("environment", "--env"),
    ("working_dir", "--workdir"),
    ("user", "--user"),
    ("group_add", "--group-add"),
    ("hostname", "--hostname"),
    ("labels", "--label"),
    ("ports", "--publish"),
    ("volumes", "--volume"),
    ("tmpfs", "--tmpfs"),
    ("extra_hosts", "--add-host"),
    ("dns", "--dns"),
    ("dns_search", "--dns-search"),
    ("cpus", "--cpus"),
    ("cpu_shares", "--cpu-shares"),
    ("cpuset", "--cpuset-cpus"),
    ("mem_limit", "--memory"),
    ("memswap_limit", "--memory-swap"),
    ("mem_reservation", "--memory-reservation"),
    ("pids_limit", "--pids"),
    ("blkio_config.weight", "--blkio-weight"),
    ("blkio_config.device_read_bps", "--device-read-bps"),
    ("blkio_config.device_write_bps", "--device-write-bps"),
    ("blkio_config.device_read_iops", "--device-read-iops"),
    ("blkio_config.device_write_iops", "--device-write-iops"),
    ("shm_size", "--shm-size"),
    ("ulimits", "--ulimit"),
    ("oom_score_adj", "--oom-score-adj"),
    ("cap_add", "--cap-add"),
    ("cap_drop", "--cap-drop"),
    ("privileged", "--privileged"),
    ("security_opt", "--security-opt"),
    ("read_only", "--read-only"),
    ("devices", "--device"),
    ("sysctls", "--sysctl"),
    ("restart", "--restart"),
    ("logging", "--log-opt"),
    ("init", "--init"),
    ("mode", "--system"),
    ("platform", "--platform"),
    ("stop_signal", "--stop-signal"),
    ("stop_grace_period", "--stop-timeout"),
    ("healthcheck.test", "--health-cmd"),
    ("healthcheck.interval", "--health-interval"),
    ("healthcheck.timeout", "--health-timeout"),
    ("healthcheck.start_period", "--health-start-period"),
    ("healthcheck.start_interval", "--health-start-interval"),
    ("healthcheck.retries", "--health-retries"),
    ("healthcheck", "--health-cmd"),
    ("networks", "--network"),
    ("network_mode", "--network"),
];

/// The problems, by the options that caused them.
pub(super) fn told(problems: &Problems, name: &Name, file: &Value) -> Failure {
    let of_machine = format!("machines.{name}.");
    let line = |problem: &Problem| {
        let key = problem.path.strip_prefix(&of_machine).unwrap_or(&problem.path);
        let option = match OPTIONS.iter().find(|(known, _)| is_at(key, known)) {
            Some(("networks", option)) => of_network(key).unwrap_or(option),
            Some(("volumes", _)) if is_mount(key, file.pointer(&format!("/machines/{name}/volumes"))) => {
                "--mount"
            }
            Some((_, option)) => option,
            None => key,
        };
        let said = format!("`{option}`: {}", problem.message);
        match floating(key, name, file) {
            // Nobody wrote a file in which something could be written.
            Some(network) => Said::with_hint(
                &said,
                &format!(
                    "leave the address out, or name by `--network` another network than `{network}`, made by `stead network create --subnet`"
                ),
            ),
            None => Said::with_hint(&said, &problem.hint),
        }
    };
    Failure::Request(problems.problems.iter().map(line).collect())
}

/// The option that says what a network's key says.
fn of_network(path: &str) -> Option<&'static str> {
    let (_, key) = path.strip_prefix("networks.")?.split_once('.')?;
    Some(match key {
        "address" => "--ip",
        "address6" => "--ip6",
        "mac" => "--mac",
        _ if is_at(key, "aliases") => "--network-alias",
        _ => return None,
    })
}

/// Whether what a path leads to was said by keys, as `--mount` has it, and not in one text.
fn is_mount(path: &str, volumes: Option<&Value>) -> bool {
    let Some((place, within)) = path.strip_prefix("volumes[").and_then(|rest| rest.split_once(']')) else {
        return false;
    };
    let said = volumes.and_then(|volumes| volumes.get(place.parse::<usize>().ok()?));
    !within.is_empty() || said.is_some_and(Value::is_object)
}

/// The network of a fixed address at this path, if its subnet is whichever is free.
fn floating<'p>(path: &'p str, name: &Name, file: &Value) -> Option<&'p str> {
    let (network, key) = path.strip_prefix("networks.")?.split_once('.')?;
    let family = match key {
        "address" => "subnet",
        "address6" => "subnet6",
        _ => return None,
    };
    let text = |at: String| file.pointer(&at).and_then(Value::as_str);
    text(format!("/machines/{name}/{}", path.replace('.', "/")))?.parse::<IpAddr>().ok()?;
    let subnet = text(format!("/networks/{network}/{family}"));
    matches!(subnet, None | Some("auto")).then_some(network)
}

/// Whether a path is at this key, or below it.
fn is_at(path: &str, key: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;
    use expect_test::{Expect, expect};
    use stead_model::file::{Source, Variables, parse};

    use super::super::read;
    use crate::args::{Cli, Command, command};

    /// What is said of a machine of these arguments.
    #[track_caller]
    fn check(line: &str, expected: Expect) {
        let words: Vec<&str> = line.split(' ').collect();
        let matches = command().try_get_matches_from([["stead", "run"].as_slice(), &words].concat());
        let cli = Cli::from_arg_matches(&matches.expect("it is lawful")).expect("it is lawful");
        let Command::Run(args) = cli.command else { panic!("another command") };
        let none = Variables::default();
        let source = Source::new("stead.yaml", "name: user\n", &none, "/srv/user".as_ref());
        let project = parse(&source).unwrap_or_else(|problems| panic!("{problems}")).project;
        let Err(failure) = read(&"x".parse().expect("a name"), &args.machine, &project) else {
            panic!("it can be had")
        };
        expected.assert_eq(&failure.text());
    }

    #[test]
    fn rates_of_disks_are_told_of() {
        check(
            "--blkio-weight 5 --device-read-bps sda:1mb --device-write-bps /dev/sda:1q --device-read-iops /dev/sda:0 image",
            expect![[r#"
                error: `--device-read-bps`: `sda` is not a disk of this computer
                hint: it is written like `/dev/sda`
                error: `--device-read-iops`: `0` is not a whole number from 1 to 4294967295
                hint: write `1` or more
                error: `--device-write-bps`: `1q` is not a size
                hint: a size is written like `512m`, `1.5g`, or `1048576` for bytes
                error: `--blkio-weight`: `5` is not a whole number from 10 to 1000
                hint: write `10` or more
            "#]],
        );
        check(
            "--device-write-iops /dev/sda image",
            expect![[r#"
            error: `--device-write-iops`: `/dev/sda` has no rate
            hint: write `/dev/sda:100`
        "#]],
        );
        check(
            "--kind microvm --device-write-iops /dev/sda:1 --device-write-iops /dev/sda:2 image",
            expect![[r#"
                error: `machines.x`: machine `x` is a `microvm`, which cannot have rates of input and output yet
                hint: leave it out, or write `kind: container`
                error: `--device-write-iops`: `/dev/sda` has a rate already
                hint: leave one of them out
            "#]],
        );
    }

    #[test]
    fn what_is_wrong_is_told_by_its_option() {
        check(
            "-v a/b:/c --mount type=bind,target=/x --mount source=data,target=x image",
            expect![[r#"
            error: `--volume`: `a/b` is neither a volume's name nor a path
            hint: a path starts with `/`, `./`, `../` or `~`: `./a/b`
            error: `--mount`: a bind needs the path of its `source`
            hint: it starts with `/`, `./`, `../` or `~/`
            error: `--mount`: `x` is not a place in the machine
            hint: a place is an absolute path, like `/srv/data`
        "#]],
        );
        check(
            "--ip here image",
            expect![[r#"
            error: `--ip`: `here` is not an IPv4 address a machine can have
            hint: an address is written like `10.0.5.7`, without a prefix
        "#]],
        );
        check(
            "--ip 10.0.0.7 --ip6 fd00::7 --network-alias a..b image",
            expect![[r#"
            error: `--ip`: a fixed address needs a fixed subnet, and that of network `default` is `auto`
            hint: leave the address out, or name by `--network` another network than `default`, made by `stead network create --subnet`
            error: `--ip6`: a fixed address needs a fixed subnet, and that of network `default` is `auto`
            hint: leave the address out, or name by `--network` another network than `default`, made by `stead network create --subnet`
            error: `--network-alias`: `a..b` is not a name: a name cannot be empty
            hint: an alias is written like `www` or `www.shop.example`: letters, digits, `-` and `.`
        "#]],
        );
    }
}

//! What arguments ask a machine to be: written as a machine of a project file and read by the file's own reader, so
//! that the command line and the file cannot disagree. Its problems are told by the options that caused them.

mod mode;
mod told;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use stead_model::file::{Source, Variables, files, parse, ports_of_docker, render_json};
use stead_model::name::{LOOSE_PROJECT, Name, as_ours};
use stead_model::project::{Machine, Project};

use self::told::told;
use crate::args::{MachineArgs, RunKind};
use crate::failure::Failure;

/// A machine, and the volumes that it needs.
pub(crate) struct Wish {
    pub(crate) machine: Machine,
    pub(crate) volumes: BTreeSet<Name>,
}

/// What the arguments ask for, where `project` has the networks. Named volumes come with their names.
pub(crate) fn read(name: &Name, args: &MachineArgs, project: &Project) -> Result<Wish, Failure> {
    let mode = mode::mode(args, project)?;
    let is_known = |text: &&String| project.networks.keys().any(|network| as_ours(text) == network.as_str());
    let mut unknown = args.network.iter().filter(|text| mode.is_none() && !is_known(text));
    if let Some(refusal) = unknown.find_map(|text| not_ours(text)) {
        return Err(refusal);
    }
    let usual = ["default".to_owned()];
    let named: Vec<String> = args.network.iter().map(|text| as_ours(text)).collect();
    let names = if named.is_empty() { usual.as_slice() } else { &named };
    let (mut machine, volumes) = machine(args, names)?;
    if let Some(mode) = &mode {
        machine.remove("networks");
        machine.insert("network_mode".to_owned(), json!(mode));
    }
    let kind = match args.kind.unwrap_or_default() {
        RunKind::Container => "container",
        RunKind::Microvm => "microvm",
    };
    machine.extend([("image".to_owned(), json!(args.image)), ("kind".to_owned(), json!(kind))]);
    // As they are: whether an address can be had depends on them.
    let other = mode.as_deref().and_then(|mode| mode.strip_prefix("machine:")?.parse().ok());
    let machines = mode::stand_ins(other.as_ref(), project);
    let others = Project { machines, volumes: [].into(), external_volumes: [].into(), ..project.clone() };
    let rendered = render_json(&others);
    let of_others = |key: &str| rendered.get(key).cloned().unwrap_or_else(|| json!({}));
    let mut machines = of_others("machines");
    if let Some(machines) = machines.as_object_mut() {
        machines.insert(name.to_string(), Value::Object(machine));
    }
    let file = json!({
        "name": project.name.to_string(),
        "networks": of_others("networks"),
        "volumes": volumes,
        "machines": machines,
    });
    wish(&file, name, names)
}

/// What the machine is called that another goes over, but where that one is called so.
const BASES: [&str; 2] = ["what-is-run-once", "what-is-run-once-more"];

/// What the arguments ask for over another machine of the project, `base`, by the rules of `extends`. Named volumes come
/// with their names.
pub(crate) fn over(
    name: &Name,
    base: &Machine,
    args: &MachineArgs,
    project: &Project,
) -> Result<Wish, Failure> {
    let networks: Vec<String> = base.nics.iter().map(|nic| nic.network.to_string()).collect();
    let none = ["none".to_owned()];
    let (mut own, volumes) = machine(args, if networks.is_empty() { none.as_slice() } else { &networks })?;
    let below = BASES.into_iter().find(|below| *below != name.as_str()).unwrap_or_default();
    own.insert("extends".to_owned(), json!(below));
    if networks.is_empty() {
        own.remove("networks");
    }
    let key: Name = below.parse().map_err(anyhow::Error::from)?;
    let alone = Machine { depends_on: [].into(), restarts_with: [].into(), ..base.clone() };
    let owner = base.runs.container().and_then(|container| container.network.other());
    let mut machines = mode::stand_ins(owner, project);
    machines.insert(key, alone);
    let mut project = Project { machines, ..project.clone() };
    for volume in volumes {
        let name: Name = volume.parse().map_err(anyhow::Error::from)?;
        if !project.external_volumes.contains_key(&name) {
            project.volumes.entry(name).or_default();
        }
    }
    let mut file = render_json(&project);
    let machines = file.get_mut("machines").and_then(Value::as_object_mut);
    if let Some(machines) = machines {
        if let Some(base) = machines.get_mut(below).and_then(Value::as_object_mut) {
            make_room(base, &mut own, args);
        }
        machines.insert(name.to_string(), Value::Object(own));
    }
    let Wish { machine, volumes } = wish(&file, name, &networks)?;
    Ok(Wish {
        machine: Machine {
            depends_on: base.depends_on.clone(),
            restarts_with: base.restarts_with.clone(),
            ..machine
        },
        volumes,
    })
}

/// Takes out of a machine what arguments replace that the rules of `extends` would leave beside them.
fn make_room(base: &mut Map<String, Value>, own: &mut Map<String, Value>, args: &MachineArgs) {
    if args.entrypoint.is_some() {
        // It was for the other program.
        base.remove("command");
    }
    let is_off = base.get("healthcheck").and_then(|health| health.get("disable")).is_some();
    if args.no_healthcheck || (is_off && own.contains_key("healthcheck")) {
        base.remove("healthcheck");
    }
    // What two machines publish is not lawful in one file.
    if let Some(Value::Array(ports)) = base.remove("ports")
        && let Some(own) = own.entry("ports").or_insert_with(|| json!([])).as_array_mut()
    {
        own.extend(ports);
    }
    let mut without = |key: &str, is_replaced: &dyn Fn(&Value) -> bool| {
        if let Some(items) = base.get_mut(key).and_then(Value::as_array_mut) {
            items.retain(|item| !is_replaced(item));
        }
    };
    let capability = |text: &str| {
        let upper = text.to_ascii_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
    };
    let is_one_of = |list: &[String], item: &Value| {
        item.as_str().is_some_and(|item| list.iter().any(|said| capability(said) == capability(item)))
    };
    let host = |text: &str| text.split([':', '=']).next().map(str::to_owned);
    let hosts: Vec<Option<String>> = args.add_host.iter().map(|text| host(text)).collect();
    without("extra_hosts", &|item| item.as_str().is_some_and(|item| hosts.contains(&host(item))));
    without("cap_drop", &|item| is_one_of(&args.cap_add, item));
    without("cap_add", &|item| is_one_of(&args.cap_drop, item));
    let places: Vec<&str> = args
        .tmpfs
        .iter()
        .filter_map(|text| text.split(':').next())
        .map(|place| place.trim_end_matches('/'))
        .collect();
    without("volumes", &|item| {
        item.get("target").and_then(Value::as_str).is_some_and(|target| places.contains(&target))
    });
}

/// The machine of that name in a file that we wrote, with its nics in the order of these networks.
fn wish(file: &Value, name: &Name, networks: &[String]) -> Result<Wish, Failure> {
    // The arguments have gone through a shell: nothing in them stands for something else any more.
    let text = file.to_string().replace('$', "$$");
    let here = std::env::current_dir()
        .map_err(|error| anyhow::anyhow!(error).context("cannot find the current directory"))?;
    let none = Variables::default();
    let source = Source::new("arguments", &text, &none, &here);
    let others = files(&source, crate::project::read_other);
    let parsed =
        parse(&Source { files: &others, ..source }).map_err(|problems| told(&problems, name, file))?;
    let mut parsed = parsed.project;
    match parsed.machines.remove(name) {
        Some(mut machine) => {
            // A mapping in JSON has the order of its keys: that of the arguments is the one that counts.
            machine.nics.sort_by_key(|nic| networks.iter().position(|name| name == nic.network.as_str()));
            Ok(Wish { machine, volumes: parsed.volumes.into_keys().collect() })
        }
        None => Err(Failure::request("the arguments describe no machine", "see `stead run --help`")),
    }
}

/// The machine as a file has it, on these networks, and the names of its volumes; but for its image and kind.
fn machine(
    args: &MachineArgs,
    networks: &[String],
) -> Result<(Map<String, Value>, BTreeSet<String>), Failure> {
    let mut keys = plain_keys(args);
    let mut put = |key: &str, value: Value| drop(keys.insert(key.to_owned(), value));
    if args.system {
        put("mode", json!("system"));
    }
    if let Some(entrypoint) = &args.entrypoint {
        let words: Vec<&str> = if entrypoint.is_empty() { Vec::new() } else { vec![entrypoint] };
        put("entrypoint", json!(words));
    }
    let environment = super::environment::gathered(&args.env_file, &args.env)?;
    if !environment.is_empty() {
        put("environment", json!(environment));
    }
    if !args.ulimit.is_empty() {
        put("ulimits", ulimits(&args.ulimit)?);
    }
    if !args.log_opt.is_empty() {
        put("logging", json!({ "options": pairs("--log-opt", &args.log_opt, "max-size=10m")? }));
    }
    let io = io(args)?;
    if !io.is_empty() {
        put("blkio_config", Value::Object(io));
    }
    put("networks", networks_of(args, networks)?);
    if let Some(health) = health(args) {
        put("healthcheck", health);
    }
    let mut mounts: Vec<Value> = args.volume.iter().map(|text| json!(volume(text))).collect();
    for text in &args.mount {
        mounts.push(mount(text)?);
    }
    let volumes = mounts.iter().filter_map(volume_name).collect();
    if !mounts.is_empty() {
        put("volumes", Value::Array(mounts));
    }
    Ok((keys, volumes))
}

/// The keys whose values are the options' own.
fn plain_keys(args: &MachineArgs) -> Map<String, Value> {
    let mut keys = Map::new();
    let mut put = |key: &str, value: Value| drop(keys.insert(key.to_owned(), value));
    let lists = [
        ("command", &args.command),
        ("group_add", &args.group_add),
        ("labels", &args.label),
        ("extra_hosts", &args.add_host),
        ("dns", &args.dns),
        ("dns_search", &args.dns_search),
        ("cap_add", &args.cap_add),
        ("cap_drop", &args.cap_drop),
        ("security_opt", &args.security_opt),
        ("devices", &args.device),
        ("sysctls", &args.sysctl),
        ("tmpfs", &args.tmpfs),
    ];
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        put(key, json!(list));
    }
    let ports: Vec<String> = args.publish.iter().flat_map(|text| ports_of_docker(text)).collect();
    if !ports.is_empty() {
        put("ports", json!(ports));
    }
    let grace = args.stop_timeout.map(|seconds| format!("{seconds}s"));
    let signal = args.stop_signal.map(|signal| signal.to_string());
    let texts = [
        ("working_dir", &args.workdir),
        ("user", &args.user),
        ("hostname", &args.hostname),
        ("cpus", &args.cpus),
        ("cpu_shares", &args.cpu_shares),
        ("cpuset", &args.cpuset_cpus),
        ("mem_limit", &args.memory),
        ("memswap_limit", &args.memory_swap),
        ("mem_reservation", &args.memory_reservation),
        ("pids_limit", &args.pids),
        ("shm_size", &args.shm_size),
        ("oom_score_adj", &args.oom_score_adj),
        ("restart", &args.restart),
        ("platform", &args.platform),
        ("stop_signal", &signal),
        ("stop_grace_period", &grace),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            put(key, json!(text));
        }
    }
    let flags = [
        ("tty", args.tty),
        ("stdin_open", args.interactive),
        ("init", args.init),
        ("privileged", args.privileged),
        ("read_only", args.read_only),
    ];
    for (key, _) in flags.into_iter().filter(|(_, is_said)| *is_said) {
        put(key, json!(true));
    }
    keys
}

/// `name=value` each, as a mapping.
fn pairs(option: &str, texts: &[String], example: &str) -> Result<Map<String, Value>, Failure> {
    let pair = |text: &String| {
        let wrong =
            || Failure::request(&format!("`{option}`: `{text}` has no value"), &format!("write `{example}`"));
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok((name.to_owned(), json!(value)))
    };
    texts.iter().map(pair).collect()
}

/// `nofile=1024:2048`, as the file has it.
fn ulimits(texts: &[String]) -> Result<Value, Failure> {
    let mut limits = Map::new();
    for text in texts {
        let wrong =
            || Failure::request(&format!("`--ulimit`: `{text}` is no limit"), "write `nofile=1024:2048`");
        let (name, values) = text.split_once('=').ok_or_else(wrong)?;
        let value = match values.split_once(':') {
            Some((soft, hard)) => json!({ "soft": soft, "hard": hard }),
            None => json!(values),
        };
        limits.insert(name.to_owned(), value);
    }
    Ok(Value::Object(limits))
}

/// `/dev/sda:10mb` each, as the file has it.
fn io(args: &MachineArgs) -> Result<Map<String, Value>, Failure> {
    let lists = [
        ("device_read_bps", &args.device_read_bps, "--device-read-bps", "10mb"),
        ("device_write_bps", &args.device_write_bps, "--device-write-bps", "10mb"),
        ("device_read_iops", &args.device_read_iops, "--device-read-iops", "100"),
        ("device_write_iops", &args.device_write_iops, "--device-write-iops", "100"),
    ];
    let mut keys = Map::new();
    keys.extend(args.blkio_weight.iter().map(|weight| ("weight".to_owned(), json!(weight))));
    for (key, texts, option, example) in lists.into_iter().filter(|(_, texts, ..)| !texts.is_empty()) {
        let rate = |text: &String| {
            let wrong = || {
                let what = format!("`{option}`: `{text}` has no rate");
                Failure::request(&what, &format!("write `/dev/sda:{example}`"))
            };
            // A path may have a colon.
            let (path, rate) = text.rsplit_once(':').ok_or_else(wrong)?;
            Ok(json!({ "path": path, "rate": rate }))
        };
        let rates = texts.iter().map(rate).collect::<Result<Vec<_>, Failure>>()?;
        keys.insert(key.to_owned(), json!(rates));
    }
    Ok(keys)
}

fn networks_of(args: &MachineArgs, names: &[String]) -> Result<Value, Failure> {
    if names.iter().any(|name| name == "none") {
        return match names {
            [_] => no_network(args),
            _ => Err(Failure::request("`--network none` and another network", "say one of them")),
        };
    }
    let mut networks = Map::new();
    for (place, name) in names.iter().enumerate() {
        let mut nic = Map::new();
        if place == 0 {
            let fixed = [("address", &args.ip), ("address6", &args.ip6), ("mac", &args.mac)];
            for (key, value) in fixed {
                nic.extend(value.as_ref().map(|value| (key.to_owned(), json!(value))));
            }
        }
        if !args.network_alias.is_empty() {
            nic.insert(
                "aliases".to_owned(),
                json!(args.network_alias.iter().map(|alias| as_ours(alias)).collect::<Vec<_>>()),
            );
        }
        networks.insert(name.clone(), Value::Object(nic));
    }
    Ok(Value::Object(networks))
}

/// Why there is no such network, where it is what Docker calls a mode.
fn not_ours(text: &str) -> Option<Failure> {
    let (why, hint) = match text.split(':').next()? {
        "bridge" => (
            "there is no network `bridge`",
            "leave it out: machines that name none are on `default`, which is such a one",
        ),
        _ if text.rsplit_once('.').is_some_and(|(_, project)| project != LOOSE_PROJECT) => (
            "it is another project's",
            "name one that a command made; in a project's file that one is `external`",
        ),
        "ns" | "slirp4netns" | "pasta" | "private" => (
            "a machine has a network of its own, made by stead",
            "leave it out for the usual one, or name one of `stead network ls`, or `none`, `host` or `machine:NAME`",
        ),
        _ => return None,
    };
    Some(Failure::request(&format!("`--network {text}` cannot be honoured: {why}"), hint))
}

/// No network, if nothing is said of one.
fn no_network(args: &MachineArgs) -> Result<Value, Failure> {
    let said = [
        ("--ip", args.ip.is_some()),
        ("--ip6", args.ip6.is_some()),
        ("--mac", args.mac.is_some()),
        ("--network-alias", !args.network_alias.is_empty()),
    ];
    match said.into_iter().find(|(_, is_said)| *is_said) {
        None => Ok(json!([])),
        Some((option, _)) => {
            let what = format!("`--network none` and `{option}`: without a network it means nothing");
            Err(Failure::request(&what, "say one of them"))
        }
    }
}

fn health(args: &MachineArgs) -> Option<Value> {
    if args.no_healthcheck {
        return Some(json!({ "disable": true }));
    }
    let texts = [
        ("interval", &args.health_interval),
        ("timeout", &args.health_timeout),
        ("start_period", &args.health_start_period),
        ("start_interval", &args.health_start_interval),
        ("retries", &args.health_retries),
    ];
    let said = texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), json!(text.as_ref()?))));
    let mut keys: Map<String, Value> = said.collect();
    keys.extend(args.health_cmd.as_ref().map(|line| ("test".to_owned(), json!(["CMD-SHELL", line]))));
    (!keys.is_empty()).then_some(Value::Object(keys))
}

/// `type=bind,source=…,target=…,readonly`, as the file has it.
fn mount(text: &str) -> Result<Value, Failure> {
    let mut keys = Map::from_iter([("type".to_owned(), json!("volume"))]);
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        match key {
            "type" => drop(keys.insert("type".into(), json!(value))),
            "source" | "src" => drop(keys.insert("source".into(), json!(source(value)))),
            "target" | "dst" | "destination" => drop(keys.insert("target".into(), json!(value))),
            "readonly" | "ro" => drop(keys.insert("read_only".into(), json!(value != "false"))),
            "bind-propagation" => within(&mut keys, "bind", "propagation", json!(value)),
            "volume-nocopy" => within(&mut keys, "volume", "nocopy", json!(value != "false")),
            "tmpfs-size" => within(&mut keys, "tmpfs", "size", json!(value)),
            "tmpfs-mode" => within(&mut keys, "tmpfs", "mode", json!(value)),
            _ => {
                let what = format!("`--mount`: `{part}` says nothing about a mount");
                return Err(Failure::request(&what, "write `type=bind,source=/here,target=/there,readonly`"));
            }
        }
    }
    if keys.get("type") == Some(&json!("bind")) {
        // Who says it in words does not mean a directory that is not there.
        within(&mut keys, "bind", "create_host_path", json!(false));
    }
    Ok(Value::Object(keys))
}

/// Puts a key into a mapping within.
fn within(keys: &mut Map<String, Value>, mapping: &str, key: &str, value: Value) {
    if let Some(inner) = keys.entry(mapping).or_insert_with(|| json!({})).as_object_mut() {
        inner.insert(key.to_owned(), value);
    }
}

/// A mount in its short form, with a volume's name as it is here.
fn volume(text: &str) -> String {
    text.split_once(':').map_or_else(|| text.to_owned(), |(from, rest)| format!("{}:{rest}", source(from)))
}

/// Where a mount comes from: what is no path is a volume's name.
fn source(text: &str) -> String {
    if text.starts_with(['.', '~']) || text.contains('/') { text.to_owned() } else { as_ours(text) }
}

/// The name of the volume that something is, if it is one.
fn volume_name(mount: &Value) -> Option<String> {
    let source = match mount {
        Value::String(text) => text.split_once(':')?.0,
        other if other.get("type")?.as_str()? == "volume" => other.get("source")?.as_str()?,
        _ => return None,
    };
    source.parse::<Name>().ok().map(|name| name.to_string())
}

/// The name of a machine that got none: the image's, with the first number that is free.
pub(crate) fn free_name(image: &str, project: &Project) -> Result<Name, Failure> {
    let last = image.rsplit('/').next().unwrap_or(image);
    let bare = last.split([':', '@']).next().unwrap_or(last).to_ascii_lowercase();
    let lawful: String = bare.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let lawful = lawful.trim_matches('-');
    let stem = lawful.get(..lawful.len().min(30)).filter(|stem| !stem.is_empty()).unwrap_or("machine");
    let names = (1..).map(|number| format!("{stem}-{number}"));
    let free =
        names.filter_map(|name| name.parse::<Name>().ok()).find(|name| !project.machines.contains_key(name));
    free.ok_or_else(|| Failure::request("no name is left for the machine", "say one with `--name`"))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;
    use expect_test::{Expect, expect};
    use stead_model::file::render;
    use stead_model::project::Volume;

    use super::*;
    use crate::args::{Cli, Command, command};

    /// What a machine that goes over another is, for these words and the keys of the other.
    #[track_caller]
    fn check(line: &str, base: &str, expected: Expect) {
        let words: Vec<&str> = line.split(' ').collect();
        let matches = command()
            .try_get_matches_from([["stead", "run"].as_slice(), &words].concat())
            .expect("it is lawful");
        let cli = Cli::from_arg_matches(&matches).expect("it is lawful");
        let Command::Run(args) = cli.command else { panic!("another command") };
        let text =
            format!("name: shop\nvolumes: [data]\nmachines: {{ db: {{ image: db }}, base: {{ {base} }} }}\n");
        let none = Variables::default();
        let source = Source::new("stead.yaml", &text, &none, "/srv/shop".as_ref());
        let mut project = parse(&source).unwrap_or_else(|problems| panic!("{problems}")).project;
        let name: Name = "base".parse().expect("a name");
        let base = project.machines.get(&name).and_then(Machine::for_one_off).expect("it can be one");
        let Wish { machine, volumes } = over(&name, &base, &args.machine, &project)
            .unwrap_or_else(|failure| panic!("{}", failure.text()));
        project.networks.clear();
        project.volumes = volumes.into_iter().map(|name| (name, Volume::default())).collect();
        project.machines = [(name, machine)].into();
        expected.assert_eq(&render(&project));
    }

    #[test]
    fn what_is_said_goes_over_the_machine_by_the_rules_of_extends() {
        check(
            "-e B=$x -l l=1 -v more:/more -v /srv:/data -w / --cap-add cap_sys_admin -p 81:80 base a $b",
            "image: web, command: serve, environment: { A: 1, B: 2 }, volumes: ['data:/data'], cap_drop: [SYS_ADMIN, CHOWN], depends_on: [db], \
             networks: { default: { aliases: [www] } }, ports: [80], restart: always, user: app",
            expect![[r#"
                name: shop
                machines:
                  base:
                    kind: container
                    driver: native
                    networks:
                      default: {}
                    ports:
                      - "127.0.0.1:81:80/tcp"
                    depends_on: [db]
                    image: "web:latest"
                    command: ["a", "$$b"]
                    environment:
                      - "A=1"
                      - "B=$$x"
                    working_dir: "/"
                    user: "app"
                    labels:
                      - "l=1"
                    volumes:
                      - { type: bind, source: "/srv", bind: { propagation: private, create_host_path: true }, target: "/data" }
                      - { type: volume, source: more, target: "/more" }
                    cap_add: ["SYS_ADMIN"]
                    cap_drop: ["CHOWN"]
                volumes: [data, more]
            "#]],
        );
    }

    #[test]
    fn another_program_has_another_command_and_a_place_one_mount() {
        check(
            "--entrypoint other --health-interval 1s --tmpfs /data --network-alias also base",
            "image: web, entrypoint: [first], command: [serve], volumes: ['data:/data'], healthcheck: { test: [CMD, well], retries: 2 }",
            expect![[r#"
                name: shop
                machines:
                  base:
                    kind: container
                    driver: native
                    networks:
                      default: { aliases: [also] }
                    image: "web:latest"
                    entrypoint: ["other"]
                    volumes:
                      - { type: tmpfs, target: "/data" }
                    healthcheck: { test: ["CMD", "well"], interval: 1000ms, retries: 2 }
                volumes: [data]
            "#]],
        );
    }

    #[test]
    fn what_is_said_may_need_what_the_file_says() {
        check(
            "--no-healthcheck --memory-swap 64m --add-host db:10.9.9.9 base",
            "image: web, networks: [], healthcheck: { test: [CMD, well] }, mem_limit: 32m, extra_hosts: ['db=10.0.0.1', 'db=::1', 'far:10.0.0.2']",
            expect![[r#"
                name: shop
                machines:
                  base:
                    kind: container
                    driver: native
                    networks: []
                    image: "web:latest"
                    extra_hosts:
                      - "db=10.9.9.9"
                      - "far=10.0.0.2"
                    mem_limit: 33554432
                    memswap_limit: 67108864
                    healthcheck: { disable: true }
                volumes: [data]
            "#]],
        );
    }
}

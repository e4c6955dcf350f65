//! Any container that a file can ask for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use crate::container::*;

/// Any text that a program can be given, with what YAML and variables would take for themselves.
fn text() -> impl Strategy<Value = String> {
    "[ -~é\n\t\r\u{1}\u{7f}\u{85}\u{2028}\u{feff}\u{fffe}\u{1f600}]{0,12}"
}

fn map<V: Strategy>(key: &'static str, value: V) -> impl Strategy<Value = BTreeMap<String, V::Value>> {
    proptest::collection::btree_map(key, value, 0..3)
}

fn maybe<V: Strategy>(value: V) -> impl Strategy<Value = Option<V::Value>> {
    proptest::option::of(value)
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Write), Just(Access::Read)]
}

fn owner() -> impl Strategy<Value = Owner> {
    let id = || maybe(0..u32::MAX);
    (id(), id()).prop_map(|(uid, gid)| Owner { uid, gid })
}

fn mounts() -> impl Strategy<Value = BTreeMap<String, Mount>> {
    let propagation =
        prop_oneof![Just(Propagation::Private), Just(Propagation::Slave), Just(Propagation::Shared)];
    let mount = prop_oneof![
        (access(), any::<bool>()).prop_map(|(access, nocopy)| {
            Mount::Volume { name: "null".parse().unwrap(), external: None, access, nocopy }
        }),
        access().prop_map(|access| {
            let external = Some("data.shop".parse().unwrap());
            Mount::Volume { name: "lent".parse().unwrap(), external, access, nocopy: false }
        }),
        ("/[ -~]{1,9}", access(), propagation, any::<bool>()).prop_map(
            |(source, access, propagation, create)| {
                // As the file's own paths are: without `//`, `.` and `..`.
                let parts = source.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
                let source = PathBuf::from(format!("/{}", parts.collect::<Vec<_>>().join("/")));
                Mount::Bind { source, access, propagation, create }
            }
        ),
        (maybe(1..=u64::from(u32::MAX)), maybe(0..=0o7777_u32), owner(), access(), any::<bool>()).prop_map(
            |(size_bytes, mode, owner, access, exec)| Mount::Tmpfs { size_bytes, mode, owner, access, exec }
        ),
    ];
    map("/[a-z$ ]{1,4}(/x)?", mount)
}

fn limits() -> impl Strategy<Value = Limits> {
    let ulimit = (0..=u64::MAX, 0..=u64::MAX).prop_map(|(a, b)| Ulimit { soft: a.min(b), hard: a.max(b) });
    let ulimits = map("nofile|core|stack", ulimit);
    let first = (
        maybe(10..=64_000_u32),
        maybe(2..=262_144_u64),
        maybe("[0-9]-1[0-9]"),
        maybe(7_000_000..=8_000_000_u64),
    );
    let second = (
        maybe(9_000_000..=9_999_999_u64),
        maybe(1..=100_u64),
        maybe(1..=u64::from(u32::MAX)),
        maybe(10..=1000_u16),
    );
    let rate = || maybe(1..=u64::from(u32::MAX));
    // What has none is not said.
    let rates = (rate(), rate(), rate(), 1..=9_u64).prop_map(|(read_bps, write_bps, read_iops, last)| {
        DiskRates { read_bps, write_bps, read_iops, write_iops: Some(last) }
    });
    let disks = proptest::collection::btree_map("/dev/[a-z$: ]{1,5}", rates, 0..3)
        .prop_map(|disks| disks.into_iter().map(|(path, rates)| (path.into(), rates)).collect());
    (first, second, maybe(1..=9_u64), ulimits, maybe(-1000..=1000_i16), disks).prop_map(
        |(first, second, shm_bytes, ulimits, oom_score, disk_rates)| Limits {
            cpus_milli: first.0,
            cpu_shares: first.1,
            cpuset: first.2,
            memory_bytes: first.3,
            // Only together with that.
            memory_swap_bytes: first.3.and(second.0),
            memory_reservation_bytes: second.1,
            pids: second.2,
            io_weight: second.3,
            disk_rates,
            shm_bytes,
            ulimits,
            oom_score,
        },
    )
}

fn rights() -> impl Strategy<Value = Rights> {
    let capabilities = || proptest::collection::btree_set("ALL|NET_ADMIN|SYS_TIME", 0..3);
    let seccomp = prop_oneof![
        Just(Seccomp::Default),
        Just(Seccomp::Unconfined),
        "/[a-z$ :=]{1,5}".prop_map(|path| Seccomp::Profile(path.into())),
    ];
    let device = ("/dev/[a-z$ ]{1,5}", "/x[a-z ]{1,5}", "r|w|rw|rwm|m")
        .prop_map(|(source, target, access)| Device { source: source.into(), target, access });
    let devices = proptest::collection::vec(device, 0..3);
    let sysctls = map("net\\.[a-z]{1,5}\\.x|kernel\\.shmmax", text());
    (capabilities(), capabilities(), any::<[bool; 3]>(), seccomp, devices, sysctls).prop_map(
        |(capabilities_add, capabilities_drop, flags, seccomp, devices, sysctls)| Rights {
            capabilities_add,
            capabilities_drop,
            privileged: flags[0],
            no_new_privileges: flags[1],
            seccomp,
            read_only: flags[2],
            devices,
            sysctls,
        },
    )
}

fn health() -> impl Strategy<Value = Health> {
    let command = prop_oneof![
        proptest::collection::vec(text(), 1..4).prop_map(HealthCommand::Program),
        text().prop_map(HealthCommand::Shell),
    ];
    let time = || maybe(1..=90_000_u64);
    let test = (maybe(command), time(), time(), maybe(0..=9_u64), time(), maybe(1..=9_u32)).prop_map(
        |(command, interval_ms, timeout_ms, start_period_ms, start_interval_ms, retries)| {
            let test =
                HealthTest { command, interval_ms, timeout_ms, start_period_ms, start_interval_ms, retries };
            if test == HealthTest::default() { Health::Image } else { Health::Test(test) }
        },
    );
    prop_oneof![Just(Health::Image), Just(Health::Off), test]
}

/// Any container that a file can ask for.
pub(in crate::file::tests) fn any_container() -> impl Strategy<Value = Container> {
    let words = || maybe(proptest::collection::vec(text(), 0..4));
    let program = (words(), words(), map("[ -<>-~\u{1}\u{85}\u{feff}]{1,5}", text()), maybe("/[ -~]{0,9}"));
    let who = (
        maybe("[a-z0-9$]{1,5}(:[0-9]{1,4})?"),
        proptest::collection::btree_set("[a-z0-9]{1,5}", 0..3),
        maybe("[a-z][a-z0-9]{0,5}(\\.x)?"),
        map("[ -<>-~\u{1}\u{85}\u{feff}]{1,5}", text()),
        any::<[bool; 4]>(),
    );
    let address =
        prop_oneof![Just("10.0.0.1"), Just("fd00::1"), Just("host-gateway")].prop_map(|a| a.parse().unwrap());
    let addresses = proptest::collection::btree_set(address, 1..3).prop_map(|set| set.into_iter().collect());
    let hosts = map("[a-z]{1,5}", addresses);
    let dns = proptest::collection::vec(Just("10.0.0.53".parse().unwrap()), 0..2);
    let names = (hosts, dns, proptest::collection::vec("[a-z]{1,5}|\\.", 0..2));
    let restart = prop_oneof![
        Just(Restart::No),
        Just(Restart::OnFailure(None)),
        Just(Restart::OnFailure(Some(3))),
        Just(Restart::Always),
        Just(Restart::UnlessStopped),
    ];
    let ends = (maybe(Just("RTMIN+3".parse().unwrap())), maybe(0..=90_000_u64), restart, health());
    let image =
        prop_oneof![Just("debian:12"), Just("127.0.0.1:5000/a/b")].prop_map(|text| text.parse().unwrap());
    (image, program, who, mounts(), names, limits(), rights(), ends).prop_map(
        |(image, program, who, mounts, names, limits, rights, ends)| Container {
            platform: who.4[3].then(|| "linux/arm64/v8".parse().unwrap()),
            mode: if who.4[2] { Mode::System } else { Mode::Application },
            entrypoint: program.0,
            command: program.1,
            environment: program.2,
            workdir: program.3,
            user: who.0,
            groups: who.1,
            hostname: who.2,
            labels: who.3,
            tty: who.4[0],
            stdin: who.4[1],
            init: who.4[0] != who.4[1],
            mounts,
            own_volumes: [format!("/own{}", who.4.len())].into(),
            hosts: names.0,
            dns: names.1,
            dns_search: names.2,
            limits,
            rights,
            stop: Stop { signal: ends.0, grace_ms: ends.1 },
            restart: ends.2,
            health: ends.3,
            ..Container::new(image)
        },
    )
}

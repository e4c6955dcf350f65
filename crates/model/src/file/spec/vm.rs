//! What a vm of ours is to be, as written.

use super::container::{health, limits};
use super::mounts::absolute;
use super::view::{At, Given, View, word};
use super::{Around, Place};
use crate::file::leaf::container as value;
use crate::file::leaf::quantity;
use crate::file::leaf::vm::{self as leaf, AnyImage};
use crate::file::problem::Problem;
use crate::file::shape::is_machines;
use crate::vm::{CloudInit, Firmware, Vm};

/// What of a container's keys a vm has, too.
const SHARED: [&str; 14] = [
    "image",
    "hostname",
    "labels",
    "cpus",
    "mem_limit",
    "stop_grace_period",
    "restart",
    "healthcheck",
    "deploy",
    "volumes",
    "secrets",
    "configs",
    "dev",
    "provision",
];
/// What only a vm has.
pub(super) const OWN: [&str; 3] = ["disk", "firmware", "cloud_init"];

const FIRMWARES: &[(&str, Firmware)] = &[("bios", Firmware::Bios), ("uefi", Firmware::Uefi)];

/// The vm of a machine, if it names an image.
pub(super) fn read(view: &View<'_>, around: &Around<'_>, problems: &mut Vec<Problem>) -> Given<Box<Vm>> {
    let limits = limits(view, problems);
    let health = health(&view.get("healthcheck"), problems);
    let cloud_init = cloud_init(&view.get("cloud_init"), problems);
    let (image, place) = match view.get("image").read(leaf::any_image) {
        Given::Absent => return Given::Absent,
        Given::Wrong => return Given::Wrong,
        Given::Is(At { value: AnyImage::File(path), place }) => match absolute(around.ground, &path) {
            Ok(path) => (path, place),
            Err(wrong) => {
                problems.push(wrong.at(place.span, &place.path, &place.text));
                return Given::Wrong;
            }
        },
        Given::Is(At { value: AnyImage::Named(name), place }) => {
            let problem =
                place.problem(format!("a vm is made from a file yet, and `{name}` is an image's name"));
            problems.push(problem.hint("write the path of a disk image, like `./debian-12.qcow2`"));
            return Given::Wrong;
        }
    };
    let grace = |view: &View<'_>| view.get("stop_grace_period").read(quantity::time_ms);
    let restart = |view: &View<'_>| view.get("restart").read(value::restart);
    let labels = view.get("labels").pairs().into_iter();
    let vm = Vm {
        disk_bytes: view.get("disk").read(quantity::bytes).value(),
        firmware: view.get("firmware").read(word(FIRMWARES)).value().unwrap_or_default(),
        cpus: limits.cpus_milli.map(|milli| milli.div_ceil(1000)),
        memory_mib: limits.memory_bytes.map(|bytes| bytes >> 20),
        hostname: view.get("hostname").read(value::hostname).value(),
        labels: labels.map(|(name, value)| (name.value, value.unwrap_or_default())).collect(),
        cloud_init,
        stop_grace_ms: grace(view).or(&grace(&around.defaults)).value(),
        restart: restart(view).or(&restart(&around.defaults)).value().unwrap_or_default(),
        health,
        ..Vm::new(image)
    };
    Given::Is(At { value: Box::new(vm), place })
}

fn cloud_init(view: &View<'_>, problems: &mut Vec<Problem>) -> Option<CloudInit> {
    let is_off = view.read(|text| Ok(text == "off")).value().unwrap_or(false);
    if is_off {
        return None;
    }
    let user_data = view.get("user_data");
    let text = user_data.read(value::any).value();
    let user_data = text.and_then(|text| {
        let read = leaf::user_data(&text);
        read.map_err(|wrong| problems.push(wrong.at(user_data.place.span, &user_data.place.path, ""))).ok()
    });
    let keys = view.get("ssh_authorized_keys").each(leaf::ssh_key);
    Some(CloudInit { user_data, ssh_authorized_keys: keys.into_iter().map(|at| at.value).collect() })
}

/// Reports keys that say nothing of a vm.
pub(super) fn refuse_others(view: &View<'_>, name: &str, common: &[&str], problems: &mut Vec<Problem>) {
    for (key, _) in view.entries() {
        let can_have =
            [common, SHARED.as_slice(), OWN.as_slice()].iter().any(|keys| keys.contains(&key.value));
        // What is no key at all was reported.
        if can_have || !is_machines(key.value) {
            continue;
        }
        let what = format!("machine `{name}` is a `vm`, which cannot have `{}`", key.value);
        problems.push(key.place.problem(what).hint(instead(key.value)));
    }
}

/// What to do instead.
fn instead(key: &str) -> &'static str {
    match key {
        "command" | "entrypoint" | "environment" | "env_file" | "working_dir" | "user" | "group_add" => {
            "its image's init starts its programs: write `cloud_init: { user_data: … }`"
        }
        "extra_hosts" | "dns" | "dns_search" | "sysctls" => {
            "leave it out, or write it in `cloud_init: { user_data: … }`"
        }
        "network_mode" => "leave it out: its network is in its own kernel; `networks: []` is none at all",
        _ => "leave it out, or write another `kind`",
    }
}

/// Reports keys of a vm at a machine that is none.
pub(super) fn refuse_own(
    view: &View<'_>,
    name: &str,
    kind: crate::project::Kind,
    problems: &mut Vec<Problem>,
) {
    for key in OWN {
        if let Some(place) = view.key_place(key) {
            let place: Place = place;
            let what = format!("machine `{name}` is a `{kind}`, which has no `{key}`");
            problems.push(place.problem(what).hint("leave it out, or write `kind: vm`"));
        }
    }
}

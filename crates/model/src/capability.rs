//! What drivers cannot do (yet), of all that may be asked of a container: the one table that a wish is held against
//! before anything changes.

use crate::container::{Container, Mode, Mount, Propagation, Seccomp};
use crate::project::Driver;
use crate::vm::Vm;

/// Something that was asked for and cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What it does not do, to go after `a machine which …`.
    pub what: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// With less a kernel does not come up.
pub const GUEST_MEMORY_MIN_BYTES: u64 = 96 << 20;

type Test = fn(&Container) -> bool;

const CONTAINER: &str = "leave it out, or write `kind: container`";

/// What QEMU's machines lack, and how a wish for it is recognised.
const QEMU: [(Test, Lack); 13] = [
    (
        |c| c.limits.memory_bytes.is_some_and(|bytes| bytes < GUEST_MEMORY_MIN_BYTES),
        Lack { what: "does not come up with so little memory", hint: "give it 96 MiB or more" },
    ),
    (
        |c| !c.network.is_own(),
        Lack {
            what: "has a network in its own kernel, and cannot be in another's",
            hint: "name under `networks` one that both are on, or write `kind: container`",
        },
    ),
    (|c| c.mode == Mode::System, Lack { what: "cannot have `mode: system` yet", hint: CONTAINER }),
    (
        |c| {
            let travels = |mount: &Mount| matches!(mount, Mount::Bind { propagation, .. } if *propagation != Propagation::Private);
            c.mounts.values().any(travels)
        },
        Lack {
            what: "has mounts of its own, which do not travel",
            hint: "leave the propagation out, or write `kind: container`",
        },
    ),
    (|c| !c.rights.devices.is_empty(), Lack { what: "has no devices of this computer", hint: CONTAINER }),
    (
        |c| matches!(c.rights.seccomp, Seccomp::Profile(_)),
        Lack { what: "cannot have a seccomp profile of a file yet", hint: CONTAINER },
    ),
    (
        |c| c.limits.cpuset.is_some(),
        Lack { what: "cannot be held to processors by `cpuset` yet", hint: CONTAINER },
    ),
    (|c| c.limits.cpu_shares.is_some(), Lack { what: "cannot have `cpu_shares` yet", hint: CONTAINER }),
    (
        |c| c.limits.io_weight.is_some(),
        Lack { what: "cannot have a weight of input and output yet", hint: CONTAINER },
    ),
    (
        |c| !c.limits.disk_rates.is_empty(),
        Lack { what: "cannot have rates of input and output yet", hint: CONTAINER },
    ),
    (|c| c.limits.limited_swap_bytes().is_some(), Lack { what: "has no swap", hint: CONTAINER }),
    (
        |c| c.limits.memory_reservation_bytes.is_some(),
        Lack { what: "has its memory to itself, so nothing of it can be reserved", hint: CONTAINER },
    ),
    (|c| c.limits.oom_score.is_some(), Lack { what: "cannot have `oom_score_adj` yet", hint: CONTAINER }),
];

/// What of a wish a driver cannot do.
pub fn lacks(driver: Driver, wish: &Container) -> Vec<Lack> {
    match driver {
        Driver::External | Driver::Native => Vec::new(),
        Driver::Qemu => QEMU.iter().filter(|(test, _)| test(wish)).map(|(_, lack)| *lack).collect(),
    }
}

/// With less a distribution does not come up.
pub const VM_MEMORY_MIN_MIB: u64 = 128;
/// More than this no machine of QEMU's has.
const VM_CPUS_MAX: u32 = 255;

/// What the table of a layer of ours has room for.
pub const VM_DISK_MAX_BYTES: u64 = 4 << 40;

/// What of a vm's mounts cannot be had.
fn vm_mount_lacks(wish: &Vm) -> impl Iterator<Item = Lack> + '_ {
    let has = |test: fn(&Mount) -> bool| wish.mounts.values().any(test);
    let travels = |mount: &Mount| matches!(mount, Mount::Bind { propagation, .. } if *propagation != Propagation::Private);
    let lacks = [
        (
            !wish.mounts.is_empty() && wish.cloud_init.is_none(),
            Lack {
                what: "is told nothing (`cloud_init: off`), so nobody would mount its volumes in it",
                hint: "leave one of the two out",
            },
        ),
        (
            has(travels),
            Lack { what: "has mounts of its own, which do not travel", hint: "leave the propagation out" },
        ),
        (
            has(|mount| matches!(mount, Mount::Tmpfs { .. })),
            Lack {
                what: "mounts what is in memory by itself",
                hint: "leave it out, or write `mounts` in `cloud_init: { user_data: … }`",
            },
        ),
    ];
    lacks.into_iter().filter(|(is_so, _)| *is_so).map(|(_, lack)| lack)
}

/// What of a wish for a vm cannot be had.
pub fn vm_lacks(wish: &Vm) -> Vec<Lack> {
    let mut lacks = Vec::new();
    if wish.memory_mib.is_some_and(|mib| mib < VM_MEMORY_MIN_MIB) {
        lacks.push(Lack { what: "does not come up with so little memory", hint: "give it 128 MiB or more" });
    }
    if wish.cpus.is_some_and(|cpus| cpus > VM_CPUS_MAX) {
        lacks.push(Lack { what: "cannot have so many processors", hint: "give it 255 or fewer" });
    }
    if wish.disk_bytes.is_some_and(|bytes| bytes > VM_DISK_MAX_BYTES) {
        lacks.push(Lack { what: "cannot have so large a disk", hint: "give it 4 TiB or less" });
    }
    lacks.extend(vm_mount_lacks(wish));
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::DiskRates;

    #[test]
    fn a_disk_has_a_largest_size() {
        for (bytes, expected) in [(VM_DISK_MAX_BYTES, 0), (VM_DISK_MAX_BYTES + 1, 1)] {
            let wish = Vm { disk_bytes: Some(bytes), ..Vm::new("/disk.qcow2".into()) };
            assert_eq!(vm_lacks(&wish).len(), expected);
        }
    }

    #[test]
    fn what_a_microvm_lacks_is_told_and_a_container_lacks_nothing() {
        let mut wish = Container::new("busybox:1".parse().unwrap());
        assert_eq!(lacks(Driver::Qemu, &wish), []);
        wish.mode = Mode::System;
        wish.limits.cpuset = Some("0".to_owned());
        wish.limits.disk_rates = [("/dev/sda".into(), DiskRates::default())].into();
        let what: Vec<_> = lacks(Driver::Qemu, &wish).iter().map(|lack| lack.what).collect();
        let expected = [
            "cannot have `mode: system` yet",
            "cannot be held to processors by `cpuset` yet",
            "cannot have rates of input and output yet",
        ];
        assert_eq!(what, expected);
        assert_eq!(lacks(Driver::Native, &wish), []);
    }
}

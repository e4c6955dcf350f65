//! Which system calls the processes of a container may make.

mod compile;
mod profile;
mod syscalls;
mod usual;

use anyhow::{Context, Result};
use stead_model::container::{Rights, Seccomp};

use crate::capability::Capabilities;
use crate::sys::Instruction;
use profile::Circumstances;

/// The filter for a container with these rights, if it has one.
pub(crate) fn filter(rights: &Rights, capabilities: Capabilities) -> Result<Option<Vec<Instruction>>> {
    let profile = match &rights.seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default if rights.privileged => return Ok(None),
        Seccomp::Default => usual::profile(capabilities),
        Seccomp::Profile(path) => {
            let system = rustix::system::uname();
            let kernel = version(&system.release().to_string_lossy()).context("the kernel has no version")?;
            let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
            profile::load(path, Circumstances { architecture, kernel, capabilities })?
        }
    };
    Ok(Some(compile::compile(&profile, compile::Processor::here())))
}

/// Refuses a profile that cannot be read, or says what there is not.
pub fn check(rights: &Rights) -> Result<()> {
    filter(rights, Capabilities::default()).map(drop)
}

/// A filter with the flags of `seccomp(2)` that it is loaded with.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) code: Vec<Instruction>,
    pub(crate) flags: u32,
}

/// The filter that a bundle's `linux.seccomp` asks for: Docker's form is made of it.
pub(crate) fn parse_oci(value: &serde_json::Value) -> Result<Filter> {
    let profile = profile::parse_oci(value)?;
    let listed = |key: &str| -> Vec<String> {
        let list = value.get(key).and_then(|list| list.as_array()).cloned().unwrap_or_default();
        list.iter().filter_map(|word| word.as_str()).map(str::to_owned).collect()
    };
    let mut flags = 0;
    for word in listed("flags") {
        flags |= match word.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => 1,
            "SECCOMP_FILTER_FLAG_LOG" => 2,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 4,
            other => anyhow::bail!("flag `{}` is not supported", other.escape_debug()),
        };
    }
    let processors = compile::Processor::named(&listed("architectures"))?;
    Ok(Filter { code: compile::compile(&profile, &processors), flags })
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::compile::{Processor, compile};
    use super::profile::{Action, Circumstances, Profile, parse};
    use super::*;

    /// What the kernel finds when a system call is made.
    struct Call {
        processor: u32,
        number: u32,
        args: [u64; 6],
    }

    const X86_64: u32 = 0xc000_003e;
    const X86: u32 = 0x4000_0003;

    fn call(number: u32, args: &[u64]) -> Call {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        Call { processor: X86_64, number, args: all }
    }

    /// Runs a program as the kernel does.
    fn run(program: &[Instruction], call: &Call) -> u32 {
        let (mut at, mut register) = (0, 0);
        loop {
            let Instruction { code, if_true, if_false, value } = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { if_true } else { if_false });
            match code {
                0x20 => {
                    #[allow(clippy::cast_possible_truncation)] // a half is what is wanted
                    let half = |at: u32| (call.args[at as usize / 8] >> (u64::from(at) % 8 * 8)) as u32;
                    register = match value {
                        0 => call.number,
                        4 => call.processor,
                        other => half(other - 16),
                    };
                }
                0x05 => at += value as usize,
                0x15 => at += jump(register == value),
                0x25 => at += jump(register > value),
                0x35 => at += jump(register >= value),
                0x54 => register &= value,
                0x06 => return value,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn usual_for(capabilities: u64) -> Vec<Instruction> {
        compile(&usual::profile(Capabilities(capabilities)), &processors())
    }

    /// Those of x86, whatever this computer is.
    fn processors() -> [Processor; 2] {
        Processor::X86
    }

    const ALLOWED: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;
    const SYS_ADMIN: u64 = 1 << 21;

    #[test]
    fn the_usual_profile_says_what_dockers_says() {
        let (usual, admin) = (usual_for(0xa804_25fb), usual_for(0xa804_25fb | SYS_ADMIN));
        let both = |call: Call| (run(&usual, &call), run(&admin, &call));
        assert_eq!(both(call(0, &[])), (ALLOWED, ALLOWED), "read");
        assert_eq!(both(call(165, &[])), (EPERM, ALLOWED), "mount");
        assert_eq!(both(call(161, &[])), (ALLOWED, ALLOWED), "chroot");
        assert_eq!(both(call(175, &[])), (EPERM, EPERM), "init_module");
        assert_eq!(both(call(435, &[])), (ENOSYS, ALLOWED), "clone3");
        assert_eq!(both(call(56, &[0x11])), (ALLOWED, ALLOWED), "fork by clone");
        assert_eq!(both(call(56, &[0x1000_0011])), (EPERM, ALLOWED), "clone into a user namespace");
        assert_eq!(both(call(41, &[2, 1])), (ALLOWED, ALLOWED), "socket of the internet");
        assert_eq!(both(call(41, &[40, 1])), (EPERM, EPERM), "vsock");
        assert_eq!(both(call(41, &[38, 5])), (EPERM, EPERM), "cryptography");
        assert_eq!(both(call(135, &[0xffff_ffff])), (ALLOWED, ALLOWED), "personality");
        assert_eq!(both(call(135, &[4])), (EPERM, EPERM), "another personality");
        assert_eq!(both(call(135, &[1 << 32])), (EPERM, EPERM), "the upper half counts");
        assert_eq!(both(call(425, &[])), (EPERM, EPERM), "io_uring_setup");
        assert_eq!(both(call(9999, &[])), (ENOSYS, ENOSYS), "one that nobody has yet");
        assert_eq!(both(call(0x4000_0000, &[])), (ENOSYS, ENOSYS), "x32");
    }

    #[test]
    fn programs_with_32_bits_are_filtered_by_their_own_numbers() {
        let usual = usual_for(0);
        let call = |number| Call { processor: X86, number, args: [0; 6] };
        assert_eq!(run(&usual, &call(3)), ALLOWED, "read");
        assert_eq!(run(&usual, &call(21)), EPERM, "mount");
        assert_eq!(run(&usual, &Call { processor: 7, ..call(3) }), ENOSYS, "another processor");
    }

    #[test]
    fn every_rule_of_the_usual_profile_names_a_system_call() {
        for rule in usual::profile(Capabilities::ALL).rules {
            for name in rule.names {
                assert!(syscalls::ROWS.iter().any(|(known, _)| *known == name), "{name}");
            }
        }
        assert!(syscalls::ROWS.is_sorted_by(|(one, _), (other, _)| one < other));
    }

    /// One look at argument 0, and which values pass.
    #[track_caller]
    fn check(op: &str, value: u64, two: u64, passes: &[(u64, bool)]) {
        let text = serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 1, "value": value, "valueTwo": two, "op": op}]}],
        });
        let kernel = (6, 1);
        let circumstances =
            Circumstances { architecture: "amd64", kernel, capabilities: Capabilities::default() };
        let profile = parse(&text.to_string(), circumstances).unwrap();
        let program = compile(&profile, &processors());
        for (argument, expected) in passes {
            let verdict = run(&program, &call(0, &[7, *argument]));
            assert_eq!(verdict == ALLOWED, *expected, "{op} {value:#x}: {argument:#x}");
        }
    }

    #[test]
    fn arguments_are_compared_with_all_64_bits() {
        const BIG: u64 = 5 << 32 | 7;
        let around = [BIG - 1, BIG, BIG + 1, 7, 6 << 32, 5 << 32, 4 << 32 | 9];
        let table = |holds: fn(u64) -> bool| around.map(|value| (value, holds(value)));
        check("SCMP_CMP_EQ", BIG, 0, &table(|value| value == BIG));
        check("SCMP_CMP_NE", BIG, 0, &table(|value| value != BIG));
        check("SCMP_CMP_LT", BIG, 0, &table(|value| value < BIG));
        check("SCMP_CMP_LE", BIG, 0, &table(|value| value <= BIG));
        check("SCMP_CMP_GT", BIG, 0, &table(|value| value > BIG));
        check("SCMP_CMP_GE", BIG, 0, &table(|value| value >= BIG));
        check("SCMP_CMP_MASKED_EQ", 0xf_0000_000f, BIG, &table(|value| value & 0xf_0000_000f == BIG));
    }

    #[test]
    fn groups_hold_where_they_say() {
        let text = r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[
            {"names":["read"],"action":"SCMP_ACT_KILL","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["write"],"action":"SCMP_ACT_TRAP","excludes":{"arches":["amd64"]}},
            {"name":"open","action":"SCMP_ACT_ERRNO","includes":{"minKernel":"4.8"}},
            {"name":"close","action":"SCMP_ACT_ERRNO","includes":{"minKernel":"6.2"}},
            {"names":["lseek"],"action":"SCMP_ACT_ERRNO","errnoRet":9,"args":[
                {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#;
        let capabilities = Capabilities(SYS_ADMIN);
        let circumstances = Circumstances { architecture: "amd64", kernel: (6, 1), capabilities };
        let profile = parse(text, circumstances).unwrap();
        let said: Vec<String> = profile
            .rules
            .iter()
            .map(|rule| format!("{} {:?} {}", rule.names.join(","), rule.action, rule.checks.len()))
            .collect();
        assert_eq!(said, ["read KillThread 0", "open Errno(1) 0", "lseek Errno(9) 1", "lseek Errno(9) 1"]);
        assert_eq!(profile.otherwise, Action::Log);
        for (wrong, why) in [("SCMP_ACT_NOTIFY", "is no action that we know"), ("x", "is no action")] {
            let text = format!(r#"{{"defaultAction":"{wrong}"}}"#);
            assert!(parse(&text, circumstances).unwrap_err().to_string().contains(why));
        }
        let empty = Profile { otherwise: Action::Allow, rules: vec![] };
        assert_eq!(run(&compile(&empty, &processors()), &call(9999, &[])), ALLOWED);
    }

    #[test]
    fn it_is_short_enough_for_the_kernel() {
        let length = usual_for(0).len();
        assert!(length < 2000, "{length}");
    }
}

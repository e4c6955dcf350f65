//! A profile as a program for the kernel.
//!
//! ```text
//! which processor? ─▶ its numbers ─▶ a binary search over ranges that share their rules ─▶ looks at arguments ─▶ action
//! ```

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::profile::{Action, Check, Comparison, Profile, Rule};
use super::syscalls;
use crate::sys::Instruction;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// Where the kernel's `seccomp_data` has the number, the processor and the arguments.
const AT_NUMBER: u32 = 0;
const AT_PROCESSOR: u32 = 4;
const AT_ARGUMENTS: u32 = 16;

/// What numbers of the x32 kind begin with. They count as numbers that we do not know.
const X32: u32 = 0x4000_0000;

const ENOSYS: u16 = 38;

/// A processor: its `AUDIT_ARCH_*`, and its column in the table of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processor {
    audit: u32,
    column: usize,
}

impl Processor {
    /// With 64 bits and with 32.
    pub(crate) const X86: [Self; 2] =
        [Self { audit: 0xc000_003e, column: 0 }, Self { audit: 0x4000_0003, column: 1 }];
    /// With 64 bits.
    pub(crate) const ARM: [Self; 1] = [Self { audit: 0xc000_00b7, column: 2 }];

    /// Those of this computer that libseccomp calls by these names, and its own in any case: names of others ask for
    /// nothing here.
    pub(crate) fn named(names: &[String]) -> Result<Vec<Self>> {
        let own = |names: &[String], name: &str| names.iter().any(|listed| listed == name);
        if let Some(wrong) = names.iter().find(|name| !name.starts_with("SCMP_ARCH_")) {
            bail!("`{}` is no architecture", wrong.escape_debug());
        }
        let mut found = Vec::new();
        for (index, processor) in Self::here().iter().enumerate() {
            if index == 0 || own(names, "SCMP_ARCH_X86") {
                found.push(*processor);
            }
        }
        Ok(found)
    }

    /// Those whose programs this computer runs.
    pub(crate) fn here() -> &'static [Self] {
        if cfg!(target_arch = "aarch64") { &Self::ARM } else { &Self::X86 }
    }
}

/// The program.
pub(crate) fn compile(profile: &Profile, processors: &[Processor]) -> Vec<Instruction> {
    let mut code = vec![load(AT_PROCESSOR)];
    for processor in processors {
        let section = section(profile, *processor);
        // Past the section, for others.
        code.push(test(JUMP_EQUAL, processor.audit, 1, 0));
        code.push(jump(section.len()));
        code.extend(section);
    }
    code.push(give(Action::Errno(ENOSYS)));
    code
}

/// The rules of one number, in order.
type Leaf<'a> = Vec<&'a Rule>;

fn section(profile: &Profile, processor: Processor) -> Vec<Instruction> {
    let mut by_number: BTreeMap<u32, Leaf<'_>> = BTreeMap::new();
    for rule in &profile.rules {
        let numbers = rule.names.iter().filter_map(|name| syscalls::number(name, processor.column));
        numbers.for_each(|number| by_number.entry(number).or_default().push(rule));
    }
    let last = syscalls::last(processor.column);
    // Ranges of numbers with the same code, each by its first number.
    let mut ranges: Vec<(u32, Vec<Instruction>)> = Vec::new();
    for number in 0..=last {
        let empty = Leaf::new();
        let code = leaf(by_number.get(&number).unwrap_or(&empty), profile.otherwise);
        if ranges.last().is_none_or(|(_, before)| *before != code) {
            ranges.push((number, code));
        }
    }
    ranges.push((last + 1, vec![give(unknown(profile.otherwise))]));
    ranges.push((X32, vec![give(Action::Errno(ENOSYS))]));
    let mut code = vec![load(AT_NUMBER)];
    code.extend(search(&ranges));
    code
}

/// What becomes of system calls that are newer than our table: where others are refused, these are as if missing.
fn unknown(otherwise: Action) -> Action {
    match otherwise {
        Action::Allow | Action::Log => otherwise,
        Action::Errno(_) | Action::KillProcess | Action::KillThread | Action::Trap | Action::Trace(_) => {
            Action::Errno(ENOSYS)
        }
    }
}

fn search(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    match (lower, upper) {
        ([], [(_, only)]) => only.clone(),
        (_, [(first, _), ..]) => {
            let left = search(lower);
            let mut code = vec![test(JUMP_GREATER_OR_EQUAL, *first, 0, 1), jump(left.len())];
            code.extend(left);
            code.extend(search(upper));
            code
        }
        (_, []) => Vec::new(),
    }
}

fn leaf(rules: &[&Rule], otherwise: Action) -> Vec<Instruction> {
    let mut code = Vec::new();
    for rule in rules {
        if rule.checks.is_empty() {
            code.push(give(rule.action));
            return code;
        }
        // Built from the end, as each look has to know how far it is to the next rule.
        let mut body = vec![give(rule.action)];
        for check in rule.checks.iter().rev() {
            let mut longer = look(*check, body.len());
            longer.extend(body);
            body = longer;
        }
        code.extend(body);
    }
    code.push(give(otherwise));
    code
}

/// Goes on behind these instructions if the argument is as it is to be; else past `rest` more of them.
fn look(check: Check, rest: usize) -> Vec<Instruction> {
    let low = AT_ARGUMENTS + 8 * u32::from(check.argument);
    let high = low + 4;
    let (value_high, value_low) = halves(check.is.value);
    let fail = |left: usize| jump(left + rest);
    match check.is.comparison {
        Comparison::Equal => vec![
            load(high),
            test(JUMP_EQUAL, value_high, 1, 0),
            fail(3),
            load(low),
            test(JUMP_EQUAL, value_low, 1, 0),
            fail(0),
        ],
        Comparison::NotEqual => vec![
            load(high),
            test(JUMP_EQUAL, value_high, 0, 3),
            load(low),
            test(JUMP_EQUAL, value_low, 0, 1),
            fail(0),
        ],
        Comparison::Masked(mask) => {
            let (mask_high, mask_low) = halves(mask);
            vec![
                load(high),
                Instruction { code: AND, if_true: 0, if_false: 0, value: mask_high },
                test(JUMP_EQUAL, value_high, 1, 0),
                fail(4),
                load(low),
                Instruction { code: AND, if_true: 0, if_false: 0, value: mask_low },
                test(JUMP_EQUAL, value_low, 1, 0),
                fail(0),
            ]
        }
        Comparison::Greater => ordered(check, test(JUMP_GREATER, value_low, 1, 0), true, rest),
        Comparison::GreaterOrEqual => {
            ordered(check, test(JUMP_GREATER_OR_EQUAL, value_low, 1, 0), true, rest)
        }
        Comparison::Less => ordered(check, test(JUMP_GREATER_OR_EQUAL, value_low, 0, 1), false, rest),
        Comparison::LessOrEqual => ordered(check, test(JUMP_GREATER, value_low, 0, 1), false, rest),
    }
}

/// The upper halves decide, unless they are equal: then `last` looks at the lower ones.
fn ordered(check: Check, last: Instruction, is_greater: bool, rest: usize) -> Vec<Instruction> {
    let low = AT_ARGUMENTS + 8 * u32::from(check.argument);
    let (value_high, _) = halves(check.is.value);
    let first = if is_greater {
        test(JUMP_GREATER, value_high, 5, 0)
    } else {
        test(JUMP_GREATER_OR_EQUAL, value_high, 0, 5)
    };
    vec![
        load(low + 4),
        first,
        test(JUMP_EQUAL, value_high, 1, 0),
        jump(3 + rest),
        load(low),
        last,
        jump(rest),
    ]
}

#[allow(clippy::cast_possible_truncation)] // halves are what is wanted
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

fn load(at: u32) -> Instruction {
    Instruction { code: LOAD, if_true: 0, if_false: 0, value: at }
}

fn test(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, value }
}

/// Past so many instructions.
fn jump(over: usize) -> Instruction {
    // A program has at most 4096 instructions, or the kernel refuses it.
    let value = u32::try_from(over).unwrap_or(u32::MAX);
    Instruction { code: JUMP, if_true: 0, if_false: 0, value }
}

fn give(action: Action) -> Instruction {
    let value = match action {
        Action::Allow => 0x7fff_0000,
        Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
        Action::KillProcess => 0x8000_0000,
        Action::KillThread => 0,
        Action::Trap => 0x0003_0000,
        Action::Trace(message) => 0x7ff0_0000 | u32::from(message),
        Action::Log => 0x7ffc_0000,
    };
    Instruction { code: RETURN, if_true: 0, if_false: 0, value }
}

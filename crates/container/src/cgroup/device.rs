//! Which devices may be used in a cgroup: as lines for version 1, as a program for version 2.

use crate::mounts::device::Node;

/// Some devices, and what may be done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) kind: Kind,
    /// Absent: all.
    pub(crate) major: Option<u32>,
    /// Absent: all.
    pub(crate) minor: Option<u32>,
    pub(crate) access: Access,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Block,
    Character,
}

/// What may be done: bits as the kernel's program sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(u32);

const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

impl Access {
    pub(crate) fn parse(text: &str) -> Self {
        let bits = [('m', MAKE), ('r', READ), ('w', WRITE)];
        Self(bits.iter().filter(|(letter, _)| text.contains(*letter)).fold(0, |all, (_, bit)| all | bit))
    }
}

/// What is allowed: all nodes can be made, terminals and these devices used.
pub(crate) fn rules(nodes: &[Node]) -> Vec<Rule> {
    let any = |kind, access| Rule { kind, major: None, minor: None, access: Access::parse(access) };
    let one = |major, minor| Rule {
        kind: Kind::Character,
        major: Some(major),
        minor,
        access: Access::parse("rwm"),
    };
    let mut rules = vec![any(Kind::Character, "m"), any(Kind::Block, "m")];
    // /dev/console, /dev/ptmx, and terminals.
    rules.extend([one(5, Some(1)), one(5, Some(2)), one(136, None)]);
    rules.extend(nodes.iter().map(|node| Rule {
        kind: if node.is_block { Kind::Block } else { Kind::Character },
        major: Some(node.major),
        minor: Some(node.minor),
        access: Access::parse(&node.access),
    }));
    rules
}

/// A line for `devices.allow`.
pub(crate) fn line(rule: &Rule) -> String {
    let kind = match rule.kind {
        Kind::Block => 'b',
        Kind::Character => 'c',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let access: String = [('r', READ), ('w', WRITE), ('m', MAKE)]
        .iter()
        .filter(|(_, bit)| rule.access.0 & bit != 0)
        .map(|(letter, _)| letter)
        .collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

/// A program that answers 1 where a rule allows all that is asked, else 0.
pub(crate) fn program(rules: &[Rule]) -> Vec<u64> {
    code(rules.iter().map(|rule| (true, rule)))
}

/// A program for rules that allow or deny, of which the last that fits holds: denied is what has any of what a rule denies.
pub(crate) fn ordered(rules: &[(bool, Rule)]) -> Vec<u64> {
    code(rules.iter().rev().map(|(is_allowed, rule)| (*is_allowed, rule)))
}

/// The first rule that fits holds. The program finds in register 1 what is asked (`bpf_cgroup_dev_ctx`): kind and access in
/// one word, major, minor.
fn code<'a>(rules: impl Iterator<Item = (bool, &'a Rule)>) -> Vec<u64> {
    let mut code = vec![
        load(2, 0),
        operate(MOVE, 3, 2),
        with(AND, 2, 0xffff),
        with(SHIFT_RIGHT, 3, 16),
        load(4, 4),
        load(5, 8),
    ];
    for (is_allowed, rule) in rules {
        let kind = match rule.kind {
            Kind::Block => 1,
            Kind::Character => 2,
        };
        // What must not be asked for if it is to be allowed, or what must be if it is to be denied.
        let (mask, past) = if is_allowed {
            (!rule.access.0 & (MAKE | READ | WRITE), unless_equal(0, 0, 2))
        } else {
            (rule.access.0, if_equal(0, 0, 2))
        };
        // Each test that fails goes on behind the rule; so many instructions are left after it.
        let mut tests: Vec<Vec<(u8, u32)>> = vec![vec![(2, kind)]];
        tests.extend(rule.major.map(|major| vec![(4, major)]));
        tests.extend(rule.minor.map(|minor| vec![(5, minor)]));
        let tests: Vec<(u8, u32)> = tests.concat();
        let length = tests.len() + 3 + 2;
        for (at, (register, value)) in tests.iter().enumerate() {
            code.push(unless_equal(*register, *value, length - at - 1));
        }
        code.extend([operate(MOVE, 0, 3), with(AND, 0, mask), past]);
        code.extend([with(SET, 0, u32::from(is_allowed)), EXIT]);
    }
    code.extend([with(SET, 0, 0), EXIT]);
    code
}

/// 64-bit operations with a register or a number.
const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const LOAD_WORD: u8 = 0x61;
const UNLESS_EQUAL: u8 = 0x55;
const IF_EQUAL: u8 = 0x15;
const EXIT: u64 = 0x95;

fn operate(code: u8, to: u8, from: u8) -> u64 {
    u64::from(code) | u64::from(to) << 8 | u64::from(from) << 12
}

fn with(code: u8, register: u8, value: u32) -> u64 {
    u64::from(code) | u64::from(register) << 8 | u64::from(value) << 32
}

fn load(register: u8, offset: u64) -> u64 {
    operate(LOAD_WORD, register, 1) | offset << 16
}

fn if_equal(register: u8, value: u32, over: usize) -> u64 {
    with(IF_EQUAL, register, value) | u64::try_from(over).unwrap_or_default() << 16
}

fn unless_equal(register: u8, value: u32, over: usize) -> u64 {
    with(UNLESS_EQUAL, register, value) | u64::try_from(over).unwrap_or_default() << 16
}

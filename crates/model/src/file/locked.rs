//! What is wrong with a `stead.lock` that is not as we wrote it: all of it, each with its place, as with `stead.yaml`.

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::error::Category;

use super::leaf::network::{ADDRESS, ADDRESS6, MAC};
use super::leaf::{Leaf, Numbers, TextForm, Wrong};
use super::problem::{BOTH_SIDES, Problem, Span, is_merge_mark, quote};
use super::shape::{Form, Key, Shape, plain};
use super::{structure, yaml};

/// The same table as that of `stead.yaml`, for the few keys of this one.
const LOCK: Shape = &[Form::Keys(&[&[
    plain("version", &[Form::Leaf(Leaf::Form(VERSION))]),
    plain("networks", &[Form::Map(Leaf::Name, &[Form::Keys(&[NETWORK])])]),
    plain("machines", &[Form::Map(Leaf::Name, &[Form::Map(Leaf::Name, &[Form::Keys(&[NIC])])])]),
]])];

const NETWORK: &[Key] = &[
    plain("subnet", &[Form::Leaf(Leaf::Form(SUBNET)), Form::Nothing]),
    plain("subnet6", &[Form::Leaf(Leaf::Form(SUBNET6)), Form::Nothing]),
];

const NIC: &[Key] = &[
    plain("mac", &[Form::Leaf(Leaf::Form(MAC)), Form::Nothing]),
    plain("address", &[Form::Leaf(Leaf::Form(ADDRESS)), Form::Nothing]),
    plain("address6", &[Form::Leaf(Leaf::Form(ADDRESS6)), Form::Nothing]),
];

const fn form(check: fn(&str) -> Result<(), Wrong>) -> TextForm {
    TextForm { check, pattern: &[], numbers: Numbers::No }
}

const VERSION: &TextForm =
    &form(|text| match text {
        "1" => Ok(()),
        _ => Err(Wrong::found(format!("{} is no version that this program reads", quote(text)))
            .hint("write `\"1\"`")),
    });
const SUBNET: &TextForm = &form(|text| subnet(text.parse::<Ipv4Net>().is_ok(), text, "10.0.5.0/24"));
const SUBNET6: &TextForm = &form(|text| subnet(text.parse::<Ipv6Net>().is_ok(), text, "fd00:5::/64"));

fn subnet(is_one: bool, text: &str, example: &str) -> Result<(), Wrong> {
    if is_one {
        return Ok(());
    }
    Err(Wrong::found(format!("{} is not a network", quote(text)))
        .hint(format!("a network is written like `{example}`")))
}

/// What to do where nothing can be mended by hand.
const ANEW: &str =
    "restore it from version control, or let `stead up --relock` choose subnets and addresses anew";

/// All that is wrong with a text that `error` was said of.
pub(crate) fn problems(text: &str, error: &serde_json::Error) -> Vec<Problem> {
    let sides = sides(text);
    if !sides.is_empty() {
        return sides;
    }
    let mut problems = Vec::new();
    if error.classify() == Category::Data
        && let Ok(tree) = yaml::parse(text, &mut problems)
    {
        structure::check(&tree, LOCK, "", &mut problems);
    }
    if problems.is_empty() {
        return vec![broken(text, error)];
    }
    let anew = |problem: Problem| {
        let hint = problem.hint.trim_end_matches('?');
        let hint = format!(
            "{hint}{} `stead up --relock` chooses anew",
            if hint == problem.hint { ";" } else { "?" }
        );
        problem.hinting(hint)
    };
    problems.into_iter().map(anew).collect()
}

/// The lines with which git tells apart the sides of a merge.
fn sides(text: &str) -> Vec<Problem> {
    let marked = text.lines().enumerate().filter(|(_, line)| is_merge_mark(line));
    marked
        .map(|(index, line)| {
            let span = Span { line: index + 1, column: 1, chars: line.chars().count() };
            Problem::found(span, "", line, BOTH_SIDES)
                .hint("keep one of them, or let `stead up --relock` choose subnets and addresses anew")
        })
        .collect()
}

/// What is no JSON, or not what we can say more of.
fn broken(text: &str, error: &serde_json::Error) -> Problem {
    let said = error.to_string();
    // It ends in its place, which is said in the same form as always; twice, where a part of it was read by itself.
    let said = said.split(" at line ").next().unwrap_or_default();
    if error.is_eof() {
        let (index, last) =
            text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).last().unwrap_or_default();
        let what = last.trim();
        let before = last.chars().count() - last.trim_start().chars().count();
        let span = Span { line: index + 1, column: before + 1, chars: what.chars().count() };
        let message =
            if what.is_empty() { "there is nothing in it" } else { "it ends after this, in the middle" };
        return Problem::found(span, "", what, message).hint(ANEW);
    }
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    // Its columns are bytes.
    let start = line.floor_char_boundary(error.column().saturating_sub(1));
    let (before, rest) = line.split_at(start);
    let end = rest
        .find([',', ' ', '}', ']'])
        .unwrap_or(rest.len())
        .max(rest.chars().next().map_or(0, char::len_utf8));
    let what = rest.get(..end).unwrap_or_default();
    let span =
        Span { line: error.line().max(1), column: before.chars().count() + 1, chars: what.chars().count() };
    Problem::found(span, "", what, format!("not JSON as stead writes it: {said}")).hint(ANEW)
}

//! Single values: whatever the parser takes for one the schema takes, too, quoted or not.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::string::string_regex;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value as Json;

use super::super::leaf::Leaf;
use super::laws::{accepts, each_shape, plain};
use crate::file::published;
use crate::file::shape::{self, Form, Shape};

/// What a text may get within: white space of several kinds, signs, a zero, another letter.
const ODD: [&str; 16] =
    [" ", "\t", "\n", "\r", "\u{a0}", "\u{2003}", ".", "-", "+", ":", "/", ",", "=", "0", "K", "é"];

/// Texts that look like such values.
fn alike(leaf: Leaf) -> String {
    match leaf {
        Leaf::Name => "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?".to_owned(),
        Leaf::Choice(words) => words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join("|"),
        Leaf::Whole { .. } => "[0-9]{1,5}".to_owned(),
        Leaf::Flag => "[tT](rue|RUE)|[fF](alse|ALSE)".to_owned(),
        Leaf::Only { word, .. } => word.to_owned(),
        Leaf::Text => "[ -~]{1,9}".to_owned(),
        Leaf::Form(form) => form.pattern.concat(),
    }
}

#[test]
fn what_the_parser_takes_for_a_value_the_schema_takes_whatever_is_put_into_it() {
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    each_shape("", shape::ROOT, &mut |_, shape| {
        shapes.insert(published::shape(shape).to_string(), shape);
    });
    let mut taken = 0;
    let mut wrong = Vec::new();
    for (schema, shape) in shapes {
        let Some(Form::Leaf(leaf)) = shape.iter().find(|form| matches!(form, Form::Leaf(_))) else {
            continue;
        };
        let schema: Json = serde_json::from_str(&schema).unwrap();
        let texts = (string_regex(&alike(*leaf)).unwrap(), any::<Index>(), 0..ODD.len(), 0..4);
        let mut runner =
            TestRunner::new(Config { cases: 128, failure_persistence: None, ..Config::default() });
        let agree = |(text, at, odd, how): (String, Index, usize, i32)| {
            let chars: Vec<char> = text.chars().collect();
            let (before, after) = chars.split_at(at.index(chars.len() + 1));
            let (before, after) = (before.iter().collect::<String>(), after.iter().collect::<String>());
            let text = match how {
                0 => text,
                1 => text.to_uppercase(),
                2 => format!("{before}{}{after}", ODD[odd]),
                _ => format!("{before}{}{}", ODD[odd], after.chars().skip(1).collect::<String>()),
            };
            if leaf.check(&text).is_ok() {
                taken += 1;
                prop_assert!(accepts(&schema, &Json::from(text.as_str())), "{text:?} in quotes: {schema}");
                prop_assert!(accepts(&schema, &plain(&text)), "{text:?}: {schema}");
            }
            Ok(())
        };
        let counted = std::cell::RefCell::new(agree);
        wrong.extend(
            runner.run(&texts, |text| (counted.borrow_mut())(text)).err().map(|error| error.to_string()),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken > 1000, "only {taken} texts were values: the test shows little");
}

//! The kinds of single value that the file holds: how each is read, and what is said when it cannot be.

pub(crate) mod container;
pub(crate) mod dev;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod quantity;
pub(crate) mod vm;

use std::fmt::Display;

use super::problem::{Problem, Span, nearest, quote};
use crate::name::{Alias, Name, NameError};

/// Why a text is not what it should be, and what to do about it.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// The first half of one, which is of no use alone.
#[derive(Debug)]
#[must_use]
pub(crate) struct Unfit(String);

impl Wrong {
    pub(crate) fn found(message: impl Into<String>) -> Unfit {
        Unfit(message.into())
    }

    pub(crate) fn at(self, span: Span, path: &str, text: &str) -> Problem {
        Problem::found(span, path, text, self.message).hint(self.hint)
    }
}

impl Unfit {
    pub(crate) fn hint(self, hint: impl Into<String>) -> Wrong {
        Wrong { message: self.0, hint: hint.into() }
    }
}

/// A kind of single value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leaf {
    Name,
    /// One of these words, each with what it means.
    Choice(&'static [(&'static str, &'static str)]),
    Whole {
        min: u16,
        max: u16,
    },
    Flag,
    /// This word, which is what holds anyway; anything else cannot be honoured.
    Only {
        word: &'static str,
        hint: &'static str,
    },
    /// A line.
    Text,
    /// A text of this form.
    Form(&'static TextForm),
}

/// A form of text: what reads it, and what editors can know of it.
#[derive(Debug)]
pub(crate) struct TextForm {
    pub(crate) check: fn(&str) -> Result<(), Wrong>,
    /// A regular expression in parts; it may take more than `check` does, never less. What it can say it does.
    pub(crate) pattern: &'static [&'static str],
    pub(crate) numbers: Numbers,
}

/// Which numbers without quotes are such a text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    No,
    Whole(i64, i64),
    /// Those from this on.
    From(i64),
    /// Zero, and those from the first to the last.
    ZeroOr(i64, i64),
    /// All, and `true` and `false`, for they are text here.
    AndFlags,
}

impl Leaf {
    /// Whether `text` is such a value.
    pub(crate) fn check(self, text: &str) -> Result<(), Wrong> {
        match self {
            Self::Name => name(text).map(drop),
            Self::Choice(words) => choice(text, words),
            Self::Whole { min, max } => whole(text, min, max).map(drop),
            Self::Flag => flag(text).map(drop),
            Self::Only { word, .. } if text == word => Ok(()),
            Self::Only { hint, .. } => {
                Err(Wrong::found(format!("{} cannot be honoured", quote(text))).hint(hint))
            }
            Self::Text => plain_text(text).map(drop),
            Self::Form(form) => (form.check)(text),
        }
    }
}

pub(crate) fn name(text: &str) -> Result<Name, Wrong> {
    text.parse().map_err(|error| {
        let wrong = Wrong::found(format!("{} is not a name: {error}", quote(text)));
        match (lawful_name(text), error) {
            (Some(name), _) => wrong.hint(format!("write `{name}`")),
            (None, NameError::Reserved) => {
                wrong.hint(format!("take another, like `my-{text}`: this one means something else here"))
            }
            (None, _) => wrong.hint("a name is written like `web-1`: letters, digits and `-`"),
        }
    })
}

/// One more name of a machine, which may have parts with `.` between.
pub(crate) const ALIAS: &TextForm = &TextForm {
    check: |text| alias(text).map(drop),
    pattern: &["[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)*"],
    numbers: Numbers::No,
};

pub(crate) fn alias(text: &str) -> Result<Alias, Wrong> {
    if !text.contains('.') {
        return name(text).map(Alias::from);
    }
    text.parse().map_err(|error| {
        let wrong = Wrong::found(format!("{} is not a name: {error}", quote(text)));
        wrong.hint("an alias is written like `www` or `www.shop.example`: letters, digits, `-` and `.`")
    })
}

/// The name that is nearest to a text: lower case, `-` for what may not stand in a name.
pub(crate) fn lawful_name(text: &str) -> Option<Name> {
    let lawful = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.chars().take(crate::name::NAME_MAX_CHARS).map(lawful).collect();
    name.trim_matches('-').parse().ok()
}

fn choice(text: &str, words: &[(&str, &str)]) -> Result<(), Wrong> {
    if words.iter().any(|(word, _)| *word == text) {
        return Ok(());
    }
    let listed: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let wrong = Wrong::found(format!("{} is not {}", quote(text), listed.join(" or ")));
    // YAML 1.1 habits: `yes` for `on` where on and off are to choose from.
    let meant = match text.to_lowercase().as_str() {
        "true" | "yes" => Some("on"),
        "false" | "no" => Some("off"),
        _ => None,
    };
    let meant = meant.filter(|meant| words.iter().any(|(word, _)| word == meant));
    match meant.or_else(|| nearest(text, words.iter().map(|(word, _)| *word))) {
        Some(word) => Err(wrong.hint(format!("write `{word}`"))),
        None => {
            let meant: Vec<String> =
                words.iter().map(|(word, meaning)| format!("`{word}`: {meaning}")).collect();
            Err(wrong.hint(meant.join(" | ")))
        }
    }
}

/// How many there are to be of a machine.
pub(crate) fn replicas(text: &str) -> Result<u16, Wrong> {
    whole(text, 0, 100)
}

pub(crate) fn whole(text: &str, min: u16, max: u16) -> Result<u16, Wrong> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(number) if digits && (min..=max).contains(&number) => Ok(number),
        _ => Err(Wrong::found(format!("{} is not a whole number from {min} to {max}", quote(text)))
            .hint(nearest_number(text, min, max))),
    }
}

/// What to write instead of what is no whole number within these bounds.
pub(crate) fn nearest_number<T: Display + PartialOrd>(text: &str, min: T, max: T) -> String {
    match text.trim().parse::<f64>() {
        // Only which side it is on matters.
        Ok(number) if min.to_string().parse().is_ok_and(|min: f64| number < min) => {
            format!("write `{min}` or more")
        }
        Ok(number) if max.to_string().parse().is_ok_and(|max: f64| number > max) => {
            format!("write `{max}` or less")
        }
        Ok(_) | Err(_) => "write it in digits, without a fraction and a unit".to_owned(),
    }
}

pub(crate) fn flag(text: &str) -> Result<bool, Wrong> {
    match text {
        // As YAML's core schema has them.
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => {
            let wrong = Wrong::found(format!("{} is not `true` or `false`", quote(text)));
            Err(match text.to_lowercase().as_str() {
                "yes" | "on" | "y" | "1" => wrong.hint("write `true`"),
                "no" | "off" | "n" | "0" => wrong.hint("write `false`"),
                _ => wrong.hint("write one of these two words, without quotes"),
            })
        }
    }
}

/// What fits a DHCP option with its length byte.
pub(crate) const TEXT_MAX_BYTES: usize = 255;

pub(crate) fn plain_text(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > TEXT_MAX_BYTES || text.chars().any(char::is_control) {
        let message = format!("{} is not a line of 1 to {TEXT_MAX_BYTES} bytes", quote(text));
        return Err(Wrong::found(message).hint("write a shorter text in one line, or leave the key out"));
    }
    Ok(text.to_owned())
}

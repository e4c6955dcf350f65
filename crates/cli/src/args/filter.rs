//! `ps --filter`: which machines are listed, by what they are.

use std::str::FromStr;

/// A condition on machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// How it fares, in one word.
    Status(String),
    /// Its name, with `*` for any text.
    Name(String),
    /// It has this label, with this value if one is said.
    Label(String, Option<String>),
    /// What it is made of: an image's name, or the beginning of its digest.
    Ancestor(String),
}

/// The words for how a machine fares.
pub(crate) const STATUS: [&str; 9] =
    ["created", "running", "paused", "restarting", "stopping", "exited", "killed", "external", "no-answer"];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("status", word)) if STATUS.contains(&word) => Ok(Self::Status(word.to_owned())),
            Some(("status", word)) => {
                Err(format!("`{}` is none of: {}", word.escape_debug(), STATUS.join(", ")))
            }
            Some(("name", name)) => Ok(Self::Name(name.to_owned())),
            Some(("ancestor", image)) => Ok(Self::Ancestor(image.to_owned())),
            Some(("label", label)) => Ok(match label.split_once('=') {
                None => Self::Label(label.to_owned(), None),
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
            }),
            Some(_) | None => {
                Err("write `status=WORD`, `name=NAME`, `label=NAME[=VALUE]` or `ancestor=IMAGE`".to_owned())
            }
        }
    }
}

/// Whether a machine is listed: of the filters of each kind, one has to hold.
pub(crate) fn holds(filters: &[Filter], is_so: impl Fn(&Filter) -> bool) -> bool {
    let same = |one: &Filter, other: &Filter| std::mem::discriminant(one) == std::mem::discriminant(other);
    filters.iter().all(|one| filters.iter().any(|other| same(one, other) && is_so(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_of_each_kind_one_has_to_hold() {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Filter>>();
        let is_so = |filter: &Filter| {
            matches!(filter, Filter::Status(word) if word == "running")
                || *filter == Filter::Label("a".into(), Some("b=c".into()))
        };
        assert!(holds(&[], is_so));
        assert!(holds(&read(&["status=exited", "status=running", "label=a=b=c"]), is_so));
        assert!(!holds(&read(&["status=running", "label=a"]), is_so));
        assert!(!holds(&read(&["status=running", "name=web"]), is_so));
        for text in ["", "status", "status=up", "image=x", "running"] {
            text.parse::<Filter>().unwrap_err();
        }
    }
}

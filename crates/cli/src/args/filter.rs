//! `--filter`: which machines, or events, are listed, by what they are.

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
    /// How well it is, in one word.
    Health(String),
    /// A network that it is on.
    Network(String),
    /// A volume that it uses, or a place where something is mounted in it.
    Volume(String),
    /// With this exit code it ended.
    Exited(u8),
    /// Its project.
    Project(String),
}

/// The words for how well a machine is.
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

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
            Some(("health", word)) if HEALTH.contains(&word) => Ok(Self::Health(word.to_owned())),
            Some(("health", word)) => {
                Err(format!("`{}` is none of: {}", word.escape_debug(), HEALTH.join(", ")))
            }
            Some(("network", name)) => Ok(Self::Network(name.to_owned())),
            Some(("volume", name)) => Ok(Self::Volume(name.to_owned())),
            Some(("project", name)) => Ok(Self::Project(name.to_owned())),
            Some(("exited", code)) => code
                .parse()
                .map(Self::Exited)
                .map_err(|_| format!("`{}` is no exit code", code.escape_debug())),
            Some(("name", name)) => Ok(Self::Name(name.to_owned())),
            Some(("ancestor", image)) => Ok(Self::Ancestor(image.to_owned())),
            Some(("label", label)) => Ok(match label.split_once('=') {
                None => Self::Label(label.to_owned(), None),
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
            }),
            Some(_) | None => {
                Err("write `status=WORD`, `health=WORD`, `exited=CODE`, `name=NAME`, `project=NAME`, \
                     `label=NAME[=VALUE]`, `ancestor=IMAGE`, `network=NAME` or `volume=NAME`"
                    .to_owned())
            }
        }
    }
}

/// A condition on events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventFilter {
    /// The kind of thing that it happened to.
    Type(String),
    /// What happened.
    Event(String),
    /// The name of the thing, with `*` for any text.
    Name(String),
    /// The thing's project.
    Project(String),
}

const TYPES: [&str; 3] = ["machine", "network", "volume"];
const EVENTS: [&str; 15] = [
    "create",
    "start",
    "die",
    "oom",
    "health",
    "kill",
    "pause",
    "unpause",
    "stop",
    "snapshot",
    "restore",
    "rename",
    "exec",
    "rm",
    "rm-failed",
];

impl FromStr for EventFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one_of = |word: &str, words: &[&str]| {
            if words.contains(&word) {
                Ok(word.to_owned())
            } else {
                Err(format!("`{}` is none of: {}", word.escape_debug(), words.join(", ")))
            }
        };
        match text.split_once('=') {
            Some(("type", word)) => one_of(word, &TYPES).map(Self::Type),
            Some(("event", word)) => one_of(word, &EVENTS).map(Self::Event),
            Some(("name" | "machine", name)) => Ok(Self::Name(name.to_owned())),
            Some(("project", name)) => Ok(Self::Project(name.to_owned())),
            Some(_) | None => {
                Err("write `type=WORD`, `event=WORD`, `name=NAME` or `project=NAME`".to_owned())
            }
        }
    }
}

/// Whether something is listed: of the filters of each kind, one has to hold.
pub(crate) fn holds<F>(filters: &[F], is_so: impl Fn(&F) -> bool) -> bool {
    let same = |one: &F, other: &F| std::mem::discriminant(one) == std::mem::discriminant(other);
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
        read(&["health=none", "network=lan", "volume=data", "exited=3", "project=shop"]);
        for text in ["health=ill", "exited=many", "event=die"] {
            text.parse::<Filter>().unwrap_err();
        }
        for text in ["event=fall", "type=x", "status=running", ""] {
            text.parse::<EventFilter>().unwrap_err();
        }
        for text in ["", "status", "status=up", "image=x", "running"] {
            text.parse::<Filter>().unwrap_err();
        }
    }
}

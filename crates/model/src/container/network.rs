//! In whose network a container is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// In whose network a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// In one of its own, with its nics.
    #[default]
    Own,
    /// In this computer's.
    Host,
    /// In that of another machine of its project, which has one of its own.
    Machine(Name),
}

impl NetworkMode {
    /// Whether it is its own.
    pub fn is_own(&self) -> bool {
        *self == Self::Own
    }

    /// The other machine, if it is another's.
    pub fn other(&self) -> Option<&Name> {
        match self {
            Self::Own | Self::Host => None,
            Self::Machine(name) => Some(name),
        }
    }

    /// What a file says of one that is not its own.
    pub fn word(&self) -> Option<String> {
        (!self.is_own()).then(|| self.to_string())
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("own"),
            Self::Host => f.write_str("host"),
            Self::Machine(name) => write!(f, "machine:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Container;

    #[test]
    fn the_mode_is_on_record_and_records_without_it_are_read() {
        let mut container = Container::new("web".parse().expect("a reference"));
        let text = serde_json::to_string(&container).expect("it has a JSON form");
        assert!(!text.contains("\"network\""), "{text}");
        assert_eq!(serde_json::from_str::<Container>(&text).expect("it reads back"), container);
        for mode in [NetworkMode::Host, NetworkMode::Machine("vpn".parse().expect("a name"))] {
            container.network = mode;
            let text = serde_json::to_string(&container).expect("it has a JSON form");
            assert_eq!(serde_json::from_str::<Container>(&text).expect("it reads back"), container);
        }
    }
}

//! Signals, by the names that everybody uses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signal, by its number on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(u8);

/// This text is not a [`Signal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalError(String);

/// The numbers of x86, arm and all others that Linux came to later.
const SIGNALS: [(&str, u8); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// `SIGRTMIN` and `SIGRTMAX` as the C library counts them: it keeps two for itself.
const REAL_TIME: std::ops::RangeInclusive<u8> = 34..=64;

impl Signal {
    /// The one that asks to end.
    pub const TERM: Self = Self(15);
    /// The one that ends.
    pub const KILL: Self = Self(9);
    /// The one that tells systemd to end the system: `SIGRTMIN+3`.
    pub const HALT: Self = Self(37);
    /// The one that tells busybox' init to power the system off.
    pub const USR2: Self = Self(12);

    /// Its number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        let real_time = || {
            if let Some(rest) = name.strip_prefix("RTMIN") {
                let more: u8 = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
                return REAL_TIME.start().checked_add(more);
            }
            let rest = name.strip_prefix("RTMAX")?;
            let less: u8 = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse().ok()? };
            REAL_TIME.end().checked_sub(less)
        };
        let number = named.or_else(|| name.parse().ok()).or_else(real_time);
        let is_lawful = |number: &u8| (1..=31).contains(number) || REAL_TIME.contains(number);
        number.filter(is_lawful).map(Self).ok_or_else(|| SignalError(text.to_owned()))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRTMIN+{}", self.0.saturating_sub(*REAL_TIME.start())),
        }
    }
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no signal, such as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`", self.0.escape_debug())
    }
}

impl std::error::Error for SignalError {}

impl TryFrom<String> for Signal {
    type Error = SignalError;

    fn try_from(text: String) -> Result<Self, SignalError> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_any_usual_form() {
        for (text, expected) in [
            ("SIGTERM", "SIGTERM"),
            ("term", "SIGTERM"),
            ("15", "SIGTERM"),
            ("SIGRTMIN+3", "SIGRTMIN+3"),
            ("RTMAX", "SIGRTMIN+30"),
            ("37", "SIGRTMIN+3"),
            ("RTMIN", "SIGRTMIN+0"),
        ] {
            let signal = text.parse::<Signal>().unwrap();
            assert_eq!(signal.to_string(), expected);
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
        for text in ["", "0", "32", "65", "SIGFOO", "RTMIN+31", "-9"] {
            text.parse::<Signal>().unwrap_err();
        }
    }
}

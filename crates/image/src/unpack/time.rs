//! Points in time as archives write them: seconds since 1970 with decimals.

use rustix::fs::Timespec;

/// A point in time; the nanoseconds go forward from the second, also before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time {
    pub(super) seconds: i64,
    /// Below 1,000,000,000.
    pub(super) nanoseconds: u32,
}

impl Time {
    /// Reads `-1.5` and the like. Decimals after the ninth are cut.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = whole.strip_prefix('-').unwrap_or(whole);
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if digits.is_empty() || !is_number(digits) || !is_number(decimals) {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        let nanoseconds: u32 = format!("{decimals:0<9}").get(..9)?.parse().ok()?;
        if whole.starts_with('-') && nanoseconds > 0 {
            Some(Self { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds })
        } else {
            Some(Self { seconds, nanoseconds })
        }
    }

    /// As [`Time::parse`] reads it.
    pub(super) fn render(self) -> String {
        let (sign, seconds, nanoseconds) = match (self.seconds, self.nanoseconds) {
            (seconds, 0) => return seconds.to_string(),
            (seconds @ ..0, nanoseconds) => ("-", -(seconds + 1), 1_000_000_000 - nanoseconds),
            (seconds, nanoseconds) => ("", seconds, nanoseconds),
        };
        format!("{sign}{seconds}.{nanoseconds:09}").trim_end_matches('0').to_owned()
    }

    /// For the kernel.
    pub(super) fn timespec(self) -> Timespec {
        Timespec { tv_sec: self.seconds, tv_nsec: self.nanoseconds.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_alike() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1700000000.123456789", 1_700_000_000, 123_456_789),
            ("1.5", 1, 500_000_000),
            ("-1", -1, 0),
            ("-1.5", -2, 500_000_000),
            ("-0.25", -1, 750_000_000),
        ] {
            let time = Time { seconds, nanoseconds };
            assert_eq!(Time::parse(text.as_bytes()), Some(time), "{text}");
            assert_eq!(time.render(), text);
        }
        assert_eq!(Time::parse(b"1.1234567899"), Some(Time { seconds: 1, nanoseconds: 123_456_789 }));
        for wrong in ["", "-", ".5", "1e3", "+1", "1.x", "9223372036854775808", "--1"] {
            assert_eq!(Time::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

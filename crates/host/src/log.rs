//! The form of machines' logs, for those who write and those who read them: `<time> <stream> <F or P> <bytes>`
//! a line, where `F` is a whole line of the machine's and `P` a piece of one. Files are numbered upwards.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Which stream something came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Output = 0,
    /// Standard error.
    Error = 1,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Output => "stdout",
            Self::Error => "stderr",
        })
    }
}

/// A line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it came: a time that sorts as text does.
    pub time: &'a str,
    /// By which stream.
    pub stream: Stream,
    /// Whether the machine ended its line here.
    pub is_whole: bool,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Reads a line, without the end that ours have; nothing if it is none of ours.
pub fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Output,
        b"stderr" => Stream::Error,
        _ => return None,
    };
    let is_whole = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Line { time, stream, is_whole, bytes: parts.next()? })
}

/// What a file of a log is called.
pub fn file_name(number: u64) -> String {
    format!("{number:010}")
}

/// The numbers of the files in a log's directory, in order.
pub fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers: Vec<u64> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A time as text: RFC 3339 in UTC with nanoseconds, which sorts as times do.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// The date so many days after the first of 1970. Years are taken to begin in March, so that the day that is
/// added every four years is their last one.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // From the first of March of the year 0.
    let days = days + 719_468;
    let (era, of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: u64, expected: &str) {
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 7);
        assert_eq!(timestamp(time), format!("{expected}.000000007Z"));
    }

    #[test]
    fn times_are_written_as_date_does() {
        check(0, "1970-01-01T00:00:00");
        check(951_782_400, "2000-02-29T00:00:00");
        check(1_709_251_199, "2024-02-29T23:59:59");
        check(1_709_251_200, "2024-03-01T00:00:00");
        check(1_795_248_000, "2026-11-21T08:00:00");
        check(4_107_542_400, "2100-03-01T00:00:00");
    }

    #[test]
    fn lines_are_read_whatever_is_in_them() {
        let line = parse_line(b"2026 stderr P a b  \xff").unwrap();
        assert_eq!((line.time, line.stream, line.is_whole), ("2026", Stream::Error, false));
        assert_eq!(line.bytes, b"a b  \xff");
        assert_eq!(parse_line(b"2026 stdout F ").unwrap().bytes, b"");
        for bad in [&b""[..], b"2026", b"2026 stdin F x", b"2026 stdout X x", b"2026 stdout F"] {
            assert_eq!(parse_line(bad), None);
        }
    }
}

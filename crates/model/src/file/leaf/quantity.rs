//! How much and how long: sizes in memory, processors, times, numbers.

use std::fmt::Display;
use std::str::FromStr;

use super::{Numbers, TextForm, Wrong, nearest_number};
use crate::container::Limits;
use crate::file::problem::quote;

/// `512m`, `1.5GiB`, or bytes.
pub(crate) const BYTES: &TextForm =
    &TextForm { check: |text| bytes(text).map(drop), pattern: &[SIZE], numbers: Numbers::Whole(0, i64::MAX) };
/// The same, or `-1` for no limit.
pub(crate) const BYTES_OR_ALL: &TextForm = &TextForm {
    check: |text| bytes_or_all(text).map(drop),
    pattern: &["-1|", SIZE],
    numbers: Numbers::Whole(-1, i64::MAX),
};
/// A size that a file of a log can have.
pub(crate) const LOG_BYTES: &TextForm = &TextForm {
    check: |text| log_bytes(text).map(drop),
    pattern: &[SIZE],
    numbers: Numbers::Whole(LOG_BYTES_MIN.cast_signed(), i64::MAX),
};
/// A size that a volume can have.
pub(crate) const VOLUME_SIZE: &TextForm = &TextForm {
    check: |text| volume_bytes(text).map(drop),
    pattern: &[SOME],
    numbers: Numbers::Whole(1, i64::MAX),
};
/// So much a second.
pub(crate) const BYTE_RATE: &TextForm = &TextForm {
    check: |text| byte_rate(text).map(drop),
    pattern: &[SOME],
    numbers: Numbers::Whole(1, i64::MAX),
};
/// So often a second.
pub(crate) const RATE: &TextForm = &TextForm {
    check: |text| rate(text).map(drop),
    pattern: &["0*[1-9][0-9]{0,9}"],
    numbers: Numbers::Whole(1, RATE_MAX as i64),
};
/// `1m30s`, `500ms`.
pub(crate) const TIME: &TextForm = &TextForm {
    check: |text| time_ms(text).map(drop),
    pattern: &["([0-9]+([.][0-9]*)?(us|ms|s|m|h|d))+|0"],
    numbers: Numbers::Whole(0, 0),
};
/// `0.5`.
pub(crate) const CPUS: &TextForm = &TextForm {
    check: |text| cpus_milli(text).map(drop),
    pattern: &["[0-9]+([.][0-9]*)?|[.][0-9]+"],
    numbers: Numbers::From(0),
};
/// `0755`, `0o755`.
pub(crate) const FILE_MODE: &TextForm =
    &TextForm { check: |text| file_mode(text).map(drop), pattern: &[MODE], numbers: Numbers::Whole(0, 7777) };
pub(crate) const OWNER_ID: &TextForm = &TextForm {
    check: |text| owner_id(text).map(drop),
    pattern: &[ID],
    numbers: Numbers::Whole(0, OWNER_ID_MAX as i64),
};
pub(crate) const OOM_SCORE: &TextForm = &TextForm {
    check: |text| oom_score(text).map(drop),
    pattern: &["-?0*(1000|[0-9]{1,3})"],
    numbers: Numbers::Whole(-1000, 1000),
};
pub(crate) const CPU_SHARES: &TextForm = &TextForm {
    check: |text| cpu_shares(text).map(drop),
    pattern: &[
        "0*([02-9]|[1-9][0-9]{1,4}|1[0-9]{5}|2([0-5][0-9]{4}|6([01][0-9]{3}|2(0[0-9]{2}|1([0-3][0-9]|4[0-4])))))",
    ],
    numbers: Numbers::ZeroOr(2, 262_144),
};
pub(crate) const ULIMIT: &TextForm = &TextForm {
    check: |text| ulimit(text).map(drop),
    pattern: &["-1|unlimited|[0-9]+"],
    numbers: Numbers::From(-1),
};
/// A number of things, or `-1` for no limit.
pub(crate) const COUNT_OR_ALL: &TextForm = &TextForm {
    check: |text| count_or_all(text).map(drop),
    pattern: &["-1|[0-9]+"],
    numbers: Numbers::Whole(-1, i64::MAX),
};

pub(crate) const SIZE: &str = "[0-9]+([.][0-9]*)? *([kKmMgGtTpP][iI]?)?[bB]?";
/// A size that is not 0.
const SOME: &str = "([0-9]*[1-9][0-9]*([.][0-9]*)?|0+[.][0-9]*[1-9][0-9]*) *([kKmMgGtTpP][iI]?)?[bB]?";
/// The kernel's own bound.
const RATE_MAX: u64 = u32::MAX as u64;
pub(crate) const MODE: &str = "(0o)?0*[0-7]{1,4}";
pub(crate) const ID: &str = "0*([0-9]{1,9}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6}|4294[0-8][0-9]{5}\
                             |42949[0-5][0-9]{4}|429496[0-6][0-9]{3}|4294967[01][0-9]{2}|42949672[0-8][0-9]|429496729[0-4])";
/// The next one stands for nobody.
const OWNER_ID_MAX: u32 = u32::MAX - 1;

/// A whole number within these bounds.
pub(crate) fn integer<T>(text: &str, min: T, max: T) -> Result<T, Wrong>
where
    T: FromStr + PartialOrd + Display + Copy,
{
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<T>() {
        Ok(number) if plain && number >= min && number <= max => Ok(number),
        _ => Err(Wrong::found(format!("{} is not a whole number from {min} to {max}", quote(text)))
            .hint(nearest_number(text, min, max))),
    }
}

pub(crate) fn oom_score(text: &str) -> Result<i16, Wrong> {
    integer(text, -1000, 1000)
}

/// The bounds are the kernel's; 0 means the usual part, as in Docker.
pub(crate) fn cpu_shares(text: &str) -> Result<Option<u64>, Wrong> {
    match integer(text, 0, 262_144)? {
        0 => Ok(None),
        1 => Err(Wrong::found("`1` is less than the least part of processors, 2")
            .hint("write `2` or more; `1024` is the usual part")),
        shares => Ok(Some(shares)),
    }
}

/// `-1` and 0 mean no limit, as in Docker.
pub(crate) fn count_or_all(text: &str) -> Result<Option<u64>, Wrong> {
    if text == "-1" {
        return Ok(None);
    }
    integer(text, 0, i64::MAX.unsigned_abs()).map(|count| Some(count).filter(|count| *count > 0))
}

/// A limit of a process, `-1` for none.
pub(crate) fn ulimit(text: &str) -> Result<u64, Wrong> {
    if matches!(text, "-1" | "unlimited") { Ok(u64::MAX) } else { integer(text, 0, u64::MAX) }
}

/// Less does not hold a line.
const LOG_BYTES_MIN: u64 = 1024;

pub(crate) fn log_bytes(text: &str) -> Result<u64, Wrong> {
    match bytes(text)? {
        bytes if bytes >= LOG_BYTES_MIN => Ok(bytes),
        _ => Err(Wrong::found(format!("{} does not hold a line", quote(text))).hint("write `1k` or more")),
    }
}

/// The units of sizes, each 1024 of the one before.
const UNITS: &str = "kmgtp";

pub(crate) fn bytes(text: &str) -> Result<u64, Wrong> {
    let form = || {
        Wrong::found(format!("{} is not a size", quote(text)))
            .hint("a size is written like `512m`, `1.5g`, or `1048576` for bytes")
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    let letter = unit.strip_suffix('b').unwrap_or(&unit);
    let letter = letter.strip_suffix('i').filter(|rest| !rest.is_empty()).unwrap_or(letter);
    let shift = match letter {
        "" => 0,
        letter if letter.len() == 1 => UNITS.find(letter).ok_or_else(form)? + 1,
        _ => return Err(form()),
    };
    let factor = 1_u64 << (10 * shift);
    scaled(number, factor).filter(|bytes| *bytes <= i64::MAX.unsigned_abs()).ok_or_else(form)
}

/// The blocks of every file system that limits volumes divide it.
const VOLUME_STEP_BYTES: u64 = 64 << 10;

pub(crate) fn volume_bytes(text: &str) -> Result<u64, Wrong> {
    match bytes(text)? {
        0 => Err(Wrong::found(format!("{} leaves no room at all", quote(text)))
            .hint("leave it out, and there is no limit")),
        // A number of a file system's blocks, and no larger than what it can count.
        bytes => Ok(bytes.div_ceil(VOLUME_STEP_BYTES).min(i64::MAX.unsigned_abs() / VOLUME_STEP_BYTES)
            * VOLUME_STEP_BYTES),
    }
}

/// The kernel takes 0 for no limit in one version of its cgroups, and refuses it in the other.
pub(crate) fn byte_rate(text: &str) -> Result<u64, Wrong> {
    match bytes(text)? {
        0 => Err(Wrong::found(format!("{} a second is nothing at all", quote(text)))
            .hint("leave it out, and there is no limit")),
        rate => Ok(rate),
    }
}

pub(crate) fn rate(text: &str) -> Result<u64, Wrong> {
    integer(text, 1, RATE_MAX)
}

/// `-1` and 0 mean no limit, as in Docker.
pub(crate) fn bytes_or_all(text: &str) -> Result<Option<u64>, Wrong> {
    if text == "-1" { Ok(None) } else { bytes(text).map(|bytes| Some(bytes).filter(|bytes| *bytes > 0)) }
}

/// Memory and swap together: `-1` is all that there is; nothing, as if it were not said, is the usual.
pub(crate) fn swap_bytes(text: &str) -> Result<Option<u64>, Wrong> {
    if text == "-1" { Ok(Some(Limits::ALL_SWAP)) } else { bytes_or_all(text) }
}

/// `number`, which may have a fraction, times `factor`; what is less than one is cut off.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let mut part = u128::from(factor) * 1_000_000_000;
    for digit in fraction.bytes().take(9) {
        part /= 10;
        let more = part * u128::from(digit - b'0') / 1_000_000_000;
        total = total.checked_add(u64::try_from(more).ok()?)?;
    }
    Some(total)
}

/// The kernel counts a processor in parts of 100 ms and none below 1 ms; 0 means no limit, as in Docker.
pub(crate) fn cpus_milli(text: &str) -> Result<Option<u32>, Wrong> {
    let form = || {
        Wrong::found(format!("{} is not a number of processors", quote(text)))
            .hint("it is written like `0.5`, `2` or `1.25`, and at least `0.01`")
    };
    if !text.contains(|c: char| c.is_ascii_digit()) {
        return Err(form());
    }
    let padded = if text.starts_with('.') { format!("0{text}") } else { text.to_owned() };
    let milli = scaled(&padded, 1000).ok_or_else(form)?;
    match u32::try_from(milli).map_err(|_| form())? {
        0 if padded.bytes().all(|byte| matches!(byte, b'0' | b'.')) => Ok(None),
        milli if milli < 10 => Err(form()),
        milli => Ok(Some(milli)),
    }
}

/// Longer waits are mistakes, and their sums stay far from what a number holds.
const TIME_MAX_MS: u64 = 366 * 86_400_000;

/// A time as Go writes it, which Compose took over, and days: `1h30m`, `1.5s`, `500ms`.
pub(crate) fn time_ms(text: &str) -> Result<u64, Wrong> {
    let form = || {
        let wrong = Wrong::found(format!("{} is not a time", quote(text)));
        match text.parse::<u32>() {
            Ok(number) => wrong.hint(format!("with its unit: `{number}ms`, `{number}s` or `{number}m`")),
            Err(_) => wrong.hint("a time is written like `90s`, `1m30s` or `500ms`, and is at most `366d`"),
        }
    };
    if text == "0" {
        return Ok(0);
    }
    let mut total_us: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(form)?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit_us = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return Err(form()),
        };
        let more = scaled(number, unit_us).ok_or_else(form)?;
        total_us = total_us.checked_add(more).ok_or_else(form)?;
        rest = tail;
    }
    let total_ms = total_us.div_ceil(1000);
    if text.is_empty() || total_ms > TIME_MAX_MS { Err(form()) } else { Ok(total_ms) }
}

/// Permission bits, always octal.
pub(crate) fn file_mode(text: &str) -> Result<u32, Wrong> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if octal && mode <= 0o7777 => Ok(mode),
        _ => Err(Wrong::found(format!("{} is not a file mode", quote(text)))
            .hint("a mode is octal, like `0755` or `1777`")),
    }
}

/// The id of a user or group.
pub(crate) fn owner_id(text: &str) -> Result<u32, Wrong> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse::<u32>().ok().filter(|id| digits && *id <= OWNER_ID_MAX);
    id.ok_or_else(|| {
        Wrong::found(format!("{} is not the id of a user or group", quote(text)))
            .hint(format!("write a whole number from 0 to {OWNER_ID_MAX}; names mean nothing here"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_the_swap_there_is_is_not_the_same_as_nothing_said() {
        assert_eq!(swap_bytes("-1").unwrap(), Some(Limits::ALL_SWAP));
        assert_eq!(swap_bytes("0").unwrap(), None);
        assert_eq!(swap_bytes("1k").unwrap(), Some(1024));
    }

    #[test]
    fn sizes_are_read_as_docker_does() {
        for (text, expected) in [
            ("0", 0),
            ("2b", 2),
            ("1048576", 1 << 20),
            ("512m", 512 << 20),
            ("512MB", 512 << 20),
            ("1 GiB", 1 << 30),
            ("1.5g", 3 << 29),
            ("0.1k", 102),
            ("2T", 2 << 40),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1x",
            "1mm",
            "1.2.3",
            "99999999p",
            "1ib",
            "0x10",
            "1\tm",
            "1\u{a0}m",
            " 1m",
            "1m ",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_of_volumes_are_whole_blocks_of_every_file_system() {
        for (text, expected) in
            [("1", 64 << 10), ("64k", 64 << 10), ("65537", 128 << 10), ("10GiB", 10 << 30)]
        {
            assert_eq!(volume_bytes(text).unwrap(), expected, "{text}");
        }
        assert_eq!(volume_bytes(&i64::MAX.to_string()).unwrap() % (64 << 10), 0);
        for text in ["0", "0g", "-1", ""] {
            assert!(volume_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_some() {
        assert_eq!(byte_rate("1mb").unwrap(), 1 << 20);
        assert_eq!(rate("4294967295").unwrap(), u64::from(u32::MAX));
        for text in ["0", "0k", "-1", ""] {
            assert!(byte_rate(text).is_err(), "{text}");
        }
        for text in ["0", "4294967296", "1k", "-1", ""] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_compose_does() {
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("10ms500us", 11),
            ("2d", 172_800_000),
        ] {
            assert_eq!(time_ms(text).unwrap(), expected, "{text}");
        }
        for text in ["", "5", "s", "1y", "1s2", "-1s", "367d", "1..5s", "99999999999999999999s"] {
            assert!(time_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_are_thousandths() {
        for (text, expected) in [
            ("0", None),
            ("0.0", None),
            ("2", Some(2000)),
            ("0.5", Some(500)),
            (".25", Some(250)),
            ("1.0005", Some(1000)),
        ] {
            assert_eq!(cpus_milli(text).unwrap(), expected, "{text}");
        }
        for text in ["", ".", "-1", "0.001", "1e3", "99999999"] {
            assert!(cpus_milli(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_octal_however_they_are_written() {
        for text in ["755", "0755", "0o755"] {
            assert_eq!(file_mode(text).unwrap(), 0o755);
        }
        for text in ["", "8", "rwx", "17777", "0o", "+7"] {
            assert!(file_mode(text).is_err(), "{text}");
        }
    }
}

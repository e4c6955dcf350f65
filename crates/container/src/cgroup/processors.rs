//! Sets of processors, `0-2,4`, as the kernel writes them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Which of these a cgroup below this one cannot be given, and those that it can, as the kernel writes them; `None` if
/// it can have them all.
pub(super) fn lacking(wanted: &str, base: &Path) -> Option<(String, String)> {
    let files = ["cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"].map(|file| base.join(file));
    let online = Path::new("/sys/devices/system/cpu/online").to_owned();
    let mut texts = files.into_iter().chain([online]).filter_map(|path| fs::read_to_string(path).ok());
    let there = texts.find(|text| !text.trim().is_empty())?;
    let there = there.trim();
    let lacking: BTreeSet<u16> = numbers(wanted).difference(&numbers(there)).copied().collect();
    (!lacking.is_empty()).then(|| (render(&lacking), there.to_owned()))
}

/// How many processors this computer has now, if it says.
pub(super) fn count() -> Option<u32> {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    u32::try_from(numbers(online.trim()).len()).ok().filter(|count| *count > 0)
}

fn numbers(set: &str) -> BTreeSet<u16> {
    let mut all = BTreeSet::new();
    for part in set.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            all.extend(first..=last);
        }
    }
    all
}

fn render(numbers: &BTreeSet<u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let texts = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_are_not_there_are_named() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("cpuset.cpus"), "0-7\n").unwrap();
        fs::write(base.path().join("cpuset.effective_cpus"), "0-1,4\n").unwrap();
        for (wanted, expected) in
            [("0", None), ("0-1,4", None), ("0-99", Some("2-3,5-99")), ("1,3,65535", Some("3,65535"))]
        {
            let said = lacking(wanted, base.path());
            let expected = expected.map(|expected| (expected.to_owned(), "0-1,4".to_owned()));
            assert_eq!(said, expected, "{wanted}");
        }
    }

    #[test]
    fn a_cgroup_that_does_not_say_has_those_of_the_computer() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("cpuset.cpus"), "\n").unwrap();
        assert_eq!(lacking("0", base.path()), None);
        assert_eq!(lacking("65535", base.path()).unwrap().0, "65535");
    }
}

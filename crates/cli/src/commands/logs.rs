//! `logs`: what machines wrote.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;

use stead_host::log::{Line, Stream, file_name, numbers, parse_line, timestamp};
use stead_host::machine::{Files, HeldFiles};
use stead_model::name::MachineId;

use crate::args::{Format, Global, LogsArgs, Tail};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::look;

/// Between looks for new lines: fast enough to look live, slow enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Prints the logs of machines.
pub(crate) fn logs(global: &Global, args: &LogsArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let global = &global.with_files(&args.file);
    let ids = super::machines::chosen(global, &args.machines, &mut host)?;
    let now = SystemTime::now();
    let printer = Printer {
        format: output.format,
        width: (ids.len() > 1).then(|| ids.iter().map(|id| id.name.as_str().len()).max().unwrap_or(0)),
        timestamps: args.timestamps,
        since: args.since.as_deref().map(|text| moment(text, now)).transpose()?,
        until: args.until.as_deref().map(|text| moment(text, now)).transpose()?,
    };
    let mut readers: Vec<Reader> =
        ids.iter().map(|id| Reader::new(id.clone(), &Files::new(host.home(), id))).collect();
    let mut written: Vec<Written> = Vec::new();
    for reader in &mut readers {
        let mut lines = VecDeque::new();
        reader.read(&mut |id, line| {
            lines.extend(printer.print(id, line)?);
            // A piece of a line counts with what ends it.
            if matches!(args.tail, Some(Tail::Lines(most)) if lines.len() > most) {
                lines.pop_front();
            }
            Ok(())
        })?;
        written.extend(lines);
    }
    // Machines' lines in the order in which they came; each machine's own order stays.
    written.sort_by(|a, b| a.time.cmp(&b.time));
    written.iter().try_for_each(Written::write)?;
    while args.follow && !readers.is_empty() {
        std::thread::sleep(LOOK_EVERY);
        // Asked first: what a machine that has ended wrote last is read after that.
        let lives = readers.iter().map(Reader::lives).collect::<Result<Vec<bool>>>()?;
        for reader in &mut readers {
            let mut lines = Vec::new();
            reader.read(&mut |id, line| {
                lines.extend(printer.print(id, line)?);
                Ok(())
            })?;
            lines.iter().try_for_each(Written::write)?;
        }
        let mut lives = lives.into_iter();
        readers.retain(|_| lives.next().unwrap_or(false));
    }
    Ok(())
}

/// A line as it is printed.
struct Written {
    time: String,
    stream: Stream,
    text: Vec<u8>,
}

impl Written {
    fn write(&self) -> Result<()> {
        let written = match self.stream {
            Stream::Output => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&self.text).and_then(|()| stdout.flush())
            }
            Stream::Error => std::io::stderr().lock().write_all(&self.text),
        };
        match written {
            // Whoever read has enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            result => result.context("cannot write the log"),
        }
    }
}

/// How lines are printed.
struct Printer {
    format: Format,
    /// How wide names are, where there are several machines.
    width: Option<usize>,
    timestamps: bool,
    since: Option<String>,
    until: Option<String>,
}

impl Printer {
    fn print(&self, id: &MachineId, line: Line<'_>) -> Result<Option<Written>> {
        // With its `Z` a time would be later than the same as it was said.
        let time = without_zone(line.time);
        let is_early = self.since.as_deref().is_some_and(|since| time < without_zone(since));
        let is_late = self.until.as_deref().is_some_and(|until| time > without_zone(until));
        if is_early || is_late {
            return Ok(None);
        }
        let time = line.time.to_owned();
        if self.format == Format::Json {
            let text = json(id, &line)?.into_bytes();
            // For programs there is one stream, and a line says which it came by.
            return Ok(Some(Written { time, stream: Stream::Output, text }));
        }
        let mut text = Vec::new();
        if let Some(width) = self.width {
            let name = id.name.as_str();
            text.extend(format!("{name:width$} | ").into_bytes());
        }
        if self.timestamps {
            text.extend(format!("{} ", line.time).into_bytes());
        }
        text.extend_from_slice(line.bytes);
        if line.is_whole || self.width.is_some() || self.timestamps {
            text.push(b'\n');
        }
        Ok(Some(Written { time, stream: line.stream, text }))
    }
}

/// A line of a log as `--format json` has it: one of the output, too.
#[derive(Serialize)]
struct Said<'a> {
    machine: String,
    time: &'a str,
    stream: String,
    /// What is no text in it is replaced.
    text: std::borrow::Cow<'a, str>,
    /// Whether the machine ended its line here; else the next one goes on.
    whole: bool,
}

fn json(id: &MachineId, line: &Line<'_>) -> Result<String> {
    let said = Said {
        machine: id.to_string(),
        time: line.time,
        stream: line.stream.to_string(),
        text: String::from_utf8_lossy(line.bytes),
        whole: line.is_whole,
    };
    Ok(serde_json::to_string(&said).context("cannot write JSON")? + "\n")
}

/// A machine's log, read as it grows.
struct Reader {
    id: MachineId,
    files: HeldFiles,
    /// The file that is read, and how far.
    number: u64,
    offset: u64,
    /// What has no end of line yet.
    rest: Vec<u8>,
}

impl Reader {
    /// It goes on with the same machine, also when that gets another name.
    fn new(id: MachineId, files: &Files) -> Self {
        Self { id, files: files.hold_all(), number: 0, offset: 0, rest: Vec::new() }
    }

    fn lives(&self) -> Result<bool> {
        Ok(self.files.keeper()?.is_some())
    }

    /// Reads what is new.
    fn read(&mut self, on_line: &mut dyn FnMut(&MachineId, Line<'_>) -> Result<()>) -> Result<()> {
        let directory = self.files.log();
        let doing = || format!("cannot read the log in {}", directory.display());
        for number in numbers(&directory).with_context(doing)? {
            if number < self.number {
                continue;
            }
            if number > self.number {
                (self.number, self.offset) = (number, 0);
                self.rest.clear();
            }
            let mut file = match File::open(directory.join(file_name(number))) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.with_context(doing)?,
            };
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(self.offset)).with_context(doing)?;
            let read = file.read_to_end(&mut self.rest).with_context(doing)?;
            self.offset += read as u64;
            let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let rest = self.rest.split_off(end);
            let whole = std::mem::replace(&mut self.rest, rest);
            for line in whole.split(|byte| *byte == b'\n').filter_map(parse_line) {
                on_line(&self.id, line)?;
            }
        }
        Ok(())
    }
}

fn without_zone(time: &str) -> &str {
    time.trim_end_matches('Z')
}

/// A moment in the form of the log's times: `2026-11-21T08:00:00Z` or a part of it, so long ago (`90s`, `10m`), or the
/// seconds since 1970.
pub(super) fn moment(text: &str, now: SystemTime) -> Result<String, Failure> {
    if let Some(ago) = ago(text) {
        return Ok(timestamp(now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)));
    }
    if let Some(seconds) = since_1970(text) {
        return Ok(timestamp(SystemTime::UNIX_EPOCH.checked_add(seconds).unwrap_or(now)));
    }
    let utc = ["Z", "+00:00", "-00:00"].iter().find_map(|suffix| text.strip_suffix(suffix)).unwrap_or(text);
    if is_date(utc) {
        return Ok(utc.to_owned());
    }
    let what = format!("`{text}` is no moment");
    Err(Failure::request(&what, "write `10m` (ten minutes ago) or `2026-11-21T08:00:00Z` (in UTC)"))
}

/// Seconds, of more digits than a year has; also with a fraction, as `date +%s.%N` has it.
fn since_1970(text: &str) -> Option<Duration> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = (5..=12).contains(&seconds.len()) && fraction.len() <= 9;
    if !fits || !is_number(seconds) || !is_number(fraction) {
        return None;
    }
    Some(Duration::new(seconds.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
}

/// Whether this is a date, or the beginning of one: of `2026-11-21T08:00:00.123`.
fn is_date(text: &str) -> bool {
    const FIELDS: [(usize, u32, u32); 5] = [(5, 1, 12), (8, 1, 31), (11, 0, 23), (14, 0, 59), (17, 0, 60)];
    let form = "dddd-dd-ddTdd:dd:dd.ddddddddd".bytes();
    let is_formed = text.len() <= form.len()
        && text
            .bytes()
            .zip(form)
            .all(|(byte, form)| if form == b'd' { byte.is_ascii_digit() } else { byte == form });
    let is_whole = matches!(text.len(), 4 | 7 | 10 | 13 | 16 | 19 | 21..);
    let is_right = |(at, least, most): &(usize, u32, u32)| {
        let field = text.get(*at..at + 2).and_then(|field| field.parse().ok());
        field.is_none_or(|number: u32| (*least..=*most).contains(&number))
    };
    is_formed && is_whole && FIELDS.iter().all(is_right)
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_programs_says_all_that_is_on_record() {
        let id: MachineId = "web.shop".parse().unwrap();
        let of = |text: &[u8]| json(&id, &stead_host::log::parse_line(text).unwrap()).unwrap();
        assert_eq!(
            of(b"2026-11-21T08:00:00.5Z stderr F a \"b\"\x1b[2J \xff"),
            "{\"machine\":\"web.shop\",\"time\":\"2026-11-21T08:00:00.5Z\",\"stream\":\"stderr\",\
             \"text\":\"a \\\"b\\\"\\u001b[2J \u{fffd}\",\"whole\":true}\n"
        );
        assert!(
            of(b"2026-11-21T08:00:00Z stdout P piece").ends_with("\"text\":\"piece\",\"whole\":false}\n")
        );
    }

    #[test]
    fn moments_are_dates_or_so_long_ago() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_248_000);
        assert_eq!(moment("10m", now).unwrap(), "2026-11-21T07:50:00.000000000Z");
        assert_eq!(moment("2d", now).unwrap(), "2026-11-19T08:00:00.000000000Z");
        assert_eq!(moment("2026-11-21T08:00:00Z", now).unwrap(), "2026-11-21T08:00:00");
        assert_eq!(moment("2026-11", now).unwrap(), "2026-11");
        assert_eq!(moment("2026-11-21T08:00:00.5+00:00", now).unwrap(), "2026-11-21T08:00:00.5");
        assert_eq!(moment("1795248000", now).unwrap(), "2026-11-21T08:00:00.000000000Z");
        assert_eq!(moment("1795248000.25", now).unwrap(), "2026-11-21T08:00:00.250000000Z");
        let no_moments = [
            "yesterday",
            "m",
            "----",
            "2026-99-99",
            "2026-1",
            "2026-11-21T24",
            "12:00",
            "2026-11-21T08:00+02:00",
        ];
        for text in no_moments {
            moment(text, now).unwrap_err();
        }
    }
}

//! `events`: what happens to machines, networks and volumes.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use stead_host::journal::{Event, Journal, Kind};
use stead_host::log::timestamp;
use stead_model::name::{MachineId, Name};
use stead_model::observed::Observed;

use super::logs::moment;
use crate::args::{EventFilter, EventsArgs, Format, Global, holds};
use crate::failure::Failure;
use crate::output::{Output, printable};
use crate::session::look;

/// Between looks for new events: fast enough to look live, slow enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Between looks for machines whose keepers were killed, which nobody else tells of: each is asked for.
const NOTICE_EVERY: Duration = Duration::from_secs(1);

/// Prints events as they come.
pub(crate) fn events(global: &Global, args: &EventsArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let now = SystemTime::now();
    let since = args.since.as_deref().map(|text| moment(text, now)).transpose()?;
    let until = args.until.as_deref().map(|text| moment(text, now)).transpose()?;
    let seen = host.observe()?;
    let is_of_all = args.all && global.project_name.is_none();
    let here = if is_of_all { None } else { super::here::project_here(global, &args.machines, &seen)? };
    let mut reader = Journal::new(host.home()).reader();
    if since.is_none() && until.is_none() && !args.no_stream {
        reader.skip()?;
    }
    let is_wanted = |event: &Event| {
        since.as_deref().is_none_or(|since| event.time.as_str() >= since)
            && until.as_deref().is_none_or(|until| event.time.trim_end_matches('Z') <= until)
            && is_meant(event, &args.machines, (here.as_ref(), &seen))
            && may_be_meant(global, event, &args.machines)
            && holds(&args.filter, |filter| is_so(filter, event))
    };
    let mut noticed = Instant::now();
    // What nobody has written down yet happened before now, too. What cannot be written does not keep from reading.
    let _unknown = host.note_deaths();
    loop {
        if noticed.elapsed() >= NOTICE_EVERY {
            noticed = Instant::now();
            let _unknown = host.note_deaths();
        }
        // Asked first: what came until then is read after that.
        let is_over =
            args.no_stream || until.as_deref().is_some_and(|until| *timestamp(SystemTime::now()) > *until);
        for event in reader.read()?.iter().filter(|event| is_wanted(event)) {
            if !write(&line(event, output.format)?)? {
                return Ok(());
            }
        }
        if is_over {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether an event is of what was named; without names, of the project here, or of all where there is none.
fn is_meant(event: &Event, patterns: &[String], (here, seen): (Option<&Name>, &Observed)) -> bool {
    let (name, project) = event.name.rsplit_once('.').unwrap_or((&event.name, ""));
    if patterns.is_empty() {
        return here.is_none_or(|here| here.as_str() == project);
    }
    let is_machine =
        |id: &MachineId| patterns.iter().any(|pattern| super::ps::means(pattern, id, here, seen));
    event.kind == Kind::Machine && format!("{name}.{project}").parse().is_ok_and(|id| is_machine(&id))
}

/// Whether the project that the command line names, if it does, leaves anything of what was named to the event's.
fn may_be_meant(global: &Global, event: &Event, patterns: &[String]) -> bool {
    let project = event.name.rsplit_once('.').and_then(|(_, project)| project.parse::<Name>().ok());
    let may = |project: &Name| patterns.iter().any(|pattern| global.may_mean(pattern, project));
    patterns.is_empty() || project.is_none_or(|project| may(&project))
}

fn is_so(filter: &EventFilter, event: &Event) -> bool {
    match filter {
        EventFilter::Type(kind) => word(&event.kind) == *kind,
        EventFilter::Event(action) => word(&event.action) == *action,
        EventFilter::Name(pattern) => super::ps::matches(pattern, &event.name),
        EventFilter::Project(project) => {
            event.name.rsplit_once('.').is_some_and(|(_, of)| super::ps::matches(project, of))
        }
    }
}

/// What something is called in the journal.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// An event as it is printed: for programs each is a line of its own.
fn line(event: &Event, format: Format) -> Result<String> {
    match format {
        Format::Json => Ok(serde_json::to_string(event).context("cannot write JSON")? + "\n"),
        Format::Text => {
            let more: String =
                event.attributes.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            let text =
                format!("{} {} {} {}{more}", event.time, word(&event.kind), word(&event.action), event.name);
            Ok(printable(&text).replace('\n', " ") + "\n")
        }
    }
}

/// Whether somebody is left to read more.
fn write(text: &str) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("cannot write the events"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use stead_host::journal::Action;
    use stead_model::observed::HostFacts;

    #[test]
    fn events_are_chosen_by_what_they_are_of() {
        let id: MachineId = "web.shop".parse().unwrap();
        let event = Event::of_machine(&id, Action::Die).with("exit_code", 3);
        let (shop, blog): (Name, Name) = ("shop".parse().unwrap(), "blog".parse().unwrap());
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let seen = Observed::nothing(HostFacts::default());
        let is_meant = |event: &Event, line: &str, here| is_meant(event, &words(line), (here, &seen));
        assert!(is_meant(&event, "", Some(&shop)) && is_meant(&event, "", None));
        assert!(!is_meant(&event, "", Some(&blog)));
        assert!(is_meant(&event, "db w*", Some(&blog)));
        assert!(!is_meant(&event, "db", None));
        // One of several is meant by the name that they have in common, in its project.
        let one = Event::of_machine(&"web-2.shop".parse().unwrap(), Action::Die);
        assert!(is_meant(&one, "web", Some(&shop)) && is_meant(&one, "web.shop", None));
        assert!(!is_meant(&one, "web", Some(&blog)) && !is_meant(&one, "web", None));
        for (filter, expected) in [
            ("type=machine", true),
            ("type=volume", false),
            ("event=die", true),
            ("event=start", false),
            ("name=web.shop", true),
            ("name=*.blog", false),
            ("project=shop", true),
        ] {
            assert_eq!(is_so(&filter.parse().unwrap(), &event), expected, "{filter}");
        }
        let text = line(&event, Format::Text).unwrap();
        assert!(text.ends_with("Z machine die web.shop exit_code=3\n"), "{text}");
    }
}

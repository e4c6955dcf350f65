//! Single values that Compose writes otherwise than we do.

use super::mode::Mode;
use crate::file::leaf::mount::{self, VolumeSource};
use crate::file::leaf::network::{subnet, subnet6};
use crate::file::leaf::port::{port, port_range, published_range};
use crate::file::leaf::quantity::time_ms;
use crate::file::leaf::{self, Numbers, TextForm, Wrong, lawful_name, name};
use crate::file::problem::quote;
use crate::name::{Alias, Name, as_ours};

const fn form(check: fn(&str) -> Result<(), Wrong>) -> TextForm {
    // This table is not published, so nobody asks for patterns.
    TextForm { check, pattern: &[], numbers: Numbers::No }
}

/// The name of a network or a volume.
pub(super) const RESOURCE: &TextForm = &form(|text| resource(text).map(drop));
/// The name of a service.
pub(super) const SERVICE: &TextForm = &form(|text| service(text).map(drop));
/// One more name of it.
pub(super) const ALIAS: &TextForm = &form(|text| alias(text).map(drop));
pub(super) const LINK: &TextForm = &form(link);
/// Processor time of a period, in microseconds; `-1` and `0` are no limit.
pub(super) const QUOTA: &TextForm = &form(|text| microseconds(text).map(drop));
pub(super) const PERIOD: &TextForm = &form(period);
/// Who comes before whom.
pub(super) const PRIORITY: &TextForm = &form(|text| priority(text).map(drop));
pub(super) const NETWORK_MODE: &TextForm = &form(|text| mode(text).map(drop));
pub(super) const PORT: &TextForm =
    &form(|text| ports_of_docker(text).iter().try_for_each(|text| port(text).map(drop)));
pub(super) const PUBLISHED: &TextForm = &form(published);
pub(super) const TARGET_PORT: &TextForm = &form(target_port);
pub(super) const VOLUME: &TextForm = &form(|text| mount::volume(&volume(text)).map(drop));
pub(super) const SOURCE: &TextForm = &form(|text| mount::any_source(&source(text)).map(drop));
pub(super) const SUBNET: &TextForm =
    &form(|text| if text.contains(':') { subnet6(text).map(drop) } else { subnet(text).map(drop) });

/// Compose's names of networks and volumes may hold more than ours; nobody outside of the file uses them.
pub(super) fn resource(text: &str) -> Result<Name, Wrong> {
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let wrong = || Wrong::found(format!("{} is not a name", quote(text)));
    if !text.chars().all(lawful) {
        return Err(wrong().hint("letters, digits, `_`, `.` and `-`"));
    }
    lawful_name(text).ok_or_else(|| {
        wrong().hint("it needs a letter, and must not be a word that means something else here")
    })
}

/// The higher one comes first.
pub(super) fn priority(text: &str) -> Result<i64, Wrong> {
    let wrong = || Wrong::found(format!("{} is not a whole number", quote(text)));
    text.parse().map_err(|_| wrong().hint("the network with the greatest one comes first"))
}

/// The name of a machine for that of a service: the same in lower case, with `-` for `_`. By either it is found, in DNS and
/// on the command line, so it has to be made of that one and no other.
pub(super) fn service(text: &str) -> Result<Name, Wrong> {
    name(&as_ours(text)).map_err(|wrong| match name(text) {
        Err(told) => told,
        Ok(_) => wrong,
    })
}

/// The same of one more name of a service, which may have parts with `.` between.
pub(super) fn alias(text: &str) -> Result<Alias, Wrong> {
    if !text.contains('.') {
        return service(text).map(Alias::from);
    }
    leaf::alias(&as_ours(text))
}

/// A mount's source with a volume's name made ours.
pub(super) fn source(text: &str) -> String {
    if text.starts_with(['.', '/', '~']) || text.contains('/') {
        return text.to_owned();
    }
    resource(text).map_or_else(|_| text.to_owned(), |name| name.to_string())
}

/// The same of a mount in its short form.
pub(super) fn volume(text: &str) -> String {
    match text.split_once(':') {
        Some((from, rest)) => format!("{}:{rest}", source(from)),
        None => text.to_owned(),
    }
}

/// The name of the volume that a mount's source is.
pub(super) fn volume_name(text: &str) -> Option<Name> {
    match mount::any_source(&source(text)).ok()? {
        VolumeSource::Named(name) => Some(name),
        VolumeSource::Own | VolumeSource::Path(_) => None,
    }
}

/// A quota of processor time, or how long its period is; nothing where there is no limit.
pub(super) fn microseconds(text: &str) -> Result<Option<u64>, Wrong> {
    let wrong = || {
        let wrong = Wrong::found(format!("{} is not a time", quote(text)));
        wrong.hint("it is written in microseconds, like `50000`, or like `50ms`")
    };
    if matches!(text, "-1" | "0") {
        return Ok(None);
    }
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let found = if is_number { text.parse().ok() } else { time_ms(text).ok().map(|time| time * 1000) };
    // The kernel's own bounds: a millisecond of it, and more than there are processors.
    found.filter(|time| (1000..=u64::from(u32::MAX)).contains(time)).map(Some).ok_or_else(wrong)
}

/// The kernel's longest period; without one said it is a tenth of a second.
const PERIOD_MAX: u64 = 1_000_000;
pub(super) const PERIOD_USUAL: u64 = 100_000;
/// The least part of a processor that our own `cpus` takes.
pub(super) const CPUS_MIN_MILLI: u64 = 10;

fn period(text: &str) -> Result<(), Wrong> {
    match microseconds(text)? {
        Some(time) if time > PERIOD_MAX => Err(Wrong::found(format!("{} is too long a period", quote(text)))
            .hint("it is at most a second, `1000000`")),
        Some(_) | None => Ok(()),
    }
}

fn link(text: &str) -> Result<(), Wrong> {
    let (to, name) = text.split_once(':').unwrap_or((text, text));
    service(to).map(drop).and(alias(name).map(drop))
}

/// In whose network a service is.
pub(super) fn mode(text: &str) -> Result<Mode, Wrong> {
    match text {
        "none" => return Ok(Mode::Off),
        "host" => return Ok(Mode::Host),
        "bridge" | "default" => return Ok(Mode::Usual),
        _ => {}
    }
    match text.split_once(':') {
        Some(("service", other)) => service(other).map(Mode::Service),
        Some(("container", other)) => alias(other).map(|name| Mode::Container(name.as_str().to_owned())),
        Some(_) | None => Err(Wrong::found(format!("{} cannot be honoured", quote(text))).hint(
            "name `networks` instead; there are `none`, `host`, `service:NAME`, `container:NAME`, and `bridge`, which is the default network",
        )),
    }
}

/// A port in its short form as we write it: where Compose leaves the one of this computer open, ours is `0`, once for
/// each target.
pub fn ports_of_docker(text: &str) -> Vec<String> {
    // An address that is a variable, and not set; protocols are written in capitals as well.
    let text = match text.strip_prefix(':') {
        Some(rest) if rest.matches(':').count() == 1 && !rest.starts_with(':') => rest,
        _ => text,
    };
    let lower = text.to_ascii_lowercase();
    let text = lower.as_str();
    // What is in brackets has colons of its own.
    let end = text.find(']').map_or(0, |end| end + 1);
    let (address, rest) = text.split_at(end);
    let (place, target) = match rest.split_once("::") {
        _ if !text.contains(':') => ("0".to_owned(), text),
        None if text.starts_with(':') && !rest.contains("::") && text.matches(':').count() == 1 => {
            ("0".to_owned(), text.trim_start_matches(':'))
        }
        Some((more, target)) if !text.starts_with("::") && !more.contains(':') => {
            (format!("{address}{more}:0"), target)
        }
        Some(_) | None => return vec![text.to_owned()],
    };
    let (range, protocol) = target.split_at(target.find('/').unwrap_or(target.len()));
    let each = |target: String| format!("{place}:{target}{protocol}");
    targets(range).into_iter().map(each).collect()
}

/// The ports of a range one by one, or what is none as it stands.
pub(super) fn targets(range: &str) -> Vec<String> {
    match port_range(range) {
        Ok(range) => (range.first..=range.last).map(|port| port.to_string()).collect(),
        Err(_) => vec![range.to_owned()],
    }
}

fn published(text: &str) -> Result<(), Wrong> {
    if text.is_empty() { Ok(()) } else { published_range(text).map(drop) }
}

fn target_port(text: &str) -> Result<(), Wrong> {
    let text = text.strip_suffix("/tcp").or_else(|| text.strip_suffix("/udp")).unwrap_or(text);
    port_range(text).map(drop)
}

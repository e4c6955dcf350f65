//! What the runtime logs, in the form in which callers of runc read it.

use std::fmt;
use std::fs::OpenOptions;
use std::sync::Mutex;
use std::time::SystemTime;

use anyhow::Context;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use stead_host::log::timestamp;

use crate::args::oci::{LogFormat, OciGlobal};
use crate::failure::Failure;

/// Logs to the file that was named, else to standard error.
pub(crate) fn start(global: &OciGlobal) -> Result<(), Failure> {
    let filter = EnvFilter::new(if global.debug { "stead=debug,stead_container=debug" } else { "warn" });
    let Some(path) = &global.log else {
        let words = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        words.log_internal_errors(false).init();
        return Ok(());
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.with_context(|| format!("cannot write the log `{}`", path.display()))?;
    let line = Line { is_json: global.log_format == LogFormat::Json };
    let words = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Mutex::new(file));
    words.log_internal_errors(false).event_format(line).init();
    Ok(())
}

struct Line {
    is_json: bool,
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N>
    for Line
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let time = timestamp(SystemTime::now());
        if self.is_json {
            let line = serde_json::json!({"level": level, "msg": message.0, "time": time});
            return writeln!(writer, "{line}");
        }
        writeln!(writer, "time=\"{time}\" level={level} msg={:?}", message.0)
    }
}

//! What is told of the work itself, on standard error.

use std::io::Write;
use std::str::FromStr;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};

use crate::failure::Failure;
use crate::output;

/// The variable that says what is told.
const VARIABLE: &str = "STEAD_LOG";

/// A keeper runs for as long as its machine does, and what it has to say may be the machine's doing: its log ends at
/// so much.
pub(crate) const INTERNAL_MAX_BYTES: usize = 1 << 20;

/// What `STEAD_LOG` asks for; nothing if it is not set.
fn wish() -> Option<String> {
    let text = std::env::var_os(VARIABLE)?.to_string_lossy().into_owned();
    (!text.trim().is_empty()).then_some(text)
}

/// Refuses a `STEAD_LOG` that means nothing.
pub(crate) fn understood() -> Result<(), Failure> {
    let Some(text) = wish() else { return Ok(()) };
    filter(&text).map(drop).map_err(|why| {
        let hint = "it is `error`, `warn`, `info`, `debug`, `trace` or `off`, or such for modules: `warn,stead_net=trace`";
        Failure::request(&format!("{VARIABLE}: {why}"), hint)
    })
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    let words: Vec<&str> = words(text).into_iter().map(str::trim).filter(|word| !word.is_empty()).collect();
    // By itself a word that is no level would be taken for a module's name, and nothing would be told at all.
    let unknown =
        words.iter().find(|word| !word.contains(['=', '[']) && LevelFilter::from_str(word).is_err());
    if let Some(word) = unknown {
        return Err(format!("`{}` is no level", output::printable(word)));
    }
    let directive = |word: &&str| {
        Directive::from_str(word).map_err(|error| format!("`{}`: {error}", output::printable(word)))
    };
    let mut directives = words.iter().map(directive).collect::<Result<Vec<_>, _>>()?.into_iter();
    let first = directives.next().ok_or_else(|| "there is no word in it".to_owned())?;
    // It would take text itself, and separate that at each comma. Of an empty one nothing but this is left.
    let only = EnvFilter::builder().with_default_directive(first).parse_lossy("");
    Ok(directives.fold(only, EnvFilter::add_directive))
}

/// The parts of a wish. A comma between the fields of a span, `stead[up{a,b}]`, separates none.
fn words(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let separates = |c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(separates).collect()
}

/// Logs to standard error what `--debug` or `STEAD_LOG` ask for; warnings always.
pub(crate) fn begin(debug: bool, most_bytes: usize) {
    let filter = wish().and_then(|text| filter(&text).ok()).unwrap_or_else(|| {
        EnvFilter::new(if debug {
            "stead=debug,stead_host=debug,stead_net=debug,stead_keeper=debug"
        } else {
            "warn"
        })
    });
    let writer = Mutex::new(Bounded { left_bytes: most_bytes });
    let words = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(debug);
    let words = words.with_ansi(output::takes_colour(&std::io::stderr()));
    // It would tell of a full disk where it cannot, and a keeper or the switchboard ends with that.
    words.log_internal_errors(false).init();
}

/// Standard error, for so many bytes.
struct Bounded {
    left_bytes: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.left_bytes.checked_sub(bytes.len()) {
            Some(left) => {
                self.left_bytes = left;
                std::io::stderr().write_all(bytes)?;
            }
            None if self.left_bytes > 0 => {
                self.left_bytes = 0;
                std::io::stderr().write_all(b"this log is full: what comes now is not written\n")?;
            }
            None => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_words_are_heeded() {
        let text = filter("stead[{a,b}]=trace,stead_net=debug,warn").unwrap().to_string();
        let mut words = words(&text);
        words.sort_unstable();
        assert_eq!(words, ["stead[{a,b}]=trace", "stead_net=debug", "warn"]);
    }

    #[test]
    fn a_word_that_is_no_level_is_told() {
        for text in [
            "trace",
            "WARN",
            "off",
            "warn,stead_net=trace",
            "stead=debug, info",
            "stead[up]=debug",
            "stead[{a,b}]=debug",
            "warn,stead[up{a=1,b}]=debug,info",
        ] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for (text, why) in [
            ("bogus", "`bogus` is no level"),
            ("info,all", "`all` is no level"),
            ("a=b", "a=b"),
            (",", "no word"),
            ("stead[{a,b}]=debug,all", "`all` is no level"),
        ] {
            let error = filter(text).map(drop).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

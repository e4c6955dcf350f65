//! Project files of any form, with what follows the first NUL as their `.env`: somebody else's repository is read
//! before anyone has read it.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use stead_model::file::{Known, Parsed, Problems, Source, Variables, parse, render, variables};

fuzz_target!(init: stead_fuzz::seeds::plant("project_file"), |bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (file, env) = text.split_once('\0').unwrap_or((&text, ""));
    let nothing = Variables::new();
    let known = variables(".env", env, &nothing);
    if let Some(problems) = &known.problems {
        shown(problems);
    }
    match read(file, &known) {
        Ok(Parsed { project, .. }) => {
            let again = read(&render(&project), &Known::default()).expect("what we write is lawful");
            assert_eq!(again.project, project);
        }
        Err(problems) => shown(&problems),
    }
});

fn read(text: &str, known: &Known) -> Result<Parsed, Problems> {
    let source = Source::new("stead.yaml", text, &known.variables, Path::new("/srv/lab"));
    parse(&Source { unread: &known.unread, ..source })
}

/// What a terminal is given must not drive it, nor fill it.
fn shown(problems: &Problems) {
    let text = problems.to_string();
    assert!(!problems.problems.is_empty());
    assert!(!text.contains(|letter: char| letter.is_control() && letter != '\n'));
    assert!(text.len() < 1 << 20);
}

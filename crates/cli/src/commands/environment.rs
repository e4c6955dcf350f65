//! Environment as a command line gives it: `NAME=value`, `NAME` as it is here, and files with such lines. A value is
//! taken as it stands, in files as well: Docker's files of this kind know no quotes and no variables.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// What files say, and after them the command line, which wins: each `NAME=value`.
pub(super) fn gathered(files: &[PathBuf], texts: &[String]) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for path in files {
        found.extend(lines(path)?);
    }
    found.extend(texts.iter().filter_map(|text| variable(text)));
    Ok(found)
}

/// `NAME=value`; or `NAME`, as it is here, if it is.
fn variable(text: &str) -> Option<String> {
    // No name at all is left for whoever checks names.
    match text.contains('=') || text.is_empty() {
        true => Some(text.to_owned()),
        false => std::env::var(text).ok().map(|value| format!("{text}={value}")),
    }
}

fn lines(path: &Path) -> Result<Vec<String>, Failure> {
    let place = path.display();
    let text = std::fs::read(path).map_err(|error| {
        Failure::request(
            &format!("`--env-file`: cannot read {place}: {error}"),
            "name a file that you can read",
        )
    })?;
    let text = String::from_utf8(text).map_err(|_| {
        Failure::request(&format!("`--env-file`: {place} is no text"), "write lines `NAME=value`")
    })?;
    read(&text).map_err(|(line, why)| {
        Failure::request(&format!("`--env-file`: {place}:{line}: {why}"), "write lines `NAME=value`")
    })
}

/// The variables of a text; or the line that gives none, and why.
fn read(text: &str) -> Result<Vec<String>, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err((index + 1, format!("`{}` cannot name a variable", name.escape_debug())));
        }
        found.extend(variable(line));
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_as_it_stands() {
        let text = "\u{feff}# a comment\n\n  A=$FOO\nP=p$w0rd\r\nQ=\"quoted\" # no comment \nE=\n";
        assert_eq!(read(text).unwrap(), ["A=$FOO", "P=p$w0rd", "Q=\"quoted\" # no comment ", "E="]);
    }

    #[test]
    fn a_name_alone_is_as_it_is_here() {
        let here = std::env::var("PATH").unwrap();
        assert_eq!(read("PATH\nSTEAD_NO_SUCH_VARIABLE").unwrap(), [format!("PATH={here}")]);
        assert_eq!(
            gathered(&[], &["PATH".into(), "A=1".into()]).unwrap(),
            [format!("PATH={here}"), "A=1".into()]
        );
    }

    #[test]
    fn a_line_that_names_nothing_is_told() {
        assert_eq!(read("A=1\nB C=2"), Err((2, "`B C` cannot name a variable".to_owned())));
        assert_eq!(read("=2"), Err((1, "`` cannot name a variable".to_owned())));
    }
}

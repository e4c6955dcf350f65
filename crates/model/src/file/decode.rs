//! Bytes as text. What of a file is not UTF-8 is a problem like any other, and hides none of the others.

use super::problem::{Problem, Problems, Span};

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The text, in which `U+FFFD` stands for what is none.
    pub text: String,
    /// Where that is.
    pub problems: Option<Problems>,
}

/// Takes a file's bytes for text; `hint` is what to do about one that is none.
pub fn decode(file_name: &str, bytes: &[u8], hint: &str) -> Decoded {
    let mut problems = Vec::new();
    let mut text = String::new();
    let mut place = Span { line: 1, column: 1, chars: 1 };
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        let valid = if text.len() == chunk.valid().len() {
            chunk.valid().trim_start_matches('\u{feff}')
        } else {
            chunk.valid()
        };
        place = after(place, valid);
        if !chunk.invalid().is_empty() {
            let bytes: String = chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")).collect();
            let message = format!("`{bytes}` is not UTF-8 text");
            problems.push(Problem::found(place, "", &bytes, message).hint(hint));
            text.push('\u{fffd}');
            place.column += 1;
        }
    }
    let shown = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let problems = (!problems.is_empty()).then(|| Problems::new(file_name, shown, problems));
    Decoded { text, problems }
}

/// The place after a text. A line ends with `\n`, `\r\n` or `\r`.
fn after(from: Span, text: &str) -> Span {
    let mut place = from;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\r' => (place.line, place.column) = (place.line + 1, 1),
            _ => place.column += 1,
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn each_place_that_is_no_text_is_told_with_its_column() {
        let bytes = b"\xef\xbb\xbfname: caf\xe9 b\xc3\xa4r \xff\r\nok: \xc3\xa9\nmachines: { \xe2\x82: 1 }\n";
        let Decoded { text, problems } = decode("stead.yaml", bytes, "save it as UTF-8");
        assert_eq!(text, "\u{feff}name: caf\u{fffd} bär \u{fffd}\r\nok: é\nmachines: { \u{fffd}: 1 }\n");
        expect![[r"
            stead.yaml:1:10: `\xE9` is not UTF-8 text
              1 | name: caf� bär �
                |          ^
              hint: save it as UTF-8

            stead.yaml:1:16: `\xFF` is not UTF-8 text
              1 | name: caf� bär �
                |                ^
              hint: save it as UTF-8

            stead.yaml:3:13: `\xE2\x82` is not UTF-8 text
              3 | machines: { �: 1 }
                |             ^
              hint: save it as UTF-8
        "]]
        .assert_eq(&problems.unwrap().to_string());
        assert_eq!(decode("x", "é\n".as_bytes(), ""), Decoded { text: "é\n".to_owned(), problems: None });
    }

    #[test]
    fn what_comes_of_what_is_no_text_is_not_told_as_well() {
        let found = |bytes: &[u8]| decode("f", bytes, "h").problems.unwrap();
        let other = |line: usize| {
            let problem =
                Problem::found(Span { line, column: 2, chars: 1 }, "", "", format!("on {line}")).hint("h");
            Problems::new("f", "\n\n\n", vec![problem])
        };
        let both = found(b"a\n\xff\n").beside(other(2)).beside(other(1)).beside(other(3));
        let lines: Vec<(usize, &str)> =
            both.problems.iter().map(|problem| (problem.span.line, problem.message.as_str())).collect();
        assert_eq!(lines, [(1, "on 1"), (2, "`\\xFF` is not UTF-8 text"), (3, "on 3")]);
    }
}

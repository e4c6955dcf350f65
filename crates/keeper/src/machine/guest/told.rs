//! What a guest says in words of its own. It may be anybody's: such words are handed on as part of what this program says,
//! and are not to be taken for lines or hints of ours.

use stead_agent::Happening;
use stead_agent::message::{Stage, Word};

/// A reason with a path in it, or two.
const WHY_MAX_CHARS: usize = 1000;

/// A name of a stage is a word.
const STAGE_MAX_CHARS: usize = 32;

/// What happened, with the guest's words as a part of a line.
pub(super) fn tamed(happening: Happening) -> Happening {
    match happening {
        Happening::Word(call, Word::Failed { why, code }) => {
            Happening::Word(call, Word::Failed { why: part(&why), code })
        }
        Happening::Word(call, Word::Stage(Stage { name, at_us })) => {
            let name = part(&name).chars().take(STAGE_MAX_CHARS).collect();
            Happening::Word(call, Word::Stage(Stage { name, at_us }))
        }
        Happening::Broken(call, why) => Happening::Broken(call, part(&why)),
        other => other,
    }
}

/// A text as a part of a line.
pub(super) fn part(text: &str) -> String {
    let plain = |c: char| if is_unseen(c) { ' ' } else { c };
    let mut part: String = text.chars().take(WHY_MAX_CHARS).map(plain).collect();
    if text.chars().nth(WHY_MAX_CHARS).is_some() {
        part.push('…');
    }
    // Errors of ours end in such, which is told on a line of its own.
    part.replace("; hint: ", ", hint: ").trim().to_owned()
}

/// What ends a line, or is obeyed rather than shown: also what turns the direction of writing.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    use stead_agent::Session;
    use stead_agent::message::Request;

    #[test]
    fn all_words_of_its_own_are_tamed() {
        let call = Session::numbered(1).ask(&Request::Sync).unwrap();
        let (why, name) = ("a; hint: b\n".to_owned(), "up\n; hint: x".to_owned());
        let tame = "a, hint: b".to_owned();
        for (said, told) in [
            (
                Happening::Word(call, Word::Failed { why: why.clone(), code: 1 }),
                Happening::Word(call, Word::Failed { why: tame.clone(), code: 1 }),
            ),
            (Happening::Broken(call, why), Happening::Broken(call, tame)),
            (
                Happening::Word(call, Word::Stage(Stage { name, at_us: 1 })),
                Happening::Word(call, Word::Stage(Stage { name: "up , hint: x".to_owned(), at_us: 1 })),
            ),
        ] {
            assert_eq!(tamed(said), told);
        }
    }

    #[test]
    fn what_a_guest_says_is_a_part_of_a_line_and_no_hint() {
        let said =
            "no\r\nerror: all is lost; hint: run this\n;\thint: or this\u{1b}[2J\u{202e}\u{9b}\u{2028}";
        let told = part(said);
        assert_eq!(told, "no  error: all is lost, hint: run this , hint: or this [2J");
        assert_eq!(part(&"ä".repeat(5000)), "ä".repeat(WHY_MAX_CHARS) + "…");
        assert_eq!(part("no such file: `/x`"), "no such file: `/x`");
    }
}

//! The same as JSON, for programs: read from the rendered text, so that both always say the same.

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Value};

use super::{Origins, render_with};
use crate::project::Project;

/// A project as JSON, with the keys of a `stead.yaml`. Texts are what they mean: nothing stands for a variable any more.
pub fn render_json(project: &Project) -> Value {
    render_json_with(project, &Origins::default())
}

/// The same with what the file says of the images of its machines.
pub fn render_json_with(project: &Project, origins: &Origins) -> Value {
    let text = render_with(project, origins);
    let mut parser = Parser::new_from_str(&text);
    while let Some(Ok((event, _))) = parser.next_event() {
        if matches!(event, Event::MappingStart(..)) {
            return mapping(&mut parser);
        }
    }
    Value::Null
}

/// What begins with this event. What we wrote ourselves has neither anchors nor depth.
fn value(event: &Event<'_>, parser: &mut Parser<'_, StrInput<'_>>) -> Value {
    match event {
        Event::Scalar(text, style, ..) => scalar(text, *style),
        Event::MappingStart(..) => mapping(parser),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            while let Some(Ok((event, _))) = parser.next_event() {
                if event == Event::SequenceEnd {
                    break;
                }
                items.push(value(&event, parser));
            }
            Value::Array(items)
        }
        Event::Nothing
        | Event::StreamStart
        | Event::StreamEnd
        | Event::DocumentStart(_)
        | Event::DocumentEnd
        | Event::Alias(_)
        | Event::SequenceEnd
        | Event::MappingEnd => Value::Null,
    }
}

fn mapping(parser: &mut Parser<'_, StrInput<'_>>) -> Value {
    let mut entries = Map::new();
    while let Some(Ok((Event::Scalar(key, ..), _))) = parser.next_event() {
        let Some(Ok((event, _))) = parser.next_event() else { break };
        entries.insert(key.into_owned(), value(&event, parser));
    }
    Value::Object(entries)
}

/// We quote every text; what is plain is a name, a word of ours, a number or a flag.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    let is_plain = style == ScalarStyle::Plain;
    // A dollar sign is doubled for those who fill in variables.
    let as_text = || Value::from(text.replace("$$", "$"));
    match text {
        "true" | "false" if is_plain => Value::from(text == "true"),
        _ if is_plain => text.parse::<i64>().map_or_else(|_| as_text(), Value::from),
        _ => as_text(),
    }
}

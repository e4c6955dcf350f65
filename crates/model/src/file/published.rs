//! What is published about the file, made from [`super::shape`]: the JSON Schema that editors check and
//! complete by, and the reference page.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::leaf::{Leaf, Numbers, TextForm};
use super::shape::{FILE, Form, Key, Keys, ROOT, Shape};
use crate::name::NAME_MAX_CHARS;

/// The JSON Schema (draft 2020-12) of `stead.yaml`, as text. It knows the structure and the form of single values;
/// what values mean together only [`super::parse`] knows.
pub fn schema() -> String {
    let mut root = shape(ROOT);
    let networks = root.pointer_mut("/properties/networks/propertyNames/not/anyOf");
    if let Some(refused) = networks.and_then(Value::as_array_mut) {
        refused.push(json!({ "enum": crate::name::RESERVED_OF_NETWORKS }));
    }
    if let Some(root) = root.as_object_mut() {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("stead.yaml"));
        root.insert("description".to_owned(), json!("Machines of every kind on one network, from one file."));
        // As in Compose: for anchors, and for other programs.
        root.insert("patternProperties".to_owned(), json!({ "^x-": {} }));
    }
    let mut text = serde_json::to_string_pretty(&root).unwrap_or_default();
    text.push('\n');
    text
}

/// The schema of what may stand at a place.
pub(crate) fn shape(forms: Shape) -> Value {
    any_of(forms.iter().map(form).collect())
}

fn form(form: &Form) -> Value {
    match form {
        Form::Leaf(leaf) => value(*leaf),
        Form::List(items) => json!({ "type": ["array", "null"], "items": shape(items) }),
        Form::Set(items) => json!({ "type": ["array", "null"], "items": shape(items), "uniqueItems": true }),
        Form::Map(names, of) => json!({
            "type": ["object", "null"],
            "propertyNames": key_names(*names),
            "additionalProperties": shape(of),
        }),
        Form::Nothing => json!({ "type": "null" }),
        Form::Ignored | Form::Inert(_) => json!({}),
        Form::Refused(..) => json!(false),
        Form::Keys(keys) => {
            let properties: Map<String, Value> =
                keys.iter().copied().flatten().map(|key| (key.name.to_owned(), property(key))).collect();
            let required: Vec<&str> =
                keys.iter().copied().flatten().filter(|key| key.required).map(|key| key.name).collect();
            let kinds = if required.is_empty() { json!(["object", "null"]) } else { json!(["object"]) };
            json!({ "type": kinds, "properties": properties, "required": required, "additionalProperties": false })
        }
    }
}

fn property(key: &Key) -> Value {
    let mut schema = shape(key.shape);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), json!(plain(key.doc)));
        if !key.default.is_empty() {
            schema.insert("default".to_owned(), typed(key.default));
        }
    }
    schema
}

/// Editors show descriptions as they are.
fn plain(doc: &str) -> String {
    doc.replace('`', "")
}

/// A default as JSON has it.
fn typed(text: &str) -> Value {
    match text {
        "[default]" => json!(["default"]),
        _ => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    }
}

fn name() -> Value {
    let most = NAME_MAX_CHARS - 2;
    json!({
        "type": "string",
        "pattern": format!("^[a-z0-9]([a-z0-9-]{{0,{most}}}[a-z0-9])?$"),
        "not": { "anyOf": [{ "enum": crate::name::RESERVED }, { "pattern": "^([0-9]+|0x[0-9a-f]*)$" }] },
    })
}

/// Names of mappings have no variables.
fn key_names(leaf: Leaf) -> Value {
    match leaf {
        Leaf::Form(form) => json!({ "pattern": format!("^({})$", form.pattern.concat()) }),
        Leaf::Name | Leaf::Choice(_) | Leaf::Whole { .. } | Leaf::Flag | Leaf::Only { .. } | Leaf::Text => {
            name()
        }
    }
}

/// A text of this pattern, or one with a variable, of which nothing can be said before it is filled in.
fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^({pattern})$|[$]") })
}

fn value(leaf: Leaf) -> Value {
    match leaf {
        Leaf::Name => json!({ "anyOf": [name(), { "enum": [true, false] }, variable()] }),
        Leaf::Choice(words) => {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            json!({ "anyOf": [{ "enum": words }, variable()] })
        }
        Leaf::Whole { min, max } => {
            json!({ "anyOf": [{ "type": "integer", "minimum": min, "maximum": max }, pattern(&digits(min, max))] })
        }
        Leaf::Flag => {
            json!({ "anyOf": [{ "enum": [true, false] }, pattern("true|True|TRUE|false|False|FALSE")] })
        }
        Leaf::Only { word, .. } => json!({ "const": word }),
        Leaf::Text => {
            let most = super::leaf::TEXT_MAX_BYTES;
            let line = format!("[^\\u0000-\\u001f\\u007f-\\u009f]{{1,{most}}}");
            json!({ "anyOf": [{ "type": ["number", "boolean"] }, pattern(&line)] })
        }
        Leaf::Form(form) => {
            let mut schemas = unquoted(form);
            schemas.push(pattern(&form.pattern.concat()));
            any_of(schemas)
        }
    }
}

/// A regular expression of the whole numbers from `min` to `max`, with whatever zeros before them.
fn digits(min: u16, max: u16) -> String {
    let of_length = |length: usize| {
        let low = if length == 1 { 0 } else { 10_u32.pow(u32::try_from(length).unwrap_or_default() - 1) };
        let high = low.max(1) * 10 - 1;
        (low.max(min.into()), if length == 1 { 9 } else { high }.min(max.into()))
    };
    let lengths = 1..=max.to_string().len();
    let ranges = lengths.map(of_length).filter(|(low, high)| low <= high);
    let parts: Vec<String> = ranges.map(|(low, high)| between(&low.to_string(), &high.to_string())).collect();
    format!("0*({})", parts.join("|"))
}

/// The same of texts of one length.
fn between(low: &str, high: &str) -> String {
    let (Some(first), Some(last)) = (low.chars().next(), high.chars().next()) else { return String::new() };
    let (low, high) = (low.get(1..).unwrap_or_default(), high.get(1..).unwrap_or_default());
    let any = || format!("[0-9]{{{}}}", low.len());
    let (lowest, highest) = (low.bytes().all(|byte| byte == b'0'), high.bytes().all(|byte| byte == b'9'));
    if first == last {
        return format!("{first}{}", if lowest && highest { any() } else { between(low, high) });
    }
    let mut parts = Vec::new();
    let (mut from, mut to) = (u32::from(first), u32::from(last));
    if !lowest {
        parts.push(format!("{first}{}", between(low, &"9".repeat(low.len()))));
        from += 1;
    }
    if !highest {
        parts.push(format!("{last}{}", between(&"0".repeat(high.len()), high)));
        to -= 1;
    }
    if let (true, Some(from), Some(to)) = (from <= to, char::from_u32(from), char::from_u32(to)) {
        parts.push(format!("[{from}-{to}]{}", any()));
    }
    format!("({})", parts.join("|"))
}

/// Numbers and flags without quotes that are such a text: to the parser they are the text that stands there.
fn unquoted(form: &TextForm) -> Vec<Value> {
    let is_one = |text: &&str| (form.check)(text).is_ok();
    let has_part = ["1.5", "9999.5"].iter().any(is_one);
    let number = if has_part { "number" } else { "integer" };
    let numbers = match form.numbers {
        Numbers::AndFlags => return vec![json!({ "type": ["number", "boolean"] })],
        Numbers::From(min) => Some(json!({ "type": number, "minimum": min })),
        Numbers::ZeroOr(min, max) => {
            let some = json!({ "type": number, "minimum": min, "maximum": max });
            return vec![json!({ "const": 0 }), some];
        }
        Numbers::Whole(min, max) => Some(json!({ "type": number, "minimum": min, "maximum": max })),
        Numbers::No => ["5", "-1", "1.5"].iter().any(&is_one).then(|| json!({ "type": "number" })),
    };
    let flags: Vec<bool> = [("true", true), ("false", false)]
        .iter()
        .filter(|(text, _)| is_one(text))
        .map(|(_, flag)| *flag)
        .collect();
    let flags = (!flags.is_empty()).then(|| json!({ "enum": flags }));
    numbers.into_iter().chain(flags).collect()
}

/// The one, or any of several.
fn any_of(mut schemas: Vec<Value>) -> Value {
    match (schemas.len(), schemas.pop()) {
        (1, Some(schema)) => schema,
        (_, Some(last)) => {
            schemas.push(last);
            json!({ "anyOf": schemas })
        }
        (_, None) => json!({}),
    }
}

fn variable() -> Value {
    json!({ "type": "string", "pattern": "[$]" })
}

/// The page `docs/stead.yaml.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# stead.yaml\n\n\
         <!-- Made from crates/model/src/file/shape.rs; `UPDATE_EXPECT=1 cargo test -p stead-model file` writes it again. -->\n\n\
         A project is a directory with a `stead.yaml`. Every key is optional unless it says otherwise; nothing under a key\n\
         is as good as an empty list or mapping. Keys of the outermost level that start with `x-` are left alone, which is\n\
         where anchors (`&name`, `*name`, `<<: *name`) can stand.\n\n\
         Values may use variables of the environment and of `.env` beside the file (the environment wins): `$VAR`, `${VAR}`,\n\
         `${VAR:-default}`, `${VAR-default}`, `${VAR:?message}`, `${VAR?message}`, `${VAR:+other}`, `${VAR+other}`, and `$$` for a\n\
         dollar sign. Unlike in Compose, a variable that is not set and has no default is a problem; write `${VAR:-}` for an\n\
         empty text.\n\n\
         A name has `a-z`, `0-9` and `-`, is no number, does not start or end with `-`, and has at most 40 characters.\n",
    );
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let (all, networks) = (quoted(&crate::name::RESERVED), quoted(&crate::name::RESERVED_OF_NETWORKS));
    let _ = writeln!(page, "Reserved: {all}; and for networks {networks}.");
    page.push_str(
        "\nEditors complete and check the file by [stead.schema.json](stead.schema.json): start the file with\n\
         `# yaml-language-server: $schema=` and its path.\n\n\
         ```yaml\n",
    );
    page.push_str(EXAMPLE);
    page.push_str("```\n");
    section(&mut page, "", &[FILE]);
    super::compose::reference(&mut page);
    page
}

/// The example of the reference page, which tests read.
pub(crate) const EXAMPLE: &str = "\
name: shop
networks:
  lan:
    subnet: 10.0.5.0/24
    joins: [back]
  back:
    reach: isolated
machines:
  web:
    image: nginx:1.27
    networks:
      lan: { address: 10.0.5.7, aliases: [www] }
      back: {}
    ports: [\"${WEB_PORT:-8080}:80\"]
    volumes: [\"./site:/usr/share/nginx/html:ro\"]
    depends_on: { db: { condition: service_healthy } }
  db:
    image: postgres:16
    networks: [back]
    environment: { POSTGRES_PASSWORD: \"${DB_PASSWORD:-secret}\" }
    volumes: [\"data:/var/lib/postgresql/data\"]
    healthcheck: { test: pg_isready, interval: 5s }
    restart: on-failure:3
  router:
    kind: vm
    driver: external
    networks: [lan, back]
volumes: [data]
";

fn section(page: &mut String, path: &str, keys: Keys) {
    let title = if path.is_empty() { "The file".to_owned() } else { format!("`{path}`") };
    let _ = write!(page, "\n## {title}\n\n| key | what | default | example |\n|---|---|---|---|\n");
    for key in keys.iter().copied().flatten() {
        let words = key.shape.iter().filter_map(choices).collect::<String>();
        let needed = if key.required { " **Required.**" } else { "" };
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        let _ =
            writeln!(page, "| `{}` | {}{words}{needed} | {default} | `{}` |", key.name, key.doc, key.example);
    }
    for key in keys.iter().copied().flatten() {
        let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        for form in key.shape {
            inner(page, &path, form);
        }
    }
}

fn inner(page: &mut String, path: &str, form: &Form) {
    match form {
        Form::Keys(keys) if keys.iter().any(|group| !group.is_empty()) => section(page, path, keys),
        Form::Map(_, of) => of.iter().for_each(|form| inner(page, &format!("{path}.<name>"), form)),
        Form::List(of) | Form::Set(of) => of.iter().for_each(|form| inner(page, &format!("{path}[]"), form)),
        Form::Keys(_)
        | Form::Leaf(_)
        | Form::Nothing
        | Form::Ignored
        | Form::Inert(_)
        | Form::Refused(..) => {}
    }
}

fn choices(form: &Form) -> Option<String> {
    match form {
        Form::Leaf(Leaf::Choice(words)) => {
            Some(words.iter().map(|(word, doc)| format!("<br>`{word}`: {doc}.")).collect())
        }
        Form::Leaf(_)
        | Form::List(_)
        | Form::Set(_)
        | Form::Keys(_)
        | Form::Map(..)
        | Form::Nothing
        | Form::Ignored
        | Form::Inert(_)
        | Form::Refused(..) => None,
    }
}

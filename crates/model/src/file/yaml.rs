//! YAML text to a tree with places. Scalars stay text: whether `no`, `on` or `010` means something is
//! for the key to say, not for YAML. Anchors, aliases and merge keys are resolved here, within limits.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

use super::cut::{self, Cut};
use super::problem::{Problem, Span, quote};

/// A place in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// `~`, `null` or nothing at all.
    Null,
    /// Its variables could not be filled in, which was reported.
    Unknown,
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key and what stands under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) node: Node,
}

/// A project of a thousand machines takes a tenth of this.
const FILE_MAX_BYTES: usize = 1 << 20;

/// After aliases were replaced by what they stand for, so that a few lines cannot fill the memory.
pub(crate) const NODES_MAX: usize = 100_000;

/// The file has six levels; what is ignored (`x-…`) may have some more. Bounds our recursion.
const DEPTH_MAX: usize = 32;

/// Why a text is no tree: the syntax is wrong, or a limit is passed. Nothing more can be said about it.
type Fatal = Box<Problem>;

/// Reads the one document of `text`. Problems that leave a tree go to `problems`.
pub(crate) fn parse(text: &str, problems: &mut Vec<Problem>) -> Result<Node, Fatal> {
    let mut reader = Reader::new(text, problems)?;
    reader.tags_mean_something = false;
    reader.document()
}

/// The same of a text that goes over others, with where it takes nothing of them.
pub(crate) fn parse_over(text: &str, problems: &mut Vec<Problem>) -> Result<(Node, Vec<Cut>), Fatal> {
    let mut reader = Reader::new(text, problems)?;
    let mut root = reader.document()?;
    let resets = reader.cuts.iter().filter(|cut| cut.is_reset);
    resets.for_each(|reset| cut::take(&mut root, &reset.path, ""));
    Ok((root, reader.cuts))
}

struct Reader<'t, 'p> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    anchors: BTreeMap<usize, Anchor>,
    nodes: usize,
    /// The keys down to what is being read; nothing for what has none of its own.
    path: Vec<Option<String>>,
    tags_mean_something: bool,
    cuts: Vec<Cut>,
    problems: &'p mut Vec<Problem>,
}

/// What an alias stands for.
struct Anchor {
    node: Node,
    nodes: usize,
    height: usize,
}

fn fatal(span: Span, message: impl Into<String>, hint: &str) -> Fatal {
    Box::new(Problem::found(span, "", "", message).hint(hint))
}

fn place(span: &saphyr_parser::Span) -> Span {
    let (start, end) = (&span.start, &span.end);
    let chars = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 0 };
    Span { line: start.line(), column: start.col() + 1, chars }
}

impl<'t, 'p> Reader<'t, 'p> {
    fn new(text: &'t str, problems: &'p mut Vec<Problem>) -> Result<Self, Fatal> {
        if text.len() > FILE_MAX_BYTES {
            let message = format!("the file has {} bytes; the limit is {FILE_MAX_BYTES}", text.len());
            return Err(fatal(
                Span { line: 1, column: 1, chars: 0 },
                message,
                "put parts of it into other files, and `include` them",
            ));
        }
        let parser = Parser::new_from_str(text);
        let (anchors, path, cuts) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { text, parser, anchors, nodes: 0, path, tags_mean_something: true, cuts, problems })
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Fatal> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, place(&span))),
            Some(Err(error)) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                let span = Span { line, column, chars: 0 };
                let told = self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
                let hint = if self.indented_by_tab(line) {
                    "indent with spaces, not with tabs"
                } else if told.contains("${") {
                    "within `{ }` and `[ ]` a value with `${…}` stands in quotes"
                } else {
                    "look at this line and the one before: how far they are indented, and whether quotes and brackets \
                     are closed; a text with `: ` or ` #` in it stands in quotes"
                };
                Err(fatal(span, format!("not YAML: {}", error.info()), hint))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn indented_by_tab(&self, line: usize) -> bool {
        let near = self.text.lines().skip(line.saturating_sub(2)).take(2);
        near.into_iter().any(|line| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t'))
    }

    fn document(&mut self) -> Result<Node, Fatal> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(fatal(
                        span,
                        "a second document starts here; the file holds one",
                        "take the line `---` away, or put what follows into a file of its own",
                    ));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, 0)?);
                }
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentEnd
                | Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => {}
            }
        }
        let start = Span { line: 1, column: 1, chars: 0 };
        Ok(root.unwrap_or(Node { span: start, value: Value::Null }))
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fatal> {
        let (before, cuts) = (self.nodes, self.cuts.len());
        self.spend(1, depth, span)?;
        let (value, anchor, tag) = match event {
            Event::Alias(id) => return self.alias(id, span, depth),
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style), anchor, tag),
            Event::SequenceStart(anchor, tag) => (self.sequence(depth)?, anchor, tag),
            Event::MappingStart(anchor, tag) => (self.mapping(depth)?, anchor, tag),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err(fatal(span, "not YAML: a value is missing", "write one, or `null`"));
            }
        };
        if let Some(tag) = tag {
            self.tagged(&format!("{}{}", tag.handle, tag.suffix), anchor > 0, span);
        }
        if anchor > 0 && self.cuts.len() > cuts {
            let problem = Problem::found(span, "", "", "a tag (`!…`) stands in what has an anchor (`&…`)");
            self.problems.push(problem.hint("write the value without one of them"));
        }
        let node = Node { span, value };
        if anchor > 0 {
            let nodes = self.nodes - before;
            // The copy that is kept counts too: anchors within anchors are kept several times.
            self.spend(nodes, depth, span)?;
            let height = height(&node);
            self.anchors.insert(anchor, Anchor { node: node.clone(), nodes, height });
        }
        Ok(node)
    }

    /// A tag before a value.
    fn tagged(&mut self, tag: &str, is_anchored: bool, span: Span) {
        let path: Option<Vec<String>> = self.path.iter().cloned().collect();
        let cut = path.filter(|path| self.tags_mean_something && !path.is_empty() && !is_anchored);
        match cut.and_then(|path| Cut::of(tag, path)) {
            Some(cut) => self.cuts.push(cut),
            None => {
                let problem = Problem::found(span, "", "", "tags (`!…`) mean nothing here");
                self.problems.push(problem.hint("leave it out"));
            }
        }
    }

    /// What stands under a key, or where there is none of its own.
    fn node_under(
        &mut self,
        key: Option<String>,
        event: Event<'t>,
        span: Span,
        depth: usize,
    ) -> Result<Node, Fatal> {
        self.path.push(key);
        let node = self.node(event, span, depth);
        self.path.pop();
        node
    }

    fn spend(&mut self, nodes: usize, depth: usize, span: Span) -> Result<(), Fatal> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let message = format!("the file has more than {NODES_MAX} values, aliases resolved");
            return Err(fatal(span, message, "use fewer aliases, or put parts into other files"));
        }
        if depth > DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} levels within each other");
            return Err(fatal(
                span,
                message,
                "nothing in this file needs so many: look for a `[` or `{` too much",
            ));
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Result<Node, Fatal> {
        let Some(anchor) = self.anchors.get(&id) else {
            return Err(fatal(
                span,
                "an alias cannot stand within what it stands for",
                "write out what is meant",
            ));
        };
        // The places stay those of the anchor: there the text stands that may be wrong.
        let (node, nodes, height) = (anchor.node.clone(), anchor.nodes, anchor.height);
        self.spend(nodes, depth + height, span)?;
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Fatal> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Sequence(items)),
                (event, span) => items.push(self.node_under(None, event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Fatal> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, key_span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, _) if text == "<<");
            let name = if let Event::Scalar(text, ..) = &event { Some(text.to_string()) } else { None };
            let key = self.node_under(None, event, key_span, depth + 1)?;
            let (event, span) = self.next()?;
            let mut node = self.node_under(name.clone().filter(|_| !merge), event, span, depth + 1)?;
            if node.value == Value::Null && node.span.chars == 0 {
                // Nothing stands there; the parser's place for it is the token after.
                node.span = key.span;
            }
            let key = match (name, key.value) {
                (Some(_), _) if merge => {
                    merged.push(node);
                    continue;
                }
                (Some(name), _) | (None, Value::Scalar(name)) => name,
                (None, Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_)) => {
                    self.problems.push(Problem::found(key_span, "", "", "a key must be text").hint(
                        "write a word, with `:` behind; a text that begins with `{`, `[` or `?` stands in quotes",
                    ));
                    continue;
                }
            };
            if let Some(first) = seen.get(&key) {
                let message = format!("the key {} stands here twice", quote(&key));
                let hint = format!("it stands first in line {first}");
                self.problems.push(Problem::found(key_span, "", &key, message).hint(hint));
                continue;
            }
            seen.insert(key.clone(), key_span.line);
            entries.push(Entry { key, key_span, node });
        }
        for node in merged {
            self.merge(&mut entries, node);
        }
        Ok(Value::Mapping(entries))
    }

    /// Adds what `<<` brings: a mapping or a list of mappings, earlier ones first; own keys win.
    fn merge(&mut self, entries: &mut Vec<Entry>, from: Node) {
        let mut had: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        let sources = match from.value {
            Value::Sequence(nodes) => nodes,
            Value::Mapping(_) | Value::Scalar(_) | Value::Null | Value::Unknown => vec![from],
        };
        for source in sources {
            let Value::Mapping(more) = source.value else {
                let message = "`<<` takes a mapping or a list of mappings";
                self.problems.push(Problem::found(source.span, "", "", message).hint("write `<<: *name`"));
                continue;
            };
            entries.extend(more.into_iter().filter(|entry| had.insert(entry.key.clone())));
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if null { Value::Null } else { Value::Scalar(text.to_owned()) }
}

fn height(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Unknown | Value::Scalar(_) => 0,
        Value::Sequence(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Value::Mapping(entries) => 1 + entries.iter().map(|entry| height(&entry.node)).max().unwrap_or(0),
    }
}

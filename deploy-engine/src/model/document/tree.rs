//! YAML text → a tree in which every key and value knows its place.

use std::collections::BTreeMap;

use saphyr::{Scalar, ScalarStyle};
use saphyr_parser::{Event, Marker, Parser, Span, SpannedEventReceiver};
use serde_json::Value;

use crate::model::diagnostic::{Diagnostic, Diagnostics, Source};

/// Nesting deeper than this is no configuration; it bounds the recursion over the tree.
const DEPTH_LIMIT: usize = 32;
/// Values that aliases (`*name`) may add: a few lines can otherwise expand without end.
const ALIAS_LIMIT: usize = 10_000;

/// A place in the text: line and column from 1, width in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    pub width: usize,
}

impl Place {
    fn of(span: Span) -> Self {
        let same_line = span.start.line() == span.end.line();
        let width = if same_line {
            span.end.col().saturating_sub(span.start.col())
        } else {
            1
        };
        Self {
            width: width.max(1),
            ..Self::at(&span.start)
        }
    }

    fn at(mark: &Marker) -> Self {
        Self {
            line: mark.line(),
            column: mark.col() + 1,
            width: 1,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Place, Node)>),
}

impl Node {
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(nodes) => Value::Array(nodes.iter().map(Node::to_value).collect()),
            Content::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, _, node)| (key.clone(), node.to_value()))
                    .collect(),
            ),
        }
    }

    /// The place of the value under `path`; of the nearest parent when there is none.
    pub fn place<S: AsRef<str>>(&self, path: &[S]) -> Place {
        self.walk(path).1
    }

    /// The place of the last key of `path` (list entries have none: then of the value).
    pub fn key_place<S: AsRef<str>>(&self, path: &[S]) -> Place {
        self.walk(path).0
    }

    fn walk<S: AsRef<str>>(&self, path: &[S]) -> (Place, Place) {
        let mut node = self;
        let mut key_place = self.place;
        for segment in path {
            let segment = segment.as_ref();
            let next = match &node.content {
                Content::Map(entries) => entries
                    .iter()
                    .find(|(key, ..)| key == segment)
                    .map(|(_, place, child)| (*place, child)),
                Content::List(nodes) => segment
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| nodes.get(index))
                    .map(|child| (child.place, child)),
                Content::Scalar(_) => None,
            };
            let Some((place, child)) = next else { break };
            (key_place, node) = (place, child);
        }
        (key_place, node.place)
    }

    fn size(&self) -> usize {
        1 + match &self.content {
            Content::Scalar(_) => 0,
            Content::List(nodes) => nodes.iter().map(Node::size).sum(),
            Content::Map(entries) => entries.iter().map(|(.., node)| node.size()).sum(),
        }
    }
}

/// Parses exactly one document. Duplicate keys, tags and values that JSON cannot hold are all reported, beside the tree
/// without them; no tree when the text is not YAML at all.
pub fn parse(source: &Source, text: &str) -> (Option<Node>, Diagnostics) {
    let mut builder = Builder {
        source,
        open: Vec::new(),
        documents: Vec::new(),
        anchors: BTreeMap::new(),
        expanded: 0,
        errors: Diagnostics::default(),
    };
    if let Err(error) = Parser::new_from_str(text).load(&mut builder, true) {
        let place = Place::at(error.marker());
        let message = format!("this is not YAML: {}", error.info());
        builder
            .errors
            .push(source.at(place.line, place.column, 1, message));
        return (None, builder.errors);
    }
    let Builder {
        mut documents,
        mut errors,
        ..
    } = builder;
    if documents.len() > 1 {
        let place = documents[1].place;
        errors.push(
            source
                .at(place.line, place.column, 1, "a second document starts here")
                .expected("one YAML document in the file"),
        );
    }
    let empty = Node {
        place: Place {
            line: 1,
            column: 1,
            width: 1,
        },
        content: Content::Scalar(Value::Null),
    };
    let node = if documents.is_empty() {
        empty
    } else {
        documents.swap_remove(0)
    };
    (Some(node), errors)
}

enum Open {
    List(Vec<Node>),
    Map {
        entries: Vec<(String, Place, Node)>,
        key: Option<(String, Place)>,
    },
}

struct Builder<'a> {
    source: &'a Source,
    open: Vec<(Open, Place, usize)>,
    documents: Vec<Node>,
    anchors: BTreeMap<usize, Node>,
    expanded: usize,
    errors: Diagnostics,
}

impl Builder<'_> {
    fn error(&mut self, place: Place, message: impl Into<String>) -> &mut Diagnostic {
        let diagnostic = self
            .source
            .at(place.line, place.column, place.width, message);
        self.errors.0.push(diagnostic);
        let last = self.errors.0.len() - 1;
        &mut self.errors.0[last]
    }

    fn start(&mut self, open: Open, span: Span, anchor: usize, tagged: bool) {
        let place = Place {
            width: 1,
            ..Place::of(span)
        };
        if tagged {
            self.error(place, "tags (`!name`) have no meaning here");
        }
        if self.open.len() == DEPTH_LIMIT {
            self.error(place, "this is nested too deep").expected =
                Some(format!("at most {DEPTH_LIMIT} levels"));
        }
        self.open.push((open, place, anchor));
    }

    fn end(&mut self) {
        let Some((open, place, anchor)) = self.open.pop() else {
            return;
        };
        let content = match open {
            Open::List(nodes) => Content::List(nodes),
            Open::Map { entries, .. } => Content::Map(entries),
        };
        // What is nested too deep is reported and dropped, so nothing recurses into it.
        let content = if self.open.len() >= DEPTH_LIMIT {
            Content::Scalar(Value::Null)
        } else {
            content
        };
        self.insert(Node { place, content }, anchor);
    }

    fn insert(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some((Open::List(nodes), ..)) => nodes.push(node),
            Some((
                Open::Map {
                    key: key @ None, ..
                },
                ..,
            )) => match node.content {
                Content::Scalar(Value::String(text)) => *key = Some((text, node.place)),
                Content::Scalar(value) if !value.is_null() => {
                    *key = Some((value.to_string(), node.place));
                }
                _ => {
                    *key = Some((String::new(), node.place));
                    self.error(node.place, "a key must be a word").expected =
                        Some("text before the colon".to_owned());
                }
            },
            Some((Open::Map { entries, key }, ..)) => {
                let Some((name, place)) = key.take() else {
                    return;
                };
                match entries.iter().find(|(known, ..)| *known == name) {
                    None => entries.push((name, place, node)),
                    Some((_, first, _)) => {
                        let line = first.line;
                        self.error(place, format!("`{name}` is given twice")).found =
                            Some(format!("the first one in line {line}"));
                    }
                }
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tagged: bool, place: Place) -> Value {
        if tagged {
            self.error(place, "tags (`!name`) have no meaning here");
        }
        let scalar = Scalar::parse_from_cow_and_metadata(text.into(), style, None);
        match scalar {
            None | Some(Scalar::Null) => Value::Null,
            Some(Scalar::Boolean(value)) => value.into(),
            Some(Scalar::Integer(value)) => value.into(),
            Some(Scalar::String(value)) => value.into_owned().into(),
            Some(Scalar::FloatingPoint(value)) => {
                match serde_json::Number::from_f64(value.into_inner()) {
                    Some(number) => Value::Number(number),
                    None => {
                        self.error(place, "this is not a number").found = Some(text.to_owned());
                        Value::Null
                    }
                }
            }
        }
    }

    fn alias(&mut self, id: usize, place: Place) {
        let Some(mut node) = self.anchors.get(&id).cloned() else {
            self.error(place, "this alias names nothing that comes before it");
            return;
        };
        self.expanded += node.size();
        if self.expanded > ALIAS_LIMIT || self.open.len() >= DEPTH_LIMIT {
            if self.expanded - node.size() <= ALIAS_LIMIT {
                self.error(place, "aliases expand to too much").expected =
                    Some(format!("at most {ALIAS_LIMIT} values"));
            }
            node.content = Content::Scalar(Value::Null);
        }
        node.place = place;
        self.insert(node, 0);
    }
}

impl<'input> SpannedEventReceiver<'input> for Builder<'_> {
    fn on_event(&mut self, event: Event<'input>, span: Span) {
        match event {
            Event::SequenceStart(anchor, tag) => {
                self.start(Open::List(Vec::new()), span, anchor, tag.is_some());
            }
            Event::MappingStart(anchor, tag) => {
                let open = Open::Map {
                    entries: Vec::new(),
                    key: None,
                };
                self.start(open, span, anchor, tag.is_some());
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Scalar(text, style, anchor, tag) => {
                let place = Place::of(span);
                let value = self.scalar(&text, style, tag.is_some(), place);
                let content = Content::Scalar(value);
                self.insert(Node { place, content }, anchor);
            }
            Event::Alias(id) => self.alias(id, Place::of(span)),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }
}

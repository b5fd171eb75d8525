//! Text -> positioned tree: YAML without its surprises.
//!
//! A scalar keeps the text that the user wrote and whether it was quoted; what type it is, is decided where the schema
//! says which one is wanted. So `0700`, `on` or `v1.34` never turn into something else on the way. What makes YAML
//! dangerous is refused: anchors and aliases (an alias can multiply a document without bound), tags, several documents,
//! duplicate keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::Source;
use super::errors::Problem;

/// Most bytes in one file. A node's configuration has a few kilobytes; a file beyond this is a mistake.
const MAX_BYTES: usize = 1 << 20;

/// Most maps and lists inside one another. The schema needs five.
const MAX_DEPTH: usize = 32;

/// Most bytes in one key: a unit's name has at most 255. Each problem names its whole key, so that without a bound a
/// file of a megabyte could ask for gigabytes.
const MAX_KEY: usize = 256;

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// The source's place among the sources.
    pub order: usize,
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub at: Position,
    pub value: Value,
}

/// What YAML can hold here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Map),
}

/// Sorted, so that what is derived from a map (the digest, the order of messages) does not depend on the file's order.
pub(super) type Map = BTreeMap<String, Entry>;

/// A key's value and where the key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub key_at: Position,
    pub node: Node,
}

/// A scalar as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scalar {
    /// Its text, without quotes and with escapes resolved.
    pub text: String,
    /// Whether it stood without quotes: only then can it be anything but text.
    pub plain: bool,
}

/// What a scalar is by the core schema (YAML 1.2.2, 10.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer,
    Float,
    Text,
}

impl Scalar {
    /// The type of the scalar.
    pub fn kind(&self) -> Kind {
        if !self.plain {
            return Kind::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            text if is_integer(text) => Kind::Integer,
            text if is_float(text) => Kind::Float,
            _ => Kind::Text,
        }
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_integer(text: &str) -> bool {
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    all_digits(text.strip_prefix(['-', '+']).unwrap_or(text))
}

fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent_ok = exponent.is_none_or(|e| all_digits(e.strip_prefix(['-', '+']).unwrap_or(e)));
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, "")) => all_digits(whole),
        Some((whole, fraction)) => (whole.is_empty() || all_digits(whole)) && all_digits(fraction),
        None => all_digits(mantissa),
    };
    mantissa_ok && exponent_ok
}

impl Node {
    /// Whether it says nothing at all: `key:` with no value, as when every line below it is commented out.
    pub fn is_blank(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.plain && scalar.text.is_empty())
    }

    /// Whether it is null, written out or blank.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.kind() == Kind::Null)
    }
}

/// Reads one source.
///
/// What stops the reading comes back as the error. A duplicate key does not: it goes to `problems`, and the reading
/// goes on, so that it is reported together with whatever else is wrong.
pub(super) fn parse(order: usize, source: &Source, problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    let file: Arc<str> = source.name.as_str().into();
    let text = readable(order, &file, &source.text, MAX_BYTES)?;
    let depth = MAX_DEPTH;
    let root = Reader { parser: Parser::new_from_str(text), text, depth, order, file, problems }.document()?;
    match root.value {
        Value::Map(_) => Ok(root),
        _ if root.is_null() => Err(Problem::new(&root.at, "", NO_DOCUMENT)),
        _ => Err(Problem::new(&root.at, "", "wants a map of keys at the top, such as `kind: NodeConfig`")),
    }
}

/// Reads all documents of one source, which may be longer and deeper. A duplicate key counts as any other mistake.
pub(super) fn parse_all(source: &Source, bytes: usize, depth: usize) -> Result<Vec<Node>, Problem> {
    let file: Arc<str> = source.name.as_str().into();
    let text = readable(0, &file, &source.text, bytes)?;
    let mut problems = Vec::new();
    let reader = Reader { parser: Parser::new_from_str(text), text, depth, order: 0, file, problems: &mut problems };
    let all = reader.documents()?;
    problems.into_iter().next().map_or(Ok(all), Err)
}

const NO_DOCUMENT: &str = "the file holds no settings: write them or remove the file";

/// The source as text, if it is text of a sensible size.
fn readable<'a>(order: usize, file: &Arc<str>, bytes: &'a [u8], most: usize) -> Result<&'a str, Problem> {
    let problem = |before: &str, message: String| {
        let (line, column) = line_and_column(before);
        Problem::new(&Position { order, file: Arc::clone(file), line, column }, "", message)
    };
    if bytes.len() > most {
        return Err(problem("", format!("the file has {} bytes, and at most {most} are read", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = &bytes[..error.valid_up_to()];
        problem(&String::from_utf8_lossy(valid), "this is not UTF-8 text".to_owned())
    })?;
    // The parser takes a NUL for the end of the file: what follows it would be lost without a word.
    match text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) {
        Some((at, bad)) => Err(problem(&text[..at], format!("the control character {bad:?} cannot be in YAML"))),
        None => Ok(text),
    }
}

/// The place behind `before`, both numbers from 1.
fn line_and_column(before: &str) -> (usize, usize) {
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Turns the parser's events into a tree.
struct Reader<'a, 'p> {
    parser: Parser<'a, StrInput<'a>>,
    text: &'a str,
    /// Most maps and lists inside one another.
    depth: usize,
    order: usize,
    file: Arc<str>,
    problems: &'p mut Vec<Problem>,
}

impl<'a> Reader<'a, '_> {
    fn position(&self, marker: Marker) -> Position {
        Position {
            order: self.order,
            file: Arc::clone(&self.file),
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }

    fn refuse(&self, span: Span, key: &str, message: impl Into<String>) -> Problem {
        Problem::new(&self.position(span.start), key, message)
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// The parser's own error. A tab gets words of its own: it is the commonest cause, and cannot be seen.
    fn syntax(&self, error: &ScanError) -> Problem {
        let at = self.position(*error.marker());
        let line = self.text.lines().nth(at.line - 1).unwrap_or("");
        let indent_end = line.find(|c: char| !c.is_whitespace()).unwrap_or(line.len());
        match line[..indent_end].chars().position(|c| c == '\t') {
            Some(tab) => {
                let at = Position { column: tab + 1, ..at };
                Problem::new(&at, "", "a tab cannot indent in YAML: write spaces")
            }
            None => Problem::new(&at, "", format!("this is not YAML: {}", error.info())),
        }
    }

    /// The only document of the stream.
    fn document(mut self) -> Result<Node, Problem> {
        let (event, span) = loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::StreamEnd, _) => {
                    let start = Position { order: self.order, file: self.file, line: 1, column: 1 };
                    return Err(Problem::new(&start, "", NO_DOCUMENT));
                }
                content => break content,
            }
        };
        let root = self.node(event, span, "", 0)?;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(_), span) => {
                    return Err(self.refuse(span, "", "a second document starts here: one file holds one document"));
                }
                _ => {}
            }
        }
    }

    /// All documents of the stream.
    fn documents(mut self) -> Result<Vec<Node>, Problem> {
        let mut all = Vec::new();
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(all),
                (
                    event @ (Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(_)),
                    span,
                ) => {
                    all.push(self.node(event, span, "", 0)?);
                }
                _ => {}
            }
        }
    }

    /// The value that `event` starts.
    fn node(&mut self, event: Event<'a>, span: Span, key: &str, depth: usize) -> Result<Node, Problem> {
        if depth > self.depth {
            return Err(self.refuse(span, "", format!("more than {} maps and lists inside one another", self.depth)));
        }
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.is_some())
            }
            _ => (0, false),
        };
        if anchor != 0 {
            return Err(self.refuse(span, key, "anchors (&name) are not used here: write the value"));
        }
        if tag {
            return Err(self.refuse(
                span,
                key,
                "tags (!name) are not used here: write the value alone, text in quotes",
            ));
        }
        let at = self.position(span.start);
        let value = match event {
            Event::Scalar(text, style, ..) => {
                Value::Scalar(Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain })
            }
            Event::SequenceStart(..) => Value::List(self.list(key, depth)?),
            Event::MappingStart(..) => Value::Map(self.map(key, depth)?),
            Event::Alias(_) => {
                return Err(self.refuse(span, key, "aliases (*name) are not used here: write the value"));
            }
            // The parser's grammar lets nothing else stand where a value starts.
            _ => return Err(self.refuse(span, key, "a value is wanted here")),
        };
        Ok(Node { at, value })
    }

    /// The rest of a list.
    fn list(&mut self, key: &str, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(items),
                (event, span) => {
                    let item_key = format!("{key}[{}]", items.len());
                    items.push(self.node(event, span, &item_key, depth + 1)?);
                }
            }
        }
    }

    /// The rest of a map.
    fn map(&mut self, key: &str, depth: usize) -> Result<Map, Problem> {
        let mut map = Map::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                return Ok(map);
            }
            let name_node = self.node(event, span, key, depth + 1)?;
            let Value::Scalar(Scalar { text: name, .. }) = name_node.value else {
                return Err(Problem::new(&name_node.at, key, "a key must be plain text, not a map or a list"));
            };
            if name.len() > MAX_KEY {
                return Err(Problem::new(&name_node.at, key, format!("a key has at most {MAX_KEY} bytes")));
            }
            let value_key = child_key(key, &name);
            let (event, span) = self.next()?;
            let node = self.node(event, span, &value_key, depth + 1)?;
            if let Some(Entry { key_at: first, .. }) = map.get(&name) {
                let message = format!("the key is here twice: first in line {}", first.line);
                self.problems.push(Problem::new(&name_node.at, &value_key, message));
            }
            map.insert(name, Entry { key_at: name_node.at, node });
        }
    }
}

/// The dotted key of `name` inside `key`.
pub(super) fn child_key(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> (Result<Node, Problem>, Vec<Problem>) {
        let mut problems = Vec::new();
        let source = Source { name: "n.yaml".to_owned(), text: text.to_vec() };
        (parse(0, &source, &mut problems), problems)
    }

    fn entry<'a>(node: &'a Node, name: &str) -> &'a Entry {
        match &node.value {
            Value::Map(map) => &map[name],
            other => panic!("{other:?} is no map"),
        }
    }

    #[test]
    fn scalars_keep_their_text_and_place() {
        for text in ["0700", "v1.34.2", "on", "1e3", "~", "0x1F", "2026-11-21"] {
            let (node, _) = read(format!("a:\n  b: {text} # why\n").as_bytes());
            let root = node.unwrap_or_else(|error| panic!("{text}: {error}"));
            let b = entry(&entry(&root, "a").node, "b");
            assert_eq!(b.node.value, Value::Scalar(Scalar { text: text.to_owned(), plain: true }), "{text}");
            assert_eq!((b.key_at.line, b.key_at.column), (2, 3), "{text}");
            assert_eq!((b.node.at.line, b.node.at.column), (2, 6), "{text}");
        }
    }

    #[test]
    fn kinds_follow_the_core_schema() {
        let table = [
            ("", Kind::Null),
            ("~", Kind::Null),
            ("null", Kind::Null),
            ("true", Kind::Bool(true)),
            ("FALSE", Kind::Bool(false)),
            ("yes", Kind::Text),
            ("on", Kind::Text),
            ("0", Kind::Integer),
            ("-12", Kind::Integer),
            ("0700", Kind::Integer),
            ("0o17", Kind::Integer),
            ("0xfF", Kind::Integer),
            ("0x", Kind::Text),
            ("1.5", Kind::Float),
            (".5", Kind::Float),
            ("1.", Kind::Float),
            ("1e3", Kind::Float),
            ("1e", Kind::Text),
            (".", Kind::Text),
            ("-.inf", Kind::Float),
            (".nan", Kind::Float),
            ("-", Kind::Text),
            ("1_000", Kind::Text),
            ("v1.34.2", Kind::Text),
            ("10.0.0.1", Kind::Text),
        ];
        for (text, kind) in table {
            assert_eq!(Scalar { text: text.to_owned(), plain: true }.kind(), kind, "{text:?}");
            assert_eq!(Scalar { text: text.to_owned(), plain: false }.kind(), Kind::Text, "quoted {text:?}");
        }
    }

    #[test]
    fn what_is_refused_says_where_and_why() {
        let deep = "[".repeat(100);
        let long = format!("a:\n  {}: 1\n", "x".repeat(MAX_KEY + 1));
        let table: &[(&[u8], &str)] = &[
            (b"", "n.yaml:1:1: the file holds no settings"),
            (b"# only this\n", "n.yaml:1:1: the file holds no settings"),
            (b"---\n", "the file holds no settings"),
            (b"null\n", "n.yaml:1:1: the file holds no settings"),
            (b"- a\n", "n.yaml:1:1: wants a map"),
            (b"just text\n", "n.yaml:1:1: wants a map"),
            (b"a: 1\n---\nb: 2\n", "n.yaml:2:1: a second document"),
            (b"a:\n\tb: 1\n", "n.yaml:2:1: a tab cannot indent"),
            (b"a: \xc3\xa9\nb: \xff\n", "n.yaml:2:4: this is not UTF-8"),
            (b"a: 1\n\0b: 2\n", "n.yaml:2:1: the control character '\\0'"),
            (b"a: &x 1\n", "a: anchors"),
            (b"a: *x\n", "n.yaml:1:4: this is not YAML"),
            (b"a: &x [1]\nb: *x\n", "a: anchors"),
            (b"a: !!str 1\n", "a: tags"),
            (b"? [a]\n: 1\n", "n.yaml:1:3: a key must be plain text"),
            (b"a: [1\nb: 2\n", "this is not YAML"),
            (b"a: 'x\n", "this is not YAML"),
            (deep.as_bytes(), "more than 32 maps"),
            (long.as_bytes(), "n.yaml:2:3: a: a key has at most 256 bytes"),
        ];
        for (text, wanted) in table {
            let shown = String::from_utf8_lossy(text);
            let (node, _) = read(text);
            let error = node.expect_err(&shown).to_string();
            assert!(error.contains(wanted), "{shown:?}: {error}");
        }
    }

    #[test]
    fn size_is_bounded() {
        let error = read(&vec![b'#'; MAX_BYTES + 1]).0.expect_err("too large").to_string();
        assert!(error.contains("at most 1048576"), "{error}");
    }

    #[test]
    fn duplicate_keys_are_named_and_the_reading_goes_on() {
        let (node, problems) = read(b"a:\n  b: 1\n  b: 2\na: 3\n");
        assert!(node.is_ok());
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "n.yaml:3:3: a.b: the key is here twice: first in line 2",
                "n.yaml:4:1: a: the key is here twice: first in line 1"
            ]
        );
    }

    #[test]
    fn a_byte_order_mark_and_windows_lines_are_read() {
        let (node, _) = read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n");
        let root = node.expect("a document");
        assert_eq!(entry(&root, "b").key_at.line, 2);
    }
}

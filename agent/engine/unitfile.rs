//! Unit files and drop-ins as typed sections, parsed and printed without loss (systemd.syntax(7)).
//!
//! What systemd does not understand it reports and ignores: a line, or from a broken section header on the rest of the
//! file. So parsing cannot fail here, and each line keeps its text, understood or not: printing gives back what was parsed,
//! byte for byte. Pure.

use std::collections::BTreeSet;
use std::fmt;

use super::resource::Delta;

/// A unit file or drop-in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitFile {
    /// What stands before the first section: comments, blank lines, and settings that systemd ignores there.
    preamble: Vec<Entry>,
    sections: Vec<Section>,
}

/// A section: its header and what stands below it. A file may have several of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    /// The header as it stands in the file.
    text: String,
    name: String,
    entries: Vec<Entry>,
}

/// One logical line: with its continuations, and with the comments between them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// As it stands in the file, line ends included.
    text: String,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Blank,
    Comment,
    Setting {
        key: String,
        /// Continuations joined as systemd joins them; empty where the setting resets what was set before.
        value: String,
    },
    /// systemd ignores it.
    Unknown,
}

/// White space, and what begins a comment, as systemd has them (`WHITESPACE`, `COMMENTS`).
const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];
const COMMENTS: [char; 2] = ['#', ';'];

/// What ends a line.
const ENDS: [char; 3] = ['\n', '\r', '\0'];

impl UnitFile {
    /// Parses a file as systemd reads it.
    pub fn parse(text: &str) -> Self {
        let mut file = Self::default();
        let mut rest = text;
        let mut lines = std::iter::from_fn(|| next_line(&mut rest));
        let mut broken = false;
        while let Some(line) = lines.next() {
            let (text, logical) = continued(line, &mut lines);
            match classify(&logical) {
                Line::Header(name) if !broken => file.sections.push(Section { text, name, entries: Vec::new() }),
                Line::Entry(what @ (What::Blank | What::Comment)) => file.last_entries().push(Entry { text, what }),
                Line::Entry(what) if !broken => file.last_entries().push(Entry { text, what }),
                other => {
                    broken |= matches!(other, Line::Broken);
                    file.last_entries().push(Entry { text, what: What::Unknown });
                }
            }
        }
        file
    }

    /// A file of one section under a comment.
    ///
    /// # Panics
    /// When a key or value would not be read back: both are this program's own, and each test prints them.
    pub fn new(comment: &str, section: &str, settings: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut text = format!("# {comment}\n[{section}]\n");
        for (key, value) in settings {
            assert!(!value.contains('\n') && !value.ends_with('\\'), "{key}={value} is more than one line");
            for part in [&key, "=", &value, "\n"] {
                text.push_str(part);
            }
        }
        Self::parse(&text)
    }

    fn last_entries(&mut self) -> &mut Vec<Entry> {
        self.sections.last_mut().map_or(&mut self.preamble, |section| &mut section.entries)
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let preamble = self.preamble.iter().map(|entry| ("", entry));
        preamble.chain(self.sections.iter().flat_map(|s| s.entries.iter().map(|entry| (s.name.as_str(), entry))))
    }

    /// Each setting in its order: section, key, value. An empty value resets what was set before it.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.entries().filter_map(|(section, entry)| match &entry.what {
            What::Setting { key, value } => Some((section, key.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// What is assigned to a key of a section, in the order of the file, resets (empty values) included.
    pub fn values(&self, section: &str, key: &str) -> Vec<&str> {
        self.settings().filter(|(s, k, _)| *s == section && *k == key).map(|(_, _, value)| value).collect()
    }

    /// Comments and lines that systemd does not understand: nothing that it acts on.
    fn remarks(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.entries().filter_map(|(_, entry)| match entry.what {
            What::Comment => Some(("comment", entry.text.trim_matches(WHITESPACE))),
            What::Unknown => Some(("line that systemd ignores", entry.text.trim_matches(WHITESPACE))),
            _ => None,
        })
    }
}

/// Printing gives back what was parsed.
impl fmt::Display for UnitFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.preamble.iter().try_for_each(|entry| f.write_str(&entry.text))?;
        for section in &self.sections {
            f.write_str(&section.text)?;
            section.entries.iter().try_for_each(|entry| f.write_str(&entry.text))?;
        }
        Ok(())
    }
}

/// A line with those that continue it: as text, and as systemd joins them. Comments in between are skipped, and the
/// backslash becomes a space (`config_parse` of systemd's conf-parser.c).
fn continued<'a>(line: &'a str, rest: &mut impl Iterator<Item = &'a str>) -> (String, String) {
    let (mut text, mut logical) = (line.to_owned(), without_end(line).to_owned());
    if is_comment(line) {
        return (text, logical);
    }
    while ends_escaped(&logical) {
        logical.pop();
        logical.push(' ');
        loop {
            let Some(next) = rest.next() else { return (text, logical) };
            text.push_str(next);
            if !is_comment(next) {
                logical.push_str(without_end(next));
                break;
            }
        }
    }
    (text, logical)
}

/// Takes the first line with its end. A carriage return and a null byte end a line too (`read_line` of fileio.c).
fn next_line<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let end = rest.find(ENDS).map_or(rest.len(), |at| at + if rest[at..].starts_with("\r\n") { 2 } else { 1 });
    let (line, after) = rest.split_at(end);
    *rest = after;
    (!line.is_empty()).then_some(line)
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(ENDS)
}

fn is_comment(line: &str) -> bool {
    line.trim_start_matches(WHITESPACE).starts_with(COMMENTS)
}

/// Whether the last character is a backslash that none before it escapes.
fn ends_escaped(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

enum Line {
    Header(String),
    /// A section header without its end: systemd reads nothing behind it.
    Broken,
    Entry(What),
}

fn classify(logical: &str) -> Line {
    let line = logical.trim_start_matches('\u{feff}').trim_matches(WHITESPACE);
    if line.is_empty() {
        return Line::Entry(What::Blank);
    }
    if is_comment(line) {
        return Line::Entry(What::Comment);
    }
    if let Some(rest) = line.strip_prefix('[') {
        return rest.strip_suffix(']').map_or(Line::Broken, |name| Line::Header(name.to_owned()));
    }
    match line.split_once('=') {
        Some((key, value)) if !key.is_empty() => Line::Entry(What::Setting {
            key: key.trim_matches(WHITESPACE).to_owned(),
            value: value.trim_matches(WHITESPACE).to_owned(),
        }),
        _ => Line::Entry(What::Unknown),
    }
}

/// What differs between two files, for a person who judges a plan: by section and key, then what systemd does not act
/// on. Empty only for files of the same text.
pub fn differences(now: &UnitFile, want: &UnitFile) -> Vec<Delta> {
    let mut deltas = Vec::new();
    let mut compared = BTreeSet::new();
    for (section, key, _) in now.settings().chain(want.settings()) {
        if compared.insert((section, key)) {
            deltas.extend(setting(section, key, &now.values(section, key), &want.values(section, key)));
        }
    }
    let (old, new): (Vec<_>, Vec<_>) = (now.remarks().collect(), want.remarks().collect());
    deltas.extend(old.iter().filter(|line| !new.contains(line)).map(|(what, line)| Delta::new(what, line, "")));
    deltas.extend(new.iter().filter(|line| !old.contains(line)).map(|(what, line)| Delta::new(what, "", line)));
    if deltas.is_empty() && now != want {
        deltas.push(Delta::new("layout", "other spaces, order or line ends", "as nodeagent writes it"));
    }
    deltas
}

fn setting(section: &str, key: &str, now: &[&str], want: &[&str]) -> Vec<Delta> {
    let what = format!("[{section}] {key}");
    // An empty value would look like none.
    let shown = |value: &str| if value.is_empty() { "(reset)".to_owned() } else { value.to_owned() };
    match (now, want) {
        _ if now == want => Vec::new(),
        ([now], [want]) => vec![Delta::new(what, shown(now), shown(want))],
        _ => {
            let gone = now.iter().filter(|v| !want.contains(v)).map(|v| Delta::new(&what, shown(v), ""));
            let come = want.iter().filter(|v| !now.contains(v)).map(|v| Delta::new(&what, "", shown(v)));
            let deltas: Vec<Delta> = gone.chain(come).collect();
            if deltas.is_empty() {
                let joined = |all: &[&str]| all.iter().map(|v| shown(v)).collect::<Vec<_>>().join(", ");
                return vec![Delta::new(format!("{what} (order)"), joined(now), joined(want))];
            }
            deltas
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What systemd 252 and 257 make of these files is tried on nodes: see `tests/lab/systemd.rs`.
    const FOREIGN: &str = "\
; a comment
Ignored=here

[Unit]
Description = two  words \n\
[Service]
ExecStart=
ExecStart=/bin/sh -c \\
# a comment in between
  'echo \\
  done'
Environment=A=b=c
Path=C:\\\\
=nothing
nonsense
[Service]
TasksMax=5\r\n\
LimitNOFILE=7\\\r\n\
8
[Broken
[Service]
TasksMax=9";

    #[test]
    fn a_foreign_file_is_read_as_systemd_reads_it() {
        let file = UnitFile::parse(FOREIGN);
        assert_eq!(
            file.settings().collect::<Vec<_>>(),
            [
                ("", "Ignored", "here"),
                ("Unit", "Description", "two  words"),
                ("Service", "ExecStart", ""),
                ("Service", "ExecStart", "/bin/sh -c    'echo    done'"),
                ("Service", "Environment", "A=b=c"),
                ("Service", "Path", "C:\\\\"),
                ("Service", "TasksMax", "5"),
                ("Service", "LimitNOFILE", "7 8"),
            ]
        );
        assert_eq!(file.to_string(), FOREIGN);
        let unknown: Vec<_> = file.remarks().filter(|(what, _)| *what != "comment").map(|(_, line)| line).collect();
        assert_eq!(unknown, ["=nothing", "nonsense", "[Broken", "[Service]", "TasksMax=9"]);
    }

    #[test]
    fn differences_are_by_section_and_key() {
        /// A case, the file that is there, the one that is wanted, and what is shown of it.
        type Row<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str, &'a str)]);
        let table: [Row<'_>; 9] = [
            ("the same", "[Service]\nA=1\n", "[Service]\nA=1\n", &[]),
            ("a value", "[Service]\nA=1\n", "[Service]\nA=2\n", &[("[Service] A", "1", "2")]),
            ("one more", "[Service]\n", "[Service]\nA=2\n", &[("[Service] A", "", "2")]),
            ("one less", "[Service]\nA=1\n", "[Service]\n", &[("[Service] A", "1", "")]),
            (
                "another section",
                "[Unit]\nA=1\n",
                "[Service]\nA=1\n",
                &[("[Unit] A", "1", ""), ("[Service] A", "", "1")],
            ),
            ("a reset", "[Service]\nE=\nE=a\n", "[Service]\nE=a\n", &[("[Service] E", "(reset)", "")]),
            ("an order", "[S]\nE=a\nE=b\n", "[S]\nE=b\nE=a\n", &[("[S] E (order)", "a, b", "b, a")]),
            ("a comment of a person's", "# mine\n[S]\n", "[S]\n", &[("comment", "# mine", "")]),
            (
                "spaces",
                "[S]\nA = 1\n",
                "[S]\nA=1\n",
                &[("layout", "other spaces, order or line ends", "as nodeagent writes it")],
            ),
        ];
        for (case, now, want, shown) in table {
            let got = differences(&UnitFile::parse(now), &UnitFile::parse(want));
            let got: Vec<_> = got.iter().map(|d| (d.what.as_str(), d.now.as_str(), d.want.as_str())).collect();
            assert_eq!(got, shown, "{case}");
        }
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("[Service]".to_owned()),
            "[#;] ?[a-z]{0,5}\\\\?",
            "[A-Z][a-z]{0,3} ?= ?[a-z \\\\=#]{0,8}",
            "\\PC{0,8}",
            "[ \t\r\0]{0,2}",
        ]
    }

    proptest! {
        #[test]
        fn printing_gives_back_what_was_parsed(lines in prop::collection::vec(line(), 0..12), end in any::<bool>()) {
            let text = lines.join("\n") + if end { "\n" } else { "" };
            let file = UnitFile::parse(&text);
            prop_assert_eq!(file.to_string(), text);
            prop_assert_eq!(differences(&file, &file), vec![]);
        }

        /// Only the same text has no differences: nothing is overwritten that the plan did not show.
        #[test]
        fn files_that_differ_have_differences(one in prop::collection::vec(line(), 0..6), two in prop::collection::vec(line(), 0..6)) {
            let (one, two) = (one.join("\n"), two.join("\n"));
            let deltas = differences(&UnitFile::parse(&one), &UnitFile::parse(&two));
            prop_assert_eq!(deltas.is_empty(), one == two);
        }

        #[test]
        fn what_is_written_reads_back(settings in prop::collection::vec(("[A-Z][A-Za-z]{0,5}", "([!-~&&[^\\\\]]([ -~&&[^\\\\]]{0,8}[!-~&&[^\\\\]])?)?"), 0..6)) {
            let file = UnitFile::new("a comment", "Service", settings.clone());
            let read: Vec<_> = file.settings().map(|(s, k, v)| (s.to_owned(), k.to_owned(), v.to_owned())).collect();
            let want: Vec<_> = settings.into_iter().map(|(k, v)| ("Service".to_owned(), k, v)).collect();
            prop_assert_eq!(read, want);
        }
    }
}

//! TOML text as a tree in which every key and value knows where it is written.
//!
//! The tree keeps the order of the file, and its strings have their references followed
//! ([`super::secrets`]). Nothing is interpreted here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Place, Severity};
use super::mask;
use super::secrets::{self, Surroundings};
use super::settings::Location;

/// A stretch of one of the files, in bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Span {
    file: usize,
    start: usize,
    end: usize,
}

/// A value and where it is written.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Span,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Text(Text),
    /// `None` when it does not fit.
    Integer(Option<i64>),
    /// As written.
    Float(String),
    Boolean(bool),
    Datetime,
    List(Vec<Node>),
    Table(Table),
    /// A string whose references cannot be followed; that was complained about already.
    Broken,
}

/// A string before and after its references were followed.
#[derive(Debug)]
pub(super) struct Text {
    /// The value.
    pub(super) value: String,
    /// As written: what messages may show.
    pub(super) raw: String,
    /// Whether the value came from outside, so that messages must not show it.
    pub(super) is_secret: bool,
}

/// Keys and values in the order of the file.
#[derive(Debug)]
pub(super) struct Table {
    /// Its header.
    pub(super) at: Span,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Span,
    pub(super) node: Node,
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Broken => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

impl Text {
    /// What an error says about this value, if it may be shown.
    pub(super) fn complaint(&self, error: &dyn std::fmt::Display) -> String {
        if self.is_secret {
            format!("what `{}` stands for cannot be used here", self.raw)
        } else {
            error.to_string()
        }
    }
}

/// The files that were read, and every complaint about them.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: Vec<File>,
    complaints: RefCell<Vec<(Span, Diagnostic)>>,
    /// Secrets that are written out in a file: never shown.
    masks: RefCell<Vec<Span>>,
    /// What was asked of each key, by section header and key; noted in tests only.
    pub(super) asked: RefCell<BTreeMap<(&'static str, String), Asked>>,
}

/// What the parser asks of one key. `docs/configuration.md` is written from it, by a test.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// What may stand there.
    pub(super) kind: String,
    /// What is meant when nothing stands there.
    pub(super) usual: Option<String>,
    pub(super) is_required: bool,
}

#[derive(Debug)]
struct File {
    name: Arc<str>,
    folder: PathBuf,
    text: String,
    /// Byte at which each line starts.
    lines: Vec<usize>,
}

impl Files {
    fn add(&mut self, name: &str, text: &str) -> usize {
        let starts = text.match_indices('\n').map(|(at, _)| at.saturating_add(1));
        self.files.push(File {
            name: name.into(),
            folder: Path::new(name).parent().unwrap_or(Path::new("")).to_owned(),
            text: text.to_owned(),
            lines: std::iter::once(0).chain(starts).collect(),
        });
        self.files.len().saturating_sub(1)
    }

    /// Remembers a complaint about `at`.
    pub(super) fn complain(&self, at: Span, mut diagnostic: Diagnostic) {
        diagnostic.message = mask::starred(&diagnostic.message);
        self.complaints.borrow_mut().push((at, diagnostic));
    }

    /// Never shows the text of `at`: it is a secret that is written out in the file.
    pub(super) fn mask(&self, at: Span) {
        self.masks.borrow_mut().push(at);
    }

    /// Whether nothing stops the start so far.
    pub(super) fn is_sound(&self) -> bool {
        !self.complaints.borrow().iter().any(|(_, d)| d.is_error())
    }

    /// All complaints in the order of the files, each with its place.
    pub(super) fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut complaints = self.complaints.take();
        complaints.sort_by_key(|(at, _)| *at);
        complaints
            .into_iter()
            .map(|(at, mut diagnostic)| {
                diagnostic.place = Some(self.place(at));
                diagnostic
            })
            .collect()
    }

    /// The folder of the file, which relative paths in it are relative to.
    pub(super) fn folder(&self, at: Span) -> &Path {
        self.files
            .get(at.file)
            .map_or(Path::new(""), |file| &file.folder)
    }

    /// File, line and column.
    pub(super) fn location(&self, at: Span) -> Location {
        let Place {
            file, line, column, ..
        } = self.place(at);
        Location { file, line, column }
    }

    /// The first line of the stretch. A stretch of several lines is marked to the end of the first.
    pub(super) fn place(&self, at: Span) -> Place {
        let Some(file) = self.files.get(at.file) else {
            return Place {
                file: "".into(),
                line: 1,
                column: 1,
                length: 1,
                source: String::new(),
            };
        };
        let line = file.lines.partition_point(|start| *start <= at.start);
        let start = line
            .checked_sub(1)
            .and_then(|index| file.lines.get(index))
            .copied()
            .unwrap_or(0);
        let source = file.line(line);
        let chars =
            |from: usize, to: usize| file.text.get(from..to).map_or(0, |s| s.chars().count());
        let column = chars(start, at.start).saturating_add(1);
        let line_end = start.saturating_add(source.len());
        Place {
            file: Arc::clone(&file.name),
            line,
            column,
            length: chars(at.start, at.end.min(line_end)).max(1),
            source: self.masked(at.file, start, source),
        }
    }

    /// A line with every secret in it starred out, character by character.
    fn masked(&self, file: usize, start: usize, line: &str) -> String {
        let masks = self.masks.borrow();
        let obvious = mask::hidden(line);
        let hidden = |at: usize| {
            let inside = |mask: &Span| mask.file == file && (mask.start..mask.end).contains(&at);
            masks.iter().any(inside)
        };
        line.char_indices()
            .map(|(at, c)| {
                if obvious.iter().any(|range| range.contains(&at))
                    || hidden(start.saturating_add(at))
                {
                    '*'
                } else {
                    c
                }
            })
            .collect()
    }

    /// The place from `column` to the end of a line, for complaints that know only where they are.
    pub(super) fn rest_of_line(&self, name: &str, line: usize, column: usize) -> Option<Place> {
        let index = self.files.iter().position(|file| &*file.name == name)?;
        let file = self.files.get(index)?;
        let text = file.line(line).trim_end();
        let start = *file.lines.get(line.checked_sub(1)?)?;
        let skipped = text.char_indices().nth(column.checked_sub(1)?);
        let skipped = skipped.map_or(text.len(), |(at, _)| at);
        Some(self.place(Span {
            file: index,
            start: start.saturating_add(skipped),
            end: start.saturating_add(text.len()),
        }))
    }
}

impl File {
    fn line(&self, number: usize) -> &str {
        let start = number
            .checked_sub(1)
            .and_then(|index| self.lines.get(index));
        start
            .and_then(|start| self.text.get(*start..)?.split('\n').next())
            .unwrap_or("")
            .trim_end_matches('\r')
    }
}

/// Reads one file's text. Syntax errors are complained about, all of them, and give no tree.
pub(super) fn read(
    files: &mut Files,
    name: &str,
    text: &str,
    around: &dyn Surroundings,
) -> Option<Table> {
    let file = files.add(name, text);
    let whole = Span {
        file,
        start: 0,
        end: 0,
    };
    if let Some(start) = too_deep(text) {
        let at = Span {
            file,
            start,
            end: start,
        };
        let deep = Diagnostic::error(
            "syntax",
            "more than a hundred points without a comma between them",
        );
        files.complain(
            at,
            deep.help("no key is so deep; break a long string into lines"),
        );
        return None;
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut last_line = 0;
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let at = Span {
            file,
            start: span.start,
            end: span.end,
        };
        // One slip makes the parser stumble several times; the first stumble on a line says most.
        let line = files.place(at).line;
        if line != last_line {
            files.complain(at, syntax(error));
        }
        last_line = line;
    }
    if !errors.is_empty() {
        return None;
    }
    let walk = Walk {
        files,
        around,
        file,
    };
    Some(walk.table(root.get_ref(), whole))
}

fn syntax(error: &toml::de::Error) -> Diagnostic {
    let message = error.message();
    let help = if message.contains("duplicate") {
        "a key is written once in its table; tables of the same kind need different names"
    } else {
        "this is not TOML: strings stand in quotes, tables are [name], lists of tables [[name]]"
    };
    Diagnostic::error("syntax", message).help(help)
}

/// Where a key is absurdly deep: the tree is walked, and dropped, recursively.
///
/// Counts points between commas of one line, whether in strings or not. Quotes are followed only so
/// far that a comma inside a quoted key does not start the count again.
fn too_deep(text: &str) -> Option<usize> {
    let (mut points, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in text.char_indices() {
        match c {
            '\n' => (points, quote) = (0, None),
            ',' if quote.is_none() => points = 0,
            '.' => points = points.saturating_add(1),
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ if quote == Some(c) && !escaped => quote = None,
            _ => {}
        }
        escaped = c == '\\' && quote == Some('"') && !escaped;
        if points > 100 {
            return Some(at);
        }
    }
    None
}

struct Walk<'a> {
    files: &'a Files,
    around: &'a dyn Surroundings,
    file: usize,
}

impl Walk<'_> {
    fn span<T>(&self, spanned: &Spanned<T>) -> Span {
        let range = spanned.span();
        Span {
            file: self.file,
            start: range.start,
            end: range.end,
        }
    }

    fn table(&self, table: &DeTable<'_>, at: Span) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().clone().into_owned(),
                at: self.span(key),
                node: self.node(value),
            })
            .collect();
        entries.sort_by_key(|entry| entry.at);
        Table { at, entries }
    }

    fn node(&self, spanned: &Spanned<DeValue<'_>>) -> Node {
        let at = self.span(spanned);
        let value = match spanned.get_ref() {
            DeValue::String(raw) => self.text(raw, at),
            DeValue::Integer(number) => {
                Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
            }
            DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(values) => Value::List(values.iter().map(|v| self.node(v)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table, at)),
        };
        Node { at, value }
    }

    fn text(&self, raw: &str, at: Span) -> Value {
        match secrets::expand(raw, self.files.folder(at), self.around) {
            Ok(expanded) => Value::Text(Text {
                value: expanded.value,
                raw: raw.to_owned(),
                is_secret: expanded.is_secret,
            }),
            Err(wrong) => {
                let diagnostic = Diagnostic::error(wrong.code, wrong.message).help(wrong.help);
                self.files.complain(at, diagnostic);
                Value::Broken
            }
        }
    }
}

/// Sorts errors before warnings and keeps the order of the files otherwise.
pub(super) fn errors_first(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|diagnostic| match diagnostic.severity {
        Severity::Error => 0,
        Severity::Warning => 1,
    });
}

//! What is declared by name, `[accept.NAME]`, over all files, and how other sections refer to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::document::{Files, Span, Table, Text, Value};
use super::keys::Section;
use super::reader::{Reader, help_for_name};

/// The declarations of one kind.
pub(super) struct Catalogue<T> {
    /// All names in the order of the files, also of declarations that are wrong in themselves.
    pub(super) names: Vec<Arc<str>>,
    /// Those that are right.
    pub(super) good: BTreeMap<Arc<str>, T>,
}

/// Letters, digits, `_` and `-`, 1 to 64: names are labels in metrics and parts of file names.
pub(super) fn is_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}

/// How to mend a name.
pub(super) const NAME_HELP: &str = "use 1 to 64 lower-case letters, digits, `-` and `_`";

/// Reads all tables `[kind.NAME]` with `build`; names are plain ([`is_name`]).
pub(super) fn read<T>(
    files: &Files,
    tables: &[Table],
    kind: &str,
    section: Section,
    build: impl FnMut(&Reader<'_>, &Arc<str>) -> Option<T>,
) -> Catalogue<T> {
    let plain = |name: &str, at| {
        if !is_name(name) {
            let wrong = Diagnostic::error("bad-name", format!("{name:?} is not a name"));
            files.complain(at, wrong.help(NAME_HELP));
        }
    };
    read_named(files, tables, kind, section, plain, build)
}

/// [`read`] for names that `judge` complains about itself.
pub(super) fn read_named<T>(
    files: &Files,
    tables: &[Table],
    kind: &str,
    section: Section,
    judge: impl Fn(&str, Span),
    mut build: impl FnMut(&Reader<'_>, &Arc<str>) -> Option<T>,
) -> Catalogue<T> {
    let mut all = Catalogue {
        names: Vec::new(),
        good: BTreeMap::new(),
    };
    let mut first: BTreeMap<&str, Span> = BTreeMap::new();
    let help = format!("write [{kind}.NAME]");
    for entry in tables.iter().filter_map(|table| table.get(kind)) {
        let Value::Table(group) = &entry.node.value else {
            let message = format!("`{kind}` must be tables, each with a name");
            files.complain(
                entry.node.at,
                Diagnostic::error("wrong-type", message).help(help.as_str()),
            );
            continue;
        };
        for entry in &group.entries {
            let Value::Table(table) = &entry.node.value else {
                let message = format!("`{kind}.{}` must be a table", entry.key);
                let wrong = Diagnostic::error("wrong-type", message);
                files.complain(entry.at, wrong.help(help.as_str()));
                continue;
            };
            if let Some(before) = first.get(entry.key.as_str()) {
                files.complain(entry.at, duplicate(files, kind, &entry.key, *before));
                continue;
            }
            first.insert(&entry.key, entry.at);
            judge(&entry.key, entry.at);
            let name: Arc<str> = entry.key.as_str().into();
            let reader = Reader::new(files, table, section, format!("[{kind}.{name}]"));
            if let Some(value) = build(&reader, &name) {
                all.good.insert(Arc::clone(&name), value);
            }
            all.names.push(name);
        }
    }
    all
}

/// Two declarations of one name, naming both places.
pub(super) fn duplicate(files: &Files, kind: &str, name: &str, before: Span) -> Diagnostic {
    let place = files.location(before);
    let message = format!(
        "the name \"{name}\" is taken by the {kind} at {}:{}:{}",
        place.file, place.line, place.column
    );
    Diagnostic::error("duplicate-name", message).help("give one of them another name")
}

impl<T> Catalogue<T> {
    fn known(&self) -> Vec<&str> {
        self.names.iter().map(|name| &**name).collect()
    }

    /// The declared name that a text means; complains when there is none.
    fn find(&self, reader: &Reader<'_>, kind: &str, text: &Text, at: Span) -> Option<Arc<str>> {
        let found = self.names.iter().find(|name| ***name == *text.value);
        if found.is_none() {
            let message = text.complaint(&format!("there is no {kind} \"{}\"", text.raw));
            let help = help_for_name(&text.raw, kind, &self.known());
            let unknown = Diagnostic::error("unknown-name", message);
            reader.files.complain(at, unknown.help(help));
        }
        found.cloned()
    }

    /// The one name that a key holds; the only declared one when the key is not there.
    pub(super) fn one(&self, reader: &Reader<'_>, key: &str, kind: &str) -> Option<Arc<str>> {
        if reader.has(key) {
            let (text, at) = reader.text(key)?;
            return self.find(reader, kind, text, at);
        }
        self.only(reader, key, kind)
    }

    /// The names that a key holds, each once; the only declared one when the key is not there.
    pub(super) fn several(
        &self,
        reader: &Reader<'_>,
        key: &str,
        kind: &str,
    ) -> Option<Vec<Arc<str>>> {
        if reader.has(key) {
            self.listed(reader, key, kind)
        } else {
            self.only(reader, key, kind).map(|name| vec![name])
        }
    }

    /// The names that a key holds, each once and at least one.
    pub(super) fn listed(
        &self,
        reader: &Reader<'_>,
        key: &str,
        kind: &str,
    ) -> Option<Vec<Arc<str>>> {
        let texts = reader.texts(key)?;
        if texts.is_empty() {
            let help = format!("name at least one {kind}, or leave the key out");
            reader.wrong(key, "empty-list", &format!("`{key}` is empty"), &help);
            return None;
        }
        let mut names = Vec::with_capacity(texts.len());
        for (text, at) in texts {
            let Some(name) = self.find(reader, kind, text, at) else {
                continue;
            };
            if names.contains(&name) {
                let twice =
                    Diagnostic::error("listed-twice", format!("\"{name}\" is listed twice"));
                reader.files.complain(at, twice.help("remove one of them"));
                continue;
            }
            names.push(name);
        }
        Some(names)
    }

    fn only(&self, reader: &Reader<'_>, key: &str, kind: &str) -> Option<Arc<str>> {
        match self.names.as_slice() {
            [only] => return Some(Arc::clone(only)),
            [] => reader.wrong_none(kind),
            [_, _, ..] => {
                let help = format!(
                    "there are several to choose from: {}",
                    self.known().join(", ")
                );
                reader.missing(key, &help);
            }
        }
        None
    }
}

impl Reader<'_> {
    fn wrong_none(&self, kind: &str) {
        let title = if self.title.is_empty() {
            "`unmatched`"
        } else {
            &self.title
        };
        let message = format!("{title} needs some [{kind}.NAME], and there is none");
        let diagnostic = Diagnostic::error("missing-table", message);
        let help = format!("write [{kind}.NAME]");
        self.files.complain(self.table.at, diagnostic.help(help));
    }
}

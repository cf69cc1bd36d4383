//! Reads typed values from one table, and complains about whatever does not fit.
//!
//! A value that is missing or wrong gives `None` or its default; the complaint is remembered, so
//! that everything wrong with a configuration is found in one run.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::Diagnostic;
use super::document::{Asked, Entry, Files, Node, Span, Table, Text, Value};
use super::keys::{self, Section};

/// One table, read key by key.
pub(super) struct Reader<'a> {
    pub(super) files: &'a Files,
    pub(super) table: &'a Table,
    section: Section,
    /// As messages call it: `[accept.base]`.
    pub(super) title: String,
}

/// The longest of the time-outs: one hour.
const TIMEOUT_MS: RangeInclusive<u64> = 1..=3_600_000;

impl<'a> Reader<'a> {
    /// Starts to read a table: complains about every key that the section does not have.
    pub(super) fn new(files: &'a Files, table: &'a Table, section: Section, title: String) -> Self {
        for entry in &table.entries {
            if !section.keys.contains(&entry.key.as_str()) {
                let place = if title.is_empty() { "" } else { " in " };
                let message = format!("unknown key `{}`{place}{title}", entry.key);
                let unknown = Diagnostic::error("unknown-key", message);
                files.complain(entry.at, unknown.help(keys::help_for(&entry.key, &section)));
            }
        }
        Self {
            files,
            table,
            section,
            title,
        }
    }

    /// Notes for the reference what may stand behind a key. Only the first word on it counts.
    pub(super) fn asks(&self, key: &str, kind: impl FnOnce() -> String) {
        self.note(key, |asked| {
            if asked.kind.is_empty() {
                asked.kind = kind();
            }
        });
    }

    /// Notes for the reference what is meant when a key is not there.
    pub(super) fn usual(&self, key: &str, usual: impl FnOnce() -> String) {
        self.note(key, |asked| asked.usual = Some(usual()));
    }

    fn note(&self, key: &str, write: impl FnOnce(&mut Asked)) {
        if cfg!(test) {
            debug_assert!(self.section.keys.contains(&key), "{key} is not listed");
            let key = (self.section.header, key.to_owned());
            write(self.files.asked.borrow_mut().entry(key).or_default());
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&'a Entry> {
        debug_assert!(self.section.keys.contains(&key), "{key} is not listed");
        self.table.get(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Where a key's value is, or the table's header when the key is not there.
    pub(super) fn at(&self, key: &str) -> Span {
        self.entry(key).map_or(self.table.at, |entry| entry.node.at)
    }

    /// Complains about a key's value.
    pub(super) fn wrong(&self, key: &str, code: &'static str, message: &str, help: &str) {
        let diagnostic = Diagnostic::error(code, message).help(help);
        self.files.complain(self.at(key), diagnostic);
    }

    /// Complains that a key is not there.
    pub(super) fn missing(&self, key: &str, help: &str) {
        let message = format!("{} has no `{key}`", self.title);
        let diagnostic = Diagnostic::error("missing-key", message).help(help);
        self.files.complain(self.table.at, diagnostic);
    }

    fn wrong_type(&self, key: &str, node: &Node, want: &str, help: String) {
        if matches!(node.value, Value::Broken) {
            return;
        }
        let message = format!("`{key}` must be {want}, this is {}", node.value.kind());
        let diagnostic = Diagnostic::error("wrong-type", message).help(help);
        self.files.complain(node.at, diagnostic);
    }

    /// A string.
    pub(super) fn text(&self, key: &str) -> Option<(&'a Text, Span)> {
        self.asks(key, || "text".to_owned());
        let node = &self.entry(key)?.node;
        if let Value::Text(text) = &node.value {
            return Some((text, node.at));
        }
        self.wrong_type(
            key,
            node,
            "a string",
            format!("write {key} = \"…\", in quotes"),
        );
        None
    }

    /// A string that must be there.
    pub(super) fn required(&self, key: &str, help: &str) -> Option<(&'a Text, Span)> {
        self.note(key, |asked| asked.is_required = true);
        if !self.has(key) {
            self.missing(key, help);
        }
        self.text(key)
    }

    /// A string that `parse` understands.
    pub(super) fn parsed<T, E: Display>(
        &self,
        key: &str,
        code: &'static str,
        help: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, at) = self.text(key)?;
        self.parse(text, at, code, help, parse)
    }

    /// What `parse` makes of a text, or a complaint that shows no secret.
    pub(super) fn parse<T, E: Display>(
        &self,
        text: &Text,
        at: Span,
        code: &'static str,
        help: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(&text.value) {
            Ok(value) => Some(value),
            Err(error) => {
                let diagnostic = Diagnostic::error(code, text.complaint(&error)).help(help);
                self.files.complain(at, diagnostic);
                None
            }
        }
    }

    /// One of a few words, or the default.
    pub(super) fn word_or<T: Copy + PartialEq>(
        &self,
        key: &str,
        default: T,
        words: &[(&str, T)],
    ) -> Option<T> {
        self.usual(key, || {
            let usual = words.iter().find(|(_, value)| *value == default);
            usual.map_or(String::new(), |(word, _)| format!("\"{word}\""))
        });
        if self.has(key) {
            return self.word(key, words);
        }
        self.asks(key, || listed(words));
        Some(default)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.asks(key, || listed(words));
        let (text, at) = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let message = text.complaint(&format!("`{key}` cannot be \"{}\"", text.raw));
            let diagnostic = Diagnostic::error("bad-value", message);
            self.files
                .complain(at, diagnostic.help(format!("write {}", listed(words))));
        }
        found.map(|(_, value)| *value)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str, default: bool) -> bool {
        self.usual(key, || default.to_string());
        self.flag(key).unwrap_or(default)
    }

    /// `true` or `false`, where there is no default.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.asks(key, || "true or false".to_owned());
        let entry = self.entry(key)?;
        if let Value::Boolean(value) = entry.node.value {
            return Some(value);
        }
        let help = format!("write {key} = true or {key} = false, without quotes");
        self.wrong_type(key, &entry.node, "true or false", help);
        None
    }

    /// An integer within a range, bounds included.
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.asks(key, || format!("{} to {}", range.start(), range.end()));
        let node = &self.entry(key)?.node;
        let bounds = format!("between {} and {}", range.start(), range.end());
        if let Value::Integer(number) = node.value {
            let value = number.and_then(|n| u64::try_from(n).ok());
            let value = value.filter(|n| range.contains(n));
            if value.is_none() {
                let message = format!("`{key}` must be {bounds}");
                let unit = unit_of(key).map_or(String::new(), |unit| format!(", in {unit}"));
                self.wrong(
                    key,
                    "out-of-range",
                    &message,
                    &format!("write an integer {bounds}{unit}"),
                );
            }
            return value;
        }
        let help = format!("write {key} = {}, without quotes", range.start().max(&1));
        self.wrong_type(key, node, "an integer", help);
        None
    }

    /// An integer within a range, or the default.
    pub(super) fn number(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.usual(key, || default.to_string());
        self.integer(key, range).unwrap_or(default)
    }

    /// An integer for something counted in memory.
    pub(super) fn size(&self, key: &str, default: usize, range: RangeInclusive<u64>) -> usize {
        self.usual(key, || default.to_string());
        let value = self.integer(key, range);
        value
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(default)
    }

    /// A small number.
    pub(super) fn count(&self, key: &str, default: u32, range: RangeInclusive<u64>) -> u32 {
        self.usual(key, || default.to_string());
        let value = self.integer(key, range);
        value.and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
    }

    /// A number of events that is not zero.
    pub(super) fn rate(&self, key: &str, default: u32) -> NonZeroU32 {
        let events = self.count(key, default, 1..=1_000_000_000);
        NonZeroU32::new(events).unwrap_or(NonZeroU32::MAX)
    }

    /// A time-out in milliseconds, from 1 to one hour: nothing waits for ever.
    pub(super) fn timeout(&self, key: &str, default_ms: u64) -> Duration {
        Duration::from_millis(self.number(key, default_ms, TIMEOUT_MS))
    }

    /// Whole seconds within a range.
    pub(super) fn seconds(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(key, default, range))
    }

    /// An array of strings; elements that are none are complained about and left out.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<(&'a Text, Span)>> {
        self.asks(key, || "list of texts".to_owned());
        let node = &self.entry(key)?.node;
        let help = || format!("write {key} = [\"…\", \"…\"]");
        let Value::List(nodes) = &node.value else {
            self.wrong_type(key, node, "an array of strings", help());
            return None;
        };
        let mut texts = Vec::with_capacity(nodes.len());
        for node in nodes {
            if let Value::Text(text) = &node.value {
                texts.push((text, node.at));
            } else {
                self.wrong_type(key, node, "an array of strings", help());
            }
        }
        Some(texts)
    }

    /// A table whose content is the reader's business.
    pub(super) fn table(&self, key: &str, help: &str) -> Option<&'a Table> {
        self.asks(key, || "table".to_owned());
        let node = &self.entry(key)?.node;
        if let Value::Table(table) = &node.value {
            return Some(table);
        }
        self.wrong_type(key, node, "a table", help.to_owned());
        None
    }

    /// A path, relative to the folder of the file that it is written in.
    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        self.asks(key, || "path".to_owned());
        let (text, at) = self.text(key)?;
        if text.value.is_empty() {
            self.wrong(
                key,
                "bad-path",
                &format!("`{key}` is empty"),
                "write the path of a file",
            );
            return None;
        }
        Some(self.files.folder(at).join(&text.value))
    }

    /// Warns that a key does nothing here.
    pub(super) fn idle(&self, keys: &[&str], because: &str) {
        for entry in keys.iter().filter_map(|key| self.entry(key)) {
            let message = format!("`{}` has no effect: {because}", entry.key);
            let diagnostic = Diagnostic::warning("no-effect", message);
            self.files.complain(entry.at, diagnostic.help("remove it"));
        }
    }
}

fn listed<T>(words: &[(&str, T)]) -> String {
    let words: Vec<_> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    words.join(" or ")
}

fn unit_of(key: &str) -> Option<&'static str> {
    if key.ends_with("_ms") {
        Some("milliseconds")
    } else if key.ends_with("_s") {
        Some("seconds")
    } else if key.contains("bytes") {
        Some("bytes")
    } else {
        None
    }
}

/// The candidate that was most likely meant, if any is near.
pub(super) fn closest<'c>(
    word: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How to mend a name that nothing has: the one that was meant, or all there are.
pub(super) fn help_for_name(word: &str, kind: &str, names: &[&str]) -> String {
    match closest(word, names.iter().copied()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None if names.is_empty() => format!("there is none; write [{kind}.{word}]"),
        None => format!("there is {}", names.join(", ")),
    }
}

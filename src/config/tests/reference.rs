//! `docs/configuration.md` is what the parser asks, with the words of `conf/full.toml`.
//!
//! Type, bounds and default of a key are noted by the reader while it reads, so they are those of the
//! program; that the words say nothing else is tested here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::super::document::{Asked, Files};
use super::super::keys::{RATE_LIMIT, SECTIONS, Section};
use super::super::secrets::Diskless;
use super::super::{document, settings as read_settings};
use super::*;

const FULL: &str = include_str!("../../../conf/full.toml");

/// What cannot stand beside the keys of `conf/full.toml`.
const ALTERNATIVES: &str = r#"
unmatched = "free"
unmatched_upstream = "api"
[ledger]
url = "postgres://farewall@localhost/farewall"
[server]
public_origin = "https://a.example"
[[listen]]
address = "127.0.0.1:1"
tls_cert = "a"
tls_key = "b"
acme = true
[[listen.tls]]
cert = "a"
key = "b"
[acme]
names = ["a.example"]
accept_terms = true
[facilitator.f]
url = "https://f.example"
[upstream.api]
url = "http://127.0.0.1:9000"
[[rule]]
name = "a"
path = "/a"
free = true
[[rule]]
name = "b"
path = "/b"
deny = true
"#;

type AllAsked = BTreeMap<(&'static str, String), Asked>;

fn asked() -> AllAsked {
    let around = Diskless { env: &no_env };
    let mut all = AllAsked::new();
    for text in [FULL, ALTERNATIVES] {
        let mut files = Files::default();
        let root = document::read(&mut files, "site.toml", text, &around).unwrap();
        let settings = read_settings(&files, &[root], &around);
        assert!(settings.is_some(), "{:#?}", files.diagnostics());
        for (key, asked) in files.asked.take() {
            all.entry(key).or_insert(asked);
        }
    }
    all
}

/// Some keys that one comment is about.
#[derive(Debug, Default)]
struct Group {
    keys: Vec<String>,
    words: Vec<String>,
}

/// One section: what stands above its header, and its keys.
#[derive(Debug, Default)]
struct Part {
    header: String,
    words: Vec<String>,
    groups: Vec<Group>,
}

/// The header of the section that a line opens.
fn opened(line: &str) -> Option<&'static Section> {
    let named = ["x402", "base-sepolia", "api"];
    let mut header = line.to_owned();
    for name in named {
        header = header.replace(&format!(".{name}"), ".NAME");
    }
    let mut sections = SECTIONS.iter();
    sections.find(|section| !section.header.is_empty() && section.header == header)
}

fn parts() -> Vec<Part> {
    let mut parts = vec![Part::default()];
    let (mut section, mut words): (&Section, Vec<String>) = (&SECTIONS[0], Vec::new());
    let mut is_after_key = false;
    for line in FULL.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let key = bare.split_once(" = ").map(|(key, _)| key);
        if let Some(next) = opened(bare) {
            section = next;
            parts.push(Part {
                header: next.header.to_owned(),
                words: std::mem::take(&mut words),
                groups: Vec::new(),
            });
        } else if let Some(key) = key.filter(|key| section.keys.contains(key)) {
            let part = parts.last_mut().unwrap();
            if !is_after_key {
                let words = std::mem::take(&mut words);
                part.groups.push(Group {
                    keys: Vec::new(),
                    words,
                });
            }
            let group = part.groups.last_mut();
            group.unwrap().keys.push(key.to_owned());
        } else if line.is_empty() {
            let part = parts.last_mut().unwrap();
            if part.header.is_empty() && part.groups.is_empty() {
                part.words.append(&mut words);
            }
            assert!(words.is_empty(), "a comment about nothing: {words:?}");
        } else {
            assert!(line.starts_with('#'), "no key that is known: {line}");
            words.push(bare.trim_start_matches('#').to_owned());
        }
        is_after_key = key.is_some_and(|key| section.keys.contains(&key));
    }
    parts
}

/// Words as Markdown: what it would take for its own is escaped, examples are code.
fn markdown(words: &[String]) -> String {
    let mut text = String::new();
    for line in words {
        if !text.is_empty() {
            text.push(' ');
        }
        if line.starts_with("  ") {
            let _ = write!(text, "`{}`", line.trim());
            continue;
        }
        for (index, piece) in line.split('`').enumerate() {
            if index > 0 {
                text.push('`');
            }
            for c in piece.chars() {
                if index % 2 == 0 && "*<>$_[]".contains(c) {
                    text.push('\\');
                }
                text.push(c);
            }
        }
    }
    text
}

fn facts(asked: Option<&Asked>) -> String {
    let Some(asked) = asked else {
        return String::new();
    };
    let kind = Some(asked.kind.clone()).filter(|kind| !kind.is_empty());
    let required = asked.is_required.then(|| "required".to_owned());
    let usual = asked
        .usual
        .as_ref()
        .map(|usual| format!("default {}", as_code(usual)));
    let facts: Vec<_> = [kind, required, usual].into_iter().flatten().collect();
    if facts.is_empty() {
        return String::new();
    }
    format!(" ({})", facts.join("; "))
}

/// Values are code, sentences are not.
fn as_code(usual: &str) -> String {
    let is_value = usual.starts_with(['"', '[']) || !usual.contains(' ');
    if is_value {
        format!("`{usual}`")
    } else {
        usual.to_owned()
    }
}

fn reference() -> String {
    let asked = asked();
    let mut page = String::from(HEAD);
    for part in parts() {
        let header = match part.header.as_str() {
            "" => "The top of the file".to_owned(),
            header => format!("`{header}`"),
        };
        let static_header = static_header(&part.header);
        let _ = write!(page, "\n## {header}\n");
        if !part.words.is_empty() && !part.header.is_empty() {
            let _ = write!(page, "\n{}\n", markdown(&part.words));
        }
        page.push('\n');
        for group in &part.groups {
            let keys = group.keys.iter().map(|key| {
                let facts = facts(asked.get(&(static_header, key.clone())));
                format!("**`{key}`**{facts}")
            });
            let keys: Vec<_> = keys.collect();
            let words = markdown(&group.words);
            let about = if words.is_empty() { "" } else { ": " };
            let _ = writeln!(page, "* {}{about}{words}", keys.join(", "));
            if group.keys.iter().any(|key| key == "rate_limit") {
                for key in RATE_LIMIT.keys {
                    let facts = facts(asked.get(&(RATE_LIMIT.header, (*key).to_owned())));
                    let _ = writeln!(page, "  * `{key}`{facts}");
                }
            }
        }
    }
    page
}

fn static_header(header: &str) -> &'static str {
    SECTIONS.iter().find(|s| s.header == header).unwrap().header
}

const HEAD: &str = "# Which keys does the configuration have?

All of them, by section. Type, bounds and default are noted by the parser itself, and the words are those of
[conf/full.toml](../conf/full.toml), a file that loads; this page is written from the two, and a test compares. To write it
again: `FAREWALL_WRITE_DOCS=1 cargo test --lib configuration_reference`.

The file is TOML. A key that is not here is refused. Numbers are integers; prices are text. What a mistake is called, and how it is
mended, is in [complaints.md](complaints.md); what a reload takes over, in [operate-reload.md](operate-reload.md). `farewall check` says
what is wrong with a file, all at once.

Strings may hold `${NAME}`, which is replaced by an environment variable (`$${` stands for `${` itself), and a string `\"file:/path\"` is
replaced by that file's content. Relative paths are relative to the file that they are written in.
";

#[test]
fn configuration_reference_is_what_the_parser_asks() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let reference = reference();
    if std::env::var_os("FAREWALL_WRITE_DOCS").is_some() {
        fs::write(&path, &reference).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap() == reference,
        "docs/configuration.md is old: FAREWALL_WRITE_DOCS=1 cargo test --lib configuration_reference"
    );
}

/// Tables have a section of their own; the parser reads `include` before it has a reader.
fn is_table(header: &str, key: &str) -> bool {
    let tables = SECTIONS[0].keys.iter().skip(3);
    header.is_empty() && tables.clone().any(|table| *table == key)
        || (header == "[[listen]]" && key == "tls")
        || (header == "[upstream.NAME]" && key == "health")
}

#[test]
fn every_key_of_the_parser_has_words_and_was_asked_for() {
    let (parts, asked) = (parts(), asked());
    for section in SECTIONS {
        for key in section
            .keys
            .iter()
            .filter(|key| !is_table(section.header, key))
        {
            let part = parts.iter().find(|part| part.header == section.header);
            let group = part.and_then(|part| {
                let mut groups = part.groups.iter();
                groups.find(|group| group.keys.iter().any(|name| name == key))
            });
            let place = format!("{} {key}", section.header);
            let group = group.unwrap_or_else(|| panic!("{place} is not in conf/full.toml"));
            let words = group.words.len() + part.unwrap().words.len();
            assert!(words > 0, "{place} has no words");
            let known = asked.get(&(section.header, (*key).to_owned()));
            assert!(
                *key == "include" || known.is_some(),
                "{place} is never read"
            );
        }
    }
    for (header, key) in asked.keys() {
        let listed = SECTIONS.iter().chain([&RATE_LIMIT]);
        let mut listed = listed.filter(|section| section.header == *header);
        assert!(
            listed.any(|section| section.keys.contains(&key.as_str())),
            "{key}"
        );
    }
}

/// The ways in which a number is written.
fn spellings(number: u64) -> Vec<String> {
    let mut all = vec![number.to_string()];
    for (unit, name) in [(1 << 10, "KiB"), (1 << 20, "MiB"), (1_000_000, "million")] {
        if let (Some(whole), Some(0)) = (number.checked_div(unit), number.checked_rem(unit)) {
            all.push(format!("{whole} {name}"));
        }
    }
    all
}

/// What `A to B` in the words says: a number, and how the other is written.
fn ranges(words: &str) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for (at, _) in words.match_indices(" to ") {
        let (before, after) = words.split_at(at);
        let before = before.rsplit(' ').next().and_then(|word| word.parse().ok());
        let mut after = after.split_whitespace().skip(1);
        let (number, unit) = (after.next().unwrap_or(""), after.next().unwrap_or(""));
        let bare = number.trim_end_matches([',', ';', '.']);
        let unit = unit.trim_end_matches([',', ';', '.']);
        if let (Some(before), Ok(_)) = (before, bare.parse::<u64>()) {
            let has_unit = bare == number && ["KiB", "MiB", "million"].contains(&unit);
            let high = if has_unit {
                format!("{bare} {unit}")
            } else {
                bare.to_owned()
            };
            found.push((before, high));
        }
    }
    found
}

#[test]
fn the_words_about_a_key_say_what_the_parser_does() {
    let asked = asked();
    for part in parts() {
        let header = static_header(&part.header);
        for group in &part.groups {
            let words = group.words.join(" ");
            let mut known: Vec<_> = group
                .keys
                .iter()
                .filter_map(|key| Some((key, asked.get(&(header, key.clone()))?)))
                .collect();
            let nested: Vec<_> = RATE_LIMIT
                .keys
                .iter()
                .map(|key| (*key).to_owned())
                .collect();
            if group.keys == ["rate_limit"] {
                let inner = |key| Some((key, asked.get(&(RATE_LIMIT.header, String::clone(key)))?));
                known.extend(nested.iter().filter_map(inner));
            }
            for (key, asked) in &known {
                let place = format!("{header} {key}: {words}");
                assert!(!asked.is_required || words.contains("Required"), "{place}");
                let Some(usual) = &asked.usual else { continue };
                let spelled = usual
                    .parse()
                    .map_or_else(|_| vec![usual.clone()], spellings);
                let is_said = spelled
                    .iter()
                    .any(|spelled| words.contains(spelled.as_str()));
                let as_here = words.contains("Default: as here") && FULL.contains(usual.as_str());
                assert!(
                    is_said && words.contains("efault") || as_here,
                    "{usual}, {place}"
                );
            }
            for (low, high) in ranges(&words) {
                let bounds = |asked: &Asked| -> Option<(u64, u64)> {
                    let (a, b) = asked.kind.split_once(" to ")?;
                    Some((a.parse().ok()?, b.parse().ok()?))
                };
                let mut bounds = known
                    .iter()
                    .filter_map(|(_, asked)| bounds(asked))
                    .peekable();
                // What a text or a list may hold is not known as numbers.
                let is_text = bounds.peek().is_none();
                let is_real = bounds.any(|(a, b)| a == low && spellings(b).contains(&high));
                assert!(is_text || is_real, "{low} to {high}: {header} {words}");
            }
        }
    }
}

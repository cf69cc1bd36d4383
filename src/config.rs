//! The configuration: from TOML text to checked [`Settings`], with every complaint at once.
//!
//! ```text
//! text ─▶ document (tree with places) ─▶ include ─▶ sections (server, facilitator, accept, upstream, rule) ─▶ Settings
//! ```
//!
//! [`lint()`] then says what is allowed but hardly meant. What needs the routes is in `route`.

pub mod settings;
pub mod codes;
pub mod diagnostic;
pub mod keys;
mod mask;
mod secrets;
mod document;
mod reader;
mod values;
mod include;
mod named;
mod server;
mod acme;
mod forward_auth;
pub mod ledger;
mod facilitator;
mod accept;
mod network;
mod upstream;
mod rule;
mod log;
mod shown;
mod lint;
pub mod restart;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::diagnostic::Diagnostic;
use self::document::{Files, Span, Table, Value};
use self::named::Catalogue;
use self::secrets::{Diskless, Machine, Surroundings};
use self::settings::{ControlSettings, LedgerSettings, Settings, Unmatched};

pub use self::lint::lint;
pub use self::shown::shown;

/// A configuration that the wall can start with.
pub struct Loaded {
    /// The checked values.
    pub settings: Settings,
    /// What the reader noticed that does not stop the start. [`lint()`] and `route` know more.
    pub warnings: Vec<Diagnostic>,
    files: Files,
    places: BTreeMap<String, Span>,
}

/// Everything that is wrong with a configuration, warnings included.
#[derive(Clone, Debug, Error)]
pub struct Report {
    /// In the order of the files, errors first; at least one is an error.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text of the files may hold secrets that are written out.
        f.debug_struct("Loaded")
            .field("settings", &self.settings)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            write!(f, "{diagnostic}\n\n")?;
        }
        f.write_str(&diagnostic::summary(&self.diagnostics))
    }
}

impl Loaded {
    /// Adds file, line and text to a complaint that knows only its key or its location.
    ///
    /// A key that is not written (its default is meant) is shown at the table it belongs to.
    #[must_use]
    pub fn locate(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        let known = match (&diagnostic.place, &diagnostic.key) {
            (Some(place), _) if place.source.is_empty() => {
                self.files
                    .rest_of_line(&place.file, place.line, place.column)
            }
            (Some(_), _) | (None, None) => None,
            (None, Some(key)) => self.place_of(key).map(|at| self.files.place(at)),
        };
        diagnostic.place = known.or(diagnostic.place);
        diagnostic
    }

    fn place_of(&self, key: &str) -> Option<Span> {
        let mut key = key;
        loop {
            if let Some(at) = self.places.get(key) {
                return Some(*at);
            }
            key = key.rsplit_once('.')?.0;
        }
    }
}

/// Reads a configuration file with its includes, environment variables and secret files.
///
/// # Errors
///
/// A [`Report`] of everything that is wrong, when anything is.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    load_with(path, &|name| std::env::var(name).ok())
}

/// [`load`] with environment variables from `env`.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    let machine = Machine { env };
    let name = path.to_string_lossy();
    let text = machine.read(path).map_err(|error| {
        let unreadable =
            Diagnostic::error("unreadable-file", format!("cannot read {name}: {error}"));
        Report {
            diagnostics: vec![unreadable.help("`farewall init` writes a first configuration")],
        }
    })?;
    read(&text, &name, &machine)
}

/// Where the wall that runs this configuration is told commands, whatever else is wrong with it;
/// `None` when it says that there is no such place.
#[must_use]
pub fn control_of(path: &Path) -> Option<ControlSettings> {
    let machine = Machine {
        env: &|name| std::env::var(name).ok(),
    };
    let name = path.to_string_lossy();
    let text = machine.read(path).unwrap_or_default();
    let mut files = Files::default();
    let root = document::read(&mut files, &name, &text, &machine).or_else(|| {
        files = Files::default();
        document::read(&mut files, &name, "", &machine)
    })?;
    let top = reader::Reader::new(&files, &root, keys::TOP, String::new());
    let beside = beside(&top, ledger::ledger(&top).0.as_ref());
    server::control(&top, &machine, beside.as_deref())
}

/// What the control socket is named after, when nobody named it.
fn beside(top: &reader::Reader<'_>, ledger: Option<&LedgerSettings>) -> Option<PathBuf> {
    Some(match ledger? {
        LedgerSettings::File(path) => path.clone(),
        LedgerSettings::Server(_) => top.files.folder(top.table.at).join("farewall"),
    })
}

/// Reads a configuration from text. Touches no disk: `include` and `file:` are errors here.
///
/// `file_name` stands in messages, and relative paths are relative to its folder.
///
/// # Errors
///
/// A [`Report`] of everything that is wrong, when anything is.
pub fn parse(
    text: &str,
    file_name: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Report> {
    read(text, file_name, &Diskless { env })
}

fn read(text: &str, name: &str, around: &dyn Surroundings) -> Result<Loaded, Report> {
    let mut files = Files::default();
    let tables = document::read(&mut files, name, text, around)
        .and_then(|root| include::follow(&mut files, root, name, around));
    let settings = tables
        .as_deref()
        .and_then(|tables| settings(&files, tables, around))
        .filter(|_| files.is_sound());
    let mut diagnostics = files.diagnostics();
    match settings {
        Some(settings) => Ok(Loaded {
            settings,
            warnings: diagnostics,
            places: tables.as_deref().map(places).unwrap_or_default(),
            files,
        }),
        None => {
            document::errors_first(&mut diagnostics);
            Err(Report { diagnostics })
        }
    }
}

/// All sections, each complaining for itself; `None` when something without a default is missing.
fn settings(files: &Files, tables: &[Table], around: &dyn Surroundings) -> Option<Settings> {
    let root = tables.first()?;
    let top = reader::Reader::new(files, root, keys::TOP, String::new());
    let (ledger, retention_days) = ledger::ledger(&top);
    let folder = top.files.folder(root.at);
    let beside = beside(&top, ledger.as_ref());
    let server = server::server(&top, around, beside.as_deref());
    let listeners = server::listeners(&top, around);
    let limits = server::limits(&top);
    let state_folder = match &ledger {
        Some(LedgerSettings::File(path)) => path.parent().unwrap_or(Path::new("")),
        Some(LedgerSettings::Server(_)) | None => folder,
    };
    let cors = server::cors(&top);
    if let Some(server) = &server {
        server::distinct_addresses(&top, server, &listeners);
    }
    let acme = acme::acme(&top, around, state_folder, server.as_ref(), &listeners);
    let facilitators = named::read(
        files,
        tables,
        "facilitator",
        keys::FACILITATOR,
        |reader, name| facilitator::facilitator(reader, name, state_folder),
    );
    let accepts = named::read(files, tables, "accept", keys::ACCEPT, |reader, name| {
        accept::accept(reader, name, &facilitators)
    });
    let upstreams = named::read(
        files,
        tables,
        "upstream",
        keys::UPSTREAM,
        upstream::upstream,
    );
    let networks = network::networks(files, tables, &accepts.good);
    let shadow = server.as_ref().is_some_and(|server| server.shadow);
    let unmatched = unmatched(&top, &upstreams, shadow);
    let context = rule::Context {
        accepts: &accepts,
        upstreams: &upstreams,
        limits: &limits,
        shadow,
        is_only_asked: forward_auth::is_only_asked(&listeners),
    };
    let rules = rule::rules(files, tables, &context);
    Some(Settings {
        server: server?,
        listeners,
        limits,
        ledger: ledger?,
        retention_days,
        facilitators: facilitators.good,
        accepts: accepts.good,
        upstreams: upstreams.good,
        rules,
        unmatched: unmatched?,
        cors,
        networks,
        log: log::log(&top),
        acme,
    })
}

fn unmatched<T>(
    top: &reader::Reader<'_>,
    upstreams: &Catalogue<T>,
    shadow: bool,
) -> Option<Unmatched> {
    let is_free = top.word_or("unmatched", false, &[("deny", false), ("free", true)])?;
    if is_free {
        let upstream = upstreams.one(top, "unmatched_upstream", "upstream")?;
        return Some(Unmatched::Free(upstream));
    }
    if shadow {
        let upstream = upstreams.one(top, "unmatched_upstream", "upstream")?;
        return Some(Unmatched::Shadow(upstream));
    }
    top.idle(&["unmatched_upstream"], "unmatched requests are denied");
    Some(Unmatched::Deny)
}

/// Where every dotted key is written; rules by their name.
fn places(tables: &[Table]) -> BTreeMap<String, Span> {
    let mut places = BTreeMap::new();
    for table in tables {
        add_places(&mut places, "", table);
    }
    places
}

fn add_places(places: &mut BTreeMap<String, Span>, above: &str, table: &Table) {
    for entry in &table.entries {
        let key = format!("{above}{}", entry.key);
        match &entry.node.value {
            Value::Table(inner) => add_places(places, &format!("{key}."), inner),
            Value::List(nodes) if key == "rule" => {
                for node in nodes {
                    add_rule(places, node);
                }
            }
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime
            | Value::List(_)
            | Value::Broken => {}
        }
        places.entry(key).or_insert(entry.node.at);
    }
}

fn add_rule(places: &mut BTreeMap<String, Span>, node: &document::Node) {
    let Value::Table(rule) = &node.value else {
        return;
    };
    let name = rule.get("name").map(|entry| &entry.node.value);
    if let Some(Value::Text(name)) = name {
        let key = format!("rule.{}", name.value);
        add_places(places, &format!("{key}."), rule);
        places.insert(key, node.at);
    }
}

//! Everything that there is to say about a configuration that could be read.

use crate::config::diagnostic::Diagnostic;
use crate::config::settings::Settings;
use crate::config::{self, Loaded};
use crate::facilitator::supported::SupportedBook;
use crate::route::{RouteError, RouteTable, lint};

/// Everything that is known about a configuration that could be read.
#[must_use]
pub fn complaints(loaded: &Loaded) -> Vec<Diagnostic> {
    judged(loaded).0
}

/// The same, and the table that was made to find out, if it could be made: for
/// [`RouteTable::completed`].
#[must_use]
pub fn judged(loaded: &Loaded) -> (Vec<Diagnostic>, Option<RouteTable>) {
    // EVERY SOURCE OF COMPLAINTS IS NAMED HERE, and nowhere else.
    let settings = &loaded.settings;
    let (about_routes, table) = routes(settings);
    let found = [
        loaded.warnings.clone(),
        config::lint(settings),
        about_routes,
    ];
    let mut found: Vec<_> = found
        .into_iter()
        .flatten()
        .map(|d| loaded.locate(d))
        .collect();
    found.sort_by_key(|diagnostic| diagnostic.severity);
    (found, table)
}

/// What the route table says: contradictions are errors, oddities are warnings.
fn routes(settings: &Settings) -> (Vec<Diagnostic>, Option<RouteTable>) {
    // What facilitators handle is checked when the wall starts: nobody is asked here.
    match RouteTable::build(settings, &SupportedBook::new()) {
        Err(errors) => (errors.iter().map(error).collect(), None),
        Ok(table) => {
            let notes = lint::lint(settings, &table).into_iter().map(|note| {
                Diagnostic::warning(note.kind.code(), note.message)
                    .at(&note.at)
                    .help(note.help)
            });
            (notes.collect(), Some(table))
        }
    }
}

/// A rule that cannot be made into a route, as a complaint with its place.
#[must_use]
pub fn error(error: &RouteError) -> Diagnostic {
    let complaint = Diagnostic::error(error.fault.code(), error.to_string());
    complaint.at(&error.at).help(error.fault.help())
}

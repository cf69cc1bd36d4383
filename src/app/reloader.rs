//! Takes over a changed configuration: read and judged whole, put in place in one step, or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::admin::InForce;
use crate::app::generation::{Parts, gate_limits, trusted_peers};
use crate::config::diagnostic::Diagnostic;
use crate::config::restart::needs_restart;
use crate::config::settings::Settings;
use crate::config::{self, Loaded};
use crate::facilitator::supported::LoadedBook;
use crate::gate::Settler;
use crate::log;
use crate::proxy::{Connections, Generation};
use crate::reconcile::Sources;
use crate::reload::{Answer, ReloadError, Report, Requests};
use crate::route::RouteTable;
use crate::route::changes::changes;
use crate::route::complaints::{self, complaints};

/// How often `/supported` is asked again while a rule lacks offers because of it.
const SUPPORTED_RETRY: Duration = Duration::from_secs(15);

/// What is reached by a reload.
pub(super) struct Reloader {
    /// Where the configuration is read from; `None` when it came from nowhere.
    pub(super) config: Option<PathBuf>,
    /// What is in force. Only this changes it.
    pub(super) parts: Parts,
    pub(super) in_force: Arc<ArcSwap<Generation>>,
    /// The same for the admin API.
    pub(super) shown: Arc<ArcSwap<InForce>>,
    pub(super) settler: Arc<Settler>,
    pub(super) sources: Arc<ArcSwap<Sources>>,
    pub(super) connections: Arc<Connections>,
    /// Whether another process takes the place of this one, and has perhaps read the file already.
    pub(super) is_replaced: Arc<AtomicBool>,
    pub(super) runtime: Handle,
}

/// Serves requests for reloads, one after the other, and looks for offers that are missing.
pub(super) async fn run(reloader: Reloader, mut requests: Requests) {
    let reloader = Arc::new(Mutex::new(reloader));
    loop {
        let is_incomplete = reloader.lock().is_incomplete();
        let batch = tokio::select! {
            batch = requests.next() => match batch {
                Some(batch) => Some(batch),
                None => return,
            },
            () = sleep(SUPPORTED_RETRY), if is_incomplete => None,
        };
        let worked = Arc::clone(&reloader);
        // Files are read, names resolved and routes built: not on a thread that others wait for.
        let work = tokio::task::spawn_blocking(move || {
            let mut reloader = worked.lock();
            match batch {
                Some(batch) => {
                    let answer = reloader.reload();
                    tell(&answer);
                    batch.answer(&answer);
                }
                None => reloader.complete(),
            }
        });
        if work.await.is_err() {
            tracing::error!("the reload broke off; the old configuration stays");
        }
    }
}

/// Writes the log about it.
fn tell(answer: &Answer) {
    match answer {
        Ok(report) => {
            for warning in &report.warnings {
                tracing::warn!(%warning, "reload");
            }
            for change in &report.changes {
                tracing::info!(%change, "reload");
            }
            let changes = report.changes.len();
            tracing::info!(changes, "the configuration was reloaded");
        }
        Err(error) => {
            for diagnostic in error.diagnostics() {
                tracing::error!(%diagnostic, "reload");
            }
            tracing::error!("the configuration was not reloaded; the old one stays");
        }
    }
}

fn refused(diagnostic: Diagnostic) -> ReloadError {
    ReloadError::Refused(vec![diagnostic])
}

impl Reloader {
    fn is_incomplete(&self) -> bool {
        !self.in_force.load().gate.routes().missing().is_empty()
    }

    fn reload(&mut self) -> Answer {
        if self.is_replaced.load(Ordering::SeqCst) {
            return Err(ReloadError::BeingReplaced);
        }
        let Some(path) = &self.config else {
            let why = "this wall was not started from a file";
            return Err(refused(Diagnostic::error("no-file", why)));
        };
        let loaded = config::load(path).map_err(|r| ReloadError::Refused(r.diagnostics))?;
        let mut found = complaints(&loaded);
        if found.iter().any(Diagnostic::is_error) {
            return Err(ReloadError::Refused(found));
        }
        let restart = needs_restart(&self.parts.settings, &loaded.settings);
        if !restart.is_empty() {
            let located = restart.into_iter().map(|d| loaded.locate(d));
            return Err(ReloadError::Refused(located.collect()));
        }
        let changes = changes(&self.parts.settings, &loaded.settings);
        if self.has_other_filter(&loaded.settings) && log::is_set_by_environment() {
            let message = "the environment variable RUST_LOG goes before `log.filter`";
            let unheard = Diagnostic::warning("unused-filter", message).about("log.filter");
            found.push(loaded.locate(unheard));
        }
        let (parts, routes, supported) = self.prepare(&loaded)?;
        parts.keep(&supported);
        self.put_in_place(parts, routes);
        Ok(Report {
            changes,
            warnings: found,
        })
    }

    /// Everything that may fail. Nothing is changed by it.
    fn prepare(&self, loaded: &Loaded) -> Result<(Parts, RouteTable, LoadedBook), ReloadError> {
        let settings = loaded.settings.clone();
        let parts = Parts::new(settings, Some(&self.parts), &self.runtime)
            .map_err(|error| refused(Diagnostic::error("cannot-apply", error.to_string())))?;
        let supported = self.runtime.block_on(parts.supported());
        let routes = RouteTable::build(&parts.settings, &supported.book).map_err(|errors| {
            let located = errors.iter().map(|e| loaded.locate(complaints::error(e)));
            ReloadError::Refused(located.collect())
        })?;
        Ok((parts, routes, supported))
    }

    /// Cannot fail. Requests that have begun keep what they began with.
    fn put_in_place(&mut self, parts: Parts, routes: RouteTable) {
        let before = self.in_force.load_full();
        let anew = !parts.asks_as(&self.parts);
        // Before a request can settle through them.
        self.settler.known().replace(parts.facilitators.clone());
        let sources = parts.sources().after(&self.sources.load());
        self.sources.store(Arc::new(sources));
        let verifier = before.gate.verifier();
        let verifier = verifier.successor(parts.facilitators.clone(), anew);
        let limits = gate_limits(&parts.settings.limits);
        let gate = before.gate.successor(routes, verifier, limits);
        self.connections.trust(trusted_peers(&parts.settings));
        let rules = Arc::new(parts.generation(gate));
        self.in_force.store(Arc::clone(&rules));
        let shown = InForce::new(parts.settings.clone(), rules);
        self.shown.store(Arc::new(shown));
        self.filter_log(&parts.settings);
        self.parts = parts;
    }

    fn has_other_filter(&self, next: &Settings) -> bool {
        next.log.filter != self.parts.settings.log.filter
    }

    /// The log is heard under the filter of `next`, unless the environment goes before it.
    fn filter_log(&self, next: &Settings) {
        if !self.has_other_filter(next) || log::is_set_by_environment() {
            return;
        }
        if let Err(error) = log::set_filter(&next.log.filter) {
            tracing::warn!(%error, "the log keeps its old filter");
        }
    }

    /// Asks `/supported` again, for ways of being paid that could not be offered so far.
    fn complete(&mut self) {
        let supported = self.runtime.block_on(self.parts.supported());
        match RouteTable::build(&self.parts.settings, &supported.book) {
            Ok(routes) => {
                self.parts.keep(&supported);
                let missing = routes.missing().len();
                if self.in_force.load().gate.routes().missing() == routes.missing() {
                    return;
                }
                self.put_in_place(self.parts.clone(), routes);
                if missing == 0 {
                    tracing::info!("every way of being paid is available now");
                }
            }
            Err(errors) => {
                let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
                let errors = errors.join("\n");
                tracing::error!(%errors, "cannot offer all ways of being paid");
            }
        }
    }
}

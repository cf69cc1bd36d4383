//! Settings become a running wall: the only place that wires.

mod certificates;
mod ending;
mod files;
pub(crate) mod generation;
mod listening;
mod manager;
mod sockets;
mod passing;
mod upgrade;
mod succession;
mod operator;
mod reloader;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::server::{RunArgs, Server};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};

use self::ending::Ending;
use self::generation::{Parts, gate_limits};
use self::listening::{connections, server};
use self::operator::{Desk, admin_token, hear_signals};
use self::passing::Place;
use self::reloader::Reloader;
use self::succession::{Beside, Predecessor, Succession};
use self::upgrade::{Kit, Starter, Upgrade, Upgrader};
use crate::acme::AcmeError;
use crate::admin::{AdminParts, InForce, TokenError};
use crate::chain_rpc;
use crate::clock::{Clock, SystemClock};
use crate::config::settings::{LedgerSettings, Settings};
use crate::facilitator::http::BuildError;
use crate::facilitator::supported::SupportedBook;
use crate::failpoint::{Step, arm, reach};
use crate::gate::{Gate, GateParts, Settler};
use crate::kept::KeptResponses;
use crate::ledger::observed::Observed;
use crate::ledger::opening::open_for_wall;
use crate::ledger::sqlite::presence::{Presence, PresenceError};
use crate::ledger::{Ledger, LedgerError};
use crate::metrics;
use crate::otlp::{self, OtlpError};
use crate::priority::after_requests;
use crate::proof::cache::VerdictCache;
use crate::proof::verify::Verifier;
use crate::proxy::{Generation, Wall};
use crate::reconcile::{Errand, Reconciler, Sources};
use crate::reload;
use crate::reload::control::Servants;
use crate::reload::upgrade::Orders;
use crate::retention::Retention;
use crate::route::{RouteError, RouteTable};
use crate::upstream::UpstreamError;

use sockets::Sockets;
pub use sockets::{Inherited, SocketError};
pub use succession::Reporter;

/// Why the wall does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Rules that contradict one another or the facilitators.
    #[error("{}", lines(.0))]
    Routes(Vec<RouteError>),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A facilitator's client cannot be built.
    #[error(transparent)]
    Facilitator(#[from] BuildError),
    /// A chain cannot be asked.
    #[error(transparent)]
    Chain(#[from] chain_rpc::BuildError),
    /// An upstream cannot be used.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// No socket to listen on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A socket, file or thread.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Certificate or key.
    #[error("listener {address}: {cause}")]
    Tls {
        /// The listener.
        address: String,
        /// What is wrong.
        cause: String,
    },
    /// The state folder of `[acme]`, or the authorities of its server.
    #[error("[acme] {0}")]
    Acme(#[from] AcmeError),
    /// Two walls on one ledger: the start of the second would give back what the first has claimed.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// A payment that the ledger of the wall before knows would be new to this one.
    #[error("the ledger is not that of the wall to be replaced; that needs a restart")]
    OtherLedger,
    /// Nobody to send traces to.
    #[error("otlp_endpoint: {0}")]
    Otlp(#[from] OtlpError),
    /// The token of the admin API.
    #[error("admin_token_file: {0}")]
    AdminToken(#[from] TokenError),
    /// TLS to upstreams and facilitators needs to know whom to trust.
    #[error(
        "no certificate authorities found; install the package ca-certificates, \
         or name a PEM bundle in [server] ca_file"
    )]
    NoAuthorities,
}

fn lines(errors: &[RouteError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A wall that is ready to run.
pub struct App {
    server: Server,
    // Payments run here: it outlives requests, connections and pingora's own runtimes.
    payments: Runtime,
    ending: Ending,
}

impl App {
    /// Opens, connects and binds everything that the settings name, but for the sockets that
    /// were handed over. `routes` is the table of these settings, when there is one already, made with
    /// nothing known of facilitators. `config` is the file that the settings were read from, and that a reload
    /// reads again; without one there are no reloads.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing is half started.
    pub fn start(
        settings: Settings,
        routes: Option<RouteTable>,
        config: Option<PathBuf>,
        inherited: Inherited,
    ) -> Result<Self, StartError> {
        arm();
        require_authorities(settings.server.ca_file.as_deref())?;
        let mut inherited = inherited;
        let sockets = Sockets::open(settings.addresses(), &mut inherited)?;
        files::provide(settings.limits.connections_max);
        let payments = payments_runtime()?;
        let (servants, requests, orders) = servants();
        hear_signals(&payments, servants.clone())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut predecessor = inherited.predecessor.take();
        let presence = succession::presence(&settings, predecessor.as_mut())?;
        let observed = observe(&settings, presence.clone(), &payments, &clock)?;
        let ledger: Arc<dyn Ledger> = observed.clone();
        let parts = Parts::new(settings, None, payments.handle())?;
        let settings = &parts.settings;
        let supported = payments.block_on(parts.supported());
        let routes = table(routes, settings, &supported.book)?;
        parts.keep(&supported);
        let settler = settler(&parts, (&ledger, &clock), &payments);
        let gate = gate(&parts, routes, &settler, (&ledger, &clock));
        let in_force = Arc::new(ArcSwap::from_pointee(parts.generation(gate)));
        let shown = Arc::new(ArcSwap::from_pointee(InForce::new(
            settings.clone(),
            in_force.load_full(),
        )));
        let (sources, errands) = tend(&parts, &payments, &settler, &ledger, &clock);
        let admin = AdminParts {
            token: admin_token(settings)?,
            in_force: Arc::clone(&shown),
            ledger: observed,
            errands,
            reloads: servants.reloads.clone(),
            clock: Arc::clone(&clock),
        };
        let change = Change {
            payments: &payments,
            presence: &presence,
            ledger: &ledger,
            clock: &clock,
            state: Beside::new(predecessor.is_some()),
        };
        let kit = kit(settings, &sockets, presence.as_deref())?;
        let desk = change.desk(settings, inherited, kit);
        let upgrade = change.answer(desk, admin, (servants, orders), config.as_deref())?;
        let succession = predecessor.map(|old| change.succession(old));
        let wall = wall(settings, &in_force, &payments)?;
        let connections = connections(settings);
        let handshakes = connections.handshakes();
        let served = (Arc::clone(&wall.under_way), handshakes, wall.spans.clone());
        let (server, accepts) = server(settings, wall, &connections, sockets, payments.handle())?;
        payments.spawn(manager::report(accepts, succession));
        let reloader = Reloader {
            config,
            parts,
            in_force,
            shown,
            settler: Arc::clone(&settler),
            sources,
            connections,
            is_replaced: upgrade.under_way(),
            runtime: payments.handle().clone(),
        };
        payments.spawn(reloader::run(reloader, requests));
        let ending = Ending::new((settler, ledger), served, &payments, upgrade, presence);
        ending.hear_signals()?;
        Ok(Self {
            server,
            payments,
            ending,
        })
    }

    /// Serves until SIGTERM, SIGINT or SIGQUIT, or until another process has taken its place, lets what
    /// is under way finish, and returns.
    pub fn run(self) {
        let Self {
            server,
            payments,
            ending,
        } = self;
        ending.clone().watch(server.watch_execution_phase());
        server.run(RunArgs {
            shutdown_signal: ending.first_signal(),
        });
        ending.wait_for_settlements();
        ending.leave();
        payments.shutdown_timeout(Duration::from_secs(1));
        if ending.code() != 0 {
            std::process::exit(ending.code());
        }
    }
}

/// What the change from one process to another, before and after, is about.
struct Change<'a> {
    payments: &'a Runtime,
    presence: &'a Option<Arc<Presence>>,
    ledger: &'a Arc<dyn Ledger>,
    clock: &'a Arc<dyn Clock>,
    state: Beside,
}

impl Change<'_> {
    fn desk<'a>(&'a self, settings: &'a Settings, inherited: Inherited, kit: Kit) -> Desk<'a> {
        Desk {
            settings,
            payments: self.payments,
            begun: self.state.begin.subscribe(),
            inherited,
            kit,
            operators: Vec::new(),
        }
    }

    /// Answers operators, and obeys when they want this process replaced.
    fn answer(
        &self,
        mut desk: Desk<'_>,
        admin: AdminParts,
        (servants, orders): (Servants, Orders),
        config: Option<&Path>,
    ) -> Result<Upgrade, StartError> {
        desk.serve_admin(admin)?;
        if let Some(config) = config {
            desk.serve_control(servants, config)?;
        }
        let upgrade = Upgrade::new(desk.kit);
        let upgrader = Upgrader {
            upgrade: upgrade.clone(),
            config: config.map(Path::to_owned),
            presence: self.presence.clone(),
            ledger: Arc::clone(self.ledger),
            clock: Arc::clone(self.clock),
            beside: Arc::clone(&self.state.beside),
            operators: desk.operators,
            starter: Starter::new()
                .map(Arc::new)
                .map_err(|cause| StartError::Io {
                    what: "cannot start threads".to_owned(),
                    cause,
                })?,
            runtime: self.payments.handle().clone(),
        };
        self.payments.spawn(upgrade::run(upgrader, orders));
        Ok(upgrade)
    }

    fn succession(&self, old: Predecessor) -> Succession {
        let (present, book) = (self.presence.clone(), (self.ledger, self.clock));
        let runtime = self.payments.handle().clone();
        Succession::new(old, &self.state, present, book, runtime)
    }
}

/// Those who do what operators want, and where their orders arrive.
fn servants() -> (Servants, reload::Requests, Orders) {
    let (reloads, requests) = reload::channel();
    let (upgrades, orders) = reload::upgrade::channel();
    (Servants { reloads, upgrades }, requests, orders)
}

fn wall(
    settings: &Settings,
    in_force: &Arc<ArcSwap<Generation>>,
    payments: &Runtime,
) -> Result<Wall, StartError> {
    Ok(Wall {
        in_force: Arc::clone(in_force),
        under_way: Arc::default(),
        forward_auth: None,
        spans: otlp::start(settings.log.otlp_endpoint.as_deref(), payments.handle())?,
    })
}

/// What the process that takes the place of this one is given.
fn kit(
    settings: &Settings,
    sockets: &Sockets,
    presence: Option<&Presence>,
) -> Result<Kit, StartError> {
    let failed = |cause| StartError::Io {
        what: "cannot keep a second descriptor of a socket".to_owned(),
        cause,
    };
    let listeners = sockets.duplicates().map_err(failed)?.into_iter();
    let mut places: Vec<_> = listeners
        .map(|(address, socket)| (Place::Tcp(address), socket))
        .collect();
    if let Some(presence) = presence {
        let lock = presence.lock_to_hand_over().map_err(failed)?;
        places.push((Place::LedgerLock, lock));
    }
    let server = match &settings.ledger {
        LedgerSettings::File(_) => None,
        LedgerSettings::Server(server) => Some(server.place.to_string()),
    };
    Ok(Kit { places, server })
}

/// The routes with what facilitators say. `routes` were made with nothing known of them, if there are any.
fn table(
    routes: Option<RouteTable>,
    settings: &Settings,
    book: &SupportedBook,
) -> Result<RouteTable, StartError> {
    let completed = match routes {
        Some(routes) => routes.completed(settings, book),
        None => RouteTable::build(settings, book),
    };
    completed.map_err(StartError::Routes)
}

fn payments_runtime() -> Result<Runtime, StartError> {
    // Two threads on one core only take turns.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(2));
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("payments")
        .on_thread_start(after_requests)
        .enable_all()
        .build()
        .map_err(|cause| StartError::Io {
            what: "cannot start threads".to_owned(),
            cause,
        })
}

fn open_ledger(
    settings: &Settings,
    presence: Option<Arc<Presence>>,
    payments: &Runtime,
    clock: &dyn Clock,
) -> Result<Arc<dyn Ledger>, StartError> {
    let ca_file = settings.server.ca_file.as_deref();
    let shared_bytes_max = settings.limits.kept_responses_bytes_max;
    let opened = open_for_wall(&settings.ledger, presence, ca_file, shared_bytes_max);
    let ledger = payments.block_on(opened)?;
    reach(Step::Opened);
    let released = payments.block_on(ledger.release_abandoned(clock.now()))?;
    if released > 0 {
        tracing::warn!(
            released,
            "claims of an earlier process were given back; nothing was charged for them"
        );
    }
    Ok(ledger)
}

/// Opens the ledger, and has what happens in it counted and told.
fn observe(
    settings: &Settings,
    presence: Option<Arc<Presence>>,
    payments: &Runtime,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Observed>, StartError> {
    let observed = Observed::new(open_ledger(settings, presence, payments, clock.as_ref())?);
    metrics::started(clock.now());
    metrics::connections_max(settings.limits.connections_max);
    payments.spawn(Arc::clone(&observed).count(Arc::clone(clock)));
    Ok(observed)
}

/// Starts what looks after the ledger: unknown settlements, and what may be forgotten.
fn tend(
    parts: &Parts,
    payments: &Runtime,
    settler: &Arc<Settler>,
    ledger: &Arc<dyn Ledger>,
    clock: &Arc<dyn Clock>,
) -> (Arc<ArcSwap<Sources>>, Errand) {
    let Sources {
        chains,
        preferences,
    } = parts.sources();
    let reconciler = Reconciler::new(
        Arc::clone(settler),
        Arc::clone(ledger),
        chains,
        preferences,
        Arc::clone(clock),
    );
    let for_others = (reconciler.sources(), reconciler.errand());
    payments.spawn(reconciler.run());
    let days = parts.settings.retention_days;
    let retention = Retention::new(Arc::clone(ledger), Arc::clone(clock), days);
    payments.spawn(retention.run());
    for_others
}

fn settler(
    parts: &Parts,
    (ledger, clock): (&Arc<dyn Ledger>, &Arc<dyn Clock>),
    payments: &Runtime,
) -> Arc<Settler> {
    Settler::new(
        parts.facilitators.clone(),
        Arc::clone(ledger),
        Arc::clone(clock),
        payments.handle().clone(),
    )
}

fn gate(
    parts: &Parts,
    routes: RouteTable,
    settler: &Arc<Settler>,
    (ledger, clock): (&Arc<dyn Ledger>, &Arc<dyn Clock>),
) -> Gate {
    let limits = &parts.settings.limits;
    let cache = VerdictCache::new(limits.verdict_cache_entries_max);
    let facilitators = parts.facilitators.clone();
    Gate::new(GateParts {
        routes,
        verifier: Verifier::new(cache, facilitators),
        ledger: Arc::clone(ledger),
        settler: Arc::clone(settler),
        kept: Arc::new(KeptResponses::new(limits.kept_responses_bytes_max)),
        clock: Arc::clone(clock),
        limits: gate_limits(limits),
    })
}

/// pingora panics at its start when it finds no certificate authorities: say it properly before.
fn require_authorities(ca_file: Option<&Path>) -> Result<(), StartError> {
    match ca_file {
        Some(file) => std::fs::read(file)
            .map(drop)
            .map_err(|cause| StartError::Io {
                what: format!("ca_file {}", file.display()),
                cause,
            }),
        None if rustls_native_certs::load_native_certs().certs.is_empty() => {
            Err(StartError::NoAuthorities)
        }
        None => Ok(()),
    }
}

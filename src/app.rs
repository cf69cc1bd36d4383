//! Settings become a running wall: the only place that wires.

mod certificates;
mod ending;
mod files;
pub(crate) mod generation;
mod listening;
mod manager;
mod operator;
mod reloader;
mod sockets;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::listening::Service;
use thiserror::Error;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;

use self::ending::Ending;
use self::generation::{Parts, gate_limits};
use self::operator::{admin_token, hear_hangups, serve_admin, serve_control};
use self::reloader::Reloader;
use crate::acme::{Acme, AcmeError};
use crate::admin::{AdminParts, InForce, TokenError};
use crate::chain_rpc;
use crate::clock::{Clock, SystemClock};
use crate::config::settings::{LedgerSettings, Limits, ListenSettings, Settings};
use crate::facilitator::http::BuildError;
use crate::facilitator::supported::SupportedBook;
use crate::failpoint::{Step, arm, reach};
use crate::gate::{Gate, GateParts, Settler};
use crate::kept::KeptResponses;
use crate::ledger::observed::Observed;
use crate::ledger::opening::open_for_writing;
use crate::ledger::{Ledger, LedgerError};
use crate::metrics;
use crate::proof::cache::VerdictCache;
use crate::proof::verify::Verifier;
use crate::proxy::{Connections, Door, DoorLimits, Wall};
use crate::reconcile::{Errand, Reconciler, Sources};
use crate::reload;
use crate::retention::Retention;
use crate::route::{RouteError, RouteTable};
use crate::tls::{Certificates, Managed};
use crate::upstream::UpstreamError;

use listening::Listening;
use sockets::Sockets;
pub use sockets::{Inherited, SocketError};

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
    /// Two walls on one ledger: the start of the second would give back what the first has claimed.
    #[error("the ledger {} is in use by another wall", .0.display())]
    LedgerInUse(PathBuf),
    /// The state folder of `[acme]`, or the authorities of its server.
    #[error("[acme] {0}")]
    Acme(#[from] AcmeError),
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
    // Held until the process ends, however it ends.
    ledger_lock: Option<File>,
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
        let sockets = Sockets::open(settings.addresses(), inherited)?;
        files::provide(settings.limits.connections_max);
        let payments = payments_runtime()?;
        let (reloads, requests) = reload::channel();
        // Early: until it is heard, SIGHUP ends the process.
        hear_hangups(&payments, reloads.clone())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ledger_lock = lock_ledger(&settings.ledger)?;
        let observed = observe(&settings, &payments, &clock)?;
        let ledger: Arc<dyn Ledger> = observed.clone();
        let parts = Parts::new(settings, None, payments.handle())?;
        let settings = &parts.settings;
        let book = payments.block_on(parts.supported());
        let routes = table(routes, settings, &book)?;
        let settler = Settler::new(
            parts.facilitators.clone(),
            Arc::clone(&ledger),
            Arc::clone(&clock),
            payments.handle().clone(),
        );
        let gate = gate(&parts, routes, &settler, (&ledger, &clock), &payments);
        let in_force = Arc::new(ArcSwap::from_pointee(parts.generation(gate)));
        let shown = InForce::new(settings.clone(), in_force.load_full());
        let shown = Arc::new(ArcSwap::from_pointee(shown));
        let (sources, errands) = tend(&parts, &payments, &settler, &ledger, &clock);
        let admin = AdminParts {
            token: admin_token(settings)?,
            in_force: Arc::clone(&shown),
            ledger: observed,
            errands,
            reloads: reloads.clone(),
            clock,
        };
        serve_admin(settings, admin, &payments)?;
        if let Some(config) = &config {
            serve_control(settings, &payments, &reloads, config)?;
        }
        let under_way = Arc::new(AtomicUsize::new(0));
        let wall = Wall {
            in_force: Arc::clone(&in_force),
            under_way: Arc::clone(&under_way),
        };
        let connections = connections(settings);
        let server = server(settings, wall, &connections, sockets, payments.handle())?;
        let reloader = Reloader {
            config,
            parts,
            in_force,
            shown,
            settler: Arc::clone(&settler),
            sources,
            connections,
            runtime: payments.handle().clone(),
        };
        payments.spawn(reloader::run(reloader, requests));
        let ending = Ending {
            settler,
            ledger,
            under_way,
            runtime: payments.handle().clone(),
            urgency: Arc::new(watch::Sender::new(0)),
        };
        ending.hear_signals()?;
        Ok(Self {
            server,
            payments,
            ending,
            ledger_lock,
        })
    }

    /// Serves until SIGTERM, SIGINT or SIGQUIT, lets what is under way finish, and returns.
    pub fn run(self) {
        let Self {
            server,
            payments,
            ending,
            ledger_lock: _ledger_lock,
        } = self;
        ending.clone().watch(server.watch_execution_phase());
        server.run(RunArgs {
            shutdown_signal: ending.first_signal(),
        });
        ending.wait_for_settlements();
        payments.block_on(ending.ledger.leave());
        payments.shutdown_timeout(Duration::from_secs(1));
    }
}

/// Takes the file beside the ledger that says "one wall a ledger". The system lets go of it when the
/// process ends; the file itself stays and means nothing. A server needs none: walls share it.
fn lock_ledger(ledger: &LedgerSettings) -> Result<Option<File>, StartError> {
    let LedgerSettings::File(ledger) = ledger else {
        return Ok(None);
    };
    let mut name = ledger.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let path = ledger.with_file_name(name);
    let failed = |cause| StartError::Io {
        what: format!("cannot lock the ledger with {}", path.display()),
        cause,
    };
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(StartError::LedgerInUse(ledger.to_owned())),
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
    }
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
        .enable_all()
        .build()
        .map_err(|cause| StartError::Io {
            what: "cannot start threads".to_owned(),
            cause,
        })
}

fn open_ledger(
    settings: &Settings,
    payments: &Runtime,
    clock: &dyn Clock,
) -> Result<Arc<dyn Ledger>, StartError> {
    let ca_file = settings.server.ca_file.as_deref();
    let shared_bytes_max = settings.limits.kept_responses_bytes_max;
    let opened = open_for_writing(&settings.ledger, ca_file, shared_bytes_max);
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
    payments: &Runtime,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Observed>, StartError> {
    let observed = Observed::new(open_ledger(settings, payments, clock.as_ref())?);
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

fn gate(
    parts: &Parts,
    routes: RouteTable,
    settler: &Arc<Settler>,
    (ledger, clock): (&Arc<dyn Ledger>, &Arc<dyn Clock>),
    payments: &Runtime,
) -> Gate {
    let limits = &parts.settings.limits;
    let cache = VerdictCache::new(limits.verdict_cache_entries_max);
    let facilitators = parts.facilitators.clone();
    Gate::new(GateParts {
        routes,
        verifier: Verifier::new(cache, facilitators, payments.handle().clone()),
        ledger: Arc::clone(ledger),
        settler: Arc::clone(settler),
        kept: Arc::new(KeptResponses::new(limits.kept_responses_bytes_max)),
        clock: Arc::clone(clock),
        limits: gate_limits(limits),
    })
}

/// The bounds on connections, which all listeners share.
fn connections(settings: &Settings) -> Arc<Connections> {
    Arc::new(Connections::new(
        settings.limits.connections_max,
        settings.limits.connections_per_client_max,
        settings.server.trusted_proxies.clone(),
    ))
}

fn server(
    settings: &Settings,
    wall: Wall,
    connections: &Arc<Connections>,
    mut sockets: Sockets,
    payments: &Handle,
) -> Result<Server, StartError> {
    let grace = settings.server.shutdown_grace.as_secs();
    let conf = ServerConf {
        threads: settings.server.worker_threads,
        work_stealing: settings.server.work_stealing,
        upstream_keepalive_pool_size: 512,
        grace_period_seconds: Some(grace),
        graceful_shutdown_timeout_seconds: Some(5),
        ca_file: settings
            .server
            .ca_file
            .as_ref()
            .map(|p| p.display().to_string()),
        max_retries: 3,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let (accepting, accepts) = unbounded_channel();
    let acme = certificates::open(settings)?;
    let managed = acme.as_ref().map(Acme::managed).unwrap_or_default();
    let mut services = 0;
    // h2c is recognised by its preface, which makes a first request shorter than 24 bytes wait for
    // more: only the listeners that ask for it pay for that, in a service of their own.
    for h2c in [false, true] {
        let listeners: Vec<_> = settings.listeners.iter().filter(|l| l.h2c == h2c).collect();
        if listeners.is_empty() {
            continue;
        }
        let proxy = proxy(&server.configuration, wall.clone(), &settings.limits, h2c);
        let limits = DoorLimits::of(&settings.limits, h2c);
        let door = Door::new(proxy, limits, Arc::clone(connections));
        let mut service = Listening {
            service: Service::new("farewall".to_owned(), door),
            sockets: Vec::new(),
            accepting: accepting.clone(),
        };
        for listener in listeners {
            listen(&mut service.service, listener, &managed, payments)?;
            let socket = sockets.take(listener.address);
            service
                .sockets
                .extend(socket.map(|socket| (listener.address.to_string(), socket)));
        }
        server.add_service(service);
        services = usize::saturating_add(services, 1);
    }
    if let Some(acme) = acme {
        let told = (&accepting, payments);
        let in_force = &wall.in_force;
        let service =
            certificates::challenges(acme, settings, in_force, connections, &mut sockets, told);
        server.add_service(service);
        services = usize::saturating_add(services, 1);
    }
    payments.spawn(manager::report(accepts, services));
    Ok(server)
}

/// pingora with our bounds on HTTP/2; the [`Door`] keeps those of HTTP/1.
fn proxy(conf: &Arc<ServerConf>, wall: Wall, limits: &Limits, h2c: bool) -> HttpProxy<Wall> {
    let mut proxy = pingora::proxy::http_proxy(conf, wall);
    let mut options = HttpServerOptions::default();
    options.h2c = h2c;
    options.h2_idle_timeout = Some(limits.idle_timeout);
    proxy.server_options = Some(options);
    let mut h2 = default_h2_options();
    h2.max_header_list_size(u32::try_from(limits.request_header_bytes_max).unwrap_or(u32::MAX));
    proxy.h2_options = Some(h2);
    proxy
}

fn listen(
    service: &mut Service<Door<HttpProxy<Wall>>>,
    listener: &ListenSettings,
    managed: &[Managed],
    payments: &Handle,
) -> Result<(), StartError> {
    let address = listener.address.to_string();
    if !listener.has_tls() {
        // Whatever reads here brings a buffer; pingora's own would be 64 KiB for each connection.
        let buffers = L4BufferSettings::default().read(0);
        service.add_listener(ListenerConfig::tcp(address).l4_buffer(buffers));
        return Ok(());
    }
    let failed = |cause: String| StartError::Tls {
        address: address.clone(),
        cause,
    };
    let managed = if listener.acme { managed } else { &[] };
    let (certificates, watcher) =
        Certificates::load(&listener.tls, managed).map_err(|e| failed(e.to_string()))?;
    payments.spawn(watcher.watch());
    // No files: the resolver has read them.
    let mut tls = TlsSettings::intermediate("", "").map_err(|e| failed(e.to_string()))?;
    tls.set_cert_resolver(certificates);
    tls.enable_h2();
    // About one TLS record.
    let buffers = L4BufferSettings::default().read(16 << 10);
    service.add_listener(ListenerConfig::tcp(address).tls(tls).l4_buffer(buffers));
    Ok(())
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

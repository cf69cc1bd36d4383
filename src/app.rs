//! Settings become a running wall: the only place that wires.

mod files;
mod listening;
mod manager;
mod sockets;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{ExecutionPhase, RunArgs, Server};
use pingora::services::listening::Service;
use thiserror::Error;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::unbounded_channel;

use crate::chain_rpc::{self, Chains, EvmChain};
use crate::clock::{Clock, SystemClock};
use crate::config::settings::{AcceptSettings, LedgerSettings, Limits, ListenSettings, Settings};
use crate::facilitator::breaker::BreakerSettings;
use crate::facilitator::guarded::Guarded;
use crate::facilitator::http::{BuildError, HttpFacilitator};
use crate::facilitator::supported::{Origin, SupportedBook, load_book};
use crate::failpoint::{Step, arm, reach};
use crate::gate::{Facilitators, Gate, GateLimits, GateParts, Settler};
use crate::kept::KeptResponses;
use crate::ledger::opening::open_for_writing;
use crate::ledger::{Ledger, LedgerError};
use crate::proof::cache::VerdictCache;
use crate::proof::verify::Verifier;
use crate::proxy::{Connections, Door, DoorLimits, Seller, Wall};
use crate::reconcile::{Preferences, Reconciler};
use crate::retention::Retention;
use crate::route::{RouteError, RouteTable};
use crate::throttle::ThrottleLimits;
use crate::tls::Certificates;
use crate::upstream::{HealthService, Upstream, UpstreamError, Upstreams};

use listening::Listening;
use sockets::Sockets;
pub use sockets::{Inherited, SocketError};

/// How long, after the last request, settlements in flight may take before the process ends.
const SETTLEMENTS_GRACE: Duration = Duration::from_secs(75);

/// How long a wall that ends serves who has connected already, but said nothing yet: hanging up on them
/// would cost them a request.
const LINGER: Duration = Duration::from_millis(300);

/// How long the start waits for facilitators to say what they handle.
const SUPPORTED_DEADLINE: Duration = Duration::from_secs(3);

/// How often `/supported` is asked again while a rule lacks offers because of it.
const SUPPORTED_RETRY: Duration = Duration::from_secs(15);

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
    settler: Arc<Settler>,
    ledger: Arc<dyn Ledger>,
    under_way: Arc<AtomicUsize>,
    // Held until the process ends, however it ends.
    ledger_lock: Option<File>,
}

impl App {
    /// Opens, connects and binds everything that the settings name, but for the sockets that
    /// were handed over.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing is half started.
    pub fn start(settings: Settings, inherited: Inherited) -> Result<Self, StartError> {
        arm();
        require_authorities(settings.server.ca_file.as_deref())?;
        let sockets = Sockets::open(settings.listeners.iter().map(|l| l.address), inherited)?;
        files::provide(settings.limits.connections_max);
        let payments = payments_runtime()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ledger_lock = lock_ledger(&settings.ledger)?;
        let ledger = open_ledger(&settings, &payments, clock.as_ref())?;
        let facilitators = facilitators(&settings)?;
        let book = payments.block_on(supported(&settings, &facilitators));
        let routes = RouteTable::build(&settings, &book).map_err(StartError::Routes)?;
        let incomplete = !routes.missing().is_empty();
        let settler = Settler::new(
            facilitators.clone(),
            Arc::clone(&ledger),
            Arc::clone(&clock),
            payments.handle().clone(),
        );
        let gate = Arc::new(gate(
            &settings,
            routes,
            &settler,
            &ledger,
            &clock,
            facilitators.clone(),
            &payments,
        ));
        let (upstreams, health) = upstreams(&settings)?;
        serve_admin(&settings, &payments, &ledger)?;
        tend(&settings, &payments, &settler, &ledger, clock)?;
        if incomplete {
            payments.spawn(complete_routes(
                settings.clone(),
                Arc::clone(&gate),
                facilitators,
            ));
        }
        let under_way = Arc::new(AtomicUsize::new(0));
        let wall = Wall {
            gate,
            upstreams: Arc::new(upstreams),
            seller: Seller {
                public_origin: settings.server.public_origin.clone(),
                service_name: settings.server.service_name.clone(),
                allowance_as_402: settings.server.permit2_allowance_as_402,
            },
            cors: settings.cors.clone(),
            trusted_proxies: settings.server.trusted_proxies.clone(),
            target_bytes_max: settings.limits.target_bytes_max,
            body_timeout: settings.limits.body_timeout,
            under_way: Arc::clone(&under_way),
        };
        let server = server(&settings, wall, health, sockets, payments.handle())?;
        Ok(Self {
            server,
            payments,
            settler,
            ledger,
            under_way,
            ledger_lock,
        })
    }

    /// Serves until SIGTERM, SIGINT or SIGQUIT, lets what is under way finish, and returns.
    pub fn run(self) {
        let Self {
            server,
            payments,
            settler,
            ledger,
            under_way,
            ledger_lock: _ledger_lock,
        } = self;
        let mut phase = server.watch_execution_phase();
        let (watched, idle) = (Arc::clone(&settler), under_way);
        let (leaving, runtime) = (Arc::clone(&ledger), payments.handle().clone());
        // pingora sleeps through its whole grace period; we end as soon as nothing is under way.
        std::thread::spawn(move || {
            while let Ok(now) = phase.blocking_recv() {
                if matches!(now, ExecutionPhase::ShutdownStarted) {
                    manager::stopping();
                }
                if matches!(now, ExecutionPhase::ShutdownGracePeriod) {
                    wait_for_quiet(|| idle.load(Ordering::SeqCst) > 0 || watched.tasks() > 0);
                    runtime.block_on(leaving.leave());
                    tracing::info!("nothing is under way any more; ending");
                    std::process::exit(0);
                }
            }
        });
        server.run(RunArgs::default());
        let since = Instant::now();
        while settler.tasks() > 0 && since.elapsed() < SETTLEMENTS_GRACE {
            std::thread::sleep(Duration::from_millis(20));
        }
        payments.block_on(ledger.leave());
        payments.shutdown_timeout(Duration::from_secs(1));
    }
}

/// Waits until nothing was under way for as long as [`LINGER`].
fn wait_for_quiet(is_busy: impl Fn() -> bool) {
    let mut busy = Instant::now();
    while busy.elapsed() < LINGER {
        if is_busy() {
            busy = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(20));
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

fn payments_runtime() -> Result<Runtime, StartError> {
    Builder::new_multi_thread()
        .worker_threads(2)
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

/// The clients of all facilitators.
pub(crate) fn facilitators(settings: &Settings) -> Result<Facilitators, BuildError> {
    let ca_file = settings.server.ca_file.as_deref();
    let mut all = Facilitators::new();
    for (name, facilitator) in &settings.facilitators {
        let breaker = BreakerSettings {
            failures: facilitator.breaker_failures,
            open_for: facilitator.breaker_open,
        };
        let client = HttpFacilitator::new(facilitator, ca_file)?;
        all.insert(name.clone(), Arc::new(Guarded::new(client, breaker)));
    }
    Ok(all)
}

/// The chains that may be asked what became of a payment.
pub(crate) fn chains(settings: &Settings) -> Result<Chains, chain_rpc::BuildError> {
    let ca_file = settings.server.ca_file.as_deref();
    let mut all = Chains::new();
    for (network, settings) in &settings.networks {
        all.insert(network.clone(), Arc::new(EvmChain::new(settings, ca_file)?));
    }
    Ok(all)
}

/// Starts what looks after the ledger: unknown settlements, and what may be forgotten.
fn tend(
    settings: &Settings,
    payments: &Runtime,
    settler: &Arc<Settler>,
    ledger: &Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
) -> Result<(), StartError> {
    let reconciler = Reconciler::new(
        Arc::clone(settler),
        Arc::clone(ledger),
        chains(settings)?,
        preferences(settings),
        Arc::clone(&clock),
    );
    payments.spawn(reconciler.run());
    let retention = Retention::new(Arc::clone(ledger), clock, settings.retention_days);
    payments.spawn(retention.run());
    Ok(())
}

/// In which order the facilitators of each way of being paid are preferred.
pub(crate) fn preferences(settings: &Settings) -> Preferences {
    let of = |(name, accept): (&Arc<str>, &AcceptSettings)| {
        (Arc::clone(name), accept.facilitators.clone())
    };
    settings.accepts.iter().map(of).collect()
}

fn gate(
    settings: &Settings,
    routes: RouteTable,
    settler: &Arc<Settler>,
    ledger: &Arc<dyn Ledger>,
    clock: &Arc<dyn Clock>,
    facilitators: Facilitators,
    payments: &Runtime,
) -> Gate {
    let limits = &settings.limits;
    let cache = VerdictCache::new(limits.verdict_cache_entries_max);
    Gate::new(GateParts {
        routes,
        verifier: Verifier::new(cache, facilitators, payments.handle().clone()),
        ledger: Arc::clone(ledger),
        settler: Arc::clone(settler),
        kept: Arc::new(KeptResponses::new(limits.kept_responses_bytes_max)),
        clock: Arc::clone(clock),
        limits: GateLimits {
            payment_header_bytes_max: limits.payment_header_bytes_max,
            unverified_proofs_max: limits.unverified_proofs_max,
            duplicate_wait: limits.duplicate_wait,
            retry_window: limits.retry_window,
            throttle: ThrottleLimits {
                calls_per_client: limits.verify_calls_per_minute_per_client,
                calls_per_payer: limits.verify_calls_per_minute_per_payer,
                refused_per_client: limits.refused_proofs_per_minute_per_client,
                verifying_per_client_max: limits.unverified_proofs_per_client_max,
                keys_max: limits.rate_limit_keys_max,
            },
        },
    })
}

fn upstreams(settings: &Settings) -> Result<(Upstreams, Vec<HealthService>), StartError> {
    let (mut all, mut health) = (Upstreams::new(), Vec::new());
    for (name, upstream) in &settings.upstreams {
        let (upstream, service) = Upstream::new(upstream.clone())?;
        all.insert(name.clone(), upstream);
        health.extend(service);
    }
    Ok((all, health))
}

fn serve_admin(
    settings: &Settings,
    payments: &Runtime,
    ledger: &Arc<dyn Ledger>,
) -> Result<(), StartError> {
    let Some(address) = settings.server.admin else {
        return Ok(());
    };
    let failed = |cause| StartError::Io {
        what: format!("admin listener {address}"),
        cause,
    };
    let listener = payments
        .block_on(tokio::net::TcpListener::bind(address))
        .map_err(failed)?;
    let ledger = Arc::clone(ledger);
    payments.spawn(async move {
        if let Err(error) = crate::admin::serve(listener, ledger).await {
            tracing::error!(%error, "the admin listener ended");
        }
    });
    Ok(())
}

/// What the facilitators handle: as they say now, else as they said last.
async fn supported(settings: &Settings, facilitators: &Facilitators) -> SupportedBook {
    let asked: Vec<_> = settings
        .facilitators
        .iter()
        .filter_map(|(name, s)| {
            Some((
                Arc::clone(facilitators.get(name)?),
                s.supported_cache.clone(),
            ))
        })
        .collect();
    let loaded = load_book(&asked, SUPPORTED_DEADLINE).await;
    for (facilitator, origin) in &loaded.origins {
        match origin {
            Origin::Fresh => {}
            Origin::Cached(fault) => {
                tracing::warn!(%facilitator, %fault, "no answer to /supported; using its last one");
            }
            Origin::Unknown(fault) => {
                tracing::warn!(%facilitator, %fault, "no answer to /supported, now or before");
            }
        }
    }
    loaded.book
}

/// Asks `/supported` again until every configured way of being paid can be offered.
async fn complete_routes(settings: Settings, gate: Arc<Gate>, facilitators: Facilitators) {
    loop {
        tokio::time::sleep(SUPPORTED_RETRY).await;
        let book = supported(&settings, &facilitators).await;
        match RouteTable::build(&settings, &book) {
            Ok(routes) => {
                let complete = routes.missing().is_empty();
                gate.replace_routes(routes);
                if complete {
                    tracing::info!("every way of being paid is available now");
                    return;
                }
            }
            Err(errors) => {
                tracing::error!(errors = %lines(&errors), "cannot offer all ways of being paid")
            }
        }
    }
}

fn server(
    settings: &Settings,
    wall: Wall,
    health: Vec<HealthService>,
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
    let connections = Arc::new(Connections::new(
        settings.limits.connections_max,
        settings.limits.connections_per_client_max,
        settings.server.trusted_proxies.clone(),
    ));
    let (accepting, accepts) = unbounded_channel();
    let mut services = 0;
    // h2c is recognised by its preface, which makes a first request shorter than 24 bytes wait for
    // more: only the listeners that ask for it pay for that, in a service of their own.
    for h2c in [false, true] {
        let listeners: Vec<_> = settings.listeners.iter().filter(|l| l.h2c == h2c).collect();
        if listeners.is_empty() {
            continue;
        }
        let proxy = proxy(&server.configuration, wall.clone(), &settings.limits, h2c);
        let limits = DoorLimits {
            head_bytes_max: settings.limits.request_header_bytes_max,
            head_timeout: settings.limits.header_timeout,
            idle_timeout: settings.limits.idle_timeout,
            h2c,
        };
        let door = Door::new(proxy, limits, Arc::clone(&connections));
        let mut service = Listening {
            service: Service::new("farewall".to_owned(), door),
            sockets: Vec::new(),
            accepting: accepting.clone(),
        };
        for listener in listeners {
            listen(&mut service.service, listener, payments)?;
            let socket = sockets.take(listener.address);
            service
                .sockets
                .extend(socket.map(|socket| (listener.address.to_string(), socket)));
        }
        server.add_service(service);
        services = usize::saturating_add(services, 1);
    }
    payments.spawn(manager::report(accepts, services));
    for service in health {
        server.add_service(service);
    }
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
    payments: &Handle,
) -> Result<(), StartError> {
    let address = listener.address.to_string();
    if listener.tls.is_empty() {
        // Whatever reads here brings a buffer; pingora's own would be 64 KiB for each connection.
        let buffers = L4BufferSettings::default().read(0);
        service.add_listener(ListenerConfig::tcp(address).l4_buffer(buffers));
        return Ok(());
    }
    let failed = |cause: String| StartError::Tls {
        address: address.clone(),
        cause,
    };
    let (certificates, watcher) =
        Certificates::load(&listener.tls).map_err(|e| failed(e.to_string()))?;
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

//! The configuration after it was checked: every value is valid, every name it mentions exists.
//!
//! Nothing here is text that still needs interpreting. `app` takes [`Settings`] apart and hands
//! each part of the wall its own piece.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::chain::{Asset, Network, PayTo};
use crate::money::{AtomicAmount, Decimals, PriceText};
use crate::settlement::SettleWhen;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[server]`.
    pub server: ServerSettings,
    /// `[[listen]]`, at least one.
    pub listeners: Vec<ListenSettings>,
    /// `[limits]`.
    pub limits: Limits,
    /// `[ledger]`.
    pub ledger: LedgerSettings,
    /// `retention_days` of `[ledger]`: after how many days finished payments are deleted; default never.
    pub retention_days: Option<u32>,
    /// `[facilitator.NAME]`.
    pub facilitators: BTreeMap<Arc<str>, FacilitatorSettings>,
    /// `[accept.NAME]`.
    pub accepts: BTreeMap<Arc<str>, AcceptSettings>,
    /// `[upstream.NAME]`.
    pub upstreams: BTreeMap<Arc<str>, UpstreamSettings>,
    /// `[[rule]]`, in file order.
    pub rules: Vec<RuleSettings>,
    /// `unmatched`.
    pub unmatched: Unmatched,
    /// `[cors]`.
    pub cors: CorsSettings,
    /// `[network.NAME]`, by network: the chains that may be asked what became of a payment.
    pub networks: BTreeMap<Network, NetworkSettings>,
    /// `[log]`.
    pub log: LogSettings,
    /// `[acme]`; `None`: no certificate comes from an ACME server.
    pub acme: Option<AcmeSettings>,
}

impl Settings {
    /// Every address that clients, and an ACME server, come to.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let clients = self.listeners.iter().map(|listener| listener.address);
        let is_used = self.listeners.iter().any(|listener| listener.acme);
        let challenges = self.acme.iter().filter(move |_| is_used);
        clients.chain(challenges.map(|acme| acme.listen))
    }
}

/// `[server]`: what is true of the whole wall.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerSettings {
    /// `public_origin`: scheme, host and port that clients use, without a trailing slash.
    pub public_origin: Arc<str>,
    /// `service_name`: 1 to 32 printable ASCII characters, shown in challenges.
    pub service_name: Option<Arc<str>>,
    /// `worker_threads`: 1 to 1024; default: the number of cores.
    pub worker_threads: usize,
    /// `work_stealing`: default true, and false with one worker thread, which has nobody to take from.
    pub work_stealing: bool,
    /// `shutdown_grace_s`: how long requests in flight may finish; default 30.
    pub shutdown_grace: Duration,
    /// `trusted_proxies`: whose `Forwarded` and `X-Forwarded-*` are believed; default none.
    pub trusted_proxies: Vec<IpRange>,
    /// `admin`: where health, metrics and the admin API are served; default `127.0.0.1:8086`, `"off"` for
    /// none.
    pub admin: Option<AdminAddress>,
    /// `ca_file`: PEM bundle to verify upstreams and facilitators with; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// `permit2_allowance_as_402`: answer 402 instead of 412 when the buyer must approve Permit2
    /// first; default false. The official fetch client reacts to 402 only.
    pub permit2_allowance_as_402: bool,
    /// `control`: the socket that `farewall reload` talks to; `None` for none.
    pub control: Option<ControlSettings>,
    /// `shadow`: nothing is refused for want of a payment, and nothing is charged; default false.
    pub shadow: bool,
    /// `admin_token_file`: holds the bearer token of the admin API; without it there is none.
    pub admin_token_file: Option<PathBuf>,
}

/// `control`: a Unix socket for commands to the running wall.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControlSettings {
    /// Where; default: in `$RUNTIME_DIRECTORY`, else beside the ledger.
    pub path: PathBuf,
    /// Whether it was written down: then the wall does not start without it.
    pub is_wanted: bool,
}

/// Where the admin listener is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AdminAddress {
    /// IP address and port.
    Tcp(SocketAddr),
    /// `unix:PATH`: a socket that only the user of the wall may open.
    Unix(PathBuf),
}

impl std::fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[log]`: who hears what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogSettings {
    /// `filter`: levels, by module if need be; default `info`, and `warn` for pingora.
    pub filter: String,
    /// `format`; default `auto`.
    pub format: LogFormat,
    /// `otlp_endpoint`: base URL of an OpenTelemetry collector that takes OTLP over HTTP. Default: none.
    pub otlp_endpoint: Option<String>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "info,pingora_core=warn,pingora_proxy=warn".to_owned(),
            format: LogFormat::Auto,
            otlp_endpoint: None,
        }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One address range in CIDR notation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IpRange {
    /// Network address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

impl IpRange {
    /// Whether `ip` lies in the range. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX
                    .checked_shl(32_u32.saturating_sub(self.prefix.into()))
                    .unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX
                    .checked_shl(128_u32.saturating_sub(self.prefix.into()))
                    .unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// `[[listen]]`: one listening socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenSettings {
    /// `address`: IP and port.
    pub address: SocketAddr,
    /// `h2c`: HTTP/2 without TLS by prior knowledge; default false.
    pub h2c: bool,
    /// `tls_cert` and `tls_key`, then each `[[listen.tls]]`: the first is for clients that name no
    /// other. Empty, and not `acme`: no TLS. HTTP/2 is offered through ALPN.
    pub tls: Vec<TlsFiles>,
    /// `acme`: the certificates of `[acme]` are served too, after those of `tls`; default false.
    pub acme: bool,
    /// `mode = "forward-auth"`: who asks here whether requests may pass. Default: nobody, what comes
    /// here is forwarded.
    pub forward_auth: Option<ForwardAuthSettings>,
}

impl ListenSettings {
    /// Whether it speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.acme || !self.tls.is_empty()
    }
}

/// `[acme]`: certificates that an ACME server (RFC 8555) issues for names that lead here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcmeSettings {
    /// `names`: 1 to 100 host names in lower case, each with a certificate of its own.
    pub names: Vec<String>,
    /// `contact`: mail addresses that the server may write to; default none.
    pub contact: Vec<String>,
    /// `directory`: an `https://` URL; default Let's Encrypt.
    pub directory: String,
    /// `ca_file`: PEM bundle to verify the ACME server with; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// `state`: the folder of the account's key and of the certificates; default `acme` beside the
    /// ledger.
    pub state: PathBuf,
    /// `listen`: where challenges are answered, in plain HTTP; default `0.0.0.0:80`.
    pub listen: SocketAddr,
}

/// A listener that another proxy asks whether a request may pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForwardAuthSettings {
    /// `asked_by`: which proxy, because each asks and understands answers in its own way.
    pub asked_by: AskingProxy,
    /// `trusted`: the addresses that it asks from; not empty. Nobody else is answered.
    pub trusted: Vec<IpRange>,
}

/// A proxy that can ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AskingProxy {
    /// By `X-Forwarded-*`. May pass: an answer with `X-Accel-Redirect`.
    Nginx,
    /// By `X-Forwarded-*`. May pass: any 2xx.
    Caddy,
    /// Likewise.
    Traefik,
    /// With method, host and path of the request itself (`ext_authz` over HTTP). May pass: 200.
    Envoy,
}

impl AskingProxy {
    /// As it is written in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
        }
    }
}

/// Certificate chain and private key, both PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// Chain, leaf first.
    pub cert: PathBuf,
    /// Key.
    pub key: PathBuf,
}

/// `[limits]`: everything that strangers can make grow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// `request_body_bytes_max`: default 10 MiB; a rule may say otherwise.
    pub request_body_bytes_max: u64,
    /// `payment_header_bytes_max`: default 16 KiB.
    pub payment_header_bytes_max: usize,
    /// `target_bytes_max`: path and query; default 8 KiB.
    pub target_bytes_max: usize,
    /// `unverified_proofs_max`: proofs in verification at once, over all clients; default 1024.
    pub unverified_proofs_max: usize,
    /// `verdict_cache_entries_max`: default 100000.
    pub verdict_cache_entries_max: u64,
    /// `kept_response_bytes_max`: default 256 KiB; a rule may say otherwise; 0 keeps nothing.
    pub kept_response_bytes_max: u64,
    /// `kept_responses_bytes_max`: memory for all kept responses; default 64 MiB.
    pub kept_responses_bytes_max: u64,
    /// `retry_window_s`: how long after delivery the kept response answers a retry; default 60.
    pub retry_window: Duration,
    /// `duplicate_wait_ms`: how long a copy of a request in flight waits for its answer; default 10000.
    pub duplicate_wait: Duration,
    /// `unverified_proofs_per_client_max`: of one client, by address; default 256.
    pub unverified_proofs_per_client_max: usize,
    /// `verify_calls_per_minute_per_client`: facilitator calls, by address; default 6000.
    pub verify_calls_per_minute_per_client: NonZeroU32,
    /// `verify_calls_per_minute_per_payer`: default 6000.
    pub verify_calls_per_minute_per_payer: NonZeroU32,
    /// `refused_proofs_per_minute_per_client`: proofs that facilitators refused; default 120.
    pub refused_proofs_per_minute_per_client: NonZeroU32,
    /// `rate_limit_keys_max`: clients and payers that are kept count of; default 65536.
    pub rate_limit_keys_max: u64,
    /// `connections_max`: default 20000.
    pub connections_max: usize,
    /// `connections_per_client_max`: of one address; default 2000.
    pub connections_per_client_max: usize,
    /// `request_header_bytes_max`: request line and headers; default 64 KiB.
    pub request_header_bytes_max: usize,
    /// `header_timeout_ms`: for the whole head of a request; default 10000.
    pub header_timeout: Duration,
    /// `idle_timeout_ms`: how long a connection may wait for its next request; default 60000.
    pub idle_timeout: Duration,
    /// `body_timeout_ms`: between two reads of a request body; default 30000.
    pub body_timeout: Duration,
    /// `send_timeout_ms`: how long a client may take nothing of an answer; default 60000.
    pub send_timeout: Duration,
}

/// `[ledger]`: where payments are remembered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LedgerSettings {
    /// `path`: an SQLite file of this wall alone; default `farewall.db` beside the configuration file.
    File(PathBuf),
    /// `url`: a PostgreSQL server that several walls share.
    Server(Box<LedgerServer>),
}

/// A PostgreSQL server that keeps the ledger.
#[derive(Clone, Eq, PartialEq)]
pub struct LedgerServer {
    /// From `url`: where, as whom, and with which (secret) password; TLS is decided by `tls`.
    pub connection: tokio_postgres::Config,
    /// Host, port and database, for messages: nothing secret.
    pub place: Arc<str>,
    /// From `sslmode` in `url`.
    pub tls: LedgerTls,
    /// `lease_s`: how long a wall that is not heard of keeps its claims; default 15.
    pub lease: Duration,
    /// `connections_max`: connections of this wall, beside the one for its lease; default 8.
    pub connections_max: usize,
}

/// How the connection to a ledger server is protected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LedgerTls {
    /// Not at all: the server is on this machine, or the operator says so.
    Off,
    /// TLS with a verified certificate and host name.
    Verified {
        /// `sslrootcert`: PEM bundle of the authorities; default: `ca_file`, else the system's.
        ca_file: Option<PathBuf>,
    },
}

impl std::fmt::Debug for LedgerServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connection holds a password.
        f.debug_struct("LedgerServer")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// `[facilitator.NAME]`.
#[derive(Clone, Eq, PartialEq)]
pub struct FacilitatorSettings {
    /// Its name.
    pub name: Arc<str>,
    /// `url`: base URL, without trailing slash; `/verify`, `/settle`, `/supported` are appended.
    pub url: String,
    /// `sandbox = true`: test networks only; mainnet offers through it are an error.
    pub sandbox: bool,
    /// `connect_timeout_ms`: default 3000.
    pub connect_timeout: Duration,
    /// `verify_timeout_ms`: default 10000.
    pub verify_timeout: Duration,
    /// `settle_timeout_ms`: default 60000. When it ends the outcome is unknown, not failed.
    pub settle_timeout: Duration,
    /// `calls_max`: calls under way at once; default 256.
    pub calls_max: usize,
    /// `answer_bytes_max`: default 64 KiB.
    pub answer_bytes_max: usize,
    /// `headers`, `verify_headers`, `settle_headers`, `supported_headers`: sent to that endpoint only.
    pub headers: EndpointHeaders,
    /// `supported_cache`: file that keeps the last `/supported`; default beside the ledger.
    pub supported_cache: PathBuf,
    /// `verify_retries`: how often a verification without a verdict is repeated; default 1.
    pub verify_retries: u32,
    /// `breaker_failures`: failed calls in a row after which it is left alone; default 10.
    pub breaker_failures: u32,
    /// `breaker_open_ms`: for how long; default 5000.
    pub breaker_open: Duration,
}

/// Headers by endpoint: name and value. Values are secrets.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct EndpointHeaders {
    /// For `/verify`.
    pub verify: Vec<(String, String)>,
    /// For `/settle`.
    pub settle: Vec<(String, String)>,
    /// For `/supported`.
    pub supported: Vec<(String, String)>,
}

impl std::fmt::Debug for FacilitatorSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Header values and URL credentials are secrets.
        f.debug_struct("FacilitatorSettings")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// `[accept.NAME]`: one way of being paid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcceptSettings {
    /// Its name.
    pub name: Arc<str>,
    /// `scheme`: default `exact`.
    pub scheme: Arc<str>,
    /// `network`.
    pub network: Network,
    /// `asset`.
    pub asset: Asset,
    /// Symbol of the asset, for people.
    pub symbol: Arc<str>,
    /// Decimals of the asset.
    pub decimals: Decimals,
    /// Whether one whole token is worth one US dollar, so that `"$0.01"` can be paid with it.
    pub is_dollar: bool,
    /// `pay_to`.
    pub pay_to: PayTo,
    /// How proofs are checked here.
    pub method: AcceptMethod,
    /// `max_timeout_s`: default 300.
    pub max_timeout: Duration,
    /// `extra`: operator's additions to the requirement's `extra`; for opaque schemes merged over `/supported`.
    pub extra: Map<String, Value>,
    /// `facilitators`, in order of preference.
    pub facilitators: Vec<Arc<str>>,
}

/// How proofs for an accepted way of paying are checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AcceptMethod {
    /// EIP-3009, with the token's EIP-712 name and version.
    Eip3009 {
        /// EIP-712 domain name.
        name: String,
        /// EIP-712 domain version.
        version: String,
    },
    /// Permit2; name and version only when the token supports EIP-2612.
    Permit2 {
        /// EIP-712 domain name and version of the token.
        eip2612: Option<(String, String)>,
    },
    /// Judged by the facilitator alone.
    Opaque,
}

/// `[upstream.NAME]`.
#[derive(Clone, Eq, PartialEq)]
pub struct UpstreamSettings {
    /// Its name.
    pub name: Arc<str>,
    /// `servers`: at least one, all with or all without TLS.
    pub servers: Vec<ServerAddress>,
    /// Whether the servers speak TLS (`https://`).
    pub tls: bool,
    /// `tls_server_name`: SNI and name to verify; default: the host of the first server.
    pub tls_server_name: String,
    /// `tls_verify`: default true.
    pub tls_verify: bool,
    /// `http2`: speak HTTP/2 to the servers (h2c without TLS); default false.
    pub http2: bool,
    /// `host`: the Host header the servers get; default: the client's.
    pub host: Option<String>,
    /// `strip_prefix`: removed from the front of the path.
    pub strip_prefix: Option<String>,
    /// `add_prefix`: put in front of the path afterwards.
    pub add_prefix: Option<String>,
    /// `headers`: set on every request, over the client's. Values are secrets.
    pub headers: Vec<(String, String)>,
    /// `connect_timeout_ms`: default 3000.
    pub connect_timeout: Duration,
    /// `read_timeout_ms`: between two reads; default 60000.
    pub read_timeout: Duration,
    /// `write_timeout_ms`: between two writes; default 60000.
    pub write_timeout: Duration,
    /// `total_timeout_ms`: until the response headers are there; default 120000.
    pub total_timeout: Duration,
    /// `idle_timeout_ms`: how long an unused connection is kept; default 60000.
    pub idle_timeout: Duration,
    /// `[upstream.NAME.health]`; `None` means no active checks.
    pub health: Option<HealthSettings>,
}

impl std::fmt::Debug for UpstreamSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Injected header values are secrets.
        f.debug_struct("UpstreamSettings")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Host and port of one server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerAddress {
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// `[upstream.NAME.health]`: active health checks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthSettings {
    /// `path`: asked with GET, must answer 200; `None` means that a TCP connection is enough.
    pub path: Option<String>,
    /// `interval_ms`: default 5000.
    pub interval: Duration,
    /// `timeout_ms`: default 2000.
    pub timeout: Duration,
    /// `unhealthy_after`: consecutive failures; default 3.
    pub unhealthy_after: usize,
    /// `healthy_after`: consecutive successes; default 1.
    pub healthy_after: usize,
}

/// `[[rule]]`.
#[derive(Clone, Debug)]
pub struct RuleSettings {
    /// `name`: label in metrics, ledger and logs; unique.
    pub name: Arc<str>,
    /// Where it is written: file and line, for messages.
    pub at: Location,
    /// `methods`: upper case; empty means any.
    pub methods: Vec<String>,
    /// `host`: exact, or `*.example.com`; lower case; `None` means any.
    pub host: Option<String>,
    /// `path`: pattern.
    pub path: String,
    /// `upstream`.
    pub upstream: Option<Arc<str>>,
    /// `request_body_bytes_max`; default: that of `[limits]`.
    pub request_body_bytes_max: u64,
    /// What the rule grants.
    pub access: RuleAccess,
    /// `rate_limit`.
    pub rate_limit: Option<RateLimit>,
}

/// `rate_limit` of a rule: so many requests in so much time.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RateLimit {
    /// `requests`: how many, all of which may come at once.
    pub requests: NonZeroU32,
    /// `per_s`: in which time; default one minute.
    pub per: Duration,
    /// `by`: of whom; default each client.
    pub by: LimitBy,
}

/// Whose requests a [`RateLimit`] counts together.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum LimitBy {
    /// Those from one address.
    #[default]
    Client,
    /// Those that one payer pays for; requests without a payment are not counted.
    Payer,
    /// All.
    Rule,
}

/// File and line of a declaration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// File as given by the operator.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
}

/// What a rule grants.
#[derive(Clone, Debug)]
pub enum RuleAccess {
    /// `free = true`.
    Free,
    /// `deny = true`: 403.
    Deny,
    /// `price = …`.
    Priced(PricedRule),
}

/// A rule with a price.
#[derive(Clone, Debug)]
pub struct PricedRule {
    /// As written.
    pub price: PriceText,
    /// One or more accepted ways of paying with the exact amount for each, in order of preference.
    pub accepts: Vec<(Arc<str>, AtomicAmount)>,
    /// `description`: shown in the challenge.
    pub description: String,
    /// `mime_type`: shown in the challenge.
    pub mime_type: String,
    /// `settle`: `"after"` (default) or `"before"`.
    pub settle: SettleWhen,
    /// `kept_response_bytes_max`.
    pub kept_response_bytes_max: u64,
    /// `forward_conditional`: pass `If-*` and `Range` on, and charge 304 and 206; default false.
    pub forward_conditional: bool,
    /// `shadow`, of the rule or of the whole wall: it is said what it would cost, and nothing is
    /// charged; default false.
    pub shadow: bool,
}

/// `unmatched`: what happens to requests that no rule governs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Unmatched {
    /// 404. The default: an unlisted path is not free.
    #[default]
    Deny,
    /// `unmatched = "free"`: forwarded to this upstream.
    Free(Arc<str>),
    /// Denied, but the whole wall is in shadow: forwarded to this upstream.
    Shadow(Arc<str>),
}

/// `[cors]`: how preflights are answered, and what browsers may read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CorsSettings {
    /// `allow_origins`: exact origins, or `*`; default `["*"]`; empty: preflights go unanswered (403).
    pub allow_origins: Vec<String>,
    /// `allow_headers`: beside the payment headers; default `["*"]`, which echoes what is asked for.
    pub allow_headers: Vec<String>,
    /// `max_age_s`: default 600.
    pub max_age: Duration,
}

/// `[network.NAME]`: where a chain is asked what became of a payment.
#[derive(Clone, Eq, PartialEq)]
pub struct NetworkSettings {
    /// The network, always of the EVM family.
    pub network: Network,
    /// `rpc_url`: JSON-RPC over HTTP. A secret: providers put their keys into it.
    pub rpc_url: String,
    /// `rpc_timeout_ms`: for one call; default 10000.
    pub rpc_timeout: Duration,
    /// `confirmations`: blocks on top of the one that is believed; default 2.
    pub confirmations: u64,
}

impl std::fmt::Debug for NetworkSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL is a secret.
        f.debug_struct("NetworkSettings")
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

//! The origins: named pools of servers, their health, and the path and headers they get.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pingora::lb::LoadBalancer;
use pingora::lb::health_check::{HttpHealthCheck, TcpHealthCheck};
use pingora::lb::selection::RoundRobin;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::{ALPN, HttpPeer, HttpUpstreamRequestPolicy};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::settings::{HealthSettings, UpstreamSettings};
use crate::target::CanonicalTarget;

/// All upstreams by name.
pub type Upstreams = BTreeMap<Arc<str>, Arc<Upstream>>;

/// How often servers are looked at in turn before giving up on finding a healthy one.
const SELECT_ROUNDS_MAX: usize = 256;

/// One named upstream.
pub struct Upstream {
    settings: UpstreamSettings,
    servers: Arc<LoadBalancer<RoundRobin>>,
    /// The settings of a connection, with the address of the first server.
    template: HttpPeer,
    /// There is one server, and nobody looks after its health: it is asked in any case.
    is_single: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Ends the health checks, if there are any.
    end: watch::Sender<bool>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // The last request that uses it is over.
        self.end.send_replace(true);
    }
}

/// Why an upstream cannot be used.
#[derive(Debug, Error)]
#[error("upstream {name:?}: {server} cannot be resolved: {cause}")]
pub struct UpstreamError {
    name: Arc<str>,
    server: String,
    #[source]
    cause: io::Error,
}

impl Upstream {
    /// Resolves the servers' names, once, as nginx does: a changed address needs a restart. Health
    /// checks run on `runtime` until the upstream is dropped.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`] when a name does not resolve.
    pub fn new(settings: UpstreamSettings, runtime: &Handle) -> Result<Arc<Self>, UpstreamError> {
        let failed = |server: String, cause| UpstreamError {
            name: settings.name.clone(),
            server,
            cause,
        };
        let mut addresses = Vec::new();
        for server in &settings.servers {
            let found = (server.host.as_str(), server.port).to_socket_addrs();
            addresses.extend(
                found.map_err(|cause| failed(format!("{}:{}", server.host, server.port), cause))?,
            );
        }
        let none = || failed("its servers".to_owned(), io::ErrorKind::NotFound.into());
        let template = template(&settings, *addresses.first().ok_or_else(none)?);
        let is_single = addresses.len() == 1 && settings.health.is_none();
        let headers = settings.headers.iter().map(|(name, value)| {
            let unusable = |cause| failed(format!("its header {name}"), io::Error::other(cause));
            let name = HeaderName::from_bytes(name.as_bytes());
            let name = name.map_err(|cause| unusable(http::Error::from(cause)))?;
            let value = HeaderValue::from_str(value);
            Ok((name, value.map_err(|cause| unusable(cause.into()))?))
        });
        let headers = headers.collect::<Result<_, UpstreamError>>()?;
        let mut servers = LoadBalancer::<RoundRobin>::try_from_iter(addresses)
            .map_err(|cause| failed("its servers".to_owned(), cause))?;
        if let Some(health) = &settings.health {
            watch_health(&mut servers, &settings, health);
            servers.health_check_frequency = Some(health.interval);
            servers.parallel_health_check = true;
        }
        let (servers, (end, ended)) = (Arc::new(servers), watch::channel(false));
        if settings.health.is_some() {
            let watched = Arc::clone(&servers);
            runtime.spawn(async move { watched.start(ended).await });
        }
        Ok(Arc::new(Self {
            settings,
            servers,
            template,
            is_single,
            headers,
            end,
        }))
    }

    /// What it was made from.
    #[must_use]
    pub const fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// The next server in turn that is healthy.
    #[must_use]
    pub fn peer(&self) -> Option<Box<HttpPeer>> {
        let mut peer = Box::new(self.template.clone());
        if !self.is_single {
            peer._address = self.servers.select(b"", SELECT_ROUNDS_MAX)?.addr;
        }
        Some(peer)
    }

    /// Path and query as this upstream gets them: its prefix removed, its prefix added.
    #[must_use]
    pub fn path_for(&self, target: &CanonicalTarget) -> String {
        let stripped = self.settings.strip_prefix.as_deref().map_or(
            target.path.as_str(),
            |prefix| match target.path.strip_prefix(prefix.trim_end_matches('/')) {
                Some("") => "/",
                Some(rest) if rest.starts_with('/') => rest,
                Some(_) | None => &target.path,
            },
        );
        let added = self
            .settings
            .add_prefix
            .as_deref()
            .unwrap_or("")
            .trim_end_matches('/');
        let query = target.query.as_ref().map_or(0, |query| query.len());
        let length = added.len().saturating_add(stripped.len());
        let mut path = String::with_capacity(length.saturating_add(query).saturating_add(1));
        path.push_str(added);
        path.push_str(stripped);
        if let Some(query) = &target.query {
            path.push('?');
            path.push_str(query);
        }
        path
    }

    /// The Host that the servers get, when it is not the client's.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.settings.host.as_deref()
    }

    /// Headers set on every request.
    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// How long response headers may take.
    #[must_use]
    pub const fn total_timeout(&self) -> Duration {
        self.settings.total_timeout
    }
}

/// How servers are talked to.
fn template(s: &UpstreamSettings, first: SocketAddr) -> HttpPeer {
    let mut peer = HttpPeer::new(first, s.tls, s.tls_server_name.clone());
    let options = &mut peer.options;
    options.connection_timeout = Some(s.connect_timeout);
    // Connecting and the TLS handshake together.
    options.total_connection_timeout = Some(s.connect_timeout.saturating_mul(2));
    options.read_timeout = Some(s.read_timeout.min(s.total_timeout));
    options.write_timeout = Some(s.write_timeout);
    options.idle_timeout = Some(s.idle_timeout);
    options.verify_cert = s.tls_verify;
    options.verify_hostname = s.tls_verify;
    // No request may leave the gate's protocol behind: what follows an upgrade is never priced.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    options.alpn = if s.http2 { ALPN::H2 } else { ALPN::H1 };
    peer
}

fn watch_health(
    servers: &mut LoadBalancer<RoundRobin>,
    settings: &UpstreamSettings,
    health: &HealthSettings,
) {
    let Some(path) = &health.path else {
        let mut check = if settings.tls {
            TcpHealthCheck::new_tls(&settings.tls_server_name)
        } else {
            TcpHealthCheck::new()
        };
        check.consecutive_success = health.healthy_after;
        check.consecutive_failure = health.unhealthy_after;
        check.peer_template.options.connection_timeout = Some(health.timeout);
        servers.set_health_check(check);
        return;
    };
    let host = settings
        .host
        .as_deref()
        .unwrap_or(&settings.tls_server_name);
    let mut check = HttpHealthCheck::<()>::new(host, settings.tls);
    check.consecutive_success = health.healthy_after;
    check.consecutive_failure = health.unhealthy_after;
    check.peer_template.options.connection_timeout = Some(health.timeout);
    check.peer_template.options.read_timeout = Some(health.timeout);
    check
        .peer_template
        .sni
        .clone_from(&settings.tls_server_name);
    if check.req.set_raw_path(path.as_bytes()).is_err() {
        tracing::warn!(upstream = %settings.name, %path, "unusable health check path; asking for /");
    }
    servers.set_health_check(Box::new(check));
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::ServerAddress;

    fn upstream(strip: Option<&str>, add: Option<&str>) -> Arc<Upstream> {
        let second = Duration::from_secs(1);
        let settings = UpstreamSettings {
            name: "api".into(),
            servers: vec![ServerAddress {
                host: "127.0.0.1".to_owned(),
                port: 9,
            }],
            tls: false,
            tls_server_name: "127.0.0.1".to_owned(),
            tls_verify: true,
            http2: false,
            host: None,
            strip_prefix: strip.map(str::to_owned),
            add_prefix: add.map(str::to_owned),
            headers: Vec::new(),
            connect_timeout: second,
            read_timeout: second,
            write_timeout: second,
            total_timeout: second,
            idle_timeout: second,
            health: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        Upstream::new(settings, runtime.handle()).unwrap()
    }

    #[track_caller]
    fn check(strip: Option<&str>, add: Option<&str>, path: &str, want: &str) {
        let target = CanonicalTarget::parse(path.as_bytes(), 8192).unwrap();
        assert_eq!(upstream(strip, add).path_for(&target), want);
    }

    #[test]
    fn prefixes_are_cut_at_segment_borders_only() {
        check(None, None, "/v1/x?a=1", "/v1/x?a=1");
        check(Some("/v1"), None, "/v1/x?a=1", "/x?a=1");
        check(Some("/v1/"), None, "/v1/x", "/x");
        check(Some("/v1"), None, "/v1", "/");
        check(Some("/v1"), None, "/v10/x", "/v10/x");
        check(Some("/v1"), Some("/api/"), "/v1/x", "/api/x");
        check(None, Some("/api"), "/", "/api/");
    }
}

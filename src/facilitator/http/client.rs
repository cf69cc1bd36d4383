//! One pool of connections to one facilitator: HTTP/1.1, verified TLS, a time-out for connecting.
//!
//! hyper's own client, because a call is made twice for each payment: what it asks is prepared once, and there
//! are no layers for redirects, proxies and cookies, which a facilitator must not have anyway.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use crate::config::settings::FacilitatorSettings;

/// Idle connections are dropped after this: longer than a burst, shorter than most servers' patience.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// A connection that says nothing for so long is asked whether it lives, and three times again.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// What goes wrong on the way.
pub(super) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Connections to one facilitator, made when needed and kept for the next call.
pub(super) type Pool = Client<Connector, Full<Bytes>>;

/// Makes connections, each within a time-out for name, TCP and TLS together.
#[derive(Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<HttpConnector>,
    limit: Duration,
}

impl Service<http::Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<http::Uri>>::Response;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Fault>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, to: http::Uri) -> Self::Future {
        let connecting = timeout(self.limit, self.inner.call(to));
        Box::pin(async move { connecting.await? })
    }
}

/// A pool for this facilitator. `ca_pem` replaces the system's certificate authorities.
pub(super) fn pool(settings: &FacilitatorSettings, ca_pem: Option<&[u8]>) -> Result<Pool, Fault> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Shared by the addresses of a name: one that does not answer leaves time for the next.
    tcp.set_connect_timeout(Some(settings.connect_timeout));
    // A facilitator that vanished is noticed before the deadline of a settlement.
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(3));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(KEEPALIVE.saturating_mul(2)));
    let inner = HttpsConnectorBuilder::new()
        .with_tls_config(tls(ca_pem)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let connector = Connector {
        inner,
        limit: settings.connect_timeout,
    };
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(settings.calls_max)
        .build(connector))
}

fn tls(ca_pem: Option<&[u8]>) -> Result<ClientConfig, Fault> {
    let mut roots = RootCertStore::empty();
    match ca_pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

//! The admin listener: health, readiness and metrics for whoever reaches it; all else, which shows
//! payments or does something, for who has the token. Loopback by default.
//!
//! Nothing here is asked for by a request to the wall, and nothing here can slow one down: the ledger
//! is read through connections of its own, a few at a time.

mod answer;
mod auth;
mod connections;
mod control;
mod events;
mod payments;
mod receipt;
mod state;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::{TcpListener, UnixListener};

use crate::chain::PaymentKey;
use crate::config::settings::AdminAddress;
use crate::facilitator::breaker::Stage;
use crate::ledger::Ledger;
use crate::metrics;

pub use self::answer::Problem;
pub use self::auth::{Token, TokenError};
pub use self::state::{Admin, AdminParts, InForce};

/// What every answer below `/v1/` and `/ws/` is described by. Written by hand; a test compares.
const OPENAPI: &str = include_str!("admin/openapi.json");

/// The socket of the admin listener.
#[derive(Debug)]
pub enum Socket {
    /// IP address and port.
    Tcp(TcpListener),
    /// A socket in the file system.
    Unix(UnixListener),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Socket {
    /// Binds it. A socket file that an earlier wall left behind is replaced, one that is in use is not.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub async fn bind(address: &AdminAddress) -> io::Result<Self> {
        match address {
            AdminAddress::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            AdminAddress::Unix(path) => bind_unix(path).await.map(Self::Unix),
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_left_behind = match tokio::net::UnixStream::connect(path).await {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
    };
    if is_left_behind {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the runtime ends.
pub async fn serve(socket: Socket, admin: Arc<Admin>) -> Infallible {
    connections::serve(socket, router(admin)).await
}

fn router(admin: Arc<Admin>) -> Router {
    let open = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .route("/openapi.json", get(openapi));
    if !admin.has_token() {
        return open.with_state(admin);
    }
    let shown = Router::new()
        .route("/v1/version", get(control::version))
        .route("/v1/config", get(control::config))
        .route("/v1/rules", get(control::rules))
        .route("/v1/facilitators", get(control::facilitators))
        .route("/v1/payments", get(payments::list))
        .route("/v1/payments/{id}", get(payments::one))
        .route("/v1/payments/{id}/receipt", get(receipt::receipt))
        .route("/v1/owed", get(payments::owed))
        .route("/v1/unknown", get(payments::unknown))
        .route("/v1/revenue", get(payments::revenue))
        .layer(middleware::from_fn(answer::tagged));
    let live = Router::new()
        .route("/v1/reconcile", post(control::reconcile))
        .route("/v1/reload", post(control::reload))
        .route("/ws/payments/", get(events::payments))
        .route("/ws/settlements/", get(events::settlements));
    let guard = middleware::from_fn_with_state(Arc::clone(&admin), auth::require);
    let closed = shown.merge(live).layer(guard);
    open.merge(closed).with_state(admin)
}

async fn openapi() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, OPENAPI).into_response()
}

async fn ready(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    match admin.ledger().find(PaymentKey([0; 32])).await {
        Ok(_) => (StatusCode::OK, "ready\n"),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the ledger does not answer\n",
            )
        }
    }
}

async fn render(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    if let Some(commits) = admin.ledger().commits() {
        metrics::ledger_commits(commits);
    }
    let in_force = admin.in_force();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        metrics::render(|| announce(&in_force)),
    )
}

/// What the metrics tell of the configuration in force.
fn announce(in_force: &InForce) {
    let verifier = in_force.rules.gate.verifier();
    for (name, facilitator) in verifier.facilitators().iter() {
        let breaker = match facilitator.breaker() {
            Stage::Closed => 0,
            Stage::HalfOpen => 1,
            Stage::Open => 2,
        };
        metrics::facilitator(name, facilitator.is_healthy(), breaker);
    }
    for (name, accept) in &in_force.settings.accepts {
        let (network, asset) = (accept.network.as_str(), accept.asset.as_str());
        let decimals = accept.decimals.get().to_string();
        metrics::accept(name, network, asset, &accept.symbol, &decimals);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn every_path_that_is_answered_is_described_and_the_other_way_round() {
        let source = include_str!("admin.rs");
        let product = source.split("#[cfg(test)]").next().unwrap();
        let answered: BTreeSet<_> = product
            .split(".route(\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect();
        let described: Value = serde_json::from_str(OPENAPI).unwrap();
        let described: BTreeSet<_> = described["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(answered, described);
    }
}

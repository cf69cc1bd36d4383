//! The admin listener: liveness, readiness and metrics. Loopback by default; it shows no secrets.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::chain::PaymentKey;
use crate::ledger::Ledger;
use crate::metrics;

/// Serves until the runtime ends.
///
/// `/healthz` says that the process runs, `/readyz` that it can take payments, `/metrics` what it did.
///
/// # Errors
///
/// When the socket fails.
pub async fn serve(listener: TcpListener, ledger: Arc<dyn Ledger>) -> std::io::Result<()> {
    axum::serve(listener, router(ledger)).await
}

fn router(ledger: Arc<dyn Ledger>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(ledger)
}

async fn ready(State(ledger): State<Arc<dyn Ledger>>) -> impl IntoResponse {
    match ledger.find(PaymentKey([0; 32])).await {
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

async fn render(State(ledger): State<Arc<dyn Ledger>>) -> impl IntoResponse {
    if let Some(commits) = ledger.commits() {
        metrics::ledger_commits(commits);
    }
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        metrics::render(),
    )
}

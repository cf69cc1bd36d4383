//! The origin of `farewall demo`: an API that knows nothing of payments.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use tokio::net::TcpListener;

/// Size of the download.
const DOWNLOAD_BYTES: usize = 4 * 1024 * 1024;

/// How long the slow answer takes.
const SLOW: Duration = Duration::from_secs(3);

/// Events of the stream, one a second.
const EVENTS: u32 = 5;

/// Serves the demo API until the runtime ends.
///
/// # Errors
///
/// When the socket fails.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    axum::serve(listener, router()).await
}

fn router() -> Router {
    Router::new()
        .route("/health", get(|| async { json(r#"{"status":"up"}"#) }))
        .route(
            "/quote",
            get(|| async { json(r#"{"symbol":"ACME","bid":"12.34","ask":"12.35"}"#) }),
        )
        .route("/slow", get(slow))
        .route("/events", get(events))
        .route("/download", get(download))
        .route("/broken", get(broken))
        .route("/report", post(|body: Bytes| async move { report(&body) }))
}

fn json(body: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn slow() -> Response {
    tokio::time::sleep(SLOW).await;
    json(r#"{"answer":42,"took":"3 s"}"#)
}

async fn download() -> Response {
    let head = [(header::CONTENT_TYPE, "application/octet-stream")];
    (head, Bytes::from(vec![b'.'; DOWNLOAD_BYTES])).into_response()
}

async fn broken() -> Response {
    let head = [(header::CONTENT_TYPE, "application/json")];
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        head,
        r#"{"error":"the origin failed"}"#,
    )
        .into_response()
}

fn report(body: &Bytes) -> Response {
    let text = format!("{{\"received_bytes\":{}}}", body.len());
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn events() -> Response {
    let ticks = stream::unfold(0_u32, |n| async move {
        if n >= EVENTS {
            return None;
        }
        if n > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let event = Bytes::from(format!("event: tick\ndata: {{\"n\":{n}}}\n\n"));
        Some((Ok::<_, Infallible>(event), n.saturating_add(1)))
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(ticks),
    )
        .into_response()
}

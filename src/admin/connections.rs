//! The connections of the admin listener: how many there are, how long a request may take to be asked, and how
//! long an answer may lie about. All of it comes before the token, which is in the request.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::Socket;
use crate::stall::Unstalled;

/// Connections at once, listeners to live events among them. Further ones are closed.
const CONNECTIONS_MAX: usize = 256;
/// Within which a request line and its headers must be there, and within which the next one on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of them.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long somebody may take nothing of an answer, or of an event.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nobody is let in after that failed: mostly no file can be opened.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves for ever.
pub(super) async fn serve(socket: Socket, router: Router) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = match &socket {
            Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // Events are small, and wanted at once.
                drop(stream.set_nodelay(true));
                admit(stream, &router, &places);
            }),
            Socket::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| admit(stream, &router, &places)),
        };
        if let Err(error) = accepted
            && !is_of_one(&error)
        {
            tracing::error!(%error, "the admin listener cannot accept connections");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether it is the fault of the connection that was about to be accepted.
fn is_of_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

fn admit(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: &Router,
    places: &Arc<Semaphore>,
) {
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        return;
    };
    let service = TowerToHyperService::new(router.clone());
    let stream = TokioIo::new(Unstalled::new(stream, SEND_TIMEOUT));
    tokio::spawn(async move {
        // A WebSocket goes on elsewhere after this; those have places of their own.
        let _place = place;
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(stream, service)
            .with_upgrades();
        if let Err(error) = served.await {
            tracing::debug!(%error, "a connection to the admin listener broke off");
        }
    });
}

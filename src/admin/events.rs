//! Live events: each move of a payment that this wall wrote down, over WebSocket or, when the client
//! accepts `text/event-stream`, as server-sent events.
//!
//! A listener that reads too slowly misses events; it is told, and let go, so that it knows to read
//! the ledger again. Nobody who listens can slow down a payment.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Admin;
use super::answer::{Problem, problem};
use crate::books::export::object;
use crate::books::when;
use crate::ledger::observed::Event;
use crate::settlement::State as Standing;

/// How long a listener may take to accept one event.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a WebSocket that has nothing to say is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);

const TOO_SLOW: &str = "too slow: events were missed; read the ledger, then connect again";

/// Which events are told.
type Wanted = fn(Standing) -> bool;

/// One who listens.
struct Listener {
    admin: Arc<Admin>,
    events: Receiver<Event>,
    wanted: Wanted,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next event; `Err` when some were missed; `None` at the end. Nothing is lost when the wait
    /// for it is broken off.
    async fn next(&mut self) -> Option<Result<Event, ()>> {
        loop {
            match self.events.recv().await {
                Ok(event) if (self.wanted)(event.state) => return Some(Ok(event)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    tracing::info!(missed, "a listener to live events was too slow");
                    return Some(Err(()));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// What is told of an event: the move itself, and the payment as it is in the ledger by now.
    async fn told(&self, event: Event) -> Value {
        let read = self.admin.read(move |ledger, admin| {
            let record = ledger.get(event.claim)?;
            Ok(record.map(|record| object(&record, &admin.in_force().tokens)))
        });
        let payment = match read.await {
            Ok(payment) => payment.map_or(Value::Null, Value::Object),
            Err(error) => {
                tracing::warn!(%error, "an event is told without its payment");
                Value::Null
            }
        };
        json!({
            "id": event.claim.0,
            "state": event.state.as_str(),
            "at": when::text(event.at),
            "payment": payment,
        })
    }
}

pub(super) async fn payments(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    listen(admin, &headers, upgrade, |_| true)
}

pub(super) async fn settlements(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    listen(admin, &headers, upgrade, |state| match state {
        Standing::Settling | Standing::Settled | Standing::Refused | Standing::Expired => true,
        Standing::Claimed | Standing::Delivered | Standing::Released => false,
    })
}

fn listen(
    admin: Arc<Admin>,
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    wanted: Wanted,
) -> Response {
    let Ok(place) = Arc::clone(&admin.listeners).try_acquire_owned() else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            Problem::Busy,
            "Too many listen already.",
        );
    };
    let events = admin.ledger().events();
    let listener = Listener {
        admin,
        events,
        wanted,
        _place: place,
    };
    let accepts = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let is_sse = accepts.is_some_and(|kinds| kinds.contains("text/event-stream"));
    match upgrade {
        Ok(upgrade) => upgrade
            // What clients say is not listened to.
            .max_message_size(4096)
            .on_upgrade(|socket| tell(socket, listener)),
        Err(_) if is_sse => sse(listener),
        Err(refused) => refused.into_response(),
    }
}

async fn tell(mut socket: WebSocket, mut listener: Listener) {
    let mut ping = tokio::time::interval(PING_EVERY);
    loop {
        let event = tokio::select! {
            event = listener.next() => match event {
                Some(Ok(event)) => Some(event),
                Some(Err(())) => return close(socket, close_code::POLICY, TOO_SLOW).await,
                None => return close(socket, close_code::AWAY, "the wall ends").await,
            },
            _ = ping.tick() => None,
            said = socket.recv() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(
                    Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_),
                )) => continue,
            },
        };
        let message = match event {
            Some(event) => Message::Text(listener.told(event).await.to_string().into()),
            None => Message::Ping(Vec::new().into()),
        };
        match tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return close(socket, close_code::POLICY, TOO_SLOW).await,
        }
    }
}

async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    let said = socket.send(Message::Close(Some(frame)));
    // Who does not take that either is cut off.
    drop(tokio::time::timeout(Duration::from_secs(1), said).await);
}

fn sse(listener: Listener) -> Response {
    let events = stream::unfold(Some(listener), |listener| async move {
        let mut listener = listener?;
        let (event, listener) = match listener.next().await? {
            Ok(event) => {
                let told = listener.told(event).await.to_string();
                let id = event.claim.0.to_string();
                let event = SseEvent::default().event("move").id(id).data(told);
                (event, Some(listener))
            }
            Err(()) => (SseEvent::default().event("lagged").data(TOO_SLOW), None),
        };
        Some((Ok::<_, Infallible>(event), listener))
    });
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}

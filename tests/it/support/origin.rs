//! An origin that knows nothing of payments, counts what it is asked and can be as bad as real ones.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use futures_util::stream;

/// One request as the origin saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// The wall's end of the connection.
    pub peer: SocketAddr,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

#[derive(Clone)]
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// At an address that was free a moment ago.
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let app = Router::new().fallback(handle).with_state(Arc::clone(&seen));
        tokio::spawn(async move {
            axum::serve(
                listener,
                app.into_make_service_with_connect_info::<SocketAddr>(),
            )
            .await
            .unwrap()
        });
        Self { address, seen }
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests for this path (without query) so far.
    pub fn hits(&self, path: &str) -> usize {
        self.seen()
            .iter()
            .filter(|s| s.target.split('?').next() == Some(path))
            .count()
    }

    /// The last request.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the origin was asked nothing")
    }
}

async fn handle(
    State(seen): State<Arc<Mutex<Vec<Seen>>>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let query: HashMap<String, String> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let body = axum::body::to_bytes(body, 64 << 20)
        .await
        .unwrap_or_default();
    seen.lock().unwrap().push(Seen {
        method: head.method.to_string(),
        target,
        headers: head
            .headers
            .iter()
            .map(|(n, v)| {
                (
                    n.to_string(),
                    String::from_utf8_lossy(v.as_bytes()).into_owned(),
                )
            })
            .collect(),
        body: body.clone(),
        peer,
    });
    let nth = seen.lock().unwrap().len();
    let last = head.uri.path().rsplit('/').next().unwrap_or_default();
    let number = |name: &str, default: u64| query.get(name).map_or(default, |v| v.parse().unwrap());
    answer(last, &number, nth, body).await
}

async fn answer(
    last: &str,
    number: &(dyn Fn(&str, u64) -> u64 + Sync),
    nth: usize,
    body: Bytes,
) -> Response {
    match last {
        "fail" => status(number("status", 500), "{\"error\":\"origin failed\"}"),
        "flaky" if nth <= usize::try_from(number("fail", 1)).unwrap() => status(503, "not yet"),
        "slow" => {
            tokio::time::sleep(Duration::from_millis(number("ms", 300))).await;
            json(nth)
        }
        "dead" => {
            tokio::time::sleep(Duration::from_millis(number("ms", 0))).await;
            status(500, "{\"error\":\"origin failed\"}")
        }
        "events" => events(number("count", 3), number("ms", 100)),
        "big" => Response::new(Body::from(vec![
            b'x';
            usize::try_from(number("bytes", 1 << 20))
                .unwrap()
        ])),
        "parts" => parts(),
        "dies" => dies(),
        "leaky" => Response::builder()
            .header("PAYMENT-RESPONSE", "forged")
            .header("PAYMENT-REQUIRED", "forged")
            .header("X-Payment-Response", "forged")
            .header("Settlement-Overrides", "{\"amount\":\"0\"}")
            .header("X-Farewall-Secret", "s")
            .header("Farewall-Shadow", "forged")
            .header("Cache-Control", "public, max-age=60, s-maxage=600")
            .body(Body::from("leaky"))
            .unwrap(),
        "not-modified" => status(304, ""),
        "partial" => status(206, "part"),
        "redirect" => Response::builder()
            .status(302)
            .header("location", "/elsewhere")
            .body(Body::empty())
            .unwrap(),
        "empty" => status(204, ""),
        "echo" => Response::new(Body::from(body)),
        _ => json(nth),
    }
}

/// Different at every call, so that a replay can be told from a second sale.
fn json(nth: usize) -> Response {
    Response::builder()
        .header("content-type", "application/json")
        .header("etag", "\"v1\"")
        .body(Body::from(format!("{{\"answer\":42,\"nth\":{nth}}}")))
        .unwrap()
}

fn status(code: u64, body: &'static str) -> Response {
    let code = u16::try_from(code).unwrap();
    Response::builder()
        .status(code)
        .body(Body::from(body))
        .unwrap()
}

fn events(count: u64, ms: u64) -> Response {
    let chunks = stream::unfold(0, move |n| async move {
        if n == count {
            return None;
        }
        if n > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        Some((
            Ok::<_, std::io::Error>(Bytes::from(format!("data: {n}\n\n"))),
            n + 1,
        ))
    });
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(chunks))
        .unwrap()
}

/// Promises 1000 bytes, sends 10, and breaks off a moment later.
fn dies() -> Response {
    let chunks = stream::unfold(0, |n| async move {
        match n {
            0 => Some((Ok(Bytes::from_static(b"0123456789")), 1)),
            _ => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some((Err(std::io::Error::other("the origin died")), 2))
            }
        }
    });
    Response::builder()
        .header("content-length", "1000")
        .body(Body::from_stream(chunks))
        .unwrap()
}

/// Ten pieces of ten kilobytes, chunked, a moment apart.
fn parts() -> Response {
    let chunks = stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        (n < 10).then(|| {
            (
                Ok::<_, std::io::Error>(Bytes::from(vec![b'p'; 10_000])),
                n + 1,
            )
        })
    });
    Response::new(Body::from_stream(chunks))
}

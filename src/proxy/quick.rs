//! The answer to a plain request that has not paid, given before there is a session for it.
//!
//! pingora makes a session of some 20 KiB for each request, before anybody can see what it asks for.
//! Most requests without a payment need none of that: the head is there, the answer is known.
//!
//! **Nothing here can reach an upstream**: there is no session, no peer and no admission, and all
//! that comes out is a refusal or nothing. Whatever is not plain, and whatever is not under a priced
//! rule, goes the long way untouched, as if nobody had looked. So the worst that a mistake here can do is
//! to refuse what the long way would have sold, or to ask another price than it would have asked.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use httparse::Status;
use tokio::io::AsyncWriteExt;

use crate::gate::{Ask, Delivery};
use crate::metrics::{self, Counted, Phase, Phases, RuleMeter};
use crate::proof::ProofHeaders;
use crate::proxy::code::Code;
use crate::proxy::context::{RequestId, UnderWay};
use crate::proxy::headers::ClientIdentity;
use crate::proxy::respond::OnWire;
use crate::proxy::watched::Watched;
use crate::proxy::{Wall, access, respond};
use crate::route::{Access, RequestLine};
use crate::target::{CanonicalHost, CanonicalTarget, Scheme};
use crate::throttle::Client;

/// More headers than this are not plain.
const HEADERS_MAX: usize = 48;

/// After a request that was not answered here, so many of its connection are not looked at: who asks
/// for what is free mostly goes on to, and need not be looked up twice.
const PASSED_BY: u8 = 31;

/// The methods of plain requests. `OPTIONS` may be a preflight.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Headers with which a request is not plain, beside those of payments: the long way reads them, or pingora does.
const NOT_PLAIN: [&str; 7] = [
    "origin",
    "transfer-encoding",
    "expect",
    "upgrade",
    "trailer",
    "traceparent",
    "http2-settings",
];

/// A request of which nothing but this matters.
#[derive(Debug, Eq, PartialEq)]
struct Plain<'a> {
    method: &'static str,
    /// In origin form.
    target: &'a [u8],
    host: &'a [u8],
    /// Only ever 0.
    content_length: Option<u64>,
}

/// Reads a head, from its first byte to behind its empty line; `None` when it is not plain.
fn read(head: &[u8]) -> Option<Plain<'_>> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(head, &mut headers);
    if parsed != Ok(Status::Complete(head.len())) || request.version != Some(1) {
        return None;
    }
    let (method, target) = (request.method?, request.path?);
    let method = METHODS.into_iter().find(|known| *known == method)?;
    let (mut host, mut content_length, mut connection) = (None, None, None);
    for header in request.headers.iter() {
        let once = match header.name {
            name if name.eq_ignore_ascii_case("host") => host.replace(header.value),
            name if name.eq_ignore_ascii_case("content-length") => {
                content_length.replace(header.value)
            }
            name if name.eq_ignore_ascii_case("connection") => connection.replace(header.value),
            name if is_odd(name) => return None,
            _ => None,
        };
        if once.is_some() {
            return None;
        }
    }
    let is_plain = target.starts_with('/')
        && target.bytes().all(is_plain_byte)
        && content_length.is_none_or(|length| length == b"0")
        && connection.is_none_or(|value| value.eq_ignore_ascii_case(b"keep-alive"));
    is_plain.then_some(Plain {
        method,
        target: target.as_bytes(),
        host: host?,
        content_length: content_length.map(|_| 0),
    })
}

/// Whether a request with a header of this name goes the long way.
fn is_odd(name: &str) -> bool {
    let mut odd = ProofHeaders::NAMES.iter().chain(&NOT_PLAIN);
    odd.any(|odd| odd.eq_ignore_ascii_case(name))
}

/// Whether pingora takes this byte of a target as it is; others it refuses or escapes.
const fn is_plain_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'~')
}

/// Answers for the wall.
pub(super) struct Quick {
    wall: Wall,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    address: Option<SocketAddr>,
    is_tls: bool,
    /// So many more requests are not looked at.
    passed_by: u8,
}

impl Peer {
    /// Of a new connection.
    pub(super) const fn new(address: Option<SocketAddr>, is_tls: bool) -> Self {
        Self {
            address,
            is_tls,
            passed_by: 0,
        }
    }
}

/// The answer to one request, yet to be written.
pub(super) struct Reply {
    answer: OnWire,
    method: &'static str,
    request_id: RequestId,
    started: Instant,
    phases: Phases,
    meter: Arc<RuleMeter>,
    _under_way: UnderWay,
    _counted: Counted,
}

impl Quick {
    /// For this wall, when it answers requests to itself and nobody gets traces of them.
    pub(super) fn of(wall: Wall) -> Option<Self> {
        (wall.forward_auth.is_none() && wall.spans.is_none()).then_some(Self { wall })
    }

    /// The answer to the request with this head; `None` when it goes the long way.
    pub(super) fn answer(&self, head: &[u8], peer: &mut Peer) -> Option<Reply> {
        if let Some(fewer) = peer.passed_by.checked_sub(1) {
            peer.passed_by = fewer;
            return None;
        }
        let started = Instant::now();
        let rules = self.wall.in_force.load();
        let client = ClientIdentity::new(peer.address, peer.is_tls, &rules.trusted_proxies);
        // Whom a trusted proxy asks for stands in its headers.
        let plain = read(head).filter(|_| !client.trusted)?;
        let scheme = if peer.is_tls {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let target = CanonicalTarget::parse(plain.target, rules.target_bytes_max).ok()?;
        let host = CanonicalHost::parse(plain.host, scheme).ok()?;
        let line = RequestLine {
            method: plain.method,
            host: &host.host,
            path: &target.path,
        };
        let Access::Priced(route) = rules.gate.routes().access(&line) else {
            peer.passed_by = PASSED_BY;
            return None;
        };
        let phases = Phases::default();
        let ask = Ask {
            method: plain.method,
            host: &host,
            target: &target,
            proof: ProofHeaders::default(),
            idempotency_key: None,
            has_body: false,
            content_length: plain.content_length,
            client: Client::at(client.peer),
            phases: &phases,
            delivery: Delivery::Here,
        };
        let under_way = UnderWay::count(&self.wall.under_way);
        let meter = Arc::clone(&route.meter);
        // Counted under the rule's limit, once: from here on there is an answer.
        let refusal = rules.gate.refuse_unpaid(&ask, route);
        let (begun, request_id) = (Instant::now(), RequestId::random());
        let is_head = plain.method == "HEAD";
        let answer = respond::on_wire(&refusal, &rules.seller, &request_id, is_head).ok()?;
        if answer.outcome == Code::PaymentRequired.as_str() {
            phases.add(Phase::Challenge, begun.elapsed());
        }
        tracing::debug!(%request_id, cause = %refusal, early = true, "request refused");
        Some(Reply {
            answer,
            method: plain.method,
            request_id,
            started,
            phases,
            meter,
            _under_way: under_way,
            _counted: metrics::under_way(),
        })
    }
}

impl Reply {
    /// Writes the answer, and what there is to say of the request; whether the connection goes on.
    pub(super) async fn send(self, to: &mut Watched) -> bool {
        let written = match to.write_all(&self.answer.bytes).await {
            Ok(()) => to.flush().await,
            Err(error) => Err(error),
        };
        let (outcome, status) = match &written {
            Ok(()) => (self.answer.outcome, self.answer.status),
            Err(_) => ("client_left", 0),
        };
        let elapsed = self.started.elapsed();
        metrics::request(&self.meter, outcome, status, elapsed);
        metrics::phases(&self.phases);
        access::Line {
            request_id: &self.request_id,
            headers: None,
            method: self.method,
            rule: Some(self.meter.rule()),
            outcome,
            status,
            bought: None,
            phases: &self.phases,
            elapsed,
            error: written.as_ref().err().map(|error| error as _),
        }
        .write();
        written.is_ok()
    }
}

#[cfg(test)]
mod tests;

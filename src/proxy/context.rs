//! What one request carries from phase to phase.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method};
use pingora::http::ResponseHeader;
use pingora::{ErrorType, OrErr, Result};
use sha2::{Digest, Sha256};

use crate::chain::{Payer, PaymentKey};
use crate::gate::{Paid, Refusal, Replay};
use crate::kept::{KeptResponse, Recorder};
use crate::ledger::BodyDigest;
use crate::metrics::{self, Counted, Phases, RuleMeter};
use crate::money::AtomicAmount;
use crate::otlp::TraceContext;
use crate::proxy::Generation;
use crate::target::{CanonicalHost, CanonicalTarget};
use crate::upstream::Upstream;

/// What one request carries.
pub struct RequestCtx {
    /// The configuration that it began with, to its end.
    pub(super) rules: Arc<Generation>,
    /// Where the request stands with the gate.
    pub(super) stage: Stage,
    /// When it began.
    pub(super) started: Option<Instant>,
    /// Hexadecimal, ours; in the log, towards the upstream and the client.
    pub(super) request_id: RequestId,
    /// Name of the rule, for the log.
    pub(super) rule: Option<Arc<str>>,
    /// Counts it, when a rule governs it.
    pub(super) meter: Option<Arc<RuleMeter>>,
    /// Where its time went.
    pub(super) phases: Phases,
    /// What it was paid with, for the log.
    pub(super) bought: Option<Bought>,
    /// Why it was refused, for the log and the metrics.
    pub(super) outcome: Outcome,
    /// Canonical host; set before the stage leaves [`Stage::New`].
    pub(super) host: Option<CanonicalHost>,
    /// Canonical target; likewise.
    pub(super) target: Option<CanonicalTarget>,
    /// The allowed `Origin` of a cross-origin request, as it goes into the answer.
    pub(super) allow_origin: Option<String>,
    /// Where it is going.
    pub(super) upstream: Option<Arc<Upstream>>,
    /// When the upstream was asked.
    pub(super) forwarded: Option<Instant>,
    /// Request body: limit and digest.
    pub(super) body: BodyMeter,
    /// Response as it passes, for a retry.
    pub(super) recording: Option<Recording>,
    /// A body of ours that takes the place of the upstream's.
    pub(super) substitute: Substitute,
    /// Why the response is not released, on its way to the phase that answers.
    pub(super) refusal: Option<Refusal>,
    /// What it would have cost, when it is in shadow.
    pub(super) shadow: Option<String>,
    /// The method that another proxy asks about, in place of the ask's own.
    pub(super) original_method: Option<Method>,
    /// Its place in a trace, when somebody gets traces.
    pub(super) trace: Option<TraceContext>,
    /// Counts the request as under way until it is dropped.
    _under_way: UnderWay,
    /// The same for the metrics.
    _counted: Counted,
}

impl RequestCtx {
    /// Nothing is known yet.
    pub(super) fn new(rules: Arc<Generation>, under_way: UnderWay) -> Self {
        Self {
            rules,
            stage: Stage::default(),
            started: None,
            request_id: RequestId::default(),
            rule: None,
            meter: None,
            phases: Phases::default(),
            bought: None,
            outcome: Outcome::default(),
            host: None,
            target: None,
            allow_origin: None,
            upstream: None,
            forwarded: None,
            body: BodyMeter::default(),
            recording: None,
            substitute: Substitute::default(),
            refusal: None,
            shadow: None,
            original_method: None,
            trace: None,
            _under_way: under_way,
            _counted: metrics::under_way(),
        }
    }
}

/// What a request was paid with.
pub(super) struct Bought {
    pub(super) payment: PaymentKey,
    pub(super) payer: Payer,
    pub(super) accept: Arc<str>,
    pub(super) amount: AtomicAmount,
}

impl Bought {
    pub(super) fn of(paid: &Paid) -> Self {
        Self {
            payment: paid.payment(),
            payer: paid.payer().clone(),
            accept: Arc::clone(&paid.offer().accept),
            amount: paid.offer().amount,
        }
    }

    pub(super) fn of_replay(replay: &Replay) -> Self {
        let claim = &replay.record().claim;
        Self {
            payment: claim.payment,
            payer: claim.payer.clone(),
            accept: Arc::clone(&claim.accept),
            amount: claim.amount,
        }
    }
}

/// A request under way; the count goes down when it is dropped, panics included.
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    /// One more.
    pub(super) fn count(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(all))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// 128 random bits in hexadecimal. For finding a request in the log; no secret.
#[derive(Clone, Copy)]
pub(super) struct RequestId([u8; 32]);

impl RequestId {
    pub(super) fn random() -> Self {
        let digit = |nibble: u8| b"0123456789abcdef".get(usize::from(nibble)).copied();
        let (mut digits, bytes) = ([b'0'; 32], rand::random::<u128>().to_ne_bytes());
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            for (place, nibble) in pair.iter_mut().zip([byte >> 4, byte & 0xf]) {
                *place = digit(nibble).unwrap_or(*place);
            }
        }
        Self(digits)
    }

    pub(super) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn header(&self) -> Result<HeaderValue> {
        HeaderValue::from_bytes(&self.0).or_err(ErrorType::InternalError, "request id")
    }
}

impl Default for RequestId {
    /// Before there is one.
    fn default() -> Self {
        Self([b'0'; 32])
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// The headers that a kept response is replayed with: all but framing and connection matters.
pub(super) fn kept_headers(response: &ResponseHeader) -> Vec<(String, Vec<u8>)> {
    const LEFT_OUT: [&str; 5] = [
        "transfer-encoding",
        "connection",
        "date",
        "x-request-id",
        "idempotency-replayed",
    ];
    response
        .headers
        .iter()
        .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// Where a request stands with the gate.
#[derive(Default)]
pub(super) enum Stage {
    /// Nothing is decided: no way to an upstream.
    #[default]
    New,
    /// Admitted for nothing.
    Free,
    /// Admitted with a payment.
    Paid(Box<Paid>),
    /// Answered by the wall.
    Answered,
}

/// How a request ended, for metrics and log: a short word.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Outcome(pub(super) &'static str);

/// Counts and digests a request body as it streams through.
pub(super) struct BodyMeter {
    pub(super) bytes_max: u64,
    bytes: u64,
    digested: bool,
    hash: Option<Sha256>,
    digest: Option<BodyDigest>,
}

impl Default for BodyMeter {
    fn default() -> Self {
        Self::new(u64::MAX, false)
    }
}

impl BodyMeter {
    /// For a body of at most so many bytes; digested when it is paid for.
    pub(super) fn new(bytes_max: u64, digested: bool) -> Self {
        let hash = digested.then(Sha256::new);
        Self {
            bytes_max,
            bytes: 0,
            digested,
            hash,
            digest: None,
        }
    }

    /// Takes a chunk; `false` when the body is over its limit.
    pub(super) fn push(&mut self, chunk: Option<&Bytes>, end: bool) -> bool {
        if let Some(chunk) = chunk {
            self.bytes = self.bytes.saturating_add(chunk.len() as u64);
            if let Some(hash) = &mut self.hash {
                hash.update(chunk);
            }
        }
        if end && let Some(hash) = self.hash.take() {
            self.digest = Some(BodyDigest(hash.finalize().into()));
        }
        self.bytes <= self.bytes_max
    }

    /// For another attempt: pingora sends the body that it has buffered once more.
    pub(super) fn restart(&mut self) {
        if self.bytes > 0 {
            *self = Self::new(self.bytes_max, self.digested);
        }
    }

    /// The digest, once the body was read to its end.
    pub(super) const fn digest(&self) -> Option<BodyDigest> {
        self.digest
    }
}

/// The digest of no body at all.
pub(super) fn digest_of(body: &[u8]) -> BodyDigest {
    BodyDigest(Sha256::digest(body).into())
}

/// A response on its way out, written down for a retry.
pub(super) struct Recording {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) recorder: Recorder,
    /// Whether the upstream's body ended as it should: a part must not pass for a whole.
    pub(super) complete: bool,
}

impl Recording {
    /// The response, when it is whole and was small enough.
    pub(super) fn finish(self, request_body: BodyDigest) -> Option<KeptResponse> {
        let body = self.recorder.finish().filter(|_| self.complete)?;
        Some(KeptResponse {
            status: self.status,
            headers: self.headers,
            body,
            request_body,
        })
    }
}

/// A body of ours in place of the upstream's.
#[derive(Default)]
pub(super) enum Substitute {
    /// The upstream's body passes.
    #[default]
    None,
    /// Ours is yet to be written.
    Pending(Bytes),
    /// Ours was written; the rest of the upstream's is swallowed.
    Written,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_32_hexadecimal_digits_and_differ() {
        let (one, other) = (RequestId::random(), RequestId::random());
        assert_ne!(one.to_string(), other.to_string());
        for id in [one, other, RequestId::default()] {
            assert_eq!(id.header().unwrap(), id.to_string().as_str());
            let bits = u128::from_str_radix(&id.to_string(), 16).unwrap();
            assert_eq!(format!("{bits:032x}"), id.to_string());
        }
    }

    #[test]
    fn a_body_sent_again_is_counted_and_digested_once() {
        let mut meter = BodyMeter::new(5, true);
        assert!(meter.push(Some(&Bytes::from_static(b"hel")), false));
        meter.restart();
        assert!(meter.push(Some(&Bytes::from_static(b"hel")), false));
        assert!(meter.push(Some(&Bytes::from_static(b"lo")), true));
        assert_eq!(meter.digest(), Some(digest_of(b"hello")));
        assert!(
            !meter.push(Some(&Bytes::from_static(b"!")), false),
            "over the limit"
        );
    }

    #[test]
    fn no_body_has_the_digest_of_nothing_and_a_free_one_has_none() {
        let mut meter = BodyMeter::new(5, true);
        assert!(meter.push(None, true));
        meter.restart();
        assert_eq!(meter.digest(), Some(digest_of(b"")));
        let mut free = BodyMeter::new(5, false);
        assert!(free.push(Some(&Bytes::from_static(b"x")), true));
        assert_eq!(free.digest(), None);
    }
}

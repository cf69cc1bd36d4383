//! Complete responses kept in memory for a while, so that a retry gets the same bytes without new work.
//!
//! Nothing here is durable or decides about money: what is lost is asked of the upstream again.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::chain::PaymentKey;
use crate::ledger::{BodyDigest, Fingerprint};

/// What an entry costs beside its text and bytes, roughly: keys, pointers, the cache's own nodes.
const ENTRY_OVERHEAD: u64 = 512;
/// The same for each header.
const HEADER_OVERHEAD: u64 = 64;

/// A complete response, as it was sent to the client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeptResponse {
    /// The status code.
    pub status: u16,
    /// Name and value of each header, in the order in which they were sent.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body. Make it with a [`Recorder`], so that it does not pin a larger buffer.
    pub body: Bytes,
    /// Digest of the body of the request that it answers: another body gets another answer.
    pub request_body: BodyDigest,
}

impl KeptResponse {
    /// For another wall: one line of JSON for everything but the body, then the body as it is.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let headers: Vec<(&str, String)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), STANDARD.encode(value)))
            .collect();
        let head = serde_json::json!({
            "status": self.status,
            "headers": headers,
            "request_body": STANDARD.encode(self.request_body.0),
        });
        let mut bytes = head.to_string().into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// What [`KeptResponse::encode`] made; `None` when a wall of another version made it.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Head {
            status: u16,
            headers: Vec<(String, String)>,
            request_body: String,
        }
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (head, body) = bytes.split_at_checked(end)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        let digest = STANDARD.decode(head.request_body).ok()?;
        let header = |(name, value): (String, String)| Some((name, STANDARD.decode(value).ok()?));
        Some(Self {
            status: head.status,
            headers: head
                .headers
                .into_iter()
                .map(header)
                .collect::<Option<_>>()?,
            body: Bytes::copy_from_slice(body.get(1..)?),
            request_body: BodyDigest(digest.try_into().ok()?),
        })
    }

    /// The memory that it takes, in bytes, approximately.
    fn weight(&self) -> u64 {
        let bytes = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        self.headers.iter().fold(
            ENTRY_OVERHEAD.saturating_add(bytes(self.body.len())),
            |sum, (name, value)| {
                sum.saturating_add(HEADER_OVERHEAD)
                    .saturating_add(bytes(name.len()))
                    .saturating_add(bytes(value.len()))
            },
        )
    }
}

/// The responses kept for retries, each until its own time, all within one limit of bytes.
///
/// When space is short the response that was longest not asked for goes first. Cheap to clone: clones are one store.
#[derive(Clone, Debug)]
pub struct KeptResponses {
    cache: Cache<(PaymentKey, Fingerprint), Entry>,
    total_bytes_max: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    response: Arc<KeptResponse>,
    weight: u32,
    lifetime: Duration,
}

impl KeptResponses {
    /// An empty store for `total_bytes_max` bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(total_bytes_max: u64) -> Self {
        let cache = Cache::builder()
            .name("kept responses")
            .max_capacity(total_bytes_max)
            .weigher(|_, entry: &Entry| entry.weight)
            // The default policy admits by popularity and would refuse every new response.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(OwnLifetime)
            .build();
        Self {
            cache,
            total_bytes_max,
        }
    }

    /// Keeps `response` for `lifetime` from now, in place of an earlier one for the same payment and fingerprint.
    ///
    /// One that is larger than the whole store is not kept, and the earlier one is forgotten.
    pub fn keep(
        &self,
        payment: PaymentKey,
        fingerprint: Fingerprint,
        response: Arc<KeptResponse>,
        lifetime: Duration,
    ) {
        match u32::try_from(response.weight()) {
            Ok(weight) if u64::from(weight) <= self.total_bytes_max => {
                let entry = Entry {
                    response,
                    weight,
                    lifetime,
                };
                self.cache.insert((payment, fingerprint), entry);
            }
            Ok(_) | Err(_) => self.forget(payment, fingerprint),
        }
    }

    /// The response kept for this payment and fingerprint, until its time is over.
    #[must_use]
    pub fn get(&self, payment: PaymentKey, fingerprint: Fingerprint) -> Option<Arc<KeptResponse>> {
        self.cache
            .get(&(payment, fingerprint))
            .map(|entry| entry.response)
    }

    /// Drops the response kept for this payment and fingerprint.
    pub fn forget(&self, payment: PaymentKey, fingerprint: Fingerprint) {
        self.cache.invalidate(&(payment, fingerprint));
    }

    /// The bytes kept, for metrics; recent changes may not be counted yet.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cache.weighted_size()
    }
}

/// Each entry carries its own lifetime, counted from when it was last written.
struct OwnLifetime;

impl Expiry<(PaymentKey, Fingerprint), Entry> for OwnLifetime {
    fn expire_after_create(
        &self,
        _key: &(PaymentKey, Fingerprint),
        entry: &Entry,
        _created_at: Instant,
    ) -> Option<Duration> {
        Some(entry.lifetime)
    }

    fn expire_after_update(
        &self,
        _key: &(PaymentKey, Fingerprint),
        entry: &Entry,
        _updated_at: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.lifetime)
    }
}

/// Collects the chunks of a response body on their way to the client, up to a limit.
///
/// Chunks are copied: a chunk may be a small part of a large buffer, which keeping it would pin.
#[derive(Debug)]
pub struct Recorder {
    /// `None` once the body turned out too large.
    collected: Option<Vec<u8>>,
    limit: usize,
}

impl Recorder {
    /// Collects at most `limit` bytes; 0 collects nothing, not even an empty body.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            collected: (limit > 0).then(Vec::new),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }

    /// Takes the next chunk. Over the limit it gives up and drops what it has.
    pub fn push(&mut self, chunk: &Bytes) {
        let Some(collected) = &mut self.collected else {
            return;
        };
        if chunk.len() > self.limit.saturating_sub(collected.len()) {
            self.collected = None;
        } else {
            collected.extend_from_slice(chunk);
        }
    }

    /// Whether the body so far is within the limit.
    #[must_use]
    pub const fn is_recording(&self) -> bool {
        self.collected.is_some()
    }

    /// The whole body, in a buffer of its own size; `None` when it was over the limit.
    ///
    /// Call it only after the last chunk: a part of a response must not pass for a whole one.
    #[must_use]
    pub fn finish(self) -> Option<Bytes> {
        self.collected
            .map(|body| Bytes::from(body.into_boxed_slice()))
    }
}

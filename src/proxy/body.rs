//! Request bodies that are not forwarded: drained or digested, within bounds.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use pingora::http::RequestHeader;
use pingora::prelude::Session;
use pingora::{Error, ErrorType, Result};
use sha2::{Digest, Sha256};

use crate::ledger::BodyDigest;

/// Up to here an unwanted body is read before the answer, so that the connection can be used again
/// (HTTP/1.1) and the answer is not lost behind a reset (HTTP/2 clients that are still uploading).
const DRAIN_BYTES_MAX: usize = 64 * 1024;

/// How long that may take.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(1000);

/// How many bytes of body follow the head of a request of HTTP/1; `None` where that is not said in
/// one plain number.
pub(super) fn wire_bytes(request: &RequestHeader) -> Option<usize> {
    if request.headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    let mut lengths = request.headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Some(0),
        (Some(length), None) => length.to_str().ok()?.parse().ok(),
        (Some(_), Some(_)) => None,
    }
}

/// Reads an unwanted body when it is small and comes quickly; otherwise leaves it.
pub(super) async fn drain_small(session: &mut Session) {
    let downstream = session.as_downstream_mut();
    if downstream.is_body_done() || downstream.get_header(EXPECT).is_some() {
        return;
    }
    let drain = async {
        let mut read = 0_usize;
        while let Ok(Some(chunk)) = downstream.read_request_body().await {
            read = read.saturating_add(chunk.len());
            if read > DRAIN_BYTES_MAX {
                break;
            }
        }
    };
    drop(tokio::time::timeout(DRAIN_TIME_MAX, drain).await);
}

/// Reads a body to its end for its digest; `None` when it is over the limit. Each piece has its time.
pub(super) async fn digest(
    session: &mut Session,
    bytes_max: u64,
    piece_timeout: Duration,
) -> Result<Option<BodyDigest>> {
    let (mut hash, mut read) = (Sha256::new(), 0_u64);
    loop {
        let piece = session.as_downstream_mut().read_request_body();
        // pingora keeps this time itself in HTTP/1 only.
        let Ok(piece) = tokio::time::timeout(piece_timeout, piece).await else {
            return Error::e_explain(ErrorType::ReadTimedout, "request body")
                .map_err(Error::into_down);
        };
        let Some(chunk) = piece? else {
            return Ok(Some(BodyDigest(hash.finalize().into())));
        };
        read = read.saturating_add(chunk.len() as u64);
        if read > bytes_max {
            return Ok(None);
        }
        hash.update(&chunk);
    }
}

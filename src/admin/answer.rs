//! The form of the answers: problems as JSON, ETags, and 304 for who has it already.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::code::codes;
use crate::ledger::LedgerError;

/// The largest answer; pages and reports are far below.
const BODY_BYTES_MAX: usize = 256 << 20;

codes! {
    /// What the admin API says in `error` when it does not do what was asked.
    pub enum Problem {
        /// 400: the query cannot be understood.
        BadQuery = "bad_query",
        /// 401: no token, or another one.
        Unauthorized = "unauthorized",
        /// 404: the ledger has no such payment.
        NoSuchPayment = "no_such_payment",
        /// 404: there is a receipt only for what was paid.
        NotPaid = "not_paid",
        /// 503: too many ask already.
        Busy = "busy",
        /// 503: the ledger cannot be read.
        LedgerUnavailable = "ledger_unavailable",
    }
}

/// An answer that says what is wrong: a code for programs, a sentence for people.
pub(super) fn problem(status: StatusCode, code: Problem, message: &str) -> Response {
    let body = json!({ "error": code.as_str(), "message": message });
    (status, Json(body)).into_response()
}

/// A query that cannot be understood.
pub(super) fn bad_query(message: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, Problem::BadQuery, message)
}

/// The ledger failed. The cause is in the log.
pub(super) fn ledger_failed(error: &LedgerError) -> Response {
    tracing::warn!(%error, "the admin API cannot read the ledger");
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        Problem::LedgerUnavailable,
        "The ledger does not answer; the log says why.",
    )
}

/// Adds an `ETag` to what was found, and answers 304 to who has that already.
pub(super) async fn tagged(request: Request, next: Next) -> Response {
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let answer = next.run(request).await;
    if answer.status() != StatusCode::OK {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let digest = Sha256::digest(&body);
    let tag: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let tag = format!("\"{tag}\"");
    if let Ok(value) = HeaderValue::from_str(&tag) {
        head.headers.insert(header::ETAG, value);
    }
    let private = HeaderValue::from_static("private, no-cache");
    head.headers.insert(header::CACHE_CONTROL, private);
    if known.is_some_and(|known| has(&known, &tag)) {
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.remove(header::CONTENT_TYPE);
        return Response::from_parts(head, Body::empty());
    }
    Response::from_parts(head, Body::from(body))
}

/// Whether `If-None-Match` names the tag. Weak tags compare as strong ones do (RFC 9110, 13.1.2).
fn has(known: &HeaderValue, tag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    let mut tags = known.split(',').map(str::trim);
    tags.any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_a_list() {
        let known = HeaderValue::from_static("\"a\", W/\"b\"");
        assert!(has(&known, "\"a\"") && has(&known, "\"b\""));
        assert!(!has(&known, "\"c\""));
        assert!(has(&HeaderValue::from_static("*"), "\"c\""));
    }
}

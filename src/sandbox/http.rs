//! The sandbox's endpoints: bytes in, JSON out, and the misdeeds of the script in between.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};

use crate::chain::assets;
use crate::sandbox::Sandbox;
use crate::sandbox::check::Submitted;
use crate::sandbox::misbehave::{Call, Misbehaviour, Misdeed};
use crate::x402::message::{SettlementResponse, VerifyResponse};

/// The largest request body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// At most so many balances and nonces are listed.
const LIST_MAX: usize = 1000;

const ABOUT: &str = "\
This is a Farewall sandbox: an x402 facilitator for test networks, with play money.

  POST /verify         is this payment good?
  POST /settle         move the money
  GET  /supported      versions, schemes, networks
  GET  /balances       who has what, in the smallest unit of each token
  GET  /sandbox/stats  how often it was asked, how often money moved

Signatures and nonces are checked as a real facilitator does. There is no chain: balances are in
memory and gone when the process ends, and transaction hashes begin with \"sandbox\" in hexadecimal.
";

/// The routes; `/sandbox/misbehave` only when it is allowed.
pub(super) fn router(sandbox: Sandbox, allow_misbehaviour: bool) -> Router {
    let mut router = Router::new()
        .route("/", get(async || ABOUT))
        .route("/verify", post(verify))
        .route("/settle", post(settle))
        .route("/supported", get(async || Json(Sandbox::supported())))
        .route("/balances", get(balances))
        .route("/sandbox/stats", get(stats));
    if allow_misbehaviour {
        router = router.route("/sandbox/misbehave", post(misbehave).delete(behave));
    }
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(sandbox)
}

async fn verify(State(sandbox): State<Sandbox>, body: Bytes) -> Response {
    let misdeed = sandbox.begin(Call::Verify);
    let submitted = match Submitted::parse(&body) {
        Ok(submitted) => submitted,
        Err(what) => return bad_request(what),
    };
    match misdeed {
        None => ok(&sandbox.verify(&submitted)),
        Some(Misdeed::SlowBody { ms }) => slowly(&sandbox.verify(&submitted), ms),
        Some(Misdeed::RejectVerify { reason }) => ok(&VerifyResponse {
            invalid_reason: Some(reason),
            ..VerifyResponse::default()
        }),
        Some(other) => without_work(other).await,
    }
}

/// Runs in a task of its own: a client that leaves does not stop a settlement, as on a real chain.
async fn settle(State(sandbox): State<Sandbox>, body: Bytes) -> Response {
    let misdeed = sandbox.begin(Call::Settle);
    let submitted = match Submitted::parse(&body) {
        Ok(submitted) => submitted,
        Err(what) => return bad_request(what),
    };
    let work = tokio::spawn(async move {
        tokio::time::sleep(sandbox.0.options.settle_delay).await;
        settle_or_not(&sandbox, &submitted, misdeed).await
    });
    work.await
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn settle_or_not(
    sandbox: &Sandbox,
    submitted: &Submitted,
    misdeed: Option<Misdeed>,
) -> Response {
    let refused = |reason: &str| SettlementResponse {
        error_reason: Some(reason.to_owned()),
        network: submitted.network().to_owned(),
        ..SettlementResponse::default()
    };
    match misdeed {
        None => ok(&sandbox.settle(submitted)),
        Some(Misdeed::SlowBody { ms }) => slowly(&sandbox.settle(submitted), ms),
        Some(Misdeed::Pending) => ok(&sandbox.settle_pending(submitted)),
        Some(Misdeed::LoseAnswerAfterSettling) => broken(&sandbox.settle(submitted)),
        Some(Misdeed::HangAfterSettling { ms }) => {
            sandbox.settle(submitted);
            without_work(Misdeed::Hang { ms }).await
        }
        Some(Misdeed::LieRefusedAfterSettling) => {
            sandbox.settle(submitted);
            ok(&refused("invalid_exact_evm_transaction_failed"))
        }
        Some(Misdeed::SuccessWithoutTransaction) => {
            ok(&json!({"success": true, "network": submitted.network()}))
        }
        Some(Misdeed::RejectSettle { reason }) => ok(&refused(&reason)),
        Some(other) => without_work(other).await,
    }
}

/// The misdeeds that neither verify nor settle.
async fn without_work(misdeed: Misdeed) -> Response {
    let broken = |status| (status, "the sandbox was told to misbehave").into_response();
    match misdeed {
        Misdeed::Junk => {
            let html = [(header::CONTENT_TYPE, "text/html")];
            (html, "<!doctype html><title>Welcome to nginx</title>").into_response()
        }
        Misdeed::Status { status } => {
            broken(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        }
        Misdeed::Hang { ms } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            broken(StatusCode::INTERNAL_SERVER_ERROR)
        }
        // The script hands these only to the call that commits them with work.
        Misdeed::SlowBody { .. }
        | Misdeed::LoseAnswerAfterSettling
        | Misdeed::HangAfterSettling { .. }
        | Misdeed::LieRefusedAfterSettling
        | Misdeed::SuccessWithoutTransaction
        | Misdeed::Pending
        | Misdeed::RejectVerify { .. }
        | Misdeed::RejectSettle { .. } => broken(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn balances(State(sandbox): State<Sandbox>) -> Json<Value> {
    let book = sandbox.0.book.lock();
    let rows = book.accounts().take(LIST_MAX);
    let rows = rows.map(|((network, asset, account), units)| {
        let known = assets::find(network, &asset.to_checksum(None));
        json!({
            "network": network,
            "asset": asset.to_checksum(None),
            "symbol": known.map(|token| token.symbol),
            "account": account.to_checksum(None),
            "balance": units.to_string(),
        })
    });
    let rows: Vec<Value> = rows.collect();
    Json(json!({"startingBalance": sandbox.0.options.starting_balance, "balances": rows}))
}

async fn stats(State(sandbox): State<Sandbox>) -> Json<Value> {
    let mut stats = json!(sandbox.stats());
    if let Some(members) = stats.as_object_mut() {
        let nonces = sandbox.0.book.lock().settled_nonces(LIST_MAX);
        members.insert("settledNonces".to_owned(), json!(nonces));
    }
    Json(stats)
}

async fn misbehave(State(sandbox): State<Sandbox>, body: Bytes) -> Response {
    let entry: Misbehaviour = match serde_json::from_slice(&body) {
        Ok(entry) => entry,
        Err(error) => return bad_request(&error.to_string()),
    };
    if sandbox.misbehave(entry) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        bad_request("the script is full")
    }
}

async fn behave(State(sandbox): State<Sandbox>) -> StatusCode {
    sandbox.behave();
    StatusCode::NO_CONTENT
}

fn ok<T: Serialize>(answer: &T) -> Response {
    Json(answer).into_response()
}

fn bad_request(what: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": what}))).into_response()
}

fn halves<T: Serialize>(answer: &T) -> (Bytes, Bytes) {
    let mut first = Bytes::from(serde_json::to_vec(answer).unwrap_or_default());
    let second = first.split_off(first.len() / 2);
    (first, second)
}

fn slowly<T: Serialize>(answer: &T, ms: u64) -> Response {
    let (first, second) = halves(answer);
    let parts = stream::unfold((Some(first), Some(second)), move |parts| async move {
        match parts {
            (Some(first), second) => Some((Ok::<_, Infallible>(first), (None, second))),
            (None, Some(second)) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Some((Ok(second), (None, None)))
            }
            (None, None) => None,
        }
    });
    json_body(Body::from_stream(parts))
}

/// The connection is closed after the first half of the body.
fn broken<T: Serialize>(answer: &T) -> Response {
    let (first, _) = halves(answer);
    let lost = io::Error::other("the sandbox was told to lose its answer");
    json_body(Body::from_stream(stream::iter([Ok(first), Err(lost)])))
}

fn json_body(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

//! Ways of paying that only a facilitator understands: Solana `exact`, sold through its `/supported`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Setup, Wall, encode, eventually};

const DEVNET: &str = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1";
const FEE_PAYER: &str = "EwWqGE4ZFKLofuestmU4LDdK7XM1N4ALgdZccwYugwGd";
const SELLER: &str = "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv";
const BUYER: &str = "FuzJbnfDGVkvyhDGjHwzQYCcVsRUNYFVfFcwnfGh1Ab5";

/// A facilitator that says yes to everything, writes down what it is asked and can be down.
#[derive(Clone, Default)]
struct Facilitator {
    down: Arc<AtomicBool>,
    fee_payer: Arc<Mutex<String>>,
    verified: Arc<Mutex<Vec<Value>>>,
    settled: Arc<Mutex<Vec<Value>>>,
}

impl Facilitator {
    async fn start(down: bool) -> (Self, String) {
        let own = Self::default();
        own.down.store(down, Ordering::SeqCst);
        FEE_PAYER.clone_into(&mut own.fee_payer.lock().unwrap());
        let app = Router::new()
            .route("/supported", get(supported))
            .route("/verify", post(verify))
            .route("/settle", post(settle))
            .with_state(own.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (own, url)
    }

    fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn up(&self) -> Result<(), StatusCode> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(StatusCode::BAD_GATEWAY),
            false => Ok(()),
        }
    }
}

async fn supported(State(own): State<Facilitator>) -> Result<Json<Value>, StatusCode> {
    own.up()?;
    let extra = json!({ "feePayer": *own.fee_payer.lock().unwrap() });
    Ok(Json(json!({
        "kinds": [
            { "x402Version": 1, "scheme": "exact", "network": "solana-devnet", "extra": extra },
            { "x402Version": 2, "scheme": "exact", "network": DEVNET, "extra": extra },
        ],
        "extensions": [],
        "signers": { "solana:*": [FEE_PAYER] },
    })))
}

async fn verify(
    State(own): State<Facilitator>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    own.up()?;
    own.verified.lock().unwrap().push(body);
    Ok(Json(json!({ "isValid": true, "payer": BUYER })))
}

async fn settle(
    State(own): State<Facilitator>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    own.up()?;
    own.settled.lock().unwrap().push(body);
    let transaction =
        "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW";
    Ok(Json(json!({
        "success": true, "transaction": transaction, "network": DEVNET, "payer": BUYER,
    })))
}

fn setup(url: &str) -> Setup {
    Setup::rules(&format!(
        r#"
[facilitator.solana]
url = "{url}"
[accept.sol]
network = "solana-devnet"
pay_to = "{SELLER}"
facilitators = ["solana"]
[[rule]]
name = "sol"
path = "/sol/{{name}}"
price = "$0.001"
accept = ["sol"]
[[rule]]
name = "both"
path = "/both/{{name}}"
price = "$0.001"
accept = ["base-sepolia-usdc", "sol"]
"#
    ))
}

/// A version 0 transaction with one signature and one instruction: all that is read of it here.
fn transaction(filler: u8) -> String {
    let mut bytes = vec![1];
    bytes.extend([filler; 64]);
    bytes.extend([0x80, 1, 0, 1, 2]);
    bytes.extend([7; 64]);
    bytes.extend(rand::random::<[u8; 32]>());
    bytes.extend([1, 1, 2, 0, 1, 3, 4, 5, 6, 0]);
    STANDARD.encode(bytes)
}

fn proof(accepted: &Value, transaction: &str) -> String {
    encode(&json!({
        "x402Version": 2,
        "payload": { "transaction": transaction },
        "accepted": accepted,
    }))
}

async fn offered(wall: &Wall, path: &str, nth: usize) -> Value {
    let answer = wall.get(path).await;
    assert_eq!(answer.status, 402, "{}", answer.body);
    answer.challenge()["accepts"][nth].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_challenge_carries_what_the_facilitator_adds() {
    let (_facilitator, url) = Facilitator::start(false).await;
    let wall = setup(&url).start().await;
    let accepted = offered(&wall, "/sol/a", 0).await;
    assert_eq!(accepted["scheme"], "exact");
    assert_eq!(accepted["network"], DEVNET);
    assert_eq!(accepted["amount"], "1000");
    assert_eq!(accepted["payTo"], SELLER);
    assert_eq!(accepted["extra"], json!({ "feePayer": FEE_PAYER }));
    let both = wall.get("/both/a").await.challenge();
    assert_eq!(both["accepts"][0]["network"], "eip155:84532");
    assert_eq!(both["accepts"][1], accepted);
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_passes_through_with_our_own_requirement() {
    let (facilitator, url) = Facilitator::start(false).await;
    let wall = setup(&url).start().await;
    let ours = offered(&wall, "/sol/a", 0).await;
    let mut accepted = ours.clone();
    accepted["extra"]["recentBlockhash"] = json!("refreshed by the client");
    let sent = transaction(1);
    let proof = proof(&accepted, &sent);
    let answer = wall.pay("/sol/a", &proof).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.receipt()["success"], true);
    assert_eq!(answer.receipt()["network"], DEVNET);
    for asked in [&facilitator.verified, &facilitator.settled] {
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0]["x402Version"], 2);
        assert_eq!(
            asked[0]["paymentRequirements"], ours,
            "ours, not the client's"
        );
        assert_eq!(asked[0]["paymentPayload"]["payload"]["transaction"], sent);
    }
    let seen = wall.origin.last();
    assert_eq!(seen.header("x-farewall-payer"), Some(BUYER));
    assert_eq!(seen.header("x-farewall-network"), Some(DEVNET));
    assert_eq!(seen.header("x-farewall-amount"), Some("1000"));
    eventually("delivered", || wall.states() == ["delivered"]);

    let again = wall.pay("/sol/a", &proof).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(wall.pay("/sol/b", &proof).await.status, 402, "spent");
    assert_eq!(facilitator.settled.lock().unwrap().len(), 1);
    assert_eq!(wall.origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_must_be_what_was_offered() {
    let (facilitator, url) = Facilitator::start(false).await;
    let wall = setup(&url).start().await;
    let ours = offered(&wall, "/sol/a", 0).await;
    for (pointer, value) in [
        ("/extra/feePayer", json!(BUYER)),
        ("/extra/feePayer", json!(null)),
        ("/extra", json!({})),
        ("/amount", json!("999")),
        ("/amount", json!(1000)),
        ("/payTo", json!(BUYER)),
        ("/network", json!("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp")),
        (
            "/asset",
            json!("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"),
        ),
        ("/scheme", json!("upto")),
        ("/maxTimeoutSeconds", json!(301)),
    ] {
        let mut accepted = ours.clone();
        *accepted.pointer_mut(pointer).unwrap() = value.clone();
        let answer = wall.pay("/sol/a", &proof(&accepted, &transaction(1))).await;
        assert_eq!(answer.status, 402, "{pointer} {value}");
    }
    for payload in [
        json!({}),
        json!({ "transaction": "AQ==" }),
        json!({ "transaction": 1 }),
    ] {
        let bad = json!({ "x402Version": 2, "payload": payload, "accepted": ours });
        assert_eq!(
            wall.pay("/sol/a", &encode(&bad)).await.status,
            402,
            "{payload}"
        );
    }
    assert!(
        facilitator.verified.lock().unwrap().is_empty(),
        "nobody was asked"
    );
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_signature_on_the_same_transaction_is_the_same_payment() {
    let (facilitator, url) = Facilitator::start(false).await;
    let wall = setup(&url).start().await;
    let ours = offered(&wall, "/sol/a", 0).await;
    let first = transaction(1);
    let mut bytes = STANDARD.decode(&first).unwrap();
    bytes[1..65].fill(9);
    let resigned = STANDARD.encode(bytes);
    assert_eq!(wall.pay("/sol/a", &proof(&ours, &first)).await.status, 200);
    for path in ["/sol/a", "/sol/b", "/both/a"] {
        let answer = wall.pay(path, &proof(&ours, &resigned)).await;
        assert_eq!(answer.status, 402, "{path}");
    }
    assert_eq!(facilitator.settled.lock().unwrap().len(), 1);
    assert_eq!(wall.origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_facilitator_that_is_down_at_the_start_is_remembered_from_disk() {
    let (facilitator, url) = Facilitator::start(false).await;
    let mut wall = setup(&url).start().await;
    let before = offered(&wall, "/sol/a", 0).await;
    wall.kill();
    facilitator.set_down(true);
    wall.restart();
    assert_eq!(offered(&wall, "/sol/a", 0).await, before);
    let proof = proof(&before, &transaction(1));
    let answer = wall.pay("/sol/a", &proof).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (503, "payment_unavailable")
    );
    assert_eq!(wall.origin.seen().len(), 0);
    facilitator.set_down(false);
    assert_eq!(
        wall.pay("/sol/a", &proof).await.status,
        200,
        "the same proof"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_facilitator_closes_its_rules_until_it_is_back() {
    let (facilitator, url) = Facilitator::start(true).await;
    let wall = setup(&url).start().await;
    let closed = wall.get("/sol/a").await;
    assert_eq!(closed.status, 503);
    assert!(closed.header("retry-after").is_some());
    assert!(!closed.body.contains("127.0.0.1"), "{}", closed.body);
    let both = wall.get("/both/a").await.challenge();
    assert_eq!(
        both["accepts"].as_array().unwrap().len(),
        1,
        "what can be offered is"
    );
    assert_eq!(wall.origin.seen().len(), 0);
    facilitator.set_down(false);
    let end = Instant::now() + Duration::from_secs(25);
    while wall.get("/sol/a").await.status == 503 {
        assert!(Instant::now() < end, "it did not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ours = offered(&wall, "/sol/a", 0).await;
    assert_eq!(ours["extra"]["feePayer"], FEE_PAYER);
    assert_eq!(offered(&wall, "/both/a", 1).await, ours);
    assert_eq!(
        wall.pay("/sol/a", &proof(&ours, &transaction(1)))
            .await
            .status,
        200
    );
}

/// What clients have been offered stays good: a fee payer that changes is a matter for a restart.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_offered_is_pinned() {
    let (facilitator, url) = Facilitator::start(false).await;
    let mut wall = setup(&url).start().await;
    let before = offered(&wall, "/sol/a", 0).await;
    BUYER.clone_into(&mut facilitator.fee_payer.lock().unwrap());
    assert_eq!(offered(&wall, "/sol/a", 0).await, before);
    assert_eq!(
        wall.pay("/sol/a", &proof(&before, &transaction(1)))
            .await
            .status,
        200
    );
    let asked = facilitator.settled.lock().unwrap()[0].clone();
    assert_eq!(asked["paymentRequirements"]["extra"]["feePayer"], FEE_PAYER);
    wall.kill();
    wall.restart();
    assert_eq!(
        offered(&wall, "/sol/a", 0).await["extra"]["feePayer"],
        BUYER
    );
}

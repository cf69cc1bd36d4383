//! What a client without a payment, or with a bad one, is told.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Setup, Signer, Wall, encode, offer, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_priced_route_answers_402_with_the_whole_challenge() {
    let wall = Wall::start().await;
    let answer = wall.get("/v1/quote?secret=1").await;
    assert_eq!(answer.status, 402);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let want = json!({
        "x402Version": 2,
        "error": "Payment required",
        "resource": {
            "url": "https://api.example.com/v1/quote",
            "description": "A quote",
            "mimeType": "application/json",
        },
        "accepts": [offer(1000).0],
    });
    assert_eq!(answer.challenge(), want);
    let v1: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(v1["x402Version"], 1);
    assert_eq!(v1["error"], "X-PAYMENT header is required");
    assert_eq!(v1["accepts"][0]["network"], "base-sepolia");
    assert_eq!(v1["accepts"][0]["maxAmountRequired"], "1000");
    assert_eq!(
        v1["accepts"][0]["resource"],
        "https://api.example.com/v1/quote"
    );
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resource_comes_from_the_public_origin_not_from_the_client() {
    let wall = Wall::start().await;
    let request = wall
        .request(Method::GET, "/v1/quote")
        .header("Host", "evil.example")
        .header("X-Forwarded-Host", "evil.example")
        .header("Forwarded", "host=evil.example");
    let answer = send(request).await;
    assert_eq!(
        answer.challenge()["resource"]["url"],
        "https://api.example.com/v1/quote"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_any_other_method_cost_what_get_costs() {
    let wall = Wall::start().await;
    let head = send(wall.request(Method::HEAD, "/v1/quote")).await;
    assert_eq!((head.status, head.body.as_str()), (402, ""));
    assert_eq!(head.challenge()["accepts"][0]["amount"], "1000");
    for method in [
        "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "BREW",
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = send(wall.request(method.clone(), "/v1/quote")).await;
        assert_eq!(answer.status, 402, "{method}");
        assert_eq!(
            answer.challenge()["accepts"][0]["amount"],
            "2000",
            "{method}: the rule for any method"
        );
    }
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unlisted_is_404_denied_is_403_free_passes() {
    let wall = Wall::start().await;
    assert_eq!(wall.get("/nothing").await.status, 404);
    assert_eq!(wall.get("/admin/users").await.status, 403);
    assert_eq!(wall.get("/health").await.status, 200);
    assert_eq!(wall.origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_proof_gets_a_fresh_challenge_with_the_reason_and_no_facilitator_call() {
    let wall = Wall::start().await;
    let signer = Signer::new();
    let good = signer.proof_json(&offer(1000));
    let mut cheaper = good.clone();
    cheaper["accepted"]["amount"] = json!("1");
    let mut other_version = good.clone();
    other_version["x402Version"] = json!(3);
    let mut tampered = good.clone();
    tampered["payload"]["authorization"]["nonce"] = json!(format!("0x{}", "ab".repeat(32)));
    let for_another_price = Signer::new().payload(&offer(999), &signer.authorization(&offer(999)));
    let mut underpaid = good.clone();
    underpaid["payload"] = for_another_price;
    for (proof, reason) in [
        ("%%%".to_owned(), "Payment required"),
        ("bm90IGpzb24=".to_owned(), "Payment required"),
        (encode(&Value::Null), "Payment required"),
        (encode(&other_version), "Unsupported x402 version: 3"),
        (encode(&cheaper), "No matching payment requirements"),
        (encode(&tampered), "invalid_exact_evm_signature"),
        (encode(&underpaid), "invalid_exact_evm_signature"),
        ("A".repeat(17 * 1024), "Payment required"),
    ] {
        let answer = wall.pay("/v1/quote", &proof).await;
        assert_eq!((answer.status, answer.reason().as_str()), (402, reason));
    }
    let twice = wall
        .request(Method::GET, "/v1/quote")
        .header("PAYMENT-SIGNATURE", encode(&good))
        .header("PAYMENT-SIGNATURE", encode(&good));
    assert_eq!(send(twice).await.reason(), "duplicate_payment_header");
    assert_eq!(wall.sandbox.stats().verify_calls, 0);
    assert_eq!(wall.origin.seen().len(), 0);
    assert!(wall.ledger().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_wallet_is_refused_by_the_facilitator() {
    let setup = Setup {
        sandbox: farewall::sandbox::SandboxOptions {
            starting_balance: 0,
            ..Default::default()
        },
        ..Setup::default()
    };
    let wall = setup.start().await;
    let answer = wall
        .pay("/v1/quote", &Signer::new().proof(&offer(1000)))
        .await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (402, "invalid_exact_evm_insufficient_balance")
    );
    assert_eq!(wall.origin.seen().len(), 0);
    assert!(wall.ledger().is_empty());
}

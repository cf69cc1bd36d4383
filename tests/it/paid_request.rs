//! What a client that pays gets, and what the origin learns.

use reqwest::Method;

use crate::support::buyer::PAY_TO;
use crate::support::{Signer, Wall, decode, eventually, offer, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_request_is_served_with_a_receipt_and_recorded() {
    let wall = Wall::start().await;
    let signer = Signer::new();
    let answer = wall.pay("/v1/quote", &signer.proof(&offer(1000))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, "{\"answer\":42,\"nth\":1}");
    let receipt = answer.receipt();
    assert_eq!(receipt["success"], true);
    assert_eq!(receipt["network"], "eip155:84532");
    assert_eq!(receipt["payer"], signer.address.to_checksum(None));
    assert!(
        receipt["transaction"]
            .as_str()
            .unwrap()
            .starts_with("0x73616e64626f78")
    );
    assert_eq!(answer.header("payment-required"), None);
    assert_eq!(answer.header("cache-control"), Some("private"));
    eventually("delivered", || wall.states() == ["delivered"]);
    let stats = wall.sandbox.stats();
    assert_eq!(
        (stats.verify_calls, stats.settle_calls, stats.settled),
        (1, 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_learns_who_paid_and_sees_no_payment_header() {
    let wall = Wall::start().await;
    let signer = Signer::new();
    let request = wall
        .request(Method::GET, "/v1/quote?a=1&b=%2F")
        .header("PAYMENT-SIGNATURE", signer.proof(&offer(1000)))
        .header("X-PAYMENT", "leftover")
        .header("X-Farewall-Payer", "0xforged")
        .header("x_farewall_rule", "forged");
    assert_eq!(send(request).await.status, 200);
    let seen = wall.origin.last();
    assert_eq!(seen.target, "/v1/quote?a=1&b=%2F");
    assert_eq!(
        seen.header("x-farewall-payer"),
        Some(signer.address.to_checksum(None).as_str())
    );
    assert_eq!(seen.header("x-farewall-amount"), Some("1000"));
    assert_eq!(
        seen.header("x-farewall-asset"),
        Some("0x036CbD53842c5426634e7929541eC2318f3dCF7e")
    );
    assert_eq!(seen.header("x-farewall-network"), Some("eip155:84532"));
    assert_eq!(seen.header("x-farewall-rule"), Some("quote"));
    assert_eq!(seen.header("x-farewall-payment-id").map(str::len), Some(64));
    for name in ["payment-signature", "x-payment", "x_farewall_rule"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(wall.ledger()[0]["pay_to"], PAY_TO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_version_1_pays_on_the_same_url() {
    let wall = Wall::start().await;
    let request = wall
        .request(Method::GET, "/v1/quote")
        .header("X-PAYMENT", Signer::new().proof_v1(&offer(1000)));
    let answer = send(request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("payment-response"), None);
    let receipt = decode(answer.header("x-payment-response").unwrap());
    assert_eq!(
        (&receipt["success"], &receipt["network"]),
        (&true.into(), &"base-sepolia".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_post_streams_its_body_to_the_origin() {
    let wall = Wall::start().await;
    let body = "b".repeat(300_000);
    let request = wall
        .request(Method::POST, "/v1/echo")
        .header("PAYMENT-SIGNATURE", Signer::new().proof(&offer(2000)))
        .body(body.clone());
    let answer = send(request).await;
    assert_eq!((answer.status, answer.body == body), (200, true));
    assert_eq!(wall.origin.last().body.len(), 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_head_is_charged_once_and_has_no_body() {
    let wall = Wall::start().await;
    let request = wall
        .request(Method::HEAD, "/v1/quote")
        .header("PAYMENT-SIGNATURE", Signer::new().proof(&offer(1000)));
    let answer = send(request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(wall.sandbox.stats().settled, 1);
    eventually("delivered", || wall.states() == ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_empty_answers_are_sold_like_others() {
    let wall = Wall::start().await;
    for (path, status) in [("/v1/redirect", 302), ("/v1/empty", 204)] {
        let answer = wall.pay(path, &Signer::new().proof(&offer(2000))).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.receipt()["success"], true, "{path}");
    }
    eventually("delivered", || wall.states() == ["delivered", "delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settle_before_settles_before_the_origin_is_asked() {
    let wall = Wall::start().await;
    let answer = wall
        .pay("/before/x", &Signer::new().proof(&offer(3000)))
        .await;
    assert_eq!(
        (answer.status, answer.receipt()["success"].as_bool()),
        (200, Some(true))
    );
    eventually("delivered", || wall.states() == ["delivered"]);
}

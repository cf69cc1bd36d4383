//! One proof, presented more than once.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::support::{Setup, Signer, Trial, Wall, encode, eventually, offer, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_same_bytes_without_new_work() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(1000));
    let first = wall.pay("/v1/quote", &proof).await;
    let again = wall.pay("/v1/quote", &proof).await;
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.body, first.body);
    assert_eq!(again.receipt(), first.receipt());
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(wall.origin.seen().len(), 1);
    assert_eq!(wall.sandbox.stats().settle_calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_encoding_of_the_proof_is_the_same_payment() {
    let wall = Wall::start().await;
    let mut proof = Signer::new().proof_json(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &encode(&proof)).await.status, 200);
    proof["resource"] = json!({ "url": "https://api.example.com/other" });
    proof["payload"]["authorization"]["from"] = json!(
        proof["payload"]["authorization"]["from"]
            .as_str()
            .unwrap()
            .to_lowercase()
    );
    let again = wall.pay("/v1/quote", &encode(&proof)).await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (200, Some("true"))
    );
    assert_eq!(wall.origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn for_any_other_request_the_payment_is_spent() {
    let wall = Wall::start().await;
    let signer = Signer::new();
    let proof = signer.proof(&offer(2000));
    assert_eq!(wall.pay("/v1/one", &proof).await.status, 200);
    for (method, path) in [
        (Method::GET, "/v1/two"),
        (Method::GET, "/v1/one?x=1"),
        (Method::POST, "/v1/one"),
        (Method::HEAD, "/v1/one"),
    ] {
        let request = wall
            .request(method.clone(), path)
            .header("PAYMENT-SIGNATURE", &proof);
        let answer = send(request).await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (402, "payment_already_used"),
            "{method} {path}"
        );
    }
    let other_host = wall
        .request(Method::GET, "/v1/one")
        .header("Host", "other.example")
        .header("PAYMENT-SIGNATURE", &proof);
    assert_eq!(send(other_host).await.status, 402);
    assert_eq!(wall.origin.seen().len(), 1);
    assert_eq!(wall.sandbox.stats().settle_calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_body_is_another_request() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let post = |body: &'static str| {
        wall.request(Method::POST, "/v1/echo")
            .header("PAYMENT-SIGNATURE", &proof)
            .body(body)
    };
    assert_eq!(send(post("one")).await.body, "one");
    let again = send(post("one")).await;
    assert_eq!(
        (again.body.as_str(), again.header("idempotency-replayed")),
        ("one", Some("true"))
    );
    let other = send(post("two")).await;
    assert_eq!(
        (other.status, other.reason().as_str()),
        (402, "payment_already_used")
    );
    assert_eq!(wall.origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_copies_at_once_run_the_origin_once() {
    let trial = Trial::of("copies raced, one wall");
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let client = crate::support::client();
    let copies = (0..1000).map(|_| {
        send(
            client
                .get(wall.url("/v1/slow?ms=200"))
                .header("PAYMENT-SIGNATURE", &proof),
        )
    });
    let answers = join_all(copies).await;
    let served: Vec<_> = answers.iter().filter(|a| a.status == 200).collect();
    assert_eq!(wall.origin.hits("/v1/slow"), 1);
    assert_eq!(wall.sandbox.stats().settle_calls, 1);
    assert_eq!(wall.sandbox.stats().verify_calls, 1);
    assert_eq!(served.len(), 1000, "all copies get the one answer");
    assert!(served.iter().all(|a| a.body == served[0].body));
    assert_eq!(
        served
            .iter()
            .filter(|a| a.header("idempotency-replayed").is_none())
            .count(),
        1
    );
    eventually("delivered", || wall.states() == ["delivered"]);
    trial.held(answers.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_proof_on_many_routes_at_once_buys_one_of_them() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let paths: Vec<String> = (0..50).map(|n| format!("/v1/item{n}")).collect();
    let answers = join_all(paths.iter().map(|path| wall.pay(path, &proof))).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
    assert_eq!(answers.iter().filter(|a| a.status == 402).count(), 49);
    assert_eq!(wall.origin.seen().len(), 1);
    assert_eq!(wall.sandbox.stats().settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_response_is_not_kept_and_its_payment_is_spent() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let first = wall.pay("/v1/big?bytes=300000", &proof).await;
    assert_eq!((first.status, first.body.len()), (200, 300_000));
    eventually("delivered", || wall.states() == ["delivered"]);
    assert_eq!(wall.pay("/v1/big?bytes=300000", &proof).await.status, 402);
    assert_eq!(wall.origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_retry_window_there_is_a_fresh_402() {
    let setup = Setup {
        limits: "retry_window_s = 1".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    eventually("delivered", || wall.states() == ["delivered"]);
    let mut status = 200;
    for _ in 0..60 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        status = wall.pay("/v1/quote", &proof).await.status;
        if status == 402 {
            break;
        }
    }
    assert_eq!(status, 402);
    assert_eq!(wall.origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_request_whose_response_is_not_kept_run_the_origin_once() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let copies = (0..8).map(|_| wall.pay("/v1/big?bytes=4000000", &proof));
    let answers = join_all(copies).await;
    let served = answers
        .iter()
        .filter(|a| a.status == 200 && a.body.len() == 4_000_000)
        .count();
    assert_eq!(served, 1);
    assert_eq!(wall.origin.hits("/v1/big"), 1);
    assert_eq!(answers.iter().filter(|a| a.status == 402).count(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_a_secret_that_the_chain_does_not_show() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(1000));
    let with = |key: &'static str| {
        wall.request(Method::GET, "/v1/quote")
            .header("PAYMENT-SIGNATURE", &proof)
            .header("Idempotency-Key", key)
    };
    assert_eq!(send(with("mine")).await.status, 200);
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 402);
    assert_eq!(send(with("guess")).await.status, 402);
    assert_eq!(
        send(with("mine")).await.header("idempotency-replayed"),
        Some("true")
    );
}

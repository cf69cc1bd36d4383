//! Everything has a limit.

use reqwest::Method;

use crate::support::{Setup, Signer, Wall, offer, raw_request, send};

fn small_bodies() -> Setup {
    Setup {
        limits: "request_body_bytes_max = 1000\ntarget_bytes_max = 200".to_owned(),
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_413_and_costs_nothing() {
    let wall = small_bodies().start().await;
    let proof = Signer::new().proof(&offer(2000));
    let declared = wall
        .request(Method::POST, "/v1/echo")
        .header("PAYMENT-SIGNATURE", &proof)
        .body("x".repeat(1001));
    assert_eq!(send(declared).await.status, 413);
    assert_eq!(wall.sandbox.stats().verify_calls, 0);
    let chunked = format!(
        "POST /v1/echo HTTP/1.1\r\nHost: a\r\nPAYMENT-SIGNATURE: {proof}\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1001)
    );
    assert_eq!(
        raw_request(wall.address, chunked.as_bytes()).await.status,
        413
    );
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
    assert_eq!(wall.states(), ["released"]);
    let fits = wall
        .request(Method::POST, "/v1/echo")
        .header("PAYMENT-SIGNATURE", &proof)
        .body("x".repeat(1000));
    assert_eq!(send(fits).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_over_the_limit_is_414() {
    let wall = small_bodies().start().await;
    let query = "q".repeat(200 - "/health?".len());
    assert_eq!(wall.get(&format!("/health?{query}")).await.status, 200);
    assert_eq!(wall.get(&format!("/health?{query}q")).await.status, 414);
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_in_verification_are_bounded() {
    let setup = Setup {
        limits: "unverified_proofs_max = 1".to_owned(),
        ..Setup::default()
    };
    let wall: Wall = setup.start().await;
    wall.sandbox.misbehave(farewall::sandbox::Misbehaviour {
        kind: farewall::sandbox::Misdeed::SlowBody { ms: 800 },
        scope: farewall::sandbox::Scope::Verify,
        times: 1,
    });
    let (one, two) = (
        Signer::new().proof(&offer(1000)),
        Signer::new().proof(&offer(1000)),
    );
    let (first, second) = tokio::join!(wall.pay("/v1/quote", &one), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        wall.pay("/v1/quote", &two).await
    });
    assert_eq!((first.status, second.status), (200, 503));
    assert!(second.header("retry-after").is_some());
    assert_eq!(wall.pay("/v1/quote", &two).await.status, 200);
}

//! Browsers: preflights, and what scripts may read.

use reqwest::Method;

use crate::support::{Setup, Signer, Wall, offer, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_true_preflight_is_answered_by_the_wall_for_nothing() {
    let wall = Wall::start().await;
    let request = wall
        .request(Method::OPTIONS, "/v1/quote")
        .header("Origin", "https://app.example")
        .header("Access-Control-Request-Method", "GET")
        .header(
            "Access-Control-Request-Headers",
            "payment-signature, x-mine",
        );
    let answer = send(request).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET"));
    let allowed = answer.header("access-control-allow-headers").unwrap();
    for name in [
        "PAYMENT-SIGNATURE",
        "X-PAYMENT",
        "Access-Control-Expose-Headers",
        "x-mine",
    ] {
        assert!(allowed.contains(name), "{name} in {allowed}");
    }
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_is_no_preflight_costs_what_the_rule_says() {
    let wall = Wall::start().await;
    for name in ["Origin", "Access-Control-Request-Method"] {
        let answer = send(
            wall.request(Method::OPTIONS, "/v1/quote")
                .header(name, "GET"),
        )
        .await;
        assert_eq!(answer.status, 402, "{name} alone");
    }
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_may_read_the_challenge_and_the_receipt() {
    let wall = Wall::start().await;
    let unpaid = send(
        wall.request(Method::GET, "/v1/quote")
            .header("Origin", "https://app.example"),
    )
    .await;
    let paid = send(
        wall.request(Method::GET, "/v1/quote")
            .header("Origin", "https://app.example")
            .header("PAYMENT-SIGNATURE", Signer::new().proof(&offer(1000))),
    )
    .await;
    assert_eq!((unpaid.status, paid.status), (402, 200));
    for answer in [unpaid, paid] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("PAYMENT-REQUIRED") && exposed.contains("PAYMENT-RESPONSE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_origins_are_allowed_when_there_is_a_list() {
    let setup = Setup {
        top: "[cors]\nallow_origins = [\"https://app.example\"]\n".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let preflight = |origin: &'static str| {
        wall.request(Method::OPTIONS, "/v1/quote")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
    };
    let good = send(preflight("https://app.example")).await;
    assert_eq!(
        (good.status, good.header("access-control-allow-origin")),
        (204, Some("https://app.example"))
    );
    assert_eq!(send(preflight("https://evil.example")).await.status, 403);
    let simple = send(
        wall.request(Method::GET, "/v1/quote")
            .header("Origin", "https://evil.example"),
    )
    .await;
    assert_eq!(
        (simple.status, simple.header("access-control-allow-origin")),
        (402, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_free_keeps_the_origins_own_cors() {
    let wall = Wall::start().await;
    let answer = send(
        wall.request(Method::GET, "/health")
            .header("Origin", "https://app.example"),
    )
    .await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, None)
    );
}

//! Nobody pays for a failed response, and the same proof is good again.

use std::time::Duration;

use reqwest::Method;

use crate::support::{RawResponse, Setup, Signer, Wall, eventually, offer, raw_request, send};

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_origin_passes_and_costs_nothing() {
    let wall = Wall::start().await;
    for status in [400, 404, 429, 500, 503] {
        let proof = Signer::new().proof(&offer(2000));
        let answer = wall.pay(&format!("/v1/fail?status={status}"), &proof).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.body, "{\"error\":\"origin failed\"}");
        assert_eq!(answer.header("payment-response"), None);
    }
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
    assert_eq!(wall.states(), ["released"; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_proof_is_good_again_at_once_and_elsewhere() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    assert_eq!(wall.pay("/v1/flaky?fail=1", &proof).await.status, 503);
    assert_eq!(wall.pay("/v1/fail", &proof).await.status, 500);
    assert_eq!(wall.pay("/v1/good", &proof).await.status, 200);
    assert_eq!(wall.sandbox.stats().settled, 1);
    eventually("delivered", || {
        wall.states() == ["delivered", "released", "released"]
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_too_slow_costs_nothing() {
    let setup = Setup {
        upstream: "read_timeout_ms = 300".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let proof = Signer::new().proof(&offer(2000));
    let answer = wall.pay("/v1/slow?ms=5000", &proof).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (504, "upstream_timeout")
    );
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
    assert_eq!(wall.pay("/v1/good", &proof).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_down_costs_nothing() {
    let rules = r#"
[upstream.gone]
url = "http://127.0.0.1:9"
[[rule]]
name = "gone"
path = "/gone"
price = "$0.001"
upstream = "gone"
[[rule]]
name = "here"
path = "/here"
price = "$0.001"
upstream = "api"
"#;
    let wall = Setup::rules(rules).start().await;
    let proof = Signer::new().proof(&offer(1000));
    let answer = wall.pay("/gone", &proof).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (502, "upstream_failed")
    );
    assert!(!answer.body.contains("127.0.0.1"), "no internal text");
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
    assert_eq!(wall.pay("/here", &proof).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_and_not_modified_answers_are_not_sold() {
    let wall = Wall::start().await;
    for path in ["/v1/not-modified", "/v1/partial"] {
        let answer = wall.pay(path, &Signer::new().proof(&offer(2000))).await;
        assert_eq!(answer.status, 502, "{path}");
    }
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
    assert_eq!(wall.states(), ["released", "released"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_owed_and_collected_by_the_same_proof() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let request = format!("GET /v1/dies HTTP/1.1\r\nHost: a\r\nPAYMENT-SIGNATURE: {proof}\r\n\r\n");
    let cut: RawResponse = raw_request(wall.address, request.as_bytes()).await;
    assert_eq!(cut.status, 200);
    assert!(
        cut.body.len() < 1000,
        "the client can tell that it broke off"
    );
    assert_eq!(wall.states(), ["settled"], "paid, owed");
    let again = raw_request(wall.address, request.as_bytes()).await;
    assert_eq!(again.status, 200);
    assert_eq!(
        wall.origin.hits("/v1/dies"),
        2,
        "asked again, since GET is safe"
    );
    assert_eq!(wall.sandbox.stats().settle_calls, 1, "charged once");
    assert_eq!(wall.states(), ["settled"], "still owed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_to_a_post_is_a_debt_with_a_receipt_not_a_second_post() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let request = format!(
        "POST /v1/dies HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nPAYMENT-SIGNATURE: {proof}\r\n\r\nhi"
    );
    raw_request(wall.address, request.as_bytes()).await;
    let again = raw_request(wall.address, request.as_bytes()).await;
    assert_eq!(again.status, 409);
    assert!(String::from_utf8_lossy(&again.body).contains("paid_response_lost"));
    assert!(again.header("payment-response").is_some());
    assert_eq!(wall.origin.hits("/v1/dies"), 1);
    assert_eq!(wall.states(), ["settled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settle_before_leaves_a_failed_response_owed_and_the_proof_collects() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(3000));
    let failed = wall.pay("/before/flaky?fail=1", &proof).await;
    assert_eq!(failed.status, 503);
    assert_eq!(failed.receipt()["success"], true);
    assert_eq!(wall.states(), ["settled"]);
    let collected = wall.pay("/before/flaky?fail=1", &proof).await;
    assert_eq!(collected.status, 200);
    assert_eq!(wall.sandbox.stats().settle_calls, 1);
    eventually("delivered", || wall.states() == ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_paid_in_advance_is_not_told_that_nothing_was_charged() {
    let setup = Setup {
        upstream: "read_timeout_ms = 300".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    for (path, status) in [("/before/slow?ms=1500", 504), ("/before/partial", 502)] {
        let answer = wall.pay(path, &Signer::new().proof(&offer(3000))).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (status, "paid_response_owed"),
            "{path}"
        );
        assert_eq!(answer.receipt()["success"], true, "{path}");
    }
    assert_eq!(wall.states(), ["settled", "settled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_who_hangs_up_does_not_cancel_the_settlement_and_can_collect() {
    let setup = Setup {
        sandbox: farewall::sandbox::SandboxOptions {
            settle_delay: Duration::from_millis(600),
            ..Default::default()
        },
        ..Setup::default()
    };
    let wall = setup.start().await;
    let proof = Signer::new().proof(&offer(1000));
    let request = wall
        .request(Method::GET, "/v1/quote")
        .header("PAYMENT-SIGNATURE", &proof)
        .timeout(Duration::from_millis(300));
    assert!(request.send().await.is_err(), "the buyer hung up");
    eventually("settled all the same", || wall.sandbox.stats().settled == 1);
    let collected = send(
        wall.request(Method::GET, "/v1/quote")
            .header("PAYMENT-SIGNATURE", &proof),
    )
    .await;
    assert_eq!(collected.status, 200);
    assert_eq!(wall.sandbox.stats().settle_calls, 1);
    eventually("delivered", || wall.states() == ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settle_before_and_a_dead_origin_say_that_the_response_is_owed() {
    let rules = "[upstream.gone]\nurl = \"http://127.0.0.1:9\"\n\
                 [[rule]]\nname = \"gone\"\npath = \"/gone\"\nprice = \"$0.003\"\nsettle = \"before\"\nupstream = \"gone\"\n";
    let wall = Setup::rules(rules).start().await;
    let answer = wall.pay("/gone", &Signer::new().proof(&offer(3000))).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (502, "paid_response_owed")
    );
    assert_eq!(answer.receipt()["success"], true);
    assert_eq!(wall.states(), ["settled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_in_advance_and_never_sent_is_sent_later_even_a_post() {
    let later = crate::support::wall::free_address();
    let rules = format!(
        "[upstream.later]\nurl = \"http://{later}\"\n\
         [[rule]]\nname = \"later\"\npath = \"/later/{{name}}\"\nprice = \"$0.003\"\n\
         settle = \"before\"\nupstream = \"later\"\n"
    );
    let wall = Setup::rules(&rules).start().await;
    let proof = Signer::new().proof(&offer(3000));
    let post = || {
        wall.request(Method::POST, "/later/echo")
            .header("PAYMENT-SIGNATURE", &proof)
            .body("work")
    };
    let failed = send(post()).await;
    assert_eq!(
        (failed.status, failed.error().as_str()),
        (502, "paid_response_owed")
    );
    let origin = crate::support::Origin::start_at(later).await;
    let collected = send(post()).await;
    assert_eq!((collected.status, collected.body.as_str()), (200, "work"));
    assert_eq!(collected.receipt()["success"], true);
    assert_eq!(wall.sandbox.stats().settle_calls, 1);
    assert_eq!(origin.seen().len(), 1);
    eventually("delivered", || wall.states() == ["delivered"]);
}

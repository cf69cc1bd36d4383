//! Facilitators that fail, and what the client and the ledger then say.

use farewall::sandbox::{Misbehaviour, Misdeed, Scope};
use reqwest::Method;

use crate::support::{Setup, Signer, Wall, eventually, offer, send};

fn at_settle(kind: Misdeed, times: u64) -> Misbehaviour {
    Misbehaviour {
        kind,
        scope: Scope::Settle,
        times,
    }
}

fn at_verify(kind: Misdeed, times: u64) -> Misbehaviour {
    Misbehaviour {
        kind,
        scope: Scope::Verify,
        times,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_settlement_is_402_with_a_receipt_and_without_a_challenge() {
    let wall = Wall::start().await;
    let reason = "invalid_exact_evm_transaction_failed".to_owned();
    wall.sandbox.misbehave(at_settle(
        Misdeed::RejectSettle {
            reason: reason.clone(),
        },
        1,
    ));
    let proof = Signer::new().proof(&offer(1000));
    let answer = wall.pay("/v1/quote", &proof).await;
    assert_eq!(answer.status, 402);
    assert_eq!(answer.header("payment-required"), None);
    assert_eq!(answer.receipt()["success"], false);
    assert_eq!(answer.receipt()["errorReason"], reason.as_str());
    assert_eq!(answer.body, "{}", "not a byte of the origin's answer");
    assert_eq!(answer.header("etag"), None);
    assert_eq!(wall.states(), ["refused"]);
    assert_eq!(
        wall.pay("/v1/quote", &proof).await.status,
        200,
        "the proof may be good again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_unknown_the_proof_stays_good_and_nothing_is_paid_twice() {
    for misdeed in [
        Misdeed::LoseAnswerAfterSettling,
        Misdeed::HangAfterSettling { ms: 3000 },
        Misdeed::Status { status: 500 },
        Misdeed::Junk,
        Misdeed::SuccessWithoutTransaction,
    ] {
        let setup = Setup {
            facilitator: "settle_timeout_ms = 500".to_owned(),
            ..Setup::default()
        };
        let wall = setup.start().await;
        wall.sandbox.misbehave(at_settle(misdeed.clone(), 1));
        let proof = Signer::new().proof(&offer(1000));
        let answer = wall.pay("/v1/quote", &proof).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (503, "settlement_unknown"),
            "{misdeed:?}"
        );
        assert!(answer.header("retry-after").is_some());
        assert!(answer.body.contains("do not pay again"));
        assert_eq!(
            answer.header("payment-required"),
            None,
            "no invitation to pay again"
        );
        assert_eq!(wall.states(), ["settling"], "{misdeed:?}");
        let again = wall.pay("/v1/quote", &proof).await;
        assert!(
            again.status == 503 || again.status == 200,
            "{misdeed:?}: {}",
            again.status
        );
        assert!(wall.sandbox.stats().settled <= 1, "{misdeed:?}");
        assert_eq!(wall.origin.hits("/v1/quote"), 1, "{misdeed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_settlement_is_repeated_and_the_kept_response_collected() {
    let wall = Wall::start().await;
    wall.sandbox
        .misbehave(at_settle(Misdeed::Status { status: 500 }, 1));
    let proof = Signer::new().proof(&offer(2000));
    let post = || {
        wall.request(Method::POST, "/v1/echo")
            .header("PAYMENT-SIGNATURE", &proof)
            .body("work")
    };
    assert_eq!(send(post()).await.status, 503);
    eventually("the reconciler settled it", || wall.states() == ["settled"]);
    let collected = send(post()).await;
    assert_eq!((collected.status, collected.body.as_str()), (200, "work"));
    assert_eq!(collected.receipt()["success"], true);
    assert_eq!(wall.origin.hits("/v1/echo"), 1, "the work was done once");
    assert_eq!(wall.sandbox.stats().settled, 1);
    eventually("delivered", || wall.states() == ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_settlement_is_asked_for_once_more_at_once() {
    let wall = Wall::start().await;
    wall.sandbox.misbehave(at_settle(Misdeed::Pending, 1));
    let answer = wall
        .pay("/v1/quote", &Signer::new().proof(&offer(1000)))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(wall.sandbox.stats().settle_calls, 2);
    assert_eq!(wall.sandbox.stats().settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_facilitator_that_gives_no_verdict_is_503_without_internal_text() {
    let setup = Setup {
        facilitator: "verify_timeout_ms = 300".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let proof = Signer::new().proof(&offer(1000));
    for misdeed in [
        Misdeed::Status { status: 500 },
        Misdeed::Junk,
        Misdeed::Hang { ms: 1000 },
    ] {
        wall.sandbox.misbehave(at_verify(misdeed.clone(), 2));
        let answer = wall.pay("/v1/quote", &proof).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (503, "payment_unavailable"),
            "{misdeed:?}"
        );
        assert!(answer.header("retry-after").is_some());
        assert!(
            !answer.body.contains("127.0.0.1") && !answer.body.contains("500"),
            "{}",
            answer.body
        );
        wall.sandbox.behave();
    }
    assert_eq!(wall.origin.seen().len(), 0);
    assert!(wall.ledger().is_empty());
    assert_eq!(
        wall.pay("/v1/quote", &proof).await.status,
        200,
        "the proof stayed good"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_facilitator_is_503_and_the_wall_still_starts() {
    let setup = Setup {
        facilitator_url: Some("http://127.0.0.1:9".to_owned()),
        ..Setup::default()
    };
    let wall = setup.start().await;
    assert_eq!(wall.get("/v1/quote").await.status, 402);
    let answer = wall
        .pay("/v1/quote", &Signer::new().proof(&offer(1000)))
        .await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (503, "payment_unavailable")
    );
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn settle_before_with_an_unknown_outcome_does_not_reach_the_origin() {
    let wall = Wall::start().await;
    wall.sandbox
        .misbehave(at_settle(Misdeed::LoseAnswerAfterSettling, 1));
    let answer = wall
        .pay("/before/x", &Signer::new().proof(&offer(3000)))
        .await;
    assert_eq!(answer.status, 503);
    assert_eq!(wall.origin.seen().len(), 0);
    assert_eq!(wall.states(), ["settling"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_remembered_but_do_not_replace_a_claim() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    assert_eq!(wall.pay("/v1/fail", &proof).await.status, 500);
    assert_eq!(wall.pay("/v1/fail", &proof).await.status, 500);
    assert_eq!(wall.sandbox.stats().verify_calls, 1, "remembered");
    assert_eq!(wall.states(), ["released", "released"], "claimed each time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permit2_allowance_is_412_or_402_as_configured() {
    for (key, status) in [("", 412), ("permit2_allowance_as_402 = true", 402)] {
        let wall = Setup {
            server: key.to_owned(),
            ..Setup::default()
        }
        .start()
        .await;
        let reason = "permit2_allowance_required".to_owned();
        wall.sandbox.misbehave(at_verify(
            Misdeed::RejectVerify {
                reason: reason.clone(),
            },
            1,
        ));
        let answer = wall
            .pay("/v1/quote", &Signer::new().proof(&offer(1000)))
            .await;
        assert_eq!((answer.status, answer.reason()), (status, reason));
        assert_eq!(wall.origin.seen().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_response_is_never_kept_for_a_whole_one() {
    for (path, bytes) in [("/v1/parts", 100_000), ("/v1/big?bytes=100000", 100_000)] {
        let wall = Wall::start().await;
        wall.sandbox
            .misbehave(at_settle(Misdeed::Status { status: 500 }, 1));
        let proof = Signer::new().proof(&offer(2000));
        assert_eq!(wall.pay(path, &proof).await.status, 503, "{path}");
        eventually("the reconciler settled it", || wall.states() == ["settled"]);
        let collected = wall.pay(path, &proof).await;
        assert_eq!(
            (collected.status, collected.body.len()),
            (200, bytes),
            "{path}"
        );
        eventually("delivered", || wall.states() == ["delivered"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_is_collected_with_a_proof_that_has_run_out_meanwhile() {
    let wall = Wall::start().await;
    let signer = Signer::new();
    let offer = offer(2000);
    let mut authorization = signer.authorization(&offer);
    authorization = farewall::x402::eip3009::Authorization::new(
        authorization.from,
        authorization.to,
        authorization.value,
        authorization.valid_after(),
        farewall::clock::UnixSeconds(crate::support::buyer::now() + 9),
        authorization.nonce,
    );
    let payload = signer.payload(&offer, &authorization);
    let proof = crate::support::encode(
        &serde_json::json!({ "x402Version": 2, "payload": payload, "accepted": offer.0 }),
    );
    wall.sandbox
        .misbehave(at_settle(Misdeed::Status { status: 500 }, 1));
    assert_eq!(wall.pay("/v1/parts", &proof).await.status, 503);
    eventually("the reconciler settled it", || wall.states() == ["settled"]);
    tokio::time::sleep(std::time::Duration::from_secs(9)).await;
    let collected = wall.pay("/v1/parts", &proof).await;
    assert_eq!(collected.status, 200);
    assert_eq!(wall.sandbox.stats().settled, 1);
    eventually("delivered", || wall.states() == ["delivered"]);
    let late = wall.pay("/v1/other", &proof).await;
    assert_eq!(late.status, 402, "for anything else it is worthless");
}

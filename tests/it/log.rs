//! The access line, and what of a trace goes on.

use serde_json::Value;

use crate::support::{Setup, Signer, eventually, offer, send};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn lines(log: &str) -> Vec<Value> {
    let parsed = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let is_access = |line: &Value| line["target"] == "farewall::access";
    parsed.filter(is_access).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_request_has_one_line_that_says_who_paid_what_and_where_the_time_went() {
    let wall = Setup::default().start().await;
    assert_eq!(wall.get("/v1/quote").await.status, 402);
    let buyer = Signer::new();
    let proof = buyer.proof(&offer(1000));
    let request = wall.request(reqwest::Method::GET, "/v1/quote");
    let request = request
        .header("PAYMENT-SIGNATURE", &proof)
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let answer = send(request).await;
    assert_eq!(answer.status, 200);
    let replay = wall.pay("/v1/quote", &proof).await;
    assert_eq!(replay.status, 200);
    eventually("there are three lines", || lines(&wall.log()).len() == 3);
    let lines = lines(&wall.log());
    let (challenge, paid, replayed) = (&lines[0], &lines[1], &lines[2]);
    assert_eq!(challenge["outcome"], "payment_required");
    assert!(challenge["challenge_us"].as_u64().unwrap() > 0);
    assert_eq!(challenge.get("payer"), None);
    assert_eq!(paid["outcome"], "paid");
    assert_eq!(paid["rule"], "quote");
    assert_eq!(paid["status"], 200);
    assert_eq!(paid["amount"], "1000");
    assert_eq!(paid["accept"], "base-sepolia-usdc");
    assert_eq!(paid["payer"], buyer.address.to_checksum(None));
    assert_eq!(paid["payment"], wall.ledger()[0]["payment"]);
    assert_eq!(paid["trace_id"], TRACE);
    assert_eq!(paid["request_id"], answer.header("x-request-id").unwrap());
    let whole = paid["micros"].as_u64().unwrap();
    let mut sum = 0;
    for phase in ["verify_us", "claim_us", "upstream_us", "settle_us"] {
        let took = paid[phase].as_u64().unwrap();
        assert!(took > 0, "{phase}: {paid}");
        sum += took;
    }
    assert!(sum <= whole, "the phases do not overlap: {paid}");
    assert_eq!(replayed["outcome"], "replayed");
    assert_eq!(replayed["payer"], paid["payer"]);
    assert!(!wall.log().contains(&proof), "the log holds no proof");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_trace_context_is_passed_on_and_a_malformed_one_is_not() {
    let wall = Setup::default().start().await;
    let valid = format!("00-{TRACE}-00f067aa0ba902b7-01");
    for (traceparent, passes) in [
        (valid.as_str(), true),
        ("00-xyz-00f067aa0ba902b7-01", false),
    ] {
        let request = wall.request(reqwest::Method::GET, "/health");
        let request = request
            .header("traceparent", traceparent)
            .header("tracestate", "vendor=1");
        assert_eq!(send(request).await.status, 200);
        let seen = wall.origin.last();
        let got = seen.header("traceparent");
        assert_eq!(got, passes.then_some(traceparent));
        assert_eq!(seen.header("tracestate"), passes.then_some("vendor=1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_filter_leaves_out_is_not_written() {
    let log = "[log]\nfilter = \"warn\"\nformat = \"json\"\n";
    let wall = Setup {
        rules: Some(format!("{}\n{log}", crate::support::wall::RULES)),
        own_log_filter: true,
        ..Setup::default()
    }
    .start()
    .await;
    assert_eq!(wall.get("/v1/quote").await.status, 402);
    assert_eq!(lines(&wall.log()).len(), 0, "{}", wall.log());
}

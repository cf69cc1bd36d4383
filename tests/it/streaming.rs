//! Streams stay streams.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::Method;

use crate::support::{Setup, Signer, Wall, eventually, offer};

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_paid_stream_arrive_one_by_one_after_the_settlement() {
    let wall = Wall::start().await;
    let request = wall
        .request(Method::GET, "/v1/events?count=4&ms=400")
        .header("PAYMENT-SIGNATURE", Signer::new().proof(&offer(2000)));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("payment-response"));
    let (mut chunks, mut arrivals) = (response.bytes_stream(), Vec::new());
    while let Some(chunk) = chunks.next().await {
        arrivals.push((Instant::now(), chunk.unwrap()));
    }
    let text: Vec<u8> = arrivals
        .iter()
        .flat_map(|(_, chunk)| chunk.to_vec())
        .collect();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n"
    );
    assert_eq!(arrivals.len(), 4, "not gathered into fewer chunks");
    let spread = arrivals[3].0 - arrivals[0].0;
    assert!(spread > Duration::from_millis(800), "held back: {spread:?}");
    eventually("delivered", || wall.states() == ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_byte_waits_for_the_settlement_and_not_a_byte_leaves_before() {
    let setup = Setup {
        sandbox: farewall::sandbox::SandboxOptions {
            settle_delay: Duration::from_millis(500),
            ..Default::default()
        },
        ..Setup::default()
    };
    let wall = setup.start().await;
    let began = Instant::now();
    let request = wall
        .request(Method::GET, "/v1/events?count=2&ms=10")
        .header("PAYMENT-SIGNATURE", Signer::new().proof(&offer(2000)));
    let response = request.send().await.unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(500),
        "the head left before the settlement"
    );
    assert_eq!(wall.sandbox.stats().settled, 1);
    assert_eq!(response.text().await.unwrap(), "data: 0\n\ndata: 1\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_passes_whole() {
    let wall = Wall::start().await;
    let bytes = 40 << 20;
    let answer = wall
        .pay(
            &format!("/v1/big?bytes={bytes}"),
            &Signer::new().proof(&offer(2000)),
        )
        .await;
    assert_eq!((answer.status, answer.body.len()), (200, bytes));
}

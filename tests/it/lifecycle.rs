//! Starting, ending and crashing: what the process says, and what the ledger knows afterwards.

use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http2::{Http2, answer};
use crate::support::protocol::Say;
use crate::support::raw::read_response;
use crate::support::wall::{farewall, free_address};
use crate::support::{Setup, Signer, Wall, client, eventually, offer, send};

/// Far below the grace period, far above what a busy machine needs.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_wall_ends_at_once_when_asked() {
    let mut wall = Wall::start().await;
    assert_eq!(wall.get("/health").await.status, 200);
    let idle_client = client(); // holds a connection that is kept alive
    assert_eq!(send(idle_client.get(wall.url("/health"))).await.status, 200);
    let (status, took) = wall.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_finished_and_then_the_wall_ends() {
    let mut wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let request = wall
        .request(Method::GET, "/v1/slow?ms=1500")
        .header("PAYMENT-SIGNATURE", proof);
    let under_way = tokio::spawn(send(request));
    eventually("the origin works", || wall.origin.hits("/v1/slow") == 1);
    let since = Instant::now();
    wall.ask_to_end();
    let answer = under_way.await.unwrap();
    assert_eq!(
        (answer.status, answer.receipt()["success"].as_bool()),
        (200, Some(true))
    );
    assert_eq!(wall.wait().code(), Some(0));
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert_eq!(wall.states(), ["delivered"]);
    assert_eq!(wall.sandbox.stats().settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_wait_for_a_request_end_before_what_is_under_way_does() {
    let wall = Wall::start().await;
    let mut idle = Vec::new();
    // One after another kind of request; the last one has sent another half.
    for sent in [
        "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v1/quote HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        "POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /hea",
    ] {
        let mut client = TcpStream::connect(wall.address).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let status = read_response(&mut client, false).await.status;
        assert!(matches!(status, 200 | 402), "{sent:?}: {status}");
        idle.push((sent, client));
    }
    let proof = Signer::new().proof(&offer(2000));
    let request = wall.request(Method::GET, "/v1/slow?ms=600000");
    let under_way = tokio::spawn(request.header("PAYMENT-SIGNATURE", proof).send());
    eventually("the origin works", || wall.origin.hits("/v1/slow") == 1);
    wall.ask_to_end();
    for (sent, client) in &mut idle {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(SOON, client.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "held after {sent:?}");
        assert_eq!(rest, b"", "{sent:?}");
    }
    assert!(!under_way.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_the_limit_is_cut_off_and_not_charged() {
    let setup = Setup {
        server: "shutdown_grace_s = 1".to_owned(),
        ..Setup::default()
    };
    let mut wall = setup.start().await;
    let proof = Signer::new().proof(&offer(2000));
    let request = wall
        .request(Method::GET, "/v1/slow?ms=600000")
        .header("PAYMENT-SIGNATURE", proof);
    let under_way = tokio::spawn(request.send());
    eventually("the origin works", || wall.origin.hits("/v1/slow") == 1);
    wall.ask_to_end();
    assert_eq!(wall.wait().code(), Some(0));
    assert!(under_way.await.unwrap().is_err());
    assert_eq!(wall.states(), ["released"]);
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_sooner() {
    let setup = Setup {
        server: "shutdown_grace_s = 3600".to_owned(),
        ..Setup::default()
    };
    let mut wall = setup.start().await;
    let proof = Signer::new().proof(&offer(2000));
    let request = wall
        .request(Method::GET, "/v1/slow?ms=600000")
        .header("PAYMENT-SIGNATURE", proof);
    let under_way = tokio::spawn(request.send());
    eventually("the origin works", || wall.origin.hits("/v1/slow") == 1);
    wall.ask_to_end();
    eventually("it heard that", || wall.log().contains("asked to end"));
    wall.ask_to_end();
    assert_eq!(wall.wait().code(), Some(0));
    assert!(under_way.await.unwrap().is_err());
    assert_eq!(wall.states(), ["released"]);
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http2_is_finished_before_the_wall_ends() {
    let setup = Setup {
        listen: "h2c = true".to_owned(),
        ..Setup::default()
    };
    let mut wall = setup.start().await;
    let proof = Signer::new().proof(&offer(2000));
    let connection = Http2::plain(wall.address).await;
    let say = Say::new("GET", "/v1/events?count=8&ms=200").with("payment-signature", &proof);
    let (response, _stream) = connection.begin(say.request("http")).await;
    eventually("the origin works", || wall.origin.hits("/v1/events") == 1);
    wall.ask_to_end();
    let answer = answer(response).await.unwrap();
    assert_eq!(
        (answer.status, answer.body.matches("data:").count()),
        (200, 8)
    );
    assert_eq!(wall.wait().code(), Some(0));
    assert_eq!(wall.states(), ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_a_crash_left_behind_is_given_back() {
    let mut wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let request = wall
        .request(Method::GET, "/v1/slow?ms=3000")
        .header("PAYMENT-SIGNATURE", &proof);
    let under_way = tokio::spawn(request.send());
    eventually("the origin works", || wall.origin.hits("/v1/slow") == 1);
    assert_eq!(wall.states(), ["claimed"]);
    wall.kill();
    assert!(under_way.await.unwrap().is_err());
    assert_eq!(wall.states(), ["claimed"]);
    wall.restart();
    let record = &wall.ledger()[0];
    assert_eq!(record["state"], "released");
    assert!(record.to_string().contains("wall_restarted"), "{record}");
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
    let again = wall.pay("/v1/slow?ms=3000", &proof).await;
    assert_eq!(
        (again.status, again.receipt()["success"].as_bool()),
        (200, Some(true))
    );
    assert_eq!(wall.sandbox.stats().settled, 1);
    eventually("delivered", || wall.states() == ["delivered", "released"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_survives_a_crash_and_is_collected_by_the_same_proof() {
    let mut wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let path = "/v1/events?count=20&ms=200";
    let request = wall
        .request(Method::GET, path)
        .header("PAYMENT-SIGNATURE", &proof);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(wall.states(), ["settled"]);
    wall.kill();
    while let Ok(Some(_)) = response.chunk().await {}
    assert_eq!(wall.states(), ["settled"], "owed");
    wall.restart();
    assert_eq!(wall.states(), ["settled"], "still owed");
    let elsewhere = wall.pay("/v1/events?count=2", &proof).await;
    assert_eq!(elsewhere.status, 402, "a debt is for what was bought");
    let collected = wall.pay(path, &proof).await;
    assert_eq!(
        (collected.status, collected.receipt()["success"].as_bool()),
        (200, Some(true))
    );
    assert_eq!(collected.body.matches("data:").count(), 20);
    assert_eq!(wall.sandbox.stats().settle_calls, 1, "paid once");
    eventually("delivered", || wall.states() == ["delivered"]);
    assert_eq!(
        wall.pay(path, &proof).await.status,
        200,
        "a retry, from what was kept"
    );
    assert_eq!(wall.origin.hits("/v1/events"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_a_crash_interrupted_is_found_out() {
    use farewall::sandbox::{Misbehaviour, Misdeed, Scope};
    let mut wall = Wall::start().await;
    wall.sandbox.misbehave(Misbehaviour {
        kind: Misdeed::Hang { ms: 600_000 },
        scope: Scope::Settle,
        times: 1,
    });
    let proof = Signer::new().proof(&offer(1000));
    let request = wall
        .request(Method::GET, "/v1/quote")
        .header("PAYMENT-SIGNATURE", &proof);
    let under_way = tokio::spawn(request.send());
    eventually("settling", || wall.sandbox.stats().settle_calls == 1);
    wall.kill();
    assert!(under_way.await.unwrap().is_err());
    assert_eq!(wall.states(), ["settling"]);
    wall.restart();
    eventually("the reconciler asks again", || wall.states() == ["settled"]);
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    assert_eq!(wall.sandbox.stats().settled, 1, "the money moved once");
    eventually("delivered", || wall.states() == ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_wall_on_the_same_ledger_does_not_start() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let request = wall
        .request(Method::GET, "/v1/slow?ms=1000")
        .header("PAYMENT-SIGNATURE", &proof);
    let under_way = tokio::spawn(send(request));
    eventually("the origin works", || wall.origin.hits("/v1/slow") == 1);
    let text = std::fs::read_to_string(&wall.config).unwrap();
    let (own, other) = (wall.address.to_string(), free_address().to_string());
    let config = wall.file("second.toml");
    std::fs::write(&config, text.replace(&own, &other)).unwrap();
    let since = Instant::now();
    let output = farewall(&["run", "--config", config.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(
        told.contains("ledger.db is in use by another wall"),
        "{told}"
    );
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert_eq!(
        under_way.await.unwrap().status,
        200,
        "its claim was not given back"
    );
    eventually("delivered", || wall.states() == ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_occupied_port_is_a_clear_error() {
    for admin in [false, true] {
        let mut wall = Setup {
            admin: Some(free_address()),
            ..Setup::default()
        }
        .start()
        .await;
        wall.kill();
        let text = std::fs::read_to_string(&wall.config).unwrap();
        let admin_line = text.lines().find(|line| line.starts_with("admin")).unwrap();
        let address = if admin {
            admin_line.split('"').nth(1).unwrap().to_owned()
        } else {
            wall.address.to_string()
        };
        let _occupied = std::net::TcpListener::bind(&address).unwrap();
        let since = Instant::now();
        let output = farewall(&["run", "--config", wall.config.to_str().unwrap()]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(told.contains(&address) && told.contains("in use"), "{told}");
        assert!(!told.contains("panicked"), "{told}");
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_configuration_is_shown_where_it_is() {
    let wall = Wall::start().await;
    let text = std::fs::read_to_string(&wall.config).unwrap();
    let broken = wall.file("broken.toml");
    std::fs::write(
        &broken,
        text.replacen("price = \"$0.001\"", "prcie = \"$0.001\"", 1),
    )
    .unwrap();
    let line = std::fs::read_to_string(&broken).unwrap();
    let line = 1 + line.lines().position(|l| l.starts_with("prcie")).unwrap();
    let output = farewall(&["run", "--config", broken.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains(&format!("broken.toml:{line}:1")), "{told}");
    assert!(told.contains("did you mean `price`?"), "{told}");
    let missing = farewall(&["run", "--config", wall.file("none.toml").to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_tells_health_readiness_and_metrics() {
    let admin = free_address();
    let wall = Setup {
        admin: Some(admin),
        ..Setup::default()
    }
    .start()
    .await;
    let ask = |path: &str| send(client().get(format!("http://{admin}{path}")));
    assert_eq!(ask("/healthz").await.status, 200);
    assert_eq!(ask("/readyz").await.status, 200);
    wall.get("/v1/quote").await;
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    let metrics = ask("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let has = |outcome: &str| {
        let label = format!("outcome=\"{outcome}\"");
        let mut lines = metrics.body.lines();
        lines.any(|l| l.contains("rule=\"quote\"") && l.contains(&label))
    };
    assert!(has("paid"), "{}", metrics.body);
    assert!(!metrics.body.contains(&proof[..24]));
    assert_eq!(
        wall.get("/metrics").await.status,
        404,
        "not on the public listener"
    );
    assert_eq!(
        ask("/v1/quote").await.status,
        404,
        "and no way to the origin"
    );
    assert_eq!(wall.origin.seen().len(), 1);
}

//! Two real walls on one ledger.

use std::collections::HashSet;
use std::time::Duration;

use farewall::sandbox::SandboxOptions;
use reqwest::{Method, RequestBuilder};

use crate::support::wall::farewall;
use crate::support::{
    Answer, Cluster, Setup, Signer, Trial, Wall, client, eventually, offer, send,
};

/// A request as a balancer passes it on: the host is that of the site, whichever wall gets it.
pub fn balanced(method: Method, url: &str, proof: &str) -> RequestBuilder {
    let request = client().request(method, url);
    request
        .header("host", "api.example.com")
        .header("PAYMENT-SIGNATURE", proof)
}

async fn pay(wall: &Wall, path: &str, proof: &str) -> Answer {
    send(balanced(Method::GET, &wall.url(path), proof)).await
}

/// Two walls on one database of this cluster.
pub async fn two_walls(cluster: &Cluster, more: &str, setup: impl Fn(Setup) -> Setup) -> [Wall; 2] {
    cluster.database("ledger");
    let first = setup(cluster.setup("ledger", more)).start().await;
    let second = setup(cluster.setup("ledger", more)).start_beside(&first);
    [first, second]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_copies_of_one_proof_over_two_walls_run_the_upstream_once_and_settle_once() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let trial = Trial::of("copies raced, two walls on PostgreSQL");
    let slow = |setup: Setup| Setup {
        limits: "duplicate_wait_ms = 60000".to_owned(),
        sandbox: SandboxOptions {
            settle_delay: Duration::from_millis(200),
            ..SandboxOptions::default()
        },
        ..setup
    };
    let walls = two_walls(&cluster, "", slow).await;
    let proof = Signer::new().proof(&offer(2000));
    let copies = (0..1000_usize).map(|n| {
        let copy = balanced(Method::GET, &walls[n % 2].url("/v1/slow?ms=200"), &proof);
        tokio::spawn(send(copy))
    });
    let (mut statuses, mut bodies) = (Vec::new(), HashSet::new());
    for copy in copies.collect::<Vec<_>>() {
        let answer = copy.await.unwrap();
        statuses.push(answer.status);
        bodies.insert(answer.body);
    }
    assert_eq!(walls[0].origin.hits("/v1/slow"), 1, "the upstream ran once");
    assert_eq!(walls[0].sandbox.stats().settled, 1);
    assert_eq!(walls[0].sandbox.stats().settle_calls, 1);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(bodies.len(), 1, "all copies got the one answer");
    eventually("delivered", || walls[1].states() == ["delivered"]);
    trial.held(statuses.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_at_the_other_wall_gets_the_kept_response_and_for_anything_else_it_is_spent() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let walls = two_walls(&cluster, "", |setup| setup).await;
    let proof = Signer::new().proof(&offer(2000));
    let post = |wall: &Wall, body: &'static str| {
        balanced(Method::POST, &wall.url("/v1/echo"), &proof).body(body)
    };
    let first = send(post(&walls[0], "work")).await;
    assert_eq!((first.status, first.body.as_str()), (200, "work"));
    let retry = send(post(&walls[1], "work")).await;
    assert_eq!((retry.status, retry.body.as_str()), (200, "work"));
    assert_eq!(retry.header("idempotency-replayed"), Some("true"));
    assert_eq!(retry.receipt(), first.receipt());
    assert_eq!(send(post(&walls[1], "other")).await.status, 402);
    assert_eq!(pay(&walls[1], "/v1/x", &proof).await.status, 402);
    assert_eq!(walls[0].origin.seen().len(), 1);
    assert_eq!(walls[0].sandbox.stats().settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_wall_held_is_taken_over_after_its_lease() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let slow = |setup: Setup| Setup {
        limits: "duplicate_wait_ms = 100".to_owned(),
        ..setup
    };
    let mut walls = two_walls(&cluster, "lease_s = 3", slow).await;
    let proof = Signer::new().proof(&offer(2000));
    let url = walls[0].url("/v1/slow?ms=20000");
    let asking = balanced(Method::GET, &url, &proof);
    let asked = tokio::spawn(asking.send());
    eventually("claimed", || walls[1].states() == ["claimed"]);
    let elsewhere = pay(&walls[1], "/v1/slow?ms=20000", &proof).await;
    assert_eq!(elsewhere.status, 409);
    assert!(elsewhere.header("retry-after").is_some());
    assert_eq!(
        elsewhere.header("payment-required"),
        None,
        "no invitation to pay again"
    );
    walls[0].kill();
    assert!(asked.await.unwrap().is_err());
    assert_eq!(walls[1].states(), ["claimed"], "its lease has not run out");
    eventually("released", || walls[1].states() == ["released"]);
    assert_eq!(walls[1].ledger()[0]["reason"], "wall_lost");
    let answer = pay(&walls[1], "/v1/any", &proof).await;
    assert_eq!(answer.status, 200, "the proof is good again");
    assert_eq!(walls[0].sandbox.stats().settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_nothing_is_sold_and_it_heals_by_itself() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let admin = crate::support::wall::free_address();
    cluster.database("ledger");
    let mut setup = cluster.setup("ledger", "lease_s = 3");
    setup.admin = Some(admin);
    let wall = setup.start().await;
    let ready = || async move {
        let ready = client().get(format!("http://{admin}/readyz"));
        send(ready).await.status
    };
    let proof = || Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof()).await.status, 200);
    assert_eq!(ready().await, 200);
    for round in 0..3 {
        cluster.down();
        let before = wall.origin.hits("/v1/quote");
        let kept = proof();
        let refused = wall.pay("/v1/quote", &kept).await;
        assert_eq!(refused.status, 503, "round {round}");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(refused.header("payment-required"), None);
        assert!(!refused.body.contains("postgres") && !refused.body.contains("127.0.0.1"));
        assert_eq!(ready().await, 503);
        assert_eq!(
            wall.get("/health").await.status,
            200,
            "what is free stays free"
        );
        assert_eq!(wall.origin.hits("/v1/quote"), before, "no work for nothing");
        cluster.up();
        assert_eq!(ready().await, 200);
        assert_eq!(
            wall.pay("/v1/quote", &kept).await.status,
            200,
            "the same proof is good"
        );
    }
    assert_eq!(wall.sandbox.stats().settled, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_under_load_loses_no_payment_and_takes_none_twice() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let mirror = super::kills::Mirror::start().await;
    let walls = two_walls(&cluster, "lease_s = 3", |setup| mirror.setup(setup)).await;
    let load = super::kills::Load::start(&walls, &mirror, 8);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(800)).await;
        cluster.down();
        tokio::time::sleep(Duration::from_millis(400)).await;
        cluster.up();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let bought = load.finish().await;
    assert!(bought.len() > 20, "only {}", bought.len());
    super::kills::check_the_books(&walls, &bought).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_commands_read_it_through_the_configuration_and_show_no_password() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.database("ledger");
    let mut setup = cluster.setup("ledger", "");
    let url = cluster
        .url("ledger")
        .replace("farewall@", "farewall:pa55w0rd@");
    setup.top = format!("ledger = \"{url}\"");
    setup.ledger = None;
    let wall = setup.start().await;
    assert_eq!(
        wall.pay("/v1/quote", &Signer::new().proof(&offer(1000)))
            .await
            .status,
        200
    );
    eventually("delivered", || wall.states() == ["delivered"]);
    let config = wall.config.to_str().unwrap();
    let run = |args: &[&str]| {
        let output = farewall(&[&["ledger"], args, &["--config", config]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        assert!(!text.contains("pa55w0rd") && !told.contains("pa55w0rd"));
        text
    };
    assert!(run(&["list"]).contains("0.001 USDC"));
    assert!(run(&["list"]).contains("delivered"));
    assert!(run(&["show", "1"]).contains("transaction"));
    let payment: serde_json::Value =
        serde_json::from_str(&run(&["list", "--format", "json"])).unwrap();
    let payment = payment[0]["payment"].as_str().unwrap().to_owned();
    assert!(run(&["show", &payment[..10]]).contains(&payment));
    assert!(run(&["owed"]).contains("No claims"));
    assert_eq!(run(&["export"]).lines().count(), 2);
    assert!(!wall.log().contains("pa55w0rd"));
    cluster.down();
    let output = farewall(&["ledger", "list", "--config", config]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("127.0.0.1") && !told.contains("pa55w0rd"));
}

//! A running wall takes over a changed configuration: whole or not at all, and nobody notices who is
//! being served.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use farewall::sandbox::{Misbehaviour, Misdeed, Scope};
use reqwest::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::http2::Http2;
use crate::support::protocol::Say;
use crate::support::raw::read_response;
use crate::support::wall::{RULES, farewall};
use crate::support::{Origin, Setup, Signer, Wall, eventually, offer, send};

impl Wall {
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from} is not in\n{text}");
        std::fs::write(&self.config, text.replacen(from, to, 1)).unwrap();
    }

    fn reload(&self) -> Output {
        farewall(&["reload", self.config.to_str().unwrap()])
    }

    #[track_caller]
    fn reloaded(&self) -> String {
        let output = self.reload();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{told}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self) -> String {
        let output = self.reload();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }

    fn hang_up(&self) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status();
        assert!(sent.unwrap().success());
    }

    async fn price(&self, path: &str) -> String {
        let challenge = self.get(path).await.challenge();
        challenge["accepts"][0]["amount"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_price_is_taken_over_and_told_and_the_old_one_honoured() {
    let mut wall = Wall::start().await;
    assert_eq!(wall.price("/v1/quote").await, "1000");
    let old = Signer::new().proof(&offer(1000));
    wall.edit("price = \"$0.001\"", "price = \"$0.005\"");
    let told = wall.reloaded();
    assert!(
        told.contains("dearer     rule \"quote\": price 0.001 USDC"),
        "{told}"
    );
    assert!(wall.log().contains("the configuration was reloaded"));
    assert!(wall.log().contains("rule \\\"quote\\\": price 0.001 USDC"));
    assert_eq!(wall.price("/v1/quote").await, "5000");
    let answer = wall.pay("/v1/quote", &old).await;
    assert_eq!(answer.status, 200, "the challenge was good for 300 seconds");
    let elsewhere = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/other", &elsewhere).await.status, 402);
    let new = Signer::new().proof(&offer(5000));
    assert_eq!(wall.pay("/v1/quote", &new).await.status, 200);
    let amounts: Vec<_> = wall
        .ledger()
        .iter()
        .map(|r| r["amount_atomic"].clone())
        .collect();
    assert_eq!(amounts, ["5000", "1000"]);
    assert!(wall.reloaded().contains("nothing has changed"));
    wall.kill();
    wall.restart(); // on the socket that the crash left behind
    wall.edit("price = \"$0.005\"", "price = \"$0.001\"");
    assert!(wall.reloaded().contains("cheaper"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_leaves_everything_as_it_was() {
    let wall = Wall::start().await;
    wall.edit("price = \"$0.001\"", "prcie = \"$0.001\"");
    let text = std::fs::read_to_string(&wall.config).unwrap();
    let line = 1 + text.lines().position(|l| l.starts_with("prcie")).unwrap();
    let told = wall.refused();
    assert!(told.contains(&format!("farewall.toml:{line}:1")), "{told}");
    assert!(told.contains("did you mean `price`?"), "{told}");
    let logged = || wall.log().matches("was not reloaded").count();
    assert_eq!(logged(), 1);
    wall.hang_up();
    eventually("the signal is heard", || logged() == 2);
    assert!(wall.log().contains(&format!("farewall.toml:{line}:1")));
    assert_eq!(wall.price("/v1/quote").await, "1000");
    // A file that is no TOML does not say where its wall listens.
    wall.edit("[[rule]]", "[[rule");
    let config = wall.config.to_str().unwrap();
    let output = farewall(&["reload", config]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error["));
    let control = wall.file("ledger.db.control");
    let output = farewall(&["reload", config, "--control", control.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error["));
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_refused_whole() {
    let wall = Wall::start().await;
    wall.edit("worker_threads = 2", "worker_threads = 3");
    wall.edit("price = \"$0.001\"", "price = \"$0.005\"");
    let told = wall.refused();
    assert!(
        told.contains("`server.worker_threads` has changed"),
        "{told}"
    );
    assert!(told.contains("worker_threads = 3"), "its line: {told}");
    assert_eq!(wall.price("/v1/quote").await, "1000");
    let broken = wall.file("nowhere.toml");
    std::fs::write(&broken, "[ledger]\npath = \"nowhere.db\"").unwrap();
    let output = farewall(&["reload", broken.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4), "no wall runs that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_the_price_and_the_upstream_that_it_began_with() {
    let wall = Wall::start().await;
    let other = Origin::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let request = wall
        .request(Method::GET, "/v1/slow?ms=1500")
        .header("PAYMENT-SIGNATURE", proof);
    let under_way = tokio::spawn(send(request));
    eventually("the origin works", || wall.origin.hits("/v1/slow") == 1);
    let (was, is) = (wall.origin.address.to_string(), other.address.to_string());
    wall.edit(&was, &is);
    wall.edit("price = \"$0.002\"", "price = \"$0.009\"");
    assert!(wall.reloaded().contains("repointed  upstream \"api\""));
    assert_eq!(wall.get("/health").await.status, 200);
    assert_eq!((wall.origin.hits("/health"), other.hits("/health")), (0, 1));
    let answer = under_way.await.unwrap();
    assert_eq!(
        (answer.status, answer.receipt()["success"].as_bool()),
        (200, Some(true))
    );
    assert_eq!(wall.ledger()[0]["amount_atomic"], "2000");
    assert_eq!(other.hits("/v1/slow"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_gone_is_not_looked_at_any_more_and_one_that_stays_keeps_its_health() {
    let wall = Setup {
        upstream: "health = { path = \"/up\", interval_ms = 50 }".to_owned(),
        ..Setup::default()
    }
    .start()
    .await;
    let other = Origin::start().await;
    eventually("it is looked at", || wall.origin.hits("/up") >= 3);
    wall.edit("price = \"$0.001\"", "price = \"$0.005\"");
    wall.reloaded();
    let before = wall.origin.hits("/up");
    eventually("it still is", || wall.origin.hits("/up") >= before + 3);
    let (was, is) = (wall.origin.address.to_string(), other.address.to_string());
    wall.edit(&was, &is);
    wall.reloaded();
    eventually("the other one is", || other.hits("/up") >= 3);
    let (last, then) = (wall.origin.hits("/up"), other.hits("/up"));
    eventually("many times", || other.hits("/up") >= then + 10);
    assert!(
        wall.origin.hits("/up") <= last + 1,
        "one look may have been under way"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_facilitator_that_is_removed_is_asked_until_its_settlements_are_known() {
    let wall = Setup {
        facilitator: "settle_timeout_ms = 500".to_owned(),
        second_facilitator_url: Some("http://127.0.0.1:9".to_owned()),
        ..Setup::default()
    }
    .start()
    .await;
    let hang = Misbehaviour {
        kind: Misdeed::Hang { ms: 600_000 },
        scope: Scope::Settle,
        times: 2,
    };
    wall.sandbox.misbehave(hang);
    let proof = Signer::new().proof(&offer(1000));
    let unknown = wall.pay("/v1/quote", &proof).await;
    assert_eq!(
        (unknown.status, unknown.error().as_str()),
        (503, "settlement_unknown")
    );
    let text = std::fs::read_to_string(&wall.config).unwrap();
    let from = text.find("[facilitator.sandbox]").unwrap();
    let to = text.find("[facilitator.second]").unwrap();
    let text = text.replacen(&text[from..to], "", 1);
    let text = text.replacen("\"sandbox\", \"second\"", "\"second\"", 1);
    std::fs::write(&wall.config, text).unwrap();
    wall.reloaded();
    assert_eq!(wall.states(), ["settling"]);
    eventually("the reconciler asks it again", || {
        wall.states() == ["settled"]
    });
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    assert_eq!(wall.sandbox.stats().settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hang_ups_in_a_row_end_with_the_last_configuration() {
    let wall = Wall::start().await;
    let mut was = "price = \"$0.001\"".to_owned();
    for n in 2..30 {
        let is = format!("price = \"$0.0{n:02}\"");
        wall.edit(&was, &is);
        wall.hang_up();
        was = is;
    }
    for _ in 0..500 {
        if wall.price("/v1/quote").await == "29000" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("never the last price");
}

/// What one client on one connection has seen.
#[derive(Default)]
struct Seen {
    free: AtomicUsize,
    shadow: AtomicUsize,
    required: AtomicUsize,
}

impl Seen {
    fn count(&self, status: u16, shadow: Option<&str>) {
        let counter = match (status, shadow) {
            (200, None) => &self.free,
            (200, Some(told)) => {
                assert!(
                    told.starts_with("outcome=payment_required, rule=\"quote\""),
                    "{told}"
                );
                &self.shadow
            }
            (402, None) => &self.required,
            other => panic!("{other:?}"),
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }

    fn counts(&self) -> [usize; 3] {
        [&self.free, &self.shadow, &self.required].map(|n| n.load(Ordering::SeqCst))
    }
}

async fn http1_load(wall: std::net::SocketAddr, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let mut stream = TcpStream::connect(wall).await.unwrap();
    while !stop.load(Ordering::SeqCst) {
        let request = b"GET /v1/quote HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let answer = read_response(&mut stream, false).await;
        seen.count(answer.status, answer.header("farewall-shadow"));
    }
}

async fn http2_load(connection: Http2, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let request = Say::new("GET", "/v1/quote").request("http");
        let answer = connection.send(request).await.unwrap();
        seen.count(answer.status, answer.header("farewall-shadow"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_goes_from_free_to_shadow_to_paid_and_no_connection_is_dropped() {
    let free = "[[rule]]\nname = \"quote\"\npath = \"/v1/quote\"\nfree = true\n";
    let setup = Setup {
        listen: "h2c = true".to_owned(),
        ..Setup::rules(free)
    };
    let wall = setup.start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let seen: [Arc<Seen>; 2] = Default::default();
    let first = http1_load(wall.address, Arc::clone(&seen[0]), Arc::clone(&stop));
    let connection = Http2::plain(wall.address).await;
    let second = http2_load(connection, Arc::clone(&seen[1]), Arc::clone(&stop));
    let clients = [tokio::spawn(first), tokio::spawn(second)];
    let both = |nth: usize| seen.iter().all(|seen| seen.counts()[nth] >= 20);
    eventually("served for nothing", || both(0));
    wall.edit("free = true", "price = \"$0.001\"\nshadow = true");
    assert!(wall.reloaded().contains("shadow     rule \"quote\""));
    eventually("told what it would cost", || both(1));
    assert!(wall.ledger().is_empty(), "nothing is written down");
    wall.edit("shadow = true", "");
    assert!(wall.reloaded().contains("dearer     rule \"quote\""));
    eventually("402", || both(2));
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_rule_in_shadow_is_refused_or_charged() {
    let rules = RULES.replacen("price = \"$0.001\"", "price = \"$0.001\"\nshadow = true", 1);
    let wall = Setup {
        facilitator_url: Some("http://127.0.0.1:9".to_owned()),
        ..Setup::rules(&rules)
    }
    .start()
    .await;
    let told = |answer: &crate::support::Answer| {
        answer
            .header("farewall-shadow")
            .unwrap_or("nothing")
            .to_owned()
    };
    let unpaid = wall.get("/v1/quote").await;
    assert_eq!(unpaid.status, 200);
    assert_eq!(
        told(&unpaid),
        "outcome=payment_required, rule=\"quote\", price=(\"0.001 USDC\";amount=\"1000\";\
         network=\"eip155:84532\";asset=\"0x036CbD53842c5426634e7929541eC2318f3dCF7e\")"
    );
    let proof = Signer::new().proof(&offer(1000));
    let paid = wall.pay("/v1/quote", &proof).await;
    assert!(paid.status == 200 && told(&paid).starts_with("outcome=proof_good"));
    assert_eq!(paid.header("payment-response"), None);
    assert_eq!(wall.origin.last().header("payment-signature"), None);
    let bad = wall.pay("/v1/quote", "e30=").await;
    assert!(bad.status == 200 && told(&bad).starts_with("outcome=proof_refused"));
    assert!(wall.ledger().is_empty());
    for (path, status) in [
        ("/v1/other", 402),
        ("/admin/x", 403),
        ("/v1//quote", 400),
        ("/x", 404),
    ] {
        let answer = wall.get(path).await;
        assert_eq!(
            (answer.status, told(&answer).as_str()),
            (status, "nothing"),
            "{path}"
        );
    }
    let config = wall.config.to_str().unwrap();
    let checked = farewall(&["check", "--config", config]);
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains("rule \"quote\" is in shadow"), "{text}");
    let explained = farewall(&["explain", "GET", "/v1/quote", "--config", config]);
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(text.contains("has a price, and is in shadow"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_in_shadow_lets_everything_through_but_what_is_denied_or_unsafe() {
    let wall = Setup {
        server: "shadow = true".to_owned(),
        ..Setup::default()
    }
    .start()
    .await;
    for (path, told) in [
        ("/v1/quote", Some("payment_required")),
        ("/before/leaky", Some("payment_required")),
        ("/nobody/knows", Some("no_such_route")),
        ("/health", None),
    ] {
        let answer = wall.get(path).await;
        let shadow = answer.header("farewall-shadow").map(str::to_owned);
        let outcome = shadow.as_deref().and_then(|s| s.strip_prefix("outcome="));
        let outcome = outcome.and_then(|s| s.split(',').next());
        assert_eq!((answer.status, outcome), (200, told), "{path}");
    }
    assert_eq!(wall.get("/admin/x").await.status, 403);
    assert_eq!(wall.get("/v1//quote").await.status, 400);
    assert!(wall.log().contains("shadow_no_such_route"));
    assert!(wall.ledger().is_empty());
}

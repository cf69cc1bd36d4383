//! Settlements whose answer is lost, until they are known: with a chain to ask, and without.

#[path = "../../src/chain_rpc/fake.rs"]
pub mod fake;

use alloy_primitives::{Address, B256};
use farewall::clock::UnixSeconds;
use farewall::money::AtomicAmount;
use farewall::sandbox::{Misbehaviour, Misdeed, Sandbox, SandboxOptions, Scope};
use farewall::x402::eip3009::Authorization;
use reqwest::Method;
use serde_json::{Value, json};

use self::fake::FakeChain;
use crate::support::wall::farewall;
use crate::support::{Setup, Signer, Wall, buyer, encode, eventually, offer, send};

const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
pub const HEAD: u64 = 5000;

/// Settles, loses the answer, and then knows of nothing: what a real facilitator does.
pub fn lose_answers(wall: &Wall, times: u64) {
    for kind in [
        Misdeed::LoseAnswerAfterSettling,
        Misdeed::Status { status: 500 },
    ] {
        wall.sandbox.misbehave(Misbehaviour {
            times: if matches!(kind, Misdeed::Status { .. }) {
                times
            } else {
                1
            },
            kind,
            scope: Scope::Settle,
        });
    }
}

pub struct Payment {
    pub proof: String,
    pub from: Address,
    pub nonce: B256,
}

/// A payment of this many units that can be settled for so many seconds.
pub fn payment(units: u64, valid_s: u64) -> Payment {
    let (signer, offer) = (Signer::new(), offer(units));
    let nonce = B256::from(rand::random::<[u8; 32]>());
    let authorization = Authorization::new(
        signer.address,
        buyer::PAY_TO.parse().unwrap(),
        AtomicAmount::new(units.into()),
        UnixSeconds(buyer::now() - 600),
        UnixSeconds(buyer::now() + valid_s),
        nonce,
    );
    let payload = signer.payload(&offer, &authorization);
    let proof = json!({ "x402Version": 2, "payload": payload, "accepted": offer.0 });
    Payment {
        proof: encode(&proof),
        from: signer.address,
        nonce,
    }
}

/// The chain has it: used, and paid to the wall's account, or to this one.
pub fn mined(chain: &FakeChain, payment: &Payment, to: Option<Address>, units: u64) -> String {
    let to = to.unwrap_or(buyer::PAY_TO.parse().unwrap());
    let route = (USDC.parse().unwrap(), payment.from, to);
    chain
        .settle(HEAD - 5, route, units, payment.nonce)
        .to_string()
}

pub async fn chain() -> FakeChain {
    FakeChain::start(84_532, buyer::now(), HEAD).await
}

async fn wall_with(chain: &FakeChain) -> Wall {
    let network = format!("[network.base-sepolia]\nrpc_url = \"{}\"\n", chain.url());
    let rules = format!("{}\n{network}", crate::support::wall::RULES);
    Setup::rules(&rules).start().await
}

/// With a second facilitator, and both of them failing for now.
async fn wall_with_two(chain: &FakeChain) -> (Wall, Sandbox) {
    let second = Sandbox::new(SandboxOptions::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = second.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let network = format!("[network.base-sepolia]\nrpc_url = \"{}\"\n", chain.url());
    let setup = Setup {
        second_facilitator_url: Some(url),
        ..Setup::rules(&format!("{}\n{network}", crate::support::wall::RULES))
    };
    let wall = setup.start().await;
    for sandbox in [&wall.sandbox, &second] {
        sandbox.misbehave(Misbehaviour {
            kind: Misdeed::Status { status: 500 },
            scope: Scope::Settle,
            times: 999,
        });
    }
    (wall, second)
}

#[track_caller]
pub fn command(wall: &Wall, args: &[&str]) -> (Option<i32>, Value) {
    let config = wall.config.to_str().unwrap();
    let output = farewall(&[args, &["--config", config]].concat());
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), value)
}

#[track_caller]
pub fn ids(wall: &Wall, which: &str) -> Vec<i64> {
    let (_, list) = command(wall, &["ledger", which, "--format", "json"]);
    let list = list.as_array().unwrap();
    list.iter().map(|r| r["id"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_chain_says_is_paid_is_collected_by_the_same_proof() {
    let chain = chain().await;
    let wall = wall_with(&chain).await;
    lose_answers(&wall, 99);
    let payment = payment(1000, 300);
    let lost = wall.pay("/v1/quote", &payment.proof).await;
    assert_eq!(
        (lost.status, lost.error().as_str()),
        (503, "settlement_unknown")
    );
    assert_eq!(ids(&wall, "unknown"), [1]);
    let transaction = mined(&chain, &payment, None, 1000);
    eventually("settled", || wall.states() == ["settled"]);
    let collected = wall.pay("/v1/quote", &payment.proof).await;
    assert_eq!(collected.status, 200, "{}", collected.body);
    let receipt = collected.receipt();
    assert_eq!(receipt["transaction"], transaction.as_str());
    assert_eq!(
        (&receipt["success"], &receipt["network"]),
        (&json!(true), &json!("eip155:84532"))
    );
    assert_eq!(receipt["payer"], payment.from.to_checksum(None));
    assert_eq!(wall.origin.hits("/v1/quote"), 1, "the kept response");
    assert_eq!(wall.sandbox.stats().settled, 1);
    eventually("delivered", || wall.states() == ["delivered"]);
    assert!(ids(&wall, "unknown").is_empty() && ids(&wall, "owed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_safe_method_is_asked_again_and_an_unsafe_one_is_a_debt() {
    let chain = chain().await;
    let mut wall = wall_with(&chain).await;
    lose_answers(&wall, 1);
    let get = payment(2000, 300);
    assert_eq!(wall.pay("/v1/thing", &get.proof).await.status, 503);
    wall.sandbox.behave();
    lose_answers(&wall, 1);
    let post = payment(2000, 300);
    let ask = |wall: &Wall| {
        wall.request(Method::POST, "/v1/echo")
            .header("PAYMENT-SIGNATURE", &post.proof)
            .body("work")
    };
    assert_eq!(send(ask(&wall)).await.status, 503);
    wall.kill();
    mined(&chain, &get, None, 2000);
    let transaction = mined(&chain, &post, None, 2000);
    wall.restart();
    eventually("both settled", || wall.states() == ["settled", "settled"]);

    let served = wall.pay("/v1/thing", &get.proof).await;
    assert_eq!(served.status, 200, "{}", served.body);
    assert_eq!(wall.origin.hits("/v1/thing"), 2, "asked again");

    let lost = send(ask(&wall)).await;
    assert_eq!(
        (lost.status, lost.error().as_str()),
        (409, "paid_response_lost")
    );
    assert_eq!(lost.receipt()["transaction"], transaction.as_str());
    assert_eq!(wall.origin.hits("/v1/echo"), 1, "never repeated");
    eventually("one delivered", || {
        wall.states() == ["settled", "delivered"]
    });
    assert_eq!(ids(&wall, "owed"), [2]);

    let mark = ["ledger", "mark", "2", "--refunded", "--note", "by hand"];
    assert_eq!(command(&wall, &mark).0, Some(0), "beside the wall");
    assert!(ids(&wall, "owed").is_empty());
    let closed = send(ask(&wall)).await;
    assert_eq!(
        (closed.status, closed.reason().as_str()),
        (402, "payment_already_used")
    );
    assert_eq!(
        wall.states(),
        ["settled", "delivered"],
        "marking moves nothing"
    );
    assert_eq!(wall.sandbox.stats().settled, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_chain_says_went_elsewhere_is_refused_and_served_to_nobody() {
    let chain = chain().await;
    let wall = wall_with(&chain).await;
    for (n, reason) in ["authorization_used_elsewhere", "authorization_cancelled"]
        .into_iter()
        .enumerate()
    {
        wall.sandbox.misbehave(Misbehaviour {
            kind: Misdeed::Status { status: 500 },
            scope: Scope::Settle,
            times: 99,
        });
        let payment = payment(1000, 300);
        assert_eq!(wall.pay("/v1/quote", &payment.proof).await.status, 503);
        match n {
            0 => drop(mined(&chain, &payment, Some(Address::repeat_byte(7)), 1000)),
            _ => chain.cancel(HEAD - 5, USDC.parse().unwrap(), payment.from, payment.nonce),
        }
        eventually("refused", || wall.states()[0] == "refused");
        assert_eq!(wall.ledger()[0]["reason"], reason);
        wall.sandbox.behave();
    }
    assert_eq!(wall.sandbox.stats().settled, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_ran_out_unused_is_expired_and_needs_nobody() {
    let chain = chain().await;
    let wall = wall_with(&chain).await;
    wall.sandbox.misbehave(Misbehaviour {
        kind: Misdeed::Status { status: 500 },
        scope: Scope::Settle,
        times: 99,
    });
    let payment = payment(1000, 8);
    assert_eq!(wall.pay("/v1/quote", &payment.proof).await.status, 503);
    chain.with(|script| script.head += 60);
    eventually("expired", || wall.states() == ["expired"]);
    assert_eq!(wall.ledger()[0]["reason"], "authorization_never_used");
    assert!(ids(&wall, "unknown").is_empty(), "nobody needs to look");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_chain_does_not_answer_it_stays_unknown_and_the_proof_good_beyond_its_end() {
    let chain = chain().await;
    chain.with(|script| script.broken = Some(502));
    let wall = wall_with(&chain).await;
    lose_answers(&wall, 99);
    let payment = payment(1000, 8);
    assert_eq!(wall.pay("/v1/quote", &payment.proof).await.status, 503);
    let end = buyer::now() + 9;
    while buyer::now() <= end {
        let answer = wall.pay("/v1/quote", &payment.proof).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (503, "settlement_unknown"),
            "no invitation to pay again, also after validBefore"
        );
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let stranger = self::payment(1000, 0);
    assert_eq!(wall.pay("/v1/quote", &stranger.proof).await.status, 402);
    let transaction = mined(&chain, &payment, None, 1000);
    chain.with(|script| script.broken = None);
    eventually("settled", || wall.states() == ["settled"]);
    let collected = wall.pay("/v1/quote", &payment.proof).await;
    assert_eq!(collected.status, 200, "{}", collected.body);
    assert_eq!(collected.receipt()["transaction"], transaction.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_chain_a_used_nonce_stays_unknown() {
    let wall = Wall::start().await;
    lose_answers(&wall, 0);
    let payment = payment(1000, 300);
    assert_eq!(wall.pay("/v1/quote", &payment.proof).await.status, 503);
    eventually("asked again, twice", || {
        wall.sandbox.stats().settle_calls >= 3
    });
    assert!(wall.log().contains("which proves nothing"));
    assert_eq!(wall.states(), ["settling"]);
    let answer = wall.pay("/v1/quote", &payment.proof).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (503, "settlement_unknown")
    );
    assert_eq!(wall.sandbox.stats().settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chain_behind_the_url_is_believed_nothing() {
    let chain = FakeChain::start(1, buyer::now(), HEAD).await;
    let wall = wall_with(&chain).await;
    lose_answers(&wall, 99);
    let payment = payment(1000, 300);
    assert_eq!(wall.pay("/v1/quote", &payment.proof).await.status, 503);
    mined(&chain, &payment, None, 1000);
    eventually("asked", || wall.log().contains("serves chain 1, not 84532"));
    assert_eq!(wall.states(), ["settling"]);
    assert!(!wall.log().contains(&chain.url()), "the URL is a secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pass_by_hand_says_what_it_found_and_leaves_young_claims_alone() {
    let chain = chain().await;
    let network = format!("[network.base-sepolia]\nrpc_url = \"{}\"\n", chain.url());
    let setup = Setup {
        facilitator: "settle_timeout_ms = 1000".to_owned(),
        ..Setup::rules(&format!("{}\n{network}", crate::support::wall::RULES))
    };
    let mut wall = setup.start().await;
    lose_answers(&wall, 99);
    let payment = payment(1000, 300);
    assert_eq!(wall.pay("/v1/quote", &payment.proof).await.status, 503);
    wall.kill();
    let transaction = mined(&chain, &payment, None, 1000);
    let reconcile = ["ledger", "reconcile", "--format", "json"];
    let (code, rows) = command(&wall, &reconcile);
    assert_eq!((code, &rows[0]["state"]), (Some(1), &json!("settling")));
    let found = rows[0]["found"].as_str().unwrap();
    assert!(found.starts_with("left alone"), "{found}");
    eventually("old enough", || command(&wall, &reconcile).0 == Some(0));
    assert_eq!(wall.states(), ["settled"]);
    assert_eq!(wall.ledger()[0]["transaction"], transaction.as_str());
    assert_eq!(command(&wall, &reconcile), (Some(0), json!([])));
    wall.restart();
    assert_eq!(wall.pay("/v1/quote", &payment.proof).await.status, 200);
    let settle_calls = wall.sandbox.stats().settle_calls;
    assert!(settle_calls <= 3, "{settle_calls}: the chain knew");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_chain_does_not_know_goes_to_the_next_facilitator_and_is_paid_once() {
    let chain = chain().await;
    let (wall, second) = wall_with_two(&chain).await;
    let payment = payment(1000, 300);
    assert_eq!(wall.pay("/v1/quote", &payment.proof).await.status, 503);
    eventually("asked again", || wall.sandbox.stats().settle_calls >= 2);
    assert_eq!(second.stats().settle_calls, 0, "the first has its turn");
    second.behave();
    chain.with(|script| script.head += 60);
    eventually("settled", || wall.states() == ["settled"]);
    let settled = &wall.ledger()[0];
    assert_eq!(settled["facilitator"], "second");
    wall.sandbox.behave();
    let collected = wall.pay("/v1/quote", &payment.proof).await;
    assert_eq!(collected.status, 200, "{}", collected.body);
    assert_eq!(collected.receipt()["transaction"], settled["transaction"]);
    assert_eq!(
        (wall.sandbox.stats().settled, second.stats().settled),
        (0, 1)
    );
    assert_eq!(wall.origin.hits("/v1/quote"), 1, "the kept response");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_the_first_facilitator_that_lands_late_is_the_one_payment() {
    let chain = chain().await;
    let (wall, second) = wall_with_two(&chain).await;
    let payment = payment(1000, 300);
    assert_eq!(wall.pay("/v1/quote", &payment.proof).await.status, 503);
    chain.with(|script| script.head += 60);
    eventually("the second is asked", || second.stats().settle_calls > 0);
    assert_eq!(
        wall.ledger()[0]["facilitator"],
        "second",
        "on record before"
    );
    let transaction = mined(&chain, &payment, None, 1000);
    eventually("settled", || wall.states() == ["settled"]);
    assert_eq!(wall.ledger()[0]["transaction"], transaction.as_str());
    let collected = wall.pay("/v1/quote", &payment.proof).await;
    assert_eq!(collected.status, 200, "{}", collected.body);
    assert_eq!(collected.receipt()["transaction"], transaction.as_str());
    assert_eq!(
        (wall.sandbox.stats().settled, second.stats().settled),
        (0, 0)
    );
    let transfers = chain.with(|script| script.used.len());
    assert_eq!(transfers, 1);
    let again = self::payment(1000, 300);
    assert_eq!(
        wall.pay("/v1/quote", &again.proof).await.status,
        503,
        "another payment"
    );
}

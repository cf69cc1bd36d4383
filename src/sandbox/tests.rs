#![expect(
    clippy::arithmetic_side_effects,
    reason = "small numbers, and an overflow would fail the test"
)]

mod judging;

use std::path::PathBuf;

use alloy_primitives::{U256, address, hex};
use secp256k1::SecretKey;
use serde_json::{Value, json};

use super::*;
use crate::clock::UnixSeconds;
use crate::config::settings::{EndpointHeaders, FacilitatorSettings};
use crate::facilitator::http::HttpFacilitator;
use crate::facilitator::{
    Facilitator, FacilitatorFault, FacilitatorRequest, SettleAnswer, VerifyAnswer,
};
use crate::x402::{eip712, eip3009, header, permit2};

const NOW: UnixSeconds = UnixSeconds(1_760_000_000);
const USDC: Address = address!("0x036CbD53842c5426634e7929541eC2318f3dCF7e");
const SELLER: Address = address!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8");
const CHAIN: u64 = 84_532;
const PRICE: u128 = 10_000;

/// The public development key 0 of anvil.
fn key() -> SecretKey {
    let bytes = hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
    SecretKey::from_byte_array(bytes).unwrap()
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> UnixSeconds {
        NOW
    }
}

fn network() -> Network {
    Network::parse_caip2("eip155:84532").unwrap()
}

fn nonce(n: u64) -> B256 {
    U256::from(n).into()
}

fn requirement() -> Value {
    json!({
        "scheme": "exact", "network": "eip155:84532", "amount": PRICE.to_string(),
        "asset": USDC.to_checksum(None), "payTo": SELLER.to_checksum(None),
        "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2"},
    })
}

/// What is signed, to be varied.
#[derive(Clone, Copy)]
struct Terms {
    to: Address,
    value: u128,
    valid_after: u64,
    valid_before: u64,
    nonce: B256,
}

const GOOD: Terms = Terms {
    to: SELLER,
    value: PRICE,
    valid_after: NOW.0,
    valid_before: NOW.0 + 6,
    nonce: B256::ZERO,
};

fn eip3009_payload(terms: Terms) -> Value {
    let authorization = eip3009::Authorization::new(
        eip712::address_of(&key()),
        terms.to,
        AtomicAmount::new(terms.value),
        UnixSeconds(terms.valid_after),
        UnixSeconds(terms.valid_before),
        terms.nonce,
    );
    let domain = eip712::domain_separator("USDC", Some("2"), CHAIN, USDC);
    let signature = eip712::sign(authorization.digest(domain), &key());
    authorization.to_payload(&signature).into()
}

fn permit2_payload(terms: Terms, token: Address) -> Value {
    let authorization = permit2::Authorization::exact(
        eip712::address_of(&key()),
        (token, AtomicAmount::new(terms.value)),
        terms.to,
        UnixSeconds(terms.valid_after),
        UnixSeconds(terms.valid_before),
        terms.nonce.into(),
    );
    let digest = authorization.digest(permit2::domain(CHAIN));
    let signature = eip712::sign(digest, &key());
    authorization.to_payload(&signature).into()
}

fn body(payload: Value, requirement: Value) -> Value {
    json!({
        "x402Version": 2,
        "paymentPayload": {"x402Version": 2, "payload": payload, "accepted": requirement},
        "paymentRequirements": requirement,
    })
}

fn good(n: u64) -> Value {
    let nonce = nonce(n);
    body(eip3009_payload(Terms { nonce, ..GOOD }), requirement())
}

fn transfer(n: u64, amount: u128) -> check::Transfer {
    let value = amount;
    let nonce = nonce(n);
    let payload = eip3009_payload(Terms {
        nonce,
        value,
        ..GOOD
    });
    let mut requirement = requirement();
    requirement["amount"] = json!(amount.to_string());
    let request = body(payload, requirement).to_string();
    check::judge(&Submitted::parse(request.as_bytes()).unwrap(), NOW).unwrap()
}

#[test]
fn money_is_moved_once_and_never_made() {
    let mut book = Book::new(1);
    let all = book.transfer(&transfer(1, 600_000));
    assert_eq!(all.unwrap(), format!("0x73616e64626f78{}1", "0".repeat(49)));
    let again = book.transfer(&transfer(1, 600_000));
    assert_eq!(again, Err("invalid_exact_evm_nonce_already_used"));
    let poor = book.transfer(&transfer(2, 400_001));
    assert_eq!(poor, Err("invalid_exact_evm_insufficient_balance"));
    assert!(
        book.transfer(&transfer(2, 400_000)).is_ok(),
        "a failure spends no nonce"
    );
    let sum: u128 = book.accounts().map(|(_, units)| units.units()).sum();
    assert_eq!(
        sum, 2_000_000,
        "two accounts that started with one token each"
    );
    assert_eq!(book.settled(nonce(1)), 1);
}

#[test]
fn a_permit2_nonce_is_spent_for_all_tokens_and_an_eip3009_nonce_for_one() {
    let spent = |space| {
        let mut first = transfer(1, 1);
        first.nonce.space = space;
        let mut second = first.clone();
        second.asset = Address::repeat_byte(3);
        let mut book = Book::new(1);
        book.transfer(&first).unwrap();
        book.transfer(&second).err()
    };
    use crate::chain::NonceSpace;
    assert_eq!(spent(NonceSpace::Permit2), Some("permit2_invalid_nonce"));
    assert_eq!(spent(NonceSpace::Eip3009), None);
}

#[test]
fn strangers_cannot_make_the_book_grow_without_end() {
    let mut full_of_nonces = Book::new(1).limited(10, 1);
    full_of_nonces.transfer(&transfer(1, 1)).unwrap();
    assert_eq!(
        full_of_nonces.transfer(&transfer(2, 1)),
        Err("sandbox_full")
    );
    let mut full_of_accounts = Book::new(1).limited(2, 10);
    full_of_accounts.transfer(&transfer(1, 1)).unwrap();
    assert!(
        full_of_accounts.transfer(&transfer(2, 1)).is_ok(),
        "known accounts"
    );
    let mut stranger = transfer(3, 1);
    stranger.to = Address::repeat_byte(9);
    assert_eq!(full_of_accounts.transfer(&stranger), Err("sandbox_full"));
    assert_eq!(full_of_accounts.settled(nonce(3)), 0);
}

/// A sandbox on a socket, and the wall's own client for it.
async fn start(options: SandboxOptions) -> (Sandbox, Arc<HttpFacilitator>, String) {
    let sandbox = Sandbox::new(SandboxOptions {
        clock: Arc::new(Fixed),
        ..options
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = sandbox.clone();
    tokio::spawn(async move { server.serve(listener).await });
    let settings = FacilitatorSettings {
        name: "sandbox".into(),
        url: url.clone(),
        sandbox: true,
        connect_timeout: Duration::from_secs(2),
        verify_timeout: Duration::from_secs(5),
        settle_timeout: Duration::from_secs(5),
        calls_max: 64,
        answer_bytes_max: 65_536,
        headers: EndpointHeaders::default(),
        supported_cache: PathBuf::new(),
        verify_retries: 0,
        breaker_failures: 10,
        breaker_open: Duration::from_secs(5),
    };
    let client = HttpFacilitator::new(&settings, None).unwrap();
    (sandbox, Arc::new(client), url)
}

fn request(body: &Value) -> FacilitatorRequest {
    let body = body.to_string().into();
    FacilitatorRequest { body }
}

async fn settle(client: &HttpFacilitator, body: &Value) -> String {
    match client.settle(&request(body)).await {
        SettleAnswer::Settled(_) => "settled".to_owned(),
        SettleAnswer::Refused(receipt) => receipt.error_reason.unwrap(),
        SettleAnswer::Unknown(fault) | SettleAnswer::NotSent(fault) => format!("{fault}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walls_client_verifies_and_settles_once() {
    let (sandbox, client, _) = start(SandboxOptions::default()).await;
    let payer = eip712::address_of(&key());
    let verdict = client.verify(&request(&good(7))).await;
    let VerifyAnswer::Valid { payer: named } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(named, Some(payer.to_checksum(None)));
    let SettleAnswer::Settled(receipt) = client.settle(&request(&good(7))).await else {
        panic!("not settled");
    };
    assert!(receipt.transaction.starts_with("0x73616e64626f780000"));
    assert_eq!(receipt.transaction.len(), 66);
    assert_eq!(receipt.network, "eip155:84532");
    assert_eq!(receipt.payer, Some(payer.to_checksum(None)));
    assert_eq!(
        settle(&client, &good(7)).await,
        "invalid_exact_evm_nonce_already_used"
    );
    let verdict = client.verify(&request(&good(7))).await;
    assert!(matches!(verdict, VerifyAnswer::Invalid { .. }));
    let balance = |account| sandbox.balance(&network(), USDC, account).units();
    assert_eq!(balance(payer), 1_000_000_000 - PRICE);
    assert_eq!(balance(SELLER), 1_000_000_000 + PRICE);
    assert_eq!(sandbox.settled(nonce(7)), 1);
    let stats = Stats {
        verify_calls: 2,
        settle_calls: 2,
        settled: 1,
    };
    assert_eq!(sandbox.stats(), stats);
    assert_eq!(client.supported().await.unwrap(), Sandbox::supported());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_settlements_of_one_nonce_at_once_one_succeeds() {
    let (sandbox, client, _) = start(SandboxOptions::default()).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { settle(&client, &good(1)).await })
        })
        .collect();
    let mut settled = 0;
    for call in calls {
        match call.await.unwrap().as_str() {
            "settled" => settled += 1,
            other => assert_eq!(other, "invalid_exact_evm_nonce_already_used"),
        }
    }
    assert_eq!((settled, sandbox.stats().settled), (1, 1));
    assert_eq!(sandbox.stats().settle_calls, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn misdeeds_look_to_the_client_like_those_of_real_facilitators() {
    let (sandbox, client, _) = start(SandboxOptions::default()).await;
    let reject = Misdeed::RejectSettle {
        reason: "no".to_owned(),
    };
    // The misdeed, what the client makes of it, and whether the money moved.
    for (n, (misdeed, want, moved)) in (0..).zip([
        (Misdeed::Status { status: 503 }, "HTTP status 503", 0),
        (Misdeed::Hang { ms: 1 }, "HTTP status 500", 0),
        (Misdeed::Junk, "unusable answer", 0),
        (Misdeed::SlowBody { ms: 1 }, "settled", 1),
        (Misdeed::LoseAnswerAfterSettling, "the connection broke", 1),
        (Misdeed::HangAfterSettling { ms: 1 }, "HTTP status 500", 1),
        (
            Misdeed::LieRefusedAfterSettling,
            "invalid_exact_evm_transaction_failed",
            1,
        ),
        (Misdeed::SuccessWithoutTransaction, "unusable answer", 0),
        (reject, "no", 0),
    ]) {
        assert!(sandbox.misbehave(Misbehaviour::once(misdeed.clone())));
        let got = settle(&client, &good(n)).await;
        assert!(got.starts_with(want), "{misdeed:?}: {got}");
        assert_eq!(sandbox.settled(nonce(n)), moved, "{misdeed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_settlement_moves_the_money_once_and_tells_later() {
    let (sandbox, client, _) = start(SandboxOptions::default()).await;
    sandbox.misbehave(Misbehaviour::once(Misdeed::Pending));
    assert_eq!(
        settle(&client, &good(1)).await,
        "settled",
        "the client asked once more"
    );
    assert_eq!(sandbox.stats().settle_calls, 2);
    sandbox.misbehave(Misbehaviour::times(Misdeed::Pending, 3));
    let SettleAnswer::Unknown(FacilitatorFault::Pending) = client.settle(&request(&good(2))).await
    else {
        panic!("not pending");
    };
    assert_eq!(settle(&client, &good(2)).await, "settled");
    assert_eq!(
        (sandbox.settled(nonce(1)), sandbox.settled(nonce(2))),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_stop_a_settlement() {
    let settle_delay = Duration::from_millis(100);
    let (sandbox, client, _) = start(SandboxOptions {
        settle_delay,
        ..SandboxOptions::default()
    })
    .await;
    let call = tokio::spawn(async move { settle(&client, &good(1)).await });
    while sandbox.stats().settle_calls == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    let moved = async {
        while sandbox.settled(nonce(1)) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), moved)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_to_misbehave_are_taken_only_when_allowed() {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let order = json!({"kind": "status", "status": 502, "scope": "verify"});
    for (allow_misbehaviour, want) in [(false, 404), (true, 204)] {
        let options = SandboxOptions {
            allow_misbehaviour,
            ..SandboxOptions::default()
        };
        let (sandbox, client, url) = start(options).await;
        let post = http.post(format!("{url}/sandbox/misbehave")).json(&order);
        assert_eq!(post.send().await.unwrap().status(), want);
        let verdict = client.verify(&request(&good(1))).await;
        let is_bad = matches!(
            verdict,
            VerifyAnswer::Unavailable(FacilitatorFault::Status { status: 502, .. })
        );
        assert_eq!(is_bad, allow_misbehaviour);
        assert_eq!(sandbox.stats().verify_calls, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_is_answered_without_a_crash() {
    let (_, client, url) = start(SandboxOptions::default()).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(settle(&client, &good(5)).await, "settled");
    let page = async |path: &str| {
        let answer = http.get(format!("{url}{path}")).send().await.unwrap();
        answer.text().await.unwrap()
    };
    assert!(page("/").await.contains("play money"));
    let balances: Value = serde_json::from_str(&page("/balances").await).unwrap();
    assert_eq!(balances["balances"].as_array().unwrap().len(), 2);
    let stats: Value = serde_json::from_str(&page("/sandbox/stats").await).unwrap();
    assert_eq!(stats["settledNonces"][nonce(5).to_string()], 1);
    let post = async |body: Vec<u8>| {
        let post = http.post(format!("{url}/settle")).body(body);
        post.send().await.unwrap().status().as_u16()
    };
    assert_eq!(post(b"not json".to_vec()).await, 400);
    assert_eq!(post(b"{}".to_vec()).await, 400);
    assert_eq!(post(vec![b' '; 64 * 1024]).await, 400);
    assert_eq!(post(vec![b' '; 64 * 1024 + 1]).await, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_buyer_signs_is_verified_and_settled() {
    use crate::buyer::Buyer;
    use crate::buyer::choice::{Challenge, SpendLimit};
    use crate::money::PriceText;

    let challenge = json!({"x402Version": 2, "resource": {"url": "x"}, "accepts": [requirement()]});
    let challenge = Challenge::from_header(header::encode(&challenge).as_bytes()).unwrap();
    let limit = SpendLimit {
        max_price: PriceText::parse("$0.01").unwrap(),
        network: None,
    };
    let choice = challenge.choose(&limit).unwrap();
    let proof = Buyer::new(key()).prove(&challenge, &choice, NOW, nonce(3));
    let payment = header::decode(proof.value.as_bytes(), usize::MAX).unwrap();
    let request_body =
        json!({"x402Version": 2, "paymentPayload": payment, "paymentRequirements": requirement()});
    let (sandbox, client, _) = start(SandboxOptions::default()).await;
    let verdict = client.verify(&request(&request_body)).await;
    assert!(matches!(verdict, VerifyAnswer::Valid { .. }), "{verdict:?}");
    assert_eq!(settle(&client, &request_body).await, "settled");
    assert_eq!(sandbox.settled(nonce(3)), 1);
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_primitives::hex;
use axum::Router;
use axum::body::Bytes as Body;
use axum::http::{HeaderMap as Headers, StatusCode as Status};
use axum::response::IntoResponse;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::*;
use crate::buyer::choice::Skipped;
use crate::chain::Network;
use crate::money::PriceText;
use crate::x402::eip3009;

const NOW: UnixSeconds = UnixSeconds(1_760_000_000);

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> UnixSeconds {
        NOW
    }
}

/// The public development key 0 of anvil.
fn buyer() -> Buyer {
    let bytes = hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
    Buyer::new(SecretKey::from_byte_array(bytes).unwrap())
}

/// 0.01 USDC on Base Sepolia, with members that no type of ours knows.
fn offer() -> Value {
    json!({
        "scheme": "exact", "network": "eip155:84532", "amount": "10000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "maxTimeoutSeconds": 300, "odd": [1, null],
        "extra": {"name": "USDC", "version": "2", "more": {"z": 1, "a": 2}},
    })
}

fn challenge(offers: &[Value]) -> Challenge {
    let message = json!({
        "x402Version": 2, "resource": {"url": "http://x/", "odd": 1}, "accepts": offers,
        "extensions": {"bazaar": {"info": {"z": 1}}},
    });
    Challenge::from_header(header::encode(&message).as_bytes()).unwrap()
}

fn limit(max_price: &str) -> SpendLimit {
    SpendLimit {
        max_price: PriceText::parse(max_price).unwrap(),
        network: None,
    }
}

/// Why the offer with one member replaced is skipped; `None` when it is taken.
#[track_caller]
fn check(pointer: &str, value: Value, want: Option<&Skipped>) {
    let mut offer = offer();
    *offer.pointer_mut(pointer).unwrap() = value;
    let chosen = challenge(&[offer]).choose(&limit("$0.01"));
    let why = chosen.err().map(|none| none.skipped[0].1.clone());
    assert_eq!(why.as_ref(), want, "{pointer}");
}

#[test]
fn an_offer_is_taken_only_when_everything_about_it_is_known() {
    check("/odd", json!(1), None);
    check("/scheme", json!("upto"), Some(&Skipped::Scheme));
    check("/network", json!("solana:x"), Some(&Skipped::Network));
    check("/network", json!("base"), Some(&Skipped::Network));
    check("/asset", json!("0x12"), Some(&Skipped::Unreadable("asset")));
    check("/payTo", json!(1), Some(&Skipped::Unreadable("payTo")));
    check("/amount", json!("-1"), Some(&Skipped::Unreadable("amount")));
    check("/extra/more", json!(1), None);
    let domain = Skipped::Unreadable("extra.name and extra.version");
    check("/extra", json!({"name": "USDC"}), Some(&domain));
    let permit2 = json!({"name": "U", "version": "2", "assetTransferMethod": "permit2"});
    check("/extra", permit2, Some(&Skipped::Method));
    let flow = json!({"name": "U", "version": "2", "paymentFlow": "escrow"});
    check("/extra", flow, Some(&Skipped::Method));
    let unknown = json!("0x0000000000000000000000000000000000000001");
    check("/asset", unknown, Some(&Skipped::Token("$0.01".to_owned())));
}

#[track_caller]
fn check_limit(max_price: &str, is_enough: bool) {
    let chosen = challenge(&[offer()]).choose(&limit(max_price));
    assert_eq!(chosen.is_ok(), is_enough, "{max_price}: {chosen:?}");
}

#[test]
fn the_limit_is_kept_to_the_unit() {
    check_limit("$0.01", true);
    check_limit("$0.009999", false);
    check_limit("0.01 USDC", true);
    check_limit("1 USDT", false);
    check_limit("10000 atomic", true);
    check_limit("9999 atomic", false);
    check_limit("$0.0099999", false);
    let text = challenge(&[offer()]).choose(&limit("$0.001")).unwrap_err();
    assert!(
        text.to_string()
            .contains("costs 0.01 USDC, the limit is $0.001"),
        "{text}"
    );
}

#[test]
fn the_first_offer_within_the_limit_and_on_the_network_is_taken() {
    let mut dear = offer();
    dear["amount"] = json!("20000");
    let mut base = offer();
    base["network"] = json!("eip155:8453");
    base["asset"] = json!("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
    let challenge = challenge(&[dear, base, offer()]);
    let chosen = challenge.choose(&limit("$0.01")).unwrap();
    assert_eq!(chosen.chain_id, 8453);
    let network = Network::parse_caip2("eip155:84532").ok();
    let only = SpendLimit {
        network,
        ..limit("$0.01")
    };
    assert_eq!(challenge.choose(&only).unwrap().chain_id, 84_532);
}

#[test]
fn a_challenge_is_of_the_version_that_its_place_says() {
    let one = json!({"x402Version": 1, "accepts": []});
    let two = json!({"x402Version": 2, "accepts": []});
    assert!(Challenge::from_body(one.to_string().as_bytes()).is_ok());
    assert!(Challenge::from_body(two.to_string().as_bytes()).is_err());
    assert!(Challenge::from_header(header::encode(&one).as_bytes()).is_err());
    assert!(Challenge::from_header(b"!").is_err());
    assert!(Challenge::from_body(b"<html>").is_err());
}

#[test]
fn a_proof_holds_the_offer_to_the_letter_and_a_signature_of_the_payer() {
    let challenge = challenge(&[offer()]);
    let choice = challenge.choose(&limit("$1")).unwrap();
    let nonce = B256::repeat_byte(7);
    let proof = buyer().prove(&challenge, &choice, NOW, nonce);
    assert_eq!(proof.header, "PAYMENT-SIGNATURE");
    assert_eq!(proof.valid_before, NOW.plus(300));
    let message = header::decode(proof.value.as_bytes(), usize::MAX).unwrap();
    assert_eq!(message["accepted"].to_string(), offer().to_string());
    assert_eq!(message["resource"], challenge.message()["resource"]);
    assert_eq!(message["extensions"], challenge.message()["extensions"]);
    let payload = message["payload"].as_object().unwrap();
    let (authorization, signature) = eip3009::from_payload(payload).unwrap();
    let domain = eip712::domain_separator("USDC", Some("2"), 84_532, choice.asset);
    let eip712::Signature::Eoa(signature) = signature else {
        panic!("not a key's signature");
    };
    let signer = eip712::recover(authorization.digest(domain), &signature);
    assert_eq!(signer, Ok(buyer().address()));
    assert_eq!(authorization.valid_after(), NOW.minus(600));
    assert_eq!(authorization.nonce, nonce);
    assert_eq!(authorization.to, choice.pay_to);
    assert_eq!(authorization.value.units(), 10_000);
}

#[test]
fn no_authorization_is_valid_for_more_than_an_hour() {
    let mut long = offer();
    long["maxTimeoutSeconds"] = json!(u64::MAX);
    let challenge = challenge(&[long]);
    let choice = challenge.choose(&limit("$1")).unwrap();
    let proof = buyer().prove(&challenge, &choice, NOW, B256::ZERO);
    assert_eq!(proof.valid_before, NOW.plus(3600));
}

/// What a scripted shop answers to each paid request, by its number.
type Script = fn(usize) -> axum::response::Response;

/// A shop: 402 without a proof, then the script. Keeps the proofs that it saw.
struct Shop {
    url: Url,
    proofs: Arc<Mutex<Vec<String>>>,
}

impl Shop {
    async fn open(version: Version, script: Script) -> Self {
        let proofs = Arc::new(Mutex::new(Vec::new()));
        let (seen, count) = (Arc::clone(&proofs), Arc::new(AtomicUsize::new(0)));
        let handler = async move |headers: Headers, body: Body| {
            assert_eq!(&body[..], b"order");
            let proof = [header::PAYMENT_SIGNATURE, header::X_PAYMENT]
                .into_iter()
                .find_map(|name| headers.get(name));
            match proof {
                None => ask_for_payment(version),
                Some(proof) => {
                    seen.lock().push(proof.to_str().unwrap().to_owned());
                    script(count.fetch_add(1, Ordering::SeqCst))
                }
            }
        };
        let router = Router::new().fallback(handler);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let url = url.parse().unwrap();
        Self { url, proofs }
    }

    async fn buy(&self, limit: &SpendLimit) -> Result<Outcome, BuyError> {
        let order = Order {
            method: Method::POST,
            url: self.url.clone(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"order"),
        };
        buyer().pay(&client().unwrap(), &order, limit, &Fixed).await
    }
}

fn ask_for_payment(version: Version) -> axum::response::Response {
    match version {
        Version::V2 => {
            let value = header::encode(challenge(&[offer()]).message());
            (
                Status::PAYMENT_REQUIRED,
                [(header::PAYMENT_REQUIRED, value)],
                "{}",
            )
                .into_response()
        }
        Version::V1 => {
            let mut offer = offer();
            offer["network"] = json!("base-sepolia");
            offer["maxAmountRequired"] = json!("10000");
            let body = json!({"x402Version": 1, "error": "pay", "accepts": [offer]});
            (Status::PAYMENT_REQUIRED, body.to_string()).into_response()
        }
    }
}

fn thanks(_: usize) -> axum::response::Response {
    let receipt = header::encode(&json!({"success": true, "transaction": "0x1"}));
    ([(header::PAYMENT_RESPONSE, receipt)], "goods").into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_ends_with_the_goods_and_the_receipt() {
    let shop = Shop::open(Version::V2, thanks).await;
    let outcome = shop.buy(&limit("$0.01")).await.unwrap();
    assert_eq!(outcome.receipt.unwrap()["transaction"], "0x1");
    assert_eq!(outcome.payment.unwrap().0.price(), "0.01 USDC");
    assert_eq!(outcome.response.text().await.unwrap(), "goods");
    shop.buy(&limit("$0.01")).await.unwrap();
    let proofs = shop.proofs.lock();
    assert_eq!(proofs.len(), 2);
    assert_ne!(proofs[0], proofs[1], "each purchase has its own nonce");
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_limit_nothing_is_signed() {
    let shop = Shop::open(Version::V2, thanks).await;
    let error = shop.buy(&limit("$0.009")).await.unwrap_err();
    assert!(matches!(error, BuyError::NoChoice(_)));
    assert!(shop.proofs.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_of_version_1_is_paid_in_version_1() {
    let shop = Shop::open(Version::V1, thanks).await;
    shop.buy(&limit("$0.01")).await.unwrap();
    let proof = shop.proofs.lock()[0].clone();
    let message = header::decode(proof.as_bytes(), usize::MAX).unwrap();
    assert_eq!(message["x402Version"], 1);
    assert_eq!(message["network"], "base-sepolia");
    assert!(message.get("accepted").is_none());
    let payload = message["payload"].as_object().unwrap();
    assert!(eip3009::from_payload(payload).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_seller_is_unsure_the_same_proof_is_sent_again() {
    let shop = Shop::open(Version::V2, |n| match n {
        0 | 1 => (Status::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response(),
        n => thanks(n),
    })
    .await;
    let outcome = shop.buy(&limit("$0.01")).await.unwrap();
    assert_eq!(outcome.response.status(), 200);
    let proofs = shop.proofs.lock();
    assert_eq!(proofs.len(), 3);
    assert!(proofs.iter().all(|proof| *proof == proofs[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_proof_is_sent_a_bounded_number_of_times() {
    let unsure: Script = |_| (Status::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response();
    let shop = Shop::open(Version::V2, unsure).await;
    let outcome = shop.buy(&limit("$0.01")).await.unwrap();
    assert_eq!(outcome.response.status(), 503);
    assert_eq!(shop.proofs.lock().len(), 9);

    let refused: Script = |_| Status::PAYMENT_REQUIRED.into_response();
    let shop = Shop::open(Version::V2, refused).await;
    let outcome = shop.buy(&limit("$0.01")).await.unwrap();
    assert_eq!(outcome.response.status(), 402);
    assert_eq!(shop.proofs.lock().len(), 1, "a refusal is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_gets_no_proof() {
    let elsewhere = Shop::open(Version::V2, thanks).await;
    static PORT: AtomicUsize = AtomicUsize::new(0);
    let port = elsewhere.url.port().unwrap();
    PORT.store(port.into(), Ordering::SeqCst);
    let shop = Shop::open(Version::V2, |_| {
        let to = format!("http://127.0.0.1:{}/", PORT.load(Ordering::SeqCst));
        (Status::TEMPORARY_REDIRECT, [("location", to)]).into_response()
    })
    .await;
    let outcome = shop.buy(&limit("$0.01")).await.unwrap();
    assert_eq!(outcome.response.status(), 307);
    assert!(elsewhere.proofs.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_pays_already_is_not_sent() {
    let mut order = Order {
        method: Method::GET,
        url: "http://127.0.0.1:1/".parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let asked = ask(&client().unwrap(), &order).await;
    assert!(matches!(asked, Err(BuyError::Ask(_))));
    order
        .headers
        .insert("payment-signature", HeaderValue::from_static("x"));
    let asked = ask(&client().unwrap(), &order).await;
    assert!(matches!(asked, Err(BuyError::AlreadyPaying(_))));
}

/// Implemented for types that can be shown, so that asking a type that cannot is ambiguous if it can.
trait CanBeShown<A> {
    fn question() {}
}
impl<T: ?Sized> CanBeShown<()> for T {}
struct Shown;
impl<T: ?Sized + std::fmt::Debug> CanBeShown<Shown> for T {}

#[test]
fn a_buyers_key_is_wiped_on_drop_and_can_be_neither_shown_nor_copied() {
    let question: fn() = <Buyer as CanBeShown<_>>::question; // ambiguous if `Buyer: Debug`
    question();
    assert!(std::mem::needs_drop::<Buyer>());
    let mut buyer = buyer();
    let before = buyer.key.secret_bytes();
    buyer.wipe(); // all that `drop` does
    assert_ne!(buyer.key.secret_bytes(), before);
    let half = &before[..16];
    assert!(!buyer.key.secret_bytes().windows(16).any(|w| w == half));
}

#[test]
fn what_can_move_money_is_not_shown() {
    let choice = challenge(&[offer()]).choose(&limit("$0.01")).unwrap();
    let payload = buyer().sign(&choice, NOW, B256::ZERO);
    let signature = payload["signature"].as_str().unwrap();
    let (_, parsed) = eip3009::from_payload(&payload).unwrap();
    assert!(!format!("{parsed:?}").contains(&signature[4..20]));
    let request = crate::facilitator::FacilitatorRequest {
        body: Value::Object(payload.clone()).to_string().into(),
    };
    assert!(!format!("{request:?}").contains(signature));
    let headers = crate::proof::ProofHeaders {
        payment_signature: vec![signature.as_bytes()],
        x_payment: vec![],
    };
    assert!(!format!("{headers:?}").contains("48, 120")); // `0x` as bytes
}

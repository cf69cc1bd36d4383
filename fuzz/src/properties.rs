//! What must hold for every input, one function for each fuzz target.
//!
//! "It does not panic" is the least of it: each function states what a result may be made of. The
//! fuzzer calls them with what it invents, `tests/fuzz_corpus.rs` with every file of the corpus.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use alloy_primitives::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farewall::clock::UnixSeconds;
use farewall::config;
use farewall::config::settings::{RuleAccess, Settings};
use farewall::facilitator::http::answer::{self, RawAnswer, SettleReading};
use farewall::facilitator::supported::{Kind, Supported, SupportedBook};
use farewall::facilitator::{FacilitatorRequest, SettleAnswer, VerifyAnswer};
use farewall::proof::check::SETTLE_MARGIN_S;
use farewall::proof::{self, Proof, ProofHeaders, Terms};
use farewall::route::price::{Method, Offer, Quote};
use farewall::route::{Access, RequestLine, RouteTable};
use farewall::target::{CanonicalHost, CanonicalTarget, Scheme, decoded, split_absolute_form};
use farewall::x402::eip712::{self, Signature};
use farewall::x402::message::{PaymentPayload, PaymentRequired, SettlementResponse};
use farewall::x402::{Version, eip3009, header, matching, permit2};
use http::HeaderMap;
use http::header::{HeaderValue, RETRY_AFTER};
use secp256k1::SecretKey;
use serde_json::{Map, Value, json};

/// The clock of the protocol vectors, from which the seeds are made.
const NOW: UnixSeconds = UnixSeconds(1_760_000_000);
/// As the default of `payment_header_bytes_max`.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// The public development key that signed the vectors.
const KEY: [u8; 32] = hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");

/// Ways of paying of every kind, and an origin that takes what no rule governs.
const CONFIG: &str = r#"
unmatched = "free"
[server]
public_origin = "https://api.example.com"
[facilitator.f]
url = "https://f.example"
[accept.a]
network = "base-sepolia"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[accept.b]
network = "base"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[accept.c]
network = "base-sepolia"
transfer_method = "permit2"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[accept.d]
network = "base-sepolia"
asset = "0x1111111111111111111111111111111111111111"
symbol = "TOK"
decimals = 6
is_dollar = true
eip712_name = "Token"
eip712_version = "1"
pay_to = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
[accept.e]
network = "solana-devnet"
pay_to = "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"
[upstream.u]
url = "http://127.0.0.1:9"
[[rule]]
name = "quote"
path = "/v1/quote"
price = "$0.01"
[[rule]]
name = "tree"
path = "/paid/{*rest}"
price = "$0.01"
[[rule]]
name = "admin"
path = "/admin/{*rest}"
deny = true
"#;

/// The configuration above, read.
struct World {
    routes: RouteTable,
    quote: Arc<Quote>,
    key: SecretKey,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let settings = config::parse(CONFIG, "fuzz.toml", &|_| None)
        .unwrap_or_else(|report| panic!("{report}"))
        .settings;
    let kind = |scheme: &str, network: &str| Kind {
        x402_version: 2,
        scheme: scheme.to_owned(),
        network: network.to_owned(),
        extra: json!({"feePayer": "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"})
            .as_object()
            .cloned(),
    };
    let supported = Supported {
        kinds: settings
            .accepts
            .values()
            .map(|accept| kind("exact", accept.network.as_str()))
            .collect(),
        ..Supported::default()
    };
    let book: SupportedBook = BTreeMap::from([(Arc::from("f"), Arc::new(supported))]);
    let routes = RouteTable::build(&settings, &book).expect("the rules above are good");
    let quote = match access(&routes, "/v1/quote") {
        Access::Priced(route) => route.price.quote(),
        other => panic!("{other:?}"),
    };
    assert_eq!(quote.offers.len(), 5);
    World {
        routes,
        quote,
        key: SecretKey::from_byte_array(KEY).expect("a good key"),
    }
});

fn access(routes: &RouteTable, path: &str) -> Access {
    routes.access(&RequestLine {
        method: "GET",
        host: "api.example.com",
        path,
    })
}

/// Payment headers against a quote. The first byte chooses: bit 0 the header of version 1, bit 1
/// that the rest is JSON still to be encoded, bit 2 that it is to be signed properly before.
pub fn payment(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else {
        return;
    };
    let world = &*WORLD;
    let value = match (flags & 2, serde_json::from_slice::<Value>(rest)) {
        (0, _) | (_, Err(_)) => rest.to_vec(),
        (_, Ok(mut message)) => {
            if flags & 4 != 0 {
                sign(world, &mut message);
            }
            header::encode(&message).into_bytes()
        }
    };
    let headers = if flags & 1 == 0 {
        v2(&value)
    } else {
        v1(&value)
    };
    match proof::parse(&headers, &world.quote, HEADER_BYTES_MAX, NOW) {
        Ok(proof) => parsed(world, &value, &proof, headers.version()),
        Err(error) => refused(&value, &error),
    }
    let twice = ProofHeaders {
        payment_signature: vec![&value, &value],
        x_payment: vec![],
    };
    assert!(proof::parse(&twice, &world.quote, HEADER_BYTES_MAX, NOW).is_err());
}

fn v2(value: &[u8]) -> ProofHeaders<'_> {
    ProofHeaders {
        payment_signature: vec![value],
        x_payment: vec![],
    }
}

fn v1(value: &[u8]) -> ProofHeaders<'_> {
    ProofHeaders {
        payment_signature: vec![],
        x_payment: vec![value],
    }
}

/// Makes what the fuzzer wrote a payment of our test key, so that it gets past the signature.
fn sign(world: &World, message: &mut Value) {
    let accepted = message.get("accepted").cloned().unwrap_or_default();
    let offer = world
        .quote
        .offers
        .iter()
        .find(|o| o.requirements_json == accepted)
        .unwrap_or(&world.quote.offers[0]);
    let Some(Value::Object(payload)) = message.get_mut("payload") else {
        return;
    };
    let from = Value::from(eip712::address_of(&world.key).to_checksum(None));
    for name in ["authorization", "permit2Authorization"] {
        if let Some(Value::Object(authorization)) = payload.get_mut(name) {
            authorization.insert("from".to_owned(), from.clone());
        }
    }
    payload.insert(
        "signature".to_owned(),
        format!("0x{}", "1b".repeat(65)).into(),
    );
    let digest = match &offer.method {
        Method::Eip3009(terms) => {
            eip3009::from_payload(payload).map(|(a, _)| a.digest(terms.domain))
        }
        Method::Permit2(terms) => {
            permit2::from_payload(payload).map(|(a, _)| a.digest(terms.domain))
        }
        Method::Opaque => return,
    };
    if let Ok(digest) = digest {
        let signature = hex::encode_prefixed(eip712::sign(digest, &world.key));
        payload.insert("signature".to_owned(), signature.into());
    }
}

/// What was signed, and with what: it is forwarded as it came, without what was written beside it.
fn signed(offer: &Offer, payload: &Value) -> (String, Vec<u8>) {
    let members = payload.as_object().expect("it was read");
    match &offer.method {
        Method::Eip3009(_) => {
            let (authorization, signature) = eip3009::from_payload(members).expect("it was read");
            (format!("{authorization:?}"), signature.as_bytes().to_vec())
        }
        Method::Permit2(_) => {
            let (authorization, signature) = permit2::from_payload(members).expect("it was read");
            (format!("{authorization:?}"), signature.as_bytes().to_vec())
        }
        Method::Opaque => (payload.to_string(), Vec::new()),
    }
}

/// A proof that parses answers an offer of the quote, in every place where that is written down.
fn parsed(world: &World, value: &[u8], proof: &Proof, version: Version) {
    assert_eq!(proof.version(), version);
    let offer = proof.offer();
    assert!(world.quote.offers.iter().any(|o| Arc::ptr_eq(o, offer)));
    let payment = proof.payment();
    assert_eq!(
        (&payment.network, &payment.asset, &payment.payer),
        (&offer.network, &offer.asset, proof.payer())
    );
    let sent = header::decode(value, HEADER_BYTES_MAX).expect("it was read");
    let body: Value = serde_json::from_str(&proof.request().body).expect("we wrote it");
    assert_eq!(body["x402Version"], 2);
    assert_eq!(body["paymentRequirements"], offer.requirements_json);
    let forwarded = &body["paymentPayload"];
    assert_eq!(forwarded["x402Version"], 2);
    assert_eq!(
        signed(offer, &forwarded["payload"]),
        signed(offer, &sent["payload"])
    );
    let dynamic = matching::dynamic_members(&offer.scheme, offer.network.as_str());
    let accepted = &forwarded["accepted"];
    assert!(matching::matches(
        &offer.requirements_json,
        accepted,
        dynamic
    ));
    for member in ["scheme", "network", "amount", "asset", "payTo"] {
        assert_eq!(
            accepted[member], offer.requirements_json[member],
            "{member}"
        );
    }
    // The same message in other words is the same payment.
    let respelled = STANDARD.encode(serde_json::to_string_pretty(&sent).expect("JSON"));
    let headers = match version {
        Version::V2 => v2(respelled.as_bytes()),
        Version::V1 => v1(respelled.as_bytes()),
    };
    let again = proof::parse(&headers, &world.quote, usize::MAX, NOW).expect("as before");
    assert_eq!(again.payment(), payment);
    assert!(Arc::ptr_eq(again.offer(), offer));
    // What the facilitator is sent is itself a proof of version 2, of the same payment.
    let forwarded = header::encode(forwarded);
    let again = proof::parse(&v2(forwarded.as_bytes()), &world.quote, usize::MAX, NOW);
    assert_eq!(again.expect("as before").payment(), payment);
    if let Ok(checked) = proof::check(again_of(world, value, version), NOW) {
        judged(checked.proof());
        let valid_before = proof.valid_before();
        if valid_before.0 < u64::MAX && !matches!(proof.terms(), Terms::Opaque) {
            let late = UnixSeconds(valid_before.0 - SETTLE_MARGIN_S + 1);
            assert!(proof::check(again_of(world, value, version), late).is_err());
        }
    }
}

fn again_of(world: &World, value: &[u8], version: Version) -> Proof {
    let headers = match version {
        Version::V2 => v2(value),
        Version::V1 => v1(value),
    };
    proof::parse(&headers, &world.quote, HEADER_BYTES_MAX, NOW).expect("it was read before")
}

/// A proof that is good here pays the price, to the right account, now, with the payer's signature.
fn judged(proof: &Proof) {
    let offer = proof.offer();
    assert!(proof.valid_after() <= NOW);
    assert!(proof.valid_before() >= NOW.plus(SETTLE_MARGIN_S));
    let (digest, signature, from) = match proof.terms() {
        Terms::Eip3009 {
            authorization: a,
            signature,
            offer: terms,
        } => {
            assert_eq!((a.to, a.value), (terms.pay_to, offer.amount));
            (a.digest(terms.domain), signature, a.from)
        }
        Terms::Permit2 {
            authorization: a,
            signature,
            offer: terms,
        } => {
            assert_eq!((a.to, a.amount), (terms.pay_to, offer.amount));
            assert_eq!((a.token, a.spender), (terms.asset, permit2::EXACT_PROXY));
            (a.digest(terms.domain), signature, a.from)
        }
        Terms::Opaque => return assert!(matches!(offer.method, Method::Opaque)),
    };
    match signature {
        Signature::Eoa(bytes) => assert_eq!(eip712::recover(digest, bytes), Ok(from)),
        Signature::Contract(bytes) => assert!(
            bytes.len() > 65 || bytes.ends_with(eip712::ERC6492_MAGIC.as_slice()),
            "65 bytes are judged here"
        ),
    }
}

/// A refusal has a code, and its text for the log holds neither the header nor the signature.
fn refused(value: &[u8], error: &proof::ProofError) {
    let code = error.reason();
    assert!((1..=128).contains(&code.as_str().len()));
    let text = error.to_string();
    let Ok(sent) = header::decode(value, HEADER_BYTES_MAX) else {
        return;
    };
    let signature = sent.pointer("/payload/signature").and_then(Value::as_str);
    if let Some(signature) = signature.filter(|s| s.len() >= 40) {
        assert!(!text.contains(signature), "{text}");
    }
}

/// Base64 and JSON of any header: one meaning, whatever the spelling.
pub fn header(data: &[u8]) {
    let limit = data.len();
    match header::decode(data, limit) {
        Err(header::HeaderError::TooLarge { .. }) => panic!("it is as long as it may be"),
        Err(_) => {}
        Ok(message) => one_meaning(data, &message),
    }
    if let Some(less) = limit.checked_sub(1) {
        let error = header::decode(data, less).expect_err("one byte too long");
        assert!(matches!(error, header::HeaderError::TooLarge { .. }));
    }
    // The same bytes as JSON, so that the fuzzer need not find out what base64 is.
    let encoded = STANDARD.encode(data);
    let unpadded = encoded.trim_end_matches('=');
    let decode = |text: &str| header::decode(text.as_bytes(), usize::MAX).ok();
    let message = decode(&encoded);
    assert_eq!(message, decode(unpadded), "padding carries no meaning");
    if let Some(message) = message {
        one_meaning(encoded.as_bytes(), &message);
    }
}

fn one_meaning(value: &[u8], message: &Value) {
    assert!(message.is_object());
    assert!(
        !value.iter().any(|b| b"-_ ,".contains(b)),
        "standard alphabet only"
    );
    let encoded = header::encode(message);
    let again = header::decode(encoded.as_bytes(), usize::MAX).expect("we wrote it");
    assert_eq!(&again, message);
    assert_eq!(header::encode(&again), encoded);
    assert!(matching::same(message, &again));
    assert!(matching::matches(message, &again, &[]));
    typed::<PaymentRequired>(message);
    typed::<PaymentPayload>(message);
    typed::<SettlementResponse>(message);
}

/// A message that can be read into a type is, once written, read into the same.
fn typed<T>(message: &Value)
where
    T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug,
{
    if let Ok(first) = serde_json::from_value::<T>(message.clone()) {
        let written = header::encode(&first);
        let again = header::decode(written.as_bytes(), usize::MAX).expect("we wrote it");
        assert_eq!(
            serde_json::from_value::<T>(again).expect("as before"),
            first
        );
    }
}

/// A request target and, on the first line, a host.
pub fn target(data: &[u8]) {
    let (host, raw) = match data.iter().position(|&b| b == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (&data[..0], data),
    };
    for scheme in [Scheme::Http, Scheme::Https] {
        canonical_host(host, scheme);
    }
    if let Ok(Some(parts)) = split_absolute_form(raw) {
        assert!(!parts.authority.is_empty());
        assert!(parts.path_and_query.starts_with(b"/"));
        canonical_host(parts.authority, parts.scheme);
        canonical_target(&parts.path_and_query);
    }
    canonical_target(raw);
}

fn canonical_host(raw: &[u8], scheme: Scheme) {
    let Ok(host) = CanonicalHost::parse(raw, scheme) else {
        return;
    };
    let text = host.authority();
    assert_eq!(
        CanonicalHost::parse(text.as_bytes(), scheme),
        Ok(host.clone())
    );
    assert!(text.is_ascii() && text == text.to_ascii_lowercase());
    assert!(!text.contains(['/', '@', '%', ' ', '?', '#', '\\', ',']));
    assert_ne!(host.port, Some(scheme.default_port()));
    assert!(!host.host.ends_with('.') && !host.host.is_empty());
}

fn canonical_target(raw: &[u8]) {
    let Ok(target) = CanonicalTarget::parse(raw, TARGET_BYTES_MAX) else {
        return;
    };
    let forwarded = target.to_string();
    let again = CanonicalTarget::parse(forwarded.as_bytes(), TARGET_BYTES_MAX);
    assert_eq!(again.as_ref(), Ok(&target), "canonical is final");
    let path = target.path.as_str();
    assert!(path.starts_with('/') && !path.contains("//"));
    assert!(path.bytes().all(|b| b.is_ascii_graphic()) && !path.contains([';', '\\', '#', '?']));
    let plain = decoded(path);
    let count = |text: &str| text.matches('/').count();
    assert_eq!(count(path), count(&plain), "no escape hides a separator");
    assert!(
        plain
            .chars()
            .all(|c| !c.is_ascii_control() && c != ';' && c != '\\')
    );
    assert!(
        plain
            .split('/')
            .all(|segment| segment != "." && segment != "..")
    );
    // An origin that decodes, ignores case and strips trailing slashes finds nothing for free here.
    let lenient = plain.to_ascii_lowercase();
    let lenient = lenient.trim_end_matches('/');
    let access = access(&WORLD.routes, path);
    if lenient == "/v1/quote" || lenient.starts_with("/paid/") {
        let is_guarded = matches!(access, Access::Priced(_) | Access::Ambiguous(_));
        assert!(is_guarded, "{path}: {access:?}");
    }
    if lenient.starts_with("/admin/") {
        let is_guarded = matches!(access, Access::Denied(_) | Access::Ambiguous(_));
        assert!(is_guarded, "{path}: {access:?}");
    }
}

/// What every environment variable holds for the configurations that the fuzzer writes.
const SECRET: &str = "pl4nted-s3cret-c0ffee";

/// A configuration: it is good, or every complaint is fit to be shown.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let env = |name: &str| (name != "UNSET").then(|| SECRET.to_owned());
    match config::parse(text, "fuzz.toml", &env) {
        Ok(loaded) => {
            let complaints = config::lint(&loaded.settings);
            for complaint in loaded.warnings.iter().chain(&complaints) {
                let located = loaded.locate(complaint.clone());
                fit_to_be_shown(text, &located.to_string());
            }
            startable(&loaded.settings);
        }
        Err(report) => {
            assert!(report.diagnostics.iter().any(|d| d.is_error()));
            fit_to_be_shown(text, &report.to_string());
        }
    }
}

fn fit_to_be_shown(config: &str, text: &str) {
    assert!(
        !text
            .chars()
            .any(|c| c.is_control() && c != '\n' && c != '\t'),
        "{text:?}"
    );
    assert!(config.contains(SECRET) || !text.contains(SECRET), "{text}");
}

/// Every priced rule of a good configuration costs something, and names what exists.
fn startable(settings: &Settings) {
    assert!(!settings.listeners.is_empty());
    for rule in &settings.rules {
        if let Some(upstream) = &rule.upstream {
            assert!(settings.upstreams.contains_key(upstream));
        }
        if let RuleAccess::Priced(priced) = &rule.access {
            assert!(!priced.accepts.is_empty());
            for (name, amount) in &priced.accepts {
                assert!(settings.accepts.contains_key(name) && amount.units() > 0);
            }
        }
    }
    for accept in settings.accepts.values() {
        assert!(!accept.facilitators.is_empty());
        let exists = |name| settings.facilitators.contains_key(name);
        assert!(accept.facilitators.iter().all(exists));
    }
    if let Ok(routes) = RouteTable::build(settings, &SupportedBook::new()) {
        assert_eq!(routes.rules().len(), settings.rules.len());
    }
}

/// The answer of a facilitator: a line with status and case, `Retry-After`, `EXTENSION-RESPONSES`,
/// then the body.
pub fn facilitator(data: &[u8]) {
    let mut lines = data.splitn(4, |&b| b == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (first, retry_after, notes, body) = (next(), next(), next(), next());
    const STATUSES: [u16; 10] = [200, 201, 204, 299, 300, 400, 402, 429, 500, 503];
    let choice = |at: usize| {
        first
            .get(at)
            .map_or(0, |b| usize::from(b.wrapping_sub(b'0')))
    };
    let request = &REQUESTS[choice(1) % REQUESTS.len()];
    let headers = answer_headers(retry_after, notes);
    let retry_after_s = answer::retry_after_s(&headers, NOW);
    assert!(retry_after_s.is_none_or(|s| s <= 86_400));
    let notes = answer::extension_notes(&headers);
    assert!(notes.len() <= 64);
    assert!(
        notes
            .iter()
            .all(|(_, _, value)| value.chars().count() <= 200)
    );
    let raw = RawAnswer {
        status: STATUSES[choice(0) % STATUSES.len()],
        retry_after_s,
        body: body.to_vec(),
    };
    let object: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    let is_success = (200..300).contains(&raw.status);
    verified(&raw, object.as_ref(), is_success);
    settled(&raw, request, object.as_ref(), is_success);
    if let Ok(supported) = answer::read_supported(&raw) {
        assert!(is_success && object.is_some_and(|o| o["kinds"].is_array()));
        let text = serde_json::to_string(&supported).expect("it is JSON");
        let again: Supported = serde_json::from_str(&text).expect("as before");
        assert_eq!(again, supported, "what is kept on disk is what was said");
    }
}

/// What was asked: an EVM payment, one of nothing, another scheme, another network, and junk.
static REQUESTS: LazyLock<[FacilitatorRequest; 5]> = LazyLock::new(|| {
    let of = |scheme: &str, network: &str, amount: &str| {
        let requirement = json!({"scheme": scheme, "network": network, "amount": amount});
        let body = json!({"x402Version": 2, "paymentRequirements": requirement}).to_string();
        FacilitatorRequest { body: body.into() }
    };
    [
        of("exact", "eip155:8453", "10000"),
        of("exact", "eip155:8453", "0"),
        of("upto", "eip155:8453", "10000"),
        of("exact", "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", "10000"),
        FacilitatorRequest {
            body: "junk".into(),
        },
    ]
});

fn answer_headers(retry_after: &[u8], notes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(retry_after) {
        headers.insert(RETRY_AFTER, value);
    }
    if let Ok(value) = HeaderValue::from_bytes(notes) {
        headers.insert("extension-responses", value);
    }
    headers
}

/// Good only with 2xx and `isValid: true`; bad only with `isValid: false`.
fn verified(raw: &RawAnswer, object: Option<&Map<String, Value>>, is_success: bool) {
    let verdict = object.and_then(|o| o.get("isValid"));
    match answer::read_verify(raw) {
        VerifyAnswer::Valid { payer } => {
            assert!(is_success && verdict == Some(&Value::Bool(true)));
            assert!(payer.is_none_or(|payer| payer.len() <= 512 && payer.is_ascii()));
        }
        VerifyAnswer::Invalid { .. } => assert_eq!(verdict, Some(&Value::Bool(false))),
        VerifyAnswer::Unavailable(_) => {
            assert!(!(is_success && matches!(verdict, Some(Value::Bool(_)))));
        }
    }
}

/// Settled only with 2xx, `success: true` and a transaction where money moves on a chain.
fn settled(
    raw: &RawAnswer,
    request: &FacilitatorRequest,
    object: Option<&Map<String, Value>>,
    is_success: bool,
) {
    let success = object.and_then(|o| o.get("success"));
    let text = |name: &str| object.and_then(|o| o.get(name)).and_then(Value::as_str);
    let is_pending = text("errorReason") == Some("settlement_pending");
    match answer::read_settle(raw, request) {
        SettleReading::Definite(SettleAnswer::Settled(receipt)) => {
            assert!(is_success && success == Some(&Value::Bool(true)) && receipt.success);
            assert_eq!(text("transaction"), Some(receipt.transaction.as_str()));
            assert!(receipt.error_reason.is_none());
            let is_exact_evm = [&REQUESTS[0], &REQUESTS[4]]
                .iter()
                .any(|r| Arc::ptr_eq(&r.body, &request.body));
            assert!(!(is_exact_evm && receipt.transaction.is_empty()));
            fit_for_a_header(&receipt);
        }
        SettleReading::Definite(SettleAnswer::Refused(receipt)) => {
            assert!(
                raw.status < 500,
                "who failed at the work cannot say that nothing moved"
            );
            assert!(success == Some(&Value::Bool(false)) && !receipt.success && !is_pending);
            assert!(receipt.error_reason.as_ref().is_some_and(|r| !r.is_empty()));
            fit_for_a_header(&receipt);
        }
        SettleReading::Pending { sent } => {
            assert!(success == Some(&Value::Bool(false)) && is_pending);
            assert!(!sent || text("transaction").is_some_and(|t| !t.is_empty()));
        }
        SettleReading::Definite(SettleAnswer::Unknown(_)) => {
            let is_definite = success == Some(&Value::Bool(false)) && raw.status < 500;
            assert!(!is_definite, "a no is a no");
        }
        SettleReading::Definite(SettleAnswer::NotSent(_)) => panic!("there is an answer"),
    }
}

/// It becomes a response header: bounded, nothing internal in it, and read back as it was.
fn fit_for_a_header(receipt: &SettlementResponse) {
    assert!(receipt.error_message.is_none());
    let value = header::encode(receipt);
    assert!(value.len() <= 16 * 1024, "{}", value.len());
    HeaderValue::from_str(&value).expect("base64 is a header value");
    let again = header::decode(value.as_bytes(), usize::MAX).expect("we wrote it");
    assert_eq!(
        serde_json::from_value::<SettlementResponse>(again)
            .ok()
            .as_ref(),
        Some(receipt)
    );
}

//! A buyer: asks, reads the challenge, pays within a limit, and never signs twice for one request.
//!
//! What the official client does (fact sheet 1.5), for scripts, the demo and tests. It pays with
//! EIP-3009 only. Redirects are not followed: a proof is meant for the host that asked for it.

pub mod choice;
#[cfg(test)]
mod tests;

use std::time::Duration;

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use rand::TryRngCore;
use rand::rngs::OsRng;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use secp256k1::SecretKey;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::buyer::choice::{
    CHALLENGE_BYTES_MAX, Challenge, ChallengeError, Choice, NoChoice, SpendLimit,
};
use crate::clock::{Clock, UnixSeconds};
use crate::x402::Version;
use crate::x402::eip712;
use crate::x402::eip3009::Authorization;
use crate::x402::header;

/// `validAfter` lies so far in the past: works with tokens and facilitators whose clocks are behind.
const VALID_BEFORE_NOW_S: u64 = 600;
/// No authorization is valid for longer, whatever the seller asks for.
const VALIDITY_MAX_S: u64 = 3600;
/// The same proof is sent again at most so often.
const REPEATS_MAX: u32 = 8;
/// The longest pause before that.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause after a broken connection.
const BROKEN_PAUSE: Duration = Duration::from_secs(1);

/// Somebody with a key. It stays at one place in memory, is wiped when the buyer is dropped, and can
/// be neither shown nor copied.
pub struct Buyer {
    key: Box<SecretKey>,
}

/// The request that may cost something.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its method.
    pub method: Method,
    /// Its URL.
    pub url: Url,
    /// Its headers, without any payment.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The answer to a request without a proof.
#[derive(Debug)]
pub enum Asked {
    /// Anything but 402: as it is.
    Served(Response),
    /// 402 with a challenge.
    Challenged(Challenge),
}

/// A signed payment, ready to be sent as a header.
#[derive(Clone)]
pub struct Proof {
    /// `PAYMENT-SIGNATURE` or `X-PAYMENT`.
    pub header: &'static str,
    /// Its value.
    pub value: String,
    /// From when on it is worthless.
    pub valid_before: UnixSeconds,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value holds a signature.
        f.debug_struct("Proof")
            .field("header", &self.header)
            .field("valid_before", &self.valid_before)
            .finish_non_exhaustive()
    }
}

/// How a purchase ended.
#[derive(Debug)]
pub struct Outcome {
    /// The last answer. Its body is not read yet.
    pub response: Response,
    /// What was signed for it; `None` when the request cost nothing.
    pub payment: Option<(Choice, Proof)>,
    /// The receipt that came with it, decoded.
    pub receipt: Option<Value>,
}

/// Why a purchase did not end with an answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuyError {
    /// The request holds a payment header already.
    #[error("the request already has a {0} header")]
    AlreadyPaying(&'static str),
    /// No answer, and nothing was signed.
    #[error("no answer, nothing was paid: {0}")]
    Ask(#[source] reqwest::Error),
    /// 402 without a challenge that can be read.
    #[error("nothing was paid: {0}")]
    Challenge(#[from] ChallengeError),
    /// No offer can be taken.
    #[error(transparent)]
    NoChoice(#[from] NoChoice),
    /// The system has no random numbers.
    #[error("nothing was paid: the system gave no random numbers")]
    Random,
    /// The proof was sent, and no answer came: the payment may have been used.
    #[error("the proof was sent but no answer came, the money may have moved: {0}")]
    Pay(#[source] reqwest::Error),
}

/// A client for buying: no redirects, no proxies from the environment, patient with slow answers.
///
/// # Errors
///
/// When TLS cannot be set up.
pub fn client() -> reqwest::Result<Client> {
    Client::builder()
        .user_agent(concat!("farewall-pay/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(120))
        .build()
}

/// Sends the request without any proof.
///
/// # Errors
///
/// [`BuyError::AlreadyPaying`], [`BuyError::Ask`] and [`BuyError::Challenge`].
pub async fn ask(client: &Client, order: &Order) -> Result<Asked, BuyError> {
    for name in [header::PAYMENT_SIGNATURE, header::X_PAYMENT] {
        if order.headers.contains_key(name) {
            return Err(BuyError::AlreadyPaying(name));
        }
    }
    let mut response = send(client, order, None).await.map_err(BuyError::Ask)?;
    if response.status() != StatusCode::PAYMENT_REQUIRED {
        return Ok(Asked::Served(response));
    }
    if let Some(value) = response.headers().get(header::PAYMENT_REQUIRED) {
        return Ok(Asked::Challenged(Challenge::from_header(value.as_bytes())?));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BuyError::Ask)? {
        body.extend_from_slice(&chunk);
        if body.len() > CHALLENGE_BYTES_MAX {
            return Err(ChallengeError::Missing.into());
        }
    }
    Ok(Asked::Challenged(Challenge::from_body(&body)?))
}

impl Buyer {
    /// A buyer who pays from the account of this key. The argument is wiped; a caller that keeps
    /// another copy wipes that.
    #[must_use]
    pub fn new(mut key: SecretKey) -> Self {
        let kept = Box::new(key);
        key.non_secure_erase();
        Self { key: kept }
    }

    fn wipe(&mut self) {
        self.key.non_secure_erase();
    }

    /// The account that pays.
    #[must_use]
    pub fn address(&self) -> Address {
        eip712::address_of(&self.key)
    }

    /// The scheme payload: an EIP-3009 authorization for exactly the price, valid from ten minutes
    /// ago for as long as the seller asks, at most an hour.
    #[must_use]
    pub fn sign(&self, choice: &Choice, now: UnixSeconds, nonce: B256) -> Map<String, Value> {
        let authorization = Authorization::new(
            self.address(),
            choice.pay_to,
            choice.amount,
            now.minus(VALID_BEFORE_NOW_S),
            valid_before(choice, now),
            nonce,
        );
        let (name, version) = &choice.domain;
        let domain = eip712::domain_separator(name, Some(version), choice.chain_id, choice.asset);
        let signature = eip712::sign(authorization.digest(domain), &self.key);
        authorization.to_payload(&signature)
    }

    /// The whole proof for one offer of a challenge, as the header that it is sent in.
    #[must_use]
    pub fn prove(
        &self,
        challenge: &Challenge,
        choice: &Choice,
        now: UnixSeconds,
        nonce: B256,
    ) -> Proof {
        let payload = self.sign(choice, now, nonce);
        let (header, message) = match choice.version {
            Version::V2 => (
                header::PAYMENT_SIGNATURE,
                message_v2(challenge, choice, payload),
            ),
            Version::V1 => (
                header::X_PAYMENT,
                json!({
                    "x402Version": 1,
                    "scheme": choice.offer.get("scheme"),
                    "network": choice.offer.get("network"),
                    "payload": payload,
                }),
            ),
        };
        Proof {
            header,
            value: header::encode(&message),
            valid_before: valid_before(choice, now),
        }
    }

    /// Asks, pays what is asked if that is within the limit, and returns the last answer.
    ///
    /// Signs at most once. While the seller answers 503 with `Retry-After`, or the connection
    /// breaks, the *same* proof is sent again, a bounded number of times and never past its validity.
    ///
    /// # Errors
    ///
    /// [`BuyError`]; after [`BuyError::Pay`] the money may have moved, after all others it has not.
    pub async fn pay(
        &self,
        client: &Client,
        order: &Order,
        limit: &SpendLimit,
        clock: &dyn Clock,
    ) -> Result<Outcome, BuyError> {
        let challenge = match ask(client, order).await? {
            Asked::Served(response) => return Ok(Outcome::of(response, None)),
            Asked::Challenged(challenge) => challenge,
        };
        let choice = challenge.choose(limit)?;
        let mut nonce = B256::ZERO;
        let filled = OsRng.try_fill_bytes(nonce.as_mut_slice());
        filled.map_err(|_| BuyError::Random)?;
        let proof = self.prove(&challenge, &choice, clock.now(), nonce);
        let mut repeats_left = REPEATS_MAX;
        loop {
            let answer = send(client, order, Some(&proof)).await;
            let pause = pause_before_repeat(&answer)
                .filter(|pause| clock.now().plus(pause.as_secs()) < proof.valid_before);
            match (pause, answer) {
                (Some(pause), _) if repeats_left > 0 => {
                    repeats_left = repeats_left.saturating_sub(1);
                    tokio::time::sleep(pause).await;
                }
                (_, Ok(response)) => return Ok(Outcome::of(response, Some((choice, proof)))),
                (_, Err(error)) => return Err(BuyError::Pay(error)),
            }
        }
    }
}

impl Drop for Buyer {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Outcome {
    fn of(response: Response, payment: Option<(Choice, Proof)>) -> Self {
        let receipt = [header::PAYMENT_RESPONSE, header::X_PAYMENT_RESPONSE]
            .into_iter()
            .find_map(|name| response.headers().get(name))
            .and_then(|value| header::decode(value.as_bytes(), CHALLENGE_BYTES_MAX).ok());
        Self {
            response,
            payment,
            receipt,
        }
    }
}

/// In the member order of the official client; what the challenge holds is copied to the letter.
fn message_v2(challenge: &Challenge, choice: &Choice, payload: Map<String, Value>) -> Value {
    let mut message = Map::new();
    message.insert("x402Version".to_owned(), 2.into());
    message.insert("payload".to_owned(), payload.into());
    for name in ["extensions", "resource"] {
        if let Some(value) = challenge.message().get(name).filter(|v| !v.is_null()) {
            message.insert(name.to_owned(), value.clone());
        }
    }
    message.insert("accepted".to_owned(), choice.offer.clone());
    message.into()
}

fn valid_before(choice: &Choice, now: UnixSeconds) -> UnixSeconds {
    now.plus(choice.timeout_s.min(VALIDITY_MAX_S))
}

/// How long to wait before the same proof is worth sending again; `None` when it is not.
fn pause_before_repeat(answer: &reqwest::Result<Response>) -> Option<Duration> {
    match answer {
        Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {
            let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
            let seconds = value.trim().parse().ok()?;
            Some(Duration::from_secs(seconds).min(PAUSE_MAX))
        }
        Ok(_) => None,
        Err(_) => Some(BROKEN_PAUSE),
    }
}

async fn send(client: &Client, order: &Order, proof: Option<&Proof>) -> reqwest::Result<Response> {
    let mut headers = order.headers.clone();
    if let Some(proof) = proof {
        // Base64 is always a valid header value.
        if let Ok(mut value) = HeaderValue::from_str(&proof.value) {
            value.set_sensitive(true);
            headers.insert(proof.header, value);
        }
    }
    client
        .request(order.method.clone(), order.url.clone())
        .headers(headers)
        .body(order.body.clone())
        .send()
        .await
}

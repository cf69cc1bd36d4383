//! Makes proofs by hand, good ones and bad ones, from what a challenge offers.

use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256};
use farewall::clock::UnixSeconds;
use farewall::money::AtomicAmount;
use farewall::x402::eip712;
use farewall::x402::eip3009::Authorization;
use secp256k1::SecretKey;
use serde_json::{Value, json};

use super::encode;

pub const PAY_TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

/// A requirement out of a challenge.
#[derive(Clone, Debug)]
pub struct Offer(pub Value);

/// A buyer's key.
pub struct Signer {
    key: SecretKey,
    pub address: Address,
}

impl Signer {
    /// A buyer nobody has seen before.
    pub fn new() -> Self {
        let key = loop {
            if let Ok(key) = SecretKey::from_byte_array(rand::random()) {
                break key;
            }
        };
        Self {
            address: eip712::address_of(&key),
            key,
        }
    }

    /// An authorization that answers the offer, valid for the next five minutes.
    pub fn authorization(&self, offer: &Offer) -> Authorization {
        let text = |name: &str| offer.0[name].as_str().unwrap();
        Authorization::new(
            self.address,
            text("payTo").parse().unwrap(),
            AtomicAmount::parse(text("amount")).unwrap(),
            UnixSeconds(now() - 600),
            UnixSeconds(now() + 300),
            B256::from(rand::random::<[u8; 32]>()),
        )
    }

    /// The scheme payload for an authorization, signed under the offer's domain.
    pub fn payload(&self, offer: &Offer, authorization: &Authorization) -> Value {
        let extra = |name: &str| offer.0["extra"][name].as_str().unwrap();
        let chain = offer.0["network"]
            .as_str()
            .unwrap()
            .strip_prefix("eip155:")
            .unwrap();
        let domain = eip712::domain_separator(
            extra("name"),
            Some(extra("version")),
            chain.parse().unwrap(),
            offer.0["asset"].as_str().unwrap().parse().unwrap(),
        );
        let signature = eip712::sign(authorization.digest(domain), &self.key);
        Value::Object(authorization.to_payload(&signature))
    }

    /// A good proof as JSON.
    pub fn proof_json(&self, offer: &Offer) -> Value {
        let payload = self.payload(offer, &self.authorization(offer));
        json!({ "x402Version": 2, "payload": payload, "accepted": offer.0 })
    }

    /// A good proof as the value of `PAYMENT-SIGNATURE`.
    pub fn proof(&self, offer: &Offer) -> String {
        encode(&self.proof_json(offer))
    }

    /// A good proof as the value of `X-PAYMENT`.
    pub fn proof_v1(&self, offer: &Offer) -> String {
        let payload = self.payload(offer, &self.authorization(offer));
        encode(&json!({
            "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload,
        }))
    }
}

/// What `[accept.base-sepolia-usdc]` of the test configuration offers at this price.
pub fn offer(amount: u64) -> Offer {
    Offer(json!({
        "scheme": "exact",
        "network": "eip155:84532",
        "amount": amount.to_string(),
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": PAY_TO,
        "maxTimeoutSeconds": 300,
        "extra": { "name": "USDC", "version": "2" },
    }))
}

#[expect(clippy::disallowed_methods, reason = "tests live in real time")]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

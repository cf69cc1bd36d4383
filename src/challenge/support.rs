//! For tests: the protocol vectors, and offers made from their requirements.

use std::path::Path;
use std::sync::Arc;

use alloy_primitives::{Address, B256};
use serde_json::Value;

use crate::chain::{Asset, Network, PayTo};
use crate::clock::UnixSeconds;
use crate::money::{AtomicAmount, Decimals};
use crate::route::price::{EvmTerms, Method, Offer, Quote};
use crate::x402::eip712;
use crate::x402::permit2;

/// The clock of the vectors.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_760_000_000);

/// `tests/vectors/x402-exact-evm.json`.
pub(crate) fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/x402-exact-evm.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// One group of the vectors, which must have `count` members.
#[track_caller]
pub(crate) fn group(name: &str, count: usize) -> Vec<Value> {
    let vectors = vectors();
    let group = vectors[name].as_array().unwrap().clone();
    assert_eq!(group.len(), count, "{name}");
    group
}

/// The offer whose requirement this is, accepted under the name `test`, sold through `sandbox`.
pub(crate) fn offer(requirements: &Value) -> Offer {
    let text = |name: &str| requirements[name].as_str().unwrap();
    let network = Network::parse_caip2(text("network")).unwrap();
    Offer {
        accept: "test".into(),
        scheme: text("scheme").into(),
        v1_network: match network.as_str() {
            "eip155:8453" => Some("base"),
            "eip155:84532" => Some("base-sepolia"),
            _ => None,
        },
        asset: Asset::verbatim(text("asset")),
        symbol: "USDC".into(),
        decimals: Decimals::new(6).unwrap(),
        amount: AtomicAmount::parse(text("amount")).unwrap(),
        pay_to: PayTo::verbatim(text("payTo")),
        requirements: serde_json::from_value(requirements.clone()).unwrap(),
        requirements_json: requirements.clone(),
        requirements_text: requirements.to_string().into(),
        method: method(requirements, &network),
        network,
        facilitators: vec!["sandbox".into()],
    }
}

/// A quote of the offers with these requirements.
pub(crate) fn quote(requirements: &[&Value]) -> Quote {
    Quote {
        offers: requirements.iter().map(|r| Arc::new(offer(r))).collect(),
    }
}

fn method(requirements: &Value, network: &Network) -> Method {
    let (Some("exact"), Some(chain)) = (requirements["scheme"].as_str(), network.evm_chain_id())
    else {
        return Method::Opaque;
    };
    let address = |name: &str| {
        requirements[name]
            .as_str()
            .unwrap()
            .parse::<Address>()
            .unwrap()
    };
    let (asset, pay_to) = (address("asset"), address("payTo"));
    let extra = |name: &str| requirements["extra"][name].as_str();
    if extra("assetTransferMethod") == Some("permit2") {
        return Method::Permit2(EvmTerms {
            asset,
            pay_to,
            domain: permit2::domain(chain),
        });
    }
    let domain = match (extra("name"), extra("version")) {
        (Some(name), Some(version)) => eip712::domain_separator(name, Some(version), chain, asset),
        _ => B256::ZERO,
    };
    Method::Eip3009(EvmTerms {
        asset,
        pay_to,
        domain,
    })
}

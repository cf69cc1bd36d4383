//! From accepted ways of paying and amounts to quotes: what clients are told, and what proofs are checked against.
//!
//! Offers are made once. What `/supported` adds to them is pinned with them, because a payment is
//! matched against the offer again when it is made (fact sheet 2.6, 3.9).

use std::collections::HashMap;
use std::sync::Arc;

use alloy_primitives::{Address, address};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::chain::assets::{self, v1_name};
use crate::chain::{Asset, Network, PayTo, parse_evm_address};
use crate::config::settings::{AcceptMethod, AcceptSettings, Settings};
use crate::facilitator::supported::SupportedBook;
use crate::money::{AtomicAmount, Decimals};
use crate::route::RouteFault;
use crate::route::price::{EvmTerms, Method, Offer, Quote};
use crate::x402::eip712::domain_separator;
use crate::x402::message::PaymentRequirements;

/// Permit2, at the same address on every chain; its own EIP-712 domain has no version.
const PERMIT2: Address = address!("000000000022D473030F116dDEE9F6B43aC78BA3");

/// Legacy clients read at most so many digits of an amount, and drop the whole challenge over more.
const V1_AMOUNT_DIGITS_MAX: usize = 18;

/// A way of paying that cannot be offered now. The facilitator may list it later.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MissingOffer {
    /// Name in the configuration, `[accept.NAME]`.
    pub accept: Arc<str>,
    /// The scheme.
    pub scheme: Arc<str>,
    /// The network.
    pub network: Network,
    /// Facilitators that it could be settled through.
    pub facilitators: Vec<Arc<str>>,
    /// Those of them whose `/supported` is not known at all.
    pub unknown: Vec<Arc<str>>,
}

/// Makes quotes, and each offer only once.
pub(in crate::route) struct OfferMaker<'a> {
    settings: &'a Settings,
    supported: &'a SupportedBook,
    terms: HashMap<Arc<str>, Option<Arc<Terms>>>,
    offers: HashMap<(Arc<str>, AtomicAmount), Arc<Offer>>,
    missing: Vec<MissingOffer>,
}

/// What all offers of one way of paying have in common.
struct Terms {
    method: Method,
    extra: Map<String, Value>,
    facilitators: Vec<Arc<str>>,
}

impl<'a> OfferMaker<'a> {
    pub(in crate::route) fn new(settings: &'a Settings, supported: &'a SupportedBook) -> Self {
        Self {
            settings,
            supported,
            terms: HashMap::new(),
            offers: HashMap::new(),
            missing: Vec::new(),
        }
    }

    /// The quote of a rule, `None` when no way of paying can be offered now. A broken way of paying
    /// is reported once, under the first rule that accepts it.
    pub(in crate::route) fn quote(
        &mut self,
        accepts: &[(Arc<str>, AtomicAmount)],
        faults: &mut Vec<RouteFault>,
    ) -> Option<Arc<Quote>> {
        let mut offers = Vec::new();
        for (name, amount) in accepts {
            match self.offer(name, *amount) {
                Ok(Some(offer)) => offers.push(offer),
                Ok(None) => {}
                Err(fault) => faults.push(fault),
            }
        }
        (!offers.is_empty()).then(|| Arc::new(Quote { offers }))
    }

    /// What could not be offered.
    pub(in crate::route) fn into_missing(self) -> Vec<MissingOffer> {
        self.missing
    }

    fn offer(
        &mut self,
        name: &Arc<str>,
        amount: AtomicAmount,
    ) -> Result<Option<Arc<Offer>>, RouteFault> {
        let key = (Arc::clone(name), amount);
        if let Some(offer) = self.offers.get(&key) {
            return Ok(Some(Arc::clone(offer)));
        }
        let settings = self.settings;
        let accept = settings
            .accepts
            .get(name)
            .ok_or_else(|| RouteFault::UnknownAccept(Arc::clone(name)))?;
        let terms = match self.terms.get(name) {
            Some(terms) => terms.clone(),
            None => {
                self.terms.insert(Arc::clone(name), None); // reported once, even if it fails
                let terms = self.terms(accept)?.map(Arc::new);
                self.terms.insert(Arc::clone(name), terms.clone());
                terms
            }
        };
        let Some(terms) = terms else {
            return Ok(None);
        };
        let offer =
            Arc::new(
                make_offer(accept, &terms, amount).map_err(|e| RouteFault::BadAccept {
                    accept: Arc::clone(name),
                    problem: e.to_string(),
                })?,
            );
        self.offers.insert(key, Arc::clone(&offer));
        Ok(Some(offer))
    }

    fn terms(&mut self, accept: &AcceptSettings) -> Result<Option<Terms>, RouteFault> {
        let mut extra = Map::new();
        let method = match &accept.method {
            AcceptMethod::Eip3009 { name, version } => {
                extra.insert("name".to_owned(), name.as_str().into());
                extra.insert("version".to_owned(), version.as_str().into());
                let terms = evm_terms(accept, |chain, asset| {
                    domain_separator(name, Some(version), chain, asset)
                })?;
                Method::Eip3009(terms)
            }
            AcceptMethod::Permit2 { eip2612 } => {
                extra.insert("assetTransferMethod".to_owned(), "permit2".into());
                if let Some((name, version)) = eip2612 {
                    extra.insert("name".to_owned(), name.as_str().into());
                    extra.insert("version".to_owned(), version.as_str().into());
                }
                let terms = evm_terms(accept, |chain, _| {
                    domain_separator("Permit2", None, chain, PERMIT2)
                })?;
                Method::Permit2(terms)
            }
            AcceptMethod::Opaque => return Ok(self.opaque_terms(accept)),
        };
        refuse_unsupported(accept, self.supported)?;
        for (key, value) in &accept.extra {
            // What proofs are checked with here must be what clients sign with.
            extra.entry(key.clone()).or_insert_with(|| value.clone());
        }
        Ok(Some(Terms {
            method,
            extra,
            facilitators: accept.facilitators.clone(),
        }))
    }

    /// `extra` comes from the first facilitator that lists the kind, with the operator's values over it.
    ///
    /// Only facilitators that would say the same can settle such an offer: `feePayer` is the
    /// facilitator's own account.
    fn opaque_terms(&mut self, accept: &AcceptSettings) -> Option<Terms> {
        let kind = |name: &Arc<str>| {
            let supported = self.supported.get(name)?;
            supported.v2(&accept.scheme, accept.network.as_str())
        };
        let first = accept.facilitators.iter().find_map(kind);
        let Some(first) = first else {
            let unknown = |name: &&Arc<str>| !self.supported.contains_key(*name);
            self.missing.push(MissingOffer {
                accept: Arc::clone(&accept.name),
                scheme: Arc::clone(&accept.scheme),
                network: accept.network.clone(),
                facilitators: accept.facilitators.clone(),
                unknown: accept
                    .facilitators
                    .iter()
                    .filter(unknown)
                    .cloned()
                    .collect(),
            });
            return None;
        };
        let mut extra = first.extra.clone().unwrap_or_default();
        extra.extend(accept.extra.clone());
        let same = |name: &&Arc<str>| kind(name).is_some_and(|k| k.extra == first.extra);
        Some(Terms {
            method: Method::Opaque,
            extra,
            facilitators: accept.facilitators.iter().filter(same).cloned().collect(),
        })
    }
}

/// A facilitator that is known not to handle a way of paying would refuse every payment.
fn refuse_unsupported(
    accept: &AcceptSettings,
    supported: &SupportedBook,
) -> Result<(), RouteFault> {
    for name in &accept.facilitators {
        let Some(supported) = supported.get(name) else {
            continue;
        };
        if supported
            .v2(&accept.scheme, accept.network.as_str())
            .is_none()
        {
            return Err(RouteFault::NotSupported {
                accept: Arc::clone(&accept.name),
                facilitator: Arc::clone(name),
                scheme: Arc::clone(&accept.scheme),
                network: accept.network.to_string(),
            });
        }
    }
    Ok(())
}

/// Whether no way of paying in the settings, used or not, is one that a facilitator is known not to handle.
pub(in crate::route) fn refuses_none(settings: &Settings, supported: &SupportedBook) -> bool {
    let mut accepts = settings.accepts.values();
    accepts.all(|accept| refuse_unsupported(accept, supported).is_ok())
}

fn evm_terms(
    accept: &AcceptSettings,
    domain: impl FnOnce(u64, Address) -> alloy_primitives::B256,
) -> Result<EvmTerms, RouteFault> {
    let bad = |problem: String| RouteFault::BadAccept {
        accept: Arc::clone(&accept.name),
        problem,
    };
    let chain = accept
        .network
        .evm_chain_id()
        .ok_or_else(|| bad(format!("{} is not an EVM network", accept.network)))?;
    let asset = parse_evm_address(accept.asset.as_str()).map_err(|e| bad(e.to_string()))?;
    let pay_to = parse_evm_address(accept.pay_to.as_str()).map_err(|e| bad(e.to_string()))?;
    Ok(EvmTerms {
        asset,
        pay_to,
        domain: domain(chain, asset),
    })
}

fn make_offer(
    accept: &AcceptSettings,
    terms: &Terms,
    amount: AtomicAmount,
) -> Result<Offer, serde_json::Error> {
    let requirements = PaymentRequirements {
        scheme: accept.scheme.to_string(),
        network: accept.network.to_string(),
        amount: amount.to_string(),
        asset: accept.asset.to_string(),
        pay_to: accept.pay_to.to_string(),
        max_timeout_seconds: accept.max_timeout.as_secs(),
        extra: (!terms.extra.is_empty()).then(|| terms.extra.clone()),
    };
    let v1_network = match terms.method {
        Method::Eip3009(_) if requirements.amount.len() <= V1_AMOUNT_DIGITS_MAX => {
            v1_name(&accept.network)
        }
        Method::Eip3009(_) | Method::Permit2(_) | Method::Opaque => None,
    };
    let requirements_json = serde_json::to_value(&requirements)?;
    Ok(Offer {
        accept: Arc::clone(&accept.name),
        scheme: Arc::clone(&accept.scheme),
        network: accept.network.clone(),
        v1_network: v1_network.filter(|_| &*accept.scheme == "exact"),
        asset: accept.asset.clone(),
        symbol: Arc::clone(&accept.symbol),
        decimals: accept.decimals,
        amount,
        pay_to: accept.pay_to.clone(),
        requirements_text: requirements_json.to_string().into(),
        requirements_json,
        requirements,
        method: terms.method.clone(),
        facilitators: terms.facilitators.clone(),
    })
}

/// The offer that these requirements are, as they were sent to a facilitator earlier or are named by
/// a client; `None` when they cannot be read.
///
/// It names no facilitator and no symbol: it is for recognising a payment, not for selling.
#[must_use]
pub fn remembered(accept: &Arc<str>, requirements_json: Value) -> Option<Offer> {
    let requirements = PaymentRequirements::deserialize(&requirements_json).ok()?;
    let network = Network::parse_caip2(&requirements.network).ok()?;
    let extra = |name: &str| requirements.extra.as_ref()?.get(name)?.as_str();
    let address = |text: &str| parse_evm_address(text).ok();
    let evm = network
        .evm_chain_id()
        .filter(|_| requirements.scheme == "exact");
    let method = match evm {
        None => Method::Opaque,
        Some(chain) => {
            let (asset, pay_to) = (
                address(&requirements.asset)?,
                address(&requirements.pay_to)?,
            );
            let is_permit2 = extra("assetTransferMethod") == Some("permit2");
            let domain = match is_permit2 {
                true => domain_separator("Permit2", None, chain, PERMIT2),
                false => domain_separator(extra("name")?, Some(extra("version")?), chain, asset),
            };
            let terms = EvmTerms {
                asset,
                pay_to,
                domain,
            };
            match is_permit2 {
                true => Method::Permit2(terms),
                false => Method::Eip3009(terms),
            }
        }
    };
    let (asset, pay_to) = match &method {
        Method::Eip3009(terms) | Method::Permit2(terms) => {
            (Asset::evm(terms.asset), PayTo::evm(terms.pay_to))
        }
        Method::Opaque => (
            Asset::verbatim(&requirements.asset),
            PayTo::verbatim(&requirements.pay_to),
        ),
    };
    Some(Offer {
        accept: Arc::clone(accept),
        scheme: requirements.scheme.as_str().into(),
        v1_network: match method {
            Method::Eip3009(_) => v1_name(&network),
            Method::Permit2(_) | Method::Opaque => None,
        },
        network,
        asset,
        symbol: "".into(),
        decimals: Decimals::new(0).ok()?,
        amount: AtomicAmount::parse(&requirements.amount).ok()?,
        pay_to,
        requirements_text: requirements_json.to_string().into(),
        requirements_json,
        requirements,
        method,
        facilitators: Vec::new(),
    })
}

/// A price for people: `0.001 USDC on Base Sepolia (1000 atomic units)`.
#[must_use]
pub fn in_words(accept: &AcceptSettings, amount: AtomicAmount) -> String {
    format!(
        "{} {} on {} ({amount} atomic units)",
        amount.in_tokens(accept.decimals),
        accept.symbol,
        assets::network_label(&accept.network),
    )
}

#[cfg(test)]
mod tests;

//! What a payment was presented for.

use sha2::{Digest, Sha256};

use crate::gate::Ask;
use crate::ledger::{Fingerprint, NewClaim};
use crate::proof::{Proof, VerifiedProof};
use crate::route::PricedRoute;

/// Method, authority, path, query, rule, `Idempotency-Key`, and whether there is a body.
///
/// HEAD and GET are different requests: a payment for one does not collect the other. Where the
/// proof's signature could not be checked here (contract wallets, other chains) the credential
/// takes part too, or knowing the nonce would be enough to collect somebody's response. The digest
/// of the body is compared apart, because bodies stream through and it is known only at their end.
#[must_use]
pub fn fingerprint(ask: &Ask<'_>, rule: &str, proof: &Proof) -> Fingerprint {
    let credential = proof.unchecked_credential();
    let mut hash = Sha256::new();
    let body = if ask.has_body { "body" } else { "" };
    let authority = ask.host.authority();
    let query = ask.target.query.as_deref();
    for field in [
        ask.method.as_bytes(),
        authority.as_bytes(),
        ask.target.path.as_bytes(),
        if query.is_some() { b"?" } else { b"" },
        query.unwrap_or_default().as_bytes(),
        rule.as_bytes(),
        body.as_bytes(),
        credential.unwrap_or_default(),
        ask.idempotency_key.unwrap_or_default(),
    ] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    Fingerprint(hash.finalize().into())
}

/// Everything that the ledger should know of a claim.
pub(super) fn new_claim(
    ask: &Ask<'_>,
    route: &PricedRoute,
    proof: &VerifiedProof,
    presented_for: Fingerprint,
) -> NewClaim {
    let checked = proof.proof();
    let offer = checked.offer();
    NewClaim {
        payment: checked.key(),
        fingerprint: presented_for,
        rule: route.rule.clone(),
        accept: offer.accept.clone(),
        scheme: offer.scheme.clone(),
        network: offer.network.clone(),
        asset: offer.asset.clone(),
        amount: offer.amount,
        payer: proof.payer().clone(),
        pay_to: offer.pay_to.clone(),
        nonce: checked.payment().nonce.to_string().into(),
        valid_before: checked.valid_before(),
        request: format!("{} {}{}", ask.method, ask.host.authority(), ask.target.path).into(),
        settle_request: checked.request().body.clone(),
    }
}

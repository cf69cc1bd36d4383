//! Judges a proof without asking anybody: recipient, time window, signature, amount.
//!
//! The rules are those of the official facilitator, so that nothing it would refuse costs a call.
//! Time and recipient come before the signature, which costs a curve operation; the amount comes
//! after it, because a value changed after signing must be called a bad signature.
//! Rule: fact sheet sections 3.3 and 3.5. Balance, nonce and contract wallets are the facilitator's.

use alloy_primitives::{Address, B256};

use super::signers::Signed;
use super::{Proof, ProofError, Signers, Terms, Transfer};
use crate::clock::UnixSeconds;
use crate::money::AtomicAmount;
use crate::route::price::EvmTerms;
use crate::x402::eip712::Signature;
use crate::x402::eip3009;
use crate::x402::permit2;

/// How long an authorization must still be valid, in seconds: the official facilitator's margin.
pub const SETTLE_MARGIN_S: u64 = 6;

/// A proof that holds as far as can be judged here. Only [`check()`] makes one.
#[derive(Debug)]
pub struct CheckedProof(Proof);

impl CheckedProof {
    /// The proof.
    #[must_use]
    pub const fn proof(&self) -> &Proof {
        &self.0
    }

    /// Whether it can be settled from `now` on. Both bounds are inclusive: `valid_after <= now` and
    /// `now + SETTLE_MARGIN_S <= valid_before`.
    ///
    /// # Errors
    ///
    /// [`ProofError::Expired`] or [`ProofError::NotYetValid`]; both become 402.
    pub fn in_time(&self, now: UnixSeconds) -> Result<(), ProofError> {
        let transfer = match self.0.terms {
            Terms::Eip3009 { .. } => Transfer::Eip3009,
            Terms::Permit2 { .. } => Transfer::Permit2,
            Terms::Opaque => return Ok(()),
        };
        if self.0.valid_before < now.plus(SETTLE_MARGIN_S) {
            return Err(ProofError::Expired(transfer));
        }
        if self.0.valid_after > now {
            return Err(ProofError::NotYetValid(transfer));
        }
        Ok(())
    }

    pub(in crate::proof) fn into_proof(self) -> Proof {
        self.0
    }
}

/// Judges `proof` at `now`: [`identify`], then [`CheckedProof::in_time`]. Its signer is recovered, whoever
/// asked before.
///
/// # Errors
///
/// [`ProofError`]; all of them become 402.
pub fn check(proof: Proof, now: UnixSeconds) -> Result<CheckedProof, ProofError> {
    let proof = identify(proof, now, &Signers::forgetful())?;
    proof.in_time(now)?;
    Ok(proof)
}

/// Judges everything but the time: who signed, for whom, how much. A debt is collected with a proof
/// that is good in this sense, however old. Opaque proofs pass: only their facilitator can read them.
///
/// `now` only chooses among several reasons to refuse: the official facilitator looks at the time
/// before signature, amount and token, and so are clients told.
///
/// # Errors
///
/// [`ProofError`]; all of them become 402.
pub fn identify(
    proof: Proof,
    now: UnixSeconds,
    signers: &Signers,
) -> Result<CheckedProof, ProofError> {
    let extra = proof.offer.requirements.extra.as_ref();
    let named = |member: &str| {
        extra
            .and_then(|e| e.get(member))
            .and_then(|v| v.as_str())
            .is_some_and(|t| !t.is_empty())
    };
    if matches!(proof.terms, Terms::Eip3009 { .. }) && !(named("name") && named("version")) {
        return Err(ProofError::MissingDomain);
    }
    let judged = judge(&proof.terms, proof.offer.amount, signers);
    let checked = CheckedProof(proof);
    match judged {
        Ok(()) => Ok(checked),
        Err(error) if is_looked_at_late(&error) => checked.in_time(now).and(Err(error)),
        Err(error) => Err(error),
    }
}

/// Whether the official facilitator finds this only after the time window.
const fn is_looked_at_late(error: &ProofError) -> bool {
    matches!(
        error,
        ProofError::Signature { .. } | ProofError::Amount(_) | ProofError::Token
    )
}

/// Whether what was signed pays `price` under the terms it is held against.
pub(in crate::proof) fn judge(
    terms: &Terms,
    price: AtomicAmount,
    signers: &Signers,
) -> Result<(), ProofError> {
    match terms {
        Terms::Eip3009 {
            authorization,
            signature,
            offer,
        } => judge_eip3009(authorization, (signature, signers), offer, price),
        Terms::Permit2 {
            authorization,
            signature,
            offer,
        } => judge_permit2(authorization, (signature, signers), offer, price),
        Terms::Opaque => Ok(()),
    }
}

fn judge_eip3009(
    authorization: &eip3009::Authorization,
    signature: (&Signature, &Signers),
    offer: &EvmTerms,
    price: AtomicAmount,
) -> Result<(), ProofError> {
    let transfer = Transfer::Eip3009;
    if authorization.to != offer.pay_to {
        return Err(ProofError::Recipient(transfer));
    }
    let signed = Signed {
        domain: offer.domain,
        words: &authorization.words(),
    };
    let digest = || authorization.digest(offer.domain);
    judge_signature(transfer, authorization.from, (&signed, digest), signature)?;
    if authorization.value != price {
        return Err(ProofError::Amount(transfer));
    }
    Ok(())
}

fn judge_permit2(
    authorization: &permit2::Authorization,
    signature: (&Signature, &Signers),
    offer: &EvmTerms,
    price: AtomicAmount,
) -> Result<(), ProofError> {
    let transfer = Transfer::Permit2;
    if authorization.spender != permit2::EXACT_PROXY {
        return Err(ProofError::Spender);
    }
    if authorization.to != offer.pay_to {
        return Err(ProofError::Recipient(transfer));
    }
    if authorization.amount != price {
        return Err(ProofError::Amount(transfer));
    }
    if authorization.token != offer.asset {
        return Err(ProofError::Token);
    }
    let signed = Signed {
        domain: offer.domain,
        words: &authorization.words(),
    };
    let digest = || authorization.digest(offer.domain);
    judge_signature(transfer, authorization.from, (&signed, digest), signature)
}

/// A key's signature must be the payer's own. That is stricter than the chain for wallets whose
/// EIP-1271 signature has exactly 65 bytes: they must wrap it as ERC-6492. Signatures of contract
/// wallets pass, and the facilitator judges them.
fn judge_signature(
    transfer: Transfer,
    payer: Address,
    (signed, digest): (&Signed<'_>, impl FnOnce() -> B256),
    (signature, signers): (&Signature, &Signers),
) -> Result<(), ProofError> {
    let Signature::Eoa(signature) = signature else {
        return Ok(());
    };
    match signers.signer(signed, signature, digest) {
        Ok(signer) if signer == payer => Ok(()),
        Ok(_) => Err(ProofError::Signature {
            transfer,
            cause: None,
        }),
        Err(cause) => Err(ProofError::Signature {
            transfer,
            cause: Some(cause),
        }),
    }
}

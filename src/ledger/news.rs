//! What a move adds to a record, the same for every store.

use crate::chain::Payer;
use crate::ledger::{BodyDigest, Move};

/// What a move adds to a record; `None` leaves what is there.
#[derive(Default)]
pub(in crate::ledger) struct News<'m> {
    pub(in crate::ledger) facilitator: Option<&'m str>,
    pub(in crate::ledger) transaction: Option<&'m str>,
    pub(in crate::ledger) receipt: Option<&'m str>,
    pub(in crate::ledger) reason: Option<&'m str>,
    pub(in crate::ledger) payer: Option<&'m Payer>,
    pub(in crate::ledger) body: Option<BodyDigest>,
}

impl<'m> News<'m> {
    pub(in crate::ledger) fn of(step: &'m Move) -> Self {
        let none = Self::default();
        match step {
            Move::Settling { facilitator } => Self {
                facilitator: Some(facilitator),
                ..none
            },
            Move::Settled {
                facilitator,
                transaction,
                receipt,
                payer,
                body,
            } => Self {
                facilitator: facilitator.as_deref(),
                transaction: Some(transaction),
                receipt: Some(receipt),
                payer: payer.as_ref(),
                body: *body,
                ..none
            },
            Move::Delivered => none,
            Move::Released { reason } | Move::Expired { reason } => Self {
                reason: Some(reason),
                ..none
            },
            Move::Refused { reason, receipt } => Self {
                reason: Some(reason),
                receipt: Some(receipt),
                ..none
            },
        }
    }
}

//! What this wall has in hand, in memory: the other half of the lease.
//!
//! The database knows which wall holds a claim; only that wall knows whether anybody in it still works
//! on it. Each hold has a random number, the *attempt*, chosen before anything is sent: so an insert
//! whose answer was lost can be recognised when it is repeated, and given back when it is not wanted.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use crate::ledger::ClaimId;

/// A number that one hold of one claim has, and no other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Attempt(pub(super) i64);

impl Attempt {
    /// One that nobody has; for holds that nobody in this wall works on.
    pub(super) fn new() -> Self {
        Self(rand::random())
    }
}

/// The holds of this wall.
#[derive(Debug, Default)]
pub(super) struct Hand(Mutex<Holds>);

#[derive(Debug, Default)]
struct Holds {
    attempts: HashSet<Attempt>,
    claims: HashMap<ClaimId, Attempt>,
}

impl Hand {
    /// Begins a hold, before the database is asked.
    pub(super) fn begin(&self) -> Begun<'_> {
        let mut holds = self.0.lock();
        let mut attempt = Attempt::new();
        while !holds.attempts.insert(attempt) {
            attempt = Attempt::new();
        }
        Begun {
            attempt,
            hand: self,
            claim: None,
        }
    }

    /// Ends the hold of this claim. It never begins again, so whatever the database still has under it
    /// is nobody's.
    pub(super) fn let_go(&self, id: ClaimId) -> Option<Attempt> {
        let mut holds = self.0.lock();
        let attempt = holds.claims.remove(&id)?;
        holds.attempts.remove(&attempt);
        Some(attempt)
    }

    /// The hold of this claim.
    pub(super) fn attempt(&self, id: ClaimId) -> Option<Attempt> {
        self.0.lock().claims.get(&id).copied()
    }

    /// Whether somebody works under this hold.
    pub(super) fn has(&self, attempt: Attempt) -> bool {
        self.0.lock().attempts.contains(&attempt)
    }
}

/// A hold that begins. Dropped before it is known to be of a claim, it ends.
pub(super) struct Begun<'h> {
    pub(super) attempt: Attempt,
    hand: &'h Hand,
    claim: Option<ClaimId>,
}

impl Begun<'_> {
    /// The hold is of this claim, and stays.
    pub(super) fn hold(mut self, id: ClaimId) {
        self.claim = Some(id);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut holds = self.hand.0.lock();
        let over = match self.claim {
            Some(id) => holds.claims.insert(id, self.attempt),
            None => Some(self.attempt),
        };
        if let Some(over) = over {
            holds.attempts.remove(&over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_once_and_for_all() {
        let hand = Hand::default();
        let (first, second, failed) = (hand.begin(), hand.begin(), hand.begin());
        let (one, two, three) = (first.attempt, second.attempt, failed.attempt);
        assert!(one != two && hand.has(one) && hand.has(two) && hand.has(three));
        drop(failed);
        assert!(!hand.has(three));
        first.hold(ClaimId(1));
        assert_eq!(hand.attempt(ClaimId(1)), Some(one));
        second.hold(ClaimId(1));
        assert!(!hand.has(one), "a second hold of one claim ends the first");
        assert_eq!(hand.let_go(ClaimId(1)), Some(two));
        assert_eq!(hand.let_go(ClaimId(1)), None);
        assert!(!hand.has(two));
    }
}

//! DESIGN invariant 3 and the rules of moving, over random sequences, against a model in memory.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Claim {
        payment: u64,
        amount: u128,
        euro: bool,
    },
    Advance {
        claim: prop::sample::Index,
        to: State,
    },
    Restart,
    ReleaseAbandoned,
    Prune,
}

/// A claim as the model keeps it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Modelled {
    payment: u64,
    amount: u128,
    euro: bool,
    state: State,
    valid_before: UnixSeconds,
    changed_at: UnixSeconds,
}

#[derive(Default)]
struct Model {
    claims: BTreeMap<i64, Modelled>,
    /// Numbers up to here belong to earlier processes.
    earlier: i64,
    newest: i64,
}

impl Model {
    fn holder(&self, payment: u64) -> Option<i64> {
        let holds = |claim: &Modelled| claim.payment == payment && claim.state.holds_payment();
        self.claims
            .iter()
            .find(|(_, claim)| holds(claim))
            .map(|(id, _)| *id)
    }

    /// Sum and count by state and token.
    fn totals(&self) -> BTreeMap<(State, bool), (u64, u128)> {
        let mut totals = BTreeMap::<_, (u64, u128)>::new();
        for claim in self.claims.values() {
            let total = totals.entry((claim.state, claim.euro)).or_default();
            *total = (total.0 + 1, total.1 + claim.amount);
        }
        totals
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = prop_oneof![
        0_u128..3,
        // Where a float begins to lose units, and far beyond 64 bits.
        (1_u128 << 53) - 2..(1 << 53) + 3,
        (1_u128 << 100) - 2..(1 << 100) + 3,
    ];
    let claim = (0_u64..5, amount, any::<bool>()).prop_map(|(payment, amount, euro)| Step::Claim {
        payment,
        amount,
        euro,
    });
    let advance =
        (any::<prop::sample::Index>(), 1..STATES.len()).prop_map(|(claim, to)| Step::Advance {
            claim,
            to: STATES[to],
        });
    let step = prop_oneof![
        8 => claim,
        12 => advance,
        1 => Just(Step::Restart),
        1 => Just(Step::ReleaseAbandoned),
        1 => Just(Step::Prune),
    ];
    prop::collection::vec(step, 1..60)
}

type Checked = Result<(), TestCaseError>;

/// The model and the ledger side by side. Each step is done to both, and their answers must agree.
struct Both {
    model: Model,
    ledger: SqliteLedger,
    runtime: Runtime,
}

impl Both {
    fn take(&mut self, step: Step, now: UnixSeconds, path: &Path) -> Checked {
        match step {
            Step::Claim {
                payment,
                amount,
                euro,
            } => self.claim(payment, amount, euro, now),
            Step::Advance { claim, to } => {
                self.advance(i64::try_from(claim.index(70)).unwrap(), to, now)
            }
            Step::Restart => {
                self.model.earlier = self.model.claims.keys().last().copied().unwrap_or(0);
                self.ledger = SqliteLedger::open(path).unwrap();
                Ok(())
            }
            Step::ReleaseAbandoned => self.release_abandoned(now),
            Step::Prune => self.prune(now.minus(6)),
        }
    }

    fn claim(&mut self, payment: u64, amount: u128, euro: bool, now: UnixSeconds) -> Checked {
        let valid_before = now.plus(4);
        let new = NewClaim {
            amount: AtomicAmount::new(amount),
            asset: Asset::verbatim(if euro { "EURC" } else { "USDC" }),
            valid_before,
            ..new_claim(payment)
        };
        let answer = self.runtime.block_on(self.ledger.claim(new, now)).unwrap();
        match (answer, self.model.holder(payment)) {
            (ClaimAnswer::Held(record), Some(holder)) => prop_assert_eq!(record.id.0, holder),
            (ClaimAnswer::Claimed(claim), None) => {
                let id = claim.id().0;
                prop_assert!(id > self.model.newest, "a number was used twice");
                self.model.newest = id;
                let (state, changed_at) = (State::Claimed, now);
                let claim = Modelled {
                    payment,
                    amount,
                    euro,
                    state,
                    valid_before,
                    changed_at,
                };
                self.model.claims.insert(id, claim);
            }
            (answer, holder) => prop_assert!(false, "{answer:?}, but held by {holder:?}"),
        }
        Ok(())
    }

    fn advance(&mut self, id: i64, to: State, now: UnixSeconds) -> Checked {
        let step = move_to(to).unwrap();
        let moved = self
            .runtime
            .block_on(self.ledger.advance(ClaimId(id), step, now));
        match (moved, self.model.claims.get_mut(&id)) {
            (Err(LedgerError::NoSuchClaim(which)), None) => prop_assert_eq!(which, id),
            (Err(LedgerError::IllegalMove { found, .. }), Some(claim)) => {
                prop_assert_eq!(found, claim.state);
                prop_assert!(!claim.state.may_become(to));
            }
            (Ok(()), Some(claim)) => {
                prop_assert!(claim.state.may_become(to));
                (claim.state, claim.changed_at) = (to, now);
            }
            (moved, claim) => prop_assert!(false, "{moved:?}, but {claim:?}"),
        }
        Ok(())
    }

    fn release_abandoned(&mut self, now: UnixSeconds) -> Checked {
        let mut released = 0;
        for (_, claim) in self.model.claims.range_mut(..=self.model.earlier) {
            if claim.state == State::Claimed {
                (claim.state, claim.changed_at) = (State::Released, now);
                released += 1;
            }
        }
        let answer = self
            .runtime
            .block_on(self.ledger.release_abandoned(now))
            .unwrap();
        prop_assert_eq!(answer, released);
        Ok(())
    }

    fn prune(&mut self, before: UnixSeconds) -> Checked {
        let count = self.model.claims.len();
        self.model.claims.retain(|_, claim| {
            // These expired with an unknown outcome, which is a person's business for ever.
            let open = matches!(
                claim.state,
                State::Claimed | State::Settling | State::Settled | State::Expired
            );
            // Only what was delivered holds its payment, as long as that can be presented.
            let holds = claim.state == State::Delivered && claim.valid_before >= before;
            open || holds || claim.changed_at >= before
        });
        let gone = u64::try_from(count - self.model.claims.len()).unwrap();
        let pruned = upkeep::prune_all(&self.ledger, before);
        prop_assert_eq!(self.runtime.block_on(pruned), gone);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_does_what_the_model_does_and_every_unit_is_in_one_state(steps in steps()) {
        let (directory, ledger) = fresh();
        let path = directory.path().join("farewall.db");
        let runtime = Builder::new_current_thread().build().unwrap();
        let mut both = Both { model: Model::default(), ledger, runtime };
        for (tick, step) in (0_u64..).zip(steps) {
            both.take(step, NOW.plus(tick), &path)?;
        }
        let Both { model, ledger, runtime } = both;
        let totals = runtime.block_on(ledger.totals(Filter::default())).unwrap();
        let by_state: BTreeMap<_, _> = totals
            .iter()
            .map(|total| {
                let key = (total.state, total.asset.as_str() == "EURC");
                (key, (total.count, total.amount.units()))
            })
            .collect();
        prop_assert_eq!(by_state.len(), totals.len(), "one total for each state and token");
        prop_assert_eq!(&by_state, &model.totals());
        let listed = runtime.block_on(ledger.list(Filter::default())).unwrap();
        let claimed: u128 = listed.iter().map(|record| record.claim.amount.units()).sum();
        prop_assert_eq!(by_state.values().map(|(_, sum)| sum).sum::<u128>(), claimed);
        for record in listed {
            let modelled = &model.claims[&record.id.0];
            prop_assert_eq!(record.state, modelled.state);
            prop_assert_eq!(record.changed_at, modelled.changed_at);
        }
    }
}

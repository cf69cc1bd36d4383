//! Any order of presentations, answers, hang-ups, misbehaviours and clock steps, over a few payments.

use proptest::prelude::*;

use super::*;

const PAYMENTS: u64 = 3;
const PATHS: [&str; 2] = ["/a", "/b"];

#[derive(Clone, Debug)]
enum Act {
    Present {
        payment: u64,
        path: usize,
    },
    /// The upstream answers the n-th open request.
    Answer {
        nth: usize,
        status: u16,
    },
    /// The n-th open request is over.
    End {
        nth: usize,
        delivered: bool,
    },
    /// The client and all that belongs to the request are gone.
    Drop {
        nth: usize,
    },
    Behave(Manner),
    Step(i64),
    Reconcile,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let present =
        (0..PAYMENTS, 0..PATHS.len()).prop_map(|(payment, path)| Act::Present { payment, path });
    let answer = (0_usize..4, prop_oneof![4 => Just(200_u16), 1 => Just(500)])
        .prop_map(|(nth, status)| Act::Answer { nth, status });
    let manner = prop_oneof![
        4 => Just(Manner::Honest),
        1 => Just(Manner::LosesAnswers),
        1 => Just(Manner::Silent),
        1 => Just(Manner::Refuses),
        1 => Just(Manner::Away),
    ];
    let act = prop_oneof![
        6 => present,
        6 => answer,
        3 => (0_usize..4, any::<bool>()).prop_map(|(nth, delivered)| Act::End { nth, delivered }),
        1 => (0_usize..4).prop_map(|nth| Act::Drop { nth }),
        2 => manner.prop_map(Act::Behave),
        1 => prop_oneof![Just(HOUR), Just(-HOUR)].prop_map(Act::Step),
        1 => Just(Act::Reconcile),
    ];
    proptest::collection::vec(act, 1..40)
}

/// A request between the two doors, or behind them.
struct Open {
    payment: u64,
    path: usize,
    paid: Box<Paid>,
    /// Its claim was given back: the payment is free for the next.
    given_back: bool,
}

#[derive(Default)]
struct Seen {
    open: Vec<Open>,
    /// For which path each payment was sold.
    sold: BTreeMap<u64, usize>,
}

impl Seen {
    async fn take(&mut self, world: &World, act: Act) {
        match act {
            Act::Present { payment, path } => {
                if let Ok(Admission::Paid(paid)) = world.present(payment, PATHS[path]).await {
                    let sold = self.sold.get(&payment);
                    assert!(sold.is_none_or(|sold| *sold == path), "sold for another");
                    let holds = |open: &Open| open.payment == payment && !open.given_back;
                    let taken = self.open.iter().any(holds);
                    assert!(!taken, "admitted twice at once");
                    let open = Open {
                        payment,
                        path,
                        paid,
                        given_back: false,
                    };
                    self.open.push(open);
                }
            }
            Act::Answer { nth, status } => {
                if let Some(open) = self.open.get_mut(nth) {
                    let released = world.gate.release(&mut open.paid, status, None).await;
                    open.given_back |= matches!(released, Ok(Release::Uncharged));
                    if let (Ok(Release::Charged(_)), true) = (released, status < 400) {
                        assert_eq!(world.bank.moved(open.payment), 1, "served unpaid");
                        let states = world.states(open.payment).await;
                        assert!(states.iter().any(|state| state.is_paid()), "not on record");
                        self.sold.insert(open.payment, open.path);
                    }
                }
            }
            Act::End { nth, delivered } => {
                if nth < self.open.len() {
                    let open = self.open.remove(nth);
                    world.finish(open.paid, delivered).await;
                }
            }
            Act::Drop { nth } => {
                if nth < self.open.len() {
                    drop(self.open.remove(nth));
                    world.rest().await;
                }
            }
            Act::Behave(manner) => *world.bank.manner.lock() = manner,
            Act::Step(seconds) => world.clock.step(seconds),
            Act::Reconcile => world.reconcile().await,
        }
    }
}

/// The bank's book against the ledger, when nothing is under way.
async fn check_books(world: &World) {
    for payment in 0..PAYMENTS {
        let (moved, states) = (world.bank.moved(payment), world.states(payment).await);
        let is = |state| states.contains(&state);
        assert!(moved <= 1, "{payment} moved {moved} times");
        assert!(!is(State::Claimed), "{payment}: nobody works on {states:?}");
        let holding = states.iter().filter(|s| s.holds_payment()).count();
        assert!(holding <= 1, "{payment}: {states:?}");
        let booked = [
            State::Settling,
            State::Settled,
            State::Delivered,
            State::Expired,
        ];
        let is_booked = booked.into_iter().any(is);
        assert!(moved == 0 || is_booked, "{payment} moved: {states:?}");
        assert!(
            moved == 1 || !states.iter().any(|s| s.is_paid()),
            "{payment}: {states:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// DESIGN, invariants 1 to 4.
    #[test]
    fn nothing_is_sold_unpaid_or_twice_in_any_order(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (world, mut seen) = (World::new(), Seen::default());
            for act in acts {
                seen.take(&world, act).await;
            }
            seen.open.clear();
            world.rest().await;
            check_books(&world).await;
            *world.bank.manner.lock() = Manner::Honest;
            world.reconcile().await;
            check_books(&world).await;
            for payment in 0..PAYMENTS {
                // Unknown is only what did happen, and nobody tells.
                let unknown = world.states(payment).await.contains(&State::Settling);
                assert!(!unknown || world.bank.moved(payment) == 1);
            }
        });
    }
}

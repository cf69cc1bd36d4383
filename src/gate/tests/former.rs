//! Prices that have changed: what was offered is honoured as long as it was offered, and what was
//! paid is delivered for ever.

use proptest::prelude::*;

use super::*;
use crate::config::settings::RuleAccess::{self, Deny, Free};
use crate::config::settings::Settings;
use crate::gate::former::TABLES_MAX;
use crate::route::fixture::{rule, shadowed};

const OTHER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

impl World {
    fn reload(&mut self, settings: &Settings) {
        let routes = RouteTable::build(settings, &SupportedBook::new()).unwrap();
        let before = self.gate.verifier();
        let verifier = before.successor((**before.facilitators()).clone(), false);
        let limits = self.gate.limits.clone();
        self.gate = self.gate.successor(routes, verifier, limits);
    }

    fn sell(&mut self, access: RuleAccess) {
        self.reload(&settings(rules(&[("/{name}", access)])));
    }

    async fn is_sold(&self, n: u64, path: &str) -> bool {
        match self.present(n, path).await {
            Ok(Admission::Paid(_)) => true,
            Err(PaymentRefusal::Proof(ProofError::NoMatch)) => false,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_old_price_is_honoured_until_its_challenges_end_and_not_after() {
    let mut world = World::new();
    world.clock.step(-200);
    world.sell(priced(2 * PRICE));
    assert!(world.is_sold(1, "/a").await);
    world.clock.step(300);
    assert!(world.is_sold(2, "/a").await, "the last second");
    world.clock.step(1);
    assert!(!world.is_sold(3, "/a").await, "the first second after");
    world.sell(priced(PRICE));
    assert!(world.is_sold(4, "/a").await, "offered again");
}

#[tokio::test]
async fn a_former_price_is_for_what_it_was_the_price_of() {
    let mut world = World::new();
    world.clock.step(-400);
    world.reload(&settings(rules(&[
        ("/a", priced(PRICE)),
        ("/b", priced(7)),
    ])));
    world.clock.step(301); // what the world began with is over
    world.reload(&settings(rules(&[("/{name}", priced(9))])));
    assert!(world.is_sold(1, "/a").await);
    assert!(!world.is_sold(1, "/b").await);
    assert!(!world.is_sold(1, "/c").await);
}

#[tokio::test]
async fn a_recipient_that_has_changed_is_paid_as_long_as_it_was_offered() {
    let mut world = World::new();
    let mut changed = settings(rules(&[("/{name}", priced(PRICE))]));
    let accept = changed.accepts.get_mut("usdc").unwrap();
    accept.pay_to = crate::chain::PayTo::evm(OTHER.parse().unwrap());
    world.clock.step(-100);
    world.reload(&changed);
    let paid = world.admitted(1, "/a").await;
    assert_eq!(paid.offer().pay_to.as_str(), PAY_TO);
    world.clock.step(301);
    assert!(!world.is_sold(2, "/a").await);
}

#[tokio::test]
async fn what_is_denied_or_free_now_is_so_whatever_was_offered() {
    let mut world = World::new();
    world.sell(Free);
    assert!(matches!(
        world.present(1, "/a").await,
        Ok(Admission::Free(_))
    ));
    world.sell(shadowed(PRICE));
    let Ok(Admission::Shadow(shadow)) = world.present(1, "/a").await else {
        panic!("not in shadow");
    };
    assert_eq!(shadow.outcome, "shadow_proof_good");
    assert!(world.states(1).await.is_empty(), "nothing is written down");
    world.sell(Deny);
    assert!(world.is_denied("/a").await);
    world.sell(priced(2 * PRICE));
    assert!(world.is_sold(1, "/a").await);
}

#[tokio::test]
async fn a_price_is_remembered_over_so_many_changes_and_no_more() {
    let mut world = World::new();
    world.clock.step(-100);
    for n in 1..=TABLES_MAX {
        world.sell(priced(PRICE + u128::try_from(n).unwrap()));
    }
    assert!(world.is_sold(1, "/a").await);
    world.sell(priced(9));
    assert!(!world.is_sold(2, "/a").await, "the oldest is forgotten");
}

#[tokio::test]
async fn a_debt_is_collected_whatever_the_price_is_now() {
    for version in [1, 2] {
        let mut world = World::new();
        let mut paid = world.admitted(1, "/a").await;
        assert!(world.release(&mut paid).await);
        world.finish(paid, false).await;
        assert_eq!(world.states(1).await, [State::Settled]);
        world.sell(priced(5 * PRICE));
        world.clock.step(10 * HOUR);
        assert!(!world.is_sold(2, "/a").await, "no price for anybody else");
        let elsewhere = world.present(1, "/b").await;
        assert!(elsewhere.is_err(), "nor for anything else");
        let again = world.present_as(&proof_in(version, 1), version, "/a").await;
        let Ok(Admission::Paid(mut paid)) = again else {
            panic!("{again:?}");
        };
        assert!(world.release(&mut paid).await);
        world.finish(paid, true).await;
        assert_eq!(world.states(1).await, [State::Delivered]);
        assert_eq!(world.bank.moved(1), 1);
        let third = world.present(1, "/a").await;
        assert!(matches!(third, Err(PaymentRefusal::Spent)), "{third:?}");
    }
}

#[tokio::test]
async fn a_debt_is_collected_when_its_rule_has_another_name() {
    for price in [PRICE, 2 * PRICE] {
        let mut world = World::new();
        let mut paid = world.admitted(1, "/a").await;
        assert!(world.release(&mut paid).await);
        world.finish(paid, false).await;
        let renamed = rule("renamed", 1, "/{name}", priced(price));
        world.reload(&settings(vec![renamed]));
        world.clock.step(HOUR);
        assert!(world.present(1, "/b").await.is_err());
        let again = world.present(1, "/a").await;
        assert!(matches!(again, Ok(Admission::Paid(_))), "{again:?}");
    }
}

#[tokio::test]
async fn a_settlement_whose_outcome_is_unknown_is_not_to_be_paid_again_at_the_new_price() {
    let mut world = World::new();
    *world.bank.manner.lock() = Manner::LosesAnswers;
    let mut paid = world.admitted(1, "/a").await;
    assert!(!world.release(&mut paid).await);
    world.finish(paid, false).await;
    world.sell(priced(5 * PRICE));
    world.clock.step(HOUR);
    let again = world.present(1, "/a").await;
    assert!(
        matches!(again, Err(PaymentRefusal::OutcomeUnknown)),
        "{again:?}"
    );
}

#[tokio::test]
async fn the_ledger_is_searched_for_one_client_so_often_and_no_more() {
    let mut world = World::new();
    let mut paid = world.admitted(1, "/a").await;
    assert!(world.release(&mut paid).await);
    world.finish(paid, false).await;
    world.sell(priced(5 * PRICE));
    world.clock.step(HOUR);
    for n in 2..=61 {
        assert!(!world.is_sold(n, "/a").await);
    }
    let debt = world.present(1, "/a").await;
    // Who were told that it is not there would pay again.
    assert!(
        matches!(debt, Err(PaymentRefusal::RateLimited { .. })),
        "{debt:?}"
    );
}

#[tokio::test]
async fn a_copy_of_a_request_in_flight_is_a_copy_when_its_rule_has_another_name() {
    let mut world = World::new();
    let mut paid = world.admitted(1, "/a").await;
    assert!(world.release(&mut paid).await);
    world.reload(&settings(vec![rule(
        "renamed",
        1,
        "/{name}",
        priced(PRICE),
    )]));
    let copy = world.present(1, "/a").await;
    assert!(matches!(copy, Err(PaymentRefusal::InProgress)), "{copy:?}");
    let other = world.present(1, "/b").await;
    assert!(matches!(other, Err(PaymentRefusal::Spent)), "{other:?}");
    world.finish(paid, true).await;
}

#[tokio::test]
async fn a_wall_that_ends_settles_nothing_more_and_gives_back_what_was_claimed() {
    let world = World::new();
    let mut paid = world.admitted(1, "/a").await;
    world.settler.close();
    let refused = world.gate.release(&mut paid, 200, None).await;
    assert!(
        matches!(
            refused,
            Err(Refusal::Payment {
                why: PaymentRefusal::SettlementNotSent,
                ..
            })
        ),
        "{refused:?}"
    );
    world.finish(paid, false).await;
    assert_eq!(world.states(1).await, [State::Released]);
    assert_eq!(world.bank.moved(1), 0);
}

/// What the rule says, and how long the clock then runs.
fn histories() -> impl Strategy<Value = Vec<(Option<u128>, i64)>> {
    let price = prop_oneof![
        3 => Just(Some(PRICE)),
        3 => (1_u128..4).prop_map(|n| Some(n * 7)),
        1 => Just(None),
    ];
    proptest::collection::vec((price, 0_i64..200), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Against a list of all prices that ever were.
    #[test]
    fn a_price_is_honoured_exactly_as_long_as_somebody_may_have_been_asked_for_it(
        history in histories(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.clock.step(-500);
            let (mut now, mut current, mut former) = (0, Some(PRICE), Vec::new());
            for (n, (price, seconds)) in (0..).zip(history) {
                if price != current {
                    former.push((current, now));
                    current = price;
                }
                world.sell(price.map_or(Free, priced));
                world.clock.step(seconds);
                now += seconds;
                if now > 700 {
                    break; // the proof itself runs out
                }
                let is_honoured = |(price, until): &(Option<u128>, i64)| {
                    *price == Some(PRICE) && now <= until + 300
                };
                match world.present(n, "/a").await {
                    Ok(Admission::Free(_)) => assert_eq!(current, None),
                    Ok(Admission::Paid(_)) => {
                        let is_offered = current == Some(PRICE);
                        assert!(is_offered || former.iter().any(is_honoured));
                        assert!(current.is_some());
                    }
                    Err(PaymentRefusal::Proof(ProofError::NoMatch)) => {
                        assert!(current.is_some_and(|price| price != PRICE));
                        assert!(!former.iter().any(is_honoured));
                    }
                    other => panic!("{other:?}"),
                }
                world.rest().await;
            }
        });
    }
}

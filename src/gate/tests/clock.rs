//! A clock that steps by an hour, in both directions, at each point of a payment's life.

use super::*;
use crate::proof::ProofError;

const STEPS: [i64; 2] = [HOUR, -HOUR];

#[tokio::test]
async fn a_debt_is_collected_whatever_the_clock_says() {
    for step in STEPS {
        let world = World::new();
        let mut paid = world.admitted(1, "/a").await;
        assert!(world.release(&mut paid).await);
        world.finish(paid, false).await;
        world.clock.step(step);
        let mut again = world.admitted(1, "/a").await;
        assert!(world.release(&mut again).await, "owed: {step}");
        world.finish(again, true).await;
        assert_eq!(world.states(1).await, [State::Delivered]);
        assert_eq!(world.bank.moved(1), 1);
    }
}

#[tokio::test]
async fn a_spent_payment_stays_spent() {
    for step in STEPS {
        let world = World::new();
        let mut paid = world.admitted(1, "/a").await;
        assert!(world.release(&mut paid).await);
        world.finish(paid, true).await;
        for _ in 0..2 {
            for path in ["/a", "/b"] {
                let answer = world.present(1, path).await;
                assert!(matches!(answer, Err(PaymentRefusal::Spent)), "{answer:?}");
            }
            world.clock.step(step);
        }
        assert_eq!(world.bank.moved(1), 1);
    }
}

#[tokio::test]
async fn a_step_between_claim_and_settlement_changes_nothing() {
    for step in STEPS {
        let world = World::new();
        let mut paid = world.admitted(1, "/a").await;
        world.clock.step(step);
        assert!(world.release(&mut paid).await);
        world.clock.step(-2 * step);
        world.finish(paid, true).await;
        assert_eq!(world.states(1).await, [State::Delivered]);
    }
}

#[tokio::test]
async fn a_fresh_proof_is_refused_out_of_its_time_and_good_again_within() {
    for step in STEPS {
        let world = World::new();
        world.clock.step(step);
        let refused = world.present(1, "/a").await;
        let expected = match &refused {
            Err(PaymentRefusal::Proof(ProofError::Expired(_))) => step > 0,
            Err(PaymentRefusal::Proof(ProofError::NotYetValid(_))) => step < 0,
            _ => false,
        };
        assert!(expected, "{refused:?}");
        assert_eq!(world.states(1).await, []);
        world.clock.step(-step);
        let mut paid = world.admitted(1, "/a").await;
        assert!(world.release(&mut paid).await);
        world.finish(paid, true).await;
    }
}

#[tokio::test]
async fn an_unknown_settlement_is_repeated_after_a_step_and_then_collected() {
    for step in STEPS {
        let world = World::new();
        *world.bank.manner.lock() = Manner::Silent;
        let mut paid = world.admitted(1, "/a").await;
        assert!(!world.release(&mut paid).await);
        world.finish(paid, false).await;
        *world.bank.manner.lock() = Manner::Honest;
        world.clock.step(step);
        world.reconcile().await;
        assert_eq!(world.states(1).await, [State::Settled], "{step}");
        let mut again = world.admitted(1, "/a").await;
        assert!(world.release(&mut again).await);
        world.finish(again, true).await;
        assert_eq!(world.bank.moved(1), 1);
    }
}

#[tokio::test]
async fn a_lost_answer_that_a_step_let_run_out_is_not_paid_again_when_the_clock_comes_back() {
    let world = World::new();
    *world.bank.manner.lock() = Manner::LosesAnswers;
    let mut paid = world.admitted(1, "/a").await;
    assert!(!world.release(&mut paid).await);
    world.finish(paid, false).await;
    world.clock.step(HOUR);
    world.reconcile().await;
    world.clock.step(-HOUR);
    *world.bank.manner.lock() = Manner::Honest;
    for path in ["/a", "/b"] {
        // A remembered verdict may still let it go upstream; nothing comes back from there.
        if let Ok(admission) = world.present(1, path).await {
            let Admission::Paid(mut paid) = admission else {
                panic!("nothing was kept");
            };
            assert!(!world.release(&mut paid).await, "not paid again");
            world.finish(paid, false).await;
        }
    }
    world.rest().await;
    let states = world.states(1).await;
    assert!(!states.contains(&State::Claimed) && !states.contains(&State::Settled));
    assert_eq!(world.bank.moved(1), 1);
}

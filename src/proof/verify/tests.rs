use std::collections::VecDeque;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::challenge::support::{NOW, group, offer};
use crate::facilitator::supported::Supported;
use crate::facilitator::{FacilitatorRequest, SettleAnswer};
use crate::proof::{ProofHeaders, check, parse};
use crate::route::price::Quote;
use crate::x402::header;

/// Answers in order, and panics when asked more often.
struct Scripted {
    name: Arc<str>,
    answers: Mutex<VecDeque<VerifyAnswer>>,
    retries: u32,
}

#[async_trait]
impl Facilitator for Scripted {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    async fn verify(&self, _: &FacilitatorRequest) -> VerifyAnswer {
        self.answers
            .lock()
            .pop_front()
            .expect("asked more often than scripted")
    }

    async fn settle(&self, _: &FacilitatorRequest) -> SettleAnswer {
        SettleAnswer::NotSent(FacilitatorFault::Saturated)
    }

    async fn supported(&self) -> Result<Supported, FacilitatorFault> {
        Err(FacilitatorFault::Saturated)
    }

    fn verify_retries(&self) -> u32 {
        self.retries
    }
}

fn verifier(scripts: Vec<(&str, Vec<VerifyAnswer>)>) -> Verifier {
    retrying(0, scripts)
}

fn retrying(retries: u32, scripts: Vec<(&str, Vec<VerifyAnswer>)>) -> Verifier {
    let facilitators = scripts.into_iter().map(|(name, answers)| {
        let name: Arc<str> = name.into();
        let scripted = Scripted {
            name: Arc::clone(&name),
            answers: Mutex::new(answers.into()),
            retries,
        };
        (name, Arc::new(scripted) as Arc<dyn Facilitator>)
    });
    Verifier::new(VerdictCache::new(100), facilitators.collect())
}

fn proof_for(requirements: &Value, payment: &Value, facilitators: &[&str]) -> CheckedProof {
    let mut offer = offer(requirements);
    offer.facilitators = facilitators.iter().map(|name| Arc::from(*name)).collect();
    let value = header::encode(payment);
    let headers = ProofHeaders {
        payment_signature: vec![value.as_bytes()],
        x_payment: vec![],
    };
    let quote = Quote {
        offers: vec![Arc::new(offer)],
    };
    check(parse(&headers, &quote, 16_384, NOW).unwrap(), NOW).unwrap()
}

fn evm_proof(facilitators: &[&str]) -> CheckedProof {
    let vector = &group("valid", 12)[1];
    proof_for(
        &vector["requirements"],
        &vector["paymentPayload"],
        facilitators,
    )
}

fn opaque_proof() -> CheckedProof {
    let requirements = json!({
        "scheme": "exact", "network": "stellar:pubnet", "amount": "1", "asset": "a",
        "payTo": "b", "maxTimeoutSeconds": 60,
    });
    let payment = json!({"x402Version": 2, "payload": {"xdr": "AAAA"}, "accepted": requirements});
    proof_for(&requirements, &payment, &["a"])
}

fn good(payer: &str) -> VerifyAnswer {
    VerifyAnswer::Valid {
        payer: Some(payer.to_owned()),
    }
}

fn bad(reason: &str) -> VerifyAnswer {
    VerifyAnswer::Invalid {
        reason: ReasonCode::foreign(reason),
    }
}

fn down(retry_after_s: Option<u64>) -> VerifyAnswer {
    VerifyAnswer::Unavailable(FacilitatorFault::Status {
        status: 503,
        retry_after_s,
    })
}

#[tokio::test]
async fn a_good_verdict_is_asked_for_once_and_ends_in_time() {
    let verifier = verifier(vec![("a", vec![good("0xother"), bad("late")])]);
    let first = verifier.verify(evm_proof(&["a"]), NOW).await.unwrap();
    assert_eq!(first.freshness(), Freshness::Fresh);
    assert_eq!(&**first.facilitator(), "a");
    assert_eq!(
        first.payer(),
        first.proof().payer(),
        "what was signed counts"
    );
    let again = verifier
        .verify(evm_proof(&["a"]), NOW.plus(59))
        .await
        .unwrap();
    assert_eq!(again.freshness(), Freshness::Cached);
    assert_eq!(&**again.facilitator(), "a");
    assert!(
        verifier
            .verify(evm_proof(&["a"]), NOW.plus(60))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_bad_verdict_is_final_and_remembered_for_seconds() {
    let answers = vec![bad("invalid_exact_evm_nonce_already_used"), good("x")];
    let verifier = verifier(vec![("a", answers), ("b", vec![])]);
    for (now, want) in [(NOW, Freshness::Fresh), (NOW.plus(9), Freshness::Cached)] {
        match verifier.verify(evm_proof(&["a", "b"]), now).await {
            Err(VerifyError::Invalid { reason, freshness }) => {
                assert_eq!(reason.as_str(), "invalid_exact_evm_nonce_already_used");
                assert_eq!(freshness, want);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        verifier
            .verify(evm_proof(&["a", "b"]), NOW.plus(10))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_facilitator_that_cannot_answer_is_passed_over() {
    let verifier = verifier(vec![("a", vec![down(None)]), ("b", vec![good("x")])]);
    let proof = verifier.verify(evm_proof(&["a", "b"]), NOW).await.unwrap();
    assert_eq!(&**proof.facilitator(), "b");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_a_moments_fault_is_asked_again_after_all_others() {
    let broken = || VerifyAnswer::Unavailable(FacilitatorFault::Broken("reset".to_owned()));
    let both = retrying(
        1,
        vec![("a", vec![broken(), good("x")]), ("b", vec![down(None)])],
    );
    let since = tokio::time::Instant::now();
    let proof = both.verify(evm_proof(&["a", "b"]), NOW).await.unwrap();
    assert_eq!(&**proof.facilitator(), "a");
    assert!((25..=60).contains(&since.elapsed().as_millis()), "a pause");

    let thrice = retrying(
        3,
        vec![("a", vec![broken(), broken(), broken(), good("x")])],
    );
    assert!(thrice.verify(evm_proof(&["a"]), NOW).await.is_ok());
    let too_often = retrying(1, vec![("a", vec![broken(), broken(), good("x")])]);
    assert!(too_often.verify(evm_proof(&["a"]), NOW).await.is_err());
}

#[tokio::test]
async fn who_took_all_its_time_or_said_when_to_come_back_is_not_asked_again() {
    let open = FacilitatorFault::Open { retry_after_s: 3 };
    for fault in [
        down(Some(9)),
        VerifyAnswer::Unavailable(FacilitatorFault::Timeout(1)),
        VerifyAnswer::Unavailable(open),
    ] {
        let told = format!("{fault:?}");
        let verifier = retrying(5, vec![("a", vec![fault, good("x")])]);
        let answer = verifier.verify(evm_proof(&["a"]), NOW).await;
        assert!(answer.is_err(), "{told}");
    }
}

#[tokio::test]
async fn without_any_verdict_the_client_is_told_when_to_come_back() {
    for (answers, want) in [
        ([down(Some(30)), down(Some(20))], 20),
        ([down(None), down(Some(7))], 7),
        ([down(None), down(None)], 5),
        ([down(Some(0)), down(None)], 1),
        ([down(Some(100_000)), down(None)], 120),
    ] {
        let [a, b] = answers;
        let verifier = verifier(vec![("a", vec![a, good("x")]), ("b", vec![b])]);
        match verifier
            .verify(evm_proof(&["a", "b", "unknown"]), NOW)
            .await
        {
            Err(VerifyError::Unavailable {
                retry_after_s,
                faults,
            }) => {
                assert_eq!(retry_after_s, want);
                assert_eq!(faults.len(), 3);
            }
            other => panic!("{other:?}"),
        }
        let again = verifier.verify(evm_proof(&["a"]), NOW).await.unwrap();
        assert_eq!(
            again.freshness(),
            Freshness::Fresh,
            "an outage is not remembered"
        );
    }
}

#[tokio::test]
async fn a_call_that_panics_is_an_outage_not_a_verdict() {
    let verifier = verifier(vec![("a", vec![]), ("b", vec![good("x")])]);
    let proof = verifier.verify(evm_proof(&["a", "b"]), NOW).await.unwrap();
    assert_eq!(&**proof.facilitator(), "b");
}

#[tokio::test]
async fn the_payer_of_an_opaque_proof_is_the_facilitators_word_if_it_is_an_account() {
    let long = "x".repeat(129);
    for (told, want) in [
        ("GABC", "GABC"),
        ("a b", ""),
        ("a\r\nb", ""),
        (&long, ""),
        ("", ""),
    ] {
        let verifier = verifier(vec![("a", vec![good(told)])]);
        let proof = verifier.verify(opaque_proof(), NOW).await.unwrap();
        assert_eq!(proof.payer().as_str(), want);
        assert_eq!(
            proof.proof().payment().payer.as_str(),
            "",
            "the payment's identity stays"
        );
    }
}

#[tokio::test]
async fn another_question_is_not_answered_from_the_cache() {
    let verifier = verifier(vec![("a", vec![good("x"), bad("no")])]);
    let vector = &group("valid", 12)[1];
    let requirements = &vector["requirements"];
    let mut payment = vector["paymentPayload"].clone();
    assert!(
        verifier
            .verify(proof_for(requirements, &payment, &["a"]), NOW)
            .await
            .is_ok()
    );
    payment["payload"]["signature"] = json!(format!("0x{}", "ab".repeat(66)));
    assert!(
        verifier
            .verify(proof_for(requirements, &payment, &["a"]), NOW)
            .await
            .is_err()
    );
}

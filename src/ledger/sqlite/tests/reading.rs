//! Lists and sums.

use super::*;

async fn check(ledger: &SqliteLedger, filter: Filter, want: &[i64]) {
    let text = format!("{filter:?}");
    let list = ledger.list(filter).await.unwrap();
    assert_eq!(
        list.iter().map(|record| record.id.0).collect::<Vec<_>>(),
        want,
        "{text}"
    );
}

/// Claims 1 to 4, a second apart; odd and even rules, small and large payers; 4 released.
async fn four_claims() -> (TempDir, SqliteLedger) {
    let (directory, ledger) = fresh();
    for n in 1..=4_u64 {
        let rule = if n % 2 == 0 { "even" } else { "odd" }.into();
        let payer = Payer::verbatim(if n < 3 { "small" } else { "large" });
        ledger
            .claim(
                NewClaim {
                    rule,
                    payer,
                    ..new_claim(n)
                },
                NOW.plus(n),
            )
            .await
            .unwrap();
    }
    ledger
        .advance(ClaimId(4), move_to(State::Released).unwrap(), NOW.plus(9))
        .await
        .unwrap();
    (directory, ledger)
}

#[tokio::test]
async fn lists_are_newest_first_and_limited() {
    let (_directory, ledger) = four_claims().await;
    let limit = |limit| Filter {
        limit: Some(limit),
        ..Filter::default()
    };
    check(&ledger, Filter::default(), &[4, 3, 2, 1]).await;
    check(&ledger, limit(2), &[4, 3]).await;
    check(&ledger, limit(0), &[]).await;
}

#[tokio::test]
async fn lists_are_filtered_by_time_rule_and_payer() {
    let (_directory, ledger) = four_claims().await;
    let since = |time| Filter {
        since: Some(time),
        ..Filter::default()
    };
    let until = |time| Filter {
        until: Some(time),
        ..Filter::default()
    };
    let rule = |rule: &str| Filter {
        rule: Some(rule.to_owned()),
        ..Filter::default()
    };
    let payer = |payer: &str| Filter {
        payer: Some(payer.to_owned()),
        ..Filter::default()
    };
    check(&ledger, since(NOW.plus(2)), &[4, 3, 2]).await;
    check(&ledger, since(UnixSeconds(u64::MAX)), &[]).await;
    check(&ledger, until(NOW.plus(2)), &[1]).await;
    check(&ledger, rule("odd"), &[3, 1]).await;
    check(&ledger, rule("odd' OR 1"), &[]).await;
    check(&ledger, payer("small"), &[2, 1]).await;
}

#[tokio::test]
async fn lists_are_filtered_by_state_and_by_all_together() {
    let (_directory, ledger) = four_claims().await;
    let states = |states: &[State]| Filter {
        states: states.to_vec(),
        ..Filter::default()
    };
    check(&ledger, states(&[State::Released]), &[4]).await;
    check(
        &ledger,
        states(&[State::Released, State::Claimed]),
        &[4, 3, 2, 1],
    )
    .await;
    let all = Filter {
        since: Some(NOW.plus(1)),
        until: Some(NOW.plus(4)),
        rule: Some("odd".to_owned()),
        payer: Some("large".to_owned()),
        states: vec![State::Claimed],
        limit: Some(9),
        needs_person: false,
    };
    check(&ledger, all, &[3]).await;
}

#[tokio::test]
async fn a_sum_past_128_bits_is_an_error_and_one_at_128_bits_is_exact() {
    let (_directory, ledger) = fresh();
    for (n, amount) in [(1, u128::MAX - 1), (2, 1)] {
        let amount = AtomicAmount::new(amount);
        claim(
            &ledger,
            NewClaim {
                amount,
                ..new_claim(n)
            },
        )
        .await
        .unwrap();
    }
    let totals = ledger.totals(Filter::default()).await.unwrap();
    assert_eq!(
        (totals[0].count, totals[0].amount),
        (2, AtomicAmount::new(u128::MAX))
    );
    claim(
        &ledger,
        NewClaim {
            amount: AtomicAmount::new(1),
            ..new_claim(3)
        },
    )
    .await
    .unwrap();
    let error = ledger
        .totals(Filter::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("a sum of amounts does not fit 128 bits"),
        "{error}"
    );
}

//! The ledger itself: what walls may do to one another's claims.

use std::sync::Arc;
use std::time::Duration;

use farewall::chain::{Asset, Network, PayTo, Payer, PaymentKey};
use farewall::clock::UnixSeconds;
use farewall::config::ledger::parse_url;
use farewall::ledger::postgres::{PostgresLedger, PostgresReader};
use farewall::ledger::upkeep::Cursor;
use farewall::ledger::{
    BodyDigest, Claim, ClaimAnswer, ClaimId, Filter, Fingerprint, Ledger, LedgerError, Move,
    NewClaim, SharedResponse,
};
use farewall::money::AtomicAmount;
use farewall::settlement::{STATES, State};

use crate::support::Cluster;

pub const NOW: UnixSeconds = UnixSeconds(1_793_491_200);

pub fn new_claim(payment: u8) -> NewClaim {
    NewClaim {
        payment: PaymentKey([payment; 32]),
        fingerprint: Fingerprint([9; 32]),
        rule: "weather".into(),
        accept: "usdc".into(),
        scheme: "exact".into(),
        network: Network::parse_caip2("eip155:84532").unwrap(),
        asset: Asset::verbatim("0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
        amount: AtomicAmount::new(u128::MAX),
        payer: Payer::verbatim("0x857b06519E91e3A54538791bDbb0E22373e36b66"),
        pay_to: PayTo::verbatim("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
        nonce: "eip3009:0x01".into(),
        valid_before: NOW.plus(300),
        request: "GET api.example.com/v1".into(),
        settle_request: "{\"a\":\"\u{0}b\"}".into(),
    }
}

pub async fn wall(url: &str, lease_s: u64) -> PostgresLedger {
    let mut server = parse_url(url, std::path::Path::new("")).unwrap();
    server.lease = Duration::from_secs(lease_s);
    PostgresLedger::connect(&server, None, 1 << 20)
        .await
        .unwrap()
}

pub async fn claimed(ledger: &PostgresLedger, payment: u8) -> Claim {
    match ledger.claim(new_claim(payment), NOW).await.unwrap() {
        ClaimAnswer::Claimed(claim) => claim,
        ClaimAnswer::Held(record) => panic!("held: {record:?}"),
    }
}

fn step(to: State) -> Option<Move> {
    let receipt: Arc<str> = "{}".into();
    Some(match to {
        State::Claimed => return None,
        State::Settling => Move::Settling {
            facilitator: "f".into(),
        },
        State::Settled => Move::Settled {
            facilitator: None,
            transaction: "0xabc\u{0}".into(),
            receipt,
            payer: Some(Payer::verbatim("other")),
            body: Some(BodyDigest([3; 32])),
        },
        State::Delivered => Move::Delivered,
        State::Released => Move::Released {
            reason: "upstream_status".into(),
        },
        State::Refused => Move::Refused {
            reason: "no".into(),
            receipt,
        },
        State::Expired => Move::Expired {
            reason: "outcome_unknown".into(),
        },
    })
}

pub async fn go(ledger: &PostgresLedger, id: ClaimId, path: &[State]) {
    for state in path {
        ledger
            .advance(id, step(*state).unwrap(), NOW.plus(1))
            .await
            .unwrap();
    }
}

async fn state(ledger: &PostgresLedger, payment: u8) -> (State, Option<String>) {
    let record = ledger.find(PaymentKey([payment; 32])).await.unwrap();
    let record = record.unwrap();
    (record.state, record.reason.map(|reason| reason.to_string()))
}

/// Runs the test on a database of its own, when there is a server.
pub async fn on_a_database<F: Future<Output = ()>>(test: impl FnOnce(Arc<Cluster>, String) -> F) {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let url = cluster.database("ledger");
    let cluster = Arc::new(cluster);
    test(Arc::clone(&cluster), url).await;
}

pub const PATHS: [(State, &[State]); 7] = [
    (State::Claimed, &[]),
    (State::Settling, &[State::Settling]),
    (State::Settled, &[State::Settling, State::Settled]),
    (
        State::Delivered,
        &[State::Settling, State::Settled, State::Delivered],
    ),
    (State::Released, &[State::Released]),
    (State::Refused, &[State::Settling, State::Refused]),
    (State::Expired, &[State::Settling, State::Expired]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_move_is_allowed_or_refused_as_the_states_say_and_records_are_read_back() {
    on_a_database(|_cluster, url| async move {
        let ledger = wall(&url, 60).await;
        let mut payment = 0;
        for (from, path) in PATHS {
            for to in STATES {
                let Some(to_step) = step(to) else { continue };
                payment += 1;
                let claim = claimed(&ledger, payment).await;
                go(&ledger, claim.id(), path).await;
                // Another transaction: the settler repeats the same one until it is on record.
                let again = match to_step {
                    Move::Settled { receipt, .. } if from == State::Settled => Move::Settled {
                        facilitator: None,
                        transaction: "0xdef".into(),
                        receipt,
                        payer: None,
                        body: None,
                    },
                    other => other,
                };
                match ledger.advance(claim.id(), again, NOW).await {
                    Ok(()) => assert!(from.may_become(to), "{from} to {to}"),
                    Err(LedgerError::IllegalMove { found, wanted, .. }) => {
                        assert_eq!((found, wanted), (from, to));
                        assert!(!from.may_become(to), "{from} to {to}");
                    }
                    Err(error) => panic!("{from} to {to}: {error}"),
                }
                let is_taken = match ledger.claim(new_claim(payment), NOW).await.unwrap() {
                    ClaimAnswer::Held(_) => true,
                    ClaimAnswer::Claimed(_) => false,
                };
                let end = if from.may_become(to) { to } else { from };
                assert_eq!(is_taken, end.holds_payment(), "{end}");
            }
        }
        let claim = claimed(&ledger, 200).await;
        go(&ledger, claim.id(), &[State::Settling, State::Settled]).await;
        let record = ledger.find(PaymentKey([200; 32])).await.unwrap().unwrap();
        let (was, is) = (new_claim(200), &record.claim);
        assert_eq!((is.amount, &is.payer), (was.amount, &was.payer));
        assert_eq!(record.transaction.as_deref(), Some("0xabc\u{fffd}"));
        assert_eq!(record.body, Some(BodyDigest([3; 32])));
        assert_eq!((record.claimed_at, record.changed_at), (NOW, NOW.plus(1)));
        let missing = ledger.advance(ClaimId(99_999), Move::Delivered, NOW).await;
        assert!(matches!(missing, Err(LedgerError::NoSuchClaim(99_999))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_claims_of_one_payment_by_two_walls_one_is_granted() {
    on_a_database(|_cluster, url| async move {
        let walls = [
            Arc::new(wall(&url, 60).await),
            Arc::new(wall(&url, 60).await),
        ];
        let claims = (0..1000_usize).map(|n| {
            let ledger = Arc::clone(&walls[n % 2]);
            tokio::spawn(async move { ledger.claim(new_claim(1), NOW).await.unwrap() })
        });
        let mut granted = 0;
        for claim in claims.collect::<Vec<_>>() {
            granted += u32::from(matches!(claim.await.unwrap(), ClaimAnswer::Claimed(_)));
        }
        assert_eq!(granted, 1);
        let totals = walls[0].totals(Filter::default()).await.unwrap();
        assert_eq!((totals.len(), totals[0].count), (1, 1));
        assert_eq!(totals[0].amount.units(), u128::MAX);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_claims_of_a_wall_that_is_gone_are_given_back() {
    on_a_database(|cluster, url| async move {
        let (alive, dead) = (wall(&url, 60).await, wall(&url, 2).await);
        let mine = claimed(&alive, 1).await;
        claimed(&dead, 2).await;
        assert_eq!(alive.release_abandoned(NOW).await.unwrap(), 0, "both live");
        drop(dead);
        tokio::time::sleep(Duration::from_millis(2300)).await;
        assert_eq!(alive.release_abandoned(NOW).await.unwrap(), 1);
        assert_eq!(
            state(&alive, 2).await,
            (State::Released, Some("wall_lost".to_owned()))
        );
        assert_eq!(state(&alive, 1).await, (State::Claimed, None));
        go(&alive, mine.id(), &[State::Settling]).await;
        // A wall that leaves in good order need not be waited for.
        let leaving = wall(&url, 300).await;
        claimed(&leaving, 3).await;
        leaving.leave().await;
        assert_eq!(alive.release_abandoned(NOW).await.unwrap(), 1);
        assert_eq!(
            cluster.sql("ledger", "SELECT count(*) FROM farewall.claim"),
            "3"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_settlement_of_a_wall_that_is_gone_falls_to_exactly_one_other() {
    on_a_database(|_cluster, url| async move {
        let gone = wall(&url, 2).await;
        let mut ids = Vec::new();
        for payment in 1..=20 {
            let claim = claimed(&gone, payment).await;
            go(&gone, claim.id(), &[State::Settling]).await;
            ids.push(claim.id());
        }
        let heirs = [
            wall(&url, 60).await,
            wall(&url, 60).await,
            wall(&url, 60).await,
        ];
        for heir in &heirs {
            assert_eq!(
                heir.unsettled(Cursor::default(), 100).await.unwrap().len(),
                0,
                "it lives"
            );
        }
        assert_eq!(
            gone.unsettled(Cursor::default(), 100).await.unwrap().len(),
            20
        );
        // Its heart stops, but it does not know.
        gone.leave().await;
        let (a, b, c) = tokio::join!(
            heirs[0].unsettled(Cursor::default(), 100),
            heirs[1].unsettled(Cursor::default(), 100),
            heirs[2].unsettled(Cursor::default(), 100)
        );
        let heard = [a.unwrap(), b.unwrap(), c.unwrap()];
        assert_eq!(heard.iter().map(Vec::len).sum::<usize>(), 20);
        assert_eq!(
            gone.unsettled(Cursor::default(), 100).await.unwrap().len(),
            0
        );
        // Its refusal counts for nothing now, but money that moved has moved.
        let late = gone
            .advance(ids[0], step(State::Refused).unwrap(), NOW)
            .await;
        assert!(matches!(
            late,
            Err(LedgerError::IllegalMove {
                found: State::Settling,
                ..
            })
        ));
        go(&gone, ids[0], &[State::Settled]).await;
        assert_eq!(state(&heirs[0], 1).await.0, State::Settled);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_is_in_one_hand_at_a_time() {
    on_a_database(|_cluster, url| async move {
        let (one, two) = (wall(&url, 60).await, wall(&url, 60).await);
        let claim = claimed(&one, 1).await;
        let id = claim.id();
        go(&one, id, &[State::Settling, State::Settled]).await;
        assert!(!two.take_owed(id).await.unwrap(), "the first delivers it");
        one.let_go(id);
        let mut taken = false;
        for _ in 0..100 {
            taken = two.take_owed(id).await.unwrap();
            if taken {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(taken);
        assert!(!one.take_owed(id).await.unwrap());
        go(&two, id, &[State::Delivered]).await;
        assert!(!one.take_owed(id).await.unwrap(), "it is no debt any more");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_works_on_is_found_by_the_heartbeat() {
    on_a_database(|cluster, url| async move {
        let ledger = wall(&url, 2).await;
        let claim = claimed(&ledger, 1).await;
        let kept = claimed(&ledger, 2).await;
        // As when the answer to an insert is lost for good: the database has it, nobody here does.
        cluster.sql(
            "ledger",
            &format!(
                "UPDATE farewall.claim SET attempt = 1 WHERE id = {}",
                claim.id().0
            ),
        );
        for _ in 0..200 {
            if state(&ledger, 1).await.0 == State::Released {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            state(&ledger, 1).await,
            (State::Released, Some("abandoned".to_owned()))
        );
        assert_eq!(state(&ledger, 2).await.0, State::Claimed);
        go(&ledger, kept.id(), &[State::Settling]).await;
        // A caller who leaves before the answer leaves nothing behind either.
        for payment in 10..60 {
            let asking = ledger.claim(new_claim(payment), NOW);
            let short = Duration::from_micros(u64::from(payment) * 40);
            drop(
                tokio::time::timeout(short, asking)
                    .await
                    .map(|answer| match answer {
                        Ok(ClaimAnswer::Claimed(claim)) => ledger.let_go(claim.id()),
                        other => panic!("{other:?}"),
                    }),
            );
        }
        for _ in 0..300 {
            let open = cluster.sql(
                "ledger",
                "SELECT count(*) FROM farewall.claim WHERE state = 'claimed'",
            );
            if open == "0" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("a claim stayed behind");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn walls_that_start_at_once_migrate_once_and_a_newer_schema_is_refused() {
    on_a_database(|cluster, url| async move {
        let starts = (0..8).map(|_| {
            let url = url.clone();
            tokio::spawn(async move { wall(&url, 60).await })
        });
        for start in starts.collect::<Vec<_>>() {
            drop(start.await.unwrap());
        }
        assert_eq!(
            cluster.sql("ledger", "SELECT version FROM farewall.schema_version"),
            "2"
        );
        cluster.sql("ledger", "UPDATE farewall.schema_version SET version = 7");
        let server = parse_url(&url, std::path::Path::new("")).unwrap();
        let refused = PostgresLedger::connect(&server, None, 0).await;
        assert!(
            matches!(refused, Err(LedgerError::TooNew { found: 7, .. })),
            "{refused:?}"
        );
        let read = tokio::task::spawn_blocking(move || PostgresReader::open(&server, None));
        assert!(matches!(
            read.await.unwrap(),
            Err(LedgerError::TooNew { .. })
        ));
        let empty = cluster.database("nothing");
        let server = parse_url(&empty, std::path::Path::new("")).unwrap();
        let read = tokio::task::spawn_blocking(move || PostgresReader::open(&server, None));
        assert!(read.await.unwrap().is_err(), "reading makes no tables");
        assert_eq!(
            cluster.sql(
                "nothing",
                "SELECT count(*) FROM pg_namespace WHERE nspname = 'farewall'"
            ),
            "0"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_shared_for_their_time_and_within_the_bound() {
    on_a_database(|cluster, url| async move {
        let (one, two) = (wall(&url, 2).await, wall(&url, 2).await);
        let response = |payment: u8, bytes: usize, ms| SharedResponse {
            payment: PaymentKey([payment; 32]),
            fingerprint: Fingerprint([9; 32]),
            bytes: vec![7; bytes],
            lifetime: Duration::from_millis(ms),
        };
        one.share_response(response(1, 1000, 60_000)).await.unwrap();
        one.share_response(response(2, 1000, 1)).await.unwrap();
        one.share_response(response(3, 2 << 20, 60_000))
            .await
            .unwrap();
        let key = |payment: u8| (PaymentKey([payment; 32]), Fingerprint([9; 32]));
        let got = two
            .shared_response(key(1).0, key(1).1)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(got.bytes, vec![7; 1000]);
        assert!(got.lifetime > Duration::from_secs(50));
        tokio::time::sleep(Duration::from_millis(5)).await;
        for payment in [2, 3, 4] {
            let (payment, fingerprint) = key(payment);
            assert_eq!(
                two.shared_response(payment, fingerprint).await.unwrap(),
                None
            );
        }
        assert_eq!(
            two.shared_response(key(1).0, Fingerprint([8; 32]))
                .await
                .unwrap(),
            None
        );
        for _ in 0..200 {
            if cluster.sql("ledger", "SELECT count(*) FROM farewall.kept") == "1" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("what is over was not deleted");
    })
    .await;
}

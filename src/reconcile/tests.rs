//! The reconciler between a scripted facilitator, a scripted chain and a real ledger.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::chain::{Asset, Network, PayTo, PaymentKey};
use crate::chain_rpc::{Chain, RpcFault};
use crate::facilitator::supported::Supported;
use crate::facilitator::{Facilitator, VerifyAnswer};
use crate::gate::Facilitators;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{ClaimAnswer, Fingerprint, NEVER_USED, NewClaim, OUTCOME_UNKNOWN};
use crate::money::AtomicAmount;

const START: u64 = 1_800_000_000;
const END: u64 = START + 300;
const PAID: Finding = Finding::Paid {
    transaction: B256::repeat_byte(7),
};

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> UnixSeconds {
        UnixSeconds(self.0.load(Ordering::SeqCst))
    }
}

struct TestFacilitator {
    name: Arc<str>,
    answer: Mutex<SettleAnswer>,
    asked: AtomicUsize,
}

impl TestFacilitator {
    fn silent(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            answer: Mutex::new(unknown(None)),
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Facilitator for TestFacilitator {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    async fn verify(&self, _request: &FacilitatorRequest) -> VerifyAnswer {
        VerifyAnswer::Valid { payer: None }
    }

    async fn settle(&self, _request: &FacilitatorRequest) -> SettleAnswer {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.answer.lock().clone()
    }

    async fn supported(&self) -> Result<Supported, FacilitatorFault> {
        Err(FacilitatorFault::Pending)
    }
}

struct TestChain(Mutex<Option<Finding>>);

#[async_trait]
impl Chain for TestChain {
    async fn look(&self, _question: &Question) -> Result<Finding, RpcFault> {
        self.0.lock().ok_or(RpcFault::Status(502))
    }
}

struct World {
    clock: Arc<TestClock>,
    facilitator: Arc<TestFacilitator>,
    /// Asked after the first.
    second: Arc<TestFacilitator>,
    chain: Arc<TestChain>,
    ledger: Arc<SqliteLedger>,
    reconciler: Reconciler,
    _directory: TempDir,
}

fn unknown(retry_after_s: Option<u64>) -> SettleAnswer {
    SettleAnswer::Unknown(FacilitatorFault::Status {
        status: 503,
        retry_after_s,
    })
}

impl World {
    /// Without a chain to ask, unless `has_chain`; nobody knows anything.
    fn new(has_chain: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("farewall.db")).unwrap();
        let ledger = Arc::new(ledger);
        let clock = Arc::new(TestClock(AtomicU64::new(START)));
        let facilitator = TestFacilitator::silent("f");
        let second = TestFacilitator::silent("g");
        let chain = Arc::new(TestChain(Mutex::new(None)));
        let mut chains = Chains::new();
        if has_chain {
            let network = Network::parse_caip2("eip155:84532").unwrap();
            chains.insert(network, Arc::clone(&chain) as Arc<dyn Chain>);
        }
        let mut facilitators = Facilitators::new();
        for one in [&facilitator, &second] {
            let client = Arc::clone(one) as Arc<dyn Facilitator>;
            facilitators.insert(Arc::clone(&one.name), client);
        }
        let preferences = Preferences::from([("a".into(), vec!["f".into(), "g".into()])]);
        let settler = Settler::new(
            facilitators,
            Arc::clone(&ledger) as Arc<dyn Ledger>,
            Arc::clone(&clock) as Arc<dyn Clock>,
            tokio::runtime::Handle::current(),
        );
        let reconciler = Reconciler::new(
            settler,
            Arc::clone(&ledger) as Arc<dyn Ledger>,
            chains,
            preferences,
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        Self {
            clock,
            facilitator,
            second,
            chain,
            ledger,
            reconciler,
            _directory: directory,
        }
    }

    /// A claim whose settlement was begun and has no outcome.
    async fn settling(&self, n: u8, space: &str) -> Record {
        let claim = NewClaim {
            payment: PaymentKey([n; 32]),
            fingerprint: Fingerprint([9; 32]),
            rule: "r".into(),
            accept: "a".into(),
            scheme: "exact".into(),
            network: Network::parse_caip2("eip155:84532").unwrap(),
            asset: Asset::verbatim("0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
            amount: AtomicAmount::new(10),
            payer: Payer::verbatim("0x857b06519E91e3A54538791bDbb0E22373e36b66"),
            pay_to: PayTo::verbatim("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
            nonce: format!("{space}:{}", B256::repeat_byte(n)).into(),
            valid_before: UnixSeconds(END),
            request: "GET a/".into(),
            settle_request: r#"{"paymentPayload":{"payload":{"signature":"0x0101"}},
                "paymentRequirements":{"network":"base-sepolia"}}"#
                .into(),
        };
        let now = self.clock.now();
        let ClaimAnswer::Claimed(claim) = self.ledger.claim(claim, now).await.unwrap() else {
            panic!("it is new");
        };
        let facilitator = "f".into();
        let settling = Move::Settling { facilitator };
        self.ledger
            .advance(claim.id(), settling, now)
            .await
            .unwrap();
        self.ledger.get(claim.id()).unwrap().unwrap()
    }

    fn state(&self, record: &Record) -> (State, Option<Arc<str>>) {
        let record = self.ledger.get(record.id).unwrap().unwrap();
        (record.state, record.reason)
    }

    fn at(&self, now: u64) {
        self.clock.0.store(now, Ordering::SeqCst);
    }

    /// What a look at the claim says, as the ledger holds it then.
    async fn look(&self, record: &Record) -> State {
        let look = self.reconciler.look(record).await.unwrap();
        assert_eq!(look.state, self.state(record).0, "{}", look.found);
        look.state
    }
}

#[tokio::test]
async fn without_a_chain_a_refusal_proves_nothing_until_the_grace_is_over() {
    let world = World::new(false);
    let record = world.settling(1, "eip3009").await;
    *world.facilitator.answer.lock() = SettleAnswer::Refused(SettlementResponse {
        error_reason: Some("invalid_exact_evm_nonce_already_used".to_owned()),
        transaction: "0xabc".to_owned(),
        ..SettlementResponse::default()
    });
    for now in [START, END, END + 120] {
        world.at(now);
        assert_eq!(world.look(&record).await, State::Settling, "{now}");
    }
    world.at(END + 121);
    assert_eq!(world.look(&record).await, State::Expired);
    assert_eq!(world.state(&record).1.as_deref(), Some(OUTCOME_UNKNOWN));
}

#[tokio::test]
async fn a_success_is_believed_and_kept_as_the_facilitator_gave_it() {
    let world = World::new(true);
    let record = world.settling(1, "eip3009").await;
    *world.facilitator.answer.lock() = SettleAnswer::Settled(SettlementResponse {
        success: true,
        transaction: "0xabc".to_owned(),
        ..SettlementResponse::default()
    });
    assert_eq!(world.look(&record).await, State::Settled);
    let settled = world.ledger.get(record.id).unwrap().unwrap();
    assert_eq!(settled.transaction.as_deref(), Some("0xabc"));
}

#[tokio::test]
async fn what_the_chain_knows_is_not_asked_of_the_facilitator() {
    for (finding, want) in [
        (PAID, State::Settled),
        (Finding::Cancelled, State::Refused),
        (Finding::UsedElsewhere, State::Refused),
        (Finding::NeverUsed, State::Expired),
    ] {
        let world = World::new(true);
        let record = world.settling(1, "eip3009").await;
        *world.chain.0.lock() = Some(finding);
        assert_eq!(world.look(&record).await, want, "{finding:?}");
        assert_eq!(world.facilitator.asked.load(Ordering::SeqCst), 0);
        let after = world.ledger.get(record.id).unwrap().unwrap();
        if want == State::Expired {
            assert_eq!(after.reason.as_deref(), Some(NEVER_USED));
        } else {
            let receipt = after.receipt.unwrap();
            let receipt: SettlementResponse = serde_json::from_str(&receipt).unwrap();
            assert_eq!(receipt.success, want == State::Settled);
            assert_eq!(receipt.network, "base-sepolia", "as it was asked");
        }
    }
}

#[tokio::test]
async fn a_chain_that_is_silent_is_waited_for_a_day_longer() {
    let world = World::new(true);
    let record = world.settling(1, "eip3009").await;
    world.at(END + 86_400);
    assert_eq!(world.look(&record).await, State::Settling);
    world.at(END + 86_401);
    assert_eq!(world.look(&record).await, State::Expired);
}

#[tokio::test]
async fn one_transaction_pays_for_one_permit2_claim() {
    let world = World::new(true);
    let first = world.settling(1, "permit2").await;
    let second = world.settling(2, "permit2").await;
    *world.chain.0.lock() = Some(PAID);
    assert_eq!(world.look(&first).await, State::Settled);
    assert_eq!(world.look(&second).await, State::Settling);
    let mut side_by_side = World::new(true);
    *side_by_side.chain.0.lock() = Some(PAID);
    for n in 1..=20 {
        side_by_side.settling(n, "permit2").await;
    }
    assert_eq!(side_by_side.reconciler.pass().await.unwrap(), 19);
    let third = world.settling(3, "eip3009").await;
    assert_eq!(
        world.look(&third).await,
        State::Settled,
        "logs tell these apart"
    );
}

#[tokio::test]
async fn what_somebody_else_wrote_down_meanwhile_stands() {
    let world = World::new(false);
    let record = world.settling(1, "eip3009").await;
    let refused = Move::Refused {
        reason: "insufficient_funds".into(),
        receipt: "{}".into(),
    };
    world
        .ledger
        .advance(record.id, refused, UnixSeconds(START))
        .await
        .unwrap();
    assert_eq!(world.look(&record).await, State::Refused);
    assert_eq!(
        world.facilitator.asked.load(Ordering::SeqCst),
        0,
        "never again"
    );
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_and_a_facilitator_that_asks_for_time_gets_it() {
    let mut world = World::new(false);
    world.settling(1, "eip3009").await;
    let asked = |world: &World| world.facilitator.asked.load(Ordering::SeqCst);
    for second in 0..60 {
        world.at(START + second);
        assert_eq!(world.reconciler.pass().await.unwrap(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let grown = asked(&world);
    assert!((4..=12).contains(&grown), "{grown}");
    *world.facilitator.answer.lock() = unknown(Some(200));
    for second in 60..180 {
        world.at(START + second);
        world.reconciler.pass().await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(asked(&world) <= grown + 1, "asked again before its time");
    world.at(END + 200);
    tokio::time::advance(Duration::from_secs(300)).await;
    assert_eq!(world.reconciler.pass().await.unwrap(), 0);
}

fn unused(as_of: u64) -> Option<Finding> {
    let as_of = UnixSeconds(as_of);
    Some(Finding::Unused { as_of })
}

fn paid_by(transaction: &str) -> SettleAnswer {
    SettleAnswer::Settled(SettlementResponse {
        success: true,
        transaction: transaction.to_owned(),
        ..SettlementResponse::default()
    })
}

#[tokio::test]
async fn what_a_deep_block_does_not_know_goes_to_the_next_facilitator_which_is_on_record_first() {
    for space in ["eip3009", "permit2"] {
        let world = World::new(true);
        let record = world.settling(1, space).await;
        world.at(START + 40);
        *world.chain.0.lock() = unused(START + 29);
        assert_eq!(world.look(&record).await, State::Settling);
        assert_eq!((world.facilitator.asked(), world.second.asked()), (1, 0));
        *world.chain.0.lock() = unused(START + 30);
        assert_eq!(world.look(&record).await, State::Settling);
        assert_eq!((world.facilitator.asked(), world.second.asked()), (1, 1));
        let moved = world.ledger.get(record.id).unwrap().unwrap();
        assert_eq!(moved.facilitator.as_deref(), Some("g"));
        assert_eq!(moved.changed_at, UnixSeconds(START + 40), "its turn begins");
        *world.second.answer.lock() = paid_by("0xdef");
        assert_eq!(world.look(&moved).await, State::Settled);
        let settled = world.ledger.get(record.id).unwrap().unwrap();
        assert_eq!(settled.transaction.as_deref(), Some("0xdef"));
        assert_eq!(world.facilitator.asked(), 1);
    }
}

#[tokio::test]
async fn after_a_crash_between_the_record_and_the_call_the_one_on_record_is_asked() {
    let world = World::new(true);
    let record = world.settling(1, "eip3009").await;
    let facilitator = "g".into();
    let moved = Move::Settling { facilitator };
    let now = UnixSeconds(START + 40);
    world.ledger.advance(record.id, moved, now).await.unwrap();
    world.at(START + 41);
    *world.chain.0.lock() = unused(START + 39);
    *world.second.answer.lock() = paid_by("0xdef");
    let (mut page, _) = world.reconciler.page(Cursor::default()).await.unwrap();
    let found = page.remove(0);
    assert_eq!(world.look(&found).await, State::Settled);
    assert_eq!((world.facilitator.asked(), world.second.asked()), (0, 1));
}

#[tokio::test]
async fn the_transaction_of_the_first_facilitator_that_lands_late_is_the_payment() {
    let world = World::new(true);
    let record = world.settling(1, "eip3009").await;
    world.at(START + 40);
    *world.chain.0.lock() = unused(START + 35);
    *world.second.answer.lock() = SettleAnswer::Refused(SettlementResponse {
        error_reason: Some("nonce_already_used".to_owned()),
        ..SettlementResponse::default()
    });
    assert_eq!(world.look(&record).await, State::Settling, "proves nothing");
    assert_eq!(world.second.asked(), 1);
    *world.chain.0.lock() = Some(PAID);
    let moved = world.ledger.get(record.id).unwrap().unwrap();
    assert_eq!(world.look(&moved).await, State::Settled);
    let settled = world.ledger.get(record.id).unwrap().unwrap();
    let transaction = B256::repeat_byte(7).to_string();
    assert_eq!(settled.transaction.as_deref(), Some(&*transaction));
}

#[tokio::test]
async fn what_no_chain_can_tell_about_stays_with_its_facilitator() {
    for (space, has_chain) in [("opaque", true), ("eip3009", false)] {
        let world = World::new(has_chain);
        let record = world.settling(1, space).await;
        *world.chain.0.lock() = unused(START + 250);
        for now in [START + 40, START + 150, END - 1] {
            world.at(now);
            assert_eq!(world.look(&record).await, State::Settling);
        }
        assert_eq!((world.facilitator.asked(), world.second.asked()), (3, 0));
        let kept = world.ledger.get(record.id).unwrap().unwrap();
        assert_eq!(kept.facilitator.as_deref(), Some("f"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_facilitator_that_wants_to_be_left_alone_for_an_hour_does_not_hold_up_the_next() {
    let mut world = World::new(true);
    world.settling(1, "eip3009").await;
    *world.facilitator.answer.lock() = unknown(Some(3600));
    *world.second.answer.lock() = paid_by("0xdef");
    let mut left = 1;
    for second in 0..120 {
        world.at(START + second);
        *world.chain.0.lock() = unused(START + second);
        left = world.reconciler.pass().await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(left, 0);
    assert_eq!((world.facilitator.asked(), world.second.asked()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn many_unknown_settlements_are_read_page_by_page_and_each_is_looked_at() {
    let mut world = World::new(false);
    let template = world.settling(1, "eip3009").await.claim;
    let all = 2 * u64::from(PAGE) + 3;
    for n in 2..=all {
        let mut payment = PaymentKey([0; 32]);
        payment.0[..8].copy_from_slice(&n.to_be_bytes());
        let claim = NewClaim {
            payment,
            ..template.clone()
        };
        let now = UnixSeconds(START + n % 7);
        let ClaimAnswer::Claimed(claim) = world.ledger.claim(claim, now).await.unwrap() else {
            panic!("it is new");
        };
        let facilitator = "f".into();
        let settling = Move::Settling { facilitator };
        world
            .ledger
            .advance(claim.id(), settling, now)
            .await
            .unwrap();
    }
    let all = usize::try_from(all).unwrap();
    assert_eq!(world.reconciler.pass().await.unwrap(), all);
    assert_eq!(world.facilitator.asked(), all);
    assert_eq!(world.reconciler.due.len(), all);
    *world.facilitator.answer.lock() = paid_by("0xabc");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(world.reconciler.pass().await.unwrap(), 0);
    world.reconciler.pass().await.unwrap();
    assert!(world.reconciler.due.is_empty(), "nothing is kept of them");
}

#[tokio::test]
async fn what_an_unknown_settlement_needs_outlives_its_place_in_the_configuration() {
    let world = World::new(true);
    let before = world.reconciler.sources().load_full();
    let after = Sources {
        chains: Chains::new(),
        preferences: Preferences::from([("b".into(), vec!["g".into()])]),
    }
    .after(&before);
    assert_eq!(after.chains.len(), 1);
    let names: Vec<&str> = after.preferences.keys().map(AsRef::as_ref).collect();
    assert_eq!(names, ["a", "b"]);
    let newer = Preferences::from([("a".into(), vec!["g".into()])]);
    let newer = Sources {
        chains: Chains::new(),
        preferences: newer,
    }
    .after(&after);
    assert_eq!(newer.preferences["a"], ["g".into()], "as it is now");
}

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
        let facilitator = Arc::new(TestFacilitator {
            name: "f".into(),
            answer: Mutex::new(unknown(None)),
            asked: AtomicUsize::new(0),
        });
        let chain = Arc::new(TestChain(Mutex::new(None)));
        let mut chains = Chains::new();
        if has_chain {
            let network = Network::parse_caip2("eip155:84532").unwrap();
            chains.insert(network, Arc::clone(&chain) as Arc<dyn Chain>);
        }
        let mut facilitators = Facilitators::new();
        facilitators.insert("f".into(), Arc::clone(&facilitator) as Arc<dyn Facilitator>);
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
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        Self {
            clock,
            facilitator,
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

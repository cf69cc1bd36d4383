//! The life of payments between a facilitator with a memory of its own, a clock that steps, and
//! buyers in any order: what is settled, sold and owed.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "small numbers, and an overflow would fail the test"
)]

mod beside;
mod clock;
mod former;
mod interleavings;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::{B256, U256};
use async_trait::async_trait;
use parking_lot::Mutex;
use secp256k1::SecretKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;
use crate::chain_rpc::Chains;
use crate::clock::UnixSeconds;
use crate::facilitator::supported::{Supported, SupportedBook};
use crate::facilitator::{
    Facilitator, FacilitatorFault, FacilitatorRequest, SettleAnswer, VerifyAnswer,
};
use crate::ledger::Filter;
use crate::ledger::sqlite::SqliteLedger;
use crate::metrics::Phases;
use crate::money::AtomicAmount;
use crate::proof::ProofError;
use crate::proof::cache::VerdictCache;
use crate::reconcile::{Preferences, Reconciler};
use crate::route::fixture::{PAY_TO, priced, rules, settings};
use crate::target::Scheme;
use crate::throttle::{Client, ThrottleLimits};
use crate::x402::eip3009::Authorization;
use crate::x402::reason::ReasonCode;
use crate::x402::{eip712, header};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const HOUR: i64 = 3600;
const PRICE: u128 = 1000;
const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const NONCE_USED: &str = "invalid_exact_evm_nonce_already_used";

/// A clock that the test sets.
#[derive(Default)]
struct Stepping(AtomicU64);

impl Stepping {
    fn step(&self, seconds: i64) {
        let now = self.0.load(Ordering::SeqCst);
        let then = now.checked_add_signed(seconds).unwrap();
        self.0.store(then, Ordering::SeqCst);
    }
}

impl Clock for Stepping {
    fn now(&self) -> UnixSeconds {
        UnixSeconds(self.0.load(Ordering::SeqCst))
    }
}

/// How the facilitator behaves at `/settle`.
#[derive(Clone, Copy, Debug, Default)]
enum Manner {
    #[default]
    Honest,
    /// Settles, and its answer is lost.
    LosesAnswers,
    /// Does nothing, and says nothing.
    Silent,
    /// Does nothing, and says no.
    Refuses,
    /// Cannot be reached.
    Away,
}

/// A facilitator with a chain: a nonce moves money once, whoever asks how often.
struct Bank {
    name: Arc<str>,
    manner: Mutex<Manner>,
    moved: Mutex<BTreeMap<String, u64>>,
}

impl Bank {
    fn moved(&self, n: u64) -> u64 {
        let moved = self.moved.lock();
        moved.get(&nonce(n).to_string()).copied().unwrap_or(0)
    }
}

fn nonce_in(request: &FacilitatorRequest) -> String {
    let body: Value = serde_json::from_str(&request.body).unwrap();
    let nonce = &body["paymentPayload"]["payload"]["authorization"]["nonce"];
    nonce.as_str().unwrap().to_owned()
}

fn receipt(reason: Option<&str>) -> SettlementResponse {
    SettlementResponse {
        success: reason.is_none(),
        error_reason: reason.map(str::to_owned),
        transaction: reason.map_or("0xabc", |_| "").to_owned(),
        network: "eip155:84532".to_owned(),
        ..SettlementResponse::default()
    }
}

#[async_trait]
impl Facilitator for Bank {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    async fn verify(&self, request: &FacilitatorRequest) -> VerifyAnswer {
        if self.moved.lock().contains_key(&nonce_in(request)) {
            let reason = ReasonCode::foreign(NONCE_USED);
            return VerifyAnswer::Invalid { reason };
        }
        VerifyAnswer::Valid { payer: None }
    }

    async fn settle(&self, request: &FacilitatorRequest) -> SettleAnswer {
        let manner = *self.manner.lock();
        let lost = SettleAnswer::Unknown(FacilitatorFault::Timeout(1));
        match manner {
            Manner::Silent => return lost,
            Manner::Refuses => return SettleAnswer::Refused(receipt(Some("no"))),
            Manner::Away => {
                let fault = FacilitatorFault::Connect("refused".to_owned());
                return SettleAnswer::NotSent(fault);
            }
            Manner::Honest | Manner::LosesAnswers => {}
        }
        let mut moved = self.moved.lock();
        let nonce = nonce_in(request);
        if moved.contains_key(&nonce) {
            return SettleAnswer::Refused(receipt(Some(NONCE_USED)));
        }
        moved.insert(nonce, 1);
        match manner {
            Manner::LosesAnswers => lost,
            Manner::Honest | Manner::Silent | Manner::Refuses | Manner::Away => {
                SettleAnswer::Settled(receipt(None))
            }
        }
    }

    async fn supported(&self) -> Result<Supported, FacilitatorFault> {
        Ok(Supported::default())
    }
}

/// A gate with everything behind it.
struct World {
    gate: Gate,
    bank: Arc<Bank>,
    clock: Arc<Stepping>,
    ledger: Arc<dyn Ledger>,
    settler: Arc<Settler>,
    reconciler: Reconciler,
    _directory: TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("ledger.db")).unwrap();
        Self::on(directory, Arc::new(ledger))
    }

    fn on(directory: TempDir, ledger: Arc<dyn Ledger>) -> Self {
        let clock = Arc::new(Stepping(AtomicU64::new(NOW.0)));
        let bank = Arc::new(Bank {
            name: "fac".into(),
            manner: Mutex::default(),
            moved: Mutex::default(),
        });
        let facilitator: Arc<dyn Facilitator> = bank.clone();
        let facilitators = Facilitators::from([(Arc::from("fac"), facilitator)]);
        let time: Arc<dyn Clock> = clock.clone();
        let settings = settings(rules(&[("/{name}", priced(PRICE))]));
        let settler = Settler::new(
            facilitators.clone(),
            Arc::clone(&ledger),
            Arc::clone(&time),
            Handle::current(),
        );
        let gate = Gate::new(GateParts {
            routes: RouteTable::build(&settings, &SupportedBook::new()).unwrap(),
            verifier: Verifier::new(VerdictCache::new(100), facilitators),
            ledger: Arc::clone(&ledger),
            settler: Arc::clone(&settler),
            kept: Arc::new(KeptResponses::new(0)),
            clock: Arc::clone(&time),
            limits: GateLimits {
                payment_header_bytes_max: 16_384,
                unverified_proofs_max: 100,
                duplicate_wait: Duration::from_millis(1),
                retry_window: Duration::from_secs(60),
                throttle: ThrottleLimits {
                    calls_per_client: NonZeroU32::MAX,
                    calls_per_payer: NonZeroU32::MAX,
                    refused_per_client: NonZeroU32::MAX,
                    verifying_per_client_max: 100,
                    keys_max: 100,
                },
            },
        });
        let (of, with) = (Arc::clone(&settler), Arc::clone(&ledger));
        Self {
            gate,
            bank,
            clock,
            reconciler: Reconciler::new(of, with, Chains::new(), Preferences::new(), time),
            ledger,
            settler,
            _directory: directory,
        }
    }

    /// Payment `n`, presented for a path.
    async fn present(&self, n: u64, path: &str) -> Result<Admission, PaymentRefusal> {
        let refusal = match self.ask(&proof(n), 2, path).await {
            Ok(admission) => return Ok(admission),
            Err(refusal) => refusal,
        };
        let Refusal::Payment { why, .. } = refusal else {
            panic!("{refusal}");
        };
        Err(why)
    }

    async fn present_as(&self, proof: &str, version: u8, path: &str) -> Result<Admission, Refusal> {
        self.ask(proof, version, path).await
    }

    async fn is_denied(&self, path: &str) -> bool {
        matches!(
            self.ask(&proof(1), 2, path).await,
            Err(Refusal::Denied { .. })
        )
    }

    async fn ask(&self, proof: &str, version: u8, path: &str) -> Result<Admission, Refusal> {
        let host = CanonicalHost::parse(b"api.example.com", Scheme::Https).unwrap();
        let target = CanonicalTarget::parse(path.as_bytes(), 100).unwrap();
        let of = |wanted| match version == wanted {
            true => vec![proof.as_bytes()],
            false => Vec::new(),
        };
        let ask = Ask {
            method: "GET",
            host: &host,
            target: &target,
            proof: ProofHeaders {
                payment_signature: of(2),
                x_payment: of(1),
            },
            has_body: false,
            content_length: None,
            idempotency_key: None,
            client: Client::at(None),
            phases: &Phases::default(),
            delivery: Delivery::Here,
        };
        self.gate.admit(&ask).await
    }

    /// The same, for who expects to go upstream.
    async fn admitted(&self, n: u64, path: &str) -> Box<Paid> {
        match self.present(n, path).await {
            Ok(Admission::Paid(paid)) => paid,
            other => panic!("{other:?}"),
        }
    }

    /// The upstream answers well: settles. Returns whether it may go out.
    async fn release(&self, paid: &mut Paid) -> bool {
        let released = self.gate.release(paid, 200, None).await;
        matches!(released, Ok(Release::Charged(_)))
    }

    async fn finish(&self, paid: Box<Paid>, delivered: bool) {
        let ending = Ending {
            delivered,
            client_left: false,
            response: None,
        };
        self.gate.finish(paid, ending);
        self.rest().await;
    }

    /// Until everything is on record.
    async fn rest(&self) {
        while self.settler.tasks() > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// One look at each unknown settlement, whether due or not.
    async fn reconcile(&self) {
        for record in self.reconciler.unknown().await.unwrap() {
            self.reconciler.look(&record).await.unwrap();
        }
    }

    /// The states of all claims of payment `n`, oldest first.
    async fn states(&self, n: u64) -> Vec<State> {
        let nonce = format!("eip3009:{}", nonce(n));
        let mut records = self.ledger.list(Filter::default()).await.unwrap();
        records.reverse();
        records.retain(|record| *record.claim.nonce == *nonce);
        records.iter().map(|record| record.state).collect()
    }
}

fn nonce(n: u64) -> B256 {
    U256::from(n + 1).into()
}

#[tokio::test]
async fn what_is_under_way_shows_no_signature_as_debug_text() {
    let world = World::new();
    let message: Value = header::decode(proof(1).as_bytes(), 10_000).unwrap();
    let signature = message["payload"]["signature"].as_str().unwrap();
    let mut paid = world.admitted(1, "/a").await;
    let claimed = format!("{paid:?}");
    assert!(world.release(&mut paid).await);
    for shown in [claimed, format!("{paid:?}")] {
        assert!(shown.contains("FacilitatorRequest("), "{shown}");
        assert!(!shown.contains(&signature[2..]), "{shown}");
    }
    world.finish(paid, true).await;
}

/// A proof that is good from ten minutes before [`NOW`] until five minutes after it.
fn proof(n: u64) -> String {
    proof_in(2, n)
}

/// The same in a version of the protocol.
fn proof_in(version: u8, n: u64) -> String {
    let key = SecretKey::from_byte_array([7; 32]).unwrap();
    let authorization = Authorization::new(
        eip712::address_of(&key),
        PAY_TO.parse().unwrap(),
        AtomicAmount::new(PRICE),
        NOW.minus(600),
        NOW.plus(300),
        nonce(n),
    );
    let domain = eip712::domain_separator("USDC", Some("2"), 84_532, USDC.parse().unwrap());
    let signature = eip712::sign(authorization.digest(domain), &key);
    if version == 1 {
        return header::encode(&json!({
            "x402Version": 1, "scheme": "exact", "network": "base-sepolia",
            "payload": authorization.to_payload(&signature),
        }));
    }
    header::encode(&json!({
        "x402Version": 2,
        "payload": authorization.to_payload(&signature),
        "accepted": {
            "scheme": "exact", "network": "eip155:84532", "amount": PRICE.to_string(),
            "asset": USDC, "payTo": PAY_TO, "maxTimeoutSeconds": 300,
            "extra": {"name": "USDC", "version": "2"},
        },
    }))
}

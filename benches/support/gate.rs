//! A gate with nothing slow behind it: a facilitator that says yes at once, and a ledger that knows no
//! payment and takes none. What is left is what the wall itself does to a request.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use farewall::chain::PaymentKey;
use farewall::clock::{Clock, UnixSeconds};
use farewall::facilitator::supported::Supported;
use farewall::facilitator::{
    Facilitator, FacilitatorFault, FacilitatorRequest, SettleAnswer, VerifyAnswer,
};
use farewall::gate::{Ask, Delivery, Facilitators, Gate, GateLimits, GateParts, Settler};
use farewall::kept::KeptResponses;
use farewall::ledger::upkeep::{Batch, Cursor};
use farewall::ledger::{
    ClaimAnswer, ClaimId, Filter, Ledger, LedgerError, Move, NewClaim, Note, Record, Total,
};
use farewall::metrics::Phases;
use farewall::proof::ProofHeaders;
use farewall::proof::cache::VerdictCache;
use farewall::proof::verify::Verifier;
use farewall::target::{CanonicalHost, CanonicalTarget, Scheme};
use farewall::throttle::{Client, ThrottleLimits};
use futures_util::FutureExt;

use super::NOW;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> UnixSeconds {
        NOW
    }
}

struct Agreeing(Arc<str>);

#[async_trait]
impl Facilitator for Agreeing {
    fn name(&self) -> &Arc<str> {
        &self.0
    }

    async fn verify(&self, _: &FacilitatorRequest) -> VerifyAnswer {
        VerifyAnswer::Valid { payer: None }
    }

    async fn settle(&self, _: &FacilitatorRequest) -> SettleAnswer {
        panic!("nothing gets so far")
    }

    async fn supported(&self) -> Result<Supported, FacilitatorFault> {
        Ok(Supported::default())
    }
}

const NO_LEDGER: LedgerError = LedgerError::Closed("there is none here");

struct Blank;

#[async_trait]
impl Ledger for Blank {
    async fn find(&self, _: PaymentKey) -> Result<Option<Record>, LedgerError> {
        Ok(None)
    }

    async fn claim(&self, _: NewClaim, _: UnixSeconds) -> Result<ClaimAnswer, LedgerError> {
        Err(NO_LEDGER)
    }

    async fn advance(&self, _: ClaimId, _: Move, _: UnixSeconds) -> Result<(), LedgerError> {
        Err(NO_LEDGER)
    }

    async fn list(&self, _: Filter) -> Result<Vec<Record>, LedgerError> {
        Err(NO_LEDGER)
    }

    async fn totals(&self, _: Filter) -> Result<Vec<Total>, LedgerError> {
        Err(NO_LEDGER)
    }

    async fn mark(&self, _: Note) -> Result<(), LedgerError> {
        Err(NO_LEDGER)
    }

    async fn notes(&self, _: ClaimId) -> Result<Vec<Note>, LedgerError> {
        Err(NO_LEDGER)
    }

    async fn release_abandoned(&self, _: UnixSeconds) -> Result<u64, LedgerError> {
        Err(NO_LEDGER)
    }

    async fn unsettled(&self, _: Cursor, _: u32) -> Result<Vec<Record>, LedgerError> {
        Err(NO_LEDGER)
    }

    async fn prune(&self, _: UnixSeconds, _: UnixSeconds, _: Cursor) -> Result<Batch, LedgerError> {
        Err(NO_LEDGER)
    }

    async fn compact(&self) -> Result<Batch, LedgerError> {
        Err(NO_LEDGER)
    }
}

/// The gate, and a request for it.
pub struct World {
    gate: Gate,
    host: CanonicalHost,
    target: CanonicalTarget,
    /// One after the other.
    proofs: Vec<String>,
    sent: AtomicUsize,
    phases: Phases,
    runtime: tokio::runtime::Runtime,
}

impl World {
    /// A request for `path`, of which `/v1/r0/7` is priced and `/free` is not. Its proof is good.
    pub fn new(path: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        let name: Arc<str> = "main".into();
        let facilitator: Arc<dyn Facilitator> = Arc::new(Agreeing(Arc::clone(&name)));
        let facilitators = Facilitators::from([(name, facilitator)]);
        let (ledger, clock): (Arc<dyn Ledger>, Arc<dyn Clock>) = (Arc::new(Blank), Arc::new(Fixed));
        let handle = runtime.handle().clone();
        let settler = Settler::new(
            facilitators.clone(),
            Arc::clone(&ledger),
            Arc::clone(&clock),
            handle,
        );
        let gate = Gate::new(GateParts {
            routes: super::table(10),
            verifier: Verifier::new(VerdictCache::new(1000), facilitators),
            ledger,
            settler,
            kept: Arc::new(KeptResponses::new(1 << 20)),
            clock,
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
                    keys_max: 1000,
                },
            },
        });
        Self {
            gate,
            host: CanonicalHost::parse(b"api.example.com", Scheme::Https).unwrap(),
            target: CanonicalTarget::parse(path.as_bytes(), 8192).unwrap(),
            proofs: vec![super::proof(&super::quote(), 1).value],
            sent: AtomicUsize::new(0),
            phases: Phases::default(),
            runtime,
        }
    }

    /// The same with so many proofs that pay one unit too much: found out last of all that is judged here.
    pub fn overpaid(proofs: u64) -> Self {
        let mut world = Self::new("/v1/r0/7");
        let quote = super::quote();
        world.proofs = (0..proofs)
            .map(|nth| super::overpaid(&quote, nth).value)
            .collect();
        world
    }

    /// The same, after a facilitator has been asked about the proof.
    pub fn known() -> Self {
        let world = Self::new("/v1/r0/7");
        let asked = world.runtime.block_on(world.gate.admit(&world.ask(true)));
        assert!(asked.is_err(), "the ledger takes no payment");
        world
    }

    fn ask(&self, is_paid: bool) -> Ask<'_> {
        let nth = self.sent.fetch_add(1, Ordering::Relaxed) % self.proofs.len();
        Ask {
            method: "GET",
            host: &self.host,
            target: &self.target,
            proof: ProofHeaders {
                payment_signature: match is_paid {
                    true => vec![self.proofs[nth].as_bytes()],
                    false => Vec::new(),
                },
                x_payment: Vec::new(),
            },
            idempotency_key: None,
            has_body: false,
            content_length: None,
            client: Client::at(None),
            phases: &self.phases,
            delivery: Delivery::Here,
        }
    }

    /// Asks the gate; nobody is waited for. Whether it lets the request through.
    pub fn admit(&self, is_paid: bool) -> bool {
        let ask = self.ask(is_paid);
        let answer = self.gate.admit(&ask).now_or_never();
        answer.expect("the gate waited for somebody").is_ok()
    }

    /// Why it does not: for assertions that the right thing is measured.
    pub fn why_not(&self, is_paid: bool) -> String {
        let ask = self.ask(is_paid);
        let answer = self.gate.admit(&ask).now_or_never();
        let refusal = answer.expect("the gate waited for somebody");
        refusal.expect_err("it was let through").to_string()
    }
}

//! Walls that die at any moment, by SIGKILL, under a load of buyers who insist on what they paid for.
//!
//! `FAREWALL_PG_KILLS=500 cargo test --test it postgres::kills -- --nocapture` is the long run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::walls::{balanced, two_walls};
use crate::reconcile::fake::FakeChain;
use crate::support::{
    Cluster, Setup, Signer, Trial, Wall, buyer, decode, encode, eventually, offer, send,
};
use farewall::sandbox::Sandbox;
use farewall::settlement::{STATES, State};

const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const HEAD: u64 = 5000;

/// How long a buyer tries to get what it signed for. Far longer than any lease, and than the longest
/// pause between two looks at an unknown settlement (a minute, after a minute of bad luck).
const PATIENCE: Duration = Duration::from_secs(150);

/// A response that a buyer got for its payment.
pub struct Bought {
    nonce: B256,
    receipt: Value,
    path: &'static str,
    proof: String,
}

/// A chain that knows what the facilitator settled, a moment later: without one a settlement whose
/// record was lost with its wall stays unknown, because "nonce already used" proves nothing.
pub struct Mirror {
    chain: FakeChain,
    signed: Mutex<Vec<(B256, Address)>>,
}

impl Mirror {
    pub async fn start() -> Arc<Self> {
        Arc::new(Self {
            chain: FakeChain::start(84_532, buyer::now(), HEAD).await,
            signed: Mutex::default(),
        })
    }

    /// With this chain to ask.
    pub fn setup(&self, setup: Setup) -> Setup {
        let url = self.chain.url();
        Setup {
            top: format!("[network.base-sepolia]\nrpc_url = \"{url}\"\n"),
            ..setup
        }
    }

    fn mine(&self, sandbox: &Sandbox) {
        self.signed.lock().unwrap().retain(|(nonce, from)| {
            let settled = sandbox.settled(*nonce) > 0;
            if settled {
                let to = buyer::PAY_TO.parse().unwrap();
                let route = (USDC.parse().unwrap(), *from, to);
                self.chain.settle(HEAD - 5, route, 2000, *nonce);
            }
            !settled
        });
    }
}

/// Buyers who pay through any of the walls, again and again, until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    buyers: Vec<JoinHandle<Vec<Bought>>>,
}

impl Load {
    pub fn start(walls: &[Wall], mirror: &Arc<Mirror>, buyers: usize) -> Self {
        let origins: Vec<String> = walls.iter().map(|wall| wall.url("")).collect();
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (mined, sandbox) = (Arc::clone(mirror), walls[0].sandbox.clone());
        tokio::spawn(async move {
            loop {
                mined.mine(&sandbox);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let buyers = (0..buyers)
            .map(|_| {
                let (origins, stop, served) =
                    (origins.clone(), Arc::clone(&stop), Arc::clone(&served));
                let mirror = Arc::clone(mirror);
                tokio::spawn(async move {
                    let mut bought = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        bought.push(buy(&origins, &mirror).await);
                        served.fetch_add(1, Ordering::Relaxed);
                        // Enough to be in the middle of things, and not more than can be checked.
                        tokio::time::sleep(Duration::from_millis(rand::random_range(0..1500)))
                            .await;
                    }
                    bought
                })
            })
            .collect();
        Self {
            stop,
            served,
            buyers,
        }
    }

    /// How many responses the buyers got so far.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Lets every buyer get what it is about to buy.
    pub async fn finish(self) -> Vec<Bought> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for buyer in self.buyers {
            all.extend(buyer.await.expect("a buyer did not get what it paid for"));
        }
        all
    }
}

/// Presents one proof, anywhere, until it is answered with the response. Never signs a second one.
async fn buy(origins: &[String], mirror: &Mirror) -> Bought {
    let (signer, offer) = (Signer::new(), offer(2000));
    let authorization = signer.authorization(&offer);
    let nonce = authorization.nonce;
    mirror.signed.lock().unwrap().push((nonce, signer.address));
    let payload = signer.payload(&offer, &authorization);
    let proof = encode(&json!({ "x402Version": 2, "payload": payload, "accepted": offer.0 }));
    let path = ["/v1/data", "/v1/slow?ms=20", "/v1/slow?ms=150"][rand::random_range(0..3)];
    let end = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < end {
        let origin = &origins[rand::random_range(0..origins.len())];
        let request = balanced(Method::GET, &format!("{origin}{path}"), &proof);
        match request.send().await {
            Ok(response) => {
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                let body = response.text().await;
                last = format!("{status} {body:?}");
                if status == 200 && body.is_ok() {
                    let receipt = headers.get("payment-response").expect("a receipt");
                    let receipt = decode(receipt.to_str().unwrap());
                    return Bought {
                        nonce,
                        receipt,
                        path,
                        proof,
                    };
                }
                // An invitation to pay again would be taken: this buyer has signed for this already.
                assert_ne!(status, 402, "{path} {last}");
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..200))).await;
    }
    panic!("no response for a proof within {PATIENCE:?}; last: {last}");
}

/// What was in the ledger at the last look: nothing may vanish, and nothing may go back.
#[derive(Default)]
pub struct Books(BTreeMap<u64, State>);

impl Books {
    /// What must be true at every moment, whatever dies: no payment is taken twice, in the ledger or at
    /// the facilitator, claims only move as they may, and the sums add up.
    #[track_caller]
    pub fn check(&mut self, wall: &Wall, records: &[Value]) {
        let mut holders = BTreeMap::<&str, &Value>::new();
        let mut now = BTreeMap::new();
        let (mut open, mut paid, mut unpaid) = (0, 0, 0);
        for record in records {
            let state: State = record["state"].as_str().unwrap().parse().unwrap();
            now.insert(record["id"].as_u64().unwrap(), state);
            let amount: u64 = record["amount_atomic"].as_str().unwrap().parse().unwrap();
            match state {
                State::Claimed | State::Settling => open += amount,
                State::Settled | State::Delivered => paid += amount,
                State::Released | State::Refused | State::Expired => unpaid += amount,
            }
            if state.holds_payment() {
                let other = holders.insert(record["payment"].as_str().unwrap(), record);
                assert!(other.is_none(), "taken twice: {other:?} and {record}");
            }
            let settled = wall.sandbox.settled(nonce_of(record));
            assert!(settled <= 1, "settled {settled} times: {record}");
            assert!(
                !state.is_paid() || settled == 1,
                "on record as paid, and it is not: {record}"
            );
        }
        for (id, was) in &self.0 {
            let is = now.get(id).unwrap_or_else(|| panic!("claim {id} vanished"));
            assert!(may_end_as(*was, *is), "claim {id} went from {was} to {is}");
        }
        // Invariant 3 of the design: each claim costs 2000 and is in exactly one state.
        assert_eq!(
            2000 * u64::try_from(now.len()).unwrap(),
            open + paid + unpaid
        );
        self.0 = now;
    }
}

/// Whether legal moves lead from one state to the other. (`settling` may follow itself.)
fn may_end_as(from: State, to: State) -> bool {
    from == to
        || STATES
            .into_iter()
            .any(|next| next != from && from.may_become(next) && may_end_as(next, to))
}

/// What must be true when all is quiet: what was paid was delivered or is collected by its proof, and
/// nothing was served that was not paid.
pub async fn check_the_books(walls: &[Wall], bought: &[Bought]) {
    eventually("nothing is open", || {
        let open = ["claimed", "settling"];
        let states = walls[0].states();
        states.iter().all(|state| !open.contains(&state.as_str()))
    });
    let by_nonce: BTreeMap<B256, &Bought> = bought.iter().map(|b| (b.nonce, b)).collect();
    let records = walls[0].ledger();
    let owed = records.iter().filter(|record| record["state"] == "settled");
    let owed: Vec<&Bought> = owed.map(|record| by_nonce[&nonce_of(record)]).collect();
    eprintln!("{} debts are collected", owed.len());
    for (n, debt) in owed.iter().enumerate() {
        let url = walls[n % walls.len()].url(debt.path);
        let answer = send(balanced(Method::GET, &url, &debt.proof)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.receipt(), debt.receipt);
    }
    eventually("every payment is delivered", || {
        !walls[0].states().contains(&"settled".to_owned())
    });
    let records = walls[0].ledger();
    Books::default().check(&walls[0], &records);
    let paid: BTreeMap<B256, &Value> = records
        .iter()
        .filter(|record| record["state"] == "delivered")
        .map(|record| (nonce_of(record), record))
        .collect();
    for Bought { nonce, receipt, .. } in bought {
        let record = paid.get(nonce).expect("served, and not on record as paid");
        assert_eq!(record["transaction"], receipt["transaction"]);
        assert_eq!(receipt["success"], true);
    }
    assert_eq!(paid.len(), bought.len(), "paid, and not served");
    let settled = usize::try_from(walls[0].sandbox.stats().settled).unwrap();
    assert_eq!(settled, bought.len(), "money moved for nothing");
}

fn nonce_of(record: &Value) -> B256 {
    let nonce = record["nonce"].as_str().unwrap();
    nonce.strip_prefix("eip3009:").unwrap().parse().unwrap()
}

fn kills() -> usize {
    let wish = std::env::var("FAREWALL_PG_KILLS").ok();
    wish.map_or(20, |kills| kills.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn walls_killed_at_any_moment_lose_no_payment_and_take_none_twice() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let trial = Trial::of("kills survived, PostgreSQL");
    let mirror = Mirror::start().await;
    let patient = |setup: Setup| Setup {
        limits: "duplicate_wait_ms = 1000".to_owned(),
        ..mirror.setup(setup)
    };
    let mut walls = two_walls(&cluster, "lease_s = 2", patient).await;
    let load = Load::start(&walls, &mirror, 12);
    let (kills, mut books) = (kills(), Books::default());
    for kill in 1..=kills {
        let pause = rand::random_range(50..600);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let victim = rand::random_range(0..walls.len());
        walls[victim].kill();
        let records = walls[1 - victim].ledger();
        books.check(&walls[victim], &records);
        walls[victim].restart();
        if kill % 50 == 0 {
            eprintln!(
                "{kill} kills, {} payments, {} served",
                records.len(),
                load.served()
            );
        }
    }
    let bought = load.finish().await;
    check_the_books(&walls, &bought).await;
    let released = walls[0]
        .states()
        .iter()
        .filter(|state| *state == "released")
        .count();
    eprintln!(
        "{kills} kills: {} served, {released} claims given back, 0 violations",
        bought.len()
    );
    assert!(bought.len() > kills, "hardly any load");
    trial.held(kills);
}

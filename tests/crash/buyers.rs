//! Buyers who behave: they repeat the same proof until it has bought something, and write down
//! what they saw.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alloy_primitives::B256;
use farewall::clock::UnixSeconds;
use farewall::money::AtomicAmount;
use farewall::sandbox::Sandbox;
use farewall::x402::eip3009::Authorization;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::process::Site;
use crate::support::buyer::Offer;
use crate::support::{Signer, encode, offer};

pub const BUYERS: u64 = 16;

/// So often an unknown outcome is asked for before the proof is put aside until the end.
const UNKNOWN_MAX: u32 = 4;
/// So often a response that never comes whole is asked for.
const BROKEN_MAX: u32 = 2;
/// More answers than this without an end, and nobody would ever be served.
const ANSWERS_MAX: u32 = 300;

/// What is bought.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub method: &'static str,
    pub path: &'static str,
    /// In the smallest unit.
    pub price: u64,
    /// How the origin fails, if it always does.
    pub fails: Option<Failure>,
    often: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    Status,
    MidBody,
}

const fn product(often: u32, method: &'static str, path: &'static str, price: u64) -> Product {
    Product {
        method,
        path,
        price,
        fails: None,
        often,
    }
}

const fn failing(mut product: Product, how: Failure) -> Product {
    product.fails = Some(how);
    product
}

const PRODUCTS: [Product; 11] = [
    product(8, "GET", "/v1/quote?", 2000),
    product(6, "POST", "/v1/echo?", 2000),
    product(4, "GET", "/v1/slow?ms=40", 2000),
    product(3, "POST", "/v1/slow?ms=25", 2000),
    product(4, "GET", "/v1/events?count=4&ms=15", 2000),
    product(2, "GET", "/v1/big?bytes=300000", 2000),
    failing(product(3, "GET", "/v1/fail?", 2000), Failure::Status),
    failing(product(2, "GET", "/v1/dies?", 2000), Failure::MidBody),
    product(4, "GET", "/before/quote?", 3000),
    product(3, "POST", "/before/slow?ms=20", 3000),
    failing(product(1, "GET", "/before/fail?", 3000), Failure::Status),
];

impl Product {
    fn any(random: &mut StdRng) -> Self {
        let all: u32 = PRODUCTS.iter().map(|p| p.often).sum();
        let mut at = random.random_range(0..all);
        for product in PRODUCTS {
            if at < product.often {
                return product;
            }
            at -= product.often;
        }
        unreachable!()
    }

    pub fn is_paid_in_advance(&self) -> bool {
        self.path.starts_with("/before")
    }
}

/// One purchase, and how it went so far.
#[derive(Clone, Debug)]
pub struct Deal {
    pub product: Product,
    pub target: String,
    pub nonce: B256,
    pub proof: String,
    /// A status below 400 with its headers arrived.
    pub begun: bool,
    /// A response arrived whole.
    pub served: bool,
    /// A failure arrived whose answer had no receipt: nothing was charged.
    pub told_uncharged: bool,
    pub end: End,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Still at it.
    Open,
    /// Got it.
    Served,
    /// The origin fails, always.
    Failed,
    /// Paid, the response was lost, and the request is not one to repeat.
    Lost,
    /// The outcome is unknown for now.
    Unknown,
    /// The payment has bought its response already.
    Spent,
}

/// What one presentation of a proof gave.
#[derive(Debug, Eq, PartialEq)]
pub enum Seen {
    Whole,
    Broken,
    Failure,
    Unknown,
    Lost,
    Spent,
    Later,
}

pub struct Market {
    client: Client,
    base: String,
    sandbox: Sandbox,
    doors: watch::Sender<bool>,
    closing: AtomicBool,
    deals: Mutex<HashMap<B256, Deal>>,
    violations: Mutex<Vec<String>>,
}

impl Market {
    pub fn open(site: &Site) -> Arc<Self> {
        Arc::new(Self {
            client: Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(20))
                .build()
                .unwrap(),
            base: site.url(""),
            sandbox: site.sandbox.clone(),
            doors: watch::channel(false).0,
            closing: AtomicBool::new(false),
            deals: Mutex::default(),
            violations: Mutex::default(),
        })
    }

    /// Whether there is a wall to go to.
    pub fn open_doors(&self, open: bool) {
        self.doors.send_replace(open);
    }

    /// No new purchases.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub fn violation(&self, what: String) {
        self.violations.lock().push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    pub fn deal(&self, nonce: &B256) -> Option<Deal> {
        self.deals.lock().get(nonce).cloned()
    }

    pub fn deals(&self) -> Vec<Deal> {
        self.deals.lock().values().cloned().collect()
    }

    /// Buys one thing after the other.
    pub async fn buy(self: Arc<Self>, mut random: StdRng) {
        let signer = Signer::new();
        let mut doors = self.doors.subscribe();
        while !self.closing.load(Ordering::SeqCst) {
            let deal = self.new_deal(&signer, &mut random);
            self.deals.lock().insert(deal.nonce, deal.clone());
            let copies = if random.random_range(0..8) == 0 { 2 } else { 1 };
            let mut ends = Vec::new();
            for _ in 0..copies {
                ends.push(self.pursue(deal.clone(), doors.clone()));
            }
            let ends = futures_util::future::join_all(ends).await;
            self.end(&deal, &ends);
            let _ = doors.wait_for(|open| *open).await;
        }
    }

    /// What became of it, given what became of each copy.
    fn end(&self, deal: &Deal, ends: &[End]) {
        let served = ends.contains(&End::Served);
        let end = if served { End::Served } else { ends[0] };
        // One copy was served, and after a crash there is nothing left to replay to the other.
        if ends.contains(&End::Spent) && !served {
            self.violation(format!("{} spent, and never served: {ends:?}", told(deal)));
        }
        self.note(&deal.nonce, |deal| deal.end = end);
    }

    fn new_deal(&self, signer: &Signer, random: &mut StdRng) -> Deal {
        let product = Product::any(random);
        let offer = offer(product.price);
        let authorization = lasting(signer, &offer);
        let payload = signer.payload(&offer, &authorization);
        let nonce: B256 = payload["authorization"]["nonce"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let proof = json!({ "x402Version": 2, "payload": payload, "accepted": offer.0 });
        Deal {
            product,
            target: format!("{}&id={:x}", product.path, random.random::<u64>()),
            nonce,
            proof: encode(&proof),
            begun: false,
            served: false,
            told_uncharged: false,
            end: End::Open,
        }
    }

    /// Presents the same proof until it is clear what becomes of it.
    async fn pursue(&self, deal: Deal, mut doors: watch::Receiver<bool>) -> End {
        let (mut unknown, mut broken, mut failed) = (0, 0, 0);
        for _ in 0..ANSWERS_MAX {
            let Some(seen) = self.present(&deal, &mut doors).await else {
                return End::Open;
            };
            match seen {
                Seen::Whole => return End::Served,
                Seen::Lost => return End::Lost,
                Seen::Spent => return End::Spent,
                Seen::Broken if deal.product.fails == Some(Failure::MidBody) => {
                    broken += 1;
                    if broken == BROKEN_MAX {
                        return End::Failed;
                    }
                }
                Seen::Broken => {}
                Seen::Failure if deal.product.fails.is_some() => {
                    failed += 1;
                    if failed == BROKEN_MAX {
                        return End::Failed;
                    }
                }
                Seen::Failure => {}
                Seen::Unknown => {
                    unknown += 1;
                    if unknown == UNKNOWN_MAX {
                        return End::Unknown;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Seen::Later => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        self.violation(format!("{} {ANSWERS_MAX} answers, no end", told(&deal)));
        End::Open
    }

    /// One answer to the proof; goes again while there is no wall or the connection breaks before
    /// an answer. `None` when it was refused as if it had bought nothing: a violation, on record.
    pub async fn present(&self, deal: &Deal, doors: &mut watch::Receiver<bool>) -> Option<Seen> {
        let response = loop {
            let _ = doors.wait_for(|open| *open).await;
            let method: Method = deal.product.method.parse().unwrap();
            let mut request = self
                .client
                .request(method, format!("{}{}", self.base, deal.target))
                .header("PAYMENT-SIGNATURE", &deal.proof);
            if deal.product.method == "POST" {
                request = request.body(deal.target.clone());
            }
            match request.send().await {
                Ok(response) => break response,
                Err(_) => tokio::time::sleep(Duration::from_millis(4)).await,
            }
        };
        self.judge(deal, response).await
    }

    async fn judge(&self, deal: &Deal, response: Response) -> Option<Seen> {
        let status = response.status().as_u16();
        let receipt = response.headers().contains_key("payment-response");
        let challenged = response.headers().contains_key("payment-required");
        if status < 400 {
            // Not a byte before the money has moved, and only once.
            let settled = self.sandbox.settled(deal.nonce);
            if settled != 1 || !receipt {
                self.violation(format!(
                    "{} served, settled {settled} times, receipt: {receipt}",
                    told(deal)
                ));
            }
            self.note(&deal.nonce, |deal| deal.begun = true);
            let Ok(body) = response.bytes().await else {
                return Some(Seen::Broken);
            };
            if deal.product.path.contains("/echo") && body != deal.target.as_bytes() {
                self.violation(format!("{} got another body", told(deal)));
            }
            self.note(&deal.nonce, |deal| deal.served = true);
            return Some(Seen::Whole);
        }
        let Ok(body) = response.bytes().await else {
            return Some(Seen::Later);
        };
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let code = json["error"].as_str().unwrap_or_default();
        match (status, code) {
            (503, "settlement_unknown") => Some(Seen::Unknown),
            (503, _) | (409, "payment_in_progress") => Some(Seen::Later),
            (409, "paid_response_lost") if receipt && deal.product.method != "GET" => {
                Some(Seen::Lost)
            }
            (402, "payment_already_used") if challenged => Some(Seen::Spent),
            (500 | 502 | 504, _) => {
                if !receipt {
                    self.note(&deal.nonce, |deal| deal.told_uncharged = true);
                }
                Some(Seen::Failure)
            }
            _ => {
                let body = String::from_utf8_lossy(&body).into_owned();
                self.violation(format!("{} answered {status} {body}", told(deal)));
                None
            }
        }
    }

    pub fn note(&self, nonce: &B256, change: impl FnOnce(&mut Deal)) {
        self.deals.lock().get_mut(nonce).map(change);
    }

    pub fn doors(&self) -> watch::Receiver<bool> {
        self.doors.subscribe()
    }
}

/// For messages.
pub fn told(deal: &Deal) -> String {
    let Deal { product, nonce, .. } = deal;
    format!("{} {} {nonce}:", product.method, product.path)
}

/// Valid for a day: the length of a run must not decide what becomes of a payment.
fn lasting(signer: &Signer, offer: &Offer) -> Authorization {
    let short = signer.authorization(offer);
    let text = |name: &str| offer.0[name].as_str().unwrap();
    Authorization::new(
        signer.address,
        text("payTo").parse().unwrap(),
        AtomicAmount::parse(text("amount")).unwrap(),
        UnixSeconds(crate::support::buyer::now() - 600),
        UnixSeconds(crate::support::buyer::now() + 86_400),
        short.nonce,
    )
}

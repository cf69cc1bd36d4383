//! A facilitator over HTTP for test networks: real signatures, play money, nonces spent once.
//!
//! An ordinary facilitator: the wall reaches it through the same client as any other. It has no
//! chain: balances are in memory, and every account starts with some. Mainnets are refused, and its
//! transaction hashes spell "sandbox". Tests can make it [misbehave](Misbehaviour).

mod book;
pub mod check;
mod http;
pub mod misbehave;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy_primitives::{Address, B256};
use axum::Router;
use axum::serve::ListenerExt;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::chain::{Network, assets};
use crate::clock::{Clock, SystemClock};
use crate::facilitator::supported::{Kind, Supported};
use crate::money::AtomicAmount;
use crate::sandbox::book::Book;
use crate::sandbox::check::{Rejection, Submitted};
use crate::sandbox::misbehave::{Call, Script};
use crate::x402::message::{SettlementResponse, VerifyResponse};

pub use crate::sandbox::misbehave::{Misbehaviour, Misdeed, Scope};

/// At most so many settlements whose success is kept for a later call.
const PENDING_MAX: usize = 10_000;
/// "sandbox" in ASCII, then zeros: the address that the sandbox claims to sign with.
const SIGNER: &str = "0x73616e64626f7800000000000000000000000000";

/// How a sandbox is set up.
#[derive(Clone)]
pub struct SandboxOptions {
    /// Whole tokens that every account starts with, of every token; default 1000.
    pub starting_balance: u64,
    /// How long a settlement takes; default none.
    pub settle_delay: Duration,
    /// Whether `POST /sandbox/misbehave` exists; default no.
    pub allow_misbehaviour: bool,
    /// The time that authorizations are judged against; default the machine's.
    pub clock: Arc<dyn Clock>,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            starting_balance: 1000,
            settle_delay: Duration::ZERO,
            allow_misbehaviour: false,
            clock: Arc::new(SystemClock),
        }
    }
}

/// A sandbox facilitator. Clones are handles to the same one.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    options: SandboxOptions,
    book: Mutex<Book>,
    script: Mutex<Script>,
    pending: Mutex<HashMap<String, SettlementResponse>>,
    verify_calls: AtomicU64,
    settle_calls: AtomicU64,
}

/// What a sandbox has done so far; the body of `GET /sandbox/stats`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Calls of `/verify`, whatever became of them.
    pub verify_calls: u64,
    /// Calls of `/settle`, whatever became of them.
    pub settle_calls: u64,
    /// Transfers of money.
    pub settled: u64,
}

impl Sandbox {
    /// A sandbox without any history.
    #[must_use]
    pub fn new(options: SandboxOptions) -> Self {
        let book = Mutex::new(Book::new(options.starting_balance));
        Self(Arc::new(Inner {
            options,
            book,
            script: Mutex::default(),
            pending: Mutex::default(),
            verify_calls: AtomicU64::new(0),
            settle_calls: AtomicU64::new(0),
        }))
    }

    /// Its HTTP interface.
    pub fn router(&self) -> Router {
        http::router(self.clone(), self.0.options.allow_misbehaviour)
    }

    /// Serves connections until the listener fails; it never returns by itself otherwise.
    ///
    /// # Errors
    ///
    /// What the listener said.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let listener = listener.tap_io(|stream| {
            // Nagle's algorithm would only make a small answer late.
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, self.router()).await
    }

    /// Adds an entry to the script of misdeeds. `false` when the script is full.
    pub fn misbehave(&self, entry: Misbehaviour) -> bool {
        self.0.script.lock().add(entry)
    }

    /// Forgets all misdeeds that were not committed yet.
    pub fn behave(&self) {
        self.0.script.lock().clear();
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            verify_calls: self.0.verify_calls.load(Ordering::Relaxed),
            settle_calls: self.0.settle_calls.load(Ordering::Relaxed),
            settled: self.0.book.lock().transactions(),
        }
    }

    /// How often money moved under this nonce: more than once only for different payers or tokens.
    #[must_use]
    pub fn settled(&self, nonce: B256) -> u64 {
        self.0.book.lock().settled(nonce)
    }

    /// What `account` has of a token, in its smallest unit.
    #[must_use]
    pub fn balance(&self, network: &Network, asset: Address, account: Address) -> AtomicAmount {
        let account = (network.clone(), asset, account);
        self.0.book.lock().balance(&account)
    }

    /// The answer of `/supported`: `exact` in version 2 on every test network of the EVM family.
    #[must_use]
    pub fn supported() -> Supported {
        let mut kinds: Vec<Kind> = Vec::new();
        for network in assets::network_names().filter_map(assets::network_by_name) {
            let is_ours = network.evm_chain_id().is_some() && assets::is_testnet(&network);
            if is_ours && !kinds.iter().any(|kind| kind.network == network.as_str()) {
                kinds.push(Kind {
                    x402_version: 2,
                    scheme: "exact".to_owned(),
                    network: network.as_str().to_owned(),
                    extra: None,
                });
            }
        }
        let signers = [("eip155:*".to_owned(), serde_json::json!([SIGNER]))];
        Supported {
            kinds,
            extensions: Vec::new(),
            signers: signers.into_iter().collect(),
        }
    }

    /// Counts a call and says what befalls it.
    fn begin(&self, call: Call) -> Option<Misdeed> {
        let counter = match call {
            Call::Verify => &self.0.verify_calls,
            Call::Settle => &self.0.settle_calls,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.0.script.lock().next(call)
    }

    /// An honest verdict.
    fn verify(&self, submitted: &Submitted) -> VerifyResponse {
        let now = self.0.options.clock.now();
        let verdict = check::judge(submitted, now).and_then(|transfer| {
            let payer = Some(transfer.from);
            let simulated = self.0.book.lock().simulate(&transfer);
            simulated.map_err(|reason| Rejection { reason, payer })?;
            Ok(payer)
        });
        let (reason, payer) = match verdict {
            Ok(payer) => (None, payer),
            Err(rejection) => (Some(rejection.reason.to_owned()), rejection.payer),
        };
        VerifyResponse {
            is_valid: reason.is_none(),
            invalid_reason: reason,
            invalid_message: None,
            payer: payer.map(|payer| payer.to_checksum(None)),
        }
    }

    /// An honest settlement: judged again, then nonce and money in one step. A transfer whose
    /// success was not told yet is told now.
    fn settle(&self, submitted: &Submitted) -> SettlementResponse {
        if let Some(receipt) = self.0.pending.lock().remove(submitted.signature()) {
            return receipt;
        }
        let now = self.0.options.clock.now();
        match check::judge(submitted, now) {
            Ok(transfer) => {
                let moved = self.0.book.lock().transfer(&transfer);
                receipt(submitted, moved, Some(transfer.from))
            }
            Err(rejection) => receipt(submitted, Err(rejection.reason), rejection.payer),
        }
    }

    /// Settles, and keeps the success for a later call with the same signature.
    fn settle_pending(&self, submitted: &Submitted) -> SettlementResponse {
        let receipt = self.settle(submitted);
        if !receipt.success {
            return receipt;
        }
        let mut pending = self.0.pending.lock();
        if pending.len() < PENDING_MAX {
            pending.insert(submitted.signature().to_owned(), receipt.clone());
        }
        SettlementResponse {
            success: false,
            error_reason: Some("settlement_pending".to_owned()),
            ..receipt
        }
    }
}

fn receipt(
    submitted: &Submitted,
    moved: Result<String, &'static str>,
    payer: Option<Address>,
) -> SettlementResponse {
    let (transaction, reason) = match moved {
        Ok(transaction) => (transaction, None),
        Err(reason) => (String::new(), Some(reason.to_owned())),
    };
    SettlementResponse {
        success: reason.is_none(),
        error_reason: reason,
        payer: payer.map(|payer| payer.to_checksum(None)),
        transaction,
        network: submitted.network().to_owned(),
        ..SettlementResponse::default()
    }
}

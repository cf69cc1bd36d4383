//! The sandbox's chain: balances of play money, and nonces that are spent once. In memory, bounded.

use std::collections::{BTreeMap, HashMap, HashSet};

use alloy_primitives::{Address, B256};

use crate::chain::{Network, Nonce, NonceSpace, assets};
use crate::money::{AtomicAmount, DecimalText, Decimals};
use crate::sandbox::check::Transfer;

/// At most so many balances of one account in one token; further accounts are refused.
const ACCOUNTS_MAX: usize = 200_000;
/// At most so many spent nonces; further settlements are refused.
const NONCES_MAX: usize = 1_000_000;
/// The code for "a limit of the sandbox is reached".
const FULL: &str = "sandbox_full";

/// An account in one token: the key of a balance.
type Account = (Network, Address, Address);
/// EIP-3009 nonces are the token's, Permit2's belong to the payer on the whole network.
type Spent = (Network, Option<Address>, Address, Nonce);

/// Balances and spent nonces. Whoever holds it mutably is alone: one transfer is one step.
#[derive(Debug)]
pub(super) struct Book {
    starting_balance: u64,
    balances: HashMap<Account, AtomicAmount>,
    spent: HashSet<Spent>,
    settled: BTreeMap<B256, u64>,
    transactions: u64,
    limits: (usize, usize),
}

impl Book {
    /// An empty book in which every account starts with so many whole tokens of everything.
    pub(super) fn new(starting_balance: u64) -> Self {
        Self {
            starting_balance,
            balances: HashMap::new(),
            spent: HashSet::new(),
            settled: BTreeMap::new(),
            transactions: 0,
            limits: (ACCOUNTS_MAX, NONCES_MAX),
        }
    }

    /// What a simulation on chain would say now.
    pub(super) fn simulate(&self, transfer: &Transfer) -> Result<(), &'static str> {
        let is_permit2 = transfer.nonce.space == NonceSpace::Permit2;
        if self.spent.contains(&spent_key(transfer)) {
            return Err(if is_permit2 {
                "permit2_invalid_nonce"
            } else {
                "invalid_exact_evm_nonce_already_used"
            });
        }
        if self.balance(&payer(transfer)) < transfer.amount {
            return Err(if is_permit2 {
                "permit2_insufficient_balance"
            } else {
                "invalid_exact_evm_insufficient_balance"
            });
        }
        Ok(())
    }

    /// Spends the nonce and moves the money, or changes nothing. Returns the transaction hash.
    pub(super) fn transfer(&mut self, transfer: &Transfer) -> Result<String, &'static str> {
        self.simulate(transfer)?;
        let (from, to) = (payer(transfer), recipient(transfer));
        let (accounts_max, nonces_max) = self.limits;
        let has_room = self.balances.len().saturating_add(2) <= accounts_max
            || (self.balances.contains_key(&from) && self.balances.contains_key(&to));
        if !has_room || self.spent.len() >= nonces_max {
            return Err(FULL);
        }
        let rest = self.balance(&from).checked_sub(transfer.amount);
        let credited = self.balance(&to).checked_add(transfer.amount);
        let (rest, credited) = rest.zip(credited).ok_or(FULL)?;
        if from != to {
            self.balances.insert(from, rest);
            self.balances.insert(to, credited);
        }
        self.spent.insert(spent_key(transfer));
        let count = self.settled.entry(transfer.nonce.bytes).or_default();
        *count = count.saturating_add(1);
        self.transactions = self.transactions.saturating_add(1);
        Ok(transaction_hash(self.transactions))
    }

    /// How often money moved under this nonce: 0 or 1 for any one payer.
    pub(super) fn settled(&self, nonce: B256) -> u64 {
        self.settled.get(&nonce).copied().unwrap_or(0)
    }

    /// How many transfers there were.
    pub(super) fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Up to `max` nonces and how often money moved under each.
    pub(super) fn settled_nonces(&self, max: usize) -> BTreeMap<String, u64> {
        let counts = self.settled.iter().take(max);
        counts.map(|(nonce, n)| (nonce.to_string(), *n)).collect()
    }

    /// The accounts that paid or were paid: network, token, account, smallest units.
    pub(super) fn accounts(&self) -> impl Iterator<Item = (&Account, AtomicAmount)> {
        self.balances
            .iter()
            .map(|(account, units)| (account, *units))
    }

    /// The balance, in the token's smallest unit. Nobody starts with nothing.
    pub(super) fn balance(&self, account: &Account) -> AtomicAmount {
        match self.balances.get(account) {
            Some(balance) => *balance,
            None => self.starting(account),
        }
    }

    fn starting(&self, (network, asset, _): &Account) -> AtomicAmount {
        // A token that nobody knows has 6 decimals here; there is no chain to ask.
        let known = assets::find(network, &asset.to_checksum(None));
        let decimals = Decimals::new(known.map_or(6, |token| token.decimals.into()));
        let units = decimals.and_then(|decimals| {
            DecimalText::parse(&self.starting_balance.to_string())?.to_atomic(decimals)
        });
        units.unwrap_or(AtomicAmount::new(u128::from(u64::MAX)))
    }

    #[cfg(test)]
    pub(super) fn limited(mut self, accounts: usize, nonces: usize) -> Self {
        self.limits = (accounts, nonces);
        self
    }
}

/// `0x`, "sandbox" in ASCII, then the transfer's number: 64 digits that no chain will ever produce.
fn transaction_hash(number: u64) -> String {
    format!("0x73616e64626f78{number:050x}")
}

fn payer(transfer: &Transfer) -> Account {
    (transfer.network.clone(), transfer.asset, transfer.from)
}

fn recipient(transfer: &Transfer) -> Account {
    (transfer.network.clone(), transfer.asset, transfer.to)
}

fn spent_key(transfer: &Transfer) -> Spent {
    let asset = match transfer.nonce.space {
        NonceSpace::Permit2 => None,
        NonceSpace::Eip3009 | NonceSpace::Opaque => Some(transfer.asset),
    };
    let network = transfer.network.clone();
    (network, asset, transfer.from, transfer.nonce)
}

//! A ledger for people, whatever keeps it. Only reads, blocks, and may run beside the walls.

use std::ops::ControlFlow;
use std::path::Path;

use crate::chain::PaymentKey;
use crate::clock::UnixSeconds;
use crate::config::settings::LedgerSettings;
use crate::ledger::postgres::PostgresReader;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{ClaimId, Filter, LedgerError, Note, Record, Total};

/// An open ledger.
#[derive(Debug)]
pub enum LedgerReader {
    /// A file.
    File(SqliteLedger),
    /// A server.
    Server(Box<PostgresReader>),
}

impl LedgerReader {
    /// Opens an existing ledger. `ca_file`: whom to trust when the URL of a server does not say.
    ///
    /// # Errors
    ///
    /// [`LedgerError::TooNew`] or [`LedgerError::Store`].
    pub fn open(settings: &LedgerSettings, ca_file: Option<&Path>) -> Result<Self, LedgerError> {
        match settings {
            LedgerSettings::File(path) => SqliteLedger::open_read_only(path).map(Self::File),
            LedgerSettings::Server(server) => {
                let reader = PostgresReader::open(server, ca_file)?;
                Ok(Self::Server(Box::new(reader)))
            }
        }
    }

    /// Shows `visit` each record that `filter` allows, newest first, until it breaks.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`], or [`LedgerError::Corrupt`] at the first unreadable record.
    pub fn each(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        match self {
            Self::File(ledger) => ledger.each(filter, visit),
            Self::Server(ledger) => ledger.each(filter, visit),
        }
    }

    /// Count and sum per state and asset, over all claims that the filter allows.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] or [`LedgerError::Corrupt`].
    pub fn totals(&self, filter: &Filter) -> Result<Vec<Total>, LedgerError> {
        match self {
            Self::File(ledger) => ledger.totals_blocking(filter),
            Self::Server(ledger) => ledger.totals(filter),
        }
    }

    /// How many claims [`crate::ledger::Ledger::prune`] would delete, from the first to the last.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`].
    pub fn prunable(&self, before: UnixSeconds, now: UnixSeconds) -> Result<u64, LedgerError> {
        match self {
            Self::File(ledger) => ledger.prunable(before, now),
            Self::Server(ledger) => ledger.prunable(before, now),
        }
    }

    /// One claim by its number.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] or [`LedgerError::Corrupt`].
    pub fn get(&self, id: ClaimId) -> Result<Option<Record>, LedgerError> {
        match self {
            Self::File(ledger) => ledger.get(id),
            Self::Server(ledger) => ledger.get(id),
        }
    }

    /// The notes on a claim, oldest first.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] or [`LedgerError::Corrupt`].
    pub fn notes(&self, id: ClaimId) -> Result<Vec<Note>, LedgerError> {
        match self {
            Self::File(ledger) => ledger.notes_blocking(id),
            Self::Server(ledger) => ledger.notes(id),
        }
    }

    /// Claims of payments whose keys lie between `first` and `last`, both included; newest first, at
    /// most `limit`.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] or [`LedgerError::Corrupt`].
    pub fn claims_between(
        &self,
        first: PaymentKey,
        last: PaymentKey,
        limit: u32,
    ) -> Result<Vec<Record>, LedgerError> {
        match self {
            Self::File(ledger) => ledger.claims_between(first, last, limit),
            Self::Server(ledger) => ledger.claims_between(first, last, limit),
        }
    }
}

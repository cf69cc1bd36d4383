//! Opens whichever ledger the configuration names, to write to it.

use std::path::Path;
use std::sync::Arc;

use crate::config::settings::LedgerSettings;
use crate::ledger::postgres::PostgresLedger;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::sqlite::presence::Presence;
use crate::ledger::{Ledger, LedgerError};

/// Opens or creates the ledger for a wall. With a file it must be present there.
///
/// # Errors
///
/// As [`open_for_writing`]; and [`SqliteLedger::open_as_wall`].
pub async fn open_for_wall(
    settings: &LedgerSettings,
    presence: Option<Arc<Presence>>,
    ca_file: Option<&Path>,
    shared_bytes_max: u64,
) -> Result<Arc<dyn Ledger>, LedgerError> {
    match (settings, presence) {
        (LedgerSettings::File(path), Some(presence)) => {
            Ok(Arc::new(SqliteLedger::open_as_wall(path, presence)?))
        }
        (LedgerSettings::File(_) | LedgerSettings::Server(_), _) => {
            open_for_writing(settings, ca_file, shared_bytes_max).await
        }
    }
}

/// Opens or creates the ledger. A shared one runs on the current tokio runtime from then on.
///
/// `ca_file` and `shared_bytes_max` as in [`PostgresLedger::connect`].
///
/// # Errors
///
/// [`LedgerError::TooNew`] or [`LedgerError::Store`].
pub async fn open_for_writing(
    settings: &LedgerSettings,
    ca_file: Option<&Path>,
    shared_bytes_max: u64,
) -> Result<Arc<dyn Ledger>, LedgerError> {
    Ok(match settings {
        LedgerSettings::File(path) => Arc::new(SqliteLedger::open(path)?),
        LedgerSettings::Server(server) => {
            Arc::new(PostgresLedger::connect(server, ca_file, shared_bytes_max).await?)
        }
    })
}

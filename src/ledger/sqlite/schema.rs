//! The tables of the ledger file, and how an older file becomes a newer one. Forward only.
//!
//! A migration that was released is never edited: files out there were made by it.

use rusqlite::{Connection, TransactionBehavior};

use super::file::{FileFault, Place};
use crate::ledger::LedgerError;

/// The newest schema that this program knows, kept in `PRAGMA user_version`.
pub(super) const KNOWN: i64 = 4;

/// `FWL1` in `PRAGMA application_id`: tells a ledger from any other SQLite file.
const APPLICATION_ID: i64 = 0x4657_4c31;

/// The step to version n+1 is at index n.
const MIGRATIONS: [&str; 4] = [V1, V2, V3, V4];

/// One row a claim. The unique index is what makes a claim atomic: a payment has at most one row
/// in a state that holds it. Amounts are decimal text, because they have 128 bits.
const V1: &str = "
CREATE TABLE claim (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    payment        BLOB    NOT NULL CHECK (length(payment) = 32),
    fingerprint    BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    state          TEXT    NOT NULL CHECK (state IN (
        'claimed', 'settling', 'settled', 'delivered', 'released', 'refused', 'expired')),
    rule           TEXT    NOT NULL,
    accept         TEXT    NOT NULL,
    scheme         TEXT    NOT NULL,
    network        TEXT    NOT NULL,
    asset          TEXT    NOT NULL,
    amount         TEXT    NOT NULL CHECK (amount <> '' AND amount NOT GLOB '*[^0-9]*'),
    payer          TEXT    NOT NULL,
    pay_to         TEXT    NOT NULL,
    nonce          TEXT    NOT NULL,
    valid_before   INTEGER NOT NULL CHECK (valid_before >= 0),
    request        TEXT    NOT NULL,
    settle_request TEXT    NOT NULL,
    claimed_at     INTEGER NOT NULL CHECK (claimed_at >= 0),
    changed_at     INTEGER NOT NULL CHECK (changed_at >= 0),
    facilitator    TEXT,
    transaction_id TEXT,
    receipt        TEXT,
    reason         TEXT,
    body           BLOB    CHECK (length(body) = 32),
    CHECK (facilitator IS NOT NULL OR state IN ('claimed', 'released')),
    CHECK (transaction_id IS NOT NULL OR state NOT IN ('settled', 'delivered')),
    CHECK (receipt IS NOT NULL OR state NOT IN ('settled', 'delivered', 'refused'))
) STRICT;
CREATE UNIQUE INDEX claim_holds_payment ON claim (payment)
    WHERE state IN ('claimed', 'settling', 'settled', 'delivered');
CREATE INDEX claim_by_payment ON claim (payment, id);
CREATE INDEX claim_by_time ON claim (claimed_at, id);
CREATE INDEX claim_by_state ON claim (state, claimed_at, id);
";

/// What people did about claims. Rows are only ever added, whoever writes to the file.
const V2: &str = "
CREATE TABLE note (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    claim INTEGER NOT NULL,
    at    INTEGER NOT NULL CHECK (at >= 0),
    kind  TEXT    NOT NULL CHECK (kind IN ('refunded', 'forgiven')),
    text  TEXT    NOT NULL CHECK (length(text) BETWEEN 1 AND 1000)
) STRICT;
CREATE INDEX note_by_claim ON note (claim, id);
CREATE TRIGGER note_stays_as_it_is BEFORE UPDATE ON note
BEGIN SELECT RAISE(ABORT, 'notes are not changed'); END;
CREATE TRIGGER note_stays BEFORE DELETE ON note
BEGIN SELECT RAISE(ABORT, 'notes are not deleted'); END;
";

/// The settle request, most of a row, is kept beside the claim and only until the claim is over, so that
/// its pages are used again and rows lie close. In older rows it is in the column, which is emptied in the
/// background, up to the newest claim of today. The trigger says what is over: see `upkeep::over`.
///
/// And `holds` says of a claim that it holds its payment: 1, or nothing. A trigger takes it away, so nobody
/// can forget to. The indexes by payment stand on it in place of `state`, and each claim is in one of two:
/// payments are in no order, so an entry there is a write to a random page, which a move must not repeat.
const V3: &str = "
CREATE TABLE request (
    claim          INTEGER PRIMARY KEY,
    settle_request TEXT    NOT NULL
) STRICT;
CREATE TRIGGER claim_is_over AFTER UPDATE OF state ON claim
WHEN NEW.state IN ('delivered', 'released', 'refused')
    OR (NEW.state = 'expired' AND NEW.reason = 'authorization_never_used')
BEGIN DELETE FROM request WHERE claim = NEW.id; END;
CREATE TABLE upkeep (
    task    TEXT    PRIMARY KEY,
    done_to INTEGER NOT NULL,
    up_to   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO upkeep SELECT 'compact', 0, coalesce(max(id), 0) FROM claim;
ALTER TABLE claim ADD COLUMN holds INTEGER DEFAULT 1;
UPDATE claim SET holds = NULL WHERE state IN ('released', 'refused', 'expired');
CREATE TRIGGER claim_gives_up AFTER UPDATE OF state ON claim
WHEN NEW.state IN ('released', 'refused', 'expired')
BEGIN UPDATE claim SET holds = NULL WHERE id = NEW.id; END;
DROP INDEX claim_holds_payment;
CREATE UNIQUE INDEX claim_holds_payment ON claim (payment) WHERE holds = 1;
CREATE INDEX claim_past ON claim (payment, id) WHERE holds IS NULL;
DROP INDEX claim_by_payment;
";

/// Which process works on the claim: the number of its [`presence`](super::presence). Only asked while
/// a wall is being replaced, and after one has ended.
const V4: &str = "ALTER TABLE claim ADD COLUMN wall INTEGER;";

/// The schema version of a file: 0 for an empty one.
pub(super) fn version(connection: &Connection, place: &Place) -> Result<i64, LedgerError> {
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|cause| place.failed(cause))
    };
    let found = pragma("user_version")?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|cause| place.failed(cause))?;
    let empty = found == 0 && tables == 0;
    if !empty && pragma("application_id")? != APPLICATION_ID {
        return Err(place.failed(FileFault::NotALedger));
    }
    if found > KNOWN {
        let place = place.to_string();
        return Err(LedgerError::TooNew {
            place,
            found,
            known: KNOWN,
        });
    }
    Ok(found)
}

/// Brings the file to [`KNOWN`], in one transaction: whole or not at all.
pub(super) fn migrate(connection: &mut Connection, place: &Place) -> Result<(), LedgerError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|cause| place.failed(cause))?;
    // Read again under the lock: another process may have been faster.
    let found = version(&transaction, place)?;
    let done = usize::try_from(found).map_err(|_| place.failed(FileFault::NotALedger))?;
    let run = || -> rusqlite::Result<()> {
        for step in MIGRATIONS.iter().skip(done) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", KNOWN)
    };
    if found < KNOWN {
        run().map_err(|cause| place.failed(cause))?;
    }
    transaction.commit().map_err(|cause| place.failed(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_migration_for_each_version() {
        assert_eq!(i64::try_from(MIGRATIONS.len()), Ok(KNOWN));
    }
}

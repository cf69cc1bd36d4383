//! The tables of the shared ledger, and how an older schema becomes a newer one. Forward only.
//!
//! They live in a PostgreSQL schema of their own, `farewall`. Walls that start at once wait for each
//! other. A migration that was released is never edited: databases out there were made by it.

use tokio_postgres::{Client, Transaction};

use super::connect::{Fault, Place};
use crate::ledger::LedgerError;

/// The newest schema that this program knows, kept in `farewall.schema_version`.
pub(super) const KNOWN: i64 = 2;

/// `FWL1`: who holds this advisory lock migrates.
const MIGRATION_LOCK: i64 = 0x4657_4c31;

/// The step to version n+1 is at index n.
const MIGRATIONS: [&str; 2] = [V1, V2];

/// One row a claim, as in the embedded ledger. The unique index is what makes a claim atomic.
///
/// `wall` is the wall that has the claim in hand, `attempt` a number that only it knows: both say
/// nothing about money and may be empty. `kept` is not logged: what it loses in a crash of the server
/// is asked of the upstream again.
const V1: &str = "
CREATE TABLE farewall.wall (
    id          bigint      PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL
);
CREATE TABLE farewall.claim (
    id             bigint         GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment        bytea          NOT NULL CHECK (octet_length(payment) = 32),
    fingerprint    bytea          NOT NULL CHECK (octet_length(fingerprint) = 32),
    state          text           NOT NULL CHECK (state IN (
        'claimed', 'settling', 'settled', 'delivered', 'released', 'refused', 'expired')),
    rule           text           NOT NULL,
    accept         text           NOT NULL,
    scheme         text           NOT NULL,
    network        text           NOT NULL,
    asset          text           NOT NULL,
    amount         numeric(39, 0) NOT NULL CHECK (amount >= 0),
    payer          text           NOT NULL,
    pay_to         text           NOT NULL,
    nonce          text           NOT NULL,
    valid_before   bigint         NOT NULL CHECK (valid_before >= 0),
    request        text           NOT NULL,
    settle_request text           NOT NULL,
    claimed_at     bigint         NOT NULL CHECK (claimed_at >= 0),
    changed_at     bigint         NOT NULL CHECK (changed_at >= 0),
    facilitator    text,
    transaction_id text,
    receipt        text,
    reason         text,
    body           bytea          CHECK (octet_length(body) = 32),
    wall           bigint,
    attempt        bigint         NOT NULL,
    CHECK (facilitator IS NOT NULL OR state IN ('claimed', 'released')),
    CHECK (transaction_id IS NOT NULL OR state NOT IN ('settled', 'delivered')),
    CHECK (receipt IS NOT NULL OR state NOT IN ('settled', 'delivered', 'refused')),
    CHECK (wall IS NOT NULL OR state NOT IN ('claimed', 'settling'))
);
CREATE UNIQUE INDEX claim_holds_payment ON farewall.claim (payment)
    WHERE state IN ('claimed', 'settling', 'settled', 'delivered');
CREATE INDEX claim_by_payment ON farewall.claim (payment, id);
CREATE INDEX claim_by_time ON farewall.claim (claimed_at, id);
CREATE INDEX claim_by_state ON farewall.claim (state, claimed_at, id);
CREATE INDEX claim_in_hand ON farewall.claim (wall) WHERE wall IS NOT NULL;
CREATE TABLE farewall.note (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    claim bigint NOT NULL REFERENCES farewall.claim (id),
    at    bigint NOT NULL CHECK (at >= 0),
    kind  text   NOT NULL CHECK (kind IN ('refunded', 'forgiven')),
    text  text   NOT NULL CHECK (length(text) BETWEEN 1 AND 1000)
);
CREATE INDEX note_by_claim ON farewall.note (claim, id);
CREATE UNLOGGED TABLE farewall.kept (
    payment     bytea       NOT NULL,
    fingerprint bytea       NOT NULL,
    response    bytea       NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (payment, fingerprint)
);
CREATE INDEX kept_by_end ON farewall.kept (expires_at);
CREATE FUNCTION farewall.notes_stay() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'notes are not changed or deleted'; END $$;
CREATE TRIGGER note_stays BEFORE UPDATE OR DELETE ON farewall.note
    FOR EACH ROW EXECUTE FUNCTION farewall.notes_stay();
";

/// A claim that is over does not keep its settle request: those from before are emptied in the
/// background, up to the newest claim of today. And each claim is in one of two indexes by payment, not
/// in both: an entry there is a write to a random page at every move.
const V2: &str = "
CREATE TABLE farewall.upkeep (
    task    text   PRIMARY KEY,
    done_to bigint NOT NULL,
    up_to   bigint NOT NULL
);
INSERT INTO farewall.upkeep SELECT 'compact', 0, coalesce(max(id), 0) FROM farewall.claim;
CREATE INDEX claim_past ON farewall.claim (payment, id)
    WHERE state IN ('released', 'refused', 'expired');
DROP INDEX farewall.claim_by_payment;
";

/// Brings the database to [`KNOWN`], in one transaction: whole or not at all.
pub(super) async fn migrate(client: &mut Client, place: &Place) -> Result<(), LedgerError> {
    let failed = |cause: tokio_postgres::Error| place.failed(cause);
    let transaction = client.transaction().await.map_err(failed)?;
    // Waiting for another wall that migrates is no fault.
    let begin = format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
         SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
    );
    transaction.batch_execute(&begin).await.map_err(failed)?;
    let found = version(&transaction, place).await?;
    if found == KNOWN {
        return Ok(());
    }
    let done = usize::try_from(found).map_err(|_| place.failed(Fault::NotALedger))?;
    if done == 0 {
        let first = "CREATE SCHEMA IF NOT EXISTS farewall;
            CREATE TABLE farewall.schema_version (version bigint NOT NULL);
            INSERT INTO farewall.schema_version VALUES (0)";
        transaction.batch_execute(first).await.map_err(failed)?;
    }
    for step in MIGRATIONS.iter().skip(done) {
        transaction.batch_execute(step).await.map_err(failed)?;
    }
    let set = format!("UPDATE farewall.schema_version SET version = {KNOWN}");
    transaction.batch_execute(&set).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// The schema version of the database: 0 for one without a ledger.
async fn version(transaction: &Transaction<'_>, place: &Place) -> Result<i64, LedgerError> {
    let failed = |cause: tokio_postgres::Error| place.failed(cause);
    let exists = "SELECT to_regclass('farewall.schema_version') IS NOT NULL";
    let row = transaction.query_one(exists, &[]).await.map_err(failed)?;
    if !row.try_get::<_, bool>(0).map_err(failed)? {
        return Ok(0);
    }
    let sql = "SELECT version FROM farewall.schema_version";
    let row = transaction.query_opt(sql, &[]).await.map_err(failed)?;
    let row = row.ok_or_else(|| place.failed(Fault::NotALedger))?;
    let found = row.try_get(0).map_err(failed)?;
    if found > KNOWN {
        return Err(LedgerError::TooNew {
            place: place.to_string(),
            found,
            known: KNOWN,
        });
    }
    Ok(found)
}

/// Refuses a database whose schema is not exactly the one that we know: for those who only read.
pub(super) async fn require(client: &mut Client, place: &Place) -> Result<(), LedgerError> {
    let failed = |cause: tokio_postgres::Error| place.failed(cause);
    let transaction = client.transaction().await.map_err(failed)?;
    match version(&transaction, place).await? {
        KNOWN => Ok(()),
        0 => Err(place.failed(Fault::NotALedger)),
        found => Err(place.failed(Fault::Older(found))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_migration_for_each_version() {
        assert_eq!(i64::try_from(MIGRATIONS.len()), Ok(KNOWN));
    }
}

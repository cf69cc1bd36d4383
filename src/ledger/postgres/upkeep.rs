//! Old claims, a small batch at a time. Each batch is one statement, under a lock that one wall at a
//! time gets; another one's turn is no reason to wait.

use super::Core;
use super::rows;
use crate::clock::UnixSeconds;
use crate::ledger::LedgerError;
use crate::ledger::upkeep::{BATCH_ROWS, Batch, Cursor, PRUNE_AGE_MIN_S, over, prune_end};

/// `FWL2`: who holds this advisory lock tidies up.
const UPKEEP_LOCK: i64 = 0x4657_4c32;

/// Of a claim that was made before `$1`: whether its row may go. Judged by the clock of the database
/// too, because that of one wall may be wrong.
fn may_go() -> String {
    format!(
        "({} AND changed_at < $1
          AND (state <> 'delivered' OR (valid_before < $1 AND nonce NOT LIKE 'opaque:%'))
          AND greatest(claimed_at, changed_at, CASE state WHEN 'delivered' THEN valid_before ELSE 0 END)
              < extract(epoch FROM now())::bigint - {PRUNE_AGE_MIN_S}
          AND NOT EXISTS (SELECT FROM farewall.note WHERE note.claim = claim.id))",
        over()
    )
}

/// The statement that counts what [`Core::prune`] would delete.
pub(super) fn count_prunable() -> String {
    format!(
        "SELECT count(*) FROM farewall.claim WHERE claimed_at < $1 AND {}",
        may_go()
    )
}

impl Core {
    /// [`crate::ledger::Ledger::prune`].
    pub(super) async fn prune(
        &self,
        before: UnixSeconds,
        now: UnixSeconds,
        from: Cursor,
    ) -> Result<Batch, LedgerError> {
        let sql = format!(
            "WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock({UPKEEP_LOCK}) AS ours),
             slice AS MATERIALIZED (
                SELECT id, claimed_at, {} AS may_go FROM farewall.claim
                WHERE (SELECT ours FROM turn) AND claimed_at < $1 AND (claimed_at, id) > ($2, $3)
                ORDER BY claimed_at, id LIMIT {BATCH_ROWS}),
             gone AS (
                DELETE FROM farewall.claim USING slice
                WHERE claim.id = slice.id AND slice.may_go RETURNING 1)
             SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM slice), claimed_at, id
             FROM (SELECT) AS one LEFT JOIN
                (SELECT claimed_at, id FROM slice ORDER BY claimed_at DESC, id DESC LIMIT 1) AS last
                ON true",
            may_go()
        );
        let failed = |cause: tokio_postgres::Error| self.place.failed(cause);
        let client = self.connection().await?;
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        let before = rows::stored(prune_end(before, now));
        let from = (rows::stored(from.claimed_at), from.id);
        let row = client
            .query_one(&statement, &[&before, &from.0, &from.1])
            .await
            .map_err(failed)?;
        let (gone, seen): (i64, i64) = (
            row.try_get(0).map_err(failed)?,
            row.try_get(1).map_err(failed)?,
        );
        let claimed_at: Option<i64> = row.try_get(2).map_err(failed)?;
        let id: Option<i64> = row.try_get(3).map_err(failed)?;
        let last = claimed_at.and_then(|at| u64::try_from(at).ok()).zip(id);
        Ok(Batch {
            rows: u64::try_from(gone).unwrap_or(0),
            next: last
                .filter(|_| seen >= i64::from(BATCH_ROWS))
                .map(|(claimed_at, id)| Cursor {
                    claimed_at: UnixSeconds(claimed_at),
                    id,
                }),
        })
    }

    /// [`crate::ledger::Ledger::compact`].
    pub(super) async fn compact(&self) -> Result<Batch, LedgerError> {
        let sql = format!(
            "WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock({UPKEEP_LOCK}) AS ours),
             work AS MATERIALIZED (
                SELECT done_to, least(done_to + {BATCH_ROWS}, up_to) AS to_do FROM farewall.upkeep
                WHERE task = 'compact' AND done_to < up_to AND (SELECT ours FROM turn)),
             emptied AS (
                UPDATE farewall.claim SET settle_request = '' FROM work
                WHERE claim.id > work.done_to AND claim.id <= work.to_do
                    AND settle_request <> '' AND {} RETURNING 1),
             noted AS (
                UPDATE farewall.upkeep SET done_to = work.to_do FROM work WHERE task = 'compact'
                RETURNING upkeep.done_to, upkeep.up_to)
             SELECT (SELECT count(*) FROM emptied), (SELECT done_to FROM noted WHERE done_to < up_to)",
            over()
        );
        let failed = |cause: tokio_postgres::Error| self.place.failed(cause);
        let client = self.connection().await?;
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        let row = client.query_one(&statement, &[]).await.map_err(failed)?;
        let (emptied, done_to): (i64, Option<i64>) = (
            row.try_get(0).map_err(failed)?,
            row.try_get(1).map_err(failed)?,
        );
        Ok(Batch {
            rows: u64::try_from(emptied).unwrap_or(0),
            next: done_to.map(|id| Cursor {
                claimed_at: UnixSeconds(0),
                id,
            }),
        })
    }
}

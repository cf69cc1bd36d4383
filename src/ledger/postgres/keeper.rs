//! The heartbeat of a wall: renews its lease, and finds what nobody works on any more.
//!
//! All times here are the database's, so the clocks of the walls need not agree.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::Core;
use super::claims::{WALL_IS_GONE, execute};
use super::connect::{Fault, connection};
use super::hand::Attempt;
use super::rows;
use crate::clock::UnixSeconds;
use crate::ledger::upkeep::Cursor;
use crate::ledger::{LedgerError, Record};

/// Rows deleted at a time, so that tidying up never holds up a payment for long.
const TIDY_ROWS: i64 = 1000;

/// Gives back what nobody works on: a claim becomes free, a debt can be collected at any wall.
const RELINQUISH: &str = "UPDATE farewall.claim SET
        reason = CASE state WHEN 'claimed' THEN 'abandoned' ELSE reason END,
        state = CASE state WHEN 'claimed' THEN 'released' ELSE state END,
        settle_request = CASE state WHEN 'claimed' THEN '' ELSE settle_request END,
        changed_at = extract(epoch FROM clock_timestamp())::bigint,
        wall = NULL
    WHERE wall = $1 AND attempt = ANY($2) AND state IN ('claimed', 'settled')";

impl Core {
    /// How often the lease is renewed: three chances until it has run out.
    fn beat(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.lease_ms / 3).unwrap_or(1000))
    }

    /// Beats until it is dropped.
    pub(super) async fn keep(&self) {
        let mut heard = true;
        loop {
            tokio::time::sleep(self.beat()).await;
            match self.pulse().await {
                Ok(()) => {
                    if !heard {
                        tracing::info!(ledger = %self.place, "the ledger answers again");
                    }
                    heard = true;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot renew the lease of this wall");
                    heard = false;
                }
            }
        }
    }

    /// One heartbeat, on a connection that no request can take.
    pub(super) async fn pulse(&self) -> Result<(), LedgerError> {
        let work = async {
            let client = connection(&self.keeper, &self.place).await?;
            let failed = |fault: Fault| self.place.failed(fault);
            self.renew(&client).await.map_err(failed)?;
            let lost = self.release_lost(&client).await.map_err(failed)?;
            if lost > 0 {
                tracing::warn!(lost, "gave back the claims of a wall that is gone");
            }
            self.sweep(&client).await.map_err(failed)?;
            tidy(&client).await.map_err(failed)
        };
        match tokio::time::timeout(self.beat().max(Duration::from_secs(2)), work).await {
            Ok(done) => done,
            Err(_) => Err(self.place.failed(Fault::Timeout)),
        }
    }

    async fn renew(&self, client: &Object) -> Result<u64, Fault> {
        let sql = "INSERT INTO farewall.wall (id, lease_until)
            VALUES ($1, clock_timestamp() + $2::bigint * interval '1 millisecond')
            ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until";
        execute(client, sql, &[&self.wall, &self.lease_ms]).await
    }

    /// Releases the claims of walls that are gone. Nothing was asked of the facilitator for them.
    async fn release_lost(&self, client: &Object) -> Result<u64, Fault> {
        let sql = format!(
            "UPDATE farewall.claim SET state = 'released', reason = 'wall_lost', wall = NULL,
                settle_request = '',
                changed_at = extract(epoch FROM clock_timestamp())::bigint
             WHERE state = 'claimed' AND wall IS NOT NULL AND {WALL_IS_GONE}"
        );
        execute(client, &sql, &[]).await
    }

    /// What the database has in our hand and nobody here works on: an answer was lost on the way.
    async fn sweep(&self, client: &Object) -> Result<(), Fault> {
        let sql = "SELECT attempt FROM farewall.claim
            WHERE wall = $1 AND state IN ('claimed', 'settled')";
        let statement = client.prepare_cached(sql).await?;
        let mut nobodys = Vec::new();
        for row in client.query(&statement, &[&self.wall]).await? {
            let attempt = Attempt(row.try_get(0)?);
            if !self.hand.has(attempt) {
                nobodys.push(attempt.0);
            }
        }
        if !nobodys.is_empty() {
            execute(client, RELINQUISH, &[&self.wall, &nobodys]).await?;
        }
        Ok(())
    }

    /// [`crate::ledger::Ledger::release_abandoned`], for walls that are gone.
    pub(super) async fn release_abandoned(&self, _now: UnixSeconds) -> Result<u64, LedgerError> {
        let client = connection(&self.keeper, &self.place).await?;
        let released = self.release_lost(&client).await;
        released.map_err(|fault| self.place.failed(fault))
    }

    /// Gives back what was held under this attempt. When it fails, the next heartbeat finds it.
    pub(super) async fn relinquish(&self, attempt: Attempt) {
        let given = async {
            let client = self.connection().await?;
            let values = vec![attempt.0];
            let done = execute(&client, RELINQUISH, &[&self.wall, &values]).await;
            done.map_err(|fault| self.place.failed(fault))
        };
        if let Err(error) = given.await {
            tracing::warn!(%error, "cannot let go of a claim; the next heartbeat does");
        }
    }

    /// Our unknown settlements, after those of walls that are gone became ours.
    ///
    /// The update takes each row's lock and looks at it again, so of several walls one gets it.
    pub(super) async fn unsettled(
        &self,
        from: Cursor,
        limit: u32,
    ) -> Result<Vec<Record>, LedgerError> {
        let client = self.connection().await?;
        if from == Cursor::default() {
            let adopted = self.adopt(&client).await;
            let adopted = adopted.map_err(|fault| self.place.failed(fault))?;
            if adopted > 0 {
                tracing::warn!(
                    adopted,
                    "took over unknown settlements of a wall that is gone"
                );
            }
        }
        let sql = format!(
            "{} WHERE wall = $1 AND state = 'settling' AND (claimed_at, id) > ($2, $3)
             ORDER BY claimed_at, id LIMIT $4",
            rows::SELECT
        );
        let (claimed_at, id) = (rows::stored(from.claimed_at), from.id);
        let found = async {
            let statement = client.prepare_cached(&sql).await?;
            let limit = i64::from(limit);
            let values: [&(dyn ToSql + Sync); 4] = [&self.wall, &claimed_at, &id, &limit];
            client.query(&statement, &values).await
        };
        let found = found.await.map_err(|cause| self.place.failed(cause))?;
        found.iter().map(rows::record).collect()
    }

    async fn adopt(&self, client: &Object) -> Result<u64, Fault> {
        let sql = format!(
            "UPDATE farewall.claim SET wall = $1, attempt = $2
             WHERE state = 'settling' AND wall <> $1 AND {WALL_IS_GONE}"
        );
        execute(client, &sql, &[&self.wall, &Attempt::new().0]).await
    }

    /// Ends the lease now.
    pub(super) async fn leave(&self) -> Result<(), LedgerError> {
        let client = connection(&self.keeper, &self.place).await?;
        let sql = "DELETE FROM farewall.wall WHERE id = $1";
        let left = execute(&client, sql, &[&self.wall]).await;
        left.map(drop).map_err(|fault| self.place.failed(fault))
    }
}

/// Deletes kept responses whose time is over, and walls that have been gone for a day.
async fn tidy(client: &Object) -> Result<(), Fault> {
    let kept = "DELETE FROM farewall.kept WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM farewall.kept WHERE expires_at < clock_timestamp() LIMIT $1))";
    execute(client, kept, &[&TIDY_ROWS]).await?;
    let walls =
        "DELETE FROM farewall.wall WHERE lease_until < clock_timestamp() - interval '1 day'";
    execute(client, walls, &[]).await?;
    Ok(())
}

//! Connections: how many, how long they may take, and what holds on each of them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use thiserror::Error;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::tls::{TlsFault, Verified};
use crate::config::settings::{LedgerServer, LedgerTls};
use crate::ledger::LedgerError;

/// The longest that connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// The longest that a request waits for a free connection. Longer means: fail closed, say 503.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// How often one operation is tried on connections that turn out to be dead.
const TRIES_MAX: u32 = 3;

/// What holds on every connection.
///
/// An answer must mean "on disk", whatever the server's default is; and nothing may wait for ever.
const SESSION: &str = "
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = '5s';
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '10s';
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') = 'off';
";

/// For people who read: long statements, no writes.
const READING_SESSION: &str = "SET default_transaction_read_only = on";

/// Where the ledger is, for messages; without secrets.
#[derive(Clone, Debug)]
pub(super) struct Place(pub(super) Arc<str>);

impl Place {
    /// The error that says that something failed here.
    pub(super) fn failed(&self, fault: impl Into<Fault>) -> LedgerError {
        LedgerError::Store {
            place: self.to_string(),
            cause: Box::new(fault.into()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What went wrong at the server, or on the way to it.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// No connection.
    #[error("no connection: {}", why_none(.0))]
    Pool(#[from] PoolError),
    /// The pool cannot be made.
    #[error("no connection pool: {0}")]
    Build(#[from] deadpool_postgres::BuildError),
    /// A statement failed, or its connection.
    #[error("{}", sentence(.0))]
    Query(#[from] tokio_postgres::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// A sum past 128 bits.
    #[error("a sum of amounts does not fit 128 bits")]
    SumTooLarge,
    /// A claim was refused, yet nobody holds the payment, again and again.
    #[error("the payment changes hands too fast")]
    NoHolder,
    /// Only a wall that starts brings it up to date.
    #[error(
        "its schema version {0} is older than this farewall; restart the wall to update it, \
         which replacing it does not"
    )]
    Older(i64),
    /// Another program's tables, or none.
    #[error("it is not a Farewall ledger")]
    NotALedger,
    /// The task was lost.
    #[error("the task was lost")]
    Lost,
    /// No thread for a runtime of one's own.
    #[error("cannot start: {0}")]
    Runtime(#[source] std::io::Error),
}

/// What the server said, with the cause that `Display` of the package leaves out.
fn sentence(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

fn why_none(error: &PoolError) -> String {
    match error {
        PoolError::Backend(cause) => sentence(cause),
        PoolError::PostCreateHook(HookError::Backend(cause)) => sentence(cause),
        PoolError::Timeout(_)
        | PoolError::Closed
        | PoolError::NoRuntimeSpecified
        | PoolError::PostCreateHook(_) => error.to_string(),
    }
}

impl Fault {
    /// Whether the same operation may go well on another connection, a moment later.
    fn is_passing(&self) -> bool {
        let Self::Query(error) = self else {
            return false;
        };
        match error.code() {
            None => error.is_closed() || std::error::Error::source(error).is_some(),
            Some(code) => [
                SqlState::T_R_SERIALIZATION_FAILURE,
                SqlState::T_R_DEADLOCK_DETECTED,
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
            ]
            .contains(code),
        }
    }
}

/// Counts the tries of one operation.
#[derive(Debug, Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// Whether an earlier try may have been carried out although its answer was lost.
    pub(super) const fn is_repeated(&self) -> bool {
        self.0 > 0
    }

    /// Allows another try, or gives the error to return.
    pub(super) fn again(&mut self, place: &Place, fault: Fault) -> Result<(), LedgerError> {
        self.0 = self.0.saturating_add(1);
        if self.0 < TRIES_MAX && fault.is_passing() {
            tracing::warn!(ledger = %place, %fault, "trying once more");
            Ok(())
        } else {
            Err(place.failed(fault))
        }
    }
}

/// Opens `size` connections to the server when they are needed.
pub(super) fn pool(
    server: &LedgerServer,
    ca_file: Option<&Path>,
    size: usize,
    reading: bool,
) -> Result<Pool, Fault> {
    let mut config = server.connection.clone();
    if config.get_application_name().is_none() {
        config.application_name("farewall");
    }
    config.connect_timeout(CONNECT_MAX);
    config.keepalives_idle(Duration::from_secs(15));
    config.tcp_user_timeout(Duration::from_secs(10));
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = match &server.tls {
        LedgerTls::Off => {
            config.ssl_mode(tokio_postgres::config::SslMode::Disable);
            Manager::from_config(config, NoTls, recycling)
        }
        LedgerTls::Verified { ca_file: own } => {
            config.ssl_mode(tokio_postgres::config::SslMode::Require);
            let tls = Verified::new(own.as_deref().or(ca_file))?;
            Manager::from_config(config, tls, recycling)
        }
    };
    let session = if reading { READING_SESSION } else { SESSION };
    let pool = Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT_MAX))
        .create_timeout(Some(CONNECT_MAX))
        .recycle_timeout(Some(CONNECT_MAX))
        .post_create(Hook::async_fn(move |client, _| {
            Box::pin(async move {
                let set = client.batch_execute(session).await;
                set.map_err(HookError::Backend)
            })
        }))
        .build()?;
    Ok(pool)
}

/// A connection from the pool.
pub(super) async fn connection(pool: &Pool, place: &Place) -> Result<Object, LedgerError> {
    pool.get().await.map_err(|cause| place.failed(cause))
}

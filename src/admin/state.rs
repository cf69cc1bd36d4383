//! What the admin API knows and may do.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{OnceCell, Semaphore};

use super::Token;
use crate::books::Tokens;
use crate::clock::{Clock, UnixSeconds};
use crate::config::settings::Settings;
use crate::ledger::LedgerError;
use crate::ledger::observed::Observed;
use crate::ledger::reader::LedgerReader;
use crate::proxy::Generation;
use crate::reconcile::Errand;
use crate::reload;

/// Reads of the ledger at once. Further ones wait.
const READS_MAX: usize = 4;
/// Listeners to live events at once. Further ones are turned away.
const LISTENERS_MAX: usize = 64;

/// The configuration in force, for those who ask about it.
pub struct InForce {
    /// The settings.
    pub(super) settings: Settings,
    /// The tokens that they name.
    pub(super) tokens: Tokens,
    /// What requests are served by.
    pub(super) rules: Arc<Generation>,
}

impl InForce {
    /// `rules` are made of `settings`.
    #[must_use]
    pub fn new(settings: Settings, rules: Arc<Generation>) -> Self {
        Self {
            tokens: Tokens::of(&settings),
            settings,
            rules,
        }
    }
}

/// What an [`Admin`] is made of.
pub struct AdminParts {
    /// The configuration in force; a reload puts another in its place.
    pub in_force: Arc<ArcSwap<InForce>>,
    /// Who may use the API; `None` for nobody.
    pub token: Option<Token>,
    /// The ledger of the wall.
    pub ledger: Arc<Observed>,
    /// Sends the reconciler on errands.
    pub errands: Errand,
    /// Asks for reloads.
    pub reloads: reload::Handle,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// What the admin API knows and may do.
pub struct Admin {
    parts: AdminParts,
    reader: OnceCell<Arc<LedgerReader>>,
    reads: Arc<Semaphore>,
    pub(super) listeners: Arc<Semaphore>,
}

impl Admin {
    /// From its parts.
    #[must_use]
    pub fn new(parts: AdminParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            reader: OnceCell::new(),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
        })
    }

    pub(super) const fn has_token(&self) -> bool {
        self.parts.token.is_some()
    }

    pub(super) const fn token(&self) -> Option<&Token> {
        self.parts.token.as_ref()
    }

    /// To be asked once for each answer: all of it is about one configuration then.
    pub(super) fn in_force(&self) -> Arc<InForce> {
        self.parts.in_force.load_full()
    }

    pub(super) const fn ledger(&self) -> &Arc<Observed> {
        &self.parts.ledger
    }

    pub(super) const fn errands(&self) -> &Errand {
        &self.parts.errands
    }

    pub(super) const fn reloads(&self) -> &reload::Handle {
        &self.parts.reloads
    }

    pub(super) fn now(&self) -> UnixSeconds {
        self.parts.clock.now()
    }

    /// Reads the ledger on a thread that may block, through a connection that no request uses.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&LedgerReader, &Self) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        const STOPPED: LedgerError = LedgerError::Closed("the reading thread stopped");
        let place = Arc::clone(&self.reads).acquire_owned();
        let place = place.await.map_err(|_| STOPPED)?;
        let opened = self.reader.get_or_try_init(|| async {
            // Neither changes without a restart.
            let settings = &self.in_force().settings;
            let (ledger, ca_file) = (settings.ledger.clone(), settings.server.ca_file.clone());
            let open = move || LedgerReader::open(&ledger, ca_file.as_deref()).map(Arc::new);
            let opened = tokio::task::spawn_blocking(open).await;
            opened.unwrap_or(Err(STOPPED))
        });
        let (reader, this) = (Arc::clone(opened.await?), Arc::clone(self));
        let reading = move || {
            // Kept to the end of the read, also when nobody waits for it any more.
            let _place = place;
            read(&reader, &this)
        };
        let read = tokio::task::spawn_blocking(reading).await;
        read.unwrap_or(Err(STOPPED))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // The reader of a shared ledger has a runtime of its own, which must not be dropped by a task.
        if let Some(reader) = self.reader.take() {
            std::thread::spawn(move || drop(reader));
        }
    }
}

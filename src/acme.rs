//! Certificates from an ACME server (RFC 8555): ordered, kept and renewed. (io)
//!
//! Each name has a certificate of its own, in a file that [`crate::tls`] looks after: what is issued is
//! written there, and served like any other file that has changed. So nothing here can take a
//! certificate away. The server asks over HTTP-01, which [`Tokens`] answers; the other way that needs no
//! DNS, TLS-ALPN-01, is closed, because pingora's listeners cannot offer a third protocol beside HTTP/2
//! and HTTP/1.1.
//!
//! All of it runs in a thread of its own: a slow disk or server holds up no payment.

mod http;
mod order;
mod pace;
mod store;
mod tokens;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, NewAccount};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use self::http::Http;
use self::store::Store;
use crate::clock::{Clock, UnixSeconds};
use crate::config::settings::{AcmeSettings, TlsFiles};
use crate::metrics;
use crate::tls::{Managed, TlsError, Validity};

pub use self::tokens::Tokens;

/// The longest that nothing is looked at: the clock may be set, and another wall may have renewed.
const LOOK_S: u64 = 60;
/// The longest that an order may take: longer than the server's answers may be waited for.
const ORDER_MAX: Duration = Duration::from_secs(300);

/// Why there is no certificate, or no way to order one. Never shows a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AcmeError {
    /// The state folder, or a file of it.
    #[error("{}: {cause}", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// A file of the state folder is not what was written there.
    #[error("{} is not what was written there; move it away, and another is made", .0.display())]
    Spoilt(PathBuf),
    /// `ca_file` cannot be used.
    #[error("ca_file {}: {cause}", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The server cannot be reached, or refused.
    #[error("{0}")]
    Server(String),
    /// The server did not find the name here.
    #[error("the server could not verify the name: {0}")]
    Unverified(String),
    /// What the server issued cannot be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// No key could be made.
    #[error("no key could be made: {0}")]
    Key(String),
    /// It took too long.
    #[error("the order was not done after {} s", .0.as_secs())]
    TooSlow(Duration),
}

impl From<instant_acme::Error> for AcmeError {
    fn from(error: instant_acme::Error) -> Self {
        Self::Server(printable(&error.to_string()))
    }
}

/// One line of at most 500 characters: what a server says goes to the log.
fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(500).map(plain).collect()
}

/// Orders and renews the certificates of `[acme]`.
pub struct Acme {
    settings: AcmeSettings,
    store: Store,
    http: Http,
    tokens: Arc<Tokens>,
    clock: Arc<dyn Clock>,
    /// Spreads renewals, so that walls that began together do not renew together.
    spread: u64,
    /// Held by the wall that orders.
    turn: Option<File>,
    /// What was said last of names that have to wait, so that it is said once.
    waiting: BTreeMap<String, UnixSeconds>,
}

impl Acme {
    /// Opens the state folder, or makes it. Asks nobody.
    ///
    /// # Errors
    ///
    /// [`AcmeError`], when the folder or the certificate authorities cannot be used.
    pub fn open(settings: &AcmeSettings, clock: Arc<dyn Clock>) -> Result<Self, AcmeError> {
        let store = Store::open(&settings.state, &settings.directory)?;
        let http = Http::new(settings.ca_file.as_deref())?;
        settings
            .names
            .iter()
            .for_each(|name| metrics::acme_name(name));
        Ok(Self {
            settings: settings.clone(),
            store,
            http,
            tokens: Arc::default(),
            clock,
            spread: rand::random(),
            turn: None,
            waiting: BTreeMap::new(),
        })
    }

    /// Where the certificates are, or will be.
    #[must_use]
    pub fn managed(&self) -> Vec<Managed> {
        let managed = |name: &String| {
            let path = self.store.certificate(name);
            let files = TlsFiles {
                cert: path.clone(),
                key: path,
            };
            let name = name.clone();
            Managed { name, files }
        };
        self.settings.names.iter().map(managed).collect()
    }

    /// What challenges are answered from.
    #[must_use]
    pub fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens)
    }

    /// Orders what is missing and renews what is due, until the process ends. To be called when
    /// challenges are answered.
    pub async fn run(mut self) {
        for name in &self.settings.names {
            if self.stored(name).is_none() {
                tracing::warn!(
                    name,
                    "there is no certificate yet: clients that ask for this name are refused, or \
                     get another name's certificate, until the ACME server has issued one"
                );
            }
        }
        loop {
            let wait = self.round().await;
            sleep(wait).await;
        }
    }

    /// One look at every name; how long until the next.
    async fn round(&mut self) -> Duration {
        if !self.has_turn() {
            return Duration::from_secs(LOOK_S);
        }
        let mut wait_s = LOOK_S;
        for name in self.settings.names.clone() {
            let due = self.tend(&name).await;
            wait_s = wait_s.min(due.since(self.clock.now()));
        }
        Duration::from_secs(wait_s.max(1))
    }

    /// Of several walls with one state folder, one orders; another takes its place when it is gone.
    fn has_turn(&mut self) -> bool {
        if self.turn.is_none() {
            match self.store.lock() {
                Ok(Some(turn)) => self.turn = Some(turn),
                Ok(None) => tracing::debug!("another wall orders certificates"),
                Err(error) => tracing::error!(%error, "no certificates can be ordered"),
            }
        }
        self.turn.is_some()
    }

    fn stored(&self, name: &str) -> Option<Validity> {
        let path = self.store.certificate(name);
        let pem = std::fs::read(&path).ok()?;
        crate::tls::inspect(&pem, &path, name)
            .inspect_err(|error| tracing::debug!(%error, "what is stored is not used"))
            .ok()
    }

    /// Orders a certificate for the name if it is time; when to look again.
    async fn tend(&mut self, name: &str) -> UnixSeconds {
        let now = self.clock.now();
        if let Some(validity) = self.stored(name) {
            let renewal = pace::renewal(validity, self.spread);
            if now < renewal {
                return renewal;
            }
        }
        let pace = self.store.pace(name);
        if let Some(until) = pace.not_before(now) {
            if self.waiting.insert(name.to_owned(), until) != Some(until) {
                let wait_s = until.since(now);
                tracing::info!(name, wait_s, "no certificate is ordered before that");
            }
            return until;
        }
        // On record before anybody is asked: whatever ends the process now, the next one waits.
        let begun = pace.begun(now, rand::random());
        if let Err(error) = self.store.keep_pace(name, &begun) {
            self.failed(name, &error, now.plus(LOOK_S));
            return now.plus(LOOK_S);
        }
        let ordered = timeout(ORDER_MAX, self.order(name)).await;
        match ordered.unwrap_or(Err(AcmeError::TooSlow(ORDER_MAX))) {
            Ok(validity) => {
                metrics::acme_order(name, "issued");
                tracing::info!(
                    name,
                    not_after = validity.not_after.0,
                    "a certificate was issued"
                );
                let pace = pace::Pace::after(validity, self.clock.now());
                if let Err(error) = self.store.keep_pace(name, &pace) {
                    tracing::error!(name, %error, "what was ordered cannot be noted down");
                }
                pace::renewal(validity, self.spread)
            }
            Err(error) => {
                let again = self.store.pace(name).next_order_at;
                self.failed(name, &error, again);
                again
            }
        }
    }

    fn failed(&self, name: &str, error: &AcmeError, again: UnixSeconds) {
        metrics::acme_order(name, "failed");
        let again_s = again.since(self.clock.now());
        tracing::error!(name, %error, again_s, "no new certificate; the old one, if any, is served on");
    }

    async fn order(&self, name: &str) -> Result<Validity, AcmeError> {
        let account = self.account().await?;
        let pem = match order::order(&account, name, &self.tokens).await {
            Err(order::Fault::NoSuchAccount) => {
                tracing::warn!(
                    "the ACME server does not know the account any more; making another"
                );
                self.store.forget_account()?;
                let account = self.account().await?;
                order::order(&account, name, &self.tokens).await
            }
            ordered => ordered,
        };
        let pem = pem.map_err(AcmeError::from)?;
        let path = self.store.certificate(name);
        let kept = crate::tls::inspect(pem.as_bytes(), &path, name)
            .map_err(AcmeError::from)
            .and_then(|validity| {
                self.store.keep_certificate(name, &pem)?;
                Ok(validity)
            });
        if kept.is_err() {
            // It counts among the few that the server issues in a week.
            let now = self.clock.now();
            self.store.keep_pace(name, &pace::Pace::in_vain(now))?;
        }
        kept
    }

    /// The account on record, or a new one.
    async fn account(&self) -> Result<Account, AcmeError> {
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        if let Some(credentials) = self.store.account()? {
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contact = self.settings.contact.iter();
        let contact: Vec<String> = contact.map(|mail| format!("mailto:{mail}")).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.settings.directory.clone();
        let (account, credentials) = builder.create(&wanted, directory, None).await?;
        self.store.keep_account(&credentials)?;
        tracing::info!(
            account = account.id(),
            "the ACME server has made an account"
        );
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_one_bounded_line() {
        assert_eq!(printable("a\nb\x1b[31mc"), "a b [31mc");
        assert_eq!(printable(&"é".repeat(501)).chars().count(), 500);
    }
}

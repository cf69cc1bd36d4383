//! Certificates of listeners: which one a client gets, and new ones while the wall runs.
//!
//! Those of an ACME server are files too, which may not be there yet. A listener that has no certificate
//! at all refuses every handshake: one that nobody vouches for would teach clients not to look.
//!
//! The files are looked at again and again, by content. What was renewed is served to the next
//! connection; connections that exist keep what they have. A pair that cannot be used is reported
//! once, and the one before stays.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::clock::UnixSeconds;
use crate::config::settings::TlsFiles;
use crate::metrics;

/// How often the files are looked at. Two looks in a row must see the same before it is used: a
/// certificate and its key are two files, and neither is written in one moment.
const LOOK: Duration = Duration::from_secs(2);

/// Why a certificate and its key cannot be used. Never shows what is in them.
#[derive(Debug, Error)]
#[error("{what}: {cause}")]
pub struct TlsError {
    what: String,
    cause: String,
}

impl TlsError {
    fn new(what: impl Display, cause: impl Display) -> Self {
        Self {
            what: what.to_string(),
            cause: cause.to_string(),
        }
    }
}

const BROKEN: &str = "its BEGIN and END lines are broken; each must be a line of its own";

/// In words of ours: the parser's own repeat lines of the file, which may be the key.
fn no_pem(fault: &pem::Error) -> String {
    match fault {
        pem::Error::NoItemsFound => "there is nothing of that kind in it",
        pem::Error::Base64Decode(_) => "what is between its BEGIN and END lines is not base64",
        pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. } => BROKEN,
        pem::Error::Io(_) | pem::Error::SectionTooLarge | _ => BROKEN,
    }
    .to_owned()
}

/// What the two files of one certificate hold.
struct Pair {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// What was seen at a look: a digest of both files, or why they cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Sight {
    Files([u8; 32]),
    Unreadable(String),
}

impl Pair {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|cause| TlsError::new(path.display(), cause))
        };
        Ok(Self {
            cert: read(&files.cert)?,
            key: read(&files.key)?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        // The length keeps the end of one from being the beginning of the other.
        digest.update(self.cert.len().to_be_bytes());
        digest.update(&self.cert);
        digest.update(&self.key);
        digest.finalize().into()
    }

    /// The chain, leaf first, and a key that belongs to the leaf.
    fn certified(&self, files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
        let (cert, key) = (files.cert.display(), files.key.display());
        let chain = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|fault| TlsError::new(&cert, no_pem(&fault)))?;
        let Some(leaf) = chain.first() else {
            return Err(TlsError::new(cert, "there is no certificate in it"));
        };
        ParsedCertificate::try_from(leaf).map_err(|cause| TlsError::new(&cert, cause))?;
        let private = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|fault| TlsError::new(&key, no_pem(&fault)))?;
        CertifiedKey::from_der(chain, private, &default_provider())
            .map_err(|cause| TlsError::new(format!("{cert} with {key}"), cause))
    }
}

/// Certificate and key of an ACME name; its files are there when they have been issued.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Managed {
    /// The host name.
    pub name: String,
    /// Where they are.
    pub files: TlsFiles,
}

/// When a certificate is good, in Unix seconds, bounds included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// From here.
    pub not_before: UnixSeconds,
    /// Until here.
    pub not_after: UnixSeconds,
}

impl Validity {
    fn of(served: &CertifiedKey) -> Option<Self> {
        let leaf = served.cert.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let validity = parsed.validity();
        let seconds = |at: i64| UnixSeconds(u64::try_from(at).unwrap_or(0));
        Some(Self {
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
        })
    }
}

/// When the certificate in `pem` is good, which holds its chain and its key, and is said to be for
/// `name`. `path` stands in errors.
///
/// # Errors
///
/// [`TlsError`], when it cannot be used, or is for somebody else.
pub fn inspect(pem: &[u8], path: &Path, name: &str) -> Result<Validity, TlsError> {
    let pair = Pair {
        cert: pem.to_vec(),
        key: pem.to_vec(),
    };
    let files = TlsFiles {
        cert: path.to_owned(),
        key: path.to_owned(),
    };
    let certified = pair.certified(&files)?;
    let wanted = ServerName::try_from(name).map_err(|cause| TlsError::new(name, cause))?;
    if !is_for(&certified, &wanted) {
        return Err(TlsError::new(
            path.display(),
            format!("it is not for {name}"),
        ));
    }
    Validity::of(&certified)
        .ok_or_else(|| TlsError::new(path.display(), "its dates cannot be read"))
}

/// The files of one certificate, and what became of them.
struct Watched {
    /// What metrics call it.
    label: String,
    files: TlsFiles,
    /// At the last look.
    seen: Sight,
    /// What was last used or refused.
    tried: Sight,
}

impl Watched {
    fn new(label: String, files: &TlsFiles, sight: Sight) -> Self {
        Self {
            label,
            files: files.clone(),
            seen: sight.clone(),
            tried: sight,
        }
    }

    /// A certificate to use from now on, or why a new one is not used; `None` when nothing is new.
    fn look(&mut self) -> Option<Result<CertifiedKey, TlsError>> {
        let found = Pair::read(&self.files);
        let sight = match &found {
            Ok(pair) => Sight::Files(pair.digest()),
            Err(error) => Sight::Unreadable(error.to_string()),
        };
        let is_steady = sight == self.seen;
        self.seen.clone_from(&sight);
        if !is_steady || sight == self.tried {
            return None;
        }
        self.tried = sight;
        Some(found.and_then(|pair| pair.certified(&self.files)))
    }
}

/// The certificates of one listener.
#[derive(Debug)]
pub struct Certificates {
    /// In the order of the configuration, those of ACME names last; `None` is not issued yet.
    served: ArcSwap<Vec<Option<Arc<CertifiedKey>>>>,
}

/// Looks after the files of a listener's certificates.
pub struct Watcher {
    watched: Vec<Watched>,
    certificates: Arc<Certificates>,
}

impl Certificates {
    /// Reads all of them, and gives what keeps them up to date too. What an ACME server has not
    /// issued yet, and what is broken of it, is taken when it is there.
    ///
    /// # Errors
    ///
    /// [`TlsError`], when one of `files` cannot be used, or there is neither file nor name.
    pub fn load(files: &[TlsFiles], managed: &[Managed]) -> Result<(Arc<Self>, Watcher), TlsError> {
        let (mut served, mut watched) = (Vec::new(), Vec::new());
        for files in files {
            let pair = Pair::read(files)?;
            let certified = pair.certified(files)?;
            let label = files.cert.display().to_string();
            tell_expiry(&label, Some(&certified));
            served.push(Some(Arc::new(certified)));
            watched.push(Watched::new(label, files, Sight::Files(pair.digest())));
        }
        for Managed { name, files } in managed {
            let (certified, sight) = stored(files);
            tell_expiry(name, certified.as_ref());
            served.push(certified.map(Arc::new));
            watched.push(Watched::new(name.clone(), files, sight));
        }
        if served.is_empty() {
            return Err(TlsError::new("listener", "it has no certificate"));
        }
        let certificates = Arc::new(Self {
            served: ArcSwap::from_pointee(served),
        });
        let watcher = Watcher {
            watched,
            certificates: Arc::clone(&certificates),
        };
        Ok((certificates, watcher))
    }

    /// The first that is valid for the name; without one, and for clients that name nobody, the
    /// first of all.
    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let served = self.served.load();
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let mut there = served.iter().flatten();
        let first = there.clone().next();
        let named = name.and_then(|name| there.find(|served| is_for(served, &name)));
        named.or(first).cloned()
    }

    fn replace(&self, nth: usize, new: CertifiedKey) {
        let mut served = Vec::clone(&self.served.load());
        if let Some(place) = served.get_mut(nth) {
            *place = Some(Arc::new(new));
            self.served.store(Arc::new(served));
        }
    }
}

/// What is stored of an ACME name, and what was seen.
fn stored(files: &TlsFiles) -> (Option<CertifiedKey>, Sight) {
    let pair = match Pair::read(files) {
        Ok(pair) => pair,
        Err(error) => return (None, Sight::Unreadable(error.to_string())),
    };
    let certified = pair.certified(files);
    if let Err(error) = &certified {
        tracing::error!(%error, "a stored certificate cannot be used");
    }
    (certified.ok(), Sight::Files(pair.digest()))
}

fn tell_expiry(label: &str, served: Option<&CertifiedKey>) {
    let validity = served.and_then(Validity::of);
    let expiry = validity.map_or(UnixSeconds(0), |validity| validity.not_after);
    metrics::certificate_expiry(label, expiry);
}

/// Whether the certificate's names cover this one; `*.example.com` covers one label.
fn is_for(served: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let leaf = served.cert.first();
    let parsed = leaf.and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
    parsed.is_some_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

impl Watcher {
    /// One look at all files.
    fn look(&mut self) {
        for (nth, watched) in self.watched.iter_mut().enumerate() {
            match watched.look() {
                None => {}
                Some(Ok(new)) => {
                    tell_expiry(&watched.label, Some(&new));
                    self.certificates.replace(nth, new);
                    metrics::certificate("taken");
                    let certificate = watched.files.cert.display();
                    tracing::info!(%certificate, "a new certificate is served from now on");
                }
                Some(Err(error)) => {
                    metrics::certificate("refused");
                    tracing::error!(%error, "a new certificate cannot be used; the old one stays");
                }
            }
        }
    }

    /// Looks again and again; ends only with the runtime.
    pub async fn watch(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            // A file system may be slow, and the runtime has other things to do.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            let Ok(watcher) = looked.await else { return };
            self = watcher;
        }
    }
}

#[cfg(test)]
mod tests;

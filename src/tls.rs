//! Certificates of listeners: which one a client gets, and new ones while the wall runs.
//!
//! The files are looked at again and again, by content. What was renewed is served to the next
//! connection; connections that exist keep what they have. A pair that cannot be used is reported
//! once, and the one before stays.

use std::fmt::Display;
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

/// The files of one certificate, and what became of them.
struct Watched {
    files: TlsFiles,
    /// At the last look.
    seen: Sight,
    /// What was last used or refused.
    tried: Sight,
}

impl Watched {
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
    /// In the order of the configuration; at least one.
    served: ArcSwap<Vec<Arc<CertifiedKey>>>,
}

/// Looks after the files of a listener's certificates.
pub struct Watcher {
    watched: Vec<Watched>,
    certificates: Arc<Certificates>,
}

impl Certificates {
    /// Reads all of them, and gives what keeps them up to date too.
    ///
    /// # Errors
    ///
    /// [`TlsError`], when one cannot be used, or there is none.
    pub fn load(files: &[TlsFiles]) -> Result<(Arc<Self>, Watcher), TlsError> {
        let (mut served, mut watched) = (Vec::new(), Vec::new());
        for files in files {
            let pair = Pair::read(files)?;
            served.push(Arc::new(pair.certified(files)?));
            let sight = Sight::Files(pair.digest());
            watched.push(Watched {
                files: files.clone(),
                seen: sight.clone(),
                tried: sight,
            });
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
        let named = name.and_then(|name| served.iter().find(|served| is_for(served, &name)));
        named.or_else(|| served.first()).cloned()
    }

    fn replace(&self, nth: usize, new: CertifiedKey) {
        let mut served = Vec::clone(&self.served.load());
        if let Some(place) = served.get_mut(nth) {
            *place = Arc::new(new);
            self.served.store(Arc::new(served));
        }
    }
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
mod tests {
    use std::path::Path;

    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

    use super::*;

    fn made(names: &[&str]) -> Made<rcgen::KeyPair> {
        let names = names.iter().map(|name| (*name).to_owned());
        generate_simple_self_signed(names.collect::<Vec<_>>()).unwrap()
    }

    fn files(folder: &Path, name: &str) -> TlsFiles {
        TlsFiles {
            cert: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        }
    }

    fn write(files: &TlsFiles, made: &Made<rcgen::KeyPair>) {
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    fn loaded(all: &[&[&str]]) -> (Vec<Vec<u8>>, Arc<Certificates>) {
        let folder = tempfile::tempdir().unwrap();
        let (mut ders, mut paths) = (Vec::new(), Vec::new());
        for (nth, names) in all.iter().enumerate() {
            let (made, files) = (made(names), files(folder.path(), &nth.to_string()));
            write(&files, &made);
            ders.push(made.cert.der().to_vec());
            paths.push(files);
        }
        (ders, Certificates::load(&paths).unwrap().0)
    }

    #[test]
    fn the_first_that_is_valid_for_the_name_is_chosen() {
        let (ders, certificates) = loaded(&[
            &["api.example.com"],
            &["*.example.com", "example.org"],
            &["late.example.com"],
        ]);
        let check = |name: Option<&str>, nth: usize| {
            let chosen = certificates.choose(name).unwrap();
            assert_eq!(chosen.cert[0].as_ref(), ders[nth], "{name:?}");
        };
        check(Some("api.example.com"), 0);
        check(Some("API.Example.COM"), 0);
        check(Some("other.example.com"), 1);
        check(Some("example.org"), 1);
        // The wildcard stands before it.
        check(Some("late.example.com"), 1);
        // One label, and not none.
        check(Some("a.b.example.com"), 0);
        check(Some("example.com"), 0);
        check(Some("elsewhere.example"), 0);
        check(Some("not a name"), 0);
        check(None, 0);
    }

    #[test]
    fn a_new_pair_is_taken_when_it_is_steady_and_a_bad_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path(), "site");
        let (first, second) = (made(&["a.example"]), made(&["a.example"]));
        write(&files, &first);
        let (certificates, mut watcher) = Certificates::load(std::slice::from_ref(&files)).unwrap();
        let served = || certificates.choose(None).unwrap().cert[0].to_vec();
        let (old, new) = (first.cert.der().to_vec(), second.cert.der().to_vec());
        watcher.look();
        assert_eq!(served(), old);
        // The certificate is there, its key is not yet.
        std::fs::write(&files.cert, second.cert.pem()).unwrap();
        for _ in 0..3 {
            watcher.look();
            assert_eq!(served(), old, "the key is another's");
        }
        write(&files, &second);
        watcher.look();
        assert_eq!(served(), old, "seen once");
        watcher.look();
        assert_eq!(served(), new, "seen twice");
        for broken in ["", "-----BEGIN CERTIFICATE-----\n", "no PEM at all"] {
            std::fs::write(&files.cert, broken).unwrap();
            (0..3).for_each(|_| watcher.look());
            assert_eq!(served(), new, "{broken:?}");
        }
        std::fs::remove_file(&files.cert).unwrap();
        (0..3).for_each(|_| watcher.look());
        assert_eq!(served(), new, "no file");
        write(&files, &first);
        (0..2).for_each(|_| watcher.look());
        assert_eq!(served(), old, "back to one that is good");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file_and_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path(), "site");
        let (one, other) = (made(&["a.example"]), made(&["a.example"]));
        let told = |files: &TlsFiles| {
            let error = Certificates::load(std::slice::from_ref(files)).err();
            error.unwrap().to_string()
        };
        let path = |path: &Path| path.display().to_string();
        assert!(told(&files).starts_with(&path(&files.cert)));
        write(&files, &one);
        let key = other.signing_key.serialize_pem();
        std::fs::write(&files.key, &key).unwrap();
        let mismatch = told(&files);
        assert!(mismatch.contains(&path(&files.cert)) && mismatch.contains(&path(&files.key)));
        std::fs::write(&files.key, "secret").unwrap();
        assert!(told(&files).starts_with(&path(&files.key)));
        assert!(!told(&files).contains("secret"));
        // As it comes out of an environment variable: the parser's own words would show all of it.
        std::fs::write(&files.key, key.replace('\n', " ")).unwrap();
        let one_line = told(&files);
        assert!(one_line.ends_with(BROKEN), "{one_line}");
        std::fs::write(&files.cert, key.replace('\n', " ")).unwrap();
        assert!(!told(&files).contains("80, 82"), "{}", told(&files));
        assert!(Certificates::load(&[]).is_err());
    }
}

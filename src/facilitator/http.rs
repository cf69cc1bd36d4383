//! The facilitator client: pooled connections with deadlines, bounded answers and bounded concurrency.
//!
//! What an answer means is decided in [`answer`], without a socket. Verifications have a pool of their own: they
//! are asked for by the threads that serve requests, which end before the last settlement, and a connection
//! ends with the thread that made it. Deliberately absent: redirects
//! and proxies (the authentication headers belong to one host), and any repetition of a settlement
//! other than the one that `settlement_pending` asks for.

pub mod answer;
mod client;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use reqwest::Url;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::causes::causes;
use crate::clock::{Clock, SystemClock};
use crate::config::settings::FacilitatorSettings;
use crate::facilitator::http::answer::{RawAnswer, SettleReading};
use crate::facilitator::http::client::{Fault, Pool};
use crate::facilitator::supported::Supported;
use crate::facilitator::{
    Facilitator, FacilitatorFault, FacilitatorRequest, Fitness, SettleAnswer, VerifyAnswer,
};

/// `/supported` is asked at most so often, and again only after 429 (spec 5.4).
const SUPPORTED_ATTEMPTS: u32 = 3;
/// The longest pause between two of them.
const SUPPORTED_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A facilitator reached over HTTP: a remote service or the local sandbox.
pub struct HttpFacilitator {
    name: Arc<str>,
    verify: Endpoint,
    settle: Endpoint,
    supported: Endpoint,
    calls: Semaphore,
    answer_bytes_max: usize,
    verify_retries: u32,
}

/// One endpoint: connections, address, headers of its own, and how long a call may take in all.
struct Endpoint {
    pool: Pool,
    path: &'static str,
    uri: Uri,
    headers: HeaderMap,
    deadline: Duration,
}

/// Why a facilitator client cannot be built: always a mistake in the configuration or on disk.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The base URL is not an absolute `http` or `https` URL without query and fragment.
    #[error("facilitator {name:?}: url must be http:// or https:// with a host and no query")]
    Url {
        /// The facilitator.
        name: Arc<str>,
    },
    /// A header name or value that HTTP does not allow. The value is a secret and not shown.
    #[error("facilitator {name:?}: header {header:?} for {endpoint} is not a valid HTTP header")]
    Header {
        /// The facilitator.
        name: Arc<str>,
        /// `/verify`, `/settle` or `/supported`.
        endpoint: &'static str,
        /// The header's name.
        header: String,
    },
    /// `ca_file` cannot be read.
    #[error("ca_file {}: {source}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `ca_file` holds no PEM certificates, or the TLS set-up failed.
    #[error("facilitator {name:?}: TLS cannot be set up: {source}")]
    Tls {
        /// The facilitator.
        name: Arc<str>,
        /// What the client said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl HttpFacilitator {
    /// A client for one facilitator. `ca_file` replaces the system's certificate authorities.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: a bad URL, header or certificate file. Nothing is sent.
    pub fn new(settings: &FacilitatorSettings, ca_file: Option<&Path>) -> Result<Self, BuildError> {
        let (verifying, settling) = pools(settings, ca_file)?;
        let endpoint = |pool: &Pool, path, headers: &[(String, String)], deadline| {
            Ok::<_, BuildError>(Endpoint {
                pool: pool.clone(),
                path,
                uri: endpoint_uri(settings, path)?,
                headers: secret_headers(settings, path, headers)?,
                deadline,
            })
        };
        let (own, verify_in) = (&settings.headers, settings.verify_timeout);
        Ok(Self {
            name: Arc::clone(&settings.name),
            verify: endpoint(&verifying, "/verify", &own.verify, verify_in)?,
            settle: endpoint(&settling, "/settle", &own.settle, settings.settle_timeout)?,
            supported: endpoint(&settling, "/supported", &own.supported, verify_in)?,
            calls: Semaphore::new(settings.calls_max.clamp(1, Semaphore::MAX_PERMITS)),
            answer_bytes_max: settings.answer_bytes_max,
            verify_retries: settings.verify_retries,
        })
    }

    /// Sends one request and reads its whole answer, until `until`.
    async fn call(
        &self,
        endpoint: &Endpoint,
        body: Option<&Arc<str>>,
        until: Instant,
    ) -> Result<RawAnswer, FacilitatorFault> {
        let started = Instant::now();
        let result = match timeout_at(until, self.exchange(endpoint, body)).await {
            Ok(result) => result,
            Err(_) => Err(FacilitatorFault::Timeout(millis(endpoint.deadline))),
        };
        let took_ms = millis(started.elapsed());
        let (facilitator, path) = (&*self.name, endpoint.path);
        match &result {
            Ok(answer) => {
                let status = answer.status;
                tracing::debug!(facilitator, path, status, took_ms, "facilitator answered");
            }
            Err(fault) => {
                tracing::warn!(facilitator, path, %fault, took_ms, "facilitator call failed");
            }
        }
        result
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        body: Option<&Arc<str>>,
    ) -> Result<RawAnswer, FacilitatorFault> {
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body.as_bytes()));
        let mut request = Request::new(Full::new(bytes));
        if body.is_some() {
            *request.method_mut() = Method::POST;
        }
        *request.uri_mut() = endpoint.uri.clone();
        *request.headers_mut() = endpoint.headers.clone();
        let sent = endpoint.pool.request(request).await;
        let response = sent.map_err(|error| fault_of(&error))?;
        let status = response.status().as_u16();
        let retry_after_s = answer::retry_after_s(response.headers(), SystemClock.now());
        for (extension, member, value) in answer::extension_notes(response.headers()) {
            let facilitator = &*self.name;
            tracing::debug!(
                facilitator,
                ?extension,
                member,
                ?value,
                "extension response"
            );
        }
        match read_body(response.into_body(), self.answer_bytes_max).await {
            Ok(body) => Ok(RawAnswer {
                status,
                retry_after_s,
                body,
            }),
            Err(_) if !(200..300).contains(&status) => Err(FacilitatorFault::Status {
                status,
                retry_after_s,
            }),
            Err(fault) => Err(fault),
        }
    }
}

#[async_trait]
impl Facilitator for HttpFacilitator {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Sent once; whoever wants a verdict may ask again, since that changes nothing.
    async fn verify(&self, request: &FacilitatorRequest) -> VerifyAnswer {
        let Ok(_permit) = self.calls.try_acquire() else {
            return VerifyAnswer::Unavailable(FacilitatorFault::Saturated);
        };
        let until = deadline(self.verify.deadline);
        match self.call(&self.verify, Some(&request.body), until).await {
            Ok(raw) => answer::read_verify(&raw),
            Err(fault) => VerifyAnswer::Unavailable(fault),
        }
    }

    /// Sent once, and the identical body once more only when the facilitator says that its
    /// transaction is pending (spec 5.4). Both share one deadline.
    async fn settle(&self, request: &FacilitatorRequest) -> SettleAnswer {
        let until = deadline(self.settle.deadline);
        let Ok(Ok(_permit)) = timeout_at(until, self.calls.acquire()).await else {
            return SettleAnswer::NotSent(FacilitatorFault::Saturated);
        };
        let raw = match self.call(&self.settle, Some(&request.body), until).await {
            Ok(raw) => raw,
            Err(fault @ FacilitatorFault::Connect(_)) => return SettleAnswer::NotSent(fault),
            Err(fault) => return SettleAnswer::Unknown(fault),
        };
        match answer::read_settle(&raw, request) {
            SettleReading::Definite(answer) => answer,
            SettleReading::Pending { sent: false } => {
                SettleAnswer::Unknown(FacilitatorFault::Pending)
            }
            SettleReading::Pending { sent: true } => self.settle_again(request, until).await,
        }
    }

    fn fitness(&self) -> Fitness {
        if self.calls.available_permits() == 0 {
            Fitness::Busy
        } else {
            Fitness::Well
        }
    }

    fn verify_retries(&self) -> u32 {
        self.verify_retries
    }

    /// Asked up to three times, again only after 429, honouring `Retry-After` up to 30 s (spec 5.4).
    async fn supported(&self) -> Result<Supported, FacilitatorFault> {
        for attempt in 0..SUPPORTED_ATTEMPTS {
            let until = deadline(self.supported.deadline);
            let raw = self.call(&self.supported, None, until).await?;
            let is_last = attempt.saturating_add(1) == SUPPORTED_ATTEMPTS;
            if raw.status != 429 || is_last {
                return answer::read_supported(&raw);
            }
            let default_s = 1_u64.checked_shl(attempt).unwrap_or(u64::MAX);
            let pause = Duration::from_secs(raw.retry_after_s.unwrap_or(default_s));
            tokio::time::sleep(pause.min(SUPPORTED_PAUSE_MAX)).await;
        }
        Err(FacilitatorFault::Saturated)
    }
}

impl HttpFacilitator {
    /// The second and last sending. Whatever breaks now, the first one was received: never `NotSent`.
    async fn settle_again(&self, request: &FacilitatorRequest, until: Instant) -> SettleAnswer {
        match self.call(&self.settle, Some(&request.body), until).await {
            Ok(raw) => match answer::read_settle(&raw, request) {
                SettleReading::Definite(answer) => answer,
                SettleReading::Pending { .. } => SettleAnswer::Unknown(FacilitatorFault::Pending),
            },
            Err(fault) => SettleAnswer::Unknown(fault),
        }
    }
}

fn deadline(after: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(after).unwrap_or(now)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn endpoint_uri(settings: &FacilitatorSettings, path: &str) -> Result<Uri, BuildError> {
    let wrong = || BuildError::Url {
        name: Arc::clone(&settings.name),
    };
    let base = Url::parse(settings.url.trim_end_matches('/')).map_err(|_| wrong())?;
    let is_plain = matches!(base.scheme(), "http" | "https")
        && base.has_host()
        && base.query().is_none()
        && base.fragment().is_none();
    if !is_plain {
        return Err(wrong());
    }
    let mut url = base;
    let full = format!("{}{path}", url.path().trim_end_matches('/'));
    url.set_path(&full);
    url.as_str().parse().map_err(|_| wrong())
}

fn secret_headers(
    settings: &FacilitatorSettings,
    endpoint: &'static str,
    own: &[(String, String)],
) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let own_name = concat!("farewall/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(own_name));
    for (header, value) in own {
        let wrong = || BuildError::Header {
            name: Arc::clone(&settings.name),
            endpoint,
            header: header.clone(),
        };
        let key: HeaderName = header.parse().map_err(|_| wrong())?;
        let mut value: HeaderValue = value.parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// One pool to verify with, one to settle with.
fn pools(
    settings: &FacilitatorSettings,
    ca_file: Option<&Path>,
) -> Result<(Pool, Pool), BuildError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| BuildError::CaFile {
            path: path.to_owned(),
            source,
        })
    };
    let tls = |source: Fault| BuildError::Tls {
        name: Arc::clone(&settings.name),
        source,
    };
    let authorities = ca_file.map(read).transpose()?;
    let pool = || client::pool(settings, authorities.as_deref()).map_err(tls);
    Ok((pool()?, pool()?))
}

/// Reads piece by piece, so that a body is never held beyond `bytes_max`.
async fn read_body<B>(mut body: B, bytes_max: usize) -> Result<Vec<u8>, FacilitatorFault>
where
    B: BodyExt<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FacilitatorFault::Broken(causes(&error)))?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if whole.len().saturating_add(piece.len()) > bytes_max {
            return Err(FacilitatorFault::TooLarge(bytes_max));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

/// Only an error *of connecting* proves that nothing was sent; everything else may have arrived.
fn fault_of(error: &legacy::Error) -> FacilitatorFault {
    let text = causes(error);
    if error.is_connect() {
        FacilitatorFault::Connect(text)
    } else {
        FacilitatorFault::Broken(text)
    }
}

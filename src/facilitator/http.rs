//! The facilitator client: one pooled HTTP client with deadlines, bounded answers and bounded concurrency.
//!
//! What an answer means is decided in [`answer`], without a socket. Deliberately absent: redirects
//! and proxies (the authentication headers belong to one host), and any repetition of a settlement
//! other than the one that `settlement_pending` asks for.

pub mod answer;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, Url, redirect};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::causes::causes;
use crate::clock::{Clock, SystemClock};
use crate::config::settings::FacilitatorSettings;
use crate::facilitator::http::answer::{RawAnswer, SettleReading};
use crate::facilitator::supported::Supported;
use crate::facilitator::{
    Facilitator, FacilitatorFault, FacilitatorRequest, Fitness, SettleAnswer, VerifyAnswer,
};

/// `/supported` is asked at most so often, and again only after 429 (spec 5.4).
const SUPPORTED_ATTEMPTS: u32 = 3;
/// The longest pause between two of them.
const SUPPORTED_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Idle connections are dropped after this: longer than a burst, shorter than most servers' patience.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// A facilitator reached over HTTP: a remote service or the local sandbox.
pub struct HttpFacilitator {
    name: Arc<str>,
    client: Client,
    verify: Endpoint,
    settle: Endpoint,
    supported: Endpoint,
    calls: Semaphore,
    answer_bytes_max: usize,
    verify_retries: u32,
}

/// One endpoint: address, headers of its own, and how long a call may take in all.
struct Endpoint {
    path: &'static str,
    url: Url,
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
        source: reqwest::Error,
    },
}

impl HttpFacilitator {
    /// A client for one facilitator. `ca_file` replaces the system's certificate authorities.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: a bad URL, header or certificate file. Nothing is sent.
    pub fn new(settings: &FacilitatorSettings, ca_file: Option<&Path>) -> Result<Self, BuildError> {
        let endpoint = |path, headers: &[(String, String)], deadline| {
            Ok::<_, BuildError>(Endpoint {
                path,
                url: endpoint_url(settings, path)?,
                headers: secret_headers(settings, path, headers)?,
                deadline,
            })
        };
        let own = &settings.headers;
        Ok(Self {
            name: Arc::clone(&settings.name),
            client: build_client(settings, ca_file)?,
            verify: endpoint("/verify", &own.verify, settings.verify_timeout)?,
            settle: endpoint("/settle", &own.settle, settings.settle_timeout)?,
            supported: endpoint("/supported", &own.supported, settings.verify_timeout)?,
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
        let method = if body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut request = self
            .client
            .request(method, endpoint.url.clone())
            .headers(endpoint.headers.clone());
        if let Some(body) = body {
            request = request.body(body.as_bytes().to_vec());
        }
        let response = request.send().await.map_err(fault_of)?;
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
        match read_body(response, self.answer_bytes_max).await {
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

fn endpoint_url(settings: &FacilitatorSettings, path: &str) -> Result<Url, BuildError> {
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
    Ok(url)
}

fn secret_headers(
    settings: &FacilitatorSettings,
    endpoint: &'static str,
    own: &[(String, String)],
) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
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

fn build_client(
    settings: &FacilitatorSettings,
    ca_file: Option<&Path>,
) -> Result<Client, BuildError> {
    let tls = |source| BuildError::Tls {
        name: Arc::clone(&settings.name),
        source,
    };
    let mut builder = Client::builder()
        .user_agent(concat!("farewall/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(settings.calls_max);
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|source| BuildError::CaFile {
            path: path.to_owned(),
            source,
        })?;
        builder = builder.tls_built_in_root_certs(false);
        for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(tls)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(tls)
}

/// Reads chunk by chunk, so that a body is never held beyond `bytes_max`.
async fn read_body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, FacilitatorFault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(fault_of)? {
        if body.len().saturating_add(chunk.len()) > bytes_max {
            return Err(FacilitatorFault::TooLarge(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Only an error *of connecting* proves that nothing was sent; everything else may have arrived.
fn fault_of(error: reqwest::Error) -> FacilitatorFault {
    let connecting = error.is_connect();
    let text = causes(&error.without_url());
    if connecting {
        FacilitatorFault::Connect(text)
    } else {
        FacilitatorFault::Broken(text)
    }
}

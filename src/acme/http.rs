//! How the ACME server is asked: the HTTP client that facilitators are asked with too, so that there is
//! one, with a deadline and a bound on answers. (io)

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::{Body, Client, redirect};

use super::AcmeError;
use crate::causes::causes;

/// For one request and its answer.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// More than a long chain of certificates.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The client. Clones share its connections.
#[derive(Clone, Debug)]
pub(super) struct Http(Client);

impl Http {
    /// `ca_file` replaces the system's certificate authorities.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, AcmeError> {
        let mut builder = Client::builder()
            .https_only(true)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .timeout(REQUEST_MAX);
        let wrong = |path: &Path, cause: String| AcmeError::CaFile {
            path: path.to_owned(),
            cause,
        };
        if let Some(path) = ca_file {
            let pem = std::fs::read(path).map_err(|cause| wrong(path, cause.to_string()))?;
            let bundle = reqwest::Certificate::from_pem_bundle(&pem);
            let bundle = bundle.map_err(|cause| wrong(path, cause.to_string()))?;
            if bundle.is_empty() {
                return Err(wrong(path, "there is no certificate in it".to_owned()));
            }
            builder = builder.tls_built_in_root_certs(false);
            for authority in bundle {
                builder = builder.add_root_certificate(authority);
            }
        }
        let client = builder.build();
        client
            .map(Self)
            .map_err(|cause| AcmeError::Server(causes(&cause)))
    }

    async fn exchange(
        self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, Error> {
        let (head, body) = request.into_parts();
        let request = self.0.request(head.method, head.uri.to_string());
        let request = request.headers(head.headers).body(Body::wrap(body));
        let mut response = request.send().await.map_err(broken)?;
        let mut answer = http::Response::new(());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(Error::Other("the server's answer is too long".into()));
            }
            body.extend_from_slice(&chunk);
        }
        let (parts, ()) = answer.into_parts();
        Ok(BytesResponse {
            parts,
            body: Box::new(Bytes::from(body)),
        })
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().exchange(request))
    }
}

fn broken(error: reqwest::Error) -> Error {
    Error::Other(causes(&error).into())
}

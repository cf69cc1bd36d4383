//! JSON-RPC over HTTP: one call a request, with a deadline and a bounded answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Url, redirect};
use serde_json::{Value, json};
use thiserror::Error;

use super::RpcFault;
use crate::causes::causes;
use crate::config::settings::NetworkSettings;

/// Bytes of one answer: a block of hashes or a receipt of a large batch fits many times.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Characters of a node's error message that are kept for the log.
const MESSAGE_CHARS_MAX: usize = 200;

/// Why a client cannot be built. The URL is a secret and not shown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Not a URL.
    #[error("network {0}: rpc_url is not a URL")]
    Url(String),
    /// `ca_file` cannot be read.
    #[error("ca_file {}: {source}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `ca_file` holds no PEM certificates, or the TLS set-up failed.
    #[error("network {network}: TLS cannot be set up: {source}")]
    Tls {
        /// The network.
        network: String,
        /// What the client said.
        source: reqwest::Error,
    },
}

pub(super) struct RpcClient {
    url: Url,
    client: Client,
    timeout: Duration,
}

impl RpcClient {
    pub(super) fn new(
        settings: &NetworkSettings,
        ca_file: Option<&Path>,
    ) -> Result<Self, BuildError> {
        let network = settings.network.to_string();
        let url = Url::parse(&settings.rpc_url).map_err(|_| BuildError::Url(network.clone()))?;
        let tls = |source| BuildError::Tls {
            network: network.clone(),
            source,
        };
        let mut builder = Client::builder()
            .user_agent(concat!("farewall/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy();
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
        Ok(Self {
            url,
            client: builder.build().map_err(tls)?,
            timeout: settings.rpc_timeout,
        })
    }

    /// The `result` of one call; `null` is a result.
    pub(super) async fn call(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<Value, RpcFault> {
        let exchange = self.exchange(method, params);
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(RpcFault::Timeout(
                u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            )),
        }
    }

    async fn exchange(&self, method: &'static str, params: Value) -> Result<Value, RpcFault> {
        let broken = |error: reqwest::Error| RpcFault::Broken(causes(&error.without_url()));
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let sending = self.client.post(self.url.clone()).json(&call).send();
        let mut response = sending.await.map_err(broken)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(RpcFault::TooLarge(ANSWER_BYTES_MAX));
            }
            body.extend_from_slice(&chunk);
        }
        read(method, status, &body)
    }
}

/// Some nodes answer errors of the protocol with a status of their own, so the body counts first.
fn read(method: &'static str, status: u16, body: &[u8]) -> Result<Value, RpcFault> {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(body) else {
        return Err(match status {
            200 => RpcFault::Junk(method),
            status => RpcFault::Status(status),
        });
    };
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        let text = error.get("message").and_then(Value::as_str).unwrap_or("");
        return Err(RpcFault::Refused {
            method,
            code: error.get("code").and_then(Value::as_i64).unwrap_or(0),
            message: text.chars().take(MESSAGE_CHARS_MAX).collect(),
        });
    }
    match answer.remove("result") {
        Some(result) if status == 200 && answer.get("id") == Some(&json!(1)) => Ok(result),
        Some(_) | None if status != 200 => Err(RpcFault::Status(status)),
        Some(_) | None => Err(RpcFault::Junk(method)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, want: Result<Value, &str>) {
        let got = read("eth_call", status, body.as_bytes()).map_err(|fault| fault.to_string());
        assert_eq!(got, want.map_err(str::to_owned), "{status} {body}");
    }

    #[test]
    fn only_a_result_to_our_call_with_status_200_is_an_answer() {
        check(
            200,
            r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#,
            Ok(json!("0x1")),
        );
        check(200, r#"{"id":1,"result":null}"#, Ok(Value::Null));
        check(
            200,
            r#"{"id":1,"result":"0x1","error":null}"#,
            Ok(json!("0x1")),
        );
        check(
            200,
            r#"{"id":2,"result":"0x1"}"#,
            Err("unusable answer to eth_call"),
        );
        check(200, r#"{"id":1}"#, Err("unusable answer to eth_call"));
        check(200, "<html>", Err("unusable answer to eth_call"));
        check(200, "[]", Err("unusable answer to eth_call"));
        check(503, "busy", Err("HTTP status 503"));
        check(500, r#"{"id":1,"result":"0x1"}"#, Err("HTTP status 500"));
        let refused = r#"{"id":1,"error":{"code":-32005,"message":"too many blocks"}}"#;
        let want = "the node refused eth_call: too many blocks (-32005)";
        check(200, refused, Err(want));
        check(400, refused, Err(want));
    }
}

//! An ordinary client, and answers that are easy to ask.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, redirect};
use serde_json::Value;

use super::{RawResponse, Wall, decode};

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The decoded challenge.
    #[track_caller]
    pub fn challenge(&self) -> Value {
        decode(self.header("payment-required").expect("a challenge"))
    }

    /// Why the proof was refused, as the challenge says.
    #[track_caller]
    pub fn reason(&self) -> String {
        self.challenge()["error"].as_str().unwrap().to_owned()
    }

    /// The decoded receipt.
    #[track_caller]
    pub fn receipt(&self) -> Value {
        decode(self.header("payment-response").expect("a receipt"))
    }

    /// The code in an error's body.
    #[track_caller]
    pub fn error(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["error"].as_str().unwrap().to_owned()
    }
}

impl From<RawResponse> for Answer {
    fn from(raw: RawResponse) -> Self {
        let fields = raw
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        let headers = fields
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value.trim()).unwrap())
            })
            .collect();
        Self {
            status: raw.status,
            headers,
            body: String::from_utf8_lossy(&raw.body).into_owned(),
        }
    }
}

pub fn client() -> Client {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

/// Sends it and reads the answer to its end.
pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer {
        status,
        headers,
        body: response.text().await.unwrap(),
    }
}

impl Wall {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        client().request(method, self.url(path))
    }

    /// GET without a payment.
    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// GET with a proof.
    pub async fn pay(&self, path: &str, proof: &str) -> Answer {
        send(
            self.request(Method::GET, path)
                .header("PAYMENT-SIGNATURE", proof),
        )
        .await
    }
}

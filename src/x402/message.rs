//! The messages of x402 as they go over the wire, in the member order of the official SDK.
//!
//! Written compactly by `serde_json`; read leniently: unknown members are ignored, `null` is absent.
//! Rule: x402 v2 core, sections 2.1 to 2.5 of the fact sheet; v1 members in section 1.6.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The challenge of version 2: the content of `PAYMENT-REQUIRED`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// Always 2.
    pub x402_version: u8,
    /// `Payment required`, or the reason code of a refused proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is sold.
    pub resource: ResourceInfo,
    /// The ways of paying; at least one.
    pub accepts: Vec<PaymentRequirements>,
    /// Extensions by key; left out when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

/// What is sold, for people and catalogues. Signed by nobody: nothing is authorised from it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceInfo {
    /// Absolute URL under the configured public origin.
    pub url: String,
    /// At most 500 characters, or facilitators refuse it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub description: String,
    /// Media type of the answer; may be empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub mime_type: String,
    /// 1 to 32 printable ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
}

/// One way of paying, version 2.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    /// `exact`, or another scheme.
    pub scheme: String,
    /// CAIP-2.
    pub network: String,
    /// Decimal integer, in the token's smallest unit.
    pub amount: String,
    /// Token contract, mint or asset id.
    pub asset: String,
    /// Recipient.
    pub pay_to: String,
    /// From which buyers derive how long their authorization is valid.
    pub max_timeout_seconds: u64,
    /// Scheme data: EIP-712 domain, `assetTransferMethod`, `feePayer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// The challenge of version 1: the JSON body of a 402.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequiredV1 {
    /// Always 1.
    pub x402_version: u8,
    /// Always a string: legacy Python insists.
    pub error: String,
    /// The ways of paying that legacy clients can parse.
    pub accepts: Vec<PaymentRequirementsV1>,
}

/// One way of paying, version 1.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirementsV1 {
    /// Only `exact` parses in legacy clients.
    pub scheme: String,
    /// Name of version 1, such as `base-sepolia`.
    pub network: String,
    /// Decimal integer, in the token's smallest unit.
    pub max_amount_required: String,
    /// Absolute URL.
    pub resource: String,
    /// Required, may be empty.
    pub description: String,
    /// Required, may be empty.
    pub mime_type: String,
    /// Recipient.
    pub pay_to: String,
    /// How long an authorization should be valid.
    pub max_timeout_seconds: u64,
    /// Token contract.
    pub asset: String,
    /// EIP-712 domain; left out rather than null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// The proof of version 2, decoded: the content of `PAYMENT-SIGNATURE`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// Always 2.
    pub x402_version: u8,
    /// Scheme-specific.
    pub payload: Map<String, Value>,
    /// What the client echoes of the challenge's extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
    /// What the client believes to buy. Signed by nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Value>,
    /// The requirement that the client chose, as JSON, because matching compares JSON.
    pub accepted: Value,
}

/// The proof of version 1, decoded: the content of `X-PAYMENT`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayloadV1 {
    /// Always 1.
    pub x402_version: u8,
    /// Scheme of the chosen way of paying.
    pub scheme: String,
    /// Its network, by name.
    pub network: String,
    /// Scheme-specific.
    pub payload: Map<String, Value>,
}

/// The receipt (`SettleResponse` of the specification): answer of `/settle`, content of `PAYMENT-RESPONSE`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettlementResponse {
    /// Whether the money moved. HTTP 200 with `false` here is a refusal.
    pub success: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// Never forwarded to clients: it may hold internal text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Who paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    /// Transaction hash; `""` on failure.
    pub transaction: String,
    /// CAIP-2, or the name of version 1 towards a client of version 1.
    pub network: String,
    /// What was charged, where it may differ from the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// Extensions by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
    /// Scheme data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// The answer of `/verify`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResponse {
    /// The verdict.
    pub is_valid: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_reason: Option<String>,
    /// For people; never forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_message: Option<String>,
    /// Who pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

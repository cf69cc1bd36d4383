//! What the answers of a facilitator mean: bytes in, typed answers out, no socket.
//!
//! The rules are those of spec 5.2, 5.4 and 5.5. Where an answer is contradictory the reading is the
//! one that cannot lose money: no verdict for `/verify`, unknown for `/settle`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, RETRY_AFTER};
use serde_json::{Map, Value};
use time::PrimitiveDateTime;
use time::macros::format_description;

use crate::clock::UnixSeconds;
use crate::facilitator::supported::Supported;
use crate::facilitator::{FacilitatorFault, FacilitatorRequest, SettleAnswer, VerifyAnswer};
use crate::x402::message::SettlementResponse;
use crate::x402::reason::ReasonCode;

/// `Retry-After` is believed up to a day.
const RETRY_AFTER_MAX_S: u64 = 86_400;
/// Longest text member of a receipt: it becomes part of a response header.
const TEXT_CHARS_MAX: usize = 512;
/// Longest `extensions` and `extra` of a receipt, as JSON; longer ones are left out.
const OBJECT_BYTES_MAX: usize = 4096;
/// Longest `EXTENSION-RESPONSES` that is looked at.
const NOTES_BYTES_MAX: usize = 8192;

/// A complete HTTP answer.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// Its status.
    pub status: u16,
    /// Its `Retry-After` in seconds from now.
    pub retry_after_s: Option<u64>,
    /// Its body, within the limit.
    pub body: Vec<u8>,
}

/// What an answer of `/settle` says.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is made per settlement, and read at once"
)]
pub enum SettleReading {
    /// All that will ever be said.
    Definite(SettleAnswer),
    /// `settlement_pending`; `sent` when it names the transaction, which allows one repetition.
    Pending {
        /// Whether `transaction` is not empty.
        sent: bool,
    },
}

impl RawAnswer {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn is_server_error(&self) -> bool {
        self.status >= 500
    }

    fn status_fault(&self) -> FacilitatorFault {
        FacilitatorFault::Status {
            status: self.status,
            retry_after_s: self.retry_after_s,
        }
    }

    fn object(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The fault of an answer without the member that carries the verdict.
    fn no_verdict(&self, what: &str) -> FacilitatorFault {
        if self.is_success() {
            FacilitatorFault::Junk(what.to_owned())
        } else {
            self.status_fault()
        }
    }
}

/// Reads an answer of `/verify`. A positive verdict counts only with a 2xx status.
#[must_use]
pub fn read_verify(raw: &RawAnswer) -> VerifyAnswer {
    let Some(object) = raw.object() else {
        return VerifyAnswer::Unavailable(raw.no_verdict("the body is not a JSON object"));
    };
    match object.get("isValid").and_then(Value::as_bool) {
        Some(true) if raw.is_success() => VerifyAnswer::Valid {
            payer: text(&object, "payer"),
        },
        Some(true) => VerifyAnswer::Unavailable(raw.status_fault()),
        Some(false) => VerifyAnswer::Invalid {
            reason: ReasonCode::foreign(
                object
                    .get("invalidReason")
                    .and_then(Value::as_str)
                    .unwrap_or(""),
            ),
        },
        None => VerifyAnswer::Unavailable(raw.no_verdict("isValid is not a boolean")),
    }
}

/// Reads an answer of `/settle` to `request`.
///
/// `success: true` without a transaction, where the money moves on a chain, is not a success
/// (spec 2.5 and 9.3); it is not a refusal either.
#[must_use]
pub fn read_settle(raw: &RawAnswer, request: &FacilitatorRequest) -> SettleReading {
    let unknown = |fault| SettleReading::Definite(SettleAnswer::Unknown(fault));
    let Some(object) = raw.object() else {
        return unknown(raw.no_verdict("the body is not a JSON object"));
    };
    match object.get("success").and_then(Value::as_bool) {
        Some(true) if raw.is_success() => match settled(&object, request) {
            Ok(receipt) => SettleReading::Definite(SettleAnswer::Settled(receipt)),
            Err(what) => unknown(FacilitatorFault::Junk(what.to_owned())),
        },
        Some(true) => unknown(raw.status_fault()),
        // It failed at its work, perhaps after the transaction went out: no definite no.
        Some(false) if raw.is_server_error() => unknown(raw.status_fault()),
        Some(false) => refused(&object, request),
        None => unknown(raw.no_verdict("success is not a boolean")),
    }
}

/// Reads an answer of `/supported`. A kind of a shape that we do not know is left out, not fatal.
///
/// # Errors
///
/// [`FacilitatorFault::Status`] for anything but 2xx, [`FacilitatorFault::Junk`] for another shape.
pub fn read_supported(raw: &RawAnswer) -> Result<Supported, FacilitatorFault> {
    if !raw.is_success() {
        return Err(raw.status_fault());
    }
    let junk = |what: &str| FacilitatorFault::Junk(what.to_owned());
    let mut object = raw
        .object()
        .ok_or_else(|| junk("the body is not a JSON object"))?;
    let Some(Value::Array(kinds)) = object.remove("kinds") else {
        return Err(junk("kinds is not an array"));
    };
    let readable = |kind| serde_json::from_value(kind).ok();
    Ok(Supported {
        kinds: kinds.into_iter().filter_map(readable).collect(),
        extensions: object
            .remove("extensions")
            .and_then(|names| serde_json::from_value(names).ok())
            .unwrap_or_default(),
        signers: match object.remove("signers") {
            Some(Value::Object(signers)) => signers,
            Some(_) | None => Map::new(),
        },
    })
}

/// `Retry-After` in seconds from `now`: a number or an HTTP date, at most a day.
#[must_use]
pub fn retry_after_s(headers: &HeaderMap, now: UnixSeconds) -> Option<u64> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match value.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => http_date(value)?.since(now),
    };
    Some(seconds.min(RETRY_AFTER_MAX_S))
}

/// The members of `EXTENSION-RESPONSES` that may be logged (spec 5.6): extension, member, value.
#[must_use]
pub fn extension_notes(headers: &HeaderMap) -> Vec<(String, &'static str, String)> {
    let decoded = headers
        .get("extension-responses")
        .filter(|value| value.len() <= NOTES_BYTES_MAX)
        .and_then(|value| STANDARD.decode(value.as_bytes()).ok())
        .and_then(|json| serde_json::from_slice::<Map<String, Value>>(&json).ok())
        .unwrap_or_default();
    let mut notes = Vec::new();
    for (extension, members) in decoded.iter().take(16) {
        for name in ["status", "rejectedReason", "reason", "code"] {
            if let Some(value) = members.get(name).and_then(Value::as_str) {
                notes.push((extension.clone(), name, value.chars().take(200).collect()));
            }
        }
    }
    notes
}

fn http_date(text: &str) -> Option<UnixSeconds> {
    let imf_fixdate = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = PrimitiveDateTime::parse(text, imf_fixdate).ok()?;
    u64::try_from(date.assume_utc().unix_timestamp())
        .ok()
        .map(UnixSeconds)
}

fn settled(
    object: &Map<String, Value>,
    request: &FacilitatorRequest,
) -> Result<SettlementResponse, &'static str> {
    let transaction = object
        .get("transaction")
        .and_then(Value::as_str)
        .ok_or("success without a transaction member")?;
    if transaction.is_empty() && moves_on_chain(request) {
        return Err("success with an empty transaction");
    }
    if !transaction.is_empty() && !is_short_text(transaction) {
        return Err("the transaction is not a short ASCII text");
    }
    Ok(receipt(object, transaction.to_owned(), request))
}

fn refused(object: &Map<String, Value>, request: &FacilitatorRequest) -> SettleReading {
    let transaction = text(object, "transaction").unwrap_or_default();
    let reason = object.get("errorReason").and_then(Value::as_str);
    if reason == Some("settlement_pending") {
        return SettleReading::Pending {
            sent: !transaction.is_empty(),
        };
    }
    let mut receipt = receipt(object, transaction, request);
    let code = ReasonCode::foreign(reason.unwrap_or(""));
    receipt.error_reason = Some(code.as_str().to_owned());
    SettleReading::Definite(SettleAnswer::Refused(receipt))
}

/// The receipt that may go to the client: no `errorMessage`, every member bounded. An absent network
/// is that of our requirement (some facilitators leave it empty, spec 5.2).
fn receipt(
    object: &Map<String, Value>,
    transaction: String,
    request: &FacilitatorRequest,
) -> SettlementResponse {
    let network = text(object, "network")
        .filter(|network| !network.is_empty())
        .or_else(|| text(&requirement(request), "network"));
    SettlementResponse {
        success: object.get("success") == Some(&Value::Bool(true)),
        error_reason: None,
        error_message: None,
        payer: text(object, "payer").filter(|payer| !payer.is_empty()),
        transaction,
        network: network.unwrap_or_default(),
        amount: text(object, "amount"),
        extensions: small_object(object, "extensions"),
        extra: small_object(object, "extra"),
    }
}

/// Whether a success must name its transaction: `exact` on an EVM network for more than nothing.
/// What cannot be read counts as yes.
fn moves_on_chain(request: &FacilitatorRequest) -> bool {
    let requirement = requirement(request);
    let member = |name| requirement.get(name).and_then(Value::as_str);
    let is_exact = member("scheme").is_none_or(|scheme| scheme == "exact");
    // Names of version 1 hold no colon; all but Solana's are EVM networks (spec 4.3).
    let is_evm = member("network").is_none_or(|network| {
        network.starts_with("eip155:") || (!network.contains(':') && !network.starts_with("solana"))
    });
    let is_zero = member("amount")
        .or_else(|| member("maxAmountRequired"))
        .is_some_and(|amount| !amount.is_empty() && amount.bytes().all(|digit| digit == b'0'));
    is_exact && is_evm && !is_zero
}

fn requirement(request: &FacilitatorRequest) -> Map<String, Value> {
    let mut body: Map<String, Value> = serde_json::from_str(&request.body).unwrap_or_default();
    match body.remove("paymentRequirements") {
        Some(Value::Object(requirement)) => requirement,
        Some(_) | None => Map::new(),
    }
}

fn text(object: &Map<String, Value>, name: &str) -> Option<String> {
    let value = object.get(name)?.as_str()?;
    is_short_text(value).then(|| value.to_owned())
}

fn is_short_text(text: &str) -> bool {
    text.len() <= TEXT_CHARS_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

fn small_object(object: &Map<String, Value>, name: &str) -> Option<Map<String, Value>> {
    let value = object.get(name)?.as_object()?;
    let size = serde_json::to_string(value).map_or(usize::MAX, |json| json.len());
    (size <= OBJECT_BYTES_MAX).then(|| value.clone())
}

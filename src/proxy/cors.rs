//! What browsers may do: preflights are answered here, and the payment headers are made readable.

use http::Method;
use http::header::ORIGIN;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::config::settings::CorsSettings;

/// Headers of the wall that a script may read.
const EXPOSED: &str =
    "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, Idempotency-Replayed, X-Request-Id";

/// Headers of the wall that a script may send. The last one is no mistake: the official fetch client
/// puts it on the paid request (spec section 1.4).
const ALLOWED: &str = "PAYMENT-SIGNATURE, X-PAYMENT, SIGN-IN-WITH-X, Access-Control-Expose-Headers";

/// Whether this looks like a true preflight: `OPTIONS` with `Origin` and
/// `Access-Control-Request-Method`. Anything less is an ordinary request, which may cost something;
/// so is one with a body, which the caller looks for.
pub(super) fn is_preflight(method: &Method, request: &RequestHeader) -> bool {
    *method == Method::OPTIONS
        && request.headers.contains_key(ORIGIN)
        && request
            .headers
            .contains_key("access-control-request-method")
}

/// The value for `Access-Control-Allow-Origin`, when the request is cross-origin and allowed.
pub(super) fn allowed_origin(settings: &CorsSettings, request: &RequestHeader) -> Option<String> {
    let origin = request.headers.get(ORIGIN)?.to_str().ok()?;
    if settings.allow_origins.iter().any(|o| o == "*") {
        return Some("*".to_owned());
    }
    settings
        .allow_origins
        .iter()
        .find(|o| o.eq_ignore_ascii_case(origin))
        .cloned()
}

/// The answer to a preflight.
pub(super) fn preflight(
    settings: &CorsSettings,
    request: &RequestHeader,
    allow_origin: &str,
) -> Result<ResponseHeader> {
    let ask = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok());
    let mut response = ResponseHeader::build(204, Some(8))?;
    response.insert_header("Access-Control-Allow-Origin", allow_origin)?;
    let method = ask("access-control-request-method").unwrap_or("GET");
    response.insert_header("Access-Control-Allow-Methods", method)?;
    let any = settings.allow_headers.iter().any(|h| h == "*");
    let more = if any {
        ask("access-control-request-headers")
            .unwrap_or_default()
            .to_owned()
    } else {
        settings.allow_headers.join(", ")
    };
    let headers = if more.is_empty() {
        ALLOWED.to_owned()
    } else {
        format!("{ALLOWED}, {more}")
    };
    response.insert_header("Access-Control-Allow-Headers", headers)?;
    response.insert_header(
        "Access-Control-Max-Age",
        settings.max_age.as_secs().to_string(),
    )?;
    response.insert_header("Vary", VARY_PREFLIGHT)?;
    response.insert_header("Cache-Control", "no-store")?;
    Ok(response)
}

const VARY_PREFLIGHT: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// Makes an answer readable to the script that asked. An upstream's own decision stands.
pub(super) fn expose(response: &mut ResponseHeader, allow_origin: Option<&str>) -> Result<()> {
    let Some(allow_origin) = allow_origin else {
        return Ok(());
    };
    if !response.headers.contains_key("access-control-allow-origin") {
        response.insert_header("Access-Control-Allow-Origin", allow_origin)?;
        if allow_origin != "*" {
            response.append_header("Vary", "Origin")?;
        }
    }
    response.append_header("Access-Control-Expose-Headers", EXPOSED)?;
    Ok(())
}

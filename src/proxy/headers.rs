//! Which headers pass, in either direction. The wall's own names never do.
//!
//! Names are compared with `_` read as `-`: CGI and WSGI origins cannot tell the two apart.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::{CONNECTION, FORWARDED};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr, Result};

use crate::config::settings::IpRange;
use crate::gate::Paid;
use crate::proof::ProofHeaders;

/// Headers that ask an origin to take the request for another one. Never forwarded.
fn is_override(name: &str) -> bool {
    matches!(
        name,
        "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "x-original-url"
            | "x-original-uri"
            | "x-original-method"
            | "x-original-path"
            | "x-rewrite-url"
            | "x-rewrite-uri"
            | "x-replaced-path"
            | "x-envoy-original-path"
            | "x-script-name"
            | "x-forwarded-method"
    )
}

/// Forwarding headers that only a trusted proxy may set.
fn is_forwarding(name: &str) -> bool {
    matches!(
        name,
        "forwarded"
            | "x-forwarded-for"
            | "x-forwarded-proto"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-prefix"
            | "x-forwarded-uri"
            | "x-forwarded-url"
            | "x-forwarded-path"
            | "x-forwarded-context"
            | "x-forwarded-server"
            | "x-real-ip"
    )
}

/// Headers that make a response depend on what the client has already: not on priced rules.
fn is_conditional(name: &str) -> bool {
    matches!(
        name,
        "if-match"
            | "if-none-match"
            | "if-modified-since"
            | "if-unmodified-since"
            | "if-range"
            | "range"
    )
}

/// Hop-by-hop headers of responses that are not framing.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "keep-alive" | "proxy-connection" | "proxy-authenticate" | "upgrade" | "trailer"
    )
}

/// Whether only the wall may set a header of this name.
fn is_ours(name: &str) -> bool {
    name.starts_with("x-farewall-")
        || name.starts_with("farewall-")
        || name.starts_with("payment-")
        || name == "x-payment"
        || name.starts_with("x-payment-")
        || matches!(
            name,
            "sign-in-with-x" | "settlement-overrides" | "extension-responses"
        )
}

/// The payment headers and the idempotency key as they are looked up, parsed once.
static PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
static X_PAYMENT: HeaderName = HeaderName::from_static("x-payment");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What an upstream is told, parsed once.
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// So many headers are set on most requests.
const ADDED: usize = 6;

/// Takes the request apart, with room for what the wall adds. What is put together again has lost the
/// client's spelling of header names: pingora keeps that in a second map, where each header costs as
/// much again. HTTP/2 has no spelling, so that no origin can rely on one.
///
/// Rule: RFC 9110, section 5.1: field names are case-insensitive.
pub(super) fn take_apart(request: &mut RequestHeader) -> Parts {
    let (empty, ()) = http::Request::new(()).into_parts();
    let mut parts = Parts::from(std::mem::replace(request, RequestHeader::from(empty)));
    parts.headers.reserve(ADDED);
    parts
}

/// The payment that comes with a request.
pub(super) fn proof(request: &RequestHeader) -> ProofHeaders<'_> {
    let values = |name: &HeaderName| {
        let values = request.headers.get_all(name).iter();
        values.map(HeaderValue::as_bytes).collect()
    };
    ProofHeaders {
        payment_signature: values(&PAYMENT_SIGNATURE),
        x_payment: values(&X_PAYMENT),
    }
}

/// What only this client knows of its request.
pub(super) fn idempotency_key(request: &RequestHeader) -> Option<&[u8]> {
    let value = request.headers.get(&IDEMPOTENCY_KEY);
    value.map(HeaderValue::as_bytes)
}

/// Whether the first letter is that of a name that is taken out of requests or responses. Most names have
/// another, and need not be looked at any further.
fn may_be_unwanted(name: &HeaderName) -> bool {
    matches!(
        name.as_str().as_bytes().first(),
        Some(b'e' | b'f' | b'i' | b'k' | b'p' | b'r' | b's' | b't' | b'u' | b'x')
    )
}

/// The name with a dash for all that is neither letter nor digit. CGI and its heirs do not tell `_` from
/// `-`, and PHP turns `.` into `_`.
fn dashed(name: &HeaderName) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
    if name.as_str().bytes().all(|b| b == b'-' || is_plain(b)) {
        return name.as_str().into();
    }
    let dashed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.as_str().chars().map(dashed).collect::<String>().into()
}

/// Whether a header has a name that an origin may take for one which the wall, or the proxy that asks
/// it, sets or takes out: `X_HTTP_Method_Override`, `X.Farewall.Payer`.
pub(super) fn has_disguise(request: &RequestHeader) -> bool {
    request.headers.keys().any(|name| {
        let dashed = dashed(name);
        dashed != name.as_str()
            && (is_ours(&dashed) || is_override(&dashed) || is_forwarding(&dashed))
    })
}

/// Takes out of a request what must not reach an upstream.
pub(super) fn strip_request(
    headers: &mut HeaderMap,
    from_trusted_proxy: bool,
    keep_conditional: bool,
) {
    let known = |name: &HeaderName| {
        let name = dashed(name);
        let name = name.as_ref();
        is_ours(name)
            || is_override(name)
            || (!from_trusted_proxy && is_forwarding(name))
            || (!keep_conditional && is_conditional(name))
            // Answered or settled here; an origin that sees it would answer a second time.
            || name == "proxy-authorization"
    };
    remove(headers, |name| may_be_unwanted(name) && known(name));
}

/// Takes out all headers with such a name.
fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|n| unwanted(n)).cloned().collect();
    for name in names {
        headers.remove(&name);
    }
}

/// Takes out of a response what must not reach a client.
pub(super) fn strip_response(response: &mut ResponseHeader) {
    let nominated: Vec<String> = response
        .headers
        .get_all(CONNECTION)
        .iter()
        // Most say no more than this.
        .filter(|value| *value != "keep-alive")
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| {
            let framing = ["close", "keep-alive", "transfer-encoding"];
            !framing.iter().any(|n| n.eq_ignore_ascii_case(name))
        })
        .map(str::to_ascii_lowercase)
        .collect();
    let unwanted = |name: &HeaderName| {
        let known = || {
            let dashed = dashed(name);
            is_ours(&dashed) || is_hop_by_hop(&dashed)
        };
        (may_be_unwanted(name) && known()) || nominated.iter().any(|n| n == name.as_str())
    };
    let names: Vec<HeaderName> = response
        .headers
        .keys()
        .filter(|n| unwanted(n))
        .cloned()
        .collect();
    for name in names {
        response.remove_header(&name);
    }
}

/// The same for trailers, which may carry nothing of the wall's either.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |name| is_ours(&dashed(name)));
}

/// Who the client is, as far as that can be believed.
pub(super) struct ClientIdentity {
    /// Address of the connection.
    pub(super) peer: Option<IpAddr>,
    /// Whether that is a trusted proxy.
    pub(super) trusted: bool,
    /// `http` or `https`, of the connection.
    pub(super) scheme: &'static str,
}

impl ClientIdentity {
    pub(super) fn new(peer: Option<SocketAddr>, tls: bool, trusted: &[IpRange]) -> Self {
        let peer = peer.map(|p| p.ip().to_canonical());
        let trusted = peer.is_some_and(|ip| trusted.iter().any(|range| range.contains(ip)));
        Self {
            peer,
            trusted,
            scheme: if tls { "https" } else { "http" },
        }
    }
}

/// The nearest address that is not a trusted proxy's: the peer, or behind trusted proxies the last
/// untrusted one in `X-Forwarded-For`. What a client wrote there itself stands further left.
pub(super) fn address_of(
    request: &RequestHeader,
    client: &ClientIdentity,
    trusted: &[IpRange],
) -> Option<IpAddr> {
    let mut nearest = client.peer;
    if !client.trusted {
        return nearest;
    }
    let values: Vec<_> = request.headers.get_all("x-forwarded-for").iter().collect();
    let texts = values
        .iter()
        .rev()
        .map(|value| value.to_str().unwrap_or(""));
    for element in texts.flat_map(|text| text.rsplit(',')) {
        let element = element.trim();
        let with_port = || element.parse::<SocketAddr>().ok().map(|a| a.ip());
        let bare = element.trim_start_matches('[').trim_end_matches(']');
        let Some(ip) = bare.parse::<IpAddr>().ok().or_else(with_port) else {
            break;
        };
        nearest = Some(ip.to_canonical());
        if !trusted.iter().any(|range| range.contains(ip)) {
            break;
        }
    }
    nearest
}

/// Writes `X-Forwarded-*` and `Forwarded`: appended after a trusted proxy's, otherwise afresh.
pub(super) fn set_forwarding(
    headers: &mut HeaderMap,
    client: &ClientIdentity,
    authority: &str,
) -> Result<()> {
    let Some(peer) = client.peer else {
        return Ok(());
    };
    let ip = text_of(peer);
    let (open, close) = match peer {
        IpAddr::V4(_) => ("for=", ";host=\""),
        IpAddr::V6(_) => ("for=\"[", "]\";host=\""),
    };
    let element = [open, &ip, close, authority, "\";proto=", client.scheme].concat();
    for (name, own) in [(&FORWARDED, element), (&X_FORWARDED_FOR, ip)] {
        let value = match client.trusted {
            true => value(&behind_earlier(headers, name, &own))?,
            false => value(&own)?,
        };
        headers.insert(name, value);
    }
    for (name, own) in [
        (&X_FORWARDED_PROTO, client.scheme),
        (&X_FORWARDED_HOST, authority),
    ] {
        if !(client.trusted && headers.contains_key(name)) {
            headers.insert(name, value(own)?);
        }
    }
    Ok(())
}

/// The elements of a list that are there, and this one.
fn behind_earlier(headers: &HeaderMap, name: &HeaderName, own: &str) -> String {
    let earlier = headers.get_all(name).iter();
    let mut all: Vec<&str> = earlier.filter_map(|value| value.to_str().ok()).collect();
    all.push(own);
    all.join(", ")
}

/// A header value.
pub(super) fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).or_err(ErrorType::InvalidHTTPHeader, "header value")
}

/// The address as text: that of IPv4 without the detours of formatting.
fn text_of(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip else {
        return ip.to_string();
    };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (nth, octet) in ip.octets().into_iter().enumerate() {
        if nth > 0 {
            text.push('.');
        }
        for (least, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
            if octet >= least {
                text.push(char::from(b'0'.saturating_add(digit)));
            }
        }
    }
    text
}

/// Tells the upstream who paid, how much and for what.
pub(super) fn set_payment(headers: &mut HeaderMap, paid: &Paid) -> Result<()> {
    for (name, text) in payment(paid) {
        let name = HeaderName::from_bytes(name.as_bytes());
        headers.insert(
            name.or_err(ErrorType::InternalError, "header name")?,
            value(&text)?,
        );
    }
    Ok(())
}

/// Who paid, how much and for what, as an upstream is told.
pub(super) fn payment(paid: &Paid) -> [(&'static str, String); 6] {
    let offer = paid.offer();
    [
        ("X-Farewall-Payer", paid.payer().as_str().to_owned()),
        ("X-Farewall-Amount", offer.amount.to_string()),
        ("X-Farewall-Asset", offer.asset.as_str().to_owned()),
        ("X-Farewall-Network", offer.network.as_str().to_owned()),
        ("X-Farewall-Payment-Id", paid.payment().to_string()),
        ("X-Farewall-Rule", paid.purchase().route.rule.to_string()),
    ]
}

/// Makes a paid response private: `public` and `s-maxage` go, `private` comes (spec section 1.4).
pub(super) fn make_private(response: &mut ResponseHeader) -> Result<()> {
    let mut directives: Vec<String> = response
        .headers
        .get_all("cache-control")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_owned())
        .filter(|directive| {
            let name = directive
                .split('=')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase();
            !matches!(name.as_str(), "" | "public" | "s-maxage" | "private")
        })
        .collect();
    directives.push("private".to_owned());
    response.insert_header("Cache-Control", directives.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_everywhere() {
        for octet in 0..=255 {
            let ip = IpAddr::from([octet, 255 - octet, 0, octet]);
            assert_eq!(text_of(ip), ip.to_string());
        }
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(text_of(ip), "2001:db8::1");
    }

    #[test]
    fn what_is_taken_apart_keeps_all_but_the_spelling_of_names() {
        let mut request = RequestHeader::build("POST", b"/a?b=c", None).unwrap();
        request.append_header("X-ONE", "1").unwrap();
        request.append_header("x-one", "2").unwrap();
        request.append_header("HOST", "a.example").unwrap();
        let parts = take_apart(&mut request);
        let again = RequestHeader::from(parts);
        assert_eq!(
            (again.method.as_str(), again.raw_path()),
            ("POST", &b"/a?b=c"[..])
        );
        let mut wire = Vec::new();
        again.header_to_h1_wire(&mut wire);
        let wire = String::from_utf8(wire).unwrap();
        assert_eq!(wire, "x-one: 1\r\nx-one: 2\r\nHost: a.example\r\n");
    }

    #[track_caller]
    fn check_request(name: &'static str, trusted: bool, conditional: bool, passes: bool) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let mut headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("x"))]);
        strip_request(&mut headers, trusted, conditional);
        assert_eq!(headers.contains_key(&name), passes, "{name}");
    }

    #[test]
    fn the_walls_names_never_pass_in_any_spelling() {
        for name in [
            "X-Farewall-Payer",
            "x_farewall_payer",
            "x.farewall.payer",
            "X-Farewall_Payment-Id",
            "PAYMENT-SIGNATURE",
            "payment_signature",
            "Payment-Required",
            "X-PAYMENT",
            "x_payment",
            "X-Payment-Response",
            "SIGN-IN-WITH-X",
            "Settlement-Overrides",
            "X-HTTP-Method-Override",
            "x_http_method_override",
            "X-Original-URL",
            "X-Rewrite-Url",
        ] {
            check_request(name, true, true, false);
        }
        check_request("X-Payload", false, false, true);
        check_request("Authorization", false, false, true);
    }

    #[test]
    fn a_response_loses_the_walls_names_and_those_of_the_connection() {
        for (name, passes) in [
            ("X-Farewall-Payer", false),
            ("payment_response", false),
            ("PAYMENT-REQUIRED", false),
            ("X-Payment-Response", false),
            ("Sign-In-With-X", false),
            ("Settlement_Overrides", false),
            ("Extension-Responses", false),
            ("Keep-Alive", false),
            ("Proxy_Connection", false),
            ("Proxy-Authenticate", false),
            ("Upgrade", false),
            ("Trailer", false),
            ("Nominated", false),
            ("X-Payload", true),
            ("ETag", true),
            ("Set-Cookie", true),
        ] {
            let mut response = ResponseHeader::build(200, None).unwrap();
            response.insert_header(name, "x").unwrap();
            response
                .insert_header("Connection", "Close, nominated")
                .unwrap();
            strip_response(&mut response);
            assert_eq!(response.headers.contains_key(name), passes, "{name}");
        }
    }

    #[test]
    fn forwarding_headers_pass_only_from_a_trusted_proxy() {
        for name in [
            "X-Forwarded-For",
            "Forwarded",
            "X-Real-IP",
            "x_forwarded_host",
        ] {
            check_request(name, false, true, false);
            check_request(name, true, true, true);
        }
    }

    #[test]
    fn conditions_pass_only_where_the_rule_says_so() {
        for name in ["If-None-Match", "Range", "If-Range"] {
            check_request(name, false, false, false);
            check_request(name, false, true, true);
        }
    }

    #[test]
    fn a_paid_response_is_private() {
        for (given, want) in [
            (None, "private"),
            (Some("public, max-age=60"), "max-age=60, private"),
            (
                Some("Public, S-MaxAge=5,no-transform"),
                "no-transform, private",
            ),
            (Some("private"), "private"),
            (Some("no-store"), "no-store, private"),
        ] {
            let mut response = ResponseHeader::build(200, None).unwrap();
            if let Some(given) = given {
                response.insert_header("Cache-Control", given).unwrap();
            }
            make_private(&mut response).unwrap();
            assert_eq!(response.headers["cache-control"], want);
        }
    }

    #[test]
    fn an_untrusted_client_cannot_say_where_it_comes_from() {
        let value = HeaderValue::from_static("1.2.3.4");
        let headers = HeaderMap::from_iter([(X_FORWARDED_FOR.clone(), value)]);
        let trusted = [IpRange {
            address: "10.0.0.0".parse().unwrap(),
            prefix: 8,
        }];
        for (peer, want) in [
            ("192.0.2.7:1", "192.0.2.7"),
            ("10.1.1.1:1", "1.2.3.4, 10.1.1.1"),
        ] {
            let client = ClientIdentity::new(Some(peer.parse().unwrap()), false, &trusted);
            let mut headers = headers.clone();
            strip_request(&mut headers, client.trusted, true);
            set_forwarding(&mut headers, &client, "api.example.com").unwrap();
            assert_eq!(headers["x-forwarded-for"], want);
            assert_eq!(headers["x-forwarded-host"], "api.example.com");
        }
    }

    /// Who is taken for the client when 10.0.0.0/8 is trusted.
    #[track_caller]
    fn check_address(peer: &str, forwarded_for: &[&str], want: &str) {
        let trusted = [IpRange {
            address: "10.0.0.0".parse().unwrap(),
            prefix: 8,
        }];
        let client = ClientIdentity::new(Some(peer.parse().unwrap()), false, &trusted);
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for value in forwarded_for {
            request.append_header("X-Forwarded-For", *value).unwrap();
        }
        let found = address_of(&request, &client, &trusted).unwrap().to_string();
        assert_eq!(found, want, "{peer} {forwarded_for:?}");
    }

    #[test]
    fn the_client_is_the_nearest_address_that_no_trusted_proxy_has() {
        check_address("192.0.2.1:5", &["198.51.100.1"], "192.0.2.1");
        check_address("10.0.0.1:5", &[], "10.0.0.1");
        check_address("10.0.0.1:5", &["198.51.100.1"], "198.51.100.1");
        check_address(
            "10.0.0.1:5",
            &["forged, 198.51.100.1, 10.0.0.2"],
            "198.51.100.1",
        );
        check_address(
            "10.0.0.1:5",
            &["203.0.113.9", "198.51.100.1"],
            "198.51.100.1",
        );
        check_address("10.0.0.1:5", &["198.51.100.1:80"], "198.51.100.1");
        check_address("10.0.0.1:5", &["[2001:db8::1]:80"], "2001:db8::1");
        check_address("10.0.0.1:5", &["198.51.100.1, garbage"], "10.0.0.1");
    }
}

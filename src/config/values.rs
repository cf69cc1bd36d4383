//! The shapes of single values: origins, URLs, address ranges, prefixes, headers, host patterns.

use std::net::IpAddr;

use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Uri};
use thiserror::Error;

use super::settings::{IpRange, ServerAddress};

/// Why a value does not have the shape that its key needs.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum ValueError {
    #[error("{0:?} is not an http:// or https:// URL with a host")]
    NotUrl(String),
    #[error("{0:?} has a user name or password; they would end up in logs")]
    Credentials(String),
    #[error("{0:?} has a path; only scheme, host and port belong here")]
    HasPath(String),
    #[error("{0:?} has a query or fragment")]
    HasQuery(String),
    #[error("{0:?} is not an address range")]
    NotRange(String),
    #[error("{0:?} is not a path prefix")]
    NotPrefix(String),
    #[error("{0:?} is not a host pattern")]
    NotHost(String),
    #[error("{0:?} is not a header name")]
    NotHeaderName(String),
    #[error("the value of header `{0}` has characters that no header may have")]
    NotHeaderValue(String),
    #[error("header `{0}` is set by farewall itself")]
    OurHeader(String),
    #[error("{0:?} is not a path pattern")]
    NotPattern(String),
    #[error("{0:?} is not a method")]
    NotMethod(String),
    #[error("{0:?} is not a media type")]
    NotMediaType(String),
    #[error("{0:?} is not printable ASCII of 1 to 32 characters")]
    NotServiceName(String),
}

/// An `http://` or `https://` URL, taken apart.
#[derive(Debug)]
pub(super) struct Url {
    pub(super) is_tls: bool,
    /// Lower case; IPv6 addresses without brackets.
    pub(super) host: String,
    /// As given, or the scheme's own.
    pub(super) port: u16,
    /// Empty or with a leading slash, without a trailing one.
    pub(super) path: String,
}

/// Reads the URL of a JSON-RPC endpoint: a query is allowed, because providers put keys there.
/// The error does not show the text for the same reason.
pub(super) fn rpc_url(text: &str) -> Result<String, &'static str> {
    let base = text.split('?').next().unwrap_or_default();
    match url(base) {
        Ok(_) if text.len() <= 2048 && !text.contains('#') => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err("this is not an http:// or https:// URL with a host"),
    }
}

/// Reads a URL without user name, query and fragment.
pub(super) fn url(text: &str) -> Result<Url, ValueError> {
    let wrong = || ValueError::NotUrl(text.to_owned());
    if text.contains('#') {
        return Err(ValueError::HasQuery(text.to_owned()));
    }
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let is_tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        _ => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        return Err(ValueError::Credentials(text.to_owned()));
    }
    if uri.query().is_some() {
        return Err(ValueError::HasQuery(text.to_owned()));
    }
    let host = authority.host().to_ascii_lowercase();
    let port = match authority.as_str().get(host.len()..) {
        None | Some("") => Some(if is_tls { 443 } else { 80 }),
        Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() || (host.starts_with('[') && bare.parse::<IpAddr>().is_err()) {
        return Err(wrong());
    }
    Ok(Url {
        is_tls,
        host: bare.to_owned(),
        port: port.filter(|port| *port != 0).ok_or_else(wrong)?,
        path: uri.path().trim_end_matches('/').to_owned(),
    })
}

impl Url {
    /// Scheme, host and port as clients write them: without the scheme's own port.
    pub(super) fn origin(&self) -> String {
        let (scheme, usual) = if self.is_tls {
            ("https", 443)
        } else {
            ("http", 80)
        };
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == usual {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{}", self.port)
        }
    }
}

/// Scheme, host and port alone.
pub(super) fn origin(text: &str) -> Result<Url, ValueError> {
    let url = url(text)?;
    if url.path.is_empty() {
        Ok(url)
    } else {
        Err(ValueError::HasPath(text.to_owned()))
    }
}

/// Whether a host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host
            .parse()
            .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// One server of an upstream, and whether it speaks TLS.
pub(super) fn server(text: &str) -> Result<(ServerAddress, bool), ValueError> {
    let Url {
        is_tls, host, port, ..
    } = origin(text)?;
    Ok((ServerAddress { host, port }, is_tls))
}

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
pub(super) fn range(text: &str) -> Result<IpRange, ValueError> {
    let wrong = || ValueError::NotRange(text.to_owned());
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| wrong())?
        }
        Some(_) => return Err(wrong()),
    };
    if prefix > longest {
        return Err(wrong());
    }
    Ok(IpRange { address, prefix })
}

/// A path prefix: `/api`, without a trailing slash.
pub(super) fn prefix(text: &str) -> Result<String, ValueError> {
    let is_plain = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"?#\\%{}*".contains(&b));
    let segments = text.strip_prefix('/').map(|rest| rest.split('/'));
    let is_clean = segments.is_some_and(|mut all| all.all(|s| !matches!(s, "" | "." | "..")));
    if is_plain && is_clean {
        Ok(text.to_owned())
    } else {
        Err(ValueError::NotPrefix(text.to_owned()))
    }
}

/// `api.example.com` or `*.example.com`, to lower case.
pub(super) fn host_pattern(text: &str) -> Result<String, ValueError> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_ip6 = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    if name.len() <= 253 && (is_ip6 || name.split('.').all(is_label)) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(ValueError::NotHost(text.to_owned()))
    }
}

/// What is common to all path patterns; the routes look closer.
pub(super) fn path_pattern(text: &str) -> Result<String, ValueError> {
    let is_plain = |b: u8| b > b' ' && b != 0x7f && !b"?#\\".contains(&b);
    if text.starts_with('/') && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(ValueError::NotPattern(text.to_owned()))
    }
}

/// A path to ask a server for, with an optional query.
pub(super) fn request_path(text: &str) -> Result<String, ValueError> {
    if text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err(ValueError::NotPattern(text.to_owned()))
    }
}

/// A method in upper case. `CONNECT` and `TRACE` are never forwarded, so no rule can govern them.
pub(super) fn method(text: &str) -> Result<String, ValueError> {
    let is_upper = text
        .bytes()
        .all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
    if text.is_empty() || text.len() > 32 || !is_upper || matches!(text, "CONNECT" | "TRACE") {
        return Err(ValueError::NotMethod(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// 1 to 32 printable ASCII characters. Rule: fact sheet, section 2.2.
pub(super) fn service_name(text: &str) -> Result<String, ValueError> {
    let is_printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if (1..=32).contains(&text.len()) && is_printable {
        Ok(text.to_owned())
    } else {
        Err(ValueError::NotServiceName(text.to_owned()))
    }
}

/// A media type such as `application/json`, or nothing.
pub(super) fn media_type(text: &str) -> Result<String, ValueError> {
    let is_plain = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if text.is_empty() || (is_plain && text.len() <= 128 && text.contains('/')) {
        Ok(text.to_owned())
    } else {
        Err(ValueError::NotMediaType(text.to_owned()))
    }
}

/// A Host header: a name or address with an optional port.
pub(super) fn authority(text: &str) -> Result<String, ValueError> {
    let is_authority = text.parse::<http::uri::Authority>().is_ok();
    if is_authority && !text.contains('@') {
        Ok(text.to_owned())
    } else {
        Err(ValueError::NotHost(text.to_owned()))
    }
}

/// Scheme, host and port of a browser's `Origin`, or `*`.
pub(super) fn cors_origin(text: &str) -> Result<String, ValueError> {
    if text == "*" {
        Ok(text.to_owned())
    } else {
        origin(text).map(|url| url.origin())
    }
}

/// Headers that farewall writes itself, or that frame the message.
const OURS: [&str; 22] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "via",
    "payment-required",
    "payment-signature",
    "payment-response",
    "x-payment",
    "x-payment-response",
    "sign-in-with-x",
    "settlement-overrides",
];

/// A header name in lower case that an operator may set.
pub(super) fn header_name(text: &str) -> Result<String, ValueError> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| ValueError::NotHeaderName(text.to_owned()))?;
    let name = name.as_str();
    if OURS.contains(&name) || name.starts_with("x-farewall-") {
        return Err(ValueError::OurHeader(name.to_owned()));
    }
    Ok(name.to_owned())
}

/// A header's value. The error names the header and never shows the value.
pub(super) fn header_value(name: &str, text: &str) -> Result<String, ValueError> {
    HeaderValue::from_str(text)
        .map(|_| text.to_owned())
        .map_err(|_| ValueError::NotHeaderValue(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T, E>(parse: impl Fn(&str) -> Result<T, E>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(parse(text).is_ok(), "{text:?} must be accepted");
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        check(
            origin,
            &["https://a.example", "http://[::1]:80", "https://a.example/"],
            &[
                "a.example",
                "ftp://a",
                "https://",
                "https://a/b",
                "https://u:p@a",
                "http://a:0",
                "http://a:99999",
                "https://a?x",
                "https://a#x",
                "http://[x]",
                "",
            ],
        );
        let text = |text: &str| origin(text).unwrap().origin();
        assert_eq!(text("HTTPS://API.Example:443/"), "https://api.example");
        assert_eq!(text("http://[::1]:8402"), "http://[::1]:8402");
        assert_eq!(text("https://a.example:80"), "https://a.example:80");
    }

    #[test]
    fn a_server_has_the_port_of_its_scheme() {
        assert_eq!(server("http://a").unwrap().0.port, 80);
        let (address, is_tls) = server("https://[2001:db8::1]").unwrap();
        assert_eq!(
            (address.host.as_str(), address.port, is_tls),
            ("2001:db8::1", 443, true)
        );
    }

    #[test]
    fn ranges_hold_their_prefix() {
        check(
            range,
            &[
                "10.0.0.0/8",
                "::1",
                "2001:db8::/128",
                "0.0.0.0/0",
                "1.2.3.4/32",
            ],
            &[
                "10.0.0.0/33",
                "::/129",
                "10.0.0/8",
                "10.0.0.0/",
                "10.0.0.0/+8",
                "a",
                "",
                "/8",
            ],
        );
        assert_eq!(range("1.2.3.4").unwrap().prefix, 32);
    }

    #[test]
    fn prefixes_patterns_and_hosts_are_plain() {
        check(
            prefix,
            &["/a", "/a/b.c"],
            &[
                "", "/", "a", "/a/", "//a", "/a/../b", "/a?b", "/a%2fb", "/a b", "/é",
            ],
        );
        check(
            path_pattern,
            &["/", "/a/{b}", "/{*rest}"],
            &["", "a", "/a b", "/a?b=1", "/a#b", "/a\\b", "/\u{7f}"],
        );
        check(
            host_pattern,
            &[
                "a.example",
                "*.a.example",
                "localhost",
                "[::1]",
                "127.0.0.1",
            ],
            &["", "*", "*.", "a..b", "a.example:80", "a/b", "*.*.a", "a.*"],
        );
        assert_eq!(
            host_pattern("*.API.example"),
            Ok("*.api.example".to_owned())
        );
        check(
            method,
            &["GET", "M-SEARCH"],
            &["", "get", "CONNECT", "TRACE", "G T"],
        );
    }

    #[test]
    fn headers_that_the_wall_sets_cannot_be_set_by_the_operator() {
        check(
            header_name,
            &["X-Api-Key", "authorization"],
            &[
                "Host",
                "X-Farewall-Payer",
                "PAYMENT-SIGNATURE",
                "a b",
                "",
                "Content-Length",
            ],
        );
        let error = header_value("x-key", "s3cret\n").unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}

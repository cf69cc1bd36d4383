//! The canonical host: one spelling for a `Host` header, an `:authority` or the authority of an absolute-form target.

use std::fmt;
use std::net::Ipv6Addr;

use thiserror::Error;

/// The scheme a request came in on; it decides which port is the default.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scheme {
    /// Port 80.
    Http,
    /// Port 443.
    Https,
}

impl Scheme {
    /// The port that need not be written.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Host and port in their one accepted spelling: lower case, no trailing dot, no default port.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CanonicalHost {
    /// Name or address alone, which rules match; IPv6 in brackets.
    pub host: String,
    /// Only when it is not the scheme's default.
    pub port: Option<u16>,
}

/// Why a host is refused. The texts are safe to show to clients; the status is 400.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
#[non_exhaustive]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// More than 253 characters of name, or 63 in one label.
    #[error("the host is too long")]
    TooLong,
    /// `user@host`.
    #[error("user information is not accepted in the host")]
    UserInfo,
    /// Not 1 to 65535 in digits.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// An empty label, or a character outside letters, digits, `-`, `_` and `.`.
    #[error("the host is not a valid name")]
    Name,
    /// Brackets without an IPv6 address in them, zone identifiers included.
    #[error("the host is not a valid IPv6 address")]
    Ipv6,
}

/// The longest name that DNS can carry.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

impl CanonicalHost {
    /// Reads `host` or `host:port`. International names must come in their ASCII (`xn--`) form.
    ///
    /// # Errors
    ///
    /// [`HostError`].
    pub fn parse(raw: &[u8], scheme: Scheme) -> Result<Self, HostError> {
        if raw.is_empty() {
            return Err(HostError::Empty);
        }
        if raw.contains(&b'@') {
            return Err(HostError::UserInfo);
        }
        let (host, port) = if raw.starts_with(b"[") {
            let end = raw.iter().position(|&b| b == b']').ok_or(HostError::Ipv6)?;
            let (address, port) = raw.split_at(end);
            (
                ipv6(address.get(1..).unwrap_or_default())?,
                port.get(1..).unwrap_or_default(),
            )
        } else {
            let end = raw.iter().position(|&b| b == b':').unwrap_or(raw.len());
            let (name, port) = raw.split_at(end);
            (canonical_name(name)?, port)
        };
        let port = explicit_port(port)?.filter(|port| *port != scheme.default_port());
        Ok(Self { host, port })
    }

    /// Name, and `:port` when it is not the default: what is forwarded and fingerprinted.
    #[must_use]
    pub fn authority(&self) -> String {
        let Some(port) = self.port else {
            return self.host.clone();
        };
        // Without the detours of formatting: each forwarded request has one.
        let mut text = String::with_capacity(self.host.len().saturating_add(":65535".len()));
        text.push_str(&self.host);
        text.push(':');
        let digits = [
            (10_000, port / 10_000),
            (1_000, port / 1_000 % 10),
            (100, port / 100 % 10),
            (10, port / 10 % 10),
            (1, port % 10),
        ];
        for (_, digit) in digits.into_iter().filter(|(least, _)| port >= *least) {
            text.extend(char::from_digit(digit.into(), 10));
        }
        text
    }
}

impl fmt::Display for CanonicalHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn ipv6(raw: &[u8]) -> Result<String, HostError> {
    let text = std::str::from_utf8(raw).map_err(|_| HostError::Ipv6)?;
    let address: Ipv6Addr = text.parse().map_err(|_| HostError::Ipv6)?;
    Ok(format!("[{address}]"))
}

fn canonical_name(raw: &[u8]) -> Result<String, HostError> {
    let name = raw.strip_suffix(b".").unwrap_or(raw);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(HostError::TooLong);
    }
    for label in name.split(|&b| b == b'.') {
        let named = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if label.is_empty() || !label.iter().all(named) {
            return Err(HostError::Name);
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(HostError::TooLong);
        }
    }
    let name = name.to_ascii_lowercase();
    String::from_utf8(name).map_err(|_| HostError::Name)
}

fn explicit_port(raw: &[u8]) -> Result<Option<u16>, HostError> {
    let Some((b':', digits)) = raw.split_first() else {
        return if raw.is_empty() {
            Ok(None)
        } else {
            Err(HostError::Name)
        };
    };
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HostError::Port);
    }
    let port = std::str::from_utf8(digits)
        .ok()
        .and_then(|d| d.parse().ok())
        .filter(|port| *port != 0);
    port.map(Some).ok_or(HostError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(raw: &str, want: Result<&str, HostError>) {
        let got = CanonicalHost::parse(raw.as_bytes(), Scheme::Http).map(|h| h.authority());
        assert_eq!(got, want.map(str::to_owned), "{raw:?}");
    }

    #[test]
    fn an_authority_is_written_as_it_is_shown() {
        for port in [
            1,
            9,
            10,
            99,
            100,
            909,
            1_000,
            9_999,
            10_000,
            50_505,
            u16::MAX,
        ] {
            let host = CanonicalHost {
                host: "a".to_owned(),
                port: Some(port),
            };
            assert_eq!(host.authority(), host.to_string());
        }
    }

    #[test]
    fn one_spelling_is_kept() {
        check("api.example.com", Ok("api.example.com"));
        check("API.Example.COM", Ok("api.example.com"));
        check("api.example.com.", Ok("api.example.com"));
        check("api.example.com:80", Ok("api.example.com"));
        check("api.example.com:0080", Ok("api.example.com"));
        check("api.example.com.:8080", Ok("api.example.com:8080"));
        check("api.example.com:443", Ok("api.example.com:443"));
        check("localhost:65535", Ok("localhost:65535"));
        check("127.0.0.1:8080", Ok("127.0.0.1:8080"));
        check("[::1]", Ok("[::1]"));
        check("[0:0:0:0:0:0:0:1]:80", Ok("[::1]"));
        check("[2001:DB8::A]:8443", Ok("[2001:db8::a]:8443"));
        check("my_host", Ok("my_host"));
    }

    #[test]
    fn what_could_name_two_hosts_is_refused() {
        check("", Err(HostError::Empty));
        check(".", Err(HostError::Empty));
        check(":80", Err(HostError::Empty));
        check("user@example.com", Err(HostError::UserInfo));
        check("a:b@example.com", Err(HostError::UserInfo));
        check("example.com:", Err(HostError::Port));
        check("example.com:0", Err(HostError::Port));
        check("example.com:65536", Err(HostError::Port));
        check("example.com:+80", Err(HostError::Port));
        check("example.com:8o", Err(HostError::Port));
        check("example.com:80:80", Err(HostError::Port));
        check("example..com", Err(HostError::Name));
        check("example.com..", Err(HostError::Name));
        check(".example.com", Err(HostError::Name));
        check("exa mple.com", Err(HostError::Name));
        check("example.com/a", Err(HostError::Name));
        check("ex%61mple.com", Err(HostError::Name));
        check("a,b", Err(HostError::Name));
        check("münchen.de", Err(HostError::Name));
        check("[::1", Err(HostError::Ipv6));
        check("[fe80::1%25eth0]", Err(HostError::Ipv6));
        check("[127.0.0.1]", Err(HostError::Ipv6));
        check("[::1]x", Err(HostError::Name));
    }

    #[test]
    fn the_default_port_is_that_of_the_scheme() {
        let https = |raw: &[u8]| CanonicalHost::parse(raw, Scheme::Https).map(|h| h.authority());
        assert_eq!(https(b"a.b:443"), Ok("a.b".to_owned()));
        assert_eq!(https(b"a.b:80"), Ok("a.b:80".to_owned()));
    }

    #[test]
    fn length_limits_are_those_of_dns() {
        let label = |n| "a".repeat(n);
        check(&label(63), Ok(&label(63)));
        check(&label(64), Err(HostError::TooLong));
        let long = [label(63), label(63), label(63), label(61)].join(".");
        assert_eq!(long.len(), 253);
        check(&long, Ok(&long));
        check(&format!("{long}a"), Err(HostError::TooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_canonical_is_final(
            raw in proptest::collection::vec(any::<u8>(), 0..40),
            tricky in "[a-cA-C0-9.:@\\[\\]_-]{0,24}",
        ) {
            for raw in [raw.as_slice(), tricky.as_bytes()] {
                if let Ok(host) = CanonicalHost::parse(raw, Scheme::Https) {
                    let again = CanonicalHost::parse(host.authority().as_bytes(), Scheme::Https);
                    prop_assert_eq!(again, Ok(host));
                }
            }
        }
    }
}

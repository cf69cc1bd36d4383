//! The same corpus and more in frames of HTTP/2, where names and values may hold any byte.
//!
//! What a header line does in HTTP/1.1 is tried as a field of its own, inside the value of another,
//! inside a name, and as a trailer: a gateway that writes fields out as they are makes lines of them.

use std::collections::BTreeSet;

use super::framing::{BODIES, FRAMES, INNER};
use super::headers::{CLAIMING, HOSTS, OVERRIDING, OVERRIDING_QUERIES, REDIRECTING};
use super::paths;
use crate::support::frames::{Cut, Field, Frames};

const HOST: &[u8] = b"a.example";
const PRICED: [&str; 2] = ["/v1/secret", "/v1/private/a"];
const FREE: [&str; 4] = ["/", "/public/a", "/v1/open", "/nowhere"];

/// In place of `GET` on a priced path, and on the free path of what POST changes.
const METHODS: &[&str] = &[
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "QUERY",
    "PRI",
    "get",
    "Get",
    "GET ",
    " GET",
    "\tGET",
    "GET\t",
    "GET,POST",
    "GET\0",
    "\0GET",
    "G%45T",
    "\"GET\"",
    "",
    "\r\nGET",
    "GET / HTTP/1.1\r\nX: ",
    "POST",
    "post",
    " POST",
    "POST\r\n",
    "P%4fST",
];

/// In place of `http`.
const SCHEMES: &[&str] = &[
    "",
    "https",
    "HTTP",
    "ftp",
    "ws",
    "http:",
    "http://",
    "http://a.example/v1/secret?",
    "http://a.example/public/a?",
    "http\r\nX-Original-URL: /v1/secret",
    "http\0",
    " http",
    "file",
    "/",
    "-",
];

/// Pseudo-headers that nobody should send, before or behind the good ones.
const PSEUDO: &[(&str, &str)] = &[
    (":path", "/v1/secret"),
    (":path", "/public/a"),
    (":path", ""),
    (":Path", "/v1/secret"),
    (":PATH", "/v1/secret"),
    (":path ", "/v1/secret"),
    (" :path", "/v1/secret"),
    (":path\0", "/v1/secret"),
    ("::path", "/v1/secret"),
    (":", "/v1/secret"),
    (":method", "POST"),
    (":method", "GET"),
    (":method", "OPTIONS"),
    (":method", "CONNECT"),
    (":scheme", "https"),
    (":scheme", "http"),
    (":authority", "a.example"),
    (":authority", "b.example"),
    (":authority", ""),
    (":authority", "a.example/public"),
    (":host", "a.example"),
    (":version", "HTTP/1.0"),
    (":protocol", "websocket"),
    (":protocol", ""),
    (":protocol", "connect-udp"),
    (":status", "200"),
    (":original-path", "/v1/secret"),
    (":x-original-url", "/v1/secret"),
    (":x-http-method-override", "POST"),
];

/// What HTTP/2 has no use for, or an own meaning.
const CONNECTION: &[(&str, &str)] = &[
    ("connection", "close"),
    ("connection", "keep-alive, x-variant"),
    ("connection", "upgrade"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("transfer-encoding", "chunked"),
    ("transfer-encoding", "identity"),
    ("upgrade", "websocket"),
    ("upgrade", "h2c"),
    ("upgrade", "HTTP/1.0"),
    ("http2-settings", "AAMAAABkAAQAAP__"),
    ("te", "trailers"),
    ("te", "gzip"),
    ("te", "trailers, deflate"),
    ("trailer", "x-original-url"),
    ("expect", "100-continue"),
    ("content-length", "0"),
    ("content-length", "10"),
    ("content-length", "-1"),
    ("content-length", "99999999999999999999"),
    ("host", "a.example"),
    ("host", "b.example"),
    ("host", ""),
    ("priority", "u=0, i"),
    ("early-data", "1"),
    ("alt-used", "a.example"),
];

/// Every variant once.
pub(super) fn all() -> Vec<Frames> {
    let mut all = Vec::new();
    all.extend(paths::all().iter().map(|path| get(path)));
    all.extend(paths::odd_for_http2().iter().map(|path| get(path)));
    targets(&mut all);
    header_lines(&mut all);
    hosts(&mut all);
    pseudo_headers(&mut all);
    connect(&mut all);
    connection_headers(&mut all);
    bodies(&mut all);
    cuts(&mut all);
    let mut seen = BTreeSet::new();
    all.retain(|frames| seen.insert(frames.bytes()));
    all
}

fn asking(method: &str, path: &str) -> Frames {
    Frames::request(method.as_bytes(), b"http", HOST, path.as_bytes())
}

fn get(path: &str) -> Frames {
    asking("GET", path)
}

/// Other forms of `:path`, other methods, other schemes.
fn targets(all: &mut Vec<Frames>) {
    for path in PRICED {
        for form in [
            format!("http://a.example{path}"),
            format!("HTTP://A.EXAMPLE{path}"),
            format!("https://a.example:443{path}"),
            format!("http://b.example{path}"),
            format!("http://user@a.example{path}"),
            format!("http://a.example/public/..{path}"),
            format!("http:{path}"),
            format!("ftp://a.example{path}"),
            format!("///a.example{path}"),
            format!("a.example{path}"),
            format!("?{path}"),
            format!("#{path}"),
            format!("/ {path}"),
            format!("/\t{path}"),
            format!("{path} {path}"),
            format!("{path} HTTP/1.1\r\nX: y"),
            format!("{path} HTTP/1.0\r\n\r\n"),
            format!("{path}\r\n"),
            format!("{path}\n"),
            format!("/public/x HTTP/1.1\nX-Original-URL: {path}\nX:"),
            String::new(),
            "*".to_owned(),
        ] {
            all.push(get(&form));
            all.push(asking("OPTIONS", &form));
        }
        for method in METHODS {
            all.push(asking(method, path));
            all.push(asking(method, &format!("{path}/")));
        }
        for scheme in SCHEMES {
            all.push(get(path).but(b":scheme", scheme.as_bytes()));
        }
    }
    for scheme in SCHEMES {
        all.push(get("/public/a").but(b":scheme", scheme.as_bytes()));
    }
    for method in METHODS {
        all.push(asking(method, "/v1/jobs"));
        let injected = format!("{method} /v1/secret HTTP/1.1\r\nX:");
        all.push(asking(&injected, "/public/a"));
    }
    for query in OVERRIDING_QUERIES {
        all.push(get(&format!("/v1/jobs?{query}")));
        all.push(get(&format!("/v1/jobs/?{query}")));
    }
    for raw in [
        b"/v1/s\xe5cret".as_slice(),
        b"/v1/\xc0\xafsecret",
        b"/v1\xc0\xafsecret",
    ] {
        all.push(get("/").but(b":path", raw));
    }
}

/// The header lines of the HTTP/1.1 corpus.
fn header_lines(all: &mut Vec<Frames>) {
    for lines in REDIRECTING {
        for path in FREE {
            all.extend(dressed(&get(path), lines));
        }
        all.extend(dressed(&asking("POST", "/public/a"), lines));
    }
    for lines in OVERRIDING {
        for path in ["/v1/jobs", "/v1/jobs/"] {
            all.extend(dressed(&get(path), lines));
        }
        all.extend(dressed(&asking("HEAD", "/v1/jobs"), lines));
    }
    for lines in CLAIMING {
        for path in PRICED {
            all.push(with_fields(get(path), &fields_of(lines, true)));
            all.push(with_fields(asking("POST", path), &fields_of(lines, true)));
            all.push(get(path).with(b"x-a", format!("b\r\n{lines}").as_bytes()));
        }
    }
}

/// The request with these lines, in every way that fields can carry them.
fn dressed(request: &Frames, lines: &str) -> Vec<Frames> {
    let lowered = fields_of(lines, true);
    let in_trailers = Frames {
        trailers: lowered.clone(),
        ..request.clone().with_data(b"abcd")
    };
    let crumbs = request.clone().with(b"cookie", b"a=b");
    vec![
        with_fields(request.clone(), &lowered),
        with_fields(request.clone(), &fields_of(lines, false)),
        request
            .clone()
            .with(b"x-a", format!("b\r\n{lines}").as_bytes()),
        request
            .clone()
            .with(format!("x-a: b\r\n{lines}").as_bytes(), b"c"),
        crumbs.with(b"cookie", format!("c=d\n{lines}").as_bytes()),
        in_trailers,
    ]
}

fn with_fields(mut request: Frames, fields: &[Field]) -> Frames {
    request.fields.extend_from_slice(fields);
    request
}

/// Lines of HTTP/1.1 as fields, with names in lower case as HTTP/2 wants them, or as they are.
fn fields_of(lines: &str, lower: bool) -> Vec<Field> {
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let name = if lower {
            name.to_ascii_lowercase()
        } else {
            name.to_owned()
        };
        let value = value.strip_prefix(' ').unwrap_or(value);
        (name.into_bytes(), value.as_bytes().to_vec())
    };
    lines.split("\r\n").map(field).collect()
}

/// Hosts as `:authority`, as `host`, and as one beside the other.
fn hosts(all: &mut Vec<Frames>) {
    for lines in HOSTS {
        let hosts = fields_of(lines, true);
        let Some((_, host)) = hosts.first() else {
            continue;
        };
        for path in PRICED {
            all.push(get(path).but(b":authority", host));
            all.push(with_fields(get(path).without(b":authority"), &hosts));
            all.push(with_fields(get(path), &hosts));
        }
        let injected = [host.as_slice(), b"\r\nX-Original-URL: /v1/secret"].concat();
        all.push(get("/public/a").but(b":authority", &injected));
    }
}

fn pseudo_headers(all: &mut Vec<Frames>) {
    let bases = [get("/v1/secret"), get("/public/a"), get("/v1/jobs")];
    for base in &bases {
        for missing in [":method", ":scheme", ":authority", ":path"] {
            all.push(base.clone().without(missing.as_bytes()));
            all.push(base.clone().but(missing.as_bytes(), b""));
        }
        for (name, value) in PSEUDO {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            let mut before = Frames::default().with(name, value);
            before.fields.extend(base.fields.clone());
            all.push(before);
            all.push(base.clone().with(name, value));
            all.push(base.clone().with(b"x-a", b"b").with(name, value));
            all.push(base.clone().with_data(b"abcd").with_trailer(name, value));
            all.push(
                base.clone()
                    .without(name)
                    .with(b"x-a", b"b")
                    .with(name, value),
            );
        }
        let mut backwards = base.clone();
        backwards.fields.reverse();
        all.push(backwards);
    }
}

/// Tunnels, and what is asked inside them.
fn connect(all: &mut Vec<Frames>) {
    for protocol in [
        "websocket",
        "connect-udp",
        "connect-ip",
        "webtransport",
        "",
        "HTTP/1.1",
    ] {
        for path in ["/v1/secret", "/v1/private/a", "/public/a", "/v1/open"] {
            let extended = asking("CONNECT", path).with(b":protocol", protocol.as_bytes());
            all.push(extended.clone());
            all.push(extended.clone().with_data(INNER.as_bytes()));
            all.push(extended.but(b":method", b"GET"));
        }
    }
    for authority in [
        "a.example",
        "a.example:80",
        "a.example:443",
        "127.0.0.1:80",
        "",
        "/v1/secret",
    ] {
        let plain = Frames::default()
            .with(b":method", b"CONNECT")
            .with(b":authority", authority.as_bytes());
        all.push(plain.clone());
        all.push(plain.clone().with_data(INNER.as_bytes()));
        for path in PRICED {
            all.push(plain.clone().with(b":path", path.as_bytes()));
        }
    }
}

fn connection_headers(all: &mut Vec<Frames>) {
    for (name, value) in CONNECTION {
        for path in ["/v1/secret", "/v1/private/a", "/public/a"] {
            let request = get(path).with(name.as_bytes(), value.as_bytes());
            all.push(request.clone());
            all.push(request.clone().with_data(INNER.as_bytes()));
            all.push(request.but(b":method", b"POST").with_data(INNER.as_bytes()));
        }
    }
}

/// Lengths that lie, encodings that are not, and a request in the body.
fn bodies(all: &mut Vec<Frames>) {
    for frame in FRAMES {
        let fields = match *frame {
            "" => Vec::new(),
            lines => fields_of(lines, true),
        };
        for body in BODIES {
            let request = with_fields(asking("POST", "/public/a"), &fields);
            all.push(
                request
                    .clone()
                    .with_data(format!("{body}{INNER}").as_bytes()),
            );
        }
        let split = with_fields(asking("POST", "/public/a"), &fields);
        all.push(
            split
                .with_data(b"0\r\n\r\n")
                .with_data(b"")
                .with_data(INNER.as_bytes()),
        );
        let none = with_fields(asking("POST", "/v1/secret"), &fields);
        all.push(none.clone());
        all.push(none.with_data(b"abcd"));
    }
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        for path in FREE {
            let request = asking(method, path).with_data(INNER.as_bytes());
            all.push(request.clone());
            all.push(request.with(b"content-length", INNER.len().to_string().as_bytes()));
        }
    }
}

fn cuts(all: &mut Vec<Frames>) {
    for cut in [Cut::Continued, Cut::Padded, Cut::Late] {
        for path in ["/v1/secret", "/v1/private/a", "/v1//secret", "/V1/secret"] {
            for method in ["GET", "POST", "HEAD"] {
                all.push(asking(method, path).cut(cut));
            }
        }
        for lines in REDIRECTING.iter().take(12) {
            all.push(with_fields(get("/public/a"), &fields_of(lines, true)).cut(cut));
        }
    }
}

/// HTTP/1.1 as the most careless of gateways would make it of these frames: the last pseudo-header
/// counts, nothing is checked, lengths are believed, and trailers are headers.
pub(super) fn downgraded(frames: &Frames) -> Vec<u8> {
    let last = |name: &[u8], without: &[u8]| {
        let mut named = frames.fields.iter().rev().filter(|(n, _)| n == name);
        named
            .next()
            .map_or(without.to_vec(), |(_, value)| value.clone())
    };
    let (method, path) = (last(b":method", b"GET"), last(b":path", b"/"));
    let mut bytes = [&method, b" ".as_slice(), &path, b" HTTP/1.1\r\nHost: "].concat();
    bytes.extend_from_slice(&last(b":authority", b""));
    bytes.extend_from_slice(b"\r\n");
    for (name, value) in frames.fields.iter().chain(&frames.trailers) {
        if !name.starts_with(b":") {
            bytes.extend_from_slice(&[name, b": ".as_slice(), value, b"\r\n"].concat());
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend(frames.data.concat());
    bytes
}

//! An origin that forgives everything: whatever can be read as a priced path, it reads as one.
//!
//! It takes bytes as they come, answers every request on the connection, and remembers those that
//! some reading leads to `/v1/secret` or below `/v1/private`, or to changing `/v1/jobs`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request that reached the priced handler.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Hit {
    /// `X-Variant`.
    pub variant: String,
    /// Request line and headers.
    pub head: String,
    pub reading: String,
    /// `X-Farewall-Payment-Id`, which the wall sets and nobody else can.
    pub payment: Option<String>,
}

#[derive(Clone)]
pub struct Lenient {
    pub address: SocketAddr,
    hits: Arc<Mutex<Vec<Hit>>>,
}

impl Lenient {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = Self {
            address: listener.local_addr().unwrap(),
            hits: Arc::default(),
        };
        let hits = Arc::clone(&own.hits);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&hits)));
            }
        });
        own
    }

    /// Every request that reached the priced handler.
    pub fn hits(&self) -> Vec<Hit> {
        self.hits.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, hits: Arc<Mutex<Vec<Hit>>>) {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 8 * 1024]);
    loop {
        while let Some((head, body_at)) = head_of(&bytes) {
            let Some(rest) = without_body(&head, &bytes[body_at..]) else {
                break;
            };
            bytes = rest;
            hits.lock().unwrap().extend(judge(&head));
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
            Ok(_) | Err(_) => return,
        }
    }
}

/// Head and start of the body; a bare LF ends lines and heads as well.
fn head_of(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let crlf = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| (at, at + 4));
    let bare = bytes
        .windows(2)
        .position(|w| w == b"\n\n")
        .map(|at| (at, at + 2));
    let (end, body) = crlf.into_iter().chain(bare).min()?;
    Some((bytes[..end].to_vec(), body))
}

/// What follows the body; `None` while that is not all there. Where framing is broken there is no body.
fn without_body(head: &[u8], rest: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = |line: &str| line.strip_prefix("content-length:")?.trim().parse().ok();
    let length: usize = match text.contains("chunked") {
        true => chunked_length(rest)?,
        false => text.lines().find_map(length).unwrap_or(0),
    };
    rest.get(length..).map(<[u8]>::to_vec)
}

fn chunked_length(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = rest[at..].windows(2).position(|w| w == b"\r\n")?;
        let digits = String::from_utf8_lossy(&rest[at..at + line]).into_owned();
        let Ok(size) = usize::from_str_radix(digits.trim(), 16) else {
            return Some(at);
        };
        at += line + 2 + size + 2;
        match rest.get(at - 2..at)? {
            b"\r\n" if size == 0 => return Some(at),
            b"\r\n" => {}
            _ => return Some(at),
        }
    }
}

fn judge(head: &[u8]) -> Option<Hit> {
    let text = String::from_utf8_lossy(head).into_owned();
    let mut lines = text.lines();
    let request_line = lines.next()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            let name = name.trim().to_ascii_lowercase().replace('_', "-");
            (name, value.trim().to_owned())
        })
        .collect();
    let all = |wanted: &[&str]| -> Vec<String> {
        let named = headers
            .iter()
            .filter(|(name, _)| wanted.contains(&name.as_str()));
        named.map(|(_, value)| value.clone()).collect()
    };
    let mut words = request_line.split_ascii_whitespace();
    let (method, target) = (words.next()?, words.next()?);
    let mut methods = all(&[
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-method",
        "x-forwarded-method",
    ]);
    methods.push(method.to_owned());
    methods.extend(
        target
            .split(['?', '&', ';'])
            .filter_map(|p| p.split_once('='))
            .filter(|(key, _)| decoded(key).trim().eq_ignore_ascii_case("_method"))
            .map(|(_, value)| value.to_owned()),
    );
    let mut targets = all(&[
        "x-original-url",
        "x-original-uri",
        "x-original-path",
        "x-rewrite-url",
        "x-rewrite-uri",
        "x-forwarded-uri",
        "x-forwarded-url",
        "x-forwarded-path",
        "x-envoy-original-path",
        "x-replaced-path",
    ]);
    let prefixes = all(&["x-forwarded-prefix", "x-script-name", "x-forwarded-context"]);
    targets.extend(prefixes.iter().map(|prefix| format!("{prefix}{target}")));
    targets.push(target.to_owned());
    let changes = methods.iter().any(|m| {
        let method = m.to_ascii_uppercase();
        matches!(method.as_str(), "POST" | "DELETE" | "PUT")
    });
    let reading = targets
        .iter()
        .flat_map(|target| readings(target))
        .find(|path| is_priced(path, changes))?;
    Some(Hit {
        variant: all(&["x-variant"]).concat(),
        head: text.clone(),
        reading,
        payment: all(&["x-farewall-payment-id"]).pop(),
    })
}

fn is_priced(path: &str, changes: bool) -> bool {
    path == "/v1/secret"
        || path.starts_with("/v1/private/")
        || path == "/v1/private"
        || (changes && path == "/v1/jobs")
}

/// Every path that some origin takes this target for.
fn readings(target: &str) -> BTreeSet<String> {
    let path = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        Some(_) | None => target,
    };
    let mut found = BTreeSet::new();
    let cut_first = path.split(['?', '#']).next().unwrap_or_default();
    for path in [path, cut_first] {
        let whole = decoded(path);
        for cuts in [
            [].as_slice(),
            &['?', '#'],
            &['\0'],
            &['?', '#', '\0', '\n', '\r'],
        ] {
            let path = whole.split(cuts).next().unwrap_or_default();
            for with_parameters in [true, false] {
                found.insert(resolved(path, with_parameters));
            }
        }
    }
    found
}

/// Decoded until nothing changes: escapes, `%u` escapes, overlong and wide forms.
fn decoded(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..6 {
        let next = folded(&unescaped(&text));
        if next == text {
            break;
        }
        text = next;
    }
    text
}

fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |at: usize, digits: usize| {
        let digits = bytes.get(at..at + digits)?;
        let all = digits.iter().all(u8::is_ascii_hexdigit);
        let digits = std::str::from_utf8(digits).ok().filter(|_| all)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let is_escape = byte == b'%';
        let wide =
            hex(at + 2, 4).filter(|_| is_escape && bytes[at + 1].eq_ignore_ascii_case(&b'u'));
        let narrow = hex(at + 1, 2).filter(|_| is_escape);
        if let Some(c) = wide.and_then(char::from_u32) {
            out.extend(c.to_string().bytes());
            at += 6;
        } else if let Some(b) = narrow.and_then(|b| u8::try_from(b).ok()) {
            out.push(b);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    from_overlong(&out)
}

/// UTF-8 whose overlong forms are taken for what they would be, and stray bytes for Latin-1.
fn from_overlong(mut bytes: &[u8]) -> String {
    let mut out = String::new();
    while let Some((&first, rest)) = bytes.split_first() {
        let low = |byte: &u8| u32::from(byte & 0x3f);
        let overlong = match bytes {
            [0xc0 | 0xc1, b @ 0x80..=0xbf, ..] => Some((u32::from(first & 1) << 6 | low(b), 2)),
            [0xe0, a @ 0x80..=0x9f, b @ 0x80..=0xbf, ..] => Some((low(a) << 6 | low(b), 3)),
            _ => None,
        };
        if let Some((code, length)) = overlong {
            out.extend(char::from_u32(code));
            bytes = &bytes[length..];
            continue;
        }
        let good = (1..=4).find_map(|n| {
            let text = std::str::from_utf8(bytes.get(..n)?).ok()?;
            Some((text.chars().next()?, n))
        });
        let (c, length) = good.unwrap_or((char::from(first), 1));
        out.push(c);
        bytes = if length == 1 { rest } else { &bytes[length..] };
    }
    out
}

/// Characters that compatibility normalisation and best-fit tables turn into ASCII.
fn folded(text: &str) -> String {
    let fold = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0)
            .unwrap_or(c)
            .to_string(),
        '\u{2044}' | '\u{2215}' | '\u{29f8}' => "/".to_owned(),
        '\u{2216}' | '\u{29f5}' | '\u{ffe5}' => "\\".to_owned(),
        '\u{2024}' => ".".to_owned(),
        '\u{2025}' => "..".to_owned(),
        '\u{2026}' => "...".to_owned(),
        '\u{24d0}'..='\u{24e9}' => letter(u32::from(c) - 0x24d0),
        '\u{1d41a}'..='\u{1d433}' => letter(u32::from(c) - 0x1d41a),
        '\u{17f}' => "s".to_owned(),
        '\u{2170}' => "i".to_owned(),
        '\u{2174}' => "v".to_owned(),
        '\u{b9}' => "1".to_owned(),
        '\u{200b}' | '\u{feff}' | '\u{ad}' => String::new(),
        c => c.to_string(),
    };
    text.chars().map(fold).collect()
}

fn letter(index: u32) -> String {
    char::from_u32(u32::from('a') + index)
        .unwrap_or('a')
        .to_string()
}

/// Backslashes are slashes; parameters, blanks and dots at the ends of segments go; slashes are
/// merged, dot segments resolved, case ignored.
fn resolved(path: &str, with_parameters: bool) -> String {
    let path = path.replace('\\', "/").to_lowercase();
    let blank = |c: char| c.is_whitespace() || c.is_control();
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        let segment = match with_parameters {
            true => segment,
            false => segment.split(';').next().unwrap_or_default(),
        };
        match segment.trim_matches(blank) {
            ".." => drop(segments.pop()),
            name => {
                let name = name.trim_end_matches(|c| c == '.' || blank(c));
                segments.extend(Some(name).filter(|name| !name.is_empty()));
            }
        }
    }
    format!("/{}", segments.join("/"))
}

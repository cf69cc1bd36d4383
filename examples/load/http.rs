//! Just enough HTTP/1.1 to tell where an answer ends: a length, chunks, or nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::Failure;

/// How much of an answer has been read.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    head: Vec<u8>,
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    status: u16,
    rest: Rest,
    bytes: u64,
}

#[derive(Debug)]
enum Rest {
    Length(u64),
    /// The last bytes seen; the end of our origins' chunks is `0\r\n\r\n`.
    Chunks([u8; 5]),
}

impl Answer {
    /// Takes what was read. `Some(status)` once the answer is complete.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Option<u16>, Failure> {
        let Some(body) = &mut self.body else {
            self.head.extend_from_slice(bytes);
            let Some(end) = find(&self.head, b"\r\n\r\n") else {
                return Ok(None);
            };
            let rest = self.head.split_off(end + 4);
            self.body = Some(head(&self.head)?);
            return self.read(&rest);
        };
        body.bytes += bytes.len() as u64;
        let complete = match &mut body.rest {
            Rest::Length(length) => {
                *length = length
                    .checked_sub(bytes.len() as u64)
                    .ok_or("more bytes than the answer has")?;
                *length == 0
            }
            Rest::Chunks(last) => {
                for byte in bytes.iter().rev().take(5).rev() {
                    last.rotate_left(1);
                    last[4] = *byte;
                }
                last == b"0\r\n\r\n"
            }
        };
        Ok(complete.then_some(body.status))
    }

    /// Whether some of the body is here.
    pub(crate) fn has_body(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.bytes > 0)
    }

    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        value(std::str::from_utf8(&self.head).ok()?, name)
    }

    /// Ready for the next one.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.body = None;
    }
}

fn head(bytes: &[u8]) -> Result<Body, Failure> {
    let text = std::str::from_utf8(bytes)?;
    let status = text.split(' ').nth(1).ok_or("no status")?.parse()?;
    let rest = match value(text, "content-length") {
        Some(length) => Rest::Length(length.parse()?),
        None if value(text, "transfer-encoding").is_some() => Rest::Chunks([0; 5]),
        None => Rest::Length(0),
    };
    Ok(Body {
        status,
        rest,
        bytes: 0,
    })
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

fn find(bytes: &[u8], end: &[u8]) -> Option<usize> {
    bytes.windows(end.len()).position(|window| window == end)
}

/// A request for this path, with a payment if there is one.
pub(crate) fn get(path: &str, proof: Option<&str>) -> Vec<u8> {
    let payment = proof.map_or(String::new(), |p| format!("PAYMENT-SIGNATURE: {p}\r\n"));
    format!("GET {path} HTTP/1.1\r\nHost: bench.example\r\n{payment}\r\n").into_bytes()
}

/// A request with a JSON body.
pub(crate) fn post(path: &str, json: &str) -> Vec<u8> {
    let length = json.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench.example\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{json}"
    )
    .into_bytes()
}

/// Sends one request and reads its answer to the end. `on_body` is called when its first byte is here.
pub(crate) fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    mut on_body: impl FnMut(),
) -> Result<(u16, Answer), Failure> {
    stream.write_all(request)?;
    let mut answer = Answer::default();
    let mut buffer = vec![0; 64 << 10];
    let mut has_body = false;
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err("the connection ended within an answer".into());
        }
        let complete = answer.read(&buffer[..count])?;
        if !has_body && answer.has_body() {
            has_body = true;
            on_body();
        }
        if let Some(status) = complete {
            return Ok((status, answer));
        }
    }
}

/// A connection without delays of its own.
pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

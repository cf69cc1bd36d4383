//! HTTP/1.1 to the byte: sends exactly what it is given, and reads answers without being clever.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer, or what came of it.
#[derive(Clone, Debug, Default)]
pub struct RawResponse {
    /// 0 when the connection was closed without an answer.
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl RawResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Sends the bytes on a new connection, closes nothing, and reads until the peer closes or is quiet.
pub async fn raw_bytes(address: SocketAddr, bytes: &[u8], quiet: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let (mut answer, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    while let Ok(Ok(read)) = tokio::time::timeout(quiet, stream.read(&mut chunk)).await {
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..read]);
    }
    answer
}

/// Sends the bytes and reads one answer, until the connection closes or all of it is there.
pub async fn raw_request(address: SocketAddr, bytes: &[u8]) -> RawResponse {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    read_response(&mut stream, bytes.starts_with(b"HEAD ")).await
}

/// Reads one answer from a connection.
pub async fn read_response(stream: &mut (impl AsyncRead + Unpin), head_only: bool) -> RawResponse {
    let (mut answer, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some(response) = parse(&answer, head_only) {
            return response;
        }
        match tokio::time::timeout(Duration::from_secs(20), stream.read(&mut chunk)).await {
            Ok(Ok(read)) if read > 0 => answer.extend_from_slice(&chunk[..read]),
            Ok(_) => return partial(&answer),
            Err(_) => panic!(
                "no answer in 20 s; so far: {:?}",
                String::from_utf8_lossy(&answer)
            ),
        }
    }
}

fn split(answer: &[u8]) -> Option<(String, usize)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    Some((
        String::from_utf8_lossy(&answer[..end]).into_owned(),
        end + 4,
    ))
}

fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0)
}

fn parse(answer: &[u8], head_only: bool) -> Option<RawResponse> {
    let (head, start) = split(answer)?;
    let status = status(&head);
    if (100..200).contains(&status) && status != 101 {
        return parse(&answer[start..], head_only);
    }
    let mut response = RawResponse {
        status,
        head,
        body: answer[start..].to_vec(),
    };
    let chunked = response.header("transfer-encoding").is_some();
    let length = response
        .header("content-length")
        .and_then(|l| l.parse::<usize>().ok());
    if head_only || matches!(status, 101 | 204 | 304) {
        return Some(response);
    }
    match length {
        Some(length) if response.body.len() >= length => {
            response.body.truncate(length);
            Some(response)
        }
        None if chunked => {
            response.body = dechunk(&response.body)?;
            Some(response)
        }
        Some(_) | None => None,
    }
}

fn partial(answer: &[u8]) -> RawResponse {
    split(answer).map_or_else(RawResponse::default, |(head, start)| RawResponse {
        status: status(&head),
        head,
        body: answer[start..].to_vec(),
    })
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size =
            usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

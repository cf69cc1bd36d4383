//! HTTP/2: a client that keeps the rules, and one that writes whatever frames it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::Answer;

/// A connection that keeps the rules.
pub struct Http2 {
    send: SendRequest<Bytes>,
}

impl Http2 {
    pub async fn plain(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { send }
    }

    /// Sends a request whose body, if any, has been given, and reads the answer to its end.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Answer, h2::Error> {
        self.send_with_trailers(request, None).await
    }

    pub async fn send_with_trailers(
        &self,
        request: Request<Bytes>,
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, h2::Error> {
        let (head, body) = request.into_parts();
        let bodyless = body.is_empty() && trailers.is_none();
        let request = Request::from_parts(head, ());
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(request, bodyless)?;
        if !bodyless {
            stream.send_data(body, trailers.is_none())?;
        }
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers)?;
        }
        answer(response).await
    }

    /// Sends a request with its body and hands back the stream, to be reset or waited for.
    pub async fn begin(&self, request: Request<Bytes>) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let (head, body) = request.into_parts();
        let mut send = self.send.clone().ready().await.unwrap();
        let request = Request::from_parts(head, ());
        let bodyless = body.is_empty();
        let (response, mut stream) = send.send_request(request, bodyless).unwrap();
        if !bodyless {
            stream.send_data(body, true).unwrap();
        }
        (response, stream)
    }
}

pub async fn answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// How a stream ended that was opened with [`raw_headers`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RawEnd {
    /// A complete response with one of the statuses that are told apart here, else 0.
    Response(u16),
    /// `RST_STREAM`, `GOAWAY` or a closed connection.
    Refused,
    /// Nothing in time.
    Silence,
}

/// Opens a connection and one stream with exactly these fields, checked by nobody.
pub async fn raw_headers(address: SocketAddr, fields: &[(&[u8], &[u8])]) -> RawEnd {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0); // literal without indexing, new name, no Huffman code
        for text in [name, value] {
            push_length(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    push_frame(4, 0, 0, &[], &mut bytes);
    push_frame(1, 0x5, 1, &block, &mut bytes); // END_STREAM, END_HEADERS
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(&bytes).await;
    let end = tokio::time::timeout(Duration::from_secs(10), read_end(&mut stream)).await;
    end.unwrap_or(RawEnd::Silence)
}

async fn read_end(stream: &mut TcpStream) -> RawEnd {
    let mut status = 0;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return RawEnd::Refused;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if stream.read_exact(&mut payload).await.is_err() {
            return RawEnd::Refused;
        }
        let (kind, flags, id) = (head[3], head[4], head[8]);
        match (kind, id) {
            (3 | 7, _) => return RawEnd::Refused,
            (1, 1) => status = status_of(&payload),
            _ => {}
        }
        if id == 1 && matches!(kind, 0 | 1) && flags & 1 == 1 {
            return RawEnd::Response(status);
        }
    }
}

/// The statuses of HPACK's static table, and 402 and 405 in Huffman code.
fn status_of(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x48, 0x82, 0x68, 0x02, ..] => 402,
        [0x48, 0x82, 0x68, 0x1b, ..] => 405,
        _ => 0,
    }
}

fn push_length(length: usize, block: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(u8::try_from(length).unwrap());
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

fn push_frame(kind: u8, flags: u8, stream: u32, payload: &[u8], bytes: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

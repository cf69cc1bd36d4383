//! An HTTP/2 client that keeps the rules; the one that does not is [`super::frames`].

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
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

    /// Sends the head of a request whose body is yet to come, on the stream that is handed back.
    pub async fn begin_upload(
        &self,
        request: Request<Bytes>,
    ) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let request = Request::from_parts(request.into_parts().0, ());
        let mut send = self.send.clone().ready().await.unwrap();
        send.send_request(request, false).unwrap()
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

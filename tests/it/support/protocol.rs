//! One wall behind every protocol that it speaks, and one way to say a request in each of them.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::http::Answer;
use super::http2::Http2;
use super::raw::read_response;
use super::wall::free_address;
use super::{Setup, Wall, eventually};

/// What a client can speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    Http1,
    H2c,
    Http1Tls,
    Http2Tls,
}

impl Protocol {
    pub const ALL: [Self; 4] = [Self::Http1, Self::H2c, Self::Http1Tls, Self::Http2Tls];

    pub const fn is_http2(self) -> bool {
        matches!(self, Self::H2c | Self::Http2Tls)
    }

    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Http1 | Self::H2c => "http",
            Self::Http1Tls | Self::Http2Tls => "https",
        }
    }
}

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A wall with a plain listener that also speaks h2c, and one with TLS.
pub struct Everywhere {
    pub wall: Wall,
    tls: SocketAddr,
    certificate: CertificateDer<'static>,
    _files: tempfile::TempDir,
}

/// A request, said in any protocol.
#[derive(Clone, Debug)]
pub struct Say<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: Vec<(&'a str, &'a str)>,
    pub body: &'a str,
}

pub const AUTHORITY: &str = "api.example";

impl<'a> Say<'a> {
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self {
            method,
            path,
            headers: Vec::new(),
            body: "",
        }
    }

    pub fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn request(&self, scheme: &str) -> Request<Bytes> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("{scheme}://{AUTHORITY}{}", self.path));
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        request
            .body(Bytes::copy_from_slice(self.body.as_bytes()))
            .unwrap()
    }

    fn bytes(&self) -> String {
        let headers: String = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let length = match self.body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        format!(
            "{} {} HTTP/1.1\r\nHost: {AUTHORITY}\r\n{headers}{length}\r\n{}",
            self.method, self.path, self.body
        )
    }
}

impl Everywhere {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let files = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed([AUTHORITY.to_owned()]).unwrap();
        let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
        std::fs::write(&cert, own.cert.pem()).unwrap();
        std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        let tls = free_address();
        let listen = format!(
            "h2c = true\n[[listen]]\naddress = \"{tls}\"\ntls_cert = \"{}\"\ntls_key = \"{}\"",
            cert.display(),
            key.display()
        );
        let wall = Setup { listen, ..setup }.start().await;
        // The listeners are of two services, which begin one after the other.
        eventually("the wall listens with TLS", || {
            std::net::TcpStream::connect(tls).is_ok()
        });
        Self {
            wall,
            tls,
            certificate: own.cert.der().clone(),
            _files: files,
        }
    }

    async fn handshake(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.tls).await.unwrap();
        let name = ServerName::try_from(AUTHORITY).unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        let stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        stream
    }

    /// A connection on which nothing was said yet.
    pub async fn connect(&self, protocol: Protocol) -> Box<dyn Duplex> {
        match protocol {
            Protocol::Http1 | Protocol::H2c => {
                Box::new(TcpStream::connect(self.wall.address).await.unwrap())
            }
            Protocol::Http1Tls => Box::new(self.handshake(b"http/1.1").await),
            Protocol::Http2Tls => Box::new(self.handshake(b"h2").await),
        }
    }

    /// A connection that speaks HTTP/2, which `protocol` must be.
    pub async fn http2(&self, protocol: Protocol) -> Http2 {
        match protocol {
            Protocol::H2c => Http2::plain(self.wall.address).await,
            Protocol::Http2Tls => Http2::over(self.handshake(b"h2").await).await,
            Protocol::Http1 | Protocol::Http1Tls => panic!("not HTTP/2"),
        }
    }

    /// Says it on a connection of its own, and reads the answer to its end.
    pub async fn say(&self, protocol: Protocol, say: &Say<'_>) -> Answer {
        match protocol {
            Protocol::Http1 => {
                let stream = TcpStream::connect(self.wall.address).await.unwrap();
                over_http1(stream, say).await
            }
            Protocol::Http1Tls => over_http1(self.handshake(b"http/1.1").await, say).await,
            Protocol::H2c | Protocol::Http2Tls => {
                let connection = self.http2(protocol).await;
                let answer = connection.send(say.request(protocol.scheme())).await;
                answer.unwrap()
            }
        }
    }
}

async fn over_http1(mut stream: impl AsyncRead + AsyncWrite + Unpin, say: &Say<'_>) -> Answer {
    stream.write_all(say.bytes().as_bytes()).await.unwrap();
    read_response(&mut stream, say.method == "HEAD")
        .await
        .into()
}

//! Stands in front of the sandbox facilitator and spoils connections and answers, to the byte.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What befalls the calls of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Spoil {
    /// Nothing.
    #[default]
    Nothing,
    /// Connections are refused from now on (after `/verify`, for `/settle`).
    RefuseConnections,
    /// Handshakes fail from now on.
    FailTls,
    /// No answer; without or with the work done.
    Hang { worked: bool },
    /// The work is done; its answer comes a byte at a time, from the head or from the body on.
    Dribble { head: bool },
    /// These bytes in place of the answer; without or with the work done.
    Instead { bytes: Vec<u8>, worked: bool },
    /// The work is done; the connection is reset after so many bytes of the answer.
    ResetAfter(usize),
    /// Like that, one byte later at each payment that was not seen before; and seen ones at once.
    ResetLaterAndLater,
    /// A 200 whose body never ends.
    Endless,
    /// Closes without an answer.
    Close,
}

/// Which calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    Verify,
    Settle,
}

#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    sandbox: String,
    tls: Option<TlsAcceptor>,
    spoil: Mutex<(Option<Call>, Spoil)>,
    broken: Mutex<Option<Spoil>>,
    closing: tokio::sync::Notify,
    closed: tokio::sync::Semaphore,
    calls: [AtomicUsize; 2],
    seen: Mutex<Vec<String>>,
    answer_bytes: AtomicUsize,
    client: reqwest::Client,
}

impl Front {
    /// In front of the sandbox at this URL; with TLS when a certificate is given.
    pub async fn start(sandbox: String, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Self(Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            sandbox,
            tls,
            spoil: Mutex::default(),
            broken: Mutex::default(),
            closing: tokio::sync::Notify::new(),
            closed: tokio::sync::Semaphore::new(0),
            calls: [AtomicUsize::new(0), AtomicUsize::new(0)],
            seen: Mutex::default(),
            answer_bytes: AtomicUsize::new(0),
            client: super::client(),
        }));
        tokio::spawn(front.clone().listen(listener));
        front
    }

    pub fn url(&self) -> String {
        let port = self.0.address.port();
        match self.0.tls {
            Some(_) => format!("https://localhost:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        }
    }

    /// From now on this befalls these calls, all of them.
    pub async fn spoil(&self, call: Call, spoil: Spoil) {
        *self.0.spoil.lock().unwrap() = (Some(call), spoil.clone());
        // What befalls `/verify` befalls the connection before it.
        if call == Call::Verify {
            self.break_connections(&spoil).await;
        }
    }

    /// How often it was asked.
    pub fn calls(&self, call: Call) -> usize {
        self.0.calls[call as usize].load(Ordering::SeqCst)
    }

    /// Length of the last honest answer, head included.
    pub fn answer_bytes(&self) -> usize {
        self.0.answer_bytes.load(Ordering::SeqCst)
    }

    async fn break_connections(&self, spoil: &Spoil) {
        match spoil {
            Spoil::FailTls => *self.0.broken.lock().unwrap() = Some(Spoil::FailTls),
            Spoil::RefuseConnections => {
                self.0.closing.notify_one();
                drop(self.0.closed.acquire().await.unwrap());
            }
            _ => {}
        }
    }

    async fn listen(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.0.closing.notified() => break,
            };
            let (stream, _) = accepted.unwrap();
            let this = self.clone();
            tokio::spawn(async move { this.greet(stream).await });
        }
        drop(listener);
        self.0.closed.add_permits(100_000);
    }

    async fn greet(&self, mut stream: TcpStream) -> io::Result<()> {
        if self.0.broken.lock().unwrap().is_some() {
            return stream.write_all(b"this is no TLS\r\n").await;
        }
        stream.set_nodelay(true)?;
        match &self.0.tls {
            None => self.serve(stream, |s| s.set_zero_linger().unwrap()).await,
            Some(tls) => {
                let stream = tls.accept(stream).await?;
                self.serve(stream, |s| s.get_ref().0.set_zero_linger().unwrap())
                    .await
            }
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        reset: impl Fn(&S),
    ) -> io::Result<()> {
        let Some((path, body)) = read_request(&mut stream).await? else {
            return Ok(());
        };
        let call = match path.as_str() {
            "/verify" => Some(Call::Verify),
            "/settle" => Some(Call::Settle),
            _ => None,
        };
        if let Some(call) = call {
            self.0.calls[call as usize].fetch_add(1, Ordering::SeqCst);
        }
        let (spoiled, spoil) = self.0.spoil.lock().unwrap().clone();
        if call == Some(Call::Verify) && spoiled == Some(Call::Settle) {
            let answer = self.work(&path, &body).await;
            self.break_connections(&spoil).await;
            return finish(stream, &answer).await;
        }
        if call.is_none() || call != spoiled {
            let answer = self.work(&path, &body).await;
            return finish(stream, &answer).await;
        }
        self.spoilt(stream, &spoil, (&path, &body), reset).await
    }

    async fn spoilt<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        spoil: &Spoil,
        (path, body): (&str, &[u8]),
        reset: impl Fn(&S),
    ) -> io::Result<()> {
        match spoil {
            Spoil::Nothing | Spoil::RefuseConnections | Spoil::FailTls => {
                let answer = self.work(path, body).await;
                finish(stream, &answer).await
            }
            Spoil::Hang { worked } => {
                if *worked {
                    self.work(path, body).await;
                }
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            }
            Spoil::Dribble { head } => {
                let answer = self.work(path, body).await;
                let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                let (at_once, slowly) = answer.split_at(if *head { 5 } else { end + 1 });
                stream.write_all(at_once).await?;
                for byte in slowly {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    stream.write_all(&[*byte]).await?;
                    stream.flush().await?;
                }
                Ok(())
            }
            Spoil::Instead { bytes, worked } => {
                if *worked {
                    self.work(path, body).await;
                }
                finish(stream, bytes).await
            }
            Spoil::Close => Ok(()),
            Spoil::Endless => {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head).await?;
                let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
                loop {
                    stream.write_all(chunk.as_bytes()).await?;
                }
            }
            Spoil::ResetAfter(bytes) => {
                let answer = self.work(path, body).await;
                cut(stream, &answer, *bytes, reset).await
            }
            Spoil::ResetLaterAndLater => {
                let nonce = nonce(body);
                let answer = self.work(path, body).await;
                let bytes = {
                    let mut seen = self.0.seen.lock().unwrap();
                    match seen.contains(&nonce) {
                        true => 0,
                        false => {
                            seen.push(nonce);
                            seen.len() - 1
                        }
                    }
                };
                cut(stream, &answer, bytes, reset).await
            }
        }
    }

    /// The honest answer, as bytes.
    async fn work(&self, path: &str, body: &[u8]) -> Vec<u8> {
        let url = format!("{}{path}", self.0.sandbox);
        let request = match body {
            [] => self.0.client.get(url),
            body => self.0.client.post(url).body(body.to_vec()),
        };
        // The sandbox may have been told to break off: so does this, then.
        let Ok(answer) = request.send().await else {
            return Vec::new();
        };
        let status = answer.status().as_u16();
        let Ok(body) = answer.text().await else {
            return Vec::new();
        };
        let answer = http_answer(status, "", &body);
        self.0.answer_bytes.store(answer.len(), Ordering::SeqCst);
        answer
    }
}

/// A whole answer.
pub fn http_answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn finish<S: AsyncWrite + Unpin>(mut stream: S, answer: &[u8]) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await
}

/// Sends the beginning, waits until it has surely arrived, and resets the connection.
async fn cut<S: AsyncWrite + Unpin>(
    mut stream: S,
    answer: &[u8],
    bytes: usize,
    reset: impl Fn(&S),
) -> io::Result<()> {
    stream.write_all(&answer[..bytes.min(answer.len())]).await?;
    stream.flush().await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    reset(&stream);
    Ok(())
}

fn nonce(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    body["paymentPayload"]["payload"]["authorization"]["nonce"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Path and body of one request.
async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> io::Result<Option<(String, Vec<u8>)>> {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.trim().parse::<usize>().unwrap());
            if request.len() >= end + 4 + length {
                let path = head.split(' ').nth(1).unwrap().to_owned();
                return Ok(Some((path, request[end + 4..][..length].to_vec())));
            }
        }
        match stream.read(&mut chunk).await? {
            0 => return Ok(None),
            read => request.extend_from_slice(&chunk[..read]),
        }
    }
}

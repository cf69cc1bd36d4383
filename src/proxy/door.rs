//! The door before pingora: how many connections, how long and how large a request head may be.
//!
//! pingora 0.9 waits for each single read of a head up to a minute and takes a head of a megabyte, so
//! that one byte a minute keeps a connection for years. Here a head of HTTP/1 is read whole, within
//! one time and one size, and then handed to pingora as if it had been read ahead. HTTP/2 has its own
//! bounds, which are set where the server is made.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::settings::IpRange;
use crate::metrics;
use crate::throttle::{Client, Share, Shares};

/// What every HTTP/2 connection begins with.
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is read at once; most heads fit.
const READ_BYTES: usize = 4096;
/// After a refusal so much is still read, so that the answer is not lost behind a reset.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// And for so long.
const LINGER: Duration = Duration::from_secs(1);

/// Bounds on connections and heads.
#[derive(Clone, Debug)]
pub struct DoorLimits {
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one client; trusted proxies count as none.
    pub connections_per_client_max: usize,
    /// Bytes of a request line and its headers.
    pub head_bytes_max: usize,
    /// How long a head may take.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Whose connections are not counted by address.
    pub trusted_proxies: Vec<IpRange>,
    /// Whether clients may speak HTTP/2 without TLS.
    pub h2c: bool,
}

/// Lets connections in to `app`.
pub struct Door<A> {
    app: Arc<A>,
    limits: DoorLimits,
    places: Semaphore,
    shares: Shares<Client>,
}

/// How the reading of a head ended.
#[derive(Debug)]
enum Head {
    /// All of it is here, perhaps with the beginning of the body.
    Whole(BytesMut),
    /// The client closed, was quiet for too long, or the wall is ending.
    Gone,
    /// Begun, but not in time.
    Slow,
    /// Over the limit.
    TooLarge,
}

impl<A> Door<A> {
    /// The door of `app`.
    pub fn new(app: A, limits: DoorLimits) -> Self {
        Self {
            app: Arc::new(app),
            places: Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)),
            shares: Shares::new(limits.connections_per_client_max),
            limits,
        }
    }

    /// The client's share, `None` inside for a trusted proxy; or why there is none.
    fn share(&self, peer: Option<IpAddr>) -> Result<Option<Share<Client>>, &'static str> {
        let trusted = |ip| self.limits.trusted_proxies.iter().any(|r| r.contains(ip));
        if peer.is_some_and(trusted) {
            return Ok(None);
        }
        let share = self.shares.take(Client::at(peer));
        share.map(Some).ok_or("too_many_of_one_client")
    }

    /// The head of the next request. `first` says whether the connection is new.
    async fn head(&self, stream: &mut Stream, first: bool, shutdown: &ShutdownWatch) -> Head {
        let mut head = BytesMut::with_capacity(READ_BYTES);
        let (wait, mut ending) = match first {
            true => (self.limits.head_timeout, shutdown.clone()),
            false => (self.limits.idle_timeout, shutdown.clone()),
        };
        let read = tokio::select! {
            biased;
            read = timeout(wait, stream.read_buf(&mut head)) => read,
            _ = ending.wait_for(|ending| *ending) => return Head::Gone,
        };
        if !matches!(read, Ok(Ok(1..))) {
            return Head::Gone;
        }
        let until = after(self.limits.head_timeout);
        let mut searched = 0;
        loop {
            let end = end_of_head(&mut head, &mut searched);
            if end.unwrap_or(head.len()) > self.limits.head_bytes_max {
                return Head::TooLarge;
            }
            if end.is_some() {
                return Head::Whole(head);
            }
            head.reserve(READ_BYTES);
            match timeout_at(until, stream.read_buf(&mut head)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return Head::Gone,
                Err(_) => return Head::Slow,
            }
        }
    }
}

fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}

/// Where a head ends: behind its empty line, after line feeds with or without carriage returns, as
/// pingora's parser takes them. Empty lines before a head are dropped.
fn end_of_head(head: &mut BytesMut, searched: &mut usize) -> Option<usize> {
    if *searched == 0 {
        let blank = head.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
        let blank = blank.count();
        drop(head.split_to(blank));
    }
    let from = searched.saturating_sub(2);
    let tail = head.get(from..)?;
    *searched = head.len();
    let lines = tail.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    for (at, _) in lines {
        let after = tail.get(at.saturating_add(1)..).unwrap_or_default();
        let blank = match after {
            [b'\n', ..] => 2,
            [b'\r', b'\n', ..] => 3,
            _ => continue,
        };
        return Some(from.saturating_add(at).saturating_add(blank));
    }
    None
}

/// Answers before there is a session, and closes.
async fn refuse(stream: &mut Stream, status: &str, code: &str, message: &str) {
    let body = format!("{{\"error\":\"{code}\",\"message\":\"{message}\"}}");
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let goodbye = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        AsyncWriteExt::shutdown(stream).await?;
        let (mut unread, mut bytes) = (vec![0; READ_BYTES], 0_usize);
        while bytes < LINGER_BYTES_MAX {
            match stream.read(&mut unread).await? {
                0 => break,
                read => bytes = bytes.saturating_add(read),
            }
        }
        std::io::Result::Ok(())
    };
    // A client that does not listen has nothing to complain about.
    drop(timeout(LINGER, goodbye).await);
}

impl<A: HttpServerApp + Send + Sync + 'static> Door<A> {
    /// The requests of an HTTP/1 connection, one after the other.
    async fn serve_http1(&self, mut stream: Stream, shutdown: &ShutdownWatch) {
        let mut earlier: Option<HttpPersistentSettings> = None;
        loop {
            let head = match self.head(&mut stream, earlier.is_none(), shutdown).await {
                Head::Whole(head) => head,
                Head::Gone => return,
                Head::Slow => {
                    metrics::connection_refused("slow_head");
                    let message = "The request head did not arrive in time.";
                    refuse(&mut stream, "408 Request Timeout", "slow_head", message).await;
                    return;
                }
                Head::TooLarge => {
                    metrics::connection_refused("head_too_large");
                    let status = "431 Request Header Fields Too Large";
                    let message = "The request line and headers are over the limit.";
                    refuse(&mut stream, status, "head_too_large", message).await;
                    return;
                }
            };
            let mut session = ServerSession::new_http1(stream);
            match earlier.take() {
                Some(settings) => settings.apply_to_session(&mut session),
                None => session.set_keepalive(Some(self.limits.idle_timeout.as_secs().max(1))),
            }
            if *shutdown.borrow() {
                session.set_keepalive(None);
            }
            session.set_pipelined_prefix(head);
            let Some(reused) = self.app.process_new_http(session, shutdown).await else {
                return;
            };
            let (again, settings) = reused.consume();
            (stream, earlier) = (again, settings);
            if earlier.is_none() {
                return;
            }
        }
    }

    /// Whether the client begins as HTTP/2 does; `None` when it says nothing in time.
    async fn begins_as_http2(&self, stream: &mut Stream) -> Option<bool> {
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return Some(true);
        }
        if !self.limits.h2c || stream.get_ssl_digest().is_some() {
            return Some(false);
        }
        let mut begin = [0; H2_PREFACE.len()];
        let peeked = timeout(self.limits.head_timeout, stream.try_peek(&mut begin)).await;
        Some(peeked.ok()?.ok()? && begin == *H2_PREFACE)
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Door<A> {
    async fn process_new(
        self: &Arc<Self>,
        mut stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let Ok(_place) = self.places.try_acquire() else {
            metrics::connection_refused("too_many");
            return None;
        };
        let digest = stream.get_socket_digest();
        let peer = digest.and_then(|d| Some(d.peer_addr()?.as_inet()?.ip()));
        let _share = match self.share(peer) {
            Ok(share) => share,
            Err(reason) => {
                metrics::connection_refused(reason);
                return None;
            }
        };
        match self.begins_as_http2(&mut stream).await {
            Some(true) => self.app.process_new(stream, shutdown).await,
            Some(false) => {
                self.serve_http1(stream, shutdown).await;
                None
            }
            None => None,
        }
    }

    async fn cleanup(&self) {
        self.app.http_cleanup().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of the bytes after blank lines is the head, after these reads; the last one ends it.
    #[track_caller]
    fn check(reads: &[&str], want: Option<usize>) {
        let (mut head, mut searched, mut end) = (BytesMut::new(), 0, None);
        for read in reads {
            assert_eq!(end, None, "{reads:?}: too early");
            head.extend_from_slice(read.as_bytes());
            end = end_of_head(&mut head, &mut searched);
        }
        assert_eq!(end, want, "{reads:?}");
    }

    #[test]
    fn a_head_ends_with_an_empty_line_however_it_arrives() {
        check(&["GET / HTTP/1.1\r\nHost: a\r\n\r\n"], Some(27));
        check(&["GET / HTTP/1.1\nHost: a\n\n"], Some(24));
        check(&["GET / HTTP/1.1\r\nHost: a\n\r\nbody\n\n"], Some(26));
        check(&["GET / HTTP/1.1\r\nHost: a\r\n"], None);
        check(&["GET / HTTP/1.1\r\n\r", "\nbody"], Some(18));
        check(&["GET / HTTP/1.1\r\n", "\r\n"], Some(18));
        check(&["GET / HTTP/1.1\n", "\n"], Some(16));
        check(&["\r\n\r\n"], None);
        check(&["\r\n", "\r\n", "GET / HTTP/1.1\r\n\r\n"], Some(18));
        let bytes: Vec<String> = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            .chars()
            .map(String::from)
            .collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        check(&bytes, Some(27));
    }
}

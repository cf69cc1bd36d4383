//! The door before pingora: how many connections there are, and how their requests are read.
//!
//! HTTP/1 is read through [`Watched`], which bounds request heads, and a head is whole before there is a
//! session for it. HTTP/2 has its own bounds, which are set where the server is made, but for the time
//! of its first bytes.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::settings::{IpRange, Limits};
use crate::metrics;
use crate::proxy::Wall;
use crate::proxy::handshakes::{self, Handshakes};
use crate::proxy::quick::{Peer, Quick, Reply};
use crate::proxy::watched::{HeadLimits, Progress, Watched};
use crate::throttle::{Client, Share, Shares};

/// What every HTTP/2 connection begins with.
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bounds on heads, and on answers that nobody reads.
#[derive(Clone, Debug)]
pub struct DoorLimits {
    /// Bytes of a request line and its headers.
    pub head_bytes_max: usize,
    /// How long a head may take.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub send_timeout: Duration,
    /// Whether clients may speak HTTP/2 without TLS.
    pub h2c: bool,
}

impl DoorLimits {
    /// As `[limits]` says.
    #[must_use]
    pub const fn of(limits: &Limits, h2c: bool) -> Self {
        Self {
            head_bytes_max: limits.request_header_bytes_max,
            head_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            send_timeout: limits.send_timeout,
            h2c,
        }
    }
}

/// The connections of all doors.
pub struct Connections {
    places: Semaphore,
    shares: Shares<Client>,
    trusted_proxies: ArcSwap<Vec<IpRange>>,
    handshakes: Handshakes,
}

impl Connections {
    /// At most so many in all, and of one client; trusted proxies count as none.
    #[must_use]
    pub fn new(max: usize, per_client_max: usize, trusted_proxies: Vec<IpRange>) -> Self {
        Self {
            places: Semaphore::new(max.min(Semaphore::MAX_PERMITS)),
            shares: Shares::new(per_client_max),
            trusted_proxies: ArcSwap::from_pointee(trusted_proxies),
            handshakes: Handshakes::default(),
        }
    }

    /// Those that are not at the door yet.
    #[must_use]
    pub fn handshakes(&self) -> Handshakes {
        self.handshakes.clone()
    }

    /// Trusts others from the next connection on.
    pub fn trust(&self, trusted_proxies: Vec<IpRange>) {
        self.trusted_proxies.store(Arc::new(trusted_proxies));
    }

    /// The client's share, `None` inside for a trusted proxy; or why there is none.
    fn share(&self, peer: Option<IpAddr>) -> Result<Option<Share<Client>>, &'static str> {
        let trusted = |ip| self.trusted_proxies.load().iter().any(|r| r.contains(ip));
        if peer.is_some_and(trusted) {
            return Ok(None);
        }
        let share = self.shares.take(Client::at(peer));
        share.map(Some).ok_or("too_many_of_one_client")
    }
}

/// Lets connections in to `app`.
pub struct Door<A> {
    app: Arc<A>,
    quick: Option<Quick>,
    limits: DoorLimits,
    connections: Arc<Connections>,
}

impl<A> Door<A> {
    /// The door of `app`.
    pub fn new(app: A, limits: DoorLimits, connections: Arc<Connections>) -> Self {
        Self {
            app: Arc::new(app),
            quick: None,
            limits,
            connections,
        }
    }

    /// The same, where plain requests that have not paid are answered before they come to `app`, as
    /// this wall would answer them there.
    #[must_use]
    pub fn with_quick_answers(self, wall: Wall) -> Self {
        Self {
            quick: Quick::of(wall),
            ..self
        }
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Door<A> {
    const fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            bytes_max: self.limits.head_bytes_max,
            timeout: self.limits.head_timeout,
            idle_timeout: self.limits.idle_timeout,
            send_timeout: self.limits.send_timeout,
        }
    }

    /// The requests of an HTTP/1 connection, one after the other. Only with a whole head there is a
    /// session: while a connection is idle, it needs none.
    async fn serve_http1(&self, stream: Stream, mut peer: Peer, shutdown: &ShutdownWatch) {
        let progress = Arc::new(Progress::default());
        let watched = Watched::new(stream, self.head_limits(), Arc::clone(&progress));
        let mut watched = Box::new(watched);
        let mut earlier: Option<HttpPersistentSettings> = None;
        let mut ending = shutdown.clone();
        let mut head = watched.head().await;
        while head.is_ok() {
            if let Some(reply) = self.quick_answer(&mut watched, &mut peer, shutdown) {
                if !reply.send(&mut watched).await {
                    return;
                }
                watched.expect_next();
                head = next_head(&mut watched, &mut ending).await;
                continue;
            }
            let mut session = ServerSession::new_http1(watched);
            match earlier {
                Some(settings) => settings.apply_to_session(&mut session),
                None => session.set_keepalive(Some(self.limits.idle_timeout.as_secs().max(1))),
            }
            if *shutdown.borrow() {
                session.set_keepalive(None);
            }
            let served = self.app.process_new_http(session, shutdown);
            let Some(reused) = progress.of_one_request(served).await else {
                return;
            };
            let (stream, settings) = reused.consume();
            let Ok(again) = stream.into_any().downcast() else {
                return;
            };
            (watched, earlier) = (again, settings);
            watched.expect_next();
            head = next_head(&mut watched, &mut ending).await;
        }
    }

    /// The answer that needs no session, when there is one. A server that ends says so in its last
    /// answer, which pingora does.
    fn quick_answer(
        &self,
        watched: &mut Watched,
        peer: &mut Peer,
        shutdown: &ShutdownWatch,
    ) -> Option<Reply> {
        let quick = self.quick.as_ref().filter(|_| !*shutdown.borrow())?;
        let reply = quick.answer(watched.whole_head()?, peer)?;
        watched.skip_head();
        Some(reply)
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

/// The head after a request that was answered. A server that ends waits for none.
async fn next_head(watched: &mut Watched, shutdown: &mut ShutdownWatch) -> io::Result<()> {
    tokio::select! {
        biased; // what has come already is answered
        head = watched.head() => head,
        _ = shutdown.wait_for(|ends| *ends) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Door<A> {
    async fn process_new(
        self: &Arc<Self>,
        mut stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        handshakes::is_over(&stream);
        let Ok(_place) = self.connections.places.try_acquire() else {
            metrics::connection_refused("too_many");
            return None;
        };
        let _counted = metrics::connection();
        let digest = stream.get_socket_digest();
        let address = digest.and_then(|d| d.peer_addr()?.as_inet().copied());
        let _share = match self.connections.share(address.map(|a| a.ip())) {
            Ok(share) => share,
            Err(reason) => {
                metrics::connection_refused(reason);
                return None;
            }
        };
        match self.begins_as_http2(&mut stream).await {
            Some(true) => {
                let watched = Watched::http2(stream, self.head_limits());
                self.app.process_new(Box::new(watched), shutdown).await
            }
            Some(false) => {
                let is_tls = stream.get_ssl_digest().is_some();
                let peer = Peer::new(address, is_tls);
                self.serve_http1(stream, peer, shutdown).await;
                None
            }
            None => None,
        }
    }

    async fn cleanup(&self) {
        self.app.http_cleanup().await;
    }
}

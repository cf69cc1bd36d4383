//! A connection whose request heads have one time and one size.
//!
//! pingora 0.9 waits up to a minute for each single read of a head, takes a head of a megabyte and
//! parses it anew at every read, so that one byte a minute keeps a connection for years and single
//! bytes keep a core busy. It reads through this instead, which hands a head out when it is whole.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::metrics;
use crate::proxy::head::{HeadRefusal, TOO_LARGE, TOO_SLOW, end_of_head, leading_line_ends};
use crate::proxy::held::Held;
use crate::stall::Stall;

/// Bytes that every HTTP/2 connection begins with.
const H2_PREFACE_BYTES: usize = 24;
/// What is read at once while a head is read.
const READ_BYTES: usize = 4096;
/// After a refusal so long is read on, so that the answer is not lost behind a reset.
const LINGER: Duration = Duration::from_secs(1);

/// Bounds on heads, and on answers that nobody reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    /// Bytes of a request line and its headers.
    pub(super) bytes_max: usize,
    /// How long a head may take from its first byte, and the first of a connection in all.
    pub(super) timeout: Duration,
    /// How long a connection may wait for its next request.
    pub(super) idle_timeout: Duration,
    /// How long the client may take nothing of what is sent to it.
    pub(super) send_timeout: Duration,
}

/// What is known of the request that is read, to its connection and to whoever serves it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A head is awaited, or read.
    reads_head: AtomicBool,
    /// Bytes of the body that it declares, or [`UNKNOWN`].
    body_bytes: AtomicUsize,
}

/// A body whose bytes on the wire are not declared.
const UNKNOWN: usize = usize::MAX;

tokio::task_local! {
    /// Of the connection whose request this task serves.
    static PROGRESS: Arc<Progress>;
}

impl Progress {
    /// Runs what reads the request, until [`head_was_read`] is called from within, and answers it.
    pub(super) async fn of_one_request<T>(self: &Arc<Self>, serve: impl Future<Output = T>) -> T {
        PROGRESS.scope(Arc::clone(self), serve).await
    }

    fn head_was_read(&self, body_bytes: Option<usize>) {
        let bytes = body_bytes.unwrap_or(UNKNOWN);
        self.body_bytes.store(bytes, Ordering::Release);
        self.reads_head.store(false, Ordering::Release);
    }

    fn begin(&self) {
        self.body_bytes.store(UNKNOWN, Ordering::Release);
        self.reads_head.store(true, Ordering::Release);
    }
}

/// Whoever serves a request says so when it has one: what follows is no head any more, but so many
/// bytes of a body, when that is known.
pub(super) fn head_was_read(body_bytes: Option<usize>) {
    // HTTP/2 connections have no progress: their heads are bounded by the protocol's own settings.
    let _ = PROGRESS.try_with(|progress| progress.head_was_read(body_bytes));
}

/// A stream that is watched while heads are read.
pub(super) struct Watched {
    inner: Stream,
    limits: HeadLimits,
    progress: Arc<Progress>,
    stage: Stage,
    /// No head came before this one.
    is_first: bool,
    /// Nothing of this head was handed out before it was awaited.
    begins_here: bool,
    held: BytesMut,
    searched: usize,
    /// Line ends before this head.
    blank: usize,
    /// Where the head ends, once it is whole.
    head_bytes: Option<usize>,
    /// Bytes that were handed out since the head was awaited.
    handed_out: usize,
    /// The client closed before a head was whole.
    closed: bool,
    /// Bytes of the preface of HTTP/2 that are yet to come, before the timer ends.
    preface: usize,
    timer: Pin<Box<Sleep>>,
    /// What is written waits here for a flush, or for more.
    outgoing: Held,
    stall: Stall,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Nothing of the head is there.
    Waiting,
    /// Some of it is.
    Reading,
    /// All of it is, or the client has closed.
    Whole,
    /// Answered; what still comes is thrown away.
    Refused,
}

impl Watched {
    /// A new connection, whose first head is awaited from now on.
    pub(super) fn new(inner: Stream, limits: HeadLimits, progress: Arc<Progress>) -> Self {
        progress.begin();
        Self {
            inner,
            limits,
            progress,
            stage: Stage::Waiting,
            is_first: true,
            begins_here: true,
            held: BytesMut::new(),
            searched: 0,
            blank: 0,
            head_bytes: None,
            handed_out: 0,
            closed: false,
            preface: 0,
            timer: Box::pin(sleep(limits.timeout)),
            outgoing: Held::default(),
            stall: Stall::new(limits.send_timeout),
        }
    }

    /// A new connection that will speak HTTP/2, and has the time of a head to begin with it: pingora
    /// waits for ever. What follows is bounded by the idle time of HTTP/2.
    pub(super) fn http2(inner: Stream, limits: HeadLimits) -> Self {
        let mut watched = Self::new(inner, limits, Arc::default());
        watched.preface = H2_PREFACE_BYTES;
        watched.progress.reads_head.store(false, Ordering::Release);
        watched
    }

    fn poll_preface(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buf) {
            let read_bytes = buf.filled().len().saturating_sub(before);
            self.preface = self.preface.saturating_sub(read_bytes);
            return Poll::Ready(read);
        }
        ready!(self.timer.as_mut().poll(cx));
        metrics::connection_refused("preface_too_slow");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether all that was handed out belongs to the request that was read last: then what comes
    /// next begins with a head, and nothing of it is anywhere else.
    pub(super) fn begins_anew(&self) -> bool {
        let body = self.progress.body_bytes.load(Ordering::Acquire);
        let whole = self.head_bytes.and_then(|head| head.checked_add(body));
        self.begins_here && body != UNKNOWN && whole == Some(self.handed_out)
    }

    /// From now on the next head of the connection is awaited.
    pub(super) fn expect_next(&mut self) {
        self.begins_here = self.begins_anew();
        self.is_first = false;
        (self.stage, self.searched, self.blank) = (Stage::Waiting, 0, 0);
        (self.head_bytes, self.handed_out) = (None, 0);
        self.set_timer(self.limits.idle_timeout);
        self.progress.begin();
    }

    /// Waits until the head is whole. Who does so before there is a session spares its memory, of
    /// which pingora takes some 20 KiB. Of a head that does not begin here, that cannot be told:
    /// then there is no waiting.
    ///
    /// # Errors
    ///
    /// When no head came, not all of it, or it was refused.
    pub(super) async fn head(&mut self) -> io::Result<()> {
        if !self.begins_here {
            return Ok(());
        }
        std::future::poll_fn(|cx| self.poll_head(cx)).await?;
        // pingora would write a line about it, and strangers could fill the log.
        if self.closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// The head, once it is whole, as long as nothing of it was handed out.
    pub(super) fn whole_head(&self) -> Option<&[u8]> {
        let is_here = self.stage == Stage::Whole && self.begins_here && self.handed_out == 0;
        self.held.get(..self.head_bytes.filter(|_| is_here)?)
    }

    /// The request that the whole head is all of is answered by whoever has read it here.
    pub(super) fn skip_head(&mut self) {
        let head = self.head_bytes.unwrap_or(0).min(self.held.len());
        self.held.advance(head);
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        self.handed_out = head;
        self.progress.head_was_read(Some(0));
    }

    fn set_timer(&mut self, after: Duration) {
        let now = Instant::now();
        self.timer
            .as_mut()
            .reset(now.checked_add(after).unwrap_or(now));
    }

    /// How many bytes to hand out, when there are: all with a whole head, or what there is of it at
    /// the end; or line ends that may belong to what pingora has read before.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if self.stage == Stage::Refused {
                return self.poll_linger(cx);
            }
            let blank = match self.searched {
                0 => leading_line_ends(&self.held),
                _ => 0,
            };
            if blank > 0 && !self.is_first {
                self.blank = self.blank.saturating_add(blank);
                self.start_reading();
                if self.blank > self.limits.bytes_max {
                    self.refuse(cx, &TOO_LARGE);
                    continue;
                } else if self.timer.as_mut().poll(cx).is_ready() {
                    self.refuse(cx, &TOO_SLOW);
                    continue;
                } else if !self.begins_here {
                    return Poll::Ready(Ok(blank));
                }
            }
            self.held.advance(blank);
            let end = end_of_head(&self.held, &mut self.searched);
            if end.unwrap_or(self.held.len()) > self.limits.bytes_max {
                self.refuse(cx, &TOO_LARGE);
                continue;
            }
            if end.is_some() {
                (self.stage, self.head_bytes) = (Stage::Whole, end);
                return Poll::Ready(Ok(self.held.len()));
            }
            if !self.held.is_empty() {
                self.start_reading();
            }
            if self.timer.as_mut().poll(cx).is_ready() {
                if self.stage == Stage::Waiting {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                self.refuse(cx, &TOO_SLOW);
                continue;
            }
            if ready!(self.poll_more(cx))? == 0 {
                (self.stage, self.closed) = (Stage::Whole, true);
                return Poll::Ready(Ok(self.held.len()));
            }
        }
    }

    /// Something of a head is there.
    fn start_reading(&mut self) {
        if self.stage == Stage::Waiting {
            self.stage = Stage::Reading;
            // The first head's time runs from the beginning of the connection.
            if !self.is_first {
                self.set_timer(self.limits.timeout);
            }
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
        self.held.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Answers in pingora's place. Nothing was written before, so that the answer fits the socket.
    fn refuse(&mut self, cx: &mut Context<'_>, refusal: &HeadRefusal) {
        metrics::connection_refused(refusal.code);
        let mut inner = Pin::new(&mut self.inner);
        let written = inner.as_mut().poll_write(cx, refusal.answer().as_bytes());
        // A client that does not take it has nothing to complain about.
        let _ = (written, inner.as_mut().poll_flush(cx));
        let _ = inner.poll_shutdown(cx);
        self.stage = Stage::Refused;
        self.set_timer(LINGER);
    }

    /// Does this to the connection once nothing is held; for as long as the client takes something.
    fn poll_behind_held<T>(
        &mut self,
        cx: &mut Context<'_>,
        then: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let tried = match self.outgoing.poll_empty(&mut self.inner, cx) {
            Poll::Ready(Ok(())) => then(Pin::new(&mut self.inner), cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        self.stall.watch(cx, tried)
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.held.clear();
        loop {
            if self.timer.as_mut().poll(cx).is_ready() || ready!(self.poll_more(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            self.held.clear();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.preface > 0 {
            return this.poll_preface(cx, buf);
        }
        let mut allowed = usize::MAX;
        if this.stage != Stage::Whole && this.progress.reads_head.load(Ordering::Acquire) {
            allowed = ready!(this.poll_head(cx))?;
        }
        let before = buf.filled().len();
        if this.held.is_empty() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        } else {
            let taken = this.held.len().min(allowed).min(buf.remaining());
            buf.put_slice(&this.held.split_to(taken));
        }
        if this.held.is_empty() {
            // Between requests a connection holds no buffer.
            this.held = BytesMut::new();
        }
        let read = buf.filled().len().saturating_sub(before);
        this.handed_out = this.handed_out.saturating_add(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let tried = this.outgoing.poll_write(&mut this.inner, cx, buf);
        this.stall.watch(cx, tried)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .poll_behind_held(cx, |out, cx| out.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .poll_behind_held(cx, |out, cx| out.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_behind_held(cx, |out, cx| out.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // As pingora does with what it holds: an answer that breaks off is told as far as it came.
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let _ = self.outgoing.poll_empty(&mut self.inner, cx);
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is held are a client's headers.
        f.debug_struct("Watched")
            .field("inner", &self.inner)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {
        // Who left loses nothing.
        let _ = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_shutdown(cx)).await;
    }
}

#[async_trait]
impl Peek for Watched {}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Watched {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Watched {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

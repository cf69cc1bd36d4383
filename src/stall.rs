//! Writes that nobody takes. Who reads slowly is served; who reads nothing for too long is let go, and with it
//! what is held for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long nothing of what is to be written has been taken. While nothing is to be written no time passes.
#[derive(Debug)]
pub struct Stall {
    patience: Duration,
    since: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Of a connection that may take nothing for so long.
    #[must_use]
    pub const fn new(patience: Duration) -> Self {
        Self {
            patience,
            since: None,
        }
    }

    /// What came of a write or a flush, or [`io::ErrorKind::TimedOut`] in place of one wait too long.
    pub fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        tried: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.since = None;
            return tried;
        }
        let patience = self.patience;
        let timer = self.since.get_or_insert_with(|| Box::pin(sleep(patience)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A connection whose peer must take what is written to it.
#[derive(Debug)]
pub struct Unstalled<S> {
    inner: S,
    stall: Stall,
}

impl<S> Unstalled<S> {
    /// The peer may take nothing for so long.
    pub const fn new(inner: S, patience: Duration) -> Self {
        let stall = Stall::new(patience);
        Self { inner, stall }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, stall } = self.get_mut();
        let tried = Pin::new(inner).poll_write(cx, buf);
        stall.watch(cx, tried)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, stall } = self.get_mut();
        let tried = Pin::new(inner).poll_write_vectored(cx, bufs);
        stall.watch(cx, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, stall } = self.get_mut();
        let tried = Pin::new(inner).poll_flush(cx);
        stall.watch(cx, tried)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, stall } = self.get_mut();
        let tried = Pin::new(inner).poll_shutdown(cx);
        stall.watch(cx, tried)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn pair() -> (Unstalled<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(1000);
        (Unstalled::new(ours, PATIENCE), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_let_go() {
        let (mut ours, _theirs) = pair();
        ours.write_all(&[0; 1000]).await.unwrap();
        let begun = tokio::time::Instant::now();
        let stalled = ours.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_little_and_one_that_is_sent_nothing_are_not() {
        let (mut ours, mut theirs) = pair();
        let reading = async {
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                let mut some = [0; 100];
                theirs.read_exact(&mut some).await.unwrap();
            }
            theirs
        };
        let (written, mut theirs) = tokio::join!(
            async {
                ours.write_all(&[0; 6000]).await.unwrap();
                ours
            },
            reading
        );
        let mut ours = written;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let mut rest = vec![0; 1000];
        theirs.read_exact(&mut rest).await.unwrap();
        ours.write_all(&[0; 1000]).await.unwrap();
    }
}

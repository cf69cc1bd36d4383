//! Small writes wait for what comes behind them, so that the head of an answer leaves with its body in one
//! system call, and reaches the client in one piece. Nobody waits longer than until the next flush.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// So much waits. Whatever is larger is written at once.
const HELD_BYTES_MAX: usize = 4096;
/// Room for a head and a short body.
const HELD_BYTES: usize = 1024;

/// What was written and has not left yet. Holds no memory while there is nothing.
#[derive(Default)]
pub(super) struct Held(Vec<u8>);

impl Held {
    /// Takes `bytes`, or writes them behind what is held. As [`AsyncWrite::poll_write`].
    pub(super) fn poll_write(
        &mut self,
        out: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let together = self.0.len().saturating_add(bytes.len());
        if together <= HELD_BYTES_MAX {
            if self.0.is_empty() {
                self.0.reserve_exact(bytes.len().max(HELD_BYTES));
            }
            self.0.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        while !self.0.is_empty() {
            let both = [IoSlice::new(&self.0), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut *out).poll_write_vectored(cx, &both))?;
            let of_bytes = written.saturating_sub(self.0.len());
            self.has_left(written)?;
            if of_bytes > 0 {
                return Poll::Ready(Ok(of_bytes));
            }
        }
        Pin::new(out).poll_write(cx, bytes)
    }

    /// Writes what is held.
    pub(super) fn poll_empty(
        &mut self,
        out: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.0.is_empty() {
            let written = ready!(Pin::new(&mut *out).poll_write(cx, &self.0))?;
            self.has_left(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn has_left(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if bytes < self.0.len() {
            self.0.drain(..bytes);
        } else {
            self.0 = Vec::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes with each call.
    struct Out {
        at_once: usize,
        calls: Vec<Vec<u8>>,
    }

    impl AsyncWrite for Out {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all = slices.iter().flat_map(|slice| slice.to_vec());
            let taken: Vec<u8> = all.take(self.at_once).collect();
            self.calls.push(taken.clone());
            Poll::Ready(Ok(taken.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes all of it, and says in how many pieces it left before and after it was asked to leave.
    fn write(at_once: usize, writes: &[&[u8]]) -> (usize, Out) {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let (mut held, mut out) = (
            Held::default(),
            Out {
                at_once,
                calls: Vec::new(),
            },
        );
        for bytes in writes {
            let mut bytes = *bytes;
            while !bytes.is_empty() {
                let Poll::Ready(written) = held.poll_write(&mut out, cx, bytes) else {
                    panic!("never pending");
                };
                bytes = &bytes[written.unwrap()..];
            }
        }
        let early = out.calls.len();
        assert!(held.poll_empty(&mut out, cx).is_ready());
        assert_eq!(held.0.capacity(), 0);
        (early, out)
    }

    #[test]
    fn a_head_leaves_with_its_body_and_a_short_answer_in_one_piece() {
        let (head, body) = (vec![b'h'; 300], vec![b'b'; 100_000]);
        let (early, out) = write(usize::MAX, &[&head, &body]);
        assert_eq!((early, out.calls.len()), (1, 1));
        let (early, out) = write(usize::MAX, &[&head, b"ok"]);
        assert_eq!((early, out.calls.len()), (0, 1));
        let (early, out) = write(usize::MAX, &[&body, &body]);
        assert_eq!((early, out.calls.len()), (2, 2));
    }

    #[test]
    fn bytes_keep_their_order_however_few_are_taken_at_once() {
        let pieces: Vec<Vec<u8>> = [300, 5_000, 1, 4_096, 2, 3, 9_000, 0, 7]
            .iter()
            .zip(b'a'..)
            .map(|(length, byte)| vec![byte; *length])
            .collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        for at_once in [1, 2, 299, 300, 301, 4_096, 4_097, usize::MAX] {
            let (_, out) = write(at_once, &pieces);
            assert!(out.calls.concat() == pieces.concat(), "{at_once} at once");
        }
    }
}

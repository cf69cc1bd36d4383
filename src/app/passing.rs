//! What a wall and the one that takes its place say to each other, over a pair of Unix sockets that nobody
//! else has an end of.
//!
//! Lines of JSON, and open descriptors one by one. The end of the line is the end of the other process.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Bytes of a line.
const LINE_BYTES_MAX: usize = 256 << 10;

/// Characters of a reason that are passed on.
const WHY_CHARS_MAX: usize = 16 << 10;

/// What is meant by this exchange; another number is another one.
pub(super) const FORMAT: u32 = 1;

/// What a descriptor is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    /// A socket that listens, or is about to, on this address.
    Tcp(SocketAddr),
    /// The same in the file system: the admin listener, the control socket.
    Unix(PathBuf),
    /// The lock that says "one wall a ledger".
    LedgerLock,
}

/// What is said, in this order.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum Word {
    /// By the old one. One descriptor for each place follows.
    Offer {
        /// [`FORMAT`].
        format: u32,
        places: Vec<Place>,
        /// Its number in the ledger file, if that is its ledger.
        wall: Option<i64>,
        /// The ledger server, if that is its ledger.
        server: Option<String>,
    },
    /// By the new one: all is open, and it accepts.
    Ready { version: String },
    /// By the new one, before it ends.
    Failed { why: String },
    /// By the old one: it may answer operators too.
    Go,
    /// By the new one: it does.
    Serving,
    /// By the old one: it is the one that the service manager looks after.
    Main,
}

/// One end.
#[derive(Debug)]
pub(super) struct Line(UnixStream);

impl Line {
    /// Two ends, the second one to be given to a process.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own, other) = UnixStream::pair()?;
        Ok((Self(own), other.into()))
    }

    /// The end that this process was given as its standard input.
    pub(super) fn standard_input() -> io::Result<Self> {
        let given = io::stdin().as_fd().try_clone_to_owned()?;
        let line = UnixStream::from(given);
        // Fails for what is no socket.
        line.peer_addr()?;
        Ok(Self(line))
    }

    pub(super) fn say(&self, word: &Word) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        (&self.0).write_all(&line)
    }

    pub(super) fn say_failed(&self, why: &str) -> io::Result<()> {
        let why = why.chars().take(WHY_CHARS_MAX).collect();
        self.say(&Word::Failed { why })
    }

    /// The next word. Not a byte beyond it is taken: descriptors may follow.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] when the other process has ended, a time-out when it says
    /// nothing for `patience`.
    pub(super) fn hear(&self, patience: Option<Duration>) -> io::Result<Word> {
        self.0.set_read_timeout(patience)?;
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            (&self.0).read_exact(&mut byte)?;
            if byte == *b"\n" {
                return Ok(serde_json::from_slice(&line)?);
            }
            if line.len() >= LINE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            line.extend_from_slice(&byte);
        }
    }

    /// Gives a descriptor to the other process; it stays open here too.
    pub(super) fn give(&self, descriptor: impl AsFd) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let given = [descriptor.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&given)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let one = [IoSlice::new(b"+")];
        sendmsg(&self.0, &one, &mut control, SendFlags::empty())?;
        Ok(())
    }

    /// Takes the next descriptor.
    pub(super) fn take(&self) -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut one = [IoSliceMut::new(&mut byte)];
        recvmsg(&self.0, &mut one, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut given) = message
                && let Some(descriptor) = given.next()
            {
                return Ok(descriptor);
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_descriptors_arrive_as_they_were_sent_and_an_end_is_heard() {
        let (ours, theirs) = Line::pair().unwrap();
        let theirs = Line(theirs.into());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let offer = Word::Offer {
            format: FORMAT,
            places: vec![Place::Tcp(address), Place::LedgerLock],
            wall: Some(7),
            server: None,
        };
        ours.say(&offer).unwrap();
        ours.give(&listener).unwrap();
        ours.give(tempfile::tempfile().unwrap()).unwrap();
        ours.say(&Word::Go).unwrap();
        let Word::Offer { places, .. } = theirs.hear(None).unwrap() else {
            panic!("an offer was said");
        };
        assert_eq!(places.len(), 2);
        let taken = std::net::TcpListener::from(theirs.take().unwrap());
        assert_eq!(taken.local_addr().unwrap(), address);
        theirs.take().unwrap();
        assert!(matches!(theirs.hear(None).unwrap(), Word::Go));
        let silent = theirs.hear(Some(Duration::from_millis(1))).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        let ended = theirs.hear(None).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! Listening sockets: opened here, or handed to us by whoever started us.
//!
//! A service manager that keeps the sockets (systemd: `farewall.socket`) restarts the wall without
//! refusing a connection: what arrives in between waits in the socket. It hands them over as
//! `LISTEN_FDS` says, see sd_listen_fds(3).

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;
use socket2::SockRef;
use thiserror::Error;
use tokio::net::TcpSocket;

use crate::app::succession::Predecessor;

/// Bytes of an answer that wait in the kernel without having been sent. By itself it takes megabytes, and says
/// that there is room again when a third of them is gone: who reads slowly would seem to take nothing for a minute.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Why there is no socket to listen on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A descriptor that was handed over is something else.
    #[error("descriptor {nth} that was handed over is no TCP socket: {cause}")]
    NotTcp {
        /// Counted from 1.
        nth: usize,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Nobody would accept what arrives there.
    #[error(
        "a socket on {0} was handed over, but no [[listen]] has this address, nor has [acme]; \
         in farewall.socket and in the configuration they must be the same"
    )]
    Unclaimed(SocketAddr),
    /// Only a wall that runs starts a process that takes its place.
    #[error("no wall hands anything over on the standard input: {0}")]
    NoPredecessor(#[source] io::Error),
    /// One of the two would never be accepted from.
    #[error("two sockets on {0} were handed over")]
    Twice(SocketAddr),
}

/// What was handed over: sockets, by the address that they listen on, by a service manager or by the wall
/// whose place is taken.
#[derive(Debug, Default)]
pub struct Inherited {
    pub(super) tcp: BTreeMap<SocketAddr, TcpListener>,
    pub(super) unix: BTreeMap<PathBuf, UnixListener>,
    pub(super) predecessor: Option<Predecessor>,
}

impl Inherited {
    /// What `LISTEN_FDS` hands over; nothing when it is not set.
    ///
    /// To be called once, before anything else is opened.
    ///
    /// # Errors
    ///
    /// [`SocketError`], when one of them is no TCP socket.
    pub fn from_environment() -> Result<Self, SocketError> {
        let mut given = ListenFd::from_env();
        let mut sockets = BTreeMap::new();
        for index in 0..given.len() {
            let nth = index.saturating_add(1);
            let not_tcp = |cause| SocketError::NotTcp { nth, cause };
            let Some(socket) = given.take_tcp_listener(index).map_err(not_tcp)? else {
                continue;
            };
            let address = socket.local_addr().map_err(not_tcp)?;
            // Accepting is left to a runtime.
            socket.set_nonblocking(true).map_err(not_tcp)?;
            if sockets.insert(address, socket).is_some() {
                return Err(SocketError::Twice(address));
            }
        }
        Ok(Self {
            tcp: sockets,
            ..Self::default()
        })
    }
}

/// A socket that is ours, whether or not it listens already.
#[derive(Debug)]
pub(super) enum Socket {
    Bound(TcpSocket),
    Inherited(TcpListener),
}

impl Socket {
    /// Binds, but does not listen: a client that came before there is a wall would be left waiting.
    fn bind(address: SocketAddr) -> Result<Self, SocketError> {
        let bind = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // What is left of earlier connections is no obstacle.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        bind()
            .map(Self::Bound)
            .map_err(|cause| SocketError::Bind { address, cause })
    }

    /// Gives it away: whoever gets the descriptor has to close it.
    pub(super) fn into_raw_fd(self) -> RawFd {
        match self {
            Self::Bound(socket) => socket.into_raw_fd(),
            Self::Inherited(socket) => socket.into_raw_fd(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Bound(socket) => socket.as_fd(),
            Self::Inherited(socket) => socket.as_fd(),
        }
    }
}

/// One socket for each address.
#[derive(Debug)]
pub(super) struct Sockets(BTreeMap<SocketAddr, Socket>);

impl Sockets {
    /// Takes what was handed over, and opens the rest. What a service manager handed over must be used;
    /// of what a wall handed over, the rest is for others.
    ///
    /// They are opened before the ledger is touched, so that an occupied address is said at once:
    /// pingora would try it for half a minute, and then panic.
    pub(super) fn open(
        addresses: impl Iterator<Item = SocketAddr>,
        inherited: &mut Inherited,
    ) -> Result<Self, SocketError> {
        let mut sockets = BTreeMap::new();
        for address in addresses {
            let socket = match inherited.tcp.remove(&address) {
                Some(socket) => Socket::Inherited(socket),
                None => Socket::bind(address)?,
            };
            // Connections have it from the socket that they come to.
            SockRef::from(&socket)
                .set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
                .map_err(|cause| SocketError::Bind { address, cause })?;
            sockets.insert(address, socket);
        }
        match inherited.tcp.keys().next() {
            Some(address) if inherited.predecessor.is_none() => {
                Err(SocketError::Unclaimed(*address))
            }
            Some(_) | None => Ok(Self(sockets)),
        }
    }

    /// A second descriptor of each.
    pub(super) fn duplicates(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let all = self.0.iter();
        all.map(|(address, socket)| Ok((*address, socket.as_fd().try_clone_to_owned()?)))
            .collect()
    }

    /// The socket of that address; once.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<Socket> {
        self.0.remove(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> (SocketAddr, Inherited) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let inherited = Inherited {
            tcp: BTreeMap::from([(address, socket)]),
            ..Inherited::default()
        };
        (address, inherited)
    }

    #[test]
    fn what_was_handed_over_is_used_and_the_rest_is_opened() {
        let (address, mut inherited) = listening();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = other.local_addr().unwrap();
        drop(other);
        let mut sockets = Sockets::open([address, free].into_iter(), &mut inherited).unwrap();
        assert!(matches!(sockets.take(address), Some(Socket::Inherited(_))));
        assert!(matches!(sockets.take(free), Some(Socket::Bound(_))));
        assert!(sockets.take(free).is_none(), "once");
    }

    #[test]
    fn a_socket_that_nobody_would_accept_from_is_refused() {
        let (address, mut inherited) = listening();
        let refused = Sockets::open(std::iter::empty(), &mut inherited).unwrap_err();
        assert!(matches!(refused, SocketError::Unclaimed(a) if a == address));
    }

    #[test]
    fn an_occupied_address_is_refused_at_once() {
        let (address, _inherited) = listening();
        let refused = Sockets::open([address].into_iter(), &mut Inherited::default()).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with(&format!("cannot listen on {address}: ")),
            "{refused}"
        );
    }
}

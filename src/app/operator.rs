//! How an operator reaches a running wall: the admin listener, the control socket, SIGHUP, SIGUSR2.
//!
//! While this wall takes the place of another its sockets are here already, and the other one still
//! answers: nothing is accepted from them before buyers are served.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::AbortHandle;

use crate::admin::{self, Admin, AdminParts, Socket, Token};
use crate::app::StartError;
use crate::app::passing::Place;
use crate::app::sockets::Inherited;
use crate::app::succession::Begun;
use crate::app::upgrade::Kit;
use crate::config::settings::{AdminAddress, Settings};
use crate::reload::control::{Control, Servants};

/// The token that the settings name.
pub(super) fn admin_token(settings: &Settings) -> Result<Option<Token>, StartError> {
    let file = settings.server.admin_token_file.as_deref();
    Ok(file.map(Token::read).transpose()?)
}

/// SIGHUP asks for a reload, SIGUSR2 for an upgrade. Early: until they are heard, they end the process.
pub(super) fn hear_signals(payments: &Runtime, servants: Servants) -> Result<(), StartError> {
    let _within = payments.enter();
    let failed = |cause| StartError::Io {
        what: "cannot hear signals".to_owned(),
        cause,
    };
    let mut reload = signal(SignalKind::hangup()).map_err(failed)?;
    let mut upgrade = signal(SignalKind::user_defined2()).map_err(failed)?;
    payments.spawn(async move {
        loop {
            tokio::select! {
                Some(()) = reload.recv() => servants.reloads.nudge(),
                Some(()) = upgrade.recv() => servants.upgrades.nudge(),
                else => return,
            }
        }
    });
    Ok(())
}

/// Where operators are answered.
pub(super) struct Desk<'a> {
    pub(super) settings: &'a Settings,
    pub(super) payments: &'a Runtime,
    pub(super) begun: Begun,
    /// What the wall before has open.
    pub(super) inherited: Inherited,
    /// What the next one is given.
    pub(super) kit: Kit,
    /// What ends as soon as that one answers.
    pub(super) operators: Vec<AbortHandle>,
}

impl Desk<'_> {
    /// Health, readiness, metrics and the admin API.
    pub(super) fn serve_admin(&mut self, parts: AdminParts) -> Result<(), StartError> {
        let Some(address) = &self.settings.server.admin else {
            return Ok(());
        };
        let failed = |cause| StartError::Io {
            what: format!("admin listener {address}"),
            cause,
        };
        let socket = match self.inherited_admin(address).map_err(failed)? {
            Some(socket) => socket,
            None => self
                .payments
                .block_on(Socket::bind(address))
                .map_err(failed)?,
        };
        let place = match address {
            AdminAddress::Tcp(address) => Place::Tcp(*address),
            AdminAddress::Unix(path) => unix_place(path),
        };
        let second = socket.as_fd().try_clone_to_owned().map_err(failed)?;
        self.hand_over(place, second);
        let admin = Admin::new(parts);
        self.answer(async move { match admin::serve(socket, admin).await {} });
        Ok(())
    }

    fn inherited_admin(&mut self, address: &AdminAddress) -> io::Result<Option<Socket>> {
        let _within = self.payments.enter();
        Ok(match address {
            AdminAddress::Tcp(address) => match self.inherited.tcp.remove(address) {
                Some(socket) => {
                    socket.set_nonblocking(true)?;
                    Some(Socket::Tcp(tokio::net::TcpListener::from_std(socket)?))
                }
                None => None,
            },
            AdminAddress::Unix(path) => match self.inherited_unix(path) {
                Some(socket) => {
                    socket.set_nonblocking(true)?;
                    Some(Socket::Unix(tokio::net::UnixListener::from_std(socket)?))
                }
                None => None,
            },
        })
    }

    fn inherited_unix(&mut self, path: &Path) -> Option<UnixListener> {
        self.inherited.unix.remove(&absolute(path))
    }

    /// Commands to the running wall.
    pub(super) fn serve_control(
        &mut self,
        servants: Servants,
        config: &Path,
    ) -> Result<(), StartError> {
        let Some(control) = &self.settings.server.control else {
            return Ok(());
        };
        let inherited = self.inherited_unix(&control.path);
        let within = self.payments.enter();
        let made = match inherited {
            Some(socket) => Control::inherited(socket),
            None => Control::bind(&control.path),
        };
        drop(within);
        let made = made.and_then(|socket| Ok((socket.duplicate()?, socket)));
        match made {
            Ok((second, socket)) => {
                self.hand_over(unix_place(&control.path), second);
                self.answer(socket.serve(servants, config.to_owned()));
                Ok(())
            }
            Err(cause) if control.is_wanted => Err(StartError::Io {
                what: format!("control socket {}", control.path.display()),
                cause,
            }),
            // Nobody asked for it, and signals do the same.
            Err(error) => {
                let path = control.path.display();
                tracing::warn!(%path, %error, "no control socket; reload with SIGHUP");
                Ok(())
            }
        }
    }

    fn hand_over(&mut self, place: Place, descriptor: OwnedFd) {
        self.kit.places.push((place, descriptor));
    }

    /// Works as soon as it is this process that answers.
    fn answer(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let mut begun = self.begun.clone();
        let answering = self.payments.spawn(async move {
            // The sender lives as long as anything can begin.
            if begun.wait_for(|begun| *begun).await.is_ok() {
                work.await;
            }
        });
        self.operators.push(answering.abort_handle());
    }
}

fn unix_place(path: &Path) -> Place {
    Place::Unix(absolute(path))
}

/// The working directory of both processes is the same, but they need not spell it alike.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

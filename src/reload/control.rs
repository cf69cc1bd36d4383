//! The control socket: how `farewall reload` and `farewall upgrade` talk to a running wall.
//!
//! One line of JSON in, one JSON document back, and the connection ends. Whoever may send the process
//! signals may use it, and nobody else: its mode is 0600, and the other end must be the same user or
//! root.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as Listener, UnixStream as Blocking};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::reload::upgrade::{Replaced, UpgradeError, Upgrades};
use crate::reload::{Answer, Handle};

/// Bytes of a request.
const REQUEST_BYTES_MAX: u64 = 16 << 10;

/// Bytes of an answer: a change of ten thousand rules has a few megabytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How long a request, and each part of an answer, may take on its way.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the wall may work on an answer: facilitators are asked meanwhile.
const WORK: Duration = Duration::from_secs(120);

/// Connections at once.
const CONNECTIONS_MAX: usize = 8;

/// What is asked of a wall.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// To take over its configuration file again.
    Reload {
        /// The file that is meant, absolute and without symbolic links.
        config: PathBuf,
    },
    /// To be replaced by a new process.
    Upgrade {
        /// The file that is meant, absolute and without symbolic links.
        config: PathBuf,
        /// The program to start; the one that the wall was started as, when there is none.
        program: Option<PathBuf>,
    },
}

/// Who does what is asked.
#[derive(Clone, Debug)]
pub struct Servants {
    /// Reloads.
    pub reloads: Handle,
    /// Upgrades.
    pub upgrades: Upgrades,
}

/// What the wall answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reply {
    /// Whether it did what was asked.
    pub ok: bool,
    /// For people.
    pub text: String,
    /// For programs: `changes` and `warnings`, or `errors`.
    #[serde(default)]
    pub details: Value,
}

/// Whose socket it is.
pub struct Control {
    listener: UnixListener,
    own_uid: u32,
}

impl Control {
    /// Makes the socket. One that nobody listens on any more is replaced; nothing else is. Must be
    /// called within a runtime.
    ///
    /// # Errors
    ///
    /// When the path is somebody else's, or cannot be used.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            Ok(_) => match Blocking::connect(path) {
                Ok(_) => {
                    let what = "another process listens there";
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
                }
                // Only this says that nobody listens; the socket of another user refuses otherwise.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                }
                Err(error) => return Err(error),
            },
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Self::on(listener)
    }

    /// Takes over the socket of the wall before. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn inherited(listener: Listener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::on(UnixListener::from_std(listener)?)
    }

    /// A second descriptor of the socket.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    fn on(listener: UnixListener) -> io::Result<Self> {
        // Both ends of a pair are ours.
        let (own, _other) = UnixStream::pair()?;
        Ok(Self {
            listener,
            own_uid: own.peer_cred()?.uid(),
        })
    }

    /// Serves until the runtime ends. `config` is what the wall runs.
    pub async fn serve(self, servants: Servants, config: PathBuf) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let config = Arc::new(config);
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let is_allowed = stream
                .peer_cred()
                .is_ok_and(|peer| peer.uid() == self.own_uid || peer.uid() == 0);
            if !is_allowed {
                tracing::warn!("another user connected to the control socket; turned away");
                continue;
            }
            let (servants, config) = (servants.clone(), Arc::clone(&config));
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = converse(stream, &servants, &config).await {
                    tracing::debug!(%error, "a conversation on the control socket broke off");
                }
            });
        }
    }
}

async fn converse(mut stream: UnixStream, servants: &Servants, config: &Path) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new(&mut stream).take(REQUEST_BYTES_MAX);
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let reply = match serde_json::from_str(&line) {
        Ok(Request::Reload { config: meant }) => match is_other(config, &meant) {
            Some(no) => no,
            None => Reply::of(&servants.reloads.reload().await),
        },
        Ok(Request::Upgrade {
            config: meant,
            program,
        }) => match is_other(config, &meant) {
            Some(no) => no,
            None => Reply::of_upgrade(&servants.upgrades.replace(program).await),
        },
        Err(_) => Reply::no("this is no command".to_owned()),
    };
    let text = serde_json::to_vec(&reply)?;
    timeout(PATIENCE, stream.write_all(&text)).await??;
    stream.shutdown().await
}

/// The answer to who means another wall.
fn is_other(own: &Path, meant: &Path) -> Option<Reply> {
    let own = std::fs::canonicalize(own).unwrap_or_else(|_| own.to_owned());
    let own_text = own.display();
    (own != meant).then(|| {
        Reply::no(format!(
            "the wall here runs another configuration: {own_text}"
        ))
    })
}

impl Reply {
    fn no(text: String) -> Self {
        Self {
            ok: false,
            text,
            details: Value::Null,
        }
    }

    /// The answer to an upgrade.
    #[must_use]
    pub fn of_upgrade(answer: &Result<Replaced, UpgradeError>) -> Self {
        match answer {
            Ok(Replaced { pid, version }) => Self {
                ok: true,
                text: format!(
                    "farewall {version} serves as process {pid}; \
                     the one before finishes what it has begun, and ends"
                ),
                details: json!({ "pid": pid, "version": version }),
            },
            Err(error) => Self::no(format!("{error}\nnot replaced; the wall goes on as before")),
        }
    }

    /// The answer to a reload.
    #[must_use]
    pub fn of(answer: &Answer) -> Self {
        match answer {
            Ok(report) => Self {
                ok: true,
                text: report.to_string(),
                details: json!(report),
            },
            Err(error) => Self {
                ok: false,
                text: error.to_string(),
                details: json!({ "errors": error.diagnostics() }),
            },
        }
    }
}

/// Asks the wall whose socket this is, and waits for its answer.
///
/// # Errors
///
/// When nobody listens there, or the answer is none.
pub fn ask(path: &Path, request: &Request) -> io::Result<Reply> {
    let mut stream = Blocking::connect(path)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(WORK))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reload::channel;

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        std::fs::write(&path, "precious").unwrap();
        assert!(Control::bind(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
        let first = Control::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Control::bind(&path).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(path.exists(), "left behind, as a crash does");
        assert!(Control::bind(&path).is_ok());
        let datagrams = directory.path().join("log");
        let _in_use = std::os::unix::net::UnixDatagram::bind(&datagrams).unwrap();
        assert!(Control::bind(&datagrams).is_err());
        assert!(datagrams.exists(), "of another kind, and in use");
    }

    #[tokio::test]
    async fn what_is_no_command_and_another_configuration_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (path, config) = (directory.path().join("control"), directory.path().join("a"));
        std::fs::write(&config, "").unwrap();
        let config = config.canonicalize().unwrap();
        let (reloads, requests) = channel();
        let (upgrades, orders) = crate::reload::upgrade::channel();
        drop((requests, orders));
        let control = Control::bind(&path).unwrap();
        let servants = Servants { reloads, upgrades };
        tokio::spawn(control.serve(servants, config.clone()));
        let reload = |config: PathBuf| {
            let path = path.clone();
            let asked = move || ask(&path, &Request::Reload { config });
            async { tokio::task::spawn_blocking(asked).await.unwrap().unwrap() }
        };
        let other = reload("/somewhere/else".into()).await;
        assert!(!other.ok && other.text.contains("another configuration"));
        let ending = reload(config).await;
        assert!(!ending.ok && ending.text.contains("ending"), "{ending:?}");
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"{\"command\":\"rm\"}\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("no command"), "{answer}");
    }
}

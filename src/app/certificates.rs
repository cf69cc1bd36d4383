//! Certificates of an ACME server: who orders them, and the socket that its challenges come to.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::services::listening::Service;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::StartError;
use super::listening::Listening;
use super::sockets::Sockets;
use crate::acme::Acme;
use crate::clock::SystemClock;
use crate::config::settings::Settings;
use crate::proxy::{Challenges, Connections, Door, DoorLimits, Generation};

/// Opens the state folder, where there is an `[acme]` that a listener uses.
pub(super) fn open(settings: &Settings) -> Result<Option<Acme>, StartError> {
    match &settings.acme {
        Some(acme) if settings.listeners.iter().any(|listener| listener.acme) => {
            Ok(Some(Acme::open(acme, Arc::new(SystemClock))?))
        }
        Some(_) | None => Ok(None),
    }
}

/// The service that answers challenges. Orders begin when it accepts connections: before, the server
/// would find nobody.
pub(super) fn challenges(
    acme: Acme,
    settings: &Settings,
    in_force: &Arc<ArcSwap<Generation>>,
    connections: &Arc<Connections>,
    sockets: &mut Sockets,
    (accepting, runtime): (&UnboundedSender<Handle>, &Handle),
) -> Listening<Door<Challenges>> {
    let app = Challenges {
        tokens: acme.tokens(),
        in_force: Arc::clone(in_force),
    };
    let door = Door::new(
        app,
        DoorLimits::of(&settings.limits, false),
        Arc::clone(connections),
    );
    let mut service = Service::new("challenges".to_owned(), door);
    let mut own = Vec::new();
    if let Some(address) = settings.acme.as_ref().map(|acme| acme.listen) {
        let buffers = L4BufferSettings::default().read(0);
        service.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(buffers));
        let socket = sockets.take(address);
        own.extend(socket.map(|socket| (address.to_string(), socket)));
    }
    let (begun, mut begins) = unbounded_channel();
    let accepting = accepting.clone();
    runtime.spawn(async move {
        if let Some(handle) = begins.recv().await {
            // Whoever listened for this may be gone: nobody needs to know.
            accepting.send(handle).ok();
            begin(acme);
        }
    });
    Listening {
        service,
        sockets: own,
        accepting: begun,
    }
}

/// In a thread of its own, which ends with the process.
fn begin(acme: Acme) {
    let run = move || match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(acme.run()),
        Err(error) => tracing::error!(%error, "no certificates can be ordered or renewed"),
    };
    let begun = std::thread::Builder::new()
        .name("acme".to_owned())
        .spawn(run);
    if let Err(error) = begun {
        tracing::error!(%error, "no certificates can be ordered or renewed");
    }
}

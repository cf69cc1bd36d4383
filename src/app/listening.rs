//! The listeners: pingora services whose sockets are open already, and that say when they accept.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, RuntimeOpts, Server, ShutdownWatch};
use pingora::services::listening::Service;
use pingora::services::{Service as Serve, ServiceReadyNotifier, ServiceWithDependents};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::acme::Acme;
use crate::app::generation::trusted_peers;
use crate::app::sockets::{Socket, Sockets};
use crate::app::{StartError, certificates};
use crate::config::settings::{Limits, ListenSettings, Settings};
use crate::proxy::{Connections, Door, DoorLimits, Wall};
use crate::tls::{Certificates, Managed};

/// The bounds on connections, which all listeners share.
pub(super) fn connections(settings: &Settings) -> Arc<Connections> {
    Arc::new(Connections::new(
        settings.limits.connections_max,
        settings.limits.connections_per_client_max,
        trusted_peers(settings),
    ))
}

/// What tells that a service accepts, and how many services there are.
pub(super) type Accepts = (UnboundedReceiver<Handle>, usize);

pub(super) fn server(
    settings: &Settings,
    wall: Wall,
    connections: &Arc<Connections>,
    mut sockets: Sockets,
    payments: &Handle,
) -> Result<(Server, Accepts), StartError> {
    let grace = settings.server.shutdown_grace.as_secs();
    let conf = ServerConf {
        threads: settings.server.worker_threads,
        work_stealing: settings.server.work_stealing,
        upstream_keepalive_pool_size: 512,
        grace_period_seconds: Some(grace),
        graceful_shutdown_timeout_seconds: Some(5),
        ca_file: settings
            .server
            .ca_file
            .as_ref()
            .map(|p| p.display().to_string()),
        max_retries: 3,
        fast_timeout_to_tokio_threshold_seconds: timers_of_pingora(settings.server.work_stealing),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let (accepting, accepts) = unbounded_channel();
    let acme = certificates::open(settings)?;
    let managed = acme.as_ref().map(Acme::managed).unwrap_or_default();
    let mut services = 0;
    for listeners in kinds(&settings.listeners) {
        let Some(&ListenSettings {
            h2c,
            ref forward_auth,
            ..
        }) = listeners.first().copied()
        else {
            continue;
        };
        let wall = Wall {
            forward_auth: forward_auth.clone().map(Arc::new),
            ..wall.clone()
        };
        let proxy = proxy(&server.configuration, wall.clone(), &settings.limits, h2c);
        let limits = DoorLimits::of(&settings.limits, h2c);
        let door = Door::new(proxy, limits, Arc::clone(connections)).with_quick_answers(wall);
        let mut service = Listening {
            service: Service::new("farewall".to_owned(), door),
            sockets: Vec::new(),
            accepting: accepting.clone(),
        };
        let handshakes = connections.handshakes();
        handshakes.count(service.service.endpoints());
        for listener in listeners {
            listen(&mut service.service, listener, &managed, payments)?;
            let socket = sockets.take(listener.address);
            service
                .sockets
                .extend(socket.map(|socket| (listener.address.to_string(), socket)));
        }
        server.add_service(service);
        services = usize::saturating_add(services, 1);
    }
    if let Some(acme) = acme {
        let told = (&accepting, payments);
        let in_force = &wall.in_force;
        let service =
            certificates::challenges(acme, settings, in_force, connections, &mut sockets, told);
        server.add_service(service);
        services = usize::saturating_add(services, 1);
    }
    Ok((server, (accepts, services)))
}

/// The listeners, those of one kind together: each kind has a service of its own.
///
/// h2c is recognised by its preface, which makes a first request shorter than 24 bytes wait for more:
/// only the listeners that ask for it pay for that. Each forward-auth listener has its own proxies.
fn kinds(listeners: &[ListenSettings]) -> Vec<Vec<&ListenSettings>> {
    let mut kinds: Vec<Vec<&ListenSettings>> = Vec::new();
    for listener in listeners {
        let alike = |of: &&mut Vec<&ListenSettings>| {
            let of = of.first();
            of.is_some_and(|of| {
                (of.h2c, &of.forward_auth) == (listener.h2c, &listener.forward_auth)
            })
        };
        match kinds.iter_mut().find(alike) {
            Some(kind) => kind.push(listener),
            None => kinds.push(vec![listener]),
        }
    }
    kinds
}

/// Up to how many seconds pingora's own timers are used, beyond that tokio's. Workers that take work from one
/// another share tokio's timers and their lock. Any other has its own, which cost less than pingora's and
/// leave nothing behind when they are not needed after all.
const fn timers_of_pingora(work_stealing: bool) -> Option<u64> {
    Some(if work_stealing { 900 } else { 0 })
}

/// pingora with our bounds on HTTP/2; the [`Door`] keeps those of HTTP/1.
fn proxy(conf: &Arc<ServerConf>, wall: Wall, limits: &Limits, h2c: bool) -> HttpProxy<Wall> {
    let mut proxy = pingora::proxy::http_proxy(conf, wall);
    let mut options = HttpServerOptions::default();
    options.h2c = h2c;
    options.h2_idle_timeout = Some(limits.idle_timeout);
    proxy.server_options = Some(options);
    let mut h2 = default_h2_options();
    h2.max_header_list_size(u32::try_from(limits.request_header_bytes_max).unwrap_or(u32::MAX));
    proxy.h2_options = Some(h2);
    proxy
}

fn listen(
    service: &mut Service<Door<HttpProxy<Wall>>>,
    listener: &ListenSettings,
    managed: &[Managed],
    payments: &Handle,
) -> Result<(), StartError> {
    let address = listener.address.to_string();
    if !listener.has_tls() {
        // Whatever reads here brings a buffer, and what is written waits in `proxy::held`; pingora's own
        // would be 64 KiB for each connection.
        let buffers = L4BufferSettings::unbuffered();
        service.add_listener(ListenerConfig::tcp(address).l4_buffer(buffers));
        return Ok(());
    }
    let failed = |cause: String| StartError::Tls {
        address: address.clone(),
        cause,
    };
    let managed = if listener.acme { managed } else { &[] };
    let (certificates, watcher) =
        Certificates::load(&listener.tls, managed).map_err(|e| failed(e.to_string()))?;
    payments.spawn(watcher.watch());
    // No files: the resolver has read them.
    let mut tls = TlsSettings::intermediate("", "").map_err(|e| failed(e.to_string()))?;
    tls.set_cert_resolver(certificates);
    tls.enable_h2();
    // About one TLS record.
    let buffers = L4BufferSettings::default().read(16 << 10);
    service.add_listener(ListenerConfig::tcp(address).tls(tls).l4_buffer(buffers));
    Ok(())
}

/// A service of pingora.
pub(super) struct Listening<A> {
    pub(super) service: Service<A>,
    /// By address, as the service's listeners are written.
    pub(super) sockets: Vec<(String, Socket)>,
    /// Gets the runtime of the service as soon as it accepts connections.
    pub(super) accepting: UnboundedSender<Handle>,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServiceWithDependents for Listening<A> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
        ready: ServiceReadyNotifier,
    ) {
        // pingora looks here before it opens a socket.
        if let Some(table) = &fds {
            for (address, socket) in self.sockets.drain(..) {
                table.lock().add(address, socket.into_raw_fd());
            }
        }
        ready.notify_ready();
        let service = &mut self.service;
        let mut serving = pin!(Serve::start_service(
            service,
            fds,
            shutdown,
            listeners_per_fd
        ));
        // With open sockets, the first step leads to the accept loops without waiting for anything.
        let ended = poll_fn(|context| Poll::Ready(serving.as_mut().poll(context).is_ready())).await;
        if !ended {
            // Whoever listened for this may be gone: nobody needs to know.
            self.accepting.send(Handle::current()).ok();
            serving.await;
        }
    }

    fn name(&self) -> &str {
        Serve::name(&self.service)
    }

    fn threads(&self) -> Option<usize> {
        Serve::threads(&self.service)
    }

    fn runtime_opts_override(&self, global: &RuntimeOpts) -> Option<RuntimeOpts> {
        Serve::runtime_opts_override(&self.service, global)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Serve::listen_addresses(&self.service)
    }
}

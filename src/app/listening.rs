//! A pingora service whose sockets are open already, and that says when it accepts.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::server::{ListenFds, RuntimeOpts, ShutdownWatch};
use pingora::services::listening::Service;
use pingora::services::{Service as Serve, ServiceReadyNotifier, ServiceWithDependents};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use super::sockets::Socket;

/// See the module.
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

//! TLS handshakes under way: connections that have no request yet, and may be about to have one.
//!
//! pingora shakes hands before anything of ours sees a connection, but for what it calls before. That puts
//! a mark on the connection, which is taken off at the [`Door`](crate::proxy::Door), or goes with it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::listeners::{Listeners, PreTlsProcess};
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{GetProxyDigest, Stream};

/// Counts them, on all listeners.
#[derive(Clone, Debug, Default)]
pub struct Handshakes(Arc<AtomicUsize>);

impl Handshakes {
    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Counts those on these listeners.
    pub fn count(&self, listeners: &mut Listeners) {
        listeners.set_pre_tls_callback(Arc::new(self.clone()));
    }

    fn begin(&self) -> Handshake {
        self.0.fetch_add(1, Ordering::SeqCst);
        Handshake {
            count: Arc::clone(&self.0),
            is_over: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl PreTlsProcess for Handshakes {
    async fn process(&self, stream: &mut L4Stream) -> Result<()> {
        // The one place for things of ours that a connection has.
        let answer = ResponseHeader::build(200, Some(0))?;
        let mark: Box<dyn Any + Send + Sync> = Box::new(self.begin());
        stream.set_proxy_digest(ProxyDigest::new(Box::new(answer), Some(mark)));
        Ok(())
    }
}

struct Handshake {
    count: Arc<AtomicUsize>,
    is_over: AtomicBool,
}

impl Handshake {
    fn end(&self) {
        if !self.is_over.swap(true, Ordering::SeqCst) {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.end();
    }
}

/// The handshake of this connection, if it had one, is over.
pub(super) fn is_over(connection: &Stream) {
    let digest = connection.get_proxy_digest();
    let mark = digest.as_ref().and_then(|digest| digest.user_data.as_ref());
    if let Some(handshake) = mark.and_then(|mark| mark.downcast_ref::<Handshake>()) {
        handshake.end();
    }
}

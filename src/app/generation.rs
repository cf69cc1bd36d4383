//! One configuration, made ready for use; unchanged parts of the one before are taken over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::app::StartError;
use crate::chain_rpc::{self, Chains, EvmChain};
use crate::config::settings::{AcceptSettings, FacilitatorSettings, IpRange, Limits, Settings};
use crate::facilitator::Facilitator;
use crate::facilitator::breaker::BreakerSettings;
use crate::facilitator::guarded::Guarded;
use crate::facilitator::http::{BuildError, HttpFacilitator};
use crate::facilitator::supported::{LoadedBook, Origin, load_book};
use crate::gate::{Facilitators, Gate, GateLimits};
use crate::proxy::{Generation, Seller};
use crate::reconcile::{Preferences, Sources};
use crate::throttle::ThrottleLimits;
use crate::upstream::{Upstream, UpstreamError, Upstreams};

/// How long a start or reload waits for facilitators to say what they handle.
const SUPPORTED_DEADLINE: Duration = Duration::from_secs(3);

/// So many times `send_timeout_ms` for a piece of a response over HTTP/2. pingora gives the piece (up to
/// 64 KiB from most origins) one time in all, in which one that is read slowly must fit.
const STREAM_PATIENCE: u32 = 10;

/// What of a configuration has a life of its own.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(super) settings: Settings,
    pub(super) facilitators: Facilitators,
    pub(super) chains: Chains,
    pub(super) upstreams: Arc<Upstreams>,
}

impl Parts {
    /// Connects everything that the settings name. What has the same settings as before is the same,
    /// with its connections and what is known of its health.
    pub(super) fn new(
        settings: Settings,
        before: Option<&Self>,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        Ok(Self {
            facilitators: facilitators(&settings, before)?,
            chains: chains(&settings, before)?,
            upstreams: Arc::new(upstreams(&settings, before, runtime)?),
            settings,
        })
    }

    /// Whether a verdict that was given under `before` is one that could be asked for now.
    pub(super) fn asks_as(&self, before: &Self) -> bool {
        self.settings.facilitators == before.settings.facilitators
            && self.settings.accepts == before.settings.accepts
    }

    /// What the facilitators handle: as they say now, else as they said last.
    pub(super) async fn supported(&self) -> LoadedBook {
        let loaded = load_book(&self.caches(), SUPPORTED_DEADLINE).await;
        for (facilitator, origin) in &loaded.origins {
            match origin {
                Origin::Fresh => {}
                Origin::Cached(fault) => {
                    tracing::warn!(%facilitator, %fault, "no answer to /supported; using its last one");
                }
                Origin::Unknown(fault) => {
                    tracing::warn!(%facilitator, %fault, "no answer to /supported, now or before");
                }
            }
        }
        loaded
    }

    /// Remembers what they said for a start without them, once this configuration is in force.
    pub(super) fn keep(&self, supported: &LoadedBook) {
        supported.keep(&self.caches());
    }

    fn caches(&self) -> Vec<(Arc<dyn Facilitator>, PathBuf)> {
        let cache = |(name, settings): (&Arc<str>, &FacilitatorSettings)| {
            let facilitator = Arc::clone(self.facilitators.get(name)?);
            Some((facilitator, settings.supported_cache.clone()))
        };
        let configured = self.settings.facilitators.iter();
        configured.filter_map(cache).collect()
    }

    /// Who may know what became of a settlement.
    pub(super) fn sources(&self) -> Sources {
        Sources {
            chains: self.chains.clone(),
            preferences: preferences(&self.settings),
        }
    }

    /// What requests are served by.
    pub(super) fn generation(&self, gate: Gate) -> Generation {
        let settings = &self.settings;
        Generation {
            gate,
            upstreams: Arc::clone(&self.upstreams),
            seller: Seller {
                public_origin: settings.server.public_origin.clone(),
                service_name: settings.server.service_name.clone(),
                allowance_as_402: settings.server.permit2_allowance_as_402,
            },
            cors: settings.cors.clone(),
            trusted_proxies: settings.server.trusted_proxies.clone(),
            target_bytes_max: settings.limits.target_bytes_max,
            body_timeout: settings.limits.body_timeout,
            stream_timeout: settings.limits.send_timeout.saturating_mul(STREAM_PATIENCE),
        }
    }
}

/// Who may open more connections than a client: trusted proxies, and those that ask.
pub(super) fn trusted_peers(settings: &Settings) -> Vec<IpRange> {
    let asking = settings
        .listeners
        .iter()
        .filter_map(|l| l.forward_auth.as_ref());
    let asking = asking.flat_map(|asking| &asking.trusted);
    let trusted = settings.server.trusted_proxies.iter();
    trusted.chain(asking).copied().collect()
}

/// The clients of all facilitators.
pub(crate) fn facilitators(
    settings: &Settings,
    before: Option<&Parts>,
) -> Result<Facilitators, BuildError> {
    let ca_file = settings.server.ca_file.as_deref();
    let mut all = Facilitators::new();
    for (name, facilitator) in &settings.facilitators {
        let same = before
            .filter(|before| before.settings.facilitators.get(name) == Some(facilitator))
            .and_then(|before| before.facilitators.get(name));
        if let Some(same) = same {
            all.insert(name.clone(), Arc::clone(same));
            continue;
        }
        let breaker = BreakerSettings {
            failures: facilitator.breaker_failures,
            open_for: facilitator.breaker_open,
        };
        let client = HttpFacilitator::new(facilitator, ca_file)?;
        all.insert(name.clone(), Arc::new(Guarded::new(client, breaker)));
    }
    Ok(all)
}

/// The chains that may be asked what became of a payment.
pub(crate) fn chains(
    settings: &Settings,
    before: Option<&Parts>,
) -> Result<Chains, chain_rpc::BuildError> {
    let ca_file: Option<&Path> = settings.server.ca_file.as_deref();
    let mut all = Chains::new();
    for (network, chain) in &settings.networks {
        let same = before
            .filter(|before| before.settings.networks.get(network) == Some(chain))
            .and_then(|before| before.chains.get(network));
        match same {
            Some(same) => all.insert(network.clone(), Arc::clone(same)),
            None => all.insert(network.clone(), Arc::new(EvmChain::new(chain, ca_file)?)),
        };
    }
    Ok(all)
}

/// In which order the facilitators of each way of being paid are preferred.
pub(crate) fn preferences(settings: &Settings) -> Preferences {
    let of = |(name, accept): (&Arc<str>, &AcceptSettings)| {
        (Arc::clone(name), accept.facilitators.clone())
    };
    settings.accepts.iter().map(of).collect()
}

fn upstreams(
    settings: &Settings,
    before: Option<&Parts>,
    runtime: &Handle,
) -> Result<Upstreams, UpstreamError> {
    let mut all = Upstreams::new();
    for (name, upstream) in &settings.upstreams {
        let same = before
            .and_then(|before| before.upstreams.get(name))
            .filter(|same| same.settings() == upstream);
        let made = match same {
            Some(same) => Arc::clone(same),
            None => Upstream::new(upstream.clone(), runtime)?,
        };
        all.insert(name.clone(), made);
    }
    Ok(all)
}

/// Bounds on what strangers can make the gate do.
pub(super) fn gate_limits(limits: &Limits) -> GateLimits {
    GateLimits {
        payment_header_bytes_max: limits.payment_header_bytes_max,
        unverified_proofs_max: limits.unverified_proofs_max,
        duplicate_wait: limits.duplicate_wait,
        retry_window: limits.retry_window,
        throttle: ThrottleLimits {
            calls_per_client: limits.verify_calls_per_minute_per_client,
            calls_per_payer: limits.verify_calls_per_minute_per_payer,
            refused_per_client: limits.refused_proofs_per_minute_per_client,
            verifying_per_client_max: limits.unverified_proofs_per_client_max,
            keys_max: limits.rate_limit_keys_max,
        },
    }
}

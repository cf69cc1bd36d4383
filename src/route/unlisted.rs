//! Requests that no rule governs.

use std::sync::Arc;

use crate::config::settings::{Settings, Unmatched};
use crate::metrics::RuleMeter;
use crate::route::shadow::ShadowRoute;
use crate::route::{Access, FreeRoute, UNMATCHED};

/// What becomes of requests that no rule governs, when they are let through.
#[derive(Debug)]
pub(super) enum Unlisted {
    Free(Arc<FreeRoute>),
    Shadow(Arc<ShadowRoute>),
}

impl Unlisted {
    /// As the configuration says; `None` when they are refused.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let route = |upstream: &Arc<str>| FreeRoute {
            rule: UNMATCHED.into(),
            upstream: Arc::clone(upstream),
            request_body_bytes_max: settings.limits.request_body_bytes_max,
            rate_limit: None,
            meter: RuleMeter::new(&UNMATCHED.into()),
        };
        match &settings.unmatched {
            Unmatched::Deny => None,
            Unmatched::Free(upstream) => Some(Unlisted::Free(Arc::new(route(upstream)))),
            Unmatched::Shadow(upstream) => {
                let shadow = ShadowRoute::unlisted(route(upstream));
                Some(Unlisted::Shadow(Arc::new(shadow)))
            }
        }
    }

    pub(super) fn route(&self) -> &Arc<FreeRoute> {
        match self {
            Self::Free(route) => route,
            Self::Shadow(route) => &route.free,
        }
    }

    pub(super) fn access(&self) -> Access {
        match self {
            Self::Free(route) => Access::Free(Arc::clone(route)),
            Self::Shadow(route) => Access::Shadow(Arc::clone(route)),
        }
    }
}

//! What is running: version, configuration, rules, facilitators. And reconciling and reloading, now.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Admin;
use super::answer::{Problem, ledger_failed, problem};
use crate::config;
use crate::facilitator::Fitness;
use crate::reload::ReloadError;
use crate::reload::control::Reply;
use crate::route::table::{Grant, Rule};
use crate::settlement::SettleWhen;

pub(super) async fn version() -> Json<Value> {
    Json(json!({ "name": "farewall", "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) async fn config(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(config::shown(&admin.in_force().settings))
}

pub(super) async fn rules(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let in_force = admin.in_force();
    let routes = in_force.rules.gate.routes();
    let rules: Vec<_> = routes.rules().iter().map(rule).collect();
    Json(json!({ "rules": rules }))
}

fn rule(rule: &Rule) -> Value {
    let grant = match &rule.grant {
        Grant::Free(_) => json!("free"),
        Grant::Denied => json!("denied"),
        Grant::Unavailable(_) => json!("unavailable"),
        Grant::Priced(_) => json!("priced"),
        Grant::Shadow(_) => json!("shadow"),
    };
    let sold = match &rule.grant {
        Grant::Priced(route) => Some(route),
        Grant::Shadow(route) => route.priced.as_ref(),
        Grant::Free(_) | Grant::Denied | Grant::Unavailable(_) => None,
    };
    let (mut settle, mut offers) = (Value::Null, Vec::new());
    if let Some(route) = sold {
        settle = match route.settle {
            SettleWhen::AfterResponse => json!("after"),
            SettleWhen::BeforeForward => json!("before"),
        };
        for offer in &route.price.quote().offers {
            offers.push(json!({
                "accept": offer.accept,
                "scheme": offer.scheme,
                "network": offer.network.as_str(),
                "asset": offer.asset.as_str(),
                "symbol": offer.symbol,
                "amount_atomic": offer.amount.to_string(),
                "amount": offer.amount.in_tokens(offer.decimals),
                "pay_to": offer.pay_to.as_str(),
                "facilitators": offer.facilitators,
            }));
        }
    }
    json!({
        "name": rule.name,
        "at": format!("{}:{}", rule.at.file, rule.at.line),
        "methods": rule.methods.to_string(),
        "host": rule.host.to_string(),
        "path": rule.path.to_string(),
        "upstream": rule.grant.upstream(),
        "access": grant,
        "settle": settle,
        "prices": offers,
    })
}

pub(super) async fn facilitators(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let in_force = admin.in_force();
    let verifier = in_force.rules.gate.verifier();
    let all = verifier.facilitators().iter().map(|(name, facilitator)| {
        let fitness = match facilitator.fitness() {
            Fitness::Well => "well",
            Fitness::Busy => "busy",
            Fitness::Failing => "failing",
        };
        let breaker = facilitator.breaker().as_str();
        json!({ "name": name, "fitness": fitness, "breaker": breaker })
    });
    Json(json!({ "facilitators": all.collect::<Vec<_>>() }))
}

pub(super) async fn reconcile(State(admin): State<Arc<Admin>>) -> Response {
    match admin.errands().look_now().await {
        Some(Ok(unknown)) => Json(json!({ "unknown": unknown })).into_response(),
        Some(Err(error)) => ledger_failed(&error),
        None => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            Problem::Busy,
            "The reconciler has enough to do; ask again in a moment.",
        ),
    }
}

/// Answers as the control socket does.
pub(super) async fn reload(State(admin): State<Arc<Admin>>) -> Response {
    let answer = admin.reloads().reload().await;
    let status = match &answer {
        Ok(_) => StatusCode::OK,
        Err(ReloadError::Refused(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        Err(ReloadError::BeingReplaced | ReloadError::Ending) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(Reply::of(&answer))).into_response()
}

//! The receipt of one payment: for programs as JSON, for people as a page that prints on one sheet.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::answer::{Problem, bad_query, ledger_failed, problem};
use super::payments::no_such_payment;
use crate::books::export;
use crate::books::when;
use crate::ledger::{ClaimId, Record};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    format: Option<String>,
}

pub(super) async fn receipt(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<i64>,
    Query(asked): Query<Asked>,
) -> Response {
    let is_page = match asked.format.as_deref().unwrap_or("json") {
        "json" => false,
        "html" => true,
        _ => return bad_query("`format` is json or html"),
    };
    let read = admin.read(move |ledger, _| ledger.get(ClaimId(id)));
    let record = match read.await {
        Ok(Some(record)) => record,
        Ok(None) => return no_such_payment(),
        Err(error) => return ledger_failed(&error),
    };
    if !record.state.is_paid() {
        return problem(
            StatusCode::NOT_FOUND,
            Problem::NotPaid,
            "There is a receipt only for what was paid.",
        );
    }
    let receipt = told(&admin, &record);
    if !is_page {
        return Json(receipt).into_response();
    }
    // The page runs nothing and loads nothing.
    let policy = [(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'",
    )];
    (policy, Html(page(&receipt))).into_response()
}

/// What a receipt says. Amounts are texts.
fn told(admin: &Admin, record: &Record) -> Value {
    let claim = &record.claim;
    let in_force = admin.in_force();
    let server = &in_force.settings.server;
    let tokens = &in_force.tokens;
    let amount = tokens.text(&claim.network, &claim.asset, claim.amount);
    json!({
        "number": record.id.0,
        "date": when::text(record.claimed_at),
        "seller": server.service_name.as_deref().unwrap_or(&server.public_origin),
        "origin": server.public_origin,
        "bought": claim.request,
        "rule": claim.rule,
        "amount": amount,
        "amount_atomic": claim.amount.to_string(),
        "asset": claim.asset.as_str(),
        "network": claim.network.as_str(),
        "payer": claim.payer.as_str(),
        "pay_to": claim.pay_to.as_str(),
        "transaction": record.transaction,
        "payment": claim.payment.to_string(),
        "delivered": record.state.as_str() == "delivered",
        "settlement": export::receipt(record),
    })
}

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:44em;margin:3em auto;padding:0 1em}\
    th{text-align:left;vertical-align:top;padding-right:2em;font-weight:normal;color:#555}\
    td{overflow-wrap:anywhere}h1{font-size:1.4em}tr.sum td{font-weight:bold}\
    @media print{body{margin:0}}";

fn page(receipt: &Value) -> String {
    let text = |name: &str| match &receipt[name] {
        Value::String(text) => escaped(text),
        Value::Null => "-".to_owned(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            escaped(&other.to_string())
        }
    };
    let mut rows = String::new();
    for (title, name) in [
        ("Date", "date"),
        ("Seller", "seller"),
        ("At", "origin"),
        ("Bought", "bought"),
        ("Amount", "amount"),
        ("In smallest units", "amount_atomic"),
        ("Token", "asset"),
        ("Network", "network"),
        ("Paid by", "payer"),
        ("Paid to", "pay_to"),
        ("Transaction", "transaction"),
        ("Payment", "payment"),
    ] {
        let class = if name == "amount" {
            " class=\"sum\""
        } else {
            ""
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            rows,
            "<tr{class}><th>{title}</th><td>{}</td></tr>",
            text(name)
        );
    }
    let number = text("number");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>Receipt {number}</title><style>{STYLE}</style></head>\n\
         <body><h1>Receipt {number}</h1>\n<table>\n{rows}</table>\n</body></html>\n"
    )
}

/// Parts of a receipt were written by strangers.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_is_text_on_the_page() {
        let page = page(&json!({ "number": 7, "bought": "GET /<script>alert('x')</script>&\"" }));
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("GET /&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;"));
        assert!(page.contains("<h1>Receipt 7</h1>"));
    }
}

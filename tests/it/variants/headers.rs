//! Headers that ask an origin to take a free request for a priced one, and those that claim to have paid.

use super::request;

/// On free routes; each asks for something else than the request line does.
pub(super) const REDIRECTING: &[&str] = &[
    "X-Original-URL: /v1/secret",
    "X-Original-Url: http://a.example/v1/secret",
    "X-ORIGINAL-URI: /v1/secret",
    "X-Original-Path: /v1/secret",
    "X_Original_URL: /v1/secret",
    "X-Original_URL: /v1/secret",
    "X-Rewrite-URL: /v1/secret",
    "X_Rewrite-URL: /v1/secret",
    "X-Rewrite-Uri: /v1/secret",
    "X-Forwarded-Uri: /v1/secret",
    "X-Forwarded-Url: /v1/secret",
    "X-Forwarded-Path: /v1/secret",
    "X-Forwarded-Prefix: /v1/secret",
    "X-Forwarded-Prefix: /v1/private",
    "X_Forwarded_Prefix: /v1/private",
    "X-Forwarded-Context: /v1/private",
    "X-Script-Name: /v1/private",
    "X-Envoy-Original-Path: /v1/secret",
    "X-Replaced-Path: /v1/secret",
    "X-Original-URL:/v1/secret",
    "X-Original-URL:\t/v1/secret",
    "X-Original-URL: \t /v1/secret \t",
    "X-Original-URL : /v1/secret",
    "X-Original-URL\t: /v1/secret",
    " X-Original-URL: /v1/secret",
    "X: y\r\n X-Original-URL: /v1/secret",
    "X: y\r\n\tX-Original-URL: /v1/secret",
    "X: y\nX-Original-URL: /v1/secret",
    "X: y\rX-Original-URL: /v1/secret",
    "X: y\0\r\nX-Original-URL: /v1/secret",
    "X: y\u{b}X-Original-URL: /v1/secret",
    "X-Original-URL:\r\n /v1/secret",
    "X-Original-URL: /x\r\nX-Original-URL: /v1/secret",
    "Connection: X-Variant\r\nX-Original-URL: /v1/secret",
    "Connection: close, X-Original-URL\r\nX-Original-URL: /v1/secret",
    "\u{feff}X-Original-URL: /v1/secret",
    "X-Original-URL\u{ff1a} /v1/secret",
];

/// On `GET /v1/jobs`, which is free; changing jobs is not.
pub(super) const OVERRIDING: &[&str] = &[
    "X-HTTP-Method-Override: POST",
    "X-HTTP-Method-Override: DELETE",
    "X-Http-Method-Override: post",
    "X_HTTP_METHOD_OVERRIDE: POST",
    "X-HTTP-Method_Override: POST",
    "X-HTTP-Method: PUT",
    "X_HTTP_Method: PUT",
    "X-Method-Override: POST",
    "X_Method_Override: POST",
    "X-Original-Method: POST",
    "X-Forwarded-Method: POST",
    "X-HTTP-Method-Override:POST",
    "X-HTTP-Method-Override:\tPOST",
    "X-HTTP-Method-Override : POST",
    "X: y\nX-HTTP-Method-Override: POST",
    "X: y\r\n X-HTTP-Method-Override: POST",
    "X-HTTP-Method-Override: GET\r\nX-HTTP-Method-Override: POST",
];

pub(super) const OVERRIDING_QUERIES: &[&str] = &[
    "_method=POST",
    "_method=DELETE",
    "_METHOD=post",
    "_Method=PUT",
    "%5fmethod=POST",
    "%5Fm%65thod=POST",
    "a=b&_method=POST",
    "a=b;_method=POST",
    "_method=GET&_method=POST",
    "&_method=POST",
    "?_method=POST",
    "_method%20=POST",
    "%20_method=POST",
    "+_method=POST",
    "_method=%50OST",
    "a=1%26&_method=POST",
    "%255fmethod=POST",
    "_method%3dPOST&_method=POST",
    "_metho%64=POST",
    "%u005fmethod=POST",
    "_m%ef%bd%85thod=POST",
    "%ef%bc%bfmethod=POST",
];

/// On the priced paths: nobody is believed to have paid.
pub(super) const CLAIMING: &[&str] = &[
    "X-Farewall-Payment-Id: 0x01",
    "X-Farewall-Payer: 0x01\r\nX-Farewall-Rule: secret",
    "PAYMENT-SIGNATURE: e30=",
    "PAYMENT-SIGNATURE:",
    "PAYMENT-SIGNATURE: null",
    "PAYMENT-SIGNATURE: bnVsbA==",
    "PAYMENT-SIGNATURE: W10=",
    "PAYMENT-SIGNATURE: \"\"",
    "PAYMENT-SIGNATURE: eyJ4NDAyVmVyc2lvbiI6Mn0=",
    "X-PAYMENT: e30=",
    "X-PAYMENT: eyJ4NDAyVmVyc2lvbiI6MX0=",
    "PAYMENT-RESPONSE: eyJzdWNjZXNzIjp0cnVlfQ==",
    "X-PAYMENT-RESPONSE: eyJzdWNjZXNzIjp0cnVlfQ==",
    "PAYMENT-REQUIRED: e30=",
    "Settlement-Overrides: {\"amount\":\"0\"}",
    "SIGN-IN-WITH-X: e30=",
    "Authorization: Bearer x",
    "Origin: https://app.example",
    "Origin: https://app.example\r\nAccess-Control-Request-Method: GET",
    "Access-Control-Request-Method: GET",
    "X-Forwarded-For: 127.0.0.1",
    "X-Real-IP: 127.0.0.1",
    "Forwarded: for=127.0.0.1;host=localhost",
    "X-Forwarded-Host: localhost",
    "X-Forwarded-Proto: https",
    "X-HTTP-Method-Override: OPTIONS",
    "X-HTTP-Method-Override: HEAD",
    "X-Original-URL: /",
    "X-Rewrite-URL: /public/x",
    "Upgrade: websocket\r\nConnection: Upgrade",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Range: bytes=0-0",
    "If-None-Match: *",
    "If-Modified-Since: Fri, 20 Nov 2099 00:00:00 GMT",
    "Cache-Control: only-if-cached",
    "TE: trailers",
    "Max-Forwards: 0",
    "Purpose: prefetch",
    "X-Forwarded-Prefix: /public",
    "Via: 1.1 localhost",
];

/// In place of `Host: a.example`.
pub(super) const HOSTS: &[&str] = &[
    "",
    "Host:",
    "Host: ",
    "Host: A.EXAMPLE",
    "Host: a.example.",
    "Host: a.example:80",
    "Host: a.example:443",
    "Host: a.example:0",
    "Host: a.example:99999",
    "Host: b.example",
    "Host: localhost",
    "Host: 127.0.0.1",
    "Host: [::1]",
    "Host: [::1",
    "Host: a.example/public",
    "Host: a.example/public/",
    "Host: a.example?x",
    "Host: a.example#",
    "Host: user@a.example",
    "Host: a.example, b.example",
    "Host: a.example b.example",
    "Host: a.example\t",
    "Host:\ta.example",
    "Host : a.example",
    " Host: a.example",
    "Host: a.example\r\nHost: b.example",
    "Host: a.example\r\nHost: a.example",
    "host: a.example\r\nHOST: b.example",
    "Host: a.example\r\n b.example",
    "X: y\nHost: a.example",
    "Host: a.example\0",
    "Host: a_example",
    "Host: *",
    "Host: .",
    "Host: ..",
    "Host: xn--a",
    "Host: \u{ff41}.example",
    "Host: a.example%00",
    "Host: %61.example",
    "Host: http://a.example",
    "Host: //a.example",
];

pub(super) fn all() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let with = |header: &str| format!("{header}\r\n");
    for header in REDIRECTING {
        for free in ["/", "/public/a", "/v1/open", "/nowhere"] {
            all.push(request("GET", free, &with(header)));
        }
        all.push(request("POST", "/public/a", &with(header)));
    }
    for header in OVERRIDING {
        all.push(request("GET", "/v1/jobs", &with(header)));
        all.push(request("HEAD", "/v1/jobs", &with(header)));
        all.push(request("GET", "/v1/jobs/", &with(header)));
    }
    for query in OVERRIDING_QUERIES {
        all.push(request("GET", &format!("/v1/jobs?{query}"), ""));
        all.push(request("GET", &format!("/v1/jobs/?{query}"), ""));
    }
    for header in CLAIMING {
        for path in ["/v1/secret", "/v1/private/a"] {
            for method in ["GET", "OPTIONS", "POST"] {
                all.push(request(method, path, &with(header)));
            }
        }
    }
    for host in HOSTS {
        let lines = if host.is_empty() {
            String::new()
        } else {
            with(host)
        };
        for target in ["/v1/secret", "/v1/private/a", "http://a.example/v1/secret"] {
            let head = format!("GET {target} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
            all.push(head.into_bytes());
        }
    }
    all
}

#![expect(
    clippy::arithmetic_side_effects,
    reason = "small numbers, and an overflow would fail the test"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::config::settings::EndpointHeaders;
use crate::x402::message::SettlementResponse;

const BODY: &str = r#"{"x402Version":2,"paymentPayload":{"payload":{"signature":"0xSECRETSIG"}},"paymentRequirements":{"scheme":"exact","network":"eip155:84532","amount":"10"}}"#;

/// What the raw server does with one connection, after it has read the request.
#[derive(Clone)]
enum Reply {
    /// Writes these bytes and closes.
    Bytes(String),
    /// Says nothing until the client is gone.
    Hang,
    /// Closes without a word.
    Close,
}

/// A server of one scripted reply a connection; the last one repeats. Requests are kept as text.
struct Raw {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                let reply = replies[i.min(replies.len() - 1)].clone();
                let (stream, seen) = (stream.unwrap(), Arc::clone(&seen));
                thread::spawn(move || serve(stream, &reply, &seen));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, reply: &Reply, seen: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_complete(&String::from_utf8_lossy(&request)) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => request.extend_from_slice(&buffer[..n]),
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    seen.lock().unwrap().push(text);
    match reply {
        Reply::Bytes(bytes) => drop(stream.write_all(bytes.as_bytes())),
        Reply::Hang => drop(stream.read(&mut buffer)),
        Reply::Close => {}
    }
}

fn is_complete(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().unwrap());
    body.len() >= length
}

fn http(status: u16, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    ))
}

fn json(status: u16, body: &str) -> Reply {
    http(status, "content-type: application/json\r\n", body)
}

fn settings(address: SocketAddr) -> FacilitatorSettings {
    let header = |value: &str| vec![("authorization".to_owned(), value.to_owned())];
    FacilitatorSettings {
        name: "test".into(),
        url: format!("http://{address}/base/"),
        sandbox: true,
        connect_timeout: Duration::from_secs(2),
        verify_timeout: Duration::from_millis(400),
        settle_timeout: Duration::from_millis(400),
        calls_max: 4,
        answer_bytes_max: 2048,
        headers: EndpointHeaders {
            verify: header("for-verify"),
            settle: header("for-settle"),
            supported: header("for-supported"),
        },
        supported_cache: PathBuf::new(),
        verify_retries: 0,
        breaker_failures: 10,
        breaker_open: Duration::from_secs(5),
    }
}

fn client(address: SocketAddr) -> HttpFacilitator {
    HttpFacilitator::new(&settings(address), None).unwrap()
}

fn request(body: &str) -> FacilitatorRequest {
    FacilitatorRequest { body: body.into() }
}

fn word(answer: &SettleAnswer) -> String {
    let fault = |f: &FacilitatorFault| {
        let text = format!("{f:?}");
        text.split([' ', '(']).next().unwrap().to_owned()
    };
    match answer {
        SettleAnswer::Settled(r) => format!("settled {}", r.transaction),
        SettleAnswer::Refused(r) => format!("refused {}", r.error_reason.as_deref().unwrap()),
        SettleAnswer::Unknown(f) => format!("unknown {}", fault(f)),
        SettleAnswer::NotSent(f) => format!("not sent {}", fault(f)),
    }
}

/// Settles against the scripted replies: the answer in words, and how many requests were sent.
#[track_caller]
fn check(replies: Vec<Reply>, want: &str, sent: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let raw = Raw::start(replies);
    let answer = runtime.block_on(client(raw.address).settle(&request(BODY)));
    assert_eq!(word(&answer), want);
    let requests = raw.requests();
    assert_eq!(requests.len(), sent, "requests sent");
    assert!(requests.iter().all(|r| r.ends_with(BODY)), "identical body");
}

const PENDING: &str =
    r#"{"success":false,"errorReason":"settlement_pending","transaction":"0x1","network":"n"}"#;

#[test]
fn a_settlement_that_names_its_transaction_is_settled() {
    let ok = r#"{"success":true,"transaction":"0xab","network":"eip155:84532","payer":"0x1"}"#;
    check(vec![json(200, ok)], "settled 0xab", 1);
}

#[test]
fn success_false_is_a_refusal_unless_the_server_failed_at_its_work() {
    let no = r#"{"success":false,"errorReason":"no_funds","transaction":"","network":"n"}"#;
    check(vec![json(200, no)], "refused no_funds", 1);
    check(vec![json(400, no)], "refused no_funds", 1);
    for status in [500, 502, 503] {
        check(vec![json(status, no)], "unknown Status", 1);
    }
    let bare = r#"{"success":false}"#;
    check(vec![json(200, bare)], "refused payment_rejected", 1);
}

#[test]
fn success_without_a_transaction_is_not_a_success() {
    for body in [
        r#"{"success":true,"network":"eip155:84532"}"#,
        r#"{"success":true,"transaction":null,"network":"eip155:84532"}"#,
        r#"{"success":true,"transaction":"","network":"eip155:84532"}"#,
        r#"{"success":true,"transaction":"a b","network":"eip155:84532"}"#,
    ] {
        check(vec![json(200, body)], "unknown Junk", 1);
    }
}

#[test]
fn what_carries_no_verdict_leaves_the_outcome_unknown() {
    check(
        vec![http(200, "", "<html>welcome</html>")],
        "unknown Junk",
        1,
    );
    check(vec![json(200, "[]")], "unknown Junk", 1);
    check(vec![json(200, r#"{"success":"true"}"#)], "unknown Junk", 1);
    check(vec![json(204, "")], "unknown Junk", 1);
    check(vec![http(500, "", "oops")], "unknown Status", 1);
    check(
        vec![json(400, r#"{"error":"schema"}"#)],
        "unknown Status",
        1,
    );
    check(
        vec![http(429, "retry-after: 1\r\n", "")],
        "unknown Status",
        1,
    );
    check(
        vec![json(500, r#"{"success":true,"transaction":"0x1"}"#)],
        "unknown Status",
        1,
    );
}

#[test]
fn a_lost_answer_leaves_the_outcome_unknown_and_is_not_repeated() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"success\":true,\"transac";
    check(vec![Reply::Bytes(cut.to_owned())], "unknown Broken", 1);
    check(vec![Reply::Close], "unknown Broken", 1);
    check(vec![Reply::Hang], "unknown Timeout", 1);
}

#[test]
fn an_answer_over_the_limit_is_not_read() {
    let at = format!(
        r#"{{"success":true,"transaction":"0x1","network":"n"{}}}"#,
        " ".repeat(1998)
    );
    assert_eq!(at.len(), 2048);
    check(vec![json(200, &at)], "settled 0x1", 1);
    check(vec![json(200, &format!("{at} "))], "unknown TooLarge", 1);
    let endless = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}",
        format!("400\r\n{}\r\n", "x".repeat(1024)).repeat(8)
    );
    check(vec![Reply::Bytes(endless)], "unknown TooLarge", 1);
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Raw::start(vec![json(200, r#"{"success":true,"transaction":"0x1"}"#)]);
    let location = format!("location: http://{}/settle\r\n", elsewhere.address);
    check(vec![http(307, &location, "")], "unknown Status", 1);
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn a_pending_settlement_is_sent_once_more_and_no_further() {
    let ok = r#"{"success":true,"transaction":"0x1","network":"n"}"#;
    let no = r#"{"success":false,"errorReason":"reverted","transaction":"0x1","network":"n"}"#;
    let unsent = r#"{"success":false,"errorReason":"settlement_pending","transaction":""}"#;
    check(vec![json(200, PENDING), json(200, ok)], "settled 0x1", 2);
    check(
        vec![json(200, PENDING), json(200, no)],
        "refused reverted",
        2,
    );
    check(vec![json(200, PENDING)], "unknown Pending", 2);
    check(
        vec![json(202, PENDING), http(500, "", "")],
        "unknown Status",
        2,
    );
    check(vec![json(200, PENDING), Reply::Close], "unknown Broken", 2);
    check(vec![json(200, unsent), json(200, ok)], "unknown Pending", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_was_never_sent() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let answer = client(address).settle(&request(BODY)).await;
    assert_eq!(word(&answer), "not sent Connect");
    let verdict = client(address).verify(&request(BODY)).await;
    let VerifyAnswer::Unavailable(FacilitatorFault::Connect(text)) = verdict else {
        panic!("{verdict:?}");
    };
    assert!(
        !text.contains("http://"),
        "the URL may hold credentials: {text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_than_allowed_are_under_way() {
    let raw = Raw::start(vec![Reply::Hang]);
    let mut settings = settings(raw.address);
    settings.calls_max = 1;
    settings.verify_timeout = Duration::from_secs(5);
    settings.settle_timeout = Duration::from_millis(100);
    let client = Arc::new(HttpFacilitator::new(&settings, None).unwrap());
    let first = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.verify(&request(BODY)).await }
    });
    while raw.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    let verdict = client.verify(&request(BODY)).await;
    assert!(matches!(
        verdict,
        VerifyAnswer::Unavailable(FacilitatorFault::Saturated)
    ));
    let answer = client.settle(&request(BODY)).await;
    assert_eq!(word(&answer), "not sent Saturated");
    first.abort();
    assert_eq!(raw.requests().len(), 1);
}

/// Verifies against the scripted replies, and compares the debug text of the answer.
#[track_caller]
fn check_verify(replies: Vec<Reply>, want: &str, sent: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let raw = Raw::start(replies);
    let answer = runtime.block_on(client(raw.address).verify(&request(BODY)));
    let got = match answer {
        VerifyAnswer::Valid { payer } => format!("valid {}", payer.unwrap_or_default()),
        VerifyAnswer::Invalid { reason } => format!("invalid {reason}"),
        VerifyAnswer::Unavailable(fault) => format!("{fault}"),
    };
    assert!(got.starts_with(want), "{got:?}, not {want:?}");
    assert_eq!(raw.requests().len(), sent, "requests sent");
}

#[test]
fn a_verdict_is_read_from_any_status_but_a_yes_only_from_a_good_one() {
    let yes = r#"{"isValid":true,"payer":"0xp"}"#;
    let no = r#"{"isValid":false,"invalidReason":"too_little","invalidMessage":"secret"}"#;
    check_verify(vec![json(200, yes)], "valid 0xp", 1);
    check_verify(vec![json(200, no)], "invalid too_little", 1);
    check_verify(vec![json(400, no)], "invalid too_little", 1);
    check_verify(vec![json(412, no)], "invalid too_little", 1);
    check_verify(vec![json(500, yes)], "HTTP status 500", 1);
    check_verify(vec![json(200, "{}")], "unusable answer", 1);
    check_verify(vec![json(200, r#"{"isValid":1}"#)], "unusable answer", 1);
    check_verify(
        vec![http(302, "location: /x\r\n", "")],
        "HTTP status 302",
        1,
    );
    check_verify(vec![Reply::Hang], "no answer within 400 ms", 1);
    let strange = r#"{"isValid":false,"invalidReason":"<b>\n"}"#;
    check_verify(vec![json(200, strange)], "invalid payment_rejected", 1);
}

#[test]
fn a_broken_verification_is_for_the_verifier_to_repeat() {
    check_verify(vec![Reply::Close], "the connection broke", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_gets_its_own_headers_only() {
    let raw = Raw::start(vec![json(200, "{}")]);
    let client = client(raw.address);
    let _ = client.verify(&request(BODY)).await;
    let _ = client.settle(&request(BODY)).await;
    let _ = client.supported().await;
    let requests = raw.requests();
    for (request, (line, own)) in requests.iter().zip([
        ("POST /base/verify HTTP/1.1", "for-verify"),
        ("POST /base/settle HTTP/1.1", "for-settle"),
        ("GET /base/supported HTTP/1.1", "for-supported"),
    ]) {
        assert!(request.starts_with(line), "{request}");
        assert_eq!(request.matches("for-").count(), 1, "{request}");
        assert!(request.contains(&format!("authorization: {own}\r\n")));
    }
    assert_eq!(requests.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn supported_is_asked_again_only_after_429() {
    let list = r#"{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:1","extra":null},
                   {"x402Version":"odd"}],"extensions":null,"signers":null}"#;
    let busy = http(429, "retry-after: 0\r\n", "");
    let raw = Raw::start(vec![busy.clone(), busy.clone(), json(200, list)]);
    let supported = client(raw.address).supported().await.unwrap();
    assert_eq!(supported.kinds.len(), 1);
    assert!(supported.v2("exact", "eip155:1").is_some());

    let raw = Raw::start(vec![busy]);
    let fault = client(raw.address).supported().await.unwrap_err();
    assert!(matches!(
        fault,
        FacilitatorFault::Status { status: 429, .. }
    ));
    assert_eq!(raw.requests().len(), 3);

    let raw = Raw::start(vec![http(500, "", "")]);
    assert!(client(raw.address).supported().await.is_err());
    assert_eq!(raw.requests().len(), 1);
}

#[track_caller]
fn check_retry_after(text: &str, want: Option<u64>) {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", text.parse().unwrap());
    // 1994-11-06 08:49:37 UTC, the example of RFC 9110.
    let now = crate::clock::UnixSeconds(784_111_777);
    assert_eq!(answer::retry_after_s(&headers, now), want, "{text}");
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    check_retry_after("7", Some(7));
    check_retry_after("99999999", Some(86_400));
    check_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
    check_retry_after("Sun, 06 Nov 1994 08:48:37 GMT", Some(0));
    check_retry_after("soon", None);
    check_retry_after("-1", None);
}

#[test]
fn a_receipt_holds_no_message_and_nothing_oversized() {
    let long = "x".repeat(5000);
    let body = serde_json::json!({
        "success": false, "errorReason": "no", "errorMessage": "at 10.0.0.1", "network": "",
        "payer": "0xp", "transaction": "", "extra": {"k": long}, "extensions": {"k": 1},
    });
    let raw = RawAnswer {
        status: 200,
        retry_after_s: None,
        body: body.to_string().into_bytes(),
    };
    let SettleReading::Definite(SettleAnswer::Refused(receipt)) =
        answer::read_settle(&raw, &request(BODY))
    else {
        panic!("not refused");
    };
    let want = SettlementResponse {
        error_reason: Some("no".to_owned()),
        payer: Some("0xp".to_owned()),
        network: "eip155:84532".to_owned(),
        extensions: serde_json::json!({"k": 1}).as_object().cloned(),
        ..SettlementResponse::default()
    };
    assert_eq!(receipt, want);
}

#[track_caller]
fn check_empty_transaction(requirement: &str, is_success: bool) {
    let raw = RawAnswer {
        status: 200,
        retry_after_s: None,
        body: br#"{"success":true,"transaction":"","network":"n"}"#.to_vec(),
    };
    let body = format!(r#"{{"paymentRequirements":{requirement}}}"#);
    let reading = answer::read_settle(&raw, &request(&body));
    let settled = matches!(reading, SettleReading::Definite(SettleAnswer::Settled(_)));
    assert_eq!(settled, is_success, "{requirement}");
}

#[test]
fn only_a_settlement_off_chain_or_of_nothing_may_lack_a_transaction() {
    let exact = r#"{"scheme":"exact","network":"eip155:1","amount":"#;
    check_empty_transaction(&format!(r#"{exact}"1"}}"#), false);
    check_empty_transaction(&format!(r#"{exact}"0"}}"#), true);
    check_empty_transaction(
        r#"{"scheme":"exact","network":"base","maxAmountRequired":"5"}"#,
        false,
    );
    check_empty_transaction(
        r#"{"scheme":"upto","network":"eip155:1","amount":"5"}"#,
        true,
    );
    check_empty_transaction(
        r#"{"scheme":"exact","network":"hedera:x","amount":"5"}"#,
        true,
    );
    check_empty_transaction("{}", false);
}

#[test]
fn mistakes_in_the_configuration_are_named_without_secrets() {
    let address = "127.0.0.1:1".parse().unwrap();
    for url in ["", "ftp://x", "/verify", "http://x/?key=1", "http://x/#a"] {
        let mut settings = settings(address);
        settings.url = url.to_owned();
        let error = HttpFacilitator::new(&settings, None).err();
        assert!(matches!(error, Some(BuildError::Url { .. })), "{url:?}");
    }
    let mut settings = settings(address);
    settings.headers.settle = vec![("x-key".to_owned(), "top\nsecret".to_owned())];
    let error = HttpFacilitator::new(&settings, None)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("x-key") && !error.contains("secret"),
        "{error}"
    );
    let missing = HttpFacilitator::new(&settings, Some(Path::new("/nonexistent")));
    assert!(matches!(missing, Err(BuildError::CaFile { .. })));
}

#[test]
fn only_the_allowed_members_of_extension_responses_are_noted() {
    use base64::Engine;
    let json = r#"{"bazaar":{"status":"rejected","payload":"secret","code":"c"},"x":1}"#;
    let mut headers = HeaderMap::new();
    let value = base64::engine::general_purpose::STANDARD.encode(json);
    headers.insert("extension-responses", value.parse().unwrap());
    let note = |member, value: &str| ("bazaar".to_owned(), member, value.to_owned());
    let want = [note("status", "rejected"), note("code", "c")];
    assert_eq!(answer::extension_notes(&headers), want);
    headers.insert("extension-responses", "%%%".parse().unwrap());
    assert!(answer::extension_notes(&headers).is_empty());
}

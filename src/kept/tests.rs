use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn response(body: usize) -> Arc<KeptResponse> {
    Arc::new(KeptResponse {
        status: 200,
        headers: vec![("content-type".to_owned(), b"text/plain".to_vec())],
        body: Bytes::from(vec![b'x'; body]),
        request_body: BodyDigest([7; 32]),
    })
}

fn payment(n: u8) -> PaymentKey {
    PaymentKey([n; 32])
}

const ASKED: Fingerprint = Fingerprint([1; 32]);

#[test]
fn a_kept_response_is_found_for_its_payment_and_fingerprint_only() {
    let kept = KeptResponses::new(1 << 20);
    kept.keep(payment(1), ASKED, response(10), MINUTE);
    assert_eq!(kept.get(payment(1), ASKED), Some(response(10)));
    assert_eq!(kept.get(payment(2), ASKED), None);
    assert_eq!(kept.get(payment(1), Fingerprint([2; 32])), None);
    kept.forget(payment(1), ASKED);
    assert_eq!(kept.get(payment(1), ASKED), None);
}

#[test]
fn a_response_whose_time_is_over_is_not_served() {
    let kept = KeptResponses::new(1 << 20);
    kept.keep(payment(1), ASKED, response(10), Duration::ZERO);
    assert_eq!(kept.get(payment(1), ASKED), None);
}

#[test]
fn the_lifetime_that_was_written_last_counts() {
    let kept = KeptResponses::new(1 << 20);
    kept.keep(payment(1), ASKED, response(10), MINUTE);
    kept.keep(payment(1), ASKED, response(11), Duration::ZERO);
    assert_eq!(kept.get(payment(1), ASKED), None);
    kept.keep(payment(1), ASKED, response(12), MINUTE);
    assert_eq!(kept.get(payment(1), ASKED), Some(response(12)));
}

#[test]
fn all_responses_together_stay_within_the_limit_and_the_newest_stay() {
    let kept = KeptResponses::new(10_000);
    for n in 0..100 {
        kept.keep(payment(n), ASKED, response(1_000), MINUTE);
        kept.cache.run_pending_tasks();
    }
    assert!(kept.bytes() <= 10_000, "{}", kept.bytes());
    assert!(kept.get(payment(99), ASKED).is_some());
    assert!(kept.get(payment(0), ASKED).is_none());
}

#[test]
fn a_response_larger_than_the_store_is_not_kept() {
    let kept = KeptResponses::new(2_000);
    kept.keep(payment(1), ASKED, response(10), MINUTE);
    kept.keep(payment(1), ASKED, response(2_000), MINUTE);
    assert_eq!(kept.get(payment(1), ASKED), None);
    let none = KeptResponses::new(0);
    none.keep(payment(1), ASKED, response(0), MINUTE);
    assert_eq!(none.get(payment(1), ASKED), None);
}

#[test]
fn the_weight_counts_body_and_headers() {
    let header = HEADER_OVERHEAD + 12 + 10;
    assert_eq!(response(1_000).weight(), ENTRY_OVERHEAD + 1_000 + header);
}

#[track_caller]
fn check(limit: u64, chunks: &[&'static str], want: Option<&'static str>) {
    let mut recorder = Recorder::new(limit);
    for chunk in chunks {
        recorder.push(&Bytes::from_static(chunk.as_bytes()));
    }
    assert_eq!(recorder.is_recording(), want.is_some());
    assert_eq!(
        recorder.finish(),
        want.map(|body| Bytes::from_static(body.as_bytes()))
    );
}

#[test]
fn a_body_is_recorded_whole_or_not_at_all() {
    check(6, &["abc", "", "def"], Some("abcdef"));
    check(5, &["abc", "def"], None);
    check(5, &["abcdef", ""], None);
    check(5, &["abc", "def", "g"], None);
    check(1, &[], Some(""));
    check(0, &[], None);
    check(0, &[""], None);
    check(u64::MAX, &["abc"], Some("abc"));
}

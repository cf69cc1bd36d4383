//! An answer of the wall's own as bytes of HTTP/1.1, made once and filled in for each request.

use http::header::{CONNECTION, DATE};
use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;

use crate::proxy::context::RequestId;

/// Stand for what differs from one request to the next. No answer has braces in its head.
const REQUEST_ID: &str = "{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{";
const DATE_NOW: &str = "}}}}}}}}}}}}}}}}}}}}}}}}}}}}}";

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An answer on a connection that stays open. Byte for byte what pingora writes of the same head.
#[derive(Debug)]
pub(super) struct Wire {
    bytes: Vec<u8>,
    head_bytes: usize,
    request_id_at: usize,
    date_at: usize,
}

impl Wire {
    /// The answer with this head and body; `None` when its places cannot be told.
    ///
    /// # Errors
    ///
    /// When pingora does not take a header.
    pub(super) fn new(mut head: ResponseHeader, body: &[u8]) -> Result<Option<Self>> {
        head.insert_header(&X_REQUEST_ID, HeaderValue::from_static(REQUEST_ID))?;
        // As pingora adds them, behind all others.
        head.insert_header(DATE, HeaderValue::from_static(DATE_NOW))?;
        head.insert_header(CONNECTION, HeaderValue::from_static("keep-alive"))?;
        let mut bytes = Vec::with_capacity(1024_usize.saturating_add(body.len()));
        bytes.extend_from_slice(b"HTTP/1.1 ");
        bytes.extend_from_slice(head.status.as_str().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
        bytes.extend_from_slice(b"\r\n");
        head.header_to_h1_wire(&mut bytes);
        bytes.extend_from_slice(b"\r\n");
        let only = |place: &str| {
            let here = |window: &[u8]| window == place.as_bytes();
            let mut found = (0..)
                .zip(bytes.windows(place.len()))
                .filter(|(_, w)| here(w));
            let (at, second) = (found.next()?.0, found.next());
            second.is_none().then_some(at)
        };
        let places = only(REQUEST_ID).zip(only(DATE_NOW));
        let head_bytes = bytes.len();
        bytes.extend_from_slice(body);
        Ok(places.map(|(request_id_at, date_at)| Self {
            bytes,
            head_bytes,
            request_id_at,
            date_at,
        }))
    }

    /// The answer to one request, now; its head alone where the request was `HEAD`.
    pub(super) fn fill(&self, request_id: &RequestId, is_head: bool) -> Option<Vec<u8>> {
        let end = if is_head {
            self.head_bytes
        } else {
            self.bytes.len()
        };
        let mut bytes = self.bytes.get(..end)?.to_vec();
        let mut put = |at: usize, place: &str, value: &[u8]| {
            let place = bytes.get_mut(at..at.checked_add(place.len())?)?;
            (place.len() == value.len()).then(|| place.copy_from_slice(value))
        };
        put(self.request_id_at, REQUEST_ID, request_id.as_bytes())?;
        put(self.date_at, DATE_NOW, get_cached_date().as_bytes())?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_filled_with_its_request_and_the_date() {
        let mut head = ResponseHeader::build_no_case(402, None).unwrap();
        head.insert_header("content-length", "2").unwrap();
        head.insert_header("x-request-id", "").unwrap();
        head.insert_header("cache-control", "no-store").unwrap();
        let wire = Wire::new(head, b"{}").unwrap().unwrap();
        let (id, other) = (RequestId::random(), RequestId::random());
        let filled = |id, is_head| String::from_utf8(wire.fill(id, is_head).unwrap()).unwrap();
        let answer = filled(&id, false);
        let head = filled(&id, true);
        assert!(answer.starts_with("HTTP/1.1 402 Payment Required\r\n"));
        assert!(
            head.ends_with(" GMT\r\nConnection: keep-alive\r\n\r\n"),
            "{head}"
        );
        assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
        assert!(answer.contains(&format!(": {id}\r\n")), "{answer}");
        assert!(filled(&other, false).contains(&format!(": {other}\r\n")));
        assert!(!head.contains(['{', '}']), "{head}");
    }

    #[test]
    fn an_answer_whose_places_are_not_plain_is_none() {
        let mut head = ResponseHeader::build_no_case(402, None).unwrap();
        head.insert_header("x", DATE_NOW).unwrap();
        assert!(Wire::new(head, b"").unwrap().is_none());
    }
}

//! The bytes of a request head: where it begins and ends, and what is said to one that is refused.

/// Why a head is not handed on.
pub(super) struct HeadRefusal {
    status: &'static str,
    /// For the metrics, and the client.
    pub(super) code: &'static str,
    message: &'static str,
}

/// It did not come in its time.
pub(super) const TOO_SLOW: HeadRefusal = HeadRefusal {
    status: "408 Request Timeout",
    code: "head_too_slow",
    message: "The request line and headers did not arrive in time.",
};

/// It has more bytes than it may have.
pub(super) const TOO_LARGE: HeadRefusal = HeadRefusal {
    status: "431 Request Header Fields Too Large",
    code: "head_too_large",
    message: "The request line and headers are over the limit.",
};

impl HeadRefusal {
    /// The whole answer, with which the connection ends.
    pub(super) fn answer(&self) -> String {
        let Self {
            status,
            code,
            message,
        } = self;
        let body = format!("{{\"error\":\"{code}\",\"message\":\"{message}\"}}");
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

/// How many bytes of line ends it begins with. Before a head they say nothing and are dropped. But
/// they may be the end of a line, or of the head, whose beginning pingora has already, because it came
/// with the request before.
pub(super) fn leading_line_ends(bytes: &[u8]) -> usize {
    let ends = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    ends.count()
}

/// Where a head ends: behind its empty line, after line feeds with or without carriage returns, as
/// pingora's parser takes them.
pub(super) fn end_of_head(head: &[u8], searched: &mut usize) -> Option<usize> {
    let from = searched.saturating_sub(2);
    *searched = head.len();
    let tail = head.get(from..)?;
    let lines = tail.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    for (at, _) in lines {
        let after = tail.get(at.saturating_add(1)..).unwrap_or_default();
        let blank = match after {
            [b'\n', ..] => 2,
            [b'\r', b'\n', ..] => 3,
            _ => continue,
        };
        return Some(from.saturating_add(at).saturating_add(blank));
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, BytesMut};

    use super::*;

    /// How much of the bytes after blank lines is the head, after these reads; the last one ends it.
    #[track_caller]
    fn check(reads: &[&str], want: Option<usize>) {
        let (mut head, mut searched, mut end) = (BytesMut::new(), 0, None);
        for read in reads {
            assert_eq!(end, None, "{reads:?}: too early");
            head.extend_from_slice(read.as_bytes());
            if searched == 0 {
                // As before the first head of a connection.
                head.advance(leading_line_ends(&head));
            }
            end = end_of_head(&head, &mut searched);
        }
        assert_eq!(end, want, "{reads:?}");
    }

    #[test]
    fn a_head_ends_with_an_empty_line_however_it_arrives() {
        check(&["GET / HTTP/1.1\r\nHost: a\r\n\r\n"], Some(27));
        check(&["GET / HTTP/1.1\nHost: a\n\n"], Some(24));
        check(&["GET / HTTP/1.1\r\nHost: a\n\r\nbody\n\n"], Some(26));
        check(&["GET / HTTP/1.1\r\nHost: a\r\n"], None);
        check(&["GET / HTTP/1.1\r\n\r", "\nbody"], Some(18));
        check(&["GET / HTTP/1.1\r\n", "\r\n"], Some(18));
        check(&["GET / HTTP/1.1\n", "\n"], Some(16));
        check(&["\r\n\r\n"], None);
        check(&["\r\n", "\r\n", "GET / HTTP/1.1\r\n\r\n"], Some(18));
        let bytes: Vec<String> = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            .chars()
            .map(String::from)
            .collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        check(&bytes, Some(27));
    }
}

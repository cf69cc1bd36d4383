//! The challenges under way, and their answers (RFC 8555, section 8.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// What the ACME server may ask for at the moment; empty but for seconds around an order.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<BTreeMap<String, String>>);

impl Tokens {
    /// What is answered to this token; `None` for every one that is not under way.
    #[must_use]
    pub fn answer(&self, token: &str) -> Option<String> {
        self.0.lock().get(token).cloned()
    }

    /// Answers the token until the result is dropped.
    pub(super) fn offer(self: &Arc<Self>, token: &str, answer: &str) -> Offered {
        self.0.lock().insert(token.to_owned(), answer.to_owned());
        Offered {
            tokens: Arc::clone(self),
            token: token.to_owned(),
        }
    }
}

/// A token is answered while this is held.
#[derive(Debug)]
pub(super) struct Offered {
    tokens: Arc<Tokens>,
    token: String,
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.tokens.0.lock().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_only_while_it_is_offered() {
        let tokens = Arc::new(Tokens::default());
        assert_eq!(tokens.answer("a"), None);
        let offered = tokens.offer("a", "a.thumb");
        assert_eq!(tokens.answer("a").as_deref(), Some("a.thumb"));
        assert_eq!(tokens.answer("A"), None);
        assert_eq!(tokens.answer(""), None);
        drop(offered);
        assert_eq!(tokens.answer("a"), None);
    }
}

//! What an error says, with what is behind it.

/// The error and all its sources: "error sending request" alone says nothing.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("error sending request")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn what_is_behind_an_error_is_said_too() {
        let refused = Outer(std::io::Error::other("connection refused"));
        assert_eq!(
            causes(&refused),
            "error sending request: connection refused"
        );
    }
}

//! Who may use the admin API: whoever has the token.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::Admin;
use super::answer::{Problem, problem};

/// The shortest token: what `openssl rand -hex 8` writes.
const CHARS_MIN: usize = 16;
/// The longest.
const CHARS_MAX: usize = 4096;

/// The token, as its digest: it cannot be shown by accident, and comparing takes the same time
/// whatever is wrong with what was sent.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Why there is no token. Says nothing of what is in the file.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Others may read or write it.
    #[error("{} may be read or changed by everybody: chmod 600 it", .0.display())]
    Open(PathBuf),
    /// It is too short to be a secret, too long, or has characters that a header cannot hold.
    #[error(
        "{} must hold 16 to 4096 printable ASCII characters without spaces, as `openssl rand -hex 32` writes them",
        .0.display()
    )]
    Unfit(PathBuf),
}

impl Token {
    /// Reads the token; white space around it does not count.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |cause| TokenError::Unreadable {
            path: path.to_owned(),
            cause,
        };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(TokenError::Open(path.to_owned()));
        }
        let mut text = String::new();
        let limit = u64::try_from(CHARS_MAX).unwrap_or(u64::MAX);
        let mut bounded = file.take(limit.saturating_add(3));
        bounded.read_to_string(&mut text).map_err(unreadable)?;
        let token = text.trim();
        let fits = (CHARS_MIN..=CHARS_MAX).contains(&token.len())
            && token.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(Self::of(token.as_bytes()))
        } else {
            Err(TokenError::Unfit(path.to_owned()))
        }
    }

    fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether this is the token. Takes as long for a near miss as for nonsense.
    fn is(&self, sent: &[u8]) -> bool {
        let sent = Self::of(sent);
        let different = self.0.iter().zip(sent.0);
        different.fold(0, |all, (ours, theirs)| all | (ours ^ theirs)) == 0
    }
}

/// Lets nobody pass without the token.
pub(super) async fn require(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    let sent = request.headers().get(header::AUTHORIZATION);
    let sent = sent.and_then(|value| value.as_bytes().split_first_chunk::<7>());
    let is_known = sent.is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case(b"bearer ")
            && admin
                .token()
                .is_some_and(|ours| ours.is(token.trim_ascii()))
    });
    if is_known {
        return next.run(request).await;
    }
    let mut answer = problem(
        StatusCode::UNAUTHORIZED,
        Problem::Unauthorized,
        "Send the token of admin_token_file: Authorization: Bearer …",
    );
    let scheme = header::HeaderValue::from_static("Bearer");
    answer
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, scheme);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(text: &str, mode: u32) -> Result<Token, TokenError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Token::read(&path)
    }

    #[test]
    fn a_token_is_the_text_without_the_line_end() {
        let token = read("0123456789abcdef\n", 0o600).unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [
            "",
            "0123456789abcdee",
            "0123456789abcdef0",
            "0123456789abcdef\n",
        ] {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_that_everybody_may_read_or_write_holds_no_secret() {
        for mode in [0o604, 0o602, 0o644, 0o666] {
            let read = read("0123456789abcdef", mode);
            assert!(matches!(read, Err(TokenError::Open(_))), "{mode:o}");
        }
        assert!(
            read("0123456789abcdef", 0o640).is_ok(),
            "a group is a choice"
        );
    }

    #[test]
    fn what_could_be_guessed_or_not_be_sent_is_no_token() {
        for text in [
            "",
            "0123456789abcde",
            "0123456789 abcdef",
            "0123456789äbcdef",
        ] {
            let read = read(text, 0o600);
            assert!(matches!(read, Err(TokenError::Unfit(_))), "{text:?}");
        }
        assert!(read(&"a".repeat(4096), 0o600).is_ok());
        assert!(read(&"a".repeat(4097), 0o600).is_err());
    }
}

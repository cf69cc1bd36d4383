//! One order, from the first request to the certificate (RFC 8555, section 7.4).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::tokens::Offered;
use super::{AcmeError, Tokens, printable};

/// How long the server may take to verify the name, and to issue the certificate.
const PATIENCE: Duration = Duration::from_secs(90);
/// An order for one name has one authorization; what a server may make us do is bounded.
const AUTHORIZATIONS_MAX: usize = 8;

/// Why there is no certificate.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server does not know the account: it was made by another, or has been deleted.
    NoSuchAccount,
    /// Anything else.
    Other(AcmeError),
}

impl From<Fault> for AcmeError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NoSuchAccount => Self::Server("the server does not know the account".to_owned()),
            Fault::Other(error) => error,
        }
    }
}

impl From<AcmeError> for Fault {
    fn from(error: AcmeError) -> Self {
        Self::Other(error)
    }
}

impl From<instant_acme::Error> for Fault {
    fn from(error: instant_acme::Error) -> Self {
        Self::Other(error.into())
    }
}

/// A new key and its certificate chain, leaf first, as PEM.
pub(super) async fn order(
    account: &Account,
    name: &str,
    tokens: &Arc<Tokens>,
) -> Result<String, Fault> {
    let names = [Identifier::Dns(name.to_owned())];
    let ordered = account.new_order(&NewOrder::new(&names)).await;
    let mut order = ordered.map_err(|error| match is_no_account(&error) {
        true => Fault::NoSuchAccount,
        false => error.into(),
    })?;
    let offered = answer_challenges(&mut order, tokens).await?;
    let patience = RetryPolicy::new().timeout(PATIENCE);
    let status = order.poll_ready(&patience).await;
    drop(offered);
    let status = status.map_err(|error| match problem(&error) {
        Some(problem) => AcmeError::Unverified(printable(&problem.to_string())),
        None => error.into(),
    })?;
    if status != OrderStatus::Ready {
        return Err(AcmeError::Unverified(refusals(&mut order).await).into());
    }
    let key = KeyPair::generate().map_err(|error| AcmeError::Key(error.to_string()))?;
    order.finalize_csr(&request(&key, name)?).await?;
    let chain = order.poll_certificate(&patience).await?;
    Ok(key.serialize_pem() + &chain)
}

/// What the server itself has said, if it was the server.
const fn problem(error: &instant_acme::Error) -> Option<&Problem> {
    if let instant_acme::Error::Api(problem) = error {
        return Some(problem);
    }
    None
}

fn is_no_account(error: &instant_acme::Error) -> bool {
    let kind = problem(error).and_then(|problem| problem.r#type.as_deref());
    kind == Some("urn:ietf:params:acme:error:accountDoesNotExist")
}

/// Makes every challenge answerable, and asks the server to look.
async fn answer_challenges(
    order: &mut Order,
    tokens: &Arc<Tokens>,
) -> Result<Vec<Offered>, AcmeError> {
    let mut offered = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            // It was verified a short while ago.
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Invalid
            | AuthorizationStatus::Revoked
            | AuthorizationStatus::Expired
            | AuthorizationStatus::Deactivated => {
                return Err(AcmeError::Unverified(refusal(&authorization)));
            }
        }
        if offered.len() >= AUTHORIZATIONS_MAX {
            return Err(AcmeError::Server("the server asks for too much".to_owned()));
        }
        let challenge = authorization.challenge(ChallengeType::Http01);
        let mut challenge = challenge
            .ok_or_else(|| AcmeError::Server("the server does not offer HTTP-01".to_owned()))?;
        let answer = challenge.key_authorization();
        offered.push(tokens.offer(&challenge.token, answer.as_str()));
        challenge.set_ready().await?;
    }
    Ok(offered)
}

/// What the server says of the names that it did not find here.
async fn refusals(order: &mut Order) -> String {
    let mut told = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_ok() {
            told.push(refusal(&authorization));
        }
    }
    told.join("; ")
}

fn refusal(authorization: &AuthorizationHandle<'_>) -> String {
    let errors = authorization.challenges.iter();
    let errors = errors.filter_map(|challenge| challenge.error.as_ref());
    let told: Vec<_> = errors
        .map(|problem| printable(&problem.to_string()))
        .collect();
    if told.is_empty() {
        return format!("it says only {:?}", authorization.status);
    }
    told.join("; ")
}

/// The certificate signing request.
fn request(key: &KeyPair, name: &str) -> Result<Vec<u8>, AcmeError> {
    let made = CertificateParams::new(vec![name.to_owned()]).and_then(|mut parameters| {
        parameters.distinguished_name = DistinguishedName::new();
        parameters.serialize_request(key)
    });
    let made = made.map_err(|error| AcmeError::Key(error.to_string()))?;
    Ok(made.der().to_vec())
}

//! Who calls: the principal behind an access key, once the signature shows that the caller has its secret.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::failure::{Failure, Words};
use super::request::Request;
use super::signature::{Signature, SignatureError};
use crate::gate::Call;
use crate::iam::Principal;
use crate::iam_service::credentials::{self, Credentials, CredentialsError};
use crate::ids::{AccountId, Region};
use crate::store::Home;
use crate::twin::{self, Protection};

/// Who is let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Auth {
    /// Known access keys must be signed with their secret; unknown ones are the root of an account.
    Open,
    /// Only known access keys, signed with their secret.
    Strict,
}

/// Who calls.
#[derive(Debug)]
pub(super) struct Caller<'h> {
    pub(super) call: Call<'h>,
    /// Whether nobody showed a secret: the caller is taken for an account's root.
    pub(super) is_unverified: bool,
}

/// Access keys that were asked for, until a key is changed in the home.
#[derive(Default)]
pub(super) struct Known {
    kept: Mutex<(i64, HashMap<String, std::sync::Arc<Credentials>>)>,
}

/// The most access keys that are kept.
const MAX_KEPT: usize = 1000;

impl Known {
    /// The credentials of an access key that is known and fits its token.
    fn find(
        &self,
        home: &Home,
        id: &str,
        token: Option<&str>,
    ) -> Result<std::sync::Arc<Credentials>, CredentialsError> {
        let epoch = credentials::epoch(home).map_err(CredentialsError::Home)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 != epoch || kept.1.len() >= MAX_KEPT {
            *kept = (epoch, HashMap::new());
        }
        if let Some(found) = kept.1.get(id) {
            if !found.token_fits(token) {
                return Err(CredentialsError::WrongToken);
            }
            let now = home.now().map_err(|error| CredentialsError::Home(error.into()))?;
            return if found.is_expired(now) { Err(CredentialsError::Expired) } else { Ok(found.clone()) };
        }
        let found = std::sync::Arc::new(credentials::find(home, id, token)?);
        kept.1.insert(id.to_owned(), found.clone());
        Ok(found)
    }

    /// Forgets everything, as when the home became another.
    pub(super) fn forget(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = (0, HashMap::new());
    }
}

/// The caller of a signed request.
///
/// In [`Auth::Open`] an access key that the home does not know is the root of `account`, or of the account that it spells,
/// and its signature is not looked at; not so in a presigned URL, which anybody may be made to open.
///
/// # Errors
/// If the signature is not that of the access key's secret, or the key is unknown and may not be.
pub(super) fn identify<'h>(
    home: &'h Home,
    known: &Known,
    (auth, account): (Auth, &AccountId),
    signature: &Signature,
    request: &Request,
    words: Words,
) -> Result<Caller<'h>, Failure> {
    let region: Region = signature.region.parse().map_err(|_| {
        Failure::Signature(SignatureError::Mismatch("Credential should be scoped to a valid region.".to_owned()))
    })?;
    let mut caller = match known.find(home, &signature.access_key_id, signature.token.as_deref()) {
        Ok(credentials) => {
            signature
                .verify(request, credentials.secret.expose(), Timestamp::now(), skew(words))
                .map_err(Failure::Signature)?;
            Caller { call: credentials.call(home, region), is_unverified: false }
        }
        Err(CredentialsError::Unknown)
            if auth == Auth::Open && (!signature.presigned || twin::is_off(Protection::PresignedUrl)) =>
        {
            let account = signature.access_key_id.parse().unwrap_or_else(|_| account.clone());
            Caller { call: Call::direct(home, Principal::Root(account), region), is_unverified: true }
        }
        Err(CredentialsError::Expired) => return Err(Failure::ExpiredToken),
        Err(CredentialsError::Home(error)) => return Err(error.into()),
        Err(_) => return Err(Failure::UnknownKey),
    };
    caller.call.source_ip = request.source.to_string();
    caller.call.user_agent =
        request.header("user-agent").map_or_else(String::new, |agent| agent.chars().take(MAX_USER_AGENT).collect());
    Ok(caller)
}

/// Longer than any client's name; the trail keeps it with every record.
const MAX_USER_AGENT: usize = 1000;

/// By how much a client's clock may be off: five minutes for the JSON services, fifteen for the others (as their own messages
/// say).
fn skew(words: Words) -> SignedDuration {
    SignedDuration::from_mins(if words == Words::Json { 5 } else { 15 })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use axum::body::Bytes;
    use axum::http::{HeaderMap, Method};

    use super::*;
    use crate::twin::without;

    /// Who a URL calls as that somebody made up, with an access key nobody has: what a page may make a browser open.
    fn caller_of_a_made_up_url(home: &Home) -> Result<String, Failure> {
        let date = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let query = format!(
            "Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE\
             %2F{}%2Fus-east-1%2Fsts%2Faws4_request&X-Amz-Date={date}&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature={}",
            &date[..8],
            "0".repeat(64)
        );
        let headers = HeaderMap::from_iter([(axum::http::header::HOST, "localhost".parse().unwrap())]);
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let request = Request { method: Method::GET, path: "/".to_owned(), query, headers, body: Bytes::new(), source };
        let signature = Signature::of(&request).unwrap();
        let mode = (Auth::Open, &"123456789012".parse().unwrap());
        let caller = identify(home, &Known::default(), mode, &signature, &request, Words::Query)?;
        assert!(caller.is_unverified);
        Ok(caller.call.principal.arn())
    }

    #[test]
    fn a_made_up_url_is_nobodys_in_open_mode_either() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        let refused = caller_of_a_made_up_url(&home);
        assert!(matches!(refused, Err(Failure::UnknownKey)), "{refused:?}");
        let root = without(Protection::PresignedUrl, || caller_of_a_made_up_url(&home));
        assert_eq!(root.unwrap(), "arn:aws:iam::123456789012:root");
    }
}

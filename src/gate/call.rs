//! Who calls what for whom: the first argument of every operation.

use crate::clock::Time;
use crate::iam::Principal;
use crate::ids::{self, AccountId, Region};
use crate::store::Home;

use super::{Basis, Refusal, ServiceError, Trace};

/// The credentials with which a call was signed, as its record and its policies see them. Never a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    /// The access key id: `AKIA…`, or `ASIA…` of a session.
    pub access_key_id: String,
    /// When a session's credentials were issued; `None` for an access key.
    pub issued: Option<Time>,
    /// The ARN of a session's role with its path, where that is known.
    pub issuer: Option<String>,
}

/// A call: the home it runs in, who makes it, and through which service.
#[derive(Clone, Debug)]
pub struct Call<'h> {
    /// The home that it reads and changes.
    pub home: &'h Home,
    /// Who makes it.
    pub principal: Principal,
    /// What it was signed with; `None` for a caller who is believed without.
    pub credential: Option<Credential>,
    /// The account whose resources it means; the principal's own unless said otherwise.
    pub account: AccountId,
    /// The Region it is made in.
    pub region: Region,
    /// The service that makes it on the principal's behalf, as `kms:ViaService` names it (`ec2.us-east-1.amazonaws.com`);
    /// `None` for a direct call. The record's `invokedBy` is then [`Call::source_ip`].
    pub via: Option<String>,
    /// The request id, also found in the trail. Nested calls that AWS makes under one id share it.
    pub request_id: String,
    /// Where it comes from: an address, or a service's name.
    pub source_ip: String,
    /// The client's name and version, or a service's name.
    pub user_agent: String,
    /// Follows what the call does, if it is one to be explained.
    pub trace: Option<&'h Trace>,
    /// On what it rests that a service makes this call on the way to another; `None` for the first.
    pub basis: Option<Basis>,
    /// What was found wrong with its request before the operation began, which refuses and records it.
    pub refusal: Option<Box<Refusal>>,
}

impl<'h> Call<'h> {
    /// A direct call by `principal` from this machine, under a new request id.
    pub fn direct(home: &'h Home, principal: Principal, region: Region) -> Self {
        let account = principal.account().clone();
        Self {
            home,
            principal,
            credential: None,
            account,
            region,
            via: None,
            request_id: ids::request_id(),
            source_ip: "127.0.0.1".to_owned(),
            user_agent: concat!("blockseal/", env!("CARGO_PKG_VERSION")).to_owned(),
            trace: None,
            refusal: None,
            basis: None,
        }
    }

    /// The same call, to be refused by whatever operation it is made to: its request breaks the limits of the API.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> Self {
        Self { refusal: Some(Box::new(refusal)), ..self.clone() }
    }

    /// Refuses the call if something was found wrong with its request.
    pub(super) fn check(&self) -> Result<(), ServiceError> {
        self.refusal.as_ref().map_or(Ok(()), |refusal| Err(ServiceError::Refused((**refusal).clone())))
    }

    /// The same caller's call as the service `via` makes it on its behalf: source, agent and `invokedBy` are the service's
    /// name, as CloudTrail shows them, and the request id is a new one.
    #[must_use]
    pub fn through(&self, via: &str) -> Self {
        self.through_as(via, via)
    }

    /// As [`Call::through`], for a service whose part that calls has another name in the trail, such as
    /// `ec2-frontend-api.amazonaws.com` or `AWS Internal` for `ec2.us-east-1.amazonaws.com`.
    #[must_use]
    pub fn through_as(&self, via: &str, shown_as: &str) -> Self {
        Self {
            via: Some(via.to_owned()),
            request_id: ids::request_id(),
            source_ip: shown_as.to_owned(),
            user_agent: shown_as.to_owned(),
            ..self.clone()
        }
    }

    /// The same call by another principal, such as the role under which a host opens an instance's volumes, under the
    /// same request id (as the Decrypt of an attach shares its `CreateGrant`'s).
    #[must_use]
    pub fn by(&self, principal: Principal) -> Self {
        Self { principal, credential: None, ..self.clone() }
    }
}

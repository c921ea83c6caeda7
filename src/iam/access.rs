//! Whether a principal may do something to a resource, as far as policies decide it.
//!
//! This is the evaluation of an account in which every principal is an administrator: the account's own principals may do
//! everything, everybody else nothing, which is what the default key policy ("Enable IAM User Permissions") and an
//! administrator's identity policy give together. Grants, which can only add, are looked up by the resource's service.

use crate::iam::Principal;
use crate::ids::AccountId;
use crate::twin::{self, Protection};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The action, such as `kms:Decrypt`.
    pub action: &'a str,
    /// The account that owns the resource.
    pub owner: &'a AccountId,
    /// The service through which the principal asks, as `kms:ViaService` has it.
    pub via: Option<&'a str>,
    /// The only service through which the resource may be used (the policy of an AWS managed key), if there is one.
    pub only_via: Option<&'a str>,
}

/// The answer, with the reason as AWS words it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// A policy allows it.
    Allowed,
    /// No policy allows it to this principal of the resource's own account, which has identity policies.
    NoIdentityPolicy,
    /// The resource's own policy does not allow it.
    NoResourcePolicy,
    /// The resource belongs to another account, which does not share it; AWS does not say whether it exists.
    Foreign,
}

impl Verdict {
    /// Whether it is a yes.
    pub fn is_allowed(self) -> bool {
        self == Self::Allowed || twin::is_off(Protection::Policy)
    }

    /// The clause that AWS puts after "because" in an `AccessDeniedException`; empty for a yes.
    pub fn reason(self, action: &str) -> String {
        match self {
            Self::Allowed => String::new(),
            Self::NoIdentityPolicy => format!("no identity-based policy allows the {action} action"),
            Self::NoResourcePolicy => format!("no resource-based policy allows the {action} action"),
            Self::Foreign => {
                "the resource does not exist in this Region, no resource-based policies allow access, or a \
                              resource-based policy explicitly denies access"
                    .to_owned()
            }
        }
    }
}

/// What the policies say to `access`.
pub fn evaluate(access: &Access<'_>) -> Verdict {
    if access.principal.account() != access.owner {
        return Verdict::Foreign;
    }
    if access.only_via.is_some() && access.via != access.only_via {
        return Verdict::NoResourcePolicy;
    }
    match access.principal {
        Principal::Root(_) | Principal::User { .. } | Principal::AssumedRole { .. } => Verdict::Allowed,
        // AWS's own roles and services hold no identity policy in the account: what they may, grants say.
        Principal::Ec2Infrastructure { .. } | Principal::Service { .. } => Verdict::NoIdentityPolicy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_account_yes_others_no_and_managed_keys_through_their_service_only() {
        let owner: AccountId = "123456789012".parse().unwrap();
        let ask = |arn: &str, via, only_via| {
            evaluate(&Access { principal: &arn.parse().unwrap(), action: "kms:Decrypt", owner: &owner, via, only_via })
        };
        assert_eq!(ask("arn:aws:iam::123456789012:root", None, None), Verdict::Allowed);
        assert_eq!(ask("arn:aws:iam::123456789012:user/a", Some("ec2"), Some("ec2")), Verdict::Allowed);
        assert_eq!(ask("arn:aws:iam::123456789012:user/a", None, Some("ec2")), Verdict::NoResourcePolicy);
        assert_eq!(ask("arn:aws:iam::123456789012:user/a", Some("rds"), Some("ec2")), Verdict::NoResourcePolicy);
        assert_eq!(ask("arn:aws:iam::210987654321:root", None, None), Verdict::Foreign);
        assert_eq!(
            ask("arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/i-12345678", None, None),
            Verdict::NoIdentityPolicy
        );
    }
}

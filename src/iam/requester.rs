//! Who asks, with everything that policies can ask of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::linked;
use super::names::global_name;
use super::policy::Policy;
use super::principal::{Principal, unique_id};

/// A policy with the name by which a decision tells of it.
#[derive(Clone, Debug)]
pub struct NamedPolicy {
    /// Such as `key policy`, `inline policy p of user alice`, or a managed policy's ARN.
    pub name: String,
    /// The policy.
    pub policy: Arc<Policy>,
}

impl NamedPolicy {
    /// A policy under a name.
    pub fn new(name: impl Into<String>, policy: Policy) -> Self {
        Self { name: name.into(), policy: Arc::new(policy) }
    }
}

/// What the identity side of a requester is.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Everything is allowed: an account's root (as AWS has it), and whoever has no recorded policies (ours).
    Administrator,
    /// These policies decide; none allow nothing.
    Policies(Vec<NamedPolicy>),
    /// There can be no policies: AWS services, and AWS's own roles.
    Nothing,
    /// They cannot be told; the reason.
    Unknown(String),
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Requester {
    /// The principal.
    pub principal: Principal,
    /// The identity policies.
    pub identity: Identity,
    /// For a session: the path of its role, `/` or `/a/b/`; `None` if it is not known.
    pub role_path: Option<String>,
    /// The unique id of the user, or of the session's role; `None` if it is not known.
    pub unique_id: Option<String>,
    /// The tags of the user, or of the session's role; `None` if they are not known.
    pub tags: Option<BTreeMap<String, String>>,
    /// The id of the account's organisation: `Some(None)` in none, `None` if it is not known.
    pub organization: Option<Option<String>>,
}

impl Requester {
    /// `principal` as it is with no recorded policies: an administrator of its account, unless it is one of AWS's own, which
    /// have no policies at all, or a session of a service-linked role, which has AWS's.
    pub fn administrator(principal: Principal) -> Self {
        let identity = match principal {
            Principal::Ec2Infrastructure { .. } | Principal::Service { .. } => Identity::Nothing,
            Principal::AssumedRole { ref role, .. } => match linked::policy_of(role) {
                Some(policy) => Identity::Policies(vec![policy]),
                None => Identity::Administrator,
            },
            Principal::Root(_) | Principal::User { .. } => Identity::Administrator,
        };
        let unique_id = unique_id(&principal);
        let tags = Some(BTreeMap::new());
        Self { principal, identity, role_path: None, unique_id, tags, organization: None }
    }

    /// Whether it is a session of the role of that ARN.
    pub fn is_session_of(&self, role_arn: &str) -> bool {
        let (account, role) = match &self.principal {
            Principal::AssumedRole { account, role, .. } => (account, role.as_str()),
            Principal::Ec2Infrastructure { account, .. } => (account, "aws:ec2-infrastructure"),
            _ => return false,
        };
        let of_account = role_arn.split_once(":iam::").and_then(|(_, rest)| rest.strip_prefix(account.as_str()));
        let path = of_account.and_then(|resource| resource.strip_prefix(":role")?.strip_suffix(role));
        // Names of roles are unique in their account, so that the path matters only where it is known.
        match (path, &self.role_path) {
            (Some(path), Some(known)) => path == known,
            (Some(path), None) => path.ends_with('/'),
            (None, _) => false,
        }
    }

    /// Sets the condition keys that say who asks (IAM user guide, "Properties of the principal").
    pub fn describe(&self, context: &mut Context) {
        let account = self.principal.account();
        match &self.principal {
            Principal::Root(_) => {
                context.set("aws:PrincipalType", "Account").set("aws:userid", account.as_str());
                context.set("aws:PrincipalArn", self.principal.arn());
            }
            Principal::User { name, .. } => {
                context.set("aws:PrincipalType", "User").set("aws:PrincipalArn", self.principal.arn());
                context.set("aws:username", name.rsplit('/').next().unwrap_or(name));
                match &self.unique_id {
                    Some(id) => context.set("aws:userid", id),
                    None => context.set_unknown("aws:userid", "the user's unique id is not known"),
                };
            }
            Principal::AssumedRole { role, session, .. } => {
                context.set("aws:PrincipalType", "AssumedRole");
                self.describe_role(context, role, session);
            }
            Principal::Ec2Infrastructure { instance, .. } => {
                context.set("aws:PrincipalType", "AssumedRole");
                self.describe_role(context, "aws:ec2-infrastructure", instance.as_str());
            }
            Principal::Service { name, .. } => {
                context.set("aws:PrincipalIsAWSService", "true").set("aws:PrincipalServiceName", global_name(name));
                let mut names = vec![name.clone(), global_name(name)];
                names.dedup();
                context.set_all("aws:PrincipalServiceNamesList", names);
                return;
            }
        }
        context.set("aws:PrincipalIsAWSService", "false").set("aws:PrincipalAccount", account.as_str());
        match &self.tags {
            Some(tags) => {
                for (name, value) in tags {
                    context.set_named("aws:PrincipalTag/", name, value);
                }
            }
            None => {
                context.set_unknown("aws:PrincipalTag/", "the principal's tags are not known");
            }
        }
        match &self.organization {
            Some(id) => context.set_opt("aws:PrincipalOrgID", id.clone()),
            None => context.set_unknown("aws:PrincipalOrgID", "the account's organisation is not known"),
        };
        if !matches!(self.organization, Some(None)) {
            context.set_unknown("aws:PrincipalOrgPaths", "the account's place in its organisation is not known");
        }
    }

    fn describe_role(&self, context: &mut Context, role: &str, session: &str) {
        let account = self.principal.account();
        let path = match &self.role_path {
            Some(path) => Some(path.clone()),
            None => linked::path_of(role),
        };
        match path {
            Some(path) => context.set("aws:PrincipalArn", format!("arn:aws:iam::{account}:role{path}{role}")),
            None => context
                .set_unknown("aws:PrincipalArn", format!("the path of the service-linked role {role} is not known")),
        };
        match &self.unique_id {
            Some(id) => context.set("aws:userid", format!("{id}:{session}")),
            None => context.set_unknown("aws:userid", "the role's unique id is not known"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::Entry;
    use super::*;

    #[test]
    fn each_kind_of_principal_has_the_keys_that_iam_gives_it() {
        let get = |who: &str, key: &str| {
            let mut context = Context::default();
            Requester::administrator(who.parse().unwrap()).describe(&mut context);
            match context.get(key) {
                Entry::Values(values) => values.join(" "),
                Entry::Absent => "absent".to_owned(),
                Entry::Unknown(_) => "unknown".to_owned(),
            }
        };
        let (root, user) = ("arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:user/ops/alice");
        let session = "arn:aws:sts::123456789012:assumed-role/Admin/s1";
        assert_eq!(get(root, "aws:PrincipalArn"), root);
        assert_eq!(get(user, "aws:PrincipalArn"), user);
        assert_eq!(get(session, "aws:PrincipalArn"), "arn:aws:iam::123456789012:role/Admin");
        assert_eq!(
            [get(root, "aws:username"), get(user, "aws:username"), get(session, "aws:username")],
            ["absent", "alice", "absent"]
        );
        assert!(get(session, "aws:userid").starts_with("AROA") && get(session, "aws:userid").ends_with(":s1"));
        assert_eq!(get(user, "aws:PrincipalOrgID"), "unknown");
        let linked = |role: &str| format!("arn:aws:sts::123456789012:assumed-role/{role}/s");
        assert_eq!(
            get(&linked("AWSServiceRoleForAutoScaling"), "aws:PrincipalArn"),
            "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
        );
        assert_eq!(get(&linked("AWSServiceRoleForSomething"), "aws:PrincipalArn"), "unknown");
    }
}

//! Service-linked roles: which there are, and what AWS lets them do (IAM user guide, "AWS services that work with IAM").

use super::policy::{Policy, PolicyKind};
use super::requester::NamedPolicy;

/// A service that has a role of its own in an account.
#[derive(Clone, Copy, Debug)]
pub struct Linked {
    /// What its role's name has behind `AWSServiceRoleFor`.
    name: &'static str,
    /// The service's name, such as `autoscaling.amazonaws.com`.
    pub service: &'static str,
    /// Whether the account may have several of them, told apart by a suffix.
    pub takes_suffix: bool,
    /// Name and document of the policy that AWS gives the role, as far as it bears on operations that are here; `None` where it
    /// is not known.
    policy: Option<(&'static str, &'static str)>,
}

/// AWS managed policy reference, `AutoScalingServiceRolePolicy`: nothing in it allows the use of a KMS key, which is why a
/// customer managed key must name the role in its own policy or in a grant (EC2 Auto Scaling user guide, "Required AWS KMS key
/// policy for use with encrypted volumes").
const AUTO_SCALING: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Sid": "EC2InstanceManagement", "Effect": "Allow", "Resource": "*", "Action": [
        "ec2:CreateTags", "ec2:DeleteTags", "ec2:Describe*", "ec2:ModifyInstanceAttribute", "ec2:RunInstances",
        "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"]}]}"#;

const EVERYTHING_BUT_KMS: &str =
    r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "NotAction": "kms:*", "Resource": "*"}]}"#;

const fn linked(name: &'static str, service: &'static str) -> Linked {
    Linked { name, service, takes_suffix: false, policy: None }
}

static ALL: &[Linked] = &[
    Linked {
        takes_suffix: true,
        policy: Some(("AutoScalingServiceRolePolicy", AUTO_SCALING)),
        ..linked("AutoScaling", "autoscaling.amazonaws.com")
    },
    linked("EC2Spot", "spot.amazonaws.com"),
    linked("EC2SpotFleet", "spotfleet.amazonaws.com"),
    linked("AmazonEKS", "eks.amazonaws.com"),
    linked("AmazonEKSNodegroup", "eks-nodegroup.amazonaws.com"),
    linked("ECS", "ecs.amazonaws.com"),
    linked("RDS", "rds.amazonaws.com"),
    linked("Backup", "backup.amazonaws.com"),
];

/// What the name of every service-linked role begins with.
const PREFIX: &str = "AWSServiceRoleFor";

impl Linked {
    /// That of the service called `service`.
    pub fn of_service(service: &str) -> Option<&'static Self> {
        ALL.iter().find(|linked| linked.service == service)
    }

    /// That to which the role called `role` belongs.
    pub fn of_role(role: &str) -> Option<&'static Self> {
        let name = role.strip_prefix(PREFIX)?;
        ALL.iter().find(|linked| {
            let rest = name.strip_prefix(linked.name);
            rest.is_some_and(|rest| rest.is_empty() || linked.takes_suffix && rest.starts_with('_'))
        })
    }

    /// The name of its role.
    pub fn role(&self, suffix: Option<&str>) -> String {
        let suffix = suffix.map_or_else(String::new, |suffix| format!("_{suffix}"));
        format!("{PREFIX}{}{suffix}", self.name)
    }

    /// The path of its role.
    pub fn path(&self) -> String {
        format!("/aws-service-role/{}/", self.service)
    }

    /// Who may assume the role: the service.
    pub fn trust(&self) -> String {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"Service":"{}"}},"Action":"sts:AssumeRole"}}]}}"#,
            self.service
        )
    }
}

/// Whether the name is one that only a service-linked role has.
pub fn is_linked(role: &str) -> bool {
    role.starts_with(PREFIX)
}

/// The path of a role about which nothing is recorded: none, but for a service-linked role, whose path has the service's
/// name. `None` where the service is not known.
pub(crate) fn path_of(role: &str) -> Option<String> {
    if is_linked(role) { Linked::of_role(role).map(Linked::path) } else { Some("/".to_owned()) }
}

/// What AWS lets the service-linked role of that name do; `None` if it is none.
///
/// AWS's policies differ from role to role; what they share is that their service works with them and that keys are not in
/// them, so that a key's policy or a grant must let the role in. That this holds for a role whose policy is not known is
/// *assumed*.
pub(super) fn policy_of(role: &str) -> Option<NamedPolicy> {
    if !is_linked(role) {
        return None;
    }
    let (name, document) = match Linked::of_role(role).and_then(|linked| linked.policy) {
        Some((name, document)) => (format!("arn:aws:iam::aws:policy/aws-service-role/{name}"), document),
        None => (format!("AWS's policy of {role} (assumed: everything but KMS)"), EVERYTHING_BUT_KMS),
    };
    Policy::parse(document, PolicyKind::Identity).ok().map(|policy| NamedPolicy::new(name, policy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_found_by_service_and_by_name() {
        let scaling = Linked::of_service("autoscaling.amazonaws.com").unwrap();
        assert_eq!(scaling.role(None), "AWSServiceRoleForAutoScaling");
        assert_eq!(scaling.path(), "/aws-service-role/autoscaling.amazonaws.com/");
        for name in ["AWSServiceRoleForAutoScaling", "AWSServiceRoleForAutoScaling_blue"] {
            assert_eq!(Linked::of_role(name).unwrap().service, scaling.service, "{name}");
        }
        for name in ["AutoScaling", "AWSServiceRoleForAutoScalingX", "AWSServiceRoleForRDS_x", "AWSServiceRoleFor"] {
            assert!(Linked::of_role(name).is_none(), "{name}");
        }
        assert_eq!(path_of("App").as_deref(), Some("/"));
        assert!(path_of("AWSServiceRoleForSomething").is_none());
        assert!(policy_of("AWSServiceRoleForSomething").unwrap().name.contains("assumed"));
        assert!(policy_of("App").is_none());
        for linked in ALL {
            assert!(Policy::parse(&linked.trust(), PolicyKind::Trust).is_ok());
            assert!(policy_of(&linked.role(None)).is_some(), "every policy can be read");
        }
    }
}

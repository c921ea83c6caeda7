//! Principals as ARNs name them (IAM user guide, "IAM identifiers").

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::ids::{AccountId, InstanceId};

/// Somebody who makes a call.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Principal {
    /// The root of an account, `arn:aws:iam::<account>:root`: who calls unless `--principal` says otherwise.
    Root(AccountId),
    /// An IAM user, `arn:aws:iam::<account>:user/<name>`.
    User {
        /// The user's account.
        account: AccountId,
        /// Name with its path, without a leading slash.
        name: String,
    },
    /// A session of a role, `arn:aws:sts::<account>:assumed-role/<role>/<session>`.
    AssumedRole {
        /// The role's account.
        account: AccountId,
        /// The role's name.
        role: String,
        /// The session's name.
        session: String,
    },
    /// The role under which a host opens the volumes of one instance,
    /// `arn:aws:sts::<account>:assumed-role/aws:ec2-infrastructure/<instance>`.
    Ec2Infrastructure {
        /// The instance's account.
        account: AccountId,
        /// The instance.
        instance: InstanceId,
    },
    /// An AWS service that acts for itself inside an account; its name, such as `ec2.us-east-1.amazonaws.com`, stands
    /// where others have an ARN (as in a grant's `RetiringPrincipal`).
    Service {
        /// The account that it acts in.
        account: AccountId,
        /// The service principal's name.
        name: String,
    },
}

/// A string that names no principal we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a principal: give an account's root (arn:aws:iam::<account>:root), a user (…:user/<name>), a role (…:role/<name>), a role session (arn:aws:sts::<account>:assumed-role/<role>/<session>) or a service (ec2.amazonaws.com)"
)]
pub struct PrincipalError(String);

/// The session that a role's ARN stands for where a caller is asked for.
const ROLE_SESSION: &str = "blockseal";

impl Principal {
    /// The principal that `text` names: an ARN, an account, or a service such as `ec2.amazonaws.com`, which acts in
    /// `account`. A role's ARN stands for a session of it that is called `blockseal`.
    ///
    /// # Errors
    /// If it names none.
    pub fn parse_in(text: &str, account: &AccountId) -> Result<Self, PrincipalError> {
        let service = text.strip_suffix(".amazonaws.com").filter(|name| {
            let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            !name.is_empty() && name.bytes().all(word)
        });
        match service {
            Some(_) => Ok(Self::Service { account: account.clone(), name: text.to_owned() }),
            None => text.parse(),
        }
    }

    /// The account it belongs to.
    pub fn account(&self) -> &AccountId {
        match self {
            Self::Root(account)
            | Self::User { account, .. }
            | Self::AssumedRole { account, .. }
            | Self::Ec2Infrastructure { account, .. }
            | Self::Service { account, .. } => account,
        }
    }

    /// Its ARN; a service's name for a service.
    pub fn arn(&self) -> String {
        self.to_string()
    }

    /// Every name by which a grant can mean it: its ARN, its role's for a session (as [`without_path`] has it, because a
    /// session's ARN does not have its role's path), and its account's root, which stands for all of the account's principals
    /// but AWS's own roles.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.arn()];
        if let Self::AssumedRole { account, role, .. } = self {
            names.push(format!("arn:aws:iam::{account}:role/{role}"));
        }
        if matches!(self, Self::User { .. } | Self::AssumedRole { .. }) {
            names.push(format!("arn:aws:iam::{}:root", self.account()));
        }
        names
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(account) => write!(f, "arn:aws:iam::{account}:root"),
            Self::User { account, name } => write!(f, "arn:aws:iam::{account}:user/{name}"),
            Self::AssumedRole { account, role, session } => {
                write!(f, "arn:aws:sts::{account}:assumed-role/{role}/{session}")
            }
            Self::Ec2Infrastructure { account, instance } => {
                write!(f, "arn:aws:sts::{account}:assumed-role/aws:ec2-infrastructure/{instance}")
            }
            Self::Service { name, .. } => f.write_str(name),
        }
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        let refuse = || PrincipalError(text.chars().take(200).collect());
        if let Ok(account) = text.parse() {
            return Ok(Self::Root(account));
        }
        let parts: Vec<_> = text.splitn(6, ':').collect();
        let ["arn", "aws", service, "", account, resource] = parts[..] else { return Err(refuse()) };
        let account: AccountId = account.parse().map_err(|_| refuse())?;
        let (kind, rest) = resource.split_once('/').unwrap_or((resource, ""));
        match (service, kind) {
            ("iam", "root") if rest.is_empty() => Ok(Self::Root(account)),
            ("iam", "user") if !rest.is_empty() => Ok(Self::User { account, name: rest.to_owned() }),
            ("iam", "role") => match rest.rsplit('/').next() {
                Some(role) if !role.is_empty() => {
                    Ok(Self::AssumedRole { account, role: role.to_owned(), session: ROLE_SESSION.to_owned() })
                }
                _ => Err(refuse()),
            },
            ("sts", "assumed-role") => match rest.split_once('/') {
                Some(("aws:ec2-infrastructure", instance)) => {
                    Ok(Self::Ec2Infrastructure { account, instance: instance.parse().map_err(|_| refuse())? })
                }
                Some((role, session)) if !role.is_empty() && !session.is_empty() => {
                    Ok(Self::AssumedRole { account, role: role.to_owned(), session: session.to_owned() })
                }
                _ => Err(refuse()),
            },
            _ => Err(refuse()),
        }
    }
}

/// A role's ARN without the role's path, any other name as it is. Names of roles are unique in their account, so that this
/// means one role still.
pub fn without_path(name: &str) -> String {
    let role = |resource: &str| resource.strip_prefix("role/")?.rsplit('/').next().map(str::to_owned);
    match name.rsplit_once(':') {
        Some((account, resource)) if account.starts_with("arn:aws:iam::") => {
            role(resource).map_or_else(|| name.to_owned(), |role| format!("{account}:role/{role}"))
        }
        _ => name.to_owned(),
    }
}

/// The unique id that IAM would have given the user, or the session's role: of AWS's shape and derived from the ARN, so that
/// it is the same everywhere. `None` for who has none.
pub fn unique_id(principal: &Principal) -> Option<String> {
    match principal {
        Principal::User { .. } => Some(made_up_id("AIDA", &principal.arn())),
        Principal::AssumedRole { account, role, .. } => {
            Some(made_up_id("AROA", &format!("arn:aws:iam::{account}:role/{role}")))
        }
        Principal::Ec2Infrastructure { account, .. } => Some(format!("{account}:aws:ec2-infrastructure")),
        Principal::Root(_) | Principal::Service { .. } => None,
    }
}

/// An id of AWS's shape, `prefix` and 17 letters or digits, that stands for `subject` (16 after `AKIA` and `ASIA`).
pub(crate) fn made_up_id(prefix: &str, subject: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(format!("{prefix} {subject}"));
    let length = if matches!(prefix, "AKIA" | "ASIA") { 16 } else { 17 };
    let letters = digest.iter().take(length).map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
    prefix.chars().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_stands_for_a_session_and_a_service_acts_in_an_account() {
        let account: AccountId = "210987654321".parse().unwrap();
        let role = Principal::parse_in("arn:aws:iam::123456789012:role/path/Admin", &account).unwrap();
        assert_eq!(role.arn(), "arn:aws:sts::123456789012:assumed-role/Admin/blockseal");
        let service = Principal::parse_in("ec2.us-east-1.amazonaws.com", &account).unwrap();
        assert_eq!((service.arn().as_str(), service.account()), ("ec2.us-east-1.amazonaws.com", &account));
        for bad in ["amazonaws.com", ".amazonaws.com", "EC2.amazonaws.com", "arn:aws:iam::123456789012:role/"] {
            assert!(Principal::parse_in(bad, &account).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_role_loses_its_path() {
        for (name, is) in [
            ("arn:aws:iam::123456789012:role/a/b/Admin", "arn:aws:iam::123456789012:role/Admin"),
            ("arn:aws:iam::123456789012:role/Admin", "arn:aws:iam::123456789012:role/Admin"),
            ("arn:aws:iam::123456789012:user/a/Admin", "arn:aws:iam::123456789012:user/a/Admin"),
            ("arn:aws:sts::123456789012:assumed-role/Admin/s", "arn:aws:sts::123456789012:assumed-role/Admin/s"),
            ("ec2.amazonaws.com", "ec2.amazonaws.com"),
        ] {
            assert_eq!(without_path(name), is);
        }
    }

    #[test]
    fn arns_come_back_as_they_were() {
        for arn in [
            "arn:aws:iam::123456789012:root",
            "arn:aws:iam::123456789012:user/ops/alice",
            "arn:aws:sts::123456789012:assumed-role/Admin/session-1",
            "arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/i-0123456789abcdef0",
        ] {
            assert_eq!(arn.parse::<Principal>().unwrap().arn(), arn);
        }
        for bad in [
            "",
            "root",
            "arn:aws:iam::1:root",
            "arn:aws:iam::123456789012:user/",
            "arn:aws:sts::123456789012:assumed-role/r",
        ] {
            assert!(bad.parse::<Principal>().is_err(), "{bad}");
        }
    }
}

//! Principals as policies name them, and whom each name means.
//!
//! IAM user guide, "AWS JSON policy elements: Principal" and "`NotPrincipal`".

use super::principal::Principal;
use super::requester::Requester;
use super::truth::Truth;
use crate::ids::AccountId;

/// A name in `Principal` or `NotPrincipal`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PrincipalName {
    /// `*`, on its own or under `AWS`.
    Everyone,
    /// An account, by its id or its root's ARN.
    Account(AccountId),
    /// A user, a role or a session, by its ARN.
    Arn(String),
    /// A user or role by its unique id (`AIDA…`, `AROA…`), as a policy shows one that was deleted.
    UniqueId(String),
    /// An AWS service.
    Service(String),
    /// An identity provider, which means nobody who calls KMS.
    Federated(String),
    /// An account by its canonical user id, which nothing here knows.
    Canonical(String),
}

impl PrincipalName {
    /// The name `text` under `kind` (`AWS`, `Service` …); `None` if it is none.
    pub(super) fn parse(kind: &str, text: &str) -> Option<Self> {
        match kind {
            "AWS" => Self::parse_aws(text),
            "Service" => {
                let word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
                (word && text.contains('.')).then(|| Self::Service(text.to_owned()))
            }
            "Federated" => (!text.is_empty()).then(|| Self::Federated(text.to_owned())),
            "CanonicalUser" => (!text.is_empty()).then(|| Self::Canonical(text.to_owned())),
            _ => None,
        }
    }

    fn parse_aws(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everyone);
        }
        if let Ok(account) = text.parse() {
            return Some(Self::Account(account));
        }
        let unique = ["AIDA", "AROA"].iter().any(|prefix| text.starts_with(prefix));
        if unique && text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
            return Some(Self::UniqueId(text.to_owned()));
        }
        let parts: Vec<_> = text.splitn(6, ':').collect();
        let ["arn", partition, service, "", account, resource] = parts[..] else { return None };
        if !partition.starts_with("aws") || text.contains(['*', '?']) {
            return None;
        }
        let account: AccountId = account.parse().ok()?;
        let named = |prefix: &str| resource.strip_prefix(prefix).is_some_and(|name| !name.is_empty());
        match service {
            "iam" if resource == "root" => Some(Self::Account(account)),
            "iam" if named("user/") || named("role/") => Some(Self::Arn(text.to_owned())),
            "sts" if named("assumed-role/") || named("federated-user/") => Some(Self::Arn(text.to_owned())),
            _ => None,
        }
    }

    /// The name as a policy has it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Everyone => "*".to_owned(),
            Self::Account(account) => format!("arn:aws:iam::{account}:root"),
            Self::Arn(name)
            | Self::UniqueId(name)
            | Self::Service(name)
            | Self::Federated(name)
            | Self::Canonical(name) => name.clone(),
        }
    }

    /// Whether it means `requester` itself, so that a key policy's statement needs no identity policy beside it.
    pub(super) fn means(&self, requester: &Requester) -> Truth {
        let principal = &requester.principal;
        match self {
            Self::Everyone => Truth::Yes,
            Self::Account(account) => (*principal == Principal::Root(account.clone())).into(),
            Self::Arn(arn) => (*arn == principal.arn() || self.is_role_of(requester)).into(),
            Self::UniqueId(id) => match &requester.unique_id {
                Some(own) => (own == id).into(),
                None if matches!(principal, Principal::User { .. } | Principal::AssumedRole { .. }) => Truth::Unknown,
                None => Truth::No,
            },
            Self::Service(service) => match principal {
                Principal::Service { name, .. } => (name == service || global_name(name) == *service).into(),
                _ => Truth::No,
            },
            Self::Federated(_) => Truth::No,
            Self::Canonical(_) => Truth::Unknown,
        }
    }

    /// Whether it means the account of `requester`, whose identity policies then decide. An AWS service is in no account.
    pub(super) fn means_account(&self, requester: &Requester) -> bool {
        matches!(self, Self::Account(account) if account == requester.principal.account())
            && !matches!(requester.principal, Principal::Service { .. })
    }

    /// Whether it is the role that `requester` is a session of.
    fn is_role_of(&self, requester: &Requester) -> bool {
        matches!(self, Self::Arn(arn) if requester.is_session_of(arn))
    }
}

/// Whether a `NotPrincipal` that lists `names` leaves `requester` out, and so applies to it.
///
/// It must list everything that the requester is: the account, and the user, or the role and the session.
pub(super) fn not_principal(names: &[PrincipalName], requester: &Requester) -> Truth {
    let listed = |is: &dyn Fn(&PrincipalName) -> Truth| Truth::any(names.iter().map(is));
    let everyone = |name: &PrincipalName| *name == PrincipalName::Everyone;
    let account = listed(&|name| (everyone(name) || name.means_account(requester)).into());
    let itself = listed(&|name| match name {
        // The account alone does not name its users.
        PrincipalName::Account(_) if !matches!(requester.principal, Principal::Root(_)) => Truth::No,
        PrincipalName::Arn(arn) => (*arn == requester.principal.arn()).into(),
        name => name.means(requester),
    });
    let role = listed(&|name| match name {
        PrincipalName::UniqueId(_) => name.means(requester),
        name => (everyone(name) || name.is_role_of(requester)).into(),
    });
    let all = match requester.principal {
        Principal::Root(_) => account,
        Principal::User { .. } => account.and(itself),
        Principal::AssumedRole { .. } | Principal::Ec2Infrastructure { .. } => account.and(role).and(itself),
        Principal::Service { .. } => itself,
    };
    !all
}

/// A service's name without the Region: `ec2.amazonaws.com` for `ec2.us-east-1.amazonaws.com`.
pub(super) fn global_name(service: &str) -> String {
    match service.split('.').collect::<Vec<_>>()[..] {
        [name, _, "amazonaws", "com"] => format!("{name}.amazonaws.com"),
        _ => service.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requester(arn: &str) -> Requester {
        Requester::administrator(arn.parse().unwrap())
    }

    fn aws(text: &str) -> PrincipalName {
        PrincipalName::parse("AWS", text).unwrap()
    }

    const SESSION: &str = "arn:aws:sts::123456789012:assumed-role/Admin/s1";

    #[test]
    fn names_mean_whom_iam_says() {
        let user = requester("arn:aws:iam::123456789012:user/ops/alice");
        let session = requester(SESSION);
        let root = requester("arn:aws:iam::123456789012:root");
        for (name, whom, is) in [
            ("*", &user, Truth::Yes),
            ("arn:aws:iam::123456789012:user/ops/alice", &user, Truth::Yes),
            ("arn:aws:iam::123456789012:user/alice", &user, Truth::No),
            ("arn:aws:iam::123456789012:user/ops/Alice", &user, Truth::No),
            ("123456789012", &user, Truth::No),
            ("123456789012", &root, Truth::Yes),
            ("arn:aws:iam::123456789012:root", &root, Truth::Yes),
            ("arn:aws:iam::210987654321:root", &root, Truth::No),
            ("arn:aws:iam::123456789012:role/Admin", &session, Truth::Yes),
            ("arn:aws:iam::123456789012:role/path/to/Admin", &session, Truth::Yes),
            ("arn:aws:iam::123456789012:role/NotAdmin", &session, Truth::No),
            ("arn:aws:iam::210987654321:role/Admin", &session, Truth::No),
            (SESSION, &session, Truth::Yes),
            ("arn:aws:sts::123456789012:assumed-role/Admin/s2", &session, Truth::No),
        ] {
            assert_eq!(aws(name).means(whom), is, "{name}");
        }
        assert!(aws("123456789012").means_account(&user) && aws("123456789012").means_account(&session));
        let known_path = Requester { role_path: Some("/x/".to_owned()), ..requester(SESSION) };
        assert_eq!(aws("arn:aws:iam::123456789012:role/Admin").means(&known_path), Truth::No);
        assert_eq!(aws("arn:aws:iam::123456789012:role/x/Admin").means(&known_path), Truth::Yes);
        let id = aws("AROAEXAMPLEEXAMPLE12");
        assert_eq!(id.means(&Requester { unique_id: None, ..requester(SESSION) }), Truth::Unknown);
        assert_eq!(id.means(&Requester { unique_id: Some("AROAEXAMPLEEXAMPLE12".to_owned()), ..session }), Truth::Yes);
    }

    #[test]
    fn services_are_meant_with_and_without_their_region() {
        let name = "ec2.us-east-1.amazonaws.com".to_owned();
        let service = Requester::administrator(Principal::Service { account: "123456789012".parse().unwrap(), name });
        for (name, is) in [
            ("ec2.amazonaws.com", Truth::Yes),
            ("ec2.us-east-1.amazonaws.com", Truth::Yes),
            ("ec2.eu-west-1.amazonaws.com", Truth::No),
            ("rds.amazonaws.com", Truth::No),
        ] {
            assert_eq!(PrincipalName::parse("Service", name).unwrap().means(&service), is, "{name}");
        }
        assert_eq!(aws("*").means(&service), Truth::Yes);
        assert!(!aws("123456789012").means_account(&service));
    }

    #[test]
    fn not_principal_spares_only_those_who_are_listed_whole() {
        let listed = |names: &[&str], who: &str| {
            let names: Vec<_> = names.iter().map(|name| aws(name)).collect();
            not_principal(&names, &requester(who)) == Truth::No
        };
        let (user, account) = ("arn:aws:iam::123456789012:user/alice", "arn:aws:iam::123456789012:root");
        let role = "arn:aws:iam::123456789012:role/Admin";
        assert!(listed(&[user, account], user) && !listed(&[user], user) && !listed(&[account], user));
        assert!(listed(&[account], account) && !listed(&[user], account));
        assert!(listed(&[account, role, SESSION], SESSION));
        for too_few in [&[role, SESSION][..], &[account, SESSION], &[account, role], &[account]] {
            assert!(!listed(too_few, SESSION), "{too_few:?}");
        }
        assert!(listed(&["*"], user) && listed(&["*"], SESSION));
    }

    #[test]
    fn what_is_no_principal_is_no_name() {
        for bad in [
            "",
            "alice",
            "12345678901",
            "arn:aws:iam::123456789012:user/",
            "arn:aws:iam::123456789012:group/g",
            "arn:aws:iam::123456789012:user/*",
            "arn:aws:iam::*:root",
            "arn:aws:s3:::bucket",
            "AROA",
        ] {
            assert!(PrincipalName::parse("AWS", bad).is_none(), "{bad}");
        }
        assert!(PrincipalName::parse("Service", "ec2").is_none() && PrincipalName::parse("aws", "*").is_none());
    }
}

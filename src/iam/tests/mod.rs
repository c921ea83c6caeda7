//! The evaluation as a whole: cases by hand, and a slow evaluator to agree with.

mod agreement;
mod cases;
mod traps;

use super::*;
use crate::ids::AccountId;

pub(super) const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

pub(super) fn owner() -> AccountId {
    "123456789012".parse().unwrap()
}

/// A key policy with these statements.
pub(super) fn key_policy(statements: &str) -> NamedPolicy {
    let text = format!(r#"{{"Version": "2012-10-17", "Statement": [{statements}]}}"#);
    NamedPolicy::new(
        "key policy",
        Policy::parse(&text, PolicyKind::Key).unwrap_or_else(|error| panic!("{error}: {text}")),
    )
}

/// Identity policies of one statement each.
pub(super) fn identity(statements: &[&str]) -> Identity {
    let each = statements.iter().enumerate().map(|(index, statement)| {
        let text = format!(r#"{{"Version": "2012-10-17", "Statement": {statement}}}"#);
        NamedPolicy::new(format!("inline policy p{index}"), Policy::parse(&text, PolicyKind::Identity).unwrap())
    });
    Identity::Policies(each.collect())
}

pub(super) fn requester(arn: &str, identity: Identity) -> Requester {
    let principal = Principal::parse_in(arn, &owner()).unwrap();
    Requester { organization: Some(None), ..Requester { identity, ..Requester::administrator(principal) } }
}

/// What `requester` may with the key, under `keys` of the request.
pub(super) fn ask(requester: &Requester, policy: &NamedPolicy, action: &str, keys: &[(&str, &str)]) -> Decision {
    let mut context = Context::default();
    requester.describe(&mut context);
    for (key, value) in keys {
        context.set(key, *value);
    }
    let policy = ResourcePolicy::Key(policy);
    evaluate(&Question { requester, action, resource: KEY, owner: &owner(), policy, context: &context })
}

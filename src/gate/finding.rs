//! What policies decided, as findings of an explanation.

use crate::iam::{Check, DecidedBy, Decision, Effect, Outcome, PolicyTrace, Side, StatementTrace, Truth};

use super::trace::{Basis, Finding, Leaning};

const LOGIC: Basis =
    Basis::Documented("IAM user guide, Policy evaluation logic; AWS KMS developer guide, Key policies");
const UNKNOWN: Basis = Basis::Assumed("what is not known decides nothing");
const GUESSED: Basis = Basis::Assumed("AWS does not document what this statement asks for");
const ROOT: Basis = Basis::Documented("IAM user guide, AWS account root user");
const UNRECORDED: Basis = Basis::Assumed("whoever has no recorded policies is an administrator of its account (ours)");
const GRANTS: Basis = Basis::Documented("AWS KMS developer guide, Grants in AWS KMS");

impl Finding {
    /// What `decision` says about `action` by `principal` on `resource`: what decided it, and the statements that fail by a
    /// condition alone.
    pub fn of_decision(decision: &Decision, action: &str, principal: &str, resource: &str) -> Vec<Self> {
        let basis = if decision.assumed.is_empty() { LOGIC } else { GUESSED };
        let mut findings = near_misses(decision, action);
        // The key of a call to KMS stands beside it.
        let asked = if action.starts_with("kms:") { action.to_owned() } else { format!("{action} on {resource}") };
        match decision.outcome {
            Outcome::Allowed => {
                findings.extend(decision.decided_by.iter().map(|by| allowing(decision, by, &asked, principal, basis)));
            }
            Outcome::Denied { explicit: true, side } => {
                let by = decision.decided_by.first();
                let what = by
                    .map_or_else(|| "a statement".to_owned(), |by| place(&by.policy, by.statement, by.sid.as_deref()));
                let finding = Self::new(subject(side), Leaning::Refuses, format!("{what} denies {action}"), basis);
                let remedy = format!("take {action} by {principal} out of {what}: a deny outweighs every allow");
                findings.push(finding.with_remedy(remedy));
            }
            Outcome::Denied { side, .. } => {
                let key = action.starts_with("kms:");
                let says = match side {
                    Side::Identity => format!("no identity policy of {principal} allows {action}"),
                    _ if key => {
                        format!("the key policy neither allows {action} to {principal} nor leaves it to its account")
                    }
                    _ => format!("{resource} is another account's, and has no policy that could let {principal} in"),
                };
                let remedy = match side {
                    Side::Identity => format!("an identity policy of {principal} that allows {action} on {resource}"),
                    _ if key => {
                        format!("a statement of the key policy, or a grant, that allows {action} to {principal}")
                    }
                    _ => format!("a caller of the account that owns {resource}"),
                };
                if key && side == Side::Identity && decision.delegated == Truth::Yes {
                    let says = format!("the key policy leaves {action} to the account of {principal}");
                    findings.push(Self::new("key policy", Leaning::Neutral, says, basis));
                }
                findings.push(Self::new(subject(side), Leaning::Refuses, says, basis).with_remedy(remedy));
            }
            Outcome::Undetermined => findings.extend(
                decision
                    .undetermined
                    .iter()
                    .map(|reason| Self::new("policy", Leaning::Undetermined, reason.clone(), UNKNOWN)),
            ),
        }
        for assumed in &decision.assumed {
            findings.push(Self::new("assumed", Leaning::Neutral, assumed.clone(), GUESSED));
        }
        if let (Some(last), Ok(detail)) = (findings.last_mut(), serde_json::to_value(decision)) {
            last.detail = detail;
        }
        findings
    }
}

/// What one side says that lets the call through.
fn allowing(decision: &Decision, by: &DecidedBy, asked: &str, principal: &str, basis: Basis) -> Finding {
    let what = place(&by.policy, by.statement, by.sid.as_deref());
    let policy = decision.trace.iter().find(|policy| policy.policy == by.policy && policy.side == by.side);
    let delegates = policy
        .zip(by.statement)
        .is_some_and(|(policy, place)| policy.statements.iter().any(|of| of.statement == place && of.delegates));
    let (says, basis) = match (by.side, by.statement) {
        (Side::Grant, _) => (format!("{what} allows {asked}"), GRANTS),
        (Side::Identity, None) if principal.ends_with(":root") => {
            (format!("{principal} may do whatever is left to its account"), ROOT)
        }
        (Side::Identity, None) => (format!("{principal} is an {what}"), UNRECORDED),
        _ if delegates => (format!("{what} leaves {asked} to the account of {principal}"), basis),
        _ => (format!("{what} allows {asked}"), basis),
    };
    Finding::new(subject(by.side), Leaning::Allows, says, basis)
}

fn subject(side: Side) -> &'static str {
    match side {
        Side::Resource => "key policy",
        Side::Identity => "identity policy",
        Side::Grant => "grant",
    }
}

/// `statement 1 (Sid) of the key policy`.
fn place(policy: &str, statement: Option<usize>, sid: Option<&str>) -> String {
    let sid = sid.map(|sid| format!(" ({sid})")).unwrap_or_default();
    match statement {
        Some(statement) => format!("statement {statement}{sid} of {policy}"),
        None => policy.to_owned(),
    }
}

/// Statements that are about the request and fail by a condition: what one most often looks for.
fn near_misses(decision: &Decision, action: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in &decision.trace {
        for statement in policy.statements.iter().filter(|statement| statement.matched == Truth::No) {
            let (conditions, rest): (Vec<&Check>, Vec<&Check>) =
                statement.checks.iter().partition(|check| check.element == "Condition");
            if rest.iter().all(|check| check.matched != Truth::No) {
                findings.push(near_miss(policy, statement, &conditions, action));
            }
        }
    }
    findings
}

fn near_miss(policy: &PolicyTrace, statement: &StatementTrace, conditions: &[&Check], action: &str) -> Finding {
    let failing = conditions.iter().filter(|check| check.matched == Truth::No).map(|check| {
        let found = match &check.found {
            Some(found) => format!("{found:?}"),
            None => "nothing".to_owned(),
        };
        format!(
            "{} of {} wants {:?}, the request has {found}",
            check.operator.as_deref().unwrap_or_default(),
            check.key.as_deref().unwrap_or_default(),
            check.wanted
        )
    });
    let would = if statement.effect == Effect::Allow { "allow" } else { "deny" };
    let says = format!(
        "{} would {would} {action}, but {}",
        place(&policy.policy, Some(statement.statement), statement.sid.as_deref()),
        failing.collect::<Vec<_>>().join("; ")
    );
    Finding::new(subject(policy.side), Leaning::Neutral, says, LOGIC)
}

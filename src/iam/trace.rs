//! What was decided, by what, and why: fit for people and programs.

use serde::Serialize;

use super::policy::Effect;
use super::truth::Truth;

/// What policies say to a request.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Decision {
    /// The verdict.
    pub outcome: Outcome,
    /// What decided it: a deny, or what allowed. Nothing for an implicit denial.
    pub decided_by: Vec<DecidedBy>,
    /// Why the verdict cannot be told; empty if it can.
    pub undetermined: Vec<String>,
    /// What AWS does not document and was assumed, of all that mattered.
    pub assumed: Vec<String>,
    /// Whether the requester is of another account than the resource.
    pub cross_account: bool,
    /// Whether something denies explicitly.
    pub explicit_deny: Truth,
    /// Whether the resource's policy allows it to the requester itself.
    pub allowed_by_resource: Truth,
    /// Whether the resource's policy leaves it to the requester's account.
    pub delegated: Truth,
    /// Whether the requester's identity policies allow it.
    pub allowed_by_identity: Truth,
    /// Every policy that was looked at.
    pub trace: Vec<PolicyTrace>,
}

/// A verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "Verdict", rename_all = "PascalCase", rename_all_fields = "PascalCase")]
#[non_exhaustive]
pub enum Outcome {
    /// It is allowed.
    Allowed,
    /// It is denied.
    Denied {
        /// Whether a statement denies it, and not merely none allows it.
        explicit: bool,
        /// Whose policies deny, or lack the allowance.
        side: Side,
    },
    /// It cannot be told.
    Undetermined,
}

/// Where a policy is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub enum Side {
    /// At the resource: the key policy.
    Resource,
    /// At the requester.
    Identity,
    /// A grant of the key.
    Grant,
}

/// What decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DecidedBy {
    /// The policy's or grant's name.
    pub policy: String,
    /// Where it is attached.
    pub side: Side,
    /// The statement's place, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<usize>,
    /// Its `Sid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
}

/// A policy that was looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyTrace {
    /// Its name.
    pub policy: String,
    /// Where it is attached.
    pub side: Side,
    /// Its statements, in their order.
    pub statements: Vec<StatementTrace>,
}

/// A statement that was looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StatementTrace {
    /// Its place, from 0.
    pub statement: usize,
    /// Its `Sid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// Whether it applies to the request.
    pub matched: Truth,
    /// Whether it applies by naming the requester's account alone, so that identity policies decide.
    pub delegates: bool,
    /// Its elements, one by one.
    pub checks: Vec<Check>,
}

/// An element of a statement against the request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    /// `Principal`, `NotAction`, `Condition` …
    pub element: &'static str,
    /// The condition's operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The condition's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the policy asks for.
    pub wanted: Vec<String>,
    /// What the request has; absent if it has nothing, or it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Vec<String>>,
    /// Whether they match.
    pub matched: Truth,
    /// Why, where that is not plain to see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What AWS does not document and was assumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assumed: Option<String>,
}

impl Decision {
    /// Whether it is a sure yes.
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }

    /// The decision beside a grant that allows the request. A grant can only add: an explicit deny denies still, and where
    /// one is possible the verdict stays open.
    #[must_use]
    pub fn with_grant(self, grant: &str) -> Self {
        if self.explicit_deny != Truth::No || self.is_allowed() {
            return self.reopened();
        }
        let by = DecidedBy { policy: grant.to_owned(), side: Side::Grant, statement: None, sid: None };
        Self { outcome: Outcome::Allowed, decided_by: vec![by], undetermined: Vec::new(), ..self }
    }

    /// With a grant that allows, a possible deny matters even where no policy allows.
    fn reopened(self) -> Self {
        if self.explicit_deny != Truth::Unknown {
            return self;
        }
        let undetermined = self.reasons(|statement| statement.effect == Effect::Deny);
        Self { outcome: Outcome::Undetermined, decided_by: Vec::new(), undetermined, ..self }
    }

    /// What is not known of the statements that `of` picks and that may apply.
    pub(super) fn reasons(&self, of: impl Fn(&StatementTrace) -> bool) -> Vec<String> {
        let mut reasons = Vec::new();
        for policy in &self.trace {
            for statement in
                policy.statements.iter().filter(|statement| statement.matched == Truth::Unknown && of(statement))
            {
                let open = statement.checks.iter().filter(|check| check.matched == Truth::Unknown);
                for check in open {
                    let why = check.note.as_deref().unwrap_or("it cannot be told");
                    let sid = statement.sid.as_ref().map(|sid| format!(" ({sid})")).unwrap_or_default();
                    let reason = format!("{}, statement {}{sid}: {why}", policy.policy, statement.statement);
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
            }
        }
        reasons
    }

    /// How AWS ends the message of an `AccessDeniedException`: `because no identity-based policy allows the … action`, or
    /// `with an explicit deny in …`. Empty for an allowed request.
    ///
    /// IAM user guide, "Troubleshoot access denied error messages". That KMS merges the reasons for a key of another
    /// account is recorded.
    pub fn clause(&self, action: &str) -> String {
        match self.outcome {
            Outcome::Allowed => String::new(),
            Outcome::Denied { explicit: true, side: Side::Identity } => {
                "with an explicit deny in an identity-based policy".to_owned()
            }
            Outcome::Denied { side: Side::Resource, .. } if self.cross_account => FOREIGN.to_owned(),
            Outcome::Denied { explicit: true, .. } => "with an explicit deny in a resource-based policy".to_owned(),
            Outcome::Denied { side: Side::Identity, .. } => {
                format!("because no identity-based policy allows the {action} action")
            }
            Outcome::Denied { .. } => format!("because no resource-based policy allows the {action} action"),
            Outcome::Undetermined => {
                format!("because Blockseal cannot tell what the policies say: {}", self.undetermined.join("; "))
            }
        }
    }
}

/// How AWS words the denial of a key of another account, whether or not there is such a key.
pub const FOREIGN: &str = "because the resource does not exist in this Region, no resource-based policies allow access, or a \
                           resource-based policy explicitly denies access";

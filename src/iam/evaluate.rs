//! The evaluation: explicit deny first, the key policy as the root of trust, identity policies where it leaves it to them.
//!
//! IAM user guide, "Policy evaluation logic" and "Cross-account policy evaluation logic"; AWS KMS developer guide, "Key
//! policies in AWS KMS" and "Default key policy". What is not evaluated: service and resource control policies,
//! permissions boundaries, session policies, endpoint policies.

use crate::ids::AccountId;

use super::condition;
use super::context::Context;
use super::names::{self, PrincipalName};
use super::pattern::{self, Expanded};
use super::policy::{Effect, Element, Policy, Statement};
use super::requester::{Identity, NamedPolicy, Requester};
use super::trace::{Check, DecidedBy, Decision, Outcome, PolicyTrace, Side, StatementTrace};
use super::truth::Truth;

/// The policy of the resource that is asked for.
#[derive(Clone, Copy, Debug)]
pub enum ResourcePolicy<'a> {
    /// A resource that has none, or no resource at all (`kms:ListKeys`): identity policies decide alone.
    None,
    /// A key's policy. Nothing is allowed that it does not allow or leave to the account.
    Key(&'a NamedPolicy),
    /// A key's policy that cannot be told; the reason.
    Unknown(&'a str),
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub requester: &'a Requester,
    /// For which action, such as `kms:Decrypt`.
    pub action: &'a str,
    /// On which resource: an ARN, or `*` where there is none.
    pub resource: &'a str,
    /// Whose resource it is.
    pub owner: &'a AccountId,
    /// The resource's policy.
    pub policy: ResourcePolicy<'a>,
    /// The request's condition keys, also those that say who asks ([`Requester::describe`]).
    pub context: &'a Context,
}

/// What the policies say.
pub fn evaluate(question: &Question<'_>) -> Decision {
    let requester = question.requester;
    let mut trace = Vec::new();
    let mut resource = Tally::default();
    match question.policy {
        ResourcePolicy::None => {}
        ResourcePolicy::Key(named) => trace.push(resource.consider(named, Side::Resource, question)),
        ResourcePolicy::Unknown(_) => resource = Tally::UNKNOWN,
    }
    let mut identity = Tally::default();
    match &requester.identity {
        Identity::Administrator => identity.allow = Truth::Yes,
        Identity::Policies(policies) => {
            trace.extend(policies.iter().map(|named| identity.consider(named, Side::Identity, question)));
        }
        Identity::Nothing => {}
        Identity::Unknown(_) => identity = Tally::UNKNOWN,
    }
    // A service acts for itself under the key policy alone; it is in no account.
    let service = matches!(requester.identity, Identity::Nothing);
    let cross_account = !service && requester.principal.account() != question.owner;
    let deny = resource.deny.or(identity.deny);
    let by_resource = resource.allow.or(resource.delegated);
    let allow = match question.policy {
        ResourcePolicy::None if requester.principal.account() != question.owner => Truth::No,
        ResourcePolicy::None => identity.allow,
        _ if cross_account => by_resource.and(identity.allow),
        _ => resource.allow.or(resource.delegated.and(identity.allow)),
    };
    let outcome = match (deny, allow) {
        (Truth::Yes, _) => {
            let side = if resource.deny == Truth::Yes { Side::Resource } else { Side::Identity };
            Outcome::Denied { explicit: true, side }
        }
        (_, Truth::No) => {
            let lacking = match question.policy {
                ResourcePolicy::None if requester.principal.account() == question.owner => Side::Identity,
                ResourcePolicy::None => Side::Resource,
                _ if by_resource == Truth::No => Side::Resource,
                _ => Side::Identity,
            };
            Outcome::Denied { explicit: false, side: lacking }
        }
        (Truth::No, Truth::Yes) => Outcome::Allowed,
        _ => Outcome::Undetermined,
    };
    let mut decision = Decision {
        outcome,
        decided_by: Vec::new(),
        undetermined: Vec::new(),
        assumed: Vec::new(),
        cross_account,
        explicit_deny: deny,
        allowed_by_resource: resource.allow,
        delegated: resource.delegated,
        allowed_by_identity: identity.allow,
        trace,
    };
    decision.decided_by = decided_by(&decision, question);
    decision.assumed = assumed(&decision);
    if outcome == Outcome::Undetermined {
        decision.undetermined = decision.reasons(|_| true);
        if let ResourcePolicy::Unknown(reason) = question.policy {
            decision.undetermined.push(reason.to_owned());
        }
        if let Identity::Unknown(reason) = &requester.identity {
            decision.undetermined.push(reason.clone());
        }
    }
    decision
}

/// What the policies of one side come to.
#[derive(Clone, Copy)]
struct Tally {
    deny: Truth,
    /// To the requester itself.
    allow: Truth,
    /// To the requester's account.
    delegated: Truth,
}

impl Default for Tally {
    fn default() -> Self {
        Self { deny: Truth::No, allow: Truth::No, delegated: Truth::No }
    }
}

impl Tally {
    const UNKNOWN: Self = Self { deny: Truth::Unknown, allow: Truth::Unknown, delegated: Truth::Unknown };

    fn consider(&mut self, named: &NamedPolicy, side: Side, question: &Question<'_>) -> PolicyTrace {
        let policy = &named.policy;
        let each = policy.statements.iter().enumerate().map(|(index, statement)| {
            let considered = Considered::of(policy, statement, side, question);
            match statement.effect {
                Effect::Deny => self.deny = self.deny.or(considered.direct.or(considered.account)),
                Effect::Allow => {
                    self.allow = self.allow.or(considered.direct);
                    self.delegated = self.delegated.or(considered.account);
                }
            }
            StatementTrace {
                statement: index,
                sid: statement.sid.clone(),
                effect: statement.effect,
                matched: considered.direct.or(considered.account),
                delegates: statement.effect == Effect::Allow && considered.account > considered.direct,
                checks: considered.checks,
            }
        });
        let statements = each.collect();
        PolicyTrace { policy: named.name.clone(), side, statements }
    }
}

/// A statement against the request.
struct Considered {
    /// Whether it applies to the requester itself.
    direct: Truth,
    /// Whether it applies to the requester's account.
    account: Truth,
    checks: Vec<Check>,
}

impl Considered {
    fn of(policy: &Policy, statement: &Statement, side: Side, question: &Question<'_>) -> Self {
        let mut checks = Vec::with_capacity(3 + statement.conditions.len());
        let (mut direct, mut account) = (Truth::Yes, Truth::No);
        if side == Side::Resource {
            (direct, account) = principal(statement, question.requester, &mut checks);
        }
        checks.push(action(statement.actions.as_ref(), question.action));
        checks.push(resource(statement.resources.as_ref(), policy, question));
        for wanted in &statement.conditions {
            let outcome = condition::check(wanted, policy.version, question.context);
            let assumed = outcome.assumed.or_else(|| condition::of_another_type(wanted));
            checks.push(Check {
                element: "Condition",
                operator: Some(wanted.name.clone()),
                key: Some(wanted.key.clone()),
                wanted: wanted.values.clone(),
                found: outcome.found,
                matched: outcome.holds,
                note: outcome.note,
                assumed: assumed.map(str::to_owned),
            });
        }
        let rest = Truth::all(checks.iter().filter(|check| !is_principal(check)).map(|check| check.matched));
        Self { direct: direct.and(rest), account: account.and(rest), checks }
    }
}

fn is_principal(check: &Check) -> bool {
    matches!(check.element, "Principal" | "NotPrincipal")
}

/// Whether the statement is for the requester itself, and whether for its account.
fn principal(statement: &Statement, requester: &Requester, checks: &mut Vec<Check>) -> (Truth, Truth) {
    let found = Some(vec![requester.principal.arn()]);
    let Some(Element { negated, list }) = &statement.principals else {
        checks.push(simple("Principal", Vec::new(), found, Truth::No, Some("the statement names nobody")));
        return (Truth::No, Truth::No);
    };
    let wanted = list.iter().map(PrincipalName::shown).collect();
    if !negated {
        let direct = Truth::any(list.iter().map(|name| name.means(requester)));
        let account: Truth = list.iter().any(|name| name.means_account(requester)).into();
        let note = match (direct, account) {
            (Truth::Unknown, _) => Some("whether a name in it means the requester cannot be told"),
            (Truth::No, Truth::Yes) => Some("it names the requester's account"),
            _ => None,
        };
        checks.push(simple("Principal", wanted, found, direct.or(account), note));
        return (direct, account);
    }
    let applies = names::not_principal(list, requester);
    let (applies, note) = match statement.effect {
        Effect::Deny => (applies, None),
        Effect::Allow if applies == Truth::No => (Truth::No, None),
        Effect::Allow => (Truth::Unknown, Some("AWS does not support NotPrincipal in a statement that allows")),
    };
    checks.push(simple("NotPrincipal", wanted, found, applies, note));
    (applies, Truth::No)
}

fn action(actions: Option<&Element<String>>, asked: &str) -> Check {
    let found = Some(vec![asked.to_owned()]);
    let Some(Element { negated, list }) = actions else {
        return simple(
            "Action",
            Vec::new(),
            found,
            Truth::No,
            Some("the statement has no Action, so that it has no effect"),
        );
    };
    let matched: Truth = list.iter().any(|wanted| pattern::action(wanted, asked)).into();
    simple(if *negated { "NotAction" } else { "Action" }, list.clone(), found, matched.negate_if(*negated), None)
}

fn resource(resources: Option<&Element<String>>, policy: &Policy, question: &Question<'_>) -> Check {
    let found = Some(vec![question.resource.to_owned()]);
    let Some(Element { negated, list }) = resources else {
        let note = Some("the statement has no Resource, so that it has no effect");
        return simple("Resource", Vec::new(), found, Truth::No, note);
    };
    let mut note = None;
    let matched =
        Truth::any(list.iter().map(|wanted| match pattern::expand(wanted, policy.version, question.context, true) {
            Expanded::Tokens(tokens) => {
                let matched = pattern::arn(&tokens, question.resource);
                if matched == Truth::Unknown {
                    note = Some(
                        "the pattern is no ARN of six parts, and what AWS makes of it is not documented".to_owned(),
                    );
                }
                matched
            }
            Expanded::Null => Truth::No,
            Expanded::Unknown(reason) => {
                note = Some(reason);
                Truth::Unknown
            }
        }));
    let element = if *negated { "NotResource" } else { "Resource" };
    let note = note.filter(|_| matched == Truth::Unknown);
    simple(element, list.clone(), found, matched.negate_if(*negated), note.as_deref())
}

fn simple(
    element: &'static str,
    wanted: Vec<String>,
    found: Option<Vec<String>>,
    matched: Truth,
    note: Option<&str>,
) -> Check {
    Check { element, operator: None, key: None, wanted, found, matched, note: note.map(str::to_owned), assumed: None }
}

/// The statements that decided: the first that denies, or the first that allows on each side that had to.
fn decided_by(decision: &Decision, question: &Question<'_>) -> Vec<DecidedBy> {
    let first = |of: &dyn Fn(&PolicyTrace, &StatementTrace) -> bool| {
        decision.trace.iter().find_map(|policy| {
            let statement = policy.statements.iter().find(|s| s.matched == Truth::Yes && of(policy, s))?;
            Some(DecidedBy {
                policy: policy.policy.clone(),
                side: policy.side,
                statement: Some(statement.statement),
                sid: statement.sid.clone(),
            })
        })
    };
    let allows = |s: &StatementTrace| s.effect == Effect::Allow;
    match decision.outcome {
        Outcome::Denied { explicit: true, .. } => first(&|_, s| s.effect == Effect::Deny).into_iter().collect(),
        Outcome::Allowed => {
            let direct = first(&|policy, s| policy.side == Side::Resource && allows(s) && !s.delegates);
            let delegating = first(&|policy, s| policy.side == Side::Resource && allows(s) && s.delegates);
            let mut identity = first(&|policy, s| policy.side == Side::Identity && allows(s));
            if matches!(question.requester.identity, Identity::Administrator) {
                let policy = match question.requester.principal {
                    super::Principal::Root(_) => "root of the account",
                    _ => "administrator (no recorded policies)",
                };
                let policy = policy.to_owned();
                identity = Some(DecidedBy { policy, side: Side::Identity, statement: None, sid: None });
            }
            match direct {
                Some(direct) if !decision.cross_account => vec![direct],
                direct => direct.or(delegating).into_iter().chain(identity).collect(),
            }
        }
        _ => Vec::new(),
    }
}

/// What was assumed in statements that apply or may.
fn assumed(decision: &Decision) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let statements = decision.trace.iter().flat_map(|policy| &policy.statements);
    // An assumption also matters where it kept a statement from applying, unless something else did.
    let relevant = statements.flat_map(|statement| {
        let surely_not = |check: &&Check| check.matched == Truth::No && check.assumed.is_none();
        let out = statement.checks.iter().any(|check| surely_not(&check));
        statement.checks.iter().filter(move |_| !out)
    });
    for text in relevant.filter_map(|check| check.assumed.as_ref()) {
        if !found.contains(text) {
            found.push(text.clone());
        }
    }
    found
}

//! May a principal make a call that no resource's policy has a say in: its identity policies decide.

use crate::clock::Time;
use crate::iam::{self, CallFacts, Context, Decision, Outcome, Question, Requester, ResourcePolicy};
use crate::ids::AccountId;
use crate::store::{StoreError, Transaction};
use crate::twin::{self, Protection};

use super::{Call, Finding, ServiceError, Step};

/// The code of the answer where it cannot be told what policies say: they ask for a condition key or operator that is not
/// known. AWS has no such answer, because there nothing is unknown (ours).
pub const UNDETERMINED: &str = "UndeterminedException";

/// The condition keys that `call` has whatever it asks for.
pub fn common_keys(call: &Call<'_>, now: Time, requester: &Requester) -> Context {
    let mut context = Context::default();
    let facts = CallFacts {
        region: call.region.as_str(),
        via: call.via.as_deref(),
        source_ip: &call.source_ip,
        user_agent: &call.user_agent,
        now,
    };
    facts.describe(requester, &mut context);
    if let Some(issued) = call.credential.as_ref().and_then(|credential| credential.issued) {
        context.set("aws:TokenIssueTime", issued.to_seconds_string());
    }
    context
}

/// Sets the condition keys that say whose the resource is.
///
/// # Errors
/// The store's.
pub fn owner_keys(tx: &Transaction<'_>, owner: &AccountId, context: &mut Context) -> Result<(), StoreError> {
    let membership = iam::directory::membership(tx, owner)?;
    if !matches!(membership, Some(None)) {
        context.set_unknown("aws:ResourceOrgPaths", "the account's place in its organisation is not known");
    }
    match membership {
        Some(organization) => context.set_opt("aws:ResourceOrgID", organization),
        None => context.set_unknown("aws:ResourceOrgID", "the account's organisation is not known"),
    };
    context.set("aws:ResourceAccount", owner.as_str());
    Ok(())
}

/// What the caller's identity policies say to `action` on `resource` (an ARN, or `*`) of the call's account. `keys` are the
/// request's further condition keys.
///
/// # Errors
/// The store's.
pub fn decide(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    now: Time,
    action: &str,
    resource: &str,
    keys: &Context,
) -> Result<Decision, ServiceError> {
    let requester = iam::directory::requester(tx, &call.principal)?;
    let mut context = common_keys(call, now, &requester);
    if resource == "*" {
        context.set_unknown("aws:ResourceAccount", "whether a call about no one resource has it is not documented");
        context.set_unknown("aws:ResourceOrgID", "whether a call about no one resource has it is not documented");
    } else {
        owner_keys(tx, &call.account, &mut context)?;
    }
    context.extend(keys);
    Ok(iam::evaluate(&Question {
        requester: &requester,
        action,
        resource,
        owner: &call.account,
        policy: ResourcePolicy::None,
        context: &context,
    }))
}

/// Lets an operation through or refuses it, as most services do; the message names `resource` if there is one.
///
/// # Errors
/// `AccessDeniedException`; [`UNDETERMINED`] where it cannot be told what the policies say.
pub fn authorise(step: &Step<'_>, action: &str, resource: Option<&str>, keys: &Context) -> Result<(), ServiceError> {
    let decision = decide(step.tx, step.call, step.now, action, resource.unwrap_or("*"), keys)?;
    let open = note(step.call, &decision, action, resource.unwrap_or("*"));
    if decision.is_allowed() || open || twin::is_off(Protection::Policy) {
        return Ok(());
    }
    let on = resource.map(|resource| format!("on resource: {resource} ")).unwrap_or_default();
    Err(refusal(&decision, step.call, action, &on))
}

/// Notes `decision` in the trace of a call that is explained. Answers whether it cannot be told, so that the explanation
/// goes on as if the call were let through; a call that is not explained never does.
pub fn note(call: &Call<'_>, decision: &Decision, action: &str, resource: &str) -> bool {
    let Some(trace) = call.trace else { return false };
    for finding in Finding::of_decision(decision, action, &call.principal.arn(), resource) {
        trace.note(finding);
    }
    decision.outcome == Outcome::Undetermined
}

/// The refusal that `decision`, which is no yes, comes to; `on` says of what, with a space behind it.
pub fn refusal(decision: &Decision, call: &Call<'_>, action: &str, on: &str) -> ServiceError {
    if decision.outcome == Outcome::Undetermined {
        let reasons = decision.undetermined.join("; ");
        let message = format!("Whether {} may call {action} {on}cannot be told: {reasons}", call.principal);
        return ServiceError::refused(UNDETERMINED, message);
    }
    let clause = decision.clause(action);
    let message = format!("User: {} is not authorized to perform: {action} {on}{clause}", call.principal);
    ServiceError::refused("AccessDeniedException", message)
}

//! STS: who calls, and the sessions of roles (STS API reference).

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::credentials::{self, SecretText};
use super::refused;
use crate::clock::Time;
use crate::gate::{self, Call, Operation, Service, ServiceError, Step};
use crate::iam::directory::{self, Entity, EntityKind};
use crate::iam::{self, NamedPolicy, Outcome, Policy, PolicyKind, Principal, Question, ResourcePolicy};
use crate::ids::AccountId;
use crate::kms::RootKey;
use crate::twin::{self, Protection};

const fn service(lists_resources: bool) -> Service {
    Service { event_source: "sts.amazonaws.com", error_prefix: "", lists_resources, settlers: &[] }
}

/// STS, whose records list the role that was assumed.
pub static SERVICE: Service = service(true);
/// STS, where there is nothing to list.
static BARE: Service = service(false);

static GET_CALLER_IDENTITY: Operation = Operation { name: "GetCallerIdentity", read_only: true, service: &BARE };
static ASSUME_ROLE: Operation = Operation { name: "AssumeRole", read_only: true, service: &SERVICE };

/// How long a session lasts if nothing is asked, and how long at most where a session assumes another role; in seconds.
const ONE_HOUR: i64 = 3600;

/// What stands in a record where the answer has the session token: CloudTrail shows an encoded one, which nothing here
/// keeps (ours).
const HIDDEN: &str = "HIDDEN_DUE_TO_SECURITY_REASONS";

/// `GetCallerIdentity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetCallerIdentityRequest {}

/// What `GetCallerIdentity` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetCallerIdentityResponse {
    /// The account's id for a root, `AIDA…` for a user, `AROA…:SESSION` for a session.
    pub user_id: String,
    /// The caller's account.
    pub account: String,
    /// The caller's ARN.
    pub arn: String,
}

/// `AssumeRole`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AssumeRoleRequest {
    /// The role, by its ARN.
    pub role_arn: String,
    /// 2-64 letters, digits and `_+=,.@-`.
    pub role_session_name: String,
    /// Seconds: 900 up to the role's longest, 3600 if absent.
    pub duration_seconds: Option<i64>,
    /// What the role's trust policy may ask for as `sts:ExternalId`.
    pub external_id: Option<String>,
}

/// Temporary credentials.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TemporaryCredentials {
    /// `ASIA…`.
    pub access_key_id: String,
    /// 40 letters.
    pub secret_access_key: SecretText,
    /// What must come with every call.
    pub session_token: SecretText,
    /// When they end, by the home's clock.
    pub expiration: Time,
}

/// A session of a role.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AssumedRoleUser {
    /// `AROA…:SESSION`.
    pub assumed_role_id: String,
    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub arn: String,
}

/// What `AssumeRole` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AssumeRoleResponse {
    /// The credentials.
    pub credentials: TemporaryCredentials,
    /// Whose they are.
    pub assumed_role_user: AssumedRoleUser,
}

/// Who calls. Nobody can be denied it.
pub fn get_caller_identity(
    call: &Call<'_>,
    _: GetCallerIdentityRequest,
) -> Result<GetCallerIdentityResponse, ServiceError> {
    gate::run(call, &GET_CALLER_IDENTITY, serde_json::Value::Null, |step| {
        let requester = directory::requester(step.tx, &call.principal)?;
        let id = requester.unique_id.clone().unwrap_or_default();
        let user_id = match &call.principal {
            Principal::User { .. } => id,
            Principal::AssumedRole { session, .. } => format!("{id}:{session}"),
            Principal::Ec2Infrastructure { instance, .. } => format!("{id}:{instance}"),
            other => other.account().to_string(),
        };
        Ok(GetCallerIdentityResponse {
            user_id,
            account: call.principal.account().to_string(),
            arn: call.principal.arn(),
        })
    })
}

/// Begins a session of a role for a caller whom the role's trust policy lets (IAM user guide, "Cross-account policy evaluation
/// logic": within the account a statement that names the caller is enough, one that names the account needs an identity
/// policy beside it; from another account both are needed).
pub fn assume_role(call: &Call<'_>, req: AssumeRoleRequest) -> Result<AssumeRoleResponse, ServiceError> {
    let mut parameters = json!({"roleArn": req.role_arn, "roleSessionName": req.role_session_name});
    if let Some(seconds) = req.duration_seconds {
        parameters["durationSeconds"] = seconds.into();
    }
    if let Some(id) = &req.external_id {
        parameters["externalId"] = id.as_str().into();
    }
    gate::run_steps(call, &ASSUME_ROLE, parameters, |_| RootKey::of(call.home), |step, root| assume(step, root, &req))
}

fn assume(step: &mut Step<'_>, root: &RootKey, req: &AssumeRoleRequest) -> Result<AssumeRoleResponse, ServiceError> {
    let (owner, name) = check(req)?;
    let call = step.call;
    step.draft.resource("AWS::IAM::Role", &req.role_arn, &owner);
    if matches!(call.principal, Principal::Root(_)) {
        let refusal = refused("AccessDenied", 403, "Roles may not be assumed by root accounts.");
        return Err(refusal.with_hint("make a user with `blockseal iam create-user`, and call as it: --principal ARN"));
    }
    let role = directory::find(step.tx, &owner, EntityKind::Role, name)?.filter(|role| role.arn() == req.role_arn);
    let role = role.ok_or_else(|| denied(call, &req.role_arn))?;
    trusted(step, &role, req)?;
    let seconds = req.duration_seconds.unwrap_or(ONE_HOUR);
    if matches!(call.principal, Principal::AssumedRole { .. }) && seconds > ONE_HOUR {
        return Err(invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        ));
    }
    if seconds > role.max_session {
        return Err(invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role."));
    }
    // The answer's times have whole seconds, and a session ends when its answer says.
    let issued = Time::from_micros(step.now.micros() / 1_000_000 * 1_000_000).unwrap_or(step.now);
    let expires = issued.after(jiff::SignedDuration::from_secs(seconds));
    let session = &req.role_session_name;
    let new = credentials::new_session(step.tx, root, &role, session, [issued, expires])?;
    let user = AssumedRoleUser {
        assumed_role_id: format!("{}:{session}", role.id),
        arn: format!("arn:aws:sts::{owner}:assumed-role/{}/{session}", role.name),
    };
    step.draft.set_response(json!({
        "credentials": {
            "accessKeyId": new.access_key_id, "sessionToken": HIDDEN, "expiration": expires.to_trail_date_string(),
        },
        "assumedRoleUser": {"assumedRoleId": user.assumed_role_id, "arn": user.arn},
    }));
    Ok(AssumeRoleResponse {
        credentials: TemporaryCredentials {
            access_key_id: new.access_key_id,
            secret_access_key: new.secret,
            session_token: new.token,
            expiration: expires,
        },
        assumed_role_user: user,
    })
}

/// The role's account and name, if the request is one.
fn check(req: &AssumeRoleRequest) -> Result<(AccountId, &str), ServiceError> {
    let parts: Vec<_> = req.role_arn.splitn(6, ':').collect();
    let ["arn", "aws", "iam", "", account, resource] = parts[..] else { return Err(invalid("Request ARN is invalid")) };
    let account: AccountId = account.parse().map_err(|_| invalid("Request ARN is invalid"))?;
    let name = resource.strip_prefix("role/").and_then(|path| path.rsplit('/').next());
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| invalid("Request ARN is invalid"))?;
    let session = &req.role_session_name;
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if !(2..=64).contains(&session.len()) || !session.bytes().all(word) {
        let shown: String = session.chars().take(80).collect();
        return Err(invalid(format!(
            "1 validation error detected: Value '{shown}' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
        )));
    }
    if let Some(seconds) = req.duration_seconds.filter(|seconds| !(900..=43_200).contains(seconds)) {
        let bound = if seconds < 900 { "greater than or equal to 900" } else { "less than or equal to 43200" };
        return Err(invalid(format!(
            "1 validation error detected: Value '{seconds}' at 'durationSeconds' failed to satisfy constraint: Member must have value {bound}"
        )));
    }
    Ok((account, name))
}

/// Refuses a caller whom the trust policy, or his own policies where they are asked, do not let.
fn trusted(step: &Step<'_>, role: &Entity, req: &AssumeRoleRequest) -> Result<(), ServiceError> {
    let call = step.call;
    let requester = directory::requester(step.tx, &call.principal)?;
    let mut context = gate::common_keys(call, step.now, &requester);
    context
        .set("sts:RoleSessionName", req.role_session_name.as_str())
        .set_opt("sts:ExternalId", req.external_id.as_deref())
        .set("aws:ResourceAccount", role.account.as_str());
    for (key, value) in directory::tags(step.tx, role)? {
        context.set_named("aws:ResourceTag/", &key, &value);
    }
    let parsed = Policy::parse(role.trust.as_deref().unwrap_or_default(), PolicyKind::Trust);
    let named = parsed.map(|policy| NamedPolicy::new(format!("trust policy of role {}", role.name), policy));
    let reason = named.as_ref().err().map(|error| format!("the role's trust policy cannot be read: {error}"));
    let arn = role.arn();
    let decision = iam::evaluate(&Question {
        requester: &requester,
        action: "sts:AssumeRole",
        resource: &arn,
        owner: &role.account,
        policy: match &named {
            Ok(named) => ResourcePolicy::Key(named),
            Err(_) => ResourcePolicy::Unknown(reason.as_deref().unwrap_or_default()),
        },
        context: &context,
    });
    if decision.is_allowed() || twin::is_off(Protection::Policy) {
        return Ok(());
    }
    if decision.outcome == Outcome::Undetermined {
        return Err(gate::refusal(&decision, call, "sts:AssumeRole", &format!("on resource: {arn} ")));
    }
    Err(denied(call, &arn).with_hint(decision.clause("sts:AssumeRole")))
}

/// What AWS says whether the role does not trust the caller or is not there at all.
fn denied(call: &Call<'_>, role: &str) -> ServiceError {
    let message = format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {role}", call.principal);
    refused("AccessDenied", 403, message)
}

fn invalid(message: impl Into<String>) -> ServiceError {
    refused("ValidationError", 400, message)
}

//! `userIdentity` of a record (CloudTrail user guide, "CloudTrail userIdentity element").

use serde_json::{Value, json};

use crate::clock::Time;
use crate::iam::{Principal, linked, made_up_id};
use crate::ids::AccountId;

use super::Call;

/// Who called, as a record says it.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) json: Value,
    pub(super) username: Option<String>,
    pub(super) access_key_id: Option<String>,
}

/// The identity of `call`'s principal at `now`.
///
/// The ids that AWS would have made (`AIDA…`, `AROA…`, access keys) are derived from the principal's ARN, so that they
/// are the same in every record; a session is taken to begin with the call. A call that was signed has its own access key,
/// and its session began when that was issued.
pub(super) fn identity(call: &Call<'_>, now: Time) -> Identity {
    let arn = call.principal.arn();
    let account = call.principal.account();
    let credential = call.credential.as_ref();
    let key_of = |prefix: &str| match credential {
        Some(credential) => credential.access_key_id.clone(),
        None => made_up_id(prefix, &arn),
    };
    let invoked_by = call.via.is_some().then_some(call.source_ip.as_str());
    let (mut json, username, access_key_id) = match &call.principal {
        Principal::Root(_) => {
            let key = key_of("AKIA");
            let json = json!({
                "type": "Root", "principalId": account.as_str(), "arn": arn, "accountId": account.as_str(),
                "accessKeyId": key,
            });
            (json, Some("root".to_owned()), Some(key))
        }
        Principal::User { name, .. } => {
            let key = key_of("AKIA");
            let name = name.rsplit('/').next().unwrap_or(name);
            let json = json!({
                "type": "IAMUser", "principalId": made_up_id("AIDA", &arn), "arn": arn,
                "accountId": account.as_str(), "accessKeyId": key, "userName": name,
            });
            (json, Some(name.to_owned()), Some(key))
        }
        Principal::AssumedRole { role, session, .. } => {
            let key = key_of("ASIA");
            let bare_arn = format!("arn:aws:iam::{account}:role/{role}");
            let role_id = made_up_id("AROA", &bare_arn);
            let role_arn = match credential.and_then(|credential| credential.issuer.clone()) {
                Some(issuer) => issuer,
                None => {
                    linked::path_of(role).map_or(bare_arn, |path| format!("arn:aws:iam::{account}:role{path}{role}"))
                }
            };
            let begun = credential.and_then(|credential| credential.issued).unwrap_or(now);
            let json = json!({
                "type": "AssumedRole", "principalId": format!("{role_id}:{session}"), "arn": arn,
                "accountId": account.as_str(), "accessKeyId": key,
                "sessionContext": session_context(&role_id, &role_arn, account, role, begun),
            });
            (json, Some(session.clone()), Some(key))
        }
        Principal::Ec2Infrastructure { instance, .. } => {
            let role = "aws:ec2-infrastructure";
            let role_id = format!("{account}:{role}");
            let role_arn = format!("arn:aws:iam::{account}:role/{role}");
            let json = json!({
                "type": "AssumedRole", "principalId": format!("{role_id}:{instance}"), "arn": arn,
                "accountId": account.as_str(),
                "sessionContext": session_context(&role_id, &role_arn, account, role, now),
                "inScopeOf": {
                    "issuerType": "AWS::EC2::Instance",
                    "credentialsIssuedTo": format!("arn:aws:ec2:{}:{account}:instance/{instance}", call.region),
                },
            });
            (json, Some(instance.to_string()), None)
        }
        Principal::Service { name, .. } => {
            (json!({"type": "AWSService", "invokedBy": invoked_by.unwrap_or(name)}), None, None)
        }
    };
    if let (Some(invoked_by), Some(fields)) = (invoked_by, json.as_object_mut()) {
        fields.insert("invokedBy".to_owned(), invoked_by.into());
    }
    Identity { json, username, access_key_id }
}

/// What the owner of a resource sees of a caller from another account: that account, and an id that it cannot resolve.
pub(super) fn foreign_identity(identity: &Value) -> Value {
    let mut foreign = json!({
        "type": "AWSAccount", "principalId": identity["principalId"], "accountId": identity["accountId"],
    });
    if let Some(invoked_by) = identity.get("invokedBy") {
        foreign["invokedBy"] = invoked_by.clone();
    }
    foreign
}

/// The identity in the record of a call that `service` makes for the caller in another Region.
pub(super) fn invoked_by(identity: &Value, service: &str) -> Value {
    let mut identity = identity.clone();
    identity["invokedBy"] = service.into();
    identity
}

fn session_context(role_id: &str, role_arn: &str, account: &AccountId, role: &str, now: Time) -> Value {
    json!({
        "sessionIssuer": {
            "type": "Role", "principalId": role_id, "arn": role_arn, "accountId": account.as_str(), "userName": role,
        },
        "attributes": {"creationDate": now.to_seconds_string(), "mfaAuthenticated": "false"},
    })
}

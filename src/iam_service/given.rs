//! Users, roles and access keys that a home is filled with from a file: what of it is there already.

use serde_json::{Value, json};

use super::credentials::{self, SecretText};
use super::{authorise, changing, not_found, refused, run_steps};
use crate::gate::{Call, Operation, ServiceError};
use crate::iam::directory::{self, Entity, EntityKind};
use crate::kms::RootKey;

/// As IAM's own, with an id and a secret that were chosen.
static CREATE_ACCESS_KEY: Operation = changing("CreateAccessKey");

/// The recorded user or role of the call's account.
pub fn entity(call: &Call<'_>, kind: EntityKind, name: &str) -> Result<Option<Entity>, ServiceError> {
    Ok(call.home.read(|tx| directory::find(tx, &call.account, kind, name))?)
}

/// Whether the user or role has that inline policy, as JSON.
pub fn has_policy(call: &Call<'_>, entity: &Entity, name: &str, document: &Value) -> Result<bool, ServiceError> {
    let found = call.home.read(|tx| directory::inline_policy(tx, entity, name))?;
    Ok(found.and_then(|text| serde_json::from_str::<Value>(&text).ok()).is_some_and(|found| found == *document))
}

/// Gives a user, or the account's root, an access key whose id and secret were chosen. Answers whether it is new.
///
/// # Errors
/// `EntityAlreadyExists` if the id is taken by another key.
pub fn put_access_key(
    call: &Call<'_>,
    user: Option<&str>,
    id: &str,
    secret: &SecretText,
) -> Result<bool, ServiceError> {
    let word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // Twelve digits are an account's root where nobody is asked for more, `ASIA…` is a session.
    let taken = id.starts_with("ASIA") || id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit());
    if !(4..=128).contains(&id.len()) || !word(id) || taken || secret.is_empty() {
        let id: String = id.chars().take(128).collect();
        let message = format!(
            "'{id}' is no access key id: 4 to 128 letters, digits and _, not an account's id and not ASIA...; its secret is not empty."
        );
        return Err(refused("ValidationError", 400, message));
    }
    match credentials::find(call.home, id, None) {
        Ok(found) => {
            let owner = match user {
                None => crate::iam::Principal::Root(call.account.clone()).arn(),
                Some(name) => entity(call, EntityKind::User, name)?
                    .map(|entity| entity.arn())
                    .ok_or_else(|| not_found(EntityKind::User, name))?,
            };
            return if found.principal.arn() == owner && secret.is(&found.secret) {
                Ok(false)
            } else {
                Err(refused("EntityAlreadyExists", 409, format!("The access key {id} is another, or another's.")))
            };
        }
        Err(credentials::CredentialsError::Unknown) => {}
        Err(credentials::CredentialsError::Home(error)) => return Err(error),
        // One that was made inactive stays so.
        Err(_) => return Ok(false),
    }
    let parameters = user.map_or_else(|| json!({}), |user| json!({"userName": user}));
    run_steps(
        call,
        &CREATE_ACCESS_KEY,
        parameters,
        |_| RootKey::of(call.home),
        |step, root| {
            let owner = match user {
                None => None,
                Some(name) => Some(
                    directory::find(step.tx, &call.account, EntityKind::User, name)?
                        .ok_or_else(|| not_found(EntityKind::User, name))?,
                ),
            };
            let arn = owner.as_ref().map_or_else(|| format!("arn:aws:iam::{}:root", call.account), Entity::arn);
            authorise(step, &CREATE_ACCESS_KEY, &arn)?;
            credentials::insert_access_key(step.tx, root, &call.account, owner.as_ref(), step.now, (id, secret))?;
            let user = user.unwrap_or("root");
            step.draft.set_response(json!({"accessKey": {
                "userName": user, "accessKeyId": id, "status": "Active",
                "createDate": step.now.to_trail_date_string(),
            }}));
            Ok(true)
        },
    )
}

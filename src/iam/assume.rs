//! Users and roles of a scratch home, as `iam get-account-authorization-details` prints them.

use rusqlite::params;
use serde::Deserialize;
use serde_json::Value;

use crate::store::{StoreError, Transaction};

/// A user, role or group.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entity {
    arn: Option<String>,
    #[serde(alias = "UserName", alias = "RoleName", alias = "GroupName")]
    name: String,
    #[serde(default = "root_path")]
    path: String,
    #[serde(default, alias = "UserId", alias = "RoleId", alias = "GroupId")]
    id: String,
    #[serde(default, alias = "UserPolicyList", alias = "RolePolicyList", alias = "GroupPolicyList")]
    inline: Vec<Inline>,
    #[serde(default)]
    attached_managed_policies: Vec<Attached>,
    #[serde(default)]
    group_list: Vec<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inline {
    policy_name: String,
    policy_document: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attached {
    policy_arn: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Managed {
    arn: String,
    policy_version_list: Vec<ManagedVersion>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManagedVersion {
    document: Value,
    is_default_version: bool,
}

/// What the command prints.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Details {
    #[serde(default)]
    user_detail_list: Vec<Entity>,
    #[serde(default)]
    group_detail_list: Vec<Entity>,
    #[serde(default)]
    role_detail_list: Vec<Entity>,
    #[serde(default)]
    policies: Vec<Managed>,
}

fn root_path() -> String {
    "/".to_owned()
}

/// Records the users and roles of `details`. A policy that is attached and not described cannot be told, and so what its
/// holder may.
pub(super) fn put(tx: &Transaction<'_>, details: &Details) -> Result<(), StoreError> {
    for (kind, list) in [("user", &details.user_detail_list), ("role", &details.role_detail_list)] {
        for entity in list {
            let account = entity.arn.as_deref().and_then(|arn| arn.split(':').nth(4)).unwrap_or("123456789012");
            let row: i64 = tx.query_row(
                "INSERT INTO iam_entities (account, kind, name, path, id, created) VALUES (?1, ?2, ?3, ?4, ?5, 0)
                 RETURNING entity",
                params![account, kind, entity.name, entity.path, entity.id],
                |row| row.get(0),
            )?;
            put_policies(tx, row, entity, "", details)?;
            for group in details.group_detail_list.iter().filter(|group| entity.group_list.contains(&group.name)) {
                put_policies(tx, row, group, &format!(" of group {}", group.name), details)?;
            }
            for tag in &entity.tags {
                tx.execute(
                    "INSERT OR REPLACE INTO iam_tags (entity, name, value) VALUES (?1, ?2, ?3)",
                    params![row, tag.key, tag.value],
                )?;
            }
        }
    }
    Ok(())
}

fn put_policies(
    tx: &Transaction<'_>,
    row: i64,
    entity: &Entity,
    suffix: &str,
    details: &Details,
) -> Result<(), StoreError> {
    let put = |name: &str, document: String| {
        tx.execute(
            "INSERT OR REPLACE INTO iam_policies (entity, name, document) VALUES (?1, ?2, ?3)",
            params![row, format!("{name}{suffix}"), document],
        )
    };
    for inline in &entity.inline {
        put(&inline.policy_name, document(&inline.policy_document))?;
    }
    for attached in &entity.attached_managed_policies {
        let described = details.policies.iter().find(|policy| policy.arn == attached.policy_arn);
        let version = described.and_then(|policy| policy.policy_version_list.iter().find(|of| of.is_default_version));
        put(&attached.policy_arn, version.map_or_else(String::new, |version| document(&version.document)))?;
    }
    Ok(())
}

/// A policy as text: the AWS CLI prints it as JSON, the API percent-encoded.
fn document(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    if !text.starts_with('%') {
        return text.clone();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let decoded = match (first, behind) {
            (b'%', [high, low, ..]) => {
                std::str::from_utf8(&[*high, *low]).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => None,
        };
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_as_json_or_percent_encoded() {
        assert_eq!(document(&serde_json::json!({"a": 1})), r#"{"a":1}"#);
        assert_eq!(document(&"%7B%22a%22%3A%201%7D".into()), r#"{"a": 1}"#);
        assert_eq!(document(&"%zz%4".into()), "%zz%4");
    }
}

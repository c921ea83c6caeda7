//! Tags of users and roles, which policies see as `aws:PrincipalTag/…`.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{changing, invalid, on_entity, reading, refused};
use crate::gate::{Call, Operation, ServiceError};
use crate::iam::directory::{self, Entity, EntityKind};
use crate::store::{StoreError, Transaction};

static TAG_USER: Operation = changing("TagUser");
static UNTAG_USER: Operation = changing("UntagUser");
static LIST_USER_TAGS: Operation = reading("ListUserTags");
static TAG_ROLE: Operation = changing("TagRole");
static UNTAG_ROLE: Operation = changing("UntagRole");
static LIST_ROLE_TAGS: Operation = reading("ListRoleTags");

/// Most tags of a user or role (IAM user guide, "IAM and STS quotas").
const MOST_TAGS: usize = 50;

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// 1-128 characters; unique in any case.
    pub key: String,
    /// 0-256 characters.
    pub value: String,
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $entity:ident $(, $field:ident: $kind:ty)? }),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        pub struct $name {
            /// Its name.
            pub $entity: String,
            $(
                /// Which.
                pub $field: $kind,
            )?
        }
    )+};
}

requests!(
    /// `TagUser`.
    TagUserRequest { user_name, tags: Vec<Tag> },
    /// `UntagUser`.
    UntagUserRequest { user_name, tag_keys: Vec<String> },
    /// `ListUserTags`.
    ListUserTagsRequest { user_name },
    /// `TagRole`.
    TagRoleRequest { role_name, tags: Vec<Tag> },
    /// `UntagRole`.
    UntagRoleRequest { role_name, tag_keys: Vec<String> },
    /// `ListRoleTags`.
    ListRoleTagsRequest { role_name },
);

/// What `ListUserTags` and `ListRoleTags` answer: all of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagsResponse {
    /// In the order of their keys.
    pub tags: Vec<Tag>,
    /// `false`.
    pub is_truncated: bool,
}

/// Gives a user tags.
pub fn tag_user(call: &Call<'_>, req: TagUserRequest) -> Result<(), ServiceError> {
    tag(call, &TAG_USER, EntityKind::User, &req.user_name, &req.tags)
}

/// Gives a role tags.
pub fn tag_role(call: &Call<'_>, req: TagRoleRequest) -> Result<(), ServiceError> {
    tag(call, &TAG_ROLE, EntityKind::Role, &req.role_name, &req.tags)
}

/// Takes tags from a user.
pub fn untag_user(call: &Call<'_>, req: UntagUserRequest) -> Result<(), ServiceError> {
    untag(call, &UNTAG_USER, EntityKind::User, &req.user_name, &req.tag_keys)
}

/// Takes tags from a role.
pub fn untag_role(call: &Call<'_>, req: UntagRoleRequest) -> Result<(), ServiceError> {
    untag(call, &UNTAG_ROLE, EntityKind::Role, &req.role_name, &req.tag_keys)
}

/// The tags of a user.
pub fn list_user_tags(call: &Call<'_>, req: ListUserTagsRequest) -> Result<ListTagsResponse, ServiceError> {
    list(call, &LIST_USER_TAGS, EntityKind::User, &req.user_name)
}

/// The tags of a role.
pub fn list_role_tags(call: &Call<'_>, req: ListRoleTagsRequest) -> Result<ListTagsResponse, ServiceError> {
    list(call, &LIST_ROLE_TAGS, EntityKind::Role, &req.role_name)
}

fn tag(call: &Call<'_>, operation: &Operation, kind: EntityKind, name: &str, tags: &[Tag]) -> Result<(), ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name, "tags": recorded(tags)});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        check(tags)?;
        put(step.tx, entity, tags)?;
        if directory::tags(step.tx, entity)?.len() > MOST_TAGS {
            return Err(refused("LimitExceeded", 409, "The number of tags has reached the maximum limit."));
        }
        Ok(())
    })
}

fn untag(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    name: &str,
    keys: &[String],
) -> Result<(), ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name, "tagKeys": keys});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        for key in keys {
            step.tx.execute("DELETE FROM iam_tags WHERE entity = ?1 AND name = ?2", params![entity.row, key])?;
        }
        Ok(())
    })
}

fn list(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    name: &str,
) -> Result<ListTagsResponse, ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        Ok(ListTagsResponse { tags: of(step.tx, entity)?, is_truncated: false })
    })
}

/// The wording of tag errors is assumed.
pub(super) fn check(tags: &[Tag]) -> Result<(), ServiceError> {
    for (index, tag) in tags.iter().enumerate() {
        let length = |text: &str| text.chars().count();
        if !(1..=128).contains(&length(&tag.key)) || length(&tag.value) > 256 {
            return Err(invalid("Tag keys have 1 to 128 characters, and tag values at most 256."));
        }
        if tag.key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(refused("InvalidInput", 400, "Tag keys beginning with aws: are reserved."));
        }
        if tags[..index].iter().any(|earlier| earlier.key.eq_ignore_ascii_case(&tag.key)) {
            return Err(refused(
                "InvalidInput",
                400,
                "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            ));
        }
    }
    if tags.len() > MOST_TAGS {
        return Err(refused("LimitExceeded", 409, "The number of tags has reached the maximum limit."));
    }
    Ok(())
}

pub(super) fn put(tx: &Transaction<'_>, entity: &Entity, tags: &[Tag]) -> Result<(), StoreError> {
    let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO iam_tags (entity, name, value) VALUES (?1, ?2, ?3)")?;
    for tag in tags {
        insert.execute(params![entity.row, tag.key, tag.value])?;
    }
    Ok(())
}

pub(super) fn of(tx: &Transaction<'_>, entity: &Entity) -> Result<Vec<Tag>, StoreError> {
    let tags = directory::tags(tx, entity)?;
    Ok(tags.into_iter().map(|(key, value)| Tag { key, value }).collect())
}

/// Tags as CloudTrail spells them.
pub(super) fn recorded(tags: &[Tag]) -> Value {
    tags.iter().map(|tag| json!({"key": tag.key, "value": tag.value})).collect()
}

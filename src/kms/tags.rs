//! `TagResource`, `UntagResource`, `ListResourceTags`.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::gate::{self, Call, ServiceError};
use crate::iam::Context;
use crate::store::{StoreError, Transaction};

use super::access::named_key;
use super::keyring::Key;
use super::operations::{LIST_RESOURCE_TAGS, TAG_RESOURCE, UNTAG_RESOURCE};
use super::page::{Marker, page_limit};
use super::request;
use super::validate::Validation;
use super::{keys, states};

/// Most tags of a key (AWS KMS developer guide, "Tags").
const MOST_TAGS: usize = 50;

/// A tag of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// 1-128 characters.
    pub tag_key: String,
    /// 0-256 characters.
    pub tag_value: String,
}

/// `TagResource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TagResourceRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// Tags to add, or to give another value.
    pub tags: Vec<Tag>,
}

/// `UntagResource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UntagResourceRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// Keys of the tags to remove.
    pub tag_keys: Vec<String>,
}

/// `ListResourceTags`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListResourceTagsRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// At most so many, 1-50; 50 if absent.
    pub limit: Option<i64>,
    /// Where the last answer ended.
    pub marker: Option<String>,
}

/// What `ListResourceTags` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListResourceTagsResponse {
    /// In the order of their keys.
    pub tags: Vec<Tag>,
    /// With which the rest is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
    /// Whether there is a rest.
    pub truncated: bool,
}

/// Gives a key tags.
pub fn tag_resource(call: &Call<'_>, req: TagResourceRequest) -> Result<(), ServiceError> {
    let parameters = json!({"keyId": req.key_id, "tags": recorded(&req.tags)});
    let mut more = Context::default();
    request::request_tags(pairs(&req.tags), &mut more);
    keys::on_key_with(call, &TAG_RESOURCE, &req.key_id, parameters, check(&req.tags), &more, |step, key| {
        put(step.tx, key, &req.tags)?;
        let count: u32 = step
            .tx
            .prepare_cached("SELECT count(*) FROM kms_tags WHERE key_id = ?1")
            .map_err(StoreError::from)?
            .query_row([&key.id], |row| row.get(0))?;
        if usize::try_from(count).is_ok_and(|count| count > MOST_TAGS) {
            return Err(refusal("Too many tags"));
        }
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Takes tags from a key. One that it has not is taken away all the same.
pub fn untag_resource(call: &Call<'_>, req: UntagResourceRequest) -> Result<(), ServiceError> {
    let parameters = json!({"keyId": req.key_id, "tagKeys": req.tag_keys});
    let mut validation = Validation::default();
    for (index, name) in req.tag_keys.iter().enumerate() {
        validation.length(&format!("tagKeys.{}.member", index + 1), name, 1..=128);
    }
    let mut more = Context::default();
    more.set_all("aws:TagKeys", &req.tag_keys);
    keys::on_key_with(call, &UNTAG_RESOURCE, &req.key_id, parameters, validation.finish(), &more, |step, key| {
        if req.tag_keys.iter().any(|name| is_reserved(name)) {
            return Err(refusal(RESERVED));
        }
        for name in &req.tag_keys {
            step.tx.execute("DELETE FROM kms_tags WHERE key_id = ?1 AND name = ?2", [&key.id, name])?;
        }
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// The tags of a key, page by page.
pub fn list_resource_tags(
    call: &Call<'_>,
    req: ListResourceTagsRequest,
) -> Result<ListResourceTagsResponse, ServiceError> {
    let parameters = keys::with_key(&req.key_id, keys::paging_parameters(req.limit, req.marker.as_deref()));
    gate::run(call, &LIST_RESOURCE_TAGS, parameters, |step| {
        let mut validation = Validation::default();
        validation.key_id("keyId", &req.key_id);
        let limit = page_limit(&mut validation, req.limit, 50, 50);
        let after = Marker::read(&mut validation, req.marker.as_deref());
        validation.finish()?;
        let after = after?;
        let (key, _) = named_key(step, &req.key_id, "ListResourceTags", None)?;
        states::check("ListResourceTags", &key)?;
        let mut statement = step.tx.prepare_cached(
            "SELECT name, value FROM kms_tags WHERE key_id = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
        )?;
        let wanted = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![key.id, after, wanted], |row| {
            Ok(Tag { tag_key: row.get(0)?, tag_value: row.get(1)? })
        })?;
        let mut tags = rows.collect::<Result<Vec<_>, _>>()?;
        let next_marker = Marker::next(&mut tags, limit, |tag| &tag.tag_key);
        Ok(ListResourceTagsResponse { tags, truncated: next_marker.is_some(), next_marker })
    })
}

/// The wording of tag errors is assumed.
pub(super) fn check(tags: &[Tag]) -> Result<(), ServiceError> {
    if tags.len() > MOST_TAGS {
        return Err(refusal("Too many tags"));
    }
    for (index, tag) in tags.iter().enumerate() {
        let mut validation = Validation::default();
        validation
            .length(&format!("tags.{}.member.tagKey", index + 1), &tag.tag_key, 1..=128)
            .length(&format!("tags.{}.member.tagValue", index + 1), &tag.tag_value, 0..=256)
            .finish()?;
        if is_reserved(&tag.tag_key) {
            return Err(refusal(RESERVED));
        }
        if tags[..index].iter().any(|earlier| earlier.tag_key == tag.tag_key) {
            return Err(refusal("Duplicate tag keys"));
        }
    }
    Ok(())
}

const RESERVED: &str = "Tags beginning with aws: are reserved";

fn is_reserved(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with("aws:")
}

fn refusal(message: &str) -> ServiceError {
    ServiceError::refused("TagException", message)
}

pub(super) fn put(tx: &Transaction<'_>, key: &Key, tags: &[Tag]) -> Result<(), StoreError> {
    let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO kms_tags (key_id, name, value) VALUES (?1, ?2, ?3)")?;
    for tag in tags {
        insert.execute(params![key.id, tag.tag_key, tag.tag_value])?;
    }
    Ok(())
}

/// Names and values of tags.
pub(super) fn pairs(tags: &[Tag]) -> impl Iterator<Item = (&str, &str)> {
    tags.iter().map(|tag| (tag.tag_key.as_str(), tag.tag_value.as_str()))
}

/// Tags as CloudTrail spells them.
pub(super) fn recorded(tags: &[Tag]) -> Value {
    tags.iter().map(|tag| json!({"tagKey": tag.tag_key, "tagValue": tag.tag_value})).collect()
}

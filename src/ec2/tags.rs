//! `CreateTags`, `DeleteTags` and `DescribeTags`: the tags of volumes and instances.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::gate::{Call, ServiceError, Step, run};
use crate::ids::{InstanceId, VolumeId};
use crate::store::{StoreError, Transaction};

use super::record::Fields;
use super::types::{Filter, NoResult, Tag, TagSpecification};
use super::{describe, filter, instance, params, permission, record, settle, table};

/// Request of `CreateTags`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateTagsRequest {
    /// Ids of volumes and instances.
    #[serde(default)]
    pub resources: Vec<String>,
    /// The tags; one whose key is there gets the new value.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Check only.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// A tag that is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TagToDelete {
    /// Its key.
    pub key: String,
    /// If given, it goes only with this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Request of `DeleteTags`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteTagsRequest {
    /// Ids of volumes and instances.
    #[serde(default)]
    pub resources: Vec<String>,
    /// The tags; all if none is named.
    #[serde(default)]
    pub tags: Vec<TagToDelete>,
    /// Check only.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// Request of `DescribeTags`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeTagsRequest {
    /// Only those that match every filter.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// At most so many (5 to 1000), and then a token for the rest.
    #[serde(default)]
    pub max_results: Option<i64>,
    /// Where the page before ended.
    #[serde(default)]
    pub next_token: Option<String>,
    /// Check only.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// A tag and what has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagDescription {
    /// The key.
    pub key: String,
    /// Whose it is.
    pub resource_id: String,
    /// `volume` or `instance`.
    pub resource_type: String,
    /// The value.
    pub value: String,
}

/// Result of `DescribeTags`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeTagsResult {
    /// The tags, by resource and key.
    pub tags: Vec<TagDescription>,
    /// Present if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Adds tags to volumes and instances, all or none.
pub fn create_tags(call: &Call<'_>, request: CreateTagsRequest) -> Result<NoResult, ServiceError> {
    settle::repair(call.home)?;
    let items: Vec<_> = request.tags.iter().map(|tag| json!({"key": tag.key, "value": tag.value})).collect();
    let recorded = recorded(&request.resources, items, request.dry_run);
    run(call, &record::CREATE_TAGS, recorded, |step| {
        let resources = meant(step, "ec2:CreateTags", &request.resources)?;
        if request.tags.is_empty() {
            return Err(ServiceError::refused("MissingParameter", "The request must contain the parameter Tag"));
        }
        let specification = TagSpecification { resource_type: Some("volume".to_owned()), tags: request.tags.clone() };
        let tags = params::volume_tags(&[specification])?;
        for resource in &resources {
            let there = resource.tags(step.tx)?;
            let more = tags.iter().filter(|tag| there.iter().all(|other| other.key != tag.key)).count();
            if there.len() + more > 50 {
                return Err(ServiceError::refused(
                    "TagLimitExceeded",
                    "The maximum number of Tags for a resource is 50.",
                ));
            }
        }
        params::dry_run(request.dry_run)?;
        for resource in &resources {
            for tag in &tags {
                resource.put(step.tx, tag)?;
            }
        }
        step.draft.set_response(record::done(&call.request_id));
        Ok(NoResult {})
    })
}

/// Takes tags away. One that is not there, or has another value than the given, is no error.
pub fn delete_tags(call: &Call<'_>, request: DeleteTagsRequest) -> Result<NoResult, ServiceError> {
    settle::repair(call.home)?;
    let items = request.tags.iter().map(|tag| {
        let mut fields = Fields::default();
        fields.put("key", Some(&tag.key));
        fields.put("value", tag.value.as_ref());
        Value::Object(fields.0)
    });
    let recorded = recorded(&request.resources, items.collect(), request.dry_run);
    run(call, &record::DELETE_TAGS, recorded, |step| {
        let resources = meant(step, "ec2:DeleteTags", &request.resources)?;
        params::dry_run(request.dry_run)?;
        for resource in &resources {
            for there in resource.tags(step.tx)? {
                let goes = |wanted: &TagToDelete| {
                    wanted.key == there.key && wanted.value.as_ref().is_none_or(|value| *value == there.value)
                };
                // AWS's own tags stay whatever is asked.
                if !there.key.starts_with("aws:") && (request.tags.is_empty() || request.tags.iter().any(goes)) {
                    resource.remove(step.tx, &there.key)?;
                }
            }
        }
        step.draft.set_response(record::done(&call.request_id));
        Ok(NoResult {})
    })
}

/// The tags of the account's volumes and instances in the Region.
pub fn describe_tags(call: &Call<'_>, request: DescribeTagsRequest) -> Result<DescribeTagsResult, ServiceError> {
    let mut fields = Fields::default();
    fields.put("filterSet", Some(record::filters(&request.filters)));
    fields.put("maxResults", request.max_results);
    fields.put("nextToken", request.next_token.as_ref());
    run(call, &record::DESCRIBE_TAGS, fields.dry_run(request.dry_run), |step| {
        permission::check_in(step.tx, call, "ec2:DescribeTags", &["*".to_owned()])?;
        filter::check_tags(&request.filters)?;
        let page = describe::page_of(request.max_results, &[])?;
        let after = request.next_token.as_deref().map(read_token).transpose()?;
        params::dry_run(request.dry_run)?;
        let mut all = Vec::new();
        for row in table::volumes_of(step.tx, &call.account, &call.region)? {
            all.push(Resource::Volume(row.id));
        }
        for row in instance::all_of(step.tx, call)? {
            all.push(Resource::Instance(row.id));
        }
        all.sort_by(|left, right| left.id().cmp(right.id()));
        let mut result = DescribeTagsResult { tags: Vec::new(), next_token: None };
        for resource in all {
            for tag in resource.tags(step.tx)? {
                let place = (resource.id().to_owned(), tag.key.clone());
                if after.as_ref().is_some_and(|after| place <= *after) {
                    continue;
                }
                let shown = TagDescription {
                    key: tag.key,
                    resource_id: place.0,
                    resource_type: resource.kind().to_owned(),
                    value: tag.value,
                };
                if !filter::passes_by(&request.filters, |name| value(&shown, name)) {
                    continue;
                }
                if page.is_some_and(|page| result.tags.len() == page) {
                    result.next_token =
                        result.tags.last().map(|last| BASE64.encode(format!("{} {}", last.resource_id, last.key)));
                    return Ok(result);
                }
                result.tags.push(shown);
            }
        }
        Ok(result)
    })
}

/// What has tags.
enum Resource {
    Volume(VolumeId),
    Instance(InstanceId),
}

impl Resource {
    fn id(&self) -> &str {
        match self {
            Self::Volume(id) => id.as_str(),
            Self::Instance(id) => id.as_str(),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Volume(_) => "volume",
            Self::Instance(_) => "instance",
        }
    }

    fn tags(&self, tx: &Transaction<'_>) -> Result<Vec<Tag>, StoreError> {
        match self {
            Self::Volume(id) => table::tags_of(tx, id),
            Self::Instance(id) => instance::tags_of(tx, id),
        }
    }

    fn put(&self, tx: &Transaction<'_>, tag: &Tag) -> Result<(), StoreError> {
        let statement = match self {
            Self::Volume(_) => "INSERT OR REPLACE INTO volume_tags (volume_id, key, value) VALUES (?1, ?2, ?3)",
            Self::Instance(_) => "INSERT OR REPLACE INTO instance_tags (instance_id, key, value) VALUES (?1, ?2, ?3)",
        };
        tx.prepare_cached(statement)?.execute([self.id(), &tag.key, &tag.value])?;
        Ok(())
    }

    fn remove(&self, tx: &Transaction<'_>, key: &str) -> Result<(), StoreError> {
        let statement = match self {
            Self::Volume(_) => "DELETE FROM volume_tags WHERE volume_id = ?1 AND key = ?2",
            Self::Instance(_) => "DELETE FROM instance_tags WHERE instance_id = ?1 AND key = ?2",
        };
        tx.prepare_cached(statement)?.execute([self.id(), key])?;
        Ok(())
    }
}

/// The resources that the ids name, all of which the caller may do `action` to and all of which are there.
fn meant(step: &mut Step<'_>, action: &str, ids: &[String]) -> Result<Vec<Resource>, ServiceError> {
    if ids.is_empty() {
        return Err(ServiceError::refused("MissingParameter", "The request must contain the parameter resourceIdSet"));
    }
    let (tx, call) = (step.tx, step.call);
    let arns: Vec<_> = ids
        .iter()
        .map(|id| if id.starts_with("i-") { permission::instance(call, id) } else { permission::volume(call, id) })
        .collect();
    permission::check_in(tx, call, action, &arns)?;
    let mut resources = Vec::new();
    for id in ids {
        if id.starts_with("i-") {
            let id = params::instance_id(id)?;
            instance::owned(tx, call, &id)?.ok_or_else(|| params::no_such_instance(&id))?;
            step.draft.mention("AWS::EC2::Instance", id.as_str(), &call.account);
            resources.push(Resource::Instance(id));
        } else if id.starts_with("vol-") {
            let id = params::volume_id(id)?;
            let row = describe::owned(tx, call, &id)?.ok_or_else(|| params::no_such_volume(&id))?;
            record::volume(step.draft, &row);
            resources.push(Resource::Volume(id));
        } else {
            return Err(ServiceError::refused("InvalidID", format!("The ID '{}' is not valid", params::short(id))));
        }
    }
    Ok(resources)
}

fn recorded(resources: &[String], tags: Vec<Value>, dry_run: Option<bool>) -> Value {
    let mut fields = Fields::default();
    fields.put("resourcesSet", Some(record::names("resourceId", resources)));
    fields.put("tagSet", Some(record::list(tags)));
    fields.dry_run(dry_run)
}

fn value(tag: &TagDescription, name: &str) -> Vec<String> {
    match name {
        "key" => vec![tag.key.clone()],
        "resource-id" => vec![tag.resource_id.clone()],
        "resource-type" => vec![tag.resource_type.clone()],
        "value" => vec![tag.value.clone()],
        _ => name.strip_prefix("tag:").filter(|key| *key == tag.key).map(|_| tag.value.clone()).into_iter().collect(),
    }
}

fn read_token(text: &str) -> Result<(String, String), ServiceError> {
    let plain = BASE64.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    plain
        .as_deref()
        .and_then(|plain| plain.split_once(' '))
        .map(|(id, key)| (id.to_owned(), key.to_owned()))
        .ok_or_else(|| {
            ServiceError::refused("InvalidParameterValue", "The parameter NextToken is not a token of this operation.")
        })
}

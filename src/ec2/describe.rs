//! `DescribeVolumes`, and a volume as AWS shows it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::gate::{Call, ServiceError, run};
use crate::ids::VolumeId;
use crate::store::{StoreError, Transaction};

use super::table::{self, AttachmentRow, State, VolumeRow};
use super::types::{DescribeVolumesRequest, DescribeVolumesResult, Tag, Volume, VolumeAttachment};
use super::{export_uri, exporter, filter, params, permission, record, settle};

/// Volumes as the state has them, after what a crash left behind was put right.
pub fn describe_volumes(
    call: &Call<'_>,
    request: DescribeVolumesRequest,
) -> Result<DescribeVolumesResult, ServiceError> {
    settle::repair(call.home)?;
    let recorded = record::describe_request(&request);
    run(call, &record::DESCRIBE_VOLUMES, recorded, |step| describe(step.tx, call, &request))
}

fn describe(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    request: &DescribeVolumesRequest,
) -> Result<DescribeVolumesResult, ServiceError> {
    permission::check_in(tx, call, "ec2:DescribeVolumes", &["*".to_owned()])?;
    filter::check(&request.filters)?;
    let page = page_of(request.max_results, &request.volume_ids)?;
    let after = request.next_token.as_deref().map(read_token).transpose()?;
    let ids = request.volume_ids.iter().map(|id| params::volume_id(id)).collect::<Result<Vec<_>, _>>()?;
    params::dry_run(request.dry_run)?;
    let rows =
        if ids.is_empty() { table::volumes_of(tx, &call.account, &call.region)? } else { named(tx, call, &ids)? };
    let mut result = DescribeVolumesResult { volumes: Vec::new(), next_token: None };
    for row in rows {
        let place = (row.created.micros(), row.id.clone());
        if after.as_ref().is_some_and(|after| place <= *after) {
            continue;
        }
        let volume = shown(tx, call, &row)?;
        if !filter::passes(&volume, &request.filters) {
            continue;
        }
        if page.is_some_and(|page| result.volumes.len() == page) {
            result.next_token = result.volumes.last().map(|last| token(last.create_time.micros(), &last.volume_id));
            break;
        }
        result.volumes.push(volume);
    }
    Ok(result)
}

/// The named volumes, oldest first; every name must exist.
pub(super) fn named(tx: &Transaction<'_>, call: &Call<'_>, ids: &[VolumeId]) -> Result<Vec<VolumeRow>, ServiceError> {
    let mut rows: Vec<VolumeRow> = Vec::new();
    let mut missing: Vec<&str> = Vec::new();
    for id in ids {
        match owned(tx, call, id)? {
            Some(row) if rows.iter().all(|other| other.id != row.id) => rows.push(row),
            Some(_) => {}
            None => missing.push(id.as_str()),
        }
    }
    match missing[..] {
        [] => {
            rows.sort_by(|left, right| (left.created, &left.id).cmp(&(right.created, &right.id)));
            Ok(rows)
        }
        [one] => Err(ServiceError::refused("InvalidVolume.NotFound", format!("The volume '{one}' does not exist."))),
        _ => Err(ServiceError::refused(
            "InvalidVolume.NotFound",
            format!("The volumes '{}' do not exist.", missing.join(", ")),
        )),
    }
}

/// The volume, if it is the caller's account's in the call's Region.
pub(super) fn owned(tx: &Transaction<'_>, call: &Call<'_>, id: &VolumeId) -> Result<Option<VolumeRow>, StoreError> {
    Ok(table::volume(tx, id)?.filter(|row| row.account == call.account && row.region == call.region))
}

/// The volume with its attachment and tags, as `DescribeVolumes` shows it.
pub(super) fn shown(tx: &Transaction<'_>, call: &Call<'_>, row: &VolumeRow) -> Result<Volume, StoreError> {
    let attachments = table::attachment(tx, &row.id)?;
    let attachments = attachments.iter().map(|one| attachment(call, one, &one.state)).collect();
    Ok(Volume { attachments: Some(attachments), ..volume(row, table::tags_of(tx, &row.id)?) })
}

/// The volume without attachments.
pub(super) fn volume(row: &VolumeRow, tags: Vec<Tag>) -> Volume {
    Volume {
        attachments: None,
        availability_zone: row.zone.clone(),
        create_time: row.created,
        encrypted: row.encryption.is_some(),
        kms_key_id: row.encryption.as_ref().map(|encryption| encryption.key_arn.clone()),
        size: row.size,
        snapshot_id: String::new(),
        state: row.state.as_str().to_owned(),
        volume_id: row.id.to_string(),
        iops: row.iops,
        tags,
        volume_type: row.volume_type.clone(),
        multi_attach_enabled: false,
        throughput: row.throughput,
        db_instance_resource_id: row.db.as_ref().map(ToString::to_string),
        sector_size: row.encryption.as_ref().and_then(|encryption| i64::try_from(encryption.sector_size.bytes()).ok()),
    }
}

/// The attachment in the state that the answer is to show.
pub(super) fn attachment(call: &Call<'_>, row: &AttachmentRow, state: &str) -> VolumeAttachment {
    VolumeAttachment {
        delete_on_termination: row.delete_on_termination,
        attach_time: row.attached_at,
        device: row.device.clone(),
        instance_id: row.instance.to_string(),
        state: state.to_owned(),
        volume_id: row.volume.to_string(),
        nbd_uri: (state != "detaching").then(|| export_uri(call.home, &row.volume)),
        kernel_device: (state != "detaching").then(|| exporter::kernel_device(call.home, &row.volume)).flatten(),
    }
}

/// The state that `CreateVolume` answers with, whatever the volume's is by then.
pub(super) fn created(row: &VolumeRow, tags: Vec<Tag>) -> Volume {
    volume(&VolumeRow { state: State::Creating, ..row.clone() }, tags)
}

/// How many a page has, where volumes may be named and pages are then not asked for.
pub(super) fn page_of(max_results: Option<i64>, volume_ids: &[String]) -> Result<Option<usize>, ServiceError> {
    let Some(most) = max_results else { return Ok(None) };
    if !volume_ids.is_empty() {
        return Err(ServiceError::refused(
            "InvalidParameterCombination",
            "The parameter volumeSet cannot be used with the parameter maxResults",
        ));
    }
    match usize::try_from(most) {
        Ok(most) if most >= 5 => Ok(Some(most.min(1000))),
        _ => Err(ServiceError::refused(
            "InvalidParameterValue",
            format!("Value ( {most} ) for parameter maxResults is invalid. Expecting a value greater than 5."),
        )),
    }
}

/// A page token names the last volume shown, so that volumes made or deleted in between disturb nothing.
pub(super) fn token(created: i64, id: &str) -> String {
    BASE64.encode(format!("{created} {id}"))
}

pub(super) fn read_token(text: &str) -> Result<(i64, VolumeId), ServiceError> {
    let read = || {
        let plain = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
        let (created, id) = plain.split_once(' ')?;
        Some((created.parse().ok()?, id.parse().ok()?))
    };
    read().ok_or_else(|| {
        ServiceError::refused("InvalidParameterValue", "The parameter NextToken is not a token of this operation.")
    })
}

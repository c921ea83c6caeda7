//! `ModifyVolume` and `DescribeVolumesModifications`.
//!
//! A volume grows in three steps, each durable before the next: a row says that it is about to, its file grows, its row has
//! the new size. Whatever ends in between, the row of the modification leads the repair to the file, which it makes as long
//! as it was to be: a file that has grown cannot be told from one that was to, and a longer one loses nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::clock::Time;
use crate::device::DeviceErrorKind;
use crate::device::volume;
use crate::export::control::{self, ControlError};
use crate::export::kernel::Place;
use crate::gate::{self, Call, Draft, ServiceError, Step, run, run_steps};
use crate::ids::VolumeId;
use crate::store::{self, Home, Transaction};
use crate::twin::{self, Protection};
use crate::units::GIB;

use super::lease::Lease;
use super::modification::{self, Form, MOST, ModificationRow};
use super::modify_types::{
    DescribeVolumesModificationsRequest, DescribeVolumesModificationsResult, ModifyVolumeRequest, ModifyVolumeResult,
    VolumeModification,
};
use super::record::Fields;
use super::rules::Shape;
use super::table::{self, State, VolumeRow};
use super::{describe, disk, exporter, filter, params, permission, record, settle};

/// Grows a volume, or changes its type, IOPS or throughput; while it is attached too. Who connects from then on sees the
/// new size, who is connected keeps the size that it was told.
///
/// # Errors
/// `IncorrectModificationState` while the last modification goes on; `VolumeModificationRateExceeded` after four within a
/// day; `InvalidParameterValue` and `InvalidParameterCombination` for a size that is smaller or that the type cannot have.
/// A failure of the machine if the disk is full or its file system cannot hold so long a file: the volume stays as it was.
pub fn modify_volume(call: &Call<'_>, request: ModifyVolumeRequest) -> Result<ModifyVolumeResult, ServiceError> {
    settle::repair(call.home)?;
    // The last modification may wait to be completed.
    gate::settle(call.home, super::SETTLERS)?;
    run_steps(
        call,
        &record::MODIFY_VOLUME,
        recorded(&request),
        |draft| prepare(call, &request, draft),
        |step, modified| commit(step, modified),
    )
}

struct Modified {
    row: VolumeRow,
    modification: ModificationRow,
    _lease: Option<Lease>,
}

fn prepare(call: &Call<'_>, request: &ModifyVolumeRequest, draft: &mut Draft) -> Result<Modified, ServiceError> {
    permission::check(call, "ec2:ModifyVolume", &[permission::volume(call, &request.volume_id)])?;
    let id = params::volume_id(&request.volume_id)?;
    let lease = Lease::take(call.home, &id)?;
    let (row, modification) = call.home.write(|tx| begin(tx, call, request, &id, draft))?;
    // The last room is for what ends things.
    let room = if modification.to.size > row.size { call.home.spare_room() } else { Ok(()) };
    let grown = room.map_err(Ungrown::from).and_then(|()| grow(call.home, &row, &modification));
    if let Err(Ungrown { error, may_yet_grow }) = grown {
        if !may_yet_grow && !has_grown(call.home, &row, &modification) {
            call.home.write(|tx| modification::forget(tx, &modification))?;
        }
        return Err(error);
    }
    Ok(Modified { row, modification, _lease: lease.until_commit() })
}

fn commit(step: &mut Step<'_>, modified: &Modified) -> Result<ModifyVolumeResult, ServiceError> {
    let Modified { row, modification, .. } = modified;
    if !modification::take_effect(step.tx, row, modification, step.now)? {
        return Err(ServiceError::machine(format!("the record of the modification of volume {} is gone", row.id)));
    }
    let answer = shown(modification, step.now);
    step.draft.set_response(response(&step.call.request_id, &answer));
    Ok(ModifyVolumeResult { volume_modification: answer })
}

/// Checks everything that the state can tell, and notes what is about to be.
fn begin(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    request: &ModifyVolumeRequest,
    id: &VolumeId,
    draft: &mut Draft,
) -> Result<(VolumeRow, ModificationRow), ServiceError> {
    let row = describe::owned(tx, call, id)?.ok_or_else(|| params::no_such_volume(id))?;
    record::volume(draft, &row);
    if !matches!(row.state, State::Available | State::InUse) {
        return Err(ServiceError::refused(
            "IncorrectState",
            format!("Volume '{id}' is in the '{}' state.", row.state.as_str()),
        ));
    }
    let to = Shape::modified(&row, request)?;
    let now = store::clock(tx)?.now();
    if let Some(last) = modification::last_of(tx, id)?
        && last.state != modification::ModificationState::Completed
    {
        let state = last.state.name().to_uppercase();
        return Err(ServiceError::refused(
            "IncorrectModificationState",
            format!("Volume {id} cannot be modified in modification state {state}."),
        )
        .with_hint(format!("blockseal ec2 describe-volumes-modifications --volume-ids {id}")));
    }
    if modification::recent(tx, id, now)? >= MOST {
        return Err(ServiceError::refused(
            "VolumeModificationRateExceeded",
            format!(
                "You've reached the maximum modification rate per volume limit: {MOST} in 24 hours for volume {id}."
            ),
        ));
    }
    params::dry_run(request.dry_run)?;
    let to = Form { size: to.size, volume_type: to.volume_type.to_owned(), iops: to.iops, throughput: to.throughput };
    let modification = modification::begin(tx, &row, &to, now, &call.request_id)?;
    Ok((row, modification))
}

/// A file that has not grown, as far as can be told.
struct Ungrown {
    error: ServiceError,
    /// Its exporter gave no answer, and may be at it: the modification must not be forgotten.
    may_yet_grow: bool,
}

impl<E: Into<ServiceError>> From<E> for Ungrown {
    fn from(error: E) -> Self {
        Self { error: error.into(), may_yet_grow: false }
    }
}

/// Makes the volume's file as long as it is to be, through its exporter if it has one, and with it the kernel's device. Done again it does nothing more.
fn grow(home: &Home, row: &VolumeRow, modification: &ModificationRow) -> Result<(), Ungrown> {
    let to = bytes(modification.to.size);
    if home.is_scratch() || to <= row.bytes() {
        return Ok(());
    }
    if home.read(|tx| table::attachment(tx, &row.id))?.is_some() {
        match control::grow(home.dir(), &row.id, to) {
            Ok(()) => {
                let device = Place::of(home.dir(), &row.id).and_then(|place| place.grow(to));
                return device.map_err(|error| Ungrown { error: ServiceError::machine(error), may_yet_grow: true });
            }
            // It was killed: nobody has the file.
            Err(ControlError::NobodyThere(_) | ControlError::Died(_)) => {}
            Err(error) => {
                let may_yet_grow = !matches!(error, ControlError::Device { .. } | ControlError::Refused(_));
                return Err(Ungrown { error: ServiceError::machine(error), may_yet_grow });
            }
        }
    }
    match volume::grow(home.dir(), &row.id, disk::expected(row), to) {
        Err(error) if error.kind() == DeviceErrorKind::Locked => Err(exporter::in_use(&row.id).into()),
        outcome => Ok(outcome?),
    }
}

/// Whether the file says that it has grown, or does not say what it is: then the modification must not be forgotten.
fn has_grown(home: &Home, row: &VolumeRow, modification: &ModificationRow) -> bool {
    if home.is_scratch() || row.encryption.is_none() || modification.to.size == row.size {
        return false;
    }
    disk::header(home, row).map_or(true, |header| header.length() != row.bytes())
}

/// Finishes a modification that was cut short, if the volume has one. The caller holds the volume's lease.
///
/// # Errors
/// If the file cannot grow now; the modification then stays as it is.
pub(super) fn finish(home: &Home, id: &VolumeId) -> Result<(), ServiceError> {
    if home.is_scratch() || twin::is_off(Protection::Repair) {
        return Ok(());
    }
    let found = home.read(|tx| Ok::<_, ServiceError>((table::volume(tx, id)?, modification::begun(tx, id)?)))?;
    let (Some(row), Some(modification)) = found else { return Ok(()) };
    grow(home, &row, &modification).map_err(|ungrown| ungrown.error)?;
    home.write(|tx| modification::take_effect(tx, &row, &modification, store::clock(tx)?.now()))?;
    settle::tell(
        home,
        &format!("volume {id} was being modified when its command ended; the modification has taken effect"),
    )
}

/// Finishes every modification that was cut short, as far as that can be done now: one that cannot keeps nobody from other
/// volumes.
pub(super) fn finish_all(home: &Home) -> Result<(), ServiceError> {
    for id in home.read(modification::all_begun)? {
        if let Some(_lease) = Lease::try_take(home, &id)? {
            let _ = finish(home, &id);
        }
    }
    Ok(())
}

fn bytes(gib: i64) -> u64 {
    u64::try_from(gib).unwrap_or_default().saturating_mul(GIB)
}

/// The last modification of each volume.
pub fn describe_volumes_modifications(
    call: &Call<'_>,
    request: DescribeVolumesModificationsRequest,
) -> Result<DescribeVolumesModificationsResult, ServiceError> {
    settle::repair(call.home)?;
    let mut fields = Fields::default();
    fields.put("VolumeId", Some(numbered(&request.volume_ids)).filter(|ids| !ids.is_empty()));
    fields.put("Filter", Some(record::filters(&request.filters)).filter(|_| !request.filters.is_empty()));
    fields.put("MaxResults", request.max_results);
    fields.put("NextToken", request.next_token.as_ref());
    let mut recorded = json!({"DescribeVolumesModificationsRequest": Value::Object(fields.0)});
    if request.dry_run == Some(true) {
        recorded["dryRun"] = true.into();
    }
    run(call, &record::DESCRIBE_VOLUMES_MODIFICATIONS, recorded, |step| look(step.tx, call, &request, step.now))
}

fn numbered(texts: &[String]) -> Vec<Value> {
    texts.iter().zip(1..).map(|(text, tag)| json!({"tag": tag, "content": text})).collect()
}

fn look(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    request: &DescribeVolumesModificationsRequest,
    now: Time,
) -> Result<DescribeVolumesModificationsResult, ServiceError> {
    permission::check_in(tx, call, "ec2:DescribeVolumesModifications", &["*".to_owned()])?;
    filter::check_names(&request.filters, &FILTERS)?;
    let page = describe::page_of(request.max_results, &request.volume_ids)?;
    let after = request.next_token.as_deref().map(read_token).transpose()?;
    let ids = request.volume_ids.iter().map(|id| params::volume_id(id)).collect::<Result<Vec<_>, _>>()?;
    params::dry_run(request.dry_run)?;
    let mut found = Vec::new();
    if ids.is_empty() {
        for row in table::volumes_of(tx, &call.account, &call.region)? {
            found.extend(modification::last_of(tx, &row.id)?);
        }
    }
    for id in &ids {
        describe::owned(tx, call, id)?.ok_or_else(|| params::no_such_volume(id))?;
        let last = modification::last_of(tx, id)?.ok_or_else(|| {
            ServiceError::refused(
                "InvalidVolumeModification.NotFound",
                format!("Modification for volume '{id}' does not exist."),
            )
        })?;
        if found.iter().all(|other: &ModificationRow| other.seq != last.seq) {
            found.push(last);
        }
    }
    found.sort_by_key(|one| one.seq);
    let mut result = DescribeVolumesModificationsResult { volumes_modifications: Vec::new(), next_token: None };
    let mut last = 0;
    for one in found {
        if after.is_some_and(|after| one.seq <= after) {
            continue;
        }
        let seen = shown(&one, now);
        if !filter::passes_by(&request.filters, |name| value(&seen, name)) {
            continue;
        }
        if page.is_some_and(|page| result.volumes_modifications.len() == page) {
            result.next_token = Some(BASE64.encode(format!("modification {last}")));
            break;
        }
        last = one.seq;
        result.volumes_modifications.push(seen);
    }
    Ok(result)
}

/// The filters of the API reference; that two of them are in camel case is AWS's.
const FILTERS: [&str; 11] = [
    "modification-state",
    "original-iops",
    "original-size",
    "original-volume-type",
    "originalMultiAttachEnabled",
    "start-time",
    "target-iops",
    "target-size",
    "target-volume-type",
    "targetMultiAttachEnabled",
    "volume-id",
];

fn value(seen: &VolumeModification, name: &str) -> Vec<String> {
    let number = |number: Option<i64>| number.map(|number| number.to_string()).into_iter().collect();
    match name {
        "modification-state" => vec![seen.modification_state.clone()],
        "original-iops" => number(seen.original_iops),
        "original-size" => number(Some(seen.original_size)),
        "original-volume-type" => vec![seen.original_volume_type.clone()],
        "originalMultiAttachEnabled" | "targetMultiAttachEnabled" => vec!["false".to_owned()],
        "start-time" => vec![seen.start_time.to_string()],
        "target-iops" => number(seen.target_iops),
        "target-size" => number(Some(seen.target_size)),
        "target-volume-type" => vec![seen.target_volume_type.clone()],
        _ => vec![seen.volume_id.clone()],
    }
}

fn read_token(text: &str) -> Result<i64, ServiceError> {
    let plain = BASE64.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    plain.as_deref().and_then(|plain| plain.strip_prefix("modification ")?.parse().ok()).ok_or_else(|| {
        ServiceError::refused("InvalidParameterValue", "The parameter NextToken is not a token of this operation.")
    })
}

fn shown(row: &ModificationRow, now: Time) -> VolumeModification {
    VolumeModification {
        volume_id: row.volume.to_string(),
        modification_state: row.state.name().to_owned(),
        target_size: row.to.size,
        target_iops: row.to.iops,
        target_volume_type: row.to.volume_type.clone(),
        target_throughput: row.to.throughput,
        target_multi_attach_enabled: false,
        original_size: row.from.size,
        original_iops: row.from.iops,
        original_volume_type: row.from.volume_type.clone(),
        original_throughput: row.from.throughput,
        original_multi_attach_enabled: false,
        progress: row.progress(now),
        start_time: row.started,
        end_time: row.ended,
    }
}

/// The record's shape is that of EC2's later operations: everything below the name of the request, in capital letters.
fn recorded(request: &ModifyVolumeRequest) -> Value {
    let mut fields = Fields::default();
    fields.put("VolumeId", Some(&request.volume_id));
    fields.put("Size", request.size);
    fields.put("VolumeType", request.volume_type.as_ref());
    fields.put("Iops", request.iops);
    fields.put("Throughput", request.throughput);
    let mut whole = json!({"ModifyVolumeRequest": Value::Object(fields.0)});
    // A dry run is found where all of EC2's are.
    if request.dry_run == Some(true) {
        whole["dryRun"] = true.into();
    }
    whole
}

/// *Assumed* to be the answer's XML in JSON, as those of its kind are.
fn response(request_id: &str, answer: &VolumeModification) -> Value {
    let mut fields = Fields::default();
    fields.put("volumeId", Some(&answer.volume_id));
    fields.put("modificationState", Some(&answer.modification_state));
    fields.put("targetSize", Some(answer.target_size));
    fields.put("targetIops", answer.target_iops);
    fields.put("targetVolumeType", Some(&answer.target_volume_type));
    fields.put("targetThroughput", answer.target_throughput);
    fields.put("targetMultiAttachEnabled", Some(answer.target_multi_attach_enabled));
    fields.put("originalSize", Some(answer.original_size));
    fields.put("originalIops", answer.original_iops);
    fields.put("originalVolumeType", Some(&answer.original_volume_type));
    fields.put("originalThroughput", answer.original_throughput);
    fields.put("originalMultiAttachEnabled", Some(answer.original_multi_attach_enabled));
    fields.put("progress", Some(answer.progress));
    fields.put("startTime", Some(answer.start_time.format_utc("%Y-%m-%dT%H:%M:%S.000Z")));
    record::wrapped("ModifyVolume", request_id, &json!({"volumeModification": Value::Object(fields.0)}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ec2::Filter;

    #[test]
    fn every_filter_looks_at_something() {
        let time: Time = serde_json::from_str("\"2026-11-24T00:00:00Z\"").unwrap();
        let form = |size| Form { size, volume_type: "gp3".to_owned(), iops: Some(3000), throughput: Some(125) };
        let row = ModificationRow {
            seq: 1,
            volume: VolumeId::random(),
            state: modification::ModificationState::Optimizing,
            from: form(1),
            to: form(2),
            started: time,
            due: Some(time.after(jiff::SignedDuration::from_secs(40))),
            ended: None,
            request_id: String::new(),
        };
        let seen = shown(&row, time.after(jiff::SignedDuration::from_secs(10)));
        assert_eq!((seen.progress, seen.modification_state.as_str()), (25, "optimizing"));
        for name in FILTERS {
            assert_eq!(value(&seen, name).len(), 1, "{name}");
        }
        let wanted = |values: &[&str]| Filter {
            name: "target-size".to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        assert!(filter::passes_by(&[wanted(&["1", "2"])], |name| value(&seen, name)));
        assert!(!filter::passes_by(&[wanted(&["1"])], |name| value(&seen, name)));
        assert!(filter::check_names(&[wanted(&[])], &FILTERS).is_err());
        assert!(read_token("bm9uc2Vuc2U=").is_err() && read_token("?").is_err());
        assert_eq!(read_token(&BASE64.encode("modification 7")).unwrap(), 7);
    }
}

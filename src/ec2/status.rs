//! `DescribeVolumeStatus`: whether a volume's data can be used (EC2 API reference of that name).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::device::volume;
use crate::export::DeviceFault;
use crate::export::control::{self, Change};
use crate::gate::{Call, ServiceError, run};
use crate::ids::VolumeId;
use crate::store::Home;

use super::record::Fields;
use super::table::{self, State, VolumeRow};
use super::types::Filter;
use super::{describe, disk, filter, params, permission, record, settle};

/// Request of `DescribeVolumeStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeVolumeStatusRequest {
    /// These volumes; all of the account in the Region if none is named.
    #[serde(default)]
    pub volume_ids: Vec<String>,
    /// Only those that match every filter.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// At most so many (5 to 1000), and then a token for the rest. Not with volume ids.
    #[serde(default)]
    pub max_results: Option<i64>,
    /// Where the page before ended.
    #[serde(default)]
    pub next_token: Option<String>,
    /// Check only.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// Result of `DescribeVolumeStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeVolumeStatusResult {
    /// The volumes, oldest first.
    pub volume_statuses: Vec<VolumeStatusItem>,
    /// Present if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// The status of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeStatusItem {
    /// Always empty: nothing waits for its owner.
    pub actions: Vec<Value>,
    /// Its zone.
    pub availability_zone: String,
    /// Always empty: nothing is planned for it.
    pub events: Vec<Value>,
    /// The volume.
    pub volume_id: String,
    /// How it is.
    pub volume_status: VolumeStatusInfo,
}

/// How a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeStatusInfo {
    /// What that rests on.
    pub details: Vec<VolumeStatusDetails>,
    /// `ok`, `impaired` or `insufficient-data`.
    pub status: String,
}

/// One check of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeStatusDetails {
    /// `io-enabled` or `io-performance`.
    pub name: String,
    /// `passed` or `failed`; of performance `normal`, `stalled` or `not-applicable`.
    pub status: String,
}

/// Whether each volume's data can be used. One whose flush failed is `impaired` with its I/O off, as EBS has it of a volume
/// whose data may be inconsistent, until it is attached anew; one whose I/O is stuck to order is `impaired` and stalled.
pub fn describe_volume_status(
    call: &Call<'_>,
    request: DescribeVolumeStatusRequest,
) -> Result<DescribeVolumeStatusResult, ServiceError> {
    settle::repair(call.home)?;
    let mut fields = Fields::default();
    fields.put("volumeSet", Some(record::names("volumeId", &request.volume_ids)));
    fields.put("filterSet", Some(record::filters(&request.filters)));
    fields.put("maxResults", request.max_results);
    fields.put("nextToken", request.next_token.as_ref());
    let rows = run(call, &record::DESCRIBE_VOLUME_STATUS, fields.dry_run(request.dry_run), |step| {
        permission::check_in(step.tx, call, "ec2:DescribeVolumeStatus", &["*".to_owned()])?;
        filter::check_names(&request.filters, &FILTERS)?;
        describe::page_of(request.max_results, &request.volume_ids)?;
        if let Some(token) = &request.next_token {
            describe::read_token(token)?;
        }
        let ids = request.volume_ids.iter().map(|id| params::volume_id(id)).collect::<Result<Vec<_>, _>>()?;
        params::dry_run(request.dry_run)?;
        let rows = if ids.is_empty() {
            table::volumes_of(step.tx, &call.account, &call.region)?
        } else {
            describe::named(step.tx, call, &ids)?
        };
        let with_use = |row: VolumeRow| {
            let attached = table::attachment(step.tx, &row.id)?.is_some();
            Ok::<_, ServiceError>((row, attached))
        };
        rows.into_iter().map(with_use).collect::<Result<Vec<_>, _>>()
    })?;
    // Exporters are asked outside of the transaction.
    let page = describe::page_of(request.max_results, &request.volume_ids)?;
    let after = request.next_token.as_deref().map(describe::read_token).transpose()?;
    let mut result = DescribeVolumeStatusResult { volume_statuses: Vec::new(), next_token: None };
    let mut last = None;
    for (row, attached) in rows {
        let place = (row.created.micros(), row.id.clone());
        if after.as_ref().is_some_and(|after| place <= *after) {
            continue;
        }
        let seen = item(call.home, &row, attached);
        if !filter::passes_by(&request.filters, |name| value(&seen, name)) {
            continue;
        }
        if page.is_some_and(|page| result.volume_statuses.len() == page) {
            result.next_token = last;
            break;
        }
        last = Some(describe::token(row.created.micros(), row.id.as_str()));
        result.volume_statuses.push(seen);
    }
    Ok(result)
}

fn item(home: &Home, row: &VolumeRow, attached: bool) -> VolumeStatusItem {
    let (status, enabled, performance) = match row.state {
        State::Creating | State::Deleting => ("insufficient-data", "passed", "insufficient-data"),
        _ if is_latched(home, row) => ("impaired", "failed", "not-applicable"),
        _ if attached && is_stuck(home, &row.id) => ("impaired", "passed", "stalled"),
        // Of volumes with provisioned IOPS alone (API reference, "VolumeStatusDetails").
        _ if matches!(row.volume_type.as_str(), "io1" | "io2") => ("ok", "passed", "normal"),
        _ => ("ok", "passed", "not-applicable"),
    };
    let detail = |name: &str, status: &str| VolumeStatusDetails { name: name.to_owned(), status: status.to_owned() };
    VolumeStatusItem {
        actions: Vec::new(),
        availability_zone: row.zone.clone(),
        events: Vec::new(),
        volume_id: row.id.to_string(),
        volume_status: VolumeStatusInfo {
            details: vec![detail("io-enabled", enabled), detail("io-performance", performance)],
            status: status.to_owned(),
        },
    }
}

/// Whether a flush failed since the volume was opened.
fn is_latched(home: &Home, row: &VolumeRow) -> bool {
    !home.is_scratch() && volume::has_failed(home.dir(), &row.id, disk::expected(row).format)
}

fn is_stuck(home: &Home, id: &VolumeId) -> bool {
    let faults = if home.is_scratch() { Ok(Vec::new()) } else { control::faults(home.dir(), id, Change::None) };
    faults.is_ok_and(|faults| faults.iter().any(|fault| matches!(fault, DeviceFault::Stuck(_))))
}

/// The filters of the API reference that can match something here; `action.*` and `event.*` have nothing to look at.
const FILTERS: [&str; 4] =
    ["availability-zone", "volume-status.details-name", "volume-status.details-status", "volume-status.status"];

fn value(seen: &VolumeStatusItem, name: &str) -> Vec<String> {
    let details = &seen.volume_status.details;
    match name {
        "availability-zone" => vec![seen.availability_zone.clone()],
        "volume-status.details-name" => details.iter().map(|detail| detail.name.clone()).collect(),
        "volume-status.details-status" => details.iter().map(|detail| detail.status.clone()).collect(),
        _ => vec![seen.volume_status.status.clone()],
    }
}

//! Filters of `DescribeVolumes` (EC2 API reference of that name; wildcards: EC2 user guide, "List and filter").

use crate::gate::ServiceError;

use super::types::{Filter, Volume};

/// Whether the volume passes every filter.
pub(super) fn passes(volume: &Volume, filters: &[Filter]) -> bool {
    passes_by(filters, |name| values_of(volume, name).unwrap_or_default())
}

/// Refuses a filter that `DescribeVolumes` does not have.
pub(super) fn check(filters: &[Filter]) -> Result<(), ServiceError> {
    check_by(filters, |name| NAMES.contains(&name) || name.starts_with("tag:"))
}

/// As [`check_names`] for `DescribeTags`.
pub(super) fn check_tags(filters: &[Filter]) -> Result<(), ServiceError> {
    check_by(filters, |name| {
        matches!(name, "key" | "resource-id" | "resource-type" | "value") || name.starts_with("tag:")
    })
}

fn check_by(filters: &[Filter], is_known: impl Fn(&str) -> bool) -> Result<(), ServiceError> {
    for filter in filters {
        if !is_known(&filter.name) {
            let name: String = filter.name.chars().take(80).collect();
            return Err(ServiceError::refused("InvalidParameterValue", format!("The filter '{name}' is invalid")));
        }
        if filter.values.is_empty() {
            return Err(ServiceError::refused(
                "InvalidParameterValue",
                format!("The filter '{}' has no values", filter.name),
            ));
        }
    }
    Ok(())
}

/// Whether what `values` tells of a thing passes every filter.
pub(super) fn passes_by(filters: &[Filter], values: impl Fn(&str) -> Vec<String>) -> bool {
    filters.iter().all(|filter| {
        let actual = values(&filter.name);
        filter.values.iter().any(|wanted| actual.iter().any(|value| matches(wanted.as_bytes(), value.as_bytes())))
    })
}

/// Refuses a filter whose name is not known, or that has no values.
pub(super) fn check_names(filters: &[Filter], names: &[&str]) -> Result<(), ServiceError> {
    check_by(filters, |name| names.contains(&name))
}

/// Every filter but `tag:<key>`. `fast-restored`, `operator.*` and `source-volume-id` are not here: volumes have neither.
const NAMES: [&str; 15] = [
    "attachment.attach-time",
    "attachment.delete-on-termination",
    "attachment.device",
    "attachment.instance-id",
    "attachment.status",
    "availability-zone",
    "create-time",
    "encrypted",
    "multi-attach-enabled",
    "size",
    "snapshot-id",
    "status",
    "tag-key",
    "volume-id",
    "volume-type",
];

/// What the filter of that name looks at; several values for attachments and tags.
fn values_of(volume: &Volume, name: &str) -> Option<Vec<String>> {
    let attachments = volume.attachments.as_deref().unwrap_or_default();
    let of_attachments =
        |pick: &dyn Fn(&super::types::VolumeAttachment) -> String| attachments.iter().map(pick).collect();
    Some(match name {
        "attachment.attach-time" => of_attachments(&|one| one.attach_time.to_string()),
        "attachment.delete-on-termination" => of_attachments(&|one| one.delete_on_termination.to_string()),
        "attachment.device" => of_attachments(&|one| one.device.clone()),
        "attachment.instance-id" => of_attachments(&|one| one.instance_id.clone()),
        "attachment.status" => of_attachments(&|one| one.state.clone()),
        "availability-zone" => vec![volume.availability_zone.clone()],
        "create-time" => vec![volume.create_time.to_string()],
        "encrypted" => vec![volume.encrypted.to_string()],
        "multi-attach-enabled" => vec![volume.multi_attach_enabled.to_string()],
        "size" => vec![volume.size.to_string()],
        "snapshot-id" => vec![volume.snapshot_id.clone()],
        "status" => vec![volume.state.clone()],
        "tag-key" => volume.tags.iter().map(|tag| tag.key.clone()).collect(),
        "volume-id" => vec![volume.volume_id.clone()],
        "volume-type" => vec![volume.volume_type.clone()],
        _ => {
            let key = name.strip_prefix("tag:")?;
            volume.tags.iter().filter(|tag| tag.key == key).map(|tag| tag.value.clone()).collect()
        }
    })
}

/// Whether `value` matches `pattern`: `*` any run of bytes, `?` any one character, `\` takes the next one literally.
///
/// Linear in the product of the lengths at worst: on a mismatch only the last `*` is tried again.
pub(super) fn matches(pattern: &[u8], value: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while read < value.len() {
        let (step, fits) = match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, read));
                at += 1;
                continue;
            }
            Some(b'?') => (1, true),
            Some(b'\\') if at + 1 < pattern.len() => (2, pattern[at + 1] == value[read]),
            Some(byte) => (1, *byte == value[read]),
            None => (0, false),
        };
        if fits {
            at += step;
            read += 1;
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            at = after_star;
            read = from + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, value, wanted) in [
            ("", "", true),
            ("a", "", false),
            ("", "a", false),
            ("abc", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("*b*", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("**a", "bba", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\?", "a?", true),
            ("*ab", "aab", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), value.as_bytes()), wanted, "{pattern} {value}");
        }
        let slow = "*a".repeat(60);
        assert!(!matches(slow.as_bytes(), "a".repeat(59).as_bytes()));
    }

    #[test]
    fn every_name_has_values_and_unknown_ones_are_refused() {
        let volume: Volume = serde_json::from_value(serde_json::json!({
            "AvailabilityZone": "us-east-1a", "CreateTime": "2026-11-24T00:00:00Z", "Encrypted": true, "Size": 8,
            "SnapshotId": "", "State": "in-use", "VolumeId": "vol-12345678", "VolumeType": "gp3",
            "MultiAttachEnabled": false, "Tags": [{"Key": "Name", "Value": "orders"}],
            "Attachments": [{"DeleteOnTermination": false, "AttachTime": "2026-11-24T00:00:00Z", "Device": "/dev/sdf",
                             "InstanceId": "i-12345678", "State": "attached", "VolumeId": "vol-12345678"}]
        }))
        .unwrap();
        for name in NAMES.iter().copied().chain(["tag:Name"]) {
            assert_eq!(values_of(&volume, name).map(|values| values.len()), Some(1), "{name}");
        }
        let filter = |name: &str, values: &[&str]| Filter {
            name: name.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        assert!(passes(&volume, &[filter("tag:Name", &["x", "ord*"]), filter("status", &["in-use"])]));
        assert!(!passes(&volume, &[filter("tag:Name", &["ord*"]), filter("status", &["available"])]));
        assert!(!passes(&volume, &[filter("tag:Owner", &["*"])]));
        assert!(check(&[filter("colour", &["red"])]).is_err() && check(&[filter("status", &[])]).is_err());
    }
}

//! Parameters that several operations share: ids, zones, device names, tags, dry runs.

use crate::gate::ServiceError;
use crate::ids::{DbiResourceId, InstanceId, Region, VolumeId};
use crate::units::SectorSize;

use super::types::{Tag, TagSpecification};

/// The volume id in `text`. Messages as recorded from EC2.
pub(super) fn volume_id(text: &str) -> Result<VolumeId, ServiceError> {
    if text.is_empty() {
        return Err(ServiceError::refused(
            "MissingParameter",
            "Value (null) for parameter volumeId is invalid. Parameter may not be null or empty.",
        ));
    }
    if !text.starts_with("vol-") {
        return Err(ServiceError::refused(
            "InvalidParameterValue",
            format!("Value ({}) for parameter volumeId is invalid. Expected: 'vol-...'.", short(text)),
        ));
    }
    text.parse().map_err(|_| {
        ServiceError::refused(
            "InvalidVolumeID.Malformed",
            format!("Value ( {} ) for parameter VOLUME is invalid. ", short(text)),
        )
    })
}

/// The error for a volume that is not there.
pub(super) fn no_such_volume(id: &VolumeId) -> ServiceError {
    ServiceError::refused("InvalidVolume.NotFound", format!("The volume '{id}' does not exist."))
}

/// The instance id in `text`.
pub(super) fn instance_id(text: &str) -> Result<InstanceId, ServiceError> {
    text.parse()
        .map_err(|_| ServiceError::refused("InvalidInstanceID.Malformed", format!("Invalid id: \"{}\"", short(text))))
}

/// The error for an instance that is not there.
pub(super) fn no_such_instance(id: &InstanceId) -> ServiceError {
    ServiceError::refused("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"))
}

/// The zone: one of `a` to `f` of the Region, `a` if none is given. (Which zones a Region has is *assumed*.)
pub(super) fn zone(given: Option<&str>, region: &Region) -> Result<String, ServiceError> {
    let Some(text) = given else { return Ok(format!("{region}a")) };
    let letter = text.strip_prefix(region.as_str());
    if letter.is_some_and(|letter| matches!(letter, "a" | "b" | "c" | "d" | "e" | "f")) {
        return Ok(text.to_owned());
    }
    Err(ServiceError::refused("InvalidZone.NotFound", format!("The zone '{}' does not exist.", short(text))))
}

/// The device name to remember: `wanted`, or the first of `/dev/sdf` to `/dev/sdp` that is not in `taken`.
pub(super) fn device(wanted: Option<&str>, taken: &[String]) -> Result<String, ServiceError> {
    let refuse = |message: String| Err(ServiceError::refused("InvalidParameterValue", message));
    let Some(wanted) = wanted else {
        let free = ('f'..='p').map(|letter| format!("/dev/sd{letter}")).find(|name| !taken.contains(name));
        return free.ok_or_else(|| {
            ServiceError::refused("AttachmentLimitExceeded", "All device names from /dev/sdf to /dev/sdp are in use")
                .with_hint("name another one with --device, for example /dev/xvdba")
        });
    };
    let name = wanted.strip_prefix("/dev/").unwrap_or(wanted);
    let letters = name.strip_prefix("sd").or_else(|| name.strip_prefix("xvd"));
    let well_formed = letters.is_some_and(|rest| {
        (1..=4).contains(&rest.len())
            && rest.starts_with(|letter: char| letter.is_ascii_lowercase())
            && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    });
    if !well_formed {
        return refuse(format!(
            "Value ({}) for parameter device is invalid. {} is not a valid EBS device name.",
            short(wanted),
            short(wanted)
        ));
    }
    if taken.iter().any(|other| other == wanted) {
        return refuse(format!("Invalid value '{wanted}' for unixDevice. Attachment point {wanted} is already in use"));
    }
    Ok(wanted.to_owned())
}

/// The owner's id.
pub(super) fn db_id(given: Option<&str>) -> Result<Option<DbiResourceId>, ServiceError> {
    let Some(text) = given else { return Ok(None) };
    text.parse().map(Some).map_err(|error: crate::ids::IdError| {
        ServiceError::refused(
            "InvalidParameterValue",
            format!("Value ({}) for parameter dbInstanceResourceId is invalid. {error}", short(text)),
        )
    })
}

/// The sector size: 4096 unless 512 is asked for.
pub(super) fn sector_size(given: Option<i64>, encrypted: bool) -> Result<SectorSize, ServiceError> {
    let Some(bytes) = given else { return Ok(SectorSize::default()) };
    if !encrypted {
        return Err(ServiceError::refused(
            "InvalidParameterDependency",
            "The parameter SectorSize requires the parameter Encrypted to be set.",
        ));
    }
    u64::try_from(bytes).ok().and_then(SectorSize::from_bytes).ok_or_else(|| {
        ServiceError::refused(
            "InvalidParameterValue",
            format!("Value ({bytes}) for parameter sectorSize is invalid. Expected: 512 or 4096."),
        )
    })
}

/// The tags for a volume.
pub(super) fn volume_tags(specifications: &[TagSpecification]) -> Result<Vec<Tag>, ServiceError> {
    tags_for("volume", &["volume"], specifications)
}

/// The tags that are for what is a `kind`, where the operation makes `kinds`. Limits: EC2 user guide, "Tag your Amazon EC2
/// resources".
pub(super) fn tags_for(
    kind: &str,
    kinds: &[&str],
    specifications: &[TagSpecification],
) -> Result<Vec<Tag>, ServiceError> {
    let refuse = |message: String| Err(ServiceError::refused("InvalidParameterValue", message));
    let mut tags: Vec<Tag> = Vec::new();
    for specification in specifications {
        match specification.resource_type.as_deref() {
            Some(other) if other == kind => {}
            Some(other) if kinds.contains(&other) => continue,
            other => {
                return refuse(format!(
                    "'{}' is not a valid taggable resource type for this operation.",
                    short(other.unwrap_or("null"))
                ));
            }
        }
        for tag in &specification.tags {
            let length = tag.key.chars().count();
            if length == 0 || length > 128 {
                return refuse("Tag key exceeds the maximum length of 128 characters or is empty".to_owned());
            }
            if tag.value.chars().count() > 256 {
                return refuse("Tag value exceeds the maximum length of 256 characters".to_owned());
            }
            if tag.key.starts_with("aws:") {
                return refuse(format!(
                    "Tag keys starting with 'aws:' are reserved for internal use: '{}'",
                    short(&tag.key)
                ));
            }
            if tags.iter().any(|other| other.key == tag.key) {
                return refuse(format!("Duplicate tag key '{}' specified.", short(&tag.key)));
            }
            tags.push(tag.clone());
        }
    }
    if tags.len() > 50 {
        return Err(ServiceError::refused("TagLimitExceeded", "The maximum number of Tags for a resource is 50."));
    }
    Ok(tags)
}

/// The answer to a dry run that found nothing wrong.
pub(super) fn dry_run(asked: Option<bool>) -> Result<(), ServiceError> {
    if asked != Some(true) {
        return Ok(());
    }
    Err(match ServiceError::refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.") {
        ServiceError::Refused(refusal) => ServiceError::Refused(crate::gate::Refusal { status: 412, ..refusal }),
        machine @ ServiceError::Machine(_) => machine,
    })
}

/// What a message repeats of a value from outside.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_refused_as_ec2_refuses_them() {
        for (text, code) in [
            ("", "MissingParameter"),
            ("i-0123456789abcdef0", "InvalidParameterValue"),
            ("vol-ahsg23h", "InvalidVolumeID.Malformed"),
            ("vol-../../etc", "InvalidVolumeID.Malformed"),
        ] {
            assert_eq!(volume_id(text).unwrap_err().code(), code, "{text}");
        }
        assert!(volume_id("vol-ad8c6542").is_ok());
        assert!(instance_id("i-12345678").is_ok());
        assert_eq!(instance_id("i-1").unwrap_err().code(), "InvalidInstanceID.Malformed");
    }

    #[test]
    fn zones_and_devices() {
        let region: Region = "us-east-1".parse().unwrap();
        assert_eq!(zone(None, &region).unwrap(), "us-east-1a");
        assert_eq!(zone(Some("us-east-1c"), &region).unwrap(), "us-east-1c");
        for bad in ["us-east-1", "us-east-1z", "eu-west-1a", ""] {
            assert_eq!(zone(Some(bad), &region).unwrap_err().code(), "InvalidZone.NotFound", "{bad}");
        }
        let taken = ["/dev/sdf".to_owned(), "/dev/sdh".to_owned()];
        assert_eq!(device(None, &taken).unwrap(), "/dev/sdg");
        assert_eq!(device(Some("/dev/xvdba"), &taken).unwrap(), "/dev/xvdba");
        assert!(device(Some("/dev/sdf"), &taken).unwrap_err().message().contains("already in use"));
        for bad in ["", "/dev/", "/dev/nvme0n1", "/dev/sd", "/dev/sd1", "/dev/sdF", "/dev/sd../../x"] {
            assert_eq!(device(Some(bad), &[]).unwrap_err().code(), "InvalidParameterValue", "{bad}");
        }
        let all: Vec<_> = ('f'..='p').map(|letter| format!("/dev/sd{letter}")).collect();
        assert_eq!(device(None, &all).unwrap_err().code(), "AttachmentLimitExceeded");
    }

    #[test]
    fn tags_are_for_volumes_and_unique() {
        let spec = |kind: &str, keys: &[&str]| TagSpecification {
            resource_type: Some(kind.to_owned()),
            tags: keys.iter().map(|key| Tag { key: (*key).to_owned(), value: String::new() }).collect(),
        };
        assert_eq!(volume_tags(&[spec("volume", &["a", "b"])]).unwrap().len(), 2);
        assert!(volume_tags(&[spec("instance", &["a"])]).is_err());
        assert!(volume_tags(&[spec("volume", &["a"]), spec("volume", &["a"])]).is_err());
        assert!(volume_tags(&[spec("volume", &["aws:x"])]).is_err() && volume_tags(&[spec("volume", &[""])]).is_err());
    }

    #[test]
    fn a_dry_run_ends_in_an_error() {
        assert!(dry_run(None).is_ok() && dry_run(Some(false)).is_ok());
        let ServiceError::Refused(refusal) = dry_run(Some(true)).unwrap_err() else { panic!("a refusal") };
        assert_eq!((refusal.code, refusal.status), ("DryRunOperation", 412));
    }
}

//! The volume types with their limits on size, IOPS and throughput, and the words in which EC2 refuses a request.
//!
//! Limits: EBS user guide, "Amazon EBS volume types". Messages: as recorded from the service in public issue trackers;
//! the codes are those of the EC2 API reference, "Error codes". `DescribeVolumes` of a `gp2` volume shows the IOPS that
//! its size earns.

use crate::gate::ServiceError;

use super::modify_types::ModifyVolumeRequest;
use super::table::VolumeRow;
use super::types::CreateVolumeRequest;

/// A type's limits. Sizes in GiB, throughput in MiB per second.
struct Limits {
    name: &'static str,
    smallest: i64,
    largest: i64,
    iops: Iops,
}

enum Iops {
    /// Follows from the size: 3 per GiB, 100 at least and 16,000 at most.
    Earned,
    /// Chosen, with `default` or else demanded.
    Provisioned { default: Option<i64>, highest: i64, per_gib: i64 },
    /// Not counted.
    None,
}

const LIMITS: [Limits; 7] = [
    Limits { name: "gp2", smallest: 1, largest: 16_384, iops: Iops::Earned },
    Limits {
        name: "gp3",
        smallest: 1,
        largest: 65_536,
        iops: Iops::Provisioned { default: Some(GP3_BASE_IOPS), highest: 80_000, per_gib: 500 },
    },
    Limits {
        name: "io1",
        smallest: 4,
        largest: 16_384,
        iops: Iops::Provisioned { default: None, highest: 64_000, per_gib: 50 },
    },
    Limits {
        name: "io2",
        smallest: 4,
        largest: 65_536,
        iops: Iops::Provisioned { default: None, highest: 256_000, per_gib: 1000 },
    },
    Limits { name: "st1", smallest: 125, largest: 16_384, iops: Iops::None },
    Limits { name: "sc1", smallest: 125, largest: 16_384, iops: Iops::None },
    Limits { name: "standard", smallest: 1, largest: 1024, iops: Iops::None },
];

const GP3_BASE_IOPS: i64 = 3000;
const GP3_BASE_THROUGHPUT: i64 = 125;
const GP3_HIGHEST_THROUGHPUT: i64 = 2000;

/// What a volume is to be, once its request was found valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) volume_type: &'static str,
    pub(super) size: i64,
    pub(super) iops: Option<i64>,
    pub(super) throughput: Option<i64>,
}

impl Shape {
    /// The shape that `request` asks for.
    pub(super) fn of(request: &CreateVolumeRequest) -> Result<Self, ServiceError> {
        let name = request.volume_type.as_deref().unwrap_or("gp2");
        let Some(limits) = LIMITS.iter().find(|limits| limits.name == name) else {
            return Err(ServiceError::refused(
                "UnknownVolumeType",
                format!("Unsupported volume type '{name}' for volume creation."),
            ));
        };
        for (parameter, value) in [("size", request.size), ("iops", request.iops), ("throughput", request.throughput)] {
            if let Some(value) = value.filter(|value| *value < 0) {
                return Err(ServiceError::refused(
                    "InvalidParameterValue",
                    format!("Value ({value}) for parameter {parameter} is invalid. Value must be a positive integer."),
                ));
            }
        }
        let Some(size) = request.size else {
            return Err(ServiceError::refused(
                "MissingParameter",
                "The request must contain the parameter size/snapshot",
            ));
        };
        let iops = limits.iops_for(request.iops, size)?;
        if size < limits.smallest {
            return Err(ServiceError::refused(
                "InvalidParameterValue",
                format!(
                    "The volume size is invalid for {name} volumes: {size} GiB. {name} volumes must be at least {smallest} \
                     GiB in size. Please specify a volume size above the minimum limit.",
                    smallest = limits.smallest
                ),
            ));
        }
        if size > limits.largest {
            return Err(ServiceError::refused(
                "InvalidParameterValue",
                format!(
                    "Volume of {size}GiB is too large for volume type {name}; maximum is {largest}GiB",
                    largest = limits.largest
                ),
            ));
        }
        limits.check_ratio(iops, size)?;
        let throughput = throughput_for(limits.name, request.throughput, iops)?;
        Ok(Self { volume_type: limits.name, size, iops, throughput })
    }
}

impl Shape {
    /// The shape that a volume has after `request`: what is not asked for stays, or is what the new type has by default
    /// (EC2 API reference, `ModifyVolume`).
    ///
    /// # Errors
    /// Also for a size below the present one, and for the type `standard`, which cannot be modified (EBS user guide,
    /// "Limitations for EBS volume modifications"; code and wording of that, and of a request for nothing, are *assumed*).
    pub(super) fn modified(row: &VolumeRow, request: &ModifyVolumeRequest) -> Result<Self, ServiceError> {
        let wants = [request.size, request.iops, request.throughput].iter().any(Option::is_some);
        if !wants && request.volume_type.is_none() {
            return Err(ServiceError::refused(
                "MissingParameter",
                "The request must contain at least one of the parameters size, volumeType, iops, throughput",
            ));
        }
        let volume_type = request.volume_type.as_ref().unwrap_or(&row.volume_type);
        if [volume_type.as_str(), row.volume_type.as_str()].contains(&"standard") {
            return Err(ServiceError::refused(
                "InvalidParameterValue",
                "The volume type standard does not support volume modification.",
            ));
        }
        let same = *volume_type == row.volume_type;
        let provisioned =
            LIMITS.iter().any(|limits| limits.name == volume_type && matches!(limits.iops, Iops::Provisioned { .. }));
        let kept_iops = if same { row.iops } else { Some(GP3_BASE_IOPS) }.filter(|_| provisioned);
        let wanted = CreateVolumeRequest {
            size: request.size.or(Some(row.size)),
            volume_type: Some(volume_type.clone()),
            iops: request.iops.or(kept_iops),
            throughput: request.throughput.or(if same { row.throughput } else { None }),
            ..CreateVolumeRequest::default()
        };
        if let Some(size) = request.size.filter(|size| *size >= 0 && *size < row.size) {
            let message =
                format!("New size cannot be smaller than existing size: {size} GiB for a volume of {} GiB.", row.size);
            return Err(ServiceError::refused("InvalidParameterValue", message));
        }
        Self::of(&wanted)
    }
}

impl Limits {
    fn iops_for(&self, asked: Option<i64>, size: i64) -> Result<Option<i64>, ServiceError> {
        let name = self.name;
        match self.iops {
            Iops::Earned | Iops::None if asked.is_some() => Err(ServiceError::refused(
                "InvalidParameterCombination",
                format!("The parameter iops is not supported for {name} volumes."),
            )),
            Iops::Earned => Ok(Some(size.saturating_mul(3).clamp(100, 16_000))),
            Iops::None => Ok(None),
            Iops::Provisioned { default, highest, .. } => {
                let Some(iops) = asked.or(default) else {
                    return Err(ServiceError::refused(
                        "InvalidParameterCombination",
                        format!("The parameter iops must be specified for {name} volumes."),
                    ));
                };
                let lowest = default.unwrap_or(100);
                if iops < lowest || iops > highest {
                    let (much, bound, limit) =
                        if iops < lowest { ("low", "minimum", lowest) } else { ("high", "maximum", highest) };
                    return Err(ServiceError::refused(
                        "InvalidParameterValue",
                        format!("Volume iops of {iops} is too {much}; {bound} is {limit}."),
                    ));
                }
                Ok(Some(iops))
            }
        }
    }

    /// IOPS per GiB; a `gp3` volume has its base IOPS at any size.
    fn check_ratio(&self, iops: Option<i64>, size: i64) -> Result<(), ServiceError> {
        let (Iops::Provisioned { default, per_gib, .. }, Some(iops)) = (&self.iops, iops) else { return Ok(()) };
        if iops > size * per_gib && Some(iops) != *default {
            let thousandths = iops * 1_000_000 / size;
            return Err(ServiceError::refused(
                "InvalidParameterValue",
                format!(
                    "Iops to volume size ratio of {}.{:06} is too high; maximum is {per_gib}",
                    thousandths / 1_000_000,
                    thousandths % 1_000_000
                ),
            ));
        }
        Ok(())
    }
}

fn throughput_for(name: &str, asked: Option<i64>, iops: Option<i64>) -> Result<Option<i64>, ServiceError> {
    if name != "gp3" {
        return match asked {
            None => Ok(None),
            Some(_) => Err(ServiceError::refused(
                "InvalidParameterCombination",
                format!("The throughput parameter is not supported for {name} volumes."),
            )),
        };
    }
    let throughput = asked.unwrap_or(GP3_BASE_THROUGHPUT);
    let iops = iops.unwrap_or(GP3_BASE_IOPS);
    let outside = if throughput < GP3_BASE_THROUGHPUT {
        Some(("low", "minimum", GP3_BASE_THROUGHPUT))
    } else if throughput > GP3_HIGHEST_THROUGHPUT {
        Some(("high", "maximum", GP3_HIGHEST_THROUGHPUT))
    } else {
        None
    };
    if let Some((side, bound, limit)) = outside {
        return Err(ServiceError::refused(
            "InvalidParameterValue",
            format!("Volume throughput of {throughput} is too {side}; {bound} is {limit}."),
        ));
    }
    if throughput * 4 > iops {
        let millionths = throughput * 1_000_000 / iops;
        return Err(ServiceError::refused(
            "InvalidParameterValue",
            format!(
                "Throughput (MiBps) to iops ratio of {}.{:06} is too high; maximum is 0.250000 MiBps per iops",
                millionths / 1_000_000,
                millionths % 1_000_000
            ),
        ));
    }
    Ok(Some(throughput))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        volume_type: &str,
        size: Option<i64>,
        iops: Option<i64>,
        throughput: Option<i64>,
    ) -> CreateVolumeRequest {
        CreateVolumeRequest {
            volume_type: (!volume_type.is_empty()).then(|| volume_type.to_owned()),
            size,
            iops,
            throughput,
            ..CreateVolumeRequest::default()
        }
    }

    #[test]
    fn shapes_that_are_right() {
        for (volume_type, size, iops, throughput, wanted_iops, wanted_throughput) in [
            ("", 1, None, None, Some(100), None),
            ("gp2", 100, None, None, Some(300), None),
            ("gp2", 16_384, None, None, Some(16_000), None),
            ("gp3", 1, None, None, Some(3000), Some(125)),
            ("gp3", 1, Some(3000), Some(750), Some(3000), Some(750)),
            ("gp3", 65_536, Some(80_000), Some(2000), Some(80_000), Some(2000)),
            ("io1", 4, Some(200), None, Some(200), None),
            ("io2", 65_536, Some(256_000), None, Some(256_000), None),
            ("st1", 125, None, None, None, None),
            ("sc1", 16_384, None, None, None, None),
            ("standard", 1024, None, None, None, None),
        ] {
            let shape = Shape::of(&request(volume_type, Some(size), iops, throughput)).unwrap();
            assert_eq!((shape.iops, shape.throughput), (wanted_iops, wanted_throughput), "{volume_type} {size}");
        }
    }

    #[test]
    fn shapes_that_are_refused_say_why_as_ec2_does() {
        for (volume_type, size, iops, throughput, code, part) in [
            ("gp4", Some(1), None, None, "UnknownVolumeType", "Unsupported volume type 'gp4'"),
            ("gp3", None, None, None, "MissingParameter", "size/snapshot"),
            ("", Some(0), None, None, "InvalidParameterValue", "must be at least 1 GiB"),
            ("gp3", Some(-1), None, None, "InvalidParameterValue", "Value (-1) for parameter size"),
            (
                "",
                Some(16_385),
                None,
                None,
                "InvalidParameterValue",
                "too large for volume type gp2; maximum is 16384GiB",
            ),
            ("gp3", Some(65_537), None, None, "InvalidParameterValue", "maximum is 65536GiB"),
            ("gp3", Some(i64::MAX), None, None, "InvalidParameterValue", "maximum is 65536GiB"),
            ("st1", Some(124), None, None, "InvalidParameterValue", "must be at least 125 GiB"),
            ("gp2", Some(1), Some(100), None, "InvalidParameterCombination", "iops is not supported for gp2"),
            ("io1", Some(4), None, None, "InvalidParameterCombination", "iops must be specified for io1"),
            (
                "io1",
                Some(100),
                Some(8000),
                None,
                "InvalidParameterValue",
                "ratio of 80.000000 is too high; maximum is 50",
            ),
            ("io1", Some(4), Some(99), None, "InvalidParameterValue", "99 is too low; minimum is 100."),
            ("io2", Some(4), Some(256_001), None, "InvalidParameterValue", "too high; maximum is 256000."),
            (
                "gp3",
                Some(20),
                Some(15_000),
                None,
                "InvalidParameterValue",
                "ratio of 750.000000 is too high; maximum is 500",
            ),
            ("gp3", Some(20), None, Some(751), "InvalidParameterValue", "ratio of 0.250333 is too high"),
            ("gp3", Some(20), None, Some(2001), "InvalidParameterValue", "2001 is too high"),
            ("gp3", Some(20), None, Some(124), "InvalidParameterValue", "124 is too low"),
            (
                "io1",
                Some(4),
                Some(100),
                Some(125),
                "InvalidParameterCombination",
                "throughput parameter is not supported",
            ),
        ] {
            let error = Shape::of(&request(volume_type, size, iops, throughput)).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.message().contains(part), "{error} does not say {part}");
        }
    }
}

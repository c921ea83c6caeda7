//! `DescribeRegions` and `DescribeAvailabilityZones`: what there is to be in.

use serde_json::Value;

use crate::gate::{Call, ServiceError, run};
use crate::ids::Region;

use super::filter;
use super::instance_types::{
    AvailabilityZone, DescribeAvailabilityZonesRequest, DescribeAvailabilityZonesResult, DescribeRegionsRequest,
    DescribeRegionsResult, RegionShown,
};
use super::record::{self, Fields};
use super::types::Filter;
use super::{params, permission};

/// The Regions that every account has (EC2 user guide, "Regions and Zones"), and those that it must opt into.
const REGIONS: [&str; 17] = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];
const OPT_IN: [&str; 13] = [
    "af-south-1",
    "ap-east-1",
    "ap-south-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ca-west-1",
    "eu-central-2",
    "eu-south-1",
    "eu-south-2",
    "il-central-1",
    "me-central-1",
    "me-south-1",
];

/// The letters of a Region's zones; every Region has as many (*assumed*).
const ZONES: [char; 6] = ['a', 'b', 'c', 'd', 'e', 'f'];

/// The Regions. A home has them all; that of the call is among them also if the list does not have it.
pub fn describe_regions(
    call: &Call<'_>,
    request: DescribeRegionsRequest,
) -> Result<DescribeRegionsResult, ServiceError> {
    let mut fields = Fields::default();
    fields.put("regionSet", Some(record::names("regionName", &request.region_names)));
    fields.put("filterSet", Some(record::filters(&request.filters)));
    fields.put("allRegions", request.all_regions);
    run(call, &record::DESCRIBE_REGIONS, fields.dry_run(request.dry_run), |step| {
        permission::check_in(step.tx, call, "ec2:DescribeRegions", &["*".to_owned()])?;
        check(&request.filters, &["endpoint", "region-name", "opt-in-status"])?;
        let own = call.region.as_str();
        let unlisted = [own].into_iter().filter(|own| !REGIONS.contains(own) && !OPT_IN.contains(own));
        let standard = REGIONS.into_iter().chain(unlisted).map(|name| (name, "opt-in-not-required"));
        let all: Vec<_> = standard.chain(OPT_IN.map(|name| (name, "not-opted-in"))).collect();
        for name in &request.region_names {
            if !all.iter().any(|(known, _)| known == name) {
                return Err(ServiceError::refused(
                    "InvalidParameterValue",
                    format!("Invalid region provided: {}", params::short(name)),
                ));
            }
        }
        params::dry_run(request.dry_run)?;
        let named = |name: &str| request.region_names.iter().any(|wanted| wanted == name);
        let regions = all.into_iter().filter(|(name, status)| {
            let known = *status != "not-opted-in" || *name == own || request.all_regions == Some(true);
            if request.region_names.is_empty() { known } else { named(name) }
        });
        let regions = regions.map(|(name, status)| RegionShown {
            opt_in_status: status.to_owned(),
            region_name: name.to_owned(),
            endpoint: format!("ec2.{name}.amazonaws.com"),
        });
        let value = |region: &RegionShown, name: &str| match name {
            "endpoint" => region.endpoint.clone(),
            "region-name" => region.region_name.clone(),
            _ => region.opt_in_status.clone(),
        };
        let regions = regions.filter(|region| passes(&request.filters, |name| value(region, name))).collect();
        Ok(DescribeRegionsResult { regions })
    })
}

/// The zones of the call's Region.
pub fn describe_availability_zones(
    call: &Call<'_>,
    request: DescribeAvailabilityZonesRequest,
) -> Result<DescribeAvailabilityZonesResult, ServiceError> {
    let mut fields = Fields::default();
    let items = request.zone_names.iter().map(|name| ("zoneName", name));
    let items: Vec<Value> = items
        .chain(request.zone_ids.iter().map(|id| ("zoneId", id)))
        .map(|(member, name)| serde_json::json!({member: name}))
        .collect();
    fields.put("availabilityZoneSet", Some(record::list(items)));
    fields.put("filterSet", Some(record::filters(&request.filters)));
    fields.put("allAvailabilityZones", request.all_availability_zones);
    run(call, &record::DESCRIBE_AVAILABILITY_ZONES, fields.dry_run(request.dry_run), |step| {
        permission::check_in(step.tx, call, "ec2:DescribeAvailabilityZones", &["*".to_owned()])?;
        check(&request.filters, &ZONE_FILTERS)?;
        let all: Vec<_> = ZONES.iter().zip(1..).map(|(letter, number)| zone(&call.region, *letter, number)).collect();
        let known = |wanted: &String| all.iter().any(|zone| [&zone.zone_name, &zone.zone_id].contains(&wanted));
        if let Some(name) = request.zone_names.iter().chain(&request.zone_ids).find(|name| !known(name)) {
            return Err(ServiceError::refused(
                "InvalidParameterValue",
                format!("Invalid availability zone: [{}]", params::short(name)),
            ));
        }
        params::dry_run(request.dry_run)?;
        let is_named = |zone: &AvailabilityZone| {
            request.zone_names.is_empty() && request.zone_ids.is_empty()
                || request.zone_names.contains(&zone.zone_name)
                || request.zone_ids.contains(&zone.zone_id)
        };
        let value = |zone: &AvailabilityZone, name: &str| match name {
            "group-name" | "network-border-group" | "region-name" => zone.region_name.clone(),
            "opt-in-status" => zone.opt_in_status.clone(),
            "state" => zone.state.clone(),
            "zone-id" => zone.zone_id.clone(),
            "zone-name" => zone.zone_name.clone(),
            _ => zone.zone_type.clone(),
        };
        let zones = all.iter().filter(|zone| is_named(zone) && passes(&request.filters, |name| value(zone, name)));
        Ok(DescribeAvailabilityZonesResult { availability_zones: zones.cloned().collect() })
    })
}

const ZONE_FILTERS: [&str; 8] = [
    "group-name",
    "network-border-group",
    "opt-in-status",
    "region-name",
    "state",
    "zone-id",
    "zone-name",
    "zone-type",
];

fn zone(region: &Region, letter: char, number: i64) -> AvailabilityZone {
    AvailabilityZone {
        opt_in_status: "opt-in-not-required".to_owned(),
        messages: Vec::new(),
        region_name: region.to_string(),
        zone_name: format!("{region}{letter}"),
        zone_id: format!("{}-az{number}", short_name(region)),
        group_name: region.to_string(),
        network_border_group: region.to_string(),
        zone_type: "availability-zone".to_owned(),
        state: "available".to_owned(),
    }
}

/// `use1` for `us-east-1`, `apne2` for `ap-northeast-2`, as ids of zones begin.
fn short_name(region: &Region) -> String {
    let mut text = String::new();
    for part in region.as_str().split('-') {
        match part {
            "northeast" => text.push_str("ne"),
            "southeast" => text.push_str("se"),
            "north" | "south" | "east" | "west" | "central" | "gov" => text.push_str(&part[..1]),
            other => text.push_str(other),
        }
    }
    text
}

/// Refuses a filter whose name is not known or that has no values.
fn check(filters: &[Filter], names: &[&str]) -> Result<(), ServiceError> {
    for filter in filters {
        if !names.contains(&filter.name.as_str()) {
            let name = params::short(&filter.name);
            return Err(ServiceError::refused("InvalidParameterValue", format!("The filter '{name}' is invalid")));
        }
    }
    Ok(())
}

fn passes(filters: &[Filter], value: impl Fn(&str) -> String) -> bool {
    filters.iter().all(|filter| {
        let actual = value(&filter.name);
        filter.values.iter().any(|wanted| filter::matches(wanted.as_bytes(), actual.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_the_ids_of_their_region() {
        for (region, id) in [
            ("us-east-1", "use1-az1"),
            ("eu-central-1", "euc1-az1"),
            ("ap-northeast-2", "apne2-az1"),
            ("ap-south-1", "aps1-az1"),
            ("us-gov-west-1", "usgw1-az1"),
        ] {
            assert_eq!(zone(&region.parse().unwrap(), 'a', 1).zone_id, id);
        }
    }

    #[test]
    fn zones_are_those_in_which_volumes_can_be() {
        let region: Region = "eu-west-1".parse().unwrap();
        for letter in ZONES {
            assert!(params::zone(Some(&format!("{region}{letter}")), &region).is_ok());
        }
        assert!(REGIONS.iter().chain(&OPT_IN).all(|name| name.parse::<Region>().is_ok()));
    }
}

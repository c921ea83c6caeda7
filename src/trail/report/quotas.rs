//! KMS's request quotas (AWS KMS developer guide, "Request quotas"), as they are by default.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{Seconds, shown};

/// How near a key's calls came to a quota, which holds for all keys of an account in a Region together.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct QuotaUse {
    /// What the quota is on.
    pub quota: &'static str,
    /// Calls a second that it allows.
    pub per_second: u32,
    /// Calls of this key.
    pub calls: u64,
    /// The busiest second: when, how many calls, and their share of the quota in per cent.
    pub busiest_second: Busiest,
    /// The busiest hour, its share being that of 3600 times the quota.
    pub busiest_hour: Busiest,
}

/// A busy time.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Busiest {
    /// When it began.
    pub at: String,
    /// How many calls there were.
    pub calls: u64,
    /// Of what the quota allows, in per cent.
    pub percent: f64,
}

const CRYPTOGRAPHIC: [&str; 6] =
    ["Encrypt", "Decrypt", "ReEncrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateRandom"];

/// Quotas on single operations, a second.
const OTHERS: [(&str, u32); 10] = [
    ("CreateGrant", 50),
    ("CreateKey", 5),
    ("DescribeKey", 2000),
    ("DisableKey", 5),
    ("EnableKey", 5),
    ("ListGrants", 100),
    ("PutKeyPolicy", 15),
    ("RetireGrant", 30),
    ("RevokeGrant", 30),
    ("ScheduleKeyDeletion", 15),
];

/// The quota on an operation in a Region; `None` where we know none.
pub(super) fn of(operation: &str, region: &str) -> Option<(&'static str, u32)> {
    if CRYPTOGRAPHIC.contains(&operation) {
        let per_second = match region {
            "us-east-1" | "us-west-2" | "eu-west-1" => 100_000,
            "us-east-2" | "ap-southeast-1" | "ap-southeast-2" | "ap-northeast-1" | "eu-central-1" | "eu-west-2" => {
                20_000
            }
            _ => 10_000,
        };
        return Some(("cryptographic operations (symmetric)", per_second));
    }
    OTHERS.into_iter().find(|(name, _)| *name == operation)
}

/// How near calls came to each quota, the nearest first.
pub(super) fn uses(counted: HashMap<(&'static str, u32), Seconds>) -> Vec<QuotaUse> {
    let mut uses: Vec<_> = counted.into_iter().filter_map(|(quota, seconds)| one(quota, &seconds)).collect();
    uses.sort_by(|one, other| {
        other.busiest_second.percent.total_cmp(&one.busiest_second.percent).then_with(|| one.quota.cmp(other.quota))
    });
    uses
}

fn one((quota, per_second): (&'static str, u32), seconds: &Seconds) -> Option<QuotaUse> {
    let mut hours: BTreeMap<i64, u64> = BTreeMap::new();
    for (at, (calls, _)) in seconds {
        *hours.entry(at.div_euclid(3600) * 3600).or_default() += u64::from(*calls);
    }
    let second = seconds.iter().map(|(at, (calls, _))| (*at, u64::from(*calls)));
    Some(QuotaUse {
        quota,
        per_second,
        calls: hours.values().sum(),
        busiest_second: busiest(second, u64::from(per_second))?,
        busiest_hour: busiest(hours.clone().into_iter(), u64::from(per_second) * 3600)?,
    })
}

/// The first of the busiest.
#[expect(clippy::cast_precision_loss, reason = "a share needs three digits")]
fn busiest(times: impl Iterator<Item = (i64, u64)>, allowed: u64) -> Option<Busiest> {
    let (at, calls) = times.max_by_key(|(at, calls)| (*calls, std::cmp::Reverse(*at)))?;
    let percent = (calls as f64 / allowed as f64 * 1e7).round() / 1e5;
    Some(Busiest { at: shown(at), calls, percent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_and_hour_are_held_against_the_quota() {
        let seconds: Seconds = [(7200, (30, 0)), (7201, (60, 1)), (10_800, (60, 0)), (3, (1, 1))].into_iter().collect();
        let held = uses([(("CreateGrant", 50), seconds)].into_iter().collect());
        let [used] = &held[..] else { panic!("{held:?}") };
        assert_eq!((used.calls, used.busiest_second.calls, used.busiest_second.percent), (151, 60, 120.0));
        assert_eq!(used.busiest_second.at, "1970-01-01T02:00:01Z");
        assert_eq!((used.busiest_hour.calls, used.busiest_hour.percent), (90, 0.05));
        assert_eq!(of("Decrypt", "us-east-1").unwrap().1, 100_000);
        assert_eq!(of("Decrypt", "eu-central-1").unwrap().1, 20_000);
        assert_eq!(of("Decrypt", "eu-north-1").unwrap().1, 10_000);
        assert_eq!(of("ListKeys", "eu-north-1"), None);
    }
}

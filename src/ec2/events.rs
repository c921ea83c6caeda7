//! EBS volume notifications: what EBS tells `EventBridge` of a volume, kept in the home for seven days (EBS user guide,
//! page ebs-cloud-watch-events; how long is ours: AWS keeps them nowhere).

use jiff::SignedDuration;
use rusqlite::params;
use serde_json::{Value, json};

use crate::clock::Time;
use crate::ids::{self, VolumeId};
use crate::store::{self, Home, StoreError, Transaction};

use super::table::VolumeRow;

/// How long events are kept.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What happened to a volume, as `detail.event` and `detail.result` name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Happened<'a> {
    /// It was made.
    Created,
    /// It was not: why.
    NotCreated(&'a str),
    /// It was deleted.
    Deleted,
    /// It was attached.
    Attached,
    /// It was not: why.
    NotAttached(&'a str),
    /// It was detached.
    Detached,
    /// Its modification has taken effect and is being optimised.
    Optimizing,
    /// Its modification is done.
    Completed,
}

impl<'a> Happened<'a> {
    const fn words(self) -> (&'static str, &'static str, &'a str) {
        match self {
            Self::Created => ("createVolume", "available", ""),
            Self::NotCreated(cause) => ("createVolume", "failed", cause),
            Self::Deleted => ("deleteVolume", "deleted", ""),
            Self::Attached => ("attachVolume", "attached", ""),
            Self::NotAttached(cause) => ("attachVolume", "failed", cause),
            Self::Detached => ("detachVolume", "detached", ""),
            Self::Optimizing => ("modifyVolume", "optimizing", ""),
            Self::Completed => ("modifyVolume", "completed", ""),
        }
    }
}

/// Notes what happened to a volume, in the transaction in which it does; what is older than seven days goes.
pub(super) fn note(
    tx: &Transaction<'_>,
    at: Time,
    row: &VolumeRow,
    happened: Happened<'_>,
    request_id: &str,
) -> Result<(), StoreError> {
    let (event, result, cause) = happened.words();
    let told = json!({
        "version": "0",
        "id": ids::uuid(),
        "detail-type": "EBS Volume Notification",
        "source": "aws.ec2",
        "account": row.account.as_str(),
        "time": at.to_seconds_string(),
        "region": row.region.as_str(),
        "resources": [format!("arn:aws:ec2:{}:{}:volume/{}", row.region, row.account, row.id)],
        "detail": {"result": result, "cause": cause, "event": event, "request-id": request_id},
    });
    let oldest = at.after(-KEPT);
    tx.prepare_cached("DELETE FROM ebs_events WHERE time < ?1")?.execute([oldest.micros()])?;
    tx.prepare_cached("INSERT INTO ebs_events (account, region, time, event) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![row.account.as_str(), row.region.as_str(), at.micros(), told.to_string()])?;
    Ok(())
}

/// As [`note`], in a transaction of its own.
pub(super) fn note_now(
    home: &Home,
    row: &VolumeRow,
    happened: Happened<'_>,
    request_id: &str,
) -> Result<(), StoreError> {
    home.write(|tx| note(tx, store::clock(tx)?.now(), row, happened, request_id))
}

/// An event and its place among all.
#[derive(Clone, Debug)]
pub struct Event {
    /// Grows from event to event.
    pub seq: i64,
    /// What `EventBridge` gets.
    pub told: Value,
}

/// Which events are asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only those behind this one.
    pub after: i64,
    /// Only those of this time or later.
    pub since: Option<Time>,
    /// Only those of this volume.
    pub volume: Option<VolumeId>,
}

/// The events of the home that are wanted, of every account and Region, oldest first. None is older than seven days.
///
/// # Errors
/// That of the store.
pub fn list(home: &Home, wanted: &Wanted) -> Result<Vec<Event>, StoreError> {
    home.read(|tx| {
        let oldest = store::clock(tx)?.now().after(-KEPT);
        let since = wanted.since.map_or(oldest, |since| since.max(oldest));
        let mut statement =
            tx.prepare_cached("SELECT seq, event FROM ebs_events WHERE seq > ?1 AND time >= ?2 ORDER BY seq")?;
        let rows = statement
            .query_map([wanted.after, since.micros()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        let events = rows.into_iter().filter_map(|(seq, text)| {
            let told: Value = serde_json::from_str(&text).ok()?;
            let arn = told["resources"][0].as_str().unwrap_or_default();
            let meant = wanted.volume.as_ref().is_none_or(|volume| arn.ends_with(&format!("/{volume}")));
            meant.then_some(Event { seq, told })
        });
        Ok(events.collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ec2::{CreateVolumeRequest, DeleteVolumeRequest, create_volume, delete_volume};
    use crate::gate::Call;

    #[test]
    fn events_are_eventbridges_and_are_kept_for_seven_days() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        let call = Call::direct(&home, "123456789012".parse().unwrap(), "us-east-1".parse().unwrap());
        let made = create_volume(&call, CreateVolumeRequest { size: Some(1), ..Default::default() }).unwrap();
        let events = list(&home, &Wanted::default()).unwrap();
        assert_eq!(events.len(), 1);
        let told = &events[0].told;
        assert_eq!(
            (&told["detail"], &told["detail-type"], &told["source"], &told["version"]),
            (
                &json!({"result": "available", "cause": "", "event": "createVolume", "request-id": call.request_id}),
                &json!("EBS Volume Notification"),
                &json!("aws.ec2"),
                &json!("0")
            )
        );
        let arn = format!("arn:aws:ec2:us-east-1:123456789012:volume/{}", made.volume_id);
        assert_eq!(told["resources"], json!([arn]));
        assert_eq!(told["time"].as_str().map(str::len), Some("2026-11-24T04:29:58Z".len()));

        home.advance_clock(SignedDuration::from_hours(6 * 24)).unwrap();
        let request = DeleteVolumeRequest { volume_id: made.volume_id.clone(), dry_run: None };
        delete_volume(&call, request).unwrap();
        let results = |wanted: &Wanted| -> Vec<_> {
            list(&home, wanted).unwrap().into_iter().map(|event| event.told["detail"]["result"].clone()).collect()
        };
        assert_eq!(results(&Wanted::default()), ["available", "deleted"]);
        assert_eq!(results(&Wanted { after: events[0].seq, ..Default::default() }), ["deleted"]);
        let other = Wanted { volume: Some(VolumeId::random()), ..Default::default() };
        assert!(results(&other).is_empty());
        home.advance_clock(SignedDuration::from_hours(25)).unwrap();
        assert_eq!(results(&Wanted::default()), ["deleted"], "the older one is not shown");
        create_volume(&call, CreateVolumeRequest { size: Some(1), ..Default::default() }).unwrap();
        let kept: i64 = home
            .read(|tx| Ok::<_, StoreError>(tx.query_row("SELECT count(*) FROM ebs_events", [], |row| row.get(0))?))
            .unwrap();
        assert_eq!(kept, 2, "nor kept");
    }
}

//! What the trail tells of one key: who used it, for which volume, when, through which service, what was refused, and how
//! far that is from the quotas. Of a home's own trail or of any folder of CloudTrail files.

mod entry;
mod gather;
mod quotas;
mod svg;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use rusqlite::params;
use serde::Serialize;

use crate::clock::Time;
use crate::store::{Home, StoreError};

use super::facets::Facet;
use super::folder::{self, FolderError};
use super::lookup::Attribute;
use entry::{Asked, Use};

pub use quotas::QuotaUse;
pub use svg::timeline;

/// What the trail tells of a key.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyReport {
    /// The keys' ARNs: one, unless related multi-Region keys or keys of several accounts have the id that was asked for.
    pub keys: Vec<String>,
    /// How many calls.
    pub calls: u64,
    /// How many of them were refused or failed.
    pub refused: u64,
    /// The first call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// The last call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Who called, through which service, for what; most calls first.
    pub callers: Vec<Caller>,
    /// For which volumes and instances, or under which other contexts; last used first.
    pub contexts: Vec<ContextUse>,
    /// What was refused; most often first.
    pub refusals: Vec<RefusedUse>,
    /// Calls hour by hour, without the hours in which there was none.
    pub hours: Vec<Hour>,
    /// The busiest second and hour against the quotas.
    pub quotas: Vec<QuotaUse>,
    /// Files that were read; only of a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Files that are no CloudTrail log files, or are damaged, and why; the first twenty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// A caller's calls of one operation through one service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Caller {
    /// The ARN, or what else the record says of who called.
    pub principal: String,
    /// Through which service, as the record names it; absent for a direct call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// The operation.
    pub operation: String,
    /// How many calls.
    pub calls: u64,
    /// How many of them were refused or failed.
    pub refused: u64,
    /// The first.
    pub first: String,
    /// The last.
    pub last: String,
}

/// The calls under one encryption context.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContextUse {
    /// `aws:ebs:id` of the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<String>,
    /// `aws:rds:db-id` of the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_id: Option<String>,
    /// The whole context.
    pub context: BTreeMap<String, String>,
    /// How many calls.
    pub calls: u64,
    /// How many of them were refused or failed.
    pub refused: u64,
    /// How often each operation was called.
    pub operations: BTreeMap<String, u64>,
    /// The first call.
    pub first: String,
    /// The last call.
    pub last: String,
}

/// Refusals and failures of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RefusedUse {
    /// The error code.
    pub code: String,
    /// The message, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who called.
    pub principal: String,
    /// The operation.
    pub operation: String,
    /// How many calls.
    pub calls: u64,
    /// The last.
    pub last: String,
}

/// The calls of an hour.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Hour {
    /// When it began.
    pub hour: String,
    /// How many calls.
    pub calls: u64,
    /// How many of them were refused or failed.
    pub refused: u64,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ReportQuery {
    /// A key's ARN, or its id: then keys of that id in any Region and account.
    pub key: String,
    /// Not before this time.
    pub start: Option<Time>,
    /// Not after this time.
    pub end: Option<Time>,
}

/// The report and what its picture is drawn from.
#[derive(Debug)]
pub struct Told {
    /// The report.
    pub report: KeyReport,
    /// Calls by caller and by context, second by second.
    pub(super) tracks: Tracks,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// What this home's own trails tell, those of all accounts and Regions.
///
/// # Errors
/// The store's.
pub fn of_home(home: &Home, query: &ReportQuery) -> Result<Told, ReportError> {
    let asked = Asked::of(query);
    let mut tally = Tally::default();
    home.read(|tx| {
        let mut names =
            tx.prepare_cached("SELECT DISTINCT trail, value FROM trail_names WHERE attribute = ?1 AND value GLOB ?2")?;
        let pattern =
            if query.key.starts_with("arn:") { query.key.clone() } else { format!("arn:*:key/{}", query.key) };
        let places = names.query_map(params![Attribute::ResourceName as u8, pattern], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let mut records = tx.prepare_cached(
            "SELECT r.record FROM trail_index AS i JOIN trail_records AS r USING (seq) WHERE i.facet = ?1",
        )?;
        for (trail, name) in places {
            for facet in Facet::named(tx, trail, Attribute::ResourceName, &name)? {
                let mut rows = records.query([facet.0])?;
                while let Some(row) = rows.next()? {
                    let text = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
                    if let Some(used) = Use::read(text, &asked).map_err(|error| super::damaged(error.into()))? {
                        tally.add(used);
                    }
                }
            }
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(tally.finish(None, Vec::new()))
}

/// What a folder of CloudTrail log files tells: `.json` or `.json.gz`, in any folders below.
///
/// # Errors
/// If there is nothing to read. Files that cannot be read are in the report.
pub fn of_folder(from: &std::path::Path, query: &ReportQuery) -> Result<Told, ReportError> {
    let files: Vec<PathBuf> = folder::log_files(from)?;
    let asked = Asked::of(query);
    let (tally, unread) = gather::read_all(&files, &asked);
    Ok(tally.finish(Some(files.len() as u64), unread))
}

/// How many calls, how many refused, the first and the last second.
#[derive(Clone, Copy, Debug)]
struct Count {
    calls: u64,
    refused: u64,
    first: i64,
    last: i64,
}

impl Default for Count {
    fn default() -> Self {
        Self { calls: 0, refused: 0, first: i64::MAX, last: i64::MIN }
    }
}

impl Count {
    fn add(&mut self, at: i64, refused: bool) {
        self.merge(&Self { calls: 1, refused: refused.into(), first: at, last: at });
    }

    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.refused += other.refused;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Calls and refused calls by the second in which they were.
type Seconds = HashMap<i64, (u32, u32)>;

/// What the picture is drawn from.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    pub(super) callers: HashMap<(String, Option<String>), Seconds>,
    pub(super) contexts: HashMap<BTreeMap<String, String>, Seconds>,
    pub(super) all: Seconds,
}

/// What was counted so far. Workers have one each; [`Tally::merge`] brings them together.
#[derive(Debug, Default)]
struct Tally {
    keys: HashSet<String>,
    callers: HashMap<(String, Option<String>, String), Count>,
    contexts: HashMap<BTreeMap<String, String>, (Count, BTreeMap<String, u64>)>,
    refusals: HashMap<(String, Option<String>, String, String), Count>,
    by_quota: HashMap<(&'static str, u32), Seconds>,
    tracks: Tracks,
    /// Uses that are in the trails of two accounts, by what they share; the caller's own record tells more.
    shared: HashMap<String, Use>,
}

impl Tally {
    fn add(&mut self, used: Use) {
        let Some(shared) = used.shared.clone() else { return self.count(used) };
        let is_known = self.shared.get(&shared).is_some_and(|known| known.names_caller);
        if !is_known {
            self.shared.insert(shared, used);
        }
    }

    fn count(&mut self, used: Use) {
        let (at, refused) = (used.at, used.error.is_some());
        let add = |seconds: &mut Seconds| {
            let (calls, errors) = seconds.entry(at).or_default();
            *calls += 1;
            *errors += u32::from(refused);
        };
        add(&mut self.tracks.all);
        add(self.tracks.callers.entry((used.principal.clone(), used.through.clone())).or_default());
        if let Some(quota) = quotas::of(&used.operation, &used.region) {
            add(self.by_quota.entry(quota).or_default());
        }
        if !used.context.is_empty() {
            add(self.tracks.contexts.entry(used.context.clone()).or_default());
            let (count, operations) = self.contexts.entry(used.context).or_default();
            count.add(at, refused);
            *operations.entry(used.operation.clone()).or_default() += 1;
        }
        if let Some((code, message)) = used.error {
            let kind = (code, message, used.principal.clone(), used.operation.clone());
            self.refusals.entry(kind).or_default().add(at, true);
        }
        self.callers.entry((used.principal, used.through, used.operation)).or_default().add(at, refused);
        self.keys.extend(used.key);
    }

    /// Takes in what another worker counted.
    fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        for (kind, count) in other.callers {
            self.callers.entry(kind).or_default().merge(&count);
        }
        for (context, (count, operations)) in other.contexts {
            let (own, of) = self.contexts.entry(context).or_default();
            own.merge(&count);
            for (operation, calls) in operations {
                *of.entry(operation).or_default() += calls;
            }
        }
        for (kind, count) in other.refusals {
            self.refusals.entry(kind).or_default().merge(&count);
        }
        for (quota, seconds) in other.by_quota {
            add_seconds(self.by_quota.entry(quota).or_default(), seconds);
        }
        for (caller, seconds) in other.tracks.callers {
            add_seconds(self.tracks.callers.entry(caller).or_default(), seconds);
        }
        for (context, seconds) in other.tracks.contexts {
            add_seconds(self.tracks.contexts.entry(context).or_default(), seconds);
        }
        add_seconds(&mut self.tracks.all, other.tracks.all);
        for (shared, used) in other.shared {
            if used.names_caller || !self.shared.contains_key(&shared) {
                self.shared.insert(shared, used);
            }
        }
    }

    fn finish(mut self, files: Option<u64>, unread: Vec<String>) -> Told {
        for used in std::mem::take(&mut self.shared).into_values() {
            self.count(used);
        }
        let total = self.callers.values().fold(Count::default(), |mut total, count| {
            total.merge(count);
            total
        });
        let mut report = KeyReport {
            calls: total.calls,
            refused: total.refused,
            first: (total.calls > 0).then(|| shown(total.first)),
            last: (total.calls > 0).then(|| shown(total.last)),
            keys: self.keys.into_iter().collect(),
            callers: self.callers.into_iter().map(caller).collect(),
            contexts: self.contexts.into_iter().map(context).collect(),
            refusals: self.refusals.into_iter().map(refusal).collect(),
            hours: hours(&self.tracks.all),
            quotas: quotas::uses(self.by_quota),
            files,
            unread,
        };
        report.keys.sort_unstable();
        report.callers.sort_by(|one, other| {
            let key = |caller: &Caller| (caller.principal.clone(), caller.through.clone(), caller.operation.clone());
            other.calls.cmp(&one.calls).then_with(|| key(one).cmp(&key(other)))
        });
        report.contexts.sort_by(|one, other| {
            other.last.cmp(&one.last).then(other.calls.cmp(&one.calls)).then_with(|| one.context.cmp(&other.context))
        });
        report.refusals.sort_by(|one, other| {
            let key = |refusal: &RefusedUse| (refusal.code.clone(), refusal.principal.clone(), refusal.message.clone());
            other.calls.cmp(&one.calls).then_with(|| key(one).cmp(&key(other)))
        });
        Told { report, tracks: self.tracks }
    }
}

fn add_seconds(to: &mut Seconds, from: Seconds) {
    for (at, (calls, refused)) in from {
        let (own, errors) = to.entry(at).or_default();
        *own += calls;
        *errors += refused;
    }
}

fn caller(((principal, through, operation), count): ((String, Option<String>, String), Count)) -> Caller {
    let Count { calls, refused, first, last } = count;
    Caller { principal, through, operation, calls, refused, first: shown(first), last: shown(last) }
}

fn context((context, (count, operations)): (BTreeMap<String, String>, (Count, BTreeMap<String, u64>))) -> ContextUse {
    let Count { calls, refused, first, last } = count;
    ContextUse {
        volume_id: context.get("aws:ebs:id").cloned(),
        db_id: context.get("aws:rds:db-id").cloned(),
        context,
        calls,
        refused,
        operations,
        first: shown(first),
        last: shown(last),
    }
}

fn refusal(
    ((code, message, principal, operation), count): ((String, Option<String>, String, String), Count),
) -> RefusedUse {
    RefusedUse { code, message, principal, operation, calls: count.calls, last: shown(count.last) }
}

fn hours(seconds: &Seconds) -> Vec<Hour> {
    let mut hours: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for (at, (calls, refused)) in seconds {
        let hour = hours.entry(at.div_euclid(3600)).or_default();
        hour.0 += u64::from(*calls);
        hour.1 += u64::from(*refused);
    }
    let hour = |(hour, (calls, refused))| Hour { hour: shown(hour * 3600), calls, refused };
    hours.into_iter().map(hour).collect()
}

/// `2026-11-24T04:29:58Z`.
fn shown(seconds: i64) -> String {
    seconds.checked_mul(1_000_000).and_then(Time::from_micros).map_or_else(String::new, Time::to_seconds_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const KEY: &str = "arn:aws:kms:eu-north-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn record(change: impl FnOnce(&mut Value)) -> Value {
        let mut record = json!({
            "eventVersion": "1.11", "eventTime": "2026-11-24T04:29:58Z", "eventSource": "kms.amazonaws.com",
            "eventName": "Decrypt", "awsRegion": "eu-north-1", "sourceIPAddress": "AWS Internal",
            "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/Etl/s", "invokedBy": "ec2.amazonaws.com"},
            "requestParameters": {"encryptionContext": {"aws:ebs:id": "vol-1", "aws:rds:db-id": "db-A"}},
            "responseElements": null, "resources": [{"accountId": "111122223333", "type": "AWS::KMS::Key", "ARN": KEY}],
            "eventID": crate::ids::uuid(), "eventType": "AwsApiCall", "tlsDetails": {"tlsVersion": "TLSv1.3"},
        });
        change(&mut record);
        record
    }

    /// The report on the key of that name from one file per text.
    fn report_on(key: &str, files: &[Vec<u8>]) -> Told {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("AWSLogs/111122223333/CloudTrail/eu-north-1/2026/11/24");
        std::fs::create_dir_all(&below).unwrap();
        for (number, file) in files.iter().enumerate() {
            std::fs::write(below.join(format!("{number}.json.gz")), file).unwrap();
        }
        let query = ReportQuery { key: key.to_owned(), start: None, end: None };
        of_folder(folder.path(), &query).unwrap()
    }

    fn file(records: &[Value]) -> Vec<u8> {
        json!({"Records": records}).to_string().into_bytes()
    }

    #[test]
    fn a_folder_tells_who_what_when_and_through_which_service() {
        let denied = record(|record| {
            record["eventName"] = "Encrypt".into();
            record["errorCode"] = "AccessDenied".into();
            record["errorMessage"] = "no".into();
            record["userIdentity"] = json!({"type": "AWSService", "invokedBy": "rds.amazonaws.com"});
            record["requestParameters"] = Value::Null;
        });
        let other_key = record(|record| record["resources"][0]["ARN"] = "arn:aws:kms:eu-north-1:1:key/other".into());
        let grant = record(|record| {
            record["eventName"] = "CreateGrant".into();
            record["requestParameters"] =
                json!({"keyId": KEY, "constraints": {"encryptionContextSubset": {"aws:ebs:id": "vol-2"}}});
        });
        for key in [KEY, "1234abcd-12ab-34cd-56ef-1234567890ab"] {
            let records = [record(|_| ()), record(|_| ()), denied.clone(), other_key.clone(), grant.clone()];
            let report = report_on(key, &[crate::trail::tree::compress(&file(&records))]).report;
            assert_eq!((report.calls, report.refused, &report.keys[..]), (4, 1, &[KEY.to_owned()][..]));
            let first = &report.callers[0];
            assert_eq!(first.principal, "arn:aws:sts::111122223333:assumed-role/Etl/s");
            assert_eq!(
                (first.through.as_deref(), first.operation.as_str(), first.calls),
                (Some("ec2.amazonaws.com"), "Decrypt", 2)
            );
            let volumes: Vec<_> = report.contexts.iter().map(|used| (used.volume_id.as_deref(), used.calls)).collect();
            assert_eq!(volumes, [(Some("vol-1"), 2), (Some("vol-2"), 1)]);
            let [refused] = &report.refusals[..] else { panic!("{:?}", report.refusals) };
            assert_eq!((refused.code.as_str(), refused.principal.as_str()), ("AccessDenied", "rds.amazonaws.com"));
            assert_eq!(report.hours, [Hour { hour: "2026-11-24T04:00:00Z".to_owned(), calls: 4, refused: 1 }]);
            let crypto = report.quotas.iter().find(|used| used.per_second == 10_000).unwrap();
            assert_eq!((crypto.busiest_second.calls, crypto.busiest_second.percent), (3, 0.03));
        }
    }

    #[test]
    fn a_record_in_two_files_or_two_accounts_counts_once_and_the_callers_tells_more() {
        let once = record(|_| ());
        let (mut own, mut foreign) = (record(|_| ()), record(|_| ()));
        for shared in [&mut own, &mut foreign] {
            shared["sharedEventID"] = "aaaa".into();
        }
        foreign["userIdentity"] = json!({"type": "AWSAccount", "accountId": "444455556666"});
        for order in [[&own, &foreign], [&foreign, &own]] {
            let files = [file(&[once.clone(), order[0].clone()]), file(&[order[1].clone(), once.clone()])];
            let report = report_on(KEY, &files).report;
            assert_eq!((report.calls, report.callers.len()), (2, 1), "{report:?}");
        }
        assert_eq!(report_on(KEY, &[file(&[foreign])]).report.callers[0].principal, "account 444455556666");
    }

    /// What is of an unknown shape costs its own record at most; what is no log file is named.
    #[test]
    fn strange_events_and_files_do_not_stop_a_report() {
        let strange = [
            json!(null),
            json!(7),
            json!({"eventName": "Decrypt"}),
            record(|record| record["eventTime"] = "soon".into()),
            record(|record| record["errorCode"] = json!({"a": 1})),
        ];
        let bearable = [
            record(|record| record["requestParameters"] = "HIDDEN_DUE_TO_SECURITY_REASONS".into()),
            record(|record| record["requestParameters"] = json!({"encryptionContext": {"a": 1, "b": "c"}, "keyId": 9})),
            record(|record| record["userIdentity"] = json!(["x"])),
            record(|record| record["userIdentity"] = json!({"type": "WebIdentityUser"})),
            record(|record| record["resources"] = json!([null, {"ARN": KEY}])),
        ];
        let records = [&strange[..], &bearable[..], &[record(|_| ())]].concat();
        let looked_up = json!({"Events": [{"CloudTrailEvent": record(|_| ()).to_string()}, {"EventName": "x"}]});
        let mut two_members = crate::trail::tree::compress(b"{\"Records\":");
        two_members.extend(crate::trail::tree::compress(format!("[{}]}}", record(|_| ())).as_bytes()));
        let files = [
            file(&records),
            looked_up.to_string().into_bytes(),
            two_members,
            b"\x1f\x8bcut".to_vec(),
            b"PK\x03\x04 1234abcd-12ab-34cd-56ef-1234567890ab".to_vec(),
            b"{\"Other\": []}".to_vec(),
        ];
        let report = report_on(KEY, &files).report;
        assert_eq!((report.calls, report.files, report.unread.len()), (8, Some(6), 2), "{report:?}");
        let folder = tempfile::tempdir().unwrap();
        let query = ReportQuery { key: KEY.to_owned(), start: None, end: None };
        assert!(matches!(of_folder(folder.path(), &query), Err(ReportError::Folder(FolderError::Nothing(_)))));
    }

    #[test]
    fn the_picture_is_whole_whatever_there_is_to_draw() {
        let empty = report_on(KEY, &[file(&[])]);
        assert!(timeline(&empty).contains("no call is recorded") && !timeline(&empty).contains("NaN"));
        let many: Vec<_> = (0..30)
            .map(|number| {
                record(|record| {
                    record["requestParameters"]["encryptionContext"] = json!({"<&\"": format!("{number}")});
                    record["eventTime"] = format!("2026-11-{:02}T04:29:58Z", number % 28 + 1).into();
                    if number == 3 {
                        record["errorCode"] = "AccessDenied".into();
                    }
                })
            })
            .collect();
        let picture = timeline(&report_on(KEY, &[file(&many)]));
        assert!(picture.contains("and 18 more") && picture.contains("&lt;&amp;&quot;="), "{picture}");
        assert!(picture.contains("url(#refused)") && picture.contains("30 calls, 1 refused or failed"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }
}

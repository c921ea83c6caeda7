//! A trail of a million events: what appending costs at the first and at the millionth, and how long a page of each kind
//! of look-up takes. `cargo bench --bench trail`, in a temporary folder below `target`, which must be on a real disk.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails has no result to report")]

use std::path::Path;
use std::time::{Duration, Instant};

use blockseal::clock::Time;
use blockseal::ids::{self, AccountId, Region};
use blockseal::store::{Home, StoreError};
use blockseal::trail::{self, Attribute, EventType, Query, Record, Resource};
use jiff::SignedDuration;
use serde_json::{Map, json};

const EVENTS: u32 = 1_000_000;
const PER_TRANSACTION: u32 = 1_000;
const PER_LINE: u32 = 100_000;
const KEYS: u32 = 1_000;
const USERS: u32 = 500;
const OPERATIONS: [(&str, bool); 8] = [
    ("Decrypt", true),
    ("GenerateDataKey", true),
    ("Encrypt", true),
    ("DescribeKey", true),
    ("ReEncrypt", true),
    ("CreateGrant", false),
    ("RetireGrant", false),
    ("ListGrants", true),
];

fn main() {
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let base = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).unwrap();
    let home = Home::open(&base.path().join("home")).unwrap();
    let account: AccountId = "123456789012".parse().unwrap();
    let region: Region = "us-east-1".parse().unwrap();
    let began = home.now().unwrap();
    println!("{:>10} {:>16}", "events", "us per event");
    let mut spent = Duration::ZERO;
    let mut middle = String::new();
    for first in (0..EVENTS).step_by(PER_TRANSACTION as usize) {
        let records: Vec<_> =
            (first..first + PER_TRANSACTION).map(|number| record(number, began, &account, &region)).collect();
        if first == EVENTS / 2 {
            middle.clone_from(&records[0].event_id);
        }
        let start = Instant::now();
        home.write(|tx| records.iter().try_for_each(|record| trail::append(tx, record))).unwrap();
        spent += start.elapsed();
        if (first + PER_TRANSACTION).is_multiple_of(PER_LINE) {
            let each = spent.as_secs_f64() * 1e6 / f64::from(PER_LINE);
            println!("{:>10} {each:>16.1}", first + PER_TRANSACTION);
            spent = Duration::ZERO;
        }
    }
    println!("\n{:30} {:>8} {:>14} {:>14}", "look-up (a page of 50)", "found", "first page ms", "20th page ms");
    let looked_for = [
        (None, ""),
        (Some(Attribute::EventId), middle.as_str()),
        (Some(Attribute::EventName), "Decrypt"),
        (Some(Attribute::EventName), "no such operation"),
        (Some(Attribute::ReadOnly), "true"),
        (Some(Attribute::Username), "user-7"),
        (Some(Attribute::ResourceType), "AWS::KMS::Key"),
        (Some(Attribute::ResourceName), "arn:aws:kms:us-east-1:123456789012:key/00000007"),
        (Some(Attribute::EventSource), "kms.amazonaws.com"),
        (Some(Attribute::AccessKeyId), "AKIA0000000000000007"),
    ];
    for (attribute, value) in looked_for {
        let query = Query {
            account: account.clone(),
            region: region.clone(),
            attribute: attribute.map(|attribute| (attribute, value.to_owned())),
            start: None,
            end: None,
            oldest: began.after(SignedDuration::from_hours(-1)),
        };
        let (mut token, mut found) = (None, 0);
        let (mut first, mut last) = (Duration::ZERO, Duration::ZERO);
        for page in 0..20 {
            let start = Instant::now();
            let answer = home
                .read(|tx| Ok::<_, StoreError>(trail::look_up(tx, &query, 50, token.as_deref())?.unwrap()))
                .unwrap();
            last = start.elapsed();
            first = if page == 0 { last } else { first };
            found += answer.events.len();
            token = answer.next;
            if token.is_none() {
                break;
            }
        }
        let name = attribute.map_or("everything", |wanted| {
            Attribute::ALL.into_iter().find(|(_, attribute)| *attribute == wanted).map_or("", |(name, _)| name)
        });
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        println!("{:30} {found:>8} {:>14.2} {:>14.2}", format!("{name} {value:.18}"), millis(first), millis(last));
    }
}

/// One event each 50 microseconds; operations, keys and users in an order that repeats late.
fn record(number: u32, began: Time, account: &AccountId, region: &Region) -> Record {
    let time = began.after(SignedDuration::from_micros(i64::from(number) * 50));
    let mixed = number.wrapping_mul(2_654_435_761);
    let (name, read_only) = OPERATIONS[(mixed >> 29) as usize % OPERATIONS.len()];
    let user = mixed % USERS;
    let key = format!("arn:aws:kms:{region}:{account}:key/{:08}", (mixed >> 10) % KEYS);
    Record {
        event_id: ids::event_id(time.millis()),
        time,
        recipient: account.clone(),
        region: region.clone(),
        source: "kms.amazonaws.com".to_owned(),
        name: name.to_owned(),
        event_type: EventType::ApiCall,
        identity: json!({"type": "IAMUser", "arn": format!("arn:aws:iam::{account}:user/user-{user}"), "accountId": account.as_str()}),
        username: Some(format!("user-{user}")),
        access_key_id: Some(format!("AKIA{user:016}")),
        source_ip: "127.0.0.1".to_owned(),
        user_agent: "bench".to_owned(),
        request_id: Some(ids::uuid()),
        read_only,
        request: json!({"encryptionContext": {"aws:ebs:id": format!("vol-{:017x}", mixed)}, "keyId": key}),
        response: serde_json::Value::Null,
        additional: Map::new(),
        service_event_details: None,
        shared_event_id: None,
        error: None,
        lists_resources: true,
        resources: vec![Resource { account: account.clone(), kind: "AWS::KMS::Key".to_owned(), name: key }],
        mentioned: Vec::new(),
    }
}

//! What KMS calls cost: `Decrypt` and `GenerateDataKey` by one caller alone and by 64 at once, policy and durable record
//! included; the same with 100,000 keys in the home and 50,000 grants on the key.
//!
//! `taskset -c 0 cargo bench --bench kms`, in a temporary folder below `target`, which must be on a real disk
//! (`BLOCKSEAL_BENCH_DIR` names another). What the disk needs for one flush is measured beside, because a caller alone can
//! never be faster.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails has no result to report")]

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use blockseal::gate::{Call, ServiceError};
use blockseal::iam::Principal;
use blockseal::iam_service::{self, CreateRoleRequest, PutRolePolicyRequest};
use blockseal::kms::{self, Blob, CreateKeyRequest, DecryptRequest, EncryptionContext, GenerateDataKeyRequest};
use blockseal::store::{Home, StoreError};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;

const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";
const CALLERS: usize = 64;
const LASTING: Duration = Duration::from_secs(4);
const KEYS: i64 = 100_000;
const GRANTS: i64 = 50_000;

fn main() {
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let below = std::env::var_os("BLOCKSEAL_BENCH_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let base = tempfile::tempdir_in(below).unwrap();
    let bench = Bench::new(&base.path().join("home"));
    println!("one flush (fdatasync of 64 KiB in place): {}", flush(base.path()));
    println!("{:44} {:>8} {:>10} {:>12} {:>12} {:>8}", "", "callers", "calls/s", "median us", "99th us", "CPU us");
    let alone = bench.report("Decrypt", 1, Bench::decrypt);
    bench.report("Decrypt", CALLERS, Bench::decrypt);
    bench.report("GenerateDataKey", 1, Bench::generate);
    bench.report("GenerateDataKey", CALLERS, Bench::generate);
    if std::env::args().any(|argument| argument == "--short") {
        return;
    }
    bench.add_keys();
    bench.add_grants();
    let granted = bench.by_grant();
    let crowded = bench.report("Decrypt, 100,000 keys, 50,000 grants", 1, Bench::decrypt);
    bench.report("Decrypt, 100,000 keys, 50,000 grants", CALLERS, Bench::decrypt);
    granted.report("Decrypt by the last of 50,000 grants", 1, Bench::decrypt);
    granted.report("Decrypt by the last of 50,000 grants", CALLERS, Bench::decrypt);
    println!("a Decrypt among them takes {:.2} times as long as without", crowded / alone);
}

struct Bench {
    home: std::sync::Arc<Home>,
    /// A role whose inline policy allows the calls under one context; the key's policy leaves it to the account.
    principal: Principal,
    key_id: String,
    context: EncryptionContext,
    blob: Blob,
}

impl Bench {
    fn new(path: &Path) -> Self {
        let home = std::sync::Arc::new(Home::open(path).unwrap());
        let root = call(&home, format!("arn:aws:iam::{ACCOUNT}:root").parse().unwrap());
        let role = CreateRoleRequest {
            role_name: "Storage".to_owned(),
            assume_role_policy_document: json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole",
            }]})
            .to_string(),
            ..CreateRoleRequest::default()
        };
        iam_service::create_role(&root, role).unwrap();
        let allow = json!({"Version": "2012-10-17", "Statement": [{
            "Sid": "Volumes", "Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey*"], "Resource": "*",
            "Condition": {"StringLike": {"kms:EncryptionContext:aws:ebs:id": "vol-*"}},
        }]});
        let policy: PutRolePolicyRequest = serde_json::from_value(
            json!({"RoleName": "Storage", "PolicyName": "keys", "PolicyDocument": allow.to_string()}),
        )
        .unwrap();
        iam_service::put_role_policy(&root, policy).unwrap();
        let key_id = kms::create_key(&root, CreateKeyRequest::default()).unwrap().key_metadata.key_id;
        let principal: Principal = format!("arn:aws:sts::{ACCOUNT}:assumed-role/Storage/node").parse().unwrap();
        let context: EncryptionContext = [("aws:ebs:id", "vol-0123456789abcdef0")].into_iter().collect();
        let mut bench = Self { home: home.clone(), principal, key_id, context, blob: Blob::default() };
        bench.blob = bench.generate(&call(&home, bench.principal.clone())).unwrap();
        bench
    }

    fn decrypt(&self, call: &Call<'_>) -> Result<Blob, ServiceError> {
        let context = self.context.clone();
        let request =
            DecryptRequest { ciphertext_blob: self.blob.clone(), encryption_context: context, ..Default::default() };
        kms::decrypt(call, request).map(|_| Blob::default())
    }

    fn generate(&self, call: &Call<'_>) -> Result<Blob, ServiceError> {
        let request = GenerateDataKeyRequest {
            key_id: self.key_id.clone(),
            encryption_context: self.context.clone(),
            key_spec: Some("AES_256".to_owned()),
            ..Default::default()
        };
        kms::generate_data_key(call, request).map(|made| made.ciphertext_blob)
    }

    /// Answers the calls per second.
    fn report(&self, name: &str, callers: usize, operation: Operation) -> f64 {
        let (start, cpu) = (Barrier::new(callers), cpu_micros());
        let mut took: Vec<Duration> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..callers).map(|_| scope.spawn(|| self.one_caller(&start, operation))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let cpu = cpu_micros() - cpu;
        took.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand calls")]
        let rate = took.len() as f64 / LASTING.as_secs_f64();
        let at = |percent: usize| took[took.len() * percent / 100].as_micros();
        let each = cpu / i64::try_from(took.len()).unwrap();
        println!("{name:44} {callers:>8} {rate:>10.0} {:>12} {:>12} {each:>8}", at(50), at(99));
        1.0 / rate
    }

    fn one_caller(&self, start: &Barrier, operation: Operation) -> Vec<Duration> {
        let mut took = Vec::new();
        start.wait();
        let begun = Instant::now();
        while begun.elapsed() < LASTING {
            let each = Instant::now();
            operation(self, &call(&self.home, self.principal.clone())).unwrap();
            took.push(each.elapsed());
        }
        took
    }

    /// Fills the home with copies of the key, each with sealed material of its own that nobody opens.
    fn add_keys(&self) {
        let columns = "account, region, manager, only_via, description, state, created, deletion, window_days, origin, \
                       multi_region, material_id, rotation_days, next_rotation";
        let number = format!("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {KEYS}) ");
        let id = "printf('%08x-0000-4000-8000-000000000000', i * 2654435761 % 4294967296)";
        let copies = [
            format!("{number} INSERT INTO kms_keys (key_id, {columns}) SELECT {id}, {columns} FROM n, kms_keys"),
            format!(
                "{number} INSERT INTO kms_materials (material_id, key_id, sealed)
                 SELECT material_id, {id}, randomblob(length(sealed)) FROM n, (SELECT * FROM kms_materials LIMIT 1)"
            ),
            "INSERT INTO kms_material_states (key_id, seq, material_id, state, present)
             SELECT key_id, seq, material_id, 'CURRENT', 1 FROM kms_materials WHERE seq > 1"
                .to_owned(),
        ];
        self.sql(&copies);
    }

    /// Gives the key grants to one principal, each for the volume of another context: copies of the first, found by hashes
    /// that are drawn as those of their contexts would be, and a last one as `CreateGrant` makes it.
    fn add_grants(&self) {
        let root = call(&self.home, format!("arn:aws:iam::{ACCOUNT}:root").parse().unwrap());
        let grant = |number: i64| {
            let request = json!({
                "KeyId": self.key_id, "GranteePrincipal": format!("arn:aws:iam::{ACCOUNT}:role/Granted"),
                "Operations": ["Decrypt", "GenerateDataKey"],
                "Constraints": {"EncryptionContextSubset": {"aws:ebs:id": format!("vol-{number:017x}")}},
            });
            kms::create_grant(&root, serde_json::from_value(request).unwrap()).unwrap();
        };
        grant(0);
        let columns = "key_id, name, grantee, retiring, issuer, operations, created, effective, holder";
        self.sql(&[format!(
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {GRANTS} - 2)
             INSERT INTO kms_grants (grant_id, constraints, pin, {columns})
             SELECT printf('%064x', i), replace(constraints, 'vol-00000000000000000', printf('vol-%017x', i)),
                    random() | 1, {columns} FROM n, (SELECT * FROM kms_grants LIMIT 1)"
        )]);
        grant(GRANTS - 1);
    }

    /// The same calls by a principal that has nothing but grants, under the context of the one that was made last.
    fn by_grant(&self) -> Self {
        let root = call(&self.home, format!("arn:aws:iam::{ACCOUNT}:root").parse().unwrap());
        let context: EncryptionContext = [("aws:ebs:id", format!("vol-{:017x}", GRANTS - 1))].into_iter().collect();
        let role = CreateRoleRequest {
            role_name: "Granted".to_owned(),
            assume_role_policy_document: json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole",
            }]})
            .to_string(),
            ..CreateRoleRequest::default()
        };
        iam_service::create_role(&root, role).unwrap();
        let principal = format!("arn:aws:sts::{ACCOUNT}:assumed-role/Granted/node").parse().unwrap();
        let mut bench =
            Self { home: self.home.clone(), principal, key_id: self.key_id.clone(), context, blob: Blob::default() };
        bench.blob = bench.generate(&root).unwrap();
        bench
    }

    fn sql(&self, statements: &[String]) {
        self.home
            .write(|tx| statements.iter().try_for_each(|text| tx.execute(text, []).map(drop)).map_err(StoreError::from))
            .unwrap();
    }
}

type Operation = fn(&Bench, &Call<'_>) -> Result<Blob, ServiceError>;

fn call(home: &Home, principal: Principal) -> Call<'_> {
    Call::direct(home, principal, REGION.parse().unwrap())
}

/// What this process has had of its processors.
fn cpu_micros() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()].iter().map(TimeValLike::num_microseconds).sum()
}

/// Median and 90th percentile of a flush.
fn flush(folder: &Path) -> String {
    let mut file = tempfile::tempfile_in(folder).unwrap();
    let mut took: Vec<_> = (0..100u8)
        .map(|number| {
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(&vec![number; 65536]).unwrap();
            let start = Instant::now();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    format!("median {} us, 90th percentile {} us", took[50].as_micros(), took[90].as_micros())
}

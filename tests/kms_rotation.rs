//! Rotation through the public operations: what encrypts, what decrypts, what falls due when, and what is refused.

use blockseal::gate::{Call, ServiceError};
use blockseal::kms;
use blockseal::store::Home;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::kms::{KEY_OF_NOBODY, new_key, refused, root, run, temporary};

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn encrypt(call: &Call<'_>, key: &str) -> Value {
    run(call, kms::encrypt, json!({"KeyId": key, "Plaintext": "eA=="})).unwrap()["CiphertextBlob"].clone()
}

/// The material under which a blob opens.
fn material_of(call: &Call<'_>, blob: &Value) -> Value {
    let answer = run(call, kms::decrypt, json!({"CiphertextBlob": blob})).unwrap();
    assert_eq!(answer["Plaintext"], "eA==");
    answer["KeyMaterialId"].clone()
}

fn current(call: &Call<'_>, key: &str) -> Value {
    run(call, kms::describe_key, json!({"KeyId": key})).unwrap()["KeyMetadata"]["CurrentKeyMaterialId"].clone()
}

fn rotations(call: &Call<'_>, key: &str) -> Vec<Value> {
    let answer = run(call, kms::list_key_rotations, json!({"KeyId": key, "Limit": 1000})).unwrap();
    answer["Rotations"].as_array().unwrap().clone()
}

fn status(call: &Call<'_>, key: &str) -> Value {
    run(call, kms::get_key_rotation_status, json!({"KeyId": key})).unwrap()
}

fn enable(call: &Call<'_>, key: &str, days: i64) {
    run(call, kms::enable_key_rotation, json!({"KeyId": key, "RotationPeriodInDays": days})).unwrap();
}

/// Times and details of the `RotateKey` records, oldest first.
fn recorded(home: &Home) -> Vec<(i64, Value)> {
    home.read(|tx| {
        let mut statement = tx
            .prepare(
                "SELECT time, record ->> '$.serviceEventDetails', record ->> '$.eventType' FROM trail_records
                 WHERE record ->> '$.eventName' = 'RotateKey' ORDER BY seq",
            )
            .unwrap();
        let rows = statement.query_map([], |row| {
            assert_eq!(row.get::<_, String>(2)?, "AwsServiceEvent");
            Ok((row.get(0)?, serde_json::from_str(&row.get::<_, String>(1)?).unwrap()))
        });
        Ok::<_, ServiceError>(rows.unwrap().map(Result::unwrap).collect())
    })
    .unwrap()
}

#[test]
fn old_blobs_decrypt_and_new_ones_use_the_new_material() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let mut blobs = Vec::new();
    for _ in 0..4 {
        let material = current(&call, &key);
        blobs.push((encrypt(&call, &key), material.clone()));
        let data_key = run(&call, kms::generate_data_key, json!({"KeyId": key, "NumberOfBytes": 64})).unwrap();
        assert_eq!(data_key["KeyMaterialId"], material);
        assert_eq!(run(&call, kms::rotate_key_on_demand, json!({"KeyId": key})).unwrap(), json!({"KeyId": key}));
        for (blob, material) in &blobs {
            assert_eq!(material_of(&call, blob), *material);
        }
    }
    let newest = current(&call, &key);
    assert!(blobs.iter().all(|(_, material)| *material != newest));
    let request = json!({"CiphertextBlob": blobs[0].0, "DestinationKeyId": key});
    let moved = run(&call, kms::re_encrypt, request).unwrap();
    assert_eq!((&moved["SourceKeyMaterialId"], &moved["DestinationKeyMaterialId"]), (&blobs[0].1, &newest));
    assert_eq!(material_of(&call, &moved["CiphertextBlob"]), newest);
    let listed = rotations(&call, &key);
    assert_eq!(listed.len(), 4);
    assert_eq!(listed[3]["KeyMaterialId"], newest);
    assert_eq!((&listed[3]["KeyMaterialState"], &listed[3]["RotationType"]), (&json!("CURRENT"), &json!("ON_DEMAND")));
    assert!(listed[..3].iter().all(|entry| entry["KeyMaterialState"] == "NON_CURRENT"));
}

/// A year at 90 days: four rotations, each at its own time whenever it is looked at, each with one record.
#[test]
fn what_falls_due_is_done_in_due_order_once() {
    let (base, home) = temporary();
    let call = root(&home);
    let (slow, quick) = (new_key(&call), new_key(&call));
    enable(&call, &slow, 150);
    enable(&call, &quick, 90);
    let due = |key: &str| status(&call, key)["NextRotationDate"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let (slow_due, quick_due) = (due(&slow), due(&quick));
    let first = current(&call, &quick);
    home.advance_clock(days(90) - SignedDuration::from_mins(1)).unwrap();
    assert_eq!(current(&call, &quick), first, "not before it is due");
    home.advance_clock(days(276)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let home = Home::open(&base.path().join("home")).unwrap();
                run(&root(&home), kms::list_keys, json!({})).unwrap();
            });
        }
    });
    let at = |start: jiff::Timestamp, period: i64, nth: i64| (start + days(period * nth)).as_microsecond();
    let id = |key: &str| key.rsplit('/').next().unwrap().to_owned();
    let wanted: Vec<_> = [
        (at(quick_due, 90, 0), &quick),
        (at(slow_due, 150, 0), &slow),
        (at(quick_due, 90, 1), &quick),
        (at(quick_due, 90, 2), &quick),
        (at(slow_due, 150, 1), &slow),
        (at(quick_due, 90, 3), &quick),
    ]
    .into_iter()
    .map(|(time, key)| (time, json!({"rotationType": "AUTOMATIC", "keyId": id(key)})))
    .collect();
    assert_eq!(recorded(&home), wanted);
    assert_eq!(rotations(&call, &quick).len(), 4);
    assert!(rotations(&call, &quick).iter().all(|entry| entry["RotationType"] == "AUTOMATIC"));
    assert_eq!(due(&quick).as_microsecond(), at(quick_due, 90, 4), "the schedule does not drift");
}

#[test]
fn a_disabled_key_is_rotated_when_it_is_enabled_again() {
    let (_base, home) = temporary();
    let call = root(&home);
    let (missed, early) = (new_key(&call), new_key(&call));
    for key in [&missed, &early] {
        enable(&call, key, 90);
        run(&call, kms::disable_key, json!({"KeyId": key})).unwrap();
    }
    let (first, planned) = (current(&call, &missed), status(&call, &early)["NextRotationDate"].clone());
    home.advance_clock(days(30)).unwrap();
    run(&call, kms::enable_key, json!({"KeyId": early})).unwrap();
    assert_eq!(status(&call, &early)["NextRotationDate"], planned, "it goes on with its schedule");
    home.advance_clock(days(300)).unwrap();
    assert_eq!(status(&call, &missed)["KeyRotationEnabled"], true, "the status does not change");
    assert_eq!(current(&call, &missed), first);
    assert_eq!(rotations(&call, &missed).len(), 0);
    run(&call, kms::enable_key, json!({"KeyId": missed})).unwrap();
    assert_ne!(current(&call, &missed), first);
    assert_eq!(rotations(&call, &missed).len(), 1, "once, however many periods passed");
    assert_eq!(rotations(&call, &early).len(), 3);
}

#[test]
fn a_key_that_waits_for_its_end_is_not_rotated_and_a_spared_one_is() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    enable(&call, &key, 90);
    home.advance_clock(days(80)).unwrap();
    run(&call, kms::schedule_key_deletion, json!({"KeyId": key, "PendingWindowInDays": 30})).unwrap();
    assert_eq!(status(&call, &key), json!({"KeyRotationEnabled": false, "KeyId": key}));
    home.advance_clock(days(20)).unwrap();
    run(&call, kms::cancel_key_deletion, json!({"KeyId": key})).unwrap();
    assert_eq!(rotations(&call, &key).len(), 0);
    assert_eq!(status(&call, &key)["RotationPeriodInDays"], 90);
    run(&call, kms::enable_key, json!({"KeyId": key})).unwrap();
    assert_eq!(rotations(&call, &key).len(), 1);
}

#[test]
fn rotation_is_switched_on_and_off() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    assert_eq!(status(&call, &key), json!({"KeyRotationEnabled": false, "KeyId": key}));
    run(&call, kms::enable_key_rotation, json!({"KeyId": key})).unwrap();
    assert_eq!(status(&call, &key)["RotationPeriodInDays"], 365);
    let planned = status(&call, &key)["NextRotationDate"].clone();
    run(&call, kms::rotate_key_on_demand, json!({"KeyId": key})).unwrap();
    assert_eq!(status(&call, &key)["NextRotationDate"], planned, "on demand leaves the schedule alone");
    run(&call, kms::disable_key_rotation, json!({"KeyId": key})).unwrap();
    home.advance_clock(days(800)).unwrap();
    assert_eq!(rotations(&call, &key).len(), 1);
    for (period, bound) in [(89, "greater than or equal to 90"), (2561, "less than or equal to 2560")] {
        let request = json!({"KeyId": key, "RotationPeriodInDays": period});
        let wanted = format!(
            "1 validation error detected: Value '{period}' at 'rotationPeriodInDays' failed to satisfy constraint: \
             Member must have value {bound}"
        );
        assert_eq!(refused(run(&call, kms::enable_key_rotation, request)), ("ValidationException", wanted));
    }
    for period in [90, 2560] {
        enable(&call, &key, period);
    }
    let missing = format!("Key 'arn:aws:kms:us-east-1:123456789012:key/{KEY_OF_NOBODY}' does not exist");
    let request = json!({"KeyId": KEY_OF_NOBODY});
    assert_eq!(refused(run(&call, kms::rotate_key_on_demand, request)), ("NotFoundException", missing));
}

#[test]
fn a_key_is_rotated_on_demand_twenty_five_times_at_most() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    for _ in 0..25 {
        run(&call, kms::rotate_key_on_demand, json!({"KeyId": key})).unwrap();
    }
    let wanted = format!(
        "The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be \
         performed for this key: {key}"
    );
    assert_eq!(
        refused(run(&call, kms::rotate_key_on_demand, json!({"KeyId": key}))),
        ("LimitExceededException", wanted)
    );
    enable(&call, &key, 90);
    home.advance_clock(days(90)).unwrap();
    assert_eq!(rotations(&call, &key).len(), 26, "automatic ones do not count");
}

#[test]
fn rotations_come_in_pages_and_with_all_material_when_asked() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let first = current(&call, &key);
    for _ in 0..5 {
        run(&call, kms::rotate_key_on_demand, json!({"KeyId": key})).unwrap();
    }
    for (include, count) in [("ROTATIONS_ONLY", 5), ("ALL_KEY_MATERIAL", 6)] {
        for limit in 1..=7 {
            let mut request = json!({"KeyId": key, "Limit": limit, "IncludeKeyMaterial": include});
            let mut seen = Vec::new();
            loop {
                let page = run(&call, kms::list_key_rotations, request.clone()).unwrap();
                seen.extend(page["Rotations"].as_array().unwrap().clone());
                match page.get("NextMarker") {
                    Some(marker) => request["Marker"] = marker.clone(),
                    None => break,
                }
            }
            assert_eq!(seen.len(), count, "{include} in pages of {limit}");
            assert!(seen.iter().all(|entry| entry["KeyId"] == key.as_str()));
        }
    }
    let request = json!({"KeyId": key, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"});
    let all = run(&call, kms::list_key_rotations, request).unwrap();
    let entry = json!({"KeyId": key, "KeyMaterialId": first, "KeyMaterialState": "NON_CURRENT"});
    assert_eq!(all["Rotations"][0], entry, "the first material came by no rotation");
    let request = json!({"KeyId": key, "IncludeKeyMaterial": "SOME"});
    assert_eq!(refused(run(&call, kms::list_key_rotations, request)).0, "ValidationException");
    let request = json!({"KeyId": key, "Marker": "made up"});
    assert_eq!(refused(run(&call, kms::list_key_rotations, request)).0, "InvalidMarkerException");
}

#[test]
fn managed_keys_are_rotated_yearly_and_nobody_changes_that() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = kms::managed_key(&call, kms::ManagedAlias::Ebs).unwrap();
    assert_eq!(status(&call, &key)["RotationPeriodInDays"], 365);
    for refusal in [
        refused(run(&call, kms::disable_key_rotation, json!({"KeyId": key}))),
        refused(run(&call, kms::enable_key_rotation, json!({"KeyId": key}))),
        refused(run(&call, kms::rotate_key_on_demand, json!({"KeyId": key}))),
    ] {
        assert_eq!(refusal.0, "AccessDeniedException");
    }
    let first = current(&call, &key);
    home.advance_clock(days(365)).unwrap();
    assert_ne!(current(&call, &key), first);
}

/// Without the root key nothing can be sealed: the rotation waits, everything that needs no key works, and nothing is lost.
#[test]
fn a_rotation_waits_for_the_root_key() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    enable(&call, &key, 90);
    let first = current(&call, &key);
    let file = home.dir().path_of("root.key");
    let kept = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    home.advance_clock(days(90)).unwrap();
    assert_eq!(current(&call, &key), first);
    std::fs::write(&file, kept).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_ne!(current(&call, &key), first);
    assert_eq!(rotations(&call, &key).len(), 1);
}

//! Multi-Region keys: related keys that share material and rotation, and are keys of their own in everything else.

use blockseal::gate::{Call, ServiceError};
use blockseal::kms;
use blockseal::store::Home;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::kms::{new_key, refused, root, run, temporary};

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn in_region<'h>(home: &'h Home, region: &str) -> Call<'h> {
    Call::direct(home, "arn:aws:iam::123456789012:root".parse().unwrap(), region.parse().unwrap())
}

/// A primary key in us-east-1 with a replica in eu-west-1: their ARNs.
fn related(home: &Home) -> (String, String) {
    let call = root(home);
    let made = run(&call, kms::create_key, json!({"MultiRegion": true, "Description": "shared"})).unwrap();
    let primary = made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    let replica = run(&call, kms::replicate_key, json!({"KeyId": primary, "ReplicaRegion": "eu-west-1"})).unwrap();
    (primary, replica["ReplicaKeyMetadata"]["Arn"].as_str().unwrap().to_owned())
}

fn describe(call: &Call<'_>, key: &str) -> Value {
    run(call, kms::describe_key, json!({"KeyId": key})).unwrap()["KeyMetadata"].clone()
}

fn encrypt(call: &Call<'_>, key: &str) -> Value {
    run(call, kms::encrypt, json!({"KeyId": key, "Plaintext": "eA=="})).unwrap()["CiphertextBlob"].clone()
}

fn decrypt(call: &Call<'_>, blob: &Value) -> Result<Value, ServiceError> {
    run(call, kms::decrypt, json!({"CiphertextBlob": blob}))
}

fn recorded(call: &Call<'_>, name: &str) -> Vec<Value> {
    let asked = json!({"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": name}]});
    let events = blockseal::cloudtrail::lookup_events(call, serde_json::from_value(asked).unwrap()).unwrap().events;
    events.iter().map(|event| serde_json::from_str(&event.cloud_trail_event).unwrap()).collect()
}

#[test]
fn a_blob_made_in_one_region_decrypts_in_the_other() {
    let (_base, home) = temporary();
    let (here, there) = (root(&home), in_region(&home, "eu-west-1"));
    let (primary, replica) = related(&home);
    let id = primary.rsplit('/').next().unwrap();
    assert!(id.starts_with("mrk-") && id.len() == 36);
    assert_eq!(replica, format!("arn:aws:kms:eu-west-1:123456789012:key/{id}"));
    for (from, key, to, other) in [(&here, &primary, &there, &replica), (&there, &replica, &here, &primary)] {
        let blob = encrypt(from, key);
        let answer = decrypt(to, &blob).unwrap();
        assert_eq!((&answer["Plaintext"], &answer["KeyId"]), (&json!("eA=="), &json!(other)));
        run(to, kms::decrypt, json!({"CiphertextBlob": blob, "KeyId": id})).unwrap();
    }
    let elsewhere = in_region(&home, "us-west-2");
    assert_eq!(refused(decrypt(&elsewhere, &encrypt(&here, &primary))).0, "AccessDeniedException");
    assert_eq!(refused(run(&elsewhere, kms::describe_key, json!({"KeyId": id}))).0, "NotFoundException");
}

#[test]
fn related_keys_know_each_other_and_are_otherwise_their_own() {
    let (_base, home) = temporary();
    let (here, there) = (root(&home), in_region(&home, "eu-west-1"));
    let (primary, replica) = related(&home);
    let of = |arn: &str, region: &str| json!({"Arn": arn, "Region": region});
    for (call, key, kind) in [(&here, &primary, "PRIMARY"), (&there, &replica, "REPLICA")] {
        let described = describe(call, key);
        assert_eq!(described["MultiRegion"], true);
        assert_eq!(
            described["MultiRegionConfiguration"],
            json!({
                "MultiRegionKeyType": kind, "PrimaryKey": of(&primary, "us-east-1"),
                "ReplicaKeys": [of(&replica, "eu-west-1")],
            })
        );
    }
    assert_eq!(describe(&here, &primary)["CurrentKeyMaterialId"], describe(&there, &replica)["CurrentKeyMaterialId"]);
    assert_eq!(
        (&describe(&here, &primary)["Description"], &describe(&there, &replica)["Description"]),
        (&json!("shared"), &json!(""))
    );
    run(&there, kms::create_alias, json!({"AliasName": "alias/app", "TargetKeyId": replica})).unwrap();
    let alias = run(&there, kms::list_aliases, json!({"KeyId": replica})).unwrap()["Aliases"][0].clone();
    assert_eq!(alias["TargetKeyId"], replica.rsplit('/').next().unwrap());
    assert_eq!(run(&here, kms::list_aliases, json!({"KeyId": primary})).unwrap()["Aliases"], json!([]));
    let tag = json!({"KeyId": replica, "Tags": [{"TagKey": "a", "TagValue": "b"}]});
    run(&there, kms::tag_resource, tag).unwrap();
    assert_eq!(run(&here, kms::list_resource_tags, json!({"KeyId": primary})).unwrap()["Tags"], json!([]));
    let grant =
        json!({"KeyId": replica, "GranteePrincipal": "arn:aws:iam::123456789012:user/a", "Operations": ["Decrypt"]});
    run(&there, kms::create_grant, grant).unwrap();
    assert_eq!(
        run(&there, kms::list_grants, json!({"KeyId": replica})).unwrap()["Grants"][0]["KeyId"],
        replica.as_str()
    );
    assert_eq!(run(&here, kms::list_grants, json!({"KeyId": primary})).unwrap()["Grants"], json!([]));
    run(&there, kms::disable_key, json!({"KeyId": replica})).unwrap();
    assert_eq!(describe(&here, &primary)["KeyState"], "Enabled");
    let keys = run(&there, kms::list_keys, json!({})).unwrap()["Keys"].clone();
    assert_eq!(keys, json!([{"KeyId": replica.rsplit('/').next(), "KeyArn": replica}]));
}

#[test]
fn rotation_is_shared() {
    let (_base, home) = temporary();
    let (here, there) = (root(&home), in_region(&home, "eu-west-1"));
    let (primary, replica) = related(&home);
    let old = encrypt(&there, &replica);
    run(&here, kms::rotate_key_on_demand, json!({"KeyId": primary})).unwrap();
    run(&here, kms::enable_key_rotation, json!({"KeyId": primary, "RotationPeriodInDays": 90})).unwrap();
    let status = |call: &Call<'_>, key: &str| {
        let status = run(call, kms::get_key_rotation_status, json!({"KeyId": key})).unwrap();
        (status["KeyRotationEnabled"].clone(), status["NextRotationDate"].clone())
    };
    assert_eq!(status(&there, &replica), status(&here, &primary));
    home.advance_clock(days(90)).unwrap();
    for (call, key) in [(&here, &primary), (&there, &replica)] {
        let listed = run(call, kms::list_key_rotations, json!({"KeyId": key})).unwrap()["Rotations"].clone();
        assert_eq!(listed.as_array().unwrap().len(), 2);
        assert_eq!(listed[1]["KeyMaterialId"], describe(call, key)["CurrentKeyMaterialId"]);
    }
    assert_eq!(decrypt(&here, &old).unwrap()["Plaintext"], "eA==");
    assert_eq!(decrypt(&here, &encrypt(&there, &replica)).unwrap()["Plaintext"], "eA==");
    for refusal in [
        refused(run(&there, kms::enable_key_rotation, json!({"KeyId": replica}))),
        refused(run(&there, kms::disable_key_rotation, json!({"KeyId": replica}))),
        refused(run(&there, kms::rotate_key_on_demand, json!({"KeyId": replica}))),
    ] {
        assert_eq!(refusal.0, "UnsupportedOperationException");
    }
    // A replica that is made later has all of the past.
    run(&here, kms::replicate_key, json!({"KeyId": primary, "ReplicaRegion": "ap-southeast-2"})).unwrap();
    assert_eq!(decrypt(&in_region(&home, "ap-southeast-2"), &old).unwrap()["Plaintext"], "eA==");
}

#[test]
fn a_primary_is_deleted_after_its_last_replica() {
    let (_base, home) = temporary();
    let (here, there) = (root(&home), in_region(&home, "eu-west-1"));
    let (primary, replica) = related(&home);
    let blob = encrypt(&here, &primary);
    let scheduled =
        run(&here, kms::schedule_key_deletion, json!({"KeyId": primary, "PendingWindowInDays": 7})).unwrap();
    assert_eq!(scheduled, json!({"KeyId": primary, "KeyState": "PendingReplicaDeletion", "PendingWindowInDays": 7}));
    let described = describe(&here, &primary);
    assert_eq!(described["PendingDeletionWindowInDays"], 7);
    assert!(described.get("DeletionDate").is_none());
    assert_eq!(
        refused(decrypt(&here, &blob)),
        ("KMSInvalidStateException", format!("{primary} is pending replica deletion."))
    );
    home.advance_clock(days(100)).unwrap();
    assert_eq!(decrypt(&there, &blob).unwrap()["Plaintext"], "eA==", "the replica goes on");
    run(&there, kms::schedule_key_deletion, json!({"KeyId": replica, "PendingWindowInDays": 10})).unwrap();
    home.advance_clock(days(10)).unwrap();
    assert_eq!(describe(&here, &primary)["KeyState"], "PendingDeletion", "its window begins now");
    run(&here, kms::cancel_key_deletion, json!({"KeyId": primary})).unwrap();
    run(&here, kms::enable_key, json!({"KeyId": primary})).unwrap();
    assert_eq!(decrypt(&here, &blob).unwrap()["Plaintext"], "eA==");
    assert_eq!(refused(decrypt(&there, &blob)).0, "AccessDeniedException");
    run(&here, kms::schedule_key_deletion, json!({"KeyId": primary, "PendingWindowInDays": 7})).unwrap();
    home.advance_clock(days(7)).unwrap();
    assert_eq!(refused(decrypt(&here, &blob)).0, "AccessDeniedException");
}

#[test]
fn the_primary_can_move() {
    let (_base, home) = temporary();
    let (here, there) = (root(&home), in_region(&home, "eu-west-1"));
    let (primary, replica) = related(&home);
    run(&here, kms::enable_key_rotation, json!({"KeyId": primary})).unwrap();
    let update = |call: &Call<'_>, key: &str, region: &str| {
        run(call, kms::update_primary_region, json!({"KeyId": key, "PrimaryRegion": region}))
    };
    let missing = primary.replace("us-east-1", "us-west-2");
    assert_eq!(
        refused(update(&here, &primary, "us-west-2")),
        ("NotFoundException", format!("Key '{missing}' does not exist"))
    );
    assert_eq!(refused(update(&there, &replica, "us-east-1")).0, "UnsupportedOperationException");
    assert_eq!(refused(update(&here, &primary, "nowhere")).0, "ValidationException");
    run(&there, kms::disable_key, json!({"KeyId": replica})).unwrap();
    assert_eq!(refused(update(&here, &primary, "eu-west-1")), ("DisabledException", format!("{replica} is disabled.")));
    run(&there, kms::enable_key, json!({"KeyId": replica})).unwrap();
    update(&here, &primary, "eu-west-1").unwrap();
    let kind =
        |call: &Call<'_>, key: &str| describe(call, key)["MultiRegionConfiguration"]["MultiRegionKeyType"].clone();
    assert_eq!((kind(&here, &primary), kind(&there, &replica)), (json!("REPLICA"), json!("PRIMARY")));
    let status = run(&there, kms::get_key_rotation_status, json!({"KeyId": replica})).unwrap();
    assert_eq!(status["KeyRotationEnabled"], true, "the rotation went with it");
    run(&there, kms::rotate_key_on_demand, json!({"KeyId": replica})).unwrap();
    assert_eq!(decrypt(&here, &encrypt(&there, &replica)).unwrap()["Plaintext"], "eA==");
    for (call, arn) in [(&here, &primary), (&there, &replica)] {
        let records = recorded(call, "UpdatePrimaryRegion");
        assert_eq!(records[0]["responseElements"], json!({"keyId": arn}));
        assert_eq!(records[0]["awsRegion"], call.region.as_str());
        assert_eq!(records[0]["resources"][0]["ARN"], arn.as_str());
    }
    // The first row can go, and its Region gets a replica again.
    run(&here, kms::schedule_key_deletion, json!({"KeyId": primary, "PendingWindowInDays": 7})).unwrap();
    home.advance_clock(days(7)).unwrap();
    run(&there, kms::replicate_key, json!({"KeyId": replica, "ReplicaRegion": "us-east-1"})).unwrap();
    assert_eq!(decrypt(&here, &encrypt(&there, &replica)).unwrap()["Plaintext"], "eA==");
}

#[test]
fn replicating_leaves_a_record_in_each_region_and_is_refused_where_it_cannot_be() {
    let (_base, home) = temporary();
    let (here, there) = (root(&home), in_region(&home, "eu-west-1"));
    let (primary, replica) = related(&home);
    let replicated = recorded(&here, "ReplicateKey");
    assert_eq!(replicated[0]["responseElements"]["replicaKeyMetadata"]["arn"], replica.as_str());
    let made = recorded(&there, "CreateKey");
    assert_eq!((made.len(), &made[0]["resources"][0]["ARN"]), (1, &json!(replica)));
    assert_eq!(made[0]["requestID"], replicated[0]["requestID"]);
    let replicate = |call: &Call<'_>, key: &str, region: &str| {
        refused(run(call, kms::replicate_key, json!({"KeyId": key, "ReplicaRegion": region})))
    };
    assert_eq!(replicate(&here, &primary, "eu-west-1").0, "AlreadyExistsException");
    assert_eq!(replicate(&here, &primary, "us-east-1").0, "AlreadyExistsException");
    assert_eq!(replicate(&there, &replica, "us-west-2").0, "UnsupportedOperationException");
    assert_eq!(replicate(&here, &new_key(&here), "us-west-2").0, "UnsupportedOperationException");
    assert_eq!(replicate(&here, &primary, "Mars").0, "ValidationException");
    assert_eq!(recorded(&there, "CreateKey").len(), 1, "a refusal leaves nothing elsewhere");
    run(&here, kms::disable_key, json!({"KeyId": primary})).unwrap();
    assert_eq!(replicate(&here, &primary, "us-west-2"), ("DisabledException", format!("{primary} is disabled.")));
}

/// An imported multi-Region key has its material in each Region by an import of its own.
#[test]
fn a_replica_of_an_imported_key_waits_for_the_same_material() {
    let (_base, home) = temporary();
    let (here, there) = (root(&home), in_region(&home, "eu-west-1"));
    let made = run(&here, kms::create_key, json!({"Origin": "EXTERNAL", "MultiRegion": true})).unwrap();
    let primary = made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    let import = crate::kms_import::import;
    import(&here, &primary, &[1; 32], json!({})).unwrap();
    let answer = run(&here, kms::replicate_key, json!({"KeyId": primary, "ReplicaRegion": "eu-west-1"})).unwrap();
    let replica = answer["ReplicaKeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    assert_eq!(answer["ReplicaKeyMetadata"]["KeyState"], "PendingImport");
    assert_eq!(refused(import(&there, &replica, &[2; 32], json!({}))).0, "IncorrectKeyMaterialException");
    let new = json!({"ImportType": "NEW_KEY_MATERIAL"});
    assert_eq!(refused(import(&there, &replica, &[1; 32], new.clone())).0, "IncorrectKeyMaterialException");
    import(&there, &replica, &[1; 32], json!({})).unwrap();
    let old = encrypt(&here, &primary);
    assert_eq!(decrypt(&there, &old).unwrap()["Plaintext"], "eA==");
    // New material is in the primary first, then in the replica; only then can the key be rotated to it.
    import(&here, &primary, &[2; 32], new).unwrap();
    let rotate = || run(&here, kms::rotate_key_on_demand, json!({"KeyId": primary}));
    assert_eq!(refused(rotate()).0, "KMSInvalidStateException");
    import(&there, &replica, &[2; 32], json!({})).unwrap();
    rotate().unwrap();
    assert_eq!(describe(&here, &primary)["CurrentKeyMaterialId"], describe(&there, &replica)["CurrentKeyMaterialId"]);
    let new = encrypt(&there, &replica);
    for blob in [&old, &new] {
        assert_eq!(decrypt(&here, blob).unwrap()["Plaintext"], "eA==");
        assert_eq!(decrypt(&there, blob).unwrap()["Plaintext"], "eA==");
    }
}

//! KMS through its public operations: limits and their wording, names, paging, aliases, grants, dry runs, crashes.

use blockseal::cloudtrail::{self, LookupEventsRequest};
use blockseal::gate::{Call, ServiceError};
use blockseal::kms;
use blockseal::store::Home;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub const KEY_OF_NOBODY: &str = "00000000-0000-0000-0000-000000000000";

pub fn temporary() -> (tempfile::TempDir, Home) {
    let base = tempfile::tempdir().unwrap();
    let home = Home::open(&base.path().join("home")).unwrap();
    (base, home)
}

pub fn root(home: &Home) -> Call<'_> {
    Call::direct(home, "arn:aws:iam::123456789012:root".parse().unwrap(), "us-east-1".parse().unwrap())
}

/// Runs an operation on a request in JSON and gives its answer in JSON, as a front end does.
pub fn run<Q: DeserializeOwned, R: serde::Serialize>(
    call: &Call<'_>,
    operation: fn(&Call<'_>, Q) -> Result<R, ServiceError>,
    request: Value,
) -> Result<Value, ServiceError> {
    operation(call, serde_json::from_value(request).unwrap()).map(|answer| serde_json::to_value(answer).unwrap())
}

pub fn refused(outcome: Result<Value, ServiceError>) -> (&'static str, String) {
    let error = outcome.expect_err("it is refused");
    (error.code(), error.message())
}

pub fn new_key(call: &Call<'_>) -> String {
    run(call, kms::create_key, json!({})).unwrap()["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
}

#[test]
fn the_contexts_of_the_kms_guide_work_verbatim() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    for context in [
        r#"{"aws:rds:db-id": "db-CQYSMDPBRZ7BPMH7Y3RTDG5QY"}"#,
        r#"{"aws:rds:db-id": "db-BRG7VYS3SVIFQW7234EJQOM5RQ", "aws:ebs:id": "vol-ad8c6542"}"#,
    ] {
        let context: Value = serde_json::from_str(context).unwrap();
        let request = json!({"KeyId": key, "Plaintext": "c2VjcmV0", "EncryptionContext": context});
        let blob = run(&call, kms::encrypt, request).unwrap()["CiphertextBlob"].clone();
        let request = json!({"CiphertextBlob": blob, "EncryptionContext": context});
        let answer = run(&call, kms::decrypt, request).unwrap();
        assert_eq!((&answer["Plaintext"], &answer["KeyId"]), (&json!("c2VjcmV0"), &json!(key)));
        let mut pairs: Vec<_> = context.as_object().unwrap().clone().into_iter().collect();
        pairs.reverse();
        let reordered: serde_json::Map<_, _> = pairs.into_iter().collect();
        let request = json!({"CiphertextBlob": blob, "EncryptionContext": reordered});
        run(&call, kms::decrypt, request).unwrap();
        for wrong in [json!({}), json!({"aws:rds:db-id": "db-cqysmdpbrz7bpmh7y3rtdg5qy"}), json!({"other": "x"})] {
            let request = json!({"CiphertextBlob": blob, "EncryptionContext": wrong});
            assert_eq!(refused(run(&call, kms::decrypt, request)), ("InvalidCiphertextException", String::new()));
        }
    }
}

/// Key id and version included: a flipped bit is a damaged ciphertext, never an unknown or another key.
#[test]
fn every_flipped_bit_and_every_cut_of_a_blob_is_an_invalid_ciphertext() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let made: kms::EncryptResponse =
        kms::encrypt(&call, serde_json::from_value(json!({"KeyId": key, "Plaintext": "eA=="})).unwrap()).unwrap();
    let blob = made.ciphertext_blob.0;
    let decrypt = |blob: Vec<u8>| {
        let request = kms::DecryptRequest { ciphertext_blob: kms::Blob(blob), ..Default::default() };
        kms::decrypt(&call, request).map(|answer| answer.plaintext.0.expose().to_vec())
    };
    assert_eq!(decrypt(blob.clone()).unwrap(), b"x");
    let flipped = (0..blob.len() * 8).map(|bit| {
        let mut changed = blob.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    });
    let cut = (1..blob.len()).map(|length| blob[..length].to_vec());
    let extended = (1..4).map(|more| [blob.clone(), vec![0; more]].concat());
    for changed in flipped.chain(cut).chain(extended) {
        let error = decrypt(changed).unwrap_err();
        assert_eq!((error.code(), error.message().as_str()), ("InvalidCiphertextException", ""));
    }
}

#[test]
fn parameters_outside_their_limits_are_refused_in_awss_words() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let long = "x".repeat(2049);
    let generate = |more: Value| {
        let mut request = json!({"KeyId": key});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused(run(&call, kms::generate_data_key, request))
    };
    let invalid = |message: &str| ("ValidationException", message.to_owned());
    assert_eq!(
        generate(json!({"NumberOfBytes": 1025})),
        invalid(
            "1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must \
             have value less than or equal to 1024"
        )
    );
    assert_eq!(
        generate(json!({"NumberOfBytes": 0})),
        invalid(
            "1 validation error detected: Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have \
             value greater than or equal to 1"
        )
    );
    assert_eq!(
        generate(json!({"KeySpec": "AES_512"})),
        invalid(
            "1 validation error detected: Value 'AES_512' at 'keySpec' failed to satisfy constraint: Member must \
             satisfy enum value set: [AES_256, AES_128]"
        )
    );
    let both = invalid("Please specify either number of bytes or key spec.");
    assert_eq!(generate(json!({})), both);
    assert_eq!(generate(json!({"KeySpec": "AES_256", "NumberOfBytes": 32})), both);
    assert_eq!(
        generate(json!({"KeyId": long, "NumberOfBytes": -1})),
        invalid(&format!(
            "2 validation errors detected: Value '{long}' at 'keyId' failed to satisfy constraint: Member must have \
             length less than or equal to 2048; Value '-1' at 'numberOfBytes' failed to satisfy constraint: Member \
             must have value greater than or equal to 1"
        ))
    );
    let plaintext = |bytes: usize| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(vec![7; bytes])
    };
    let encrypt = |bytes| run(&call, kms::encrypt, json!({"KeyId": key, "Plaintext": plaintext(bytes)}));
    assert_eq!(
        refused(encrypt(4097)),
        invalid(
            "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length \
             less than or equal to 4096"
        )
    );
    assert_eq!(refused(encrypt(0)).0, "ValidationException");
    let largest = encrypt(4096).unwrap();
    let answer = run(&call, kms::decrypt, json!({"CiphertextBlob": largest["CiphertextBlob"]})).unwrap();
    assert_eq!(answer["Plaintext"], plaintext(4096));
    for days in [6, 31] {
        let request = json!({"KeyId": key, "PendingWindowInDays": days});
        let (code, message) = refused(run(&call, kms::schedule_key_deletion, request));
        assert_eq!(code, "ValidationException");
        assert!(message.contains(&format!("Value '{days}' at 'pendingWindowInDays'")), "{message}");
    }
    let context: serde_json::Map<_, _> = (0..100).map(|n| (format!("{n:04}"), json!("x".repeat(78)))).collect();
    let request = json!({"KeyId": key, "Plaintext": "eA==", "EncryptionContext": context});
    assert_eq!(refused(run(&call, kms::encrypt, request)).0, "ValidationException");
}

#[test]
fn data_keys_have_the_length_that_was_asked_for() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    for (ask, bytes) in [
        (json!({"KeySpec": "AES_128"}), 16),
        (json!({"KeySpec": "AES_256"}), 32),
        (json!({"NumberOfBytes": 64}), 64),
        (json!({"NumberOfBytes": 1}), 1),
        (json!({"NumberOfBytes": 1024}), 1024),
    ] {
        let mut request = ask.clone();
        request["KeyId"] = json!(key);
        let with: kms::GenerateDataKeyResponse =
            kms::generate_data_key(&call, serde_json::from_value(request.clone()).unwrap()).unwrap();
        let opened = kms::decrypt(
            &call,
            kms::DecryptRequest { ciphertext_blob: with.ciphertext_blob.clone(), ..Default::default() },
        )
        .unwrap();
        assert_eq!(with.plaintext.0.len(), bytes);
        assert!(opened.plaintext.0.ct_eq(with.plaintext.0.expose()));
        assert_eq!(opened.key_material_id, with.key_material_id);
        let without = run(&call, kms::generate_data_key_without_plaintext, request).unwrap();
        assert!(without.get("Plaintext").is_none());
    }
}

#[test]
fn a_key_goes_by_its_id_arn_alias_and_alias_arn_and_by_nothing_else() {
    let (_base, home) = temporary();
    let call = root(&home);
    let arn = new_key(&call);
    let id = arn.rsplit('/').next().unwrap();
    run(&call, kms::create_alias, json!({"AliasName": "alias/app", "TargetKeyId": id})).unwrap();
    for name in [&arn, id, "alias/app", "arn:aws:kms:us-east-1:123456789012:alias/app"] {
        let answer = run(&call, kms::describe_key, json!({"KeyId": name})).unwrap();
        assert_eq!(answer["KeyMetadata"]["Arn"], arn.as_str());
    }
    let not_found = |name: &str| {
        let (code, message) = refused(run(&call, kms::describe_key, json!({"KeyId": name})));
        assert_eq!(code, "NotFoundException");
        message
    };
    assert_eq!(not_found("fake-key-id"), "Invalid keyId 'fake-key-id'");
    assert_eq!(not_found("mrk-fake-key-id"), "Invalid keyId 'mrk-fake-key-id'");
    assert_eq!(not_found(&id.replace('-', "")), format!("Invalid keyId '{}'", id.replace('-', "")));
    let missing = format!("Key 'arn:aws:kms:us-east-1:123456789012:key/{KEY_OF_NOBODY}' does not exist");
    assert_eq!(not_found(KEY_OF_NOBODY), missing);
    assert_eq!(not_found(&format!("arn:aws:kms:us-east-1:123456789012:key/{KEY_OF_NOBODY}")), missing);
    assert_eq!(not_found(&arn.replace("us-east-1", "eu-west-1")), "Invalid arn eu-west-1");
    assert_eq!(not_found("alias/none"), "Alias arn:aws:kms:us-east-1:123456789012:alias/none is not found.");
    let elsewhere = Call { region: "eu-west-1".parse().unwrap(), ..root(&home) };
    let missing = format!("Key 'arn:aws:kms:eu-west-1:123456789012:key/{id}' does not exist");
    assert_eq!(refused(run(&elsewhere, kms::describe_key, json!({"KeyId": id}))), ("NotFoundException", missing));
}

#[test]
fn a_new_key_is_described_with_the_members_that_aws_gives() {
    let (_base, home) = temporary();
    let call = root(&home);
    let request = json!({"Description": "test key 123", "Tags": [{"TagKey": "team", "TagValue": "db"}]});
    let made = run(&call, kms::create_key, request).unwrap();
    let metadata = &made["KeyMetadata"];
    let mut members: Vec<_> = metadata.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(
        members,
        [
            "AWSAccountId",
            "Arn",
            "CreationDate",
            "CurrentKeyMaterialId",
            "CustomerMasterKeySpec",
            "Description",
            "Enabled",
            "EncryptionAlgorithms",
            "KeyId",
            "KeyManager",
            "KeySpec",
            "KeyState",
            "KeyUsage",
            "MultiRegion",
            "Origin"
        ]
    );
    assert_eq!(metadata["Description"], "test key 123");
    assert_eq!(run(&call, kms::describe_key, json!({"KeyId": metadata["KeyId"]})).unwrap(), made);
}

#[test]
fn keys_that_are_not_supported_are_refused_by_name() {
    let (_base, home) = temporary();
    let call = root(&home);
    let create = |request: Value| refused(run(&call, kms::create_key, request));
    for request in [json!({"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}), json!({"Origin": "AWS_CLOUDHSM"})] {
        assert_eq!(create(request).0, "UnsupportedOperationException");
    }
    let default = r#"{"Version":"2012-10-17","Id":"key-default-1","Statement":[{"Sid":"Enable IAM User Permissions",
        "Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"kms:*","Resource":"*"}]}"#;
    run(&call, kms::create_key, json!({"Policy": default})).unwrap();
    let empty = json!({"Policy": r#"{"Version":"2012-10-17","Statement":[]}"#});
    assert_eq!(create(empty).0, "MalformedPolicyDocumentException");
    let (code, message) = create(json!({"KeyUsage": "RANDOM"}));
    assert_eq!(code, "ValidationException");
    assert!(message.contains("at 'keyUsage' failed to satisfy constraint: Member must satisfy enum value set: ["));
    let duplicate = json!({"Tags": [{"TagKey": "a", "TagValue": "1"}, {"TagKey": "a", "TagValue": "2"}]});
    assert_eq!(create(duplicate).0, "TagException");
}

#[test]
fn a_named_key_must_be_the_blobs() {
    let (_base, home) = temporary();
    let call = root(&home);
    let (key, other) = (new_key(&call), new_key(&call));
    let blob = run(&call, kms::encrypt, json!({"KeyId": key, "Plaintext": "eA=="})).unwrap()["CiphertextBlob"].clone();
    run(&call, kms::decrypt, json!({"CiphertextBlob": blob, "KeyId": key})).unwrap();
    assert_eq!(
        refused(run(&call, kms::decrypt, json!({"CiphertextBlob": blob, "KeyId": other}))),
        (
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.".to_owned()
        )
    );
    let request = json!({"CiphertextBlob": blob, "SourceKeyId": other, "DestinationKeyId": other});
    assert_eq!(refused(run(&call, kms::re_encrypt, request)).0, "IncorrectKeyException");
    let request =
        json!({"CiphertextBlob": blob, "DestinationKeyId": other, "DestinationEncryptionContext": {"a": "b"}});
    let moved = run(&call, kms::re_encrypt, request).unwrap();
    assert_eq!((&moved["SourceKeyId"], &moved["KeyId"]), (&json!(key), &json!(other)));
    let request = json!({"CiphertextBlob": moved["CiphertextBlob"], "EncryptionContext": {"a": "b"}});
    assert_eq!(run(&call, kms::decrypt, request).unwrap()["Plaintext"], "eA==");
    let garbled = json!({"CiphertextBlob": "bm90IGEgYmxvYg=="});
    assert_eq!(refused(run(&call, kms::decrypt, garbled)), ("InvalidCiphertextException", String::new()));
}

#[test]
fn lists_come_in_pages() {
    let (_base, home) = temporary();
    let call = root(&home);
    let mut keys: Vec<_> = (0..7).map(|_| new_key(&call)).collect();
    for (index, key) in keys.iter().enumerate() {
        let name = format!("alias/{}{index}", if index % 2 == 0 { "a" } else { "b" });
        run(&call, kms::create_alias, json!({"AliasName": name, "TargetKeyId": key})).unwrap();
    }
    keys.sort();
    let collect = |list: &dyn Fn(Value) -> Value, items: &str, name: &str, limit: usize| {
        let mut seen = Vec::new();
        let mut request = json!({"Limit": limit});
        loop {
            let page = list(request.clone());
            let page_items = page[items].as_array().unwrap();
            seen.extend(page_items.iter().map(|item| item[name].as_str().unwrap().to_owned()));
            assert_eq!(page["Truncated"] == json!(true), page.get("NextMarker").is_some());
            match page.get("NextMarker") {
                Some(marker) => request["Marker"] = marker.clone(),
                None => return seen,
            }
            assert_eq!(page_items.len(), limit);
        }
    };
    for limit in 1..=9 {
        let list = |request| run(&call, kms::list_keys, request).unwrap();
        assert_eq!(collect(&list, "Keys", "KeyArn", limit), keys);
        let list = |request| run(&call, kms::list_aliases, request).unwrap();
        let names = collect(&list, "Aliases", "AliasName", limit);
        let wanted = ["a0", "a2", "a4", "a6", "aws/ebs", "aws/rds", "b1", "b3", "b5"];
        assert_eq!(names, wanted.map(|name| format!("alias/{name}")), "pages of {limit}");
    }
    let (code, message) = refused(run(&call, kms::list_keys, json!({"Marker": "made up"})));
    assert_eq!((code, message.as_str()), ("InvalidMarkerException", "Could not deserialize marker 'made up'"));
    assert_eq!(refused(run(&call, kms::list_keys, json!({"Limit": 0}))).0, "ValidationException");
    assert_eq!(refused(run(&call, kms::list_keys, json!({"Limit": 1001}))).0, "ValidationException");
}

#[test]
fn predefined_aliases_stand_for_nothing_until_they_are_needed() {
    let (_base, home) = temporary();
    let call = root(&home);
    let aliases = |call: &Call<'_>| run(call, kms::list_aliases, json!({})).unwrap()["Aliases"].clone();
    let arn = |name: &str| format!("arn:aws:kms:us-east-1:123456789012:alias/aws/{name}");
    let bare = |name: &str| json!({"AliasName": format!("alias/aws/{name}"), "AliasArn": arn(name)});
    assert_eq!(aliases(&call), json!([bare("ebs"), bare("rds")]));
    let key = kms::managed_key(&call, kms::ManagedAlias::Ebs).unwrap();
    assert!(key.ends_with(aliases(&call)[0]["TargetKeyId"].as_str().unwrap()));
    assert_eq!(aliases(&call)[1], bare("rds"));
    let described = run(&call, kms::describe_key, json!({"KeyId": "alias/aws/rds"})).unwrap();
    assert_eq!(described["KeyMetadata"]["KeyManager"], "AWS");
    assert_eq!(aliases(&call)[1]["TargetKeyId"], described["KeyMetadata"]["KeyId"]);
    for name in ["alias/aws/ebs", "alias/aws/new"] {
        let request = json!({"AliasName": name, "TargetKeyId": new_key(&call)});
        assert_eq!(refused(run(&call, kms::create_alias, request.clone())).0, "NotAuthorizedException");
        assert_eq!(refused(run(&call, kms::update_alias, request)).0, "NotAuthorizedException");
        assert_eq!(refused(run(&call, kms::delete_alias, json!({"AliasName": name}))).0, "NotAuthorizedException");
    }
}

#[test]
fn aliases_are_made_moved_and_removed() {
    let (_base, home) = temporary();
    let call = root(&home);
    let (one, two) = (new_key(&call), new_key(&call));
    let create =
        |name: &str, key: &str| run(&call, kms::create_alias, json!({"AliasName": name, "TargetKeyId": key})).map(drop);
    create("alias/app", &one).unwrap();
    let refusal = |outcome: Result<(), ServiceError>| refused(outcome.map(|()| Value::Null));
    assert_eq!(
        refusal(create("alias/app", &two)),
        (
            "AlreadyExistsException",
            "An alias with the name arn:aws:kms:us-east-1:123456789012:alias/app already exists".to_owned()
        )
    );
    assert!(refusal(create("app", &one)).1.starts_with("Alias must start with the prefix \"alias/\"."));
    for bad in ["alias/", "alias/a b", "alias/ä", "alias/a:b"] {
        assert_eq!(refusal(create(bad, &one)).0, "ValidationException", "{bad}");
    }
    assert_eq!(refusal(create(&format!("alias/{}", "x".repeat(251)), &one)).0, "ValidationException");
    assert_eq!(refusal(create("alias/b", "alias/app")).0, "ValidationException");
    assert_eq!(refusal(create("alias/b", KEY_OF_NOBODY)).0, "NotFoundException");
    run(&call, kms::update_alias, json!({"AliasName": "alias/app", "TargetKeyId": two})).unwrap();
    let answer = run(&call, kms::describe_key, json!({"KeyId": "alias/app"})).unwrap();
    assert_eq!(answer["KeyMetadata"]["Arn"], two.as_str());
    run(&call, kms::delete_alias, json!({"AliasName": "alias/app"})).unwrap();
    for outcome in [
        run(&call, kms::delete_alias, json!({"AliasName": "alias/app"})),
        run(&call, kms::update_alias, json!({"AliasName": "alias/app", "TargetKeyId": two})),
    ] {
        let wanted = "Alias arn:aws:kms:us-east-1:123456789012:alias/app is not found.";
        assert_eq!(refused(outcome), ("NotFoundException", wanted.to_owned()));
    }
}

#[test]
fn an_alias_stands_for_a_key_where_it_is_used_and_nowhere_else() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    run(&call, kms::create_alias, json!({"AliasName": "alias/app", "TargetKeyId": key})).unwrap();
    for alias in ["alias/app", "arn:aws:kms:us-east-1:123456789012:alias/app"] {
        let blob =
            run(&call, kms::encrypt, json!({"KeyId": alias, "Plaintext": "eA=="})).unwrap()["CiphertextBlob"].clone();
        run(&call, kms::decrypt, json!({"KeyId": alias, "CiphertextBlob": blob})).unwrap();
        let again = json!({"SourceKeyId": alias, "CiphertextBlob": blob, "DestinationKeyId": alias});
        run(&call, kms::re_encrypt, again).unwrap();
        run(&call, kms::generate_data_key, json!({"KeyId": alias, "KeySpec": "AES_256"})).unwrap();
        run(&call, kms::describe_key, json!({"KeyId": alias})).unwrap();
        let refused_as_aws_does =
            ("InvalidArnException", "Key Aliases are not supported for this operation.".to_owned());
        let grant =
            json!({"KeyId": alias, "GranteePrincipal": "arn:aws:iam::123456789012:user/a", "Operations": ["Decrypt"]});
        let named = json!({"KeyId": alias});
        for outcome in [
            run(&call, kms::get_key_policy, named.clone()),
            run(&call, kms::list_resource_tags, named.clone()),
            run(&call, kms::list_grants, named.clone()),
            run(&call, kms::disable_key, named.clone()),
            run(&call, kms::enable_key_rotation, named.clone()),
            run(&call, kms::schedule_key_deletion, named),
            run(&call, kms::create_grant, grant),
            run(&call, kms::retire_grant, json!({"KeyId": alias, "GrantId": "0".repeat(64)})),
        ] {
            assert_eq!(refused(outcome), refused_as_aws_does, "{alias}");
        }
    }
}

#[test]
fn aliases_and_grants_go_with_their_key() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    run(&call, kms::create_alias, json!({"AliasName": "alias/app", "TargetKeyId": key})).unwrap();
    let grant =
        json!({"KeyId": key, "GranteePrincipal": "arn:aws:iam::123456789012:user/a", "Operations": ["Decrypt"]});
    let token = run(&call, kms::create_grant, grant).unwrap()["GrantToken"].clone();
    run(&call, kms::schedule_key_deletion, json!({"KeyId": key, "PendingWindowInDays": 7})).unwrap();
    home.advance_clock(jiff::SignedDuration::from_hours(24 * 7)).unwrap();
    assert_eq!(refused(run(&call, kms::describe_key, json!({"KeyId": "alias/app"}))).0, "NotFoundException");
    assert_eq!(refused(run(&call, kms::retire_grant, json!({"GrantToken": token}))).0, "NotFoundException");
    run(&call, kms::create_alias, json!({"AliasName": "alias/app", "TargetKeyId": new_key(&call)})).unwrap();
}

#[test]
fn grants_are_named_listed_and_ended() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let named = json!({
        "KeyId": key, "GranteePrincipal": "arn:aws:iam::123456789012:user/alice", "Operations": ["Decrypt", "Encrypt"],
        "RetiringPrincipal": "arn:aws:iam::123456789012:user/bob", "Name": "one",
        "Constraints": {"EncryptionContextSubset": {"a": "b"}},
    });
    let first = run(&call, kms::create_grant, named.clone()).unwrap();
    let again = run(&call, kms::create_grant, named.clone()).unwrap();
    assert_eq!(first["GrantId"], again["GrantId"], "a name makes the call idempotent");
    assert_ne!(first["GrantToken"], again["GrantToken"], "with a fresh token");
    let mut other = named.clone();
    other["Constraints"] = json!({"EncryptionContextEquals": {"a": "b"}});
    let other = run(&call, kms::create_grant, other).unwrap();
    assert_ne!(first["GrantId"], other["GrantId"]);
    let mut unnamed = named.clone();
    unnamed.as_object_mut().unwrap().remove("Name");
    unnamed["GranteePrincipal"] = json!("arn:aws:iam::123456789012:role/host");
    run(&call, kms::create_grant, unnamed.clone()).unwrap();
    run(&call, kms::create_grant, unnamed).unwrap();

    let list = |more: Value| {
        let mut request = json!({"KeyId": key});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        run(&call, kms::list_grants, request).unwrap()
    };
    let all = list(json!({}));
    assert_eq!(all["Grants"].as_array().unwrap().len(), 4);
    assert_eq!(
        list(json!({"GranteePrincipal": "arn:aws:iam::123456789012:role/host"}))["Grants"].as_array().unwrap().len(),
        2
    );
    let one = list(json!({"GrantId": first["GrantId"]}));
    let entry = &one["Grants"][0];
    assert_eq!(entry["KeyId"], key.as_str());
    assert_eq!(entry["Name"], "one");
    assert_eq!(entry["IssuingAccount"], "arn:aws:iam::123456789012:root");
    assert_eq!(entry["Constraints"], json!({"EncryptionContextSubset": {"a": "b"}}));
    let page = list(json!({"Limit": 3}));
    assert_eq!((page["Grants"].as_array().unwrap().len(), &page["Truncated"]), (3, &json!(true)));
    assert_eq!(list(json!({"Marker": page["NextMarker"]}))["Grants"].as_array().unwrap().len(), 1);

    run(&call, kms::revoke_grant, json!({"KeyId": key, "GrantId": first["GrantId"]})).unwrap();
    let again = run(&call, kms::revoke_grant, json!({"KeyId": key, "GrantId": first["GrantId"]}));
    assert_eq!(refused(again).0, "NotFoundException");
    let bob = Call::direct(&home, "arn:aws:iam::123456789012:user/bob".parse().unwrap(), call.region.clone());
    run(&bob, kms::retire_grant, json!({"GrantToken": other["GrantToken"]})).unwrap();
    assert_eq!(list(json!({}))["Grants"].as_array().unwrap().len(), 2);
    let elsewhere = new_key(&call);
    let request = json!({"KeyId": elsewhere, "GrantId": all["Grants"][0]["GrantId"]});
    assert_eq!(refused(run(&call, kms::revoke_grant, request)).0, "NotFoundException", "another key's grant");
}

#[test]
fn malformed_grants_and_tokens_are_refused() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let create = |change: Value| {
        let mut request = json!({
            "KeyId": key, "GranteePrincipal": "arn:aws:iam::123456789012:user/alice", "Operations": ["Decrypt"],
        });
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        refused(run(&call, kms::create_grant, request)).0
    };
    assert_eq!(create(json!({"GranteePrincipal": "alice"})), "InvalidArnException");
    let request =
        json!({"KeyId": key, "GranteePrincipal": "arn:aws:iam::123456789012:group/g", "Operations": ["Decrypt"]});
    assert_eq!(
        refused(run(&call, kms::create_grant, request)).1,
        "ARN does not refer to a valid principal: arn:aws:iam::123456789012:group/g"
    );
    assert_eq!(create(json!({"RetiringPrincipal": "arn:aws:s3:::bucket"})), "InvalidArnException");
    assert_eq!(create(json!({"Operations": ["Everything"]})), "ValidationException");
    assert_eq!(create(json!({"Operations": ["Sign"]})), "ValidationException");
    assert_eq!(create(json!({"Name": "a b"})), "ValidationException");
    let pairs: serde_json::Map<_, _> = (0..9).map(|n| (n.to_string(), json!("x"))).collect();
    assert_eq!(create(json!({"Constraints": {"EncryptionContextSubset": pairs}})), "ValidationException");
    let long = json!({"Constraints": {"EncryptionContextEquals": {"a": "x".repeat(385)}}});
    assert_eq!(create(long), "ValidationException");
    let decrypt =
        |tokens: Value| refused(run(&call, kms::decrypt, json!({"CiphertextBlob": "eA==", "GrantTokens": tokens}))).0;
    assert_eq!(decrypt(json!(["made up"])), "InvalidGrantTokenException");
    assert_eq!(decrypt(json!(vec!["x"; 11])), "ValidationException");
    let retire = |request: Value| refused(run(&call, kms::retire_grant, request)).0;
    assert_eq!(retire(json!({"GrantToken": "made up"})), "InvalidGrantTokenException");
    assert_eq!(retire(json!({"KeyId": key})), "ValidationException");
    assert_eq!(retire(json!({"KeyId": key, "GrantId": "0".repeat(64)})), "NotFoundException");
}

#[test]
fn a_dry_run_says_whether_it_would_and_changes_nothing() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let blob = run(&call, kms::encrypt, json!({"KeyId": key, "Plaintext": "eA=="})).unwrap()["CiphertextBlob"].clone();
    let grant =
        json!({"KeyId": key, "GranteePrincipal": "arn:aws:iam::123456789012:user/a", "Operations": ["Decrypt"]});
    let made = run(&call, kms::create_grant, grant.clone()).unwrap();
    let would =
        ("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.".to_owned());
    let dry = |mut request: Value| {
        request["DryRun"] = json!(true);
        request
    };
    let by_id = json!({"KeyId": key, "GrantId": made["GrantId"]});
    let tried = |blob: &Value, key: &str| {
        [
            run(&call, kms::encrypt, dry(json!({"KeyId": key, "Plaintext": "eA=="}))),
            run(&call, kms::decrypt, dry(json!({"CiphertextBlob": blob}))),
            run(&call, kms::re_encrypt, dry(json!({"CiphertextBlob": blob, "DestinationKeyId": key}))),
            run(&call, kms::generate_data_key, dry(json!({"KeyId": key, "NumberOfBytes": 64}))),
            run(&call, kms::generate_data_key_without_plaintext, dry(json!({"KeyId": key, "NumberOfBytes": 64}))),
        ]
    };
    for outcome in tried(&blob, &key) {
        assert_eq!(refused(outcome), would);
    }
    for outcome in [
        run(&call, kms::create_grant, dry(grant)),
        run(&call, kms::retire_grant, dry(json!({"GrantToken": made["GrantToken"]}))),
        run(&call, kms::revoke_grant, dry(by_id.clone())),
    ] {
        assert_eq!(refused(outcome), would);
    }
    let grants = run(&call, kms::list_grants, json!({"KeyId": key})).unwrap();
    assert_eq!(grants["Grants"].as_array().unwrap().len(), 1);
    run(&call, kms::disable_key, json!({"KeyId": key})).unwrap();
    for outcome in tried(&blob, &key) {
        assert_eq!(refused(outcome).0, "DisabledException");
    }
}

#[test]
fn members_that_aws_does_not_have_are_refused() {
    let unknown =
        serde_json::from_value::<kms::EncryptRequest>(json!({"KeyId": "k", "Plaintext": "eA==", "Keyid": "k"}));
    assert!(unknown.unwrap_err().to_string().contains("Keyid"));
    assert!(serde_json::from_value::<kms::DecryptRequest>(json!({"CiphertextBlob": "not base64!"})).is_err());
}

/// Killed anywhere, the store has a record for every key and a key for every record of one, and all keys work.
#[test]
fn a_killed_process_leaves_whole_operations_behind() {
    const CHILD_HOME: &str = "BLOCKSEAL_TEST_CHILD_HOME";
    if let Some(path) = std::env::var_os(CHILD_HOME) {
        let home = Home::open(path.as_ref()).unwrap();
        let call = root(&home);
        loop {
            new_key(&call);
        }
    }
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("home");
    let mut keys = 0;
    for round in 0..8u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kms::a_killed_process_leaves_whole_operations_behind"])
            .env(CHILD_HOME, &path)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(150 + 37 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let home = Home::open(&path).unwrap();
        let call = root(&home);
        let mut listed = 0;
        let mut list = json!({"Limit": 1000});
        loop {
            let page = run(&call, kms::list_keys, list.clone()).unwrap();
            listed += page["Keys"].as_array().unwrap().len();
            match page.get("NextMarker") {
                Some(marker) => list["Marker"] = marker.clone(),
                None => break,
            }
        }
        let mut recorded = 0;
        let mut request = LookupEventsRequest {
            lookup_attributes: serde_json::from_value(
                json!([{"AttributeKey": "EventName", "AttributeValue": "CreateKey"}]),
            )
            .unwrap(),
            ..Default::default()
        };
        loop {
            let page = cloudtrail::lookup_events(&call, request.clone()).unwrap();
            recorded += page.events.len();
            match page.next_token {
                Some(token) => request.next_token = Some(token),
                None => break,
            }
        }
        assert_eq!(listed, recorded);
        keys = listed;
    }
    assert!(keys > 0, "the children got as far as making keys");
    let home = Home::open(&path).unwrap();
    let call = root(&home);
    for key in run(&call, kms::list_keys, json!({"Limit": 1000})).unwrap()["Keys"].as_array().unwrap().iter().take(50) {
        run(&call, kms::encrypt, json!({"KeyId": key["KeyId"], "Plaintext": "eA=="})).unwrap();
    }
}

/// Several processes' worth of handles use one key at once; nothing is lost and every call is recorded.
#[test]
fn handles_share_a_home() {
    let (base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let home = Home::open(&base.path().join("home")).unwrap();
                let call = root(&home);
                for _ in 0..20 {
                    let request = json!({"KeyId": key, "Plaintext": "eA=="});
                    let blob = run(&call, kms::encrypt, request).unwrap()["CiphertextBlob"].clone();
                    run(&call, kms::decrypt, json!({"CiphertextBlob": blob})).unwrap();
                }
            });
        }
    });
    let mut events = 0;
    let mut request = LookupEventsRequest {
        lookup_attributes: serde_json::from_value(json!([{"AttributeKey": "ResourceName", "AttributeValue": key}]))
            .unwrap(),
        ..Default::default()
    };
    loop {
        let page = cloudtrail::lookup_events(&call, request.clone()).unwrap();
        events += page.events.len();
        request.next_token = page.next_token;
        if request.next_token.is_none() {
            break;
        }
    }
    assert_eq!(events, 1 + 4 * 20 * 2);
}

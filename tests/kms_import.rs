//! Imported key material: wrapped by a program that is not ours (OpenSSL), imported, expired, deleted, rotated to.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blockseal::gate::{Call, ServiceError};
use blockseal::kms;
use blockseal::store::Home;
use jiff::SignedDuration;
use openssl::encrypt::Encrypter;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Padding;
use serde_json::{Value, json};

use crate::kms::{refused, root, run, temporary};

const ALGORITHM: &str = "RSAES_OAEP_SHA_256";

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn external_key(call: &Call<'_>) -> String {
    let made = run(call, kms::create_key, json!({"Origin": "EXTERNAL"})).unwrap();
    assert_eq!(made["KeyMetadata"]["KeyState"], "PendingImport");
    made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
}

fn parameters(call: &Call<'_>, key: &str, algorithm: &str, spec: &str) -> Result<Value, ServiceError> {
    let request = json!({"KeyId": key, "WrappingAlgorithm": algorithm, "WrappingKeySpec": spec});
    run(call, kms::get_parameters_for_import, request)
}

/// RSA-OAEP by OpenSSL.
fn oaep(public: &[u8], hash: MessageDigest, plain: &[u8]) -> Vec<u8> {
    let key = PKey::public_key_from_der(public).unwrap();
    let mut encrypter = Encrypter::new(&key).unwrap();
    encrypter.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
    encrypter.set_rsa_oaep_md(hash).unwrap();
    encrypter.set_rsa_mgf1_md(hash).unwrap();
    let mut wrapped = vec![0; encrypter.encrypt_len(plain).unwrap()];
    let length = encrypter.encrypt(plain, &mut wrapped).unwrap();
    wrapped.truncate(length);
    wrapped
}

/// AES key wrap with padding (RFC 5649) by the `openssl` command, which has the cipher that the binding lacks.
fn kwp(key: &[u8], plain: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = std::process::Command::new("openssl")
        .args(["enc", "-e", "-id-aes256-wrap-pad", "-iv", "A65959A6", "-K"])
        .arg(key.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        }))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(plain).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn wrapped(parameters: &Value, algorithm: &str, material: &[u8]) -> String {
    let public = STANDARD.decode(parameters["PublicKey"].as_str().unwrap()).unwrap();
    let hash = if algorithm.ends_with("_1") { MessageDigest::sha1() } else { MessageDigest::sha256() };
    STANDARD.encode(if algorithm.starts_with("RSA_AES") {
        let key = [0x5a; 32];
        [oaep(&public, hash, &key), kwp(&key, material)].concat()
    } else {
        oaep(&public, hash, material)
    })
}

/// Imports `material` with fresh parameters; `more` is added to the request.
pub fn import(call: &Call<'_>, key: &str, material: &[u8], more: Value) -> Result<Value, ServiceError> {
    let parameters = parameters(call, key, ALGORITHM, "RSA_2048").unwrap();
    let mut request = json!({
        "KeyId": key, "ImportToken": parameters["ImportToken"],
        "EncryptedKeyMaterial": wrapped(&parameters, ALGORITHM, material),
        "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE",
    });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    run(call, kms::import_key_material, request)
}

fn expiring(home: &Home, after: SignedDuration) -> Value {
    json!({"ExpirationModel": "KEY_MATERIAL_EXPIRES", "ValidTo": home.now().unwrap().after(after)})
}

fn describe(call: &Call<'_>, key: &str) -> Value {
    run(call, kms::describe_key, json!({"KeyId": key})).unwrap()["KeyMetadata"].clone()
}

fn state(call: &Call<'_>, key: &str) -> String {
    describe(call, key)["KeyState"].as_str().unwrap().to_owned()
}

fn encrypt(call: &Call<'_>, key: &str) -> Result<Value, ServiceError> {
    let answer = run(call, kms::encrypt, json!({"KeyId": key, "Plaintext": "eA=="}))?;
    Ok(answer["CiphertextBlob"].clone())
}

fn decrypts(call: &Call<'_>, blob: &Value) -> bool {
    run(call, kms::decrypt, json!({"CiphertextBlob": blob})).is_ok_and(|answer| answer["Plaintext"] == "eA==")
}

#[test]
fn every_way_of_wrapping_brings_the_same_material() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = external_key(&call);
    let mut ids = std::collections::HashSet::new();
    for (algorithm, spec) in [
        ("RSAES_OAEP_SHA_1", "RSA_2048"),
        ("RSAES_OAEP_SHA_256", "RSA_3072"),
        ("RSA_AES_KEY_WRAP_SHA_1", "RSA_2048"),
        ("RSA_AES_KEY_WRAP_SHA_256", "RSA_4096"),
    ] {
        let given = parameters(&call, &key, algorithm, spec).unwrap();
        assert_eq!(given["KeyId"], key.as_str());
        let request = json!({
            "KeyId": key, "ImportToken": given["ImportToken"],
            "EncryptedKeyMaterial": wrapped(&given, algorithm, &[7; 32]),
            "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE",
        });
        let answer = run(&call, kms::import_key_material, request).unwrap();
        ids.insert(answer["KeyMaterialId"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1);
    let described = describe(&call, &key);
    assert_eq!((&described["KeyState"], &described["Enabled"]), (&json!("Enabled"), &json!(true)));
    assert_eq!(described["ExpirationModel"], "KEY_MATERIAL_DOES_NOT_EXPIRE");
    assert_eq!(described["CurrentKeyMaterialId"], ids.iter().next().unwrap().as_str());
    let blob = encrypt(&call, &key).unwrap();
    assert!(decrypts(&call, &blob));
}

#[test]
fn a_key_without_its_material_is_pending_import_until_it_is_back() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = external_key(&call);
    let pending = ("KMSInvalidStateException", format!("{key} is pending import."));
    assert_eq!(refused(encrypt(&call, &key)), pending);
    assert!(describe(&call, &key).get("CurrentKeyMaterialId").is_none());
    let id = import(&call, &key, &[7; 32], json!({})).unwrap()["KeyMaterialId"].clone();
    let blob = encrypt(&call, &key).unwrap();
    let deleted = run(&call, kms::delete_imported_key_material, json!({"KeyId": key})).unwrap();
    assert_eq!(deleted, json!({"KeyId": key, "KeyMaterialId": id}));
    assert_eq!(refused(encrypt(&call, &key)), pending);
    assert!(!decrypts(&call, &blob));
    assert!(describe(&call, &key).get("ExpirationModel").is_none());
    run(&call, kms::delete_imported_key_material, json!({"KeyId": key})).unwrap();
    let other = import(&call, &key, &[8; 32], json!({}));
    assert_eq!(refused(other).0, "IncorrectKeyMaterialException", "only the same material comes back");
    import(&call, &key, &[7; 32], json!({"ImportType": "EXISTING_KEY_MATERIAL", "KeyMaterialId": id})).unwrap();
    assert_eq!(state(&call, &key), "Enabled");
    assert!(decrypts(&call, &blob));
    let request = json!({"KeyId": key, "KeyMaterialId": "0".repeat(64)});
    assert_eq!(refused(run(&call, kms::delete_imported_key_material, request)).0, "NotFoundException");
}

#[test]
fn material_expires_when_it_is_due_and_the_trail_shows_it() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = external_key(&call);
    let id = import(&call, &key, &[7; 32], expiring(&home, days(30))).unwrap()["KeyMaterialId"].clone();
    let described = describe(&call, &key);
    assert_eq!(described["ExpirationModel"], "KEY_MATERIAL_EXPIRES");
    assert!(described["ValidTo"].is_string());
    let blob = encrypt(&call, &key).unwrap();
    home.advance_clock(days(30) - SignedDuration::from_mins(1)).unwrap();
    assert!(decrypts(&call, &blob));
    home.advance_clock(SignedDuration::from_mins(1)).unwrap();
    assert_eq!(state(&call, &key), "PendingImport");
    assert!(!decrypts(&call, &blob));
    let record: String = home
        .read(|tx| {
            let asked = "SELECT record FROM trail_records WHERE record ->> '$.eventName' = 'DeleteExpiredKeyMaterial'";
            Ok::<_, ServiceError>(tx.query_row(asked, [], |row| row.get(0)).unwrap())
        })
        .unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["eventType"], "AwsServiceEvent");
    let details = json!({"keyId": key.rsplit('/').next(), "keyMaterialId": id});
    assert_eq!(record["serviceEventDetails"], details);
    // Importing it again may give it another time, or none.
    import(&call, &key, &[7; 32], json!({})).unwrap();
    home.advance_clock(days(400)).unwrap();
    assert!(decrypts(&call, &blob));
}

#[test]
fn new_material_waits_for_a_rotation_on_demand() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = external_key(&call);
    let first = import(&call, &key, &[1; 32], json!({})).unwrap()["KeyMaterialId"].clone();
    let old = encrypt(&call, &key).unwrap();
    let rotate = || run(&call, kms::rotate_key_on_demand, json!({"KeyId": key}));
    let nothing =
        ("KMSInvalidStateException", format!("No available key material pending rotation for the key: {key}."));
    assert_eq!(refused(rotate()), nothing);
    let new = json!({"ImportType": "NEW_KEY_MATERIAL", "KeyMaterialDescription": "second one"});
    let again = import(&call, &key, &[1; 32], new.clone());
    assert_eq!(refused(again).0, "IncorrectKeyMaterialException", "it is not new");
    import(&call, &key, &[2; 32], new.clone()).unwrap();
    let second = import(&call, &key, &[3; 32], new).unwrap()["KeyMaterialId"].clone();
    assert_eq!(describe(&call, &key)["CurrentKeyMaterialId"], first);
    let all = || {
        let request = json!({"KeyId": key, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"});
        run(&call, kms::list_key_rotations, request).unwrap()["Rotations"].clone()
    };
    assert_eq!(all().as_array().unwrap().len(), 2, "one waits at a time, and the later takes its place");
    assert_eq!(
        all()[1],
        json!({
            "KeyId": key, "KeyMaterialId": second, "KeyMaterialDescription": "second one", "ImportState": "IMPORTED",
            "KeyMaterialState": "PENDING_ROTATION", "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE",
        })
    );
    rotate().unwrap();
    assert_eq!(describe(&call, &key)["CurrentKeyMaterialId"], second);
    assert_eq!(refused(rotate()), nothing);
    let fresh = encrypt(&call, &key).unwrap();
    assert!(decrypts(&call, &old) && decrypts(&call, &fresh));
    // The loss of any material that encrypted stops the whole key.
    run(&call, kms::delete_imported_key_material, json!({"KeyId": key, "KeyMaterialId": first})).unwrap();
    assert_eq!(state(&call, &key), "PendingImport");
    assert_eq!(all()[0]["ImportState"], "PENDING_IMPORT");
    assert!(!decrypts(&call, &fresh));
    import(&call, &key, &[1; 32], json!({})).unwrap();
    assert!(decrypts(&call, &old) && decrypts(&call, &fresh));
    // A deletion that is taken back leaves a key that lacks material pending import.
    run(&call, kms::schedule_key_deletion, json!({"KeyId": key, "PendingWindowInDays": 7})).unwrap();
    run(&call, kms::delete_imported_key_material, json!({"KeyId": key})).unwrap();
    run(&call, kms::cancel_key_deletion, json!({"KeyId": key})).unwrap();
    assert_eq!(state(&call, &key), "PendingImport");
    assert_eq!(refused(run(&call, kms::enable_key_rotation, json!({"KeyId": key}))).0, "UnsupportedOperationException");
}

#[test]
fn tokens_and_material_that_do_not_fit_are_refused() {
    let (_base, home) = temporary();
    let call = root(&home);
    let (key, other) = (external_key(&call), external_key(&call));
    let given = parameters(&call, &key, ALGORITHM, "RSA_2048").unwrap();
    let attempt = |key: &str, token: &Value, material: &str| {
        refused(run(
            &call,
            kms::import_key_material,
            json!({
                "KeyId": key, "ImportToken": token, "EncryptedKeyMaterial": material,
                "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE",
            }),
        ))
    };
    let good = wrapped(&given, ALGORITHM, &[7; 32]);
    let token = &given["ImportToken"];
    assert_eq!(attempt(&other, token, &good).0, "InvalidImportTokenException", "another key's");
    let bytes = STANDARD.decode(token.as_str().unwrap()).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_eq!(attempt(&key, &json!(STANDARD.encode(changed)), &good).0, "InvalidImportTokenException", "at {at}");
    }
    assert_eq!(attempt(&key, &json!("eA=="), &good).0, "InvalidImportTokenException");
    let invalid = ("InvalidCiphertextException", String::new());
    assert_eq!(attempt(&key, token, "eA=="), invalid);
    assert_eq!(attempt(&key, token, &STANDARD.encode([0; 256])), invalid);
    assert_eq!(attempt(&key, token, &STANDARD.encode(vec![1; 600])), invalid);
    assert_eq!(attempt(&key, token, &wrapped(&given, "RSAES_OAEP_SHA_1", &[7; 32])), invalid, "another algorithm");
    let elsewhere = parameters(&call, &key, ALGORITHM, "RSA_2048").unwrap();
    assert_eq!(attempt(&key, token, &wrapped(&elsewhere, ALGORITHM, &[7; 32])), invalid, "another public key");
    for length in [1, 16, 31, 33] {
        let short = wrapped(&given, ALGORITHM, &vec![7; length]);
        assert_eq!(attempt(&key, token, &short).0, "IncorrectKeyMaterialException");
    }
    let none = import(&call, &key, &[7; 32], json!({"ImportType": "EXISTING_KEY_MATERIAL"}));
    assert_eq!(refused(none).0, "IncorrectKeyMaterialException");
    let named = import(&call, &key, &[7; 32], json!({"KeyMaterialId": "0".repeat(64)}));
    assert_eq!(refused(named).0, "IncorrectKeyMaterialException");
    home.advance_clock(SignedDuration::from_hours(24)).unwrap();
    assert_eq!(attempt(&key, token, &good).0, "ExpiredImportTokenException");
    assert_eq!(state(&call, &key), "PendingImport");
}

#[test]
fn parameters_of_an_import_are_checked() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = external_key(&call);
    let wrong = |more: Value| refused(import(&call, &key, &[7; 32], more));
    assert_eq!(
        wrong(json!({"ExpirationModel": "KEY_MATERIAL_EXPIRES"})),
        ("ValidationException", "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES".to_owned())
    );
    for after in [days(366), -days(1), SignedDuration::ZERO] {
        assert_eq!(wrong(expiring(&home, after)).0, "ValidationException", "{after:?}");
    }
    for more in [
        json!({"ExpirationModel": "NEVER"}),
        json!({"ImportType": "OLD"}),
        json!({"KeyMaterialDescription": "no $"}),
        json!({"KeyMaterialDescription": "x".repeat(257)}),
        json!({"KeyMaterialId": "short"}),
        json!({"ValidTo": home.now().unwrap().after(days(1))}),
    ] {
        assert_eq!(wrong(more.clone()).0, "ValidationException", "{more}");
    }
    import(&call, &key, &[7; 32], expiring(&home, days(365))).unwrap();
    let own = crate::kms::new_key(&call);
    let unsupported =
        ("UnsupportedOperationException", format!("{own} origin is AWS_KMS which is not valid for this operation."));
    assert_eq!(refused(parameters(&call, &own, ALGORITHM, "RSA_2048")), unsupported);
    for (algorithm, spec, code) in [
        ("RSAES_PKCS1_V1_5", "RSA_2048", "UnsupportedOperationException"),
        ("SM2PKE", "SM2", "UnsupportedOperationException"),
        ("ROT13", "RSA_2048", "ValidationException"),
        (ALGORITHM, "RSA_1024", "ValidationException"),
    ] {
        assert_eq!(refused(parameters(&call, &key, algorithm, spec)).0, code, "{algorithm} {spec}");
    }
}

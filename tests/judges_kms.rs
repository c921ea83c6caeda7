//! Encryption contexts, as the KMS guide prints them, and what a volume's wrapped key is bound to.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::Home;
use crate::scene::Scene;

/// The contexts on the KMS guide's page "How Amazon RDS uses AWS KMS", to the letter.
const CONTEXTS: [&str; 2] = [
    r#"{"aws:rds:db-id": "db-CQYSMDPBRZ7BPMH7Y3RTDG5QY"}"#,
    r#"{"aws:rds:db-id": "db-BRG7VYS3SVIFQW7234EJQOM5RQ", "aws:ebs:id": "vol-ad8c6542"}"#,
];

const INVALID: &str = "An error occurred (InvalidCiphertextException) when calling the Decrypt operation";

#[test]
fn both_contexts_of_the_guide_work_verbatim_and_nothing_else_does() {
    let home = Home::new();
    let cmk = home.json("kms create-key")["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    let plaintext = STANDARD.encode("the wrapped thing");
    for context in CONTEXTS {
        let encrypt = ["kms", "encrypt", "--key-id", &cmk, "--plaintext", &plaintext, "--encryption-context", context];
        let blob = home.json_of(&encrypt)["CiphertextBlob"].as_str().unwrap().to_owned();
        let decrypt = |context: &[&str]| -> Vec<String> {
            let start = ["kms", "decrypt", "--ciphertext-blob", &blob];
            start.iter().chain(context).map(|word| (*word).to_owned()).collect()
        };
        let opens = |context: &[&str]| {
            let arguments = decrypt(context);
            home.json_of(&arguments.iter().map(String::as_str).collect::<Vec<_>>())["Plaintext"] == plaintext.as_str()
        };
        assert!(opens(&["--encryption-context", context]));
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(context).unwrap();
        let pairs: Vec<String> =
            object.iter().rev().map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
        assert!(opens(&["--encryption-context", &pairs.join(",")]), "re-ordered, and as shorthand");

        let mut wrong: Vec<Vec<String>> = vec![vec![]];
        for other in [context.replace("db-", "db-X"), context.replace("aws:rds", "AWS:rds"), "{}".to_owned()] {
            wrong.push(vec!["--encryption-context".to_owned(), other]);
        }
        wrong.push(vec!["--encryption-context".to_owned(), context.replace('}', r#", "more": "x"}"#)]);
        for context in wrong {
            let arguments = decrypt(&context.iter().map(String::as_str).collect::<Vec<_>>());
            let said = home.refused(254, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(said.contains(INVALID), "{context:?}: {said}");
        }
    }
}

/// Every bit of the blob counts, from its version to its tag. A twin of each: the whole blob opens.
#[test]
fn a_blob_with_a_bit_flipped_or_bytes_missing_is_invalid() {
    let home = Home::new();
    let cmk = home.json("kms create-key")["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    let made = home.json(&format!("kms generate-data-key-without-plaintext --key-id {cmk} --number-of-bytes 64"));
    let blob = STANDARD.decode(made["CiphertextBlob"].as_str().unwrap()).unwrap();
    let file = home.scratch().join("blob");
    let argument = format!("fileb://{}", file.display());
    let decrypt = ["kms", "decrypt", "--ciphertext-blob", &argument];
    fs::write(&file, &blob).unwrap();
    home.json_of(&decrypt);
    let step = if crate::harness::full() { 1 } else { 23 };
    for bit in (0..blob.len() * 8).step_by(step) {
        let mut changed = blob.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, &changed).unwrap();
        assert!(home.refused(254, &decrypt).contains(INVALID), "bit {bit}");
    }
    for length in (1..blob.len()).step_by(step) {
        fs::write(&file, &blob[..length]).unwrap();
        assert!(home.refused(254, &decrypt).contains(INVALID), "cut to {length} bytes");
    }
}

/// The wrapped key of one volume, moved into another's header with its own context, is refused: the context is the identity.
#[test]
fn a_wrapped_key_belongs_to_its_volume() {
    let scene = Scene::new();
    let token = scene.token();
    assert_eq!(token["type"], "aws-kms");
    let context = &token["encryption_context"];
    assert_eq!(context["aws:ebs:id"], scene.volume.as_str());
    assert_eq!(context["aws:rds:db-id"], crate::scene::DATABASE);
    let other = context.to_string().replace(&scene.volume, "vol-0123456789abcdef0");
    let blob = token["ciphertext_blob"].as_str().unwrap();
    let said = scene.home.refused(254, &["kms", "decrypt", "--ciphertext-blob", blob, "--encryption-context", &other]);
    assert!(said.contains(INVALID), "{said}");
    assert_eq!(scene.data_key().len(), 64);
}

//! Tags, random bytes, retirable grants, last use, and operations that are refused by name.

use blockseal::{api, kms};
use serde_json::{Value, json};

use crate::kms::{new_key, refused, root, run, temporary};

#[test]
fn tags_are_put_listed_in_pages_and_taken_away() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let tag = |name: &str, value: &str| json!({"TagKey": name, "TagValue": value});
    let put = |tags: Value| run(&call, kms::tag_resource, json!({"KeyId": key, "Tags": tags}));
    put(json!([tag("a", "1"), tag("b", "2"), tag("c", "3")])).unwrap();
    put(json!([tag("b", "new")])).unwrap();
    run(&call, kms::untag_resource, json!({"KeyId": key, "TagKeys": ["a", "none"]})).unwrap();
    let page = run(&call, kms::list_resource_tags, json!({"KeyId": key, "Limit": 1})).unwrap();
    assert_eq!((&page["Tags"], &page["Truncated"]), (&json!([tag("b", "new")]), &json!(true)));
    let rest = run(&call, kms::list_resource_tags, json!({"KeyId": key, "Marker": page["NextMarker"]})).unwrap();
    assert_eq!(rest, json!({"Tags": [tag("c", "3")], "Truncated": false}));
    let refusal = |message: &str| ("TagException", message.to_owned());
    assert_eq!(refused(put(json!([tag("aws:x", "")]))), refusal("Tags beginning with aws: are reserved"));
    assert_eq!(refused(put(json!([tag("x", "1"), tag("x", "2")]))), refusal("Duplicate tag keys"));
    let many: Vec<_> = (0..49).map(|n| tag(&n.to_string(), "")).collect();
    assert_eq!(refused(put(json!(many))), refusal("Too many tags"));
    assert_eq!(refused(put(json!([tag(&"x".repeat(129), "")]))).0, "ValidationException");
}

#[test]
fn random_bytes_have_the_length_that_was_asked_for() {
    let (_base, home) = temporary();
    let call = root(&home);
    let ask = |request: Value| run(&call, kms::generate_random, request);
    let one = ask(json!({"NumberOfBytes": 32})).unwrap();
    assert_eq!(one["Plaintext"].as_str().unwrap().len(), 44);
    assert_ne!(one, ask(json!({"NumberOfBytes": 32})).unwrap());
    for bytes in [0, 1025] {
        assert_eq!(refused(ask(json!({"NumberOfBytes": bytes}))).0, "ValidationException");
    }
    let store = json!({"NumberOfBytes": 8, "CustomKeyStoreId": "cks-1"});
    assert_eq!(refused(ask(store)).0, "UnsupportedOperationException");
}

#[test]
fn retirable_grants_are_those_of_the_principal() {
    let (_base, home) = temporary();
    let call = root(&home);
    let bob = "arn:aws:iam::123456789012:user/bob";
    for retiring in [bob, bob, "arn:aws:iam::123456789012:user/eve"] {
        let request = json!({
            "KeyId": new_key(&call), "GranteePrincipal": bob, "RetiringPrincipal": retiring, "Operations": ["Decrypt"],
        });
        run(&call, kms::create_grant, request).unwrap();
    }
    let list = |more: Value| run(&call, kms::list_retirable_grants, more);
    let page = list(json!({"RetiringPrincipal": bob, "Limit": 1})).unwrap();
    let rest = list(json!({"RetiringPrincipal": bob, "Marker": page["NextMarker"]})).unwrap();
    assert_eq!((page["Truncated"].clone(), rest["Truncated"].clone()), (json!(true), json!(false)));
    assert_ne!(page["Grants"][0]["GrantId"], rest["Grants"][0]["GrantId"]);
    assert_eq!(rest["Grants"].as_array().unwrap().len(), 1);
    let foreign = json!({"RetiringPrincipal": "arn:aws:iam::210987654321:root"});
    assert_eq!(refused(list(foreign)).0, "AccessDeniedException");
    assert_eq!(refused(list(json!({"RetiringPrincipal": "bob"}))).0, "InvalidArnException");
}

#[test]
fn the_last_use_is_the_last_that_succeeded() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let last = || run(&call, kms::get_key_last_usage, json!({"KeyId": key})).unwrap();
    assert!(last().get("KeyLastUsage").is_none());
    let blob = run(&call, kms::encrypt, json!({"KeyId": key, "Plaintext": "eA=="})).unwrap()["CiphertextBlob"].clone();
    let wrong = json!({"CiphertextBlob": blob, "EncryptionContext": {"a": "b"}});
    run(&call, kms::decrypt, wrong).unwrap_err();
    run(&call, kms::decrypt, json!({"CiphertextBlob": blob, "DryRun": true})).unwrap_err();
    assert_eq!(last()["KeyLastUsage"]["Operation"], "Encrypt");
    run(&call, kms::decrypt, json!({"CiphertextBlob": blob})).unwrap();
    assert_eq!(last()["KeyLastUsage"]["Operation"], "Decrypt");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let (_base, home) = temporary();
    let call = root(&home);
    let service = api::SERVICES.iter().find(|service| service.name == "kms").unwrap();
    assert_eq!(kms::UNSUPPORTED.len(), 14);
    for name in kms::UNSUPPORTED {
        let error = (service.operation(name).unwrap().run)(&call, json!({})).unwrap_err();
        assert_eq!(error.code(), "UnsupportedOperationException");
        assert!(error.message().starts_with(&format!("{name} is not supported")), "{error}");
    }
}

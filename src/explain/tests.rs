//! Random policies: what an explanation says is what the call does.

use proptest::prelude::*;
use proptest::sample::select;
use rusqlite::params;
use serde_json::{Value, json};

use super::*;
use crate::gate::UNDETERMINED;
use crate::kms::{CreateKeyRequest, EncryptRequest, RootKey};
use crate::store::Home;
use crate::twin::{Protection, without};

const ROOT: &str = "arn:aws:iam::123456789012:root";
const ALICE: &str = "arn:aws:iam::123456789012:user/alice";
const SESSION: &str = "arn:aws:sts::123456789012:assumed-role/App/s1";
const EVE: &str = "arn:aws:iam::210987654321:user/eve";

fn condition() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        4 => Just(None),
        1 => select(vec!["ec2.us-east-1.amazonaws.com", "rds.*"])
            .prop_map(|via| Some(json!({"StringLike": {"kms:ViaService": via}}))),
        1 => select(vec!["a", "b"])
            .prop_map(|app| Some(json!({"StringNotEquals": {"kms:EncryptionContext:App": app}}))),
        1 => Just(Some(json!({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["App"]}}))),
        1 => Just(Some(json!({"Bool": {"kms:SomethingNew": "true"}}))),
    ]
}

fn statement(principals: Vec<&'static str>) -> impl Strategy<Value = Value> {
    let effect = prop_oneof![3 => Just("Allow"), 1 => Just("Deny")];
    let action = select(vec!["kms:*", "kms:Encrypt", "kms:Decrypt", "kms:Enc*"]);
    let principal = proptest::option::of(select(principals.clone()));
    (effect, action, principal, condition()).prop_map(move |(effect, action, principal, condition)| {
        let mut statement = json!({"Effect": effect, "Action": action, "Resource": "*"});
        if !principals.is_empty() {
            statement["Principal"] = json!({"AWS": principal.unwrap_or("*")});
        }
        if let Some(condition) = condition {
            statement["Condition"] = condition;
        }
        statement
    })
}

fn policy(principals: Vec<&'static str>) -> impl Strategy<Value = String> {
    let principals = if principals.is_empty() { vec![""] } else { principals };
    let of_identity = principals == [""];
    proptest::collection::vec(statement(principals), 1..4).prop_map(move |mut statements| {
        if of_identity {
            for statement in &mut statements {
                statement.as_object_mut().unwrap().remove("Principal");
            }
        }
        json!({"Version": "2012-10-17", "Statement": statements}).to_string()
    })
}

/// A home with a key, a recorded user and role, and a grant-free past.
struct Scene {
    _base: tempfile::TempDir,
    home: Home,
    key: String,
}

impl Scene {
    fn new(key_policy: &str, identity_policy: &str, disabled: bool) -> Self {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        let root = Call::direct(&home, ROOT.parse().unwrap(), "us-east-1".parse().unwrap());
        let key = kms::create_key(&root, CreateKeyRequest::default()).unwrap().key_metadata.arn;
        home.write(|tx| {
            let id = key.rsplit('/').next().unwrap();
            tx.execute("INSERT INTO kms_key_policies (key_id, policy) VALUES (?1, ?2)", [id, key_policy])?;
            for (entity, account, kind, name) in [
                (1, "123456789012", "user", "alice"),
                (2, "123456789012", "role", "App"),
                (3, "210987654321", "user", "eve"),
            ] {
                tx.execute(
                    "INSERT INTO iam_entities (entity, account, kind, name, path, id, created)
                     VALUES (?1, ?2, ?3, ?4, '/', ?4, 0)",
                    params![entity, account, kind, name],
                )?;
                tx.execute("INSERT INTO iam_policies VALUES (?1, 'p', ?2)", params![entity, identity_policy])?;
            }
            if disabled {
                tx.execute("UPDATE kms_keys SET state = 'Disabled'", [])?;
            }
            Ok::<_, ServiceError>(())
        })
        .unwrap();
        Self { _base: base, home, key }
    }

    /// The code with which `Encrypt` ends, or `succeeded`, and what an explanation says of it: its verdict and code.
    fn both(&self, who: &str, via: Option<&str>, app: Option<&str>) -> (String, (Verdict, String)) {
        let mut call = Call::direct(&self.home, who.parse().unwrap(), "us-east-1".parse().unwrap());
        if let Some(via) = via {
            call = call.through(via);
        }
        let context = app.map_or_else(|| json!({}), |app| json!({"App": app}));
        let request = json!({"KeyId": self.key, "Plaintext": "eA==", "EncryptionContext": context});
        let scratch = self.home.scratch_copy().unwrap();
        RootKey::lend(&self.home, &scratch).unwrap();
        let operation = api::service("kms").unwrap().operation("Encrypt").unwrap();
        let explained = explain(&Call { home: &scratch, ..call.clone() }, "kms", operation, request.clone()).unwrap();
        let request: EncryptRequest = serde_json::from_value(request).unwrap();
        let happened = kms::encrypt(&call, request).err().map_or("succeeded", |error| error.code());
        let error = explained.sight.and_then(|sight| sight.error).unwrap_or_else(|| "succeeded".to_owned());
        (happened.to_owned(), (explained.verdict, error))
    }
}

fn agrees(happened: &str, (verdict, error): &(Verdict, String)) -> bool {
    match verdict {
        Verdict::Allowed => happened == "succeeded",
        Verdict::Undetermined => happened == UNDETERMINED,
        // A call stops where it cannot be told; an explanation goes on, and may find the key's state behind it.
        Verdict::Refused => happened == error || (happened == UNDETERMINED && error == "DisabledException"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_random_policy_does_what_its_explanation_says(
        key_policy in policy(vec![ROOT, ALICE, SESSION, EVE, "*"]),
        identity_policy in policy(Vec::new()),
        disabled in proptest::bool::weighted(0.15),
        who in select(vec![ROOT, ALICE, SESSION, EVE]),
        via in select(vec![None, Some("ec2.us-east-1.amazonaws.com")]),
        app in select(vec![None, Some("a"), Some("b")]),
    ) {
        let (happened, said) = Scene::new(&key_policy, &identity_policy, disabled).both(who, via, app);
        prop_assert!(agrees(&happened, &said), "{happened}, said {said:?}: {key_policy} {identity_policy}");
    }
}

/// The twin: an explanation under policies and a call without them differ, so that the comparison sees it.
#[test]
fn a_call_that_no_policy_stops_is_not_what_is_explained() {
    let deny = json!({"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*"}});
    let allow = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}});
    let scene = Scene::new(&deny.to_string(), &allow.to_string(), false);
    let (happened, said) = scene.both(ALICE, None, None);
    assert!(agrees(&happened, &said) && said.0 == Verdict::Refused);
    let (happened, _) = without(Protection::Policy, || scene.both(ALICE, None, None));
    assert!(!agrees(&happened, &said));
}

#[test]
fn a_command_is_explained_in_a_scratch_home_only() {
    let base = tempfile::tempdir().unwrap();
    let home = Home::open(&base.path().join("home")).unwrap();
    let call = Call::direct(&home, ROOT.parse().unwrap(), "us-east-1".parse().unwrap());
    let operation = api::service("kms").unwrap().operation("CreateKey").unwrap();
    assert!(explain(&call, "kms", operation, json!({})).is_err());
    assert!(kms::assume_disabled(&home, "arn:aws:kms:us-east-1:123456789012:key/x").is_err());
}

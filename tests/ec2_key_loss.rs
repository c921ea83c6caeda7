//! The loss of a volume's key while it is attached: I/O goes on, the next attach does not, and with the key the data is back.
//!
//! The twin, an attach that is let through because the key's state is not looked at, stands beside the code
//! (`src/ec2/modify_tests.rs`): no switch reaches another process.

use blockseal::export::Client;
use serde_json::{Value, json};

use crate::scene::Scene;

impl Scene {
    fn opened(&self) -> Client {
        let socket = self.home.path().join("run").join(format!("{}.sock", self.volume));
        Client::connect(&socket, &self.volume).unwrap()
    }

    fn on_key(&self, operation: &str) -> String {
        self.home.text(&format!("kms {operation} --key-id {}", self.cmk))
    }

    /// What was asked for an attach since the last record of that name: names and error codes, by name. An attach bears the
    /// time at which it began, so records are not in the order in which they ended.
    fn asked_since(&self, name: &str) -> Vec<(String, Value)> {
        let found = self.home.json("cloudtrail lookup-events --max-results 50");
        let records = found["Events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| -> Value { serde_json::from_str(event["CloudTrailEvent"].as_str().unwrap()).unwrap() });
        let since = records.take_while(|record| record["eventName"] != name);
        let mut asked: Vec<_> = since
            .map(|record| (record["eventName"].as_str().unwrap().to_owned(), record["errorCode"].clone()))
            .filter(|(name, _)| ["AttachVolume", "CreateGrant", "Decrypt"].contains(&name.as_str()))
            .collect();
        asked.sort_by(|left, right| left.0.cmp(&right.0));
        asked
    }

    fn revoked(&self) {
        let said = self.home.refused(254, &["ec2", "attach-volume", "--volume-id", &self.volume]);
        let words = format!(
            "An error occurred (CustomerKeyHasBeenRevoked) when calling the AttachVolume operation: Volume {} cannot be attached. \
             The encrypted volume was unable to access the KMS key.",
            self.volume
        );
        assert!(said.contains(&words), "{said}");
    }

    /// What the last `attachVolume` notification says of its cause.
    fn last_cause(&self) -> String {
        let lines = self.home.text(&format!("events tail --lines 1 --volume-id {}", self.volume));
        let event: Value = serde_json::from_str(lines.trim()).unwrap();
        assert_eq!((&event["detail"]["event"], &event["detail"]["result"]), (&json!("attachVolume"), &json!("failed")));
        event["detail"]["cause"].as_str().unwrap().to_owned()
    }
}

/// What an attach leaves that KMS refuses the grant.
fn refused(by: &str) -> [(String, Value); 2] {
    let revoked = json!("Client.CustomerKeyHasBeenRevoked");
    [("AttachVolume".to_owned(), revoked), ("CreateGrant".to_owned(), json!(by))]
}

const MARK: u64 = 8 << 20;

/// Writes while the key is there, takes it, writes on, detaches, is refused, gives it back, and finds everything.
fn drill(take: &dyn Fn(&Scene), last: &str, refusal: &str, cause: &str, give_back: &[&str]) {
    let scene = Scene::new();
    scene.attach();
    let mut client = scene.opened();
    client.write(0, &[0x11; 4096]).unwrap();
    client.flush().unwrap();
    take(&scene);
    // The plaintext key is in the exporter's memory: the loss of the KMS key is not felt.
    client.write(MARK, &[0x22; 4096]).unwrap();
    client.flush().unwrap();
    let mut other = scene.opened();
    let mut bytes = [0; 4096];
    other.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0x11; 4096]);
    drop((client, other));
    scene.detach();
    scene.revoked();
    assert_eq!(scene.home.json("ec2 describe-volumes")["Volumes"][0]["State"], "available");
    assert_eq!(scene.home.processes(), [0; 0]);
    assert_eq!(scene.asked_since(last), refused(refusal), "and no Decrypt");
    assert_eq!(scene.last_cause(), format!("{} {cause}", scene.cmk));

    for (place, operation) in give_back.iter().enumerate() {
        if place > 0 {
            // A cancelled deletion leaves the key disabled: that is not enough yet.
            scene.revoked();
        }
        scene.on_key(operation);
    }
    scene.attach();
    let mut client = scene.opened();
    for (offset, byte) in [(0, 0x11), (MARK, 0x22)] {
        let mut bytes = [0; 4096];
        client.read(offset, &mut bytes).unwrap();
        assert_eq!(bytes, [byte; 4096], "at {offset}");
    }
    drop(client);
    scene.detach();
}

#[test]
fn a_disabled_key_is_felt_at_the_next_attach() {
    let take = |scene: &Scene| drop(scene.on_key("disable-key"));
    drill(&take, "DisableKey", "DisabledException", "is disabled.", &["enable-key"]);
}

#[test]
fn a_key_that_waits_for_its_deletion_is_felt_at_the_next_attach() {
    let take = |scene: &Scene| drop(scene.on_key("schedule-key-deletion"));
    let back = ["cancel-key-deletion", "enable-key"];
    drill(&take, "ScheduleKeyDeletion", "KMSInvalidStateException", "is pending deletion.", &back);
}

/// The grant of the attachment is used at the attach alone: revoked, it is missed by nobody, and the next attach makes another.
#[test]
fn a_revoked_grant_is_missed_by_nobody() {
    let scene = Scene::new();
    scene.attach();
    let mut client = scene.opened();
    client.write(0, &[0x41; 512]).unwrap();
    let grants = || scene.home.json(&format!("kms list-grants --key-id {}", scene.cmk))["Grants"].clone();
    let grant = grants()[0]["GrantId"].as_str().unwrap().to_owned();
    scene.home.text(&format!("kms revoke-grant --key-id {} --grant-id {grant}", scene.cmk));
    assert_eq!(grants(), json!([]));
    client.write(512, &[0x42; 512]).unwrap();
    client.flush().unwrap();
    drop(client);
    scene.detach();
    scene.attach();
    let asked = scene.asked_since("DetachVolume");
    let allowed = ["AttachVolume", "CreateGrant", "Decrypt"].map(|name| (name.to_owned(), Value::Null));
    assert_eq!(asked, allowed);
    let mut client = scene.opened();
    let mut bytes = [0; 1024];
    client.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [[0x41; 512], [0x42; 512]].concat().as_slice());
    drop(client);
    scene.detach();
}

/// Without the right to make grants, which is the revocation that a key's owner has in hand, the next attach is refused too.
#[test]
fn who_may_make_no_grant_attaches_nothing() {
    let scene = Scene::new();
    scene.attach();
    let mut client = scene.opened();
    client.write(0, &[0x51; 512]).unwrap();
    let policy = |deny: &[&str]| {
        json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "kms:*", "Resource": "*"},
            {"Effect": "Deny", "Principal": "*", "Action": deny, "Resource": "*",
             "Condition": {"Bool": {"kms:GrantIsForAWSResource": "true"}}}]})
        .to_string()
    };
    let put = |policy: &str| {
        let put = ["kms", "put-key-policy", "--key-id", &scene.cmk, "--policy", policy];
        let output = scene.home.run(put);
        assert!(output.status.success(), "{}", crate::harness::both(&output));
    };
    put(&policy(&["kms:CreateGrant"]));
    client.write(512, &[0x52; 512]).unwrap();
    client.flush().unwrap();
    drop(client);
    scene.detach();
    scene.revoked();
    assert_eq!(scene.asked_since("DetachVolume"), refused("AccessDeniedException"));
    put(&policy(&["kms:RevokeGrant"]));
    scene.attach();
    scene.detach();
}

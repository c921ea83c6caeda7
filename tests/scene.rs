//! The scene that the judges look at: a key, a volume under it, the volume attached.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::harness::{Home, oracle, succeed};

/// The id of a database whose volume the scene makes; from the KMS guide's page on RDS.
pub const DATABASE: &str = "db-CQYSMDPBRZ7BPMH7Y3RTDG5QY";

/// An encrypted volume of 1 GiB in a home of its own.
pub struct Scene {
    pub home: Home,
    /// ARN of the customer master key.
    pub cmk: String,
    /// The volume's id.
    pub volume: String,
}

impl Scene {
    pub fn new() -> Self {
        Self::in_home(Home::new(), &[])
    }

    /// With the release build, for tests that move much data.
    pub fn fast() -> Self {
        Self::in_home(Home::fast(), &[])
    }

    /// With more options for `create-volume`.
    pub fn in_home(home: Home, options: &[&str]) -> Self {
        let cmk = home.json("kms create-key")["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
        let mut create = vec!["ec2", "create-volume", "--size", "1", "--encrypted", "--kms-key-id", &cmk];
        create.extend(["--db-instance-resource-id", DATABASE]);
        create.extend(options);
        let volume = home.json_of(&create)["VolumeId"].as_str().unwrap().to_owned();
        Self { home, cmk, volume }
    }

    /// The volume's file.
    pub fn file(&self) -> PathBuf {
        self.home.path().join("volumes").join(format!("{}.luks", self.volume))
    }

    /// Attaches the volume; returns the URI under which NBD clients find it.
    pub fn attach(&self) -> String {
        self.home.json(&format!("ec2 attach-volume --volume-id {}", self.volume));
        self.uri()
    }

    /// The URI under which the attached volume is found.
    pub fn uri(&self) -> String {
        let socket = self.home.path().join("run").join(format!("{}.sock", self.volume));
        format!("nbd+unix:///{}?socket={}", self.volume, socket.display())
    }

    pub fn detach(&self) {
        self.home.json(&format!("ec2 detach-volume --volume-id {}", self.volume));
    }

    /// What the Python reader makes of the header: the copy that counts.
    pub fn header(&self) -> Value {
        let file = self.file();
        let arguments: [&OsStr; 2] = ["describe".as_ref(), file.as_ref()];
        let all: Value = serde_json::from_slice(&succeed(&mut oracle(&arguments))).unwrap();
        assert_eq!(all["primary"]["seqid"], all["secondary"]["seqid"], "both copies are written");
        all["current"].clone()
    }

    /// The header's only token.
    pub fn token(&self) -> Value {
        self.header()["metadata"]["tokens"]["0"].clone()
    }

    /// The data key, as `kms decrypt` returns it for the token's blob and context.
    pub fn data_key(&self) -> Vec<u8> {
        let token = self.token();
        let context = token["encryption_context"].to_string();
        let blob = token["ciphertext_blob"].as_str().unwrap();
        let decrypt = ["kms", "decrypt", "--ciphertext-blob", blob, "--encryption-context", &context];
        let answer = self.home.json_of(&decrypt);
        assert_eq!(answer["KeyId"], self.cmk.as_str());
        let key = STANDARD.decode(answer["Plaintext"].as_str().unwrap()).unwrap();
        assert_eq!(key.len(), 64);
        key
    }

    /// Puts a key into a file of the scratch folder.
    pub fn key_file(&self, name: &str, key: &[u8]) -> PathBuf {
        let path = self.home.scratch().join(name);
        fs::write(&path, key).unwrap();
        path
    }

    /// Decrypts a range of the file with the Python reader: what is stored, without our rule about zeros.
    pub fn decrypted(&self, key: &[u8], offset: u64, length: u64) -> Vec<u8> {
        let key = self.key_file("oracle.key", key);
        let (offset, length) = (offset.to_string(), length.to_string());
        let file = self.file();
        let arguments: [&OsStr; 5] = ["read".as_ref(), file.as_ref(), key.as_ref(), offset.as_ref(), length.as_ref()];
        succeed(&mut oracle(&arguments))
    }
}

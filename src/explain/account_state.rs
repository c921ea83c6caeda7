//! The state of an account as the AWS CLI prints it, made into a scratch home.
//!
//! Every `*.json` below the folder is read and known by its members, whatever its name: `kms describe-key`,
//! `get-key-policy`, `list-grants`, `list-aliases`, `list-resource-tags`, `iam get-account-authorization-details`, `ec2
//! describe-volumes`. A policy does not say whose it is, nor does an empty list of grants: its key is the one whose id stands
//! in the file's path, or the only one there is.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::ec2;
use crate::gate::ServiceError;
use crate::iam;
use crate::kms;
use crate::store::Home;

/// A file or a folder of them could be anything; what the AWS CLI prints of one account is smaller.
const MAX_FILE_BYTES: u64 = 64 << 20;
const MAX_DEPTH: usize = 8;

/// Why a folder is no account's state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file or folder cannot be read.
    #[error("{path} cannot be read")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what the AWS CLI prints.
    #[error("{path}: {what}")]
    NotAws {
        /// Which.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The state cannot be taken over.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// What was read, by kind, each with the file that it comes from.
#[derive(Default)]
struct Found {
    keys: Vec<(PathBuf, Value)>,
    policies: Vec<(PathBuf, String)>,
    grants: Vec<(PathBuf, Vec<Value>)>,
    tags: Vec<(PathBuf, Vec<Value>)>,
    aliases: Vec<(PathBuf, Vec<Value>)>,
    identities: Vec<(PathBuf, Value)>,
    volumes: Vec<(PathBuf, Value)>,
    /// What holds nothing of this, or nothing that can be used: what, and why.
    passed_over: Vec<String>,
}

/// Reads `dir` into a new scratch home; answers it with what was passed over, each in a sentence.
///
/// What is not in the folder is not known: identity policies, an organisation, a key's policy, grants, aliases or tags that
/// are not told make a verdict that hangs on them *undetermined*.
///
/// # Errors
/// [`StateError`].
pub fn load(dir: &Path) -> Result<(Home, Vec<String>), StateError> {
    let mut found = Found::default();
    for file in files_below(dir)? {
        sort(&mut found, file)?;
    }
    let home = Home::scratch().map_err(ServiceError::from)?;
    home.write(iam::directory::set_described).map_err(ServiceError::from)?;
    let of = |file: &Path| {
        let path = file.display().to_string();
        move |error: ServiceError| StateError::NotAws { path, what: error.message() }
    };
    let mut arns = Vec::new();
    for (file, key) in &found.keys {
        match kms::assume_key(&home, key).map_err(of(file))? {
            Some(arn) => arns.push(arn),
            None => found.passed_over.push(format!("{}: no key that EBS and RDS can use", file.display())),
        }
    }
    let whose = |file: &Path| {
        let inside = file.strip_prefix(dir).unwrap_or(file);
        whose(inside, &arns).map_err(|what| StateError::NotAws { path: file.display().to_string(), what })
    };
    for (file, policy) in &found.policies {
        kms::assume_policy(&home, whose(file)?, policy).map_err(of(file))?;
    }
    for (file, grants) in &found.grants {
        let arn = match grants.first().and_then(|grant| grant["KeyId"].as_str()) {
            Some(arn) => arn,
            None => whose(file)?,
        };
        kms::assume_grants(&home, arn, grants).map_err(of(file))?;
    }
    for (file, tags) in &found.tags {
        kms::assume_tags(&home, whose(file)?, tags).map_err(of(file))?;
    }
    for (file, aliases) in &found.aliases {
        kms::assume_aliases(&home, aliases).map_err(of(file))?;
    }
    for (file, identities) in &found.identities {
        home.write(|tx| iam::directory::assume(tx, identities).map_err(ServiceError::machine)).map_err(of(file))?;
    }
    for (file, volume) in &found.volumes {
        if !ec2::assume_volume(&home, volume).map_err(of(file))? {
            let what = format!("{}: volume {}, whose key is not described", file.display(), volume["VolumeId"]);
            found.passed_over.push(what);
        }
    }
    Ok((home, found.passed_over))
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>, StateError> {
    let mut files = Vec::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let unreadable = |source| StateError::Unreadable { path: folder.display().to_string(), source };
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            if entry.file_type().map_err(unreadable)?.is_dir() {
                if depth < MAX_DEPTH {
                    folders.push((path, depth + 1));
                }
            } else if path.extension().is_some_and(|found| found == "json") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn sort(found: &mut Found, file: PathBuf) -> Result<(), StateError> {
    let unreadable = |source| StateError::Unreadable { path: file.display().to_string(), source };
    if fs::metadata(&file).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        let what = format!("larger than {MAX_FILE_BYTES} bytes");
        return Err(StateError::NotAws { path: file.display().to_string(), what });
    }
    let text = fs::read_to_string(&file).map_err(unreadable)?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| StateError::NotAws { path: file.display().to_string(), what: error.to_string() })?;
    let mut known = false;
    if value["KeyMetadata"].is_object() {
        found.keys.push((file.clone(), value["KeyMetadata"].clone()));
        known = true;
    }
    // The answer, or the policy alone, as `--query Policy --output text` prints it.
    let policy = value["Policy"].as_str().or_else(|| value.get("Statement").map(|_| text.as_str()));
    if let Some(policy) = policy {
        found.policies.push((file.clone(), policy.to_owned()));
        known = true;
    }
    let list = |member: &str| value[member].as_array().cloned();
    if let Some(grants) = list("Grants") {
        found.grants.push((file.clone(), grants));
        known = true;
    }
    // EC2's and others' lists of tags are spelled otherwise.
    if let Some(tags) = list("Tags").filter(|tags| tags.iter().all(|tag| tag["TagKey"].is_string())) {
        found.tags.push((file.clone(), tags));
        known = true;
    }
    if let Some(aliases) = list("Aliases") {
        found.aliases.push((file.clone(), aliases));
        known = true;
    }
    if let Some(volumes) = list("Volumes") {
        found.volumes.extend(volumes.into_iter().map(|volume| (file.clone(), volume)));
        known = true;
    }
    if ["UserDetailList", "RoleDetailList"].iter().any(|member| value[*member].is_array()) {
        found.identities.push((file.clone(), value));
        known = true;
    }
    if !known {
        found.passed_over.push(format!("{}: it holds nothing that decides here", file.display()));
    }
    Ok(())
}

/// The key that a policy's file is about.
fn whose<'a>(file: &Path, arns: &'a [String]) -> Result<&'a str, String> {
    let path = file.to_string_lossy();
    let named: Vec<_> = arns.iter().filter(|arn| path.contains(arn.rsplit('/').next().unwrap_or(arn))).collect();
    match (&named[..], arns) {
        ([one], _) => Ok(one),
        ([], [one]) => Ok(one),
        ([], _) => Err("it does not say of which key it is: put the key's id into the file's name".to_owned()),
        _ => Err("the file's path names more than one key".to_owned()),
    }
}

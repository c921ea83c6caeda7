//! `trail`: the files of the trail, and whether they are as they were delivered.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Group, Outcome, Verb, arguments};
use crate::api::Parameter;
use crate::cli::{CliError, Session};
use crate::gate::ServiceError;
use crate::kms::digests;
use crate::trail::{self, PublicKey, VerifyError};

pub(super) static GROUP: Group = Group {
    name: "trail",
    help: "The log and digest files of the trail",
    verbs: &[
        Verb {
            name: "deliver",
            help: "Puts the records that wait into log files now, and makes the digests that are due",
            parameters: &[],
            run: deliver,
        },
        Verb {
            name: "verify",
            help: "Finds the first file or record that was changed, removed or added; exit code 1 if there is one",
            parameters: &[
                Parameter::string("From", "A folder with a trail, instead of this home's; needs --public-key.").ours(),
                Parameter::string("PublicKey", "A file with the public key that was kept; this home's own if absent.")
                    .ours(),
                Parameter::strings("ExpectTail", "Hashes that `trail tail` printed: each must be found in a chain.")
                    .ours(),
            ],
            run: verify,
        },
        Verb {
            name: "tail",
            help: "Shows the hash of the last digest of each trail: keep it where the holder of this home cannot write",
            parameters: &[],
            run: tail,
        },
        super::report::REPORT,
        Verb {
            name: "public-key",
            help: "Prints the key that verifies this home's digests (PEM)",
            parameters: &[],
            run: public_key,
        },
    ],
};

/// Said whenever a trail is found whole: what that is worth.
const NO_TAIL: &str = "No tail was given that was kept elsewhere: whoever holds the home and its key could have written \
                       all of this anew.";
const WITH_TAIL: &str = "Up to the tails that were given, nobody without them could have written this anew.";

fn deliver(session: &Session, _: Value) -> Result<Outcome, CliError> {
    let home = session.home()?;
    digests::deliver_now(home).map_err(|error| CliError::service("trail deliver", error))?;
    Ok(Outcome::done())
}

fn verify(session: &Session, given: Value) -> Result<Outcome, CliError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Verify {
        from: Option<PathBuf>,
        public_key: Option<PathBuf>,
        #[serde(default)]
        expect_tail: Vec<String>,
    }
    let Verify { from, public_key, expect_tail } = arguments(given)?;
    let key = public_key.as_deref().map(read_key).transpose()?;
    let report = match (from, key) {
        (Some(from), Some(key)) => trail::verify(&from, &key, &expect_tail),
        (Some(_), None) => {
            let why = "a folder is verified against a key that was kept: give --public-key".to_owned();
            return Err(CliError::parameter("--from", why));
        }
        (None, key) => {
            let home = session.home()?;
            let own = home.read(digests::known_public_key).map_err(|error| CliError::service("trail verify", error))?;
            trail::verify_home(home, key.or(own), &expect_tail)
        }
    }
    .map_err(|error| match error {
        VerifyError::NoTrail(_) => CliError::parameter("--from", error.to_string()),
        other => CliError::machine(other),
    })?;
    let whole = report.damage.is_empty();
    let mut shown = json!({"Verdict": if whole { "whole" } else { "damaged" }});
    if let (Value::Object(shown), Value::Object(report)) =
        (&mut shown, serde_json::to_value(&report).map_err(CliError::machine)?)
    {
        shown.extend(report);
        shown.insert("Note".to_owned(), if expect_tail.is_empty() { NO_TAIL } else { WITH_TAIL }.into());
    }
    let outcome = Outcome::value(shown);
    Ok(if whole { outcome } else { outcome.failed() })
}

fn read_key(path: &Path) -> Result<PublicKey, CliError> {
    let refused = |why: String| CliError::parameter("--public-key", format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    PublicKey::parse(&text).map_err(|error| refused(error.to_string()))
}

fn tail(session: &Session, _: Value) -> Result<Outcome, CliError> {
    let tails = session.home()?.read(trail::tails)?;
    Ok(Outcome::value(json!({"Tails": tails})))
}

fn public_key(session: &Session, _: Value) -> Result<Outcome, CliError> {
    let key = digests::public_key(session.home()?).map_err(|error| CliError::service("trail public-key", error))?;
    let pem = key.to_pem().map_err(|error| CliError::service("trail public-key", ServiceError::machine(error)))?;
    Ok(Outcome::text(pem))
}

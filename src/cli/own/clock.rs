//! `clock`: the home's movable clock.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Group, Outcome, Verb, arguments};
use crate::api::Parameter;
use crate::cli::{CliError, Session};
use crate::clock::{Clock, parse_duration};
use crate::{ec2, gate};

pub(super) static GROUP: Group = Group {
    name: "clock",
    help: "The clock of this home, which can be moved forward",
    verbs: &[
        Verb {
            name: "show",
            help: "Shows the time on the home's clock and how far it runs ahead of the machine's",
            parameters: &[],
            run: show,
        },
        Verb {
            name: "advance",
            help: "Moves the home's clock forward; what falls due on the way is done",
            parameters: &[Parameter::string("Duration", "How far, such as 90s, 30m, 2h, 7d, 1w or a sum: 7d12h.")
                .required()
                .ours()
                .positional()],
            run: advance,
        },
    ],
};

fn show(session: &Session, _: Value) -> Result<Outcome, CliError> {
    Ok(shown(session.home()?.clock()?))
}

fn advance(session: &Session, given: Value) -> Result<Outcome, CliError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Advance {
        duration: String,
    }
    let Advance { duration } = arguments(given)?;
    let refused = |what: &str| CliError::parameter("DURATION", format!("'{duration}' {what}"));
    let by = parse_duration(&duration)
        .ok_or_else(|| refused("is not a length of time such as 90s, 30m, 2h, 7d or 7d12h"))?;
    let home = session.home()?;
    // The clock never goes back: one that stands at its end would be of no use to anybody.
    let ahead = home.clock()?.offset().checked_add(by);
    if ahead.is_none_or(|ahead| Timestamp::now().checked_add(ahead).is_err()) {
        return Err(refused("goes past the end of the year 9999"));
    }
    let moved = home.advance_clock(by)?;
    gate::settle(home, ec2::SETTLERS).map_err(|error| CliError::service("clock advance", error))?;
    Ok(shown(moved))
}

fn shown(clock: Clock) -> Outcome {
    Outcome::value(json!({ "Time": clock.now(), "AheadSeconds": clock.offset().as_secs() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Globals;
    use crate::kms;
    use crate::store::StoreError;

    #[test]
    fn what_falls_due_is_done_without_a_further_command() {
        let base = tempfile::tempdir().unwrap();
        let session = Session::new(Globals { home: Some(base.path().join("home")), ..Globals::default() });
        let call = session.call().unwrap();
        let key = kms::create_key(&call, kms::CreateKeyRequest::default()).unwrap().key_metadata.key_id;
        let request = serde_json::from_value(json!({"KeyId": key, "PendingWindowInDays": 7})).unwrap();
        kms::schedule_key_deletion(&call, request).unwrap();
        let undestroyed = || -> u32 {
            let count = "SELECT count(*) FROM kms_materials WHERE sealed <> zeroblob(length(sealed))";
            let home = session.home().unwrap();
            home.read(|tx| Ok::<_, StoreError>(tx.query_row(count, [], |row| row.get(0))?)).unwrap()
        };
        advance(&session, json!({"Duration": "6d"})).unwrap();
        assert_eq!(undestroyed(), 1, "a day is left");
        advance(&session, json!({"Duration": "1d1s"})).unwrap();
        assert_eq!(undestroyed(), 0);
    }
}

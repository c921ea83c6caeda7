//! `events`: what EBS told `EventBridge` of volumes, one event of JSON a line.

use std::io::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{Group, Outcome, Verb, arguments};
use crate::api::Parameter;
use crate::cli::{CliError, Session};
use crate::clock::parse_time;
use crate::ec2::events::{self, Event, Wanted};
use crate::{ec2, gate};

const VOLUME_ID: Parameter = Parameter::string("VolumeId", "Only those of this volume.").ours();

pub(super) static GROUP: Group = Group {
    name: "events",
    help: "EBS volume notifications of the last seven days, as EventBridge gets them",
    verbs: &[
        Verb {
            name: "list",
            help: "Prints them, oldest first, one a line",
            parameters: &[VOLUME_ID, Parameter::string("Since", "Only those of this time or later (ISO 8601).").ours()],
            run: list,
        },
        Verb {
            name: "tail",
            help: "Prints the last ones; with --follow also those that come, until it is ended",
            parameters: &[
                VOLUME_ID,
                Parameter::integer("Lines", "How many at first: 10, unless said otherwise.").ours(),
                Parameter::boolean("Follow", "Go on with those that come.").ours(),
            ],
            run: tail,
        },
    ],
};

/// How often it is looked for new ones.
const EVERY: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    volume_id: Option<String>,
    since: Option<String>,
    lines: Option<usize>,
    #[serde(default)]
    follow: bool,
}

impl Given {
    fn wanted(&self) -> Result<Wanted, CliError> {
        let volume = self.volume_id.as_deref().map(str::parse).transpose();
        let volume =
            volume.map_err(|error: crate::ids::IdError| CliError::parameter("--volume-id", error.to_string()))?;
        let since = self.since.as_deref().map(|text| {
            parse_time(text).ok_or_else(|| CliError::parameter("--since", format!("'{text}' is not a time")))
        });
        Ok(Wanted { volume, since: since.transpose()?, after: 0 })
    }
}

fn list(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given: Given = arguments(given)?;
    Ok(Outcome::text(text(&found(session, &given.wanted()?)?)))
}

fn tail(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given: Given = arguments(given)?;
    let mut wanted = given.wanted()?;
    let all = found(session, &wanted)?;
    let first = all.len().saturating_sub(given.lines.unwrap_or(10));
    if !given.follow {
        return Ok(Outcome::text(text(&all[first..])));
    }
    let mut out = std::io::stdout();
    let mut new = &all[first..];
    wanted.after = all.last().map_or(0, |last| last.seq);
    let mut later;
    loop {
        // Who reads them has gone: there is nobody to go on for.
        if write!(out, "{}", text(new)).and_then(|()| out.flush()).is_err() {
            return Ok(Outcome::done());
        }
        wanted.after = new.last().map_or(wanted.after, |last| last.seq);
        std::thread::sleep(EVERY);
        later = found(session, &wanted)?;
        new = &later;
    }
}

/// What there is once everything that is due has happened.
fn found(session: &Session, wanted: &Wanted) -> Result<Vec<Event>, CliError> {
    let home = session.home()?;
    gate::settle(home, ec2::SETTLERS).map_err(|error| CliError::service("events", error))?;
    Ok(events::list(home, wanted)?)
}

fn text(events: &[Event]) -> String {
    let mut lines = String::new();
    for event in events {
        lines.push_str(&event.told.to_string());
        lines.push('\n');
    }
    lines
}

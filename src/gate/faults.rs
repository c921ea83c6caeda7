//! Faults to order: an operation that is throttled, out of service, slow, or whose effect is known late, so that what
//! calls it can be rehearsed. Kept in the home until they are cleared, for every process that uses it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use rusqlite::params;

use crate::clock::parse_duration;
use crate::store::{Home, StoreError, Transaction};

use super::{Operation, Refusal, ServiceError};

/// The longest wait that a fault can make of a call.
const LONGEST_LATENCY: Duration = Duration::from_mins(10);

/// What is wrong with an operation.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// `throttle:0.2`: that part of the calls, 0 to 1, is refused as too many. 0 never is and 1 always.
    Throttle(f64),
    /// `unavailable`: every call is refused with an error of the server, which a client tries again.
    Unavailable,
    /// `latency:200ms`: every call waits that long before it begins, on the machine's clock.
    Latency(Duration),
    /// `eventual:5m`: what the call made is known everywhere only that much later, on the home's clock. Of
    /// `kms.CreateGrant` alone, whose token is good before.
    Eventual(SignedDuration),
}

/// A text that is no fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{0}' is not a fault: give throttle:PART (0 to 1), unavailable, latency:TIME (such as 200ms or 2s, up to 10m) or eventual:TIME (up to 1h)"
)]
pub struct FaultError(String);

impl Fault {
    /// The word in front of its colon. An operation has at most one fault of each kind.
    const fn kind(self) -> &'static str {
        match self {
            Self::Throttle(_) => "throttle",
            Self::Unavailable => "unavailable",
            Self::Latency(_) => "latency",
            Self::Eventual(_) => "eventual",
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let refuse = || FaultError(text.chars().take(80).collect());
        match text.split_once(':') {
            Some(("throttle", part)) => {
                let part = part.parse().ok().filter(|part| (0.0..=1.0).contains(part)).ok_or_else(refuse)?;
                Ok(Self::Throttle(part))
            }
            Some(("latency", time)) => {
                let latency = match time.strip_suffix("ms") {
                    Some(millis) => millis.parse().ok().map(Duration::from_millis),
                    None => parse_duration(time).and_then(|time| Duration::try_from(time).ok()),
                };
                latency.filter(|latency| *latency <= LONGEST_LATENCY).map(Self::Latency).ok_or_else(refuse)
            }
            Some(("eventual", time)) => {
                let delay = parse_duration(time).filter(|delay| *delay <= SignedDuration::from_hours(1));
                delay.map(Self::Eventual).ok_or_else(refuse)
            }
            None if text == "unavailable" => Ok(Self::Unavailable),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throttle(part) => write!(f, "throttle:{part}"),
            Self::Unavailable => f.write_str("unavailable"),
            Self::Latency(latency) => write!(f, "latency:{}ms", latency.as_millis()),
            Self::Eventual(delay) => write!(f, "eventual:{}s", delay.as_secs()),
        }
    }
}

/// Orders `fault` for `operation`, named as `kms.Decrypt`; an earlier one of its kind is replaced.
///
/// # Errors
/// That of the store.
pub fn set(home: &Home, operation: &str, fault: Fault) -> Result<(), StoreError> {
    home.write(|tx| {
        tx.execute(
            "INSERT OR REPLACE INTO faults (operation, kind, fault) VALUES (?1, ?2, ?3)",
            params![operation, fault.kind(), fault.to_string()],
        )?;
        Ok(())
    })
}

/// All ordered faults, in the order of their operations' names.
///
/// # Errors
/// That of the store.
pub fn list(home: &Home) -> Result<Vec<(String, Fault)>, StoreError> {
    home.read(|tx| {
        let mut statement = tx.prepare_cached("SELECT operation, fault FROM faults ORDER BY operation, kind")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(rows.into_iter().filter_map(|(operation, fault)| Some((operation, fault.parse().ok()?))).collect())
    })
}

/// Clears the faults of `operation`, or all. Answers how many there were.
///
/// # Errors
/// That of the store.
pub fn clear(home: &Home, operation: Option<&str>) -> Result<usize, StoreError> {
    home.write(|tx| Ok(tx.execute("DELETE FROM faults WHERE ?1 IS NULL OR operation = ?1", [operation])?))
}

/// The faults of an operation.
pub(super) fn of(tx: &Transaction<'_>, operation: &Operation) -> Result<Vec<Fault>, StoreError> {
    let name = name(operation);
    tx.recall(&name, || {
        let mut statement = tx.prepare_cached("SELECT fault FROM faults WHERE operation = ?1 ORDER BY kind")?;
        let rows = statement.query_map([&name], |row| row.get::<_, String>(0))?;
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(rows.iter().filter_map(|fault| fault.parse().ok()).collect())
    })
}

/// How much later than now what `operation` makes is known everywhere.
///
/// # Errors
/// That of the store.
pub fn eventual(tx: &Transaction<'_>, operation: &Operation) -> Result<SignedDuration, StoreError> {
    let delay = |fault: Fault| if let Fault::Eventual(delay) = fault { Some(delay) } else { None };
    Ok(of(tx, operation)?.into_iter().find_map(delay).unwrap_or(SignedDuration::ZERO))
}

/// Lets `faults` come over a call of `operation`: waits, and then refuses it or lets it go on. Outside any transaction.
pub(super) fn strike(faults: &[Fault], operation: &Operation) -> Result<(), ServiceError> {
    for fault in faults {
        if let Fault::Latency(latency) = fault {
            std::thread::sleep(*latency);
        }
    }
    for fault in faults {
        match *fault {
            Fault::Throttle(part) if is_hit(part)? => return Err(throttled(operation)),
            Fault::Unavailable => return Err(unavailable(operation)),
            _ => {}
        }
    }
    Ok(())
}

fn is_hit(part: f64) -> Result<bool, ServiceError> {
    if part <= 0.0 || part >= 1.0 {
        return Ok(part >= 1.0);
    }
    let drawn = getrandom::u32().map_err(ServiceError::machine)?;
    Ok(f64::from(drawn) < part * (f64::from(u32::MAX) + 1.0))
}

fn name(operation: &Operation) -> String {
    format!("{}.{}", service(operation), operation.name)
}

fn service(operation: &Operation) -> &'static str {
    let source = operation.service.event_source;
    source.strip_suffix(".amazonaws.com").unwrap_or(source)
}

fn refusal(code: &'static str, status: u16, message: &str) -> ServiceError {
    ServiceError::Refused(Refusal { code, message: message.to_owned(), status, hint: None })
}

/// KMS's words are from its developer guide ("Throttling AWS KMS requests"), EC2's from its API reference ("Error codes").
fn throttled(operation: &Operation) -> ServiceError {
    match service(operation) {
        "kms" => refusal(
            "ThrottlingException",
            400,
            "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
        ),
        "ec2" => refusal("RequestLimitExceeded", 503, "Request limit exceeded."),
        _ => refusal("ThrottlingException", 400, "Rate exceeded"),
    }
}

/// The codes are AWS's, the messages ours (assumed). KMS answers `KeyUnavailableException` where a key is used.
fn unavailable(operation: &Operation) -> ServiceError {
    let uses_key = ["Encrypt", "Decrypt", "ReEncrypt", "GenerateDataKey"];
    match service(operation) {
        "kms" if uses_key.iter().any(|name| operation.name.starts_with(name)) => {
            refusal("KeyUnavailableException", 500, "The key is not available. Try again.")
        }
        "kms" => refusal("KMSInternalException", 500, "An internal error occurred. Try again."),
        "ec2" => refusal("Unavailable", 503, "The service is unavailable. Please try again shortly."),
        _ => refusal("ServiceUnavailableException", 503, "The service is unavailable. Try again."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        for text in ["throttle:0.2", "throttle:0", "throttle:1", "unavailable", "latency:200ms", "eventual:300s"] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        assert_eq!("latency:2s".parse::<Fault>().unwrap(), Fault::Latency(Duration::from_secs(2)));
        assert_eq!("eventual:5m".parse::<Fault>().unwrap(), Fault::Eventual(SignedDuration::from_mins(5)));
        for bad in [
            "",
            "throttle",
            "throttle:",
            "throttle:1.1",
            "throttle:-0.1",
            "throttle:NaN",
            "latency:11m",
            "latency:ms",
            "latency:-1ms",
            "latency:1",
            "eventual:2h",
            "unavailable:1",
            "gone",
        ] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_of_the_calls_is_hit_and_at_the_ends_none_or_all() {
        let hits = |part| (0..2000).filter(|_| is_hit(part).unwrap()).count();
        assert_eq!((hits(0.0), hits(1.0)), (0, 2000));
        // 400 expected; ten standard deviations to either side.
        assert!((220..580).contains(&hits(0.2)));
    }
}

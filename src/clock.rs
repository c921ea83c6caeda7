//! One clock that can be moved forward, because deletion windows and retention periods must be testable in a second.
//!
//! A [`Clock`] is the machine's clock plus an offset that the home keeps (`store` reads and writes it). Programs that we
//! start keep the machine's clock.

use std::fmt;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// The machine's clock, moved forward by a fixed offset.
///
/// It may stand still, for tests that compare times: then it moves only when it is moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    offset: SignedDuration,
    stands_at: Option<Time>,
}

impl Clock {
    /// A clock that runs `offset` ahead of the machine's.
    pub const fn ahead_by(offset: SignedDuration) -> Self {
        Self { offset, stands_at: None }
    }

    /// The same clock, standing still at `time`.
    #[must_use]
    pub const fn standing_at(self, time: Option<Time>) -> Self {
        Self { stands_at: time, ..self }
    }

    /// Where it stands still, if it does.
    pub const fn stands_at(self) -> Option<Time> {
        self.stands_at
    }

    /// How far it runs ahead of the machine's clock.
    pub const fn offset(self) -> SignedDuration {
        self.offset
    }

    /// The time it shows now, in whole microseconds. Saturates at the end of the year 9999.
    pub fn now(self) -> Time {
        if let Some(time) = self.stands_at {
            return time;
        }
        let now = Timestamp::now().saturating_add(self.offset).unwrap_or(Timestamp::MAX);
        Time(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
    }
}

/// A point in time of the movable clock, in whole microseconds.
///
/// Serialised as the AWS CLI prints times: `2026-11-24T04:29:58.123000+00:00`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Time(Timestamp);

impl Time {
    /// The time `micros` microseconds after 1970; `None` outside the years -9999 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        Timestamp::from_microsecond(micros).ok().map(Self)
    }

    /// Microseconds since 1970, the form in which the store keeps times.
    pub fn micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// Milliseconds since 1970, as EC2's CloudTrail records give them.
    pub fn millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// The time `duration` later, saturating at the end of the year 9999.
    #[must_use]
    pub fn after(self, duration: SignedDuration) -> Self {
        Self(self.0.saturating_add(duration).unwrap_or(Timestamp::MAX))
    }

    /// `2026-11-24T04:29:58Z`: whole seconds, as CloudTrail writes `eventTime`.
    pub fn to_seconds_string(self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// The time in UTC as `strftime` of jiff formats it.
    pub fn format_utc(self, format: &str) -> String {
        TimeZone::UTC.to_datetime(self.0).strftime(format).to_string()
    }

    /// The next time after this one that is a whole multiple of `seconds` since 1970: of 300, the next five minutes' begin.
    #[must_use]
    pub fn next_multiple_of(self, seconds: i64) -> Self {
        let passed = self.0.as_second().rem_euclid(seconds.max(1));
        let begun = self.0.as_second() - passed;
        Timestamp::from_second(begun).map_or(self, |begun| Self(begun).after(SignedDuration::from_secs(seconds)))
    }

    /// `Nov 24, 2026 4:29:58 AM`, as CloudTrail writes dates inside KMS responses.
    pub fn to_trail_date_string(self) -> String {
        TimeZone::UTC.to_datetime(self.0).strftime("%b %-d, %Y %-I:%M:%S %p").to_string()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00"))
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_time(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("'{text}' is not a time (ISO 8601 or Unix seconds)")))
    }
}

/// A time as the AWS CLI takes it: ISO 8601 with or without a zone (UTC then), a date alone, or Unix seconds.
pub fn parse_time(text: &str) -> Option<Time> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(Time(time));
    }
    if let Ok(datetime) = text.parse::<jiff::civil::DateTime>() {
        return TimeZone::UTC.to_timestamp(datetime).ok().map(Time);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Time::from_micros(seconds.checked_mul(1_000_000)?.checked_add(micros)?)
}

/// A length of time as `clock advance` takes it: `90s`, `30m`, `2h`, `7d`, `1w`, or a sum such as `7d12h`.
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let mut total = 0i64;
    let mut digits = String::new();
    let mut any = false;
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let seconds = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(digits.parse::<i64>().ok()?.checked_mul(seconds)?)?;
        digits.clear();
        any = true;
    }
    (any && digits.is_empty()).then(|| SignedDuration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_aws_prints_them() {
        let time = Time::from_micros(1_618_253_910_250_000).unwrap();
        assert_eq!(time.to_string(), "2021-04-12T18:58:30.250000+00:00");
        assert_eq!(time.to_seconds_string(), "2021-04-12T18:58:30Z");
        assert_eq!(time.to_trail_date_string(), "Apr 12, 2021 6:58:30 PM");
        assert_eq!(parse_time(&time.to_string()), Some(time));
    }

    #[test]
    fn the_next_five_minutes_begin_after_now() {
        let time = |text: &str| parse_time(text).unwrap();
        assert_eq!(time("2021-04-12T18:58:30Z").next_multiple_of(300), time("2021-04-12T19:00:00Z"));
        assert_eq!(time("2021-04-12T19:00:00Z").next_multiple_of(300), time("2021-04-12T19:05:00Z"));
        assert_eq!(time("1969-12-31T23:58:00Z").next_multiple_of(3600), time("1970-01-01T00:00:00Z"));
        assert_eq!(time("2021-04-12T18:58:30Z").format_utc("%Y/%m/%d %H"), "2021/04/12 18");
    }

    #[test]
    fn times_are_read_in_every_form_of_the_aws_cli() {
        let noon = Time::from_micros(1_618_228_800_000_000);
        for text in [
            "2021-04-12T12:00:00Z",
            "2021-04-12T12:00:00",
            "2021-04-12 12:00:00",
            "1618228800",
            "1618228800.0",
            "2021-04-12T14:00:00+02:00",
        ] {
            assert_eq!(parse_time(text), noon, "{text}");
        }
        assert!(parse_time("2021-04-12").is_some());
        assert!(parse_time("soon").is_none() && parse_time("").is_none());
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("7d12h"), Some(SignedDuration::from_hours(180)));
        assert_eq!(parse_duration("90s"), Some(SignedDuration::from_secs(90)));
        for bad in ["", "7", "d", "7 d", "-1d", "7y", "99999999999999999999d", "9223372036854775807w"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_moved_clock_is_ahead() {
        let day = SignedDuration::from_hours(24);
        assert!(Clock::ahead_by(day).now() >= Clock::default().now().after(SignedDuration::from_hours(23)));
    }
}

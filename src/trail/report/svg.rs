//! The report as a picture: calls over time, by whom, and for which volume.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::clock::Time;

use super::{Seconds, Told, shown};

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 340.0;
const RIGHT: f64 = 1050.0;
const TOP: f64 = 92.0;
const BARS: f64 = 150.0;
const LANE: f64 = 24.0;
const MOST_CALLERS: usize = 8;
const MOST_CONTEXTS: usize = 12;
const MOST_BUCKETS: i64 = 120;
/// Letters of a label that fit beside a lane.
const LABEL: usize = 44;

/// Two colours that people with colour-blindness tell apart (Okabe and Ito); what was refused has a shape of its own too.
const DONE: &str = "#0072b2";
const REFUSED: &str = "#d55e00";

/// Lengths of a bar, and of the distance between two marks, in seconds.
const STEPS: [i64; 18] = [
    1,
    10,
    60,
    300,
    600,
    1800,
    3600,
    10_800,
    21_600,
    43_200,
    86_400,
    172_800,
    604_800,
    1_209_600,
    2_592_000,
    7_776_000,
    31_536_000,
    315_360_000,
];

/// An SVG document: calls over time as bars, then a lane for each caller and for each volume or other context. Times are in
/// UTC.
pub fn timeline(told: &Told) -> String {
    let report = &told.report;
    let all = &told.tracks.all;
    let first = all.keys().min().copied().unwrap_or(0);
    let last = all.keys().max().copied().unwrap_or(first);
    let scale = Scale::of(first, last);
    let mut callers: Vec<_> = told.tracks.callers.iter().map(|(who, seconds)| (name_of_caller(who), seconds)).collect();
    let mut contexts: Vec<_> =
        told.tracks.contexts.iter().map(|(context, seconds)| (name_of_context(context), seconds)).collect();
    for lanes in [&mut callers, &mut contexts] {
        lanes.sort_by(|one, other| calls(other.1).cmp(&calls(one.1)).then_with(|| one.0.cmp(&other.0)));
    }
    let mut picture = Picture::default();
    let bottom = picture.bars(&scale, all, TOP);
    let bottom = picture.lanes(&scale, "who called", &callers, MOST_CALLERS, bottom + 46.0);
    let bottom = picture.lanes(&scale, "under which context", &contexts, MOST_CONTEXTS, bottom + 20.0);
    let bottom = picture.notes(told, bottom + 26.0);
    let key = report.keys.first().map_or("no such key", String::as_str);
    let subtitle = match (&report.first, &report.last) {
        (Some(first), Some(last)) => {
            let calls = if report.calls == 1 { "call" } else { "calls" };
            format!("{first} to {last}: {} {calls}, {} refused or failed", report.calls, report.refused)
        }
        _ => "no call is recorded".to_owned(),
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {bottom:.0}\" width=\"{WIDTH}\" \
         height=\"{bottom:.0}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>Use of {0}</title>\n\
         <defs><pattern id=\"refused\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"{REFUSED}\"/>\
         <rect width=\"2\" height=\"6\" fill=\"white\" fill-opacity=\"0.6\"/></pattern></defs>\n\
         <rect width=\"{WIDTH}\" height=\"{bottom:.0}\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"28\" font-size=\"16\" font-weight=\"bold\">Use of {0}</text>\n\
         <text x=\"20\" y=\"48\" fill=\"#444\">{1}</text>\n{2}</svg>\n",
        escaped(key),
        escaped(&subtitle),
        picture.0
    )
}

/// From seconds to places.
struct Scale {
    from: i64,
    until: i64,
    bucket: i64,
}

impl Scale {
    fn of(first: i64, last: i64) -> Self {
        let span = (last - first).max(1);
        let bucket = STEPS.into_iter().find(|step| span / step < MOST_BUCKETS).unwrap_or(STEPS[17]);
        let from = first.div_euclid(bucket) * bucket;
        let until = (last.div_euclid(bucket) + 1) * bucket;
        Self { from, until: until.max(from + 10 * bucket), bucket }
    }

    #[expect(clippy::cast_precision_loss, reason = "a picture needs four digits")]
    fn x(&self, at: i64) -> f64 {
        LEFT + (at - self.from) as f64 / (self.until - self.from) as f64 * (RIGHT - LEFT)
    }

    /// Calls and refused calls by bucket.
    fn buckets(&self, seconds: &Seconds) -> BTreeMap<i64, (u64, u64)> {
        let mut buckets: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
        for (at, (calls, refused)) in seconds {
            let bucket = buckets.entry(at.div_euclid(self.bucket) * self.bucket).or_default();
            bucket.0 += u64::from(*calls);
            bucket.1 += u64::from(*refused);
        }
        buckets
    }

    fn width(&self) -> f64 {
        (self.x(self.from + self.bucket) - LEFT - 1.0).max(1.0)
    }
}

#[derive(Default)]
struct Picture(String);

impl Picture {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = self.0.write_fmt(text);
        self.0.push('\n');
    }

    /// The calls of all as bars, with both axes; answers where it ends.
    fn bars(&mut self, scale: &Scale, seconds: &Seconds, top: f64) -> f64 {
        let buckets = scale.buckets(seconds);
        let most = buckets.values().map(|(calls, _)| *calls).max().unwrap_or(0);
        let (step, highest) = ticks(most);
        let bottom = top + BARS;
        let height = |calls: u64| share(calls, highest) * BARS;
        let label = format!("calls in {}", length(scale.bucket));
        self.line(format_args!("<text x=\"20\" y=\"{:.1}\" font-weight=\"bold\">{label}</text>", top + 4.0));
        for level in (0..=highest).step_by(usize::try_from(step).unwrap_or(1).max(1)) {
            let y = bottom - height(level);
            self.line(format_args!(
                "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#444\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                grouped(level)
            ));
        }
        for (at, (calls, refused)) in &buckets {
            let (x, width) = (scale.x(*at), scale.width());
            let (done, failed) = (height(calls - refused), height(*refused));
            let told = format!("{}: {calls} calls, {refused} refused or failed", shown(*at));
            self.line(format_args!("<g><title>{told}</title>"));
            if *calls > *refused {
                let (y, done) = (bottom - done.max(1.0), done.max(1.0));
                self.line(format_args!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{done:.1}\" fill=\"{DONE}\"/>"
                ));
            }
            if *refused > 0 {
                let failed = failed.max(3.0);
                let y = bottom - done - failed;
                self.line(format_args!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{failed:.1}\" fill=\"url(#refused)\"/>"
                ));
            }
            self.line(format_args!("</g>"));
        }
        self.line(format_args!(
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\" stroke=\"#444\"/>"
        ));
        self.time_axis(scale, bottom);
        bottom
    }

    /// Marks of time below `y`; each day and the first mark have a date.
    fn time_axis(&mut self, scale: &Scale, y: f64) {
        let span = scale.until - scale.from;
        let step = STEPS.into_iter().find(|step| span / step <= 8).unwrap_or(STEPS[17]);
        let mut at = scale.from.div_euclid(step) * step;
        let mut day = None;
        while at <= scale.until {
            if at >= scale.from {
                let x = scale.x(at);
                self.line(format_args!(
                    "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{:.1}\" stroke=\"#444\"/>",
                    y + 5.0
                ));
                let format = if step < 60 { "%H:%M:%S" } else { "%H:%M" };
                let (date, time) = (utc(at, "%-d %b %Y"), utc(at, format));
                let first = if step < 86_400 { time } else { date.clone() };
                self.line(format_args!(
                    "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">{first}</text>",
                    y + 18.0
                ));
                if step < 86_400 && day.as_ref() != Some(&date) {
                    self.line(format_args!(
                        "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">{date}</text>",
                        y + 32.0
                    ));
                }
                day = Some(date);
            }
            at += step;
        }
        self.line(format_args!("<text x=\"20\" y=\"{:.1}\" fill=\"#444\">time (UTC)</text>", y + 18.0));
    }

    /// A lane for each of the first `most`; answers where they end.
    fn lanes(&mut self, scale: &Scale, title: &str, lanes: &[(String, &Seconds)], most: usize, top: f64) -> f64 {
        if lanes.is_empty() {
            return top - 20.0;
        }
        self.line(format_args!("<text x=\"20\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>", top + 4.0));
        let mut y = top + 12.0;
        for (index, (name, seconds)) in lanes.iter().take(most).enumerate() {
            if index % 2 == 0 {
                self.line(format_args!(
                    "<rect x=\"14\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{LANE}\" fill=\"#f4f4f4\"/>",
                    RIGHT - 14.0
                ));
            }
            self.lane(scale, name, seconds, y);
            y += LANE;
        }
        if lanes.len() > most {
            let more = lanes.len() - most;
            self.line(format_args!("<text x=\"20\" y=\"{:.1}\" fill=\"#444\">and {more} more</text>", y + 15.0));
            y += LANE;
        }
        y
    }

    fn lane(&mut self, scale: &Scale, name: &str, seconds: &Seconds, y: f64) {
        let buckets = scale.buckets(seconds);
        let most = buckets.values().map(|(calls, _)| *calls).max().unwrap_or(1);
        let total = calls(seconds);
        self.line(format_args!(
            "<text x=\"20\" y=\"{0:.1}\" font-size=\"11\"><title>{1}: {total} calls</title>{2}</text>",
            y + 16.0,
            escaped(name),
            escaped(&cut(name))
        ));
        let floor = y + LANE - 3.0;
        for (at, (calls, refused)) in &buckets {
            let (x, width) = (scale.x(*at), scale.width().max(2.0));
            let height = 4.0 + share(*calls, most) * (LANE - 12.0);
            if calls > refused {
                self.line(format_args!(
                    "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{DONE}\"/>",
                    floor - height
                ));
            }
            if *refused > 0 {
                let (middle, centre) = (x + width / 2.0, y + LANE / 2.0);
                self.line(format_args!(
                    "<path d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\" stroke=\"white\" stroke-width=\"5\"/>\
                     <path d=\"M{0:.1} {1:.1}l8 8m0 -8l-8 8\" stroke=\"{REFUSED}\" stroke-width=\"2.5\"/>",
                    middle - 4.0,
                    centre - 4.0
                ));
            }
        }
    }

    /// What the colours mean, and the quotas; answers where the picture ends.
    fn notes(&mut self, told: &Told, top: f64) -> f64 {
        self.line(format_args!(
            "<rect x=\"20\" y=\"{0:.1}\" width=\"12\" height=\"12\" fill=\"{DONE}\"/><text x=\"38\" y=\"{1:.1}\">done</text>\
             <rect x=\"90\" y=\"{0:.1}\" width=\"12\" height=\"12\" fill=\"url(#refused)\"/>\
             <path d=\"M107 {2:.1}l8 8m0 -8l-8 8\" stroke=\"{REFUSED}\" stroke-width=\"2.5\"/>\
             <text x=\"121\" y=\"{1:.1}\">refused or failed</text>\
             <text x=\"250\" y=\"{1:.1}\" fill=\"#444\">a lane's bars are as high as its own busiest is</text>",
            top - 10.0,
            top,
            top - 8.0
        ));
        let mut y = top + 24.0;
        for used in told.report.quotas.iter().take(4) {
            let busiest = &used.busiest_second;
            self.line(format_args!(
                "<text x=\"20\" y=\"{y:.1}\" fill=\"#444\">{}: {} of {} a second at the busiest ({} %), {}</text>",
                escaped(used.quota),
                grouped(busiest.calls),
                grouped(u64::from(used.per_second)),
                busiest.percent,
                escaped(&busiest.at)
            ));
            y += 17.0;
        }
        y + 4.0
    }
}

fn calls(seconds: &Seconds) -> u64 {
    seconds.values().map(|(calls, _)| u64::from(*calls)).sum()
}

fn name_of_caller((principal, through): &(String, Option<String>)) -> String {
    let short = principal.splitn(6, ':').nth(5).unwrap_or(principal);
    match through {
        Some(through) => format!("{short} via {through}"),
        None => short.to_owned(),
    }
}

fn name_of_context(context: &BTreeMap<String, String>) -> String {
    let (volume, instance) = (context.get("aws:ebs:id"), context.get("aws:rds:db-id"));
    match (volume, instance, context.len()) {
        (Some(volume), None, 1) => volume.clone(),
        (Some(volume), Some(instance), 2) if instance.len() > 12 && instance.is_ascii() => {
            format!("{volume} of db-…{}", &instance[instance.len() - 8..])
        }
        (Some(volume), Some(instance), 2) => format!("{volume} of {instance}"),
        _ => context.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", "),
    }
}

/// The distance of levels, and the highest: five at most, at 1, 2 or 5 times a power of ten.
fn ticks(most: u64) -> (u64, u64) {
    let mut power = 1u64;
    loop {
        for step in [1, 2, 5].map(|digit| digit * power) {
            if most <= 5 * step {
                return (step, most.div_ceil(step).max(1) * step);
            }
        }
        power = power.saturating_mul(10);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture needs four digits")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn length(seconds: i64) -> String {
    let (number, unit) = match seconds {
        86_400.. => (seconds / 86_400, "day"),
        3600.. => (seconds / 3600, "hour"),
        60.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    if number == 1 { format!("one {unit}") } else { format!("{number} {unit}s") }
}

/// `12,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn utc(seconds: i64, format: &str) -> String {
    seconds.checked_mul(1_000_000).and_then(Time::from_micros).map_or_else(String::new, |time| time.format_utc(format))
}

/// A long name without its middle: the ends of ARNs and ids tell them apart.
fn cut(name: &str) -> String {
    let letters: Vec<_> = name.chars().collect();
    if letters.len() <= LABEL {
        return name.to_owned();
    }
    let (head, tail) = (LABEL / 2 - 1, LABEL / 2);
    letters[..head].iter().chain(&['…']).chain(&letters[letters.len() - tail..]).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_bars_have_round_lengths() {
        assert_eq!(
            [0, 1, 5, 6, 11, 26, 999].map(ticks),
            [(1, 1), (1, 1), (1, 5), (2, 6), (5, 15), (10, 30), (200, 1000)]
        );
        let day = Scale::of(1_700_000_000, 1_700_086_400);
        assert_eq!((day.bucket, day.from % 1800, day.until % 1800), (1800, 0, 0));
        assert_eq!(Scale::of(5, 5).until - Scale::of(5, 5).from, 10);
        assert_eq!((grouped(1_234_567), grouped(12)), ("1,234,567".to_owned(), "12".to_owned()));
        assert_eq!(cut(&"x".repeat(60)).chars().count(), LABEL);
    }
}

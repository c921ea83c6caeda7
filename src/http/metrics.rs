//! What is counted, in the text form that Prometheus reads (Prometheus documentation, "Exposition formats").

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::export::Statistics;
use crate::ids::VolumeId;
use crate::store::{Home, StoreError};
use crate::trail::{self, Use};

/// As records name the service.
const KMS: &str = "kms.amazonaws.com";

/// Upper bounds of the latencies' buckets, in microseconds.
const BOUNDS: [u64; 10] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

#[derive(Default)]
struct Latency {
    buckets: [u64; BOUNDS.len()],
    micros: u64,
    count: u64,
}

#[derive(Default)]
struct Counts {
    /// By service, operation and code; `ok` for a result.
    answers: BTreeMap<(String, String, String), u64>,
    latencies: BTreeMap<(String, String), Latency>,
    turned_away: u64,
}

/// The counters of one server.
#[derive(Default)]
pub(super) struct Metrics {
    counts: Mutex<Counts>,
    uses: Mutex<Uses>,
}

/// Uses of KMS, as the records of the trail tell them: also those by services, and by other processes.
#[derive(Default)]
struct Uses {
    counts: BTreeMap<Use, u64>,
    /// The last record that is counted.
    place: i64,
}

/// Records that are counted in one transaction, so that it keeps nobody waiting.
const RECORDS: usize = 2_000;

/// The most transactions of a look. What is left is counted by the next one.
const MOST_READS: usize = 100;

/// What is asked for at the moment of a look, and not counted on the way.
pub(super) struct Gauges {
    pub(super) attached: Option<usize>,
    pub(super) traffic: Vec<(VolumeId, Statistics)>,
    pub(super) connections: usize,
    pub(super) running: usize,
}

impl Metrics {
    /// Counts an answer. `operation` must be a name of AWS's or a word of ours: each makes a line of its own.
    pub(super) fn answered(&self, service: &str, operation: &str, code: &str, took: Duration) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (service.to_owned(), operation.to_owned());
        *counts.answers.entry((key.0.clone(), key.1.clone(), code.to_owned())).or_default() += 1;
        let latency = counts.latencies.entry(key).or_default();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        latency.micros = latency.micros.saturating_add(micros);
        latency.count += 1;
        for (bucket, bound) in latency.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(micros <= bound);
        }
    }

    /// Counts a request that was turned away at the border.
    pub(super) fn turned_away(&self) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).turned_away += 1;
    }

    /// Counts uses of KMS from the home's newest record on.
    pub(super) fn begin(&self, home: &Home) -> Result<(), StoreError> {
        let place = home.read(trail::newest)?;
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).place = place;
        Ok(())
    }

    /// Counts the uses of KMS that were recorded since the last look.
    pub(super) fn look(&self, home: &Home) -> Result<(), StoreError> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let Uses { counts, place } = &mut *uses;
        for _ in 0..MOST_READS {
            let mut found = BTreeMap::new();
            let last = home.read(|tx| {
                // What is run anew begins anew.
                found.clear();
                trail::count_uses(tx, KMS, *place, RECORDS, &mut found)
            })?;
            if last == *place {
                break;
            }
            *place = last;
            for (used, count) in found {
                *counts.entry(used).or_default() += count;
            }
        }
        Ok(())
    }

    /// All of it as text.
    pub(super) fn text(&self, gauges: &Gauges) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(4096);
        head(&mut text, "blockseal_operations_total", "counter", "Operations answered, by code; ok for a result.");
        for ((service, operation, code), count) in &counts.answers {
            let labels = format!("service=\"{service}\",operation=\"{operation}\",code=\"{code}\"");
            let _ = writeln!(text, "blockseal_operations_total{{{labels}}} {count}");
        }
        let name = "blockseal_operation_seconds";
        head(&mut text, name, "histogram", "Time from the whole request to the whole answer.");
        for ((service, operation), latency) in &counts.latencies {
            let labels = format!("service=\"{service}\",operation=\"{operation}\"");
            for (bound, count) in BOUNDS.iter().zip(latency.buckets) {
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{}\"}} {count}", seconds(*bound));
            }
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", latency.count);
            let _ = writeln!(text, "{name}_sum{{{labels}}} {}", seconds(latency.micros));
            let _ = writeln!(text, "{name}_count{{{labels}}} {}", latency.count);
        }
        head(&mut text, "blockseal_turned_away_total", "counter", "Requests refused at the border, unread.");
        let _ = writeln!(text, "blockseal_turned_away_total {}", counts.turned_away);
        if let Some(attached) = gauges.attached {
            head(&mut text, "blockseal_attached_volumes", "gauge", "Volumes that are attached now.");
            let _ = writeln!(text, "blockseal_attached_volumes {attached}");
        }
        let volume_counters = [
            ("blockseal_volume_read_bytes_total", "Bytes read from an attached volume since it was attached."),
            ("blockseal_volume_written_bytes_total", "Bytes written to an attached volume since it was attached."),
        ];
        for (index, (name, help)) in volume_counters.into_iter().enumerate() {
            head(&mut text, name, "counter", help);
            for (volume, statistics) in &gauges.traffic {
                let bytes = [statistics.bytes_read, statistics.bytes_written][index];
                let _ = writeln!(text, "{name}{{volume=\"{volume}\"}} {bytes}");
            }
        }
        self.kms_uses(&mut text);
        head(&mut text, "blockseal_connections", "gauge", "Connections that are open now.");
        let _ = writeln!(text, "blockseal_connections {}", gauges.connections);
        head(&mut text, "blockseal_running_operations", "gauge", "Operations that run now.");
        let _ = writeln!(text, "blockseal_running_operations {}", gauges.running);
        text
    }
}

impl Metrics {
    fn kms_uses(&self, text: &mut String) {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "blockseal_kms_uses_total";
        head(text, name, "counter", "Calls to KMS in the trail, by operation, calling service and code.");
        for (Use { operation, via, code }, count) in &uses.counts {
            let (via, code) = (via.as_deref().unwrap_or("direct"), code.as_deref().unwrap_or("ok"));
            let _ = writeln!(text, "{name}{{operation=\"{operation}\",via=\"{via}\",code=\"{code}\"}} {count}");
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Microseconds as seconds, in decimal.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_a_line_for_every_operation_and_code() {
        let metrics = Metrics::default();
        metrics.answered("kms", "Decrypt", "ok", Duration::from_micros(300));
        metrics.answered("kms", "Decrypt", "DisabledException", Duration::from_secs(2));
        let text = metrics.text(&Gauges { attached: Some(1), traffic: Vec::new(), connections: 2, running: 3 });
        for line in [
            "blockseal_operations_total{service=\"kms\",operation=\"Decrypt\",code=\"ok\"} 1",
            "blockseal_operations_total{service=\"kms\",operation=\"Decrypt\",code=\"DisabledException\"} 1",
            "blockseal_operation_seconds_bucket{service=\"kms\",operation=\"Decrypt\",le=\"0.00025\"} 0",
            "blockseal_operation_seconds_bucket{service=\"kms\",operation=\"Decrypt\",le=\"0.0005\"} 1",
            "blockseal_operation_seconds_bucket{service=\"kms\",operation=\"Decrypt\",le=\"+Inf\"} 2",
            "blockseal_operation_seconds_sum{service=\"kms\",operation=\"Decrypt\"} 2.0003",
            "blockseal_attached_volumes 1",
            "# TYPE blockseal_connections gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}

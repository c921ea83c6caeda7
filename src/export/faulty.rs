//! Faults to order on a device that is served: slow, failing once, or stuck, so that what runs on it can be rehearsed.
//!
//! They come over requests in front of the device and change nothing in it. Their order is the exporter's: it ends with it.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::parse_duration;
use crate::device::{BlockDevice, DeviceError, DeviceErrorKind, Extent, ZeroMode};

/// The longest wait that a fault can make of a request.
const LONGEST: Duration = Duration::from_mins(10);

/// What is wrong with a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DeviceFault {
    /// `latency:200ms`: every request waits that long before it begins.
    Latency(Duration),
    /// `error:3`: the third write, zeroing or trim from now on fails with an error of input and output, once, and changes
    /// nothing.
    Error(u64),
    /// `stuck` or `stuck:30s`: no request is answered until the fault is cleared, or for that long; then they go on as if
    /// nothing had been, as after AWS FIS's `aws:ebs:pause-volume-io`.
    Stuck(Option<Duration>),
}

/// A text that is no fault of a device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{0}' is not a fault of a volume: give latency:TIME (such as 200ms or 2s, up to 10m), error:N (the Nth write fails) or stuck[:TIME]"
)]
pub struct DeviceFaultError(String);

impl FromStr for DeviceFault {
    type Err = DeviceFaultError;

    fn from_str(text: &str) -> Result<Self, DeviceFaultError> {
        let refuse = || DeviceFaultError(text.chars().take(80).collect());
        let time = |time: &str| {
            let time = match time.strip_suffix("ms") {
                Some(millis) => millis.parse().ok().map(Duration::from_millis),
                None => parse_duration(time).and_then(|time| Duration::try_from(time).ok()),
            };
            time.filter(|time| *time <= LONGEST).ok_or_else(refuse)
        };
        match text.split_once(':') {
            Some(("latency", text)) => time(text).map(Self::Latency),
            Some(("error", number)) => {
                number.parse().ok().filter(|number| *number > 0).map(Self::Error).ok_or_else(refuse)
            }
            Some(("stuck", text)) => time(text).map(|time| Self::Stuck(Some(time))),
            None if text == "stuck" => Ok(Self::Stuck(None)),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency(latency) => write!(f, "latency:{}ms", latency.as_millis()),
            Self::Error(number) => write!(f, "error:{number}"),
            Self::Stuck(None) => f.write_str("stuck"),
            Self::Stuck(Some(time)) => write!(f, "stuck:{}ms", time.as_millis()),
        }
    }
}

/// The faults of one device.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Whether there is any: all that a device without faults asks.
    any: AtomicBool,
    ordered: Mutex<Ordered>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ordered {
    latency: Option<Duration>,
    /// How many writes there are up to the one that fails.
    writes_left: Option<u64>,
    stuck: Option<Stuck>,
    /// The exporter is ending: nothing is ordered any more, or it would not end.
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Stuck {
    until: Option<Instant>,
    ordered: Option<Duration>,
}

impl Faults {
    /// Orders a fault; an earlier one of its kind is replaced.
    pub(super) fn set(&self, fault: DeviceFault) {
        let mut ordered = self.ordered();
        if ordered.ended {
            return;
        }
        match fault {
            DeviceFault::Latency(latency) => ordered.latency = Some(latency),
            DeviceFault::Error(number) => ordered.writes_left = Some(number),
            DeviceFault::Stuck(time) => {
                ordered.stuck = Some(Stuck { until: time.map(|time| Instant::now() + time), ordered: time });
            }
        }
        self.any.store(true, Ordering::Release);
        drop(ordered);
        self.changed.notify_all();
    }

    /// Clears every fault: what is stuck goes on.
    pub(super) fn clear(&self) {
        let mut ordered = self.ordered();
        *ordered = Ordered { ended: ordered.ended, ..Ordered::default() };
        drop(ordered);
        self.any.store(false, Ordering::Release);
        self.changed.notify_all();
    }

    /// Clears every fault for good.
    pub(super) fn end(&self) {
        self.ordered().ended = true;
        self.clear();
    }

    /// What is ordered and not over.
    pub(super) fn list(&self) -> Vec<DeviceFault> {
        let ordered = *self.ordered();
        let stuck = ordered.stuck.filter(|stuck| stuck.until.is_none_or(|until| until > Instant::now()));
        let faults = [
            ordered.latency.map(DeviceFault::Latency),
            ordered.writes_left.map(DeviceFault::Error),
            stuck.map(|stuck| DeviceFault::Stuck(stuck.ordered)),
        ];
        faults.into_iter().flatten().collect()
    }

    fn ordered(&self) -> MutexGuard<'_, Ordered> {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the faults come over a request.
    fn strike(&self, writes: bool) -> Result<(), DeviceError> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut ordered = self.ordered();
        if let Some(latency) = ordered.latency {
            drop(ordered);
            std::thread::sleep(latency);
            ordered = self.ordered();
        }
        while let Some(stuck) = ordered.stuck {
            let left = stuck.until.map_or(LONGEST, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                ordered.stuck = None;
                break;
            }
            ordered = self.changed.wait_timeout(ordered, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !writes {
            return Ok(());
        }
        match ordered.writes_left {
            Some(1) => {
                ordered.writes_left = None;
                Err(DeviceError::new(DeviceErrorKind::Io, "this write fails to order"))
            }
            left => {
                ordered.writes_left = left.map(|left| left - 1);
                Ok(())
            }
        }
    }
}

/// A device over whose requests faults come.
pub(super) struct Faulty {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) faults: Arc<Faults>,
}

impl BlockDevice for Faulty {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn read_only(&self) -> bool {
        self.device.read_only()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.faults.strike(false)?;
        self.device.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.faults.strike(true)?;
        self.device.write_at(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<(), DeviceError> {
        self.faults.strike(true)?;
        self.device.write_zeroes(offset, length, mode)
    }

    fn trim(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.faults.strike(true)?;
        self.device.trim(offset, length)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.faults.strike(false)?;
        self.device.flush()
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        self.faults.strike(false)?;
        self.device.extents(offset, length)
    }

    fn grow(&self, length: u64) -> Result<(), DeviceError> {
        self.device.grow(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::PlainDevice;
    use crate::device::storage::Memory;

    fn device() -> Faulty {
        let device = PlainDevice::new(Memory::new(1 << 20), 1 << 20).unwrap();
        Faulty { device: Arc::new(device), faults: Arc::default() }
    }

    #[test]
    fn faults_are_read_as_they_are_written() {
        for text in ["latency:200ms", "error:1", "error:12", "stuck", "stuck:3000ms"] {
            assert_eq!(text.parse::<DeviceFault>().unwrap().to_string(), text);
        }
        assert_eq!("stuck:3s".parse::<DeviceFault>().unwrap(), DeviceFault::Stuck(Some(Duration::from_secs(3))));
        for bad in ["", "error", "error:0", "error:-1", "latency", "latency:11m", "stuck:", "stuck:x", "throttle:1"] {
            assert!(bad.parse::<DeviceFault>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nth_write_fails_once_and_changes_nothing() {
        let device = device();
        device.faults.set(DeviceFault::Error(2));
        let written = |byte| device.write_at(0, &[byte; 512]).map_err(|error| error.kind());
        assert_eq!(written(1), Ok(()));
        assert_eq!(device.faults.list(), [DeviceFault::Error(1)]);
        let mut read = [0; 512];
        device.read_at(0, &mut read).unwrap();
        assert_eq!(written(2), Err(DeviceErrorKind::Io));
        device.read_at(0, &mut read).unwrap();
        assert_eq!(read, [1; 512]);
        assert_eq!((written(3), written(4)), (Ok(()), Ok(())));
        assert!(device.faults.list().is_empty());
    }

    #[test]
    fn what_is_stuck_goes_on_once_it_is_cleared_or_over() {
        let device = device();
        device.faults.set(DeviceFault::Stuck(None));
        std::thread::scope(|scope| {
            let stuck = scope.spawn(|| device.write_at(0, &[7; 512]));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!stuck.is_finished());
            device.faults.clear();
            stuck.join().unwrap().unwrap();
        });
        let began = Instant::now();
        device.faults.set(DeviceFault::Stuck(Some(Duration::from_millis(80))));
        device.flush().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(80));
        assert!(device.faults.list().is_empty());
        device.faults.set(DeviceFault::Latency(Duration::from_millis(50)));
        let began = Instant::now();
        device.read_at(0, &mut [0; 512]).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(50));
        device.faults.end();
        device.faults.set(DeviceFault::Stuck(None));
        device.flush().unwrap();
    }
}

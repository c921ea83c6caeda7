//! One failed flush closes the device; a second try would say that lost bytes are safe.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backends::{Faults, Flush, Hooked, Hooks, PowerCut};
use super::{device_on, pattern};
use crate::device::protections::Protections;
use crate::device::storage::{Latch, Latched, Memory, Storage as _};
use crate::device::{BlockDevice as _, DeviceError, DeviceErrorKind};
use crate::units::{SectorSize, is_all_zero};

const NO_LATCH: Protections = Protections { latch: false, ..Protections::ON };

#[test]
fn after_a_failed_flush_nothing_is_served() {
    let inner = Arc::new(PowerCut::new(vec![0; 8192], Flush::FailsOnce));
    let device = device_on(Latched::new(inner.clone(), None), SectorSize::B4096, Protections::ON);
    device.write_at(0, &pattern(1, 4096)).unwrap();
    assert_eq!(device.flush().unwrap_err().kind(), DeviceErrorKind::Io);
    let latched = |result: Result<(), DeviceError>| assert_eq!(result.unwrap_err().kind(), DeviceErrorKind::Latched);
    latched(device.flush());
    latched(device.read_at(0, &mut [0; 512]));
    latched(device.write_at(0, &[1; 512]));
    latched(device.trim(0, 512));
    latched(device.extents(0, 512).map(drop));
    latched(device.grow(16384, || Ok(())));
    assert!(is_all_zero(&inner.cut(|| true)), "the bytes never reached the disk");
}

#[test]
fn without_the_latch_the_second_flush_says_that_lost_bytes_are_safe() {
    let inner = Arc::new(PowerCut::new(vec![0; 8192], Flush::FailsOnce));
    let device = device_on(Latched::with(inner.clone(), None, NO_LATCH), SectorSize::B4096, Protections::ON);
    device.write_at(0, &pattern(1, 4096)).unwrap();
    device.flush().unwrap_err();
    device.flush().unwrap();
    let mut found = vec![0; 4096];
    device.read_at(0, &mut found).unwrap();
    assert_eq!(found, pattern(1, 4096), "the cache shows them");
    assert!(is_all_zero(&inner.cut(|| true)), "the disk does not have them");
}

/// A latch that notes what it was told, and can fail itself.
struct Noted {
    told: Arc<Mutex<Vec<String>>>,
    fails: bool,
}

impl Latch for Noted {
    fn set(&self, why: &str) -> Result<(), DeviceError> {
        self.told.lock().unwrap().push(why.to_owned());
        if self.fails { Err(DeviceError::new(DeviceErrorKind::NoSpace, "no room for a latch")) } else { Ok(()) }
    }
}

#[test]
fn the_latch_is_recorded_before_the_error_is_told_and_failing_that_is_told_too() {
    for fails in [false, true] {
        let told = Arc::new(Mutex::new(Vec::new()));
        let inner = Hooked { inner: Memory::new(4096), hooks: Faults::new(DeviceErrorKind::Io, u32::MAX, 1) };
        let storage = Latched::new(inner, Some(Box::new(Noted { told: told.clone(), fails })));
        storage.flush().unwrap();
        assert!(told.lock().unwrap().is_empty());
        let error = storage.flush().unwrap_err();
        assert_eq!(*told.lock().unwrap(), ["an injected fault"]);
        assert_eq!(error.to_string().contains("no room for a latch"), fails);
        assert_eq!(storage.flush().unwrap_err().kind(), DeviceErrorKind::Latched);
        assert_eq!(told.lock().unwrap().len(), 1, "told once");
        assert!(storage.is_latched());
    }
}

/// A failed write is an error and no latch; what was there is there.
#[test]
fn a_failed_write_harms_nothing_else() {
    for kind in [DeviceErrorKind::NoSpace, DeviceErrorKind::Io] {
        let inner = Hooked { inner: Memory::new(8192), hooks: Faults::new(kind, 1, u32::MAX) };
        let storage = Latched::new(inner, None);
        let device = device_on(storage, SectorSize::B4096, Protections::ON);
        device.write_at(0, &pattern(1, 4096)).unwrap();
        assert_eq!(device.write_at(4096, &pattern(2, 4096)).unwrap_err().kind(), kind);
        device.flush().unwrap();
        device.write_at(4096, &pattern(3, 4096)).unwrap();
        let mut found = vec![0; 8192];
        device.read_at(0, &mut found).unwrap();
        assert!(found[..4096] == pattern(1, 4096) && found[4096..] == pattern(3, 4096));
        assert!(!is_all_zero(&device.storage().inner().inner.to_bytes()));
    }
}

/// The first flush takes long and then fails, later ones succeed at once.
#[derive(Default)]
struct SlowFailure(AtomicU32);

impl Hooks for SlowFailure {
    fn flush(&self) -> Result<(), DeviceError> {
        if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(100));
            return Err(DeviceError::new(DeviceErrorKind::Io, "the disk failed"));
        }
        Ok(())
    }
}

/// How many of four clients that flush at once are told that their bytes are safe.
fn told_safe(protections: Protections) -> usize {
    let inner = Hooked { inner: Memory::new(4096), hooks: SlowFailure::default() };
    let storage = Latched::with(inner, None, protections);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| storage.flush().is_ok())).collect();
        clients.into_iter().filter_map(|client| client.join().unwrap().then_some(())).count()
    })
}

/// The kernel tells a failure to one caller of `fdatasync` per descriptor; whoever flushed at the same time must hear it
/// all the same.
#[test]
fn every_client_that_flushes_during_a_failure_hears_of_it() {
    assert_eq!(told_safe(Protections::ON), 0);
    assert!(told_safe(NO_LATCH) > 0);
}

/// Clients that wait for a flush share the next one.
#[test]
fn waiting_clients_share_a_flush() {
    struct Counted(AtomicU32);
    impl Hooks for Counted {
        fn flush(&self) -> Result<(), DeviceError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        }
    }
    let storage = Latched::new(Hooked { inner: Memory::new(4096), hooks: Counted(AtomicU32::new(0)) }, None);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| storage.flush().unwrap());
        }
    });
    let flushes = storage.inner().hooks.0.load(Ordering::SeqCst);
    assert!((2..8).contains(&flushes), "{flushes} flushes for 16 clients");
}

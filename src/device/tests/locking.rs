//! Two writers in one unit: each reads it, changes its part and stores the whole; without the lock one part is lost.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::backends::{Hooked, Hooks};
use super::device_on;
use crate::device::protections::Protections;
use crate::device::storage::Memory;
use crate::device::{BlockDevice as _, DeviceError};
use crate::units::SectorSize;

/// A write waits a moment for a second reader to have looked: the meeting that loses a write, made certain where it can
/// happen at all.
#[derive(Default)]
struct Meeting {
    views: Mutex<u32>,
    viewed: Condvar,
}

impl Hooks for Meeting {
    fn viewed(&self) {
        *self.views.lock().unwrap() += 1;
        self.viewed.notify_all();
    }

    fn write(&self) -> Result<(), DeviceError> {
        let views = self.views.lock().unwrap();
        drop(self.viewed.wait_timeout_while(views, Duration::from_millis(300), |views| *views < 2).unwrap());
        Ok(())
    }
}

/// What a unit holds after two threads wrote one half each.
fn two_writers(protections: Protections) -> [u8; 512] {
    let storage = Hooked { inner: Memory::new(4096), hooks: Meeting::default() };
    let device = device_on(storage, SectorSize::B4096, protections);
    std::thread::scope(|scope| {
        scope.spawn(|| device.write_at(512, &[0xaa; 256]).unwrap());
        scope.spawn(|| device.write_at(768, &[0xbb; 256]).unwrap());
    });
    let mut unit = [0; 512];
    device.read_at(512, &mut unit).unwrap();
    unit
}

#[test]
fn two_writers_in_one_unit_lose_nothing() {
    let unit = two_writers(Protections::ON);
    assert!(unit[..256] == [0xaa; 256] && unit[256..] == [0xbb; 256]);

    let twin = two_writers(Protections { range_locks: false, ..Protections::ON });
    assert!(twin[..256] == [0; 256] || twin[256..] == [0; 256], "without the lock one of the writes is gone");
}

/// Readers of a range see a long write whole or not at all, although it is stored in many pieces.
#[test]
fn a_long_write_is_one_for_its_readers() {
    let device = device_on(Memory::new(2 << 20), SectorSize::B4096, Protections::ON);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=20u8 {
                device.write_at(0, &vec![round; 2 << 20]).unwrap();
            }
        });
        let mut bytes = vec![0; 2 << 20];
        while bytes[0] < 20 {
            device.read_at(0, &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        }
    });
}

//! Clients of ours at work side by side, each against a plain byte array of its own.

use std::sync::Arc;

use blockseal::device::BlockDevice;

use super::devices::Sparse;
use super::{MIB, Random, count, serve_shared};

/// Every client owns a share of the device that begins and ends at odd bytes, so that neighbours meet inside a sector.
#[test]
fn concurrent_clients_agree_with_a_byte_array() {
    const CLIENTS: u64 = 6;
    let steps = count("BLOCKSEAL_MODEL_STEPS", 1500);
    let device = Arc::new(Sparse::new(4 * MIB));
    let served = serve_shared(device.clone());
    let share = 600_001;
    std::thread::scope(|scope| {
        for owner in 0..CLIENTS {
            let mut client = served.client();
            let device = &device;
            scope.spawn(move || {
                let base = 777 + owner * share;
                let mut model = vec![0; usize::try_from(share).unwrap()];
                let mut random = Random(1000 + owner);
                for _ in 0..steps {
                    let most = random.pick(&[3, 600, 5000, 70_000]);
                    let length = random.below(most);
                    let offset = random.below(share - length + 1);
                    let (start, end) = (usize::try_from(offset).unwrap(), usize::try_from(offset + length).unwrap());
                    match random.below(8) {
                        0..=2 => {
                            let data = random.bytes(end - start);
                            client.write(base + offset, &data).unwrap();
                            model[start..end].copy_from_slice(&data);
                        }
                        3 => {
                            let data = random.bytes(end - start);
                            client.write_durably(base + offset, &data).unwrap();
                            model[start..end].copy_from_slice(&data);
                        }
                        4 => {
                            client.trim(base + offset, length).unwrap();
                            model[start..end].fill(0);
                        }
                        5 => {
                            client.write_zeroes(base + offset, length, random.below(2) == 0).unwrap();
                            model[start..end].fill(0);
                        }
                        6 if random.below(10) == 0 => client.flush().unwrap(),
                        _ => {
                            let mut got = vec![0xee; end - start];
                            client.read(base + offset, &mut got).unwrap();
                            assert!(got == model[start..end], "client {owner} at {offset}+{length}");
                        }
                    }
                }
                let mut got = vec![0; model.len()];
                device.read_at(base, &mut got).unwrap();
                assert!(got == model, "the device holds what client {owner} wrote");
                client.disconnect().unwrap();
            });
        }
    });
    let mut edge = vec![0xee; 777];
    device.read_at(0, &mut edge).unwrap();
    assert_eq!(edge, vec![0; 777], "nobody wrote outside his share");
}

#[test]
fn copies_in_and_out_are_identical_and_tell_their_progress() {
    let device = Arc::new(Sparse::new(40 * MIB));
    let served = serve_shared(device);
    let mut client = served.client();
    let image = Random(3).bytes(33 * 1024 * 1024 + 17);
    let mut told = 0;
    client.copy_in(&mut &image[..], 1000, image.len() as u64, &mut |bytes| told += bytes).unwrap();
    assert_eq!(told, image.len() as u64);
    client.flush().unwrap();
    let mut out = Vec::new();
    let mut told = 0;
    client.copy_out(&mut out, 1000, image.len() as u64, &mut |bytes| told += bytes).unwrap();
    assert_eq!((told, out == image), (image.len() as u64, true));

    // A source that ends too early: an error, and the connection still works.
    let error = client.copy_in(&mut &image[..1_000_000], 0, 2_000_000, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot read what is to be copied"), "{error}");
    let mut back = vec![0; 786_432];
    client.read(0, &mut back).unwrap();
    assert!(back == image[..786_432], "whole pieces before the end arrived");
    // A target that takes nothing.
    let error = client.copy_out(&mut Full, 0, 20_000_000, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot write what was copied"), "{error}");
    let mut client = served.client();
    assert!(client.copy_in(&mut &image[..], 40 * MIB, 1, &mut |_| {}).is_err(), "outside the export");
    assert!(client.copy_out(&mut Vec::new(), u64::MAX, 2, &mut |_| {}).is_err());
    client.copy_in(&mut &image[..], 40 * MIB, 0, &mut |_| {}).unwrap();
}

struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

//! What a flush and `FUA` promise, on a device that forgets at a power cut whatever was not flushed; and the twins, in
//! which the device ignores the flush and the same workload loses data.

use std::sync::Arc;

use super::devices::{FlushPolicy, Volatile};
use super::{Random, serve_shared};

const SIZE: usize = 1 << 20;

/// Two connections write; one of them flushes; the power is cut. Whether all that was promised is there.
fn flushed_data_survives(policy: FlushPolicy) -> bool {
    let device = Arc::new(Volatile::new(SIZE, policy));
    let served = serve_shared(device.clone());
    let (mut writer, mut flusher) = (served.client(), served.client());
    let data = Random(9).bytes(200_000);
    writer.write(1000, &data).unwrap();
    flusher.write(500_000, &data[..5000]).unwrap();
    // CAN_MULTI_CONN: the flush of one connection covers what was answered on the other.
    flusher.flush().unwrap();
    writer.write(700_000, b"not flushed").unwrap();
    let image = device.after_power_cut();
    assert_eq!(&image[700_000..700_011], [0; 11], "the device does forget");
    image[1000..201_000] == data[..] && image[500_000..505_000] == data[..5000]
}

#[test]
fn a_flush_on_one_connection_covers_the_writes_of_all() {
    assert!(flushed_data_survives(FlushPolicy::Honoured));
}

#[test]
fn twin_an_ignored_flush_loses_them() {
    assert!(!flushed_data_survives(FlushPolicy::Ignored));
}

/// A write with `FUA` and a trim with `FUA`, no flush asked for.
fn forced_data_survives(policy: FlushPolicy) -> bool {
    use super::raw::*;
    let device = Arc::new(Volatile::new(SIZE, policy));
    let served = serve_shared(device.clone());
    let mut raw = Raw::simple(&served.socket);
    assert_eq!(raw.write(FUA, 0, &[7; 8192]), 0);
    // In pieces, longer than a worker holds at once.
    assert_eq!(raw.write(FUA, 8192, &vec![8; 700_000]), 0);
    assert_eq!(raw.ask(FUA, TRIM, 0, 512), 0);
    assert_eq!(raw.ask(FUA | NO_HOLE, WRITE_ZEROES, 1024, 512), 0);
    let image = device.after_power_cut();
    image[..512] == [0; 512]
        && image[512..1024] == [7; 512]
        && image[1024..1536] == [0; 512]
        && image[1536..8192] == [7; 6656]
        && image[8192..708_192] == vec![8; 700_000]
}

#[test]
fn fua_makes_a_write_durable_before_it_is_answered() {
    assert!(forced_data_survives(FlushPolicy::Honoured));
}

#[test]
fn twin_fua_on_a_device_that_ignores_flushes_loses_it() {
    assert!(!forced_data_survives(FlushPolicy::Ignored));
}

#[test]
fn plain_writes_are_not_flushed_behind_the_clients_back() {
    let device = Arc::new(Volatile::new(SIZE, FlushPolicy::Honoured));
    let served = serve_shared(device.clone());
    let mut client = served.client();
    client.write(0, &[1; 4096]).unwrap();
    client.disconnect().unwrap();
    assert_eq!(device.flushes.load(std::sync::atomic::Ordering::SeqCst), 0);
}

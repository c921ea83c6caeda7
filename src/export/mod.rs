//! Devices to the outside: the NBD server, a small NBD client, and the exporter process that holds a volume's key.
//!
//! [`Server`] serves any [`crate::device::BlockDevice`] on a Unix socket. An attached volume is served by a process of its own:
//! [`spawn`] starts it, [`control`] asks it how it is and ends it, [`process`] ends one that does not
//! answer, [`exporter_main`] is what it runs. [`kernel`] makes a device of this machine's kernel of it as well.

mod answer;
mod client;
pub mod control;
mod endpoint;
mod exporter;
mod faulty;
mod fuse;
mod handshake;
pub mod kernel;
mod loop_device;
pub mod process;
mod proto;
mod receiver;
mod reply;
mod server;
mod transmission;

pub use client::{Client, ClientError};
pub use endpoint::socket_path;
pub use exporter::{EXPORTER_COMMAND, Exporter, Opened, Order, SpawnError, exporter_main, open_volume, spawn};
pub use faulty::{DeviceFault, DeviceFaultError};
pub use proto::{MAX_REQUEST_BYTES, NbdError};
pub use server::{Export, MAX_CONNECTIONS, Server, Statistics};

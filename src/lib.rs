//! Blockseal: storage encryption as RDS on EBS does it, on one machine and real down to the bytes on disk.

// Floor 1
pub mod clock;
pub mod dir;
pub mod ids;
pub mod secret;
pub mod store;
pub mod units;

// Floor 2
pub mod iam;

// Floor 3
pub mod device;
pub mod gate;

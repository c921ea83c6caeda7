//! Blockseal: storage encryption as RDS on EBS does it, on one machine and real down to the bytes on disk.

// Floor 1
pub mod clock;
pub mod dir;
pub mod ids;
#[cfg(test)]
mod power_cut;
pub mod process;
pub mod secret;
pub mod store;
mod twin;
pub mod units;

// Floor 2
pub mod iam;
pub mod luks2;
pub mod trail;
pub mod xts;

// Floor 3
pub mod device;
pub mod gate;

// Floor 4
pub mod bench;
pub mod export;
pub mod kms;

// Floor 5
pub mod cloudtrail;
pub mod ec2;
pub mod iam_service;

// Floor 7
pub mod api;

// Floor 8
pub mod explain;

// Floor 9
pub mod http;

// Floor 10
pub mod cli;

//! Why a cipher could not be made or a run was refused.

use super::{BLOCK_BYTES, ENGINE_VARIABLE, EngineKind, MAX_DATA_UNIT_BYTES};

/// A key, a length or an engine that can't be used. No variant carries a byte of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XtsError {
    /// The key is neither two AES-128 nor two AES-256 keys.
    #[error("an AES-XTS key has 64 bytes (AES-256) or 32 bytes (AES-128), this one has {bytes}")]
    KeyLength {
        /// The length given.
        bytes: usize,
    },
    /// The data key equals the tweak key.
    #[error("the two halves of the AES-XTS key are equal: such a key is unsafe and was not made by this program")]
    EqualHalves,
    /// Source and destination differ in length, or are no whole number of 512-byte units.
    #[error(
        "source ({source_bytes} bytes) and destination ({destination_bytes} bytes) must be equally long and a multiple of 512"
    )]
    Lengths {
        /// Length of the source.
        source_bytes: usize,
        /// Length of the destination.
        destination_bytes: usize,
    },
    /// A data unit that XTS does not define.
    #[error("a data unit has {BLOCK_BYTES} to {MAX_DATA_UNIT_BYTES} bytes, this one has {bytes}")]
    DataUnitLength {
        /// The length given.
        bytes: usize,
    },
    /// No engine has this name.
    #[error("{ENGINE_VARIABLE}: no engine is called '{name}'; the engines are {}", EngineKind::names())]
    UnknownEngine {
        /// The name given.
        name: String,
    },
    /// The machine lacks the instructions that a forced engine needs.
    #[error(
        "engine {engine} needs {needs}, which this machine does not have; use {ENGINE_VARIABLE}=portable or unset it"
    )]
    EngineUnavailable {
        /// The engine that was asked for.
        engine: EngineKind,
        /// The instruction-set extensions that it needs.
        needs: &'static str,
    },
    /// A forced engine gave other bytes than the portable one in its self-test.
    #[error("engine {engine} failed its self-test on this machine and is not used")]
    SelfTest {
        /// The engine that failed.
        engine: EngineKind,
    },
}

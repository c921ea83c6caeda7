//! Which engine runs: by name, or the fastest that this machine has.

use std::env;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Engine, XtsError, portable, reference, selftest};

/// The environment variable that forces an engine by name wherever [`EngineChoice::Auto`] is asked for.
pub const ENGINE_VARIABLE: &str = "BLOCKSEAL_XTS_ENGINE";

/// An implementation of AES-XTS. All give the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EngineKind {
    /// The crate `xts-mode` over `aes`, one block at a time: the slowest, and the oracle that the others are tested against.
    Reference,
    /// Many blocks at a time over `aes`, in safe Rust: every machine has it.
    Portable,
    /// Assembly for AES-NI, on x86-64.
    AesNi,
    /// Assembly for VAES on 256-bit registers, on x86-64.
    Vaes256,
}

impl EngineKind {
    /// Every engine, slowest first, whether or not this machine can run it.
    pub const ALL: &'static [Self] = &[Self::Reference, Self::Portable, Self::AesNi, Self::Vaes256];

    /// The name by which it is chosen and reported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Portable => "portable",
            Self::AesNi => "aesni",
            Self::Vaes256 => "vaes256",
        }
    }

    /// The engines that run on this machine, slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|kind| kind.check().is_ok())
    }

    /// Whether it runs on this machine: the machine has its instructions, and it gave the right bytes in a known-answer test that
    /// is run once, before its first use.
    ///
    /// # Errors
    /// [`XtsError::EngineUnavailable`] or [`XtsError::SelfTest`].
    pub fn check(self) -> Result<(), XtsError> {
        static AES_NI: OnceLock<bool> = OnceLock::new();
        static VAES_256: OnceLock<bool> = OnceLock::new();
        let verdict = match self {
            // The standard that the others are measured by; the tests hold both against published vectors.
            Self::Reference | Self::Portable => return Ok(()),
            Self::AesNi => &AES_NI,
            Self::Vaes256 => &VAES_256,
        };
        self.judge(self.detect(), verdict, |key| self.expand(key))
    }

    fn judge(
        self,
        detected: bool,
        verdict: &OnceLock<bool>,
        expand: impl Fn(&[u8]) -> Option<Box<dyn Engine>>,
    ) -> Result<(), XtsError> {
        if !detected {
            Err(XtsError::EngineUnavailable { engine: self, needs: self.needs() })
        } else if *verdict.get_or_init(|| selftest::run(self, expand)) {
            Ok(())
        } else {
            Err(XtsError::SelfTest { engine: self })
        }
    }

    pub(super) fn names() -> String {
        Self::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
    }

    /// The instruction-set extensions that the machine must have.
    const fn needs(self) -> &'static str {
        match self {
            Self::Reference | Self::Portable => "nothing",
            Self::AesNi => "an x86-64 processor with AES-NI",
            Self::Vaes256 => "an x86-64 processor with VAES, AVX2 and BMI2",
        }
    }

    fn detect(self) -> bool {
        match self {
            Self::Reference | Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::AesNi => x86::has_aes_ni(),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256 => x86::has_vaes_256(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::AesNi | Self::Vaes256 => false,
        }
    }

    /// Expands a key of 32 or 64 bytes; `None` if the machine lacks the instructions.
    pub(super) fn expand(self, key: &[u8]) -> Option<Box<dyn Engine>> {
        match self {
            Self::Reference => Some(reference::expand(key)),
            Self::Portable => Some(portable::expand(key)),
            #[cfg(target_arch = "x86_64")]
            Self::AesNi => x86::expand_aes_ni(key),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256 => x86::expand_vaes_256(key),
            #[cfg(not(target_arch = "x86_64"))]
            Self::AesNi | Self::Vaes256 => None,
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = XtsError;

    fn from_str(name: &str) -> Result<Self, XtsError> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| XtsError::UnknownEngine { name: name.to_owned() })
    }
}

/// How an engine is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The engine that [`ENGINE_VARIABLE`] names; without it the fastest that this machine runs.
    #[default]
    Auto,
    /// This engine or an error.
    Forced(EngineKind),
}

impl EngineChoice {
    /// The engine that this choice means on this machine.
    ///
    /// # Errors
    /// [`XtsError::UnknownEngine`] if the variable names none; [`XtsError::EngineUnavailable`] or [`XtsError::SelfTest`] if a
    /// forced one does not run here.
    pub fn resolve(self) -> Result<EngineKind, XtsError> {
        let forced = match self {
            Self::Forced(kind) => Some(kind),
            Self::Auto => match env::var_os(ENGINE_VARIABLE) {
                None => None,
                Some(name) if name.is_empty() => None,
                Some(name) => Some(name.to_string_lossy().parse()?),
            },
        };
        match forced {
            Some(kind) => kind.check().map(|()| kind),
            None => Ok(fastest(|kind| kind.check().is_ok())),
        }
    }
}

/// The last of [`EngineKind::ALL`] that can be used.
fn fastest(usable: impl Fn(EngineKind) -> bool) -> EngineKind {
    EngineKind::ALL.iter().rev().copied().find(|kind| usable(*kind)).unwrap_or(EngineKind::Portable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_engines() {
        for kind in EngineKind::ALL {
            assert_eq!(kind.name().parse::<EngineKind>(), Ok(*kind));
        }
        let error = "vaes".parse::<EngineKind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "BLOCKSEAL_XTS_ENGINE: no engine is called 'vaes'; the engines are reference, portable, aesni, vaes256"
        );
    }

    #[test]
    fn an_engine_without_its_instructions_is_refused_with_what_it_needs() {
        let error = EngineKind::Vaes256.judge(false, &OnceLock::new(), |_| None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "engine vaes256 needs an x86-64 processor with VAES, AVX2 and BMI2, which this machine does not have; \
             use BLOCKSEAL_XTS_ENGINE=portable or unset it"
        );
        assert_eq!(fastest(|kind| kind != EngineKind::Vaes256), EngineKind::AesNi);
        assert_eq!(fastest(|kind| kind == EngineKind::Reference), EngineKind::Reference);
        assert_eq!(fastest(|_| false), EngineKind::Portable);
    }

    #[test]
    fn an_engine_that_fails_its_self_test_is_refused_and_one_that_passes_is_not() {
        let verdict = OnceLock::new();
        let refused = Err(XtsError::SelfTest { engine: EngineKind::AesNi });
        // `expand` answering nothing is the plainest failure; the verdict then stands, whatever comes later.
        assert_eq!(EngineKind::AesNi.judge(true, &verdict, |_| None), refused);
        assert_eq!(EngineKind::AesNi.judge(true, &verdict, |key| Some(portable::expand(key))), refused);
        assert_eq!(EngineKind::AesNi.judge(true, &OnceLock::new(), |key| Some(portable::expand(key))), Ok(()));
    }
}

//! Who calls, and what policies let them do.

mod access;
mod principal;

pub use access::{Access, Verdict, evaluate};
pub use principal::{Principal, PrincipalError};

//! Who calls: principals and their ARNs.

mod principal;

pub use principal::{Principal, PrincipalError};

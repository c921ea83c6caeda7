//! One gate for every operation: authorise, run, record. Holds what an operation knows of its caller and the error that
//! every operation answers with.

mod call;
mod error;

pub use call::Call;
pub use error::{Refusal, ServiceError, chain};

//! One gate for every operation: authorise, run, record. Holds what an operation knows of its caller and the error that
//! every operation answers with.
//!
//! [`run`] is for an operation that is one transaction, [`run_steps`] for one that calls other operations on the way; both
//! first do what is due by the clock ([`settle`]), and both leave one record, also of a refusal or a failure. Faults that
//! were ordered ([`faults`]) come over an operation before it begins.

mod authorise;
mod call;
mod error;
pub mod faults;
mod finding;
mod identity;
mod operation;
mod run;
mod settle;
mod trace;

pub use authorise::{UNDETERMINED, authorise, common_keys, decide, note, owner_keys, refusal};
pub use call::{Call, Credential};
pub use error::{Refusal, ServiceError, chain};
pub use operation::{Operation, Service};
pub use run::{Draft, Elsewhere, Step, run, run_steps};
pub use settle::{Settled, Settler, require_truncation, settle};
pub use trace::{Basis, Finding, Leaning, Refused, Trace, TracedCall};

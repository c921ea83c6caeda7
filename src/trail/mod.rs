//! CloudTrail: one record per operation, kept in the store in the order of commitment, and the look-up over them.
//!
//! `gate` fills a [`Record`] and appends it in the transaction of the operation that it tells of. The fields, and what of
//! them is assumed, are described in `docs/trail.md`.

mod digest;
mod facets;
mod files;
mod folder;
mod lookup;
mod record;
mod report;
mod signature;
mod tree;
mod uses;
mod verify;

use crate::store::StoreError;

pub use digest::{DigestError, Tail, make_digests, next_digest, tails};
pub use files::{FOLDER, ask, deliver, next_delivery, put_off, put_off_why};
pub use folder::{FolderError, log_files, read_log_file};
pub use lookup::{Attribute, Event, EventResource, Page, Query, TokenError, look_up};
pub use record::{EventType, Prepared, Record, Resource, append, behind, newest};
pub use report::{
    Caller, ContextUse, Hour, KeyReport, QuotaUse, RefusedUse, ReportError, ReportQuery, Told, of_folder, of_home,
    timeline,
};
pub use signature::{PublicKey, SignatureError, SigningKey};
pub use uses::{Use, count_uses};
pub use verify::{Chain, Damage, Report, VerifyError, verify, verify_home};

/// The store has something that this program does not write.
fn damaged(reason: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, reason).into()
}

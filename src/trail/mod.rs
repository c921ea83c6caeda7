//! CloudTrail: one record per operation, kept in the store in the order of commitment, and the look-up over them.
//!
//! `gate` fills a [`Record`] and appends it in the transaction of the operation that it tells of. The fields, and what of
//! them is assumed, are described in `docs/trail.md`.

mod facets;
mod lookup;
mod record;

use crate::store::StoreError;

pub use lookup::{Attribute, Event, EventResource, Page, Query, TokenError, look_up};
pub use record::{EventType, Record, Resource, append};

/// The store has something that this program does not write.
fn damaged(reason: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, reason).into()
}

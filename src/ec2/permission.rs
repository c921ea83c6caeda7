//! Who may call EC2: the principals of the account whose volumes are meant.
//!
//! EC2 knows no policies on volumes, so nothing gives another account's principal a right to one (IAM user guide,
//! "Cross-account resource access").

use crate::gate::{Call, Refusal, ServiceError};
use crate::twin::{self, Protection};

/// Refuses a principal of another account, whatever it asks for.
pub(super) fn check(call: &Call<'_>) -> Result<(), ServiceError> {
    if call.principal.account() == &call.account || twin::is_off(Protection::Policy) {
        return Ok(());
    }
    Err(ServiceError::Refused(Refusal {
        code: "UnauthorizedOperation",
        message: "You are not authorized to perform this operation.".to_owned(),
        status: 403,
        hint: None,
    }))
}

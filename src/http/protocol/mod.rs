//! The wire forms: how a request names its operation and what it gives it, and how results and errors go out.
//!
//! A protocol knows no operation: what it needs to know of one stands in the table of [`crate::api`].

mod form;
mod json;
mod query;
mod xml;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::failure::{Failure, Worded, Words};
use super::request::Request;
use crate::api::{Form, Operation, Wire};

/// An answer before it is sent. Its body may hold a plaintext data key.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    /// The code of an error, for the header `x-amzn-errortype`.
    pub(super) error: Option<String>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// A wire form.
pub(super) trait Protocol: Sync {
    /// How it names errors.
    fn words(&self, wire: &Wire) -> Words;

    /// The name of the operation that is asked for.
    fn operation(&self, wire: &Wire, request: &Request) -> Result<String, Failure>;

    /// What the operation is given, a JSON object spelled as in the API.
    fn arguments(&self, wire: &Wire, operation: &Operation, request: &Request) -> Result<Map<String, Value>, Failure>;

    /// A result.
    fn result(&self, wire: &Wire, operation: &Operation, result: &mut Value, request_id: &str) -> Answer;

    /// An error.
    fn error(&self, wire: &Wire, error: Worded, request_id: &str) -> Answer;
}

/// The protocol of a service.
pub(super) fn of(form: Form) -> &'static dyn Protocol {
    match form {
        Form::Json { .. } => &json::Json,
        Form::Ec2 { .. } | Form::Query { .. } => &query::Query,
    }
}

//! What an operation is called and how its record looks.

use super::Settler;

/// An AWS service as the trail names it.
#[derive(Debug)]
pub struct Service {
    /// `eventSource`, such as `kms.amazonaws.com`.
    pub event_source: &'static str,
    /// What its records put before an error code: `Client.` for EC2, nothing for KMS.
    pub error_prefix: &'static str,
    /// Whether its records have a `resources` list, be it empty (KMS), or never one (EC2).
    pub lists_resources: bool,
    /// What is due by the clock in this service and in those that it calls.
    pub settlers: &'static [Settler],
}

/// An operation of a service.
#[derive(Debug)]
pub struct Operation {
    /// Its name in the API, such as `GenerateDataKey`.
    pub name: &'static str,
    /// Whether it changes nothing (using a key counts as a change of nothing).
    pub read_only: bool,
    /// The service that it belongs to.
    pub service: &'static Service,
}

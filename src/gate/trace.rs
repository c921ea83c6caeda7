//! What an explained call does, step by step: every operation that it runs, what decided each, and on what that rests.
//!
//! A [`Call`](super::Call) with a trace is run as any other, in a scratch home; the gate notes each operation that it
//! passes, and whoever decides something notes what it saw.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

use super::{Call, Operation, ServiceError};

/// On what we know that AWS behaves so. Ordered from the strongest to the weakest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "basis", content = "source")]
#[non_exhaustive]
pub enum Basis {
    /// A page of AWS's documentation says so; the page.
    Documented(&'static str),
    /// AWS was seen to do so; where it was recorded.
    Recorded(&'static str),
    /// Our decision, where AWS says nothing; what was decided.
    Assumed(&'static str),
}

impl Basis {
    /// `documented`, `recorded` or `assumed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Documented(_) => "documented",
            Self::Recorded(_) => "recorded",
            Self::Assumed(_) => "assumed",
        }
    }

    /// The page, the record, or the decision.
    pub const fn source(self) -> &'static str {
        let (Self::Documented(source) | Self::Recorded(source) | Self::Assumed(source)) = self;
        source
    }
}

/// Which way a finding points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Leaning {
    /// It lets the call through.
    Allows,
    /// It refuses the call.
    Refuses,
    /// It was looked at and decides nothing.
    Neutral,
    /// What it says depends on something that is not known here.
    Undetermined,
}

/// One thing that was looked at on the way.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at: `key policy`, `identity policy`, `grant`, `key state`, ...
    pub subject: String,
    /// Which way it points.
    pub leaning: Leaning,
    /// What it says, in a sentence.
    pub says: String,
    /// On what that rests.
    #[serde(flatten)]
    pub basis: Basis,
    /// What would have to change for a refusal to become a yes, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The finding in full, for programs.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

impl Finding {
    /// A finding without remedy or detail.
    pub fn new(subject: impl Into<String>, leaning: Leaning, says: impl Into<String>, basis: Basis) -> Self {
        Self { subject: subject.into(), leaning, says: says.into(), basis, remedy: None, detail: Value::Null }
    }

    /// The same finding with what would change it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refused {
    /// The error's code.
    pub code: String,
    /// Its message.
    pub message: String,
}

/// One operation that ran.
#[derive(Clone, PartialEq, Debug)]
pub struct TracedCall {
    /// The call inside which it ran, as its place in the list; `None` for the first.
    pub parent: Option<usize>,
    /// The service, such as `kms.amazonaws.com`.
    pub source: &'static str,
    /// The operation, such as `CreateGrant`.
    pub operation: &'static str,
    /// Who called: an ARN, or a service's name.
    pub principal: String,
    /// The service through which, as `kms:ViaService` has it.
    pub via: Option<String>,
    /// On what it rests that the service makes this call; `None` for the first.
    pub basis: Option<Basis>,
    /// What was looked at, in order.
    pub findings: Vec<Finding>,
    /// `None` while it runs.
    pub outcome: Option<Result<(), Refused>>,
    /// The records that it left: one for each account's trail, and those of what the service did by itself on the way.
    pub records: Vec<Value>,
}

/// The operations of one explained call, in the order in which they began.
#[derive(Debug, Default)]
pub struct Trace {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<TracedCall>,
    open: Vec<usize>,
}

impl Trace {
    /// What happened so far.
    pub fn calls(&self) -> Vec<TracedCall> {
        self.with(|state| state.calls.clone())
    }

    fn with<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        body(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn begin(&self, call: &Call<'_>, operation: &Operation) {
        self.with(|state| {
            state.calls.push(TracedCall {
                parent: state.open.last().copied(),
                source: operation.service.event_source,
                operation: operation.name,
                principal: call.principal.arn(),
                via: call.via.clone(),
                basis: call.basis,
                findings: Vec::new(),
                outcome: None,
                records: Vec::new(),
            });
            state.open.push(state.calls.len() - 1);
        });
    }

    pub(super) fn end(&self, error: Option<&ServiceError>, records: Vec<Value>) {
        self.with(|state| {
            if let Some(call) = state.open.pop().and_then(|place| state.calls.get_mut(place)) {
                call.records = records;
                call.outcome = Some(match error {
                    None => Ok(()),
                    Some(error) => Err(Refused { code: error.code().to_owned(), message: error.message() }),
                });
            }
        });
    }

    /// Adds what was looked at to the operation that runs.
    pub fn note(&self, finding: Finding) {
        self.with(|state| {
            if let Some(call) = state.open.last().copied().and_then(|place| state.calls.get_mut(place)) {
                call.findings.push(finding);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assumed_is_the_weakest() {
        let all = [Basis::Assumed("c"), Basis::Documented("a"), Basis::Recorded("b")];
        assert_eq!(all.into_iter().max(), Some(Basis::Assumed("c")));
    }
}

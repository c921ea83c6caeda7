//! Who calls, and what policies let them do: IAM's policy language, read and evaluated without a home.
//!
//! ```
//! use blockseal::iam::{Context, NamedPolicy, Policy, PolicyKind, Question, Requester, ResourcePolicy, evaluate};
//!
//! let text = r#"{"Version": "2012-10-17", "Statement": [{"Sid": "Backup", "Effect": "Allow",
//!     "Principal": {"AWS": "arn:aws:iam::210987654321:root"}, "Action": "kms:Decrypt", "Resource": "*",
//!     "Condition": {"StringEquals": {"kms:EncryptionContext:aws:ebs:id": "vol-1"}}}]}"#;
//! let policy = NamedPolicy::new("key policy", Policy::parse(text, PolicyKind::Key)?);
//! let requester = Requester::administrator("arn:aws:iam::210987654321:user/alice".parse()?);
//! let mut context = Context::default();
//! requester.describe(&mut context);
//! context.set("kms:EncryptionContext:aws:ebs:id", "vol-2");
//! let decision = evaluate(&Question {
//!     requester: &requester,
//!     action: "kms:Decrypt",
//!     resource: "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
//!     owner: &"123456789012".parse()?,
//!     policy: ResourcePolicy::Key(&policy),
//!     context: &context,
//! });
//! assert!(!decision.is_allowed());
//! let why = &decision.trace[0].statements[0].checks[3];
//! assert_eq!(why.found.as_deref(), Some(&["vol-2".to_owned()][..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod assume;
mod condition;
mod context;
pub mod directory;
mod evaluate;
mod facts;
mod json;
mod keys;
pub mod linked;
mod names;
mod pattern;
mod policy;
mod principal;
mod requester;
mod trace;
mod truth;

pub use condition::Operator;
pub use context::{Context, Entry};
pub use evaluate::{Question, ResourcePolicy, evaluate};
pub use facts::CallFacts;
pub use keys::{KEYS, KeyInfo, KeyType, known};
pub use names::PrincipalName;
pub use policy::{Condition, Effect, Element, Policy, PolicyError, PolicyKind, Statement, Version};
pub(crate) use principal::made_up_id;
pub use principal::{Principal, PrincipalError, unique_id, without_path};
pub use requester::{Identity, NamedPolicy, Requester};
pub use trace::{Check, DecidedBy, Decision, FOREIGN, Outcome, PolicyTrace, Side, StatementTrace};
pub use truth::Truth;

#[cfg(test)]
mod tests;

//! Checks of single parameters, worded as AWS words them.

use std::ops::RangeInclusive;

use crate::gate::ServiceError;

use super::context::{EncryptionContext, MAX_CONTEXT_BYTES};

/// Collects what is wrong with a request and says it all at once, as AWS does.
#[derive(Default)]
pub(super) struct Validation {
    problems: Vec<String>,
}

impl Validation {
    pub(super) fn fail(&mut self, value: &str, member: &str, constraint: &str) -> &mut Self {
        self.problems.push(format!("Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"));
        self
    }

    /// A string's length in characters.
    pub(super) fn length(&mut self, member: &str, value: &str, allowed: RangeInclusive<usize>) -> &mut Self {
        let length = value.chars().count();
        if length > *allowed.end() {
            self.fail(value, member, &format!("Member must have length less than or equal to {}", allowed.end()));
        } else if length < *allowed.start() {
            self.fail(value, member, &format!("Member must have length greater than or equal to {}", allowed.start()));
        }
        self
    }

    /// A byte string's length; its bytes are not repeated.
    pub(super) fn bytes(&mut self, member: &str, length: usize, allowed: RangeInclusive<usize>) -> &mut Self {
        let bound = if length > *allowed.end() {
            format!("less than or equal to {}", allowed.end())
        } else if length < *allowed.start() {
            format!("greater than or equal to {}", allowed.start())
        } else {
            return self;
        };
        self.problems
            .push(format!("Value at '{member}' failed to satisfy constraint: Member must have length {bound}"));
        self
    }

    pub(super) fn number(&mut self, member: &str, value: i64, allowed: RangeInclusive<i64>) -> &mut Self {
        if value > *allowed.end() {
            let bound = format!("Member must have value less than or equal to {}", allowed.end());
            self.fail(&value.to_string(), member, &bound);
        } else if value < *allowed.start() {
            let bound = format!("Member must have value greater than or equal to {}", allowed.start());
            self.fail(&value.to_string(), member, &bound);
        }
        self
    }

    pub(super) fn one_of(&mut self, member: &str, value: &str, allowed: &[&str]) -> &mut Self {
        if !allowed.contains(&value) {
            self.fail(value, member, &format!("Member must satisfy enum value set: [{}]", allowed.join(", ")));
        }
        self
    }

    /// A string all of whose characters satisfy `allowed`, which `pattern` says as a regular expression.
    pub(super) fn pattern(&mut self, member: &str, value: &str, pattern: &str, allowed: fn(char) -> bool) -> &mut Self {
        if !value.chars().all(allowed) {
            self.fail(value, member, &format!("Member must satisfy regular expression pattern: {pattern}"));
        }
        self
    }

    /// A policy document: its length, which is not repeated, and its characters.
    pub(super) fn policy(&mut self, text: &str) -> &mut Self {
        self.bytes("policy", text.len(), 1..=131_072);
        if !text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}')) {
            self.problems.push(
                "Value at 'policy' failed to satisfy constraint: Member must satisfy regular expression pattern: \
                 [\\u0009\\u000A\\u000D\\u0020-\\u00FF]+"
                    .to_owned(),
            );
        }
        self
    }

    pub(super) fn key_id(&mut self, member: &str, value: &str) -> &mut Self {
        self.length(member, value, 1..=2048)
    }

    pub(super) fn grant_tokens(&mut self, tokens: &[String]) -> &mut Self {
        if tokens.len() > 10 {
            let shown = format!("[{} tokens]", tokens.len());
            self.fail(&shown, "grantTokens", "Member must have length less than or equal to 10");
        }
        for token in tokens {
            // The token is as good as a permission: it is not repeated.
            self.bytes("grantTokens", token.len(), 1..=8192);
        }
        self
    }

    /// The context's size: our limit, so the wording is ours too (assumed).
    pub(super) fn context(&mut self, member: &str, context: &EncryptionContext) -> &mut Self {
        if context.text_bytes() > MAX_CONTEXT_BYTES {
            self.problems.push(format!(
                "Value at '{member}' failed to satisfy constraint: Member must have no more than {MAX_CONTEXT_BYTES} bytes"
            ));
        }
        self
    }

    pub(super) fn finish(&self) -> Result<(), ServiceError> {
        let count = self.problems.len();
        if count == 0 {
            return Ok(());
        }
        let errors = if count == 1 { "error" } else { "errors" };
        Err(invalid(format!("{count} validation {errors} detected: {}", self.problems.join("; "))))
    }
}

/// A `ValidationException`.
pub(super) fn invalid(message: impl Into<String>) -> ServiceError {
    ServiceError::refused("ValidationException", message)
}

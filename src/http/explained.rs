//! `POST /_blockseal/explain`: whether and why a call of the caller's would be refused, without making it.
//!
//! The request is signed as any call is, for whichever service of ours, and its body is JSON: `Service`, `Operation`, `Parameters` as the
//! operation's request has them, and a `Policy` to try as the key's. What answers is what answers `blockseal explain`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::endpoint::{self, Told};
use super::failure::{Failure, Words};
use super::own;
use super::protocol::{self, Answer};
use super::request::Request;
use super::server::{Peer, Server};
use super::signature::Signature;
use crate::api::{Operation, Wire};
use crate::explain;
use crate::gate::{Call, ServiceError, chain};
use crate::{ids, kms};

/// What is asked.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Asked {
    service: String,
    operation: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    /// A policy to try as that of the key which the call is about: a document, or one as text.
    policy: Option<Value>,
}

/// Answers it; to other machines as a server that has no such page.
pub(super) async fn explain(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    request: axum::extract::Request,
) -> Response<Body> {
    if !peer.is_local {
        return own::absent();
    }
    endpoint::respond(server, peer, request, answer).await
}

fn answer(server: &Server, request: &Request, may_run: Result<(), Failure>, told: &mut Told) -> Answer {
    told.request_id = ids::request_id();
    told.service = "blockseal";
    told.operation = Some("Explain".to_owned());
    match may_run.and_then(|()| explanation(server, request, told)) {
        Ok(explanation) => Answer {
            status: 200,
            content_type: "application/json",
            error: None,
            body: Zeroizing::new(explanation.to_string().into_bytes()),
        },
        Err(failure) => {
            if let Failure::Service(ServiceError::Machine(error)) = &failure {
                told.cause = Some(chain(error.as_ref()));
            }
            let wire = Wire::of("kms").expect("the table has KMS, which its own test asks for");
            protocol::of(wire.form).error(wire, failure.worded(Words::Json), &told.request_id)
        }
    }
}

fn explanation(server: &Server, request: &Request, told: &mut Told) -> Result<Value, Failure> {
    let signature = Signature::of(request).map_err(Failure::Signature)?;
    let home = server.home.read().unwrap_or_else(PoisonError::into_inner);
    let call = endpoint::let_in(server, home.as_ref(), request, &signature, (Words::Json, told))?;
    // The parser's words tell where, and nothing of what stands there.
    let asked: Asked = serde_json::from_slice(&request.body).map_err(|error| {
        Failure::Malformed(format!(
            "The body must be JSON with Service, Operation, Parameters and perhaps Policy: line {} column {}",
            error.line(),
            error.column()
        ))
    })?;
    let Some(wire) = Wire::of(&asked.service) else {
        let short = |text: &str| text.chars().take(100).collect();
        return Err(Failure::NotBuilt { service: short(&asked.service), operation: short(&asked.operation) });
    };
    let operation = endpoint::operation_of(wire, &asked.operation)?;
    let explained = catch_unwind(AssertUnwindSafe(|| dry(&call, wire.service, operation, asked)));
    Ok(explained.unwrap_or_else(|_| Err(ServiceError::machine(format!("{} panicked", operation.name))))?)
}

/// Runs it in a copy of the home's state.
fn dry(call: &Call<'_>, service: &str, operation: &Operation, asked: Asked) -> Result<Value, ServiceError> {
    let state = call.home.scratch_copy()?;
    kms::RootKey::lend(call.home, &state)?;
    let call = Call { home: &state, ..call.clone() };
    let request = Value::Object(asked.parameters);
    if let Some(policy) = asked.policy {
        let policy = policy.as_str().map_or_else(|| policy.to_string(), str::to_owned);
        let refused = |error: ServiceError| ServiceError::refused("ValidationException", error.message());
        let key = explain::key_of_request(&call, &request).map_err(refused)?;
        kms::assume_policy(&state, &key, &policy).map_err(refused)?;
    }
    Ok(explain::explain(&call, service, operation, request)?.to_json())
}

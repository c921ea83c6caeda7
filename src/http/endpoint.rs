//! One request to AWS: read, let in, run, answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, Response, header, request::Parts};
use serde_json::{Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use super::caller;
use super::failure::{Failure, Words};
use super::log;
use super::protocol::{self, Answer, Protocol};
use super::request::Request;
use super::server::{Peer, Server};
use super::signature::{Signature, SignatureError};
use crate::api::{Operation, SERVICES, Wire};
use crate::gate::{Call, ServiceError, chain};
use crate::ids;
use crate::store::Home;

/// The largest body that is taken: no request of these services comes near it.
const MAX_BODY: usize = 1 << 20;

/// How long a whole body may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// How long a request may wait for others to be done.
const TURN_PATIENCE: Duration = Duration::from_secs(30);

/// Answers a request of AWS's.
pub(super) async fn aws(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    request: axum::extract::Request,
) -> Response<Body> {
    respond(server, peer, request, answer).await
}

/// Works an answer out, for which the request may have come too late, and notes what the log is told of it.
pub(super) type Work = fn(&Server, &Request, Result<(), Failure>, &mut Told) -> Answer;

/// Reads a request and has it answered when its turn has come.
pub(super) async fn respond(
    server: Arc<Server>,
    peer: Peer,
    request: axum::extract::Request,
    work: Work,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(BODY_PATIENCE, axum::body::to_bytes(body, MAX_BODY)).await;
    let (body, failed) = match read {
        Ok(Ok(body)) => (body, None),
        Ok(Err(_)) => (Bytes::new(), Some(Failure::TooLarge)),
        Err(_) => (Bytes::new(), Some(Failure::Slow)),
    };
    let closes = failed.is_some();
    let request = whole(parts, body, peer);
    let turn = match (failed, tokio::time::timeout(TURN_PATIENCE, server.turns.clone().acquire_owned()).await) {
        (Some(failed), _) => Err(failed),
        (None, Ok(Ok(turn))) => Ok(turn),
        (None, _) => Err(Failure::Busy),
    };
    // Whatever of it is slow - signatures, the disk, an exporter's start - is kept from the thread that serves connections.
    let answered = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let mut told = Told::default();
        // The turn is given back when the answer is there, and not before.
        let (may_run, _turn) = match turn {
            Ok(turn) => (Ok(()), Some(turn)),
            Err(failure) => (Err(failure), None),
        };
        let answer = work(&server, &request, may_run, &mut told);
        tell(&server, &request, &answer, &told, began.elapsed());
        (answer, told.request_id)
    });
    match answered.await {
        Ok((answer, request_id)) => response(answer, &request_id, closes),
        // The runtime is going down.
        Err(_) => Response::builder().status(503).body(Body::empty()).unwrap_or_default(),
    }
}

fn whole(parts: Parts, body: Bytes, peer: Peer) -> Request {
    Request {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
        source: peer.source,
    }
}

/// What the log and the counters hear of a request.
#[derive(Default)]
pub(super) struct Told {
    pub(super) request_id: String,
    pub(super) service: &'static str,
    /// The operation's name, if AWS has it.
    pub(super) operation: Option<String>,
    access_key_id: Option<String>,
    principal: Option<String>,
    region: Option<String>,
    /// Why the machine failed, in full.
    pub(super) cause: Option<String>,
}

fn answer(server: &Server, request: &Request, may_run: Result<(), Failure>, told: &mut Told) -> Answer {
    told.request_id = ids::request_id();
    let signature = Signature::of(request);
    let wire = wire_of(request, signature.as_ref().ok());
    let spoken = wire.as_ref().copied().unwrap_or_else(|_| fallback(request));
    let protocol = protocol::of(spoken.form);
    told.service = wire.as_ref().map_or("unknown", |wire| wire.service);
    let outcome = may_run.and_then(|()| {
        let wire = wire.map_err(|service| Failure::NotBuilt { service, operation: asked_of_unknown(request) })?;
        run(server, request, signature, (wire, protocol), told)
    });
    match outcome {
        Ok((operation, mut result)) => {
            let answer = protocol.result(spoken, operation, &mut result, &told.request_id);
            wipe(&mut result);
            answer
        }
        Err(failure) => {
            if let Failure::Service(ServiceError::Machine(error)) = &failure {
                told.cause = Some(chain(error.as_ref()));
            }
            protocol.error(spoken, failure.worded(protocol.words(spoken)), &told.request_id)
        }
    }
}

/// The service that is spoken to: the one that the signature is for, else the one that the request names. `Err` is the name of
/// one that is not here.
fn wire_of(request: &Request, signature: Option<&Signature>) -> Result<&'static Wire, String> {
    if let Some(signature) = signature {
        return Wire::of(&signature.service).ok_or_else(|| signature.service.chars().take(40).collect());
    }
    let by_target = request.header("x-amz-target").and_then(Wire::of_target).map(|(wire, _)| wire);
    by_target.or_else(|| Wire::of_version(&parameter(request, "Version")?)).map_or_else(|| Ok(fallback(request)), Ok)
}

/// In whose words an answer is given when nobody knows who is meant.
fn fallback(request: &Request) -> &'static Wire {
    let service = if request.headers.contains_key("x-amz-target") { "kms" } else { "sts" };
    Wire::of(service).expect("the table has KMS and STS, which its own test asks for")
}

fn parameter(request: &Request, wanted: &str) -> Option<String> {
    request.form()?.into_iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
}

/// What is asked of a service that is not here.
fn asked_of_unknown(request: &Request) -> String {
    let target = request.header("x-amz-target").and_then(|target| target.rsplit('.').next()).map(str::to_owned);
    let asked = target.or_else(|| parameter(request, "Action"));
    asked.unwrap_or_else(|| format!("{} {}", request.method, request.path)).chars().take(100).collect()
}

fn run(
    server: &Server,
    request: &Request,
    signature: Result<Signature, SignatureError>,
    (wire, protocol): (&'static Wire, &dyn Protocol),
    told: &mut Told,
) -> Result<(&'static Operation, Value), Failure> {
    let signature = signature.map_err(Failure::Signature)?;
    let home = server.home.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let call = let_in(server, home.as_ref(), request, &signature, (protocol.words(wire), &mut *told))?;
    let name = protocol.operation(wire, request)?;
    let operation = operation_of(wire, &name)?;
    told.operation = Some(name);
    let arguments = protocol.arguments(wire, operation, request)?;
    // A panic is a bug, and must not be one more: the answer is an error like any other, and the next request is served.
    let result = catch_unwind(AssertUnwindSafe(|| (operation.run)(&call, Value::Object(arguments))))
        .unwrap_or_else(|_| Err(ServiceError::machine(format!("{} panicked", operation.name))))?;
    Ok((operation, result))
}

/// The call of whoever signed a request, if he shows that he may make one.
pub(super) fn let_in<'h>(
    server: &Server,
    home: Option<&'h Home>,
    request: &Request,
    signature: &Signature,
    (words, told): (Words, &mut Told),
) -> Result<Call<'h>, Failure> {
    told.access_key_id = Some(signature.access_key_id.clone());
    let home = home.ok_or_else(|| ServiceError::machine("the home could not be opened after a reset"))?;
    let mode = (server.options.auth, &server.options.account);
    let caller::Caller { mut call, is_unverified } =
        caller::identify(home, &server.known, mode, signature, request, words)?;
    call.request_id.clone_from(&told.request_id);
    told.principal = Some(call.principal.arn());
    told.region = Some(call.region.to_string());
    if is_unverified && !server.has_told_of_root.swap(true, Ordering::Relaxed) {
        let who = json!({ "access_key_id": signature.access_key_id, "principal": told.principal });
        log::warning("policies are judged as root: nobody here has this access key (--auth open)", who);
    }
    Ok(call)
}

pub(super) fn operation_of(wire: &Wire, name: &str) -> Result<&'static Operation, Failure> {
    let service = SERVICES.iter().find(|service| service.name == wire.service);
    match service.and_then(|service| service.operation(name)) {
        Some(operation) => Ok(operation),
        None if wire.knows(name) => {
            Err(Failure::NotBuilt { service: wire.service.to_owned(), operation: name.to_owned() })
        }
        None => Err(Failure::UnknownOperation(name.chars().take(100).collect())),
    }
}

fn tell(server: &Server, request: &Request, answer: &Answer, told: &Told, took: Duration) {
    let code = answer.error.as_deref().unwrap_or("ok");
    server.metrics.answered(told.service, told.operation.as_deref().unwrap_or("unknown"), code, took);
    log::request(json!({
        "request_id": told.request_id,
        "service": told.service,
        "operation": told.operation,
        "code": code,
        "status": answer.status,
        "micros": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "access_key_id": told.access_key_id,
        "principal": told.principal,
        "region": told.region,
        "source": request.source.to_string(),
        "cause": told.cause,
    }));
}

fn response(answer: Answer, request_id: &str, closes: bool) -> Response<Body> {
    let mut response = Response::builder()
        .status(answer.status)
        .header("x-amzn-requestid", request_id)
        .header(header::CONTENT_TYPE, answer.content_type)
        .header(header::CACHE_CONTROL, "no-cache, no-store, must-revalidate, private");
    if let Some(code) = answer.error.as_deref().and_then(|code| HeaderValue::from_str(code).ok()) {
        response = response.header("x-amzn-errortype", code);
    }
    if closes {
        response = response.header(header::CONNECTION, "close");
    }
    // The body stays what it is, memory that is wiped when it has been sent.
    let body = Body::from(Bytes::from_owner(Wiped(answer.body)));
    response.body(body).unwrap_or_default()
}

/// A body that is wiped when it was sent.
struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

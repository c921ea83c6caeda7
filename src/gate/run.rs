//! Running an operation: settle, savepoint, body, record, commit.

use std::cell::RefCell;

use serde_json::{Map, Value};

use crate::clock::Time;
use crate::ids::{self, AccountId, Region};
use crate::store::{self, StoreError, Transaction};
use crate::trail::{self, EventType, Prepared, Record, Resource};
use crate::twin::{self, Protection};

use super::identity::{Identity, foreign_identity, identity, invoked_by};
use super::settle::{finish_truncation, settle_in, truncation_due};
use super::{Call, Operation, ServiceError, UNDETERMINED, faults};

/// What an operation adds to its own record.
#[derive(Debug, Default)]
pub struct Draft {
    request: Value,
    response: Value,
    additional: Map<String, Value>,
    resources: Vec<Resource>,
    mentioned: Vec<Resource>,
    elsewhere: Vec<Elsewhere>,
}

/// What an operation that reaches into another Region leaves in that Region's trail, if it succeeds.
#[derive(Debug)]
pub struct Elsewhere {
    /// The other Region.
    pub region: Region,
    /// Under which name it is recorded there.
    pub name: &'static str,
    /// `requestParameters`.
    pub request: Value,
    /// `responseElements`.
    pub response: Value,
    /// Type, ARN and owner of what it touched there.
    pub resource: (&'static str, String, AccountId),
}

impl Draft {
    /// Replaces `requestParameters`, as for an operation that learns only on the way what it was asked.
    pub fn set_request(&mut self, parameters: Value) {
        self.request = parameters;
    }

    /// Sets `responseElements`; they are recorded only if the operation succeeds.
    pub fn set_response(&mut self, elements: Value) {
        self.response = elements;
    }

    /// Adds a field to `additionalEventData`.
    pub fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.additional.insert(name.to_owned(), value.into());
    }

    /// Adds a resource to the record's `resources`; once is enough.
    pub fn resource(&mut self, kind: &str, arn: &str, owner: &AccountId) {
        let resource = Resource { account: owner.clone(), kind: kind.to_owned(), name: arn.to_owned() };
        if !self.resources.contains(&resource) {
            self.resources.push(resource);
        }
    }

    /// Adds a record in another Region's trail.
    pub fn also(&mut self, elsewhere: Elsewhere) {
        self.elsewhere.push(elsewhere);
    }

    /// Makes the record found under a resource that it does not list, such as the `vol-…` of an EC2 call.
    pub fn mention(&mut self, kind: &str, name: &str, owner: &AccountId) {
        let resource = Resource { account: owner.clone(), kind: kind.to_owned(), name: name.to_owned() };
        if !self.mentioned.contains(&resource) {
            self.mentioned.push(resource);
        }
    }
}

/// An operation inside its transaction.
#[derive(Debug)]
pub struct Step<'a> {
    /// Who calls.
    pub call: &'a Call<'a>,
    /// The one writing transaction, which also takes the record.
    pub tx: &'a Transaction<'a>,
    /// The time on the home's clock.
    pub now: Time,
    /// What the record will say.
    pub draft: &'a mut Draft,
    /// What the caller presented to be let in: the ids of grants whose tokens came with the request.
    pub presented: Vec<String>,
}

/// Runs an operation that is one transaction.
///
/// Settles what is due, runs `body`, and commits its changes together with one record of `operation`. If `body` answers an
/// error its changes are undone, and the record of the refusal is committed alone.
///
/// # Errors
/// `body`'s error, or that of the store, in which case neither change nor record exist.
pub fn run<T>(
    call: &Call<'_>,
    operation: &Operation,
    request_parameters: Value,
    body: impl FnOnce(&mut Step<'_>) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    let mut answer = None;
    let ended = run_one(call, operation, request_parameters, &mut once(body, &mut answer))?;
    finish(call, ended)?;
    answer.ok_or_else(unanswered)
}

/// What an operation does, without its types: what is around it is compiled once and not for each operation.
type Body<'a> = &'a mut dyn FnMut(&mut Step<'_>) -> Result<(), ServiceError>;

/// A body that is run once at most and leaves what it answers in `answer`.
fn once<T>(
    body: impl FnOnce(&mut Step<'_>) -> Result<T, ServiceError>,
    answer: &mut Option<T>,
) -> impl FnMut(&mut Step<'_>) -> Result<(), ServiceError> {
    let mut waiting = Some(body);
    move |step| {
        let body = waiting.take().ok_or_else(unanswered)?;
        *answer = Some(body(step)?);
        Ok(())
    }
}

fn unanswered() -> ServiceError {
    ServiceError::machine("the operation ended without an outcome")
}

fn run_one(
    call: &Call<'_>,
    operation: &Operation,
    request_parameters: Value,
    body: Body<'_>,
) -> Result<Ended, ServiceError> {
    if call.trace.is_some() {
        return run_two(call, operation, request_parameters, &mut |_| Ok(()), body);
    }
    let mut waiting = Some((request_parameters, body));
    let ended = call.home.write_together(|tx| {
        if !faults::of(tx, operation)?.is_empty() {
            return Ok(None);
        }
        let Some((request, body)) = waiting.take() else { return Ok(None) };
        let began = store::clock(tx)?.now();
        let draft = Draft { request, ..Draft::default() };
        let admitted = room_for(call, operation).and_then(|()| call.check());
        end(call, operation, tx, began, draft, admitted.map(|()| body), &mut Vec::new()).map(Some)
    })?;
    match (ended, waiting) {
        (Some(ended), _) => Ok(ended),
        // Faults come over a call outside any transaction.
        (None, Some((request, body))) => run_two(call, operation, request, &mut |_| Ok(()), body),
        (None, None) => Err(unanswered()),
    }
}

/// What an operation came to inside its transaction.
struct Ended {
    outcome: Result<(), ServiceError>,
    /// Whether the log must be truncated behind it.
    truncate: bool,
}

fn finish(call: &Call<'_>, ended: Ended) -> Result<(), ServiceError> {
    if ended.truncate {
        // The operation is committed whatever becomes of this; what is not truncated now is truncated next time.
        let _ = finish_truncation(call.home);
    }
    ended.outcome
}

/// Runs an operation that calls others on the way, each of which leaves its own record.
///
/// `prepare` runs outside any transaction and may call operations, start programs and write files; `commit` then changes
/// the state, in one transaction with the record of `operation`. An error of either undoes what `commit` changed and is
/// recorded; what `prepare` did is `prepare`'s to undo. The record bears the time at which `prepare` began.
///
/// What `prepare` made is dropped after the transaction is committed or undone and not before: a lock in it keeps others
/// from looking at a state that the commit is about to change.
///
/// # Errors
/// As [`run`].
pub fn run_steps<P, T>(
    call: &Call<'_>,
    operation: &Operation,
    request_parameters: Value,
    prepare: impl FnOnce(&mut Draft) -> Result<P, ServiceError>,
    commit: impl FnOnce(&mut Step<'_>, &mut P) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    let prepared = RefCell::new(None);
    let (mut waiting, mut answer) = (Some(prepare), None);
    let mut prepare = |draft: &mut Draft| {
        let prepare = waiting.take().ok_or_else(unanswered)?;
        prepared.replace(Some(prepare(draft)?));
        Ok(())
    };
    let commit = |step: &mut Step<'_>| commit(step, prepared.borrow_mut().as_mut().ok_or_else(unanswered)?);
    let ended = run_two(call, operation, request_parameters, &mut prepare, &mut once(commit, &mut answer))?;
    drop(prepared.take());
    finish(call, ended)?;
    answer.ok_or_else(unanswered)
}

fn run_two(
    call: &Call<'_>,
    operation: &Operation,
    request_parameters: Value,
    prepare: &mut dyn FnMut(&mut Draft) -> Result<(), ServiceError>,
    commit: Body<'_>,
) -> Result<Ended, ServiceError> {
    let mut draft = Draft { request: request_parameters, ..Draft::default() };
    if let Some(trace) = call.trace {
        trace.begin(call, operation);
    }
    let (began, ordered) =
        call.home.read(|tx| Ok::<_, StoreError>((store::clock(tx)?.now(), faults::of(tx, operation)?)))?;
    let prepared = faults::strike(&ordered, operation)
        .and_then(|()| room_for(call, operation))
        .and_then(|()| call.check())
        .and_then(|()| prepare(&mut draft));
    let mut left = Vec::new();
    let written =
        call.home.write_together(|tx| end(call, operation, tx, began, draft, prepared.map(|()| commit), &mut left));
    if let Some(trace) = call.trace {
        trace.end(written.as_ref().map_or_else(Some, |ended| ended.outcome.as_ref().err()), left);
    }
    written
}

/// Settles, runs `body` (or says what kept it from running), and leaves the record, also in `left` if the call is explained.
fn end(
    call: &Call<'_>,
    operation: &Operation,
    tx: &Transaction<'_>,
    began: Time,
    mut draft: Draft,
    body: Result<Body<'_>, ServiceError>,
    left: &mut Vec<Value>,
) -> Result<Ended, ServiceError> {
    let now = store::clock(tx)?.now();
    settle_in(call.home, tx, now, operation.service.settlers)?;
    // What becomes due leaves records of its own; those behind them are the operation's.
    let place = call.trace.map(|_| trail::newest(tx)).transpose()?;
    let outcome = body.and_then(|body| {
        let changes = tx.changes();
        run_statement(tx, "SAVEPOINT operation")?;
        let outcome = body(&mut Step { call, tx, now, draft: &mut draft, presented: Vec::new() });
        let undone = if outcome.is_ok() {
            Ok(())
        } else {
            if tx.changes() != changes {
                tx.forget();
            }
            run_statement(tx, "ROLLBACK TO operation")
        };
        let ended = undone.and_then(|()| run_statement(tx, "RELEASE operation"));
        match (ended, outcome) {
            (Err(_), Err(error)) => Err(error),
            (ended, outcome) => ended.map_err(ServiceError::from).and(outcome),
        }
    });
    if tx.is_autocommit() {
        // SQLite has rolled the whole transaction back (disk full): the body's error tells why.
        return Err(outcome.err().unwrap_or_else(|| StoreError::Undone.into()));
    }
    if !twin::is_off(Protection::Record) {
        let identity = match call.credential {
            Some(_) => identity(call, began),
            None => tx.recall(&name_of_identity(call, began), || Ok::<_, StoreError>(identity(call, began)))?,
        };
        let records = records(call, operation, began, draft, identity, outcome.as_ref().err());
        let prepare = || records.iter().map(|record| Prepared::of(tx, record)).collect::<Result<Vec<_>, _>>();
        let prepared = tx.unremembered(prepare)?;
        let append =
            |tx: &Transaction<'_>| tx.unremembered(|| prepared.into_iter().try_for_each(|record| record.append(tx)));
        match place {
            Some(place) => {
                append(tx)?;
                *left = trail::behind(tx, place)?;
            }
            None => tx.at_end(append),
        }
    }
    Ok(Ended { outcome, truncate: truncation_due(tx)? })
}

/// All that the identity of a call without a credential follows from.
fn name_of_identity(call: &Call<'_>, began: Time) -> String {
    let via = if call.via.is_some() { call.source_ip.as_str() } else { "" };
    format!("{} {} {via} {}", call.principal.arn(), call.region, began.to_seconds_string())
}

fn run_statement(tx: &Transaction<'_>, statement: &str) -> Result<(), StoreError> {
    tx.prepare_cached(statement)?.execute([])?;
    Ok(())
}

/// What makes new things waits for room on the disk; what looks at things and ends them uses the last of it.
fn room_for(call: &Call<'_>, operation: &Operation) -> Result<(), ServiceError> {
    let makes = ["Create", "Attach", "Generate", "Encrypt", "ReEncrypt"];
    if makes.iter().any(|verb| operation.name.starts_with(verb)) { Ok(call.home.spare_room()?) } else { Ok(()) }
}

/// The record in the caller's trail, and one in the trail of each other account whose resource was used. A caller who was
/// denied has the record alone (CloudTrail user guide, "sharedEventID"; AWS KMS developer guide, "Logging").
fn records(
    call: &Call<'_>,
    operation: &Operation,
    began: Time,
    draft: Draft,
    identity: Identity,
    error: Option<&ServiceError>,
) -> Vec<Record> {
    let mut own = Record {
        event_id: ids::event_id(began.millis()),
        time: began,
        recipient: call.principal.account().clone(),
        region: call.region.clone(),
        source: operation.service.event_source.to_owned(),
        name: operation.name.to_owned(),
        event_type: EventType::ApiCall,
        identity: identity.json,
        username: identity.username,
        access_key_id: identity.access_key_id,
        source_ip: call.source_ip.clone(),
        user_agent: call.user_agent.clone(),
        request_id: Some(call.request_id.clone()),
        read_only: operation.read_only,
        request: draft.request,
        response: if error.is_none() { draft.response } else { Value::Null },
        additional: draft.additional,
        service_event_details: None,
        shared_event_id: None,
        error: error.map(|error| (recorded_code(operation, error), recorded_message(error))),
        lists_resources: operation.service.lists_resources,
        resources: draft.resources,
        mentioned: draft.mentioned,
    };
    let also = |elsewhere: Elsewhere| {
        let (kind, name, account) = elsewhere.resource;
        Record {
            event_id: ids::event_id(began.millis()),
            region: elsewhere.region,
            identity: invoked_by(&own.identity, operation.service.event_source),
            name: elsewhere.name.to_owned(),
            request: elsewhere.request,
            response: elsewhere.response,
            resources: vec![Resource { account, kind: kind.to_owned(), name }],
            ..own.clone()
        }
    };
    let elsewhere: Vec<_> = draft.elsewhere.into_iter().filter(|_| error.is_none()).map(also).collect();
    let denied =
        error.is_some_and(|error| matches!(error.code(), "AccessDeniedException" | "AccessDenied" | UNDETERMINED));
    let mut owners: Vec<_> = own.resources.iter().map(|resource| resource.account.clone()).collect();
    owners.retain(|owner| *owner != own.recipient && !denied);
    owners.sort_unstable();
    owners.dedup();
    if owners.is_empty() {
        return [vec![own], elsewhere].concat();
    }
    own.shared_event_id = Some(ids::uuid());
    let seen_by = |owner: AccountId| Record {
        event_id: ids::event_id(began.millis()),
        recipient: owner,
        identity: foreign_identity(&own.identity),
        username: None,
        access_key_id: None,
        ..own.clone()
    };
    let others: Vec<_> = owners.into_iter().map(seen_by).collect();
    [vec![own], others, elsewhere].concat()
}

/// EC2's codes bear the side on which the fault is: `Client.` or `Server.`. Being called too often is the client's, also
/// where the answer's status is the server's (as recorded).
fn recorded_code(operation: &Operation, error: &ServiceError) -> String {
    let servers = match error {
        ServiceError::Refused(refusal) => refusal.status >= 500 && refusal.code != "RequestLimitExceeded",
        ServiceError::Machine(_) => true,
    };
    match operation.service.error_prefix {
        "" => error.code().to_owned(),
        _ if servers => format!("Server.{}", error.code()),
        prefix => format!("{prefix}{}", error.code()),
    }
}

/// A failure of this machine is recorded without its chain, which may name local paths.
fn recorded_message(error: &ServiceError) -> String {
    match error {
        ServiceError::Refused(refusal) => refusal.message.clone(),
        ServiceError::Machine(_) => "An internal error occurred.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Service;
    use crate::store::Home;

    static SERVICE: Service =
        Service { event_source: "ec2.amazonaws.com", error_prefix: "Client.", lists_resources: false, settlers: &[] };
    static OPERATION: Operation = Operation { name: "CreateVolume", read_only: false, service: &SERVICE };

    /// Looks, when it is dropped, from another connection at whether the commit is to be seen.
    struct Guard<'a> {
        other: &'a Home,
        seen: &'a mut Option<String>,
    }

    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            *self.seen = self.other.read(|tx| store::setting(tx, "changed")).unwrap();
        }
    }

    #[test]
    fn what_was_prepared_is_kept_until_the_commit_is_seen_by_all() {
        let base = tempfile::tempdir().unwrap();
        let open = || Home::open(&base.path().join("home")).unwrap();
        let (home, other) = (open(), open());
        let call = Call::direct(&home, "arn:aws:iam::123456789012:root".parse().unwrap(), "us-east-1".parse().unwrap());
        let mut seen = None;
        let guard = Guard { other: &other, seen: &mut seen };
        let prepare = |_: &mut Draft| Ok(guard);
        run_steps(&call, &OPERATION, Value::Null, prepare, |step, _| {
            Ok(store::set_setting(step.tx, "changed", "yes")?)
        })
        .unwrap();
        assert_eq!(seen.as_deref(), Some("yes"));
    }
}

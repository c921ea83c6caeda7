//! What is ours: health, metrics, and the reset of a home that tests use. Served to this machine only.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Response, header};
use serde_json::{Map, json};

use super::log;
use super::metrics::Gauges;
use super::server::{CONNECTIONS, Peer, Server, TURNS, empty};
use crate::api::SERVICES;
use crate::ec2;

/// How long a look at the counters may wait for the processes of attached volumes.
const VOLUMES_PATIENCE: Duration = Duration::from_secs(1);

/// `GET /_blockseal/health`: that the server answers, and what it has.
pub(super) async fn health(Extension(peer): Extension<Peer>) -> Response<Body> {
    if !peer.is_local {
        return absent();
    }
    let services: Map<_, _> = SERVICES.iter().map(|service| (service.name.to_owned(), "running".into())).collect();
    let body = json!({ "status": "running", "version": env!("CARGO_PKG_VERSION"), "services": services });
    answer(200, "application/json", body.to_string())
}

/// `GET /metrics`.
pub(super) async fn metrics(State(server): State<Arc<Server>>, Extension(peer): Extension<Peer>) -> Response<Body> {
    if !peer.is_local {
        return absent();
    }
    let looked = tokio::task::spawn_blocking(move || {
        let home = server.home.read().unwrap_or_else(PoisonError::into_inner);
        let home = home.as_ref();
        let attached = home.and_then(|home| ec2::count_attached(home).ok());
        let traffic = home.and_then(|home| ec2::traffic(home, VOLUMES_PATIENCE).ok()).unwrap_or_default();
        if let Some(Err(error)) = home.map(|home| server.metrics.look(home)) {
            log::warning("uses of KMS could not be counted", json!({ "cause": error.to_string() }));
        }
        let connections = CONNECTIONS - server.connections.available_permits();
        let running = TURNS - server.turns.available_permits();
        server.metrics.text(&Gauges { attached, traffic, connections, running })
    });
    match looked.await {
        Ok(text) => answer(200, "text/plain; version=0.0.4; charset=utf-8", text),
        Err(_) => absent(),
    }
}

/// `POST /_blockseal/reset`: the home as it was made, with `--enable-reset`.
pub(super) async fn reset(State(server): State<Arc<Server>>, Extension(peer): Extension<Peer>) -> Response<Body> {
    if !peer.is_local || !server.options.may_reset {
        return answer(403, "application/json", json!({"message": "start the server with --enable-reset"}).to_string());
    }
    // Waits for the operations that run, and keeps new ones waiting.
    match tokio::task::spawn_blocking(move || empty(&server)).await {
        Ok(Ok(())) => answer(200, "application/json", json!({"status": "reset"}).to_string()),
        Ok(Err(error)) => {
            log::warning("the home could not be emptied", json!({ "cause": error.to_string() }));
            let message = "the home could not be emptied; the server's log says why";
            answer(500, "application/json", json!({ "message": message }).to_string())
        }
        Err(_) => absent(),
    }
}

/// As a server that has no such page.
pub(super) fn absent() -> Response<Body> {
    answer(404, "application/json", json!({"message": "not found"}).to_string())
}

pub(super) fn answer(status: u16, content_type: &'static str, body: String) -> Response<Body> {
    let built = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from(body));
    built.unwrap_or_default()
}

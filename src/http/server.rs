//! The server itself: one runtime, the socket it listens at, its connections, and their end.
//!
//! One thread serves all connections; operations run on a bounded pool beside it, because they wait for the disk. What is
//! bounded besides: connections, the head and the body of a request in size and in time, and how many wait for their turn.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::http::Request;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::Uid;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tower_service::Service as _;

use super::caller::Known;
use super::listener::{Listener, Stream};
use super::metrics::Metrics;
use super::{Auth, Listen, Options, ServeError, border, endpoint, explained, log, own, tls};
use crate::gate::{self, ServiceError};
use crate::store::Home;
use crate::{ec2, ids, kms};

/// The most connections; further ones wait to be accepted.
pub(super) const CONNECTIONS: usize = 1024;

/// The most operations at once; further ones wait for their turn.
pub(super) const TURNS: usize = 64;

/// How long the head of a request may take to come, and how long a connection may be idle.
const HEAD_PATIENCE: Duration = Duration::from_secs(20);

/// The longest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// What every request sees.
pub(super) struct Server {
    /// `None` only while it is emptied, or after that failed.
    pub(super) home: RwLock<Option<Home>>,
    /// Opens the home anew after it was emptied.
    open: Box<dyn Fn() -> Result<Home, ServiceError> + Send + Sync>,
    tls: Option<tls::Acceptor>,
    pub(super) options: Options,
    pub(super) known: Known,
    pub(super) metrics: Metrics,
    pub(super) turns: Arc<Semaphore>,
    pub(super) connections: Arc<Semaphore>,
    pub(super) has_told_of_root: AtomicBool,
}

impl Server {
    pub(super) fn of(
        home: Home,
        open: Box<dyn Fn() -> Result<Home, ServiceError> + Send + Sync>,
        tls: Option<tls::Acceptor>,
        options: Options,
    ) -> Result<Self, ServiceError> {
        let metrics = Metrics::default();
        metrics.begin(&home)?;
        Ok(Self {
            home: RwLock::new(Some(home)),
            open,
            tls,
            options,
            known: Known::default(),
            metrics,
            turns: Arc::new(Semaphore::new(TURNS)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            has_told_of_root: AtomicBool::new(false),
        })
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) source: IpAddr,
    /// Whether it is on this machine.
    pub(super) is_local: bool,
}

/// Runs the server until it is told to end by SIGTERM or SIGINT, and then until what is in flight is answered.
///
/// `open` opens the home; `ready` is told where the server listens once it does.
///
/// # Errors
/// If the home cannot be opened, the address not be had, or the options do not go together.
pub fn serve(
    open: impl Fn() -> Result<Home, ServiceError> + Send + Sync + 'static,
    options: Options,
    ready: impl FnOnce(&str),
) -> Result<(), ServiceError> {
    tls::refuse_reachable(&options).map_err(ServiceError::machine)?;
    let tls = options.tls.as_ref().map(tls::acceptor).transpose().map_err(ServiceError::machine)?;
    log::log_requests(options.log_requests);
    options.seed.into_iter().for_each(ids::fix);
    let home = open()?;
    // A server that was killed may have left it standing.
    home.freeze_clock(options.freezes_clock)?;
    let server = Arc::new(Server::of(home, Box::new(open), tls, options)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(TURNS + 8)
        .thread_keep_alive(Duration::from_secs(5))
        .build()
        .map_err(|error| ServiceError::machine(ServeError::Runtime(error)))?;
    let ended = runtime.block_on(run(server.clone(), ready)).map_err(ServiceError::machine);
    // Waits for the operations whose clients have left.
    drop(runtime);
    if let Some(home) = server.home.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
        home.freeze_clock(false)?;
        if server.options.is_ephemeral {
            ec2::end_all_exporters(home)?;
        }
    }
    ended
}

async fn run(server: Arc<Server>, ready: impl FnOnce(&str)) -> Result<(), ServeError> {
    let mut terminated = signal(SignalKind::terminate()).map_err(ServeError::Runtime)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(ServeError::Runtime)?;
    let mut listener = Listener::bind(&server.options.listen).await?;
    warn_of_what_is_open(&server);
    ready(&listener.url(server.tls.is_some()));
    let router = router(&server);
    let (end, ended) = watch::channel(());
    let housekeeping = tokio::spawn(keep_house(server.clone()));
    {
        let mut told = pin!(poll_fn(|context| {
            match (terminated.poll_recv(context), interrupted.poll_recv(context)) {
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                _ => Poll::Ready(()),
            }
        }));
        let mut accept = pin!(accept(&server, &mut listener, &router, &ended));
        poll_fn(|context| match told.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => accept.as_mut().poll(context),
        })
        .await;
    }
    drop(listener);
    housekeeping.abort();
    drop(end);
    // Every connection has its permit for as long as it lives. A second signal does not wait.
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    let mut over = pin!(server.connections.acquire_many(all));
    poll_fn(|context| {
        let again = terminated.poll_recv(context).is_ready() || interrupted.poll_recv(context).is_ready();
        if again { Poll::Ready(()) } else { over.as_mut().poll(context).map(drop) }
    })
    .await;
    Ok(())
}

/// What answers which path.
pub(super) fn router(server: &Arc<Server>) -> Router {
    Router::new()
        .route("/_blockseal/health", get(own::health))
        .route("/_blockseal/explain", post(explained::explain))
        .route("/_blockseal/reset", post(own::reset))
        .route("/metrics", get(own::metrics))
        .fallback(endpoint::aws)
        .with_state(server.clone())
}

/// Takes connections for ever.
async fn accept(server: &Arc<Server>, listener: &mut Listener, router: &Router, ended: &watch::Receiver<()>) {
    let users = served_users(server);
    loop {
        let Ok(permit) = server.connections.clone().acquire_owned().await else { return };
        let accepted = listener.accept(&users).await;
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: others must end before this can go on.
                log::warning("a connection could not be taken", json!({ "cause": error.to_string() }));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(peer) = peer else {
            log::warning("a connection of another user of this machine was refused", json!({}));
            continue;
        };
        let (server, router, mut ended) = (server.clone(), router.clone(), ended.clone());
        tokio::spawn(async move {
            if let Some(stream) = secured(&server, stream, &mut ended).await {
                connection(server, router, stream, peer, ended).await;
            }
            drop(permit);
        });
    }
}

/// The stream behind TLS, where that is asked for; `None` if the client does not come to it in time, or the server ends.
async fn secured(server: &Server, stream: Stream, ended: &mut watch::Receiver<()>) -> Option<Stream> {
    let (tcp, tls) = match (stream, &server.tls) {
        (Stream::Tcp(tcp), Some(tls)) => (tcp, tls),
        (stream, _) => return Some(stream),
    };
    let mut handshake = pin!(tokio::time::timeout(HEAD_PATIENCE, tls.accept(tcp)));
    let mut told = pin!(ended.changed());
    poll_fn(|context| match told.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => handshake.as_mut().poll(context).map(|shaken| Some(Stream::Tls(Box::new(shaken.ok()?.ok()?)))),
    })
    .await
}

pub(super) async fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    server: Arc<Server>,
    router: Router,
    stream: S,
    peer: Peer,
    mut ended: watch::Receiver<()>,
) {
    let router = router.layer(Extension(peer));
    let service = service_fn(move |request: Request<Incoming>| {
        let refused = border::refusal(request.headers(), request.uri(), &server.options.hosts);
        let mut router = router.clone();
        if refused.is_some() {
            server.metrics.turned_away();
        }
        async move {
            match refused {
                Some(why) => {
                    let mut response = own::answer(403, "application/json", json!({ "message": why }).to_string());
                    let close = axum::http::HeaderValue::from_static("close");
                    response.headers_mut().insert(axum::http::header::CONNECTION, close);
                    Ok(response)
                }
                None => router.call(request.map(Body::new)).await,
            }
        }
    });
    let mut builder = http1::Builder::new();
    // A client that has said all may close its side: what it asked for is answered all the same.
    builder
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_header_size(MAX_HEAD)
        .max_buf_size(2 * MAX_HEAD)
        .writev(true);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut told = pin!(ended.changed());
    let mut is_ending = false;
    // An error is the client's: it went away or did not speak HTTP, and was answered if that could be done.
    let _ = poll_fn(|context| {
        if !is_ending && told.as_mut().poll(context).is_ready() {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await;
}

/// What is due by the clock and what a crash left, once a second, as long as nothing else does it.
async fn keep_house(server: Arc<Server>) {
    let mut last = String::new();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let server = server.clone();
        let done = tokio::task::spawn_blocking(move || {
            let home = server.home.read().unwrap_or_else(PoisonError::into_inner);
            let Some(home) = home.as_ref() else { return Ok(Vec::new()) };
            gate::settle(home, kms::SERVICE.settlers)?;
            ec2::repair(home)?;
            ec2::take_notices(home)
        });
        let failed = match done.await {
            Ok(Ok(notices)) => {
                for notice in notices {
                    log::warning("something was found out of order", json!({ "notice": notice }));
                }
                String::new()
            }
            Ok(Err(error)) => error.message(),
            Err(_) => return,
        };
        // Said once, not every second.
        if failed != last && !failed.is_empty() {
            log::warning("what is due could not be done", json!({ "cause": failed }));
        }
        last = failed;
    }
}

/// Who may call over a Unix socket: this user, root, and the home's owner, for whom root may run the server.
fn served_users(server: &Server) -> Vec<Uid> {
    let home = server.home.read().unwrap_or_else(PoisonError::into_inner);
    let owner = home.as_ref().and_then(|home| std::fs::metadata(home.dir().path()).ok());
    let mut users = vec![Uid::effective(), Uid::from_raw(0)];
    users.extend(owner.map(|owner| Uid::from_raw(std::os::unix::fs::MetadataExt::uid(&owner))));
    users
}

/// What an operator may not have meant.
fn warn_of_what_is_open(server: &Server) {
    let is_root = Uid::effective().is_root();
    if let (Auth::Open, true, Listen::Tcp(address)) = (server.options.auth, is_root, &server.options.listen) {
        let advice =
            "every user of this machine can call it as root of an account: use --listen unix:PATH or --auth strict";
        log::warning(advice, json!({ "listen": address.to_string() }));
    }
}

/// Empties a home: ends what runs in it, removes what is in it but its configuration, and makes it anew. What other processes
/// have open of it is theirs to lose.
pub(super) fn empty(server: &Server) -> Result<(), ServiceError> {
    let mut slot = server.home.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(home) = slot.take() {
        if let Err(error) = ec2::end_all_exporters(&home) {
            *slot = Some(home);
            return Err(error);
        }
        let path = home.dir().path().to_owned();
        drop(home);
        remove_contents(&path).map_err(ServiceError::machine)?;
    }
    server.known.forget();
    server.options.seed.into_iter().for_each(ids::fix);
    let home = (server.open)()?;
    home.freeze_clock(server.options.freezes_clock)?;
    server.metrics.begin(&home)?;
    *slot = Some(home);
    Ok(())
}

fn remove_contents(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == "config" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

//! The server without a socket: bytes in, bytes out. For tests that send it millions of requests.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::server::{self, Peer, Server};
use super::{Options, log};
use crate::gate::ServiceError;
use crate::store::Home;

/// A server in this process that listens nowhere.
#[derive(Debug)]
pub struct Rehearsal {
    runtime: Runtime,
    parts: Parts,
}

struct Parts {
    server: Arc<Server>,
    router: Router,
    end: watch::Sender<()>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("options", &self.server.options).finish_non_exhaustive()
    }
}

impl Rehearsal {
    /// A server of `home`, which should be one in memory; where `options` would have it listen does not matter.
    ///
    /// # Errors
    /// If the home cannot be read or there are no threads.
    pub fn new(home: Home, options: Options) -> Result<Self, ServiceError> {
        log::log_requests(options.log_requests);
        let open = || Home::scratch().map_err(ServiceError::from);
        let server = Arc::new(Server::of(home, Box::new(open), None, options)?);
        let router = server::router(&server);
        let runtime = Builder::new_current_thread().enable_time().build().map_err(ServiceError::machine)?;
        Ok(Self { runtime, parts: Parts { server, router, end: watch::channel(()).0 } })
    }

    /// What comes back on a connection of this machine's on which the client says `bytes`, and then no more.
    pub fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let Parts { server, router, end } = &self.parts;
        let said = Arc::new(Mutex::new(Vec::new()));
        let wire = Wire { input: bytes.to_vec(), at: 0, said: said.clone() };
        let peer = Peer { source: IpAddr::V4(Ipv4Addr::LOCALHOST), is_local: true };
        self.runtime.block_on(server::connection(server.clone(), router.clone(), wire, peer, end.subscribe()));
        std::mem::take(&mut said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection whose client has said all that it will.
struct Wire {
    input: Vec<u8>,
    at: usize,
    said: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = &self.input[self.at..];
        let taken = rest.len().min(into.remaining());
        into.put_slice(&rest[..taken]);
        self.at += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(from);
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

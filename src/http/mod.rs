//! The AWS endpoint: the wire forms of the operations in [`crate::api`], on one port.
//!
//! From the wire to an operation a request passes four places, each in a file of its own: the `border` turns web pages
//! away before anything is read, `signature` and `caller` find out who calls, `protocol` reads what is asked for and
//! words the answer, `endpoint` runs it. No operation has code here.

mod border;
mod caller;
mod endpoint;
mod explained;
mod failure;
mod listener;
mod log;
mod metrics;
mod own;
mod protocol;
mod rehearsal;
mod request;
mod server;
mod signature;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

pub use caller::Auth;
#[doc(hidden)]
pub use rehearsal::Rehearsal;
pub use server::serve;
pub use tls::TlsFiles;

use crate::ids::AccountId;

/// Where the server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Listen {
    /// A TCP address; port 0 takes any that is free.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
}

/// A text that is no place to listen at.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is no place to listen at: give ADDRESS:PORT, such as 127.0.0.1:4566, or unix:PATH")]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let refuse = || ListenError(text.chars().take(200).collect());
        match text.strip_prefix("unix:") {
            Some("") => Err(refuse()),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.replace("localhost:", "127.0.0.1:").parse().map(Self::Tcp).map_err(|_| refuse()),
        }
    }
}

/// How the server runs.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
pub struct Options {
    /// Where it listens.
    pub listen: Listen,
    /// Who is let in.
    pub auth: Auth,
    /// Whose root an unknown access key is in [`Auth::Open`].
    pub account: AccountId,
    /// Names, beside the loopback ones, by which clients may call this server.
    pub hosts: Vec<String>,
    /// What connections over TCP are secured with.
    pub tls: Option<TlsFiles>,
    /// Whether the home is thrown away at the end, so that no volume stays attached.
    pub is_ephemeral: bool,
    /// Whether `POST /_blockseal/reset` may empty the home.
    pub may_reset: bool,
    /// Whether the home's clock stands still while the server runs.
    pub freezes_clock: bool,
    /// Fixes the ids that are made, from its first, also after a reset; only where the home is thrown away at the end, or an
    /// id could be made twice.
    pub seed: Option<u64>,
    /// Whether every request is logged.
    pub log_requests: bool,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address that others can reach, without what that demands.
    #[error(
        "{0} can be reached from other machines: that takes --auth strict with --tls-cert and --tls-key; or listen at a loopback address or at unix:PATH"
    )]
    NotLoopback(SocketAddr),
    /// A certificate or a key that cannot be used.
    #[error("cannot use {}: {why}", .path.display())]
    Tls {
        /// Its file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The address or the socket cannot be had.
    #[error("cannot listen at {place}")]
    Bind {
        /// The place.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// A file that is no socket, or a socket at which somebody listens.
    #[error("{0} is there already: another server listens there, or it is no socket")]
    Taken(PathBuf),
    /// The threads or the signals cannot be had.
    #[error("the server cannot be started")]
    Runtime(#[source] io::Error),
}

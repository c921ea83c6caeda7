//! Where connections come from: a TCP address, or a Unix socket whose callers the kernel names.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::unistd::Uid;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::server::Peer;
use super::tls::TlsStream;
use super::{Listen, ServeError};
use crate::twin::{self, Protection};

/// A socket that is listened at. A Unix socket's name is taken away when it is dropped.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: PathBuf },
}

impl Listener {
    pub(super) async fn bind(listen: &Listen) -> Result<Self, ServeError> {
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address)
                .await
                .map(Self::Tcp)
                .map_err(|source| ServeError::Bind { place: address.to_string(), source }),
            Listen::Unix(path) => {
                make_way(path)?;
                let refuse = |source| ServeError::Bind { place: path.display().to_string(), source };
                let listener = UnixListener::bind(path).map_err(refuse)?;
                // Whatever the umask: who may connect is the kernel's to decide, and it is asked again at every connection.
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                std::fs::set_permissions(path, mode).map_err(refuse)?;
                Ok(Self::Unix { listener, path: path.clone() })
            }
        }
    }

    /// Where it listens, as a client is told.
    pub(super) fn url(&self, has_tls: bool) -> String {
        let scheme = if has_tls { "https" } else { "http" };
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("{scheme}://{address}"),
                Err(_) => scheme.to_owned(),
            },
            Self::Unix { path, .. } => format!("unix:{}", path.display()),
        }
    }

    /// The next connection, and who is at its other end: nobody, if he may not call.
    pub(super) async fn accept(&mut self, served: &[Uid]) -> io::Result<(Stream, Option<Peer>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let source = from.ip().to_canonical();
                Ok((Stream::Tcp(stream), Some(Peer { source, is_local: source.is_loopback() })))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let uid = Uid::from_raw(stream.peer_cred()?.uid());
                let peer = Peer { source: IpAddr::V4(Ipv4Addr::LOCALHOST), is_local: true };
                let is_served = served.contains(&uid) || twin::is_off(Protection::PeerCredentials);
                Ok((Stream::Unix(stream), is_served.then_some(peer)))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes away a socket that a server left when it was killed.
fn make_way(path: &Path) -> Result<(), ServeError> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() || std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ServeError::Taken(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(|source| ServeError::Bind { place: path.display().to_string(), source })
}

/// A connection's stream.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, from),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, from),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, from),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, from),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, from),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, from),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::without;

    /// Whether somebody who runs as this user is let in where `served` may call.
    fn is_let_in(served: &[Uid]) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let mut listener = Listener::bind(&Listen::Unix(path.clone())).await.unwrap();
            let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
            listener.accept(served).await.unwrap().1.is_some()
        })
    }

    /// The kernel says who is at the other end, and the twin does not ask it.
    #[test]
    fn another_user_is_not_let_in_over_a_unix_socket() {
        let own = Uid::effective();
        let others = [Uid::from_raw(own.as_raw() ^ 1), Uid::from_raw(own.as_raw() ^ 2)];
        assert!(is_let_in(&[others[0], own]));
        assert!(!is_let_in(&others));
        assert!(!is_let_in(&[]));
        assert!(without(Protection::PeerCredentials, || is_let_in(&others)));
    }
}

//! TLS: a certificate and its key, as the operator gives them. The provider of the cryptography is named here, and no default of
//! the process's is asked for.

//!
//! It is in the program if that was built with the feature `tls`, and otherwise refused.

use std::path::PathBuf;

use super::{Auth, Listen, Options, ServeError};
use crate::twin::{self, Protection};

#[cfg(not(feature = "tls"))]
pub(super) use absent::{Acceptor, TlsStream, acceptor};
#[cfg(feature = "tls")]
pub(super) use present::{Acceptor, TlsStream, acceptor};

/// The files of a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The certificate and those of its issuers, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM; nobody else may read it.
    pub key: PathBuf,
}

/// Refuses an address that other machines can reach, unless who calls is verified and nobody can listen.
pub(super) fn refuse_reachable(options: &Options) -> Result<(), ServeError> {
    match &options.listen {
        Listen::Tcp(address) if !address.ip().is_loopback() => {
            let is_safe = options.auth == Auth::Strict && options.tls.is_some();
            if is_safe || twin::is_off(Protection::Reachable) { Ok(()) } else { Err(ServeError::NotLoopback(*address)) }
        }
        _ => Ok(()),
    }
}

#[cfg(feature = "tls")]
mod present {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use zeroize::Zeroizing;

    use super::{ServeError, TlsFiles};

    pub(in crate::http) use tokio_rustls::TlsAcceptor as Acceptor;
    pub(in crate::http) use tokio_rustls::server::TlsStream;

    /// More than any chain of certificates takes.
    const MAX_FILE: u64 = 1 << 20;

    /// What makes TLS connections of TCP's.
    pub(in crate::http) fn acceptor(files: &TlsFiles) -> Result<Acceptor, ServeError> {
        let wrong = |path: &Path, why: String| ServeError::Tls { path: path.to_owned(), why };
        let certificate = read(&files.certificate, 0o022).map_err(|why| wrong(&files.certificate, why))?;
        let chain = CertificateDer::pem_slice_iter(&certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&files.certificate, error.to_string()))?;
        let key = read(&files.key, 0o077).map_err(|why| wrong(&files.key, why))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong(&files.key, error.to_string()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|error| wrong(&files.certificate, error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Acceptor::from(Arc::new(config)))
    }

    /// A file's bytes, if it allows others none of `forbidden`; else why not.
    fn read(path: &Path, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let found = file.metadata().map_err(|error| error.to_string())?;
        if !found.is_file() {
            return Err("it is no file".to_owned());
        }
        if found.mode() & forbidden != 0 {
            let what = if forbidden & 0o044 == 0 { "write to" } else { "read or write to" };
            return Err(format!("others may {what} it: chmod {:o}", 0o777 & !forbidden & 0o644));
        }
        if found.len() > MAX_FILE {
            return Err("it is too large for a certificate or a key".to_owned());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default() + 1));
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

#[cfg(not(feature = "tls"))]
mod absent {
    use std::future::Ready;
    use std::io;

    use super::{ServeError, TlsFiles};

    /// There is none.
    pub(in crate::http) enum Acceptor {}

    impl Acceptor {
        pub(in crate::http) fn accept<S>(&self, _: S) -> Ready<io::Result<TlsStream<S>>> {
            match *self {}
        }
    }

    pub(in crate::http) type TlsStream<S> = S;

    pub(in crate::http) fn acceptor(files: &TlsFiles) -> Result<Acceptor, ServeError> {
        let why =
            "this program was built without TLS; `cargo build --release --features tls` builds it with".to_owned();
        Err(ServeError::Tls { path: files.certificate.clone(), why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::without;

    /// Whether the server would listen there.
    fn listens(listen: &str, auth: Auth, has_tls: bool) -> bool {
        let file = || PathBuf::from("file.pem");
        let options = Options {
            listen: listen.parse().unwrap(),
            auth,
            account: "123456789012".parse().unwrap(),
            hosts: Vec::new(),
            tls: has_tls.then(|| TlsFiles { certificate: file(), key: file() }),
            is_ephemeral: false,
            may_reset: false,
            freezes_clock: false,
            seed: None,
            log_requests: false,
        };
        refuse_reachable(&options).is_ok()
    }

    /// Whoever can reach the address would be root, or hear what is said. The twin listens.
    #[test]
    fn others_reach_only_a_strict_server_behind_tls() {
        for address in ["0.0.0.0:4566", "[::]:4566", "192.0.2.1:4566"] {
            for (auth, has_tls) in [(Auth::Open, false), (Auth::Open, true), (Auth::Strict, false)] {
                assert!(!listens(address, auth, has_tls), "{address} {auth:?} {has_tls}");
                assert!(without(Protection::Reachable, || listens(address, auth, has_tls)));
            }
            assert!(listens(address, Auth::Strict, true));
        }
        for address in ["127.0.0.1:4566", "127.8.8.8:1", "[::1]:4566", "unix:api.sock"] {
            assert!(listens(address, Auth::Open, false), "{address}");
        }
    }
}

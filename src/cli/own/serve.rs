//! `serve`: the AWS endpoint.

use std::io::Write as _;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::{Outcome, Verb, arguments, init};
use crate::api::{Kind, Parameter};
use crate::cli::session::default_account;
use crate::cli::{CliError, Session};
use crate::gate::{Call, ServiceError};
use crate::http::{self, Auth, Listen, Options, ServeError, TlsFiles};
use crate::iam::Principal;

pub(super) static SERVE: Verb = Verb {
    name: "serve",
    help: "Serves every operation to AWS SDKs and tools, until it is told to end by SIGTERM or SIGINT",
    parameters: &[
        Parameter::string("Listen", "Where: ADDRESS:PORT or unix:PATH; 127.0.0.1:4566 unless given.").ours(),
        Parameter::choice(
            "Auth",
            &["open", "strict"],
            "Whether unknown access keys are root (open) or nobody (strict).",
        )
        .ours(),
        Parameter::strings("Host", "Names beside localhost by which clients may call this server.").ours(),
        Parameter::string("TlsCert", "A file with a certificate in PEM: the server then speaks TLS.").ours(),
        Parameter::string("TlsKey", "The file with the certificate's private key in PEM.").ours(),
        Parameter::boolean("Ephemeral", "Serve a temporary home that is gone at exit.").ours(),
        Parameter::string(
            "Init",
            "A file that the home is filled from before anything is served, as docs/init.md has it.",
        )
        .ours(),
        Parameter::boolean("EnableReset", "Let POST /_blockseal/reset empty the home.").ours(),
        Parameter::boolean("FrozenClock", "Let the home's clock stand still until `clock advance` moves it.").ours(),
        Parameter::new("Seed", Kind::Long, "Make the same ids every time; goes with --ephemeral.").ours(),
        Parameter::boolean("Quiet", "Log what is out of order and not every request.").ours(),
    ],
    run,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    listen: Option<String>,
    auth: Option<String>,
    #[serde(default)]
    host: Vec<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    ephemeral: Option<bool>,
    init: Option<PathBuf>,
    enable_reset: Option<bool>,
    frozen_clock: Option<bool>,
    seed: Option<i64>,
    quiet: Option<bool>,
}

fn run(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given: Given = arguments(given)?;
    let listen = given.listen.as_deref().unwrap_or("127.0.0.1:4566");
    let listen: Listen =
        listen.parse().map_err(|error: http::ListenError| CliError::parameter("--listen", error.to_string()))?;
    let auth = match given.auth.as_deref() {
        None | Some("open") => Auth::Open,
        Some("strict") => Auth::Strict,
        Some(other) => return Err(CliError::parameter("--auth", format!("'{other}' is neither open nor strict"))),
    };
    let is_ephemeral = given.ephemeral == Some(true);
    if given.seed.is_some() && !is_ephemeral {
        return Err(CliError::parameter(
            "--seed",
            "goes with --ephemeral: in a home that stays, ids would be made twice",
        ));
    }
    let tls = match (given.tls_cert, given.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        _ => return Err(CliError::grammar("--tls-cert and --tls-key go together")),
    };
    let options = Options {
        listen,
        auth,
        account: session.globals.account.clone().map_or_else(default_account, Ok)?,
        hosts: given.host,
        tls,
        is_ephemeral,
        may_reset: given.enable_reset == Some(true),
        freezes_clock: given.frozen_clock == Some(true),
        seed: given.seed.map(i64::cast_unsigned),
        log_requests: given.quiet != Some(true),
    };
    let temporary = if options.is_ephemeral { Some(Temporary::make()?) } else { None };
    let path = temporary.as_ref().map_or_else(|| session.home_path(), |temporary| Ok(temporary.0.join("home")))?;
    let open = session.opener(path)?;
    let file = given.init.map(|file| init::read(&file, "--init")).transpose()?;
    let (principal, region) = (Principal::Root(options.account.clone()), session.region()?);
    let open = move || {
        let home = open()?;
        if let Some(text) = &file {
            crate::api::init::load(&Call::direct(&home, principal.clone(), region.clone()), text)?;
        }
        Ok(home)
    };
    http::serve(open, options, |url| {
        let mut out = std::io::stdout();
        // Whoever waits for this line reads it; a server that nobody waits for serves all the same.
        let _ = writeln!(out, "blockseal serves at {url}").and_then(|()| out.flush());
    })
    .map_err(failure)?;
    Ok(Outcome::done())
}

/// A place where the server must not listen is the command line's fault, everything else the machine's.
fn failure(error: ServiceError) -> CliError {
    match &error {
        ServiceError::Machine(cause) => match cause.downcast_ref::<ServeError>() {
            Some(refused @ ServeError::Tls { .. }) => CliError::parameter("--tls-cert", refused.to_string()),
            Some(refused @ ServeError::NotLoopback(_)) => CliError::parameter("--listen", refused.to_string()),
            _ => CliError::of_home(error),
        },
        // Only a file that the home is filled from can be refused.
        ServiceError::Refused(_) => CliError::service("init", error),
    }
}

/// A directory for a home that is gone at exit.
struct Temporary(PathBuf);

impl Temporary {
    fn make() -> Result<Self, CliError> {
        let template = std::env::temp_dir().join("blockseal-serve-XXXXXX");
        let made = nix::unistd::mkdtemp(&template);
        made.map(Self).map_err(|errno| CliError::machine(format!("cannot make {}: {errno}", template.display())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

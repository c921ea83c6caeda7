//! What every command runs in: the home, the caller, and how results are shown.

use std::cell::OnceCell;
use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use super::CliError;
use super::passphrase;
use super::profile::Profile;
use super::progress::Progress;
use super::query::Query;
use crate::gate::{Call, ServiceError};
use crate::iam::Principal;
use crate::ids::{AccountId, Region};
use crate::kms::RootKey;
use crate::store::Home;

/// The account of every call unless `--account` or `--principal` says otherwise: AWS's own sample account.
pub const DEFAULT_ACCOUNT: &str = "123456789012";

/// The Region of every call unless `--region` or the environment says otherwise.
pub const DEFAULT_REGION: &str = "us-east-1";

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Output {
    /// Indented JSON, for programs and people.
    #[default]
    Json,
    /// Tables, for people.
    Table,
    /// Tab-separated lines, for `cut` and `awk`.
    Text,
}

/// How a blob is written on the command line (AWS CLI v2, `cli_binary_format`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum BinaryFormat {
    /// Base64, in and out.
    #[default]
    Base64,
    /// The bytes themselves in, base64 out.
    RawInBase64Out,
}

/// The options that every command takes, as they were given: nothing is looked up yet.
#[derive(Debug, Default)]
pub struct Globals {
    /// `--home`.
    pub home: Option<PathBuf>,
    /// `--passphrase-file`.
    pub passphrase_file: Option<PathBuf>,
    /// `--output`, if it was given: JSON unless the command draws for people.
    pub output: Option<Output>,
    /// `--query`, compiled.
    pub query: Option<Query>,
    /// `--account`.
    pub account: Option<AccountId>,
    /// `--region`.
    pub region: Option<Region>,
    /// `--principal`: an ARN, an account or a service.
    pub principal: Option<String>,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--cli-binary-format`.
    pub binary_format: BinaryFormat,
    /// Whether pages are followed: not after `--no-paginate`.
    pub paginate: bool,
}

/// One run of the program: its global options, resolved when they are first needed.
#[derive(Debug)]
pub struct Session {
    /// The options of this run.
    pub globals: Globals,
    home: OnceCell<Home>,
    profile: OnceCell<Profile>,
}

impl Session {
    /// A session with these options.
    pub fn new(globals: Globals) -> Self {
        Self { globals, home: OnceCell::new(), profile: OnceCell::new() }
    }

    /// The home, opened (and made, if there is none) on first use; with the root key that `--passphrase-file` or
    /// `BLOCKSEAL_PASSPHRASE_FILE` gives, if one of them does.
    pub fn home(&self) -> Result<&Home, CliError> {
        if let Some(home) = self.home.get() {
            return Ok(home);
        }
        let home = self.opener(self.home_path()?)?().map_err(CliError::of_home)?;
        Ok(self.home.get_or_init(|| home))
    }

    /// What opens the home at `path`, with the root key that [`Session::home`] gives it; the passphrase is read now.
    pub fn opener(
        &self,
        path: PathBuf,
    ) -> Result<impl Fn() -> Result<Home, ServiceError> + Send + Sync + use<>, CliError> {
        let variable = || env::var_os("BLOCKSEAL_PASSPHRASE_FILE").filter(|name| !name.is_empty()).map(PathBuf::from);
        let file = self.globals.passphrase_file.clone().or_else(variable);
        let passphrase = file.map(|file| passphrase::read(&file)).transpose()?;
        Ok(move || {
            let home = Home::open(&path)?;
            if let Some(passphrase) = &passphrase {
                RootKey::use_passphrase(&home, passphrase)?;
            }
            Ok(home)
        })
    }

    /// The home, if this run has opened it.
    pub fn opened_home(&self) -> Option<&Home> {
        self.home.get()
    }

    /// Where the home is: `--home`, `BLOCKSEAL_HOME`, else `blockseal` in the XDG data directory.
    pub fn home_path(&self) -> Result<PathBuf, CliError> {
        if let Some(path) = &self.globals.home {
            return Ok(path.clone());
        }
        default_home(|name| env::var_os(name))
            .ok_or_else(|| CliError::configuration("no home: set --home, BLOCKSEAL_HOME, XDG_DATA_HOME or HOME"))
    }

    /// What `--profile` says; nothing without one.
    fn profile(&self) -> Result<&Profile, CliError> {
        if let Some(profile) = self.profile.get() {
            return Ok(profile);
        }
        let profile = match &self.globals.profile {
            Some(name) if self.home_path()?.exists() => Profile::load(self.home()?, name)?,
            // No home is made for what cannot be in it.
            Some(name) => return Err(Profile::missing(name)),
            None => Profile::default(),
        };
        Ok(self.profile.get_or_init(|| profile))
    }

    /// A direct call under a new request id: by `--principal` (the root of the account, unless given), in the account
    /// of `--account` (the principal's own, unless given). What is not given, the profile says, if it does.
    pub fn call(&self) -> Result<Call<'_>, CliError> {
        self.call_in(self.home()?)
    }

    /// The same call in another home.
    pub fn call_in<'h>(&self, home: &'h Home) -> Result<Call<'h>, CliError> {
        let profile = self.profile()?;
        let named = self.globals.principal.as_ref().or(profile.principal.as_ref());
        let default = default_account()?;
        let account = match self.globals.account.as_ref().or(profile.account.as_ref()) {
            Some(account) => Some(account.clone()),
            None if named.is_some() => None,
            None => Some(default.clone()),
        };
        let own = account.clone().unwrap_or(default);
        let principal = match named {
            Some(text) => Principal::parse_in(text, &own)
                .map_err(|error| CliError::parameter("--principal", error.to_string()))?,
            None => Principal::Root(own),
        };
        let mut call = Call::direct(home, principal, self.region()?);
        if let Some(account) = account {
            call.account = account;
        }
        Ok(call)
    }

    /// The Region of calls: `--region`, the profile's, `AWS_REGION`, `AWS_DEFAULT_REGION`, else [`DEFAULT_REGION`].
    pub fn region(&self) -> Result<Region, CliError> {
        if let Some(region) = &self.globals.region {
            return Ok(region.clone());
        }
        if let Some(region) = &self.profile()?.region {
            return Ok(region.clone());
        }
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            match env::var(name) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return text.parse().map_err(|error| CliError::configuration(format!("{name}: {error}"))),
                Err(env::VarError::NotPresent) => {}
                Err(error) => return Err(CliError::configuration(format!("{name}: {error}"))),
            }
        }
        DEFAULT_REGION.parse().map_err(CliError::machine)
    }

    /// A progress bar for `total` bytes of `what`: drawn on a terminal, nothing in a pipe.
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        Progress::bytes(what, total)
    }

    /// Whether standard output is a terminal.
    pub fn on_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }
}

/// [`DEFAULT_ACCOUNT`].
pub(super) fn default_account() -> Result<AccountId, CliError> {
    DEFAULT_ACCOUNT.parse().map_err(CliError::machine)
}

fn default_home(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("BLOCKSEAL_HOME").or_else(|| {
        // The XDG base directory specification has relative paths ignored.
        let data = set("XDG_DATA_HOME").filter(|path| path.is_absolute());
        Some(
            data.or_else(|| Some(set("HOME").filter(|path| path.is_absolute())?.join(".local/share")))?
                .join("blockseal"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_found_in_the_order_that_the_docs_give() {
        let find = |set: &[(&str, &str)]| {
            default_home(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)))
                .map(|path| path.display().to_string())
        };
        let (ours, xdg, home) = (("BLOCKSEAL_HOME", "/b"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h"));
        assert_eq!(find(&[ours, xdg, home]).as_deref(), Some("/b"));
        assert_eq!(find(&[xdg, home]).as_deref(), Some("/x/blockseal"));
        assert_eq!(find(&[("XDG_DATA_HOME", "relative"), home]).as_deref(), Some("/h/.local/share/blockseal"));
        assert_eq!(find(&[("BLOCKSEAL_HOME", ""), home]).as_deref(), Some("/h/.local/share/blockseal"));
        assert_eq!(find(&[("HOME", "relative")]), None);
        assert_eq!(find(&[]), None);
    }

    #[test]
    fn options_win_over_the_profile_and_the_profile_over_the_defaults() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("home");
        drop(Home::open(&path).unwrap());
        let text = "[profile eu]\nprincipal = arn:aws:iam::111122223333:user/alice\nregion = eu-west-1\n";
        std::fs::write(path.join("config"), text).unwrap();
        let call = |profile: &str, principal: Option<&str>| {
            let session = Session::new(Globals {
                home: Some(path.clone()),
                profile: Some(profile.to_owned()),
                principal: principal.map(str::to_owned),
                ..Globals::default()
            });
            session.call().map(|call| (call.principal.arn(), call.account.to_string(), call.region.to_string()))
        };
        let alice = "arn:aws:iam::111122223333:user/alice";
        assert_eq!(call("eu", None).unwrap(), (alice.to_owned(), "111122223333".to_owned(), "eu-west-1".to_owned()));
        let root = "arn:aws:iam::444455556666:root";
        assert_eq!(call("eu", Some(root)).unwrap().0, root);
        let error = call("none", None).unwrap_err();
        assert!(error.report(false).contains("The config profile (none) could not be found"));
        assert_eq!(error.exit_code(), 253);
        // No link is followed to a file of the home.
        std::fs::rename(path.join("config"), base.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(base.path().join("elsewhere"), path.join("config")).unwrap();
        assert!(call("eu", None).is_err());
    }

    #[test]
    fn who_calls_and_for_which_account() {
        let base = tempfile::tempdir().unwrap();
        let call = |account: Option<&str>, principal: Option<&str>| {
            let session = Session::new(Globals {
                home: Some(base.path().join("home")),
                account: account.map(|text| text.parse().unwrap()),
                principal: principal.map(str::to_owned),
                region: Some("eu-west-1".parse().unwrap()),
                ..Globals::default()
            });
            let call = session.call().unwrap();
            (call.principal.arn(), call.account.to_string())
        };
        let root = |account: &str| (format!("arn:aws:iam::{account}:root"), account.to_owned());
        let user = "arn:aws:iam::111122223333:user/alice";
        assert_eq!(call(None, None), root(DEFAULT_ACCOUNT));
        assert_eq!(call(Some("444455556666"), None), root("444455556666"));
        assert_eq!(call(None, Some(user)), (user.to_owned(), "111122223333".to_owned()));
        assert_eq!(call(Some("444455556666"), Some(user)), (user.to_owned(), "444455556666".to_owned()));
        let service = "rds.amazonaws.com";
        assert_eq!(call(Some("444455556666"), Some(service)), (service.to_owned(), "444455556666".to_owned()));
    }
}

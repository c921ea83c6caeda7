//! Named profiles: who calls, in which account and Region, from the file `config` in the home.
//!
//! The grammar is that of the AWS CLI's own file, which is never read: sections `[profile NAME]` with `principal`, `account`
//! and `region`.

use std::io::Read as _;

use nix::fcntl::OFlag;

use super::CliError;
use crate::ids::{AccountId, Region};
use crate::store::Home;

/// The file's name in the home.
const FILE: &str = "config";

/// Most bytes that are read of it.
const MOST_BYTES: u64 = 1 << 20;

/// What a profile says; what it does not say is as without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) principal: Option<String>,
    pub(super) account: Option<AccountId>,
    pub(super) region: Option<Region>,
}

impl Profile {
    /// The profile of that name.
    ///
    /// # Errors
    /// If the file cannot be read, has something that this program does not know, or no such profile.
    pub(super) fn load(home: &Home, name: &str) -> Result<Self, CliError> {
        let text = if home.dir().length_of_file(FILE).map_err(CliError::machine)?.is_some() {
            let file = home.dir().open_file(FILE, OFlag::O_RDONLY | OFlag::O_NOCTTY).map_err(CliError::machine)?;
            let mut text = String::new();
            file.take(MOST_BYTES).read_to_string(&mut text).map_err(CliError::machine)?;
            text
        } else {
            String::new()
        };
        let wrong = |why: String| CliError::configuration(format!("{}: {why}", home.dir().path_of(FILE).display()));
        match Self::find(&text, name).map_err(wrong)? {
            Some(profile) => Ok(profile),
            None => Err(Self::missing(name)),
        }
    }

    /// There is no profile of that name.
    pub(super) fn missing(name: &str) -> CliError {
        CliError::configuration(format!("The config profile ({name}) could not be found"))
    }

    /// Reads all of `text` and answers the profile called `wanted`; the error says which line is wrong.
    fn find(text: &str, wanted: &str) -> Result<Option<Self>, String> {
        let mut found: Option<Self> = None;
        let mut section: Option<&str> = None;
        for (number, line) in text.lines().enumerate() {
            let wrong = |why: String| format!("line {}: {why}", number + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(header) = line.strip_prefix('[') {
                let name = header.strip_suffix(']').and_then(|header| header.trim().strip_prefix("profile "));
                let name = name.map(str::trim).filter(|name| !name.is_empty());
                let name = name.ok_or_else(|| wrong(format!("'{line}' is no section: [profile NAME]")))?;
                if name == wanted {
                    if found.is_some() {
                        return Err(wrong(format!("the profile {name} is there twice")));
                    }
                    found = Some(Self::default());
                }
                section = Some(name);
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .ok_or_else(|| wrong(format!("'{line}' is neither a section nor NAME = VALUE")))?;
            let of = section.ok_or_else(|| wrong(format!("'{key}' is in no section")))?;
            let mut other = Self::default();
            let profile = if of == wanted { found.get_or_insert_default() } else { &mut other };
            match key {
                "principal" => profile.principal = Some(value.to_owned()),
                "account" => profile.account = Some(value.parse().map_err(|error| wrong(format!("{error}")))?),
                "region" => profile.region = Some(value.parse().map_err(|error| wrong(format!("{error}")))?),
                _ => return Err(wrong(format!("'{key}' is not known: principal, account or region"))),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_with_what_it_says() {
        let text = "# who\n[profile ops]\nprincipal = arn:aws:iam::123456789012:user/ops\n\n; where\n[ profile  eu ]\nregion=eu-west-1\naccount = 210987654321\n";
        let ops = Profile::find(text, "ops").unwrap().unwrap();
        assert_eq!(ops.principal.as_deref(), Some("arn:aws:iam::123456789012:user/ops"));
        assert_eq!((ops.account, ops.region), (None, None));
        let eu = Profile::find(text, "eu").unwrap().unwrap();
        assert_eq!(eu.account.unwrap().as_str(), "210987654321");
        assert_eq!(Profile::find(text, "none").unwrap(), None);
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_line() {
        for (text, line) in [
            ("[ops]", 1),
            ("[profile ]", 1),
            ("region = eu-west-1", 1),
            ("[profile a]\nregion", 2),
            ("[profile a]\n\nregion = here", 3),
            ("[profile b]\naccount = 1", 2),
            ("[profile a]\naws_access_key_id = x", 2),
            ("[profile a]\n[profile a]", 2),
        ] {
            let error = Profile::find(text, "a").unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{text}: {error}");
        }
    }
}

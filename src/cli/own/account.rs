//! `account`: what the home says of an account, for which AWS has a service of its own.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Group, Outcome, Verb, arguments};
use crate::api::Parameter;
use crate::cli::{CliError, Session};
use crate::iam::directory;
use crate::store::StoreError;

pub(super) static GROUP: Group = Group {
    name: "account",
    help: "What this home says of an account",
    verbs: &[Verb {
        name: "organization",
        help: "Shows or says in which organisation the account is, as aws:PrincipalOrgID has it",
        parameters: &[Parameter::string(
            "Id",
            "The organisation's id, such as o-exampleorgid; none for no organisation.",
        )
        .ours()
        .positional()],
        run: organization,
    }],
};

fn organization(session: &Session, given: Value) -> Result<Outcome, CliError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Organization {
        id: Option<String>,
    }
    let Organization { id } = arguments(given)?;
    let account = session.call()?.account;
    let home = session.home()?;
    if let Some(id) = id {
        let letters = id.strip_prefix("o-").filter(|rest| (10..=32).contains(&rest.len()));
        let fits = letters.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        if !fits && id != "none" {
            let message =
                format!("'{id}' is no organisation's id: o- and 10 to 32 lower-case letters and digits, or none");
            return Err(CliError::parameter("ID", message));
        }
        let id = fits.then_some(id.as_str());
        home.write(|tx| directory::set_organization(tx, &account, id))
            .map_err(|error: StoreError| CliError::machine(error))?;
    }
    let id =
        home.read(|tx| directory::organization(tx, &account)).map_err(|error: StoreError| CliError::machine(error))?;
    Ok(Outcome::value(json!({"AccountId": account.as_str(), "OrganizationId": id})))
}

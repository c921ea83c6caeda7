//! The Query protocols: a form in, XML out. EC2's own (Smithy, "EC2 query protocol") and that of STS and IAM ("AWS Query
//! protocol").

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Answer, Protocol, form, xml};
use crate::api::{Form, Operation, Wire};
use crate::http::failure::{Failure, Worded, Words};
use crate::http::request::Request;

/// Both protocols: which of them a service speaks, its [`Wire`] says.
pub(super) struct Query;

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Room for any answer that holds a secret, so that the buffer is not moved while it grows.
const CAPACITY: usize = 16 << 10;

impl Protocol for Query {
    fn words(&self, wire: &Wire) -> Words {
        match wire.form {
            Form::Ec2 { .. } => Words::Ec2,
            _ => Words::Query,
        }
    }

    fn operation(&self, wire: &Wire, request: &Request) -> Result<String, Failure> {
        let pairs = pairs(request)?;
        let one = |wanted: &str| {
            let mut found = pairs.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.clone());
            // Given twice it is given not at all: nobody can tell which was meant.
            found.next().filter(|value| !value.is_empty() && found.next().is_none())
        };
        let action = one("Action").ok_or(Failure::MissingAction)?;
        let is_post_or_get = [axum::http::Method::POST, axum::http::Method::GET].contains(&request.method);
        if request.path != "/" || !is_post_or_get {
            return Err(Failure::UnknownOperation(action));
        }
        match (wire.form, one("Version")) {
            (Form::Query { version, .. }, Some(given)) if given != version => {
                Err(Failure::UnknownOperation(format!("{action} for version {given}")))
            }
            _ => Ok(action),
        }
    }

    fn arguments(&self, wire: &Wire, operation: &Operation, request: &Request) -> Result<Map<String, Value>, Failure> {
        form::read(wire, operation.parameters, pairs(request)?)
    }

    fn result(&self, wire: &Wire, operation: &Operation, result: &mut Value, request_id: &str) -> Answer {
        let name = operation.name;
        let is_void = result.as_object().is_none_or(Map::is_empty);
        let mut text = String::with_capacity(CAPACITY);
        text.push_str(DECLARATION);
        match wire.form {
            Form::Ec2 { namespace, .. } => {
                let root = format!("{name}Response xmlns=\"{namespace}\"");
                xml::open(&root, &mut text);
                xml::text("requestId", request_id, &mut text);
                if is_void {
                    xml::text("return", "true", &mut text);
                } else {
                    xml::members(wire, name, result, &mut text);
                }
                xml::close(&root, &mut text);
            }
            Form::Query { namespace, .. } => {
                let root = format!("{name}Response xmlns=\"{namespace}\"");
                xml::open(&root, &mut text);
                if !is_void {
                    let wrapper = format!("{name}Result");
                    xml::open(&wrapper, &mut text);
                    xml::members(wire, name, result, &mut text);
                    xml::close(&wrapper, &mut text);
                }
                xml::open("ResponseMetadata", &mut text);
                xml::text("RequestId", request_id, &mut text);
                xml::close("ResponseMetadata", &mut text);
                xml::close(&root, &mut text);
            }
            Form::Json { .. } => {}
        }
        answer(200, None, text)
    }

    fn error(&self, wire: &Wire, error: Worded, request_id: &str) -> Answer {
        let mut text = DECLARATION.to_owned();
        let root = match wire.form {
            Form::Query { namespace, .. } => format!("ErrorResponse xmlns=\"{namespace}\""),
            _ => "Response".to_owned(),
        };
        let is_ec2 = root == "Response";
        xml::open(&root, &mut text);
        if is_ec2 {
            xml::open("Errors", &mut text);
        }
        xml::open("Error", &mut text);
        if !is_ec2 {
            xml::text("Type", if error.status < 500 { "Sender" } else { "Receiver" }, &mut text);
        }
        xml::text("Code", &error.code, &mut text);
        xml::text("Message", &error.message, &mut text);
        xml::close("Error", &mut text);
        if is_ec2 {
            xml::close("Errors", &mut text);
        }
        xml::text(if is_ec2 { "RequestID" } else { "RequestId" }, request_id, &mut text);
        xml::close(&root, &mut text);
        answer(error.status, Some(error.code), text)
    }
}

fn pairs(request: &Request) -> Result<Vec<(String, String)>, Failure> {
    request.form().ok_or_else(|| Failure::Malformed("The parameters are not percent-encoded UTF-8".to_owned()))
}

fn answer(status: u16, error: Option<String>, text: String) -> Answer {
    Answer { status, content_type: "text/xml;charset=UTF-8", error, body: Zeroizing::new(text.into_bytes()) }
}

//! Why a request is answered with an error, and how each protocol words it.

use super::signature::SignatureError;
use crate::gate::ServiceError;

/// Why a request has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The operation refused, or the machine failed in it.
    Service(ServiceError),
    /// Who sent it did not show who he is.
    Signature(SignatureError),
    /// The access key is nobody's, or does not go with the security token.
    UnknownKey,
    /// The temporary credentials have ended.
    ExpiredToken,
    /// No such operation.
    UnknownOperation(String),
    /// AWS has it, and this program does not.
    NotBuilt { service: String, operation: String },
    /// It names no operation.
    MissingAction,
    /// A parameter that the operation does not take.
    UnknownParameter(String),
    /// It is not of the form that the protocol has.
    Malformed(String),
    /// It is larger than any request may be.
    TooLarge,
    /// Its body did not come in time.
    Slow,
    /// As many wait as may wait.
    Busy,
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

/// The protocols' ways of naming errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Words {
    Json,
    Ec2,
    Query,
}

/// An error as it goes out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Worded {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) status: u16,
}

/// The code and the HTTP status of an error in JSON, EC2 and Query.
type Names = [(&'static str, u16); 3];

impl Failure {
    /// The error in the words of a protocol (API references, "Common errors"; EC2 API reference, "Error codes"). What each
    /// service answers where its documents are silent is *assumed*: `docs/serve.md` lists it.
    pub(super) fn worded(&self, words: Words) -> Worded {
        if let Self::Service(ServiceError::Refused(refusal)) = self {
            let (code, message) = (refusal.code.to_owned(), refusal.message.clone());
            return Worded { code, message, status: refusal.status };
        }
        let [json, ec2, query] = self.names();
        let (code, status) = match words {
            Words::Json => json,
            Words::Ec2 => ec2,
            Words::Query => query,
        };
        Worded { code: code.to_owned(), message: self.message(words), status }
    }

    const fn names(&self) -> Names {
        match self {
            Self::Service(_) => [("KMSInternalException", 500), ("InternalError", 500), ("InternalFailure", 500)],
            Self::Signature(SignatureError::Missing) => [
                ("MissingAuthenticationTokenException", 400),
                ("MissingAuthenticationToken", 403),
                ("MissingAuthenticationToken", 403),
            ],
            Self::Signature(SignatureError::Incomplete(_)) => {
                [("IncompleteSignatureException", 400), ("IncompleteSignature", 400), ("IncompleteSignature", 400)]
            }
            Self::Signature(SignatureError::Mismatch(_)) => {
                [("InvalidSignatureException", 400), ("AuthFailure", 401), ("SignatureDoesNotMatch", 403)]
            }
            Self::Signature(SignatureError::Expired(_)) => {
                [("InvalidSignatureException", 400), ("RequestExpired", 400), ("SignatureDoesNotMatch", 403)]
            }
            Self::UnknownKey => {
                [("UnrecognizedClientException", 400), ("AuthFailure", 401), ("InvalidClientTokenId", 403)]
            }
            Self::ExpiredToken => [("ExpiredTokenException", 400), ("RequestExpired", 400), ("ExpiredToken", 403)],
            Self::UnknownOperation(_) => {
                [("UnknownOperationException", 400), ("InvalidAction", 400), ("InvalidAction", 400)]
            }
            Self::NotBuilt { .. } => [("UnsupportedOperation", 501); 3],
            Self::MissingAction => [("UnknownOperationException", 400), ("MissingAction", 400), ("MissingAction", 400)],
            Self::UnknownParameter(_) => {
                [("SerializationException", 400), ("UnknownParameter", 400), ("ValidationError", 400)]
            }
            Self::Malformed(_) => {
                [("SerializationException", 400), ("InvalidParameterValue", 400), ("MalformedInput", 400)]
            }
            Self::TooLarge => [("RequestEntityTooLargeException", 413), TOO_LARGE, TOO_LARGE],
            Self::Slow => [("RequestTimeoutException", 408), ("RequestTimeout", 408), ("RequestTimeout", 408)],
            Self::Busy => [("ThrottlingException", 400), ("RequestLimitExceeded", 503), ("Throttling", 400)],
        }
    }

    fn message(&self, words: Words) -> String {
        let of_ec2 = |ec2: &str, others: &str| if words == Words::Ec2 { ec2.to_owned() } else { others.to_owned() };
        match self {
            // What went wrong may name paths of this machine: it is in the log.
            Self::Service(_) => "An internal error has occurred; the server's log says more.".to_owned(),
            Self::Signature(SignatureError::Missing) => "Request is missing Authentication Token".to_owned(),
            Self::Signature(SignatureError::Mismatch(text)) => of_ec2(NOT_VALIDATED, text),
            Self::Signature(SignatureError::Expired(text)) => of_ec2("Request has expired.", text),
            Self::UnknownKey => of_ec2(NOT_VALIDATED, "The security token included in the request is invalid."),
            Self::ExpiredToken => {
                of_ec2("Request has expired.", "The security token included in the request is expired")
            }
            Self::UnknownOperation(name) => match words {
                Words::Json => String::new(),
                Words::Ec2 => format!("The action {name} is not valid for this web service."),
                Words::Query => format!("Could not find operation {name}"),
            },
            Self::NotBuilt { service, operation } => {
                format!("blockseal does not have the operation {service}:{operation}; docs/api.md lists what it has")
            }
            Self::MissingAction if words == Words::Json => String::new(),
            Self::MissingAction => "The request must contain the parameter Action".to_owned(),
            Self::UnknownParameter(name) if words == Words::Query => format!("The parameter {name} is not supported"),
            Self::UnknownParameter(name) => format!("The parameter {name} is not recognized"),
            Self::Signature(SignatureError::Incomplete(text)) | Self::Malformed(text) => text.clone(),
            Self::TooLarge => "The request is larger than 1 MiB".to_owned(),
            Self::Slow => "The rest of the request did not come in time".to_owned(),
            Self::Busy => of_ec2("Request limit exceeded.", "Rate exceeded"),
        }
    }
}

const TOO_LARGE: (&str, u16) = ("RequestEntityTooLarge", 413);

/// What EC2 says whatever is wrong with the credentials.
const NOT_VALIDATED: &str = "AWS was not able to validate the provided access credentials";

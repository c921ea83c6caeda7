//! The operations of STS (STS API reference).

use super::{Operation, Parameter, Service};
use crate::iam_service::sts;
use crate::operation;

/// AWS Security Token Service.
pub(super) static STS: Service =
    Service { name: "sts", help: "Who calls, and sessions of roles", operations: OPERATIONS };

/// STS's word for a request that is not of its operation's shape.
const MALFORMED: &str = "ValidationError";

const OPERATIONS: &[Operation] = &[
    operation!(
        "AssumeRole",
        MALFORMED,
        sts::AssumeRoleRequest,
        sts::assume_role,
        "Begins a session of a role: temporary credentials"
    )
    .takes(&[
        Parameter::string("RoleArn", "ARN of the role").required().at_least(20),
        Parameter::string("RoleSessionName", "Name of the session").required().at_least(2),
        Parameter::integer("DurationSeconds", "How long it lasts: 900 up to the role's longest, 3600 unless given")
            .at_least(900),
        Parameter::string("ExternalId", "What the role's trust policy asks for as sts:ExternalId").at_least(2),
    ]),
    operation!(
        "GetCallerIdentity",
        MALFORMED,
        sts::GetCallerIdentityRequest,
        sts::get_caller_identity,
        "Says who calls"
    ),
];

//! The operations of IAM (IAM API reference), as far as they decide what a call may do.

use super::{Kind, Operation, Parameter, Service};
use crate::iam_service as iam;
use crate::operation;

/// AWS Identity and Access Management.
pub(super) static IAM: Service =
    Service { name: "iam", help: "Users, roles and what they may do", operations: OPERATIONS };

/// IAM's word for a request that is not of its operation's shape.
const MALFORMED: &str = "ValidationError";

const USER: Parameter = Parameter::string("UserName", "Name of the user").required().at_least(1);
const ROLE: Parameter = Parameter::string("RoleName", "Name of the role").required().at_least(1);
const POLICY: Parameter = Parameter::string("PolicyName", "Name of the policy").required().at_least(1);
const DOCUMENT: Parameter =
    Parameter::string("PolicyDocument", "The policy as JSON, or file://FILE").required().at_least(1);
const PATH: Parameter =
    Parameter::string("Path", "Path of the ARN, with a slash at both ends; / unless given").at_least(1);
const PREFIX: Parameter = Parameter::string("PathPrefix", "Only those whose path begins so").at_least(1);
const TAG: &[Parameter] =
    &[Parameter::string("Key", "").required().at_least(1), Parameter::string("Value", "").required()];
const TAGS: Parameter =
    Parameter::new("Tags", Kind::List(&Kind::Structure(TAG)), "What policies see as aws:PrincipalTag");
const TAG_KEYS: Parameter = Parameter::strings("TagKeys", "The tags to take away");

const OPERATIONS: &[Operation] = &[
    operation!(
        "CreateRole",
        MALFORMED,
        iam::CreateRoleRequest,
        iam::create_role,
        "Makes a role, which may do nothing yet"
    )
    .takes(&[
        PATH,
        ROLE,
        Parameter::string("AssumeRolePolicyDocument", "Who may assume it, as JSON; kept and not evaluated")
            .required()
            .at_least(1),
        TAGS,
    ]),
    operation!(
        "CreateUser",
        MALFORMED,
        iam::CreateUserRequest,
        iam::create_user,
        "Makes a user, who may do nothing yet"
    )
    .takes(&[PATH, USER, TAGS]),
    operation!("DeleteRole", MALFORMED, iam::DeleteRoleRequest, iam::delete_role, "Removes a role without policies")
        .takes(&[ROLE]),
    operation!(
        "DeleteRolePolicy",
        MALFORMED,
        iam::DeleteRolePolicyRequest,
        iam::delete_role_policy,
        "Takes a policy from a role"
    )
    .takes(&[ROLE, POLICY]),
    operation!("DeleteUser", MALFORMED, iam::DeleteUserRequest, iam::delete_user, "Removes a user without policies")
        .takes(&[USER]),
    operation!(
        "DeleteUserPolicy",
        MALFORMED,
        iam::DeleteUserPolicyRequest,
        iam::delete_user_policy,
        "Takes a policy from a user"
    )
    .takes(&[USER, POLICY]),
    operation!("GetRole", MALFORMED, iam::GetRoleRequest, iam::get_role, "Shows a role").takes(&[ROLE]),
    operation!("GetRolePolicy", MALFORMED, iam::GetRolePolicyRequest, iam::get_role_policy, "Shows a policy of a role")
        .takes(&[ROLE, POLICY]),
    operation!("GetUser", MALFORMED, iam::GetUserRequest, iam::get_user, "Shows a user").takes(&[USER]),
    operation!("GetUserPolicy", MALFORMED, iam::GetUserPolicyRequest, iam::get_user_policy, "Shows a policy of a user")
        .takes(&[USER, POLICY]),
    operation!(
        "ListRolePolicies",
        MALFORMED,
        iam::ListRolePoliciesRequest,
        iam::list_role_policies,
        "Lists the names of a role's policies"
    )
    .takes(&[ROLE]),
    operation!("ListRoleTags", MALFORMED, iam::ListRoleTagsRequest, iam::list_role_tags, "Lists the tags of a role")
        .takes(&[ROLE]),
    operation!("ListRoles", MALFORMED, iam::ListRolesRequest, iam::list_roles, "Lists the roles of the account")
        .takes(&[PREFIX]),
    operation!(
        "ListUserPolicies",
        MALFORMED,
        iam::ListUserPoliciesRequest,
        iam::list_user_policies,
        "Lists the names of a user's policies"
    )
    .takes(&[USER]),
    operation!("ListUserTags", MALFORMED, iam::ListUserTagsRequest, iam::list_user_tags, "Lists the tags of a user")
        .takes(&[USER]),
    operation!("ListUsers", MALFORMED, iam::ListUsersRequest, iam::list_users, "Lists the users of the account")
        .takes(&[PREFIX]),
    operation!("PutRolePolicy", MALFORMED, iam::PutRolePolicyRequest, iam::put_role_policy, "Gives a role a policy")
        .takes(&[ROLE, POLICY, DOCUMENT]),
    operation!("PutUserPolicy", MALFORMED, iam::PutUserPolicyRequest, iam::put_user_policy, "Gives a user a policy")
        .takes(&[USER, POLICY, DOCUMENT]),
    operation!("TagRole", MALFORMED, iam::TagRoleRequest, iam::tag_role, "Gives a role tags")
        .takes(&[ROLE, TAGS.required()]),
    operation!("TagUser", MALFORMED, iam::TagUserRequest, iam::tag_user, "Gives a user tags")
        .takes(&[USER, TAGS.required()]),
    operation!("UntagRole", MALFORMED, iam::UntagRoleRequest, iam::untag_role, "Takes tags from a role")
        .takes(&[ROLE, TAG_KEYS.required()]),
    operation!("UntagUser", MALFORMED, iam::UntagUserRequest, iam::untag_user, "Takes tags from a user")
        .takes(&[USER, TAG_KEYS.required()]),
];

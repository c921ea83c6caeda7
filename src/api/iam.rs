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

const POLICY_ARN: Parameter = Parameter::string("PolicyArn", "ARN of the managed policy").required().at_least(20);
const OWN_USER: Parameter = Parameter::string("UserName", "Name of the user; the caller if it is left out").at_least(1);
const ACCESS_KEY: Parameter = Parameter::string("AccessKeyId", "Id of the access key").required().at_least(16);
const TRUST: &str = "Who may assume it, as JSON, or file://FILE";

const OPERATIONS: &[Operation] = &[
    operation!(
        "CreateAccessKey",
        MALFORMED,
        iam::CreateAccessKeyRequest,
        iam::create_access_key,
        "Makes an access key; its secret is in this answer alone"
    )
    .takes(&[OWN_USER]),
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
        Parameter::string("AssumeRolePolicyDocument", TRUST).required().at_least(1),
        Parameter::string("Description", "What the role is for"),
        Parameter::integer("MaxSessionDuration", "Its longest session in seconds: 3600 (unless given) to 43200")
            .at_least(3600),
        TAGS,
    ]),
    operation!(
        "CreateServiceLinkedRole",
        MALFORMED,
        iam::CreateServiceLinkedRoleRequest,
        iam::create_service_linked_role,
        "Makes the role of a service, such as EC2 Auto Scaling's"
    )
    .takes(&[
        Parameter::string("AWSServiceName", "The service, such as autoscaling.amazonaws.com").required().at_least(1),
        Parameter::string("Description", "What the role is for"),
        Parameter::string("CustomSuffix", "Tells several roles of a service apart").at_least(1),
    ]),
    operation!(
        "CreateUser",
        MALFORMED,
        iam::CreateUserRequest,
        iam::create_user,
        "Makes a user, who may do nothing yet"
    )
    .takes(&[PATH, USER, TAGS]),
    operation!(
        "DeleteAccessKey",
        MALFORMED,
        iam::DeleteAccessKeyRequest,
        iam::delete_access_key,
        "Deletes an access key"
    )
    .takes(&[OWN_USER, ACCESS_KEY]),
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
    operation!(
        "DeleteServiceLinkedRole",
        MALFORMED,
        iam::DeleteServiceLinkedRoleRequest,
        iam::delete_service_linked_role,
        "Removes the role of a service"
    )
    .takes(&[ROLE]),
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
        "ListAccessKeys",
        MALFORMED,
        iam::ListAccessKeysRequest,
        iam::list_access_keys,
        "Lists the access keys of a user, without their secrets"
    )
    .takes(&[OWN_USER]),
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
    operation!(
        "UpdateAccessKey",
        MALFORMED,
        iam::UpdateAccessKeyRequest,
        iam::update_access_key,
        "Makes an access key active or inactive"
    )
    .takes(&[
        OWN_USER,
        ACCESS_KEY,
        Parameter::choice("Status", &["Active", "Inactive"], "What it is to be").required(),
    ]),
    operation!(
        "UpdateAssumeRolePolicy",
        MALFORMED,
        iam::UpdateAssumeRolePolicyRequest,
        iam::update_assume_role_policy,
        "Says anew who may assume a role"
    )
    .takes(&[ROLE, Parameter::string("PolicyDocument", TRUST).required().at_least(1)]),
    operation!(
        "AttachRolePolicy",
        MALFORMED,
        iam::AttachRolePolicyRequest,
        iam::attach_role_policy,
        "Gives a role a managed policy"
    )
    .takes(&[ROLE, POLICY_ARN]),
    operation!(
        "AttachUserPolicy",
        MALFORMED,
        iam::AttachUserPolicyRequest,
        iam::attach_user_policy,
        "Gives a user a managed policy"
    )
    .takes(&[USER, POLICY_ARN]),
    operation!("CreatePolicy", MALFORMED, iam::CreatePolicyRequest, iam::create_policy, "Makes a managed policy")
        .takes(&[POLICY, PATH, DOCUMENT, Parameter::string("Description", "What the policy is for")]),
    operation!(
        "DeletePolicy",
        MALFORMED,
        iam::DeletePolicyRequest,
        iam::delete_policy,
        "Removes a managed policy that nothing has"
    )
    .takes(&[POLICY_ARN]),
    operation!(
        "DetachRolePolicy",
        MALFORMED,
        iam::DetachRolePolicyRequest,
        iam::detach_role_policy,
        "Takes a managed policy from a role"
    )
    .takes(&[ROLE, POLICY_ARN]),
    operation!(
        "DetachUserPolicy",
        MALFORMED,
        iam::DetachUserPolicyRequest,
        iam::detach_user_policy,
        "Takes a managed policy from a user"
    )
    .takes(&[USER, POLICY_ARN]),
    operation!(
        "GetPolicy",
        MALFORMED,
        iam::GetPolicyRequest,
        iam::get_policy,
        "Shows a managed policy without its document"
    )
    .takes(&[POLICY_ARN]),
    operation!(
        "GetPolicyVersion",
        MALFORMED,
        iam::GetPolicyVersionRequest,
        iam::get_policy_version,
        "Shows the document of a managed policy"
    )
    .takes(&[POLICY_ARN, Parameter::string("VersionId", "v1, the only one there is").required()]),
    operation!(
        "ListAttachedRolePolicies",
        MALFORMED,
        iam::ListAttachedRolePoliciesRequest,
        iam::list_attached_role_policies,
        "Lists the managed policies of a role"
    )
    .takes(&[ROLE]),
    operation!(
        "ListAttachedUserPolicies",
        MALFORMED,
        iam::ListAttachedUserPoliciesRequest,
        iam::list_attached_user_policies,
        "Lists the managed policies of a user"
    )
    .takes(&[USER]),
    operation!(
        "ListPolicies",
        MALFORMED,
        iam::ListPoliciesRequest,
        iam::list_policies,
        "Lists managed policies, AWS's as far as they are known here"
    )
    .takes(&[
        Parameter::choice("Scope", &["All", "AWS", "Local"], "Whose; All unless given"),
        Parameter::boolean("OnlyAttached", "Only those that are attached to something"),
        PREFIX,
    ]),
];

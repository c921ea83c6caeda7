//! What a service checks of a value before it looks at anything else: lengths, ranges and patterns, as AWS's public service
//! models have them (KMS 2014-11-01, IAM 2010-05-08, STS 2011-06-15).
//!
//! Within a service a member's name tells its shape, with the few exceptions that name their operation too. EC2 and CloudTrail
//! have no such limits in their models: their operations check what they need in their own words.

/// What is allowed of a value. Texts are counted in characters, blobs in bytes, lists in items.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Smallest and largest length, or number.
    pub(super) size: Option<[i64; 2]>,
    /// The same of a list's items.
    pub(super) each: Option<[i64; 2]>,
    /// What the text, or each text of a list, is made of.
    pub(super) pattern: Option<Pattern>,
    /// Whether the value is not repeated in a message: it is a secret, as good as a permission, or a whole policy.
    pub(super) unsaid: bool,
}

/// A regular expression as messages show it, and whether a text satisfies it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    pub(super) text: &'static str,
    pub(super) fits: fn(&str) -> bool,
}

impl Limits {
    const fn size(least: i64, most: i64) -> Self {
        Self { size: Some([least, most]), each: None, pattern: None, unsaid: false }
    }

    const fn each(self, least: i64, most: i64) -> Self {
        Self { each: Some([least, most]), ..self }
    }

    const fn of(self, text: &'static str, fits: fn(&str) -> bool) -> Self {
        Self { pattern: Some(Pattern { text, fits }), ..self }
    }

    const fn unsaid(self) -> Self {
        Self { unsaid: true, ..self }
    }
}

/// The limits of an operation's member at any depth; `None` if it has none.
pub(super) fn of(service: &str, operation: &str, member: &str) -> Option<&'static Limits> {
    let table = match service {
        "kms" => KMS,
        "iam" => IAM,
        "sts" => STS,
        _ => return None,
    };
    let named = |row: &&Row| row.members.contains(&member);
    let own = table.iter().find(|row| row.operation == operation && named(row));
    own.or_else(|| table.iter().find(|row| row.operation.is_empty() && named(row))).map(|row| &row.limits)
}

struct Row {
    /// The one operation that it is for; empty for all.
    operation: &'static str,
    members: &'static [&'static str],
    limits: Limits,
}

const fn all(members: &'static [&'static str], limits: Limits) -> Row {
    Row { operation: "", members, limits }
}

fn letters(text: &str, more: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
}

/// Latin-1 text, with tabulators and line breaks.
fn latin(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{ff}'))
}

fn names(text: &str) -> bool {
    letters(text, ":/_-")
}

fn principals(text: &str) -> bool {
    letters(text, "_+=,.@:/-")
}

fn words(text: &str) -> bool {
    letters(text, "_+=,.@-")
}

fn regions(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let Some((number, words)) = parts.split_last() else { return false };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let lower = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    digits && matches!(words.len(), 2 | 3) && words.iter().all(lower)
}

const KEY_ID: Limits = Limits::size(1, 2048);
const POLICY: Limits = Limits::size(1, 131_072).of("[\\u0009\\u000A\\u000D\\u0020-\\u00FF]+", latin).unsaid();
const REGION: Limits = Limits::size(1, 32).of("^([a-z]+-){2,3}\\d+$", regions);

const KMS: &[Row] = &[
    all(&["KeyId", "TargetKeyId", "SourceKeyId", "DestinationKeyId"], KEY_ID),
    all(&["AliasName"], Limits::size(1, 256).of("^[a-zA-Z0-9:/_-]+$", names)),
    all(&["Description"], Limits::size(0, 8192)),
    all(&["GrantTokens"], Limits::size(0, 10).each(1, 8192).unsaid()),
    all(&["GrantToken"], Limits::size(1, 8192).unsaid()),
    all(&["GranteePrincipal", "RetiringPrincipal"], Limits::size(1, 256).of("^[\\w+=,.@:/-]+$", principals)),
    all(&["GrantId"], Limits::size(1, 128)),
    all(&["Name"], Limits::size(1, 256).of("^[a-zA-Z0-9:/_-]+$", names)),
    all(&["Limit"], Limits::size(1, 1000)),
    all(&["Marker"], Limits::size(1, 1024).of("[\\u0020-\\u00FF]*", latin)),
    all(&["Policy"], POLICY),
    all(&["PolicyName"], Limits::size(1, 128).of("[\\w]+", |text| letters(text, "_"))),
    all(&["Plaintext"], Limits::size(1, 4096).unsaid()),
    all(&["CiphertextBlob", "ImportToken", "EncryptedKeyMaterial"], Limits::size(1, 6144).unsaid()),
    all(&["AttestationDocument"], Limits::size(1, 262_144).unsaid()),
    all(&["NumberOfBytes"], Limits::size(1, 1024)),
    all(&["PendingWindowInDays"], Limits::size(1, 365)),
    all(&["RotationPeriodInDays"], Limits::size(90, 2560)),
    all(&["TagKey"], Limits::size(1, 128)),
    all(&["TagValue"], Limits::size(0, 256)),
    all(&["TagKeys"], Limits::size(0, i64::MAX).each(1, 128)),
    all(
        &["KeyMaterialId"],
        Limits::size(64, 64).of("^[a-f0-9]+$", |text| {
            !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        }),
    ),
    all(
        &["KeyMaterialDescription"],
        Limits::size(0, 256).of("^[a-zA-Z0-9:/_\\s.-]+$", |text| letters(text, ":/_ \t\n\r\u{b}\u{c}.-")),
    ),
    all(&["ReplicaRegion", "PrimaryRegion"], REGION),
    all(&["CustomKeyStoreId"], Limits::size(1, 64)),
];

const WORD: &str = "[\\w+=,.@-]+";
const DOCUMENT: Limits = Limits::size(1, 131_072).of("[\\u0009\\u000A\\u000D\\u0020-\\u00FF]+", latin).unsaid();

const fn own(operation: &'static str, members: &'static [&'static str], limits: Limits) -> Row {
    Row { operation, members, limits }
}

const IAM: &[Row] = &[
    own("CreateUser", &["UserName"], Limits::size(1, 64).of(WORD, words)),
    all(&["UserName"], Limits::size(1, 128).of(WORD, words)),
    all(&["RoleName"], Limits::size(1, 64).of(WORD, words)),
    all(&["PolicyName"], Limits::size(1, 128).of(WORD, words)),
    all(&["PolicyArn"], Limits::size(20, 2048)),
    all(
        &["VersionId"],
        Limits::size(0, i64::MAX).of("v[1-9][0-9]*(\\.[A-Za-z0-9-]*)?", |text| {
            text.strip_prefix('v').is_some_and(|rest| rest.starts_with(|digit: char| matches!(digit, '1'..='9')))
        }),
    ),
    all(&["PolicyDocument", "AssumeRolePolicyDocument"], DOCUMENT),
    all(&["Path", "PathPrefix"], Limits::size(1, 512)),
    all(&["Description"], Limits::size(0, 1000)),
    all(&["MaxSessionDuration"], Limits::size(3600, 43_200)),
    all(&["AccessKeyId"], Limits::size(16, 128).of("[\\w]+", |text| letters(text, "_"))),
    all(&["AWSServiceName"], Limits::size(1, 128).of(WORD, words)),
    all(&["CustomSuffix"], Limits::size(1, 64).of(WORD, words)),
    all(&["Tags"], Limits::size(0, 50)),
    all(&["TagKeys"], Limits::size(0, 50).each(1, 128)),
    all(&["Key"], Limits::size(1, 128)),
    all(&["Value"], Limits::size(0, 256)),
];

const STS: &[Row] = &[
    all(
        &["RoleArn"],
        Limits::size(20, 2048).of(
            "[\\u0009\\u000A\\u000D\\u0020-\\u007E\\u0085\\u00A0-\\uD7FF\\uE000-\\uFFFD\\u10000-\\u10FFFF]+",
            |text| {
                !text.is_empty()
                    && text
                        .chars()
                        .all(|letter| matches!(letter, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..))
            },
        ),
    ),
    all(&["RoleSessionName"], Limits::size(2, 64).of("[\\w+=,.@-]*", words)),
    all(&["DurationSeconds"], Limits::size(900, 43_200)),
    all(&["ExternalId"], Limits::size(2, 1224).of("[\\w+=,.@:\\/-]*", principals)),
];

#[cfg(test)]
mod tests {
    use super::super::{Kind, Parameter, SERVICES, kms_unsupported};
    use super::*;

    /// Members that the models bound by an enumeration alone, or not at all.
    const FREE: [&str; 6] =
        ["KeySpec", "CustomerMasterKeySpec", "KeyPairSpec", "SigningAlgorithm", "ValidTo", "Status"];

    fn check(service: &str, operation: &str, parameters: &[Parameter], used: &mut Vec<&'static str>) {
        for parameter in parameters {
            let inner = match parameter.kind {
                Kind::Structure(members) | Kind::List(&Kind::Structure(members)) => Some(members),
                _ => None,
            };
            if let Some(members) = inner {
                check(service, operation, members, used);
                continue;
            }
            let bounded = matches!(
                parameter.kind,
                Kind::String | Kind::Integer | Kind::Long | Kind::Blob | Kind::List(Kind::String)
            );
            let limits = of(service, operation, parameter.name);
            assert!(
                !bounded || limits.is_some() || FREE.contains(&parameter.name),
                "{service} {operation} {} has no limits",
                parameter.name
            );
            used.push(parameter.name);
            // What a client checks and what the service checks are the same smallest sizes.
            if let (Some(least), Some(limits)) = (parameter.min, limits) {
                assert_eq!(
                    Some(least),
                    limits.size.map(|[least, _]| least),
                    "{service} {operation} {}",
                    parameter.name
                );
            }
        }
    }

    #[test]
    fn every_bounded_parameter_has_its_limits_and_every_limit_a_parameter() {
        for (name, table) in [("kms", KMS), ("iam", IAM), ("sts", STS)] {
            let service = SERVICES.iter().find(|service| service.name == name).unwrap();
            let mut used = vec!["Tags"];
            let unsupported = kms_unsupported::OPERATIONS.iter().map(|operation| operation.name).collect::<Vec<_>>();
            for operation in service.operations.iter().filter(|operation| !unsupported.contains(&operation.name)) {
                check(name, operation.name, operation.parameters, &mut used);
            }
            for member in table.iter().flat_map(|row| row.members) {
                assert!(used.contains(member), "{name}: nothing has {member}");
            }
        }
    }

    #[test]
    fn patterns_take_what_their_text_says() {
        for (service, member, good, bad) in [
            ("kms", "AliasName", "alias/aws:app_1-x", "alias/a b"),
            ("kms", "ReplicaRegion", "us-gov-west-1", "us-1"),
            ("kms", "PrimaryRegion", "eu-west-1", "eu-west-1a"),
            ("kms", "KeyMaterialId", "0af9", "0AF9"),
            ("kms", "Policy", "{\n\t\"é\"}", "{\"\u{100}\"}"),
            ("kms", "GranteePrincipal", "arn:aws:iam::1:user/a@b", "arn aws"),
            ("iam", "UserName", "a+=,.@_-", "a b"),
            ("sts", "RoleArn", "arn:aws:iam::1:role/é", "\u{1}"),
        ] {
            let pattern = of(service, "", member).unwrap().pattern.unwrap();
            assert!((pattern.fits)(good) && !(pattern.fits)(bad) && !(pattern.fits)(""), "{member}");
        }
    }
}

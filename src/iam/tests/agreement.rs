//! A second evaluator, slow and plain, which works on the JSON itself and shares no code with the first: every random policy
//! must get the same verdict from both.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::*;

const ALICE: &str = "arn:aws:iam::123456789012:user/alice";
const ROOT: &str = "arn:aws:iam::123456789012:root";
const SESSION: &str = "arn:aws:sts::123456789012:assumed-role/App/s1";
const ROLE: &str = "arn:aws:iam::123456789012:role/App";
const EVE: &str = "arn:aws:iam::210987654321:user/eve";
const EVES_ROOT: &str = "arn:aws:iam::210987654321:root";

/// Yes, no, or (`None`) not known.
type Maybe = Option<bool>;

fn all(of: &[Maybe]) -> Maybe {
    if of.contains(&Some(false)) {
        Some(false)
    } else if of.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn any(of: &[Maybe]) -> Maybe {
    all(&of.iter().map(|one| one.map(|is| !is)).collect::<Vec<_>>()).map(|none| !none)
}

/// A request, as the slow evaluator sees it.
#[derive(Clone, Debug)]
struct Asked {
    who: &'static str,
    action: &'static str,
    keys: Vec<(&'static str, Vec<&'static str>)>,
}

impl Asked {
    /// The values of a key; `None` if it is not a key that anybody knows.
    fn values(&self, key: &str) -> Option<Vec<String>> {
        let lower = key.to_lowercase();
        if lower == "aws:username" {
            return Some(if self.who.contains(":user/") {
                vec![self.who.rsplit('/').next()?.to_owned()]
            } else {
                vec![]
            });
        }
        let known = KEY_NAMES.iter().any(|name| name.to_lowercase() == lower && *name != "x:y");
        let found = self.keys.iter().find(|(name, _)| name.to_lowercase() == lower);
        known.then(|| found.map(|(_, values)| values.iter().map(|&v| v.to_owned()).collect()).unwrap_or_default())
    }

    fn account(&self) -> &str {
        self.who.split(':').nth(4).unwrap()
    }
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap().to_owned()).collect(),
        value => vec![value.as_str().unwrap().to_owned()],
    }
}

/// `*` and `?` by the book: exponential, and obviously right. `\u{1}` in front takes a character's magic away.
fn like(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('*') => {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| like(rest.as_str(), &text[at..]))
        }
        Some(c) => {
            let (c, literal) = if c == '\u{1}' { (rest.next().unwrap(), true) } else { (c, false) };
            let mut tail = text.chars();
            let fits = tail.next().is_some_and(|first| first == c || (c == '?' && !literal));
            fits && like(rest.as_str(), tail.as_str())
        }
    }
}

/// The text with its variables replaced: `Err(Some(false))` if one has no value, `Err(None)` if one is not known.
fn expand(text: &str, asked: &Asked) -> Result<String, Maybe> {
    let Some(start) = text.find("${") else { return Ok(text.to_owned()) };
    let end = text[start..].find('}').map(|end| start + end).ok_or(None)?;
    let (name, default) = match text[start + 2..end].split_once(", ") {
        Some((name, default)) => (name, Some(default.trim_matches('\'').to_owned())),
        None => (&text[start + 2..end], None),
    };
    let value = match name {
        "*" | "?" | "$" => name.to_owned(),
        name => match asked.values(name).ok_or(None)?.as_slice() {
            [value] => value.clone(),
            [] => default.ok_or(Some(false))?,
            _ => return Err(None),
        },
    };
    let value: String = value.chars().flat_map(|c| ['\u{1}', c]).collect();
    Ok(format!("{}{value}{}", &text[..start], expand(&text[end + 1..], asked)?))
}

fn plain(text: &str) -> String {
    text.replace('\u{1}', "")
}

fn arn_like(pattern: &str, text: &str) -> Maybe {
    if pattern == "*" {
        return Some(true);
    }
    // In these tests no variable has a colon in it.
    let (patterns, parts) = (pattern.splitn(6, ':').collect::<Vec<_>>(), text.splitn(6, ':').collect::<Vec<_>>());
    if patterns.len() < 6 {
        return if like(pattern, text) { None } else { Some(false) };
    }
    Some(parts.len() == 6 && patterns.iter().zip(parts).all(|(pattern, part)| like(pattern, part)))
}

/// Whether one value of the policy matches one of the request, under an operator without its decorations.
fn one_matches(operator: &str, wanted: &str, found: &str, asked: &Asked) -> Maybe {
    if operator.starts_with("String") || operator.starts_with("Arn") {
        let text = match expand(wanted, asked) {
            Ok(text) => text,
            Err(verdict) => return verdict,
        };
        return match operator {
            "StringEquals" => Some(plain(&text) == found),
            "StringEqualsIgnoreCase" => Some(plain(&text).to_lowercase() == found.to_lowercase()),
            "StringLike" => Some(like(&text, found)),
            _ => arn_like(&text, found),
        };
    }
    let number = |text: &str| text.parse::<i64>().ok();
    match operator {
        "Bool" => {
            let bool = |text: &str| text.to_lowercase().parse::<bool>().ok();
            bool(wanted).map(|wanted| bool(found) == Some(wanted))
        }
        "NumericEquals" => number(wanted).map(|wanted| number(found) == Some(wanted)),
        "NumericLessThan" => number(wanted).map(|wanted| number(found).is_some_and(|found| found < wanted)),
        "IpAddress" => match wanted {
            "10.0.0.0/8" => Some(found.starts_with("10.")),
            _ => None,
        },
        "DateGreaterThan" => {
            // Dates of one form compare as texts do.
            let date = |text: &str| text.starts_with("20") && text.ends_with('Z');
            date(wanted).then(|| date(found) && found > wanted)
        }
        other => panic!("{other}"),
    }
}

fn condition(name: &str, key: &str, wanted: &[String], asked: &Asked) -> Maybe {
    if !OPERATORS.contains(&name) || name == "StringMatches" {
        return None;
    }
    let values = asked.values(key)?;
    if name == "Null" {
        if wanted.is_empty() {
            return None;
        }
        let each: Vec<_> = wanted.iter().map(|w| w.parse().ok().map(|w: bool| w == values.is_empty())).collect();
        return any(&each);
    }
    let (quantifier, rest) = name.split_once(':').unwrap_or(("", name));
    if wanted.is_empty() && rest.contains("Not") {
        return None;
    }
    let (base, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |base| (base, true));
    let (base, negated) = match base {
        "StringNotEquals" => ("StringEquals", true),
        "StringNotLike" => ("StringLike", true),
        "ArnNotLike" => ("ArnLike", true),
        "NotIpAddress" => ("IpAddress", true),
        "NumericNotEquals" => ("NumericEquals", true),
        base => (base, false),
    };
    if values.is_empty() {
        return match quantifier {
            "ForAllValues" => Some(true),
            "ForAnyValue" => {
                if if_exists {
                    None
                } else {
                    Some(false)
                }
            }
            _ => Some(negated || if_exists),
        };
    }
    let matches = |value: &String| any(&wanted.iter().map(|w| one_matches(base, w, value, asked)).collect::<Vec<_>>());
    let turned = |maybe: Maybe| maybe.map(|is| is != negated);
    let each: Vec<_> = values.iter().map(matches).collect();
    let each_turned: Vec<_> = each.iter().map(|&one| turned(one)).collect();
    match quantifier {
        "ForAllValues" => all(&each_turned),
        "ForAnyValue" => any(&each_turned),
        _ => turned(any(&each)),
    }
}

/// Whether a statement of a key policy is for the caller itself, and whether for its account.
fn for_whom(statement: &Map<String, Value>, asked: &Asked) -> (Maybe, bool) {
    let account_of = |name: &str| name.ends_with(":root").then(|| name.split(':').nth(4).unwrap().to_owned());
    let own = match asked.who {
        SESSION => vec![SESSION, ROLE],
        who => vec![who],
    };
    if let Some(names) = statement.get("Principal") {
        let names = if names == "*" { vec!["*".to_owned()] } else { list(&names["AWS"]) };
        let direct = names.iter().any(|name| name == "*" || own.contains(&name.as_str()));
        let account = names.iter().any(|name| account_of(name).as_deref() == Some(asked.account()));
        return (Some(direct), account);
    }
    let names = list(&statement["NotPrincipal"]["AWS"]);
    let account = format!("arn:aws:iam::{}:root", asked.account());
    let spared = own.iter().chain([&account.as_str()]).all(|must| names.iter().any(|name| name == must));
    match statement["Effect"].as_str().unwrap() {
        "Deny" => (Some(!spared), false),
        _ => (if spared { Some(false) } else { None }, false),
    }
}

/// Whether the rest of a statement, without its principals, applies.
fn applies(statement: &Map<String, Value>, asked: &Asked) -> Maybe {
    let mut parts = Vec::new();
    for (name, negated) in [("Action", false), ("NotAction", true)] {
        if let Some(actions) = statement.get(name) {
            let lower = asked.action.to_lowercase();
            parts.push(Some(list(actions).iter().any(|action| like(&action.to_lowercase(), &lower)) != negated));
        }
    }
    for (name, negated) in [("Resource", false), ("NotResource", true)] {
        if let Some(resources) = statement.get(name) {
            let each = |text: &String| expand(text, asked).map_or_else(|verdict| verdict, |text| arn_like(&text, KEY));
            let is = any(&list(resources).iter().map(each).collect::<Vec<_>>());
            parts.push(is.map(|is| is != negated));
        }
    }
    if parts.len() < 2 {
        return Some(false);
    }
    if let Some(operators) = statement.get("Condition") {
        for (operator, keys) in operators.as_object().unwrap() {
            for (key, values) in keys.as_object().unwrap() {
                parts.push(condition(operator, key, &list(values), asked));
            }
        }
    }
    all(&parts)
}

/// The verdict: `allowed`, `explicit`, `implicit` or `unknown`.
fn verdict(key_policy: &Value, identity: Option<&[Value]>, asked: &Asked) -> &'static str {
    let (mut deny, mut direct, mut delegated, mut by_identity) = (vec![], vec![], vec![], vec![]);
    for statement in key_policy["Statement"].as_array().unwrap() {
        let statement = statement.as_object().unwrap();
        let rest = applies(statement, asked);
        let (itself, account) = for_whom(statement, asked);
        if statement["Effect"] == "Deny" {
            deny.push(all(&[rest, any(&[itself, Some(account)])]));
        } else {
            direct.push(all(&[rest, itself]));
            delegated.push(all(&[rest, Some(account)]));
        }
    }
    match identity {
        None => by_identity.push(Some(true)),
        Some(statements) => {
            for statement in statements {
                let is = applies(statement.as_object().unwrap(), asked);
                if statement["Effect"] == "Deny" { deny.push(is) } else { by_identity.push(is) }
            }
        }
    }
    let (direct, delegated, by_identity) = (any(&direct), any(&delegated), any(&by_identity));
    let allow = if asked.account() == "123456789012" {
        any(&[direct, all(&[delegated, by_identity])])
    } else {
        all(&[any(&[direct, delegated]), by_identity])
    };
    match (any(&deny), allow) {
        (Some(true), _) => "explicit",
        (_, Some(false)) => "implicit",
        (Some(false), Some(true)) => "allowed",
        _ => "unknown",
    }
}

const OPERATORS: [&str; 22] = [
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "StringEqualsIfExists",
    "StringNotLikeIfExists",
    "ForAllValues:StringEquals",
    "ForAllValues:StringNotEquals",
    "ForAllValues:StringLike",
    "ForAnyValue:StringEquals",
    "ForAnyValue:StringNotLike",
    "ForAnyValue:StringLikeIfExists",
    "ArnLike",
    "ArnNotLike",
    "Bool",
    "NumericNotEquals",
    "NumericLessThan",
    "NotIpAddress",
    "DateGreaterThan",
    "Null",
    "StringMatches",
];
const KEY_NAMES: [&str; 8] = [
    "kms:ViaService",
    "KMS:encryptioncontextkeys",
    "kms:EncryptionContext:a",
    "x:y",
    "kms:RotationPeriodInDays",
    "aws:SourceIp",
    "aws:CurrentTime",
    "aws:SourceArn",
];
const WANTED: [&str; 17] = [
    "a",
    "A",
    "a*",
    "?",
    "*",
    "",
    "${aws:username}",
    "${aws:username, 'b'}*",
    "${*}",
    "${no:key}",
    "true",
    "false",
    "7",
    "10.0.0.0/8",
    "2026-01-01T00:00:00Z",
    "arn:aws:iam::*:user/?lice",
    "arn:aws:*",
];
const FOUND: [&str; 8] = ["a", "b", "alice", "true", "7", "10.1.2.3", "2026-06-01T00:00:00Z", ALICE];
const NAMES: [&str; 7] = ["*", ALICE, ROOT, SESSION, ROLE, EVE, EVES_ROOT];
const ACTIONS: [&str; 6] = ["*", "kms:*", "KMS:dec*", "kms:Encrypt", "kms:?ecrypt", "kms:Describe*"];
const RESOURCES: [&str; 6] = [
    "*",
    KEY,
    "arn:aws:kms:*:123456789012:key/*",
    "arn:aws:kms:*:*:alias/*",
    "arn:aws:kms:*:key/*",
    "arn:aws:kms:us-east-1:123456789012:key/${aws:username}",
];

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Value> {
    subsequence(of.to_vec(), 1..=2).prop_map(|items| json!(items))
}

fn element(
    plain: &'static str,
    not: &'static str,
    of: &'static [&'static str],
) -> impl Strategy<Value = (String, Value)> {
    (prop_oneof![4 => Just(plain), 1 => Just(not)], some(of)).prop_map(|(name, value)| (name.to_owned(), value))
}

fn conditions() -> impl Strategy<Value = Value> {
    let wanted = subsequence(WANTED.to_vec(), 0..=2).prop_map(|items| json!(items));
    let one = (select(&OPERATORS[..]), select(&KEY_NAMES[..]), wanted);
    proptest::collection::vec(one, 0..3).prop_map(|all| {
        let mut conditions = Map::new();
        for (operator, key, values) in all {
            conditions.entry(operator).or_insert_with(|| json!({}))[key] = values;
        }
        Value::Object(conditions)
    })
}

fn statement(with_principal: bool) -> impl Strategy<Value = Value> {
    let principal =
        (prop_oneof![4 => Just("Principal"), 1 => Just("NotPrincipal")], subsequence(NAMES.to_vec(), 1..=4));
    let effect = prop_oneof![2 => Just("Allow"), 1 => Just("Deny")];
    let parts = (
        effect,
        principal,
        proptest::option::weighted(0.95, element("Action", "NotAction", &ACTIONS)),
        proptest::option::weighted(0.95, element("Resource", "NotResource", &RESOURCES)),
        conditions(),
    );
    parts.prop_map(move |(effect, (kind, names), action, resource, conditions)| {
        let mut statement = json!({"Effect": effect, "Condition": conditions});
        if with_principal {
            statement[kind] = json!({"AWS": names.into_iter().filter(|name| kind == "Principal" || *name != "*").collect::<Vec<_>>()});
            if statement[kind]["AWS"] == json!([]) {
                statement[kind] = json!({"AWS": [ALICE]});
            }
        }
        // Only a key's policy may lack them.
        let or = |element: Option<(String, Value)>, name: &str| element.or((!with_principal).then(|| (name.to_owned(), json!("*"))));
        for (name, value) in [or(action, "Action"), or(resource, "Resource")].into_iter().flatten() {
            statement[name] = if with_principal || value != json!(["arn:aws:kms:*:key/*"]) { value } else { json!("*") };
        }
        if !with_principal && let Some(Value::Array(items)) = statement.get_mut("Resource") {
            items.retain(|item| item != "arn:aws:kms:*:key/*");
        }
        if !with_principal && let Some(Value::Array(items)) = statement.get_mut("NotResource") {
            items.retain(|item| item != "arn:aws:kms:*:key/*");
        }
        statement
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let keys = subsequence(KEY_NAMES.to_vec(), 0..=4);
    let values = proptest::collection::vec(subsequence(FOUND.to_vec(), 1..=2), 4);
    (select(&[ALICE, ROOT, SESSION, EVE, EVES_ROOT][..]), select(&["kms:Decrypt", "kms:Encrypt"][..]), keys, values)
        .prop_map(|(who, action, keys, values)| {
            let multi = |key: &str| key.to_lowercase() == "kms:encryptioncontextkeys";
            let keys = keys.into_iter().filter(|key| *key != "x:y").zip(values);
            let keys = keys.map(|(key, values)| (key, if multi(key) { values } else { values[..1].to_vec() }));
            Asked { who, action, keys: keys.collect() }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn two_evaluators_agree_on_every_policy(
        statements in proptest::collection::vec(statement(true), 1..4),
        identity in proptest::option::of(proptest::collection::vec(statement(false), 0..3)),
        asked in asked(),
    ) {
        let policy = json!({"Version": "2012-10-17", "Statement": statements});
        let parsed = Policy::parse(&policy.to_string(), PolicyKind::Key).unwrap();
        let fast_identity = match &identity {
            None => Identity::Administrator,
            Some(statements) => {
                let texts: Vec<_> = statements.iter().map(Value::to_string).collect();
                super::identity(&texts.iter().map(String::as_str).collect::<Vec<_>>())
            }
        };
        let requester = requester(asked.who, fast_identity);
        let mut context = Context::default();
        requester.describe(&mut context);
        for (key, values) in &asked.keys {
            context.set_all(key, values.iter().copied());
        }
        let named = NamedPolicy::new("key policy", parsed);
        let question = Question {
            requester: &requester,
            action: asked.action,
            resource: KEY,
            owner: &owner(),
            policy: ResourcePolicy::Key(&named),
            context: &context,
        };
        let decision = evaluate(&question);
        let fast = match decision.outcome {
            Outcome::Allowed => "allowed",
            Outcome::Denied { explicit: true, .. } => "explicit",
            Outcome::Denied { .. } => "implicit",
            Outcome::Undetermined => "unknown",
        };
        prop_assert_eq!(fast, verdict(&policy, identity.as_deref(), &asked), "{:#?}", decision);
        prop_assert_eq!(decision.outcome == Outcome::Undetermined, !decision.undetermined.is_empty());
        if fast == "allowed" || fast == "explicit" {
            prop_assert!(!decision.decided_by.is_empty());
        }
    }
}

/// Agreement is worth something only if the policies are of all kinds.
#[test]
fn random_policies_come_to_every_verdict() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeMap;

    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::<_, u32>::new();
    let policies = proptest::collection::vec(statement(true), 1..4);
    for _ in 0..1000 {
        let statements = policies.new_tree(&mut runner).unwrap().current();
        let asked = asked().new_tree(&mut runner).unwrap().current();
        *seen.entry(verdict(&json!({"Statement": statements}), None, &asked)).or_default() += 1;
    }
    assert!(["allowed", "explicit", "implicit", "unknown"].iter().all(|kind| seen[kind] > 50), "{seen:?}");
}

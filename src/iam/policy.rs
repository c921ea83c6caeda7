//! Policies read from JSON (IAM user guide, "Grammar of the IAM JSON policy language").

use super::condition::Operator;
use super::json::Node;
use super::names::PrincipalName;
use super::pattern;

/// What a policy is attached to, which decides what must stand in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PolicyKind {
    /// A key: every statement says for whom. One that lacks action or resource is taken and has no effect.
    Key,
    /// A user or role: no statement says for whom.
    Identity,
    /// A role, as to who may assume it: every statement says for whom, and of which resource none: it is the role.
    Trust,
}

/// The language's version. Only the newer one has variables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// `2008-10-17`, and what a policy without `Version` is.
    V2008,
    /// `2012-10-17`.
    V2012,
}

/// A policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Policy {
    /// Its `Version`.
    pub version: Version,
    /// Its `Id`.
    pub id: Option<String>,
    /// Its statements, at least one.
    pub statements: Vec<Statement>,
}

/// Whether a statement allows or denies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum Effect {
    /// It allows.
    Allow,
    /// It denies, whatever else allows.
    Deny,
}

/// A statement. Elements that it lacks are `None`.
#[derive(Clone, PartialEq, Debug)]
pub struct Statement {
    /// `Sid`.
    pub sid: Option<String>,
    /// `Effect`.
    pub effect: Effect,
    /// `Principal` or `NotPrincipal`.
    pub principals: Option<Element<PrincipalName>>,
    /// `Action` or `NotAction`.
    pub actions: Option<Element<String>>,
    /// `Resource` or `NotResource`.
    pub resources: Option<Element<String>>,
    /// `Condition`: all must hold.
    pub conditions: Vec<Condition>,
}

/// An element that can be negated (`NotAction`) with what it lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element<T> {
    /// Whether it is the one with `Not`.
    pub negated: bool,
    /// What it lists.
    pub list: Vec<T>,
}

/// One key under one operator.
#[derive(Clone, PartialEq, Debug)]
pub struct Condition {
    /// The operator as it is written.
    pub name: String,
    /// What it means; `None` if it is not known.
    pub operator: Option<Operator>,
    /// The condition key as it is written.
    pub key: String,
    /// One of them must match.
    pub values: Vec<String>,
}

/// Why a text is no policy, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} (at {place})")]
pub struct PolicyError {
    /// Where, such as `Statement[1].Condition.StringEquals`; `the document` for the whole.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// How AWS words it, where that is known.
    pub aws: Option<String>,
}

impl PolicyError {
    fn worded(self, aws: impl Into<String>) -> Self {
        Self { aws: Some(aws.into()), ..self }
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// If the text is not JSON, names a member twice, or is no policy of that kind; the error says where.
    pub fn parse(text: &str, kind: PolicyKind) -> Result<Self, PolicyError> {
        let at = Place(String::new());
        let node = Node::parse(text).map_err(|error| at.wrong(format!("This policy is not valid JSON: {error}")))?;
        let mut members = Members::of(&at, &node)?;
        let version = match members.take("Version") {
            None => Version::V2008,
            Some(version) => match at.member("Version").text(version)? {
                "2012-10-17" => Version::V2012,
                "2008-10-17" => Version::V2008,
                other => {
                    return Err(at.member("Version").wrong(format!("'{other}' is no version of the policy language")));
                }
            },
        };
        let id = members.take("Id").map(|id| at.member("Id").text(id)).transpose()?.map(str::to_owned);
        let here = at.member("Statement");
        let statements = match members.take("Statement") {
            None => return Err(at.wrong("A policy has a Statement")),
            Some(Node::List(list)) if list.is_empty() => return Err(here.wrong("A policy has at least one statement")),
            Some(Node::List(list)) => {
                let each = list.iter().enumerate().map(|(index, node)| statement(&here.item(index), node, kind));
                each.collect::<Result<_, _>>()?
            }
            Some(node) => vec![statement(&here, node, kind)?],
        };
        members.end()?;
        let policy = Self { version, id, statements };
        if kind == PolicyKind::Identity {
            policy.check_sids(&here)?;
        }
        Ok(policy)
    }

    /// The condition keys that it asks for, also as variables, as they are written.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.statements.iter().flat_map(|statement| {
            let values = statement.conditions.iter().flat_map(|condition| &condition.values);
            let resources = statement.resources.iter().flat_map(|resources| &resources.list);
            let variables = values.chain(resources).flat_map(|text| pattern::variables(text));
            statement.conditions.iter().map(|condition| condition.key.as_str()).chain(variables)
        })
    }

    /// Whether it asks for a condition key that begins with `start`, in any case.
    pub fn asks_for(&self, start: &str) -> bool {
        self.keys().any(|key| key.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)))
    }

    /// Identity policies' statement ids are letters and digits, and unique.
    fn check_sids(&self, at: &Place) -> Result<(), PolicyError> {
        for (index, statement) in self.statements.iter().enumerate() {
            let Some(sid) = &statement.sid else { continue };
            let here = || at.item(index).member("Sid");
            if !sid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                let aws = "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*";
                return Err(here().wrong("A Sid has letters and digits alone").worded(aws));
            }
            if !sid.is_empty() && self.statements[..index].iter().any(|earlier| earlier.sid.as_ref() == Some(sid)) {
                return Err(here()
                    .wrong("Another statement has this Sid")
                    .worded("Statement IDs (SID) in a single policy must be unique."));
            }
        }
        Ok(())
    }
}

fn statement(at: &Place, node: &Node, kind: PolicyKind) -> Result<Statement, PolicyError> {
    let mut members = Members::of(at, node)?;
    let sid = members.take("Sid").map(|sid| at.member("Sid").text(sid)).transpose()?.map(str::to_owned);
    let effect = match members.take("Effect") {
        None => return Err(at.wrong("A statement has an Effect")),
        Some(effect) => match at.member("Effect").text(effect)? {
            "Allow" => Effect::Allow,
            "Deny" => Effect::Deny,
            other => return Err(at.member("Effect").wrong(format!("'{other}' is neither Allow nor Deny"))),
        },
    };
    let principals = members.element(at, "Principal", "NotPrincipal", principals)?;
    let actions = members.element(at, "Action", "NotAction", |at, node| strings(at, node, check_action))?;
    let check = |at: &Place, text: &str| if kind == PolicyKind::Identity { check_resource(at, text) } else { Ok(()) };
    let resources = members.element(at, "Resource", "NotResource", |at, node| strings(at, node, check))?;
    let conditions = match members.take("Condition") {
        None => Vec::new(),
        Some(node) => conditions(&at.member("Condition"), node)?,
    };
    members.end()?;
    match kind {
        PolicyKind::Key if principals.is_none() => Err(at.wrong("Missing required field Principal")),
        PolicyKind::Trust if principals.is_none() => Err(at.wrong("AssumeRole policy must contain principals")),
        PolicyKind::Trust if actions.is_none() => Err(at.wrong("AssumeRole policy must contain actions")),
        PolicyKind::Trust if resources.is_some() => Err(at.wrong("Has prohibited field Resource")),
        PolicyKind::Trust => {
            let resources = Some(Element { negated: false, list: vec!["*".to_owned()] });
            Ok(Statement { sid, effect, principals, actions, resources, conditions })
        }
        PolicyKind::Identity if principals.is_some() => Err(at
            .wrong("A policy of a user or role does not say for whom")
            .worded("Policy document should not specify a principal.")),
        PolicyKind::Identity if actions.is_none() => {
            Err(at.wrong("A statement says what").worded("Policy statement must contain actions."))
        }
        PolicyKind::Identity if resources.is_none() => {
            Err(at.wrong("A statement says on what").worded("Policy statement must contain resources."))
        }
        _ => Ok(Statement { sid, effect, principals, actions, resources, conditions }),
    }
}

fn principals(at: &Place, node: &Node) -> Result<Vec<PrincipalName>, PolicyError> {
    let invalid = |at: &Place, name: &str| {
        at.wrong(format!("'{name}' is no principal"))
            .worded("Policy contains a statement with one or more invalid principals.")
    };
    if let Node::Text(text) = node {
        return if text == "*" { Ok(vec![PrincipalName::Everyone]) } else { Err(invalid(at, text)) };
    }
    let mut found = Vec::new();
    let Node::Members(members) = node else {
        return Err(at.wrong(format!("A principal is \"*\" or an object, not {}", node.kind())));
    };
    for (kind, names) in members {
        let here = at.member(kind);
        for (index, name) in strings(&here, names, |_, _| Ok(()))?.into_iter().enumerate() {
            let place = if matches!(names, Node::List(_)) { here.item(index) } else { here.clone() };
            found.push(PrincipalName::parse(kind, &name).ok_or_else(|| invalid(&place, &name))?);
        }
    }
    Ok(found)
}

fn check_action(at: &Place, action: &str) -> Result<(), PolicyError> {
    let named = action.split_once(':').is_some_and(|(vendor, name)| !vendor.is_empty() && !name.is_empty());
    if action == "*" || named {
        return Ok(());
    }
    Err(at
        .wrong(format!("'{action}' is no action: service:Action or *"))
        .worded("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."))
}

fn check_resource(at: &Place, resource: &str) -> Result<(), PolicyError> {
    if resource == "*" || resource.starts_with("${") || resource.splitn(6, ':').count() == 6 {
        return Ok(());
    }
    let aws = format!("Resource {resource} must be in ARN format or \"*\".");
    Err(at.wrong(format!("'{resource}' is neither an ARN nor *")).worded(aws.chars().take(400).collect::<String>()))
}

fn conditions(at: &Place, node: &Node) -> Result<Vec<Condition>, PolicyError> {
    let Node::Members(operators) = node else {
        return Err(at.wrong(format!("A condition is an object, not {}", node.kind())));
    };
    let mut found = Vec::new();
    for (name, keys) in operators {
        let here = at.member(name);
        let Node::Members(keys) = keys else {
            return Err(here.wrong(format!("An operator has an object of condition keys, not {}", keys.kind())));
        };
        for (index, (key, values)) in keys.iter().enumerate() {
            let place = here.member(key);
            if keys[..index].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(key)) {
                return Err(place.wrong("The condition key is there twice, in another case"));
            }
            let values = match values {
                Node::List(list) => {
                    let each = list.iter().enumerate().map(|(index, value)| scalar(&place.item(index), value));
                    each.collect::<Result<_, _>>()?
                }
                value => vec![scalar(&place, value)?],
            };
            found.push(Condition { name: name.clone(), operator: Operator::parse(name), key: key.clone(), values });
        }
    }
    Ok(found)
}

/// A condition's value: text, or a boolean or number without quotes.
fn scalar(at: &Place, node: &Node) -> Result<String, PolicyError> {
    match node {
        Node::Text(text) | Node::Number(text) => Ok(text.clone()),
        Node::Bool(value) => Ok(value.to_string()),
        other => Err(at.wrong(format!("A condition's value is a string, a number or a boolean, not {}", other.kind()))),
    }
}

/// A string or a list of strings. One of none makes a statement without effect (IAM user guide, "IAM Access Analyzer policy
/// check reference": empty array action, principal and resource).
fn strings(
    at: &Place,
    node: &Node,
    check: impl Fn(&Place, &str) -> Result<(), PolicyError>,
) -> Result<Vec<String>, PolicyError> {
    match node {
        Node::List(list) => {
            let each = list.iter().enumerate().map(|(index, item)| {
                let here = at.item(index);
                let text = here.text(item)?;
                check(&here, text).map(|()| text.to_owned())
            });
            each.collect()
        }
        node => {
            let text = at.text(node)?;
            check(at, text).map(|()| vec![text.to_owned()])
        }
    }
}

/// Where in the document something is.
#[derive(Clone)]
struct Place(String);

impl Place {
    fn member(&self, name: &str) -> Self {
        // A name from a hostile document is not repeated at any length.
        let name: String = name.chars().take(100).collect();
        if self.0.is_empty() { Self(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    fn wrong(&self, what: impl Into<String>) -> PolicyError {
        let place = if self.0.is_empty() { "the document" } else { self.0.as_str() };
        PolicyError { place: place.to_owned(), what: what.into().chars().take(400).collect(), aws: None }
    }

    fn text<'n>(&self, node: &'n Node) -> Result<&'n str, PolicyError> {
        match node {
            Node::Text(text) => Ok(text),
            other => Err(self.wrong(format!("There is {} where a string belongs", other.kind()))),
        }
    }
}

/// The members of an object, each taken once.
struct Members<'n> {
    at: Place,
    left: Vec<(&'n str, &'n Node)>,
}

impl<'n> Members<'n> {
    fn of(at: &Place, node: &'n Node) -> Result<Self, PolicyError> {
        match node {
            Node::Members(members) => {
                let left = members.iter().map(|(name, node)| (name.as_str(), node)).collect();
                Ok(Self { at: at.clone(), left })
            }
            other => Err(at.wrong(format!("There is {} where an object belongs", other.kind()))),
        }
    }

    fn take(&mut self, name: &str) -> Option<&'n Node> {
        let index = self.left.iter().position(|(known, _)| *known == name)?;
        Some(self.left.remove(index).1)
    }

    /// The element called `plain`, or the one called `not`, which says the opposite.
    fn element<T>(
        &mut self,
        at: &Place,
        plain: &str,
        not: &str,
        read: impl Fn(&Place, &Node) -> Result<Vec<T>, PolicyError>,
    ) -> Result<Option<Element<T>>, PolicyError> {
        match (self.take(plain), self.take(not)) {
            (Some(_), Some(_)) => Err(at.wrong(format!("A statement has {plain} or {not}, not both"))),
            (Some(node), None) => Ok(Some(Element { negated: false, list: read(&at.member(plain), node)? })),
            (None, Some(node)) => match read(&at.member(not), node)? {
                list if list.is_empty() => Err(at.member(not).wrong("The list is empty")),
                list => Ok(Some(Element { negated: true, list })),
            },
            (None, None) => Ok(None),
        }
    }

    fn end(self) -> Result<(), PolicyError> {
        match self.left.first() {
            Some((name, _)) => Err(self.at.member(name).wrong("The policy language has no such element")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<Policy, PolicyError> {
        Policy::parse(text, PolicyKind::Key)
    }

    #[test]
    fn a_policy_is_read_with_one_statement_or_several() {
        let one = r#"{"Statement": {"Effect": "Deny", "Principal": "*", "NotAction": "kms:List*", "Resource": ["*"],
            "Condition": {"Bool": {"aws:SecureTransport": false}, "NumericLessThan": {"kms:RotationPeriodInDays": [7, "90"]}}}}"#;
        let policy = key(one).unwrap();
        assert_eq!((policy.version, policy.statements.len()), (Version::V2008, 1));
        let statement = &policy.statements[0];
        assert_eq!(statement.actions, Some(Element { negated: true, list: vec!["kms:List*".to_owned()] }));
        assert_eq!(statement.principals.as_ref().unwrap().list, [PrincipalName::Everyone]);
        let values: Vec<_> = statement.conditions.iter().map(|condition| condition.values.clone()).collect();
        assert_eq!(values, [vec!["false"], vec!["7", "90"]]);
        assert_eq!(policy.keys().collect::<Vec<_>>(), ["aws:SecureTransport", "kms:RotationPeriodInDays"]);
        assert!(policy.asks_for("AWS:secure") && !policy.asks_for("aws:SecureTransports"));
        let two = r#"{"Version": "2012-10-17", "Id": "i", "Statement": [
            {"Sid": "with spaces", "Effect": "Allow", "Principal": {"AWS": ["123456789012", "*"], "Service": "ec2.amazonaws.com"}},
            {"Effect": "Allow", "NotPrincipal": {"AWS": "arn:aws:iam::123456789012:user/a"}, "Action": "kms:*", "Resource": "${aws:username}"}]}"#;
        let policy = key(two).unwrap();
        assert_eq!((policy.version, policy.id.as_deref()), (Version::V2012, Some("i")));
        assert!(policy.statements[0].actions.is_none() && policy.statements[1].principals.as_ref().unwrap().negated);
        assert_eq!(policy.keys().collect::<Vec<_>>(), ["aws:username"]);
    }

    #[test]
    fn what_is_no_policy_is_refused_by_its_place() {
        let rest = r#""Principal": "*", "Action": "kms:*", "Resource": "*""#;
        let with = |more: &str| format!(r#"{{"Version": "2012-10-17", "Statement": [{{{more}}}]}}"#);
        for (text, place) in [
            ("", "the document"),
            ("[]", "the document"),
            ("{}", "the document"),
            (r#"{"Statement": []}"#, "Statement"),
            (r#"{"Statement": "x"}"#, "Statement"),
            (r#"{"Version": "2012-10-18", "Statement": []}"#, "Version"),
            (r#"{"Statement": {}, "Statement": {}}"#, "the document"),
            (r#"{"Statement": {}, "Extra": 1}"#, "Statement"),
            (&with(rest), "Statement[0]"),
            (&with(&format!(r#""Effect": "allow", {rest}"#)), "Statement[0].Effect"),
            (&with(&format!(r#""Effect": "Allow", "NotAction": "kms:*", {rest}"#)), "Statement[0]"),
            (&with(&format!(r#""Effect": "Allow", "Conditions": {{}}, {rest}"#)), "Statement[0].Conditions"),
            (
                &with(&format!(r#""Effect": "Allow", "Condition": {{"Bool": 1}}, {rest}"#)),
                "Statement[0].Condition.Bool",
            ),
            (
                &with(&format!(r#""Effect": "Allow", "Condition": {{"Bool": {{"a": 1, "A": 1}}}}, {rest}"#)),
                "Statement[0].Condition.Bool.A",
            ),
            (
                &with(&format!(r#""Effect": "Allow", "Condition": {{"Bool": {{"a": [null]}}}}, {rest}"#)),
                "Statement[0].Condition.Bool.a[0]",
            ),
            (&with(r#""Effect": "Allow", "Action": "kms:*", "Resource": "*""#), "Statement[0]"),
            (&with(r#""Effect": "Allow", "Principal": "arn:aws:iam::123456789012:root""#), "Statement[0].Principal"),
            (
                &with(r#""Effect": "Allow", "Principal": {"AWS": ["*", "arn:aws:iam::123456789012:user/*"]}"#),
                "Statement[0].Principal.AWS[1]",
            ),
            (&with(r#""Effect": "Allow", "Principal": {"Somebody": "x"}"#), "Statement[0].Principal.Somebody"),
            (&with(r#""Effect": "Allow", "Principal": "*", "NotAction": []"#), "Statement[0].NotAction"),
            (&with(r#""Effect": "Deny", "NotPrincipal": {"AWS": []}"#), "Statement[0].NotPrincipal"),
            (&with(r#""Effect": "Allow", "Principal": "*", "Action": ["kms:*", "Decrypt"]"#), "Statement[0].Action[1]"),
        ] {
            let error = key(text).unwrap_err();
            assert_eq!(error.place, place, "{text}: {error}");
        }
    }

    #[test]
    fn an_identity_policy_says_what_but_not_for_whom() {
        let read = |statements: &str| {
            Policy::parse(&format!(r#"{{"Version": "2012-10-17", "Statement": {statements}}}"#), PolicyKind::Identity)
        };
        assert!(
            read(r#"[{"Sid": "A1", "Effect": "Allow", "Action": "kms:*", "Resource": "arn:aws:kms:*:*:key/*"}]"#)
                .is_ok()
        );
        for bad in [
            r#"{"Effect": "Allow", "Action": "kms:*", "Resource": "*", "Principal": "*"}"#,
            r#"{"Effect": "Allow", "Action": "kms:*"}"#,
            r#"{"Effect": "Allow", "Resource": "*"}"#,
            r#"{"Effect": "Allow", "Action": "kms:*", "Resource": "key/*"}"#,
            r#"{"Sid": "a b", "Effect": "Allow", "Action": "kms:*", "Resource": "*"}"#,
            r#"[{"Sid": "a", "Effect": "Allow", "Action": "kms:*", "Resource": "*"}, {"Sid": "a", "Effect": "Deny", "Action": "kms:*", "Resource": "*"}]"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

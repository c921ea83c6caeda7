//! Condition operators: one key of a request against the values of a policy.
//!
//! IAM user guide, "IAM JSON policy elements: Condition operators" and "Set operators for multivalued context keys".

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::context::{Context, Entry};
use super::keys::{KeyType, known};
use super::pattern::{self, Expanded, Token};
use super::policy::{Condition, Version};
use super::truth::Truth;

/// A condition operator, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operator {
    quantifier: Quantifier,
    test: Test,
    negated: bool,
    if_exists: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Quantifier {
    /// None was given.
    Plain,
    /// `ForAllValues:`
    All,
    /// `ForAnyValue:`
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Test {
    StringEquals,
    StringEqualsIgnoreCase,
    StringLike,
    Numeric(Order),
    Date(Order),
    Bool,
    Binary,
    Ip,
    Arn,
    Null,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

impl Operator {
    /// The operator of that name; `None` if it is not known.
    pub fn parse(name: &str) -> Option<Self> {
        let (quantifier, rest) = match name.split_once(':') {
            Some(("ForAllValues", rest)) => (Quantifier::All, rest),
            Some(("ForAnyValue", rest)) => (Quantifier::Any, rest),
            Some(_) => return None,
            None => (Quantifier::Plain, name),
        };
        let (base, if_exists) = match rest.strip_suffix("IfExists") {
            Some(base) => (base, true),
            None => (rest, false),
        };
        let (test, negated) = match base {
            "StringEquals" => (Test::StringEquals, false),
            "StringNotEquals" => (Test::StringEquals, true),
            "StringEqualsIgnoreCase" => (Test::StringEqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Test::StringEqualsIgnoreCase, true),
            "StringLike" => (Test::StringLike, false),
            "StringNotLike" => (Test::StringLike, true),
            "Bool" => (Test::Bool, false),
            "BinaryEquals" => (Test::Binary, false),
            "IpAddress" => (Test::Ip, false),
            "NotIpAddress" => (Test::Ip, true),
            "ArnEquals" | "ArnLike" => (Test::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Test::Arn, true),
            "Null" if quantifier == Quantifier::Plain && !if_exists => (Test::Null, false),
            _ => {
                let (test, order): (fn(Order) -> Test, _) =
                    match (base.strip_prefix("Numeric"), base.strip_prefix("Date")) {
                        (Some(order), _) => (Test::Numeric, order),
                        (_, Some(order)) => (Test::Date, order),
                        _ => return None,
                    };
                match order {
                    "Equals" => (test(Order::Equal), false),
                    "NotEquals" => (test(Order::Equal), true),
                    "LessThan" => (test(Order::Less), false),
                    "LessThanEquals" => (test(Order::LessOrEqual), false),
                    "GreaterThan" => (test(Order::Greater), false),
                    "GreaterThanEquals" => (test(Order::GreaterOrEqual), false),
                    _ => return None,
                }
            }
        };
        Some(Self { quantifier, test, negated, if_exists })
    }
}

/// What became of a condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    /// Whether it holds.
    pub(super) holds: Truth,
    /// What the request has under the key; `None` if nothing or not known.
    pub(super) found: Option<Vec<String>>,
    /// Why it holds or not, where that is not plain to see.
    pub(super) note: Option<String>,
    /// What AWS does not document and was assumed.
    pub(super) assumed: Option<&'static str>,
}

/// Holds `condition` of a policy of `version` against a request.
pub(super) fn check(condition: &Condition, version: Version, context: &Context) -> Outcome {
    let outcome =
        |holds, found, note: Option<&str>| Outcome { holds, found, note: note.map(str::to_owned), assumed: None };
    let Some(operator) = condition.operator else {
        let note = format!("the condition operator '{}' is not known", condition.name);
        return outcome(Truth::Unknown, None, Some(&note));
    };
    let values = match context.get(&condition.key) {
        Entry::Unknown(reason) => return outcome(Truth::Unknown, None, Some(&reason)),
        Entry::Absent => Vec::new(),
        Entry::Values(values) => values,
    };
    if condition.values.is_empty() && (operator.negated || operator.test == Test::Null) {
        let note = "what this operator means without a value is not documented";
        return outcome(Truth::Unknown, Some(values).filter(|values| !values.is_empty()), Some(note));
    }
    if operator.test == Test::Null {
        return check_null(condition, values);
    }
    if values.is_empty() {
        return check_absent(operator);
    }
    let mut notes = Notes::default();
    let each = |value: &String, notes: &mut Notes| {
        let one = |wanted: &String, notes: &mut Notes| operator.test.matches(wanted, value, version, context, notes);
        Truth::any(condition.values.iter().map(|wanted| one(wanted, notes)))
    };
    let multi = known(&condition.key).is_some_and(|key| key.multi);
    let holds = match operator.quantifier {
        Quantifier::Plain => Truth::any(values.iter().map(|value| each(value, &mut notes))).negate_if(operator.negated),
        Quantifier::All => {
            // A value that is empty counts as none.
            let values = values.iter().filter(|value| !value.is_empty());
            Truth::all(values.map(|value| each(value, &mut notes).negate_if(operator.negated)))
        }
        Quantifier::Any => Truth::any(values.iter().map(|value| each(value, &mut notes).negate_if(operator.negated))),
    };
    let assumed = if multi && operator.quantifier == Quantifier::Plain {
        Some("a multi-valued key under an operator without ForAllValues or ForAnyValue: any of its values is enough")
    } else {
        notes.assumed
    };
    Outcome { holds, found: Some(values), note: notes.unknown, assumed }
}

/// A key that the request does not have.
fn check_absent(operator: Operator) -> Outcome {
    let (holds, note) = match operator.quantifier {
        Quantifier::All => (Truth::Yes, "ForAllValues holds for a request without the key"),
        Quantifier::Any if operator.if_exists => {
            (Truth::Unknown, "what ForAnyValue with IfExists is for a request without the key is not documented")
        }
        Quantifier::Plain if operator.if_exists => (Truth::Yes, "IfExists: the request does not have the key"),
        Quantifier::Plain if operator.negated => {
            (Truth::Yes, "the request does not have the key, and a negated operator then holds")
        }
        Quantifier::Any | Quantifier::Plain => (Truth::No, "the request does not have the key"),
    };
    Outcome { holds, found: None, note: Some(note.to_owned()), assumed: None }
}

fn check_null(condition: &Condition, values: Vec<String>) -> Outcome {
    let absent = values.is_empty();
    let holds = Truth::any(condition.values.iter().map(|wanted| match boolean(wanted) {
        Some(wanted) => (wanted == absent).into(),
        None => Truth::Unknown,
    }));
    let note = (holds == Truth::Unknown).then(|| "Null takes true or false".to_owned());
    Outcome { holds, found: (!absent).then_some(values), note, assumed: None }
}

#[derive(Default)]
struct Notes {
    unknown: Option<String>,
    assumed: Option<&'static str>,
}

impl Notes {
    fn unknown(&mut self, why: impl Into<String>) -> Truth {
        self.unknown.get_or_insert_with(|| why.into());
        Truth::Unknown
    }
}

impl Test {
    /// Whether one value of the request matches one of the policy.
    fn matches(self, wanted: &str, found: &str, version: Version, context: &Context, notes: &mut Notes) -> Truth {
        match self {
            Self::StringEquals | Self::StringEqualsIgnoreCase | Self::StringLike | Self::Arn => {
                let wildcards = matches!(self, Self::StringLike | Self::Arn);
                match pattern::expand(wanted, version, context, wildcards) {
                    Expanded::Tokens(tokens) => self.matches_tokens(&tokens, found, notes),
                    Expanded::Null => Truth::No,
                    Expanded::Unknown(reason) => notes.unknown(reason),
                }
            }
            Self::Numeric(order) => compare(decimal(found), decimal(wanted), order, wanted, notes),
            Self::Date(order) => compare(instant(found), instant(wanted), order, wanted, notes),
            Self::Bool => compare(boolean(found), boolean(wanted), Order::Equal, wanted, notes),
            Self::Binary => {
                compare(STANDARD.decode(found).ok(), STANDARD.decode(wanted).ok(), Order::Equal, wanted, notes)
            }
            Self::Ip => match (Network::parse(wanted), found.parse()) {
                (None, _) => notes.unknown(format!("'{wanted}' is no address or range")),
                (Some(_), Err(_)) => Truth::No,
                (Some(network), Ok(address)) => network.contains(address).into(),
            },
            Self::Null => Truth::Unknown,
        }
    }

    fn matches_tokens(self, tokens: &[Token], found: &str, notes: &mut Notes) -> Truth {
        match self {
            Self::StringEqualsIgnoreCase => {
                let lower = |text: &str| text.to_lowercase();
                let text: String = tokens
                    .iter()
                    .filter_map(|token| if let Token::Char(c) = token { Some(*c) } else { None })
                    .collect();
                (lower(&text) == lower(found)).into()
            }
            Self::Arn => {
                let matched = pattern::arn(tokens, found);
                if matched == Truth::Unknown {
                    return notes
                        .unknown("the pattern is no ARN of six parts, and what AWS makes of it is not documented");
                }
                if tokens == [Token::Any] {
                    notes.assumed.get_or_insert("a lone * under an ARN operator matches every ARN");
                }
                matched
            }
            _ => pattern::glob(tokens, found).into(),
        }
    }
}

/// Compares two values that were read. One of the request's that is not of the operator's type matches nothing; one of the
/// policy's that is not makes the comparison meaningless.
fn compare<T: Ord>(found: Option<T>, wanted: Option<T>, order: Order, text: &str, notes: &mut Notes) -> Truth {
    match (found, wanted) {
        (_, None) => notes.unknown(format!("'{text}' is not of the operator's type")),
        (None, Some(_)) => {
            notes.assumed.get_or_insert("a value that is not of the operator's type matches nothing");
            Truth::No
        }
        (Some(found), Some(wanted)) => order.holds(&found, &wanted).into(),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Digits behind the point that a number may have.
const FRACTION_DIGITS: usize = 18;

/// A decimal number, times 10^18.
fn decimal(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.len() > FRACTION_DIGITS {
        return None;
    }
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let scaled: i128 = format!("{whole}{fraction:0<FRACTION_DIGITS$}").parse().ok()?;
    Some(if negative { -scaled } else { scaled })
}

/// A point in time as nanoseconds since 1970: ISO 8601 as the W3C profile has it, or seconds since 1970.
fn instant(text: &str) -> Option<i128> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_nanosecond());
    }
    if let Ok(date) = text.parse::<Date>() {
        return Some(TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_nanosecond());
    }
    let seconds = decimal(text).filter(|_| text.bytes().take_while(u8::is_ascii_digit).count() > 4)?;
    Some(seconds / 1_000_000_000)
}

/// An address range in CIDR notation; a lone address is a range of one.
struct Network {
    base: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(prefix.parse().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let base: IpAddr = address.parse().ok()?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Self { base, prefix })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                (base.to_bits() ^ address.to_bits()).checked_shr(32 - self.prefix).unwrap_or(0) != 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                (base.to_bits() ^ address.to_bits()).checked_shr(128 - self.prefix).unwrap_or(0) != 0
            }
            _ => true,
        };
        !differs
    }
}

/// Whether a condition key may be used with operators of another type than its own, as far as a reader should know.
pub(super) fn of_another_type(condition: &Condition) -> Option<&'static str> {
    let kind = known(&condition.key)?.kind;
    let test = condition.operator?.test;
    let fits = match test {
        Test::Null => true,
        // A point in time as a number of seconds ("AWS global condition context keys").
        Test::Numeric(_) if condition.key.eq_ignore_ascii_case("aws:EpochTime") => true,
        Test::StringEquals | Test::StringEqualsIgnoreCase | Test::StringLike => {
            matches!(kind, KeyType::String | KeyType::Arn)
        }
        Test::Arn => kind == KeyType::Arn || kind == KeyType::String,
        Test::Numeric(_) => kind == KeyType::Numeric,
        Test::Date(_) => kind == KeyType::Date,
        Test::Bool => kind == KeyType::Bool,
        Test::Ip => kind == KeyType::Ip,
        Test::Binary => false,
    };
    (!fits).then_some("an operator of another type than its key's compares the value as its own type")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(name: &str, wanted: &[&str], found: &[&str]) -> Truth {
        let mut context = Context::default();
        context.set_all("aws:TagKeys", found.iter().copied()).set("aws:username", "alice");
        let condition = Condition {
            name: name.to_owned(),
            operator: Operator::parse(name),
            key: "aws:tagkeys".to_owned(),
            values: wanted.iter().map(|&value| value.to_owned()).collect(),
        };
        check(&condition, Version::V2012, &context).holds
    }

    #[test]
    fn each_operator_compares_as_iam_says() {
        use Truth::{No, Unknown, Yes};
        for (name, wanted, found, is) in [
            ("StringEquals", "a", "a", Yes),
            ("StringEquals", "a", "A", No),
            ("StringEquals", "a*", "ab", No),
            ("StringEquals", "${aws:username}", "alice", Yes),
            ("StringEquals", "${aws:userid}", "alice", No),
            ("StringNotEquals", "${aws:userid}", "alice", Yes),
            ("StringNotEquals", "a", "b", Yes),
            ("StringEqualsIgnoreCase", "ÄA", "äa", Yes),
            ("StringNotEqualsIgnoreCase", "A", "a", No),
            ("StringLike", "a?c*", "abcde", Yes),
            ("StringLike", "A*", "abc", No),
            ("StringNotLike", "a*", "abc", No),
            ("NumericEquals", "7", "7.0", Yes),
            ("NumericNotEquals", "7", "8", Yes),
            ("NumericLessThan", "10", "9", Yes),
            ("NumericLessThan", "10", "10", No),
            ("NumericLessThanEquals", "10", "10", Yes),
            ("NumericGreaterThan", "-1", "-0.5", Yes),
            ("NumericGreaterThanEquals", "90", "89", No),
            ("NumericEquals", "7", "seven", No),
            ("NumericEquals", "seven", "7", Unknown),
            ("DateLessThan", "2026-11-24T00:00:00Z", "2026-11-23T23:59:59Z", Yes),
            ("DateGreaterThan", "2026-11-24", "2026-11-24T00:00:01+00:00", Yes),
            ("DateEquals", "1795478400", "2026-11-24T00:00:00Z", Yes),
            ("DateEquals", "soon", "2026-11-24T00:00:00Z", Unknown),
            ("Bool", "true", "TRUE", Yes),
            ("Bool", "true", "false", No),
            ("Bool", "yes", "true", Unknown),
            ("BinaryEquals", "AQI=", "AQI=", Yes),
            ("BinaryEquals", "AQI=", "AQM=", No),
            ("IpAddress", "10.0.0.0/8", "10.255.0.1", Yes),
            ("IpAddress", "10.0.0.0/8", "11.0.0.1", No),
            ("IpAddress", "0.0.0.0/0", "1.2.3.4", Yes),
            ("IpAddress", "1.2.3.4", "1.2.3.4", Yes),
            ("IpAddress", "2001:db8::/32", "2001:db8:1::1", Yes),
            ("IpAddress", "::/0", "1.2.3.4", No),
            ("NotIpAddress", "10.0.0.0/8", "11.0.0.1", Yes),
            ("IpAddress", "10.0.0.0/33", "10.0.0.1", Unknown),
            ("ArnLike", "arn:aws:iam::*:role/*", "arn:aws:iam::1:role/x/y", Yes),
            ("ArnEquals", "arn:aws:iam::*:role/*", "arn:aws:iam::1:role/x", Yes),
            ("ArnLike", "arn:aws:iam:*", "arn:aws:iam::1:role/x", Unknown),
            ("ArnNotLike", "arn:aws:iam::*:role/*", "arn:aws:iam::1:user/x", Yes),
            ("ArnNotEquals", "arn:aws:iam::*:role/*", "alice", Yes),
            ("stringequals", "a", "a", Unknown),
            ("StringMatches", "a", "a", Unknown),
            ("ForSomeValues:StringEquals", "a", "a", Unknown),
        ] {
            assert_eq!(holds(name, &[wanted], &[found]), is, "{name} {wanted} {found}");
        }
    }

    #[test]
    fn sets_of_values_are_compared_by_their_quantifier() {
        use Truth::{No, Unknown, Yes};
        for (name, wanted, found, is) in [
            ("StringEquals", &["a", "b"][..], &["b"][..], Yes),
            ("StringNotEquals", &["a", "b"], &["b"], No),
            ("StringEquals", &["a"], &["a", "c"], Yes),
            ("ForAllValues:StringEquals", &["a", "b"], &["a", "b", "a"], Yes),
            ("ForAllValues:StringEquals", &["a", "b"], &["a", "c"], No),
            ("ForAllValues:StringEquals", &["a"], &[], Yes),
            ("ForAllValues:StringEquals", &["a"], &[""], Yes),
            ("ForAllValues:StringNotEquals", &["a", "b"], &["c", "d"], Yes),
            ("ForAllValues:StringNotEquals", &["a", "b"], &["c", "a"], No),
            ("ForAnyValue:StringEquals", &["a", "b"], &["c", "b"], Yes),
            ("ForAnyValue:StringEquals", &["a", "b"], &["c"], No),
            ("ForAnyValue:StringEquals", &["a"], &[], No),
            ("ForAnyValue:StringNotEquals", &["a"], &["a", "c"], Yes),
            ("ForAnyValue:StringNotEquals", &["a"], &["a"], No),
            ("ForAnyValue:StringNotEquals", &["a"], &[], No),
            ("ForAnyValue:StringEqualsIfExists", &["a"], &[], Unknown),
            ("StringEquals", &["a"], &[], No),
            ("StringNotEquals", &["a"], &[], Yes),
            ("NotIpAddress", &["10.0.0.0/8"], &[], Yes),
            ("StringEqualsIfExists", &["a"], &[], Yes),
            ("StringEqualsIfExists", &["a"], &["b"], No),
            ("BoolIfExists", &["false"], &[], Yes),
            ("Null", &["true"], &[], Yes),
            ("Null", &["true"], &["a"], No),
            ("Null", &["false"], &["a"], Yes),
            ("Null", &["false"], &[], No),
            ("Null", &["maybe"], &[], Unknown),
            ("NullIfExists", &["true"], &[], Unknown),
            ("ForAllValues:Null", &["true"], &[], Unknown),
            ("StringEquals", &[], &["a"], No),
            ("StringEqualsIfExists", &[], &[], Yes),
            ("ForAllValues:StringEquals", &[], &["a"], No),
            ("ForAllValues:StringEquals", &[], &[], Yes),
            ("ForAnyValue:StringEquals", &[], &["a"], No),
            ("StringNotEquals", &[], &["a"], Unknown),
            ("ForAllValues:StringNotEquals", &[], &[], Unknown),
            ("Null", &[], &[], Unknown),
        ] {
            assert_eq!(holds(name, wanted, found), is, "{name} {wanted:?} {found:?}");
        }
    }

    #[test]
    fn numbers_and_times_are_read_exactly_or_not_at_all() {
        assert_eq!(decimal("0.5"), Some(500_000_000_000_000_000));
        assert!(decimal("9007199254740993") > decimal("9007199254740992"));
        for bad in ["", ".", "-", "1e3", "1,0", "٣", "1234567890123456789", "0.1234567890123456789", "--1"] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
        assert_eq!(instant("2026-11-24"), instant("2026-11-24T00:00:00Z"));
        assert_eq!(instant("2026-11-24T01:00:00+01:00"), instant("2026-11-24T00:00:00Z"));
        for bad in ["2026", "", "tomorrow", "2026-13-01"] {
            assert_eq!(instant(bad), None, "{bad}");
        }
    }
}

//! Text with wildcards, and policy variables in it.
//!
//! IAM user guide: "IAM JSON policy elements: Resource" (wildcards in ARNs), "Variables and tags".

use super::context::{Context, Entry};
use super::policy::Version;
use super::truth::Truth;

/// One step of a pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// This character.
    Char(char),
    /// `?`: any one character.
    One,
    /// `*`: any characters, also none.
    Any,
}

/// A text of a policy with its variables replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Expanded {
    /// What it stands for.
    Tokens(Vec<Token>),
    /// A variable in it has no value in this request: nothing is equal to it or like it.
    Null,
    /// A variable in it cannot be told; the reason.
    Unknown(String),
}

/// Replaces the variables of `text` (from version 2012-10-17 on) and reads `*` and `?` as wildcards if `wildcards`.
///
/// A variable's value stands for itself, also where it has a `*` in it (*assumed*).
pub(super) fn expand(text: &str, version: Version, context: &Context, wildcards: bool) -> Expanded {
    let plain = |c: char| match c {
        '*' if wildcards => Token::Any,
        '?' if wildcards => Token::One,
        c => Token::Char(c),
    };
    if version == Version::V2008 || !text.contains("${") {
        return Expanded::Tokens(text.chars().map(plain).collect());
    }
    let mut tokens = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        tokens.extend(before.chars().map(plain));
        let Some((variable, after)) = behind.split_once('}') else {
            return Expanded::Unknown(format!("the policy variable in '{text}' has no end"));
        };
        rest = after;
        match value_of(variable, context) {
            Ok(Some(value)) => tokens.extend(value.chars().map(Token::Char)),
            Ok(None) => return Expanded::Null,
            Err(reason) => return Expanded::Unknown(reason),
        }
    }
    tokens.extend(rest.chars().map(plain));
    Expanded::Tokens(tokens)
}

/// The value of `${variable}`; `None` if the request has none and the policy no default.
fn value_of(variable: &str, context: &Context) -> Result<Option<String>, String> {
    if matches!(variable, "*" | "?" | "$") {
        return Ok(Some(variable.to_owned()));
    }
    let (name, default) = match variable.split_once(',') {
        Some((name, default)) => {
            let default = default.trim();
            let quoted = default.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\''));
            let inner =
                quoted.ok_or_else(|| format!("the default of the policy variable '${{{variable}}}' has no quotes"))?;
            (name, Some(inner.to_owned()))
        }
        None => (variable, None),
    };
    match context.get(name.trim()) {
        Entry::Values(values) => match values.as_slice() {
            [value] => Ok(Some(value.clone())),
            [] => Ok(default),
            _ => Err(format!("'{name}' has several values and cannot be a policy variable")),
        },
        Entry::Absent => Ok(default),
        Entry::Unknown(reason) => Err(reason),
    }
}

/// The names of the variables in `text`.
pub(super) fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|piece| {
        let inner = piece.split_once('}')?.0;
        Some(inner.split(',').next().unwrap_or(inner).trim())
    })
}

/// Whether `tokens` match the whole of `text`.
pub(super) fn glob(tokens: &[Token], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut token, mut at) = (0, 0);
    // Where to go on when the characters behind the last `*` do not fit: one character further.
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match tokens.get(token) {
            Some(Token::Any) => {
                retry = Some((token, at));
                token += 1;
            }
            Some(Token::One) => {
                token += 1;
                at += 1;
            }
            Some(Token::Char(c)) if *c == text[at] => {
                token += 1;
                at += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    token = star + 1;
                    at = from + 1;
                }
                None => return false,
            },
        }
    }
    tokens[token..].iter().all(|token| *token == Token::Any)
}

/// Whether an action's pattern matches `action`, whatever the case.
pub(super) fn action(pattern: &str, action: &str) -> bool {
    let lower = |text: &str| text.to_ascii_lowercase();
    let tokens: Vec<_> = lower(pattern)
        .chars()
        .map(|c| match c {
            '*' => Token::Any,
            '?' => Token::One,
            c => Token::Char(c),
        })
        .collect();
    glob(&tokens, &lower(action))
}

/// Number of parts of an ARN: `arn:partition:service:region:account:resource`; the last may have colons in it.
const ARN_PARTS: usize = 6;

/// Whether ARN `tokens` match `arn` part by part: no wildcard reaches over a colon into the next part.
///
/// A pattern of one lone `*` matches every ARN (*assumed* for condition operators). Other patterns that are no ARN match
/// nothing if they would match nothing read as plain text either; whether they match else is not documented.
pub(super) fn arn(tokens: &[Token], arn: &str) -> Truth {
    if tokens == [Token::Any] {
        return Truth::Yes;
    }
    let pattern: Vec<&[Token]> = tokens.splitn(ARN_PARTS, |token| *token == Token::Char(':')).collect();
    let parts: Vec<&str> = arn.splitn(ARN_PARTS, ':').collect();
    if pattern.len() < ARN_PARTS {
        return if glob(tokens, arn) { Truth::Unknown } else { Truth::No };
    }
    if parts.len() < ARN_PARTS {
        return Truth::No;
    }
    pattern.iter().zip(parts).all(|(pattern, part)| glob(pattern, part)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        match expand(text, Version::V2012, &Context::default(), true) {
            Expanded::Tokens(tokens) => tokens,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wildcards_match_what_they_should() {
        for (pattern, text, is) in [
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("*a", "aaa", true),
            ("??", "äb", true),
            ("a**", "a", true),
            ("a", "A", false),
            ("${*}${?}${$}", "*?$", true),
            ("${*}", "a", false),
        ] {
            assert_eq!(glob(&tokens(pattern), text), is, "{pattern} {text}");
        }
        assert!(action("KMS:*decrypt", "kms:Decrypt") && !action("kms:GenerateDataKey", "kms:GenerateDataKeyPair"));
    }

    #[test]
    fn no_wildcard_of_an_arn_reaches_into_the_next_part() {
        let key = "arn:aws:kms:us-east-1:123456789012:key/1234";
        for (pattern, is) in [
            ("*", Truth::Yes),
            ("arn:aws:kms:*:123456789012:key/*", Truth::Yes),
            ("arn:*:kms:*:*:*", Truth::Yes),
            ("arn:aws:kms:us-east-?:123456789012:key/????", Truth::Yes),
            ("arn:aws:kms:*:key/1234", Truth::Unknown),
            ("arn:aws:s3:*", Truth::No),
            ("arn:aws:kms:*:*:alias/*", Truth::No),
            // Read as plain text this would match: the first `*` is to cover region and account.
            ("arn:aws:kms*:123456789012:key/1234:*", Truth::No),
        ] {
            assert_eq!(arn(&tokens(pattern), key), is, "{pattern}");
        }
        assert_eq!(arn(&tokens("arn:aws:iam::1:user/*"), "arn:aws:iam::1:user/a:b/c"), Truth::Yes);
        assert_eq!(arn(&tokens("arn:aws:iam::1:user/*"), "not an ARN"), Truth::No);
    }

    #[test]
    fn variables_have_values_defaults_or_none() {
        let mut context = Context::default();
        context.set("aws:PrincipalTag/team", "b*ue");
        context.set_all("aws:TagKeys", ["a", "b"]);
        let read = |text: &str| expand(text, Version::V2012, &context, true);
        assert!(glob(&tokens("a-b?ue-*"), "a-b*ue-c"));
        let Expanded::Tokens(found) = read("${AWS:principaltag/TEAM}-*") else { panic!() };
        assert!(glob(&found, "b*ue-x") && !glob(&found, "blue-x"));
        let Expanded::Tokens(found) = read("${aws:PrincipalTag/none, 'all*'}") else { panic!() };
        assert!(glob(&found, "all*") && !glob(&found, "all-of-it"));
        assert_eq!(read("x${aws:username}"), Expanded::Null);
        for unknown in ["${aws:TagKeys}", "${no:such}", "${aws:username", "${aws:username, none}"] {
            assert!(matches!(read(unknown), Expanded::Unknown(_)), "{unknown}");
        }
        let Expanded::Tokens(old) = expand("${aws:username}", Version::V2008, &context, true) else { panic!() };
        assert!(glob(&old, "${aws:username}"));
        assert_eq!(variables("a${x}b${y , 'z'}${open").collect::<Vec<_>>(), ["x", "y"]);
    }
}

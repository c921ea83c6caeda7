//! The AWS CLI's shorthand: `Name=a,Values=b,c` and its nested lists and structures.
//!
//! The grammar is the one that the AWS CLI user guide describes under "Using shorthand syntax" and that its parser
//! implements, with its corners: a value may hold spaces, `\,` is a comma inside a value, `Key@=file://…` takes a value
//! from a file, and a comma after a value starts either the next value of a list or the next key.

use std::fmt;

/// What a shorthand expression says, before the parameter's type is applied.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Short {
    /// A word.
    Text(String),
    /// The bytes of a file, given as `@=fileb://…`.
    Bytes(Vec<u8>),
    /// `[a,b]`, or `a,b` where a value stands.
    List(Vec<Short>),
    /// `{a=b}`, or `a=b` at the top.
    Hash(Vec<(String, Short)>),
}

/// Why an expression is no shorthand.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum ShorthandError {
    /// Something else should stand at `at`.
    Expected { wanted: String, found: String, input: Vec<char>, at: usize },
    /// A key stands twice.
    Duplicate { key: String, input: Vec<char>, at: usize },
    /// Lists and structures are nested deeper than any parameter is.
    TooDeep,
    /// A file that `@=` names cannot be read.
    File(String),
}

/// No parameter of AWS nests half as deep.
const MAX_DEPTH: usize = 64;

/// Reads what `@=` points to: `Ok(None)` if the word names no file.
pub(super) type ReadFile<'a> = &'a dyn Fn(&str) -> Result<Option<Short>, String>;

/// Parses `input`, always a structure at the top.
pub(super) fn parse(input: &str, read_file: ReadFile<'_>) -> Result<Short, ShorthandError> {
    let mut parser = Parser { input: input.chars().collect(), at: 0, from_file: false, read_file };
    parser.parameter().map(Short::Hash)
}

struct Parser<'a> {
    input: Vec<char>,
    at: usize,
    /// Whether the value being read follows `@=`.
    from_file: bool,
    read_file: ReadFile<'a>,
}

type Parsed<T> = Result<T, ShorthandError>;

impl Parser<'_> {
    /// `parameter = keyval *("," keyval)`
    fn parameter(&mut self) -> Parsed<Vec<(String, Short)>> {
        let mut pairs = vec![self.pair()?];
        while self.at < self.input.len() {
            let start = self.at;
            self.expect_spaced(',')?;
            let pair = self.pair()?;
            if pairs.iter().any(|(key, _)| *key == pair.0) {
                return Err(ShorthandError::Duplicate { key: pair.0, input: self.input.clone(), at: start + 1 });
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }

    /// `keyval = key ("=" / "@=") [values]`
    fn pair(&mut self) -> Parsed<(String, Short)> {
        let key = self.key_and_equals()?;
        let value = match self.current() {
            None => Short::Text(String::new()),
            Some('[') => self.list(0)?,
            Some('{') => self.hash(0)?,
            Some(_) => self.words()?,
        };
        Ok((key, value))
    }

    fn key_and_equals(&mut self) -> Parsed<String> {
        let start = self.at;
        while self.current().is_some_and(|c| c.is_ascii_alphanumeric() || "-_.#/:".contains(c)) {
            self.at += 1;
        }
        let key = self.input[start..self.at].iter().collect();
        self.skip_space();
        self.from_file = self.current() == Some('@');
        if self.from_file {
            self.at += 1;
        }
        self.expect_spaced('=')?;
        Ok(key)
    }

    /// One word, or the words of a list: `a=b` and `a=b,c`. In `a=b,c=d` the list ends before the word with the `=`.
    fn words(&mut self) -> Parsed<Short> {
        let first = self.first_word()?;
        self.skip_space();
        if self.current() != Some(',') {
            return Ok(first);
        }
        self.expect_spaced(',')?;
        let mut words = vec![first];
        loop {
            let word = match self.following_word() {
                // `a=b,` promises a word that never comes.
                Err(error @ ShorthandError::Expected { .. }) if self.current().is_none() => return Err(error),
                Err(ShorthandError::Expected { .. }) => {
                    self.back_to_comma();
                    break;
                }
                other => other?,
            };
            self.skip_space();
            match self.current() {
                None => {
                    words.push(word);
                    break;
                }
                Some(',') => {
                    words.push(word);
                    self.expect_spaced(',')?;
                }
                Some(_) => {
                    // The word is the next pair's key.
                    self.back_to_comma();
                    break;
                }
            }
        }
        Ok(if words.len() == 1 { words.remove(0) } else { Short::List(words) })
    }

    /// `[a,b]`, each a word, a list or a structure.
    fn list(&mut self, depth: usize) -> Parsed<Short> {
        self.expect_spaced('[')?;
        let mut items = Vec::new();
        while self.current() != Some(']') {
            items.push(self.nested(depth)?);
            self.separator(']')?;
        }
        self.at += 1;
        Ok(Short::List(items))
    }

    /// `{a=b,c=d}`; of two equal keys the later one counts.
    fn hash(&mut self, depth: usize) -> Parsed<Short> {
        self.expect_spaced('{')?;
        let mut pairs: Vec<(String, Short)> = Vec::new();
        while self.current() != Some('}') {
            let key = self.key_and_equals()?;
            let value = self.nested(depth)?;
            self.separator('}')?;
            match pairs.iter_mut().find(|(known, _)| *known == key) {
                Some(pair) => pair.1 = value,
                None => pairs.push((key, value)),
            }
        }
        self.at += 1;
        Ok(Short::Hash(pairs))
    }

    fn nested(&mut self, depth: usize) -> Parsed<Short> {
        match self.current() {
            Some('[' | '{') if depth == MAX_DEPTH => Err(ShorthandError::TooDeep),
            Some('[') => self.list(depth + 1),
            Some('{') => self.hash(depth + 1),
            _ => self.first_word(),
        }
    }

    /// Between two items: a comma, unless `end` stands here.
    fn separator(&mut self, end: char) -> Parsed<()> {
        self.skip_space();
        if self.current() != Some(end) {
            self.expect(',')?;
            self.skip_space();
        }
        Ok(())
    }

    /// The word after an `=`, which may hold further `=` and may be empty.
    fn first_word(&mut self) -> Parsed<Short> {
        match self.current() {
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            _ => match self.bare(|c| !matches!(c, '"' | '\'' | ',' | ']' | '}')) {
                Some(word) => self.resolve(word),
                None => Ok(Short::Text(String::new())),
            },
        }
    }

    /// A further word of a list: it holds no `=`, since then it is a key.
    fn following_word(&mut self) -> Parsed<Short> {
        match self.current() {
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            _ => match self.bare(|c| !matches!(c, '"' | '\'' | ',' | '=')) {
                Some(word) => self.resolve(word),
                None => Err(self.expected("<second>", "<none>")),
            },
        }
    }

    /// A word without quotes, its inner spaces kept and those at its end dropped; `None` if none starts here.
    fn bare(&mut self, follows: fn(char) -> bool) -> Option<String> {
        let starts =
            |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'' | ',' | '=' | '[' | '{');
        let start = self.at;
        let mut word = String::new();
        while let Some(c) = self.current() {
            if c == '\\' && self.input.get(self.at + 1) == Some(&',') {
                word.push(',');
                self.at += 2;
                continue;
            }
            let fits = if self.at == start { starts(c) } else { follows(c) && (c.is_whitespace() || !c.is_control()) };
            if !fits {
                break;
            }
            word.push(c);
            self.at += 1;
        }
        word.truncate(word.trim_end().len());
        (self.at > start).then_some(word)
    }

    /// A quoted word. `\'` is a quote inside it, unless no other quote would end it.
    fn quoted(&mut self, quote: char) -> Parsed<Short> {
        let start = self.at + 1;
        let (mut end, mut last_escaped, mut at) = (None, None, start);
        while let Some(c) = self.input.get(at) {
            if *c == '\\' && self.input.get(at + 1) == Some(&quote) {
                last_escaped = Some(at + 1);
                at += 1;
            } else if *c == quote {
                end = Some(at);
                break;
            }
            at += 1;
        }
        let Some(end) = end.or(last_escaped) else {
            let name = if quote == '"' { "<double quoted>" } else { "<singled quoted>" };
            return Err(self.expected(name, "<none>"));
        };
        let raw: String = self.input[start..end].iter().collect();
        self.at = end + 1;
        self.resolve(raw.replace(&format!("\\{quote}"), &quote.to_string()).replace("\\\\", "\\"))
    }

    fn resolve(&self, word: String) -> Parsed<Short> {
        if self.from_file
            && let Some(contents) = (self.read_file)(&word).map_err(ShorthandError::File)?
        {
            return Ok(contents);
        }
        Ok(Short::Text(word))
    }

    fn current(&self) -> Option<char> {
        self.input.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.current().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Goes back to the nearest comma, this place included, escaped or not, as the AWS CLI does.
    fn back_to_comma(&mut self) {
        let seen = self.input.len().min(self.at + 1);
        self.at = self.input[..seen].iter().rposition(|c| *c == ',').unwrap_or(0);
    }

    fn expect(&mut self, wanted: char) -> Parsed<()> {
        match self.current() {
            Some(found) if found == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(found) => Err(self.expected(wanted, found)),
            None => Err(self.expected(wanted, "EOF")),
        }
    }

    fn expect_spaced(&mut self, wanted: char) -> Parsed<()> {
        self.skip_space();
        self.expect(wanted)?;
        self.skip_space();
        Ok(())
    }

    fn expected(&self, wanted: impl fmt::Display, found: impl fmt::Display) -> ShorthandError {
        ShorthandError::Expected {
            wanted: wanted.to_string(),
            found: found.to_string(),
            input: self.input.clone(),
            at: self.at,
        }
    }
}

impl fmt::Display for ShorthandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expected { wanted, found, input, at } => {
                write!(f, "Expected: '{wanted}', received: '{found}' for input:\n{}", pointed(input, *at))
            }
            Self::Duplicate { key, input, at } => write!(
                f,
                "Second instance of key \"{key}\" encountered for input:\n{}\nThis is often because there is a preceding \",\" instead of a space.",
                pointed(input, *at)
            ),
            Self::TooDeep => write!(f, "lists and structures are nested deeper than {MAX_DEPTH}"),
            Self::File(message) => f.write_str(message),
        }
    }
}

/// The input with a caret below the place `at`.
fn pointed(input: &[char], at: usize) -> String {
    let line_start = input[..at].iter().rposition(|c| *c == '\n').map_or(0, |newline| newline + 1);
    let line_end = input[at..].iter().position(|c| *c == '\n').map_or(input.len(), |newline| at + newline);
    let text = |from: usize, to: usize| input[from..to].iter().collect::<String>();
    format!("{}\n{}^{}", text(0, line_end), " ".repeat(at - line_start), text(line_end, input.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn json(short: Short) -> Value {
        match short {
            Short::Text(text) => Value::String(text),
            Short::Bytes(_) => panic!("no file is read here"),
            Short::List(items) => Value::Array(items.into_iter().map(json).collect()),
            Short::Hash(pairs) => Value::Object(pairs.into_iter().map(|(key, value)| (key, json(value))).collect()),
        }
    }

    fn parse_alone(input: &str) -> Parsed<Value> {
        parse(input, &|_| Ok(None)).map(json)
    }

    /// `fixtures/aws-cli/shorthand.json` was written by the AWS CLI's own parser: see the note in it.
    #[test]
    fn every_expression_is_read_as_the_aws_cli_reads_it() {
        let recorded: Map<String, Value> =
            serde_json::from_str(include_str!("../../fixtures/aws-cli/shorthand.json")).unwrap();
        let cases = recorded["cases"].as_array().unwrap();
        assert!(cases.len() > 500);
        for case in cases {
            let input = case["input"].as_str().unwrap();
            match (parse_alone(input), &case["value"]) {
                (Ok(value), expected) if !expected.is_null() => assert_eq!(value, *expected, "{input}"),
                (Err(error), Value::Null) => {
                    let first_line = error.to_string().lines().next().unwrap().to_owned();
                    assert_eq!(first_line, case["error"].as_str().unwrap(), "{input}");
                }
                (found, expected) => panic!("{input}: {found:?}, and the AWS CLI has {expected}"),
            }
        }
    }

    #[test]
    fn an_error_points_at_its_place() {
        let error = parse_alone("TagKey:a,TagValue").unwrap_err();
        assert_eq!(error.to_string(), "Expected: '=', received: ',' for input:\nTagKey:a,TagValue\n        ^");
        let error = parse_alone("a=1,\nb==\"\nc=2").unwrap_err();
        assert!(error.to_string().contains("b==\"\n"), "{error}");
        assert_eq!(parse_alone(&format!("a={}", "[".repeat(100_000))), Err(ShorthandError::TooDeep));
    }

    #[test]
    fn files_are_read_after_an_at_sign_only() {
        let read = |word: &str| match word.strip_prefix("file://") {
            Some("gone") => Err("no such file".to_owned()),
            Some(name) => Ok(Some(Short::Text(format!("<{name}>")))),
            None => Ok(None),
        };
        let read = |input| parse(input, &read).map(json);
        assert_eq!(read("a@=file://x,b=file://y").unwrap(), serde_json::json!({"a": "<x>", "b": "file://y"}));
        assert_eq!(read("a={b@=file://x,c=file://y}").unwrap()["a"]["b"], "<x>");
        assert_eq!(read("a@=file://gone"), Err(ShorthandError::File("no such file".to_owned())));
    }

    proptest! {
        #[test]
        fn nothing_panics(input in "\\PC{0,40}|[a-c=,\\[\\]{}@'\"\\\\ \n]{0,60}") {
            if let Err(error) = parse_alone(&input) {
                let _ = error.to_string();
            }
        }
    }
}

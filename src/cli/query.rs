//! `--query`: JMESPath over a result.

use std::collections::BTreeMap;
use std::rc::Rc;

use jmespath::ast::Ast;
use serde_json::{Map, Value};

use super::CliError;

/// A compiled JMESPath expression.
#[derive(Debug)]
pub struct Query(jmespath::Expression<'static>);

impl Query {
    /// Compiles `expression`.
    ///
    /// # Errors
    /// Usage errors: what does not parse, and what has more than 256 operators. The evaluator descends once for each,
    /// and one that is deep enough would overflow the stack.
    pub fn new(expression: &str) -> Result<Self, CliError> {
        let refused = |error: &dyn std::fmt::Display| {
            CliError::value(format!(
                "Bad value for --query {}: {error}",
                expression.chars().take(200).collect::<String>()
            ))
        };
        let (expression, operators) = with_strict_literals(expression);
        if operators > MAX_OPERATORS {
            return Err(refused(&format!("it has {operators} operators, and at most {MAX_OPERATORS} are taken")));
        }
        jmespath::compile(&expression).map(Self).map_err(|error| refused(&error))
    }

    /// What the expression finds in `data`.
    ///
    /// The evaluator keeps objects sorted by name. Members that the result shares with `data`, and those that the
    /// expression names in a multi-select, come in the order they have there, as in the AWS CLI.
    pub fn search(&self, data: &Value) -> Result<Value, CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::value(format!("Bad value for --query: {error}"));
        let found = self.0.search(data).map_err(|error| failed(&error))?;
        let mut found = serde_json::to_value(Rc::as_ref(&found)).map_err(|error| failed(&error))?;
        let mut orders = Orders::default();
        orders.learn_from_data(data);
        orders.learn_from_query(self.0.as_ast());
        orders.restore(&mut found);
        Ok(found)
    }
}

const MAX_OPERATORS: usize = 256;

/// The expression with each literal as JSON, and how many operators it has. The AWS CLI takes `` `word` `` for
/// `` `"word"` ``, as JMESPath once did, and its documentation is full of it.
fn with_strict_literals(expression: &str) -> (String, usize) {
    let (mut strict, mut operators) = (String::with_capacity(expression.len()), 0);
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '\'' | '"' | '`' => quoted_length(rest, c),
            _ => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        if "([{!.|&=<>".contains(c) {
            operators += 1;
        }
        let literal = token.strip_prefix('`').and_then(|token| token.strip_suffix('`'));
        match literal.map(|literal| literal.replace("\\`", "`")) {
            Some(literal) if serde_json::from_str::<serde::de::IgnoredAny>(&literal).is_err() => {
                let word = Value::from(literal.trim_start()).to_string();
                strict.extend(["`", &word.replace('`', "\\`"), "`"]);
            }
            _ => strict.push_str(token),
        }
    }
    (strict, operators)
}

/// Bytes of the quoted token at the start of `text`, up to the end where its closing `quote` is missing.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// For each set of member names (sorted), the order in which it was last seen.
#[derive(Default)]
struct Orders(BTreeMap<Vec<String>, Vec<String>>);

impl Orders {
    fn learn(&mut self, names: Vec<String>) {
        let mut sorted = names.clone();
        sorted.sort();
        self.0.insert(sorted, names);
    }

    fn learn_from_data(&mut self, data: &Value) {
        match data {
            Value::Array(items) => items.iter().for_each(|item| self.learn_from_data(item)),
            Value::Object(members) => {
                members.values().for_each(|member| self.learn_from_data(member));
                self.learn(members.keys().cloned().collect());
            }
            _ => {}
        }
    }

    fn learn_from_query(&mut self, ast: &Ast) {
        match ast {
            Ast::MultiHash { elements, .. } => {
                for pair in elements {
                    self.learn_from_query(&pair.value);
                }
                self.learn(elements.iter().map(|pair| pair.key.clone()).collect());
            }
            Ast::MultiList { elements, .. } | Ast::Function { args: elements, .. } => {
                for element in elements {
                    self.learn_from_query(element);
                }
            }
            Ast::Comparison { lhs, rhs, .. }
            | Ast::Projection { lhs, rhs, .. }
            | Ast::And { lhs, rhs, .. }
            | Ast::Or { lhs, rhs, .. }
            | Ast::Subexpr { lhs, rhs, .. }
            | Ast::Condition { predicate: lhs, then: rhs, .. } => {
                self.learn_from_query(lhs);
                self.learn_from_query(rhs);
            }
            Ast::Expref { ast: node, .. }
            | Ast::Flatten { node, .. }
            | Ast::Not { node, .. }
            | Ast::ObjectValues { node, .. } => self.learn_from_query(node),
            Ast::Identity { .. } | Ast::Field { .. } | Ast::Index { .. } | Ast::Literal { .. } | Ast::Slice { .. } => {}
        }
    }

    fn restore(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.restore(item)),
            Value::Object(members) => {
                members.values_mut().for_each(|member| self.restore(member));
                let mut sorted: Vec<_> = members.keys().cloned().collect();
                sorted.sort();
                if let Some(order) = self.0.get(&sorted) {
                    let ordered: Map<_, _> = order.iter().filter_map(|name| members.remove_entry(name)).collect();
                    *members = ordered;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn search(expression: &str, data: &Value) -> String {
        Query::new(expression).unwrap().search(data).unwrap().to_string()
    }

    #[test]
    fn members_keep_their_order() {
        let data = json!({"Keys": [{"Zone": 1, "Arn": "a"}, {"Zone": 2, "Arn": "b"}]});
        assert_eq!(search("Keys[0]", &data), r#"{"Zone":1,"Arn":"a"}"#);
        assert_eq!(search("Keys[].{Z: Zone, A: Arn}", &data), r#"[{"Z":1,"A":"a"},{"Z":2,"A":"b"}]"#);
        assert_eq!(search("Keys[?Zone==`2`].Arn | [0]", &data), r#""b""#);
        assert_eq!(search("length(Keys)", &data), "2");
        assert_eq!(search("Nothing", &data), "null");
    }

    #[test]
    fn a_literal_may_be_a_bare_word() {
        let data = json!({"Keys": [{"State": "Enabled"}, {"State": "a`b"}], "Five": 5});
        assert_eq!(search("Keys[?State==`Enabled`] | length(@)", &data), "1");
        assert_eq!(search("Keys[?State==`\"Enabled\"`] | length(@)", &data), "1");
        assert_eq!(search("Keys[?State=='Enabled'] | length(@)", &data), "1");
        assert_eq!(search(r"Keys[?State==`a\`b`] | length(@)", &data), "1");
        assert_eq!(search("Five == `5`", &data), "true");
        assert_eq!(search("'`x`'", &data), r#""`x`""#);
    }

    #[test]
    fn a_deep_expression_is_refused() {
        for part in ["(", "!", "[", "{a:", "a.", "a|", "a||", "abs(", "[]", "a==", "&"] {
            let error = Query::new(&format!("{}a", part.repeat(100_000))).unwrap_err();
            assert!(error.report(false).contains("operators"), "{part}");
            // What passes the bound may be no JMESPath, but it ends.
            let _ = Query::new(&format!("{}a", part.repeat(120))).map(|query| query.search(&json!({"a": 1})));
        }
    }

    #[test]
    fn a_bad_expression_is_a_usage_error() {
        let error = Query::new("Keys[").unwrap_err();
        assert_eq!(error.exit_code(), 252);
        assert!(error.report(false).contains("Bad value for --query Keys["));
        let error = Query::new("length(@)").unwrap().search(&json!(1)).unwrap_err();
        assert_eq!(error.exit_code(), 252);
    }
}

//! How results are printed: JSON, tables, or lines of tab-separated text.

mod table;
mod text;

use std::io::Write;

use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::{CliError, Output};

/// Writes `result` to `out`. `title` is the operation's name, the heading of a table; `width` is that of the terminal,
/// if there is one. Like the AWS CLI, an empty object prints nothing at all.
pub(super) fn render(
    result: &Value,
    output: Output,
    title: &str,
    width: Option<u16>,
    out: &mut impl Write,
) -> Result<(), CliError> {
    match output {
        Output::Json => {
            if *result != Value::Object(serde_json::Map::new()) {
                let mut serializer = Serializer::with_formatter(&mut *out, PrettyFormatter::with_indent(b"    "));
                result.serialize(&mut serializer).map_err(std::io::Error::from)?;
                out.write_all(b"\n")?;
            }
        }
        Output::Text => text::write(result, out)?,
        Output::Table => table::write(result, title, width, out)?,
    }
    Ok(())
}

/// A scalar as Python's `str` has it, which is what the AWS CLI prints in text and tables.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rendered(result: &Value, output: Output) -> String {
        let mut out = Vec::new();
        render(result, output, "Title", None, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// `fixtures/aws-cli/output.json` was written by the AWS CLI's own formatters: see the note in it.
    #[test]
    fn json_and_text_are_those_of_the_aws_cli() {
        let recorded: Value = serde_json::from_str(include_str!("../../../fixtures/aws-cli/output.json")).unwrap();
        let cases = recorded["cases"].as_array().unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            assert_eq!(rendered(&case["data"], Output::Json), case["json"], "{}", case["data"]);
            assert_eq!(rendered(&case["data"], Output::Text), case["text"], "{}", case["data"]);
            // A table has the same words in the same order; where columns end differs. The AWS CLI prints no cell for
            // a lone scalar and fails on rows of different lengths.
            let Some(table) = case["table"].as_str().filter(|_| !is_scalar(&case["data"])) else { continue };
            let words = |text: &str| text.split(['|', '+', '-', '\n', ' ']).collect::<String>();
            let ours = rendered(&case["data"], Output::Table);
            assert_eq!(words(&ours), words(table), "\n{ours}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((".{0,8}", inner), 0..5).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_result_can_be_printed(result in json(), width in proptest::option::of(0u16..120)) {
            for output in [Output::Json, Output::Text, Output::Table] {
                let mut out = Vec::new();
                render(&result, output, "Title", width, &mut out).unwrap();
                let text = String::from_utf8(out).unwrap();
                if output == Output::Table {
                    prop_assert!(text.lines().all(|line| !line.contains(char::is_control)), "{text:?}");
                }
                if output == Output::Json && !text.is_empty() {
                    prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), result.clone());
                }
            }
        }
    }
}

//! `--output text`: a line per object, its scalars sorted by name and separated by tabs, the name of the section in
//! upper case in front; nested objects follow on lines of their own. As the AWS CLI has it, so that scripts that cut
//! columns go on working.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::{Map, Value};

use super::{is_scalar, word};

pub(super) fn write(value: &Value, out: &mut impl Write) -> io::Result<()> {
    section(value, None, None, out)
}

fn section(
    value: &Value,
    name: Option<&str>,
    columns: Option<&BTreeSet<&String>>,
    out: &mut impl Write,
) -> io::Result<()> {
    match value {
        Value::Object(members) => object(members, name, columns, out),
        Value::Array(items) => list(items, name, out),
        scalar => writeln!(out, "{}", word(scalar)),
    }
}

/// One line of the object's scalars. In a list every object has the columns of all.
fn object(
    members: &Map<String, Value>,
    name: Option<&str>,
    columns: Option<&BTreeSet<&String>>,
    out: &mut impl Write,
) -> io::Result<()> {
    let own = members.iter().filter(|(_, value)| is_scalar(value)).map(|(key, _)| key).collect();
    let columns = columns.unwrap_or(&own);
    let mut words: Vec<_> =
        columns.iter().map(|column| members.get(column.as_str()).map_or_else(String::new, word)).collect();
    if !words.is_empty() {
        words.splice(0..0, name.map(str::to_uppercase));
        writeln!(out, "{}", words.join("\t"))?;
    }
    let below: BTreeSet<_> = members.keys().filter(|key| !columns.contains(key)).collect();
    for key in below {
        section(&members[key.as_str()], Some(key), None, out)?;
    }
    Ok(())
}

fn list(items: &[Value], name: Option<&str>, out: &mut impl Write) -> io::Result<()> {
    if items.iter().any(Value::is_object) {
        let members = items.iter().filter_map(Value::as_object).flatten();
        let columns = members.filter(|(_, value)| is_scalar(value)).map(|(key, _)| key).collect();
        return items.iter().try_for_each(|item| section(item, name, Some(&columns), out));
    }
    let scalars: Vec<_> = items.iter().filter(|item| is_scalar(item)).map(word).collect();
    match name.map(str::to_uppercase) {
        Some(name) => scalars.iter().try_for_each(|word| writeln!(out, "{name}\t{word}"))?,
        None if scalars.is_empty() => {}
        None => writeln!(out, "{}", scalars.join("\t"))?,
    }
    items.iter().filter(|item| !is_scalar(item)).try_for_each(|item| section(item, name, None, out))
}

//! Cases that say what a command must come to: one JSON file each, so that a policy has tests as a program has.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::Explanation;

/// A case file could be anything; none that a person writes is larger.
const MAX_CASE_BYTES: u64 = 4 << 20;

/// What a case file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// A folder of what the AWS CLI printed, relative to the case's file; without it the home is the state.
    pub account_state: Option<PathBuf>,
    /// A key policy to try: the policy itself, or `file://` and a path relative to the case's file.
    pub policy: Option<Value>,
    /// Who calls.
    pub principal: Option<String>,
    /// The command: a line, or its words.
    pub command: Command,
    /// What it must come to.
    pub expect: Expect,
}

/// A command as one line or as words.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Command {
    /// Split at white space; `'…'` and `"…"` keep what is between them together.
    Line(String),
    /// As they are.
    Words(Vec<String>),
}

impl Command {
    /// Its words.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Line(line) => split(line),
            Self::Words(words) => words.clone(),
        }
    }
}

/// What a case must come to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// `allowed`, `refused` or `undetermined`.
    pub outcome: String,
    /// The code of the error that the caller sees.
    pub error: Option<String>,
    /// What decided: `key policy`, `grant`, `key state`, ...
    pub decided_by: Option<String>,
}

/// How one case went.
#[derive(Debug)]
pub struct Ran {
    /// The case's name, or its file's where it could not be read.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// How long it took.
    pub took: Duration,
    /// What was not as expected; `None` for a case that is as it says.
    pub failure: Option<String>,
}

/// Runs every `*.json` of `dir`, in the order of their names, each through `explain`.
///
/// # Errors
/// If the folder cannot be read or holds no case.
pub fn run(
    dir: &Path,
    mut explain: impl FnMut(&Case, &Path) -> Result<Explanation, String>,
) -> Result<Vec<Ran>, std::io::Error> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .filter(|path| path.as_ref().map_or(true, |path| path.extension().is_some_and(|found| found == "json")))
        .collect::<Result<_, _>>()?;
    files.sort();
    if files.is_empty() {
        let message = format!("{} holds no case: a case is a file NAME.json", dir.display());
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, message));
    }
    let run = |file: PathBuf| {
        let began = Instant::now();
        let (name, failure) = match read(&file) {
            Ok(case) => {
                let failure = explain(&case, dir).map_or_else(Some, |explanation| differs(&case.expect, &explanation));
                (case.name, failure)
            }
            Err(error) => (file.file_name().unwrap_or_default().to_string_lossy().into_owned(), Some(error)),
        };
        Ran { name, file, took: began.elapsed(), failure }
    };
    Ok(files.into_iter().map(run).collect())
}

fn read(file: &Path) -> Result<Case, String> {
    let length = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > MAX_CASE_BYTES {
        return Err(format!("a case of {length} bytes is no case: {MAX_CASE_BYTES} at the most"));
    }
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let case: Case = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    match case.expect.outcome.as_str() {
        "allowed" | "refused" | "undetermined" => Ok(case),
        other => Err(format!("expect.outcome '{other}' is none of allowed, refused, undetermined")),
    }
}

fn differs(expect: &Expect, found: &Explanation) -> Option<String> {
    let error = found.sight.as_ref().and_then(|sight| sight.error.as_deref());
    let mut differences = Vec::new();
    let mut compare = |what: &str, wanted: &str, found: Option<&str>| {
        if found != Some(wanted) {
            differences.push(format!("{what}: expected {wanted}, found {}", found.unwrap_or("none")));
        }
    };
    compare("outcome", &expect.outcome, Some(found.verdict.name()));
    if let Some(wanted) = &expect.error {
        compare("error", wanted, error);
    }
    if let Some(wanted) = &expect.decided_by {
        compare("decided_by", wanted, found.decided_by.as_deref());
    }
    (!differences.is_empty()).then(|| differences.join("; "))
}

fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The cases as a table of lines, and how many failed.
pub fn text(ran: &[Ran]) -> String {
    let mut out = String::new();
    for case in ran {
        match &case.failure {
            None => _ = writeln!(out, "ok      {}", case.name),
            Some(failure) => _ = writeln!(out, "FAILED  {} ({}): {failure}", case.name, case.file.display()),
        }
    }
    let failed = ran.iter().filter(|case| case.failure.is_some()).count();
    let _ = writeln!(out, "{} cases, {failed} failed", ran.len());
    out
}

/// The cases for programs.
pub fn to_json(ran: &[Ran]) -> Value {
    let case = |case: &Ran| json!({"name": case.name, "file": case.file, "failure": case.failure});
    json!({
        "cases": ran.iter().map(case).collect::<Vec<_>>(),
        "failed": ran.iter().filter(|case| case.failure.is_some()).count(),
    })
}

/// The cases as `JUnit` XML, which continuous integration systems show.
pub fn junit(ran: &[Ran]) -> String {
    let failed = ran.iter().filter(|case| case.failure.is_some()).count();
    let seconds = |took: Duration| format!("{:.3}", took.as_secs_f64());
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"blockseal explain\" tests=\"{}\" failures=\"{failed}\" time=\"{}\">\n",
        ran.len(),
        seconds(ran.iter().map(|case| case.took).sum()),
    );
    for case in ran {
        let (name, file, took) = (escaped(&case.name), escaped(&case.file.to_string_lossy()), seconds(case.took));
        let _ = write!(out, "  <testcase name=\"{name}\" classname=\"explain\" file=\"{file}\" time=\"{took}\"");
        let _ = match &case.failure {
            None => writeln!(out, "/>"),
            Some(failure) => writeln!(out, ">\n    <failure message=\"{}\"/>\n  </testcase>", escaped(failure)),
        };
    }
    out.push_str("</testsuite>\n");
    out
}

/// `text` inside an XML attribute; letters that XML 1.0 cannot hold become question marks.
fn escaped(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\n' => "&#10;".to_owned(),
            '\t' => "&#9;".to_owned(),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => "?".to_owned(),
            letter => letter.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_person_means_it() {
        assert_eq!(
            split(r#"kms  encrypt --plaintext '' --encryption-context '{"a": "b c"}' x"y"z"#),
            ["kms", "encrypt", "--plaintext", "", "--encryption-context", r#"{"a": "b c"}"#, "xyz"]
        );
        assert!(split(" \t").is_empty());
    }

    #[test]
    fn a_failure_is_told_in_every_form() {
        let ran = [
            Ran { name: "a".to_owned(), file: "a.json".into(), took: Duration::ZERO, failure: None },
            Ran {
                name: "<b> & \"c\"\u{1}".to_owned(),
                file: "b.json".into(),
                took: Duration::from_millis(1500),
                failure: Some("outcome: expected allowed, found refused".to_owned()),
            },
        ];
        assert!(text(&ran).ends_with("2 cases, 1 failed\n"));
        let xml = junit(&ran);
        assert!(xml.contains("tests=\"2\" failures=\"1\" time=\"1.500\""), "{xml}");
        assert!(xml.contains("name=\"&lt;b&gt; &amp; &quot;c&quot;?\""), "{xml}");
        assert_eq!(to_json(&ran)["failed"], 1);
    }

    #[test]
    fn what_is_no_case_is_a_failure_by_its_files_name() {
        let dir = tempfile::tempdir().unwrap();
        let never = |_: &Case, _: &Path| -> Result<Explanation, String> { panic!("there is nothing to explain") };
        assert!(run(dir.path(), never).is_err());
        fs::write(dir.path().join("x.json"), "{\"name\": 1}").unwrap();
        fs::write(
            dir.path().join("y.json"),
            r#"{"name": "y", "command": "kms list-keys", "expect": {"outcome": "perhaps"}}"#,
        )
        .unwrap();
        let ran = run(dir.path(), never).unwrap();
        assert_eq!(ran.len(), 2);
        assert!(ran[0].failure.is_some() && ran[0].name == "x.json");
        assert!(ran[1].failure.as_ref().unwrap().contains("perhaps"));
    }
}

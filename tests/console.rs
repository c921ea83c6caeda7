//! Console sessions as tests: every line that starts with `$ ` is run by a shell, and what it prints must be what the
//! file says.
//!
//! A session runs in a fresh folder with a fresh home, and variables set in one command are there in the next. What
//! cannot be known beforehand is replaced by a placeholder: ids, times, key material. Standard output comes first, then
//! standard error with `! ` before each line, then `? N` if the exit code is not 0.
//!
//! `SNAPSHOTS=overwrite cargo test` writes the files anew.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::{Captures, Regex};
use snapbox::assert::Action;
use snapbox::{Assert, Data};

/// Runs the session in `file` and compares.
pub(crate) fn check(file: &Path) {
    let expected = std::fs::read_to_string(file).unwrap();
    let session = Session::new();
    let mut actual = String::new();
    let mut lines = expected.lines().peekable();
    while let Some(line) = lines.next() {
        actual.push_str(line);
        actual.push('\n');
        let Some(command) = line.strip_prefix("$ ") else { continue };
        // What follows, down to the next command or comment, is what it printed when the file was written.
        while lines.next_if(|line| !line.starts_with("$ ") && !line.starts_with("# ")).is_some() {}
        actual.push_str(&session.run(command));
        if lines.peek().is_some() {
            actual.push('\n');
        }
    }
    let overwrite = std::env::var("SNAPSHOTS").is_ok_and(|action| action == "overwrite");
    let action = if overwrite { Action::Overwrite } else { Action::Verify };
    Assert::new().action(action).normalize_paths(false).eq(actual, Data::read_from(file, None));
}

struct Session {
    base: tempfile::TempDir,
}

impl Session {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("work")).unwrap();
        Self { base }
    }

    fn run(&self, command: &str) -> String {
        let bin = Path::new(env!("CARGO_BIN_EXE_blockseal")).parent().unwrap();
        let script = format!("[ -f ../env ] && . ../env\nset -a\n{command}\ncode=$?\nexport -p > ../env\nexit $code\n");
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(self.base.path().join("work"))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("HOME", self.base.path())
            .env("BLOCKSEAL_HOME", self.base.path().join("home"))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let mut shown = self.redact(&String::from_utf8(output.stdout).unwrap());
        if !shown.is_empty() && !shown.ends_with('\n') {
            shown.push('\n');
        }
        for line in self.redact(&String::from_utf8(output.stderr).unwrap()).lines() {
            shown.push_str(if line.is_empty() { "!" } else { "! " });
            shown.push_str(line);
            shown.push('\n');
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => writeln!(shown, "? {code}").unwrap(),
            None => shown.push_str("? killed by a signal\n"),
        }
        shown
    }

    fn redact(&self, text: &str) -> String {
        let base = self.base.path().canonicalize().unwrap();
        let text = text.replace(base.to_str().unwrap(), "[DIR]");
        REDACTIONS.iter().fold(text, |text, (pattern, placeholder)| {
            let replace = |found: &Captures<'_>| format!("{}[{placeholder}]", found.get(1).map_or("", |m| m.as_str()));
            Regex::new(pattern).unwrap().replace_all(&text, replace).into_owned()
        })
    }
}

/// What cannot be known beforehand. A first group is kept.
const REDACTIONS: &[(&str, &str)] = &[
    ("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\bvol-[0-9a-f]{17}\b", "VOLUME"),
    (r"\bi-[0-9a-f]{17}\b", "INSTANCE"),
    (r"\br-[0-9a-f]{17}\b", "RESERVATION"),
    (r"User initiated \([0-9: -]+ GMT\)", "USER INITIATED"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|\+00:00)", "TIME"),
    (r#"("(?:Plaintext|CiphertextBlob|GrantToken|SecretAccessKey|SessionToken)": ")[A-Za-z0-9+/=_.-]+"#, "BASE64"),
    (r"\b(AKIA|ASIA)[A-Z2-7]{16}\b", "ID"),
    ("\\b[0-9a-f]{64}\\b", "HEX"),
];

//! Every console block of the documentation, run as it stands.
//!
//! A block that is fenced as `console` is a terminal: a line `$ COMMAND` (continued by lines `> ...`) is run by a shell, and what
//! follows up to the next command is what it prints, on either stream. A line `? CODE` right below a command says that it ends with
//! that exit code instead of 0. All blocks of a file are one session: they share a home, and the shell's folder and variables are
//! in the next command what the one before left.
//!
//! Ids, dates and measured figures differ from run to run. They are recognised by their shape and need not be equal, but an id
//! is bound to its counterpart the first time it is seen: later commands get the real one, later output must show the same one
//! again. `[..]` in a line stands for anything, and a line `...` for any number of lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use regex::Regex;

use crate::harness::{Home, program, root};

/// Commands that set a machine up. The gate runs them itself, so here they only have to be spelled as they are there.
const SET_UP: [&str; 2] = ["tests/run", "cargo run --release -- demo"];

/// Runs `$2` with the folder and the variables that `$1` keeps. One pipe for both streams keeps their order, as a terminal
/// would.
const SESSION: &str = r#"exec 2>&1
session=$1 command=$2
if [ -f "$session" ]; then . "$session"; fi
set -a
eval "$command"
code=$?
{ export -p; printf 'cd "%s"\n' "$PWD"; } > "$session"
exit $code"#;

/// One command of a page and what the page says it prints.
#[derive(Debug, PartialEq)]
struct Step {
    line: usize,
    command: String,
    code: i32,
    output: Vec<String>,
}

/// The steps of all console blocks of a page, in order.
fn steps(page: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut fence: Option<String> = None;
    let mut first_in_block = 0;
    for (index, line) in page.lines().enumerate() {
        let line_number = index + 1;
        match &fence {
            None => {
                if let Some(info) = line.strip_prefix("```") {
                    if info.starts_with("console") && info != "console" {
                        return Err(format!("line {line_number}: `{info}`: a console block has no options"));
                    }
                    fence = Some(info.to_owned());
                    first_in_block = steps.len();
                }
            }
            Some(_) if line == "```" => {
                while steps.last().is_some_and(|step| step.output.last().is_some_and(String::is_empty)) {
                    steps.last_mut().and_then(|step| step.output.pop());
                }
                fence = None;
            }
            Some(info) if info == "console" => {
                if let Some(command) = line.strip_prefix("$ ") {
                    steps.push(Step { line: line_number, command: command.into(), code: 0, output: Vec::new() });
                } else if steps.len() == first_in_block {
                    return Err(format!("line {line_number}: a console block starts with a command"));
                } else if let Some(step) = steps.last_mut() {
                    match (line.strip_prefix("> "), line.strip_prefix("? ").and_then(|code| code.parse().ok())) {
                        (Some(more), _) if step.output.is_empty() => {
                            step.command.push('\n');
                            step.command.push_str(more);
                        }
                        (_, Some(code)) if step.output.is_empty() => step.code = code,
                        _ => step.output.push(line.trim_end().to_owned()),
                    }
                }
            }
            Some(_) => {}
        }
    }
    if fence.is_some() { Err("a block is not closed".into()) } else { Ok(steps) }
}

/// What differs from run to run: the bound kinds are names of things, the others are only shapes.
static VARYING: LazyLock<Regex> = LazyLock::new(|| {
    let bound = [
        r"(?:vol|snap|i|r)-[0-9a-f]{17}\b",
        r"\bdb-[A-Z2-7]{26}\b",
        r"\b(?:mrk-[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b",
        r"\b[0-9a-f]{32,}\b",
        r"[A-Za-z0-9+/]{40,}=*",
        r"/tmp/[A-Za-z0-9._-]+",
    ];
    let free = [
        r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})?)?",
        r"\b\d{10}\.\d+\b",
        r"\b\d+(?:\.\d+)? ?(?:[KMG]i?B/s|[KM]?sectors/s|ns|µs|us|ms|s|min)\b",
    ];
    Regex::new(&format!("(?<bound>{})|(?<free>{})", bound.join("|"), free.join("|"))).unwrap()
});

/// Which real thing each of the page's names stands for.
#[derive(Default)]
struct Names {
    real: BTreeMap<String, String>,
}

impl Names {
    /// A command of the page with the real names in it.
    fn in_command(&self, command: &str) -> String {
        let replaced = VARYING.replace_all(command, |found: &regex::Captures<'_>| {
            self.real.get(&found[0]).cloned().unwrap_or_else(|| found[0].to_owned())
        });
        replaced.into_owned()
    }

    /// Whether a line of the page stands for a printed line; binds the names in it if so.
    fn line_matches(&mut self, page: &str, printed: &str) -> bool {
        let mut pattern = String::from("^");
        let mut groups = Vec::new();
        let literal = |pattern: &mut String, text: &str| {
            let parts: Vec<String> = text.split("[..]").map(regex::escape).collect();
            pattern.push_str(&parts.join(".*"));
        };
        let mut at = 0;
        for found in VARYING.captures_iter(page) {
            let whole = found.get(0).unwrap();
            literal(&mut pattern, &page[at..whole.start()]);
            at = whole.end();
            if found.name("free").is_some() {
                pattern.push_str(r"[0-9][0-9A-Za-z.:+/µ -]*?");
            } else if let Some(real) = self.real.get(whole.as_str()) {
                pattern.push_str(&regex::escape(real));
            } else if let Some(known) = groups.iter().position(|name| name == whole.as_str()) {
                // The same new name twice in a line: checked against the first one below.
                let _ = write!(pattern, "(?<again{known}_{at}>[A-Za-z0-9+/=._-]+?)");
            } else {
                let _ = write!(pattern, "(?<name{}>[A-Za-z0-9+/=._-]+?)", groups.len());
                groups.push(whole.as_str().to_owned());
            }
        }
        literal(&mut pattern, &page[at..]);
        pattern.push('$');
        let regex = Regex::new(&pattern).unwrap();
        let Some(found) = regex.captures(printed) else { return false };
        let real: Vec<&str> = (0..groups.len()).map(|index| &found[format!("name{index}").as_str()]).collect();
        let same_kind = groups.iter().zip(&real).all(|(page, real)| shape(page) == shape(real));
        let consistent = regex.capture_names().flatten().filter_map(|name| Some((name, name.strip_prefix("again")?)));
        let consistent =
            consistent.map(|(name, known)| (name, known.split('_').next().unwrap().parse::<usize>().unwrap()));
        if !same_kind || !consistent.into_iter().all(|(name, known)| &found[name] == real[known]) {
            return false;
        }
        self.real.extend(groups.iter().cloned().zip(real.into_iter().map(str::to_owned)));
        true
    }

    /// Whether what the page shows stands for what was printed.
    fn output_matches(&mut self, page: &[String], printed: &[&str]) -> bool {
        match page.split_first() {
            None => printed.is_empty(),
            Some((first, rest)) if first == "..." => {
                (0..=printed.len()).any(|skipped| self.output_matches(rest, &printed[skipped..]))
            }
            Some((first, rest)) => {
                let known = self.real.clone();
                let matched = !printed.is_empty()
                    && self.line_matches(first, printed[0])
                    && self.output_matches(rest, &printed[1..]);
                if !matched {
                    self.real = known;
                }
                matched
            }
        }
    }
}

/// What kind of name it is: what stands before the first digit or dash, or that it is one long string.
fn shape(name: &str) -> &str {
    ["vol-", "snap-", "i-", "r-", "db-", "mrk-", "/tmp/"]
        .into_iter()
        .find(|start| name.starts_with(start))
        .unwrap_or("")
}

/// Runs a page; the error says what differs.
fn run_page(page: &str) -> Result<usize, String> {
    let home = Home::new();
    let bin = home.scratch().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(program(), bin.join("blockseal")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let folder = home.scratch().join("work");
    fs::create_dir(&folder).unwrap();

    let mut names = Names::default();
    let steps = steps(page)?;
    for step in &steps {
        if SET_UP.contains(&step.command.as_str()) {
            continue;
        }
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SESSION, "sh"]).arg(home.scratch().join("session")).arg(names.in_command(&step.command));
        let mut environment = home.command(Vec::<&str>::new());
        environment.env("PATH", &path);
        for (name, value) in environment.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let output = shell.current_dir(&folder).stdin(std::process::Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let mut printed: Vec<&str> = text.lines().map(str::trim_end).collect();
        while printed.last().is_some_and(|line| line.is_empty()) {
            printed.pop();
        }
        let shown = format!("line {}: $ {}", step.line, step.command);
        if output.status.code() != Some(step.code) {
            return Err(format!("{shown}\nended with {} instead of {}:\n{text}", output.status, step.code));
        }
        if !names.output_matches(&step.output, &printed) {
            return Err(format!("{shown}\n--- the page\n{}\n--- printed\n{}\n", step.output.join("\n"), text));
        }
    }
    Ok(steps.len())
}

#[test]
fn every_console_block_of_the_documentation_is_true() {
    let folders = [root().to_path_buf(), root().join("docs")];
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut pages: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let readme = fs::read_to_string(root().join("README.md")).expect("the README sets a machine up in two commands");
    let commands: Vec<_> = steps(&readme).unwrap().into_iter().map(|step| step.command).collect();
    for command in SET_UP {
        assert!(commands.iter().any(|found| found == command), "the README does not show `{command}`");
    }
    let wrong: Vec<String> = pages.iter().filter_map(|page| check(page).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn check(page: &Path) -> Result<usize, String> {
    let text = fs::read_to_string(page).map_err(|error| format!("{}: {error}", page.display()))?;
    run_page(&text).map_err(|error| format!("{}: {error}", page.display()))
}

const SAMPLE: &str = "\
Text.

```console
$ echo vol-0123456789abcdef0 | tr 0 f
vol-f123456789abcdeff
$ printf 'one\\ntwo\\nthree\\n' &&
> word=kept && mkdir deep && cd deep && false
? 1
one
...
th[..]e
```

```sh
$ false
```

```console
$ echo vol-f123456789abcdeff took 12.5 ms at 2031-01-02T03:04:05Z; echo $word ${PWD##*/} >&2
vol-f123456789abcdeff took 1.0 s at 2026-11-12T13:14:15+00:00
kept deep
```
";

#[test]
fn a_true_page_passes_and_each_false_one_fails() {
    assert_eq!(run_page(SAMPLE), Ok(3));
    for (right, wrong) in [
        ("\nth[..]e\n", "\nf[..]e\n"),
        ("\nkept deep\n", "\n"),
        ("\nkept deep\n", "\nkept deep\nmore\n"),
        ("\nkept deep\n", "\nlost deep\n"),
        ("? 1\n", ""),
        ("? 1\n", "? 2\n"),
        ("took 1.0 s at", "lasted 1.0 s at"),
        ("```console\n$ echo vol-f", "```console,ignore\n$ echo vol-f"),
        ("\n```\n\n```sh", "\n\n```sh"),
    ] {
        let page = SAMPLE.replacen(right, wrong, 1);
        assert_ne!(page, SAMPLE, "the sample has no {right:?}");
        run_page(&page).expect_err(wrong);
    }
}

#[test]
fn names_are_bound_at_first_sight_and_must_stay_the_same() {
    let page =
        "$ cat a\nvol-00000000000000001 vol-00000000000000002\n$ echo vol-00000000000000002\nvol-00000000000000002\n";
    let page = format!("```console\n$ echo vol-aaaaaaaaaaaaaaaaa vol-bbbbbbbbbbbbbbbbb > a\n{page}```\n");
    assert_eq!(run_page(&page), Ok(3));
    let swapped = page.replace("\nvol-00000000000000002\n", "\nvol-00000000000000001\n");
    run_page(&swapped).expect_err("another id than the one bound");
    let other_kind = page.replace("vol-00000000000000001 ", "snap-00000000000000001 ");
    run_page(&other_kind).expect_err("a snapshot is not a volume");
}

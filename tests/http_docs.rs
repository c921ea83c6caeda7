//! The files of `docs/testing.md`, each run as it stands there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Home, both, program, root, tool};

/// A file of the page: the fenced block whose first line is a comment with its name.
fn file(name: &str) -> String {
    let page = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let block = page.split("\n```").find(|block| block.lines().nth(1) == Some(&format!("# {name}")));
    let block = block.unwrap_or_else(|| panic!("the page has no {name}"));
    block.split_once('\n').unwrap().1.to_owned() + "\n"
}

/// A shell in which Debian's programs come first, and ours is there.
fn shell(home: &Home, folder: &Path, script: &str) -> Command {
    let bin = home.scratch().join("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(program(), bin.join("blockseal")).unwrap();
    }
    let mut shell = tool("bash");
    shell.args(["-e", "-c", script]).current_dir(folder).stdin(std::process::Stdio::null());
    for (name, _) in std::env::vars_os() {
        if ["AWS_", "BLOCKSEAL_", "PYTEST_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            shell.env_remove(name);
        }
    }
    shell.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    shell.env("BLOCKSEAL_HOME", home.path()).env("TMPDIR", home.scratch()).env("HOME", home.scratch());
    shell
}

/// A suite of the page's files in a folder of its own.
fn suite(home: &Home) -> std::path::PathBuf {
    let folder = home.scratch().join("suite");
    fs::create_dir(&folder).unwrap();
    for name in ["conftest.py", "test_orders.py"] {
        fs::write(folder.join(name), file(name)).unwrap();
    }
    folder
}

const PYTEST: &str = "python3 -m pytest -q -p no:cacheprovider";

#[test]
fn the_pytest_fixture_makes_roles_and_runs_as_them() {
    let home = Home::new();
    let folder = suite(&home);
    let output = shell(&home, &folder, PYTEST).output().unwrap();
    assert!(output.status.success() && both(&output).contains("2 passed"), "{}", both(&output));
    // It is the endpoint that refuses: where the role may do everything, the suite fails.
    let fixture = file("conftest.py");
    let open = fixture.replace("list(statements)", "[ALL[\"Statement\"]]");
    assert_ne!(open, fixture);
    fs::write(folder.join("conftest.py"), open).unwrap();
    let output = shell(&home, &folder, PYTEST).output().unwrap();
    assert!(!output.status.success() && both(&output).contains("2 failed"), "{}", both(&output));
    let left: Vec<_> = fs::read_dir(home.scratch()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    let of_serve = left.iter().filter(|name| name.to_string_lossy().starts_with("blockseal-serve-"));
    assert_eq!(of_serve.count(), 0, "{left:?}");
}

/// The scripts of a workflow's steps, by the names of the steps.
fn steps(workflow: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in workflow.lines() {
        if let Some(name) = line.strip_prefix("      - name: ") {
            steps.push((name.to_owned(), String::new()));
        } else if let (Some(line), Some((_, script))) = (line.strip_prefix("          "), steps.last_mut()) {
            script.push_str(line);
            script.push('\n');
        }
    }
    steps
}

#[test]
fn the_workflow_serves_a_job_and_ends() {
    let home = Home::new();
    let folder = suite(&home);
    let environment = home.scratch().join("github.env");
    fs::write(&environment, "").unwrap();
    let steps = steps(&file(".github/workflows/test.yml"));
    let names: Vec<_> = steps.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Build", "Serve", "Test", "Stop"]);
    // The program under test is there already, and is no package of somebody else's.
    assert_eq!(steps[0].1, "cargo install --locked --path blockseal\n");
    let mut failed = Vec::new();
    for (name, script) in &steps[1..] {
        let mut step = shell(&home, &folder, script);
        step.env("GITHUB_ENV", &environment);
        for line in fs::read_to_string(&environment).unwrap().lines() {
            let (name, value) = line.split_once('=').unwrap();
            step.env(name, value);
        }
        let output = step.output().unwrap();
        // The last step is run whatever became of the others.
        if !output.status.success() {
            failed.push(format!("{name}: {}", both(&output)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let pid = fs::read_to_string(&environment).unwrap();
    let pid = pid.lines().find_map(|line| line.strip_prefix("BLOCKSEAL_PID=")).unwrap().to_owned();
    crate::harness::eventually("the server ends", || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(!home.path().exists());
}

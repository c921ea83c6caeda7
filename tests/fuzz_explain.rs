//! Mutated dumps of an account and mutated trails: what `explain` reads of others is refused or means something, and never
//! ends the program.

use std::fs;
use std::path::{Path, PathBuf};

use blockseal::explain;
use blockseal::store::Home;

use crate::fuzz::fuzz;
use crate::harness::root;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn no_dump_of_an_account_makes_the_reader_panic() {
    let orders = files(&root().join("fixtures/explain/states/orders"));
    let corpus: Vec<_> = orders.iter().map(|file| fs::read(file).unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    // The key is whole, so that what is mutated is about something that is there.
    fs::copy(&orders[1], folder.path().join("key.json")).unwrap();
    fuzz(&corpus, 10, |bytes| {
        fs::write(folder.path().join("mutated.json"), bytes).unwrap();
        let _ = explain::load_account_state(folder.path());
    });
}

#[test]
fn no_trail_makes_its_replay_panic() {
    let folder = root().join("fixtures/explain");
    let mut below = folder.join("trail");
    while below.is_dir() {
        below = files(&below).remove(0);
    }
    let corpus = [fs::read(&below).unwrap()];
    let base = tempfile::tempdir().unwrap();
    let (state, _) = explain::load_account_state(&folder.join("states/orders")).unwrap();
    let file = base.path().join("mutated.json");
    fuzz(&corpus, 20, |bytes| {
        fs::write(&file, bytes).unwrap();
        if let Ok(records) = explain::records(base.path()) {
            let scratch: Home = state.scratch_copy().unwrap();
            let _ = explain::replay(&scratch, &records);
        }
    });
}

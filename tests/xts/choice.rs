//! Forcing an engine by name, as a user does it: through the environment, so in a process of its own.

use std::env;
use std::process::Command;

use blockseal::xts::{ENGINE_VARIABLE, EngineChoice, EngineKind, XtsCipher, XtsError};

use super::{noise, secret};

const CHILD: &str = "BLOCKSEAL_TEST_CHOICE_CHILD";

/// The child of the tests below: prints the engine that `Auto` means, or the error. Without its variable it has nothing to do.
#[test]
fn child_that_prints_its_engine() {
    if env::var_os(CHILD).is_some() {
        match XtsCipher::new(&secret(&noise(64, 1)), EngineChoice::Auto) {
            Ok(cipher) => println!("engine={};", cipher.engine()),
            Err(error) => println!("engine=refused: {error};"),
        }
    }
}

fn engine_under(variable: Option<&str>) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "xts::choice::child_that_prints_its_engine", "--nocapture"]).env(CHILD, "1");
    match variable {
        Some(value) => command.env(ENGINE_VARIABLE, value),
        None => command.env_remove(ENGINE_VARIABLE),
    };
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    output.split_once("engine=").unwrap().1.split_once(';').unwrap().0.to_owned()
}

#[test]
fn the_variable_forces_an_engine_and_nothing_means_the_fastest() {
    let fastest = EngineKind::available().last().unwrap();
    assert_eq!(engine_under(None), fastest.name());
    assert_eq!(engine_under(Some("")), fastest.name());
    for engine in EngineKind::available() {
        assert_eq!(engine_under(Some(engine.name())), engine.name());
    }
    assert!(engine_under(Some("fastest")).starts_with("refused: BLOCKSEAL_XTS_ENGINE: no engine is called 'fastest'"));
}

#[test]
fn an_engine_that_the_machine_lacks_is_a_clear_error() {
    for engine in EngineKind::ALL {
        let made = XtsCipher::new(&secret(&noise(64, 1)), EngineChoice::Forced(*engine));
        match made {
            Ok(cipher) => assert_eq!(cipher.engine(), *engine),
            Err(error) => {
                assert!(matches!(error, XtsError::EngineUnavailable { .. }), "{error}");
                assert!(engine_under(Some(engine.name())).starts_with("refused: engine"));
            }
        }
    }
}

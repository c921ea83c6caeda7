//! The `blockseal` program: see [`blockseal::cli`].

use std::process::ExitCode;

use blockseal::{cli, export, process};

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|command| command == export::EXPORTER_COMMAND) {
        // It hardens its process itself and reports what fails to its starter.
        return export::exporter_main(export::open_volume);
    }
    if std::env::args_os().nth(1).is_some_and(|command| command == export::kernel::DEVICE_COMMAND) {
        return export::kernel::helper_main(std::env::args_os().skip(2));
    }
    if let Err((what, errno)) = process::harden() {
        eprintln!("blockseal: cannot {what}: {errno}");
        return ExitCode::from(255);
    }
    cli::main(std::env::args_os())
}

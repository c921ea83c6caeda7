//! Progress of long work: a bar on a terminal, nothing in a pipe.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar on standard error. It takes itself away when it is dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for `total` bytes of `what`; it draws nothing unless standard error is a terminal.
    pub fn bytes(what: &str, total: u64) -> Self {
        Self::new(what, total, "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left")
    }

    /// A bar for steps of `what`, whose number comes with [`Progress::set_of`].
    pub fn steps(what: &str) -> Self {
        Self::new(what, 1, "{msg} [{wide_bar}] {percent} % {eta} left")
    }

    fn new(what: &str, total: u64, template: &str) -> Self {
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// `done` steps of `total` are done.
    pub fn set_of(&self, done: usize, total: usize) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }

    /// `bytes` are done in all.
    pub fn set(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

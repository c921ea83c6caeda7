//! Callers of one process standing in line for the connection, first come first served.
//!
//! A `Mutex` alone is not enough: whoever just ran finds it free and takes it again, before those that wait are awake.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

#[derive(Debug, Default)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    taken: bool,
    waiting: VecDeque<Arc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    called: AtomicBool,
}

/// The place at the head of the line, until it is dropped.
pub(super) struct Head<'a>(&'a Line);

impl Line {
    /// Waits until everybody who came before is gone.
    pub(super) fn stand(&self) -> Head<'_> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.taken {
            state.taken = true;
            return Head(self);
        }
        let waiter = Arc::new(Waiter { thread: std::thread::current(), called: AtomicBool::new(false) });
        state.waiting.push_back(waiter.clone());
        drop(state);
        while !waiter.called.load(Ordering::Acquire) {
            std::thread::park();
        }
        Head(self)
    }

    /// How many wait.
    pub(super) fn length(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.len()
    }
}

impl Drop for Head<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.pop_front();
        state.taken = next.is_some();
        drop(state);
        if let Some(next) = next {
            next.called.store(true, Ordering::Release);
            next.thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_first_is_served_first() {
        let (line, served) = (Line::default(), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            let head = line.stand();
            for number in 0..8 {
                let (line, served) = (&line, &served);
                scope.spawn(move || {
                    let _head = line.stand();
                    served.lock().unwrap().push(number);
                });
                while line.length() <= number {
                    std::thread::yield_now();
                }
            }
            drop(head);
            // Whoever ran a moment ago stands behind all that wait.
            let _head = line.stand();
            assert_eq!(served.lock().unwrap().len(), 8);
        });
        assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

//! Panics, remembered instead of printed: of a thousand worlds that a shrinker runs, hundreds may end in one, and the
//! storage engine panics on damaged files, which the store takes for an answer.
//!
//! A level tells of a panic in its world as of any failure. What panics outside of that is told by whoever catches it.

use std::backtrace::Backtrace;
use std::cell::Cell;

use super::crew::Job;

thread_local! {
    static LAST: Cell<Option<String>> = const { Cell::new(None) };
    static WORLD: Cell<Option<Job>> = const { Cell::new(None) };
}

/// What the runtime says before it ends the process, since no thread may go on from there.
const FINAL: [&str; 2] = ["panic in a destructor during cleanup", "panic in a function that cannot unwind"];

/// From now on panics are remembered. What nothing can catch is said at once, with the world in which it came.
pub(super) fn remember() {
    std::panic::set_hook(Box::new(|panic| {
        let before = LAST.replace(Some(panic.to_string()));
        if panic.payload_as_str().is_some_and(|payload| FINAL.contains(&payload)) {
            let world = WORLD.get().map_or_else(String::new, |Job { level, seed }| format!("{level}:{seed} "));
            eprintln!("{world}{panic}, after: {}", before.unwrap_or_default());
            eprintln!("{}", Backtrace::force_capture());
        }
    }));
}

/// The world that this thread runs from now on.
pub(super) fn enter(world: Job) {
    WORLD.set(Some(world));
}

/// What the last panic of this thread said, and where it was.
pub(super) fn last() -> String {
    LAST.take().unwrap_or_else(|| "panicked".to_owned())
}

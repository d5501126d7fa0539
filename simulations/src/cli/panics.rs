//! Panics, remembered instead of printed: of a thousand worlds that a shrinker runs, hundreds may end in one, and the
//! storage engine panics on damaged files, which the store takes for an answer.
//!
//! A level tells of a panic in its world as of any failure. What panics outside of that is told by whoever catches it.

use std::cell::Cell;

thread_local! {
    static LAST: Cell<Option<String>> = const { Cell::new(None) };
}

/// From now on panics are remembered.
pub(super) fn remember() {
    std::panic::set_hook(Box::new(|panic| LAST.set(Some(panic.to_string()))));
}

/// What the last panic of this thread said, and where it was.
pub(super) fn last() -> String {
    LAST.take().unwrap_or_else(|| "panicked".to_owned())
}

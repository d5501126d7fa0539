//! Bugs that are planted on purpose, so that the simulations can show that they would find them.
//!
//! `planted!("name")` is true where a simulation has planted the bug of that name on this thread. It stands beside the
//! right code, and says what wrong code would do in its place:
//!
//! ```text
//! if known.covers(dot) && !planted!("forget-what-is-known") { … }
//! ```
//!
//! **Invariant**: in builds without debug assertions, and so in every release, it is the constant `false`; nothing of
//! the wrong code is left there. Each name stands in one place.
//!
//! What it does not do: say what a bug would do to users, or who must notice. That is in `simulations/src/mutants`.

#[cfg(debug_assertions)]
mod site {
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Plants the bug of this name on this thread, or none.
    pub fn plant(name: Option<&'static str>) {
        PLANTED.set(name);
    }

    #[inline]
    pub(crate) fn is_planted(name: &str) -> bool {
        PLANTED.get().is_some_and(|planted| planted == name)
    }
}

#[cfg(debug_assertions)]
pub(crate) use self::site::is_planted;
#[cfg(debug_assertions)]
pub use self::site::plant;

/// Whether the bug of this name is planted here and now.
macro_rules! planted {
    ($name:literal) => {{
        #[cfg(debug_assertions)]
        let planted = $crate::planted::is_planted($name);
        #[cfg(not(debug_assertions))]
        let planted = false;
        planted
    }};
}

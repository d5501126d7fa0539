//! The small scopes that are always explored.

/// A scenario whose every interleaving is explored.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// What it is called.
    pub name: &'static str,
    /// The scenario.
    pub text: &'static str,
}

macro_rules! scopes {
    ($($name:literal)*) => {
        &[$(Scope { name: $name, text: include_str!(concat!("../../scopes/", $name, ".scenario")) }),*]
    };
}

/// All of them: without faults first, then with one or two.
pub const SCOPES: &[Scope] = scopes! {
    "puts"
    "put-and-delete"
    "counters"
    "sets"
    "lost-edits"
    "two-spaces"
    "reader"
    "window"
    "apart"
    "digest-first"
    "line"
    "line-answers"
    "triangle"
    "invitation"
    "crash"
    "crash-of-a-receiver"
    "two-crashes"
    "invitation-crash"
    "drop"
    "two-drops"
    "line-drop"
    "disk-lost"
    "disk-landed"
    "put-back"
    "lost-message"
    "message-twice"
    "overtaken"
    "line-overtaken"
};

//! A broken invariant, and where: how a world of any level ends before its time.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thence::store::{LedgerError, StoreError};

use super::{Broken, Violation};
use crate::world::Millis;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) node: Option<usize>,
    pub(crate) broken: Broken,
}

impl Failure {
    /// How a world ended, if not well. A panic is a failure like any other: to be replayed and shrunk.
    pub(crate) fn of(run: impl FnOnce() -> Result<(), Self>) -> Option<Self> {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(ended) => ended.err(),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Some(Broken { invariant: "no panic", detail: text.unwrap_or_default() }.into())
            }
        }
    }

    /// The same with the time at which it was noticed.
    pub(crate) fn at_time(self, at: Millis) -> Violation {
        let Self { node, broken: Broken { invariant, detail } } = self;
        Violation { invariant, at, node, detail }
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self { node: None, broken }
    }
}

/// An invariant does not hold at a node.
pub(crate) fn fail<T>(node: usize, invariant: &'static str, detail: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { node: Some(node), broken: Broken { invariant, detail: detail.into() } })
}

/// The product reported a failure that the world did not cause.
pub(crate) fn unexpected<T>(node: usize, error: impl Display) -> Result<T, Failure> {
    fail(node, "no failure without a fault", error.to_string())
}

/// Says at which node something went wrong.
pub(crate) trait At<T> {
    fn at(self, node: usize) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Broken> {
    fn at(self, node: usize) -> Result<T, Failure> {
        self.map_err(|broken| Failure { node: Some(node), broken })
    }
}

impl<T> At<T> for Result<T, StoreError> {
    fn at(self, node: usize) -> Result<T, Failure> {
        self.or_else(|error| unexpected(node, error))
    }
}

impl<T> At<T> for Result<T, LedgerError> {
    fn at(self, node: usize) -> Result<T, Failure> {
        self.or_else(|error| unexpected(node, error))
    }
}

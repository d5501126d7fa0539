//! A broken invariant, and where.

use crate::oracles::Broken;

#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) node: Option<usize>,
    pub(super) broken: Broken,
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self { node: None, broken }
    }
}

pub(super) fn fail<T>(node: usize, invariant: &'static str, detail: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { node: Some(node), broken: Broken { invariant, detail: detail.into() } })
}

/// Says at which node something went wrong that nothing made go wrong.
pub(super) trait At<T> {
    fn at(self, node: usize) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Broken> {
    fn at(self, node: usize) -> Result<T, Failure> {
        self.map_err(|broken| Failure { node: Some(node), broken })
    }
}

impl<T> At<T> for Result<T, thence::store::StoreError> {
    fn at(self, node: usize) -> Result<T, Failure> {
        self.or_else(|error| fail(node, "no failure without a fault", error.to_string()))
    }
}

impl<T> At<T> for Result<T, thence::store::LedgerError> {
    fn at(self, node: usize) -> Result<T, Failure> {
        self.or_else(|error| fail(node, "no failure without a fault", error.to_string()))
    }
}

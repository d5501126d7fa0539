//! Convergence: who knows the same shows the same, down to conflicts and lost edits; and what is counted is there.

use std::ops::ControlFlow;

use thence::causal::VersionVector;
use thence::model::Revision;
use thence::store::{StoreError, View};

use super::{Verdict, broken};

/// What a user sees of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    revision: Revision,
    vector: VersionVector,
    objects: Vec<String>,
    conflicts: Vec<String>,
    lost: Vec<String>,
}

impl Export {
    /// Reads everything; also says if totals and indexes do not agree with it.
    pub(crate) fn read(view: &View) -> Result<Result<Self, super::Broken>, StoreError> {
        let mut objects = Vec::new();
        let mut conflicted = Vec::new();
        view.visit(None, &mut |collection, key, object| {
            let shown = serde_json::Value::Object(object.shown().unwrap_or_default());
            objects.push(format!("{collection}/{key} {shown}"));
            if object.is_conflicted() {
                conflicted.push(format!("{collection}/{key}"));
            }
            ControlFlow::Continue(())
        })?;
        let conflicts = view.conflicts()?;
        let listed: Vec<String> = conflicts.iter().map(|found| format!("{}/{}", found.collection, found.key)).collect();
        let lost: Vec<String> = view.lost()?.iter().map(|found| format!("{found:?}")).collect();
        let summary = view.summary()?;
        let counted = [summary.objects, summary.conflicts, summary.lost];
        let found = [objects.len() as u64, conflicted.len() as u64, lost.len() as u64];
        if counted != found || listed != conflicted {
            let detail = format!("totals say {counted:?}, there are {found:?} objects, conflicts and lost edits");
            return Ok(broken("totals and indexes", detail));
        }
        let conflicts = conflicts.iter().map(|found| format!("{found:?}")).collect();
        let (revision, vector) = (view.begun().clone(), view.vector()?);
        Ok(Ok(Self { revision, vector, objects, conflicts, lost }))
    }
}

/// Whether two nodes that have everything show the same.
pub(crate) fn check_alike(a: (usize, &Export), b: (usize, &Export)) -> Verdict {
    if a.1 == b.1 {
        return Ok(());
    }
    let what = match (a.1, b.1) {
        (a, b) if a.revision != b.revision => format!("revision: {:?} and {:?}", a.revision, b.revision),
        (a, b) if a.vector != b.vector => format!("knowledge: {:?} and {:?}", a.vector, b.vector),
        (a, b) if a.objects != b.objects => format!("objects: {:?} and {:?}", a.objects, b.objects),
        (a, b) if a.conflicts != b.conflicts => format!("conflicts: {:?} and {:?}", a.conflicts, b.conflicts),
        (a, b) => format!("lost edits: {:?} and {:?}", a.lost, b.lost),
    };
    broken("convergence", format!("nodes {} and {} differ in {what}", a.0, b.0))
}

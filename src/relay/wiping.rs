//! Wiping a database, and the jobs that remove what was in it.
//!
//! **Invariant**: whoever may not see the database may not see that anything was ever wiped in it.

use serde_json::{Value as Json, json};

use super::audit::Deed;
use super::problem::{Problem, ProblemCode};
use super::tenant::node_problem;
use super::{Access, Database, Principal, Relay, row, unauthenticated};
use crate::model::Role;
use crate::node::NodeError;
use crate::store::{Removal, WriteError};

fn no_job() -> Problem {
    Problem::new(ProblemCode::NotFound, "there is no such job, as far as this token reaches", "check its id")
}

impl Relay {
    /// Begins a database anew, if it is at the revision `only` where that is given. What clients see is empty at once; its
    /// rows are removed behind.
    ///
    /// Whoever calls it from something that may be given up, such as an answer to a client that hangs up, does so in a task
    /// of its own: what is done is to be noted, too.
    pub async fn wipe(&self, access: &Access, only: Option<u64>) -> Result<Json, Problem> {
        let space = access.database.space;
        let revision = self.node.wipe(space, only).await.map_err(|error| match error {
            NodeError::Write(WriteError::Changed { .. }) => {
                let help = "if it is one further than what you sent, it was wiped once since, by you or by somebody else: \
                            `job` tells of that; look at what is new before you wipe it again";
                let problem = Problem::new(ProblemCode::Conflict, "the database is at another revision", help);
                let now = self.node.view(space).map(|view| view.revision());
                match now {
                    Ok(first @ ..=1) => problem.with("revision", first),
                    Ok(now) => problem.with("revision", now).with("job", Removal::id_of(space, now)),
                    Err(_) => problem,
                }
            }
            NodeError::Write(error) => row::write_problem(&error),
            error => node_problem(error),
        })?;
        let job = Removal::id_of(space, revision);
        // It is done: what cannot be read now is not counted.
        let removals = self.node.removals().unwrap_or_default();
        let count = removals.iter().find(|removal| removal.id() == job).map_or(0, |removal| removal.objects);
        self.note(access, &Deed::Wipe { database: access.database.name.clone(), revision, count }).await;
        Ok(json!({"job": job, "revision": revision, "epoch": self.epoch_text()}))
    }

    /// How far a job is.
    pub fn job(&self, principal: &Principal, id: &str) -> Result<Json, Problem> {
        if *principal == Principal::Anybody {
            return Err(unauthenticated());
        }
        let removals = self.node.removals().map_err(node_problem)?;
        let removal = removals.into_iter().find(|removal| removal.id() == id).ok_or_else(no_job)?;
        let databases = self.tenants.databases()?;
        let database = databases.into_iter().find(|database| database.space == removal.space).ok_or_else(no_job)?;
        let role = principal.role(&database.customer, &database.name).ok_or_else(no_job)?;
        if role < Role::Owner {
            let detail = format!("this token is one of a {role}; jobs are for owners");
            return Err(Problem::new(ProblemCode::Forbidden, detail, "use another token"));
        }
        Ok(told(&removal, &database))
    }

    /// The jobs of a database that are remembered.
    pub(super) fn jobs_of(&self, database: &Database) -> Result<Vec<Json>, Problem> {
        let removals = self.node.removals().map_err(node_problem)?.into_iter();
        Ok(removals.filter(|removal| removal.space == database.space).map(|removal| told(&removal, database)).collect())
    }
}

fn told(removal: &Removal, database: &Database) -> Json {
    json!({
        "job": removal.id(),
        "kind": "wipe",
        "customer": database.customer,
        "database": database.name,
        "revision": removal.revision,
        "state": removal.state(),
        "rows_done": removal.removed,
        "rows_total": removal.objects,
        "errors": removal.errors,
        "retries": removal.interrupted,
        "begun_ms": removal.at_ms,
        "done_ms": removal.done_ms,
    })
}

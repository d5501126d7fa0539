//! Which rows of a table were deleted, for clients that keep nothing but keys: a kind of sync point of its own.
//!
//! **Invariant (no misses)**: a sync point moves to the last place that was looked at. What a client deletes itself it is
//! not told, and that is a matter of positions and not of names: what others delete by the same access token it is told,
//! and also if they delete the same row later.
//!
//! What is not done here: to look at rows that are there. A page is as quick in a table of millions.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::changes::{Changes, LOOKED_AT_MAX, PAGE_BYTES, ROWS_MAX};
use super::problem::Problem;
use super::sync_point::{Phase, SyncPoint};
use super::tenant::node_problem;
use super::{Access, Relay, Wanted};
use crate::model::CollectionName;
use crate::store::{PageLimits, StoreError, View};

/// So many stretches of positions are kept in a sync point. Those that come later are told again.
pub(super) const OWN_MAX: usize = 32;

/// What a client deletes in a request that also asks for what others deleted.
#[derive(Clone, Debug, Default)]
pub struct Deleting {
    /// Of these keys.
    pub keys: BTreeSet<String>,
    /// At these positions.
    pub versions: Vec<u64>,
}

impl Deleting {
    /// Of these keys, with these results.
    pub fn of(keys: Vec<String>, results: &Json) -> Self {
        let versions = results.as_array().into_iter().flatten().filter_map(|result| result["version"].as_u64());
        Self { versions: versions.collect(), keys: keys.into_iter().collect() }
    }
}

/// The stretches that hold these positions as well, in order and with a gap between any two.
fn joined(stretches: &[(u64, u64)], positions: &[u64]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = stretches.to_vec();
    all.extend(positions.iter().map(|at| (*at, *at)));
    all.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in all {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

impl Relay {
    /// The keys of a table's rows that were deleted, of which the client of this token may not know; what it is `deleting`
    /// it knows by itself.
    pub fn deletions(
        &self,
        access: &Access,
        table: &CollectionName,
        token: Option<&str>,
        deleting: &Deleting,
    ) -> Result<Changes, Problem> {
        let view = self.view(access)?;
        let failed = |error: StoreError| node_problem(error.into());
        let point = self.place_of(access, &view, table, token)?;
        let Phase::Deletions { position, ref own } = point.phase else { return Err(super::changes::other_token()) };
        let limits = PageLimits { rows: ROWS_MAX, bytes: PAGE_BYTES, looked_at: LOOKED_AT_MAX };
        let page =
            view.rows_deleted(position, view.position().map_err(failed)?, Some(table), limits).map_err(failed)?;
        let mut own = joined(own, &deleting.versions);
        let is_own = |at: u64| own.iter().any(|(first, last)| (first..=last).contains(&&at));
        let told = page.rows.iter().filter(|row| !is_own(row.version) && !deleting.keys.contains(row.key.as_str()));
        let told = told.map(|row| row.key.as_str()).collect();
        own.retain(|(_, last)| *last > page.at);
        own.truncate(OWN_MAX);
        let point = SyncPoint { phase: Phase::Deletions { position: page.at, own }, ..point };
        let token = self.seal(access, &point)?;
        Ok(self.told(point, token, told, !page.is_last))
    }

    /// A page with nothing in it, from which the client of this token goes on where it is: see
    /// [`nothing_yet`](Relay::nothing_yet).
    ///
    /// Without a token the table has to be known. A token says by itself what became of its table: after a wipe its client
    /// is to be told of that, and not of a table that is not there.
    pub fn no_deletions_yet(
        &self,
        access: &Access,
        table: &CollectionName,
        token: Option<&str>,
    ) -> Result<Changes, Problem> {
        let view = self.view(access)?;
        if token.is_none() {
            self.known_table(access, &view, table)?;
        }
        let point = self.place_of(access, &view, table, token)?;
        let token = token.map_or_else(|| self.seal(access, &point), |token| Ok(token.to_owned()))?;
        Ok(self.told(point, token, Json::Array(Vec::new()), true))
    }

    /// Where the client of this token is; without one, before everything that is still told.
    fn place_of(
        &self,
        access: &Access,
        view: &View,
        table: &CollectionName,
        token: Option<&str>,
    ) -> Result<SyncPoint, Problem> {
        let wanted = Wanted { tables: Some(BTreeSet::from([table.clone()])), limit: None };
        let position = view.horizon_of(wanted.tables.as_ref()).map_err(|error| node_problem(error.into()))?;
        let beginning = self.point(access, view, &wanted, Phase::Deletions { position, own: Vec::new() })?;
        self.usable(access, view, token, &wanted, beginning)
    }

    fn told(&self, point: SyncPoint, token: String, deleted: Json, more: bool) -> Changes {
        let mut body = Map::new();
        body.insert("deleted".to_owned(), deleted);
        body.insert("more".to_owned(), more.into());
        body.insert("epoch".to_owned(), self.epoch_text().into());
        body.insert("revision".to_owned(), point.revision.into());
        body.insert("token".to_owned(), token.clone().into());
        Changes { body, token, point, rows_left: 0 }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Keys, Role, Scope};
    use super::*;
    use crate::node::{DataFolder, Node, NodeConfig};

    #[test]
    fn positions_become_stretches() {
        assert_eq!(joined(&[], &[]), []);
        assert_eq!(joined(&[(3, 5)], &[9, 6, 1, 7, 4]), [(1, 1), (3, 7), (9, 9)]);
        assert_eq!(joined(&[(1, 2), (4, 9)], &[3, 5]), [(1, 9)]);
        assert_eq!(joined(&[], &[u64::MAX, u64::MAX]), [(u64::MAX, u64::MAX)]);
    }

    /// What comes between a token that was looked at and the rows that come with it, as the owner's wipe may.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_sent_in_one_revision_does_nothing_in_the_next_and_is_answered_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = DataFolder::new(folder.path().join("data"));
        data.init().expect("a fresh folder");
        let claimed = data.claim_for_node(std::time::Duration::from_secs(10)).expect("it is free");
        let node = Node::open(NodeConfig::new(claimed)).await.expect("it opens");
        let relay = Relay::open(&node, Keys::in_memory()).await.expect("it opens");
        let names = ("acme".parse().expect("a name"), "notes".parse().expect("a name"));
        relay.tenants().register(&names.0, &names.1, None).await.expect("it can be registered");
        let scope = Scope { customer: Some(names.0), database: None, role: Role::Owner };
        let (token, _) = relay.tenants().create_token(scope, None).await.expect("a token");
        let owner = relay.tenants().authenticate(&token).expect("known");
        let access = relay.enter(owner, "acme", "notes", Role::Owner).expect("its owner");
        let table = CollectionName::user("todo").expect("a name");
        let row = |fields: Json| vec![json!({"key": "k1", "fields": fields})];
        relay.upload(&access, Some(&table), row(json!({"n": 1})), false).await.expect("it is taken");

        let wanted = Wanted::default();
        let (none, nothing) =
            (relay.no_deletions_yet(&access, &table, None), relay.nothing_yet(&access, None, &wanted));
        let (none, nothing) = (none.expect("a beginning"), nothing.expect("a beginning"));
        let token = Some(none.token.clone());
        let kept = relay.upload_in(
            &access,
            None,
            nothing.revision(),
            ("rows", vec![json!({"table": "todo", "key": "k2", "fields": {}})]),
        );
        let kept = kept.await.expect("it is taken");
        assert_eq!(kept[0]["status"], "accepted");
        relay.wipe(&access, None).await.expect("its owner");
        relay.upload(&access, Some(&table), row(json!({"n": 2})), false).await.expect("it is taken");

        // The row was put anew since, and nobody who deletes has seen that.
        let delete = vec![json!({"key": "k1", "op": "delete"})];
        let results =
            relay.upload_in(&access, Some(&table), none.revision(), ("keys", delete)).await.expect("answered for");
        assert_eq!((&results[0]["status"], &results[0]["problem"]["code"]), (&json!("rejected"), &json!("changed")));
        let found = relay.view(&access).expect("readable").row(&table, &"k1".parse().expect("a key"));
        assert!(found.expect("readable").is_some());
        let deleting = Deleting::of(vec!["k1".to_owned()], &results);
        let page = relay.deletions(&access, &table, token.as_deref(), &deleting);
        assert_eq!(page.as_ref().map(drop).map_err(|problem| &problem.members["reason"]), Err(&json!("revision")));
        let told = Changes::with_results(page, none, results).expect("what was sent is answered for");
        assert_eq!((&told.body["results"][0]["key"], &told.body["deleted"]), (&json!("k1"), &json!([])));
        assert_eq!((&told.body["more"], Some(&told.token)), (&json!(true), token.as_ref()));

        // Of the other call the same; and who sent nothing is told at once what is wrong.
        let fresh = nothing.token.clone();
        let gone = || relay.next_page(&access, None, Some(&fresh), &wanted);
        let told = Changes::with_results(gone(), nothing.clone(), kept).expect("what was sent is answered for");
        assert_eq!((&told.body["results"][0]["status"], &told.body["changes"]), (&json!("accepted"), &json!([])));
        assert_eq!((&told.body["more"], &told.body["token"]), (&json!(true), &json!(fresh)));
        let told = Changes::with_results(gone(), nothing, json!([])).expect_err("there is nothing to answer for");
        assert_eq!(told.members["reason"], "revision");
    }
}

//! The end of the world, when everything must be in step.

use std::collections::BTreeSet;

use thence::model::SpaceId;

use super::World;
use super::disk::check_application;
use crate::oracles::{At, Failure, fail};
use crate::oracles::{
    Export, Listed, ObjectName, check_acknowledged, check_alike, check_disk, check_object, check_removed,
    check_silence, check_wiped,
};

impl World<'_> {
    /// Without the copies of a device that hold a later revision than everybody who is no copy: whoever began it does not know
    /// the others, or they would be members of it, and so it keeps it to itself. Copies never meet each other.
    fn without_stray_copies(&self, space: SpaceId, mut members: BTreeSet<usize>) -> BTreeSet<usize> {
        let device = |node: usize| self.nodes[node].device();
        let is_copy = |node: usize| (0..self.nodes.len()).any(|other| other != node && device(other) == device(node));
        let revision = |node: usize| self.nodes[node].era(space).revision;
        let latest = members.iter().copied().filter(|node| !is_copy(*node)).map(revision).max();
        members.retain(|node| !is_copy(*node) || latest.is_none_or(|latest| revision(*node) <= latest));
        members
    }

    pub(super) fn end(&mut self) -> Result<(), Failure> {
        for (space, members) in self.members() {
            let members = self.without_stray_copies(space, members);
            let mut exports: Vec<(usize, Export)> = Vec::new();
            let mut views = Vec::new();
            let objects: BTreeSet<ObjectName> = self.history.objects(space);
            let acknowledged = members.iter().flat_map(|node| &self.nodes[*node].acknowledged);
            let acknowledged: BTreeSet<_> = acknowledged.filter(|(of, _)| of.space == space).copied().collect();
            let wiped = members.iter().flat_map(|node| &self.nodes[*node].wiped);
            let wiped: BTreeSet<_> = wiped.filter(|(of, _)| of.space == space).copied().collect();
            for node in members {
                let Some(process) = &self.nodes[node].process else { return fail(node, "liveness", "it is down") };
                let Some(view) = process.ledger.view(space).at(node)? else {
                    return fail(node, "liveness", "it never got the space");
                };
                exports.push((node, Export::read(&view).at(node)?.at(node)?));
                let shelf = self.nodes[node].shelves.get(&space).cloned().unwrap_or_default();
                let listed = Listed::read(&view).at(node)?;
                for name in &objects {
                    let object = view.state(&name.0, &name.1).at(node)?;
                    check_object(&self.history, shelf.era(space), name, &shelf, object.as_ref()).at(node)?;
                    object.map_or(Ok(()), |object| listed.check(name, &object)).at(node)?;
                }
                for (era, event) in &acknowledged {
                    check_acknowledged(&self.history, *era, &shelf, *event).at(node)?;
                }
                for wiped in &wiped {
                    check_wiped(&shelf, wiped).at(node)?;
                }
                let follower = self.nodes[node].followers.entry(space).or_default();
                while follower.follow(&view, 3).at(node)?.at(node)? {}
                follower.check(&view).at(node)?.at(node)?;
                views.push((node, view));
            }
            if let Some(application) = &mut self.application {
                check_application(application.in_the_end(&views))?;
            }
            for pair in exports.windows(2) {
                check_alike((pair[0].0, &pair[0].1), (pair[1].0, &pair[1].1))?;
            }
        }
        self.check_clients()?;
        for node in self.honest() {
            if let Some(process) = &self.nodes[node].process {
                check_removed(&process.ledger).at(node)?.at(node)?;
            }
            for (space, shelf) in &self.nodes[node].shelves {
                check_disk(&self.history, *space, self.nodes[node].device(), shelf).at(node)?;
            }
        }
        for (edge, (dialer, listener)) in self.scenario.edges.iter().enumerate() {
            if self.scenario.is_hostile(*dialer) || self.scenario.is_hostile(*listener) {
                continue;
            }
            let Some(session) = self.dialled[edge] else { return fail(*dialer, "liveness", "no session") };
            for node in [*dialer, *listener] {
                let process = self.nodes[node].process.as_ref();
                if !process.is_some_and(|process| process.replica.is_synced(session)) {
                    return fail(
                        node,
                        "liveness",
                        format!("session {} is not in step: {}", session.0, self.describe()),
                    );
                }
            }
        }
        let (sent, missing) = self.quiet;
        let sessions = (self.scenario.edges.len() * self.scenario.spaces) as u64;
        check_silence(self.network.sent - sent, sessions, missing)?;
        Ok(())
    }

    /// How everything stands, for people.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { continue };
            for (space, _) in &self.spaces {
                let vector = node.shelves.get(space).map(|shelf| &shelf.vector);
                let links: Vec<String> = (process.replica.links(*space).iter())
                    .map(|link| {
                        let (behind, ahead) = (link.behind_events, link.ahead_events);
                        format!("session {} {:?} -{behind} +{ahead}", link.session.0, link.state)
                    })
                    .collect();
                text += &format!("\n  node {number} {space:?} {vector:?} {links:?}");
            }
            text += &format!("\n  node {number} next timer {:?}", process.replica.poll_timeout());
        }
        text
    }
}

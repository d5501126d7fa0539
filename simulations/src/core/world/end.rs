//! The end of the world, when everything must be in step.

use std::collections::BTreeSet;

use thence::model::SpaceId;

use super::World;
use super::disk::check_application;
use crate::oracles::{At, Failure, fail};
use crate::oracles::{
    Era, Export, Listed, ObjectName, check_acknowledged, check_alike, check_disk, check_object, check_removed,
    check_silence, check_wiped,
};

impl World<'_> {
    /// Takes out the members that are astray: copies of one device, in a later revision than all that are no copies, and none
    /// of these that they are connected to is a member of it. Whoever began it on such a copy did not know them. Copies never
    /// meet each other, so nobody will ever carry what they hold: it is neither expected of anybody nor compared.
    fn without_strays(&self, space: SpaceId, mut members: BTreeSet<usize>) -> BTreeSet<usize> {
        let device = |node: usize| self.nodes[node].device();
        let is_copy = |node: usize| (0..self.nodes.len()).any(|other| other != node && device(other) == device(node));
        let others: BTreeSet<usize> = members.iter().copied().filter(|node| !is_copy(*node)).collect();
        let Some(latest) = others.iter().map(|node| self.revision_of(*node, space)).max() else { return members };
        let knows_one = |node: usize| {
            let access = self.nodes[node].process.as_ref().and_then(|process| process.ledger.access(space));
            let knows = |other| access.as_ref().is_some_and(|access| access.role(device(other)).is_some());
            let met = self.scenario.edges.iter().flat_map(|&(a, b)| [(a, b), (b, a)]).filter(|(of, _)| *of == node);
            met.map(|(_, other)| other).any(|other| others.contains(&other) && knows(other))
        };
        members.retain(|node| self.revision_of(*node, space) <= latest || knows_one(*node));
        members
    }

    /// In which revision a disk holds a space; 0 if it does not.
    fn revision_of(&self, node: usize, space: SpaceId) -> u64 {
        self.nodes[node].shelves.get(&space).map_or(0, |shelf| shelf.revision)
    }

    pub(super) fn end(&mut self) -> Result<(), Failure> {
        for (space, members) in self.members() {
            let members = self.without_strays(space, members);
            let latest = members.iter().map(|node| self.revision_of(*node, space)).max().unwrap_or_default();
            let is_expected = |era: &Era| era.space == space && era.revision <= latest;
            let mut exports: Vec<(usize, Export)> = Vec::new();
            let mut views = Vec::new();
            let objects: BTreeSet<ObjectName> = self.history.objects(space);
            let acknowledged = members.iter().flat_map(|node| &self.nodes[*node].acknowledged);
            let acknowledged: BTreeSet<_> = acknowledged.filter(|(era, _)| is_expected(era)).copied().collect();
            let wiped = members.iter().flat_map(|node| &self.nodes[*node].wiped);
            let wiped: BTreeSet<_> = wiped.filter(|(era, _)| is_expected(era)).copied().collect();
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

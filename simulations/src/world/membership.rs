//! Who comes to hold which space, as a scenario says it.

use std::collections::BTreeSet;

use thence::model::Role;

use super::{Scenario, What};

/// Of one space: who will hold it, and who will own it.
pub(crate) type Membership = (BTreeSet<usize>, BTreeSet<usize>);

/// Who will hold each space, and who will own it: all nodes of a cluster; otherwise node 0, and whoever redeems a ticket of an owner that it is
/// connected to.
pub(crate) fn drawn_up(scenario: &Scenario) -> Vec<Membership> {
    if scenario.cluster {
        let all: BTreeSet<usize> = (0..scenario.nodes).collect();
        return vec![(all.clone(), all); scenario.spaces];
    }
    let edges = &scenario.edges;
    let connected = |a, b| edges.contains(&(a, b)) || edges.contains(&(b, a));
    let members = |number: usize| {
        let (mut members, mut owners) = (BTreeSet::from([0]), BTreeSet::from([0]));
        loop {
            let before = (members.len(), owners.len());
            for item in &scenario.items {
                if let What::Redeem { node, space, from, role } = item.what
                    && space == number
                    && owners.contains(&from)
                    && !scenario.is_hostile(from)
                    && connected(node, from)
                {
                    members.insert(node);
                    if role == Role::Owner {
                        owners.insert(node);
                    }
                }
            }
            if before == (members.len(), owners.len()) {
                return (members, owners);
            }
        }
    };
    (0..scenario.spaces).map(members).collect()
}

/// Who may be granted what in which space, as the scenario wants it.
pub(crate) fn invitations(scenario: &Scenario) -> Vec<(usize, usize, Role)> {
    if scenario.cluster {
        let all = (0..scenario.spaces).flat_map(|space| (0..scenario.nodes).map(move |node| (space, node)));
        return all.map(|(space, node)| (space, node, Role::Owner)).collect();
    }
    let invited = scenario.items.iter().filter_map(|item| match item.what {
        What::Redeem { node, space, role, .. } => Some((space, node, role)),
        _ => None,
    });
    invited.collect()
}

/// Who must have everything of a space in the end. A copy that nobody of them is connected to need not, nor need a
/// hostile node.
pub(crate) fn expected(scenario: &Scenario, (members, _): &Membership) -> BTreeSet<usize> {
    let is_copy =
        |node: &usize| scenario.items.iter().any(|item| matches!(item.what, What::Copy { onto, .. } if onto == *node));
    let meets = |node: usize| {
        scenario.edges.iter().any(|(a, b)| {
            let other = if *a == node { b } else { a };
            (*a == node || *b == node) && members.contains(other) && !is_copy(other) && !scenario.is_hostile(*other)
        })
    };
    let members = members.iter().copied().filter(|node| !is_copy(node) || meets(*node));
    members.filter(|node| !scenario.is_hostile(*node)).collect()
}

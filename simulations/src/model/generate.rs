//! From a seed to a small scenario.

use thence::model::Role;
use thence::replica::Limits;

use crate::core::request;
use crate::level::{Level, Shape};
use crate::world::{Chance, DiskFault, Draws, Item, Scenario, Weather, What};

/// The kinds of faults that a seed draws at most one of.
pub const FAULTS: &[&str] = &["crash", "drop", "disk", "put-back"];

/// The scenario that `seed` stands for.
pub fn generate(seed: u64, shape: &Shape) -> Scenario {
    let chance = Chance::new(seed);
    let mut draws = chance.draws("shape", 0);
    let drawn = *draws.pick(&[2, 2, 2, 3]);
    let nodes = shape.nodes.unwrap_or(drawn).clamp(2, super::NODES_MAX);
    let edges: Vec<(usize, usize)> = if draws.yes(500) {
        (1..nodes).map(|node| (node, node - 1)).collect()
    } else {
        (1..nodes).map(|node| (node, 0)).collect()
    };
    let mut items = Vec::new();
    let mut writers = vec![0];
    let late = draws.yes(200).then(|| nodes - 1);
    for (node, parent) in &edges {
        let is_parent = edges.iter().any(|(_, parent)| parent == node);
        let role = if is_parent { Role::Owner } else { *draws.pick(&[Role::Owner, Role::Writer, Role::Reader]) };
        if role > Role::Reader {
            writers.push(*node);
        }
        let what = What::Redeem { node: *node, space: 0, from: *parent, role };
        items.push(Item { at: u64::from(late == Some(*node)), what });
    }
    let fault = draws.yes(500).then(|| *draws.pick(FAULTS));
    let fault = fault
        .filter(|fault| shape.faults.as_ref().is_none_or(|allowed| allowed.iter().any(|allowed| allowed == fault)));
    let (a, b) = *draws.pick(&edges);
    let node = if draws.yes(500) { a } else { b };
    match fault {
        Some("crash") => items.push(Item { at: 1, what: What::Crash { node } }),
        Some("drop") => items.push(Item { at: 1, what: What::Drop { a, b } }),
        Some("disk") => {
            let fault = if draws.yes(500) { DiskFault::Lost } else { DiskFault::Landed };
            items.push(Item { at: 1, what: What::DiskFails { node, fault } });
        }
        Some("put-back") => {
            items.push(Item { at: 0, what: What::Save { node } });
            items.push(Item { at: 1, what: What::PutBack { node } });
        }
        _ => {}
    }
    // Apart at first: both sides have something to say when they meet.
    if draws.yes(400) {
        items.push(Item { at: 0, what: What::Drop { a, b } });
    }
    let keys = draws.within((1, 2));
    for number in 0..draws.within((2, 4)) {
        let mut draws = chance.draws("write", number);
        let node = *draws.pick(&writers);
        items.push(Item { at: 1, what: What::Write { node, space: 0, requests: vec![request(&mut draws, keys)] } });
    }
    items.sort_by_key(|item| item.at);
    let limits = limits(&mut draws);
    let weather = Weather { delay_ms: (0, 0), loss: 0, duplicate: 0, reorder: 0 };
    Scenario {
        level: Level::Model,
        cluster: false,
        seed,
        nodes,
        limits,
        edges,
        spaces: 1,
        weather,
        disk_ms: (0, 0),
        idle_ms: 0,
        quiet_at: 0,
        items,
    }
}

fn limits(draws: &mut Draws) -> Limits {
    let frame_bytes_max = *draws.pick(&[1, 400, 1 << 16]);
    Limits {
        window_bytes_max: frame_bytes_max * *draws.pick(&[1, 8]),
        frame_bytes_max,
        eager_vector_len_max: *draws.pick(&[0, 64]),
        ack_ms: 1,
        forward_ms: 2,
        stall_ms: 1000,
        stalls_max: 6,
        ..Limits::default()
    }
}

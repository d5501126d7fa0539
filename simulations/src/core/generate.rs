//! From a seed to a scenario.
//!
//! **Swarm**: each seed draws its own subset of faults and their rates; a world with all faults at once hides what one
//! fault alone would show.

use serde_json::{Map, Value as Json, json};
use thence::model::{CollectionName, ObjectKey, Operation, Path, Request, Role};
use thence::replica::Limits;

use crate::level::{Level, Shape};
use crate::world::{Chance, DiskFault, Draws, Item, MediumFault, Millis, Scenario, Weather, What};

/// That users wipe spaces: no fault, and named like one so that worlds can do without.
pub const WIPE: &str = "wipe";

/// The kinds of faults that a seed draws from.
pub const FAULTS: &[&str] = &[
    "loss",
    "duplicate",
    "reorder",
    "delay",
    "cut",
    "one-way",
    "drop",
    "crash",
    "disk",
    "slow-disk",
    "put-back",
    "copy",
    "outsider",
    "hostile",
];

/// Those that need real files too: only a medium has them.
pub const FAULTS_OF_A_MEDIUM: &[&str] = &["crash-at", "io-error", "full", "rot", "misdirect", "lying-sync"];

/// All that a seed draws from where nodes have real files.
pub const FAULTS_OF_STORES: &[&str] = &{
    let mut all = [""; FAULTS.len() + FAULTS_OF_A_MEDIUM.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < FAULTS.len() { FAULTS[at] } else { FAULTS_OF_A_MEDIUM[at - FAULTS.len()] };
        at += 1;
    }
    all
};

/// The scenario that `seed` stands for at a level.
pub fn generate(level: Level, seed: u64, shape: &Shape) -> Scenario {
    let chance = Chance::new(seed);
    let mut draws = chance.draws("shape", 0);
    let drawn = *draws.pick(&[2, 2, 3, 3, 3, 4, 4, 5]);
    let nodes = shape.nodes.unwrap_or(drawn).max(1);
    let spaces = if draws.yes(250) { 2 } else { 1 };
    let quiet_at = draws.within((1500, 6000));
    let top_delay = *draws.pick(&[2, 10, 40, 120]);
    let weather = Weather { delay_ms: (1, top_delay), loss: 0, duplicate: 0, reorder: 0 };
    let mut limits = limits(&mut draws);
    narrow_sessions(chance, &mut limits);
    let disk_ms = (draws.below(2), draws.within((2, 30)));
    let idle_ms = draws.within((200, 1200));
    let mut items = Vec::new();
    let (edges, writers) = join(chance, nodes, spaces, quiet_at, &mut items);
    write(chance, spaces, &writers, quiet_at, &mut items);
    if level != Level::Node {
        serve_clients(chance, &writers, quiet_at, &mut items);
    }
    if shape.faults.as_ref().is_none_or(|faults| faults.iter().any(|fault| fault == WIPE)) {
        wipe(chance, nodes, spaces, &writers, quiet_at, &mut items);
    }
    let mut swarm = chance.draws("swarm", 0);
    let share = *swarm.pick(&[150, 350, 600]);
    let residents = nodes;
    let mut nodes = nodes;
    let mut edges = edges;
    let is_cluster = chance.draws("cluster", 0).yes(120);
    if is_cluster {
        // They share by themselves, and nobody is invited.
        items.retain(|item| !matches!(item.what, What::Redeem { .. }));
    }
    for fault in if level == Level::Core { FAULTS } else { FAULTS_OF_STORES } {
        let allowed = shape.faults.as_ref().is_none_or(|faults| faults.iter().any(|allowed| allowed == fault));
        if !swarm.yes(share) || !allowed {
            continue;
        }
        match *fault {
            // Nobody who is there by a ticket, or under another's name, is part of a cluster.
            "copy" | "outsider" | "hostile" if is_cluster => {}
            "copy" => {
                copy(chance, nodes, &mut edges, &writers, quiet_at, &mut items);
                nodes += 1;
            }
            "outsider" => {
                outsider(chance, nodes, spaces, &mut edges, quiet_at, &mut items);
                nodes += 1;
            }
            "hostile" => {
                hostile(chance, nodes, spaces, &mut edges, quiet_at, &mut items);
                nodes += 1;
            }
            fault if FAULTS_OF_A_MEDIUM.contains(&fault) => harm_medium(chance, fault, residents, quiet_at, &mut items),
            fault => harm(chance, fault, nodes, &edges, quiet_at, &mut items),
        }
    }
    items.sort_by_key(|item| item.at);
    Scenario {
        level,
        cluster: is_cluster,
        seed,
        nodes,
        limits,
        edges,
        spaces,
        weather,
        disk_ms,
        idle_ms,
        quiet_at,
        items,
    }
}

fn limits(draws: &mut Draws) -> Limits {
    let frame_bytes_max = *draws.pick(&[1, 400, 1500, 1 << 16]);
    Limits {
        window_bytes_max: frame_bytes_max * *draws.pick(&[1, 2, 8]),
        frame_bytes_max,
        eager_vector_len_max: *draws.pick(&[0, 1, 2, 64]),
        ack_ms: draws.within((1, 20)),
        forward_ms: draws.within((5, 60)),
        stall_ms: draws.within((300, 1500)),
        stalls_max: *draws.pick(&[3, 6]),
        ..Limits::default()
    }
}

/// In some worlds all spaces of a session have to share a narrow window.
fn narrow_sessions(chance: Chance, limits: &mut Limits) {
    let mut draws = chance.draws("session window", 0);
    if draws.yes(200) {
        limits.session_window_bytes_max = *draws.pick(&[1, limits.frame_bytes_max, limits.window_bytes_max]);
    }
}

type Writers = Vec<(usize, usize)>;

/// Who connects to whom, and who joins which space when. Returns the edges, and who writes where.
fn join(
    chance: Chance,
    nodes: usize,
    spaces: usize,
    quiet_at: Millis,
    items: &mut Vec<Item>,
) -> (Vec<(usize, usize)>, Writers) {
    let mut draws = chance.draws("join", 0);
    // A tree whose inner nodes are owners, so that everyone can be invited by its parent; and some more edges.
    let parents: Vec<usize> = (1..nodes).map(|node| usize::try_from(draws.below(node as u64)).unwrap_or(0)).collect();
    let mut edges: Vec<(usize, usize)> = (1..nodes).zip(parents.iter().copied()).collect();
    let density = *draws.pick(&[0, 300, 1000]);
    for a in 1..nodes {
        for b in 0..a {
            if parents[a - 1] != b && draws.yes(density) {
                edges.push((a, b));
            }
        }
    }
    let mut writers = Vec::new();
    for space in 0..spaces {
        let mut members = vec![0];
        writers.push((0, space));
        for node in 1..nodes {
            let parent = parents[node - 1];
            if !members.contains(&parent) || (space > 0 && draws.yes(300)) {
                continue;
            }
            members.push(node);
            let inner = parents.contains(&node);
            let role =
                if inner { Role::Owner } else { *draws.pick(&[Role::Owner, Role::Owner, Role::Writer, Role::Reader]) };
            // Most join at once, some late.
            let at = if draws.yes(800) { draws.below(100) } else { draws.below(quiet_at) };
            items.push(Item { at, what: What::Redeem { node, space, from: parent, role } });
            if role > Role::Reader {
                writers.push((node, space));
            }
            // Some are invited twice, to different roles, by owners that know nothing of one another's doing.
            let other = edges.iter().find(|(a, b)| *a == node && *b != parent && members.contains(b));
            if let Some((_, from)) = other.filter(|(_, from)| parents.contains(from) || *from == 0)
                && draws.yes(300)
            {
                let role = *draws.pick(&[Role::Owner, Role::Writer, Role::Reader]);
                items.push(Item { at: draws.below(quiet_at), what: What::Redeem { node, space, from: *from, role } });
            }
        }
    }
    (edges, writers)
}

fn write(chance: Chance, spaces: usize, writers: &Writers, quiet_at: Millis, items: &mut Vec<Item>) {
    let mut draws = chance.draws("writes", 0);
    let count = draws.within((20, 60)) * spaces as u64;
    let keys = draws.within((1, 4));
    let mut at = draws.within((20, 200));
    for number in 0..count {
        let mut draws = chance.draws("write", number);
        // In bursts: some together, then a pause.
        if draws.yes(400) {
            at += draws.below(2 * quiet_at / count.max(1) + 1);
        }
        let (node, space) = *draws.pick(writers);
        let requests = if draws.yes(800) { 1 } else { draws.within((2, 4)) };
        let requests = (0..requests).map(|_| request(&mut draws, keys)).collect();
        items.push(Item { at: at.min(quiet_at - 1), what: What::Write { node, space, requests } });
    }
    resave(chance, writers, keys, quiet_at, items);
    decide(chance, writers, quiet_at, items);
}

/// In some worlds users open objects and save them whole.
fn resave(chance: Chance, writers: &Writers, keys: u64, quiet_at: Millis, items: &mut Vec<Item>) {
    let mut draws = chance.draws("resaves", 0);
    let count = if draws.yes(300) { draws.within((2, 12)) } else { 0 };
    for number in 0..count {
        let mut draws = chance.draws("resave", number);
        let (node, space) = *draws.pick(writers);
        let (collection, key) = name(&mut draws, keys);
        let at = draws.below(quiet_at);
        count_beside(chance, number, writers, (space, &collection, &key), at, items);
        items.push(Item { at, what: What::Resave { node, space, collection, key } });
    }
}

/// While somebody has an object open, somebody else may count in it, and go on when it is saved.
fn count_beside(
    chance: Chance,
    number: u64,
    writers: &Writers,
    (space, collection, key): (usize, &CollectionName, &ObjectKey),
    at: Millis,
    items: &mut Vec<Item>,
) {
    let mut draws = chance.draws("counted beside", number);
    let others: Vec<usize> = writers.iter().filter(|(_, of)| *of == space).map(|(node, _)| *node).collect();
    if !draws.yes(300) {
        return;
    }
    let node = *draws.pick(&others);
    for at in [at.saturating_sub(draws.within((50, 500))), at] {
        let operation = Operation::Increment(path(&mut draws, &["n"]), 1);
        let requests = vec![Request { collection: collection.clone(), key: key.clone(), operation }];
        items.push(Item { at, what: What::Write { node, space, requests } });
    }
}

/// In some worlds users go through what is in conflict.
fn decide(chance: Chance, writers: &Writers, quiet_at: Millis, items: &mut Vec<Item>) {
    let mut draws = chance.draws("decisions", 0);
    let count = if draws.yes(300) { draws.within((2, 12)) } else { 0 };
    for number in 0..count {
        let mut draws = chance.draws("decision", number);
        let (node, space) = *draws.pick(writers);
        items.push(Item { at: draws.below(quiet_at), what: What::Decide { node, space } });
    }
}

/// In some worlds there are thin clients: they write, ask for what is new, and move from node to node, and nodes forget.
fn serve_clients(chance: Chance, writers: &Writers, quiet_at: Millis, items: &mut Vec<Item>) {
    let mut draws = chance.draws("clients", 0);
    let clients = if draws.yes(350) { draws.within((1, 3)) } else { 0 };
    let forgets = draws.yes(500);
    for client in 0..clients {
        let mut draws = chance.draws("client", client);
        let &(home, space) = draws.pick(writers);
        let others: Vec<usize> = writers.iter().filter(|(_, of)| *of == space).map(|(node, _)| *node).collect();
        let (moves, count) = (*draws.pick(&[0, 0, 150, 500]), draws.within((4, 24)));
        let number = usize::try_from(client).unwrap_or_default();
        for step in 0..count {
            let mut draws = chance.draws("step of a client", client << 32 | step);
            let node = if draws.yes(moves) { *draws.pick(&others) } else { home };
            let at = draws.below(quiet_at);
            let what = if draws.yes(450) {
                let limit = *draws.pick(&[1, 1, 2, 3, 10, 100]);
                What::Fetch { client: number, node, space, limit }
            } else {
                let requests =
                    (0..draws.within((1, 3))).map(|part| of_a_client(&mut draws, client << 16 | step << 4 | part));
                What::Upload { client: number, node, space, requests: requests.collect() }
            };
            items.push(Item { at, what });
            if forgets && draws.yes(150) {
                let older_ms = *draws.pick(&[0, 100, 1000]);
                items.push(Item { at: draws.below(quiet_at), what: What::Forget { node, space, older_ms } });
            }
        }
    }
}

/// In some worlds users wipe spaces: owners, mostly, sometimes two of them at once who know nothing of one another; and
/// those who may not.
fn wipe(chance: Chance, nodes: usize, spaces: usize, writers: &Writers, quiet_at: Millis, items: &mut Vec<Item>) {
    let mut draws = chance.draws("wipes", 0);
    let wipes = if draws.yes(250) { *draws.pick(&[1, 1, 2, 3]) } else { 0 };
    for number in 0..wipes {
        let mut draws = chance.draws("wipe", number);
        let anybody = |draws: &mut Draws| {
            let below = |draws: &mut Draws, count: usize| usize::try_from(draws.below(count as u64)).unwrap_or(0);
            (below(draws, nodes), below(draws, spaces))
        };
        let (node, space) = if draws.yes(150) { anybody(&mut draws) } else { *draws.pick(writers) };
        let at = draws.below(quiet_at);
        items.push(Item { at, what: What::Wipe { node, space } });
        if draws.yes(400) {
            let others: Vec<usize> = writers.iter().filter(|(_, of)| *of == space).map(|(node, _)| *node).collect();
            let node = *draws.pick(&others);
            let at = (at + draws.below(200)).min(quiet_at - 1);
            items.push(Item { at, what: What::Wipe { node, space } });
        }
    }
}

/// What is put is like nothing else that is put.
fn of_a_client(draws: &mut Draws, number: u64) -> Request {
    let (collection, key) = name(draws, 6);
    let operation = match draws.below(100) {
        0..60 => Operation::Put(Map::from_iter([("title".to_owned(), json!(1_000_000 + number))])),
        60..80 => Operation::Delete,
        _ => Operation::Increment(path(draws, &["n"]), 1),
    };
    Request { collection, key, operation }
}

pub(crate) fn request(draws: &mut Draws, keys: u64) -> Request {
    let (collection, key) = name(draws, keys);
    Request { collection, key, operation: operation(draws) }
}

fn name(draws: &mut Draws, keys: u64) -> (CollectionName, ObjectKey) {
    let collection = *draws.pick(&["notes", "notes", "notes", "things"]);
    let key = format!("k{}", draws.below(keys));
    let collection = CollectionName::user(collection).unwrap_or_else(|_| CollectionName::about());
    (collection, key.parse().unwrap_or_else(|_| thence::model::about().1))
}

/// One of these paths.
fn path(draws: &mut Draws, texts: &[&str]) -> Path {
    let text = *draws.pick(texts);
    text.parse().unwrap_or_else(|error| unreachable!("{text:?}: {error}"))
}

fn value(draws: &mut Draws) -> Json {
    let number = draws.below(6);
    match draws.below(8) {
        0 => Json::Null,
        1 => json!({ "a": number }),
        2 => json!({}),
        3 => json!([number]),
        4 => json!(format!("text {number}")),
        5 => json!({ "a": { "b": number }, "c": true }),
        _ => json!(number),
    }
}

fn fields(draws: &mut Draws) -> Map<String, Json> {
    let mut fields = Map::new();
    for _ in 0..draws.within((1, 3)) {
        let name = *draws.pick(&["title", "body", "m"]);
        fields.insert(name.to_owned(), value(draws));
    }
    fields
}

fn operation(draws: &mut Draws) -> Operation {
    let register = path(draws, &["title", "body", "m", "/m/a", "/m/a/b", "/m/c"]);
    let any = path(draws, &["title", "m", "/m/a", "n", "tags", "/m/n", "/m/tags"]);
    let counter = path(draws, &["n", "n", "/m/n"]);
    let set = path(draws, &["tags", "tags", "/m/tags"]);
    let element = json!(draws.below(4));
    match draws.below(100) {
        0..28 => Operation::Put(fields(draws)),
        28..44 => Operation::Patch(fields(draws)),
        44..52 => Operation::Update(fields(draws)),
        52..57 => Operation::Unset(vec![any]),
        57..64 => Operation::Delete,
        64..74 => Operation::Increment(counter, i64::try_from(draws.below(9)).unwrap_or(0) - 3),
        74..83 => Operation::Add(set, element),
        83..88 => Operation::Remove(set, element),
        88..94 => Operation::Resolve(register, value(draws)),
        94..98 => Operation::Restore,
        _ => Operation::Discard,
    }
}

/// Adds a node that becomes a copy of another one, and then does what that one might have done.
fn copy(
    chance: Chance,
    nodes: usize,
    edges: &mut Vec<(usize, usize)>,
    writers: &Writers,
    quiet_at: Millis,
    items: &mut Vec<Item>,
) {
    let mut draws = chance.draws("copy", 0);
    let &(node, _) = draws.pick(writers);
    // It meets others than the one that it is a copy of, and mostly not all of them.
    let others: Vec<usize> = (0..nodes).filter(|other| *other != node).collect();
    let met: Vec<usize> = others.iter().copied().filter(|_| draws.yes(400)).collect();
    let fallback = others.first().copied().filter(|_| met.is_empty());
    edges.extend(met.into_iter().chain(fallback).map(|other| (nodes, other)));
    // Some are made so late that both may go on for equally long, and fall silent with the same number of events.
    let mut late = chance.draws("late copy", 0);
    let is_late = late.yes(300);
    let from = if is_late { quiet_at - late.within((50, 400)) } else { 50 };
    let at = draws.within((from, quiet_at - 1));
    items.push(Item { at, what: What::Copy { node, onto: nodes } });
    items.push(Item { at, what: What::Restart { node: nodes } });
    let spaces: Vec<usize> = writers.iter().filter(|(writer, _)| *writer == node).map(|(_, space)| *space).collect();
    let count = draws.within((1, 12));
    for number in 0..if is_late { late.within((1, 2)) } else { count } {
        let mut draws = chance.draws("write of a copy", number);
        let at = draws.within((at, quiet_at - 1));
        let (space, keys) = (*draws.pick(&spaces), 3);
        let requests = vec![request(&mut draws, keys)];
        items.push(Item { at, what: What::Write { node: nodes, space, requests } });
    }
}

/// Adds a node that is a member of nothing and connects. Its users try to write, and so do users of readers.
fn outsider(
    chance: Chance,
    nodes: usize,
    spaces: usize,
    edges: &mut Vec<(usize, usize)>,
    quiet_at: Millis,
    items: &mut Vec<Item>,
) {
    let mut draws = chance.draws("outsider", 0);
    meet(&mut draws, nodes, nodes, edges);
    let readers = items.iter().filter_map(|item| match item.what {
        What::Redeem { node, space, role: Role::Reader, .. } => Some((node, space)),
        _ => None,
    });
    let trespassers: Vec<(usize, usize)> = readers.chain((0..spaces).map(|space| (nodes, space))).collect();
    for number in 0..draws.within((1, 12)) {
        let mut draws = chance.draws("write of an outsider", number);
        let (node, space) = *draws.pick(&trespassers);
        let requests = vec![request(&mut draws, 3)];
        items.push(Item { at: draws.below(quiet_at), what: What::Write { node, space, requests } });
    }
}

/// Adds a node on which nobody depends, and which turns hostile. It is a reader, a writer or a member of nothing, and
/// each space has its own opinion.
fn hostile(
    chance: Chance,
    nodes: usize,
    spaces: usize,
    edges: &mut Vec<(usize, usize)>,
    quiet_at: Millis,
    items: &mut Vec<Item>,
) {
    let mut draws = chance.draws("hostile", 0);
    // Node 0 owns every space and invites it.
    meet(&mut draws, nodes, nodes, edges);
    if !edges.contains(&(nodes, 0)) {
        edges.push((nodes, 0));
    }
    for space in 0..spaces {
        let role = *draws.pick(&[None, Some(Role::Reader), Some(Role::Writer), Some(Role::Writer)]);
        let Some(role) = role else { continue };
        items.push(Item { at: draws.below(300), what: What::Redeem { node: nodes, space, from: 0, role } });
        for number in 0..draws.within((4, 20)) {
            let mut draws = chance.draws("write of a hostile node", (space as u64) << 32 | number);
            let requests = vec![request(&mut draws, 3)];
            items.push(Item { at: draws.below(quiet_at), what: What::Write { node: nodes, space, requests } });
        }
    }
    items.push(Item { at: draws.below(quiet_at / 3), what: What::Hostile { node: nodes } });
}

/// Connects a new node to one or more of those that there are.
fn meet(draws: &mut Draws, new: usize, nodes: usize, edges: &mut Vec<(usize, usize)>) {
    let share = *draws.pick(&[0, 400, 1000]);
    let first = draws.below(nodes as u64);
    edges.extend((0..nodes).filter(|other| *other as u64 == first || draws.yes(share)).map(|other| (new, other)));
}

/// Adds one kind of fault to a scenario.
fn harm(
    chance: Chance,
    fault: &'static str,
    nodes: usize,
    edges: &[(usize, usize)],
    quiet_at: Millis,
    items: &mut Vec<Item>,
) {
    let mut draws = chance.draws(fault, 0);
    let mut add = |at: Millis, what: What| items.push(Item { at, what });
    let node = |draws: &mut Draws| usize::try_from(draws.below(nodes as u64)).unwrap_or(0);
    let calm = Weather { delay_ms: (1, 20), loss: 0, duplicate: 0, reorder: 0 };
    let times = draws.within((1, 4));
    for _ in 0..times {
        let from_ms = draws.below(quiet_at);
        let to_ms = (from_ms + draws.within((10, quiet_at / 2))).min(quiet_at - 1);
        let Some(&(a, b)) = (!edges.is_empty()).then(|| draws.pick(edges)) else { return };
        let (from, to) = if draws.yes(500) { (a, b) } else { (b, a) };
        match fault {
            "loss" | "duplicate" | "reorder" | "delay" => {
                let rate = *draws.pick(&[20, 100, 400]);
                let weather = match fault {
                    "loss" => Weather { loss: rate, ..calm },
                    "duplicate" => Weather { duplicate: rate, ..calm },
                    "reorder" => Weather { reorder: rate, delay_ms: (1, 80), ..calm },
                    _ => Weather { delay_ms: (50, *draws.pick(&[300, 1500, 4000])), ..calm },
                };
                add(from_ms, What::Weather { from, to, weather });
                if draws.yes(700) {
                    add(to_ms, What::Weather { from, to, weather: calm });
                }
            }
            "cut" => {
                // One node alone, or one edge.
                let alone = draws.yes(500).then(|| node(&mut draws));
                for (a, b) in edges {
                    if alone.map_or((*a, *b) == (from.max(to), from.min(to)), |alone| *a == alone || *b == alone) {
                        for (from, to) in [(*a, *b), (*b, *a)] {
                            add(from_ms, What::Cut { from, to });
                            add(to_ms, What::Heal { from, to });
                        }
                    }
                }
            }
            "one-way" => {
                add(from_ms, What::Cut { from, to });
                add(to_ms, What::Heal { from, to });
            }
            "drop" => add(from_ms, What::Drop { a, b }),
            "crash" => {
                let node = node(&mut draws);
                add(from_ms, What::Crash { node });
                let down_ms = if draws.yes(500) { 20 } else { 1500 };
                let restart = from_ms + draws.below(down_ms);
                add(restart.min(quiet_at - 1), What::Restart { node });
            }
            "put-back" => {
                let node = node(&mut draws);
                add(from_ms, What::Save { node });
                add(to_ms, What::PutBack { node });
                add((to_ms + draws.below(200)).min(quiet_at - 1), What::Restart { node });
            }
            "disk" => {
                let node = node(&mut draws);
                let fault = if draws.yes(500) { DiskFault::Lost } else { DiskFault::Landed };
                add(from_ms, What::DiskFails { node, fault });
            }
            "slow-disk" => {
                let node = node(&mut draws);
                add(from_ms, What::DiskSpeed { node, ms: (20, *draws.pick(&[100, 800, 3000])) });
                add(to_ms, What::DiskSpeed { node, ms: (1, 10) });
            }
            other => unreachable!("{other} is no fault"),
        }
    }
}

/// Adds one kind of fault of a medium to a scenario.
fn harm_medium(chance: Chance, fault: &'static str, nodes: usize, quiet_at: Millis, items: &mut Vec<Item>) {
    let mut draws = chance.draws(fault, 0);
    for _ in 0..draws.within((1, 4)) {
        let node = usize::try_from(draws.below(nodes as u64)).unwrap_or(0);
        let from_ms = draws.below(quiet_at);
        let to_ms = (from_ms + draws.within((10, quiet_at / 2))).min(quiet_at - 1);
        let mut add = |at: Millis, fault: MediumFault| items.push(Item { at, what: What::Medium { node, fault } });
        match fault {
            "crash-at" => {
                // In a commit, and then perhaps in the recovery from it.
                let first = draws.within((1, 40));
                let again = (0..*draws.pick(&[0, 1, 1, 3])).map(|_| draws.within((1, 8)));
                add(from_ms, MediumFault::CrashAt([first].into_iter().chain(again.collect::<Vec<_>>()).collect()));
            }
            "io-error" => {
                add(from_ms, MediumFault::Fails { after: draws.below(60), times: *draws.pick(&[1, 1, 3, 30]) });
            }
            "full" => {
                add(from_ms, MediumFault::Full(true));
                add(to_ms, MediumFault::Full(false));
            }
            "rot" => add(from_ms, MediumFault::Rot(draws.below(1 << 32))),
            "misdirect" => {
                add(from_ms, MediumFault::Misdirects { after: draws.below(20), to: draws.below(1 << 32) });
            }
            "lying-sync" => {
                add(from_ms, MediumFault::Lies(true));
                add(to_ms, MediumFault::Lies(false));
                let crash_ms = draws.within((from_ms, to_ms));
                items.push(Item { at: crash_ms, what: What::Crash { node } });
                let at = (crash_ms + draws.below(300)).min(quiet_at - 1);
                items.push(Item { at, what: What::Restart { node } });
            }
            other => unreachable!("{other} is no fault of a medium"),
        }
    }
}

//! A world in words: what was done in it, and what it means that an invariant is broken.

use thence::model::Request;

use crate::world::{DiskFault, Item, Scenario, What};

/// What a user would suffer, invariant by invariant.
pub(super) fn meaning(invariant: &str) -> &'static str {
    match invariant {
        "durability" => {
            "Something that a user was told is written is gone, or never comes to a node that must have it."
        }
        "commit before send" => {
            "A node showed others what is not on its own disk: were it to crash now, it would write something else under \
             the same name."
        }
        "the equation" => {
            "An object is not what the known events make of it: a write is missing, came back, or is altered."
        }
        "convergence" => "When all has calmed down, nodes that should be alike are not.",
        "liveness" => "Long after everything was well again, nodes are still not in step.",
        "causal order" => "An event stands before something that it builds on, or says the wrong thing of its past.",
        "true claims" => {
            "A node says that it has something which it has not, or believes that of another: nobody will send it."
        }
        "one dot, one event" => "Two different events bear one name.",
        "vector and log in one batch" => "What a node says it knows and what is in its log differ.",
        "feed" => "Whoever follows this node's changes has something else than the node shows.",
        "no trespass" => "A device got to see, or to write, what it may not.",
        "no honest peer is accused" => "A node ended the connection to a peer that did nothing wrong.",
        "no failure without a fault" => "Something failed although nothing went wrong.",
        "no panic" => "The code panicked.",
        "no storms" | "bounded" => "More is sent, or kept, than there is a limit for.",
        "a write does what was asked" => "What a user sees after a write is not what the write asked for.",
        "no lost update" => "Something that somebody wrote, and nobody wrote over, is nowhere to be seen.",
        "no name is used again" => "A store writes under names that its lost events may bear.",
        "bounded window" => "More is on its way to one peer than it was to have at once.",
        "no stalls without a fault" => "Nodes wait for one another although nothing went wrong.",
        "thin clients miss nothing" => {
            "A thin client was told that it has everything, and shows something else than the node does."
        }
        "an id takes effect once" => "A thin client sent a write again, as it should, and it took effect twice.",
        "no reset without a cause" => {
            "A thin client has to begin anew, though nothing happened that makes it necessary."
        }
        "a wipe is clean" => "A part of a space is seen, or counts, though an owner wiped the space before.",
        "a wipe leaves nobody out" => "Whoever wiped a space left somebody out who was a member of it.",
        "nothing is left of what was wiped" => "What was wiped lies on the disk for ever.",
        "totals and indexes" => "What is counted or listed is not what is there.",
        "readable log" => "What lies on the disk cannot be read any more.",
        crate::application::APPLICATION => "What the application counts on does not hold.",
        _ => "",
    }
}

/// What users ask for.
pub(crate) fn requests_in_words(requests: &[Request]) -> String {
    let each = requests.iter().map(|request| {
        let operation = match serde_json::to_value(&request.operation).unwrap_or_default() {
            serde_json::Value::String(name) => name,
            serde_json::Value::Object(map) => {
                map.into_iter().map(|(name, what)| format!("{name} {what}")).collect::<Vec<_>>().join(" ")
            }
            other => other.to_string(),
        };
        format!("{}/{} {operation}", request.collection, request.key)
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Who there is.
pub(super) fn beginning(scenario: &Scenario) -> String {
    let Scenario { nodes, spaces, edges, .. } = scenario;
    let edges: Vec<String> = edges.iter().map(|(a, b)| format!("{a}–{b}")).collect();
    let spaces = if *spaces == 1 { "one space".to_owned() } else { format!("{spaces} spaces") };
    match (nodes, edges.is_empty()) {
        (1, _) => format!("One node, which owns {spaces}."),
        (_, true) => format!("{nodes} nodes, none connected to another. Node 0 owns {spaces}."),
        _ => format!("{nodes} nodes, connected as {}. Node 0 owns {spaces}.", edges.join(", ")),
    }
}

/// Something that is done, or that goes wrong.
pub(super) fn in_words(item: &Item) -> String {
    match &item.what {
        What::Write { node, space, requests } => {
            format!("A user at node {node} writes into space {space}: {}", requests_in_words(requests))
        }
        What::Resave { node, space, collection, key } => format!(
            "A user at node {node} opens {collection}/{key} in space {space} and saves it whole, with another title."
        ),
        What::Decide { node, space } => {
            format!("A user at node {node} decides a conflict in space {space} for what is shown.")
        }
        What::Upload { client, node, space, requests } => {
            let words = requests_in_words(requests);
            format!("Client {client} of space {space} writes, by way of node {node}: {words}")
        }
        What::Fetch { client, node, space, limit } => {
            format!("Client {client} of space {space} asks node {node} for what is new, in pages of {limit}.")
        }
        What::Forget { node, space, older_ms } => format!(
            "Node {node} forgets what was deleted in space {space}, and by which ids clients wrote, more than {older_ms} ms ago."
        ),
        What::Wipe { node, space } => {
            format!("A user at node {node} wipes space {space}: all of it is to be gone, everywhere.")
        }
        What::Redeem { node, space, from, role } => {
            format!("Node {node} is invited by node {from} to space {space}, as {role}.")
        }
        What::Crash { node } => format!("Node {node} crashes."),
        What::Restart { node } => format!("Node {node} starts again on what its disk holds."),
        What::Cut { from, to } => format!("Nothing gets from node {from} to node {to} any more."),
        What::Heal { from, to } => format!("Messages get from node {from} to node {to} again."),
        What::Weather { from, to, weather } => {
            format!(
                "From node {from} to node {to}, messages now take {}–{} ms; of a thousand, {} are lost, {} come twice, {} \
                 overtake others.",
                weather.delay_ms.0, weather.delay_ms.1, weather.loss, weather.duplicate, weather.reorder
            )
        }
        What::Damage { from, to, per_mille } => {
            format!("From node {from} to node {to}, {per_mille} of a thousand datagrams come damaged.")
        }
        What::Narrow { from, to, bytes } => {
            format!("From node {from} to node {to}, no datagram longer than {bytes} bytes gets through.")
        }
        What::Move { node } => format!("Node {node} is seen at another address by those that it dials."),
        What::Pause { node, ms } => format!("Nothing of node {node} runs for {ms} ms."),
        What::Clock { node, ms } => format!("Node {node}’s clock is wrong by {ms} ms."),
        What::Drop { a, b } => format!("The connection between node {a} and node {b} breaks."),
        What::Save { node } => format!("A backup of node {node}’s whole disk is made."),
        What::PutBack { node } => format!("Node {node}’s disk is put back to that backup."),
        What::Copy { node, onto } => format!("Node {node}’s disk and key are copied onto node {onto}."),
        What::Hostile { node } => format!("Node {node} turns hostile: from now on it says what it likes."),
        What::DiskFails { node, fault: DiskFault::Lost } => {
            format!("Node {node}’s next commit fails, and nothing of it is on the disk.")
        }
        What::DiskFails { node, fault: DiskFault::Landed } => {
            format!("Node {node}’s next commit is called failed, and is on the disk nevertheless.")
        }
        What::Medium { node, fault } => format!("At node {node}, {}.", fault.in_words()),
        What::DiskSpeed { node, ms: (low, high) } => format!("Node {node}’s disk takes {low}–{high} ms from now on."),
    }
}

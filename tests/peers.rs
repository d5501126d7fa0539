//! The contract of the command line where others come in: watches, peers, sync, status, tickets and roles.

mod house;

use std::collections::BTreeSet;
use std::net::UdpSocket;

use house::{
    ATLAS as SPACE, DONE, Device, FAILED, NOT_FOUND, PATIENCE, TIMED_OUT, alone, alone_with_fez, changes_nothing,
    eventually, parse_export, position_of, same,
};
use serde_json::{Value, json};

// ------------------------------------------------------------------------------------------------------------- watch

#[test]
fn a_watch_goes_on_from_a_position() {
    let (a, b) = (alone(), Device::new("B"));
    let _node_a = a.start_node(&[]);
    let _node_b = b.start_node(&[]);
    a.share(SPACE, "owner", &b);
    b.ok(&["sync"]);

    let start = b.position(SPACE);
    b.ok(&["put", SPACE, "places", "fez", r#"{"people":1}"#]);
    a.ok(&["put", SPACE, "places", "haifa", r#"{"people":2}"#]);
    b.ok(&["sync"]);
    b.ok(&["put", SPACE, "places", "kyoto", r#"{"people":3}"#]);
    b.ok(&["delete", SPACE, "places", "kyoto"]);
    b.ok(&["patch", SPACE, "places", "fez", r#"{"people":4}"#]);

    // Each object stands at its latest change.
    let changes = b.changes_since(SPACE, &start);
    let seen: Vec<_> = changes.iter().map(|change| (change["key"].clone(), change["op"].clone())).collect();
    let last: Vec<_> =
        [("haifa", "put"), ("kyoto", "delete"), ("fez", "put")].map(|(k, op)| (json!(k), json!(op))).into();
    let mut newest = Vec::new();
    for (index, change) in seen.iter().enumerate() {
        if !seen[index + 1..].iter().any(|later| later.0 == change.0) {
            newest.push(change.clone());
        }
    }
    assert_eq!(newest, last, "{changes:#?}");
    let by_key = |key: &str| changes.iter().rev().find(|change| change["key"] == key).expect("checked above");
    assert_eq!(by_key("fez")["fields"], json!({"people": 4}));
    assert_eq!(by_key("fez")["by"], "local");
    assert_eq!(by_key("haifa")["by"], a.id());
    assert_eq!(by_key("haifa")["collection"], "places");

    // From the middle: what comes after it, and nothing twice.
    let middle = position_of(by_key("kyoto"));
    let rest = b.changes_since(SPACE, &middle);
    assert_eq!(rest.iter().map(|change| &change["key"]).collect::<Vec<_>>(), ["fez"]);

    // And live: a change of another device comes by itself.
    let end = position_of(rest.last().expect("one change"));
    let mut watch = b.watch(SPACE, &["--from", &end]);
    a.ok(&["put", SPACE, "places", "live", r#"{"from":"A"}"#]);
    let mut change = watch.next(PATIENCE);
    while change["key"] == "end" {
        change = watch.next(PATIENCE); // the markers of the questions before
    }
    assert_eq!((&change["key"], &change["op"], &change["by"]), (&json!("live"), &json!("put"), &json!(a.id())));
    assert_eq!(change["fields"], json!({"from": "A"}));
}

// ----------------------------------------------------------------------------------------------------- peers and sync

#[test]
fn peers_are_remembered_listed_and_removed() {
    let (a, b, c) = (Device::new("A"), Device::new("B"), Device::new("C"));
    let address = "127.0.0.1:9";
    a.ok(&["peer", "add", &format!("{}@{address}", b.id())]);
    let expected = json!([{"device": b.id(), "address": address, "connected": false}]);
    assert_eq!(a.json(&["peer", "list"]), expected);
    a.ok(&["peer", "add", &format!("{}@{address}", b.id())]);
    assert_eq!(a.json(&["peer", "list"]), expected, "adding twice is adding");

    // One that was given to a node once is remembered after it.
    a.start_node(&["--peer", &format!("{}@{address}", c.id())]).terminate();
    let devices = |list: Value| -> BTreeSet<String> {
        list.as_array().expect("a list").iter().map(|peer| peer["device"].as_str().expect("an id").into()).collect()
    };
    assert_eq!(devices(a.json(&["peer", "list"])), [b.id(), c.id()].map(str::to_owned).into());

    a.ok(&["peer", "remove", b.id()]);
    assert_eq!(devices(a.json(&["peer", "list"])), [c.id().to_owned()].into());
    a.run(&["peer", "remove", b.id()]).expect(NOT_FOUND);
    a.ok(&["peer", "remove", c.id()]);
    assert_eq!(a.json(&["peer", "list"]), json!([]));
}

#[test]
fn a_peer_that_is_added_to_a_running_node_is_connected() {
    let (a, b) = (Device::new("A"), Device::new("B"));
    let node_a = a.start_node(&[]);
    let _node_b = b.start_node(&[]);
    b.ok(&["peer", "add", &node_a.peer()]);
    eventually(PATIENCE, "B is connected with A", || b.json(&["peer", "list"])[0]["connected"] == true);
    let peer = b.json(&["peer", "list"])[0].clone();
    assert_eq!((&peer["device"], &peer["address"]), (&json!(a.id()), &json!(node_a.address().to_string())));
}

#[test]
fn sync_without_peers_is_done_and_says_so() {
    let device = alone_with_fez();
    for _ in 0..2 {
        let outcome = device.run(&["sync"]).expect(DONE);
        assert!((outcome.stdout + &outcome.stderr).contains("peer"), "says that there are no peers");
        device.json(&["sync"]);
    }
    let _node = device.start_node(&[]);
    device.run(&["sync"]).expect(DONE);
}

#[test]
fn sync_names_the_peers_that_it_did_not_reach() {
    let device = alone_with_fez();
    // Somebody has this port and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let silent_peer = Device::new("silent");
    let address = silent.local_addr().expect("an address");
    device.ok(&["peer", "add", &format!("{}@{address}", silent_peer.id())]);

    device.run(&["sync"]).expect(TIMED_OUT).says(silent_peer.id());
    let outcome = device.run_json(&["sync"]).expect(TIMED_OUT);
    assert!((outcome.stdout + &outcome.stderr).contains(silent_peer.id()));
    {
        let _node = device.start_node(&[]);
        device.run(&["sync"]).expect(TIMED_OUT).says(silent_peer.id());
    }

    // With one that answers beside it, the sync is done, and still names the other.
    let friend = Device::new("friend");
    let node = friend.start_node(&[]);
    device.ok(&["peer", "add", &node.peer()]);
    device.run(&["sync"]).expect(DONE).says(silent_peer.id());
}

#[test]
fn a_peer_that_is_someone_else_counts_as_not_reached() {
    let (a, b, c) = (Device::new("A"), Device::new("B"), Device::new("C"));
    let node = b.start_node(&[]);
    a.ok(&["peer", "add", &format!("{}@{}", c.id(), node.address())]);
    a.run(&["sync"]).expect(TIMED_OUT).says(c.id());
}

#[test]
fn sync_works_without_a_node_on_the_side_that_asks() {
    let (a, b) = (alone_with_fez(), Device::new("B"));
    let _node = a.start_node(&[]);
    a.share(SPACE, "owner", &b);
    b.ok(&["sync"]);
    b.ok(&["patch", SPACE, "places", "fez", r#"{"people":2}"#]);
    b.ok(&["sync"]);
    assert_eq!(a.fields(SPACE, "places", "fez"), json!({"name": "Fez", "people": 2}));
    same(&[&a, &b], &["export", SPACE]);
}

#[test]
fn status_says_what_is_not_synced_yet_and_why() {
    let (a, b) = (alone_with_fez(), Device::new("B"));
    let node_a = a.start_node(&[]);
    let _node_b = b.start_node(&[]);
    a.share(SPACE, "owner", &b);
    b.ok(&["sync"]);
    let peer = |device: &Device, other: &Device| {
        let peers = device.status(SPACE)["peers"].clone();
        let found = peers.as_array().and_then(|all| all.iter().find(|peer| peer["device"] == other.id()).cloned());
        found.unwrap_or_else(|| panic!("no peer {} in {peers}", other.id()))
    };
    let synced = peer(&b, &a);
    assert_eq!((&synced["behind_events"], &synced["ahead_events"]), (&json!(0), &json!(0)), "{synced}");
    assert!(synced["last_synced_ms"].is_number(), "{synced}");
    b.ok(&["status", "--check"]);

    node_a.kill();
    b.ok(&["patch", SPACE, "places", "fez", r#"{"people":2}"#]);
    b.run(&["sync"]).expect(TIMED_OUT);
    let waiting = peer(&b, &a);
    assert!(waiting["ahead_events"].as_u64().is_some_and(|events| events > 0), "B has what A lacks: {waiting}");
    assert!(waiting["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{waiting}");
    assert_ne!(waiting["state"], synced["state"]);
    b.run(&["status", "--check"]).expect(FAILED);
}

// ----------------------------------------------------------------------------------------------------------- tickets

#[test]
fn a_ticket_is_printed_alone_and_admits_as_often_as_it_says() {
    let a = alone_with_fez();
    let _node = a.start_node(&[]);
    let printed = a.ok(&["invite", SPACE, "--uses", "2"]);
    let ticket = printed.trim();
    assert_eq!(printed.lines().count(), 1);
    assert!(!ticket.is_empty() && !ticket.contains(char::is_whitespace), "{printed:?}");

    for name in ["first", "second"] {
        let guest = Device::new(name);
        guest.ok(&["join", ticket]);
        guest.ok(&["sync"]);
        same(&[&a, &guest], &["export", SPACE]);
    }
    let third = Device::new("third");
    let outcome = third.run_json(&["join", ticket]).expect(FAILED);
    outcome.error();
    assert_eq!(third.json(&["space", "list"]), json!([]), "a used ticket gives nothing");
}

#[test]
fn a_forged_ticket_admits_nobody() {
    let a = alone_with_fez();
    let _node = a.start_node(&[]);
    let invite = || a.ok(&["invite", SPACE]).trim().to_owned();
    let (one, other) = (invite(), invite());
    assert_ne!(one, other, "every ticket is its own");

    // Where two good tickets differ, there is what makes them good: put a piece of one into the other.
    let differing: Vec<usize> =
        one.bytes().zip(other.bytes()).enumerate().filter(|(_, (x, y))| x != y).map(|(at, _)| at).collect();
    let thief = Device::new("thief");
    for at in [differing[differing.len() / 2], differing[differing.len() * 3 / 4]] {
        let mut forged = one.clone();
        forged.replace_range(at..=at, &other[at..=at]);
        let outcome = thief.run_json(&["join", &forged]).expect(FAILED);
        outcome.error();
        assert_eq!(thief.json(&["space", "list"]), json!([]));
    }
    for wrong in ["not-a-ticket", "", &one[..one.len() / 2]] {
        thief.run(&["join", wrong]).refused();
    }
    // The true one still works: the attempts used up nothing.
    thief.ok(&["join", &one]);
}

#[test]
fn an_expired_ticket_admits_nobody() {
    let a = alone_with_fez();
    let _node = a.start_node(&[]);
    let printed = a.ok(&["invite", SPACE, "--expires", "1s", "--uses", "1000"]);
    eventually(PATIENCE, "the ticket expires", || {
        let guest = Device::new("late");
        let outcome = guest.run(&["join", printed.trim()]);
        if outcome.code == Some(DONE) {
            return false;
        }
        outcome.expect(FAILED).says("expired");
        assert_eq!(guest.json(&["space", "list"]), json!([]));
        true
    });
}

#[test]
fn a_ticket_whose_host_is_away_fails_in_bounded_time() {
    let (a, guest) = (alone_with_fez(), Device::new("guest"));
    let node = a.start_node(&[]);
    let ticket = a.ok(&["invite", SPACE]);
    node.kill();
    let outcome = guest.run(&["join", ticket.trim()]);
    assert!(matches!(outcome.code, Some(FAILED | TIMED_OUT)), "{outcome:?}");
    assert!(!outcome.stderr.trim().is_empty());
}

#[test]
fn a_role_allows_what_it_says() {
    let (a, reader, writer) = (alone_with_fez(), Device::new("reader"), Device::new("writer"));
    let _node = a.start_node(&[]);
    a.share(SPACE, "reader", &reader);
    a.share(SPACE, "writer", &writer);
    for guest in [&reader, &writer] {
        guest.ok(&["sync"]);
        assert_eq!(guest.fields(SPACE, "places", "fez")["name"], "Fez");
    }
    assert_eq!(reader.json(&["space", "list"])[0]["role"], "reader");
    assert_eq!(writer.json(&["space", "list"])[0]["role"], "writer");

    changes_nothing(&reader, &["put", SPACE, "places", "fez", "{}"]).expect(FAILED);
    changes_nothing(&reader, &["increment", SPACE, "places", "fez", "visits", "1"]).expect(FAILED);
    changes_nothing(&reader, &["delete", SPACE, "places", "fez"]).expect(FAILED);
    for guest in [&reader, &writer] {
        changes_nothing(guest, &["invite", SPACE]).expect(FAILED);
    }
    writer.ok(&["patch", SPACE, "places", "fez", r#"{"by":"writer"}"#]);
    writer.ok(&["sync"]);
    reader.ok(&["sync"]);
    let exports = same(&[&a, &reader, &writer], &["export", SPACE]);
    assert!(parse_export(&exports).values().any(|fields| fields["by"] == "writer"));
}

#[test]
fn tickets_that_are_redeemed_at_once_get_each_its_own_answer() {
    let (a, b, c) = (Device::new("A"), Device::new("B"), Device::new("C"));
    let _node_a = a.start_node(&[]);
    let _node_b = b.start_node(&[]);
    let invited: Vec<(String, String)> = (0..8)
        .map(|number| {
            let name = format!("space-{number}");
            a.ok(&["space", "create", &name]);
            let ticket = a.ok(&["invite", &name]).trim().to_owned();
            (name, ticket)
        })
        .collect();
    // Every other one was used by somebody else before.
    for (_, ticket) in invited.iter().step_by(2) {
        c.ok(&["join", ticket]);
    }
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let joins: Vec<_> =
            invited.iter().map(|(_, ticket)| scope.spawn(|| b.run(&["join", ticket.as_str()]))).collect();
        joins.into_iter().map(|join| join.join().expect("a command ends")).collect()
    });
    for (number, outcome) in outcomes.into_iter().enumerate() {
        if number % 2 == 0 {
            outcome.expect(FAILED).says("used");
        } else {
            let said = outcome.expect(DONE).stdout;
            assert!(said.contains(&invited[number].0), "{said}");
        }
    }
    let spaces = b.json(&["space", "list"]);
    let names: Vec<_> = spaces.as_array().expect("a list").iter().map(|space| space["name"].clone()).collect();
    assert_eq!(names, ["space-1", "space-3", "space-5", "space-7"]);
}

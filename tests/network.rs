//! What passes between nodes, how much of it, and what a bad network does to them: nothing lasting.
//!
//! Bytes are counted by a proxy between two nodes and judged as ratios: of a small space and a large one, side by side
//! in the same test.

mod house;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use house::proxy::Proxy;
use house::{
    DONE, Device, PATIENCE, RunningNode, TIMED_OUT, eventually, lasting_address, made_up_rows, rows, same, settle,
    write_rows,
};
use serde_json::json;

const SPACE: &str = "atlas";

/// How many objects the small and the large space have. `THENCE_TEST_OBJECTS` makes the large one larger.
const SMALL: usize = 1_000;

fn large() -> usize {
    let wish = std::env::var("THENCE_TEST_OBJECTS").ok();
    wish.map_or(20_000, |count| count.parse().expect("THENCE_TEST_OBJECTS is a number"))
}

/// A server A and a client B with one space in common. B reaches A through a proxy, and in no other way: after they
/// have met, both have moved to other ports, and B was only told of the proxy's.
struct Pair {
    a: Device,
    b: Device,
    proxy: Proxy,
    address_a: SocketAddr,
    node_a: Option<RunningNode>,
    node_b: Option<RunningNode>,
}

impl Pair {
    #[track_caller]
    fn with_objects(count: usize) -> Self {
        let (a, b) = (Device::new("A"), Device::new("B"));
        a.ok(&["space", "create", SPACE]);
        if count > 0 {
            let file = a.beside("rows.jsonl");
            write_rows(&file, &made_up_rows("r", count));
            a.import(SPACE, "rows", &file, "id");
        }
        let node = a.start_node(&[]);
        a.share(SPACE, "owner", &b);
        b.ok(&["sync"]);
        node.terminate();

        let address_a = lasting_address();
        let node_a = a.start_node_at(address_a, &[]);
        let proxy = Proxy::before(address_a);
        // Whether a second address of the same device replaces the first is not ours to know: only one may be left.
        let _ = b.run(&["peer", "remove", a.id()]);
        b.ok(&["peer", "add", &node_a.peer_at(proxy.address())]);
        let node_b = b.start_node(&[]);
        b.ok(&["sync"]);
        assert!(proxy.bytes() > 0, "B and A talk through the proxy");
        Self { a, b, proxy, address_a, node_a: Some(node_a), node_b: Some(node_b) }
    }

    #[track_caller]
    fn stop_b(&mut self) {
        self.node_b.take().expect("B's node runs").terminate();
    }

    /// B's node starts, and syncs; the bytes that passed, and the time that the sync took.
    #[track_caller]
    fn reconnect_b(&mut self) -> (u64, Duration) {
        let before = self.proxy.bytes();
        self.node_b = Some(self.b.start_node(&[]));
        let (_, time) = self.sync_b();
        (self.proxy.bytes() - before, time)
    }

    #[track_caller]
    fn sync_b(&self) -> (u64, Duration) {
        let (before, start) = (self.proxy.bytes(), Instant::now());
        self.b.ok(&["sync"]);
        (self.proxy.bytes() - before, start.elapsed())
    }

    #[track_caller]
    fn assert_same(&self) {
        same(&[&self.a, &self.b], &["export", SPACE]);
    }

    /// Without any command that would make a node hurry.
    #[track_caller]
    fn become_same(&self) {
        eventually(PATIENCE, "A and B know the same again", || {
            self.a.ok(&["export", SPACE]) == self.b.ok(&["export", SPACE])
        });
    }
}

/// The least of several rounds, small and large taking turns: what else goes on only ever adds.
fn least_of<T: Ord + Copy>(
    small: &mut Pair,
    large: &mut Pair,
    mut measure: impl FnMut(&mut Pair, usize) -> T,
) -> (T, T) {
    let rounds: Vec<(T, T)> = (0..5).map(|round| (measure(small, round), measure(large, round))).collect();
    let least = |side: fn(&(T, T)) -> T| rounds.iter().map(side).min().expect("five rounds");
    (least(|round| round.0), least(|round| round.1))
}

#[test]
fn the_proxy_does_what_it_is_told() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    }
    let proxy = Proxy::before(server.local_addr().expect("an address"));
    let mut buffer = [0; 64];
    let mut at_server = |word: &str| {
        client.send_to(word.as_bytes(), proxy.address()).expect("local datagrams are sent");
        let (count, from) = server.recv_from(&mut buffer).expect("it arrives");
        (String::from_utf8_lossy(&buffer[..count]).into_owned(), from)
    };
    let (word, first_port) = at_server("one");
    assert_eq!(word, "one");
    assert_eq!(at_server("two"), ("two".to_owned(), first_port), "a client keeps its port");
    assert_eq!((proxy.bytes(), proxy.datagrams()), (6, 2));

    proxy.rebind();
    let (_, second_port) = at_server("three");
    assert_ne!(second_port, first_port);
    server.send_to(b"to the old port", first_port).expect("local datagrams are sent");
    server.send_to(b"to the new port", second_port).expect("local datagrams are sent");
    let mut answer = [0; 64];
    let (count, _) = client.recv_from(&mut answer).expect("it arrives");
    assert_eq!(&answer[..count], b"to the new port");

    proxy.cut();
    client.send_to(b"lost", proxy.address()).expect("local datagrams are sent");
    eventually(PATIENCE, "the lost datagram is counted", || proxy.datagrams() == 5);
    proxy.heal();
    proxy.delay(Duration::from_millis(1));
    assert_eq!(at_server("four").0, "four", "what was lost does not come later");
}

#[test]
fn what_a_reconnect_costs_does_not_depend_on_how_much_there_is() {
    let (mut small, mut large) = (Pair::with_objects(SMALL), Pair::with_objects(large()));

    // Nothing has changed.
    let times = std::cell::RefCell::new((Vec::new(), Vec::new()));
    let (few, many) = least_of(&mut small, &mut large, |pair, _| {
        pair.stop_b();
        let (bytes, time) = pair.reconnect_b();
        let mut times = times.borrow_mut();
        if times.0.len() > times.1.len() {
            times.1.push(time)
        } else {
            times.0.push(time)
        }
        bytes
    });
    // Most of it is the handshake. One byte for each object would more than double it.
    assert!(many * 2 < few * 3, "an idle reconnect took {few} bytes with few objects and {many} with many");
    let (quick, slow) = times.into_inner();
    let (quick, slow) = (quick.iter().min().expect("five rounds"), slow.iter().min().expect("five rounds"));
    assert!(*slow < *quick * 4, "an idle reconnect took {quick:?} with few objects and {slow:?} with many");

    // One object has changed meanwhile.
    let (few, many) = least_of(&mut small, &mut large, |pair, round| {
        pair.stop_b();
        pair.a.ok(&["patch", SPACE, "rows", "r000500", &json!({ "round": round }).to_string()]);
        let (bytes, _) = pair.reconnect_b();
        assert_eq!(pair.b.fields(SPACE, "rows", "r000500")["round"], round);
        bytes
    });
    assert!(many * 2 < few * 3, "a reconnect with one change took {few} bytes with few objects and {many} with many");
    small.assert_same();
    large.assert_same();
}

#[test]
fn what_one_change_costs_does_not_depend_on_how_much_there_is() {
    let (mut small, mut large) = (Pair::with_objects(SMALL), Pair::with_objects(large()));
    let mut change = |from_a: bool| {
        least_of(&mut small, &mut large, |pair, round| {
            let before = pair.proxy.bytes();
            let author = if from_a { &pair.a } else { &pair.b };
            author.ok(&["patch", SPACE, "rows", "r000500", &json!({ "round": round, "by A": from_a }).to_string()]);
            pair.sync_b();
            pair.proxy.bytes() - before
        })
    };
    for from_a in [true, false] {
        let (few, many) = change(from_a);
        // A kilobyte for acknowledgements and keep-alives that happened to fall in: a fraction of one byte per object.
        assert!(many < few * 2 + 1_000, "one change took {few} bytes among few objects and {many} among many");
    }
    small.assert_same();
    large.assert_same();
}

#[test]
fn a_client_whose_nat_moves_it_stays_connected() {
    let pair = Pair::with_objects(10);
    for round in 0..3 {
        pair.proxy.rebind();
        pair.b.ok(&["put", SPACE, "moves", &format!("b{round}"), r#"{"by":"B"}"#]);
        pair.become_same();
        pair.proxy.rebind();
        pair.a.ok(&["put", SPACE, "moves", &format!("a{round}"), r#"{"by":"A"}"#]);
        pair.b.ok(&["sync"]);
        pair.assert_same();
    }
}

#[test]
fn a_cut_network_is_noticed_and_heals_without_a_restart() {
    let pair = Pair::with_objects(10);
    pair.proxy.cut();
    pair.a.ok(&["put", SPACE, "cut", "a", r#"{"by":"A"}"#]);
    pair.b.ok(&["put", SPACE, "cut", "b", r#"{"by":"B"}"#]);
    pair.b.run(&["sync"]).expect(TIMED_OUT).says(pair.a.id());
    assert!(!pair.b.sees(SPACE, "cut", "a"));

    pair.proxy.heal();
    pair.become_same();
    assert!(pair.a.sees(SPACE, "cut", "b"));

    // And when somebody asks for it, at once.
    pair.proxy.cut();
    pair.a.ok(&["patch", SPACE, "cut", "b", r#"{"again":true}"#]);
    pair.b.run(&["sync", "--timeout", "10"]).expect(TIMED_OUT);
    pair.proxy.heal();
    pair.b.ok(&["sync"]);
    pair.assert_same();
}

#[test]
fn a_server_that_moves_is_found_again_behind_its_address() {
    let mut pair = Pair::with_objects(10);
    // Its address stays the same to the client; behind it, another port answers from now on.
    pair.node_a.take().expect("A's node runs").kill();
    let node_a = pair.a.start_node(&[]);
    pair.proxy.retarget(node_a.address());
    pair.a.ok(&["put", SPACE, "moves", "a", r#"{"by":"A"}"#]);
    pair.b.ok(&["put", SPACE, "moves", "b", r#"{"by":"B"}"#]);
    pair.become_same();
    pair.node_a = Some(node_a);
}

#[test]
fn a_node_that_is_restarted_is_found_again() {
    let mut pair = Pair::with_objects(10);
    for (round, gently) in [(0, true), (1, false), (2, true)] {
        let node = pair.node_a.take().expect("A's node runs");
        if gently {
            node.terminate();
        } else {
            node.kill();
        }
        pair.a.ok(&["put", SPACE, "away", &format!("a{round}"), r#"{"by":"A"}"#]);
        pair.b.ok(&["put", SPACE, "away", &format!("b{round}"), r#"{"by":"B"}"#]);
        pair.node_a = Some(pair.a.start_node_at(pair.address_a, &[]));
        pair.become_same();
    }
}

#[test]
fn a_lossy_and_slow_network_only_takes_longer() {
    let pair = Pair::with_objects(0);
    pair.proxy.lose_permille(100);
    pair.proxy.delay(Duration::from_millis(5));
    pair.a.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    pair.b.import(SPACE, "places", &rows("places.jsonl"), "code");
    pair.b.ok(&["sync"]);
    pair.assert_same();
    assert_eq!(pair.a.objects(SPACE).len(), 307 + 12);

    // Even where most of it is lost for a while.
    pair.proxy.lose_permille(700);
    pair.a.ok(&["put", SPACE, "places", "fez", r#"{"people":2}"#]);
    let outcome = pair.b.run(&["sync", "--timeout", "5"]);
    assert!(matches!(outcome.code, Some(DONE | TIMED_OUT)), "{outcome:?}");
    pair.proxy.lose_permille(0);
    pair.become_same();
}

#[test]
fn devices_that_cannot_reach_each_other_meet_through_a_third() {
    let (a, b, c) = (Device::new("A"), Device::new("B"), Device::new("C"));
    a.ok(&["space", "create", SPACE]);
    let _node_a = a.start_node(&[]);
    a.share(SPACE, "owner", &b);
    b.ok(&["sync"]);
    let _node_b = b.start_node(&[]);
    b.share(SPACE, "owner", &c);
    let _node_c = c.start_node(&[]);

    a.import(SPACE, "places", &rows("places.jsonl"), "code");
    c.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    settle(&[&b, &c]);
    b.ok(&["sync"]);
    same(&[&a, &b, &c], &["export", SPACE]);
    assert_eq!(a.objects(SPACE).len(), 307 + 12);

    // And by themselves, in both directions.
    a.ok(&["patch", SPACE, "places", "fez", r#"{"by":"A"}"#]);
    c.ok(&["patch", SPACE, "airports", "00M", r#"{"by":"C"}"#]);
    eventually(PATIENCE, "C has what A wrote and A what C wrote", || {
        c.fields(SPACE, "places", "fez")["by"] == "A" && a.fields(SPACE, "airports", "00M")["by"] == "C"
    });
    eventually(PATIENCE, "all know the same", || a.ok(&["export", SPACE]) == c.ok(&["export", SPACE]));
    same(&[&a, &b, &c], &["export", SPACE]);
}

#[test]
fn a_device_without_a_grant_gets_nothing_however_it_asks() {
    const SECRET: &str = "the treasure lies under the third palm";
    let (a, b, stranger) = (Device::new("A"), Device::new("B"), Device::new("stranger"));
    a.ok(&["space", "create", SPACE]);
    let id = a.space_id(SPACE);
    let node_a = a.start_node(&[]);
    a.share(SPACE, "writer", &b);
    let node_b = b.start_node(&[]);
    a.ok(&["put", SPACE, "notes", "treasure", &json!({ "text": SECRET }).to_string()]);
    b.ok(&["sync"]);

    // It knows the space's id and both of those that have it, and asks again while they write.
    stranger.ok(&["peer", "add", &node_a.peer()]);
    stranger.ok(&["peer", "add", &node_b.peer()]);
    let node = stranger.start_node(&[]);
    for round in 0..3 {
        a.ok(&["patch", SPACE, "notes", "treasure", &json!({ "round": round }).to_string()]);
        b.ok(&["put", SPACE, "notes", &format!("b{round}"), &json!({ "text": SECRET }).to_string()]);
        b.ok(&["sync"]);
        // Whether they talk to a stranger at all is theirs to decide.
        let outcome = stranger.run(&["sync"]);
        assert!(matches!(outcome.code, Some(DONE | TIMED_OUT)), "{outcome:?}");
        assert_eq!(stranger.json(&["space", "list"]), json!([]));
        assert_eq!(stranger.json(&["status"])["spaces"], json!([]));
    }

    // A space that it may not see and one that does not exist are the same to it, to the letter.
    let (all_but_one, last) = id.split_at(id.len() - 1);
    let unknown = format!("{all_but_one}{}", if last == "0" { "1" } else { "0" });
    for command in ["list", "export", "conflicts"] {
        let (known, unknown_too) = (stranger.run(&[command, &id]), stranger.run(&[command, &unknown]));
        assert_eq!(known.code, Some(house::NOT_FOUND));
        assert_eq!(known.code, unknown_too.code);
        assert_eq!(known.stderr.replace(&id, "ID"), unknown_too.stderr.replace(&unknown, "ID"));
    }
    stranger.run(&["put", &id, "notes", "treasure", r#"{"text":"mine"}"#]).expect(house::NOT_FOUND);

    node.terminate();
    for entry in fs::read_dir(stranger.data()).expect("its folder") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).unwrap_or_default();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|piece| piece == needle);
        assert!(!holds(SECRET.as_bytes()) && !holds(b"treasure"), "{} holds what it must not", path.display());
    }
    same(&[&a, &b], &["export", SPACE]);
}

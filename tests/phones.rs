//! A hundred phones against one relay that is killed again and again, with full nodes beside it.
//!
//! A phone is a program of its own: a sync point, an outbox, a local table. It loses answers, hangs up in the middle of
//! requests, and sends again what it was not told to have arrived. In the end everybody holds the same, what was
//! acknowledged is never sent again, and what was sent often counts once.

mod house;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use house::{Device, Dice, PATIENCE, RunningNode, parse_export, request};
use serde_json::{Map, Value, json};

const PHONES: usize = 100;
/// So many things each phone does while the relay is killed.
const STEPS: usize = 30;
const KILLS: usize = 4;
const DATABASE: &str = "/v1/customers/acme/databases/atlas";

/// Where the relay is at the moment, and what all phones share.
struct Town {
    relay: Mutex<SocketAddr>,
    token: String,
    /// Increments that phones were told to have been done.
    counted: AtomicU64,
    /// How often the relay said that it knew an id already.
    duplicates: AtomicU64,
    calm: AtomicBool,
}

/// One phone.
struct Phone<'t> {
    town: &'t Town,
    name: usize,
    dice: Dice,
    point: Option<String>,
    table: BTreeMap<(String, String), Map<String, Value>>,
    contexts: BTreeMap<(String, String), String>,
    outbox: Vec<Value>,
    written: usize,
    /// What was sent, without it being known whether it came.
    unsure: BTreeSet<String>,
}

impl<'t> Phone<'t> {
    fn new(town: &'t Town, name: usize) -> Self {
        let (table, contexts, outbox) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let (dice, unsure) = (Dice::new(name as u64), BTreeSet::new());
        Self { town, name, dice, point: None, table, contexts, outbox, written: 0, unsure }
    }

    /// Its user does something.
    fn write(&mut self) {
        self.written += 1;
        let id = format!("{}-{}", self.name, self.written);
        let own = format!("phone{}-{}", self.name, self.dice.below(4));
        let shared = format!("shared{}", self.dice.below(10));
        let at = |key: &str| ("rows".to_owned(), key.to_owned());
        let mut change = match self.dice.below(6) {
            0 => json!({"key": "visits", "op": "increment", "field": "count", "by": 1}),
            1 if self.table.contains_key(&at(&own)) => json!({"key": own, "op": "delete"}),
            2 | 3 => json!({"key": shared, "fields": {"by": self.name, "n": self.written}}),
            _ => json!({"key": own, "fields": {"n": self.written, "text": "x".repeat(self.dice.below(400) as usize)}}),
        };
        (change["table"], change["id"]) = ("rows".into(), id.into());
        let key = change["key"].as_str().expect("a key").to_owned();
        if let Some(context) = self.contexts.get(&at(&key)).filter(|_| change["op"] != "increment") {
            change["context"] = context.clone().into();
        }
        self.outbox.push(change);
    }

    /// Sends what it has and takes what there is. Returns whether there is more; none if no answer came.
    fn sync(&mut self) -> Option<bool> {
        // Of a row one change at a time: the next one is sent when this one is answered.
        let mut keys = BTreeSet::new();
        let sent: Vec<Value> =
            self.outbox.iter().take_while(|change| keys.insert(change["key"].to_string())).take(20).cloned().collect();
        let ids: BTreeSet<String> = sent.iter().map(id_of).collect();
        let body = json!({"changes": sent, "limit": 1 + self.dice.below(60)}).to_string();
        let calm = self.town.calm.load(Ordering::Relaxed);
        let fault = if calm { 9 } else { self.dice.below(10) };
        let answer = self.post(&body, fault);
        let Some((status, answer)) = answer else {
            self.unsure.extend(ids);
            return None;
        };
        match status {
            200 => {}
            429 | 503 => return None,
            410 => panic!("phone {}: nothing was wiped or put back: {answer}", self.name),
            _ => panic!("phone {}: {status} {answer}", self.name),
        }
        let results = answer["results"].as_array().expect("results");
        assert_eq!(results.len(), sent.len(), "each change is answered for");
        let mut done = BTreeSet::new();
        for (change, result) in sent.iter().zip(results) {
            let (id, status) = (id_of(change), result["status"].as_str().expect("a status"));
            assert_eq!((&result["key"], &result["id"]), (&change["key"], &change["id"]));
            match status {
                "retry" => continue,
                "duplicate" => {
                    assert!(self.unsure.contains(&id), "{id} was known before it was sent for the second time");
                    self.town.duplicates.fetch_add(1, Ordering::Relaxed);
                }
                "accepted" | "rejected" => {}
                other => panic!("{other}"),
            }
            // A delete of a row that somebody else deleted has nothing to do; everything else can be done.
            assert!(status != "rejected" || change["op"] == "delete", "{change}: {result}");
            if change["op"] == "increment" {
                self.town.counted.fetch_add(1, Ordering::Relaxed);
            }
            done.insert(id);
        }
        self.outbox.retain(|change| !done.contains(&id_of(change)));
        for change in answer["changes"].as_array().expect("changes") {
            let text = |name: &str| change[name].as_str().expect("text").to_owned();
            let at = (text("table"), text("key"));
            if change["op"] == "put" {
                self.table.insert(at.clone(), change["fields"].as_object().expect("fields").clone());
                self.contexts.insert(at, text("context"));
            } else {
                self.table.remove(&at);
                self.contexts.remove(&at);
            }
        }
        self.point = Some(answer["token"].as_str().expect("a token").to_owned());
        Some(answer["more"].as_bool().expect("more or not"))
    }

    /// What the relay answers; none if it does not, or if the phone has lost the answer.
    fn post(&mut self, body: &str, fault: u64) -> Option<(u16, Value)> {
        let address = *self.town.relay.lock().expect("no panic while it is held");
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let bearer = format!("Bearer {}", self.town.token);
        let mut headers =
            vec![("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("Connection", "close")];
        let name = format!("phone-{}", self.name);
        headers.push(("Client-Id", &name));
        headers.extend(self.point.as_deref().map(|point| ("Sync-Token", point)));
        let text = request("POST", &format!("{DATABASE}/sync"), &headers, Some(body));
        if fault == 0 {
            // It hangs up in the middle.
            let cut = self.dice.below(text.len() as u64) as usize;
            let _ = stream.write_all(&text.as_bytes()[..cut]);
            return None;
        }
        stream.write_all(text.as_bytes()).ok()?;
        if fault == 1 {
            return None;
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        if fault == 2 {
            return None;
        }
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let status = std::str::from_utf8(&answer[..end]).ok()?.split(' ').nth(1)?.parse().ok()?;
        // One that is cut short was never answered.
        Some((status, serde_json::from_slice(&answer[end + 4..]).ok()?))
    }

    /// Does what phones do while nothing can be relied upon.
    fn live(&mut self) {
        for _ in 0..STEPS {
            match self.dice.below(3) {
                0 => _ = self.sync(),
                _ => self.write(),
            }
            // People do not type faster than this; it is no wait for anything.
            thread::sleep(Duration::from_millis(self.dice.below(150)));
        }
    }

    /// Sends all that it has, and takes all that there is.
    fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.sync() != Some(false) || !self.outbox.is_empty() {
            assert!(Instant::now() < deadline, "phone {} does not get on", self.name);
        }
    }
}

fn id_of(change: &Value) -> String {
    change["id"].as_str().expect("an id").to_owned()
}

fn start(relay: &Device, peer: &str, town: &Town) -> RunningNode {
    let running = relay.start_relay(&["--peer", peer]);
    *town.relay.lock().expect("no panic while it is held") = running.http();
    running
}

#[test]
fn a_hundred_phones_and_a_relay_that_is_killed_come_to_one_state() {
    let (device, laptop) = (Device::new("relay"), Device::new("laptop"));
    let there = laptop.start_node(&[]);
    let token = device.ok(&["token", "create", "--customer", "acme", "--role", "owner"]).trim().to_owned();
    let nowhere = "127.0.0.1:1".parse().expect("an address");
    let (counted, duplicates) = (AtomicU64::new(0), AtomicU64::new(0));
    let town = Arc::new(Town { relay: Mutex::new(nowhere), token, counted, duplicates, calm: AtomicBool::new(false) });
    let relay = start(&device, &there.peer(), &town);
    let mut http = house::Http::connect(relay.http());
    let mut running = Some(relay);
    let bearer = format!("Bearer {}", town.token);
    http.ask("PUT", DATABASE, &[("Authorization", &bearer)]).expect(201);
    device.ok(&["put", "acme/atlas", "rows", "visits", "{}"]);
    device.ok(&["increment", "acme/atlas", "rows", "visits", "count", "0"]);
    device.share("acme/atlas", "writer", &laptop);
    let space = http.ask("GET", DATABASE, &[("Authorization", &bearer)]).expect(200).json()["space"].clone();
    let space = space.as_str().expect("an id").to_owned();

    let mut phones: Vec<Phone<'_>> = (0..PHONES).map(|name| Phone::new(&town, name)).collect();
    thread::scope(|scope| {
        let living: Vec<_> = phones.iter_mut().map(|phone| scope.spawn(move || phone.live())).collect();
        let mut dice = Dice::new(7);
        for n in 0..KILLS {
            for row in 0..5 {
                laptop.ok(&["put", &space, "rows", &format!("laptop{n}-{row}"), "{\"by\":\"laptop\"}"]);
            }
            thread::sleep(Duration::from_millis(200 + dice.below(600)));
            running.take().expect("it runs").kill();
            running = Some(start(&device, &there.peer(), &town));
        }
        living.into_iter().for_each(|phone| phone.join().expect("it lives"));
    });
    town.calm.store(true, Ordering::Relaxed);
    thread::scope(|scope| {
        let settling: Vec<_> = phones.iter_mut().map(|phone| scope.spawn(move || phone.settle())).collect();
        settling.into_iter().for_each(|phone| phone.join().expect("it settles"));
    });
    laptop.ok(&["sync", "--timeout", "60"]);
    // What the laptop wrote last, and what other phones did after one was done.
    for phone in &mut phones {
        phone.settle();
    }
    let shown = |export: String| -> BTreeMap<(String, String), Map<String, Value>> {
        let fields = |value: Value| value.as_object().expect("fields").clone();
        parse_export(&export).into_iter().map(|(name, value)| (name, fields(value))).collect()
    };
    let held = shown(device.ok(&["export", "acme/atlas"]));
    assert_eq!(held, shown(laptop.ok(&["export", &space])), "the laptop");
    for phone in &phones {
        assert_eq!(phone.table, held, "phone {}", phone.name);
    }
    let visits = &held[&("rows".to_owned(), "visits".to_owned())]["count"];
    assert_eq!(visits.as_u64(), Some(town.counted.load(Ordering::Relaxed)), "each increment counts once");
    assert!(town.duplicates.load(Ordering::Relaxed) > 0, "nothing was ever sent twice, so nothing was shown");
    running.expect("it runs").terminate();
    there.terminate();
}

//! What a relay's database of many rows costs: one more row, and one more page, cost what they cost in one of few.
//!
//! Both databases lie in one relay, and are asked in turns, so that whatever else the machine does strikes both alike.
//! `THENCE_TEST_ROWS=2000000 cargo test --release --test scale -- --nocapture` for a table of other sizes.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use thence::model::{CollectionName, Role};
use thence::node::{DataFolder, Node, NodeConfig};
use thence::relay::{Access, Keys, Principal, Relay, Scope, Wanted};
use thence::store::Versions;

const FEW: usize = 1_000;
const MANY: usize = 50_000;
const BATCH: usize = 1_000;
/// How often each is asked.
const ROUNDS: usize = 61;
/// The trees are a level or two deeper. What grows with the number of rows grows by fifty and more.
const RATIO_MAX: f64 = 5.0;

async fn relay(folder: &TempDir) -> Relay {
    let keys = Keys::load(&folder.path().join("keys")).expect("keys");
    let folder = DataFolder::new(folder.path().join("data"));
    folder.init().expect("a fresh folder");
    let config = NodeConfig::new(folder.claim_for_node(Duration::from_secs(10)).expect("it is free"));
    Relay::open(&Node::open(config).await.expect("it opens"), keys).await.expect("it opens")
}

fn row(n: usize) -> Json {
    json!({"table": "rows", "key": format!("row{n:08}"), "id": format!("id{n}"), "source_version": n,
           "fields": {"n": n, "name": format!("a row with the number {n}"), "done": n.is_multiple_of(2)}})
}

/// A database with so many rows, and a token of whoever has them all.
async fn fill(relay: &Relay, principal: &Principal, name: &str, rows: usize) -> (Access, String) {
    let names = ("acme".parse().expect("a name"), name.parse().expect("a name"));
    relay.tenants().register(&names.0, &names.1, None).await.expect("it can be registered");
    let access = relay.enter(principal.clone(), "acme", name, Role::Owner).expect("its owner");
    for from in (0..rows).step_by(BATCH) {
        let batch = (from..(from + BATCH).min(rows)).map(row).collect();
        relay.upload(&access, None, batch, false).await.expect("it is taken");
    }
    let mut token = None;
    loop {
        let page = page(relay, &access, token.as_deref(), 1000);
        token = page.0;
        if !page.1 {
            return (access, token.expect("a token"));
        }
    }
}

fn page(relay: &Relay, access: &Access, token: Option<&str>, limit: u64) -> (Option<String>, bool) {
    let (view, wanted) = (relay.view(access).expect("readable"), Wanted::parse(None, Some(limit)).expect("a limit"));
    let point = relay.position_of(access, &view, token, &wanted).expect("it holds");
    let page = relay.page(access, &view, point, &wanted).expect("readable");
    let more = page.more();
    (Some(page.token), more)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_row_and_one_more_page_cost_the_same_however_many_there_are() {
    let many = std::env::var("THENCE_TEST_ROWS").map_or(MANY, |rows| rows.parse().expect("a number of rows"));
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    let scope = Scope { customer: None, database: None, role: Role::Owner };
    let (text, _) = relay.tenants().create_token(scope, None).await.expect("a token");
    let principal = relay.tenants().authenticate(&text).expect("it is known");
    let begun = Instant::now();
    let databases = [fill(&relay, &principal, "few", FEW).await, fill(&relay, &principal, "many", many).await];
    println!("{many} rows are there after {:.1} s", begun.elapsed().as_secs_f64());
    let table = CollectionName::user("rows").expect("a name");

    let asked = [
        "a new row",
        "a changed row",
        "a known id",
        "a delete",
        "a page of changes",
        "a first page",
        "a middle of a manifest",
        "a page of a manifest",
        "the table",
    ];
    let mut times: Vec<[Vec<Duration>; 2]> = asked.iter().map(|_| Default::default()).collect();
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let (access, token) = &databases[which];
            let middle = [FEW, many][which] / 2 + round;
            let mut at = 0;
            let mut note = |begun: Instant| {
                times[at][which].push(begun.elapsed());
                at += 1;
            };
            let changed =
                json!({"table": "rows", "key": format!("row{middle:08}"), "op": "patch", "fields": {"n": round}});
            let again = row(middle);
            let deleted = json!({"table": "rows", "key": format!("row{:08}", middle + 2 * ROUNDS), "op": "delete"});
            for sent in [row(10_000_000 + round), changed, again, deleted] {
                let begun = Instant::now();
                let results = relay.upload(access, None, vec![sent], false).await.expect("it is taken");
                note(begun);
                assert!(
                    ["accepted", "duplicate"].contains(&results[0]["status"].as_str().expect("a status")),
                    "{results}"
                );
            }
            for token in [Some(token.as_str()), None] {
                let begun = Instant::now();
                page(&relay, access, token, 10);
                note(begun);
            }
            let from = relay.view(access).expect("readable").position().expect("readable") / 2;
            let begun = Instant::now();
            let manifest = |limit| relay.manifest(access, &table, &Versions::Own(from..=u64::MAX), Some(limit), false);
            manifest(10).expect("readable");
            note(begun);
            let begun = Instant::now();
            manifest(100).expect("readable");
            note(begun);
            let begun = Instant::now();
            relay.table(access, &table).expect("readable");
            note(begun);
        }
    }
    for (asked, times) in asked.iter().zip(&mut times) {
        // A quarter of them took less: what waits for a disk that others use too varies upwards only.
        let [few, many] = [0, 1].map(|which| {
            times[which].sort();
            times[which][ROUNDS / 4].as_secs_f64() * 1e6
        });
        println!("{asked:24} {few:8.0} µs among few, {many:8.0} µs among many: {:.2}", many / few);
        assert!(many / few < RATIO_MAX, "{asked}: {many:.0} µs among many rows, {few:.0} µs among few");
    }
    relay.node().clone().close().await;
}

//! Phones with sync points, an outbox and a local table, and devices beside them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value as Json, json};
use thence::model::{CollectionName, Role};
use thence::node::Invitation;
use thence::relay::{ProblemCode, TableSettings, Wanted};

use crate::house::Dice;
use crate::phone::Phone;
use crate::world::{bearer, close, node, register, relay, sent, visible, wanted, writer};

#[tokio::test(flavor = "multi_thread")]
async fn phones_that_lose_answers_hold_the_same_in_the_end_and_nothing_counts_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut here = relay(&folder).await;
    register(&here, "acme", "notes").await;
    for seed in 0..4 {
        let mut dice = Dice::new(seed);
        let mut access = writer(&here, "acme", "notes").await;
        let mut phones: Vec<Phone> = (0..8).map(Phone::new).collect();
        let mut increments = BTreeSet::new();
        for step in 0..200 {
            let at = dice.below(8) as usize;
            match dice.below(4) {
                0 | 1 => phones[at].write(&mut dice),
                2 => phones[at].send(&here, &access, &mut dice, &mut increments).await,
                _ => _ = phones[at].pull(&here, &access, 1 + dice.below(4)).await,
            }
            if step == 120 && seed == 1 {
                // The relay stops and comes back between two pages.
                close(here).await;
                here = relay(&folder).await;
                access = here.enter(access.principal, "acme", "notes", Role::Writer).expect("the token holds");
            }
        }
        for phone in &mut phones {
            while !phone.outbox.is_empty() {
                phone.send(&here, &access, &mut dice, &mut increments).await;
            }
        }
        for phone in &mut phones {
            while phone.pull(&here, &access, 3).await {}
            assert_eq!(phone.table, visible(&here, &access), "phone {} of seed {seed}", phone.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_and_thin_clients_see_one_state() {
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (relay, laptop) = (relay(&one).await, node(&two).await);
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let space = access.database.space;
    let invitation = Invitation { role: Role::Writer, uses: 1, expires: Duration::from_secs(600) };
    laptop.join(&relay.node().invite(space, &invitation).expect("its owner")).await.expect("it joins");

    let seen = sent(&relay, &access, vec![json!({"table": "notes", "key": "n1", "fields": {"title": "one"}})]).await;
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    let on_laptop = laptop.space(space).expect("it holds it");
    assert_eq!(on_laptop.get("notes", "n1").expect("readable").expect("it came").fields["title"], "one");
    assert_eq!(on_laptop.changes(0, 10).await.expect("readable")[0].by, relay.node().device());

    // Both change it without having heard of each other.
    let patch = thence::node::Transaction::new().patch("notes", "n1", json!({"title": "laptop"})).expect("a patch");
    on_laptop.write(patch).await.expect("a writer");
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    let mut mine = json!({"table": "notes", "key": "n1", "op": "patch", "fields": {"title": "phone"}});
    mine["context"] = seen[0]["context"].clone();
    assert_eq!(sent(&relay, &access, vec![mine]).await[0]["status"], "accepted");
    let mut phone = Phone::new(1);
    while phone.pull(&relay, &access, 1).await {}
    let view = relay.view(&access).expect("readable");
    let page = relay.position_of(&access, &view, None, &wanted(10)).expect("the beginning");
    let page = relay.page(&access, &view, page, &wanted(10)).expect("readable");
    assert_eq!(page.body["changes"][0]["conflicts"]["title"], json!(["phone", "laptop"]));
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    assert_eq!(on_laptop.conflicts().expect("readable").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_for_longer_than_deletions_are_told_begins_anew_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let owner = bearer(&relay, Some("acme"), Role::Owner).await;
    let access = relay.enter(owner, "acme", "notes", Role::Owner).expect("it may");
    let put = |key: &str| json!({"table": "notes", "key": key, "fields": {"title": key}, "id": format!("id of {key}")});
    let rows: Vec<Json> = (0..20).map(|n| put(&format!("n{n}"))).collect();
    sent(&relay, &access, rows).await;
    let mut away = Phone::new(1);
    while away.pull(&relay, &access, 7).await {}
    // It writes fifty times without being able to send any of it.
    let mut dice = Dice::new(1);
    (0..50).for_each(|_| away.write(&mut dice));
    let unsent = away.outbox.clone();
    let deleted = |n: usize| json!({"table": "notes", "key": format!("n{n}"), "op": "delete"});
    sent(&relay, &access, (0..15).map(deleted).collect()).await;
    // While deletions are told, it would be told of these.
    assert_eq!(relay.keep().await.expect("it looks"), Default::default());
    let notes = CollectionName::user("notes").expect("a name");
    let settings = TableSettings { retention_days: Some(0), ..TableSettings::default() };
    relay.set_table(&access, &notes, &settings).await.expect("an owner");
    // The clock of the relay must have gone on since the deletions.
    let kept = loop {
        let kept = relay.keep().await.expect("it looks");
        if kept.forgotten > 0 {
            break kept;
        }
    };
    assert_eq!((kept.forgotten, kept.expired, kept.ids), (15, 0, 0));

    let view = relay.view(&access).expect("readable");
    let gone = relay.position_of(&access, &view, away.token.as_deref(), &wanted(7)).expect_err("it is too old");
    assert_eq!((gone.code, &gone.members["reason"]), (ProblemCode::Gone, &json!("retention")));
    assert_eq!(gone.members["action"], "resync-keep-outbox");
    away.token = gone.members["token"].as_str().map(str::to_owned);
    away.table.clear();
    assert_eq!(away.outbox, unsent);
    let mut increments = BTreeSet::new();
    while !away.outbox.is_empty() {
        away.send(&relay, &access, &mut dice, &mut increments).await;
    }
    while away.pull(&relay, &access, 7).await {}
    assert_eq!(away.table, visible(&relay, &access));
    // Nothing that was deleted came back unless it was put anew, and what was patched beside the delete is kept.
    let puts = |key: &str| unsent.iter().any(|row| row["key"] == key && row["table"] == "notes" && row["op"] == "put");
    for n in 0..15 {
        let (key, at) = (format!("n{n}"), ("notes".to_owned(), format!("n{n}")));
        assert!(!away.table.contains_key(&at) || puts(&key), "{key}");
    }
    // Whoever begins now is told of no deletion.
    let mut fresh = Phone::new(2);
    while fresh.pull(&relay, &access, 3).await {}
    assert_eq!(fresh.table, away.table);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_of_the_tables_that_are_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let rows = |table: &'static str, count: usize| {
        (0..count).map(move |n| json!({"table": table, "key": format!("k{n}"), "fields": {}}))
    };
    sent(&relay, &access, rows("a", 2).chain(rows("b", 3)).chain(rows("c", 5)).collect()).await;
    let total = |tables: Option<&str>| {
        let (view, wanted) = (relay.view(&access).expect("readable"), Wanted::parse(tables, Some(1)).expect("names"));
        let point = relay.position_of(&access, &view, None, &wanted).expect("the beginning");
        relay.page(&access, &view, point, &wanted).expect("readable").body["progress"]["rows_total"].clone()
    };
    let totals = [total(None), total(Some("a,c")), total(Some("b")), total(Some("none"))];
    assert_eq!(totals.map(|total| total.as_u64()), [10, 7, 3, 0].map(Some));
}

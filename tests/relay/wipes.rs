//! Databases that are begun anew.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value as Json, json};
use thence::model::Role;
use thence::node::Invitation;
use thence::relay::{Principal, ProblemCode, Relay};

use crate::house::Dice;
use crate::phone::{Phone, pull_or_begin_anew};
use crate::world::{bearer, close, node, register, relay, sent, visible, writer};

fn job(relay: &Relay, owner: &Principal, id: &Json) -> Result<Json, ProblemCode> {
    relay.job(owner, id.as_str().expect("an id")).map_err(|problem| problem.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_in_the_middle_of_everything_leaves_nobody_with_a_mixture() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (mut here, laptop) = (relay(&folder).await, node(&other).await);
    register(&here, "acme", "notes").await;
    register(&here, "other", "notes").await;
    let mut access = writer(&here, "acme", "notes").await;
    let owner = bearer(&here, Some("acme"), Role::Owner).await;
    let space = access.database.space;
    let invitation = Invitation { role: Role::Writer, uses: 1, expires: Duration::from_secs(600) };
    laptop.join(&here.node().invite(space, &invitation).expect("its owner")).await.expect("it joins");
    let batch = |age: u32, from: usize| -> Vec<Json> {
        let row =
            |n: usize| json!({"table": "notes", "key": format!("n{n}"), "id": format!("{n}"), "fields": {"age": age}});
        (from..from + 500).map(row).collect()
    };
    for from in (0..3000).step_by(500) {
        sent(&here, &access, batch(1, from)).await;
    }
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    let on_laptop = laptop.space(space).expect("it holds it");
    assert!(on_laptop.get("notes", "n1").expect("readable").is_some());
    // One phone in the middle of its first round, one that has it all, and one with something to send.
    let mut phones: Vec<Phone> = (0..3).map(Phone::new).collect();
    phones[0].pull(&here, &access, 700).await;
    for phone in &mut phones[1..] {
        while phone.pull(&here, &access, 1000).await {}
    }
    let context = phones[2].contexts[&("notes".to_owned(), "n7".to_owned())].clone();
    let late = json!({"table": "notes", "key": "n7", "id": "late", "fields": {"age": 2}, "context": context});
    phones[2].outbox.push(late.clone());

    let may = here.enter(owner.clone(), "acme", "notes", Role::Owner).expect("its owner");
    assert_eq!(here.wipe(&may, Some(7)).await.map_err(|problem| problem.code), Err(ProblemCode::Conflict));
    let version = here.view(&access).expect("readable").position().expect("readable");
    let wiped = here.wipe(&may, Some(1)).await.expect("its owner");
    assert_eq!(wiped["revision"], 2);
    assert!(visible(&here, &access).is_empty());
    assert!(here.view(&access).expect("readable").position().expect("readable") > version);
    assert_eq!(sent(&here, &access, vec![late]).await[0]["problem"]["code"], "changed", "what it saw is gone");
    // The id of a row of before is free again.
    assert_eq!(sent(&here, &access, batch(2, 0)).await[0]["status"], "accepted");
    pull_or_begin_anew(&mut phones[0], &here, &access, 10).await;

    // The removal goes on where it was when the relay stops and comes back.
    let stranger = bearer(&here, Some("other"), Role::Owner).await;
    assert_eq!(job(&here, &stranger, &wiped["job"]), Err(ProblemCode::NotFound));
    assert_eq!(job(&here, &access.principal, &wiped["job"]), Err(ProblemCode::Forbidden));
    close(here).await;
    here = relay(&folder).await;
    access = here.enter(access.principal, "acme", "notes", Role::Writer).expect("the token holds");
    assert_eq!(job(&here, &stranger, &wiped["job"]), Err(ProblemCode::NotFound));
    let done = loop {
        let state = job(&here, &owner, &wiped["job"]).expect("it is known");
        assert!(state["rows_done"].as_u64() <= state["rows_total"].as_u64());
        if state["state"] == "done" {
            break state;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((&done["rows_done"], &done["rows_total"]), (&json!(3000), &json!(3000)));

    let (mut dice, mut increments) = (Dice::new(7), BTreeSet::new());
    for phone in &mut phones {
        while pull_or_begin_anew(phone, &here, &access, 100).await {}
        while !phone.outbox.is_empty() {
            phone.send(&here, &access, &mut dice, &mut increments).await;
        }
    }
    for phone in &mut phones {
        while pull_or_begin_anew(phone, &here, &access, 100).await {}
        assert_eq!(phone.table, visible(&here, &access), "phone {}", phone.name);
        assert_eq!(phone.table.len(), 500);
    }
    // A full node goes over to the new revision too, and removes the old one from its own disk.
    let listening = here.node().status().await.expect("it answers").listening.expect("it listens");
    laptop
        .add_peer(format!("{}@{listening}", here.node().device()).parse().expect("an address"))
        .await
        .expect("it is remembered");
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    assert!(on_laptop.get("notes", "n600").expect("readable").is_none());
    assert_eq!(on_laptop.get("notes", "n1").expect("readable").expect("there").fields["age"], 2);
    while laptop.removals().expect("readable").iter().any(|removal| removal.done_ms.is_none()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    on_laptop
        .write(thence::node::Transaction::new().put("notes", "mine", json!({})).expect("a put"))
        .await
        .expect("it may still write");
}

//! How much there may be.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use thence::model::Role;
use thence::node::Invitation;
use thence::relay::{Policy, PolicyScope, ProblemCode, Setting};

use crate::world::{node, register, relay, sent, set_policy, statuses, visible, writer};

#[tokio::test(flavor = "multi_thread")]
async fn however_many_write_at_once_the_quota_is_not_exceeded_and_all_of_it_can_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Arc::new(relay(&folder).await);
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let scope = PolicyScope::Database("acme".parse().expect("a name"), "notes".parse().expect("a name"));
    relay.tenants().set_policy(&scope, Policy::Rows, Setting::Value(55)).await.expect("it is set");
    let rows = |of: usize| -> Vec<Json> {
        (0..10).map(|n| json!({"table": "t", "key": format!("{of}-{n}"), "fields": {}})).collect()
    };
    let writers: Vec<_> = (0..16)
        .map(|of| {
            let (relay, access, rows) = (Arc::clone(&relay), access.clone(), rows(of));
            tokio::spawn(async move { sent(&relay, &access, rows).await })
        })
        .collect();
    let mut accepted = 0;
    for writer in writers {
        for result in writer.await.expect("no panic") {
            accepted += usize::from(result["status"] == "accepted");
            assert!(result["status"] == "accepted" || result["problem"]["code"] == "quota-exceeded", "{result}");
        }
    }
    assert_eq!(visible(&relay, &access).len(), accepted);
    assert!(accepted <= 55, "{accepted}");
    for of in 0..16 {
        sent(&relay, &access, rows(of)).await;
    }
    assert_eq!(visible(&relay, &access).len(), 55);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_quota_nothing_grows_that_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let change = |op: &str, more: Json| {
        let mut row = json!({"table": "t", "key": "k", "op": op});
        more.as_object().expect("members").iter().for_each(|(name, value)| row[name] = value.clone());
        row
    };
    let old = sent(&relay, &access, vec![change("put", json!({"fields": {"text": "x".repeat(100)}}))]).await.remove(0);
    sent(&relay, &access, vec![change("increment", json!({"field": "count", "by": 1}))]).await;
    sent(&relay, &access, vec![change("patch", json!({"fields": {"text": "y".repeat(100)}}))]).await;
    let bytes = || relay.view(&access).expect("readable").size().expect("readable").1;
    let before = bytes();
    set_policy(&relay, Policy::Bytes, before).await;
    let refused = |row: Json| {
        let (relay, access) = (&relay, &access);
        async move { assert_eq!(statuses(&sent(relay, access, vec![row.clone()]).await), ["retry"], "{row}") }
    };
    refused(change("increment", json!({"field": "n".repeat(1000), "by": 1}))).await;
    refused(change("add", json!({"field": "set", "value": 1}))).await;
    // It stands beside what its writer had not seen, however often that comes.
    let beside = json!({"fields": {"text": "z".repeat(100)}, "context": old["context"]});
    refused(change("put", beside.clone())).await;
    refused(change("patch", beside)).await;
    assert_eq!(bytes(), before);
    // What takes no room is done.
    for row in [
        change("increment", json!({"field": "count", "by": 1})),
        change("patch", json!({"fields": {"text": "z".repeat(100)}})),
        change("unset", json!({"names": ["text"]})),
        change("delete", json!({})),
    ] {
        assert_eq!(statuses(&sent(&relay, &access, vec![row.clone()]).await), ["accepted"], "{row}");
    }
}

/// Any number of tickets was handed out as long as each by itself was within the quota.
#[tokio::test(flavor = "multi_thread")]
async fn open_tickets_count_as_the_devices_that_they_let_in() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (relay, laptop) = (relay(&folder).await, node(&other).await);
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    set_policy(&relay, Policy::Devices, 10).await;
    let invite = |uses: u32, seconds: u64| {
        let (relay, access, expires) = (&relay, &access, Duration::from_secs(seconds));
        async move {
            let invitation = Invitation { role: Role::Writer, uses, expires };
            relay.invite(access, &invitation).await.map_err(|problem| problem.code)
        }
    };
    assert!(invite(9, 0).await.is_ok(), "its time is over at once");
    let ticket = invite(9, 3600).await.expect("there is room");
    assert_eq!(invite(2, 3600).await, Err(ProblemCode::QuotaExceeded));
    laptop.join(&ticket).await.expect("it is let in");
    assert_eq!(invite(2, 3600).await, Err(ProblemCode::QuotaExceeded), "whoever came used up one of nine");
    invite(1, 3600).await.expect("ten in all");
    assert_eq!(invite(1, 3600).await, Err(ProblemCode::QuotaExceeded));
    laptop.close().await;
}

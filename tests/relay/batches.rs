//! Rows that are written together.

use serde_json::{Value as Json, json};
use thence::relay::{Policy, ProblemCode};

use crate::world::{register, relay, sent, set_policy, statuses, visible, writer};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_row_by_row_or_done_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let rows = || {
        vec![
            json!({"table": "notes", "key": "n1", "fields": {"a": 1}, "id": "one"}),
            json!({"table": "notes", "key": "none", "op": "patch", "fields": {"a": 1}}),
            json!({"table": "no/table", "key": "n2", "fields": {}}),
            json!({"table": "notes", "key": "n3", "op": "increment", "field": "a"}),
            json!({"table": "notes", "key": "", "fields": {}}),
            json!({"table": "notes", "key": "n4", "fields": {}, "context": "?"}),
        ]
    };
    let whole = relay.upload(&access, None, rows(), true).await.expect_err("not all of it can be done");
    assert_eq!(whole.code, ProblemCode::Invalid);
    assert!(visible(&relay, &access).is_empty(), "so nothing was");
    let each = sent(&relay, &access, rows()).await;
    let statuses: Vec<&str> = each.iter().map(|result| result["status"].as_str().expect("a status")).collect();
    assert_eq!(statuses, ["accepted", "rejected", "rejected", "rejected", "rejected", "rejected"]);
    assert_eq!(each[1]["problem"]["code"], "not-found");
    assert_eq!(visible(&relay, &access).len(), 1);
    let atomic = relay.upload(&access, None, rows().drain(..1).collect(), true).await.expect("it is known");
    assert_eq!(atomic[0]["status"], "duplicate");
    for twice in [true, false] {
        let rows = vec![json!({"table": "t", "key": "k", "fields": {}}); 2];
        let problem = relay.upload(&access, None, rows, twice).await.expect_err("which of the two?");
        assert_eq!((problem.code, &problem.members["row"]), (ProblemCode::Invalid, &json!(1)));
    }
    for malformed in [json!(1), json!({"key": 1}), json!({})] {
        let problem = relay.upload(&access, None, vec![malformed], false).await.expect_err("it makes no sense");
        assert_eq!(problem.code, ProblemCode::Invalid);
    }
    let unknown = sent(&relay, &access, vec![json!({"key": "k", "table": "t", "unknown": 1})]).await;
    assert_eq!(unknown[0]["status"], "rejected", "it has a name, and stands alone");
    let many = vec![json!({"table": "t", "key": "k", "fields": {}}); 1001];
    assert_eq!(relay.upload(&access, None, many, false).await.expect_err("too many").code, ProblemCode::TooLarge);
}

/// A client that had no answer sends the same again; that the quota was filled meanwhile is no matter of what was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_id_is_a_duplicate_however_full_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let row = |key: &str, id: &str, text: &str| json!({"table": "t", "key": key, "id": id, "fields": {"text": text}});
    let first = sent(&relay, &access, vec![row("a", "one", "x")]).await.remove(0);
    sent(&relay, &access, vec![json!({"table": "t", "key": "a", "op": "delete"})]).await;
    sent(&relay, &access, vec![row("b", "two", "x")]).await;
    set_policy(&relay, Policy::Rows, 1).await;
    set_policy(&relay, Policy::Bytes, 0).await;
    set_policy(&relay, Policy::Tables, 1).await;
    let again = vec![row("a", "one", "x"), row("b", "two", "longer than it was"), row("c", "three", "x")];
    let results = sent(&relay, &access, again.clone()).await;
    assert_eq!(statuses(&results), ["duplicate", "duplicate", "retry"]);
    assert_eq!(results[0]["version"], first["version"]);
    let elsewhere = json!({"table": "new", "key": "a", "id": "one", "fields": {}});
    assert_eq!(statuses(&sent(&relay, &access, vec![elsewhere]).await), ["duplicate"]);
    let whole = relay.upload(&access, None, again[..2].to_vec(), true).await.expect("all of it is known");
    assert_eq!(statuses(whole.as_array().expect("a list")), ["duplicate", "duplicate"]);
    assert_eq!(visible(&relay, &access).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_a_batch_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let put = json!({"table": "t", "key": "k", "fields": {"title": {"a/b": 1}}});
    sent(&relay, &access, vec![put]).await;
    let counted = json!({"table": "t", "key": "k", "op": "increment", "field": "/title/count", "by": 1});
    sent(&relay, &access, vec![counted]).await;
    let good = json!({"table": "t", "key": "good", "fields": {}});
    let whole = |row: Json| {
        let (relay, access, rows) = (&relay, &access, vec![good.clone(), row]);
        async move {
            let problem = relay.upload(access, None, rows, true).await.expect_err("it cannot be done");
            problem.members["path"].as_str().expect("a path").to_owned()
        }
    };
    let each = |row: Json| {
        let (relay, access, rows) = (&relay, &access, vec![good.clone(), row]);
        async move { sent(relay, access, rows).await.remove(1)["problem"]["path"].clone() }
    };
    // What is no row at all is a fault of the whole request.
    for (row, path) in [
        (json!(1), "/rows/1"),
        (json!({"table": "t", "key": 1}), "/rows/1/key"),
        (json!({"table": "t", "key": "k", "names": ["a", 1]}), "/rows/1/names/1"),
        (json!({"table": "t", "key": "good", "fields": {}}), "/rows/1"),
    ] {
        assert_eq!(whole(row).await, path);
    }
    for (row, path) in [
        (json!({"table": "no/table", "key": "k", "fields": {}}), "/rows/1/table"),
        (json!({"table": "t", "key": "", "fields": {}}), "/rows/1/key"),
        (json!({"table": "t", "key": "k"}), "/rows/1"),
        (json!({"table": "t", "key": "k", "fields": {}, "context": "?"}), "/rows/1/context"),
        (json!({"table": "t", "key": "k", "op": "unset", "names": ["a", "/~"]}), "/rows/1/names/1"),
        (
            json!({"table": "t", "key": "k", "op": "patch", "fields": {"title": {"count": 7}}}),
            "/rows/1/fields/title/count",
        ),
        (json!({"table": "t", "key": "k", "op": "increment", "field": "/title/a~1b", "by": 1}), "/rows/1/field"),
        (json!({"table": "t", "key": "none", "op": "patch", "fields": {}}), "/rows/1"),
    ] {
        assert_eq!((whole(row.clone()).await.as_str(), each(row).await.as_str()), (path, Some(path)));
    }
}

//! What is set of tables and databases, and what is told of them.

use serde_json::{Value as Json, json};
use thence::model::CollectionName;
use thence::relay::{
    Deleting, Policy, PolicyScope, ProblemCode, Range, Schema, Setting, TableSettings, Visibility, Wanted,
};
use thence::store::Versions;

use crate::phone::Phone;
use crate::world::{database_scope, register, relay, sent, set_policy, statuses, table, visible, wanted, writer};

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_deleted_leaves_what_is_written_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let key = |n: usize| format!("n{n:04}");
    for part in 0..3 {
        let row = |n: usize| json!({"table": "notes", "key": key(part * 1000 + n), "fields": {"n": 1}});
        sent(&relay, &access, (0..1000).map(row).collect()).await;
    }
    let notes = CollectionName::user("notes").expect("a name");
    let (_, tag) = relay.table(&access, &notes).expect("it is there");
    let deleting = relay.delete_range(&access, &notes, Range::All, Some(&tag));
    let rows = async {
        // Some are there still when this is asked for, and some may be gone.
        let row = |n: usize| json!({"table": "notes", "key": key(n), "op": "patch", "fields": {"n": 2}});
        sent(&relay, &access, (2000..3000).map(row).collect()).await
    };
    let (deleted, results) = tokio::join!(deleting, rows);
    let written = results.iter().filter(|result| result["status"] == "accepted").count();
    let left = visible(&relay, &access);
    assert_eq!(left.len(), written, "whatever was accepted is there");
    assert!(written > 0, "the second step comes after what was asked for before it");
    assert_eq!(deleted.expect("it is done")["deleted_rows"], 3000 - written);
    // Of a table that stands otherwise than expected, nothing is.
    let stale = relay.delete_range(&access, &notes, Range::All, Some(&tag)).await;
    assert_eq!(stale.expect_err("written since").code, ProblemCode::Changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_expire_and_a_changed_schema_has_clients_begin_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let rows = ["old", "kept"].map(|table| json!({"table": table, "key": "k", "fields": {}}));
    sent(&relay, &access, rows.to_vec()).await;
    let mut phone = Phone::new(1);
    while phone.pull(&relay, &access, 1).await {}
    let table = |name: &str| CollectionName::user(name).expect("a name");
    let at_once = TableSettings { expire_days: Some(0), ..TableSettings::default() };
    let refused = relay.set_table(&access, &table("old"), &at_once).await.expect_err("at once is no expiry");
    assert_eq!(refused.code, ProblemCode::Invalid);
    let settings = TableSettings { expire_days: Some(1), ..TableSettings::default() };
    relay.set_table(&access, &table("old"), &settings).await.expect("it is set");
    assert_eq!(relay.keep().await.expect("it looks").expired, 0, "it is not a day old");

    let settings = TableSettings { schema: Some(Schema::Number(2)), ..TableSettings::default() };
    relay.set_table(&access, &table("kept"), &settings).await.expect("it is set");
    let view = relay.view(&access).expect("readable");
    let gone = relay.position_of(&access, &view, phone.token.as_deref(), &wanted(1)).expect_err("another schema");
    assert_eq!((&gone.members["reason"], &gone.members["action"]), (&json!("schema"), &json!("upgrade")));
    // Those who never asked for that table go on.
    let others = Wanted::parse(Some("old"), None).expect("a name");
    let point = relay.position_of(&access, &view, None, &others).expect("the beginning");
    let token = relay.page(&access, &view, point, &others).expect("readable").token;
    let settings = TableSettings { schema: Some(Schema::Name("third".to_owned())), ..TableSettings::default() };
    relay.set_table(&access, &table("kept"), &settings).await.expect("it is set");
    assert!(relay.position_of(&access, &view, Some(&token), &others).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_things_are_kept_is_as_the_policies_say_where_a_table_says_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let row = |table: &str, op: &str| json!({"table": table, "key": "k", "op": op, "fields": {}});
    sent(&relay, &access, ["a", "b"].map(|table| row(table, "put")).to_vec()).await;
    let deleted = ["a", "b"].map(|table| json!({"table": table, "key": "k", "op": "delete"}));
    sent(&relay, &access, deleted.to_vec()).await;
    let table = CollectionName::user("a").expect("a name");
    let settings = TableSettings { retention_days: Some(1), ..TableSettings::default() };
    relay.set_table(&access, &table, &settings).await.expect("it is set");
    relay.tenants().set_policy(&PolicyScope::Relay, Policy::RetentionDays, Setting::Value(0)).await.expect("it is set");
    let set = relay.set_table(&access, &CollectionName::user("b").expect("a name"), &TableSettings::default()).await;
    assert_eq!(set.expect("it is set")["retention_days"], 0);
    // The clock of the relay must have gone on since the deletions.
    let kept = loop {
        let kept = relay.keep().await.expect("it looks");
        if kept.forgotten > 0 {
            break kept;
        }
    };
    assert_eq!(kept.forgotten, 1, "of the table that says nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_forgets_soon_sends_nobody_away_who_follows_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let row = |table: &str, op: &str| json!({"table": table, "key": "k", "op": op, "fields": {}});
    sent(&relay, &access, ["notes", "log"].map(|table| row(table, "put")).to_vec()).await;
    let asked = ["notes", "log", "log,notes"].map(Some).into_iter().chain([None]);
    let token = |tables: Option<&str>| {
        let (view, wanted) = (relay.view(&access).expect("readable"), Wanted::parse(tables, None).expect("names"));
        let point = relay.position_of(&access, &view, None, &wanted).expect("the beginning");
        (relay.page(&access, &view, point, &wanted).expect("readable").token, wanted)
    };
    let phones: Vec<_> = asked.map(token).collect();
    let deleted = ["notes", "log"].map(|table| json!({"table": table, "key": "k", "op": "delete"}));
    let deleted = sent(&relay, &access, deleted.to_vec()).await;
    let table = |name: &str| CollectionName::user(name).expect("a name");
    let settings = TableSettings { retention_days: Some(0), ..TableSettings::default() };
    relay.set_table(&access, &table("log"), &settings).await.expect("it is set");
    // The clock of the relay must have gone on since the deletions.
    while relay.keep().await.expect("it looks").forgotten == 0 {}
    let view = relay.view(&access).expect("readable");
    let is_gone = |(token, wanted): &(String, Wanted)| {
        let problem = relay.position_of(&access, &view, Some(token), wanted).err();
        problem.is_some_and(|problem| problem.members["reason"] == "retention")
    };
    assert_eq!(phones.iter().map(is_gone).collect::<Vec<_>>(), [false, true, true, true]);
    let retained =
        |name: &str| relay.table(&access, &table(name)).expect("it is there").0["min_retained_version"].clone();
    assert_eq!((retained("notes"), retained("log")), (json!(0), deleted[1]["version"].clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_not_told_of_its_own_deletes_however_far_it_is_behind_and_of_all_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let notes = CollectionName::user("notes").expect("a name");
    let row = |n: usize, op: &str| json!({"table": "notes", "key": format!("n{n:04}"), "op": op});
    let puts = |from: usize, to: usize| {
        (from..to)
            .map(|n| {
                let mut put = row(n, "put");
                put["fields"] = json!({});
                put
            })
            .collect::<Vec<_>>()
    };
    for from in [0, 1000] {
        sent(&relay, &access, puts(from, from + 1000)).await;
    }
    let ask = |token: Option<&str>, deleting: &Deleting| {
        relay.deletions(&access, &notes, token, deleting).expect("the token holds")
    };
    let begun = ask(None, &Deleting::default());
    assert_eq!((&begun.body["deleted"], begun.more()), (&json!([]), false), "two thousand rows that are there");
    // Others delete more than there is room for on a page, before it deletes some itself and after.
    let delete = |keys: std::ops::Range<usize>| keys.map(|n| row(n, "delete")).collect::<Vec<_>>();
    for from in [0, 750] {
        sent(&relay, &access, delete(from..from + 750)).await;
    }
    let own = delete(1600..1603);
    let results = relay.upload(&access, None, own.clone(), false).await.expect("it is taken");
    sent(&relay, &access, delete(1700..1710)).await;
    let keys = own.iter().map(|row| row["key"].as_str().expect("text").to_owned()).collect();
    let mut page = ask(Some(&begun.token), &Deleting::of(keys, &results));
    let (mut told, mut pages) = (Vec::new(), 1);
    loop {
        told.extend(page.body["deleted"].as_array().expect("a list").iter().cloned());
        if !page.more() {
            break;
        }
        page = ask(Some(&page.token), &Deleting::default());
        pages += 1;
    }
    let others: Vec<Json> = (0..1500).chain(1700..1710).map(|n| row(n, "delete")["key"].clone()).collect();
    assert_eq!((told, pages), (others, 2));
    // The same access token in the hands of another phone, and a row that others delete again.
    let mut other = ask(Some(&begun.token), &Deleting::default());
    other = ask(Some(&other.token), &Deleting::default());
    assert_eq!(other.body["deleted"].as_array().expect("a list").len(), 513);
    sent(&relay, &access, puts(1600, 1601)).await;
    sent(&relay, &access, delete(1600..1601)).await;
    assert_eq!(ask(Some(&page.token), &Deleting::default()).body["deleted"], json!(["n1600"]));
}

/// One record held what was set of all tables, and each of two who set something wrote what it had read before.
#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_set_at_once_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let settings = |number| TableSettings { schema: Some(Schema::Number(number)), ..TableSettings::default() };
    let names: Vec<CollectionName> = (0..8).map(|number| table(&format!("t{number}"))).collect();
    let (first, second) = (settings(1), settings(2));
    let (a, b) =
        tokio::join!(relay.set_table(&access, &names[0], &first), relay.set_table(&access, &names[1], &second),);
    a.and(b).expect("both are set");
    let set = relay.settings(&access.database).expect("readable");
    assert_eq!((set.of(&names[0]), set.of(&names[1])), (first.clone(), second));
    relay.set_table(&access, &names[0], &TableSettings::default()).await.expect("it is set");
    let set = relay.settings(&access.database).expect("readable");
    assert_eq!(set.of(&names[0]), TableSettings::default(), "nothing is left of what was");

    let tenants = relay.tenants();
    let scope = database_scope();
    let (a, b) = tokio::join!(
        tenants.set_policy(&scope, Policy::Rows, Setting::Value(5)),
        tenants.set_policy(&scope, Policy::Bytes, Setting::NoLimit),
    );
    a.and(b).expect("both are set");
    let policies = tenants.policies(&scope).expect("readable");
    let in_force = |policy| policies.in_force(policy);
    assert_eq!((in_force(Policy::Rows).value, in_force(Policy::Bytes).value), (Some(5), None));
    assert_eq!([in_force(Policy::Rows).set, in_force(Policy::Bytes).set], [Some(scope.clone()), Some(scope)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_only_has_settings_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    set_policy(&relay, Policy::Tables, 2).await;
    let row = |table: &str| vec![json!({"table": table, "key": "k", "fields": {}})];
    assert_eq!(statuses(&sent(&relay, &access, row("rows")).await), ["accepted"]);
    assert!(relay.table(&access, &table("set")).is_err());
    let named = TableSettings { schema: Some(Schema::Name("first".to_owned())), ..TableSettings::default() };
    relay.set_table(&access, &table("set"), &named).await.expect("there is room for it");
    let refused = relay.set_table(&access, &table("third"), &named).await.expect_err("that is one too many");
    assert_eq!((refused.code, &refused.members["policy"]), (ProblemCode::QuotaExceeded, &json!("tables")));
    assert_eq!(statuses(&sent(&relay, &access, row("third")).await), ["retry"], "also by a row");

    let (body, tag) = relay.table(&access, &table("set")).expect("it is there");
    assert_eq!((&body["count"], &body["max_version"], &body["schema"]), (&json!(0), &json!(0), &json!("first")));
    let deleted = relay.delete_range(&access, &table("set"), Range::All, Some(&tag)).await.expect("there is nothing");
    assert_eq!(deleted["deleted_rows"], 0);
    let manifest = relay.manifest(&access, &table("set"), &Versions::Own(0..=u64::MAX), None, false);
    assert_eq!(manifest.expect("it is there")["rows"], json!([]));
    assert_eq!(statuses(&sent(&relay, &access, row("set")).await), ["accepted"], "it has its place already");
    relay.set_table(&access, &table("rows"), &named).await.expect("and this one, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_of_a_table_changes_with_all_that_is_told_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let rows = ["k", "gone"].map(|key| json!({"table": "t", "key": key, "fields": {}}));
    sent(&relay, &access, rows.to_vec()).await;
    sent(&relay, &access, vec![json!({"table": "t", "key": "gone", "op": "delete"})]).await;
    let told = || relay.table(&access, &table("t")).expect("it is there");
    let before = told();
    let settings = |schema| TableSettings { schema, retention_days: Some(0), ..TableSettings::default() };
    relay.set_table(&access, &table("t"), &settings(Some(Schema::Number(3)))).await.expect("it is set");
    let with_schema = told();
    assert_eq!((&before.0["schema"], &with_schema.0["schema"]), (&Json::Null, &json!(3)));
    assert_ne!(before.1, with_schema.1);
    let stale = relay.delete_range(&access, &table("t"), Range::All, Some(&before.1)).await;
    assert_eq!(stale.expect_err("another tag").code, ProblemCode::Changed);

    // The clock of the relay must have gone on since the deletion.
    while relay.keep().await.expect("it looks").forgotten == 0 {}
    let trimmed = told();
    assert_ne!(trimmed.0["min_retained_version"], with_schema.0["min_retained_version"]);
    assert_eq!(trimmed.0["max_version"], with_schema.0["max_version"]);
    assert_ne!(trimmed.1, with_schema.1);
    let deleted = relay.delete_range(&access, &table("t"), Range::All, Some(&trimmed.1)).await.expect("it is the one");
    assert_eq!(deleted["deleted_rows"], 1);
    assert_ne!(told().1, trimmed.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_cut_like_other_pages() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    sent(&relay, &access, (0..150).map(|n| json!({"table": "t", "key": format!("k{n}"), "fields": {}})).collect())
        .await;
    let rows = |limit| {
        let manifest = relay.manifest(&access, &table("t"), &Versions::Own(0..=u64::MAX), limit, false);
        manifest.map(|manifest| manifest["rows"].as_array().map(Vec::len)).map_err(|problem| problem.code)
    };
    assert_eq!(rows(None), Ok(Some(100)));
    assert_eq!(rows(Some(u64::MAX)), Ok(Some(150)));
    assert_eq!(rows(Some(0)), Err(ProblemCode::Malformed));
}

/// Who waited for the other one was refused for the quota that the other one had just used up for both.
#[tokio::test(flavor = "multi_thread")]
async fn who_registers_a_database_at_the_same_time_gets_the_same_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    let (customer, database) = ("acme".parse().expect("a name"), "notes".parse().expect("a name"));
    let (tenants, scope) = (relay.tenants(), PolicyScope::Relay);
    tenants.set_policy(&scope, Policy::Databases, Setting::Value(1)).await.expect("it is set");
    let (first, second) = tokio::join!(
        tenants.register(&customer, &database, None),
        tenants.register(&customer, &database, Some(Visibility::PublicRead)),
    );
    let ((first, is_new), (second, is_new_again)) = (first.expect("there is room"), second.expect("for that one"));
    assert_eq!((first.space, is_new, is_new_again), (second.space, true, false));
    assert_eq!(second.visibility, Visibility::PublicRead);
    let known = tenants.database(&customer, &database).expect("readable").expect("it is there");
    assert_eq!(known.visibility, Visibility::PublicRead);
    let other = "other".parse().expect("a name");
    let full = tenants.register(&customer, &other, None).await.expect_err("that is one too many");
    assert_eq!(full.code, ProblemCode::QuotaExceeded);
}

//! Tables as a whole: what they tell, manifests, and ranges that are deleted together.

use serde_json::{Value as Json, json};

use crate::world::{Client, NOTES, World, each, empty_rows, header, list, number, text};

/// What the digests of some rows come to.
fn sum(rows: &[Json]) -> String {
    let digest = |row: &Json| u128::from_str_radix(&text(&row["digest"]), 16).expect("a digest");
    format!("{:032x}", rows.iter().map(digest).fold(0, u128::wrapping_add))
}

/// The rows of a table, page by page.
#[track_caller]
fn manifest(client: &Client, limit: u64, least: &str, query: &str) -> Vec<Json> {
    let (mut rows, mut from) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/tables/todo/manifest?limit={limit}{query}{from}")).expect(200).json();
        let found = list(&page["rows"]);
        assert_eq!((number(&page["count"]), text(&page["digest"])), (found.len() as u64, sum(&found)));
        rows.extend(found);
        if page["next"].is_null() {
            return rows;
        }
        // It is sent back as it is, and nothing of it has to be escaped.
        let next = page["next"].as_str().map_or_else(|| page["next"].to_string(), str::to_owned);
        assert_ne!(from, format!("&{least}={next}"), "it gets on");
        from = format!("&{least}={next}");
    }
}

#[track_caller]
fn table(client: &Client) -> Json {
    client.get("/tables/todo").expect(200).json()
}

#[test]
fn a_table_tells_how_it_stands() {
    let world = World::new();
    let owner = &world.owner;
    owner.get("/tables/todo").problem(404, "not-found");
    let rows = [
        json!({"key": "a", "fields": {"n": 1}, "source_version": 7}),
        json!({"key": "b", "fields": {"n": 2}, "source_version": 70}),
        json!({"key": "c", "fields": {"n": 3}}),
    ];
    owner.write("todo", &rows);
    owner.put("other", "elsewhere", &json!({}));
    let last = owner.row("todo", "c");
    let (database, told) = (owner.get(NOTES).expect(200).json(), table(owner));
    for (member, expected) in [
        ("count", json!(3)),
        ("max_version", last["version"].clone()),
        ("max_source_version", json!(70)),
        ("max_modified_ms", last["modified_ms"].clone()),
        ("revision", json!(1)),
        ("epoch", database["epoch"].clone()),
        ("min_retained_version", json!(0)),
        ("digest", sum(&manifest(owner, 10, "min_version", "")).into()),
    ] {
        assert_eq!(told[member], expected, "{member}");
    }
    assert!(number(&told["max_modified_ms"]) > 0);

    // A delete is the last thing that happened to the table, and takes away what the row had said.
    owner.delete("/tables/todo/rows/b").expect(200);
    let after = table(owner);
    assert_eq!((&after["count"], &after["max_source_version"]), (&json!(2), &json!(7)));
    assert!(number(&after["max_version"]) > number(&told["max_version"]));
    owner.send("POST", "/tables/todo/delete", &json!({"keys": ["a", "c"]})).expect(200);
    let empty = table(owner);
    assert_eq!((&empty["count"], &empty["max_source_version"]), (&json!(0), &Json::Null));
    assert_eq!(text(&empty["digest"]), sum(&[]));
}

#[test]
fn deletions_that_are_forgotten_show_in_the_least_version_that_is_kept() {
    let world = World::new();
    let owner = &world.owner;
    owner.write("todo", &empty_rows("k", 3));
    let deleted = owner.delete("/tables/todo/rows/k0001").expect(200).json()["version"].clone();
    owner.send("PUT", "/tables/todo", &json!({"retention_days": 0})).expect(200);
    world.forget_deletions();
    assert_eq!(table(owner)["min_retained_version"], deleted);
    assert_eq!(owner.get(NOTES).expect(200).json()["horizon"], deleted);
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let world = World::new();
    let owner = &world.owner;
    owner.write("todo", &empty_rows("k", 2));
    for path in ["/tables/todo", "/tables/todo/rows/k0000"] {
        let tag = header(&owner.get(path).expect(200), "etag");
        for said in [tag.clone(), format!("\"other\", {tag}"), format!("W/{tag}"), "*".to_owned()] {
            let same = owner.ask("GET", path, &[("If-None-Match", &said)], None).expect(304);
            assert_eq!((header(&same, "etag"), same.body), (tag.clone(), Vec::new()));
        }
        for said in ["\"other\"", "nonsense"] {
            owner.ask("GET", path, &[("If-None-Match", said)], None).expect(200);
        }
        // What happens to others is no change.
        owner.put("other", "k0000", &json!({"path": path}));
        owner.ask("GET", path, &[("If-None-Match", &tag)], None).expect(304);
        owner.put("todo", "k0000", &json!({"path": path}));
        let changed = owner.ask("GET", path, &[("If-None-Match", &tag)], None).expect(200);
        assert_ne!(header(&changed, "etag"), tag);
    }
    let row = owner.get("/tables/todo/rows/k0000").expect(200);
    assert_eq!(header(&row, "etag"), format!("\"{}\"", text(&row.json()["context"])), "a row's tag is its context");
}

#[test]
fn a_manifest_goes_through_every_row_exactly_once() {
    let world = World::new();
    let owner = &world.owner;
    // With other rows in between, some of which are gone, and two of the client's versions that several rows have.
    let sources = [-5, 7, 7, 7, 9, 30, 30, 31];
    for n in 0..12 {
        let (key, source) = (format!("k{n:04}"), sources[n % sources.len()]);
        let row = json!({"key": key, "fields": {}, "source_version": source});
        owner.write("todo", &[row]);
        owner.put("other", &format!("o{n}"), &json!({}));
        owner.put("todo", "gone", &json!({}));
        owner.delete("/tables/todo/rows/gone").expect(200);
    }
    owner.put("todo", "unnumbered", &json!({}));
    let all = manifest(owner, 1000, "min_version", "");
    assert_eq!(all.len(), 13);
    let versions: Vec<u64> = all.iter().map(|row| number(&row["version"])).collect();
    assert!(versions.is_sorted());
    for row in &all {
        let stored = owner.row("todo", &text(&row["key"]));
        assert_eq!((&stored["version"], &stored["source_version"]), (&row["version"], &row["source_version"]));
    }
    let numbered = manifest(owner, 1000, "min_source_version", "&max_source_version=1000");
    assert_eq!(numbered.len(), 12, "of those that have a version of the client's");
    assert!(numbered.iter().map(|row| row["source_version"].as_i64()).is_sorted());
    for limit in [1, 2, 5] {
        assert_eq!(manifest(owner, limit, "min_version", ""), all, "{limit} at a time");
        let paged = manifest(owner, limit, "min_source_version", "&max_source_version=1000");
        assert_eq!(paged, numbered, "{limit} at a time");
    }

    // Both bounds are part of what they bound, and the sum of a stretch is the same without its rows.
    let of = |query: &str| {
        let answer =
            |more: &str| owner.get(&format!("/tables/todo/manifest?limit=1000&{query}{more}")).expect(200).json();
        let (page, summary) = (answer(""), answer("&summary=true"));
        assert_eq!((&summary["count"], &summary["digest"]), (&page["count"], &page["digest"]), "{query}");
        assert_eq!((summary.get("rows"), summary.get("next")), (None, None));
        list(&page["rows"])
    };
    let (low, high) = (versions[3], versions[9]);
    assert_eq!(of(&format!("min_version={low}&max_version={high}")), all[3..=9]);
    assert_eq!(of(&format!("min_version={}", high + 1)), all[10..]);
    assert_eq!(of(&format!("max_version={}", low - 1)), all[..3]);
    assert_eq!(of(&format!("min_version={high}&max_version={low}")), [] as [Json; 0]);
    assert_eq!(of(&format!("min_version={}", u64::MAX)), [] as [Json; 0]);
    let sources = |rows: &[Json]| rows.iter().map(|row| row["source_version"].as_i64()).collect::<Vec<_>>();
    assert_eq!(
        sources(&of("min_source_version=7&max_source_version=9")),
        [[Some(7); 6].as_slice(), &[Some(9)]].concat()
    );
    assert_eq!(sources(&of("max_source_version=-5")), [Some(-5); 2]);
    assert_eq!(of("min_source_version=32"), [] as [Json; 0]);
    assert_eq!(of("min_source_version=9&max_source_version=7"), [] as [Json; 0]);
    owner.get("/tables/todo/manifest?min_version=1&max_source_version=1").problem(400, "malformed");
    owner.get("/tables/todo/manifest?limit=x").problem(400, "malformed");
    owner.get("/tables/none/manifest").problem(404, "not-found");
}

#[test]
fn however_many_rows_have_one_version_of_the_clients_a_page_is_bounded() {
    let world = World::new();
    let owner = &world.owner;
    let row = |key: String, source: i64| json!({"key": key, "fields": {}, "source_version": source});
    let mut rows: Vec<Json> = (0..2100).map(|n| row(format!("k{n:04}&é/\u{0}"), 7)).collect();
    // Two of which one begins with the other, right where a page ends.
    rows.extend([row("k0999&é/\u{0}\u{0}".to_owned(), 7), row("a".to_owned(), 6), row("b".to_owned(), 8)]);
    rows.chunks(1000).for_each(|rows| drop(owner.write("todo", rows)));
    let mut all = manifest(owner, 1000, "min_version", "");
    all.sort_by_key(|row| (row["source_version"].as_i64(), text(&row["key"])));
    assert_eq!(all.len(), rows.len());
    for limit in [1, 1000] {
        assert_eq!(manifest(owner, limit, "min_source_version", "&max_source_version=9"), all, "{limit} at a time");
    }
    let page = |query: &str| owner.get(&format!("/tables/todo/manifest?{query}")).expect(200).json();
    let first = page("limit=2&min_source_version=7");
    assert_eq!(list(&first["rows"]).len(), 1000);
    let rest = page(&format!("summary=true&max_source_version=7&min_source_version={}", text(&first["next"])));
    assert_eq!(rest["count"], 1101, "and what is left can be summed up");
    for nonsense in ["x", "7.", "7.!", "x.YQ", "7.YQ.YQ"] {
        let path = format!("/tables/todo/manifest?min_source_version={nonsense}");
        owner.get(&path).problem(400, "malformed");
    }
    // A range of them is deleted all the same.
    let tag = header(&owner.get("/tables/todo").expect(200), "etag");
    let deleted = owner.ask("DELETE", "/tables/todo?after_source=6", &[("If-Match", &tag)], None).expect(200).json();
    assert_eq!((&deleted["deleted_rows"], left(owner)), (&json!(2102), vec![json!("a")]));
}

#[test]
fn rows_of_one_version_of_the_clients_that_fit_on_a_page_are_not_parted() {
    let world = World::new();
    let owner = &world.owner;
    let row = |n: i64| json!({"key": format!("k{n:04}"), "fields": {}, "source_version": if n < 500 { 1 } else { 2 }});
    let rows: Vec<Json> = (0..1450).map(row).collect();
    rows.chunks(1000).for_each(|rows| drop(owner.write("todo", rows)));
    let page = |query: &str| owner.get(&format!("/tables/todo/manifest?limit=1000&{query}")).expect(200).json();
    let first = page("min_source_version=0");
    assert_eq!((list(&first["rows"]).len(), &first["next"]), (500, &json!(2)));
    let second = page("min_source_version=2");
    assert_eq!((list(&second["rows"]).len(), &second["next"]), (950, &Json::Null));
}

#[test]
fn a_digest_stands_for_the_rows_and_their_versions() {
    let world = World::new();
    let owner = &world.owner;
    owner.write("todo", &empty_rows("k", 5));
    let digest = || {
        let told = table(owner)["digest"].clone();
        assert_eq!(owner.get("/tables/todo/manifest?summary=true").expect(200).json()["digest"], told);
        text(&told)
    };
    let first = digest();
    assert_eq!(digest(), first);
    owner.put("other", "k0000", &json!({}));
    assert_eq!(digest(), first, "what others hold is no matter");
    owner.put("todo", "new", &json!({}));
    let more = digest();
    assert_ne!(more, first);
    owner.delete("/tables/todo/rows/new").expect(200);
    assert_eq!(digest(), first, "the same rows of the same versions");
    owner.put("todo", "k0000", &json!({}));
    assert!(![first, more].contains(&digest()), "written again it has another version");
}

/// Six rows, of which some have a version of the client's; their versions.
fn six(client: &Client) -> Vec<u64> {
    let row = |(n, source): (usize, &Option<i64>)| match source {
        Some(source) => json!({"key": format!("k{n}"), "fields": {}, "source_version": source}),
        None => json!({"key": format!("k{n}"), "fields": {}}),
    };
    let rows: Vec<Json> = [Some(-3), Some(5), None, Some(6), Some(40), None].iter().enumerate().map(row).collect();
    client.write("todo", &rows).iter().map(|result| number(&result["version"])).collect()
}

#[track_caller]
fn left(client: &Client) -> Vec<Json> {
    each(&client.get("/tables/todo/manifest?limit=1000").expect(200).json()["rows"], "key")
}

#[test]
fn a_range_takes_exactly_the_rows_that_it_names() {
    let world = World::new();
    let owner = &world.owner;
    owner.put("other", "k0", &json!({}));
    for (range, kept) in [
        ("after=VERSION", &["k0", "k1", "k2", "k3"][..]),
        ("after=0", &[]),
        ("after=18446744073709551615", &["k0", "k1", "k2", "k3", "k4", "k5"]),
        // What has no version of the client's is after none.
        ("after_source=5", &["k0", "k1", "k2", "k5"]),
        ("after_source=-4", &["k2", "k5"]),
        ("after_source=9223372036854775807", &["k0", "k1", "k2", "k3", "k4", "k5"]),
        ("all=true", &[]),
    ] {
        for (method, path) in [("DELETE", "/tables/todo"), ("POST", "/tables/todo/delete")] {
            let versions = six(owner);
            let path = format!("{path}?{}", range.replace("VERSION", &versions[3].to_string()));
            let tag = header(&owner.get("/tables/todo").expect(200), "etag");
            let deleted = owner.ask(method, &path, &[("If-Match", &tag)], None).expect(200).json();
            assert_eq!(
                (left(owner), number(&deleted["deleted_rows"])),
                (kept.iter().map(|key| json!(key)).collect(), 6 - kept.len() as u64),
                "{path}"
            );
        }
    }
    owner.row("other", "k0");
}

#[test]
fn a_range_is_deleted_only_by_those_who_saw_the_table_as_it_stands() {
    let world = World::new();
    let owner = &world.owner;
    six(owner);
    let stale = header(&owner.get("/tables/todo").expect(200), "etag");
    owner.put("todo", "k6", &json!({}));
    for range in ["after=0", "after_source=0", "all=true"] {
        let path = format!("/tables/todo?{range}");
        owner.delete(&path).problem(412, "changed");
        owner.ask("DELETE", &path, &[("If-Match", &stale)], None).problem(412, "changed");
        owner.ask("DELETE", &path, &[("If-Match", "\"other\"")], None).problem(412, "changed");
    }
    // Only a tag says what was seen: this one would match any table that is there.
    owner.ask("DELETE", "/tables/todo?all=true", &[("If-Match", "*")], None).problem(400, "malformed");
    owner.ask("DELETE", "/tables/todo?all=true", &[("If-Match", &format!("W/{stale}"))], None).problem(412, "changed");
    // What does not say what to delete, or says two things, deletes nothing either.
    let tag = header(&owner.get("/tables/todo").expect(200), "etag");
    let tagged = [("If-Match", tag.as_str())];
    for query in ["", "?after=0&all=true", "?after=x", "?after=-1", "?all=yes", "?before=7"] {
        owner.ask("DELETE", &format!("/tables/todo{query}"), &tagged, None).problem(400, "malformed");
    }
    owner.ask("DELETE", "/tables/todo?all=true", &tagged, Some("{\"keys\":[\"k0\"]}")).problem(400, "malformed");
    assert_eq!(left(owner).len(), 7);
    owner.ask("DELETE", "/tables/none?all=true", &tagged, None).problem(404, "not-found");
    // Keys need no tag: each names what it is about.
    let results = owner.send("DELETE", "/tables/todo", &json!({"keys": ["k0", "never"]})).expect(200).json();
    assert_eq!(each(&results["results"], "status"), ["accepted", "rejected"]);
    assert_eq!(left(owner).len(), 6);
}

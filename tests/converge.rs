//! Devices that write apart, meet, and know the same: byte for byte, conflicts and lost edits included.

mod house;

use std::collections::{BTreeMap, BTreeSet};

use house::{Device, NOT_FOUND, Trio, made_up_rows, parse_export, read_rows, rows, same_json, write_rows};
use serde_json::{Value, json};

const SPACE: &str = "atlas";

/// The values of a set, or of conflicting values, whatever their order.
fn unordered(values: &Value) -> BTreeSet<String> {
    let values = values.as_array().unwrap_or_else(|| panic!("not an array: {values}"));
    values.iter().map(Value::to_string).collect()
}

/// A FIELD as conflicts name it, whether by a plain name or by a pointer.
fn bare(field: &Value) -> &str {
    field.as_str().expect("a field is named by a string").trim_start_matches('/')
}

/// The only conflict of the space, alike on all.
#[track_caller]
fn the_conflict(trio: &Trio) -> Value {
    let conflicts = same_json(&trio.all(), &["conflicts", SPACE]);
    let all = conflicts.as_array().expect("conflicts are an array");
    assert_eq!(all.len(), 1, "one conflict: {conflicts}");
    all[0].clone()
}

#[track_caller]
fn no_conflicts(trio: &Trio) {
    assert_eq!(same_json(&trio.all(), &["conflicts", SPACE]), json!([]));
}

#[track_caller]
fn no_lost_edits(trio: &Trio) {
    assert_eq!(same_json(&trio.all(), &["lost", SPACE]), json!([]));
}

/// Three devices that have `place` in their space, and are apart now.
fn parted_over(place: &str) -> Trio {
    let mut trio = Trio::meet(SPACE);
    trio.a.ok(&["put", SPACE, "places", "fez", place]);
    trio.settle();
    trio.part();
    trio
}

#[test]
fn imported_rows_are_byte_identical_on_three_devices() {
    let trio = Trio::meet(SPACE);
    trio.a.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    trio.a.import(SPACE, "places", &rows("places.jsonl"), "code");
    trio.settle();

    let objects = parse_export(&trio.export(SPACE));
    let mut expected = BTreeMap::new();
    for (file, collection, key) in [("airports.jsonl", "airports", "iata"), ("places.jsonl", "places", "code")] {
        for row in read_rows(&rows(file)) {
            let name = row[key].as_str().expect("keys are strings").to_owned();
            expected.insert((collection.to_owned(), name), row);
        }
    }
    assert_eq!(objects, expected, "the key stays a field, and nothing is added or missing");
    no_conflicts(&trio);
    no_lost_edits(&trio);
}

#[test]
fn edits_of_different_fields_meet_without_a_conflict() {
    let mut trio = parted_over(r#"{"name":{"common":"Fes","official":"Fes"},"people":1,"note":"old"}"#);
    trio.a.ok(&["patch", SPACE, "places", "fez", r#"{"people":1150131}"#]);
    trio.b.ok(&["patch", SPACE, "places", "fez", r#"{"name":{"common":"Fez"}}"#]);
    trio.c.ok(&["patch", SPACE, "places", "fez", r#"{"name":{"official":"Fès","native":{"ar":"فاس"}}}"#]);
    trio.meet_again();

    trio.export(SPACE);
    let expected = json!({
        "name": {"common": "Fez", "official": "Fès", "native": {"ar": "فاس"}},
        "people": 1_150_131,
        "note": "old",
    });
    assert_eq!(trio.b.fields(SPACE, "places", "fez"), expected);
    no_conflicts(&trio);
}

#[test]
fn edits_of_the_same_field_are_all_kept_and_a_resolution_ends_the_conflict_everywhere() {
    let mut trio = parted_over(r#"{"mayor":"?","people":1}"#);
    trio.a.ok(&["patch", SPACE, "places", "fez", r#"{"mayor":"Amina"}"#]);
    trio.b.ok(&["patch", SPACE, "places", "fez", r#"{"mayor":"Badr"}"#]);
    trio.c.ok(&["patch", SPACE, "places", "fez", r#"{"mayor":"Chafik"}"#]);
    trio.meet_again();

    trio.export(SPACE);
    let conflict = the_conflict(&trio);
    assert_eq!((&conflict["collection"], &conflict["key"]), (&json!("places"), &json!("fez")));
    assert_eq!(bare(&conflict["field"]), "mayor");
    assert_eq!(unordered(&conflict["values"]), unordered(&json!(["Amina", "Badr", "Chafik"])), "no value is lost");
    assert_eq!(conflict["winner"], conflict["values"][0], "values come in winner order");

    let shown = same_json(&trio.all(), &["get", SPACE, "places", "fez"]);
    assert_eq!(shown["fields"]["mayor"], conflict["winner"], "the winner is what is shown");
    assert!(!shown["conflicts"].is_null(), "get says that there is more: {shown}");
    assert_eq!(trio.c.status(SPACE)["conflicts"], 1);

    let field = conflict["field"].as_str().expect("checked above");
    trio.c.ok(&["resolve", SPACE, "places", "fez", field, r#""Badr and Chafik""#]);
    trio.settle();
    no_conflicts(&trio);
    trio.export(SPACE);
    for device in trio.all() {
        assert_eq!(device.fields(SPACE, "places", "fez"), json!({"mayor": "Badr and Chafik", "people": 1}));
        assert_eq!(device.status(SPACE)["conflicts"], 0);
    }
}

#[test]
fn a_conflict_inside_of_a_nested_field_is_named_by_its_pointer() {
    let mut trio = parted_over(r#"{"name":{"common":"Fes","official":"Fes"}}"#);
    trio.a.ok(&["patch", SPACE, "places", "fez", r#"{"name":{"common":"Fez"}}"#]);
    trio.b.ok(&["patch", SPACE, "places", "fez", r#"{"name":{"common":"Fès"}}"#]);
    trio.meet_again();

    let conflict = the_conflict(&trio);
    assert_eq!(conflict["field"], "/name/common");
    trio.a.ok(&["resolve", SPACE, "places", "fez", "/name/common", r#""Fez""#]);
    trio.settle();
    no_conflicts(&trio);
    trio.export(SPACE);
    assert_eq!(trio.c.fields(SPACE, "places", "fez"), json!({"name": {"common": "Fez", "official": "Fes"}}));
}

#[test]
fn a_value_that_two_devices_write_alike_is_no_conflict() {
    let mut trio = parted_over(r#"{"people":1,"at":{"lat":0}}"#);
    for device in [&trio.a, &trio.b] {
        device.ok(&["patch", SPACE, "places", "fez", r#"{"people":1150131,"at":{"lat":34.0433}}"#]);
    }
    trio.meet_again();

    no_conflicts(&trio);
    trio.export(SPACE);
    assert_eq!(trio.c.fields(SPACE, "places", "fez"), json!({"people": 1_150_131, "at": {"lat": 34.0433}}));
}

#[test]
fn a_later_edit_replaces_what_its_author_had_seen() {
    let trio = Trio::meet(SPACE);
    trio.a.ok(&["put", SPACE, "places", "fez", r#"{"mayor":"first"}"#]);
    trio.settle();
    trio.b.ok(&["patch", SPACE, "places", "fez", r#"{"mayor":"second"}"#]);
    trio.settle();
    trio.c.ok(&["put", SPACE, "places", "fez", r#"{"head":"third"}"#]);
    trio.settle();

    no_conflicts(&trio);
    trio.export(SPACE);
    assert_eq!(trio.a.fields(SPACE, "places", "fez"), json!({"head": "third"}), "put replaces the whole object");
}

#[test]
fn a_delete_beats_a_patch_and_the_lost_edit_can_be_restored_or_discarded() {
    let mut trio = Trio::meet(SPACE);
    for key in ["fez", "haifa"] {
        trio.a.ok(&["put", SPACE, "places", key, r#"{"people":1,"name":"a city"}"#]);
    }
    trio.settle();
    trio.part();
    trio.a.ok(&["delete", SPACE, "places", "fez", "haifa"]);
    trio.b.ok(&["patch", SPACE, "places", "fez", r#"{"people":1150131}"#]);
    trio.c.ok(&["patch", SPACE, "places", "haifa", r#"{"people":285316,"port":{"since":1933}}"#]);
    trio.meet_again();

    assert_eq!(trio.export(SPACE), "", "both objects are deleted everywhere");
    let lost = same_json(&trio.all(), &["lost", SPACE]);
    let expected = json!([
        {"collection": "places", "key": "fez", "fields": {"people": 1_150_131}},
        {"collection": "places", "key": "haifa", "fields": {"people": 285_316, "port": {"since": 1933}}},
    ]);
    assert_eq!(lost, expected, "the edits are listed, and only they: what the delete had seen is gone");
    assert_eq!(trio.b.status(SPACE)["lost"], 2);
    for device in trio.all() {
        device.run(&["get", SPACE, "places", "fez"]).expect(NOT_FOUND);
    }

    trio.c.ok(&["lost", "restore", SPACE, "places", "fez"]);
    trio.a.ok(&["lost", "discard", SPACE, "places", "haifa"]);
    trio.settle();
    no_lost_edits(&trio);
    trio.export(SPACE);
    for device in trio.all() {
        assert_eq!(device.fields(SPACE, "places", "fez"), json!({"people": 1_150_131}));
        assert!(!device.sees(SPACE, "places", "haifa"));
    }
}

#[test]
fn a_put_beside_a_delete_wins_whole() {
    let mut trio = parted_over(r#"{"people":1,"name":"Fez"}"#);
    trio.a.ok(&["delete", SPACE, "places", "fez"]);
    trio.b.ok(&["put", SPACE, "places", "fez", r#"{"people":2,"mayor":"Badr"}"#]);
    trio.meet_again();

    trio.export(SPACE);
    assert_eq!(trio.c.fields(SPACE, "places", "fez"), json!({"people": 2, "mayor": "Badr"}));
    no_conflicts(&trio);
    no_lost_edits(&trio);
}

#[test]
fn what_was_deleted_does_not_return_with_a_device_that_was_away() {
    let mut trio = Trio::meet(SPACE);
    trio.a.import(SPACE, "places", &rows("places.jsonl"), "code");
    trio.settle();
    trio.part();

    // C is away with its twelve rows, and writes. The others delete all of them, and go on.
    trio.c.ok(&["put", SPACE, "diary", "day-1", r#"{"text":"away"}"#]);
    let keys: Vec<String> = trio.a.objects(SPACE).into_keys().map(|(_, key)| key).collect();
    let mut delete = vec!["delete", SPACE, "places"];
    delete.extend(keys.iter().map(String::as_str));
    trio.a.ok(&delete);
    trio.b.ok(&["put", SPACE, "places", "kyoto", r#"{"written":"beside the delete"}"#]);
    trio.meet_again();

    let objects = parse_export(&trio.export(SPACE));
    let keys: Vec<&str> = objects.keys().map(|(_, key)| key.as_str()).collect();
    assert_eq!(keys, ["day-1", "kyoto"], "only what someone wrote beside the delete is there");
    no_lost_edits(&trio);
}

#[test]
fn counters_add_up_and_sets_keep_what_was_added() {
    let mut trio = Trio::meet(SPACE);
    trio.a.ok(&["put", SPACE, "places", "fez", r#"{"name":"Fez"}"#]);
    trio.a.ok(&["increment", SPACE, "places", "fez", "visits", "10"]);
    trio.a.ok(&["add", SPACE, "places", "fez", "tags", r#""old""#]);
    trio.a.ok(&["add", SPACE, "places", "fez", "tags", r#""walls""#]);
    trio.settle();
    trio.part();

    trio.a.ok(&["increment", SPACE, "places", "fez", "visits", "3"]);
    trio.b.ok(&["increment", SPACE, "places", "fez", "visits", "4"]);
    trio.c.ok(&["increment", SPACE, "places", "fez", "visits", "-2"]);
    trio.a.ok(&["increment", SPACE, "places", "fez", "/stars/given", "1"]);
    trio.c.ok(&["increment", SPACE, "places", "fez", "/stars/given", "1"]);

    trio.a.ok(&["remove", SPACE, "places", "fez", "tags", r#""old""#]);
    trio.a.ok(&["remove", SPACE, "places", "fez", "tags", r#""walls""#]);
    trio.b.ok(&["remove", SPACE, "places", "fez", "tags", r#""walls""#]);
    trio.b.ok(&["add", SPACE, "places", "fez", "tags", r#""walls""#]);
    trio.c.ok(&["add", SPACE, "places", "fez", "tags", r#""تمور""#]);
    trio.meet_again();

    no_conflicts(&trio);
    trio.export(SPACE);
    let fields = trio.c.fields(SPACE, "places", "fez");
    assert_eq!(fields["visits"], 15);
    assert_eq!(fields["stars"], json!({"given": 2}));
    assert_eq!(
        unordered(&fields["tags"]),
        unordered(&json!(["walls", "تمور"])),
        "an addition beats a removal beside it"
    );
}

#[test]
fn unset_removes_a_field_and_everything_under_it_that_it_had_seen() {
    let mut trio = parted_over(
        r#"{"name":{"common":"Fez","native":{"ar":"فاس","fr":"Fès"}},"people":1,"note":"x","at":{"lat":34,"lon":-5}}"#,
    );
    trio.a.ok(&["unset", SPACE, "places", "fez", "note", "/name/native", "/at/lon"]);
    trio.b.ok(&["patch", SPACE, "places", "fez", r#"{"people":2}"#]);
    trio.c.ok(&["patch", SPACE, "places", "fez", r#"{"name":{"native":{"ber":"ⴼⴰⵙ"}}}"#]);
    trio.meet_again();

    trio.export(SPACE);
    let expected = json!({"name": {"common": "Fez", "native": {"ber": "ⴼⴰⵙ"}}, "people": 2, "at": {"lat": 34}});
    assert_eq!(trio.b.fields(SPACE, "places", "fez"), expected, "what C wrote meanwhile is kept");
    no_conflicts(&trio);
}

#[test]
fn every_kind_of_value_survives_the_journey() {
    let trio = Trio::meet(SPACE);
    let fields = r#"{
        "nothing": null, "yes": true, "no": false,
        "largest": 9223372036854775807, "smallest": -9223372036854775808, "zero": 0,
        "half": 0.5, "negative": -2.25, "tenth": 0.1,
        "text": "", "escapes": "\"\\\n\t\u0001/", "scripts": "Žižkov · שלום · سلام · 東京 · 👩‍🌾 · e\u0301 ≠ é",
        "bytes": {"$bytes": "AAEC/w=="}, "no_bytes": {"$bytes": ""},
        "empty": {}, "nested": {"empty": {}, "deep": {"er": {"null": null}}},
        "list": [], "lists": [1, [2, ["three", {"four": 4, "bytes": {"$bytes": "AQ=="}, "none": {}}]], null],
        "a/b~c": {"ключ": {"": "an empty name"}}
    }"#;
    trio.a.ok(&["put", SPACE, "kinds", "東京/Žižkov 1", fields]);
    trio.settle();

    trio.export(SPACE);
    let expected: Value = serde_json::from_str(fields).expect("literal");
    for device in trio.all() {
        assert_eq!(device.fields(SPACE, "kinds", "東京/Žižkov 1"), expected);
    }

    // A field whose name has a slash and a tilde in it is reached by a pointer with their escapes.
    trio.b.ok(&["patch", SPACE, "kinds", "東京/Žižkov 1", r#"{"a/b~c":{"second":2}}"#]);
    trio.b.ok(&["unset", SPACE, "kinds", "東京/Žižkov 1", "/a~1b~0c/ключ", "nested"]);
    trio.settle();
    let fields = trio.c.fields(SPACE, "kinds", "東京/Žižkov 1");
    assert_eq!(fields["a/b~c"], json!({"second": 2}));
    assert_eq!(fields.get("nested"), None);
}

#[test]
fn floats_leave_exactly_as_they_came() {
    let trio = Trio::meet(SPACE);
    let numbers = ["0.1", "0.30000000000000004", "1.7976931348623157e308", "5e-324", "2.2250738585072014e-308"];
    for number in numbers {
        trio.a.ok(&["put", SPACE, "floats", number, &format!(r#"{{"it":{number}}}"#)]);
    }
    trio.settle();

    // Parsed with the standard library, which is exact, from the very text of the export.
    let export = trio.export(SPACE);
    for number in numbers {
        let line = export.lines().find(|line| line.contains(&format!("{number:?}")));
        let line = line.unwrap_or_else(|| panic!("no line for {number} in {export}"));
        let (_, value) = line.split_once(r#""it":"#).unwrap_or_else(|| panic!("no value in {line}"));
        let end = value.find(['}', ',']).expect("the object ends");
        let found: f64 = value[..end].trim().parse().expect("a number");
        let expected: f64 = number.parse().expect("a number");
        assert_eq!(found.to_bits(), expected.to_bits(), "{number} became {found}");
    }
}

#[test]
fn null_is_a_value_in_a_patch_and_maps_merge_by_path() {
    let trio = Trio::meet(SPACE);
    trio.a.ok(&["put", SPACE, "places", "fez", r#"{"a":{"x":1,"y":[1,2]},"b":1}"#]);
    trio.a.ok(&["patch", SPACE, "places", "fez", r#"{"a":{"x":null,"y":[3],"z":{}},"c":{"d":1}}"#]);
    trio.settle();

    trio.export(SPACE);
    let expected = json!({"a": {"x": null, "y": [3], "z": {}}, "b": 1, "c": {"d": 1}});
    assert_eq!(trio.b.fields(SPACE, "places", "fez"), expected);
}

#[test]
fn kinds_that_clash_lose_nothing() {
    let mut trio = parted_over(r#"{"name":"Fez"}"#);
    trio.a.ok(&["patch", SPACE, "places", "fez", r#"{"size":"a single value","visits":"a register"}"#]);
    trio.b.ok(&["patch", SPACE, "places", "fez", r#"{"size":{"width":"a nested value"}}"#]);
    trio.c.ok(&["increment", SPACE, "places", "fez", "visits", "424242"]);
    trio.meet_again();

    let everything = trio.export(SPACE) + &same_json(&trio.all(), &["conflicts", SPACE]).to_string();
    for value in ["a single value", "a nested value", "a register", "424242"] {
        assert!(everything.contains(value), "{value} is neither shown nor listed:\n{everything}");
    }
}

#[test]
fn importing_a_file_twice_costs_no_event() {
    let trio = Trio::meet(SPACE);
    let known = |device: &Device| device.vector(SPACE);
    trio.a.import(SPACE, "places", &rows("places.jsonl"), "code");
    trio.a.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    let after_first = known(&trio.a);
    trio.a.import(SPACE, "places", &rows("places.jsonl"), "code");
    trio.a.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    assert_eq!(known(&trio.a), after_first, "no row was changed");

    // Nor does it on a device that has the rows from elsewhere.
    trio.settle();
    assert_eq!(known(&trio.b), after_first);
    trio.b.import(SPACE, "places", &rows("places.jsonl"), "code");
    assert_eq!(known(&trio.b), after_first);
}

#[test]
fn importing_a_changed_file_costs_only_its_differences() {
    let trio = Trio::meet(SPACE);
    let file = trio.a.beside("rows.jsonl");
    let mut rows = made_up_rows("r", 200);
    write_rows(&file, &rows);
    trio.a.import(SPACE, "rows", &file, "id");
    trio.settle();
    let before = trio.b.position(SPACE);

    rows[17]["number"] = json!(-17);
    rows[90]["extra"] = json!({"nested": true});
    rows[91].as_object_mut().expect("a row is an object").remove("text");
    rows.push(json!({"id": "r-new"}));
    rows.remove(3);
    write_rows(&file, &rows);
    trio.a.import(SPACE, "rows", &file, "id");
    trio.settle();

    let changed: BTreeSet<String> = trio
        .b
        .changes_since(SPACE, &before)
        .iter()
        .map(|change| change["key"].as_str().expect("a change has a key").to_owned())
        .collect();
    let expected = ["r-new", "r000017", "r000090", "r000091"].map(str::to_owned);
    assert_eq!(
        changed,
        BTreeSet::from(expected),
        "only these rows differ; a row that is not in the file is left alone"
    );

    trio.settle();
    trio.export(SPACE);
    assert_eq!(trio.c.fields(SPACE, "rows", "r000017")["number"], -17);
    assert_eq!(trio.c.fields(SPACE, "rows", "r000090")["extra"], json!({"nested": true}));
    assert_eq!(trio.c.fields(SPACE, "rows", "r000091").get("text"), None);
    assert!(trio.c.sees(SPACE, "rows", "r000003"));
}

#[test]
fn an_import_leaves_alone_what_others_changed_meanwhile() {
    let mut trio = Trio::meet(SPACE);
    let file = trio.a.beside("rows.jsonl");
    write_rows(&file, &[json!({"id": "fez", "people": 1, "mayor": "?", "name": {"fr": "Fès", "en": "Fes"}})]);
    trio.a.import(SPACE, "rows", &file, "id");
    trio.settle();
    trio.part();

    trio.b.ok(&["patch", SPACE, "rows", "fez", r#"{"mayor":"Badr","name":{"ar":"فاس"}}"#]);
    trio.b.ok(&["increment", SPACE, "rows", "fez", "visits", "2"]);
    write_rows(&file, &[json!({"id": "fez", "people": 2, "mayor": "?", "name": {"fr": "Fès", "en": "Fez"}})]);
    trio.a.import(SPACE, "rows", &file, "id");
    trio.meet_again();

    trio.export(SPACE);
    no_conflicts(&trio);
    let expected = json!({
        "id": "fez", "people": 2, "mayor": "Badr", "visits": 2,
        "name": {"fr": "Fès", "en": "Fez", "ar": "فاس"},
    });
    assert_eq!(trio.c.fields(SPACE, "rows", "fez"), expected);
}

#[test]
fn whatever_order_they_meet_in_they_agree() {
    // A few hundred edits at random, all three apart, in several rounds: no oracle but each other.
    let mut trio = Trio::meet(SPACE);
    let mut dice = house::Dice::new(20_26);
    for round in 0..3 {
        trio.part();
        for step in 0..25 {
            for device in trio.all() {
                let key = ["k0", "k1", "k2", "k3"][dice.below(4) as usize];
                let value = format!("{round}.{step}.{}", dice.below(1000));
                let fields = match dice.below(3) {
                    0 => format!(r#"{{"left":"{value}"}}"#),
                    1 => format!(r#"{{"deep":{{"er":"{value}"}}}}"#),
                    _ => format!(r#"{{"left":"{value}","right":{}}}"#, dice.below(3)),
                };
                let command = match dice.below(8) {
                    0 | 1 => vec!["put", SPACE, "soup", key, &fields],
                    2 => vec!["delete", SPACE, "soup", key],
                    3 => vec!["increment", SPACE, "soup", key, "count", "1"],
                    4 => vec!["add", SPACE, "soup", key, "set", r#""member""#],
                    _ => vec!["patch", SPACE, "soup", key, &fields],
                };
                let outcome = device.run(&command);
                // An object that is not visible, or a put or patch of what would change a counter: refused, and that is that.
                assert!(matches!(outcome.code, Some(0 | 1 | 4)), "{outcome:?}");
            }
        }
        trio.meet_again();
        trio.export(SPACE);
        same_json(&trio.all(), &["conflicts", SPACE]);
        same_json(&trio.all(), &["lost", SPACE]);
    }
}

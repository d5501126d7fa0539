//! The contract of the command line: words, outputs, exit codes, refusals.

mod house;

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use house::{
    ATLAS as SPACE, COMMAND_TIME_MAX, DONE, Device, FAILED, NOT_FOUND, Outcome, USAGE, alone, alone_with_fez,
    changes_nothing, finish, rows, send_signal, thence, write_rows,
};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

/// The commands of the contract.
const COMMANDS: [&str; 31] = [
    "init",
    "id",
    "node",
    "relay",
    "peer",
    "space",
    "invite",
    "join",
    "put",
    "patch",
    "unset",
    "increment",
    "add",
    "remove",
    "get",
    "delete",
    "list",
    "import",
    "export",
    "conflicts",
    "resolve",
    "lost",
    "watch",
    "status",
    "sync",
    "backup",
    "restore",
    "repair",
    "completions",
    "manual",
    "help",
];

// ------------------------------------------------------------------------------------------ identity and settings

#[test]
fn a_device_has_one_id_for_ever() {
    let device = Device::blank("A");
    device.ok(&["init"]);
    let id = device.ok(&["id"]);
    let hex = id.strip_suffix('\n').expect("a line");
    assert_eq!(hex.len(), 64, "the id, alone: {id:?}");
    assert!(hex.bytes().all(|byte| byte.is_ascii_hexdigit()));

    // Whether a second `init` is an error or not: it changes nothing.
    let _ = device.run(&["init"]);
    assert_eq!(device.ok(&["id"]), id);
    assert_ne!(Device::new("B").id(), hex, "every device has another");
}

#[cfg(unix)]
#[test]
fn the_key_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let device = Device::new("A");
    let mode = std::fs::metadata(device.data().join("device.key")).expect("the key is there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "mode {mode:o}");
}

#[test]
fn a_folder_that_is_no_device_yet_says_what_to_do() {
    let device = Device::blank("A");
    let outcome = device.run(&["space", "list"]).says("init");
    assert!(matches!(outcome.code, Some(FAILED | NOT_FOUND)), "{outcome:?}");
    assert!(!device.data().exists(), "looking makes no folder");
}

#[test]
fn a_node_initialises_a_folder_that_is_absent_or_empty() {
    let absent = Device::blank("A");
    let node = absent.start_node(&[]);
    assert_eq!(absent.id(), node.device(), "the ready line names the device");
    assert!(node.address().port() > 0 && node.address().ip().is_loopback());
    node.terminate();

    let empty = Device::blank("B");
    std::fs::create_dir(empty.data()).expect("an empty folder");
    empty.start_node(&[]).stop_with("INT");
    assert_eq!(empty.id().len(), 64);
}

#[cfg(target_os = "linux")]
#[test]
fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
    let (by_file, by_environment, by_flag) = (Device::new("file"), Device::new("environment"), Device::new("flag"));
    let config = by_file.beside("thence.toml");
    let settings = format!("data = {:?}\nlisten = \"127.0.0.2:0\"\n", by_file.data());
    std::fs::write(&config, settings).expect("a config file");
    let run = |arguments: &[&str], environment: bool| {
        let mut command = thence();
        command.arg("--config").arg(&config);
        if environment {
            command.env("THENCE_DATA", by_environment.data());
        }
        command.args(arguments);
        finish(command, COMMAND_TIME_MAX).expect(DONE).stdout.trim().to_owned()
    };
    assert_eq!(run(&["id"], false), by_file.id());
    assert_eq!(run(&["id"], true), by_environment.id());
    let flag = by_flag.data();
    assert_eq!(run(&["--data", flag.to_str().expect("UTF-8"), "id"], true), by_flag.id());
    assert_eq!(run(&["id", "--data", flag.to_str().expect("UTF-8")], true), by_flag.id(), "flags may come last");
}

#[test]
fn logs_go_to_stderr_and_never_into_the_output() {
    let device = alone_with_fez();
    let quiet = device.run(&["export", SPACE]).expect(DONE);
    assert_eq!(quiet.stderr, "", "quiet by default");
    for format in ["text", "json"] {
        let mut command = device.command(&["--log-format", format, "export", SPACE]);
        command.env("THENCE_LOG", "trace");
        assert_eq!(finish(command, COMMAND_TIME_MAX).expect(DONE).stdout, quiet.stdout);
    }
}

#[test]
fn help_names_every_command() {
    let mut command = thence();
    command.arg("--help");
    let help = finish(command, COMMAND_TIME_MAX).expect(DONE).stdout;
    let words: BTreeSet<&str> = help.split(|letter: char| !letter.is_ascii_lowercase()).collect();
    for name in COMMANDS {
        assert!(words.contains(name), "--help does not mention {name}:\n{help}");
    }
    for name in COMMANDS.iter().filter(|name| **name != "help") {
        let mut command = thence();
        command.args([name, "--help"]);
        let outcome = finish(command, COMMAND_TIME_MAX).expect(DONE);
        assert!(outcome.stdout.contains("Usage"), "{name} --help:\n{}", outcome.stdout);
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let mut command = thence();
        command.args(["completions", shell]);
        let script = finish(command, COMMAND_TIME_MAX).expect(DONE).stdout;
        assert!(script.contains("thence") && script.contains("conflicts"), "{shell}:\n{script}");
    }
    let mut command = thence();
    command.args(["completions", "tea-shell"]);
    finish(command, COMMAND_TIME_MAX).expect(USAGE);
}

#[test]
fn every_command_has_a_manual_page() {
    let mut command = thence();
    command.arg("manual");
    let page = finish(command, COMMAND_TIME_MAX).expect(DONE).stdout;
    assert!(page.contains(".TH thence 1") && page.contains("THENCE_DATA"), "{page}");

    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("man1");
    let mut command = thence();
    command.arg("manual").arg(&pages);
    assert_eq!(finish(command, COMMAND_TIME_MAX).expect(DONE).stdout, "");
    for name in COMMANDS.iter().filter(|name| **name != "help") {
        let page = std::fs::read_to_string(pages.join(format!("thence-{name}.1"))).expect("a page");
        assert!(page.contains(".SH SYNOPSIS") && page.contains(name), "{name}:\n{page}");
    }
    let page = std::fs::read_to_string(pages.join("thence-space-create.1")).expect("a page");
    assert!(page.contains(".SH SYNOPSIS"), "{page}");

    let mut command = thence();
    command.arg("manual").arg(pages.join("thence.1"));
    let refused = finish(command, COMMAND_TIME_MAX).expect(FAILED);
    assert!(refused.stderr.contains("help: "), "{}", refused.stderr);
}

// ------------------------------------------------------------------------------------------------ codes and errors

#[test]
fn wrong_usage_is_2() {
    let device = alone();
    for arguments in [
        &["nonsense"][..],
        &[],
        &["put", SPACE, "places"],
        &["get", SPACE, "places", "fez", "too", "much"],
        &["sync", "--timeout", "soon"],
        &["invite", SPACE, "--role", "emperor"],
        &["invite", SPACE, "--expires", "whenever"],
        &["node", "--listen", "nowhere"],
        &["peer", "add", "not-a-peer"],
        &["id", "--no-such-flag"],
    ] {
        let outcome = device.run(arguments).expect(USAGE);
        assert!(!outcome.stderr.trim().is_empty(), "{arguments:?} was refused without a word");
        assert_eq!(outcome.stdout, "", "{arguments:?}: errors go to stderr");
    }
}

#[test]
fn errors_are_one_json_object_when_asked_for() {
    let device = alone_with_fez();
    for (arguments, code) in [
        (&["get", SPACE, "places", "nowhere"][..], NOT_FOUND),
        (&["get", "no-such-space", "places", "fez"], NOT_FOUND),
        (&["patch", SPACE, "places", "nowhere", r#"{"a":1}"#], NOT_FOUND),
        (&["import", SPACE, "places", "/no/such/file.jsonl", "--key", "code"], FAILED),
        (&["put", SPACE, "places"], USAGE),
    ] {
        let outcome = device.run_json(arguments).expect(code);
        outcome.error();
        assert_eq!(outcome.stdout, "", "{arguments:?}");
        // And without --json: words, not JSON.
        let words = device.run(arguments).expect(code).stderr;
        assert!(!words.trim().is_empty() && serde_json::from_str::<Value>(&words).is_err(), "{words}");
    }
}

#[test]
fn a_name_that_means_two_spaces_is_an_error_that_lists_both_and_ids_always_work() {
    let (a, b) = (alone(), alone());
    a.ok(&["put", SPACE, "places", "fez", r#"{"of":"A"}"#]);
    b.ok(&["put", SPACE, "places", "fez", r#"{"of":"B"}"#]);
    let (id_of_a, id_of_b) = (a.space_id(SPACE), b.space_id(SPACE));
    assert_ne!(id_of_a, id_of_b);
    let _node = a.start_node(&[]);
    a.share(SPACE, "owner", &b);
    b.ok(&["sync"]);

    for arguments in [
        &["get", SPACE, "places", "fez"][..],
        &["put", SPACE, "places", "fez", r#"{"of":"nobody"}"#],
        &["list", SPACE],
        &["export", SPACE],
        &["conflicts", SPACE],
        &["lost", SPACE],
        &["invite", SPACE],
    ] {
        b.run(arguments).refused().says(&id_of_a).says(&id_of_b);
        let message = b.run_json(arguments).error().to_string();
        assert!(message.contains(&id_of_a) && message.contains(&id_of_b), "{message}");
    }
    assert_eq!(b.fields(&id_of_a, "places", "fez"), json!({"of": "A"}));
    assert_eq!(b.fields(&id_of_b, "places", "fez"), json!({"of": "B"}));
    b.ok(&["patch", &id_of_a, "places", "fez", r#"{"by":"B"}"#]);
    b.ok(&["sync"]);
    assert_eq!(a.fields(&id_of_a, "places", "fez"), json!({"of": "A", "by": "B"}));
    assert_eq!(a.fields(SPACE, "places", "fez"), json!({"of": "A", "by": "B"}), "on A the name means one");
}

#[test]
fn ids_work_wherever_names_do() {
    let device = alone_with_fez();
    let id = device.space_id(SPACE);
    device.ok(&["put", &id, "places", "haifa", r#"{"people":1}"#]);
    device.ok(&["patch", &id, "places", "haifa", r#"{"name":"Haifa"}"#]);
    device.ok(&["unset", &id, "places", "haifa", "people"]);
    device.ok(&["increment", &id, "places", "haifa", "visits", "1"]);
    device.ok(&["add", &id, "places", "haifa", "tags", r#""port""#]);
    device.ok(&["remove", &id, "places", "haifa", "tags", r#""port""#]);
    device.ok(&["resolve", &id, "places", "haifa", "name", r#""Haifa""#]);
    device.import(&id, "cities", &rows("places.jsonl"), "code");
    device.ok(&["delete", &id, "cities", "kyoto"]);
    for command in ["list", "export", "conflicts", "lost"] {
        assert_eq!(device.ok(&[command, &id]), device.ok(&[command, SPACE]), "{command}");
    }
    let bad = id.chars().rev().collect::<String>();
    if bad != id {
        device.run(&["list", &bad]).expect(NOT_FOUND);
    }
}

// ---------------------------------------------------------------------------------------------- objects and fields

#[test]
fn spaces_and_objects_are_listed_as_promised() {
    let device = alone_with_fez();
    device.ok(&["put", SPACE, "people", "amina", "{}"]);
    let spaces = device.json(&["space", "list"]);
    let id = device.space_id(SPACE);
    assert_eq!(spaces, json!([{"id": id, "name": SPACE, "role": "owner", "objects": 2}]));

    let all = json!([{"collection": "people", "key": "amina"}, {"collection": "places", "key": "fez"}]);
    assert_eq!(device.json(&["list", SPACE]), all);
    assert_eq!(device.json(&["list", SPACE, "people"]), json!([{"collection": "people", "key": "amina"}]));
    assert_eq!(device.json(&["list", SPACE, "nothing"]), json!([]));
    assert_eq!(device.fields(SPACE, "people", "amina"), json!({}), "an object without fields is an object");

    let object = device.json(&["get", SPACE, "places", "fez"]);
    assert_eq!(object["collection"], "places");
    assert_eq!(object["key"], "fez");
    assert_eq!(object["fields"], json!({"name": "Fez", "people": 1}));
    assert!(object.get("conflicts").is_none_or(|conflicts| conflicts.as_array().is_none_or(Vec::is_empty)));

    let status = device.json(&["status"]);
    assert_eq!(status["device"], device.id());
    assert!(status["replica"].is_string(), "{status}");
    let space = device.status(SPACE);
    assert_eq!((&space["role"], &space["objects"]), (&json!("owner"), &json!(2)));
    assert_eq!((&space["conflicts"], &space["lost"], &space["peers"]), (&json!(0), &json!(0), &json!([])));
    assert!(space["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{space}");
    device.ok(&["status", "--check"]);

    device.ok(&["delete", SPACE, "places", "fez"]);
    assert_eq!(device.json(&["space", "list"])[0]["objects"], 1);
    assert!(!device.sees(SPACE, "places", "fez"));
}

#[test]
fn what_is_not_visible_is_not_found_and_nothing_is_written() {
    let device = alone_with_fez();
    device.ok(&["put", SPACE, "places", "gone", r#"{"tags":1}"#]);
    device.ok(&["delete", SPACE, "places", "gone"]);
    for key in ["never", "gone"] {
        for arguments in [
            &["get", SPACE, "places", key][..],
            &["patch", SPACE, "places", key, r#"{"a":1}"#],
            &["unset", SPACE, "places", key, "tags"],
            &["increment", SPACE, "places", key, "visits", "1"],
            &["add", SPACE, "places", key, "tags", r#""x""#],
            &["remove", SPACE, "places", key, "tags", r#""x""#],
            &["delete", SPACE, "places", key],
            &["delete", SPACE, "places", "fez", key],
        ] {
            changes_nothing(&device, arguments).expect(NOT_FOUND);
        }
    }
    for arguments in [
        &["resolve", SPACE, "places", "never", "a", "1"][..],
        &["lost", "restore", SPACE, "places", "never"],
        &["lost", "discard", SPACE, "places", "never"],
    ] {
        changes_nothing(&device, arguments).expect(NOT_FOUND);
    }
    assert_eq!(device.fields(SPACE, "places", "fez"), json!({"name": "Fez", "people": 1}));
}

#[test]
fn a_number_that_cannot_be_kept_exactly_is_refused() {
    let device = alone_with_fez();
    for number in [
        "9223372036854775809",
        "-9223372036854775809",
        "18446744073709551615",
        "123456789012345678901234567890",
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "-Infinity",
    ] {
        let fields = format!(r#"{{"it":{number}}}"#);
        changes_nothing(&device, &["put", SPACE, "numbers", "n", &fields]).refused();
        changes_nothing(&device, &["patch", SPACE, "places", "fez", &fields]).refused();
        let nested = format!(r#"{{"deep":{{"er":[1,{{"it":{number}}}]}}}}"#);
        changes_nothing(&device, &["put", SPACE, "numbers", "n", &nested]).refused();
    }
    for number in ["0.5", "9223372036854775808", "much", "1e400"] {
        // Counters count in whole numbers.
        changes_nothing(&device, &["increment", SPACE, "places", "fez", "visits", number]).refused();
    }
    for number in ["9223372036854775807", "-9223372036854775808", "0", "-1", "1e300", "0.25"] {
        device.ok(&["put", SPACE, "numbers", number, &format!(r#"{{"it":{number}}}"#)]);
        let expected: Value = serde_json::from_str(number).expect("literal");
        assert_eq!(device.fields(SPACE, "numbers", number)["it"], expected);
    }
}

#[test]
fn what_is_no_object_of_fields_is_refused() {
    let device = alone_with_fez();
    for fields in ["", "{", "[]", "1", "null", "\"text\"", r#"{"a":1}{"b":2}"#, r#"{"a":{"$bytes":"not base64!"}}"#] {
        changes_nothing(&device, &["put", SPACE, "places", "fez", fields]).refused();
        changes_nothing(&device, &["patch", SPACE, "places", "fez", fields]).refused();
    }
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    changes_nothing(&device, &["put", SPACE, "places", "fez", &deep]).refused();
    let very_deep = format!(r#"{{"a":{}1{}}}"#, r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
    changes_nothing(&device, &["put", SPACE, "places", "fez", &very_deep]).refused();
}

#[test]
fn collections_that_begin_with_a_dollar_are_reserved() {
    let device = alone_with_fez();
    for collection in ["$grants", "$", "$anything"] {
        changes_nothing(&device, &["put", SPACE, collection, "k", "{}"]).refused();
        let file = rows("places.jsonl");
        let file = file.to_str().expect("UTF-8");
        changes_nothing(&device, &["import", SPACE, collection, file, "--key", "code"]).refused();
    }
    let listed = device.ok(&["list", SPACE]) + &device.ok(&["export", SPACE]);
    assert!(!listed.contains('$'), "what the program keeps for itself is not listed:\n{listed}");
}

#[test]
fn what_a_relay_knows_of_its_customers_is_kept_from_ordinary_commands() {
    let device = Device::blank("A");
    let relay = device.start_relay(&[]);
    for customer in ["acme", "apex"] {
        let bearer =
            format!("Bearer {}", device.ok(&["token", "create", "--customer", customer, "--role", "owner"]).trim());
        let path = format!("/v1/customers/{customer}/databases/notes");
        house::Http::connect(relay.http()).ask("PUT", &path, &[("Authorization", &bearer)]).expect(201);
    }
    for arguments in [
        &["put", "system", "tokens", "zzz", "{\"a\":1}"][..],
        &["delete", "system", "databases", "acme/notes"],
        &["invite", "system"],
        &["space", "wipe", "system", "--yes"],
        &["space", "create", "system"],
    ] {
        device.run(arguments).expect(FAILED).says("relay");
    }
    device.ok(&["token", "list"]);
    // Two databases of one name are told apart.
    let listed = device.ok(&["space", "list"]);
    assert!(listed.contains("acme/notes") && listed.contains("apex/notes"), "{listed}");
    device.ok(&["put", "acme/notes", "notes", "n1", "{}"]);
    assert!(device.ok(&["status"]).contains("acme/notes"));
    relay.terminate();
}

#[test]
fn what_is_too_large_is_refused_in_a_few_words() {
    let device = alone_with_fez();
    let long = "k".repeat(100_000);
    let outcome = changes_nothing(&device, &["put", SPACE, "places", &long, "{}"]).refused();
    assert!(outcome.stderr.len() < 4_000, "the refusal repeats what was too large");

    let file = device.beside("large.jsonl");
    let path = file.to_str().expect("UTF-8").to_owned();
    for row in [json!({"code": long}), json!({"code": "large", "text": "x".repeat(64 << 20)})] {
        write_rows(&file, &[row]);
        let outcome = changes_nothing(&device, &["import", SPACE, "places", &path, "--key", "code"]).refused();
        assert!(outcome.stderr.len() < 4_000, "the refusal repeats what was too large");
    }
}

#[test]
fn a_put_that_repeats_a_counter_or_a_set_leaves_it_alone_and_one_that_changes_it_is_refused() {
    let device = alone_with_fez();
    device.ok(&["increment", SPACE, "places", "fez", "visits", "5"]);
    device.ok(&["increment", SPACE, "places", "fez", "visits", "-2"]);
    device.ok(&["add", SPACE, "places", "fez", "tags", r#""walls""#]);
    device.ok(&["add", SPACE, "places", "fez", "tags", r#""tea""#]);
    let shown = device.fields(SPACE, "places", "fez");
    assert_eq!(shown["visits"], 3, "a counter shows as a number");
    assert_eq!(shown["tags"].as_array().map(Vec::len), Some(2), "a set shows as an array");

    // Repeating what is shown: the name changes, the counter stays one.
    let mut repeated = shown.clone();
    repeated["name"] = json!("Fès");
    device.ok(&["put", SPACE, "places", "fez", &repeated.to_string()]);
    device.ok(&["patch", SPACE, "places", "fez", &json!({"visits": 3, "tags": shown["tags"]}).to_string()]);
    device.ok(&["increment", SPACE, "places", "fez", "visits", "1"]);
    device.ok(&["remove", SPACE, "places", "fez", "tags", r#""tea""#]);
    let fields = device.fields(SPACE, "places", "fez");
    assert_eq!(fields, json!({"name": "Fès", "people": 1, "visits": 4, "tags": ["walls"]}));

    for (command, fields) in [("put", json!({"visits": 7, "tags": ["walls"]})), ("patch", json!({"visits": 7}))] {
        changes_nothing(&device, &[command, SPACE, "places", "fez", &fields.to_string()])
            .expect(FAILED)
            .says("increment");
    }
    for (command, fields) in [("put", json!({"visits": 4, "tags": ["a", "b"]})), ("patch", json!({"tags": []}))] {
        let outcome = changes_nothing(&device, &[command, SPACE, "places", "fez", &fields.to_string()]).expect(FAILED);
        assert!(outcome.stderr.contains("add") || outcome.stderr.contains("remove"), "{}", outcome.stderr);
    }
    // A put without them takes them away, as it takes away every field that it does not name.
    device.ok(&["put", SPACE, "places", "fez", r#"{"name":"Fez"}"#]);
    assert_eq!(device.fields(SPACE, "places", "fez"), json!({"name": "Fez"}));
}

#[test]
fn a_field_of_one_kind_refuses_the_commands_of_another() {
    let device = alone_with_fez();
    device.ok(&["increment", SPACE, "places", "fez", "visits", "1"]);
    device.ok(&["add", SPACE, "places", "fez", "tags", r#""tea""#]);
    for arguments in [
        &["increment", SPACE, "places", "fez", "name", "1"][..],
        &["increment", SPACE, "places", "fez", "tags", "1"],
        &["add", SPACE, "places", "fez", "name", r#""x""#],
        &["add", SPACE, "places", "fez", "visits", r#""x""#],
    ] {
        changes_nothing(&device, arguments).expect(FAILED);
    }
}

#[test]
fn a_write_that_changes_nothing_costs_nothing() {
    let device = alone_with_fez();
    let known = device.vector(SPACE);
    device.ok(&["patch", SPACE, "places", "fez", r#"{"people":1}"#]);
    assert_eq!(device.vector(SPACE), known);
}

// ---------------------------------------------------------------------------------------------------- import, export

#[test]
fn an_import_that_cannot_be_read_names_the_line() {
    let device = alone();
    let file = device.beside("rows.jsonl");
    let path = file.to_str().expect("UTF-8").to_owned();
    for wrong in [r#"{"code":"b""#, r#"{"name":"no key"}"#, r#"{"code":{"not":"a string"}}"#, "[1]"] {
        std::fs::write(&file, format!("{{\"code\":\"a\"}}\n\n{wrong}\n{{\"code\":\"c\"}}\n")).expect("a file");
        device.run(&["import", SPACE, "places", &path, "--key", "code"]).refused().says("3");
    }
    std::fs::write(&file, "{\"code\":\"a\"}\n\n{\"code\":\"b\"}\n{\"code\":\"c\"}").expect("a file");
    device.import(SPACE, "places", &file, "code");
    assert_eq!(device.json(&["list", SPACE]).as_array().map(Vec::len), Some(3));
}

/// JSON whose objects have their members in order, all the way down.
struct Sorted;

impl<'de> Deserialize<'de> for Sorted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Sorted)
    }
}

impl<'de> Visitor<'de> for Sorted {
    type Value = Sorted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with sorted members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sorted, A::Error> {
        let mut before: Option<String> = None;
        while let Some((name, Sorted)) = map.next_entry::<String, Sorted>()? {
            if before.as_ref().is_some_and(|before| *before >= name) {
                return Err(serde::de::Error::custom(format!("{name:?} comes after {before:?}")));
            }
            before = Some(name);
        }
        Ok(Sorted)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sorted, A::Error> {
        while seq.next_element::<Sorted>()?.is_some() {}
        Ok(Sorted)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sorted, E> {
        Ok(Sorted)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Sorted, E> {
        Ok(Sorted)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Sorted, E> {
        Ok(Sorted)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sorted, E> {
        Ok(Sorted)
    }

    fn visit_str<E>(self, _: &str) -> Result<Sorted, E> {
        Ok(Sorted)
    }

    fn visit_unit<E>(self) -> Result<Sorted, E> {
        Ok(Sorted)
    }
}

#[test]
fn an_export_is_sorted_lines_of_sorted_members() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        collection: String,
        key: String,
        #[serde(rename = "fields")]
        _fields: Sorted,
    }

    let device = alone();
    device.import(SPACE, "places", &rows("places.jsonl"), "code");
    for key in ["b", "a", "B", "ä", "a/b", "a b", "10", "9", "東", "🐘", "\u{FFFD}"] {
        device.ok(&["put", SPACE, "keys", key, r#"{"z":1,"a":{"z":1,"m":[{"y":1,"x":2}],"Z":3},"é":1,"10":1,"9":1}"#]);
    }
    device.ok(&["increment", SPACE, "keys", "a", "/a/count", "1"]);
    device.ok(&["add", SPACE, "keys", "a", "c", r#""x""#]);

    let export = device.ok(&["export", SPACE]);
    assert!(export.ends_with('\n'));
    let mut before = None;
    for text in export.lines() {
        let line: Line = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let place = Some((line.collection, line.key));
        assert!(before < place, "{before:?} comes before {place:?}");
        before = place;
    }
    assert_eq!(export.lines().count(), 12 + 11);

    let one: String = export.lines().filter(|line| line.contains("places")).map(|line| format!("{line}\n")).collect();
    assert_eq!(device.ok(&["export", SPACE, "places"]), one);
    assert_eq!(device.ok(&["--json", "export", SPACE]), export, "JSON lines always");
    assert_eq!(device.ok(&["export", SPACE, "nothing"]), "");
}

// ----------------------------------------------------------------------------------- with a running node and without

#[test]
fn a_command_says_the_same_with_a_running_node_and_without() {
    let device = alone();
    device.import(SPACE, "places", &rows("places.jsonl"), "code");
    device.ok(&["increment", SPACE, "places", "fez", "visits", "1"]);
    let commands = [
        &["id"][..],
        &["space", "list"],
        &["peer", "list"],
        &["list", SPACE],
        &["list", SPACE, "places"],
        &["get", SPACE, "places", "fez"],
        &["get", SPACE, "places", "nowhere"],
        &["get", "nowhere", "places", "fez"],
        &["export", SPACE],
        &["conflicts", SPACE],
        &["lost", SPACE],
        &["status", "--check"],
        &["patch", SPACE, "places", "nowhere", "{}"],
        &["put", SPACE, "$reserved", "k", "{}"],
        &["put", SPACE, "numbers", "n", r#"{"it":1e400}"#],
        &["patch", SPACE, "places", "fez", r#"{"visits":9}"#],
        &["lost", "restore", SPACE, "places", "fez"],
    ];
    let ask = || -> Vec<Outcome> {
        let words = commands.iter().map(|command| device.run(command));
        let documents = commands.iter().map(|command| device.run_json(command));
        words.chain(documents).collect()
    };
    let without = ask();
    let node = device.start_node(&[]);
    let with = ask();
    for (index, (without, with)) in without.iter().zip(&with).enumerate() {
        assert_eq!(
            without.code, with.code,
            "{without:#?}
{with:#?}"
        );
        assert_eq!(without.stderr, with.stderr);
        if commands[index % commands.len()][0] != "status" {
            assert_eq!(without.stdout, with.stdout);
        }
    }

    // Whole imports go through the node too, and both see what the other did.
    device.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    let export = device.ok(&["export", SPACE]);
    node.terminate();
    assert_eq!(device.ok(&["export", SPACE]), export);
}

#[test]
fn short_commands_queue_for_the_store() {
    let device = alone_with_fez();
    thread::scope(|scope| {
        for writer in 0..8 {
            let device = device.command(&["increment", SPACE, "places", "fez", "visits", "1"]);
            scope.spawn(move || {
                finish(device, COMMAND_TIME_MAX).expect(DONE);
                writer
            });
        }
    });
    assert_eq!(device.fields(SPACE, "places", "fez")["visits"], 8);
}

#[test]
fn a_node_starts_while_short_commands_run_in_a_row() {
    let device = alone_with_fez();
    let mut written = 0;
    for _ in 0..3 {
        let enough = AtomicBool::new(false);
        let node = thread::scope(|scope| {
            let writer = || {
                let mut written = 0_u64;
                while !enough.load(Ordering::SeqCst) {
                    let command = device.command(&["increment", SPACE, "places", "fez", "visits", "1"]);
                    finish(command, COMMAND_TIME_MAX).expect(DONE);
                    written += 1;
                }
                written
            };
            let writers = [scope.spawn(writer), scope.spawn(writer)];
            // A panic in here must still end the writers.
            let node = catch_unwind(AssertUnwindSafe(|| device.start_node(&[])));
            enough.store(true, Ordering::SeqCst);
            written += writers.map(|writer| writer.join().expect("every command succeeds")).iter().sum::<u64>();
            node
        });
        node.expect("the node starts").terminate();
    }
    assert_eq!(device.fields(SPACE, "places", "fez")["visits"], written);
}

// ------------------------------------------------------------------------------------------------------ interruptions

#[test]
fn an_import_that_is_interrupted_can_be_repeated() {
    let device = alone();
    let file = device.beside("rows.jsonl");
    write_rows(&file, &house::made_up_rows("r", 5_000));
    let path = file.to_str().expect("UTF-8");
    let mut command = device.command(&["import", SPACE, "rows", path, "--key", "id"]);
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("starts");
    send_signal(child.id(), "INT");
    child.wait().expect("it ends");

    device.import(SPACE, "rows", &file, "id");
    assert_eq!(device.json(&["list", SPACE]).as_array().map(Vec::len), Some(5_000));
    let known = device.vector(SPACE);
    device.import(SPACE, "rows", &file, "id");
    assert_eq!(device.vector(SPACE), known);
}

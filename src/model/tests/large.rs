//! Objects that are as large as they may be, and conflicts as wide as hostile writers make them.
//!
//! Nothing here compares times, which would fail on a busy machine. The sizes are such that a step that costs the
//! square of them takes minutes, which nobody can overlook; as they should be, all of these together take a second.

use serde_json::json;

use super::*;
use crate::codec;
use crate::model::mutation::PackedObject;
use crate::model::value::NESTING_MAX;

const MANY: usize = 10_000;

fn numbered(range: std::ops::Range<usize>, value: &Json) -> Map<String, Json> {
    range.map(|number| (format!("field {number:05}"), value.clone())).collect()
}

#[test]
fn names_are_limited_with_those_of_the_maps_around_them() {
    // In thirty maps with long names, many short ones: far more together than the object has bytes.
    let members: Map<String, Json> = (0..10_000).map(|number| (number.to_string(), json!(1))).collect();
    let deep = (0..30).fold(Json::Object(members), |inner, _| json!({"n".repeat(1000): inner}));
    let mut device = Device::new(1);
    device.put(json!({"t": 1}));
    for write in [Operation::Put(fields(deep.clone())), Operation::Patch(fields(deep))] {
        assert_eq!(write.fault(), None);
        let refused = device.try_write("o", |draft| write.apply(draft));
        assert!(matches!(refused, Err(InvalidEdit::NamesTooLong(_))));
    }
}

#[test]
fn ten_thousand_fields_are_written_one_by_one() {
    let mut device = Device::new(1);
    for nested in [false, true] {
        let wrap = |members: Map<String, Json>| {
            if nested { fields(json!({"map": members})) } else { members }
        };
        device.put(Json::Object(wrap(numbered(0..MANY, &json!(1)))));
        device.patch(Json::Object(wrap(numbered(0..MANY, &json!(2)))));
        device.write(|draft| draft.update(&wrap(numbered(MANY / 2..MANY * 3 / 2, &json!(3)))));
        device.write(|draft| {
            let at = |number| path(&format!("{}/field {number:05}", if nested { "/map" } else { "" }));
            (MANY / 2..MANY * 3 / 2).try_for_each(|number| draft.unset(&at(number)))
        });
        assert_eq!(device.shown(), Some(if nested { json!({"map": {}}) } else { json!({}) }));
    }
}

#[test]
fn ten_thousand_counters_and_sets_are_written_one_by_one() {
    let (mut device, mut other) = two_with(json!({}));
    let counter = |number: usize| path(&format!("/counters/{number}"));
    let set = |number: usize| path(&format!("/sets/{number}"));
    device.write(|draft| {
        (0..MANY).try_for_each(|number| {
            draft.increment(&counter(number), 1)?;
            draft.add(&set(number), &json!(number))
        })
    });
    let shown = device.object("o").shown().expect("visible");
    assert!(device.write(|draft| draft.update(&shown)).is_none());
    device.put(Json::Object(shown.clone()));
    device.patch(Json::Object(shown));
    // Reset one by one they all leave behind how far they were seen.
    device.write(|draft| (0..MANY).try_for_each(|number| draft.unset(&counter(number))));
    device.write(|draft| (0..MANY).try_for_each(|number| draft.remove(&set(number), &json!(number))));
    device.unset("sets");
    assert_eq!(device.shown(), Some(json!({"counters": {}})));
    meet(&mut device, &mut other);
}

#[test]
fn one_set_of_ten_thousand_elements() {
    let mut device = Device::new(1);
    device.put(json!({}));
    device.write(|draft| (0..MANY).try_for_each(|number| draft.add(&path("set"), &json!(number))));
    let mut shown = device.object("o").shown().expect("visible");
    device.put(Json::Object(shown.clone()));
    shown["set"].as_array_mut().expect("a set").reverse();
    device.patch(Json::Object(shown));
    device.write(|draft| (0..MANY).try_for_each(|number| draft.remove(&path("set"), &json!(number))));
    assert_eq!(device.shown(), Some(json!({"set": []})));
}

#[test]
fn ten_thousand_concurrent_values_of_one_field() {
    // As if ten thousand devices had written at once: entries of other replicas, put there by hand.
    let mut object = Object::new();
    let mut device = Device::new(1);
    device.put(json!({}));
    object.join(&VersionVector::new(), &device.object("o"), &VersionVector::new());
    for number in 0..MANY as u64 {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        let dot = Dot::new(ReplicaId::from_bytes(id), 1);
        let content = Content::Value(Value::Text(format!("value {number}")));
        object.insert(Slot::Register(path("/a/b/c")), dot, Entry { depth: 1, content });
        let at = Content::Total { at: 1, total: 1 };
        let counter = Slot::Counter { path: path("n"), replica: dot.replica, run: 1 };
        object.insert(counter, dot, Entry { depth: 1, content: at });
    }
    let conflicts = object.conflicts();
    assert_eq!((conflicts.len(), conflicts[0].values.len()), (1, MANY));
    let mut roster = Roster::new();
    let bytes = codec::encode(&PackedObject::pack(&object, &mut roster));
    let packed: PackedObject = codec::decode("object", &bytes).expect("canonical");
    assert_eq!(packed.unpack(&roster).as_ref(), Ok(&object));
    // One draft that writes a thousand other fields does not read the conflict each time.
    let mut draft = Draft::new(collection(), "o".parse().expect("a key"), object, Dot::new(device.replica(), 2), 2);
    let mut write = || {
        (0..1_000).try_for_each(|number| draft.patch(&numbered(number..number + 1, &json!(number))))?;
        draft.increment(&path("n"), 1)?;
        draft.unset(&path("n"))?;
        draft.resolve(&path("a"), &json!({"b": {"c": "value 7"}}))
    };
    write().expect("in order");
    assert_eq!(draft.object().conflicts(), []);
    // Life, the fields, the choice, and how far each device was seen to count.
    assert_eq!(draft.object().entries().count(), 1 + 1_000 + 1 + MANY);
    assert_eq!(draft.finish().expect("a mutation").observed().count(), 2 * MANY);
}

#[test]
fn as_deep_as_it_goes_and_a_conflict_on_every_level() {
    // On the way to each of three hundred leaves, every map stands beside a value.
    let (mut a, mut b) = two_with(json!({}));
    let names: Vec<String> = (0..NESTING_MAX - 1).map(|level| format!("l{level}")).collect();
    let leaf = |number: usize| {
        let inner = json!({format!("leaf {number}"): "x".repeat(50)});
        names.iter().rev().fold(inner, |json, name| json!({name: json}))
    };
    a.write(|draft| (0..300).try_for_each(|number| draft.patch(&fields(leaf(number)))));
    for level in 1..NESTING_MAX {
        let at = Path::try_from(names[..level].to_vec()).expect("a path");
        let dot = Dot::new(b.replica(), level as u64);
        let entry = Entry { depth: 1, content: Content::Value(Value::Integer(level as i64)) };
        b.objects.entry("o".parse().expect("a key")).or_default().insert(Slot::Register(at), dot, entry);
    }
    let mut both = a.object("o");
    both.join(&a.known.vector(), &b.object("o"), &VersionVector::new());
    assert_eq!(both.conflicts().len(), NESTING_MAX - 1);
    let mut draft = Draft::new(collection(), "o".parse().expect("a key"), both, Dot::new(a.replica(), 9), 9);
    draft.resolve(&path("l0"), &json!(1)).expect("in order");
    assert_eq!(draft.object().shown(), Some(fields(json!({"l0": 1}))));
}

#[test]
fn one_event_of_a_megabyte_through_a_segment() {
    let mut device = Device::new(1);
    let text = "x".repeat(80);
    let told = device.put(Json::Object(numbered(0..MANY, &json!(text)))).expect("an event");
    let space = SpaceId::from_bytes([1; 16]);
    let segment = Segment::sign(space, 1, device.author, &device.key, vec![(told.event, told.packed)]).expect("signed");
    assert!(segment.bytes().len() > 900_000);
    assert!(Segment::verify(space, 1, segment.bytes().clone()).is_ok());
}

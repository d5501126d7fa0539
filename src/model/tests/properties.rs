//! What holds of every history: random drafts on random devices, told in random causal order.
//!
//! The judge is a second model that is slow and obvious. It keeps no state at all: the entries of an object are those
//! added by known events and observed by none of them, looked up in the list of all events each time.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::*;
use crate::codec;
use crate::model::mutation::{PackedMutation, PackedObject};

#[derive(Clone, Debug)]
enum Write {
    Put(Json),
    /// A put of what is shown, without one of its fields: it repeats counters and sets.
    PutAgain(Index),
    Patch(Json),
    Update(Json),
    /// An update to what is shown, with another one's fields beside it.
    UpdateWith(Json),
    Unset(&'static str),
    Increment(&'static str, i64),
    Add(&'static str, Json),
    Remove(&'static str, Json),
    /// Decides the first conflict there is, for one of its values.
    Resolve(Index),
    Delete,
    Restore,
    Discard,
}

#[derive(Clone, Debug)]
enum Step {
    /// One event of a device: writes to objects.
    Event(usize, Vec<(&'static str, Write)>),
    /// A device hears some of what another knows.
    Hear(usize, usize, usize),
}

const FIELDS: [&str; 5] = ["a", "b", "/a/x", "/a/y", "/a/x/z"];
const OBJECTS: [&str; 3] = ["o", "p", "q"];

fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&FIELDS[..])
}

fn leaf() -> impl Strategy<Value = Json> {
    prop::sample::select(vec![
        json!(1),
        json!(2),
        json!("t"),
        json!(null),
        json!([1, {"m": 2.5}]),
        json!({"$bytes": "AAE="}),
    ])
}

fn value() -> impl Strategy<Value = Json> {
    let map = |member: BoxedStrategy<Json>| {
        prop::collection::btree_map(prop::sample::select(vec!["x", "y", "z"]), member, 0..3)
            .prop_map(|members| Json::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
    };
    let inner = prop_oneof![3 => leaf(), 1 => map(leaf().boxed())].boxed();
    prop_oneof![3 => leaf(), 2 => map(inner)]
}

fn members() -> impl Strategy<Value = Json> {
    prop::collection::btree_map(prop::sample::select(vec!["a", "b"]), value(), 0..3)
        .prop_map(|members| Json::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => members().prop_map(Write::Put),
        2 => any::<Index>().prop_map(Write::PutAgain),
        3 => members().prop_map(Write::Patch),
        2 => members().prop_map(Write::Update),
        1 => members().prop_map(Write::UpdateWith),
        2 => field().prop_map(Write::Unset),
        4 => (field(), -3..9i64).prop_map(|(field, by)| Write::Increment(field, by)),
        3 => (field(), leaf()).prop_map(|(field, element)| Write::Add(field, element)),
        1 => (field(), leaf()).prop_map(|(field, element)| Write::Remove(field, element)),
        2 => any::<Index>().prop_map(Write::Resolve),
        2 => Just(Write::Delete),
        1 => Just(Write::Restore),
        1 => Just(Write::Discard),
    ]
}

fn history(devices: usize) -> impl Strategy<Value = Vec<Step>> {
    let object = prop::sample::select(vec!["o", "o", "o", "p", "q"]);
    let step = prop_oneof![
        3 => (0..devices, prop::collection::vec((object, write()), 1..4)).prop_map(|(at, writes)| Step::Event(at, writes)),
        2 => (0..devices, 0..devices, 1..6usize).prop_map(|(to, from, count)| Step::Hear(to, from, count)),
    ];
    prop::collection::vec(step, 1..40)
}

fn do_write(draft: &mut Draft, write: &Write) -> Result<(), InvalidEdit> {
    let shown = draft.object().shown().unwrap_or_default();
    match write {
        Write::Put(json) => draft.put(&fields(json.clone())),
        Write::PutAgain(index) => {
            let mut again = shown;
            if !again.is_empty() {
                let name = again.keys().nth(index.index(again.len())).cloned();
                name.and_then(|name| again.remove(&name));
            }
            draft.put(&again)
        }
        Write::Patch(json) => draft.patch(&fields(json.clone())),
        Write::Update(json) => draft.update(&fields(json.clone())),
        Write::UpdateWith(json) => {
            let mut with = shown;
            with.extend(fields(json.clone()));
            draft.update(&with)
        }
        Write::Unset(field) => draft.unset(&path(field)),
        Write::Increment(field, by) => draft.increment(&path(field), *by),
        Write::Add(field, element) => draft.add(&path(field), element),
        Write::Remove(field, element) => draft.remove(&path(field), element),
        Write::Resolve(index) => {
            let conflicts = draft.object().conflicts();
            let Some(Conflict { path, values }) = conflicts.first() else { return Ok(()) };
            let chosen = &values[index.index(values.len())];
            draft.resolve(path, chosen)?;
            let shown = Json::Object(draft.object().shown().expect("visible"));
            let at = path.names().iter().try_fold(&shown, |json, name| json.get(name));
            assert_eq!(at, Some(chosen), "what was chosen is shown");
            assert!(draft.object().conflicts().iter().all(|left| !left.path.is_within(path.names())), "and settled");
            Ok(())
        }
        Write::Delete => draft.delete(),
        Write::Restore => draft.restore(),
        Write::Discard => draft.discard(),
    }
}

/// Lives through a history. What every single write owes is checked on the way.
fn live(devices: usize, history: &[Step]) -> Vec<Device> {
    let mut devices: Vec<Device> =
        (1..=devices).map(|number| Device::new(u8::try_from(number).expect("few"))).collect();
    for step in history {
        match step {
            Step::Event(at, writes) => {
                let mut drafts: BTreeMap<&str, Draft> = BTreeMap::new();
                for (object, write) in writes {
                    let draft = drafts.entry(object).or_insert_with(|| devices[*at].draft(object));
                    let before = draft.object().clone();
                    let result = do_write(draft, write);
                    let after = draft.object();
                    match (write, result) {
                        (_, Err(_)) => assert_eq!(*after, before, "refused, so nothing was changed"),
                        (Write::Put(json), Ok(())) => {
                            assert_eq!(after.shown(), Some(fields(json.clone())), "exactly these fields");
                            assert_eq!(after.conflicts(), []);
                        }
                        (Write::Update(json), Ok(())) => {
                            assert_eq!(after.shown(), Some(fields(json.clone())), "exactly these fields");
                        }
                        (Write::Unset(field), Ok(())) => {
                            assert!(!after.shows(&path(field)), "{field} is unset");
                        }
                        (Write::Delete | Write::Discard, Ok(())) => assert!(after.is_empty()),
                        (Write::Restore, Ok(())) => assert_eq!(after.shown(), Some(before.remains())),
                        _ => {}
                    }
                    assert_the_ways_to_read_agree(after);
                }
                let intended: Vec<(&str, Object)> =
                    drafts.iter().map(|(object, draft)| (*object, draft.object().clone())).collect();
                devices[*at].commit(drafts.into_values().collect());
                for (object, intended) in intended {
                    assert_eq!(devices[*at].object(object), intended, "the mutation does what the draft showed");
                }
            }
            Step::Hear(to, from, count) => {
                let other = devices[*from].clone();
                devices[*to].hear_from(&other, *count);
            }
        }
    }
    devices
}

/// Reading one field finds what reading the whole object finds there.
fn assert_the_ways_to_read_agree(object: &Object) {
    for field in FIELDS {
        let path = path(field);
        let shown = object.remains();
        let names = path.names();
        let tree = object.tree();
        let by_tree = names.iter().try_fold(&tree, |field, name| field.members.get(name.as_str()));
        let by_tree = by_tree.and_then(|field| field.winner());
        assert_eq!(object.field(&path).winner(), by_tree);
        assert_eq!(object.kind(&path), by_tree.as_ref().map(|(kind, _)| *kind));
        assert_eq!(object.shows(&path), by_tree.is_some());
        if let [name] = names {
            assert_eq!(shown.get(name), by_tree.as_ref().map(|(_, json)| json));
        }
    }
    assert_eq!(object.is_lost(), !object.is_visible() && !object.remains().is_empty());
}

/// The definition: added by a known event, and observed by none of them.
fn by_definition(key: &str, known: &VersionVector, all: &[Told]) -> Object {
    let mut object = Object::new();
    let of = |told: &Told| told.event.mutations.iter().find(|mutation| mutation.key.as_str() == key).cloned();
    let known: Vec<(Dot, u64, Mutation)> = (all.iter())
        .filter(|told| known.contains(told.event.dot))
        .filter_map(|told| Some((told.event.dot, told.event.depth, of(told)?)))
        .collect();
    for (dot, depth, mutation) in &known {
        for edit in &mutation.edits {
            let Some(content) = &edit.add else { continue };
            let observed = known.iter().any(|(_, _, other)| {
                other.whole.iter().flatten().any(|observed| observed == dot)
                    || other.edits.iter().any(|other| other.slot == edit.slot && other.observed.contains(dot))
            });
            if !observed {
                object.insert(edit.slot.clone(), *dot, Entry { depth: *depth, content: content.clone() });
            }
        }
    }
    object
}

/// Every event that anybody knows, once each.
fn all_events(devices: &[Device]) -> Vec<Told> {
    let mut named = BTreeSet::new();
    devices.iter().flat_map(|device| &device.log).filter(|told| named.insert(told.event.dot)).cloned().collect()
}

/// A state and the knowledge that it stands for.
type Standing = (Object, VersionVector);

fn joined((object, vector): &Standing, (other, other_vector): &Standing) -> Standing {
    let (mut object, mut vector) = (object.clone(), vector.clone());
    object.join(&vector, other, other_vector);
    vector.join(other_vector);
    (object, vector)
}

fn check_history(devices: &[Device], order: &[Index]) {
    let all = all_events(devices);
    for key in OBJECTS {
        let standing: Vec<Standing> =
            devices.iter().map(|device| (device.object(key), device.known.vector())).collect();
        // Events make what the definition says.
        for (object, vector) in &standing {
            assert_eq!(*object, by_definition(key, vector, &all));
            assert_eq!(*object, through_bytes(object));
        }
        // So does the exchange of state, between any two; and joining is a join.
        for a in &standing {
            assert_eq!(joined(a, a), *a, "idempotent");
            for b in &standing {
                let ab = joined(a, b);
                assert_eq!(ab, joined(b, a), "commutative");
                assert_eq!(ab.0, by_definition(key, &ab.1, &all));
                assert_eq!(joined(&ab, b), ab, "nothing new, nothing changed");
                for c in &standing {
                    assert_eq!(joined(&ab, c), joined(a, &joined(b, c)), "associative");
                }
            }
        }
    }
    // Any causal order comes to the same.
    let mut late = Device::new(99);
    let mut waiting: Vec<&Told> = all.iter().collect();
    let mut choices = order.iter().cycle();
    while !waiting.is_empty() {
        let ready = |told: &&Told| late.known.admit(&told.event.proposal()) == Ok(Admission::Next);
        let next: Vec<usize> = (0..waiting.len()).filter(|&at| ready(&waiting[at])).collect();
        let at = next[choices.next().expect("a cycle").index(next.len())];
        let told = waiting.swap_remove(at);
        late.hear(told);
    }
    for key in OBJECTS {
        assert_eq!(late.object(key), by_definition(key, &late.known.vector(), &all));
    }
    check_bytes(&all, devices);
}

fn through_bytes(object: &Object) -> Object {
    let mut roster = Roster::new();
    let bytes = codec::encode(&PackedObject::pack(object, &mut roster));
    let packed: PackedObject = codec::decode("object", &bytes).expect("canonical");
    packed.unpack(&roster).expect("well formed")
}

/// Mutations, events and segments come out of their bytes as they went in.
fn check_bytes(all: &[Told], devices: &[Device]) {
    for told in all {
        for mutation in &told.event.mutations {
            let mut roster = Roster::new();
            let bytes = codec::encode(&PackedMutation::pack(mutation, &mut roster));
            let packed: PackedMutation = codec::decode("mutation", &bytes).expect("canonical");
            let unpacked = packed.unpack(mutation.collection.clone(), mutation.key.clone(), &roster);
            assert_eq!(unpacked.as_ref(), Ok(mutation));
        }
        let packed: PackedEvent = codec::decode("event", &codec::encode(&told.packed)).expect("canonical");
        assert_eq!(Event::read(told.event.dot, told.event.previous, &packed).as_ref(), Ok(&told.event));
    }
    for device in devices {
        let own: Vec<_> = (all.iter())
            .filter(|told| told.event.dot.replica == device.replica())
            .map(|told| (told.event.clone(), told.packed.clone()))
            .collect();
        let space = SpaceId::from_bytes([1; 16]);
        let Some(signed) = Segment::sign(space, 1, device.author, &device.key, own.clone()) else { continue };
        let verified = Segment::verify(space, 1, signed.bytes().clone()).expect("what was signed");
        assert!(verified.events().iter().eq(own.iter().map(|(event, _)| event)));
        assert_eq!((verified.first(), verified.last()), (signed.first(), signed.last()));
        assert_eq!(verified.author(), device.author);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn state_is_what_was_added_and_not_observed(
        devices in 2..=4usize,
        history in history(4),
        order in prop::collection::vec(any::<Index>(), 1..20),
    ) {
        let history: Vec<Step> = history.into_iter().map(|step| match step {
            Step::Event(at, writes) => Step::Event(at % devices, writes),
            Step::Hear(to, from, count) => Step::Hear(to % devices, from % devices, count),
        }).collect();
        check_history(&live(devices, &history), &order);
    }
}

/// What happens to one counter.
#[derive(Clone, Debug)]
enum Count {
    Increment(i64),
    Unset,
    PutWithout,
    PutAsShown,
    PatchAsShown,
    PatchBeside,
    UpdateWithout,
}

#[derive(Clone, Debug)]
enum CountStep {
    Event(usize, Vec<Count>),
    Hear(usize, usize, usize),
}

fn counting() -> impl Strategy<Value = Vec<CountStep>> {
    let count = prop_oneof![
        5 => (-4..20i64).prop_map(Count::Increment),
        1 => Just(Count::Unset),
        1 => Just(Count::PutWithout),
        2 => Just(Count::PutAsShown),
        1 => Just(Count::PatchAsShown),
        1 => Just(Count::PatchBeside),
        1 => Just(Count::UpdateWithout),
    ];
    let step = prop_oneof![
        3 => (0..4usize, prop::collection::vec(count, 1..4)).prop_map(|(at, counts)| CountStep::Event(at, counts)),
        2 => (0..4usize, 0..4usize, 1..6usize).prop_map(|(to, from, count)| CountStep::Hear(to, from, count)),
    ];
    prop::collection::vec(step, 1..50)
}

/// What was meant by an event: increments, and resets as none, in order.
type Meant = (Dot, VersionVector, Vec<Option<i64>>);

/// The sum of the increments that no known reset had seen.
fn count_by_definition(known: &VersionVector, all: &[Meant]) -> i64 {
    let known: Vec<&Meant> = all.iter().filter(|(dot, ..)| known.contains(*dot)).collect();
    let mut sum = 0;
    for (dot, _, meant) in &known {
        let seen_later = known.iter().any(|(_, past, other)| past.contains(*dot) && other.contains(&None));
        for (at, by) in meant.iter().enumerate() {
            let seen_here = meant[at..].contains(&None);
            sum += by.filter(|_| !seen_later && !seen_here).unwrap_or(0);
        }
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_counter_shows_the_sum_of_what_no_reset_has_seen(history in counting(), nested in any::<bool>()) {
        let name = if nested { "/m/n" } else { "n" };
        let mut devices: Vec<Device> = (1..=4).map(Device::new).collect();
        devices[0].put(json!({}));
        let (first, rest) = devices.split_at_mut(1);
        rest.iter_mut().for_each(|device| device.hear_from(&first[0], 1));
        let mut all: Vec<Meant> = Vec::new();
        for step in history {
            match step {
                CountStep::Hear(to, from, count) => {
                    let other = devices[from].clone();
                    devices[to].hear_from(&other, count);
                }
                CountStep::Event(at, counts) => {
                    let mut draft = devices[at].draft("o");
                    let mut meant = Vec::new();
                    for count in counts {
                        let shown = draft.object().shown().expect("nobody deletes");
                        let mut without = shown.clone();
                        without.remove(if nested { "m" } else { "n" });
                        let result = match count {
                            Count::Increment(by) => {
                                meant.push(Some(by));
                                draft.increment(&path(name), by)
                            }
                            Count::PutAsShown => draft.put(&shown),
                            Count::PatchAsShown => draft.patch(&shown),
                            Count::PatchBeside => draft.patch(&fields(json!({"x": 1, "m": {"x": 2}}))),
                            Count::Unset | Count::PutWithout | Count::UpdateWithout => {
                                meant.push(None);
                                match count {
                                    Count::Unset => draft.unset(&path(name)),
                                    Count::PutWithout => draft.put(&without),
                                    _ => draft.update(&without),
                                }
                            }
                        };
                        result.expect("in order");
                    }
                    if let Some(told) = devices[at].commit(vec![draft]) {
                        all.push((told.event.dot, told.past.clone(), meant));
                    }
                }
            }
            for device in &devices {
                let shown = Json::Object(device.object("o").shown().expect("nobody deletes"));
                let counter = path(name).names().iter().try_fold(&shown, |json, name| json.get(name)).cloned();
                let sum = count_by_definition(&device.known.vector(), &all);
                prop_assert_eq!(counter.unwrap_or(json!(0)), json!(sum));
            }
        }
    }
}

//! What clients that have no version vector write: with the context of what they were shown, whenever that was.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::*;
use crate::model::object::FieldKind;

/// Somebody with a context of the object, and what came with it.
#[derive(Clone, Debug)]
struct Client {
    context: Context,
    shown: Map<String, Json>,
    /// Whether that stood beside something else.
    conflicted: bool,
}

impl Client {
    fn of(device: &Device) -> Self {
        let object = device.object("o");
        Self { context: Context::of(1, &object, None), shown: object.remains(), conflicted: may_conflict(&object) }
    }

    /// A draft of what this client writes by way of a device.
    fn draft(&self, device: &Device) -> Draft {
        let dot = Dot::new(device.replica(), device.known.head(device.replica()).map_or(0, |head| head.counter) + 1);
        let (key, depth) = ("o".parse().expect("a key"), device.known.depth() + 1);
        Draft::beside(collection(), key, &device.object("o"), &self.context, false, dot, depth)
    }

    fn write(&mut self, device: &mut Device, operation: &Operation) -> Result<(), InvalidEdit> {
        let mut draft = self.draft(device);
        operation.apply(&mut draft)?;
        if let Some(told) = device.commit(vec![draft]) {
            check(&told);
            self.context = self.context.clone().after(1, told.event.dot, operation, &device.object("o"), None);
            let text = self.context.to_string();
            assert_eq!(text.parse(), Ok(self.context.clone()));
        }
        Ok(())
    }

    fn put(&mut self, device: &mut Device, json: Json) -> Result<(), InvalidEdit> {
        self.write(device, &Operation::Put(fields(json)))
    }

    fn patch(&mut self, device: &mut Device, json: Json) -> Result<(), InvalidEdit> {
        self.write(device, &Operation::Patch(fields(json)))
    }
}

/// Whether something may stand beside something else. Of what is not visible, conflicts are not told.
fn may_conflict(object: &Object) -> bool {
    object.is_conflicted() || object.is_lost()
}

/// Whether peers take what was written.
fn check(told: &Told) {
    assert_eq!(Event::read(told.event.dot, told.event.previous, &told.packed).as_ref(), Ok(&told.event));
}

fn is_refused(result: Result<(), InvalidEdit>) -> bool {
    matches!(result, Err(InvalidEdit::WrongKind { .. }))
}

#[test]
fn what_a_put_repeats_is_there_afterwards_whatever_stood_beside_it() {
    // One device counts, another writes a value; a client sees both, and the count shows.
    let (mut a, mut b) = two_with(json!({"t": 1}));
    b.patch(json!({"n": "text"}));
    a.patch(json!({"t": 2}));
    a.increment("n", 3);
    let mut c = Device::new(3);
    c.hear_from(&a, usize::MAX);
    meet(&mut a, &mut b);
    let mut client = Client::of(&a);
    assert_eq!(client.shown["n"], 3);
    // Somebody who saw the count alone takes it away.
    c.unset("n");
    a.hear_from(&c, usize::MAX);
    assert_eq!(a.shown(), Some(json!({"t": 2, "n": "text"})));
    let shown = Json::Object(client.shown.clone());
    client.put(&mut a, shown.clone()).expect("in order");
    assert_eq!(a.shown(), Some(shown));
}

#[test]
fn what_another_value_hid_from_its_reader_goes_with_that_value() {
    // A set stands beside a map, and the map shows.
    let mut device = Device::new(1);
    device.put(json!({"t": 1}));
    let mut early = Client::of(&device);
    device.write(|draft| draft.add(&path("a"), &json!(1)));
    early.patch(&mut device, json!({"a": {"y": 2}})).expect("in order");
    let mut client = Client::of(&device);
    assert_eq!(client.shown["a"], json!({"y": 2}));
    // Once somebody takes away what is in the map, the set shows: this client never was shown one.
    device.unset("/a/y");
    assert_eq!(device.shown(), Some(json!({"t": 1, "a": [1]})));
    let shown = Json::Object(client.shown.clone());
    client.put(&mut device, shown.clone()).expect("in order");
    assert_eq!(device.shown(), Some(shown));
}

#[test]
fn whoever_carries_on_a_context_goes_on_to_repeat_what_they_were_shown() {
    let mut device = Device::new(1);
    device.put(json!({"t": 1}));
    device.write(|draft| draft.add(&path("s"), &json!(1)));
    device.increment("n", 3);
    let mut client = Client::of(&device);
    device.write(|draft| draft.remove(&path("s"), &json!(1)));
    for title in 2..4 {
        client.put(&mut device, json!({"t": title, "s": [1], "n": 3})).expect("they were told nothing else");
        assert_eq!(device.shown(), Some(json!({"t": title, "s": [], "n": 3})));
        // As far as the row is concerned they have seen all of it.
        assert!(client.context.is_of_the_state_of(&Context::of(1, &device.object("o"), None)));
    }
    assert!(is_refused(client.put(&mut device, json!({"t": 4, "s": [2], "n": 3}))));
    device.increment("n", 1);
    assert!(!client.context.is_of_the_state_of(&Context::of(1, &device.object("o"), None)));
    client.put(&mut device, json!({"t": 4, "s": [1], "n": 3})).expect("they were told nothing else");
    assert_eq!(device.shown(), Some(json!({"t": 4, "s": [], "n": 4})));
}

#[test]
fn whoever_only_knows_that_they_wrote_puts_no_value_over_a_count() {
    let mut device = Device::new(1);
    device.put(json!({}));
    let counted = device.increment("n", 3).expect("an event");
    let mut client = Client { context: Context::of_author(1, counted.event.dot), shown: Map::new(), conflicted: false };
    device.increment("n", 1);
    for json in [json!({"n": 3}), json!({"n": "text"}), json!({"n": {"x": 1}})] {
        assert!(is_refused(client.put(&mut device, json.clone())), "{json}");
        assert!(is_refused(client.patch(&mut device, json.clone())), "{json}");
    }
    client.put(&mut device, json!({"n": 4})).expect("it shows that");
    device.increment("n", 1);
    assert_eq!(device.shown(), Some(json!({"n": 5})));
}

#[test]
fn a_value_over_a_map_is_refused_whenever_its_counters_were_seen() {
    let mut device = Device::new(1);
    device.put(json!({"t": 1}));
    device.increment("/m/n", 3);
    let mut client = Client::of(&device);
    assert!(is_refused(client.patch(&mut device, json!({"m": 5}))));
    device.increment("/m/n", 1);
    assert!(is_refused(client.patch(&mut device, json!({"m": 5}))), "and not only if nobody counted since");
    assert_eq!(device.shown(), Some(json!({"t": 1, "m": {"n": 4}})));
}

#[test]
fn a_row_of_more_counters_than_a_context_tells() {
    let mut device = Device::new(1);
    device.put(json!({"t": 1}));
    device.write(|draft| (0..200).try_for_each(|number| draft.increment(&path(&format!("n{number}")), 1)));
    let mut client = Client::of(&device);
    let shown = Json::Object(client.shown.clone());
    client.put(&mut device, shown.clone()).expect("nothing changed");
    let mut client = Client::of(&device);
    device.increment("n7", 1);
    assert!(is_refused(client.put(&mut device, shown.clone())));
    assert!(is_refused(client.patch(&mut device, json!({"n7": 1}))));
    client.patch(&mut device, json!({"n7": 2, "n8": 1, "t": 2})).expect("as it is now");
    assert_eq!(device.shown().expect("visible")["n7"], 2);
}

#[test]
fn ten_thousand_fields_in_a_map_beside_a_value() {
    // A map of many counters stands beside a value: nobody may read it all for each of its members.
    let (mut a, mut b) = two_with(json!({"t": 1}));
    a.patch(json!({"map": 1}));
    b.write(|draft| (0..10_000).try_for_each(|number| draft.increment(&path(&format!("/map/{number}")), 1)));
    b.patch(json!({"t": 2}));
    b.increment("/map/7", 1);
    meet(&mut a, &mut b);
    let mut client = Client::of(&a);
    assert_eq!(client.shown["map"].as_object().map(Map::len), Some(10_000));
    let shown = Json::Object(client.shown.clone());
    client.put(&mut a, shown.clone()).expect("nothing changed");
    assert_eq!(a.shown(), Some(shown));
}

const FIELDS: [&str; 5] = ["a", "b", "/a/x", "/a/y", "/a/x/z"];

/// What devices and clients do, each by its number.
#[derive(Clone, Debug)]
enum Step {
    /// A device writes.
    Write(usize, Operation),
    /// A device hears all that another one knows.
    Hear(usize, usize),
    /// A client reads the object from a device.
    See(usize, usize),
    /// A client puts what it was shown, perhaps but for one field.
    PutAgain(usize, Option<Index>),
    /// A client patches one field to what it was shown.
    PatchAgain(usize, Index),
    /// A client patches something else.
    PatchOther(usize, Json),
}

fn step() -> impl Strategy<Value = Step> {
    let field = || prop::sample::select(&FIELDS[..]);
    let json = || {
        prop::sample::select(vec![
            json!({"a": "t"}),
            json!({"a": {"x": 7}}),
            json!({"b": 1}),
            json!({}),
            json!({"a": {}}),
            json!({"a": {"x": {"z": [1]}, "y": 2}}),
            json!({"b": {"c": 1}}),
        ])
    };
    let write = prop_oneof![
        1 => json().prop_map(|json| Operation::Patch(fields(json))),
        1 => json().prop_map(|json| Operation::Put(fields(json))),
        1 => field().prop_map(|field| Operation::Unset(vec![path(field)])),
        3 => (field(), 1..9i64).prop_map(|(field, by)| Operation::Increment(path(field), by)),
        2 => (field(), 1..4i64).prop_map(|(field, element)| Operation::Add(path(field), json!(element))),
        1 => (field(), 1..4i64).prop_map(|(field, element)| Operation::Remove(path(field), json!(element))),
        1 => Just(Operation::Delete),
    ];
    let (device, client) = (|| 0..3usize, || 0..4usize);
    prop_oneof![
        10 => (device(), write).prop_map(|(at, operation)| Step::Write(at, operation)),
        3 => (device(), device()).prop_map(|(to, from)| Step::Hear(to, from)),
        2 => (client(), device()).prop_map(|(client, at)| Step::See(client, at)),
        3 => (client(), prop::option::of(any::<Index>())).prop_map(|(client, but)| Step::PutAgain(client, but)),
        2 => (client(), any::<Index>()).prop_map(|(client, which)| Step::PatchAgain(client, which)),
        1 => (client(), json()).prop_map(|(client, json)| Step::PatchOther(client, json)),
    ]
}

/// What a field holds as a thing of this kind, among others perhaps.
fn held(object: &Object, path: &Path, kind: FieldKind) -> Option<Json> {
    object.field(path).alternatives().into_iter().find(|(is, _)| *is == kind).map(|(_, json)| json)
}

/// The counters and sets that a client was shown, among the fields that it writes.
fn repeated<'p>(by: &Client, leaves: &'p [Path], before: &Object) -> Vec<(&'p Path, FieldKind)> {
    let is_one = |kind: &FieldKind| matches!(kind, FieldKind::Counter | FieldKind::Set);
    leaves.iter().filter_map(|leaf| Some((leaf, by.context.kind_seen(leaf, before).filter(is_one)?))).collect()
}

/// Where the values of these fields lie.
fn leaves_of(fields: &Map<String, Json>) -> Vec<Path> {
    fn visit(fields: &Map<String, Json>, above: Option<&Path>, leaves: &mut Vec<Path>) {
        for (name, json) in fields {
            let path = Path::member(above, name).expect("a path");
            match json {
                Json::Object(members) if !members.is_empty() => visit(members, Some(&path), leaves),
                _ => leaves.push(path),
            }
        }
    }
    let mut leaves = Vec::new();
    visit(fields, None, &mut leaves);
    leaves
}

proptest! {
    #[test]
    fn repeating_what_was_shown_changes_no_count_and_loses_nothing(steps in prop::collection::vec(step(), 1..40)) {
        let mut devices = [Device::new(1), Device::new(2), Device::new(3)];
        devices[0].put(json!({"t": 1}));
        for at in 1..3 {
            let from = devices[0].clone();
            devices[at].hear_from(&from, usize::MAX);
        }
        let mut clients: Vec<(usize, Client)> = (0..4).map(|n| (n % 3, Client::of(&devices[n % 3]))).collect();
        for step in steps {
            match step {
                Step::Write(at, operation) => drop(devices[at].try_write("o", |draft| operation.apply(draft))),
                Step::Hear(to, from) => {
                    let from = devices[from].clone();
                    devices[to].hear_from(&from, usize::MAX);
                }
                Step::See(client, at) => clients[client] = (at, Client::of(&devices[at])),
                Step::PutAgain(client, without) => {
                    let (at, client) = &mut clients[client];
                    let (device, was) = (&mut devices[*at], client.clone());
                    let mut again = was.shown.clone();
                    let left_out = without.filter(|_| !again.is_empty()).map(|which| which.index(again.len()));
                    again.retain({
                        let mut at = 0;
                        move |_, _| {
                            at += 1;
                            left_out != Some(at - 1)
                        }
                    });
                    let before = device.object("o");
                    let is_current = was.context == Context::of(1, &before, None);
                    let put = Operation::Put(again.clone());
                    if let Err(error) = client.write(device, &put) {
                        panic!("{error}: {again:?}, shown with {:?}, over {before:?}", was.context);
                    }
                    client.shown = again.clone();
                    let after = device.object("o");
                    if is_current {
                        prop_assert_eq!(after.shown(), Some(again.clone()));
                        prop_assert_eq!(after.conflicts(), vec![]);
                    }
                    let leaves = leaves_of(&again);
                    for leaf in &leaves {
                        prop_assert!(after.shows(leaf), "{} is lost: {:?} over {:?}", leaf, again, before);
                    }
                    for (leaf, kind) in repeated(&was, &leaves, &before) {
                        if let Some(there) = held(&before, leaf, kind) {
                            prop_assert_eq!(held(&after, leaf, kind), Some(there), "{} in {:?}", leaf, before);
                        }
                    }
                }
                Step::PatchAgain(client, which) => {
                    let (at, client) = &mut clients[client];
                    let (device, was) = (&mut devices[*at], client.clone());
                    let Some((name, json)) = was.shown.iter().nth(which.index(was.shown.len().max(1))) else { continue };
                    let again = Map::from_iter([(name.clone(), json.clone())]);
                    let before = device.object("o");
                    match client.write(device, &Operation::Patch(again.clone())) {
                        Ok(()) => {}
                        // It never was visible to this client, or showed a value in place of counters, or they did.
                        Err(InvalidEdit::NotFound { .. }) => continue,
                        Err(InvalidEdit::WrongKind { .. }) if was.conflicted || may_conflict(&before) => continue,
                        Err(error) => panic!("{error}: {again:?} over {before:?}"),
                    }
                    let after = device.object("o");
                    let leaves = leaves_of(&again);
                    for (leaf, kind) in repeated(&was, &leaves, &before) {
                        let (then, now) = (held(&before, leaf, kind), held(&after, leaf, kind));
                        prop_assert_eq!(now, then, "{} in {:?}", leaf, before);
                    }
                }
                Step::PatchOther(client, json) => {
                    let (at, client) = &mut clients[client];
                    if client.patch(&mut devices[*at], json).is_ok() {
                        *client = Client::of(&devices[*at]);
                    }
                }
            }
        }
        for _ in 0..2 {
            for (to, from) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
                let from = devices[from].clone();
                devices[to].hear_from(&from, usize::MAX);
            }
        }
        prop_assert_eq!(&devices[0].objects, &devices[1].objects);
        prop_assert_eq!(&devices[0].objects, &devices[2].objects);
    }
}

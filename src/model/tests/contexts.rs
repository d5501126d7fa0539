//! What clients that have no version vector write: with the context of what they were shown, whenever that was.

use serde_json::json;

use super::*;

/// Somebody with a context of the object, and what came with it.
#[derive(Clone, Debug)]
struct Client {
    context: Context,
    shown: Map<String, Json>,
}

impl Client {
    fn of(device: &Device) -> Self {
        let object = device.object("o");
        Self { context: Context::of(1, &object, None), shown: object.remains() }
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
    let mut client = Client { context: Context::of_author(1, counted.event.dot), shown: Map::new() };
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

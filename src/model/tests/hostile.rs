//! Bytes and events that no honest node would make: refused, and never a panic.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::causal::Head;
use crate::codec;
use crate::model::mutation::PackedObject;

const SPACE: SpaceId = SpaceId::from_bytes([7; 16]);

/// A segment of three events with every kind of slot, written after hearing of another device.
fn segment() -> (Device, Segment, Vec<Told>) {
    let (mut a, mut b) = two_with(json!({"a": 1, "m": {"x": "text", "f": 2.5, "b": {"$bytes": "AAE="}, "e": {}}}));
    b.increment("n", 3);
    b.add("s", json!([1, {"x": null}]));
    meet(&mut a, &mut b);
    a.increment("n", -1);
    a.put(json!({"n": 2, "s": [[1, {"x": null}]], "big": i64::MIN}));
    let told: Vec<Told> = a.log.iter().filter(|told| told.event.dot.replica == a.replica()).cloned().collect();
    (a.clone(), sign(&a, &told), told)
}

fn sign(device: &Device, told: &[Told]) -> Segment {
    let events = told.iter().map(|told| (told.event.clone(), told.packed.clone())).collect();
    Segment::sign(SPACE, 3, device.author, &device.key, events).expect("events")
}

#[test]
fn a_segment_is_refused_with_any_byte_changed_or_missing() {
    let (_, segment, told) = segment();
    let bytes = segment.bytes().to_vec();
    let read = Segment::verify(SPACE, 3, bytes.clone().into()).expect("what was signed");
    assert!(read.events().iter().eq(told.iter().map(|told| &told.event)));
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            assert!(Segment::verify(SPACE, 3, changed.into()).is_err(), "byte {at} ^ {flip:#x}");
        }
        assert!(Segment::verify(SPACE, 3, bytes[..at].into()).is_err(), "{at} bytes");
    }
    let longer: Arc<[u8]> = bytes.iter().copied().chain([0]).collect();
    assert!(Segment::verify(SPACE, 3, longer).is_err());
}

#[test]
fn a_segment_belongs_to_one_space_revision_and_device() {
    let (a, segment, told) = segment();
    let refused = |space, revision, bytes: Arc<[u8]>| {
        matches!(Segment::verify(space, revision, bytes), Err(InvalidSegment::Forged { .. }))
    };
    assert!(refused(SpaceId::from_bytes([8; 16]), 3, segment.bytes().clone()));
    assert!(refused(SPACE, 4, segment.bytes().clone()));
    // Another device's events under one's own name, or one's own under another's.
    let events = || told.iter().map(|told| (told.event.clone(), told.packed.clone())).collect::<Vec<_>>();
    let b = Device::new(2);
    let forged = Segment::sign(SPACE, 3, a.author, &b.key, events()).expect("events");
    assert!(refused(SPACE, 3, forged.bytes().clone()));
    // As another incarnation of the same device it is signed well, and yet not what that one could begin with: the
    // chain bears the name of whoever began it.
    let other = Incarnation { nonce: 42, ..a.author };
    let copied = Segment::sign(SPACE, 3, other, &a.key, events()).expect("events");
    assert_eq!(Segment::verify(SPACE, 3, copied.bytes().clone()).map(|_| ()), Err(InvalidSegment::Counters));
    assert!(Segment::sign(SPACE, 3, a.author, &a.key, Vec::new()).is_none());
}

#[test]
fn segments_of_nothing_are_refused_before_they_cost_anything() {
    // Author, first counter, previous hash; then a number of events, each an empty header and no bodies.
    let empty = |count: u32| -> Arc<[u8]> {
        let mut bytes = [&[1; 32][..], &[1], &[1], &[0; 32]].concat();
        bytes.push(252);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.resize(bytes.len() + 2 * count as usize + 64, 0);
        bytes.into()
    };
    assert_eq!(Segment::verify(SPACE, 3, empty(2_000_000)).err(), Some(InvalidSegment::Counters));
    let claims_more: Arc<[u8]> = empty(2_000_000)[..1_000].into();
    assert!(matches!(Segment::verify(SPACE, 3, claims_more), Err(InvalidSegment::Decode(_))));
    let too_long: Arc<[u8]> = vec![0; SEGMENT_BYTES_MAX + 1].into();
    assert!(matches!(Segment::verify(SPACE, 3, too_long), Err(InvalidSegment::Decode(_))));
}

fn ticket() -> (Ticket, DeviceKey) {
    let key = DeviceKey::from_secret(&[5; 32]);
    let ticket = Ticket {
        id: [9; 16],
        genesis: Genesis { creator: key.device(), nonce: [1; 16] },
        role: Role::Writer,
        uses: 300,
        expires_ms: 1_800_000_000_000,
        inviter: key.device(),
        addresses: vec!["192.0.2.1:7000".to_owned(), "[2001:db8::1]:7000".to_owned()],
        name: "garden 東".to_owned(),
    };
    (ticket, key)
}

#[test]
fn a_ticket_is_refused_with_any_byte_changed_or_missing() {
    let (ticket, key) = ticket();
    let signed = SignedTicket::sign(ticket.clone(), &key);
    let text = signed.to_string();
    assert_eq!(text.parse::<SignedTicket>().map(|signed| signed.ticket().clone()), Ok(ticket.clone()));
    assert_eq!(format!(" {text}\n").parse::<SignedTicket>(), Ok(signed.clone()));
    let bytes = signed.to_bytes();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            assert!(SignedTicket::from_bytes(&changed).is_err(), "byte {at} ^ {flip:#x}");
        }
        assert!(SignedTicket::from_bytes(&bytes[..at]).is_err(), "{at} bytes");
    }
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
        let changed = String::from_utf8(changed).expect("ascii");
        assert!(changed.parse::<SignedTicket>().is_err(), "{changed}");
    }
    for text in ["", "thence1", "thence1é", "thence2aaaa", "thence1aaaaaaaa=", "東"] {
        assert_eq!(text.parse::<SignedTicket>(), Err(InvalidTicket::Syntax), "{text}");
    }
    let forger = DeviceKey::from_secret(&[6; 32]);
    let forged = SignedTicket::sign(ticket, &forger);
    assert_eq!(SignedTicket::from_bytes(&forged.to_bytes()), Err(InvalidTicket::Forged));
}

/// An event as a dishonest device would sign it: these mutations, in its own next event.
fn forged(device: &Device, mutation: Mutation) -> Result<Event, InvalidEvent> {
    let head = *device.known.head(device.replica()).expect("it wrote before");
    let dot = Dot::new(device.replica(), head.counter + 1);
    let (_, packed) = Event::write(dot, head.hash, device.known.depth() + 1, &device.known, vec![mutation], &[]);
    Event::read(dot, head.hash, &packed)
}

fn mutation(whole: Option<Vec<Dot>>, edits: Vec<Edit>) -> Mutation {
    Mutation { collection: collection(), key: "o".parse().expect("a key"), whole, edits }
}

#[test]
fn mutations_that_nobody_would_write_are_refused() {
    let (mut a, mut b) = two_with(json!({"x": 1}));
    b.increment("other", 1);
    meet(&mut a, &mut b);
    let own = |counter| Dot::new(a.replica(), counter);
    let register = |name: &str| Slot::Register(path(name));
    let one = || Some(Content::Value(Value::Integer(1)));
    let edit = |slot, observed: &[Dot], add| Edit { slot, observed: observed.to_vec(), add };
    let total = |at, total| Some(Content::Total { at, total });
    let counter = |replica, run| Slot::Counter { path: path("n"), replica, run };
    let base = |replica, run| Slot::Base { path: path("n"), replica, run };
    let element = |value| Slot::Element { path: path("s"), value };

    // To show that the form is right and only the content is not.
    let fine = [
        mutation(None, vec![edit(register("x"), &[own(1)], one())]),
        mutation(Some(vec![own(1)]), vec![]),
        mutation(None, vec![edit(counter(a.replica(), 2), &[], total(2, 5))]),
        mutation(None, vec![edit(counter(b.replica(), 1), &[], total(1, 5))]),
        mutation(None, vec![edit(element(Value::Integer(1)), &[], Some(Content::Mark))]),
    ];
    for mutation in fine {
        assert_eq!(forged(&a, mutation.clone()).map(|event| event.mutations), Ok(vec![mutation]));
    }
    let refused = [
        ("nothing", mutation(None, vec![])),
        ("nothing of a whole", mutation(Some(vec![]), vec![])),
        ("an edit of nothing", mutation(None, vec![edit(register("x"), &[], None)])),
        ("a slot twice", mutation(None, vec![edit(register("x"), &[], one()), edit(register("x"), &[], one())])),
        ("out of order", mutation(None, vec![edit(register("y"), &[], one()), edit(register("x"), &[], one())])),
        ("dots out of order", mutation(Some(vec![own(1), own(1)]), vec![])),
        ("a dot of no event", mutation(Some(vec![own(0)]), vec![])),
        ("observed twice", mutation(Some(vec![own(1)]), vec![edit(register("x"), &[own(1)], one())])),
        ("a mark as a value", mutation(None, vec![edit(register("x"), &[], Some(Content::Mark))])),
        ("a value as life", mutation(None, vec![edit(Slot::Life, &[], one())])),
        ("a map in a set", mutation(None, vec![edit(element(Value::EmptyMap), &[], Some(Content::Mark))])),
        ("its own event observed", mutation(Some(vec![own(2)]), vec![])),
        ("its own future observed", mutation(None, vec![edit(register("x"), &[own(9)], one())])),
        ("its own future counted", mutation(None, vec![edit(counter(a.replica(), 2), &[], total(3, 5))])),
        ("its own future taken away", mutation(None, vec![edit(base(a.replica(), 1), &[], total(u64::MAX, 5))])),
        ("counted before it began", mutation(None, vec![edit(counter(b.replica(), 2), &[], total(1, 5))])),
        ("more than it knows observed", mutation(Some(vec![Dot::new(b.replica(), 2)]), vec![])),
        ("more than it knows counted", mutation(None, vec![edit(counter(b.replica(), 1), &[], total(2, 5))])),
        ("a run of no event", mutation(None, vec![edit(counter(b.replica(), 0), &[], total(0, 5))])),
    ];
    // Nothing may be changed where a client gives the object another version, and only there.
    let said = |source_version| Remark { source_version, by: "phone".to_owned().try_into().ok(), id: None };
    for (remark, is_fine) in [(said(Some(7)), true), (said(None), false)] {
        let head = *a.known.head(a.replica()).expect("it wrote before");
        let (dot, nothing) = (Dot::new(a.replica(), head.counter + 1), mutation(None, vec![]));
        let said = [(&nothing.collection, &nothing.key, &remark)];
        let (_, packed) = Event::write(dot, head.hash, a.known.depth() + 1, &a.known, vec![nothing.clone()], &said);
        assert_eq!(Event::read(dot, head.hash, &packed).is_ok(), is_fine, "{remark:?}");
    }
    for (what, mutation) in refused {
        assert!(forged(&a, mutation).is_err(), "{what}");
    }
}

#[test]
fn what_an_author_must_have_known_is_told() {
    let (mut a, mut b) = two_with(json!({"x": 1}));
    a.increment("n", 1);
    meet(&mut a, &mut b);
    let told = b.unset("n").expect("an event");
    let claims: Vec<Dot> = told.event.claims().collect();
    assert_eq!(claims, [Dot::new(a.replica(), 2); 2], "the entry that it removes, and the count that it takes away");
    // An event that claims to have observed what has not come yet must say that it knows it, and then that is missing.
    let later = Dot::new(a.replica(), 77);
    let mut liar = b.clone();
    let head = *liar.known.head(a.replica()).expect("known");
    liar.known.set(a.replica(), Head { counter: 77, ..head }, false);
    let event = forged(&liar, mutation(Some(vec![later]), vec![])).expect("in form");
    a.hear(&told);
    assert_eq!(event.claims().collect::<Vec<_>>(), [later]);
    assert_eq!(event.witnesses.iter().map(|witness| witness.dot).collect::<Vec<_>>(), [later]);
    assert!(!a.known.contains(later));
}

#[test]
fn a_grant_has_one_key() {
    let device = DeviceKey::from_secret(&[1; 32]).device();
    let grant = Grant { device, role: Role::Writer, ticket: Some([3; 16]), voucher: None };
    let key = Grant::key(device);
    let mut draft = Draft::new(
        CollectionName::grants(),
        key.clone(),
        Object::new(),
        Dot::new(ReplicaId::from_bytes([1; 16]), 1),
        1,
    );
    draft.put(&grant.to_fields()).expect("well formed");
    let object = draft.object().clone();
    assert_eq!(Grant::from_object(key.as_str(), &object), Some(grant.clone()));
    let capitals = key.as_str().to_uppercase();
    assert_ne!(capitals, key.as_str());
    assert_eq!(Grant::from_object(&capitals, &object), None, "a second object for the same device");
    let mut access = Access::new(&Genesis { creator: DeviceKey::from_secret(&[2; 32]).device(), nonce: [0; 16] });
    access.learn(key.as_str(), Some(grant));
    access.learn(&capitals, None);
    assert_eq!(access.role(device), Some(Role::Writer), "nor does such an object take anything away");
}

#[test]
fn a_state_out_of_order_is_refused() {
    let (mut a, mut b) = two_with(json!({"x": 1, "y": 2}));
    a.patch(json!({"x": 2}));
    b.patch(json!({"x": 3}));
    meet(&mut a, &mut b);
    let mut roster = Roster::new();
    let bytes = codec::encode(&PackedObject::pack(&a.object("o"), &mut roster));
    let mut read = 0;
    for at in 0..bytes.len() {
        for value in 0..=255 {
            let mut changed = bytes.clone();
            changed[at] = value;
            let Ok(packed) = codec::decode::<PackedObject>("object", &changed) else { continue };
            let Ok(object) = packed.unpack(&roster) else { continue };
            // Whatever is taken is an object like any other.
            let _ = (object.shown(), object.conflicts(), object.is_lost());
            assert!(object.entries().all(|(_, dot, entry)| dot.counter > 0 && entry.depth > 0));
            read += 1;
        }
    }
    assert!(read > 0);
    let two = PackedObject::pack(&a.object("o"), &mut roster);
    assert!(two.unpack(&Roster::new()).is_err(), "replicas that nobody named");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Signed by a device that may write, so that everything behind the signature is reached.
    #[test]
    fn whatever_a_writer_signs_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        which in 0..3usize,
    ) {
        let (device, _, told) = segment();
        let mut bytes = codec::encode(&told[which].packed);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let event = &told[which].event;
        if let Ok(packed) = codec::decode::<PackedEvent>("event", &bytes)
            && let Ok(event) = Event::read(event.dot, event.previous, &packed)
        {
            for mutation in &event.mutations {
                let mut object = device.object("o");
                mutation.apply_to(&mut object, Dot::new(event.dot.replica, 1_000), event.depth);
                let _ = (object.shown(), object.conflicts(), object.is_lost(), event.claims().count());
                prop_assert!(!object.entries().any(|(slot, _, entry)| !slot.fits(&entry.content)));
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Segment::verify(SPACE, 1, bytes.clone().into());
        let _ = SignedTicket::from_bytes(&bytes);
        if let Ok(value) = codec::decode::<Value>("value", &bytes) {
            prop_assert_eq!(codec::encode(&value), bytes.clone());
            let _ = value.to_json().to_string();
        }
        let _ = codec::decode::<PackedObject>("object", &bytes);
    }

    /// Texts are what users type; what is taken comes back as it was.
    #[test]
    fn any_number_comes_back_as_it_was_or_is_refused(bits in any::<u64>(), integer in any::<i64>()) {
        let float = f64::from_bits(bits);
        let literal = serde_json::to_string(&float).expect("JSON");
        if float.is_finite() {
            let json = parse_json(&literal).expect("a float's shortest text is exact");
            prop_assert_eq!(json.as_f64().map(f64::to_bits), Some(bits));
            let list = Value::from_json(&json!([float, {"f": float}, integer])).expect("an array");
            prop_assert_eq!(codec::decode("value", &codec::encode(&list)), Ok(list.clone()));
            prop_assert_eq!(list.to_json(), json!([float, {"f": float}, integer]));
        }
        prop_assert_eq!(parse_json(&integer.to_string()).map(|json| json.as_i64()), Ok(Some(integer)));
    }
}

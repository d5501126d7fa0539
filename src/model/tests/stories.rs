//! What users do to an object, alone and beside one another, and what they see then.

use serde_json::json;

use super::*;

mod alone {
    use super::*;

    fn one_with(json: Json) -> Device {
        let mut device = Device::new(1);
        device.put(json);
        device
    }

    #[test]
    fn put_replaces_and_patch_leaves_the_rest() {
        let mut device = one_with(json!({"title": "Oak", "height": 30}));
        device.patch(json!({"height": 31, "name": {"latin": "Quercus"}}));
        assert_eq!(device.shown(), Some(json!({"title": "Oak", "height": 31, "name": {"latin": "Quercus"}})));
        device.put(json!({"title": "Elm"}));
        assert_eq!(device.shown(), Some(json!({"title": "Elm"})));
        assert_eq!(device.object("o").entries().count(), 2, "life and one field");
    }

    #[test]
    fn what_is_not_there_cannot_be_written_to() {
        let mut device = Device::new(1);
        let refused = |result: Written| matches!(result, Err(InvalidEdit::NotFound { .. }));
        assert!(refused(device.try_write("o", |draft| draft.patch(&fields(json!({"a": 1}))))));
        assert!(refused(device.try_write("o", |draft| draft.unset(&path("a")))));
        assert!(refused(device.try_write("o", |draft| draft.increment(&path("a"), 1))));
        assert!(refused(device.try_write("o", |draft| draft.add(&path("a"), &json!(1)))));
        assert!(refused(device.try_write("o", |draft| draft.remove(&path("a"), &json!(1)))));
        assert!(refused(device.try_write("o", |draft| draft.resolve(&path("a"), &json!(1)))));
        assert!(refused(device.try_write("o", Draft::delete)));
        for lost in [Draft::restore, Draft::discard] {
            assert!(matches!(device.try_write("o", lost), Err(InvalidEdit::NotLost { .. })));
        }
        assert_eq!(device.log.len(), 0);
    }

    #[test]
    fn several_writes_to_one_field_become_one() {
        let mut device = one_with(json!({"a": 1}));
        let told = device.write(|draft| {
            draft.patch(&fields(json!({"a": 2})))?;
            draft.patch(&fields(json!({"a": 3})))?;
            draft.patch(&fields(json!({"a": 4})))
        });
        let mutation = &told.expect("an event").event.mutations[0];
        assert_eq!(mutation.edits.len(), 1);
        assert_eq!(mutation.edits[0].slot, Slot::Register(path("a")));
        assert_eq!(mutation.edits[0].observed, [Dot::new(device.replica(), 1)]);
        assert_eq!(mutation.edits[0].add, Some(Content::Value(Value::Integer(4))));
    }

    #[test]
    fn a_write_that_is_taken_back_leaves_no_trace() {
        let mut device = Device::new(1);
        let put_and_delete = device.write(|draft| {
            draft.put(&fields(json!({"a": 1})))?;
            draft.delete()
        });
        assert!(put_and_delete.is_none());
        device.put(json!({"a": 1}));
        let set_and_unset = device.write(|draft| {
            draft.patch(&fields(json!({"b": {"c": 2}})))?;
            draft.unset(&path("b"))
        });
        assert!(set_and_unset.is_none());
        let counted_and_unset = device.write(|draft| {
            draft.increment(&path("n"), 1)?;
            draft.increment(&path("n"), 1)?;
            draft.unset(&path("n"))
        });
        assert!(counted_and_unset.is_none());
        assert!(device.write(|draft| draft.unset(&path("nothing"))).is_none());
        assert!(device.write(|draft| draft.remove(&path("nothing"), &json!(1))).is_none());
    }

    #[test]
    fn update_writes_what_differs_and_nothing_else() {
        let all = json!({"a": 1, "b": {"c": [1, 2], "d": {}}, "e": {"$bytes": "AAEC"}, "f": null});
        let mut device = one_with(all.clone());
        assert!(device.write(|draft| draft.update(&fields(all.clone()))).is_none());
        let told = device.write(|draft| {
            draft.update(&fields(json!({"a": 1, "b": {"c": [1, 3], "d": {}}, "e": {"$bytes": "AAEC"}})))
        });
        let slots: Vec<_> = told.expect("an event").event.mutations[0].edits.iter().map(|e| e.slot.clone()).collect();
        assert_eq!(slots, [Slot::Register(path("/b/c")), Slot::Register(path("f"))]);
        // It makes what is not there.
        let told = device.try_write("new", |draft| draft.update(&fields(json!({"a": 1})))).expect("in order");
        assert!(told.is_some() && device.object("new").is_visible());
        // The sign of a zero is a difference.
        device.put(json!({"zero": 0.0, "zeros": [0.0]}));
        let signed = json!({"zero": -0.0, "zeros": [-0.0]});
        device.write(|draft| draft.update(&fields(signed.clone())));
        assert_eq!(device.shown().expect("visible").to_string(), signed.to_string());
    }

    #[test]
    fn update_between_shapes() {
        let shapes = [
            json!({}),
            json!({"a": 1}),
            json!({"a": {}}),
            json!({"a": {"b": 1}}),
            json!({"a": {"c": 1}}),
            json!({"a": {"b": {"c": 2}}}),
            json!({"a": {"b": {}}}),
            json!({"a": [{"b": 1}]}),
            json!({"a": {"$bytes": ""}, "": 0}),
        ];
        for from in &shapes {
            for to in &shapes {
                let mut device = one_with(from.clone());
                device.write(|draft| draft.update(&fields(to.clone())));
                assert_eq!(device.shown().as_ref(), Some(to), "from {from}");
                // Nothing is left over: it is the very state that a put would have made.
                let slots = |device: &Device| -> Vec<Slot> {
                    device.object("o").entries().map(|(slot, ..)| slot.clone()).collect()
                };
                assert_eq!(slots(&device), slots(&one_with(to.clone())), "from {from} to {to}");
            }
        }
    }

    #[test]
    fn maps_are_merged_member_by_member() {
        let mut device = one_with(json!({"name": {"latin": "Quercus", "common": "oak"}}));
        device.patch(json!({"name": {"common": "English oak", "old": {"roman": null}}}));
        let merged = json!({"name": {"latin": "Quercus", "common": "English oak", "old": {"roman": null}}});
        assert_eq!(device.shown(), Some(merged.clone()));
        device.patch(json!({"name": {}}));
        assert_eq!(device.shown(), Some(merged), "an empty map adds nothing to a map");
    }

    #[test]
    fn a_value_over_a_map_and_back() {
        let mut device = one_with(json!({"a": {"b": 1, "c": {"d": 2}}}));
        device.patch(json!({"a": "text"}));
        assert_eq!(device.shown(), Some(json!({"a": "text"})));
        device.patch(json!({"a": {"b": 3}}));
        assert_eq!(device.shown(), Some(json!({"a": {"b": 3}})));
        device.patch(json!({"a": "text"}));
        device.patch(json!({"a": {}}));
        assert_eq!(device.shown(), Some(json!({"a": {}})));
        assert_eq!(device.object("o").entries().count(), 2);
        assert_eq!(device.conflicts(), []);
    }

    #[test]
    fn the_last_member_leaves_an_empty_map() {
        let mut device = one_with(json!({"a": {"b": {"c": 1}}}));
        device.unset("/a/b/c");
        assert_eq!(device.shown(), Some(json!({"a": {"b": {}}})));
        device.unset("/a/b");
        assert_eq!(device.shown(), Some(json!({"a": {}})));
        device.unset("a");
        assert_eq!(device.shown(), Some(json!({})));
    }

    #[test]
    fn unset_of_what_is_not_there_makes_no_map() {
        let mut device = one_with(json!({}));
        device.increment("hits", 1);
        device.increment("/pages/home", 1);
        device.unset("hits");
        device.unset("pages");
        // Both still know how far they were reset; that is not for users, and it is no map.
        assert!(device.unset("/hits/x").is_none());
        assert!(device.unset("/pages/other").is_none());
        assert_eq!(device.shown(), Some(json!({})));
    }

    #[test]
    fn counters_and_sets_have_their_own_commands() {
        let mut device = one_with(json!({"text": "x", "map": {"a": 1}}));
        device.increment("n", 2);
        device.add("tags", json!("red"));
        let as_shown = json!({"text": "x", "map": {"a": 1}, "n": 2, "tags": ["red"]});
        assert_eq!(device.shown(), Some(as_shown.clone()));
        let before = device.object("o");
        let mut refused = |write: &dyn Fn(&mut Draft) -> Result<(), InvalidEdit>| {
            let mut draft = device.draft("o");
            assert!(matches!(write(&mut draft), Err(InvalidEdit::WrongKind { .. })));
            assert_eq!(*draft.object(), before, "refused, so nothing was changed");
            device.commit(vec![draft])
        };
        refused(&|draft| draft.increment(&path("text"), 1));
        refused(&|draft| draft.increment(&path("map"), 1));
        refused(&|draft| draft.increment(&path("tags"), 1));
        refused(&|draft| draft.increment(&path("/n/deeper"), 1));
        refused(&|draft| draft.add(&path("text"), &json!(1)));
        refused(&|draft| draft.remove(&path("n"), &json!(1)));
        refused(&|draft| draft.patch(&fields(json!({"a new one": 1, "n": 3}))));
        refused(&|draft| draft.patch(&fields(json!({"a new one": 1, "n": {"x": 1}}))));
        refused(&|draft| draft.patch(&fields(json!({"a new one": 1, "tags": ["blue"]}))));
        refused(&|draft| draft.put(&fields(json!({"n": 3}))));
        refused(&|draft| draft.put(&fields(json!({"tags": []}))));
        refused(&|draft| draft.put(&fields(json!({"tags": {"red": true}}))));
        refused(&|draft| draft.update(&fields(json!({"a new one": 1, "text": "x", "n": 3}))));
        assert!(matches!(
            device.try_write("o", |draft| draft.add(&path("tags"), &json!({"a": 1}))),
            Err(InvalidEdit::MapInSet)
        ));
        assert!(device.write(|draft| draft.update(&fields(as_shown.clone()))).is_none());
        device.patch(as_shown.clone());
        device.put(as_shown.clone());
        assert_eq!(device.shown(), Some(as_shown));
        // They are still what they were.
        device.increment("n", -5);
        device.add("tags", json!("blue"));
        device.remove("tags", json!("red"));
        assert_eq!(device.shown(), Some(json!({"text": "x", "map": {"a": 1}, "n": -3, "tags": ["blue"]})));
    }

    #[test]
    fn a_set_keeps_each_element_once_in_the_order_of_its_encoding() {
        let mut device = one_with(json!({}));
        for element in [json!("b"), json!("a"), json!(300), json!(2), json!("a"), json!([1, {"x": 2}]), json!(null)] {
            device.add("/in/tags", element);
        }
        assert_eq!(device.shown(), Some(json!({"in": {"tags": [null, 2, 300, "a", "b", [1, {"x": 2}]]}})));
        for element in [json!("b"), json!("a"), json!(300), json!(2), json!([1, {"x": 2}]), json!(null)] {
            device.remove("/in/tags", element);
        }
        assert_eq!(device.shown(), Some(json!({"in": {"tags": []}})));
        device.put(json!({"in": {"tags": []}}));
        assert_eq!(device.write(|draft| draft.add(&path("/in/tags"), &json!(1))).map(|_| ()), Some(()));
        device.unset("/in/tags");
        assert_eq!(device.shown(), Some(json!({"in": {}})));
    }

    #[test]
    fn a_reset_counter_goes_on_from_nothing() {
        let mut device = one_with(json!({}));
        device.increment("n", 10);
        device.unset("n");
        assert_eq!(device.shown(), Some(json!({})));
        device.increment("n", 2);
        assert_eq!(device.shown(), Some(json!({"n": 2})));
        device.put(json!({}));
        device.increment("n", 3);
        device.increment("n", 4);
        assert_eq!(device.shown(), Some(json!({"n": 7})));
    }

    #[test]
    fn a_counter_may_be_reset_and_counted_in_one_event() {
        let mut device = one_with(json!({}));
        device.increment("n", 10);
        device.write(|draft| {
            draft.increment(&path("n"), 1)?;
            draft.unset(&path("n"))?;
            draft.increment(&path("n"), 2)
        });
        assert_eq!(device.shown(), Some(json!({"n": 2})));
        device.write(|draft| {
            draft.increment(&path("n"), 5)?;
            draft.put(&fields(json!({})))?;
            draft.increment(&path("n"), -3)?;
            draft.increment(&path("fresh"), 1)?;
            draft.unset(&path("fresh"))?;
            draft.increment(&path("fresh"), 4)
        });
        assert_eq!(device.shown(), Some(json!({"n": -3, "fresh": 4})));
        device.unset("n");
        device.unset("fresh");
        assert_eq!(device.shown(), Some(json!({})));
    }

    #[test]
    fn a_value_over_a_map_does_not_take_the_counters_in_it_away() {
        let mut device = one_with(json!({}));
        device.increment("/deep/n", 4);
        device.add("/deeper/still/s", json!("x"));
        for over in [json!({"deep": 5}), json!({"deeper": {"still": null}})] {
            let patched = device.try_write("o", |draft| draft.patch(&fields(over.clone())));
            assert!(matches!(patched, Err(InvalidEdit::WrongKind { .. })), "{over}");
        }
        assert_eq!(device.shown(), Some(json!({"deep": {"n": 4}, "deeper": {"still": {"s": ["x"]}}})));
    }

    #[test]
    fn adding_nothing_to_a_counter_is_no_event() {
        let mut device = one_with(json!({}));
        device.increment("n", 4);
        let before = device.object("o").clone();
        device.write(|draft| draft.increment(&path("n"), 0));
        assert_eq!(device.object("o"), before);
    }

    #[test]
    fn a_counter_stays_within_64_bits_and_only_its_value_is_limited() {
        let mut device = one_with(json!({}));
        device.increment("n", i64::MAX);
        let more = |draft: &mut Draft| draft.increment(&path("n"), 1);
        assert!(matches!(device.try_write("o", more), Err(InvalidEdit::Overflow { .. })));
        // What resets took away is not counted, though the run remembers it.
        device.unset("n");
        device.increment("n", 5);
        device.increment("n", i64::MAX - 5);
        assert_eq!(device.shown(), Some(json!({"n": i64::MAX})));
        device.unset("n");
        device.increment("n", i64::MIN);
        assert_eq!(device.shown(), Some(json!({"n": i64::MIN})));
        assert!(device.try_write("o", |draft| draft.increment(&path("n"), -1)).is_err());
        device.unset("n");
        assert_eq!(device.shown(), Some(json!({})));
    }

    #[test]
    fn delete_leaves_nothing_at_all() {
        let mut device = one_with(json!({"a": {"b": 1}}));
        device.increment("n", 1);
        device.add("s", json!(1));
        device.delete();
        assert_eq!(device.object("o"), Object::new());
        assert_eq!(device.shown(), None);
        device.put(json!({}));
        device.increment("n", 1);
        assert_eq!(device.shown(), Some(json!({"n": 1})));
    }

    #[test]
    fn an_object_has_a_limit_however_it_grows() {
        let mut device = one_with(json!({}));
        let half = "x".repeat(OBJECT_BYTES_MAX / 2 - 50);
        let too_large = |result: Written| matches!(result, Err(InvalidEdit::TooLarge(_)));
        device.patch(json!({"a": half}));
        device.patch(json!({"b": half}));
        assert!(too_large(device.try_write("o", |draft| draft.patch(&fields(json!({"c": half}))))));
        assert!(too_large(device.try_write("o", |draft| draft.add(&path("tags"), &json!(half)))));
        let whole = fields(json!({"a": half, "b": half, "c": half}));
        assert!(too_large(device.try_write("o", |draft| draft.put(&whole))));
        // What is written over makes room, and a small write still fits.
        let other = "y".repeat(half.len());
        device.patch(json!({"a": other}));
        device.patch(json!({"b": 1}));
        device.patch(json!({"c": half}));
        let mut draft = device.draft("o");
        let mut fitted = 0;
        while draft.increment(&path(&format!("n{fitted}")), 1).is_ok() {
            fitted += 1;
        }
        let bytes = serde_json::to_vec(&draft.object().shown()).expect("JSON").len();
        assert!(fitted > 0 && (OBJECT_BYTES_MAX - 10..=OBJECT_BYTES_MAX).contains(&bytes), "{bytes}");
        device.unset("a");
        device.delete();
    }

    #[test]
    fn a_member_cannot_make_a_map_read_as_bytes() {
        assert!("/a/$bytes".parse::<Path>().is_err());
        let mut device = one_with(json!({}));
        for json in [json!({"$bytes": "AAEC"}), json!({"$bytes": 1}), json!({"a": {"$bytes": 1}})] {
            assert!(device.try_write("o", |draft| draft.put(&fields(json.clone()))).is_err());
            assert!(device.try_write("o", |draft| draft.patch(&fields(json.clone()))).is_err());
        }
    }
}

mod beside_one_another {
    use super::*;

    #[test]
    fn writes_to_different_fields_both_stay() {
        let (mut a, mut b) = two_with(json!({"title": "Oak", "size": {"height": 1, "width": 1}}));
        a.patch(json!({"title": "Elm", "size": {"height": 2}}));
        b.patch(json!({"size": {"width": 3}}));
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"title": "Elm", "size": {"height": 2, "width": 3}})));
        assert_eq!(a.conflicts(), []);
    }

    #[test]
    fn writes_to_one_field_are_a_conflict_until_somebody_decides() {
        let (mut a, mut b) = two_with(json!({"title": "Oak"}));
        a.patch(json!({"title": "Elm"}));
        b.patch(json!({"title": "Ash"}));
        meet(&mut a, &mut b);
        let winner = a.shown().expect("visible")["title"].clone();
        let (field, values) = a.conflicts().remove(0);
        assert_eq!((field.as_str(), &values[0], values.len()), ("title", &winner, 2));
        assert_eq!(b.conflicts(), a.conflicts());
        let loser = values[1].clone();
        a.resolve("title", loser.clone());
        meet(&mut a, &mut b);
        assert_eq!(b.shown(), Some(json!({"title": loser})));
        assert_eq!(b.conflicts(), []);
    }

    #[test]
    fn the_deeper_event_wins_whoever_wrote_it() {
        for swap in [false, true] {
            let (mut a, mut b) = two_with(json!({"title": "Oak", "other": 0}));
            if swap {
                std::mem::swap(&mut a, &mut b);
            }
            a.patch(json!({"other": 1}));
            a.patch(json!({"title": "deep"}));
            b.patch(json!({"title": "shallow"}));
            meet(&mut a, &mut b);
            assert_eq!(a.conflicts(), [("title".to_owned(), vec![json!("deep"), json!("shallow")])]);
        }
    }

    #[test]
    fn equal_values_are_no_conflict() {
        let (mut a, mut b) = two_with(json!({"title": "Oak"}));
        a.patch(json!({"title": "Elm", "m": {}, "list": [1]}));
        b.patch(json!({"title": "Elm", "m": {}, "list": [1]}));
        meet(&mut a, &mut b);
        assert_eq!(a.conflicts(), []);
        // Both writes are kept; the next one takes both.
        assert_eq!(a.object("o").entries().count(), 7);
        a.patch(json!({"title": "Ash"}));
        meet(&mut a, &mut b);
        assert_eq!(b.object("o").entries().count(), 6);
        assert_eq!(b.shown(), Some(json!({"title": "Ash", "m": {}, "list": [1]})));
    }

    #[test]
    fn three_values_of_which_two_are_equal_are_two() {
        let (mut a, mut b) = two_with(json!({}));
        let mut c = Device::new(3);
        meet(&mut a, &mut c);
        a.patch(json!({"x": 1}));
        b.patch(json!({"x": 1}));
        c.patch(json!({"x": 2}));
        meet(&mut a, &mut b);
        meet(&mut a, &mut c);
        assert_eq!(a.conflicts()[0].1.len(), 2);
    }

    #[test]
    fn kinds_can_be_in_conflict_and_each_can_be_chosen() {
        let all = [json!("text"), json!(2), json!(["red"]), json!({"deep": {"er": true}, "n": 3})];
        for chosen in &all {
            let (mut a, mut b) = two_with(json!({}));
            let (mut c, mut d) = (Device::new(3), Device::new(4));
            for other in [&mut c, &mut d] {
                meet(&mut a, other);
            }
            a.patch(json!({"f": "text"}));
            b.increment("f", 2);
            c.add("f", json!("red"));
            d.patch(json!({"f": {"deep": {"er": true}}}));
            d.increment("/f/n", 3);
            for other in [&mut b, &mut c, &mut d] {
                meet(&mut a, other);
            }
            let (field, mut values) = a.conflicts().remove(0);
            assert_eq!((field.as_str(), values.len()), ("f", 4));
            assert_eq!(values[0], a.shown().expect("visible")["f"]);
            assert!(all.iter().all(|value| values.contains(value)));

            a.resolve("f", chosen.clone());
            assert_eq!(a.shown(), Some(json!({"f": chosen})));
            assert_eq!(a.conflicts(), []);
            // Meanwhile the others go on with what they know; nothing that was seen comes back.
            b.increment("f", 5);
            meet(&mut a, &mut b);
            values = a.conflicts().into_iter().flat_map(|(_, values)| values).collect();
            if *chosen == json!(2) {
                assert_eq!(a.shown(), Some(json!({"f": 7})), "a counter that was chosen is still a counter");
            } else {
                assert!(values.contains(&json!(5)) && !values.contains(&json!(7)), "{values:?}");
                assert!(values.contains(chosen));
            }
        }
    }

    #[test]
    fn a_chosen_map_keeps_its_counters_and_loses_what_was_not_chosen() {
        let (mut a, mut b) = two_with(json!({"f": {"old": 1}}));
        a.increment("/f/n", 1);
        a.patch(json!({"f": {"old": 2}}));
        b.patch(json!({"f": "text"}));
        meet(&mut a, &mut b);
        assert_eq!(a.conflicts()[0].1.len(), 2);
        a.resolve("f", json!({"n": 1, "new": {}}));
        b.increment("/f/n", 1).map_or_else(|| panic!("an event"), drop);
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"f": {"n": 2, "new": {}}})));
        assert_eq!(a.conflicts(), []);
    }

    #[test]
    fn conflicts_within_maps_are_listed_with_their_paths() {
        let (mut a, mut b) = two_with(json!({"m": {"x": 0, "y/z": 0}}));
        a.patch(json!({"m": {"x": 1, "y/z": 1}}));
        b.patch(json!({"m": {"x": 2, "y/z": 2}}));
        meet(&mut a, &mut b);
        let paths: Vec<_> = a.conflicts().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/m/x", "/m/y~1z"]);
        let both = a.shown().expect("visible")["m"].clone();
        a.resolve("m", both.clone());
        assert_eq!(a.conflicts(), []);
        assert_eq!(a.shown(), Some(json!({"m": both})));
        assert!(matches!(
            a.try_write("o", |draft| draft.resolve(&path("nothing"), &json!(1))),
            Err(InvalidEdit::NoSuchField { .. })
        ));
    }

    #[test]
    fn update_decides_between_a_map_and_a_value_when_it_writes_the_map() {
        let (mut a, mut b) = two_with(json!({"f": {"old": 0}}));
        b.patch(json!({"f": 5}));
        a.patch(json!({"f": {"old": 1}}));
        a.patch(json!({"f": {"new": 1}}));
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"f": {"old": 1, "new": 1}})));
        for wanted in [json!({"f": {"old": 1}}), json!({"f": {"new": 1}}), json!({"f": {}}), json!({"f": 5})] {
            let mut device = a.clone();
            device.write(|draft| draft.update(&fields(wanted.clone())));
            assert_eq!(device.shown(), Some(wanted));
        }
    }

    #[test]
    fn concurrent_increments_add_up() {
        let (mut a, mut b) = two_with(json!({}));
        a.increment("n", 3);
        b.increment("n", 4);
        meet(&mut a, &mut b);
        a.increment("n", -1);
        b.increment("n", -10);
        b.increment("n", 1);
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"n": -3})));
        assert_eq!(a.conflicts(), []);
    }

    #[test]
    fn together_counters_may_leave_64_bits_and_come_back() {
        let (mut a, mut b) = two_with(json!({}));
        a.increment("n", i64::MAX);
        b.increment("n", i64::MAX);
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"n": i64::MAX})));
        assert!(matches!(a.try_write("o", |draft| draft.increment(&path("n"), 1)), Err(InvalidEdit::Overflow { .. })));
        a.increment("n", -5);
        b.increment("n", -i64::MAX);
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"n": i64::MAX - 5})));
        // One alone is refused as soon as the sum, and not only its own part, would leave.
        assert!(b.try_write("o", |draft| draft.increment(&path("n"), 6)).is_err());
        assert!(b.try_write("o", |draft| draft.increment(&path("n"), 5)).is_ok());
    }

    #[test]
    fn a_reset_takes_what_it_saw_and_no_more() {
        for by_put in [false, true] {
            let (mut a, mut b) = two_with(json!({}));
            a.increment("n", 10);
            meet(&mut a, &mut b);
            if by_put {
                b.put(json!({}))
            } else {
                b.unset("n")
            };
            a.increment("n", 2);
            a.increment("n", 3);
            meet(&mut a, &mut b);
            assert_eq!(a.shown(), Some(json!({"n": 5})));
            b.increment("n", 1);
            a.unset("n");
            meet(&mut a, &mut b);
            assert_eq!(a.shown(), Some(json!({"n": 1})));
        }
    }

    #[test]
    fn two_resets_take_it_once() {
        let (mut a, mut b) = two_with(json!({}));
        a.increment("n", 10);
        meet(&mut a, &mut b);
        a.increment("n", 1);
        a.unset("n");
        b.unset("n");
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({})));
        b.increment("n", 1);
        a.increment("n", 1);
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"n": 2})));
    }

    #[test]
    fn a_put_that_repeats_a_counter_leaves_it_alone() {
        let (mut a, mut b) = two_with(json!({"title": "Oak"}));
        let mut c = Device::new(3);
        a.increment("n", 10);
        meet(&mut a, &mut b);
        meet(&mut a, &mut c);
        // Two put, a third counts, one of the putters counts too.
        a.put(json!({"title": "Elm", "n": 10}));
        b.put(json!({"title": "Ash", "n": 10}));
        c.increment("n", 5);
        a.increment("n", 1);
        meet(&mut b, &mut c);
        meet(&mut a, &mut c);
        meet(&mut a, &mut b);
        assert_eq!(a.shown().expect("visible")["n"], json!(16));
        assert_eq!(a.conflicts().len(), 1, "the title, and not the counter");
        // Any later write brings the copies together again.
        b.increment("n", 1);
        a.put(fields(json!({"title": "Elm", "n": 16})).into());
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"title": "Elm", "n": 17})));
    }

    #[test]
    fn a_put_that_keeps_a_counter_beside_one_that_resets_it() {
        let (mut a, mut b) = two_with(json!({}));
        a.increment("n", 10);
        meet(&mut a, &mut b);
        a.put(json!({"n": 10}));
        b.unset("n");
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"n": 0})), "what was reset is gone; that there is a counter is not");
        a.increment("n", 1);
        meet(&mut a, &mut b);
        assert_eq!(b.shown(), Some(json!({"n": 1})));
    }

    #[test]
    fn an_add_beats_a_remove_and_a_put_that_repeats_a_set_leaves_it_alone() {
        let (mut a, mut b) = two_with(json!({}));
        a.add("tags", json!("red"));
        meet(&mut a, &mut b);
        a.remove("tags", json!("red"));
        b.add("tags", json!("red"));
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"tags": ["red"]})));
        let mut c = Device::new(3);
        meet(&mut a, &mut c);
        a.put(json!({"tags": ["red"]}));
        b.put(json!({"tags": ["red"]}));
        c.add("tags", json!("blue"));
        meet(&mut a, &mut b);
        meet(&mut a, &mut c);
        assert_eq!(a.shown(), Some(json!({"tags": ["red", "blue"]})));
        assert_eq!(a.conflicts(), []);
        a.remove("tags", json!("red"));
        meet(&mut a, &mut b);
        assert_eq!(b.shown(), Some(json!({"tags": ["blue"]})));
        // Somebody unset it while another added: the element is there, and the set outlives it.
        a.unset("tags");
        b.add("tags", json!("green"));
        meet(&mut a, &mut b);
        assert_eq!(b.shown(), Some(json!({"tags": ["green"]})));
        b.remove("tags", json!("green"));
        assert_eq!(b.shown(), Some(json!({"tags": []})));
    }

    #[test]
    fn a_counter_that_nobody_is_shown_does_not_forbid_a_put() {
        let (mut a, mut b) = two_with(json!({}));
        a.increment("/f/n", 1);
        b.patch(json!({"other": 1}));
        b.patch(json!({"f": "text"}));
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"f": "text", "other": 1})));
        a.put(json!({"f": {"n": 7}}));
        b.increment("other2", 1);
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"f": {"n": 7}, "other2": 1})));
    }

    #[test]
    fn a_delete_beats_a_patch_and_the_lost_edit_is_kept() {
        let (mut a, mut b) = two_with(json!({"title": "Oak", "height": 1}));
        a.delete();
        b.patch(json!({"height": 2, "in": {"deep": true}}));
        b.increment("n", 1);
        meet(&mut a, &mut b);
        for device in [&a, &b] {
            assert_eq!(device.shown(), None);
            assert!(device.object("o").is_lost());
            assert_eq!(Json::Object(device.object("o").remains()), json!({"height": 2, "in": {"deep": true}, "n": 1}));
            assert_eq!(device.conflicts(), []);
        }
        assert!(matches!(a.try_write("o", Draft::delete), Err(InvalidEdit::NotFound { .. })));
        let mut restored = (a.clone(), b.clone());
        restored.1.write(Draft::restore);
        meet(&mut restored.0, &mut restored.1);
        assert_eq!(restored.0.shown(), Some(json!({"height": 2, "in": {"deep": true}, "n": 1})));
        assert!(!restored.0.object("o").is_lost());
        a.write(Draft::discard);
        meet(&mut a, &mut b);
        assert_eq!(b.object("o"), Object::new());
        assert!(matches!(b.try_write("o", Draft::restore), Err(InvalidEdit::NotLost { .. })));
    }

    #[test]
    fn a_put_takes_lost_edits_along() {
        let (mut a, mut b) = two_with(json!({"title": "Oak"}));
        a.delete();
        b.patch(json!({"title": "Elm"}));
        meet(&mut a, &mut b);
        a.put(json!({"height": 1}));
        meet(&mut a, &mut b);
        assert_eq!(b.shown(), Some(json!({"height": 1})));
        assert_eq!(b.conflicts(), []);
    }

    #[test]
    fn a_put_beats_a_delete_whole() {
        let (mut a, mut b) = two_with(json!({"title": "Oak", "height": 1}));
        a.increment("n", 3);
        meet(&mut a, &mut b);
        a.delete();
        b.put(json!({"title": "Oak", "n": 3}));
        meet(&mut a, &mut b);
        assert_eq!(a.shown(), Some(json!({"title": "Oak", "n": 3})));
        assert!(!a.object("o").is_lost());
    }

    #[test]
    fn what_a_reset_leaves_is_no_lost_edit() {
        let (mut a, mut b) = two_with(json!({}));
        a.increment("n", 3);
        meet(&mut a, &mut b);
        a.delete();
        b.unset("n");
        meet(&mut a, &mut b);
        assert!(!a.object("o").is_lost() && !a.object("o").is_visible());
        b.put(json!({}));
        b.increment("n", 1);
        assert_eq!(b.shown(), Some(json!({"n": 1})));
    }

    #[test]
    fn an_event_does_all_its_objects() {
        let (mut a, mut b) = two_with(json!({}));
        let mut drafts = [a.draft("z"), a.draft("o"), a.draft("unchanged")];
        drafts[0].put(&fields(json!({"z": 1}))).expect("in order");
        drafts[1].patch(&fields(json!({"o": 1}))).expect("in order");
        let told = a.commit(drafts.into()).expect("an event");
        let keys: Vec<_> = told.event.mutations.iter().map(|mutation| mutation.key.as_str()).collect();
        assert_eq!(keys, ["o", "z"]);
        meet(&mut a, &mut b);
        assert!(b.object("z").is_visible());
    }
}

//! Hints that there is something new, as server-sent events.

use serde_json::{Value as Json, json};
use thence::model::Role;

use crate::house::Http;
use crate::world::{Client, NOTES, OTHER, World, number};

/// Somebody who listens.
struct Hints {
    http: Http,
    said: String,
}

impl Hints {
    /// Listens, having seen the event of this id.
    #[track_caller]
    fn of(client: &Client, last: Option<&str>) -> Self {
        let headers: Vec<_> = last.map(|last| ("Last-Event-ID", last)).into_iter().collect();
        let mut http = client.begin("/events", &headers);
        let head = http.head().to_lowercase();
        assert!(head.starts_with("http/1.1 200 ") && head.contains("content-type: text/event-stream"), "{head}");
        Self { http, said: String::new() }
    }

    /// The next hint, and its id; none when the stream has ended as it should.
    #[track_caller]
    fn next(&mut self) -> Option<(String, Json)> {
        loop {
            if let Some((event, rest)) = self.said.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
                let hint = field("data:").map(|data| (field("id:").expect("an id"), serde_json::from_str(&data)));
                self.said = rest.to_owned();
                match hint {
                    Some((id, data)) => return Some((id, data.expect("JSON"))),
                    // A comment, which says no more than that somebody is there.
                    None => continue,
                }
            }
            let piece = self.http.chunk()?;
            self.said.push_str(std::str::from_utf8(&piece).expect("text"));
        }
    }

    /// The version in the next hint, which is its id, too.
    #[track_caller]
    fn version(&mut self, epoch: &Json) -> u64 {
        let (id, data) = self.next().expect("it goes on");
        assert_eq!((&data["epoch"], data.as_object().map(serde_json::Map::len)), (epoch, Some(2)), "{data}");
        assert_eq!(id, data["version"].to_string());
        number(&data["version"])
    }
}

#[test]
fn a_commit_is_hinted_at_with_version_and_epoch() {
    let world = World::new();
    let owner = &world.owner;
    owner.ask("PUT", OTHER, &[], None).expect(201);
    owner.put("todo", "a", &json!({}));
    let database = owner.get(NOTES).expect(200).json();
    let epoch = &database["epoch"];
    let mut hints = Hints::of(&world.client(Role::Reader), None);
    assert_eq!(hints.version(epoch), number(&database["version"]), "where it stands, for those who know nothing");
    // What happens elsewhere is no reason to ask.
    owner.send("PUT", &format!("{OTHER}/tables/todo/rows/a"), &json!({})).expect(200);
    let here = number(&owner.put("todo", "b", &json!({}))["version"]);
    assert_eq!(hints.version(epoch), here);

    // However many commits are hinted at together, the last one is.
    let mut last = 0;
    for n in 0..20 {
        last = number(&owner.put("todo", "c", &json!({"n": n}))["version"]);
    }
    let mut told = 0;
    while told < last {
        let version = hints.version(epoch);
        assert!(version > told);
        told = version;
    }
    assert_eq!(told, last);
    owner.delete(NOTES).expect(202);
    assert_eq!(
        hints.version(epoch),
        number(&owner.get(NOTES).expect(200).json()["version"]),
        "a wipe is a commit, too"
    );
}

#[test]
fn who_comes_back_is_told_only_of_what_is_new_since() {
    let world = World::new();
    let owner = &world.owner;
    let first = number(&owner.put("todo", "a", &json!({}))["version"]);
    let epoch = &owner.get(NOTES).expect(200).json()["epoch"];
    let mut current = Hints::of(owner, Some(&first.to_string()));
    let second = number(&owner.put("todo", "a", &json!({"n": 2}))["version"]);
    assert_eq!(current.version(epoch), second, "and not of what it had seen");
    // One that missed something is told at once, and so is one that nobody here ever told anything.
    for last in [first.to_string(), "999999".to_owned(), "nonsense".to_owned(), String::new()] {
        assert_eq!(Hints::of(owner, Some(&last)).version(epoch), second, "{last:?}");
    }
}

#[test]
fn hints_end_with_what_entitles_to_them() {
    let world = World::new();
    let owner = &world.owner;
    let reader = world.client_of("acme", Some("notes"), Role::Reader);
    let mut hints = Hints::of(&reader, None);
    hints.next().expect("where it stands");
    world.revoke(&reader);
    assert_eq!(hints.next(), None, "it ends as a stream should");
    reader.get("/events").problem(401, "unauthenticated");

    world.anybody().get("/events").problem(401, "unauthenticated");
    owner.send("PUT", NOTES, &json!({"visibility": "public-read"})).expect(200);
    let mut hints = Hints::of(&world.anybody(), None);
    hints.next().expect("where it stands");
    owner.send("PUT", NOTES, &json!({"visibility": "private"})).expect(200);
    assert_eq!(hints.next(), None);
}

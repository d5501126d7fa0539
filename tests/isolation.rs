//! Tenants of a relay keep apart: what somebody else has and what nobody has cannot be told from each other.
//!
//! What is asked is taken from `/openapi.json`, which is made of the very table that requests are routed by: an endpoint
//! that is new is tried here, too.

mod house;

use std::collections::BTreeMap;

use house::{Device, Http, HttpAnswer, PATIENCE, RunningNode, eventually, request};
use serde_json::{Value as Json, json};

/// What acme keeps, and nobody else may ever read.
const SENTINEL: &str = "sentinel7f3a";
const ACME: &str = "/v1/customers/acme/databases/notes";
const OTHER: &str = "/v1/customers/other/databases/notes";
/// What looks like the id of a job, a token or a space.
const SOME_ID: &str = "0193f1a2-7c4e-7b1a-9a55-3f6f0c2d9e11";

/// One request but for who asks.
#[derive(Clone, Debug)]
struct Question {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

impl Question {
    #[track_caller]
    fn ask(&self, node: &RunningNode, token: Option<&str>) -> HttpAnswer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        headers.extend(self.body.as_ref().map(|_| ("Content-Type", "application/json")));
        loop {
            let mut http = Http::connect(node.http());
            let answer = match self.method.as_str() {
                "HEAD" => http.ask("HEAD", &self.path, &headers),
                method => http.send(request(method, &self.path, &headers, self.body.as_deref())).answer(),
            };
            // So much is asked that it may be too much for a second.
            if answer.status != 429 {
                return answer;
            }
        }
    }
}

/// Names to put into paths and bodies.
type Names = BTreeMap<&'static str, String>;

fn names(of: &[(&'static str, &str)]) -> Names {
    of.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// What an answer says, but for the names that the asker sent and what differs from request to request.
fn said(answer: &HttpAnswer, names: &Names) -> String {
    let passing = ["request-id", "date", "content-length"];
    let headers = answer.headers().iter().filter(|(name, _)| !passing.contains(&name.as_str()));
    let headers: Vec<_> = headers.collect();
    let mut said = format!("{} {headers:?} {}", answer.status, String::from_utf8_lossy(&answer.body));
    for (name, value) in names {
        said = said.replace(value.as_str(), name);
    }
    said
}

/// Everything that can be asked, each in several ways: as it is meant, with all that the query takes, and as nonsense.
struct Questions {
    document: Json,
}

impl Questions {
    /// The least that fits a schema.
    fn least(&self, schema: &Json) -> Json {
        let schema = schema["$ref"].as_str().map_or(schema, |at| self.document.pointer(&at[1..]).expect("it is there"));
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
        match schema["type"].as_str() {
            Some("object") => required.map(|name| (name.to_owned(), self.least(&schema["properties"][name]))).collect(),
            Some("array") => json!([]),
            Some("integer") => json!(1),
            _ if schema["enum"].is_array() => schema["enum"][0].clone(),
            _ => json!("x"),
        }
    }

    fn body(&self, operation: &Json, names: &Names) -> Option<String> {
        let schema = operation.pointer("/requestBody/content/application~1json/schema")?;
        let row = json!({"key": names["key"], "fields": {"a": 1}, "id": names["id"], "context": names["context"]});
        let body = match schema["$ref"].as_str().and_then(|at| at.rsplit('/').next()) {
            Some("Rows") => json!({"rows": [row]}),
            Some("Keys") => json!({"keys": [names["key"]]}),
            Some("Fields") => json!({"a": 1}),
            Some("Sync") => {
                let mut change = row;
                change["table"] = names["table"].clone().into();
                json!({"changes": [change]})
            }
            Some("TableSettings") => json!({"schema": 7}),
            Some("Registration") => json!({"visibility": "public-read"}),
            Some("Invitation") => json!({"role": "owner"}),
            _ => self.least(schema),
        };
        Some(body.to_string())
    }

    fn resolve<'a>(&'a self, parameter: &'a Json) -> &'a Json {
        parameter["$ref"].as_str().map_or(parameter, |at| self.document.pointer(&at[1..]).expect("it is there"))
    }

    /// What can be asked at a path with parameters, and who may.
    fn about(&self, names: &Names) -> Vec<(Question, String)> {
        let mut questions = Vec::new();
        for (template, methods) in self.document["paths"].as_object().expect("paths") {
            if !template.contains('{') {
                continue;
            }
            let mut path = template.clone();
            for (name, value) in names {
                path = path.replace(&format!("{{{name}}}"), value);
            }
            // What is called otherwise is an id of something.
            while let Some((from, to)) = path.find('{').zip(path.find('}')) {
                path.replace_range(from..=to, SOME_ID);
            }
            for (method, operation) in methods.as_object().expect("methods") {
                let parameters =
                    || operation["parameters"].as_array().into_iter().flatten().map(|one| self.resolve(one));
                let headers: Vec<(String, String)> = parameters()
                    .filter(|parameter| parameter["in"] == "header")
                    .filter_map(|parameter| {
                        let name = parameter["name"].as_str()?;
                        Some((name.to_owned(), names.get(name)?.clone()))
                    })
                    .collect();
                let query: Vec<String> = parameters()
                    .filter(|parameter| parameter["in"] == "query")
                    .map(|parameter| {
                        let value = match parameter["schema"]["type"].as_str() {
                            Some("boolean") => "true".to_owned(),
                            Some("string") => names["table"].clone(),
                            _ => "1".to_owned(),
                        };
                        format!("{}={value}", parameter["name"].as_str().expect("a name"))
                    })
                    .collect();
                let who = operation["description"].as_str().expect("text").to_owned();
                let body = self.body(operation, names);
                let plain = Question { method: method.to_uppercase(), path: path.clone(), headers, body };
                let mut ways = vec![plain.clone()];
                ways.push(Question { headers: Vec::new(), ..plain.clone() });
                for one in &query {
                    ways.push(Question { path: format!("{path}?{one}"), body: None, ..plain.clone() });
                    ways.push(Question { path: format!("{path}?{one}"), ..plain.clone() });
                }
                if template.contains("{database}") {
                    // Who asks matters before what is asked.
                    ways.push(Question { path: format!("{path}?nonsense=1"), ..plain.clone() });
                    ways.push(Question { body: Some("{nonsense".to_owned()), ..plain.clone() });
                }
                if method == "get" {
                    ways.push(Question { method: "HEAD".to_owned(), ..plain });
                }
                questions.extend(ways.into_iter().map(|question| (question, who.clone())));
            }
            for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
                if methods.get(method.to_lowercase()).is_none() {
                    let (method, path) = (method.to_owned(), path.clone());
                    let question = Question { method, path, headers: Vec::new(), body: None };
                    questions.push((question, "Nobody.".to_owned()));
                }
            }
        }
        questions
    }
}

/// A relay with two customers, and everything that acme has.
struct World {
    device: Device,
    node: RunningNode,
    questions: Questions,
    /// Of acme: names, contexts, tags, tokens.
    acme: Names,
    acme_owner: String,
    other_owner: String,
}

impl World {
    #[track_caller]
    fn ask(&self, token: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Json>) -> HttpAnswer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (method, path, body) = (method.to_owned(), path.to_owned(), body.map(|body| body.to_string()));
        Question { method, path, headers, body }.ask(&self.node, Some(token))
    }

    #[track_caller]
    fn token(&self, words: &[&str]) -> String {
        self.device.ok(&[&["token", "create", "--role"], words].concat()).trim().to_owned()
    }

    fn new() -> Self {
        let device = Device::blank("relay");
        let node = device.start_relay(&[]);
        let document = Http::connect(node.http()).ask("GET", "/openapi.json", &[]).expect(200).json();
        let (acme, questions) = (Names::new(), Questions { document });
        let (acme_owner, other_owner) = (String::new(), String::new());
        let mut world = Self { device, node, questions, acme, acme_owner, other_owner };
        world.acme_owner = world.token(&["owner", "--customer", "acme"]);
        world.other_owner = world.token(&["owner", "--customer", "other"]);
        for (owner, base) in [(world.acme_owner.clone(), ACME), (world.other_owner.clone(), OTHER)] {
            world.ask(&owner, "PUT", base, &[], None).expect(201);
        }
        let owner = world.acme_owner.clone();
        world.ask(&owner, "PUT", "/v1/customers/acme/databases/second", &[], None).expect(201);
        // The other customer has a database, a table and a row of the same names.
        world.ask(&world.other_owner, "PUT", &format!("{OTHER}/tables/todo/rows/k1"), &[], Some(json!({}))).expect(200);
        // What was wiped once leaves a job. Both are at the same revision: nothing is told from the other's by that.
        let job = world.ask(&owner, "DELETE", ACME, &[], None).expect(202).json()["job"].clone();
        world.ask(&world.other_owner, "DELETE", OTHER, &[], None).expect(202);
        let row = format!("{ACME}/tables/todo/rows/k1");
        let rows = json!({"rows": [
            {"key": "k1", "fields": {"text": SENTINEL}, "id": "acme-1"}, {"key": SENTINEL, "fields": {}},
        ]});
        world.ask(&owner, "POST", &format!("{ACME}/tables/todo"), &[], Some(rows)).expect(200);
        world.ask(&owner, "PUT", &format!("{ACME}/tables/{SENTINEL}/rows/a"), &[], Some(json!({}))).expect(200);
        let tag = world.ask(&owner, "GET", &row, &[], None).expect(200).header("etag").expect("one").to_owned();
        let client = [("Client-Id", SENTINEL)];
        let token = world.ask(&owner, "GET", &format!("{ACME}/changes"), &client, None).expect(200);
        let token = token.header("sync-token").expect("one").to_owned();
        world.acme = names(&[
            ("customer", "acme"),
            ("database", "notes"),
            ("table", "todo"),
            ("key", "k1"),
            ("id", "acme-1"),
            ("job", job.as_str().expect("an id")),
            ("context", tag.trim_matches('"')),
            ("If-Match", &tag),
            ("If-None-Match", "\"x\""),
            ("Sync-Token", &token),
            ("Client-Id", SENTINEL),
            ("Last-Event-ID", "1"),
        ]);
        world
    }

    /// Names of which nobody has anything, with what acme really has besides.
    fn nowhere(&self, names: &[(&'static str, &str)]) -> Names {
        let mut nowhere = self.acme.clone();
        nowhere.insert("job", SOME_ID.to_owned());
        nowhere.extend(names.iter().map(|(name, value)| (*name, (*value).to_owned())));
        nowhere
    }

    /// What is there, as its owner sees it.
    #[track_caller]
    fn all(&self) -> (String, Json) {
        let export = self.ask(&self.acme_owner, "GET", "/v1/customers/acme/export", &[], None).expect(200);
        let database = self.ask(&self.acme_owner, "GET", ACME, &[], None).expect(200).json();
        // Tokens are made on the way, as their audit tells.
        let of_tokens =
            |line: &&str| ["token", "audit"].iter().any(|kind| line.contains(&format!("\"record\":\"{kind}\"")));
        let export = String::from_utf8(export.body).expect("text");
        (export.lines().filter(|line| !of_tokens(line)).collect::<String>(), database)
    }

    /// Asks the same of what acme has and of what nobody has, and finds no difference.
    #[track_caller]
    fn cannot_tell(&self, who: &str, token: Option<&str>, nowhere: &Names, statuses: &[u16]) {
        let (of_acme, of_nobody) = (self.questions.about(&self.acme), self.questions.about(nowhere));
        assert!(of_acme.len() > 50 && of_acme.len() == of_nobody.len());
        for ((question, _), (nobodys, _)) in of_acme.iter().zip(&of_nobody) {
            let (answer, expected) = (question.ask(&self.node, token), nobodys.ask(&self.node, token));
            let what = format!("{who}: {question:?}");
            let (told, expected) = (said(&answer, &self.acme), said(&expected, nowhere));
            assert!(!told.contains(SENTINEL), "{what}: {told}");
            assert!([statuses, &[405]].concat().contains(&answer.status), "{what}: {told}");
            assert_eq!(told, expected, "{what}");
        }
    }
}

#[test]
fn what_is_somebody_elses_and_what_is_nobodys_are_answered_alike() {
    let world = World::new();
    let nobody = world.nowhere(&[("customer", "nobody"), ("database", "nothing"), ("table", "none"), ("key", "gone")]);
    let nothing = world.nowhere(&[("database", "nothing"), ("table", "none"), ("key", "gone")]);
    let before = world.all();

    for role in ["owner", "writer", "reader"] {
        let token = world.token(&[role, "--customer", "other"]);
        // A body that no query goes with, and an unknown member of a query where no database is named, are told as such.
        world.cannot_tell(&format!("a foreign {role}"), Some(&token), &nobody, &[404]);
        world.cannot_tell(&format!("a foreign {role}"), Some(&token), &nothing, &[404]);
        let token = world.token(&[role, "--customer", "other", "--database", "notes"]);
        world.cannot_tell(&format!("a foreign {role} of one database"), Some(&token), &nobody, &[404]);
    }
    // Of the same customer, and for another database of theirs: what is the customer's is refused, what is the other
    // database's is not there.
    for role in ["owner", "reader"] {
        let token = world.token(&[role, "--customer", "acme", "--database", "second"]);
        world.cannot_tell(&format!("a {role} of another database"), Some(&token), &nothing, &[403, 404]);
    }
    let revoked = world.token(&["owner", "--customer", "acme"]);
    world.device.ok(&["token", "revoke", revoked.split('_').nth(1).expect("an id")]);
    let expired = world.token(&["owner", "--customer", "acme", "--expires", "1s"]);
    let question = Question { method: "GET".to_owned(), path: ACME.to_owned(), headers: Vec::new(), body: None };
    eventually(PATIENCE, "it expires", || question.ask(&world.node, Some(&expired)).status == 401);
    let forged = format!("{}x", world.acme_owner);
    for (who, token) in [
        ("nobody", None),
        ("a revoked token", Some(revoked.as_str())),
        ("an expired token", Some(&expired)),
        ("a forged token", Some(&forged)),
        ("no token at all", Some("nonsense")),
    ] {
        world.cannot_tell(who, token, &nobody, &[401]);
    }
    assert_eq!(world.all(), before, "and nothing of it did anything");
}

#[test]
fn a_role_that_is_too_low_is_refused_whatever_is_asked_for() {
    let world = World::new();
    let before = world.all();
    let reader = world.token(&["reader", "--customer", "acme"]);
    let writer = world.token(&["writer", "--customer", "acme", "--database", "notes"]);
    let needs =
        |who: &str| ["writer", "owner"].into_iter().find(|role| who == format!("Takes a token of the role {role}."));
    let mut tried = 0;
    for (question, who) in world.questions.about(&world.acme) {
        // What is asked as nonsense may be told so before it is known what it would have taken.
        let is_nonsense = question.path.contains('?') || question.body.as_deref() == Some("{nonsense");
        for (token, refused) in [(&reader, needs(&who).is_some()), (&writer, needs(&who) == Some("owner"))] {
            if refused && !is_nonsense {
                let answer = question.ask(&world.node, Some(token));
                assert_eq!(answer.status, 403, "{question:?} {}", String::from_utf8_lossy(&answer.body));
                tried += 1;
            }
        }
    }
    assert!(tried > 20, "{tried}");
    // What a reader may ask for, as long as nothing is written by it.
    let row = json!({"table": "todo", "key": "k1", "op": "delete"});
    world.ask(&reader, "POST", &format!("{ACME}/sync"), &[], Some(json!({"changes": [row]}))).problem(403, "forbidden");
    let keys = json!({"keys": ["k1"]});
    let deletions = format!("{ACME}/tables/todo/deletions");
    world.ask(&reader, "POST", &deletions, &[], Some(keys)).problem(403, "forbidden");
    assert_eq!(world.all(), before, "and nothing of it did anything");
}

#[test]
fn what_came_from_another_tenant_opens_nothing_of_ones_own() {
    let world = World::new();
    let other = &world.other_owner;
    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: Option<Json>| {
        let answer = world.ask(other, method, &format!("{OTHER}{path}"), headers, body);
        assert!(!said(&answer, &Names::new()).contains(SENTINEL), "{method} {path}: {answer:?}");
        answer
    };
    let nobodys = Names::new();

    // Sync tokens, of either kind: a foreign one is no better than one that was made up.
    let foreign = world.acme["Sync-Token"].clone();
    let keys = |keys: &[&str]| Some(json!({"keys": keys}));
    let deletions = "/tables/todo/deletions";
    let of_acme = world.ask(&world.acme_owner, "POST", &format!("{ACME}{deletions}"), &[], keys(&[])).expect(200);
    let foreign_deletions = of_acme.header("sync-token").expect("one").to_owned();
    let own = ask("GET", "/changes", &[], None).expect(200).header("sync-token").expect("one").to_owned();
    let made_up = format!("{}A", &own[..own.len() - 2]);
    for (method, path, body) in
        [("GET", "/changes", None), ("POST", "/sync", Some(json!({"changes": []}))), ("POST", deletions, keys(&[]))]
    {
        let expected = said(&ask(method, path, &[("Sync-Token", &made_up)], body.clone()).expect(400), &nobodys);
        for token in [&foreign, &foreign_deletions] {
            let answer = ask(method, path, &[("Sync-Token", token)], body.clone()).problem(400, "bad-token");
            assert_eq!(said(&answer, &nobodys), expected);
        }
    }
    // Nor does one of the same customer for another database, or of another token.
    let second = world.ask(
        &world.acme_owner,
        "GET",
        "/v1/customers/acme/databases/second/changes",
        &[("Sync-Token", &foreign)],
        None,
    );
    second.problem(400, "bad-token");
    let reader = world.token(&["reader", "--customer", "acme"]);
    world.ask(&reader, "GET", &format!("{ACME}/changes"), &[("Sync-Token", &foreign)], None).problem(400, "bad-token");

    // A context or a tag of a row of the same name.
    let tag = world.acme["If-Match"].clone();
    let row = "/tables/todo/rows/k1";
    let expected = ask("PUT", row, &[("If-Match", "\"AQA\"")], Some(json!({}))).status;
    let answer = ask("PUT", row, &[("If-Match", &tag)], Some(json!({})));
    assert!([400, 412, 422].contains(&expected) && answer.status == 412, "{expected} {answer:?}");
    let context = world.acme["context"].clone();
    let rows = json!({"rows": [{"key": "k1", "fields": {"own": 1}, "context": context, "id": "acme-1"}]});
    // The id was used by acme; here it was not.
    let results = ask("POST", "/tables/todo", &[], Some(rows)).expect(200).json();
    assert_eq!(results["results"][0]["status"], "accepted", "{results}");

    // A device of the same name, and a position.
    let client = [("Client-Id", SENTINEL)];
    world.ask(other, "GET", &format!("{OTHER}/changes"), &client, None).expect(200);
    let clients = world.ask(other, "GET", &format!("{OTHER}/clients"), &[], None).expect(200).json();
    let seen: Vec<&Json> =
        clients["clients"].as_array().expect("a list").iter().filter(|one| one["client"] == SENTINEL).collect();
    assert_eq!(seen.len(), 1, "{clients}");
    assert_eq!(seen[0]["requests"], 1, "acme's are not counted: {clients}");
    let acmes = world.ask(&world.acme_owner, "GET", &format!("{ACME}/clients"), &[], None).expect(200).json();
    let of_acme =
        acmes["clients"].as_array().expect("a list").iter().find(|one| one["client"] == SENTINEL).expect("it");
    assert_eq!(of_acme["requests"], 1, "{acmes}");

    // An entry of somebody else's audit is a place in one's own, and no more than that.
    let acmes = world.ask(&world.acme_owner, "GET", "/v1/customers/acme/audit", &[], None).expect(200).json();
    let id = acmes["entries"][1]["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/customers/other/audit?after={id}");
    let told = world.ask(other, "GET", &path, &[], None).expect(200);
    let acme_token = world.acme_owner.split('_').nth(1).expect("an id");
    assert!(!String::from_utf8_lossy(&told.body).contains(acme_token), "{told:?}");
}

//! A phone app: what it shows, what it has not sent yet, and how far it is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};
use thence::relay::{Access, Relay};

use crate::house::Dice;
use crate::world::{sent, wanted};

/// A phone app: what it shows, what it has not sent yet, and how far it is.
pub struct Phone {
    pub name: usize,
    pub token: Option<String>,
    pub table: BTreeMap<(String, String), Map<String, Json>>,
    pub contexts: BTreeMap<(String, String), String>,
    pub outbox: Vec<Json>,
    written: u64,
}

impl Phone {
    pub fn new(name: usize) -> Self {
        let (table, contexts) = (BTreeMap::new(), BTreeMap::new());
        Self { name, token: None, table, contexts, outbox: Vec::new(), written: 0 }
    }

    /// Its user writes something; it is sent later.
    pub fn write(&mut self, dice: &mut Dice) {
        let (table, key) = (["notes", "tasks"][dice.below(2) as usize], format!("n{}", dice.below(9)));
        let at = (table.to_owned(), key.clone());
        self.written += 1;
        let (id, value) = (format!("{}-{}", self.name, self.written), dice.below(100));
        let mut row = match (dice.below(8), self.table.get(&at)) {
            (0, Some(_)) => json!({"op": "delete"}),
            (1, Some(_)) => json!({"op": "increment", "field": "count", "by": 1}),
            (2, Some(_)) => json!({"op": "patch", "fields": {"title": value}}),
            (op @ (3 | 4), Some(_)) => {
                json!({"op": if op == 3 { "add" } else { "remove" }, "field": "tags", "value": value % 4})
            }
            // Of what it is shown it changes one field, and repeats the others, whatever they are.
            (op @ (5 | 6), Some(shown)) => {
                let mut fields = shown.clone();
                fields.insert("title".to_owned(), value.into());
                json!({"op": if op == 5 { "put" } else { "patch" }, "fields": fields})
            }
            _ => json!({"op": "put", "fields": {"title": value, "of": self.name}}),
        };
        (row["table"], row["key"], row["id"]) = (table.into(), key.into(), id.into());
        if let Some(context) = self.contexts.get(&at) {
            row["context"] = context.clone().into();
        }
        self.outbox.push(row);
    }

    /// Sends what it has to send. An answer that is lost on the way makes it send the same again.
    pub async fn send(&mut self, relay: &Relay, access: &Access, dice: &mut Dice, increments: &mut BTreeSet<String>) {
        // One row can be there only once in a batch.
        let mut names = BTreeSet::new();
        let fits = |row: &&Json| names.insert((row["table"].to_string(), row["key"].to_string()));
        let batch: Vec<Json> = self.outbox.iter().take_while(fits).cloned().collect();
        let results = sent(relay, access, batch.clone()).await;
        assert_eq!(results.len(), batch.len(), "each row is answered for");
        for (row, result) in batch.iter().zip(&results) {
            let status = result["status"].as_str().expect("a status");
            // What is refused is about rows that others deleted.
            let is_gone = status == "rejected" && result["problem"]["status"] == 404;
            assert!(is_gone || ["accepted", "duplicate"].contains(&status), "{row}: {result}");
            if row["op"] == "increment" && status == "accepted" {
                let id = row["id"].as_str().expect("an id").to_owned();
                assert!(increments.insert(id), "an id takes effect once: {row}");
            }
        }
        if dice.below(3) > 0 {
            self.outbox.drain(..batch.len());
        }
    }

    /// Takes one page. Returns whether there is more.
    pub async fn pull(&mut self, relay: &Relay, access: &Access, limit: u64) -> bool {
        let (view, wanted) = (relay.view(access).expect("readable"), wanted(limit));
        let point = relay.position_of(access, &view, self.token.as_deref(), &wanted).expect("the token holds");
        let page = relay.page(access, &view, point, &wanted).expect("readable");
        let changes = page.body["changes"].as_array().expect("a list");
        assert!(changes.len() as u64 <= limit);
        for change in changes {
            let text = |name: &str| change[name].as_str().expect("text").to_owned();
            let at = (text("table"), text("key"));
            if change["op"] == "put" {
                self.table.insert(at.clone(), change["fields"].as_object().expect("fields").clone());
                self.contexts.insert(at, text("context"));
            } else {
                self.table.remove(&at);
                self.contexts.remove(&at);
            }
        }
        self.token = Some(page.token);
        page.body["more"].as_bool().expect("more or not")
    }
}

/// How a phone does what it is told when its sync point is of no use any more: what is not sent stays, and was written by
/// somebody who had seen nothing of what there is now.
pub async fn pull_or_begin_anew(phone: &mut Phone, relay: &Relay, access: &Access, limit: u64) -> bool {
    let (view, wanted) = (relay.view(access).expect("readable"), wanted(limit));
    if let Err(problem) = relay.position_of(access, &view, phone.token.as_deref(), &wanted) {
        assert_eq!(
            (problem.members["reason"].as_str(), problem.members["action"].as_str()),
            (Some("revision"), Some("wipe-local"))
        );
        phone.table.clear();
        phone.contexts.clear();
        phone.outbox.iter_mut().for_each(|row| _ = row.as_object_mut().expect("a row").remove("context"));
        phone.token = Some(problem.members["token"].as_str().expect("a fresh token").to_owned());
    }
    let more = phone.pull(relay, access, limit).await;
    let ages: BTreeSet<String> = phone.table.values().map(|row| row["age"].to_string()).collect();
    assert!(ages.len() <= 1, "phone {} shows a mixture of {ages:?}", phone.name);
    more
}

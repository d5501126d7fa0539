//! What can be asked with one method at one path, as far as a client has to know it.
//!
//! **Invariant**: what follows from the rest is not said again: paths name their parameters, and which problems can come
//! follows from who may ask, what is sent and where. It describes; the handlers decide.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::problem::ProblemCode;
use crate::model::Role;

/// Who may ask; later ones may also what those before them may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// Whoever likes to; a token is not even looked at.
    Anybody,
    /// Who has at least this role in the database that the path names.
    Member(Role),
    /// The administrator.
    Administrator,
}

/// What is answered when all is well.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    media_type: &'static str,
    schema: &'static str,
}

/// One method at one path.
#[derive(Clone, Debug)]
pub struct Operation {
    name: &'static str,
    summary: &'static str,
    /// What else a client has to know, as whole sentences.
    notes: &'static str,
    asker: Asker,
    query: Option<&'static str>,
    /// The schema of the body, and whether there has to be one.
    body: Option<(&'static str, bool)>,
    headers: Vec<&'static str>,
    tagged: bool,
    answers: Vec<Answer>,
    /// What can go wrong beyond what follows from the rest.
    further: Vec<ProblemCode>,
}

impl Operation {
    /// One of this name, which is a contract: programs that are generated from the document call it so.
    pub fn new(name: &'static str, summary: &'static str, asker: Asker) -> Self {
        let (headers, answers, further) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, summary, notes: "", asker, query: None, body: None, headers, tagged: false, answers, further }
    }

    /// This is to be known of it, too: whole sentences.
    pub fn notes(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }

    /// The members of that schema may be in the query.
    pub fn query(mut self, schema: &'static str) -> Self {
        self.query = Some(schema);
        self
    }

    /// It takes a body.
    pub fn takes(mut self, schema: &'static str) -> Self {
        self.body = Some((schema, true));
        self
    }

    /// It takes a body, or none.
    pub fn may_take(mut self, schema: &'static str) -> Self {
        self.body = Some((schema, false));
        self
    }

    /// It heeds that header of the request.
    pub fn heeds(mut self, header: &'static str) -> Self {
        self.headers.push(header);
        self
    }

    /// Its answers carry an `ETag`.
    pub fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    /// It is answered so, with JSON.
    pub fn gives(self, status: u16, schema: &'static str) -> Self {
        self.gives_as(status, "application/json", schema)
    }

    /// It is answered so.
    pub fn gives_as(mut self, status: u16, media_type: &'static str, schema: &'static str) -> Self {
        self.answers.push(Answer { status, media_type, schema });
        self
    }

    /// That can go wrong, too.
    pub fn may_fail(mut self, problem: ProblemCode) -> Self {
        self.further.push(problem);
        self
    }

    /// Who may ask so.
    #[cfg(test)]
    pub fn asker(&self) -> Asker {
        self.asker
    }

    fn does_heed(&self, header: &str) -> bool {
        self.headers.contains(&header)
    }

    /// What can go wrong with it at this path.
    pub fn problems(&self, path: &str) -> BTreeSet<ProblemCode> {
        use ProblemCode::{
            BadToken, Changed, Forbidden, Gone, HeadersTooLarge, Internal, Invalid, Malformed, MediaType, NotFound,
            Timeout, TooLarge, TooManyRequests, Unauthenticated, Unavailable,
        };
        // These come before anybody has looked at what is asked.
        let mut problems =
            BTreeSet::from([Malformed, Timeout, TooLarge, TooManyRequests, HeadersTooLarge, Internal, Unavailable]);
        let mut when = |holds: bool, codes: &[ProblemCode]| problems.extend(codes.iter().filter(|_| holds));
        when(self.asker != Asker::Anybody, &[Unauthenticated]);
        when(!matches!(self.asker, Asker::Anybody | Asker::Member(Role::Reader)), &[Forbidden]);
        when(path.contains('{'), &[NotFound]);
        when(path.contains("{table}"), &[Invalid]);
        when(self.body.is_some(), &[MediaType, Invalid]);
        when(self.does_heed("If-Match"), &[Changed]);
        when(self.does_heed("Sync-Token"), &[BadToken, Gone]);
        when(true, &self.further);
        problems
    }

    /// What the document says of it. `members` are those of a schema, as parameters of a query.
    pub fn document(&self, path: &str, members: impl Fn(&str) -> Vec<Json>) -> Json {
        let component = |kind: &str, name: &str| json!({"$ref": format!("#/components/{kind}/{name}")});
        let schema = |name: &str| component("schemas", name);
        let in_path = path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        let named = in_path.chain(self.headers.iter().copied()).chain(["Request-Id"]);
        let mut parameters: Vec<Json> = named.map(|name| component("parameters", name)).collect();
        parameters.extend(self.query.into_iter().flat_map(members));

        let header = |name: &str| (name.to_owned(), component("headers", name));
        let mut headers = Map::from_iter([header("Request-Id")]);
        headers.extend(self.tagged.then(|| header("ETag")));
        let headers_unchanged = headers.clone();
        headers.extend(self.does_heed("Sync-Token").then(|| header("Sync-Token")));
        let mut responses: Map<String, Json> = (self.answers.iter())
            .map(|Answer { status, media_type, schema: name }| {
                let content = json!({*media_type: {"schema": schema(name)}});
                (status.to_string(), json!({"description": "Done.", "headers": headers, "content": content}))
            })
            .collect();
        if self.does_heed("If-None-Match") {
            let unchanged = json!({"description": "It has not changed.", "headers": headers_unchanged});
            responses.insert("304".to_owned(), unchanged);
        }
        for problem in self.problems(path) {
            let status = problem.status().to_string();
            responses.insert(status.clone(), component("responses", &status));
        }

        let description = format!("{} {}", self.who(), self.notes);
        let mut document = json!({
            "operationId": self.name,
            "summary": self.summary,
            "description": description.trim_end(),
            "parameters": parameters,
            "responses": responses,
            "security": match self.asker {
                Asker::Anybody => json!([]),
                // A database can be open to all who read.
                Asker::Member(Role::Reader) => json!([{"bearer": []}, {}]),
                Asker::Member(_) | Asker::Administrator => json!([{"bearer": []}]),
            },
        });
        if let Some((name, required)) = self.body {
            let content = json!({"application/json": {"schema": schema(name)}});
            document["requestBody"] = json!({"required": required, "content": content});
        }
        document
    }

    fn who(&self) -> String {
        match self.asker {
            Asker::Anybody => "Open to all.".to_owned(),
            Asker::Member(Role::Reader) => {
                "Takes a token that reaches the database, or none if that is public.".to_owned()
            }
            Asker::Member(role) => format!("Takes a token of the role {role}."),
            Asker::Administrator => "Takes the administrator's token.".to_owned(),
        }
    }
}

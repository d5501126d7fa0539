//! What the relay can be asked, for machines: OpenAPI 3.1.
//!
//! **Invariant**: the router and the document are made of one list of routes, so neither has what the other lacks.
//!
//! **Absent here**: HEAD, which every GET answers too, and the answers to what no operation names, such as 405.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::problem::ProblemCode;
use super::routes::Route;
use super::schemas::schemas;

/// The document of these routes.
pub fn document(routes: &[Route]) -> Json {
    let schemas = schemas();
    let in_query = |name: &str| parameters_of_query(&schemas[name]);
    let mut problems = BTreeMap::new();
    let mut paths = Map::new();
    for Route { path, operations, .. } in routes {
        let mut methods = Map::new();
        for (method, operation) in operations {
            methods.insert((*method).to_owned(), operation.document(path, in_query));
            problems.extend(operation.problems(path).into_iter().map(|code| (code.status(), code)));
        }
        paths.insert(path.clone(), methods.into());
    }
    let responses: Map<String, Json> =
        problems.into_values().map(|code| (code.status().to_string(), response(code))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "thence relay",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A relay of thence: rows of many tenants, kept in step with thin clients and full nodes.",
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters(),
            "headers": headers(),
            "responses": responses,
            "securitySchemes": {"bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "`thence token create` makes one; the administrator's is in the data folder.",
            }},
        },
    })
}

fn parameters_of_query(schema: &Json) -> Vec<Json> {
    let parameter = |(name, schema): (&String, &Json)| json!({"name": name, "in": "query", "schema": schema});
    schema["properties"].as_object().into_iter().flatten().map(parameter).collect()
}

fn parameters() -> Json {
    let in_path = |name: &str, schema: &str| {
        let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    };
    let header = |name: &str, description: &str, pattern: &str| {
        let schema = json!({"type": "string", "pattern": pattern});
        json!({"name": name, "in": "header", "description": description, "schema": schema})
    };
    const TAG: &str = "^\"[A-Za-z0-9_-]+\"$";
    json!({
        "customer": in_path("customer", "Name"),
        "database": in_path("database", "Name"),
        "table": in_path("table", "Name"),
        "key": in_path("key", "Key"),
        "job": in_path("job", "JobId"),
        "If-Match": header("If-Match", "An ETag: it is done only if that is still the one.", TAG),
        "If-None-Match": {
            "name": "If-None-Match",
            "in": "header",
            "description": "ETags: nothing is sent if one of them is still the one.",
            "schema": {"type": "string"},
        },
        "Sync-Token": header("Sync-Token", "The `token` of the last answer; none to begin anew.", "^[A-Za-z0-9_-]+$"),
        "Client-Id": header("Client-Id", "Which device it is, for those who run the relay.", "^[!-~]{1,128}$"),
        "Last-Event-ID": header("Last-Event-ID", "The `id` of the last event.", "^[0-9]{1,19}$"),
        "Request-Id": {
            "name": "Request-Id",
            "in": "header",
            "description": "What the request is called in the log. Other than 1 to 64 letters, digits and `-._:` it is \
                            replaced.",
            "schema": {"type": "string"},
        },
    })
}

fn headers() -> Json {
    let header = |description: &str, schema: Json| json!({"description": description, "schema": schema});
    let text = || json!({"type": "string"});
    json!({
        "ETag": header("Changes whenever the thing does.", text()),
        "Sync-Token": header("The same as `token` in the body.", text()),
        "Request-Id": header("What the request is called in the log.", text()),
        "Retry-After": header("After how many seconds to ask again.", json!({"type": "integer", "minimum": 0})),
        "WWW-Authenticate": header("How to show a token.", text()),
    })
}

/// What is answered when something goes wrong.
fn response(code: ProblemCode) -> Json {
    let mut headers = vec!["Request-Id"];
    match code {
        ProblemCode::Unauthenticated => headers.push("WWW-Authenticate"),
        ProblemCode::Gone => headers.extend(["Retry-After", "Sync-Token"]),
        ProblemCode::TooLarge
        | ProblemCode::TooManyRequests
        | ProblemCode::Unavailable
        | ProblemCode::QuotaExceeded => headers.push("Retry-After"),
        _ => {}
    }
    let header = |name: &str| (name.to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
    let headers: Map<String, Json> = headers.into_iter().map(header).collect();
    let content = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    json!({"description": code.title(), "headers": headers, "content": content})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
    use axum::http::{Method, Request, Response};
    use serde::Deserialize;
    use tower_service::Service as _;

    use super::super::operation::Asker;
    use super::super::routes::{routes, table};
    use super::super::row::RowChange;
    use super::super::schemas::names_of;
    use super::super::{Keys, Relay, Scope, api};
    use super::*;
    use crate::model::Role;
    use crate::node::{DataFolder, Node, NodeConfig};

    const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

    async fn relay(folder: &std::path::Path) -> Arc<Relay> {
        let folder = DataFolder::new(folder.join("data"));
        folder.init().expect("a fresh folder");
        let mut config = NodeConfig::new(folder.claim_for_node(Duration::from_secs(10)).expect("it is free"));
        config.listen = Some("127.0.0.1:0".parse().expect("an address"));
        let node = Node::open(config).await.expect("it opens");
        let relay = Relay::open(&node, Keys::in_memory()).await.expect("it opens");
        let (customer, database) = ("acme".parse().expect("a name"), "notes".parse().expect("a name"));
        let (database, _) = relay.tenants().register(&customer, &database, None).await.expect("it can be registered");
        node.wipe(database.space, None).await.expect("its owner");
        Arc::new(relay)
    }

    async fn token(relay: &Relay, customer: Option<&str>, role: Role) -> String {
        let customer = customer.map(|customer| customer.parse().expect("a name"));
        let scope = Scope { customer, database: None, role };
        relay.tenants().create_token(scope, None).await.expect("a token").0
    }

    async fn ask(
        relay: &Arc<Relay>,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Json>,
    ) -> Response<Body> {
        let job = relay.node().removals().expect("readable")[0].id();
        let mut path = path.replace("{job}", &job);
        for (name, value) in [("customer", "acme"), ("database", "notes"), ("table", "t"), ("key", "k")] {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        let mut request = Request::builder().uri(path).method(method.to_uppercase().parse::<Method>().expect("one"));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map(|body| Body::from(body.to_string()));
        let request = request.header(CONTENT_TYPE, "application/json").body(body.unwrap_or_default());
        let answer = routes(relay, &Arc::default()).call(request.expect("a request")).await;
        answer.expect("a router does not fail")
    }

    /// The least that fits a schema of a request.
    fn least(schemas: &Json, schema: &Json) -> Json {
        let schema = schema["$ref"].as_str().map_or(schema, |at| {
            schemas.pointer(at.strip_prefix("#/components/schemas").expect("a schema")).expect("it is there")
        });
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
        match schema["type"].as_str() {
            Some("object") => {
                required.map(|name| (name.to_owned(), least(schemas, &schema["properties"][name]))).collect()
            }
            Some("array") => json!([]),
            _ => schema["enum"][0].clone(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_documented_is_routed_and_the_other_way_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let relay = relay(folder.path()).await;
        let document = document(&table());
        for (path, documented) in document["paths"].as_object().expect("paths") {
            let documented: BTreeSet<&str> =
                documented.as_object().expect("methods").keys().map(String::as_str).collect();
            for method in METHODS {
                let answer = ask(&relay, method, path, None, None).await;
                assert_eq!(answer.status() != 405, documented.contains(method), "{method} {path}: {}", answer.status());
            }
            let allow =
                ask(&relay, "trace", path, None, None).await.headers()[ALLOW].to_str().expect("text").to_lowercase();
            let allowed: BTreeSet<&str> = allow.split(',').filter(|method| *method != "head").collect();
            assert_eq!(allowed, documented, "{path}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_may_ask_is_as_documented() {
        let folder = tempfile::tempdir().expect("a folder");
        let relay = relay(folder.path()).await;
        let schemas = Json::Object(schemas());
        let document = document(&table());
        let askers = [
            (Asker::Anybody, None),
            (Asker::Member(Role::Reader), Some(token(&relay, Some("acme"), Role::Reader).await)),
            (Asker::Member(Role::Writer), Some(token(&relay, Some("acme"), Role::Writer).await)),
            (Asker::Member(Role::Owner), Some(token(&relay, Some("acme"), Role::Owner).await)),
            (Asker::Administrator, Some(token(&relay, None, Role::Owner).await)),
        ];
        for Route { path, operations, .. } in table() {
            for (method, operation) in operations {
                let documented = &document["paths"][&path][method];
                let body = documented.pointer("/requestBody/content/application~1json/schema");
                let body = body.map(|schema| least(&schemas, schema));
                for (asker, token) in &askers {
                    let status = ask(&relay, method, &path, token.as_deref(), body.as_ref()).await.status().as_u16();
                    let expected = match asker {
                        asker if *asker >= operation.asker() => None,
                        Asker::Anybody => Some(401),
                        _ => Some(403),
                    };
                    let what = format!("{method} {path} by {asker:?}");
                    assert_eq!(Some(status).filter(|status| matches!(status, 401 | 403)), expected, "{what}");
                    assert!(documented["responses"].get(status.to_string()).is_some(), "{what}: {status}");
                }
            }
        }
    }

    #[test]
    fn every_name_in_it_leads_somewhere_and_nothing_is_left_over() {
        fn named<'a>(part: &'a Json, names: &mut BTreeSet<&'a str>) {
            match part {
                Json::Object(members) => {
                    names.extend(members.get("$ref").and_then(Json::as_str));
                    members.values().for_each(|part| named(part, names));
                }
                Json::Array(items) => items.iter().for_each(|part| named(part, names)),
                _ => {}
            }
        }
        let document = document(&table());
        let mut names = BTreeSet::new();
        named(&document, &mut names);
        for name in &names {
            assert!(document.pointer(&name[1..]).is_some(), "{name} leads nowhere");
        }
        let components = document["components"].as_object().expect("kinds");
        for (kind, components) in components.iter().filter(|(kind, _)| *kind != "securitySchemes") {
            for name in components.as_object().expect("components").keys().filter(|name| !name.ends_with("Query")) {
                assert!(
                    names.contains(format!("#/components/{kind}/{name}").as_str()),
                    "nothing leads to {kind}/{name}"
                );
            }
        }
        let operations: Vec<&Json> = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|path| path.as_object().expect("methods").values())
            .collect();
        let called: BTreeSet<&str> =
            operations.iter().filter_map(|operation| operation["operationId"].as_str()).collect();
        assert_eq!(called.len(), operations.len(), "two operations are called the same");
        let of_gone = document["components"]["responses"]["410"]["headers"].as_object().expect("headers");
        assert!(of_gone.contains_key("Sync-Token") && of_gone.contains_key("Retry-After"), "{of_gone:?}");
    }

    #[test]
    fn requests_have_the_members_that_are_read() {
        fn check<'de, T: Deserialize<'de>>(schemas: &Map<String, Json>, name: &str) {
            let documented: BTreeSet<&str> =
                schemas[name]["properties"].as_object().expect("members").keys().map(String::as_str).collect();
            assert_eq!(documented, names_of::<T>().iter().copied().collect(), "{name}");
        }
        let schemas = schemas();
        check::<api::Registration>(&schemas, "Registration");
        check::<api::UploadQuery>(&schemas, "UploadQuery");
        check::<api::Rows>(&schemas, "Rows");
        check::<RowChange>(&schemas, "RowChange");
        check::<api::DeleteQuery>(&schemas, "DeleteQuery");
        check::<api::Keys>(&schemas, "Keys");
        check::<api::ManifestQuery>(&schemas, "ManifestQuery");
        check::<api::ChangesQuery>(&schemas, "ChangesQuery");
        check::<crate::relay::TableSettings>(&schemas, "TableSettings");
        check::<crate::relay::AuditQuery>(&schemas, "AuditQuery");
        check::<api::SyncBody>(&schemas, "Sync");
        check::<api::InviteBody>(&schemas, "Invitation");
    }
}

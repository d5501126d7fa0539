//! Access tokens and sync tokens: what they open, and what else.

use std::time::Duration;

use serde_json::{Value as Json, json};
use thence::model::{CollectionName, Role};
use thence::node::DataFolder;
use thence::relay::http::{HttpConfig, HttpServer};
use thence::relay::{Access, Deleting, Principal, ProblemCode, Relay, Scope, Visibility, Wanted, routes};

use crate::phone::Phone;
use crate::world::{bearer, close, register, relay, sent, visible, wanted, writer};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_it_is_for_and_everything_else_is_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    register(&relay, "other", "notes").await;
    let code = |principal: &Principal, customer: &str, database: &str, need: Role| {
        relay.enter(principal.clone(), customer, database, need).map(drop).map_err(|problem| problem.code)
    };
    let reader = bearer(&relay, Some("acme"), Role::Reader).await;
    assert_eq!(code(&reader, "acme", "notes", Role::Reader), Ok(()));
    assert_eq!(code(&reader, "acme", "notes", Role::Writer), Err(ProblemCode::Forbidden));
    for (customer, database) in [("other", "notes"), ("acme", "none"), ("nobody", "notes"), ("a/b", ""), ("", "..")] {
        assert_eq!(
            code(&reader, customer, database, Role::Reader),
            Err(ProblemCode::NotFound),
            "{customer}/{database}"
        );
    }
    let anybody = Principal::Anybody;
    assert_eq!(code(&anybody, "acme", "notes", Role::Reader), Err(ProblemCode::Unauthenticated));
    assert_eq!(
        code(&anybody, "acme", "none", Role::Reader),
        Err(ProblemCode::Unauthenticated),
        "as where there is none"
    );
    let names = ("acme".parse().expect("a name"), "notes".parse().expect("a name"));
    relay.tenants().register(&names.0, &names.1, Some(Visibility::PublicRead)).await.expect("it is known");
    assert_eq!(code(&anybody, "acme", "notes", Role::Reader), Ok(()));
    assert_eq!(code(&anybody, "acme", "notes", Role::Writer), Err(ProblemCode::Unauthenticated));
    assert_eq!(code(&bearer(&relay, Some("other"), Role::Owner).await, "acme", "notes", Role::Reader), Ok(()));
    assert_eq!(code(&bearer(&relay, None, Role::Owner).await, "other", "notes", Role::Owner), Ok(()));

    // Tokens that are forged, ended, or over.
    let scope = Scope { customer: None, database: None, role: Role::Owner };
    let (text, token) = relay.tenants().create_token(scope.clone(), None).await.expect("a token");
    assert!(relay.tenants().authenticate(&text).is_ok());
    let forged = format!("{}0", &text[..text.len() - 1]);
    for text in [forged.as_str(), "", "thence_", "thence__", &text[1..]].into_iter().filter(|forged| *forged != text) {
        assert_eq!(
            relay.tenants().authenticate(text).map_err(|problem| problem.code),
            Err(ProblemCode::Unauthenticated)
        );
    }
    assert!(relay.tenants().revoke_token(&token.id).await.expect("it works"));
    assert!(relay.tenants().authenticate(&text).is_err());
    let (over, _) = relay.tenants().create_token(scope, Some(1)).await.expect("a token");
    assert!(relay.tenants().authenticate(&over).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_token_of_another_serves_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    register(&relay, "acme", "more").await;
    register(&relay, "other", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let mut phone = Phone::new(1);
    phone.pull(&relay, &access, 1).await;
    let token = phone.token.expect("a token");
    let code = |access: &Access, token: &str, wanted: &Wanted| {
        let view = relay.view(access).expect("readable");
        relay
            .position_of(access, &view, Some(token), wanted)
            .map(drop)
            .map_err(|problem| (problem.code, problem.members.get("reason").and_then(Json::as_str).map(str::to_owned)))
    };
    assert_eq!(code(&access, &token, &wanted(1)), Ok(()));
    let bad = Err((ProblemCode::BadToken, None));
    assert_eq!(code(&writer(&relay, "acme", "notes").await, &token, &wanted(1)), bad, "another principal");
    assert_eq!(code(&writer(&relay, "acme", "more").await, &token, &wanted(1)), bad, "another database");
    assert_eq!(code(&writer(&relay, "other", "notes").await, &token, &wanted(1)), bad, "another customer");
    assert_eq!(code(&access, "nonsense", &wanted(1)), bad);
    let filtered = Wanted::parse(Some("notes,tasks"), None).expect("names");
    assert_eq!(code(&access, &token, &filtered), Err((ProblemCode::Gone, Some("filter".to_owned()))));
    let view = relay.view(&access).expect("readable");
    let gone = relay.position_of(&access, &view, Some(&token), &filtered).expect_err("another filter");
    assert_eq!(gone.members["action"], "resync-keep-outbox");
    let fresh = gone.members["token"].as_str().expect("a fresh token");
    assert_eq!(code(&access, fresh, &filtered), Ok(()));
}

/// Customers and tokens are in a space of their own, and with them all that is reached through them.
#[tokio::test(flavor = "multi_thread")]
async fn customers_and_tokens_are_there_after_a_restore() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = relay(&folder).await;
    register(&here, "acme", "notes").await;
    let access = writer(&here, "acme", "notes").await;
    sent(&here, &access, vec![json!({"table": "notes", "key": "n1", "fields": {}})]).await;
    let mut phone = Phone::new(1);
    while phone.pull(&here, &access, 1).await {}
    let mut backup = Vec::new();
    let mut keep = |piece: &[u8]| {
        backup.extend_from_slice(piece);
        std::ops::ControlFlow::Continue(())
    };
    here.node().back_up(&mut keep).expect("readable");
    close(here).await;
    let file = folder.path().join("backup");
    std::fs::write(&file, backup).expect("a file");
    let data = DataFolder::new(folder.path().join("data"));
    let wait = Duration::from_secs(10);
    for is_repair in [false, true] {
        if is_repair {
            data.repair(wait, 1 << 20).expect("it can be repaired");
        } else {
            data.restore(&file, wait, 1 << 20, &mut |_| ()).expect("it can be restored");
        }
        let here = relay(&folder).await;
        let access = here.enter(access.principal.clone(), "acme", "notes", Role::Writer).expect("it is known");
        assert_eq!(visible(&here, &access).len(), 1);
        assert_eq!(gone(&here, &access, &phone), "epoch");
        close(here).await;
    }
}

/// Why a relay does not take a phone's token any more.
fn gone(relay: &Relay, access: &Access, phone: &Phone) -> String {
    let view = relay.view(access).expect("readable");
    let problem = relay.position_of(access, &view, phone.token.as_deref(), &wanted(1)).expect_err("not any more");
    assert_eq!(problem.code, ProblemCode::Gone);
    problem.members["reason"].as_str().expect("text").to_owned()
}

/// Nobody but the client can tell: the lease holds, and there is no peer.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn who_is_further_than_a_folder_that_was_put_back_with_all_its_times_begins_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = relay(&folder).await;
    register(&here, "acme", "notes").await;
    let access = writer(&here, "acme", "notes").await;
    close(here).await;
    let files =
        || std::fs::read_dir(folder.path().join("data")).expect("a folder").map(|file| file.expect("a file").path());
    // A second name for each file, so that it is the same file that comes back, and not a copy.
    let aside = folder.path().join("aside");
    std::fs::create_dir(&aside).expect("a folder");
    let before: Vec<_> = (files().filter(|path| path.is_file()))
        .map(|path| {
            let modified = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
            let same = aside.join(path.file_name().expect("a name"));
            std::fs::hard_link(&path, &same).expect("a second name");
            (std::fs::read(&path).expect("readable"), modified, path, same)
        })
        .collect();
    let here = relay(&folder).await;
    sent(&here, &access, vec![json!({"table": "notes", "key": "n1", "fields": {}})]).await;
    let (mut phone, epoch) = (Phone::new(1), here.epoch());
    while phone.pull(&here, &access, 1).await {}
    close(here).await;
    for (content, modified, path, same) in before {
        std::fs::rename(same, &path).expect("it was there");
        std::fs::write(&path, content).expect("writable");
        let file = std::fs::File::options().append(true).open(&path).expect("a file");
        file.set_modified(modified).expect("a time");
    }
    let here = relay(&folder).await;
    assert_eq!(here.epoch(), epoch, "it cannot be seen from here");
    assert_eq!(gone(&here, &access, &phone), "epoch");
    close(here).await;
}

/// The status of the answer to a request that is sent as it stands.
async fn status(address: std::net::SocketAddr, request: &str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("it answers");
    std::str::from_utf8(&answer[9..]).expect("digits").parse().expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_matters_before_what_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = std::sync::Arc::new(relay(&folder).await);
    register(&relay, "acme", "notes").await;
    let scope = |customer: &str| Scope { customer: customer.parse().ok(), database: None, role: Role::Writer };
    let (own, _) = relay.tenants().create_token(scope("acme"), None).await.expect("a token");
    let (other, _) = relay.tenants().create_token(scope("other"), None).await.expect("a token");
    let http = HttpServer::bind(HttpConfig::new("127.0.0.1:0".parse().expect("an address"))).await.expect("it is free");
    let (address, router) = (http.local_address(), routes(&relay, &http.metrics()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(http.serve(router, async move { _ = stopped.await }));
    let base = "/v1/customers/acme/databases/notes";
    let body = "Content-Type: application/json\r\nContent-Length: 1\r\n\r\n{";
    let unread = "Content-Type: application/json\r\nContent-Length: 8000000\r\n\r\n";
    for (rest, own_status) in [
        (format!("POST {base}/sync HTTP/1.1\r\n<>{body}"), 400),
        (format!("PUT {base}/tables/t/rows/k HTTP/1.1\r\n<>{body}"), 400),
        (format!("PUT {base} HTTP/1.1\r\n<>{body}"), 400),
        (format!("GET {base}/changes?limit=x HTTP/1.1\r\n<>\r\n"), 400),
        (format!("POST {base}/tables/t HTTP/1.1\r\n<>{unread}"), 0),
    ] {
        let with = |token: Option<&str>| {
            let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
            rest.replace("<>", &format!("Host: relay\r\n{token}"))
        };
        assert_eq!(status(address, &with(None)).await, 401, "{rest}");
        assert_eq!(status(address, &with(Some("thence_none_none"))).await, 401, "{rest}");
        assert_eq!(status(address, &with(Some(&other))).await, 404, "{rest}");
        if own_status > 0 {
            assert_eq!(status(address, &with(Some(&own))).await, own_status, "{rest}");
        }
    }
    let _ = stop.send(());
    serving.await.expect("it ends");
    relay.node().clone().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrators_token_is_made_once_and_anew_where_it_is_not_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let (relay, file) = (relay(&folder).await, folder.path().join("administrator.token"));
    let text = || std::fs::read_to_string(&file).expect("a token");
    relay.make_administrator(&file).await.expect("it can be written");
    let first = text();
    relay.make_administrator(&file).await.expect("it is there");
    assert_eq!(text(), first);
    let Principal::Token(token) = relay.tenants().authenticate(first.trim()).expect("known") else {
        panic!("a token is somebody's")
    };
    relay.tenants().revoke_token(&token.id).await.expect("it works");
    relay.make_administrator(&file).await.expect("it can be written");
    assert_ne!(text(), first);
    assert!(relay.tenants().authenticate(text().trim()).is_ok());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_call_is_none_whatever_else_is_wrong_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    sent(&relay, &access, vec![json!({"table": "notes", "key": "n1", "fields": {}})]).await;
    let notes = CollectionName::user("notes").expect("a name");
    let of_deletions = relay.deletions(&access, &notes, None, &Deleting::default()).expect("readable").token;
    let mut phone = Phone::new(1);
    phone.pull(&relay, &access, 1).await;
    for is_wiped in [false, true] {
        if is_wiped {
            let owner = bearer(&relay, Some("acme"), Role::Owner).await;
            let owner = relay.enter(owner, "acme", "notes", Role::Owner).expect("its owner");
            relay.wipe(&owner, None).await.expect("its owner");
        }
        let view = relay.view(&access).expect("readable");
        for tables in [None, Some("notes"), Some("tasks")] {
            let wanted = Wanted::parse(tables, None).expect("names");
            let problem = relay.position_of(&access, &view, Some(&of_deletions), &wanted).expect_err("another call's");
            assert_eq!(problem.code, ProblemCode::BadToken, "{tables:?} {is_wiped}");
        }
        let problem = relay.deletions(&access, &notes, phone.token.as_deref(), &Deleting::default());
        assert_eq!(problem.expect_err("another call's").code, ProblemCode::BadToken, "{is_wiped}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_token_is_older_than_the_keys_begins_anew_and_keeps_what_is_unsent() {
    use data_encoding::BASE64URL_NOPAD;
    let folder = tempfile::tempdir().expect("a folder");
    // What was numbered before has done its time.
    let now_ms = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_millis();
    std::fs::write(folder.path().join("keys"), format!("7 {now_ms} {}\n", "5a".repeat(32))).expect("a file");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let notes = CollectionName::user("notes").expect("a name");
    let mut phone = Phone::new(1);
    phone.pull(&relay, &access, 1).await;
    let token = phone.token.expect("a token");
    let of_key = |number: u32| {
        let mut bytes = BASE64URL_NOPAD.decode(token.as_bytes()).expect("base64");
        bytes[1..5].copy_from_slice(&number.to_be_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    };
    assert_eq!(of_key(7), token);
    let view = relay.view(&access).expect("readable");
    for (number, code) in
        [(0, ProblemCode::BadToken), (1, ProblemCode::Gone), (6, ProblemCode::Gone), (8, ProblemCode::BadToken)]
    {
        let (text, wanted) = (of_key(number), wanted(1));
        let changes = relay.position_of(&access, &view, Some(&text), &wanted).expect_err("it cannot be read");
        let deletions = relay.deletions(&access, &notes, Some(&text), &Deleting::default()).expect_err("nor here");
        assert_eq!((changes.code, deletions.code), (code, code), "{number}");
        if code == ProblemCode::Gone {
            assert_eq!(
                (&changes.members["reason"], &changes.members["action"]),
                (&json!("retention"), &json!("resync-keep-outbox"))
            );
            let fresh = changes.members["token"].as_str().expect("a fresh token");
            assert!(relay.position_of(&access, &view, Some(fresh), &wanted).is_ok());
            let fresh = deletions.members["token"].as_str().expect("a fresh token");
            assert!(relay.deletions(&access, &notes, Some(fresh), &Deleting::default()).is_ok());
        }
    }
}

//! The client against servers that answer as a test says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking, and so do their helpers")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bailiwick_ironic::{
    Authentication, Client, Error, NodeQuery, Options, Patch, Power, Provision, Secret, Step,
};
use serde_json::{Value, json};
use uuid::Uuid;

mod support;
use support::{Asked, Said, Scripted, quick};

const NODE: Uuid = Uuid::from_u128(1);

fn node() -> Value {
    json!({"uuid": NODE, "provision_state": "available"})
}

fn body(asked: &Asked) -> Value {
    serde_json::from_str(&asked.body).unwrap()
}

#[tokio::test]
async fn the_version_is_agreed_on_once_and_named_with_every_request() {
    let server = Scripted::start(|asked| match asked.target.as_str() {
        "/v1/" => Some(Said::json(&json!({})).newest("1.95")),
        _ => Some(Said::json(&node())),
    })
    .await;
    let client = server.client();
    client.node("a").await.unwrap();
    client.node("b").await.unwrap();
    assert_eq!(server.negotiations(), 1);
    let versions: Vec<_> = server
        .asked()
        .iter()
        .map(|a| a.header("x-openstack-ironic-api-version").map(str::to_owned))
        .collect();
    assert_eq!(versions, [Some("1.95".to_owned()), Some("1.95".to_owned())]);
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_both_versions() {
    let server = Scripted::start(|_| Some(Said::json(&json!({})).newest("1.72"))).await;
    let error = server.client().node("a").await.unwrap_err();
    assert_eq!(error.code(), "ironic.version-unsupported");
    assert_eq!(error.to_string(), "Ironic's API goes up to 1.72, and 1.81 is needed");
}

#[tokio::test]
async fn a_406_of_a_server_that_was_exchanged_agrees_on_a_version_anew_and_asks_again() {
    let downgraded = AtomicUsize::new(0);
    let server = Scripted::start(move |asked| match asked.target.as_str() {
        "/v1/" if downgraded.fetch_add(1, Ordering::Relaxed) == 0 => {
            Some(Said::json(&json!({})).newest("1.115"))
        }
        "/v1/" => Some(Said::json(&json!({})).newest("1.90")),
        _ if asked.header("x-openstack-ironic-api-version") == Some("1.90") => Some(Said::json(&node())),
        _ => Some(Said::error(406, "Version 1.115 was requested but the minor version is not supported")),
    })
    .await;
    let client = server.client();
    client.patch_node(NODE, &Patch::new().set(&["extra", "a"], 1)).await.unwrap();
    assert_eq!(client.version().await.unwrap().to_string(), "1.90");
}

#[tokio::test]
async fn a_406_for_another_reason_is_not_repeated() {
    let server = Scripted::start(|asked| match asked.method.as_str() {
        "PUT" => Some(Said::error(406, "Request not acceptable.")),
        _ => None,
    })
    .await;
    let error = server.client().provision(NODE, &Provision::Abort).await.unwrap_err();
    assert_eq!(error.code(), "ironic.not-acceptable");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn something_else_than_ironic_is_recognised() {
    let page = Said { status: 200, headers: Vec::new(), body: b"<html>Welcome to nginx!</html>".to_vec() };
    let server = Scripted::start(move |_| Some(page.clone())).await;
    assert_eq!(server.client().node("a").await.unwrap_err().code(), "ironic.not-ironic");
}

#[tokio::test]
async fn a_node_that_ironic_does_not_have_is_none_and_a_proxys_404_is_an_error() {
    let server = Scripted::start(|asked| {
        Some(match asked.target.as_str() {
            "/v1/nodes/gone" => Said::error(404, "Node gone could not be found."),
            "/v1/nodes/proxy" => Said::new(404, "default backend - 404"),
            _ => return None,
        })
    })
    .await;
    let client = server.client();
    assert!(client.node("gone").await.unwrap().is_none());
    assert_eq!(client.node("proxy").await.unwrap_err().code(), "ironic.not-ironic");
}

#[tokio::test]
async fn an_api_that_is_not_there_does_not_say_that_a_node_is_gone() {
    let server = Scripted::start(|_| Some(Said::error(404, "The resource could not be found."))).await;
    assert_eq!(server.client().node("a").await.unwrap_err().code(), "ironic.not-ironic");
}

#[tokio::test]
async fn a_name_cannot_lead_elsewhere() {
    let server = Scripted::start(|asked| {
        (asked.target != "/v1/").then(|| Said::error(404, "Node x could not be found."))
    })
    .await;
    let client = server.client();
    client.node("../drivers?x=1").await.unwrap();
    assert_eq!(server.asked()[0].target, "/v1/nodes/..%2Fdrivers%3Fx=1");
}

#[tokio::test]
async fn a_list_is_read_page_by_page_with_markers_of_its_members() {
    let server = Scripted::start(|asked| {
        let page = |first: u128, next: Option<&str>| {
            let nodes: Vec<Value> = (first..first + 2)
                .map(|n| json!({"uuid": Uuid::from_u128(n), "provision_state": "available"}))
                .collect();
            Some(Said::json(&json!({"nodes": nodes, "next": next})))
        };
        // The server knows itself by a name that leads nowhere from here.
        match asked.parameter("marker") {
            _ if asked.target == "/v1/" => None,
            None => page(1, Some("http://ironic.internal/v1/nodes?marker=x")),
            Some(marker) if marker == Uuid::from_u128(2).to_string() => page(3, None),
            Some(other) => panic!("{other}"),
        }
    })
    .await;
    let nodes = server.client().nodes(&NodeQuery::default()).await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.uuid.as_u128()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(server.asked()[0].parameter("limit"), Some("2"));
}

#[tokio::test]
async fn a_list_that_does_not_end_is_given_up() {
    for (page, reason) in [
        (json!({"nodes": [node()], "next": "more"}), "a page comes twice"),
        (json!({"nodes": [], "next": "more"}), "an empty page names a next one"),
    ] {
        let server = Scripted::start(move |asked| (asked.target != "/v1/").then(|| Said::json(&page))).await;
        let error = server.client().nodes(&NodeQuery::default()).await.unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().contains(reason)),
            ("ironic.paging-loop", true),
            "{error}"
        );
    }
}

#[tokio::test]
async fn one_member_that_does_not_read_does_not_hide_the_others() {
    let server = Scripted::start(|asked| {
        (asked.target != "/v1/").then(|| Said::json(&json!({"nodes": [{"uuid": "odd"}, node(), 7]})))
    })
    .await;
    assert_eq!(server.client().nodes(&NodeQuery::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_changes_nothing_is_asked_again_and_what_changes_something_is_not() {
    let failures = AtomicUsize::new(0);
    let server = Scripted::start(move |asked| match asked.method.as_str() {
        _ if asked.target == "/v1/" => None,
        "GET" if failures.fetch_add(1, Ordering::Relaxed) < 2 => {
            Some(Said::error(503, "no free conductor workers").header("retry-after", "1000"))
        }
        "GET" => Some(Said::json(&node())),
        _ => Some(Said::error(503, "no free conductor workers").header("retry-after", "7")),
    })
    .await;
    let client = server.client();
    assert!(client.node("a").await.unwrap().is_some());
    let error = client.provision(NODE, &Provision::Provide).await.unwrap_err();
    assert_eq!((error.code(), error.retry_after()), ("ironic.busy", Some(Duration::from_secs(7))));
    let methods: Vec<String> = server.asked().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, ["GET", "GET", "GET", "PUT"]);
}

#[tokio::test]
async fn a_server_that_stays_in_trouble_is_given_up_after_some_attempts() {
    let server = Scripted::start(|asked| (asked.target != "/v1/").then(|| Said::error(500, "Boom"))).await;
    let error = server.client().node("a").await.unwrap_err();
    assert!(error.is_passing());
    assert_eq!((error.code(), server.asked().len()), ("ironic.server-error", 3));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let server = Scripted::start(|_| None).await;
    let options = Options { request: Duration::from_millis(50), ..quick() };
    let error = Client::new(&server.endpoint(), options).unwrap().node("a").await.unwrap_err();
    assert_eq!((error.code(), error.is_passing()), ("ironic.timeout", true));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let server = Scripted::start(|_| None).await;
    let client = server.client();
    drop(server);
    tokio::task::yield_now().await;
    let error = client.node("a").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_without_end_is_not_held() {
    let server =
        Scripted::start(|asked| (asked.target != "/v1/").then(|| Said::new(200, vec![b' '; 4096]))).await;
    let client = Client::new(&server.endpoint(), Options { body: 1024, ..quick() }).unwrap();
    assert_eq!(client.node("a").await.unwrap_err().code(), "ironic.answer-too-large");
}

#[tokio::test]
async fn garbage_with_status_200_is_an_error_and_no_node() {
    for garbage in ["", "null", "[]", "{}", "<html>", r#"{"uuid": 7, "provision_state": "x"}"#] {
        let server =
            Scripted::start(move |asked| (asked.target != "/v1/").then(|| Said::new(200, garbage))).await;
        let error = server.client().node("a").await.unwrap_err();
        assert_eq!(error.code(), "ironic.answer-unreadable", "{garbage}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Scripted::start(|asked| {
        (asked.target != "/v1/").then(|| Said::new(302, "").header("location", "http://evil.example/"))
    })
    .await;
    assert_eq!(server.client().node("a").await.unwrap_err().code(), "ironic.not-ironic");
}

#[tokio::test]
async fn credentials_go_with_every_request_and_appear_nowhere_else() {
    let server = Scripted::start(|asked| match asked.header("authorization") {
        // user:hunter2
        Some("Basic dXNlcjpodW50ZXIy") => None,
        _ => Some(Said::new(401, r#"{"error": {"message": "Incorrect username or password", "code": 401}}"#)),
    })
    .await;
    let mut endpoint = server.endpoint();
    let basic = |password: &str| Authentication::HttpBasic {
        username: "user".to_owned(),
        password: Secret::new(password),
    };
    endpoint.authentication = basic("hunter2");
    let client = Client::new(&endpoint, quick()).unwrap();
    assert_eq!(client.version().await.unwrap().to_string(), "1.115");
    assert!(!format!("{client:?} {endpoint:?}").contains("hunter2"));

    endpoint.authentication = basic("hunter3");
    let error = Client::new(&endpoint, quick()).unwrap().version().await.unwrap_err();
    assert_eq!((error.code(), error.is_passing()), ("ironic.unauthorized", false));
    assert_eq!(server.negotiations(), 2);
}

#[tokio::test]
async fn a_secret_that_the_server_repeats_is_not_repeated() {
    let server = Scripted::start(|asked| {
        (asked.method == "PATCH").then(|| {
            Said::error(400, &format!("Couldn't apply patch '{}'. Reason: no", asked.body.replace('"', "'")))
        })
    })
    .await;
    let patch = Patch::new().set_secret(&["driver_info", "redfish_password"], &Secret::new("hunter2"));
    let error = server.client().patch_node(NODE, &patch).await.unwrap_err();
    assert_eq!(server.asked().len(), 1);
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[tokio::test]
async fn verbs_are_sent_as_the_api_names_them() {
    let server = Scripted::start(|asked| (asked.method != "GET").then(|| Said::new(202, ""))).await;
    let client = server.client();
    client.provision(NODE, &Provision::Manage).await.unwrap();
    let steps = vec![Step { priority: Some(10), ..Step::new("deploy", "erase_devices") }];
    client.provision(NODE, &Provision::Clean { steps }).await.unwrap();
    client.power(NODE, Power::SoftOff, Some(Duration::from_secs(30))).await.unwrap();
    client.begin_maintenance(NODE, "fence").await.unwrap();
    client.end_maintenance(NODE).await.unwrap();
    let asked = server.asked();
    assert_eq!(body(&asked[0]), json!({"target": "manage"}));
    assert_eq!(
        body(&asked[1]),
        json!({"target": "clean", "clean_steps": [{"interface": "deploy", "step": "erase_devices"}]})
    );
    assert_eq!(body(&asked[2]), json!({"target": "soft power off", "timeout": 30}));
    assert_eq!(body(&asked[3]), json!({"reason": "fence"}));
    assert_eq!(asked[4].method, "DELETE");
    let targets: Vec<&str> = asked.iter().map(|asked| asked.target.rsplit('/').next().unwrap()).collect();
    assert_eq!(targets, ["provision", "provision", "power", "maintenance", "maintenance"]);
}

//! Who may call the API, and how.

use crate::support::Rig;
use serde_json::{Value, json};
use sim::{Model, Site};
use std::os::unix::fs::PermissionsExt as _;

async fn rig() -> Rig {
    Rig::start(|state| Site::builder(state).machines(Model::CpuNode, 1).build()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_but_health_and_description_asks_for_a_token() {
    let rig = rig().await;
    let description: Value =
        rig.client.request("GET", "/openapi.json").send().await.unwrap().json().await.unwrap();
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() > 10);
    for (path, methods) in paths {
        let path = path
            .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
            .replace("{name}", "x")
            .replace("{kind}", "site");
        for method in methods
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "post", "delete", "put", "patch"].contains(&key.as_str()))
        {
            let response = rig.client.request(&method.to_uppercase(), &path).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 401, "{method} {path}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let problem: Value = response.json().await.unwrap();
            assert_eq!(problem["code"], "api.unauthorized");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_token_is_readable_by_its_owner_alone() {
    let rig = rig().await;
    let mode = std::fs::metadata(rig.cell.settings().admin_token_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_reads_and_may_not_change_audit_or_administer() {
    let rig = rig().await;
    let request = json!({ "name": "eve", "role": "viewer" });
    let (status, token) = rig.client.call("POST", "/api/v1/tokens", Some(request.clone())).await;
    assert_eq!(status, 201);
    let (status, problem) = rig.client.call("POST", "/api/v1/tokens", Some(request)).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("token.exists")));

    let mut viewer = crate::support::Client::of(&rig.cell);
    viewer.token = token["token"].as_str().unwrap().to_owned();
    viewer.get("/api/v1/machines").await;
    for (method, path, body) in [
        ("GET", "/api/v1/events", None),
        ("GET", "/api/v1/tokens", None),
        ("POST", "/api/v1/plans", Some(json!({}))),
        ("DELETE", "/api/v1/tokens/eve", None),
    ] {
        let (status, problem) = viewer.call(method, path, body).await;
        assert_eq!((status, problem["code"].as_str()), (403, Some("api.forbidden")), "{method} {path}");
    }

    rig.client.call("DELETE", "/api/v1/tokens/eve", None).await;
    assert_eq!(viewer.call("GET", "/api/v1/machines", None).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_header_is_refused() {
    let rig = rig().await;
    let request = rig.client.request("GET", "/api/v1/version").bearer_auth(&rig.client.token);
    let response = request.header("host", "evil.example").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 421);
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "api.host-not-allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_and_every_item_comes_once() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::CpuNode, 5).build()).await;
    rig.client.apply(rig.declarations(), &rig.passwords()).await;
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = rig.client.get(&format!("/api/v1/machines?limit=2{after}")).await;
        names.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        match page["continue"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(names, rig.site.machines().iter().map(|machine| machine.name.clone()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_an_unknown_field_is_refused_with_a_code() {
    let rig = rig().await;
    let (status, problem) = rig.client.call("POST", "/api/v1/plans", Some(json!({ "aply": [] }))).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("api.bad-request")));
    assert!(problem["detail"].as_str().unwrap().contains("aply"));
}

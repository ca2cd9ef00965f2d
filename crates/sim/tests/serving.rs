//! What a simulated BMC answers when nothing is wrong.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use bailiwick_sim::{Behaviour, Bmc, Etags, Model, Seed, Tree};
use reqwest::Method;
use serde_json::json;
use support::{Subject, body, header, recording, small_tree};

#[tokio::test]
async fn the_service_root_needs_no_credentials() {
    let subject = Subject::small().await;
    let root = subject.anonymous(Method::GET, "/redfish/v1/").send().await.unwrap();
    assert_eq!(root.status(), 200);
    assert_eq!(header(&root, "odata-version"), "4.0");
    assert_eq!(body(root).await["RedfishVersion"], "1.17.0");
    let versions = subject.anonymous(Method::GET, "/redfish").send().await.unwrap();
    assert_eq!(body(versions).await, json!({"v1": "/redfish/v1/"}));
}

#[tokio::test]
async fn everything_below_the_root_needs_credentials() {
    let subject = Subject::small().await;
    let refused = subject.anonymous(Method::GET, "/redfish/v1/Systems").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(header(&refused, "www-authenticate").starts_with("Basic"));
    let message = body(refused).await["error"]["@Message.ExtendedInfo"][0]["MessageId"].clone();
    assert!(message.as_str().unwrap().ends_with(".NoValidSession"), "{message}");
    assert_eq!(subject.status("/redfish/v1/Systems").await, 200);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_counted() {
    let subject = Subject::small().await;
    let request = subject.anonymous(Method::GET, "/redfish/v1/Systems").basic_auth("admin", Some("wrong"));
    assert_eq!(request.send().await.unwrap().status(), 401);
    assert_eq!(subject.bmc.counters().failed_logins, 1);
}

#[tokio::test]
async fn what_does_not_exist_is_404_with_a_redfish_error() {
    let subject = Subject::small().await;
    let missing = subject.get("/redfish/v1/Nothing").await;
    assert_eq!(missing.status(), 404);
    assert_eq!(body(missing).await["error"]["code"], "Base.1.18.ResourceMissingAtURI");
}

#[tokio::test]
async fn a_slash_at_the_end_does_not_matter() {
    let subject = Subject::small().await;
    assert_eq!(subject.json("/redfish/v1/Systems/1/").await, subject.json("/redfish/v1/Systems/1").await);
}

#[tokio::test]
async fn head_answers_the_headers_of_get() {
    let subject = Subject::small().await;
    let get = subject.get("/redfish/v1/Systems/1").await;
    let head = subject.request(Method::HEAD, "/redfish/v1/Systems/1").send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(header(&head, "content-length"), header(&get, "content-length"));
    assert_eq!(head.bytes().await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_method_that_is_not_for_a_resource_is_405_with_those_that_are() {
    let subject = Subject::small().await;
    for method in [Method::PUT, Method::POST, Method::DELETE] {
        let refused = subject.request(method, "/redfish/v1/Systems/1").send().await.unwrap();
        assert_eq!(refused.status(), 405);
        assert!(header(&refused, "allow").contains("GET"));
    }
}

#[tokio::test]
async fn an_unchanged_resource_is_304_for_those_who_know_its_etag() {
    for (style, expected) in [(Etags::Recorded, "\"tag-1\""), (Etags::Strong, "\""), (Etags::Weak, "W/\"")] {
        let behaviour = Behaviour { etags: style, ..Behaviour::default() };
        let subject = Subject::start(Bmc::builder(small_tree()).behaviour(behaviour)).await;
        let etag = header(&subject.get("/redfish/v1/Systems/1").await, "etag").to_owned();
        assert!(etag.starts_with(expected), "{etag}");
        let again = subject.request(Method::GET, "/redfish/v1/Systems/1").header("if-none-match", &etag);
        assert_eq!(again.send().await.unwrap().status(), 304);
        subject.bmc.merge_resource("/redfish/v1/Systems/1", &json!({"AssetTag": "new", "@odata.etag": null}));
        let changed = subject.request(Method::GET, "/redfish/v1/Systems/1").header("if-none-match", &etag);
        assert_eq!(changed.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn firmware_without_etags_sends_none() {
    let behaviour = Behaviour { etags: Etags::None, ..Behaviour::default() };
    let subject = Subject::start(Bmc::builder(small_tree()).behaviour(behaviour)).await;
    assert_eq!(header(&subject.get("/redfish/v1/Systems/1").await, "etag"), "");
}

#[tokio::test]
async fn compression_changes_the_etag() {
    let behaviour = Behaviour { compresses: true, ..Behaviour::default() };
    let subject = Subject::start(Bmc::builder(small_tree()).behaviour(behaviour)).await;
    let offered = subject.request(Method::GET, "/redfish/v1/Systems/1").header("accept-encoding", "gzip");
    let answer = offered.send().await.unwrap();
    assert_eq!(header(&answer, "content-encoding"), "gzip");
    assert_eq!(header(&answer, "etag"), "\"tag-1-gzip\"");
    let identity =
        subject.request(Method::GET, "/redfish/v1/Systems/1").header("accept-encoding", "identity");
    assert_eq!(header(&identity.send().await.unwrap(), "etag"), "\"tag-1\"");
}

#[tokio::test]
async fn a_long_collection_comes_in_pages_that_hold_every_member_once() {
    let subject = Subject::start(Bmc::builder(small_tree().paged(2))).await;
    let (mut next, mut seen) = (Some("/redfish/v1/Things".to_owned()), Vec::new());
    while let Some(target) = next {
        let page = subject.json(&target).await;
        assert_eq!(page["Members@odata.count"], 5);
        seen.extend(
            page["Members"].as_array().unwrap().iter().map(|m| m["@odata.id"].as_str().unwrap().to_owned()),
        );
        next = page["Members@odata.nextLink"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, (0..5).map(|n| format!("/redfish/v1/Things/{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn skip_and_top_select_from_all_pages() {
    let subject = Subject::start(Bmc::builder(small_tree().paged(2))).await;
    let window = subject.json("/redfish/v1/Things?$skip=1&$top=3").await;
    let ids: Vec<_> =
        window["Members"].as_array().unwrap().iter().map(|m| m["@odata.id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["/redfish/v1/Things/1", "/redfish/v1/Things/2", "/redfish/v1/Things/3"]);
    assert_eq!(window["Members@odata.nextLink"], "/redfish/v1/Things?$skip=4&$top=3");
}

#[tokio::test]
async fn a_query_that_is_not_supported_is_501() {
    let subject = Subject::small().await;
    assert_eq!(subject.status("/redfish/v1/Systems?$filter=Name%20eq%20x").await, 501);
    assert_eq!(subject.status("/redfish/v1/Systems?unknown=1").await, 200);
}

#[tokio::test]
async fn two_bmcs_of_one_model_share_a_tree_and_differ_in_identity() {
    let tree = Model::DgxH100.tree().shared();
    let one = Subject::start(Bmc::builder(tree.clone()).seed(Seed::new(&["one"]))).await;
    let two = Subject::start(Bmc::builder(tree).seed(Seed::new(&["two"]))).await;
    let path = "/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_1";
    let (a, b) = (one.json(path).await, two.json(path).await);
    for property in ["SerialNumber", "UUID"] {
        assert_ne!(a[property], b[property]);
        assert!(!a[property].as_str().unwrap().contains('{'));
    }
    assert_eq!(a["Model"], b["Model"]);
    let chassis = one.json("/redfish/v1/Chassis/HGX_GPU_SXM_1").await;
    assert_eq!(a["SerialNumber"], chassis["SerialNumber"]);
}

#[tokio::test]
async fn requests_are_counted_and_recorded() {
    let subject = Subject::small().await;
    subject.bmc.record_requests();
    subject.get("/redfish/v1/Systems").await;
    let requests = subject.bmc.recorded_requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].target, "/redfish/v1/Systems");
    assert!(requests[0].headers.contains_key("authorization"));
    assert_eq!(subject.bmc.counters().requests, 1);
}

#[tokio::test]
async fn a_recorded_collection_leads_to_its_recorded_pages() {
    let Some(path) = recording("nvidia-dgx-h100") else { return };
    let tree = Tree::from_tar_gz(&path).unwrap();
    let subject = Subject::start(Bmc::builder(tree)).await;
    let devices = subject.json("/redfish/v1/Chassis/DGX/PCIeDevices").await;
    assert_eq!(devices["Members@odata.count"], 134);
    let second = subject.json(devices["Members@odata.nextLink"].as_str().unwrap()).await;
    assert!(!second["Members"].as_array().unwrap().is_empty());
}

/// Asks for every resource of a recording and compares the bytes.
async fn served_as_recorded(name: &str, resources: usize, host: &str) {
    let Some(path) = recording(name) else { return };
    let tree = Tree::from_tar_gz(&path).unwrap().shared();
    assert_eq!(tree.len(), resources);
    assert_eq!(tree.host_system().as_deref(), Some(host));
    let subject = Subject::start(Bmc::builder(tree.clone())).await;
    assert_eq!(subject.log_in("admin", &subject.bmc.password()).await.status(), 201);
    for path in tree.paths().filter(|path| !path.contains("/SessionService/Sessions")) {
        let answer = subject.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.bytes().await.unwrap(), tree.body(path, &Seed::new(&[]), "").unwrap(), "{path}");
    }
}

#[tokio::test]
async fn the_dgx_h100_is_served_as_recorded() {
    served_as_recorded("nvidia-dgx-h100", 4681, "/redfish/v1/Systems/DGX").await;
}

#[tokio::test]
async fn the_poweredge_is_served_as_recorded() {
    served_as_recorded("dell-poweredge", 1950, "/redfish/v1/Systems/System.Embedded.1").await;
}

#[tokio::test]
async fn the_thinksystem_is_served_as_recorded() {
    served_as_recorded("lenovo-thinksystem", 1131, "/redfish/v1/Systems/1").await;
}

#[tokio::test]
async fn the_rack_mount_is_served_as_recorded() {
    served_as_recorded("dmtf-rackmount", 252, "/redfish/v1/Systems/437XR1138R2").await;
}

#[test]
fn derived_identities_leave_nothing_of_the_recorded_ones_and_keep_placeholders() {
    let tree = Tree::from_values([
        (
            "/redfish/v1/A".to_owned(),
            json!({"SerialNumber": "1652923003067", "UUID": "9DAD5BFD-a732-23fe-40ad-465d0cbe5f95"}),
        ),
        (
            "/redfish/v1/B".to_owned(),
            json!({"SerialNumber": " 1652923003067 ", "UUID": "9dad5bfd-a732-23fe-40ad-465d0cbe5f95"}),
        ),
        (
            "/redfish/v1/C".to_owned(),
            json!({"SerialNumber": "N/A", "UUID": "", "SKU": "00000000", "MACAddress": "00:00:00:00:00:00"}),
        ),
    ]);
    let derived = tree.with_derived_identities();
    let show = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&derived.body(path, &Seed::new(&["x"]), "x").unwrap()).unwrap()
    };
    let (a, b) = (show("/redfish/v1/A"), show("/redfish/v1/B"));
    assert_eq!((&a["SerialNumber"], &a["UUID"]), (&b["SerialNumber"], &b["UUID"]));
    assert_ne!(a["SerialNumber"], "1652923003067");
    assert_ne!(a["UUID"], "9dad5bfd-a732-23fe-40ad-465d0cbe5f95");
    let untouched =
        json!({"SerialNumber": "N/A", "UUID": "", "SKU": "00000000", "MACAddress": "00:00:00:00:00:00"});
    assert_eq!(show("/redfish/v1/C"), untouched);
}

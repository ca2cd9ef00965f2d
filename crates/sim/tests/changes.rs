//! Power, PATCH, and queries that change what is shown.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::time::Duration;

use bailiwick_sim::{Behaviour, Bmc, Etags, Expand, PowerState, PowerStyle};
use reqwest::{Method, Response};
use serde_json::json;
use support::{Subject, body, header, small_tree};

const SYSTEM: &str = "/redfish/v1/Systems/1";

async fn with(change: impl FnOnce(&mut Behaviour)) -> Subject {
    let mut behaviour = Behaviour::default();
    change(&mut behaviour);
    Subject::start(Bmc::builder(small_tree()).behaviour(behaviour)).await
}

async fn reset(subject: &Subject, kind: &str) -> u16 {
    let target = format!("{SYSTEM}/Actions/ComputerSystem.Reset");
    subject.post(&target, &json!({"ResetType": kind})).await.status().as_u16()
}

#[tokio::test]
async fn a_reset_changes_the_power_state() {
    let subject = with(|behaviour| behaviour.power = PowerStyle::default()).await;
    assert_eq!(reset(&subject, "ForceOff").await, 204);
    assert_eq!(subject.json(SYSTEM).await["PowerState"], "Off");
    assert_eq!(subject.bmc.power_state(), Some(PowerState::Off));
    assert_eq!(reset(&subject, "On").await, 204);
    assert_eq!(subject.json(SYSTEM).await["PowerState"], "On");
}

#[tokio::test]
async fn a_power_change_takes_its_time() {
    let subject = with(|behaviour| behaviour.power.delay = Duration::from_hours(1)).await;
    assert_eq!(reset(&subject, "ForceOff").await, 204);
    assert_eq!(subject.json(SYSTEM).await["PowerState"], "On");
}

#[tokio::test]
async fn a_reset_into_the_present_state_is_a_conflict_for_some_vendors_only() {
    let dell = with(|behaviour| behaviour.power.conflict_if_already = true).await;
    assert_eq!(reset(&dell, "On").await, 409);
    let other = with(|behaviour| behaviour.power = PowerStyle::default()).await;
    assert_eq!(reset(&other, "On").await, 204);
}

#[tokio::test]
async fn power_on_right_after_power_off_is_refused_where_the_window_is_open() {
    let subject = with(|behaviour| behaviour.power.on_refused_after_off = Duration::from_hours(1)).await;
    assert_eq!(reset(&subject, "ForceOff").await, 204);
    assert_eq!(reset(&subject, "On").await, 409);
    subject.bmc.set_behaviour(|behaviour| behaviour.power.on_refused_after_off = Duration::ZERO);
    assert_eq!(reset(&subject, "On").await, 204);
}

#[tokio::test]
async fn an_unknown_reset_type_is_400_and_an_unknown_system_404() {
    let subject = Subject::small().await;
    assert_eq!(reset(&subject, "Explode").await, 400);
    let target = "/redfish/v1/Systems/2/Actions/ComputerSystem.Reset";
    assert_eq!(subject.post(target, &json!({"ResetType": "On"})).await.status(), 404);
}

async fn patch(subject: &Subject, if_match: Option<&str>) -> Response {
    let mut request = subject.request(Method::PATCH, SYSTEM).body(json!({"AssetTag": "rack 7"}).to_string());
    if let Some(etag) = if_match {
        request = request.header("if-match", etag);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_patch_changes_what_is_shown_from_then_on() {
    let subject = Subject::small().await;
    assert_eq!(patch(&subject, None).await.status(), 200);
    let system = subject.json(SYSTEM).await;
    assert_eq!((system["AssetTag"].as_str(), system["SerialNumber"].as_str()), (Some("rack 7"), Some("S1")));
}

#[tokio::test]
async fn a_patch_of_another_version_is_412() {
    let subject = with(|behaviour| behaviour.etags = Etags::Strong).await;
    let etag = header(&subject.get(SYSTEM).await, "etag").to_owned();
    assert_eq!(patch(&subject, Some("\"other\"")).await.status(), 412);
    assert_eq!(patch(&subject, Some(&etag)).await.status(), 200);
    assert_eq!(patch(&subject, Some(&etag)).await.status(), 412);
    assert_eq!(patch(&subject, Some("*")).await.status(), 200);
}

#[tokio::test]
async fn weak_and_empty_etags_match_nothing() {
    for style in [Etags::Weak, Etags::Empty] {
        let subject = with(|behaviour| behaviour.etags = style).await;
        let etag = header(&subject.get(SYSTEM).await, "etag").to_owned();
        assert_eq!(patch(&subject, Some(&etag)).await.status(), 412, "{etag}");
    }
}

#[tokio::test]
async fn a_service_that_wants_if_match_refuses_without() {
    let subject = with(|behaviour| behaviour.requires_if_match = true).await;
    assert_eq!(patch(&subject, None).await.status(), 428);
}

#[tokio::test]
async fn expanding_a_collection_puts_the_members_in_place_of_their_links() {
    let subject = Subject::small().await;
    let things = subject.json("/redfish/v1/Things?$expand=.($levels=1)").await;
    let numbers: Vec<_> =
        things["Members"].as_array().unwrap().iter().map(|m| m["Number"].as_u64()).collect();
    assert_eq!(numbers, (0..5).map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn expanding_around_a_cycle_ends() {
    let subject = Subject::small().await;
    let system = subject.json(&format!("{SYSTEM}?$expand=*($levels=2)")).await;
    let chassis = &system["Links"]["Chassis"][0];
    assert_eq!(chassis["Up"], json!({"@odata.id": SYSTEM}));
    let without_links = subject.json(&format!("{SYSTEM}?$expand=.")).await;
    assert_eq!(without_links["Links"]["Chassis"][0], json!({"@odata.id": "/redfish/v1/Chassis/1"}));
}

#[tokio::test]
async fn expand_is_refused_where_the_root_does_not_say_that_it_works() {
    let subject = Subject::small().await;
    assert_eq!(subject.status("/redfish/v1/Things?$expand=~").await, 501, "Links is not advertised");
    assert_eq!(subject.status("/redfish/v1/Things?$expand=.($levels=3)").await, 400, "MaxLevels is 2");
    assert_eq!(subject.status("/redfish/v1/Things?$expand=nonsense").await, 400);
}

#[tokio::test]
async fn expand_may_be_advertised_and_broken() {
    let target = "/redfish/v1/Things?$expand=.";
    let drops = with(|behaviour| behaviour.expand = Expand::DropsFields).await;
    let member = drops.json(target).await["Members"][0].clone();
    assert_eq!(member["Number"], 0);
    assert!(member.get("Id").is_none() && member.get("Name").is_none());
    let ignores = with(|behaviour| behaviour.expand = Expand::Ignored).await;
    assert_eq!(ignores.json(target).await["Members"][0], json!({"@odata.id": "/redfish/v1/Things/0"}));
    let rejects = with(|behaviour| behaviour.expand = Expand::Rejected).await;
    let refused = rejects.get(target).await;
    assert_eq!(refused.status(), 400);
    assert!(body(refused).await["error"].is_object());
}

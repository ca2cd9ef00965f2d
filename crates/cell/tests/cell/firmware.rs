//! Firmware profiles: declared like every kind, and machines held against them.

use crate::line::{Line, pool, profiles};
use crate::support::{Rig, document, world};
use serde_json::{Value, json};
use sim::{Model, Site};

async fn enrolled() -> Rig {
    let rig = Rig::start(|state| {
        let site = Site::builder(state).machines(Model::DgxH100, 1);
        site.machines(Model::PowerEdgeXe, 1).machines(Model::CpuNode, 1).build()
    })
    .await;
    rig.enrol_all().await;
    rig
}

fn results(page: &Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["compliance"]["result"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_simulated_model_passes_its_published_profile_and_none_passes_without() {
    let rig = enrolled().await;
    assert_eq!(results(&rig.client.get("/api/v1/firmware/check").await), ["no-profile"; 3]);
    rig.client.apply(profiles(), &[]).await;
    let page = rig.client.get("/api/v1/firmware/check").await;
    let wrong: Vec<&Value> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|item| item["compliance"]["findings"].as_array().unwrap())
        .filter(|finding| finding["verdict"] != "pass")
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(results(&page), ["compliant"; 3]);
    assert!(page["items"][0]["observedAt"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_told_apart_from_what_its_profile_wants_and_from_two_profiles() {
    let rig = enrolled().await;
    let strict = |name: &str, minimum: &str| {
        let spec = json!({
            "match": { "manufacturer": ["Synthetic*"], "model": ["SN-2U-EPYC"] },
            "source": "this test",
            "components": [{ "name": "bmc", "select": [{ "reported": "bmc" }], "rule": { "minimum": minimum } }],
        });
        document("FirmwareProfile", name, spec)
    };
    rig.client.apply(vec![strict("new", "9.9")], &[]).await;
    let page = rig.client.get("/api/v1/firmware/check?selector=model%3DSN-*,site%3Dfra1").await;
    let compliance = &page["items"][0]["compliance"];
    assert_eq!((results(&page), &compliance["profile"]), (vec!["not-compliant"], &json!("new")));
    let finding = &compliance["findings"][0];
    assert_eq!(
        (&finding["verdict"], &finding["found"], &finding["wanted"]),
        (&json!("too-old"), &json!("2.14.0"), &json!("9.9 or newer"))
    );
    assert_eq!(finding["source"], "/redfish/v1/Managers/bmc");

    rig.client.apply(vec![strict("other", "1.0")], &[]).await;
    let page = rig.client.get("/api/v1/firmware/check?selector=model%3DSN-*").await;
    assert_eq!(
        (results(&page), &page["items"][0]["compliance"]["profiles"]),
        (vec!["ambiguous"], &json!(["new", "other"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_page_and_a_machine_that_was_not_read_is_told_without_a_result() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::CpuNode, 3).build()).await;
    let mut declared = rig.declarations();
    for machine in declared.iter_mut().filter(|one| one["kind"] == "Machine") {
        // outside the site's networks, so that the cell never connects
        machine["spec"]["bmc"]["address"] = json!("192.0.2.1");
    }
    rig.client.apply(declared, &rig.passwords()).await;
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = rig.client.get(&format!("/api/v1/firmware/check?limit=2{after}")).await;
        for item in page["items"].as_array().unwrap() {
            assert!(item["compliance"].is_null() && item["observedAt"].is_null(), "{item}");
            names.push(item["machine"].as_str().unwrap().to_owned());
        }
        match page["continue"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(names, rig.site.machines().iter().map(|machine| machine.name.clone()).collect::<Vec<_>>());
    assert_eq!(rig.client.get("/api/v1/firmware/check?selector=nobody").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_selects_nothing_and_a_profile_that_wants_nothing_are_refused() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::CpuNode, 1).build()).await;
    let (status, problem) = rig.client.call("GET", "/api/v1/firmware/check?selector=%3Dx", None).await;
    assert_eq!((status, problem["code"].as_str()), (400, Some("api.bad-request")));
    let (status, problem) = rig.client.call("GET", "/api/v1/firmware/check?limit=0", None).await;
    assert_eq!((status, problem["code"].as_str()), (400, Some("api.bad-request")));
    let empty =
        document("FirmwareProfile", "empty", json!({ "match": { "model": ["x"] }, "source": "nowhere" }));
    let (status, problem) = rig.client.plan(vec![empty], &[]).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("firmware.profile-invalid")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_profile_waits_inspected_and_goes_on_once_one_that_fits_is_applied() {
    let line = Line::start(1).await;
    line.apply([world(), line.machines(&json!({})), vec![pool()]].concat(), None).await;
    let name = line.names().remove(0);
    line.want(&name, json!({ "baseCluster": "pool" })).await;
    let why = line.waits_for(&name, "firmware.no-profile").await;
    assert_eq!(why["state"], "inspected");
    line.client.apply(profiles(), &[]).await;
    line.arrive("in-service").await;
}

/// Profiles that want another firmware of BMCs than there is.
fn strict() -> Vec<Value> {
    let mut strict = profiles();
    for profile in &mut strict {
        for component in profile["spec"]["components"].as_array_mut().unwrap() {
            if component["name"] == "bmc" {
                component["rule"] = json!({ "minimum": "99.9" });
            }
        }
    }
    strict
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_available_and_not_as_a_tightened_profile_wants_waits_there_and_one_in_service_stays()
 {
    let line = Line::start(2).await;
    line.apply([world(), profiles(), line.machines(&json!({})), vec![pool()]].concat(), None).await;
    line.arrive("available").await;
    let [used, idle] = line.names().try_into().unwrap();
    line.want(&used, json!({ "baseCluster": "pool" })).await;
    line.until(&used, |machine| machine["state"] == "in-service").await;
    line.client.apply(strict(), &[]).await;
    line.want(&idle, json!({ "baseCluster": "pool" })).await;
    let why = line.waits_for(&idle, "firmware.not-compliant").await;
    assert_eq!(why["state"], "available");
    let machine = line.client.get(&format!("/api/v1/machines/{used}")).await;
    assert_eq!(machine["state"], "in-service");
    line.client.apply(profiles(), &[]).await;
    line.arrive("in-service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_too_old_firmware_waits_inspected_and_goes_on_once_its_profile_fits() {
    let line = Line::start(1).await;
    line.apply([world(), strict(), line.machines(&json!({})), vec![pool()]].concat(), None).await;
    let name = line.names().remove(0);
    let why = line.waits_for(&name, "firmware.not-compliant").await;
    assert_eq!(why["state"], "inspected");
    assert!(why["waiting"]["problem"].to_string().contains("99.9"), "{why}");
    line.client.apply(profiles(), &[]).await;
    line.arrive("available").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inventoried_gpus_say_which_view_and_which_line_of_which_profile_they_wait_for() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::PowerEdgeXe, 1).build()).await;
    rig.enrol_all().await;
    let name = &rig.site.machines()[0].name;
    let device = rig.client.get("/api/v1/gpus").await["items"][0]["device"].as_str().unwrap().to_owned();
    let waits = async || {
        let gpu = rig.client.get(&format!("/api/v1/gpus/{device}")).await;
        let all = gpu["waitsFor"].as_array().unwrap().clone();
        all.into_iter().map(|problem| problem["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let profile = "waits for a firmware profile that says which views its model gives (gpuViews): ";
    let driver = "waits for the driver's view (nvml): no agent has reported, for none is enrolled";
    assert_eq!(waits().await, [&format!("{profile}no firmware profile fits it"), driver]);
    let why = rig.client.get(&format!("/api/v1/machines/{name}/why")).await;
    let told: Vec<_> =
        why["gpus"].as_array().unwrap().iter().filter_map(|told| told["code"].as_str()).collect();
    assert!(["gpu.waits.profile", "gpu.waits.driver"].iter().all(|code| told.contains(code)), "{why:#}");
    assert!(why["gpus"].to_string().contains("4 GPUs wait for the driver's view (nvml)"), "{why:#}");

    let mut published =
        profiles().into_iter().find(|one| one["metadata"]["name"] == "simulated-poweredge-xe7740");
    let whole = published.clone().unwrap();
    published.as_mut().unwrap()["spec"].as_object_mut().unwrap().remove("gpuViews").unwrap();
    rig.client.apply(published.into_iter().collect(), &[]).await;
    assert_eq!(
        waits().await,
        [&format!("{profile}FirmwareProfile/simulated-poweredge-xe7740 does not"), driver]
    );

    rig.client.apply(vec![whole], &[]).await;
    assert_eq!(waits().await, [driver]);
}

//! Virtual media, boot override, BIOS settings, clock: what a provisioning service does to a bootable machine.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::time::Duration;

use bailiwick_sim::{
    Behaviour, Bmc, BootResource, BootStyle, Booted, HostOptions, Model, PowerState, SettingsStyle,
    TaskLocation, TaskStyle, Tree, VirtualMediaStyle, iso,
};
use reqwest::Response;
use serde_json::{Value, json};
use support::{File, Subject, body, header, recording, small_tree};
use tokio::sync::watch;

const SYSTEM: &str = "/redfish/v1/Systems/1";
const CD: &str = "/redfish/v1/Managers/BMC/VirtualMedia/Cd";

async fn with(change: impl FnOnce(&mut Behaviour)) -> Subject {
    let mut behaviour = Behaviour::default();
    change(&mut behaviour);
    Subject::start(Bmc::builder(small_tree()).behaviour(behaviour).bootable(HostOptions::default())).await
}

async fn insert(subject: &Subject, body: Value) -> Response {
    subject.post(&format!("{CD}/Actions/VirtualMedia.InsertMedia"), &body).await
}

async fn set_boot(subject: &Subject, path: &str, boot: Value) -> u16 {
    subject.patch(path, &json!({"Boot": boot})).await.status().as_u16()
}

async fn reset(subject: &Subject, kind: &str) {
    let target = format!("{SYSTEM}/Actions/ComputerSystem.Reset");
    assert_eq!(subject.post(&target, &json!({"ResetType": kind})).await.status(), 204);
}

async fn code(response: Response) -> String {
    let body = body(response).await;
    body["error"]["code"].as_str().unwrap().rsplit('.').next().unwrap().to_owned()
}

/// Waits until the host runs something of which this is true.
async fn boots(host: &mut watch::Receiver<Booted>, wanted: impl FnMut(&Booted) -> bool) -> Booted {
    tokio::time::timeout(Duration::from_mins(1), host.wait_for(wanted)).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn media_are_inserted_and_ejected() {
    let subject = with(|_| {}).await;
    assert_eq!(insert(&subject, json!({"Image": "http://192.0.2.1/a/agent.iso"})).await.status(), 204);
    let slot = subject.json(CD).await;
    assert_eq!((&slot["Inserted"], &slot["ImageName"]), (&json!(true), &json!("agent.iso")));
    let eject = format!("{CD}/Actions/VirtualMedia.EjectMedia");
    assert_eq!(subject.post(&eject, &json!({})).await.status(), 204);
    assert_eq!(subject.json(CD).await["Inserted"], false);
    assert_eq!(subject.patch(CD, &json!({"Image": "http://192.0.2.1/x"})).await.status(), 400);
}

#[tokio::test]
async fn quirk_32_where_only_patch_inserts_there_is_no_action() {
    let style = VirtualMediaStyle { patch_only: true, ..VirtualMediaStyle::default() };
    let subject = with(|behaviour| behaviour.virtual_media = style).await;
    let slot = subject.get(CD).await;
    assert!(header(&slot, "allow").contains("PATCH"));
    assert_eq!(support::body(slot).await.get("Actions"), None);
    assert_eq!(insert(&subject, json!({"Image": "http://192.0.2.1/x"})).await.status(), 404);
    let image = json!({"Image": "http://192.0.2.1/x", "Inserted": true, "WriteProtected": true});
    assert_eq!(subject.patch(CD, &image).await.status(), 200);
    assert_eq!(subject.json(CD).await["Inserted"], true);
    subject.patch(CD, &json!({"Image": null, "Inserted": false})).await;
    assert_eq!(subject.json(CD).await["Inserted"], false);
}

#[tokio::test]
async fn quirk_32_parameters_are_demanded_and_refused_by_name() {
    let style = VirtualMediaStyle {
        refuses: ["Inserted", "WriteProtected"].map(str::to_owned).into(),
        demands: vec!["TransferProtocolType".to_owned()],
        eject_needs_body: true,
        ..VirtualMediaStyle::default()
    };
    let subject = with(|behaviour| behaviour.virtual_media = style).await;
    let missing = body(insert(&subject, json!({"Image": "http://192.0.2.1/x"})).await).await;
    let info = &missing["error"]["@Message.ExtendedInfo"][0];
    assert_eq!(info["RelatedProperties"], json!(["#/TransferProtocolType"]));
    let refused = json!({"Image": "http://192.0.2.1/x", "TransferProtocolType": "HTTP", "Inserted": true});
    assert_eq!(code(insert(&subject, refused).await).await, "ActionParameterUnknown");
    let right = json!({"Image": "http://192.0.2.1/x", "TransferProtocolType": "HTTP"});
    assert_eq!(insert(&subject, right).await.status(), 204);
    let eject = format!("{CD}/Actions/VirtualMedia.EjectMedia");
    let without_body = subject.request(reqwest::Method::POST, &eject).send().await.unwrap();
    assert_eq!(without_body.status(), 400);
    assert_eq!(subject.post(&eject, &json!({})).await.status(), 204);
}

#[tokio::test]
async fn quirk_12_changes_of_the_boot_source_are_held_to_what_the_vendor_wants() {
    let target = json!({"BootSourceOverrideTarget": "Cd"});
    let strict = |boot: BootStyle| with(move |behaviour| behaviour.boot = boot);
    let full =
        strict(BootStyle { demands: BootStyle::FULL.map(str::to_owned).into(), ..BootStyle::default() })
            .await;
    assert_eq!(set_boot(&full, SYSTEM, target.clone()).await, 400);
    let all = json!({"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "UEFI"});
    assert_eq!(set_boot(&full, SYSTEM, all.clone()).await, 200);
    let once_only = strict(BootStyle { persistent: false, ..BootStyle::default() }).await;
    assert_eq!(set_boot(&once_only, SYSTEM, json!({"BootSourceOverrideEnabled": "Continuous"})).await, 400);
    let unchanged = strict(BootStyle { refuses_unchanged: true, ..BootStyle::default() }).await;
    assert_eq!(set_boot(&unchanged, SYSTEM, json!({"BootSourceOverrideEnabled": "Disabled"})).await, 400);
    let orderly = with(|_| {}).await;
    assert_eq!(set_boot(&orderly, SYSTEM, target).await, 200);
    assert_eq!(set_boot(&orderly, SYSTEM, json!({"BootSourceOverrideTarget": "Tape"})).await, 400);
}

#[tokio::test]
async fn quirk_10_the_boot_source_is_set_where_the_vendor_takes_it() {
    let settings = format!("{SYSTEM}/Settings");
    let once = json!({"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once"});
    let at = |resource| with(move |behaviour| behaviour.boot.resource = resource);

    let idrac = at(BootResource::Settings).await;
    let object = &idrac.json(SYSTEM).await["@Redfish.Settings"]["SettingsObject"];
    assert_eq!(object["@odata.id"], settings.as_str());
    assert_eq!(set_boot(&idrac, SYSTEM, once.clone()).await, 400);
    assert_eq!(set_boot(&idrac, &settings, once.clone()).await, 200);
    assert_eq!(idrac.json(SYSTEM).await["Boot"]["BootSourceOverrideEnabled"], "Disabled");
    reset(&idrac, "ForceRestart").await;
    assert_eq!(idrac.json(&settings).await["Boot"]["BootSourceOverrideEnabled"], "Disabled");

    let refusing = at(BootResource::SystemNotSettings).await;
    let refused = refusing.patch(&settings, &json!({"Boot": once})).await;
    assert_eq!(code(refused).await, "PropertyNotWritable");
    assert_eq!(set_boot(&refusing, SYSTEM, once.clone()).await, 200);

    let without = with(|_| {}).await;
    assert_eq!(without.status(&settings).await, 404);
}

#[tokio::test]
async fn an_override_for_once_is_used_up_by_the_next_start() {
    let subject = with(|_| {}).await;
    set_boot(
        &subject,
        SYSTEM,
        json!({"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once"}),
    )
    .await;
    reset(&subject, "ForceOff").await;
    assert_eq!(subject.json(SYSTEM).await["Boot"]["BootSourceOverrideEnabled"], "Once");
    reset(&subject, "On").await;
    let boot = subject.json(SYSTEM).await["Boot"].take();
    assert_eq!(
        (&boot["BootSourceOverrideEnabled"], &boot["BootSourceOverrideTarget"]),
        (&json!("Disabled"), &json!("None"))
    );
}

#[tokio::test]
async fn a_host_boots_the_iso_in_its_virtual_drive_until_the_power_goes() {
    let file = File::serve(iso::image("LIVE", "")).await;
    let subject = with(|_| {}).await;
    let mut host = subject.bmc.watch_booted().unwrap();
    insert(&subject, json!({"Image": file.url})).await;
    reset(&subject, "ForceRestart").await;
    let booted = boots(&mut host, |booted| *booted != Booted::Nothing).await;
    assert_eq!(booted, Booted::LiveIso { url: file.url.clone(), config: None });
    assert_eq!(subject.json(SYSTEM).await["BootProgress"]["LastState"], "OSRunning");
    reset(&subject, "ForceOff").await;
    assert_eq!(subject.bmc.booted(), Booted::Nothing);
    assert_eq!(subject.json(SYSTEM).await["BootProgress"]["LastState"], "None");
}

#[tokio::test]
async fn quirk_35_a_forced_restart_may_leave_a_host_that_boots_nothing() {
    let file = File::serve(iso::image("LIVE", "")).await;
    let subject = with(|behaviour| behaviour.power.force_restart_hangs = true).await;
    let mut host = subject.bmc.watch_booted().unwrap();
    insert(&subject, json!({"Image": file.url})).await;
    reset(&subject, "ForceRestart").await;
    assert_eq!((subject.bmc.power_state(), subject.bmc.booted()), (Some(PowerState::On), Booted::Nothing));
    reset(&subject, "ForceOff").await;
    reset(&subject, "On").await;
    boots(&mut host, |booted| matches!(booted, Booted::LiveIso { .. })).await;
}

#[tokio::test]
async fn quirk_12_where_only_a_usb_cd_boots_a_cd_does_not() {
    let file = File::serve(iso::image("LIVE", "")).await;
    let subject = with(|behaviour| behaviour.boot.usb_cd = true).await;
    let mut host = subject.bmc.watch_booted().unwrap();
    subject.bmc.merge_resource(
        SYSTEM,
        &json!({"Boot": {"BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Cd", "UsbCd", "Hdd"]}}),
    );
    insert(&subject, json!({"Image": file.url})).await;
    let target =
        |target: &str| json!({"BootSourceOverrideTarget": target, "BootSourceOverrideEnabled": "Once"});
    set_boot(&subject, SYSTEM, target("Cd")).await;
    reset(&subject, "ForceRestart").await;
    let progress = async {
        while subject.json(SYSTEM).await["BootProgress"]["LastState"] != "SetupEntered" {}
        subject.bmc.booted()
    };
    assert_eq!(tokio::time::timeout(Duration::from_mins(1), progress).await.unwrap(), Booted::Nothing);
    set_boot(&subject, SYSTEM, target("UsbCd")).await;
    reset(&subject, "ForceRestart").await;
    boots(&mut host, |booted| matches!(booted, Booted::LiveIso { .. })).await;
}

#[tokio::test]
async fn bios_settings_wait_for_a_reset() {
    let subject =
        Subject::start(Bmc::builder(Model::PowerEdgeXe.tree()).bootable(HostOptions::default())).await;
    let bios = "/redfish/v1/Systems/System.Embedded.1/Bios";
    let change = json!({"Attributes": {"SriovGlobalEnable": "Disabled"}});
    assert_eq!(code(subject.patch(bios, &change).await).await, "PropertyNotWritable");
    assert_eq!(subject.patch(&format!("{bios}/Settings"), &change).await.status(), 200);
    assert_eq!(subject.json(bios).await["Attributes"]["SriovGlobalEnable"], "Enabled");
    assert_eq!(subject.json(&format!("{bios}/Settings")).await["Attributes"], change["Attributes"]);
    let reset = "/redfish/v1/Systems/System.Embedded.1/Actions/ComputerSystem.Reset";
    subject.post(reset, &json!({"ResetType": "ForceRestart"})).await;
    assert_eq!(subject.json(bios).await["Attributes"]["SriovGlobalEnable"], "Disabled");
    let unknown = subject.patch(&format!("{bios}/Settings"), &json!({"Attributes": {"Sriov": "x"}})).await;
    assert_eq!(code(unknown).await, "PropertyUnknown");
}

#[tokio::test]
async fn quirks_11_17_and_18_a_change_wants_an_apply_time_and_its_task_comes_late_and_vanishes() {
    let task = TaskStyle { late: 1, new: 1, vanishes: true, ..TaskStyle::default() };
    let style = SettingsStyle { apply_time_required: true, tasks: Some(task) };
    let behaviour = Behaviour { settings: style, ..Behaviour::default() };
    let tree = Model::PowerEdgeXe.tree();
    let subject =
        Subject::start(Bmc::builder(tree).behaviour(behaviour).bootable(HostOptions::default())).await;
    let settings = "/redfish/v1/Systems/System.Embedded.1/Bios/Settings";
    let mut change = json!({"Attributes": {"SriovGlobalEnable": "Disabled"}});
    assert_eq!(code(subject.patch(settings, &change).await).await, "PropertyMissing");
    change["@Redfish.SettingsApplyTime"] = json!({"ApplyTime": "OnReset"});
    let accepted = subject.patch(settings, &change).await;
    assert_eq!(accepted.status(), 202);
    let task = header(&accepted, "location").to_owned();
    assert_eq!(subject.status(&task).await, 404, "too early");
    assert_eq!(subject.json(&task).await["TaskState"], "New");
    assert_eq!(subject.json(&task).await["TaskState"], "Pending");
    let reset = "/redfish/v1/Systems/System.Embedded.1/Actions/ComputerSystem.Reset";
    subject.post(reset, &json!({"ResetType": "ForceRestart"})).await;
    assert_eq!(subject.status(&task).await, 404, "gone");
}

#[tokio::test]
async fn quirk_18_the_location_of_a_task_may_be_empty_or_absent() {
    for (location, expected) in [(TaskLocation::Empty, Some("")), (TaskLocation::Absent, None)] {
        let tasks = Some(TaskStyle { location, ..TaskStyle::default() });
        let behaviour = Behaviour {
            settings: SettingsStyle { tasks, ..SettingsStyle::default() },
            ..Behaviour::default()
        };
        let tree = Model::DgxH100.tree();
        let subject =
            Subject::start(Bmc::builder(tree).behaviour(behaviour).bootable(HostOptions::default())).await;
        let change = json!({"Attributes": {"SriovSupport": "Disabled"}});
        let accepted = subject.patch("/redfish/v1/Systems/DGX/Bios/Settings", &change).await;
        let found = accepted.headers().get("location").map(|value| value.to_str().unwrap());
        assert_eq!((accepted.status().as_u16(), found), (202, expected));
        assert_eq!(subject.json("/redfish/v1/TaskService/Tasks").await["Members@odata.count"], 1);
    }
}

#[tokio::test]
async fn quirk_41_a_clock_is_wrong_until_it_is_set() {
    let subject = with(|_| {}).await;
    let manager = "/redfish/v1/Managers/BMC";
    subject.bmc.set_clock_skew(jiff::SignedDuration::from_hours(-24 * 365 * 20));
    let answer = subject.get(manager).await;
    assert!(header(&answer, "date").contains("200"), "{}", header(&answer, "date"));
    assert!(body(answer).await["DateTime"].as_str().unwrap().starts_with("200"));
    let now = jiff::Timestamp::now().to_string();
    assert_eq!(subject.patch(manager, &json!({"DateTime": now})).await.status(), 200);
    assert!(subject.bmc.clock_skew().abs() < jiff::SignedDuration::from_mins(1));
    assert_eq!(subject.patch(manager, &json!({"DateTime": "yesterday"})).await.status(), 400);
}

/// What Ironic must be able to follow, whatever the machine (facts, "Mandatory?").
fn is_bootable(tree: &Tree) {
    let (tree, seed) = (tree.bootable(), bailiwick_sim::Seed::new(&["a"]));
    let read = |path: &str| -> Value {
        let body = tree.body(path, &seed, "m").unwrap_or_else(|| panic!("{path} is missing"));
        serde_json::from_slice(&body).unwrap()
    };
    let follow = |value: &Value, property: &str| read(value[property]["@odata.id"].as_str().unwrap());
    let first = |collection: &Value| read(collection["Members"][0]["@odata.id"].as_str().unwrap());
    let system = read(&tree.host_system().unwrap());
    assert!(system["MemorySummary"]["TotalSystemMemoryGiB"].is_number());
    assert!(system["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"].to_string().contains("Cd"));
    first(&follow(&system, "Processors"));
    first(&follow(&system, "EthernetInterfaces"));
    let manager = read(system["Links"]["ManagedBy"][0]["@odata.id"].as_str().unwrap());
    let media = follow(&manager, "VirtualMedia");
    let slots = media["Members"].as_array().unwrap().iter();
    let slots: Vec<Value> = slots.map(|slot| read(slot["@odata.id"].as_str().unwrap())).collect();
    assert!(slots.iter().any(|slot| slot["MediaTypes"].to_string().contains("CD")));
    assert!(slots.iter().all(|slot| slot["Actions"]["#VirtualMedia.InsertMedia"]["target"].is_string()));
    let bios = follow(&system, "Bios");
    read(bios["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str().unwrap());
}

#[test]
fn every_model_can_be_made_bootable() {
    for model in Model::ALL {
        is_bootable(&model.tree());
    }
    is_bootable(&small_tree());
}

#[test]
fn every_recording_can_be_made_bootable() {
    for name in ["dell-poweredge", "dmtf-rackmount", "lenovo-thinksystem", "nvidia-dgx-h100"] {
        if let Some(path) = recording(name) {
            is_bootable(&Tree::from_tar_gz(path).unwrap());
        }
    }
}

#[tokio::test]
async fn a_recording_is_shown_as_recorded_unless_it_is_to_boot() {
    let Some(path) = recording("dell-poweredge") else { return };
    let tree = std::sync::Arc::new(Tree::from_tar_gz(path).unwrap());
    let plain = Subject::start(Bmc::builder(std::sync::Arc::clone(&tree))).await;
    let seed = bailiwick_sim::Seed::new(&["bmc"]);
    for path in tree.paths().filter(|path| path.contains("AccountService") || path.contains("/Managers/")) {
        let recorded = tree.body(path, &seed, "bmc").unwrap();
        let shown = plain.get(path).await.bytes().await.unwrap();
        assert!(recorded == shown, "{path}");
    }
}

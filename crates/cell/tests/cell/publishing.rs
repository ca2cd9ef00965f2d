//! What is published to a directory, and that it is written when it changes and at no other time.

use crate::support::{Rig, publish_dir};
use serde_json::Value;
use sim::{Model, Site};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

fn files(root: &Path) -> BTreeMap<String, (String, SystemTime)> {
    let mut found = BTreeMap::new();
    for folder in ["declared", "observed"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            let text = std::fs::read_to_string(entry.path()).unwrap();
            found.insert(name, (text, entry.metadata().unwrap().modified().unwrap()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_classes_and_policies_are_published_and_not_written_again() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::DgxH100, 1).build()).await;
    rig.enrol_all().await;
    rig.client.wait_until_published().await;
    let first = files(&publish_dir(&rig.dir));
    let slice = first.iter().find(|(name, _)| name.starts_with("observed/resourceslice-")).unwrap();
    assert!(slice.1.0.starts_with("# Observed by the cell"));
    let slice: Value = serde_saphyr::from_str(&slice.1.0).unwrap();
    assert_eq!(slice["spec"]["devices"].as_array().unwrap().len(), 8);
    assert_eq!(slice["spec"]["nodeName"], rig.site.machines()[0].name.as_str());
    assert!(first.keys().any(|name| name.starts_with("declared/validatingadmissionpolicy-")));
    assert!(first.contains_key("declared/deviceclass-trial.yaml"));

    let rig = rig.restart().await;
    rig.client.wait_until_published().await;
    assert_eq!(files(&publish_dir(&rig.dir)), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_pruned_and_what_is_not_ours_stays() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::PowerEdgeXe, 1).build()).await;
    rig.enrol_all().await;
    rig.client.wait_until_published().await;
    let foreign = publish_dir(&rig.dir).join("observed/notes.txt");
    std::fs::write(&foreign, "mine").unwrap();
    let name = &rig.site.machines()[0].name;
    let (_, plan) = rig
        .client
        .call(
            "POST",
            "/api/v1/plans",
            Some(serde_json::json!({ "delete": [{ "kind": "Machine", "name": name }] })),
        )
        .await;
    rig.client.call("POST", &format!("/api/v1/plans/{}/apply", plan["digest"].as_str().unwrap()), None).await;
    rig.client.wait_until_published().await;
    let left = files(&publish_dir(&rig.dir));
    assert!(!left.keys().any(|file| file.contains("resourceslice")), "{:?}", left.keys());
    assert_eq!(std::fs::read_to_string(foreign).unwrap(), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_bmc_key_is_an_alarm_and_credentials_do_not_follow_it() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::DgxH100, 1).build()).await;
    rig.enrol_all().await;
    rig.client.wait_until_published().await;
    let name = rig.site.machines()[0].name.clone();
    let bmc = rig.site.bmc(&name).unwrap();
    let logins = bmc.counters().logins;
    bmc.rotate_key().unwrap();
    // A new user name has the machine read again, and the key is held against the one seen first.
    let mut documents = rig.declarations();
    documents.last_mut().unwrap()["spec"]["bmc"]["username"] = "other".into();
    rig.client.apply(documents, &rig.passwords()).await;
    let event = rig.client.wait_for_event("machine.waiting", &name).await;
    assert_eq!(event["data"]["problem"]["code"], "bmc.pin-mismatch");
    rig.client.wait_until_published().await;
    let all = files(&publish_dir(&rig.dir));
    let slice = all.iter().find(|(name, _)| name.starts_with("observed/resourceslice-")).unwrap();
    let slice: Value = serde_saphyr::from_str(&slice.1.0).unwrap();
    for device in slice["spec"]["devices"].as_array().unwrap() {
        assert_eq!(device["taints"][0]["key"], "bailiwick.dev/alarm");
    }
    assert_eq!(bmc.counters().logins, logins);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_publish_directory_is_told_and_mended_when_it_is_writable() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::CpuNode, 1).build()).await;
    rig.enrol_all().await;
    rig.client.wait_until_published().await;
    let target = publish_dir(&rig.dir);
    // Permissions do not bind root: a file where the folder must be does.
    std::fs::remove_dir_all(&target).unwrap();
    std::fs::write(&target, "in the way").unwrap();
    rig.client
        .apply(
            vec![crate::support::document("GpuClass", "late", serde_json::json!({ "jurisdiction": "de" }))],
            &[],
        )
        .await;
    loop {
        let publication = &rig.client.get("/api/v1/publications").await[0];
        if publication["problem"]["code"] == "publish.directory" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    std::fs::remove_file(&target).unwrap();
    rig.client.wait_until_published().await;
    assert!(target.join("declared/deviceclass-late.yaml").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_whose_database_is_gone_prunes_nothing_and_lets_its_owner_in() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::PowerEdgeXe, 1).build()).await;
    rig.enrol_all().await;
    rig.client.wait_until_published().await;
    let published = files(&publish_dir(&rig.dir));
    let Rig { dir, site, cell, .. } = rig;
    cell.shutdown().await;
    for file in ["cell.db", "cell.db-wal", "cell.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join("data").join(file));
    }
    let cell = bailiwick_cell::Cell::start(crate::support::settings(&dir)).await.unwrap();
    let client = crate::support::Client::of(&cell);
    loop {
        let publications = client.get("/api/v1/publications").await;
        if publications[0]["problem"]["code"] == "publish.other-cell" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(files(&publish_dir(&dir)), published);
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_is_used_at_once_and_withdraws_no_gpu() {
    let rig = Rig::start(|state| Site::builder(state).machines(Model::PowerEdgeXe, 1).build()).await;
    rig.enrol_all().await;
    rig.client.wait_until_published().await;
    let published = files(&publish_dir(&rig.dir));
    let name = rig.site.machines()[0].name.clone();
    let bmc = rig.site.bmc(&name).unwrap();
    let logins = bmc.counters().logins;
    bmc.set_password("rotated");
    let plan = rig.client.apply(rig.declarations(), &[(name.clone(), "rotated".to_owned())]).await;
    assert_eq!(plan["changes"].as_array().unwrap().len(), 1);
    while bmc.counters().logins == logins {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(rig.client.get("/api/v1/machines").await["items"][0]["state"], "enrolled");
    rig.client.wait_until_published().await;
    assert_eq!(files(&publish_dir(&rig.dir)), published);
}

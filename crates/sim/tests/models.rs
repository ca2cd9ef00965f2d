//! The models are trees that a client can walk, and have what their kind of server has.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::collections::{HashMap, HashSet};

use bailiwick_sim::{Bmc, Model, Seed, Tree};
use serde_json::Value;

fn values(tree: &Tree) -> HashMap<String, Value> {
    let seed = Seed::new(&["models"]);
    let read = |path: &str| serde_json::from_slice(&tree.body(path, &seed, "m1").unwrap()).unwrap();
    tree.paths().map(|path| (path.to_owned(), read(path))).collect()
}

/// Every reference in a resource.
fn references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        Value::Object(map) => {
            for (key, field) in map {
                match field {
                    Value::String(text) if key == "@odata.id" || key.ends_with("nextLink") => {
                        into.push(text.clone());
                    }
                    other => references(other, into),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn every_model_has_at_least_150_resources() {
    for model in Model::ALL {
        assert!(model.tree().len() >= 150, "{model}: {}", model.tree().len());
    }
}

#[test]
fn every_resource_has_what_every_resource_must_have() {
    for model in Model::ALL {
        for (path, value) in values(&model.tree()) {
            let page_of = path.split('?').next().unwrap();
            assert_eq!(value["@odata.id"], page_of, "{model}");
            assert!(value["@odata.type"].as_str().unwrap().starts_with('#'), "{model} {path}");
            assert!(value["Name"].is_string(), "{model} {path}");
            if value.get("Members").is_none() {
                assert!(value["Id"].is_string(), "{model} {path}");
            } else {
                assert!(value["Members@odata.count"].is_u64(), "{model} {path}");
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_everything_is_led_to() {
    for model in Model::ALL {
        let all = values(&model.tree());
        let mut led_to = HashSet::from(["/redfish/v1".to_owned()]);
        for (path, value) in &all {
            let mut found = Vec::new();
            references(value, &mut found);
            for target in found.into_iter().filter(|target| target != path) {
                // Sessions are the BMC's own; settings take effect at a reset that models do not have.
                let elsewhere =
                    target.ends_with("/SessionService/Sessions") || target.ends_with("/Bios/Settings");
                assert!(elsewhere || all.contains_key(&target), "{model}: {path} -> {target}");
                led_to.insert(target);
            }
        }
        let lost: Vec<_> = all.keys().filter(|path| !led_to.contains(*path)).collect();
        assert!(lost.is_empty(), "{model}: nothing leads to {lost:?}");
    }
}

#[test]
fn no_place_is_left_unfilled() {
    for model in Model::ALL {
        for (path, value) in values(&model.tree()) {
            assert!(!value.to_string().contains("{{"), "{model} {path}: {value}");
        }
    }
}

#[test]
fn the_gpus_of_a_model_are_as_many_as_it_says_and_distinct() {
    for model in Model::ALL {
        let all = values(&model.tree());
        let gpus = all.values().filter(|value| value["ProcessorType"] == "GPU");
        let serials: HashSet<&str> = gpus.map(|gpu| gpu["SerialNumber"].as_str().unwrap()).collect();
        assert_eq!(serials.len(), model.gpu_count(), "{model}");
    }
}

#[test]
fn the_views_of_a_dgx_gpu_agree() {
    let all = values(&Model::DgxH100.tree());
    for n in 1..=8 {
        let chassis = format!("/redfish/v1/Chassis/HGX_GPU_SXM_{n}");
        let views = [
            &all[&format!("/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_{n}")],
            &all[&chassis],
            &all[&format!("{chassis}/PCIeDevices/GPU_SXM_{n}")],
        ];
        for property in ["SerialNumber", "UUID", "PartNumber", "Model"] {
            assert!(views.iter().all(|view| view[property] == views[0][property]), "{n} {property}");
        }
        let uuid = uuid::Uuid::parse_str(views[0]["UUID"].as_str().unwrap()).unwrap();
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (4, uuid::Variant::RFC4122));
    }
}

#[test]
fn the_cards_of_a_dgx_come_after_the_first_page() {
    let all = values(&Model::DgxH100.tree());
    let first = &all["/redfish/v1/Chassis/DGX/PCIeDevices"];
    assert_eq!(first["Members"].as_array().unwrap().len(), 75);
    assert!(!first["Members"].to_string().contains("NIC"));
    assert!(all[first["Members@odata.nextLink"].as_str().unwrap()]["Members"].to_string().contains("NIC9"));
}

#[test]
fn the_host_of_a_dgx_is_not_its_baseboard() {
    assert_eq!(Model::DgxH100.tree().host_system().as_deref(), Some("/redfish/v1/Systems/DGX"));
}

#[test]
fn mac_addresses_are_locally_administered() {
    for model in Model::ALL {
        for value in values(&model.tree()).into_values() {
            let Some(mac) = value.get("MACAddress").and_then(Value::as_str) else { continue };
            assert!(mac.starts_with("02:") && mac.len() == 17, "{mac}");
        }
    }
}

#[test]
fn models_are_found_by_name() {
    for model in Model::ALL {
        assert_eq!(model.name().parse::<Model>().unwrap(), model);
    }
    assert_eq!("cray-1".parse::<Model>().unwrap_err().code(), "sim.unknown-model");
}

#[tokio::test]
async fn an_inspection_finds_the_drives_that_each_models_bmc_lists() {
    for (model, drives) in [(Model::DgxH100, 10), (Model::PowerEdgeXe, 4), (Model::CpuNode, 6)] {
        let bmc = Bmc::builder(model.tree()).start().await.unwrap();
        let found = bmc.inspection();
        let disks = found["inventory"]["disks"].as_array().unwrap();
        let serials: HashSet<_> = disks.iter().map(|disk| disk["serial"].as_str().unwrap()).collect();
        assert_eq!(serials.len(), drives, "{model}: {found}");
        assert!(!found["inventory"]["interfaces"].as_array().unwrap().is_empty(), "{model}");
    }
}

//! What the selectors of classes match, by evaluating their CEL on the devices that are published.

use crate::fleet::{class, input, name, order};
use bailiwick_dra::{DRIVER, GpuKey, Verdict, publish, selector};
use cel::{Context, Program, Value};
use domain::declaration::{GpuClassSpec, Requirement, Zone};
use proptest::prelude::*;
use serde_json::{Map, json};
use std::collections::BTreeSet;

/// A device as the scheduler shows it to CEL: attributes by domain, those without one under the driver's
/// (`k8s.io/dynamic-resource-allocation/cel`).
fn shown(driver: &str, device: &serde_json::Value) -> serde_json::Value {
    // One that a device has nothing of is empty there, and no error.
    let mut domains = Map::from_iter([DRIVER, "gpu.nvidia.com"].map(|domain| (domain.to_owned(), json!({}))));
    for (key, value) in device["attributes"].as_object().into_iter().flatten() {
        let (domain, id) = key.split_once('/').unwrap_or((driver, key));
        let value = value.as_object().unwrap().values().next().unwrap();
        domains.entry(domain).or_insert_with(|| json!({}))[id] = value.clone();
    }
    json!({ "driver": driver, "attributes": domains })
}

pub(crate) fn matches(expression: &str, driver: &str, device: &serde_json::Value) -> bool {
    let mut context = Context::default();
    context.add_variable("device", shown(driver, device)).unwrap();
    match Program::compile(expression).unwrap().execute(&context) {
        Ok(Value::Bool(answer)) => answer,
        other => panic!("{expression} gives {other:?}, which would abort allocation"),
    }
}

/// The meaning of a class, said without CEL.
fn meant(class: &GpuClassSpec, device: &serde_json::Value) -> bool {
    let text = |key: &str| device["attributes"][key]["string"].as_str();
    let requires = |requirement, met: bool| !class.requires.contains(&requirement) || met;
    let marking = |zone: &Zone| zone.handling.map(domain::declaration::Handling::as_str);
    let kind = if class.partition.is_some() { "mig" } else { "gpu" };
    text("type") == Some(kind)
        && class.partition.as_deref().is_none_or(|profile| text("profile") == Some(profile))
        && text("jurisdiction").is_some_and(|inner| order().contains(&class.jurisdiction, &name(inner)))
        && (class.models.is_empty()
            || text("productName").is_some_and(|model| class.models.iter().any(|m| m == model)))
        && class.zone.as_ref().is_none_or(|zone| {
            text("zoneTier") == Some(zone.tier.as_str()) && text("zoneHandling") == marking(zone)
        })
        && requires(Requirement::Probed, device["attributes"]["probed"]["bool"] == true)
        && requires(Requirement::Attested, text("attestation") == Some("affirming"))
}

proptest! {
    #[test]
    fn a_selector_matches_what_the_class_means_and_nothing_else(input in input(), class in class()) {
        let Ok(expression) = selector(&name("c"), &class, &order()) else {
            prop_assert!(class.requires.is_empty() || class.jurisdiction.as_str() == "nowhere");
            return Ok(());
        };
        prop_assert!(expression.starts_with("device.driver == 'gpu.bailiwick.dev' && "));
        for slice in publish(&input).observed.iter().filter(|object| object.kind == "ResourceSlice") {
            for device in slice.json()["spec"]["devices"].as_array().into_iter().flatten() {
                prop_assert_eq!(matches(&expression, DRIVER, device), meant(&class, device), "{} {}", &expression, device);
                prop_assert!(!matches(&expression, "gpu.example", device), "a device of another driver");
            }
        }
    }

    #[test]
    fn a_default_class_matches_just_what_is_probed_and_affirmed(input in input()) {
        let class: GpuClassSpec = serde_json::from_value(json!({ "jurisdiction": "world" })).unwrap();
        let expression = selector(&name("c"), &class, &order()).unwrap();
        let passes = |key: &GpuKey| {
            input.probed.contains_key(key) && input.verdicts.get(key) == Some(&Verdict::Affirming)
        };
        let keys = input.machines.iter().flat_map(|machine| &machine.gpus).filter_map(GpuKey::of);
        let passing: BTreeSet<_> = keys.filter(passes).map(|key| key.device_name()).collect();
        for slice in publish(&input).observed.iter().filter(|object| object.kind == "ResourceSlice") {
            for device in slice.json()["spec"]["devices"].as_array().into_iter().flatten() {
                let expected = passing.contains(device["name"].as_str().unwrap());
                prop_assert_eq!(matches(&expression, DRIVER, device), expected, "{}", device);
            }
        }
    }

    #[test]
    fn a_device_that_says_nothing_matches_no_class_and_aborts_no_allocation(class in class()) {
        if let Ok(expression) = selector(&name("c"), &class, &order()) {
            let silent = json!({});
            prop_assert!(!matches(&expression, DRIVER, &silent));
        }
    }
}

#[test]
fn a_models_name_is_never_code() {
    let model = "x'] || true || device.driver in ['";
    let class: GpuClassSpec = serde_json::from_value(
        json!({ "jurisdiction": "de", "models": [model], "requires": ["inventoried"] }),
    )
    .unwrap();
    let expression = selector(&name("c"), &class, &order()).unwrap();
    let device = |product: &str| {
        json!({ "attributes": {
            "type": { "string": "gpu" }, "jurisdiction": { "string": "de" }, "inventoried": { "bool": true }, "productName": { "string": product },
        }})
    };
    assert!(!matches(&expression, DRIVER, &device("H100")));
    assert!(matches(&expression, DRIVER, &device(model)));
}

#[test]
fn a_trial_class_is_named_as_such_and_a_default_class_is_not() {
    let mut input = bailiwick_dra::Input::new(name("cell-1"), "bailiwick-cell");
    input.jurisdictions = order();
    let class = |spec| serde_json::from_value(spec).unwrap();
    input.classes = vec![
        (name("real"), class(json!({ "jurisdiction": "de" }))),
        (name("trial"), class(json!({ "jurisdiction": "de", "requires": ["inventoried"] }))),
    ];
    let classes: Vec<_> = publish(&input).declared.into_iter().filter(|o| o.kind == "DeviceClass").collect();
    assert!(classes[0].json()["metadata"]["labels"].get("bailiwick.dev/trial").is_none());
    assert_eq!(classes[1].json()["metadata"]["labels"]["bailiwick.dev/trial"], "true");
    assert_eq!(classes[1].json()["metadata"]["annotations"]["bailiwick.dev/trial"], "true");
}

#[test]
fn a_class_too_long_for_the_api_is_left_out_and_told_of() {
    let models: Vec<_> = (0..400).map(|at| format!("{at:060}")).collect();
    let class: GpuClassSpec =
        serde_json::from_value(json!({ "jurisdiction": "de", "models": models })).unwrap();
    assert_eq!(selector(&name("c"), &class, &order()).unwrap_err().code, "dra.class.too-long");
}

//! Every published firmware profile against every recorded tree: one matches, it passes, and it fails as soon as one version is
//! older or one setting another.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use domain::firmware::{Compliance, FirmwareProfileSpec, Verdict, assess, check};
use domain::inventory::AttributeValue;
use domain::{Inventory, Name, Spec, manifest};
use support::reading::read;
use support::tree::Tree;

const RECORDED: [(&str, &str); 4] = [
    ("nvidia-dgx-h100", "nvidia-dgx-h100"),
    ("dell-poweredge", "dell-poweredge-r750"),
    ("lenovo-thinksystem", "lenovo-thinksystem-sr670-v2"),
    ("dmtf-rackmount", "dmtf-rackmount"),
];

fn profiles() -> Vec<(Name, FirmwareProfileSpec)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware-profiles");
    let mut profiles = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the profiles") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a profile");
        for located in manifest::read(&path.display().to_string(), &text).expect("declarations") {
            let Spec::FirmwareProfile(spec) = located.declaration.spec else { panic!("{}", located.at) };
            profiles.push((located.declaration.metadata.name, *spec));
        }
    }
    profiles
}

#[test]
fn every_profile_means_something_and_is_named_as_its_file() {
    let profiles = profiles();
    assert!(profiles.len() >= 10, "{}", profiles.len());
    let names: BTreeSet<_> = profiles.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), profiles.len(), "two profiles of one name");
    for (name, spec) in &profiles {
        assert_eq!(spec.problems(name.as_str()), [], "{name}");
        let file = format!("../../firmware-profiles/{name}.yaml");
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file(), "{name}");
        assert!(!spec.source.trim().is_empty(), "{name} does not say where its numbers come from");
    }
}

#[tokio::test]
async fn every_recording_is_matched_by_one_profile_and_passes_it() {
    let profiles = profiles();
    for (recording, profile) in RECORDED {
        let Some(tree) = Tree::recorded(recording) else { continue };
        let compliance = assess(&profiles, &read(&tree).await);
        assert_eq!(compliance.profile().map(Name::as_str), Some(profile), "{recording}: {compliance:?}");
        let wrong: Vec<_> =
            compliance.findings().iter().filter(|finding| finding.verdict != Verdict::Pass).collect();
        assert!(compliance.is_compliant(), "{recording}: {wrong:#?}");
        assert!(
            compliance.findings().iter().all(|finding| finding.source.is_some()),
            "{recording}: a value without source"
        );
    }
}

#[tokio::test]
async fn each_version_made_older_and_each_setting_changed_is_found() {
    let profiles = profiles();
    for (recording, profile) in RECORDED {
        let Some(tree) = Tree::recorded(recording) else { continue };
        let inventory = read(&tree).await;
        let (_, spec) = profiles.iter().find(|(name, _)| name.as_str() == profile).expect("the profile");
        let mut changed = 0;
        for finding in check(spec, &inventory) {
            let mut worse = inventory.clone();
            if !worsen(&mut worse, &finding.fact) {
                continue;
            }
            changed += 1;
            let found = check(spec, &worse)
                .into_iter()
                .find(|other| other.fact == finding.fact)
                .expect("the same value");
            assert!(found.verdict != Verdict::Pass, "{recording}: {} {:?}", found.fact, found.found);
            let compliance = assess(&profiles, &worse);
            assert!(matches!(compliance, Compliance::NotCompliant { .. }), "{recording}: {}", finding.fact);
        }
        assert!(changed >= 8, "{recording}: only {changed} values were tried");
    }
}

/// Makes one value worse: a version of zeros, another setting. `false` for what is no single value.
fn worsen(inventory: &mut Inventory, fact: &str) -> bool {
    let zeros = |version: &mut Option<String>| {
        if let Some(version) = version {
            *version = version.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        }
        true
    };
    let parts: Vec<&str> = fact.split('/').collect();
    match parts[..] {
        ["firmware", id, "version"] => {
            let entry = inventory.firmware.iter_mut().find(|entry| entry.id == id).expect("the entry");
            zeros(&mut entry.version)
        }
        ["gpus", serial, "firmwareVersion"] => {
            let gpu =
                inventory.gpus.iter_mut().find(|gpu| gpu.serial.as_deref() == Some(serial)).expect("the GPU");
            zeros(&mut gpu.firmware_version)
        }
        ["tpm", at, "firmwareVersion"] => {
            zeros(&mut inventory.tpm[at.parse::<usize>().expect("an index")].firmware_version)
        }
        ["bmc.firmwareVersion"] => zeros(&mut inventory.bmc.firmware_version),
        ["bios.version"] => zeros(&mut inventory.bios.version),
        ["secureBoot"] => {
            inventory.secure_boot = inventory.secure_boot.map(|state| !state);
            true
        }
        ["hostInterfaces", _, "enabled"] => {
            inventory.host_interfaces.as_mut().expect("interfaces")[0].enabled = Some(true);
            true
        }
        _ => match fact.strip_prefix("bios.attributes.") {
            Some(name) => {
                let attributes = inventory.bios.attributes.as_mut().expect("attributes");
                attributes.insert(name.to_owned(), AttributeValue::Text("Changed".to_owned()));
                true
            }
            None => false,
        },
    }
}

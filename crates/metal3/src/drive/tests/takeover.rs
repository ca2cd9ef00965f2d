//! Hosts that others made.

use super::*;

fn existing(name: &str, address: &str) -> Model {
    let mut model = Model::new();
    model.edit(name, "kubectl-create", &json!({ "spec": {
        "online": true, "bootMACAddress": "02:00:5E:00:00:01", "bootMode": "legacy", "automatedCleaningMode": "disabled",
        "bmc": { "address": address, "credentialsName": "theirs", "disableCertificateVerification": true },
    } }));
    model.pass(3600);
    model
}

#[test]
fn a_host_of_another_name_is_taken_over_and_never_doubled() {
    for address in ["redfish://10.0.0.1/redfish/v1/Systems/1", "ipmi://10.0.0.1"] {
        let (mut model, registration) = (existing("rack-1-unit-4", address), registration());
        for wish in [Wish::Available, provisioned("d1"), Wish::Released] {
            assert_eq!(settle(&mut model, &registration, &wish), Next::Reached, "{wish}");
            assert_eq!(model.host_names(), ["rack-1-unit-4"]);
        }
        let host = model.host("rack-1-unit-4").unwrap();
        assert_eq!(host.labels[crate::LABEL_MACHINE], "m1");
        assert_eq!(host.spec.bmc.address, address, "how its BMC is reached is left as it was");
        assert_eq!(host.spec.boot_mode, "legacy");
        assert_eq!(
            host.spec.automated_cleaning_mode, "metadata",
            "that disks are cleaned is the cell's to say"
        );
    }
}

#[test]
fn without_an_account_of_ours_a_host_keeps_its_own() {
    let (mut model, mut registration) =
        (existing("old", "redfish://10.0.0.1/redfish/v1/Systems/1"), registration());
    registration.credentials = None;
    assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
    assert_eq!(model.host("old").unwrap().spec.bmc.credentials_name, "theirs");
    assert!(model.secret_names().is_empty());
}

#[test]
fn with_an_account_of_ours_it_gets_that() {
    let (mut model, registration) =
        (existing("old", "redfish://10.0.0.1/redfish/v1/Systems/1"), registration());
    assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
    assert_eq!(model.host("old").unwrap().spec.bmc.credentials_name, bmc_secret("old"));
}

#[test]
fn an_edit_after_the_takeover_is_an_edit_by_hand() {
    let (mut model, registration) =
        (existing("old", "redfish://10.0.0.1/redfish/v1/Systems/1"), registration());
    assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
    model.edit("old", "kubectl-edit", &json!({ "spec": { "automatedCleaningMode": "disabled" } }));
    assert_eq!(code(&settle(&mut model, &registration, &Wish::Available)).0, "metal3.edited-by-hand");
}

#[test]
fn a_running_host_is_taken_over_running_and_can_be_released() {
    let (mut model, registration) =
        (existing("old", "redfish://10.0.0.1/redfish/v1/Systems/1"), registration());
    model.edit(
        "old",
        "kubectl-create",
        &json!({ "spec": { "image": { "url": "http://x/y.raw", "checksum": "1" } } }),
    );
    for _ in 0..8 {
        model.operate("old");
    }
    assert_eq!(settle(&mut model, &registration, &Wish::Registered), Next::Reached);
    assert_eq!(code(&settle(&mut model, &registration, &provisioned("d1"))).0, "metal3.deployed");
    assert_eq!(model.host("old").unwrap().state(), &ProvisioningState::Provisioned);
    assert_eq!(settle(&mut model, &registration, &Wish::Released), Next::Reached);
    assert!(!model.host("old").unwrap().spec.has_deployment());
}

#[test]
fn two_hosts_of_one_machine_are_refused() {
    let mut model = existing("a", "redfish://10.0.0.1/redfish/v1/Systems/1");
    model.edit("b", "x", &json!({ "spec": { "bootMACAddress": "02:00:5e:00:00:01" } }));
    let hosts: Vec<_> = model.host_names().into_iter().filter_map(|name| model.host(name)).collect();
    let problem = find(&registration(), &hosts).unwrap_err();
    assert_eq!((problem.code.as_str(), problem.found.as_deref()), ("metal3.ambiguous", Some("a, b")));
}

#[test]
fn another_machines_host_and_another_cells_are_refused() {
    let (mut model, registration) = (Model::new(), registration());
    model.edit(
        "m1",
        "x",
        &json!({ "spec": { "bmc": { "address": "redfish://10.0.0.9/redfish/v1/Systems/1" } } }),
    );
    let taken = find(&registration, &[model.host("m1").unwrap()]).unwrap_err();
    assert_eq!(taken.code, "metal3.name-taken");
    let labels =
        json!({ "metadata": { "labels": { crate::LABEL_OWNER: "cell-2", crate::LABEL_MACHINE: "m1" } } });
    model.edit("m1", "bailiwick", &labels);
    let other = find(&registration, &[model.host("m1").unwrap()]).unwrap_err();
    assert_eq!((other.code.as_str(), other.found.as_deref()), ("metal3.other-cell", Some("cell-2")));
}

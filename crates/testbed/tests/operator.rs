//! baremetal-operator starts on a real control plane and a real Ironic, and takes a host of a BMC that
//! nobody here wrote from creation to `available`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test, in helpers too"
)]

use bailiwick_testbed::{BaremetalOperator, ControlPlane, Ironic, SushyEmulator};
use serde_json::json;

async fn resources_of(control_plane: &ControlPlane) -> Vec<String> {
    let list = ["get", "crd", "-o", "jsonpath={.items[*].spec.names.kind}"];
    let kinds = control_plane.kubectl(&list, None).await.unwrap().success().unwrap();
    kinds.split(' ').map(str::to_owned).collect()
}

/// Waits until a field of the host is this; on failure shows the host and the operator's log.
async fn host_reaches(
    control_plane: &ControlPlane,
    operator: &BaremetalOperator,
    host: &str,
    field: &str,
    value: &str,
) {
    let (host, namespace) = (format!("bmh/{host}"), format!("--namespace={}", operator.namespace()));
    let condition = format!("--for=jsonpath={{{field}}}={value}");
    let wait = ["wait", &host, &namespace, &condition, "--timeout=120s"];
    let waited = control_plane.kubectl(&wait, None).await.unwrap();
    let shown = control_plane.kubectl(&["get", &host, &namespace, "-o", "yaml"], None).await.unwrap().stdout;
    assert!(waited.status.success(), "{}\n{shown}\n{}", waited.stderr, operator.log());
}

#[tokio::test]
async fn it_registers_its_resources_and_takes_a_host_to_available() {
    let control_plane = ControlPlane::options().scheduler(false);
    let (control_plane, ironic, emulator) = tokio::join!(
        control_plane.start(),
        Ironic::options().http_basic(true).start(),
        SushyEmulator::start()
    );
    let (control_plane, ironic, emulator) = (control_plane.unwrap(), ironic.unwrap(), emulator.unwrap());
    let operator = BaremetalOperator::start(&control_plane, &ironic).await.unwrap();
    let resources = resources_of(&control_plane).await;
    for kind in ["BareMetalHost", "HardwareData", "HostFirmwareSettings", "PreprovisioningImage"] {
        assert!(resources.iter().any(|known| known == kind), "{kind} is missing in {resources:?}");
    }

    let system = emulator.system_uuids().next().unwrap();
    let secret = json!({ "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "bmc", "namespace": operator.namespace() },
        "stringData": { "username": emulator.username(), "password": emulator.password() } });
    let host = json!({ "apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost",
        "metadata": { "name": "host", "namespace": operator.namespace() },
        "spec": { "online": false, "bootMACAddress": "02:00:5e:10:00:01", "bootMode": "UEFI",
            "automatedCleaningMode": "disabled", "inspectionMode": "disabled", "bmc": {
            "address": format!("redfish-virtualmedia+https://{}/redfish/v1/Systems/{system}", emulator.address()),
            "credentialsName": "bmc", "disableCertificateVerification": true } } });
    for object in [secret, host] {
        let apply = ["apply", "--server-side", "-f", "-"];
        control_plane.kubectl(&apply, Some(&object.to_string())).await.unwrap().success().unwrap();
    }
    host_reaches(&control_plane, &operator, "host", ".status.provisioning.state", "available").await;
}

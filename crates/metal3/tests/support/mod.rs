//! What both suites need: a cell's user in a namespace, and a machine to register.

use std::collections::BTreeMap;
use std::path::Path;

use bailiwick_metal3::{
    BmcAddress, BootMode, Cleaning, Credentials, Inspection, Place, Power, Registration, SecretText,
};
use domain::Name;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use testbed::ControlPlane;

/// The verbs that the crate's documentation names, and no others.
const RULES: [(&str, &str, &[&str]); 3] = [
    ("metal3.io", "baremetalhosts", &["get", "list", "create", "patch", "delete"]),
    ("metal3.io", "hardwaredata", &["get"]),
    ("", "secrets", &["get", "create", "patch", "delete"]),
];

/// Makes a namespace in which the user `cell-<namespace>` may do what a cell must, and a client of that user.
pub async fn cell(plane: &ControlPlane, namespace: &str) -> Client {
    plane.create_namespace(namespace).await.unwrap();
    let user = format!("cell-{namespace}");
    let rules: Vec<_> = RULES
        .iter()
        .map(|(group, resource, verbs)| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs }))
        .collect();
    let metadata = json!({ "name": "cell", "namespace": namespace });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "cell" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
    });
    for object in [role, binding] {
        apply(plane, &object).await;
    }
    client(&plane.kubeconfig_for(&user, &[]).unwrap()).await
}

pub async fn client(kubeconfig: &Path) -> Client {
    // Whoever installed it first installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Applies an object as the administrator.
pub async fn apply(plane: &ControlPlane, object: &Value) {
    let arguments = ["apply", "--server-side", "-f", "-"];
    plane.kubectl(&arguments, Some(&object.to_string())).await.unwrap().success().unwrap();
}

/// What kubectl prints for the administrator.
pub async fn kubectl(plane: &ControlPlane, arguments: &[&str]) -> String {
    plane.kubectl(arguments, None).await.unwrap().success().unwrap()
}

/// Merges a patch into a host, as a person would.
pub async fn edit(plane: &ControlPlane, namespace: &str, host: &str, patch: &Value) {
    let (namespace, patch) = (format!("--namespace={namespace}"), patch.to_string());
    let arguments =
        ["patch", "bmh", host, &namespace, "--type=merge", "--field-manager=kubectl-edit", "-p", &patch];
    kubectl(plane, &arguments).await;
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A machine of cell `cell-1` without an agent: neither inspected nor cleaned.
pub fn registration(
    machine: &str,
    address: BmcAddress,
    mac: &str,
    credentials: (&str, &str),
) -> Registration {
    Registration {
        cell: name("cell-1"),
        machine: name(machine),
        address,
        verify_certificate: false,
        credentials: Some(Credentials {
            username: credentials.0.to_owned(),
            password: SecretText::new(credentials.1),
        }),
        boot_mac: Some(mac.to_owned()),
        boot_mode: BootMode::Uefi,
        inspection: Inspection::Disabled,
        cleaning: Cleaning::Disabled,
        idle_power: Power::Off,
        root_device: BTreeMap::new(),
        place: Place {
            jurisdiction: name("de"),
            site: name("fra-1"),
            zone_tier: "secret".to_owned(),
            zone_handling: None,
            model: Some("CPU Node (rev. 1)".to_owned()),
        },
        known_uid: None,
        expected: false,
    }
}

//! A control plane in which a cell may do what `manifests/cell-clusterrole.yaml` says, and nothing else.

use crate::h100::{h100, in_mig_mode};
use bailiwick_dra::{
    DryRun, GpuKey, Input, Object, PROOF_GROUP, PROOF_USER, Proof, PublishedMachine, ServerSupport,
    TaintRuleVersion, judge, proof_slice, publish,
};
use domain::inventory::Gpu;
use domain::probe::Driver;
use domain::{Containment, Name};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testbed::{ControlPlane, Output};

/// Generous: the machine may be compiling at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Cluster {
    pub(crate) plane: Arc<ControlPlane>,
    /// The cell's credential.
    pub(crate) cell: PathBuf,
}

impl Cluster {
    /// The control plane that these tests share, with the policies in force.
    pub(crate) async fn guarded() -> Self {
        let cluster = Self::of(ControlPlane::shared().await.unwrap()).await;
        cluster.guard().await;
        cluster
    }

    /// A cell's user and its role in a control plane.
    pub(crate) async fn of(plane: Arc<ControlPlane>) -> Self {
        let manifest = testbed::repository_root().join("manifests/cell-clusterrole.yaml");
        let role = std::fs::read_to_string(manifest).unwrap();
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "bailiwick-cell" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bailiwick-cell" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bailiwick-cell" }],
        });
        for text in [role, binding.to_string()] {
            plane
                .kubectl(&["apply", "--server-side", "-f", "-"], Some(&text))
                .await
                .unwrap()
                .success()
                .unwrap();
        }
        let cell = plane.kubeconfig_for("bailiwick-cell", &[]).unwrap();
        Self { plane, cell }
    }

    /// Applies the policies, and waits until each of them is in force: that takes the server some seconds.
    pub(crate) async fn guard(&self) {
        for object in publish(&input("unused", &[])).declared {
            self.apply(&object).await;
        }
        self.until(Proof::Holds).await;
        for attempt in [
            rule("probe", &json!({})),
            class("probe", "gpu.bailiwick.dev/probe"),
            claim("probe", "c", &json!([{ "operator": "Exists" }])),
        ] {
            let start = Instant::now();
            while self.dry_run(&attempt).await.status.success() {
                assert!(start.elapsed() < PATIENCE, "never refused: {attempt}");
            }
        }
    }

    /// What the cell itself finds, impersonating a kubelet in a dry run.
    pub(crate) async fn proof(&self) -> Proof {
        let slice = proof_slice(&input("unused", &[])).text().to_owned();
        let (user, group) = (format!("--as={PROOF_USER}"), format!("--as-group={PROOF_GROUP}"));
        let arguments = [&user, &group, "create", "--dry-run=server", "-f", "-"];
        let output = self.plane.kubectl_as(&self.cell, &arguments, Some(&slice)).await.unwrap();
        let refused = DryRun::Refused { code: 403, message: &output.stderr };
        judge(if output.status.success() { DryRun::Accepted } else { refused })
    }

    pub(crate) async fn until(&self, wanted: Proof) {
        let start = Instant::now();
        loop {
            let found = self.proof().await;
            if found == wanted {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{found:?} instead of {wanted:?}");
        }
    }

    /// Applies an object as the cell, and returns what the server made of it.
    pub(crate) async fn apply(&self, object: &Object) -> Value {
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=bailiwick",
            "-o",
            "json",
            "-f",
            "-",
        ];
        let output = self.plane.kubectl_as(&self.cell, &arguments, Some(object.text())).await.unwrap();
        serde_json::from_str(&output.success().unwrap()).unwrap()
    }

    /// Creates as a kubelet, or whoever has the credential.
    pub(crate) async fn create_as(&self, who: &Path, object: &Value) -> Output {
        self.plane.kubectl_as(who, &["create", "-f", "-"], Some(&object.to_string())).await.unwrap()
    }

    /// Whether an administrator, whom no authorisation stops, could create it.
    pub(crate) async fn dry_run(&self, object: &Value) -> Output {
        self.plane
            .kubectl(&["create", "--dry-run=server", "-f", "-"], Some(&object.to_string()))
            .await
            .unwrap()
    }

    pub(crate) async fn admin(&self, arguments: &[&str]) -> String {
        self.plane.kubectl(arguments, None).await.unwrap().success().unwrap()
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Machines named `<prefix>-<jurisdiction>` with 8 GPUs each, one in each of these jurisdictions.
pub(crate) fn input(prefix: &str, jurisdictions: &[&str]) -> Input {
    let mut input = Input::new(name("cell-1"), "bailiwick-cell");
    let within = |child, parent| (name(child), vec![name(parent)]);
    input.jurisdictions = Containment::new([
        (name("world"), vec![]),
        within("eu", "world"),
        within("de", "eu"),
        within("us", "world"),
    ])
    .unwrap();
    for jurisdiction in jurisdictions {
        let site = json!({
            "jurisdiction": jurisdiction, "operator": "acme", "country": "DE", "bmcNetworks": ["10.0.0.0/8"],
            "zone": { "tier": "secret", "handling": "sensitive" },
        });
        input.sites.insert(name(jurisdiction), serde_json::from_value(site).unwrap());
        input.machines.push(machine(&format!("{prefix}-{jurisdiction}"), jurisdiction, 8));
    }
    input.server = ServerSupport { taint_rules: Some(TaintRuleVersion::V1Beta2), ..ServerSupport::default() };
    input
}

pub(crate) fn machine(machine: &str, site: &str, gpus: usize) -> PublishedMachine {
    let gpu = |at| Gpu {
        model: Some("NVIDIA H100 80GB HBM3".to_owned()),
        manufacturer: Some("NVIDIA".to_owned()),
        serial: Some(format!("{machine}-{at}")),
        uuid: Some(format!("{machine}-uuid-{at}")),
        part_number: Some("2330-885-A1".to_owned()),
        firmware_version: Some("96.00.A5.00.01".to_owned()),
        pci_address: Some(format!("0000:{at:02x}:00.0")),
        ..Gpu::default()
    };
    PublishedMachine {
        name: name(machine),
        site: name(site),
        rack: serde_json::from_value(json!({ "name": "r1", "unit": 4 })).unwrap(),
        zone: None,
        gpus: (0..gpus).map(gpu).collect(),
        alarms: vec![],
        driver: None,
        gpu_driver: domain::base_cluster::GpuDriver::Bailiwick,
        partitions: vec![],
    }
}

/// The same in Germany, whose GPUs are probed, in MIG mode, and may be parted into anything.
pub(crate) fn probed(input: &mut Input, at: &str, gpus: usize) -> PublishedMachine {
    let driver = Driver { version: Some("580.95.05".into()), nvml: None, cuda: Some("13.0".into()) };
    let parted = PublishedMachine {
        driver: Some(driver),
        partitions: vec![domain::Partitions::All],
        ..machine(at, "de", gpus)
    };
    input.probed.extend(parted.gpus.iter().filter_map(GpuKey::of).map(|key| (key, in_mig_mode(h100(None)))));
    parted
}

/// A taint rule of somebody else's.
pub(crate) fn rule(name: &str, selector: &Value) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1beta2", "kind": "DeviceTaintRule", "metadata": { "name": name },
        "spec": { "deviceSelector": selector, "taint": { "key": "example.com/x", "effect": "NoSchedule" } },
    })
}

/// A class of somebody else's with an extended resource.
pub(crate) fn class(name: &str, extended: &str) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": name },
        "spec": { "extendedResourceName": extended },
    })
}

/// A claim for one device of a class.
pub(crate) fn claim(name: &str, class: &str, tolerations: &Value) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "devices": { "requests": [
            { "name": "gpu", "exactly": { "deviceClassName": class, "tolerations": tolerations } },
        ] } },
    })
}

//! The objects, one function each.

use super::{ClusterInput, ControlPlane, TAINT_UNVERIFIED, host_selector};
use crate::registration::Payload;
use crate::{LABEL_JURISDICTION, LABEL_OWNER, MANAGER};
use domain::Digest;
use serde_json::{Map, Value, json};

const CLUSTER: &str = "cluster.x-k8s.io";
const CONTROL_PLANE: &str = "controlplane.cluster.x-k8s.io";
const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
const VERSION: &str = "v1beta2";
const LABEL_CLUSTER: &str = "cluster.x-k8s.io/cluster-name";
const LABEL_DEPLOYMENT: &str = "cluster.x-k8s.io/deployment-name";

pub(super) struct Objects<'a> {
    input: &'a ClusterInput,
}

impl<'a> Objects<'a> {
    pub(super) fn new(input: &'a ClusterInput) -> Self {
        Self { input }
    }

    pub(super) fn all(&self) -> Vec<Value> {
        let mut objects = vec![self.cluster(), self.metal3_cluster()];
        if let ControlPlane::Machines { count } = self.input.control_plane {
            let data = self.data_template("control-plane");
            let machines = self.machine_template("control-plane", &data);
            let plane = self.kubeadm_control_plane(count, &machines);
            objects.extend([data, machines, plane]);
        }
        let data = self.data_template("workers");
        let machines = self.machine_template("workers", &data);
        let config = self.kubeadm_config_template();
        let deployment = self.machine_deployment(&machines, &config);
        objects.extend([data, machines, config, deployment]);
        objects.extend(self.health_check());
        objects
    }

    fn cluster(&self) -> Value {
        let input = self.input;
        let name = input.name.as_str();
        let mut spec = json!({
            "clusterNetwork": {
                "apiServerPort": input.endpoint_port,
                "serviceDomain": "cluster.local",
            },
            "controlPlaneEndpoint": { "host": input.endpoint_host, "port": input.endpoint_port },
            "infrastructureRef": { "apiGroup": INFRASTRUCTURE, "kind": "Metal3Cluster", "name": name },
        });
        for (field, networks) in [("pods", &input.pod_cidrs), ("services", &input.service_cidrs)] {
            if !networks.is_empty() {
                spec["clusterNetwork"][field] = json!({ "cidrBlocks": networks });
            }
        }
        let reference = match &input.control_plane {
            ControlPlane::Machines { .. } => {
                Some(json!({ "apiGroup": CONTROL_PLANE, "kind": "KubeadmControlPlane", "name": self.plane_name() }))
            }
            ControlPlane::External { reference } => reference.as_ref().map(|reference| {
                json!({ "apiGroup": reference.api_group, "kind": reference.kind, "name": reference.name })
            }),
        };
        if let Some(reference) = reference {
            spec["controlPlaneRef"] = reference;
        }
        self.object(CLUSTER, "Cluster", name, &spec)
    }

    fn metal3_cluster(&self) -> Value {
        let input = self.input;
        let spec = json!({
            "controlPlaneEndpoint": { "host": input.endpoint_host, "port": input.endpoint_port },
            // Without a cloud provider the Metal3 provider itself gives nodes their providerID.
            "cloudProviderEnabled": false,
        });
        self.object(INFRASTRUCTURE, "Metal3Cluster", input.name.as_str(), &spec)
    }

    /// Names a node after its host, which is named after its machine: the cell compares the two.
    fn data_template(&self, part: &str) -> Value {
        let host = |key: &str| json!({ "key": key, "object": "baremetalhost" });
        let spec = json!({
            "clusterName": self.input.name,
            "metaData": { "objectNames": [host("name"), host("local-hostname"), host("local_hostname")] },
        });
        self.named_by_content(INFRASTRUCTURE, "Metal3DataTemplate", part, &spec)
    }

    fn machine_template(&self, part: &str, data: &Value) -> Value {
        let spec = json!({
            "template": { "spec": {
                "image": image(&self.input.image),
                "hostSelector": { "matchLabels": host_selector(self.input) },
                "dataTemplate": { "name": data["metadata"]["name"] },
                // What ran on a machine is erased before anything else runs on it.
                "automatedCleaningMode": "metadata",
            } },
        });
        self.named_by_content(INFRASTRUCTURE, "Metal3MachineTemplate", part, &spec)
    }

    fn kubeadm_control_plane(&self, count: u32, machines: &Value) -> Value {
        let roles = ["node-role.kubernetes.io/control-plane", TAINT_UNVERIFIED];
        let registration = self.node_registration(&roles);
        let mut spec = json!({
            "replicas": count,
            "version": self.version(),
            "machineTemplate": { "spec": { "infrastructureRef": reference(machines) } },
            "kubeadmConfigSpec": {
                "format": "cloud-config",
                "clusterConfiguration": {
                    "controlPlaneEndpoint": format!("{}:{}", self.bracketed_host(), self.input.endpoint_port),
                },
                "initConfiguration": { "nodeRegistration": registration },
                "joinConfiguration": { "nodeRegistration": registration },
            },
        });
        if count >= 3 {
            // There is no spare server to add first; with three, one may be missing.
            spec["rollout"] =
                json!({ "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0 } } });
        }
        self.object(CONTROL_PLANE, "KubeadmControlPlane", &self.plane_name(), &spec)
    }

    fn kubeadm_config_template(&self) -> Value {
        let spec = json!({
            "template": { "spec": {
                "format": "cloud-config",
                "joinConfiguration": { "nodeRegistration": self.node_registration(&[TAINT_UNVERIFIED]) },
            } },
        });
        self.named_by_content(BOOTSTRAP, "KubeadmConfigTemplate", "workers", &spec)
    }

    fn machine_deployment(&self, machines: &Value, config: &Value) -> Value {
        let cluster = self.input.name.as_str();
        let name = self.part("workers");
        let labels = json!({ LABEL_CLUSTER: cluster, LABEL_DEPLOYMENT: name });
        let spec = json!({
            "clusterName": cluster,
            "replicas": self.input.workers,
            "rollout": { "strategy": {
                "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 },
            } },
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "clusterName": cluster,
                    "version": self.version(),
                    "bootstrap": { "configRef": reference(config) },
                    "infrastructureRef": reference(machines),
                },
            },
        });
        self.object(CLUSTER, "MachineDeployment", &name, &spec)
    }

    fn health_check(&self) -> Option<Value> {
        let check = self.input.health_check?;
        let condition = |status: &str| json!({ "type": "Ready", "status": status, "timeoutSeconds": check.unhealthy_after });
        let labels = json!({ LABEL_CLUSTER: self.input.name, LABEL_DEPLOYMENT: self.part("workers") });
        let spec = json!({
            "clusterName": self.input.name,
            "selector": { "matchLabels": labels },
            "checks": {
                "nodeStartupTimeoutSeconds": check.startup_within,
                "unhealthyNodeConditions": [condition("Unknown"), condition("False")],
            },
            // A rack without power or network is no reason to erase it.
            "remediation": { "triggerIf": { "unhealthyLessThanOrEqualTo": "20%" } },
        });
        Some(self.object(CLUSTER, "MachineHealthCheck", &self.part("workers"), &spec))
    }

    fn node_registration(&self, taints: &[&str]) -> Value {
        let mut arguments = self.input.kubelet_args.clone();
        // By this label the Metal3 provider finds the node of a host.
        let labels = arguments.entry("node-labels".to_owned()).or_default();
        if !labels.is_empty() {
            labels.push(',');
        }
        labels.push_str("metal3.io/uuid={{ ds.meta_data.uuid }}");
        let arguments: Vec<_> =
            arguments.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        let taints: Vec<_> = taints.iter().map(|key| json!({ "key": key, "effect": "NoSchedule" })).collect();
        json!({ "name": "{{ ds.meta_data.name }}", "kubeletExtraArgs": arguments, "taints": taints })
    }

    fn version(&self) -> String {
        format!("v{}", self.input.kubernetes_version.trim_start_matches('v'))
    }

    fn bracketed_host(&self) -> String {
        let host = &self.input.endpoint_host;
        if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.clone() }
    }

    fn plane_name(&self) -> String {
        self.part("control-plane")
    }

    fn part(&self, part: &str) -> String {
        format!("{}-{part}", self.input.name)
    }

    fn object(&self, group: &str, kind: &str, name: &str, spec: &Value) -> Value {
        let input = self.input;
        json!({
            "apiVersion": format!("{group}/{VERSION}"),
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": input.namespace,
                "labels": {
                    "app.kubernetes.io/managed-by": MANAGER,
                    LABEL_CLUSTER: input.name,
                    LABEL_JURISDICTION: input.jurisdiction,
                    LABEL_OWNER: input.cell,
                },
            },
            "spec": spec,
        })
    }

    fn named_by_content(&self, group: &str, kind: &str, part: &str, spec: &Value) -> Value {
        let digest = Digest::of_json(spec).to_string();
        let name = format!("{}-{}", self.part(part), &digest["sha256:".len()..][..8]);
        self.object(group, kind, &name, spec)
    }
}

fn image(payload: &Payload) -> Value {
    match payload {
        Payload::Disk { url, checksum, algorithm, format } => json!({
            "url": url, "checksum": checksum, "checksumType": algorithm.as_str(), "diskFormat": format.as_str(),
        }),
        // The schema wants a checksum of an ISO too, and lets it be empty.
        Payload::LiveIso { url } => json!({ "url": url, "checksum": "", "diskFormat": "live-iso" }),
        Payload::Custom { .. } => Value::Object(Map::new()),
    }
}

/// What refers to an object that was made here.
fn reference(object: &Value) -> Value {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    json!({
        "apiGroup": version.split('/').next().unwrap_or_default(),
        "kind": object["kind"],
        "name": object["metadata"]["name"],
    })
}

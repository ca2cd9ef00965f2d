//! Whether a node is the machine that it says it is, and what it is given once it is.

use super::UNVERIFIED;
use crate::error::coded;
use domain::declaration::{MachineSpec, SiteSpec, Zone};
use domain::instance::Instance;
use domain::{Name, Problem};
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Labels that no kubelet may set (admission plugin NodeRestriction).
const PREFIX: &str = "node-restriction.kubernetes.io";

/// What a node is held against.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub machine: &'a Name,
    pub spec: &'a MachineSpec,
    pub site: &'a SiteSpec,
    pub zone: Option<&'a Zone>,
    /// The machine's system UUID, as its BMC tells.
    pub uuid: Option<&'a str>,
    pub instance: &'a Instance,
}

impl Expected<'_> {
    /// The labels that a verified node bears: where it stands and whose law holds there.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let rack = self.spec.rack.as_ref().map(|rack| rack.name.to_string());
        let values = [
            ("machine", Some(self.machine.to_string())),
            ("jurisdiction", Some(self.site.jurisdiction.to_string())),
            ("site", Some(self.spec.site.to_string())),
            ("rack", rack),
            ("zone-tier", self.zone.map(|zone| zone.tier.as_str().to_owned())),
            (
                "zone-handling",
                self.zone.and_then(|zone| zone.handling).map(|handling| handling.as_str().to_owned()),
            ),
            ("base-cluster", Some(self.instance.base_cluster.to_string())),
        ];
        let labels = values.into_iter().filter_map(|(key, value)| Some((format!("{PREFIX}/{key}"), value?)));
        labels.collect()
    }

    /// Every way in which the node is not the machine: then it does not belong here.
    pub(crate) fn differences(&self, node: &Node) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut differs = |code, message: String, found: String, expected: String| {
            problems.push(coded(code, message).difference(found, expected));
        };
        let machine = self.machine;
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if name != machine.as_str() {
            differs(
                "node.other-name",
                format!("the node of Machine/{machine} has another name"),
                name.into(),
                machine.to_string(),
            );
        }
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let uuid = info.map(|info| info.system_uuid.to_ascii_lowercase()).unwrap_or_default();
        if let Some(expected) = self.uuid
            && !same_uuid(&uuid, expected)
        {
            differs(
                "node.other-machine",
                format!("Node/{name} runs on another machine"),
                uuid,
                expected.to_owned(),
            );
        }
        // A kubelet may label itself at will outside the restricted prefixes: one that claims to stand elsewhere lies, or
        // was given another machine's configuration.
        let allowed = self.labels();
        for (key, value) in node.metadata.labels.iter().flatten() {
            let (prefix, word) = key.split_once('/').unwrap_or(("", key));
            let ours = prefix == PREFIX || prefix == "bailiwick.dev" || prefix.ends_with(".bailiwick.dev");
            let expected = allowed.get(&format!("{PREFIX}/{word}"));
            if ours && expected != Some(value) && (prefix != PREFIX || expected.is_some()) {
                differs(
                    "node.false-claim",
                    format!("Node/{name} claims by its label {key} what is not so"),
                    value.clone(),
                    expected.cloned().unwrap_or_else(|| "no such label".to_owned()),
                );
            }
        }
        problems
    }

    /// What verifying changes at the node: labels, and the taint goes. `None` where nothing is to be changed.
    pub(crate) fn admission(&self, node: &Node) -> Option<Value> {
        let labels = self.labels();
        let present = node.metadata.labels.clone().unwrap_or_default();
        let taints = taints(node);
        let kept: Vec<_> = taints.iter().filter(|taint| taint.key != UNVERIFIED).collect();
        if kept.len() == taints.len() && labels.iter().all(|(key, value)| present.get(key) == Some(value)) {
            return None;
        }
        Some(json!({
            // Should somebody have changed the node since it was read, it is read again first.
            "metadata": { "labels": labels, "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": kept },
        }))
    }
}

/// Whether the node waits to be verified.
pub(crate) fn is_unverified(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.key == UNVERIFIED)
}

/// Whether the kubelet says that it can run pods.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// SMBIOS stores the first three fields of a UUID little-endian (DSP0134 §7.2.1); some BMCs and kernels swap them, some not.
fn same_uuid(found: &str, expected: &str) -> bool {
    let expected = expected.to_ascii_lowercase();
    if found == expected {
        return true;
    }
    let (Ok(found), Ok(expected)) = (found.parse::<uuid::Uuid>(), expected.parse::<uuid::Uuid>()) else {
        return false;
    };
    uuid::Uuid::from_bytes(found.to_bytes_le()) == expected
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    const UUID: &str = "33221100-5544-7766-8899-aabbccddeeff";

    fn codes(change: impl FnOnce(&mut Value)) -> (Vec<String>, bool) {
        let mut node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": "m1", "labels": { "kubernetes.io/hostname": "m1" } },
            "spec": { "taints": [{ "key": UNVERIFIED, "effect": "NoSchedule" }] },
            "status": { "nodeInfo": {
                "systemUUID": UUID, "architecture": "amd64", "bootID": "b", "containerRuntimeVersion": "c",
                "kernelVersion": "6", "kubeProxyVersion": "", "kubeletVersion": "v1.36.3", "machineID": "m",
                "operatingSystem": "linux", "osImage": "o",
            } },
        });
        change(&mut node);
        let node: Node = serde_json::from_value(node).unwrap();
        let machine = Name::new("m1").unwrap();
        let spec: MachineSpec = serde_json::from_value(json!({
            "site": "fra1", "bmc": { "address": "10.0.0.5", "username": "root", "passwordFile": "pw" },
        }))
        .unwrap();
        let site: SiteSpec = serde_json::from_value(json!({
            "jurisdiction": "de", "operator": "acme", "country": "DE", "bmcNetworks": ["10.0.0.0/24"],
        }))
        .unwrap();
        let instance = Instance {
            id: uuid::Uuid::nil(),
            base_cluster: Name::new("pool").unwrap(),
            zone: None,
            since: Timestamp::UNIX_EPOCH,
            token_made: None,
            deployed: None,
            approved: None,
            failures: 0,
            node_uid: None,
        };
        let expected = Expected {
            machine: &machine,
            spec: &spec,
            site: &site,
            zone: None,
            uuid: Some(UUID),
            instance: &instance,
        };
        let codes = expected.differences(&node).into_iter().map(|problem| problem.code).collect();
        (codes, expected.admission(&node).is_some())
    }

    #[test]
    fn a_node_that_is_the_machine_is_labelled_and_its_taint_goes() {
        assert_eq!(codes(|_| {}), (Vec::new(), true));
    }

    #[test]
    fn a_node_with_all_labels_and_without_the_taint_is_left_alone() {
        let (codes, changes) = codes(|node| {
            for (key, value) in
                [("machine", "m1"), ("jurisdiction", "de"), ("site", "fra1"), ("base-cluster", "pool")]
            {
                node["metadata"]["labels"][format!("{PREFIX}/{key}")] = json!(value);
            }
            node["spec"]["taints"] = json!([]);
        });
        assert_eq!((codes, changes), (Vec::new(), false));
    }

    #[test]
    fn a_uuid_in_the_other_byte_order_is_the_same() {
        let swapped = "00112233-4455-6677-8899-AABBCCDDEEFF";
        assert_eq!(
            codes(|node| node["status"]["nodeInfo"]["systemUUID"] = json!(swapped)).0,
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_node_on_another_machine_does_not_belong() {
        let other = "11111111-5544-7766-8899-aabbccddeeff";
        assert_eq!(
            codes(|node| node["status"]["nodeInfo"]["systemUUID"] = json!(other)).0,
            ["node.other-machine"]
        );
        assert_eq!(codes(|node| node["status"] = json!({})).0, ["node.other-machine"]);
    }

    #[test]
    fn a_node_that_claims_another_jurisdiction_or_machine_does_not_belong() {
        for label in ["bailiwick.dev/jurisdiction", "bailiwick.dev/machine", "gpu.bailiwick.dev/anything"] {
            assert_eq!(
                codes(|node| node["metadata"]["labels"][label] = json!("fr")).0,
                ["node.false-claim"],
                "{label}"
            );
        }
    }
}

//! A base cluster as objects of Cluster API v1.14 (contract v1beta2) and its Metal3 provider v1.13 or newer.
//!
//! Pure and deterministic: the same input gives the same bytes. Templates are named after their content, since Cluster API
//! rolls machines over when the name of a template changes, and never looks at a changed template again.
//!
//! Nodes get the taint `bailiwick.dev/unverified:NoSchedule` and no labels of the cell's: a kubelet may not give itself those
//! (`node-restriction.kubernetes.io/`), and the cell sets them once it has verified the node (DESIGN §5.5).

mod objects;
#[cfg(test)]
mod tests;

use crate::error::problem;
use crate::registration::{Payload, label_value};
use domain::{Name, Problem};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Taint of a node that the cell has not verified.
pub const TAINT_UNVERIFIED: &str = "bailiwick.dev/unverified";

/// A base cluster as Cluster API is to make it.
#[derive(Clone, Debug)]
pub struct ClusterInput {
    /// The cell that owns it.
    pub cell: Name,
    /// Its name: at most 40 characters, so that what is derived from it fits.
    pub name: Name,
    /// Namespace of its objects and of the hosts.
    pub namespace: Name,
    /// Jurisdiction of its machines.
    pub jurisdiction: Name,
    /// Site of its machines.
    pub site: Name,
    /// Tier of its zone.
    pub zone_tier: String,
    /// Handling marking of its zone, if any.
    pub zone_handling: Option<String>,
    /// Kubernetes version, with or without a leading `v`.
    pub kubernetes_version: String,
    /// Who runs its control plane.
    pub control_plane: ControlPlane,
    /// How many machines are workers.
    pub workers: u32,
    /// What its machines run.
    pub image: Payload,
    /// Where its API server is reached: host without scheme.
    pub endpoint_host: String,
    /// Port of the API server.
    pub endpoint_port: u16,
    /// Networks of pods.
    pub pod_cidrs: Vec<IpNet>,
    /// Networks of services.
    pub service_cidrs: Vec<IpNet>,
    /// Further labels that a host must have, such as [`crate::LABEL_MODEL`].
    pub host_selector: BTreeMap<String, String>,
    /// Further arguments of kubelets.
    pub kubelet_args: BTreeMap<String, String>,
    /// When machines are replaced by themselves, which erases them; never where absent.
    pub health_check: Option<HealthCheck>,
}

/// Who runs the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlPlane {
    /// Somebody else. Cluster API joins workers once a control plane says that it is initialised, so it must be an object of
    /// some provider; without a reference the objects are complete but for that.
    External {
        /// API group, kind and name of that object, such as `controlplane.cluster.x-k8s.io`, `KamajiControlPlane`.
        reference: Option<Reference>,
    },
    /// So many machines.
    Machines {
        /// An odd number.
        count: u32,
    },
}

/// An object of another provider in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// API group without a version.
    pub api_group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// When a machine counts as broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// How long its node may be other than Ready, in seconds.
    pub unhealthy_after: u32,
    /// How long it may take to become a node, in seconds: servers boot for many minutes.
    pub startup_within: u32,
}

/// Longest name of a cluster.
const NAME_LIMIT: usize = 40;

/// The objects, in the order in which to apply them: the cluster, its control plane, its workers; each after what it refers to
/// where that matters to a reader. None of them holds a secret.
pub fn render(input: &ClusterInput) -> Result<Vec<Value>, Problem> {
    check(input)?;
    Ok(objects::Objects::new(input).all())
}

/// The same as YAML documents with every string quoted, so that no reader takes `on` for a truth value.
pub fn render_yaml(input: &ClusterInput) -> Result<String, Problem> {
    let options = serde_saphyr::ser_options! { quote_all: true };
    let mut text = String::new();
    for object in render(input)? {
        let document = serde_saphyr::to_string_with_options(&object, options.clone())
            .map_err(|error| Problem::new("api.internal", error.to_string()))?;
        let _ = write!(text, "---\n{document}");
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

fn check(input: &ClusterInput) -> Result<(), Problem> {
    if input.name.as_str().len() > NAME_LIMIT {
        let message = format!("the name `{}` is too long", input.name);
        let found = format!("{} characters", input.name.as_str().len());
        return Err(
            problem("cluster-api.name-too-long", message).difference(found, format!("{NAME_LIMIT} or fewer"))
        );
    }
    let version = input.kubernetes_version.trim_start_matches('v');
    let parts: Vec<_> = version.split('.').collect();
    if parts.len() != 3
        || !parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    {
        let message = format!("`{}` is no Kubernetes version", input.kubernetes_version);
        return Err(problem("cluster-api.version", message));
    }
    if let ControlPlane::Machines { count } = input.control_plane
        && count % 2 == 0
    {
        let message = format!("a control plane of {count} machines");
        return Err(problem("cluster-api.control-plane-count", message)
            .difference(count.to_string(), "an odd number"));
    }
    if let Payload::Custom { method } = &input.image {
        return Err(problem("cluster-api.image-invalid", format!("the method `{method}` is no image")));
    }
    input.kubelet_args.iter().try_for_each(|(name, value)| check_kubelet_argument(name, value))
}

/// Labels that a kubelet may give itself lie outside `kubernetes.io` and `k8s.io`, or are few (NodeRestriction); ours are the
/// cell's to give.
fn check_kubelet_argument(name: &str, value: &str) -> Result<(), Problem> {
    let refuse = |what: String| Err(problem("cluster-api.kubelet-argument", what));
    match name {
        "register-with-taints" | "kubeconfig" | "bootstrap-kubeconfig" | "hostname-override" => {
            refuse(format!("the kubelet argument `{name}` is not to be given"))
        }
        "node-labels" => {
            let restricted = |label: &&str| {
                let domain = label.split_once('/').map_or("", |(domain, _)| domain);
                ["kubernetes.io", "k8s.io", "bailiwick.dev"]
                    .iter()
                    .any(|ours| domain == *ours || domain.ends_with(&format!(".{ours}")))
            };
            match value.split(',').find(restricted) {
                Some(label) => refuse(format!("the kubelet may not give its node the label `{label}`")),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Labels that choose its hosts.
fn host_selector(input: &ClusterInput) -> BTreeMap<String, String> {
    let mut labels = input.host_selector.clone();
    labels.insert(crate::LABEL_OWNER.to_owned(), input.cell.to_string());
    labels.insert(crate::LABEL_JURISDICTION.to_owned(), input.jurisdiction.to_string());
    labels.insert(crate::LABEL_SITE.to_owned(), input.site.to_string());
    for (key, value) in [
        (crate::LABEL_ZONE_TIER, Some(&input.zone_tier)),
        (crate::LABEL_ZONE_HANDLING, input.zone_handling.as_ref()),
    ] {
        if let Some(value) = value.and_then(|text| label_value(text)) {
            labels.insert(key.to_owned(), value);
        }
    }
    labels
}

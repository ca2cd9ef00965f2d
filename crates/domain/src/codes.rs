//! The codes of this crate.

use crate::problem::Problem;

/// Code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "assignment.cluster-api",
        "The base cluster takes its machines by Cluster API, so none is assigned to it by name.",
        "Apply what `bailiwick render basecluster NAME` gives; its templates choose among available machines by label.",
    ),
    (
        "assignment.contradictory",
        "An assignment asks for two things that exclude each other.",
        "`drain` needs a `baseCluster`; `retire` excludes one; `lost` needs `retire`.",
    ),
    (
        "assignment.no-reason",
        "A machine is quarantined, or given up as lost, without a reason.",
        "Write a reason that the next person understands.",
    ),
    (
        "assignment.other-site",
        "The base cluster is one of another site.",
        "Choose a base cluster of the machine's own site.",
    ),
    (
        "assignment.other-zone",
        "The base cluster is one of another zone.",
        "Choose a base cluster of the machine's own zone.",
    ),
    (
        "basecluster.control-plane",
        "A control plane of machines needs Cluster API to set it up.",
        "Write `join: cluster-api`, or `controlPlane: external`.",
    ),
    (
        "basecluster.endpoint-malformed",
        "The endpoint is no address of an API server.",
        "Write `endpoint` as https://host:port.",
    ),
    (
        "basecluster.even-control-plane",
        "A control plane has an odd number of machines, at most nine.",
        "Choose 1, 3, 5, 7 or 9.",
    ),
    (
        "basecluster.image",
        "The image has no http(s) URL or no SHA-256 or SHA-512 checksum, or tokens would live longer than a day.",
        "Correct `image` and `tokenMinutes`.",
    ),
    (
        "basecluster.no-kubeconfig",
        "The cell has no way into the base cluster.",
        "Add `kubeconfig: {name: …, key: …}`, a secret in the cell's secrets directory.",
    ),
    (
        "basecluster.outside-jurisdiction",
        "The site of a base cluster lies outside its jurisdiction.",
        "Correct its `site` or its `jurisdiction`.",
    ),
    (
        "basecluster.version-malformed",
        "The Kubernetes version cannot be read.",
        "Write `kubernetesVersion` as in \"1.36.3\".",
    ),
    (
        "class.requires-nothing",
        "A GPU class requires nothing of its GPUs.",
        "Leave `requires` out for [probed, attested], or write [inventoried] for a trial.",
    ),
    (
        "declaration.api-version",
        "The apiVersion is not one that this version knows.",
        "Write `apiVersion: bailiwick.dev/v1alpha1`.",
    ),
    (
        "declaration.dangling",
        "A declaration refers to an object that is not declared.",
        "Declare that object, or correct the field named.",
    ),
    ("declaration.duplicate", "An object is declared twice.", "Keep one of the two."),
    (
        "declaration.in-use",
        "An object cannot be deleted while another refers to it.",
        "Delete the other too, or first.",
    ),
    ("declaration.kind", "There is no such kind.", "`bailiwick explain` takes each kind that there is."),
    ("declaration.malformed", "The document cannot be read.", "Mend it at the line named."),
    (
        "declaration.missing-field",
        "A field that must be there is missing.",
        "Add it; `bailiwick explain KIND` lists every field.",
    ),
    (
        "declaration.not-found",
        "No object of this kind and name is declared.",
        "`bailiwick get` lists what there is.",
    ),
    (
        "declaration.unknown-field",
        "A field does not exist.",
        "See the suggestion; `bailiwick explain KIND` lists every field.",
    ),
    ("declaration.unknown-value", "A value is not one of those that the field takes.", "See the suggestion."),
    (
        "erasure.disk-not-erased",
        "A disk was not erased, so the machine is not used again.",
        "Have the provisioning service clean the machine again; where that cannot be, `bailiwick retire MACHINE --lost --reason …` gives it up.",
    ),
    (
        "erasure.incomplete",
        "The record of an erasure leaves out a part that remembers.",
        "Have the provisioning service clean the machine again.",
    ),
    (
        "jurisdiction.not-nested",
        "The jurisdictions contain each other in a circle, or one lies within an undeclared one.",
        "Mend `within` of the jurisdictions named.",
    ),
    (
        "jurisdiction.outside-cell",
        "An object stands outside the jurisdiction of the cell.",
        "Enrol it in a cell of its own jurisdiction; a cell never reaches over its border.",
    ),
    (
        "machine.address-malformed",
        "The BMC's address is no host with or without a port.",
        "Correct `bmc.address`.",
    ),
    (
        "machine.ipmi-pin",
        "A machine that is reached by IPMI has a pin, and IPMI shows no key.",
        "Leave `bmc.pin` out, or declare the address of its Redfish service.",
    ),
    (
        "machine.ipmi-rotate",
        "The passwords of a machine that is reached by IPMI are to be replaced, which the cell does over Redfish alone.",
        "Leave `bmc.rotate` out.",
    ),
    (
        "machine.ipmi-zone",
        "A machine of a zone above `official` is reached by IPMI, which tells a salted hash of its password to whoever asks (CVE-2013-4786).",
        "Declare the address of its Redfish service.",
    ),
    (
        "machine.no-credentials",
        "A machine names no credentials.",
        "Add `bmc.passwordFile` or `bmc.secretRef`.",
    ),
    (
        "machine.two-credentials",
        "A machine names both a passwordFile and a secretRef.",
        "Keep one of the two.",
    ),
    (
        "permit.expired",
        "The cell's permit for a device ran out, so the device is not handed out. Running pods stay.",
        "Look at whether the node's agent reaches its cell; `bailiwick-agent` logs each call that failed.",
    ),
    (
        "permit.forged",
        "Permits are not signed by the cell that enrolled the agent.",
        "If the cell was set up anew, enrol the agent again; else find out what answers in the cell's place.",
    ),
    ("permit.malformed", "What came as permits cannot be read.", "Give agent and cell the same version."),
    (
        "permit.none",
        "The cell has given no permit for a device: its gate is closed.",
        "`bailiwick describe gpu UUID` and `bailiwick why MACHINE` tell what closes it.",
    ),
    (
        "permit.other-machine",
        "Permits are those of another machine.",
        "Enrol the agent with a token of its own machine; state of agents is never copied between machines.",
    ),
    (
        "permit.replayed",
        "Permits are older than those that the agent holds already.",
        "Find out what repeats old answers of the cell; look at the clocks of the cell's replicas.",
    ),
    ("site.no-networks", "A site names no BMC network.", "List at least one under `spec.bmcNetworks`."),
];

/// A problem of this crate with the hint of the catalogue.
pub(crate) fn coded(code: &'static str, message: impl Into<String>) -> Problem {
    let problem = Problem::new(code, message);
    match CODES.iter().find(|(known, ..)| *known == code) {
        Some((_, _, hint)) => problem.hint(*hint),
        None => problem,
    }
}

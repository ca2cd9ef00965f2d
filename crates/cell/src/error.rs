//! What keeps a cell from starting, and the codes that this crate adds to the catalogue.

use domain::{Diagnose, Name, Problem};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Codes of this crate: code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "agent.certificate-ended",
        "The certificate of an agent has ended, and it was not renewed.",
        "An agent renews its own, up to 30 days after its end; after that enrol it with a token of `bailiwick agent-token MACHINE`.",
    ),
    (
        "agent.no-certificate",
        "A call to the agents' listener comes without a certificate of an agent of this cell.",
        "Enrol the agent with a token of `bailiwick agent-token MACHINE`.",
    ),
    ("agent.no-listener", "This cell does not listen for agents.", "Start it with `--agent-listen ADDRESS`."),
    (
        "agent.report-malformed",
        "The report of an agent contradicts itself, or lists more than there can be.",
        "Give agent and cell the same version; if they have, find out what calls in the agent's place.",
    ),
    (
        "agent.request-malformed",
        "The certificate request of an agent cannot be used.",
        "Give agent and cell the same version.",
    ),
    (
        "agent.too-often",
        "An agent calls more often than any agent has to.",
        "Nothing to do if it stops; else look at its log.",
    ),
    (
        "agent.too-slow",
        "A call of an agent did not end in time.",
        "Look at the network between machine and cell; the agent calls again by itself.",
    ),
    (
        "basecluster.automatic-approval",
        "The base cluster approves certificates of our bootstrap tokens by itself, so the cell could refuse none.",
        "Delete the binding of ClusterRole `system:certificates.k8s.io:certificatesigningrequests:nodeclient` that covers group `system:bootstrappers:bailiwick` or `system:bootstrappers`.",
    ),
    (
        "basecluster.clock-skew",
        "The clock of the base cluster's API server differs from the database's, so that bootstrap tokens would end early or late; nothing is deployed meanwhile.",
        "Set the clock that is wrong: have both follow one time server.",
    ),
    (
        "basecluster.forbidden",
        "The cell's user may not do in the base cluster what it has to.",
        "Give it what `manifests/basecluster-clusterrole.yaml` lists.",
    ),
    (
        "basecluster.unreachable",
        "The API server of the base cluster did not answer as it should.",
        "Nothing to do if it comes back; else look at its control plane and at the kubeconfig.",
    ),
    (
        "cell.provisioner",
        "The settings of a provisioning service cannot be used.",
        "Correct them; `bailiwick serve --help` shows an example.",
    ),
    (
        "firmware.no-inventory",
        "The machine was never read, so nothing can be held against its profile.",
        "`bailiwick refresh MACHINE`.",
    ),
    (
        "join.agent-url",
        "The user data of a base cluster names the agent's enrolment, and the cell does not know at which address its agents call.",
        "Set `agent-url`, and start the cell anew; or take `{{agentEnrolment}}` out of `join.template.userData`, and enrol agents by hand.",
    ),
    (
        "join.name-mismatch",
        "A machine's bootstrap token was used to ask for the certificate of another name; the machine is quarantined.",
        "Somebody else has the token: find out who reads the machine's configuration drive or image, then unquarantine it.",
    ),
    (
        "join.not-provisioning",
        "A machine's bootstrap token was used while the machine is not being provisioned; it is quarantined.",
        "Find out who has the token, then unquarantine the machine.",
    ),
    (
        "join.request-malformed",
        "A certificate request with a machine's token is not that of a kubelet; the machine is quarantined.",
        "Find out what sent it, then unquarantine the machine.",
    ),
    (
        "join.template",
        "The user data of a base cluster names a value that there is not.",
        "Correct `join.template.userData`; `docs/how-to/provision-machines.md` lists the values.",
    ),
    (
        "join.token-late",
        "The machine did not ask for its certificate before its token's end; it is deployed anew.",
        "Look at its console; raise `tokenMinutes` if it boots that slowly.",
    ),
    (
        "join.token-reused",
        "A second certificate was asked for with a machine's token, which is used once; the machine is quarantined.",
        "Somebody else has the token: find out who reads the machine's configuration drive or image, then unquarantine it.",
    ),
    (
        "join.wrong-group",
        "The bootstrap token is of another group than ours; the machine is quarantined.",
        "Look for who changed the Secret `bootstrap-token-…` in kube-system.",
    ),
    (
        "limit.provisioner",
        "As many machines as may speak with the provisioning service at once do so already.",
        "Nothing to do if it answers; `bailiwick why` of the others tells if it does not. Raise `provisioner-at-once` if it bears more.",
    ),
    (
        "limit.site",
        "As many machines of the site as may be worked on at once are worked on already.",
        "Nothing to do; raise `machines-per-site` if the cell and the site's BMC network bear more.",
    ),
    (
        "machine.not-isolated",
        "The machine is quarantined, and its node is not cordoned, or the provisioning service does not leave it alone yet. It is tried until both is confirmed.",
        "See that the base cluster and the provisioning service answer; the message tells which does not. Nothing else to do: the next try comes by itself.",
    ),
    (
        "machine.under-way",
        "What was begun goes on.",
        "Nothing to do; `bailiwick why MACHINE` says how long it usually takes.",
    ),
    (
        "node.false-claim",
        "A node claims by a label to stand elsewhere than it does; its machine is quarantined.",
        "Look at the kubelet's configuration on the machine, then unquarantine it.",
    ),
    (
        "node.missing",
        "The machine's node is not in the base cluster.",
        "Look at the machine's console and kubelet; release it if it will not come back.",
    ),
    (
        "node.name-taken",
        "The base cluster has a node of the machine's name that is another machine.",
        "Delete or rename that node, or give the machine another name.",
    ),
    (
        "node.not-ready",
        "The machine's node is not Ready.",
        "Look at its conditions: `kubectl describe node`.",
    ),
    (
        "node.other-machine",
        "The node runs on another machine than the one whose name it bears; the machine is quarantined.",
        "Find out which machine was given this machine's data, then unquarantine it.",
    ),
    (
        "node.other-name",
        "The node has another name than its machine; the machine is quarantined.",
        "Look at the kubelet's `--hostname-override`, then unquarantine the machine.",
    ),
    (
        "node.pods-left",
        "Pods are still on a node that is drained.",
        "Look at their disruption budgets and finalizers.",
    ),
    (
        "node.replaced",
        "The node was deleted and registered anew since it was verified; its machine is quarantined.",
        "Find out who deleted it, then unquarantine the machine: it is erased and provisioned again.",
    ),
    (
        "provision.not-configured",
        "No provisioning service is configured, so machines are enrolled and go no further.",
        "Set `ironic-url` or `metal3-kubeconfig` in the cell's configuration and start it again.",
    ),
    (
        "provision.no-service",
        "No provisioning service takes machines of this site.",
        "Name one in the cell's settings; `bailiwick serve --help` shows an example.",
    ),
    (
        "api.bad-request",
        "The request is not of the form that the API takes.",
        "Compare it with `/openapi.json`.",
    ),
    (
        "api.forbidden",
        "The token's role may not do this.",
        "Use a token of a role that may, or ask an admin for one.",
    ),
    (
        "api.host-not-allowed",
        "The Host header names a host that this cell does not serve.",
        "Call it by its address, or add the name to `hosts`.",
    ),
    ("api.internal", "The cell could not do it; its log says why.", "Read the cell's log; try again."),
    ("api.not-found", "There is no such object or route.", "`bailiwick get` lists what there is."),
    (
        "api.too-slow",
        "The body of a request did not come in time.",
        "Try again; look at the network between client and cell.",
    ),
    (
        "api.unauthorized",
        "No token, or one that is unknown, expired or revoked.",
        "Give `--token-file`; the first token is `admin.token` in the data directory.",
    ),
    (
        "cell.authority",
        "The keys by which the cell signs cannot be made or read.",
        "Read the message; restore database and key file from one backup.",
    ),
    (
        "cell.data-dir",
        "The data directory cannot be used.",
        "Make it writable for the cell's user, or name another with `--data-dir`.",
    ),
    (
        "cell.jurisdiction-fixed",
        "The database belongs to a cell of another jurisdiction.",
        "Start with the jurisdiction it was made for, or with another database; a cell never changes its jurisdiction.",
    ),
    ("cell.jurisdiction-missing", "A new cell needs a jurisdiction.", "Start it with `--jurisdiction NAME`."),
    (
        "cell.listen",
        "The API cannot listen on the address.",
        "Choose another with `--listen`, or stop what uses it.",
    ),
    (
        "gpu.accept-stale",
        "A machine shows other GPUs than those that were shown to be accepted.",
        "Look again: `bailiwick accept gpus MACHINE` shows what there is now.",
    ),
    (
        "gpu.ambiguous",
        "Several GPUs are meant by one name.",
        "`bailiwick get gpus NAME` lists them; name one by its device.",
    ),
    (
        "gpu.not-allocatable",
        "GPUs match a class and cannot be claimed by it yet.",
        "The node agent's probe and an attestation verdict open this gate; nothing else does.",
    ),
    (
        "gpu.waits.bmc",
        "GPUs are not probed yet: a view that their machine's BMC gives was not read.",
        "`bailiwick refresh MACHINE`.",
    ),
    (
        "gpu.waits.driver",
        "GPUs are not probed yet: the driver on their machine was not heard.",
        "Install the agent on the machine and enrol it with a token of `bailiwick agent-token MACHINE`; where it is silent, look at its log there.",
    ),
    (
        "gpu.waits.never",
        "GPUs are never probed: by its firmware profile their model gives no view of the driver, or none from outside the host.",
        "Correct `gpuViews` of the profile; where the hardware gives no second view, only classes that require `inventoried` alone give such GPUs.",
    ),
    (
        "gpu.waits.profile",
        "GPUs are not probed yet: no firmware profile says which views their model gives, or several do.",
        "Have one profile fit the model, with `gpuViews`; `docs/how-to/firmware-profiles.md` shows how.",
    ),
    (
        "machine.mac-mismatch",
        "No interface of the machine or its BMC has the declared MAC address.",
        "Correct `spec.mac`, or look at which machine stands there.",
    ),
    (
        "machine.serial-mismatch",
        "The machine says another serial number than the declared one.",
        "Correct `spec.serial`, or look at which machine stands there.",
    ),
    (
        "machine.no-password",
        "The machine's password is not known to the cell.",
        "Apply its declaration again with its `passwordFile`, or mount the secret that `secretRef` names.",
    ),
    (
        "machine.unidentified",
        "The machine says neither serial number nor UUID, so it cannot be told from others.",
        "Read it with `bailiwick inspect`; update its BMC's firmware.",
    ),
    (
        "publish.agent-missing",
        "The machine has no agent yet, so its GPUs do not go to the cluster: nobody there could hand them out.",
        "Install the agent; where the machine was provisioned without `agent-url`, enrol it with a token of `bailiwick agent-token MACHINE`.",
    ),
    (
        "publish.agent-silent",
        "The machine's agent does not report, so its GPUs do not go to the cluster.",
        "Look at the agent's log on the machine, and at whether it reaches the cell.",
    ),
    (
        "publish.plugin-missing",
        "The machine's kubelet has not registered the agent's plugin, so its GPUs do not go to the cluster.",
        "Look at the logs of agent and kubelet on the machine; without live permits an agent is not registered.",
    ),
    (
        "publish.claims-unread",
        "The cell may not read who has which GPU in the cluster; publishing goes on.",
        "Apply `manifests/cell-clusterrole.yaml` again.",
    ),
    (
        "publish.cluster",
        "The cluster did not take an object.",
        "Read the message; `manifests/cell-clusterrole.yaml` says what the cell's user needs.",
    ),
    (
        "publish.directory",
        "The publish directory cannot be written.",
        "Make it writable, free disk space, or name another.",
    ),
    (
        "publish.extended-resource-taken",
        "A DeviceClass that is not ours names one of our extended resources: of two the newer one wins, so pods may get its devices.",
        "Delete that class, or take the name out of it; since the policies are in force nobody can make another.",
    ),
    (
        "publish.foreign-file",
        "A file that is not ours has the name of one to publish; it is left alone.",
        "Move the file away.",
    ),
    (
        "publish.foreign-object",
        "An object that is not ours has the name of one to publish; it is left alone.",
        "Rename or delete the object in the cluster.",
    ),
    (
        "publish.fields-dropped",
        "The API server silently dropped fields of an object.",
        "Switch on the feature gate that the field needs.",
    ),
    (
        "publish.cluster-user",
        "The cluster knows the cell by another user name than the admission policies would let write; nothing was written.",
        "Set `cluster-user` to the name found, or give the kubeconfig of the expected user.",
    ),
    (
        "publish.holder-stays",
        "A pod holds a GPU that nobody may have any more, and a disruption budget keeps the pod. It is asked again.",
        "Move the pod away, or change its PodDisruptionBudget.",
    ),
    (
        "publish.node-mismatch",
        "The Node of the machine's name says another system UUID than the machine's BMC, so its GPUs do not go to the cluster.",
        "Find out which machine runs under that name; rename the Node or the machine.",
    ),
    (
        "publish.node-missing",
        "The machine has no Node of its name yet, so its GPUs do not go to the cluster.",
        "Join the machine to the cluster under its own name.",
    ),
    (
        "publish.not-in-service",
        "The machine is not in service, or leaves it, so its GPUs are not given out.",
        "Nothing to do; `bailiwick why MACHINE` tells what it waits for.",
    ),
    (
        "publish.other-cell",
        "The publish directory holds what a cell with another database published; nothing was written or pruned.",
        "Restore that database, or publish to an empty directory.",
    ),
    (
        "publish.policy-broken",
        "A kubelet could write our slices although the policy was applied, so nothing else was published.",
        "Look for who changes ValidatingAdmissionPolicy `bailiwick-slices` or its binding.",
    ),
    (
        "publish.policy-unproven",
        "The admission policy could not be proven to hold, so nothing was published.",
        "Apply `manifests/cell-clusterrole.yaml`; look for who removed the policy.",
    ),
    (
        "publish.refused",
        "The cluster does not take an object. All others are published; this one is tried again.",
        "The message says which object and why: a policy or webhook of the cluster's, a limit, or a right that is missing.",
    ),
];

/// Why a cell cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The data directory.
    #[error("cannot use the data directory {}: {source}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address of the API.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The settings of a provisioning service.
    #[error("{}", .0.message)]
    Provisioner(Problem),
    /// The keys by which it signs.
    #[error("the keys by which the cell signs cannot be used: {0}")]
    Authority(String),
    /// A new cell without a jurisdiction.
    #[error("this cell is new and has no jurisdiction")]
    NoJurisdiction,
    /// The database is another cell's.
    #[error("this cell was made for jurisdiction {found}")]
    JurisdictionFixed {
        /// What the database says.
        found: String,
        /// What the settings say.
        expected: Name,
    },
}

impl CellError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::DataDir { .. } => "cell.data-dir",
            Self::Listen { .. } => "cell.listen",
            Self::Provisioner(_) => "cell.provisioner",
            Self::Authority(_) => "cell.authority",
            Self::NoJurisdiction => "cell.jurisdiction-missing",
            Self::JurisdictionFixed { .. } => "cell.jurisdiction-fixed",
        }
    }
}

impl Diagnose for CellError {
    fn problem(&self) -> Problem {
        match self {
            Self::Store(error) => error.problem(),
            Self::Provisioner(problem) => problem.clone(),
            Self::JurisdictionFixed { found, expected } => {
                coded(self.code(), self.to_string()).difference(found.clone(), expected.as_str())
            }
            _ => coded(self.code(), self.to_string()),
        }
    }
}

/// A problem of this crate with the hint of the catalogue.
pub(crate) fn coded(code: &'static str, message: impl Into<String>) -> Problem {
    let problem = Problem::new(code, message);
    match CODES.iter().find(|(known, ..)| *known == code) {
        Some((_, _, hint)) => problem.hint(*hint),
        None => problem,
    }
}

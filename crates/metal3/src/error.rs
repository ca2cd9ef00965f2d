//! Why Kubernetes could not be asked, and the one list of this crate's codes.

use domain::{Diagnose, Problem};
use std::time::Duration;

/// Why the API server could not be asked or told. What concerns a host is a [`Problem`] of a refusal or of waiting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers, or the connection broke.
    #[error("cannot {doing}: {source}")]
    Unreachable {
        /// What was tried.
        doing: String,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
    /// The answer does not come.
    #[error("cannot {doing}: no answer within {after:?}")]
    Timeout {
        /// What was tried.
        doing: String,
        /// How long was waited.
        after: Duration,
    },
    /// The cell's user may not do it.
    #[error("cannot {doing}: {message}")]
    Forbidden {
        /// What was tried.
        doing: String,
        /// What the server says.
        message: String,
    },
    /// The server does not know BareMetalHost.
    #[error("cannot {doing}: the API server does not serve {}", crate::API_VERSION)]
    NotInstalled {
        /// What was tried.
        doing: String,
    },
    /// The server refuses the object: its schema, a webhook, or an admission policy.
    #[error("cannot {doing}: {message}")]
    Invalid {
        /// What was tried.
        doing: String,
        /// What the server says.
        message: String,
    },
    /// Another writer was quicker; look again.
    #[error("cannot {doing}: {message}")]
    Conflict {
        /// What was tried.
        doing: String,
        /// What the server says.
        message: String,
    },
    /// The host is not there.
    #[error("there is no {}/{name}", crate::KIND_HOST)]
    NoHost {
        /// Its name.
        name: String,
    },
    /// Somebody else holds the host back.
    #[error("{}/{name} is {hold} by somebody else", crate::KIND_HOST)]
    HeldByOthers {
        /// Its name.
        name: String,
        /// `paused` or `detached`.
        hold: &'static str,
        /// What stands in the annotation.
        value: String,
    },
    /// Any other answer.
    #[error("cannot {doing}: {message} ({status})")]
    Api {
        /// What was tried.
        doing: String,
        /// HTTP status.
        status: u16,
        /// What the server says.
        message: String,
    },
}

/// Every code: code, meaning, hint. `docs/reference/codes.md` is written from it.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "cluster-api.control-plane-count",
        "A control plane of machines has an even number of them, or none.",
        "Give an odd number: etcd decides by majority.",
    ),
    (
        "cluster-api.image-invalid",
        "The image of a base cluster cannot be given to Cluster API's Metal3 provider.",
        "Give a disk image with a checksum, or an ISO.",
    ),
    (
        "cluster-api.kubelet-argument",
        "A kubelet argument would set what the cell alone sets.",
        "Leave out taints, and labels that a kubelet may not give itself; the cell labels verified nodes.",
    ),
    (
        "cluster-api.name-too-long",
        "The name of a base cluster is longer than Cluster API takes.",
        "Give a name of at most 40 characters.",
    ),
    ("cluster-api.version", "The Kubernetes version is no version.", "Write it as 1.36.3."),
    (
        "metal3.address-fixed",
        "The BMC's address of a host cannot be changed once it is registered.",
        "Remove the machine from Metal3 and register it again, or give back the old address.",
    ),
    (
        "metal3.ambiguous",
        "Several BareMetalHosts are the same machine.",
        "Delete all but one of them: two of them would fight for its power.",
    ),
    ("metal3.api", "The Kubernetes API server answers with an error.", "See its message; it is tried again."),
    ("metal3.attaching", "A detached host is put back into the provisioning service.", "Wait."),
    (
        "metal3.being-deleted",
        "Somebody is deleting the BareMetalHost.",
        "Wait until it is gone, then decide what is to become of the machine.",
    ),
    (
        "metal3.conflict",
        "Another writer changed an object at the same time.",
        "Nothing to do; it is tried again.",
    ),
    (
        "metal3.consumed",
        "Somebody else uses the BareMetalHost.",
        "Let the consumer give it back: for Cluster API, scale its MachineDeployment down.",
    ),
    (
        "metal3.credentials-refused",
        "The BMC refuses the account of the provisioning service.",
        "Correct the account: the operator tries the new credentials at once. Each further attempt counts towards the BMC's lock-out.",
    ),
    (
        "metal3.delayed",
        "The operator works on as many hosts at once as it takes.",
        "Wait, or raise PROVISIONING_LIMIT of baremetal-operator.",
    ),
    ("metal3.deleting", "The operator lets go of the host.", "Wait."),
    (
        "metal3.deployed",
        "The machine was given something else to run, and is never overwritten.",
        "Release it first.",
    ),
    (
        "metal3.deprovisioning",
        "The image is taken off, and the disks are cleaned.",
        "Wait; erasing large disks takes its time.",
    ),
    (
        "metal3.detach-error",
        "The operator could not take the host out of the provisioning service.",
        "See the message; look at the node in Ironic.",
    ),
    (
        "metal3.detached",
        "The BareMetalHost is detached from the provisioning service.",
        "Remove the annotation baremetalhost.metal3.io/detached.",
    ),
    (
        "metal3.edited-by-hand",
        "Somebody has changed a field that the cell sets.",
        "Give the field back its value, or change what is declared; the cell overrules nobody.",
    ),
    (
        "metal3.error",
        "The operator reports a failure of a kind that this version does not know.",
        "See the message; the operator tries again.",
    ),
    (
        "metal3.externally-provisioned",
        "The host is registered as running what somebody else has put on it.",
        "Remove the machine from Metal3 and register it again: the operator never takes that mark back.",
    ),
    (
        "metal3.forbidden",
        "The cell's user may not do this in the namespace of the hosts.",
        "Grant it; `docs/how-to/provision-machines.md` lists what is needed.",
    ),
    (
        "metal3.held-by-others",
        "Somebody else has paused or detached the host.",
        "Find out why; then remove the annotation.",
    ),
    (
        "metal3.host-gone",
        "The BareMetalHost was deleted by somebody else; the operator has taken off what ran on the machine.",
        "Release the machine, which registers it again and has it cleaned, or retire it.",
    ),
    (
        "metal3.image-invalid",
        "What the machine is to run cannot be provisioned.",
        "Correct the image's URL or checksum.",
    ),
    ("metal3.inspecting", "An agent boots and reads the hardware.", "Wait."),
    (
        "metal3.inspection-error",
        "The hardware could not be read.",
        "See the message and the machine's console: does the agent's image boot and reach Ironic?",
    ),
    (
        "metal3.invalid",
        "The API server refuses an object: its schema, a webhook or an admission policy.",
        "See the message; the version of baremetal-operator may be too old or too new.",
    ),
    (
        "metal3.name-taken",
        "The BareMetalHost of that name is another machine.",
        "Rename the machine, or remove the host.",
    ),
    (
        "metal3.no-config-drive",
        "A live ISO is to get data that baremetal-operator would not give it.",
        "Use a disk image, put what it needs into the ISO, or provision through Ironic's own API.",
    ),
    (
        "metal3.no-credentials",
        "There is no BMC account for the provisioning service.",
        "Give the machine one.",
    ),
    ("metal3.no-host", "There is no such BareMetalHost.", "Register the machine first."),
    (
        "metal3.not-inspected",
        "The host's hardware was never read, and cannot be now.",
        "Enable inspection, and let it run while the machine is free.",
    ),
    (
        "metal3.not-installed",
        "The cluster does not know BareMetalHost.",
        "Install baremetal-operator's custom resource definitions, or give the kubeconfig of the management cluster.",
    ),
    (
        "metal3.operator-silent",
        "No baremetal-operator looks after the namespace.",
        "Start it, or see which namespace it watches.",
    ),
    (
        "metal3.other-cell",
        "The BareMetalHost belongs to another cell.",
        "Enrol the machine in one cell only.",
    ),
    (
        "metal3.paused",
        "The BareMetalHost is paused, so the operator leaves it alone.",
        "Remove the annotation baremetalhost.metal3.io/paused.",
    ),
    (
        "metal3.power-error",
        "The operator could not switch the machine on or off.",
        "See the message; look at the BMC.",
    ),
    ("metal3.powering", "The machine is being switched on or off.", "Wait."),
    (
        "metal3.preparation-error",
        "RAID, firmware settings or the first cleaning failed.",
        "See the message and the node in Ironic.",
    ),
    ("metal3.preparing", "RAID and firmware settings are brought in line.", "Wait."),
    (
        "metal3.provisioned-registration-error",
        "A running host could not be made known to the provisioning service again.",
        "See the message: is the BMC reachable, and is its account right? What runs goes on running. A host with a live ISO that was detached cannot be adopted again: detach it again, remove it, and register it anew.",
    ),
    ("metal3.provisioning", "The image is put on.", "Wait."),
    (
        "metal3.provisioning-error",
        "Putting the image on the machine, or taking it off, failed. The operator tries again without end.",
        "See the message: is the image reachable for Ironic, and is its checksum right? Release the machine to stop.",
    ),
    ("metal3.registering", "The operator tries the BMC's address and credentials.", "Wait."),
    (
        "metal3.registration-error",
        "The operator cannot reach the BMC.",
        "See the message; correct address, network or certificate. The operator tries again, more and more seldom.",
    ),
    (
        "metal3.registration-invalid",
        "The machine cannot be registered as declared.",
        "Correct the field named.",
    ),
    ("metal3.servicing", "Firmware or settings of the running host are changed.", "Wait."),
    (
        "metal3.servicing-error",
        "Changing firmware or settings of the running host failed.",
        "See the message and the node in Ironic.",
    ),
    (
        "metal3.state-unknown",
        "The host is in a state that this version does not know.",
        "Use a version of baremetal-operator that is known to work.",
    ),
    (
        "metal3.stuck",
        "The host stays in a state far longer than usual, without an error.",
        "See the logs of baremetal-operator and the node in Ironic, which may have failed without saying so.",
    ),
    (
        "metal3.timeout",
        "The Kubernetes API server does not answer in time.",
        "Look at the API server; it is tried again.",
    ),
    (
        "metal3.unreachable",
        "The Kubernetes API server cannot be reached.",
        "Check kubeconfig and network; it is tried again.",
    ),
];

/// The hint that belongs to a code.
fn hint(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, ..)| *known == code).map(|(_, _, hint)| *hint)
}

/// A problem with a code of the list and its hint.
pub(crate) fn problem(code: &'static str, message: String) -> Problem {
    with_hint(Problem::new(code, message))
}

/// The same problem with the hint of its code.
pub(crate) fn with_hint(problem: Problem) -> Problem {
    match hint(&problem.code) {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "metal3.unreachable",
            Self::Timeout { .. } => "metal3.timeout",
            Self::Forbidden { .. } => "metal3.forbidden",
            Self::NotInstalled { .. } => "metal3.not-installed",
            Self::Invalid { .. } => "metal3.invalid",
            Self::Conflict { .. } => "metal3.conflict",
            Self::NoHost { .. } => "metal3.no-host",
            Self::HeldByOthers { .. } => "metal3.held-by-others",
            Self::Api { .. } => "metal3.api",
        }
    }

    /// Whether it may pass by itself, so that trying again makes sense.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Conflict { .. } | Self::Api { .. }
        )
    }

    /// What a failed call means.
    pub(crate) fn of_call(doing: String, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let message = status.message.clone();
                match status.code {
                    401 | 403 => Self::Forbidden { doing, message },
                    // A missing object is told with its name; a missing kind, as a page that is not found.
                    404 if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => {
                        Self::NotInstalled { doing }
                    }
                    400 | 422 => Self::Invalid { doing, message },
                    409 => Self::Conflict { doing, message },
                    status => Self::Api { doing, status, message },
                }
            }
            other => Self::Unreachable { doing, source: Box::new(other) },
        }
    }
}

impl Diagnose for Error {
    fn problem(&self) -> Problem {
        let problem = problem(self.code(), self.to_string());
        match self {
            Self::HeldByOthers { value, .. } => problem.difference(value, crate::HELD_BY_US),
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn the_codes_are_sorted_and_told_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn every_error_has_a_code_of_the_list() {
        let text = String::new;
        for error in [
            Error::Unreachable {
                doing: text(),
                source: Box::new(kube::Error::LinesCodecMaxLineLengthExceeded),
            },
            Error::Timeout { doing: text(), after: Duration::ZERO },
            Error::Forbidden { doing: text(), message: text() },
            Error::NotInstalled { doing: text() },
            Error::Invalid { doing: text(), message: text() },
            Error::Conflict { doing: text(), message: text() },
            Error::NoHost { name: text() },
            Error::HeldByOthers { name: text(), hold: "paused", value: text() },
            Error::Api { doing: text(), status: 500, message: text() },
        ] {
            assert!(error.problem().hint.is_some(), "{error:?}");
        }
    }

    #[test]
    fn what_the_server_answers_decides_whether_trying_again_makes_sense() {
        let of = |code: u16| {
            let status = Status { code, ..Status::failure("no", "") };
            Error::of_call("read".into(), kube::Error::Api(Box::new(status)))
        };
        for (code, expected, passing) in [
            (401, "metal3.forbidden", false),
            (403, "metal3.forbidden", false),
            (404, "metal3.not-installed", false),
            (409, "metal3.conflict", true),
            (422, "metal3.invalid", false),
            (429, "metal3.api", true),
            (500, "metal3.api", true),
        ] {
            assert_eq!((of(code).code(), of(code).is_passing()), (expected, passing), "{code}");
        }
    }
}

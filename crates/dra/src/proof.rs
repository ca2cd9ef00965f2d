//! The proof that the admission policy holds: what a kubelet's credential tries in a dry run, and what its answer means.

use crate::device::amounts_of;
use crate::input::Input;
use crate::json::Items;
use crate::object::Object;
use crate::policy::POLICY_SLICES;
use crate::slice;
use domain::Name;

/// The user to impersonate: a node that never exists, so that RBAC can name it and nothing is bound to it. RBAC cannot allow
/// "any node", and the policy does not look at which node it is.
pub const PROOF_USER: &str = "system:node:bailiwick-proof";

/// The group to impersonate with it.
pub const PROOF_GROUP: &str = "system:nodes";

/// The Node that [`PROOF_USER`] would be.
const PROOF_NODE: &str = "bailiwick-proof";

/// What the API server said to creating [`proof_slice`] with `dryRun=All` as [`PROOF_USER`] in [`PROOF_GROUP`].
#[derive(Clone, Copy, Debug)]
pub enum DryRun<'a> {
    /// It would have been created.
    Accepted,
    /// Refused, with the `message` of the `Status`.
    Refused {
        /// HTTP status.
        code: u16,
        /// `message` of the `Status`.
        message: &'a str,
    },
}

/// What the answer proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Our policy refused it: it holds.
    Holds,
    /// A kubelet could write our slices: nothing may be published.
    DoesNotHold,
    /// Refused for another reason (may not impersonate, no such API, …): nothing is proven, and nothing may be published.
    NotProven {
        /// What the API server said.
        message: String,
    },
}

/// The slice to create in the dry run. The Node authorizer and NodeRestriction let a kubelet create slices of any driver for the
/// node whose name it bears (facts: dra, measured), so that nothing but our policy can refuse this one.
pub fn proof_slice(input: &Input) -> Object {
    let mut devices = Items::default();
    devices.push(|device| device.string("name", "gpu-proof"));
    // The constant is a DNS label, which a test holds; the cell's name stands in for the compiler.
    let node = Name::new(PROOF_NODE).unwrap_or_else(|_| input.cell.clone());
    let mut slices = slice::slices(&input.cell, &node, &devices, &Items::default());
    slices.remove(0)
}

/// The slice to create in a dry run, to learn whether the server keeps counters (gate DRAPartitionableDevices): where it does not, it
/// drops `spec.sharedCounters` without a word (facts: dra §1).
pub fn counters_slice(input: &Input) -> Object {
    let mut counters = Items::default();
    counters.push(|set| {
        set.string("name", "gpu-proof-counters");
        set.object("counters", |counters| amounts_of(counters, [("memory", 1)]));
    });
    // As above.
    let node = Name::new(PROOF_NODE).unwrap_or_else(|_| input.cell.clone());
    let mut slices = slice::slices(&input.cell, &node, &Items::default(), &counters);
    slices.remove(0)
}

/// Tells our policy's refusal from acceptance and from everybody else's refusals. Only the policy of our name and its binding count;
/// the sentence is the API server's own (`k8s.io/apiserver`, plugin/policy/validating).
pub fn judge(answer: DryRun<'_>) -> Proof {
    match answer {
        DryRun::Accepted => Proof::DoesNotHold,
        DryRun::Refused { code: 403 | 422, message }
            if message.contains(&format!(
                "ValidatingAdmissionPolicy '{POLICY_SLICES}' with binding '{POLICY_SLICES}' denied request"
            )) =>
        {
            Proof::Holds
        }
        DryRun::Refused { message, .. } => Proof::NotProven { message: message.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_is_of_the_node_that_the_user_names() {
        let slice = proof_slice(&Input::new(Name::new("cell").unwrap(), "bailiwick-cell"));
        assert_eq!(slice.json()["spec"]["nodeName"], PROOF_NODE);
        assert_eq!(PROOF_USER, format!("system:node:{PROOF_NODE}"));
    }

    #[test]
    fn only_the_refusal_by_our_own_policy_and_binding_proves_anything() {
        let refused = |code, message| judge(DryRun::Refused { code, message });
        let ours = "resourceslices.resource.k8s.io \"x\" is forbidden: ValidatingAdmissionPolicy 'bailiwick-slices' with binding 'bailiwick-slices' denied request: only the cell";
        assert_eq!(refused(403, ours), Proof::Holds);
        assert_eq!(judge(DryRun::Accepted), Proof::DoesNotHold);
        for other in [
            "resourceslices.resource.k8s.io is forbidden: User \"system:node:bailiwick-proof\" cannot create resource",
            "users \"system:node:bailiwick-proof\" is forbidden: User \"bailiwick-cell\" cannot impersonate resource \"users\"",
            "ValidatingAdmissionPolicy 'other' with binding 'other' denied request: no",
        ] {
            assert!(matches!(refused(403, other), Proof::NotProven { .. }), "{other}");
        }
        assert!(matches!(refused(500, ours), Proof::NotProven { .. }));
    }
}

//! What a machine shall be used for. It has the machine's name; a machine without one stays on the shelf.
//!
//! An object of its own, and not a field of the Machine: whoever applies a rack's file again does not thereby take its
//! machines out of service (docs/decisions/0011-assignments.md).

use crate::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the machine of the same name shall be used for. `bailiwick provision`, `drain`, `release`, `retire`, `quarantine` and
/// `unquarantine` write these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignmentSpec {
    /// The BaseCluster it shall be a node of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_cluster: Option<Name>,
    /// No pods: it stays a node, and is not given work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    /// Erased, taken from the provisioning service, never used again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retire: bool,
    /// It is gone, or can be reached no more: retired without being erased, which its record says. Goes with `retire`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// Set aside until somebody has looked at it. Whatever else is wanted waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

/// Why a machine is set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quarantine {
    /// What people are told.
    pub reason: String,
}

/// Why a machine is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lost {
    /// What the record of its erasure says of each part.
    pub reason: String,
}

/// [`AssignmentSpec`] as the lifecycle reads it: one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Available, and nothing more.
    Shelf,
    /// A node of this base cluster.
    Serve(Name),
    /// A node of this base cluster without pods.
    Drained(Name),
    /// Erased and gone.
    Retired,
    /// Gone as it is.
    Lost,
    /// Set aside.
    Quarantined,
}

impl Goal {
    /// What an assignment, or its absence, asks for.
    pub fn of(assignment: Option<&AssignmentSpec>) -> Self {
        let Some(spec) = assignment else { return Self::Shelf };
        match spec {
            // What is not there can be neither looked at nor set aside.
            AssignmentSpec { lost: Some(_), .. } => Self::Lost,
            AssignmentSpec { quarantine: Some(_), .. } => Self::Quarantined,
            AssignmentSpec { retire: true, .. } => Self::Retired,
            AssignmentSpec { base_cluster: Some(cluster), drain: true, .. } => Self::Drained(cluster.clone()),
            AssignmentSpec { base_cluster: Some(cluster), .. } => Self::Serve(cluster.clone()),
            _ => Self::Shelf,
        }
    }
}

impl AssignmentSpec {
    /// Whether it asks for nothing that a machine without one would not do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

//! One use of a machine: from the decision to deploy until everything is erased.

use crate::declaration::Zone;
use crate::name::Name;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One use of a machine. Chosen and stored before the provisioning service is asked for anything, so that a request that is
/// made again is known to be the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its identity: Ironic's `instance_uuid`.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// The base cluster that the machine is to be a node of.
    pub base_cluster: Name,
    /// The zone in which it is used.
    pub zone: Option<Zone>,
    /// When it was chosen.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// When its bootstrap token was made; `null` before.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_made: Option<Timestamp>,
    /// When the image was first seen to run: from then on the machine has to join before its token ends. `null` before, while the
    /// token is renewed.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed: Option<Timestamp>,
    /// The one certificate request of a node that was approved for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approval>,
    /// How many deployments have failed.
    #[serde(default)]
    pub failures: u32,
    /// UID of the Node object that was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<String>,
}

/// An approved certificate request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Name of the CertificateSigningRequest.
    pub request: String,
    /// SHA-256 of the public key in it.
    pub key: crate::name::Digest,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
}

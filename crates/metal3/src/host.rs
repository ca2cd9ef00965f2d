//! BareMetalHost as it is read (`baremetalhost_types.go` of baremetal-operator v0.13.2): every field that is used, tolerantly.

use crate::lenient;
use crate::managed::Managers;
use crate::states::{ErrorType, OperationalStatus, ProvisioningState};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A host as it stands in the cluster.
#[derive(Clone, Debug)]
pub struct BareMetalHost {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: another one means another host of the same name.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Since when it is being deleted.
    pub deleting_since: Option<Timestamp>,
    /// Whether the operator has taken it up, which its finalizer shows.
    pub taken_up: bool,
    /// What is wished of it.
    pub spec: HostSpec,
    /// How it stands.
    pub status: HostStatus,
    pub(crate) managers: Managers,
    /// The whole object, to compare with what is wished.
    pub(crate) raw: Value,
}

/// Finalizer by which the operator keeps a host until it has let go of it.
const FINALIZER: &str = "baremetalhost.metal3.io";

impl BareMetalHost {
    /// Reads a host; `None` only where it has no name.
    pub fn read(object: Value) -> Option<Self> {
        let metadata: ObjectMeta =
            serde_json::from_value(object.get("metadata").cloned().unwrap_or_default()).ok()?;
        let part = |name: &str| object.get(name).cloned().unwrap_or_default();
        Some(Self {
            name: metadata.name?,
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|time| time.0),
            deleting_since: metadata.deletion_timestamp.map(|time| time.0),
            taken_up: metadata.finalizers.unwrap_or_default().iter().any(|name| name == FINALIZER),
            spec: serde_json::from_value(part("spec")).unwrap_or_default(),
            status: serde_json::from_value(part("status")).unwrap_or_default(),
            managers: Managers::read(metadata.managed_fields.as_deref().unwrap_or_default()),
            raw: object,
        })
    }

    /// Where it stands.
    pub fn state(&self) -> &ProvisioningState {
        &self.status.provisioning.state
    }
}

/// `spec`, as far as it is used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct HostSpec {
    #[serde(deserialize_with = "lenient::or_default")]
    pub bmc: Bmc,
    #[serde(rename = "bootMACAddress", deserialize_with = "lenient::or_default")]
    pub boot_mac_address: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub boot_mode: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub online: bool,
    #[serde(deserialize_with = "lenient::or_default")]
    pub consumer_ref: Option<Consumer>,
    #[serde(deserialize_with = "lenient::or_default")]
    pub image: Option<Image>,
    #[serde(deserialize_with = "lenient::or_default")]
    pub custom_deploy: Option<CustomDeploy>,
    #[serde(deserialize_with = "lenient::or_default")]
    pub externally_provisioned: bool,
    #[serde(deserialize_with = "lenient::or_default")]
    pub automated_cleaning_mode: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub inspection_mode: String,
}

impl HostSpec {
    /// Whether it asks for something to be put on the machine.
    pub fn has_deployment(&self) -> bool {
        self.image.as_ref().is_some_and(|image| !image.url.is_empty())
            || self.custom_deploy.as_ref().is_some_and(|deploy| !deploy.method.is_empty())
    }
}

/// `spec.bmc`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Bmc {
    #[serde(deserialize_with = "lenient::or_default")]
    pub address: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub credentials_name: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub disable_certificate_verification: bool,
}

/// `spec.consumerRef`: who uses the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Consumer {
    #[serde(deserialize_with = "lenient::or_default")]
    pub api_version: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub kind: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub namespace: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub name: String,
}

/// `spec.image` and `status.provisioning.image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Image {
    #[serde(deserialize_with = "lenient::or_default")]
    pub url: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub checksum: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub checksum_type: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub format: String,
}

/// `spec.customDeploy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct CustomDeploy {
    #[serde(deserialize_with = "lenient::or_default")]
    pub method: String,
}

/// `status`, as far as it is used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct HostStatus {
    #[serde(deserialize_with = "lenient::or_default")]
    pub operational_status: OperationalStatus,
    #[serde(deserialize_with = "lenient::or_default")]
    pub error_type: Option<ErrorType>,
    #[serde(deserialize_with = "lenient::or_default")]
    pub error_message: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub error_count: u32,
    #[serde(deserialize_with = "lenient::or_default")]
    pub powered_on: bool,
    #[serde(deserialize_with = "lenient::or_default")]
    pub last_updated: Option<Timestamp>,
    #[serde(deserialize_with = "lenient::or_default")]
    pub provisioning: Provisioning,
    #[serde(deserialize_with = "lenient::or_default")]
    pub good_credentials: CredentialsStatus,
    #[serde(deserialize_with = "lenient::or_default")]
    pub tried_credentials: CredentialsStatus,
    #[serde(deserialize_with = "lenient::or_default")]
    pub operation_history: OperationHistory,
    /// `status.hardware`, the older place of what HardwareData holds.
    #[serde(deserialize_with = "lenient::or_default")]
    pub hardware: Option<crate::hardware::Hardware>,
}

impl HostStatus {
    /// What failed, if anything did: a word that is empty is none.
    pub fn error(&self) -> Option<&ErrorType> {
        self.error_type.as_ref().filter(|kind| !kind.as_str().is_empty())
    }
}

/// `status.provisioning`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Provisioning {
    #[serde(deserialize_with = "lenient::or_default")]
    pub state: ProvisioningState,
    /// The node's UUID in Ironic.
    #[serde(rename = "ID", deserialize_with = "lenient::or_default")]
    pub id: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub image: Image,
    #[serde(deserialize_with = "lenient::or_default")]
    pub custom_deploy: Option<CustomDeploy>,
}

/// Which version of a Secret was tried, or works.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct CredentialsStatus {
    #[serde(deserialize_with = "lenient::or_default")]
    pub credentials_version: String,
}

/// `status.operationHistory`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct OperationHistory {
    #[serde(deserialize_with = "lenient::or_default")]
    pub register: Operation,
    #[serde(deserialize_with = "lenient::or_default")]
    pub inspect: Operation,
    #[serde(deserialize_with = "lenient::or_default")]
    pub provision: Operation,
    #[serde(deserialize_with = "lenient::or_default")]
    pub deprovision: Operation,
}

/// When one operation began and ended; `null` where it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Operation {
    #[serde(deserialize_with = "lenient::or_default")]
    pub start: Option<Timestamp>,
    #[serde(deserialize_with = "lenient::or_default")]
    pub end: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn one_bad_field_costs_that_field_and_no_more() {
        let host = BareMetalHost::read(json!({
            "metadata": { "name": "m1", "finalizers": ["baremetalhost.metal3.io"] },
            "spec": { "online": "yes", "bmc": { "address": 7, "credentialsName": "m1-bmc" }, "image": ["x"] },
            "status": {
                "operationalStatus": 3, "errorType": "cosmic ray", "errorCount": "many", "poweredOn": true,
                "provisioning": { "state": "available", "ID": null, "image": { "url": "" } },
                "operationHistory": { "register": { "start": "2026-11-21T10:00:00Z", "end": null }, "inspect": 1 },
            },
        }))
        .unwrap();
        assert!(host.taken_up && host.status.powered_on && !host.spec.has_deployment());
        assert_eq!(host.spec.bmc.credentials_name, "m1-bmc");
        assert_eq!(host.state(), &ProvisioningState::Available);
        assert_eq!(host.status.error(), Some(&ErrorType::Other("cosmic ray".into())));
        assert!(host.status.operation_history.register.start.is_some());
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z ]{0,8}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("bmc"),
            Just("address"),
            Just("online"),
            Just("image"),
            Just("url"),
            Just("provisioning"),
            Just("state"),
            Just("operationHistory"),
            Just("register"),
            Just("start"),
            Just("errorType"),
            Just("hardware"),
            Just("nics"),
            Just("storage"),
            Just("cpu"),
            Just("consumerRef"),
            Just("goodCredentials"),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_host_with_a_name_is_read_whatever_else_it_holds(spec in json_value(), status in json_value()) {
            let host = BareMetalHost::read(json!({ "metadata": { "name": "m1" }, "spec": spec, "status": status }));
            prop_assert_eq!(host.unwrap().name, "m1");
        }
    }
}

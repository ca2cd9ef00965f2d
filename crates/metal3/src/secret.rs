//! Secrets: what Metal3 reads by name, and never shows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

/// Text that is never printed and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// The provisioning service's own account on a BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: SecretText,
}

/// Label by which baremetal-operator keeps a Secret in its cache; without it the operator adds it and sees changes later.
const LABEL_ENVIRONMENT: (&str, &str) = ("environment.metal3.io", "baremetal");

/// A Secret to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// `metadata.name`.
    pub name: String,
    /// Keys and their values.
    pub data: BTreeMap<&'static str, SecretText>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name and UID of the host with which it goes; a BMC's Secret gets its owner from the operator.
    pub owner: Option<(String, String)>,
}

impl Secret {
    /// The Secret with a BMC's credentials.
    pub(crate) fn bmc(name: String, credentials: &Credentials, labels: BTreeMap<String, String>) -> Self {
        let data = BTreeMap::from([
            ("username", SecretText::new(credentials.username.as_str())),
            ("password", credentials.password.clone()),
        ]);
        Self::new(name, data, labels, None)
    }

    pub(crate) fn new(
        name: String,
        data: BTreeMap<&'static str, SecretText>,
        mut labels: BTreeMap<String, String>,
        owner: Option<(String, String)>,
    ) -> Self {
        labels.insert(LABEL_ENVIRONMENT.0.to_owned(), LABEL_ENVIRONMENT.1.to_owned());
        Self { name, data, labels, owner }
    }

    /// The object as sent: to nobody but the API server.
    pub(crate) fn to_object(&self, namespace: &str) -> Value {
        let data: BTreeMap<_, _> =
            self.data.iter().map(|(key, text)| (*key, STANDARD.encode(text.reveal()))).collect();
        let mut metadata = json!({ "name": self.name, "namespace": namespace, "labels": self.labels });
        if let Some((name, uid)) = &self.owner {
            metadata["ownerReferences"] = json!([{
                "apiVersion": crate::API_VERSION, "kind": crate::KIND_HOST, "name": name, "uid": uid,
            }]);
        }
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data })
    }
}

/// A Secret as it stands in the cluster.
#[derive(Clone)]
pub struct SeenSecret {
    /// Changes with every change of the Secret; the operator records which one it has tried.
    pub resource_version: String,
    /// Its UID.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Who has set each key last, other than us: key to field manager.
    pub foreign: BTreeMap<String, String>,
    data: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for SeenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeenSecret").field("resource_version", &self.resource_version).finish_non_exhaustive()
    }
}

impl SeenSecret {
    /// Reads a Secret.
    pub fn read(secret: k8s_openapi::api::core::v1::Secret) -> Self {
        let metadata = secret.metadata;
        let managers = crate::managed::Managers::read(metadata.managed_fields.as_deref().unwrap_or_default());
        let data: BTreeMap<_, _> = secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, bytes)| (key, Zeroizing::new(bytes.0)))
            .collect();
        let manager = |key: &String| {
            let path = ["data".to_owned(), key.clone()];
            Some((key.clone(), managers.others(&path).next()?.name.clone()))
        };
        Self {
            resource_version: metadata.resource_version.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            foreign: data.keys().filter_map(manager).collect(),
            data,
        }
    }

    /// Keys whose value is another than wished, or that are missing.
    pub(crate) fn differing<'a>(&'a self, wished: &'a Secret) -> impl Iterator<Item = &'static str> + 'a {
        let differs = |key: &&'static str| {
            let there = self.data.get(*key).map(|bytes| bytes.as_slice());
            there != wished.data.get(*key).map(|text| text.reveal().as_bytes())
        };
        wished.data.keys().copied().filter(differs)
    }
}

/// The same text with a password masked, for messages that others wrote.
pub(crate) fn masked(text: &str, credentials: Option<&Credentials>) -> String {
    match credentials.map(|credentials| credentials.password.reveal()) {
        Some(password) if password.len() > 2 => text.replace(password, "***"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials { username: "ironic".into(), password: SecretText::new("pl4nted") }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::bmc("m1-bmc".into(), &credentials(), BTreeMap::new());
        assert!(!format!("{secret:?} {:?}", credentials()).contains("pl4nted"));
        let object = secret.to_object("metal3");
        let seen = SeenSecret::read(serde_json::from_value(object.clone()).unwrap());
        assert!(!format!("{seen:?}").contains("pl4nted") && !format!("{seen:?}").contains("cGw0bnRlZA"));
        assert_eq!(object["data"]["password"], "cGw0bnRlZA==");
        assert_eq!(object["metadata"]["labels"]["environment.metal3.io"], "baremetal");
    }

    #[test]
    fn a_secret_seen_again_differs_in_what_was_changed_and_in_nothing_else() {
        let wished = Secret::bmc("m1-bmc".into(), &credentials(), BTreeMap::new());
        let mut object = wished.to_object("metal3");
        let seen = SeenSecret::read(serde_json::from_value(object.clone()).unwrap());
        assert_eq!(seen.differing(&wished).count(), 0);
        object["data"]["password"] = json!("b3RoZXI=");
        let seen = SeenSecret::read(serde_json::from_value(object).unwrap());
        assert_eq!(seen.differing(&wished).collect::<Vec<_>>(), ["password"]);
    }

    #[test]
    fn a_password_in_a_foreign_message_is_masked() {
        let text = masked("login as ironic/pl4nted failed", Some(&credentials()));
        assert_eq!(text, "login as ironic/*** failed");
    }
}

//! What the cluster holds, and what its hosts do about it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const NODES: &str = "/api/v1/nodes";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

/// What a host's first try to join came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// It asked for its certificate.
    Asked,
    /// There is no token in its user data.
    NoToken,
    /// The token is not known, or not any more; it tries again when one is made.
    Refused,
}

#[derive(Clone, Debug)]
struct Host {
    uuid: String,
    token: String,
}

/// All objects, by path.
#[derive(Debug, Default)]
pub(super) struct Objects {
    by_path: BTreeMap<String, Value>,
    version: u64,
    /// How far its clock is ahead of this machine's.
    ahead: SignedDuration,
    /// Hosts that run a kubelet without a certificate.
    joining: BTreeMap<String, Host>,
    /// The request of each host that asked, by its path.
    asked: BTreeMap<String, (String, Host)>,
}

impl Objects {
    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.by_path.get(path).cloned()
    }

    pub(super) fn save(&self) -> Value {
        json!({ "version": self.version, "objects": self.by_path })
    }

    pub(super) fn restore(&mut self, saved: &Value) {
        let objects = saved["objects"].as_object().cloned().unwrap_or_default();
        let version = saved["version"].as_u64().unwrap_or_default();
        *self =
            Self { by_path: objects.into_iter().collect(), version, ahead: self.ahead, ..Self::default() };
    }

    pub(super) fn put_clock_forward(&mut self, by: SignedDuration) {
        self.ahead = self.ahead.saturating_add(by);
    }

    /// The time by its clock.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::now().saturating_add(self.ahead).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn list(&self, path: &str) -> Vec<Value> {
        let prefix = format!("{path}/");
        let under = self.by_path.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        under
            .filter(|(key, _)| !key[prefix.len()..].contains('/'))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Pods of every namespace.
    pub(super) fn pods(&self) -> Vec<Value> {
        self.by_path
            .iter()
            .filter(|(path, _)| path.contains("/pods/"))
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(super) fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let name = path.rsplit('/').next().unwrap_or_default();
        let before =
            self.by_path.get(path).and_then(|before| before["metadata"]["uid"].as_str().map(str::to_owned));
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(name);
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["uid"] = json!(before.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()));
        self.by_path.insert(path.to_owned(), object.clone());
        object
    }

    /// Merges (RFC 7386). `Err` where the patch was made for another version than the present one.
    pub(super) fn patch(&mut self, path: &str, patch: &Value, create: bool) -> Result<Option<Value>, ()> {
        let present = match self.by_path.get(path) {
            Some(present) => present.clone(),
            None if create => json!({}),
            None => return Ok(None),
        };
        let wanted = patch["metadata"]["resourceVersion"].as_str();
        if wanted.is_some_and(|wanted| present["metadata"]["resourceVersion"] != wanted) {
            return Err(());
        }
        let mut object = present;
        merge(&mut object, patch);
        let object = self.put(path, object);
        if path.starts_with(SECRETS) {
            self.try_joining();
        }
        Ok(Some(object))
    }

    /// A decision on a certificate request; an approved one is signed, and its host registers.
    pub(super) fn decide(&mut self, path: &str, patch: &Value) -> Result<Option<Value>, ()> {
        let decided = self.patch(path, patch, false)?;
        let Some(mut request) = decided else { return Ok(None) };
        let approved = request["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["type"] == "Approved"));
        if approved && request["status"]["certificate"].is_null() {
            request["status"]["certificate"] = json!(STANDARD.encode("signed"));
            request = self.put(path, request);
            if let Some((machine, host)) = self.asked.remove(path) {
                self.register(&machine, &host.uuid);
            }
        }
        Ok(Some(request))
    }

    pub(super) fn delete(&mut self, path: &str) -> bool {
        self.version += 1;
        self.by_path.remove(path).is_some()
    }

    pub(super) fn boot(&mut self, machine: &str, uuid: &str, user_data: &str) -> JoinOutcome {
        let Some(token) = token_in(user_data) else { return JoinOutcome::NoToken };
        self.joining.insert(machine.to_owned(), Host { uuid: uuid.to_owned(), token });
        self.try_joining();
        if self.joining.contains_key(machine) { JoinOutcome::Refused } else { JoinOutcome::Asked }
    }

    pub(super) fn switch_off(&mut self, machine: &str) {
        self.joining.remove(machine);
        self.asked.retain(|_, (of, _)| of != machine);
    }

    fn try_joining(&mut self) {
        let ready: Vec<_> = self
            .joining
            .iter()
            .filter_map(|(machine, host)| Some((machine.clone(), self.groups_of(&host.token)?)))
            .collect();
        for (machine, groups) in ready {
            if let Some(host) = self.joining.remove(&machine) {
                self.ask(&machine, &host, &groups);
            }
        }
    }

    /// The groups of a token that is known and has not ended.
    fn groups_of(&self, token: &str) -> Option<Vec<String>> {
        let (id, secret) = token.split_once('.')?;
        let object = self.by_path.get(&format!("{SECRETS}/bootstrap-token-{id}"))?;
        let data = &object["stringData"];
        let ended = data["expiration"].as_str().and_then(|until| until.parse::<Timestamp>().ok());
        if data["token-secret"] != secret || ended.is_none_or(|until| until <= self.now()) {
            return None;
        }
        let extra = data["auth-extra-groups"].as_str().unwrap_or_default().split(',').map(str::to_owned);
        Some(["system:bootstrappers".to_owned()].into_iter().chain(extra).collect())
    }

    fn ask(&mut self, machine: &str, host: &Host, groups: &[String]) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{machine}"));
        let request = KeyPair::generate().and_then(|key| params.serialize_request(&key)?.pem());
        let Ok(request) = request else { return };
        let id = host.token.split('.').next().unwrap_or_default();
        let path = format!("{REQUESTS}/node-csr-{}", uuid::Uuid::new_v4().simple());
        let created = self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.put(
            &path,
            json!({
                "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
                "metadata": { "creationTimestamp": created },
                "spec": {
                    "request": STANDARD.encode(request), "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                    "username": format!("system:bootstrap:{id}"), "groups": groups,
                    "usages": ["digital signature", "client auth"],
                },
                "status": {},
            }),
        );
        self.asked.insert(path, (machine.to_owned(), host.clone()));
    }

    fn register(&mut self, machine: &str, uuid: &str) {
        self.put(
            &format!("{NODES}/{machine}"),
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": { "labels": { "kubernetes.io/hostname": machine } },
                "spec": { "taints": [{ "key": "bailiwick.dev/unverified", "effect": "NoSchedule" }] },
                "status": {
                    "conditions": [{ "type": "Ready", "status": "True" }],
                    "nodeInfo": {
                        "architecture": "amd64", "bootID": "sim", "containerRuntimeVersion": "containerd://2.4.2",
                        "kernelVersion": "6.1", "kubeProxyVersion": "", "kubeletVersion": "v1.36.3",
                        "machineID": "sim", "operatingSystem": "linux", "osImage": "sim", "systemUUID": uuid,
                    },
                },
            }),
        );
    }
}

/// The first bootstrap token in a text: `[a-z0-9]{6}.[a-z0-9]{16}`.
fn token_in(text: &str) -> Option<String> {
    let is_part = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.'));
    words
        .filter(|word| word.len() == 23)
        .find(|word| {
            word.split_once('.').is_some_and(|(id, secret)| id.len() == 6 && is_part(id) && is_part(secret))
        })
        .map(str::to_owned)
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "abcdef.0123456789abcdef";

    fn with_token(until: &str) -> Objects {
        let mut objects = Objects::default();
        let secret = json!({ "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "expiration": until, "auth-extra-groups": "g",
        } });
        objects.patch(&format!("{SECRETS}/bootstrap-token-abcdef"), &secret, true).unwrap();
        objects
    }

    #[test]
    fn a_host_with_a_known_token_asks_and_registers_once_it_is_approved() {
        let mut objects = with_token("2999-01-01T00:00:00Z");
        assert_eq!(objects.boot("m1", "u1", &format!("token: {TOKEN}\n")), JoinOutcome::Asked);
        assert!(objects.list(NODES).is_empty());
        let name = objects.list(REQUESTS)[0]["metadata"]["name"].as_str().unwrap().to_owned();
        let approval = json!({ "status": { "conditions": [{ "type": "Approved", "status": "True" }] } });
        objects.decide(&format!("{REQUESTS}/{name}"), &approval).unwrap();
        assert_eq!(objects.get(&format!("{NODES}/m1")).unwrap()["status"]["nodeInfo"]["systemUUID"], "u1");
    }

    #[test]
    fn a_host_whose_token_is_unknown_or_has_ended_waits_for_one() {
        let mut objects = with_token("2000-01-01T00:00:00Z");
        assert_eq!(objects.boot("m1", "u1", TOKEN), JoinOutcome::Refused);
        let later = json!({ "stringData": { "expiration": "2999-01-01T00:00:00Z" } });
        objects.patch(&format!("{SECRETS}/bootstrap-token-abcdef"), &later, true).unwrap();
        assert_eq!(objects.list(REQUESTS).len(), 1);
    }

    #[test]
    fn user_data_without_a_token_joins_nothing() {
        assert_eq!(Objects::default().boot("m1", "u1", "#cloud-config\n"), JoinOutcome::NoToken);
    }

    #[test]
    fn a_patch_for_an_older_version_is_a_conflict() {
        let mut objects = Objects::default();
        let first = objects.put("/api/v1/nodes/m1", json!({}));
        objects.patch("/api/v1/nodes/m1", &json!({ "spec": { "a": 1 } }), false).unwrap();
        assert!(objects.patch("/api/v1/nodes/m1", &first, false).is_err());
    }
}

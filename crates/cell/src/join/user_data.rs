//! What a machine is given to join with: user data of its configuration drive.

use super::{Token, UNVERIFIED};
use crate::error::coded;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::agent::{ENROLMENT_FILE, STATE_DIR};
use domain::base_cluster::{BaseClusterSpec, Join};
use domain::{Name, Problem};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use store::Zeroizing;

/// Where the kubelet's files go.
const DIRECTORY: &str = "/etc/kubernetes";

/// What a template calls the file by which the agent enrols.
const ENROLMENT: &str = "agentEnrolment";

/// What the data is made of.
pub(crate) struct Guest<'a> {
    pub machine: &'a Name,
    pub cluster: &'a Name,
    pub spec: &'a BaseClusterSpec,
    pub token: &'a Token,
    /// The CA of the API server (PEM).
    pub ca: &'a str,
    /// The file by which the machine's agent enrols; `None` where the cell does not know how it is reached.
    pub enrolment: Option<&'a str>,
}

/// The user data, by the way in which machines join the cluster.
pub(crate) fn render(guest: &Guest<'_>) -> Result<Zeroizing<String>, Box<Problem>> {
    match &guest.spec.join {
        Join::Kubeadm => Ok(kubeadm(guest)),
        Join::Rke2 => Ok(rke2(guest)),
        Join::Template { user_data } => fill(user_data, guest),
        Join::ClusterApi => Err(Box::new(coded(
            "assignment.cluster-api",
            format!("BaseCluster/{} takes its machines by Cluster API", guest.cluster),
        ))),
    }
}

/// Whether a machine that joins so is given the file by which its agent enrols: a template gives it where it says so.
pub(crate) fn enrols_agent(join: &Join) -> bool {
    match join {
        Join::Kubeadm | Join::Rke2 => true,
        Join::Template { user_data } => {
            let named = user_data.split("{{").filter_map(|text| text.split_once("}}"));
            named.map(|(name, _)| word_of(name).0).any(|word| word == ENROLMENT)
        }
        Join::ClusterApi => false,
    }
}

/// A kubeconfig that holds the bootstrap token and the CA, and nothing else.
fn bootstrap_kubeconfig(guest: &Guest<'_>) -> Zeroizing<String> {
    Zeroizing::new(yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": guest.cluster, "cluster": {
            "server": guest.spec.endpoint,
            "certificate-authority-data": STANDARD.encode(guest.ca),
        } }],
        "users": [{ "name": "bootstrap", "user": { "token": guest.token.bearer().as_str() } }],
        "contexts": [{ "name": "bootstrap", "context": { "cluster": guest.cluster, "user": "bootstrap" } }],
        "current-context": "bootstrap",
    })))
}

/// The kubelet's configuration: it registers with the taint that only the cell lifts, and renews its own certificate.
fn kubelet_configuration() -> String {
    yaml(&json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": format!("{DIRECTORY}/pki/ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "registerWithTaints": [{ "key": UNVERIFIED, "effect": "NoSchedule" }],
        "rotateCertificates": true,
    }))
}

fn kubeadm(guest: &Guest<'_>) -> Zeroizing<String> {
    let kubeconfig = bootstrap_kubeconfig(guest);
    // By file and not by token: the CA comes with the data, so nothing is trusted that the network says.
    let join = Zeroizing::new(yaml(&json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {
            "file": { "kubeConfigPath": format!("{DIRECTORY}/bailiwick-bootstrap.conf") },
            "tlsBootstrapToken": guest.token.bearer().as_str(),
        },
        "nodeRegistration": {
            "name": guest.machine,
            "taints": [{ "key": UNVERIFIED, "effect": "NoSchedule" }],
        },
    })));
    let (kubeconfig_path, join_path) =
        (format!("{DIRECTORY}/bailiwick-bootstrap.conf"), format!("{DIRECTORY}/bailiwick-join.yaml"));
    cloud_config(
        guest,
        &[(&kubeconfig_path, kubeconfig.as_str()), (&join_path, join.as_str())],
        &json!([["kubeadm", "join", "--config", join_path]]),
    )
}

fn rke2(guest: &Guest<'_>) -> Zeroizing<String> {
    // RKE2's full token: the digest of the CA file, and the bootstrap token (docs.rke2.io, token).
    let pin = hex::encode(Sha256::digest(guest.ca.as_bytes()));
    let bearer = guest.token.bearer();
    let config = Zeroizing::new(yaml(&json!({
        "server": guest.spec.endpoint,
        "token": format!("K10{pin}::{}", bearer.as_str()),
        "node-name": guest.machine,
        "node-taint": [format!("{UNVERIFIED}:NoSchedule")],
    })));
    cloud_config(
        guest,
        &[("/etc/rancher/rke2/config.yaml", config.as_str())],
        &json!([["systemctl", "enable", "--now", "rke2-agent.service"]]),
    )
}

/// Files by path and content, that of the agent beside them; cloud-init writes them before it runs the commands.
fn cloud_config(guest: &Guest<'_>, files: &[(&str, &str)], run: &Value) -> Zeroizing<String> {
    let path = format!("{STATE_DIR}/{ENROLMENT_FILE}");
    let enrolment = guest.enrolment.map(|content| (path.as_str(), content));
    let files: Vec<_> = files
        .iter()
        .copied()
        .chain(enrolment)
        .map(|(path, content)| json!({ "path": path, "permissions": "0600", "content": content }))
        .collect();
    let body = yaml(&json!({
        "hostname": guest.machine, "preserve_hostname": false, "write_files": files, "runcmd": run,
    }));
    Zeroizing::new(format!("#cloud-config\n{body}"))
}

fn yaml(value: &Value) -> String {
    // What JSON can hold, YAML can.
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// Replaces `{{name}}` and `{{name.base64}}`. One that is not known is an error: it would reach the machine as it stands.
fn fill(template: &str, guest: &Guest<'_>) -> Result<Zeroizing<String>, Box<Problem>> {
    let bearer = guest.token.bearer();
    let kubeconfig = bootstrap_kubeconfig(guest);
    let kubelet = kubelet_configuration();
    let mut values = vec![
        ("machine", guest.machine.as_str()),
        ("token", bearer.as_str()),
        ("endpoint", &guest.spec.endpoint),
        ("ca", guest.ca),
        ("kubernetesVersion", &guest.spec.kubernetes_version),
        ("bootstrapKubeconfig", kubeconfig.as_str()),
        ("kubeletConfiguration", &kubelet),
    ];
    values.extend(guest.enrolment.map(|content| (ENROLMENT, content)));
    let mut filled = Zeroizing::new(String::new());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            filled.push_str("{{");
            rest = after;
            break;
        };
        let (word, encoded) = word_of(name);
        let Some((_, value)) = values.iter().find(|(known, _)| *known == word) else {
            let message = format!("the user data of BaseCluster/{} names {{{{{word}}}}}", guest.cluster);
            if word == ENROLMENT {
                let message = format!("{message}, and no `agent-url` says where agents call this cell");
                return Err(Box::new(coded("join.agent-url", message)));
            }
            let known: Vec<_> = values.iter().map(|(name, _)| *name).collect();
            return Err(Box::new(coded("join.template", message).difference(word, known.join(", "))));
        };
        if encoded {
            filled.push_str(&STANDARD.encode(value));
        } else {
            filled.push_str(value);
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// What stands between the braces: which value, and whether it is written in base64.
fn word_of(name: &str) -> (&str, bool) {
    match name.trim().strip_suffix(".base64") {
        Some(word) => (word, true),
        None => (name.trim(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(join: Value, look: impl FnOnce(Result<Zeroizing<String>, Box<Problem>>) -> T) -> T {
        invited(join, None, look)
    }

    #[allow(clippy::needless_pass_by_value)] // made where it is called
    fn invited<T>(
        join: Value,
        enrolment: Option<&str>,
        look: impl FnOnce(Result<Zeroizing<String>, Box<Problem>>) -> T,
    ) -> T {
        let spec: BaseClusterSpec = serde_json::from_value(json!({
            "jurisdiction": "de", "site": "fra1", "kubernetesVersion": "1.36.3", "controlPlane": "external",
            "endpoint": "https://10.0.2.1:6443", "join": join, "image": { "live": { "iso": "http://i/n.iso" } },
        }))
        .unwrap();
        let token = Token { id: "abcdef".into(), secret: Zeroizing::new("0123456789abcdef".into()) };
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let (machine, cluster) = (Name::new("m1").unwrap(), Name::new("pool").unwrap());
        let (machine, cluster, spec, token, ca) = (&machine, &cluster, &spec, &token, ca.as_str());
        look(render(&Guest { machine, cluster, spec, token, ca, enrolment }))
    }

    #[test]
    fn every_way_to_join_carries_the_token_the_name_and_the_taint_and_no_restricted_label() {
        let template =
            json!({ "template": { "userData": "{{machine}} {{token}} {{kubeletConfiguration}}" } });
        for join in [json!("kubeadm"), json!("rke2"), template] {
            with(join, |data| {
                let data = data.unwrap();
                for part in ["m1", "abcdef.0123456789abcdef", UNVERIFIED] {
                    assert!(data.contains(part), "{part} is missing in {}", data.as_str());
                }
                assert!(!data.contains("node-restriction"));
            });
        }
    }

    #[test]
    fn kubeadms_data_is_a_cloud_config_whose_documents_read_back() {
        with(json!("kubeadm"), |data| {
            let data = data.unwrap();
            let config: Value =
                serde_saphyr::from_str(data.strip_prefix("#cloud-config\n").unwrap()).unwrap();
            let join: Value =
                serde_saphyr::from_str(config["write_files"][1]["content"].as_str().unwrap()).unwrap();
            assert_eq!(join["nodeRegistration"]["taints"][0]["key"], UNVERIFIED);
            let kubeconfig: Value =
                serde_saphyr::from_str(config["write_files"][0]["content"].as_str().unwrap()).unwrap();
            assert_eq!(kubeconfig["clusters"][0]["cluster"]["server"], "https://10.0.2.1:6443");
        });
    }

    #[test]
    fn the_agents_file_is_written_where_the_cell_knows_its_address_and_for_root_alone() {
        const ENROLMENT: &str = r#"{"cell":"https://cell.example:8461","token":"bwa_x"}"#;
        for join in [json!("kubeadm"), json!("rke2")] {
            invited(join.clone(), Some(ENROLMENT), |data| {
                let data = data.unwrap();
                let config: Value =
                    serde_saphyr::from_str(data.strip_prefix("#cloud-config\n").unwrap()).unwrap();
                let file = config["write_files"].as_array().unwrap().last().unwrap();
                let path = "/var/lib/bailiwick-agent/enrolment.json";
                assert_eq!(
                    file,
                    &json!({ "path": path, "permissions": "0600", "content": ENROLMENT }),
                    "{join}"
                );
            });
            with(join, |data| assert!(!data.unwrap().contains("bailiwick-agent")));
        }
    }

    #[test]
    fn a_template_may_put_the_agents_enrolment_where_it_likes_once_there_is_one() {
        let join = || json!({ "template": { "userData": "{{agentEnrolment}} {{agentEnrolment.base64}}" } });
        invited(join(), Some("{}"), |data| assert_eq!(data.unwrap().as_str(), "{} e30="));
        with(join(), |data| {
            let problem = data.unwrap_err();
            assert_eq!(problem.code, "join.agent-url");
            assert!(problem.hint.is_some());
        });
    }

    #[test]
    fn a_name_that_a_template_does_not_have_is_refused() {
        with(json!({ "template": { "userData": "{{machine}} {{tokn}}" } }), |data| {
            assert_eq!(data.unwrap_err().code, "join.template");
        });
    }

    #[test]
    fn braces_that_name_nothing_stay() {
        with(json!({ "template": { "userData": "a {{ b" } }), |data| {
            assert_eq!(data.unwrap().as_str(), "a {{ b");
        });
    }
}

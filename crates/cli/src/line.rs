//! What the quickstart's machines go through after their BMCs: a simulated Ironic and a simulated base cluster, whose state is
//! kept beside the rack's, so that a second run finds them as the first left them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::sim::ironic::{IronicEndpoint, NodeEvent, ProvisionState};
use ::sim::{Bmc, Cluster, RunningSite};
use cell::{IronicSettings, ProvisionerSettings, ServiceSettings};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::errors::{Failure, Outcome};
use crate::rack::BASE_CLUSTER;

/// The running parts.
pub(crate) struct Line {
    ironic: IronicEndpoint,
    cluster: Cluster,
    directory: PathBuf,
}

/// How often what has changed is kept.
const EVERY: Duration = Duration::from_secs(1);

/// What is kept of a node: what its owner wrote, and where it stands.
const KEPT: [&str; 11] = [
    "uuid",
    "name",
    "driver",
    "driver_info",
    "properties",
    "extra",
    "instance_info",
    "boot_interface",
    "deploy_interface",
    "automated_clean",
    "resource_class",
];

impl Line {
    /// Starts both, as they were left.
    pub(crate) async fn start(directory: &Path, site: &RunningSite) -> Outcome<Self> {
        let cluster = Cluster::start().await.map_err(|error| crate::sim::failed(&error))?;
        let uuids: BTreeMap<String, String> =
            site.machines().iter().map(|machine| (machine.name.clone(), machine.uuid.clone())).collect();
        let joins = cluster.clone();
        let bmcs: BTreeMap<String, Arc<Bmc>> = site
            .machines()
            .iter()
            .filter_map(|machine| Some((machine.name.clone(), Arc::clone(site.bmc(&machine.name)?))))
            .collect();
        let ironic = IronicEndpoint::builder()
            // An inspection finds what the BMC lists, so that each of its disks is erased and in the record of that.
            .inventory(move |node| Some(bmcs.get(node.name?)?.inspection()))
            .on_event(move |event| match event {
                // The host boots what it was given, and its kubelet joins with what the configuration drive holds.
                NodeEvent::Deployed(instance) => {
                    let name = instance.name.unwrap_or_default();
                    let user_data = instance.config_drive.as_ref().and_then(|drive| drive.user_data());
                    joins.boot(
                        &name,
                        uuids.get(&name).map_or("", String::as_str),
                        user_data.unwrap_or_default(),
                    );
                }
                NodeEvent::Undeployed(instance) => joins.switch_off(&instance.name.unwrap_or_default()),
                _ => {}
            })
            .start()
            .map_err(|error| crate::sim::failed(&error))?;
        let line = Self { ironic, cluster, directory: directory.to_owned() };
        line.restore();
        let secret = line.secrets_dir().join(BASE_CLUSTER);
        std::fs::create_dir_all(&secret).map_err(|error| unwritable(&secret, &error))?;
        let kubeconfig = secret.join("kubeconfig");
        std::fs::write(&kubeconfig, line.cluster.kubeconfig())
            .map_err(|error| unwritable(&kubeconfig, &error))?;
        Ok(line)
    }

    /// Where the cell finds the kubeconfig.
    pub(crate) fn secrets_dir(&self) -> PathBuf {
        self.directory.join("secrets")
    }

    /// The Ironic, as the cell is told of it.
    pub(crate) fn provisioner(&self) -> ProvisionerSettings {
        let ironic = IronicSettings { url: self.ironic.url().to_owned(), ..IronicSettings::default() };
        ProvisionerSettings {
            name: "simulated-ironic".to_owned(),
            sites: Vec::new(),
            service: ServiceSettings::Ironic(ironic),
            at_once: 32,
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("line.json")
    }

    /// Keeps both as they change, so that a run that is killed is taken up where it was; ends when it cannot.
    pub(crate) async fn keep_saved(&self) -> Failure {
        let mut kept = String::new();
        loop {
            sleep(EVERY).await;
            let now = self.now();
            if now != kept {
                if let Err(failure) = self.write(&now) {
                    return failure;
                }
                kept = now;
            }
        }
    }

    /// Keeps both as they are now.
    pub(crate) fn save(&self) -> Outcome {
        self.write(&self.now())
    }

    fn now(&self) -> String {
        let nodes = self.get("/v1/nodes/detail")["nodes"].as_array().cloned().unwrap_or_default();
        let ports = self.get("/v1/ports/detail")["ports"].clone();
        json!({ "nodes": nodes, "ports": ports, "cluster": self.cluster.save() }).to_string()
    }

    fn write(&self, now: &str) -> Outcome {
        let (path, unfinished) = (self.file(), self.directory.join("line.json.unfinished"));
        std::fs::write(&unfinished, now)
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .map_err(|error| unwritable(&path, &error))
    }

    fn get(&self, path: &str) -> Value {
        self.ironic.request(reqwest::Method::GET, path, None).1
    }

    fn restore(&self) {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let Ok(saved) = serde_json::from_str::<Value>(&text) else { return };
        self.cluster.restore(&saved["cluster"]);
        for node in saved["nodes"].as_array().into_iter().flatten() {
            let kept = KEPT.iter().filter(|key| !node[**key].is_null());
            let body: Value = kept
                .map(|key| ((*key).to_owned(), node[*key].clone()))
                .collect::<serde_json::Map<_, _>>()
                .into();
            self.ironic.request(reqwest::Method::POST, "/v1/nodes", Some(&body));
            let uuid = node["uuid"].as_str().unwrap_or_default();
            if let Some(instance) = node["instance_uuid"].as_str() {
                let patch = json!([{ "op": "add", "path": "/instance_uuid", "value": instance }]);
                self.ironic.request(reqwest::Method::PATCH, &format!("/v1/nodes/{uuid}"), Some(&patch));
            }
            if let Some(traits) = node["traits"].as_array() {
                let body = json!({ "traits": traits });
                self.ironic.request(reqwest::Method::PUT, &format!("/v1/nodes/{uuid}/traits"), Some(&body));
            }
            if let Some(state) = node["provision_state"].as_str().and_then(ProvisionState::parse) {
                self.ironic.set_state(uuid, state);
            }
        }
        for port in saved["ports"].as_array().into_iter().flatten() {
            let body = json!({
                "node_uuid": port["node_uuid"], "address": port["address"], "pxe_enabled": port["pxe_enabled"],
            });
            self.ironic.request(reqwest::Method::POST, "/v1/ports", Some(&body));
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new("output.write", format!("{} cannot be written: {error}", path.display()))
}

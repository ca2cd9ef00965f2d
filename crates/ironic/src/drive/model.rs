//! A model of Ironic small enough to try everything. The transitions are those of ironic/common/state_machine.py; what the model
//! refuses, Ironic refuses.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Action, Next, Task, next};
use crate::client::Provision;
use crate::node::{Node, ProvisionState as State};
use crate::patch::Patch;
use crate::port::Port;
use crate::registration::Registration;
use crate::secret::MASK;

#[derive(Clone)]
pub(super) struct Model {
    pub(super) node: Option<Value>,
    ports: Vec<Port>,
    pub(super) deploys: BTreeMap<String, u32>,
    clock: u32,
}

/// How the transition under way goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Luck {
    Well,
    ByTheAgent,
    Badly,
    /// As steps that do not exist: a cleaning fails without maintenance.
    AtOnce,
}

impl Luck {
    fn is_bad(self) -> bool {
        matches!(self, Self::Badly | Self::AtOnce)
    }
}

impl Model {
    pub(super) fn empty() -> Self {
        Self { node: None, ports: Vec::new(), deploys: BTreeMap::new(), clock: 0 }
    }

    pub(super) fn at(state: &State, instance: Option<Uuid>, registration: &Registration) -> Self {
        let mut node = registration.new_node().body();
        node["driver_info"]["redfish_password"] = json!(MASK);
        node["traits"] = json!([]);
        node["instance_uuid"] = json!(instance);
        node["instance_info"] = json!({});
        node["maintenance"] = json!(false);
        let mut model = Self { node: Some(node), ..Self::empty() };
        model.go(
            state.clone(),
            match state {
                State::Cleaning | State::CleanWait | State::Deleting => Some(State::Available),
                State::Deploying | State::DeployWait => Some(State::Active),
                State::Inspecting | State::InspectWait | State::Verifying => Some(State::Manageable),
                _ => None,
            },
        );
        if *state == State::CleanFailed {
            model.set("maintenance", json!(true));
            model.set("fault", json!("clean failure"));
        }
        model
    }

    pub(super) fn read(&self) -> Option<Node> {
        self.node.clone().map(|node| serde_json::from_value(node).unwrap())
    }

    pub(super) fn state(&self) -> Option<State> {
        self.read().map(|node| node.provision_state)
    }

    pub(super) fn set(&mut self, field: &str, value: Value) {
        if let Some(node) = &mut self.node {
            node[field] = value;
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "states are named where they are gone to")]
    fn go(&mut self, state: State, target: Option<State>) {
        self.clock += 1;
        self.set("provision_state", json!(state));
        self.set("target_provision_state", json!(target));
        self.set("provision_updated_at", json!(format!("t{}", self.clock)));
    }

    /// A transition with work to do: clears the last error, as `process_event` does.
    fn begin(&mut self, state: State, target: State) {
        self.set("last_error", Value::Null);
        self.go(state, Some(target));
    }

    /// Goes on with what is under way.
    pub(super) fn tick(&mut self, luck: Luck) {
        let Some(node) = self.read() else { return };
        let manual = node.target_provision_state == Some(State::Manageable);
        let target = || node.target_provision_state.clone();
        match (node.provision_state.clone(), luck) {
            (State::Verifying, luck) if luck.is_bad() => self.fail(State::Enroll, true),
            (State::Verifying, _) => self.go(State::Manageable, None),
            (State::Inspecting, Luck::ByTheAgent) => self.go(State::InspectWait, target()),
            (State::Inspecting | State::InspectWait, luck) if luck.is_bad() => {
                self.fail(State::InspectFailed, true);
            }
            (State::Inspecting | State::InspectWait, _) => {
                self.go(State::Manageable, None);
                self.set("inspection_finished_at", json!("2026-01-01T00:00:00+00:00"));
            }
            (State::Cleaning, Luck::ByTheAgent) => self.go(State::CleanWait, target()),
            (State::Cleaning | State::CleanWait, luck) if luck.is_bad() => {
                self.fail(State::CleanFailed, true);
                if luck == Luck::Badly {
                    self.set("maintenance", json!(true));
                    self.set("fault", json!("clean failure"));
                }
            }
            (State::Cleaning, _) => self.go(if manual { State::Manageable } else { State::Available }, None),
            (State::CleanWait, _) => self.go(State::Cleaning, target()),
            (State::Deploying, Luck::ByTheAgent) => self.go(State::DeployWait, target()),
            // facts/metal3-ironic §8.3: the reason may be lost.
            (State::Deploying | State::DeployWait, luck) if luck.is_bad() => {
                self.fail(State::DeployFailed, false);
            }
            (State::Deploying, _) => self.go(State::Active, None),
            (State::DeployWait, _) => self.go(State::Deploying, target()),
            (State::Deleting | State::Deleted, luck) if luck.is_bad() => self.fail(State::Error, true),
            (State::Deleting | State::Deleted, _) => {
                self.set("instance_uuid", Value::Null);
                self.set("instance_info", json!({}));
                self.go(State::Cleaning, Some(State::Available));
            }
            _ => {}
        }
    }

    fn fail(&mut self, state: State, told: bool) {
        self.go(state, None);
        self.set("last_error", if told { json!("it failed") } else { Value::Null });
    }

    /// Does what Ironic would, or says why it would not.
    pub(super) fn act(&mut self, action: &Action) -> Result<(), String> {
        let node = self.read();
        if let Action::CreateNode(new) = action {
            if node.is_some() {
                return Err("a second node".to_owned());
            }
            let mut body = new.body();
            body["driver_info"]["redfish_password"] = json!(MASK);
            body["instance_info"] = json!({});
            self.node = Some(body);
            self.go(State::Enroll, None);
            return Ok(());
        }
        let node = node.ok_or("no node")?;
        match action {
            Action::CreateNode(_) => Ok(()),
            Action::CreatePort { mac, .. } => {
                if self.ports.iter().any(|port| port.address.as_ref() == Some(mac)) {
                    return Err("a second port".to_owned());
                }
                let port = json!({"uuid": Uuid::nil(), "node_uuid": node.uuid, "address": mac.as_str()});
                self.ports.push(serde_json::from_value(port).unwrap());
                Ok(())
            }
            Action::SetTraits(traits) => {
                self.set("traits", json!(traits));
                Ok(())
            }
            Action::Patch(patch) => self.patch(&node, patch),
            Action::Reconnect(patch) => {
                self.patch(&node, patch)?;
                self.provision(&node, &Provision::Manage)
            }
            Action::Provision(provision) => self.provision(&node, provision),
            Action::BeginMaintenance { .. } => {
                self.set("maintenance", json!(true));
                Ok(())
            }
            Action::EndMaintenance => {
                self.set("maintenance", json!(false));
                self.set("fault", Value::Null);
                Ok(())
            }
            Action::DeleteNode => {
                let deletable =
                    matches!(node.provision_state, State::Manageable | State::Enroll | State::AdoptFailed)
                        && !node.has_instance();
                if !node.maintenance && !deletable || node.protected {
                    return Err(format!("delete in {}", node.provision_state));
                }
                self.node = None;
                self.ports.clear();
                Ok(())
            }
        }
    }

    fn patch(&mut self, node: &Node, patch: &Patch) -> Result<(), String> {
        let state = &node.provision_state;
        let allowed = matches!(
            state,
            State::DeployFailed
                | State::InspectFailed
                | State::InspectWait
                | State::CleanFailed
                | State::Error
                | State::Verifying
                | State::AdoptFailed
        );
        if node.target_provision_state.is_some() && !allowed {
            return Err(format!("patch in {state}"));
        }
        let idle = matches!(state, State::Enroll | State::Manageable | State::Available) || node.maintenance;
        let mut changed = self.node.clone().unwrap();
        for operation in patch.body().as_array().unwrap() {
            let path = operation["path"].as_str().unwrap();
            if path.contains("_interface") && !idle {
                return Err(format!("{path} in {state}"));
            }
            if path == "/instance_uuid" && operation["op"] == "add" && node.has_instance() {
                return Err("an instance is overwritten".to_owned());
            }
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            let (last, parents) = parts.split_last().unwrap();
            let mut object = &mut changed;
            for parent in parents {
                object = object.get_mut(*parent).ok_or(format!("no {parent}"))?;
            }
            if operation["op"] == "remove" {
                if object[*last].is_null() {
                    return Err(format!("remove {path}, which is not there"));
                }
                object[*last] = Value::Null;
            } else {
                let secret = last.contains("password");
                object[*last] = if secret { json!(MASK) } else { operation["value"].clone() };
            }
        }
        self.node = Some(changed);
        Ok(())
    }

    fn provision(&mut self, node: &Node, provision: &Provision) -> Result<(), String> {
        let state = node.provision_state.clone();
        if node.maintenance && !matches!(provision, Provision::Deleted | Provision::Manage | Provision::Abort)
        {
            return Err(format!("{} in maintenance", provision.verb()));
        }
        match (provision, &state) {
            (Provision::Manage, State::Enroll) => self.begin(State::Verifying, State::Manageable),
            (
                Provision::Manage,
                State::Available | State::CleanFailed | State::InspectFailed | State::AdoptFailed,
            ) => self.go(State::Manageable, None),
            (Provision::Provide, State::Manageable) if !node.retired => {
                self.begin(State::Cleaning, State::Available);
            }
            (Provision::Clean { .. }, State::Manageable) => self.begin(State::Cleaning, State::Manageable),
            (Provision::Inspect, State::Manageable | State::InspectFailed) => {
                self.begin(State::Inspecting, State::Manageable);
            }
            (Provision::Active { .. }, State::Available | State::DeployFailed) => {
                let instance = node.instance_uuid.clone().ok_or("deploy without instance")?;
                *self.deploys.entry(instance).or_default() += 1;
                self.begin(State::Deploying, State::Active);
            }
            (Provision::Deleted, State::Active | State::DeployWait | State::DeployFailed | State::Error)
                if !node.protected =>
            {
                self.begin(State::Deleting, State::Available);
            }
            _ => return Err(format!("{} in {state}", provision.verb())),
        }
        Ok(())
    }

    /// The node, then what is decided of it.
    pub(super) fn next(&self, task: &Task) -> Next {
        next(self.read().as_ref(), &self.ports, task)
    }
}

//! What operations do to a node when they end: credentials tried, hardware found, disks erased, an instance made or unmade, power
//! switched.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Fleet;
use crate::ironic::fault::Effect;
use crate::ironic::hook::{Instance, NodeEvent};
use crate::ironic::inventory::{self, NodeFacts};
use crate::ironic::job::{Job, Step};
use crate::ironic::node::Node;
use crate::ironic::record::{Cleaning, CleaningOutcome};
use crate::ironic::refusal::python;
use crate::ironic::states::{Operation, Power, ProvisionState};

impl Fleet {
    fn facts<T>(&self, id: u64, ask: impl FnOnce(&NodeFacts<'_>) -> T) -> Option<T> {
        let node = self.nodes.get(&id)?;
        let (macs, nothing) = (self.macs(node), Map::new());
        Some(ask(&NodeFacts {
            uuid: &node.uuid,
            name: node.name(),
            driver: node.text("driver").unwrap_or_default(),
            driver_info: node.object("driver_info").unwrap_or(&nothing),
            macs: &macs,
        }))
    }

    pub(super) fn try_credentials(&self, id: u64) -> Result<(), String> {
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        if let Some(sentence) = missing_power_info(node) {
            let uuid = &node.uuid;
            return Err(format!(
                "Failed to validate power driver interface for node {uuid}. Error: {sentence}"
            ));
        }
        let Some(check) = self.settings.credentials.clone() else { return Ok(()) };
        let tried = self.facts(id, |facts| check(facts)).unwrap_or(Ok(()));
        tried.map_err(|said| format!("Failed to get power state for node {}. Error: {said}", node.uuid))
    }

    /// The fake power interface believes what it is told; all others read it.
    pub(super) fn read_power(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id)
            && !node.is_fake("power")
        {
            node.power = Some(node.hardware_power);
        }
    }

    pub(super) fn inspected(&mut self, id: u64, now: Duration) {
        let source = self.settings.inventory.clone();
        let found = self.facts(id, |facts| source.and_then(|source| source(facts)));
        let default = self.facts(id, inventory::from_ports);
        if self.nodes.get(&id).is_some_and(|node| node.interface("inspect") == "agent") {
            self.switch(id, Power::Off);
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.inspection_started = None;
        node.inspection_finished = Some(now);
        // The fake interface finds nothing.
        let found = found.flatten().or_else(|| default.filter(|_| !node.is_fake("inspect")));
        if let Some(found) = found {
            let properties = node.record.entry("properties").or_insert_with(|| json!({}));
            if let Some(map) = properties.as_object_mut() {
                map.extend(inventory::properties(&found));
            }
            node.inventory = Some(found);
        }
    }

    /// The fake deploy interface has no steps; all others have those of the agent. Other interfaces have what is asked for.
    pub(super) fn unsupported_step(&self, id: u64, job: &Job) -> Option<String> {
        let node = self.nodes.get(&id).filter(|_| job.manual)?;
        let is_offered = |step: &Step| !node.is_fake("deploy") && job.offered.iter().any(|own| own.is(step));
        let of_agent = |step: &&Step| step.interface == "deploy" && step.step != "hold";
        let step = job.steps.iter().filter(of_agent).find(|step| !is_offered(step))?;
        let (uuid, step) = (&node.uuid, python(&step.show()));
        Some(format!("Cannot clean node {uuid}: node does not support this clean step: {step}"))
    }

    pub(super) fn cleaned(&mut self, id: u64, job: &Job, now: Duration) {
        if job.steps.is_empty() {
            return;
        }
        if !self.is_fake(id, "deploy") {
            self.switch(id, Power::Off);
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            let kind = if job.manual { "Manual" } else { "Automated" };
            let steps = listed(&job.steps);
            node.remember("INFO", format!("{kind} Cleaning completed successfully with steps={steps}"), now);
        }
        self.record_cleaning(id, job, CleaningOutcome::Completed);
    }

    pub(super) fn record_cleaning(&mut self, id: u64, job: &Job, outcome: CleaningOutcome) {
        if let Some(node) = self.nodes.get(&id)
            && !job.steps.is_empty()
        {
            let cleaning = Cleaning { automated: !job.manual, steps: job.steps.clone(), outcome };
            self.records.cleaned(&node.uuid, cleaning);
        }
    }

    fn instance(&self, id: u64) -> Option<Instance> {
        let node = self.nodes.get(&id)?;
        Some(Instance {
            node_uuid: node.uuid.clone(),
            name: node.name().map(str::to_owned),
            instance_uuid: node.text("instance_uuid").map(str::to_owned),
            instance_info: node.object("instance_info").cloned().unwrap_or_default(),
            config_drive: node.config_drive.clone(),
            macs: self.macs(node),
        })
    }

    fn is_fake(&self, id: u64, kind: &str) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.is_fake(kind))
    }

    /// Starts the ramdisk that an operation waits for.
    pub(super) fn boot_agent(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id)
            && node.state == ProvisionState::WaitCallBack
            && let Some(info) = node.record.get_mut("instance_info").and_then(Value::as_object_mut)
            && let Some(source) = info.get("image_source").cloned()
        {
            // Where the agent will fetch the image.
            info.insert("image_url".to_owned(), source);
        }
        self.switch(id, Power::On);
    }

    pub(super) fn deployed(&mut self, id: u64, now: Duration) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.remember("INFO", "Deployment completed successfully with steps=[]".to_owned(), now);
        }
        if !self.is_fake(id, "deploy") {
            self.switch(id, Power::On);
        }
        if let Some(instance) = self.instance(id) {
            self.events.push_back(NodeEvent::Deployed(instance));
        }
    }

    pub(super) fn undeployed(&mut self, id: u64, now: Duration) {
        if !self.is_fake(id, "deploy") {
            self.switch(id, Power::Off);
        }
        if let Some(instance) = self.instance(id) {
            self.events.push_back(NodeEvent::Undeployed(instance));
        }
        self.clear_instance(id);
        let steps = self.nodes.get(&id).map(|node| self.automated_steps(node)).unwrap_or_default();
        self.begin_at(id, Operation::Clean, steps, false, now);
    }

    pub(super) fn clear_instance(&mut self, id: u64) {
        self.unindex(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.record.insert("instance_info".to_owned(), json!({}));
            node.record.insert("instance_uuid".to_owned(), Value::Null);
            node.record.insert("instance_name".to_owned(), Value::Null);
            node.config_drive = None;
        }
        self.index(id);
    }

    /// What automated cleaning of this node does: nothing where it is off.
    pub(crate) fn automated_steps(&self, node: &Node) -> Vec<Step> {
        let asked = node.record.get("automated_clean").and_then(Value::as_bool);
        if !asked.unwrap_or(self.settings.automated_clean) {
            return Vec::new();
        }
        if node.is_fake("deploy") {
            return vec![Step::new("vendor", "log_passthrough")];
        }
        self.settings.clean_steps.clone()
    }

    // Power

    /// Begins a change of power.
    pub(crate) fn ask_power(&mut self, id: u64, power: Power) {
        let delay = self.delays.power();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.last_error = None;
        node.target_power = Some(power);
        if delay.is_zero() {
            return self.reach_power(id, power);
        }
        let at = self.now().saturating_add(delay);
        let ticket = self.ticket();
        self.set_alarm(id, ticket, at, Some(power));
    }

    pub(super) fn reach_power(&mut self, id: u64, power: Power) {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.target_power = None;
        let fault = self.faults.take(&node.uuid, node.name(), |effect| match effect {
            Effect::PowerIgnored => Some(None),
            Effect::PowerFails { reason } => Some(Some(reason.clone())),
            _ => None,
        });
        match fault {
            Some(Some(reason)) => {
                let sentence = format!("Failed to change power state to '{power}' by '{power}': {reason}");
                node.remember("ERROR", sentence.clone(), now);
                node.last_error = Some(sentence);
            }
            Some(None) => node.power = Some(power),
            None => {
                node.power = Some(power);
                self.set_hardware_power(id, power);
            }
        }
    }

    /// Switches as part of an operation.
    pub(super) fn switch(&mut self, id: u64, power: Power) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.power = Some(power);
            self.set_hardware_power(id, power);
        }
    }

    fn set_hardware_power(&mut self, id: u64, power: Power) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.hardware_power != power {
            node.hardware_power = power;
            self.events.push_back(NodeEvent::Power { node_uuid: node.uuid.clone(), power });
        }
    }
}

/// Steps as Ironic writes them into its history.
pub(super) fn listed(steps: &[Step]) -> String {
    python(&steps.iter().map(Step::show).collect::<Vec<_>>().into())
}

/// What the power interface misses in driver_info, in Ironic's sentence.
pub(crate) fn missing_power_info(node: &Node) -> Option<String> {
    let required = match node.interface("power") {
        "redfish" => "redfish_address",
        "ipmitool" => "ipmi_address",
        _ => return None,
    };
    let given = node.object("driver_info").and_then(|info| info.get(required)).and_then(Value::as_str);
    if given.is_some_and(|address| !address.is_empty()) {
        return None;
    }
    Some(if required == "redfish_address" {
        let uuid = &node.uuid;
        format!("Missing the following Redfish properties in node {uuid} driver_info: ['{required}']")
    } else {
        format!("Missing the following IPMI credentials in node's driver_info: ['{required}'].")
    })
}

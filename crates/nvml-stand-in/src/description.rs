//! What the library answers: a host as a file describes it.

use domain::probe::{ConfidentialComputing, Driver, Placement, ProbedGpu};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A host. It has the form of a probe, so the JSON that `bailiwick-agent probe -o json` prints on a real host is one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The driver; without one, NVML does not start.
    #[serde(default)]
    pub driver: Option<Driver>,
    /// Confidential computing of the host.
    #[serde(default)]
    pub confidential_computing: Option<ConfidentialComputing>,
    /// What all GPUs have in common: fields of a GPU that each of `gpus` may have otherwise.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub each: Value,
    /// The GPUs.
    #[serde(default)]
    pub gpus: Vec<Value>,
    /// Calls that fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Events, each told once; those that a later version of the file adds at the end are told then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// One GPU of a description: what a probe of it says, and what no probe says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Described {
    /// What a probe says.
    #[serde(flatten)]
    pub gpu: ProbedGpu,
    /// `nvmlDeviceGpuRecoveryAction_t`; absent for a driver that does not tell it.
    #[serde(default)]
    pub recovery_action: Option<u32>,
    /// Texts that are told with a byte that is no UTF-8 at their end: `serial`, `model`, ….
    #[serde(default)]
    pub not_utf8: Vec<String>,
    /// Processes with a graphics context.
    #[serde(default)]
    pub graphics_processes: u32,
    /// Whether processes are counted with success, as NVIDIA's mock library does, and not with what `nvml.h` says.
    #[serde(default)]
    pub counts_with_success: bool,
    /// Processes of MIG instances, by the number of the GPU instance; who has some cannot be destroyed.
    #[serde(default)]
    pub instance_processes: BTreeMap<u32, u32>,
    /// GPU instances without a compute instance, so without a MIG device; those with one are among the probe's.
    #[serde(default)]
    pub empty_instances: Vec<EmptyInstance>,
}

/// A GPU instance without a compute instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmptyInstance {
    /// Its number.
    pub gpu_instance: u32,
    /// Id of its profile.
    pub profile: u32,
    /// Where it is.
    pub placement: Placement,
}

/// Calls that fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The function, such as `nvmlDeviceGetSerial`; `*` for all that ask a GPU.
    pub function: String,
    /// Index of the GPU; absent for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// `nvmlReturn_t`: 3 not supported, 4 no permission, 9 driver not loaded, 15 GPU lost, 999 unknown, ….
    #[serde(default)]
    pub error: u32,
    /// Instead of failing, the call does not return until the host is described anew, and no other of the process meanwhile, as when
    /// the driver does not give its own lock back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hangs: bool,
    /// So many calls succeed first.
    #[serde(default)]
    pub after: u32,
    /// So many calls fail; absent for all from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// Something that the driver reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event {
    /// Index of the GPU.
    pub gpu: u32,
    /// XID error.
    pub xid: u64,
}

impl Description {
    /// Reads a description, YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, String> {
        let description: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        description.gpus()?;
        Ok(description)
    }

    /// The GPUs, with what all have in common.
    pub fn gpus(&self) -> Result<Vec<Described>, String> {
        let mut base = serde_json::to_value(ProbedGpu::default()).map_err(|error| error.to_string())?;
        merge(&mut base, &self.each);
        let indexed = (0_u32..).zip(&self.gpus).map(|(index, own)| {
            let mut gpu = base.clone();
            merge(&mut gpu, own);
            if let Some(fields) = gpu.as_object_mut() {
                fields.insert("index".to_owned(), index.into());
            }
            serde_json::from_value(gpu).map_err(|error| format!("GPU {index}: {error}"))
        });
        indexed.collect()
    }

    /// Gives a GPU the MIG instances that it is described with.
    pub(crate) fn put_instances(&mut self, index: usize, described: &Described) -> Result<(), String> {
        let value = |told: serde_json::Result<Value>| told.map_err(|error| error.to_string());
        let instances = value(serde_json::to_value(described.gpu.mig.as_ref().map(|mig| &mig.instances)))?;
        let empty = value(serde_json::to_value(&described.empty_instances))?;
        let gpu = self.gpus.get_mut(index).ok_or("there is no such GPU")?;
        merge(gpu, &json!({ "mig": { "instances": instances }, "emptyInstances": empty }));
        Ok(())
    }

    /// As text.
    pub fn to_text(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(|error| error.to_string())
    }
}

/// Objects are merged key by key; all else of `over` takes the place of what was there.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(key) {
                    Some(there) if value.is_object() => merge(there, value),
                    _ => {
                        base.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_that_comes_with_the_crate_can_be_read() {
        for (name, text) in crate::HOSTS {
            let gpus = Description::parse(text).unwrap().gpus().unwrap();
            assert!(gpus.len() == 8 || name == "gb200" && gpus.len() == 4, "{name}: {}", gpus.len());
        }
    }

    #[test]
    fn a_gpu_has_what_all_have_unless_it_says_otherwise() {
        let text = "each: {model: M1, pci: {deviceId: '10de:1'}}\ngpus: [{pci: {address: a}}, {model: M2}]";
        let gpus = Description::parse(text).unwrap().gpus().unwrap();
        assert_eq!(gpus[0].gpu.model.as_deref(), Some("M1"));
        assert_eq!(gpus[0].gpu.pci.device_id.as_deref(), Some("10de:1"));
        assert_eq!(gpus[0].gpu.pci.address.as_deref(), Some("a"));
        assert_eq!((gpus[1].gpu.model.as_deref(), gpus[1].gpu.index), (Some("M2"), 1));
    }

    #[test]
    fn a_fault_with_a_word_that_does_not_exist_is_no_description() {
        assert!(Description::parse("faults: [{function: x, error: 3, when: 1}]").is_err());
        assert!(Description::parse("faults: [{function: x, hangs: true}]").unwrap().faults[0].hangs);
    }
}

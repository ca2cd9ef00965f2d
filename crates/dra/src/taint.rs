//! Taints say that something got worse; they are not the gate (DESIGN §5.6).

use crate::input::{PublishedMachine, TaintRuleVersion};
use crate::nvidia::NVIDIA;
use crate::object::{Object, annotated, label, metadata};
use crate::{DRIVER, TAINT_ALARM, TAINT_HEALTH};
use domain::Name;
use domain::base_cluster::GpuDriver;
use domain::probe::{ProbedGpu, Severity};
use k8s_openapi::api::resource::v1::DeviceTaint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

/// The taint of an alarmed machine. Its value is the first code, sorted; all of them are in the rule's annotation.
pub(crate) fn taint(machine: &PublishedMachine) -> Option<DeviceTaint> {
    let code = codes(machine).into_iter().next()?;
    Some(DeviceTaint {
        key: TAINT_ALARM.to_owned(),
        value: label_value(&code),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    })
}

/// The taint of a GPU that something is wrong with; it goes with the cause.
pub(crate) fn of_health(gpu: &ProbedGpu) -> Option<DeviceTaint> {
    let worst = gpu.health.iter().min()?;
    let effect = match worst.severity {
        Severity::Critical => "NoExecute",
        Severity::Warning => "NoSchedule",
        Severity::Notice => return None,
    };
    Some(DeviceTaint {
        key: TAINT_HEALTH.to_owned(),
        value: label_value(&worst.code),
        effect: effect.to_owned(),
        time_added: None,
    })
}

/// One rule for the whole pool of an alarmed machine.
pub(crate) fn rule(cell: &Name, machine: &PublishedMachine, version: TaintRuleVersion) -> Option<Object> {
    let annotations = [("bailiwick.dev/alarms", codes(machine).join(","))];
    let name = label(machine.name.as_str(), "-alarm");
    let selector = json!({ "driver": driver_of(machine), "pool": machine.name });
    Some(render(&annotated(cell, &name, &annotations), machine, &selector, &taint(machine)?, version))
}

/// One rule for a GPU of NVIDIA's driver that something is wrong with. It names its devices by their minor number.
pub(crate) fn health_rule(
    cell: &Name,
    machine: &PublishedMachine,
    gpu: &ProbedGpu,
    version: TaintRuleVersion,
) -> Option<Object> {
    let device = format!("gpu-{}", gpu.minor?);
    let name = label(machine.name.as_str(), &format!("-{device}-health"));
    let selector = json!({ "driver": NVIDIA, "pool": machine.name, "device": device });
    Some(render(&metadata(cell, &name), machine, &selector, &of_health(gpu)?, version))
}

fn driver_of(machine: &PublishedMachine) -> &'static str {
    match machine.gpu_driver {
        GpuDriver::Bailiwick => DRIVER,
        GpuDriver::Nvidia => NVIDIA,
    }
}

/// Untyped, since the version moves (facts: dra §2).
fn render(
    metadata: &ObjectMeta,
    machine: &PublishedMachine,
    selector: &Value,
    taint: &DeviceTaint,
    version: TaintRuleVersion,
) -> Object {
    let rule = json!({
        "apiVersion": format!("resource.k8s.io/{}", version.as_str()),
        "kind": "DeviceTaintRule",
        "metadata": metadata,
        "spec": { "deviceSelector": selector, "taint": taint },
    });
    Object::new(&rule, Some(&machine.name))
}

fn codes(machine: &PublishedMachine) -> Vec<String> {
    let mut codes: Vec<_> = machine.alarms.iter().map(|alarm| alarm.code.clone()).collect();
    codes.sort();
    codes.dedup();
    codes
}

/// A code as a label value, which a taint's value must be; a code that is none leaves the taint without value.
fn label_value(code: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    let fits = (1..=63).contains(&code.len())
        && code.bytes().all(|b| plain(b) || matches!(b, b'-' | b'_' | b'.'))
        && code.bytes().next().is_some_and(plain)
        && code.bytes().last().is_some_and(plain);
    fits.then(|| code.to_owned())
}

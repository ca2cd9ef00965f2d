//! Taints say that something got worse; they are not the gate (DESIGN §5.6).

use crate::input::{PublishedMachine, TaintRuleVersion};
use crate::object::{Object, annotated, label};
use crate::{DRIVER, TAINT_ALARM, TAINT_HEALTH};
use domain::Name;
use domain::probe::{ProbedGpu, Severity};
use k8s_openapi::api::resource::v1::DeviceTaint;
use serde_json::json;

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

/// The taint of a GPU with which something is wrong, after the worst of its findings. It is made of the last probe alone, so it goes
/// when its cause does. Who has a GPU that only should be looked after may finish; a broken one is taken from them.
pub(crate) fn health(gpu: &ProbedGpu) -> Option<DeviceTaint> {
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

/// One rule for the whole pool of an alarmed machine. Untyped, since the version moves (facts: dra §2).
pub(crate) fn rule(cell: &Name, machine: &PublishedMachine, version: TaintRuleVersion) -> Option<Object> {
    let taint = taint(machine)?;
    let annotations = [("bailiwick.dev/alarms", codes(machine).join(","))];
    let rule = json!({
        "apiVersion": format!("resource.k8s.io/{}", version.as_str()),
        "kind": "DeviceTaintRule",
        "metadata": annotated(cell, &label(machine.name.as_str(), "-alarm"), &annotations),
        "spec": { "deviceSelector": { "driver": DRIVER, "pool": machine.name }, "taint": taint },
    });
    Some(Object::new(&rule, Some(&machine.name)))
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

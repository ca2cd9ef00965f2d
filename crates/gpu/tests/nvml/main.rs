//! The probe and the watch over a library of NVML's form: the stand-in, of which each test has a copy and a host of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod faults;
mod hosts;
mod parts;
mod watching;

use bailiwick_gpu::{Context, HostRoot, Nvml, Xids};
use domain::probe::Probe;
use jiff::Timestamp;
use nvml_stand_in::{Description, Installed};
use serde_json::{Value, json};
use std::path::Path;

/// A host whose driver is stood in for.
struct Host {
    description: Description,
    installed: Installed,
    folder: tempfile::TempDir,
}

impl Host {
    fn of(model: &str) -> Self {
        Self::described(Description::parse(nvml_stand_in::host(model).unwrap()).unwrap())
    }

    fn described(description: Description) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installed = Installed::into(folder.path(), &description).unwrap();
        Self { description, installed, folder }
    }

    /// A root with no files of a kernel in it, so that this machine's own are not read.
    fn root(&self) -> HostRoot {
        HostRoot::at(self.folder.path().join("root"))
    }

    /// Describes the host anew.
    fn change(&mut self, change: impl FnOnce(&mut Description)) {
        change(&mut self.description);
        self.installed.describe(&self.description).unwrap();
    }

    /// Gives one GPU other values.
    fn gpu(&mut self, index: usize, fields: &Value) {
        self.change(|host| {
            let gpu = host.gpus[index].as_object_mut().unwrap();
            for (key, value) in fields.as_object().unwrap() {
                match (gpu.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
                    (Some(there), Some(more)) => there.extend(more.clone()),
                    _ => _ = gpu.insert(key.clone(), value.clone()),
                }
            }
        });
    }

    /// Lets calls fail.
    fn fault(&mut self, fault: &Value) {
        self.change(|host| host.faults.push(serde_json::from_value(fault.clone()).unwrap()));
    }

    fn open(&self) -> Nvml {
        Nvml::open(Some(&self.installed.library())).unwrap()
    }

    fn probe(&self) -> Probe {
        self.probe_after(&self.open(), None)
    }

    fn probe_after(&self, nvml: &Nvml, previous: Option<&Probe>) -> Probe {
        let host = self.root();
        let context = Context { host: &host, now: Timestamp::now(), previous };
        bailiwick_gpu::probe(nvml, &context, &mut Xids::default()).unwrap()
    }
}

/// Codes of the findings of one GPU.
fn findings(probe: &Probe, index: usize) -> Vec<&str> {
    probe.gpus[index].health.iter().map(|finding| finding.code.as_str()).collect()
}

/// Code and field of every diagnostic.
fn diagnostics(probe: &Probe) -> Vec<(&str, &str)> {
    probe.diagnostics.iter().map(|d| (d.code.as_str(), d.field.as_str())).collect()
}

/// Writes a file of the kernel.
fn kernel_file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_library_without_a_description_is_a_host_without_a_driver() {
    let host = Host::of("h100");
    host.installed.unload().unwrap();
    let error = Nvml::open(Some(&host.installed.library())).unwrap_err();
    assert_eq!(error.code(), "gpu.no-driver");
}

#[test]
fn a_library_and_a_driver_of_different_versions_are_told_apart_from_none() {
    let mut host = Host::of("h100");
    host.fault(&json!({"function": "nvmlInit_v2", "error": 18}));
    let error = Nvml::open(Some(&host.installed.library())).unwrap_err();
    assert_eq!(error.code(), "gpu.driver-mismatch");
}

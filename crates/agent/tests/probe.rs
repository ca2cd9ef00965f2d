//! `bailiwick-agent probe` as people and programs see it, on hosts whose driver is stood in for. `TRYCMD=overwrite` writes the
//! transcripts anew.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use nvml_stand_in::{Description, Installed};
use std::path::Path;
use std::process::{Command, Output};

/// A host's driver and its kernel's files.
struct Host(tempfile::TempDir);

impl Host {
    fn of(model: &str, change: impl FnOnce(&mut Description)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut description = Description::parse(nvml_stand_in::host(model).unwrap()).unwrap();
        change(&mut description);
        Installed::into(folder.path(), &description).unwrap();
        let file = |path: &str, text: &str| {
            let path = folder.path().join("root").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("proc/sys/kernel/hostname", "node1\n");
        file("sys/class/dmi/id/product_uuid", "3B6EC1D0-7C5A-11EE-8000-0A0B0C0D0E0F\n");
        for (at, gpu) in description.gpus().unwrap().iter().enumerate() {
            let address = gpu.gpu.pci.address.clone().unwrap();
            let root = format!("pci{}:{:02x}", &address[..4], at * 16);
            file(&format!("sys/devices/{root}/{address}/numa_node"), &format!("{}\n", at / 4));
            let devices = folder.path().join("root/sys/bus/pci/devices");
            std::fs::create_dir_all(&devices).unwrap();
            let target = format!("../../../devices/{root}/{address}");
            std::os::unix::fs::symlink(target, devices.join(&address)).unwrap();
        }
        Self(folder)
    }

    fn library(&self) -> String {
        self.0.path().join("libnvidia-ml.so.1").display().to_string()
    }

    fn root(&self) -> String {
        self.0.path().join("root").display().to_string()
    }

    fn transcript(&self, file: &str) {
        trycmd::TestCases::new()
            .env("NO_COLOR", "1")
            .env("BAILIWICK_NVML", self.library())
            .env("BAILIWICK_HOST_ROOT", self.root())
            .case(file)
            .run();
    }

    fn probe(&self, args: &[&str]) -> Output {
        agent(&[&["probe", "--nvml", &self.library(), "--host-root", &self.root()], args].concat())
    }
}

fn agent(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bailiwick-agent")).args(args).output().unwrap()
}

#[test]
fn help_is_as_written_down() {
    trycmd::TestCases::new().env("NO_COLOR", "1").case("tests/cmd/help.trycmd").run();
}

#[test]
fn an_hgx_host_is_told_as_written_down() {
    Host::of("h100", |_| {}).transcript("tests/cmd/h100.trycmd");
}

#[test]
fn a_host_with_faults_is_told_as_written_down() {
    let host = Host::of("a100", |host| {
        let change = |gpu: &mut serde_json::Value, more: serde_json::Value| {
            gpu.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        };
        change(
            &mut host.gpus[1],
            serde_json::json!({"mig": {"enabled": true, "pending": true, "instances": [
                {"uuid": "MIG-c7a5d1d0-2b4e-5f0a-9c1d-3e5f7a9b1c2d", "gpuInstance": 1, "computeInstance": 0, "profile": 9,
                 "placement": {"start": 4, "size": 4}},
            ]}}),
        );
        change(&mut host.gpus[2], serde_json::json!({"notUtf8": ["serial"]}));
        change(
            &mut host.gpus[4],
            serde_json::json!({"remappedRows": {"correctable": 0, "uncorrectable": 9, "pending": true, "failed": true}}),
        );
        let lost = serde_json::json!({"function": "*", "gpu": 6, "error": 15, "after": 4});
        host.faults.push(serde_json::from_value(lost).unwrap());
    });
    host.transcript("tests/cmd/faults.trycmd");
}

#[test]
fn a_tray_of_a_rack_is_told_as_written_down() {
    Host::of("gb200", |_| {}).transcript("tests/cmd/gb200.trycmd");
}

#[test]
fn json_is_one_probe_document() {
    let output = Host::of("b200", |_| {}).probe(&["-o", "json"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let probe: domain::Probe = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(probe.gpus.len(), 8);
    assert_eq!(probe.host.hostname.as_deref(), Some("node1"));
}

#[test]
fn a_host_without_a_driver_ends_with_a_code_of_its_own_and_says_what_to_do() {
    for (format, said) in
        [("table", "error[gpu.no-driver]: no NVIDIA driver is loaded"), ("json", "\"gpu.no-driver\"")]
    {
        // NVML_ERROR_DRIVER_NOT_LOADED
        let fault = serde_json::json!({"function": "nvmlInit_v2", "error": 9});
        let host = Host::of("h100", |host| host.faults.push(serde_json::from_value(fault).unwrap()));
        let output = host.probe(&["-o", format]);
        assert_eq!(output.status.code(), Some(10));
        assert!(output.stdout.is_empty());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(said) && told.contains("hint"), "{told}");
    }
}

#[test]
fn a_library_that_was_named_and_is_not_there_is_told_from_a_driver_that_is_not_loaded() {
    let output = agent(&["probe", "--nvml", "/nowhere/libnvidia-ml.so.1"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    let said = "error[gpu.library-missing]: there is no file /nowhere/libnvidia-ml.so.1\n";
    assert!(told.starts_with(said) && told.contains("Correct --nvml"), "{told}");
}

#[test]
fn a_file_that_is_no_library_ends_with_another_code() {
    let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    assert_eq!(agent(&["probe", "--nvml", &this.display().to_string()]).status.code(), Some(11));
}

#[test]
fn no_colour_is_written_where_nobody_wants_any() {
    let output = Host::of("h200", |_| {}).probe(&["--wide"]);
    assert!(!String::from_utf8(output.stdout).unwrap().contains('\u{1b}'));
}

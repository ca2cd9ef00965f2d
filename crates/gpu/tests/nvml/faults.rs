//! One bad field costs one diagnostic, never a GPU.

use crate::{Host, diagnostics, findings};
use domain::probe::Severity;
use serde_json::json;

#[test]
fn a_serial_that_is_not_utf8_costs_one_diagnostic_and_nothing_else() {
    let mut host = Host::of("h100");
    host.gpu(2, &json!({"notUtf8": ["serial"]}));
    let probe = host.probe();
    assert_eq!(diagnostics(&probe), [("gpu.text-not-utf8", "gpus/2/serial")]);
    assert_eq!(probe.gpus[2].serial, None);
    assert!(probe.gpus[2].uuid.is_some() && probe.gpus[2].health.is_empty());
}

#[test]
fn every_function_may_fail_for_one_gpu_and_all_gpus_are_told() {
    let functions = [
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetBrand",
        "nvmlDeviceGetArchitecture",
        "nvmlDeviceGetSerial",
        "nvmlDeviceGetBoardPartNumber",
        "nvmlDeviceGetVbiosVersion",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetModuleId",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetEccMode",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetGpuInstanceProfileInfoV",
        "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
        "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetNvLinkErrorCounter",
        "nvmlDeviceGetGpuFabricInfoV",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetTemperatureThreshold",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetMaxClockInfo",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetFieldValues",
    ];
    let mut host = Host::of("h100");
    let nvml = host.open();
    let healthy = host.probe_after(&nvml, None);
    for function in functions {
        // 999 is NVML_ERROR_UNKNOWN
        host.change(|host| host.faults.clear());
        host.fault(&json!({"function": function, "gpu": 1, "error": 999}));
        let probe = host.probe_after(&nvml, None);
        assert_eq!(probe.gpus.len(), 8, "{function}");
        assert!(!probe.diagnostics.is_empty(), "{function} fails unnoticed");
        let elsewhere =
            |d: &&domain::probe::Diagnostic| d.code != "gpu.read-failed" || !d.field.starts_with("gpus/1/");
        assert_eq!(probe.diagnostics.iter().find(elsewhere), None, "{function}");
        for other in [0, 2, 7] {
            assert_eq!(probe.gpus[other], healthy.gpus[other], "{function}");
        }
    }
}

#[test]
fn what_a_gpu_does_not_support_is_null_without_a_diagnostic() {
    let mut host = Host::of("h100");
    for function in ["nvmlDeviceGetModuleId", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetGpuFabricInfoV"] {
        host.fault(&json!({"function": function, "error": 3}));
    }
    let probe = host.probe();
    assert_eq!(probe.diagnostics, []);
    assert_eq!(
        (probe.gpus[0].module_id, &probe.gpus[0].remapped_rows, &probe.gpus[0].fabric),
        (None, &None, &None)
    );
}

#[test]
fn what_we_may_not_know_says_so() {
    let mut host = Host::of("h100");
    host.fault(&json!({"function": "nvmlDeviceGetSerial", "gpu": 0, "error": 4}));
    assert_eq!(diagnostics(&host.probe()), [("gpu.not-permitted", "gpus/0/serial")]);
}

#[test]
fn a_gpu_that_falls_off_the_bus_half_way_is_told_with_what_is_known() {
    let mut host = Host::of("h100");
    // 15 is NVML_ERROR_GPU_IS_LOST
    host.fault(&json!({"function": "*", "gpu": 3, "error": 15, "after": 6}));
    let probe = host.probe();
    assert_eq!(findings(&probe, 3), ["gpu.health.lost"]);
    assert_eq!(probe.gpus[3].worst(), Some(Severity::Critical));
    assert!(probe.gpus[3].uuid.is_some() && probe.gpus[3].vbios.is_none());
    assert_eq!(probe.diagnostics, [], "one finding says it all");
    assert!(probe.gpus[4].health.is_empty());
}

#[test]
fn a_gpu_that_is_gone_from_the_start_keeps_the_identity_it_had_in_this_boot() {
    let mut host = Host::of("h100");
    crate::kernel_file(
        &host.folder.path().join("root"),
        "proc/sys/kernel/random/boot_id",
        "00000000-0000-4000-8000-000000000001\n",
    );
    let nvml = host.open();
    let before = host.probe_after(&nvml, None);
    host.fault(&json!({"function": "*", "gpu": 3, "error": 15}));
    let after = host.probe_after(&nvml, Some(&before));
    assert_eq!(after.gpus[3].uuid, before.gpus[3].uuid);
    assert_eq!(findings(&after, 3), ["gpu.health.lost"]);
    // after a restart, index 3 may be another GPU
    crate::kernel_file(
        &host.folder.path().join("root"),
        "proc/sys/kernel/random/boot_id",
        "00000000-0000-4000-8000-000000000002\n",
    );
    assert_eq!(host.probe_after(&nvml, Some(&before)).gpus[3].uuid, None);
}

#[test]
fn two_gpus_of_one_uuid_are_both_told_and_both_kept_from_use() {
    let mut host = Host::of("h100");
    let same = host.description.gpus().unwrap()[0].gpu.uuid.clone();
    host.gpu(5, &json!({"uuid": same}));
    let probe = host.probe();
    assert_eq!(
        diagnostics(&probe),
        [("gpu.uuid-repeated", "gpus/0/uuid"), ("gpu.uuid-repeated", "gpus/5/uuid")]
    );
    assert_eq!(
        (findings(&probe, 0), findings(&probe, 5)),
        (vec!["gpu.health.uuid-repeated"], vec!["gpu.health.uuid-repeated"])
    );
    assert!(probe.gpus[1].health.is_empty());
}

#[test]
fn a_uuid_and_an_address_that_cannot_be_are_not_believed() {
    let mut host = Host::of("h100");
    host.gpu(0, &json!({"uuid": "GPU-1"}));
    host.gpu(1, &json!({"pci": {"address": "0000:1ff:00.0"}}));
    host.gpu(2, &json!({"model": "NVIDIA\u{1b}[2J"}));
    let probe = host.probe();
    let expected = ["gpus/0/uuid", "gpus/1/pci.address", "gpus/2/model"].map(|f| ("gpu.value-malformed", f));
    assert_eq!(diagnostics(&probe), expected);
    assert_eq!(
        (&probe.gpus[0].uuid, &probe.gpus[1].pci.address, &probe.gpus[2].model),
        (&None, &None, &None)
    );
}

#[test]
fn a_placeholder_is_no_serial() {
    let mut host = Host::of("h100");
    host.gpu(0, &json!({"serial": "0"}));
    host.gpu(1, &json!({"partNumber": "N/A"}));
    let probe = host.probe();
    assert_eq!((&probe.gpus[0].serial, &probe.gpus[1].part_number), (&None, &None));
    assert_eq!(probe.diagnostics, []);
}

#[test]
fn a_driver_that_goes_away_while_it_is_asked_is_an_error_and_no_probe_of_nothing() {
    let mut host = Host::of("h100");
    let nvml = host.open();
    host.fault(&json!({"function": "nvmlDeviceGetSerial", "gpu": 4, "error": 9}));
    let root = host.root();
    let context = bailiwick_gpu::Context { host: &root, now: jiff::Timestamp::now(), previous: None };
    let error = bailiwick_gpu::probe(&nvml, &context, &mut bailiwick_gpu::Xids::default()).unwrap_err();
    assert_eq!(error.code(), "gpu.no-driver");
}

#[test]
fn a_mig_mode_that_cannot_be_read_is_a_finding_and_one_that_a_gpu_has_not_is_none() {
    for error in [4, 999] {
        let mut host = Host::of("h100");
        host.fault(&json!({"function": "nvmlDeviceGetMigMode", "gpu": 2, "error": error}));
        let probe = host.probe();
        assert!(probe.gpus[2].mig.is_none());
        assert_eq!(findings(&probe, 2), ["gpu.health.mig-unknown"]);
        assert!(findings(&probe, 1).is_empty());
    }
    let mut host = Host::of("h100");
    host.fault(&json!({"function": "nvmlDeviceGetMigMode", "gpu": 2, "error": 3}));
    assert!(findings(&host.probe(), 2).is_empty());
}

#[test]
fn a_process_that_draws_counts_as_one_that_computes() {
    let mut host = Host::of("h100");
    host.gpu(1, &json!({"graphicsProcesses": 2, "readings": {"processes": 1}}));
    host.fault(&json!({"function": "nvmlDeviceGetGraphicsRunningProcesses_v3", "gpu": 3, "error": 999}));
    host.fault(&json!({"function": "nvmlDeviceGetGraphicsRunningProcesses_v3", "gpu": 4, "error": 3}));
    let probe = host.probe();
    let processes = probe.gpus.iter().map(|gpu| gpu.readings.processes);
    let none = Some(0);
    assert_eq!(processes.collect::<Vec<_>>(), [none, Some(3), none, None, none, none, none, none]);
}

/// `nvml.h` has it that a count without room for processes is told by an error; a library may tell it without one.
#[test]
fn processes_that_are_counted_with_success_are_no_less_there() {
    let mut host = Host::of("h100");
    host.gpu(1, &json!({"countsWithSuccess": true, "graphicsProcesses": 1, "readings": {"processes": 2}}));
    assert_eq!(host.probe().gpus[1].readings.processes, Some(3));
}

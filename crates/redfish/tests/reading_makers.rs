//! Traits of single makers' machines that reading must take as they are: synthetic trees, one trait each.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

mod support;

use bailiwick_redfish::gpu::{View, ViewKind, merge};
use bailiwick_redfish::{WalkOptions, inventory};
use domain::inventory::Inventory;
use serde_json::{Value, json};
use support::machine::{BMC, BOX, HOST, collection, link, machine, processor, put_processors, resource};
use support::reading::read;
use support::tree::Tree;

const UUIDS: [&str; 2] = ["9dad5bfd-a732-23fe-40ad-465d0cbe5f95", "f6153554-91a8-1097-9a40-e1f352682d0b"];

fn codes(inventory: &Inventory) -> Vec<&str> {
    inventory.diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect()
}

/// Puts a collection of a resource, with its members.
fn put_list(tree: &mut Tree, owner: &str, field: &str, members: &[(&str, Value)]) {
    let uri = format!("{owner}/{field}");
    let paths: Vec<String> = members.iter().map(|(id, _)| format!("{uri}/{id}")).collect();
    for (path, (id, fields)) in paths.iter().zip(members) {
        tree.put(path, resource(field.trim_end_matches('s'), id, fields.clone()));
    }
    tree.put(&uri, collection(&paths.iter().map(String::as_str).collect::<Vec<_>>()));
    tree.set(owner, field, link(&uri));
}

#[tokio::test]
async fn gpu_processors_that_link_to_no_device_are_completed_by_the_devices_of_their_serial_numbers() {
    let mut tree = machine();
    put_list(
        &mut tree,
        BOX,
        "PCIeDevices",
        &[
            ("244", json!({"SerialNumber": "GPU-SERIAL-0 ", "FirmwareVersion": "96.0"})),
            ("245", json!({"SerialNumber": "GPU-SERIAL-1", "FirmwareVersion": "96.1"})),
            ("246", json!({"SerialNumber": "OTHER", "Model": "NVIDIA H100", "FirmwareVersion": "97"})),
            ("247", json!({"Manufacturer": "NVIDIA", "Model": "NVIDIA H100"})),
        ],
    );
    let inventory = read(&tree).await;
    let told: Vec<_> =
        inventory.gpus.iter().map(|gpu| (gpu.firmware_version.as_deref(), gpu.sources.len())).collect();
    assert_eq!(told, [(Some("96.0"), 2), (Some("96.1"), 2)]);
}

#[tokio::test]
async fn blank_gpu_processors_do_not_hide_the_devices_that_name_the_gpus() {
    let mut tree = machine();
    put_processors(&mut tree, [processor("GPU_0", "GPU", json!({})), processor("GPU_1", "GPU", json!({}))]);
    put_list(
        &mut tree,
        BOX,
        "PCIeDevices",
        &[("GPU_0", json!({"SerialNumber": "S0"})), ("GPU_1", json!({"SerialNumber": "S1"}))],
    );
    let inventory = read(&tree).await;
    let told: Vec<_> = inventory.gpus.iter().map(|gpu| (gpu.serial.as_deref(), gpu.sources.len())).collect();
    assert_eq!(told, [(Some("S0"), 2), (Some("S1"), 2)]);
}

#[tokio::test]
async fn a_device_whose_model_is_a_part_number_is_known_by_its_name() {
    let mut tree = machine();
    put_processors(&mut tree, [processor("1", "CPU", json!({"TotalCores": 8}))]);
    put_list(
        &mut tree,
        BOX,
        "PCIeDevices",
        &[
            (
                "1",
                json!({"Name": "NVIDIA H100 NVL", "Manufacturer": "NVIDIA", "Model": "900-1", "SerialNumber": "S1"}),
            ),
            ("2", json!({"Name": "PCIe Switch for H100", "Manufacturer": "NVIDIA", "SerialNumber": "S2"})),
            ("3", json!({"Name": "Riser of A100 GPUs", "Manufacturer": "Contoso", "SerialNumber": "S3"})),
        ],
    );
    let inventory = read(&tree).await;
    let serials: Vec<_> = inventory.gpus.iter().filter_map(|gpu| gpu.serial.as_deref()).collect();
    assert_eq!(serials, ["S1"]);
}

#[tokio::test]
async fn gpus_of_one_board_that_tell_its_serial_number_and_their_own_uuids_are_nothing_odd() {
    let mut tree = machine();
    put_processors(
        &mut tree,
        [
            processor("GPU_0", "GPU", json!({"SerialNumber": "BOARD", "UUID": UUIDS[0]})),
            processor("GPU_1", "GPU", json!({"SerialNumber": "BOARD", "UUID": UUIDS[1]})),
        ],
    );
    let inventory = read(&tree).await;
    let uuids: Vec<_> = inventory.gpus.iter().filter_map(|gpu| gpu.uuid.as_deref()).collect();
    assert_eq!(uuids, UUIDS);
    assert!(!codes(&inventory).iter().any(|code| code.starts_with("redfish.gpu")), "{:?}", codes(&inventory));
}

#[test]
fn a_view_that_tells_only_its_board_s_serial_number_goes_to_the_gpu_of_its_place() {
    let view = |kind, path: &str, id: &str, uuid: Option<&str>| {
        let mut view = View::new(kind, format!("{path}/{id}"), id);
        view.serial = Some("BOARD".to_owned());
        view.uuid = uuid.map(str::to_owned);
        view
    };
    // the device list is sorted the other way round
    let merged = merge([
        view(ViewKind::Processor, "/redfish/v1/Systems/S/Processors", "GPU_0", Some(UUIDS[0])),
        view(ViewKind::Processor, "/redfish/v1/Systems/S/Processors", "GPU_1", Some(UUIDS[1])),
        view(ViewKind::Device, "/redfish/v1/Chassis/A/PCIeDevices", "B_GPU_1", None),
        view(ViewKind::Device, "/redfish/v1/Chassis/Z/PCIeDevices", "A_GPU_0", None),
    ]);
    let sources: Vec<&str> = merged.gpus.iter().flat_map(|gpu| &gpu.sources).map(String::as_str).collect();
    assert_eq!(
        sources,
        [
            "/redfish/v1/Chassis/Z/PCIeDevices/A_GPU_0",
            "/redfish/v1/Systems/S/Processors/GPU_0",
            "/redfish/v1/Chassis/A/PCIeDevices/B_GPU_1",
            "/redfish/v1/Systems/S/Processors/GPU_1",
        ]
    );
}

#[tokio::test]
async fn a_cpu_s_model_that_only_the_baseboard_tells_is_told() {
    let mut tree = machine();
    put_processors(
        &mut tree,
        [
            processor("CPU_0", "CPU", json!({"TotalCores": 72, "SerialNumber": "0xA1"})),
            processor("CPU_1", "CPU", json!({"TotalCores": 72, "SerialNumber": "0xA2"})),
        ],
    );
    let board = "/redfish/v1/Systems/Board";
    tree.put(board, resource("ComputerSystem", "Board", json!({})));
    put_list(
        &mut tree,
        board,
        "Processors",
        &[
            ("CPU_0", json!({"ProcessorType": "CPU", "SerialNumber": "0xA1", "Model": "Arm A"})),
            ("CPU_1", json!({"ProcessorType": "CPU", "SerialNumber": "0xA9", "Model": "Arm B"})),
        ],
    );
    tree.put("/redfish/v1/Systems", collection(&[HOST, board]));
    let inventory = read(&tree).await;
    let told: Vec<_> = inventory.processors.iter().map(|cpu| (cpu.model.as_deref(), cpu.cores)).collect();
    assert_eq!(told, [(Some("Arm A"), Some(72)), (None, Some(72))]);
}

#[tokio::test]
async fn what_firmware_writes_instead_of_a_value_is_no_value() {
    let mut tree = machine();
    let words = ["CPLDSerialNumber", "$PRODUCT_SERIAL_0", "STATIC:3:0", "0", "NA", "no valid fru"];
    let gpus = words.iter().enumerate().map(|(n, word)| {
        let fields = json!({"SerialNumber": word, "UUID": format!("STATIC:{n}:0"), "Model": "N/A"});
        processor(&format!("GPU_{n}"), "GPU", fields)
    });
    put_processors(&mut tree, gpus);
    tree.set("/redfish/v1/UpdateService/FirmwareInventory/BIOS", "Version", json!("version not available"));
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus.len(), words.len());
    for gpu in &inventory.gpus {
        assert_eq!((&gpu.serial, &gpu.uuid, &gpu.model), (&None, &None, &None));
    }
    assert_eq!(inventory.firmware[0].version, None);
}

#[tokio::test]
async fn a_vlan_of_the_bmc_is_no_interface_of_its_own() {
    let mut tree = machine();
    put_list(
        &mut tree,
        BMC,
        "EthernetInterfaces",
        &[
            ("eth0", json!({"MACAddress": "02:00:00:00:00:fe", "EthernetInterfaceType": "Physical"})),
            ("vlan1", json!({"MACAddress": "02:00:00:00:00:aa", "EthernetInterfaceType": "Virtual"})),
        ],
    );
    assert_eq!(read(&tree).await.bmc.macs, ["02:00:00:00:00:fe"]);
}

#[tokio::test]
async fn memory_that_no_summary_counts_is_that_of_the_modules_if_all_tell_theirs() {
    let mut tree = machine();
    tree.set(HOST, "MemorySummary", json!({"TotalSystemMemoryGiB": 0}));
    let module = |mebibytes: Value| json!({"MemoryType": "DRAM", "CapacityMiB": mebibytes});
    put_list(
        &mut tree,
        HOST,
        "Memory",
        &[
            ("1", module(json!(65536))),
            ("2", module(json!(65536))),
            ("3", json!({"CapacityMiB": 65536, "Status": {"State": "Absent"}})),
            ("4", json!({"CapacityMiB": 65536, "MemoryType": "IntelOptane"})),
        ],
    );
    assert_eq!(read(&tree).await.memory_gib, Some(128));
    tree.set(&format!("{HOST}/Memory/2"), "CapacityMiB", Value::Null);
    assert_eq!(read(&tree).await.memory_gib, None);
}

/// An enclosure whose one service shows two blades, each with its own chassis, adapter and GPU.
fn blades() -> Tree {
    let mut tree = machine();
    for (blade, mac, n) in [("Blade1", "02:00:00:00:01:01", 1), ("Blade2", "02:00:00:00:02:01", 2)] {
        let (system, chassis) =
            (format!("/redfish/v1/Systems/{blade}"), format!("/redfish/v1/Chassis/{blade}"));
        let fields = json!({"SerialNumber": format!("SN{n}"), "Boot": {}, "SystemType": "Physical"});
        tree.put(&system, resource("ComputerSystem", blade, fields));
        put_list(
            &mut tree,
            &system,
            "Processors",
            &[("GPU_0", json!({"ProcessorType": "GPU", "SerialNumber": format!("G{n}")}))],
        );
        let of = json!({"ChassisType": "Blade", "Links": {"ComputerSystems": [link(&system)]}});
        tree.put(&chassis, resource("Chassis", blade, of));
        put_list(&mut tree, &chassis, "NetworkAdapters", &[("1", json!({}))]);
        let port = json!({"Ethernet": {"PermanentMACAddress": mac}});
        put_list(
            &mut tree,
            &format!("{chassis}/NetworkAdapters/1"),
            "NetworkDeviceFunctions",
            &[("1", port)],
        );
    }
    tree.put("/redfish/v1/Managers", collection(&[]));
    tree.put(
        "/redfish/v1/Systems",
        collection(&["/redfish/v1/Systems/Blade1", "/redfish/v1/Systems/Blade2"]),
    );
    tree.put(
        "/redfish/v1/Chassis",
        collection(&["/redfish/v1/Chassis/Blade1", "/redfish/v1/Chassis/Blade2"]),
    );
    tree
}

#[tokio::test]
async fn the_other_blades_of_an_enclosure_lend_the_host_neither_gpus_nor_nics() {
    let inventory = read(&blades()).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("SN1"));
    let gpus: Vec<_> = inventory.gpus.iter().filter_map(|gpu| gpu.serial.as_deref()).collect();
    assert_eq!(gpus, ["G1"]);
    let macs: Vec<_> = inventory.nics.iter().map(|nic| nic.mac.as_str()).collect();
    assert_eq!(macs, ["02:00:00:00:01:01"]);
    assert!(codes(&inventory).contains(&"redfish.host.ambiguous"));
}

/// A host, and a baseboard that has nothing of a host but a serial number and a manager.
fn host_and_baseboard() -> Tree {
    let mut tree = machine();
    let (board, manager) = ("/redfish/v1/Systems/Board", "/redfish/v1/Managers/Board");
    let managed = json!({"ManagedBy": [link(manager)]});
    let fields = json!({"SerialNumber": "BOARD-1", "Model": "Baseboard", "Links": managed});
    tree.put(board, resource("ComputerSystem", "Board", fields));
    tree.put(manager, resource("Manager", "Board", json!({"Links": {"ManagerForServers": [link(board)]}})));
    tree.put("/redfish/v1/Systems", collection(&[board, HOST]));
    tree.put("/redfish/v1/Managers", collection(&[BMC, manager]));
    tree
}

#[tokio::test]
async fn a_host_that_cannot_be_read_is_an_error_and_not_its_baseboard() {
    assert_eq!(read(&host_and_baseboard()).await.identity.serial.as_deref(), Some("HOST-1"));
    for gone in [true, false] {
        let mut tree = host_and_baseboard();
        if gone {
            tree.remove(HOST);
        } else {
            tree.fail(HOST);
        }
        let error = inventory(&tree, &WalkOptions::default()).await.expect_err("no host");
        assert!(error.to_string().contains(HOST), "{error}");
    }
}

#[tokio::test]
async fn a_baseboard_that_cannot_be_read_leaves_the_host_told() {
    let mut tree = host_and_baseboard();
    tree.fail("/redfish/v1/Systems/Board");
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("HOST-1"));
    assert!(inventory.diagnostics.iter().any(|diagnostic| diagnostic.path == "/redfish/v1/Systems/Board"));
}

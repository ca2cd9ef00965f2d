//! Machines of other kinds than the recorded ones: facts right, nothing invented, nobody counted twice. The trees are synthetic,
//! with the traits that such machines show (§6 of the Redfish facts).

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

mod support;

use domain::inventory::Inventory;
use serde_json::{Value, json};
use support::machine::{BOX, HOST, collection, link, machine, processor, put_processors, resource};
use support::reading::read;
use support::tree::Tree;

fn serials(inventory: &Inventory) -> Vec<&str> {
    inventory.gpus.iter().filter_map(|gpu| gpu.serial.as_deref()).collect()
}

/// Puts a PCIe device with one function into the chassis.
fn put_device(tree: &mut Tree, id: &str, fields: Value, function: Option<Value>) {
    let path = format!("{BOX}/PCIeDevices/{id}");
    let mut body = resource("PCIeDevice", id, fields);
    if let Some(function) = function {
        let uri = format!("{path}/PCIeFunctions/1");
        tree.put(&uri, resource("PCIeFunction", "1", function));
        body["Links"] = json!({"PCIeFunctions": [link(&uri)]});
    }
    tree.put(&path, body);
    let uri = format!("{BOX}/PCIeDevices");
    if !tree.has(&uri) {
        tree.put(&uri, collection(&[]));
        tree.set(BOX, "PCIeDevices", link(&uri));
    }
    tree.edit(&uri, |body| {
        let members = body["Members"].as_array_mut().expect("an array");
        members.push(link(&path));
        body["Members@odata.count"] = json!(members.len());
    });
}

/// A server whose processors are CPUs only (Supermicro): its GPUs are PCIe devices.
fn pcie_only() -> Tree {
    let mut tree = machine();
    put_processors(
        &mut tree,
        [processor("1", "CPU", json!({"TotalCores": 64})), processor("2", "CPU", json!({"TotalCores": 64}))],
    );
    for n in 1..=2 {
        put_device(
            &mut tree,
            &format!("GPU{n}"),
            json!({
                "Manufacturer": null, "Model": "NVIDIA H100 80GB HBM3", "SerialNumber": format!("16549230{n}"),
                "PartNumber": "2330-885-A1", "FirmwareVersion": "96.00.61.00.01",
            }),
            Some(json!({"ClassCode": "0x030200", "VendorId": "0x10de"})),
        );
    }
    tree
}

#[tokio::test]
async fn gpus_that_only_pcie_devices_show_are_found() {
    let inventory = read(&pcie_only()).await;
    assert_eq!(serials(&inventory), ["165492301", "165492302"]);
    assert_eq!(inventory.gpus[0].model.as_deref(), Some("NVIDIA H100 80GB HBM3"));
    assert_eq!(inventory.gpus[0].manufacturer, None);
    assert_eq!(inventory.gpus[0].sources, [format!("{BOX}/PCIeDevices/GPU1")]);
}

#[tokio::test]
async fn what_stands_beside_gpus_is_none() {
    let mut tree = pcie_only();
    let display = |vendor: &str| {
        Some(json!({"ClassCode": "0x030000", "DeviceClass": "DisplayController", "VendorId": vendor}))
    };
    put_device(
        &mut tree,
        "VGA",
        json!({"Manufacturer": "ASPEED Technology", "Model": "AST2600"}),
        display("0x1a03"),
    );
    put_device(&mut tree, "Video", json!({"Name": "Adapter"}), display("0x102b"));
    put_device(
        &mut tree,
        "Matrox",
        json!({"Manufacturer": "Matrox Electronics Systems Ltd.", "Name": "G200eW3"}),
        None,
    );
    put_device(&mut tree, "GPU9", json!({"Model": "BlueField-3 DPU", "SerialNumber": "MT1"}), None);
    put_device(
        &mut tree,
        "NIC1",
        json!({"Model": "ConnectX-7", "SerialNumber": "MT2"}),
        Some(json!({"ClassCode": "0x020700", "VendorId": "0x15b3"})),
    );
    put_device(
        &mut tree,
        "NVSwitch_0",
        json!({"Manufacturer": "NVIDIA", "Model": "NVSwitch"}),
        Some(json!({"ClassCode": "0x068000", "VendorId": "0x10de"})),
    );
    put_device(
        &mut tree,
        "FPGA1",
        json!({"Model": "Alveo", "SerialNumber": "X1"}),
        Some(json!({"ClassCode": "0x120000", "VendorId": "0x10ee"})),
    );
    // a riser whose name has the word
    put_device(
        &mut tree,
        "slot_30",
        json!({"Name": "Switched 4x x16 PCIe Gen4 DW/SW GPU", "Model": "N/A"}),
        Some(json!({"ClassCode": "0x010700", "DeviceClass": "Other", "VendorId": "0x1000"})),
    );
    put_device(
        &mut tree,
        "SSD",
        json!({"Model": "KCM6", "SerialNumber": "K1"}),
        Some(json!({"ClassCode": "0x010802", "VendorId": "0x1e0f"})),
    );
    assert_eq!(serials(&read(&tree).await), ["165492301", "165492302"]);
}

#[tokio::test]
async fn an_empty_slot_is_no_gpu() {
    let mut tree = pcie_only();
    put_device(
        &mut tree,
        "GPU3",
        json!({"Model": "NVIDIA H100 80GB HBM3", "Status": {"State": "Absent"}}),
        None,
    );
    assert_eq!(read(&tree).await.gpus.len(), 2);
}

#[tokio::test]
async fn gpus_that_say_nothing_but_where_they_are_are_counted_once() {
    let mut tree = machine();
    // a GB200 tray: sparse processors, chassis and PCIe devices, roots of trust beside them
    let mut processors = vec![processor("CPU_0", "CPU", json!({"TotalCores": 72}))];
    let mut chassis = vec![BOX.to_owned()];
    for n in 0..4 {
        let module = format!("/redfish/v1/Chassis/HGX_GPU_{n}");
        processors.push(processor(
            &format!("GPU_{n}"),
            "GPU",
            json!({
                "Status": {"State": "Enabled"}, "Links": {"Chassis": link(&module)},
                "Location": {"PartLocation": {"ServiceLabel": format!("GPU {n}")}},
            }),
        ));
        tree.put(
            &module,
            resource(
                "Chassis",
                &format!("HGX_GPU_{n}"),
                json!({
                    "ChassisType": "Module", "PCIeDevices": link(&format!("{module}/PCIeDevices")),
                    "Links": {"Processors": [link(&format!("{HOST}/Processors/GPU_{n}"))]},
                }),
            ),
        );
        let device = format!("{module}/PCIeDevices/GPU_{n}");
        tree.put(&format!("{module}/PCIeDevices"), collection(&[&device]));
        tree.put(
            &device,
            resource("PCIeDevice", &format!("GPU_{n}"), json!({"Status": {"State": "Enabled"}})),
        );
        let rot = format!("/redfish/v1/Chassis/HGX_IRoT_GPU_{n}");
        tree.put(
            &rot,
            resource(
                "Chassis",
                &format!("HGX_IRoT_GPU_{n}"),
                json!({"ChassisType": "Component", "SerialNumber": format!("0xR{n}")}),
            ),
        );
        chassis.extend([module, rot]);
    }
    put_processors(&mut tree, processors);
    tree.put("/redfish/v1/Chassis", collection(&chassis.iter().map(String::as_str).collect::<Vec<_>>()));
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus.len(), 4);
    for (n, gpu) in inventory.gpus.iter().enumerate() {
        assert_eq!(gpu.location.as_deref(), Some(format!("GPU {n}").as_str()));
        assert_eq!((&gpu.model, &gpu.serial, &gpu.uuid), (&None, &None, &None));
        assert_eq!(
            gpu.sources,
            [
                format!("/redfish/v1/Chassis/HGX_GPU_{n}"),
                format!("/redfish/v1/Chassis/HGX_GPU_{n}/PCIeDevices/GPU_{n}"),
                format!("{HOST}/Processors/GPU_{n}"),
            ]
        );
    }
    assert!(
        !tree.asked().iter().any(|uri| uri.contains("IRoT")),
        "roots of trust are told by ComponentIntegrity"
    );
}

#[tokio::test]
async fn a_sparse_gpu_whose_socket_is_empty_is_none() {
    let mut tree = machine();
    put_processors(
        &mut tree,
        [
            processor("GPU_0", "GPU", json!({"Status": {"State": "Enabled"}})),
            processor("GPU_1", "GPU", json!({"Status": {"State": "Absent"}})),
        ],
    );
    assert_eq!(read(&tree).await.gpus.len(), 1);
}

#[tokio::test]
async fn a_gpu_named_by_its_device_and_not_by_its_processor_is_one() {
    // no links at all: only the position says it
    let mut tree = machine();
    put_processors(&mut tree, [processor("GPU_0", "GPU", json!({})), processor("GPU_1", "GPU", json!({}))]);
    for n in 0..2 {
        let module = format!("/redfish/v1/Chassis/HGX_GPU_{n}");
        tree.put(&module, resource("Chassis", &format!("HGX_GPU_{n}"), json!({
            "ChassisType": "Module", "SerialNumber": format!("SER-{n}"), "PCIeDevices": link(&format!("{module}/PCIeDevices")),
        })));
        let device = format!("{module}/PCIeDevices/GPU_{n}");
        tree.put(&format!("{module}/PCIeDevices"), collection(&[&device]));
        tree.put(
            &device,
            resource("PCIeDevice", &format!("GPU_{n}"), json!({"SerialNumber": format!("SER-{n}")})),
        );
    }
    tree.put(
        "/redfish/v1/Chassis",
        collection(&[BOX, "/redfish/v1/Chassis/HGX_GPU_0", "/redfish/v1/Chassis/HGX_GPU_1"]),
    );
    let inventory = read(&tree).await;
    assert_eq!(serials(&inventory), ["SER-0", "SER-1"]);
    assert!(inventory.gpus.iter().all(|gpu| gpu.sources.len() == 3));
}

#[tokio::test]
async fn a_chassis_that_holds_several_gpus_is_no_view_of_one() {
    let mut tree = machine();
    put_processors(
        &mut tree,
        [
            processor("GPU1", "GPU", json!({"SerialNumber": "A", "Links": {"Chassis": link(BOX)}})),
            processor("GPU2", "GPU", json!({"SerialNumber": "B", "Links": {"Chassis": link(BOX)}})),
        ],
    );
    tree.set(BOX, "ChassisType", json!("Module"));
    let inventory = read(&tree).await;
    assert_eq!(serials(&inventory), ["A", "B"]);
    assert!(inventory.gpus.iter().all(|gpu| gpu.sources.len() == 1));
    // nor is the enclosure of a machine with one GPU
    tree.set(BOX, "ChassisType", json!("RackMount"));
    put_processors(
        &mut tree,
        [processor("GPU1", "GPU", json!({"SerialNumber": "A", "Links": {"Chassis": link(BOX)}}))],
    );
    assert_eq!(read(&tree).await.gpus[0].sources, [format!("{HOST}/Processors/GPU1")]);
}

#[tokio::test]
async fn the_bmc_s_own_video_is_no_graphics_card() {
    let mut tree = machine();
    let controllers = "/redfish/v1/Systems/Host/GraphicsControllers";
    tree.set(HOST, "GraphicsControllers", link(controllers));
    tree.put(controllers, collection(&[&format!("{controllers}/1"), &format!("{controllers}/2")]));
    tree.put(
        &format!("{controllers}/1"),
        resource("GraphicsController", "1", json!({"Manufacturer": "ASPEED", "SerialNumber": "A1"})),
    );
    tree.put(
        &format!("{controllers}/2"),
        resource("GraphicsController", "2", json!({"Manufacturer": "Unknown"})),
    );
    assert_eq!(read(&tree).await.gpus.len(), 2, "those of the processors");
}

#[tokio::test]
async fn a_switch_tray_without_a_host_tells_what_there_is() {
    let mut tree = machine();
    tree.put("/redfish/v1/Systems", collection(&[]));
    tree.set(BOX, "Links", json!({}));
    tree.set("/redfish/v1/Managers/Bmc", "Links", json!({}));
    tree.set(BOX, "Model", json!("Switch tray"));
    let rot = "/redfish/v1/Chassis/HGX_ERoT_NVSwitch_0";
    tree.put(
        rot,
        resource("Chassis", "HGX_ERoT_NVSwitch_0", json!({"ChassisType": "Component", "SerialNumber": "R"})),
    );
    tree.put("/redfish/v1/Chassis", collection(&[rot, BOX]));
    tree.set("/redfish/v1", "ComponentIntegrity", link("/redfish/v1/ComponentIntegrity"));
    tree.put("/redfish/v1/ComponentIntegrity", collection(&["/redfish/v1/ComponentIntegrity/1"]));
    tree.put(
        "/redfish/v1/ComponentIntegrity/1",
        resource("ComponentIntegrity", "1", json!({"ComponentIntegrityType": "SPDM"})),
    );
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("BOX-1"));
    assert_eq!(inventory.identity.model.as_deref(), Some("Switch tray"));
    assert_eq!(inventory.bmc.firmware_version.as_deref(), Some("2.0"));
    assert_eq!(inventory.firmware.len(), 1);
    assert_eq!(inventory.component_integrity.len(), 1);
    assert_eq!((inventory.gpus.len(), inventory.processors.len(), inventory.drives.len()), (0, 0, 0));
    let codes: Vec<_> = inventory.diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect();
    assert!(
        codes.contains(&"redfish.host.missing") && codes.contains(&"redfish.identity.fallback"),
        "{codes:?}"
    );
}

#[tokio::test]
async fn a_dpu_is_a_machine_without_gpus_whose_functions_are_its_nics() {
    let mut tree = machine();
    put_processors(&mut tree, [processor("CPU_0", "CPU", json!({"Model": "Cortex-A78", "TotalCores": 16}))]);
    tree.set(HOST, "SystemType", json!("DPU"));
    let adapters = format!("{BOX}/NetworkAdapters");
    let adapter = format!("{adapters}/Card");
    let functions = format!("{adapter}/NetworkDeviceFunctions");
    tree.set(BOX, "NetworkAdapters", link(&adapters));
    tree.put(&adapters, collection(&[&adapter]));
    tree.put(
        &adapter,
        resource(
            "NetworkAdapter",
            "Card",
            json!({"Model": "BlueField-3", "NetworkDeviceFunctions": link(&functions)}),
        ),
    );
    let function = |n: usize| format!("{functions}/eth0f{n}");
    tree.put(&functions, collection(&[&function(0), &function(1)]));
    for n in 0..2 {
        let ethernet = json!({"Ethernet": {"MACAddress": format!("02:00:00:00:01:0{n}"), "PermanentMACAddress": "00:00:00:00:00:00"}});
        tree.put(&function(n), resource("NetworkDeviceFunction", &format!("eth0f{n}"), ethernet));
    }
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus, []);
    let macs: Vec<_> = inventory.nics.iter().map(|nic| (nic.mac.as_str(), nic.model.as_deref())).collect();
    assert_eq!(
        macs,
        [
            ("02:00:00:00:00:01", None),
            ("02:00:00:00:01:00", Some("BlueField-3")),
            ("02:00:00:00:01:01", Some("BlueField-3")),
        ]
    );
}

#[tokio::test]
async fn cpus_that_a_baseboard_lists_again_are_not_counted_again() {
    let mut tree = machine();
    let board = "/redfish/v1/Systems/HGX_Baseboard_0";
    tree.put(
        board,
        resource(
            "ComputerSystem",
            "HGX_Baseboard_0",
            json!({"Processors": link(&format!("{board}/Processors"))}),
        ),
    );
    tree.put(&format!("{board}/Processors"), collection(&[&format!("{board}/Processors/CPU_0")]));
    tree.put(
        &format!("{board}/Processors/CPU_0"),
        resource("Processor", "CPU_0", json!({"ProcessorType": "CPU", "TotalCores": 72})),
    );
    tree.put("/redfish/v1/Systems", collection(&[board, HOST]));
    assert_eq!(read(&tree).await.processors.len(), 2);
    // where the host lists none, the baseboard's are the machine's
    tree.put("/redfish/v1/Systems/Host/Processors", collection(&[]));
    assert_eq!(read(&tree).await.processors.len(), 1);
}

#[tokio::test]
async fn a_drive_seen_twice_is_one_and_storage_goes_before_simple_storage() {
    let mut tree = machine();
    let twin = "/redfish/v1/Systems/Host/Storage/2";
    tree.put("/redfish/v1/Systems/Host/Storage", collection(&["/redfish/v1/Systems/Host/Storage/1", twin]));
    tree.put(
        twin,
        resource("Storage", "2", json!({"Drives": [link("/redfish/v1/Systems/Host/Storage/2/Drives/1")]})),
    );
    tree.put(
        &format!("{twin}/Drives/1"),
        resource("Drive", "1", json!({"Model": "D", "SerialNumber": "DRIVE-1"})),
    );
    tree.set(HOST, "SimpleStorage", link("/redfish/v1/Systems/Host/SimpleStorage"));
    tree.put(
        "/redfish/v1/Systems/Host/SimpleStorage",
        collection(&["/redfish/v1/Systems/Host/SimpleStorage/1"]),
    );
    tree.put(
        "/redfish/v1/Systems/Host/SimpleStorage/1",
        resource("SimpleStorage", "1", json!({"Devices": [{"Model": "D", "CapacityBytes": 1000}, {"Name": "Bay 2", "Status": {"State": "Absent"}}]})),
    );
    assert_eq!(read(&tree).await.drives.len(), 1);
    tree.put("/redfish/v1/Systems/Host/Storage", collection(&[]));
    let inventory = read(&tree).await;
    assert_eq!(inventory.drives.len(), 1, "of SimpleStorage, whose second bay is empty");
    assert_eq!(inventory.drives[0].serial, None);
}

#[tokio::test]
async fn a_module_with_a_cpu_beside_its_gpu_is_no_view_of_the_gpu() {
    // a GH200 module: its serial number is not the GPU's
    let mut tree = machine();
    let module = "/redfish/v1/Chassis/HGX_ProcessorModule_0";
    tree.put(
        module,
        resource(
            "Chassis",
            "HGX_ProcessorModule_0",
            json!({"ChassisType": "Module", "SerialNumber": "MODULE", "Model": "GH200"}),
        ),
    );
    tree.put("/redfish/v1/Chassis", collection(&[BOX, module]));
    let inside = json!({"Links": {"Chassis": link(module)}});
    put_processors(&mut tree, [processor("CPU_0", "CPU", inside.clone()), processor("GPU_0", "GPU", inside)]);
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus.len(), 1);
    assert_eq!((inventory.gpus[0].serial.as_deref(), inventory.gpus[0].model.as_deref()), (None, None));
    // the same, said by the chassis alone
    put_processors(&mut tree, [processor("CPU_0", "CPU", json!({})), processor("GPU_0", "GPU", json!({}))]);
    let both = json!({"Processors": [link(&format!("{HOST}/Processors/CPU_0")), link(&format!("{HOST}/Processors/GPU_0"))]});
    tree.set(module, "Links", both);
    assert_eq!(read(&tree).await.gpus[0].serial, None);
}

#[tokio::test]
async fn gpus_of_one_board_stay_apart_though_they_share_its_pcie_device() {
    let mut tree = machine();
    put_device(&mut tree, "Board", json!({"Model": "NVIDIA A16", "SerialNumber": "BOARD"}), None);
    let on_board = json!({"Links": {"PCIeDevice": link(&format!("{BOX}/PCIeDevices/Board"))}});
    put_processors(&mut tree, (1..=4).map(|n| processor(&format!("GPU{n}"), "GPU", on_board.clone())));
    assert_eq!(read(&tree).await.gpus.len(), 4);
}

#[tokio::test]
async fn gpus_listed_in_place_without_paths_stay_apart() {
    let mut tree = machine();
    let gpu = |n: usize| {
        resource(
            "Processor",
            &format!("GPU{n}"),
            json!({"ProcessorType": "GPU", "SerialNumber": format!("S{n}")}),
        )
    };
    let uri = format!("{HOST}/Processors");
    tree.set(&uri, "Members", json!([gpu(1), gpu(2)]));
    let inventory = read(&tree).await;
    assert_eq!(serials(&inventory), ["S1", "S2"]);
    assert_eq!(inventory.gpus[0].sources, [format!("{uri}#/Members/0")]);
}

#[tokio::test]
async fn a_function_that_says_no_class_leaves_the_name_to_decide() {
    let mut tree = pcie_only();
    let blank =
        Some(json!({"ClassCode": "0x000000", "DeviceClass": "UnassignedClass", "VendorId": "0x0000"}));
    put_device(
        &mut tree,
        "GPU3",
        json!({"Model": "NVIDIA H100 80GB HBM3", "SerialNumber": "165492303"}),
        blank.clone(),
    );
    // a revision is no product name
    put_device(&mut tree, "slot_9", json!({"Model": "Adapter A2", "SerialNumber": "A2"}), blank);
    assert_eq!(serials(&read(&tree).await), ["165492301", "165492302", "165492303"]);
}

#[tokio::test]
async fn pcie_devices_that_the_system_lists_in_a_collection_are_found() {
    let mut tree = pcie_only();
    tree.edit(BOX, |chassis| {
        chassis.as_object_mut().expect("an object").remove("PCIeDevices");
    });
    tree.set(HOST, "PCIeDevices", link(&format!("{BOX}/PCIeDevices")));
    assert_eq!(read(&tree).await.gpus.len(), 2);
}

#[tokio::test]
async fn anonymous_display_controllers_are_not_counted_beside_named_gpus() {
    // as the host of a DGX sees its GPUs, here in the one list that is read
    let mut tree = pcie_only();
    for n in 1..=2 {
        let function = Some(json!({"ClassCode": "0x030200", "VendorId": "0x10de"}));
        put_device(&mut tree, &format!("00_{n}B_00"), json!({"Name": format!("00_{n}B_00")}), function);
    }
    let inventory = read(&tree).await;
    assert_eq!(serials(&inventory), ["165492301", "165492302"]);
    assert_eq!(inventory.gpus.len(), 2);
    let unmatched = |d: &&domain::inventory::Diagnostic| d.code == "redfish.gpu.unmatched-view";
    assert_eq!(inventory.diagnostics.iter().filter(unmatched).count(), 2);
}

#[tokio::test]
async fn two_gpus_with_one_serial_number_in_two_slots_are_two_and_told() {
    let mut tree = machine();
    let at =
        |label: &str| json!({"SerialNumber": "TWIN", "Location": {"PartLocation": {"ServiceLabel": label}}});
    put_processors(
        &mut tree,
        [processor("GPU1", "GPU", at("Slot 1")), processor("GPU2", "GPU", at("Slot 2"))],
    );
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus.len(), 2);
    assert!(inventory.diagnostics.iter().any(|diagnostic| diagnostic.code == "redfish.gpu.conflict"));
    // nothing tells them apart: one device, listed twice
    put_processors(
        &mut tree,
        [
            processor("GPU1", "GPU", json!({"SerialNumber": "TWIN"})),
            processor("GPU2", "GPU", json!({"SerialNumber": "TWIN"})),
        ],
    );
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus.len(), 1);
    assert!(inventory.diagnostics.iter().any(|diagnostic| diagnostic.code == "redfish.gpu.shared-serial"));
}

#[tokio::test]
async fn a_host_that_says_nothing_of_itself_does_not_get_its_enclosure_s_identity() {
    // sushy-emulator shows one and the same enclosure for every node
    let mut tree = machine();
    tree.edit(HOST, |host| {
        for field in ["Model", "SerialNumber", "SKU", "PartNumber"] {
            host.as_object_mut().expect("an object").remove(field);
        }
    });
    tree.set(BOX, "ChassisType", json!("Enclosure"));
    let inventory = read(&tree).await;
    assert_eq!((inventory.identity.serial, inventory.identity.model), (None, None));
    assert_eq!(inventory.identity.manufacturer.as_deref(), Some("Contoso"));
    assert!(inventory.diagnostics.iter().any(|diagnostic| diagnostic.code == "redfish.identity.missing"));
}

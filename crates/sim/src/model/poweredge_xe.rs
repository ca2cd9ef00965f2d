//! A server like Dell's PowerEdge with PCIe GPUs, seen through an iDRAC.

use serde_json::{Value, json};

use super::builder::{
    Resources, bios, link, links, memory, reset_action, secure_boot, sensors, services, well,
};

pub(super) const GPUS: usize = 4;
const DRIVES: usize = 4;
const SYSTEM: &str = "/redfish/v1/Systems/System.Embedded.1";
const CHASSIS: &str = "/redfish/v1/Chassis/System.Embedded.1";
const MANAGER: &str = "/redfish/v1/Managers/iDRAC.Embedded.1";
/// The buses of the GPUs' slots; iDRAC names PCIe devices by bus and device in decimal.
const GPU_BUSES: [usize; GPUS] = [23, 75, 154, 202];

pub(super) fn resources() -> Vec<(String, Value)> {
    let mut tree = Resources::default();
    root(&mut tree);
    services(&mut tree, &firmware());
    system(&mut tree);
    gpus(&mut tree);
    network(&mut tree);
    storage(&mut tree);
    manager_and_chassis(&mut tree);
    for (path, kind) in [
        ("/redfish/v1/Systems", "ComputerSystemCollection"),
        ("/redfish/v1/Managers", "ManagerCollection"),
        ("/redfish/v1/Chassis", "ChassisCollection"),
    ] {
        tree.collection(path, kind);
    }
    tree.finish()
}

fn root(tree: &mut Resources) {
    tree.put(
        "/redfish/v1",
        "ServiceRoot.v1_15_0.ServiceRoot",
        json!({
            "Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.17.0", "Vendor": "Dell",
            "Product": "Integrated Dell Remote Access Controller",
            "Oem": {"Dell": {"ServiceTag": "{{alnum tag 7}}", "ManagerMACAddress": "{{mac bmc}}", "IsBranded": 0}},
            "Systems": link("/redfish/v1/Systems"), "Chassis": link("/redfish/v1/Chassis"),
            "Managers": link("/redfish/v1/Managers"), "UpdateService": link("/redfish/v1/UpdateService"),
            "SessionService": link("/redfish/v1/SessionService"), "AccountService": link("/redfish/v1/AccountService"),
            "EventService": link("/redfish/v1/EventService"), "Tasks": link("/redfish/v1/TaskService"),
            "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")},
            "ProtocolFeaturesSupported": {"ExpandQuery":
                {"ExpandAll": true, "Levels": true, "Links": true, "NoLinks": true, "MaxLevels": 1}},
        }),
    );
}

fn firmware() -> Vec<(String, String)> {
    let mut list = vec![
        ("Installed-159-2.3.5__BIOS.Setup.1-1".to_owned(), "2.3.5".to_owned()),
        ("Previous-159-2.1.5__BIOS.Setup.1-1".to_owned(), "2.1.5".to_owned()),
        ("Installed-25227-7.10.50.00__iDRAC.Embedded.1-1".to_owned(), "7.10.50.00".to_owned()),
        ("Installed-27763-1.1.3__CPLD.Embedded.1".to_owned(), "1.1.3".to_owned()),
        ("Installed-109673-7.2.2.0__TPM.Integrated.1-1".to_owned(), "7.2.2.0".to_owned()),
        ("Installed-0-28.39.1002__NIC.Slot.5-1".to_owned(), "28.39.1002".to_owned()),
    ];
    for n in 1..=GPUS {
        list.push((format!("Installed-0-95.02.66.00.01__Video.Slot.{n}-1"), "95.02.66.00.01".to_owned()));
    }
    list
}

fn system(tree: &mut Resources) {
    tree.put(
        SYSTEM,
        "ComputerSystem.v1_20_0.ComputerSystem",
        json!({
            "Name": "System", "SystemType": "Physical", "Manufacturer": "Dell Inc.", "Model": "PowerEdge XE7740",
            // The motherboard's number; the machine's is the service tag in SKU (quirk 27).
            "SerialNumber": "CNIVC00{{alnum board 7}}", "SKU": "{{alnum tag 7}}", "PartNumber": "0SYNTHA01", "AssetTag": "",
            "UUID": "{{uuid system}}", "BiosVersion": "2.3.5", "PowerState": "On", "Status": well(), "HostName": "",
            "ProcessorSummary": {"Count": 2, "CoreCount": 64, "LogicalProcessorCount": 128, "Model": "Intel(R) Xeon(R) Gold 6548Y+"},
            "MemorySummary": {"TotalSystemMemoryGiB": 1024, "Status": well()},
            "TrustedModules": [{"InterfaceType": "TPM2_0", "FirmwareVersion": "7.2.2.0", "Status": {"State": "Enabled"}}],
            "Boot": {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideMode": "UEFI", "BootSourceOverrideTarget": "None",
                "BootOrder": ["Boot0000"]},
            "Bios": link(&format!("{SYSTEM}/Bios")), "SecureBoot": link(&format!("{SYSTEM}/SecureBoot")),
            "Processors": link(&format!("{SYSTEM}/Processors")), "Memory": link(&format!("{SYSTEM}/Memory")),
            "EthernetInterfaces": link(&format!("{SYSTEM}/EthernetInterfaces")), "Storage": link(&format!("{SYSTEM}/Storage")),
            "NetworkInterfaces": link(&format!("{SYSTEM}/NetworkInterfaces")),
            "PCIeDevices": links(GPU_BUSES.iter().map(|bus| format!("{CHASSIS}/PCIeDevices/{bus}-0"))),
            "PCIeDevices@odata.count": GPUS,
            "Links": {"Chassis": [link(CHASSIS)], "ManagedBy": [link(MANAGER)]},
            "Actions": reset_action(SYSTEM),
        }),
    );
    for n in 1..=2 {
        tree.put(
            &format!("{SYSTEM}/Processors/CPU.Socket.{n}"),
            "Processor.v1_18_0.Processor",
            json!({"Name": format!("CPU {n}"), "ProcessorType": "CPU", "Manufacturer": "Intel", "Model": "Intel(R) Xeon(R) Gold 6548Y+",
                "TotalCores": 32, "TotalThreads": 64, "MaxSpeedMHz": 4100, "Socket": format!("CPU.Socket.{n}"), "Status": well()}),
        );
    }
    let sockets =
        ["A", "B"].into_iter().flat_map(|bank| (1..=8).map(move |n| format!("DIMM.Socket.{bank}{n}")));
    memory(tree, SYSTEM, sockets, 65_536);
    secure_boot(tree, SYSTEM, false);
    bios(
        tree,
        SYSTEM,
        &json!({"TpmSecurity": "On", "ProcVirtualization": "Enabled", "SriovGlobalEnable": "Enabled"}),
    );
}

fn gpus(tree: &mut Resources) {
    for (index, bus) in GPU_BUSES.into_iter().enumerate() {
        let n = index + 1;
        let device = format!("{CHASSIS}/PCIeDevices/{bus}-0");
        tree.put(
            &format!("{SYSTEM}/Processors/Video.Slot.{n}-1"),
            "Processor.v1_18_0.Processor",
            json!({"Description": "Represents the properties of the GPU attached to this System", "ProcessorType": "GPU",
                "Manufacturer": "NVIDIA Corporation", "Model": "NVIDIA L40S", "PartNumber": "900-2G133-0080-000",
                "SerialNumber": format!("{{{{digits gpu{n} 13}}}}"), "UUID": format!("{{{{uuid gpu{n}}}}}"), "FirmwareVersion": "95.02.66.00.01",
                "Status": well(), "Links": {"Chassis": link(CHASSIS), "PCIeDevice": link(&device),
                    "PCIeFunctions": [link(&format!("{device}/PCIeFunctions/{bus}-0-0"))]}}),
        );
        tree.put(
            &device,
            "PCIeDevice.v1_11_0.PCIeDevice",
            // Dell shows the card here too, without model and serial.
            json!({"Name": "NVIDIA Corporation", "Description": "NVIDIA Corporation", "DeviceType": "SingleFunction", "Manufacturer": "NVIDIA Corporation",
                "Model": null, "PartNumber": null, "SerialNumber": null, "SKU": null, "FirmwareVersion": "", "Status": well(),
                "PCIeFunctions": link(&format!("{device}/PCIeFunctions")), "Links": {"Chassis": [link(CHASSIS)]}}),
        );
        tree.put(
            &format!("{device}/PCIeFunctions/{bus}-0-0"),
            "PCIeFunction.v1_4_0.PCIeFunction",
            json!({"ClassCode": "0x030200", "DeviceClass": "DisplayController", "DeviceId": "0x26b9", "VendorId": "0x10de", "FunctionId": 0,
                "Links": {"PCIeDevice": link(&device)}}),
        );
        tree.collection(&format!("{device}/PCIeFunctions"), "PCIeFunctionCollection");
    }
    for n in 0..12 {
        tree.put(
            &format!("{CHASSIS}/PCIeDevices/0-{n}"),
            "PCIeDevice.v1_11_0.PCIeDevice",
            json!({"DeviceType": "SingleFunction", "Manufacturer": "Intel Corporation", "SerialNumber": null, "Status": well()}),
        );
    }
    tree.collection(&format!("{SYSTEM}/Processors"), "ProcessorCollection");
    tree.collection(&format!("{CHASSIS}/PCIeDevices"), "PCIeDeviceCollection");
}

fn network(tree: &mut Resources) {
    let adapters = [
        ("NIC.Integrated.1", "Broadcom Inc. and subsidiaries", "BCM57414", 2),
        ("NIC.Slot.5", "Mellanox Technologies", "ConnectX-7", 1),
    ];
    for (id, manufacturer, model, ports) in adapters {
        let adapter = format!("{CHASSIS}/NetworkAdapters/{id}");
        tree.put(
            &adapter,
            "NetworkAdapter.v1_9_0.NetworkAdapter",
            json!({"Manufacturer": manufacturer, "Model": model, "PartNumber": "0SYNTHN01", "SerialNumber": format!("{{{{alnum {id} 14}}}}"), "Status": well(),
                "NetworkDeviceFunctions": link(&format!("{adapter}/NetworkDeviceFunctions"))}),
        );
        tree.put(
            &format!("{SYSTEM}/NetworkInterfaces/{id}"),
            "NetworkInterface.v1_2_0.NetworkInterface",
            json!({"Status": well(), "Links": {"NetworkAdapter": link(&adapter)}}),
        );
        for port in 1..=ports {
            let mac = format!("{{{{mac {id}-{port}}}}}");
            tree.put(
                &format!("{adapter}/NetworkDeviceFunctions/{id}-{port}-1"),
                "NetworkDeviceFunction.v1_9_0.NetworkDeviceFunction",
                json!({"NetDevFuncType": "Ethernet", "Status": well(), "Ethernet": {"MACAddress": mac, "PermanentMACAddress": mac}}),
            );
            tree.put(
                &format!("{SYSTEM}/EthernetInterfaces/{id}-{port}-1"),
                "EthernetInterface.v1_9_0.EthernetInterface",
                json!({"MACAddress": mac, "PermanentMACAddress": mac, "LinkStatus": "LinkUp", "Status": well()}),
            );
        }
        tree.collection(&format!("{adapter}/NetworkDeviceFunctions"), "NetworkDeviceFunctionCollection");
    }
    tree.collection(&format!("{CHASSIS}/NetworkAdapters"), "NetworkAdapterCollection");
    tree.collection(&format!("{SYSTEM}/NetworkInterfaces"), "NetworkInterfaceCollection");
    tree.collection(&format!("{SYSTEM}/EthernetInterfaces"), "EthernetInterfaceCollection");
}

fn storage(tree: &mut Resources) {
    let drive = |n: usize| format!("{SYSTEM}/Storage/CPU.1/Drives/Disk.Bay.{n}:Enclosure.Internal.0-1");
    tree.put(
        &format!("{SYSTEM}/Storage/CPU.1"),
        "Storage.v1_15_0.Storage",
        json!({"Drives": links((0..DRIVES).map(drive)), "Drives@odata.count": DRIVES, "Status": well()}),
    );
    for n in 0..DRIVES {
        tree.put(
            &drive(n),
            "Drive.v1_17_0.Drive",
            // Trailing spaces, as Dell pads (quirk 27).
            json!({"Manufacturer": "SYNTH", "Model": "Synthetic NVMe 7450 ", "MediaType": "SSD", "Protocol": "PCIe", "CapacityBytes": 3_840_755_982_336_u64,
                "SerialNumber": format!("{{{{alnum drive{n} 12}}}}  "), "Revision": "2.1.3", "Status": well()}),
        );
    }
    tree.collection(&format!("{SYSTEM}/Storage"), "StorageCollection");
}

fn manager_and_chassis(tree: &mut Resources) {
    tree.put(
        MANAGER,
        "Manager.v1_17_0.Manager",
        json!({"Name": "Manager", "ManagerType": "BMC", "Manufacturer": "Dell Inc.", "Model": "17G Monolithic", "FirmwareVersion": "7.10.50.00", "UUID": "{{uuid bmc}}",
            "Status": well(), "EthernetInterfaces": link(&format!("{MANAGER}/EthernetInterfaces")),
            "Links": {"ManagerForServers": [link(SYSTEM)], "ManagerForChassis": [link(CHASSIS)]}}),
    );
    tree.put(
        &format!("{MANAGER}/EthernetInterfaces/NIC.1"),
        "EthernetInterface.v1_9_0.EthernetInterface",
        json!({"MACAddress": "{{mac bmc}}", "PermanentMACAddress": "{{mac bmc}}", "HostName": "{{name}}", "LinkStatus": "LinkUp", "Status": well()}),
    );
    tree.collection(&format!("{MANAGER}/EthernetInterfaces"), "EthernetInterfaceCollection");
    tree.put(
        CHASSIS,
        "Chassis.v1_21_0.Chassis",
        json!({"Name": "Computer System Chassis", "ChassisType": "RackMount", "Manufacturer": "Dell Inc.", "Model": "PowerEdge XE7740",
            "SerialNumber": "CNIVC00{{alnum board 7}}", "SKU": "{{alnum tag 7}}", "PowerState": "On", "Status": well(),
            "Sensors": link(&format!("{CHASSIS}/Sensors")), "PCIeDevices": link(&format!("{CHASSIS}/PCIeDevices")),
            "NetworkAdapters": link(&format!("{CHASSIS}/NetworkAdapters")),
            "Links": {"ComputerSystems": [link(SYSTEM)], "ManagedBy": [link(MANAGER)]}}),
    );
    let temperatures = (1..=40).map(|n| (format!("SystemBoardTemp{n}"), "Temperature"));
    let fans = (1..=12).map(|n| (format!("Fan.Embedded.{n}"), "Rotational"));
    let volts = (1..=10).map(|n| (format!("PSU.Slot.{n}Voltage"), "Voltage"));
    sensors(tree, CHASSIS, temperatures.chain(fans).chain(volts));
}

//! A server like the DGX H100: a host and a GPU baseboard as two systems under two managers.

use serde_json::{Value, json};

use super::builder::{
    Resources, bios, link, links, memory, reset_action, secure_boot, sensors, services, well,
};

pub(super) const GPUS: usize = 8;
const NICS: usize = 10;
const NVME: usize = 8;
const HOST: &str = "/redfish/v1/Systems/DGX";
const BASEBOARD: &str = "/redfish/v1/Systems/HGX_Baseboard_0";
const CHASSIS: &str = "/redfish/v1/Chassis/DGX";
const GPU_FIRMWARE: &str = "96.00.89.00.01";

pub(super) fn resources() -> Vec<(String, Value)> {
    let mut tree = Resources::default();
    root(&mut tree);
    services(&mut tree, &firmware());
    host(&mut tree);
    storage(&mut tree);
    baseboard(&mut tree);
    managers(&mut tree);
    chassis(&mut tree);
    component_integrity(&mut tree);
    for (path, kind) in [
        ("/redfish/v1/Systems", "ComputerSystemCollection"),
        ("/redfish/v1/Managers", "ManagerCollection"),
        ("/redfish/v1/Chassis", "ChassisCollection"),
        ("/redfish/v1/ComponentIntegrity", "ComponentIntegrityCollection"),
    ] {
        tree.collection(path, kind);
    }
    tree.finish()
}

fn root(tree: &mut Resources) {
    tree.put(
        "/redfish/v1",
        "ServiceRoot.v1_13_0.ServiceRoot",
        json!({
            "Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.11.0", "Vendor": "AMI",
            "Product": "AMI Redfish Server", "UUID": "{{uuid bmc}}",
            "Systems": link("/redfish/v1/Systems"), "Chassis": link("/redfish/v1/Chassis"),
            "Managers": link("/redfish/v1/Managers"), "UpdateService": link("/redfish/v1/UpdateService"),
            "SessionService": link("/redfish/v1/SessionService"), "AccountService": link("/redfish/v1/AccountService"),
            "EventService": link("/redfish/v1/EventService"), "Tasks": link("/redfish/v1/TaskService"),
            "ComponentIntegrity": link("/redfish/v1/ComponentIntegrity"),
            "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")},
            // Advertised, and then answered without required fields (quirk 19).
            "ProtocolFeaturesSupported": {"ExpandQuery":
                {"ExpandAll": true, "Levels": true, "Links": true, "NoLinks": true, "MaxLevels": 5}},
        }),
    );
}

fn firmware() -> Vec<(String, String)> {
    let mut list = vec![
        ("HostBMC_0".to_owned(), "23.11.21".to_owned()),
        ("HostBIOS_0".to_owned(), "1.1.3".to_owned()),
        ("HGX_FW_BMC_0".to_owned(), "HGX-22.10-1-rc57".to_owned()),
        ("HGX_FW_FPGA_0".to_owned(), "2.53".to_owned()),
        ("EROT_BMC_0".to_owned(), "00.04.0026.0000_n00".to_owned()),
        ("EROT_BIOS_0".to_owned(), "00.04.0026.0000_n00".to_owned()),
    ];
    for n in 1..=GPUS {
        list.push((format!("HGX_FW_GPU_SXM_{n}"), GPU_FIRMWARE.to_owned()));
        list.push((format!("HGX_InfoROM_GPU_SXM_{n}"), "G520.0200.00.05".to_owned()));
    }
    for n in 0..4 {
        list.push((format!("HGX_FW_NVSwitch_{n}"), "96.10.50.00.01".to_owned()));
    }
    list
}

fn host(tree: &mut Resources) {
    tree.put(
        HOST,
        "ComputerSystem.v1_17_0.ComputerSystem",
        json!({
            "Name": "System", "SystemType": "Physical", "Manufacturer": "NVIDIA", "Model": "DGXH100",
            "SerialNumber": "{{digits system 13}}", "PartNumber": "965-24387-0002-003", "SKU": "965-24387-0002-003",
            "UUID": "{{uuid system}}", "AssetTag": "", "BiosVersion": "1.1.3", "PowerState": "On", "Status": well(),
            "ProcessorSummary": {"Count": 2, "CoreCount": 112, "LogicalProcessorCount": 224, "Model": "Intel(R) Xeon(R) Platinum 8480C"},
            "MemorySummary": {"TotalSystemMemoryGiB": 2048, "Status": well()},
            "TrustedModules": [{"InterfaceType": "TPM2_0", "FirmwareVersion": "15.23", "Status": {"State": "Enabled"}}],
            "Boot": {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None", "BootOrder": ["Boot0000", "Boot0001"]},
            "Bios": link(&format!("{HOST}/Bios")), "SecureBoot": link(&format!("{HOST}/SecureBoot")),
            "Processors": link(&format!("{HOST}/Processors")), "Memory": link(&format!("{HOST}/Memory")),
            "EthernetInterfaces": link(&format!("{HOST}/EthernetInterfaces")), "Storage": link(&format!("{HOST}/Storage")),
            "Links": {"Chassis": [link(CHASSIS)], "ManagedBy": [link("/redfish/v1/Managers/BMC")]},
            "Actions": reset_action(HOST),
        }),
    );
    for n in 0..2 {
        tree.put(
            &format!("{HOST}/Processors/CPU{n}"),
            "Processor.v1_13_0.Processor",
            json!({"ProcessorType": "CPU", "Manufacturer": "Intel(R) Corporation", "Model": "Intel(R) Xeon(R) Platinum 8480C",
                "TotalCores": 56, "TotalThreads": 112, "MaxSpeedMHz": 3800, "Socket": format!("CPU{n}"),
                // What AMI shows where a CPU has none.
                "SerialNumber": "N/A", "PartNumber": "NA", "Status": well()}),
        );
    }
    tree.collection(&format!("{HOST}/Processors"), "ProcessorCollection");
    memory(tree, HOST, (0..32).map(|n| format!("DIMM_{n}")), 65_536);
    for n in 0..NICS {
        tree.put(
            &format!("{HOST}/EthernetInterfaces/EthernetInterface{n}"),
            "EthernetInterface.v1_9_0.EthernetInterface",
            json!({"MACAddress": format!("{{{{mac nic{n}}}}}"), "PermanentMACAddress": format!("{{{{mac nic{n}}}}}"),
                "LinkStatus": "LinkUp", "SpeedMbps": 400_000, "Status": well()}),
        );
    }
    tree.collection(&format!("{HOST}/EthernetInterfaces"), "EthernetInterfaceCollection");
    secure_boot(tree, HOST, true);
    bios(tree, HOST, &json!({"TpmSupport": "Enabled", "VtdSupport": "Enabled", "SriovSupport": "Enabled"}));
}

fn storage(tree: &mut Resources) {
    let drive = |bay: usize| format!("{HOST}/Storage/NVMe/Drives/Bay{bay}");
    tree.put(
        &format!("{HOST}/Storage/NVMe"),
        "Storage.v1_15_0.Storage",
        json!({"Drives": links((0..NVME + 2).map(drive)), "Drives@odata.count": NVME + 2, "Status": well()}),
    );
    for bay in 0..NVME + 2 {
        let (model, bytes) = if bay < NVME {
            ("SYNTH-U2-3840", 3_840_755_982_336_u64)
        } else {
            ("SYNTH-M2-1920", 1_920_383_410_176)
        };
        tree.put(
            &drive(bay),
            "Drive.v1_17_0.Drive",
            json!({"Manufacturer": "Synthetic Drives", "Model": model, "MediaType": "SSD", "Protocol": "NVMe", "CapacityBytes": bytes,
                "SerialNumber": format!("{{{{alnum drive{bay} 14}}}}"), "Revision": "GDC7502Q", "Status": well()}),
        );
    }
    tree.collection(&format!("{HOST}/Storage"), "StorageCollection");
}

fn baseboard(tree: &mut Resources) {
    tree.put(
        BASEBOARD,
        "ComputerSystem.v1_17_0.ComputerSystem",
        json!({
            "Manufacturer": "NVIDIA", "SystemType": "Physical", "PowerState": "On", "Status": well(), "UUID": "{{uuid baseboard}}",
            "MemorySummary": {"TotalSystemMemoryGiB": 640}, "Processors": link(&format!("{BASEBOARD}/Processors")),
            "Links": {"Chassis": [link("/redfish/v1/Chassis/HGX_Chassis_0")], "ManagedBy": [link("/redfish/v1/Managers/HGX_BMC_0")]},
        }),
    );
    for n in 1..=GPUS {
        let chassis = format!("/redfish/v1/Chassis/HGX_GPU_SXM_{n}");
        let device = format!("{chassis}/PCIeDevices/GPU_SXM_{n}");
        let mut processor = gpu_identity(n);
        processor["ProcessorType"] = json!("GPU");
        processor["FirmwareVersion"] = json!(GPU_FIRMWARE);
        processor["Location"] =
            json!({"PartLocation": {"LocationType": "Embedded", "ServiceLabel": format!("SXM{n}")}});
        processor["MemorySummary"] = json!({"ECCModeEnabled": true});
        processor["Oem"] = json!({"Nvidia": {"MIGModeEnabled": false}});
        processor["SystemInterface"] = json!({"InterfaceType": "PCIe",
            "PCIe": {"LanesInUse": 16, "MaxLanes": 16, "PCIeType": "Gen5", "MaxPCIeType": "Gen5"}});
        processor["Links"] = json!({"Chassis": link(&chassis), "PCIeDevice": link(&device)});
        tree.put(&format!("{BASEBOARD}/Processors/GPU_SXM_{n}"), "Processor.v1_13_0.Processor", processor);

        let mut module = gpu_identity(n);
        module["ChassisType"] = json!("Module");
        module["PCIeDevices"] = link(&format!("{chassis}/PCIeDevices"));
        module["Links"] = json!({"ContainedBy": link("/redfish/v1/Chassis/HGX_Chassis_0"), "ManagedBy": [link("/redfish/v1/Managers/HGX_BMC_0")]});
        tree.put(&chassis, "Chassis.v1_17_0.Chassis", module);

        let mut pcie = gpu_identity(n);
        pcie["DeviceType"] = json!("SingleFunction");
        pcie["FirmwareVersion"] = json!(GPU_FIRMWARE);
        pcie["PCIeFunctions"] = link(&format!("{device}/PCIeFunctions"));
        tree.put(&device, "PCIeDevice.v1_5_0.PCIeDevice", pcie);
        tree.put(
            &format!("{device}/PCIeFunctions/0"),
            "PCIeFunction.v1_2_3.PCIeFunction",
            json!({"ClassCode": "0x030200", "DeviceClass": "DisplayController", "DeviceId": "0x2330", "VendorId": "0x10DE", "FunctionId": 0}),
        );
        tree.collection(&format!("{device}/PCIeFunctions"), "PCIeFunctionCollection");
        tree.collection(&format!("{chassis}/PCIeDevices"), "PCIeDeviceCollection");
    }
    tree.put(
        &format!("{BASEBOARD}/Processors/FPGA_0"),
        "Processor.v1_13_0.Processor",
        json!({"ProcessorType": "FPGA", "Manufacturer": "NVIDIA", "Model": "N/A", "SerialNumber": "NA", "UUID": "", "Status": well()}),
    );
    tree.collection(&format!("{BASEBOARD}/Processors"), "ProcessorCollection");
}

/// What all views of a GPU say of it.
fn gpu_identity(n: usize) -> Value {
    json!({"Manufacturer": "NVIDIA", "Model": "H100 80GB HBM3", "PartNumber": "2330-885-A1",
        "SerialNumber": format!("{{{{digits gpu{n} 13}}}}"), "UUID": format!("{{{{uuid gpu{n}}}}}"), "Status": well()})
}

fn managers(tree: &mut Resources) {
    let bmc = "/redfish/v1/Managers/BMC";
    tree.put(
        bmc,
        "Manager.v1_14_0.Manager",
        json!({"ManagerType": "BMC", "Manufacturer": "NVIDIA", "Model": "410810554", "FirmwareVersion": "23.11.21", "UUID": "{{uuid bmc}}",
            "Status": well(), "EthernetInterfaces": link(&format!("{bmc}/EthernetInterfaces")),
            "Links": {"ManagerForServers": [link(HOST)], "ManagerForChassis": [link(CHASSIS)]}}),
    );
    // The interface to the host is not the one that the network sees.
    for (id, label) in [("eth0", "bmc"), ("usb0", "bmc-usb")] {
        tree.put(
            &format!("{bmc}/EthernetInterfaces/{id}"),
            "EthernetInterface.v1_9_0.EthernetInterface",
            json!({"MACAddress": format!("{{{{mac {label}}}}}"), "PermanentMACAddress": format!("{{{{mac {label}}}}}"),
                "InterfaceEnabled": true, "LinkStatus": "LinkUp", "HostName": "{{name}}", "Status": well()}),
        );
    }
    tree.collection(&format!("{bmc}/EthernetInterfaces"), "EthernetInterfaceCollection");
    let hgx = "/redfish/v1/Managers/HGX_BMC_0";
    tree.put(
        hgx,
        "Manager.v1_14_0.Manager",
        // Its Id is not the last segment of its path on real firmware either.
        json!({"Id": "bmc", "ManagerType": "BMC", "FirmwareVersion": "HGX-22.10-1-rc57", "UUID": "{{uuid hgx-bmc}}", "Status": well(),
            "LastResetTime": "1970-01-01T00:00:00+00:00",
            "Links": {"ManagerForServers": [link(BASEBOARD)], "ManagerForChassis": [link("/redfish/v1/Chassis/HGX_Chassis_0")]}}),
    );
}

fn chassis(tree: &mut Resources) {
    tree.put(
        CHASSIS,
        "Chassis.v1_17_0.Chassis",
        json!({"ChassisType": "RackMount", "Manufacturer": "NVIDIA", "Model": "DGXH100", "SerialNumber": "{{digits system 13}}",
            "PartNumber": "965-24387-0002-003", "PowerState": "On", "Status": well(), "Sensors": link(&format!("{CHASSIS}/Sensors")),
            "PCIeDevices": link(&format!("{CHASSIS}/PCIeDevices")), "NetworkAdapters": link(&format!("{CHASSIS}/NetworkAdapters")),
            "Links": {"ComputerSystems": [link(HOST)], "ManagedBy": [link("/redfish/v1/Managers/BMC")]}}),
    );
    tree.put(
        "/redfish/v1/Chassis/HGX_Chassis_0",
        "Chassis.v1_17_0.Chassis",
        json!({"ChassisType": "Module", "Manufacturer": "NVIDIA", "Model": "HGX H100 8-GPU", "SerialNumber": "{{digits baseboard 13}}",
            "PartNumber": "935-24287-0001-000", "Status": well(),
            "Links": {"Contains": links((1..=GPUS).map(|n| format!("/redfish/v1/Chassis/HGX_GPU_SXM_{n}"))),
                "ComputerSystems": [link(BASEBOARD)]}}),
    );
    // Bridges first: the cards that matter come after the first page (quirk 20).
    for n in 0..80 {
        tree.put(
            &format!("{CHASSIS}/PCIeDevices/00_{n:02X}_00"),
            "PCIeDevice.v1_4_0.PCIeDevice",
            json!({"DeviceType": "MultiFunction", "Manufacturer": "Intel Corporation", "SerialNumber": "N/A", "PartNumber": "NA", "Status": well()}),
        );
    }
    for n in 0..NICS {
        let id = format!("NIC{n}");
        let device = format!("{CHASSIS}/PCIeDevices/{id}");
        let adapter = format!("{CHASSIS}/NetworkAdapters/{id}");
        tree.put(
            &device,
            "PCIeDevice.v1_4_0.PCIeDevice",
            json!({"DeviceType": "SingleFunction", "Manufacturer": "Mellanox Technologies", "Model": "ConnectX-7", "PartNumber": "MCX750500B-0D0K",
                "SerialNumber": format!("MT{{{{digits nic{n} 11}}}}"), "FirmwareVersion": "28.36.1010", "Status": well()}),
        );
        tree.put(
            &adapter,
            "NetworkAdapter.v1_9_0.NetworkAdapter",
            json!({"Manufacturer": "Mellanox Technologies", "Model": "ConnectX-7", "PartNumber": "MCX750500B-0D0K",
                "SerialNumber": format!("MT{{{{digits nic{n} 11}}}}"), "Status": well(),
                "Controllers": [{"FirmwarePackageVersion": "28.36.1010", "Links": {"PCIeDevices": [link(&device)]}}],
                "NetworkDeviceFunctions": link(&format!("{adapter}/NetworkDeviceFunctions"))}),
        );
        tree.put(
            &format!("{adapter}/NetworkDeviceFunctions/0"),
            "NetworkDeviceFunction.v1_9_0.NetworkDeviceFunction",
            json!({"NetDevFuncType": "Ethernet", "Status": well(),
                "Ethernet": {"MACAddress": format!("{{{{mac nic{n}}}}}"), "PermanentMACAddress": format!("{{{{mac nic{n}}}}}")}}),
        );
        tree.collection(&format!("{adapter}/NetworkDeviceFunctions"), "NetworkDeviceFunctionCollection");
    }
    tree.collection(&format!("{CHASSIS}/PCIeDevices"), "PCIeDeviceCollection");
    tree.collection(&format!("{CHASSIS}/NetworkAdapters"), "NetworkAdapterCollection");
    let temperatures = (0..60).map(|n| (format!("TEMP_{n}"), "Temperature"));
    let fans = (0..24).map(|n| (format!("FAN_{n}"), "Rotational"));
    let power = (0..6).map(|n| (format!("PSU_{n}_PWR"), "Power"));
    sensors(tree, CHASSIS, temperatures.chain(fans).chain(power));
}

fn component_integrity(tree: &mut Resources) {
    let mut components =
        vec![("EROT_BMC_0".to_owned(), "1.1.0", None), ("EROT_BIOS_0".to_owned(), "1.1.0", None)];
    for n in 1..=GPUS {
        // The literal "unknown" is what the HGX firmware says (facts, §8).
        components.push((
            format!("HGX_ERoT_GPU_SXM_{n}"),
            "unknown",
            Some(format!("{BASEBOARD}/Processors/GPU_SXM_{n}")),
        ));
    }
    for (id, version, protected) in components {
        let path = format!("/redfish/v1/ComponentIntegrity/{id}");
        let target = format!("/redfish/v1/Chassis/{id}");
        let chain = format!("{target}/Certificates/CertChain");
        tree.put(
            &path,
            "ComponentIntegrity.v1_0_0.ComponentIntegrity",
            json!({"ComponentIntegrityEnabled": true, "ComponentIntegrityType": "SPDM", "ComponentIntegrityTypeVersion": version,
                "TargetComponentURI": target, "Links": {"ComponentsProtected": links(protected)},
                "SPDM": {"IdentityAuthentication": {"ResponderAuthentication": {"ComponentCertificate": link(&chain)}}},
                "Actions": {"#ComponentIntegrity.SPDMGetSignedMeasurements": {
                    "target": format!("{path}/Actions/SPDMGetSignedMeasurements")}}}),
        );
        tree.put(
            &target,
            "Chassis.v1_17_0.Chassis",
            json!({"ChassisType": "Component", "Manufacturer": "NVIDIA", "SerialNumber": format!("{{{{alnum {id} 14}}}}"), "Status": well(),
                "Certificates": link(&format!("{target}/Certificates"))}),
        );
        tree.put(
            &chain,
            "Certificate.v1_5_0.Certificate",
            json!({"CertificateString": format!("{{{{chain {id}}}}}"), "CertificateType": "PEMchain", "SPDM": {"SlotId": 0}}),
        );
        tree.collection(&format!("{target}/Certificates"), "CertificateCollection");
    }
}

//! A server without GPUs on firmware like OpenBMC's: no `$expand`, no ETags, nothing that is not needed.

use serde_json::{Value, json};

use super::builder::{
    Resources, bios, link, links, memory, reset_action, secure_boot, sensors, services, well,
};

const SYSTEM: &str = "/redfish/v1/Systems/system";
const CHASSIS: &str = "/redfish/v1/Chassis/chassis";
const MANAGER: &str = "/redfish/v1/Managers/bmc";
const DRIVES: usize = 6;

pub(super) fn resources() -> Vec<(String, Value)> {
    let mut tree = Resources::default();
    root(&mut tree);
    let firmware = [("bmc_active", "2.14.0"), ("bios_active", "1.09"), ("cpld_active", "0x12")];
    services(&mut tree, &firmware.map(|(id, version)| (id.to_owned(), version.to_owned())));
    system(&mut tree);
    network_and_storage(&mut tree);
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
            "Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.17.0", "UUID": "{{uuid bmc}}",
            "Systems": link("/redfish/v1/Systems"), "Chassis": link("/redfish/v1/Chassis"),
            "Managers": link("/redfish/v1/Managers"), "UpdateService": link("/redfish/v1/UpdateService"),
            "SessionService": link("/redfish/v1/SessionService"), "AccountService": link("/redfish/v1/AccountService"),
            "EventService": link("/redfish/v1/EventService"), "Tasks": link("/redfish/v1/TaskService"),
            "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")},
            "ProtocolFeaturesSupported": {"ExpandQuery":
                {"ExpandAll": false, "Levels": false, "Links": false, "NoLinks": false}},
        }),
    );
}

fn system(tree: &mut Resources) {
    tree.put(
        SYSTEM,
        "ComputerSystem.v1_20_0.ComputerSystem",
        json!({
            "SystemType": "Physical", "Manufacturer": "Synthetic Systems", "Model": "SN-2U-EPYC", "SerialNumber": "SN{{digits system 10}}",
            "PartNumber": "SN2U-9454", "SKU": "", "UUID": "{{uuid system}}", "BiosVersion": "1.09", "PowerState": "On", "Status": well(),
            "ProcessorSummary": {"Count": 2, "Model": "AMD EPYC 9454"}, "MemorySummary": {"TotalSystemMemoryGiB": 768},
            "TrustedModules": [{"InterfaceType": "TPM2_0", "FirmwareVersion": "7.85", "Status": {"State": "Enabled"}}],
            "Boot": {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideMode": "UEFI", "BootSourceOverrideTarget": "None"},
            "Bios": link(&format!("{SYSTEM}/Bios")), "SecureBoot": link(&format!("{SYSTEM}/SecureBoot")),
            "Processors": link(&format!("{SYSTEM}/Processors")), "Memory": link(&format!("{SYSTEM}/Memory")),
            "EthernetInterfaces": link(&format!("{SYSTEM}/EthernetInterfaces")), "Storage": link(&format!("{SYSTEM}/Storage")),
            "Links": {"Chassis": [link(CHASSIS)], "ManagedBy": [link(MANAGER)]},
            "Actions": reset_action(SYSTEM),
        }),
    );
    for n in 0..2 {
        tree.put(
            &format!("{SYSTEM}/Processors/cpu{n}"),
            "Processor.v1_18_0.Processor",
            json!({"ProcessorType": "CPU", "Manufacturer": "Advanced Micro Devices, Inc.", "Model": "AMD EPYC 9454 48-Core Processor",
                "TotalCores": 48, "TotalThreads": 96, "Socket": format!("P{n}"), "SerialNumber": "Unknown", "Status": well()}),
        );
    }
    tree.collection(&format!("{SYSTEM}/Processors"), "ProcessorCollection");
    memory(tree, SYSTEM, (0..24).map(|n| format!("dimm{n}")), 32_768);
    secure_boot(tree, SYSTEM, true);
    bios(tree, SYSTEM, &json!({}));
}

fn network_and_storage(tree: &mut Resources) {
    for n in 0..4 {
        tree.put(
            &format!("{SYSTEM}/EthernetInterfaces/eth{n}"),
            "EthernetInterface.v1_9_0.EthernetInterface",
            json!({"MACAddress": format!("{{{{mac eth{n}}}}}"), "LinkStatus": if n < 2 { "LinkUp" } else { "LinkDown" }, "Status": well()}),
        );
    }
    tree.collection(&format!("{SYSTEM}/EthernetInterfaces"), "EthernetInterfaceCollection");
    let drive = |n: usize| format!("{CHASSIS}/Drives/nvme{n}");
    tree.put(
        &format!("{SYSTEM}/Storage/1"),
        "Storage.v1_13_0.Storage",
        json!({"Drives": links((0..DRIVES).map(drive)), "Drives@odata.count": DRIVES, "Status": well()}),
    );
    tree.collection(&format!("{SYSTEM}/Storage"), "StorageCollection");
    for n in 0..DRIVES {
        tree.put(
            &drive(n),
            "Drive.v1_17_0.Drive",
            json!({"Manufacturer": "Synthetic Drives", "Model": "SYNTH-E1S-7680", "MediaType": "SSD", "Protocol": "NVMe", "CapacityBytes": 7_681_501_126_656_u64,
                "SerialNumber": format!("{{{{alnum drive{n} 14}}}}"), "Status": well()}),
        );
    }
    tree.collection(&format!("{CHASSIS}/Drives"), "DriveCollection");
}

fn manager_and_chassis(tree: &mut Resources) {
    tree.put(
        MANAGER,
        "Manager.v1_17_0.Manager",
        json!({"ManagerType": "BMC", "Model": "OpenBmc", "FirmwareVersion": "2.14.0", "UUID": "{{uuid bmc}}", "Status": well(),
            "EthernetInterfaces": link(&format!("{MANAGER}/EthernetInterfaces")),
            "Links": {"ManagerForServers": [link(SYSTEM)], "ManagerForChassis": [link(CHASSIS)]}}),
    );
    tree.put(
        &format!("{MANAGER}/EthernetInterfaces/eth0"),
        "EthernetInterface.v1_9_0.EthernetInterface",
        json!({"MACAddress": "{{mac bmc}}", "HostName": "{{name}}", "LinkStatus": "LinkUp", "Status": well()}),
    );
    tree.collection(&format!("{MANAGER}/EthernetInterfaces"), "EthernetInterfaceCollection");
    tree.put(
        CHASSIS,
        "Chassis.v1_21_0.Chassis",
        json!({"ChassisType": "RackMount", "Manufacturer": "Synthetic Systems", "Model": "SN-2U-EPYC", "SerialNumber": "SN{{digits system 10}}",
            "PowerState": "On", "Status": well(), "Sensors": link(&format!("{CHASSIS}/Sensors")), "Drives": link(&format!("{CHASSIS}/Drives")),
            "Links": {"ComputerSystems": [link(SYSTEM)], "ManagedBy": [link(MANAGER)]}}),
    );
    let temperatures = (0..60).map(|n| (format!("temperature_{n}"), "Temperature"));
    let fans = (0..16).map(|n| (format!("fan_{n}"), "Rotational"));
    let volts = (0..20).map(|n| (format!("voltage_{n}"), "Voltage"));
    sensors(tree, CHASSIS, temperatures.chain(fans).chain(volts));
}

//! A small synthetic machine to spoil: one host with two CPUs and two GPUs, one BMC, one chassis.

use serde_json::{Value, json};

use super::tree::Tree;

pub const HOST: &str = "/redfish/v1/Systems/Host";
pub const BMC: &str = "/redfish/v1/Managers/Bmc";
pub const BOX: &str = "/redfish/v1/Chassis/Box";

/// A link.
pub fn link(path: &str) -> Value {
    json!({"@odata.id": path})
}

/// A collection of these members.
pub fn collection(paths: &[&str]) -> Value {
    let members: Vec<Value> = paths.iter().map(|path| link(path)).collect();
    json!({
        "@odata.type": "#Collection.Collection",
        "Name": "Collection",
        "Members@odata.count": members.len(),
        "Members": members,
    })
}

/// A resource with what every resource has.
pub fn resource(kind: &str, id: &str, fields: Value) -> Value {
    let mut body =
        json!({"@odata.type": format!("#{kind}.v1_0_0.{kind}"), "Id": id, "Name": format!("{kind} {id}")});
    let own = body.as_object_mut().expect("an object");
    own.extend(fields.as_object().expect("an object").clone());
    body
}

/// A processor of the host.
pub fn processor(id: &str, kind: &str, fields: Value) -> (String, Value) {
    let mut body = resource("Processor", id, fields);
    body.as_object_mut().expect("an object").insert("ProcessorType".to_owned(), json!(kind));
    (format!("{HOST}/Processors/{id}"), body)
}

/// The machine, with nothing wrong.
pub fn machine() -> Tree {
    let mut tree = Tree::of([
        (
            "/redfish/v1",
            json!({
                "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot", "Id": "RootService", "Name": "Root",
                "RedfishVersion": "1.15.0", "UUID": "5b1f5a1e-7d3a-4f6b-9a52-31fd5a3f0001", "Vendor": "Contoso",
                "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers"),
                "Chassis": link("/redfish/v1/Chassis"), "UpdateService": link("/redfish/v1/UpdateService"),
                "ProtocolFeaturesSupported": {"ExpandQuery": {"NoLinks": true, "Levels": true, "MaxLevels": 1}},
            }),
        ),
        ("/redfish/v1/Systems", collection(&[HOST])),
        ("/redfish/v1/Managers", collection(&[BMC])),
        ("/redfish/v1/Chassis", collection(&[BOX])),
        (
            HOST,
            resource(
                "ComputerSystem",
                "Host",
                json!({
                    "Manufacturer": "Contoso", "Model": "Rack 1", "SerialNumber": "HOST-1", "SKU": "SKU-1", "PartNumber": "PN-1",
                    "UUID": "5B1F5A1E-7D3A-4F6B-9A52-31FD5A3F0002", "SystemType": "Physical", "BiosVersion": "1.0",
                    "MemorySummary": {"TotalSystemMemoryGiB": 512},
                    "TrustedModules": [{"InterfaceType": "TPM2_0", "FirmwareVersion": "7.2", "Status": {"State": "Enabled"}}],
                    "Bios": link("/redfish/v1/Systems/Host/Bios"), "SecureBoot": link("/redfish/v1/Systems/Host/SecureBoot"),
                    "Processors": link("/redfish/v1/Systems/Host/Processors"),
                    "EthernetInterfaces": link("/redfish/v1/Systems/Host/EthernetInterfaces"),
                    "Storage": link("/redfish/v1/Systems/Host/Storage"),
                    "Links": {"ManagedBy": [link(BMC)], "Chassis": [link(BOX)]},
                }),
            ),
        ),
        (
            "/redfish/v1/Systems/Host/Bios",
            resource("Bios", "Bios", json!({"Attributes": {"ProcVirtualization": "Enabled"}})),
        ),
        (
            "/redfish/v1/Systems/Host/SecureBoot",
            resource("SecureBoot", "SecureBoot", json!({"SecureBootCurrentBoot": "Enabled"})),
        ),
        (
            "/redfish/v1/Systems/Host/EthernetInterfaces",
            collection(&["/redfish/v1/Systems/Host/EthernetInterfaces/1"]),
        ),
        (
            "/redfish/v1/Systems/Host/EthernetInterfaces/1",
            resource("EthernetInterface", "1", json!({"MACAddress": "02:00:00:00:00:01"})),
        ),
        ("/redfish/v1/Systems/Host/Storage", collection(&["/redfish/v1/Systems/Host/Storage/1"])),
        (
            "/redfish/v1/Systems/Host/Storage/1",
            resource(
                "Storage",
                "1",
                json!({"Drives": [link("/redfish/v1/Systems/Host/Storage/1/Drives/1")]}),
            ),
        ),
        (
            "/redfish/v1/Systems/Host/Storage/1/Drives/1",
            resource(
                "Drive",
                "1",
                json!({"Model": "D", "SerialNumber": "DRIVE-1", "CapacityBytes": 1000, "MediaType": "SSD"}),
            ),
        ),
        (
            BMC,
            resource(
                "Manager",
                "Bmc",
                json!({
                    "ManagerType": "BMC", "Model": "M", "FirmwareVersion": "2.0",
                    "EthernetInterfaces": link("/redfish/v1/Managers/Bmc/EthernetInterfaces"),
                    "Links": {"ManagerForServers": [link(HOST)]},
                }),
            ),
        ),
        (
            "/redfish/v1/Managers/Bmc/EthernetInterfaces",
            collection(&["/redfish/v1/Managers/Bmc/EthernetInterfaces/1"]),
        ),
        (
            "/redfish/v1/Managers/Bmc/EthernetInterfaces/1",
            resource("EthernetInterface", "1", json!({"MACAddress": "02:00:00:00:00:FE"})),
        ),
        (
            BOX,
            resource(
                "Chassis",
                "Box",
                json!({
                    "ChassisType": "RackMount", "SerialNumber": "BOX-1",
                    "Links": {"ComputerSystems": [link(HOST)]},
                }),
            ),
        ),
        (
            "/redfish/v1/UpdateService",
            resource(
                "UpdateService",
                "UpdateService",
                json!({
                    "FirmwareInventory": link("/redfish/v1/UpdateService/FirmwareInventory"),
                }),
            ),
        ),
        (
            "/redfish/v1/UpdateService/FirmwareInventory",
            collection(&["/redfish/v1/UpdateService/FirmwareInventory/BIOS"]),
        ),
        (
            "/redfish/v1/UpdateService/FirmwareInventory/BIOS",
            resource("SoftwareInventory", "BIOS", json!({"Version": "1.0"})),
        ),
    ]);
    put_processors(
        &mut tree,
        [
            processor("CPU0", "CPU", json!({"Model": "C", "TotalCores": 32, "TotalThreads": 64})),
            processor("CPU1", "CPU", json!({"Model": "C", "TotalCores": 32, "TotalThreads": 64})),
            processor("GPU0", "GPU", json!({"Model": "G", "SerialNumber": "GPU-SERIAL-0"})),
            processor("GPU1", "GPU", json!({"Model": "G", "SerialNumber": "GPU-SERIAL-1"})),
        ],
    );
    tree
}

/// Gives the host these processors and no others.
pub fn put_processors(tree: &mut Tree, processors: impl IntoIterator<Item = (String, Value)>) {
    let mut paths = Vec::new();
    for (path, body) in processors {
        tree.put(&path, body);
        paths.push(path);
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    tree.put("/redfish/v1/Systems/Host/Processors", collection(&paths));
}

impl Tree {
    /// Gives the machine so many components of firmware.
    pub fn put_firmware(&mut self, total: usize) {
        let inventory = "/redfish/v1/UpdateService/FirmwareInventory";
        let paths: Vec<String> = (0..total).map(|n| format!("{inventory}/F{n}")).collect();
        for (n, path) in paths.iter().enumerate() {
            self.put(path, resource("SoftwareInventory", &format!("F{n}"), json!({"Version": "1"})));
        }
        self.put(inventory, collection(&paths.iter().map(String::as_str).collect::<Vec<_>>()));
    }
}

/// A GPU baseboard with a manager of its own, listed first.
pub fn with_baseboard() -> Tree {
    let mut tree = machine();
    let (board, manager) = ("/redfish/v1/Systems/Baseboard", "/redfish/v1/Managers/Baseboard");
    tree.put(
        board,
        resource("ComputerSystem", "Baseboard", json!({
            "Manufacturer": "Other", "SerialNumber": "BOARD-1", "Model": "Board", "SystemType": "Physical",
            "UUID": "5b1f5a1e-7d3a-4f6b-9a52-31fd5a3f0009", "MemorySummary": {"TotalSystemMemoryGiB": 640},
            "Processors": link("/redfish/v1/Systems/Baseboard/Processors"), "Links": {"ManagedBy": [link(manager)]},
        })),
    );
    tree.put(
        "/redfish/v1/Systems/Baseboard/Processors",
        collection(&["/redfish/v1/Systems/Baseboard/Processors/GPU_0"]),
    );
    tree.put(
        "/redfish/v1/Systems/Baseboard/Processors/GPU_0",
        resource("Processor", "GPU_0", json!({"ProcessorType": "GPU", "SerialNumber": "BOARD-GPU"})),
    );
    tree.put(
        manager,
        resource(
            "Manager",
            "Baseboard",
            json!({
                "ManagerType": "BMC", "FirmwareVersion": "9.9", "Links": {"ManagerForServers": [link(board)]},
            }),
        ),
    );
    tree.put("/redfish/v1/Systems", collection(&[board, HOST]));
    tree.put("/redfish/v1/Managers", collection(&[manager, BMC]));
    tree.set(BMC, "UUID", json!("5b1f5a1e-7d3a-4f6b-9a52-31fd5a3f0001"));
    tree
}

//! Assembles a tree from resources and lets collections follow from what is in them.

use serde_json::{Map, Value, json};

/// A tree in the making.
#[derive(Debug, Default)]
pub(super) struct Resources {
    /// In the order in which they were made, which is the order of collections' members.
    all: Vec<(String, Value)>,
    collections: Vec<(String, &'static str)>,
}

impl Resources {
    /// Adds a resource of this type (`Processor.v1_13_0.Processor`). Its `Id` is the last segment of its path, and so is its `Name` unless
    /// the properties have one.
    pub(super) fn put(&mut self, path: &str, kind: &str, properties: Value) {
        let id = path.rsplit('/').next().unwrap_or(path);
        let mut resource = Map::new();
        resource.insert("@odata.id".to_owned(), json!(path));
        resource.insert("@odata.type".to_owned(), json!(format!("#{kind}")));
        resource.insert("Id".to_owned(), json!(id));
        resource.insert("Name".to_owned(), json!(id));
        if let Value::Object(properties) = properties {
            resource.extend(properties);
        }
        self.all.push((path.to_owned(), Value::Object(resource)));
    }

    /// Declares a collection of this type (`ProcessorCollection`); its members are the resources right below it.
    pub(super) fn collection(&mut self, path: &str, kind: &'static str) {
        self.collections.push((path.to_owned(), kind));
    }

    /// The resources with their collections.
    pub(super) fn finish(mut self) -> Vec<(String, Value)> {
        for (path, kind) in std::mem::take(&mut self.collections) {
            let below = |child: &str| {
                child
                    .strip_prefix(&path)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .is_some_and(|rest| !rest.contains('/'))
            };
            let members: Vec<Value> =
                self.all.iter().filter(|(child, _)| below(child)).map(|(child, _)| link(child)).collect();
            let collection = json!({
                "@odata.id": path,
                "@odata.type": format!("#{kind}.{kind}"),
                "Name": path.rsplit('/').next(),
                "Members@odata.count": members.len(),
                "Members": members,
            });
            self.all.push((path, collection));
        }
        self.all
    }
}

/// A reference.
pub(super) fn link(path: &str) -> Value {
    json!({"@odata.id": path})
}

/// References.
pub(super) fn links(paths: impl IntoIterator<Item = String>) -> Value {
    paths.into_iter().map(|path| link(&path)).collect()
}

/// A component that is there and well.
pub(super) fn well() -> Value {
    json!({"State": "Enabled", "Health": "OK", "HealthRollup": "OK"})
}

/// Adds what every service has: sessions, accounts, tasks, events, an update service with this firmware.
pub(super) fn services(tree: &mut Resources, firmware: &[(String, String)]) {
    tree.put(
        "/redfish/v1/SessionService",
        "SessionService.v1_1_8.SessionService",
        json!({"ServiceEnabled": true, "SessionTimeout": 600, "Sessions": link("/redfish/v1/SessionService/Sessions")}),
    );
    tree.put(
        "/redfish/v1/AccountService",
        "AccountService.v1_11_0.AccountService",
        json!({"ServiceEnabled": true, "AccountLockoutThreshold": 0, "MinPasswordLength": 8,
            "Accounts": link("/redfish/v1/AccountService/Accounts"), "Roles": link("/redfish/v1/AccountService/Roles")}),
    );
    tree.put(
        "/redfish/v1/AccountService/Accounts/1",
        "ManagerAccount.v1_9_0.ManagerAccount",
        json!({"UserName": "admin", "RoleId": "Administrator", "Enabled": true, "Locked": false, "Password": null,
            "AccountTypes": ["Redfish"], "Links": {"Role": link("/redfish/v1/AccountService/Roles/Administrator")}}),
    );
    for role in ["Administrator", "Operator", "ReadOnly"] {
        tree.put(
            &format!("/redfish/v1/AccountService/Roles/{role}"),
            "Role.v1_3_1.Role",
            json!({"RoleId": role, "IsPredefined": true, "AssignedPrivileges": ["Login"]}),
        );
    }
    tree.collection("/redfish/v1/AccountService/Accounts", "ManagerAccountCollection");
    tree.collection("/redfish/v1/AccountService/Roles", "RoleCollection");
    tree.put(
        "/redfish/v1/TaskService",
        "TaskService.v1_2_0.TaskService",
        json!({"ServiceEnabled": true, "Tasks": link("/redfish/v1/TaskService/Tasks")}),
    );
    tree.collection("/redfish/v1/TaskService/Tasks", "TaskCollection");
    tree.put(
        "/redfish/v1/EventService",
        "EventService.v1_7_0.EventService",
        json!({"ServiceEnabled": true, "Subscriptions": link("/redfish/v1/EventService/Subscriptions")}),
    );
    tree.collection("/redfish/v1/EventService/Subscriptions", "EventDestinationCollection");
    tree.put(
        "/redfish/v1/UpdateService",
        "UpdateService.v1_8_0.UpdateService",
        json!({"ServiceEnabled": true, "Status": well(),
            "FirmwareInventory": link("/redfish/v1/UpdateService/FirmwareInventory"),
            "Actions": {"#UpdateService.SimpleUpdate": {
                "target": "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate"}}}),
    );
    for (id, version) in firmware {
        tree.put(
            &format!("/redfish/v1/UpdateService/FirmwareInventory/{id}"),
            "SoftwareInventory.v1_4_0.SoftwareInventory",
            json!({"Version": version, "Updateable": true, "Status": well()}),
        );
    }
    tree.collection("/redfish/v1/UpdateService/FirmwareInventory", "SoftwareInventoryCollection");
}

/// Adds sensors to a chassis: what makes real trees large and inventories not.
pub(super) fn sensors(
    tree: &mut Resources,
    chassis: &str,
    names: impl IntoIterator<Item = (String, &'static str)>,
) {
    for (name, kind) in names {
        let (units, reading) = match kind {
            "Temperature" => ("Cel", 34.5),
            "Rotational" => ("RPM", 8400.0),
            "Power" => ("W", 310.0),
            _ => ("V", 12.1),
        };
        tree.put(
            &format!("{chassis}/Sensors/{name}"),
            "Sensor.v1_6_0.Sensor",
            json!({"Reading": reading, "ReadingType": kind, "ReadingUnits": units, "Status": well()}),
        );
    }
    tree.collection(&format!("{chassis}/Sensors"), "SensorCollection");
}

/// Adds memory modules to a system.
pub(super) fn memory(tree: &mut Resources, system: &str, ids: impl IntoIterator<Item = String>, mib: u64) {
    for id in ids {
        tree.put(
            &format!("{system}/Memory/{id}"),
            "Memory.v1_16_0.Memory",
            json!({"CapacityMiB": mib, "MemoryDeviceType": "DDR5", "MemoryType": "DRAM", "OperatingSpeedMhz": 4800,
                "Manufacturer": "Synthetic Memory", "PartNumber": "SM-DDR5-4800",
                "SerialNumber": format!("{{{{alnum dimm-{id} 8}}}}"), "Status": well()}),
        );
    }
    tree.collection(&format!("{system}/Memory"), "MemoryCollection");
}

/// Adds Secure Boot to a system.
pub(super) fn secure_boot(tree: &mut Resources, system: &str, enabled: bool) {
    tree.put(
        &format!("{system}/SecureBoot"),
        "SecureBoot.v1_1_0.SecureBoot",
        json!({"SecureBootEnable": enabled, "SecureBootCurrentBoot": if enabled { "Enabled" } else { "Disabled" },
            "SecureBootMode": "UserMode"}),
    );
}

/// Adds the BIOS of a system.
pub(super) fn bios(tree: &mut Resources, system: &str, attributes: &Value) {
    tree.put(
        &format!("{system}/Bios"),
        "Bios.v1_2_0.Bios",
        json!({"AttributeRegistry": "SyntheticBios.1.0.0", "Attributes": attributes,
            "@Redfish.Settings": {"SettingsObject": link(&format!("{system}/Bios/Settings"))}}),
    );
}

/// The reset action of a system.
pub(super) fn reset_action(system: &str) -> Value {
    json!({"#ComputerSystem.Reset": {
        "target": format!("{system}/Actions/ComputerSystem.Reset"),
        "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown", "ForceRestart", "GracefulRestart", "PowerCycle"],
    }})
}

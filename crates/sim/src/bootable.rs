//! What a tree needs so that a provisioning service can boot its machine: virtual media, boot override, boot progress, a clock.
//!
//! A recording shows what was recorded and nothing else; [`Tree::bootable`] makes another tree of it, with what is missing added.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::tree::{ROOT, Tree, canonical, members, reference};

/// Where the resources are that a boot has to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootPaths {
    /// The host among the systems (quirk 24).
    pub(crate) system: String,
    /// The settings object of the system, shown only where behaviour wants it (quirk 10).
    pub(crate) system_settings: String,
    /// The manager of that system.
    pub(crate) manager: String,
    /// The slots of virtual media that images can be put into.
    pub(crate) media: Vec<String>,
    /// The BIOS and its settings object.
    pub(crate) bios: String,
    pub(crate) bios_settings: String,
}

const SYSTEMS: &str = "/redfish/v1/Systems";
const MANAGERS: &str = "/redfish/v1/Managers";
/// What `BootSourceOverrideTarget` may be.
const TARGETS: [&str; 9] =
    ["None", "Pxe", "Cd", "Usb", "Hdd", "BiosSetup", "UefiTarget", "UefiHttp", "UefiShell"];

impl Tree {
    /// The same tree with everything that booting its host from virtual media needs. What is there stays as it is; a tree without a
    /// system stays as it is altogether.
    #[must_use]
    pub fn bootable(&self) -> Self {
        let mut plan = Plan { tree: self, changed: HashMap::new() };
        let paths = self.host_system().map(|system| plan.prepare(system));
        self.with_changes(plan.changed, paths)
    }
}

/// Changes to a tree, in the making.
struct Plan<'a> {
    tree: &'a Tree,
    changed: HashMap<String, Value>,
}

impl Plan<'_> {
    fn prepare(&mut self, system: String) -> BootPaths {
        let manager = self.manager_of(&system);
        let media = self.media_of(&system, &manager);
        let bios = self.linked(&system, "Bios", "Bios.v1_2_0.Bios", "Bios");
        let bios_settings = self.settings_of(&bios);
        self.prepare_system(&system, &manager);
        self.prepare_manager(&manager);
        self.prepare_accounts();
        let system_settings = format!("{system}/Settings");
        BootPaths { system, system_settings, manager, media, bios, bios_settings }
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.changed.get(path).cloned().or_else(|| self.tree.template_value(path))
    }

    fn edit(&mut self, path: &str, change: impl FnOnce(&mut Map<String, Value>)) {
        let Some(Value::Object(mut resource)) = self.get(path) else { return };
        change(&mut resource);
        self.changed.insert(path.to_owned(), Value::Object(resource));
    }

    fn add(&mut self, path: &str, kind: &str, name: &str, properties: Value) {
        let id = path.rsplit('/').next().unwrap_or(path);
        let mut resource =
            json!({"@odata.id": path, "@odata.type": format!("#{kind}"), "Id": id, "Name": name});
        if let (Value::Object(resource), Value::Object(properties)) = (&mut resource, properties) {
            resource.extend(properties);
        }
        self.changed.insert(path.to_owned(), resource);
    }

    fn add_collection(&mut self, path: &str, kind: &str, members: &[String]) {
        let members: Vec<Value> = members.iter().map(|member| json!({"@odata.id": member})).collect();
        self.changed.insert(
            path.to_owned(),
            json!({"@odata.id": path, "@odata.type": format!("#{kind}.{kind}"), "Name": kind,
                "Members@odata.count": members.len(), "Members": members}),
        );
    }

    /// The resource that a property links to; made where there is none.
    fn linked(&mut self, owner: &str, property: &str, kind: &str, segment: &str) -> String {
        let link = self.get(owner).and_then(|value| Some(reference(value.get(property)?)?.to_owned()));
        if let Some(path) = link.map(|link| canonical(&link).to_owned())
            && self.get(&path).is_some()
        {
            return path;
        }
        let path = format!("{owner}/{segment}");
        if kind.ends_with("Collection") {
            self.add_collection(&path, kind, &[]);
        } else {
            self.add(&path, kind, segment, json!({}));
        }
        self.edit(owner, |owner| {
            owner.insert(property.to_owned(), json!({"@odata.id": path}));
        });
        path
    }

    /// The manager that the system names (quirk 23: some name none), else the one that names the system, else the first.
    fn manager_of(&mut self, system: &str) -> String {
        let value = self.get(system).unwrap_or_default();
        let named =
            value.pointer("/Links/ManagedBy/0").and_then(reference).map(|id| canonical(id).to_owned());
        let all: Vec<String> = self
            .get(MANAGERS)
            .iter()
            .flat_map(members)
            .filter_map(|member| Some(canonical(reference(member)?).to_owned()))
            .collect();
        let manages = |path: &&String| {
            self.get(path)
                .and_then(|manager| manager.pointer("/Links/ManagerForServers").cloned())
                .and_then(|servers| servers.as_array().cloned())
                .is_some_and(|servers| servers.iter().any(|s| reference(s).map(canonical) == Some(system)))
        };
        let found = named
            .filter(|path| self.get(path).is_some())
            .or_else(|| all.iter().find(manages).cloned())
            .or_else(|| all.first().cloned().filter(|path| self.get(path).is_some()));
        if let Some(found) = found {
            return found;
        }
        let manager = format!("{MANAGERS}/BMC");
        self.add(
            &manager,
            "Manager.v1_14_0.Manager",
            "Manager",
            json!({"ManagerType": "BMC", "Links": {"ManagerForServers": [{"@odata.id": system}]}}),
        );
        self.add_collection(MANAGERS, "ManagerCollection", std::slice::from_ref(&manager));
        self.edit(ROOT, |root| {
            root.insert("Managers".to_owned(), json!({"@odata.id": MANAGERS}));
        });
        manager
    }

    /// The slots of the manager and of the system; a CD and a USB stick of the manager are made where there is none.
    fn media_of(&mut self, system: &str, manager: &str) -> Vec<String> {
        let collection = self.linked(manager, "VirtualMedia", "VirtualMediaCollection", "VirtualMedia");
        let mut slots = self.slots(&collection);
        for (segment, name, kinds) in
            [("Cd", "Virtual CD", json!(["CD", "DVD"])), ("Usb", "Virtual USB", json!(["USBStick"]))]
        {
            let of_kind = |slot: &String| {
                self.get(slot).is_some_and(|slot| {
                    let has = slot["MediaTypes"].as_array().cloned().unwrap_or_default();
                    has.iter().any(|kind| kinds.as_array().is_some_and(|kinds| kinds.contains(kind)))
                })
            };
            if slots.iter().any(of_kind) {
                continue;
            }
            let slot = format!("{collection}/{segment}");
            self.add(&slot, "VirtualMedia.v1_3_0.VirtualMedia", name, json!({"MediaTypes": kinds}));
            slots.push(slot);
        }
        self.edit(&collection, |collection| {
            let members: Vec<Value> = slots.iter().map(|slot| json!({"@odata.id": slot})).collect();
            collection.insert("Members@odata.count".to_owned(), json!(members.len()));
            collection.insert("Members".to_owned(), json!(members));
        });
        let of_system = self.get(system).and_then(|s| Some(reference(s.get("VirtualMedia")?)?.to_owned()));
        if let Some(of_system) = of_system {
            slots.extend(self.slots(canonical(&of_system)));
        }
        for slot in &slots {
            self.edit(slot, |resource| {
                let actions = json!({
                    "#VirtualMedia.InsertMedia": {"target": format!("{slot}/Actions/VirtualMedia.InsertMedia")},
                    "#VirtualMedia.EjectMedia": {"target": format!("{slot}/Actions/VirtualMedia.EjectMedia")},
                });
                resource.insert("Actions".to_owned(), actions);
                for (property, value) in [
                    ("Image", Value::Null),
                    ("ImageName", Value::Null),
                    ("Inserted", json!(false)),
                    ("WriteProtected", json!(true)),
                    ("ConnectedVia", json!("NotConnected")),
                ] {
                    resource.insert(property.to_owned(), value);
                }
            });
        }
        slots
    }

    fn slots(&self, collection: &str) -> Vec<String> {
        let collection = self.get(collection).unwrap_or_default();
        let slots = members(&collection).filter_map(|member| Some(canonical(reference(member)?).to_owned()));
        slots.filter(|slot| self.get(slot).is_some()).collect()
    }

    fn settings_of(&mut self, bios: &str) -> String {
        let named = self.get(bios).and_then(|bios| {
            let object = bios.pointer("/@Redfish.Settings/SettingsObject")?;
            Some(canonical(reference(object)?).to_owned())
        });
        let path = named.unwrap_or_else(|| format!("{bios}/Settings"));
        if self.get(&path).is_none() {
            self.add(&path, "Bios.v1_2_0.Bios", "BIOS settings for the next boot", json!({}));
        }
        self.edit(&path, |settings| {
            settings.insert("Attributes".to_owned(), json!({}));
        });
        self.edit(bios, |bios| {
            bios.entry("Attributes").or_insert_with(|| json!({}));
            bios.insert(
                "@Redfish.Settings".to_owned(),
                json!({"@odata.type": "#Settings.v1_3_5.Settings", "SettingsObject": {"@odata.id": path},
                    "SupportedApplyTimes": ["OnReset"]}),
            );
        });
        path
    }

    fn prepare_system(&mut self, system: &str, manager: &str) {
        let processors = self.linked(system, "Processors", "ProcessorCollection", "Processors");
        if members(&self.get(&processors).unwrap_or_default()).next().is_none() {
            let path = format!("{processors}/CPU0");
            let cpu = json!({"ProcessorType": "CPU", "TotalCores": 16, "TotalThreads": 32});
            self.add(&path, "Processor.v1_13_0.Processor", "CPU0", cpu);
            self.add_collection(&processors, "ProcessorCollection", &[path]);
        }
        let kind = "EthernetInterfaceCollection";
        let interfaces = self.linked(system, "EthernetInterfaces", kind, "EthernetInterfaces");
        if members(&self.get(&interfaces).unwrap_or_default()).next().is_none() {
            let path = format!("{interfaces}/eth0");
            let interface = json!({"MACAddress": "{{mac host0}}", "LinkStatus": "LinkUp"});
            self.add(&path, "EthernetInterface.v1_9_0.EthernetInterface", "eth0", interface);
            self.add_collection(&interfaces, kind, &[path]);
        }
        self.edit(system, |value| {
            value.entry("PowerState").or_insert_with(|| json!("On"));
            value.insert("BootProgress".to_owned(), json!({"LastState": "None"}));
            let memory = value.entry("MemorySummary").or_insert(Value::Null);
            if !memory["TotalSystemMemoryGiB"].is_number() {
                *memory = json!({"TotalSystemMemoryGiB": 64});
            }
            if !value.get("Links").is_some_and(Value::is_object) {
                value.insert("Links".to_owned(), json!({}));
            }
            value["Links"]["ManagedBy"] = json!([{"@odata.id": manager}]);
            prepare_boot(value.entry("Boot").or_insert(Value::Null));
            let target = format!("{system}/Actions/ComputerSystem.Reset");
            if !value.get("Actions").is_some_and(Value::is_object) {
                value.insert("Actions".to_owned(), json!({}));
            }
            value["Actions"]["#ComputerSystem.Reset"] = json!({"target": target,
                "ResetType@Redfish.AllowableValues":
                    ["On", "ForceOff", "GracefulShutdown", "ForceRestart", "GracefulRestart", "PowerCycle"]});
        });
        if self.get(SYSTEMS).is_none() {
            self.add_collection(SYSTEMS, "ComputerSystemCollection", &[system.to_owned()]);
        }
    }

    fn prepare_manager(&mut self, manager: &str) {
        self.edit(manager, |value| {
            value.insert("DateTime".to_owned(), json!("1970-01-01T00:00:00Z"));
            value.insert("DateTimeLocalOffset".to_owned(), json!("+00:00"));
            if !value.get("Actions").is_some_and(Value::is_object) {
                value.insert("Actions".to_owned(), json!({}));
            }
            value["Actions"]["#Manager.Reset"] = json!({"target": format!("{manager}/Actions/Manager.Reset"),
                "ResetType@Redfish.AllowableValues": ["ForceRestart", "GracefulRestart"]});
        });
    }

    /// The accounts themselves are worked out when they are read.
    fn prepare_accounts(&mut self) {
        let service =
            self.linked(ROOT, "AccountService", "AccountService.v1_11_0.AccountService", "AccountService");
        self.linked(&service, "Accounts", "ManagerAccountCollection", "Accounts");
    }
}

fn prepare_boot(boot: &mut Value) {
    if !boot.is_object() {
        *boot = json!({});
    }
    for (property, value) in [
        ("BootSourceOverrideEnabled", json!("Disabled")),
        ("BootSourceOverrideTarget", json!("None")),
        ("BootSourceOverrideTarget@Redfish.AllowableValues", json!(TARGETS)),
    ] {
        boot[property] = value;
    }
    if !boot["BootSourceOverrideMode"].is_string() {
        boot["BootSourceOverrideMode"] = json!("UEFI");
    }
}

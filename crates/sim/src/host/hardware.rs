//! What an agent finds in its machine: the same hardware that the BMC shows.

use serde_json::{Value, json};

use crate::bmc::Bmc;
use crate::tree::{NEXT_LINK, canonical, members, reference};

/// The hardware of a host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hardware {
    pub(crate) manufacturer: String,
    pub(crate) model: String,
    pub(crate) serial: String,
    pub(crate) uuid: String,
    pub(crate) macs: Vec<String>,
    pub(crate) disks: Vec<Device>,
    pub(crate) gpus: Vec<Device>,
    pub(crate) tpm: bool,
    cpu_model: String,
    threads: u64,
    memory_mib: u64,
    firmware: String,
}

/// A part that can be erased.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) serial: String,
    model: String,
    bytes: u64,
}

/// Members read of one collection at most, and pages: a page may link to itself (facts §5).
const MEMBERS: usize = 1000;
const PAGES: usize = 100;

impl Hardware {
    #[cfg(test)]
    pub(crate) fn with_tpm() -> Self {
        Self { tpm: true, ..Self::default() }
    }

    pub(crate) fn read(bmc: &Bmc) -> Self {
        let boots = bmc.tree().boot_paths().map(|paths| paths.system.clone());
        let Some(path) = boots.or_else(|| bmc.tree().host_system()) else { return Self::default() };
        let system = bmc.resource(&path).unwrap_or_default();
        let below = |property: &str| collection(bmc, system.get(property).and_then(reference));
        let processors = below("Processors");
        let cpus: Vec<&Value> = processors.iter().filter(|cpu| cpu["ProcessorType"] == "CPU").collect();
        let trusted = system["TrustedModules"].as_array().cloned().unwrap_or_default();
        let mut macs: Vec<String> =
            below("EthernetInterfaces").iter().map(|nic| text(nic, "MACAddress")).collect();
        macs.retain(|mac| mac.len() == 17);
        macs.dedup();
        Self {
            manufacturer: text(&system, "Manufacturer"),
            model: text(&system, "Model"),
            serial: text(&system, "SerialNumber"),
            uuid: text(&system, "UUID"),
            macs,
            disks: disks(bmc, &below("Storage")),
            gpus: gpus(bmc),
            tpm: trusted.iter().any(|module| module["Status"]["State"] != "Absent"),
            cpu_model: cpus.first().map(|cpu| text(cpu, "Model")).unwrap_or_default(),
            threads: cpus.iter().filter_map(|cpu| cpu["TotalThreads"].as_u64()).sum(),
            memory_mib: mebibytes(&system["MemorySummary"]["TotalSystemMemoryGiB"]),
            firmware: text(&system, "BiosVersion"),
        }
    }

    /// As ironic-python-agent posts it to `continue_inspection`.
    pub(crate) fn inventory(&self) -> Value {
        let interfaces: Vec<Value> = self.macs.iter().enumerate().map(|(n, mac)| interface(n, mac)).collect();
        let disks: Vec<Value> = self.disks.iter().map(Device::inventory).collect();
        json!({
            "inventory": {
                "interfaces": interfaces,
                "cpu": {"model_name": self.cpu_model, "count": self.threads, "architecture": "x86_64", "frequency": "0", "flags": []},
                "memory": {"total": self.memory_mib << 20, "physical_mb": self.memory_mib},
                "disks": disks,
                "system_vendor": {"manufacturer": self.manufacturer, "product_name": self.model, "serial_number": self.serial,
                    "firmware": {"version": self.firmware}},
                "boot": {"current_boot_mode": "uefi", "pxe_interface": self.macs.first()},
                "bmc_address": "0.0.0.0",
                "hostname": "ironic-agent",
            },
            "root_disk": disks.first(),
            "boot_interface": self.macs.first(),
        })
    }
}

impl Device {
    pub(crate) fn tpm() -> Self {
        Self { name: "TPM".to_owned(), serial: String::new(), model: String::new(), bytes: 0 }
    }

    fn inventory(&self) -> Value {
        json!({"name": self.name, "model": self.model, "size": self.bytes, "rotational": false, "serial": self.serial, "wwn": null,
            "vendor": null, "by_path": null})
    }
}

fn interface(n: usize, mac: &str) -> Value {
    // TEST-NET-1: an address that nothing has.
    json!({"name": format!("eth{n}"), "mac_address": mac, "ipv4_address": format!("192.0.2.{}", 10 + n % 240), "has_carrier": true,
        "lldp": [], "vendor": null, "product": null, "biosdevname": null, "client_id": null, "speed_mbps": null})
}

fn disks(bmc: &Bmc, storage: &[Value]) -> Vec<Device> {
    let drives = storage.iter().flat_map(|controller| controller["Drives"].as_array().into_iter().flatten());
    let drives = drives.filter_map(reference).take(MEMBERS).filter_map(|path| bmc.resource(path));
    let present = drives.filter(|drive| drive["Status"]["State"] != "Absent");
    let mut disks: Vec<Device> = present
        .enumerate()
        .map(|(n, drive)| Device {
            name: format!("/dev/nvme{n}n1"),
            serial: text(&drive, "SerialNumber"),
            model: text(&drive, "Model"),
            bytes: drive["CapacityBytes"].as_u64().unwrap_or_default(),
        })
        .collect();
    if disks.is_empty() {
        // A machine that shows no drive boots from something all the same.
        let serial = "UNSHOWN".to_owned();
        disks.push(Device { name: "/dev/sda".to_owned(), serial, model: String::new(), bytes: 480 << 30 });
    }
    disks
}

/// GPUs are processors of any system: of a DGX, of the baseboard's (facts §6).
fn gpus(bmc: &Bmc) -> Vec<Device> {
    let systems = collection(bmc, Some("/redfish/v1/Systems"));
    let processors =
        systems.iter().flat_map(|system| collection(bmc, system.get("Processors").and_then(reference)));
    let gpus = processors.filter(|processor| processor["ProcessorType"] == "GPU");
    gpus.enumerate()
        .map(|(n, gpu)| Device {
            name: format!("GPU {n}"),
            serial: text(&gpu, "SerialNumber"),
            model: text(&gpu, "Model"),
            bytes: 0,
        })
        .collect()
}

/// The members of a collection, of all its pages.
fn collection(bmc: &Bmc, path: Option<&str>) -> Vec<Value> {
    let (mut out, mut page) = (Vec::new(), path.map(|path| canonical(path).to_owned()));
    for _ in 0..PAGES {
        let Some(value) = page.take().and_then(|path| bmc.resource(&path)) else { break };
        let found = members(&value).filter_map(reference).filter_map(|path| bmc.resource(path));
        out.extend(found.take(MEMBERS - out.len()));
        page = value.get(NEXT_LINK).and_then(Value::as_str).map(str::to_owned);
    }
    // Recorded pages repeat members (facts §5).
    let mut seen = std::collections::HashSet::new();
    out.retain(|value| value.get("@odata.id").is_none_or(|id| seen.insert(id.to_string())));
    out
}

fn text(resource: &Value, property: &str) -> String {
    resource.get(property).and_then(Value::as_str).unwrap_or_default().trim().to_owned()
}

fn mebibytes(gibibytes: &Value) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // Some write a fraction; no machine has so much memory that it would not fit.
    let mebibytes = gibibytes.as_f64().map(|gib| (gib * 1024.0).max(0.0) as u64);
    mebibytes.unwrap_or_default()
}

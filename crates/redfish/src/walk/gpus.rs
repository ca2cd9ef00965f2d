//! Where GPUs are looked for: processors of every system, what they link to, the vendor's own list, graphics controllers; and
//! PCIe devices only where no processor names the GPUs (§6 of the Redfish facts).

use std::collections::{BTreeMap, BTreeSet};

use domain::inventory::Processor;
use serde_json::Value;

use crate::decode::{Node, bare_path, last_segment, source_path};
use crate::gpu::{Natural, View, ViewKind};
use crate::quirks::is_bare_chassis;
use crate::reader::Reader;
use crate::walk::{Landscape, Shared, Walk};

/// What a Processor resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessorKind {
    Cpu,
    Gpu,
    Other,
}

/// Processors of a machine, told apart.
#[derive(Default)]
pub(crate) struct Processors {
    /// CPUs of the host, or of the other systems if the host lists none.
    pub(crate) cpus: Vec<Processor>,
    /// GPUs of every system.
    pub(crate) gpus: Vec<Shared>,
    /// How many processors of any kind say that they are in a chassis, by its path.
    users: BTreeMap<String, usize>,
}

impl<R: Reader> Walk<'_, R> {
    pub(crate) async fn processors(&self, landscape: &Landscape) -> Processors {
        let systems = landscape.systems_host_first();
        let lists = futures_util::future::join_all(systems.iter().map(|system| async {
            match self.node(system).link("Processors") {
                Some(uri) => self.members(&uri).await,
                None => Vec::new(),
            }
        }))
        .await;
        let mut found = Processors::default();
        let mut paths = BTreeSet::new();
        for list in lists {
            let mut cpus = Vec::new();
            for resource in list {
                let node = self.node(&resource);
                if node.is_absent() || !paths.insert(source_path(&resource.uri).to_owned()) {
                    continue;
                }
                if let Some(chassis) = node.child("Links").and_then(|links| links.link("Chassis")) {
                    *found.users.entry(bare_path(&chassis).to_owned()).or_default() += 1;
                }
                match processor_kind(&node) {
                    ProcessorKind::Cpu => cpus.push(cpu(&node)),
                    ProcessorKind::Gpu => found.gpus.push(resource),
                    ProcessorKind::Other => {}
                }
            }
            // a baseboard that lists the host's CPUs again is not a second set of CPUs
            if found.cpus.is_empty() {
                cpus.sort_by_cached_key(|cpu| Natural(cpu.id.clone()));
                found.cpus = cpus;
            }
        }
        found
    }

    /// Every view of every GPU.
    pub(crate) async fn gpu_views(&self, landscape: &Landscape, processors: &Processors) -> Vec<View> {
        let (mut views, graphics, vendor) = tokio::join!(
            self.processor_views(landscape, processors),
            self.graphics_views(landscape),
            self.vendor_views(landscape),
        );
        views.extend(graphics);
        views.extend(vendor);
        if processors.gpus.is_empty() {
            views.extend(self.device_views(landscape).await);
            if views.is_empty() {
                views.extend(self.lone_chassis_views(landscape));
            }
        }
        views
    }

    /// GPU processors, and the PCIe devices and chassis that they link to.
    async fn processor_views(&self, landscape: &Landscape, processors: &Processors) -> Vec<View> {
        let mut views = Vec::new();
        let mut devices: BTreeSet<String> = BTreeSet::new();
        for resource in &processors.gpus {
            let node = self.node(resource);
            let mut view = standard_view(ViewKind::Processor, &node);
            if let Some(links) = node.child("Links") {
                // one link in the schema up to 1.7, an array of links seen as well
                let linked = links.link("PCIeDevice").into_iter().chain(links.links("PCIeDevices"));
                for device in linked {
                    devices.insert(device.clone());
                    view.links.push(device);
                }
                let alone = |chassis: &String| processors.users.get(bare_path(chassis)) == Some(&1);
                view.links.extend(links.link("Chassis").filter(alone));
            }
            views.push(view);
        }
        let chassis = self.chassis_views(landscape, &views);
        // a module that holds one GPU lists its PCIe device, also where the processor does not
        if devices.is_empty() {
            let is_one = |module: &&Shared| chassis.iter().any(|view| view.path == bare_path(&module.uri));
            for module in landscape.chassis.iter().filter(is_one) {
                if let Some(uri) = self.node(module).link("PCIeDevices") {
                    devices.extend(self.member_links(&uri).await);
                }
            }
        }
        let devices = self.read_all(&devices.into_iter().collect::<Vec<_>>()).await;
        for device in &devices {
            let node = self.node(device);
            if !node.is_absent() {
                let mut view = standard_view(ViewKind::Device, &node);
                // Chassis/HGX_GPU_1/PCIeDevices/X: what stands in a module that holds one GPU is that GPU
                view.links.extend(
                    chassis
                        .iter()
                        .map(|module| &module.path)
                        .filter(|module| is_inside(&device.uri, module))
                        .cloned(),
                );
                views.push(view);
            }
        }
        views.extend(chassis);
        views
    }

    /// Chassis that hold exactly one of the GPUs: linked both ways, or by name, and no enclosure.
    fn chassis_views(&self, landscape: &Landscape, gpus: &[View]) -> Vec<View> {
        let mut views = Vec::new();
        for resource in &landscape.chassis {
            let node = self.node(resource);
            let kind = node.text("ChassisType").unwrap_or_default();
            if !is_module(&kind) || node.is_absent() {
                continue;
            }
            let links = node.child("Links");
            let processors = links.as_ref().map(|links| links.links("Processors")).unwrap_or_default();
            // a module with a CPU beside the GPU (GH200), or with modules of its own, is more than a GPU
            let holds_more = links.as_ref().is_some_and(|links| {
                links.links("Contains").iter().any(|inner| !is_bare_chassis(last_segment(inner)))
            });
            if processors.len() > 1 || holds_more {
                continue;
            }
            let is_of = |gpu: &&View| {
                let to = |links: &[String], path: &str| {
                    links.iter().any(|link| bare_path(link) == bare_path(path))
                };
                to(&gpu.links, &resource.uri)
                    || to(&processors, &gpu.path)
                    || node.id().eq_ignore_ascii_case(&format!("HGX_{}", gpu.id))
            };
            let mut holders = gpus.iter().filter(is_of);
            if let (Some(gpu), None) = (holders.next(), holders.next()) {
                let mut view = standard_view(ViewKind::Chassis, &node);
                view.links.push(gpu.path.clone());
                views.push(view);
            }
        }
        views
    }

    /// Graphics controllers, unless they are the BMC's own video.
    async fn graphics_views(&self, landscape: &Landscape) -> Vec<View> {
        let mut views = Vec::new();
        for system in landscape.systems_host_first() {
            let Some(uri) = self.node(system).link("GraphicsControllers") else { continue };
            for resource in self.members(&uri).await {
                let node = self.node(&resource);
                let mut view = standard_view(ViewKind::Graphics, &node);
                view.firmware_version = view.firmware_version.or_else(|| node.identifier("BiosVersion"));
                if let Some(links) = node.child("Links") {
                    view.links.extend(links.links("Processors"));
                    view.links.extend(links.link("PCIeDevice"));
                }
                // the BMC's own video has no serial number and no processor
                let is_card = view.serial.is_some() || view.uuid.is_some() || !view.links.is_empty();
                if is_card && !node.is_absent() && !is_management_video(&node) {
                    views.push(view);
                }
            }
        }
        views
    }

    /// The vendor's own list of GPUs (Dell: DellVideo), from the link that the system has to it.
    async fn vendor_views(&self, landscape: &Landscape) -> Vec<View> {
        let (Some(host), Some(trail)) = (landscape.host(), landscape.profile.gpu_collection) else {
            return Vec::new();
        };
        let Some((last, before)) = trail.split_last() else { return Vec::new() };
        let Some(uri) = self.node(host).descend(before).and_then(|node| node.link(last)) else {
            return Vec::new();
        };
        let mut views = Vec::new();
        for resource in self.members(&uri).await {
            let node = self.node(&resource);
            let vendor = node.text("PCIVendorID").and_then(|id| hex_id(&id));
            if !vendor.is_some_and(|id| GPU_VENDORS.contains(&id)) || is_management_video(&node) {
                continue;
            }
            let mut view = View::new(ViewKind::Vendor, source_path(&resource.uri), node.id());
            view.model = node.identifier("MarketingName");
            view.manufacturer = node.identifier("Manufacturer");
            view.serial = node.identifier("SerialNumber");
            view.part_number = node.identifier("BoardPartNumber");
            view.firmware_version = node.identifier("FirmwareVersion");
            view.pci_address = pci_address(&node);
            views.push(view);
        }
        views
    }

    /// PCIe devices that are GPUs, where no processor names the GPUs (Supermicro).
    async fn device_views(&self, landscape: &Landscape) -> Vec<View> {
        let mut links: BTreeSet<String> = BTreeSet::new();
        for chassis in &landscape.chassis {
            let node = self.node(chassis);
            links.extend(self.listed(&node, "PCIeDevices").await);
            if let Some(node) = node.child("Links") {
                links.extend(node.links("PCIeDevices"));
            }
        }
        for system in landscape.systems_host_first() {
            links.extend(self.listed(&self.node(system), "PCIeDevices").await);
        }
        let mut paths: BTreeMap<String, String> = BTreeMap::new();
        for link in links {
            paths.entry(bare_path(&link).to_owned()).or_insert(link);
        }
        let limit = self.options.max_pcie_devices;
        if paths.len() > limit {
            self.log.note(
                "redfish.walk.limit",
                "/redfish/v1",
                format!("{} PCIe devices; the first {limit} were read", paths.len()),
            );
        }
        let wanted: Vec<String> = paths.into_values().take(limit).collect();
        let devices = self.read_all(&wanted).await;
        let views = devices.iter().map(|device| self.device_view(device));
        futures_util::future::join_all(views).await.into_iter().flatten().collect()
    }

    /// What a field lists: an array of links in a system, a collection in a chassis; both are seen in either.
    pub(crate) async fn listed(&self, node: &Node<'_>, field: &str) -> Vec<String> {
        match node.body().get(field) {
            Some(Value::Array(_)) => node.links(field),
            Some(Value::Object(_)) => match node.link(field) {
                Some(uri) => self.member_links(&uri).await,
                None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    async fn device_view(&self, device: &Shared) -> Option<View> {
        let node = self.node(device);
        if node.is_absent() || is_management_video(&node) || !may_be_gpu(&node) {
            return None;
        }
        let functions = self.functions(&node).await;
        let nodes = crate::identity::nodes(&functions, &self.log);
        if nodes.iter().any(is_management_video) {
            return None;
        }
        let classes: Vec<PciClass> = nodes.iter().filter_map(pci_class).collect();
        // what the functions say counts; names only where they say nothing ("…DW/SW GPU" may be a riser's PCIe switch)
        let is_gpu =
            if classes.is_empty() { is_named_gpu(&node) } else { classes.iter().any(PciClass::is_gpu) };
        let mut view = standard_view(ViewKind::Device, &node);
        view.pci_address = view.pci_address.or_else(|| nodes.iter().find_map(pci_address));
        is_gpu.then_some(view)
    }

    async fn functions(&self, device: &Node<'_>) -> Vec<Shared> {
        let mut links = device.child("Links").map(|links| links.links("PCIeFunctions")).unwrap_or_default();
        if links.is_empty() {
            links = self.listed(device, "PCIeFunctions").await;
        }
        self.read_all(&links).await
    }

    /// GPU modules where nothing else shows a GPU at all.
    fn lone_chassis_views(&self, landscape: &Landscape) -> Vec<View> {
        let mut views = Vec::new();
        for resource in &landscape.chassis {
            let node = self.node(resource);
            let id = node.id().to_ascii_uppercase();
            let numbered = id.rsplit('_').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
            let kind = node.text("ChassisType").unwrap_or_default();
            if id.starts_with("HGX_GPU_") && numbered && is_module(&kind) && !node.is_absent() {
                views.push(standard_view(ViewKind::Chassis, &node));
            }
        }
        views
    }
}

/// What Processor, PCIeDevice, GraphicsController and Chassis have in common.
fn standard_view(kind: ViewKind, node: &Node<'_>) -> View {
    let mut view = View::new(kind, source_path(node.path()), node.id());
    view.model = node.identifier("Model");
    view.manufacturer = node.identifier("Manufacturer");
    view.serial = node.identifier("SerialNumber");
    view.uuid = node.uuid("UUID");
    view.part_number = node.identifier("PartNumber");
    view.firmware_version = node.identifier("FirmwareVersion");
    view.pci_address = pci_address(node);
    view.location = location(node);
    view
}

fn cpu(node: &Node<'_>) -> Processor {
    let count =
        |field| node.whole(field).filter(|count| *count > 0).and_then(|count| u32::try_from(count).ok());
    Processor {
        id: node.id(),
        model: node.identifier("Model"),
        cores: count("TotalCores").or_else(|| count("TotalEnabledCores")),
        threads: count("TotalThreads"),
    }
}

/// What a Processor resource is. Enumerations are read leniently (quirk 13); without a type, its other fields decide.
pub(crate) fn processor_kind(node: &Node<'_>) -> ProcessorKind {
    let kind = node.text("ProcessorType").map(|kind| kind.to_ascii_lowercase());
    let id = node.id().to_ascii_lowercase();
    match kind.as_deref() {
        Some("cpu" | "processor" | "centralprocessor") => ProcessorKind::Cpu,
        Some("gpu" | "graphicsprocessor") => {
            if is_management_video(node) {
                ProcessorKind::Other
            } else {
                ProcessorKind::Gpu
            }
        }
        Some("accelerator" | "oem") if is_named_gpu(node) => ProcessorKind::Gpu,
        None if id.starts_with("gpu") => ProcessorKind::Gpu,
        None if id.starts_with("cpu") || node.has("InstructionSet") || node.has("ProcessorArchitecture") => {
            ProcessorKind::Cpu
        }
        None if node.whole("TotalCores").is_some() && node.whole("TotalThreads").is_some() => {
            ProcessorKind::Cpu
        }
        _ => ProcessorKind::Other,
    }
}

/// A chassis that may hold one GPU and nothing else; an enclosure never is a GPU.
fn is_module(kind: &str) -> bool {
    ["module", "card", "component", "cartridge", ""].iter().any(|known| kind.eq_ignore_ascii_case(known))
}

fn is_inside(path: &str, chassis: &str) -> bool {
    bare_path(path).strip_prefix(bare_path(chassis)).is_some_and(|rest| rest.starts_with('/'))
}

/// The service label, or the slot as the BMC describes it.
fn location(node: &Node<'_>) -> Option<String> {
    let places = [&["Location"][..], &["PhysicalLocation"], &["Slot", "Location"]];
    let label = |place: &Node<'_>| place.child("PartLocation").and_then(|part| part.text("ServiceLabel"));
    let found: Vec<Node<'_>> = places.iter().filter_map(|trail| node.descend(trail)).collect();
    found.iter().find_map(label).or_else(|| found.iter().find_map(|place| place.text("Info")))
}

/// PCI vendors that make GPUs: NVIDIA, AMD, Intel.
const GPU_VENDORS: &[u64] = &[0x10de, 0x1002, 0x8086];
/// PCI vendors of BMC video: ASPEED, Matrox, and HPE's iLO.
const VIDEO_VENDORS: &[u64] = &[0x1a03, 0x102b, 0x103c, 0x1590];
/// Words in names of BMC video.
const VIDEO_WORDS: &[&str] =
    &["aspeed", "ast2", "matrox", "g200", "ilo ", "pilot", "nuvoton", "embedded video", "onboard video"];
/// Words in names of what stands beside GPUs and is none.
const OTHER_WORDS: &[&str] = &[
    "bluefield",
    "connectx",
    "dpu",
    "nvswitch",
    "nvlink",
    "switch",
    "bridge",
    "retimer",
    "fpga",
    "ethernet",
    "network",
    "infiniband",
    "nvme",
    "sata",
    "raid",
    "storage",
    "usb",
    "root port",
    "ssd",
    "nic ",
];
/// Product names of data-centre GPUs.
const GPU_WORDS: &[&str] = &[
    "gpu", "h100", "h200", "h800", "h20", "b100", "b200", "b300", "gb200", "gb300", "gh200", "a100", "a800",
    "a10", "a16", "a2", "a30", "a40", "l4", "l20", "l40", "l40s", "t4", "p100", "p40", "v100", "tesla",
    "rtx", "quadro", "instinct", "mi100", "mi210", "mi250", "mi250x", "mi300a", "mi300x", "mi325x", "mi350x",
    "mi355x", "radeon",
];

fn words_of(node: &Node<'_>) -> String {
    let fields = ["Manufacturer", "Model", "Name", "Description"];
    let texts: Vec<String> = fields
        .iter()
        .filter_map(|field| node.body().get(*field)?.as_str().map(str::to_ascii_lowercase))
        .collect();
    format!("{} ", texts.join(" "))
}

/// The BMC's own video is no GPU.
fn is_management_video(node: &Node<'_>) -> bool {
    let vendor = ["VendorId", "PCIVendorID"]
        .iter()
        .find_map(|field| node.body().get(*field)?.as_str())
        .and_then(hex_id);
    let words = words_of(node);
    vendor.is_some_and(|id| VIDEO_VENDORS.contains(&id))
        || VIDEO_WORDS.iter().any(|word| words.contains(word))
}

/// Whether a PCIe device is worth a look at its functions.
fn may_be_gpu(node: &Node<'_>) -> bool {
    let words = words_of(node);
    is_named_gpu(node) || !OTHER_WORDS.iter().any(|word| words.contains(word))
}

/// Whether a device calls itself a GPU, by its id or a product name.
fn is_named_gpu(node: &Node<'_>) -> bool {
    let id = node.id().to_ascii_lowercase();
    let words = words_of(node);
    if ["bluefield", "connectx", "nvswitch", "retimer", "riser", "fpga"]
        .iter()
        .any(|word| words.contains(word))
    {
        return false;
    }
    let numbered = id.strip_prefix("gpu").is_some_and(|rest| {
        rest.trim_start_matches(['_', '-', '.'])
            .trim_start_matches("sxm")
            .trim_start_matches('_')
            .chars()
            .all(|c| c.is_ascii_digit())
    });
    let typed = node
        .body()
        .get("DeviceType")
        .and_then(Value::as_str)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("GPU"));
    let model = node.body().get("Model").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    // "A2" or "T4" may be anything's revision: short names count beside the maker's only
    let made_by = ["nvidia", "amd ", "advanced micro"].iter().any(|maker| words.contains(maker));
    let named = model
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| GPU_WORDS.contains(&word) && (made_by || word.len() > 3));
    numbered || typed || named
}

/// Base class and subclass of a PCI function, and its vendor.
struct PciClass {
    base: Option<u64>,
    device_class: String,
    vendor: Option<u64>,
}

impl PciClass {
    fn is_gpu(&self) -> bool {
        let known = self.vendor.is_none_or(|vendor| GPU_VENDORS.contains(&vendor));
        let display = self.base == Some(0x03) || self.device_class == "displaycontroller";
        // NVIDIA and AMD accelerators; Intel's of this class are no GPUs (QAT, DSA)
        let accelerates = ["processingaccelerators", "coprocessor"].contains(&self.device_class.as_str());
        let accelerator = (matches!(self.base, Some(0x0b | 0x12)) || accelerates)
            && self.vendor.is_some_and(|vendor| matches!(vendor, 0x10de | 0x1002));
        known && (display || accelerator)
    }
}

fn pci_class(function: &Node<'_>) -> Option<PciClass> {
    let id = |field| function.text(field).and_then(|id| hex_id(&id)).filter(|id| *id > 0);
    let device_class = function.text("DeviceClass").unwrap_or_default().to_ascii_lowercase();
    // 0xBBSSPP; Dell writes 0x0000BB
    let base = id("ClassCode").map(|code| match code {
        0x01_0000.. => code >> 16,
        0x0100..=0xffff => code >> 8,
        _ => code,
    });
    let says_nothing =
        ["", "other", "unclassifieddevice", "unassignedclass"].contains(&device_class.as_str());
    if says_nothing && base.is_none() {
        return None;
    }
    Some(PciClass { base, device_class, vendor: id("VendorId") })
}

fn hex_id(text: &str) -> Option<u64> {
    let bare = text.trim().trim_start_matches("0x").trim_start_matches("0X");
    u64::from_str_radix(bare, 16).ok()
}

/// The PCI address, where bus, device and function are told: in the resource, or in its vendor's part.
fn pci_address(node: &Node<'_>) -> Option<String> {
    let own = std::iter::once(node.clone());
    let oem = node.body().get("Oem").and_then(Value::as_object);
    let vendors = oem
        .into_iter()
        .flat_map(|oem| oem.keys())
        .filter_map(|vendor| node.descend(&["Oem", vendor.as_str()]));
    own.chain(vendors).find_map(|place| {
        if place.body().get("BusNumber").is_none_or(Value::is_null) {
            return None;
        }
        let bus = place.whole("BusNumber").filter(|bus| *bus <= 0xff)?;
        let device = place.whole("DeviceNumber").filter(|device| *device <= 0x1f)?;
        let function = place
            .whole("FunctionNumber")
            .or_else(|| place.whole("FunctionId"))
            .filter(|function| *function <= 7)?;
        let segment =
            ["SegmentNumber", "DomainNumber"].iter().find_map(|field| place.whole(field)).unwrap_or(0);
        // bus 0 holds no GPU: all zeros mean "not known"
        (bus > 0).then(|| format!("{segment:04x}:{bus:02x}:{device:02x}.{function:x}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::Log;

    fn with<T>(body: &Value, test: impl FnOnce(&Node<'_>) -> T) -> T {
        let log = Log::default();
        test(&Node::new(body, "/redfish/v1/X/1", &log))
    }

    #[test]
    fn quirk_13_a_processor_type_is_read_whatever_its_case() {
        let kind = |body: Value| with(&body, processor_kind);
        assert_eq!(kind(json!({"ProcessorType": " gpu "})), ProcessorKind::Gpu);
        assert_eq!(kind(json!({"ProcessorType": "Cpu"})), ProcessorKind::Cpu);
        assert_eq!(kind(json!({"ProcessorType": "Quantum"})), ProcessorKind::Other);
    }

    #[test]
    fn a_processor_without_type_is_told_by_its_other_fields() {
        let kind = |body: Value| with(&body, processor_kind);
        assert_eq!(kind(json!({"Id": "CPU_0", "ProcessorType": null})), ProcessorKind::Cpu);
        assert_eq!(kind(json!({"Id": "GPU_0"})), ProcessorKind::Gpu);
        assert_eq!(kind(json!({"Id": "1", "TotalCores": 8, "TotalThreads": 16})), ProcessorKind::Cpu);
        assert_eq!(kind(json!({"Id": "FPGA_0"})), ProcessorKind::Other);
    }

    #[test]
    fn the_class_code_is_read_in_both_byte_orders() {
        let gpu = |body: Value| with(&body, |node| pci_class(node).is_some_and(|class| class.is_gpu()));
        assert!(gpu(json!({"ClassCode": "0x030200", "VendorId": "0x10de"})));
        assert!(gpu(json!({"ClassCode": "0x000003", "VendorId": "0x10de"})));
        assert!(gpu(json!({"ClassCode": "0x120000", "VendorId": "0x1002"})));
        assert!(!gpu(json!({"ClassCode": "0x120000", "VendorId": "0x8086"})));
        assert!(!gpu(json!({"ClassCode": "0x020000", "VendorId": "0x15b3"})));
        assert!(!gpu(json!({"ClassCode": "0x030000", "VendorId": "0x1a03"})));
    }

    #[test]
    fn a_pci_address_needs_bus_device_and_function() {
        let address = |body: Value| with(&body, pci_address);
        assert_eq!(
            address(json!({"BusNumber": 23, "DeviceNumber": 0, "FunctionNumber": 0})).as_deref(),
            Some("0000:17:00.0")
        );
        assert_eq!(
            address(json!({"Oem": {"X": {"BusNumber": 1, "DeviceNumber": 2, "FunctionNumber": 3}}}))
                .as_deref(),
            Some("0000:01:02.3")
        );
        assert_eq!(address(json!({"BusNumber": 23})), None);
        assert_eq!(address(json!({"BusNumber": 0, "DeviceNumber": 0, "FunctionNumber": 0})), None);
    }
}

//! Where GPUs are looked for: processors of every system, what they link to, the vendor's own list, graphics controllers; and
//! PCIe devices only where no processor names the GPUs (§6 of the Redfish facts).

use std::collections::{BTreeMap, BTreeSet};

use domain::inventory::Processor;
use serde_json::Value;

use crate::decode::{Node, bare_path, last_segment, source_path};
use crate::gpu::{Natural, View, ViewKind};
use crate::quirks::is_bare_chassis;
use crate::reader::Reader;
use crate::walk::pci::{
    GPU_VENDORS, PciClass, hex_id, is_management_video, is_named_gpu, may_be_gpu, pci_address, pci_class,
};
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
    /// Whether a processor could not be read: it may have been a GPU.
    lost: bool,
}

impl<R: Reader> Walk<'_, R> {
    pub(crate) async fn processors(&self, landscape: &Landscape) -> Processors {
        let systems = landscape.systems_host_first();
        let lists = futures_util::future::join_all(systems.iter().map(|system| async {
            match self.node(system).link("Processors") {
                Some(uri) => {
                    let members = self.members(&uri).await;
                    (members, self.log.lost_below(bare_path(&uri)))
                }
                None => (Vec::new(), false),
            }
        }))
        .await;
        let mut found = Processors { lost: lists.iter().any(|(_, lost)| *lost), ..Processors::default() };
        let mut paths = BTreeSet::new();
        let mut host_cpus: Vec<(Option<String>, Processor)> = Vec::new();
        let mut twins: BTreeMap<String, Processor> = BTreeMap::new();
        for (list, _) in lists {
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
                    ProcessorKind::Cpu => cpus.push((node.identifier("SerialNumber"), cpu(&node))),
                    ProcessorKind::Gpu => found.gpus.push(resource),
                    ProcessorKind::Other => {}
                }
            }
            // a baseboard that lists the host's CPUs again is not a second set of CPUs, but may tell more of them
            if host_cpus.is_empty() {
                cpus.sort_by_cached_key(|(_, cpu)| Natural(cpu.id.clone()));
                host_cpus = cpus;
            } else {
                twins.extend(cpus.into_iter().filter_map(|(serial, cpu)| Some((serial?, cpu))));
            }
        }
        found.cpus = host_cpus
            .into_iter()
            .map(|(serial, cpu)| match serial.and_then(|serial| twins.remove(&serial)) {
                Some(twin) => completed(cpu, twin),
                None => cpu,
            })
            .collect();
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
        } else if processors.lost {
            // the GPU that could not be read shows as a device too; one that tells nothing of itself adds nothing
            views.extend(self.device_views(landscape).await.into_iter().filter(|view| !view.is_anonymous()));
        } else {
            views.extend(self.unlinked_device_views(landscape, &views).await);
        }
        views
    }

    /// PCIe devices of GPUs that processors name without linking to them (HPE): matched by what identifies both. They add what
    /// the processors do not say, and no GPUs.
    async fn unlinked_device_views(&self, landscape: &Landscape, views: &[View]) -> Vec<View> {
        let of_kind = |kind| views.iter().filter(move |view| view.kind == kind);
        if of_kind(ViewKind::Device).count() >= of_kind(ViewKind::Processor).count() {
            return Vec::new();
        }
        // nothing to match by: `GPU_0` may be found as a device by its name
        if of_kind(ViewKind::Processor).all(View::is_anonymous) {
            return self.device_views(landscape).await;
        }
        let devices = self.read_all(&self.device_links(landscape).await).await;
        let seen = devices.iter().map(|device| self.node(device)).filter(|node| !node.is_absent());
        seen.map(|node| standard_view(ViewKind::Device, &node))
            .filter(|device| of_kind(ViewKind::Processor).any(|gpu| gpu.shares_identity(device)))
            .collect()
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
        let devices = self.read_all(&self.device_links(landscape).await).await;
        let views = devices.iter().map(|device| self.device_view(device));
        futures_util::future::join_all(views).await.into_iter().flatten().collect()
    }

    /// The PCIe devices that chassis and systems list, each once.
    async fn device_links(&self, landscape: &Landscape) -> Vec<String> {
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
        paths.into_values().take(limit).collect()
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

/// A CPU with what another resource of the same CPU says in addition (GB200: only the baseboard knows the model).
fn completed(cpu: Processor, twin: Processor) -> Processor {
    Processor {
        id: cpu.id,
        model: cpu.model.or(twin.model),
        cores: cpu.cores.or(twin.cores),
        threads: cpu.threads.or(twin.threads),
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
}

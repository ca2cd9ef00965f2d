//! Reading a host's GPUs: from [`crate::source`] to [`Probe`]. One bad value costs one diagnostic, never a GPU.

use crate::Error;
use crate::health::{self, Lifelines, Xids};
use crate::host::HostRoot;
use crate::source::{
    Device, DriverText, Library, MAX_GPUS, MAX_NVLINKS, MIG_SLOTS, Number, PciId, Text, Told, Trouble,
};
use domain::probe::{
    Diagnostic, Driver, Limits, Mig, MigInstance, MigProfile, NvLink, Pci, Probe, ProbedGpu, Readings,
};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What a probe depends on beside the driver.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Where the kernel's files are.
    pub host: &'a HostRoot,
    /// The time, by the host's clock.
    pub now: Timestamp,
    /// The probe before this one: counters are held against it, and a GPU that fell off the bus keeps its identity.
    pub previous: Option<&'a Probe>,
}

/// The probe of a host whose driver cannot be asked: no GPUs, and one diagnostic that says why.
pub fn without_driver(error: &Error, context: &Context<'_>) -> Probe {
    let diagnostic =
        Diagnostic { code: error.code().to_owned(), field: "driver".to_owned(), message: error.to_string() };
    Probe {
        taken: context.now,
        boot_id: context.host.boot_id(),
        host: context.host.host(),
        driver: None,
        confidential_computing: None,
        gpus: Vec::new(),
        diagnostics: vec![diagnostic],
    }
}

/// Asks a driver for everything; of `xids`, the XID errors seen so far, what is over is forgotten. `Err` where the driver went away meanwhile: the library must be opened anew.
pub fn probe(library: &dyn Library, context: &Context<'_>, xids: &mut Xids) -> Result<Probe, Error> {
    let mut notes = Notes::default();
    let driver = Driver {
        version: notes.text("driver.version", library.text(DriverText::Version)),
        nvml: notes.text("driver.nvml", library.text(DriverText::Nvml)),
        cuda: notes.text("driver.cuda", library.text(DriverText::Cuda)),
    };
    let boot_id = context.host.boot_id();
    let previous = context.previous.filter(|previous| previous.boot_id == boot_id);
    let count = notes.value("gpus", library.count()).unwrap_or_default();
    if count > MAX_GPUS {
        notes.note("gpu.value-malformed", "gpus", &format!("{count} GPUs are not believed"));
    }
    let minors = context.host.mig_minors();
    let mut gpus: Vec<ProbedGpu> = (0..count.min(MAX_GPUS))
        .map(|index| {
            let mut reader = Reader { field: format!("gpus/{index}"), ..Reader::default() };
            let before = previous.and_then(|probe| probe.gpus.iter().find(|gpu| gpu.index == index));
            let mut gpu = reader.gpu(index, library.device(index), context.host, &minors, before);
            if let Some(uuid) = &gpu.uuid {
                xids.settle(uuid, reader.signs.recovery, context.now);
            }
            gpu.health = health::findings(&gpu, before, &reader.signs, xids);
            notes.append(reader.notes);
            gpu
        })
        .collect();
    let confidential_computing = notes.value("confidentialComputing", library.confidential_computing());
    if notes.driver_gone {
        return Err(Error::NoDriver("it went away while it was asked".to_owned()));
    }
    repeated_uuids(&mut gpus, &mut notes);
    health::compare_links(&mut gpus);
    Ok(Probe {
        taken: context.now,
        boot_id,
        host: context.host.host(),
        driver: Some(driver),
        confidential_computing,
        gpus,
        diagnostics: notes.diagnostics,
    })
}

/// Two GPUs of one UUID cannot be told apart: both are told, and neither may be given out.
fn repeated_uuids(gpus: &mut [ProbedGpu], notes: &mut Notes) {
    let mut by_uuid: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, gpu) in gpus.iter().enumerate() {
        if let Some(uuid) = &gpu.uuid {
            by_uuid.entry(uuid.clone()).or_default().push(at);
        }
    }
    for (uuid, places) in by_uuid.into_iter().filter(|(_, places)| places.len() > 1) {
        for at in places {
            let field = format!("gpus/{}/uuid", gpus[at].index);
            notes.note("gpu.uuid-repeated", &field, &format!("several GPUs say that they are {uuid}"));
            gpus[at].health.push(health::uuid_repeated());
            gpus[at].health.sort();
        }
    }
}

/// What is odd, as it is met.
#[derive(Default)]
struct Notes {
    diagnostics: Vec<Diagnostic>,
    driver_gone: bool,
}

impl Notes {
    fn note(&mut self, code: &str, field: &str, message: &str) {
        self.diagnostics.push(Diagnostic {
            code: code.to_owned(),
            field: field.to_owned(),
            message: message.to_owned(),
        });
    }

    fn append(&mut self, mut other: Self) {
        self.diagnostics.append(&mut other.diagnostics);
        self.driver_gone |= other.driver_gone;
    }

    fn value<T>(&mut self, field: &str, told: Told<T>) -> Option<T> {
        let trouble = match told {
            Ok(value) => return Some(value),
            Err(trouble) => trouble,
        };
        let code = match &trouble {
            Trouble::NotTold | Trouble::Lost | Trouble::ResetRequired => return None,
            Trouble::DriverGone => {
                self.driver_gone = true;
                return None;
            }
            Trouble::NotPermitted => "gpu.not-permitted",
            Trouble::NotUtf8 => "gpu.text-not-utf8",
            Trouble::Malformed(_) => "gpu.value-malformed",
            Trouble::Failed(_) => "gpu.read-failed",
        };
        self.note(code, field, &format!("{field} is not known: {trouble}"));
        None
    }

    /// A text, without the words by which firmware says that it does not know.
    fn text(&mut self, field: &str, told: Told<String>) -> Option<String> {
        let text = self.value(field, told)?;
        let text = text.trim();
        if text.chars().any(char::is_control) {
            self.note(
                "gpu.value-malformed",
                field,
                &format!("{field} is not known: it holds control characters"),
            );
            return None;
        }
        let unknown =
            ["", "0", "n/a", "[n/a]", "unknown", "none"].iter().any(|no| text.eq_ignore_ascii_case(no));
        (!unknown).then(|| text.to_owned())
    }
}

/// Reads one GPU.
#[derive(Default)]
struct Reader {
    field: String,
    notes: Notes,
    signs: Lifelines,
}

impl Reader {
    fn gpu(
        &mut self,
        index: u32,
        device: Told<Box<dyn Device + '_>>,
        host: &HostRoot,
        minors: &BTreeMap<String, u32>,
        before: Option<&ProbedGpu>,
    ) -> ProbedGpu {
        let handle = self.value("", device);
        let mut gpu = match &handle {
            Some(device) => self.identity(index, device.as_ref(), host),
            None => ProbedGpu { index, ..ProbedGpu::default() },
        };
        if let Some(device) = &handle {
            let same = before.filter(|before| before.uuid.is_some() && before.uuid == gpu.uuid);
            self.state(&mut gpu, device.as_ref(), minors, same.and_then(|same| same.mig.as_ref()));
        } else if !self.signs.lost && !self.signs.reset_required {
            self.signs.unreadable = true;
        }
        if self.signs.lost && gpu.uuid.is_none() {
            remember(&mut gpu, before);
        }
        gpu
    }

    fn identity(&mut self, index: u32, device: &dyn Device, host: &HostRoot) -> ProbedGpu {
        let pci = self.value("pci", device.pci());
        let address = pci.as_ref().and_then(PciId::address);
        if pci.is_some() && address.is_none() {
            self.note("gpu.value-malformed", "pci.address", "the PCI address cannot be");
        }
        let place = address.as_deref().map(|address| host.place(address)).unwrap_or_default();
        let uuid = self.text("uuid", device.text(Text::Uuid));
        ProbedGpu {
            uuid: uuid.and_then(|uuid| self.well_formed(&uuid)),
            index,
            minor: self.number("minor", device, Number::Minor),
            model: self.text("model", device.text(Text::Model)),
            brand: self.text("brand", device.text(Text::Brand)),
            architecture: self.text("architecture", device.text(Text::Architecture)),
            serial: self.text("serial", device.text(Text::Serial)),
            part_number: self.text("partNumber", device.text(Text::PartNumber)),
            vbios: self.text("vbios", device.text(Text::Vbios)),
            pci: Pci {
                address,
                device_id: pci.and_then(|pci| PciId::ids(pci.id)),
                subsystem_id: pci.and_then(|pci| PciId::ids(pci.subsystem)),
                root: place.root,
            },
            numa_node: place.numa_node,
            module_id: self.number("moduleId", device, Number::ModuleId),
            memory_bytes: self.value("memoryBytes", device.number(Number::MemoryBytes)),
            compute_capability: self.text("computeCapability", device.text(Text::ComputeCapability)),
            limits: self.limits(device),
            ..ProbedGpu::default()
        }
    }

    /// `GPU-` and a UUID, in lower case.
    fn well_formed(&mut self, uuid: &str) -> Option<String> {
        let digits = uuid.get(..4).filter(|head| head.eq_ignore_ascii_case("GPU-")).map(|_| &uuid[4..]);
        let is_uuid = digits.is_some_and(|digits| {
            digits.len() == 36
                && digits.char_indices().all(|(at, c)| match at {
                    8 | 13 | 18 | 23 => c == '-',
                    _ => c.is_ascii_hexdigit(),
                })
        });
        if is_uuid {
            return Some(format!("GPU-{}", uuid[4..].to_ascii_lowercase()));
        }
        self.note("gpu.value-malformed", "uuid", &format!("{uuid:?} is no UUID of a GPU"));
        None
    }

    fn limits(&mut self, device: &dyn Device) -> Limits {
        Limits {
            sm_clock_mhz: self.number("limits.smClockMhz", device, Number::MaxSmClock),
            memory_clock_mhz: self.number("limits.memoryClockMhz", device, Number::MaxMemoryClock),
            power_milliwatts: self.number("limits.powerMilliwatts", device, Number::PowerLimit),
            slowdown_celsius: self.number("limits.slowdownCelsius", device, Number::SlowdownCelsius),
            shutdown_celsius: self.number("limits.shutdownCelsius", device, Number::ShutdownCelsius),
        }
    }

    /// What changes while the host runs.
    fn state(
        &mut self,
        gpu: &mut ProbedGpu,
        device: &dyn Device,
        minors: &BTreeMap<String, u32>,
        before: Option<&Mig>,
    ) {
        gpu.ecc = self.value("ecc", device.ecc());
        gpu.remapped_rows = self.value("remappedRows", device.remapped_rows());
        gpu.mig = self.mig(device, gpu.minor, minors, before);
        gpu.fabric = self.value("fabric", device.fabric());
        let links = (0..MAX_NVLINKS).map(|link| self.value(&format!("nvlinks/{link}"), device.nvlink(link)));
        gpu.nvlinks = links.flatten().collect();
        gpu.readings = self.readings(device, &gpu.nvlinks);
        self.signs.recovery = self.value("recovery", device.number(Number::RecoveryAction));
    }

    fn readings(&mut self, device: &dyn Device, links: &[NvLink]) -> Readings {
        let active = links.iter().filter(|link| link.active);
        let errors = active.filter_map(|link| {
            self.value(&format!("nvlinks/{}/errors", link.link), device.nvlink_errors(link.link))
        });
        let nvlink_errors = errors.reduce(u64::saturating_add);
        Readings {
            temperature_celsius: self.number("readings.temperatureCelsius", device, Number::Temperature),
            power_milliwatts: self.number("readings.powerMilliwatts", device, Number::Power),
            memory_used_bytes: self.value("readings.memoryUsedBytes", device.number(Number::MemoryUsedBytes)),
            sm_clock_mhz: self.number("readings.smClockMhz", device, Number::SmClock),
            memory_clock_mhz: self.number("readings.memoryClockMhz", device, Number::MemoryClock),
            ecc_corrected: self.value("readings.eccCorrected", device.number(Number::EccCorrected)),
            ecc_uncorrected: self.value("readings.eccUncorrected", device.number(Number::EccUncorrected)),
            nvlink_errors,
            processes: self.number("readings.processes", device, Number::Processes),
        }
    }

    fn mig(
        &mut self,
        device: &dyn Device,
        minor: Option<u32>,
        minors: &BTreeMap<String, u32>,
        before: Option<&Mig>,
    ) -> Option<Mig> {
        let mode = device.mig_mode();
        // No mode means that there is none. Not known means that it may be parted: nobody new gets all of it.
        self.signs.mig_unknown = mode.as_ref().is_err_and(|trouble| *trouble != Trouble::NotTold);
        let (enabled, pending) = self.value("mig", mode)?;
        // What a GPU can be parted into changes with its mode alone, and takes a sixth of all calls to ask.
        let whole = |mig: &Mig| mig.profiles.iter().all(|profile| !profile.placements.is_empty());
        let known =
            before.filter(|before| before.enabled == enabled && !before.profiles.is_empty() && whole(before));
        let profiles = match known {
            Some(before) => before.profiles.clone(),
            None => self.mig_profiles(device),
        };
        let count = if enabled { self.value("mig.instances", device.mig_instances()) } else { None };
        let instances = (0..count.unwrap_or_default().min(64))
            .filter_map(|at| self.value(&format!("mig.instances/{at}"), device.mig_instance(at)))
            .map(|instance| with_minors(instance, minor, minors))
            .collect();
        Some(Mig { enabled, pending, profiles, instances })
    }

    fn mig_profiles(&mut self, device: &dyn Device) -> Vec<MigProfile> {
        let mut profiles = Vec::new();
        for slot in 0..MIG_SLOTS {
            let field = format!("mig.profiles/{slot}");
            let Some(mut profile) = self.value(&field, device.mig_profile(slot)) else { continue };
            let placements = self.value(&format!("{field}/placements"), device.mig_placements(profile.id));
            profile.placements = placements.unwrap_or_default();
            profiles.push(profile);
        }
        // A driver may tell one profile in several slots.
        profiles.sort_by_key(|profile| profile.id);
        profiles.dedup_by_key(|profile| profile.id);
        profiles
    }

    fn number(&mut self, field: &str, device: &dyn Device, what: Number) -> Option<u32> {
        let value = self.value(field, device.number(what))?;
        let narrow = u32::try_from(value).ok();
        if narrow.is_none() {
            self.note("gpu.value-malformed", field, &format!("{value} is too large to be"));
        }
        narrow
    }

    fn value<T>(&mut self, field: &str, told: Told<T>) -> Option<T> {
        match &told {
            Err(Trouble::Lost) => self.signs.lost = true,
            Err(Trouble::ResetRequired) => self.signs.reset_required = true,
            _ => {}
        }
        let field = self.path(field);
        self.notes.value(&field, told)
    }

    fn text(&mut self, field: &str, told: Told<String>) -> Option<String> {
        match &told {
            Err(Trouble::Lost) => self.signs.lost = true,
            Err(Trouble::ResetRequired) => self.signs.reset_required = true,
            _ => {}
        }
        let field = self.path(field);
        self.notes.text(&field, told)
    }

    fn note(&mut self, code: &str, field: &str, message: &str) {
        let field = self.path(field);
        self.notes.note(code, &field, message);
    }

    fn path(&self, field: &str) -> String {
        if field.is_empty() { self.field.clone() } else { format!("{}/{field}", self.field) }
    }
}

/// A GPU that fell off the bus before it said who it is keeps the identity that it had in this boot at this index.
fn remember(gpu: &mut ProbedGpu, before: Option<&ProbedGpu>) {
    if let Some(before) = before {
        *gpu = ProbedGpu { health: Vec::new(), readings: Readings::default(), ..before.clone() };
    }
}

/// The device files of a MIG instance: the kernel names them by the minor number of the GPU (`/proc/driver/nvidia-caps`).
fn with_minors(mut instance: MigInstance, minor: Option<u32>, minors: &BTreeMap<String, u32>) -> MigInstance {
    if let Some(minor) = minor {
        let (gi, ci) = (instance.gpu_instance, instance.compute_instance);
        instance.gpu_instance_minor = minors.get(&format!("gpu{minor}/gi{gi}/access")).copied();
        instance.compute_instance_minor = minors.get(&format!("gpu{minor}/gi{gi}/ci{ci}/access")).copied();
    }
    instance
}

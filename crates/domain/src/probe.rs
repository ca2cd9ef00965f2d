//! What the driver tells of a host's GPUs: the document that `bailiwick-agent probe` prints and an agent reports.
//!
//! A value that is not told is `null`, never invented: not supported, not permitted and not readable all mean "not known". What
//! failed in an odd way is a [`Diagnostic`] beside it. Names follow NVML and NVIDIA's DRA driver where they have one.

mod codes;

pub use codes::CODES;

use crate::name::Digest;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What NVML told of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// When it was taken, by the host's clock.
    #[schemars(with = "String")]
    pub taken: Timestamp,
    /// `/proc/sys/kernel/random/boot_id`: another one means that the host was started anew.
    pub boot_id: Option<String>,
    /// The host.
    pub host: Host,
    /// The driver; `null` where none is loaded, and then there are no GPUs.
    pub driver: Option<Driver>,
    /// What NVML says of confidential computing, which it does for the host as a whole; `null` where it does not.
    pub confidential_computing: Option<ConfidentialComputing>,
    /// The GPUs in the order of their index.
    pub gpus: Vec<ProbedGpu>,
    /// What was odd or refused while reading. Never fatal.
    pub diagnostics: Vec<Diagnostic>,
}

/// The host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Its name, as the kernel has it.
    pub hostname: Option<String>,
    /// System UUID as SMBIOS tells it, lower case: the same that its BMC gives.
    pub system_uuid: Option<String>,
}

/// The driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Driver {
    /// Version of the kernel driver, such as `580.95.05`.
    pub version: Option<String>,
    /// Version of NVML.
    pub nvml: Option<String>,
    /// CUDA version that the driver supports at most, such as `13.0`.
    pub cuda: Option<String>,
}

/// Confidential computing of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfidentialComputing {
    /// Whether the GPUs run in confidential-computing mode.
    pub enabled: Option<bool>,
    /// Whether developer tools are let in, which makes the mode worthless for a tenant.
    pub dev_tools: Option<bool>,
    /// `unavailable`, `simulated` or `production`.
    pub environment: Option<String>,
    /// Whether the GPUs take work (`nvmlSystemGetConfComputeGpusReadyState`).
    pub ready: Option<bool>,
}

/// One GPU, as the driver sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbedGpu {
    /// Its UUID as NVML writes it: `GPU-` and a UUID in lower case. `null` where the GPU fell off the bus before it was asked.
    pub uuid: Option<String>,
    /// Its index in NVML; it may be another after a restart.
    pub index: u32,
    /// Its device file is `/dev/nvidia<minor>`.
    pub minor: Option<u32>,
    /// Product name.
    pub model: Option<String>,
    /// Brand, such as `nvidia`, `tesla`, `geforce`.
    pub brand: Option<String>,
    /// Architecture, such as `Hopper`.
    pub architecture: Option<String>,
    /// Serial number of its board.
    pub serial: Option<String>,
    /// Part number of its board.
    pub part_number: Option<String>,
    /// VBIOS version.
    pub vbios: Option<String>,
    /// Where it sits on PCI.
    pub pci: Pci,
    /// NUMA node that is nearest to it.
    pub numa_node: Option<u32>,
    /// Position on its baseboard.
    pub module_id: Option<u32>,
    /// Frame buffer in bytes.
    pub memory_bytes: Option<u64>,
    /// CUDA compute capability, such as `9.0`.
    pub compute_capability: Option<String>,
    /// ECC; `null` where it has none.
    pub ecc: Option<Ecc>,
    /// Rows of memory taken out of use; `null` where it cannot tell.
    pub remapped_rows: Option<RemappedRows>,
    /// Multi-Instance GPU; `null` where it has none.
    pub mig: Option<Mig>,
    /// NVLinks, in the order of their number.
    pub nvlinks: Vec<NvLink>,
    /// Its place in an NVLink fabric; `null` where it belongs to none.
    pub fabric: Option<Fabric>,
    /// What it can do at most.
    pub limits: Limits,
    /// What is wrong with it, worst first; empty means healthy as far as it was asked.
    pub health: Vec<Finding>,
    /// What changes all the time; no part of the digest.
    pub readings: Readings,
}

/// Where a GPU sits on PCI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pci {
    /// `dddd:bb:dd.f`, lower case.
    pub address: Option<String>,
    /// Vendor and device, such as `10de:2330`.
    pub device_id: Option<String>,
    /// Subsystem vendor and device, such as `10de:16c1`.
    pub subsystem_id: Option<String>,
    /// The root complex, such as `pci0000:64`, as `resource.kubernetes.io/pcieRoot` has it.
    pub root: Option<String>,
}

/// ECC of the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ecc {
    /// Whether it is on.
    pub enabled: bool,
    /// Whether it will be on after the next reset.
    pub pending: bool,
}

/// Rows of memory that were, or are to be, replaced by spare ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemappedRows {
    /// Rows remapped after correctable errors.
    pub correctable: u32,
    /// Rows remapped after uncorrectable errors.
    pub uncorrectable: u32,
    /// A row waits for a reset to be remapped.
    pub pending: bool,
    /// A row could not be remapped: the GPU is to be replaced.
    pub failed: bool,
}

/// Multi-Instance GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mig {
    /// Whether the mode is on.
    pub enabled: bool,
    /// Whether it will be on after the next reset.
    pub pending: bool,
    /// Instances that it can be parted into; drivers tell some of this only while the mode is on.
    pub profiles: Vec<MigProfile>,
    /// Instances that there are.
    pub instances: Vec<MigInstance>,
}

/// A size of GPU instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigProfile {
    /// Its id in NVML.
    pub id: u32,
    /// Its name without `MIG `, such as `1g.18gb` or `1g.18gb+me`.
    pub name: String,
    /// Compute slices.
    pub slices: u32,
    /// Frame buffer in bytes.
    pub memory_bytes: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Copy engines.
    pub copy_engines: u32,
    /// Video decoders.
    pub decoders: u32,
    /// Video encoders.
    pub encoders: u32,
    /// JPEG engines.
    pub jpegs: u32,
    /// Optical-flow engines.
    pub ofas: u32,
    /// So many instances fit on an empty GPU.
    pub max_instances: u32,
    /// Where it may be put, in memory slices.
    pub placements: Vec<Placement>,
}

/// Some memory slices of a GPU, one after the other.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The first.
    pub start: u32,
    /// How many.
    pub size: u32,
}

/// A GPU instance with one compute instance in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigInstance {
    /// Its UUID as NVML writes it: `MIG-` and a UUID in lower case.
    pub uuid: Option<String>,
    /// Number of the GPU instance.
    pub gpu_instance: u32,
    /// Number of the compute instance.
    pub compute_instance: u32,
    /// Id of its profile.
    pub profile: Option<u32>,
    /// Where it is.
    pub placement: Option<Placement>,
    /// The device file `/dev/nvidia-caps/nvidia-cap<minor>` that opens the GPU instance.
    pub gpu_instance_minor: Option<u32>,
    /// The device file `/dev/nvidia-caps/nvidia-cap<minor>` that opens the compute instance.
    pub compute_instance_minor: Option<u32>,
}

/// One NVLink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NvLink {
    /// Its number.
    pub link: u32,
    /// Whether it is up.
    pub active: bool,
    /// PCI address of the other end, lower case.
    pub remote_pci: Option<String>,
    /// What the other end is.
    pub remote_kind: Option<RemoteKind>,
}

/// What an NVLink leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RemoteKind {
    /// A GPU.
    Gpu,
    /// An NVSwitch.
    Switch,
    /// A CPU.
    Cpu,
}

/// Place in an NVLink fabric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fabric {
    /// The NVLink domain, a UUID in lower case; `null` until the GPU has joined it, and within one baseboard.
    pub cluster_uuid: Option<String>,
    /// The clique: GPUs of one domain and clique reach each other's memory.
    pub clique_id: Option<u32>,
    /// How far joining has got.
    pub state: FabricState,
    /// Whether it went well, once completed; `null` before.
    pub succeeded: Option<bool>,
}

/// How far a GPU has joined its fabric.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum FabricState {
    /// Not begun: no fabric manager has asked for it.
    #[default]
    NotStarted,
    /// Under way.
    InProgress,
    /// Done.
    Completed,
}

/// What a GPU can do at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Clock of the streaming multiprocessors in MHz.
    pub sm_clock_mhz: Option<u32>,
    /// Clock of the memory in MHz.
    pub memory_clock_mhz: Option<u32>,
    /// Power in milliwatts, as enforced.
    pub power_milliwatts: Option<u32>,
    /// It slows down at so many degrees Celsius.
    pub slowdown_celsius: Option<u32>,
    /// It shuts down at so many degrees Celsius.
    pub shutdown_celsius: Option<u32>,
}

/// What changes all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Readings {
    /// Degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// Power in milliwatts.
    pub power_milliwatts: Option<u32>,
    /// Frame buffer in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Clock of the streaming multiprocessors in MHz.
    pub sm_clock_mhz: Option<u32>,
    /// Clock of the memory in MHz.
    pub memory_clock_mhz: Option<u32>,
    /// Corrected memory errors since the driver was loaded.
    pub ecc_corrected: Option<u64>,
    /// Uncorrected memory errors since the driver was loaded.
    pub ecc_uncorrected: Option<u64>,
    /// Errors of all NVLinks since they were reset: replays, recoveries, and packets with a wrong checksum.
    pub nvlink_errors: Option<u64>,
    /// Processes that use the GPU.
    pub processes: Option<u32>,
}

/// Something wrong with a GPU, with a stable code (`docs/reference/codes.md`). It is gone from the next probe once its cause is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// Profiles have findings too; schemas of both stand side by side.
#[schemars(rename = "GpuFinding")]
pub struct Finding {
    /// How bad it is; the worst sorts first.
    pub severity: Severity,
    /// Stable code, such as `gpu.health.row-remap-failed`.
    pub code: String,
    /// A sentence for people. It holds no number that grows, so that it changes only when the finding does.
    pub message: String,
}

/// How bad a finding is, in Redfish's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Nobody should be given it, and who has it should go.
    Critical,
    /// Nobody new should be given it; who has it may finish.
    Warning,
    /// For people to know.
    Notice,
}

/// Something odd met while reading, with a stable code (`docs/reference/codes.md`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Stable code, such as `gpu.text-not-utf8`.
    pub code: String,
    /// What it is about, as a path into this document: `driver.version`, `gpus/3/serial`.
    pub field: String,
    /// A sentence for people.
    pub message: String,
}

impl Probe {
    /// Digest of everything but the time and the readings: a host on which nothing changed keeps it.
    pub fn digest(&self) -> Digest {
        let mut document = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = document.as_object_mut() {
            fields.remove("taken");
            for gpu in fields.get_mut("gpus").and_then(|gpus| gpus.as_array_mut()).into_iter().flatten() {
                if let Some(fields) = gpu.as_object_mut() {
                    fields.remove("readings");
                }
            }
        }
        Digest::of_json(&document)
    }

    /// Whether no host could have told this: what is made of a probe grows with it, and whoever is root on a host writes what it
    /// likes. A host has at most 64 GPUs, and a GPU 18 NVLinks, some ten profiles, and eight memory slices; there is room to spare.
    pub fn is_excessive(&self) -> bool {
        const MOST: usize = 64;
        let exceeds = |gpu: &ProbedGpu| {
            let mig = gpu.mig.as_ref();
            let profiles = mig.map(|mig| mig.profiles.as_slice()).unwrap_or_default();
            let profile = |profile: &MigProfile| {
                profile.placements.len() > MOST
                    || profile.memory_bytes == 0
                    || profile.memory_bytes > 1 << 50
                    || profile.placements.iter().any(|at| at.size == 0 || at.start > 32 || at.size > 32)
            };
            gpu.nvlinks.len() > MOST
                || gpu.health.len() > MOST
                || gpu.memory_bytes.is_some_and(|bytes| bytes > 1 << 50)
                || profiles.len() > 32
                || profiles.iter().any(profile)
                || mig.is_some_and(|mig| mig.instances.len() > MOST)
        };
        self.gpus.len() > MOST || self.diagnostics.len() > 1024 || self.gpus.iter().any(exceeds)
    }

    /// The GPU with a UUID as NVML writes it; upper and lower case are one.
    pub fn gpu(&self, uuid: &str) -> Option<&ProbedGpu> {
        self.gpus.iter().find(|gpu| gpu.uuid.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(uuid)))
    }
}

impl ProbedGpu {
    /// How bad the worst of its findings is; `None` for a healthy one.
    pub fn worst(&self) -> Option<Severity> {
        self.health.iter().map(|finding| finding.severity).min()
    }
}

impl Severity {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe {
            taken: Timestamp::UNIX_EPOCH,
            boot_id: Some("b".into()),
            host: Host::default(),
            driver: Some(Driver::default()),
            confidential_computing: None,
            gpus: vec![ProbedGpu { uuid: Some("GPU-1".into()), ..ProbedGpu::default() }],
            diagnostics: Vec::new(),
        }
    }

    fn finding(severity: Severity) -> Finding {
        Finding { severity, code: "gpu.health.x".into(), message: String::new() }
    }

    #[test]
    fn an_unchanged_host_keeps_its_digest_whenever_it_is_asked_and_however_warm_it_is() {
        let mut later = probe();
        later.taken = Timestamp::MAX;
        later.gpus[0].readings.temperature_celsius = Some(70);
        assert_eq!(later.digest(), probe().digest());
    }

    #[test]
    fn a_restart_a_finding_and_a_missing_driver_each_change_the_digest() {
        let changes: [fn(&mut Probe); 3] = [
            |p| p.boot_id = Some("c".into()),
            |p| p.gpus[0].health.push(finding(Severity::Warning)),
            |p| p.driver = None,
        ];
        for change in changes {
            let mut other = probe();
            change(&mut other);
            assert_ne!(other.digest(), probe().digest());
        }
    }

    #[test]
    fn a_digest_survives_the_wire() {
        let text = serde_json::to_string(&probe()).unwrap();
        assert_eq!(serde_json::from_str::<Probe>(&text).unwrap().digest(), probe().digest());
    }

    #[test]
    fn what_is_not_known_is_null_and_not_left_out() {
        let document = serde_json::to_value(&probe().gpus[0]).unwrap();
        assert_eq!(document.get("memoryBytes"), Some(&serde_json::Value::Null));
        assert_eq!(document["pci"].get("root"), Some(&serde_json::Value::Null));
    }

    #[test]
    fn what_no_host_has_is_excessive_and_what_one_has_is_not() {
        let with = |place: Placement, gpus: usize| {
            let profile =
                MigProfile { memory_bytes: 1 << 30, placements: vec![place], ..MigProfile::default() };
            let mut probe = probe();
            probe.gpus[0].mig = Some(Mig { profiles: vec![profile], ..Mig::default() });
            probe.gpus = vec![probe.gpus[0].clone(); gpus];
            probe.is_excessive()
        };
        assert!(!with(Placement { start: 4, size: 4 }, 64));
        assert!(with(Placement { start: 0, size: 1 }, 65));
        assert!(with(Placement { start: 0, size: u32::MAX }, 1));
        assert!(with(Placement { start: 0, size: 0 }, 1), "an API server refuses a device without counters");
    }

    #[test]
    fn the_worst_finding_counts() {
        let mut gpu = probe().gpus.remove(0);
        assert_eq!(gpu.worst(), None);
        gpu.health = vec![finding(Severity::Notice), finding(Severity::Critical), finding(Severity::Warning)];
        assert_eq!(gpu.worst(), Some(Severity::Critical));
    }

    #[test]
    fn a_gpu_is_found_by_its_uuid_in_either_case() {
        assert!(probe().gpu("gpu-1").is_some() && probe().gpu("GPU-2").is_none());
    }
}

//! What a probe asks of a driver: a small trait over NVML, so that the reading is tested apart from it.

use domain::probe::{ConfidentialComputing, Ecc, Fabric, MigInstance, MigProfile, NvLink, RemappedRows};

/// An answer, or why there is none.
pub type Told<T> = Result<T, Trouble>;

/// Why a value is not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The GPU or the driver has no such value. Nothing is wrong.
    #[error("it is not told")]
    NotTold,
    /// The GPU fell off the bus: it will tell nothing more.
    #[error("the GPU has fallen off the bus")]
    Lost,
    /// The GPU must be reset before it tells anything.
    #[error("the GPU must be reset first")]
    ResetRequired,
    /// The library must be loaded anew: its driver went away.
    #[error("the driver has gone")]
    DriverGone,
    /// We may not know.
    #[error("it is not permitted")]
    NotPermitted,
    /// Text that is no UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// A value that cannot be.
    #[error("{0}")]
    Malformed(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Text about the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverText {
    /// Version of the kernel driver.
    Version,
    /// Version of NVML.
    Nvml,
    /// CUDA version.
    Cuda,
}

/// Text about a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// UUID.
    Uuid,
    /// Product name.
    Model,
    /// Brand.
    Brand,
    /// Architecture.
    Architecture,
    /// Serial number.
    Serial,
    /// Part number of the board.
    PartNumber,
    /// VBIOS version.
    Vbios,
    /// CUDA compute capability.
    ComputeCapability,
}

/// A number about a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// Minor number of the device file.
    Minor,
    /// Position on the baseboard.
    ModuleId,
    /// Frame buffer in bytes.
    MemoryBytes,
    /// Frame buffer in use, in bytes.
    MemoryUsedBytes,
    /// Highest clock of the multiprocessors in MHz.
    MaxSmClock,
    /// Highest clock of the memory in MHz.
    MaxMemoryClock,
    /// Enforced power limit in milliwatts.
    PowerLimit,
    /// Slowdown threshold in degrees Celsius.
    SlowdownCelsius,
    /// Shutdown threshold in degrees Celsius.
    ShutdownCelsius,
    /// Degrees Celsius.
    Temperature,
    /// Milliwatts.
    Power,
    /// Clock of the multiprocessors in MHz.
    SmClock,
    /// Clock of the memory in MHz.
    MemoryClock,
    /// Corrected memory errors since the driver was loaded.
    EccCorrected,
    /// Uncorrected memory errors since the driver was loaded.
    EccUncorrected,
    /// Processes with a compute or a graphics context.
    Processes,
    /// What the driver wants done to recover the GPU (`nvmlDeviceGpuRecoveryAction_t`); `0` is nothing.
    RecoveryAction,
}

/// A GPU's address and ids on PCI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PciId {
    /// Domain.
    pub domain: u32,
    /// Bus.
    pub bus: u32,
    /// Device.
    pub device: u32,
    /// Device id in the upper 16 bits, vendor id in the lower.
    pub id: u32,
    /// Subsystem device and vendor, likewise; `0` where not told.
    pub subsystem: u32,
}

/// A driver's library.
pub trait Library {
    /// A text about the driver.
    fn text(&self, what: DriverText) -> Told<String>;
    /// Confidential computing of the host.
    fn confidential_computing(&self) -> Told<ConfidentialComputing>;
    /// How many GPUs there are.
    fn count(&self) -> Told<u32>;
    /// A GPU by its index.
    fn device(&self, index: u32) -> Told<Box<dyn Device + '_>>;
}

/// A GPU.
pub trait Device {
    /// A text.
    fn text(&self, what: Text) -> Told<String>;
    /// A number.
    fn number(&self, what: Number) -> Told<u64>;
    /// Its place on PCI.
    fn pci(&self) -> Told<PciId>;
    /// ECC.
    fn ecc(&self) -> Told<Ecc>;
    /// Rows out of use.
    fn remapped_rows(&self) -> Told<RemappedRows>;
    /// Whether MIG is on, and whether it will be after a reset.
    fn mig_mode(&self) -> Told<(bool, bool)>;
    /// A profile by the number of its slot, `0..MIG_SLOTS`, without its placements.
    fn mig_profile(&self, slot: u32) -> Told<MigProfile>;
    /// Where the profile with an id may be put.
    fn mig_placements(&self, profile: u32) -> Told<Vec<domain::probe::Placement>>;
    /// An instance by its number, without minor numbers; `NotTold` where there is none of it.
    fn mig_instance(&self, number: u32) -> Told<MigInstance>;
    /// So many instances there can be.
    fn mig_instances(&self) -> Told<u32>;
    /// A link by its number.
    fn nvlink(&self, link: u32) -> Told<NvLink>;
    /// Errors of a link, all kinds together, since they were reset.
    fn nvlink_errors(&self, link: u32) -> Told<u64>;
    /// Its place in a fabric; `NotTold` where it belongs to none.
    fn fabric(&self) -> Told<Fabric>;
}

/// Slots for MIG profiles in NVML (`NVML_GPU_INSTANCE_PROFILE_COUNT` of CUDA 13, with room for more).
pub const MIG_SLOTS: u32 = 24;

/// Most NVLinks of a GPU (`NVML_NVLINK_MAX_LINKS`).
pub const MAX_NVLINKS: u32 = 18;

/// Most GPUs of a host that are asked for; a library that says more is not believed.
pub const MAX_GPUS: u32 = 256;

impl PciId {
    /// `dddd:bb:dd.f`, lower case; `None` for an address that cannot be.
    pub fn address(&self) -> Option<String> {
        let fits = self.domain != u32::MAX && self.bus <= 0xff && self.device <= 0x1f;
        fits.then(|| format!("{:04x}:{:02x}:{:02x}.0", self.domain, self.bus, self.device))
    }

    /// Vendor and device as `10de:2330`.
    pub fn ids(packed: u32) -> Option<String> {
        (packed != 0 && packed != u32::MAX).then(|| format!("{:04x}:{:04x}", packed & 0xffff, packed >> 16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_kernel_does() {
        let pci = PciId { domain: 0, bus: 0x3b, device: 0, id: 0x2330_10de, subsystem: 0 };
        assert_eq!(pci.address().as_deref(), Some("0000:3b:00.0"));
        assert_eq!(PciId::ids(pci.id).as_deref(), Some("10de:2330"));
        assert_eq!(PciId { domain: 0x10009, bus: 1, ..pci }.address().as_deref(), Some("10009:01:00.0"));
    }

    #[test]
    fn an_address_of_ones_is_none() {
        assert_eq!(PciId { domain: u32::MAX, bus: 0xff, device: 0xff, ..PciId::default() }.address(), None);
        assert_eq!(PciId { bus: 0x100, ..PciId::default() }.address(), None);
        assert_eq!(PciId::ids(0), None);
    }
}

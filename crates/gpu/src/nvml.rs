//! NVML itself, by nvml-wrapper: the one implementation of [`crate::source`] that talks to a driver.

use crate::source::{Device, DriverText, Library, Number, PciId, Text, Told, Trouble};
use crate::{Error, raw};
use domain::probe::{
    ConfidentialComputing, Ecc, Fabric, FabricState, MigInstance, MigProfile, NvLink, Placement,
    RemappedRows, RemoteKind,
};
use nvml_wrapper::enum_wrappers::device::{
    Brand, Clock, EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION;
use nvml_wrapper::{cuda_driver_version_major, cuda_driver_version_minor};
use nvml_wrapper_sys::bindings as sys;
use std::path::Path;

/// The driver's library, loaded and started.
#[derive(Debug)]
pub struct Nvml(pub(crate) nvml_wrapper::Nvml);

/// A GPU of it.
struct Gpu<'nvml>(nvml_wrapper::Device<'nvml>);

/// Names under which the library is looked for: what drivers install, then what some images alone have.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

impl Nvml {
    /// Loads the library, the system's own or the one at `path`, and starts it.
    pub fn open(path: Option<&Path>) -> Result<Self, Error> {
        if let Some(path) = path {
            // A bare name is looked for where the system keeps its libraries.
            if path.components().count() > 1 && matches!(path.try_exists(), Ok(false)) {
                return Err(Error::LibraryMissing(path.display().to_string()));
            }
            return Self::load(path);
        }
        let [first, second] = NAMES.map(Path::new);
        match Self::load(first) {
            Err(none @ Error::NoDriver(_)) => match Self::load(second) {
                Err(Error::NoDriver(_)) => Err(none),
                outcome => outcome,
            },
            outcome => outcome,
        }
    }

    fn load(path: &Path) -> Result<Self, Error> {
        let nvml = nvml_wrapper::Nvml::builder().lib_path(path.as_os_str()).init();
        let nvml = nvml.map_err(|error| cannot_start(path, error))?;
        if nvml.lib().nvmlShutdown.is_err() {
            // The wrapper would panic on drop (facts: testbed, NVML without a GPU); it stays loaded instead.
            std::mem::forget(nvml);
            return Err(unusable(path, "it has no nvmlShutdown"));
        }
        Ok(Self(nvml))
    }
}

fn cannot_start(path: &Path, error: NvmlError) -> Error {
    match error {
        NvmlError::LibloadingError(_) if path.is_absolute() && path.exists() => {
            unusable(path, "it is no shared library of this machine")
        }
        NvmlError::LibloadingError(_) => Error::NoDriver(format!("there is no {}", path.display())),
        NvmlError::FailedToLoadSymbol(_) => unusable(path, "it has no nvmlInit_v2"),
        NvmlError::DriverNotLoaded => Error::NoDriver("NVML finds no kernel driver".to_owned()),
        NvmlError::LibRmVersionMismatch => Error::DriverMismatch,
        NvmlError::NoPermission => Error::NotPermitted,
        other => Error::Failed(other.to_string()),
    }
}

fn unusable(path: &Path, reason: &str) -> Error {
    Error::LibraryUnusable { library: path.display().to_string(), reason: reason.to_owned() }
}

impl From<NvmlError> for Trouble {
    fn from(error: NvmlError) -> Self {
        match error {
            NvmlError::NotSupported
            | NvmlError::NotFound
            | NvmlError::NoData
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::UnexpectedVariant(raw::VERSION_MISMATCH | raw::DEPRECATED) => Self::NotTold,
            NvmlError::GpuLost => Self::Lost,
            NvmlError::ResetRequired => Self::ResetRequired,
            NvmlError::Uninitialized | NvmlError::DriverNotLoaded => Self::DriverGone,
            NvmlError::NoPermission => Self::NotPermitted,
            NvmlError::Utf8Error(_) => Self::NotUtf8,
            NvmlError::UnexpectedVariant(value) => {
                Self::Malformed(format!("{value} is not one of its values"))
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

impl Library for Nvml {
    fn text(&self, what: DriverText) -> Told<String> {
        Ok(match what {
            DriverText::Version => self.0.sys_driver_version()?,
            DriverText::Nvml => self.0.sys_nvml_version()?,
            DriverText::Cuda => {
                let version = self.0.sys_cuda_driver_version()?;
                format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version))
            }
        })
    }

    fn confidential_computing(&self) -> Told<ConfidentialComputing> {
        let [environment, feature, dev_tools] = raw::confidential_computing(&self.0)?;
        let environment = match environment {
            sys::NVML_CC_SYSTEM_ENVIRONMENT_UNAVAILABLE => Some("unavailable"),
            sys::NVML_CC_SYSTEM_ENVIRONMENT_SIM => Some("simulated"),
            sys::NVML_CC_SYSTEM_ENVIRONMENT_PROD => Some("production"),
            _ => None,
        };
        Ok(ConfidentialComputing {
            enabled: Some(feature == sys::NVML_CC_SYSTEM_FEATURE_ENABLED),
            dev_tools: Some(dev_tools == sys::NVML_CC_SYSTEM_DEVTOOLS_MODE_ON),
            environment: environment.map(str::to_owned),
            ready: raw::gpus_ready(&self.0).ok(),
        })
    }

    fn count(&self) -> Told<u32> {
        Ok(self.0.device_count()?)
    }

    fn device(&self, index: u32) -> Told<Box<dyn Device + '_>> {
        Ok(Box::new(Gpu(self.0.device_by_index(index)?)))
    }
}

impl Device for Gpu<'_> {
    fn text(&self, what: Text) -> Told<String> {
        Ok(match what {
            Text::Uuid => self.0.uuid()?,
            Text::Model => self.0.name()?,
            Text::Brand => brand(self.0.brand()?).ok_or(Trouble::NotTold)?.to_owned(),
            Text::Architecture => match self.0.architecture()? {
                nvml_wrapper::enums::device::DeviceArchitecture::Unknown => return Err(Trouble::NotTold),
                known => format!("{known:?}"),
            },
            Text::Serial => self.0.serial()?,
            Text::PartNumber => self.0.board_part_number()?,
            Text::Vbios => self.0.vbios_version()?,
            Text::ComputeCapability => {
                let capability = self.0.cuda_compute_capability()?;
                format!("{}.{}", capability.major, capability.minor)
            }
        })
    }

    fn number(&self, what: Number) -> Told<u64> {
        let threshold = |which| self.0.temperature_threshold(which);
        let ecc = |kind| self.0.total_ecc_errors(kind, EccCounter::Volatile);
        Ok(match what {
            Number::Minor => self.0.minor_number()?.into(),
            Number::ModuleId => raw::module_id(&self.0)?.into(),
            Number::MemoryBytes => self.0.memory_info()?.total,
            Number::MemoryUsedBytes => self.0.memory_info()?.used,
            Number::MaxSmClock => self.0.max_clock_info(Clock::SM)?.into(),
            Number::MaxMemoryClock => self.0.max_clock_info(Clock::Memory)?.into(),
            Number::PowerLimit => self.0.enforced_power_limit()?.into(),
            Number::SlowdownCelsius => threshold(TemperatureThreshold::Slowdown)?.into(),
            Number::ShutdownCelsius => threshold(TemperatureThreshold::Shutdown)?.into(),
            Number::Temperature => self.0.temperature(TemperatureSensor::Gpu)?.into(),
            Number::Power => self.0.power_usage()?.into(),
            Number::SmClock => self.0.clock_info(Clock::SM)?.into(),
            Number::MemoryClock => self.0.clock_info(Clock::Memory)?.into(),
            Number::EccCorrected => ecc(MemoryError::Corrected)?,
            Number::EccUncorrected => ecc(MemoryError::Uncorrected)?,
            Number::Processes => crate::parts::processes(&self.0)?.into(),
            Number::RecoveryAction => self.recovery_action()?,
        })
    }

    fn pci(&self) -> Told<PciId> {
        let pci = self.0.pci_info()?;
        Ok(PciId {
            domain: pci.domain,
            bus: pci.bus,
            device: pci.device,
            id: pci.pci_device_id,
            subsystem: pci.pci_sub_system_id.unwrap_or_default(),
        })
    }

    fn ecc(&self) -> Told<Ecc> {
        let mode = self.0.is_ecc_enabled()?;
        Ok(Ecc { enabled: mode.currently_enabled, pending: mode.pending_enabled })
    }

    fn remapped_rows(&self) -> Told<RemappedRows> {
        let [correctable, uncorrectable, pending, failed] = raw::remapped_rows(&self.0)?;
        Ok(RemappedRows { correctable, uncorrectable, pending: pending != 0, failed: failed != 0 })
    }

    fn mig_mode(&self) -> Told<(bool, bool)> {
        let mode = self.0.mig_mode()?;
        Ok((mode.current != 0, mode.pending != 0))
    }

    fn mig_profile(&self, slot: u32) -> Told<MigProfile> {
        let profile = match raw::mig_profile(&self.0, slot) {
            // A slot that this library does not know.
            Err(NvmlError::InvalidArg) => return Err(Trouble::NotTold),
            answer => answer?,
        };
        let (info, name) = (&profile.info, profile.name()?);
        Ok(MigProfile {
            id: info.id,
            name: name.strip_prefix("MIG ").unwrap_or(&name).to_owned(),
            slices: info.sliceCount,
            memory_bytes: info.memorySizeMB << 20,
            multiprocessors: info.multiprocessorCount,
            copy_engines: info.copyEngineCount,
            decoders: info.decoderCount,
            encoders: info.encoderCount,
            jpegs: info.jpegCount,
            ofas: info.ofaCount,
            max_instances: info.instanceCount,
            placements: Vec::new(),
        })
    }

    fn mig_placements(&self, profile: u32) -> Told<Vec<Placement>> {
        Ok(raw::mig_placements(&self.0, profile)?)
    }

    fn mig_instance(&self, number: u32) -> Told<MigInstance> {
        let mig = match self.0.mig_device_by_index(number) {
            Err(NvmlError::InvalidArg) => return Err(Trouble::NotTold),
            answer => answer?,
        };
        let (gpu_instance, compute_instance) = raw::mig_ids(&mig)?;
        let place = raw::gpu_instance(&self.0, gpu_instance).ok();
        Ok(MigInstance {
            uuid: mig.uuid().ok(),
            gpu_instance,
            compute_instance,
            profile: place.map(|(profile, _)| profile),
            placement: place.map(|(_, placement)| placement),
            ..MigInstance::default()
        })
    }

    fn mig_instances(&self) -> Told<u32> {
        Ok(self.0.mig_device_count()?)
    }

    fn nvlink(&self, link: u32) -> Told<NvLink> {
        let wrapper = self.0.link_wrapper_for(link);
        let active = match wrapper.is_active() {
            // A GPU with fewer links.
            Err(NvmlError::InvalidArg) => return Err(Trouble::NotTold),
            answer => answer?,
        };
        if !active {
            // What a link that is down says of its other end is empty, or old (facts: testbed, NVML without a GPU).
            return Ok(NvLink { link, ..NvLink::default() });
        }
        let remote = wrapper.remote_pci_info().ok().filter(|remote| !remote.bus_id.is_empty());
        let address = remote.and_then(|remote| {
            PciId { domain: remote.domain, bus: remote.bus, device: remote.device, ..PciId::default() }
                .address()
        });
        let kind = raw::nvlink_remote_type(&self.0, link).ok().and_then(|kind| match kind {
            sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU => Some(RemoteKind::Gpu),
            sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_IBMNPU => Some(RemoteKind::Cpu),
            sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH => Some(RemoteKind::Switch),
            _ => None,
        });
        Ok(NvLink { link, active, remote_pci: address, remote_kind: kind })
    }

    fn nvlink_errors(&self, link: u32) -> Told<u64> {
        let wrapper = self.0.link_wrapper_for(link);
        let counters = [
            ErrorCounter::DlReplay,
            ErrorCounter::DlRecovery,
            ErrorCounter::DlCrcFlit,
            ErrorCounter::DlCrcData,
        ];
        let mut sum = None;
        for counter in counters {
            match wrapper.error_counter(counter).map_err(Trouble::from) {
                Ok(errors) => sum = Some(errors.saturating_add(sum.unwrap_or_default())),
                Err(Trouble::NotTold) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        sum.ok_or(Trouble::NotTold)
    }

    fn fabric(&self) -> Told<Fabric> {
        let raw = raw::fabric(&self.0)?;
        let state = match raw.state {
            sys::NVML_GPU_FABRIC_STATE_NOT_SUPPORTED => return Err(Trouble::NotTold),
            sys::NVML_GPU_FABRIC_STATE_NOT_STARTED => FabricState::NotStarted,
            sys::NVML_GPU_FABRIC_STATE_IN_PROGRESS => FabricState::InProgress,
            sys::NVML_GPU_FABRIC_STATE_COMPLETED => FabricState::Completed,
            other => return Err(Trouble::Malformed(format!("{other} is no state of a fabric"))),
        };
        let joined = state == FabricState::Completed;
        Ok(Fabric {
            // One baseboard by itself has a cluster of zeros.
            cluster_uuid: (joined && raw.cluster != [0; 16]).then(|| hyphenated(&raw.cluster)),
            clique_id: joined.then_some(raw.clique),
            state,
            succeeded: joined.then_some(raw.status == sys::nvmlReturn_enum_NVML_SUCCESS),
        })
    }
}

impl Gpu<'_> {
    fn recovery_action(&self) -> Told<u64> {
        let values = match self.0.field_values_for(&[FieldId(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)]) {
            Err(NvmlError::InvalidArg) => return Err(Trouble::NotTold),
            answer => answer?,
        };
        let value = values.into_iter().next().ok_or(Trouble::NotTold)?;
        match value.and_then(|sample| sample.value) {
            Ok(nvml_wrapper::enums::device::SampleValue::U32(action)) => Ok(action.into()),
            Ok(nvml_wrapper::enums::device::SampleValue::U64(action)) => Ok(action),
            // Drivers before 565 do not know the field.
            Ok(_) | Err(NvmlError::InvalidArg) => Err(Trouble::NotTold),
            Err(error) => Err(error.into()),
        }
    }
}

fn hyphenated(bytes: &[u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(*bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Brands as NVIDIA's DRA driver writes them, in lower case.
fn brand(brand: Brand) -> Option<&'static str> {
    Some(match brand {
        Brand::Unknown => return None,
        Brand::Quadro => "quadro",
        Brand::Tesla => "tesla",
        Brand::NVS => "nvs",
        Brand::GRID => "grid",
        Brand::GeForce => "geforce",
        Brand::Titan => "titan",
        Brand::VApps => "nvidia-vapps",
        Brand::VPC => "nvidia-vpc",
        Brand::VCS => "nvidia-vcs",
        Brand::VWS => "nvidia-vws",
        Brand::CloudGaming => "nvidia-cloud-gaming",
        Brand::VGaming => "nvidia-vgaming",
        Brand::QuadroRTX => "quadro-rtx",
        Brand::NvidiaRTX => "nvidia-rtx",
        Brand::Nvidia => "nvidia",
        Brand::GeForceRTX => "geforce-rtx",
        Brand::TitanRTX => "titan-rtx",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_the_system_does_not_have_means_no_driver_and_a_path_that_is_not_there_a_wrong_path() {
        let code = |path: &str| Nvml::open(Some(Path::new(path))).unwrap_err().code();
        assert_eq!(code("libnvidia-ml-of-nobody.so.1"), "gpu.no-driver");
        assert_eq!(code("/nowhere/libnvidia-ml.so.1"), "gpu.library-missing");
        assert_eq!(code("./libnvidia-ml-of-nobody.so.1"), "gpu.library-missing");
    }

    #[test]
    fn a_file_that_is_no_library_is_told_from_a_missing_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Nvml::open(Some(file.path())).unwrap_err().code(), "gpu.library-unusable");
    }

    #[test]
    fn a_library_without_nvml_in_it_is_told() {
        let error = Nvml::load(Path::new("libc.so.6")).unwrap_err();
        assert_eq!(error.code(), "gpu.library-unusable");
    }

    #[test]
    fn a_cluster_of_a_fabric_is_written_as_a_uuid() {
        let bytes: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(hyphenated(&bytes), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}

//! Parts of a GPU: MIG instances, found, made and destroyed. A part is a GPU instance with one compute instance that is all of it.
//!
//! MIG mode itself is never switched here: that resets the GPU, and is the operator's.

use crate::Nvml;
use crate::raw;
use crate::raw::parts::{ComputeInstance, GpuInstance, GpuInstanceInfo};
use crate::source::{Library as _, MIG_SLOTS, Trouble};
use domain::probe::Placement;
use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings as sys;

/// A GPU instance, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub gpu_instance: u32,
    /// Id of its profile.
    pub profile: u32,
    /// Its memory slices.
    pub placement: Placement,
    /// UUID of the MIG device that is all of it, `MIG-…`; `None` where there is none such: it has no compute instance yet, several, or
    /// a smaller one.
    pub uuid: Option<String>,
    /// How many compute instances it has.
    pub compute_instances: usize,
    /// Processes on it, with a compute or a graphics context.
    pub processes: u32,
}

/// Why a part cannot be looked for, made or destroyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// The library has no such function.
    #[error("the driver's library is too old to part GPUs: {0}")]
    TooOld(String),
    /// There is no such GPU.
    #[error("the driver does not show {0}")]
    NoGpu(String),
    /// MIG mode is off, or the GPU has none, or the library does not part it.
    #[error("its MIG mode is off, or the driver does not part it")]
    NotParted,
    /// There is no such profile or place.
    #[error("profile {profile} cannot be put at slice {start}")]
    NoPlace {
        /// Id of the profile.
        profile: u32,
        /// First memory slice.
        start: u32,
    },
    /// Other instances are in the way.
    #[error("other MIG instances leave no room for it")]
    NoRoom,
    /// Processes run on it.
    #[error("processes still use it")]
    InUse,
    /// We may not.
    #[error("it is not permitted: the agent needs to be root, with /dev/nvidia-caps at hand")]
    NotPermitted,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Who parts GPUs. GPUs are named by their UUID as NVML says it.
pub trait Parting {
    /// All parts of a GPU.
    fn parts(&self, gpu: &str) -> Result<Vec<Part>, PartError>;
    /// Makes a part. What is left when it fails half-way is taken away again as far as that goes.
    fn make(&self, gpu: &str, profile: u32, at: Placement) -> Result<Part, PartError>;
    /// Destroys a part, with all that is in it. One that is gone already is no error.
    fn destroy(&self, gpu: &str, gpu_instance: u32) -> Result<(), PartError>;
}

type Outcome<T> = Result<T, PartError>;

impl From<NvmlError> for PartError {
    fn from(error: NvmlError) -> Self {
        match error {
            NvmlError::FailedToLoadSymbol(name) => Self::TooOld(name),
            NvmlError::FunctionNotFound => Self::TooOld("a function is missing".to_owned()),
            NvmlError::NotSupported => Self::NotParted,
            NvmlError::InUse => Self::InUse,
            NvmlError::NoPermission => Self::NotPermitted,
            NvmlError::UnexpectedVariant(sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES) => {
                Self::NoRoom
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

impl Parting for Nvml {
    fn parts(&self, gpu: &str) -> Outcome<Vec<Part>> {
        let device = self.by_uuid(gpu)?;
        let migs = MigDevice::all(&device)?;
        let parts = instances(&device)?.into_iter().map(|(instance, info)| part(instance, info, &migs));
        parts.collect()
    }

    fn make(&self, gpu: &str, profile: u32, at: Placement) -> Outcome<Part> {
        let device = self.by_uuid(gpu)?;
        let no_place = PartError::NoPlace { profile, start: at.start };
        let instance = GpuInstance::create(&device, profile, at).map_err(|error| match error {
            NvmlError::InvalidArg => no_place,
            other => other.into(),
        })?;
        let filled = fill(instance).and_then(|info| part(instance, info, &MigDevice::all(&device)?));
        if filled.is_err() {
            // What stays is a leftover, which whoever needs its place takes away.
            let _ = clear(instance);
        }
        filled
    }

    fn destroy(&self, gpu: &str, gpu_instance: u32) -> Outcome<()> {
        let device = self.by_uuid(gpu)?;
        let found = instances(&device)?.into_iter().find(|(_, info)| info.number == gpu_instance);
        found.map_or(Ok(()), |(instance, _)| clear(instance))
    }
}

impl Nvml {
    fn by_uuid(&self, uuid: &str) -> Outcome<Device<'_>> {
        let count = self.count().unwrap_or_default();
        let devices = (0..count).filter_map(|index| self.0.device_by_index(index).ok());
        let same = |device: &Device<'_>| device.uuid().is_ok_and(|own| own.eq_ignore_ascii_case(uuid));
        let mut same = devices.filter(same);
        match (same.next(), same.next()) {
            (Some(device), None) => Ok(device),
            (Some(_), Some(_)) => Err(PartError::Failed(format!("several GPUs say that they are {uuid}"))),
            (None, _) => Err(PartError::NoGpu(uuid.to_owned())),
        }
    }
}

/// The GPU instances of a GPU, with what they are.
fn instances<'d>(device: &'d Device<'d>) -> Outcome<Vec<(GpuInstance<'d>, GpuInstanceInfo)>> {
    if device.mig_mode()?.current == 0 {
        return Err(PartError::NotParted);
    }
    let mut profiles = Vec::new();
    for slot in 0..MIG_SLOTS {
        match raw::mig_profile(device, slot) {
            Ok(profile) => profiles.push(profile.info.id),
            Err(NvmlError::NotSupported | NvmlError::InvalidArg) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // A driver may tell one profile in several slots.
    profiles.sort_unstable();
    profiles.dedup();
    let mut all: Vec<(GpuInstance<'_>, GpuInstanceInfo)> = Vec::new();
    for profile in profiles {
        for instance in GpuInstance::all(device, profile)? {
            all.push((instance, instance.info()?));
        }
    }
    all.sort_by_key(|(_, info)| info.number);
    Ok(all)
}

/// Makes the compute instance that is all of a GPU instance.
fn fill(instance: GpuInstance<'_>) -> Outcome<GpuInstanceInfo> {
    let (profile, _) = whole(instance)?;
    instance.create_compute_instance(profile)?;
    Ok(instance.info()?)
}

/// Id of the profile of compute instances that is all of a GPU instance, and ids of all that there are.
fn whole(instance: GpuInstance<'_>) -> Outcome<(u32, Vec<u32>)> {
    let profiles = instance.compute_profiles()?;
    let most = profiles.iter().map(|(_, slices)| *slices).max().unwrap_or_default();
    let largest = profiles.iter().find(|(_, slices)| *slices == most);
    let (id, _) = largest.ok_or_else(|| PartError::Failed("it has no compute profile".to_owned()))?;
    Ok((*id, profiles.iter().map(|(id, _)| *id).collect()))
}

/// The compute instances of a GPU instance, and whether there is exactly one, which is all of it.
fn computes(instance: GpuInstance<'_>) -> Outcome<(Vec<ComputeInstance<'_>>, bool)> {
    let (whole, mut profiles) = whole(instance)?;
    profiles.sort_unstable();
    profiles.dedup();
    let mut all = Vec::new();
    for profile in profiles {
        all.extend(instance.compute_instances(profile)?);
    }
    let is_whole = all.len() == 1 && all[0].profile == whole;
    Ok((all, is_whole))
}

fn part(instance: GpuInstance<'_>, info: GpuInstanceInfo, migs: &[MigDevice]) -> Outcome<Part> {
    let (computes, is_whole) = computes(instance)?;
    let mut part = Part {
        gpu_instance: info.number,
        profile: info.profile,
        placement: info.placement,
        uuid: None,
        compute_instances: computes.len(),
        processes: 0,
    };
    for compute in computes {
        let mig =
            migs.iter().find(|mig| (mig.gpu_instance, mig.compute_instance) == (info.number, compute.number));
        let mig = mig.ok_or_else(|| PartError::Failed("a compute instance has no MIG device".to_owned()))?;
        part.processes += mig.processes;
        part.uuid = is_whole.then(|| mig.uuid.clone());
    }
    Ok(part)
}

/// Destroys all that is in a GPU instance, and then it.
fn clear(instance: GpuInstance<'_>) -> Outcome<()> {
    let (computes, _) = computes(instance)?;
    for compute in computes {
        compute.destroy()?;
    }
    Ok(instance.destroy()?)
}

/// A MIG device: what CUDA calls a device.
struct MigDevice {
    gpu_instance: u32,
    compute_instance: u32,
    uuid: String,
    processes: u32,
}

impl MigDevice {
    fn all(device: &Device<'_>) -> Outcome<Vec<Self>> {
        let mut all = Vec::new();
        for index in 0..device.mig_device_count()?.min(64) {
            let mig = match device.mig_device_by_index(index) {
                Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
                answer => answer?,
            };
            let (gpu_instance, compute_instance) = raw::mig_ids(&mig)?;
            let processes = processes(&mig).map_err(|trouble| PartError::Failed(trouble.to_string()))?;
            all.push(Self { gpu_instance, compute_instance, uuid: mig.uuid()?, processes });
        }
        Ok(all)
    }
}

/// Processes with a context on a GPU or a MIG device: for compute, and for graphics where the driver knows such. One that has both
/// counts twice.
pub(crate) fn processes(device: &Device<'_>) -> Result<u32, Trouble> {
    let compute = raw::compute_processes(device)?;
    let graphics = match raw::graphics_processes(device).map_err(Trouble::from) {
        Err(Trouble::NotTold) => 0,
        answer => answer?,
    };
    Ok(compute.saturating_add(graphics))
}

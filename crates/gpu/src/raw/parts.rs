//! GPU instances and compute instances of MIG, by their handles. Those that NVML gives for instances are good until the instance is
//! destroyed; one that is not any more makes NVML answer `NVML_ERROR_INVALID_ARGUMENT`. The lists are written without regard to the
//! length of our buffer, which has room for more than any GPU has of a profile.

use super::{Answer, version};
use domain::probe::Placement;
use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings as sys;
use std::mem::zeroed;

/// Room for instances of one profile; the most that there can be is 8.
const MOST: usize = 64;

/// A GPU instance.
#[derive(Clone, Copy)]
pub(crate) struct GpuInstance<'d> {
    device: &'d Device<'d>,
    handle: sys::nvmlGpuInstance_t,
}

/// What a GPU instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GpuInstanceInfo {
    pub(crate) number: u32,
    pub(crate) profile: u32,
    pub(crate) placement: Placement,
}

/// A compute instance.
pub(crate) struct ComputeInstance<'d> {
    device: &'d Device<'d>,
    handle: sys::nvmlComputeInstance_t,
    pub(crate) number: u32,
    /// Id of its profile, which is one of its GPU instance's.
    pub(crate) profile: u32,
}

impl<'d> GpuInstance<'d> {
    /// All of a profile, by its id.
    pub(crate) fn all(device: &'d Device<'d>, profile: u32) -> Answer<Vec<Self>> {
        let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstances.as_ref())?;
        let mut handles: [sys::nvmlGpuInstance_t; MOST] = [std::ptr::null_mut(); MOST];
        let mut count = 0;
        // SAFETY: see both modules.
        nvml_try(unsafe { symbol(device.handle(), profile, handles.as_mut_ptr(), &raw mut count) })?;
        Ok(handles.into_iter().take(count as usize).map(|handle| Self { device, handle }).collect())
    }

    /// Makes one.
    pub(crate) fn create(device: &'d Device<'d>, profile: u32, at: Placement) -> Answer<Self> {
        let symbol = nvml_sym(device.nvml().lib().nvmlDeviceCreateGpuInstanceWithPlacement.as_ref())?;
        let place = sys::nvmlGpuInstancePlacement_t { start: at.start, size: at.size };
        let mut handle = std::ptr::null_mut();
        // SAFETY: see the upper module; NVML reads the placement and writes a handle.
        nvml_try(unsafe { symbol(device.handle(), profile, &raw const place, &raw mut handle) })?;
        Ok(Self { device, handle })
    }

    /// What it is.
    pub(crate) fn info(&self) -> Answer<GpuInstanceInfo> {
        let symbol = nvml_sym(self.device.nvml().lib().nvmlGpuInstanceGetInfo.as_ref())?;
        // SAFETY: a struct of integers and a handle, for which zeros are a value.
        let mut info: sys::nvmlGpuInstanceInfo_t = unsafe { zeroed() };
        // SAFETY: see both modules.
        nvml_try(unsafe { symbol(self.handle, &raw mut info) })?;
        let placement = Placement { start: info.placement.start, size: info.placement.size };
        Ok(GpuInstanceInfo { number: info.id, profile: info.profileId, placement })
    }

    /// Destroys it; fails while there is anything in it.
    pub(crate) fn destroy(self) -> Answer<()> {
        let symbol = nvml_sym(self.device.nvml().lib().nvmlGpuInstanceDestroy.as_ref())?;
        // SAFETY: see both modules; the handle is given up here.
        nvml_try(unsafe { symbol(self.handle) })
    }

    /// Ids of the profiles of compute instances that it knows, with their compute slices.
    pub(crate) fn compute_profiles(&self) -> Answer<Vec<(u32, u32)>> {
        let lib = self.device.nvml().lib();
        let symbol = nvml_sym(lib.nvmlGpuInstanceGetComputeInstanceProfileInfoV.as_ref())?;
        let mut known = Vec::new();
        for slot in 0..sys::NVML_COMPUTE_INSTANCE_PROFILE_COUNT {
            // SAFETY: a struct of integers, for which zeros are a value.
            let mut info: sys::nvmlComputeInstanceProfileInfo_v2_t = unsafe { zeroed() };
            info.version = version::<sys::nvmlComputeInstanceProfileInfo_v2_t>(2);
            let engines = sys::NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED;
            // SAFETY: see both modules.
            match nvml_try(unsafe { symbol(self.handle, slot, engines, &raw mut info) }) {
                Ok(()) => known.push((info.id, info.sliceCount)),
                // One that does not fit into it, or that this library does not know.
                Err(NvmlError::NotSupported | NvmlError::InvalidArg) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(known)
    }

    /// The compute instances of a profile.
    pub(crate) fn compute_instances(&self, profile: u32) -> Answer<Vec<ComputeInstance<'d>>> {
        let symbol = nvml_sym(self.device.nvml().lib().nvmlGpuInstanceGetComputeInstances.as_ref())?;
        let mut handles: [sys::nvmlComputeInstance_t; MOST] = [std::ptr::null_mut(); MOST];
        let mut count = 0;
        // SAFETY: see both modules.
        nvml_try(unsafe { symbol(self.handle, profile, handles.as_mut_ptr(), &raw mut count) })?;
        let handles = handles.into_iter().take(count as usize);
        handles.map(|handle| ComputeInstance::at(self.device, handle)).collect()
    }

    /// Makes a compute instance of a profile.
    pub(crate) fn create_compute_instance(&self, profile: u32) -> Answer<ComputeInstance<'d>> {
        let symbol = nvml_sym(self.device.nvml().lib().nvmlGpuInstanceCreateComputeInstance.as_ref())?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: see both modules; NVML writes a handle.
        nvml_try(unsafe { symbol(self.handle, profile, &raw mut handle) })?;
        ComputeInstance::at(self.device, handle)
    }
}

impl<'d> ComputeInstance<'d> {
    fn at(device: &'d Device<'d>, handle: sys::nvmlComputeInstance_t) -> Answer<Self> {
        let symbol = nvml_sym(device.nvml().lib().nvmlComputeInstanceGetInfo_v2.as_ref())?;
        // SAFETY: a struct of integers and handles, for which zeros are a value.
        let mut info: sys::nvmlComputeInstanceInfo_t = unsafe { zeroed() };
        // SAFETY: see both modules.
        nvml_try(unsafe { symbol(handle, &raw mut info) })?;
        Ok(Self { device, handle, number: info.id, profile: info.profileId })
    }

    /// Destroys it; fails while processes run on it.
    pub(crate) fn destroy(self) -> Answer<()> {
        let symbol = nvml_sym(self.device.nvml().lib().nvmlComputeInstanceDestroy.as_ref())?;
        // SAFETY: see both modules; the handle is given up here.
        nvml_try(unsafe { symbol(self.handle) })
    }
}

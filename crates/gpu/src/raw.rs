//! What nvml-wrapper does not offer, by the library's own symbols. The one module of this crate with unsafe code.
//!
//! Every call hands NVML pointers to values of ours that live through the call and have the layout that `nvml.h` gives them
//! (nvml-wrapper-sys, made by bindgen); a struct with a version says which. NVML writes no more than that. A device handle is one
//! that NVML itself gave and is good while the library is loaded, which the borrow of [`nvml_wrapper::Device`] ensures.
#![allow(
    unsafe_code,
    reason = "NVML is a C library; the safe wrapper lacks these functions or gets them wrong"
)]

pub(crate) mod parts;

use domain::probe::Placement;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, EventSet, Nvml};
use nvml_wrapper_sys::bindings as sys;
use std::mem::{size_of, zeroed};

type Answer<T> = Result<T, NvmlError>;

/// `NVML_STRUCT_VERSION` of `nvml.h`: the size below, the version in the top byte.
#[expect(clippy::cast_possible_truncation, reason = "no struct of NVML is larger than 24 bits can say")]
const fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
}

/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`: the library does not know this version of a struct.
pub(crate) const VERSION_MISMATCH: u32 = 25;

/// `NVML_ERROR_DEPRECATED`.
pub(crate) const DEPRECATED: u32 = 26;

/// Position on the baseboard.
pub(crate) fn module_id(device: &Device<'_>) -> Answer<u32> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetModuleId.as_ref())?;
    let mut id = 0;
    // SAFETY: see the module.
    nvml_try(unsafe { symbol(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// Correctable, uncorrectable, pending, failed.
pub(crate) fn remapped_rows(device: &Device<'_>) -> Answer<[u32; 4]> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let [mut correctable, mut uncorrectable, mut pending, mut failed] = [0; 4];
    // SAFETY: see the module.
    nvml_try(unsafe {
        symbol(
            device.handle(),
            &raw mut correctable,
            &raw mut uncorrectable,
            &raw mut pending,
            &raw mut failed,
        )
    })?;
    Ok([correctable, uncorrectable, pending, failed])
}

/// Place in a fabric, as NVML has it.
pub(crate) struct RawFabric {
    pub(crate) cluster: [u8; 16],
    pub(crate) clique: u32,
    pub(crate) state: u32,
    pub(crate) status: u32,
}

/// Place in a fabric. Older drivers know an older struct, of which the newer one is an extension.
pub(crate) fn fabric(device: &Device<'_>) -> Answer<RawFabric> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    // SAFETY: a struct of integers, for which zeros are a value.
    let mut info: sys::nvmlGpuFabricInfo_v3_t = unsafe { zeroed() };
    for known in [version::<sys::nvmlGpuFabricInfo_v3_t>(3), version::<sys::nvmlGpuFabricInfo_v2_t>(2)] {
        info.version = known;
        // SAFETY: see the module; version 2 is the beginning of version 3.
        let outcome = nvml_try(unsafe { symbol(device.handle(), &raw mut info) });
        match outcome {
            Err(NvmlError::UnexpectedVariant(VERSION_MISMATCH)) => {}
            Err(other) => return Err(other),
            Ok(()) => {
                return Ok(RawFabric {
                    cluster: info.clusterUuid,
                    clique: info.cliqueId,
                    state: info.state.into(),
                    status: info.status,
                });
            }
        }
    }
    Err(NvmlError::NotSupported)
}

/// A MIG profile, as NVML has it.
pub(crate) struct RawProfile {
    pub(crate) info: sys::nvmlGpuInstanceProfileInfo_v2_t,
}

impl RawProfile {
    /// Its name; the bytes up to the first NUL, of which there may be none.
    pub(crate) fn name(&self) -> Answer<String> {
        // c_char is signed or not, as the machine has it; the bits are what counts.
        #[expect(clippy::cast_sign_loss, reason = "the bits count")]
        let bytes: Vec<u8> = self.info.name.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
        String::from_utf8(bytes).map_err(|error| error.utf8_error().into())
    }
}

/// The profile in a slot.
pub(crate) fn mig_profile(device: &Device<'_>, slot: u32) -> Answer<RawProfile> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceProfileInfoV.as_ref())?;
    // SAFETY: a struct of integers, for which zeros are a value.
    let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = unsafe { zeroed() };
    info.version = version::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2);
    // SAFETY: see the module.
    nvml_try(unsafe { symbol(device.handle(), slot, &raw mut info) })?;
    Ok(RawProfile { info })
}

/// What is at the other end of a link (`nvmlIntNvLinkDeviceType_t`). nvml-wrapper 0.13 throws the answer away.
pub(crate) fn nvlink_remote_type(device: &Device<'_>, link: u32) -> Answer<u32> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetNvLinkRemoteDeviceType.as_ref())?;
    let mut kind = 0;
    // SAFETY: see the module.
    nvml_try(unsafe { symbol(device.handle(), link, &raw mut kind) })?;
    Ok(kind)
}

/// Most placements of one profile that are asked for; there are as many as memory slices, which are 8.
const MAX_PLACEMENTS: usize = 64;

/// Where a profile may be put. nvml-wrapper 0.13 forgets to set the length of its answer, so it always says "nowhere".
pub(crate) fn mig_placements(device: &Device<'_>, profile: u32) -> Answer<Vec<Placement>> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstancePossiblePlacements_v2.as_ref())?;
    let mut count = 0;
    // SAFETY: see the module; without a place to write to, NVML tells the count.
    nvml_try(unsafe { symbol(device.handle(), profile, std::ptr::null_mut(), &raw mut count) })?;
    let mut places = vec![sys::nvmlGpuInstancePlacement_t { start: 0, size: 0 }; MAX_PLACEMENTS];
    if count as usize > places.len() {
        return Err(NvmlError::InsufficientSize(Some(count as usize)));
    }
    // SAFETY: see the module; `count` is at most the length of `places`.
    nvml_try(unsafe { symbol(device.handle(), profile, places.as_mut_ptr(), &raw mut count) })?;
    places.truncate(count as usize);
    Ok(places.iter().map(|place| Placement { start: place.start, size: place.size }).collect())
}

/// Processes with a compute context and with a graphics context, on a GPU or a MIG device. The wrapper's own count of the former is
/// nothing where a library answers with a count and success, as NVIDIA's mock library does; `nvml.h` lets it answer
/// `NVML_ERROR_INSUFFICIENT_SIZE`.
pub(crate) fn compute_processes(device: &Device<'_>) -> Answer<u32> {
    count_processes(device, *nvml_sym(device.nvml().lib().nvmlDeviceGetComputeRunningProcesses_v3.as_ref())?)
}

/// See [`compute_processes`].
pub(crate) fn graphics_processes(device: &Device<'_>) -> Answer<u32> {
    count_processes(device, *nvml_sym(device.nvml().lib().nvmlDeviceGetGraphicsRunningProcesses_v3.as_ref())?)
}

type Processes =
    unsafe extern "C" fn(sys::nvmlDevice_t, *mut u32, *mut sys::nvmlProcessInfo_t) -> sys::nvmlReturn_t;

fn count_processes(device: &Device<'_>, symbol: Processes) -> Answer<u32> {
    let mut count = 0;
    // SAFETY: see the module; without a place to write to, NVML tells the count.
    match unsafe { symbol(device.handle(), &raw mut count, std::ptr::null_mut()) } {
        sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE => Ok(count),
        other => nvml_try(other).map(|()| count),
    }
}

/// Numbers of the GPU instance and the compute instance of a MIG device.
pub(crate) fn mig_ids(mig: &Device<'_>) -> Answer<(u32, u32)> {
    let gpu_instance = nvml_sym(mig.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let compute_instance = nvml_sym(mig.nvml().lib().nvmlDeviceGetComputeInstanceId.as_ref())?;
    let (mut gi, mut ci) = (0, 0);
    // SAFETY: see the module.
    unsafe {
        nvml_try(gpu_instance(mig.handle(), &raw mut gi))?;
        nvml_try(compute_instance(mig.handle(), &raw mut ci))?;
    }
    Ok((gi, ci))
}

/// Profile and place of a GPU instance.
pub(crate) fn gpu_instance(device: &Device<'_>, number: u32) -> Answer<(u32, Placement)> {
    let by_id = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceById.as_ref())?;
    let get_info = nvml_sym(device.nvml().lib().nvmlGpuInstanceGetInfo.as_ref())?;
    let mut instance: sys::nvmlGpuInstance_t = std::ptr::null_mut();
    // SAFETY: a struct of integers and a handle, for which zeros are a value.
    let mut info: sys::nvmlGpuInstanceInfo_t = unsafe { zeroed() };
    // SAFETY: see the module; the second call has the handle that the first one gave.
    unsafe {
        nvml_try(by_id(device.handle(), number, &raw mut instance))?;
        nvml_try(get_info(instance, &raw mut info))?;
    }
    Ok((info.profileId, Placement { start: info.placement.start, size: info.placement.size }))
}

/// Environment, feature and developer-tools mode of confidential computing.
pub(crate) fn confidential_computing(nvml: &Nvml) -> Answer<[u32; 3]> {
    let symbol = nvml_sym(nvml.lib().nvmlSystemGetConfComputeState.as_ref())?;
    // SAFETY: a struct of integers, for which zeros are a value.
    let mut state: sys::nvmlConfComputeSystemState_t = unsafe { zeroed() };
    // SAFETY: see the module.
    nvml_try(unsafe { symbol(&raw mut state) })?;
    Ok([state.environment, state.ccFeature, state.devToolsMode])
}

/// Whether the GPUs take work.
pub(crate) fn gpus_ready(nvml: &Nvml) -> Answer<bool> {
    let symbol = nvml_sym(nvml.lib().nvmlSystemGetConfComputeGpusReadyState.as_ref())?;
    let mut ready = 0;
    // SAFETY: see the module.
    nvml_try(unsafe { symbol(&raw mut ready) })?;
    Ok(ready == sys::NVML_CC_ACCEPTING_CLIENT_REQUESTS_TRUE)
}

/// Those of `wanted` kinds of events that a GPU can tell are told to `set` from now on. The wrapper's own function gives the
/// whole set up when one GPU refuses.
pub(crate) fn register_events(device: &Device<'_>, set: &EventSet<'_>, wanted: u64) -> Answer<()> {
    let supported = nvml_sym(device.nvml().lib().nvmlDeviceGetSupportedEventTypes.as_ref())?;
    let register = nvml_sym(device.nvml().lib().nvmlDeviceRegisterEvents.as_ref())?;
    let mut kinds = 0;
    // SAFETY: see the module; the set is alive while it is borrowed.
    unsafe {
        nvml_try(supported(device.handle(), &raw mut kinds))?;
        if kinds & wanted == 0 {
            return Err(NvmlError::NotSupported);
        }
        nvml_try(register(device.handle(), kinds & wanted, set.handle()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes that `nvml.h` of CUDA 13 gives; a struct that the bindings got wrong would be written past.
    #[test]
    fn the_structs_have_the_sizes_of_the_header() {
        assert_eq!(version::<sys::nvmlGpuFabricInfo_v2_t>(2), 0x0200_0024);
        assert_eq!(version::<sys::nvmlGpuFabricInfo_v3_t>(3), 0x0300_0028);
        assert_eq!(version::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2), 0x0200_0098);
        assert_eq!(size_of::<sys::nvmlConfComputeSystemState_t>(), 12);
        assert_eq!(size_of::<sys::nvmlGpuInstanceInfo_t>(), 24);
        assert_eq!(version::<sys::nvmlComputeInstanceProfileInfo_v2_t>(2), 0x0200_0088);
        assert_eq!(size_of::<sys::nvmlComputeInstanceInfo_t>(), 32);
    }

    #[test]
    fn a_name_that_fills_its_field_is_read_to_its_end_and_no_further() {
        // SAFETY: a struct of integers, for which zeros are a value.
        let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = unsafe { zeroed() };
        info.name = [b'x'.cast_signed(); 96];
        assert_eq!(RawProfile { info }.name().unwrap().len(), 96);
    }
}

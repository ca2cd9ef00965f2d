//! GPU instances and compute instances (`nvml.h`, Multi Instance GPU Management). A handle holds the numbers of the GPU and of the
//! instance, so one of an instance that is gone finds nothing.

use super::{
    COMPUTE, GPU, INSTANCE, INVALID, NOT_SUPPORTED, SET, TOO_SMALL, VERSION_MISMATCH, code, gpu_of, handle,
    put, put_text, version, version_of,
};
use crate::description::Described;
use crate::parting;
use crate::state::{self, Return};
use domain::probe::Placement;
use nvml_wrapper_sys::bindings as sys;
use std::ffi::c_uint;

/// GPU and number of a GPU instance.
fn instance_of(handle: sys::nvmlGpuInstance_t) -> Result<(usize, u32), Return> {
    let at = handle.addr();
    let known = (INSTANCE..COMPUTE).contains(&at).then(|| at - INSTANCE);
    known.map(|at| (at >> 8, (at & 0xff) as u32)).ok_or(INVALID)
}

fn instance_handle(gpu: usize, number: u32) -> sys::nvmlGpuInstance_t {
    handle(INSTANCE + (gpu << 8) + number as usize)
}

/// GPU, number of the GPU instance, and number of a compute instance, of which there are at most eight in one.
fn compute_of(handle: sys::nvmlComputeInstance_t) -> Result<(usize, u32, u32), Return> {
    let at = handle.addr();
    let known = (COMPUTE..SET).contains(&at).then(|| at - COMPUTE);
    known.map(|at| (at >> 8, (at as u32 & 0xff) >> 3, at as u32 & 7)).ok_or(INVALID)
}

fn compute_handle(gpu: usize, number: u32, compute: u32) -> sys::nvmlComputeInstance_t {
    handle(COMPUTE + (gpu << 8) + (number << 3 | compute) as usize)
}

/// Asks a GPU.
fn ask<T>(
    function: &str,
    gpu: usize,
    act: impl FnOnce(&Described) -> Result<T, Return>,
) -> Result<T, Return> {
    state::with(|state| {
        state.check(function, Some(gpu))?;
        act(state.gpus().get(gpu).ok_or(INVALID)?)
    })
}

/// Changes the parts of a GPU.
fn change<T>(
    function: &str,
    gpu: usize,
    act: impl FnOnce(&mut Described) -> Result<T, Return>,
) -> Result<T, Return> {
    state::with(|state| {
        state.check(function, Some(gpu))?;
        state.part(gpu, act)
    })
}

/// Writes handles and how many there are; the caller has promised room for all that there can be.
fn put_all<T>(to: *mut T, count: *mut c_uint, all: Vec<T>) -> Result<(), Return> {
    if to.is_null() {
        return Err(INVALID);
    }
    put(count, all.len() as c_uint)?;
    for (at, one) in all.into_iter().enumerate() {
        // SAFETY: not null, and good for as many as there can be by the caller's promise.
        unsafe { to.add(at).write(one) };
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceCreateGpuInstanceWithPlacement(
    device: sys::nvmlDevice_t,
    profile: c_uint,
    placement: *const sys::nvmlGpuInstancePlacement_t,
    to: *mut sys::nvmlGpuInstance_t,
) -> Return {
    let Some(gpu) = gpu_of(device.addr()) else { return INVALID };
    if placement.is_null() || to.is_null() {
        return INVALID;
    }
    // SAFETY: not null, and good to read by the caller's promise.
    let place = unsafe { placement.read() };
    let place = Placement { start: place.start, size: place.size };
    let made = change("nvmlDeviceCreateGpuInstanceWithPlacement", gpu, |described| {
        parting::create(described, profile, place)
    });
    code(made.and_then(|number| put(to, instance_handle(gpu, number))))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceDestroy(instance: sys::nvmlGpuInstance_t) -> Return {
    code(instance_of(instance).and_then(|(gpu, number)| {
        change("nvmlGpuInstanceDestroy", gpu, |described| parting::destroy(described, number))
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGpuInstances(
    device: sys::nvmlDevice_t,
    profile: c_uint,
    to: *mut sys::nvmlGpuInstance_t,
    count: *mut c_uint,
) -> Return {
    let Some(gpu) = gpu_of(device.addr()) else { return INVALID };
    code(ask("nvmlDeviceGetGpuInstances", gpu, |described| {
        if described.gpu.mig.as_ref().is_none_or(|mig| !mig.enabled) {
            return Err(NOT_SUPPORTED);
        }
        let all = parting::all(described).into_iter().filter(|one| one.profile == profile);
        put_all(to, count, all.map(|one| instance_handle(gpu, one.gpu_instance)).collect())
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGpuInstanceById(
    device: sys::nvmlDevice_t,
    id: c_uint,
    to: *mut sys::nvmlGpuInstance_t,
) -> Return {
    let Some(gpu) = gpu_of(device.addr()) else { return INVALID };
    code(ask("nvmlDeviceGetGpuInstanceById", gpu, |described| {
        put(to, instance_handle(gpu, parting::find(described, id)?.gpu_instance))
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceGetInfo(
    instance: sys::nvmlGpuInstance_t,
    to: *mut sys::nvmlGpuInstanceInfo_t,
) -> Return {
    code(instance_of(instance).and_then(|(gpu, number)| {
        ask("nvmlGpuInstanceGetInfo", gpu, |described| {
            let found = parting::find(described, number)?;
            let (start, size) = (found.placement.start, found.placement.size);
            let placement = sys::nvmlGpuInstancePlacement_t { start, size };
            let (device, id, profile) = (handle(GPU + gpu), found.gpu_instance, found.profile);
            put(to, sys::nvmlGpuInstanceInfo_t { device, id, profileId: profile, placement })
        })
    }))
}

/// Compute slices of a profile of compute instances, if it fits into so many.
fn fitting(profile: c_uint, slices: u32) -> Result<u32, Return> {
    if profile >= sys::NVML_COMPUTE_INSTANCE_PROFILE_COUNT {
        return Err(INVALID);
    }
    let own = parting::COMPUTE_SLICES.get(profile as usize).copied();
    own.filter(|own| *own <= slices).ok_or(NOT_SUPPORTED)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(
    instance: sys::nvmlGpuInstance_t,
    profile: c_uint,
    engine_profile: c_uint,
    to: *mut sys::nvmlComputeInstanceProfileInfo_v2_t,
) -> Return {
    code(instance_of(instance).and_then(|(gpu, number)| {
        ask("nvmlGpuInstanceGetComputeInstanceProfileInfoV", gpu, |described| {
            let known = version::<sys::nvmlComputeInstanceProfileInfo_v2_t>(2);
            if version_of(to)? != known {
                return Err(VERSION_MISMATCH);
            }
            if engine_profile != sys::NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED {
                return Err(INVALID);
            }
            let all = parting::slices(described, &parting::find(described, number)?)?;
            let own = fitting(profile, all)?;
            let mut info = sys::nvmlComputeInstanceProfileInfo_v2_t {
                version: known,
                id: profile,
                sliceCount: own,
                instanceCount: all / own,
                multiprocessorCount: 0,
                sharedCopyEngineCount: 0,
                sharedDecoderCount: 0,
                sharedEncoderCount: 0,
                sharedJpegCount: 0,
                sharedOfaCount: 0,
                name: [0; 96],
            };
            put_text(info.name.as_mut_ptr(), info.name.len(), format!("MIG {own}c.{all}g").as_bytes())?;
            put(to, info)
        })
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceCreateComputeInstance(
    instance: sys::nvmlGpuInstance_t,
    profile: c_uint,
    to: *mut sys::nvmlComputeInstance_t,
) -> Return {
    code(instance_of(instance).and_then(|(gpu, number)| {
        let made = change("nvmlGpuInstanceCreateComputeInstance", gpu, |described| {
            parting::fill(described, number, profile)
        })?;
        put(to, compute_handle(gpu, number, made))
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceGetComputeInstances(
    instance: sys::nvmlGpuInstance_t,
    profile: c_uint,
    to: *mut sys::nvmlComputeInstance_t,
    count: *mut c_uint,
) -> Return {
    code(instance_of(instance).and_then(|(gpu, number)| {
        ask("nvmlGpuInstanceGetComputeInstances", gpu, |described| {
            let slices = parting::slices(described, &parting::find(described, number)?)?;
            let own = fitting(profile, slices)?;
            let computes = parting::computes(described, number);
            // One by itself is all of its GPU instance; several are of one slice each.
            let theirs = if computes.len() == 1 { slices } else { 1 };
            let found = computes.into_iter().filter(|_| own == theirs);
            put_all(to, count, found.map(|compute| compute_handle(gpu, number, compute)).collect())
        })
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlComputeInstanceGetInfo_v2(
    compute: sys::nvmlComputeInstance_t,
    to: *mut sys::nvmlComputeInstanceInfo_t,
) -> Return {
    code(compute_of(compute).and_then(|(gpu, number, own)| {
        ask("nvmlComputeInstanceGetInfo_v2", gpu, |described| {
            let slices = parting::slices(described, &parting::find(described, number)?)?;
            let computes = parting::computes(described, number);
            if !computes.contains(&own) {
                return Err(sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND);
            }
            let size = if computes.len() == 1 { slices } else { 1 };
            let profile = parting::COMPUTE_SLICES.iter().position(|slices| *slices == size);
            put(
                to,
                sys::nvmlComputeInstanceInfo_t {
                    device: handle(GPU + gpu),
                    gpuInstance: instance_handle(gpu, number),
                    id: own,
                    profileId: profile.ok_or(TOO_SMALL)? as c_uint,
                    placement: sys::nvmlComputeInstancePlacement_t { start: 0, size },
                },
            )
        })
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlComputeInstanceDestroy(compute: sys::nvmlComputeInstance_t) -> Return {
    code(compute_of(compute).and_then(|(gpu, number, own)| {
        change("nvmlComputeInstanceDestroy", gpu, |described| parting::drain(described, number, own))
    }))
}

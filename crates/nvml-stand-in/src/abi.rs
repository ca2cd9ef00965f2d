//! The functions of NVML, as far as they are stood in for. The one module with unsafe code.
//!
//! Callers promise what `nvml.h` asks of them: pointers that are null or good for what is written, as long as they say. Handles
//! are numbers in the form of pointers; they are never followed.
#![allow(unsafe_code, reason = "a C library: exported names and the caller's pointers")]
#![allow(unreachable_pub, reason = "C reaches them")]
#![allow(clippy::cast_possible_truncation, reason = "sizes and numbers here are small")]
#![allow(clippy::missing_safety_doc, reason = "nvml.h says what callers promise")]

mod parts;

use crate::description::Described;
use crate::state::{self, Return, State};
use domain::probe::{FabricState, MigInstance, MigProfile, NvLink, RemoteKind};
use nvml_wrapper_sys::bindings as sys;
use std::ffi::{c_char, c_int, c_uint, c_ulonglong};
use std::time::{Duration, Instant};

const OK: Return = sys::nvmlReturn_enum_NVML_SUCCESS;
const INVALID: Return = sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
const NOT_SUPPORTED: Return = sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
const NOT_FOUND: Return = sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
const TOO_SMALL: Return = sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
const TIMEOUT: Return = sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT;
const VERSION_MISMATCH: Return = 25;

/// Handles of GPUs, MIG devices, GPU instances, compute instances and sets of events.
const GPU: usize = 0x1_0000;
const MIG: usize = 0x2_0000;
const INSTANCE: usize = 0x3_0000;
const COMPUTE: usize = 0x4_0000;
const SET: usize = 0x5_0000;

fn code(outcome: Result<(), Return>) -> Return {
    outcome.err().unwrap_or(OK)
}

/// Writes an answer.
fn put<T>(to: *mut T, value: T) -> Result<(), Return> {
    if to.is_null() {
        return Err(INVALID);
    }
    // SAFETY: not null, and good for a T by the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a text and its NUL.
fn put_text(to: *mut c_char, length: usize, text: &[u8]) -> Result<(), Return> {
    if to.is_null() {
        return Err(INVALID);
    }
    if text.len() >= length {
        return Err(TOO_SMALL);
    }
    // SAFETY: not null, good for `length` bytes by the caller's promise, and the text with its NUL is no longer.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

/// The version that the caller wrote into the head of a struct.
fn version_of<T>(of: *const T) -> Result<u32, Return> {
    if of.is_null() {
        return Err(INVALID);
    }
    // SAFETY: not null, and every struct with a version begins with it.
    Ok(unsafe { of.cast::<u32>().read() })
}

fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
}

fn told<T>(value: Option<T>) -> Result<T, Return> {
    value.ok_or(NOT_SUPPORTED)
}

fn system(function: &str, act: impl FnOnce(&mut State) -> Result<(), Return>) -> Return {
    code(state::with(|state| {
        state.check(function, None)?;
        act(state)
    }))
}

/// Asks the GPU of a handle, or the one that a MIG device is part of.
fn ask(
    function: &str,
    device: sys::nvmlDevice_t,
    act: impl FnOnce(&Described) -> Result<(), Return>,
) -> Return {
    code(state::with(|state| {
        let at =
            gpu_of(device.addr()).or_else(|| mig_of(device.addr()).map(|(gpu, _)| gpu)).ok_or(INVALID)?;
        state.check(function, Some(at))?;
        act(state.gpus().get(at).ok_or(INVALID)?)
    }))
}

fn gpu_of(handle: usize) -> Option<usize> {
    (GPU..MIG).contains(&handle).then(|| handle - GPU)
}

/// GPU and position of a MIG device.
fn mig_of(handle: usize) -> Option<(usize, usize)> {
    (MIG..INSTANCE).contains(&handle).then(|| ((handle - MIG) >> 8, (handle - MIG) & 0xff))
}

fn handle<T>(number: usize) -> *mut T {
    std::ptr::without_provenance_mut(number)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Return {
    code(state::start().and_then(|()| state::with(|state| state.check("nvmlInit_v2", None))))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_: c_uint) -> Return {
    nvmlInit_v2()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Return {
    code(state::stop())
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_: Return) -> *const c_char {
    c"an error of the stand-in".as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetDriverVersion(to: *mut c_char, length: c_uint) -> Return {
    system("nvmlSystemGetDriverVersion", |state| {
        let driver = state.host().driver.as_ref();
        put_text(to, length as usize, told(driver.and_then(|driver| driver.version.as_ref()))?.as_bytes())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetNVMLVersion(to: *mut c_char, length: c_uint) -> Return {
    system("nvmlSystemGetNVMLVersion", |state| {
        let driver = state.host().driver.as_ref();
        put_text(to, length as usize, told(driver.and_then(|driver| driver.nvml.as_ref()))?.as_bytes())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetCudaDriverVersion_v2(to: *mut c_int) -> Return {
    system("nvmlSystemGetCudaDriverVersion_v2", |state| {
        let text = told(state.host().driver.as_ref().and_then(|driver| driver.cuda.as_deref()))?;
        let (major, minor) = two_numbers(text)?;
        put(to, major * 1000 + minor * 10)
    })
}

fn two_numbers(text: &str) -> Result<(c_int, c_int), Return> {
    let (first, second) = text.split_once('.').ok_or(NOT_SUPPORTED)?;
    Ok((first.parse().map_err(|_| NOT_SUPPORTED)?, second.parse().map_err(|_| NOT_SUPPORTED)?))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetConfComputeState(to: *mut sys::nvmlConfComputeSystemState_t) -> Return {
    system("nvmlSystemGetConfComputeState", |state| {
        let mode = told(state.host().confidential_computing.as_ref())?;
        let environment = match mode.environment.as_deref() {
            Some("production") => sys::NVML_CC_SYSTEM_ENVIRONMENT_PROD,
            Some("simulated") => sys::NVML_CC_SYSTEM_ENVIRONMENT_SIM,
            _ => sys::NVML_CC_SYSTEM_ENVIRONMENT_UNAVAILABLE,
        };
        let (cc_feature, dev_tools) = (mode.enabled.unwrap_or(false), mode.dev_tools.unwrap_or(false));
        put(
            to,
            sys::nvmlConfComputeSystemState_t {
                environment,
                ccFeature: cc_feature.into(),
                devToolsMode: dev_tools.into(),
            },
        )
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetConfComputeGpusReadyState(to: *mut c_uint) -> Return {
    system("nvmlSystemGetConfComputeGpusReadyState", |state| {
        let mode = state.host().confidential_computing.as_ref();
        put(to, told(mode.and_then(|mode| mode.ready))?.into())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCount_v2(to: *mut c_uint) -> Return {
    system("nvmlDeviceGetCount_v2", |state| put(to, state.gpus().len() as c_uint))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, to: *mut sys::nvmlDevice_t) -> Return {
    let device = handle(GPU + index as usize);
    ask("nvmlDeviceGetHandleByIndex_v2", device, |_| put(to, device))
}

/// A function that tells a text.
macro_rules! text {
    ($function:ident, $field:literal, |$gpu:ident| $value:expr) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $function(device: sys::nvmlDevice_t, to: *mut c_char, length: c_uint) -> Return {
            ask(stringify!($function), device, |described| {
                let $gpu = &described.gpu;
                let mut text = told($value.as_ref())?.clone().into_bytes();
                if described.not_utf8.iter().any(|field| field == $field) {
                    text.push(0xff);
                }
                put_text(to, length as usize, &text)
            })
        }
    };
}

text!(nvmlDeviceGetName, "model", |gpu| gpu.model);
text!(nvmlDeviceGetSerial, "serial", |gpu| gpu.serial);
text!(nvmlDeviceGetBoardPartNumber, "partNumber", |gpu| gpu.part_number);
text!(nvmlDeviceGetVbiosVersion, "vbios", |gpu| gpu.vbios);

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUUID(device: sys::nvmlDevice_t, to: *mut c_char, length: c_uint) -> Return {
    ask("nvmlDeviceGetUUID", device, |described| {
        let uuid = match mig_of(device.addr()) {
            Some((_, at)) => instance(described, at)?.uuid.as_ref(),
            None => described.gpu.uuid.as_ref(),
        };
        put_text(to, length as usize, told(uuid)?.as_bytes())
    })
}

/// A function that tells a number.
macro_rules! number {
    ($function:ident, $kind:ty, |$gpu:ident| $value:expr) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $function(device: sys::nvmlDevice_t, to: *mut $kind) -> Return {
            ask(stringify!($function), device, |described| {
                let $gpu = &described.gpu;
                put(to, told($value)?)
            })
        }
    };
}

number!(nvmlDeviceGetMinorNumber, c_uint, |gpu| gpu.minor);
number!(nvmlDeviceGetModuleId, c_uint, |gpu| gpu.module_id);
number!(nvmlDeviceGetEnforcedPowerLimit, c_uint, |gpu| gpu.limits.power_milliwatts);
number!(nvmlDeviceGetPowerUsage, c_uint, |gpu| gpu.readings.power_milliwatts);
number!(nvmlDeviceGetBrand, c_uint, |gpu| gpu.brand.as_deref().and_then(brand));
number!(nvmlDeviceGetArchitecture, c_uint, |gpu| gpu.architecture.as_deref().and_then(architecture));
number!(nvmlDeviceGetSupportedEventTypes, c_ulonglong, |_gpu| Some(EVENTS));
number!(nvmlDeviceGetMaxMigDeviceCount, c_uint, |gpu| gpu.mig.as_ref().map(|mig| {
    let most = mig.profiles.iter().map(|profile| profile.max_instances).max();
    most.unwrap_or_default().max(mig.instances.len() as c_uint)
}));

const EVENTS: c_ulonglong =
    (sys::nvmlEventTypeXidCriticalError | sys::nvmlEventTypeDoubleBitEccError) as c_ulonglong;

fn brand(name: &str) -> Option<c_uint> {
    Some(match name {
        "tesla" => sys::nvmlBrandType_enum_NVML_BRAND_TESLA,
        "geforce" => sys::nvmlBrandType_enum_NVML_BRAND_GEFORCE,
        "nvidia" => sys::nvmlBrandType_enum_NVML_BRAND_NVIDIA,
        _ => return None,
    })
}

fn architecture(name: &str) -> Option<c_uint> {
    Some(match name {
        "Ampere" => sys::NVML_DEVICE_ARCH_AMPERE,
        "Ada" => sys::NVML_DEVICE_ARCH_ADA,
        "Hopper" => sys::NVML_DEVICE_ARCH_HOPPER,
        "Blackwell" => sys::NVML_DEVICE_ARCH_BLACKWELL,
        _ => return None,
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: sys::nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> Return {
    ask("nvmlDeviceGetCudaComputeCapability", device, |described| {
        let (first, second) = two_numbers(told(described.gpu.compute_capability.as_deref())?)?;
        put(major, first)?;
        put(minor, second)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPciInfo_v3(device: sys::nvmlDevice_t, to: *mut sys::nvmlPciInfo_t) -> Return {
    ask("nvmlDeviceGetPciInfo_v3", device, |described| {
        let pci = &described.gpu.pci;
        let mut info = pci_info(told(pci.address.as_deref())?)?;
        info.pciDeviceId = pci.device_id.as_deref().and_then(packed).unwrap_or_default();
        info.pciSubSystemId = pci.subsystem_id.as_deref().and_then(packed).unwrap_or_default();
        put(to, info)
    })
}

/// `10de:2330` as NVML packs it.
fn packed(ids: &str) -> Option<u32> {
    let (vendor, device) = ids.split_once(':')?;
    Some(u32::from_str_radix(device, 16).ok()? << 16 | u32::from_str_radix(vendor, 16).ok()?)
}

fn pci_info(address: &str) -> Result<sys::nvmlPciInfo_t, Return> {
    let mut parts =
        address.split([':', '.']).map(|part| u32::from_str_radix(part, 16).map_err(|_| NOT_SUPPORTED));
    let mut next = || parts.next().unwrap_or(Err(NOT_SUPPORTED));
    let (domain, bus, device) = (next()?, next()?, next()?);
    let mut info = sys::nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain,
        bus,
        device,
        pciDeviceId: 0,
        pciSubSystemId: 0,
        busId: [0; 32],
    };
    let text = format!("{domain:08X}:{bus:02X}:{device:02X}.0");
    put_text(info.busId.as_mut_ptr(), info.busId.len(), text.as_bytes())?;
    Ok(info)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: sys::nvmlDevice_t,
    to: *mut sys::nvmlMemory_v2_t,
) -> Return {
    ask("nvmlDeviceGetMemoryInfo_v2", device, |described| {
        let known = version::<sys::nvmlMemory_v2_t>(2);
        if version_of(to)? != known {
            return Err(VERSION_MISMATCH);
        }
        let total = told(described.gpu.memory_bytes)?;
        let used = described.gpu.readings.memory_used_bytes.unwrap_or_default();
        put(
            to,
            sys::nvmlMemory_v2_t {
                version: known,
                total,
                reserved: 0,
                free: total.saturating_sub(used),
                used,
            },
        )
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTemperature(device: sys::nvmlDevice_t, _: c_uint, to: *mut c_uint) -> Return {
    ask("nvmlDeviceGetTemperature", device, |d| put(to, told(d.gpu.readings.temperature_celsius)?))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: sys::nvmlDevice_t,
    which: c_uint,
    to: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetTemperatureThreshold", device, |described| {
        let limits = &described.gpu.limits;
        // nvmlTemperatureThresholds_t
        let limit = match which {
            0 => limits.shutdown_celsius,
            1 => limits.slowdown_celsius,
            _ => None,
        };
        put(to, told(limit)?)
    })
}

/// `nvmlClockType_t`.
fn clock(which: c_uint, sm: Option<u32>, memory: Option<u32>) -> Result<u32, Return> {
    told(match which {
        0 | 1 => sm,
        2 => memory,
        _ => None,
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMaxClockInfo(
    device: sys::nvmlDevice_t,
    which: c_uint,
    to: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetMaxClockInfo", device, |described| {
        let limits = &described.gpu.limits;
        put(to, clock(which, limits.sm_clock_mhz, limits.memory_clock_mhz)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetClockInfo(
    device: sys::nvmlDevice_t,
    which: c_uint,
    to: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetClockInfo", device, |described| {
        let readings = &described.gpu.readings;
        put(to, clock(which, readings.sm_clock_mhz, readings.memory_clock_mhz)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetEccMode(
    device: sys::nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetEccMode", device, |described| {
        let ecc = told(described.gpu.ecc.as_ref())?;
        put(current, ecc.enabled.into())?;
        put(pending, ecc.pending.into())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: sys::nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    to: *mut c_ulonglong,
) -> Return {
    ask("nvmlDeviceGetTotalEccErrors", device, |described| {
        let readings = &described.gpu.readings;
        // nvmlMemoryErrorType_t; of nvmlEccCounterType_t the volatile one alone is described
        let errors = match (kind, counter) {
            (0, 0) => readings.ecc_corrected,
            (1, 0) => readings.ecc_uncorrected,
            _ => None,
        };
        put(to, told(errors)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetRemappedRows(
    device: sys::nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetRemappedRows", device, |described| {
        let rows = told(described.gpu.remapped_rows.as_ref())?;
        put(correctable, rows.correctable)?;
        put(uncorrectable, rows.uncorrectable)?;
        put(pending, rows.pending.into())?;
        put(failed, rows.failed.into())
    })
}

/// Who they are is not described: a caller learns how many there are, and that its place was too small.
fn put_processes(described: &Described, count: *mut c_uint, processes: u32) -> Result<(), Return> {
    put(count, processes)?;
    if processes == 0 || described.counts_with_success { Ok(()) } else { Err(TOO_SMALL) }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: sys::nvmlDevice_t,
    count: *mut c_uint,
    _: *mut sys::nvmlProcessInfo_t,
) -> Return {
    ask("nvmlDeviceGetComputeRunningProcesses_v3", device, |described| {
        let Some((_, at)) = mig_of(device.addr()) else {
            return put_processes(described, count, told(described.gpu.readings.processes)?);
        };
        let of_instance = described.instance_processes.get(&instance(described, at)?.gpu_instance);
        put_processes(described, count, of_instance.copied().unwrap_or_default())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: sys::nvmlDevice_t,
    count: *mut c_uint,
    _: *mut sys::nvmlProcessInfo_t,
) -> Return {
    ask("nvmlDeviceGetGraphicsRunningProcesses_v3", device, |described| {
        let of_gpu = gpu_of(device.addr()).map(|_| described.graphics_processes);
        put_processes(described, count, of_gpu.unwrap_or_default())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: sys::nvmlDevice_t,
    count: c_int,
    values: *mut sys::nvmlFieldValue_t,
) -> Return {
    ask("nvmlDeviceGetFieldValues", device, |described| {
        if values.is_null() || count < 1 {
            return Err(INVALID);
        }
        for at in 0..count.unsigned_abs() as usize {
            // SAFETY: not null, and good for `count` values by the caller's promise.
            let value = unsafe { &mut *values.add(at) };
            let known = value.fieldId == sys::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION;
            match described.recovery_action.filter(|_| known) {
                Some(action) => {
                    value.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
                    value.value.uiVal = action;
                    value.nvmlReturn = OK;
                }
                None => value.nvmlReturn = NOT_SUPPORTED,
            }
        }
        Ok(())
    })
}

fn link(described: &Described, number: c_uint) -> Result<&NvLink, Return> {
    if number >= sys::NVML_NVLINK_MAX_LINKS {
        return Err(INVALID);
    }
    told(described.gpu.nvlinks.iter().find(|link| link.link == number))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNvLinkState(
    device: sys::nvmlDevice_t,
    number: c_uint,
    to: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetNvLinkState", device, |described| put(to, link(described, number)?.active.into()))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: sys::nvmlDevice_t,
    number: c_uint,
    to: *mut sys::nvmlPciInfo_t,
) -> Return {
    ask("nvmlDeviceGetNvLinkRemotePciInfo_v2", device, |described| {
        put(to, pci_info(told(link(described, number)?.remote_pci.as_deref())?)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNvLinkRemoteDeviceType(
    device: sys::nvmlDevice_t,
    number: c_uint,
    to: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetNvLinkRemoteDeviceType", device, |described| {
        let kind = match link(described, number)?.remote_kind {
            Some(RemoteKind::Gpu) => sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
            Some(RemoteKind::Cpu) => sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_IBMNPU,
            Some(RemoteKind::Switch) => sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH,
            None => sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN,
        };
        put(to, kind)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: sys::nvmlDevice_t,
    number: c_uint,
    counter: c_uint,
    to: *mut c_ulonglong,
) -> Return {
    ask("nvmlDeviceGetNvLinkErrorCounter", device, |described| {
        link(described, number)?;
        // The sum is described; it is told as replays of the first link.
        let sum = told(described.gpu.readings.nvlink_errors)?;
        let first = described.gpu.nvlinks.iter().find(|link| link.active).is_some_and(|l| l.link == number);
        put(to, if first && counter == 0 { sum } else { 0 })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: sys::nvmlDevice_t,
    to: *mut sys::nvmlGpuFabricInfoV_t,
) -> Return {
    ask("nvmlDeviceGetGpuFabricInfoV", device, |described| {
        // Drivers of 2025 know version 2.
        let known = version::<sys::nvmlGpuFabricInfo_v2_t>(2);
        if version_of(to)? != known {
            return Err(VERSION_MISMATCH);
        }
        let fabric = told(described.gpu.fabric.as_ref())?;
        let state = match fabric.state {
            FabricState::NotStarted => sys::NVML_GPU_FABRIC_STATE_NOT_STARTED,
            FabricState::InProgress => sys::NVML_GPU_FABRIC_STATE_IN_PROGRESS,
            FabricState::Completed => sys::NVML_GPU_FABRIC_STATE_COMPLETED,
        };
        let hex = fabric.cluster_uuid.as_deref().unwrap_or_default().replace('-', "");
        let cluster = u128::from_str_radix(&hex, 16).unwrap_or_default().to_be_bytes();
        let failed = fabric.succeeded == Some(false);
        let info = sys::nvmlGpuFabricInfo_v2_t {
            version: known,
            clusterUuid: cluster,
            status: if failed { sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN } else { OK },
            cliqueId: fabric.clique_id.unwrap_or_default(),
            state: state as u8,
            healthMask: 0,
        };
        put(to.cast(), info)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigMode(
    device: sys::nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetMigMode", device, |described| {
        let mig = told(described.gpu.mig.as_ref())?;
        put(current, mig.enabled.into())?;
        put(pending, mig.pending.into())
    })
}

/// The slot of a profile is its place in the description.
fn profile(
    described: &Described,
    matches: impl Fn(usize, &MigProfile) -> bool,
) -> Result<&MigProfile, Return> {
    let profiles = &told(described.gpu.mig.as_ref())?.profiles;
    let found = profiles.iter().enumerate().find(|(slot, profile)| matches(*slot, profile));
    found.map(|(_, profile)| profile).ok_or(NOT_SUPPORTED)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoV(
    device: sys::nvmlDevice_t,
    slot: c_uint,
    to: *mut sys::nvmlGpuInstanceProfileInfo_v2_t,
) -> Return {
    ask("nvmlDeviceGetGpuInstanceProfileInfoV", device, |described| {
        if slot >= sys::NVML_GPU_INSTANCE_PROFILE_COUNT {
            return Err(INVALID);
        }
        let known = version::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2);
        if version_of(to)? != known {
            return Err(VERSION_MISMATCH);
        }
        let profile = profile(described, |at, _| at == slot as usize)?;
        let mut info = sys::nvmlGpuInstanceProfileInfo_v2_t {
            version: known,
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.slices,
            instanceCount: profile.max_instances,
            multiprocessorCount: profile.multiprocessors,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.decoders,
            encoderCount: profile.encoders,
            jpegCount: profile.jpegs,
            ofaCount: profile.ofas,
            memorySizeMB: profile.memory_bytes >> 20,
            name: [0; 96],
        };
        let name = format!("MIG {}", profile.name);
        put_text(info.name.as_mut_ptr(), info.name.len(), name.as_bytes())?;
        put(to, info)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
    device: sys::nvmlDevice_t,
    id: c_uint,
    places: *mut sys::nvmlGpuInstancePlacement_t,
    count: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetGpuInstancePossiblePlacements_v2", device, |described| {
        let all = &profile(described, |_, profile| profile.id == id)?.placements;
        if count.is_null() {
            return Err(INVALID);
        }
        if !places.is_null() {
            // SAFETY: `count` is not null and holds how many fit.
            if (unsafe { count.read() } as usize) < all.len() {
                return Err(TOO_SMALL);
            }
            for (at, place) in all.iter().enumerate() {
                let place = sys::nvmlGpuInstancePlacement_t { start: place.start, size: place.size };
                // SAFETY: not null, and good for `count` places, of which this is one.
                unsafe { places.add(at).write(place) };
            }
        }
        put(count, all.len() as c_uint)
    })
}

fn instance(described: &Described, at: usize) -> Result<&MigInstance, Return> {
    told(described.gpu.mig.as_ref())?.instances.get(at).ok_or(NOT_FOUND)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: sys::nvmlDevice_t,
    index: c_uint,
    to: *mut sys::nvmlDevice_t,
) -> Return {
    ask("nvmlDeviceGetMigDeviceHandleByIndex", device, |described| {
        instance(described, index as usize)?;
        let gpu = gpu_of(device.addr()).ok_or(INVALID)?;
        put(to, handle(MIG + (gpu << 8) + index as usize))
    })
}

/// Asks a MIG device.
fn ask_mig(
    function: &str,
    device: sys::nvmlDevice_t,
    to: *mut c_uint,
    which: impl FnOnce(&MigInstance) -> u32,
) -> Return {
    ask(function, device, |described| {
        let (_, at) = mig_of(device.addr()).ok_or(INVALID)?;
        put(to, which(instance(described, at)?))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGpuInstanceId(device: sys::nvmlDevice_t, to: *mut c_uint) -> Return {
    ask_mig("nvmlDeviceGetGpuInstanceId", device, to, |instance| instance.gpu_instance)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetComputeInstanceId(device: sys::nvmlDevice_t, to: *mut c_uint) -> Return {
    ask_mig("nvmlDeviceGetComputeInstanceId", device, to, |instance| instance.compute_instance)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetCreate(to: *mut sys::nvmlEventSet_t) -> Return {
    system("nvmlEventSetCreate", |state| put(to, handle(SET + state.new_set())))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: sys::nvmlEventSet_t) -> Return {
    system("nvmlEventSetFree", |state| state.free_set(set.addr().saturating_sub(SET)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    device: sys::nvmlDevice_t,
    kinds: c_ulonglong,
    set: sys::nvmlEventSet_t,
) -> Return {
    code(state::with(|state| {
        let gpu = gpu_of(device.addr()).ok_or(INVALID)?;
        state.check("nvmlDeviceRegisterEvents", Some(gpu))?;
        state.set(set.addr().saturating_sub(SET))?.push((gpu, kinds));
        Ok(())
    }))
}

/// How often a wait looks whether the file has new events. Seldom: a driver's wait costs nothing, and agents are measured over this.
const LOOK: Duration = Duration::from_millis(100);

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetWait_v2(
    set: sys::nvmlEventSet_t,
    to: *mut sys::nvmlEventData_t,
    milliseconds: c_uint,
) -> Return {
    let until = Instant::now() + Duration::from_millis(milliseconds.into());
    loop {
        let next = state::with(|state| {
            state.check("nvmlEventSetWait_v2", None)?;
            state.next_event(set.addr().saturating_sub(SET))
        });
        match next {
            Err(error) => return error,
            Ok(Some((gpu, xid))) => {
                return code(put(
                    to,
                    sys::nvmlEventData_t {
                        device: handle(GPU + gpu),
                        eventType: sys::nvmlEventTypeXidCriticalError.into(),
                        eventData: xid,
                        gpuInstanceId: u32::MAX,
                        computeInstanceId: u32::MAX,
                    },
                ));
            }
            Ok(None) if Instant::now() >= until => return TIMEOUT,
            Ok(None) => std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now()))),
        }
    }
}

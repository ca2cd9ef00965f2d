//! The rules by which a GPU is parted (pure): where an instance may be, what is in its way, what must be gone before it.
//!
//! A compute instance is always all of its GPU instance; a description may have smaller ones, which can be destroyed only.

use crate::description::{Described, EmptyInstance};
use crate::state::Return;
use domain::probe::{Mig, MigInstance, MigProfile, Placement};
use nvml_wrapper_sys::bindings as sys;

const INVALID: Return = sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
const NOT_SUPPORTED: Return = sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
const NOT_FOUND: Return = sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
const IN_USE: Return = sys::nvmlReturn_enum_NVML_ERROR_IN_USE;
const INSUFFICIENT: Return = sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES;

/// Compute slices by the number of their profile (`NVML_COMPUTE_INSTANCE_PROFILE_*`); the eighth is another of one slice.
pub(crate) const COMPUTE_SLICES: [u32; 7] = [1, 2, 3, 4, 7, 8, 6];

/// The MIG of a GPU whose mode is on.
fn parted(described: &Described) -> Result<&Mig, Return> {
    described.gpu.mig.as_ref().filter(|mig| mig.enabled).ok_or(NOT_SUPPORTED)
}

/// All GPU instances: those with a compute instance, each once, and those without.
pub(crate) fn all(described: &Described) -> Vec<EmptyInstance> {
    let mut all = described.empty_instances.clone();
    for instance in described.gpu.mig.iter().flat_map(|mig| &mig.instances) {
        let (Some(profile), Some(placement)) = (instance.profile, instance.placement) else { continue };
        if all.iter().all(|known| known.gpu_instance != instance.gpu_instance) {
            all.push(EmptyInstance { gpu_instance: instance.gpu_instance, profile, placement });
        }
    }
    all
}

/// The GPU instance of a number.
pub(crate) fn find(described: &Described, number: u32) -> Result<EmptyInstance, Return> {
    all(described).into_iter().find(|instance| instance.gpu_instance == number).ok_or(NOT_FOUND)
}

/// Compute slices of a GPU instance.
pub(crate) fn slices(described: &Described, instance: &EmptyInstance) -> Result<u32, Return> {
    Ok(profile(parted(described)?, instance.profile)?.slices)
}

fn profile(mig: &Mig, id: u32) -> Result<&MigProfile, Return> {
    mig.profiles.iter().find(|profile| profile.id == id).ok_or(INVALID)
}

/// Numbers of the compute instances of a GPU instance.
pub(crate) fn computes(described: &Described, number: u32) -> Vec<u32> {
    let instances = described.gpu.mig.iter().flat_map(|mig| &mig.instances);
    instances.filter(|one| one.gpu_instance == number).map(|one| one.compute_instance).collect()
}

/// Makes a GPU instance, and gives its number.
pub(crate) fn create(described: &mut Described, id: u32, place: Placement) -> Result<u32, Return> {
    let mig = parted(described)?;
    let wanted = profile(mig, id)?;
    if !wanted.placements.contains(&place) {
        return Err(INVALID);
    }
    let there = all(described);
    let overlap =
        |other: &Placement| place.start < other.start + other.size && other.start < place.start + place.size;
    let of_profile = there.iter().filter(|other| other.profile == id).count();
    let used: u32 = there.iter().filter_map(|other| profile(mig, other.profile).ok()).map(|p| p.slices).sum();
    let most = mig.profiles.iter().map(|profile| profile.slices).max().unwrap_or_default();
    if there.iter().any(|other| overlap(&other.placement))
        || of_profile >= wanted.max_instances as usize
        || used + wanted.slices > most
    {
        return Err(INSUFFICIENT);
    }
    // Number 0 is that of the instance that is all of its GPU.
    let first = u32::from(wanted.slices < most);
    let free = (first..32).find(|number| there.iter().all(|other| other.gpu_instance != *number));
    let number = free.ok_or(INSUFFICIENT)?;
    described.empty_instances.push(EmptyInstance { gpu_instance: number, profile: id, placement: place });
    Ok(number)
}

/// Makes the compute instance that is all of a GPU instance, by the id of its profile, and gives its number.
pub(crate) fn fill(described: &mut Described, number: u32, id: u32) -> Result<u32, Return> {
    let instance = find(described, number)?;
    let wanted = COMPUTE_SLICES.get(id as usize).ok_or(INVALID)?;
    if slices(described, &instance)? != *wanted {
        return Err(NOT_SUPPORTED);
    }
    if !computes(described, number).is_empty() {
        return Err(INSUFFICIENT);
    }
    // Like the driver's, the UUID is the same when the same is made again.
    let head = described.gpu.uuid.as_deref().and_then(|uuid| uuid.get(4..28)).ok_or(NOT_SUPPORTED)?;
    let made = MigInstance {
        uuid: Some(format!("MIG-{head}{number:06x}000000")),
        gpu_instance: number,
        compute_instance: 0,
        profile: Some(instance.profile),
        placement: Some(instance.placement),
        ..MigInstance::default()
    };
    described.empty_instances.retain(|empty| empty.gpu_instance != number);
    described.gpu.mig.as_mut().ok_or(NOT_SUPPORTED)?.instances.push(made);
    Ok(0)
}

/// Destroys a compute instance.
pub(crate) fn drain(described: &mut Described, number: u32, compute: u32) -> Result<(), Return> {
    let instance = find(described, number)?;
    if !computes(described, number).contains(&compute) {
        return Err(NOT_FOUND);
    }
    idle(described, number)?;
    let mig = described.gpu.mig.as_mut().ok_or(NOT_SUPPORTED)?;
    mig.instances.retain(|one| (one.gpu_instance, one.compute_instance) != (number, compute));
    if computes(described, number).is_empty() {
        described.empty_instances.push(instance);
    }
    Ok(())
}

/// Destroys a GPU instance.
pub(crate) fn destroy(described: &mut Described, number: u32) -> Result<(), Return> {
    find(described, number)?;
    idle(described, number)?;
    if !computes(described, number).is_empty() {
        return Err(IN_USE);
    }
    described.empty_instances.retain(|empty| empty.gpu_instance != number);
    Ok(())
}

fn idle(described: &Described, number: u32) -> Result<(), Return> {
    let processes = described.instance_processes.get(&number).copied().unwrap_or_default();
    if processes == 0 { Ok(()) } else { Err(IN_USE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Description;

    /// The first GPU of an H100 host, with MIG mode on or off.
    fn gpu(enabled: bool) -> Described {
        let host = Description::parse(crate::host("h100").unwrap()).unwrap();
        let mut gpu = host.gpus().unwrap().remove(0);
        gpu.gpu.mig.as_mut().unwrap().enabled = enabled;
        gpu
    }

    const fn at(start: u32, size: u32) -> Placement {
        Placement { start, size }
    }

    #[test]
    fn instances_are_made_where_their_profile_allows_and_nothing_is_in_the_way() {
        let mut gpu = gpu(true);
        assert_eq!(create(&mut gpu, 9, at(4, 4)), Ok(1));
        assert_eq!(create(&mut gpu, 19, at(4, 1)), Err(INSUFFICIENT), "overlaps");
        assert_eq!(create(&mut gpu, 9, at(2, 4)), Err(INVALID), "no place of this profile");
        assert_eq!(create(&mut gpu, 77, at(0, 1)), Err(INVALID), "no profile");
        assert_eq!(create(&mut gpu, 20, at(0, 1)), Ok(2));
        assert_eq!(create(&mut gpu, 20, at(1, 1)), Err(INSUFFICIENT), "one of this profile only");
        assert_eq!(create(&mut gpu, 0, at(0, 8)), Err(INSUFFICIENT));
    }

    #[test]
    fn nothing_is_made_while_the_mode_is_off() {
        assert_eq!(create(&mut gpu(false), 19, at(0, 1)), Err(NOT_SUPPORTED));
    }

    #[test]
    fn an_instance_goes_after_what_is_in_it() {
        let mut gpu = gpu(true);
        assert_eq!(create(&mut gpu, 14, at(2, 2)), Ok(1));
        assert_eq!(fill(&mut gpu, 1, 0), Err(NOT_SUPPORTED), "smaller than its GPU instance");
        assert_eq!(fill(&mut gpu, 1, 1), Ok(0));
        assert_eq!(fill(&mut gpu, 1, 1), Err(INSUFFICIENT), "it is full");
        let uuid = gpu.gpu.mig.as_ref().unwrap().instances[0].uuid.clone().unwrap();
        assert_eq!(uuid, "MIG-2044406b-f64b-ea2d-f8a5-000001000000");
        assert_eq!(destroy(&mut gpu, 1), Err(IN_USE));
        gpu.instance_processes.insert(1, 2);
        assert_eq!(drain(&mut gpu, 1, 0), Err(IN_USE), "processes run on it");
        gpu.instance_processes.clear();
        assert_eq!(drain(&mut gpu, 1, 0), Ok(()));
        assert_eq!(destroy(&mut gpu, 1), Ok(()));
        assert!(all(&gpu).is_empty());
        assert_eq!(destroy(&mut gpu, 1), Err(NOT_FOUND));
    }
}

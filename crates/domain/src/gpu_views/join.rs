//! Which entries of the views speak of the same GPU.

use super::{MachineViews, SpdmGpu, View};
use crate::inventory::Gpu;
use crate::probe::ProbedGpu;
use std::collections::BTreeMap;

/// What the views say of one GPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Group<'a> {
    pub(super) redfish: Option<&'a Gpu>,
    pub(super) spdm: Option<&'a SpdmGpu>,
    pub(super) nvml: Option<&'a ProbedGpu>,
}

/// By what entries are joined, strongest first.
const KEYS: [fn(&Group<'_>) -> Vec<String>; 5] = [
    |group| group.uuids().into_iter().map(|(_, uuid)| uuid).collect(),
    |group| group.serials().into_iter().map(|(_, serial)| serial).collect(),
    |group| group.paths(),
    |group| group.addresses().into_iter().map(|(_, address)| address).collect(),
    |group| group.position().map(|position| position.to_string()).into_iter().collect(),
];

/// Joins the views of one machine.
pub(super) fn join<'a>(views: &MachineViews<'a>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let redfish = views.redfish.unwrap_or_default().iter();
    attach(&mut groups, redfish.map(|gpu| Group { redfish: Some(gpu), ..Group::default() }).collect());
    let spdm = views.spdm.unwrap_or_default().iter();
    attach(&mut groups, spdm.map(|gpu| Group { spdm: Some(gpu), ..Group::default() }).collect());
    let nvml = views.nvml.unwrap_or_default().iter();
    attach(&mut groups, nvml.map(|gpu| Group { nvml: Some(gpu), ..Group::default() }).collect());
    groups
}

/// Joins the entries of one more view to what is there, key by key; what finds no partner stands alone.
fn attach<'a>(groups: &mut Vec<Group<'a>>, entries: Vec<Group<'a>>) {
    let mut free: Vec<usize> = (0..groups.len()).collect();
    let mut entries = entries;
    for key in KEYS {
        let there = once(free.iter().map(|at| (*at, key(&groups[*at]))));
        let new = once(entries.iter().map(key).enumerate());
        // An entry with two keys, of a GPU whose views differ, may fit two groups: the first by number of the key's text.
        let mut taken = BTreeMap::new();
        for (text, entry) in new {
            if let Some(group) = there.get(&text)
                && !taken.contains_key(group)
                && !taken.values().any(|other| *other == entry)
            {
                taken.insert(*group, entry);
            }
        }
        for (group, entry) in &taken {
            groups[*group].add(entries[*entry]);
        }
        free.retain(|at| !taken.contains_key(at));
        let mut at = 0;
        entries.retain(|_| {
            at += 1;
            !taken.values().any(|entry| *entry == at - 1)
        });
    }
    groups.extend(entries);
}

/// Those keys that name one thing alone.
fn once(keys: impl Iterator<Item = (usize, Vec<String>)>) -> BTreeMap<String, usize> {
    let mut all: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, keys) in keys {
        for key in keys {
            let places = all.entry(key).or_default();
            if places.last() != Some(&at) {
                places.push(at);
            }
        }
    }
    all.into_iter()
        .filter_map(|(key, places)| <[usize; 1]>::try_from(places).ok().map(|[at]| (key, at)))
        .collect()
}

impl<'a> Group<'a> {
    fn add(&mut self, other: Self) {
        self.redfish = self.redfish.or(other.redfish);
        self.spdm = self.spdm.or(other.spdm);
        self.nvml = self.nvml.or(other.nvml);
    }

    /// UUIDs by view, in lower case, without NVML's prefix.
    pub(super) fn uuids(&self) -> Vec<(View, String)> {
        let bare = |uuid: Option<&String>| {
            let lower = known(uuid)?.to_ascii_lowercase();
            Some(lower.strip_prefix("gpu-").map(str::to_owned).unwrap_or(lower))
        };
        let own = |gpu: &SpdmGpu| bare(gpu.uuid.as_ref()).filter(|_| self.has_own_certificate());
        self.each(|gpu| bare(gpu.uuid.as_ref()), own, |gpu| bare(gpu.uuid.as_ref()))
    }

    /// Serial numbers by view, in lower case.
    pub(super) fn serials(&self) -> Vec<(View, String)> {
        let lower = |serial: Option<&String>| known(serial).map(str::to_ascii_lowercase);
        self.each(
            |gpu| lower(gpu.serial.as_ref()),
            |gpu| lower(gpu.serial.as_ref()).filter(|_| self.has_own_certificate()),
            |gpu| lower(gpu.serial.as_ref()),
        )
    }

    /// PCI addresses by view, in lower case.
    pub(super) fn addresses(&self) -> Vec<(View, String)> {
        let lower = |address: Option<&String>| known(address).map(str::to_ascii_lowercase);
        self.each(|gpu| lower(gpu.pci_address.as_ref()), |_| None, |gpu| lower(gpu.pci.address.as_ref()))
    }

    /// Models by view.
    pub(super) fn models(&self) -> Vec<(View, String)> {
        let own = |model: Option<&String>| known(model).map(str::to_owned);
        self.each(|gpu| own(gpu.model.as_ref()), |_| None, |gpu| own(gpu.model.as_ref()))
    }

    /// Whether its certificate is its own, and not that of a root of trust beside it: the part that has it is the GPU, or the
    /// subject is who another view says that the GPU is. Where the BMC says nothing else, the subject is taken at its word.
    fn has_own_certificate(&self) -> bool {
        let (Some(spdm), Some(redfish)) = (self.spdm, self.redfish) else { return true };
        let same = |one: &Option<String>, other: &Option<String>| {
            known(one.as_ref()).zip(known(other.as_ref())).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        let is = |serial, uuid| same(&spdm.serial, serial) || same(&spdm.uuid, uuid);
        redfish.sources.contains(&spdm.component)
            || (known(redfish.serial.as_ref()).is_none() && known(redfish.uuid.as_ref()).is_none())
            || is(&redfish.serial, &redfish.uuid)
            || self.nvml.is_some_and(|nvml| same(&spdm.serial, &nvml.serial))
    }

    /// Redfish paths.
    pub(super) fn paths(&self) -> Vec<String> {
        let redfish = self.redfish.into_iter().flat_map(|gpu| gpu.sources.iter().cloned());
        redfish.chain(self.spdm.into_iter().flat_map(SpdmGpu::paths)).collect()
    }

    /// Whether the BMC says that its certificate, by what has it or what that protects, is this GPU's.
    pub(super) fn is_certified(&self) -> bool {
        let (Some(spdm), Some(redfish)) = (self.spdm, self.redfish) else { return false };
        spdm.paths().any(|path| redfish.sources.contains(&path))
    }

    /// Its number on the baseboard: what the driver calls module, and the number at the end of `GPU_SXM_3`. The first that is known.
    pub(super) fn position(&self) -> Option<u32> {
        let redfish = || {
            let gpu = self.redfish?;
            gpu.location
                .as_deref()
                .and_then(number)
                .or_else(|| gpu.sources.iter().find_map(|path| number(path)))
        };
        redfish().or_else(|| self.nvml?.module_id)
    }

    fn each(
        &self,
        redfish: impl FnOnce(&'a Gpu) -> Option<String>,
        spdm: impl FnOnce(&'a SpdmGpu) -> Option<String>,
        nvml: impl FnOnce(&'a ProbedGpu) -> Option<String>,
    ) -> Vec<(View, String)> {
        let told = [
            (View::Redfish, self.redfish.and_then(redfish)),
            (View::Spdm, self.spdm.and_then(spdm)),
            (View::Nvml, self.nvml.and_then(nvml)),
        ];
        told.into_iter().filter_map(|(view, value)| Some((view, value?))).collect()
    }
}

impl SpdmGpu {
    /// Redfish paths of what has the certificate, and of what that protects.
    fn paths(&self) -> impl Iterator<Item = String> {
        std::iter::once(&self.component).chain(&self.protects).cloned()
    }
}

fn known(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).map(str::trim).filter(|text| !text.is_empty())
}

/// The number after `GPU` or `SXM` in the last part of a path or label: `…/HGX_ERoT_GPU_SXM_3`, `SXM3`, `GPU 3`.
fn number(label: &str) -> Option<u32> {
    let last = label.trim_end_matches('/').rsplit('/').next()?.to_ascii_lowercase();
    let (_, after) = ["sxm", "gpu"].iter().find_map(|word| last.rsplit_once(word))?;
    let digits: String =
        after.trim_start_matches(['_', ' ', '-']).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_place_is_read_from_labels_and_paths() {
        let read = ["/redfish/v1/Chassis/HGX_ERoT_GPU_SXM_3", "SXM8", "GPU 12", "/x/GPU_0/", "Slot 4", "GPU"]
            .map(number);
        assert_eq!(read, [Some(3), Some(8), Some(12), Some(0), None, None]);
    }

    #[test]
    fn a_key_that_two_share_joins_nothing() {
        let gpu = |serial: &str| Gpu { serial: Some(serial.into()), ..Gpu::default() };
        let (redfish, nvml) =
            ([gpu("b"), gpu("b")], [ProbedGpu { serial: Some("b".into()), ..ProbedGpu::default() }]);
        let machine = crate::name::Name::new("m").unwrap();
        let views = MachineViews {
            machine: &machine,
            given: None,
            redfish: Some(&redfish),
            spdm: None,
            nvml: Some(&nvml),
        };
        assert_eq!(join(&views).len(), 3);
    }
}

//! Where GPUs were accepted, and what that says of those that show now.

use super::{Conflict, GpuState, ReconciledGpu};
use crate::name::Name;
use std::collections::{BTreeMap, BTreeSet};

/// A GPU that was accepted in a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcceptedGpu {
    /// The machine.
    pub machine: Name,
    /// Every identity that views from outside its host told then ([`super::identities`]). What a driver says is none: written down, it
    /// would be held against other machines.
    pub identities: BTreeSet<String>,
}

impl AcceptedGpu {
    /// What is accepted where this GPU is.
    pub fn of(gpu: &ReconciledGpu) -> Self {
        Self { machine: gpu.machine.clone(), identities: gpu.outside() }
    }
}

/// All GPUs that were accepted.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    by_machine: BTreeMap<Name, Vec<BTreeSet<String>>>,
    machines: BTreeMap<String, BTreeSet<Name>>,
}

impl FromIterator<AcceptedGpu> for Accepted {
    fn from_iter<T: IntoIterator<Item = AcceptedGpu>>(gpus: T) -> Self {
        let mut all = Self::default();
        for AcceptedGpu { machine, identities } in gpus {
            for identity in &identities {
                all.machines.entry(identity.clone()).or_default().insert(machine.clone());
            }
            all.by_machine.entry(machine).or_default().push(identities);
        }
        all
    }
}

impl Accepted {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is to be written down of a GPU on which all views agree: that it is here, should nobody have seen it before, and by
    /// what it is known since.
    pub fn news(&self, gpu: &ReconciledGpu) -> Option<AcceptedGpu> {
        let found = AcceptedGpu::of(gpu);
        let kind = |identity: &String| identity.split('/').next().map(str::to_owned);
        let kinds =
            |identities: &BTreeSet<String>| identities.iter().filter_map(kind).collect::<BTreeSet<_>>();
        let known = self.find(&gpu.machine, &found.identities).map(kinds).unwrap_or_default();
        (gpu.state == GpuState::Probed && !kinds(&found.identities).is_subset(&known)).then_some(found)
    }

    /// What holds of a machine once a person has accepted the GPUs that it shows, these being compared without regard to what was
    /// accepted: all on which nothing contradicts; and of the others what was accepted before.
    pub fn renewed(&self, machine: &Name, shown: &[ReconciledGpu]) -> Vec<AcceptedGpu> {
        let (sound, doubtful): (Vec<_>, Vec<_>) =
            shown.iter().filter(|gpu| gpu.machine == *machine).partition(|gpu| gpu.conflicts.is_empty());
        let mut all: Vec<_> = sound.into_iter().map(AcceptedGpu::of).collect();
        all.retain(|gpu| !gpu.identities.is_empty());
        let kept = self.by_machine.get(machine).into_iter().flatten().filter(|before| {
            let is = |identities: &BTreeSet<String>| !identities.is_disjoint(before);
            doubtful.iter().any(|gpu| is(&gpu.outside())) && !all.iter().any(|gpu| is(&gpu.identities))
        });
        let kept: Vec<_> =
            kept.map(|before| AcceptedGpu { machine: machine.clone(), identities: before.clone() }).collect();
        all.extend(kept);
        all.sort();
        all.dedup();
        all
    }

    /// What was accepted in a machine.
    pub fn of_machine(&self, machine: &Name) -> Vec<AcceptedGpu> {
        let all = self.by_machine.get(machine).into_iter().flatten();
        let mut all: Vec<_> =
            all.map(|of| AcceptedGpu { machine: machine.clone(), identities: of.clone() }).collect();
        all.sort();
        all
    }

    /// The one accepted in this machine that has most of these identities: GPUs of one board share its serial number.
    fn find(&self, machine: &Name, identities: &BTreeSet<String>) -> Option<&BTreeSet<String>> {
        let shared = |accepted: &BTreeSet<String>| accepted.intersection(identities).count();
        let all = self.by_machine.get(machine).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|accepted| shared(accepted) > 0).max_by_key(|accepted| shared(accepted))
    }

    /// Keeps out GPUs that were accepted elsewhere, that are others than were accepted, and that took the place of such.
    pub(super) fn judge(&self, gpus: &mut [ReconciledGpu]) {
        let mut shown: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for gpu in gpus.iter() {
            // What a driver alone shows does not stand for one that is missing.
            shown.entry(gpu.machine.clone()).or_default().extend(gpu.outside());
        }
        let missing = |machine: &Name| -> BTreeSet<String> {
            let shown = shown.get(machine);
            let gone = |accepted: &&BTreeSet<String>| shown.is_none_or(|shown| shown.is_disjoint(accepted));
            let all = self.by_machine.get(machine).into_iter().flatten();
            all.filter(gone).flatten().cloned().collect()
        };
        for gpu in gpus {
            let (identities, outside) = (gpu.identities(), gpu.outside());
            let places = identities.iter().filter_map(|identity| self.machines.get(identity)).flatten();
            let elsewhere: BTreeSet<Name> =
                places.filter(|machine| **machine != gpu.machine).cloned().collect();
            let mut found: Vec<_> =
                elsewhere.into_iter().map(|machine| Conflict::Moved { machine }).collect();
            if let Some(accepted) = self.find(&gpu.machine, &outside) {
                found.extend(changed(accepted, &outside));
            } else {
                let missing = missing(&gpu.machine);
                found.extend((!missing.is_empty()).then_some(Conflict::Replaced { missing }));
            }
            gpu.keep_out(found);
        }
    }
}

/// Kinds of identities that were told then, are told now, and have nothing in common.
fn changed(accepted: &BTreeSet<String>, found: &BTreeSet<String>) -> Vec<Conflict> {
    let of_kind = |identities: &BTreeSet<String>, kind: &str| -> BTreeSet<String> {
        identities.iter().filter(|identity| identity.starts_with(kind)).cloned().collect()
    };
    let differs = |kind: &&str| {
        let (accepted, found) = (of_kind(accepted, kind), of_kind(found, kind));
        let both = !accepted.is_empty() && !found.is_empty();
        (both && accepted.is_disjoint(&found)).then_some(Conflict::Changed { accepted, found })
    };
    ["certificate/", "serial/", "uuid/"].iter().filter_map(differs).collect()
}

//! Where the views of one GPU contradict.

use super::join::Group;
use super::{Conflict, MachineViews, Said, View};
use crate::firmware::View as Given;
use std::collections::BTreeSet;

/// Views from outside whose UUIDs are of NVML's kind: where one agreed, all are compared. Whether Redfish's are differs by maker
/// (facts: redfish §6), so this is seen, never assumed.
pub(super) fn kinds_of_uuids(groups: &[Group<'_>]) -> BTreeSet<View> {
    groups.iter().flat_map(|group| agreeing(&group.uuids())).collect()
}

/// Views from outside that say the same as the driver.
fn agreeing(said: &[(View, String)]) -> Vec<View> {
    let nvml = said.iter().find(|(view, _)| *view == View::Nvml);
    let same =
        said.iter().filter(|(view, value)| *view != View::Nvml && nvml.is_some_and(|(_, own)| own == value));
    same.map(|(view, _)| *view).collect()
}

/// Every conflict of one GPU within its machine.
pub(super) fn conflicts(
    group: &Group<'_>,
    views: &MachineViews<'_>,
    same_kind: &BTreeSet<View>,
) -> Vec<Conflict> {
    let repeated = repeated(group, views);
    let mut found = presence(group, views);
    // Two certificates that say they are its: none is, and that is the matter.
    found.retain(|conflict| match conflict {
        Conflict::Missing { view } => !repeated.contains(&Conflict::Repeated { view: *view }),
        _ => true,
    });
    found.extend(repeated);
    found.extend(certificate(group));
    let said = |told: Vec<(View, String)>| -> Vec<Said> {
        told.into_iter().map(|(view, value)| Said { view, value }).collect()
    };
    let serials = group.serials();
    if differ(&serials) {
        found.push(Conflict::SerialDiffers { said: said(serials.clone()) });
    }
    let uuids = group.uuids();
    let comparable: Vec<_> =
        uuids.iter().filter(|(view, _)| *view == View::Nvml || same_kind.contains(view)).cloned().collect();
    if differ(&comparable) {
        found.push(Conflict::UuidDiffers { said: said(comparable) });
    }
    let addresses = group.addresses();
    if differ(&addresses) {
        found.push(Conflict::AddressDiffers { said: said(addresses) });
    }
    let models = group.models();
    if let [(_, one), (_, other)] = models.as_slice()
        && different_models(one, other)
    {
        found.push(Conflict::ModelDiffers { said: said(models) });
    }
    found.extend(unidentified(group, views, &uuids, &serials));
    found
}

/// A certificate that cannot be read, or that is for something else by what its BMC says.
fn certificate(group: &Group<'_>) -> Option<Conflict> {
    let spdm = group.spdm?;
    if spdm.sha256.is_none() {
        return Some(Conflict::Unreadable { view: View::Spdm });
    }
    let redfish = group.redfish.filter(|redfish| !redfish.sources.is_empty())?;
    if spdm.protects.is_empty() || group.is_certified() {
        return None;
    }
    let said = |view, paths: &[String]| Said { view, value: paths.join(" ") };
    Some(Conflict::PathDiffers {
        said: vec![said(View::Redfish, &redfish.sources), said(View::Spdm, &spdm.protects)],
    })
}

fn differ(said: &[(View, String)]) -> bool {
    said.iter().any(|(_, value)| *value != said[0].1)
}

/// Views that must show it and do not, and views that show what they should not. Only what was asked is judged.
fn presence(group: &Group<'_>, views: &MachineViews<'_>) -> Vec<Conflict> {
    let Some(given) = views.given else { return Vec::new() };
    let outside_asked = given.redfish == Given::Expected && views.redfish.is_some()
        || given.spdm == Given::Expected && views.spdm.is_some();
    if group.redfish.is_none() && group.spdm.is_none() {
        return if outside_asked { vec![Conflict::Unexpected { view: View::Nvml }] } else { Vec::new() };
    }
    let asked = [
        (View::Redfish, given.redfish, views.redfish.is_some(), group.redfish.is_some()),
        (View::Spdm, given.spdm, views.spdm.is_some(), group.spdm.is_some()),
        (View::Nvml, given.nvml, views.nvml.is_some(), group.nvml.is_some()),
    ];
    let missing =
        asked.into_iter().filter(|(_, given, asked, there)| *given == Given::Expected && *asked && !there);
    missing.map(|(view, ..)| Conflict::Missing { view }).collect()
}

/// A view that must confirm the driver's, and agrees with it neither in UUID nor in serial number. Where it contradicts, that is
/// told already.
fn unidentified(
    group: &Group<'_>,
    views: &MachineViews<'_>,
    uuids: &[(View, String)],
    serials: &[(View, String)],
) -> Vec<Conflict> {
    let Some(given) = views.given else { return Vec::new() };
    if group.nvml.is_none() {
        return Vec::new();
    }
    let tells = |view| uuids.iter().chain(serials).any(|(own, _)| *own == view);
    if !tells(View::Nvml) {
        return vec![Conflict::Unidentified { view: View::Nvml }];
    }
    let confirmed: BTreeSet<View> = agreeing(uuids).into_iter().chain(agreeing(serials)).collect();
    let contradicts = |view: View| {
        let nvml = serials.iter().find(|(own, _)| *own == View::Nvml);
        let own = serials.iter().find(|(own, _)| *own == view);
        matches!((nvml, own), (Some((_, a)), Some((_, b))) if a != b)
    };
    let outside = [
        (View::Redfish, given.redfish, group.redfish.is_some()),
        (View::Spdm, given.spdm, group.spdm.is_some()),
    ];
    // The certificate of a root of trust says nothing of the GPU; the BMC, which does, says that it is the GPU's.
    let vouched = |view| view == View::Spdm && group.is_certified() && confirmed.contains(&View::Redfish);
    let silent = outside.into_iter().filter(|(view, given, there)| {
        let must_confirm = *given == Given::Expected && *there;
        must_confirm && !confirmed.contains(view) && !contradicts(*view) && !vouched(*view)
    });
    silent.map(|(view, ..)| Conflict::Unidentified { view }).collect()
}

/// Entries of one view that share a UUID: none of them can be told from the others. (Serial numbers are shared by the GPUs of one
/// board.) And certificates of which one GPU has several, or several GPUs one.
fn repeated(group: &Group<'_>, views: &MachineViews<'_>) -> Vec<Conflict> {
    let redfish = || {
        views.redfish.unwrap_or_default().iter().map(|gpu| Group { redfish: Some(gpu), ..Group::default() })
    };
    let spdm =
        || views.spdm.unwrap_or_default().iter().map(|gpu| Group { spdm: Some(gpu), ..Group::default() });
    let nvml =
        || views.nvml.unwrap_or_default().iter().map(|gpu| Group { nvml: Some(gpu), ..Group::default() });
    let of = |view: View, all: Vec<Group<'_>>| {
        let own = group.uuids().into_iter().find(|(of, _)| *of == view)?;
        let same = all.iter().filter(|other| other.uuids().contains(&own)).count();
        (same > 1).then_some(Conflict::Repeated { view })
    };
    let paths = group.paths();
    let digest = group.spdm.and_then(|own| own.sha256);
    let of_it = spdm().filter(|other| {
        let same = digest.is_some() && other.spdm.and_then(|other| other.sha256) == digest;
        same || other.paths().iter().any(|path| paths.contains(path))
    });
    let several = (of_it.count() > 1).then_some(Conflict::Repeated { view: View::Spdm });
    [
        several,
        of(View::Redfish, redfish().collect()),
        of(View::Spdm, spdm().collect()),
        of(View::Nvml, nvml().collect()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether two names are of different models. Makers write them in many ways (`H100 80GB HBM3`, `NVIDIA H100 SXM5`): what is
/// compared are words of letters and digits, without those that say how large or of what form it is.
fn different_models(one: &str, other: &str) -> bool {
    let (one, other) = (model_words(one), model_words(other));
    !one.is_empty() && !other.is_empty() && one.is_disjoint(&other)
}

fn model_words(name: &str) -> BTreeSet<String> {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase);
    let telling = words.filter(|word| {
        let letters = word.bytes().any(|b| b.is_ascii_alphabetic());
        let digits = word.bytes().any(|b| b.is_ascii_digit());
        let form = ["sxm", "hbm", "pcie", "gddr", "rev"].iter().any(|form| word.starts_with(form));
        let size = word.strip_suffix("gb").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        // names of chips, several models of which there are
        let chip = ["ga100", "gh100", "gb100", "gb102"].contains(&word.as_str());
        letters && digits && !form && !size && !chip
    });
    telling.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_model_is_known_under_the_names_that_makers_give_it() {
        for (one, other) in [
            ("H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
            ("NVIDIA H100 SXM5", "NVIDIA H100 80GB HBM3"),
            ("GH100", "NVIDIA H200"),
            ("Tesla", "NVIDIA A100-SXM4-80GB"),
        ] {
            assert!(!different_models(one, other), "{one} {other}");
        }
    }

    #[test]
    fn different_models_are_told_apart() {
        for (one, other) in [
            ("H100 80GB HBM3", "NVIDIA H200"),
            ("NVIDIA L40", "NVIDIA L40S"),
            ("NVIDIA B200", "NVIDIA GB200"),
        ] {
            assert!(different_models(one, other), "{one} {other}");
        }
    }
}

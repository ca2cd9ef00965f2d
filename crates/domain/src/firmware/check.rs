//! Holds an inventory against profiles. Unknown is never pass.

use super::profile::{
    BiosAttribute, Component, FirmwareProfileSpec, GpuViews, HostInterfaceRule, Match, Part, Pattern, Rule,
    SecureBoot, Selector, TpmRule, View,
};
use super::version::Version;
use crate::inventory::Inventory;
use crate::name::Name;
use crate::problem::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What comes of one value held against its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As wanted.
    Pass,
    /// Older than the minimum.
    TooOld,
    /// A version that it must not have.
    Blocked,
    /// Not the version, or none of those, that it must have.
    NotExact,
    /// Not there, though it must be.
    Missing,
    /// Not told, or not comparable.
    Unknown,
    /// A setting that is not as wanted.
    Differs,
}

impl Verdict {
    /// Stable code; `None` for pass.
    pub fn code(self) -> Option<&'static str> {
        Some(match self {
            Self::Pass => return None,
            Self::TooOld => "firmware.too-old",
            Self::Blocked => "firmware.blocked",
            Self::NotExact => "firmware.not-exact",
            Self::Missing => "firmware.missing",
            Self::Unknown => "firmware.unknown",
            Self::Differs => "firmware.differs",
        })
    }

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        self.code().map_or("pass", |code| &code["firmware.".len()..])
    }
}

/// One value held against its profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The component by its name in the profile, or `biosAttribute VTdSupport`, `secureBoot`, `tpm`, `hostInterface`,
    /// `gpuView redfish`.
    pub component: String,
    /// Key of the fact that was looked at, such as `firmware/HostBMC_0/version`.
    pub fact: String,
    /// What the profile wants.
    pub wanted: String,
    /// What was found; `null` where nothing was.
    pub found: Option<String>,
    /// The Redfish path that told it; `null` where nothing did.
    pub source: Option<String>,
    /// What comes of it.
    pub verdict: Verdict,
    /// More, where there is more to say: why a version is blocked, why one cannot be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How a machine stands to the profiles there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Compliance {
    /// All is as its profile wants.
    Compliant {
        /// Its profile.
        profile: Name,
        /// Every value looked at.
        findings: Vec<Finding>,
    },
    /// Something is not as its profile wants.
    NotCompliant {
        /// Its profile.
        profile: Name,
        /// Every value looked at.
        findings: Vec<Finding>,
    },
    /// No profile matches it.
    NoProfile {
        /// Who made it, as its BMC says.
        manufacturer: Option<String>,
        /// Its model, as its BMC says.
        model: Option<String>,
    },
    /// Several profiles match it, so none is taken.
    Ambiguous {
        /// These.
        profiles: Vec<Name>,
    },
}

impl Compliance {
    /// Whether the machine may go on.
    pub fn is_compliant(&self) -> bool {
        matches!(self, Self::Compliant { .. })
    }

    /// What was found; empty where no single profile matches.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Compliant { findings, .. } | Self::NotCompliant { findings, .. } => findings,
            Self::NoProfile { .. } | Self::Ambiguous { .. } => &[],
        }
    }

    /// The profile, where exactly one matches.
    pub fn profile(&self) -> Option<&Name> {
        match self {
            Self::Compliant { profile, .. } | Self::NotCompliant { profile, .. } => Some(profile),
            Self::NoProfile { .. } | Self::Ambiguous { .. } => None,
        }
    }

    /// Why the machine may not go on; `None` if it may.
    pub fn problem(&self) -> Option<Problem> {
        Some(match self {
            Self::Compliant { .. } => return None,
            Self::NotCompliant { profile, findings } => {
                let wrong: Vec<&Finding> =
                    findings.iter().filter(|finding| finding.verdict != Verdict::Pass).collect();
                let message = format!(
                    "{} of {} values are not as FirmwareProfile/{profile} wants",
                    wrong.len(),
                    findings.len()
                );
                let told = |text: fn(&Finding) -> String| {
                    wrong.iter().take(TOLD).map(|f| text(f)).collect::<Vec<_>>().join("; ")
                };
                Problem::new("firmware.not-compliant", message)
                    .difference(told(Finding::found), told(Finding::wanted))
                    .hint("`bailiwick firmware check` shows every value with its source")
                    .at(format!("FirmwareProfile/{profile}"))
            }
            Self::NoProfile { manufacturer, model } => {
                let called = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
                let (manufacturer, model) = (called(manufacturer), called(model));
                Problem::new(
                    "firmware.no-profile",
                    format!("no firmware profile matches {manufacturer} {model}"),
                )
                .hint("declare a FirmwareProfile whose `match` fits; nothing passes for want of one")
            }
            Self::Ambiguous { profiles } => {
                let names: Vec<_> = profiles.iter().map(Name::as_str).collect();
                Problem::new(
                    "firmware.ambiguous-profile",
                    format!("{} firmware profiles match the machine", profiles.len()),
                )
                .difference(names.join(", "), "exactly one")
                .hint("narrow `match` of all but one of them")
            }
        })
    }
}

/// So many values are told in one sentence; the findings hold all.
const TOLD: usize = 3;

impl Finding {
    fn found(&self) -> String {
        format!(
            "{} {} ({})",
            self.component,
            self.found.as_deref().unwrap_or("nothing"),
            self.verdict.as_str()
        )
    }

    fn wanted(&self) -> String {
        format!("{} {}", self.component, self.wanted)
    }
}

impl Match {
    /// Whether a profile is for this machine. What the host does not say fits no pattern.
    pub fn fits(&self, inventory: &Inventory) -> bool {
        let fits = |patterns: &[Pattern], text: Option<&String>| {
            patterns.is_empty() || text.is_some_and(|text| patterns.iter().any(|pattern| pattern.fits(text)))
        };
        let identity = &inventory.identity;
        // without either list every machine would fit; such a profile is refused when it is declared
        !(self.model.is_empty() && self.product.is_empty())
            && fits(&self.manufacturer, identity.manufacturer.as_ref())
            && fits(&self.model, identity.model.as_ref())
            && fits(&self.sku, identity.sku.as_ref())
            && fits(&self.product, inventory.bmc.product.as_ref())
    }
}

/// Holds a machine against the profile that matches it.
pub fn assess(profiles: &[(Name, FirmwareProfileSpec)], inventory: &Inventory) -> Compliance {
    let matching: Vec<_> = profiles.iter().filter(|(_, spec)| spec.matches.fits(inventory)).collect();
    match matching[..] {
        [] => Compliance::NoProfile {
            manufacturer: inventory.identity.manufacturer.clone(),
            model: inventory.identity.model.clone(),
        },
        [(name, spec)] => {
            let (profile, findings) = (name.clone(), check(spec, inventory));
            if findings.iter().all(|finding| finding.verdict == Verdict::Pass) {
                Compliance::Compliant { profile, findings }
            } else {
                Compliance::NotCompliant { profile, findings }
            }
        }
        _ => Compliance::Ambiguous { profiles: matching.into_iter().map(|(name, _)| name.clone()).collect() },
    }
}

/// Every value that a profile names, held against an inventory, in the profile's order.
pub fn check(profile: &FirmwareProfileSpec, inventory: &Inventory) -> Vec<Finding> {
    let mut findings = Vec::new();
    for wanted in &profile.components {
        component(wanted, inventory, &mut findings);
    }
    findings.extend(profile.bios_attributes.iter().flat_map(|wanted| bios_attribute(wanted, inventory)));
    findings.extend(secure_boot(profile.secure_boot, inventory));
    findings.extend(profile.tpm.iter().flat_map(|wanted| tpm(wanted, inventory)));
    findings.extend(host_interfaces(profile.host_interface, inventory));
    findings.extend(profile.gpu_views.iter().flat_map(|views| gpu_views(*views, inventory)));
    findings
}

/// A version somewhere in the inventory.
struct Entry<'i> {
    fact: String,
    version: Option<&'i str>,
    source: Option<&'i str>,
}

const LISTED: &str = "/FirmwareInventory";

fn component(wanted: &Component, inventory: &Inventory, findings: &mut Vec<Finding>) {
    let rule = wanted.rule.as_ref().map_or_else(|| "any that is not blocked".to_owned(), Rule::to_string);
    let finding = |fact: String, found: Option<&str>, source: Option<&str>, verdict, note| Finding {
        component: wanted.name.clone(),
        fact,
        wanted: rule.clone(),
        found: found.map(str::to_owned),
        source: source.map(str::to_owned),
        verdict,
        note,
    };
    let mut entries = BTreeMap::new();
    for selector in &wanted.select {
        entries.extend(select(selector, inventory).map(|entry| (entry.fact.clone(), entry)));
    }
    for (fact, entry) in &entries {
        let (verdict, note) = judge(wanted, entry.version);
        findings.push(finding(fact.clone(), entry.version, entry.source, verdict, note));
    }
    // an entry that the BMC lists and does not give may be the old one
    let lost = lost(inventory).filter(|(id, _)| {
        let fits = |selector: &Selector| matches!((selector, id), (Selector::Id(pattern), Some(id)) if pattern.fits(id));
        wanted.select.iter().any(fits) || (id.is_none() && entries.is_empty() && wanted.count == 0)
    });
    for (id, path) in lost {
        let note = Some("the BMC lists it and does not give it".to_owned());
        let fact = format!("firmware/{}/version", id.unwrap_or("*"));
        findings.push(finding(fact, None, Some(path), Verdict::Unknown, note));
    }
    let found = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    if found < wanted.count {
        let note = (wanted.count > 1).then(|| format!("{found} of {} found", wanted.count));
        findings.push(finding(places(&wanted.select), None, None, Verdict::Missing, note));
    }
}

/// Entries of the firmware inventory that could not be read, by id and path; without an id, the list itself.
fn lost(inventory: &Inventory) -> impl Iterator<Item = (Option<&str>, &str)> {
    let is_loss = |code: &str| {
        ["redfish.resource.", "redfish.body."].iter().any(|start| code.starts_with(start))
            || matches!(
                code,
                "redfish.collection.incomplete" | "redfish.collection.malformed" | "redfish.walk.limit"
            )
    };
    inventory.diagnostics.iter().filter(move |diagnostic| is_loss(&diagnostic.code)).filter_map(
        |diagnostic| {
            let path = diagnostic.path.as_str();
            match path.split_once(LISTED) {
                Some((_, rest)) => Some((rest.strip_prefix('/').filter(|id| !id.is_empty()), path)),
                None => path.ends_with("/UpdateService").then_some((None, path)),
            }
        },
    )
}

/// Where a component was looked for, as keys of facts.
fn places(selectors: &[Selector]) -> String {
    let place = |selector: &Selector| match selector {
        Selector::Id(pattern) => format!("firmware/{pattern}/version"),
        Selector::Name(pattern) => format!("firmware/(name {pattern})/version"),
        Selector::Reported(Part::Bios) => "bios.version".to_owned(),
        Selector::Reported(Part::Bmc) => "bmc.firmwareVersion".to_owned(),
        Selector::Reported(Part::Gpu) => "gpus/*/firmwareVersion".to_owned(),
        Selector::Reported(Part::Tpm) => "tpm/*/firmwareVersion".to_owned(),
    };
    selectors.iter().map(place).collect::<Vec<_>>().join(", ")
}

fn select<'i>(selector: &Selector, inventory: &'i Inventory) -> Box<dyn Iterator<Item = Entry<'i>> + 'i> {
    let source = |part: &str| inventory.sources.get(part).map(String::as_str);
    let listed = |fits: Box<dyn Fn(&crate::inventory::Firmware) -> bool>| {
        inventory.firmware.iter().filter(move |firmware| fits(firmware)).map(|firmware| Entry {
            fact: format!("firmware/{}/version", firmware.id),
            version: firmware.version.as_deref(),
            source: firmware.sources.first().map(String::as_str),
        })
    };
    match selector.clone() {
        Selector::Id(pattern) => Box::new(listed(Box::new(move |firmware| pattern.fits(&firmware.id)))),
        Selector::Name(pattern) => Box::new(listed(Box::new(move |firmware| {
            firmware.name.as_deref().is_some_and(|name| pattern.fits(name))
        }))),
        Selector::Reported(Part::Bios) => {
            let version = inventory.bios.version.as_deref();
            let entry = Entry { fact: "bios.version".to_owned(), version, source: source("bios.version") };
            Box::new(version.map(|_| entry).into_iter())
        }
        Selector::Reported(Part::Bmc) => {
            let version = inventory.bmc.firmware_version.as_deref();
            let entry = Entry { fact: "bmc.firmwareVersion".to_owned(), version, source: source("bmc") };
            Box::new(version.map(|_| entry).into_iter())
        }
        Selector::Reported(Part::Gpu) => Box::new(inventory.gpus.iter().enumerate().map(|(at, gpu)| {
            let label = gpu.serial.clone().or_else(|| gpu.uuid.clone()).unwrap_or_else(|| at.to_string());
            Entry {
                fact: format!("gpus/{label}/firmwareVersion"),
                version: gpu.firmware_version.as_deref(),
                // of the views, sorted, the chassis comes first and has no version; the processor comes last
                source: gpu.sources.last().map(String::as_str),
            }
        })),
        Selector::Reported(Part::Tpm) => {
            let source = source("tpm");
            Box::new(inventory.tpm.iter().enumerate().map(move |(at, tpm)| Entry {
                fact: format!("tpm/{at}/firmwareVersion"),
                version: tpm.firmware_version.as_deref(),
                source,
            }))
        }
    }
}

/// One version against one component's rule.
fn judge(wanted: &Component, found: Option<&str>) -> (Verdict, Option<String>) {
    let Some(found) = found else { return (Verdict::Unknown, Some("no version is told".to_owned())) };
    let found = match Version::new(found) {
        Ok(found) => found,
        Err(error) => return (Verdict::Unknown, Some(error.to_string())),
    };
    for blocked in &wanted.blocked {
        if found.against(&blocked.version) == Some(Ordering::Equal) {
            return (Verdict::Blocked, blocked.reason.clone());
        }
    }
    let against = |version: &Version| found.against(version);
    let incomparable =
        |version: &Version| (Verdict::Unknown, Some(format!("cannot be compared with {version}")));
    let verdict = match &wanted.rule {
        None => Verdict::Pass,
        Some(Rule::Minimum(minimum)) => match against(minimum) {
            None => return incomparable(minimum),
            Some(Ordering::Less) => Verdict::TooOld,
            Some(_) => Verdict::Pass,
        },
        Some(Rule::Exact(version)) => one_of(std::slice::from_ref(version), against),
        Some(Rule::OneOf(versions)) => one_of(versions, against),
    };
    match wanted.blocked.iter().find(|blocked| against(&blocked.version).is_none()) {
        Some(blocked) if verdict == Verdict::Pass => incomparable(&blocked.version),
        _ => (verdict, None),
    }
}

fn one_of(versions: &[Version], against: impl Fn(&Version) -> Option<Ordering>) -> Verdict {
    let orders: Vec<_> = versions.iter().map(against).collect();
    if orders.contains(&Some(Ordering::Equal)) {
        Verdict::Pass
    } else if orders.contains(&None) {
        Verdict::Unknown
    } else {
        Verdict::NotExact
    }
}

fn bios_attribute(wanted: &BiosAttribute, inventory: &Inventory) -> Vec<Finding> {
    let source = inventory.sources.get("bios").cloned();
    let values: Vec<_> = wanted.values.iter().map(ToString::to_string).collect();
    let finding = |name: &str, found: Option<String>, verdict| Finding {
        component: format!("biosAttribute {name}"),
        fact: format!("bios.attributes.{name}"),
        wanted: values.join(" or "),
        found,
        source: source.clone(),
        verdict,
        note: None,
    };
    let Some(attributes) = &inventory.bios.attributes else {
        return vec![finding(&wanted.name, None, Verdict::Unknown)];
    };
    // a BIOS that knows the attribute by two names must have both right
    let known = std::iter::once(&wanted.name)
        .chain(&wanted.also_named)
        .filter_map(|name| Some((name, attributes.get(name)?.to_string())));
    let findings: Vec<_> = known
        .map(|(name, found)| {
            // by their text: some BMCs write whole numbers as strings (quirk 25)
            let verdict = if values.contains(&found) { Verdict::Pass } else { Verdict::Differs };
            finding(name, Some(found), verdict)
        })
        .collect();
    if findings.is_empty() { vec![finding(&wanted.name, None, Verdict::Missing)] } else { findings }
}

/// A setting that must have one value.
fn setting(name: &str, wanted: &str, found: Option<String>, source: Option<&str>) -> Finding {
    let verdict = match &found {
        None => Verdict::Unknown,
        Some(found) if found.eq_ignore_ascii_case(wanted) => Verdict::Pass,
        Some(_) => Verdict::Differs,
    };
    Finding {
        component: name.split(['.', '/']).next().unwrap_or(name).to_owned(),
        fact: name.to_owned(),
        wanted: wanted.to_owned(),
        found,
        source: source.map(str::to_owned),
        verdict,
        note: None,
    }
}

fn on_or_off(state: bool) -> &'static str {
    if state { "enabled" } else { "disabled" }
}

fn secure_boot(wanted: SecureBoot, inventory: &Inventory) -> Option<Finding> {
    let wanted = match wanted {
        SecureBoot::Any => return None,
        SecureBoot::Enabled => true,
        SecureBoot::Disabled => false,
    };
    let found = inventory.secure_boot.map(|state| on_or_off(state).to_owned());
    let source = inventory.sources.get("secureBoot").map(String::as_str);
    Some(setting("secureBoot", on_or_off(wanted), found, source))
}

fn tpm(wanted: &TpmRule, inventory: &Inventory) -> Vec<Finding> {
    let source = inventory.sources.get("tpm").map(String::as_str);
    let presence = |found: Option<&str>| {
        let wanted = if wanted.present { "present" } else { "absent" };
        setting("tpm", wanted, found.map(str::to_owned), source)
    };
    if inventory.tpm.is_empty() {
        // only a list that was told and is empty says that there is none
        let told = presence(source.map(|_| "absent"));
        return vec![if wanted.present { Finding { verdict: Verdict::Missing, ..told } } else { told }];
    }
    if !wanted.present {
        return vec![presence(Some("present"))];
    }
    let mut findings = vec![presence(Some("present"))];
    for (at, tpm) in inventory.tpm.iter().enumerate() {
        let parts =
            [("interfaceType", &wanted.version, &tpm.interface_type), ("status", &wanted.state, &tpm.status)];
        findings.extend(parts.into_iter().filter_map(|(field, wanted, found)| {
            Some(setting(&format!("tpm/{at}/{field}"), wanted.as_ref()?, found.clone(), source))
        }));
    }
    findings
}

fn host_interfaces(wanted: HostInterfaceRule, inventory: &Inventory) -> Vec<Finding> {
    if wanted == HostInterfaceRule::Any {
        return Vec::new();
    }
    let source = inventory.sources.get("hostInterfaces").map(String::as_str);
    let finding =
        |name: &str, found: Option<&str>, source| setting(name, "disabled", found.map(str::to_owned), source);
    match inventory.host_interfaces.as_deref() {
        None => vec![finding("hostInterfaces", None, source)],
        Some([]) => {
            let none = finding("hostInterfaces", Some("disabled"), source);
            vec![Finding { found: Some("none".to_owned()), ..none }]
        }
        Some(all) => {
            let each = all.iter().map(|interface| {
                let source = interface.sources.first().map(String::as_str);
                let fact = format!("hostInterfaces/{}/enabled", interface.id);
                finding(&fact, interface.enabled.map(on_or_off), source)
            });
            each.collect()
        }
    }
}

/// The views that the BMC gives; what the driver shows is known only once the machine runs.
fn gpu_views(views: GpuViews, inventory: &Inventory) -> Vec<Finding> {
    let gpus = inventory.gpus.len();
    let nameless = inventory.gpus.iter().filter(|gpu| gpu.serial.is_none() && gpu.uuid.is_none()).count();
    let measured = inventory.component_integrity.iter().filter(|part| {
        let is_gpu = |text: &str| text.to_ascii_lowercase().contains("gpu");
        let is_spdm = part.kind.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("SPDM"));
        is_spdm
            && part.enabled != Some(false)
            && (is_gpu(&part.id) || part.target.as_deref().is_some_and(is_gpu))
    });
    let measured = measured.count();
    let finding =
        |view: &str, fact: &str, wanted: &str, found: String, source: Option<&str>, given: bool| Finding {
            component: format!("gpuView {view}"),
            fact: fact.to_owned(),
            wanted: wanted.to_owned(),
            found: Some(found),
            source: source.map(str::to_owned),
            verdict: if given { Verdict::Pass } else { Verdict::Missing },
            note: None,
        };
    let mut findings = Vec::new();
    if views.redfish == View::Expected {
        let found = format!("{gpus} GPUs, {nameless} of them without serial number and UUID");
        let source = inventory.gpus.first().and_then(|gpu| gpu.sources.first()).map(String::as_str);
        let given = gpus > 0 && nameless == 0;
        findings.push(finding("redfish", "gpus", "GPUs that can be told apart", found, source, given));
    }
    if views.spdm == View::Expected {
        let source = inventory.sources.get("componentIntegrity").map(String::as_str);
        let found = format!("{measured} SPDM components");
        let given = measured > 0 && measured >= gpus;
        findings.push(finding(
            "spdm",
            "componentIntegrity",
            "an SPDM component for every GPU",
            found,
            source,
            given,
        ));
    }
    findings
}

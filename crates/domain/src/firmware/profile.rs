//! What a model must have: the `FirmwareProfile` that people declare (DESIGN §5.4).

use super::version::Version;
use crate::inventory::AttributeValue;
use crate::problem::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The versions and settings that machines of one model must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FirmwareProfileSpec {
    /// Which machines it is for. Two profiles that match one machine are an error: neither is taken.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Where the numbers come from: a recording, a release note, a test of one's own.
    pub source: String,
    /// Components in the order in which they would be updated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
    /// Settings of the BIOS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bios_attributes: Vec<BiosAttribute>,
    /// UEFI Secure Boot at the current boot.
    #[serde(default, skip_serializing_if = "SecureBoot::is_any")]
    pub secure_boot: SecureBoot,
    /// The trusted platform module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmRule>,
    /// The BMC's interface to its own host.
    #[serde(default, skip_serializing_if = "HostInterfaceRule::is_any")]
    pub host_interface: HostInterfaceRule,
    /// Which views of its GPUs the model gives; absent for a model without GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_views: Option<GpuViews>,
}

/// Which machines a profile is for: of each list that is given, one pattern must fit. `model` or `product` must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// Patterns of the manufacturer, as the host says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manufacturer: Vec<Pattern>,
    /// Patterns of the model, as the host says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub model: Vec<Pattern>,
    /// Patterns of the stock-keeping unit, as the host says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sku: Vec<Pattern>,
    /// Patterns of the product, as the BMC's service root says it: for hosts that do not say who they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub product: Vec<Pattern>,
}

/// A text in which `*` stands for any characters; upper and lower case are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Pattern(#[schemars(length(min = 1, max = 256))] String);

/// One component and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Component {
    /// What people call it, unique within the profile: `bios`, `bmc`, `gpu`.
    pub name: String,
    /// Where its version is found. Every entry that one of these fits is checked; several names are for components that
    /// firmware renames.
    pub select: Vec<Selector>,
    /// So many entries at least must be found; `0` for a component that a machine may lack.
    #[serde(default = "Component::default_count", skip_serializing_if = "Component::is_default_count")]
    pub count: u32,
    /// The versions it may have; absent means any that is not blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// Versions that it must not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<Blocked>,
    /// What brings it to the wanted version. Kept for performing updates; nothing reads it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
}

/// Where the version of a component is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Selector {
    /// Entries of the firmware inventory whose Redfish `Id` fits.
    Id(Pattern),
    /// Entries of the firmware inventory whose Redfish `Name` fits.
    Name(Pattern),
    /// What the part itself says.
    Reported(Part),
}

/// A part that tells its own version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// `BiosVersion` of the host.
    Bios,
    /// `FirmwareVersion` of its manager.
    Bmc,
    /// `FirmwareVersion` of every GPU.
    Gpu,
    /// `FirmwareVersion` of every trusted platform module.
    Tpm,
}

/// The versions a component may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Rule {
    /// This or a newer one.
    Minimum(Version),
    /// This one.
    Exact(Version),
    /// One of these.
    OneOf(Vec<Version>),
}

/// A version that a component must not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Blocked {
    /// The version.
    pub version: Version,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An image of firmware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Where it is fetched.
    pub url: String,
    /// SHA-256 of its bytes.
    pub sha256: crate::name::Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A setting of the BIOS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BiosAttribute {
    /// Name of the attribute.
    pub name: String,
    /// Names that other versions of the BIOS give it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_named: Vec<String>,
    /// The values it may have.
    pub values: Vec<AttributeValue>,
}

/// What Secure Boot must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SecureBoot {
    /// On at the current boot.
    Enabled,
    /// Off at the current boot.
    Disabled,
    /// Not checked.
    #[default]
    Any,
}

/// What the trusted platform module must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TpmRule {
    /// Whether there must be one, or must be none.
    pub present: bool,
    /// `TPM2_0`, … as Redfish spells it; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `Status.State` as Redfish spells it, such as `Enabled`; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// What the BMC's interface to its own host must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostInterfaceRule {
    /// Every Redfish host interface is disabled: who is root on the host does not reach the BMC by it.
    Locked,
    /// Not checked.
    #[default]
    Any,
}

/// Which views of its GPUs a model gives. A view that the hardware cannot give is `not_available`; a view that is expected
/// and absent is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuViews {
    /// The BMC's.
    #[serde(default)]
    pub redfish: View,
    /// Signed measurements through the BMC (ComponentIntegrity).
    #[serde(default)]
    pub spdm: View,
    /// The driver's on the host.
    #[serde(default)]
    pub nvml: View,
}

/// Whether a model gives a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// It does: where it is absent, something is wrong.
    #[default]
    Expected,
    /// The hardware cannot give it.
    NotAvailable,
}

impl Pattern {
    /// Whether a text fits.
    pub fn fits(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.to_lowercase(), text.trim().to_lowercase());
        let mut parts = pattern.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let mut last = None;
        for part in parts {
            if let Some(between) = last.replace(part) {
                // the leftmost place leaves the most for what follows
                let Some(at) = rest.find(between) else { return false };
                rest = &rest[at + between.len()..];
            }
        }
        last.map_or(rest.is_empty(), |last| rest.ends_with(last))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Pattern {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if (1..=256).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a pattern has 1 to 256 characters")
        }
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Component {
    fn default_count() -> u32 {
        1
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_default_count(count: &u32) -> bool {
        *count == 1
    }
}

impl SecureBoot {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

impl HostInterfaceRule {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minimum(version) => write!(f, "{version} or newer"),
            Self::Exact(version) => write!(f, "{version}"),
            Self::OneOf(versions) => {
                let all: Vec<_> = versions.iter().map(Version::as_str).collect();
                write!(f, "one of {}", all.join(", "))
            }
        }
    }
}

impl FirmwareProfileSpec {
    /// A profile that wants nothing.
    pub fn of(matches: Match) -> Self {
        Self {
            matches,
            source: String::new(),
            components: Vec::new(),
            bios_attributes: Vec::new(),
            secure_boot: SecureBoot::default(),
            tpm: None,
            host_interface: HostInterfaceRule::default(),
            gpu_views: None,
        }
    }

    /// Every reason why this profile means nothing or contradicts itself. `reference` is how messages call it.
    pub fn problems(&self, reference: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |field: String, message: String| {
            problems.push(
                Problem::new("firmware.profile-invalid", format!("{reference}: {message}"))
                    .hint("`bailiwick explain firmwareprofile` lists every field")
                    .at(format!("{reference} {field}")),
            );
        };
        if self.matches.model.is_empty() && self.matches.product.is_empty() {
            wrong("spec.match".to_owned(), "it names neither a model nor a product".to_owned());
        }
        let bare = Self { source: self.source.clone(), ..Self::of(self.matches.clone()) };
        if *self == bare {
            wrong("spec".to_owned(), "it wants nothing, so every machine would pass".to_owned());
        }
        let mut names = BTreeSet::new();
        for component in &self.components {
            let (name, field) = (&component.name, format!("spec.components.{}", component.name));
            if !names.insert(name) {
                wrong(field.clone(), format!("component {name} is named twice"));
            }
            if component.select.is_empty() {
                wrong(field.clone(), format!("component {name} selects nothing"));
            }
            if component.rule.is_none() && component.blocked.is_empty() {
                wrong(field.clone(), format!("component {name} has neither a rule nor blocked versions"));
            }
            let wanted = match &component.rule {
                Some(Rule::OneOf(versions)) if versions.is_empty() => {
                    wrong(field.clone(), format!("component {name} may have no version at all"));
                    &[]
                }
                Some(Rule::OneOf(versions)) => versions.as_slice(),
                Some(Rule::Exact(version)) => std::slice::from_ref(version),
                _ => &[],
            };
            let is_blocked = |version: &&Version| {
                component
                    .blocked
                    .iter()
                    .any(|blocked| version.against(&blocked.version).is_some_and(std::cmp::Ordering::is_eq))
            };
            if let Some(version) = wanted.iter().find(is_blocked) {
                wrong(field, format!("component {name}: {version} is both wanted and blocked"));
            }
        }
        let mut names = BTreeSet::new();
        for attribute in &self.bios_attributes {
            let field = format!("spec.biosAttributes.{}", attribute.name);
            if attribute.values.is_empty() {
                wrong(field.clone(), format!("BIOS attribute {} may have no value at all", attribute.name));
            }
            for name in std::iter::once(&attribute.name).chain(&attribute.also_named) {
                if !names.insert(name) {
                    wrong(field.clone(), format!("BIOS attribute {name} is named twice"));
                }
            }
        }
        if let Some(views) = self.gpu_views
            && (views.nvml == View::NotAvailable
                || views.redfish == View::NotAvailable && views.spdm == View::NotAvailable)
        {
            wrong(
                "spec.gpuViews".to_owned(),
                "a GPU is believed when its host and something outside it agree; this names but one side"
                    .to_owned(),
            );
        }
        if let Some(TpmRule { present: false, version, state }) = &self.tpm
            && (version.is_some() || state.is_some())
        {
            wrong(
                "spec.tpm".to_owned(),
                "a TPM that must not be there has no version and no state".to_owned(),
            );
        }
        problems
    }
}

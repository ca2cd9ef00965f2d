//! What the host boots from next (`ComputerSystem.Boot`): read, and overridden for once or no longer.

use domain::{Diagnose, Problem};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::error;
use crate::host::Host;
use crate::quirks::BootStyle;
use crate::reader::{ReadError, Reader as _, Resource};
use crate::task;
use crate::write::WriteError;

/// Where to boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootTarget {
    /// As the boot order says.
    None,
    /// Network by PXE.
    Pxe,
    /// Network by HTTP.
    UefiHttp,
    /// Disk.
    Hdd,
    /// CD, which virtual media show up as.
    Cd,
    /// USB stick.
    Usb,
    /// The firmware's setup.
    BiosSetup,
}

impl BootTarget {
    const ALL: [Self; 7] =
        [Self::None, Self::Pxe, Self::UefiHttp, Self::Hdd, Self::Cd, Self::Usb, Self::BiosSetup];

    /// Its spellings, the standard's first. Supermicro shows virtual CDs as `UsbCd` (quirk 12).
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::None => &["None"],
            Self::Pxe => &["Pxe"],
            Self::UefiHttp => &["UefiHttp"],
            Self::Hdd => &["Hdd"],
            Self::Cd => &["Cd", "UsbCd"],
            Self::Usb => &["Usb"],
            Self::BiosSetup => &["BiosSetup"],
        }
    }

    fn of(text: &str) -> Option<Self> {
        let is = |target: &Self| target.names().iter().any(|name| text.trim().eq_ignore_ascii_case(name));
        Self::ALL.into_iter().find(is)
    }
}

/// For how long an override holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootEnabled {
    /// There is none.
    Disabled,
    /// For the next boot.
    Once,
    /// Until it is changed.
    Continuous,
}

impl BootEnabled {
    fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "Disabled",
            Self::Once => "Once",
            Self::Continuous => "Continuous",
        }
    }

    fn of(text: &str) -> Option<Self> {
        let all = [Self::Disabled, Self::Once, Self::Continuous];
        all.into_iter().find(|enabled| text.trim().eq_ignore_ascii_case(enabled.as_str()))
    }
}

/// Which firmware interface boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMode {
    /// UEFI.
    Uefi,
    /// The BIOS of old.
    Legacy,
}

impl BootMode {
    /// Lenient: firmware writes "UEFI", "Uefi", "UEFI Boot" (quirk 13).
    fn of(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match (text.contains("uefi"), text.contains("legacy") || text.contains("bios")) {
            (true, false) => Some(Self::Uefi),
            (false, true) => Some(Self::Legacy),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Uefi => "UEFI",
            Self::Legacy => "Legacy",
        }
    }
}

/// The override as the BMC shows it. What is missing or unreadable is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootOverride {
    /// From where.
    pub target: Option<BootTarget>,
    /// For how long.
    pub enabled: Option<BootEnabled>,
    /// By which interface.
    pub mode: Option<BootMode>,
    /// The targets offered, as spelled; empty where the BMC does not say.
    pub offered: Vec<String>,
}

/// Why the override is not as asked for.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Not among what the BMC offers.
    #[error("the BMC offers no boot from {target:?}, only from {}", .offered.join(", "))]
    NotOffered {
        /// What was asked for.
        target: BootTarget,
        /// What there is.
        offered: Vec<String>,
    },
    /// Taken, but not to be seen.
    #[error("the BMC took the boot override, but shows {found:?}")]
    NoEffect {
        /// What it shows.
        found: BootOverride,
    },
    /// Refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<ReadError> for BootError {
    fn from(error: ReadError) -> Self {
        Self::Write(error.into())
    }
}

impl BootError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotOffered { .. } => "bmc.boot-unsupported",
            Self::NoEffect { .. } => "bmc.boot-no-effect",
            Self::Write(error) => error.code(),
        }
    }
}

impl Diagnose for BootError {
    fn problem(&self) -> Problem {
        match self {
            Self::Write(error) => error.problem(),
            _ => error::problem(self.code(), self.to_string()),
        }
    }
}

/// Reads the override.
pub async fn read(client: &Client, host: &Host) -> Result<BootOverride, ReadError> {
    Ok(shown(&client.get(&host.system).await?.body))
}

/// Boots from there once, or with [`BootTarget::None`] as usual, and verifies that the BMC shows it. The next boot is the caller's
/// business.
pub async fn set(
    client: &Client,
    host: &Host,
    target: BootTarget,
    mode: Option<BootMode>,
) -> Result<BootOverride, BootError> {
    let enabled = if target == BootTarget::None { BootEnabled::Disabled } else { BootEnabled::Once };
    let system = client.get(&host.system).await?;
    let now = shown(&system.body);
    let is_set = |boot: &BootOverride| {
        let target_fits = enabled == BootEnabled::Disabled || boot.target == Some(target);
        target_fits && boot.enabled == Some(enabled) && (mode.is_none() || boot.mode == mode)
    };
    if is_set(&now) {
        return Ok(now);
    }
    let body = patch_body(&now, host.profile.boot, target, enabled, mode)?;
    let written = write(client, &system, &body).await?;
    let found = read(client, host).await?;
    if is_set(&found) {
        return Ok(found);
    }
    if written != host.system {
        let pending = shown(&client.get(&written).await?.body);
        if is_set(&pending) {
            return Ok(pending);
        }
    }
    Err(BootError::NoEffect { found })
}

/// Writes to the system, or to its settings resource where the system itself is read-only (quirk 10). Where it was written.
async fn write(client: &Client, system: &Resource, body: &Value) -> Result<String, WriteError> {
    let refusal = match client.patch(&system.uri, body).await {
        Ok(outcome) => {
            task::finish(client, outcome).await?;
            return Ok(system.uri.clone());
        }
        Err(error @ (WriteError::Property { .. } | WriteError::Unsupported { .. })) => error,
        Err(error) => return Err(error),
    };
    let settings = system
        .body
        .get("@Redfish.Settings")
        .and_then(|s| s.get("SettingsObject")?.get("@odata.id")?.as_str());
    let Some(settings) = settings else { return Err(refusal) };
    let mut body = body.clone();
    if let Some(body) = body.as_object_mut() {
        // iDRACs apply nothing without (quirk 11).
        body.insert("@Redfish.SettingsApplyTime".to_owned(), json!({"ApplyTime": "OnReset"}));
    }
    let outcome = client.patch(settings, &body).await?;
    task::finish(client, outcome).await?;
    Ok(settings.to_owned())
}

fn shown(body: &Value) -> BootOverride {
    let boot = body.get("Boot").cloned().unwrap_or_default();
    let text = |name: &str| boot.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let offered = boot.get("BootSourceOverrideTarget@Redfish.AllowableValues").and_then(Value::as_array);
    BootOverride {
        target: text("BootSourceOverrideTarget").as_deref().and_then(BootTarget::of),
        enabled: text("BootSourceOverrideEnabled").as_deref().and_then(BootEnabled::of),
        mode: text("BootSourceOverrideMode").as_deref().and_then(BootMode::of),
        offered: offered.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
    }
}

/// What to send, by the style of the vendor (quirk 12).
fn patch_body(
    now: &BootOverride,
    style: BootStyle,
    target: BootTarget,
    enabled: BootEnabled,
    mode: Option<BootMode>,
) -> Result<Value, BootError> {
    let offers =
        |name: &&&str| now.offered.is_empty() || now.offered.iter().any(|o| o.eq_ignore_ascii_case(name));
    let name = target.names().iter().find(offers);
    // To boot as usual needs no target that the BMC knows.
    let name = match (name, target) {
        (None, BootTarget::None) => None,
        (None, _) => return Err(BootError::NotOffered { target, offered: now.offered.clone() }),
        (name, _) => name,
    };
    let mut boot = Map::new();
    if let Some(name) = name {
        boot.insert("BootSourceOverrideTarget".to_owned(), json!(name));
    }
    if style != BootStyle::Changes || now.enabled != Some(enabled) {
        boot.insert("BootSourceOverrideEnabled".to_owned(), json!(enabled.as_str()));
    }
    let mode = match style {
        BootStyle::Whole => mode.or(now.mode),
        _ => mode.filter(|mode| now.mode != Some(*mode)),
    };
    if let Some(mode) = mode {
        boot.insert("BootSourceOverrideMode".to_owned(), json!(mode.as_str()));
    }
    Ok(json!({"Boot": boot}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(enabled: &str, offered: &[&str]) -> BootOverride {
        shown(&json!({"Boot": {
            "BootSourceOverrideTarget": "None", "BootSourceOverrideEnabled": enabled,
            "BootSourceOverrideMode": "UEFI", "BootSourceOverrideTarget@Redfish.AllowableValues": offered}}))
    }

    fn body(style: BootStyle, now: &BootOverride, target: BootTarget) -> Value {
        let enabled = if target == BootTarget::None { BootEnabled::Disabled } else { BootEnabled::Once };
        patch_body(now, style, target, enabled, None).unwrap()["Boot"].clone()
    }

    #[test]
    fn quirk_12_the_table_says_how_much_of_the_override_is_written() {
        let once = now("Once", &[]);
        let target = json!({"BootSourceOverrideTarget": "Pxe"});
        assert_eq!(body(BootStyle::Changes, &once, BootTarget::Pxe), target);
        let enabled = json!({"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once"});
        assert_eq!(body(BootStyle::AlwaysEnabled, &once, BootTarget::Pxe), enabled);
        assert_eq!(body(BootStyle::Changes, &now("Disabled", &[]), BootTarget::Pxe), enabled);
        let whole = json!({"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideMode": "UEFI"});
        assert_eq!(body(BootStyle::Whole, &once, BootTarget::Pxe), whole);
    }

    #[test]
    fn quirk_12_a_cd_is_asked_for_by_the_name_that_is_offered() {
        let name = |offered: &[&str]| {
            body(BootStyle::Changes, &now("Once", offered), BootTarget::Cd)["BootSourceOverrideTarget"]
                .clone()
        };
        assert_eq!(name(&["None", "UsbCd"]), "UsbCd");
        assert_eq!(name(&["Cd", "UsbCd"]), "Cd");
        assert_eq!(name(&[]), "Cd");
    }

    #[test]
    fn a_target_that_is_not_offered_is_not_asked_for() {
        let error = patch_body(
            &now("Disabled", &["None", "Hdd"]),
            BootStyle::Changes,
            BootTarget::UefiHttp,
            BootEnabled::Once,
            None,
        );
        assert_eq!(error.map_err(|error| error.code()), Err("bmc.boot-unsupported"));
    }

    #[test]
    fn quirk_13_a_malformed_mode_is_read_as_far_as_it_is_clear() {
        assert_eq!(BootMode::of("UEFI Boot"), Some(BootMode::Uefi));
        assert_eq!(BootMode::of("legacy"), Some(BootMode::Legacy));
        assert_eq!(BootMode::of("UEFI|Legacy"), None);
        assert_eq!(BootMode::of(""), None);
    }
}

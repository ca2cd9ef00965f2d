//! The boot source override: what a client must say to set it (quirks 10, 12), and what a host tries in which order.

use serde_json::{Value, json};

use crate::behaviour::BootStyle;
use crate::messages;

/// An error body; the status is 400.
pub(crate) type Refused = Value;

/// Whether this change of `Boot` is accepted where `now` is shown.
pub(crate) fn check(change: &Value, now: &Value, style: &BootStyle) -> Result<(), Refused> {
    if let Some(property) = style.demands.iter().find(|property| change.get(property.as_str()).is_none()) {
        return Err(messages::property_missing(property));
    }
    let enabled = change["BootSourceOverrideEnabled"].as_str();
    if let Some(enabled) = enabled {
        let known = matches!(enabled, "Disabled" | "Once") || (enabled == "Continuous" && style.persistent);
        if !known || (style.refuses_unchanged && now["BootSourceOverrideEnabled"] == enabled) {
            return Err(messages::property_value("BootSourceOverrideEnabled", enabled));
        }
    }
    if let Some(target) = change["BootSourceOverrideTarget"].as_str() {
        let allowed = now["BootSourceOverrideTarget@Redfish.AllowableValues"].as_array();
        if allowed.is_some_and(|allowed| !allowed.iter().any(|value| value == target)) {
            return Err(messages::property_value("BootSourceOverrideTarget", target));
        }
    }
    if let Some(mode) = change["BootSourceOverrideMode"].as_str()
        && !matches!(mode, "UEFI" | "Legacy")
    {
        return Err(messages::property_value("BootSourceOverrideMode", mode));
    }
    Ok(())
}

/// What a host tries to boot from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An ISO at this URL.
    Iso(String),
    /// Its disk.
    Disk,
}

/// What is in the slots of virtual media.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inserted {
    pub(crate) cd: Option<String>,
    pub(crate) usb: Option<String>,
}

/// What a host with this `Boot` tries, in order: the override, then its disk, then whatever medium there is.
pub(crate) fn sources(boot: &Value, media: &Inserted, style: &BootStyle) -> Vec<Source> {
    let mut out = Vec::new();
    if matches!(boot["BootSourceOverrideEnabled"].as_str(), Some("Once" | "Continuous")) {
        let iso = |image: &Option<String>| image.clone().map(Source::Iso);
        let first = match boot["BootSourceOverrideTarget"].as_str().unwrap_or_default() {
            "Cd" if style.usb_cd => None,
            "Cd" | "UsbCd" => iso(&media.cd),
            "Usb" => iso(&media.usb).or_else(|| iso(&media.cd)),
            "UefiHttp" => boot["HttpBootUri"].as_str().map(|uri| Source::Iso(uri.to_owned())),
            "Hdd" => Some(Source::Disk),
            _ => None,
        };
        out.extend(first);
    }
    for source in [Some(Source::Disk), media.cd.clone().map(Source::Iso)].into_iter().flatten() {
        // A CD that the override cannot boot, the boot order cannot either.
        let bootable = !(style.usb_cd && matches!(source, Source::Iso(_)));
        if bootable && !out.contains(&source) {
            out.push(source);
        }
    }
    out
}

/// What becomes of `Boot` when the host starts: an override for once is used up.
pub(crate) fn used_up(boot: &Value) -> Option<Value> {
    (boot["BootSourceOverrideEnabled"] == "Once")
        .then(|| json!({"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(enabled: &str, target: &str) -> Value {
        json!({"BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target,
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Cd", "Hdd", "Usb", "UsbCd"]})
    }

    fn with_cd() -> Inserted {
        Inserted { cd: Some("http://a/cd.iso".to_owned()), usb: None }
    }

    #[test]
    fn the_override_comes_first_and_the_disk_before_other_media() {
        let (cd, disk) = (Source::Iso("http://a/cd.iso".to_owned()), Source::Disk);
        let style = BootStyle::default();
        assert_eq!(sources(&boot("Once", "Cd"), &with_cd(), &style), [cd.clone(), disk.clone()]);
        assert_eq!(sources(&boot("Continuous", "Hdd"), &with_cd(), &style), [disk.clone(), cd.clone()]);
        assert_eq!(sources(&boot("Disabled", "None"), &with_cd(), &style), [disk.clone(), cd]);
        assert_eq!(sources(&boot("Once", "Cd"), &Inserted::default(), &style), [disk]);
    }

    #[test]
    fn where_virtual_media_are_a_usb_cd_a_cd_boots_nothing() {
        let style = BootStyle { usb_cd: true, ..BootStyle::default() };
        assert_eq!(sources(&boot("Once", "Cd"), &with_cd(), &style), [Source::Disk]);
        assert_eq!(sources(&boot("Once", "UsbCd"), &with_cd(), &style).len(), 2);
    }

    #[test]
    fn only_an_override_for_once_is_used_up() {
        assert_eq!(used_up(&boot("Once", "Cd")).unwrap()["BootSourceOverrideTarget"], "None");
        assert_eq!(used_up(&boot("Continuous", "Cd")), None);
    }

    #[test]
    fn changes_are_refused_as_the_style_says() {
        let now = boot("Disabled", "None");
        let target = json!({"BootSourceOverrideTarget": "Cd"});
        let strict = |change: fn(&mut BootStyle)| {
            let mut style = BootStyle::default();
            change(&mut style);
            style
        };
        assert!(check(&target, &now, &BootStyle::default()).is_ok());
        assert!(
            check(&target, &now, &strict(|s| s.demands = BootStyle::FULL.map(str::to_owned).into())).is_err()
        );
        assert!(
            check(&target, &now, &strict(|s| s.demands = vec!["BootSourceOverrideEnabled".to_owned()]))
                .is_err()
        );
        let persistent = json!({"BootSourceOverrideEnabled": "Continuous"});
        assert!(check(&persistent, &now, &strict(|s| s.persistent = false)).is_err());
        let same = json!({"BootSourceOverrideEnabled": "Disabled"});
        assert!(check(&same, &now, &strict(|s| s.refuses_unchanged = true)).is_err());
        assert!(check(&json!({"BootSourceOverrideTarget": "Tape"}), &now, &BootStyle::default()).is_err());
    }
}

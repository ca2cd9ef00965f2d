//! Firmware profiles: what a model must have, held against what its BMC tells (DESIGN §5.4). Pure.

mod check;
mod profile;
#[cfg(test)]
mod tests;
mod version;

pub use check::{Compliance, Finding, Verdict, assess, check};
pub use profile::{
    BiosAttribute, Blocked, Component, FirmwareProfileSpec, GpuViews, HostInterfaceRule, Image, Match, Part,
    Pattern, Rule, SecureBoot, Selector, TpmRule, View,
};
pub use version::{NotAVersion, Version};

/// The codes of this part: code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "firmware.ambiguous-profile",
        "Several firmware profiles match a machine, so none is taken.",
        "Narrow `match` of all but one of those named.",
    ),
    (
        "firmware.blocked",
        "A component has a version that its profile blocks.",
        "Update it; the profile may say why the version is blocked.",
    ),
    (
        "firmware.differs",
        "A setting is not as the profile wants it.",
        "Change it in the BIOS or BMC and restart the machine; it is read again.",
    ),
    (
        "firmware.missing",
        "A component or setting that must be there is not.",
        "Compare with `bailiwick inspect`; firmware may name it anew, then add that name to the profile.",
    ),
    (
        "firmware.no-profile",
        "No firmware profile matches a machine; it waits.",
        "Declare a FirmwareProfile for its model.",
    ),
    (
        "firmware.not-compliant",
        "A machine's firmware or settings are not as its profile wants.",
        "`bailiwick firmware check` shows every value with its source.",
    ),
    (
        "firmware.not-exact",
        "A component has another version than the ones that it may have.",
        "Bring it to a version that the profile names.",
    ),
    (
        "firmware.profile-invalid",
        "A firmware profile means nothing or contradicts itself.",
        "Mend the field named; `bailiwick explain firmwareprofile` lists every field.",
    ),
    ("firmware.too-old", "A component is older than the minimum.", "Update it."),
    (
        "firmware.unknown",
        "A value is not told, or a version cannot be compared; unknown is never pass.",
        "Read again; where the maker writes versions that cannot be ordered, name the good ones by `oneOf`.",
    ),
];

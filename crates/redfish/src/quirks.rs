//! The one table of vendor quirks. What every BMC may do is tolerated everywhere and not listed here.

use std::time::Duration;

use serde_json::Value;

use crate::decode::{Log, Node};
use crate::guard::Pace;

/// Whose firmware, or whose machine, it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Dell iDRAC.
    Dell,
    /// HPE iLO.
    Hpe,
    /// Lenovo XCC.
    Lenovo,
    /// Supermicro.
    Supermicro,
    /// AMI MegaRAC, also under other makers' names (DGX).
    Ami,
    /// Anything else.
    Other,
}

/// What is different on one vendor's BMCs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The vendor.
    pub vendor: Vendor,
    /// Words in the root's `Vendor`, its `Oem` keys or a manufacturer that tell the vendor (quirk 22), in lower case.
    pub words: &'static [&'static str],
    /// `$expand` is advertised and done right. Where not, members lack required fields (quirk 19).
    pub expand: bool,
    /// `ComputerSystem.SKU` is the machine's serial (service tag), `SerialNumber` the motherboard's (quirk 27).
    pub serial_is_sku: bool,
    /// Where a system links to the vendor's own list of GPUs, which knows more than the standard one.
    pub gpu_collection: Option<&'static [&'static str]>,
    /// How fast its BMCs may be asked (quirk 39).
    pub pace: Pace,
    /// Words in the model of machines that hang when restarted at once: those go off, then on (quirk 35).
    pub restart_hangs: &'static [&'static str],
    /// How a boot override is written (quirk 12).
    pub boot: BootStyle,
    /// Accounts are slots made beforehand; the first that may be used (quirk 29). `None`: they are created.
    pub first_account_slot: Option<u32>,
}

/// How a boot override is written (quirk 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootStyle {
    /// Only what changes.
    Changes,
    /// `BootSourceOverrideEnabled` always, even unchanged.
    AlwaysEnabled,
    /// Target, enabled and mode always.
    Whole,
}

/// The table. The first row whose words fit applies; the last fits all.
pub const PROFILES: &[Profile] = &[
    Profile {
        vendor: Vendor::Dell,
        words: &["dell"],
        expand: true,
        serial_is_sku: true,
        gpu_collection: Some(&["Links", "Oem", "Dell", "DellVideoCollection"]),
        // iDRACs refuse operations that follow each other too fast (quirk 30).
        pace: Pace { at_once: 4, command_gap: Duration::from_secs(1) },
        first_account_slot: Some(3),
        ..PLAIN
    },
    Profile { vendor: Vendor::Hpe, words: &["hpe", "hp", "hewlett"], ..PLAIN },
    Profile { vendor: Vendor::Lenovo, words: &["lenovo"], restart_hangs: &["sr675 v3"], ..PLAIN },
    Profile {
        vendor: Vendor::Supermicro,
        words: &["supermicro", "super micro"],
        boot: BootStyle::AlwaysEnabled,
        ..PLAIN
    },
    Profile {
        vendor: Vendor::Ami,
        words: &["ami", "american megatrends"],
        expand: false,
        boot: BootStyle::Whole,
        ..PLAIN
    },
    PLAIN,
];

/// What holds for everybody else.
pub const PLAIN: Profile = Profile {
    vendor: Vendor::Other,
    words: &[],
    expand: true,
    serial_is_sku: false,
    gpu_collection: None,
    pace: Pace { at_once: 4, command_gap: Duration::from_millis(100) },
    restart_hangs: &[],
    boot: BootStyle::Changes,
    first_account_slot: None,
};

impl Profile {
    /// Whether this model hangs when restarted at once (quirk 35).
    pub fn restart_hangs(&self, model: Option<&str>) -> bool {
        let model = model.unwrap_or_default().to_ascii_lowercase();
        self.restart_hangs.iter().any(|word| model.contains(word))
    }
}

/// The row for a BMC, by its service root and its host's manufacturer: root `Vendor` may be the BMC's maker while
/// the manufacturer is the machine's, or may be missing (quirk 22).
pub fn profile(root: &Value, manufacturer: Option<&str>) -> Profile {
    let log = Log::default();
    let root = Node::new(root, "", &log);
    let mut names: Vec<String> = Vec::new();
    names.extend(root.text("Vendor"));
    if let Some(oem) = root.body().get("Oem").and_then(Value::as_object) {
        names.extend(oem.keys().cloned());
    }
    names.extend(manufacturer.map(ToOwned::to_owned));
    by_names(&names)
}

fn by_names(names: &[String]) -> Profile {
    let known = |profile: &&Profile| {
        names.iter().any(|name| {
            let name = name.to_ascii_lowercase();
            profile.words.iter().any(|word| name == *word || name.starts_with(&format!("{word} ")))
        })
    };
    PROFILES.iter().find(known).copied().unwrap_or(PLAIN)
}

/// Chassis that hold neither GPU nor NIC nor drive, by their names on NVIDIA baseboards: roots of trust are told
/// by ComponentIntegrity, retimers by the firmware inventory. Not reading them saves a third of a DGX's chassis.
pub fn is_bare_chassis(id: &str) -> bool {
    let id = id.to_ascii_lowercase();
    ["erot", "irot", "pcieretimer"].iter().any(|word| id.contains(word))
}

/// Media that the BMC itself shows to the host (virtual CD, virtual disk) are no drives of the machine.
pub fn is_virtual_media(model: Option<&str>) -> bool {
    model.is_some_and(|model| {
        let model = model.to_ascii_lowercase();
        model.starts_with("virtual ") || model.contains("virtual media") || model.contains("virtual floppy")
    })
}

//! What a PCIe device is: by its functions' class and vendor, else by its names; and its PCI address.

use serde_json::Value;

use crate::decode::Node;

/// PCI vendors that make GPUs: NVIDIA, AMD, Intel.
pub(crate) const GPU_VENDORS: &[u64] = &[0x10de, 0x1002, 0x8086];
/// PCI vendors of BMC video: ASPEED, Matrox, and HPE's iLO.
const VIDEO_VENDORS: &[u64] = &[0x1a03, 0x102b, 0x103c, 0x1590];
/// Words in names of BMC video.
const VIDEO_WORDS: &[&str] =
    &["aspeed", "ast2", "matrox", "g200", "ilo ", "pilot", "nuvoton", "embedded video", "onboard video"];
/// Words in names of what stands beside GPUs and is none.
const OTHER_WORDS: &[&str] = &[
    "bluefield",
    "connectx",
    "dpu",
    "nvswitch",
    "nvlink",
    "switch",
    "bridge",
    "retimer",
    "fpga",
    "ethernet",
    "network",
    "infiniband",
    "nvme",
    "sata",
    "raid",
    "storage",
    "usb",
    "root port",
    "ssd",
    "nic ",
];
/// Product names of data-centre GPUs.
const GPU_WORDS: &[&str] = &[
    "gpu", "h100", "h200", "h800", "h20", "b100", "b200", "b300", "gb200", "gb300", "gh200", "a100", "a800",
    "a10", "a16", "a2", "a30", "a40", "l4", "l20", "l40", "l40s", "t4", "p100", "p40", "v100", "tesla",
    "rtx", "quadro", "instinct", "mi100", "mi210", "mi250", "mi250x", "mi300a", "mi300x", "mi325x", "mi350x",
    "mi355x", "radeon",
];

fn words_of(node: &Node<'_>) -> String {
    let fields = ["Manufacturer", "Model", "Name", "Description"];
    let texts: Vec<String> = fields
        .iter()
        .filter_map(|field| node.body().get(*field)?.as_str().map(str::to_ascii_lowercase))
        .collect();
    format!("{} ", texts.join(" "))
}

/// The BMC's own video is no GPU.
pub(crate) fn is_management_video(node: &Node<'_>) -> bool {
    let vendor = ["VendorId", "PCIVendorID"]
        .iter()
        .find_map(|field| node.body().get(*field)?.as_str())
        .and_then(hex_id);
    let words = words_of(node);
    vendor.is_some_and(|id| VIDEO_VENDORS.contains(&id))
        || VIDEO_WORDS.iter().any(|word| words.contains(word))
}

/// Whether a PCIe device is worth a look at its functions.
pub(crate) fn may_be_gpu(node: &Node<'_>) -> bool {
    let words = words_of(node);
    is_named_gpu(node) || !OTHER_WORDS.iter().any(|word| words.contains(word))
}

/// Whether a device calls itself a GPU, by its id or a product name.
pub(crate) fn is_named_gpu(node: &Node<'_>) -> bool {
    let id = node.id().to_ascii_lowercase();
    let words = words_of(node);
    if ["bluefield", "connectx", "nvswitch", "retimer", "riser", "fpga"]
        .iter()
        .any(|word| words.contains(word))
    {
        return false;
    }
    let numbered = id.strip_prefix("gpu").is_some_and(|rest| {
        rest.trim_start_matches(['_', '-', '.'])
            .trim_start_matches("sxm")
            .trim_start_matches('_')
            .chars()
            .all(|c| c.is_ascii_digit())
    });
    let typed = node
        .body()
        .get("DeviceType")
        .and_then(Value::as_str)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("GPU"));
    let model = node.body().get("Model").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    // "A2" or "T4" may be anything's revision: short names count beside the maker's only
    let made_by = ["nvidia", "amd ", "advanced micro"].iter().any(|maker| words.contains(maker));
    let says_gpu = |text: &str| {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| GPU_WORDS.contains(&word) && (made_by || word.len() > 3))
    };
    // where the model is a part number (HPE), the name tells the product; a name alone may be that of what stands beside
    let name = node.body().get("Name").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let called = made_by && says_gpu(&name) && !OTHER_WORDS.iter().any(|word| words.contains(word));
    numbered || typed || called || says_gpu(&model)
}

/// Base class and subclass of a PCI function, and its vendor.
pub(crate) struct PciClass {
    base: Option<u64>,
    device_class: String,
    vendor: Option<u64>,
}

impl PciClass {
    pub(crate) fn is_gpu(&self) -> bool {
        let known = self.vendor.is_none_or(|vendor| GPU_VENDORS.contains(&vendor));
        let display = self.base == Some(0x03) || self.device_class == "displaycontroller";
        // NVIDIA and AMD accelerators; Intel's of this class are no GPUs (QAT, DSA)
        let accelerates = ["processingaccelerators", "coprocessor"].contains(&self.device_class.as_str());
        let accelerator = (matches!(self.base, Some(0x0b | 0x12)) || accelerates)
            && self.vendor.is_some_and(|vendor| matches!(vendor, 0x10de | 0x1002));
        known && (display || accelerator)
    }
}

pub(crate) fn pci_class(function: &Node<'_>) -> Option<PciClass> {
    let id = |field| function.text(field).and_then(|id| hex_id(&id)).filter(|id| *id > 0);
    let device_class = function.text("DeviceClass").unwrap_or_default().to_ascii_lowercase();
    // 0xBBSSPP; Dell writes 0x0000BB
    let base = id("ClassCode").map(|code| match code {
        0x01_0000.. => code >> 16,
        0x0100..=0xffff => code >> 8,
        _ => code,
    });
    let says_nothing =
        ["", "other", "unclassifieddevice", "unassignedclass"].contains(&device_class.as_str());
    if says_nothing && base.is_none() {
        return None;
    }
    Some(PciClass { base, device_class, vendor: id("VendorId") })
}

pub(crate) fn hex_id(text: &str) -> Option<u64> {
    let bare = text.trim().trim_start_matches("0x").trim_start_matches("0X");
    u64::from_str_radix(bare, 16).ok()
}

/// The PCI address, where bus, device and function are told: in the resource, or in its vendor's part.
pub(crate) fn pci_address(node: &Node<'_>) -> Option<String> {
    let own = std::iter::once(node.clone());
    let oem = node.body().get("Oem").and_then(Value::as_object);
    let vendors = oem
        .into_iter()
        .flat_map(|oem| oem.keys())
        .filter_map(|vendor| node.descend(&["Oem", vendor.as_str()]));
    own.chain(vendors).find_map(|place| {
        if place.body().get("BusNumber").is_none_or(Value::is_null) {
            return None;
        }
        let bus = place.whole("BusNumber").filter(|bus| *bus <= 0xff)?;
        let device = place.whole("DeviceNumber").filter(|device| *device <= 0x1f)?;
        let function = place
            .whole("FunctionNumber")
            .or_else(|| place.whole("FunctionId"))
            .filter(|function| *function <= 7)?;
        let segment =
            ["SegmentNumber", "DomainNumber"].iter().find_map(|field| place.whole(field)).unwrap_or(0);
        // bus 0 holds no GPU: all zeros mean "not known"
        (bus > 0).then(|| format!("{segment:04x}:{bus:02x}:{device:02x}.{function:x}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::Log;

    fn with<T>(body: &Value, test: impl FnOnce(&Node<'_>) -> T) -> T {
        let log = Log::default();
        test(&Node::new(body, "/redfish/v1/X/1", &log))
    }

    #[test]
    fn the_class_code_is_read_in_both_byte_orders() {
        let gpu = |body: Value| with(&body, |node| pci_class(node).is_some_and(|class| class.is_gpu()));
        assert!(gpu(json!({"ClassCode": "0x030200", "VendorId": "0x10de"})));
        assert!(gpu(json!({"ClassCode": "0x000003", "VendorId": "0x10de"})));
        assert!(gpu(json!({"ClassCode": "0x120000", "VendorId": "0x1002"})));
        assert!(!gpu(json!({"ClassCode": "0x120000", "VendorId": "0x8086"})));
        assert!(!gpu(json!({"ClassCode": "0x020000", "VendorId": "0x15b3"})));
        assert!(!gpu(json!({"ClassCode": "0x030000", "VendorId": "0x1a03"})));
    }

    #[test]
    fn a_pci_address_needs_bus_device_and_function() {
        let address = |body: Value| with(&body, pci_address);
        assert_eq!(
            address(json!({"BusNumber": 23, "DeviceNumber": 0, "FunctionNumber": 0})).as_deref(),
            Some("0000:17:00.0")
        );
        assert_eq!(
            address(json!({"Oem": {"X": {"BusNumber": 1, "DeviceNumber": 2, "FunctionNumber": 3}}}))
                .as_deref(),
            Some("0000:01:02.3")
        );
        assert_eq!(address(json!({"BusNumber": 23})), None);
        assert_eq!(address(json!({"BusNumber": 0, "DeviceNumber": 0, "FunctionNumber": 0})), None);
    }
}

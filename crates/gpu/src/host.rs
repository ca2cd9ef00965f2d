//! What the kernel tells of the host and of where a GPU sits, read from `/proc` and `/sys`.

use domain::probe::Host;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where `/proc` and `/sys` are found: `/`, or what a container has mounted the host's root at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoot(PathBuf);

impl Default for HostRoot {
    fn default() -> Self {
        Self(PathBuf::from("/"))
    }
}

/// Where a PCI device sits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// `pci0000:64`.
    pub root: Option<String>,
    /// NUMA node; the kernel writes `-1` where it does not know.
    pub numa_node: Option<u32>,
}

impl HostRoot {
    /// A root other than `/`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The kernel's id of the current boot, a UUID.
    pub fn boot_id(&self) -> Option<String> {
        let uuid =
            |line: &String| line.len() == 36 && line.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        self.line("proc/sys/kernel/random/boot_id").filter(uuid)
    }

    /// The host's own identity.
    pub fn host(&self) -> Host {
        Host {
            hostname: self.line("proc/sys/kernel/hostname"),
            system_uuid: self.line("sys/class/dmi/id/product_uuid").map(|uuid| uuid.to_ascii_lowercase()),
        }
    }

    /// Whether the kernel sees a GPU of NVIDIA's on the PCI bus, with a driver or without.
    pub fn has_gpu(&self) -> bool {
        let devices = Path::new("sys/bus/pci/devices");
        let names = std::fs::read_dir(self.0.join(devices)).into_iter().flatten().flatten();
        let tells = |device: &Path, file: &str, start: &str| {
            self.line(device.join(file)).is_some_and(|line| line.starts_with(start))
        };
        let mut devices = names.map(|entry| devices.join(entry.file_name()));
        // Class 3 are display controllers: of their other devices, switches and network cards, none is to be handed out.
        devices.any(|device| tells(&device, "vendor", "0x10de") && tells(&device, "class", "0x03"))
    }

    /// Where the device with a PCI address sits.
    pub fn place(&self, address: &str) -> Place {
        let device = Path::new("sys/bus/pci/devices").join(address);
        let root = std::fs::read_link(self.0.join(&device)).ok().and_then(|target| {
            target.iter().filter_map(|part| part.to_str()).find(|part| is_root(part)).map(str::to_owned)
        });
        let numa_node = self.line(device.join("numa_node")).and_then(|text| text.parse().ok());
        Place { root, numa_node }
    }

    /// Minor numbers of `/dev/nvidia-caps/nvidia-cap<minor>` by what they open: `gpu0/gi1/access`, `gpu0/gi1/ci0/access`.
    pub fn mig_minors(&self) -> BTreeMap<String, u32> {
        let text = std::fs::read_to_string(self.0.join("proc/driver/nvidia-caps/mig-minors"));
        let pairs = text.unwrap_or_default();
        let pairs = pairs.lines().filter_map(|line| line.split_once(' '));
        pairs.filter_map(|(what, minor)| Some((what.to_owned(), minor.trim().parse().ok()?))).collect()
    }

    /// Major number of `/dev/nvidia-caps/*`.
    pub fn caps_major(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.0.join("proc/devices")).ok()?;
        let mut pairs = text.lines().filter_map(|line| line.trim().split_once(' '));
        pairs.find(|(_, name)| *name == "nvidia-caps")?.0.parse().ok()
    }

    fn line(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = std::fs::read_to_string(self.0.join(path)).ok()?;
        Some(text.trim().to_owned()).filter(|line| !line.is_empty())
    }
}

/// `pci` and a domain and bus, as the kernel names host bridges.
fn is_root(part: &str) -> bool {
    part.strip_prefix("pci").and_then(|rest| rest.split_once(':')).is_some_and(|(domain, bus)| {
        let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex(domain) && hex(bus)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/devices/pci0000:64/0000:64:01.0/0000:65:00.0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("numa_node"), "1\n").unwrap();
        let devices = root.path().join("sys/bus/pci/devices");
        std::fs::create_dir_all(&devices).unwrap();
        symlink("../../../devices/pci0000:64/0000:64:01.0/0000:65:00.0", devices.join("0000:65:00.0"))
            .unwrap();
        root
    }

    #[test]
    fn the_root_complex_is_read_from_where_the_link_of_the_device_leads() {
        let root = root();
        let place = HostRoot::at(root.path()).place("0000:65:00.0");
        assert_eq!(place, Place { root: Some("pci0000:64".into()), numa_node: Some(1) });
    }

    #[test]
    fn a_gpu_is_a_display_controller_of_nvidia() {
        let root = root();
        let device = root.path().join("sys/bus/pci/devices/0000:65:00.0");
        let host = HostRoot::at(root.path());
        assert!(!host.has_gpu() && !HostRoot::at("/nonexistent").has_gpu());
        // An H100, an NVSwitch, another vendor's card.
        for (vendor, class, is_gpu) in
            [("0x10de", "0x030200", true), ("0x10de", "0x068000", false), ("0x1002", "0x030000", false)]
        {
            std::fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
            std::fs::write(device.join("class"), format!("{class}\n")).unwrap();
            assert_eq!(host.has_gpu(), is_gpu, "{vendor} {class}");
        }
    }

    #[test]
    fn a_numa_node_of_minus_one_is_not_known() {
        let root = root();
        std::fs::write(root.path().join("sys/bus/pci/devices/0000:65:00.0/numa_node"), "-1\n").unwrap();
        assert_eq!(HostRoot::at(root.path()).place("0000:65:00.0").numa_node, None);
    }

    #[test]
    fn a_device_that_the_kernel_does_not_have_sits_nowhere() {
        assert_eq!(HostRoot::at(root().path()).place("0000:01:00.0"), Place::default());
    }

    #[test]
    fn minor_numbers_of_mig_instances_are_found_by_what_they_open() {
        let root = tempfile::tempdir().unwrap();
        let caps = root.path().join("proc/driver/nvidia-caps");
        std::fs::create_dir_all(&caps).unwrap();
        std::fs::write(caps.join("mig-minors"), "config 1\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n")
            .unwrap();
        let minors = HostRoot::at(root.path()).mig_minors();
        assert_eq!((minors["gpu0/gi1/access"], minors["gpu0/gi1/ci0/access"]), (12, 13));
    }

    #[test]
    fn the_major_number_of_capabilities_is_found_among_the_devices() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        assert_eq!(HostRoot::at(root.path()).caps_major(), None);
        let devices =
            "Character devices:\n  1 mem\n195 nvidia\n237 nvidia-caps-imex-channels\n238 nvidia-caps\n";
        std::fs::write(root.path().join("proc/devices"), devices).unwrap();
        assert_eq!(HostRoot::at(root.path()).caps_major(), Some(238));
    }

    #[test]
    fn what_is_no_uuid_is_no_boot_id() {
        let root = tempfile::tempdir().unwrap();
        let random = root.path().join("proc/sys/kernel/random");
        std::fs::create_dir_all(&random).unwrap();
        std::fs::write(random.join("boot_id"), "x".repeat(4096)).unwrap();
        assert_eq!(HostRoot::at(root.path()).boot_id(), None);
    }

    #[test]
    fn this_host_has_a_boot_id_and_a_name() {
        let root = HostRoot::default();
        assert!(root.boot_id().is_some_and(|id| id.len() == 36));
        assert!(root.host().hostname.is_some());
    }
}

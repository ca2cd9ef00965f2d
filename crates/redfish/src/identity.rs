//! Who the machine is: which of several computer systems is the host (quirks 23, 24), which manager manages it, and which field
//! is the serial number (quirk 27).

use std::collections::BTreeSet;

use domain::inventory::{Bmc, Identity};

use crate::decode::{Log, Node, bare_path};
use crate::quirks::Profile;
use crate::reader::Resource;

/// The host among the systems, by links and by what only a host has; never by position (quirk 24).
///
/// A link decides: the manager that provides the service says whom it manages, or the system says who manages it. On a
/// DGX the BMC's own manager has no `ManagerForServers`, and the baseboard has a manager of its own.
pub fn host<'a>(
    systems: &[Node<'a>],
    managers: &[Node<'a>],
    service_manager: Option<&str>,
    log: &Log,
) -> Option<usize> {
    let scores: Vec<u32> = systems.iter().map(|system| score(system, managers, service_manager)).collect();
    let best = *scores.iter().max()?;
    let mut leaders: Vec<usize> =
        (0..systems.len()).filter(|index| scores.get(*index) == Some(&best)).collect();
    leaders.sort_by_key(|index| systems.get(*index).map(Node::path));
    let first = *leaders.first()?;
    if leaders.len() > 1 {
        let paths: Vec<&str> =
            leaders.iter().filter_map(|index| systems.get(*index)).map(Node::path).collect();
        let taken = paths.first().copied().unwrap_or_default();
        log.note("redfish.host.ambiguous", taken, format!("{} look alike as the host", paths.join(" and ")));
    }
    Some(first)
}

/// Whether a system is a host by its links or by what only a host has. A GPU baseboard is not: it is the best of the systems
/// only while the host itself cannot be read.
pub fn is_host(system: &Node<'_>, managers: &[Node<'_>], service_manager: Option<&str>) -> bool {
    service_manager.is_some_and(|service| manages(service, system, managers))
        || ["Bios", "SecureBoot"].iter().any(|field| system.body().get(*field).is_some_and(|v| !v.is_null()))
        || system.identifier("BiosVersion").is_some()
}

/// Other hosts behind the same service (blades of one enclosure): as good a host as the one chosen, with a serial number of
/// its own. Their parts are not the host's.
pub fn peers(
    systems: &[Node<'_>],
    managers: &[Node<'_>],
    service_manager: Option<&str>,
    host: usize,
) -> Vec<usize> {
    let Some(own) = systems.get(host) else { return Vec::new() };
    let (best, serial) = (score(own, managers, service_manager), own.identifier("SerialNumber"));
    let boots = |system: &Node<'_>| {
        ["Bios", "Boot", "BiosVersion"]
            .iter()
            .any(|field| system.body().get(*field).is_some_and(|v| !v.is_null()))
    };
    let is_other = |system: &Node<'_>| {
        let other = system.identifier("SerialNumber");
        other.is_some() && serial.is_some() && other != serial
    };
    systems
        .iter()
        .enumerate()
        .filter(|(index, system)| {
            *index != host
                && boots(system)
                && is_other(system)
                && score(system, managers, service_manager) == best
        })
        .map(|(index, _)| index)
        .collect()
}

/// How much speaks for a system being the host. Links weigh more than everything else together.
fn score(system: &Node<'_>, managers: &[Node<'_>], service_manager: Option<&str>) -> u32 {
    let mut score = 0;
    if service_manager.is_some_and(|service| manages(service, system, managers)) {
        score += 64;
    }
    // what a baseboard with GPUs, a DPU's arm or a switch's ASIC does not have
    for field in ["Bios", "SecureBoot", "TrustedModules", "BiosVersion", "Boot"] {
        score += if system.body().get(field).is_some_and(|value| !value.is_null()) { 4 } else { 0 };
    }
    for field in ["SerialNumber", "Model", "SKU"] {
        score += if system
            .body()
            .get(field)
            .and_then(|v| v.as_str())
            .is_some_and(|text| !text.trim().is_empty())
        {
            2
        } else {
            0
        };
    }
    for field in ["EthernetInterfaces", "Storage", "Processors", "Memory"] {
        score += u32::from(system.has(field));
    }
    let kind = system.body().get("SystemType").and_then(|v| v.as_str()).unwrap_or_default();
    score + u32::from(kind.eq_ignore_ascii_case("Physical"))
}

fn manages(manager: &str, system: &Node<'_>, managers: &[Node<'_>]) -> bool {
    let same = |link: &String| bare_path(link) == bare_path(manager);
    if system.child("Links").is_some_and(|links| links.links("ManagedBy").iter().any(same)) {
        return true;
    }
    let found = managers.iter().find(|node| bare_path(node.path()) == bare_path(manager));
    let servers = found.and_then(|node| node.child("Links")).map(|links| links.links("ManagerForServers"));
    servers.unwrap_or_default().iter().any(|link| bare_path(link) == bare_path(system.path()))
}

/// The manager that provides the service we talk to: the root's own link, else the one with the root's UUID.
pub fn service_manager(root: &Node<'_>, managers: &[Node<'_>]) -> Option<String> {
    if let Some(link) = root.child("Links").and_then(|links| links.link("ManagerProvidingService")) {
        return Some(link);
    }
    if let [only] = managers {
        return Some(only.path().to_owned());
    }
    let uuid = root.uuid("UUID")?;
    let mut found = managers.iter().filter(|manager| {
        manager.uuid("ServiceEntryPointUUID").as_ref() == Some(&uuid)
            || manager.uuid("UUID").as_ref() == Some(&uuid)
    });
    let first = found.next()?;
    found.next().is_none().then(|| first.path().to_owned())
}

/// The manager of the host. `Links.ManagedBy` may be missing (quirk 23); the manager's own link, the manager of the service,
/// and being the only one that manages nobody else follow.
pub fn manager(
    host: Option<&Node<'_>>,
    managers: &[Node<'_>],
    service_manager: Option<&str>,
) -> Option<usize> {
    let index_of = |path: &str| managers.iter().position(|node| bare_path(node.path()) == bare_path(path));
    if let Some(host) = host {
        let managed_by = host.child("Links").map(|links| links.links("ManagedBy")).unwrap_or_default();
        let mut candidates: Vec<usize> = managed_by.iter().filter_map(|link| index_of(link)).collect();
        candidates.sort_by_key(|index| {
            let service = service_manager.and_then(index_of) == Some(*index);
            (!service, managers.get(*index).map(Node::path))
        });
        if let Some(first) = candidates.first() {
            return Some(*first);
        }
        let for_host = managers.iter().position(|node| {
            node.child("Links").is_some_and(|links| {
                links.links("ManagerForServers").iter().any(|link| bare_path(link) == bare_path(host.path()))
            })
        });
        if for_host.is_some() {
            return for_host;
        }
    }
    if let Some(index) = service_manager.and_then(index_of) {
        return Some(index);
    }
    let mut bmcs = managers.iter().enumerate().filter(|(_, node)| {
        let kind = node.text("ManagerType").unwrap_or_default();
        let others = node.child("Links").map(|links| links.links("ManagerForServers")).unwrap_or_default();
        (kind.is_empty() || kind.eq_ignore_ascii_case("BMC")) && others.is_empty()
    });
    let first = bmcs.next()?.0;
    bmcs.next().is_none().then_some(first)
}

/// The host's identity by the vendor's rule.
pub fn identity(system: &Node<'_>, profile: &Profile, log: &Log) -> Identity {
    let own_serial = system.identifier("SerialNumber");
    let sku = system.identifier("SKU");
    let serial = if profile.serial_is_sku {
        // quirk 27: Dell's SKU is the service tag, SerialNumber the motherboard's
        sku.clone().or_else(|| {
            if own_serial.is_some() {
                log.note(
                    "redfish.identity.fallback",
                    system.path(),
                    "`SKU` holds no service tag; `SerialNumber` is the motherboard's",
                );
            }
            own_serial.clone()
        })
    } else {
        own_serial
    };
    Identity {
        manufacturer: system.identifier("Manufacturer"),
        model: system.identifier("Model"),
        serial,
        uuid: system.uuid("UUID"),
        sku,
        part_number: system.identifier("PartNumber"),
    }
}

/// Identity of a machine without a computer system (a switch tray, a power shelf): that of its outermost chassis.
pub fn chassis_identity(chassis: &[Node<'_>]) -> Option<(String, Identity)> {
    let mut outer: Vec<&Node<'_>> = chassis
        .iter()
        .filter(|node| {
            let contained = node.child("Links").and_then(|links| links.link("ContainedBy"));
            contained
                .is_none_or(|outer| !chassis.iter().any(|other| bare_path(other.path()) == bare_path(&outer)))
        })
        .filter(|node| !node.is_absent() && node.identifier("SerialNumber").is_some())
        .collect();
    outer.sort_by_key(|node| (enclosure_rank(&node.text("ChassisType").unwrap_or_default()), node.path()));
    let node = outer.first()?;
    let identity = Identity {
        manufacturer: node.identifier("Manufacturer"),
        model: node.identifier("Model"),
        serial: node.identifier("SerialNumber"),
        uuid: node.uuid("UUID"),
        sku: node.identifier("SKU"),
        part_number: node.identifier("PartNumber"),
    };
    Some((node.path().to_owned(), identity))
}

/// What encloses a machine comes before what is inside one.
fn enclosure_rank(kind: &str) -> u8 {
    match kind.to_ascii_lowercase().as_str() {
        "rackmount" | "standalone" | "blade" | "sled" | "node" => 0,
        "enclosure" | "shelf" | "drawer" | "rackgroup" | "stackable" => 1,
        "module" | "card" | "zone" => 3,
        "component" | "cartridge" | "expansion" => 4,
        _ => 2,
    }
}

/// The management controller.
pub fn bmc(manager: &Node<'_>, interfaces: &[Node<'_>]) -> Bmc {
    // a VLAN of the BMC's has an address of its own on some (BlueField), the same on every unit
    let is_virtual = |interface: &&Node<'_>| {
        interface.text("EthernetInterfaceType").is_some_and(|kind| kind.eq_ignore_ascii_case("Virtual"))
    };
    let macs: BTreeSet<String> = interfaces
        .iter()
        .filter(|interface| !is_virtual(interface))
        .filter_map(|interface| interface.mac("PermanentMACAddress").or_else(|| interface.mac("MACAddress")))
        .collect();
    Bmc {
        manufacturer: manager.identifier("Manufacturer"),
        model: manager.identifier("Model"),
        // raw, prefixes and all (quirk 28)
        firmware_version: manager.text("FirmwareVersion"),
        product: None,
        macs: macs.into_iter().collect(),
    }
}

/// Nodes of resources, for functions that look at several.
pub(crate) fn nodes<'a>(resources: &'a [std::sync::Arc<Resource>], log: &'a Log) -> Vec<Node<'a>> {
    resources.iter().map(|resource| Node::new(&resource.body, &resource.uri, log)).collect()
}

//! Drives of the host: from Storage; where it tells of none, from what the chassis links to; where that is empty as well
//! (DGX H100), from SimpleStorage.

use std::collections::BTreeSet;

use domain::inventory::Drive;

use crate::decode::{Node, bare_path};
use crate::gpu::Natural;
use crate::quirks::is_virtual_media;
use crate::reader::Reader;
use crate::walk::{Landscape, Walk};

impl<R: Reader> Walk<'_, R> {
    pub(crate) async fn drives(&self, landscape: &Landscape) -> Vec<Drive> {
        let Some(host) = landscape.host() else { return Vec::new() };
        let host = self.node(host);
        let mut drives = self.drives_at(&self.storage_links(&host).await).await;
        if drives.is_empty() {
            drives = self.drives_at(&self.chassis_links(landscape, &host).await).await;
        }
        if drives.is_empty() {
            drives = self.simple_storage(&host).await;
        }
        distinct(drives)
    }

    async fn storage_links(&self, host: &Node<'_>) -> BTreeSet<String> {
        let Some(uri) = host.link("Storage") else { return BTreeSet::new() };
        let mut links = BTreeSet::new();
        for storage in self.members(&uri).await {
            links.extend(self.listed(&self.node(&storage), "Drives").await);
        }
        links
    }

    /// Drives of the chassis that hold the host. Another host's chassis is not looked at.
    async fn chassis_links(&self, landscape: &Landscape, host: &Node<'_>) -> BTreeSet<String> {
        let mut links = BTreeSet::new();
        for chassis in &landscape.chassis {
            let node = self.node(chassis);
            let own = node.child("Links");
            let systems = own.as_ref().map(|own| own.links("ComputerSystems")).unwrap_or_default();
            if systems.is_empty() || systems.iter().any(|system| bare_path(system) == bare_path(host.path()))
            {
                links.extend(own.map(|own| own.links("Drives")).unwrap_or_default());
                links.extend(self.listed(&node, "Drives").await);
            }
        }
        links
    }

    async fn drives_at(&self, links: &BTreeSet<String>) -> Vec<(String, Drive)> {
        let links: Vec<String> = links.iter().cloned().collect();
        let resources = self.read_all(&links).await;
        resources
            .iter()
            .filter_map(|resource| drive(&self.node(resource)).map(|drive| (resource.uri.clone(), drive)))
            .collect()
    }

    async fn simple_storage(&self, host: &Node<'_>) -> Vec<(String, Drive)> {
        let Some(uri) = host.link("SimpleStorage") else { return Vec::new() };
        let mut drives = Vec::new();
        for controller in self.members(&uri).await {
            let node = self.node(&controller);
            for (index, device) in node.children("Devices").iter().enumerate() {
                drives.extend(
                    drive(device).map(|drive| (format!("{}#/Devices/{index}", controller.uri), drive)),
                );
            }
        }
        drives
    }
}

/// A drive that says something of itself; virtual media and empty bays are none.
fn drive(node: &Node<'_>) -> Option<Drive> {
    let drive = Drive {
        model: node.identifier("Model"),
        serial: node.identifier("SerialNumber"),
        capacity_bytes: node.whole("CapacityBytes").filter(|bytes| *bytes > 0),
        media_type: node.text("MediaType"),
    };
    let says_something = drive.model.is_some() || drive.serial.is_some() || drive.capacity_bytes.is_some();
    (says_something && !node.is_absent() && !is_virtual_media(drive.model.as_deref())).then_some(drive)
}

/// One entry a drive: by serial number and model, else by path. In the order of their paths.
fn distinct(mut drives: Vec<(String, Drive)>) -> Vec<Drive> {
    drives.sort_by_cached_key(|(path, _)| Natural(path.clone()));
    let mut known = BTreeSet::new();
    drives.retain(|(path, drive)| {
        known.insert(match &drive.serial {
            Some(serial) => (serial.clone(), drive.model.clone()),
            None => {
                (bare_path(path).to_owned() + path.split_once('#').map_or("", |(_, fragment)| fragment), None)
            }
        })
    });
    drives.into_iter().map(|(_, drive)| drive).collect()
}

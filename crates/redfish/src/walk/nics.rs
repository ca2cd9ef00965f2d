//! Network interfaces of the host: one entry a MAC address, from its Ethernet interfaces and from the network adapters of
//! the chassis, which know the model.

use std::collections::{BTreeMap, BTreeSet};

use domain::inventory::Nic;
use serde_json::Value;

use crate::decode::{Node, mac, source_path};
use crate::reader::Reader;
use crate::walk::{Landscape, Shared, Walk};

/// What one resource says of a network interface.
struct Sighting {
    mac: String,
    model: Option<String>,
    sources: Vec<String>,
    /// A VLAN or bond: it tells of an interface, but is none.
    is_virtual: bool,
}

impl<R: Reader> Walk<'_, R> {
    pub(crate) async fn nics(&self, landscape: &Landscape) -> Vec<Nic> {
        let (mut sightings, adapters) =
            tokio::join!(self.ethernet_interfaces(landscape), self.adapters(landscape));
        let told = futures_util::future::join_all(adapters.iter().map(|adapter| self.adapter(adapter))).await;
        sightings.extend(told.into_iter().flatten());
        merge(sightings)
    }

    async fn ethernet_interfaces(&self, landscape: &Landscape) -> Vec<Sighting> {
        let Some(uri) = landscape.host().and_then(|host| self.node(host).link("EthernetInterfaces")) else {
            return Vec::new();
        };
        let interfaces = self.members(&uri).await;
        interfaces.iter().filter_map(|interface| sighting(&self.node(interface))).collect()
    }

    async fn adapters(&self, landscape: &Landscape) -> Vec<Shared> {
        let uris: BTreeSet<String> = landscape
            .chassis
            .iter()
            .filter_map(|chassis| self.node(chassis).link("NetworkAdapters"))
            .collect();
        let mut adapters: Vec<Shared> =
            futures_util::future::join_all(uris.iter().map(|uri| self.members(uri)))
                .await
                .into_iter()
                .flatten()
                .collect();
        adapters.sort_by(|a, b| a.uri.cmp(&b.uri));
        adapters.dedup_by(|a, b| source_path(&a.uri) == source_path(&b.uri));
        adapters
    }

    /// The MAC addresses of one adapter: of its device functions, or of its ports where it lists no functions.
    async fn adapter(&self, adapter: &Shared) -> Vec<Sighting> {
        let node = self.node(adapter);
        if node.is_absent() {
            return Vec::new();
        }
        let model = node.identifier("Model");
        let told = |mac: String, path: &str| {
            let mut sources = vec![source_path(path).to_owned()];
            if model.is_some() {
                sources.push(source_path(&adapter.uri).to_owned());
            }
            Sighting { mac, model: model.clone(), sources, is_virtual: false }
        };
        let functions = self.controller_links(&node, "NetworkDeviceFunctions").await;
        let mut sightings = Vec::new();
        for function in &functions {
            let node = self.node(function);
            let Some(ethernet) = node.child("Ethernet") else { continue };
            if let Some(mac) = ethernet.mac("PermanentMACAddress").or_else(|| ethernet.mac("MACAddress")) {
                sightings.push(told(mac, &function.uri));
            }
        }
        if !functions.is_empty() {
            return sightings;
        }
        let mut ports = self.controller_links(&node, "Ports").await;
        if ports.is_empty() {
            ports = self.controller_links(&node, "NetworkPorts").await;
        }
        for port in &ports {
            let node = self.node(port);
            let mut addresses = node.strings("AssociatedNetworkAddresses");
            addresses.extend(
                node.child("Ethernet").map(|e| e.strings("AssociatedMACAddresses")).unwrap_or_default(),
            );
            let macs: BTreeSet<String> =
                addresses.iter().filter_map(|text| mac(text).ok().flatten()).collect();
            sightings.extend(macs.into_iter().map(|mac| told(mac, &port.uri)));
        }
        sightings
    }

    /// What an adapter's controllers link to; else its collection, which costs one request more.
    async fn controller_links(&self, adapter: &Node<'_>, field: &str) -> Vec<Shared> {
        let mut links: Vec<String> = Vec::new();
        for controller in adapter.children("Controllers") {
            if let Some(node) = controller.child("Links") {
                links.extend(
                    node.links(field).into_iter().filter(|link| !links.contains(link)).collect::<Vec<_>>(),
                );
            }
        }
        if !links.is_empty() {
            return self.read_all(&links).await;
        }
        match adapter.body().get(field) {
            Some(Value::Object(_)) => match adapter.link(field) {
                Some(uri) => self.members(&uri).await,
                None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }
}

/// An Ethernet interface. The permanent address identifies it; the current one may be set by anybody.
fn sighting(node: &Node<'_>) -> Option<Sighting> {
    if node.is_absent() {
        return None;
    }
    let mac = node.mac("PermanentMACAddress").or_else(|| node.mac("MACAddress"))?;
    let is_virtual =
        node.text("EthernetInterfaceType").is_some_and(|kind| kind.eq_ignore_ascii_case("Virtual"));
    Some(Sighting { mac, model: None, sources: vec![source_path(node.path()).to_owned()], is_virtual })
}

fn merge(sightings: Vec<Sighting>) -> Vec<Nic> {
    let mut by_mac: BTreeMap<String, Vec<Sighting>> = BTreeMap::new();
    for sighting in sightings {
        by_mac.entry(sighting.mac.clone()).or_default().push(sighting);
    }
    by_mac.retain(|_, sightings| sightings.iter().any(|sighting| !sighting.is_virtual));
    by_mac
        .into_iter()
        .map(|(mac, sightings)| {
            let sources: BTreeSet<String> =
                sightings.iter().flat_map(|sighting| sighting.sources.clone()).collect();
            let models: BTreeSet<String> =
                sightings.into_iter().filter_map(|sighting| sighting.model).collect();
            Nic { mac, model: models.into_iter().next(), sources: sources.into_iter().collect() }
        })
        .collect()
}

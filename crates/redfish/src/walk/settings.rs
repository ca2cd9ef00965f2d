//! Settings that a firmware profile may want: the BIOS and its attributes, the BMC's interfaces to its own host; and where
//! each part of the inventory was told.

use std::collections::BTreeMap;

use domain::inventory::{Bios, HostInterface};
use serde_json::Value;

use crate::decode::{bare_path, last_segment};
use crate::reader::Reader;
use crate::walk::{Landscape, Walk};

impl<R: Reader> Walk<'_, R> {
    /// The host's BIOS. Some cannot be read in some modes (quirk 37): then its attributes are not known.
    pub(crate) async fn bios(&self, landscape: &Landscape) -> Bios {
        let Some(host) = landscape.host() else { return Bios::default() };
        let node = self.node(host);
        let version = node.text("BiosVersion");
        let resource = match node.link("Bios") {
            Some(uri) => self.read(&uri).await,
            None => None,
        };
        let bios = resource.as_deref().map(|resource| self.node(resource));
        Bios {
            version,
            registry: bios.as_ref().and_then(|bios| bios.text("AttributeRegistry")),
            attributes: bios.and_then(|bios| bios.attributes("Attributes")),
        }
    }

    /// The host's interfaces to its manager; `None` where the list is not told in full. One that is listed and cannot be
    /// read is one whose state is not known.
    pub(crate) async fn host_interfaces(&self, landscape: &Landscape) -> Option<Vec<HostInterface>> {
        let uri = self.node(landscape.manager()?).link("HostInterfaces")?;
        let list = self.read(&uri).await?;
        let links = self.member_links(&uri).await;
        let declared = self.node(&list).whole("Members@odata.count").unwrap_or_default();
        let is_list = matches!(list.body.get("Members"), Some(Value::Array(_) | Value::Null));
        if !is_list || declared > u64::try_from(links.len()).unwrap_or(u64::MAX) {
            return None;
        }
        let mut interfaces = Vec::with_capacity(links.len());
        for link in links {
            let resource = self.read(&link).await;
            let node = resource.as_deref().map(|resource| self.node(resource));
            interfaces.push(HostInterface {
                id: node.as_ref().map_or_else(|| last_segment(&link).to_owned(), crate::decode::Node::id),
                enabled: node.and_then(|node| node.truth("InterfaceEnabled")),
                sources: vec![bare_path(&link).to_owned()],
            });
        }
        interfaces.sort_by(|one, other| one.sources.cmp(&other.sources));
        Some(interfaces)
    }

    /// The path that told of each part of the inventory which does not name its own sources.
    pub(crate) fn sources(&self, landscape: &Landscape) -> BTreeMap<String, String> {
        let mut sources = BTreeMap::new();
        let mut add = |part: &str, path: Option<String>| {
            if let Some(path) = path {
                sources.insert(part.to_owned(), bare_path(&path).to_owned());
            }
        };
        if let Some(host) = landscape.host() {
            let node = self.node(host);
            let host = || Some(host.uri.clone());
            add("identity", host());
            add("memoryGiB", host());
            add("bios.version", host());
            add("bios", node.link("Bios"));
            add("secureBoot", node.link("SecureBoot"));
            // null says nothing (§8 of the facts); an empty array says that there is none
            let told = node.body().get("TrustedModules").is_some_and(Value::is_array);
            add("tpm", host().filter(|_| told));
        }
        if let Some(manager) = landscape.manager() {
            add("bmc", Some(manager.uri.clone()));
            add("hostInterfaces", self.node(manager).link("HostInterfaces"));
        }
        add("componentIntegrity", self.node(&landscape.root).link("ComponentIntegrity"));
        sources
    }
}

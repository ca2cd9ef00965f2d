//! What services and single resources tell: firmware inventory, Secure Boot, TPMs, the BMC's own interfaces.

use std::collections::BTreeMap;

use domain::inventory::{Bmc, Firmware, Tpm};

use crate::decode::source_path;
use crate::gpu::Natural;
use crate::identity;
use crate::reader::Reader;
use crate::walk::{Landscape, Walk};

impl<R: Reader> Walk<'_, R> {
    /// The BMC itself.
    pub(crate) async fn bmc(&self, landscape: &Landscape) -> Bmc {
        let Some(manager) = landscape.manager() else { return Bmc::default() };
        let node = self.node(manager);
        let interfaces = match node.link("EthernetInterfaces") {
            Some(uri) => self.members(&uri).await,
            None => Vec::new(),
        };
        let product = self.node(&landscape.root).identifier("Product");
        Bmc { product, ..identity::bmc(&node, &identity::nodes(&interfaces, &self.log)) }
    }

    /// The firmware inventory, one entry a component. Versions stay as given, prefixes and all (quirk 28).
    pub(crate) async fn firmware(&self, landscape: &Landscape) -> Vec<Firmware> {
        let root = self.node(&landscape.root);
        let Some(uri) = root.link("UpdateService") else { return Vec::new() };
        let Some(service) = self.read(&uri).await else { return Vec::new() };
        let Some(inventory) = self.node(&service).link("FirmwareInventory") else { return Vec::new() };
        let mut by_id: BTreeMap<Natural, Firmware> = BTreeMap::new();
        for resource in self.members(&inventory).await {
            let node = self.node(&resource);
            if node.is_absent() {
                continue;
            }
            let entry = Firmware {
                id: node.id(),
                name: node.text("Name"),
                version: node.text("Version"),
                sources: vec![source_path(node.path()).to_owned()],
            };
            by_id.entry(Natural(entry.id.clone())).or_insert(entry);
        }
        by_id.into_values().collect()
    }

    /// Whether Secure Boot is on for the current boot; what is set for the next one only where that is not told.
    pub(crate) async fn secure_boot(&self, landscape: &Landscape) -> Option<bool> {
        let uri = self.node(landscape.host()?).link("SecureBoot")?;
        let resource = self.read(&uri).await?;
        let node = self.node(&resource);
        let current = node.text("SecureBootCurrentBoot").map(|state| state.to_ascii_lowercase());
        match current.as_deref() {
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            _ => node.truth("SecureBootEnable"),
        }
    }

    /// TPMs of the host. `TrustedModules` is null on some systems and absent on others: no TPM is known.
    pub(crate) fn tpm(&self, landscape: &Landscape) -> Vec<Tpm> {
        let Some(host) = landscape.host() else { return Vec::new() };
        let modules = self.node(host).children("TrustedModules");
        let said = modules.iter().filter(|module| !module.is_absent()).map(|module| Tpm {
            interface_type: module.text("InterfaceType"),
            firmware_version: module.text("FirmwareVersion"),
            status: module.state(),
        });
        said.filter(|tpm| *tpm != Tpm::default()).collect()
    }

    /// Memory of the host. Zero means that nobody counted it yet; then its modules are added up.
    pub(crate) async fn memory_gib(&self, landscape: &Landscape) -> Option<u64> {
        let host = self.node(landscape.host()?);
        let summary = host.child("MemorySummary");
        let total = summary.and_then(|summary| summary.whole("TotalSystemMemoryGiB")).filter(|gib| *gib > 0);
        if total.is_some() {
            return total;
        }
        let mut mebibytes = 0_u64;
        for module in self.members(&host.link("Memory")?).await {
            let module = self.node(&module);
            let kind = module.text("MemoryType").unwrap_or_default();
            if module.is_absent() || !(kind.is_empty() || kind.eq_ignore_ascii_case("DRAM")) {
                continue;
            }
            // a module that does not say its capacity leaves the sum unknown
            mebibytes = mebibytes.checked_add(module.whole("CapacityMiB")?)?;
        }
        Some(mebibytes / 1024).filter(|gib| *gib > 0)
    }
}

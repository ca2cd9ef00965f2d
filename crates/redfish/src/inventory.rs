//! The whole inventory of one BMC, from its service root.

use std::time::Instant;

use domain::inventory::{Identity, Inventory};

use crate::decode::bare_path;
use crate::gpu;
use crate::identity;
use crate::reader::{ReadError, Reader};
use crate::walk::{Landscape, Walk, WalkOptions};

/// Reads the inventory of one BMC. What is odd, missing or refused becomes a diagnostic; an error means that the BMC as a
/// whole, its service root or its systems cannot be read.
pub async fn inventory(reader: &impl Reader, options: &WalkOptions) -> Result<Inventory, ReadError> {
    let started = Instant::now();
    let walk = Walk::new(reader, options);
    let landscape = walk.landscape().await?;
    let (
        bmc,
        processors,
        nics,
        drives,
        firmware,
        component_integrity,
        secure_boot,
        memory_gib,
        bios,
        host_interfaces,
    ) = tokio::join!(
        walk.bmc(&landscape),
        processors_and_gpus(&walk, &landscape),
        walk.nics(&landscape),
        walk.drives(&landscape),
        walk.firmware(&landscape),
        walk.component_integrity(&landscape),
        walk.secure_boot(&landscape),
        walk.memory_gib(&landscape),
        walk.bios(&landscape),
        walk.host_interfaces(&landscape),
    );
    let (cpus, gpus) = processors;
    if walk.is_lost() {
        return Err(walk.lost());
    }
    let mut inventory = Inventory {
        identity: identity_of(&walk, &landscape),
        bmc,
        processors: cpus,
        memory_gib,
        gpus,
        nics,
        drives,
        tpm: walk.tpm(&landscape),
        secure_boot,
        bios,
        host_interfaces,
        firmware,
        component_integrity,
        sources: walk.sources(&landscape),
        diagnostics: walk.log.take(),
        requests: reader.usage(),
    };
    inventory.diagnostics.extend(reader.diagnostics());
    inventory.diagnostics.sort();
    inventory.diagnostics.dedup();
    // the reader counts from when it connected: greeting and login are part of what reading costs
    let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    inventory.requests.elapsed_ms = inventory.requests.elapsed_ms.max(elapsed);
    Ok(inventory)
}

async fn processors_and_gpus<R: Reader>(
    walk: &Walk<'_, R>,
    landscape: &Landscape,
) -> (Vec<domain::inventory::Processor>, Vec<domain::inventory::Gpu>) {
    let processors = walk.processors(landscape).await;
    let merged = gpu::merge(walk.gpu_views(landscape, &processors).await);
    for (code, path, message) in &merged.notes {
        walk.log.note(code, path, message.as_str());
    }
    (processors.cpus, merged.gpus)
}

/// The host's identity. Where there is no host (a switch tray, a power shelf), that of the outermost chassis; a host that says
/// nothing of itself does not get its enclosure's, which it may share with others.
fn identity_of<R: Reader>(walk: &Walk<'_, R>, landscape: &Landscape) -> Identity {
    if let Some(host) = landscape.host() {
        let identity = identity::identity(&walk.node(host), &landscape.profile, &walk.log);
        if identity.serial.is_none() {
            let message = "the host does not tell its serial number";
            walk.log.note("redfish.identity.missing", bare_path(&host.uri), message);
        }
        return identity;
    }
    let chassis = identity::nodes(&landscape.chassis, &walk.log);
    let Some((path, identity)) = identity::chassis_identity(&chassis) else { return Identity::default() };
    let message = "there is no computer system; the identity is this chassis's";
    walk.log.note("redfish.identity.fallback", bare_path(&path), message);
    identity
}

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
    let (bmc, processors, nics, drives, firmware, component_integrity, secure_boot) = tokio::join!(
        walk.bmc(&landscape),
        processors_and_gpus(&walk, &landscape),
        walk.nics(&landscape),
        walk.drives(&landscape),
        walk.firmware(&landscape),
        walk.component_integrity(&landscape),
        walk.secure_boot(&landscape),
    );
    let (cpus, gpus) = processors;
    if walk.is_lost() {
        return Err(walk.lost());
    }
    let mut inventory = Inventory {
        identity: identity_of(&walk, &landscape),
        bmc,
        processors: cpus,
        memory_gib: walk.memory_gib(&landscape),
        gpus,
        nics,
        drives,
        tpm: walk.tpm(&landscape),
        secure_boot,
        firmware,
        component_integrity,
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

/// The host's identity; that of the outermost chassis where there is no host, or where it says nothing of itself.
fn identity_of<R: Reader>(walk: &Walk<'_, R>, landscape: &Landscape) -> Identity {
    let own = landscape.host().map(|host| {
        let node = walk.node(host);
        identity::identity(&node, &landscape.profile, &walk.log)
    });
    if let Some(own) = own.as_ref().filter(|own| own.serial.is_some() || own.model.is_some()) {
        return own.clone();
    }
    let chassis = identity::nodes(&landscape.chassis, &walk.log);
    match identity::chassis_identity(&chassis) {
        Some((path, mut identity)) => {
            let message = "no computer system tells the machine's identity; this chassis's is given";
            walk.log.note("redfish.identity.fallback", bare_path(&path), message);
            if let Some(own) = own {
                identity.uuid = own.uuid.or(identity.uuid);
                identity.manufacturer = identity.manufacturer.or(own.manufacturer);
            }
            identity
        }
        None => own.unwrap_or_default(),
    }
}

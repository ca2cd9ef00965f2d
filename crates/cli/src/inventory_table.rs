//! An inventory for people.

use domain::Inventory;

use crate::output::{fields, heading, shown, table};

/// The whole inventory, part by part.
pub(crate) fn render(inventory: &Inventory) -> String {
    let mut text = summary(inventory);
    text += &gpus(inventory);
    text += &part(
        "Processors",
        &["ID", "MODEL", "CORES", "THREADS"],
        inventory.processors.iter().map(|cpu| {
            vec![
                cpu.id.clone(),
                shown(cpu.model.as_ref()),
                shown(cpu.cores.as_ref()),
                shown(cpu.threads.as_ref()),
            ]
        }),
    );
    text += &part(
        "Network interfaces",
        &["MAC", "MODEL"],
        inventory.nics.iter().map(|nic| vec![nic.mac.clone(), shown(nic.model.as_ref())]),
    );
    text += &part(
        "Drives",
        &["MODEL", "SERIAL", "CAPACITY", "MEDIA"],
        inventory.drives.iter().map(|drive| {
            vec![
                shown(drive.model.as_ref()),
                shown(drive.serial.as_ref()),
                drive.capacity_bytes.map(capacity).unwrap_or_default(),
                shown(drive.media_type.as_ref()),
            ]
        }),
    );
    text += &part(
        "Trusted platform modules",
        &["TYPE", "FIRMWARE", "STATUS"],
        inventory.tpm.iter().map(|tpm| {
            vec![
                shown(tpm.interface_type.as_ref()),
                shown(tpm.firmware_version.as_ref()),
                shown(tpm.status.as_ref()),
            ]
        }),
    );
    text += &part(
        "Component integrity",
        &["ID", "TYPE", "VERSION", "ENABLED"],
        inventory.component_integrity.iter().map(|component| {
            vec![
                component.id.clone(),
                shown(component.kind.as_ref()),
                shown(component.type_version.as_ref()),
                shown(component.enabled.as_ref()),
            ]
        }),
    );
    text += &part(
        "Firmware",
        &["ID", "VERSION"],
        inventory.firmware.iter().map(|entry| vec![entry.id.clone(), shown(entry.version.as_ref())]),
    );
    text += &part(
        "Diagnostics",
        &["CODE", "PATH", "MESSAGE"],
        inventory.diagnostics.iter().map(|diagnostic| {
            vec![diagnostic.code.clone(), diagnostic.path.clone(), diagnostic.message.clone()]
        }),
    );
    text
}

fn summary(inventory: &Inventory) -> String {
    let (who, bmc, cost) = (&inventory.identity, &inventory.bmc, &inventory.requests);
    fields(&[
        ("Manufacturer", shown(who.manufacturer.as_ref())),
        ("Model", shown(who.model.as_ref())),
        ("Serial", shown(who.serial.as_ref())),
        ("UUID", shown(who.uuid.as_ref())),
        ("SKU", shown(who.sku.as_ref())),
        ("Part number", shown(who.part_number.as_ref())),
        (
            "BMC",
            [&bmc.manufacturer, &bmc.model, &bmc.firmware_version]
                .into_iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join(" "),
        ),
        ("BMC MACs", bmc.macs.join(", ")),
        ("Memory", inventory.memory_gib.map(|gib| format!("{gib} GiB")).unwrap_or_default()),
        (
            "Secure Boot",
            inventory.secure_boot.map(|on| if on { "on" } else { "off" }.to_owned()).unwrap_or_default(),
        ),
        ("Read in", format!("{} requests, {} bytes, {} ms", cost.count, cost.bytes, cost.elapsed_ms)),
    ])
}

/// The GPUs of an inventory.
pub(crate) fn gpus(inventory: &Inventory) -> String {
    part(
        "GPUs",
        &["MODEL", "SERIAL", "PART NUMBER", "FIRMWARE", "PCI ADDRESS", "LOCATION", "UUID"],
        inventory.gpus.iter().map(|gpu| {
            vec![
                shown(gpu.model.as_ref()),
                shown(gpu.serial.as_ref()),
                shown(gpu.part_number.as_ref()),
                shown(gpu.firmware_version.as_ref()),
                shown(gpu.pci_address.as_ref()),
                shown(gpu.location.as_ref()),
                shown(gpu.uuid.as_ref()),
            ]
        }),
    )
}

fn part(title: &str, header: &[&str], rows: impl ExactSizeIterator<Item = Vec<String>>) -> String {
    if rows.len() == 0 {
        return String::new();
    }
    heading(&format!("{title} ({})", rows.len())) + &table(header, rows)
}

/// Bytes as drives are sold: powers of ten.
fn capacity(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB")];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{}.{:02} {unit}", bytes / size, bytes % size * 100 / size),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_told_as_drives_are_sold() {
        assert_eq!(capacity(3_840_755_982_336), "3.84 TB");
        assert_eq!(capacity(960_000_000_000), "960.00 GB");
        assert_eq!(capacity(12), "12 B");
    }

    #[test]
    fn parts_that_are_empty_are_left_out() {
        let text = render(&Inventory::default());
        assert!(!text.contains("Drives") && text.contains("Manufacturer"));
    }
}

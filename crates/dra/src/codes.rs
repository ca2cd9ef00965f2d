//! The codes of this crate.

/// Code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "dra.attribute.unfit",
        "A value does not fit into an attribute of the DRA API and is left out.",
        "Nothing to do; the full value is in the inventory.",
    ),
    (
        "dra.class.too-long",
        "The selector of a class is longer than the API allows.",
        "Split the class by model or by jurisdiction.",
    ),
    (
        "dra.class.unknown-jurisdiction",
        "A class names a jurisdiction that is not declared.",
        "Declare it, or correct the class.",
    ),
    (
        "dra.gpu.conflict",
        "What is known of a GPU contradicts itself, so it is kept out.",
        "`bailiwick why MACHINE` tells the two sides.",
    ),
    (
        "dra.gpu.duplicate",
        "The same GPU is shown twice, so neither is published.",
        "`bailiwick why MACHINE` names the other machine.",
    ),
    (
        "dra.gpu.mig-mode",
        "A GPU is in MIG mode, and not to be given out in parts.",
        "Turn MIG off (nvidia-smi -mig 0), or declare the GPU partitionable.",
    ),
    (
        "dra.gpu.no-identity",
        "A GPU has neither serial number nor UUID, so it cannot be told from others.",
        "Update the BMC's firmware.",
    ),
    (
        "dra.machine.no-jurisdiction",
        "The machine's site names a jurisdiction that is not declared.",
        "Declare it, or correct the site.",
    ),
    ("dra.machine.no-site", "The machine's site is not declared.", "Declare it, or correct the machine."),
    (
        "dra.name.duplicate",
        "Two objects would have the same name, so neither is published.",
        "Rename one of the two.",
    ),
];

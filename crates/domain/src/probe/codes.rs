//! The codes of a probe: why there is none, what is odd in it, what is wrong with a GPU.

/// Code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "gpu.driver-mismatch",
        "NVML and the loaded kernel driver are of different versions.",
        "Restart the host, or unload and load the driver, after an update of it.",
    ),
    (
        "gpu.driver-silent",
        "The driver has told nothing for several probes: a call of it does not return. Nothing is handed out on the host.",
        "See the kernel's log; a driver that hangs needs a restart of the host. While GPUs are reset for long the driver is let alone, which ends by itself.",
    ),
    (
        "gpu.health.ecc-off",
        "The ECC of a GPU's memory is off.",
        "Turn it on (nvidia-smi -e 1) and reset the GPU, unless it is meant so.",
    ),
    (
        "gpu.health.ecc-uncorrected",
        "A GPU's memory had errors that could not be corrected since its last reset.",
        "Let its users go and reset it; exchange it if they come again.",
    ),
    (
        "gpu.health.fabric-failed",
        "A GPU failed to join its NVLink fabric.",
        "See the fabric manager's log; restart it, then reset the GPU.",
    ),
    (
        "gpu.health.fabric-not-joined",
        "A GPU has not joined its NVLink fabric.",
        "Start the fabric manager (or IMEX), of the driver's own version.",
    ),
    ("gpu.health.hot", "A GPU is so hot that it slows down.", "Check fans, coolant and power limits."),
    (
        "gpu.health.lost",
        "A GPU has fallen off the bus.",
        "Restart the host; where it comes again, reseat or exchange the GPU.",
    ),
    (
        "gpu.health.mig-unknown",
        "Whether a GPU is parted (MIG mode) cannot be read, so it is not handed out.",
        "See the diagnostics of the same probe, and the kernel log (dmesg); restart the driver.",
    ),
    (
        "gpu.health.nvlink-down",
        "A GPU has fewer NVLinks up than others of its model in the host.",
        "Reset the GPUs of the board; where it stays, check the board and its switches.",
    ),
    (
        "gpu.health.nvlink-errors",
        "The NVLinks of a GPU have many errors.",
        "Watch it; where it stays, check the board, its switches and cables.",
    ),
    (
        "gpu.health.recovery-needed",
        "The driver wants something done to recover a GPU.",
        "Do what the finding names: a reset, a restart of the host.",
    ),
    (
        "gpu.health.reset-required",
        "A GPU tells nothing before it is reset.",
        "Let its users go and reset it (nvidia-smi --gpu-reset).",
    ),
    (
        "gpu.health.row-remap-failed",
        "A row of a GPU's memory could not be replaced.",
        "Exchange the GPU; this is the maker's own criterion.",
    ),
    (
        "gpu.health.row-remap-pending",
        "A row of a GPU's memory is to be replaced at its next reset.",
        "Let its users go and reset it.",
    ),
    ("gpu.health.too-hot", "A GPU is so hot that it shuts down.", "Check fans and coolant at once."),
    (
        "gpu.health.unreadable",
        "The driver does not let a GPU be asked.",
        "See the kernel log (dmesg) for NVRM and Xid lines.",
    ),
    (
        "gpu.health.uuid-repeated",
        "Another GPU of the host has the same UUID.",
        "Compare serial numbers; update the VBIOS or exchange the board.",
    ),
    (
        "gpu.health.xid",
        "The driver reported an XID error of a GPU.",
        "Look the number up in NVIDIA's list of XID errors; a reset clears most.",
    ),
    (
        "gpu.library-missing",
        "There is no file where the driver's library was said to be.",
        "Correct --nvml (BAILIWICK_NVML), in a container to the path under the host's root; without it the system's own is asked.",
    ),
    (
        "gpu.library-unusable",
        "What is named as NVML is no usable NVML.",
        "Name the driver's own libnvidia-ml.so.1, or leave --nvml out.",
    ),
    (
        "gpu.no-driver",
        "No NVIDIA driver is loaded on this host.",
        "Install and load the driver; on a host without GPUs there is nothing to do.",
    ),
    (
        "gpu.not-permitted",
        "The driver does not let us ask, or does not tell a value.",
        "Run as root, with the device files of the driver at hand.",
    ),
    ("gpu.nvml-failed", "NVML does not start.", "See the kernel log (dmesg) for NVRM and Xid lines."),
    (
        "gpu.read-failed",
        "A value of a GPU could not be read.",
        "See the kernel log (dmesg) for NVRM and Xid lines.",
    ),
    (
        "gpu.text-not-utf8",
        "A text that a GPU tells is no UTF-8, so it is not known.",
        "See the field named; its board's EEPROM may be damaged.",
    ),
    (
        "gpu.uuid-repeated",
        "Several GPUs of a host have one UUID, so none of them is given out.",
        "Compare serial numbers; update the VBIOS or exchange the board.",
    ),
    (
        "gpu.value-malformed",
        "A value that a GPU tells cannot be, so it is not known.",
        "See the field named; update the driver and the VBIOS.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_sorted_and_told_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}

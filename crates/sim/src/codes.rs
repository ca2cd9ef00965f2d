//! The codes of this crate.

/// Code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "sim.certificate",
        "A certificate of the simulated site cannot be made or served.",
        "Remove the site's state directory, which makes new keys.",
    ),
    (
        "sim.file",
        "A file of the simulated site cannot be read or written.",
        "Check the path and its permissions.",
    ),
    (
        "sim.helper",
        "A helper program of the simulator does not start.",
        "Install python3, or leave the legacy certificates out.",
    ),
    ("sim.listen", "The simulated site cannot listen.", "Choose another port or base address."),
    ("sim.recording", "A recorded tree cannot be read.", "Check that the archive is whole."),
    ("sim.site", "The simulated site cannot be as described.", "Correct the site file."),
    ("sim.site-syntax", "The site file cannot be read.", "Mend it at the line named."),
    ("sim.unknown-model", "There is no such model.", "The message lists the models."),
];

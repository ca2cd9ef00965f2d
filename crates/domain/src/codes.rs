//! The codes of this crate.

/// Code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "class.requires-nothing",
        "A GPU class requires nothing of its GPUs.",
        "Leave `requires` out for [probed, attested], or write [inventoried] for a trial.",
    ),
    (
        "declaration.api-version",
        "The apiVersion is not one that this version knows.",
        "Write `apiVersion: bailiwick.dev/v1alpha1`.",
    ),
    (
        "declaration.dangling",
        "A declaration refers to an object that is not declared.",
        "Declare that object, or correct the field named.",
    ),
    ("declaration.duplicate", "An object is declared twice.", "Keep one of the two."),
    (
        "declaration.in-use",
        "An object cannot be deleted while another refers to it.",
        "Delete the other too, or first.",
    ),
    ("declaration.kind", "There is no such kind.", "`bailiwick explain` takes each kind that there is."),
    ("declaration.malformed", "The document cannot be read.", "Mend it at the line named."),
    (
        "declaration.missing-field",
        "A field that must be there is missing.",
        "Add it; `bailiwick explain KIND` lists every field.",
    ),
    (
        "declaration.not-found",
        "No object of this kind and name is declared.",
        "`bailiwick get` lists what there is.",
    ),
    (
        "declaration.unknown-field",
        "A field does not exist.",
        "See the suggestion; `bailiwick explain KIND` lists every field.",
    ),
    ("declaration.unknown-value", "A value is not one of those that the field takes.", "See the suggestion."),
    (
        "jurisdiction.not-nested",
        "The jurisdictions contain each other in a circle, or one lies within an undeclared one.",
        "Mend `within` of the jurisdictions named.",
    ),
    (
        "jurisdiction.outside-cell",
        "An object stands outside the jurisdiction of the cell.",
        "Enrol it in a cell of its own jurisdiction; a cell never reaches over its border.",
    ),
    (
        "machine.address-malformed",
        "The BMC's address is no host with or without a port.",
        "Correct `bmc.address`.",
    ),
    (
        "machine.no-credentials",
        "A machine names no credentials.",
        "Add `bmc.passwordFile` or `bmc.secretRef`.",
    ),
    (
        "machine.two-credentials",
        "A machine names both a passwordFile and a secretRef.",
        "Keep one of the two.",
    ),
    ("site.no-networks", "A site names no BMC network.", "List at least one under `spec.bmcNetworks`."),
];

//! Every stable code there is, with what it means and what to do: `docs/reference/codes.md`.

use std::collections::BTreeMap;

/// Code, meaning, hint.
type Entry = (&'static str, &'static str, &'static str);

/// Codes of `domain`, whose problems carry hints of their own.
const DOMAIN: &[Entry] = &[
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

/// Codes of `dra`: why something is left out of what is published.
const DRA: &[Entry] = &[
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

/// Codes that `cell` gives without a catalogue entry.
const CELL: &[Entry] = &[
    (
        "gpu.not-allocatable",
        "GPUs match a class and cannot be claimed by it yet.",
        "The node agent's probe and an attestation verdict open this gate; nothing else does.",
    ),
    ("machine.fresh", "The machine's inventory is fresh; it is read again when it is due.", "Nothing to do."),
];

/// Codes of the simulator.
const SIM: &[Entry] = &[
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

/// All of them, sorted. Where several crates know a code, the first says what it means.
fn all() -> BTreeMap<&'static str, (&'static str, &'static str)> {
    let lists = [
        redfish::error::CODES,
        redfish::decode::CODES,
        store::CODES,
        cell::CODES,
        crate::errors::CODES,
        DOMAIN,
        DRA,
        CELL,
        SIM,
    ];
    let mut codes = BTreeMap::new();
    for (code, meaning, hint) in lists.into_iter().flatten() {
        codes.entry(*code).or_insert((*meaning, *hint));
    }
    codes
}

/// What a code tells people to do.
pub(crate) fn hint(code: &str) -> Option<&'static str> {
    all().get(code).map(|(_, hint)| *hint)
}

/// `docs/reference/codes.md`.
pub(crate) fn reference() -> String {
    let rows: String = all()
        .iter()
        .map(|(code, (meaning, hint))| format!("| `{code}` | {} | {} |\n", cell(meaning), cell(hint)))
        .collect();
    format!(
        "# Codes\n\nEvery wait, refusal, failure and diagnostic carries one of these. A code never changes its meaning.\n\n\
         | code | meaning | what to do |\n|---|---|---|\n{rows}"
    )
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Every `Problem::new("…"` of the sources, so that no code goes without a meaning.
    fn used() -> Vec<(String, String)> {
        fn visit(directory: &Path, found: &mut Vec<(String, String)>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    visit(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                    for maker in
                        ["Problem::new(", "coded(", "left_out(", "Failure::new(", "problem(", "note("]
                    {
                        for rest in code.split(maker).skip(1) {
                            let Some(literal) = rest.trim_start().strip_prefix('"') else { continue };
                            let code = literal.split('"').next().unwrap();
                            // `note(` and `problem(` are words of other functions too; a code has dots and no spaces.
                            if code.contains('.') && !code.contains([' ', '{', '/']) {
                                found.push((code.to_owned(), path.display().to_string()));
                            }
                        }
                    }
                }
            }
        }
        let mut found = Vec::new();
        for name in ["domain", "redfish", "dra", "store", "cell", "cli"] {
            visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src"), &mut found);
        }
        found
    }

    #[test]
    fn every_code_in_use_is_in_the_catalogue() {
        let known = all();
        let used = used();
        assert!(used.len() > 40, "{}", used.len());
        let missing: Vec<_> = used.iter().filter(|(code, _)| !known.contains_key(code.as_str())).collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }
}

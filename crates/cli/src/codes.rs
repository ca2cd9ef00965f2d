//! Every stable code there is, with what it means and what to do: `docs/reference/codes.md`.

use std::collections::BTreeMap;

/// All of them, sorted. Where several crates know a code, the first says what it means.
fn all() -> BTreeMap<&'static str, (&'static str, &'static str)> {
    let lists = [
        redfish::error::CODES,
        redfish::decode::CODES,
        store::CODES,
        cell::CODES,
        ironic::CODES,
        metal3::CODES,
        ipmi::error::CODES,
        crate::errors::CODES,
        domain::codes::CODES,
        domain::agent::CODES,
        domain::firmware::CODES,
        domain::gpu_views::CODES,
        domain::probe::CODES,
        dra::CODES,
        sim::CODES,
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

//! Reading declarations from YAML: every mistake with file, line, and what was probably meant.

use crate::declaration::{API_VERSION, Declaration, Kind, ReadAs, read_document};
use crate::problem::Problem;
use serde::Deserialize;

/// A declaration and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// What is declared.
    pub declaration: Declaration,
    /// `file:line` of its first line.
    pub at: String,
}

/// Reads every document of one file. All mistakes are returned, not only the first.
pub fn read(file: &str, text: &str) -> Result<Vec<Located>, Vec<Problem>> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for (line, document) in documents(text) {
        match read_one(file, line, document) {
            Ok(declaration) => found.push(Located { declaration, at: format!("{file}:{line}") }),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// The non-empty documents of a YAML stream with the line (from 1) of each one's first content.
/// `---` and `...` at the start of a line end a document (YAML 1.2 §9.1).
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    let mut push = |from: usize, to: usize, line: usize| {
        let document = &text[from..to];
        let has_content = |l: &&str| !l.trim().is_empty() && !l.trim_start().starts_with('#');
        if let Some(skipped) = document.lines().position(|l| has_content(&l)) {
            let lead: usize = document.split_inclusive('\n').take(skipped).map(str::len).sum();
            found.push((line + skipped, &document[lead..]));
        }
    };
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let ends = |mark: &str| {
            line.strip_prefix(mark).is_some_and(|rest| rest.trim().is_empty() || rest.starts_with(' '))
        };
        if ends("---") || ends("...") {
            push(start, offset, first_line);
            start = offset + line.len();
            first_line = at + 2;
        }
        offset += line.len();
    }
    push(start, text.len(), first_line);
    found
}

struct YamlDocument<'t>(&'t str);

impl ReadAs for YamlDocument<'_> {
    type Error = serde_saphyr::Error;
    fn read_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_saphyr::Error> {
        serde_saphyr::from_str(self.0)
    }
}

/// The two fields that tell how to read the rest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
}

fn read_one(file: &str, line: usize, text: &str) -> Result<Declaration, Problem> {
    let here = format!("{file}:{line}");
    let header: Header = serde_saphyr::from_str(text).map_err(|error| explain(file, line, &error))?;
    match header.api_version.as_deref() {
        Some(API_VERSION) => {}
        found => {
            return Err(Problem::new(
                "declaration.api-version",
                "this version of Bailiwick does not know the apiVersion",
            )
            .difference(found.unwrap_or("nothing"), API_VERSION)
            .hint(format!("write `apiVersion: {API_VERSION}`"))
            .at(here));
        }
    }
    let kinds = Kind::ALL.map(Kind::as_str);
    let Some(kind) = Kind::ALL.into_iter().find(|kind| Some(kind.as_str()) == header.kind.as_deref()) else {
        let found = header.kind.unwrap_or_default();
        return Err(Problem::new("declaration.kind", format!("there is no kind {found:?}"))
            .difference(found.clone(), kinds.join(", "))
            .hint(suggestion(&found, &kinds))
            .at(here));
    };
    read_document(kind, &YamlDocument(text)).map_err(|error| explain(file, line, &error))
}

/// Turns the parser's error into a problem with the line of the file and a suggestion.
fn explain(file: &str, first_line: usize, error: &serde_saphyr::Error) -> Problem {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let at = match error.location() {
        Some(place) if place.line() > 0 => {
            format!(
                "{file}:{}:{}",
                first_line + usize::try_from(place.line()).unwrap_or(1) - 1,
                place.column()
            )
        }
        _ => format!("{file}:{first_line}"),
    };
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            Problem::new("declaration.unknown-field", format!("unknown field `{field}`"))
                .hint(suggestion(field, expected))
                .difference(field.clone(), expected.join(", "))
                .at(at)
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => Problem::new(
            "declaration.unknown-value",
            format!("`{variant}` is not one of the values that this field takes"),
        )
        .hint(suggestion(variant, expected))
        .difference(variant.clone(), expected.join(", "))
        .at(at),
        Error::SerdeMissingField { field, .. } => {
            Problem::new("declaration.missing-field", format!("field `{field}` is missing"))
                .hint(format!("add `{field}:`; `bailiwick explain` lists every field of a kind"))
                .at(at)
        }
        other => {
            let text = other.to_string();
            let sentence = text.lines().next().unwrap_or("not a YAML document").to_owned();
            Problem::new("declaration.malformed", sentence).hint("mend the document at the line named").at(at)
        }
    }
}

/// The word that was probably meant.
pub fn near<'w, S: AsRef<str>>(found: &str, known: &'w [S]) -> Option<&'w str> {
    let likeness = |word: &str| strsim::jaro_winkler(&found.to_lowercase(), &word.to_lowercase());
    let nearest = known.iter().map(|word| (likeness(word.as_ref()), word.as_ref()));
    let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0));
    nearest.filter(|(likeness, _)| *likeness > 0.75).map(|(_, word)| word)
}

/// “did you mean …” where something is near, else the whole list.
pub fn suggestion<S: AsRef<str>>(found: &str, expected: &[S]) -> String {
    match near(found, expected) {
        Some(word) => format!("did you mean `{word}`?"),
        None => {
            format!("expected one of {}", expected.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SITE: &str = "# a comment\n---\napiVersion: bailiwick.dev/v1alpha1\nkind: Jurisdiction\nmetadata: {name: eu}\nspec: {}\n---\n\napiVersion: bailiwick.dev/v1alpha1\nkind: Site\nmetadata:\n  name: fra1\nspec:\n  jurisdiction: eu\n  operator: acme\n  country: DE\n  bmcNetworks: [10.0.0.0/24]\n";

    #[test]
    fn a_stream_of_documents_is_read_with_the_line_of_each() {
        let found = read("x.yaml", SITE).unwrap();
        assert_eq!(
            found.iter().map(|l| (l.declaration.reference(), l.at.clone())).collect::<Vec<_>>(),
            [
                ("Jurisdiction/eu".to_owned(), "x.yaml:3".to_owned()),
                ("Site/fra1".to_owned(), "x.yaml:9".to_owned()),
            ]
        );
    }

    #[test]
    fn an_unknown_field_is_an_error_with_suggestion_file_and_line() {
        let problems = read("inventory/site.yaml", &SITE.replace("bmcNetworks", "bmcNetwork")).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].code, "declaration.unknown-field");
        assert_eq!(problems[0].hint.as_deref(), Some("did you mean `bmcNetworks`?"));
        assert_eq!(problems[0].at.as_deref(), Some("inventory/site.yaml:17:3"));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = SITE
            .replace("kind: Jurisdiction", "kind: Jurisdicton")
            .replace("country: DE", "country: Germany");
        let codes: Vec<_> = read("x", &text).unwrap_err().into_iter().map(|p| p.code).collect();
        assert_eq!(codes, ["declaration.kind", "declaration.malformed"]);
    }

    #[test]
    fn an_unknown_requirement_is_told_with_the_values_that_exist() {
        let text = "apiVersion: bailiwick.dev/v1alpha1\nkind: GpuClass\nmetadata: {name: c}\nspec:\n  jurisdiction: eu\n  requires: [attestd]\n";
        let problem = read("x", text).unwrap_err().remove(0);
        assert_eq!(
            (problem.code.as_str(), problem.hint.as_deref()),
            ("declaration.unknown-value", Some("did you mean `attested`?"))
        );
    }

    #[test]
    fn a_declaration_survives_json() {
        for located in read("x", SITE).unwrap() {
            assert_eq!(Declaration::from_json(located.declaration.to_json()).unwrap(), located.declaration);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
            let _ = read("x", &text);
        }
    }
}

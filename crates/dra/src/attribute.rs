//! Attributes of a device, within the limits of `resource.k8s.io/v1`.

use crate::json::Text;
use domain::Problem;
use std::fmt;

/// Longest value of a string attribute, in bytes (DeviceAttributeMaxValueLength).
const MAX_VALUE: usize = 64;

/// Attributes as they come together. What does not fit is left out, and told.
pub(crate) struct Attributes<'p> {
    text: Text,
    place: &'p dyn fmt::Display,
    problems: &'p mut Vec<Problem>,
}

impl<'p> Attributes<'p> {
    /// None yet. `place` names what they are about where something is told of it.
    pub(crate) fn new(place: &'p dyn fmt::Display, problems: &'p mut Vec<Problem>) -> Self {
        Self { text: Text::default(), place, problems }
    }

    pub(crate) fn done(self) -> Text {
        self.text
    }

    pub(crate) fn text(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value.filter(|v| !v.is_empty()) else { return };
        if !fits(value) {
            let found = format!("{value:?}, {} bytes", value.len());
            return self.unfit(name, found, &format!("at most {MAX_VALUE} bytes, no control characters"));
        }
        self.text.object(name, |text| text.string("string", value));
    }

    pub(crate) fn truth(&mut self, name: &str, value: bool) {
        self.text.object(name, |text| text.truth("bool", value));
    }

    pub(crate) fn number(&mut self, name: &str, value: Option<u32>) {
        let Some(value) = value else { return };
        self.text.object(name, |text| text.number("int", value.into()));
    }

    /// A version as drivers write it, as a semantic one. It never becomes a string: an attribute whose type depends on its value
    /// makes selectors fail, which aborts allocation (facts: dra §3).
    pub(crate) fn version(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        match semantic(value) {
            Some(version) => self.text.object(name, |text| text.string("version", &version)),
            None => self.unfit(name, format!("{value:?}"), "one to three numbers with dots between"),
        }
    }

    /// `dddd:bb:dd.f`.
    pub(crate) fn pci_address(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(address) if is_pci_address(address) => self.text(name, Some(&address.to_ascii_lowercase())),
            Some(address) => self.unfit(name, format!("{address:?}"), "dddd:bb:dd.f"),
            None => {}
        }
    }

    fn unfit(&mut self, name: &str, found: String, expected: &str) {
        let message = format!("the attribute {name} of {} is left out: its value does not fit", self.place);
        self.problems.push(
            Problem::new("dra.attribute.unfit", message)
                .difference(found, expected)
                .at(self.place.to_string()),
        );
    }
}

/// Whether an attribute may say it.
pub(crate) fn fits(value: &str) -> bool {
    value.len() <= MAX_VALUE && !value.chars().any(char::is_control)
}

/// `580.95.05` is no semantic version: its numbers may not begin with 0 (semver.org, rule 2).
fn semantic(text: &str) -> Option<String> {
    let numbers: Vec<u32> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    match numbers[..] {
        [major] => Some(format!("{major}.0.0")),
        [major, minor] => Some(format!("{major}.{minor}.0")),
        [major, minor, patch] => Some(format!("{major}.{minor}.{patch}")),
        _ => None,
    }
}

/// As the standard attribute wants it (facts: dra §4).
fn is_pci_address(text: &str) -> bool {
    let hex = |part: &str, digits| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let mut parts = text.split([':', '.']);
    let mut next = |digits| parts.next().is_some_and(|part| hex(part, digits));
    next(4)
        && next(2)
        && next(2)
        && next(1)
        && parts.next().is_none()
        && text.len() == 12
        && text.as_bytes().get(10) == Some(&b'.')
        && !text[..10].contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_taken_only_in_its_full_form() {
        assert!(is_pci_address("0000:1b:00.0") && is_pci_address("0009:01:00.F"));
        for bad in ["1b:00.0", "0000.1b:00:0", "0000:1b:00.0 ", "0000:1b:0g.0", "0000:1b:00:0", ""] {
            assert!(!is_pci_address(bad), "{bad}");
        }
    }

    #[test]
    fn a_driver_version_becomes_a_semantic_one() {
        assert_eq!(semantic("580.95.05").as_deref(), Some("580.95.5"));
        assert_eq!((semantic("9.0").as_deref(), semantic("13").as_deref()), (Some("9.0.0"), Some("13.0.0")));
        for bad in ["", "580.95.05.1", "580.x", "-1.0", "1..2"] {
            assert_eq!(semantic(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_version_that_is_none_is_left_out_and_told_and_never_becomes_a_string() {
        let mut problems = Vec::new();
        let mut attributes = Attributes::new(&"here", &mut problems);
        attributes.version("driverVersion", Some("r580-test"));
        let written = attributes.done();
        assert_eq!(Text::object_of(0, |text| text.extend(&written)), "{}");
        assert_eq!(problems[0].code, "dra.attribute.unfit");
    }
}

//! Which machines a person means: `r1-u01`, `r1-*,r2-u07`, `site=fra1,rack=r1`, `model=DGX*,state=enrolled`.

use crate::firmware::Pattern;
use crate::name::Name;
use std::fmt;
use std::str::FromStr;

/// A choice of machines. Names are alternatives; terms `key=value` must all hold; `*` stands for any characters. Nothing at
/// all means every machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineSelector {
    names: Vec<Pattern>,
    terms: Vec<(String, Pattern)>,
}

/// A text that chooses no machines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} selects nothing: write machine names or key=value, separated by commas")]
pub struct NotASelector(pub String);

impl MachineSelector {
    /// Whether a machine may be meant by its name alone; where not, its values need not be looked up.
    pub fn fits_name(&self, name: &Name) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| pattern.fits(name.as_str()))
    }

    /// The names that it gives in full, without `*`: each means one machine.
    pub fn literals(&self) -> impl Iterator<Item = String> {
        self.names.iter().map(ToString::to_string).filter(|name| !name.contains('*'))
    }

    /// Whether a machine is meant. `value` gives what it has under a key, a label's value for one; what it does not have
    /// fits nothing.
    pub fn fits(&self, name: &Name, value: impl Fn(&str) -> Option<String>) -> bool {
        self.fits_name(name)
            && self.terms.iter().all(|(key, pattern)| value(key).is_some_and(|value| pattern.fits(&value)))
    }
}

impl FromStr for MachineSelector {
    type Err = NotASelector;

    fn from_str(text: &str) -> Result<Self, NotASelector> {
        let no = |_| NotASelector(text.to_owned());
        let mut selector = Self::default();
        for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            match part.split_once('=') {
                Some((key, _)) if key.trim().is_empty() => return Err(no("")),
                Some((key, value)) => {
                    selector.terms.push((key.trim().to_owned(), value.parse().map_err(no)?));
                }
                None => selector.names.push(part.parse().map_err(no)?),
            }
        }
        Ok(selector)
    }
}

impl fmt::Display for MachineSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.iter().map(ToString::to_string);
        let terms = self.terms.iter().map(|(key, pattern)| format!("{key}={pattern}"));
        f.write_str(&names.chain(terms).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(selector: &str, name: &str) -> bool {
        let values = |key: &str| match key {
            "site" => Some("fra1".to_owned()),
            "model" => Some("DGXH100".to_owned()),
            _ => None,
        };
        selector.parse::<MachineSelector>().unwrap().fits(&Name::new(name).unwrap(), values)
    }

    #[test]
    fn names_are_alternatives_and_terms_must_all_hold() {
        for selector in ["", "  ", "m1", "m2, m1", "m*", "site=fra1", "site=fra1, model=dgx*", "m1,site=fra*"]
        {
            assert!(fits(selector, "m1"), "{selector}");
        }
        for selector in ["m2", "site=ber1", "site=fra1,model=R750", "rack=r1", "m2,site=fra1"] {
            assert!(!fits(selector, "m1"), "{selector}");
        }
    }

    #[test]
    fn what_selects_nothing_is_refused() {
        for bad in [",", "m1,", "=x", "site=", " , "] {
            assert!(bad.parse::<MachineSelector>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<MachineSelector>();
        }
    }
}

//! Microversions of Ironic's API: each request names one, and the server behaves as of then.

use std::fmt;
use std::str::FromStr;

/// A version of the API, such as 1.95.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Microversion {
    /// Always 1 until now.
    pub major: u16,
    /// Grows with every change of the API.
    pub minor: u16,
}

/// The newest version that this client was tried with (Ironic 39).
pub const NEWEST: Microversion = Microversion { major: 1, minor: 115 };

/// The oldest version that serves: 1.81 brought `GET /v1/nodes/{node}/inventory`.
pub const OLDEST: Microversion = Microversion { major: 1, minor: 81 };

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version of an API")]
pub struct NotAVersion(pub String);

impl FromStr for Microversion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let parse = || {
            let (major, minor) = text.trim().split_once('.')?;
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        parse().ok_or_else(|| NotAVersion(text.chars().take(20).collect()))
    }
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The version to speak with a server whose newest is `newest`: the newest that both know, unless that is too old.
pub(crate) fn common(newest: Microversion) -> Option<Microversion> {
    let common = newest.min(NEWEST);
    (common >= OLDEST && common.major == NEWEST.major).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_not_by_text() {
        let version = |text: &str| text.parse::<Microversion>().unwrap();
        assert!(version("1.9") < version("1.81") && version("1.100") > version("1.99"));
    }

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        let version = |minor| Microversion { major: 1, minor };
        assert_eq!(common(version(95)), Some(version(95)));
        assert_eq!(common(version(9999)), Some(NEWEST));
        assert_eq!(common(version(80)), None);
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for wrong in ["", "1", "1.x", "latest", "1.2.3", "-1.2"] {
            assert!(wrong.parse::<Microversion>().is_err(), "{wrong}");
        }
    }
}

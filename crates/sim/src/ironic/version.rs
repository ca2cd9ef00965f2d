//! Microversions of the API (Ironic's `webapi-version-history`).

use http::HeaderMap;

use super::refusal::Refusal;

/// The header in which a client names the version that it wants.
pub(crate) const HEADER: &str = "x-openstack-ironic-api-version";

/// The minor number of a version `1.N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microversion(pub u16);

impl Microversion {
    /// The oldest version.
    pub const MIN: Self = Self(1);
    /// The newest version of Ironic 39.
    pub const MAX: Self = Self(115);

    /// The version of a request: the oldest where none is asked for. `max` is the newest that this endpoint speaks.
    pub(crate) fn negotiate(headers: &HeaderMap, max: Self) -> Result<Self, Refusal> {
        let Some(value) = headers.get(HEADER) else { return Ok(Self::MIN) };
        let value = value.to_str().map_err(|_| Refusal::VersionSyntax)?.trim();
        if value.eq_ignore_ascii_case("latest") {
            return Ok(max);
        }
        let (major, minor) = value.split_once('.').ok_or(Refusal::VersionSyntax)?;
        let (major, minor): (u16, u16) = major
            .parse()
            .and_then(|major| Ok((major, minor.parse()?)))
            .map_err(|_| Refusal::VersionSyntax)?;
        let asked = Self(minor);
        if major != 1 || asked < Self::MIN || asked > max {
            return Err(Refusal::VersionUnsupported { asked: value.to_owned(), max });
        }
        Ok(asked)
    }
}

impl std::fmt::Display for Microversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(value: Option<&'static str>) -> Result<Microversion, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(HEADER, http::HeaderValue::from_static(value));
        }
        Microversion::negotiate(&headers, Microversion::MAX)
    }

    #[test]
    fn without_a_header_the_oldest_version_is_spoken() {
        assert_eq!(negotiated(None).unwrap(), Microversion(1));
    }

    #[test]
    fn versions_within_the_range_are_spoken_and_no_others() {
        assert_eq!(negotiated(Some("1.81")).unwrap(), Microversion(81));
        assert_eq!(negotiated(Some("latest")).unwrap(), Microversion::MAX);
        for refused in ["1.0", "1.116", "2.1"] {
            assert!(
                matches!(negotiated(Some(refused)), Err(Refusal::VersionUnsupported { .. })),
                "{refused}"
            );
        }
        for malformed in ["", "1", "abc", "1.x", "1.2.3"] {
            assert!(matches!(negotiated(Some(malformed)), Err(Refusal::VersionSyntax)), "{malformed}");
        }
    }
}

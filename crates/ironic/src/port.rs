//! Ports: the network interfaces by which Ironic and its agent know a node.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::lenient::lenient;

/// A MAC address, written as Ironic writes it: lower case, with colons.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(String);

/// A text that is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address")]
pub struct NotAMac(pub String);

impl FromStr for Mac {
    type Err = NotAMac;

    /// Takes colons, dashes, dots or nothing between the digits.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let digits: String =
            text.trim().chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect::<String>().to_lowercase();
        if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotAMac(text.chars().take(40).collect()));
        }
        let pairs: Vec<&str> = (0..6).filter_map(|at| digits.get(2 * at..2 * at + 2)).collect();
        Ok(Self(pairs.join(":")))
    }
}

impl Mac {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Mac {
    type Error = NotAMac;

    fn try_from(text: String) -> Result<Self, NotAMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.0
    }
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Port {
    /// Its UUID.
    pub uuid: Uuid,
    /// The node that it belongs to.
    #[serde(default, deserialize_with = "lenient")]
    pub node_uuid: Option<Uuid>,
    /// Its MAC address; `None` where it is none of Ethernet's.
    #[serde(default, deserialize_with = "lenient")]
    pub address: Option<Mac>,
    /// Whether the node may boot from it.
    #[serde(default, deserialize_with = "lenient")]
    pub pxe_enabled: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_is_the_same_address() {
        for spelling in ["02:00:5E:10:00:01", "02-00-5e-10-00-01", "0200.5e10.0001", " 02005E100001 "] {
            assert_eq!(spelling.parse::<Mac>().unwrap().as_str(), "02:00:5e:10:00:01", "{spelling}");
        }
    }

    #[test]
    fn what_is_no_mac_address_is_refused() {
        for wrong in ["", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "gg:00:5e:10:00:01", "é"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}

//! Where a management controller is, as a declaration writes it.

use crate::declaration::BmcSpec;
use std::fmt;

/// Host and UDP port of a management controller that is spoken to by IPMI: `ipmi://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpmiAddress {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

impl IpmiAddress {
    /// What such an address begins with.
    pub const SCHEME: &'static str = "ipmi://";
    /// The port where none is named (IPMI 2.0 §13.1.2).
    pub const PORT: u16 = 623;

    /// Reads `ipmi://HOST[:PORT]`; `None` for what is no such address.
    pub fn parse(text: &str) -> Option<Self> {
        let authority = text.trim().strip_prefix(Self::SCHEME)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if !is_authority(authority) {
            return None;
        }
        let (host, port) = split(authority)?;
        Some(Self { host: host.to_owned(), port: port.map_or(Some(Self::PORT), |port| port.parse().ok())? })
    }

    /// By what everything in a process that talks to this BMC knows it. On the usual port it is the host alone, so that a BMC
    /// that has Redfish too, on its usual port, is one BMC with one count of failed logins.
    pub fn shared(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == Self::PORT { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for IpmiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::SCHEME, self.shared())
    }
}

impl BmcSpec {
    /// Where it is, if it is spoken to by IPMI instead of Redfish.
    pub fn ipmi(&self) -> Option<IpmiAddress> {
        IpmiAddress::parse(&self.address)
    }
}

/// `host`, `host:port`, `[v6]:port`, or the same after `https://` or `ipmi://`; no path, no credentials.
pub(crate) fn is_bmc_address(text: &str) -> bool {
    let bare = ["https://", IpmiAddress::SCHEME].into_iter().find_map(|scheme| text.strip_prefix(scheme));
    match bare {
        Some(authority) => is_authority(authority.strip_suffix('/').unwrap_or(authority)),
        None => is_authority(text),
    }
}

fn is_authority(authority: &str) -> bool {
    let Some((host, port)) = split(authority) else { return false };
    let is_host = |host: &str| {
        let is_host_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        !host.is_empty() && host.len() <= 253 && host.chars().all(is_host_character)
    };
    let bracketed = authority.starts_with('[');
    let host = if bracketed { host.parse::<std::net::Ipv6Addr>().is_ok() } else { is_host(host) };
    host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Host without brackets, and the digits of a port.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    let Some(rest) = authority.strip_prefix('[') else {
        return Some(authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))));
    };
    match rest.split_once(']')? {
        (host, "") => Some((host, None)),
        (host, port) => Some((host, Some(port.strip_prefix(':')?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
        for good in [
            "10.0.0.5",
            "10.0.0.5:8443",
            "bmc-1.example",
            "[fd00::1]",
            "[fd00::1]:443",
            "https://10.0.0.5:443/",
            "ipmi://10.0.0.5",
            "ipmi://[fd00::1]:6230",
        ] {
            assert!(is_bmc_address(good), "{good}");
        }
        for bad in [
            "",
            ":443",
            "10.0.0.5:99999",
            "10.0.0.5:0",
            "a/b",
            "http://a",
            "u:p@a",
            "[::1",
            "[x]",
            "[::1]x",
            "a b",
            "ipmi://",
            "ipmi://a/b",
            "ipmi+https://a",
        ] {
            assert!(!is_bmc_address(bad), "{bad}");
        }
    }

    #[test]
    fn an_ipmi_address_has_a_scheme_a_host_and_port_623_unless_it_says_another() {
        let parse = |text| IpmiAddress::parse(text).map(|address| (address.host, address.port));
        assert_eq!(parse("ipmi://bmc-1.example"), Some(("bmc-1.example".to_owned(), 623)));
        assert_eq!(parse("ipmi://[fd00::1]:6230/"), Some(("fd00::1".to_owned(), 6230)));
        for other in ["bmc-1.example", "https://bmc-1.example", "ipmi://u@h", "ipmi://h:0"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn on_the_usual_port_a_bmc_is_known_by_its_host_as_over_redfish() {
        let shared = |text| IpmiAddress::parse(text).unwrap().shared();
        assert_eq!(shared("ipmi://10.0.0.5:623"), "10.0.0.5");
        assert_eq!(shared("ipmi://10.0.0.5:6230"), "10.0.0.5:6230");
        assert_eq!(shared("ipmi://[fd00::1]"), "[fd00::1]");
        assert_eq!(IpmiAddress::parse("ipmi://[fd00::1]").unwrap().to_string(), "ipmi://[fd00::1]");
    }
}

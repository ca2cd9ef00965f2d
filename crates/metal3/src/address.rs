//! Addresses of BMCs as BareMetalHosts write them.

use std::fmt;
use url::Url;

/// How baremetal-operator's driver reaches the BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TLS: what every real BMC gets.
    Https,
    /// Plain text: simulated BMCs on the loopback interface.
    Http,
}

/// `spec.bmc.address` of a host driven over Redfish with virtual media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BmcAddress(String);

/// Why something is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no BMC address: {reason}")]
pub struct NotAnAddress {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Builds `redfish-virtualmedia+https://HOST[:PORT]/redfish/v1/Systems/ID` from the scheme, host with or without port (IPv6
/// in brackets), and the path of the system.
pub fn bmc_address(transport: Transport, authority: &str, system: &str) -> Result<BmcAddress, NotAnAddress> {
    let refuse = |reason| NotAnAddress { text: format!("{authority}{system}"), reason };
    if authority.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
        return Err(refuse("the host is no host with or without a port"));
    }
    if !system.starts_with('/') || system.contains(['?', '#', ' ']) {
        return Err(refuse("the system is no path"));
    }
    let (scheme, web) = match transport {
        Transport::Https => ("redfish-virtualmedia+https", "https"),
        Transport::Http => ("redfish-virtualmedia+http", "http"),
    };
    // The web scheme makes the parser check the host; an unknown scheme is taken as it is.
    if Url::parse(&format!("{web}://{authority}{system}")).is_err() {
        return Err(refuse("the host is no host with or without a port"));
    }
    Ok(BmcAddress(format!("{scheme}://{authority}{system}")))
}

/// Builds `ipmi://HOST[:PORT]`, for machines without Redfish; the port is 623 where none is named.
pub fn ipmi_address(authority: &str) -> Result<BmcAddress, NotAnAddress> {
    let text = format!("ipmi://{authority}");
    let reason = "the host is no host with or without a port";
    if authority.is_empty()
        || authority.contains(['/', '@', '?', '#', ' '])
        || Url::parse(&format!("https://{authority}")).is_err()
    {
        return Err(NotAnAddress { text, reason });
    }
    Ok(BmcAddress(text))
}

impl BmcAddress {
    /// The address as written into the host.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BmcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one BMC is called, whatever driver speaks to it.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    host: String,
    port: u16,
    /// Without a trailing slash; empty where the address names none.
    system: String,
}

/// Reads the addresses of all Redfish drivers: `redfish`, `redfish-virtualmedia`, `idrac-virtualmedia`, `redfish-uefihttp` and
/// the like, with `+http`, `+https` or nothing; and those of IPMI, whose port is 623. Those of libvirt name no comparable port.
fn endpoint(address: &str) -> Option<Endpoint> {
    let (scheme, rest) = address.split_once("://")?;
    let (driver, transport) = scheme.split_once('+').unwrap_or((scheme, "https"));
    if driver == "ipmi" {
        // The web scheme makes the parser check the host.
        let url = Url::parse(&format!("https://{rest}")).ok()?;
        let host = url.host_str()?.to_ascii_lowercase();
        // A port 443 that is written out is lost in the parsed URL, and is nobody's port for IPMI.
        return Some(Endpoint { host, port: url.port().unwrap_or(623), system: String::new() });
    }
    if driver == "libvirt" || !matches!(transport, "http" | "https") {
        return None;
    }
    let url = Url::parse(&format!("{transport}://{rest}")).ok()?;
    Some(Endpoint {
        host: url.host_str()?.to_ascii_lowercase(),
        port: url.port_or_known_default()?,
        system: url.path().trim_end_matches('/').to_owned(),
    })
}

/// Whether two addresses mean the same system of the same BMC. Where one names no system, host and port decide.
pub(crate) fn same_machine(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (endpoint(one), endpoint(other)) else { return one == other };
    one.host == other.host
        && one.port == other.port
        && (one.system == other.system || one.system.is_empty() || other.system.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_names_driver_host_and_system() {
        let address = bmc_address(Transport::Https, "10.0.0.1", "/redfish/v1/Systems/1").unwrap();
        assert_eq!(address.as_str(), "redfish-virtualmedia+https://10.0.0.1/redfish/v1/Systems/1");
        let address = bmc_address(Transport::Http, "[fd00::1]:8000", "/redfish/v1/Systems/1").unwrap();
        assert_eq!(address.as_str(), "redfish-virtualmedia+http://[fd00::1]:8000/redfish/v1/Systems/1");
    }

    #[test]
    fn what_would_send_credentials_elsewhere_is_refused() {
        for authority in ["", "user@10.0.0.1", "10.0.0.1/x", "10.0.0.1:99999", "ex ample"] {
            assert!(
                bmc_address(Transport::Https, authority, "/redfish/v1/Systems/1").is_err(),
                "{authority}"
            );
        }
        for system in ["", "redfish/v1", "/redfish?x", "/redfish#x"] {
            assert!(bmc_address(Transport::Https, "10.0.0.1", system).is_err(), "{system}");
        }
    }

    #[test]
    fn an_ipmi_address_names_host_and_perhaps_a_port() {
        assert_eq!(ipmi_address("10.0.0.1").unwrap().as_str(), "ipmi://10.0.0.1");
        assert_eq!(ipmi_address("[fd00::1]:6230").unwrap().as_str(), "ipmi://[fd00::1]:6230");
        for wrong in ["", "u@10.0.0.1", "10.0.0.1/x", "10.0.0.1:99999"] {
            assert!(ipmi_address(wrong).is_err(), "{wrong}");
        }
        assert!(same_machine("ipmi://BMC-1.example", "ipmi://bmc-1.example:623"));
        assert!(!same_machine("ipmi://bmc-1.example", "ipmi://bmc-1.example:6230"));
    }

    #[test]
    fn one_machine_is_recognised_under_another_driver_and_spelling() {
        let ours = "redfish-virtualmedia+https://10.0.0.1/redfish/v1/Systems/1";
        for theirs in [
            "idrac-virtualmedia://10.0.0.1/redfish/v1/Systems/1",
            "redfish+https://10.0.0.1:443/redfish/v1/Systems/1/",
            "redfish://10.0.0.1",
        ] {
            assert!(same_machine(ours, theirs), "{theirs}");
        }
        for theirs in [
            "redfish://10.0.0.2/redfish/v1/Systems/1",
            "redfish://10.0.0.1/redfish/v1/Systems/2",
            "redfish://10.0.0.1:8443/redfish/v1/Systems/1",
            "ipmi://10.0.0.1",
            "",
        ] {
            assert!(!same_machine(ours, theirs), "{theirs}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_foreign_host_is_compared_without_harm(one in ".*", other in ".*") {
            prop_assert_eq!(same_machine(&one, &other), same_machine(&other, &one));
        }
    }
}

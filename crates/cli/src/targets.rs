//! What `discover` is pointed at: networks, hosts, and addresses from DHCP leases.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::errors::{Failure, Outcome};
use crate::leases::Lease;

/// Addresses probed in one go at most: a /16.
pub(crate) const MOST: u128 = 65_536;

/// One target as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Network(IpNet, u16),
    Address(SocketAddr),
    Host(String, u16),
}

impl Target {
    /// Reads `10.0.0.0/24`, `10.0.0.0/24:8443`, `[fd00::/120]:8443`, `10.0.0.5`, `host:8443`, `[fd00::1]:8443`, `fd00::1`.
    pub(crate) fn parse(text: &str, port: u16) -> Outcome<Self> {
        let text = text.trim();
        let text = text.strip_prefix("https://").map_or(text, |rest| rest.trim_end_matches('/'));
        let wrong = |why: &str| Failure::new("input.address", format!("{text:?} is not a target: {why}"));
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let (place, port) =
            split_port(text, port).map_err(|digits| wrong(&format!("{digits:?} is no port")))?;
        if place.contains('/') {
            let network = place.parse().map_err(|_| wrong("the network is not written as ADDRESS/LENGTH"))?;
            return Ok(Self::Network(network, port));
        }
        if let Ok(address) = place.parse::<IpAddr>() {
            return Ok(Self::Address(SocketAddr::new(address, port)));
        }
        let fits = |label: &str| {
            !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        let numeric = place.split('.').all(|label| label.bytes().all(|b| b.is_ascii_digit()));
        if numeric || !place.trim_end_matches('.').split('.').all(fits) {
            return Err(wrong("neither an address nor a host name"));
        }
        Ok(Self::Host(place.to_owned(), port))
    }

    /// How many addresses it stands for, as far as is known without asking.
    fn size(&self) -> u128 {
        let Self::Network(network, _) = self else { return 1 };
        let bits = u32::from(network.max_prefix_len() - network.prefix_len());
        1_u128.checked_shl(bits).unwrap_or(u128::MAX)
    }
}

/// Takes the port off, brackets too. An address of IPv6 without brackets has none.
fn split_port(text: &str, default: u16) -> Result<(&str, u16), &str> {
    let number = |digits: &'_ str| digits.parse::<u16>().ok().filter(|port| *port != 0);
    if let Some((inside, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match rest.strip_prefix(':') {
            Some(digits) => number(digits).map(|port| (inside, port)).ok_or(digits),
            None if rest.is_empty() => Ok((inside, default)),
            None => Err(rest),
        };
    }
    match text.split_once(':') {
        Some((place, digits)) if !digits.contains(':') => {
            number(digits).map(|port| (place, port)).ok_or(digits)
        }
        _ => Ok((text, default)),
    }
}

/// Every address to probe, each once and in order, with the lease that named it.
pub(crate) async fn expand(
    targets: &[Target],
    leases: Vec<Lease>,
    port: u16,
) -> Outcome<BTreeMap<SocketAddr, Option<Lease>>> {
    let size = targets.iter().fold(leases.len() as u128, |sum, target| sum.saturating_add(target.size()));
    if size > MOST {
        let mut problem = crate::errors::problem(
            "input.range-too-large",
            "the targets hold too many addresses for one run",
        );
        problem = problem.difference(size.to_string(), format!("at most {MOST}"));
        return Err(problem.into());
    }
    let mut addresses = BTreeMap::new();
    for target in targets {
        match target {
            // The network's own address and the broadcast address of IPv4 are nobody's.
            Target::Network(network, port) => {
                addresses.extend(network.hosts().map(|host| (SocketAddr::new(host, *port), None)));
            }
            Target::Address(address) => {
                addresses.insert(*address, None);
            }
            Target::Host(host, port) => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| {
                    Failure::new("bmc.unresolved", format!("{host} does not resolve to an address: {error}"))
                })?;
                addresses.extend(found.map(|address| (address, None)));
            }
        }
    }
    for lease in leases {
        addresses.insert(SocketAddr::new(lease.address, port), Some(lease));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Target {
        Target::parse(text, 443).unwrap()
    }

    #[test]
    fn every_usual_spelling_is_a_target() {
        let network = |text: &str, port| Target::Network(text.parse().unwrap(), port);
        let address = |text: &str| Target::Address(text.parse().unwrap());
        assert_eq!(parse("127.0.0.0/28"), network("127.0.0.0/28", 443));
        assert_eq!(parse("127.0.0.0/28:8443"), network("127.0.0.0/28", 8443));
        assert_eq!(parse("[fd00::/120]:8443"), network("fd00::/120", 8443));
        assert_eq!(parse("fd00::/120"), network("fd00::/120", 443));
        assert_eq!(parse("10.0.0.5"), address("10.0.0.5:443"));
        assert_eq!(parse("10.0.0.5:8443"), address("10.0.0.5:8443"));
        assert_eq!(parse("fd00::1"), address("[fd00::1]:443"));
        assert_eq!(parse("[fd00::1]:8443"), address("[fd00::1]:8443"));
        assert_eq!(parse("https://bmc-1.example:8443/"), Target::Host("bmc-1.example".into(), 8443));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0.300",
            "host:0",
            "host:99999",
            "host:x",
            "a b",
            "[fd00::1",
            "10.0.0.0/24/8",
        ] {
            assert!(Target::parse(wrong, 443).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_network_is_probed_without_its_own_and_its_broadcast_address() {
        let found = expand(&[parse("10.0.0.0/29")], Vec::new(), 443).await.unwrap();
        let ends: Vec<_> = found.keys().map(ToString::to_string).collect();
        assert_eq!((ends.len(), ends[0].as_str(), ends[5].as_str()), (6, "10.0.0.1:443", "10.0.0.6:443"));
        assert_eq!(expand(&[parse("10.0.0.0/31")], Vec::new(), 443).await.unwrap().len(), 2);
        assert_eq!(expand(&[parse("10.0.0.7/32")], Vec::new(), 443).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_address_named_twice_is_probed_once() {
        assert_eq!(
            expand(&[parse("10.0.0.0/30"), parse("10.0.0.1")], Vec::new(), 443).await.unwrap().len(),
            2
        );
    }

    #[tokio::test]
    async fn an_absurd_range_is_refused_before_anything_is_probed() {
        for range in ["10.0.0.0/8", "::/0", "fd00::/64"] {
            let failure = expand(&[parse(range)], Vec::new(), 443).await.unwrap_err();
            assert!(format!("{failure:?}").contains("input.range-too-large"), "{range}");
        }
        assert!(expand(&[parse("10.0.0.0/16")], Vec::new(), 443).await.is_ok());
    }
}

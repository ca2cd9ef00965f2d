//! DHCP lease files: dnsmasq, ISC dhcpd, Kea's memfile. Only addresses that are leased out count; the last word about each holds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::errors::{Failure, Outcome};

/// An address that was leased out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Lease {
    #[serde(skip)]
    pub(crate) address: IpAddr,
    /// MAC address of who holds it.
    pub(crate) mac: Option<String>,
    /// The name it gave itself.
    pub(crate) hostname: Option<String>,
}

type Leases = BTreeMap<IpAddr, Option<Lease>>;

/// Reads a lease file, whatever of the three it is.
pub(crate) fn read(file: &str, text: &str) -> Outcome<Vec<Lease>> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let leases = match first {
        None => Some(Leases::new()),
        Some(line) if line.starts_with("address,") => Some(kea(line, text)),
        Some(line) if dnsmasq_line(line).is_some() || line.starts_with("duid ") => Some(dnsmasq(text)),
        Some(_) if text.contains("lease ") && text.contains('{') => Some(isc(text)),
        Some(_) => None,
    };
    let unknown = || Failure::new("input.leases", format!("{file} is no lease file of a known form"));
    Ok(leases.ok_or_else(unknown)?.into_values().flatten().collect())
}

fn lease(address: IpAddr, mac: Option<&str>, hostname: Option<&str>) -> Lease {
    let kept =
        |text: Option<&str>| text.map(str::trim).filter(|t| !t.is_empty() && *t != "*").map(str::to_owned);
    Lease { address, mac: kept(mac).map(|mac| mac.to_lowercase()), hostname: kept(hostname) }
}

/// dnsmasq: `expiry mac address hostname client-id`; expired leases are not in the file.
fn dnsmasq(text: &str) -> Leases {
    text.lines().filter_map(dnsmasq_line).map(|lease| (lease.address, Some(lease))).collect()
}

fn dnsmasq_line(line: &str) -> Option<Lease> {
    let mut words = line.split_whitespace();
    let (expiry, mac, address) = (words.next()?, words.next()?, words.next()?);
    expiry.parse::<u64>().ok()?;
    // In leases of DHCPv6 the second word is an identity association, not a MAC.
    let mac = mac.contains(':').then_some(mac);
    Some(lease(address.parse().ok()?, mac, words.next()))
}

/// ISC dhcpd (dhcpd.leases(5)): blocks, appended as things change.
fn isc(text: &str) -> Leases {
    let mut leases = Leases::new();
    for block in text.split("\nlease ").map(|part| part.strip_prefix("lease ").unwrap_or(part)) {
        let Some((address, rest)) = block.split_once('{') else { continue };
        let Ok(address) = address.trim().parse() else { continue };
        let body = rest.split('}').next().unwrap_or_default();
        let statement = |name: &str| {
            body.split(';')
                .find_map(|line| line.trim().strip_prefix(name))
                .map(|value| value.trim().trim_matches('"'))
        };
        let active = statement("binding state ").is_none_or(|state| state == "active");
        let found = lease(address, statement("hardware ethernet "), statement("client-hostname "));
        leases.insert(address, active.then_some(found));
    }
    leases
}

/// Kea's memfile: CSV with a header, appended as things change; state 0 with a lifetime is leased out.
fn kea(header: &str, text: &str) -> Leases {
    let column = |name: &str| header.split(',').position(|field| field == name);
    let (address, mac, hostname) = (column("address"), column("hwaddr"), column("hostname"));
    let (state, lifetime) = (column("state"), column("valid_lifetime"));
    let mut leases = Leases::new();
    for line in text.lines() {
        let values: Vec<&str> = line.split(',').collect();
        let value = |column: Option<usize>| column.and_then(|at| values.get(at)).copied();
        let Some(Ok(address)) = value(address).map(str::parse) else { continue };
        let active =
            value(state).is_none_or(|state| state.is_empty() || state == "0") && value(lifetime) != Some("0");
        leases.insert(address, active.then(|| lease(address, value(mac), value(hostname))));
    }
    leases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        read("f", text).unwrap().into_iter().map(|lease| lease.address.to_string()).collect()
    }

    #[test]
    fn dnsmasq_leases_are_read() {
        let text = "1732180000 B8:CA:3A:01:02:03 10.0.0.5 idrac-1 01:b8:ca\n1732180000 b8:ca:3a:01:02:04 10.0.0.6 * *\nduid 00:01\n1732180000 7 fd00::9 * 00:04\n";
        let found = read("f", text).unwrap();
        assert_eq!(found[0].mac.as_deref(), Some("b8:ca:3a:01:02:03"));
        assert_eq!((found[0].hostname.as_deref(), found[1].hostname.as_deref()), (Some("idrac-1"), None));
        assert_eq!(addresses(text), ["10.0.0.5", "10.0.0.6", "fd00::9"]);
        assert_eq!(found[2].mac, None);
    }

    #[test]
    fn of_an_isc_lease_the_last_word_holds() {
        let block = |address: &str, state: &str| {
            format!(
                "lease {address} {{\n  starts 4 2026/11/19 10:00:00;\n  binding state {state};\n  next binding state free;\n  hardware ethernet b8:ca:3a:01:02:03;\n  client-hostname \"bmc\";\n}}\n"
            )
        };
        let text = format!(
            "# comment\nauthoring-byte-order little-endian;\n\n{}{}{}",
            block("10.0.0.5", "active"),
            block("10.0.0.6", "active"),
            block("10.0.0.5", "free")
        );
        assert_eq!(addresses(&text), ["10.0.0.6"]);
        assert_eq!(read("f", &text).unwrap()[0].hostname.as_deref(), Some("bmc"));
    }

    #[test]
    fn of_a_kea_lease_the_last_word_holds() {
        let text = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n10.0.0.5,b8:ca:3a:01:02:03,,3600,1732180000,1,0,0,bmc-5,0,,0\n10.0.0.6,b8:ca:3a:01:02:04,,3600,1732180000,1,0,0,,0,,0\n10.0.0.6,b8:ca:3a:01:02:04,,0,1732180000,1,0,0,,0,,0\n10.0.0.7,,,3600,1732180000,1,0,0,,1,,0\n";
        assert_eq!(addresses(text), ["10.0.0.5"]);
    }

    #[test]
    fn an_empty_file_has_no_leases_and_another_file_is_none() {
        assert!(addresses("").is_empty());
        assert!(read("f", "hello world\n").is_err());
    }
}

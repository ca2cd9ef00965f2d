//! Where a BMC is: its URL, the addresses it resolves to, and which URIs belong to it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use url::{Host, Url};

use crate::error::Error;
use crate::reader::ReadError;

/// The origin of one BMC: scheme, host and port.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    base: Url,
}

impl Origin {
    /// Reads what a user gives: `https://host:port`, or the same without scheme.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Url { url: text.to_owned(), reason };
        let spelled =
            if text.contains("://") { text.trim().to_owned() } else { format!("https://{}", text.trim()) };
        let mut url = Url::parse(&spelled).map_err(|_| wrong("not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            // The text is not repeated: it holds a password.
            return Err(Error::Url {
                url: "…".to_owned(), reason: "credentials do not belong into the URL"
            });
        }
        if url.scheme() != "https" {
            return Err(wrong("only https is spoken"));
        }
        if url.host().is_none() {
            return Err(wrong("no host"));
        }
        if !matches!(url.path().trim_end_matches('/'), "" | "/redfish" | "/redfish/v1")
            || url.query().is_some()
        {
            return Err(wrong("only scheme, host and port"));
        }
        url.set_path("/redfish/v1/");
        url.set_fragment(None);
        Ok(Self { base: url })
    }

    /// The service root.
    pub(crate) fn root(&self) -> &Url {
        &self.base
    }

    /// Host and port, for people.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.base.host_str().unwrap_or_default(), self.port())
    }

    fn port(&self) -> u16 {
        self.base.port_or_known_default().unwrap_or(443)
    }

    /// The URL of a URI that the BMC gave, if it belongs to this BMC (quirk 40). The fragment, which points into the body
    /// (DSP0266 §7.2), is not sent.
    pub(crate) fn own(&self, uri: &str) -> Result<Url, ReadError> {
        let foreign = || ReadError::CrossOrigin { uri: uri.to_owned() };
        let mut url = self.base.join(uri).map_err(|_| foreign())?;
        let same =
            url.origin() == self.base.origin() && url.username().is_empty() && url.password().is_none();
        if uri.is_empty() || !same {
            return Err(foreign());
        }
        url.set_fragment(None);
        Ok(url)
    }

    /// Resolves the host once. Every address must be inside `networks`, if given: one that is not could be connected to.
    pub(crate) async fn resolve(&self, networks: Option<&[IpNet]>) -> Result<Vec<SocketAddr>, Error> {
        let addresses: Vec<SocketAddr> = match self.base.host() {
            Some(Host::Ipv4(ip)) => vec![SocketAddr::new(ip.into(), self.port())],
            Some(Host::Ipv6(ip)) => vec![SocketAddr::new(ip.into(), self.port())],
            Some(Host::Domain(name)) => tokio::net::lookup_host((name, self.port()))
                .await
                .map_err(|source| Error::Unresolved { host: name.to_owned(), source: Some(source) })?
                .collect(),
            None => Vec::new(),
        };
        if addresses.is_empty() {
            return Err(Error::Unresolved { host: self.authority(), source: None });
        }
        if let Some(networks) = networks {
            for address in &addresses {
                check(address.ip(), networks)?;
            }
        }
        Ok(addresses)
    }
}

/// Whether an address is inside one of the networks. IPv4 in IPv6 clothes is IPv4.
fn check(address: IpAddr, networks: &[IpNet]) -> Result<(), Error> {
    let address = address.to_canonical();
    if networks.iter().any(|network| network.contains(&address)) {
        return Ok(());
    }
    Err(Error::OutsideNetworks { address, networks: networks.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).unwrap()
    }

    #[test]
    fn a_host_a_port_and_ipv6_are_addresses() {
        assert_eq!(origin("https://bmc").authority(), "bmc:443");
        assert_eq!(origin("10.0.0.1:8443").authority(), "10.0.0.1:8443");
        assert_eq!(origin("https://[fd00::1]:8443/redfish/v1").authority(), "[fd00::1]:8443");
    }

    #[test]
    fn what_is_no_https_address_is_refused() {
        for wrong in
            ["http://bmc", "ftp://bmc", "https://", "https://bmc/login", "https://bmc/?x", "https://a b"]
        {
            assert_eq!(
                Origin::parse(wrong).map_err(|e| e.code()).err(),
                Some("bmc.address-invalid"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        let error = Origin::parse("https://root:calvin@bmc").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("calvin"));
    }

    #[test]
    fn quirk_40_a_uri_of_another_origin_is_refused() {
        let origin = origin("https://10.0.0.1");
        for foreign in [
            "https://10.0.0.2/redfish/v1",
            "http://10.0.0.1/redfish/v1",
            "https://10.0.0.1:8443/redfish/v1",
            "//10.0.0.2/redfish/v1",
            "/\\10.0.0.2/redfish/v1",
            "\\\\10.0.0.2",
            "https://10.0.0.1@10.0.0.2/",
            "https://u:p@10.0.0.1/",
            "javascript:alert(1)",
            "",
        ] {
            assert_eq!(
                origin.own(foreign).map_err(|e| e.code()),
                Err("redfish.uri.cross-origin"),
                "{foreign}"
            );
        }
    }

    #[test]
    fn quirk_40_a_uri_of_the_same_origin_is_taken_however_it_is_spelled() {
        let origin = origin("https://10.0.0.1");
        for (uri, path) in [
            ("/redfish/v1/Systems/1", "/redfish/v1/Systems/1"),
            ("https://10.0.0.1:443/redfish/v1/Systems", "/redfish/v1/Systems"),
            ("/redfish/v1/Chassis/1/Power#/PowerSupplies/0", "/redfish/v1/Chassis/1/Power"),
        ] {
            assert_eq!(origin.own(uri).unwrap().path(), path);
        }
        assert_eq!(origin.own("/a?$skip=75").unwrap().query(), Some("$skip=75"));
    }

    #[tokio::test]
    async fn an_address_outside_the_networks_is_refused() {
        let networks: Vec<IpNet> = vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        for inside in ["10.0.0.9", "[fd00::9]", "[::ffff:10.0.0.9]"] {
            assert!(origin(inside).resolve(Some(&networks)).await.is_ok(), "{inside}");
        }
        for outside in ["10.0.1.9", "[fd01::9]", "127.0.0.1", "localhost"] {
            let code = origin(outside).resolve(Some(&networks)).await.map_err(|e| e.code());
            assert_eq!(code.err(), Some("bmc.address-outside-networks"), "{outside}");
        }
    }

    proptest! {
        #[test]
        fn quirk_40_no_uri_leads_away_from_the_bmc(
            uri in ".{0,60}|(https?:)?[/\\\\]{1,3}[a-z0-9.@:\\[\\]]{0,20}(/[a-z]{0,5})?",
        ) {
            let origin = origin("https://10.0.0.1:8443");
            if let Ok(url) = origin.own(&uri) {
                prop_assert_eq!((url.scheme(), url.host_str(), url.port()), ("https", Some("10.0.0.1"), Some(8443)));
                prop_assert!(url.username().is_empty() && url.password().is_none());
            }
        }
    }
}

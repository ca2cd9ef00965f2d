//! Whether something is a BMC, without credentials: what `discover` does to every address of a range.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::{Diagnose as _, Problem};
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use url::Url;

use crate::address::Origin;
use crate::client::is_service_root;
use crate::error::Error;
use crate::limits::{self, Limits};
use crate::pin::SpkiPin;
use crate::tls::{Trust, Verifier};
use crate::transport::{Answer, Budget, Failure, Request, Timeouts, Transport};

/// How patient a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until something takes the connection: dead addresses are most of a range.
    pub connect: Duration,
    /// Until TLS stands and the service root has come.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), answer: Duration::from_secs(10) }
    }
}

/// What answers at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The address probed.
    pub address: SocketAddr,
    /// The pin of the key shown; also where the certificate is refused.
    pub pin: Option<SpkiPin>,
    /// SHA-256 of the whole certificate, in hexadecimal.
    pub certificate_sha256: Option<String>,
    /// Who made the BMC or the machine: a guess from several fields (quirk 22).
    pub vendor: Option<String>,
    /// `Product` of the service root.
    pub product: Option<String>,
    /// `RedfishVersion` of the service root.
    pub redfish_version: Option<String>,
    /// `UUID` of the service root, in lower case.
    pub uuid: Option<String>,
    /// Why it cannot be read as it is. A BMC may have one too: a root that asks for credentials, a refused certificate.
    pub problem: Option<Problem>,
}

impl Probe {
    fn of(address: SocketAddr) -> Self {
        Self {
            address,
            pin: None,
            certificate_sha256: None,
            vendor: None,
            product: None,
            redfish_version: None,
            uuid: None,
            problem: None,
        }
    }

    /// Whether anything answers there at all.
    pub fn answers(&self) -> bool {
        self.problem.as_ref().is_none_or(|problem| problem.code != "bmc.unreachable")
    }

    /// Whether it is, or may be, a BMC that speaks Redfish.
    pub fn is_candidate(&self) -> bool {
        match &self.problem {
            None => true,
            Some(problem) => {
                matches!(problem.code.as_str(), "redfish.resource.unauthorized" | "bmc.busy")
                    || problem.code.starts_with("bmc.certificate.")
            }
        }
    }
}

/// Probes one address: the service root over TLS, without credentials.
pub async fn probe(address: SocketAddr, patience: Patience) -> Probe {
    let mut found = Probe::of(address);
    // A bare connection first: for the many addresses where nothing is, no TLS client is built.
    let unreachable = |reason: String| Error::Unreachable { address: address.to_string(), reason };
    let connected = match tokio::time::timeout(patience.connect, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no answer within {:?}", patience.connect))),
    };
    let outcome = match connected {
        Ok(()) => ask(&mut found, patience).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        found.problem = Some(error.problem());
    }
    found
}

async fn ask(found: &mut Probe, patience: Patience) -> Result<(), Error> {
    let origin = Origin::parse(&found.address.to_string())?;
    let verifier = Verifier::new(&Trust::FirstUse)?;
    let every = patience.answer;
    // The connection stands already: what is slow from here on is the answer, so the answer's time-out must come first.
    let connect = every * 2;
    let budget = Budget {
        timeouts: Timeouts { connect, ordinary: every, slow: every, action: every },
        limits: Limits { body: 1 << 20, total: 2 << 20 },
        concurrency: 1,
        shared: None,
        pooling: true,
        deadline: None,
        guard: None,
        pass: None,
        fence_wait: Duration::ZERO,
    };
    let transport = Transport::new(&origin, vec![found.address], Arc::clone(&verifier), budget)?;
    let mut outcome = transport.exchange(Request::get(origin.root().clone()), false).await;
    if let Some(other) = outcome.as_ref().ok().and_then(|answer| other_spelling(&origin, answer)) {
        outcome = transport.exchange(Request::get(other), false).await;
    }
    if let Some(peer) = verifier.peer() {
        found.pin = Some(peer.pin);
        found.certificate_sha256 = Some(hex::encode(peer.certificate_sha256));
    }
    let address = || found.address.to_string();
    let answer = match outcome {
        Ok(answer) => answer,
        Err(Failure::Connect(error) | Failure::Spent(error)) => return Err(as_seen(error, &address())),
        Err(Failure::Timeout(after)) => return Err(Error::Timeout { address: address(), after }),
        Err(Failure::Lost(reason)) => return Err(Error::NotRedfish { reason }),
        Err(Failure::TooLarge(limit)) => {
            return Err(Error::NotRedfish { reason: format!("a page of more than {limit} bytes") });
        }
    };
    read_root(found, &answer)
}

/// Where the service root is if not where we asked: a redirect within the BMC, or the same path without its last slash.
fn other_spelling(origin: &Origin, answer: &Answer) -> Option<Url> {
    if answer.status.is_redirection() {
        return origin.own(answer.header(&header::LOCATION)?).ok();
    }
    (answer.status == StatusCode::NOT_FOUND).then(|| origin.own("/redfish/v1").ok())?
}

/// The connection stood a moment ago: what fails now is not the network.
fn as_seen(error: Error, address: &str) -> Error {
    match error {
        Error::Unreachable { reason, .. } => Error::Tls { reason: format!("{address}: {reason}") },
        other => other,
    }
}

fn read_root(found: &mut Probe, answer: &Answer) -> Result<(), Error> {
    let server = answer.header(&header::SERVER).map(ToOwned::to_owned);
    match answer.status {
        status if status.is_success() => {}
        // Against DSP0266 §6.3 the root asks for credentials: no proof of Redfish, but worth a try with credentials.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let message = "the service root asks for credentials".to_owned();
            found.vendor = vendor(&Value::Null, server.as_deref());
            found.problem = Some(crate::error::problem("redfish.resource.unauthorized", message));
            return Ok(());
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => return Err(Error::Busy),
        status => {
            return Err(Error::NotRedfish { reason: format!("/redfish/v1/ is answered with {status}") });
        }
    }
    let root = limits::decode("/redfish/v1/", answer.header(&header::CONTENT_TYPE), &answer.body)
        .map_err(|error| Error::NotRedfish { reason: error.to_string() })?
        .value;
    if !is_service_root(&root) {
        return Err(Error::NotRedfish { reason: "a JSON object that is no service root".to_owned() });
    }
    found.vendor = vendor(&root, server.as_deref());
    found.product = text(&root, "Product");
    found.redfish_version = text(&root, "RedfishVersion");
    found.uuid = text(&root, "UUID").map(|uuid| uuid.to_lowercase());
    Ok(())
}

fn text(root: &Value, name: &str) -> Option<String> {
    let text = root.get(name)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// What tells a vendor where `Vendor` does not: a key of `Oem`, a word of `Product` or of the Server header.
const VENDORS: &[(&str, &str)] = &[
    ("dell", "Dell"),
    ("idrac", "Dell"),
    ("hpe", "HPE"),
    ("hp", "HPE"),
    ("ilo", "HPE"),
    ("lenovo", "Lenovo"),
    ("xcc", "Lenovo"),
    ("supermicro", "Supermicro"),
    ("nvidia", "NVIDIA"),
    ("ami", "AMI"),
    ("megarac", "AMI"),
    ("huawei", "Huawei"),
    ("xfusion", "xFusion"),
    ("fujitsu", "Fujitsu"),
    ("ts_fujitsu", "Fujitsu"),
    ("irmc", "Fujitsu"),
    ("cisco", "Cisco"),
    ("gigabyte", "GIGABYTE"),
    ("gbt", "GIGABYTE"),
    ("openbmc", "OpenBMC"),
    ("bmcweb", "OpenBMC"),
    ("sushy", "sushy-emulator"),
];

/// Guesses the vendor from several fields (quirk 22): `Vendor`, then the keys of `Oem`, `Product`, the Server header.
fn vendor(root: &Value, server: Option<&str>) -> Option<String> {
    if let Some(vendor) = text(root, "Vendor") {
        return Some(vendor);
    }
    let known = |word: &str| {
        let word = word.to_lowercase();
        VENDORS.iter().find(|(key, _)| *key == word).map(|(_, name)| (*name).to_owned())
    };
    let words = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').find_map(known);
    let oem = root.get("Oem").and_then(Value::as_object);
    oem.and_then(|oem| oem.keys().find_map(|key| known(key)))
        .or_else(|| text(root, "Product").as_deref().and_then(words))
        .or_else(|| server.and_then(words))
        // A vendor that nobody here knows still names itself in `Oem`.
        .or_else(|| oem.and_then(|oem| oem.keys().find(|key| !key.contains('@')).cloned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quirk_22_the_vendor_is_guessed_from_several_fields() {
        let guess = |root: Value, server: Option<&str>| vendor(&root, server);
        assert_eq!(guess(json!({"Vendor": "Dell"}), None).as_deref(), Some("Dell"));
        assert_eq!(
            guess(json!({"Vendor": null, "Oem": {"Supermicro": {}}}), None).as_deref(),
            Some("Supermicro")
        );
        assert_eq!(
            guess(json!({"Vendor": " ", "Product": "AMI Redfish Server"}), None).as_deref(),
            Some("AMI")
        );
        assert_eq!(guess(json!({}), Some("HPE-iLO-Server/1.30")).as_deref(), Some("HPE"));
        assert_eq!(guess(json!({"Oem": {"Contoso": {}}}), None).as_deref(), Some("Contoso"));
        assert_eq!(guess(json!({}), Some("nginx")), None);
    }
}

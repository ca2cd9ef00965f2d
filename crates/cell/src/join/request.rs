//! Whether a request for a node's client certificate is the machine's own.

use super::{GROUP, Token};
use crate::error::coded;
use domain::instance::Approval;
use domain::{Digest, MachineState, Name, Problem};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_cert::der::{Decode as _, DecodePem as _, Encode as _};
use x509_cert::request::CertReq;

/// The signer of client certificates of kubelets.
pub(crate) const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Usages that such a certificate may have (kubernetes, certificates v1: `kube-apiserver-client-kubelet`).
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "client auth"];

/// What a request is held against.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub machine: &'a Name,
    pub state: MachineState,
    pub token: &'a Token,
    /// When the token ends.
    pub until: Timestamp,
    /// The request that was approved before.
    pub approved: Option<&'a Approval>,
    /// When it is looked at: what the cell was away for is not the machine's fault, so the request's own time counts, if it has one.
    pub now: Timestamp,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It concerns another machine, or nothing of ours.
    NotOurs,
    /// It is approved for this key.
    Approve(Digest),
    /// It came with the machine's token and is not the machine's: the token is in wrong hands.
    Deny(Box<Problem>),
}

/// Decides on a first certificate.
pub(crate) fn decide(request: &CertificateSigningRequest, expected: &Expected<'_>) -> Decision {
    let spec = &request.spec;
    if spec.signer_name != SIGNER || spec.username.as_deref() != Some(&expected.token.user()) {
        return Decision::NotOurs;
    }
    match check(request, expected) {
        Ok(key) => Decision::Approve(key),
        Err(problem) => Decision::Deny(problem),
    }
}

fn check(request: &CertificateSigningRequest, expected: &Expected<'_>) -> Result<Digest, Box<Problem>> {
    let deny = |code, message: String| Err(Box::new(coded(code, message)));
    let machine = expected.machine;
    if !request.spec.groups.iter().flatten().any(|group| group == GROUP) {
        return deny("join.wrong-group", format!("the token of Machine/{machine} is not of group {GROUP}"));
    }
    let key = key_for(request, machine)?;
    let name = request.metadata.name.as_deref().unwrap_or_default();
    match expected.approved {
        // The same request seen again, or the same key in a second one: a kubelet that was started again.
        Some(approved) if approved.request == name || approved.key == key => Ok(key),
        Some(_) => deny(
            "join.token-reused",
            format!("a second certificate is asked for with the token of Machine/{machine}"),
        ),
        None if expected.state != MachineState::Provisioning => deny(
            "join.not-provisioning",
            format!(
                "a certificate is asked for with the token of Machine/{machine}, which is {}",
                expected.state
            ),
        ),
        None if asked_at(request).unwrap_or(expected.now) > expected.until => deny(
            "join.token-late",
            format!("a certificate is asked for with the token of Machine/{machine} after its end"),
        ),
        None => Ok(key),
    }
}

/// When the API server took the request; nobody who asks writes that.
fn asked_at(request: &CertificateSigningRequest) -> Option<Timestamp> {
    request.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// A certificate that a node asks for to replace its own: same user, same name, nothing more.
pub(crate) fn is_renewal(request: &CertificateSigningRequest, machine: &Name) -> bool {
    let spec = &request.spec;
    spec.signer_name == SIGNER
        && spec.username.as_deref() == Some(&format!("system:node:{machine}"))
        && spec.groups.iter().flatten().any(|group| group == "system:nodes")
        && key_for(request, machine).is_ok()
}

/// The public key of a request that asks for the client certificate of this node and for nothing else.
fn key_for(request: &CertificateSigningRequest, machine: &Name) -> Result<Digest, Box<Problem>> {
    let malformed = |why: &str| {
        Box::new(coded(
            "join.request-malformed",
            format!("the certificate request of Machine/{machine} {why}"),
        ))
    };
    let pem = &request.spec.request.0;
    let parsed = CertReq::from_pem(pem).or_else(|_| CertReq::from_der(pem));
    let parsed = parsed.map_err(|_| malformed("cannot be read"))?;
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    if !usages.iter().any(|usage| usage == "client auth")
        || usages.iter().any(|usage| !USAGES.contains(&usage.as_str()))
    {
        return Err(malformed("asks for other usages than those of a client"));
    }
    // Alternative names come as an attribute (PKCS #9 extensionRequest): a node's client certificate has none.
    if !parsed.info.attributes.is_empty() {
        return Err(malformed("asks for more than a name"));
    }
    let subject = parsed.info.subject.to_string();
    let mut parts: Vec<_> = subject.split(',').map(str::trim).collect();
    parts.sort_unstable();
    let expected = format!("CN=system:node:{machine}");
    if parts != [expected.as_str(), "O=system:nodes"] {
        let message = format!("the token of Machine/{machine} was used to ask for another name");
        return Err(Box::new(
            coded("join.name-mismatch", message).difference(subject, format!("{expected},O=system:nodes")),
        ));
    }
    let key = parsed.info.public_key.to_der().map_err(|_| malformed("has no public key"))?;
    Ok(Digest::of(&key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
    use store::Zeroizing;

    fn token() -> Token {
        Token { id: "abcdef".into(), secret: Zeroizing::new("0123456789abcdef".into()) }
    }

    fn asked(names: &[&str], organisations: &[&str], alternative: bool) -> CertificateSigningRequest {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for organisation in organisations {
            params.distinguished_name.push(DnType::OrganizationName, *organisation);
        }
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        if alternative {
            params.subject_alt_names = vec![SanType::DnsName("api.example".try_into().unwrap())];
        }
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        CertificateSigningRequest {
            metadata: kube::api::ObjectMeta { name: Some("node-csr-1".into()), ..Default::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: SIGNER.into(),
                username: Some("system:bootstrap:abcdef".into()),
                groups: Some(vec!["system:bootstrappers".into(), GROUP.into()]),
                usages: Some(vec!["digital signature".into(), "client auth".into()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        }
    }

    fn good() -> CertificateSigningRequest {
        asked(&["system:node:m1"], &["system:nodes"], false)
    }

    struct Given {
        state: MachineState,
        approved: Option<Approval>,
        now: Timestamp,
    }

    fn decision(
        request: &CertificateSigningRequest,
        change: impl FnOnce(&mut Given),
    ) -> Result<bool, String> {
        let (machine, token) = (Name::new("m1").unwrap(), token());
        let now = Timestamp::from_second(900).unwrap();
        let mut given = Given { state: MachineState::Provisioning, approved: None, now };
        change(&mut given);
        let Given { state, approved, now } = given;
        let until = Timestamp::from_second(1_000).unwrap();
        let approved = approved.as_ref();
        let expected = Expected { machine: &machine, state, token: &token, until, approved, now };
        match decide(request, &expected) {
            Decision::NotOurs => Ok(false),
            Decision::Approve(_) => Ok(true),
            Decision::Deny(problem) => Err(problem.code),
        }
    }

    #[test]
    fn the_machines_own_request_is_approved() {
        assert_eq!(decision(&good(), |_| {}), Ok(true));
    }

    #[test]
    fn a_request_with_another_token_or_for_another_signer_is_not_looked_at() {
        let mut other = good();
        other.spec.username = Some("system:bootstrap:fedcba".into());
        assert_eq!(decision(&other, |_| {}), Ok(false));
        let mut other = good();
        other.spec.signer_name = "kubernetes.io/kubelet-serving".into();
        assert_eq!(decision(&other, |_| {}), Ok(false));
    }

    #[test]
    fn a_token_used_for_another_name_is_denied() {
        for (names, organisations) in [
            (&["system:node:m2"][..], &["system:nodes"][..]),
            (&["system:node:m1"], &["system:masters"]),
            (&["system:node:m1"], &["system:nodes", "system:masters"]),
            (&["system:node:m1", "system:node:m2"], &["system:nodes"]),
            (&["system:node:m1"], &[]),
            (&["system:node:m1,O=system:nodes"], &[]),
        ] {
            let request = asked(names, organisations, false);
            assert_eq!(
                decision(&request, |_| {}),
                Err("join.name-mismatch".into()),
                "{names:?} {organisations:?}"
            );
        }
    }

    #[test]
    fn a_request_for_more_than_a_client_certificate_is_denied() {
        let with_names = asked(&["system:node:m1"], &["system:nodes"], true);
        let mut serving = good();
        serving.spec.usages = Some(vec!["client auth".into(), "server auth".into()]);
        let mut garbage = good();
        garbage.spec.request = ByteString(b"-----BEGIN".to_vec());
        for request in [with_names, serving, garbage] {
            assert_eq!(decision(&request, |_| {}), Err("join.request-malformed".into()));
        }
    }

    #[test]
    fn a_token_used_twice_is_denied_unless_it_is_the_same_request() {
        let approved = |request: &str| Approval {
            request: request.into(),
            key: Digest::of(b"another key"),
            at: Timestamp::UNIX_EPOCH,
        };
        let (same, other) = (approved("node-csr-1"), approved("node-csr-0"));
        let now = Timestamp::from_second(5_000).unwrap();
        // Approved in time, and seen again after the token's end.
        assert_eq!(decision(&good(), |e| (e.approved, e.now) = (Some(same), now)), Ok(true));
        assert_eq!(decision(&good(), |e| e.approved = Some(other)), Err("join.token-reused".into()));
    }

    #[test]
    fn a_token_used_late_is_denied() {
        let late = Timestamp::from_second(1_001).unwrap();
        assert_eq!(decision(&good(), |e| e.now = late), Err("join.token-late".into()));
        let mut asked = good();
        asked.metadata.creation_timestamp = Some(Time(late));
        assert_eq!(decision(&asked, |e| e.now = late), Err("join.token-late".into()));
    }

    #[test]
    fn a_token_used_in_time_and_seen_late_is_the_machines_own() {
        let mut asked = good();
        asked.metadata.creation_timestamp = Some(Time(Timestamp::from_second(999).unwrap()));
        assert_eq!(decision(&asked, |e| e.now = Timestamp::from_second(5_000).unwrap()), Ok(true));
    }

    #[test]
    fn a_token_of_a_machine_that_is_not_being_provisioned_is_denied() {
        for state in MachineState::ALL.into_iter().filter(|state| *state != MachineState::Provisioning) {
            assert_eq!(
                decision(&good(), |e| e.state = state),
                Err("join.not-provisioning".into()),
                "{state}"
            );
        }
    }

    #[test]
    fn a_node_renews_its_own_certificate_and_no_other() {
        let machine = Name::new("m1").unwrap();
        let mut renewal = good();
        renewal.spec.username = Some("system:node:m1".into());
        renewal.spec.groups = Some(vec!["system:nodes".into()]);
        assert!(is_renewal(&renewal, &machine));
        let mut other = asked(&["system:node:m2"], &["system:nodes"], false);
        other.spec.username = Some("system:node:m1".into());
        other.spec.groups = Some(vec!["system:nodes".into()]);
        assert!(!is_renewal(&other, &machine));
    }
}

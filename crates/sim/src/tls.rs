//! TLS identities of BMCs: keys, certificates, pins; and where they are kept.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rcgen::{CertificateParams, DnType, Issuer, KeyPair, PublicKeyData, SanType, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use crate::der;
use crate::error::Error;
use crate::files;

/// A key with its certificate chain.
///
/// What cannot be served by this library: RSA keys of fewer than 2048 bits (ring refuses to sign with them; `legacy` does it by a
/// python3 child). X.509 version 1 can: see [`CertificateKind::Version1`].
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pin: String,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// What a generated certificate is like.
#[derive(Clone, Debug, Default)]
pub enum CertificateKind {
    /// Self-signed, valid from 2024 to 2049, for the name and addresses of the BMC.
    #[default]
    SelfSigned,
    /// Self-signed and no longer valid since 2011.
    Expired,
    /// Self-signed and not valid before 2049.
    NotYetValid,
    /// Self-signed for a host that this BMC is not.
    WrongHost,
    /// Self-signed X.509 version 1: what old BMC firmware generates and webpki rejects.
    Version1,
    /// Signed by this authority.
    SignedBy(Arc<CertificateAuthority>),
}

impl TlsIdentity {
    /// A new ECDSA P-256 key with a certificate for this name and these addresses.
    pub fn generate(name: &str, addresses: &[IpAddr], kind: &CertificateKind) -> Result<Self, Error> {
        let fail = || Error::certificate::<rcgen::Error>(name);
        let key = KeyPair::generate().map_err(fail())?;
        let san = if matches!(kind, CertificateKind::WrongHost) { "another-host.invalid" } else { name };
        let mut params = CertificateParams::new([san.to_owned()]).map_err(fail())?;
        params.distinguished_name.push(DnType::CommonName, san);
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2049, 1, 1);
        if !matches!(kind, CertificateKind::WrongHost) {
            params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        }
        let chain = match kind {
            CertificateKind::SelfSigned | CertificateKind::WrongHost => {
                vec![params.self_signed(&key).map_err(fail())?.der().clone()]
            }
            CertificateKind::Expired => {
                params.not_before = date_time_ymd(2010, 1, 1);
                params.not_after = date_time_ymd(2011, 1, 1);
                vec![params.self_signed(&key).map_err(fail())?.der().clone()]
            }
            CertificateKind::NotYetValid => {
                params.not_before = date_time_ymd(2049, 1, 1);
                params.not_after = date_time_ymd(2049, 12, 31);
                vec![params.self_signed(&key).map_err(fail())?.der().clone()]
            }
            CertificateKind::Version1 => vec![der::version1_certificate(name, &key).map_err(fail())?],
            CertificateKind::SignedBy(authority) => {
                vec![params.signed_by(&key, &authority.issuer).map_err(fail())?.der().clone()]
            }
        };
        let pin = pin_of(&key.subject_public_key_info());
        Ok(Self { chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()), pin })
    }

    /// An identity from PEM text that holds a private key and one certificate or a chain, leaf first.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let fail = || Error::certificate("the given PEM");
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(fail())?;
        let chain =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(fail())?;
        Self::from_der(chain, key)
    }

    /// An identity from DER: the chain is sent as it is, whatever is in it; the key must be one that ring signs with.
    pub fn from_der(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Error> {
        let pair = KeyPair::try_from(&key).map_err(Error::certificate("the given key"))?;
        Ok(Self { chain, key, pin: pin_of(&pair.subject_public_key_info()) })
    }

    /// `sha256:` and the lower-case hex SHA-256 of the DER SubjectPublicKeyInfo.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf certificate in PEM.
    pub fn certificate_pem(&self) -> String {
        self.chain.first().map(|leaf| pem("CERTIFICATE", leaf)).unwrap_or_default()
    }

    fn to_pem(&self) -> String {
        let mut text = pem("PRIVATE KEY", self.key.secret_der());
        for certificate in &self.chain {
            text.push_str(&pem("CERTIFICATE", certificate));
        }
        text
    }

    /// The server configuration of this identity. Each has its own session tickets: a client that resumes cannot miss a changed key.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        let fail = || Error::certificate::<rustls::Error>("a server");
        let key = rustls::crypto::ring::sign::any_supported_type(&self.key).map_err(fail())?;
        // Not `with_single_cert`: that parses the certificate, and a version 1 certificate must be served as it is.
        let resolver = Fixed(Arc::new(CertifiedKey::new(self.chain.clone(), key)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(fail())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(fail())?;
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

/// A certificate authority for tests: signs certificates of BMCs.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateAuthority")
    }
}

impl CertificateAuthority {
    /// A new authority.
    pub fn generate(name: &str) -> Result<Arc<Self>, Error> {
        let fail = || Error::certificate::<rcgen::Error>(name);
        let key = KeyPair::generate().map_err(fail())?;
        let mut params = CertificateParams::new(Vec::new()).map_err(fail())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2049, 1, 1);
        let pem = params.self_signed(&key).map_err(fail())?.pem();
        Ok(Arc::new(Self { issuer: Issuer::new(params, key), pem }))
    }

    /// Its certificate in PEM, for clients to trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

/// Where identities are kept, one file a BMC, so that pins stay the same over restarts.
#[derive(Clone, Debug)]
pub struct KeyStore {
    directory: PathBuf,
}

impl KeyStore {
    /// Opens or creates the directory.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, Error> {
        let directory = directory.into();
        files::create_private_directory(&directory)?;
        Ok(Self { directory })
    }

    /// The kept identity of this BMC, or a new one, which is kept from now on.
    pub fn load_or_generate(&self, name: &str, addresses: &[IpAddr]) -> Result<TlsIdentity, Error> {
        let path = self.path(name);
        match std::fs::read_to_string(&path) {
            Ok(pem) => {
                TlsIdentity::from_pem(&pem).map_err(|error| error.for_name(&path.display().to_string()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let identity = TlsIdentity::generate(name, addresses, &CertificateKind::SelfSigned)?;
                self.keep(name, &identity)?;
                Ok(identity)
            }
            Err(error) => Err(Error::file("read", path)(error)),
        }
    }

    /// Keeps this identity in place of the one before.
    pub fn keep(&self, name: &str, identity: &TlsIdentity) -> Result<(), Error> {
        files::write_private(&self.path(name), identity.to_pem().as_bytes())
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.directory).join(format!("{name}.pem"))
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// The pin of a DER SubjectPublicKeyInfo.
pub(crate) fn pin_of(spki: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(spki)))
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

//! One exchange with one Ironic: bounded in time and size, nothing repeated.

use std::error::Error as StdError;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, header};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::answer::{Answer, VERSION};
use crate::error::Error;
use crate::secret::Secret;
use crate::trust::{Trust, tls};
use crate::version::Microversion;

/// Which Ironic, and how both sides prove who they are.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `http[s]://HOST[:PORT][/PREFIX]`, with or without `/v1`. Plain `http` goes to this host only, unless the trust is
    /// [`Trust::Insecure`]: the requests carry credentials of BMCs.
    pub url: String,
    /// How we prove who we are.
    pub authentication: Authentication,
    /// How Ironic proves who it is.
    pub trust: Trust,
}

/// `[DEFAULT] auth_strategy` of Ironic.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// `noauth`.
    None,
    /// `http_basic`.
    HttpBasic {
        /// User name; without a colon.
        username: String,
        /// Password.
        password: Secret,
    },
}

/// How long and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// One request with its answer. Ironic answers some only after it has spoken with the BMC.
    pub request: Duration,
    /// The largest body, in bytes.
    pub body: u64,
    /// How often a request that changes nothing is sent at most.
    pub attempts: u32,
    /// Wait before the second attempt; doubles with every further one.
    pub pause: Duration,
    /// The longest wait, whatever the server asks for.
    pub longest_pause: Duration,
    /// Members of a page that are asked for.
    pub page: u32,
    /// Members of a list at most.
    pub list: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(90),
            body: 16 << 20,
            attempts: 3,
            pause: Duration::from_millis(300),
            longest_pause: Duration::from_secs(10),
            page: 500,
            list: 50_000,
        }
    }
}

/// One request, without what is common to all.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: Vec<String>,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Option<Zeroizing<Vec<u8>>>,
    /// What must not be repeated from an answer.
    pub(crate) secrets: Vec<Secret>,
}

impl Request {
    pub(crate) fn new(method: Method, path: &[&str]) -> Self {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        Self { method, path, query: Vec::new(), body: None, secrets: Vec::new() }
    }

    pub(crate) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn query(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: &serde_json::Value, secrets: Vec<Secret>) -> Self {
        self.body = Some(Zeroizing::new(body.to_string().into_bytes()));
        self.secrets = secrets;
        self
    }
}

/// Sends requests to one Ironic.
pub(crate) struct Transport {
    http: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
    /// The password of every request, and how it is sent.
    credentials: Vec<Secret>,
    options: Options,
    authority: String,
}

impl Transport {
    pub(crate) fn new(endpoint: &Endpoint, options: Options) -> Result<Self, Error> {
        let base = base_of(endpoint)?;
        let authority = format!(
            "{}{}",
            base.host_str().unwrap_or_default(),
            base.port().map(|port| format!(":{port}")).unwrap_or_default()
        );
        // Plain http shows no certificate, so that none need be given for an Ironic on this host.
        let trust = if base.scheme() == "http" { &Trust::Insecure } else { &endpoint.trust };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(trust)?)
            .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            // A proxy of the environment would see the credentials of BMCs.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.connect)
            .build()
            .map_err(|error| Error::Trust { reason: innermost(&error) })?;
        let (authorization, credentials) = match &endpoint.authentication {
            Authentication::None => (None, Vec::new()),
            Authentication::HttpBasic { username, password } => {
                let pair = pair(username, password);
                (Some(basic(&pair)?), vec![password.clone(), pair])
            }
        };
        Ok(Self { http, base, authorization, credentials, options, authority })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends one request once, in a version of the API or in none.
    pub(crate) async fn exchange(
        &self,
        request: &Request,
        version: Option<Microversion>,
    ) -> Result<Answer, Error> {
        let after = self.options.request;
        let timeout = || Error::Timeout { address: self.authority.clone(), after };
        tokio::time::timeout(after, self.send(request, version)).await.map_err(|_| timeout())?
    }

    async fn send(&self, request: &Request, version: Option<Microversion>) -> Result<Answer, Error> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(&request.path);
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(version) = version.and_then(|version| HeaderValue::from_str(&version.to_string()).ok()) {
            headers.insert(VERSION, version);
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let mut builder = self.http.request(request.method.clone(), url).headers(headers);
        if let Some(body) = &request.body {
            builder = builder.header(header::CONTENT_TYPE, "application/json").body(body.to_vec());
        }
        let mut response = builder.send().await.map_err(|error| self.failure(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let limit = self.options.body;
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(Error::TooLarge { limit });
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.failure(&error))? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(Error::TooLarge { limit });
            }
            body.extend_from_slice(&piece);
        }
        let secrets = request.secrets.iter().chain(&self.credentials).cloned().collect();
        Ok(Answer { status, headers, body, secrets })
    }

    fn failure(&self, error: &reqwest::Error) -> Error {
        let address = self.authority.clone();
        if let Some(reason) = refused_by_tls(error) {
            return Error::Untrusted { address, reason };
        }
        let reason = if error.is_timeout() && error.is_connect() {
            format!("no connection within {:?}", self.options.connect)
        } else {
            innermost(error)
        };
        Error::Unreachable { address, reason }
    }
}

/// The API's root, `…/v1`.
fn base_of(endpoint: &Endpoint) -> Result<Url, Error> {
    let wrong = |reason| Error::Address { url: without_credentials(&endpoint.url), reason };
    let mut url = Url::parse(endpoint.url.trim()).map_err(|_| wrong("write http[s]://HOST[:PORT]"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("write http[s]://HOST[:PORT]"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it holds credentials; give them apart"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it holds a query or a fragment"));
    }
    if url.scheme() == "http" && !is_loopback(&url) && !matches!(endpoint.trust, Trust::Insecure) {
        return Err(wrong(
            "credentials would go there unencrypted; use https, or `insecure` on a network you trust",
        ));
    }
    let has_version = url.path().trim_end_matches('/').ends_with("/v1");
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty();
        if !has_version {
            segments.push("v1");
        }
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A URL as far as it may be shown, also where it does not parse.
fn without_credentials(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => url.to_owned(),
    }
}

/// User name and password as one text (RFC 7617 §2).
fn pair(username: &str, password: &Secret) -> Secret {
    let pair = Zeroizing::new(format!("{username}:{}", password.reveal()));
    Secret::new(STANDARD.encode(pair.as_bytes()))
}

fn basic(pair: &Secret) -> Result<HeaderValue, Error> {
    let text = Zeroizing::new(format!("Basic {}", pair.reveal()));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| Error::Trust { reason: "the credentials cannot be sent".to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Finds out of a chain of errors whether TLS refused the peer.
fn refused_by_tls(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Some(match tls {
                rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
                    other.to_string()
                }
                _ => tls.to_string(),
            });
        }
        // `source()` of an io::Error skips the error that it wraps.
        let wrapped = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    None
}

/// The last error of a chain: the others repeat the URL.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str, trust: Trust) -> Result<String, Error> {
        base_of(&Endpoint { url: url.to_owned(), authentication: Authentication::None, trust })
            .map(|url| url.to_string())
    }

    #[test]
    fn an_address_with_and_without_version_is_the_same() {
        for url in ["https://i:6385", "https://i:6385/", "https://i:6385/v1", " https://i:6385/v1/ "] {
            assert_eq!(base(url, Trust::Insecure).unwrap(), "https://i:6385/v1", "{url}");
        }
        assert_eq!(base("https://i/baremetal", Trust::Insecure).unwrap(), "https://i/baremetal/v1");
    }

    #[test]
    fn credentials_do_not_go_over_the_network_in_the_clear() {
        let strict = || Trust::Ca(Vec::new());
        assert!(base("http://ironic.example", strict()).is_err());
        assert!(base("http://127.0.0.1:6385", strict()).is_ok());
        assert!(base("http://[::1]:6385", strict()).is_ok());
        assert!(base("http://ironic.example", Trust::Insecure).is_ok());
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_does_not_show_it() {
        for url in ["https://root:hunter2@i", "ftp://root:hunter2@i", "https://root:hunter2@"] {
            let error = base(url, Trust::Insecure).unwrap_err();
            assert_eq!(error.code(), "ironic.address-invalid");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}

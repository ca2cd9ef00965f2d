//! Certificates that no Rust TLS library serves: RSA keys of 1024 bits, as old BMCs have them. A python3 child serves them; nothing but
//! Python's standard library is needed.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::error::Error;

/// A python3 child that serves a Redfish service root over HTTPS with an RSA key of 1024 bits; it ends when dropped.
#[derive(Debug)]
pub struct LegacyServer {
    address: SocketAddr,
    pin: String,
    certificate: String,
    /// Its standard input is a pipe: the child ends too when this process ends without dropping it.
    _child: Child,
}

const PROGRAM: &str = include_str!("legacy.py");
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Started {
    port: u16,
    pin: String,
    certificate: String,
}

impl LegacyServer {
    /// Makes a key and a certificate and serves them on a port of 127.0.0.1 that the system chooses.
    pub async fn rsa_1024() -> Result<Self, Error> {
        let fail = |reason: String| Error::Helper { program: "python3", reason };
        let mut child = Command::new("python3")
            .args(["-I", "-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| fail(error.to_string()))?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(fail("it has no standard output".to_owned()));
        };
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let read = tokio::time::timeout(PATIENCE, stdout.read_line(&mut line)).await;
        match read {
            Ok(Ok(length)) if length > 0 => {}
            Ok(_) => {
                let mut last_words = String::new();
                // The child has closed its output, so that this ends; what cannot be read is left out.
                let _ = stderr.read_to_string(&mut last_words).await;
                return Err(fail(last_words.trim().to_owned()));
            }
            Err(_) => return Err(fail(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
        let started: Started = serde_json::from_str(&line).map_err(|error| fail(error.to_string()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, started.port));
        Ok(Self { address, pin: started.pin, certificate: started.certificate, _child: child })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The pin of its key: `sha256:` and hex.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// Its certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }
}

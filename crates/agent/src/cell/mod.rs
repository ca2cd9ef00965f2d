//! The agent's side of what it says to its cell: enrolment, certificates, reports, permits (DESIGN §5.6, `domain::agent`).
//!
//! [`enrol`] once, or [`enrol_by_file`] where the cell itself has set the host up; then [`Reporter::run`] for as long as the agent lives. It reports whenever something changes and otherwise
//! when the cell said to, renews the certificate at two thirds of its life, and hands on the cell's permits through a [`Gate`].
//! While the cell is away it goes on with the permits that it has, until they run out.

mod error;
mod gate;
mod handed;
mod identity;
mod pace;
mod report;
mod wire;

pub use error::Error;
pub use gate::{Gate, uptime};
pub use handed::{ByFile, enrol_by_file, enrol_later};
pub use identity::{Identity, StateDir};
pub(crate) use report::bounded;
pub use report::{Host, Reporter};

use domain::agent::{AgentToken, CellUrl, ENROL, EnrolAnswer, EnrolRequest};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use wire::Client;

/// Enrols the agent with a cell (`https://HOST[:PORT]`) by a one-time token, and keeps what comes of it. Where the answer is
/// lost, the same token is good again for this host, and for no other. `system_uuid` is the host's own, from SMBIOS. A file that
/// says how to enrol is done with, too.
pub async fn enrol(
    dir: &StateDir,
    cell: &str,
    token: &str,
    system_uuid: Option<String>,
) -> Result<Identity, Error> {
    let token: AgentToken = token.parse().map_err(Error::Token)?;
    let server: CellUrl = cell.parse()?;
    let key = dir.enrolling_key()?;
    let request = EnrolRequest { token: token.reveal(), csr: request(&key)?, system_uuid };
    let mut client = Client::new(server, wire::by_pin(token)?);
    let answer: EnrolAnswer = client.call(ENROL, &request).await?;
    let identity = Identity {
        cell: cell.to_owned(),
        machine: answer.machine,
        key: key.serialize_pem(),
        certificate: answer.certificate,
        ca: answer.ca,
        permit_key: answer.permit_key,
        received: Timestamp::now(),
    };
    // What cannot be used is not kept.
    identity.life()?;
    wire::by_certificate(&identity)?;
    dir.keep_enrolled(&identity)?;
    Ok(identity)
}

/// A certificate request for a key, in PEM. It asks for nothing else: the cell knows what it gives.
fn request(key: &KeyPair) -> Result<String, Error> {
    let made = CertificateParams::default().serialize_request(key).and_then(|request| request.pem());
    made.map_err(|error| Error::Key(error.to_string()))
}

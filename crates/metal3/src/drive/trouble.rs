//! What the operator reports as failed, and whether it concerns the wish.

use super::{Next, Snapshot, lasting, passing};
use crate::KIND_HOST;
use crate::desired::bmc_secret;
use crate::error::problem;
use crate::host::BareMetalHost;
use crate::registration::{Registration, Wish};
use crate::secret::masked;
use crate::states::ErrorType;

/// Longest part of a foreign message that is told.
const MESSAGE_LIMIT: usize = 600;

/// The code of a failure.
pub(super) fn code(kind: &ErrorType) -> &'static str {
    match kind {
        ErrorType::ProvisionedRegistration => "metal3.provisioned-registration-error",
        ErrorType::Registration => "metal3.registration-error",
        ErrorType::Inspection => "metal3.inspection-error",
        ErrorType::Preparation => "metal3.preparation-error",
        ErrorType::Provisioning => "metal3.provisioning-error",
        ErrorType::PowerManagement => "metal3.power-error",
        ErrorType::Detach => "metal3.detach-error",
        ErrorType::Servicing => "metal3.servicing-error",
        ErrorType::Other(_) => "metal3.error",
    }
}

/// A failure that keeps the wish from being reached.
pub(super) fn failure(
    registration: &Registration,
    wish: &Wish,
    seen: &Snapshot,
    host: &BareMetalHost,
) -> Option<Next> {
    let kind = host.status.error()?;
    let later = matches!(
        (wish, kind),
        (Wish::Registered, ErrorType::Inspection | ErrorType::Preparation | ErrorType::Provisioning)
            | (Wish::Inspected, ErrorType::Preparation | ErrorType::Provisioning)
    );
    if later || is_stale(seen, host, kind) {
        return None;
    }
    let place = format!("{KIND_HOST}/{}", host.name);
    let said = said(registration, host);
    if *kind == ErrorType::Registration && refuses_credentials(&said) {
        let message = format!("the BMC of {place} refuses the provisioning service's account: {said}");
        return Some(lasting(problem("metal3.credentials-refused", message).at(place)));
    }
    let times = match host.status.error_count {
        0 | 1 => String::new(),
        count => format!(", {count} times"),
    };
    let message = format!("{place}: {kind}{times}: {said}");
    Some(passing(problem(code(kind), message).at(place)))
}

/// A registration error is of the past while other credentials wait to be tried.
fn is_stale(seen: &Snapshot, host: &BareMetalHost, kind: &ErrorType) -> bool {
    let secret = [host.spec.bmc.credentials_name.clone(), bmc_secret(&host.name)];
    let version = secret.iter().find_map(|name| Some(&seen.secrets.get(name)?.resource_version));
    let tried = &host.status.tried_credentials.credentials_version;
    *kind == ErrorType::Registration && !tried.is_empty() && version.is_some_and(|version| version != tried)
}

/// What Ironic passes on of the BMC's answer is text.
fn refuses_credentials(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    // "HTTP GET … returned code 401" is what sushy says, with the BMC's own words after it.
    [
        "code 401",
        "http 401",
        "401 unauthorized",
        "status code: 401",
        "unauthorized",
        "authentication failed",
        "invalid username",
    ]
    .iter()
    .any(|sign| said.contains(sign))
}

fn said(registration: &Registration, host: &BareMetalHost) -> String {
    let said = masked(&host.status.error_message, registration.credentials.as_ref());
    let said = said.trim();
    match said.char_indices().nth(MESSAGE_LIMIT) {
        _ if said.is_empty() => "the operator says nothing more".to_owned(),
        Some((end, _)) => format!("{}…", &said[..end]),
        None => said.to_owned(),
    }
}
